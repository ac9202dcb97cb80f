import os
import time
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from conspec.encodings import onnx_reader, onnx_tensors
from conspec.encodings.exact import from_array, vector
from conspec.encodings.network import Network
from conspec.encodings.onnx_reader import read_affine, read_network
from conspec.specs.errors import BadFile, ConspecError, UnsupportedOperator

Inits = Mapping[str, Any]
node = helper.make_node


def model(
    nodes: Sequence[NodeProto],
    inits: Inits | None = None,
    *,
    shape: Sequence[Any] | None = ("N", 3),
    kind: int = TensorProto.FLOAT,
    out: str = "y",
    opset: int = 17,
) -> ModelProto:
    """A model from ``x`` to ``out``; constants become float32 unless they are arrays."""
    constants = [
        numpy_helper.from_array(
            value if isinstance(value, np.ndarray) else np.array(value, dtype=np.float32), name
        )
        for name, value in (inits or {}).items()
    ]
    ends = (
        helper.make_tensor_value_info("x", kind, shape),
        helper.make_tensor_value_info(out, kind, None),
    )
    graph = helper.make_graph(nodes, "g", [ends[0]], [ends[1]], constants)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def saved(folder: Path, content: ModelProto | bytes) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


Read = Callable[..., Network]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def function(content: ModelProto | bytes, **options: bool) -> Network:
        return read_network(saved(tmp_path, content), **options)

    return function


def at(network: Network, *point: float | Fraction) -> list[Fraction]:
    return network.exact(vector([Fraction(value) for value in point]))


def f32(value: float) -> Fraction:
    return Fraction(float(np.float32(value)))


# Exact values by hand


def test_gemm_with_all_its_attributes(read: Read) -> None:
    inits = {"w": [[1, 2, 3], [4, 5, 6]], "c": [10, 20]}
    gemm = node("Gemm", ["x", "w", "c"], ["y"], alpha=0.1, beta=0.3, transB=1)
    network = read(model([gemm], inits))
    tenth, rest = f32(0.1), f32(0.3)
    assert at(network, 1, 1, 2) == [9 * tenth + 10 * rest, 21 * tenth + 20 * rest]
    assert network.is_affine


def test_gemm_with_the_constant_on_the_left(read: Read) -> None:
    nodes = [node("Transpose", ["x"], ["t"]), node("Gemm", ["w", "t"], ["g"], alpha=2.0)]
    nodes.append(node("Transpose", ["g"], ["y"]))
    network = read(model(nodes, {"w": [[1, 2, 3], [4, 5, 6]]}))
    assert at(network, 1, 1, 2) == [18, 42]


def test_division_by_three_is_exact(read: Read) -> None:
    network = read(model([node("Div", ["x", "c"], ["y"])], {"c": [3, 7, 0.5]}))
    assert at(network, 1, 1, 1) == [Fraction(1, 3), Fraction(1, 7), 2]
    assert network.affines[0].weight.dtype == object


def test_products_of_weights_are_exact(read: Read) -> None:
    nodes = [node("MatMul", ["x", "v"], ["h"]), node("MatMul", ["h", "w"], ["y"])]
    network = read(model(nodes, {"v": [[0.1], [0.7], [0.3]], "w": [[0.1, 0.2]]}))
    expected = [(f32(0.1) + f32(0.7) + f32(0.3)) * f32(w) for w in (0.1, 0.2)]
    assert at(network, 1, 1, 1) == expected


@pytest.mark.parametrize("alpha", [0.01, 0.25, 1.5, -0.5, 0.0])
def test_leaky_relu(read: Read, alpha: float) -> None:
    network = read(model([node("LeakyRelu", ["x"], ["y"], alpha=alpha)]))
    assert at(network, -2, 0, 3) == [-2 * f32(alpha), 0, 3]


def test_leaky_relu_has_a_float32_default(read: Read) -> None:
    network = read(model([node("LeakyRelu", ["x"], ["y"])]))
    assert at(network, -1, 0, 3) == [-f32(0.01), 0, 3]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-1.5, 2.0, [-1.5, 0.5, 2]),
        (0.0, 6.0, [0, 0.5, 6]),
        (None, 2.0, [-4, 0.5, 2]),
        (-1.5, None, [-1.5, 0.5, 9]),
        (None, None, [-4, 0.5, 9]),
        (1.0, 1.0, [1, 1, 1]),
    ],
)
@pytest.mark.parametrize("opset", [10, 11, 17])
def test_clip(
    read: Read, low: float | None, high: float | None, expected: list[float], opset: int
) -> None:
    bounds: dict[str, Any] = {k: v for k, v in {"min": low, "max": high}.items() if v is not None}
    if opset < 11:
        inits: dict[str, Any] = {}
        clip = node("Clip", ["x"], ["y"], **bounds)
    else:
        inputs = ["x", "" if low is None else "min", "" if high is None else "max"]
        clip, inits = node("Clip", inputs, ["y"]), bounds
    network = read(model([clip], inits, opset=opset))
    assert at(network, -4, 0.5, 9) == expected


def test_clip_at_the_types_limits_is_no_clip(read: Read) -> None:
    largest = float(np.finfo(np.float32).max)
    clip = node("Clip", ["x", "a", "b"], ["y"])
    assert read(model([clip], {"a": -largest, "b": largest})).is_affine


@pytest.mark.parametrize("bound", [{"max": 1.0}, {"min": -1.0}, {}])
def test_a_clip_of_doubles_needs_no_bound(read: Read, bound: dict[str, Any]) -> None:
    """Before opset 11 the default is the type's limit, which for doubles is no float32 number."""
    clip = node("Clip", ["x"], ["y"], **bound)
    network = read(model([clip], {}, opset=10, kind=TensorProto.DOUBLE))
    low, high = bound.get("min", -4.0), bound.get("max", 9.0)
    assert at(network, -4, 0.5, 9) == [max(-4.0, low), 0.5, min(9.0, high)]


def test_batch_normalization(read: Read) -> None:
    inits = {"s": [1.5, -2, 1], "b": [0.1, 0, 1], "m": [0.3, 1, 2], "v": [0.7, 4, 0]}
    norm = node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], epsilon=0.001)
    network = read(model([norm], inits))
    epsilon = float(np.float32(0.001))
    first = Fraction(1.5 / sqrt(float(np.float32(0.7)) + epsilon))
    result = at(network, 1, 1, 1)
    exactly = first * (1 - f32(0.3)) + f32(0.1)
    assert abs(result[0] / exactly - 1) < 2**-51
    assert result[1] == 0
    factor = (result[2] - 1) / (1 - 2)
    assert factor == Fraction(float(factor))
    below, above = (Fraction(np.nextafter(float(factor), to)) for to in (0, np.inf))
    middles = (below + factor) / 2, (above + factor) / 2
    assert middles[0] ** 2 <= 1 / Fraction(epsilon) <= middles[1] ** 2


def test_residual_around_a_relu(read: Read) -> None:
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("Sub", ["a", "x"], ["b"]),
        node("Relu", ["b"], ["c"]),
        node("Add", ["c", "x"], ["d"]),
        node("Add", ["d", "a"], ["y"]),
    ]
    network = read(model(nodes))
    assert len(network.affines) == 3
    assert at(network, -3, 0, Fraction(7, 3)) == [0, 0, Fraction(14, 3)]


def test_what_the_output_does_not_need_is_left_out(read: Read) -> None:
    nodes = [node("Relu", ["x"], ["unused"]), node("Neg", ["x"], ["y"])]
    assert read(model(nodes)).is_affine


def test_a_constant_output(read: Read) -> None:
    nodes = [node("Mul", ["x", "zero"], ["z"]), node("Relu", ["c"], ["r"])]
    nodes.append(node("Add", ["z", "r"], ["y"]))
    network = read(model(nodes, {"zero": 0.0, "c": [-1, 0, 2]}))
    assert at(network, 5, 6, 7) == [0, 0, 2]
    alone = read(model([node("Relu", ["c"], ["y"])], {"c": [-1, 2]}))
    assert at(alone, 5, 6, 7) == [0, 2]


def test_plain_weights_stay_floats(read: Read) -> None:
    weights = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    nodes = [node("Gemm", ["x", "w"], ["h"], transB=1), node("Relu", ["h"], ["y"])]
    network = read(model(nodes, {"w": weights}))
    assert [layer.weight.dtype for layer in network.affines] == [np.float64, np.float64]
    assert np.array_equal(network.affines[0].weight, weights)


@pytest.mark.parametrize("opset", [9, 11])
def test_softmax_at_the_end_may_be_dropped(read: Read, opset: int) -> None:
    nodes = [node("Neg", ["x"], ["h"]), node("Softmax", ["h"], ["y"])]
    assert at(read(model(nodes, opset=opset), softmax_allowed=True), 1, 2, 3) == [-1, -2, -3]
    with pytest.raises(UnsupportedOperator, match="without it"):
        read(model(nodes, opset=opset))
    with pytest.raises(UnsupportedOperator, match="without it"):
        read(model([*nodes, node("Neg", ["y"], ["z"])], opset=opset), softmax_allowed=True)
    nodes[-1] = node("Softmax", ["h"], ["y"], axis=0)
    with pytest.raises(UnsupportedOperator, match="axis=0 is not the last one"):
        read(model(nodes), softmax_allowed=True)


@pytest.mark.parametrize(
    ("shape", "outputs"),
    [(["N", 2, 1, 3], 6), ([1, 2, 1, 3], 6), ([None, 6], 6), ([1, 6], 6)],
)
def test_input_shapes(read: Read, shape: list[Any], outputs: int) -> None:
    nodes = [node("Relu", ["x"], ["h"]), node("Flatten", ["h"], ["y"])]
    assert read(model(nodes, shape=shape)).outputs == outputs


def test_an_input_without_batch_axis(read: Read) -> None:
    matmul = [node("MatMul", ["w", "x"], ["y"])]
    network = read(model(matmul, {"w": [[1, 2, 3], [0, 0, 1]]}, shape=[3]))
    assert at(network, 1, 10, 100) == [321, 100]
    column = [node("MatMul", ["x", "w"], ["h"]), node("Unsqueeze", ["h", "axes"], ["y"])]
    inits = {"w": [1.0, 2.0, 3.0], "axes": np.array([0])}
    assert at(read(model(column, inits, shape=[3])), 1, 10, 100) == [321]


def test_a_product_for_every_row(read: Read) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Flatten", ["h"], ["y"])]
    network = read(model(nodes, {"w": [[1, 2], [10, 20]]}, shape=["N", 3, 2]))
    assert at(network, 1, 0, 0, 1, 1, 1) == [1, 2, 10, 20, 11, 22]
    nodes = [node("Squeeze", ["x", "axis"], ["s"]), node("MatMul", ["w", "s"], ["y"])]
    inits = {"w": [1.0, 10.0, 100.0], "axis": np.array([0])}
    assert at(read(model(nodes, inits, shape=[1, 3, 2])), 1, 0, 0, 1, 1, 1) == [101, 110]


def test_constants_of_every_form(read: Read) -> None:
    tensor = numpy_helper.from_array(np.array([[1, 2, 3]], dtype=np.float64), "t")
    nodes = [
        node("Constant", [], ["a"], value=tensor),
        node("Cast", ["a"], ["b"], to=TensorProto.FLOAT),
        node("Constant", [], ["c"], value_float=0.1),
        node("Constant", [], ["d"], value_floats=[1.0, 2.0, 4.0]),
        node("Constant", [], ["i"], value_int=2),
        node("Constant", [], ["j"], value_ints=[1, 3]),
        node("Mul", ["x", "b"], ["e"]),
        node("Add", ["e", "c"], ["f"]),
        node("Sub", ["d", "f"], ["g"]),
        node("Reshape", ["g", "j"], ["h"]),
        node("Gather", ["h", "i"], ["k"], axis=1),
        node("Reshape", ["k", "minus"], ["y"]),
    ]
    network = read(model(nodes, {"minus": np.array([1, -1])}))
    assert at(network, 1, 1, 1) == [1 - f32(0.1)]


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.DOUBLE])
def test_constants_outside_raw_data(read: Read, kind: int) -> None:
    tensor = helper.make_tensor("c", kind, [3], [0.1, 2, 3])
    assert not tensor.raw_data
    content = model([node("Add", ["x", "c"], ["y"])], kind=kind)
    content.graph.initializer.append(tensor)
    expected = f32(0.1) if kind == TensorProto.FLOAT else Fraction(0.1)
    assert at(read(content), 0, 0, 0) == [expected, 2, 3]


def test_dynamic_flatten_as_exporters_write_it(read: Read) -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"], axis=0),
        node("Unsqueeze", ["n", "axes"], ["n1"]),
        node("Concat", ["n1", "minus"], ["to"], axis=0),
        node("Reshape", ["x", "to"], ["y"]),
    ]
    inits = {"zero": np.array(0), "axes": np.array([0]), "minus": np.array([-1])}
    assert read(model(nodes, inits, shape=["N", 2, 3, 1])).outputs == 6


def test_read_affine(tmp_path: Path) -> None:
    path = saved(tmp_path, model([node("Neg", ["x"], ["y"])]))
    assert read_affine(path).exact(from_array(np.array([1.0, 2, 3]))) == [-1, -2, -3]
    path = saved(tmp_path, model([node("Relu", ["x"], ["y"])]))
    with pytest.raises(UnsupportedOperator, match=r"model\.onnx: the concept map must be affine"):
        read_affine(path)


# External data


def external(folder: Path, location: str, **entries: str) -> Path:
    content = model([node("Add", ["x", "c"], ["y"])])
    tensor = content.graph.initializer.add(name="c", data_type=TensorProto.FLOAT, dims=[3])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return saved(folder, content)


def test_external_data_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    numbers = np.array([9, 1, 2, 3], dtype="<f4")
    (tmp_path / "sub" / "data").write_bytes(numbers.tobytes())
    path = external(tmp_path, "sub/data", offset="4", length="12")
    assert at(read_network(path), 0, 0, 0) == [1, 2, 3]


@pytest.mark.parametrize(
    ("location", "entries", "message"),
    [
        ("../data", {}, "outside the model's folder"),
        ("/etc/passwd", {}, "outside the model's folder"),
        ("", {}, "outside the model's folder"),
        ("link", {}, "leads out of the model's folder"),
        ("missing", {}, "there is no external data file"),
        (".", {}, "is not a file"),
        ("data", {"offset": "8"}, "is too short"),
        ("data", {"offset": "-8"}, "offset or length '-8'"),
        ("data", {"length": "8"}, "has 8 bytes of external data, not 12"),
        ("data", {"checksum": "0"}, r"external data with \['checksum'\] keys"),
    ],
)
def test_external_data_elsewhere(
    tmp_path: Path, location: str, entries: dict[str, str], message: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for place in (tmp_path / "data", folder / "data"):
        place.write_bytes(bytes(12))
    os.symlink(tmp_path / "data", folder / "link")
    with pytest.raises(BadFile, match=message):
        read_network(external(folder, location, **entries))


# Refusals: (node, constants, message)

BN = ["x", "s", "s", "s", "v"]
REFUSED: list[tuple[NodeProto, Inits, str]] = [
    (node("Conv", ["x", "w"], ["y"], "c1"), {"w": [1.0]}, r"node 'c1' \(Conv\): this operator"),
    (node("Gelu", ["x"], ["y"], domain="com.microsoft"), {}, "domain 'com.microsoft'"),
    (node("Relu", ["x"], ["y"], domain="ai.onnx.ml"), {}, "of the domain 'ai.onnx.ml'"),
    (node("If", ["x"], ["y"]), {}, r"node '#0' \(If\): this operator is not supported; use Add"),
    (
        node("Gemm", ["x", "w"], ["y"], "fc2", transA=1),
        {"w": [[1.0]]},
        r"model\.onnx: node 'fc2' \(Gemm\): transA=1 is not supported; export with transA=0",
    ),
    (node("Gemm", ["x", "w"], ["y"], broadcast=1), {"w": [[1.0]] * 3}, "attribute 'broadcast'"),
    (node("Gemm", ["x", "w"], ["y"], alpha=1), {"w": [[1.0]] * 3}, "alpha has a wrong type"),
    (node("Gemm", ["x", "w"], ["y"], alpha=float("nan")), {"w": [[1.0]] * 3}, "alpha is nan"),
    (node("Gemm", ["x", "w"], ["y"]), {"w": [[1.0]] * 4}, r"\[1, 3\] and \[4, 1\] do not multiply"),
    (node("Gemm", ["x", "w"], ["y"]), {"w": [1.0] * 3}, "not matrices"),
    (node("Gemm", ["x", "w", "c"], ["y"]), {"w": [[1.0]] * 3, "c": [1.0, 2.0]}, "broadcast"),
    (node("MatMul", ["x", "w"], ["y"]), {"w": [[[1.0]] * 3]}, "one side must be a constant"),
    (node("MatMul", ["x", "x"], ["y"]), {}, "one side must be a constant"),
    (node("MatMul", ["x"], ["y"]), {}, "1 inputs, not 2 to 2"),
    (node("MatMul", ["x", ""], ["y"]), {}, "input 1 is missing"),
    (node("Add", ["x", "c"], ["y"]), {"c": [1.0, 2.0]}, "do not fit together"),
    (node("Add", ["x", "c"], ["y"]), {"c": np.ones(3)}, "different element types: DOUBLE, FLOAT"),
    (node("Add", ["x", "c"], ["y"]), {"c": np.ones(3, int)}, "input 1 has element type INT64"),
    (node("Add", ["x", "c"], ["y"]), {"c": np.ones(3, np.float16)}, "'c': element type FLOAT16"),
    (node("Add", ["x", "c"], ["y"]), {"c": np.ones(3, np.int8)}, "'c': element type INT8"),
    (node("Add", ["x", "c"], ["y"]), {"c": [1.0, np.nan, 1.0]}, "'c' has NaN entries"),
    (node("Add", ["x", "c"], ["y"]), {"c": [1.0, np.inf, 1.0]}, "'c' has infinite entries"),
    (node("Add", ["x", "c"], ["y"]), {"c": np.ones((0, 3), np.float32)}, "'c' is empty"),
    (node("Add", ["x", "x", "x"], ["y"]), {}, "3 inputs, not 2 to 2"),
    (node("Add", ["x", "nobody"], ["y"]), {}, "uses 'nobody', which nothing before it makes"),
    (node("Add", ["x", "y"], ["y"]), {}, "uses 'y', which nothing before it makes"),
    (node("Add", ["x", "x"], ["x"]), {}, "two tensors have the name 'x'"),
    (node("Add", ["x", "x"], ["y", "z"]), {}, "it must have one output"),
    (node("Add", ["x", "x"], [""]), {}, "has no output"),
    (node("Add", ["x", "x"], ["z"]), {}, "the output 'y' is not made by any node"),
    (node("Add", ["x", "c"], ["y"]), {"c": [[1.0]] * 4}, r"'y' has shape \[4, 3\], not \[N, m\]"),
    (node("Shape", ["x"], ["y"]), {}, "'y' is declared FLOAT, but computed INT64"),
    (node("Mul", ["x", "x"], ["y"]), {}, "is not affine"),
    (node("Div", ["c", "x"], ["y"]), {"c": 1.0}, "input 1 must be a constant"),
    (node("Div", ["x", "c"], ["y"]), {"c": [1.0, 0, 1]}, "the divisor has a zero"),
    (node("Relu", ["x"], ["y"], slope=1.0), {}, "attribute 'slope' is not supported"),
    (node("LeakyRelu", ["x"], ["y"], alpha=np.inf), {}, "alpha is inf"),
    (node("Clip", ["x", "x"], ["y"]), {}, "input 1 must be a constant"),
    (node("Clip", ["x", "c"], ["y"]), {"c": [1.0, 2.0]}, r"input 1 \(min\) must be one"),
    (node("Clip", ["x", "c", "d"], ["y"]), {"c": 2.0, "d": 1.0}, "2.0 is above the upper bound"),
    (node("Clip", ["x"], ["y"], min=1.0), {}, "attribute 'min' is not supported"),
    (node("Dropout", ["x", "", "t"], ["y"]), {"t": np.array(True)}, "training_mode is not"),
    (node("Dropout", ["x", "x"], ["y"]), {}, "input 1 must be a constant"),
    (node("Softmax", ["x"], ["y"]), {}, "softmax is not piecewise linear"),
    (node("BatchNormalization", BN, ["y"]), {"s": [1.0], "v": [1.0]}, r"must have shape \[3\]"),
    (
        node("BatchNormalization", BN, ["y"], training_mode=1),
        {"s": [1.0] * 3, "v": [1.0] * 3},
        "training_mode=1 is not supported",
    ),
    (
        node("BatchNormalization", BN, ["y"]),
        {"s": [1.0] * 3, "v": [1.0, 1.0, -1.0]},
        "variance \\+ epsilon is not positive",
    ),
    (node("Flatten", ["x"], ["y"], axis=3), {}, "axis=3 does not fit an input with 2 axes"),
    (node("Reshape", ["x", "s"], ["y"]), {"s": np.array([1, 4])}, "cannot reshape"),
    (node("Reshape", ["x", "s"], ["y"]), {"s": np.array([1, -2])}, "is not a shape"),
    (node("Reshape", ["x", "s"], ["y"]), {"s": np.array([1, 3, 0])}, "copies an axis"),
    (node("Reshape", ["x", "s"], ["y"]), {"s": np.array(3)}, "must be a list"),
    (node("Reshape", ["x", "s"], ["y"]), {"s": [1.0, 3.0]}, "must be a constant of INT32"),
    (node("Reshape", ["x"], ["y"]), {}, "input 1 is missing"),
    (node("Squeeze", ["x", "s"], ["y"]), {"s": np.array([1])}, "squeeze"),
    (node("Squeeze", ["x"], ["y"], axes=[0]), {}, "attribute 'axes' is not supported"),
    (node("Unsqueeze", ["x"], ["y"]), {}, "does not say which axes"),
    (node("Transpose", ["x"], ["y"], perm=[0]), {}, "axes don't match"),
    (node("Gather", ["x", "s"], ["y"], axis=1), {"s": np.array([3])}, "out of bounds"),
    (node("Gather", ["x", "s"], ["y"], axis=5), {"s": np.array([0])}, "axis 5 is out of bounds"),
    (
        node("Slice", ["x", "s", "e", "a"], ["y"]),
        {"s": np.array([0]), "e": np.array([0]), "a": np.array([1])},
        "is empty",
    ),
    (
        node("Slice", ["x", "s", "s", "s", "z"], ["y"]),
        {"s": np.array([0]), "z": np.array([0])},
        "step cannot be zero",
    ),
    (node("Slice", ["x", "s", "e"], ["y"]), {"s": np.zeros(1, int), "e": np.zeros(2, int)}, "fit"),
    (node("Slice", ["x", "s", "s", "a"], ["y"]), {"s": np.array([0]), "a": np.array([2])}, "axes"),
    (node("Concat", ["x", "x"], ["y"]), {}, "it has no axis"),
    (node("Concat", ["x", "c"], ["y"], axis=1), {"c": [1.0]}, "dimension"),
    (node("Cast", ["x"], ["y"], to=TensorProto.FLOAT16), {}, "from FLOAT to FLOAT16"),
    (node("Cast", ["x"], ["y"]), {}, "from FLOAT to UNDEFINED"),
    (
        node("Cast", ["c"], ["y"], to=TensorProto.FLOAT),
        {"c": np.array([1e300])},
        "infinite entries",
    ),
    (node("Constant", [], ["y"], value_string="a"), {}, "attribute 'value_string'"),
    (node("Constant", [], ["y"]), {}, "it has no value"),
    (node("Constant", [], ["y"], value_float=np.nan), {}, "value has NaN entries"),
]


@pytest.mark.parametrize(
    ("refused", "inits", "message"), REFUSED, ids=[f"{r[0].op_type}-{r[2]}" for r in REFUSED]
)
def test_refused_nodes(read: Read, refused: NodeProto, inits: Inits, message: str) -> None:
    with pytest.raises(BadFile, match=message) as caught:
        read(model([refused], inits))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "inits", "opset", "message"),
    [
        (node("Clip", ["x", "c"], ["y"]), {"c": 1.0}, 10, "input 1 is not supported in opset 10"),
        (node("Dropout", ["x", "c"], ["y"]), {"c": 0.5}, 11, "input 1 is not supported in opset"),
        (node("Squeeze", ["x", "c"], ["y"]), {"c": np.array([0])}, 12, "input 1 is not supported"),
        (node("BatchNormalization", BN, ["y"], spatial=0), {"s": 1.0, "v": 1.0}, 8, "spatial=0"),
        (node("Relu", ["x"], ["y"]), {}, 6, "opset 6 is not supported; export with opset 7 to"),
        (node("Relu", ["x"], ["y"]), {}, 99, "opset 99 is not supported"),
    ],
)
def test_refused_in_an_opset(
    read: Read, old: NodeProto, inits: Inits, opset: int, message: str
) -> None:
    with pytest.raises(UnsupportedOperator, match=message):
        read(model([old], inits, opset=opset))


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        (None, TensorProto.FLOAT, "input 'x' has no shape"),
        ([], TensorProto.FLOAT, "input 'x' has no shape"),
        (["n"], TensorProto.FLOAT, "only the batch axis may be dynamic"),
        (["N", "n"], TensorProto.FLOAT, "only the batch axis may be dynamic"),
        ([4, 3], TensorProto.FLOAT, "the batch axis must be N or 1"),
        (["N", 0], TensorProto.FLOAT, r"input 'x' has shape \[1, 0\]"),
        (["N", -3], TensorProto.FLOAT, r"input 'x' has shape \[1, -3\]"),
        (["N", 2**40], TensorProto.FLOAT, "1099511627776 entries is larger than the limit"),
        (["N", 3], TensorProto.FLOAT16, "element type FLOAT16, not FLOAT or DOUBLE"),
        (["N", 3], TensorProto.BFLOAT16, "element type BFLOAT16, not FLOAT or DOUBLE"),
        (["N", 3], TensorProto.INT64, "element type INT64, not FLOAT or DOUBLE"),
    ],
)
def test_refused_inputs(read: Read, shape: list[Any], kind: int, message: str) -> None:
    with pytest.raises(BadFile, match=message):
        read(model([node("Relu", ["x"], ["y"])], shape=shape, kind=kind))


def _second_input(content: ModelProto) -> None:
    content.graph.input.append(helper.make_tensor_value_info("x2", TensorProto.FLOAT, [1, 3]))


def _second_output(content: ModelProto) -> None:
    content.graph.output.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3]))


def _cycle(content: ModelProto) -> None:
    content.graph.node[0].input[0] = "b"
    content.graph.node.extend([node("Relu", ["y"], ["b"])])


def _twice(content: ModelProto) -> None:
    content.graph.node.append(content.graph.node[0])


def _twin_attributes(content: ModelProto) -> None:
    for _ in range(2):
        content.graph.node[0].attribute.append(helper.make_attribute("alpha", 1.0))


def _reference(content: ModelProto) -> None:
    content.graph.node[0].attribute.add(name="alpha", ref_attr_name="outer")


def _declared_shape(content: ModelProto) -> None:
    content.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4]))


def _declared_kind(content: ModelProto) -> None:
    info = helper.make_tensor_value_info("y", TensorProto.DOUBLE, [1, 3])
    content.graph.value_info.append(info)


def _sparse(content: ModelProto) -> None:
    content.graph.sparse_initializer.add()


def _function(content: ModelProto) -> None:
    content.functions.add(name="f")


def _training(content: ModelProto) -> None:
    content.training_info.add()


def _two_opsets(content: ModelProto) -> None:
    content.opset_import.append(helper.make_opsetid("ai.onnx", 18))


def _no_graph(content: ModelProto) -> None:
    content.ClearField("graph")


def _initializer(content: ModelProto, **fields: Any) -> None:
    content.graph.initializer.add(**{"name": "c", "data_type": TensorProto.FLOAT, **fields})


def _nameless(content: ModelProto) -> None:
    _initializer(content, name="", dims=[1], float_data=[1.0])


def _short(content: ModelProto) -> None:
    _initializer(content, dims=[3], raw_data=bytes(11))


def _few(content: ModelProto) -> None:
    _initializer(content, dims=[3], float_data=[1.0, 2.0])


def _wrong_field(content: ModelProto) -> None:
    _initializer(content, dims=[1], double_data=[1.0])


def _both_fields(content: ModelProto) -> None:
    _initializer(content, dims=[1], float_data=[1.0], raw_data=bytes(4))


def _both_places(content: ModelProto) -> None:
    _initializer(content, dims=[1], raw_data=bytes(4), data_location=TensorProto.EXTERNAL)


def _negative_shape(content: ModelProto) -> None:
    _initializer(content, dims=[-1, -3], float_data=[1.0] * 3)


def _huge_shape(content: ModelProto) -> None:
    _initializer(content, dims=[2**40])


def _huge_and_empty(content: ModelProto) -> None:
    _initializer(content, dims=[2**62, 0], data_type=TensorProto.INT64)


def _segment(content: ModelProto) -> None:
    _initializer(content, dims=[1], segment=TensorProto.Segment(begin=0, end=1))


def _external_constant(content: ModelProto) -> None:
    tensor = TensorProto(dims=[1], data_type=1, data_location=TensorProto.EXTERNAL)
    content.graph.node.append(node("Constant", [], ["k"], value=tensor))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_second_input, r"the model has 2 inputs \('x', 'x2'\), not one"),
        (_second_output, r"the model has 2 outputs \('y', 'x'\), not one"),
        (_cycle, "uses 'b', which nothing before it makes"),
        (_twice, "two tensors have the name 'y'"),
        (_twin_attributes, "an attribute appears twice"),
        (_reference, "attributes that refer to a function's"),
        (_declared_shape, r"'y' is declared \[1, 4\], but computed \[1, 3\]"),
        (_declared_kind, "'y' is declared DOUBLE, but computed FLOAT"),
        (_sparse, "sparse initializers are not supported"),
        (_function, "functions are not supported"),
        (_training, "training information are not supported"),
        (_two_opsets, "2 versions of the operators, not one"),
        (_no_graph, "it has no graph"),
        (_nameless, "a tensor has no name"),
        (_short, r"'c' of shape \[3\] has 11 bytes, not 12"),
        (_few, r"'c' of shape \[3\] has 2 numbers, not 3"),
        (_wrong_field, "'c' has its numbers in several places"),
        (_both_fields, "'c' has its numbers in several places"),
        (_both_places, "'c' has numbers inside and outside the file"),
        (_negative_shape, r"'c': \[-1, -3\] is not a shape"),
        (_huge_shape, "1099511627776 weights are more than the limit"),
        (_huge_and_empty, "'c': 0 numbers"),
        (_segment, "tensors in segments are not supported"),
        (_external_constant, "external data is supported for initializers only"),
    ],
)
def test_refused_models(read: Read, change: Callable[[ModelProto], None], message: str) -> None:
    content = model([node("LeakyRelu", ["x"], ["y"])])
    change(content)
    with pytest.raises(BadFile, match=message):
        read(content)


def test_refused_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadFile, match=r"nowhere\.onnx: there is no such file"):
        read_network(tmp_path / "nowhere.onnx")
    with pytest.raises(BadFile, match="there is no such file"):
        read_network(tmp_path)
    good = model([node("Relu", ["x"], ["y"])]).SerializeToString()
    with pytest.raises(BadFile, match="no ONNX model, or a damaged one"):
        read_network(saved(tmp_path, good[:-5]))
    with pytest.raises(BadFile, match="it has no graph"):
        read_network(saved(tmp_path, b""))
    for name in (b"Relu", b"x", b"y"):
        with pytest.raises(BadFile, match="a name in it is no UTF-8 text"):
            read_network(saved(tmp_path, good.replace(name, b"\xff" * len(name))))
    with pytest.raises(BadFile, match="it has unknown fields"):
        read_network(saved(tmp_path, good + b"\xc0\x3e\x01"))
    monkeypatch.setattr(onnx_reader, "MOST_BYTES", 10)
    with pytest.raises(BadFile, match="larger than the limit 10 bytes"):
        read_network(saved(tmp_path, good))


def test_refused_sizes(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node("Relu", ["x"], ["h"]), node("Relu", ["h"], ["y"])]
    monkeypatch.setattr(onnx_reader, "MOST_NODES", 1)
    with pytest.raises(BadFile, match="2 nodes are more than"):
        read(model(nodes))
    monkeypatch.undo()
    monkeypatch.setattr(onnx_reader, "MOST_STORED", 5)
    with pytest.raises(BadFile, match="hold more than the limit 5"):
        read(model(nodes))
    monkeypatch.undo()
    monkeypatch.setattr(onnx_tensors, "MOST_ENTRIES", 26)
    with pytest.raises(BadFile, match="an array of 27 numbers is larger than the limit 26"):
        read(model(nodes))
    with pytest.raises(BadFile, match="an array of 30 numbers is larger than the limit 26"):
        read(model([node("Add", ["x", "c"], ["y"])], {"c": [[1.0]] * 10}))


def test_weights_that_combine_to_too_much(read: Read) -> None:
    names = ["x", *"abdefghi", "y"]
    nodes = [node("Mul", [first, "c"], [second]) for first, second in pairwise(names)]
    with pytest.raises(BadFile, match="combine to more than a float64 can hold"):
        read(model(nodes, {"c": 3e38}))


# Against onnxruntime, on random graphs


class Builder:
    """A random graph, one step after the other; every tensor in the pool is [N, size]."""

    def __init__(self, draw: st.DrawFn, opset: int, dtype: type[np.floating[Any]]) -> None:
        self.draw, self.opset, self.dtype = draw, opset, dtype
        self.nodes: list[NodeProto] = []
        self.inits: dict[str, NDArray[Any]] = {}
        self.pool: list[tuple[str, int]] = [("x", draw(st.integers(1, 4)))]

    def number(self, low: int = -8, high: int = 8) -> float:
        return self.draw(st.integers(low, high)) / 4

    def const(self, *shape: int, low: int = -8, high: int = 8) -> str:
        count = int(np.prod(shape, dtype=int))
        values = self.draw(st.lists(st.integers(low, high), min_size=count, max_size=count))
        return self.keep(np.array(values, dtype=self.dtype).reshape(shape) / self.dtype(4))

    def keep(self, values: NDArray[Any]) -> str:
        name = f"c{len(self.inits)}"
        self.inits[name] = np.asarray(values)
        return name

    def ints(self, *values: int) -> str:
        return self.keep(np.array(values, dtype=np.int64))

    def emit(self, op: str, inputs: list[str], **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(node(op, inputs, [name], **attributes))
        return name

    def step(self) -> None:
        name, size = self.draw(st.sampled_from(self.pool[-3:]))
        action = self.draw(st.sampled_from(ACTIONS))
        self.pool.append(action(self, name, size))

    def axes(self, op: str, name: str, axes: list[int]) -> str:
        if self.opset < 13:
            return self.emit(op, [name], axes=axes)
        return self.emit(op, [name, self.ints(*axes)])


def gemm(b: Builder, x: str, n: int) -> tuple[str, int]:
    m, trans = b.draw(st.integers(1, 4)), b.draw(st.integers(0, 1))
    inputs = [x, b.const(m, n) if trans else b.const(n, m)]
    summand = b.draw(st.sampled_from([None, (m,), (1, m), (1,), (1, 1), ()]))
    if summand is not None or b.opset < 11:
        inputs.append(b.const(*(summand or ())))
    return b.emit("Gemm", inputs, alpha=b.number(), beta=b.number(), transB=trans), m


def matmul(b: Builder, x: str, n: int) -> tuple[str, int]:
    m = b.draw(st.integers(1, 4))
    if b.draw(st.booleans()):
        return b.emit("MatMul", [x, b.const(n, m)]), m
    left = b.emit("MatMul", [b.const(m, n), b.emit("Transpose", [x])])
    return b.emit("Transpose", [left], perm=[1, 0]), m


def arithmetic(b: Builder, x: str, n: int) -> tuple[str, int]:
    op = b.draw(st.sampled_from(["Add", "Sub", "Mul", "Div"]))
    shape = b.draw(st.sampled_from([(), (1,), (n,), (1, n), (1, 1)]))
    if op == "Div":
        return b.emit(op, [x, b.const(*shape, low=1)]), n
    inputs = [x, b.const(*shape)]
    return b.emit(op, inputs if b.draw(st.booleans()) else inputs[::-1]), n


def activation(b: Builder, x: str, n: int) -> tuple[str, int]:
    if b.dtype == np.float32 and b.draw(st.booleans()):
        return b.emit("LeakyRelu", [x], alpha=b.number()), n
    return b.emit("Relu", [x]), n


def clip(b: Builder, x: str, n: int) -> tuple[str, int]:
    low = b.number()
    high = low + b.number(0)
    if b.opset < 11:
        return b.emit("Clip", [x], min=low, max=high), n
    names = [b.keep(np.array(bound, dtype=b.dtype)) for bound in (low, high)]
    return b.emit("Clip", [x, *(name if b.draw(st.booleans()) else "" for name in names)]), n


def norm(b: Builder, x: str, n: int) -> tuple[str, int]:
    constants = [b.const(n), b.const(n), b.const(n), b.const(n, low=1)]
    return b.emit("BatchNormalization", [x, *constants], epsilon=0.001), n


def plain(b: Builder, x: str, n: int) -> tuple[str, int]:
    op = b.draw(st.sampled_from(["Identity", "Neg", "Flatten", "Dropout"]))
    return b.emit(op, [x]), n


def rank(b: Builder, x: str, n: int) -> tuple[str, int]:
    axes = [b.draw(st.sampled_from([1, 2])), 3]
    wide = b.axes("Unsqueeze", x, axes)
    if b.draw(st.booleans()):
        return b.axes("Squeeze", wide, axes), n
    return b.emit("Reshape", [wide, b.ints(*b.draw(st.sampled_from([(0, -1), (-1, n)])))]), n


def flatten_by_shape(b: Builder, x: str, n: int) -> tuple[str, int]:
    first = b.emit("Gather", [b.emit("Shape", [x]), b.ints(0)], axis=0)
    return b.emit("Reshape", [x, b.emit("Concat", [first, b.ints(-1)], axis=0)]), n


def cut(b: Builder, x: str, n: int) -> tuple[str, int]:
    start = b.draw(st.integers(-n, n - 1))
    if b.opset < 10:
        return b.emit("Slice", [x], starts=[start], ends=[2**40], axes=[1]), n - start % n
    if b.draw(st.booleans()):
        return b.emit("Slice", [x, b.ints(-1), b.ints(-(2**62)), b.ints(1), b.ints(-1)]), n
    return b.emit("Slice", [x, b.ints(start), b.ints(n), b.ints(-1)]), n - start % n


def gather(b: Builder, x: str, n: int) -> tuple[str, int]:
    lowest = -n if b.opset >= 11 else 0
    places = b.draw(st.lists(st.integers(lowest, n - 1), min_size=1, max_size=4))
    return b.emit("Gather", [x, b.ints(*places)], axis=1), len(places)


def concat(b: Builder, x: str, n: int) -> tuple[str, int]:
    other, m = b.draw(st.sampled_from(b.pool))
    return b.emit("Concat", [other, x, x], axis=1), m + 2 * n


def both(b: Builder, x: str, n: int) -> tuple[str, int]:
    other = b.draw(st.sampled_from([name for name, size in b.pool if size in (n, 1)]))
    return b.emit(b.draw(st.sampled_from(["Add", "Sub"])), [other, x]), n


ACTIONS = [gemm, matmul, arithmetic, activation, activation, clip, norm, plain]
ACTIONS += [rank, flatten_by_shape, cut, gather, concat, both, both]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[ModelProto, int]:
    opset = draw(st.sampled_from([8, 9, 10, 11, 12, 13, 14, 15, 17, 21]))
    single = opset < 14 or draw(st.booleans())
    dtype: type[np.floating[Any]] = np.float32 if single else np.float64
    builder = Builder(draw, opset, dtype)
    for _ in range(draw(st.integers(1, 8))):
        builder.step()
    kind = TensorProto.FLOAT if single else TensorProto.DOUBLE
    inits, (out, _) = builder.inits, builder.pool[-1]
    shape = ["N", builder.pool[0][1]]
    made = model(builder.nodes, inits, shape=shape, kind=kind, out=out, opset=opset)
    return made, builder.pool[0][1]


def run(content: ModelProto, point: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Output at one point, and the largest absolute value inside."""
    traced = ModelProto()
    traced.CopyFrom(content)
    names = [name for entry in content.graph.node for name in entry.output]
    del traced.graph.output[:]
    for name in names:
        traced.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        traced.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = dict(zip(names, session.run(names, {"x": point}), strict=True))
    largest = max(float(np.abs(value).max()) for value in values.values())
    return values[content.graph.output[0].name][0], largest


@settings(deadline=None, max_examples=250, suppress_health_check=list(HealthCheck))
@given(graphs(), st.data())
def test_against_onnxruntime(
    tmp_path_factory: pytest.TempPathFactory, made: tuple[ModelProto, int], data: st.DataObject
) -> None:
    content, size = made
    network = read_network(saved(tmp_path_factory.getbasetemp(), content))
    entries = data.draw(st.lists(st.integers(-40, 40), min_size=size, max_size=size))
    point = np.array(entries) / 8
    single = content.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    expected, largest = run(content, point[None].astype(np.float32 if single else np.float64))
    exactly = [float(value) for value in network.exact(from_array(point))]
    tolerance = (1e-4 if single else 1e-10) * (1 + largest)
    np.testing.assert_allclose(exactly, expected, rtol=0, atol=tolerance)


# Damaged files


def typical() -> ModelProto:
    nodes = [
        node("Flatten", ["x"], ["f"]),
        node("Gemm", ["f", "w", "b"], ["h"], alpha=0.5, transB=1),
        node("BatchNormalization", ["h", "b", "b", "b", "v"], ["n"]),
        node("LeakyRelu", ["n"], ["l"]),
        node("Clip", ["l", "", "six"], ["k"]),
        node("Concat", ["k", "h"], ["j"], axis=1),
        node("Slice", ["j", "zero", "three", "one"], ["s"]),
        node("Gather", ["s", "places"], ["g"], axis=1),
        node("Reshape", ["g", "shape"], ["r"]),
        node("Div", ["r", "six"], ["y"]),
    ]
    ints = {"zero": [0], "one": [1], "three": [3], "places": [0, 2], "shape": [0, -1]}
    inits: dict[str, Any] = {name: np.array(value) for name, value in ints.items()}
    inits |= {"w": [[1.0, 2, 3], [4, 5, 6]], "b": [0.5, 2], "v": [1.0, 2], "six": 6.0}
    return model(nodes, inits, shape=["N", 3, 1])


TYPICAL: bytes = typical().SerializeToString()


def read_or_refuse(folder: Path, content: bytes) -> None:
    path, start = saved(folder, content), time.perf_counter()
    message = f"{path}: "
    try:
        read_network(path, softmax_allowed=True)
    except ConspecError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    assert time.perf_counter() - start < 5


def test_every_truncation(tmp_path: Path) -> None:
    read_network(saved(tmp_path, TYPICAL))
    for length in range(len(TYPICAL)):
        read_or_refuse(tmp_path, TYPICAL[:length])


@settings(deadline=None, max_examples=800)
@given(st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(TYPICAL)
    for place, value in changes:
        content[place % len(content)] ^= value
    read_or_refuse(tmp_path_factory.getbasetemp(), bytes(content))


def test_every_flipped_bit(tmp_path: Path) -> None:
    for place in range(len(TYPICAL)):
        content = bytearray(TYPICAL)
        content[place] ^= 1 << (place % 8)
        read_or_refuse(tmp_path, bytes(content))


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300), st.integers(0, len(TYPICAL)))
def test_random_bytes(tmp_path_factory: pytest.TempPathFactory, noise: bytes, place: int) -> None:
    folder = tmp_path_factory.getbasetemp()
    read_or_refuse(folder, noise)
    read_or_refuse(folder, TYPICAL[:place] + noise + TYPICAL[place:])
