"""Rich tables of results. Names are shown as texts, never read as markup."""

from collections.abc import Iterable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from conspec.report import words
from conspec.report.records import Outcome, Record
from conspec.report.summary import RegionSummary, Tally, by_region, tally

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


def spec_table(records: Sequence[Record]) -> Table:
    """Every spec with what a reader should know, below its region and the region's coverage."""
    table = Table(
        title="By spec", title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("verdict", no_wrap=True)
    table.add_column("spec", overflow="fold")
    table.add_column("margin", justify="right", no_wrap=True)
    table.add_column("by", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for summary in by_region(records):
        region = plain(summary.region, "bold")
        region.append_text(plain(f"\ncoverage {words.coverage(summary.coverage)}", "not bold dim"))
        table.add_row("", region)
        for record in summary.records:
            table.add_row(*_spec_row(record))
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
