"""How large a literal is at an embedding, and how fast it can grow around it.

A ball around an embedding z is ``{ z + ε G t : ‖t‖ ≤ 1 }``. Over it a half-space ``g·z + h`` grows
by ``ε ‖Gᵀg‖*`` exactly, with the dual norm. For a logit of a ReLU head, which is 1-Lipschitz in
each neuron, the absolute values of the weights multiplied through the layers bound the growth;
for ``has`` it is the triangle inequality. All numbers are rigorous bounds in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from functools import cached_property
from typing import assert_never

import numpy as np

from conspec.encodings.exact import Vector, nearest, zeros
from conspec.encodings.images import Image, Shape, shape_bounds
from conspec.encodings.network import Affine
from conspec.encodings.regions import ConvexRegion, scaled_box
from conspec.encodings.rounding import TINY, UNIT, Bools, Floats, gamma, row_bounds
from conspec.encodings.scores import ScoreSpace
from conspec.lens.bundle import Lens
from conspec.specs.errors import BadUsage
from conspec.specs.rewrite import Cone, Halfspace, Literal
from conspec.verifier.cones import square_bound
from conspec.verifier.screen import Rows, rows_of

Bounds = tuple[Floats, Floats]
"""Lower and upper bounds of the same exact numbers."""


class Metric(Enum):
    """How the distance of two embeddings is measured."""

    L2 = "l2"
    LINF = "linf"
    MAHALANOBIS = "mahalanobis"
    """In standard deviations along the principal axes of the class that the head predicts."""


@dataclass(frozen=True, eq=False)
class UnitBall:
    """The offsets ``{ G t : ‖t‖ ≤ 1 }`` of a ball of radius 1.

    Attributes:
        shape: a ball or a cube of parameters t.
        dimension: number n of entries of an embedding.
        generators: G, float64 [n, k]; None for the identity.
    """

    shape: Shape
    dimension: int
    generators: Floats | None = None

    @classmethod
    def of(cls, metric: Metric, lens: Lens, label: int) -> "UnitBall":
        """The ball of a metric; ``label`` is the class that a Mahalanobis ball is of.

        Raises:
            BadUsage: the bundle stores no principal axes.
        """
        match metric:
            case Metric.L2:
                return cls(Shape.BALL, lens.dim)
            case Metric.LINF:
                return cls(Shape.CUBE, lens.dim)
            case Metric.MAHALANOBIS:
                axes = lens.statistics.axes
                if axes is None:
                    raise BadUsage(
                        f"Mahalanobis balls need principal axes, and the bundle stores none for "
                        f"its {lens.dim} dimensions; use the norm l2 or linf"
                    )
                return cls(Shape.BALL, lens.dim, np.asarray(axes[label]))
            case _:
                assert_never(metric)

    def around(self, center: Vector, radius: Fraction) -> ConvexRegion:
        """The ball of some radius around an embedding, as a region."""
        if self.shape is Shape.CUBE:
            ones = Vector((1,) * self.dimension)
            return scaled_box(center, ones, radius, nonnegative=False)
        axes = np.eye(self.dimension) if self.generators is None else self.generators
        return Image(center, axes, radius, self.shape)

    def pulled(self, rows: Floats, errors: Floats) -> tuple[Floats, Floats]:
        """Rows [A, n] over offsets as rows [A, k] over t, with bounds of their errors."""
        if self.generators is None:
            return rows, errors
        image = Image(zeros(self.dimension), self.generators, Fraction(1), self.shape)
        nothing = np.zeros(len(rows))
        pulled, _, (off, _) = image.pull_floats(rows, nothing, (errors, nothing))
        return pulled, off

    def dual(self, rows: Floats, errors: Floats) -> Bounds:
        """Bounds [A] of the dual norms of rows [A, k] over t that are known up to errors."""
        size = rows.shape[1]
        least = np.maximum(np.abs(rows) - errors, 0.0)
        with np.errstate(over="ignore", under="ignore"):
            total = least.sum(axis=1)
            if self.shape is Shape.BALL:
                total = np.sqrt((least * least).sum(axis=1))
            low = total * (1.0 - 2 * gamma(size + 16)) - size * TINY - np.sqrt(size * TINY)
        return np.maximum(np.where(np.isfinite(low), low, 0.0), 0.0), shape_bounds(
            self.shape, rows, errors
        )[1]

    def length(self, parameters: Floats) -> Floats:
        """Upper bounds [...] of the norms of parameters [..., k]."""
        sizes = np.abs(parameters)
        if self.shape is Shape.CUBE:
            return np.asarray(sizes.max(axis=-1), dtype=np.float64)
        flat = sizes.reshape(-1, sizes.shape[-1])
        found: Floats = shape_bounds(self.shape, flat, np.zeros_like(flat))[1]
        return found.reshape(sizes.shape[:-1])


@dataclass(frozen=True, eq=False)
class Literals:
    """The A distinct literals of a suite, and their rows over ``v = (z, y)``.

    Attributes:
        space: the score functions.
        all: half-spaces first, then cones.
        rows: of the half-spaces.
    """

    space: ScoreSpace
    all: tuple[Literal, ...]
    rows: Rows

    @classmethod
    def of(cls, space: ScoreSpace, found: Sequence[Literal]) -> "Literals":
        """Those among ``found``, each once."""
        halfspaces = [literal for literal in found if isinstance(literal, Halfspace)]
        cones = dict.fromkeys(literal for literal in found if isinstance(literal, Cone))
        rows = rows_of(space, halfspaces)
        return cls(space, (*rows.literals, *cones), rows)

    @cached_property
    def places(self) -> dict[Literal, int]:
        """The place of each literal."""
        return {literal: place for place, literal in enumerate(self.all)}

    @property
    def cones(self) -> tuple[Literal, ...]:
        """The ``has`` literals."""
        return self.all[len(self.rows.literals) :]

    @cached_property
    def strict(self) -> Bools:
        """Whether each literal needs a value above zero, bool [A]."""
        found = [lit.strict if isinstance(lit, Halfspace) else lit.holds for lit in self.all]
        return np.array(found, dtype=np.bool_)

    @cached_property
    def affine(self) -> Bools:
        """Whether each literal is a half-space of z, bool [A]."""
        found = [isinstance(lit, Halfspace) and self.space.is_affine(lit) for lit in self.all]
        return np.array(found, dtype=np.bool_)

    @cached_property
    def constant(self) -> Bools:
        """Whether each literal has the same value everywhere, bool [A]; decided exactly."""
        small = ~(np.abs(self.rows.rows) > self.rows.errors).any(axis=1)
        found = np.zeros(len(self.all), dtype=np.bool_)
        for place in np.flatnonzero(small):
            found[place] = not any(self.space.row(self.rows.literals[place])[0].numerators)
        return found


@dataclass(frozen=True, eq=False)
class Growth:
    """The A literals at N embeddings, and around them in balls of one kind.

    Attributes:
        literals: the literals.
        ball: the ball of radius 1.
        lower: lower bounds of the values at the embeddings [N, A].
        upper: upper bounds [N, A].
        least: lower bounds of the growth per unit of radius [A]; 0 where it is not known.
        most: upper bounds [A]; infinite where there is none.
        rows: the literals as rows over t [A, k]; zeros for those that are no half-spaces of z.
        errors: bounds of the errors of ``rows`` [A, k].
    """

    literals: Literals
    ball: UnitBall
    lower: Floats
    upper: Floats
    least: Floats
    most: Floats
    rows: Floats
    errors: Floats

    @cached_property
    def impossible(self) -> Floats:
        """Radii [N, A], rounded down, for which each literal is false on the whole closed ball."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
            ratio = rounded_down(-self.upper / self.most)
        ratio = np.where(self.most == 0, np.inf, ratio)
        return np.where(self.upper < 0, ratio, 0.0)

    @cached_property
    def possible(self) -> Floats:
        """Radii [N, A], rounded up, beyond which each literal is true somewhere on the ball."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
            ratio = np.nextafter(-self.lower / self.least * (1.0 + 2.0**-50), np.inf)
        ratio = np.where(self.least > 0, ratio, np.inf)
        return np.where(self.true | ((self.lower >= 0) & (self.least > 0)), 0.0, ratio)

    @cached_property
    def true(self) -> Bools:
        """Which literals are surely true at the embeddings, bool [N, A]."""
        return np.where(self.literals.strict, self.lower > 0, self.lower >= 0)

    @cached_property
    def false(self) -> Bools:
        """Which literals are surely false at the embeddings, bool [N, A]."""
        return np.where(self.literals.strict, self.upper <= 0, self.upper < 0)


def rounded_down(ratio: Floats) -> Floats:
    """Quotients of positive numbers, made smaller than the exact ones, and finite."""
    below = np.nextafter(np.minimum(ratio, np.finfo(np.float64).max) * (1.0 - 2.0**-50), -np.inf)
    return np.where(np.isnan(below), 0.0, np.maximum(below, 0.0))


def growth_at(literals: Literals, points: Floats, ball: UnitBall) -> Growth:
    """The literals at embeddings [N, n], and around them in balls of one kind."""
    lower, upper = _values(literals, points)
    steps, off = ball.pulled(*_over_z(literals))
    least, most = ball.dual(steps, off)
    count = len(literals.rows.literals)
    curved = ~literals.affine[:count]
    if curved.any():
        most = np.where(curved, _relu_growth(literals, ball), most)
    least = np.where(curved | literals.constant[:count], 0.0, least)
    most = np.where(literals.constant[:count], 0.0, most)
    extra = len(literals.cones)
    rows, errors = (np.vstack([a, np.zeros((extra, a.shape[1]))]) for a in (steps, off))
    return Growth(
        literals,
        ball,
        lower,
        upper,
        np.concatenate([least, np.zeros(extra)]),
        np.concatenate([most, _cone_growth(literals, ball)]),
        np.where(literals.affine[:, None], rows, 0.0),
        np.where(literals.affine[:, None], errors, 0.0),
    )


def _over_z(literals: Literals) -> tuple[Floats, Floats]:
    """The half-spaces' coefficients of z, and bounds of their errors."""
    size = literals.space.dimension
    return literals.rows.rows[:, :size], literals.rows.errors[:, :size]


def _layer(layer: Affine, lower: Floats, upper: Floats) -> Bounds:
    """Bounds [N, m] of an affine layer's outputs for inputs within bounds [N, k]."""
    weight, bias = layer.floats
    errors = (np.abs(weight) * UNIT + TINY, np.abs(bias) * UNIT + TINY)
    return row_bounds(weight, bias, errors, lower, upper)


def _values(literals: Literals, points: Floats) -> Bounds:
    """Bounds [N, A] of the literals' values at embeddings [N, n] whose entries are exact."""
    space, rows = literals.space, literals.rows
    low = high = points
    if not space.head.is_affine:
        for layer in space.head.affines[:-1]:
            low, high = (np.maximum(side, 0.0) for side in _layer(layer, low, high))
        low, high = np.hstack([points, low]), np.hstack([points, high])
    errors = (rows.errors, rows.constant_errors)
    lower, upper = row_bounds(rows.rows, rows.constants, errors, low, high)
    if not literals.cones:
        return lower, upper
    cones = [_cone_values(space, cone, points) for cone in literals.cones]
    return (
        np.hstack([lower, *(pair[0][:, None] for pair in cones)]),
        np.hstack([upper, *(pair[1][:, None] for pair in cones)]),
    )


def _cone_values(space: ScoreSpace, cone: Literal, points: Floats) -> Bounds:
    """Bounds [N] of ``±(score − τ ‖e‖)`` at embeddings."""
    if not isinstance(cone, Cone):
        raise TypeError("a half-space has a row")
    place = space.concepts.index(cone.concept)
    score_low, score_high = (side[:, place] for side in _layer(space.concept_map, points, points))
    low, high = _layer(space.aligned, points, points)
    nearest_zero = np.where((low <= 0) & (high >= 0), 0.0, np.minimum(np.abs(low), np.abs(high)))
    euclid = UnitBall(Shape.BALL, low.shape[1])
    # The norm is a dual norm too: that of a row which the mapped embedding stands for.
    short = euclid.dual(nearest_zero, np.zeros_like(nearest_zero))[0]
    long = euclid.length(np.maximum(np.abs(low), np.abs(high)))
    low_share, high_share = _enclosed(space.threshold(cone.concept))
    products = np.stack([t * n for t in (low_share, high_share) for n in (short, long)])
    below = np.nextafter(score_low - np.nextafter(products.max(axis=0), np.inf), -np.inf)
    above = np.nextafter(score_high - np.nextafter(products.min(axis=0), -np.inf), np.inf)
    return (below, above) if cone.holds else (-above, -below)


def _enclosed(value: Fraction) -> tuple[float, float]:
    """Two neighbouring floats around a rational."""
    middle = nearest(*value.as_integer_ratio())
    return float(np.nextafter(middle, -np.inf)), float(np.nextafter(middle, np.inf))


def _relu_growth(literals: Literals, ball: UnitBall) -> Floats:
    """Upper bounds [H] of the half-spaces' growth through the ReLU layers.

    The change of a layer is entrywise at most its absolute weights times the change before.
    """
    space = literals.space
    weight, _ = space.head.affines[0].floats
    steps, off = ball.pulled(weight, np.abs(weight) * UNIT + TINY)
    sizes, terms = np.abs(steps) + off, steps.shape[1]
    for layer in space.head.affines[1:-1]:
        weight, _ = layer.floats
        sizes = (np.abs(weight) * (1.0 + 2 * UNIT) + TINY) @ sizes
        terms += weight.shape[1]
    direct, direct_off = ball.pulled(*_over_z(literals))
    last = np.abs(literals.rows.rows) + literals.rows.errors
    total = last[:, space.dimension :] @ sizes + np.abs(direct) + direct_off
    total = total * (1.0 + gamma(4 * (terms + last.shape[1]) + 32)) + terms * TINY
    return ball.dual(total, np.zeros_like(total))[1]


def _cone_growth(literals: Literals, ball: UnitBall) -> Floats:
    """Upper bounds of the growth of ``±(score − τ ‖e‖)``: ``‖row‖* + |τ| max ‖A G t‖``."""
    space, found = literals.space, []
    if not literals.cones:
        return np.zeros(0)
    stretch = _stretch(space, ball)
    weight, _ = space.concept_map.floats
    steps, off = ball.pulled(weight, np.abs(weight) * UNIT + TINY)
    lengths = ball.dual(steps, off)[1]
    for cone in literals.cones:
        if isinstance(cone, Cone):
            share = max(map(abs, _enclosed(space.threshold(cone.concept))))
            total = lengths[space.concepts.index(cone.concept)] + np.nextafter(
                share * stretch if share else 0.0, np.inf
            )
            found.append(np.nextafter(total, np.inf))
    return np.array(found)


def _stretch(space: ScoreSpace, ball: UnitBall) -> float:
    """An upper bound of ``‖A G t‖`` for ``‖t‖ ≤ 1``; infinite where float64 overflows."""
    bound = square_bound(space, ball.around(zeros(space.dimension), Fraction(1)))
    if bound is None:
        return float("inf")
    # ‖e‖² ≤ 2 m·e + constant with m = e(0), and the constant is the spread less ‖m‖².
    spread = bound.constant + sum(((factor / 2) ** 2 for factor in bound.factors), Fraction(0))
    root = np.sqrt(np.nextafter(nearest(*spread.as_integer_ratio()), np.inf))
    return float(np.nextafter(root, np.inf))
