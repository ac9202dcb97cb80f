"""What predicates and rules do on images: the statistics of the paper, and those of classifiers.

All of them are about images. Intervals are Clopper and Pearson's (95 %) and assume independent
images that played no part in learning.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from conspec.analysis.calibration import Rate, rate
from conspec.analysis.pathways import Array, Bools, Floats, Integers
from conspec.analysis.predicates import Explained, Vocabulary
from conspec.analysis.rules import RuleSet

COVERED = (0.5, 0.8, 0.9)
"""Shares of all occurrences that the fewest predicates have to make up: n50, n80, n90."""
CUT_OFFS = (0.01, 0.05, 0.10, 0.25)
"""Shares of a class's images in which a predicate must occur to count."""
REUSED = 0.01
"""A class uses a signed feature if it is selected in so large a share of its images."""


@dataclass(frozen=True, eq=False)
class Usage:
    """How predicates explain images.

    Attributes:
        images: how many.
        selected: median number of features of a pathway, and the mean.
        active: median number of predicates of the predicted class that hold, and the mean.
        explaining: of those in the pathway, too.
        unexplained: images without any explaining predicate.
        eligible: selected features for which the vocabulary has a predicate.
        retained: those of them that satisfy its threshold.
    """

    images: int
    selected: tuple[float, float]
    active: tuple[float, float]
    explaining: tuple[float, float]
    unexplained: Rate
    eligible: Rate
    retained: Rate


def usage(vocabulary: Vocabulary, explained: Explained, z: Array) -> Usage:
    """How predicates explain images with features [N, d].

    The rates of selected features treat these as independent, though an image may have several.
    """
    own = vocabulary.label == explained.pathways.predicted[:, None]
    active = (vocabulary.active(z) & own).sum(axis=1)
    return Usage(
        images=len(z),
        selected=_middle(explained.pathways.lengths),
        active=_middle(active),
        explaining=_middle(explained.counts),
        unexplained=rate(explained.counts == 0),
        eligible=rate(explained.eligible),
        retained=rate(explained.active[explained.eligible]),
    )


def _middle(values: Integers) -> tuple[float, float]:
    """Median and mean."""
    return (float(np.median(values)), float(values.mean())) if len(values) else (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Concentration:
    """How few predicates do most of the work, for each class.

    Attributes:
        images: images of each class, int64 [K].
        used: how many signed features occur at all, int64 [K].
        fewest: the fewest that make up each share of ``COVERED``, int64 [K, 3].
        frequent: how many occur in each share of ``CUT_OFFS`` of the images, int64 [K, 4].
    """

    images: Integers
    used: Integers
    fewest: Integers
    frequent: Integers


def occurrences(explained: Explained, classes: int) -> Integers:
    """Images of each predicted class that select each signed feature, int64 [K, 2 d]."""
    found = explained.pathways
    cells = 2 * found.width * found.predicted[found.rows] + found.signed
    return np.bincount(cells, minlength=2 * found.width * classes).reshape(classes, -1)


def concentration(counts: Integers, images: Integers) -> Concentration:
    """How few predicates do most of the work.

    Args:
        counts: see ``occurrences``, [K, 2 d].
        images: images of each class, [K].
    """
    ranked = -np.sort(-counts, axis=1)
    sums = ranked.cumsum(axis=1)
    totals = sums[:, -1:]
    some = totals[:, 0] > 0
    fewest = [np.where(some, (sums < share * totals).sum(axis=1) + 1, 0) for share in COVERED]
    shares = counts / np.maximum(images, 1)[:, None]
    frequent = [(shares >= cut).sum(axis=1) for cut in CUT_OFFS]
    used = (counts > 0).sum(axis=1)
    return Concentration(images, used, np.stack(fewest, axis=1), np.stack(frequent, axis=1))


@dataclass(frozen=True, eq=False)
class Reuse:
    """How classes share signed features.

    Attributes:
        features: the signed features that some class uses, int64 [F], most shared first.
        classes: how many classes use each, int64 [F].
        entropy: of a feature's occurrences over the classes, each class counted by the share of
            its images; in bits, [F].
        concentration: Herfindahl and Hirschman's index of the same, from 1/K to 1, [F].
    """

    features: Integers
    classes: Integers
    entropy: Floats
    concentration: Floats


def reuse(counts: Integers, images: Integers) -> Reuse:
    """How classes share signed features; see ``concentration`` for the arguments."""
    shares = counts / np.maximum(images, 1)[:, None]
    users = (shares >= REUSED).sum(axis=0)
    order = np.argsort(-users, kind="stable")
    chosen = order[users[order] > 0]
    parts = shares[:, chosen] / shares[:, chosen].sum(axis=0)
    logarithm = np.log2(parts, where=parts > 0, out=np.zeros_like(parts))
    entropy = np.abs(-(parts * logarithm).sum(axis=0))
    return Reuse(chosen, users[chosen], entropy, (parts**2).sum(axis=0))


@dataclass(frozen=True, eq=False)
class TradeOff:
    """What tighter thresholds cost and bring, all predicates together.

    Attributes:
        retained: selected features in the vocabulary that satisfy their threshold.
        precision: images of the predicted class among all in which a predicate is active.
    """

    retained: Rate
    precision: Rate


def trade_off(vocabulary: Vocabulary, explained: Explained, z: Array) -> TradeOff:
    """Support and precision of predicates on images with features [N, d].

    The precision counts pairs of an image and a predicate that is active in it.
    """
    active = vocabulary.active(z)
    own = vocabulary.label == explained.pathways.predicted[:, None]
    return TradeOff(rate(explained.active[explained.eligible]), rate(own[active]))


@dataclass(frozen=True, eq=False)
class Quality:
    """How a rule set does on images.

    Attributes:
        images: how many.
        coverage: images that some rule matches.
        precision: covered images that get the class that the model predicts.
        fidelity: the same of all images, the default included.
        accuracy: images with a known class that get it; None if there are none.
        accuracy5: those that have it among the first five; None if there are none.
        overlap: images that several rules match.
        conflict: images that rules of several classes match.
        rules: how many there are.
        predicates: how many of the vocabulary they use.
        length: median number of predicates of a rule, and the mean.
    """

    images: int
    coverage: Rate
    precision: Rate
    fidelity: Rate
    accuracy: Rate | None
    accuracy5: Rate | None
    overlap: Rate
    conflict: Rate
    rules: int
    predicates: int
    length: tuple[float, float]


def quality(rules: RuleSet, z: Array, predicted: Integers, label: Integers) -> Quality:
    """How a rule set does on images with features [N, d].

    Args:
        rules: the rule set.
        z: features.
        predicted: classes by the model, [N].
        label: true classes, [N]; −1 where it is unknown.

    Raises:
        BadUsage: the features are others than those that the rules are about.
    """
    found = rules.answers(z)
    covered, known = found.rule >= 0, label >= 0
    agrees = found.predicted == predicted
    first_five = (found.ranking[:, :5] == label[:, None]).any(axis=1)
    if rules.settings.abstain:
        first_five &= covered
    used = {place for rule in rules.rules for place in rule.predicates}
    lengths = np.array([len(rule.predicates) for rule in rules.rules], dtype=np.int64)
    return Quality(
        images=len(z),
        coverage=rate(covered),
        precision=rate(agrees[covered]),
        fidelity=rate(agrees),
        accuracy=_known(found.predicted == label, known),
        accuracy5=_known(first_five, known),
        overlap=rate(found.rules > 1),
        conflict=rate(found.classes > 1),
        rules=len(rules.rules),
        predicates=len(used),
        length=_middle(lengths),
    )


def _known(hits: Bools, known: Bools) -> Rate | None:
    return rate(hits[known]) if known.any() else None


@dataclass(frozen=True, eq=False)
class ClassQuality:
    """How the rules of one class do.

    Attributes:
        name: of the class.
        rules: how many rules it has.
        predicates: how many predicates.
        recall: images that the model predicts as the class and the rules do, too.
        precision: images that the rules call the class and the model does, too.
    """

    name: str
    rules: int
    predicates: int
    recall: Rate
    precision: Rate


def by_class(rules: RuleSet, z: Array, predicted: Integers) -> Sequence[ClassQuality]:
    """How the rules of each class do on images with features [N, d]."""
    answers = rules.answers(z).predicted
    return [
        ClassQuality(
            name,
            sum(1 for _ in rules.of_class(place)),
            int(rules.vocabulary.sizes[place]),
            rate(answers[predicted == place] == place),
            rate(predicted[answers == place] == place),
        )
        for place, name in enumerate(rules.names)
    ]
