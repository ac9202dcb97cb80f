"""``conspec specs``: check, format and generate suites."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conspec.cli.comments import with_comments
from conspec.cli.console import say
from conspec.cli.groups import group
from conspec.cli.heatmap import (
    ConfidenceOption,
    CorrectionName,
    CorrectionOption,
    SourceName,
    SourceOption,
    Split,
    SplitOption,
    chosen_images,
)
from conspec.cli.inputs import STANDARD_INPUT, open_lens, parse_suite, read_suite, read_text
from conspec.specs.errors import BadFile, BadUsage, UnknownName
from conspec.specs.formula import ForAll, Suite

if TYPE_CHECKING:
    from conspec.lens.bundle import Lens

SCALE = "0.3"
"""The scale of generated regions, unless asked otherwise."""

app = group("Check, format and generate suites of specs.")

FileArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="A .conspec file, or - for standard input.")
]


@app.command("check")
def check(
    file: FileArgument,
    lens: Annotated[
        Path | None,
        typer.Option("--lens", metavar="BUNDLE", help="Check classes and concepts, too."),
    ] = None,
) -> None:
    """Say whether FILE is a well-formed suite, and where it is not."""
    suite = read_suite(file, open_lens(lens) if lens else None)
    proofs = sum(isinstance(spec, ForAll) for spec in suite.specs)
    estimates = len(suite.specs) - proofs
    names = f"names are those of {lens}" if lens else "names were not checked (no --lens)"
    typer.echo(f"{file}: {proofs} specs to prove, {estimates} about a probability; {names}")


@app.command("format")
def format_(
    file: FileArgument,
    write: Annotated[
        bool, typer.Option("--write", help="Rewrite FILE instead of printing.")
    ] = False,
) -> None:
    """Print FILE in the standard form; comments are kept, above the specs they belong to."""
    from conspec.specs.printer import to_text

    source = read_text(file)
    suite = parse_suite(source, file)
    text = with_comments(source, [to_text(spec) for spec in suite.specs])
    if not write:
        typer.echo(text, nl=False)
    elif file == STANDARD_INPUT:
        raise BadUsage("--write: standard input cannot be rewritten; leave it out to print")
    elif text == source:
        say(f"{file}: unchanged")
    else:
        _write(Path(file), text)
        say(f"{file}: rewritten")


@app.command("generate")
def generate(
    gamma: Annotated[
        list[str] | None,
        typer.Option("--gamma", metavar="G", help="Scale (0.3); may be repeated."),
    ] = None,
    lens: Annotated[
        Path | None, typer.Option("--lens", metavar="BUNDLE", help="Whose concepts to use.")
    ] = None,
    relevance: Annotated[
        Path | None,
        typer.Option("--relevance", metavar="JSON", help="The relevant concepts of each class."),
    ] = None,
    frequencies: Annotated[
        Path | None,
        typer.Option(
            "--frequencies", metavar="JSON", help="Per class, the share with each concept."
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option("--threshold", metavar="T", help="Relevant from this share on."),
    ] = 0.6,
    rival10: Annotated[
        bool, typer.Option("--rival10", help="RIVAL10's relevant concepts: 531 specs.")
    ] = False,
    region: Annotated[
        str, typer.Option("--region", help="focus, pca_box, zonotope, ellipsoid or hull.")
    ] = "focus",
    premise: Annotated[
        bool, typer.Option(help="Claim it only where the model predicts the class.")
    ] = True,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to FILE.")
    ] = None,
) -> None:
    """Generate a suite from a table of relevant concepts.

    For each class: every relevant concept is stronger than every other one.
    """
    if (relevance is not None) + (frequencies is not None) + rival10 != 1:
        raise BadUsage("give one of --relevance, --frequencies and --rival10")
    bundle = _load(lens)
    if rival10:
        table, concepts = _rival10(bundle)
    elif relevance is not None:
        table, concepts = _relevance(relevance), []
    else:
        table, concepts = _from_frequencies(frequencies, threshold)
    suite = _suite(table, _known(bundle, table, concepts), (gamma or [SCALE], region, premise))
    _deliver(suite, output)


@app.command("from-heatmap")
def from_heatmap(
    lens: Annotated[
        Path, typer.Option("--lens", metavar="BUNDLE", help="The folder of a lens bundle.")
    ],
    gamma: Annotated[
        str, typer.Option("--gamma", metavar="G", help="Scale of the regions.")
    ] = SCALE,
    region: Annotated[
        str, typer.Option("--region", help="focus, pca_box, zonotope, ellipsoid or hull.")
    ] = "focus",
    least: Annotated[
        float,
        typer.Option("--least", metavar="D", min=0, max=1, help="Leave out smaller differences."),
    ] = 0.2,
    most: Annotated[
        int | None,
        typer.Option("--most", metavar="K", min=1, help="So many specs for each class at most."),
    ] = None,
    source: SourceOption = SourceName.MODEL,
    split: SplitOption = Split.HELDOUT,
    confidence: ConfidenceOption = 0.95,
    correction: CorrectionOption = CorrectionName.HOLM,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to FILE.")
    ] = None,
) -> None:
    """Generate a suite from what goes with errors in the images of a bundle.

    Where a concept is above another in most correctly classified images of a class, and more
    often than by chance in them than in the misclassified ones, the spec says that it is so
    wherever the model predicts the class. The evidence stands above each spec as a comment.
    """
    from conspec.analysis.differences import Correction, differences_of
    from conspec.analysis.heatmap_specs import mined, significant_cells
    from conspec.analysis.heatmaps import Source

    if not 0 < confidence < 1:
        raise BadUsage(f"--confidence {confidence:g}: must lie between 0 and 1")
    bundle, method = open_lens(lens), Correction(correction.value)
    images = chosen_images(bundle, split)
    found = differences_of(bundle, Source(source.value), images, method)
    cells = significant_cells(found, least, confidence)
    written = mined(cells, gamma, region, most)
    head = (
        f"From the differential heatmaps of {bundle.name} ({bundle.hash[:12]}), scores of the "
        f"{source.value}, split {split.value}.",
        f"Fisher's exact test of all cells of all classes, corrected by {correction.value}; "
        f"intervals of each by itself. Both at confidence {confidence:g}.",
    )
    _deliver(written.suite, output, written.text(head))


def _load(lens: Path | None) -> "Lens | None":
    return None if lens is None else open_lens(lens)


def _rival10(lens: "Lens | None") -> tuple[dict[str, list[str]], list[str]]:
    """RIVAL10's table and concepts, which a bundle must be about, too."""
    from conspec.specs.suites import rival10_concepts, rival10_relevance

    table, concepts = rival10_relevance(), rival10_concepts()
    if lens is not None:
        used = [name for name in concepts if any(name in row for row in table.values())]
        _refuse_others("classes", list(table), lens.classes)
        _refuse_others("concepts", used, lens.concepts)
    return table, concepts


def _refuse_others(kind: str, wanted: Sequence[str], own: Sequence[str]) -> None:
    from conspec.specs.names import shown

    if missing := [name for name in wanted if name not in own]:
        raise UnknownName(
            f"RIVAL10's {kind} are not this bundle's: it has no {', '.join(map(shown, missing))}; "
            "use --relevance or --frequencies with a table of your own"
        )


def _relevance(path: Path) -> dict[str, list[str]]:
    """A table of relevant concepts: class → names."""
    from conspec.lens.files import read_json

    table = read_json(path)
    for label, names in table.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BadFile(f"{path}: {label!r}: expected a list of concepts")
    return table


def _from_frequencies(
    path: Path | None, threshold: float
) -> tuple[dict[str, list[str]], list[str]]:
    """The relevant concepts by a table class → concept → share, and all its concepts."""
    from conspec.lens.files import read_json
    from conspec.specs.suites import frequency_relevance

    if path is None:
        raise BadUsage("--frequencies: give a file")
    table = read_json(path)
    for label, row in table.items():
        if not isinstance(row, dict) or not all(_is_share(value) for value in row.values()):
            raise BadFile(f"{path}: {label!r}: expected a share in [0, 1] for each concept")
    concepts = list(dict.fromkeys(name for row in table.values() for name in row))
    return frequency_relevance(table, threshold), concepts


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _known(lens: "Lens | None", table: Mapping[str, list[str]], concepts: list[str]) -> list[str]:
    """All concepts: the bundle's, whose classes the table must name; else the table's."""
    if lens is None:
        return concepts or list(dict.fromkeys(name for row in table.values() for name in row))
    for label in table:
        lens.class_index(label)
    return list(lens.concepts)


def _suite(
    table: Mapping[str, list[str]], concepts: list[str], options: tuple[list[str], str, bool]
) -> Suite:
    """A suite for each scale; with several, names end in the scale."""
    from conspec.specs.suites import relevance_suite

    gammas, region, premise = options
    if len(set(gammas)) < len(gammas):
        raise BadUsage(f"--gamma {', '.join(gammas)}: one is given twice")
    specs = []
    for gamma in gammas:
        part = relevance_suite(table, concepts, gamma=gamma, region=region, premise=premise)
        end = f"_at_{gamma.replace('.', '_')}" if len(gammas) > 1 else ""
        specs += [replace(spec, name=spec.name + end) for spec in part.specs]
    return Suite(tuple(specs))


def _deliver(suite: Suite, output: Path | None, text: str | None = None) -> None:
    """Print a suite or write it to a file: its text with comments, if there are any."""
    from conspec.specs.printer import to_text

    text = to_text(suite) if text is None else text
    if output is None:
        typer.echo(text, nl=False)
        return
    _write(output, text)
    say(f"{output}: {len(suite.specs)} specs")


def _write(path: Path, text: str) -> None:
    """Write a file; it is replaced whole or not at all.

    Raises:
        BadUsage: there is no folder for it.
    """
    if not path.parent.is_dir():
        raise BadUsage(f"{path}: there is no folder {path.parent}")
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, delete=False) as stream:
        stream.write(text.encode())
    mode = path.stat().st_mode if path.exists() else 0o644
    os.chmod(stream.name, mode & 0o777)
    os.replace(stream.name, path)
