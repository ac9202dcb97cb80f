"""Half-spaces that a ``has`` literal implies, and some that imply it.

``has(a)`` says ``s(z) > τ·‖e(z)‖`` with the concept's score s, its threshold τ and the mapped
embedding ``e(z) = A z + d``. In one direction the condition is convex, and the tangent
``u·e ≤ ‖e‖`` for any ``‖u‖ ≤ 1`` gives a half-space that it implies. In the other it is not;
there the norm is bounded from above. On a region around ``m = e(center)``

    ‖e‖² ≤ q(e) = 2 m·e − ‖m‖² + max ‖e − m‖²   and   ‖e‖ ≤ √q ≤ (q + N²) / 2N   for any N > 0,

which is a half-space for each N; together they say ``‖e‖ ≤ √q``.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from typing import assert_never

import numpy as np

from conspec.encodings.exact import Vector, combination, nearest_root
from conspec.encodings.images import Image, Shape
from conspec.encodings.regions import Box, ConvexRegion
from conspec.encodings.rounding import TINY, UNIT, Floats, gamma
from conspec.encodings.scores import ScoreSpace
from conspec.specs.rewrite import Cone

Cut = tuple[Vector, Fraction, bool]
"""A row over z, a constant, and whether ``row · z + constant > 0`` is strict."""

BITS = 56
"""Bits of a tangent's direction."""


@dataclass(frozen=True, eq=False)
class SquareBound:
    """``‖e(z)‖² ≤ factors · e(z) + constant`` on a region.

    Attributes:
        factors: one per entry of the mapped embedding.
        constant: exact.
        shares: per parameter of the region, what it adds to the bound's looseness [k].
    """

    factors: tuple[Fraction, ...]
    constant: Fraction
    shares: Floats

    def root_at(self, mapped: list[Fraction]) -> Fraction:
        """The N whose half-space is tightest at a mapped embedding: ``√q``, rounded.

        Exact where the root is rational; 0 stands for a norm that is 0 on the whole region.
        """
        pairs = zip(self.factors, mapped, strict=True)
        square = sum((factor * value for factor, value in pairs), self.constant)
        if square > 0:
            return exact_root(square) or Fraction(nearest_root(square)) or Fraction(TINY)
        return Fraction(1 if any(self.factors) or self.constant else 0)


def is_convex(space: ScoreSpace, literal: Cone) -> bool:
    """Whether the literal holds on a convex set, so that tangents describe it fully."""
    return literal.holds == (space.threshold(literal.concept) >= 0)


def tangent_cut(space: ScoreSpace, literal: Cone, direction: tuple[Fraction, ...]) -> Cut:
    """The half-space ``±(s − τ u·e)`` for a vector ``‖u‖ ≤ 1``.

    A convex literal implies it, and one that is not convex is implied by it.
    """
    return _with_norm(space, literal, direction, Fraction(0))


def secant_cut(space: ScoreSpace, literal: Cone, bound: SquareBound, root: Fraction) -> Cut:
    """The half-space that a literal that is not convex implies on the bound's region."""
    if not root:  # the norm is 0 on the region
        return _with_norm(space, literal, (Fraction(0),) * len(bound.factors), Fraction(0))
    factors = tuple(factor / (2 * root) for factor in bound.factors)
    return _with_norm(space, literal, factors, (bound.constant + root * root) / (2 * root))


def direction_at(mapped: list[Fraction]) -> tuple[Fraction, ...]:
    """A rational vector of length at most 1 along a mapped embedding; of length 1 if it can be."""
    square = sum((value * value for value in mapped), Fraction(0))
    if not square:
        return tuple(mapped)
    if (length := exact_root(square)) is not None:
        return tuple(value / length for value in mapped)
    # Rounding the length up and the entries towards zero cannot make it longer than 1.
    above = _root_above(square)
    return tuple(Fraction(int(value / above * 2**BITS), 2**BITS) for value in mapped)


def exact_root(square: Fraction) -> Fraction | None:
    """The root of a non-negative rational, if that is rational."""
    top, bottom = isqrt(square.numerator), isqrt(square.denominator)
    if top * top == square.numerator and bottom * bottom == square.denominator:
        return Fraction(top, bottom)
    return None


def _root_above(square: Fraction) -> Fraction:
    """A rational slightly above the root of a positive one."""
    spare = max(0, 2 * (BITS + 8) + square.denominator.bit_length() - square.numerator.bit_length())
    half = spare // 2 + 1
    top = (square.numerator << (2 * half)) // square.denominator
    return Fraction(isqrt(top) + 1, 1 << half)


def _with_norm(
    space: ScoreSpace, literal: Cone, factors: tuple[Fraction, ...], constant: Fraction
) -> Cut:
    """``±(s − τ (factors·e + constant))``, with the sign and strictness of the literal."""
    threshold = space.threshold(literal.concept)
    score, total = space.concept_row(literal.concept)
    terms = [(Fraction(1), score)]
    for j, factor in enumerate(factors):
        if factor and threshold:
            row, bias = space.aligned.row(j)
            terms.append((-threshold * factor, row))
            constant += factor * bias
    total -= threshold * constant
    row = combination(terms)
    return (row, total, True) if literal.holds else (row.scaled(-1), -total, False)


def square_bound(space: ScoreSpace, region: ConvexRegion) -> SquareBound | None:
    """An affine bound of the squared norm on a region; None where float64 overflows."""
    if isinstance(region, Image) and region.shape is Shape.SIMPLEX:
        return _of_vertices(space, region)
    spread, shares = _spread(space, region)
    if spread is None:
        return None
    middle = space.aligned.exact(region.center)
    constant = spread - sum((value * value for value in middle), Fraction(0))
    return SquareBound(tuple(2 * value for value in middle), constant, shares)


def _of_vertices(space: ScoreSpace, region: Image) -> SquareBound:
    """The bound of a hull: a convex function is largest at a vertex."""
    scale = (Fraction(1), region.center)
    vertices = [combination([scale, (region.scale, column)]) for column in region.columns]
    mapped = [space.aligned.exact(vertex) for vertex in vertices]
    middle = [(min(column) + max(column)) / 2 for column in zip(*mapped, strict=True)]
    spread = max(
        sum(((v - m) ** 2 for v, m in zip(row, middle, strict=True)), Fraction(0)) for row in mapped
    )
    constant = spread - sum((value * value for value in middle), Fraction(0))
    factors = tuple(2 * value for value in middle)
    return SquareBound(factors, constant, np.zeros(region.parameters))


def _spread(space: ScoreSpace, region: ConvexRegion) -> tuple[Fraction | None, Floats]:
    """A bound of ``‖e(z) − e(center)‖²`` on an image of a cube or ball, and the shares in it.

    With ``e − m = G t`` it is ``tᵀ GᵀG t``: at most the sum of all ``|GᵀG|`` over a cube, and over
    a ball the largest sum of a row (Gershgorin) or the trace, whichever is smaller.
    """
    columns, off = _mapped_generators(space, region)
    count = columns.shape[1]
    if not columns.any() and not off.any():
        return Fraction(0), np.zeros(count)
    sizes = np.abs(columns)
    with np.errstate(over="ignore", invalid="ignore"):
        cross = off.T @ (sizes + off)
        error = gamma(len(columns) + 8) * (sizes.T @ sizes) + cross + cross.T
        gram = np.abs(columns.T @ columns) + error * (1.0 + gamma(4 * len(columns) + 16))
        gram += (4 * len(columns) + 8) * TINY
        shares = gram.sum(axis=1)
        match region.shape:
            case Shape.CUBE:
                largest = float(shares.sum())
            case Shape.BALL:
                largest = min(float(shares.max()), float(np.trace(gram)))
            case Shape.SIMPLEX:
                raise ValueError("a simplex has no centre to measure the spread from")
            case _:
                assert_never(region.shape)
        largest = float(np.nextafter(largest * (1.0 + gamma(2 * count + 16)), np.inf))
    return (Fraction(largest) if np.isfinite(largest) else None), shares


def _mapped_generators(space: ScoreSpace, region: ConvexRegion) -> tuple[Floats, Floats]:
    """``A · generators`` [p, k] in float64, and how far each entry may be off."""
    weight, _ = space.aligned.floats
    if isinstance(region, Box):
        radius = region.radius.floats()
        columns = weight * radius
        exact = space.aligned.weight  # what is not zero may round to zero
        used = (exact != 0) & np.array([top != 0 for top in region.radius.numerators])
        slack = TINY * (1.0 + np.abs(weight) + radius)
        return columns, np.where(used, 4 * UNIT * np.abs(columns) + slack, 0.0)
    zeros = np.zeros(len(weight))
    if not region.scale:
        return np.zeros((len(weight), region.parameters)), np.zeros((1, region.parameters))
    errors = (np.abs(weight) * UNIT + TINY, zeros)
    pulled, _, (off, _) = region.pull_floats(weight, zeros, errors)
    return pulled, off
