"""Rare violations in a model of a class's embeddings, by importance sampling.

The model is a Gaussian or a kernel density: ``z = centre_i + F x`` with x standard normal and the
centre drawn uniformly. For a violation of probability 1e-9 plain samples see nothing. Instead:

1. The violation is covered by conjunctions of half-spaces. For each, and each centre, multipliers
   ``λ ≥ 0`` of the half-spaces ``G x + h ≥ 0`` give one half-space around all of it,
   ``d·x ≥ c`` with ``d = Gᵀλ``, ``c = −λ·h``. The best λ makes its nearest point to 0 the most
   likely violating point (the design point); any λ is safe, by weak duality.
2. A half-space is chosen with probability proportional to its own, ``Φ(−c/‖d‖)``, and x is drawn
   from the normal law inside it. With S the sum of these probabilities and N(x) the number of
   half-spaces that hold x, the likelihood ratio is ``S/N(x)``: no weighted violation is larger
   than S, which is about as small as the probability itself (Owen, Maximov and Chertkov 2019,
   importance sampling the union of rare events).
3. The interval for the mean of bounded independent numbers is the empirical Bernstein bound
   (Maurer and Pontil 2009, theorem 4). It assumes nothing but the bound.

Where formulas speak of ``has`` or of logits of a ReLU head, the cover drops these literals. If it
then holds everything, half of the samples come from normal laws around violations that a search
with larger deviations found; the other half keeps the ratio bounded, by 2.

This is statistics about a model. It is no proof, and it says nothing about how well the model fits
the tails of real embeddings; scores are computed in plain float64.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.rounding import Bools, Floats
from conspec.encodings.scores import ScoreSpace
from conspec.specs.errors import BadUsage
from conspec.specs.formula import Formula
from conspec.specs.semantics import ScoreBatch, margin, truth
from conspec.verifier.probability.designs import FARTHEST, Model, cover, design

BATCH = 2**22
"""Numbers in the largest array of one step of sampling."""
LOCAL_SHARE = 0.5
"""Share of the samples near violations that a search found, where the cover is no help."""
LOCAL = 4
"""How many of them there are per centre."""
SCALES = (1.0, 2.0, 3.0, 4.0, 6.0)
"""Standard deviations of that search."""


@dataclass(frozen=True)
class Sampling:
    """How to sample.

    Attributes:
        samples: how many, at least 2.
        confidence: of the intervals.
        seed: of the random numbers.
    """

    samples: int = 100_000
    confidence: float = 0.99
    seed: int = 0


@dataclass(frozen=True)
class RareEstimate:
    """Probability of a violation in a model.

    Attributes:
        estimate: the weighted share of violating samples: unbiased.
        lower: with ``confidence``, the probability lies between these; assumes only that weighted
            violations are at most ``bound``.
        upper: the same.
        approximate: the interval of the central limit theorem at the same confidence: no
            guarantee, narrower.
        confidence: as asked.
        samples: as asked.
        hits: violating samples.
        effective: as many unweighted hits would be as good: ``(Σw)²/Σw²`` over violations.
        bound: the largest possible weighted violation.
        designs: proposals used.
        union: upper bound of the probability: the half-spaces' added up.
        assumption: the model in words.
    """

    estimate: float
    lower: float
    upper: float
    approximate: tuple[float, float]
    confidence: float
    samples: int
    hits: int
    effective: float
    bound: float
    designs: int
    union: float
    assumption: str


def rare_violation(
    space: ScoreSpace, formula: Formula, model: Model, how: Sampling | None = None
) -> RareEstimate:
    """Estimates the probability that a formula is violated.

    Args:
        space: the score functions.
        formula: what should hold.
        model: the distribution of embeddings.
        how: samples, confidence and seed.

    Raises:
        BadUsage: fewer than two samples, a confidence that is none, or a model of another
            dimension.
        UnknownName: the formula names what the space does not have.
    """
    how = how or Sampling()
    if how.samples < 2 or not 0 < how.confidence < 1:
        raise BadUsage("sampling needs two samples or more and a confidence between 0 and 1")
    if model.centers.shape[1] != space.dimension:
        raise BadUsage(
            f"a model of {model.centers.shape[1]} dimensions for embeddings of {space.dimension}"
        )
    random = np.random.default_rng(how.seed)
    designs = _designs(space, formula, model, random)
    if not designs.total:
        return _summary(np.zeros(how.samples), designs, model, how)
    batches = _samples(designs, model, how.samples, random)
    hits = [np.where(violated(space, formula, z), weight, 0.0) for z, weight in batches]
    return _summary(np.concatenate(hits), designs, model, how)


def scores(space: ScoreSpace, points: Floats) -> ScoreBatch:
    """All scores at points [N, n], in plain float64."""
    weight, bias = space.concept_map.floats
    concepts = points @ weight.T + bias
    cosines = None
    if space.alignment is not None:
        rows, offset = space.alignment.floats
        lengths = np.linalg.norm(points @ rows.T + offset, axis=1)
        cosines = concepts / np.maximum(lengths, np.finfo(np.float64).tiny)[:, None]
    thresholds = {name: float(value) for name, value in space.thresholds.items()}
    return ScoreBatch(
        space.head.floats(points),
        concepts,
        space.classes,
        space.concepts,
        cosines,
        thresholds,
        points,
    )


def violated(space: ScoreSpace, formula: Formula, points: Floats) -> Bools:
    """Whether the formula is false at each of the points [N, n]."""
    return ~np.asarray(truth(formula, scores(space, points)), dtype=np.bool_)


@dataclass(frozen=True, eq=False)
class _Designs:
    """Half-spaces ``normal · x ≥ distance`` around the violation, per centre; and local proposals.

    Attributes:
        normals: [C, D, r].
        distances: [C, D].
        masses: [C, D], probability of centre and half-space; 0 where it is not sampled.
        left_out: probability of the half-spaces that are not sampled.
        shifts: [C, L, r], centres of local normal laws.
        shares: [C, L], of sum 1; or nothing.
    """

    normals: Floats
    distances: Floats
    masses: Floats
    left_out: float
    shifts: Floats
    shares: Floats

    @property
    def total(self) -> float:
        """S, the sum of the masses."""
        return float(self.masses.sum())

    @property
    def local(self) -> float:
        """Share of the samples that come from local laws."""
        return LOCAL_SHARE if self.shares.size else 0.0

    @property
    def bound(self) -> float:
        """The largest possible weight of a violation."""
        return self.total / (1 - self.local)


def _designs(
    space: ScoreSpace, formula: Formula, model: Model, random: np.random.Generator
) -> _Designs:
    """Half-spaces around the violation, and points near violations if those hold everything."""
    from scipy.special import ndtr

    conjunctions, complete = cover(space, space.negated(formula))
    parts = [design(space, part, model) for part in conjunctions]
    count, size = len(model.centers), model.factor.shape[1]
    normals, distances = np.zeros((count, len(parts), size)), np.zeros((count, len(parts)))
    for place, (normal, distance) in enumerate(parts):
        normals[:, place], distances[:, place] = normal, distance
    tails = np.where(distances > 0, ndtr(-distances), 1.0) / count
    kept = distances <= FARTHEST
    found = None
    if not complete and (distances == 0).any():
        found = _local(space, formula, model, random)
    shifts, shares = found or (np.zeros((count, 0, size)), np.zeros((count, 0)))
    masses, left_out = np.where(kept, tails, 0.0), float(tails[~kept].sum())
    return _Designs(normals, distances, masses, left_out, shifts, shares)


def _local(
    space: ScoreSpace, formula: Formula, model: Model, random: np.random.Generator
) -> tuple[Floats, Floats] | None:
    """Shifts [C, L, r] and shares [C, L] near violations found with larger deviations."""
    count, size = len(model.centers), model.factor.shape[1]
    draws = 20_000
    owner = random.integers(count, size=draws)
    x = random.normal(size=(draws, size)) * np.resize(SCALES, draws)[:, None]
    values = margin(formula, scores(space, model.centers[owner] + x @ model.factor.T))
    bad = np.flatnonzero(np.asarray(values) < 0)
    if not bad.size:
        return None
    shares, inside = np.ones(len(bad)), np.zeros(len(bad))
    for _ in range(20):  # back along the ray to the border of the violation
        middle = (shares + inside) / 2
        points = model.centers[owner[bad]] + (x[bad] * middle[:, None]) @ model.factor.T
        wrong = violated(space, formula, points)
        shares, inside = np.where(wrong, middle, shares), np.where(wrong, inside, middle)
    border = x[bad] * shares[:, None]
    order = np.argsort(np.linalg.norm(border, axis=1), kind="stable")
    shifts, weights = np.zeros((count, LOCAL, size)), np.zeros((count, LOCAL))
    for place in order[: LOCAL * count]:
        free = np.flatnonzero(weights[owner[bad[place]]] == 0)
        if free.size:
            shifts[owner[bad[place]], free[0]] = border[place]
            weights[owner[bad[place]], free[0]] = 1.0
    return shifts, weights / weights.sum()


def _samples(
    designs: _Designs, model: Model, count: int, random: np.random.Generator
) -> Iterator[tuple[Floats, Floats]]:
    """Batches of embeddings [N, n] and likelihood ratios [N]."""
    width = designs.masses.shape[1] + designs.shares.shape[1]
    step = max(1, BATCH // (width * model.factor.shape[1]))
    for start in range(0, count, step):
        size = min(step, count - start)
        local = random.random(size) < designs.local
        owner, x = _inside(designs, size, random)
        if local.any():
            owner[local], x[local] = _around(designs, int(local.sum()), random)
        yield model.centers[owner] + x @ model.factor.T, _ratios(designs, owner, x)


def _inside(
    designs: _Designs, size: int, random: np.random.Generator
) -> tuple[NDArray[np.intp], Floats]:
    """Centres [N] and x [N, r], normal inside a half-space that is chosen by its mass."""
    from scipy.special import ndtr, ndtri

    masses = designs.masses
    chosen = random.choice(masses.size, size=size, p=masses.ravel() / masses.sum())
    owner, place = np.divmod(chosen, masses.shape[1])
    normal, distance = designs.normals[owner, place], designs.distances[owner, place]
    x = random.normal(size=normal.shape)
    # Along the normal: the normal law beyond the distance, by its inverse, without cancellation.
    along = -ndtri((1 - random.random(size)) * ndtr(-distance))
    along = np.where(distance > 0, along, (x * normal).sum(axis=1))
    return owner, x + normal * (along - (x * normal).sum(axis=1))[:, None]


def _around(
    designs: _Designs, size: int, random: np.random.Generator
) -> tuple[NDArray[np.intp], Floats]:
    """Centres [N] and x [N, r] from the local normal laws."""
    chosen = random.choice(designs.shares.size, size=size, p=designs.shares.ravel())
    owner, place = np.divmod(chosen, designs.shares.shape[1])
    shift = designs.shifts[owner, place]
    return owner, shift + random.normal(size=shift.shape)


def _ratios(designs: _Designs, owner: NDArray[np.intp], x: Floats) -> Floats:
    """Density of the model over that of the proposal, at centres [N] and x [N, r]."""
    inside = np.einsum("bdr,br->bd", designs.normals[owner], x) >= designs.distances[owner]
    # A point on the border of the half-space it was drawn from may round to the outside.
    number = np.maximum((inside & (designs.masses[owner] > 0)).sum(axis=1), 1)
    density = (1 - designs.local) * number / designs.total
    if designs.local:
        shifts = designs.shifts[owner]
        powers = np.einsum("blr,br->bl", shifts, x) - (shifts**2).sum(axis=2) / 2
        shares = designs.shares[owner] * len(designs.shares)
        with np.errstate(over="ignore", under="ignore"):
            density = density + designs.local * (shares * np.exp(powers)).sum(axis=1)
    found: Floats = 1.0 / density
    return found


def _summary(weights: Floats, designs: _Designs, model: Model, how: Sampling) -> RareEstimate:
    """The estimate and its intervals from weighted violations [N]."""
    from scipy.special import ndtri

    # Relative to the bound, since squares of weights could underflow.
    scale, union = designs.bound or 1.0, min(designs.total + designs.left_out, 1.0)
    shares = weights / scale
    mean, error = float(shares.mean()), float(shares.std(ddof=1) / np.sqrt(how.samples))
    lower, upper = bernstein(shares, 1 - how.confidence)
    reach = float(-ndtri((1 - how.confidence) / 2)) * error
    squares = float(np.square(shares).sum())
    return RareEstimate(
        estimate=mean * scale,
        lower=lower * scale,
        upper=min(upper * scale + designs.left_out, union),
        approximate=(max(mean - reach, 0.0) * scale, min((mean + reach) * scale, union)),
        confidence=how.confidence,
        samples=how.samples,
        hits=int(np.count_nonzero(weights)),
        effective=float(shares.sum()) ** 2 / squares if squares else 0.0,
        bound=designs.bound,
        designs=int(np.count_nonzero(designs.masses) + np.count_nonzero(designs.shares)),
        union=union,
        assumption=model.text,
    )


def bernstein(values: Floats, risk: float) -> tuple[float, float]:
    """Interval that misses the mean of independent numbers in [0, 1] with at most ``risk``.

    Empirical Bernstein bound (Maurer and Pontil 2009, theorem 4) with half the risk on each side.
    """
    count = len(values)
    power = float(np.log(4 / risk))
    deviation = float(np.sqrt(2 * values.var(ddof=1) * power / count))
    reach = deviation + 7 * power / (3 * (count - 1))
    mean = float(values.mean())
    return max(mean - reach, 0.0), mean + reach
