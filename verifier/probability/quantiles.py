"""Quantiles of every coordinate of a stream, from a small mergeable sketch with a known error.

A deterministic sketch of sampled buffers (Munro and Paterson, 1980; Manku, Rajagopalan and
Lindsay, 1998). A row of level h stands for ``2^h`` rows. When a level holds ``width`` rows or
more, each coordinate is sorted and every other value moves one level up. For a value x, let r be
how many of the m sorted values (m even) are at most x: of those in even places ``⌈r/2⌉`` are, of
those in odd places ``⌊r/2⌋``. So one step changes the estimated rank of x by 0 or ``+2^h`` in the
first case, by 0 or ``−2^h`` in the second. The sketch adds up what each side can have done and
always takes the side that has done less. A level is halved at most ``N / (width·2^h)`` times, so
over L halved levels both sides together are at most ``L · N / width`` rows, however sketches were
merged. In one stream each side is at most half of that plus ``2^L / 2``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any

from conspec.specs.errors import BadUsage
from conspec.verifier.probability.shards import NONE, Shard, Skipped, chunks

Tensor = Any  # torch.Tensor; torch is imported when first used

WIDTH = 1024
"""Rows of a level; the error of the rank is about ``N · log2(N / WIDTH) / (2 · WIDTH)``."""


@dataclass(frozen=True, eq=False)
class QuantileSketch:
    """A sketch of N rows with n coordinates; at most ``2·width`` rows a level are held.

    Attributes:
        width: rows from which on a level is halved, an even number.
        count: rows seen, N.
        levels: values [n, m_h] of level h.
        above: how many rows an estimated rank may lie above the true one.
        below: how many rows it may lie below.
        skipped: rows with NaN or infinite entries, not counted in N.
    """

    width: int = WIDTH
    count: int = 0
    levels: tuple[Tensor, ...] = ()
    above: int = 0
    below: int = 0
    skipped: Skipped = NONE

    def __post_init__(self) -> None:
        """Refuse a width that cannot be halved."""
        if self.width < 2 or self.width % 2:
            raise BadUsage(f"the width of a sketch is an even number from 2 on, not {self.width}")

    @property
    def rank_error(self) -> int:
        """How many rows an estimated rank may be wrong by, whatever the values are."""
        return max(self.above, self.below)

    def added(self, embeddings: Tensor, skipped: Skipped = NONE) -> "QuantileSketch":
        """The sketch with rows [N, n] more, all finite."""
        new = QuantileSketch(self.width, len(embeddings), (embeddings.T,), skipped=skipped)
        return self.merged(new)

    def merged(self, other: "QuantileSketch") -> "QuantileSketch":
        """The sketch of both sets of rows; the bound holds in every order of merging.

        Raises:
            BadUsage: the sketches differ in width or dimension.
        """
        import torch

        if self.width != other.width:
            raise BadUsage(f"sketches of widths {self.width} and {other.width} cannot be merged")
        sizes = {len(values) for values in self.levels + other.levels}
        if len(sizes) > 1:
            raise BadUsage(f"sketches of {sorted(sizes)} coordinates cannot be merged")
        levels = []
        for height in range(max(len(self.levels), len(other.levels))):
            parts = [one.levels[height] for one in (self, other) if height < len(one.levels)]
            levels.append(torch.cat(parts, 1))
        return _halved(
            QuantileSketch(
                self.width,
                self.count + other.count,
                tuple(levels),
                self.above + other.above,
                self.below + other.below,
                self.skipped.merged(other.skipped),
            )
        )

    def quantiles(self, share: Fraction | float | str) -> Tensor:
        """A value [n] per coordinate near the quantile ``share``, in (0, 1].

        A float means the decimal it prints as. With ``t = ⌈share · N⌉``: at least ``t − above``
        rows are at most this value, and at most ``t − 1 + below`` rows are less than it.

        Raises:
            BadUsage: there are no rows, or ``share`` is no share.
        """
        import torch

        exact = Fraction(str(share))
        if not 0 < exact <= 1:
            raise BadUsage(f"a quantile is asked for a share in (0, 1], not {share}")
        if not self.count:
            raise BadUsage("there are no embeddings to take quantiles of")
        values, order = torch.cat(self.levels, 1).sort(1)
        weights = torch.cat(
            [values.new_full((part.shape[1],), 2**height, dtype=torch.int64)
             for height, part in enumerate(self.levels)]
        )  # fmt: skip
        ranks = weights[order].cumsum(1)
        target = ranks.new_full((len(ranks), 1), ceil(exact * self.count))
        place = torch.searchsorted(ranks, target)
        return values.gather(1, place)[:, 0]


def _halved(sketch: QuantileSketch) -> QuantileSketch:
    """The sketch with every level below its width."""
    import torch

    levels = list(sketch.levels)
    above, below, height = sketch.above, sketch.below, 0
    while height < len(levels):
        values = levels[height]
        size = values.shape[1]
        if size >= sketch.width:
            even = size - size % 2
            first = 1 if above > below else 0
            rising = values[:, :even].sort(1).values
            if height + 1 == len(levels):
                levels.append(values[:, :0])
            levels[height + 1] = torch.cat([levels[height + 1], rising[:, first::2]], 1)
            levels[height] = values[:, even:].clone()  # not a view that keeps the rest alive
            above += 2**height * (1 - first)
            below += 2**height * first
        height += 1
    return QuantileSketch(sketch.width, sketch.count, tuple(levels), above, below, sketch.skipped)


def stream_quantiles(
    shards: Iterable[Shard], *, label: int | None = None, width: int = WIDTH, device: str = "cpu"
) -> QuantileSketch:
    """The sketch of a whole stream, or of its rows with one label, in one pass.

    A sketch holds about ``width · n`` values a level, so it is kept for the cells that are asked
    for, not for every cell.

    Raises:
        BadUsage: a label is asked for and a shard has none.
    """
    found = QuantileSketch(width)
    for chunk in chunks(shards, 4 * width, device):
        rows = chunk.embeddings
        if label is not None:
            if chunk.labels is None:
                raise BadUsage("quantiles of a class need the labels of the embeddings")
            rows = rows[chunk.labels == label]
        found = found.added(rows, chunk.skipped)
    return found
