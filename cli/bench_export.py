"""``conspec bench export``: a suite of queries with known answers, for any verifier."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conspec.benchmarks.suites.request import ALL_FAMILIES, FORMATS, Request
from conspec.cli.console import progress, say, show, warn
from conspec.cli.inputs import open_lens, read_text
from conspec.specs.errors import BadUsage

if TYPE_CHECKING:
    from rich.table import Table

    from conspec.benchmarks.suites.folder import Exported
    from conspec.lens.bundle import Lens

OutOption = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="A folder that is not there yet, or is empty.")
]
LensOption = Annotated[
    Path | None, typer.Option("--lens", metavar="BUNDLE", help="The folder of a lens bundle.")
]
SyntheticOption = Annotated[
    str | None,
    typer.Option(
        "--synthetic",
        metavar="N[,HIDDEN]",
        help="In place of a bundle, one drawn with the seed: N dimensions, HIDDEN ReLUs.",
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", metavar="N", help="Of all that is drawn.")]
CountOption = Annotated[int, typer.Option("--count", metavar="N", help="Specs of each family.")]
FamilyOption = Annotated[
    list[str] | None,
    typer.Option("--family", metavar="F", help=f"Only these: {', '.join(ALL_FAMILIES)}."),
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", metavar="S", help="Seconds for each instance.")
]
FormatOption = Annotated[
    list[str] | None,
    typer.Option("--format", metavar="F", help=f"Only these: {', '.join(FORMATS)}."),
]
SuiteOption = Annotated[
    str | None,
    typer.Option("--suite", metavar="FILE", help="Export this .conspec file, and draw nothing."),
]


def export(
    out: OutOption,
    lens: LensOption = None,
    synthetic: SyntheticOption = None,
    seed: SeedOption = 0,
    count: CountOption = 10,
    family: FamilyOption = None,
    timeout: TimeoutOption = 60.0,
    suite: SuiteOption = None,
    formats: FormatOption = None,
) -> None:
    """Write a suite of queries for verifiers to DIR, with the known answers in a file of its own.

    DIR is a VNN-COMP submission: VNN-LIB 1.0 and 2.0 with ONNX networks, and beside it SMT-LIB,
    MPS and LP. Families: a > b (strength), the same where a class is predicted (premise), Boolean
    formulas (boolean), counts (cardinality), rules of the last layer (rule), has(…) (has), L∞
    balls (robust), and specs at 0.5 to 2 times the scale up to which they hold (graded).

    Exit codes: 0 written, 3 bad input.
    """
    from conspec.benchmarks.suites.folder import refuse_used

    if (lens is None) == (synthetic is None):
        raise BadUsage("give one of --lens and --synthetic")
    if suite is not None and family:
        raise BadUsage("--family says what to draw, and --suite draws nothing; give one of them")
    families = tuple(family) if family else ALL_FAMILIES
    wanted = tuple(formats) if formats else FORMATS
    text = None if suite is None else read_text(suite)
    request = Request(seed, count, families, timeout, text, wanted)
    refuse_used(out)
    if lens is not None:
        _export(open_lens(lens), out, request)
        return
    with tempfile.TemporaryDirectory() as folder:
        _export(_drawn(synthetic or "", Path(folder) / "bundle", seed), out, request)


def _drawn(sizes: str, folder: Path, seed: int) -> "Lens":
    """A synthetic bundle of the sizes that ``--synthetic`` gives."""
    from conspec.benchmarks.suites.synthetic import write_synthetic

    parts = sizes.split(",")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise BadUsage(f"--synthetic {sizes}: expected N or N,HIDDEN, such as 64 or 256,100")
    hidden = int(parts[1]) if len(parts) == 2 else 0
    return write_synthetic(folder, int(parts[0]), hidden, seed)


def _export(lens: "Lens", out: Path, request: Request) -> None:
    from rich.text import Text

    from conspec.benchmarks.suites.folder import export_suite

    with progress() as advance:
        found = export_suite(lens, out, request, advance)
    show(_table(found), Text(f"{len(found.answers)} instances in {out}", style="bold"))
    for note in found.notes:
        warn(note)
    for _, line in found.answers:
        if line["disagreement"] is not None:
            warn(f"{line['spec']}: {line['disagreement']}, but a counterexample is exact")
    say(f"wrote {out / 'README.md'}")


def _table(found: "Exported") -> "Table":
    """Families and how many of their instances have which answer."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from conspec.benchmarks.suites.readme import ANSWERS, tally

    table = Table(title="Exported", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("family")
    for word in ANSWERS:
        table.add_column(word, justify="right")
    for family, counts in tally(found.answers).items():
        table.add_row(family, *(str(counts[word]) for word in ANSWERS))
    return table
