"""The hand-made benchmark: z3 establishes every answer anew from the files alone."""

import csv
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import z3
from onnx import numpy_helper

from conspec.benchmarks.runner.instances import read_suite
from conspec.benchmarks.suites.handmade import MEANS, RANGES, write_handmade
from conspec.encodings.onnx_reader import read_network
from conspec.encodings.vnnlib_property import query_of
from conspec.encodings.vnnlib_reader import read_property
from conspec.verifier.decide import verify

Range = tuple[Fraction, Fraction]

FOUND = {"box_wide": ["-1000.0", "-1000.0", "1000.0", "1000.0", "1000.0"]}
"""Inputs to try where z3 takes long to find one."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("handmade")
    write_handmade(place)
    return place


def listed(folder: Path) -> list[tuple[Path, Path, str]]:
    """Network, property and written answer of each instance."""
    with (folder / "expected.csv").open() as file:
        answers = {row["instance"]: row["answer"] for row in csv.DictReader(file)}
    with (folder / "instances.csv").open() as file:
        rows = list(csv.reader(file))
    assert len(answers) == len(rows)
    return [(folder / a, folder / b, answers[Path(b).stem]) for a, b, _ in rows]


def real(value: Fraction) -> Any:
    return z3.RealVal(f"{value.numerator}/{value.denominator}")


class Value:
    """Entries of a tensor as z3 terms, each with an interval that holds it."""

    def __init__(self, terms: Sequence[Any], ranges: Sequence[Range]) -> None:
        self.terms, self.ranges = list(terms), list(ranges)

    def affine(self, weight: Any, bias: Any) -> "Value":
        """``self @ weight + bias``."""
        terms, ranges = [], []
        for column, start in zip(weight.T, bias, strict=True):
            weights, begin = [Fraction(float(w)) for w in column], Fraction(float(start))
            sums = [real(w) * t for w, t in zip(weights, self.terms, strict=True) if w]
            terms.append(z3.Sum([*sums, real(begin)]))
            pairs = zip(weights, self.ranges, strict=True)
            ends = [sorted((w * low, w * high)) for w, (low, high) in pairs]
            ranges.append((begin + sum(e[0] for e in ends), begin + sum(e[1] for e in ends)))
        return Value(terms, ranges)

    def relu(self, solver: Any) -> "Value":
        """Each entry, or 0 where it is negative; a variable where the sign is open."""
        terms, ranges = [], []
        for term, (low, high) in zip(self.terms, self.ranges, strict=True):
            if low >= 0 or high <= 0:
                terms.append(term if low >= 0 else real(Fraction(0)))
            else:
                unit = z3.FreshReal()
                solver.add(unit >= 0, unit >= term, z3.Or(unit <= 0, unit <= term))
                terms.append(unit)
            ranges.append((max(low, Fraction(0)), max(high, Fraction(0))))
        return Value(terms, ranges)


def run(model: Path, value: Value, solver: Any) -> list[Any]:
    """The network's outputs as z3 terms; it has the operators of this benchmark alone."""
    graph = onnx.load(model).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        constants = [arrays[name] for name in node.input if name in arrays]
        size = len(value.terms)
        match node.op_type:
            case "Flatten" | "Reshape":
                pass
            case "Sub":
                value = value.affine(np.eye(size), -constants[0].ravel())
            case "Div":
                inverse = [1 / Fraction(float(entry)) for entry in constants[0].ravel()]
                pairs = list(zip(value.terms, value.ranges, inverse, strict=True))
                value = Value(
                    [real(i) * t for t, _, i in pairs], [(a * i, b * i) for _, (a, b), i in pairs]
                )
            case "MatMul":
                value = value.affine(constants[0], np.zeros(constants[0].shape[1]))
            case "Add":
                value = value.affine(np.eye(size), constants[0])
            case "Relu":
                value = value.relu(solver)
            case other:
                raise AssertionError(other)
    return value.terms


def hull(text: str) -> list[Range]:
    """The smallest and largest number that each input is compared with."""
    found: dict[int, list[Fraction]] = {}
    for index, number in re.findall(r"\([<>=]+ X_(\d) (-?[\d.]+)\)", text):
        found.setdefault(int(index), []).append(Fraction(number))
    return [(min(found[i]), max(found[i])) for i in range(5)]


def decide(model: Path, prop: Path, seconds: float = 20) -> str:
    """The answer of z3, which computes with rationals."""
    text = prop.read_text()
    inputs, outputs = z3.Reals("X_0 X_1 X_2 X_3 X_4"), z3.Reals("Y_0 Y_1 Y_2 Y_3 Y_4")
    solver = z3.SolverFor("QF_LRA")
    solver.set("timeout", int(1000 * seconds))
    # A VNN-LIB file is SMT-LIB but for the sign of numbers.
    solver.add(z3.parse_smt2_string(re.sub(r"-([\d.]+)", r"(- \1)", text)))
    ranges = hull(text)
    if prop.stem in FOUND:
        ranges = [(Fraction(number), Fraction(number)) for number in FOUND[prop.stem]]
        solver.add([x == real(low) for x, (low, _) in zip(inputs, ranges, strict=True)])
    for output, term in zip(outputs, run(model, Value(inputs, ranges), solver), strict=True):
        solver.add(output == term)
    answer = str(solver.check())
    return "none found" if prop.stem in FOUND and answer != "sat" else answer


def test_z3_gives_the_written_answers(folder: Path) -> None:
    for model, prop, answer in listed(folder):
        assert (prop.stem, decide(model, prop)) == (prop.stem, answer)


def test_two_runs_write_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_handmade(tmp_path)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert all((folder / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)


def test_conspec_reads_it_and_agrees(folder: Path) -> None:
    """The answers of the MILP engine, where it gives one; point boxes, ties and all."""
    said = {"Proved": "unsat", "Violated": "sat"}
    answers = []
    for model, prop, answer in listed(folder):
        if prop.stem == "box_wide":  # takes long
            continue
        query = query_of(read_property(prop), read_network(model), prop.stem)
        verdict = type(verify(query, "highs")).__name__
        assert said.get(verdict, answer) == answer, prop.stem
        answers.append(verdict)
    assert answers.count("Unknown") <= 6


def test_the_runner_reads_it(folder: Path) -> None:
    suite = read_suite(folder)
    expected = [(prop.stem, answer) for _, prop, answer in listed(folder)]
    assert [(one.name, one.truth) for one in suite.instances] == expected


def test_the_networks_are_what_onnxruntime_computes(folder: Path) -> None:
    """Both networks give the same outputs for the same point in their own units."""
    point = np.array([0.6, -0.3, 0.25, 0.4, -0.15])
    raw = point * np.array([float(v) for v in RANGES]) + np.array([float(v) for v in MEANS])
    found = []
    for name, values in (("acas", point), ("normalised", raw)):
        session = onnxruntime.InferenceSession(folder / f"onnx/{name}.onnx")
        feed = values.astype(np.float32).reshape(1, 1, 1, 5)
        found.append(session.run(None, {"input": feed})[0])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
    exact = [-3.717546, -0.263432, 1.122430, -0.043724, 0.578668]
    np.testing.assert_allclose(found[0][0], exact, rtol=1e-4)
