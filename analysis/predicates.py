"""Predicates of the last layer's input, learnt from pathways (VisionLogic, arXiv 2503.10547).

A predicate belongs to a class: ``z_j >= t`` for a feature that is selected with sign +, and
``z_j <= t`` for one selected with sign −. The threshold is the least (for −, the largest) value
of the feature in the source images of the class whose pathway has it, so all of these satisfy
it: the source images are the correctly classified training images. A quantile in place of the
extremum gives up some of them for a tighter predicate. Thresholds are inclusive.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from functools import cached_property

import numpy as np

from conspec.analysis.pathways import (
    Array,
    Bools,
    Floats,
    Integers,
    LastLayer,
    Pathways,
    pathways,
)
from conspec.specs.errors import BadUsage
from conspec.specs.formula import Compare, Coordinate, Linear, Relation


@dataclass(frozen=True, slots=True)
class Predicate:
    """A bound on one feature, learnt for one class.

    Attributes:
        label: number of the class.
        feature: number j of the feature.
        sign: 1 for ``z_j >= threshold``, −1 for ``z_j <= threshold``.
        threshold: t, a value that the feature has in some source image.
        support: source images of the class whose pathway has the signed feature.
    """

    label: int
    feature: int
    sign: int
    threshold: float
    support: int

    def holds(self, z: Array) -> Bools:
        """Whether it is active, bool [N], for features [N, d]."""
        value = z[:, self.feature]
        return np.asarray(value >= self.threshold if self.sign > 0 else value <= self.threshold)

    @property
    def bound(self) -> Fraction:
        """The threshold as it is written in rules; see `written_bound`."""
        return written_bound(self.threshold, self.sign)

    @property
    def formula(self) -> Compare:
        """The predicate in Con_spec: ``z(j) >= t`` or ``z(j) <= t``, with `bound` as t."""
        relation = Relation.GE if self.sign > 0 else Relation.LE
        left = Linear(((Fraction(1), Coordinate(self.feature)),))
        return Compare(left, relation, Linear((), self.bound))


def written_bound(threshold: float, sign: int) -> Fraction:
    """The shortest decimal that stands for a threshold.

    It lies on the lenient side: at most t for ``>=``, at least t for ``<=``, with no float
    between it and t. So it makes no difference to any embedding: float32 ones if t is a float32
    number, float64 ones otherwise. Over real numbers it makes the predicate a hair weaker.

    >>> float(written_bound(float(np.float32(0.3)), 1)), float(written_bound(-2.5, -1))
    (0.3, -2.5)
    """
    exact, outward = Decimal(threshold), -np.inf if sign > 0 else np.inf
    with np.errstate(over="ignore", under="ignore"):
        single = np.float32(threshold)
        near = single if float(single) == threshold else np.float64(threshold)
        beyond = Decimal(float(np.nextafter(near, type(near)(outward))))
    rounding = ROUND_FLOOR if sign > 0 else ROUND_CEILING
    digits = 1
    while True:
        short = Context(prec=digits, rounding=rounding).plus(exact)
        if beyond < short if sign > 0 else short < beyond:
            return Fraction(short)
        digits += 1


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The P predicates of all classes, in the order of class, sign (+ first) and feature.

    Attributes:
        classes: K, how many classes there are.
        width: d, how many features there are.
        label: number of the class, int64 [P].
        feature: number of the feature, int64 [P].
        sign: 1 or −1, int64 [P].
        threshold: float64 [P].
        support: source images of the class whose pathway has the signed feature, int64 [P].
        sources: source images of each class, int64 [K].
    """

    classes: int
    width: int
    label: Integers
    feature: Integers
    sign: Integers
    threshold: Floats
    support: Integers
    sources: Integers

    def __len__(self) -> int:
        """P."""
        return len(self.label)

    def __getitem__(self, place: int) -> Predicate:
        """One predicate."""
        return Predicate(
            int(self.label[place]),
            int(self.feature[place]),
            int(self.sign[place]),
            float(self.threshold[place]),
            int(self.support[place]),
        )

    def __iter__(self) -> Iterator[Predicate]:
        """All predicates."""
        return (self[place] for place in range(len(self)))

    @cached_property
    def keys(self) -> Integers:
        """``2 d · class + signed feature``, rising, int64 [P]."""
        return 2 * self.width * self.label + self.feature + np.where(self.sign > 0, 0, self.width)

    @property
    def sizes(self) -> Integers:
        """How many predicates each class has, int64 [K]."""
        return np.bincount(self.label, minlength=self.classes)

    def of_class(self, label: int) -> Integers:
        """The places of a class's predicates."""
        return np.flatnonzero(self.label == label)

    def places(self, label: Integers, signed: Integers) -> Integers:
        """The place of each class's signed feature, −1 where the class has none: int64 [S]."""
        wanted = 2 * self.width * label + signed
        if not len(self):
            return np.full(len(wanted), -1)
        place = np.searchsorted(self.keys, wanted).clip(max=len(self) - 1)
        return np.where(self.keys[place] == wanted, place, -1)

    def satisfied(self, value: Array, place: Integers) -> Bools:
        """Whether values [S] satisfy the predicates at some places [S] (inclusive)."""
        threshold = self.threshold[place]
        return np.where(self.sign[place] > 0, value >= threshold, value <= threshold)

    def active(self, z: Array) -> Bools:
        """Which predicates of all classes hold, bool [N, P], for features [N, d]."""
        value = z[:, self.feature]
        return np.where(self.sign > 0, value >= self.threshold, value <= self.threshold)

    def supported(self, least: int) -> "Vocabulary":
        """Only the predicates with at least so much support."""
        kept = self.support >= least
        return replace(
            self,
            label=self.label[kept],
            feature=self.feature[kept],
            sign=self.sign[kept],
            threshold=self.threshold[kept],
            support=self.support[kept],
        )


@dataclass(eq=False)
class Fitting:
    """Learns a vocabulary from source images that come in any number of batches.

    It keeps 12 to 16 bytes for each feature of each pathway, and no embeddings.

    Attributes:
        layer: the classifier's last layer.
        ahead: how many features pathways take after the prediction is reached.
    """

    layer: LastLayer
    ahead: int = 0
    _keys: list[Integers] = field(default_factory=list)
    _values: list[Array] = field(default_factory=list)
    _sources: list[Integers] = field(default_factory=list)

    def add(self, z: Array, predicted: Integers, label: Integers) -> Pathways:
        """Learn from the images that are classified correctly; their pathways.

        Args:
            z: features [N, d].
            predicted: classes by the model, int64 [N].
            label: true classes, int64 [N]; other than ``predicted``, or −1, is no source.

        Raises:
            BadUsage: see `pathways`.
        """
        right = np.asarray(predicted) == np.asarray(label)
        found = pathways(
            self.layer, z[right] if not right.all() else z, predicted[right], self.ahead
        )
        self.learn(found)
        return found

    def learn(self, found: Pathways) -> None:
        """Learn from pathways of source images."""
        keys = 2 * found.width * found.predicted[found.rows] + found.signed
        small = 2 * found.width * self.layer.classes < 2**31
        self._keys.append(keys.astype(np.int32) if small else keys)
        self._values.append(found.values)
        self._sources.append(np.bincount(found.predicted, minlength=self.layer.classes))

    def vocabulary(self, quantile: Fraction | float = 0, support: int = 1) -> Vocabulary:
        """The predicates of what was learnt so far.

        Args:
            quantile: q in [0, 1). The threshold is the ⌊q m⌋-th smallest (for −, largest) of
                the m values, counted from 0, so at least m (1 − q) of them satisfy it; with 0
                it is the extremum, and all do.
            support: leave out predicates that fewer source images have.

        Raises:
            BadUsage: a bad quantile.
        """
        share = Fraction(quantile)
        if not 0 <= share < 1:
            raise BadUsage(f"quantile {quantile}: must lie in [0, 1)")
        width, classes = self.layer.width, self.layer.classes
        keys = np.concatenate([np.zeros(0, np.int64), *self._keys])
        values = np.concatenate([np.zeros(0, np.float32), *self._values])
        inward = np.where(keys % (2 * width) < width, values, -values)
        order = np.lexsort((inward, keys))
        found, first, count = np.unique(keys[order], return_index=True, return_counts=True)
        given_up = count * share.numerator // share.denominator
        threshold = values[order[first + given_up]].astype(np.float64)
        label, signed = np.divmod(found, 2 * width)
        sources = np.sum([np.zeros(classes, np.int64), *self._sources], axis=0)
        sign = np.where(signed < width, 1, -1)
        fitted = (label, signed % width, sign, threshold, count)
        return Vocabulary(classes, width, *fitted, sources).supported(support)


def fit(
    layer: LastLayer,
    z: Array,
    predicted: Integers,
    label: Integers,
    quantile: Fraction | float = 0,
    support: int = 1,
) -> Vocabulary:
    """The vocabulary of one batch; see `Fitting`."""
    fitting = Fitting(layer)
    fitting.add(z, predicted, label)
    return fitting.vocabulary(quantile, support)


@dataclass(frozen=True, eq=False)
class Explained:
    """What of the pathways of N images is explained by a vocabulary.

    Attributes:
        pathways: the pathways, with S features in all.
        place: the predicate of each feature's class and sign, −1 if there is none, int64 [S].
        active: whether there is one, and it holds, bool [S].
    """

    pathways: Pathways
    place: Integers
    active: Bools

    @property
    def eligible(self) -> Bools:
        """Whether the vocabulary has a predicate for the selected feature, bool [S]."""
        return self.place >= 0

    @cached_property
    def counts(self) -> Integers:
        """How many predicates explain each image, int64 [N]."""
        images = len(self.pathways.predicted)
        return np.bincount(self.pathways.rows[self.active], minlength=images)

    def of(self, row: int) -> Integers:
        """The predicates that explain an image, in the order of its pathway; may be none."""
        part = slice(*self.pathways.starts[row : row + 2])
        return self.place[part][self.active[part]]


def explain(vocabulary: Vocabulary, found: Pathways) -> Explained:
    """The predicates that explain images: in the pathway, in the vocabulary, and active.

    Raises:
        BadUsage: the pathways are of another layer.
    """
    if found.width != vocabulary.width:
        raise BadUsage(
            f"the predicates are about {vocabulary.width} features, the images have {found.width}"
        )
    place = vocabulary.places(found.predicted[found.rows], found.signed)
    active = place >= 0
    active[active] = vocabulary.satisfied(found.values[active], place[active])
    return Explained(found, place, active)
