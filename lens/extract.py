"""Encoding all images, in shards that survive an interruption.

Each shard is one safetensors file in a work folder, written under another name and renamed, so
that it is whole or absent. Shards are used again only while the folder's key is the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors.numpy import save_file
from torch import Tensor

from conspec.lens.files import Array, Field, read_arrays
from conspec.lens.images import Picture
from conspec.lens.thumbnails import jpeg, pack, unpack
from conspec.specs.errors import BadFile

SHARD = 512  # images; the most that an interruption costs

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

_FIELDS = {
    "z": Field("F32", ("N", "n")),
    "vlm": Field("F32", ("N", "p")),
    "data": Field("U8", ("B",)),
    "offsets": Field("I64", ("N+1",)),
}


@dataclass(frozen=True)
class Towers:
    """The two encoders: RGB pictures → vectors, float32 [B, n] and [B, p]."""

    model: Callable[[Sequence[Image.Image]], Tensor]
    vlm: Callable[[Sequence[Image.Image]], Tensor]
    batch_size: int


@dataclass(frozen=True, eq=False)
class Extracted:
    """What was made of N images.

    Attributes:
        z: embeddings, float32 [N, n].
        vlm: embeddings of the VLM, float32 [N, p].
        thumbnails: a JPEG of each.
    """

    z: npt.NDArray[np.float32]
    vlm: npt.NDArray[np.float32]
    thumbnails: tuple[bytes, ...]


def extract(
    pictures: Sequence[Picture], towers: Towers, folder: Path, key: str, progress: Progress
) -> Extracted:
    """Encode all pictures, taking up what an earlier run with the same key left in ``folder``.

    Args:
        pictures: what to encode.
        towers: the encoders.
        folder: for the shards; the caller removes it when it is done with them.
        key: changes whenever the embeddings would.
        progress: told after each batch.

    Raises:
        BadFile: a picture is damaged, or an embedding is NaN or infinite.
    """
    _open_folder(folder, key)
    parts = []
    for start in range(0, len(pictures), SHARD):
        shard = pictures[start : start + SHARD]
        path = folder / f"shard-{start // SHARD:06}.safetensors"
        if path.exists():
            progress("encoding images", start + len(shard), len(pictures))
        else:
            _write_shard(path, _encode(shard, towers, _Step(progress, start, len(pictures))))
        parts.append(read_arrays(path, _FIELDS, {"N": len(shard), "N+1": len(shard) + 1}))
    return Extracted(
        z=np.concatenate([part["z"] for part in parts]),
        vlm=np.concatenate([part["vlm"] for part in parts]),
        thumbnails=tuple(t for part in parts for t in unpack(part["data"], part["offsets"])),
    )


def clear(folder: Path) -> None:
    """Remove what :func:`extract` left in ``folder``, and the folder if nothing else is there."""
    for path in (*folder.glob("shard-*"), folder / "key"):
        path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


@dataclass(frozen=True)
class _Step:
    progress: Progress
    start: int
    total: int

    def __call__(self, done: int) -> None:
        self.progress("encoding images", self.start + done, self.total)


def _open_folder(folder: Path, key: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "key"
    if not note.exists() or note.read_text(encoding="utf-8") != key:
        clear(folder)
        folder.mkdir(exist_ok=True)
        note.write_text(key, encoding="utf-8")


def _encode(
    shard: Sequence[Picture], towers: Towers, step: Callable[[int], None]
) -> dict[str, Array]:
    z, vlm, small = [], [], []
    for start in range(0, len(shard), towers.batch_size):
        batch = shard[start : start + towers.batch_size]
        images = [picture.load() for picture in batch]
        z.append(_checked(towers.model(images), batch, "the model"))
        vlm.append(_checked(towers.vlm(images), batch, "the VLM"))
        small += [jpeg(image) for image in images]
        step(start + len(batch))
    return {"z": np.concatenate(z), "vlm": np.concatenate(vlm), **pack(small)}


def _checked(found: Tensor, batch: Sequence[Picture], who: str) -> npt.NDArray[np.float32]:
    vectors = np.asarray(found.numpy(), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(batch):
        raise BadFile(f"{who} gives {list(vectors.shape)} for {len(batch)} images")
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise BadFile(f"{who} gives NaN or infinity for image {batch[bad[0]].id}")
    return vectors


def _write_shard(path: Path, arrays: dict[str, Array]) -> None:
    unfinished = path.with_suffix(".unfinished")
    save_file(arrays, unfinished)
    unfinished.rename(path)
