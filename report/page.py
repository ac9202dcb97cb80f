"""The HTML report: one file that holds everything it shows and works without a network."""

import base64
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conspec.lens.bundle import Lens
from conspec.report import facts, radii, words
from conspec.report.radii import Span
from conspec.report.records import Outcome, Record
from conspec.report.summary import RegionSummary, Tally, by_class, by_region, tally
from conspec.specs.exact import write_number
from conspec.specs.printer import to_text

if TYPE_CHECKING:
    from conspec.verifier.estimates import Estimate

LONGEST_LIST = 6
"""So many regions, and formulas of a region, are named where the page says what was proved."""


@dataclass(frozen=True, slots=True)
class Report:
    """What goes onto the page.

    Attributes:
        title: of the page.
        records: the verdicts, in the order of the suite.
        lens: the bundle they are about.
        sheets: PNG files of contact sheets by spec name.
        notes: sentences a reader must know, such as what was left out.
        spans: how far specs hold, where that was measured.
        heat_map: PNG file of a relevance suite's radii, and what it shows in words.
        estimates: shares of images that satisfy specs, by the specs' texts.
    """

    title: str
    records: Sequence[Record]
    lens: Lens
    sheets: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    spans: Sequence[Span] = ()
    heat_map: tuple[bytes, str] | None = None
    estimates: "Mapping[str, Estimate]" = field(default_factory=dict)


def write_report(path: Path, report: Report) -> None:
    """Write the page; it appears whole or not at all."""
    page = render(report).encode("utf-8", errors="replace")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as stream:
        stream.write(page)
    part = Path(stream.name)
    part.chmod(0o644)
    part.replace(path)


def render(report: Report) -> str:
    """The page as a text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("conspec.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(
        printable=words.printable,
        coverage=words.coverage,
        percent=words.percent,
        margin=words.margin,
        seconds=words.seconds,
        explanation=words.explanation,
        data_uri=_data_uri,
        lower_end=radii.lower_end,
        upper_end=radii.upper_end,
        both_ends=radii.both_ends,
        about_radius=words.about_radius,
        family=radii.family,
        text=to_text,
        number=write_number,
    )
    return environment.get_template("report.html").render(_context(report))


def _context(report: Report) -> dict[str, Any]:
    lens, records = report.lens, report.records
    regions = by_region(records)
    return {
        "title": report.title,
        "notes": report.notes,
        "records": records,
        "regions": regions,
        "classes": by_class(records),
        "tally": tally(records),
        "proofs": _proofs(regions),
        "longest": LONGEST_LIST,
        "outcomes": list(Outcome),
        "symbols": words.SYMBOLS,
        "sheets": report.sheets,
        "bundle": facts.bundle_facts(lens),
        "quality_headings": facts.QUALITY_HEADINGS,
        "quality_rows": facts.quality_rows(lens),
        "concept_headings": facts.CONCEPT_HEADINGS,
        "concept_rows": facts.concept_rows(lens),
        "class_headings": facts.CLASS_HEADINGS,
        "class_rows": facts.class_rows(lens),
        "shares": _shares,
        "spans": {to_text(span.spec): span for span in report.spans},
        "radius_summary": radii.summary(report.spans),
        "heat_map": report.heat_map,
        "estimates": report.estimates,
        "total_seconds": sum(record.seconds for record in records),
        "version": _version(),
    }


def _proofs(regions: Sequence[RegionSummary]) -> list[tuple[RegionSummary, list[str]]]:
    """The formulas that were proved and say something, each once, by region."""
    found = []
    for summary in regions:
        proved = {
            record.formula: None
            for record in summary.records
            if record.outcome is Outcome.PROVED and not record.vacuous
        }
        if proved:
            found.append((summary, list(proved)))
    return found


def _shares(found: Tally) -> list[tuple[Outcome, int, str]]:
    """Outcome, count and width in percent of the parts of a stacked bar."""
    total = found.total or 1
    counted = [(outcome, found.count(outcome)) for outcome in Outcome]
    return [(name, count, f"{100 * count / total:.3f}") for name, count in counted if count]


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _version() -> str:
    try:
        return version("conspec")
    except PackageNotFoundError:  # run from a folder that is not installed
        return "(not installed)"
