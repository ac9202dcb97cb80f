"""Solutions of linear equations enclosed by float64 with rigorous error bounds, and refined.

An approximate inverse R of a matrix M with ``‖I − R·M‖ < 1`` shows that M is regular, and bounds
how far any approximate solution is from the exact one. Residuals are computed in rationals, so
refinement gains digits without end, and short rational solutions are found exactly.

Sources: Rump, Verification methods, Acta Numerica 2010, section 10; Ursic and Patarra, Exact
solution of systems of linear equations with iterative methods, SIAM J. Alg. Disc. Meth. 1983.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from operator import mul

import numpy as np

from conspec.encodings.exact import Vector, combination, from_array, vector, zeros
from conspec.encodings.images import Shape
from conspec.encodings.rounding import TINY, Floats, gamma

REFINEMENTS = 8
"""Steps of refinement at least; each gains a bit or more, and usually forty."""
MOST_REFINEMENTS = 256
"""Steps at most: with 64 parameters enough for any solution to be found exactly."""
REFINED_WORK = 2**20
"""Entries of the matrix times steps, between these limits."""
LARGEST = 1e200
"""Inverses with larger entries are left to exact arithmetic, before they overflow."""


@dataclass(frozen=True, slots=True)
class _Enclosure:
    """A solution known up to an error: ``|exact_j − middle_j| ≤ errors_j``."""

    middle: Vector
    errors: Vector


def judged(shape: Shape, matrix: Floats, goal: Vector) -> bool | None:
    """Whether the one solution of independent columns lies in T; None if float64 can't tell.

    For a simplex the equations must say that the sum is 1.
    """
    for step, found in enumerate(_enclosures(matrix, goal), start=1):
        if _misses(matrix, goal, found):
            return False
        inside = _settled(shape, found)
        if inside is False or (inside and matrix.shape[0] == matrix.shape[1]):
            return inside
        if step & (step - 1) == 0:  # at 1, 2, 4, … steps
            exact = _simplest(found)
            columns = [from_array(column) for column in matrix.T]
            if is_zero(residual(columns, exact, goal)):
                return _settled(shape, _Enclosure(exact, zeros(len(exact))))
    return None


def _simplest(found: _Enclosure) -> Vector:
    """Short rationals in the enclosure: the solution itself, once the errors are small enough.

    A rational p/q is the only one of denominator at most q within 1/(2q²) of itself.
    """
    entries = zip(found.middle.fractions(), found.errors.fractions(), strict=True)
    return vector(
        middle.limit_denominator(max(1, isqrt(int(1 / (2 * error))))) if error else middle
        for middle, error in entries
    )


def _enclosures(matrix: Floats, goal: Vector) -> Iterator[_Enclosure]:
    """Ever tighter enclosures of the solution of as many of the equations as unknowns.

    None at all if float64 cannot tell that those equations are independent.
    """
    from scipy.linalg import qr

    exponents = np.frexp(np.abs(matrix).max(axis=0))[1]
    scaled = np.ldexp(matrix, -exponents)  # columns of size 1; off by at most TINY
    if not np.array_equal(np.ldexp(scaled, exponents), matrix):
        return
    rows = np.sort(qr(scaled.T, pivoting=True, mode="r")[1][: matrix.shape[1]])
    inverse, contraction = _inverse(scaled[rows])
    if not contraction < 0.5 or np.abs(inverse).max() > LARGEST:
        return
    sides = [Fraction(2) ** -int(exponent) for exponent in exponents]
    columns = [from_array(column) for column in scaled[rows].T]
    wanted = Vector(tuple(goal.numerators[row] for row in rows), goal.denominator)
    middle, rest = zeros(len(columns)), wanted
    for _ in range(min(MOST_REFINEMENTS, max(REFINEMENTS, REFINED_WORK // len(columns) ** 2))):
        step, _ = _solved(inverse, contraction, rest)
        middle = middle.plus(step)
        rest = residual(columns, step, rest)
        _, error = _solved(inverse, contraction, rest)
        terms = zip(middle.fractions(), sides, strict=True)
        yield _Enclosure(
            vector(value * side for value, side in terms), vector(error * side for side in sides)
        )
        if not error:
            return


def _inverse(square: Floats) -> tuple[Floats, float]:
    """An approximate inverse R of a matrix M, and a bound of ``‖I − R·M‖∞``; inf if too large."""
    size = len(square)
    try:
        inverse: Floats = np.asarray(np.linalg.inv(square), dtype=np.float64)
    except np.linalg.LinAlgError:
        return np.zeros_like(square), np.inf
    with np.errstate(over="ignore", invalid="ignore"):
        gap = np.abs(np.eye(size) - inverse @ square)
        reach = np.abs(inverse) @ np.abs(square) + np.eye(size)
        total = (gap + gamma(2 * size + 8) * reach).sum(axis=1).max() + size * size * TINY
    return inverse, float(total) * (1.0 + gamma(2 * size + 8))


def _solved(inverse: Floats, contraction: float, right: Vector) -> tuple[Vector, Fraction]:
    """``R · right`` in float64, and a bound of the largest entry of the exact solution.

    ``‖M⁻¹·b‖∞ ≤ ‖R·b‖∞ / (1 − ‖I − R·M‖∞)``.
    """
    largest = max(map(abs, right.numerators))
    if not largest:
        return right, Fraction(0)
    # Scaled by a power of two, so that nothing is lost below the normal numbers.
    unit = Fraction(2) ** (largest.bit_length() - right.denominator.bit_length())
    near = right.scaled(1 / unit).floats()
    found = inverse @ near
    size = len(near)
    error = gamma(size + 4) * (np.abs(inverse) @ np.abs(near)) + size * TINY * (
        1.0 + np.abs(inverse).max()
    )
    bound = float((np.abs(found) + error).max()) / (1.0 - contraction)
    return from_array(found).scaled(unit), Fraction(bound * (1.0 + gamma(size + 8))) * unit


def _settled(shape: Shape, found: _Enclosure) -> bool | None:
    """Whether all, or none, of the enclosed parameters lie in T (for a simplex: have no sign)."""
    bottom = found.middle.denominator * found.errors.denominator
    sizes = [abs(value) * found.errors.denominator for value in found.middle.numerators]
    errors = [value * found.middle.denominator for value in found.errors.numerators]
    if shape is Shape.SIMPLEX:
        middles = [value * found.errors.denominator for value in found.middle.numerators]
        return _between(
            all(m >= e for m, e in zip(middles, errors, strict=True)),
            any(m < -e for m, e in zip(middles, errors, strict=True)),
        )
    most = [size + error for size, error in zip(sizes, errors, strict=True)]
    least = [max(0, size - error) for size, error in zip(sizes, errors, strict=True)]
    if shape is Shape.CUBE:
        return _between(max(most) <= bottom, max(least) > bottom)
    return _between(sum(map(mul, most, most)) <= bottom**2, sum(map(mul, least, least)) > bottom**2)


def _between(surely: bool, never: bool) -> bool | None:
    """True, False or neither."""
    return True if surely else False if never else None


def _misses(matrix: Floats, goal: Vector, found: _Enclosure) -> bool:
    """Whether some equation fails for all enclosed parameters."""
    if matrix.shape[0] == matrix.shape[1]:
        return False
    for row, value in zip(matrix, goal.fractions(), strict=True):
        entries = from_array(row)
        sizes = Vector(tuple(map(abs, entries.numerators)), entries.denominator)
        if abs(value - entries.dot(found.middle)) > sizes.dot(found.errors):
            return True
    return False


def residual(columns: Sequence[Vector], parameters: Vector, goal: Vector) -> Vector:
    """``goal − Σ t_j column_j``, exactly."""
    terms = [
        (Fraction(-top, parameters.denominator), column)
        for top, column in zip(parameters.numerators, columns, strict=True)
        if top
    ]
    return combination([(Fraction(1), goal), *terms])


def is_zero(values: Vector) -> bool:
    """Whether all entries are 0."""
    return not any(values.numerators)
