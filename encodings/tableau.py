"""Exact feasibility of linear equations within bounds, by the simplex method in integers.

The method is the general simplex of Dutertre and de Moura (CAV 2006): every equation is a basic
variable with a fixed value, and Bland's rule makes it end. Entries stay integers over one common
denominator because they are minors of the matrix (Edmonds' integer pivoting), so no greatest
common divisor is taken. It is meant for the few points that floating point cannot decide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import mul

from conspec.encodings.exact import vector


@dataclass(frozen=True, slots=True)
class Feasible:
    """A solution, one value per column."""

    values: list[Fraction]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why there is none: ``direction · goal`` exceeds ``direction · matrix · x`` for all x."""

    direction: list[int]


@dataclass(frozen=True, slots=True)
class Bounds:
    """``lower ≤ x ≤ upper``; None where there is no bound."""

    lower: Fraction | None = None
    upper: Fraction | None = None

    def end(self, *, upper: bool) -> Fraction:
        """The upper or the lower bound; 0 where there is none."""
        found = self.upper if upper else self.lower
        return Fraction(0) if found is None else found


def solve_within(
    matrix: Sequence[Sequence[int]],
    goal: Sequence[Fraction],
    bounds: Sequence[Bounds],
    start: Sequence[bool],
    basis: Sequence[int],
    most: int,
) -> Feasible | Conflict | None:
    """Whether ``matrix · x = goal`` has a solution within the bounds.

    Args:
        matrix: integers [m, k].
        goal: m rationals.
        bounds: of the k variables.
        start: which variables outside the basis start at their upper bound, [k].
        basis: columns that are likely strictly between their bounds.
        most: exchanges after which to give up.

    Returns:
        A solution, or a direction [m] that shows that there is none; None when given up.
    """
    table = _Tableau(matrix, goal, bounds, start)
    for column in basis:
        table.enter(column)
    for _ in range(most):
        broken = table.broken()
        if broken is None:
            return Feasible(table.solution())
        row, rises = broken
        place = table.helper(row, rises)
        if place is None:
            return Conflict(table.reason(row, rises))
        table.pivot(row, place, rises=rises)
    return None


class _Tableau:
    """``below · basic = table · free``; variables from ``columns`` on are the equations."""

    def __init__(
        self,
        matrix: Sequence[Sequence[int]],
        goal: Sequence[Fraction],
        bounds: Sequence[Bounds],
        start: Sequence[bool],
    ) -> None:
        self._table = [list(row) for row in matrix]
        self._below = 1
        self._columns = len(bounds)
        self._bounds = [*bounds, *(Bounds(value, value) for value in goal)]
        self._free = list(range(self._columns))
        self._basic = list(range(self._columns, self._columns + len(goal)))
        # Free variables stand at a bound throughout.
        self._at = [bound.end(upper=value) for bound, value in zip(bounds, start, strict=True)]

    def enter(self, column: int) -> None:
        """Exchange a variable for an equation, if one depends on it."""
        place = self._free.index(column)
        for row, variable in enumerate(self._basic):
            if variable >= self._columns and self._table[row][place]:
                self._at[place] = self._bounds[variable].end(upper=False)
                self._exchange(row, place)
                return

    def _values(self) -> list[Fraction]:
        """The basic variables' values."""
        at = vector(self._at)
        below = at.denominator * self._below
        return [Fraction(sum(map(mul, row, at.numerators)), below) for row in self._table]

    def broken(self) -> tuple[int, bool] | None:
        """The row of the first variable outside its bounds, and whether it has to rise."""
        found: tuple[int, bool] | None = None
        for row, value in enumerate(self._values()):
            bound = self._bounds[self._basic[row]]
            low = bound.lower is not None and value < bound.lower
            high = bound.upper is not None and value > bound.upper
            if (low or high) and (found is None or self._basic[row] < self._basic[found[0]]):
                found = row, low
        return found

    def helper(self, row: int, rises: bool) -> int | None:
        """The place of the first free variable that can move the row's as asked."""
        found: int | None = None
        for place, entry in enumerate(self._table[row]):
            first = found is None or self._free[place] < self._free[found]
            if entry and first and self._can_move(place, up=(entry > 0) == rises):
                found = place
        return found

    def _can_move(self, place: int, *, up: bool) -> bool:
        """Whether a free variable stands below its upper (above its lower) bound."""
        bound = self._bounds[self._free[place]]
        if up:
            return bound.upper is None or self._at[place] < bound.upper
        return bound.lower is None or self._at[place] > bound.lower

    def pivot(self, row: int, place: int, *, rises: bool) -> None:
        """Exchange a broken variable, which moves to its bound, for a free one."""
        self._at[place] = self._bounds[self._basic[row]].end(upper=not rises)
        self._exchange(row, place)

    def _exchange(self, row: int, place: int) -> None:
        """Solve one row for a free variable and substitute it in the others."""
        pivot = self._table[row]
        head = pivot[place]
        sign, size, below = (1 if head > 0 else -1), abs(head), self._below
        for other, entries in enumerate(self._table):
            if other == row:
                continue
            factor = sign * entries[place]
            if factor:
                changed = [
                    (a * size - factor * b) // below for a, b in zip(entries, pivot, strict=True)
                ]
            else:
                changed = [a * size // below for a in entries]
            changed[place] = factor
            self._table[other] = changed
        solved = [-sign * entry for entry in pivot]
        solved[place] = sign * below
        self._table[row], self._below = solved, size
        self._basic[row], self._free[place] = self._free[place], self._basic[row]

    def reason(self, row: int, rises: bool) -> list[int]:
        """The combination of equations that keeps the row's variable from moving."""
        sign = 1 if rises else -1
        found = [0] * (len(self._bounds) - self._columns)
        if self._basic[row] >= self._columns:
            found[self._basic[row] - self._columns] = sign * self._below
        for variable, entry in zip(self._free, self._table[row], strict=True):
            if variable >= self._columns:
                found[variable - self._columns] = -sign * entry
        return found

    def solution(self) -> list[Fraction]:
        """The values of the columns."""
        found = dict(zip(self._free, self._at, strict=True))
        found.update(zip(self._basic, self._values(), strict=True))
        return [found[column] for column in range(self._columns)]
