"""Multipliers for many conjunctions at once, by accelerated projected ascent.

A conjunction of half-spaces is infeasible on a convex region R if some multipliers λ ≥ 0 give
``max_{z∈R} Σ λ_i (g_i·z + h_i) < 0`` (Farkas); the least such maximum is the greatest margin that a
point of R can have. So this is a game between a point and multipliers on the simplex. The point's
best answer is the region's support function in closed form; smoothed (Nesterov, Smooth
minimization of non-smooth functions, 2005) it has a gradient, and all conjunctions over all
regions of a block descend together as matrix products.

Nothing here is a verdict: multipliers are checked rigorously, and points exactly, by the caller.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.images import Shape
from conspec.encodings.rounding import TINY, Array, Bools, Floats, full_precision, namespace
from conspec.verifier.device import Device

Places = NDArray[np.intp]
ROUNDS = 6
"""Times that the open conjunctions are looked at."""
STEPS = 24
"""Steps of the descent between two looks."""
SMOOTHING = 0.5
"""Of the first round, relative to a typical coordinate of a literal; each a quarter of the last."""
FLAT = 12
"""Passes of the projection onto the simplex; what they leave is scaled away."""
NOTHING = 1e-30
"""Keeps a sum of multipliers that vanished from dividing by zero, in float32 too."""
ENTRIES = 2**23
"""Numbers in the largest matrix of a chunk; it bounds the memory."""

Settle = Callable[[Places, Floats, Floats, Floats], Bools]
"""Takes places of conjunctions, their multipliers [B, A], parameters [B, k] and, at these, the
least value of a literal [B], scaled; says which are settled and need no further search."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Literals over the parameters of some regions of one shape.

    Attributes:
        shape: the set of the parameters.
        rows: [A, k].
        base: [R, A], values of the literals at the regions' centres.
        radius: [R, k], what the parameters are multiplied with before the rows are applied.
    """

    shape: Shape
    rows: Floats
    base: Floats
    radius: Floats


@np.errstate(all="ignore")  # what overflows is no candidate, and the caller checks what is
def ascend(
    frame: Frame, chosen: Bools, which: Places, settle: Settle, device: Device | None = None
) -> None:
    """Searches multipliers and points for B conjunctions, until settled or given up.

    Args:
        frame: literals and regions.
        chosen: bool [B, A], the literals of each conjunction; each has at least one.
        which: [B], the region of each.
        settle: is told of each round's candidates.
        device: where to compute; numpy if None.
    """
    size = max(1, ENTRIES // (sum(frame.rows.shape) + 1))
    for start in range(0, len(which), size):
        places = np.arange(start, min(start + size, len(which)))
        _Search(frame, chosen[places], which[places], device).run(places, settle)


class _Search:
    """One chunk; arrays are numpy's or torch's."""

    def __init__(self, frame: Frame, chosen: Bools, which: Places, device: Device | None) -> None:
        """Scales each literal to a gradient of length 1 in the parameters of each region."""
        self._shape = frame.shape
        lengths = np.sqrt(frame.radius**2 @ (frame.rows**2).T)
        scale = np.where(lengths > TINY, 1.0 / np.maximum(lengths, TINY), 1.0)
        self._scale = scale[which]
        steepness = _steepness(frame, scale, chosen, which)
        arrays = (frame.rows, frame.base[which] * self._scale, frame.radius[which], self._scale)
        give = device.tensor if device else np.asarray
        self._rows, self._base, self._radius, self._factor = (give(array) for array in arrays)
        self._chosen, self._steepness = (
            give(array) for array in (chosen.astype(np.float64), steepness)
        )
        self._xp = namespace(self._rows)

    def run(self, places: Places, settle: Settle) -> None:
        """Rounds of descent, each followed by a look at what it found."""
        count = self._chosen.sum(1)[:, None]
        state = self._chosen / count
        left = np.arange(len(places))
        smoothing = SMOOTHING / (1.0 if self._shape is Shape.BALL else self._rows.shape[1] ** 0.5)
        for turn in range(ROUNDS):
            state, point, margin = self._descend(left, state, smoothing * 0.25**turn)
            found = (_numpy(state * self._factor[left]), _numpy(point), _numpy(margin))
            keep = np.flatnonzero(~settle(places[left], *found))
            if not keep.size:
                return
            left, state = left[keep], state[keep]

    def _descend(self, left: Places, state: Array, width: float) -> tuple[Array, Array, Array]:
        """Some accelerated steps: scaled multipliers [B, A], parameters [B, k] and margins [B]."""
        chosen, radius = self._chosen[left], self._radius[left]
        factor, base = self._factor[left], self._base[left]
        step = (width / self._steepness[left])[:, None]
        current = previous = state
        point, values = radius, base
        with full_precision() if self._xp is not np else nullcontext():
            for turn in range(STEPS):
                ahead = current + (turn / (turn + 3.0)) * (current - previous)
                point = self._answer(((ahead * factor) @ self._rows) * radius, width)
                values = ((point * radius) @ self._rows.T) * factor + base
                previous, current = current, self._onto_simplex(ahead - step * values, chosen)
        outside = self._xp.full_like(values, self._xp.inf)
        margin = self._xp.amin(self._xp.where(chosen > 0, values, outside), 1)
        return current, point, margin

    def _answer(self, direction: Array, width: float) -> Array:
        """The parameters that maximise ``direction · t − width · |t|² / 2``."""
        scaled = direction / width
        match self._shape:
            case Shape.CUBE:
                return scaled.clip(-1.0, 1.0)
            case Shape.BALL:
                length = ((scaled * scaled).sum(1) ** 0.5)[:, None]
                return scaled / length.clip(min=1.0)
            case Shape.SIMPLEX:
                return self._onto_simplex(scaled, self._xp.ones_like(scaled))

    def _onto_simplex(self, values: Array, chosen: Array) -> Array:
        """The nearest points of the simplex of the chosen entries (Michelot, 1986)."""
        active = chosen
        level = values[:, :1] * 0.0
        for _ in range(FLAT):
            level = ((values * active).sum(1) - 1.0)[:, None] / active.sum(1)[:, None].clip(min=1.0)
            active = active * (values > level)
        found = (values - level).clip(min=0.0) * chosen
        return found / found.sum(1)[:, None].clip(min=NOTHING)


def _steepness(frame: Frame, scale: Floats, chosen: Bools, which: Places) -> Floats:
    """Bounds [B] of the curvature along the multipliers, by Gershgorin's circles."""
    found = np.ones(len(which))
    for region in np.unique(which):
        own = np.flatnonzero(which == region)
        used = np.flatnonzero(chosen[own].any(axis=0))
        rows = frame.rows[used] * frame.radius[region] * scale[region, used, None]
        members = chosen[np.ix_(own, used)].astype(np.float64)
        found[own] = ((members @ np.abs(rows @ rows.T)) * members).max(axis=1)
    return np.maximum(found, 1e-6)


def _numpy(array: Array) -> Floats:
    """As float64 in numpy."""
    if namespace(array) is np:
        return np.asarray(array, dtype=np.float64)
    found: Floats = array.cpu().double().numpy()
    return found
