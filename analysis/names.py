"""Names for predicates, in the concepts of a lens.

Two things must speak for a concept. Through the map: the predicate's feature, in its direction,
moves the mapped embedding towards the concept, and more so than 95 % of random directions would
by chance (this by itself, without correction). In the images: those in which the
predicate is active show more of the concept, to the vision-language model itself, than those in
which it is not; a Welch test says whether by more than chance, corrected by Holm for all
predicates and concepts. The name is the concept with the largest difference in units of the
standard deviation within the two groups (Cohen's d); if none is large enough, there is no name.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from conspec.analysis.pathways import Array, Bools, Floats
from conspec.analysis.predicates import Vocabulary
from conspec.encodings.query import space_of
from conspec.lens.bundle import Lens
from conspec.specs.errors import BadUsage
from conspec.verifier.probability.intervals import holm

LEAST_EFFECT = 0.5
"""Least difference for a name, in standard deviations; Cohen calls 0.5 a medium one."""
FEWEST = 5
"""Least number of images with and without an active predicate for a test."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What speaks for each concept as the name of each of P predicates.

    Attributes:
        concepts: M names.
        direction: cosine between the mapped direction of the predicate and the concept, [P, M].
        difference: mean score in images with the predicate active minus inactive, [P, M].
        effect: the same in standard deviations within the groups, [P, M].
        p_value: of the difference, corrected for all P × M; 1 where there were too few images.
        least_cosine: what a random direction exceeds with probability 5 %.
    """

    concepts: tuple[str, ...]
    direction: Floats
    difference: Floats
    effect: Floats
    p_value: Floats
    least_cosine: float

    def names(self, confidence: float = 0.95, least: float = LEAST_EFFECT) -> "list[Name | None]":
        """The name of each predicate, or None where nothing fits.

        Args:
            confidence: with this probability, no name at all is due to chance.
            least: least effect.
        """
        fits = (
            (self.p_value <= 1 - confidence)
            & (self.direction > self.least_cosine)
            & (self.effect >= least)
        )
        best = np.where(fits, self.effect, -np.inf).argmax(axis=1)
        return [self._name(row, place) if fits[row, place] else None for row, place in _rows(best)]

    def _name(self, row: int, place: int) -> "Name":
        return Name(
            self.concepts[place],
            float(self.direction[row, place]),
            float(self.difference[row, place]),
            float(self.effect[row, place]),
            float(self.p_value[row, place]),
        )


def _rows(best: Array) -> list[tuple[int, int]]:
    return list(enumerate(best.tolist()))


@dataclass(frozen=True, slots=True)
class Name:
    """A concept that names a predicate, with its evidence; see ``Evidence``."""

    concept: str
    direction: float
    difference: float
    effect: float
    p_value: float

    def __str__(self) -> str:
        """The concept."""
        return self.concept


def evidence(lens: Lens, vocabulary: Vocabulary, active: Bools, images: Bools) -> Evidence:
    """What speaks for each concept of a bundle as a name of each predicate.

    Args:
        lens: the bundle. Its head must be affine, since the map starts from the embedding.
        vocabulary: the P predicates.
        active: which of them hold in the stored images, [N, P].
        images: which images count, [N]; best those that names should not be tuned to.

    Raises:
        BadUsage: the head has a hidden layer, and the predicates are about that.
    """
    if not space_of(lens).head.is_affine:
        raise BadUsage(
            "predicates of a hidden layer get no names: the concept map starts from the embedding"
        )
    data = lens.embeddings
    scores = data.vlm[images].astype(np.float64) @ data.directions.T.astype(np.float64)
    scores /= np.linalg.norm(data.vlm[images].astype(np.float64), axis=1, keepdims=True)
    difference, effect, p_value = _compared(scores, active[images])
    corrected = holm(p_value.ravel()).reshape(p_value.shape) if p_value.size else p_value
    directions = _directions(lens, vocabulary)
    chance = _chance_cosine(lens.vlm_dim)
    return Evidence(lens.concepts, directions, difference, effect, corrected, chance)


def _chance_cosine(dimension: int) -> float:
    """What the cosine of a random direction with a fixed one exceeds with probability 5 %.

    ``(cosine + 1) / 2`` has a beta distribution with both parameters ``(p − 1) / 2``.
    """
    from scipy import stats

    half = (dimension - 1) / 2
    return float(2 * stats.beta.ppf(0.95, half, half) - 1) if dimension > 1 else 0.0


def _directions(lens: Lens, vocabulary: Vocabulary) -> Floats:
    """Cosines [P, M] between ``± A e_j`` and the concepts, 0 for a feature that A ignores."""
    columns = space_of(lens).aligned.floats[0].T[vocabulary.feature]  # [P, p]
    lengths = np.linalg.norm(columns, axis=1, keepdims=True)
    unit = np.divide(columns, lengths, where=lengths > 0, out=np.zeros_like(columns))
    found = unit @ lens.embeddings.directions.T.astype(np.float64)
    return np.asarray(found * vocabulary.sign[:, None])


def _compared(scores: Floats, active: Bools) -> tuple[Floats, Floats, Floats]:
    """Difference, effect and Welch's two-sided p of scores [N, M] by predicates [N, P]: [P, M]."""
    from scipy import stats

    with_it, without = _moments(scores, active), _moments(scores, ~active)
    (n, mean, variance), (m, other, rest) = with_it, without
    difference = mean - other
    tested = np.broadcast_to((n >= FEWEST) & (m >= FEWEST), difference.shape)
    pooled = ((n - 1) * variance + (m - 1) * rest) / np.maximum(n + m - 2, 1)
    usable = tested & (pooled > 0)
    deviation = np.sqrt(np.where(usable, pooled, 1.0))
    effect = np.where(usable, difference / deviation, 0.0)
    a, b = variance / np.maximum(n, 1), rest / np.maximum(m, 1)
    total = np.where(usable, a + b, 1.0)
    freedom = total**2 / np.where(usable, _square(a, n) + _square(b, m), 1.0)
    p_value = 2 * stats.t.sf(np.abs(difference) / np.sqrt(total), np.where(usable, freedom, 1.0))
    return difference, effect, np.where(usable, p_value, 1.0)


def _square(part: Floats, count: Array) -> Floats:
    """A term of Welch and Satterthwaite's degrees of freedom."""
    return np.asarray(part**2 / np.maximum(count - 1, 1))


def _moments(scores: Floats, chosen: Bools) -> tuple[Array, Floats, Floats]:
    """Counts [P, 1], means and unbiased variances [P, M] of the chosen images; 0 for none."""
    weight = chosen.T.astype(np.float64)  # [P, N]
    count = weight.sum(axis=1, keepdims=True)
    centred = scores - scores.mean(axis=0)
    mean = weight @ centred / np.maximum(count, 1)
    square = weight @ centred**2 / np.maximum(count, 1) - mean**2
    variance = np.maximum(square, 0) * count / np.maximum(count - 1, 1)
    return count, mean, variance


def named_share(names: Sequence[Name | None]) -> float:
    """Share of predicates with a name."""
    return sum(name is not None for name in names) / max(len(names), 1)
