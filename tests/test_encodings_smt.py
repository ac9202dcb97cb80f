"""The z3 session: short coefficients never lose a point, and sessions can be used again."""

from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conspec.encodings.query import Query
from conspec.encodings.smt import PRECISIONS, SmtSession, shortened
from tests import oracle, spaces
from tests.test_encodings_milp import BODIES, REGION, SPACE

modest = settings(
    max_examples=30, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
FACTORS = st.one_of(
    st.fractions(-100, 100),
    st.sampled_from([Fraction(v) for v in ("0", "1e-400", "-1e-30", "1e30", "4095.5", "0.1")]),
)


@modest
@given(st.lists(FACTORS, min_size=1, max_size=5), st.sampled_from([1, 2, 12, 28]))
def test_shortened_factors_reach_at_least_as_high(factors: list[Fraction], bits: int) -> None:
    short, change = shortened(factors, bits)
    assert change == sum(abs(a - b) for a, b in zip(factors, short, strict=True))
    for signs in range(2 ** len(factors)):
        corner = [1 if signs >> i & 1 else -1 for i in range(len(factors))]
        exact = sum(a * y for a, y in zip(factors, corner, strict=True))
        rough = sum(a * y for a, y in zip(short, corner, strict=True))
        assert exact <= rough + change


@modest
@given(st.lists(FACTORS, min_size=1, max_size=5))
def test_shortened_factors_are_short_and_near(factors: list[Fraction]) -> None:
    largest = max(map(abs, factors))
    short, change = shortened(factors, 12)
    assert change <= len(factors) * largest / 2**11
    for value in short:
        assert (
            value.numerator.bit_length() <= 14
            or value.numerator % 2**900 == 0
            or (value.denominator == 1)
        )


@modest
@given(spaces.contested(spaces.spaces()))
def test_short_coefficients_lose_no_counterexample(query: Query) -> None:
    truth = oracle.decide(query)
    session = SmtSession(query.space, query.region)
    for bits in PRECISIONS:
        word, _ = session.check(query.violation, bits, 20.0)
        assert word == "sat" or truth is True
        if bits is None:
            assert word == ("unsat" if truth else "sat")


@pytest.mark.parametrize("factor", ["1/3", "2/3", "1/7", "0.1", "5/7", "1/1000001"])
@pytest.mark.parametrize("sign", ["", "-"])
def test_short_coefficients_keep_the_one_point_that_violates(factor: str, sign: str) -> None:
    """Only a corner violates, so a coefficient rounded the wrong way would lose it."""
    body = f"{sign}{factor} * score(a) + {factor} * score(b) < 2 * {factor}"
    query = spaces.query(spaces.identity(2), body, spaces.box_of([-1, -1], [1, 1]))
    for bits in PRECISIONS:
        assert SmtSession(query.space, query.region).check(query.violation, bits, 9.0)[0] == "sat"


def test_a_used_session_answers_as_a_fresh_one() -> None:
    used = SmtSession(SPACE, REGION)
    for body in [*BODIES, *reversed(BODIES)]:
        violation = spaces.query(SPACE, body, REGION).violation
        for bits in PRECISIONS:
            fresh, _ = SmtSession(SPACE, REGION).check(violation, bits, 20.0)
            assert used.check(violation, bits, 20.0)[0] == fresh


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-9])
def test_no_time_is_unknown_or_an_answer_but_no_error(seconds: float) -> None:
    used = SmtSession(SPACE, REGION)
    violation = spaces.query(SPACE, BODIES[3], REGION).violation
    assert used.check(violation, None, seconds)[0] in ("sat", "unsat", "unknown")
    fresh, _ = SmtSession(SPACE, REGION).check(violation, None, 20.0)
    assert used.check(violation, None, 20.0)[0] == fresh
