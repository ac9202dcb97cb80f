"""How often one score is above another: the counts that every heatmap and preference test needs.

Pure arrays, so that rooms below and beside each other can share it: ``analysis.heatmaps`` makes
its maps of these counts, ``verifier.probability`` its comparisons of a VLM with a model. Numpy
arrays and torch tensors alike: what comes back is of the kind that came in, on its device.

``a > b`` is strict, as in Con_spec: with a tie neither ``a > b`` nor ``b > a`` holds, so both
directions are counted.
"""

from collections.abc import Iterator
from typing import Any

from conspec.specs.errors import BadUsage

Array = Any  # numpy.ndarray or torch.Tensor: the same code serves both

_BLOCK = 255
"""So many bytes of 0 or 1 can be added in one byte."""
_TILE = 8 * 8 * _BLOCK
"""Rows compared at once: a column of them stays in the fastest cache."""
_CELLS = 1 << 28
"""Comparisons made at once on a GPU: 256 MiB of booleans."""


def pair_counts(scores: Array, groups: Array, number: int | None = None) -> Array:
    """In how many rows of each group score i is strictly above score j.

    The time is that of N·M² comparisons (``benchmarks.heatmap_speed`` measures it); the memory
    besides the input is 16 bytes a row and about 200 kB · M.

    Args:
        scores: [N, M], of any real dtype; infinities are allowed. Ranks give the same counts.
        groups: the group of each row, integers [N]; a negative one leaves the row out.
        number: how many groups G there are; one more than the largest unless given.

    Returns:
        Counts, int64 [G, M, M]; the diagonal is 0.

    Raises:
        BadUsage: the shapes do not fit, a group is beyond G, or a score is not a number.
    """
    if len(scores.shape) != 2 or tuple(groups.shape) != (len(scores),):
        shapes = f"{tuple(scores.shape)} and {tuple(groups.shape)}"
        raise BadUsage(f"scores and groups must have shapes [N, M] and [N], not {shapes}")
    largest = int(groups.max()) if len(groups) else -1
    total = largest + 1 if number is None else number
    if largest >= total:
        raise BadUsage(f"a row is in group {largest}, but there are only {total}")
    if not _is_torch(scores):
        return _counts(scores, groups, max(total, 0))
    if scores.device.type != "cpu":
        return _counts_on_device(scores, groups, max(total, 0))
    import torch

    return torch.from_numpy(_counts(scores.numpy(), groups.numpy(), max(total, 0)))


def ranks(scores: Array) -> Array:
    """For each row, how many of its scores are strictly below each one.

    The ranking is a whole single-input heatmap: score i is above score j exactly if rank i is
    above rank j, ties included.

    Args:
        scores: [N, M], without NaN.

    Returns:
        [N, M], uint8 while M ≤ 256, else int16 (M ≤ 32,768) or int32.

    Raises:
        BadUsage: the scores are no matrix, or one is not a number.
    """
    if len(scores.shape) != 2:
        raise BadUsage(f"ranks need scores [N, M], not of shape {tuple(scores.shape)}")
    if _is_torch(scores):
        return _ranks_of_tensor(scores)
    import numpy as np

    found = np.empty(scores.shape, dtype=_rank_type(scores.shape[1]))
    for start in range(0, len(scores), _TILE):
        part = slice(start, start + _TILE)
        _rank_rows(np.asarray(scores[part]), found[part])
    return found


def _rank_rows(scores: Array, found: Array) -> None:
    import numpy as np

    _refuse_nan(scores)
    width = scores.shape[1]
    starts = width * np.arange(len(scores))[:, None]
    order = np.argsort(scores, axis=1) + starts
    ordered = scores.reshape(-1)[order]
    place = np.arange(width, dtype=found.dtype)
    first = np.broadcast_to(place, order.shape)
    if (tied := ordered[:, 1:] == ordered[:, :-1]).any():
        first = first.copy()
        first[:, 1:][tied] = 0
        np.maximum.accumulate(first, axis=1, out=first)
    found.reshape(-1)[order] = first


def _refuse_nan(scores: Array) -> None:
    if bool((scores != scores).any()):
        raise BadUsage("a score is not a number (NaN), so it cannot be compared")


def _is_torch(array: Array) -> bool:
    return type(array).__module__.partition(".")[0] == "torch"


def _rank_type(width: int) -> str:
    return "uint8" if width <= 1 << 8 else "int16" if width <= 1 << 15 else "int32"


def _ranks_of_tensor(scores: Array) -> Array:
    import torch

    _refuse_nan(scores)
    ordered, order = scores.sort(dim=1)
    place = torch.arange(scores.shape[1], device=scores.device)
    new = torch.ones_like(scores, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = torch.where(new, place, 0).cummax(dim=1).values
    found = torch.empty_like(first).scatter_(1, order, first)
    return found.to(getattr(torch, _rank_type(scores.shape[1])))


def _counts(scores: Array, groups: Array, total: int) -> Array:
    import numpy as np

    width = scores.shape[1]
    counts = np.zeros((total, width, width), dtype=np.int64)
    for group, rows in _tiles(groups, total):
        columns = np.ascontiguousarray(scores[rows].T)
        _refuse_nan(columns)
        words = -(-len(rows) // 8)
        blocks = -(-words // _BLOCK)
        length = -(-words // blocks)
        # Comparisons give bytes of 0 or 1. Up to 255 words of eight bytes are added as whole
        # integers without a carry from one byte to the next, which is a hundred times fewer
        # additions than one for each comparison.
        above = np.zeros((width, 8 * length * blocks), dtype=np.bool_)
        packed = above.view(np.uint64).reshape(width, blocks, length)
        for i in range(width):
            np.greater(columns[i], columns, out=above[:, : len(rows)])
            sums = packed.sum(axis=2)
            counts[group, i] += sums.view(np.uint8).sum(axis=1, dtype=np.int64)
    return counts


def _tiles(groups: Array, total: int) -> Iterator[tuple[int, Array]]:
    """The rows of each group, at most ``_TILE`` at once."""
    import numpy as np

    order = np.argsort(groups, kind="stable")
    ends = np.searchsorted(groups[order], np.arange(total + 1))
    for group in range(total):
        for start in range(ends[group], ends[group + 1], _TILE):
            yield group, order[start : min(start + _TILE, ends[group + 1])]


def _counts_on_device(scores: Array, groups: Array, total: int) -> Array:
    import torch

    width = scores.shape[1]
    step = max(1, _CELLS // max(width * width, 1))
    counts = torch.zeros((total, width, width), dtype=torch.int64, device=scores.device)
    for group in range(total):
        for rows in (groups == group).nonzero()[:, 0].split(step):
            part = scores[rows]
            _refuse_nan(part)
            counts[group] += (part[:, :, None] > part[:, None, :]).sum(dim=0)
    return counts
