"""A query as a mixed-integer linear program that maximises the violation's margin.

One solver-neutral model per region: the region's parameters t (for a box, scaled coordinates in
[−1, 1]), the neurons of a ReLU head, and one column per half-space, scaled so that its range over
the region is [−1, 1] at most. A query adds a few sparse rows over those columns, is solved, and
takes its rows away again; so specs of one region share everything that is dense.

Every big-M is the literal's own range over the region, never a chosen constant. The margin is
maximised rather than asked to be non-negative: with a zero objective, solvers put the point on
the border, where the exact check refuses it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from typing import Protocol

import numpy as np

from conspec.encodings.bounds import LayerBounds, hidden_bounds
from conspec.encodings.exact import Vector, from_array, product, zeros
from conspec.encodings.images import Shape, shape_maximum
from conspec.encodings.network import Affine
from conspec.encodings.regions import ConvexRegion
from conspec.encodings.rounding import Floats
from conspec.encodings.scores import ScoreSpace
from conspec.specs.rewrite import All, Cone, Count, Halfspace, Nnf, Some, literals

INFINITY = float("inf")
LITERAL_LIMIT = 1000
"""Literals in a model above which it is started afresh, so that it stays small."""
ROUND = 1e-6
"""How far outside a ball a point may lie before it is cut off: the solvers' own tolerance."""
ROOM = 1e-9
"""By how much the scaled range of a literal is widened."""


class Status(Enum):
    """How a solver stopped."""

    OPTIMAL = "optimal"
    INFEASIBLE = "infeasible"
    TIME_LIMIT = "time limit"
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

    def maximise(self, objective: Sequence[tuple[int, float]], seconds: float) -> Answer:
        """Maximise a linear objective."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What to look for among violations.

    Attributes:
        direction: maximise this over the parameters [k]; None maximises the margin.
        closest: minimise the largest parameter instead, the distance from the region's centre.
        margin_floor: the scaled margin that a point must have, with the two above.
        by_scale: measure each literal in its own range; else all in the widest one's, which is
            the margin as it is reported, up to a factor.
    """

    direction: Floats | None = None
    closest: bool = False
    margin_floor: float = 0.0
    by_scale: bool = True


@dataclass(frozen=True, slots=True)
class Scaled:
    """A literal's column, whose value is the literal's over its scale.

    Attributes:
        column: where it stands.
        lowest: the least value it can have.
        scale: of the size of the literal's range.
        factor: what its value counts in a margin.
    """

    column: int
    lowest: float
    scale: Fraction
    factor: float = 1.0

    def within(self, widest: Fraction) -> "Scaled":
        """The same, counted on a common scale."""
        return replace(self, factor=float(self.scale / widest))


class MilpSession:
    """All queries of one region on one solver."""

    def __init__(self, space: ScoreSpace, region: ConvexRegion, solver: MilpSolver) -> None:
        """Set up the columns of the parameters and of the hidden neurons."""
        self._space = space
        self._solver = solver
        self._columns = 0
        self._literals: dict[Halfspace, Scaled] = {}
        self._region = region
        simplex = region.shape is Shape.SIMPLEX
        lowest = 0.0 if simplex else -1.0
        self._parameters = self._new([Column(lowest, 1.0)] * region.parameters)
        if simplex:
            ones = [1.0] * region.parameters
            self._solver.add_rows([Row(1.0, 1.0, self._parameters, ones)])
        self._last = self._parameters
        self._sizes = zeros(0)
        bounds = hidden_bounds(space.head, region)
        for layer, bound in zip(space.head.affines, bounds, strict=False):
            self._last = self._hidden_layer(layer, bound)
            self._sizes = from_array(np.maximum(bound.upper, 0.0))

    @property
    def is_full(self) -> bool:
        """Whether so many literals have been added that a fresh model is better."""
        return len(self._literals) > LITERAL_LIMIT

    def _new(self, columns: Sequence[Column]) -> range:
        """Append columns; their indices."""
        self._solver.add_columns(columns)
        self._columns += len(columns)
        return range(self._columns - len(columns), self._columns)

    def _hidden_layer(self, layer: Affine, bounds: LayerBounds) -> range:
        """The neurons of one hidden layer after their ReLU, as shares of their upper bounds."""
        inputs = self._last
        if not (np.isfinite(bounds.lower).all() and np.isfinite(bounds.upper).all()):
            raise OverflowError("bounds of a hidden neuron are beyond float64")
        after = self._new([Column(0.0, float(high > 0)) for high in bounds.upper])
        for neuron, (low, high) in enumerate(zip(bounds.lower, bounds.upper, strict=True)):
            if high <= 0:
                continue
            row, constant = layer.row(neuron)
            if inputs is self._parameters:
                row, constant = self._region.pull(row, constant)
            else:
                row = product(row, self._sizes)
            # Divided by the range, so that no solver drops a coefficient that matters.
            size = max(abs(low), abs(high))
            weights, offset = _divided(row, constant, Fraction(size))
            used = np.flatnonzero(weights)
            columns = [*(inputs[i] for i in used), after[neuron]]
            values = [*weights[used].tolist(), -float(high / size)]
            # relu(a) = a when a ≥ 0 everywhere; else with a binary that says which side.
            if low >= 0:
                self._solver.add_rows([Row(-offset, -offset, columns, values)])
                continue
            (side,) = self._new([Column(0.0, 1.0, integer=True)])
            least = float(low / size)
            self._solver.add_rows(
                [
                    Row(-INFINITY, -offset, columns, values),
                    Row(least - offset, INFINITY, [*columns, side], [*values, least]),
                    Row(-INFINITY, 0.0, [after[neuron], side], [1.0, -1.0]),
                ]
            )
        return after

    def _literal(self, literal: Halfspace) -> Scaled:
        """A literal's own column."""
        if literal not in self._literals:
            self._literals[literal] = self._add_literal(literal)
        return self._literals[literal]

    def _add_literal(self, literal: Halfspace) -> Scaled:
        """Add the column and the dense row of a literal."""
        row, constant = self._space.row(literal)
        size, bottom = self._space.dimension, row.denominator
        inner = product(Vector(row.numerators[size:], bottom), self._sizes)
        row, middle = self._region.pull(Vector(row.numerators[:size], bottom), constant)
        shape = self._region.shape
        low = middle - shape_maximum(shape, row.scaled(-1))[0] + _total(inner, min)
        high = middle + shape_maximum(shape, row)[0] + _total(inner, max)
        scale = max(abs(low), abs(high)) or Fraction(1)
        # The rounding of these bounds must not cut off a point, so they are widened a little.
        lowest = float(low / scale) - ROOM
        (column,) = self._new([Column(lowest, float(high / scale) + ROOM)])
        weights, shift = _divided(row, middle, scale)
        values = np.concatenate([weights, _divided(inner, middle, scale)[0]])
        places = [*self._parameters, *(self._last if len(inner) else ())]
        used = np.flatnonzero(values)
        columns = [*(places[i] for i in used), column]
        self._solver.add_rows([Row(-shift, -shift, columns, [*values[used].tolist(), -1.0])])
        return Scaled(column, lowest, scale)

    def maximise(self, violation: Nnf, seconds: float, aim: Objective = Objective()) -> Answer:
        """Best point of the region under the aim that satisfies the violation.

        ``has`` literals are left out, which keeps the bound valid (there are only more points).
        With the default aim the objective is the scaled margin, within [−1, 1]: a bound below
        zero by more than the solver's tolerance means that there is no violation.

        Returns:
            The solver's answer; its point is the parameters [k] in float64.
        """
        found = {
            lit: self._literal(lit) for lit in literals(violation) if isinstance(lit, Halfspace)
        }
        if not aim.by_scale:
            widest = max((scaled.scale for scaled in found.values()), default=Fraction(1))
            found = {literal: scaled.within(widest) for literal, scaled in found.items()}
        encoder = _Encoder(self._columns, found, aim.margin_floor)
        encoder.require(violation, None)
        objective = [(encoder.margin, 1.0)]
        if aim.closest:
            objective = [(encoder.distance(self._parameters), -1.0)]
        elif aim.direction is not None:
            objective = list(zip(self._parameters, aim.direction.tolist(), strict=True))
        self._solver.add_columns(encoder.columns)
        self._solver.add_rows(encoder.rows)
        answer = self._solver.maximise(objective, seconds)
        self._solver.drop(len(encoder.columns), len(encoder.rows))
        if answer.point is None:
            return answer
        return replace(answer, point=answer.point[: len(self._parameters)])

    def cut(self, parameters: Floats) -> bool:
        """For a ball: cuts off parameters outside it by a tangent; whether there was need."""
        length = float(np.linalg.norm(parameters))
        if self._region.shape is not Shape.BALL or length <= 1.0 + ROUND:
            return False
        unit = parameters / length
        self._solver.add_rows([Row(-INFINITY, 1.0 + ROOM, self._parameters, unit.tolist())])
        return True


def _divided(row: Vector, constant: Fraction, size: Fraction) -> tuple[Floats, float]:
    """A row and its constant over a size, each number rounded once."""
    return row.scaled(1 / size).floats(), float(constant / size)


def _total(row: Vector, bound: Callable[[int, int], int]) -> Fraction:
    """The least or greatest value (``min`` or ``max``) of ``row · y`` for y in [0, 1]."""
    return Fraction(sum(bound(value, 0) for value in row.numerators), row.denominator)


class _Encoder:
    """The columns and rows that one formula adds: a margin column, and binaries for choices."""

    def __init__(self, first: int, found: dict[Halfspace, Scaled], margin_floor: float) -> None:
        self._first = first
        self._found = found
        # Below −1 every literal holds, so without a floor some point always satisfies the rows.
        self.columns = [Column(margin_floor or -1.5, 1.0)]
        self.rows: list[Row] = []
        self.margin = first
        self._choices: dict[int, int] = {}
        self._required: set[tuple[int, int | None]] = set()

    def _new(self, column: Column) -> int:
        self.columns.append(column)
        return self._first + len(self.columns) - 1

    def _choice(self, node: Nnf) -> int:
        """The binary that, when 1, requires the node."""
        if id(node) not in self._choices:
            self._choices[id(node)] = self._new(Column(0.0, 1.0, integer=True))
            self.require(node, self._choices[id(node)])
        return self._choices[id(node)]

    def require(self, node: Nnf, guard: int | None) -> None:
        """The node holds with the margin whenever the guard is 1 (always, without a guard)."""
        if (id(node), guard) in self._required:
            return
        self._required.add((id(node), guard))
        match node:
            case Halfspace():
                self._require_literal(node, guard)
            case Cone():
                pass
            case All(operands):
                for part in operands:
                    self.require(part, guard)
            case Some(operands):
                self._require_count(1, operands, guard)
            case Count(count, operands):
                self._require_count(count, operands, guard)

    def _require_literal(self, literal: Halfspace, guard: int | None) -> None:
        scaled = self._found[literal]
        columns, values = [scaled.column, self.margin], [scaled.factor, -1.0]
        if guard is None:
            self.rows.append(Row(0.0, INFINITY, columns, values))
            return
        # margin ≤ 1 and literal ≥ lowest, so without the guard nothing is asked
        room = 1.0 - scaled.factor * scaled.lowest
        self.rows.append(Row(-room, INFINITY, [*columns, guard], [*values, -room]))

    def _require_count(self, count: int, parts: Sequence[Nnf], guard: int | None) -> None:
        choices = [self._choice(part) for part in parts]
        ones = [1.0] * len(choices)
        if guard is None:
            self.rows.append(Row(float(count), INFINITY, choices, ones))
        else:
            self.rows.append(Row(0.0, INFINITY, [*choices, guard], [*ones, -float(count)]))

    def distance(self, parameters: Sequence[int]) -> int:
        """A column that is at least every coordinate's absolute value."""
        column = self._new(Column(0.0, 1.0))
        for coordinate in parameters:
            self.rows.append(Row(0.0, INFINITY, [column, coordinate], [1.0, -1.0]))
            self.rows.append(Row(0.0, INFINITY, [column, coordinate], [1.0, 1.0]))
        return column
