"""``conspec.benchmarks.runner``: what the results of several solvers add up to."""

import csv
import io
import math
import re
import sqlite3
import statistics
import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conspec.benchmarks.runner import plots, store
from conspec.benchmarks.runner.collected import (
    Answer,
    Check,
    Collection,
    Instance,
    Result,
    collect,
)
from conspec.benchmarks.runner.compare import (
    Comparison,
    Judgement,
    Outcome,
    compare,
)
from conspec.benchmarks.runner.compare_page import page, pictures, write_folder
from conspec.benchmarks.runner.compare_tables import Sheet, answers_sheet, csv_text, sheets
from conspec.benchmarks.runner.instances import BenchSuite
from conspec.benchmarks.runner.instances import Instance as Asked
from conspec.specs.errors import BadFile

LIMIT = 10.0
SAT, UNSAT = Answer.SAT, Answer.UNSAT


def instance(
    name: str = "i", truth: Answer | None = None, family: str = "f", suite: str = "s"
) -> Instance:
    return Instance(suite, name, family, truth, "certificate" if truth else "")


def result(
    about: Instance,
    solver: str,
    answer: Answer,
    check: Check | None = None,
    seconds: float = 1.0,
    limit: float = LIMIT,
) -> Result:
    if answer is SAT and check is None:
        check = Check.EXACT
    return Result(about, solver, "1", limit, answer, seconds, seconds, 50.0, check, "", "")


def only(*results: Result) -> Comparison:
    """The comparison of these results, which are about one suite."""
    instances = {entry.instance: None for entry in results}
    (found,) = compare(Collection((), tuple(instances), results))
    return found


def judged(comparison: Comparison, solver: str) -> tuple[Judgement | None, Outcome, int]:
    """Judgement, outcome and points of a solver's only result."""
    (entry,) = [e for e in comparison.judged if e.result.solver == solver]
    return entry.judgement, entry.outcome, entry.points


# The rules, one by one


def test_the_suite_s_truth_judges() -> None:
    about = instance(truth=UNSAT)
    found = only(
        result(about, "a", UNSAT),
        result(about, "b", SAT, Check.TOLERANCE),
        result(about, "c", SAT, Check.INVALID),
    )
    assert judged(found, "a") == (Judgement.CORRECT, Outcome.UNSAT, 10)
    # As in VNN-COMP, a witness within the tolerance scores; our own tables say wrong.
    assert judged(found, "b") == (Judgement.WRONG, Outcome.WRONG, 10)
    assert judged(found, "c") == (Judgement.WRONG, Outcome.WRONG, -150)
    (disagreement,) = found.disagreements
    assert disagreement.wrong == ["b", "c"]
    assert disagreement.settled.why == "the suite's truth: certificate"


def test_an_exact_witness_of_one_settles_against_any_majority() -> None:
    about = instance()
    many = [result(about, f"liar {i}", UNSAT) for i in range(9)]
    found = only(*many, result(about, "a", SAT))
    assert judged(found, "a") == (Judgement.CORRECT, Outcome.SAT, 10)
    for entry in many:
        assert judged(found, entry.solver) == (Judgement.WRONG, Outcome.WRONG, -150)


def test_a_late_exact_witness_still_settles() -> None:
    about = instance()
    found = only(result(about, "a", SAT, seconds=LIMIT + 1), result(about, "b", UNSAT))
    assert judged(found, "a") == (Judgement.CORRECT, Outcome.TIMEOUT, 0)
    assert judged(found, "b") == (Judgement.WRONG, Outcome.WRONG, -150)


@pytest.mark.parametrize("check", [Check.TOLERANCE, Check.UNCHECKED])
def test_what_is_not_exact_settles_nothing(check: Check) -> None:
    about = instance()
    found = only(result(about, "a", SAT, check), result(about, "b", UNSAT))
    points = 10 if check is Check.TOLERANCE else 0
    assert judged(found, "a") == (Judgement.UNJUDGED, Outcome.OPEN, points)
    assert judged(found, "b") == (Judgement.UNJUDGED, Outcome.OPEN, 10)
    assert found.best.sat == found.best.unsat == 0
    (row,) = sheets(found)[-1].rows
    assert row[4:] == ("open", "–", "nothing settles it")


@pytest.mark.parametrize("check", [Check.INVALID, Check.MISSING])
def test_sat_without_a_valid_witness_is_listed_apart_and_refutes_nobody(check: Check) -> None:
    about = instance()
    found = only(result(about, "a", SAT, check), result(about, "b", UNSAT))
    assert judged(found, "a") == (Judgement.UNJUDGED, Outcome.UNWITNESSED, -150)
    assert judged(found, "b") == (Judgement.UNJUDGED, Outcome.UNSAT, 10)
    assert len(found.disagreements) == 1
    titles = [sheet.title for sheet in sheets(found)]
    assert "Answers sat without a valid witness" in titles
    # Right, but without evidence: not solved.
    known = only(result(instance(truth=SAT), "a", SAT, check))
    assert judged(known, "a") == (Judgement.CORRECT, Outcome.UNWITNESSED, -150)
    assert known.lines[0].par2 == 2 * LIMIT


def test_a_solver_that_never_gives_a_witness_does_not_fill_the_page() -> None:
    found = only(*(result(instance(f"i{i:03}"), "a", SAT, Check.MISSING) for i in range(100)))
    (sheet,) = [s for s in sheets(found) if s.title.startswith("Answers sat without")]
    assert len(sheet.rows) == 41
    assert sheet.rows[-1][0] == "and 60 more"


def test_a_witness_that_nobody_can_check_goes_by_the_truth() -> None:
    right = only(result(instance(truth=SAT), "a", SAT, Check.UNCHECKED))
    assert judged(right, "a") == (Judgement.CORRECT, Outcome.SAT, 0)
    wrong = only(result(instance(truth=UNSAT), "a", SAT, Check.UNCHECKED))
    assert judged(wrong, "a") == (Judgement.WRONG, Outcome.WRONG, 0)


def test_an_exact_witness_is_stronger_than_the_suite_s_truth() -> None:
    about = instance(truth=UNSAT)
    found = only(result(about, "a", SAT))
    assert judged(found, "a") == (Judgement.CORRECT, Outcome.SAT, 10)
    assert found.disagreements[0].settled.why == (
        "exact witness of a; so the suite's truth is wrong, unsat by certificate"
    )
    assert judged(only(result(about, "a", SAT), result(about, "b", UNSAT)), "b") == (
        Judgement.WRONG,
        Outcome.WRONG,
        -150,
    )


def test_an_answer_after_the_limit_is_a_timeout_and_a_late_wrong_one_is_wrong() -> None:
    about = instance(truth=UNSAT)
    late = math.nextafter(LIMIT, math.inf)
    found = only(
        result(about, "exactly", UNSAT, seconds=LIMIT),
        result(about, "late", UNSAT, seconds=late),
        result(about, "late and wrong", SAT, Check.INVALID, seconds=late),
    )
    assert judged(found, "exactly") == (Judgement.CORRECT, Outcome.UNSAT, 10)
    assert judged(found, "late") == (Judgement.CORRECT, Outcome.TIMEOUT, 0)
    assert judged(found, "late and wrong") == (Judgement.WRONG, Outcome.WRONG, 0)


def test_numbers_of_a_small_suite_by_hand() -> None:
    one, two, three = (instance(str(i), UNSAT, f"family {i % 2}") for i in range(3))
    found = only(
        result(one, "a", UNSAT, seconds=2), result(one, "b", UNSAT, seconds=4),
        result(two, "a", UNSAT, seconds=3), result(two, "b", Answer.MEMORY),
        result(three, "a", SAT, Check.TOLERANCE), result(three, "b", Answer.GARBAGE),
        result(three, "c", Answer.UNKNOWN),
    )  # fmt: skip
    a, b, c = found.lines
    assert (a.solved, a.par2, a.median, a.unique, a.points) == (2, (2 + 3 + 20) / 3, 2, 1, 30)
    assert (b.solved, b.par2, b.median, b.unique, b.points) == (1, (4 + 20 + 20) / 3, 4, 0, 10)
    assert (c.solved, c.asked, c.par2, c.median, c.points) == (0, 1, 20, None, 0)
    assert found.common == 1  # c solved none, so it does not count
    assert (found.best.sat, found.best.unsat, found.best.par2) == (0, 2, (2 + 3 + 20) / 3)
    sizes = {family: (size, dict(solved)) for family, (size, solved) in found.families.items()}
    assert sizes == {
        "family 0": (2, {"a": 1, "b": 1, "": 1}),
        "family 1": (1, {"a": 1, "": 1}),
    }
    assert "garbage" in answers_sheet(found).headings
    assert "not supported" not in answers_sheet(found).headings
    usual = ("solver", "asked", "solved", "sat", "unsat", "unjudged", "wrong")
    assert answers_sheet(only(result(one, "a", UNSAT))).headings == usual


# Properties over random results

SOLVERS = ("a", "b", "c", "d")


@st.composite
def tables(draw: st.DrawFn) -> tuple[Result, ...]:
    found = []
    for number in range(draw(st.integers(1, 6))):
        truth = draw(st.sampled_from([None, SAT, UNSAT]))
        about = instance(f"i{number}", truth, draw(st.sampled_from("fg")))
        asked = draw(st.lists(st.sampled_from(SOLVERS), unique=True, min_size=1))
        for solver in asked:
            answer = draw(st.sampled_from(Answer))
            check = draw(st.sampled_from(Check)) if answer is SAT else None
            seconds = draw(st.sampled_from([0.0, 0.001, 1.0, LIMIT, LIMIT + 0.5]))
            found.append(result(about, solver, answer, check, seconds))
    return tuple(found)


def by_hand(entry: Result, everything: Sequence[Result]) -> tuple[str, int]:
    """What a result counts as and its points, written down a second time and otherwise."""
    same = [other for other in everything if other.instance == entry.instance]
    exact = any(other.check is Check.EXACT for other in same)
    known = SAT if exact else entry.instance.truth
    if entry.answer not in (SAT, UNSAT):
        return entry.answer.value, 0
    good = entry.check in (Check.EXACT, Check.TOLERANCE)
    bad = entry.check in (Check.INVALID, Check.MISSING)
    if entry.seconds > entry.limit:
        points = 0
    elif entry.answer is SAT:
        points = 10 if good else -150 if bad else 0
    else:
        points = -150 if known is SAT else 10
    if known is not None and entry.answer is not known:
        return "wrong", points
    if entry.seconds > entry.limit:
        return "timeout", points
    if bad:
        return "sat, no valid witness", points
    claims = {o.answer for o in same if o.check not in (Check.INVALID, Check.MISSING)}
    if known is None and {SAT, UNSAT} <= claims:
        return "contradicted, open", points
    return entry.answer.value, points


@given(tables())
def test_every_result_counts_once_and_as_by_hand(results: tuple[Result, ...]) -> None:
    found = only(*results)
    expected = {(r.instance.name, r.solver): by_hand(r, results) for r in results}
    assert {
        (e.result.instance.name, e.result.solver): (e.outcome.value, e.points) for e in found.judged
    } == expected
    for line in found.lines:
        own = [r for r in results if r.solver == line.solver]
        solved = [r for r in own if by_hand(r, results)[0] in ("sat", "unsat")]
        assert line.asked == len(own)
        assert line.solved == len(solved)
        costs = [r.seconds if r in solved else 2 * LIMIT for r in own]
        assert line.par2 == pytest.approx(statistics.fmean(costs), abs=1e-12)
        assert line.points == sum(by_hand(r, results)[1] for r in own)
        others = {
            r.instance
            for r in results
            if r.solver != line.solver and by_hand(r, results)[0] in ("sat", "unsat")
        }
        assert line.unique == sum(r.instance not in others for r in solved)
    headings = answers_sheet(found).headings
    for row in answers_sheet(found).rows[:-1]:
        numbers = [0 if cell == "·" else int(cell) for cell in row[1:]]
        shown = dict(zip(headings[1:], numbers, strict=True))
        total = sum(n for word, n in shown.items() if word not in ("asked", "solved", "unjudged"))
        assert total == shown["asked"]


@given(tables(), st.randoms(use_true_random=False))
def test_neither_order_nor_many_voices_change_a_judgement(
    results: tuple[Result, ...], order: Any
) -> None:
    before = only(*results)
    mixed = list(results)
    order.shuffle(mixed)
    assert only(*mixed).lines == before.lines
    # The answers of one solver said again by three more, none of them with evidence of its own.
    voice = results[0].solver
    echoes = [
        replace(r, solver=f"echo {i}")
        for r in results
        for i in range(3)
        if r.solver == voice and r.check is not Check.EXACT
    ]
    after = {(e.result.instance, e.result.solver): e for e in only(*results, *echoes).judged}
    for entry in before.judged:
        assert after[entry.result.instance, entry.result.solver] == entry


@given(tables())
def test_the_virtual_best_is_no_worse_than_any(results: tuple[Result, ...]) -> None:
    found = only(*results)
    instances = {r.instance for r in results}
    for line in found.lines:
        assert found.best.sat + found.best.unsat >= line.solved
        if line.asked == len(instances):
            assert found.best.par2 <= line.par2 + 1e-12


@given(tables())
def test_the_page_and_the_csv_hold_every_result(results: tuple[Result, ...]) -> None:
    found = only(*results)
    rows = list(csv.DictReader(io.StringIO(csv_text([found]))))
    assert len(rows) == len(results)
    assert sum(int(row["points"]) for row in rows) == sum(line.points for line in found.lines)
    text = page([found], [], {})
    assert text.count("\n## ") == 3
    contradicting = "No two answers contradict each other" not in text
    assert contradicting == bool(found.disagreements)


def test_names_of_strangers_stay_in_their_cells() -> None:
    about = instance("a|b\n<script>_x_", UNSAT, "[link](http://x)", suite="# su`ite")
    text = page([only(result(about, "so*l*v|er", SAT, Check.TOLERANCE))], [], {})
    assert "<script>" not in text.replace("\\<", "")
    assert "](http" not in text.replace("\\]", "")
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in text.split("\n")]
    for one, other in pairwise(bars):  # lines of one table have as many cells
        assert one == other or not (one and other)


# Databases


def database(
    path: Path,
    rows: Sequence[tuple[str, str, store.Found]],
    truths: dict[str, str | None] | None = None,
    suite: tuple[str, str] = ("suite", "ab" * 32),
    version: str = "1.0",
    limit: float = LIMIT,
    machine: str = "EPYC",
) -> Path:
    """A database as ``conspec bench run`` writes it: instance, solver and result of each row."""
    names = dict.fromkeys(name for name, _, _ in rows)
    instances = tuple(
        Asked(name, "family", {}, limit, (truths or {}).get(name), "evidence") for name in names
    )
    with store.open_store(path) as opened:
        made = BenchSuite(suite[0], instances, suite[1])
        opened.note(made)
        run = opened.begin(
            made, store.Run({"processor": machine}, {"conspec": "0.1.0"}, None, 4096, 7)
        )
        for name, solver, found in rows:
            key = store.Key(suite[1], name, solver, version, limit, 4096)
            opened.add(store.Row(key, run, found))
    return path


def answered(answer: str, seconds: float = 1.0, check: str | None = None) -> store.Found:
    return store.Found(answer, seconds, seconds, 10.0, witness_check=check)


def change(path: Path, statement: str) -> Path:
    """Alter a database behind the back of its module."""
    with closing(sqlite3.connect(path)) as opened:
        opened.execute(statement)
        opened.commit()
    return path


def test_a_database_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = database(
        tmp_path / "r.sqlite",
        [
            ("i", "a", answered("sat", 2.0, "exact")),
            ("i", "b", answered("sat", 3.0, None)),
            ("j", "a", store.Found("unsupported")),
        ],
        {"i": "sat"},
    )
    found = collect([path])
    assert [(r.solver, r.answer, r.check, r.seconds) for r in found.results] == [
        ("a", SAT, Check.EXACT, 2.0),
        ("b", SAT, Check.UNCHECKED, 3.0),
        ("a", Answer.UNSUPPORTED, None, 0.0),
    ]
    assert [(i.name, i.truth, i.evidence) for i in found.instances] == [
        ("i", SAT, "evidence"),
        ("j", None, ""),
    ]
    assert found.runs[0].machine == {"processor": "EPYC"}


def test_the_same_results_twice_count_once(tmp_path: Path) -> None:
    path = database(tmp_path / "r.sqlite", [("i", "a", answered("unsat"))])
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(path.read_bytes())
    once = collect([path])
    assert collect([path, path]) == once
    assert collect([path, copy]).results == once.results


def test_files_add_up(tmp_path: Path) -> None:
    first = database(tmp_path / "a.sqlite", [("i", "a", answered("unsat"))])
    second = database(tmp_path / "b.sqlite", [("i", "b", answered("sat", 1.0, "exact"))])
    (found,) = compare(collect([first, second]))
    assert [line.solver for line in found.lines] == ["a", "b"]
    assert found.disagreements[0].wrong == ["a"]


def test_versions_limits_and_suites_of_one_name_are_told_apart(tmp_path: Path) -> None:
    rows = [("i", "a", answered("unsat")), ("j", "a", answered("unsat"))]
    old = database(tmp_path / "1.sqlite", rows)
    new = database(tmp_path / "2.sqlite", rows, version="2.0")
    longer = database(tmp_path / "3.sqlite", rows[:1], limit=60)
    other = database(tmp_path / "4.sqlite", rows, suite=("suite", "cd" * 32))
    assert collect([old, new]).solvers == ["a (1.0)", "a (2.0)"]
    assert collect([old, longer]).solvers == ["a (10 s)", "a (60 s)"]
    assert collect([old, other]).suites == ["suite (abababab)", "suite (cdcdcdcd)"]
    # A limit that only differs between instances does not tell solvers apart.
    assert collect([database(tmp_path / "5.sqlite", rows[1:], limit=9), longer]).solvers == ["a"]


def test_contradicting_files_are_refused(tmp_path: Path) -> None:
    row = ("i", "a", answered("unsat"))
    first = database(tmp_path / "a.sqlite", [row], {"i": "sat"})
    second = database(tmp_path / "b.sqlite", [row], {"i": "unsat"})
    with pytest.raises(BadFile, match=r"b\.sqlite: says that instance i is unsat; another .* sat"):
        collect([first, second])
    third = database(tmp_path / "c.sqlite", [("i", "a", answered("unsat", 2.0))])
    with pytest.raises(BadFile, match=r"c\.sqlite: has another result of a on i than .*a\.sqlite"):
        collect([first, third])
    # A file that does not know the truth contradicts none.
    unknowing = database(tmp_path / "d.sqlite", [row])
    assert collect([unknowing, first]).instances == collect([first]).instances


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE results SET answer = 'maybe'", "a on i: answer 'maybe' is none of sat, unsat"),
        ("UPDATE results SET answer = ''", "a on i: has no answer"),
        ("UPDATE results SET seconds = 'x'", "a on i: seconds 'x' is not a number from 0"),
        ("UPDATE results SET seconds = -1", "a on i: seconds -1.0 is not a number from 0"),
        ("UPDATE results SET seconds = 9e999", "a on i: seconds inf is not a number from 0"),
        ("UPDATE results SET witness_check = 'ok'", "a on i: witness_check 'ok' is none of exact"),
        ("UPDATE instances SET truth = 'unknown'", "i: truth 'unknown' is none of sat, unsat"),
        ("UPDATE runs SET machine = '{'", r"runs\.machine of run 1 is not JSON"),
        ("UPDATE runs SET versions = '[]'", r"runs\.versions of run 1 is not a JSON object"),
        ("UPDATE runs SET seconds = -5", "run 1: seconds -5.0 is not a number from 0"),
        (
            "UPDATE runs SET machine = '" + "[" * 100_000 + "'",
            r"runs\.machine of run 1 is not JSON",
        ),
        ("UPDATE results SET seconds_limit = 1e308", r"a on i: seconds_limit 1e\+308 is not"),
        ("UPDATE instances SET suite_hash = x'ff00'", "a row of instances holds bytes"),
        ("DELETE FROM results", "no results; 'conspec bench run' writes them"),
        ("DROP TABLE runs", "cannot be used as the database of results: no such table: runs"),
    ],
)
def test_damaged_databases_are_refused_by_place(
    tmp_path: Path, statement: str, message: str
) -> None:
    path = database(tmp_path / "r.sqlite", [("i", "a", answered("sat", 1.0, "exact"))])
    with pytest.raises(BadFile, match=rf"r\.sqlite: .*{message}|r\.sqlite: {message}"):
        collect([change(path, statement)])


# Plots


def random_results(
    solvers: int, instances: int, seed: int, families: int = 6, limit: float = 60.0
) -> tuple[Result, ...]:
    """Results with times over five decades, timeouts and zeros."""
    import numpy as np

    draw = np.random.default_rng(seed)
    found = []
    for number in range(instances):
        about = instance(f"i{number:03}", UNSAT, f"family {number % families}")
        for solver in range(solvers):
            seconds = float(10 ** draw.uniform(-4, 2.5)) if draw.random() > 0.05 else 0.0
            answer = UNSAT if seconds <= limit else Answer.TIMEOUT
            found.append(
                result(about, f"solver {solver:02}", answer, None, min(seconds, limit), limit)
            )
    return tuple(found)


CASES = {
    "usual": random_results(6, 60, 0),
    "twelve solvers": random_results(12, 60, 1),
    "thirty solvers": random_results(30, 12, 2),
    "one solver": random_results(1, 20, 3),
    "one instance": random_results(6, 1, 4),
    "many families": random_results(2, 60, 5, families=30),
    "nothing solved": tuple(
        result(instance(f"i{i}"), solver, Answer.UNKNOWN) for i in range(3) for solver in "ab"
    ),
    "in no time": tuple(
        result(instance(f"i{i}"), solver, UNSAT, None, 0.0, 1e-6)
        for i in range(3)
        for solver in "ab"
    ),
    "limits of their own": tuple(
        result(instance(f"i{i}"), solver, UNSAT, None, i, 10.0 * (i + 1))
        for i in range(5)
        for solver in "ab"
    ),
    "odd names": tuple(
        result(instance("$x", UNSAT, "$\\frac{1}{", suite="$\\bad{"), solver, UNSAT)
        for solver in ("$y_{", "日本語\n\x1b[31m", "long " * 30, "_hidden")
    ),
}  # fmt: skip


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn, kept as objects."""
    kept: list[Any] = []
    written = plots._png

    def keep(figure: Any) -> bytes:
        kept.append(figure)
        return written(figure)

    monkeypatch.setattr(plots, "_png", keep)
    return kept


@pytest.mark.parametrize("case", CASES)
def test_plots_fit_their_page_and_no_texts_overlap(case: str, figures: list[Any]) -> None:
    found = only(*CASES[case])
    solvers = [line.solver for line in found.lines]
    drawn = [plots.cactus_figure(found, solvers)]
    if len(solvers) > 1:
        drawn.append(plots.scatter_figure(found, solvers[0], solvers[-1]))
    for png, figure in zip(drawn, figures, strict=True):
        with Image.open(io.BytesIO(png)) as image:
            assert image.format == "PNG"
            assert 1000 <= image.width <= 1400
        renderer = figure.canvas.get_renderer()
        (axes,) = figure.axes
        legend = axes.get_legend()
        texts = [*figure.texts, *axes.texts, axes.xaxis.label, axes.yaxis.label]
        texts += axes.get_xticklabels() + axes.get_yticklabels()
        texts += legend.get_texts() if legend else []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a character that the font lacks
            boxes = {text: text.get_window_extent(renderer) for text in texts if text.get_text()}
        for text, box in boxes.items():
            assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, text
            assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, text
        for one, other in combinations(boxes, 2):
            assert _shared(boxes[one], boxes[other]) <= 1.0, (one, other)


def _shared(one: Any, other: Any) -> float:
    """The smaller side in pixels of what two boxes share; negative if they share nothing."""
    across = min(one.x1, other.x1) - max(one.x0, other.x0)
    return float(min(across, min(one.y1, other.y1) - max(one.y0, other.y0)))


@pytest.mark.parametrize("case", ["usual", "twelve solvers", "one solver", "in no time"])
def test_the_cactus_counts_what_was_solved_within_a_time(case: str, figures: list[Any]) -> None:
    results = CASES[case]
    found = only(*results)
    solvers = [line.solver for line in found.lines]
    plots.cactus_figure(found, solvers)
    lines = figures[0].axes[0].lines
    for line, solver in zip(lines, solvers, strict=False):
        across, up = line.get_data()
        assert line.get_drawstyle() == "steps-post"  # the count rises at the time, not before it
        own = [r.seconds for r in results if r.solver == solver and r.answer is UNSAT]
        assert up[-1] == sum(s <= results[0].limit for s in own)
        assert all(a <= b for a, b in pairwise(across))
        for time, count in zip(across[1:], up[1:], strict=True):
            assert count <= sum(s <= time * (1 + 1e-12) for s in own)
    texts = [text.get_text() for text in figures[0].axes[0].texts]
    for line in found.lines:
        assert f"{line.solver}  {line.solved}" in texts
    assert ("virtual best" in " ".join(texts)) == (len(solvers) > 1)
    heights = {text.get_text(): text.get_position()[1] for text in figures[0].axes[0].texts}
    shown = [heights[f"{line.solver}  {line.solved}"] for line in found.lines]
    for (one, up), (other, down) in pairwise(zip(found.lines, shown, strict=True)):
        assert one.solved != other.solved or up > down  # of a tie, the first name stands highest


def test_the_scatter_shows_each_instance_once_and_failures_on_the_border(
    figures: list[Any],
) -> None:
    results = CASES["usual"]
    found = only(*results)
    first, second = "solver 00", "solver 05"
    plots.scatter_figure(found, first, second)
    axes = figures[0].axes[0]
    points = [tuple(p) for c in axes.collections for p in c.get_offsets() if len(c.get_offsets())]
    places: dict[str, dict[Instance, float]] = {first: {}, second: {}}
    for entry in results:
        if entry.solver in places:
            solved = entry.answer is UNSAT
            places[entry.solver][entry.instance] = max(entry.seconds, 1e-3) if solved else 120.0
    expected = [(place, places[second][about]) for about, place in places[first].items()]
    assert sorted(points) == sorted(expected)
    assert axes.get_xlim() == axes.get_ylim()


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=12).map(sorted),
    st.floats(0.001, 0.2),
)
def test_labels_keep_their_distance_and_order(wanted: list[float], gap: float) -> None:
    places = plots._apart(wanted, gap)
    assert len(places) == len(wanted)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(places))
    assert places[0] >= 0
    if gap * (len(wanted) - 1) <= 1:
        assert places[-1] <= 1 + 1e-9
    if all(b - a >= gap for a, b in pairwise(wanted)):
        assert places == pytest.approx(wanted)


def test_the_folder_is_the_same_each_time(tmp_path: Path) -> None:
    found = [only(*CASES["usual"])]
    solvers = [line.solver for line in found[0].lines]
    kept = []
    for place in (tmp_path / "one", tmp_path / "two"):
        drawn = pictures(found, solvers, ("solver 00", "solver 01"))
        files = write_folder(place, found, [], drawn)
        kept.append({path.name: path.read_bytes() for path in files})
    assert kept[0] == kept[1]
    names = ["comparison.md", "comparison.csv", "cactus-s.png"]
    assert list(kept[0]) == [*names, "scatter-s-solver-00-solver-01.png"]
    for name in list(kept[0])[2:]:
        assert f"]({name})" in kept[0]["comparison.md"].decode()


def test_pictures_of_suites_with_like_names_get_files_of_their_own() -> None:
    found = [only(result(instance(suite=name), "a", UNSAT)) for name in ("A b", "a/b", "A?b")]
    drawn = pictures(found, ["a"], None)
    names = [picture.name for some in drawn.values() for picture in some]
    assert names == ["cactus-A-b.png", "cactus-a-b-2.png", "cactus-A-b-3.png"]


def test_sheets_are_rectangles() -> None:
    for results in CASES.values():
        for sheet in sheets(only(*results)):
            assert isinstance(sheet, Sheet)
            assert {len(row) for row in sheet.rows} == {len(sheet.headings)}
