"""``conspec bench compare``: what the results of several solvers add up to."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conspec.cli.console import print_json, say, show, warn
from conspec.cli.verify import JsonOption
from conspec.specs.errors import BadUsage, UnknownName

if TYPE_CHECKING:
    from rich.console import RenderableType

    from conspec.benchmarks.runner.collected import Collection
    from conspec.benchmarks.runner.compare import Comparison


def compare(
    databases: Annotated[
        list[Path], typer.Argument(metavar="RESULTS...", help="What 'bench run' wrote.")
    ],
    scatter: Annotated[
        str | None,
        typer.Option(
            "--scatter", metavar="A,B", help="With --out: plot these two solvers' times, too."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Write comparison.md with plots, and comparison.csv."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the solvers of one or more databases of 'conspec bench run'.

    Shows for each suite who solved how much, PAR-2, times on common instances, memory, points as
    in VNN-COMP 2026, what the witnesses are worth, and every disagreement with what settles it.
    An instance is 'sat' once a witness holds exactly; else the suite's truth counts. What most
    solvers say settles nothing.
    """
    from conspec.benchmarks.runner.collected import collect
    from conspec.benchmarks.runner.compare import compare as compared

    if scatter is not None and out is None:
        raise BadUsage("--scatter: the plot needs a folder to be written to; add --out DIR")
    collection = collect(databases)
    pair = _pair(scatter, collection.solvers)
    comparisons = compared(collection)
    if as_json:
        from conspec.benchmarks.runner.compare_tables import document

        print_json(document(comparisons, collection.runs))
    else:
        show(*_shown(comparisons))
    _warn(collection, comparisons)
    if out is not None:
        _write(out, collection, comparisons, pair)


def _pair(scatter: str | None, solvers: Sequence[str]) -> tuple[str, str] | None:
    """The two solvers of ``--scatter``; without it, those of a comparison of two.

    Raises:
        BadUsage: not two names.
        UnknownName: a name is not that of a solver.
    """
    if scatter is None:
        return (solvers[0], solvers[1]) if len(solvers) == 2 else None
    commas = [place for place, char in enumerate(scatter) if char == ","]
    pairs = [(scatter[:place].strip(), scatter[place + 1 :].strip()) for place in commas]
    for first, second in pairs:
        if first in solvers and second in solvers and first != second:
            return first, second
    known = ", ".join(solvers)
    if len(pairs) != 1 or pairs[0][0] == pairs[0][1]:
        raise BadUsage(f"--scatter {scatter}: name two solvers with a comma between: {known}")
    missing = next(name for name in pairs[0] if name not in solvers)
    raise UnknownName(f"--scatter: no results of a solver {missing!r}; there are {known}")


def _shown(comparisons: "Sequence[Comparison]") -> "Iterator[RenderableType]":
    from conspec.benchmarks.runner.compare_tables import about, sheets
    from conspec.report.tables import columns_table, plain

    for comparison in comparisons:
        yield plain(f"{comparison.suite}, {about(comparison)}", "bold")
        for sheet in sheets(comparison):
            yield columns_table(sheet.title, sheet.headings, sheet.rows)
        if not comparison.disagreements:
            yield plain("No two answers contradict each other, and none contradicts the truth.")


def _warn(collection: "Collection", comparisons: "Sequence[Comparison]") -> None:
    """What a reader must know before believing the numbers."""
    for comparison in comparisons:
        for found in comparison.disagreements:
            if found.instance.truth not in (None, found.settled.truth):
                warn(f"{comparison.suite}: {found.instance.name}: {found.settled.why}")
    if len({tuple(sorted(run.machine.items())) for run in collection.runs}) > 1:
        warn("the results come from several machines; times cannot be compared across them")


def _write(
    folder: Path,
    collection: "Collection",
    comparisons: "Sequence[Comparison]",
    pair: tuple[str, str] | None,
) -> None:
    from conspec.benchmarks.runner.compare_page import pictures, write_folder

    drawn = pictures(comparisons, collection.solvers, pair)
    files = write_folder(folder, comparisons, collection.runs, drawn)
    say(f"{files[0]}: written, with comparison.csv and {len(files) - 2} plots")
