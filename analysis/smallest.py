"""Smallest explanations of an affine head's predictions over a box.

A smallest CXp takes the largest costs of one rival. A smallest AXp is a covering problem: a
solver proposes a set, which the question confirms exactly; that no smaller one exists is shown by
bounds from multipliers, branch by branch, whose floating-point error is paid for. The solver's word
counts for neither.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from time import monotonic

import numpy as np

from conspec.analysis.explanations import LinearQuestion
from conspec.analysis.hitting_sets import Smallest
from conspec.encodings.milp import Column, Row
from conspec.encodings.rounding import Bools, Floats, gamma
from conspec.verifier.highs import Highs

STRICT = 1e-7
"""What the covering problem demands beyond each need, relatively, so that a tie is no cover."""


def smallest_cxp(question: LinearQuestion) -> Smallest | None:
    """A CXp of the fewest units; None if nothing that is given up changes the prediction.

    For one rival the fewest are those of the largest costs, so only the best rival is sought: in
    floating point, and exactly among those that may be it.
    """
    rest = question.slack - np.cumsum(-np.sort(-question.costs, axis=0), axis=0)  # [U, K]
    rest = np.vstack([question.slack, rest])
    surely = np.argmax(np.vstack([rest + question.room <= 0, np.ones_like(rest[:1])]), axis=0)
    maybe = np.argmax(np.vstack([~(rest - question.room > 0), np.ones_like(rest[:1])]), axis=0)
    most = min(int(surely.min()), question.size)
    rivals = [k for k in np.flatnonzero(maybe <= most).tolist() if k != question.target]
    found = [units for k in rivals if (units := _fewest(question, k)) is not None]
    if not found:
        return None
    best = min(found, key=len)
    chosen = np.zeros(question.size, dtype=bool)
    chosen[best] = True
    return Smallest(chosen, len(best))


def _fewest(question: LinearQuestion, rival: int) -> list[int] | None:
    """The fewest units whose costs reach the slack of a rival, exactly."""
    sums = question.exact_sums(rival)
    order = sorted(range(question.size), key=lambda unit: -sums.costs[unit])
    reached = accumulate((sums.costs[unit] for unit in order), initial=0)
    count = next((n for n, total in enumerate(reached) if total >= sums.slack), None)
    return None if count is None else order[:count]


def smallest_axp(question: LinearQuestion, seconds: float = 10.0) -> Smallest | None:
    """An AXp of as few units as is found in the time; None if all units do not suffice."""
    everything = np.ones(question.size, dtype=bool)
    if not question.sufficient(everything):
        return None
    end = monotonic() + seconds
    cover = Cover.of(question)
    best = question.smaller_kept(everything)
    proposed = cover.proposal(seconds / 2)
    if proposed is not None and question.sufficient(proposed):
        smaller = question.smaller_kept(proposed)
        best = min((best, smaller), key=lambda chosen: int(chosen.sum()))
    return cover.proved(question, best, end)


@dataclass(frozen=True, eq=False)
class Cover:
    """``Σ costs_k x > need_k`` for every rival k that can win: what sufficient sets satisfy.

    Attributes:
        costs: [R, U].
        need: [R].
        room: [R], error of ``need − costs x`` for any x of zeros and ones.
    """

    costs: Floats
    need: Floats
    room: Floats

    @classmethod
    def of(cls, question: LinearQuestion) -> "Cover":
        """What sufficient sets satisfy; rivals that need nothing are left out."""
        total = question.costs.sum(axis=0)
        need = total - question.slack
        rivals = np.flatnonzero(np.isfinite(need) & (need + question.room >= 0) & (total > 0))
        return cls(question.costs.T[rivals], need[rivals], question.room[rivals])

    def proposal(self, seconds: float) -> Bools | None:
        """A small set that covers up to the solver's tolerance."""
        count = self.costs.shape[1]
        scale = np.maximum(self.costs.sum(axis=1), np.finfo(float).tiny)
        shares, needs = self.costs / scale[:, None], self.need / scale + STRICT
        places = tuple(range(count))
        model = Highs()
        model.add_columns([Column(0.0, 1.0, integer=True)] * count)
        model.add_rows(
            [
                Row(float(need), np.inf, places, share.tolist())
                for share, need in zip(shares, needs, strict=True)
            ]
        )
        point = model.maximise([(unit, -1.0) for unit in places], seconds).point
        return None if point is None else np.asarray(point > 0.5)

    def proved(self, question: LinearQuestion, best: Bools, end: float) -> Smallest:
        """The best set known at the end, and a bound below which there is none.

        Branches are explored depth first. Each is a set of units kept and a set given up; it
        closes when the multipliers of its linear program bound its sets from below by the size of
        the best one, or when even all its units do not suffice.
        """
        open_branches = [Branch.root(question.size)]
        while open_branches and monotonic() < end:
            branch = open_branches.pop()
            allowed = ~branch.given_up
            if not question.sufficient(allowed):
                continue
            bound, values = self.relaxed(branch)
            if bound >= best.sum():
                continue
            rounded = allowed & (values > 1e-6)
            if question.sufficient(rounded):
                smaller = question.smaller_kept(rounded)
                best = min((best, smaller), key=lambda chosen: int(chosen.sum()))
            free = allowed & ~branch.kept
            if bound < best.sum() and free.any():
                place = int(np.argmin(np.where(free, np.abs(values - 0.5), np.inf)))
                open_branches += branch.children(place, bound)
        left = [max(branch.bound, int(branch.kept.sum())) for branch in open_branches]
        return Smallest(best, min([int(best.sum()), *left]))

    def relaxed(self, branch: "Branch") -> tuple[int, Floats]:
        """How many units each sufficient set of a branch has at least, and a fractional cover.

        For any multipliers y ≥ 0 and a cover x, ``Σ x > Σ x + y·(need − costs x)``, and the least
        value of the right side over the branch is a sum over units. The rounding errors of
        need and costs are at most y·room together.
        """
        from scipy.optimize import linprog

        count = self.costs.shape[1]
        low = branch.kept.astype(np.float64)
        high = 1.0 - branch.given_up
        trivial = int(branch.kept.sum()), low
        if not len(self.need):
            return trivial
        scale = np.maximum(self.costs.sum(axis=1), np.finfo(float).tiny)
        answer = linprog(
            np.ones(count),
            A_ub=-self.costs / scale[:, None],
            b_ub=-self.need / scale,
            bounds=np.stack([low, high], axis=1),
            method="highs",
        )
        if answer.status != 0:
            return trivial[0], np.where(branch.given_up, 0.0, 1.0)
        multipliers = np.maximum(-answer.ineqlin.marginals, 0.0) / scale
        gains = 1.0 - multipliers @ self.costs
        best = np.where(branch.kept, gains, np.where(branch.given_up, 0.0, gains.clip(max=0.0)))
        value = multipliers @ self.need + best.sum()
        size = multipliers @ (np.abs(self.need) + self.costs.sum(axis=1)) + count
        error = multipliers @ self.room + gamma(2 * count + 2 * len(self.need) + 16) * size
        strict = 1 if multipliers.any() else 0
        sure = value - error * (1.0 + 1e-9)
        bound = int(np.floor(sure)) + strict if np.isfinite(sure) else 0
        return max(bound, trivial[0]), answer.x


@dataclass(frozen=True, eq=False)
class Branch:
    """Sets that hold all units of one kind and none of the other; at least ``bound`` units."""

    kept: Bools
    given_up: Bools
    bound: int

    @classmethod
    def root(cls, size: int) -> "Branch":
        """All sets."""
        return cls(np.zeros(size, dtype=bool), np.zeros(size, dtype=bool), 0)

    def children(self, place: int, bound: int) -> Iterator["Branch"]:
        """The branch with a unit given up, and with it kept, which is explored first."""
        for side in ("given_up", "kept"):
            kept, given_up = self.kept.copy(), self.given_up.copy()
            (kept if side == "kept" else given_up)[place] = True
            yield Branch(kept, given_up, bound)
