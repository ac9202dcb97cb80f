"""``conspec vnn``: answers, witnesses and messages of the standard's commands."""

import csv
import gzip
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from time import monotonic

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conspec.benchmarks.runner.process import Ended, run_limited
from conspec.cli import vnn, vnn_process, vnn_worker
from conspec.cli.exits import Exit
from conspec.cli.main import main
from conspec.cli.vnn_run import HEADER
from conspec.cli.vnn_worker import Answer, Job, decide
from conspec.encodings.exact import vector
from conspec.encodings.onnx_behind import network_behind
from conspec.encodings.onnx_reader import read_network
from conspec.encodings.vnnlib_reader import read_property
from conspec.encodings.vnnlib_witness import is_counterexample, read_witness
from conspec.specs.errors import BadFile, BadRegion, BadUsage, ConspecError, UnknownName

Layer = tuple[Sequence[Sequence[float]], Sequence[float]]
# Y_0 = |x0 − x1|, Y_1 = x0 − x1
RELU: tuple[Layer, ...] = (([[1, -1], [-1, 1]], [0, 0]), ([[1, 1], [1, -1]], [0, 0]))
FIRST = """(declare-const X_0 Real) (declare-const X_1 Real)
(declare-const Y_0 Real) (declare-const Y_1 Real)
(assert (and (<= 0 X_0 1) (<= 0 X_1 1)))
"""
SECOND = """(vnnlib-version <2.0>)
(declare-network f (declare-input X real [1,2]) (declare-output Y real [1,2]))
(assert (and (>= X[0,0] 0.0) (<= X[0,0] 1.0) (>= X[0,1] 0.0) (<= X[0,1] 1.0)))
"""


def write_model(path: Path, layers: Sequence[Layer] = RELU, double: bool = False) -> Path:
    """An ONNX file with ReLUs between the layers."""
    kind, code = (np.float64, TensorProto.DOUBLE) if double else (np.float32, TensorProto.FLOAT)
    nodes, weights, name = [], [], "x"
    for depth, (weight, bias) in enumerate(layers):
        weights.append(numpy_helper.from_array(np.array(weight, dtype=kind), f"w{depth}"))
        weights.append(numpy_helper.from_array(np.array(bias, dtype=kind), f"b{depth}"))
        if depth:
            nodes.append(helper.make_node("Relu", [name], [f"r{depth}"]))
            name = f"r{depth}"
        inputs = [name, f"w{depth}", f"b{depth}"]
        nodes.append(helper.make_node("Gemm", inputs, [f"h{depth}"], transB=1))
        name = f"h{depth}"
    ends = [
        helper.make_tensor_value_info("x", code, ["N", len(layers[0][0][0])]),
        helper.make_tensor_value_info(name, code, ["N", len(layers[-1][1])]),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def asked(tmp_path: Path, text: str, *layers: Layer, engine: str = "auto") -> Answer:
    """The answer to a text about a network, in this process."""
    model = write_model(tmp_path / "m.onnx", layers or RELU)
    query = write(tmp_path / "q.vnnlib", text)
    return decide(Job(str(query), str(model), None, engine, 60.0), start=monotonic())


def called(*arguments: object) -> int:
    """The exit code of ``conspec vnn …``."""
    code = vnn.app(args=[str(word) for word in arguments], standalone_mode=False)
    return int(code or 0)


@pytest.mark.parametrize("engine", ["auto", "z3", "highs"])
@pytest.mark.parametrize(
    ("condition", "word"),
    [
        ("(>= Y_0 1)", "sat"),
        ("(> Y_0 1)", "unsat"),
        ("(and (<= Y_0 0.6) (<= Y_1 (- 0.5)))", "sat"),
        ("(and (<= Y_0 0.4) (<= Y_1 (- 0.5)))", "unsat"),
        ("(or (< X_0 0) (and (<= (+ X_0 X_1) 0.5) (>= Y_0 0.6)))", "unsat"),
    ],
)
def test_answers_of_version_1(tmp_path: Path, engine: str, condition: str, word: str) -> None:
    answer = asked(tmp_path, f"{FIRST}(assert {condition})", engine=engine)
    if engine == "highs" and condition == "(> Y_0 1)":
        word = "unknown"  # the best margin is 0, which tolerances leave open
    assert answer.word == word
    assert bool(answer.witness) == (answer.word == "sat")
    assert "real-number arithmetic with the file's exact weights" in answer.notes[0]


def test_a_tie_is_not_decided_by_tolerances(tmp_path: Path) -> None:
    answer = asked(tmp_path, f"{FIRST}(assert (> Y_0 1))", engine="highs")
    assert answer.word == "unknown"
    assert "use --engine z3 (exact)" in answer.notes[-1]


def test_trust_is_told(tmp_path: Path) -> None:
    linear: Layer = ([[1, 0], [0, 1]], [0, 0])
    text = FIRST + "(assert (and (>= (+ Y_0 Y_1) 1.5) (<= (- Y_0 Y_1) -0.6)))"
    certified = asked(tmp_path, text, linear)
    assert (certified.word, certified.witness) == ("unsat", "")
    assert "established by conspec itself" in certified.notes[-1]
    solved = asked(tmp_path, FIRST + "(assert (and (<= Y_0 0.4) (<= Y_1 (- 0.5))))", engine="z3")
    assert "no certificate: it rests on linear bounds, or on a solver" in solved.notes[-1]


def test_the_witness_is_exact_and_replayed(tmp_path: Path) -> None:
    text = FIRST + "(assert (and (= Y_0 0.75) (>= Y_1 0)))"
    answer = asked(tmp_path, text)
    assert answer.word == "sat"
    prop = read_property(tmp_path / "q.vnnlib")
    point = read_witness(answer.witness, 2)
    assert is_counterexample(prop, read_network(tmp_path / "m.onnx"), point)
    assert re.search(r"\(Y_0 0.75\)", answer.witness)
    assert "exact over the reals; its inputs are float32 numbers" in answer.notes[1]
    assert answer.notes[-1] == (
        "replay of the witness through onnxruntime (float32): the condition holds there too"
    )


def test_a_witness_that_no_float_hits_is_told(tmp_path: Path) -> None:
    answer = asked(tmp_path, FIRST + "(assert (= (* 3 X_0) 1)) (assert (>= Y_0 0))")
    assert "(X_0 1/3)" in answer.witness
    assert any("rationals p/q" in note for note in answer.notes)
    assert "rounded to its input type" in answer.notes[-1]
    assert "the condition does not hold there" in answer.notes[-1]


def test_float32_rounding_that_hides_a_witness_is_told(tmp_path: Path) -> None:
    """2^24 + 1 is no float32: exactly, Y exceeds 2^24; in onnxruntime it does not."""
    text = """(declare-const X_0 Real) (declare-const Y_0 Real)
    (assert (= X_0 16777216)) (assert (> Y_0 16777216))"""
    answer = asked(tmp_path, text, ([[1.0]], [1.0]))
    assert answer.word == "sat"
    assert "(Y_0 16777217.0)" in answer.witness
    assert answer.notes[-1].startswith("warning: replay of the witness through onnxruntime")


def test_a_replay_that_rounding_cannot_explain_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the exact reader had misread the file: its weights differ from what is run."""
    other = write_model(tmp_path / "other.onnx", [([[1.0, 0.001]], [0.0])])
    misread = read_network(other)
    monkeypatch.setattr("conspec.encodings.onnx_reader.read_network", lambda _: misread)
    text = FIRST.replace("(declare-const Y_1 Real)", "") + "(assert (>= (+ X_1 Y_0) 1.5))"
    layer: Layer = ([[1.0, 0.0]], [0.0])
    answer = asked(tmp_path, text, layer)
    assert answer.word == "sat"
    assert "by more than rounding in float32 explains" in answer.notes[-1]
    monkeypatch.undo()
    assert "explains" not in " ".join(asked(tmp_path, text, layer).notes)


def test_doubles_are_replayed_as_doubles(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx", ([[[1.0]], [1.0]],), double=True)  # type: ignore[arg-type]
    text = """(declare-const X_0 Real) (declare-const Y_0 Real)
    (assert (= X_0 16777216)) (assert (> Y_0 16777216))"""
    query = write(tmp_path / "q.vnnlib", text)
    answer = decide(Job(str(query), str(model), None, "auto", 60.0), monotonic())
    assert "(float64): the condition holds there too" in answer.notes[-1]


def test_sets_of_inputs_are_decided_one_by_one(tmp_path: Path) -> None:
    union = "(assert (or (<= 0 X_0 0.1) (<= 0.9 X_0 0.95)))"
    assert asked(tmp_path, f"{FIRST}{union}(assert (> Y_1 0.95))").word == "unsat"
    answer = asked(tmp_path, f"{FIRST}{union}(assert (>= Y_1 0.95))")
    assert answer.word == "sat"
    assert "the inputs were split into 2 sets" in answer.notes


def test_time_is_over_before_the_last_set(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx")
    text = f"{FIRST}(assert (or (= X_0 0) (= X_0 1)))(assert (and (<= Y_0 0.4) (<= Y_1 -0.41)))"
    query = write(tmp_path / "q.vnnlib", text)
    job = Job(str(query), str(model), None, "auto", 1.0)
    assert decide(job, monotonic() - 100.0).word in ("timed-out", "unsat")
    hard = f"{FIRST}(assert (and (<= Y_0 0.4) (<= Y_1 -0.41)))"
    write(query, hard)
    answer = decide(job, monotonic() - 100.0)
    assert (answer.word, answer.witness) == ("timed-out", "")


# --- version 2.0 -------------------------------------------------------------------------------


def test_version_2(tmp_path: Path) -> None:
    pytest.importorskip("vnnlib")
    answer = asked(tmp_path, SECOND + "(assert (>= Y[0,0] 1.0))")
    assert answer.word == "sat"
    lines = answer.witness.splitlines()
    assert (lines[0], lines[3]) == ("X real [1,2]", "Y real [1,2]")
    assert Fraction(lines[4]) == abs(Fraction(lines[1]) - Fraction(lines[2])) == 1
    assert asked(tmp_path, SECOND + "(assert (> Y[0,0] 1.0))").word == "unsat"


def test_floating_point_is_not_promised(tmp_path: Path) -> None:
    pytest.importorskip("vnnlib")
    text = SECOND.replace("real", "float32") + "(assert (>= Y[0,0] 1.0))"
    with pytest.raises(BadUsage, match=r"it declares float32, so it asks about IEEE.*--real"):
        asked(tmp_path, text)
    job = Job(str(tmp_path / "q.vnnlib"), str(tmp_path / "m.onnx"), "f", "auto", 60.0, real=True)
    answer = decide(job, monotonic())
    assert answer.word == "sat"
    assert answer.witness.startswith("X float32 [1,2]\n")
    assert answer.notes[0].startswith("warning: the query declares float32")
    with pytest.raises(BadUsage, match=r"the network is called f; write --network f="):
        decide(replace(job, name="g"), monotonic())
    with pytest.raises(BadUsage, match=r"the network is called f"):
        decide(replace(job, name=""), monotonic())


HIDDEN = """(vnnlib-version <2.0>)
(declare-network f (declare-input X real [1,2]) (declare-hidden H real [1,3] "h")
 (declare-output Y real [1,2])) ; (declare-hidden is only looked for outside comments
(assert (<= X[0,0] 5.0))
(assert (and (>= H[0,0] 0.0) (<= H[0,0] 1.0) (== H[0,1] 0.5) (== H[0,2] H[0,1])))
"""


def write_hidden(path: Path, skip: bool = False) -> Path:
    """A model with a tensor h behind a Sigmoid, which the exact reader does not know."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["s"]),
        helper.make_node("Sigmoid", ["s"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["t"]),
        helper.make_node("Add", ["t", "x" if skip else "c"], ["y"]),
    ]
    values = {"a": np.ones((2, 3)), "b": [[1, 0], [0, 1], [0, 2]], "c": [0, -1]}
    weights = [numpy_helper.from_array(np.array(v, np.float32), k) for k, v in values.items()]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


def test_the_network_behind_a_hidden_tensor(tmp_path: Path) -> None:
    model = write_hidden(tmp_path / "m.onnx")
    network = network_behind(model, "h")
    point = vector([Fraction(1, 2), Fraction(-3), Fraction(2)])
    assert network.exact(point) == [Fraction(1, 2), Fraction(3)]
    with pytest.raises(BadFile, match=r"there is no tensor 'k' of known shape"):
        network_behind(model, "k")
    with pytest.raises(BadFile, match=r"m.onnx: behind 's': .*Sigmoid"):
        network_behind(model, "s")
    with pytest.raises(BadFile, match=r"the output depends on 'x' too, and not on 'h' alone"):
        network_behind(write_hidden(tmp_path / "skip.onnx", skip=True), "h")
    with pytest.raises(BadFile, match=r"none: there is no such file"):
        network_behind(tmp_path / "none", "h")
    with pytest.raises(BadFile, match=r"no ONNX model"):
        network_behind(write(tmp_path / "text", "no model"), "h")


def test_a_query_about_a_hidden_tensor(tmp_path: Path) -> None:
    """unsat behind it is unsat; sat behind it is unknown, for perhaps no input leads there."""
    pytest.importorskip("vnnlib")
    model = write_hidden(tmp_path / "m.onnx")
    query = write(tmp_path / "q.vnnlib", HIDDEN + "(assert (> Y[0,1] 0.5))")
    job = Job(str(query), str(model), "f", "auto", 60.0)
    refuted = decide(job, monotonic())
    assert refuted.word == "unsat"
    assert "left aside: 1" in refuted.notes[-1]
    write(query, HIDDEN + "(assert (>= Y[0,1] 0.5))")
    open_one = decide(job, monotonic())
    assert (open_one.word, open_one.witness) == ("unknown", "")
    assert "perhaps no input gives it" in open_one.notes[-1]


# --- the commands ------------------------------------------------------------------------------


def test_verify_prints_what_the_standard_wants(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path / "m.onnx")
    query = write(tmp_path / "q.vnnlib", FIRST + "(assert (>= Y_1 1))")
    kept = tmp_path / "w.txt"
    assert called("verify", query, "--network", f"f={model}", "--witness", kept) == 0
    found = capfd.readouterr()
    assert found.out == "sat\n((X_0 1.0)\n(X_1 0.0)\n(Y_0 1.0)\n(Y_1 1.0))\n"
    assert kept.read_text() == found.out
    assert "exact over the reals" in found.err
    assert "holds there too" in found.err
    write(query, FIRST + "(assert (> Y_1 1.5))")
    kept.unlink()
    assert called("verify", query, "--network", model, "--witness", kept) == 0  # without a name
    assert capfd.readouterr().out == "unsat\n"
    assert not kept.exists()


def test_a_process_that_hangs_is_timed_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole deadline holds although the process does nothing about it."""
    script = write(tmp_path / "hang.py", "while True: pass")
    monkeypatch.setattr(
        vnn_process,
        "run_limited",
        lambda program, seconds, memory: run_limited(
            [sys.executable, str(script)], seconds, memory
        ),
    )
    assert called("verify", tmp_path / "q", "--network", "m", "--timeout", "0.3") == 0
    assert capfd.readouterr().out == "timed-out\n"


@pytest.mark.parametrize(
    ("ended", "word", "note"),
    [
        (Ended(-9, "", "", 1.0, 1.0, 1.0, "memory"), "unknown", "memory of this machine"),
        (Ended(-11, "", "", 1.0, 1.0, 1.0, "done"), "unknown", "ended with code -11"),
        (Ended(1, "", "Traceback\nKeyError: 1", 1.0, 1.0, 1.0, "done"), "unknown", "KeyError"),
        (Ended(0, "sat", "", 1.0, 1.0, 1.0, "done"), "unknown", "code 0"),
        (Ended(0, "proved\n", "", 1.0, 1.0, 1.0, "done"), "unknown", "code 0"),
        (Ended(-11, "unsat\n", "", 1.0, 1.0, 1.0, "done"), "unknown", "ended with code -11"),
        (Ended(0, "unsat\n", "note: a\nb\n", 1.0, 1.0, 1.0, "done"), "unsat", "a"),
        (Ended(-9, "unsat\n", "", 1.0, 1.0, 1.0, "timeout"), "timed-out", ""),
    ],
)
def test_whatever_becomes_of_the_process_is_an_answer(
    monkeypatch: pytest.MonkeyPatch, ended: Ended, word: str, note: str
) -> None:
    monkeypatch.setattr(vnn_process, "run_limited", lambda *_: ended)
    answer = vnn_process.answered(Job("q", "m", None, "auto", 1.0))
    assert (answer.word, answer.witness) == (word, "")
    assert note in " ".join(answer.notes)


def test_the_process_refuses_bad_files(tmp_path: Path) -> None:
    query = write(tmp_path / "q.vnnlib", FIRST + "\n(assert (<= (* X_0 X_1) 1))")
    model = write_model(tmp_path / "m.onnx")
    with pytest.raises(BadFile, match=r"q.vnnlib:5: a product of two variables"):
        vnn_process.answered(Job(str(query), str(model), None, "auto", 60.0))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"query": "none"}, BadFile, "none: the file cannot be read"),
        ({"model": "none"}, BadFile, "none: there is no such file"),
        ({"engine": "magic"}, BadUsage, "no engine 'magic'"),
        ({"query": "free.vnnlib"}, BadRegion, "input X_0 has no lower bound"),
        ({"query": "three.vnnlib"}, BadFile, "X has 1 entries, but the network has 2 inputs"),
        ({"model": "bad.onnx.gz"}, BadFile, "bad.onnx.gz: damaged gzip file"),
    ],
)
def test_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str],
    error: type[ConspecError],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(Path("m.onnx"))
    write(Path("q.vnnlib"), FIRST)
    write(Path("free.vnnlib"), FIRST.splitlines()[0] + FIRST.splitlines()[1])
    write(
        Path("three.vnnlib"), "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (= X_0 1))"
    )
    Path("bad.onnx.gz").write_bytes(b"\x1f\x8bnothing")
    job = replace(Job("q.vnnlib", "m.onnx", None, "auto", 60.0), **change)  # type: ignore[arg-type]
    with pytest.raises(error, match=message):
        decide(job, monotonic())


def test_usage(tmp_path: Path) -> None:
    with pytest.raises(BadUsage, match="2 networks are given"):
        called("verify", "q", "--network", "f=a", "--network", "g=b")
    with pytest.raises(BadUsage, match="there is no folder"):
        called("verify", "q", "--network", "a", "--witness", tmp_path / "none" / "w")
    for seconds in ("0", "-1", "nan", "inf"):
        with pytest.raises(BadUsage, match="--timeout"):
            called("verify", "q", "--network", "a", "--timeout", seconds)


def test_a_path_with_an_equals_sign_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a=b.onnx").touch()
    seen: list[Job] = []

    def answered(job: Job) -> Answer:
        seen.append(job)
        return Answer("unknown")

    monkeypatch.setattr(vnn_process, "answered", answered)
    for network in ("a=b.onnx", "f=a=b.onnx", "f=/x/y.onnx", "./f=x.onnx", "m.onnx"):
        called("verify", "q", "--network", network)
    assert [(job.name, job.model) for job in seen] == [
        ("", "a=b.onnx"),
        ("f", "a=b.onnx"),
        ("f", "/x/y.onnx"),
        ("", "./f=x.onnx"),
        ("", "m.onnx"),
    ]


def test_supports(capfd: pytest.CaptureFixture[str]) -> None:
    """Each capability of the standard, in the identifiers that it allows."""
    allowed = {
        "--onnx-opset-versions": r"\d+\n\d+\n",
        "--onnx-element-types": r"real\n",
        "--onnx-operators": r"(\w+\n)+",
        "--vnnlib-versions": r"1\.0\n2\.0\n",
        "--hidden-node-theories": r"NH\n",
        "--multiple-input-output-theories": r"SIO\n",
        "--multiple-network-theories": r"SNET\n",
        "--multiple-node-comparison-theories": r"MNC\n",
        "--arithmetic-complexity-theories": r"LIN\n",
        "--optimised-disjunctive-reasoning": r"true\n",
        "--serialise-assignments": r"false\n",
        "--unsat-proofs": r"false\n",
    }
    for capability, pattern in allowed.items():
        assert called("supports", capability) == 0
        assert re.fullmatch(pattern, capfd.readouterr().out)
    with pytest.raises(UnknownName, match="no capability '--magic'; there are --onnx-opset"):
        called("supports", "--magic")
    assert called("--name") == 0
    assert capfd.readouterr().out == "conspec\n"
    assert called("--version") == 0
    assert re.match(r"\d+\.\d+", capfd.readouterr().out)
    assert called() == 0
    assert "VNN-LIB" in capfd.readouterr().out


# --- running a list ----------------------------------------------------------------------------


def folder_of(tmp_path: Path) -> Path:
    """A list of three: sat, unsat, and one that is not understood; with subfolders and .gz."""
    folder = tmp_path / "bench"
    (folder / "onnx").mkdir(parents=True)
    (folder / "vnnlib").mkdir()
    model = write_model(tmp_path / "m.onnx").read_bytes()
    (folder / "onnx" / "m.onnx.gz").write_bytes(gzip.compress(model))
    for name, condition in (("a", "(>= Y_0 1)"), ("b", "(> Y_0 1)"), ("c", "(>= (* X_0 X_1) 1)")):
        text = f"{FIRST}(assert {condition})"
        (folder / "vnnlib" / f"{name}.vnnlib.gz").write_bytes(gzip.compress(text.encode()))
    lines = [f"onnx/m.onnx,./vnnlib/{name}.vnnlib,20\n" for name in "abc"]
    return write(folder / "instances.csv", "".join(lines))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def in_process(job: Job) -> Answer:
    """What the process would answer."""
    return decide(job, monotonic())


def test_run_a_list(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conspec.cli.vnn_run.answered", in_process)
    table, out = folder_of(tmp_path), tmp_path / "r.csv"
    assert called("run", table, "--out", out) == Exit.BAD_INPUT
    found = rows(out)
    assert [row["result"] for row in found] == ["sat", "unsat", "error"]
    assert [row["instance"] for row in found] == ["a", "b", "c"]
    assert all(float(row["seconds"]) >= 0 for row in found)
    (witness,) = (tmp_path / "r-witnesses").iterdir()
    assert witness.read_text().startswith("sat\n((X_0 ")
    told = capfd.readouterr().err
    assert re.search(r"c: .*c.vnnlib.gz:4: a product of two variables", told)
    assert "3 instances: 1 error, 1 sat, 1 unsat" in told


def test_errors_are_asked_about_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that could not be read may have been mended since."""
    table, out = folder_of(tmp_path), tmp_path / "r.csv"
    monkeypatch.setattr("conspec.cli.vnn_run.answered", in_process)
    assert called("run", table, "--out", out) == Exit.BAD_INPUT
    asked_for: list[str] = []

    def mended(job: Job) -> Answer:
        asked_for.append(Path(job.query).name[0])
        return Answer("unsat")

    monkeypatch.setattr("conspec.cli.vnn_run.answered", mended)
    assert called("run", table, "--out", out) == 0
    assert asked_for == ["c"]
    assert [row["result"] for row in rows(out)] == ["sat", "unsat", "unsat"]


def test_instances_without_vnnlib_are_left_out_by_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "suite"
    export = ["bench", "export", "--lens", "emoji10", "--count", "1", "--format", "vnnlib"]
    families = ["--family", "strength", "--family", "has"]
    assert main([*export, *families, "--out", str(place)]) == 0
    capfd.readouterr()
    assert called("run", place, "--out", tmp_path / "r.csv") == 0
    assert "1 instances have no VNN-LIB and are left out: has_64_001" in capfd.readouterr().err
    assert [row["instance"] for row in rows(tmp_path / "r.csv")] == ["strength_64_001"]


def test_a_run_goes_on_where_it_was_cut(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table, out = folder_of(tmp_path), tmp_path / "r.csv"
    asked_for: list[str] = []

    def interrupted(job: Job) -> Answer:
        asked_for.append(Path(job.query).name[0])
        if len(asked_for) == 2:
            raise KeyboardInterrupt
        return Answer("unsat")

    monkeypatch.setattr("conspec.cli.vnn_run.answered", interrupted)
    assert called("run", table, "--out", out) == Exit.INTERRUPTED
    assert "interrupted after 1 of 3 instances" in capfd.readouterr().err
    assert [row["result"] for row in rows(out)] == ["unsat"]
    with out.open("a") as stream:
        stream.write("b,half a li")  # as if it had been killed while writing
    assert called("run", table, "--out", out) == 0
    assert asked_for == ["a", "b", "b", "c"]
    assert [row["instance"] for row in rows(out)] == ["a", "b", "c"]
    assert called("run", table, "--out", out) == 0
    assert len(asked_for) == 4
    with pytest.raises(BadUsage, match=r"r.csv:2: a result of another list or of other options"):
        called("run", table, "--out", out, "--engine", "z3")
    with pytest.raises(BadUsage, match=r"other options"):
        called("run", table, "--out", out, "--timeout", "5")


@pytest.mark.parametrize("content", ["a,b\n", "something", "instance,onnx\n1,2\n"])
def test_a_file_of_something_else_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr("conspec.cli.vnn_run.answered", lambda _: Answer("unsat"))
    table, out = folder_of(tmp_path), write(tmp_path / "r.csv", content)
    with pytest.raises(BadFile, match="this is no file of results"):
        called("run", table, "--out", out)
    assert out.read_text() == content


def test_a_header_cut_short_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conspec.cli.vnn_run.answered", lambda _: Answer("timed-out"))
    table, out = folder_of(tmp_path), write(tmp_path / "r.csv", "instance,on")
    assert called("run", table, "--out", out) == 0
    assert [row["result"] for row in rows(out)] == ["timeout"] * 3
    assert tuple(rows(out)[0]) == HEADER


def test_bad_lists(tmp_path: Path) -> None:
    table = write(tmp_path / "instances.csv", "m.onnx,q.vnnlib,10\n")
    with pytest.raises(BadFile, match=r"instances.csv:1: there is no file 'm.onnx'"):
        called("run", table, "--out", tmp_path / "r.csv")
    assert not (tmp_path / "r.csv").exists()
    with pytest.raises(BadUsage, match="there is no folder"):
        called("run", table, "--out", tmp_path / "none" / "r.csv")


def test_the_worker_prints_word_witness_and_notes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path / "m = 1.onnx")
    query = write(tmp_path / "q.vnnlib", FIRST + "(assert (>= Y_0 1))")
    job = Job(str(query), str(model), None, "auto", 60.0)
    assert vnn_worker.main(job.arguments()) == 0
    found = capfd.readouterr()
    assert found.out.startswith("sat\n((X_0 ")
    assert all(line.startswith(vnn_worker.NOTE) for line in found.err.splitlines())
    write(query, FIRST + "(assert (>= Y_0\n(* X_0 X_1)))")
    assert vnn_worker.main(job.arguments()) == Exit.BAD_INPUT
    error = capfd.readouterr().err
    assert error.startswith(f"error: {query}:5: a product of two")
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", [None, "", "f=g"])
@pytest.mark.parametrize("real", [False, True])
def test_a_job_survives_its_arguments(name: str | None, real: bool) -> None:
    job = Job("a=b.vnnlib", "", name, "auto", 0.1, real)
    assert Job.of(job.arguments()) == job


@pytest.mark.parametrize("shape", ["[2,1]", "[2]", "[1,1,2]"])
def test_a_shape_that_is_not_the_models_is_refused(tmp_path: Path, shape: str) -> None:
    """VNN-LIB 2.0 has shapes; to take X[1,0] of a [2,1] for an entry of [1,2] would be a guess."""
    pytest.importorskip("vnnlib")
    text = SECOND.replace("declare-input X real [1,2]", f"declare-input X real {shape}")
    assert text != SECOND
    places = {"[2,1]": "[{},0]", "[2]": "[{}]", "[1,1,2]": "[0,0,{}]"}[shape]
    for index in range(2):
        text = text.replace(f"X[0,{index}]", "X" + places.format(index))
    with pytest.raises(BadFile, match=r"X has the shape .*, but in .* it has \['\?', 2\]"):
        asked(tmp_path, text + "(assert (>= Y[0,0] 0.0))")


@pytest.mark.parametrize("start", [FIRST, "(vnnlib-version <2.0>)"])
def test_a_bare_carriage_return_is_refused(tmp_path: Path, start: str) -> None:
    """Some readers end a comment at it and see an assert that others drop."""
    if start != FIRST:
        pytest.importorskip("vnnlib")
    text = start + "\n; unsafe if\r(assert (<= Y_0 -1.0))\r\n"
    with pytest.raises(BadFile, match="a carriage return without a line feed"):
        asked(tmp_path, text)
