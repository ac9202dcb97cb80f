"""Count, mean, covariance, minimum and maximum of streams of embeddings, per cell and mergeable.

All accumulation is in float64, whatever type the embeddings have. Each chunk is summarised with
two passes over it, and summaries are merged by the pairwise update of Chan, Golub and LeVeque
(1983), which stays accurate where sums of squares would cancel. Merging is associative and
commutative: exactly for counts, minima and maxima, up to rounding for means and covariances. No
step uses atomic additions, so one sharding on one device always gives the same bits.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from conspec.lens.tables import LEADING, Statistics
from conspec.specs.errors import BadUsage
from conspec.verifier.probability.shards import NONE, Chunk, Shard, Skipped, chunks

Tensor = Any  # torch.Tensor; torch is imported when first used

ROWS = 4096
"""Rows summarised at a time."""
STRIDE = 2**31
"""The cell of (label, prediction) has the key ``label · STRIDE + prediction``."""


class By(Enum):
    """Which cells a stream is sorted into."""

    ALL = "all"  # one cell, key 0
    LABEL = "label"  # the key is the label
    CORRECT = "correct"  # the label, of correctly classified rows only
    LABEL_AND_PREDICTION = "label and prediction"  # see ``STRIDE``


@dataclass(frozen=True, eq=False)
class Moments:
    """What is known of the rows in each of C cells; only cells that occur are held.

    Attributes:
        keys: int64 [C], rising.
        count: rows per cell, int64 [C].
        mean: float64 [C, n].
        squares: sums of squared deviations from the mean, float64 [C, n]; or of their outer
            products, [C, n, n], when the full covariance is kept.
        minimum: float64 [C, n].
        maximum: float64 [C, n].
        outside: rows that belong to no cell: label unknown, or not correctly classified.
        skipped: rows with NaN or infinite entries, in no cell either.
    """

    keys: Tensor
    count: Tensor
    mean: Tensor
    squares: Tensor
    minimum: Tensor
    maximum: Tensor
    outside: int = 0
    skipped: Skipped = NONE

    @property
    def variance(self) -> Tensor:
        """Population variance, float64 [C, n]."""
        squares = self.squares.diagonal(dim1=1, dim2=2) if self.is_full else self.squares
        return squares / self.count[:, None]

    @property
    def covariance(self) -> Tensor:
        """Population covariance, float64 [C, n, n].

        Raises:
            BadUsage: only variances were kept.
        """
        if not self.is_full:
            raise BadUsage("only variances were kept; ask for the full covariance")
        return self.squares / self.count[:, None, None]

    @property
    def is_full(self) -> bool:
        """Whether covariances were kept, not only variances."""
        return bool(self.squares.ndim == 3)

    def merged(self, other: "Moments") -> "Moments":
        """The moments of both sets of rows together.

        Raises:
            BadUsage: they differ in dimension, or only one has the full covariance.
        """
        import torch

        if self.squares.shape[1:] != other.squares.shape[1:]:
            shapes = f"{list(self.squares.shape[1:])} and {list(other.squares.shape[1:])}"
            raise BadUsage(f"moments of different kinds cannot be merged: {shapes}")
        keys = torch.unique(torch.cat([self.keys, other.keys]))
        a, b = self._spread(keys), other._spread(keys)
        count = a.count + b.count
        share = (b.count.double() / count)[:, None]
        gap = b.mean - a.mean
        weight = (a.count * share[:, 0])[:, None]
        if self.is_full:
            between = (weight * gap)[:, :, None] * gap[:, None, :]
        else:
            between = weight * gap * gap
        return Moments(
            keys,
            count,
            a.mean + share * gap,
            a.squares + b.squares + between,
            torch.minimum(a.minimum, b.minimum),
            torch.maximum(a.maximum, b.maximum),
            self.outside + other.outside,
            self.skipped.merged(other.skipped),
        )

    def _spread(self, keys: Tensor) -> "Moments":
        """The same over more cells; the new ones are empty."""
        if len(keys) == len(self.keys):
            return self
        import torch

        place = torch.searchsorted(keys, self.keys)

        def spread(values: Tensor, empty: float) -> Tensor:
            found = values.new_full((len(keys), *values.shape[1:]), empty)
            found[place] = values
            return found

        return Moments(
            keys,
            spread(self.count, 0),
            spread(self.mean, 0.0),
            spread(self.squares, 0.0),
            spread(self.minimum, torch.inf),
            spread(self.maximum, -torch.inf),
        )


def moments_of(chunk: Chunk, by: By = By.ALL, *, full: bool = False) -> Moments:
    """The moments of the rows of one chunk; ``full`` keeps covariances, else variances.

    Raises:
        BadUsage: the chunk has no labels or predictions to sort its rows by.
    """
    import torch

    keys = _keys(chunk, by)
    # A stable order makes each cell one segment, summed row after row.
    order = torch.argsort(keys, stable=True)
    order = order[keys[order] >= 0]
    cells, count = keys[order].unique_consecutive(return_counts=True)
    values = chunk.embeddings[order].double()

    def reduced(data: Tensor, how: str) -> Tensor:
        if not len(cells):
            return data.new_zeros((0, data.shape[1]))
        return torch.segment_reduce(data, how, lengths=count, axis=0)

    size = count[:, None].double()
    mean = reduced(values, "sum") / size
    least, greatest = reduced(values, "min"), reduced(values, "max")
    centred = values - mean.repeat_interleave(count, dim=0)
    # The rounding of the mean leaves a small sum of deviations, which is taken out again.
    left = reduced(centred, "sum")
    if full:
        parts = [part.T @ part for part in centred.split(count.tolist())]
        empty = values.new_zeros((0, values.shape[1], values.shape[1]))
        squares = torch.stack(parts) if parts else empty
        squares = squares - (left / size)[:, :, None] * left[:, None, :]
    else:
        squares = reduced(centred * centred, "sum") - left * left / size
    outside = len(keys) - len(order)
    return Moments(cells, count, mean, squares, least, greatest, outside, chunk.skipped)


def _keys(chunk: Chunk, by: By) -> Tensor:
    """The key of each row's cell, int64 [N]; negative for none."""
    import torch

    if by is By.ALL:
        rows, device = len(chunk.embeddings), chunk.embeddings.device
        return torch.zeros(rows, dtype=torch.int64, device=device)
    if chunk.labels is None:
        raise BadUsage("moments per class need the labels of the embeddings")
    if by is By.LABEL:
        return chunk.labels
    if chunk.predicted is None:
        raise BadUsage(f"moments by {by.value} need the predicted classes of the embeddings")
    if by is By.CORRECT:
        return torch.where(chunk.labels == chunk.predicted, chunk.labels, -1)
    known = (chunk.labels >= 0) & (chunk.predicted >= 0)
    return torch.where(known, chunk.labels * STRIDE + chunk.predicted, -1)


def stream_moments(
    shards: Iterable[Shard], by: By = By.ALL, *, full: bool = False, device: str = "cpu"
) -> Moments:
    """The moments of a whole stream in one pass; memory grows with the cells, not with the rows.

    Args:
        shards: the stream.
        by: which cells to keep apart.
        full: keep covariances, n² numbers a cell, not only variances.
        device: where to compute, for instance ``cuda``.

    Raises:
        BadUsage: there are no rows at all, or no labels or predictions to sort by.
    """
    found: Moments | None = None
    for chunk in chunks(shards, ROWS, device):
        new = moments_of(chunk, by, full=full)
        found = new if found is None else found.merged(new)
    if found is None:
        raise BadUsage("there are no embeddings to take moments of")
    return found


def class_statistics(moments: Moments, classes: int) -> Statistics:
    """The statistics of a lens, of which regions are built, from a stream ``By.CORRECT``.

    The axes agree with those of ``lens.write`` up to their signs and rounding: there they come
    from a singular value decomposition of the rows, here from the covariance.

    Raises:
        BadUsage: a key is no class.
    """
    keys = moments.keys.cpu().numpy()
    if keys.size and not 0 <= keys.min() <= keys.max() < classes:
        raise BadUsage(f"moments of cells {keys.min()} to {keys.max()}, for {classes} classes")
    size = moments.mean.shape[1]

    def filled(values: Tensor, *shape: int) -> Any:
        found = np.zeros((classes, *shape), dtype=values.cpu().numpy().dtype)
        found[keys] = values.cpu().numpy()
        return found

    deviation = moments.variance.clamp_min(0.0).sqrt()
    axes = _axes(moments.covariance) if moments.is_full else None
    residual = None
    if axes is not None:
        explained = (axes[:, :, :LEADING] ** 2).sum(2)
        residual = (deviation**2 - explained).clamp_min(0.0).sqrt()
    return Statistics(
        count=filled(moments.count),
        mean=filled(moments.mean, size),
        std=filled(deviation, size),
        minimum=filled(moments.minimum, size),
        maximum=filled(moments.maximum, size),
        axes=None if axes is None else filled(axes, size, size),
        residual=None if residual is None else filled(residual, size),
    )


def _axes(covariance: Tensor) -> Tensor:
    """Principal axes as columns, as long as the deviations along them, longest first."""
    import torch

    values, vectors = torch.linalg.eigh(covariance)
    lengths = values.clamp_min(0.0).sqrt()
    return (vectors * lengths[:, None, :]).flip(2)
