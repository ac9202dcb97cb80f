"""Enumeration of explanations by the duality of hitting sets.

Each AXp hits each CXp, and a smallest set that hits all of one kind is a smallest one of the other.

All: a map of the sets not yet known to suffice or to fail, as clauses. A set it allows is asked of
the question; if it suffices it is made smaller to an AXp, else what it lacks is made smaller to a
CXp; either is a new clause. When the map is empty, the lists are complete (MARCO: Liffiton et al.,
Fast, flexible MUS enumeration, 2016).

Smallest: a smallest set that hits the explanations of the other kind known so far is asked; if it
is no explanation, there is another one of the other kind (Ignatiev et al., Smallest MUS
extraction with minimal hitting set dualization, 2015).

z3 solves the maps, which are propositional. What is listed is certain for the question by itself;
that a list is complete, or that an explanation is a smallest one, rests on z3's word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

import numpy as np

from conspec.encodings.rounding import Bools

SECONDS = 20.0
"""Time limit of an enumeration."""


class Question(Protocol):
    """What suffices for a prediction: monotone in the set of units kept."""

    @property
    def size(self) -> int:
        """How many units there are."""

    def sufficient(self, kept: Bools) -> bool | None:
        """Whether the units suffice; None if that was not decided."""

    def smaller_kept(self, kept: Bools) -> Bools:
        """An AXp within a sufficient set."""

    def smaller_freed(self, freed: Bools) -> Bools:
        """A CXp within a set without which the others do not suffice."""


@dataclass(frozen=True, eq=False)
class Explanations:
    """Explanations of one embedding, each once, as sorted places of units.

    Attributes:
        axps: abductive ones.
        cxps: contrastive ones.
        complete: whether there are no others.
    """

    axps: tuple[tuple[int, ...], ...]
    cxps: tuple[tuple[int, ...], ...]
    complete: bool


def enumerate_explanations(
    question: Question, most: int, kind: str | None = None, seconds: float = SECONDS
) -> Explanations:
    """Explanations until there are ``most`` of one kind, or no more, or the time is over.

    Args:
        question: what suffices.
        most: how many explanations are wanted.
        kind: "axp" or "cxp", of which to count; both together if None.
        seconds: time limit.
    """
    import z3

    keeps = [z3.Bool(f"k{unit}") for unit in range(question.size)]
    solver = z3.Solver()
    axps: list[tuple[int, ...]] = []
    cxps: list[tuple[int, ...]] = []
    counted = {"axp": (axps,), "cxp": (cxps,), None: (axps, cxps)}[kind]
    end, decided = monotonic() + seconds, True
    while sum(map(len, counted)) < most and monotonic() < end:
        if solver.check() != z3.sat:
            return Explanations(tuple(axps), tuple(cxps), decided)
        kept = _model(solver.model(), keeps)
        kept = _narrowed(kept, cxps) if kind == "cxp" else _widened(kept, axps)
        suffices = question.sufficient(kept)
        if suffices is None:
            decided = False
            pairs = zip(keeps, kept.tolist(), strict=True)
            solver.add(z3.Not(z3.And([keep if value else z3.Not(keep) for keep, value in pairs])))
        elif suffices:
            axps.append(_places(question.smaller_kept(kept)))
            solver.add(z3.Or([z3.Not(keeps[unit]) for unit in axps[-1]]))
        else:
            cxps.append(_places(question.smaller_freed(~kept)))
            solver.add(z3.Or([keeps[unit] for unit in cxps[-1]]))
    complete = decided and solver.check() == z3.unsat
    return Explanations(tuple(axps), tuple(cxps), complete)


def _widened(kept: Bools, axps: list[tuple[int, ...]]) -> Bools:
    """A largest set around one that the map allows: no known AXp lies in it."""
    kept = kept.copy()
    lacking = [set(axp) - set(_places(kept)) for axp in axps]
    for unit in np.flatnonzero(~kept).tolist():
        if {unit} not in lacking:
            kept[unit] = True
            for rest in lacking:
                rest.discard(unit)
    return kept


def _narrowed(kept: Bools, cxps: list[tuple[int, ...]]) -> Bools:
    """A smallest set within one that the map allows: it hits each known CXp."""
    freed = _widened(~kept, cxps)
    return ~freed


def _places(chosen: Bools) -> tuple[int, ...]:
    return tuple(np.flatnonzero(chosen).tolist())


@dataclass(frozen=True, eq=False)
class Smallest:
    """A small explanation, and how small one can be.

    Attributes:
        chosen: bool [U]; certain to be an explanation.
        lower: no explanation has fewer units.
    """

    chosen: Bools
    lower: int

    @property
    def is_smallest(self) -> bool:
        """Whether none has fewer units."""
        return self.lower == int(self.chosen.sum())


def smallest_by_hitting(question: Question, kind: str, seconds: float = SECONDS) -> Smallest:
    """An explanation of as few units as is shown in the time.

    Args:
        question: what suffices; all units do, and none does not.
        kind: "axp" or "cxp".
        seconds: time limit.
    """
    import z3

    everything = np.ones(question.size, dtype=bool)
    shrink = question.smaller_kept if kind == "axp" else question.smaller_freed
    best, lower, end = shrink(everything), 0, monotonic() + seconds
    chosen = [z3.Bool(f"u{unit}") for unit in range(question.size)]
    solver = z3.Solver()
    while lower < best.sum() and monotonic() < end:
        few = z3.PbLe([(one, 1) for one in chosen], lower)
        if solver.check(few) != z3.sat:
            lower += 1
            continue
        units = _model(solver.model(), chosen)
        suffices = question.sufficient(units if kind == "axp" else ~units)
        if suffices is None:
            break
        if suffices is (kind == "axp"):
            best = units
            break
        other = question.smaller_freed if kind == "axp" else question.smaller_kept
        solver.add(z3.Or([chosen[unit] for unit in _places(other(~units))]))
    return Smallest(best, lower)


def _model(model: Any, variables: Sequence[Any]) -> Bools:
    """Which variables are true in a model of z3."""
    import z3

    return np.array([z3.is_true(model[variable]) for variable in variables], dtype=bool)
