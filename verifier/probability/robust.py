"""Certified robust satisfaction: how far each image is from violating each spec.

For an embedding z and a formula, the largest ε such that the formula holds on the whole closed
ball of radius ε around z lies between two bounds. The lower one is a certified fact about the
exact real-number functions of the bundle, whatever rounding did; the upper one is the norm of an
offset at which the formula fails. For formulas whose violation is a disjunction of half-spaces the
two agree up to rounding; for conjunctions multipliers and nearest points close the gap in L2 and
Mahalanobis balls, and narrow it in L∞ ones (``nearest``). Logits of ReLU heads and ``has`` get
sound lower bounds, seldom tight ones, and no upper bound.

A ball around an embedding is not a ball around an image, and not cut to embeddings that the
encoder can produce. The share of images with a large enough ε estimates a probability: that is
statistics, for images drawn like the held-out ones, and no proof.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Context, Decimal
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.exact import from_array
from conspec.encodings.query import Query, evaluate_at, fold, space_of
from conspec.encodings.regions import image_embedding
from conspec.encodings.rounding import Bools, Floats
from conspec.encodings.scores import ScoreSpace
from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadUsage, UnknownName
from conspec.specs.rewrite import Literal, Nnf
from conspec.verifier.conjunctions import branches
from conspec.verifier.probability.intervals import clopper_pearson, error_of
from conspec.verifier.probability.nearest import conjunction_radii
from conspec.verifier.probability.satisfaction import question_of
from conspec.verifier.probability.slopes import (
    Bounds,
    Growth,
    Literals,
    Metric,
    UnitBall,
    growth_at,
)
from conspec.verifier.screen import nth_largest

__all__ = ["Curves", "Metric", "RobustRadii", "curves", "robust_radii"]

CHUNK = 1024
"""Embeddings bounded at a time; with the number of literals, this bounds the memory."""
TIGHT = 1e-6
"""Relative gap of the bounds below which no more time is spent on them."""
DIGITS = 9
"""Significant digits of a radius in a certificate."""

Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class RobustRadii:
    """Bounds of the robust radius of N images and S specs.

    Attributes:
        specs: the S specs; of their regions only the class matters, for ``population``.
        images: the images' numbers in the bundle, int [N].
        lower: certified radii [N, S]: the spec holds on the closed ball; infinite where it can be
            violated nowhere. 0 says nothing beyond ``satisfied``.
        upper: radii [N, S] beyond which the ball holds a violation; infinite where none is known.
        satisfied: whether the spec holds at the embedding itself, exactly, bool [N, S].
        population: which images each spec is about (those of its class), bool [N, S].
        metric: the norm of the balls.
    """

    specs: tuple[f.Spec, ...]
    images: Indices
    lower: Floats
    upper: Floats
    satisfied: Bools
    population: Bools
    metric: Metric
    _lens: Lens = field(repr=False)

    def certified(self, epsilon: float) -> Bools:
        """For which images and specs the closed ball of radius ε is certified, bool [N, S]."""
        return self.satisfied & (self.lower >= epsilon)

    def spec_of(self, image: int, spec: int, epsilon: Fraction | None = None) -> f.ForAll:
        """The spec on the ball, for ``verify`` and so for a certificate that can be checked.

        Args:
            image: the row of the image, from 0 to N − 1.
            spec: the column of the spec, from 0 to S − 1.
            epsilon: the radius; the certified one, rounded down to a short decimal, if None.

        Raises:
            BadUsage: the language has no Mahalanobis ball around an image (use ``query_of``), or
                the certified radius is infinite or that of an image that is not satisfied.
        """
        if self.metric is Metric.MAHALANOBIS:
            raise BadUsage(
                "a Mahalanobis ball around an image cannot be written as a region of Con_spec; "
                "use the norm l2 or linf, or query_of()"
            )
        number = int(self.images[image])
        radius = self._radius(image, spec) if epsilon is None else epsilon
        ball = f.Ball(number, radius, f.Norm(self.metric.value))
        return f.ForAll(f"{self.specs[spec].name}_at_{number}", ball, self.specs[spec].body)

    def query_of(self, image: int, spec: int, epsilon: Fraction | None = None) -> Query:
        """The same as a query, for every norm; arguments as for ``spec_of``."""
        number = int(self.images[image])
        radius = self._radius(image, spec) if epsilon is None else epsilon
        ball = UnitBall.of(self.metric, self._lens, int(self._lens.embeddings.predicted[number]))
        region = ball.around(image_embedding(self._lens, number), radius)
        whole = f.Ball(number, radius, f.Norm.L2)  # names the image; the region decides
        body = self.specs[spec].body
        return Query(f.ForAll(self.specs[spec].name, whole, body), space_of(self._lens), region)

    def _radius(self, image: int, spec: int) -> Fraction:
        value = float(self.lower[image, spec])
        if not self.satisfied[image, spec] or not np.isfinite(value):
            raise BadUsage(
                f"image {int(self.images[image])} has no finite certified radius for spec "
                f"{self.specs[spec].name}; give a radius"
            )
        return Fraction(Context(DIGITS, ROUND_FLOOR).create_decimal(Decimal(value)))


def robust_radii(
    lens: Lens, specs: Sequence[f.Spec], metric: Metric, images: Indices | None = None
) -> RobustRadii:
    """Bounds of the robust radius of every image and spec.

    Args:
        lens: the bundle.
        specs: S specs; their formulas count, and of their regions the class.
        metric: the norm of the balls.
        images: numbers of N stored images; the held-out ones if None.

    Raises:
        UnknownName: a spec names what the bundle does not have, or there is no such image.
        BadUsage: Mahalanobis balls are asked of a bundle without principal axes.
    """
    data = lens.embeddings
    chosen = np.flatnonzero(data.heldout) if images is None else np.asarray(images, dtype=np.intp)
    if chosen.size and (chosen.min() < 0 or chosen.max() >= lens.count):
        raise UnknownName(f"images are numbered from 0 to {lens.count - 1}")
    space = space_of(lens)
    violations = [space.negated(spec.body) for spec in specs]
    literals = Literals.of(space, [lit for nnf in violations for lit in space.literals(nnf)])
    size = (len(chosen), len(specs))
    lower, upper, satisfied = np.zeros(size), np.full(size, np.inf), np.zeros(size, dtype=np.bool_)
    for ball, part in _groups(lens, metric, chosen):
        points = data.z[chosen[part]].astype(np.float64)
        growth = growth_at(literals, points, ball)
        distinct = {id(nnf): nnf for nnf in violations}
        found = dict(zip(distinct, _block(space, list(distinct.values()), growth, points),
                         strict=True))  # fmt: skip
        for column, nnf in enumerate(violations):
            low, high, holds = found[id(nnf)]
            lower[part, column], upper[part, column], satisfied[part, column] = low, high, holds
    if metric is Metric.MAHALANOBIS:  # no ball is known where a class has no statistics
        unknown = lens.statistics.count[data.predicted[chosen]] == 0
        lower[unknown] = 0.0
        upper[unknown] = np.where(satisfied[unknown], np.inf, 0.0)
    return RobustRadii(
        tuple(specs), chosen, lower, upper, satisfied,
        _population(lens, specs, chosen), metric, lens,
    )  # fmt: skip


def _groups(lens: Lens, metric: Metric, chosen: Indices) -> Iterator[tuple[UnitBall, Indices]]:
    """Places among the chosen images that share a ball, at most ``CHUNK`` at a time."""
    labels = lens.embeddings.predicted[chosen]
    if metric is not Metric.MAHALANOBIS:
        labels = np.zeros_like(labels)
    for label in np.unique(labels):
        ball = UnitBall.of(metric, lens, int(label))
        places = np.flatnonzero(labels == label)
        for start in range(0, len(places), CHUNK):
            yield ball, places[start : start + CHUNK]


def _population(lens: Lens, specs: Sequence[f.Spec], chosen: Indices) -> Bools:
    """Which of the chosen images each spec is about, bool [N, S]."""
    members = np.ones((len(chosen), len(specs)), dtype=np.bool_)
    for column, spec in enumerate(specs):
        label = question_of(spec).label
        if label is not None:
            members[:, column] = lens.embeddings.label[chosen] == lens.class_index(label)
    return members


def _block(
    space: ScoreSpace, violations: Sequence[Nnf], growth: Growth, points: Floats
) -> list[tuple[Floats, Floats, Bools]]:
    """Lower and upper radii and satisfaction, [N] each, of every violation."""
    found = []
    for nnf in violations:
        satisfied = _satisfied(space, nnf, growth, points)
        lower, upper = _folded(nnf, growth)
        found.append((np.where(satisfied, lower, 0.0), np.where(satisfied, upper, 0.0), satisfied))
    return _refined(violations, growth, found)


def _satisfied(space: ScoreSpace, nnf: Nnf, growth: Growth, points: Floats) -> Bools:
    """Whether the violation fails at each embedding, bool [N]; rationals decide near ties."""
    places, shape = growth.literals.places, len(points)

    def leaf(literal: Literal) -> tuple[Bools, Bools]:
        place = places[literal]
        return growth.true[:, place], growth.false[:, place]

    def join(count: int, parts: list[tuple[Bools, Bools]]) -> tuple[Bools, Bools]:
        true = np.sum([part[0] for part in parts], axis=0, initial=0)
        false = np.sum([part[1] for part in parts], axis=0, initial=0)
        surely = np.broadcast_to(true >= count, shape)
        return surely, np.broadcast_to(false > len(parts) - count, shape)

    violated, satisfied = fold(nnf, leaf, join)
    result = satisfied.copy()
    for row in np.flatnonzero(~violated & ~satisfied):
        result[row] = not evaluate_at(nnf, space, from_array(points[row]))[0]
    return result


def _folded(nnf: Nnf, growth: Growth) -> Bounds:
    """Radii [N] from single literals: at least k of n can hold only if no n − k + 1 cannot."""
    places, size = growth.literals.places, len(growth.lower)

    def leaf(literal: Literal) -> Bounds:
        place = places[literal]
        return growth.impossible[:, place], growth.possible[:, place]

    def join(count: int, parts: list[Bounds]) -> Bounds:
        lower = nth_largest(len(parts) - count + 1, [part[0] for part in parts], size)
        upper = np.full(size, np.inf if count else 0.0)
        if count == 1 and parts:
            upper = np.min([part[1] for part in parts], axis=0)
        return np.maximum(lower, 0.0), upper

    return fold(nnf, leaf, join)


def _refined(
    violations: Sequence[Nnf], growth: Growth, found: list[tuple[Floats, Floats, Bools]]
) -> list[tuple[Floats, Floats, Bools]]:
    """The same, with the nearest points of each violation's conjunctions."""
    conjunctions: dict[tuple[int, ...], int] = {}
    of_violation: list[list[int]] = []
    for nnf in violations:
        forms = branches(nnf) or []
        keys = [tuple(sorted({growth.literals.places[lit] for lit in form})) for form in forms]
        numbers = [conjunctions.setdefault(key, len(conjunctions)) for key in keys if key]
        of_violation.append(numbers if len(numbers) == len(forms) else [])
    if not conjunctions:
        return found
    wanted = np.zeros((len(conjunctions), len(growth.lower)), dtype=np.bool_)
    for (lower, upper, satisfied), numbers in zip(found, of_violation, strict=True):
        wanted[numbers] |= satisfied & (lower < upper * (1.0 - TIGHT))
    low, high = conjunction_radii(growth, list(conjunctions), wanted)
    result = []
    for (lower, upper, satisfied), numbers in zip(found, of_violation, strict=True):
        if numbers:
            lower = np.where(satisfied, np.maximum(lower, low[numbers].min(axis=0)), 0.0)
            upper = np.where(satisfied, np.minimum(upper, high[numbers].min(axis=0)), 0.0)
        result.append((lower, upper, satisfied))
    return result


@dataclass(frozen=True, eq=False)
class Curves:
    """Of each spec, the share of images whose ball of radius ε is certified, against ε.

    Attributes:
        names: of the S specs.
        epsilons: G radii, increasing, float64 [G].
        share: [S, G]; NaN for a spec with no images.
        lower: lower ends of the band [S, G].
        upper: upper ends [S, G].
        totals: images of each spec, int [S].
        metric: the norm.
        confidence: that a spec's true curve lies in its band for all ε at once.
        assumption: what the band rests on, in words.
    """

    names: tuple[str, ...]
    epsilons: Floats
    share: Floats
    lower: Floats
    upper: Floats
    totals: NDArray[np.int64]
    metric: Metric
    confidence: float
    assumption: str


def dkw_width(totals: NDArray[np.int64], confidence: float) -> Floats:
    """Half the width [S] of the band of Dvoretzky, Kiefer and Wolfowitz: ``√(ln(2/α) / 2n)``.

    With Massart's constant (1990), for any distribution and all places at once; 1 for no images.
    """
    width = np.sqrt(np.log(2.0 / error_of(confidence)) / (2.0 * np.maximum(totals, 1)))
    return np.where(totals > 0, np.minimum(width, 1.0), 1.0)


def curves(radii: RobustRadii, confidence: float = 0.95, epsilons: Floats | None = None) -> Curves:
    """The curves of certified satisfaction, each with a band that holds for all ε at once.

    Args:
        radii: the certified radii.
        confidence: of each spec's band, by itself; for all S together give 1 − α/S.
        epsilons: where to evaluate, [G]; 200 places up to nearly the largest radius if None.

    Raises:
        BadUsage: the confidence does not lie strictly between 0 and 1.
    """
    reached = np.where(radii.satisfied, radii.lower, -1.0)
    if epsilons is None:
        finite = reached[radii.population & np.isfinite(reached)]
        most = float(np.quantile(finite, 0.995)) if finite.size else 0.0
        epsilons = np.linspace(0.0, most if most > 0 else 1.0, 200)
    totals = radii.population.sum(axis=0).astype(np.int64)
    share = np.full((len(radii.specs), len(epsilons)), np.nan)
    for column, total in enumerate(totals):
        if total:
            own = np.sort(reached[radii.population[:, column], column])
            share[column] = 1.0 - np.searchsorted(own, epsilons, side="left") / total
    width = dkw_width(totals, confidence)[:, None]
    middle = np.nan_to_num(share, nan=0.5)
    return Curves(
        tuple(spec.name for spec in radii.specs), np.asarray(epsilons, dtype=np.float64), share,
        np.maximum(middle - width, 0.0), np.minimum(middle + width, 1.0), totals, radii.metric,
        confidence, _assumption(confidence),
    )  # fmt: skip


def _assumption(confidence: float) -> str:
    return (
        f"Band of Dvoretzky, Kiefer, Wolfowitz and Massart at confidence {confidence:g} for all ε "
        "of one spec at once. Assumes that the held-out images are independent draws of the "
        "images that the spec is about. It is no proof about other images."
    )


def certified_share(
    radii: RobustRadii, epsilon: float, confidence: float = 0.95
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]:
    """At one ε chosen beforehand: counts, totals and Clopper–Pearson bounds, [S] each."""
    counts = (radii.certified(epsilon) & radii.population).sum(axis=0).astype(np.int64)
    totals = radii.population.sum(axis=0).astype(np.int64)
    lower, upper = clopper_pearson(counts, totals, confidence)
    return counts, totals, lower, upper
