"""A small benchmark as another group might publish it: VNN-LIB 1.0, written without our writers.

Two networks in the manner of ACAS Xu (Katz et al. 2017, arXiv 1702.01135): 5 inputs, 2 layers of
20 ReLUs, 5 outputs. One takes inputs of its own scale and normalises them itself. The properties
are of the kinds found in VNN-COMP and of those that readers often refuse or misread. The tests
establish each answer anew with z3, from the files alone.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from conspec.encodings.decimals import decimal_text
from conspec.lens.onnx_files import model_bytes

Layer = tuple[list[list[Fraction]], list[Fraction]]
Bounds = Sequence[tuple[str, str]]

SIZES = (5, 20, 20, 5)
SEED = 7
SECONDS = 60
CENTRE = ("0.6", "-0.3", "0.25", "0.4", "-0.15")
"""The point that small boxes lie around; its tenths are no floats."""
PEAK = "+-++-"
"""The corner of the smallest box at which output 2 is largest."""
MEANS = ("19791.0", "0.0", "0.0", "650.0", "600.0")
RANGES = ("60261.0", "6.25", "6.25", "1100.0", "1200.0")
"""Offsets and scales of the normalising network, of the size of ACAS Xu's."""

README = """# A small hand-made benchmark

Two ReLU networks with 5 inputs and 5 outputs, and {count} properties in VNN-LIB 1.0.
`acas.onnx` takes X in its own units; `normalised.onnx` takes raw X and computes
(X - mean) / range first. Inputs have shape [1,1,1,5] and are numbered row by row.
Numbers are exact decimals. `expected.csv` holds the answers; weights are multiples of 1/32.
"""


class Written(NamedTuple):
    """One property and its answer."""

    name: str
    network: str
    asserts: list[str]
    answer: str


def write_handmade(folder: Path) -> None:
    """Write the benchmark: networks, properties, the list of instances and the known answers."""
    for name in ("onnx", "vnnlib"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    layers = _layers()
    (folder / "onnx/acas.onnx").write_bytes(_model(layers, normalised=False))
    (folder / "onnx/normalised.onnx").write_bytes(_model(layers, normalised=True))
    instances = list(_instances(layers))
    for instance in instances:
        text = _text(instance)
        (folder / f"vnnlib/{instance.name}.vnnlib").write_text(text, encoding="utf-8")
    lines = [f"onnx/{one.network}.onnx,vnnlib/{one.name}.vnnlib,{SECONDS}" for one in instances]
    (folder / "instances.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")
    answers = ["instance,answer", *(f"{one.name},{one.answer}" for one in instances), ""]
    (folder / "expected.csv").write_text("\n".join(answers), encoding="utf-8")
    (folder / "README.md").write_text(README.format(count=len(instances)), encoding="utf-8")


def _layers() -> list[Layer]:
    """Weights and biases, multiples of 1/32 in [−1, 1] and [−1/2, 1/2]."""
    random = Random(SEED)

    def number(half: int) -> Fraction:
        return Fraction(round(random.random() * 2 * half) - half, 32)

    return [
        ([[number(32) for _ in range(n)] for _ in range(m)], [number(16) for _ in range(m)])
        for n, m in pairwise(SIZES)
    ]


def _outputs(layers: list[Layer], point: Sequence[str]) -> list[Fraction]:
    """What ``acas.onnx`` computes at a point, exactly."""
    values = [Fraction(text) for text in point]
    for number, (weight, bias) in enumerate(layers):
        if number:
            values = [max(value, Fraction(0)) for value in values]
        rows = zip(weight, bias, strict=True)
        values = [sum(map(Fraction.__mul__, row, values), start) for row, start in rows]
    return values


def _model(layers: list[Layer], normalised: bool) -> bytes:
    """The ONNX file."""
    from onnx import TensorProto, helper, numpy_helper

    arrays: dict[str, Any] = {}
    nodes = []
    if normalised:
        shape = (1, 1, 1, SIZES[0])
        arrays["mean"] = np.array([float(v) for v in MEANS], np.float32).reshape(shape)
        arrays["range"] = np.array([float(v) for v in RANGES], np.float32).reshape(shape)
        arrays["flat_shape"] = np.array([1, SIZES[0]], np.int64)
        nodes = [
            helper.make_node("Sub", ["input", "mean"], ["shifted"]),
            helper.make_node("Div", ["shifted", "range"], ["scaled"]),
            helper.make_node("Reshape", ["scaled", "flat_shape"], ["h0"]),
        ]
    else:
        nodes = [helper.make_node("Flatten", ["input"], ["h0"], axis=1)]
    for k, (weight, bias) in enumerate(layers):
        last = k == len(layers) - 1
        arrays[f"W{k}"] = np.array(weight, np.float32).T
        arrays[f"B{k}"] = np.array(bias, np.float32)
        nodes.append(helper.make_node("MatMul", [f"h{k}", f"W{k}"], [f"m{k}"]))
        sums = "output" if last else f"a{k}"
        nodes.append(helper.make_node("Add", [f"m{k}", f"B{k}"], [sums]))
        if not last:
            nodes.append(helper.make_node("Relu", [sums], [f"h{k + 1}"]))
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "acas",
        [helper.make_tensor_value_info("input", kind, [1, 1, 1, SIZES[0]])],
        [helper.make_tensor_value_info("output", kind, [1, SIZES[-1]])],
        [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in arrays.items()],
    )
    return model_bytes(graph)


def _text(instance: Written) -> str:
    """The VNN-LIB file."""
    lines = [f"; {instance.name}: a counterexample is an input that satisfies all of this", ""]
    lines += [f"(declare-const X_{i} Real)" for i in range(SIZES[0])]
    lines += [f"(declare-const Y_{j} Real)" for j in range(SIZES[-1])]
    return "\n".join([*lines, "", *(f"(assert {body})" for body in instance.asserts), ""])


def _box(bounds: Bounds) -> list[str]:
    """Comparisons that say the box."""
    return [
        comparison
        for i, (lower, upper) in enumerate(bounds)
        for comparison in (f"(>= X_{i} {lower})", f"(<= X_{i} {upper})")
    ]


def _around(point: Sequence[str], radius: str) -> Bounds:
    """The box of a radius around a point."""
    centre, eps = [Fraction(text) for text in point], Fraction(radius)
    return [(_decimal(value - eps), _decimal(value + eps)) for value in centre]


def _decimal(value: Fraction) -> str:
    """The exact decimal; all numbers here have one."""
    text = decimal_text(value)
    if text is None:
        raise ValueError(f"{value} is no finite decimal")
    return text


def _beaten(label: int) -> str:
    """Some other output is at least as large."""
    others = [j for j in range(SIZES[-1]) if j != label]
    return f"(or {' '.join(f'(and (>= Y_{j} Y_{label}))' for j in others)})"


def _corner(bounds: Bounds, picks: str) -> list[str]:
    """A corner of a box: ``-`` takes the lower bound, ``+`` the upper."""
    return [pair[pick == "+"] for pair, pick in zip(bounds, picks, strict=True)]


def _instances(layers: list[Layer]) -> Iterator[Written]:
    """The properties; each kind first where it is easy to decide."""
    value = [_decimal(entry) for entry in _outputs(layers, CENTRE)]
    tiny, small, large = (_around(CENTRE, radius) for radius in ("0.01", "0.05", "0.2"))
    top = _decimal(_outputs(layers, _corner(tiny, PEAK))[2])
    point = _box(list(zip(CENTRE, CENTRE, strict=True)))
    near, some, far = _box(small), _box(_around(CENTRE, "0.1")), _box(large)
    shifted = _box([("0.0", "0.1")])
    boxes = f"(or (and {' '.join(near)}) (and {' '.join([*shifted, *near[2:]])}))"
    wide = _box([("-1000.0", "1000.0")] * SIZES[0])
    flat = "(or (and (>= Y_4 Y_2) (<= Y_3 Y_2)) (and (>= Y_1 Y_2)))"
    rise = (
        f"(or (and (>= Y_4 Y_2) (>= Y_3 Y_2)) (and (>= Y_1 Y_2)) (and {_beaten(3)} (<= Y_2 0.0)))"
    )

    def acas(name: str, answer: str, *asserts: str) -> Written:
        return Written(name, "acas", list(asserts), answer)

    yield acas("point_value", "sat", *point, f"(>= Y_2 {value[2]})")
    yield acas("point_above", "unsat", *point, f"(> Y_2 {value[2]})")
    yield acas("box_empty", "unsat", *near, "(<= X_3 0.3)", "(>= Y_2 -100.0)")
    yield acas("box_wide", "sat", *wide, "(>= Y_1 100.0)", "(<= Y_0 -100.0)")
    yield acas("robust_small", "unsat", *near, _beaten(2))
    yield acas("robust_large", "sat", *far, _beaten(2))
    yield acas("range_small", "unsat", *near, "(or (and (>= Y_0 -2.9)) (and (<= Y_0 -5.5)))")
    yield acas("range_large", "sat", *far, "(>= Y_0 -2.9)")
    yield acas("peak_reached", "sat", *_box(tiny), f"(>= Y_2 {top})")
    yield acas("peak_passed", "unsat", *_box(tiny), f"(> Y_2 {top})")
    yield acas("boxes_one_fits", "sat", boxes, _beaten(2))
    yield acas("boxes_none_fits", "unsat", boxes, _beaten(2), "(>= Y_3 Y_2)", "(>= Y_0 Y_1)")
    yield acas("after_or_free", "sat", *some, rise, "(<= Y_0 0.0)", "(>= Y_2 -1.0)")
    yield acas("after_or_bound", "unsat", *some, flat, "(<= Y_0 0.0)", "(>= Y_2 1.0)")
    yield acas("polytope_open", "sat", *far, "(<= (- X_0 X_1) 0.9)", "(>= Y_0 -2.0)")
    yield acas("polytope_cut", "unsat", *far, "(>= (+ X_0 X_1 X_2 X_3) 1.1)", "(>= Y_0 -2.0)")
    yield acas("relation_holds", "unsat", *near, "(>= Y_2 (+ X_0 0.9))")
    yield acas("relation_fails", "sat", *near, "(>= Y_2 (+ (* 0.5 X_0) (* -1.0 X_1) 0.7))")
    yield acas("equal_outputs", "sat", *far, "(<= Y_2 Y_4)", "(>= Y_2 Y_4)", "(< X_0 0.7)")
    yield acas("equal_inputs", "unsat", *near, "(= X_0 (* -2.0 X_1))", _beaten(2))
    for name, answer, asserts in (
        ("robust_small", "unsat", [*_box(_raw(small)), _beaten(2)]),
        ("robust_large", "sat", [*_box(_raw(large)), _beaten(2)]),
        ("peak_reached", "sat", [*_box(_raw(tiny)), f"(>= Y_2 {top})"]),
        ("peak_passed", "unsat", [*_box(_raw(tiny)), f"(> Y_2 {top})"]),
    ):
        yield Written(f"raw_{name}", "normalised", asserts, answer)


def _raw(bounds: Bounds) -> Bounds:
    """The box in the units of ``normalised.onnx``."""
    return [
        (_decimal(scale * Fraction(lower) + mean), _decimal(scale * Fraction(upper) + mean))
        for (lower, upper), mean, scale in zip(
            bounds, map(Fraction, MEANS), map(Fraction, RANGES), strict=True
        )
    ]
