"""The columns and rows that one query adds to a MILP: its formula, and the ReLUs as it needs them.

A ReLU needs a binary only where it is unstable and where the margin could gain from more than its
value: raising a neuron that enters all literals with a negative weight never helps, so there it is
enough that it lies above 0 and above its input.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.exact import Vector, from_array, product
from conspec.encodings.linear_bounds import LayerBounds
from conspec.encodings.milp import INFINITY, Column, Row
from conspec.encodings.rounding import Bools, Floats
from conspec.encodings.scores import ScoreSpace
from conspec.specs.rewrite import All, Cone, Count, Halfspace, Nnf, Some

WIDER = 1e-3
"""By how much ranges are widened, in units of the region's: far above the solvers' tolerances, so
that none takes a narrow range for an empty one, or drops its size from a row as too small."""


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


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns that stand for numbers: a number is ``offset + unit · column``.

    Attributes:
        places: the columns, [c].
        signed: bool [c]: whether a column's range is [−1, 1]; else it is [0, 1].
        is_simplex: whether they sum to 1 besides.
    """

    places: Sequence[int]
    signed: Bools
    is_simplex: bool = False

    def interval(self, row: Vector, constant: Fraction) -> tuple[Fraction, Fraction]:
        """Middle and half-width of ``row · columns + constant``, exactly."""
        if self.is_simplex:
            least, most = min(row.numerators), max(row.numerators)
            middle = constant + Fraction(least + most, 2 * row.denominator)
            return middle, Fraction(most - least, 2 * row.denominator)
        one_sided = [top for top, both in zip(row.numerators, self.signed, strict=True) if not both]
        half = 2 * sum(map(abs, row.numerators)) - sum(map(abs, one_sided))
        middle = constant + Fraction(sum(one_sided), 2 * row.denominator)
        return middle, Fraction(half, 2 * row.denominator)


@dataclass(frozen=True, eq=False)
class Hidden:
    """The columns of one hidden layer's neurons that can be active.

    Before its ReLU a neuron is ``middle + size · t``, so that its own range, however narrow, is
    that of a column: solvers have absolute tolerances. After it, an active neuron is the same; one
    that may have either sign is ``top · y``.

    Attributes:
        alive: which neurons those are.
        bounds: of all neurons before the ReLU, on the region.
        middles: [m], exact: the range of a large neuron may be narrower than a float's last digit.
        sizes: [m], positive for living neurons.
        before: columns t in [−1, 1], one per living neuron.
        after: columns y in [0, 1] of the living unstable neurons; the active ones have their t.
    """

    alive: NDArray[np.intp]
    bounds: LayerBounds
    middles: Vector
    sizes: Floats
    before: range
    after: Sequence[int]

    @cached_property
    def columns(self) -> Columns:
        """The columns of the values after the ReLU, one per living neuron."""
        return Columns(self.after, ~self.bounds.unstable[self.alive])

    @cached_property
    def tops(self) -> Floats:
        """Units [m] of unstable neurons after the ReLU: no value is larger, and no slope huge."""
        found: Floats = np.maximum(self.bounds.upper, self.sizes)
        return found

    @cached_property
    def _units(self) -> tuple[Vector, Vector]:
        """Units and offsets of the values after the ReLU, [m] each, exactly."""
        unstable = self.bounds.unstable
        units = np.where(unstable, self.tops, self.sizes)
        pairs = zip(self.middles.numerators, unstable.tolist(), strict=True)
        offsets = tuple(0 if either else top for top, either in pairs)
        return from_array(units), Vector(offsets, self.middles.denominator)

    def over_columns(self, row: Vector) -> tuple[Vector, Fraction]:
        """A row over the layer's values after the ReLU, as a row over `columns` and a constant."""
        units, offsets = self._units
        kept = [row.numerators[place] for place in self.alive]
        living = Vector(tuple(kept), row.denominator)
        chosen = Vector(tuple(units.numerators[place] for place in self.alive), units.denominator)
        moved = Vector(
            tuple(offsets.numerators[place] for place in self.alive), offsets.denominator
        )
        return product(living, chosen), living.dot(moved)


def wanted_sides(space: ScoreSpace, found: Sequence[Halfspace]) -> list[Bools]:
    """Which neurons of each hidden layer some literal gains from when they rise: bool [m] each.

    A formula in negation normal form only gains from larger literals. Of a neuron that is not
    named here, a solution may have a larger value than the network gives; with the true one, all
    literals are at least as large.
    """
    if space.head.is_affine:
        return []
    size = space.dimension
    signs = np.zeros((len(found), space.hidden))
    for place, literal in enumerate(found):
        signs[place] = [(top > 0) - (top < 0) for top in space.row(literal)[0].numerators[size:]]
    rising, falling = _any(signs > 0), _any(signs < 0)
    sides = [rising]
    for layer in space.head.affines[-2:0:-1]:
        positive = np.asarray(layer.weight > 0, dtype=bool)
        negative = np.asarray(layer.weight < 0, dtype=bool)
        up = _any(positive[rising]) | _any(negative[falling])
        down = _any(negative[rising]) | _any(positive[falling])
        rising, falling = up, down
        sides.append(rising)
    return sides[::-1]


def _any(rows: Bools) -> Bools:
    """Where some row is true."""
    return np.asarray(rows.any(axis=0), dtype=bool)


def relu_rows(
    layer: Hidden, bounds: LayerBounds, rising: Bools, first: int
) -> tuple[list[Column], list[Row]]:
    """The ReLUs of one layer, with binaries where they are needed.

    Args:
        layer: its columns.
        bounds: of all its neurons before the ReLU, at the points in question.
        rising: the neurons for which an upper bound matters.
        first: the place of the next new column.
    """
    columns: list[Column] = []
    rows: list[Row] = []
    for neuron, before, after in zip(layer.alive, layer.before, layer.after, strict=True):
        known_low, known_high = float(bounds.lower[neuron]), float(bounds.upper[neuron])
        middle = Fraction(layer.middles.numerators[neuron], layer.middles.denominator)
        size = Fraction(layer.sizes[neuron])
        low = float((Fraction(known_low) - middle) / size) - WIDER
        high = float((Fraction(known_high) - middle) / size) + WIDER
        rows += [Row(low, INFINITY, [before], [1.0])] if low > -1.0 else []
        rows += [Row(-INFINITY, high, [before], [1.0])] if high < 1.0 else []
        if before == after:
            continue
        # Everything in units of the top: y is the value after the ReLU, slope · t + start before.
        top = float(layer.tops[neuron])
        slope, start = float(size) / top, float(middle / Fraction(top))
        if known_high <= 0:
            rows.append(Row(0.0, 0.0, [after], [1.0]))
        elif known_low >= 0:
            rows.append(Row(-start, -start, [before, after], [slope, -1.0]))
        else:
            rows.append(Row(-INFINITY, -start, [before, after], [slope, -1.0]))
            if rising[neuron]:
                side = first + len(columns)
                columns.append(Column(0.0, 1.0, integer=True))
                least, most = known_low / top - WIDER, known_high / top + WIDER
                chosen = [before, after, side]
                rows.append(Row(least - start, INFINITY, chosen, [slope, -1.0, least]))
                rows.append(Row(-INFINITY, 0.0, [after, side], [1.0, -most]))
    return columns, rows


class FormulaRows:
    """The columns and rows that one formula adds: a margin column, and binaries for choices."""

    def __init__(self, first: int, found: dict[Halfspace, Scaled], margin_floor: float) -> None:
        """Number new columns from ``first`` on; ``found`` has the columns of all literals."""
        self._first = first
        self._found = found
        # Below −1 every literal holds, so without a floor some point always satisfies the rows.
        self.columns = [Column(margin_floor or -1.5, 1.0)]
        self.rows: list[Row] = []
        self.margin = first
        self._choices: dict[int, int] = {}
        self._required: set[tuple[int, int | None]] = set()

    @property
    def end(self) -> int:
        """The place of the next new column."""
        return self._first + len(self.columns)

    def _new(self, column: Column) -> int:
        self.columns.append(column)
        return self.end - 1

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
