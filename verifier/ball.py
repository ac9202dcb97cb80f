"""The lemma engine's optimum over a Euclidean ball of parameters.

By duality the largest scaled margin is ``min h·λ + ‖Σ λ_i row_i‖`` over
``λ ≥ 0, Σ scale_i λ_i = 1``, a convex problem with one variable per row, of which there are few.
Its minimiser gives both the multipliers and, as the direction of ``Σ λ_i row_i``, the point.
"""

from collections.abc import Sequence

import numpy as np

from conspec.encodings.rounding import TINY, Floats
from conspec.verifier.linear import LinearRow, Optimum


def ball_optimum(rows: Sequence[LinearRow]) -> Optimum | None:
    """The optimum over ``‖t‖ ≤ 1``, in float64; None when the minimiser fails."""
    from scipy.optimize import minimize

    matrix = np.array([row.floats[0] for row in rows])
    offsets = np.array([row.floats[1] for row in rows])

    def value(weights: Floats) -> tuple[float, Floats]:
        total = weights @ matrix
        length = float(np.linalg.norm(total))
        slope = offsets + matrix @ total / max(length, TINY)
        return float(weights @ offsets) + length, slope

    count = len(rows)
    answer = minimize(
        value,
        np.full(count, 1.0 / count),
        jac=True,
        bounds=[(0.0, 1.0)] * count,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": np.ones_like},
        method="SLSQP",
        options={"maxiter": 300, "ftol": 1e-13},
    )
    if not np.isfinite(answer.fun):
        return None
    weights = np.maximum(answer.x, 0.0)
    total = weights @ matrix
    length = float(np.linalg.norm(total))
    scales = np.array([row.scale for row in rows])
    return Optimum(
        margin=float(answer.fun),
        parameters=total / max(length, TINY),
        multipliers=weights / scales,
        basic=(),
        tight=(),
    )
