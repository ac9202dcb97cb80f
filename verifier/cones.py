"""Half-spaces that a ``has`` literal implies.

``has(a)`` says ``s(z) > τ·‖e(z)‖`` with the concept's score s, its threshold τ and the mapped
embedding ``e(z) = A z + d``. In one direction the condition is convex, and the tangent
``u·e ≤ ‖e‖`` for any ``‖u‖ ≤ 1`` gives a half-space that it implies. In the other it is not;
there the norm is bounded from above by a function that is affine in z, valid on the region:

    ‖e‖ ≤ (‖e‖² + N²) / 2N   and   e_j² ≤ (l_j + u_j) e_j − l_j u_j   for e_j in [l_j, u_j].
"""

from fractions import Fraction
from math import isqrt

import numpy as np

from conspec.encodings.exact import Vector, combination
from conspec.encodings.regions import ConvexRegion
from conspec.encodings.rounding import Floats
from conspec.encodings.scores import ScoreSpace
from conspec.specs.rewrite import Cone

Cut = tuple[Vector, Fraction, bool]
"""A row over z, a constant, and whether ``row · z + constant > 0`` is strict."""


def is_convex(space: ScoreSpace, literal: Cone) -> bool:
    """Whether the literal holds on a convex set, so that tangents describe it fully."""
    return literal.holds == (space.threshold(literal.concept) >= 0)


def tangent_cut(space: ScoreSpace, literal: Cone, direction: tuple[Fraction, ...]) -> Cut:
    """The half-space ``±(s − τ u·e)`` that a convex literal implies, for a vector ``‖u‖ ≤ 1``."""
    threshold = space.threshold(literal.concept)
    rows = [space.aligned.row(j) for j in range(space.aligned.outputs)]
    terms = [(-threshold * u, row) for u, (row, _) in zip(direction, rows, strict=True) if u]
    shift = sum((u * bias for u, (_, bias) in zip(direction, rows, strict=True)), Fraction(0))
    return _signed(space, literal, terms, -threshold * shift)


def secant_cut(space: ScoreSpace, literal: Cone, region: ConvexRegion) -> Cut:
    """The half-space that a literal that is not convex implies on the region's bounding box."""
    threshold = space.threshold(literal.concept)
    ranges = [_range(region, *space.aligned.row(j)) for j in range(space.aligned.outputs)]
    size = _root_above(sum((max(low * low, high * high) for low, high in ranges), Fraction(0)))
    if not size:
        return _signed(space, literal, [], Fraction(0))
    terms = []
    constant = size / 2
    for j, (low, high) in enumerate(ranges):
        row, bias = space.aligned.row(j)
        factor = (low + high) / (2 * size)
        constant += factor * bias - low * high / (2 * size)
        if factor:
            terms.append((-threshold * factor, row))
    return _signed(space, literal, terms, -threshold * constant)


def direction_at(space: ScoreSpace, point: Floats) -> tuple[Fraction, ...]:
    """A rational vector of length at most 1 along the mapped embedding of a point [n]."""
    weight, bias = space.aligned.floats
    mapped = weight @ point + bias
    length = float(np.linalg.norm(mapped))
    if not length or not np.isfinite(length):
        return tuple(Fraction(0) for _ in mapped)
    # A little shorter than 1, so that rounding the entries cannot make it longer than 1.
    unit = mapped / length * (1.0 - 2.0**-16)
    return tuple(Fraction(round(float(value) * 2**24), 2**24) for value in unit)


def _signed(
    space: ScoreSpace, literal: Cone, terms: list[tuple[Fraction, Vector]], constant: Fraction
) -> Cut:
    """``±(score + Σ terms + constant)``, with the sign and strictness of the literal."""
    row, bias = space.concept_row(literal.concept)
    total = combination([(Fraction(1), row), *terms])
    if literal.holds:
        return total, constant + bias, True
    return total.scaled(-1), -(constant + bias), False


def _range(region: ConvexRegion, row: Vector, bias: Fraction) -> tuple[Fraction, Fraction]:
    """Bounds of one coordinate of the mapped embedding over the region, rounded outward."""
    return region.lowest(row) + bias, region.support(row) + bias


def _root_above(square: Fraction) -> Fraction:
    """A rational at or slightly above the square root."""
    bits = 64
    top = (square.numerator << (2 * bits)) // square.denominator + 1
    return Fraction(isqrt(top) + 1, 1 << bits)
