"""What is left of predicates, local rules and predictions when pictures are perturbed.

Six kinds of perturbation in five strengths, seeded for each picture. What is random is drawn once
for a picture and kind, so that a stronger one continues a weaker one: the same noise is scaled,
the same patch grows around one place. Lengths are shares of the shorter side.

A predicate survives if it explains the clean picture and is still active in the perturbed one; a
local rule survives if all of its predicates do; a prediction, or an answer of the global rules,
if it is still the same class.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from conspec.analysis.edits import seed_of
from conspec.analysis.grounding_summary import Count, counted
from conspec.analysis.pathways import LastLayer, pathways
from conspec.analysis.predicates import explain
from conspec.analysis.rules import RuleSet
from conspec.specs.errors import BadUsage

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.uint8]
Singles = NDArray[np.float32]
Embed = Callable[[Sequence["Image"]], Singles]
"""Pictures → features float32 [B, d]."""


class Kind(StrEnum):
    """What is done to a picture."""

    BRIGHTNESS = "brightness"
    """A share of the range is added to all pixels, or taken from them (at random, per picture)."""
    CONTRAST = "contrast"
    """Pixels move this share of the way to the picture's mean grey."""
    BLUR = "blur"
    """Gaussian blur; deviation as a share of the side."""
    NOISE = "noise"
    """Normal noise; deviation as a share of the range."""
    HUE = "hue"
    """Hues turn by this share of a full circle."""
    OCCLUSION = "occlusion"
    """A square of the mean colour at a random place; share of the picture's area."""


STRENGTHS: dict[Kind, tuple[float, ...]] = {
    Kind.BRIGHTNESS: (0.1, 0.2, 0.3, 0.4, 0.5),
    Kind.CONTRAST: (0.2, 0.4, 0.6, 0.75, 0.9),
    Kind.BLUR: (0.01, 0.02, 0.03, 0.045, 0.06),
    Kind.NOISE: (0.04, 0.08, 0.12, 0.18, 0.26),
    Kind.HUE: (0.05, 0.1, 0.2, 0.35, 0.5),
    Kind.OCCLUSION: (0.05, 0.1, 0.2, 0.3, 0.4),
}


def perturbed(picture: "Image", kind: Kind, strength: float, name: str) -> "Image":
    """The picture with one perturbation.

    Args:
        picture: RGB.
        kind: what is done.
        strength: how much, in the kind's unit; 0 does nothing.
        name: of the picture; it seeds what is random.
    """
    from PIL import Image

    if strength == 0:
        return picture
    random = np.random.default_rng(seed_of(kind.value, name))
    image = np.asarray(picture.convert("RGB"))
    return Image.fromarray(_HOW[kind](image, strength, random))


def _brightness(image: Pixels, strength: float, random: np.random.Generator) -> Pixels:
    sign = 1.0 if random.random() < 0.5 else -1.0
    return _pixels(image + sign * 255 * strength)


def _contrast(image: Pixels, strength: float, _random: np.random.Generator) -> Pixels:
    return _pixels(image + strength * (image.mean() - image))


def _blur(image: Pixels, strength: float, _random: np.random.Generator) -> Pixels:
    from scipy.ndimage import gaussian_filter

    deviation = strength * min(image.shape[:2])
    return _pixels(gaussian_filter(image.astype(np.float64), (deviation, deviation, 0)))


def _noise(image: Pixels, strength: float, random: np.random.Generator) -> Pixels:
    return _pixels(image + 255 * strength * random.normal(size=image.shape))


def _hue(image: Pixels, strength: float, _random: np.random.Generator) -> Pixels:
    from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

    colours = rgb_to_hsv(image / 255)
    colours[:, :, 0] = (colours[:, :, 0] + strength) % 1.0
    return _pixels(255 * hsv_to_rgb(colours))


def _occlusion(image: Pixels, strength: float, random: np.random.Generator) -> Pixels:
    height, width = image.shape[:2]
    side = min(round((strength * height * width) ** 0.5), height, width)
    across, down = random.random(2)
    top, left = int(down * (height - side)), int(across * (width - side))
    result = image.copy()
    result[top : top + side, left : left + side] = np.rint(image.mean(axis=(0, 1)))
    return result


_HOW: dict[Kind, Callable[[Pixels, float, np.random.Generator], Pixels]] = {
    Kind.BRIGHTNESS: _brightness,
    Kind.CONTRAST: _contrast,
    Kind.BLUR: _blur,
    Kind.NOISE: _noise,
    Kind.HUE: _hue,
    Kind.OCCLUSION: _occlusion,
}


def _pixels(values: NDArray[np.floating[Any]]) -> Pixels:
    return np.asarray(np.rint(values.clip(0, 255)), dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class Family:
    """A model whose predicates are watched.

    Attributes:
        name: what figures call it.
        embed: pictures to what goes into the last layer.
        layer: the last layer.
        rules: predicates and global rules, learnt from training images.
    """

    name: str
    embed: Embed
    layer: LastLayer
    rules: RuleSet


@dataclass(frozen=True, slots=True)
class Survival:
    """What is left at one strength. Intervals assume independent pictures.

    Attributes:
        kind: what was done.
        strength: how much.
        prediction: pictures with the same predicted class.
        answer: pictures for which the global rules give the same class, or again none.
        first: pictures whose first predicate (of the largest contribution) survives.
        rule: pictures whose local rule survives, that is all of its predicates.
        predicates: share of all explaining predicates that survive; no interval, because those
            of one picture depend on each other.
    """

    kind: Kind
    strength: float
    prediction: Count
    answer: Count
    first: Count
    rule: Count
    predicates: float


@dataclass(frozen=True, slots=True)
class Study:
    """One model under all perturbations.

    Attributes:
        family: name of the model.
        pictures: how many were given.
        explained: how many have a predicate; only these count.
        predicates: how many they have in all.
        rows: by kind and strength.
    """

    family: str
    pictures: int
    explained: int
    predicates: int
    rows: tuple[Survival, ...]


def study(
    family: Family,
    pictures: Sequence["Image"],
    names: Sequence[str],
    advance: Callable[[int, int], None] = lambda _done, _total: None,
    confidence: float = 0.95,
) -> Study:
    """Perturb pictures in every way and see what survives.

    Args:
        family: the model.
        pictures: RGB, such as a model has never seen.
        names: of the pictures; they seed what is random.
        advance: told how many strengths are done, and of how many.
        confidence: of each interval by itself.

    Raises:
        BadUsage: no picture has a predicate.
    """
    z = family.embed(pictures)
    rules = family.rules
    paths = pathways(family.layer, z, ahead=rules.settings.ahead)
    found = explain(rules.vocabulary, paths)
    kept = np.flatnonzero(found.counts > 0).tolist()
    if not kept:
        raise BadUsage(f"{family.name}: no predicate explains any of {len(pictures)} pictures")
    places = [found.of(row) for row in kept]
    before = (family.layer.predicted(z[kept]), rules.answers(z[kept]).predicted)
    total = sum(len(steps) for steps in STRENGTHS.values())
    rows: list[Survival] = []
    for kind, steps in STRENGTHS.items():
        for strength in steps:
            shown = [perturbed(pictures[row], kind, strength, names[row]) for row in kept]
            after = family.embed(shown)
            active = rules.vocabulary.active(after)
            alive = [active[row, own] for row, own in enumerate(places)]
            said = (family.layer.predicted(after), rules.answers(after).predicted)
            same = tuple(int((a == b).sum()) for a, b in zip(said, before, strict=True))
            rows.append(_survival(kind, strength, same, alive, confidence))
            advance(len(rows), total)
    number = sum(len(own) for own in places)
    return Study(family.name, len(pictures), len(kept), number, tuple(rows))


def _survival(
    kind: Kind,
    strength: float,
    same: tuple[int, ...],
    alive: Sequence[NDArray[np.bool_]],
    confidence: float,
) -> Survival:
    total = len(alive)
    return Survival(
        kind,
        strength,
        prediction=counted(same[0], total, confidence),
        answer=counted(same[1], total, confidence),
        first=counted(sum(bool(own[0]) for own in alive), total, confidence),
        rule=counted(sum(bool(own.all()) for own in alive), total, confidence),
        predicates=float(np.concatenate(alive).mean()),
    )
