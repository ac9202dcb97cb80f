"""The MILP session on each solver: one model for many queries answers as fresh models do."""

from collections.abc import Callable
from fractions import Fraction
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conspec.encodings.milp import (
    INFINITY,
    Answer,
    Column,
    MilpSolver,
    Objective,
    Row,
    Status,
)
from conspec.encodings.milp_session import MilpSession
from conspec.encodings.query import Query
from conspec.encodings.scores import ScoreSpace
from conspec.specs.rewrite import Nnf
from conspec.verifier.engines import MILP_SOLVERS, TOLERANCE, MilpEngine
from conspec.verifier.verdict import Proved, Reason, Unknown, Violated
from tests import oracle, spaces

RUN = [name for name in MILP_SOLVERS if name != "scip" or find_spec("pyscipopt")]
modest = settings(
    max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
SPACE = spaces.space(
    ([[1.0, 0.5, -1.0], [0.0, 1.0, 2.0], [1.0, 1.0, 1.0]], [0.0, 0.5, -0.5]),
    ([[1.0, -1.0, 0.5], [0.5, 1.0, 1.0]], [0.0, 0.25]),
    ([[1.0, -1.0], [-1.0, 1.0]], [0.0, 0.0]),
)
REGION = spaces.box_of([-1] * 3, [1] * 3)


@pytest.fixture(params=RUN)
def solver(request: pytest.FixtureRequest) -> Callable[[], MilpSolver]:
    return MILP_SOLVERS[request.param]


def asked(session: MilpSession, nnf: Nnf) -> tuple[Status, float]:
    answer = session.maximise(nnf, 20.0)
    return answer.status, answer.bound


def same(one: tuple[Status, float], two: tuple[Status, float]) -> bool:
    return one[0] is two[0] and abs(one[1] - two[1]) <= 1e-6


BODIES = [
    "a > b",
    "predict(x) => a > b",
    "predict(y) or (b > c and not a > c)",
    "atleast(2, a > b, b > c, predict(x), score(a) >= 0.3)",
    "atmost(1, a > b, b > c, c > a)",
    "a > b <=> predict(x)",
    "score(a) + score(b) <= 1.25 => not (score(c) > 2)",
]


def test_a_used_model_answers_as_a_fresh_one(solver: Callable[[], MilpSolver]) -> None:
    used = MilpSession(SPACE, REGION, solver())
    for body in [*BODIES, *reversed(BODIES)]:
        violation = spaces.query(SPACE, body, REGION).violation
        status, bound = asked(used, violation)
        fresh_status, fresh_bound = asked(MilpSession(SPACE, REGION, solver()), violation)
        assert status is fresh_status is Status.OPTIMAL
        assert bound == pytest.approx(fresh_bound, abs=1e-6)


def test_nothing_is_left_of_a_query_that_ran_out_of_time(solver: Callable[[], MilpSolver]) -> None:
    hard = spaces.query(SPACE, BODIES[3], REGION).violation
    used = MilpSession(SPACE, REGION, solver())
    for _ in range(3):
        answer = used.maximise(hard, 0.0)
        assert answer.status in (Status.TIME_LIMIT, Status.OPTIMAL)
    for body in BODIES:
        violation = spaces.query(SPACE, body, REGION).violation
        fresh = asked(MilpSession(SPACE, REGION, solver()), violation)
        assert same(asked(used, violation), fresh)


def test_the_time_limit_is_for_one_query_not_for_the_session(
    solver: Callable[[], MilpSolver],
) -> None:
    used = MilpSession(SPACE, REGION, solver())
    violations = [spaces.query(SPACE, body, REGION).violation for body in BODIES]
    statuses = {used.maximise(v, 0.5).status for _ in range(40) for v in violations}
    assert statuses == {Status.OPTIMAL}


def test_an_aim_leaves_no_trace(solver: Callable[[], MilpSolver]) -> None:
    used = MilpSession(SPACE, REGION, solver())
    violation = spaces.query(SPACE, BODIES[0], REGION).violation
    first = asked(used, violation)
    for aim in (
        Objective(direction=np.array([1.0, -1.0, 1.0]), margin_floor=0.1),
        Objective(closest=True, margin_floor=0.1),
    ):
        answer = used.maximise(violation, 20.0, aim)
        assert answer.status is Status.OPTIMAL
        assert answer.point is not None
        assert same(asked(used, violation), first)


def test_a_row_may_name_a_column_twice_or_none(solver: Callable[[], MilpSolver]) -> None:
    """The same node twice under a connective makes such rows; its values add up."""
    model = solver()
    model.add_columns([Column(0.0, 1.0), Column(0.0, 1.0, integer=True)])
    model.add_rows([Row(-INFINITY, 1.0, [0, 0], [1.0, 1.0]), Row(0.0, 0.0, [], [])])
    model.add_rows([Row(-INFINITY, 0.0, [1, 0, 1], [0.5, -1.0, 0.5])])
    answer = model.maximise([(0, 1.0), (1, 1.0)], 10.0)
    assert answer.status is Status.OPTIMAL
    assert answer.bound == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("share", [1e-6, 1e-9, 1e-12])
def test_small_coefficients_of_a_network_are_not_dropped(
    solver: Callable[[], MilpSolver], share: float
) -> None:
    """HiGHS drops coefficients below 1e-9; the neuron here is z, whatever its unit."""
    for first, second in ((share, 1 / share), (1 / share, share)):
        space = spaces.space(([[1.0]], [0.0]), ([[first]], [0.0]), ([[second]], [0.0]))
        region = spaces.box_of([-1], [1])
        violation = spaces.query(space, "logit(x) < 0.5", region).violation
        answer = MilpSession(space, region, solver()).maximise(violation, 20.0)
        assert answer.bound > 0.1


@modest
@given(st.one_of(spaces.contested(spaces.spaces()), spaces.queries(spaces.spaces())))
def test_a_bound_below_zero_is_a_proof(query: Query) -> None:
    truth = oracle.decide(query)
    for name in RUN:
        answer = MilpSession(query.space, query.region, MILP_SOLVERS[name]()).maximise(
            query.violation, 20.0
        )
        assert truth or answer.bound >= -TOLERANCE
        # Rows that no point satisfies: the violation is the constant false.
        assert answer.bound <= 1.0 + 1e-6 or answer.status is Status.INFEASIBLE


DEEP = spaces.space(([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0]], [0.0]), ([[1.0]], [0.0]))
# logit = −relu(0.5 − relu(z)): it gains from the second neuron falling, so from the first rising.
FALLING = spaces.space(([[1.0]], [0.0]), ([[1.0]], [0.0]), ([[-1.0]], [0.5]), ([[-1.0]], [0.0]))
PROVED = [
    ("not (logit(x) >= -0.2 and score(a) <= 0)", FALLING),
    # Each is lost if a binary says too little: of a neuron, or of a nested count.
    ("score(a) < -0.1 => logit(x) < 0.05", DEEP),
    ("score(a) > 0.1 => logit(x) < score(a) + 0.01", DEEP),
    ("not (score(a) > 2 or atleast(2, score(a) > 0.6, score(a) < 0.4, score(b) > 3))", DEEP),
    ("not (score(a) > 2 or (score(a) > 0.6 and score(a) < 0.4))", DEEP),
]


@pytest.mark.parametrize(("body", "space"), PROVED)
def test_binaries_say_all_that_they_should(
    body: str, space: ScoreSpace, solver: Callable[[], MilpSolver]
) -> None:
    query = spaces.query(space, body, spaces.box_of([-1], [1]))
    answer = MilpSession(space, query.region, solver()).maximise(query.violation, 20.0)
    assert answer.bound < -TOLERANCE


@pytest.mark.parametrize(
    ("body", "largest"),
    [
        ("score(a) < 0 and score(a) > 0", 1.0),  # the other literal is at its lowest there
        ("not (score(a) > 0.5 and score(b) > 0.5)", 1 / 3),
        ("atmost(1, score(a) > 0, score(b) > 0, score(a) < 0)", 1.0),
    ],
)
def test_the_bound_is_the_largest_scaled_margin(
    body: str, largest: float, solver: Callable[[], MilpSolver]
) -> None:
    query = spaces.query(spaces.identity(2), body, spaces.box_of([-1, -1], [1, 1]))
    answer = MilpSession(query.space, query.region, solver()).maximise(query.violation, 20.0)
    assert answer.bound == pytest.approx(largest, abs=1e-5)


class Refusing:
    """A solver whose licence ends at a number of columns, and which then says so."""

    def __init__(self, word: Answer) -> None:
        self.word = word

    def add_columns(self, columns: object) -> None:
        """Nothing to keep."""

    def add_rows(self, rows: object) -> None:
        """Nothing to keep."""

    def drop(self, columns: int, rows: int) -> None:
        """Nothing to drop."""

    def maximise(self, objective: object, seconds: float, goal: float = INFINITY) -> Answer:
        return self.word


ANSWERS = [
    (Answer(Status.TOO_LARGE), Reason.TOO_LARGE),
    (Answer(Status.TIME_LIMIT), Reason.TIME_LIMIT),
    (Answer(Status.TIME_LIMIT, 0.5), Reason.TIME_LIMIT),
    (Answer(Status.FAILED), Reason.SOLVER_FAILED),
    (Answer(Status.FAILED, -1.0), Reason.SOLVER_FAILED),
    (Answer(Status.INFEASIBLE), Reason.SOLVER_FAILED),
    (Answer(Status.OPTIMAL, 0.0), Reason.MARGIN_IN_TOLERANCE),
    (Answer(Status.OPTIMAL, -TOLERANCE / 2), Reason.MARGIN_IN_TOLERANCE),
    (Answer(Status.OPTIMAL, 0.9), Reason.NO_VALID_POINT),
    (Answer(Status.OPTIMAL, 0.9, -np.ones(9)), Reason.NO_VALID_POINT),
    (Answer(Status.OPTIMAL, float("nan")), None),
]


@pytest.mark.parametrize(("word", "reason"), ANSWERS)
def test_only_a_bound_below_the_tolerance_or_a_valid_point_settles(
    word: Answer, reason: Reason | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MILP_SOLVERS, "highs", lambda: Refusing(word))
    space = spaces.identity(2)
    query = spaces.query(space, "a > b or score(a) <= 0", spaces.box_of([0, 0], [1, 1]))
    verdict = MilpEngine("highs", space, query.region).decide(query, query.violation, 1.0)
    assert isinstance(verdict, Unknown)
    assert reason is None or verdict.reason is reason


def test_the_tie_in_a_point_box_is_not_cut_off() -> None:
    """The scaled range of a literal is one point here; rounding must not exclude it."""
    for value in (Fraction(1, 10), Fraction(1, 3), Fraction(10**9 + 1, 7)):
        space = spaces.identity(2)
        region = spaces.box_of([value, value], [value, value])
        query = spaces.query(space, "a > b", region)
        for name in RUN:
            session = MilpSession(space, region, MILP_SOLVERS[name]())
            assert session.maximise(query.violation, 10.0).bound >= -TOLERANCE


def test_a_solver_stops_at_the_goal(solver: Callable[[], MilpSolver]) -> None:
    """The first point that is good enough ends the search, and leaves no goal behind."""
    query = spaces.query(SPACE, BODIES[3], REGION)
    session = MilpSession(SPACE, REGION, solver())
    best = session.maximise(query.violation, 20.0)
    stopped = session.maximise(query.violation, 20.0, Objective(goal=0.01))
    assert stopped.status in (Status.GOAL, Status.OPTIMAL)
    assert stopped.point is not None
    assert stopped.bound >= best.bound - 1e-6
    out_of_reach = session.maximise(query.violation, 20.0, Objective(goal=0.9))
    assert same((out_of_reach.status, out_of_reach.bound), (best.status, best.bound))
    assert same(asked(session, query.violation), (best.status, best.bound))


def test_nothing_reaches_a_floor_above_the_maximum(solver: Callable[[], MilpSolver]) -> None:
    query = spaces.query(SPACE, BODIES[3], REGION)
    session = MilpSession(SPACE, REGION, solver())
    best = session.maximise(query.violation, 20.0).bound
    below = session.maximise(query.violation, 20.0, Objective(margin_floor=best - 0.01))
    above = session.maximise(query.violation, 20.0, Objective(margin_floor=best + 0.01))
    assert below.bound == pytest.approx(best, abs=1e-5)
    assert above.status is Status.INFEASIBLE


@settings(modest, max_examples=40)
@given(spaces.contested(spaces.spaces(depth=st.integers(1, 3))))
def test_engines_decide_deep_heads_by_cases_as_the_oracle_does(query: Query) -> None:
    if query.is_affine:
        return  # decided as a whole
    truth = oracle.decide(query)
    for name in RUN:
        engine = MilpEngine(name, query.space, query.region)
        verdict = engine.decide(query, query.constrained, 20.0)
        if isinstance(verdict, Unknown):
            assert verdict.reason in (Reason.MARGIN_IN_TOLERANCE, Reason.NO_VALID_POINT)
        else:
            assert isinstance(verdict, Proved) is truth
        if isinstance(verdict, Violated):
            assert oracle.refuted(query, verdict.witness)


def hull_of_two(weight: float) -> Query:
    """``weight · (|x| − 1/2) ≥ 0`` nowhere; the neurons' weights have its sign."""
    head = (([[1.0], [-1.0]], [0.0, 0.0]), ([[weight, weight]], [-weight / 2]))
    scores = spaces.space(([[1.0]], [0.0]), *head)
    return spaces.query(scores, "logit(x) < 0", spaces.box_of([-1], [1]))


class Counting(Refusing):
    """Counts the integers among the columns that it is given."""

    def __init__(self) -> None:
        super().__init__(Answer(Status.FAILED))
        self.integers = 0

    def add_columns(self, columns: object) -> None:
        assert isinstance(columns, list)
        self.integers += sum(column.integer for column in columns)


@pytest.mark.parametrize(("weight", "binaries"), [(1.0, 2), (-1.0, 0)])
def test_only_neurons_that_the_margin_gains_from_need_a_binary(
    weight: float, binaries: int
) -> None:
    query = hull_of_two(weight)
    model = Counting()
    MilpSession(query.space, query.region, model).maximise(query.violation, 1.0)
    assert model.integers == binaries
    for name in RUN:
        session = MilpSession(query.space, query.region, MILP_SOLVERS[name]())
        # The scale is the interval's: |x| may be 2 there, so 2 − 1/2.
        assert session.maximise(query.violation, 10.0).bound == pytest.approx(1 / 3, abs=1e-5)


def test_an_unknown_case_is_not_lost_among_proved_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """One case without an answer leaves the whole unknown, wherever it stands."""
    words = [Answer(Status.INFEASIBLE), Answer(Status.FAILED), Answer(Status.INFEASIBLE)]
    for turn in range(3):
        waiting = [*words[turn:], *words[:turn]]

        class Scripted(Refusing):
            def maximise(self, objective: object, seconds: float, goal: float = INFINITY) -> Answer:
                return self.answers.pop(0)

            answers = waiting

        monkeypatch.setitem(MILP_SOLVERS, "highs", lambda: Scripted(words[0]))
        eye = [[1.0, 0.0], [0.0, 1.0]]
        scores = spaces.space((eye, [0.0, 0.0]), (eye, [0.0, 0.0]), ([*eye, [1.0, 1.0]], [0.0] * 3))
        region = spaces.box_of([-1, -1], [1, 1])
        body = "not (logit(x) > 0.5 or logit(y) > 0.5 or logit(w) > 1.5)"
        query = spaces.query(scores, body, region)
        verdict = MilpEngine("highs", scores, region).decide(query, query.violation, 5.0)
        assert isinstance(verdict, Unknown)
        assert not waiting
