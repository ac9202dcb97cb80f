"""A runtime monitor: does an input's ranking of concepts look like that of correct predictions?

The check of "Debugging and Runtime Analysis of Neural Networks with VLMs" (arXiv 2503.17416): an
input predicted as class c is compared with the heatmap H⁺ of inputs rightly predicted c, and with
the heatmap H⁻ of those wrongly predicted c. It needs the embedding only, and no pass through the
vision-language model.

A score is linear in the comparisons: ``start_c + Σ_{i≠j} [s_i > s_j] · W_c[i, j]``, greater for
inputs that look right. Weights are rounded once, to multiples of 2⁻⁴⁰, so that no sum of them is
ever rounded: a batch, a single input, the ONNX export and exact arithmetic give the same number
for the same ranking. What may differ is the ranking of two concepts whose scores agree up to
float64 rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from conspec.analysis.calibration import Calibration, calibrated, rate_of
from conspec.analysis.heatmaps import Bools, Floats, Integers, Kind, Maps, grouped, summary
from conspec.analysis.similarity import pair_sums
from conspec.encodings.query import space_of
from conspec.lens.bundle import Lens
from conspec.specs.errors import BadUsage

STEP = 2.0**-40
"""Weights are multiples of it; sums stay below 2¹³, so they need at most 53 bits."""
LEAST = 10
"""A reference H⁻ of fewer images is noise, and is not used."""
BAND = Fraction(2, 5)
"""``Rule.COUNT`` uses the pairs with a share above ½ + band = 0.9 among correct predictions."""


class Rule(StrEnum):
    """What the score is; A is the input's heatmap."""

    CONTRAST = "contrast"
    """cos(A, H⁺) − cos(A, H⁻) on cells centred at ½; without H⁻ only the first."""
    COSINE = "cosine"
    """cos(A, H⁺) on cells centred at ½."""
    LIKELIHOOD = "likelihood"
    """Mean of log P⁺(A) − log P⁻(A) over the cells, taken as independent; without H⁻ only
    log P⁺(A). P is the share, smoothed: (c + ½) / (n + 1)."""
    COUNT = "count"
    """How many of the pairs that nearly all inputs of H⁺ order alike A orders so too: the one
    that is a formula of Con_spec (``monitor_spec.acceptance``)."""


@dataclass(frozen=True, eq=False)
class Readout:
    """Head and concept map in float64.

    Attributes:
        classes: K names.
        concepts: M names.
        head: weights [h, n] and biases [h] of its layers; a ReLU is between two of them.
        concept_map: weights [M, n] and biases [M].
    """

    classes: tuple[str, ...]
    concepts: tuple[str, ...]
    head: tuple[tuple[Floats, Floats], ...]
    concept_map: tuple[Floats, Floats]

    @classmethod
    def of(cls, lens: Lens) -> Self:
        """Those of a bundle."""
        space = space_of(lens)
        layers = tuple(layer.floats for layer in space.head.affines)
        return cls(lens.classes, lens.concepts, layers, space.concept_map.floats)

    @property
    def dimension(self) -> int:
        """Length n of an embedding."""
        return int(self.concept_map[0].shape[1])

    def logits(self, z: Floats) -> Floats:
        """Logits [N, K] of embeddings [N, n]."""
        (weight, bias), *rest = self.head
        values = z @ weight.T + bias
        for weight, bias in rest:
            values = np.maximum(values, 0.0) @ weight.T + bias
        return np.asarray(values, dtype=np.float64)

    def concept_scores(self, z: Floats) -> Floats:
        """Concept scores [N, M] of embeddings [N, n]."""
        weight, bias = self.concept_map
        return np.asarray(z @ weight.T + bias, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Reference:
    """What the rankings of inputs predicted as each class are compared with.

    Attributes:
        weights: W, float64 [K, M, M], 0 on the diagonal.
        start: float64 [K].
        known: whether the class had correctly predicted images to learn from, [K].
        right: how many, int64 [K].
        wrong: images wrongly predicted as the class, int64 [K].
    """

    weights: Floats
    start: Floats
    known: Bools
    right: Integers
    wrong: Integers

    def __post_init__(self) -> None:
        """Refuse weights whose sums would be rounded."""
        total = np.abs(self.weights).sum(axis=(1, 2)) + np.abs(self.start)
        parts = (self.weights, self.start)
        fine = any(
            bool((total < step * 2.0**53).all()) and all(_are_multiples(x, step) for x in parts)
            for step in (STEP, 1.0)
        )
        if not fine:
            raise BadUsage("the weights of a monitor must be multiples of 2**-40, and not large")


def _are_multiples(values: Floats, step: float) -> bool:
    scaled = values / step
    return bool((scaled == np.round(scaled)).all())


@dataclass(frozen=True, eq=False)
class Judgement:
    """What a monitor says of N inputs.

    Attributes:
        score: float64 [N].
        flagged: bool [N].
        predicted: the class with the largest logit, the first of several, int64 [N].
        threshold: that of the predicted class, float64 [N].
    """

    score: Floats
    flagged: Bools
    predicted: Integers
    threshold: Floats


class Monitor:
    """Accepts or flags an input by its embedding, in the manner of scikit-learn.

    ``fit`` learns the references, ``calibrate`` the thresholds from other images.

    Attributes:
        readout: head and concept map.
        rule: what the score is.
    """

    def __init__(self, readout: Readout, rule: Rule = Rule.CONTRAST) -> None:
        """A monitor that has learnt nothing yet.

        Raises:
            BadUsage: there are fewer than two concepts to compare.
        """
        if len(readout.concepts) < 2:
            raise BadUsage("a monitor compares concepts, and the bundle has fewer than two")
        self.readout = readout
        self.rule = rule
        self._reference: Reference | None = None
        self._calibration: Calibration | None = None

    @classmethod
    def fitted(
        cls, readout: Readout, rule: Rule, reference: Reference, calibration: Calibration
    ) -> Self:
        """A monitor from its parts, as they were saved."""
        monitor = cls(readout, rule)
        monitor._reference, monitor._calibration = reference, calibration
        monitor._prepare()
        return monitor

    @property
    def reference(self) -> Reference:
        """What was learnt; BadUsage before ``fit``."""
        if self._reference is None:
            raise BadUsage("the monitor has no references yet: call fit(z, predicted, label)")
        return self._reference

    @property
    def calibration(self) -> Calibration:
        """The thresholds; BadUsage before ``calibrate``."""
        if self._calibration is None:
            raise BadUsage("the monitor has no thresholds yet: call calibrate(z, predicted, label)")
        return self._calibration

    def fit(self, z: NDArray[Any], predicted: Integers, label: Integers) -> Self:
        """Learn the references.

        Args:
            z: embeddings [N, n].
            predicted: the model's class of each, [N].
            label: the true class, [N]; images with −1 are left out.

        Raises:
            BadUsage: shapes do not fit, or no image is classified correctly.
        """
        scores = self.readout.concept_scores(self._checked(z, predicted, label))
        names, concepts = self.readout.classes, self.readout.concepts
        right, wrong = (
            summary(scores, *grouped(kind, label, predicted, names), concepts)
            for kind in (Kind.CORRECT, Kind.OUTPUT_WRONG)
        )
        if not right.known.any():
            raise BadUsage("no image is classified correctly, so there is nothing to compare with")
        self._reference = learnt(right, wrong, self.rule)
        self._calibration = None
        return self

    def calibrate(
        self,
        z: NDArray[Any],
        predicted: Integers,
        label: Integers,
        false_alarm: Fraction | float | str = "0.05",
        per_class: bool = False,
    ) -> Self:
        """Set the thresholds by images that ``fit`` has not seen; see ``Calibration``.

        Args:
            z: embeddings [N, n].
            predicted: the model's class of each, [N].
            label: the true class, [N]; only correctly classified images count.
            false_alarm: the rate promised; a float is the decimal that it prints as.
            per_class: promise it for each predicted class.

        Raises:
            BadUsage: shapes do not fit, or the rate is none.
        """
        wide, right = self._checked(z, predicted, label), predicted == label
        scores = self._scores(wide[right], predicted[right])
        level, known = rate_of(false_alarm), self.reference.known
        self._calibration = calibrated(scores, predicted[right], known, level, per_class)
        self._prepare()
        return self

    def score_samples(self, z: NDArray[Any]) -> Floats:
        """How much each of the embeddings [N, n] looks like a correct prediction, [N]."""
        wide = self._checked(z)
        return self._scores(wide, self._predicted(wide))

    def predict(self, z: NDArray[Any]) -> Integers:
        """1 to accept, −1 to flag, for each of the embeddings [N, n]; as scikit-learn has it."""
        return np.where(self.judge(z).flagged, -1, 1)

    def judge(self, z: NDArray[Any]) -> Judgement:
        """All that is said of embeddings [N, n].

        Raises:
            BadUsage: another shape, or a value that is not finite.
        """
        wide = self._checked(z)
        predicted = self._predicted(wide)
        score, threshold = self._scores(wide, predicted), self.calibration.thresholds[predicted]
        return Judgement(score, score < threshold, predicted, threshold)

    def one(self, z: NDArray[Any]) -> tuple[int, float, bool]:
        """Predicted class, score and flag of one embedding [n], without delay.

        The same numbers as ``judge`` gives. The shape is not checked, and an embedding with NaN
        or infinity is flagged. It uses memory of the monitor, so threads need a monitor each.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            (weight, bias), *rest = self.readout.head
            values = weight @ z + bias
            for weight, bias in rest:
                values = weight @ np.maximum(values, 0.0) + bias
            weight, bias = self.readout.concept_map
            scores = weight @ z + bias
        label = int(values.argmax())
        np.greater(scores[:, None], scores, out=self._above)
        score = float(self._flat[label] @ self._cells) + self._starts[label]
        is_fine = score >= self._limits[label] and bool(np.isfinite(scores).all())
        return label, score, not is_fine

    def _prepare(self) -> None:
        """Contiguous copies of what ``one`` needs."""
        count = len(self.readout.concepts)
        self._above: Floats = np.empty((count, count))
        self._cells = self._above.reshape(-1)
        self._flat = np.ascontiguousarray(self.reference.weights.reshape(-1, count * count))
        self._starts: list[float] = self.reference.start.tolist()
        self._limits: list[float] = self.calibration.thresholds.tolist()

    def _predicted(self, z: Floats) -> Integers:
        return np.asarray(self.readout.logits(z).argmax(axis=1), dtype=np.int64)

    def _scores(self, z: Floats, predicted: Integers) -> Floats:
        reference, concepts = self.reference, self.readout.concept_scores(z)
        scores = np.empty(len(z))
        for label in np.unique(predicted):
            rows = np.flatnonzero(predicted == label)
            sums = pair_sums(concepts[rows], reference.weights[[label]])[:, 0]
            scores[rows] = sums + reference.start[label]
        return scores

    def _checked(self, z: NDArray[Any], *columns: Integers) -> Floats:
        wide = np.asarray(z, dtype=np.float64)
        if wide.ndim != 2 or wide.shape[1] != self.readout.dimension:
            raise BadUsage(
                f"embeddings have shape {wide.shape}, expected [N, {self.readout.dimension}]"
            )
        if any(column.shape != (len(wide),) for column in columns):
            raise BadUsage(f"there must be a class for each of the {len(wide)} embeddings")
        if not np.isfinite(wide).all():
            row = int(np.flatnonzero(~np.isfinite(wide).all(axis=1))[0])
            raise BadUsage(f"embedding {row} holds NaN or infinity; leave such rows out")
        return wide


def learnt(right: Maps, wrong: Maps, rule: Rule) -> Reference:
    """The reference of each class from its two summary maps.

    Args:
        right: H⁺ of the K classes.
        wrong: H⁻.
        rule: what the score is.
    """
    size = len(right.concepts)
    weights, start = np.zeros((len(right.groups), size, size)), np.zeros(len(right.groups))
    for label in np.flatnonzero(right.known):
        own = right.chosen([int(label)])
        weights[label], start[label] = _linear(own, rule)
        if rule in (Rule.CONTRAST, Rule.LIKELIHOOD) and wrong.totals[label] >= LEAST:
            other = _linear(wrong.chosen([int(label)]), rule)
            weights[label], start[label] = weights[label] - other[0], start[label] - other[1]
    return Reference(
        np.round(weights / STEP) * STEP,
        np.round(start / STEP) * STEP,
        right.known,
        right.totals,
        wrong.totals,
    )


def _linear(maps: Maps, rule: Rule) -> tuple[Floats, float]:
    """Weights [M, M] and start of the similarity with one map, before they are rounded."""
    shares, total, off = (
        maps.shares[0],
        int(maps.totals[0]),
        ~np.eye(len(maps.concepts), dtype=bool),
    )
    match rule:
        case Rule.CONTRAST | Rule.COSINE:
            # The cells of A − ½ are ±½, so its norm is that of the number of cells.
            centred = np.where(off, shares - 0.5, 0.0)
            norm = float(np.sqrt((centred**2).sum() * off.sum()) / 2) or 1.0
            return centred / norm, float(-centred.sum() / 2 / norm)
        case Rule.LIKELIHOOD:
            counts = maps.counts[0]
            yes, no = (
                np.log((c + 0.5) / (total + 1)) / off.sum() for c in (counts, total - counts)
            )
            return np.where(off, yes - no, 0.0), float(no[off].sum())
        case Rule.COUNT:
            # An exact comparison: c / n > ½ + band.
            above = maps.counts[0] * BAND.denominator * 2
            return (above > total * (BAND.denominator + 2 * BAND.numerator)).astype(float), 0.0


def monitor_of(lens: Lens, images: Sequence[int] | Integers, rule: Rule = Rule.CONTRAST) -> Monitor:
    """A monitor of a bundle's model with references from some of its images.

    Args:
        lens: the bundle.
        images: which images to learn from.
        rule: what the score is.
    """
    data, at = lens.embeddings, np.asarray(images, dtype=np.int64)
    return Monitor(Readout.of(lens), rule).fit(data.z[at], data.predicted[at], data.label[at])
