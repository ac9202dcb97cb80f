"""The solvers, each asked about one region's queries in turn.

A row in ``MILP_SOLVERS`` is all that a new MILP solver needs besides its file. A solver's answer
becomes a verdict only here: its point is checked exactly, its bound must be below zero by more
than its tolerance, and everything else is ``Unknown``.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Protocol

import numpy as np

from conspec.encodings.bounds import hidden_bounds
from conspec.encodings.linear_bounds import LayerBounds
from conspec.encodings.milp import INFINITY, Answer, MilpSolver, Objective, Status
from conspec.encodings.milp_session import MilpSession
from conspec.encodings.query import Query
from conspec.encodings.regions import ConvexRegion
from conspec.encodings.scores import ScoreSpace
from conspec.encodings.smt import PRECISIONS, SmtSession
from conspec.encodings.tightening import tightened
from conspec.specs.rewrite import All, Halfspace, Nnf, literals
from conspec.verifier.cases import cases_of, literals_of
from conspec.verifier.falsify import Falsifier
from conspec.verifier.lemmas import LemmaEngine
from conspec.verifier.verdict import Proved, Reason, Trust, Unknown, Verdict, Violated
from conspec.verifier.witness import validated_at

TOLERANCE = 1e-5
"""A scaled margin this far below zero is taken as a proof, for each layer of the head. Literals and
neurons are scaled to ranges of [−1, 1]; the solvers' feasibility and integrality tolerances are
1e-6 (SCIP, HiGHS, Gurobi differ a little), and a binary that is off by 1e-6 moves a guarded literal
by at most 2e-6."""

FLOOR = -1e-3
"""Points with a smaller scaled margin are not looked for. So "infeasible" means a proof, too: far
below zero, since solvers are sometimes wrong about what is infeasible by little."""
GOAL = 1e-4
"""A scaled margin that is surely large enough for a counterexample: well above the tolerances."""


class Session(Protocol):
    """One engine on one region."""

    def decide(self, query: Query, violation: Nnf, seconds: float) -> Verdict:
        """The verdict of a query whose violation was reduced to an equivalent one."""


def _highs() -> MilpSolver:
    from conspec.verifier.highs import Highs

    return Highs()


def _gurobi() -> MilpSolver:
    from conspec.verifier.gurobi import Gurobi

    return Gurobi()


def _scip() -> MilpSolver:
    from conspec.verifier.scip import Scip

    return Scip()


MILP_SOLVERS: dict[str, Callable[[], MilpSolver]] = {
    "highs": _highs,
    "gurobi": _gurobi,
    "scip": _scip,
}


class MilpEngine:
    """A MILP solver on one region; its model is kept from query to query."""

    def __init__(self, name: str, space: ScoreSpace, region: ConvexRegion) -> None:
        """Remember what to build; the model is built with the first query."""
        self._name = name
        self._space = space
        self._region = region
        self._session: MilpSession | None = None
        self._tolerance = TOLERANCE * len(space.head.affines)

    @property
    def session(self) -> MilpSession:
        """The model, fresh when the old one has collected too many literals."""
        if self._session is None or self._session.is_full:
            solver = MILP_SOLVERS[self._name]()
            self._session = MilpSession(self._space, self._region, solver)
        return self._session

    def decide(self, query: Query, violation: Nnf, seconds: float) -> Verdict:
        """The verdict; a proof is the solver's word."""
        check_region(query, self._region)
        try:
            return self._decide(query, violation, seconds)
        except OverflowError as error:
            self._session = None
            return Unknown(Reason.SOLVER_FAILED, str(error))

    def _decide(self, query: Query, violation: Nnf, seconds: float) -> Verdict:
        found = [lit for lit in literals(violation) if isinstance(lit, Halfspace)]
        if all(self._space.is_affine(literal) for literal in found):
            return self._settled(query, self._maximised(violation, None, seconds, Objective()))
        return self._by_cases(query, violation, monotonic() + seconds)

    def _by_cases(self, query: Query, violation: Nnf, deadline: float) -> Verdict:
        """The verdict from those of the cases: the likeliest first, each with a share of time."""
        waiting = self._open_cases(violation, deadline)
        stuck: Unknown | None = None
        while waiting:
            again = []
            for place, (case, bounds) in enumerate(waiting):
                share = max(deadline - monotonic(), 0.0) / (len(waiting) - place)
                verdict = self._decide_case(query, case, bounds, share)
                if isinstance(verdict, Violated):
                    return verdict
                if isinstance(verdict, Unknown):
                    if verdict.reason is Reason.TIME_LIMIT and monotonic() < deadline:
                        again.append((case, bounds))
                    else:
                        stuck = verdict
            waiting = again
        return Proved(Trust.SOLVER) if stuck is None else stuck

    def _open_cases(self, violation: Nnf, deadline: float) -> list[tuple[All, list[LayerBounds]]]:
        """The cases that bounds do not refute in time, with bounds of the neurons there."""
        base, found = self.session.bounds, []
        for case in cases_of(violation):
            known = literals_of(case)
            can_ask = known and monotonic() < deadline
            left = tightened(self._space, self._region, base, known) if can_ask else None
            if left is None:
                found.append((INFINITY, case, base))
            elif not left.refuted:
                found.append((left.highest, case, left.bounds))
        found.sort(key=lambda entry: entry[0], reverse=True)
        return [(case, bounds) for _, case, bounds in found]

    def _decide_case(
        self, query: Query, case: All, bounds: list[LayerBounds], seconds: float
    ) -> Verdict:
        """The verdict on one case; "infeasible" means that no margin reaches the floor."""
        deadline = monotonic() + seconds
        aim = Objective(margin_floor=FLOOR, goal=INFINITY if query.cones else GOAL)
        answer = self._maximised(case, bounds, seconds, aim)
        if answer.status is Status.GOAL:
            found = self._settled(query, answer)
            if isinstance(found, Violated):
                return found
            left = max(deadline - monotonic(), 0.0)
            answer = self._maximised(case, bounds, left, replace(aim, goal=INFINITY))
        if answer.status is Status.INFEASIBLE:
            return Proved(Trust.SOLVER)
        return self._settled(query, answer)

    def _maximised(
        self, violation: Nnf, bounds: list[LayerBounds] | None, seconds: float, aim: Objective
    ) -> Answer:
        """The solver's answer; for a ball, after cutting off what lies outside it."""
        session, deadline = self.session, monotonic() + seconds
        answer = session.maximise(violation, seconds, aim, bounds)
        while answer.point is not None and monotonic() < deadline and session.cut(answer.point):
            left = max(deadline - monotonic(), 0.0)
            answer = session.maximise(violation, left, aim, bounds)
        return answer

    def _settled(self, query: Query, answer: Answer) -> Verdict:
        """What an answer means."""
        if answer.status is Status.TOO_LARGE:
            self._session = None  # rows of the refused model would stay in it
        if answer.point is not None:  # first: a solver may be wrong about its own point
            witness = validated_at(query, query.region.into(answer.point))
            if witness is not None:
                return Violated(witness)
        if answer.bound < -self._tolerance and answer.status is not Status.FAILED:
            return Proved(Trust.SOLVER)
        return Unknown(_milp_reason(query, answer, self._tolerance), answer.detail)


def _milp_reason(query: Query, answer: Answer, tolerance: float) -> Reason:
    """Why a MILP answer settles nothing."""
    match answer.status:
        case Status.TIME_LIMIT:
            return Reason.TIME_LIMIT
        case Status.TOO_LARGE:
            return Reason.TOO_LARGE
        case Status.OPTIMAL if query.cones:
            return Reason.UNSUPPORTED_ATOM
        case Status.OPTIMAL if answer.bound <= tolerance:
            return Reason.MARGIN_IN_TOLERANCE
        case Status.OPTIMAL:
            return Reason.NO_VALID_POINT
        case _:  # "infeasible" too, where no floor is set: some point always satisfies the rows
            return Reason.SOLVER_FAILED


class BoundsEngine:
    """Linear bounds of a ReLU head, where each case of the violation would hold: proofs only.

    The bounds are theorems (`conspec.encodings.tightening`), but there is no certificate for them
    yet; so they are trusted like a solver's word.
    """

    def __init__(self, space: ScoreSpace, region: ConvexRegion) -> None:
        """Bound the hidden neurons on the region."""
        self._space = space
        self._region = region
        self._base = hidden_bounds(space.head, region)

    def decide(self, query: Query, violation: Nnf, seconds: float) -> Verdict:
        """``Proved`` if bounds refute every case."""
        check_region(query, self._region)
        try:
            cases = (literals_of(case) for case in cases_of(violation))
            if self._is_bounded and all(known and self._refuted(known) for known in cases):
                return Proved(Trust.SOLVER)
        except OverflowError:  # a constant beyond float64
            pass
        return Unknown(Reason.INCOMPLETE)

    @property
    def _is_bounded(self) -> bool:
        return all(np.isfinite([bounds.lower, bounds.upper]).all() for bounds in self._base)

    def _refuted(self, known: Sequence[Halfspace]) -> bool:
        return tightened(self._space, self._region, self._base, known).refuted


class Z3Engine:
    """z3 on one region: exact in both directions."""

    def __init__(self, space: ScoreSpace, region: ConvexRegion) -> None:
        """Remember what to build; the solver starts with the first query."""
        self._space = space
        self._region = region
        self._session: SmtSession | None = None

    def decide(self, query: Query, violation: Nnf, seconds: float) -> Verdict:
        """The verdict, with short coefficients first and exact ones last."""
        check_region(query, self._region)
        self._session = self._session or SmtSession(self._space, self._region)
        deadline = monotonic() + seconds
        for bits in PRECISIONS:
            word, point = self._session.check(violation, bits, deadline - monotonic())
            while point is not None:
                witness = validated_at(query, point)
                if witness is not None:
                    return Violated(witness)
                if not self._session.cut(point):
                    break
                word, point = self._session.check(violation, bits, deadline - monotonic())
            if word == "unsat":
                return Proved(Trust.SOLVER)
            if monotonic() >= deadline:
                return Unknown(Reason.TIME_LIMIT)
        if query.cones:
            return Unknown(Reason.UNSUPPORTED_ATOM)
        return Unknown(Reason.SOLVER_FAILED, f"z3: {word}")


def check_region(query: Query, region: ConvexRegion) -> None:
    """Refuse a query about another region than a session's: its answer would be wrong.

    Raises:
        ValueError: it is about another region.
    """
    if query.region is not region:
        raise ValueError("a session answers queries about its own region only")


def open_session(engine: str, space: ScoreSpace, region: ConvexRegion) -> Session:
    """A session of a named solver on a region."""
    if engine == "lemmas":
        return LemmaEngine(space, region)
    if engine == "bounds":
        return BoundsEngine(space, region)
    if engine == "falsify":
        return Falsifier(space, region)
    return Z3Engine(space, region) if engine == "z3" else MilpEngine(engine, space, region)
