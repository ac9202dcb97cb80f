"""Thresholds with a guaranteed rate of false alarms, and the rates that were then measured.

The guarantee is that of split conformal prediction (Vovk, Gammerman and Shafer, 2005; Lei et al.,
2018): if the n calibration images and the next one are exchangeable, the next score lies below
the k-th smallest of theirs with probability at most k / (n + 1), whatever their distribution and
whatever the score. It holds on average over calibration sets, not for each of them: given one
set, the rate scatters around that level by about sqrt(rate / n).

None of this is a proof about embeddings; ``monitor_proof`` has those.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from conspec.analysis.heatmaps import Bools, Floats, Integers
from conspec.specs.errors import BadUsage
from conspec.verifier.probability.intervals import clopper_pearson, clopper_pearson_upper
from conspec.verifier.probability.sequences import ProportionTest

NEVER = -(2.0**21)
"""A threshold below every score: nothing is flagged."""
ALWAYS = 2.0**21
"""A threshold above every score: everything is flagged."""
CONFIDENCE = 0.95
"""Of each measured rate's interval by itself."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """The thresholds of a monitor. An input is flagged if its score is strictly below.

    Attributes:
        thresholds: one for each predicted class, float64 [K]; ``NEVER`` where there are too few
            calibration images for the rate asked for, ``ALWAYS`` where nothing is known of the
            class.
        counts: correctly classified calibration images predicted as each class, int64 [K].
        false_alarm: the rate asked for.
        per_class: whether it is promised for each predicted class, or over all of them.
    """

    thresholds: Floats
    counts: Integers
    false_alarm: Fraction
    per_class: bool

    @property
    def silent(self) -> Bools:
        """Classes in which nothing is ever flagged, for want of calibration images, [K]."""
        return np.asarray(self.thresholds == NEVER)

    @property
    def statement(self) -> str:
        """What is guaranteed, in a sentence."""
        rate = f"{float(self.false_alarm):g}"
        whom = "that the model rightly predicts as a class" if self.per_class else (
            "that the model classifies correctly"
        )  # fmt: skip
        each = ", for each class by itself" if self.per_class else ""
        return (
            f"An image {whom} is flagged with probability at most {rate}{each}, if it is "
            "exchangeable with the calibration images. The probability is over the image and the "
            "calibration images. Nothing is promised about how many errors are found."
        )


def rate_of(value: Fraction | float | str) -> Fraction:
    """A rate of false alarms as the decimal that is written.

    Raises:
        BadUsage: it is no number strictly between 0 and 1.
    """
    try:
        rate = Fraction(str(value))
    except (ValueError, ZeroDivisionError) as error:
        raise BadUsage(f"a rate of false alarms must be a number, not {value!r}") from error
    if not 0 < rate < 1:
        raise BadUsage(f"a rate of false alarms must lie strictly between 0 and 1, not {value}")
    return rate


def conformal_threshold(scores: Floats, false_alarm: Fraction) -> float:
    """The largest threshold with the guarantee: the k-th smallest score, k = ⌊α (n + 1)⌋.

    With k = 0, for n < 1/α − 1, only ``NEVER`` has it.

    Args:
        scores: of the calibration images, [n]; they may tie.
        false_alarm: α.
    """
    k = int(false_alarm * (len(scores) + 1))
    return float(np.partition(scores, k - 1)[k - 1]) if k else NEVER


def calibrated(
    scores: Floats, predicted: Integers, known: Bools, false_alarm: Fraction, per_class: bool
) -> Calibration:
    """The thresholds from the scores of correctly classified images.

    Args:
        scores: [n].
        predicted: their classes, [n].
        known: the classes that have a reference, [K]; images of others do not count.
        false_alarm: α.
        per_class: a threshold for each class from its own images (Mondrian), or one for all.
    """
    own = [scores[predicted == label] for label in range(len(known))]
    pooled = [part for part, is_known in zip(own, known, strict=True) if is_known]
    common = conformal_threshold(np.concatenate([np.empty(0), *pooled]), false_alarm)
    found = [conformal_threshold(part, false_alarm) if per_class else common for part in own]
    thresholds = np.where(known, found, ALWAYS)
    counts = np.array([len(part) for part in own], dtype=np.int64)
    return Calibration(thresholds, counts, false_alarm, per_class)


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of images, with Clopper and Pearson's 95 % interval (independent images).

    Attributes:
        count: how many were flagged.
        total: of how many.
        lower: bound of the probability; 0 without images.
        upper: bound of the probability; 1 without images.
    """

    count: int
    total: int
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Rates:
    """What a monitor does on images that it has not seen.

    Attributes:
        false_alarms: flagged ones among the correctly classified.
        detections: flagged ones among the misclassified.
        accepted_errors: misclassified ones among those that were accepted.
    """

    false_alarms: Rate
    detections: Rate
    accepted_errors: Rate


def rate(hits: Bools) -> Rate:
    """The share of true entries of [n] truth values."""
    count, total = int(hits.sum()), len(hits)
    lower, upper = clopper_pearson(count, total, CONFIDENCE)
    return Rate(count, total, lower, upper)


def rates(flagged: Bools, predicted: Integers, label: Integers) -> Rates:
    """The rates over images [n] with a known class; others (label −1) are left out."""
    right, wrong = (label >= 0) & (label == predicted), (label >= 0) & (label != predicted)
    return Rates(rate(flagged[right]), rate(flagged[wrong]), rate(wrong[(label >= 0) & ~flagged]))


def usual_rate(flagged: Bools, confidence: float = 0.99) -> float:
    """An upper confidence bound of how often inputs like these [n] are flagged, for ``Drift``."""
    return clopper_pearson_upper(int(flagged.sum()), len(flagged), confidence)


class Drift:
    """Watches a stream of flags for a rise of their rate; may be read after every input.

    As long as each input is flagged with probability at most ``edge``, given all before it, an
    alarm is ever given with probability at most ``alarm``, however long the stream is (Ville's
    inequality for an e-process; see ``verifier.probability.sequences``). If the edge is itself a
    confidence bound (``usual_rate``), its error adds to that. How soon a drift is seen is not
    promised, nor is it seen at all if it does not raise the rate of flags.

    Attributes:
        edge: the largest rate that is no cause for alarm.
        alarm: the probability of a false alarm, ever.
    """

    def __init__(self, edge: float, alarm: float = 0.01) -> None:
        """Starts with no data.

        Raises:
            BadUsage: one of both does not lie strictly between 0 and 1.
        """
        if not 0 < alarm < 1:
            raise BadUsage(f"the probability of a false alarm must be in (0, 1), not {alarm}")
        self.edge, self.alarm = edge, alarm
        self._test = ProportionTest(edge, "greater")

    def update(self, flagged: Bools | Sequence[bool]) -> bool:
        """Take the flags of the next inputs, [N]; whether an alarm has been given by now."""
        self._test.update(np.asarray(flagged, dtype=np.float64))
        return self.is_alarm

    @property
    def is_alarm(self) -> bool:
        """Whether an alarm has been given; it stays."""
        return self.p_value <= self.alarm

    @property
    def p_value(self) -> float:
        """The anytime-valid p-value of "the rate never rose above the edge"."""
        return float(self._test.p_value)

    @property
    def times(self) -> int:
        """How many inputs came."""
        return self._test.times
