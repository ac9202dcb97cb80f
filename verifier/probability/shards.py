"""Embeddings that come in shards, larger together than memory, and the rows that cannot be used."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from conspec.specs.errors import BadUsage

Array = Any  # numpy.ndarray (memory-mapped files too) or torch.Tensor
Tensor = Any  # torch.Tensor; torch is imported when first used

NAMED = 10
"""How many of the unusable rows are named."""
SHARD = 65_536
"""Rows of a shard cut from one large array."""


@dataclass(frozen=True, eq=False)
class Shard:
    """Some rows of a stream of embeddings.

    Attributes:
        embeddings: [N, n], float16, bfloat16, float32 or float64.
        labels: true class per row, integers [N], negative where it is unknown; or None.
        predicted: predicted class per row, likewise; or None.

    Raises:
        BadUsage: the shapes do not fit together, or the embeddings are not floats.
    """

    embeddings: Array
    labels: Array | None = None
    predicted: Array | None = None

    def __post_init__(self) -> None:
        """Checks shapes, so that nothing after has to."""
        shape = tuple(self.embeddings.shape)
        if len(shape) != 2:
            raise BadUsage(f"embeddings: expected shape [N, n], got {list(shape)}")
        if "float" not in str(self.embeddings.dtype):
            raise BadUsage(f"embeddings: expected floats, got {self.embeddings.dtype}")
        for name, values in (("labels", self.labels), ("predicted", self.predicted)):
            if values is not None and tuple(values.shape) != shape[:1]:
                found = list(values.shape)
                raise BadUsage(f"{name}: expected one per embedding ({shape[0]}), got {found}")


@dataclass(frozen=True)
class Skipped:
    """Rows with NaN or infinite entries: left out, counted, and the first of them named.

    Attributes:
        count: how many.
        first: places in the whole stream of the first ones, at most ``NAMED``, rising.
    """

    count: int = 0
    first: tuple[int, ...] = ()

    def merged(self, other: "Skipped") -> "Skipped":
        """Both together, in any order."""
        return Skipped(self.count + other.count, tuple(sorted(self.first + other.first))[:NAMED])


NONE = Skipped()


@dataclass(frozen=True, eq=False)
class Chunk:
    """The usable rows of a piece of a shard, on the device.

    Attributes:
        embeddings: [N, n], all finite, float32 or float64; half precision is widened, exactly.
        labels: int64 [N], or None.
        predicted: int64 [N], or None.
        skipped: rows of the piece that are not here.
    """

    embeddings: Tensor
    labels: Tensor | None
    predicted: Tensor | None
    skipped: Skipped


def shards_of(
    embeddings: Array, labels: Array | None = None, predicted: Array | None = None
) -> Iterator[Shard]:
    """Cuts one array [N, n], perhaps a memory-mapped file, into shards of ``SHARD`` rows."""
    Shard(embeddings, labels, predicted)  # the whole is checked at once
    for start in range(0, len(embeddings), SHARD):
        part = slice(start, start + SHARD)
        yield Shard(
            embeddings[part],
            None if labels is None else labels[part],
            None if predicted is None else predicted[part],
        )


def chunks(shards: Iterable[Shard], rows: int, device: str) -> Iterator[Chunk]:
    """The usable rows of a stream on a device, at most ``rows`` at a time.

    Raises:
        BadUsage: a shard has another dimension than the first one.
    """
    start, dimension = 0, None
    for shard in shards:
        dimension = dimension or shard.embeddings.shape[1]
        if shard.embeddings.shape[1] != dimension:
            found = shard.embeddings.shape[1]
            raise BadUsage(f"a shard has embeddings of {found} entries, the first {dimension}")
        for first in range(0, len(shard.embeddings), rows):
            part = slice(first, first + rows)
            yield _chunk(shard, part, start + first, device)
        start += len(shard.embeddings)


def _chunk(shard: Shard, part: slice, start: int, device: str) -> Chunk:
    """The usable rows of one piece, whose first row is the stream's row ``start``."""
    embeddings = _wide(_tensor(shard.embeddings[part], device))
    labels, predicted = (
        None if values is None else _tensor(values[part], device).long()
        for values in (shard.labels, shard.predicted)
    )
    usable = finite_rows(embeddings)
    if bool(usable.all()):
        return Chunk(embeddings, labels, predicted, NONE)
    places = (~usable).nonzero()[:, 0].tolist()
    return Chunk(
        embeddings[usable],
        None if labels is None else labels[usable],
        None if predicted is None else predicted[usable],
        Skipped(len(places), tuple(start + place for place in places[:NAMED])),
    )


def _tensor(values: Array, device: str) -> Tensor:
    """A piece of an array on the device; of a memory-mapped file only this piece is read."""
    import torch

    if isinstance(values, torch.Tensor):
        return values.to(device)
    # A copy, because a read-only file cannot be shared with torch.
    return torch.from_numpy(np.array(values)).to(device)


def _wide(embeddings: Tensor) -> Tensor:
    """Embeddings in float32, or in float64 as they were; nothing is rounded."""
    import torch

    found: Tensor = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
    return found


def finite_rows(embeddings: Tensor) -> Tensor:
    """Which rows [N] of embeddings [N, n] have neither NaN nor infinite entries."""
    import torch

    # A finite length tells that all entries are finite; one that overflows is looked at again.
    usable = torch.linalg.vector_norm(embeddings, dim=1).isfinite()
    if not bool(usable.all()):
        suspect = (~usable).nonzero()[:, 0]
        usable[suspect] = embeddings[suspect].isfinite().all(1)
    return usable
