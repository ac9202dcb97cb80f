"""Groundings of many predicates counted: guided against random, with intervals and paired tests.

Counts over all predicate tests treat these as independent, as VisionLogic does, although several
of them may share a picture. Counts over pictures, with the first predicate of each, need only
independent pictures. None of this is a proof.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from conspec.analysis.edits import CUTOFFS, Fill
from conspec.analysis.grounding import Attempt, Grounding, Stage
from conspec.verifier.probability.intervals import clopper_pearson
from conspec.verifier.probability.validation import mcnemar


@dataclass(frozen=True, slots=True)
class Count:
    """Successes among some tests, with the interval of Clopper and Pearson.

    Attributes:
        count: successes.
        total: tests.
        lower: end of the interval.
        upper: end of the interval.
    """

    count: int
    total: int
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Paired:
    """Guided against random on the same tests.

    Attributes:
        guided: successes of the regions from heatmaps.
        random: successes of their controls.
        guided_only: tests in which only the guided side succeeds.
        random_only: tests in which only the random side does.
        p_value: McNemar's exact two-sided test.
    """

    guided: Count
    random: Count
    guided_only: int
    random_only: int
    p_value: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What a set of groundings shows.

    Attributes:
        pictures: how many have a predicate that was tested.
        grounded: pictures with at least one success of the guided side.
        tests: the schedule of VisionLogic, over all predicate tests.
        first: the same, with the first predicate of each picture only.
        deep: predicate off, and half of the feature's size taken away, by a region of Grad-CAM.
        cutoffs: for each cut-off, one region of Grad-CAM against one control of the same area.
        kept: predicate still active when only the accepted region, or only its control, is kept.
        fallback: tests in which Grad-CAM failed, and how many of them Score-CAM recovered.
        fills: of the accepted regions, those that also work with each fill.
        agreed: those that work with every fill.
        area: median share of the picture, of accepted regions.
        area_random: the same of accepted controls.
        area_least: the same of the least regions; None where nothing was accepted.
    """

    pictures: int
    grounded: Count
    tests: Paired
    first: Paired
    deep: Paired
    cutoffs: dict[float, Paired]
    kept: Paired
    fallback: Count
    fills: dict[Fill, Count]
    agreed: Count
    area: float | None
    area_random: float | None
    area_least: float | None


def summarize(found: Sequence[Grounding], confidence: float = 0.95) -> Summary:
    """Count; the first predicate of a picture is the first that comes in ``found``."""
    first = list({each.image: each for each in reversed(found)}.values())
    accepted = [each for each in found if each.guided.accepted is not None]

    def count(flags: Sequence[bool]) -> Count:
        return counted(sum(flags), len(flags), confidence)

    def paired(
        tests: Sequence[Grounding],
        guided: Callable[[Grounding], bool],
        random: Callable[[Grounding], bool],
    ) -> Paired:
        return compared([guided(t) for t in tests], [random(t) for t in tests], confidence)

    grounded = {each.image for each in accepted}
    failed = [each for each in found if _first_stage(each) is None]
    return Summary(
        pictures=len(first),
        grounded=counted(len(grounded), len(first), confidence),
        tests=paired(found, _guided, _random),
        first=paired(first, _guided, _random),
        deep=paired(found, lambda g: g.deep(g.guided), lambda g: g.deep(g.random)),
        cutoffs={cutoff: _at_cutoff(found, i, confidence) for i, cutoff in enumerate(CUTOFFS)},
        kept=paired(accepted, lambda g: _active(g.kept), lambda g: _active(g.kept_random)),
        fallback=count([_guided(each) for each in failed]),
        fills={fill: count([each.fills[fill] < 0 for each in accepted]) for fill in Fill},
        agreed=count([each.agreed for each in accepted]),
        area=_median([each.guided.accepted for each in found]),
        area_random=_median([each.random.accepted for each in found]),
        area_least=_median([each.least for each in found]),
    )


def counted(count: int, total: int, confidence: float = 0.95) -> Count:
    """A count with its interval."""
    return Count(count, total, *clopper_pearson(count, total, confidence))


def compared(guided: Sequence[bool], random: Sequence[bool], confidence: float = 0.95) -> Paired:
    """Two sides of the same tests."""
    pairs = list(zip(guided, random, strict=True))
    ours, theirs = (sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs))
    p_value = float(mcnemar(np.array([ours]), np.array([theirs]))[0])
    return Paired(
        counted(sum(guided), len(pairs), confidence),
        counted(sum(random), len(pairs), confidence),
        ours,
        theirs,
        p_value,
    )


def _at_cutoff(found: Sequence[Grounding], place: int, confidence: float) -> Paired:
    guided = [each.guided.attempts[place].off for each in found]
    random = [each.random.attempts[place].off for each in found]
    return compared(guided, random, confidence)


def _guided(found: Grounding) -> bool:
    return found.guided.accepted is not None


def _random(found: Grounding) -> bool:
    return found.random.accepted is not None


def _active(margin: float | None) -> bool:
    return margin is not None and margin >= 0


def _first_stage(found: Grounding) -> Attempt | None:
    tried = (a for a in found.guided.attempts if a.stage is Stage.GRAD_CAM)
    return next((attempt for attempt in tried if attempt.off), None)


def _median(attempts: Sequence[Attempt | None]) -> float | None:
    areas = [attempt.area for attempt in attempts if attempt is not None]
    return float(np.median(areas)) if areas else None
