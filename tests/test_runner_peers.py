"""Peers as programs: the words, the witnesses, the limits, and what they do with bad files."""

import subprocess
import sys
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from conspec.benchmarks.runner.peers import (
    milp_gurobi,
    milp_highs,
    milp_scip,
    smt_cvc5,
    smt_z3,
)
from conspec.benchmarks.runner.peers.milp_answer import Found, comparisons_of, inputs_of, word_of
from conspec.encodings.boxed import over_box
from conspec.encodings.decimals import parse_rational
from conspec.encodings.exact import vector
from conspec.encodings.milp_file import lp_text, milp_of, mps_text
from conspec.encodings.query import Query
from conspec.encodings.smtlib import smtlib
from conspec.specs.errors import BadFile
from tests import oracle, spaces

PEERS = {
    "highs": (milp_highs, "highspy"),
    "scip": (milp_scip, "pyscipopt"),
    "gurobi": (milp_gurobi, "gurobipy"),
    "z3": (smt_z3, "z3"),
    "cvc5": (smt_cvc5, "cvc5"),
}
RELU = spaces.space(
    ([[1.0, 0.5, -1.0], [0.0, 1.0, 2.0], [1.0, 1.0, 1.0]], [0.0, 0.5, -0.5]),
    ([[1.0, -1.0, 0.5], [0.5, 1.0, 1.0]], [0.0, 0.25]),
    ([[1.0, -1.0], [-1.0, 1.0]], [0.0, 0.0]),
)
REGION = spaces.box_of([-1, -1, "1/3"], [1, 1, 1])
BODIES = {
    "a > b": "sat",
    "predict(x) or predict(y)": "sat",  # a tie
    "score(a) <= 3": "unsat",
    "predict(x) => score(b) <= 4": "unsat",
    "atleast(2, a > b, b > c, predict(x), score(a) >= 0.3)": "sat",
    "atmost(2, a > b, b > a, score(a) >= 2)": "unsat",
    "a > b <=> predict(x)": "sat",
}


@pytest.fixture(params=PEERS)
def peer(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if find_spec(PEERS[name][1]) is None:
        pytest.skip(f"{name} is not installed")
    return name


def written(folder: Path, peer: str, query: Query) -> Path:
    boxed = over_box(query)
    if peer in ("z3", "cvc5"):
        path = folder / "query.smt2"
        path.write_text(smtlib(boxed), encoding="ascii")
    else:
        path = folder / "query.mps"
        path.write_text(mps_text(milp_of(boxed)), encoding="ascii")
    return path


def said(module: ModuleType, arguments: list[str], capfd: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of standard output."""
    code = module.main(module.solve, arguments)
    lines = capfd.readouterr().out.splitlines()
    assert code == (lines[0] == "error")
    return lines


def point(lines: list[str]) -> list[Fraction]:
    """The witness ``((X_0 v) …)`` in order."""
    text = " ".join(lines)
    assert text.startswith("((X_0 ")
    pairs = [entry.split() for entry in text[2:-2].split(") (")]
    assert [name for name, _ in pairs] == [f"X_{i}" for i in range(len(pairs))]
    return [parse_rational(value) for _, value in pairs]


@pytest.mark.parametrize("body", BODIES)
def test_answers_are_right(
    peer: str, body: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    query = spaces.query(RELU, body, REGION)
    assert oracle.decide(query) == (BODIES[body] == "unsat")
    lines = said(PEERS[peer][0], [str(written(tmp_path, peer, query)), "30"], capfd)
    assert lines[0] == BODIES[body]
    if lines[0] == "sat":
        found = point(lines[1:])
        if peer in ("z3", "cvc5"):
            assert oracle.fails_at(query, found)
        else:
            assert query.margin(vector(found))[1] >= Fraction(-1, 10**6)


def test_the_program_prints_one_word_and_a_witness(peer: str, tmp_path: Path) -> None:
    path = written(tmp_path, peer, spaces.query(RELU, "a > b", REGION))
    module = PEERS[peer][0].__name__
    command = [sys.executable, "-m", module, str(path), "30"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.splitlines()[0] == "sat"
    assert len(point(ended.stdout.splitlines()[1:])) == 3


def test_a_damaged_file_is_an_error(
    peer: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    module = PEERS[peer][0]
    path = written(tmp_path, peer, spaces.query(RELU, "a > b", REGION))
    text = path.read_text()
    cut = text.index("COLUMNS") if path.suffix == ".mps" else text.index("(check-sat)") - 3
    path.write_text(text[:cut] + "\n nonsense (")
    assert said(module, [str(path), "5"], capfd) == ["error"]
    assert said(module, [str(tmp_path / "nothing"), "5"], capfd) == ["error"]
    assert said(module, [str(path)], capfd) == ["error"]


def test_time_is_limited(peer: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A hard query in no time at all: timeout, unless presolve knows the answer."""
    atoms = [f"score({a}) > {i}/17" for i, a in enumerate("abcabcabcabc")]
    query = spaces.query(RELU, f"atleast(5, {', '.join(atoms)}) <=> predict(x)", REGION)
    lines = said(PEERS[peer][0], [str(written(tmp_path, peer, query)), "0.001"], capfd)
    assert lines[0] in ("timeout", "sat")


def test_the_mps_need_not_be_ours_but_must_say_what_it_compares(tmp_path: Path) -> None:
    milp = milp_of(over_box(spaces.query(RELU, "a > b", REGION)))
    for name, text in (("q.mps", mps_text(milp)), ("q.lp", lp_text(milp))):
        path = tmp_path / name
        path.write_text(text)
        assert comparisons_of(path) == "closed"
        path.write_text(text.replace("margin_closed", "cost"))
        with pytest.raises(BadFile, match="margin_strict"):
            comparisons_of(path)


INF = float("inf")


@pytest.mark.parametrize(
    ("comparisons", "margin", "bound", "why", "word"),
    [
        ("strict", 1e-7, 1.0, "limit", "sat"),
        ("strict", 0.0, 0.0, "done", "unsat"),
        ("closed", 0.0, 0.0, "done", "sat"),
        ("closed", -1e-9, -1e-9, "done", "unsat"),
        ("mixed", 0.0, 0.0, "done", "unknown"),
        ("mixed", 1.0, 2.0, "done", "sat"),
        ("mixed", -1.0, -0.5, "limit", "unsat"),
        ("strict", None, -INF, "done", "unsat"),
        ("strict", None, INF, "timeout", "timeout"),
        ("strict", -1.0, 0.5, "timeout", "timeout"),
        ("strict", -1.0, 0.5, "unbounded", "unknown"),
        ("strict", None, float("nan"), "failed", "unknown"),
    ],
)
def test_words(comparisons: str, margin: float | None, bound: float, why: str, word: str) -> None:
    assert word_of(comparisons, Found(margin, bound, (), why)) == word


def test_inputs_are_moved_into_their_bounds() -> None:
    values = {"m": 3.0, "X_1": 2.0, "X_0": -5.0, "X_10": 0.5} | {
        f"X_{i}": 0.0 for i in range(2, 10)
    }
    bounds = dict.fromkeys(values, (-1.0, 1.0))
    assert inputs_of(values, bounds) == [-1.0, 1.0, *[0.0] * 8, 0.5]
