"""Where in a picture does a predicate look? Grounding by intervention, with a random control.

The schedule is that of VisionLogic (arXiv 2503.10547): heatmap of the signed feature by Grad-CAM;
for each cut-off 0.60, 0.55, …, 0.10 the union of the boxes of what is hottest; this region is
blurred, and the first one accepted makes the predicate inactive at its unchanged threshold
(strictly: ``sign · (z_j − t) < 0``). If none does, the same with Score-CAM. What the model then
predicts does not matter. The control has one random rectangle of matched area for each region,
and the same two chances.

Added here: other fills on the accepted region, the least region that still does it, a sufficiency
test (everything but the region is filled), and a stricter success that a thin margin cannot give.
All of these are observations on one picture, made in float32; none is a proof.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np

from conspec.analysis.attributions import (
    Encoder,
    Floats,
    Masked,
    Pixels,
    Singles,
    grad_cam,
    masked,
    score_cam,
)
from conspec.analysis.edits import (
    CUTOFFS,
    Bools,
    Box,
    Fill,
    Painter,
    Region,
    control,
    mask_of,
    painter,
    proposals,
    seed_of,
)
from conspec.analysis.pathways import LastLayer, pathways
from conspec.analysis.predicates import Predicate, explain
from conspec.analysis.rules import RuleSet
from conspec.specs.errors import BadUsage

HALF = 0.5
"""A removal is deep if the edit also takes so large a share of the feature's size."""


class Stage(StrEnum):
    """Which heatmap proposed a region."""

    GRAD_CAM = "grad-cam"
    SCORE_CAM = "score-cam"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A region that was filled.

    Attributes:
        stage: what proposed it.
        cutoff: share of the heatmap's maximum.
        region: the boxes; none if the heatmap is nowhere positive.
        area: share of the picture's pixels.
        margin: ``sign · (z_j − t)`` of the edited picture; the predicate is off below 0.
    """

    stage: Stage
    cutoff: float
    region: Region
    area: float
    margin: float

    @property
    def off(self) -> bool:
        """Whether the predicate is inactive, strictly; no region does nothing."""
        return bool(self.region) and self.margin < 0


@dataclass(frozen=True, slots=True)
class Series:
    """What one side, guided or random, tried.

    Attributes:
        attempts: one for each cut-off with Grad-CAM; then, if these failed on one of the two
            sides, one for each cut-off with Score-CAM.
    """

    attempts: tuple[Attempt, ...]

    @property
    def accepted(self) -> Attempt | None:
        """The first attempt that makes the predicate inactive."""
        return next((attempt for attempt in self.attempts if attempt.off), None)


@dataclass(frozen=True, slots=True)
class Grounding:
    """One predicate in one picture.

    Attributes:
        image: name of the picture.
        label: name of the predicate's class.
        predicate: what is grounded.
        fill: what took the place of pixels.
        value: z_j in the picture.
        margin: ``sign · (z_j − t)`` there, at least 0.
        guided: regions from heatmaps.
        random: their controls.
        fills: margin with the accepted region replaced by each fill; empty without one.
        least: the least region found; see `shrunk`.
        kept: margin with everything but the accepted region filled.
        kept_random: margin with everything but that region's control filled.
    """

    image: str
    label: str
    predicate: Predicate
    fill: Fill
    value: float
    margin: float
    guided: Series
    random: Series
    fills: dict[Fill, float]
    least: Attempt | None
    kept: float | None
    kept_random: float | None

    @property
    def agreed(self) -> bool:
        """Whether every fill of the accepted region makes the predicate inactive."""
        return bool(self.fills) and max(self.fills.values()) < 0

    def deep(self, side: Series) -> bool:
        """Whether a region of Grad-CAM, or a control of one, does more than cross the threshold.

        It makes the predicate inactive and takes half of |z_j| away: a margin may be so thin that
        any edit crosses the threshold, but no thin margin makes this easier.
        """
        return any(
            attempt.off and self.margin - attempt.margin >= HALF * abs(self.value)
            for attempt in side.attempts
            if attempt.stage is Stage.GRAD_CAM
        )


class Scene:
    """A picture under a model, to be edited and looked at again."""

    def __init__(self, encoder: Encoder, image: Pixels, name: str) -> None:
        """Look at a prepared picture, uint8 [S, S, 3]; ``name`` seeds what is random."""
        if image.shape != (encoder.side, encoder.side, 3) or image.dtype != np.uint8:
            raise BadUsage(
                f"{name}: a prepared picture is uint8 [{encoder.side}, {encoder.side}, 3], got "
                f"{image.dtype} {list(image.shape)}"
            )
        self.encoder, self.image, self.name = encoder, image, name
        self._painters: dict[Fill, Painter] = {}

    @cached_property
    def features(self) -> Singles:
        """What goes into the last layer for the unedited picture, float32 [d]."""
        found: Singles = self.encoder.features(self.encoder.inputs(self.image[None]))[0]
        return found

    @cached_property
    def _masked(self) -> Masked:
        return masked(self.encoder, self.image)

    def heat(self, stage: Stage, predicate: Predicate) -> Floats:
        """The heatmap [S, S] of a predicate's signed feature."""
        if stage is Stage.GRAD_CAM:
            return grad_cam(self.encoder, self.image, predicate.feature, predicate.sign)
        return score_cam(self._masked, predicate.feature, predicate.sign)

    def painted(self, mask: Bools, fill: Fill) -> Pixels:
        """The picture with a mask filled."""
        if fill not in self._painters:
            seed = seed_of(self.encoder.name, self.name)
            self._painters[fill] = painter(self.image, fill, seed)
        return self._painters[fill](mask)

    def margin(self, predicate: Predicate) -> float:
        """``sign · (z_j − t)`` of the unedited picture."""
        return _margin(self.features, predicate)

    def margins(self, predicate: Predicate, masks: Sequence[Bools], fill: Fill) -> list[float]:
        """``sign · (z_j − t)`` with each mask filled.

        Raises:
            BadUsage: what the model is given differs outside a mask.
        """
        if not masks:
            return []
        edited = np.stack([self.painted(mask, fill) for mask in masks])
        inputs = self.encoder.inputs(np.concatenate([self.image[None], edited]))
        plain, *others = inputs.cpu().numpy()
        for mask, other in zip(masks, others, strict=True):
            if (plain != other)[:, ~mask].any():
                raise BadUsage(f"{self.name}: an edit changed pixels outside its region")
        return [_margin(z, predicate) for z in self.encoder.features(inputs[1:])]


def _margin(z: Singles, predicate: Predicate) -> float:
    return predicate.sign * (float(z[predicate.feature]) - predicate.threshold)


def explaining(rules: RuleSet, layer: LastLayer, z: Singles) -> list[list[Predicate]]:
    """The predicates that explain each image, the largest contribution first.

    Args:
        rules: of the model; only the predicates and how far pathways go are used.
        layer: its last layer.
        z: features [N, d].
    """
    words = rules.vocabulary
    found = explain(words, pathways(layer, z, ahead=rules.settings.ahead))
    return [[words[int(place)] for place in found.of(row)] for row in range(len(z))]


def ground(scene: Scene, predicate: Predicate, label: str, fill: Fill = Fill.BLUR) -> Grounding:
    """Look for the region without which a predicate no longer holds; see this file's text.

    Args:
        scene: the picture.
        predicate: active there.
        label: name of the predicate's class, which is part of the control's seed.
        fill: what takes the place of pixels; VisionLogic blurs.

    Raises:
        BadUsage: the predicate is not active in the picture.
        MissingSolver: captum is not installed.
    """
    margin = scene.margin(predicate)
    if margin < 0:
        raise BadUsage(f"{scene.name}: the predicate is not active, so it cannot be grounded")
    signed = predicate.feature + (len(scene.features) if predicate.sign < 0 else 0)
    seed = seed_of(scene.encoder.name, scene.name, label, signed)
    guided, random = _both(scene, predicate, np.random.default_rng(seed), fill)
    accepted = guided.accepted
    value = float(scene.features[predicate.feature])
    start = (scene.name, label, predicate, fill, value, margin, guided, random)
    if accepted is None:
        return Grounding(*start, {}, None, None, None)
    side = scene.encoder.side
    mask = mask_of(accepted.region, side)
    beside = random.attempts[guided.attempts.index(accepted)]
    outside = [~mask, ~mask_of(beside.region, side)]
    kept, kept_random = scene.margins(predicate, outside, fill)
    fills = {each: scene.margins(predicate, [mask], each)[0] for each in Fill}
    least = _least(scene, predicate, accepted, fill)
    return Grounding(*start, fills, least, kept, kept_random)


def _both(
    scene: Scene, predicate: Predicate, random: np.random.Generator, fill: Fill
) -> tuple[Series, Series]:
    """The guided and the random side; both have Grad-CAM's and then Score-CAM's chance.

    All regions of a stage are fixed before any is tried. The guided side tries a stage's regions
    even where only the control needs them, so that attempts stand in pairs; that changes nothing,
    because the first success counts.
    """
    sides: tuple[list[Attempt], list[Attempt]] = ([], [])
    for stage in Stage:
        regions = proposals(scene.heat(stage, predicate))
        controls = [control(region, scene.encoder.side, random) for region in regions]
        for attempts, tried in zip(sides, (regions, controls), strict=True):
            attempts += _tried(scene, predicate, stage, tried, fill)
        if all(any(attempt.off for attempt in attempts) for attempts in sides):
            break
    return Series(tuple(sides[0])), Series(tuple(sides[1]))


def _tried(
    scene: Scene, predicate: Predicate, stage: Stage, regions: Sequence[Region], fill: Fill
) -> list[Attempt]:
    masks = [mask_of(region, scene.encoder.side) for region in regions]
    margins = scene.margins(predicate, masks, fill)
    return [
        Attempt(stage, cutoff, region, float(mask.mean()), margin)
        for cutoff, region, mask, margin in zip(CUTOFFS, regions, masks, margins, strict=True)
    ]


def _least(scene: Scene, predicate: Predicate, accepted: Attempt, fill: Fill) -> Attempt:
    side = scene.encoder.side

    def works(regions: Sequence[Region]) -> list[bool]:
        masks = [mask_of(region, side) for region in regions]
        return [margin < 0 for margin in scene.margins(predicate, masks, fill)]

    region = shrunk(accepted.region, side, works)
    mask = mask_of(region, side)
    margin = scene.margins(predicate, [mask], fill)[0]
    return Attempt(accepted.stage, accepted.cutoff, region, float(mask.mean()), margin)


def shrunk(
    region: Region, side: int, works: Callable[[Sequence[Region]], Sequence[bool]]
) -> Region:
    """A small region inside one that works, which still works.

    Greedy: of all ways to drop a box or to cut off a strip of one of a box's sides, the one that
    leaves the fewest pixels and still works is taken, with strips of half the picture's side first
    and of one pixel last. So in the end no box can be dropped and no side moved by a pixel. A
    smaller region elsewhere, or one that is reached only through one that fails, is not found.

    Args:
        region: boxes that work.
        side: of the picture, in pixels.
        works: whether each of some regions still does it.
    """
    step = 1 << max(side.bit_length() - 2, 0)
    while step:
        smaller = sorted(_smaller(region, step), key=lambda each: int(mask_of(each, side).sum()))
        good = works(smaller) if smaller else []
        chosen = next((each for each, fine in zip(smaller, good, strict=True) if fine), None)
        if chosen is None:
            step //= 2
        else:
            region = chosen
    return region


def _smaller(region: Region, step: int) -> list[Region]:
    """Every region with a box less, or with a strip cut off one box."""
    found = []
    for place, box in enumerate(region):
        others = region[:place] + region[place + 1 :]
        if others:
            found.append(others)
        cut = []
        if box.height > step:
            cut.append(Box(box.top + step, box.left, box.bottom, box.right))
            cut.append(Box(box.top, box.left, box.bottom - step, box.right))
        if box.width > step:
            cut.append(Box(box.top, box.left + step, box.bottom, box.right))
            cut.append(Box(box.top, box.left, box.bottom, box.right - step))
        found += [tuple(sorted((*others, less))) for less in cut]
    return found
