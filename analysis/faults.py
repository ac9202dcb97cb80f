"""Fault localization: is a misclassification the encoder's fault or the head's?

The decision of "Debugging and Runtime Analysis of Neural Networks with VLMs" (arXiv 2503.17416):
an oracle reads the class in the model's embedding, seen through the lens. If it reads the true
class, the semantics were still there and the head is at fault; if not, the encoder had lost
them. That rests on the oracle and on the map between the two spaces, so guards of our own
say "undetermined" where one of these is the likelier culprit.

All this is a judgement from examples, and proves nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

import numpy as np

from conspec.analysis.differences import Differences, differences
from conspec.analysis.heatmaps import Floats, Integers, summary
from conspec.analysis.oracles import Gap, Images, Oracle, Reference, answers, vlm_answers
from conspec.specs.errors import BadUsage
from conspec.verifier.probability.intervals import clopper_pearson

LEVEL = Fraction(19, 20)
_RIDGE = 0.1
"""Of the regression on concept scores, in units of their mean variance."""
NOISE = 1e-9
"""Differences of standardised deviations that rounding can make."""


class Verdict(StrEnum):
    """Which part is at fault."""

    ENCODER = "encoder"
    HEAD = "head"
    UNDETERMINED = "undetermined"


class Reason(StrEnum):
    """Why: one sentence each."""

    LOST = "The oracle reads another class in the embedding: the encoder lost the true one."
    KEPT = "The oracle still reads the true class in the embedding: the head answered otherwise."
    ORACLE = (
        "The oracle does not surely know three quarters of what the model gets right, "
        "so it cannot judge this lens."
    )
    MAP = (
        "The mapped embedding is farther from where the VLM has pictures than allowed, "
        "so the map itself may be at fault."
    )
    VLM = "The VLM itself reads another class in the picture, so it cannot judge the encoder."


SHORT = {Reason.ORACLE: "oracle", Reason.MAP: "map", Reason.VLM: "VLM"}
"""What makes a verdict undetermined, in a word."""


@dataclass(frozen=True, slots=True)
class Guards:
    """When not to decide.

    Attributes:
        oracle: where the oracle fails on what the model gets right.
        gap: where this gap of the mapped embedding is an outlier; None leaves it out.
        vlm: where the VLM reads another class than the true one in the picture.
        level: of the gap's conformal quantile.
    """

    oracle: bool = True
    gap: Gap | None = Gap.NEAREST
    vlm: bool = True
    level: Fraction = LEVEL


ALL = Guards()
NONE = Guards(oracle=False, gap=None, vlm=False)


@dataclass(frozen=True, eq=False)
class Faults:
    """The verdicts on N misclassified images.

    Attributes:
        images: the images.
        oracle: whose answer decided.
        reasons: N of them.
        answers: the class that each oracle reads through the map, int64 [N] each.
        vlm_answers: the class that each oracle reads in the VLM's own embedding.
        gaps: of the mapped embeddings, [N] of each kind.
        p_values: their conformal p-values, [N] of each kind.
        guard: which gap the guard of the map looked at; None if that guard is off.
        limit: beyond which that gap is an outlier; None likewise.
    """

    images: Images
    oracle: Oracle
    reasons: tuple[Reason, ...]
    answers: Mapping[Oracle, Integers]
    vlm_answers: Mapping[Oracle, Integers]
    gaps: Mapping[Gap, Floats]
    p_values: Mapping[Gap, Floats]
    guard: Gap | None
    limit: float | None

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """N verdicts."""
        return tuple(verdict_of(reason) for reason in self.reasons)


def verdict_of(reason: Reason) -> Verdict:
    """The verdict that a reason leads to."""
    match reason:
        case Reason.LOST:
            return Verdict.ENCODER
        case Reason.KEPT:
            return Verdict.HEAD
        case Reason.ORACLE | Reason.MAP | Reason.VLM:
            return Verdict.UNDETERMINED


def misclassified(images: Images) -> Integers:
    """Which images have a known class and another prediction: their places, int64."""
    return np.flatnonzero((images.label >= 0) & (images.label != images.predicted))


def localize(
    reference: Reference,
    images: Images,
    oracle: Oracle = Oracle.ZERO_SHOT,
    guards: Guards = ALL,
) -> Faults:
    """Which part is at fault for each of N misclassified images.

    Of the guards, the first that speaks gives the reason: the oracle, the map, the VLM.

    Raises:
        BadUsage: an image is classified correctly or its class is unknown, or there are too few
            held-out images for the guard of the map.
    """
    if len(misclassified(images)) < len(images.label):
        raise BadUsage("a fault is localized only where the class is known and predicted wrongly")
    found = {each: answers(reference, each, images) for each in Oracle}
    seen = {each: vlm_answers(reference, each, images) for each in Oracle}
    gaps = {kind: reference.gap(kind, images) for kind in Gap}
    limit = reference.limit(guards.gap, guards.level) if guards.gap else None
    kept = found[oracle] == images.label
    codes = np.where(kept, list(Reason).index(Reason.KEPT), list(Reason).index(Reason.LOST))
    # From the last guard to the first, so that the first has the last word.
    if guards.vlm:
        codes[seen[oracle] != images.label] = list(Reason).index(Reason.VLM)
    if guards.gap and limit is not None:
        codes[gaps[guards.gap] > limit] = list(Reason).index(Reason.MAP)
    if guards.oracle and not reference.reliable(oracle):
        codes[:] = list(Reason).index(Reason.ORACLE)
    reasons = tuple(list(Reason)[code] for code in codes)
    p_values = {kind: reference.p_values(kind, gaps[kind]) for kind in Gap}
    return Faults(images, oracle, reasons, found, seen, gaps, p_values, guards.gap, limit)


@dataclass(frozen=True, slots=True)
class Causes:
    """What the misclassified images of one class come from.

    Attributes:
        label: the class, or "together".
        images: how many images it has.
        counts: how many are misclassified, by reason.
    """

    label: str
    images: int
    counts: Mapping[Reason, int]

    @property
    def wrong(self) -> int:
        """How many images are misclassified."""
        return sum(self.counts.values())

    def count(self, verdict: Verdict) -> int:
        """How many images have a verdict."""
        return sum(number for reason, number in self.counts.items()
                   if verdict_of(reason) is verdict)  # fmt: skip

    def encoder_share(self, confidence: float = 0.95) -> tuple[float, float, float] | None:
        """Share of encoder faults among what was determined, with Clopper and Pearson's interval.

        None where nothing was determined.
        """
        encoder, head = self.count(Verdict.ENCODER), self.count(Verdict.HEAD)
        if encoder + head == 0:
            return None
        lower, upper = clopper_pearson(encoder, encoder + head, confidence)
        return encoder / (encoder + head), lower, upper


def causes(faults: Faults, classes: Sequence[str], label: Integers) -> list[Causes]:
    """The causes for each class, and the last for all together.

    Args:
        faults: of all misclassified images.
        classes: K names.
        label: the classes of all images, the correctly classified ones too, int64 [T].
    """
    found = []
    for place, name in enumerate(classes):
        of_class = [r for r, own in zip(faults.reasons, faults.images.label, strict=True)
                    if own == place]  # fmt: skip
        found.append(Causes(name, int((label == place).sum()), _counted(of_class)))
    together = Causes("together", int((label >= 0).sum()), _counted(faults.reasons))
    return [*found, together]


def _counted(reasons: Sequence[Reason]) -> dict[Reason, int]:
    return {reason: list(reasons).count(reason) for reason in Reason}


@dataclass(frozen=True, slots=True)
class Blamed:
    """One concept's part in a fault.

    Attributes:
        concept: its name.
        deviation: mean |A(x) − G| over the concept's row, in [0, 1]: how unlike the group's its
            comparisons with the other concepts are.
        shift: share of other concepts it is above, minus the group's mean; positive if stronger.
        p_value: of such a deviation among the group's own images, corrected for all concepts.
        push: how much it adds to the lead of the wrong class over the true one, in logits,
            compared with the average image; None for an encoder fault or a head with ReLUs.
    """

    concept: str
    deviation: float
    shift: float
    p_value: float
    push: float | None = None


@dataclass(frozen=True, eq=False)
class Pull:
    """A difference of two classes' logits, seen through the concept map.

    ``(W_wrong − W_true) · z ≈ Σ_i weights_i · score_i(z) + constant`` over the correctly
    classified training images, by ridge regression: alike concepts share a weight, where plain
    least squares would give them large ones of opposite signs.

    Attributes:
        weights: one for each concept, [M].
        usual: mean concept scores over these images, [M].
        explained: which share of the difference's variance over them that is (R²).
    """

    weights: Floats
    usual: Floats
    explained: float


def pulled(reference: Reference, head: Floats, true: int, wrong: int) -> Pull:
    """``W_wrong − W_true`` in terms of the concept scores.

    Args:
        reference: whose concept scores.
        head: the weights of an affine head, [K, n].
        true: class y.
        wrong: class y'.
    """
    usual = reference.scores.mean(axis=0)
    scores = reference.scores - usual
    leads = reference.z @ (head[wrong] - head[true])
    leads -= leads.mean()
    products = scores.T @ scores
    ridge = _RIDGE * np.trace(products) / len(products) * np.eye(len(products))
    weights = np.linalg.lstsq(products + ridge, scores.T @ leads, rcond=None)[0]
    total, rest = float(leads @ leads), leads - scores @ weights
    explained = 1 - float(rest @ rest) / total if total > 0 else 0.0
    return Pull(np.asarray(weights, dtype=np.float64), usual, max(explained, 0.0))


def responsible(
    reference: Reference, faults: Faults, place: int, head: Floats | None = None
) -> list[Blamed]:
    """The concepts behind one fault, the most significant first; none if it is undetermined.

    For an encoder fault the image's heatmap is compared with those of the correctly classified
    images of its true class (what should be there and is not); for a head fault with those of
    the class that was predicted (what speaks against it, and the head ignored). How unusual a
    deviation is, the group's own images tell: the p-value of a concept is the share of them,
    this image included, whose largest deviation over all concepts, in standard deviations of
    each, is as large (Westfall and Young, 1993, single step). If the image were one of the group,
    any concept at all would get p ≤ α with chance α at most.

    Args:
        reference: what to compare with.
        faults: the verdicts.
        place: which image.
        head: the weights of an affine head, [K, n], to see its part.
    """
    verdict = faults.verdicts[place]
    images = faults.images
    true, wrong = int(images.label[place]), int(images.predicted[place])
    if verdict is Verdict.UNDETERMINED:
        return []
    group = true if verdict is Verdict.ENCODER else wrong
    rows = reference.scores[reference.own == group]
    scores = reference.concept_scores(images.chosen(np.array([place])))[0]
    if not len(rows):
        return []
    deviation, shift, p_values, order = _deviations(np.vstack([rows, scores]))
    push = None
    if verdict is Verdict.HEAD and head is not None:
        pull = pulled(reference, head, true, wrong)
        push = pull.weights * (scores - pull.usual)
    return [
        Blamed(
            concept=reference.concepts[i],
            deviation=float(deviation[i]),
            shift=float(shift[i]),
            p_value=float(p_values[i]),
            push=None if push is None else float(push[i]),
        )
        for i in order
    ]


def _deviations(scores: Floats) -> tuple[Floats, Floats, Floats, Integers]:
    """Deviation, shift and corrected p-value of the last row's concepts, and their order.

    The last row takes part in the group's mean map and in every mean and deviation, so that all
    rows are treated alike, as an exact p-value demands.
    """
    count, width = scores.shape
    group = summary(scores, np.zeros(count, dtype=np.int64), ["group"], [""] * width)
    mean = group.shares[0]
    deviations, strengths = np.empty((count, width)), np.empty((count, width))
    for row, values in enumerate(scores):
        above = values[:, None] > values[None, :]
        deviations[row] = np.abs(above - mean).sum(axis=1) / (width - 1)
        strengths[row] = above.sum(axis=1) / (width - 1)
    spread = deviations.std(axis=0)
    standard = np.divide(
        deviations - deviations.mean(axis=0),
        spread,
        out=np.zeros_like(deviations),
        where=spread > NOISE,
    )
    largest = standard.max(axis=1)
    p_values = (largest[:, None] >= standard[-1] - NOISE).mean(axis=0)
    order = np.lexsort((-standard[-1], p_values))
    return deviations[-1], strengths[-1] - strengths.mean(axis=0), p_values, order


def class_differences(reference: Reference, faults: Faults, verdict: Verdict) -> Differences:
    """What sets a whole group of faults apart, class by class.

    For encoder faults: the correctly classified training images of each class against the
    class's images with that fault. For head faults: those of each predicted class against the
    images that were given to it by that fault. ``Differences.blame`` ranks the concepts by
    their significant cells; the family is all cells of all classes.
    """
    own = faults.images.label if verdict is Verdict.ENCODER else faults.images.predicted
    chosen = np.array([found is verdict for found in faults.verdicts], dtype=np.bool_)
    wrong = summary(
        reference.concept_scores(faults.images),
        np.where(chosen, own, -1),
        reference.classes,
        reference.concepts,
    )
    return differences(reference.maps[0], wrong)
