"""Bounds of neurons where some half-spaces hold: what is known of a counterexample beforehand.

A counterexample satisfies the literals of a case. Each has an affine upper bound over the region,
``g·z + h``, which is then not negative; so a neuron's own linear bound may be taken over the part
of the region where that is true. For a box this is a fractional knapsack, and the multiplier that
solves it gives the bound: ``max f ≤ max (f + λ (g·z + h))`` for each λ ≥ 0, which is bounded
rigorously whatever λ is. Tighter neurons make tighter literals, and so on. Often nothing is left
of the case; otherwise a solver gets the smaller ranges.

Source: output constraints in bounds, Kotha et al., arXiv 2302.01404; here with one multiplier per
bound, found exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from conspec.encodings.linear_bounds import (
    Combinations,
    LayerBounds,
    Linear,
    linear_uppers,
    preactivations,
)
from conspec.encodings.network import Affine
from conspec.encodings.regions import ConvexRegion
from conspec.encodings.rounding import TINY, UNIT, Bools, Floats
from conspec.encodings.scores import ScoreSpace
from conspec.specs.rewrite import Halfspace

ROUNDS = 12
"""How often bounds of neurons and of literals are tightened in turn."""
PROGRESS = 0.01
"""Share of the unstable neurons' total width that a round must gain for another one."""
CONDITIONS = 8
"""Literals of a case that are used, those with the least maxima."""


@dataclass(frozen=True, eq=False)
class Tightened:
    """What is left of a case.

    Attributes:
        bounds: bounds of each hidden layer at its counterexamples.
        highest: a bound of the least of its literals' maxima; below zero nothing is left.
        refuted: whether the case has no counterexample, which is then proved.
    """

    bounds: list[LayerBounds]
    highest: float
    refuted: bool


def combinations_of(space: ScoreSpace, literals: Sequence[Halfspace]) -> Combinations:
    """Half-spaces as combinations of the last hidden layer and the embedding."""
    size = space.dimension
    rows = np.array([space.row(literal)[0].floats() for literal in literals])
    constants = np.array([float(space.row(literal)[1]) for literal in literals])
    return Combinations(rows[:, size:], rows[:, :size], constants)


@np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore")
def tightened(
    space: ScoreSpace,
    region: ConvexRegion,
    base: Sequence[LayerBounds],
    literals: Sequence[Halfspace],
) -> Tightened:
    """Bounds at the points of the region where all literals hold.

    Args:
        space: the exact functions.
        region: where to look.
        base: finite bounds of the hidden layers on the region.
        literals: half-spaces that hold at the points in question; at least one.
    """
    bounds, wanted = list(base), combinations_of(space, literals)
    strict = np.array([literal.strict for literal in literals])
    highest, width = np.inf, _width(bounds)
    for _ in range(ROUNDS):
        uppers = linear_uppers(space.head, region, bounds, wanted)
        kept = np.argsort(uppers.highest(region))[:CONDITIONS]
        conditions = Linear(uppers.rows[kept], uppers.constants[kept], uppers.slack[kept])
        maxima = _highest_where(region, uppers, conditions)
        highest = min(highest, float(maxima.min()))
        if np.any((maxima < 0) | (strict & (maxima <= 0))):
            return Tightened(bounds, highest, refuted=True)
        for depth in range(len(bounds)):
            bounds[depth] = _conditioned(space, region, bounds[: depth + 1], conditions)
            if np.any(bounds[depth].lower > bounds[depth].upper):
                return Tightened(bounds, highest, refuted=True)
        left = _width(bounds)
        if not left < (1.0 - PROGRESS) * width:
            break
        width = left
    return Tightened(bounds, highest, refuted=False)


def _width(bounds: Sequence[LayerBounds]) -> float:
    """The total width of the unstable neurons' ranges."""
    return float(sum(((b.upper - b.lower)[b.unstable]).sum() for b in bounds))


def _conditioned(
    space: ScoreSpace, region: ConvexRegion, known: Sequence[LayerBounds], conditions: Linear
) -> LayerBounds:
    """Bounds of the last known layer where the conditions hold."""
    layer: Affine = space.head.affines[len(known) - 1]
    own, inner = known[-1], known[:-1]
    chosen = own.unstable
    if not chosen.any():
        return own
    values = preactivations(layer, chosen, space.dimension, first=not inner)
    above = linear_uppers(space.head, region, inner, values)
    below = linear_uppers(space.head, region, inner, values.negated())
    lower, upper = own.lower.copy(), own.upper.copy()
    upper[chosen] = np.minimum(upper[chosen], _highest_where(region, above, conditions))
    lower[chosen] = np.maximum(lower[chosen], -_highest_where(region, below, conditions))
    return LayerBounds(lower, upper)


def _highest_where(region: ConvexRegion, values: Linear, conditions: Linear) -> Floats:
    """Rigorous upper bounds [A] of the values where all conditions are at least zero."""
    best = values.highest(region)
    pulled, moved = region.pull_rough(conditions.rows, conditions.constants)
    own, _ = region.pull_rough(values.rows, values.constants)
    for place in range(len(conditions.rows)):
        share = multipliers(own, pulled[place], float(moved[place]))
        best = np.minimum(best, _with_multiplier(region, values, conditions, place, share))
    return best


def multipliers(rows: Floats, normal: Floats, constant: float) -> Floats:
    """λ ≥ 0 [A] that minimise ``max over the cube of row·t + λ (normal·t + constant)``.

    That is convex and piecewise linear in λ; its slope changes where an entry of
    ``row + λ normal`` changes its sign.
    """
    ratios = -rows / normal
    ratios = np.where(np.isfinite(ratios) & (ratios > 0), ratios, np.inf)
    order = np.argsort(ratios, axis=1)
    breaks = np.take_along_axis(ratios, order, axis=1)
    # The slope just right of 0, where entries of the row that are zero follow the normal.
    slope = constant + np.where(rows == 0, np.abs(normal), np.sign(rows) * normal).sum(axis=1)
    rise = 2.0 * np.cumsum(np.where(np.isfinite(breaks), np.abs(normal)[order], 0.0), axis=1)
    level = slope[:, None] + rise >= 0
    first = np.argmax(level, axis=1)
    found = np.take_along_axis(breaks, first[:, None], axis=1)[:, 0]
    useful: Bools = (slope < 0) & level.any(axis=1) & np.isfinite(found)
    return np.where(useful, found, 0.0)


def _with_multiplier(
    region: ConvexRegion, values: Linear, conditions: Linear, place: int, share: Floats
) -> Floats:
    """Upper bounds [A] of ``values + share · condition``, so of the values where it holds."""
    added = share[:, None] * conditions.rows[place]
    rows = values.rows + added
    errors = 4.0 * UNIT * (np.abs(values.rows) + np.abs(added)) + 4.0 * TINY
    moved = share * conditions.constants[place]
    constants = values.constants + moved
    slack = values.slack + share * conditions.slack[place] * (1.0 + 8.0 * UNIT)
    slack = slack * (1.0 + 8.0 * UNIT) + 8.0 * TINY
    slack = slack + 8.0 * UNIT * (np.abs(values.constants) + np.abs(moved))
    _, high = region.bounds(rows, constants, (errors, slack))
    return high
