"""``conspec bench compare``."""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from conspec.benchmarks.runner import store
from conspec.benchmarks.runner.instances import BenchSuite, Instance
from conspec.cli.bench_compare import compare
from conspec.specs.errors import BadFile, BadUsage, UnknownName

Rows = Sequence[tuple[str, str, str, float, str | None]]

USUAL: Rows = (
    ("one", "conspec", "unsat", 0.5, None),
    ("one", "marabou", "sat", 2.0, "tolerance"),
    ("one", "z3", "timeout", 60.0, None),
    ("two", "conspec", "sat", 0.25, "exact"),
    ("two", "marabou", "sat", 1.0, "invalid"),
    ("two", "z3", "sat", 20.0, "exact"),
)


def run(*arguments: str) -> None:
    """The command by itself, which raises what ``main`` turns into exit code 3."""
    app = typer.Typer()
    app.command("compare")(compare)
    app(args=list(arguments), standalone_mode=False)


def database(path: Path, rows: Rows = USUAL, machine: str = "AMD EPYC") -> str:
    """Results on a suite that knows that ``one`` is unsat, and of ``two`` nothing."""
    instances = tuple(
        Instance(name, "strength", {}, 60, truth, "certificate" if truth else "")
        for name, truth in (("one", "unsat"), ("two", None))
    )
    with store.open_store(path) as opened:
        suite = BenchSuite("emoji10", instances, "ab" * 32)
        made = store.Run({"processor": machine}, {"conspec": "0.1.0"}, None, 4096, 7)
        opened.note(suite)
        number = opened.begin(suite, made)
        for name, solver, answer, seconds, check in rows:
            key = store.Key(suite.hash, name, solver, "1.0", 60.0, 4096)
            found = store.Found(answer, seconds, seconds, 100.0, witness_check=check)
            opened.add(store.Row(key, number, found))
    return str(path)


@pytest.fixture
def results(tmp_path: Path) -> str:
    return database(tmp_path / "results.sqlite")


def cells(shown: str, solver: str) -> list[list[str]]:
    """The cells of each line about a solver."""
    lines = [line.split() for line in shown.splitlines()]
    return [line for line in lines if line[:1] == [solver]]


def test_the_terminal_shows_the_numbers(results: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(results)
    shown = capsys.readouterr().out
    assert "emoji10, 2 instances: 1 sat, 1 unsat" in shown
    answers, times, witnesses = cells(shown, "marabou")[:3]
    # asked, solved, sat, unsat, unjudged, wrong, without a valid witness, timeout
    assert answers[1:] == ["2", "0", "·", "·", "·", "1", "1", "·"]
    assert times[1:] == ["120", "–", "100", "·", "−140"]
    assert witnesses[1:] == ["2", "·", "1", "(50", "%)", "1", "(50", "%)", "·"]
    assert cells(shown, "conspec")[1][1:] == ["0.375", "0.25", "100", "1", "20"]
    assert cells(shown, "z3")[1][1:] == ["70", "20", "100", "·", "10"]
    assert "Disagreements" in shown


def test_json_has_the_same_numbers(results: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(results, "--json")
    document: Any = json.loads(capsys.readouterr().out)
    (suite,) = document["suites"]
    by_name = {solver["solver"]: solver for solver in suite["solvers"]}
    assert by_name["conspec"]["par2"] == 0.375
    assert by_name["z3"]["par2"] == 70.0
    assert {name: solver["points"] for name, solver in by_name.items()} == {
        "conspec": 20,
        "marabou": -140,
        "z3": 10,
    }
    assert suite["truth"] == {"sat": 1, "unsat": 1, "open": 0}
    assert suite["virtual_best"] == {"sat": 1, "unsat": 1, "par2": 0.375}
    (disagreement,) = suite["disagreements"]
    assert disagreement["instance"] == "one"
    assert disagreement["answers"]["marabou"]["judgement"] == "wrong"
    assert document["runs"][0]["machine"] == {"processor": "AMD EPYC"}


def test_out_writes_a_page_whose_links_lead_somewhere(
    results: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made" / "here"
    run(results, "--out", str(out), "--scatter", "conspec, z3")
    assert "written, with comparison.csv and 2 plots" in capsys.readouterr().err
    text = (out / "comparison.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert sorted(links) == [
        "cactus-emoji10.png",
        "comparison.csv",
        "scatter-emoji10-conspec-z3.png",
    ]
    assert all((out / link).is_file() for link in links)
    assert "| marabou | 2 | · | 1 (50 %) | 1 (50 %) | · |" in text
    assert "Machine: processor AMD EPYC." in text
    with (out / "comparison.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["instance"], r["solver"], r["outcome"]) for r in rows] == [
        ("one", "conspec", "unsat"),
        ("one", "marabou", "wrong"),
        ("one", "z3", "timeout"),
        ("two", "conspec", "sat"),
        ("two", "marabou", "sat, no valid witness"),
        ("two", "z3", "sat"),
    ]
    assert {row["truth_by"] for row in rows if row["instance"] == "two"} == {
        "exact witness of conspec, z3"
    }


def test_two_solvers_are_plotted_without_being_asked(tmp_path: Path) -> None:
    two = database(tmp_path / "two.sqlite", [row for row in USUAL if row[1] != "marabou"])
    run(two, "--out", str(tmp_path / "out"))
    assert (tmp_path / "out" / "scatter-emoji10-conspec-z3.png").is_file()


def test_several_machines_are_said(
    results: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = database(tmp_path / "other.sqlite", [("one", "cvc5", "unsat", 1.0, None)], "Xeon")
    run(results, other, "--out", str(tmp_path / "out"))
    found = capsys.readouterr()
    assert "results come from several machines" in found.err
    assert cells(found.out, "cvc5")
    assert "2 machines" in (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")


def test_a_truth_that_a_witness_contradicts_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(database(tmp_path / "r.sqlite", [("one", "z3", "sat", 1.0, "exact")]))
    assert "exact witness of z3; so the suite's truth is wrong" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("scatter", "error", "message"),
    [
        ("conspec", BadUsage, "name two solvers with a comma between: conspec, marabou, z3"),
        ("conspec,conspec", BadUsage, "name two solvers"),
        ("conspec,z3,marabou", BadUsage, "name two solvers"),
        ("conspec,z4", UnknownName, "no results of a solver 'z4'; there are conspec, marabou, z3"),
    ],
)
def test_scatter_wants_two_solvers(
    results: str, tmp_path: Path, scatter: str, error: type[Exception], message: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(error, match=message):
        run(results, "--out", str(out), "--scatter", scatter)
    assert not out.exists()


def test_scatter_wants_a_folder(results: str) -> None:
    with pytest.raises(BadUsage, match="add --out DIR"):
        run(results, "--scatter", "conspec,z3")


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="no such file"):
        run(str(tmp_path / "missing.sqlite"))
    text = tmp_path / "text.sqlite"
    text.write_text("not a database" * 100, encoding="utf-8")
    with pytest.raises(BadFile, match=r"text\.sqlite"):
        run(str(text))
    empty = database(tmp_path / "empty.sqlite", [])
    with pytest.raises(BadFile, match="no results"):
        run(empty)
