"""Regions that are affine images of a simple set: ``{ c + s·G·t : t in T }``.

T is a cube (zonotope, PCA box), a Euclidean ball (ellipsoid, L2 ball) or a simplex (hull). In the
parameters t all of them have a support function in closed form, and a point given by its
parameters is in the region by construction, exactly.
"""

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from functools import cached_property
from math import isqrt
from operator import mul

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.exact import Vector, combination, from_array, vector
from conspec.encodings.rounding import TINY, Bools, Floats, gamma
from conspec.specs.errors import BadRegion

NEAR = 1e-9
"""Parameters this near to the border of T are decided in exact arithmetic."""


class Shape(Enum):
    """The simple sets."""

    CUBE = "cube"
    """``|t_j| ≤ 1``."""
    BALL = "ball"
    """``Σ t_j² ≤ 1``."""
    SIMPLEX = "simplex"
    """``t_j ≥ 0``, ``Σ t_j = 1``."""


def shape_maximum(shape: Shape, direction: Vector) -> tuple[Fraction, bool]:
    """The maximum of ``direction · t`` over T, rounded up only if it is a square root.

    Returns:
        The maximum, and whether it is exact.
    """
    tops, bottom = direction.numerators, direction.denominator
    match shape:
        case Shape.CUBE:
            return Fraction(sum(map(abs, tops)), bottom), True
        case Shape.SIMPLEX:
            return Fraction(max(tops), bottom), True
        case Shape.BALL:
            square = sum(map(mul, tops, tops)) << 128  # 64 more bits of the root
            root = isqrt(square)
            exact = root * root == square
            return Fraction(root if exact else root + 1, bottom << 64), exact


def shape_bounds(shape: Shape, rows: Floats, errors: Floats) -> tuple[Floats, Floats]:
    """Rigorous bounds [A] of ``row · t`` over T for rows [A, k] known up to ``errors`` [A, k]."""
    length = rows.shape[1]
    if shape is Shape.SIMPLEX:
        low, high = np.nextafter(rows - errors, -np.inf), np.nextafter(rows + errors, np.inf)
        return low.min(axis=1), high.max(axis=1)
    sizes = np.abs(rows) + errors
    with np.errstate(over="ignore", invalid="ignore"):
        reach = sizes.sum(axis=1)
        if shape is Shape.BALL:
            reach = np.minimum(np.sqrt((sizes * sizes).sum(axis=1)), reach)
        reach = reach * (1.0 + gamma(2 * length + 16)) + length * TINY
        # Squares below 1e-308 vanish, so the root is off by at most sqrt(length · 1e-308).
        if shape is Shape.BALL:
            reach = reach + np.sqrt(length * TINY)
    reach = np.where(np.isfinite(reach), reach, np.inf)
    return -reach, reach


@dataclass(frozen=True, eq=False)
class Image:
    """``{ center + scale · generators · t : t in T }``, exact.

    Attributes:
        center: [n].
        generators: float64 [n, k], as stored.
        scale: a non-negative rational.
        shape: the set T of the parameters.
    """

    center: Vector
    generators: Floats
    scale: Fraction
    shape: Shape

    def __post_init__(self) -> None:
        """Refuse generators of another length than the centre."""
        if self.generators.ndim != 2 or self.generators.shape[0] != len(self.center):
            raise BadRegion(
                f"generators of shape {self.generators.shape} for {len(self.center)} dimensions"
            )
        if self.generators.shape[1] == 0:
            raise BadRegion("a region needs at least one generator or sample")

    @property
    def dimension(self) -> int:
        """Number of dimensions n."""
        return len(self.center)

    @property
    def parameters(self) -> int:
        """Number of parameters k."""
        return int(self.generators.shape[1])

    @property
    def is_empty(self) -> bool:
        """Never: the centre, or a sample, is inside."""
        return False

    @cached_property
    def columns(self) -> list[Vector]:
        """The generators as exact vectors of length n."""
        return [from_array(column) for column in self.generators.T]

    def pull(self, row: Vector, constant: Fraction) -> tuple[Vector, Fraction]:
        """``row · z + constant`` as an exact row over t and a constant."""
        values = [row.dot(column) * self.scale for column in self.columns]
        return vector(values), constant + row.dot(self.center)

    def support(self, row: Vector) -> Fraction:
        """The maximum of ``row · z``, exact or rounded up (for a square root)."""
        pulled, constant = self.pull(row, Fraction(0))
        return constant + shape_maximum(self.shape, pulled)[0]

    def lowest(self, row: Vector) -> Fraction:
        """The minimum of ``row · z``, exact or rounded down."""
        return -self.support(row.scaled(-1))

    def pull_rough(self, rows: Floats, constants: Floats) -> tuple[Floats, Floats]:
        """The same for float64 rows [A, n] and constants [A], without an error bound."""
        pulled: Floats = rows @ self.generators * float(self.scale)
        return pulled, constants + rows @ self.center.floats()

    def pull_floats(
        self, rows: Floats, constants: Floats, errors: tuple[Floats, Floats]
    ) -> tuple[Floats, Floats, tuple[Floats, Floats]]:
        """Float64 rows [A, n] and constants [A] over z, as rows [A, k] and constants over t.

        Errors are bounds of the distance from the exact ones, in and out.
        """
        center, scale = self.center.floats(), float(self.scale)
        length = self.dimension + 8
        with np.errstate(over="ignore", invalid="ignore"):
            pulled = rows @ self.generators * scale
            sizes = (np.abs(rows) + errors[0]) @ np.abs(self.generators) * scale
            off = errors[0] @ np.abs(self.generators) * scale + gamma(length) * sizes
            # A scale or centre below the normal numbers is off by up to TINY, times the row.
            reach = (np.abs(rows) + errors[0]).sum(axis=1, keepdims=True)
            off = off + TINY * reach * (1.0 + np.abs(self.generators).max())
            moved = constants + rows @ center
            tiny = TINY * reach
            reach = (np.abs(rows) + errors[0]) @ np.abs(center) + np.abs(constants)
            shift = errors[0] @ np.abs(center) + errors[1] + gamma(length) * reach + tiny[:, 0]
            wider = 1.0 + gamma(2 * length)
            # Products that vanish are off by up to TINY before they are scaled.
            off = off * wider + length * TINY * (1.0 + scale)
        return pulled, moved, (off, shift * wider + length * TINY)

    def bounds(
        self, rows: Floats, constants: Floats, errors: tuple[Floats, Floats]
    ) -> tuple[Floats, Floats]:
        """Rigorous bounds [A] of rows over the region; infinite where arithmetic overflows."""
        pulled, moved, (off, shift) = self.pull_floats(rows, constants, errors)
        low, high = shape_bounds(self.shape, pulled, off)
        with np.errstate(over="ignore", invalid="ignore"):
            low = np.nextafter(np.nextafter(moved - shift, -np.inf) + low, -np.inf)
            high = np.nextafter(np.nextafter(moved + shift, np.inf) + high, np.inf)
        return np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)

    @cached_property
    def outer(self) -> tuple[Floats, Floats]:
        """Float64 bounds [n], [n] of a box that contains the region."""
        zeros = np.zeros(self.dimension)
        unit = np.eye(self.dimension)
        return self.bounds(unit, zeros, (np.zeros_like(unit), zeros))

    def at(self, parameters: Vector) -> Vector:
        """The exact point of exact parameters."""
        terms = [
            (Fraction(top, parameters.denominator) * self.scale, column)
            for top, column in zip(parameters.numerators, self.columns, strict=True)
            if top
        ]
        return combination([(Fraction(1), self.center), *terms])

    def into(self, parameters: Floats) -> Vector:
        """Exact parameters in T next to float64 ones [k]."""
        return into_shape(self.shape, parameters)

    def maximisers(self, rows: Floats) -> Floats:
        """Parameters [A, k] that maximise rows [A, k] over T, in float64."""
        if self.shape is Shape.CUBE:
            return np.where(rows > 0, 1.0, -1.0)
        if self.shape is Shape.SIMPLEX:
            vertices: Floats = np.eye(self.parameters)[np.argmax(rows, axis=1)]
            return vertices
        unit: Floats = rows / np.maximum(norms(rows), TINY)[:, None]
        return unit

    def points(self, parameters: Floats) -> Floats:
        """Float64 points [N, n] of parameters [N, k], without an error bound."""
        return self.center.floats() + float(self.scale) * (parameters @ self.generators.T)

    def parameters_of(self, points: Floats) -> tuple[Floats, Floats]:
        """Least-squares parameters [N, k] of points [N, n] and the residuals' norms [N].

        Raises:
            BadRegion: the region is a hull, whose parameters are not determined.
        """
        if self.shape is Shape.SIMPLEX:
            raise BadRegion("the parameters of a point in a hull are not unique")
        matrix = self.generators * float(self.scale)
        offsets = points - self.center.floats()
        solution: Floats = np.asarray(np.linalg.lstsq(matrix, offsets.T)[0].T, dtype=np.float64)
        return solution, norms(offsets - solution @ matrix.T)

    def members(self, points: NDArray[np.float32] | Floats) -> Bools:
        """Which points [N, n] lie in the region: bool [N], in float64 with tolerance ``NEAR``.

        Used for statistics only; what a proof or a counterexample needs is exact.
        """
        wide = points.astype(np.float64)
        if self.shape is Shape.SIMPLEX:
            return np.array([self._in_hull(point) for point in wide], dtype=bool)
        if self.scale == 0:
            inside: Bools = np.all(np.abs(wide - self.center.floats()) <= NEAR, axis=1)
            return inside
        found, residual = self.parameters_of(wide)
        if self.shape is Shape.CUBE and self.parameters > self.dimension:
            return np.array([self._in_cube(point) for point in wide], dtype=bool)
        size = norms(found) if self.shape is Shape.BALL else np.abs(found).max(axis=1)
        near: Bools = residual <= NEAR * (1.0 + np.abs(wide).max(axis=1))
        return near & (size <= 1.0 + NEAR)

    def contains(self, point: Vector) -> bool:
        """Whether an exact point lies in the region, border included; exactly.

        Raises:
            Undecided: the point is so near to the border of a region of hundreds of dimensions
                that only a very long computation could tell (``conspec.encodings.membership``).
        """
        from conspec.encodings.membership import image_contains  # which is built on this file

        return image_contains(self, point)

    def _in_hull(self, point: Floats) -> bool:
        """Whether a point is a convex combination of the samples (one LP)."""
        from scipy.optimize import linprog

        if np.any(np.all(point == self.generators.T, axis=1)):
            return True
        equations = np.vstack([self.generators, np.ones(self.parameters)])
        goal = np.append(point, 1.0)
        answer = linprog(np.zeros(self.parameters), A_eq=equations, b_eq=goal, method="highs")
        return bool(answer.status == 0)

    def _in_cube(self, point: Floats) -> bool:
        """Whether a point has parameters in the cube (one LP)."""
        from scipy.optimize import linprog

        matrix = self.generators * float(self.scale)
        answer = linprog(
            np.zeros(self.parameters),
            A_eq=matrix,
            b_eq=point - self.center.floats(),
            bounds=(-1.0, 1.0),
            method="highs",
        )
        return bool(answer.status == 0)

    def scaled(self, factor: Fraction) -> "Image":
        """The region scaled about its centre by a factor of 0 or more."""
        if factor < 0:
            raise BadRegion(f"a region scaled by {factor}; the factor must not be negative")
        return Image(self.center, self.generators, self.scale * factor, self.shape)

    def sample(self, count: int, seed: int) -> Floats:
        """Points [count, n] of parameters uniform in T."""
        generator = np.random.default_rng(seed)
        size = (count, self.parameters)
        if self.shape is Shape.CUBE:
            return self.points(generator.uniform(-1.0, 1.0, size))
        if self.shape is Shape.SIMPLEX:
            return self.points(generator.dirichlet(np.ones(self.parameters), count))
        directions = generator.normal(size=size)
        radii = generator.random((count, 1)) ** (1.0 / self.parameters)
        return self.points(directions / norms(directions)[:, None] * radii)


def in_shape(shape: Shape, parameters: Vector) -> bool:
    """Whether exact parameters lie in T."""
    tops, bottom = parameters.numerators, parameters.denominator
    match shape:
        case Shape.CUBE:
            return all(-bottom <= top <= bottom for top in tops)
        case Shape.BALL:
            return bool(sum(map(mul, tops, tops)) <= bottom**2)
        case Shape.SIMPLEX:
            return all(top >= 0 for top in tops) and sum(tops) == bottom


def norms(rows: Floats) -> Floats:
    """Euclidean norms [A] of rows [A, k]."""
    lengths: Floats = np.linalg.norm(rows, axis=1)
    return lengths


def into_shape(shape: Shape, parameters: Floats) -> Vector:
    """Exact parameters in T next to float64 ones [k]."""
    if shape is Shape.CUBE:
        if np.all(np.abs(parameters) == 1.0):  # a corner, the usual case
            return Vector(tuple(parameters.astype(np.int64).tolist()))
        return from_array(np.clip(parameters, -1.0, 1.0))
    exact = from_array(np.maximum(parameters, 0.0) if shape is Shape.SIMPLEX else parameters)
    if shape is Shape.SIMPLEX:
        total = sum(exact.numerators)
        if total <= 0:
            return Vector((1,) + (0,) * (len(exact) - 1))
        return Vector(exact.numerators, total)
    square = sum(map(mul, exact.numerators, exact.numerators))
    if square <= exact.denominator**2:
        return exact
    return Vector(exact.numerators, isqrt(square) + 1)
