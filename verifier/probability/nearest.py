"""How near an embedding is to a conjunction of half-spaces, for many of both at once.

For any ``λ ≥ 0`` with ``s = Σ λ_j v_j < 0`` (values v at the embedding) the conjunction is
impossible on the ball of radius ``−s / ‖Σ λ_j g_j‖*``. In the Euclidean norm of the parameters
the best λ and the nearest point are found together, by Hildreth's method: the dual of the
projection, one multiplier after another. Both are only proposals. What is returned is computed
from them with every rounding error paid for, in the norm that is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.images import Shape
from conspec.encodings.rounding import TINY, Bools, Floats, gamma
from conspec.verifier.probability.slopes import Bounds, Growth, rounded_down

SWEEPS = 200
"""Rounds over the multipliers at most; few conjunctions need more than twenty."""
STALLED = 1e-9
"""Relative change of the multipliers in a round at which the search stops."""
INWARD = 1e-7
"""How far behind its border a half-space is entered, as a share of the distance to it."""
MOST = 64
"""Literals of a conjunction that multipliers are looked for; larger ones keep simple bounds."""
FLOORS = tuple(0.3**step for step in range(1, 13))
"""Floors of the weights in the steps for L∞ balls."""
CLOSE = 5e-3
"""Relative gap of the bounds at which these steps stop."""
WORK = 2**21
"""Entries of the largest array of one step."""


@dataclass(frozen=True, eq=False)
class _Group:
    """P conjunctions of m half-spaces each, at Q pairs of a conjunction and an embedding.

    Attributes:
        places: of the literals [P, m].
        own: the conjunction of each pair [Q].
        images: the embedding of each pair [Q].
    """

    places: NDArray[np.intp]
    own: NDArray[np.intp]
    images: NDArray[np.intp]


def conjunction_radii(
    growth: Growth, conjunctions: Sequence[Sequence[int]], wanted: Bools
) -> Bounds:
    """Radii between which the largest ball without a point of each conjunction lies.

    Args:
        growth: the literals at N embeddings.
        conjunctions: the places of the literals of P conjunctions, at least one each.
        wanted: for which pairs [P, N] to spend time; others get what single literals give.

    Returns:
        Lower and upper bounds [P, N]; the upper ones infinite where no point was found.
    """
    size = (len(conjunctions), len(growth.lower))
    lower, upper = np.zeros(size), np.full(size, np.inf)
    groups: dict[int, list[int]] = {}
    for number, chosen in enumerate(conjunctions):
        places = list(chosen)
        lower[number] = growth.impossible[:, places].max(axis=1)
        if len(places) == 1:
            upper[number] = growth.possible[:, places[0]]
        half = [place for place in places if growth.literals.affine[place]]
        if 1 < len(places) <= MOST and half:
            groups.setdefault(len(half), []).append(number)
    for length, numbers in groups.items():
        literals = [[p for p in conjunctions[n] if growth.literals.affine[p]] for n in numbers]
        own, images = np.nonzero(wanted[numbers])
        whole = np.array([len(conjunctions[n]) == length for n in numbers])
        step = max(1, WORK // (length * length + growth.rows.shape[1]))
        for start in range(0, len(own), step):
            part = slice(start, start + step)
            group = _Group(np.array(literals), own[part], images[part])
            at = np.array(numbers)[group.own], group.images
            below, above = _radii(growth, group)
            lower[at] = np.maximum(lower[at], below)
            upper[at] = np.where(whole[group.own], np.minimum(upper[at], above), upper[at])
    return lower, upper


def _radii(growth: Growth, group: _Group) -> Bounds:
    """Bounds [Q] for the pairs of a group."""
    at = group.images[:, None], group.places[group.own]
    first = growth.impossible[at]
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        goal = growth.upper[at] - 4 * (growth.upper[at] - growth.lower[at])
        goal = goal - INWARD * first.max(axis=1, keepdims=True) * growth.most[at[1]]
    case = _Case(growth, *at)
    weights = _hildreth(case.rows, goal)
    lower, upper = case.refuted(weights), case.reached(case.summed(weights))
    if growth.ball.shape is Shape.CUBE:
        _improve(case, goal, weights, lower, upper)
    return lower, upper


def _improve(case: "_Case", goal: Floats, weights: Floats, lower: Floats, upper: Floats) -> None:
    """Brings the bounds [Q] of L∞ balls together, in place.

    The dual norm is ``Σ_k |c_k|`` with ``c = Σ λ_j row_j``. It lies below ``Σ_k c_k²/w_k`` with
    the weights ``w_k = |c_k|`` of the step before (up to a factor and a constant), so each step
    is a weighted Euclidean problem; the weights' floor sinks towards zero.
    """
    left = np.arange(len(goal))
    for floor in FLOORS:
        gap = lower[left] < upper[left] * (1.0 - CLOSE)
        left, weights = left[gap], weights[gap]
        if not len(left):
            return
        part = case.taken(left)
        with np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore"):
            sizes = np.abs(part.summed(weights))
            sizes = sizes / sizes.max(axis=1, keepdims=True) + floor
            roots = np.sqrt(np.where(np.isfinite(sizes), sizes, 1.0))[:, None, :]
            weights = _hildreth(part.rows / roots, goal[left])
            steps = part.summed(weights) / roots[:, 0] ** 2
        lower[left] = np.maximum(lower[left], part.refuted(weights))
        upper[left] = np.minimum(upper[left], part.reached(steps))


def _hildreth(rows: Floats, values: Floats) -> Floats:
    """Multipliers [Q, m] for the least ``‖t‖₂`` with ``row_j · t + value_j ≥ 0`` for all j.

    Source: Hildreth (1957); ``t = Σ λ_j row_j`` in the limit. Where no t exists, they grow.
    """
    scale = np.sqrt(np.einsum("qmk,qmk->qm", rows, rows))
    scale = np.where(scale > 0, scale, np.inf)  # a zero row gets no multiplier
    unit = rows / scale[:, :, None]
    gram = unit @ unit.transpose(0, 2, 1)
    start = values / scale
    residual, weights = start.copy(), np.zeros_like(values)
    for _ in range(SWEEPS):
        change = np.zeros(len(values))
        for j in range(values.shape[1]):
            new = np.maximum(weights[:, j] - residual[:, j], 0.0)
            step = new - weights[:, j]
            weights[:, j] = new
            residual += step[:, None] * gram[:, j]
            change = np.maximum(change, np.abs(step))
        if np.all(change <= STALLED * weights.max(axis=1)):
            break
    found = weights / scale
    return np.where(np.isfinite(found), found, 0.0)


@dataclass(frozen=True, eq=False)
class _Case:
    """Q conjunctions of m half-spaces, each at an embedding of its own.

    Attributes:
        growth: the literals.
        images: the embeddings [Q, 1].
        places: of the literals [Q, m].
    """

    growth: Growth
    images: NDArray[np.intp]
    places: NDArray[np.intp]

    @cached_property
    def rows(self) -> Floats:
        """The half-spaces' rows [Q, m, k] over the parameters."""
        return self.growth.rows[self.places]

    @cached_property
    def errors(self) -> Floats:
        """How far products with the rows may be off, per unit of the factors [Q, m, k]."""
        share = gamma(2 * max(self.rows.shape[1:]) + 8)
        return self.growth.errors[self.places] + share * np.abs(self.rows)

    def taken(self, chosen: NDArray[np.intp]) -> "_Case":
        """Some of the cases."""
        return _Case(self.growth, self.images[chosen], self.places[chosen])

    def summed(self, weights: Floats) -> Floats:
        """The rows' sums [Q, k] with weights [Q, m]."""
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            found: Floats = (weights[:, None, :] @ self.rows)[:, 0]
        return found

    def refuted(self, weights: Floats) -> Floats:
        """Radii [Q], rounded down, up to which multipliers make the conjunctions impossible."""
        values, length = self.growth.upper[self.images, self.places], self.places.shape[1]
        share = gamma(2 * length + 8)
        with np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore"):
            total = (weights * values).sum(axis=1)
            total = total + share * (weights * np.abs(values)).sum(axis=1) + 4 * length * TINY
            off = (weights[:, None, :] @ self.errors)[:, 0] * (1.0 + share) + 4 * length * TINY
            reach = self.growth.ball.dual(self.summed(weights), off)[1]
            radius = rounded_down(-np.nextafter(total, np.inf) / reach)
        sound = (total < 0) & np.isfinite(total) & np.isfinite(reach)
        return np.where(sound, radius, 0.0)

    def reached(self, parameters: Floats) -> Floats:
        """Norms [Q] of parameters [Q, k], rounded up; infinite where a literal fails."""
        values, size = self.growth.lower[self.images, self.places], self.rows.shape[2]
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            moved = (self.rows @ parameters[:, :, None])[:, :, 0]
            off = (self.errors @ np.abs(parameters)[:, :, None])[:, :, 0]
            off = off * (1.0 + gamma(2 * size + 8)) + 4 * size * TINY
            off = off + gamma(4) * (np.abs(values) + np.abs(moved))
            low = np.nextafter(values + moved - off, -np.inf)
            strict = self.growth.literals.strict[self.places]
            holds = np.where(strict, low > 0, low >= 0).all(axis=1)
            found: Floats = np.where(holds, self.growth.ball.length(parameters), np.inf)
        return found
