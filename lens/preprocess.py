"""From a picture to the numbers a classifier sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from conspec.specs.errors import BadUsage

if TYPE_CHECKING:
    from torch import Tensor

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Resize the shorter side, crop the centre, scale to [0, 1], subtract, divide.

    Attributes:
        resize: the shorter side after resizing, in pixels.
        crop: side of the square cut from the centre, in pixels; at most ``resize``.
        mean: of each channel, in [0, 1].
        std: of each channel.
        interpolation: nearest, box, bilinear, bicubic or lanczos.
    """

    resize: int
    crop: int
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        """Refuse sizes and filters that make no picture.

        Raises:
            BadUsage: of them.
        """
        if not 1 <= self.crop <= self.resize:
            raise BadUsage(f"preprocessing: crop {self.crop} must be 1 to resize {self.resize}")
        if self.interpolation not in FILTERS:
            raise BadUsage(f"preprocessing: {self.interpolation!r} is none of {list(FILTERS)}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise BadUsage("preprocessing: mean and std need three numbers each, std positive")

    def __call__(self, pictures: Sequence[Image.Image]) -> "Tensor":
        """RGB pictures as float32 [B, 3, crop, crop]."""
        import torch

        pixels = np.stack([np.asarray(self._square(p), dtype=np.float32) for p in pictures])
        scaled = torch.from_numpy(pixels / np.float32(255)).permute(0, 3, 1, 2)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.mean, self.std))
        return ((scaled - mean) / std).contiguous()

    def _square(self, picture: Image.Image) -> Image.Image:
        shorter = min(picture.size)
        size = (self.resize * picture.width // shorter, self.resize * picture.height // shorter)
        if size != picture.size:
            picture = picture.resize(size, FILTERS[self.interpolation])
        left, top = (round((side - self.crop) / 2) for side in size)
        return picture.crop((left, top, left + self.crop, top + self.crop))
