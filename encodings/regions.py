"""Sets of embeddings, each known by its support function.

Every argument about a convex region R goes through ``support(d) = max { d·z : z in R }`` and a
point that attains it (DESIGN.md 4). A box has both in closed form, exactly.

Bounds are exact rationals: ``focus(c, γ)`` is ``μ ± γσ`` with the float64 moments of the bundle
and the decimal γ as written, cut to ``z ≥ 0`` where the encoder ends in a ReLU; nothing is
rounded when the region is made.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import lcm
from operator import mul

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.exact import Vector, combination, from_array, vector, zeros
from conspec.encodings.images import Image, Shape, into_shape, shape_maximum
from conspec.encodings.rounding import row_bounds
from conspec.lens.bundle import Lens
from conspec.lens.tables import LEADING
from conspec.specs import formula as f
from conspec.specs.errors import BadRegion
from conspec.specs.rewrite import Halfspace, negation_normal_form


@dataclass(frozen=True, eq=False)
class Box:
    """``{ z : lower ≤ z ≤ upper }``, both bounds over one common denominator."""

    lower: Vector
    upper: Vector

    def __post_init__(self) -> None:
        """Refuse bounds of different lengths or denominators."""
        if len(self.lower) != len(self.upper):
            raise BadRegion(
                f"a box with {len(self.lower)} lower and {len(self.upper)} upper bounds"
            )
        if self.lower.denominator != self.upper.denominator:
            raise BadRegion("the bounds of a box need one common denominator; use box()")

    @property
    def dimension(self) -> int:
        """Number of dimensions n."""
        return len(self.lower)

    @property
    def shape(self) -> Shape:
        """A box is the image ``c + r·t`` of a cube."""
        return Shape.CUBE

    @property
    def parameters(self) -> int:
        """Number of parameters t: one per dimension."""
        return self.dimension

    @cached_property
    def center(self) -> Vector:
        """The exact middle."""
        return self.lower.plus(self.upper).scaled(Fraction(1, 2))

    @cached_property
    def radius(self) -> Vector:
        """The exact half-widths."""
        return self.upper.plus(self.lower.scaled(-1)).scaled(Fraction(1, 2))

    @cached_property
    def _frame(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Middle and half-widths in float64."""
        return self.center.floats(), self.radius.floats()

    def pull(self, row: Vector, constant: Fraction) -> tuple[Vector, Fraction]:
        """``row · z + constant`` as an exact row over t and a constant."""
        tops = tuple(map(mul, row.numerators, self.radius.numerators))
        bottom = row.denominator * self.radius.denominator
        return Vector(tops, bottom), constant + row.dot(self.center)

    def support(self, row: Vector) -> Fraction:
        """The maximum of ``row · z``, exact or rounded up (for a square root)."""
        pulled, constant = self.pull(row, Fraction(0))
        return constant + shape_maximum(self.shape, pulled)[0]

    def lowest(self, row: Vector) -> Fraction:
        """The minimum of ``row · z``, exact or rounded down."""
        return -self.support(row.scaled(-1))

    @np.errstate(over="ignore", invalid="ignore")
    def pull_rough(
        self, rows: NDArray[np.float64], constants: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The same for float64 rows [A, n] and constants [A], without an error bound."""
        center, radius = self._frame
        return rows * radius, constants + rows @ center

    def into(self, parameters: NDArray[np.float64]) -> Vector:
        """Exact parameters in the cube next to float64 ones [n]."""
        return into_shape(self.shape, parameters)

    def maximisers(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Parameters [A, n] that maximise rows [A, n] over the cube."""
        return np.where(rows > 0, 1.0, -1.0)

    def bounds(
        self,
        rows: NDArray[np.float64],
        constants: NDArray[np.float64],
        errors: tuple[NDArray[np.float64], NDArray[np.float64]],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rigorous bounds [A] of rows [A, n] over z, known up to errors; see ``row_bounds``."""
        lower, upper = self.outer
        low, high = row_bounds(rows, constants, errors, lower[None], upper[None])
        return low[0], high[0]

    def at(self, parameters: Vector) -> Vector:
        """The exact point of exact parameters in the cube."""
        if parameters.denominator == 1 and {1, -1}.issuperset(parameters.numerators):  # a corner
            bounds = zip(
                parameters.numerators, self.lower.numerators, self.upper.numerators, strict=True
            )
            tops = tuple(high if top > 0 else low for top, low, high in bounds)
            return Vector(tops, self.lower.denominator)
        tops = tuple(map(mul, parameters.numerators, self.radius.numerators))
        return self.center.plus(Vector(tops, parameters.denominator * self.radius.denominator))

    @np.errstate(over="ignore", invalid="ignore")
    def points(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Float64 points [N, n] of parameters [N, n], without an error bound."""
        center, radius = self._frame
        found: NDArray[np.float64] = center + parameters * radius
        return found

    @cached_property
    def is_empty(self) -> bool:
        """Whether some lower bound is above its upper bound, exactly."""
        pairs = zip(self.lower.numerators, self.upper.numerators, strict=True)
        return any(low > high for low, high in pairs)

    @cached_property
    def outer(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Float64 bounds [n], [n] of a box that contains this one, at most two ulps wider."""
        lower = np.nextafter(self.lower.floats(), -np.inf)
        upper = np.nextafter(self.upper.floats(), np.inf)
        return lower, upper

    def contains(self, point: Vector) -> bool:
        """Whether an exact point lies in the box, bounds included."""
        scale, bottom = self.lower.denominator, point.denominator
        bounds = zip(self.lower.numerators, point.numerators, self.upper.numerators, strict=True)
        return all(low * bottom <= top * scale <= high * bottom for low, top, high in bounds)

    def members(self, points: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the points [N, n] lie in the box, exactly: bool [N]."""
        lower, upper = self.outer
        near: NDArray[np.bool_] = np.all((points >= lower) & (points <= upper), axis=1)
        inside_lower = np.nextafter(np.nextafter(lower, np.inf), np.inf)
        inside_upper = np.nextafter(np.nextafter(upper, -np.inf), -np.inf)
        sure = np.all((points >= inside_lower) & (points <= inside_upper), axis=1)
        for index in np.flatnonzero(near & ~sure):
            near[index] = self.contains(from_array(points[index]))
        return near

    def clamped(self, point: NDArray[np.float64]) -> Vector:
        """The exact point of the box nearest to a float64 point [n], entry by entry."""
        values, scale = from_array(point), self.lower.denominator
        bottom = values.denominator
        entries = zip(self.lower.numerators, values.numerators, self.upper.numerators, strict=True)
        tops = tuple(
            min(max(low * bottom, top * scale), high * bottom) for low, top, high in entries
        )
        return Vector(tops, scale * bottom)

    def scaled(self, factor: Fraction) -> "Box":
        """The box scaled about its centre by a factor of 0 or more."""
        if factor < 0:
            raise BadRegion(f"a region scaled by {factor}; the factor must not be negative")
        return scaled_box(self.center, self.radius, factor, nonnegative=False)

    def sample(self, count: int, seed: int) -> NDArray[np.float64]:
        """Points [count, n] uniform in the box, up to rounding of its bounds."""
        lower, upper = self.outer
        uniform = np.random.default_rng(seed).random((count, self.dimension))
        points: NDArray[np.float64] = lower + uniform * (upper - lower)
        return points

    def intersected(self, other: "Box") -> "Box":
        """The intersection, which may be empty."""
        lows = zip(self.lower.fractions(), other.lower.fractions(), strict=True)
        highs = zip(self.upper.fractions(), other.upper.fractions(), strict=True)
        return box(vector(max(pair) for pair in lows), vector(min(pair) for pair in highs))


ConvexRegion = Box | Image


def box(lower: Vector, upper: Vector) -> Box:
    """A box from exact bounds over any denominators."""
    if len(lower) != len(upper):
        raise BadRegion(f"a box with {len(lower)} lower and {len(upper)} upper bounds")
    bottom = lcm(lower.denominator, upper.denominator)
    return Box(lower.over(bottom), upper.over(bottom))


def scaled_box(center: Vector, radius: Vector, gamma: Fraction, *, nonnegative: bool) -> Box:
    """``center ± gamma · radius``, cut to ``z ≥ 0`` if asked; exact."""
    lower = combination([(Fraction(1), center), (-gamma, radius)])
    upper = combination([(Fraction(1), center), (gamma, radius)])
    if nonnegative:
        lower = Vector(tuple(max(0, top) for top in lower.numerators), lower.denominator)
        upper = Vector(tuple(max(0, top) for top in upper.numerators), upper.denominator)
    return Box(lower, upper)


@dataclass(frozen=True, eq=False)
class Part:
    """One convex part of a region: a base, and half-spaces that cut it.

    Attributes:
        region: a box, or an image of a cube, ball or simplex.
        cuts: half-spaces of a polytope, or of a box around an image; never strict.
    """

    region: ConvexRegion
    cuts: tuple[Halfspace, ...] = ()


def build_regions(region: f.Region, lens: Lens) -> list[Part]:
    """The convex parts that a region expression denotes: several for a union, else one.

    Raises:
        BadRegion: the bundle lacks the statistics, a bound does not fit its dimension, or the
            region is not bounded.
        UnknownName: an unknown class.
    """
    parts = _parts(region, lens)
    for part in parts:
        if part.region is None:
            raise BadRegion(
                "a polytope alone has no bounds; intersect it with another region, for "
                "instance `focus(c, gamma=1) and polytope(...)`"
            )
    return [Part(part.region, part.cuts) for part in parts if part.region is not None]


@dataclass(frozen=True, eq=False)
class _Loose:
    """A part that may still lack a bounded base."""

    region: ConvexRegion | None
    cuts: tuple[Halfspace, ...] = ()


def _parts(region: f.Region, lens: Lens) -> list[_Loose]:
    """The parts of a region expression."""
    match region:
        case f.Either(parts):
            return [built for part in parts for built in _parts(part, lens)]
        case f.Both(parts):
            result = _parts(parts[0], lens)
            for other in parts[1:]:
                found = _parts(other, lens)
                result = [_both(first, second) for first in result for second in found]
            return result
        case f.Polytope(constraints):
            return [_Loose(None, tuple(_cut(compare, lens) for compare in constraints))]
        case _:
            return [_Loose(_base(region, lens))]


def _base(
    region: f.Focus | f.PcaBox | f.Zonotope | f.Ellipsoid | f.Hull | f.Ball | f.Box, lens: Lens
) -> ConvexRegion:
    """A region without connectives."""
    match region:
        case f.Focus(label, gamma):
            return focus_box(lens, label, gamma)
        case f.Box(lower, upper):
            return box(_bounds(lower, lens.dim), _bounds(upper, lens.dim))
        case f.Ball(image, radius, f.Norm.LINF):
            ones = Vector((1,) * lens.dim)
            return scaled_box(image_embedding(lens, image), ones, radius, nonnegative=False)
        case f.Ball(image, radius, _):
            return Image(image_embedding(lens, image), np.eye(lens.dim), radius, Shape.BALL)
        case f.Hull(label):
            return Image(zeros(lens.dim), _samples(lens, label).T, Fraction(1), Shape.SIMPLEX)
        case f.PcaBox(label, gamma):
            return Image(_mean(lens, label), _axes(lens, label), gamma, Shape.CUBE)
        case f.Ellipsoid(label, gamma):
            return Image(_mean(lens, label), _axes(lens, label), gamma, Shape.BALL)
        case f.Zonotope(label, gamma):
            generators = np.hstack([_axes(lens, label)[:, :LEADING], _residual(lens, label)])
            return Image(_mean(lens, label), generators, gamma, Shape.CUBE)


def _both(first: _Loose, second: _Loose) -> _Loose:
    """The intersection of two parts."""
    cuts = first.cuts + second.cuts
    bases = [base for base in (first.region, second.region) if base is not None]
    images = [base for base in bases if isinstance(base, Image)]
    boxes = [base for base in bases if isinstance(base, Box)]
    if len(images) > 1:
        raise BadRegion(
            "an intersection can hold only one region that is neither a box nor a polytope"
        )
    if images:
        return _Loose(images[0], cuts + tuple(cut for base in boxes for cut in _walls(base)))
    if not boxes:
        return _Loose(None, cuts)
    return _Loose(boxes[0] if len(boxes) == 1 else boxes[0].intersected(boxes[1]), cuts)


def _walls(base: Box) -> list[Halfspace]:
    """The box as half-spaces of coordinates."""
    walls = []
    bounds = zip(base.lower.fractions(), base.upper.fractions(), strict=True)
    for index, (low, high) in enumerate(bounds):
        coordinate = f.Coordinate(index)
        walls.append(Halfspace(((Fraction(1), coordinate),), -low, strict=False))
        walls.append(Halfspace(((Fraction(-1), coordinate),), high, strict=False))
    return walls


def _cut(compare: f.Compare, lens: Lens) -> Halfspace:
    """A comparison of a polytope as a half-space."""
    found = negation_normal_form(compare, lens.classes)
    if not isinstance(found, Halfspace) or found.strict:
        raise BadRegion("a polytope needs comparisons of scores with >= or <=")
    return found


def focus_box(lens: Lens, label: str, gamma: Fraction) -> Box:
    """``focus(label, gamma)``: the class box of correctly classified training embeddings.

    Source: focus regions of arXiv 2403.19837, cut to what the encoder can produce.
    """
    return scaled_box(*class_moments(lens, label), gamma, nonnegative=lens.nonnegative)


def class_moments(lens: Lens, label: str) -> tuple[Vector, Vector]:
    """Mean and standard deviation of a class's embeddings, exactly as stored."""
    return _mean(lens, label), from_array(lens.statistics.std[_known(lens, label)])


def image_embedding(lens: Lens, image: int) -> Vector:
    """The stored embedding of an image, exactly."""
    if not 0 <= image < lens.count:
        raise BadRegion(f"no image {image}: the bundle has 0 to {lens.count - 1}")
    return from_array(lens.embeddings.z[image])


def _known(lens: Lens, label: str) -> int:
    """The place of a class that has statistics."""
    index = lens.class_index(label)
    if int(lens.statistics.count[index]) == 0:
        raise BadRegion(
            f"no training image of '{label}' is classified correctly, so the bundle has no "
            "statistics of it"
        )
    return index


def _mean(lens: Lens, label: str) -> Vector:
    """The class mean, exactly as stored."""
    return from_array(lens.statistics.mean[_known(lens, label)])


def _axes(lens: Lens, label: str) -> NDArray[np.float64]:
    """The principal axes [n, n] of a class, as stored."""
    axes = lens.statistics.axes
    if axes is None:
        raise BadRegion(f"the bundle stores no principal axes: {lens.dim} dimensions are too many")
    return np.asarray(axes[_known(lens, label)])


def _residual(lens: Lens, label: str) -> NDArray[np.float64]:
    """What the leading axes leave, as generators [n, n] along the coordinates."""
    residual = lens.statistics.residual
    if residual is None:
        raise BadRegion(f"the bundle stores no principal axes: {lens.dim} dimensions are too many")
    return np.diag(residual[_known(lens, label)])


def _samples(lens: Lens, label: str) -> NDArray[np.float64]:
    """The correctly classified training embeddings [N, n] of a class."""
    index = _known(lens, label)
    e = lens.embeddings
    chosen = (e.label == index) & (e.predicted == index) & ~e.heldout
    return np.asarray(e.z[chosen], dtype=np.float64)


def _bounds(values: tuple[Fraction, ...], dimension: int) -> Vector:
    """Bounds written in a spec; one stands for every dimension."""
    if len(values) == 1:
        return vector(values * dimension)
    if len(values) != dimension:
        raise BadRegion(f"a box with {len(values)} bounds for embeddings of {dimension} dimensions")
    return vector(values)
