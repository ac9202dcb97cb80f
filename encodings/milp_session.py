"""A query as a mixed-integer linear program that maximises the violation's margin.

One solver-neutral model per region: the region's parameters t (for a box, scaled coordinates in
[−1, 1]), the neurons of a ReLU head before and after the ReLU, and one column per half-space,
scaled so that its range over the region is [−1, 1] at most. A query adds a few sparse rows over
those columns, the ReLUs among them, is solved, and takes its rows away again; so specs of one
region share everything that is dense.

Every big-M is the literal's or the neuron's own range over the region, never a chosen constant.
The margin is maximised rather than asked to be non-negative: with a zero objective, solvers put
the point on the border, where the exact check refuses it.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from conspec.encodings.bounds import hidden_bounds
from conspec.encodings.exact import Vector, vector, zeros
from conspec.encodings.images import Shape, shape_maximum
from conspec.encodings.linear_bounds import LayerBounds, linear_uppers
from conspec.encodings.milp import INFINITY, Answer, Column, MilpSolver, Objective, Row
from conspec.encodings.milp_rows import (
    WIDER,
    Columns,
    FormulaRows,
    Hidden,
    Scaled,
    relu_rows,
    wanted_sides,
)
from conspec.encodings.network import Affine
from conspec.encodings.regions import ConvexRegion
from conspec.encodings.rounding import Floats
from conspec.encodings.scores import ScoreSpace
from conspec.encodings.tightening import combinations_of
from conspec.specs.rewrite import Halfspace, Nnf, literals

LITERAL_LIMIT = 1000
"""Literals in a model above which it is started afresh, so that it stays small."""
MARGIN = Objective()
"""The usual aim: the largest margin."""
ROUND = 1e-6
"""How far outside a ball a point may lie before it is cut off: the solvers' own tolerance."""
ROOM = 1e-9
"""By how much a tangent of a ball is moved outward, for its rounding."""


class MilpSession:
    """All queries of one region on one solver."""

    def __init__(self, space: ScoreSpace, region: ConvexRegion, solver: MilpSolver) -> None:
        """Set up the columns of the parameters and of the hidden neurons.

        Raises:
            OverflowError: a hidden neuron cannot be bounded in float64.
        """
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
        self.bounds = hidden_bounds(space.head, region)
        self._layers: list[Hidden] = []
        for layer, bounds in zip(space.head.affines, self.bounds, strict=False):
            self._layers.append(self._hidden_layer(layer, bounds))

    @property
    def is_full(self) -> bool:
        """Whether so many literals have been added that a fresh model is better."""
        return len(self._literals) > LITERAL_LIMIT

    def _new(self, columns: Sequence[Column]) -> range:
        """Append columns; their indices."""
        self._solver.add_columns(columns)
        self._columns += len(columns)
        return range(self._columns - len(columns), self._columns)

    def _hidden_layer(self, layer: Affine, bounds: LayerBounds) -> Hidden:
        """The neurons of one hidden layer that can be active, in units of what bounds them."""
        if not (np.isfinite(bounds.lower).all() and np.isfinite(bounds.upper).all()):
            raise OverflowError("bounds of a hidden neuron are beyond float64")
        alive = np.flatnonzero(bounds.upper > 0)
        middles = [Fraction(0)] * layer.outputs
        sizes = np.zeros(layer.outputs)
        before = self._new([Column(-1.0 - WIDER, 1.0 + WIDER)] * len(alive))
        inputs = self._inputs
        for place, neuron in enumerate(alive.tolist()):
            row, constant = layer.row(neuron)
            if self._layers:
                row, moved = self._layers[-1].over_columns(row)
                constant += moved
            else:
                row, constant = self._pulled(row, constant)
            middles[neuron], half = inputs.interval(row, constant)
            sizes[neuron] = _not_below(half) or 1.0
            rest = constant - middles[neuron]
            weights, offset = _divided(row, rest, Fraction(sizes[neuron]))
            used = np.flatnonzero(weights).tolist()
            columns = [*(inputs.places[i] for i in used), before[place]]
            values = [*weights[used].tolist(), -1.0]
            self._solver.add_rows([Row(-offset, -offset, columns, values)])
        after = list(before)
        for place in np.flatnonzero(bounds.unstable[alive]).tolist():
            (after[place],) = self._new([Column(0.0, 1.0)])
        return Hidden(alive, bounds, vector(middles), sizes, before, after)

    def _pulled(self, row: Vector, constant: Fraction) -> tuple[Vector, Fraction]:
        """A row over the embedding as one over the parameters, and a constant.

        Weights of a convex combination sum to 1, so what all samples have in common is a part of
        the constant; left in the row, it would multiply the solvers' tolerance of that sum.
        """
        pulled, moved = self._region.pull(row, constant)
        if self._region.shape is not Shape.SIMPLEX:
            return pulled, moved
        tops, bottom = pulled.numerators, pulled.denominator
        common = (min(tops) + max(tops)) // 2
        return Vector(tuple(top - common for top in tops), bottom), moved + Fraction(common, bottom)

    @property
    def _inputs(self) -> Columns:
        """What the next layer reads."""
        if self._layers:
            return self._layers[-1].columns
        is_simplex = self._region.shape is Shape.SIMPLEX
        signed = np.full(len(self._parameters), not is_simplex)
        return Columns(self._parameters, signed, is_simplex)

    def _literal(self, literal: Halfspace) -> Scaled:
        """A literal's own column."""
        if literal not in self._literals:
            self._literals[literal] = self._add_literal(literal)
        return self._literals[literal]

    def _add_literal(self, literal: Halfspace) -> Scaled:
        """Add the column and the dense row of a literal."""
        row, constant = self._space.row(literal)
        size, bottom = self._space.dimension, row.denominator
        inner, moved = zeros(0), Fraction(0)
        if self._layers:
            inner, moved = self._layers[-1].over_columns(Vector(row.numerators[size:], bottom))
        row, middle = self._pulled(Vector(row.numerators[:size], bottom), constant)
        shape, middle = self._region.shape, middle + moved
        low = middle - shape_maximum(shape, row.scaled(-1))[0]
        high = middle + shape_maximum(shape, row)[0]
        if self._layers:
            between, half = self._inputs.interval(inner, Fraction(0))
            low, high = low + between - half, high + between + half
        scale = max(abs(low), abs(high)) or Fraction(1)
        low, high = self._narrowed(literal, low, high)
        # Neither rounding nor a tolerance may cut off a point.
        lowest = float(low / scale) - WIDER
        (column,) = self._new([Column(lowest, float(high / scale) + WIDER)])
        weights, shift = _divided(row, middle, scale)
        values = np.concatenate([weights, _divided(inner, middle, scale)[0]])
        places = [*self._parameters, *(self._layers[-1].after if self._layers else ())]
        used = np.flatnonzero(values)
        columns = [*(places[i] for i in used), column]
        self._solver.add_rows([Row(-shift, -shift, columns, [*values[used].tolist(), -1.0])])
        return Scaled(column, lowest, scale)

    def _narrowed(
        self, literal: Halfspace, low: Fraction, high: Fraction
    ) -> tuple[Fraction, Fraction]:
        """A literal's range, cut by linear bounds if it depends on hidden neurons."""
        if self._space.is_affine(literal):
            return low, high
        wanted = combinations_of(self._space, [literal])
        head, region = self._space.head, self._region
        (top,) = linear_uppers(head, region, self.bounds, wanted).highest(region).tolist()
        negative = linear_uppers(head, region, self.bounds, wanted.negated()).highest(region)
        (bottom,) = (-negative).tolist()
        return (
            max(low, Fraction(bottom)) if np.isfinite(bottom) else low,
            min(high, Fraction(top)) if np.isfinite(top) else high,
        )

    def maximise(
        self,
        violation: Nnf,
        seconds: float,
        aim: Objective = MARGIN,
        bounds: Sequence[LayerBounds] | None = None,
    ) -> Answer:
        """Best point of the region under the aim that satisfies the violation.

        ``has`` literals are left out, which keeps the bound valid (there are only more points).
        With the default aim the objective is the scaled margin, within [−1, 1]: a bound below
        zero by more than the solver's tolerance means that there is no violation.

        Args:
            violation: what the point has to satisfy.
            seconds: time limit.
            aim: what to look for.
            bounds: of the hidden layers, wherever the violation holds; the region's by default.

        Returns:
            The solver's answer; its point is the parameters [k] in float64.
        """
        found = {
            lit: self._literal(lit) for lit in literals(violation) if isinstance(lit, Halfspace)
        }
        if not aim.by_scale:
            widest = max((scaled.scale for scaled in found.values()), default=Fraction(1))
            found = {literal: scaled.within(widest) for literal, scaled in found.items()}
        rows = FormulaRows(self._columns, found, aim.margin_floor)
        rows.require(violation, None)
        objective = [(rows.margin, 1.0)]
        if aim.closest:
            objective = [(rows.distance(self._parameters), -1.0)]
        elif aim.direction is not None:
            objective = list(zip(self._parameters, aim.direction.tolist(), strict=True))
        sides = wanted_sides(self._space, list(found))
        for layer, known, own, rising in zip(
            self._layers, bounds or self.bounds, self.bounds, sides, strict=True
        ):
            added, extra = relu_rows(layer, known.within(own), rising, rows.end)
            rows.columns += added
            rows.rows += extra
        self._solver.add_columns(rows.columns)
        self._solver.add_rows(rows.rows)
        answer = self._solver.maximise(objective, seconds, aim.goal)
        self._solver.drop(len(rows.columns), len(rows.rows))
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


def _not_below(value: Fraction) -> float:
    """The least float64 that is not below a rational; float() may halve a denormal."""
    found = float(value)
    return found if Fraction(found) >= value else float(np.nextafter(found, np.inf))
