"""Satisfaction probabilities of a suite, estimated from images. None of this is a proof.

Each spec asks how probable it is that an image of its class satisfies its formula. The answer is a
count over held-out images with an exact interval, and a decision for ``probability`` specs. Bounds
by other arguments (moments, proofs) stand beside it, each with what it assumes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.query import space_of
from conspec.encodings.rounding import TINY, Bools, Floats
from conspec.encodings.scores import ScoreSpace
from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadUsage, UnknownName
from conspec.specs.exact import write_number
from conspec.specs.printer import to_text
from conspec.specs.semantics import margin
from conspec.verifier.probability import tails
from conspec.verifier.probability.intervals import (
    Decision,
    clopper_pearson,
    decide,
    decide_family,
    jeffreys,
    simultaneous,
    wilson,
)
from conspec.verifier.probability.rare import scores
from conspec.verifier.probability.satisfaction import Question, count_satisfied, question_of
from conspec.verifier.probability.shards import Shard, Skipped
from conspec.verifier.results import versions

CHUNK = 4096
"""Embeddings whose margins are computed at a time."""
LARGEST = 2.0**232
"""Margins beyond it count as this large, so that their fourth powers can be added.

A power of two, so that equal ones have exactly this mean, and no variance."""
SUREST = 1.0 - 1e-12
"""The highest confidence that the numerical integral of ``gaussian`` is good for."""


class Interval(StrEnum):
    """How an interval of a proportion is made."""

    CLOPPER_PEARSON = "clopper-pearson"
    WILSON = "wilson"
    JEFFREYS = "jeffreys"


INTERVALS = {
    Interval.CLOPPER_PEARSON: clopper_pearson,
    Interval.WILSON: wilson,
    Interval.JEFFREYS: jeffreys,
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """What some images say about one spec.

    Attributes:
        spec: the spec; of a ``forall`` spec only the formula and the class of its region count.
        population: whose images: a class, or "all".
        count: images that satisfy the formula.
        total: images looked at.
        lower: lower end of the interval, at ``confidence`` for this spec by itself.
        upper: upper end.
        confidence: of the interval.
        interval: how it was made.
        family: Clopper–Pearson interval that holds for all specs of the suite at once.
        decision: of a ``probability`` spec, by itself at its own confidence; else None.
        family_decision: the same, with the confidence holding for all such specs at once.
        cantelli: one-sided lower bound of the probability, at ``confidence``, from the margin's
            moments, whatever its distribution; None without images, or if a score overflows.
        gaussian: the same if the margin is normally distributed: an assumption.
        normality: p-value against that; None where it cannot be tested.
    """

    spec: f.Spec
    population: str
    count: int
    total: int
    lower: float
    upper: float
    confidence: float
    interval: Interval
    family: tuple[float, float]
    decision: Decision | None
    family_decision: Decision | None
    cantelli: float | None
    gaussian: float | None
    normality: float | None

    @property
    def share(self) -> float | None:
        """The share seen; None without images."""
        return self.count / self.total if self.total else None


@dataclass(frozen=True, slots=True)
class Estimates:
    """A suite's estimates, in its order.

    Attributes:
        specs: one entry per spec.
        skipped: images with NaN or infinite entries, which were left out.
    """

    specs: tuple[Estimate, ...]
    skipped: Skipped


def estimate_suite(
    suite: f.Suite,
    lens: Lens,
    sample: Sequence[Shard] | None = None,
    confidence: float = 0.95,
    interval: Interval = Interval.CLOPPER_PEARSON,
    device: str = "cpu",
) -> Estimates:
    """Estimates every spec of a suite on some images.

    Args:
        suite: ``forall`` and ``probability`` specs.
        lens: the bundle.
        sample: shards of embeddings, with labels if a spec is about a class; the held-out images
            if None. They are read twice.
        confidence: of the intervals. A ``probability`` spec's decision has its own.
        interval: how the intervals are made.
        device: where to count, as torch has it.

    Raises:
        BadUsage: no held-out images, labels are missing, or a confidence not between 0 and 1.
        UnknownName: a spec names what the bundle does not have.
    """
    shards = [held_out(lens)] if sample is None else sample
    space = space_of(lens)
    questions = [question_of(spec) for spec in suite.specs]
    _check_names(suite.specs, space)
    _check_labels(suite.specs, questions, shards)
    found = count_satisfied(shards, questions, space, device)
    lower, upper = INTERVALS[interval](found.counts, found.totals, confidence)
    families = simultaneous(found.counts, found.totals, confidence)
    decisions = _decisions(suite.specs, found.counts, found.totals)
    moments = _tails(questions, space, shards, confidence)
    return Estimates(
        tuple(
            Estimate(
                spec,
                question.label or "all",
                int(found.counts[place]),
                int(found.totals[place]),
                float(lower[place]),
                float(upper[place]),
                confidence,
                interval,
                (float(families[0][place]), float(families[1][place])),
                *decisions[place],
                *moments[place],
            )
            for place, (spec, question) in enumerate(zip(suite.specs, questions, strict=True))
        ),
        found.skipped,
    )


def held_out(lens: Lens) -> Shard:
    """The held-out images of a bundle.

    Raises:
        BadUsage: it has none.
    """
    data = lens.embeddings
    if not data.heldout.any():
        raise BadUsage(
            f"{lens.root}: no image of this bundle is held out, so nothing can be estimated from "
            "it; build it with held-out images, or give others with --embeddings"
        )
    return Shard(data.z[data.heldout], data.label[data.heldout], data.predicted[data.heldout])


def _check_names(specs: Sequence[f.Spec], space: ScoreSpace) -> None:
    """Refuse what the bundle does not have, naming the spec."""
    for spec in specs:
        try:
            space.negated(spec.body)
        except UnknownName as error:
            raise UnknownName(f"spec {spec.name}: {error}") from error


def _check_labels(
    specs: Sequence[f.Spec], questions: Sequence[Question], shards: Sequence[Shard]
) -> None:
    """Refuse embeddings without labels if a spec is about a class."""
    if all(shard.labels is not None for shard in shards):
        return
    for spec, question in zip(specs, questions, strict=True):
        if question.label is not None:
            raise BadUsage(
                f"spec {spec.name} is about the class '{question.label}', but there are embeddings "
                "without labels; give them as .safetensors with z and label"
            )


def _decisions(
    specs: Sequence[f.Spec], counts: NDArray[np.int64], totals: NDArray[np.int64]
) -> list[tuple[Decision | None, Decision | None]]:
    """Decisions of the ``probability`` specs, alone and as families of one confidence each."""
    found: list[tuple[Decision | None, Decision | None]] = [(None, None)] * len(specs)
    asked: dict[float, list[tuple[int, float]]] = {}
    for place, spec in enumerate(specs):
        if isinstance(spec, f.Probability):
            confidence, stated = float(spec.confidence), float(spec.at_least)
            if confidence in (0.0, 1.0):
                raise BadUsage(f"spec {spec.name}: its confidence is too close to 0 or 1")
            # What is too small for a float is not 0, which any count would satisfy.
            stated = max(stated, TINY) if spec.at_least else stated
            asked.setdefault(confidence, []).append((place, stated))
    for confidence, family in asked.items():
        places = [place for place, _ in family]
        known = counts[places], totals[places], np.array([stated for _, stated in family])
        alone, together = decide(*known, confidence), decide_family(*known, confidence)
        for place, one, all_of_them in zip(places, alone, together, strict=True):
            found[place] = (one, all_of_them)
    return found


Tails = tuple[float | None, float | None, float | None]


def _tails(
    questions: Sequence[Question], space: ScoreSpace, shards: Sequence[Shard], confidence: float
) -> list[Tails]:
    """Per question the bounds from moments of its margin; None where there are none."""
    found: list[Tails] = [(None, None, None)] * len(questions)
    groups: dict[str | None, list[int]] = {}
    for place, question in enumerate(questions):
        groups.setdefault(question.label, []).append(place)
    for label, places in groups.items():
        moments, known = _moments([questions[place] for place in places], label, space, shards)
        if moments is None:
            continue
        given = (moments.count, moments.mean, moments.second)
        cantelli = tails.cantelli_sampled(*given, confidence).lower
        gaussian = tails.gaussian(*given, confidence).lower if confidence <= SUREST else None
        normal = tails.normality(moments.count, moments.skewness, moments.kurtosis).p_value
        for column in np.flatnonzero(known).tolist():
            shape = float(normal[column])
            found[places[column]] = (
                float(cantelli[column]),
                None if gaussian is None else float(gaussian[column]),
                shape if np.isfinite(shape) else None,
            )
    return found


def _moments(
    questions: Sequence[Question], label: str | None, space: ScoreSpace, shards: Sequence[Shard]
) -> tuple[tails.Moments | None, Bools]:
    """Moments of the margins of S questions about one class; None without images of it.

    Also which of them mean something, [S]: those where no margin was lost to overflow.
    """
    total, known = None, np.ones(len(questions), dtype=np.bool_)
    for points in _points(shards, label, space):
        with np.errstate(over="ignore", invalid="ignore"):
            batch = scores(space, points)
            columns = [margin(question.formula, batch) for question in questions]
        margins = np.stack(columns, axis=1)
        lost = np.isnan(margins)
        known &= ~lost.any(axis=0)
        # The margin of a constant is infinite; its sign is all that counts here.
        found = tails.moments_of(np.clip(np.where(lost, 0.0, margins), -LARGEST, LARGEST))
        total = found if total is None else total.merged(found)
    return total, known


def _points(shards: Sequence[Shard], label: str | None, space: ScoreSpace) -> Iterator[Floats]:
    """The usable embeddings of a class (or all), some at a time, in float64."""
    for shard in shards:
        for start in range(0, len(shard.embeddings), CHUNK):
            part = slice(start, start + CHUNK)
            points = np.asarray(shard.embeddings[part], dtype=np.float64)
            kept = np.isfinite(points).all(axis=1)
            if label is not None and shard.labels is not None:
                kept &= np.asarray(shard.labels[part]) == space.classes.index(label)
            if kept.any():
                yield points[kept]


def to_json(
    estimate: Estimate, lens: Lens, skipped: Skipped, files: Sequence[str] = ()
) -> dict[str, Any]:
    """The estimate's line in an estimates file; see ``report/estimates.schema.json``.

    Args:
        estimate: of one spec.
        lens: the bundle.
        skipped: images that were left out.
        files: where the embeddings came from; the bundle's held-out images if empty.
    """
    spec = estimate.spec
    stated = spec if isinstance(spec, f.Probability) else None
    return {
        "spec": spec.name,
        "text": to_text(spec),
        "population": estimate.population,
        "count": estimate.count,
        "n": estimate.total,
        "point": estimate.share,
        "lower": estimate.lower,
        "upper": estimate.upper,
        "confidence": estimate.confidence,
        "interval": estimate.interval.value,
        "family": {"lower": estimate.family[0], "upper": estimate.family[1]},
        "at_least": None if stated is None else write_number(stated.at_least),
        "decision": _word(estimate.decision),
        "family_decision": _word(estimate.family_decision),
        "cantelli": estimate.cantelli,
        "gaussian": estimate.gaussian,
        "normality": estimate.normality,
        "files": list(files),
        "skipped": {"count": skipped.count, "first": list(skipped.first)},
        "bundle": lens.hash,
        "versions": dict(versions()),
    }


def _word(decision: Decision | None) -> str | None:
    return None if decision is None else decision.value
