"""Floating-point bounds that are theorems: every rounding error is paid for.

For inner products of length k in IEEE double precision and any order of summation (so for any
BLAS and for a GPU), ``|fl(a·b) − a·b| ≤ γ_k Σ|a_i b_i| + k·η`` with ``γ_k = k·u / (1 − k·u)``
(Higham, Accuracy and Stability of Numerical Algorithms, chapter 3). ``η`` here is the smallest
normal number, so that flushing denormals to zero is covered too.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

UNIT = 2.0**-53
TINY = float(np.finfo(np.float64).tiny)
_SLACK = 1.0 + 2.0**-40
"""Covers the rounding of the error term itself: it is a sum of non-negative numbers of fewer than
2**12 · 2**20 roundings, each of relative size 2**-53 at most."""


def gamma(length: int) -> float:
    """``γ_k`` for an inner product of the given length, rounded up."""
    return length * UNIT / (1.0 - length * UNIT) * _SLACK


def row_bounds(
    rows: Floats, constants: Floats, errors: tuple[Floats, Floats], lower: Floats, upper: Floats
) -> tuple[Floats, Floats]:
    """Rigorous bounds of ``row · v + constant`` for v in boxes, for rows known up to an error.

    Args:
        rows: [A, n].
        constants: [A].
        errors: bounds of the distance of ``rows`` and of ``constants`` from the exact ones.
        lower: [R, n] lower bounds of R boxes, finite.
        upper: [R, n] upper bounds.

    Returns:
        Lower and upper bounds [R, A] of the exact values; infinite where the arithmetic overflows.
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        up, down = np.maximum(rows, 0.0), np.minimum(rows, 0.0)
        highest = upper @ up.T + lower @ down.T + constants
        lowest = lower @ up.T + upper @ down.T + constants
        reach = np.maximum(np.abs(lower), np.abs(upper))
        length = rows.shape[1]
        error = gamma(2 * length + 6) * (reach @ np.abs(rows).T + np.abs(constants))
        error += reach @ errors[0].T + errors[1]
        error = error * (1.0 + gamma(2 * length + 16)) + (4 * length + 8) * TINY
        high = np.nextafter(highest + error, np.inf)
        low = np.nextafter(lowest - error, -np.inf)
    return np.where(np.isfinite(low), low, -np.inf), np.where(np.isfinite(high), high, np.inf)
