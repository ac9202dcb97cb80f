"""What a verification run prints and writes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from conspec.cli.console import progress, show

if TYPE_CHECKING:
    from conspec.lens.bundle import Lens
    from conspec.report.radii import Span
    from conspec.report.records import Record
    from conspec.verifier.estimates import Estimate

EVERY_SPEC = 40
"""Up to so many specs, each is shown without being asked for."""
SHEETS = 40
"""So many counterexamples get a contact sheet, unless asked otherwise."""


@dataclass(frozen=True, slots=True)
class Findings:
    """A run as it is shown.

    Attributes:
        title: what it was about.
        records: the verdicts.
        lens: the bundle.
        notes: sentences a reader must know.
        spans: how far specs hold, where that was measured.
        heat_map: a picture of that and its caption.
        estimates: shares of images that satisfy specs, by the specs' texts.
    """

    title: str
    records: "Sequence[Record]"
    lens: "Lens"
    notes: Sequence[str] = ()
    spans: "Sequence[Span]" = ()
    heat_map: tuple[bytes, str] | None = None
    estimates: "Mapping[str, Estimate]" = field(default_factory=dict)


def show_results(
    records: "Sequence[Record]",
    every: bool,
    regions: bool = True,
    spans: "Mapping[str, Span] | None" = None,
    estimates: "Mapping[str, Estimate] | None" = None,
) -> None:
    """Print the tables: each spec if ``every``, a row for each region, and the counts.

    With ``spans`` and ``estimates``, by the specs' texts, the table of specs says how far each
    holds, and of how many images.
    """
    from rich.text import Text

    from conspec.report import words
    from conspec.report.summary import tally
    from conspec.report.tables import region_table, spec_table

    if every:
        show(spec_table(records, spans, estimates))
    if records and regions:
        show(region_table(records))
    total = words.seconds(sum(record.seconds for record in records))
    show(Text(f"{words.counts(tally(records))} ({total})", style="bold"))


def write_folder(folder: Path, findings: Findings, sheets: int = SHEETS) -> list[Path]:
    """Write ``report.html``, ``summary.png`` and ``counterexamples/NAME.png``.

    Args:
        folder: where to.
        findings: what to show.
        sheets: how many counterexamples get a contact sheet at most.

    Returns:
        The files, the report first.
    """
    from conspec.report.figures import png, summary_figure
    from conspec.report.page import Report, write_report

    folder.mkdir(parents=True, exist_ok=True)
    pictures = _contact_sheets(findings, sheets)
    notes = list(findings.notes)
    if left := sum(len(r.counterexamples) for r in findings.records) - len(pictures):
        notes.append(
            f"{left} more counterexamples have no contact sheet; "
            "conspec verify --sheets N --out DIR draws up to N."
        )
    by_spec: dict[str, list[bytes]] = {}
    files = [folder / "report.html", folder / "summary.png"]
    for spec, name, picture in pictures:
        by_spec.setdefault(spec, []).append(picture)
        files.append(folder / "counterexamples" / f"{name}.png")
        files[-1].parent.mkdir(exist_ok=True)
        files[-1].write_bytes(picture)
    files[1].write_bytes(png(summary_figure(findings.records, findings.title)))
    report = Report(
        findings.title,
        findings.records,
        findings.lens,
        by_spec,
        notes,
        findings.spans,
        findings.heat_map,
        findings.estimates,
    )
    write_report(files[0], report)
    return files


def _contact_sheets(findings: Findings, most: int) -> list[tuple[str, str, bytes]]:
    """Spec, file name and PNG of the first counterexamples."""
    from conspec.report.figures import contact_sheet, png

    wanted = [
        (record, place, found)
        for record in findings.records
        for place, found in enumerate(record.counterexamples)
    ][:most]
    sheets = []
    with progress() as advance:
        for done, (record, place, found) in enumerate(wanted, start=1):
            picture = png(contact_sheet(record, found, findings.lens))
            sheets.append((record.spec, file_name(record.spec, place), picture))
            advance("drawing contact sheets", done, len(wanted))
    return sheets


def file_name(spec: str, place: int) -> str:
    """A file name for a spec's counterexample; names are unique if the specs' are.

    >>> file_name("truck wheels", 0), file_name("truck", 1)
    ('truck%20wheels', 'truck-2')
    """
    plain = re.sub(r"[^\w.]", lambda m: "".join(f"%{b:02x}" for b in m[0].encode()), spec)
    plain = plain if len(plain) <= 120 and not plain.startswith(".") else f"_{hash_of(spec)}"
    return plain if place == 0 else f"{plain}-{place + 1}"


def hash_of(text: str) -> str:
    """A short name for a text that cannot name a file."""
    from hashlib import sha256

    return sha256(text.encode()).hexdigest()[:16]
