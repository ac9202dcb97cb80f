"""Counts over a suite, per region and per class."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from conspec.report.records import Outcome, Record, Share

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Tally:
    """How many specs are proved, violated and unknown."""

    proved: int = 0
    violated: int = 0
    unknown: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.proved + self.violated + self.unknown

    def count(self, outcome: Outcome) -> int:
        """How many have this outcome."""
        match outcome:
            case Outcome.PROVED:
                return self.proved
            case Outcome.VIOLATED:
                return self.violated
            case Outcome.UNKNOWN:
                return self.unknown


@dataclass(frozen=True, slots=True)
class RegionSummary:
    """All verdicts over one region, in the order of the suite."""

    region: str
    records: tuple[Record, ...]

    @property
    def tally(self) -> Tally:
        """Their counts."""
        return tally(self.records)

    @property
    def coverage(self) -> Share | None:
        """The region's coverage, which all of them share."""
        return self.records[0].coverage

    @property
    def population(self) -> str:
        """The class whose images the region is about; "all" if none in particular."""
        return self.coverage.population if self.coverage else "all"


def tally(records: Iterable[Record]) -> Tally:
    """Counts by outcome."""
    outcomes = [record.outcome for record in records]
    return Tally(*(outcomes.count(outcome) for outcome in Outcome))


def by_region(records: Sequence[Record]) -> list[RegionSummary]:
    """The records grouped by region; regions of one class stand together.

    Classes, the regions of a class and the records of a region keep their order.
    """
    groups = _grouped(records, lambda record: record.region)
    regions = [RegionSummary(region, tuple(group)) for region, group in groups.items()]
    classes = _grouped(regions, lambda summary: summary.population)
    return [summary for group in classes.values() for summary in group]


def by_class(records: Sequence[Record]) -> dict[str, Tally]:
    """Counts for each class that a region is about, in order of first appearance."""
    groups = _grouped(by_region(records), lambda summary: summary.population)
    return {
        name: tally(record for summary in group for record in summary.records)
        for name, group in groups.items()
    }


_Item = TypeVar("_Item")


def _grouped(items: Iterable[_Item], key: Callable[[_Item], _Key]) -> dict[_Key, list[_Item]]:
    groups: dict[_Key, list[_Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
