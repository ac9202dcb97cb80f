"""A region as linear constraints in exact rationals, for any solver or file format.

Every region is written as ``{ c + V·t : lower ≤ t ≤ upper, rows·t ≤ bounds, equations }``. Boxes
and the images of cubes and simplices are polyhedra, so that is exact. A ball (ellipsoid, L2 ball)
is not: it has an outer description, which contains it, and an inner one, which it contains. Both
are theorems in rational arithmetic:

* outer: the cube around the ball, cut by tangents ``u·t ≤ r`` with integers ``r² ≥ u·u``;
* inner: the convex hull of points of the ball, each checked by squares.

Which points lie in the ball itself is ``region.contains``, exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from math import isqrt

from conspec.encodings.exact import Vector, combination, vector, zeros
from conspec.encodings.images import Image, Shape
from conspec.encodings.regions import Box, ConvexRegion

FINE = 20
"""Bits of a tangent's largest entry: the tangent is off by about 2**-20 of the radius."""


class Side(Enum):
    """Which description of a ball is wanted."""

    OUTER = "outer"
    """Contains the region: "no solution" is a proof."""
    INNER = "inner"
    """Lies in the region: a solution is a point of it."""


@dataclass(frozen=True, slots=True)
class Inequality:
    """``row · t ≤ bound``."""

    row: Vector
    bound: Fraction


@dataclass(frozen=True, slots=True)
class Equation:
    """``row · t = value``."""

    row: Vector
    value: Fraction


@dataclass(frozen=True, eq=False)
class LinearConstraints:
    """``{ c + V·t }`` for the t that satisfy bounds, inequalities and equations; all exact.

    Attributes:
        center: c [n]; zero for a box.
        columns: V as k columns of length n, or None where ``z = t`` (a box).
        lower: bounds of t, [k].
        upper: bounds of t, [k].
        inequalities: further ones.
        equations: for a simplex, that the parameters sum to 1.
        is_exact: whether this is the region itself; else only its outer or inner description.
    """

    center: Vector
    columns: tuple[Vector, ...] | None
    lower: Vector
    upper: Vector
    inequalities: tuple[Inequality, ...] = ()
    equations: tuple[Equation, ...] = ()
    is_exact: bool = True

    @property
    def parameters(self) -> int:
        """Number of parameters k."""
        return len(self.lower)

    def pull(self, row: Vector, constant: Fraction) -> tuple[Vector, Fraction]:
        """``row · z + constant`` as an exact row over t and a constant."""
        if self.columns is None:
            return row, constant
        pulled = vector(row.dot(column) for column in self.columns)
        return pulled, row.dot_plus(self.center, constant)

    def at(self, parameters: Vector) -> Vector:
        """The exact embedding of exact parameters."""
        if self.columns is None:
            return parameters
        terms = zip(parameters.fractions(), self.columns, strict=True)
        return combination([(Fraction(1), self.center), *terms])

    def admits(self, parameters: Vector) -> bool:
        """Whether exact parameters satisfy all constraints."""
        triples = zip(
            self.lower.fractions(), parameters.fractions(), self.upper.fractions(), strict=True
        )
        return (
            all(low <= value <= high for low, value, high in triples)
            and all(part.row.dot(parameters) <= part.bound for part in self.inequalities)
            and all(part.row.dot(parameters) == part.value for part in self.equations)
        )


def linear_constraints(
    region: ConvexRegion, side: Side = Side.OUTER, rows: Sequence[Vector] = ()
) -> LinearConstraints:
    """The region as linear constraints; for a ball, from outside or from inside.

    Args:
        region: any region.
        side: which description of a ball.
        rows: rows [n] over embeddings, of which the description of a ball is to know the maximum:
            it is off there by about 2**-20 of the radius. A row that a proof or a search is
            about, and its negative, belong here. Regions that are no balls need none.
    """
    if isinstance(region, Box):
        return LinearConstraints(zeros(region.dimension), None, region.lower, region.upper)
    columns = tuple(column.scaled(region.scale) for column in region.columns)
    if region.shape is Shape.BALL:
        directions = [_direction(region, row) for row in rows]
        chosen = [found for found in directions if any(found.numerators)]
        if side is Side.INNER:
            return _inner(region, columns, chosen)
        tangents = tuple(tangent(found) for found in chosen)
        return LinearConstraints(region.center, columns, *_cube(region), tangents, is_exact=False)
    if region.shape is Shape.CUBE:
        return LinearConstraints(region.center, columns, *_cube(region))
    return LinearConstraints(region.center, columns, *_weights(region.parameters))


def tangent(direction: Vector) -> Inequality:
    """A half-space that contains the unit ball, and touches it nearly where the direction does.

    ``u·t ≤ ‖u‖ ≤ r`` for ``‖t‖ ≤ 1``, with u the direction in integers and r a whole number.

    Raises:
        ValueError: the direction is zero.
    """
    short = _shortened(direction)
    square = sum(value * value for value in short)
    root = isqrt(square)
    return Inequality(Vector(short), Fraction(root if root * root == square else root + 1))


def _shortened(direction: Vector) -> tuple[int, ...]:
    """Integers of about `FINE` bits with nearly the same ratios."""
    largest = max(map(abs, direction.numerators), default=0)
    if not largest:
        raise ValueError("a tangent needs a direction other than zero")
    short = ((value << (FINE + 1)) // largest for value in direction.numerators)
    return tuple((value + 1) >> 1 for value in short)  # rounded to the nearest


def _direction(region: Image, row: Vector) -> Vector:
    """The row over the parameters, up to a positive factor."""
    return vector(row.dot(column) for column in region.columns)


def _cube(region: Image) -> tuple[Vector, Vector]:
    """Bounds −1 and 1 of the parameters."""
    ones = (1,) * region.parameters
    return Vector(tuple(-one for one in ones)), Vector(ones)


def _weights(count: int) -> tuple[Vector, Vector, tuple[Inequality, ...], tuple[Equation, ...]]:
    """Bounds and equation of the weights of a convex combination."""
    ones = Vector((1,) * count)
    return zeros(count), ones, (), (Equation(ones, Fraction(1)),)


def _inner(
    region: Image, columns: Sequence[Vector], directions: Sequence[Vector]
) -> LinearConstraints:
    """The hull of the ends of the axes and of the ball's points in the directions."""
    found = [column.scaled(sign) for column in columns for sign in (1, -1)]
    for direction in directions:
        short = _shortened(direction)
        root = isqrt(sum(value * value for value in short))
        exact = root * root == sum(value * value for value in short)
        length = root if exact else root + 1  # so that the point is in the ball
        terms = [
            (Fraction(value, length), column)
            for value, column in zip(short, columns, strict=True)
            if value
        ]
        found.append(combination(terms))
    weights = _weights(len(found))
    return LinearConstraints(region.center, tuple(found), *weights, is_exact=False)
