"""Which counterexample: any, the largest violation, the closest to the centre, or several."""

from enum import Enum
from time import monotonic

import numpy as np

from conspec.encodings import milp
from conspec.encodings.query import Query
from conspec.encodings.rounding import Floats
from conspec.specs.rewrite import Nnf
from conspec.verifier.engines import MilpEngine
from conspec.verifier.verdict import Witness
from conspec.verifier.witness import validated_at

KEPT_SHARE = 1e-3
"""The closest counterexample keeps this share of the largest margin, so that it is not a tie."""
APART = 1e-6
"""Counterexamples nearer to each other than this, in units of the region's radius, are one."""


class Objective(Enum):
    """Which counterexample is wanted."""

    ANY = "any"
    LARGEST = "largest"
    CLOSEST = "closest"


def more_witnesses(
    query: Query, violation: Nnf, first: Witness, wanted: tuple[Objective, int], seconds: float
) -> list[Witness]:
    """Counterexamples under an objective, the best first; never fewer than the one given.

    The search is HiGHS's; each point is checked exactly, and what fails is left out.

    Args:
        query: the violated query.
        violation: its violation, possibly reduced on the region.
        first: a counterexample that is known.
        wanted: the objective, and how many different counterexamples.
        seconds: time limit for the whole search.
    """
    objective, count = wanted
    if objective is Objective.ANY and count <= 1:
        return [first]
    deadline = monotonic() + seconds
    session = MilpEngine("highs", query.space, query.region).session

    def search(aim: milp.Objective) -> tuple[float, Witness | None]:
        answer = session.maximise(violation, max(deadline - monotonic(), 0.01), aim)
        if answer.point is None:
            return answer.bound, None
        return answer.bound, validated_at(query, query.region.into(answer.point))

    largest, best = search(milp.Objective())
    if objective is Objective.LARGEST:
        _, best = search(milp.Objective(by_scale=False))
    found = [best] if best else [first]
    floor = max(largest, 0.0) * KEPT_SHARE if np.isfinite(largest) else 0.0
    if objective is Objective.CLOSEST and floor > 0:
        _, closest = search(milp.Objective(closest=True, margin_floor=floor))
        found = [closest] if closest else found
    elif objective is Objective.ANY:
        found = [first]
    directions = np.random.default_rng(0).choice([-1.0, 1.0], (4 * count, query.region.parameters))
    for direction in directions:
        if len(found) >= count or floor <= 0 or monotonic() > deadline:
            break
        _, other = search(milp.Objective(direction=direction, margin_floor=floor))
        if other is not None and _is_new(query, other, found):
            found.append(other)
    return found


def _is_new(query: Query, candidate: Witness, found: list[Witness]) -> bool:
    """Whether a counterexample differs visibly from all others."""
    lower, upper = query.region.outer
    radius = np.maximum(upper - lower, np.finfo(float).tiny)

    def distance(other: Witness) -> float:
        gap: Floats = np.abs(candidate.point.floats() - other.point.floats()) / radius
        return float(gap.max())

    return all(distance(other) > APART for other in found)
