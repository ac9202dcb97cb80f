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
class Hidden:
    """The columns of one hidden layer's neurons that can be active.

    Attributes:
        alive: which neurons those are.
        sizes: [m], the unit of each neuron's columns; zero for the others.
        before: columns of the values before the ReLU, one per living neuron.
        after: columns of the values after it.
    """

    alive: NDArray[np.intp]
    sizes: Floats
    before: range
    after: range

    @cached_property
    def _units(self) -> Vector:
        """The sizes, exactly."""
        return from_array(self.sizes)

    def over_columns(self, row: Vector) -> Vector:
        """A row over the layer's values after the ReLU, as a row over the columns ``after``."""
        scaled = product(row, self._units)
        return Vector(tuple(scaled.numerators[i] for i in self.alive), scaled.denominator)


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
        size = layer.sizes[neuron]
        low = max(float(bounds.lower[neuron] / size), -1.0)
        high = min(float(bounds.upper[neuron] / size), 1.0)
        rows += [Row(low, INFINITY, [before], [1.0]), Row(-INFINITY, high, [before], [1.0])]
        if high <= 0:
            rows.append(Row(0.0, 0.0, [after], [1.0]))
        elif low >= 0:
            rows.append(Row(0.0, 0.0, [before, after], [1.0, -1.0]))
        else:
            rows.append(Row(-INFINITY, 0.0, [before, after], [1.0, -1.0]))
            if rising[neuron]:
                side = first + len(columns)
                columns.append(Column(0.0, 1.0, integer=True))
                rows.append(Row(low, INFINITY, [before, after, side], [1.0, -1.0, low]))
                rows.append(Row(-INFINITY, 0.0, [after, side], [1.0, -high]))
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
