"""Small pictures in one array: JPEGs one after the other, and where each begins."""

import io
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image

from conspec.lens.files import Array

SIDE = 64  # pixels, the longer side


def jpeg(picture: Image.Image) -> bytes:
    """An RGB picture as a JPEG of at most 64×64 pixels."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def pack(pictures: Sequence[bytes]) -> dict[str, Array]:
    """``data`` uint8 [B] and ``offsets`` int64 [N+1] of N JPEGs."""
    return {
        "data": np.frombuffer(b"".join(pictures), dtype=np.uint8),
        "offsets": np.cumsum([0, *map(len, pictures)], dtype=np.int64),
    }


def unpack(data: Array, offsets: Array) -> list[bytes]:
    """The inverse of :func:`pack`."""
    return [data[a:b].tobytes() for a, b in pairwise(offsets)]
