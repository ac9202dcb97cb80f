"""Marabou as a program: its words, its witness, and its silence on standard output."""

import subprocess
import sys
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import pytest

from conspec.benchmarks.runner.check_witness import check_against_network
from conspec.encodings.decimals import decimal_text
from conspec.encodings.vnnlib_problem import read_problem
from conspec.encodings.vnnlib_property import query_of
from conspec.verifier import Violated, verify
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


@pytest.mark.slow
def test_an_exact_counterexample_that_marabou_says_is_none(tmp_path: Path) -> None:
    """A wrong ``unsat`` of Marabou 2.0.0, on the head of ResNet-2B around a CIFAR-10 embedding."""
    data = Path(__file__).parents[2] / "shared" / "data"
    if not (data / "weights" / "resnet2b-cifar10.safetensors").is_file():
        pytest.skip("no ../shared with the weights of ResNet-2B and the pictures of CIFAR-10")
    if version("maraboupy") != "2.0.0":
        pytest.skip("seen in Marabou 2.0.0")
    files = resnet_problem(data, tmp_path)
    query = query_of(*read_problem(*files))
    verdict = verify(query)
    assert isinstance(verdict, Violated)
    assert query.margin(verdict.witness.point)[0]
    assert query.region.contains(verdict.witness.point)
    assert float(verdict.witness.margin) > 1e-3  # far above anybody's tolerance
    assert marabou(files[1], files[0]).stdout.split() == ["unsat"]


def resnet_problem(data: Path, folder: Path) -> tuple[Path, Path]:
    """``bird`` within 0.008384 of the embedding of the 989th bird among the test pictures."""
    import torch

    from conspec.benchmarks.cifar10.build import SEED, TEST
    from conspec.benchmarks.cifar10.data import CLASSES, open_split
    from conspec.lens.config import LensConfig
    from conspec.lens.encoders import load_classifier
    from conspec.lens.export import export_head

    picture = open_split(data, "test", TEST, SEED).pictures[2 * TEST + 988]
    weights = str(data / "weights" / "resnet2b-cifar10.safetensors")
    config = LensConfig(images="", model="cifar:resnet2b", weights=weights, vlm="")
    classifier = load_classifier(config, len(CLASSES))
    with torch.inference_mode():
        z = classifier.embed([picture.load()]).cpu()
    model, prop = folder / "head.onnx", folder / "bird.vnnlib"
    model.write_bytes(export_head(classifier.head, z))
    middle = [Fraction(value) for value in z[0].tolist()]
    radius, own = Fraction("0.008384"), CLASSES.index("bird")
    lines = [f"(declare-const X_{i} Real)" for i in range(len(middle))]
    lines += [f"(declare-const Y_{j} Real)" for j in range(len(CLASSES))]
    for i, value in enumerate(middle):
        lines.append(f"(assert (>= X_{i} {decimal_text(value - radius)}))")
        lines.append(f"(assert (<= X_{i} {decimal_text(value + radius)}))")
    others = [f"(and (>= Y_{j} Y_{own}))" for j in range(len(CLASSES)) if j != own]
    lines.append(f"(assert (or {' '.join(others)}))")
    prop.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return prop, model
