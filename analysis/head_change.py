"""The smallest change of a head that meets linear conditions: in the sum of changes, or in length.

The conditions are cuts ``row · Δ ≥ bound`` on the change Δ of the head's numbers. Both problems
are convex, so what is returned is the smallest change that meets the cuts, up to the solver's
tolerance (about 1e-7 of a cut's own scale). Nothing here is a proof; the changed head is
verified afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from conspec.analysis.heatmaps import Floats
from conspec.encodings.milp import Column, Row, Status

_LARGEST = 1e6
"""A change of this length counts as none: the cuts contradict each other, or nearly so."""
_INFINITY = float("inf")


class Norm(StrEnum):
    """How the size of a change is measured."""

    L1 = "l1"
    """Sum of the absolute changes; it changes few numbers."""
    L2 = "l2"
    """Root of the sum of squares; it changes many numbers a little."""

    def of(self, change: Floats) -> float:
        """The size of a change."""
        return float(np.abs(change).sum() if self is Norm.L1 else np.linalg.norm(change))


@dataclass(frozen=True, eq=False)
class Cut:
    """``row · Δ ≥ bound``, for a row [D] that is not zero."""

    row: Floats
    bound: float

    @property
    def scaled(self) -> tuple[Floats, float]:
        """The same condition with a row of length 1."""
        length = float(np.linalg.norm(self.row))
        return self.row / length, self.bound / length


def smallest(norm: Norm, cuts: Sequence[Cut], size: int, seconds: float) -> Floats | None:
    """The smallest Δ [size] that meets all cuts; None if there is none, or no solver finds it.

    Args:
        norm: how Δ is measured.
        cuts: the conditions; without any, Δ is 0.
        size: D.
        seconds: time limit of the linear program.
    """
    if not cuts or all(cut.bound <= 0 for cut in cuts):
        return np.zeros(size)
    scaled = [cut.scaled for cut in cuts]
    rows, bounds = np.stack([row for row, _ in scaled]), np.array([bound for _, bound in scaled])
    return _least_sum(rows, bounds, seconds) if norm is Norm.L1 else _least_length(rows, bounds)


def _least_sum(rows: Floats, bounds: Floats, seconds: float) -> Floats | None:
    """Minimise Σ|Δ| as a linear program in the positive and negative parts of Δ."""
    from conspec.verifier.highs import Highs

    size = rows.shape[1]
    model = Highs()
    model.add_columns([Column(0.0, _INFINITY)] * (2 * size))
    for row, bound in zip(rows, bounds, strict=True):
        used = np.flatnonzero(row)
        places = np.concatenate([used, used + size])
        values = np.concatenate([row[used], -row[used]])
        model.add_rows([Row(float(bound), _INFINITY, places.tolist(), values.tolist())])
    answer = model.maximise([(place, -1.0) for place in range(2 * size)], seconds)
    if answer.status is not Status.OPTIMAL or answer.point is None:
        return None
    return np.asarray(answer.point[:size] - answer.point[size:], dtype=np.float64)


def _least_length(rows: Floats, bounds: Floats) -> Floats | None:
    """Minimise ‖Δ‖ by least-distance programming (Lawson and Hanson, 1974, chapter 23).

    With u ≥ 0 that brings ``[rowsᵀ; boundsᵀ] u`` nearest to (0, …, 0, 1) and the residual r,
    Δ = −r[:D] / r[D]; if r is zero, the cuts contradict each other (Farkas).
    """
    from scipy.optimize import nnls

    matrix = np.vstack([rows.T, bounds])
    target = np.zeros(len(matrix))
    target[-1] = 1.0
    try:
        weights, distance = nnls(matrix, target, maxiter=50 * len(bounds) + 1000)
    except RuntimeError:  # scipy's word for too many steps
        return None
    if distance <= 1 / _LARGEST:
        return None
    rest = matrix @ weights - target
    return np.asarray(-rest[:-1] / rest[-1], dtype=np.float64)
