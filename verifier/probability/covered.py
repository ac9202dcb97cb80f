"""Proved on a region, and covered by data: lower bounds of satisfaction probabilities.

If a spec is proved for every embedding of a region R, an image satisfies it at least with the
probability that its embedding lies in R. The lower Clopper–Pearson bound of R's coverage on
images is then a lower bound of the satisfaction probability.

Multiplicity. Whether a spec is true on a region is a fact about weights and training statistics;
held-out images play no part in it. So of nested regions, whose scales were fixed beforehand, the
largest one on which the spec is true may be chosen for free; ``settled_scale`` does so. (The end
of a bracket of ``radius_suite`` may not be taken as it is: stored images are tried as
counterexamples there, and may steer its bisections.) Among several families of regions the best
is chosen by looking at the images, so each gets its share of the error (Bonferroni).

On the same images the direct estimate is never lower: whatever lies in R satisfies the spec. The
bound by coverage says in addition on which embeddings the spec is sure to hold; and coverage can
be measured on a larger sample, where the two are combined with half the error each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_FLOOR, Context, Decimal
from fractions import Fraction

import numpy as np

from conspec.encodings.query import queries_of, space_of
from conspec.encodings.regions import build_regions
from conspec.encodings.scores import ScoreSpace
from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadUsage
from conspec.verifier.decide import DEFAULT_LIMITS, Limits, verify
from conspec.verifier.probability.intervals import (
    clopper_pearson,
    clopper_pearson_lower,
    error_of,
)
from conspec.verifier.probability.satisfaction import Question, class_of, count_satisfied
from conspec.verifier.probability.shards import Shard, shards_of
from conspec.verifier.radius import LARGEST, Radius, at_scale
from conspec.verifier.results import inside
from conspec.verifier.verdict import Unknown, Violated

DIGITS = 2
"""Significant digits of the scales among which the largest is chosen."""
SCALES = tuple(Fraction(top) * Fraction(10) ** p for p in (-3, -2, -1) for top in range(10, 100))
"""Scales that are tried by halving: two digits, from 0.01 to 9.9."""
CANDIDATES = 4
"""Scales that are settled by further proofs at most, where a bracket does not settle them."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share of images with a two-sided Clopper–Pearson interval.

    Attributes:
        count: images counted.
        total: images looked at.
        lower: lower end; 0 without images.
        upper: upper end; 1 without images.
    """

    count: int
    total: int
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Covered:
    """What a proof and the coverage of its region say about a satisfaction probability.

    Attributes:
        spec: the spec, over ``region`` if there is one.
        region: the proved region whose coverage gives the best bound; None if there is none.
        population: whose images: a class, or "all".
        coverage: of the region; None without one.
        lower: lower bound, by coverage, of the probability that an image satisfies the spec.
        direct: the share of held-out images that satisfy the spec.
        combined: the greater of both lower bounds, each at half the error.
        confidence: of ``lower``, of ``combined``, and of each of the two intervals, one by one.
        assumptions: what the numbers rest on, in words.
    """

    spec: f.ForAll
    region: f.Region | None
    population: str
    coverage: Share | None
    lower: float
    direct: Share
    combined: float
    confidence: float
    assumptions: tuple[str, ...]


def settled_scale(radius: Radius, lens: Lens, limits: Limits = DEFAULT_LIMITS) -> Fraction | None:
    """The largest scale of two digits up to ``LARGEST`` for which a spec is true; None if unknown.

    For formulas that the lemma engine decides this is a fact, which the bracket gives however it
    was found; scales between its ends are settled by verdicts that look at no stored image. For
    ``has`` and logits of ReLU heads a search by such verdicts alone takes its place.

    Raises:
        BadRegion: the region cannot be built at some scale.
    """
    queries = queries_of(replace(radius.spec, region=at_scale(radius.spec.region, Fraction(1))),
                         lens, space_of(lens))  # fmt: skip
    if any(query.cones or not query.is_affine for query in queries):
        return _halved(radius.spec, lens, limits)
    low, high = radius.lower, radius.upper
    if low is None:
        return None
    best = scale = min(_below(low), Fraction(LARGEST))
    for _ in range(CANDIDATES):
        scale = _next(scale)
        if scale > Fraction(LARGEST) or (high is not None and scale >= high):
            return best
        outcome = _true_at(radius.spec, scale, lens, limits)
        if outcome is not True:
            return best if outcome is False else None
        best = scale
    return None


def _true_at(spec: f.ForAll, scale: Fraction, lens: Lens, limits: Limits) -> bool | None:
    """Whether a spec is true at a scale, decided without stored images; None if it is not."""
    tried = replace(spec, region=at_scale(spec.region, scale))
    verdicts = [verify(query, limits=limits) for query in queries_of(tried, lens, space_of(lens))]
    if any(isinstance(verdict, Violated) for verdict in verdicts):
        return False
    return None if any(isinstance(verdict, Unknown) for verdict in verdicts) else True


def _halved(spec: f.ForAll, lens: Lens, limits: Limits) -> Fraction | None:
    """The end of a search by halving among ``SCALES``, whose steps are proofs or none."""
    low, high = 0, len(SCALES)
    while low < high:
        middle = (low + high) // 2
        if _true_at(spec, SCALES[middle], lens, limits) is True:
            low = middle + 1
        else:
            high = middle
    return SCALES[low - 1] if low else None


def _below(scale: Fraction) -> Fraction:
    """The largest decimal of two digits that is at most a scale."""
    context = Context(DIGITS, ROUND_FLOOR)
    return Fraction(context.divide(Decimal(scale.numerator), Decimal(scale.denominator)))


def _next(scale: Fraction) -> Fraction:
    """The next larger decimal of two digits after one of them; from 0 it is a small one."""
    if not scale:
        return Fraction(1, 10**6)
    digits = Decimal(scale.numerator) / Decimal(scale.denominator)
    return scale + Fraction(Decimal(1).scaleb(digits.adjusted() - DIGITS + 1))


def covered_radii(
    families: Sequence[Sequence[Radius]],
    lens: Lens,
    confidence: float = 0.95,
    sample: Shard | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> list[Covered]:
    """Bounds for the same S specs over one or more families of nested regions.

    Args:
        families: for each family (focus boxes, ellipsoids, …) the S radii, in one order.
        lens: the bundle.
        confidence: of each spec's bounds by themselves.
        sample: see ``proved_and_covered``.
        limits: of further proofs.

    Raises:
        BadUsage: the families have different formulas; or as ``proved_and_covered``.
    """
    specs = [radius.spec for radius in families[0]] if families else []
    regions: list[list[f.Region]] = [[] for _ in specs]
    for family in families:
        if [radius.spec.body for radius in family] != [spec.body for spec in specs]:
            raise BadUsage("the families of regions were not made for the same specs")
        for found, radius in zip(regions, family, strict=True):
            scale = settled_scale(radius, lens, limits)
            if scale is not None:
                found.append(at_scale(radius.spec.region, scale))
    return proved_and_covered(specs, regions, lens, confidence, sample, len(families) or 1)


def proved_and_covered(
    specs: Sequence[f.ForAll],
    regions: Sequence[Sequence[f.Region]],
    lens: Lens,
    confidence: float = 0.95,
    sample: Shard | None = None,
    families: int = 1,
) -> list[Covered]:
    """Lower bounds of satisfaction probabilities from the coverage of proved regions.

    Args:
        specs: S specs; the class of a spec's own region is the population.
        regions: for each spec the regions on which it is proved, at most one of each family, all
            chosen without looking at the images that coverage is measured on.
        lens: the bundle; the direct estimate is taken on its held-out images.
        confidence: of each spec's bounds by themselves.
        sample: images to measure coverage on, with labels if a spec is about a class; the
            held-out ones if None. NaN counts as outside.
        families: k, how many families the best region may come from; each gets 1/k of the error.

    Raises:
        BadUsage: more regions than families, a sample without the labels that are needed, or a
            confidence that does not lie strictly between 0 and 1.
        BadRegion: a region cannot be built.
    """
    space, data = space_of(lens), lens.embeddings
    held = Shard(data.z[data.heldout], data.label[data.heldout])
    images = held if sample is None else sample
    questions = [Question(spec.body, class_of(spec.region)) for spec in specs]
    answers = count_satisfied(shards_of(held.embeddings, held.labels), questions, space)
    measure = _Measure(lens, space, images, confidence)
    found = []
    for place, (spec, own) in enumerate(zip(specs, regions, strict=True)):
        if len(own) > families:
            raise BadUsage(f"spec {spec.name}: {len(own)} regions of {families} families")
        direct = _share(int(answers.counts[place]), int(answers.totals[place]), confidence)
        found.append(measure.covered(spec, own, direct, families, sample is not None))
    return found


def _share(count: int, total: int, confidence: float) -> Share:
    return Share(count, total, *clopper_pearson(count, total, confidence))


@dataclass(frozen=True, eq=False)
class _Measure:
    """Coverage on some images."""

    lens: Lens
    space: ScoreSpace
    images: Shard
    confidence: float

    def covered(
        self,
        spec: f.ForAll,
        regions: Sequence[f.Region],
        direct: Share,
        families: int,
        other: bool,
    ) -> Covered:
        """The best bound of one spec."""
        label = class_of(spec.region)
        shares = [self._coverage(region, label) for region in regions]
        error = error_of(self.confidence)
        lower = max((_bound(share, error / families) for share in shares), default=0.0)
        halved = max((_bound(share, error / families / 2) for share in shares), default=0.0)
        seen = _bound(direct, error / 2)
        best = int(np.argmax([share.lower for share in shares])) if shares else None
        region = None if best is None else regions[best]
        return Covered(
            spec if region is None else replace(spec, region=region),
            region,
            label or "all",
            None if best is None else shares[best],
            lower,
            direct,
            max(halved, seen),
            self.confidence,
            _assumptions(label, self.confidence, families, other),
        )

    def _coverage(self, region: f.Region, label: str | None) -> Share:
        """The share of a class's images (or of all) in a region."""
        points = np.asarray(self.images.embeddings)
        if label is not None:
            if self.images.labels is None:
                raise BadUsage(f"coverage of the class '{label}' needs the labels of the images")
            points = points[np.asarray(self.images.labels) == self.lens.class_index(label)]
        finite = points[np.isfinite(points).all(axis=1)].astype(np.float64)
        found = inside(build_regions(region, self.lens), self.space, finite)
        return _share(int(found.sum()), len(points), self.confidence)


def _bound(share: Share, error: float) -> float:
    """The one-sided lower bound of a share."""
    return clopper_pearson_lower(share.count, share.total, 1.0 - error)


def _assumptions(
    label: str | None, confidence: float, families: int, other: bool
) -> tuple[str, ...]:
    whose = f"images of the class '{label}'" if label is not None else "images"
    sample = "sample" if other else "held-out images"
    paid = f", each of {families} families of regions at 1/{families} of the error"
    return (
        f"By coverage: the spec is proved on the region, and of the {whose} a share of at least "
        f"`lower` lies in it, with confidence {confidence:g}{paid if families > 1 else ''}. The "
        "region was chosen without looking at these images.",
        f"Direct: a Clopper–Pearson interval of the held-out {whose} that satisfy the spec.",
        "Combined: the greater of both lower bounds, each at half the error (union bound).",
        f"Assumes that the {sample} are independent draws of the {whose} that are meant. "
        "Membership in regions that are no boxes is decided up to a tolerance of 1e-9. "
        "None of these numbers is a proof.",
    )
