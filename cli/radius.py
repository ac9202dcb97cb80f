"""``conspec radius``: up to which size of its region a spec holds, and from which on it fails."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conspec.cli.console import print_json, progress, say, show, warn
from conspec.cli.exits import Exit
from conspec.cli.inputs import Wanted, open_lens, read_suite, select
from conspec.cli.journal import Journal, Line, open_journal, write_lines
from conspec.cli.output import EVERY_SPEC
from conspec.cli.run import Task, limits_of
from conspec.cli.verify import (
    JsonlOption,
    JsonOption,
    LensOption,
    SpecOption,
    SuiteArgument,
    VerboseOption,
    results_file,
    some,
)
from conspec.specs.errors import BadRegion, BadUsage
from conspec.specs.formula import ForAll, Suite

if TYPE_CHECKING:
    from conspec.lens.bundle import Lens
    from conspec.report.radii import Span
    from conspec.verifier.radius import Radius

TimeoutOption = Annotated[
    float, typer.Option("--timeout", metavar="S", help="Seconds for each verdict asked for.")
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Write results.jsonl, report.html and, for relevance suites, radius.png to DIR.",
    ),
]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run gave.

    Attributes:
        spans: how far each spec holds, in the order of the suite.
        lines: the results lines of each, one or two, in the same order; none if no scale was
            decided.
        complete: whether every spec was measured; not so after Ctrl-C.
    """

    spans: "tuple[Span, ...]"
    lines: tuple[tuple[Line, ...], ...]
    complete: bool


def radius(
    suite: SuiteArgument,
    lens: LensOption,
    timeout: TimeoutOption = 10.0,
    as_json: JsonOption = False,
    jsonl: JsonlOption = None,
    out: OutOption = None,
    spec: SpecOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Find out how far the specs of SUITE hold: for which sizes of their regions.

    For each spec, the largest γ (for a ball: the radius) for which it is proved, and the
    smallest for which a counterexample is known. Both are verdicts of their own, written as
    such, so that 'conspec check' re-establishes them; the γ in the suite plays no part. Regions
    without a scale are passed over.

    Exit codes: 0 measured, 3 bad input.
    """
    limits = limits_of(timeout, 1, "any")
    path = results_file(jsonl, out)
    bundle = open_lens(lens)
    wanted = select(read_suite(suite, bundle), spec or [])
    scaled, skipped = scalable(wanted.proofs)
    if not scaled.specs:
        raise BadUsage(f"{suite}: no spec has a region with a scale: {_reasons(skipped)}")
    found = measure(Task(scaled, bundle, "auto", limits), path)
    if as_json:
        print_json(_document(suite, found, skipped, wanted))
    else:
        show_radii(found.spans, verbose or len(found.spans) <= EVERY_SPEC)
    notes = _notes(found, len(scaled.specs), skipped, wanted)
    for note in notes:
        warn(note)
    if out is not None:
        if jsonl is not None:
            write_lines(out / "results.jsonl", [line for group in found.lines for line in group])
        _write_folder(out, f"Radius of {suite}", (found.spans, bundle, notes))
    raise typer.Exit(Exit.PROVED if found.complete else Exit.INTERRUPTED)


def scalable(suite: Suite) -> tuple[Suite, dict[str, str]]:
    """The specs whose region has a scale, and why the others have none, by name."""
    from conspec.verifier.radius import scale_of

    kept, skipped = [], {}
    for spec in suite.specs:
        if not isinstance(spec, ForAll):
            continue
        try:
            scale_of(spec.region)
        except BadRegion as error:
            skipped[spec.name] = str(error)
        else:
            kept.append(spec)
    return Suite(tuple(kept)), skipped


def measure(task: Task, path: Path | None) -> Measured:
    """Measure a suite; the lines of each spec are appended to ``path`` as soon as known.

    Ctrl-C ends it early; what is known by then is returned, and stands in the file.
    """
    from conspec.specs.printer import to_text

    journal = open_journal(path)
    specs = [spec for spec in task.suite.specs if isinstance(spec, ForAll)]
    texts = [to_text(spec) for spec in specs]
    earlier = _earlier(task, journal)
    known = {text: earlier[text] for text in texts if text in earlier}
    if known and path is not None:
        say(f"{path}: {len(known)} of {len(texts)} radii are known already")
    complete = False
    try:
        with progress() as advance:
            advance("measuring", len(known), len(texts))
            for text, lines in _computed(task, journal, known):
                known[text] = lines
                advance("measuring", len(known), len(texts))
        complete = True
    except KeyboardInterrupt:
        say(f"interrupted: {len(known)} of {len(texts)} radii are known")
    done = [(spec, known[text]) for spec, text in zip(specs, texts, strict=True) if text in known]
    return Measured(
        tuple(_span(spec, lines) for spec, lines in done),
        tuple(lines for _, lines in done),
        complete,
    )


def _earlier(task: Task, journal: Journal) -> dict[str, tuple[Line, ...]]:
    """Radii whose lines all stand in the file, found with no less time, by the spec's text."""
    groups: dict[str, dict[str, Line]] = {}
    for line in journal.lines:
        limits = line.get("limits") or {}
        fits = line["engine"] == task.engine and line["bundle"] == task.lens.hash
        if fits and _is_end(line) and limits.get("seconds", 0) >= task.limits.seconds:
            groups.setdefault(line["radius"]["of"], {})[line["verdict"]] = line
    return {
        text: tuple(group.values())
        for text, group in groups.items()
        if all(line["radius"]["lines"] == len(group) for line in group.values())
    }


def _is_end(line: Line) -> bool:
    """Whether a results line is of a radius."""
    about = line.get("radius")
    if not isinstance(about, Mapping) or not {"of", "scale", "lines"} <= about.keys():
        return False
    try:
        return Fraction(about["scale"]) >= 0
    except (TypeError, ValueError):
        return False


def _computed(
    task: Task, journal: Journal, known: Mapping[str, tuple[Line, ...]]
) -> Iterator[tuple[str, tuple[Line, ...]]]:
    from conspec.specs.printer import to_text
    from conspec.verifier.radius import radius_suite

    pending = Suite(tuple(spec for spec in task.suite.specs if to_text(spec) not in known))
    if not pending.specs:
        return
    for found in radius_suite(pending, task.lens, task.limits):
        lines = tuple(_lines(found, task))
        for line in lines:
            journal.append(line)
        yield to_text(found.spec), lines


def _lines(found: "Radius", task: Task) -> Iterator[Line]:
    """The results lines of both ends, each with the radius that it is an end of."""
    from conspec.specs.printer import to_text
    from conspec.verifier.radius import scale_of
    from conspec.verifier.results import to_json

    ends = [end for end in (found.proof, found.violation) if end is not None]
    for end in ends:
        scale = str(scale_of(end.spec.region))
        about = {"of": to_text(found.spec), "scale": scale, "lines": len(ends)}
        yield {**task.job.signed(to_json(end, task.lens)), "radius": about}


def _span(spec: ForAll, lines: Iterable[Line]) -> "Span":
    """How far a spec holds, from the results lines of both ends."""
    from conspec.report.radii import Span
    from conspec.report.records import read_record
    from conspec.verifier.radius import scale_of

    ends = {line["verdict"]: line for line in lines}
    scales = {verdict: Fraction(line["radius"]["scale"]) for verdict, line in ends.items()}
    records = {verdict: read_record(line) for verdict, line in ends.items()}
    return Span(
        spec=spec,
        own=scale_of(spec.region),
        lower=scales.get("proved"),
        upper=scales.get("violated"),
        proof=records.get("proved"),
        violation=records.get("violated"),
    )


def show_radii(spans: "Sequence[Span]", every: bool) -> None:
    """Print the tables: each spec if ``every``, a row for each class of a relevance suite."""
    from rich.text import Text

    from conspec.report.radii import grid_of, summary
    from conspec.report.tables import class_table, radius_table

    if every and spans:
        show(radius_table(spans))
    if grid_of(spans) is not None:
        show(class_table(spans))
    show(Text(summary(spans), style="bold"))


def _notes(found: Measured, total: int, skipped: Mapping[str, str], wanted: Wanted) -> list[str]:
    """What a reader of the radii must know besides them."""
    from conspec.report.radii import vacuous

    notes = []
    if wanted.estimates:
        notes.append(f"Not measured, since they ask for a probability: {some(wanted.estimates)}.")
    if skipped:
        notes.append(f"Not measured, since their regions have no scale: {_reasons(skipped)}.")
    if not found.complete:
        missing = total - len(found.spans)
        notes.append(f"The run was interrupted; {missing} of {total} specs are missing.")
    if names := vacuous(found.spans):
        notes.append(
            "Proved vacuously, since no embedding of the region satisfies the premise: "
            f"{some(names)}."
        )
    if names := [s.spec.name for s in found.spans if s.proof and s.proof.certified is False]:
        notes.append(f"Proved on a solver's word, without a certificate: {some(names)}.")
    return notes


def _reasons(skipped: Mapping[str, str]) -> str:
    """The first names with their reasons, and how many more there are."""
    return some([f"{name} ({reason.split(';')[0]})" for name, reason in skipped.items()])


def _document(
    suite: str, found: Measured, skipped: Mapping[str, str], wanted: Wanted
) -> dict[str, Any]:
    """What ``--json`` prints."""
    pairs = zip(found.spans, found.lines, strict=True)
    return {
        "suite": suite,
        "complete": found.complete,
        "skipped": dict(skipped),
        "not_measured": list(wanted.estimates),
        "radii": [_entry(span, lines) for span, lines in pairs],
    }


def _entry(span: "Span", lines: Sequence[Line]) -> dict[str, Any]:
    from conspec.report.radii import family

    by_verdict = {line["verdict"]: line for line in lines}
    return {
        "spec": span.spec.name,
        "region": family(span.spec.region),
        "proved_up_to": None if span.lower is None else float(span.lower),
        "violated_from": None if span.upper is None else float(span.upper),
        "own": float(span.own),
        "own_is": span.place,
        "proof": by_verdict.get("proved"),
        "violation": by_verdict.get("violated"),
    }


def _write_folder(
    folder: Path, title: str, shown: "tuple[Sequence[Span], Lens, Sequence[str]]"
) -> None:
    """Write ``report.html``, and ``radius.png`` for a relevance suite."""
    from conspec.report.page import Report, write_report

    spans, lens, notes = shown
    folder.mkdir(parents=True, exist_ok=True)
    picture = write_heat_map(folder, spans, title)
    report = Report(title, (), lens, notes=notes, spans=spans, heat_map=picture)
    write_report(folder / "report.html", report)
    say(f"wrote {folder / 'report.html'}" + (" and radius.png" if picture else ""))


def write_heat_map(folder: Path, spans: "Sequence[Span]", title: str) -> tuple[bytes, str] | None:
    """Write ``radius.png``; returns it and its caption, or nothing for other than relevance."""
    from conspec.report.radii import grid_of

    grid = grid_of(spans)
    if grid is None:
        return None
    from conspec.report.heatmap import caption, heat_map

    picture = heat_map(grid, title)
    (folder / "radius.png").write_bytes(picture)
    return picture, caption(grid)
