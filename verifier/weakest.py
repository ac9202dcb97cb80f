"""γ* in closed form for all concept pairs of all classes: only the weakest are kept.

Without a premise, ``a > b`` holds on ``μ ± γσ`` exactly for ``γ < m / Σ_j σ_j |q_a − q_b|_j``, with
the margin m at the centre. For K classes and M concepts that is one matrix product of all
``M(M−1)/2`` absolute differences with the deviations, taken in chunks; per class only the pairs
with the smallest γ* are remembered. Each figure is a lower bound of γ*, with the rounding error of
the floating-point arithmetic paid for (float32 or float64, reduced modes off).
"""

from dataclasses import dataclass
from typing import Any

from conspec.encodings.rounding import full_precision

Tensor = Any  # torch.Tensor; torch is imported when first used
CHUNK = 8192
"""Pairs in one matrix product; it bounds the memory, whatever the number of pairs."""


@dataclass(frozen=True, eq=False)
class WeakestPairs:
    """The pairs that break first, per class, the weakest first.

    Attributes:
        scales: [K, count], lower bounds of γ*; infinite where there are fewer pairs.
        stronger: [K, count], place of the concept that is stronger at the class mean.
        weaker: [K, count], place of the other.
    """

    scales: Tensor
    stronger: Tensor
    weaker: Tensor


def weakest_pairs(
    concepts: tuple[Tensor, Tensor], means: Tensor, deviations: Tensor, count: int = 100
) -> WeakestPairs:
    """The weakest pairs of every class.

    Args:
        concepts: rows [M, n] and offsets [M] of the concept scores.
        means: [K, n] class means, of the same dtype and device.
        deviations: [K, n], non-negative.
        count: how many pairs per class are kept.

    Returns:
        The pairs; one whose margin is within its rounding error has scale 0.
    """
    import torch

    rows, offsets = concepts
    size, length = rows.shape
    unit = torch.finfo(rows.dtype).eps / 2
    share = (length + 8) * unit / (1 - (length + 8) * unit)
    tiny = torch.finfo(rows.dtype).tiny * length
    with full_precision():
        scores = rows @ means.T + offsets[:, None]
        rooms = share * (rows.abs() @ means.abs().T + offsets.abs()[:, None]) + tiny
        keeper = _Keeper(len(means), count, rows)
        for first, second in _pair_chunks(size, rows.device):
            support = (rows[first] - rows[second]).abs_() @ deviations.T
            margin = scores[first] - scores[second]
            positive = margin > 0
            bound = margin.abs_().sub_(rooms[first]).sub_(rooms[second])
            support.mul_(1 + 2 * share).add_(tiny)
            scale = bound.clamp_min_(0).div_(support).mul_(1 - 8 * unit)
            keeper.offer(scale, positive, first, second)
    return keeper.result()


def _pair_chunks(size: int, device: Any) -> Any:
    """Places [chunk], [chunk] of the pairs ``first < second``, a chunk at a time."""
    import torch

    start = 0
    while start < size - 1:
        stop, pairs = start, 0
        while stop < size - 1 and (pairs == 0 or pairs + size - 1 - stop <= CHUNK):
            pairs += size - 1 - stop
            stop += 1
        lengths = torch.arange(size - 1 - start, size - 1 - stop, -1, device=device)
        first = torch.repeat_interleave(torch.arange(start, stop, device=device), lengths)
        second = torch.cat(
            [torch.arange(place + 1, size, device=device) for place in range(start, stop)]
        )
        yield first, second
        start = stop


class _Keeper:
    """The smallest values seen so far, per class, with their pairs."""

    def __init__(self, classes: int, count: int, like: Tensor) -> None:
        """Start with infinite scales."""
        import torch

        self._scales = like.new_full((classes, count), torch.inf)
        self._pairs = torch.zeros((2, classes, count), dtype=torch.long, device=like.device)

    def offer(self, scale: Tensor, positive: Tensor, first: Tensor, second: Tensor) -> None:
        """Take in a chunk: scales [chunk, K], whether ``first`` is the stronger, and the pairs."""
        import torch

        columns = (scale < self._scales[:, -1]).any(0).nonzero().squeeze(1)
        if not len(columns):
            return
        count = self._scales.shape[1]
        kept = min(count, len(first))
        if len(columns) < scale.shape[1]:
            scale, positive = scale[:, columns], positive[:, columns]
        values, places = torch.topk(scale, kept, dim=0, largest=False)
        swapped = ~positive.gather(0, places)
        stronger = torch.where(swapped, second[places], first[places])
        weaker = torch.where(swapped, first[places], second[places])
        merged = torch.cat((self._scales[columns], values.T), 1)
        pairs = torch.cat((self._pairs[:, columns], torch.stack((stronger.T, weaker.T))), 2)
        self._scales[columns], order = torch.topk(merged, count, dim=1, largest=False)
        self._pairs[:, columns] = pairs.gather(2, order.expand(2, -1, -1))

    def result(self) -> WeakestPairs:
        """What was kept."""
        return WeakestPairs(self._scales, self._pairs[0], self._pairs[1])
