"""The numbers of a comparison as tables, as JSON, and as CSV."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conspec.benchmarks.runner.collected import Answer, Check, Run
from conspec.benchmarks.runner.compare import (
    PENALTY,
    POINTS,
    Comparison,
    Disagreement,
    Judged,
    Line,
    Outcome,
)

NOTHING = "–"
_ZERO = "·"
_BEST = "virtual best"
_MOST = 40
"""Lines of a table that repeats what is counted elsewhere; the CSV file has all."""
_REST: Mapping[Outcome, str] = {
    Outcome.WRONG: "wrong",
    Outcome.UNWITNESSED: "sat, no valid witness",
    Outcome.OPEN: "open",
    Outcome.UNKNOWN: "unknown",
    Outcome.TIMEOUT: "timeout",
    Outcome.MEMORY: "memory",
    Outcome.ERROR: "error",
    Outcome.GARBAGE: "garbage",
    Outcome.UNSUPPORTED: "not supported",
}
"""Outcomes that are not solved, and their headings."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table to show: every row has as many cells as there are headings."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def sheets(comparison: Comparison) -> list[Sheet]:
    """The tables of a suite; without those that would be empty."""
    found = [
        answers_sheet(comparison),
        times_sheet(comparison),
        witness_sheet(comparison),
        families_sheet(comparison),
        unwitnessed_sheet(comparison),
        disagreements_sheet(comparison),
    ]
    return [sheet for sheet in found if sheet.rows]


def answers_sheet(comparison: Comparison) -> Sheet:
    """What each solver answered, every result in one column; only *wrong* may be all zeros."""
    rest = [
        outcome
        for outcome in _REST
        if outcome is Outcome.WRONG or any(line.counts.get(outcome) for line in comparison.lines)
    ]
    rows = [
        (
            line.solver,
            str(line.asked),
            str(line.solved),
            *map(_count, (line.counts.get(Outcome.SAT), line.counts.get(Outcome.UNSAT))),
            _count(line.unjudged),
            *(_count(line.counts.get(outcome)) for outcome in rest),
        )
        for line in comparison.lines
    ]
    best = comparison.best
    blank = [""] * len(rest)
    rows.append((_BEST, "", str(best.sat + best.unsat), str(best.sat), str(best.unsat), "", *blank))
    headings = (
        "solver",
        "asked",
        "solved",
        "sat",
        "unsat",
        "unjudged",
        *(_REST[outcome] for outcome in rest),
    )
    return Sheet("Answers", headings, tuple(rows))


def times_sheet(comparison: Comparison) -> Sheet:
    """PAR-2, time on common instances, memory, and points."""
    rows = [
        (
            line.solver,
            seconds(line.par2),
            NOTHING if line.median is None else seconds(line.median),
            f"{line.peak_mib:,.0f}" if line.peak_mib else NOTHING,
            _count(line.unique),
            f"{line.points:,}".replace("-", "−"),
        )
        for line in comparison.lines
    ]
    rows.append((_BEST, seconds(comparison.best.par2), "", "", "", ""))
    headings = (
        "solver",
        "PAR-2, s",
        f"median s on {comparison.common} common",
        "peak MiB",
        "solved alone",
        "VNN-COMP 2026",
    )
    return Sheet("Time, memory and points", headings, tuple(rows))


def witness_sheet(comparison: Comparison) -> Sheet:
    """What the exact checks of the witnesses found, of all answers ``sat``."""
    lines = [line for line in comparison.lines if line.checks]
    checks = [c for c in Check if c is not Check.UNCHECKED or any(c in x.checks for x in lines)]
    replays = sorted({word for line in lines for word in line.float32})
    rows = []
    for line in lines:
        total = sum(line.checks.values())
        shares = (_share(line.checks.get(check, 0), total) for check in checks)
        replayed = (_count(line.float32.get(word)) for word in replays)
        rows.append((line.solver, str(total), *shares, *replayed))
    headings = ("solver", "sat answers", *checks, *(f"in float32: {word}" for word in replays))
    return Sheet("Witnesses", headings, tuple(rows))


def families_sheet(comparison: Comparison) -> Sheet:
    """How many instances of each family each solver solved."""
    solvers = [line.solver for line in comparison.lines]
    rows = [
        (family, str(size), *(_count(counts.get(name)) for name in (*solvers, "")))
        for family, (size, counts) in comparison.families.items()
    ]
    return Sheet("Solved by family", ("family", "instances", *solvers, _BEST), tuple(rows))


def unwitnessed_sheet(comparison: Comparison) -> Sheet:
    """Answers ``sat`` without a valid witness, the first ``_MOST`` of them."""
    rows = [
        (
            entry.result.instance.name,
            entry.result.solver,
            str(entry.result.check),
            comparison.settled[entry.result.instance].truth or "open",
        )
        for entry in comparison.judged
        if entry.result.check in (Check.INVALID, Check.MISSING)
    ]
    headings = ("instance", "solver", "witness", "truth")
    if (more := len(rows) - _MOST) > 0:
        rows[_MOST:] = [(f"and {more} more", "", "", "")]
    return Sheet("Answers sat without a valid witness", headings, tuple(rows))


def disagreements_sheet(comparison: Comparison) -> Sheet:
    """Every instance with contradicting answers, who is shown wrong, and by what."""
    rows = [
        (
            found.instance.name,
            found.instance.family,
            _said(found, "sat"),
            _said(found, "unsat"),
            found.settled.truth or "open",
            ", ".join(found.wrong) or NOTHING,
            found.settled.why,
        )
        for found in comparison.disagreements
    ]
    headings = ("instance", "family", "said sat", "said unsat", "truth", "shown wrong", "by")
    return Sheet("Disagreements", headings, tuple(rows))


def _said(found: Disagreement, answer: str) -> str:
    """Who gave an answer, each with what its witness is worth."""
    said = [
        entry.result.solver + (f" ({entry.result.check} witness)" if entry.result.check else "")
        for entry in found.answers
        if entry.result.answer == answer
    ]
    return ", ".join(said) or NOTHING


def about(comparison: Comparison) -> str:
    """How many instances a suite has, and of how many the truth is known."""
    truths = [settled.truth for settled in comparison.settled.values()]
    total = len(truths)
    counts = ", ".join(
        f"{count} {word}"
        for word, count in (
            ("sat", truths.count(Answer.SAT)),
            ("unsat", truths.count(Answer.UNSAT)),
            ("open", truths.count(None)),
        )
        if count
    )
    return f"{total} {'instance' if total == 1 else 'instances'}: {counts}"


def seconds(value: float) -> str:
    """Seconds in three digits.

    >>> seconds(0.0), seconds(0.0001), seconds(0.01234), seconds(59.96), seconds(1234.5)
    ('0', '< 0.001', '0.0123', '60', '1,234')
    """
    if 0 < value < 0.001:
        return "< 0.001"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _count(number: int | None) -> str:
    return str(number) if number else _ZERO


def _share(count: int, total: int) -> str:
    return f"{count} ({100 * count / total:.0f} %)" if count else _ZERO


def document(comparisons: Sequence[Comparison], runs: Sequence[Run]) -> dict[str, Any]:
    """The comparison as one JSON object; single results are in the CSV file."""
    return {
        "vnncomp": {"correct": POINTS, "incorrect": PENALTY},
        "runs": [
            {
                "file": run.file,
                "started": run.started,
                "suite": run.suite,
                "suite_hash": run.suite_hash,
                "seconds": run.seconds,
                "memory_mib": run.memory_mib,
                "seed": run.seed,
                "machine": dict(run.machine),
                "versions": dict(run.versions),
            }
            for run in runs
        ],
        "suites": [_suite_document(comparison) for comparison in comparisons],
    }


def _suite_document(comparison: Comparison) -> dict[str, Any]:
    truths = [settled.truth for settled in comparison.settled.values()]
    best = comparison.best
    return {
        "suite": comparison.suite,
        "instances": len(truths),
        "truth": {key: truths.count(value) for key, value in _TRUTHS.items()},
        "common": comparison.common,
        "solvers": [_line_document(line) for line in comparison.lines],
        "virtual_best": {"sat": best.sat, "unsat": best.unsat, "par2": best.par2},
        "families": [
            {
                "family": family,
                "instances": size,
                "solved": {line.solver: counts.get(line.solver, 0) for line in comparison.lines},
                "virtual_best": counts.get("", 0),
            }
            for family, (size, counts) in comparison.families.items()
        ],
        "disagreements": [
            {
                "instance": found.instance.name,
                "family": found.instance.family,
                "truth": found.settled.truth,
                "why": found.settled.why,
                "answers": {
                    entry.result.solver: {
                        "answer": entry.result.answer,
                        "witness": entry.result.check,
                        "judgement": entry.judgement,
                    }
                    for entry in found.answers
                },
            }
            for found in comparison.disagreements
        ],
    }


_TRUTHS: Mapping[str, Answer | None] = {"sat": Answer.SAT, "unsat": Answer.UNSAT, "open": None}


def _line_document(line: Line) -> dict[str, Any]:
    return {
        "solver": line.solver,
        "asked": line.asked,
        "solved": line.solved,
        "outcomes": {outcome.name.lower(): line.counts.get(outcome, 0) for outcome in Outcome},
        "unjudged": line.unjudged,
        "par2": line.par2,
        "median_common": line.median,
        "peak_mib": line.peak_mib,
        "unique": line.unique,
        "witnesses": {check.value: line.checks.get(check, 0) for check in Check},
        "float32": dict(sorted(line.float32.items())),
        "points": line.points,
    }


_CSV: dict[str, Callable[[Judged], Any]] = {
    "suite": lambda entry: entry.result.instance.suite,
    "instance": lambda entry: entry.result.instance.name,
    "family": lambda entry: entry.result.instance.family,
    "solver": lambda entry: entry.result.solver,
    "version": lambda entry: entry.result.version,
    "limit": lambda entry: f"{entry.result.limit:g}",
    "answer": lambda entry: entry.result.answer,
    "witness": lambda entry: entry.result.check or "",
    "float32": lambda entry: entry.result.float32,
    "judgement": lambda entry: entry.judgement or "",
    "outcome": lambda entry: entry.outcome,
    "points": lambda entry: entry.points,
    "seconds": lambda entry: entry.result.seconds,
    "cpu_seconds": lambda entry: entry.result.cpu_seconds,
    "peak_mib": lambda entry: entry.result.peak_mib,
    "detail": lambda entry: entry.result.detail,
}


def csv_text(comparisons: Sequence[Comparison]) -> str:
    """Every result with its judgement, a line each."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_CSV, "truth", "truth_by"])
    for comparison in comparisons:
        for entry in comparison.judged:
            settled = comparison.settled[entry.result.instance]
            values = [pick(entry) for pick in _CSV.values()]
            writer.writerow([*values, settled.truth or "", settled.why])
    return stream.getvalue()
