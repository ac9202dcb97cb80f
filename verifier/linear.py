"""The linear program behind a lemma, solved by HiGHS with hot starts, and read off exactly.

Maximise m subject to ``row_i · t + constant_i ≥ scale_i · m`` for the active rows and t in the
region's parameter set. A positive optimum is a point where all rows hold; a negative one has
multipliers that show that they can't. From the optimal basis, point and multipliers can be
computed in exact rationals; so margins of exactly zero have exact answers too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from conspec.encodings.exact import Vector, nearest, vector
from conspec.encodings.images import Shape
from conspec.encodings.rounding import Floats

INFINITY = float("inf")
LARGEST = 1e15
"""Scaled numbers above this come from literals beyond float64; a solver would take them as
infinite."""


@dataclass(frozen=True, eq=False)
class LinearRow:
    """A literal over the parameters: ``row · t + constant``, exactly and as scaled floats.

    Attributes:
        row: [k], exact.
        constant: exact.
        scale: a positive float of the size of the row's values on the region.
    """

    row: Vector
    constant: Fraction
    scale: float

    @cached_property
    def floats(self) -> tuple[Floats, float]:
        """Row and constant over the scale, divided exactly and rounded once."""
        share = 1 / Fraction(self.scale)
        return self.row.scaled(share).floats(), nearest(*(self.constant * share).as_integer_ratio())


@dataclass(frozen=True, eq=False)
class Optimum:
    """An optimum for a set of active rows.

    Attributes:
        margin: the scaled margin m, in float64.
        parameters: t [k], float64.
        multipliers: one per active row, float64, for the rows as they are (not scaled).
        basic: places of parameters strictly between their bounds, for the exact solution.
        tight: places (among the active rows) of rows that hold with equality.
    """

    margin: float
    parameters: Floats
    multipliers: Floats
    basic: tuple[int, ...]
    tight: tuple[int, ...]


class LinearProgram:
    """Rows over one region's parameters (a cube or a simplex), any subset of them active."""

    def __init__(self, shape: Shape, parameters: int) -> None:
        """Set up the parameters and the margin."""
        import highspy

        self._api = highspy
        self._model = highspy.Highs()
        self._model.setOptionValue("output_flag", False)
        self._model.setOptionValue("threads", 1)
        self._model.setOptionValue("presolve", "off")  # hot starts need the model as it is
        self._size = parameters
        lower = -1.0 if shape is Shape.CUBE else 0.0
        places = np.arange(parameters, dtype=np.int32)
        self._model.addVars(parameters + 1, np.full(parameters + 1, lower), np.ones(parameters + 1))
        self._model.changeColBounds(parameters, -2.0, 2.0)
        self._model.changeColCost(parameters, 1.0)
        self._model.changeObjectiveSense(highspy.ObjSense.kMaximize)
        self._first = 0
        if shape is Shape.SIMPLEX:
            self._model.addRow(1.0, 1.0, parameters, places, np.ones(parameters))
            self._first = 1
        self._offsets: list[float] = []
        self._scales: list[float] = []
        self._active: set[int] = set()

    def add(self, row: LinearRow) -> int:
        """Append an inactive row; its place."""
        values, constant = row.floats
        if not (np.abs(values) <= LARGEST).all() or not abs(constant) <= LARGEST:  # NaN, too
            raise OverflowError("a literal's numbers are beyond float64")
        used = np.flatnonzero(values).astype(np.int32)
        places = np.append(used, np.int32(self._size))
        numbers = np.append(values[used], -1.0)
        self._model.addRow(-INFINITY, INFINITY, len(places), places, numbers)
        self._offsets.append(-constant)
        self._scales.append(row.scale)
        return len(self._offsets) - 1

    def set_bounds(self, lower: Floats, upper: Floats) -> None:
        """Other bounds [k] for the parameters than those of their shape."""
        places = np.arange(self._size, dtype=np.int32)
        self._model.changeColsBounds(self._size, places, lower, upper)

    def maximise(self, rows: Sequence[int], seconds: float) -> Optimum | None:
        """The optimum with just these rows active; None when the solver fails."""
        wanted = set(rows)
        for place in self._active - wanted:
            self._model.changeRowBounds(self._first + place, -INFINITY, INFINITY)
        for place in wanted - self._active:
            self._model.changeRowBounds(self._first + place, self._offsets[place], INFINITY)
        self._active = wanted
        self._model.setOptionValue("time_limit", max(seconds, 0.01))
        self._model.run()
        if self._model.getModelStatus() != self._api.HighsModelStatus.kOptimal:
            return None
        return self._optimum(rows)

    def _optimum(self, rows: Sequence[int]) -> Optimum:
        """Reads the solution and the basis."""
        solution: Any = self._model.getSolution()
        basis: Any = self._model.getBasis()
        is_basic = self._api.HighsBasisStatus.kBasic
        duals = [
            abs(solution.row_dual[self._first + place]) / self._scales[place] for place in rows
        ]
        tight = [
            index
            for index, place in enumerate(rows)
            if basis.row_status[self._first + place] != is_basic
        ]
        columns = np.array(solution.col_value)
        return Optimum(
            margin=float(columns[self._size]),
            parameters=columns[: self._size],
            multipliers=np.array(duals),
            basic=tuple(j for j in range(self._size) if basis.col_status[j] == is_basic),
            tight=tuple(tight),
        )


def exact_multipliers(
    rows: Sequence[LinearRow], optimum: Optimum, shape: Shape
) -> list[Fraction] | None:
    """The basis's multipliers for the active rows, exactly; None if they are none.

    The multipliers of the tight rows cancel every basic parameter (for a simplex: make the basic
    ones equal to one level), and their scaled sum is 1.
    """
    tight = [rows[index] for index in optimum.tight]
    level = [Fraction(1)] if shape is Shape.SIMPLEX else []
    equations = [
        [Fraction(row.row.numerators[j], row.row.denominator) for row in tight]
        + [-value for value in level]
        + [Fraction(0)]
        for j in optimum.basic
    ]
    total = [Fraction(row.scale) for row in tight] + [Fraction(0) for _ in level] + [Fraction(1)]
    solution = solve_exactly([*equations, total])
    if solution is None:
        return None
    found = solution[: len(tight)]
    if any(value < 0 for value in found):
        return None
    values = [Fraction(0)] * len(rows)
    for index, value in zip(optimum.tight, found, strict=True):
        values[index] = value
    return values


def exact_parameters(rows: Sequence[LinearRow], optimum: Optimum, shape: Shape) -> Vector | None:
    """The basis's parameters, exactly; None if the basis does not determine them in T."""
    basic = list(optimum.basic)
    fixed = [Fraction(round(float(value))) for value in optimum.parameters]
    for j in basic:
        fixed[j] = Fraction(0)
    equations = []
    for index in optimum.tight:
        row = rows[index]
        entries = [Fraction(row.row.numerators[j], row.row.denominator) for j in basic]
        rest = row.constant + row.row.dot(vector(fixed))
        equations.append([*entries, -Fraction(row.scale), -rest])
    if shape is Shape.SIMPLEX:
        ones = [Fraction(1)] * len(basic)
        equations.append([*ones, Fraction(0), Fraction(1) - sum(fixed, Fraction(0))])
    solution = solve_exactly(equations)
    if solution is None:
        return None
    for j, value in zip(basic, solution, strict=False):
        fixed[j] = value
    low = -1 if shape is Shape.CUBE else 0
    return vector(fixed) if all(low <= value <= 1 for value in fixed) else None


def solve_exactly(equations: list[list[Fraction]]) -> list[Fraction] | None:
    """The solution of a square rational system, each row with its right side last; else None."""
    size = len(equations)
    if any(len(row) != size + 1 for row in equations):
        return None
    table = [list(row) for row in equations]
    for column in range(size):
        pivot = next((r for r in range(column, size) if table[r][column]), None)
        if pivot is None:
            return None
        table[column], table[pivot] = table[pivot], table[column]
        head = table[column][column]
        table[column] = [value / head for value in table[column]]
        for r in range(size):
            factor = table[r][column]
            if r != column and factor:
                table[r] = [a - factor * b for a, b in zip(table[r], table[column], strict=True)]
    return [row[size] for row in table]
