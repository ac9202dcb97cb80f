"""Rich tables of results. Names are shown as texts, never read as markup."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from conspec.report import words
from conspec.report.radii import (
    Place,
    Span,
    both_ends,
    class_rows,
    family,
    lower_end,
    upper_end,
)
from conspec.report.records import Outcome, Record
from conspec.report.summary import RegionSummary, Tally, by_region, tally
from conspec.specs.exact import write_number
from conspec.specs.printer import to_text

if TYPE_CHECKING:
    from conspec.verifier.estimates import Estimate

STYLES = {
    Outcome.PROVED: "green",
    Outcome.VIOLATED: "bold red",
    Outcome.UNKNOWN: "yellow",
}


def plain(text: str, style: str = "") -> Text:
    """A text that is shown as it is, safe for a terminal."""
    return Text(words.printable(text), style=style)


def verdict_text(outcome: Outcome) -> Text:
    """The verdict with its symbol; readable without colour."""
    return Text(f"{words.SYMBOLS[outcome]} {outcome}", style=STYLES[outcome])


def region_table(records: Sequence[Record]) -> Table:
    """One row a region, together by class: counts, and the coverage beside every proof."""
    table = Table(
        title="By region", title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("region", overflow="fold")
    for outcome in Outcome:
        table.add_column(verdict_text(outcome), justify="right", no_wrap=True)
    table.add_column("coverage, held-out", overflow="fold")
    for summary in by_region(records):
        table.add_row(plain(summary.region), *_numbers(summary.tally), _coverage(summary))
    table.add_section()
    table.add_row(Text("together", style="bold"), *_numbers(tally(records)))
    return table


def _numbers(found: Tally) -> list[Text]:
    return [
        Text(str(found.count(outcome)), style=STYLES[outcome])
        if found.count(outcome)
        else Text("·", style="dim")
        for outcome in Outcome
    ]


def _coverage(summary: RegionSummary) -> Text:
    return Text(words.coverage(summary.coverage).removesuffix(" held-out"))


def spec_table(
    records: Sequence[Record],
    spans: Mapping[str, Span] | None = None,
    estimates: "Mapping[str, Estimate] | None" = None,
) -> Table:
    """Every spec with what a reader should know, below its region and the region's coverage.

    Args:
        records: the verdicts.
        spans: how far specs hold, by the text of the spec; a column if given.
        estimates: shares of images that satisfy specs, likewise.
    """
    table = Table(
        title="By spec", title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("verdict", no_wrap=True)
    table.add_column("spec", overflow="fold")
    table.add_column("margin", justify="right", no_wrap=True)
    if spans is not None:
        table.add_column("proved up to γ /\nfails from γ", no_wrap=True)
    if estimates is not None:
        table.add_column("satisfied by\nheld-out images", no_wrap=True)
    table.add_column("by", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for summary in by_region(records):
        region = plain(summary.region, "bold")
        region.append_text(plain(f"\ncoverage {words.coverage(summary.coverage)}", "not bold dim"))
        table.add_row("", region)
        for record in summary.records:
            row = _spec_row(record)
            if spans is not None:
                row.insert(3, _span_cell(spans.get(record.text)))
            if estimates is not None:
                row.insert(-2, _estimate_cell(estimates.get(record.text)))
            table.add_row(*row)
        table.add_section()
    return table


def _spec_row(record: Record) -> list[Text]:
    name = plain(record.spec)
    name.append_text(plain(f"\n{record.formula}", "dim"))
    if said := words.explanation(record):
        name.append_text(plain(f"\n{said}", "yellow" if record.vacuous else "italic"))
    return [
        verdict_text(record.outcome),
        name,
        Text(words.margin(record)),
        plain(record.decided_by),
        Text(words.seconds(record.seconds), style="dim"),
    ]


def _estimate_cell(estimate: "Estimate | None") -> Text:
    """The share of its class's held-out images that satisfy a spec."""
    if estimate is None:
        return Text("–", style="dim")
    return Text(words.satisfaction(estimate).partition(" of ")[0])


def _span_cell(span: Span | None) -> Text:
    """Both ends, and what the proof at the lower one rests on and covers."""
    if span is None:
        return Text("–", style="dim")
    cell = Text(both_ends(span))
    if said := words.about_radius(span.proof):
        cell.append_text(Text(f"\n{said}", style="dim"))
    return cell


def facts_table(facts: Mapping[str, str], title: str) -> Table:
    """Two columns: what, and its value."""
    table = Table(
        title=title, title_justify="left", title_style="bold", show_header=False, box=SIMPLE_HEAD
    )
    table.add_column(style="dim", overflow="fold")
    table.add_column(overflow="fold")
    for key, value in facts.items():
        table.add_row(plain(key), plain(value))
    return table


def columns_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A plain table; numbers, and what stands for a missing one, are right-aligned."""
    cells = [tuple(row) for row in rows]
    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    for heading, column in zip(headings, zip(*cells, strict=True), strict=False):
        texts = [cell for cell in column if cell[:1].isalpha()]
        table.add_column(heading, justify="left" if texts else "right", overflow="fold")
    for row in cells:
        table.add_row(*map(plain, row))
    return table


def radius_table(spans: Sequence[Span]) -> Table:
    """Every spec with the scales between which it breaks."""
    table = _titled("Radius of each spec")
    table.add_column("spec", overflow="fold")
    table.add_column("proved up to γ", justify="right", no_wrap=True)
    table.add_column("coverage there", overflow="fold")
    table.add_column("fails from γ", justify="right", no_wrap=True)
    table.add_column("its own γ", justify="right", no_wrap=True)
    groups: dict[str, list[Span]] = {}
    for span in spans:
        groups.setdefault(family(span.spec.region), []).append(span)
    for region, group in groups.items():
        table.add_row(plain(region, "bold"))
        for span in group:
            table.add_row(*_radius_row(span))
        table.add_section()
    return table


def _radius_row(span: Span) -> list[Text]:
    name = plain(span.spec.name)
    name.append_text(plain(f"\n{to_text(span.spec.body)}", "dim"))
    if span.proof is not None and (said := words.explanation(span.proof)):
        name.append_text(plain(f"\n{said}", "yellow"))
    proof = span.proof
    share = "–" if proof is None else words.coverage(proof.coverage).removesuffix(" held-out")
    return [
        name,
        Text(lower_end(span), style=STYLES[Outcome.PROVED] if proof else ""),
        Text(share),
        Text(upper_end(span), style=STYLES[Outcome.VIOLATED] if span.violation else ""),
        _own_scale(span),
    ]


def _own_scale(span: Span) -> Text:
    """The spec's own scale, and what the radius says about it."""
    outcome = {
        Place.INSIDE: Outcome.PROVED,
        Place.BEYOND: Outcome.VIOLATED,
        Place.BETWEEN: Outcome.UNKNOWN,
    }[span.place]
    text = f"{words.SYMBOLS[outcome]} {write_number(span.own)} {span.place}"
    return Text(text, style=STYLES[outcome])


def class_table(spans: Sequence[Span]) -> Table:
    """One row a class of a relevance suite: how far its claims hold."""
    table = _titled("Radius by class")
    table.add_column("class", overflow="fold")
    table.add_column("claims", justify="right")
    table.add_column("hold at\nown γ", justify="right", no_wrap=True)
    table.add_column("least γ", justify="right", no_wrap=True)
    table.add_column("which is that of", overflow="fold")
    table.add_column("median γ", justify="right", no_wrap=True)
    table.add_column("largest γ", justify="right", no_wrap=True)
    for row in class_rows(spans):
        table.add_row(
            plain(row.label),
            str(row.count),
            str(row.inside),
            "✗ centre" if row.weakest.upper == 0 else lower_end(row.weakest, 3),
            plain(to_text(row.weakest.spec.body)),
            f"{row.middle:.3g}",
            f"{row.farthest:.3g}",
        )
    return table


def _titled(title: str) -> Table:
    """An empty table of the usual looks."""
    return Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
