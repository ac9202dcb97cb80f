"""Regions of a picture, and pictures whose pixels are changed inside or outside a region.

A region is the union of boxes. Boxes come from a heatmap: the tight boxes of the 8-connected
components of what is hottest (VisionLogic, arXiv 2503.10547), or are drawn at random as a control.
Pictures are uint8 [S, S, 3], masks bool [S, S].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Bools = NDArray[np.bool_]

CUTOFFS = tuple(percent / 100 for percent in range(60, 5, -5))
"""0.60, 0.55, …, 0.10: shares of a heatmap's maximum."""
BLUR = 20 / 224
"""Standard deviation of the blur as a share of the picture's side: 20 pixels of 224."""
_AREA_FIRST = 8.0
"""How much more the area of a control counts than its proportions."""


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """Pixels from ``top`` to before ``bottom`` and from ``left`` to before ``right``."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left


Region = tuple[Box, ...]


def mask_of(region: Sequence[Box], side: int) -> Bools:
    """The pixels of a union of boxes, bool [S, S]."""
    mask = np.zeros((side, side), dtype=np.bool_)
    for box in region:
        mask[box.top : box.bottom, box.left : box.right] = True
    return mask


def proposals(heat: Floats, cutoffs: Sequence[float] = CUTOFFS) -> list[Region]:
    """For each cut-off τ the tight boxes of the 8-connected components of ``H >= τ max H``.

    No component is too small. A heatmap that is nowhere positive gives no boxes.
    """
    from scipy.ndimage import find_objects, label

    top = heat.max()
    if not top > 0:
        return [() for _ in cutoffs]
    found = []
    for cutoff in cutoffs:
        parts, _ = label(heat >= cutoff * top, structure=np.ones((3, 3), dtype=np.int64))
        slices = find_objects(parts)
        boxes = {Box(rows.start, cols.start, rows.stop, cols.stop) for rows, cols in slices}
        found.append(tuple(sorted(boxes)))
    return found


def seed_of(*words: object) -> int:
    """A seed from SHA-256 of ``42|model|image|class|id``, as VisionLogic seeds its controls."""
    text = "|".join(map(str, (42, *words)))
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big")


def control(region: Sequence[Box], side: int, random: np.random.Generator) -> Region:
    """One random rectangle for a region: of its area, and near its enclosing box's proportions.

    Height and width minimise ``8 |log(area ratio)| + |log(ratio of proportions)|``, so the area
    is met as nearly as whole pixels allow without strips. Each place is equally likely.
    """
    if not region:
        return ()
    height, width = _matched(region, side)
    top = int(random.integers(0, side - height + 1))
    left = int(random.integers(0, side - width + 1))
    return (Box(top, left, top + height, left + width),)


def _matched(region: Sequence[Box], side: int) -> tuple[int, int]:
    """Height and width of a region's control."""
    area = int(mask_of(region, side).sum())
    tall = max(box.bottom for box in region) - min(box.top for box in region)
    wide = max(box.right for box in region) - min(box.left for box in region)
    sides = np.arange(1, side + 1, dtype=np.float64)
    heights, widths = sides[:, None], sides[None, :]
    cost = _AREA_FIRST * np.abs(np.log(heights * widths / area))
    cost += np.abs(np.log(widths / heights) - np.log(wide / tall))
    row, column = np.unravel_index(int(cost.argmin()), cost.shape)
    return int(row) + 1, int(column) + 1


class Fill(StrEnum):
    """What takes the place of pixels."""

    BLUR = "blur"
    """Gaussian blur of the whole picture; its deviation is 20/224 of the side."""
    MEAN = "mean"
    """The picture's mean colour."""
    NOISE = "noise"
    """Normal noise with the mean and deviation of each of the picture's channels."""
    INPAINT = "inpaint"
    """The smoothest continuation of what is left: it solves Laplace's equation."""


class Painter(Protocol):
    """Gives the picture [S, S, 3] with the pixels of a mask replaced."""

    def __call__(self, mask: Bools) -> Pixels:
        """Paint."""


def painter(image: Pixels, fill: Fill, seed: int = 0) -> Painter:
    """How to replace pixels of a picture; what does not depend on the mask is done once.

    Args:
        image: uint8 [S, S, 3].
        fill: with what.
        seed: of noise.
    """
    if fill is Fill.INPAINT:
        return lambda mask: inpainted(image, mask)
    other = _OTHERS[fill](image, seed)
    return lambda mask: np.where(mask[:, :, None], other, image)


def _blurred(image: Pixels, _seed: int) -> Pixels:
    from PIL import Image, ImageFilter

    blur = ImageFilter.GaussianBlur(BLUR * image.shape[0])
    return np.asarray(Image.fromarray(image).filter(blur))


def _mean(image: Pixels, _seed: int) -> Pixels:
    colour: Pixels = np.rint(image.mean(axis=(0, 1))).astype(np.uint8)
    return np.broadcast_to(colour, image.shape)


def _noise(image: Pixels, seed: int) -> Pixels:
    noise = np.random.default_rng(seed).normal(size=image.shape)
    values = image.mean(axis=(0, 1)) + image.std(axis=(0, 1)) * noise
    return np.asarray(np.rint(values.clip(0, 255)), dtype=np.uint8)


_OTHERS: dict[Fill, Callable[[Pixels, int], Pixels]] = {
    Fill.BLUR: _blurred,
    Fill.MEAN: _mean,
    Fill.NOISE: _noise,
}


def inpainted(image: Pixels, mask: Bools) -> Pixels:
    """The picture with masked pixels made harmonic: each is the mean of its neighbours.

    Neighbours are the four beside a pixel, less at the border of the picture. If everything is
    masked there is nothing to continue, and the mean colour is taken.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import splu

    if mask.all():
        return np.array(_mean(image, 0))
    if not mask.any():
        return image.copy()
    number = np.full(mask.shape, -1)
    count = int(mask.sum())
    number[mask] = np.arange(count)
    known = np.where(mask[:, :, None], 0.0, image.astype(np.float64))
    degree, given = np.zeros(count), np.zeros((count, 3))
    rows: list[Any] = []
    columns: list[Any] = []
    for here, there in _beside():
        inside = mask[here]
        own, other = number[here][inside], number[there][inside]
        degree[own] += 1
        given[own] += known[there][inside]
        rows.append(own[other >= 0])
        columns.append(other[other >= 0])
    row, column = np.concatenate(rows), np.concatenate(columns)
    diagonal = np.arange(count)
    places = (np.concatenate([diagonal, row]), np.concatenate([diagonal, column]))
    values = np.concatenate([degree, -np.ones(len(row))])
    solved = splu(coo_array((values, places), shape=(count, count)).tocsc()).solve(given)
    result = image.copy()
    result[mask] = np.rint(solved.clip(0, 255)).astype(np.uint8)
    return result


def _beside() -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Pairs of slices of a picture: pixels, and those beside them in one of four directions."""
    all_, first, last = slice(None), slice(None, -1), slice(1, None)
    return [
        ((first, all_), (last, all_)),
        ((last, all_), (first, all_)),
        ((all_, first), (all_, last)),
        ((all_, last), (all_, first)),
    ]
