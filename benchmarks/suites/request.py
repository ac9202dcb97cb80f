"""What is asked of a suite. Importing this is cheap: the command line does so for its help."""

from collections.abc import Sequence
from dataclasses import dataclass

from conspec.specs.errors import BadUsage

GRADED = "graded"
"""The family of specs at multiples of the scale up to which they hold."""
ALL_FAMILIES = (
    *("strength", "premise", "boolean", "cardinality", "rule", "has", "robust"),
    GRADED,
)
FORMATS = ("vnnlib", "smt", "milp")
POLYHEDRAL = ("vnnlib", "milp")
"""Formats that have linear constraints only."""
OWN = "own"
"""The family of the specs of a user's own suite."""
LONGEST_TOTAL = 6 * 3600
"""Seconds: the sum of all time limits that VNN-COMP allows a benchmark."""


@dataclass(frozen=True)
class Request:
    """What was asked for; together with a bundle it determines a suite.

    Attributes:
        seed: of all that is drawn.
        count: specs a family; for `GRADED`, specs whose γ* is looked for.
        families: which ones, of `ALL_FAMILIES`; not used for an own suite.
        seconds: time limit of an instance, and of each solver asked for its true answer.
        suite: the text of a user's own suite, in place of all that is drawn; else None.
        formats: which ones, of `FORMATS`.
    """

    seed: int = 0
    count: int = 10
    families: tuple[str, ...] = ALL_FAMILIES
    seconds: float = 60.0
    suite: str | None = None
    formats: tuple[str, ...] = FORMATS

    def __post_init__(self) -> None:
        """Refuse what no suite can be made of.

        Raises:
            BadUsage: a number is out of range, or a family is unknown or named twice.
        """
        if self.count < 1:
            raise BadUsage(f"a suite with {self.count} specs a family: must be at least 1")
        if not 0 < self.seconds <= LONGEST_TOTAL:
            raise BadUsage(f"a time limit of {self.seconds:g} s: must be above 0, at most 6 hours")
        _refuse_names("family", self.families, ALL_FAMILIES)
        _refuse_names("format", self.formats, FORMATS)


def _refuse_names(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse unknown names, names given twice, and no name at all."""
    for name in names:
        if name not in known:
            raise BadUsage(f"no {what} {name!r}; there are {', '.join(known)}")
    if len(set(names)) < len(names) or not names:
        raise BadUsage(f"name each {what} once, and at least one")
