"""What the checker knows of the norm ``‖e(z)‖`` of the mapped embedding on a region."""

from fractions import Fraction
from functools import lru_cache
from operator import mul

from conspec.verifier.checker_files import Bundle, Refused, Row, dot, fractions_row, weighted
from conspec.verifier.checker_regions import Region

Affine = tuple[list[Fraction], Fraction]
"""Factors of the mapped embedding's entries, and a constant."""


def norm_bound(region: Region, bundle: Bundle, root: Fraction) -> Affine:
    """An upper bound of the norm that is affine in e: ``‖e‖ ≤ √q(e) ≤ (q(e) + N²) / 2N``.

    N is any positive number; with N = 0 the norm must be 0 on the whole region.
    """
    factors, constant = _square(region, bundle)
    if root > 0:
        return [value / (2 * root) for value in factors], (constant + root * root) / (2 * root)
    if root < 0 or any(factors) or constant:
        raise Refused("the norm of a lemma's upper bound is not positive")
    return factors, constant


@lru_cache(maxsize=16)
def _square(region: Region, bundle: Bundle) -> Affine:
    """``‖e‖² ≤ q(e) = 2 m·e − ‖m‖² + spread``, where ``spread ≥ ‖e − m‖²`` on the region."""
    if not isinstance(region.generators, tuple) and region.shape == "simplex":
        rows = [_mapped(_sum(region.center, column), bundle) for column in region.generators]
        middle = [(min(column) + max(column)) / 2 for column in zip(*rows, strict=True)]
        spread = max(sum((v - m) ** 2 for v, m in zip(row, middle, strict=True)) for row in rows)
    else:
        middle, spread = _mapped(region.center, bundle), _spread(region, bundle)
    return [2 * value for value in middle], Fraction(spread - sum(m * m for m in middle))


def _sum(first: Row, second: Row) -> Row:
    return weighted([(Fraction(1), first), (Fraction(1), second)], len(first[0]))


def _mapped(point: Row, bundle: Bundle) -> list[Fraction]:
    """The mapped embedding of a point."""
    return [dot(row, point) + bias for row, bias in bundle.alignment]


def _spread(region: Region, bundle: Bundle) -> Fraction:
    """An upper bound of ``tᵀ GᵀG t`` for t in a cube or ball, with ``e − m = G t``.

    Over a cube it is at most the sum of all ``|GᵀG|``; over a ball its norm, which is at most
    the largest sum of a row, and at most the trace.
    """
    if isinstance(region.generators, tuple):  # a box: G is A times the half-widths
        wide, one = region.generators
        gram, two = _gram(bundle)
        rows = (top * sum(map(mul, row, wide)) for top, row in zip(wide, gram, strict=True))
        return Fraction(sum(rows), one * one * two)
    columns = [
        fractions_row([dot(row, generator) for row, _ in bundle.alignment])
        for generator in region.generators
    ]
    sizes = [[abs(dot(first, second)) for second in columns] for first in columns]
    sums = [sum(row) for row in sizes]
    if region.shape == "cube":
        return Fraction(sum(sums))
    return Fraction(min(max(sums), sum(row[place] for place, row in enumerate(sizes))))


@lru_cache(maxsize=2)
def _gram(bundle: Bundle) -> tuple[list[list[int]], int]:
    """``|AᵀA|`` of the alignment's weights, as integers over a common denominator."""
    one = max(bottom for (_, bottom), _ in bundle.alignment)  # powers of two
    rows = [[top * (one // bottom) for top in tops] for (tops, bottom), _ in bundle.alignment]
    columns = list(zip(*rows, strict=True))
    gram = [[abs(sum(map(mul, first, second))) for second in columns] for first in columns]
    return gram, one * one
