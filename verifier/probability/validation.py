"""Does the model see concepts as the vision-language model does? Counts, not proofs.

For each class c and each pair of concepts the satisfaction probability ``P(a > b | x in c)`` is
estimated twice on the same held-out images: with the VLM's own embedding g (scores ``q̂_a · g``),
and through the map, with the bundle's concept map (scores ``q̂_a · (A z + d)``). Source: the
statistical validation of rep in arXiv 2403.19837.

As the images are the same, a difference is tested with McNemar's exact test: of the images on
which the two differ, each side is right about half if their probabilities are equal. Holm's
correction is over all cells of all classes.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.exact import Vector, from_array
from conspec.encodings.network import Affine
from conspec.encodings.query import space_of
from conspec.encodings.rounding import TINY, UNIT, Bools, Floats, row_bounds
from conspec.lens.bundle import Lens
from conspec.verifier.probability.intervals import binomial_p_value, clopper_pearson, holm

Counts = NDArray[np.int64]

WORK = 2**24
"""Entries of the largest array of one step."""


@dataclass(frozen=True, eq=False)
class Preferences:
    """Of one side, how many images of each class have concept a above concept b.

    Attributes:
        counts: int [C, M, M]; the first concept index is the stronger one.
        lower: Clopper–Pearson bounds [C, M, M], each cell by itself; 0 without images.
        upper: the same; 1 without images.
    """

    counts: Counts
    lower: Floats
    upper: Floats


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A cell in which the two sides differ significantly.

    Attributes:
        label: the class.
        stronger: concept a.
        weaker: concept b.
        vlm: share of the class's held-out images with ``a > b`` for the VLM.
        model: the same through the map.
        vlm_only: images on which only the VLM has ``a > b``.
        model_only: images on which only the model has it.
        p_value: of McNemar's exact test, after Holm's correction over all cells.
    """

    label: str
    stronger: str
    weaker: str
    vlm: float
    model: float
    vlm_only: int
    model_only: int
    p_value: float


@dataclass(frozen=True, eq=False)
class Validation:
    """The VLM and the model side by side, for C classes and M concepts.

    Attributes:
        classes: C names.
        concepts: M names.
        totals: held-out images of each class, int [C].
        vlm: with the VLM's embeddings.
        model: through the map.
        vlm_only: images on which only the VLM has ``a > b``, int [C, M, M].
        model_only: images on which only the model has it.
        p_values: of McNemar's exact test after Holm's correction [C, M, M]; 1 on the diagonal.
        confidence: of each interval by itself.
        assumption: what the numbers rest on, in words.
    """

    classes: tuple[str, ...]
    concepts: tuple[str, ...]
    totals: Counts
    vlm: Preferences
    model: Preferences
    vlm_only: Counts
    model_only: Counts
    p_values: Floats
    confidence: float
    assumption: str

    def disagreements(self, alpha: float = 0.05) -> list[Disagreement]:
        """The cells in which the two sides differ, the surest first.

        The probability that any of them is there though both sides' probabilities are equal is at
        most alpha. Where no image has a tie, ``a > b`` and ``b > a`` are found together.
        """
        found = []
        for c, a, b in np.argwhere(self.p_values <= alpha).tolist():
            total = int(self.totals[c])
            found.append(
                Disagreement(
                    self.classes[c],
                    self.concepts[a],
                    self.concepts[b],
                    int(self.vlm.counts[c, a, b]) / total,
                    int(self.model.counts[c, a, b]) / total,
                    int(self.vlm_only[c, a, b]),
                    int(self.model_only[c, a, b]),
                    float(self.p_values[c, a, b]),
                )
            )
        return sorted(found, key=lambda cell: cell.p_value)


def validate(lens: Lens, confidence: float = 0.95) -> Validation:
    """Compares the two sides on the bundle's held-out images with a known class.

    Raises:
        BadUsage: the confidence does not lie strictly between 0 and 1.
    """
    data = lens.embeddings
    chosen = data.heldout & (data.label >= 0)
    directions = Affine(data.directions.astype(np.float64), np.zeros(len(lens.concepts)))
    vlm = _Side(directions, data.vlm[chosen].astype(np.float64))
    model = _Side(space_of(lens).concept_map, data.z[chosen].astype(np.float64))
    members = data.label[chosen][None] == np.arange(len(lens.classes))[:, None]
    both = _counted(vlm, model, members)
    totals = members.sum(axis=1).astype(np.int64)
    vlm_only, model_only = both[0] - both[2], both[1] - both[2]
    return Validation(
        lens.classes,
        lens.concepts,
        totals,
        _preferences(both[0], totals, confidence),
        _preferences(both[1], totals, confidence),
        vlm_only,
        model_only,
        _adjusted(mcnemar(vlm_only, model_only), totals),
        confidence,
        f"Each interval holds with confidence {confidence:g} by itself. Assumes that the held-out "
        "images of a class are independent draws of its images. It is no proof.",
    )


def mcnemar(first_only: Counts, second_only: Counts) -> Floats:
    """McNemar's exact two-sided p-values of paired counts, of any one shape.

    Under the null hypothesis the discordant pairs fall on either side with probability 1/2; the
    p-value is twice the smaller binomial tail, at most 1.
    """
    smaller = np.minimum(first_only, second_only)
    return np.minimum(2 * binomial_p_value(smaller, first_only + second_only, 0.5, "less"), 1.0)


def _adjusted(p_values: Floats, totals: Counts) -> Floats:
    """Holm's correction over all cells off the diagonal of classes that have images."""
    size = p_values.shape[1]
    tested = (totals > 0)[:, None, None] & ~np.eye(size, dtype=np.bool_)
    result = np.ones_like(p_values)
    result[tested] = holm(p_values[tested])
    return result


def _preferences(counts: Counts, totals: Counts, confidence: float) -> Preferences:
    every = np.broadcast_to(totals[:, None, None], counts.shape)
    lower, upper = clopper_pearson(counts, every, confidence)
    return Preferences(counts, lower, upper)


@dataclass(frozen=True, eq=False)
class _Side:
    """Concept scores of one side: an affine map of the points [N, k]."""

    scores: Affine
    points: Floats

    def above(self, part: slice) -> Bools:
        """Whether concept a is strictly above b, bool [N, M, M]; exact, near ties too."""
        weight, bias = self.scores.floats
        points = self.points[part]
        errors = (np.abs(weight) * UNIT + TINY, np.abs(bias) * UNIT + TINY)
        low, high = row_bounds(weight, bias, errors, points, points)
        above: Bools = low[:, :, None] > high[:, None, :]
        unsure = ~above & ~(high[:, :, None] <= low[:, None, :])
        rows, first, second = np.nonzero(np.triu(unsure | unsure.transpose(0, 2, 1), 1))
        for row in np.unique(rows):
            exact = self._exact(from_array(points[row]))
            for a, b in zip(first[rows == row].tolist(), second[rows == row].tolist(), strict=True):
                above[row, a, b] = exact[a] > exact[b]
                above[row, b, a] = exact[b] > exact[a]
        return above

    def _exact(self, point: Vector) -> list[Fraction]:
        return self.scores.exact(point)


def _counted(vlm: _Side, model: _Side, members: Bools) -> Counts:
    """How often the VLM, the model, and both have a above b: int [3, C, M, M]."""
    size = vlm.scores.outputs
    total = np.zeros((3, len(members), size * size), dtype=np.int64)
    step = max(1, WORK // (size * size))
    for start in range(0, len(vlm.points), step):
        part = slice(start, start + step)
        first, second = vlm.above(part), model.above(part)
        own = members[:, part].astype(np.float64)
        for place, truth in enumerate((first, second, first & second)):
            # Sums of fewer than 2**53 ones are exact in float64, and BLAS adds them fast.
            table = truth.reshape(len(truth), -1).astype(np.float64)
            total[place] += (own @ table).astype(np.int64)
    return total.reshape(3, len(members), size, size)
