"""Rules that say what a classifier predicts: local ones of images, and a global set of them.

A local rule of an image is the conjunction of the predicates that explain it, "and so the model
predicts c". The global rules of a class are the distinct local rules of its source images: a
disjunction of conjunctions, as in the first version of VisionLogic (arXiv 2503.10547). Rules
with little support are pruned, and rules that a shorter one makes superfluous.

Where rules of several classes match, the best of all matching rules decides; where none does,
the default. A rule set is measured against the model it was read from (fidelity) and against the
true classes (accuracy). These are statistics about images, not proofs.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cached_property

import numpy as np

from conspec.analysis.pathways import Array, Bools, Integers, LastLayer, pathways
from conspec.analysis.predicates import Explained, Fitting, Predicate, Vocabulary, explain
from conspec.specs.errors import BadUsage

_ROWS = 4096
"""Images whose predicates are looked at together."""
ABSTAIN = -1
"""In place of a class where no rule matches and there is no default."""


class Resolution(StrEnum):
    """Which of the matching rules decides; what is equal goes on to the next criterion."""

    PRECISION = "precision"
    """The most precise on the training images, by ``(right + 1) / (covered + 2)``; the longer."""
    LENGTH = "length"
    """The longest; the most precise."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A conjunction of predicates of one class, and how it does on the training images.

    Attributes:
        label: the class that it concludes.
        predicates: their places in the vocabulary, rising; one at least.
        support: source images of the class that have exactly this local rule.
        covered: training images that satisfy all its predicates.
        right: those of them that the model predicts as the class.
    """

    label: int
    predicates: tuple[int, ...]
    support: int
    covered: int
    right: int

    @property
    def precision(self) -> float:
        """Share of the covered training images that the model predicts as the class."""
        return self.right / self.covered

    @property
    def weight(self) -> Fraction:
        """The precision, pulled towards one half where few images are covered (Laplace)."""
        return Fraction(self.right + 1, self.covered + 2)


@dataclass(frozen=True, slots=True)
class Settings:
    """How rules are learnt.

    The defaults make rules that tell classes apart; `PAPER` is the published definition.

    Attributes:
        quantile: of the thresholds; 0 is the extremum of the paper.
        ahead: how many features to take after the prediction is reached; 0 in the paper.
        predicate_support: least support of a predicate.
        rule_support: least support of a rule.
        resolution: which of the matching rules decides.
        abstain: whether to say nothing where no rule matches, in place of the class that the
            model predicts most often.
    """

    quantile: Fraction = Fraction(1, 20)
    ahead: int = 2
    predicate_support: int = 1
    rule_support: int = 2
    resolution: Resolution = Resolution.PRECISION
    abstain: bool = False


PAPER = Settings(quantile=Fraction(0), ahead=0, rule_support=1)
"""Pathways and thresholds exactly as published."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What a rule set says about N images.

    Attributes:
        predicted: the class, `ABSTAIN` where there is none, int64 [N].
        rule: the rule that decided, −1 where none matches, int64 [N].
        rules: how many rules match, int64 [N].
        classes: of how many classes, int64 [N].
        ranking: classes by their best matching rule; those without one follow, by how often the
            model predicts them; int64 [N, K].
    """

    predicted: Integers
    rule: Integers
    rules: Integers
    classes: Integers
    ranking: Integers


@dataclass(frozen=True, eq=False)
class RuleSet:
    """The rules of all classes.

    Attributes:
        names: of the K classes.
        vocabulary: the predicates.
        rules: the R rules, by class, the best of a class first.
        frequency: training images that the model predicts as each class, int64 [K].
        settings: how they were learnt, and how conflicts are resolved.
    """

    names: tuple[str, ...]
    vocabulary: Vocabulary
    rules: tuple[Rule, ...]
    frequency: Integers
    settings: Settings

    @property
    def default(self) -> int:
        """The class where no rule matches, or `ABSTAIN`."""
        return ABSTAIN if self.settings.abstain else int(self.frequency.argmax())

    @cached_property
    def labels(self) -> Integers:
        """The class of each rule, int64 [R]."""
        return np.array([rule.label for rule in self.rules], dtype=np.int64)

    @cached_property
    def priority(self) -> Integers:
        """Place of each rule in the order in which rules decide, best first: int64 [R]."""
        order = sorted(range(len(self.rules)), key=lambda place: self._rank(self.rules[place]))
        return np.argsort(np.array(order, dtype=np.int64))

    def _rank(self, rule: Rule) -> tuple[Fraction | int, ...]:
        length = len(rule.predicates)
        first: tuple[Fraction | int, ...] = (-rule.weight, -length)
        if self.settings.resolution is Resolution.LENGTH:
            first = (-length, -rule.weight)
        return (*first, -rule.support, rule.label, *rule.predicates)

    def predicates(self, rule: Rule) -> tuple[Predicate, ...]:
        """The predicates of a rule."""
        return tuple(self.vocabulary[place] for place in rule.predicates)

    def matches(self, z: Array) -> Bools:
        """Which rules match which images, bool [N, R], for features [N, d].

        Raises:
            BadUsage: the features are others than those that the rules are about.
        """
        if z.ndim != 2 or z.shape[1] != self.vocabulary.width:
            raise BadUsage(
                f"the rules are about {self.vocabulary.width} features, the images have shape "
                f"{z.shape}"
            )
        active = np.ascontiguousarray(self.vocabulary.active(z).T)
        found = np.empty((len(self.rules), len(z)), dtype=bool)
        for place, rule in enumerate(self.rules):
            np.logical_and.reduce(active[list(rule.predicates)], axis=0, out=found[place])
        return found.T

    def answers(self, z: Array) -> Answers:
        """What the rules say about images with features [N, d].

        Raises:
            BadUsage: see `matches`.
        """
        parts = [self._answers(z[i : i + _ROWS]) for i in range(0, max(len(z), 1), _ROWS)]
        names = ("predicted", "rule", "rules", "classes", "ranking")
        return Answers(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def _answers(self, z: Array) -> Answers:
        matches, count = self.matches(z), len(self.names)
        last = len(self.rules)
        ranked = np.where(matches, self.priority, last)  # [N, R]
        best = np.full((len(z), count), last, dtype=np.int64)
        for label in np.unique(self.labels):
            best[:, label] = ranked[:, self.labels == label].min(axis=1)
        fallback = np.argsort(np.argsort(-self.frequency, kind="stable"))
        ranking = np.argsort(np.where(best < last, best, last + fallback), axis=1, kind="stable")
        covered = matches.any(axis=1)
        first = np.zeros(len(z), np.int64) if not last else ranked.argmin(axis=1)
        return Answers(
            predicted=np.where(covered, ranking[:, 0], self.default),
            rule=np.where(covered, first, -1),
            rules=matches.sum(axis=1),
            classes=(best < last).sum(axis=1),
            ranking=ranking,
        )

    def of_class(self, label: int) -> Iterator[Rule]:
        """The rules of a class, best first."""
        return (rule for rule in self.rules if rule.label == label)


def learn(
    names: Sequence[str],
    layer: LastLayer,
    images: tuple[Array, Integers, Integers],
    settings: Settings = Settings(),
) -> RuleSet:
    """The global rules of a classifier.

    Args:
        names: of the K classes.
        layer: its last layer.
        images: the training images: features [N, d], predicted classes [N], true classes [N].
        settings: how they are learnt.

    Raises:
        BadUsage: no image is classified correctly, or see `pathways`.
    """
    z, predicted, label = images
    fitting = Fitting(layer, settings.ahead)
    found = fitting.add(z, predicted, label)
    if not len(found.predicted):
        raise BadUsage("no training image is classified correctly, so there is nothing to learn")
    vocabulary = fitting.vocabulary(settings.quantile, settings.predicate_support)
    counts = local_rules(explain(vocabulary, found))
    drafts = [
        Rule(label, places, support, 1, 1)
        for (label, places), support in sorted(counts.items())
        if support >= settings.rule_support
    ]
    frequency = np.bincount(predicted, minlength=len(names))
    draft = RuleSet(tuple(names), vocabulary, tuple(drafts), frequency, settings)
    kept = without_superfluous(_counted(draft, z, predicted))
    order = sorted(kept, key=lambda rule: (rule.label, *draft._rank(rule)))
    return RuleSet(tuple(names), vocabulary, tuple(order), frequency, settings)


def local_rules(explained: Explained) -> Counter[tuple[int, tuple[int, ...]]]:
    """How many images have which local rule: class and predicates, rising.

    Images without an explaining predicate have none.
    """
    predicted = explained.pathways.predicted.tolist()
    counts: Counter[tuple[int, tuple[int, ...]]] = Counter()
    for row in np.flatnonzero(explained.counts).tolist():
        counts[predicted[row], tuple(sorted(explained.of(row).tolist()))] += 1
    return counts


def _counted(draft: RuleSet, z: Array, predicted: Integers) -> list[Rule]:
    """The rules of a draft with how many training images they cover, and how many rightly."""
    covered = np.zeros(len(draft.rules), np.int64)
    right = np.zeros(len(draft.rules), np.int64)
    for start in range(0, len(z), _ROWS):
        matches = draft.matches(z[start : start + _ROWS])
        covered += matches.sum(axis=0)
        right += (matches & (predicted[start : start + _ROWS, None] == draft.labels)).sum(axis=0)
    return [
        Rule(rule.label, rule.predicates, rule.support, int(all_of), int(right_of))
        for rule, all_of, right_of in zip(draft.rules, covered, right, strict=True)
    ]


def without_superfluous(rules: Sequence[Rule]) -> list[Rule]:
    """The rules without those that a shorter one of their class makes superfluous.

    It does if its predicates are among theirs, so that it matches wherever they do, and if it is
    at least as precise. A longer rule that is more precise stays: it may decide a conflict.
    """
    kept: dict[int, list[tuple[frozenset[int], Rule]]] = {}
    for rule in sorted(rules, key=lambda rule: len(rule.predicates)):
        own, others = frozenset(rule.predicates), kept.setdefault(rule.label, [])
        if not any(
            shorter < own and other.right * rule.covered >= rule.right * other.covered
            for shorter, other in others
        ):
            others.append((own, rule))
    return [rule for group in kept.values() for _, rule in group]


@dataclass(frozen=True, eq=False)
class Local:
    """The local rule of one image.

    Attributes:
        label: the predicted class.
        pathway: features in the order in which they were added, with their sign: [(j, ±1)].
        needed: how many of them it takes to reach the prediction; the rest is look-ahead.
        predicates: places of the explaining predicates in the vocabulary, in that order.
        slack: how far each is from being inactive, in units of its feature.
    """

    label: int
    pathway: tuple[tuple[int, int], ...]
    needed: int
    predicates: tuple[int, ...]
    slack: tuple[float, ...]


def local_rule(layer: LastLayer, rules: RuleSet, z: Array, predicted: int) -> Local:
    """The local rule of an image with features [d], from the predicates of a rule set.

    Raises:
        BadUsage: see `pathways`.
    """
    vocabulary, classes = rules.vocabulary, np.array([predicted])
    found = pathways(layer, z[None], classes, rules.settings.ahead)
    needed = int(pathways(layer, z[None], classes).lengths[0])
    places = explain(vocabulary, found).of(0)
    slack = vocabulary.sign[places] * (z[vocabulary.feature[places]] - vocabulary.threshold[places])
    signs = np.where(found.positive, 1, -1).tolist()
    steps = tuple(zip(found.features.tolist(), signs, strict=True))
    return Local(predicted, steps, needed, tuple(places.tolist()), tuple(slack.tolist()))
