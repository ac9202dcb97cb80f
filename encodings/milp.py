"""What a MILP solver is told and answers, in a form that all of them share."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from conspec.encodings.rounding import Floats

INFINITY = float("inf")


class Status(Enum):
    """How a solver stopped."""

    OPTIMAL = "optimal"
    INFEASIBLE = "infeasible"
    TIME_LIMIT = "time limit"
    GOAL = "goal reached"
    TOO_LARGE = "too large for the solver's licence"
    FAILED = "failed"


@dataclass(frozen=True, eq=False)
class Answer:
    """What a solver says of a maximisation.

    Attributes:
        status: how it stopped.
        bound: no point has a larger objective, says the solver; ``inf`` if it says nothing.
        point: values of all columns at the best point found, or None.
        detail: the solver's own word.
    """

    status: Status
    bound: float = INFINITY
    point: Floats | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A variable with its bounds."""

    lower: float
    upper: float
    integer: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """``lower ≤ Σ values · columns ≤ upper``."""

    lower: float
    upper: float
    columns: Sequence[int]
    values: Sequence[float]


class MilpSolver(Protocol):
    """The four things a MILP solver must do; one small file each in ``verifier/``."""

    def add_columns(self, columns: Sequence[Column]) -> None:
        """Append variables."""

    def add_rows(self, rows: Sequence[Row]) -> None:
        """Append constraints."""

    def drop(self, columns: int, rows: int) -> None:
        """Remove the last ``columns`` variables and the last ``rows`` constraints."""

    def maximise(
        self, objective: Sequence[tuple[int, float]], seconds: float, goal: float = INFINITY
    ) -> Answer:
        """Maximise a linear objective, until a point with ``goal`` or more is found."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What to look for among violations.

    Attributes:
        direction: maximise this over the parameters [k]; None maximises the margin.
        closest: minimise the largest parameter instead, the distance from the region's centre.
        margin_floor: the scaled margin that a point must have; 0 asks for none.
        goal: a scaled margin that is large enough: the search stops at such a point.
        by_scale: measure each literal in its own range; else all in the widest one's, which is
            the margin as it is reported, up to a factor.
    """

    direction: Floats | None = None
    closest: bool = False
    margin_floor: float = 0.0
    goal: float = INFINITY
    by_scale: bool = True
