"""Floating-point bounds that are theorems: every rounding error is paid for.

For inner products of length k in IEEE arithmetic with unit roundoff u and any order of summation
(so for any BLAS and for a GPU), ``|fl(a·b) − a·b| ≤ γ_k Σ|a_i b_i| + k·η`` with
``γ_k = k·u / (1 − k·u)`` (Higham, Accuracy and Stability of Numerical Algorithms, chapter 3).
``η`` here is the smallest normal number, so that flushing denormals to zero is covered too.

The functions take numpy arrays and torch tensors alike, in float64 or float32. On a GPU the
reduced modes must be off (``full_precision``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Array = Any  # numpy.ndarray or torch.Tensor: the same code serves both

UNIT = 2.0**-53
TINY = float(np.finfo(np.float64).tiny)
_SLACK = 1.0 + 2.0**-40
"""Covers the rounding of the error term itself: it is a sum of non-negative numbers of fewer than
2**12 · 2**20 roundings, each of relative size 2**-53 at most."""


def gamma(length: int, unit: float = UNIT) -> float:
    """``γ_k`` for an inner product of the given length, rounded up.

    Raises:
        ValueError: the product is so long that the bound does not hold.
    """
    if length * unit >= 0.5:
        raise ValueError(f"an inner product of {length} terms is too long for this precision")
    return length * unit / (1.0 - length * unit) * _SLACK


def namespace(array: Array) -> Any:
    """The module of an array's functions: torch or numpy."""
    if type(array).__module__.partition(".")[0] == "torch":
        import torch

        return torch
    return np


@contextmanager
def full_precision() -> Iterator[None]:
    """Switches torch's reduced modes (TF32 and bfloat16 products) off for a while."""
    import torch

    modes = (torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision())
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(modes[1])
        torch.backends.cuda.matmul.allow_tf32 = modes[0]


def row_bounds(
    rows: Array, constants: Array, errors: tuple[Array, Array], lower: Array, upper: Array
) -> tuple[Array, Array]:
    """Rigorous bounds of ``row · v + constant`` for v in boxes, for rows known up to an error.

    Args:
        rows: [A, n]; float64 or float32, and so is the rest.
        constants: [A].
        errors: bounds of the distance of ``rows`` and of ``constants`` from the exact ones.
        lower: [R, n] lower bounds of R boxes, finite.
        upper: [R, n] upper bounds.

    Returns:
        Lower and upper bounds [R, A] of the exact values; infinite where the arithmetic overflows.
    """
    xp = namespace(rows)
    info = xp.finfo(rows.dtype)
    unit, tiny = float(info.eps) / 2.0, float(info.tiny)
    length = rows.shape[1]
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        up, down = rows.clip(min=0.0), rows.clip(max=0.0)
        highest = upper @ up.T + lower @ down.T + constants
        lowest = lower @ up.T + upper @ down.T + constants
        reach = xp.maximum(abs(lower), abs(upper))
        error = gamma(2 * length + 6, unit) * (reach @ abs(rows).T + abs(constants))
        error = error + (reach @ errors[0].T + errors[1])
        error = error * (1.0 + gamma(2 * length + 16, unit)) + (4 * length + 8) * tiny
        high, low = highest + error, lowest - error
        endless = xp.full_like(high, xp.inf)
        high, low = xp.nextafter(high, endless), xp.nextafter(low, -endless)
        return xp.where(xp.isfinite(low), low, -endless), xp.where(xp.isfinite(high), high, endless)
