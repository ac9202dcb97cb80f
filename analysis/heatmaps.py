"""Semantic heatmaps: how often one concept is stronger than another, in groups of images.

The definitions are those of "Debugging and Runtime Analysis of Neural Networks with VLMs"
(arXiv 2503.17416). A single-input map is ``A(x)[i, j] = 1`` if ``s_i(x) > s_j(x)``, else 0: it is
the ranking of the concepts, and is stored as ranks. A summary map is the mean of A over a group
of images. As ``>`` is strict, ties count for neither direction, and ``G[i, j] + G[j, i]`` may be
below 1; so maps hold exact counts of both directions.

These are statistics of a sample of images and prove nothing. Scores are computed in float64; two
scores of one image that agree to within its rounding may come out in either order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.query import space_of
from conspec.lens.bundle import Lens
from conspec.specs.errors import BadUsage
from conspec.specs.ranking import pair_counts
from conspec.verifier.probability.intervals import clopper_pearson

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]
Ranking = NDArray[np.floating[Any]] | NDArray[np.integer[Any]]
"""Scores, or the ranks that they make: [N, M]."""


class Source(StrEnum):
    """Whose concept scores are compared."""

    MODEL = "model"
    """The vision model's embedding, through the concept map."""
    VLM = "vlm"
    """The vision-language model's own embedding of the image."""


class Kind(StrEnum):
    """Which images a summary map is about; c is the class, or the pair of classes."""

    GROUND_TRUTH = "ground-truth"
    """G_c: label c."""
    OUTPUT = "output"
    """O_c: predicted c."""
    CORRECT = "correct"
    """G_c⁺: label c, predicted c."""
    WRONG = "wrong"
    """G_c⁻: label c, predicted otherwise."""
    OUTPUT_WRONG = "output-wrong"
    """O_c⁻: predicted c, label otherwise."""
    CONFUSION = "confusion"
    """H_{c→c'}: label c, predicted another class c'."""


@dataclass(frozen=True, eq=False)
class Maps:
    """The summary maps of G groups of images.

    Attributes:
        groups: G names.
        concepts: M names.
        counts: in how many images of the group concept i is stronger than j, int64 [G, M, M].
        totals: images in each group, int64 [G]; a group with 0 images has no map.
    """

    groups: tuple[str, ...]
    concepts: tuple[str, ...]
    counts: Integers
    totals: Integers

    def __post_init__(self) -> None:
        """Refuse shapes that do not fit, and counts that cannot be."""
        shape = (len(self.groups), len(self.concepts), len(self.concepts))
        if self.counts.shape != shape or self.totals.shape != shape[:1]:
            raise BadUsage(f"counts have shape {self.counts.shape}, expected {shape}")
        both = self.counts + self.counts.transpose(0, 2, 1)
        if (self.counts < 0).any() or (both > self.totals[:, None, None]).any():
            raise BadUsage("two concepts are compared more often than there are images")

    @property
    def known(self) -> Bools:
        """Which groups have a map, [G]."""
        return self.totals > 0

    @property
    def shares(self) -> Floats:
        """The maps themselves, in [0, 1], [G, M, M].

        Raises:
            BadUsage: a group has no images, so no map; see ``only_known``.
        """
        if not self.known.all():
            empty = [name for name, is_known in zip(self.groups, self.known, strict=True)
                     if not is_known]  # fmt: skip
            raise BadUsage(f"there is no map without images: {', '.join(empty[:5])}")
        return np.asarray(self.counts / self.totals[:, None, None], dtype=np.float64)

    def intervals(self, confidence: float = 0.95) -> tuple[Floats, Floats]:
        """Clopper and Pearson's interval of each cell, each by itself: two of [G, M, M].

        A group without images has (0, 1) everywhere: nothing is known.
        """
        totals = np.broadcast_to(self.totals[:, None, None], self.counts.shape)
        lower, upper = clopper_pearson(self.counts.ravel(), totals.ravel(), confidence)
        return lower.reshape(self.counts.shape), upper.reshape(self.counts.shape)

    def chosen(self, places: Sequence[int]) -> "Maps":
        """The maps of some groups, in the order given."""
        at = list(places)
        names = tuple(self.groups[place] for place in at)
        return Maps(names, self.concepts, self.counts[at], self.totals[at])

    def only_known(self) -> "Maps":
        """The maps of the groups that have images."""
        return self.chosen([int(place) for place in np.flatnonzero(self.known)])


def summary(
    scores: Ranking, groups: Integers, names: Sequence[str], concepts: Sequence[str]
) -> Maps:
    """The summary map of each group.

    Args:
        scores: concept scores, or their ranks, [N, M].
        groups: the group of each image, int64 [N]; −1 for none.
        names: of the G groups.
        concepts: M names.

    Raises:
        BadUsage: shapes do not fit, or a score is not a number.
    """
    counts = pair_counts(scores, groups, len(names))
    totals = np.bincount(groups[groups >= 0], minlength=len(names))
    return Maps(tuple(names), tuple(concepts), counts, totals)


def scores_of(lens: Lens, source: Source) -> Floats:
    """The concept scores of all stored images, float64 [N, M], in the order of the images.

    They are projections on the unit directions of the concepts. The cosines of the paper are
    these divided by the length of the image's embedding, so they are ordered alike.
    """
    data = lens.embeddings
    if source is Source.VLM:
        return data.vlm.astype(np.float64) @ data.directions.T.astype(np.float64)
    weight, bias = space_of(lens).concept_map.floats
    return np.asarray(data.z.astype(np.float64) @ weight.T + bias, dtype=np.float64)


def grouped(
    kind: Kind, label: Integers, predicted: Integers, classes: Sequence[str]
) -> tuple[Integers, list[str]]:
    """The group of each image, −1 for none, and the names of all groups.

    Args:
        kind: which images belong together.
        label: true class, int64 [N]; −1 where it is unknown.
        predicted: class with the largest logit, int64 [N].
        classes: K names; they are the groups, but for ``CONFUSION``: there, each pair that occurs
            is one, named "c as c'".
    """
    names, known = list(classes), label >= 0
    match kind:
        case Kind.GROUND_TRUTH:
            return label, names
        case Kind.OUTPUT:
            return predicted, names
        case Kind.CORRECT:
            return np.where(label == predicted, label, -1), names
        case Kind.WRONG:
            return np.where(label != predicted, label, -1), names
        case Kind.OUTPUT_WRONG:
            return np.where(known & (label != predicted), predicted, -1), names
        case Kind.CONFUSION:
            # Of K² pairs only those that occur: with 1,000 classes the others would fill memory.
            fails = known & (label != predicted)
            pairs = np.where(fails, label * len(names) + predicted, -1)
            seen = np.unique(pairs[fails])
            places = np.where(fails, np.searchsorted(seen, pairs), -1)
            cells = [divmod(int(pair), len(names)) for pair in seen]
            return places, [f"{names[own]} as {names[other]}" for own, other in cells]


def maps_of(lens: Lens, kind: Kind, source: Source, images: Bools) -> Maps:
    """The summary maps of a bundle's images.

    Args:
        lens: the bundle.
        kind: which images belong together.
        source: whose scores are compared.
        images: which images count, bool [N], such as ``lens.embeddings.heldout``.
    """
    data = lens.embeddings
    groups, names = grouped(kind, data.label, data.predicted, lens.classes)
    chosen = np.where(images, groups, -1)
    return summary(scores_of(lens, source), chosen, names, lens.concepts)


def binarized(maps: Maps, band: Fraction = Fraction(0)) -> NDArray[np.int8]:
    """Summary maps made comparable with single-input ones, int8 [G, M, M].

    1 where the share is above 1/2, else 0, and −1 ("don't care") where it lies strictly between
    1/2 − band and 1/2 + band. The comparison is exact.

    Args:
        maps: of groups that all have images.
        band: half the width of the dead band, in [0, 1/2].

    Raises:
        BadUsage: the band is out of range, or a group has no images.
    """
    if not 0 <= band <= Fraction(1, 2):
        raise BadUsage(f"a dead band must lie between 0 and 0.5, not {band}")
    if not maps.known.all():
        raise BadUsage("there is no map without images; leave out such groups")
    excess = 2 * maps.counts - maps.totals[:, None, None]
    limits = np.array([-(-2 * band * int(total) // 1) for total in maps.totals], dtype=np.int64)
    careless = np.abs(excess) < limits[:, None, None]
    return np.where(careless, -1, excess > 0).astype(np.int8)


def strengths(maps: Maps) -> Floats:
    """How strong each concept is: the mean share over its row, without itself, [G, M].

    It is the chance that the concept is stronger than another one drawn at random (a Borda
    score).

    Raises:
        BadUsage: a group has no images.
    """
    return np.asarray(maps.shares.sum(axis=2) / max(len(maps.concepts) - 1, 1), dtype=np.float64)


def by_strength(maps: Maps) -> list[int]:
    """The concepts from the strongest to the weakest on average over the groups with images."""
    mean = strengths(maps.only_known()).sum(axis=0)
    return [int(place) for place in np.argsort(-mean, kind="stable")]
