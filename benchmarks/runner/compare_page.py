"""The comparison as a page in Markdown, with its plots and a CSV file of every result."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conspec.benchmarks.runner import plots
from conspec.benchmarks.runner.collected import Run
from conspec.benchmarks.runner.compare import Comparison
from conspec.benchmarks.runner.compare_tables import Sheet, about, csv_text, sheets
from conspec.report.words import printable

NOTES = (
    "**solved**: an answer in time that nothing refutes, `sat` only with a witness that holds. "
    "**unjudged**: the solved ones that only the solver itself speaks for, since the truth is not "
    "known. An instance is `sat` once a witness of any solver holds in exact arithmetic; else the "
    "truth is what the suite says with its evidence. What most solvers say settles nothing.",
    "**wrong**: against the truth. **sat, no valid witness**: the witness is missing or does not "
    "hold, and the answer is not shown wrong. **open**: another solver says the contrary, and "
    "nothing refutes either. **not supported**: the solver does not read any format of the "
    "instance. An answer after the limit is a timeout, unless it is wrong. Outcomes that nobody "
    "has have no column.",
    "**PAR-2**: mean seconds over the instances asked, twice the limit for each that is not "
    "solved. **median**: over the instances that all solvers solved, without solvers that solved "
    "none. **solved alone**: by no other solver here. **virtual best**: for each instance the "
    "fastest that solved it.",
    "**Witnesses**: *exact* ones lie in the input set and satisfy the condition in rational "
    "arithmetic, *tolerance* ones only within 1e-4, *invalid* ones neither. *unchecked*: conspec "
    "has nothing to check the witness with; such an answer is believed as little and as much as "
    "an `unsat`.",
    "**VNN-COMP 2026**: 10 points for `unsat` unless the instance is known to be `sat`, and for "
    "`sat` with a witness that is valid within 1e-4; −150 for a wrong answer and for `sat` without "
    "a valid one; 0 for all else, for unchecked witnesses, and after the limit. There is no bonus "
    "for speed. As in the competition, a witness within the tolerance scores even where the exact "
    "truth is `unsat`, which the column *wrong* counts.",
)
"""How to read the tables."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG file of the page: its name, its words, and its bytes."""

    name: str
    caption: str
    png: bytes


def pictures(
    comparisons: Sequence[Comparison],
    solvers: Sequence[str],
    pair: tuple[str, str] | None,
) -> dict[str, list[Picture]]:
    """The plots of each suite: the cactus, and the scatter of a pair where both were asked.

    Args:
        comparisons: of all suites.
        solvers: all solvers, which fixes their colours.
        pair: of the scatter; None for none.
    """
    found: dict[str, list[Picture]] = {}
    taken: set[str] = set()
    for comparison in comparisons:
        suite = comparison.suite
        found[suite] = []
        drawn = plots.cactus_figure(comparison, solvers)
        name = _file_name(f"cactus-{suite}", taken)
        found[suite].append(Picture(name, plots.cactus_caption(comparison), drawn))
        if pair is not None and plots.scatter_pairs(comparison, *pair):
            drawn = plots.scatter_figure(comparison, *pair)
            name = _file_name(f"scatter-{suite}-{pair[0]}-{pair[1]}", taken)
            found[suite].append(Picture(name, plots.scatter_caption(comparison, *pair), drawn))
    return found


def write_folder(
    folder: Path,
    comparisons: Sequence[Comparison],
    runs: Sequence[Run],
    drawn: Mapping[str, Sequence[Picture]],
) -> list[Path]:
    """Write ``comparison.md``, ``comparison.csv`` and the plots; the page comes first."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "comparison.md": page(comparisons, runs, drawn),
        "comparison.csv": csv_text(comparisons),
    }
    files = []
    for name, text in texts.items():
        files.append(folder / name)
        files[-1].write_text(text, encoding="utf-8")
    for picture in (picture for pictures in drawn.values() for picture in pictures):
        files.append(folder / picture.name)
        files[-1].write_bytes(picture.png)
    return files


def page(
    comparisons: Sequence[Comparison],
    runs: Sequence[Run],
    drawn: Mapping[str, Sequence[Picture]],
) -> str:
    """The page in Markdown."""
    parts = [
        "# Comparison of solvers",
        "Written by `conspec bench compare` from the results of `conspec bench run`; nothing in it "
        "was typed by hand. Every result is in [comparison.csv](comparison.csv).",
        *(part for comparison in comparisons for part in _suite(comparison, drawn)),
        "## What was run",
        markdown(_runs_sheet(runs)),
        *_machines(runs),
        "## How to read the tables",
        *NOTES,
    ]
    return "\n\n".join(parts) + "\n"


def _suite(comparison: Comparison, drawn: Mapping[str, Sequence[Picture]]) -> list[str]:
    found = sheets(comparison)
    parts = [f"## {_escaped(comparison.suite)}", f"{about(comparison)}."]
    parts += [
        f"![{_escaped(picture.caption)}]({picture.name})"
        for picture in drawn.get(comparison.suite, ())
    ]
    for sheet in found:
        parts += [f"### {sheet.title}", markdown(sheet)]
    if not comparison.disagreements:
        parts += ["No two answers contradict each other, and none contradicts the truth."]
    return parts


def markdown(sheet: Sheet) -> str:
    """A table in Markdown; columns without words are right-aligned."""
    columns = zip(*sheet.rows, strict=True)
    marks = ["---" if any(c[:1].isalpha() for c in column) else "--:" for column in columns]
    lines = [sheet.headings, marks or ["---"] * len(sheet.headings), *sheet.rows]
    return "\n".join("| " + " | ".join(_escaped(cell) for cell in cells) + " |" for cells in lines)


def _runs_sheet(runs: Sequence[Run]) -> Sheet:
    rows = [
        (
            run.started,
            run.file,
            run.suite,
            run.suite_hash[:12],
            "each its own" if run.seconds is None else f"{run.seconds:g}",
            f"{run.memory_mib:g}",
            str(run.seed),
        )
        for run in runs
    ]
    headings = ("started", "database", "suite", "hash", "limit, s", "limit, MiB", "seed")
    return Sheet("Runs", headings, tuple(rows))


def _machines(runs: Sequence[Run]) -> list[str]:
    """Each machine and each set of versions once."""
    machines = list(dict.fromkeys(_facts(run.machine) for run in runs if run.machine))
    versions = list(dict.fromkeys(_facts(run.versions) for run in runs if run.versions))
    said = [f"Machine: {facts}." for facts in machines]
    if len(machines) > 1:
        said.append(
            f"Times come from {len(machines)} machines; they cannot be compared across them."
        )
    return said + [f"Versions: {facts}." for facts in versions]


def _facts(facts: Mapping[str, str]) -> str:
    said = (f"{_escaped(key)} {_escaped(value)}" for key, value in facts.items() if value)
    return ", ".join(said)


def _escaped(text: str) -> str:
    """The text as Markdown shows it, names and details of strangers included."""
    line = " ".join(printable(text).split())
    return re.sub(r"[\\`*\[\]<>|]|(?<!\w)_|_(?!\w)", r"\\\g<0>", line)


def _file_name(stem: str, taken: set[str]) -> str:
    """A name for a PNG file that no other picture has."""
    safe = re.sub(r"[^\w.-]+", "-", stem).strip("-.")
    name, number = safe, 1
    while name.casefold() in taken:
        number += 1
        name = f"{safe}-{number}"
    taken.add(name.casefold())
    return f"{name}.png"
