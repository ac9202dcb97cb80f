"""Marabou as a program: its words, its witness, and its silence on standard output."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from conspec.benchmarks.runner.check_witness import check_against_network
from tests.fake_solvers import BOX, INPUTS, QUERIES, write_benchmark

pytest.importorskip("maraboupy")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmark(tmp_path_factory.mktemp("bench"))


def marabou(network: Path, prop: Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "conspec.benchmarks.runner.peers.marabou"]
    arguments = [str(network), str(prop), "20"]
    return subprocess.run([*program, *arguments], capture_output=True, text=True, check=False)


def test_a_counterexample_is_printed_and_nothing_else(bench: Path) -> None:
    files = bench / "vnnlib" / "reach.vnnlib", bench / "onnx" / "sum.onnx"
    done = marabou(files[1], files[0])
    assert done.returncode == 0, done.stderr
    word, _, witness = done.stdout.partition("\n")
    assert word == "sat"
    assert check_against_network(witness, *files)["check"] in ("exact", "tolerance")


def test_the_absence_of_one_is_said(bench: Path) -> None:
    done = marabou(bench / "onnx" / "sum.onnx", bench / "vnnlib" / "never.vnnlib")
    assert (done.returncode, done.stdout) == (0, "unsat\n"), done.stderr


def test_what_marabou_cannot_read_is_an_error(bench: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"not a network")
    done = marabou(damaged, bench / "vnnlib" / "never.vnnlib")
    assert (done.returncode, done.stdout) == (1, "error\n")
    assert done.stderr


def test_a_bound_that_is_given_twice_is_a_known_fault(bench: Path) -> None:
    """The reader of Marabou 2.0.0 takes the last bound of an input, not the tightest.

    Here X_1 ≤ 1 is forgotten for X_1 ≤ 3, so its counterexample leaves the inputs, and the check
    must see that.
    """
    if version("maraboupy") != "2.0.0":
        pytest.skip("seen in Marabou 2.0.0")
    files = bench / "vnnlib" / "twice.vnnlib", bench / "onnx" / "sum.onnx"
    text = INPUTS + BOX + "(assert (<= X_1 3.0))" + QUERIES["never"]
    files[0].write_text(text, encoding="utf-8")
    done = marabou(files[1], files[0])
    word, _, witness = done.stdout.partition("\n")
    assert word == "sat"
    assert check_against_network(witness, *files)["check"] == "invalid"
