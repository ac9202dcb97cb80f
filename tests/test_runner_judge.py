"""Outputs, witnesses and contradictions: what is said is not believed."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conspec.benchmarks.runner.answers import read_answer
from conspec.benchmarks.runner.check_witness import check_against_network, check_against_smt
from conspec.benchmarks.runner.instances import Instance
from conspec.benchmarks.runner.judge import Fault, Kind, find_faults
from conspec.benchmarks.runner.process import Ended, Why
from conspec.benchmarks.runner.store import Found, Key, Row
from conspec.specs.errors import BadFile
from tests.fake_solvers import BOX, INPUTS, QUERIES, WITNESS, write_network


def ended(stdout: str = "", stderr: str = "", code: int | None = 0, why: Why = "done") -> Ended:
    return Ended(code, stdout, stderr, 1.0, 1.0, 10.0, why)


def read(text: str, code: int | None = 0, stderr: str = "", why: Why = "done") -> tuple[str, str]:
    answer = read_answer(ended(text, stderr, code, why), text, False)
    return answer.answer, answer.detail


@pytest.mark.parametrize(
    ("text", "code", "answer", "detail"),
    [
        ("unsat\n", 0, "unsat", ""),
        ("UNSAT", 1, "unsat", ""),
        ("\n  unknown  \r\nbecause", 0, "unknown", ""),
        ("timed-out\n", 0, "timeout", ""),
        ("error\n", 1, "error", "no such operator"),
        ("", 0, "garbage", "it printed nothing"),
        ("", 2, "error", "exit code 2; no such operator"),
        ("unsatisfiable", 0, "garbage", "its first line is 'unsatisfiable'"),
        ("Solving…\nunsat\n", 0, "garbage", "its first line is 'Solving…'"),
        ("\x1b[31m\ufffd", 0, "garbage", "its first line is '\ufffd[31m\ufffd'"),
        ("unsat\n", -11, "error", "ended by signal 11 after it had said unsat; no such operator"),
        ("", None, "error", "no such operator"),
    ],
)
def test_the_first_line_is_the_answer(
    text: str, code: int | None, answer: str, detail: str
) -> None:
    why: Why = "start-failed" if code is None else "done"
    found = read(text, code, "Traceback\nno such operator\n", why)
    assert found[0] == answer
    assert detail in found[1]


@pytest.mark.parametrize("why", ["timeout", "memory"])
def test_what_was_said_before_a_limit_does_not_count(why: Why) -> None:
    assert read("sat\n((X_0 1))", -9, why=why) == (why, "after it had said sat")
    assert read("Solving", -9, why=why) == (why, "")


def test_the_witness_is_the_rest() -> None:
    text = f"sat\n{WITNESS}\n"
    assert read_answer(ended(text), text, False).witness == WITNESS
    assert read_answer(ended("sat\n\n"), "sat\n\n", False).witness is None
    cut = read_answer(ended(text), text, True)
    assert (cut.answer, cut.witness) == ("sat", None)
    assert "too long" in cut.detail


def test_words_of_a_tool_are_ours() -> None:
    answer = read_answer(ended("Holds\n"), "Holds\n", False, {"Holds": "unsat"})
    assert answer.answer == "unsat"


@given(st.text(max_size=60), st.integers(-64, 255))
def test_any_output_is_an_answer(text: str, code: int) -> None:
    answer, detail = read(text, code, text)
    assert answer in ("sat", "unsat", "unknown", "timeout", "error", "garbage")
    assert detail.isprintable()
    if "sat" not in text.lower():
        assert answer not in ("sat", "unsat")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A property and its network: Y_0 = X_0 + X_1 ≥ 1.5 over the unit box."""
    folder = tmp_path_factory.mktemp("sum")
    prop = folder / "reach.vnnlib"
    prop.write_text(INPUTS + BOX + QUERIES["reach"], encoding="utf-8")
    return prop, write_network(folder / "sum.onnx")


def check(files: tuple[Path, Path], text: str) -> tuple[str | None, str | None]:
    found = check_against_network(text, *files)
    return found["check"], found["float32"]


@pytest.mark.parametrize(
    ("first", "second", "exact", "single"),
    [
        ("1", "0.5", "exact", "exact"),
        ("3/4", "3/4", "exact", "exact"),
        ("1.0", "0.49999999999999999999", "tolerance", "exact"),  # 0.5 as a float
        ("1.0", "0.4999", "tolerance", "invalid"),  # by 1e-4; as floats by a little more
        ("1.0", "0.49989", "invalid", "invalid"),
        ("1.00000001", "0.75", "tolerance", "exact"),  # 1 as a float32
        ("1.0001", "0.75", "tolerance", "invalid"),  # as before, 1.00010001659393310546875
        ("1.000101", "0.75", "invalid", "invalid"),
        ("-1e-9", "1", "invalid", "invalid"),
        ("1e300", "1", "invalid", None),
    ],
)
def test_a_witness_is_judged_exactly(
    files: tuple[Path, Path], first: str, second: str, exact: str, single: str | None
) -> None:
    assert check(files, f"((X_0 {first}) (X_1 {second}))") == (exact, single)


def test_outputs_of_a_witness_are_not_believed(files: tuple[Path, Path]) -> None:
    assert check(files, "((X_0 0) (X_1 0) (Y_0 9))")[0] == "invalid"


def test_both_forms_of_witnesses_are_read(files: tuple[Path, Path]) -> None:
    assert check(files, "X real [1,2]\n1.0\n0.75\nY real [1,1]\n1.75\n") == ("exact", "exact")


@pytest.mark.parametrize(
    "text",
    ["", "((X_0 1))", "((X_0 1) (X_1 nan))", "((X_0 1) (X_1 1) (X_0 1))", "garbage", "(" * 5000,
     "((X_0 1) (X_1 1e999999999))", "((X_0 1) (X_1 1/0))", "\0"],
)  # fmt: skip
def test_what_is_no_witness_is_missing(files: tuple[Path, Path], text: str) -> None:
    found = check_against_network(text, *files)
    assert (found["check"], found["float32"]) == ("missing", None)
    assert "no witness" in str(found["detail"])


@given(st.fractions(-1, 2, max_denominator=50), st.fractions(-1, 2, max_denominator=50))
def test_the_check_is_the_inequality(a: Fraction, b: Fraction) -> None:
    """Against the property written out by hand, far from and on its borders."""
    from conspec.benchmarks.runner.check_witness import judged
    from conspec.encodings.vnnlib_property import output_names
    from conspec.encodings.vnnlib_reader import read_property1
    from conspec.specs.rewrite import negation_normal_form

    stated = read_property1(INPUTS + BOX + QUERIES["reach"], "reach")
    condition = negation_normal_form(stated.condition, output_names(1))
    inside = 0 <= a <= 1 and 0 <= b <= 1 and a + b >= Fraction(3, 2)
    assert (judged(condition, [a, b], [a + b]) == "exact") == inside


SMT = """(set-logic QF_NRA)(declare-fun X_0 () Real)(declare-fun X_1 () Real)
(declare-fun s () Real)(assert (= s (* X_0 X_0)))(assert (<= 0 X_0 1))(assert (<= 0 X_1 1))
(assert (>= (+ s X_1) (/ 5 4)))(check-sat)
"""


@pytest.mark.parametrize(
    ("witness", "expected"),
    [
        ("((X_0 1/2) (X_1 1))", "exact"),
        ("((X_0 0.49999999999) (X_1 1))", "invalid"),
        ("((X_0 1/2))", "missing"),
    ],
)
def test_a_witness_of_an_smt_query_is_judged_by_z3(
    tmp_path: Path, witness: str, expected: str
) -> None:
    (tmp_path / "q.smt2").write_text(SMT, encoding="utf-8")
    assert check_against_smt(witness, tmp_path / "q.smt2")["check"] == expected


@pytest.mark.parametrize("text", ["(assert", SMT.replace("X_1", "X_7"), SMT.replace("X_", "in")])
def test_a_strange_smt_query_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "q.smt2").write_text(text, encoding="utf-8")
    with pytest.raises(BadFile, match=r"z3 does not read it|inputs are not"):
        check_against_smt("((X_0 1))", tmp_path / "q.smt2")


def test_the_program_says_what_it_cannot_judge(files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_text(WITNESS, encoding="utf-8")
    (tmp_path / "bad.onnx").write_bytes(b"\x08" * 40)
    arguments = [str(tmp_path / "w.txt"), str(files[0]), str(tmp_path / "bad.onnx")]
    command = [sys.executable, "-m", "conspec.benchmarks.runner.check_witness", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "bad.onnx" in done.stderr


def row(solver: str, answer: str, check: str | None = None) -> Row:
    return Row(Key("h", "i", solver, "1", 1.0, 1), 1, Found(answer, witness_check=check))


def faults(truth: str | None, *rows: Row) -> list[tuple[Kind, tuple[str, ...]]]:
    instance = Instance("i", "f", {}, 1.0, truth, "certificate")
    return [(fault.kind, fault.solvers) for fault in find_faults(rows, {"i": instance})]


def test_agreement_is_no_fault() -> None:
    agreed = [row("a", "unsat"), row("b", "unknown"), row("c", "timeout"), row("d", "error")]
    assert faults(None, *agreed) == []
    assert faults("unsat", *agreed) == []
    assert faults("sat", row("a", "sat", "exact"), row("b", "sat", "tolerance")) == []


def test_an_exact_witness_settles_against_everybody() -> None:
    rows = [row("a", "unsat"), row("b", "unsat"), row("c", "sat", "exact"), row("d", "unsat")]
    assert faults(None, *rows) == [(Kind.WRONG, ("a", "b", "d"))]
    assert faults("unsat", *rows) == [(Kind.TRUTH, ()), (Kind.WRONG, ("a", "b", "d"))]


def test_the_truth_settles_what_no_witness_does() -> None:
    rows = [row("a", "unsat"), row("b", "sat", "tolerance")]
    assert faults("unsat", *rows) == [(Kind.WRONG, ("b",))]
    assert faults("sat", *rows) == [(Kind.WRONG, ("a",))]


@pytest.mark.parametrize("check", ["tolerance", "missing", None])
def test_without_either_nobody_is_named_wrong(check: str | None) -> None:
    assert faults(None, row("a", "unsat"), row("b", "sat", check)) == [(Kind.OPEN, ("b", "a"))]


def test_an_invalid_witness_is_a_fault_of_its_own() -> None:
    assert faults(None, row("a", "sat", "invalid")) == [(Kind.WITNESS, ("a",))]
    assert faults("sat", row("a", "sat", "invalid")) == [(Kind.WITNESS, ("a",))]
    both = [(Kind.WITNESS, ("a",)), (Kind.WRONG, ("a",))]
    assert faults("unsat", row("a", "sat", "invalid")) == both


def test_the_reason_is_said() -> None:
    instance = Instance("i", "f", {}, 1.0, "unsat", "certificate")
    (fault,) = find_faults([row("b", "sat", "missing")], {"i": instance})
    assert fault == Fault(Kind.WRONG, "i", ("b",), "sat, but the suite knows unsat (certificate)")
