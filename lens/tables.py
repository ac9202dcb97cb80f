"""The arrays of a lens bundle: what is stored, in which shape, and how it is checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from conspec.lens.files import Array, Field, read_arrays
from conspec.specs.errors import BadFile

# N images, n embedding size, p VLM embedding size, K classes, M concepts.
EMBEDDING_FIELDS = {
    "z": Field("F32", ("N", "n")),
    "label": Field("I64", ("N",)),
    "predicted": Field("I64", ("N",)),
    "heldout": Field("BOOL", ("N",)),
    "vlm": Field("F32", ("N", "p")),
    "directions": Field("F32", ("M", "p")),
    "class_directions": Field("F32", ("K", "p")),
    "attributes": Field("I8", ("N", "M"), optional=True),
}
STATISTICS_FIELDS = {
    "count": Field("I64", ("K",)),
    "mean": Field("F64", ("K", "n")),
    "std": Field("F64", ("K", "n")),
    "min": Field("F64", ("K", "n")),
    "max": Field("F64", ("K", "n")),
    "axes": Field("F64", ("K", "n", "n"), optional=True),
    "residual": Field("F64", ("K", "n"), optional=True),
}
LEADING = 8  # axes of a zonotope
THUMBNAIL_FIELDS = {"data": Field("U8", ("B",)), "offsets": Field("I64", ("N+1",))}


@dataclass(frozen=True, eq=False)
class Embeddings:
    """What is known of each image, and the directions of the vocabulary.

    Attributes:
        z: embeddings, float32 [N, n].
        label: true class, int64 [N]; −1 where it is unknown.
        predicted: class with the largest logit, int64 [N].
        heldout: bool [N]; the other images are the training images.
        vlm: image embeddings of the VLM as it gives them, float32 [N, p].
        directions: unit concept directions, float32 [M, p].
        class_directions: unit directions of the class names, float32 [K, p].
        attributes: int8 [N, M], 1 present, 0 absent, −1 unknown; or None.
    """

    z: npt.NDArray[np.float32]
    label: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    heldout: npt.NDArray[np.bool_]
    vlm: npt.NDArray[np.float32]
    directions: npt.NDArray[np.float32]
    class_directions: npt.NDArray[np.float32]
    attributes: npt.NDArray[np.int8] | None = None


@dataclass(frozen=True, eq=False)
class Statistics:
    """Moments per class of correctly classified training embeddings (paper 1, focus regions).

    Rows of a class with ``count`` 0 are zeros and mean nothing.

    Attributes:
        count: int64 [K].
        mean: float64 [K, n].
        std: population standard deviation, float64 [K, n].
        minimum: float64 [K, n].
        maximum: float64 [K, n].
        axes: principal axes as columns, each as long as the standard deviation along it, the
            longest first, float64 [K, n, n]; ``axes @ axes.T`` is the population covariance.
            None when n > 512. Regions are made of the stored numbers, not of their ideals.
        residual: standard deviation per coordinate that the ``LEADING`` longest axes leave,
            float64 [K, n]; None when n > 512.
    """

    count: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    minimum: npt.NDArray[np.float64]
    maximum: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64] | None = None
    residual: npt.NDArray[np.float64] | None = None


def read_embeddings(path: Path, sizes: Mapping[str, int], nonnegative: bool) -> Embeddings:
    """The embeddings in a bundle's ``embeddings.safetensors``.

    Raises:
        BadFile: it is not what the layout demands, or an entry is out of range.
    """
    arrays = read_arrays(path, EMBEDDING_FIELDS, sizes)
    _check_range(path, arrays, "label", (-1, sizes["K"] - 1))
    _check_range(path, arrays, "predicted", (0, sizes["K"] - 1))
    _check_range(path, arrays, "attributes", (-1, 1))
    if nonnegative and arrays["z"].min(initial=0) < 0:
        raise BadFile(f"{path}: z has negative entries, the manifest says there are none")
    return Embeddings(**arrays)


def read_statistics(path: Path, sizes: Mapping[str, int]) -> Statistics:
    """The moments in a bundle's ``statistics.safetensors``.

    Raises:
        BadFile: it is not what the layout demands, or an entry is out of range.
    """
    arrays = read_arrays(path, STATISTICS_FIELDS, sizes)
    _check_range(path, arrays, "count", (0, sizes["N"]))
    _check_range(path, arrays, "std", (0, np.inf))
    _check_range(path, arrays, "residual", (0, np.inf))
    if ("axes" in arrays) != ("residual" in arrays):
        raise BadFile(f"{path}: axes and residual stand together or not at all")
    lower, upper = arrays.pop("min"), arrays.pop("max")
    if (lower > upper).any():
        raise BadFile(f"{path}: min is above max")
    return Statistics(**arrays, minimum=lower, maximum=upper)


def read_thumbnails(path: Path, sizes: Mapping[str, int]) -> tuple[Array, Array]:
    """Bytes of all JPEGs, uint8 [B], and where each begins and the last ends, int64 [N+1].

    Raises:
        BadFile: it is not what the layout demands.
    """
    arrays = read_arrays(path, THUMBNAIL_FIELDS, sizes)
    data, offsets = arrays["data"], arrays["offsets"]
    if (offsets[0], offsets[-1]) != (0, len(data)) or (np.diff(offsets) < 0).any():
        raise BadFile(f"{path}: offsets do not rise from 0 to the length of data")
    return data, offsets


def _check_range(
    path: Path, arrays: Mapping[str, Array], name: str, allowed: tuple[float, float]
) -> None:
    if name in arrays and arrays[name].size:
        lowest, highest = arrays[name].min(), arrays[name].max()
        if lowest < allowed[0] or highest > allowed[1]:
            raise BadFile(f"{path}: {name} runs from {lowest} to {highest}, allowed {allowed}")
