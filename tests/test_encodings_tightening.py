"""Bounds where half-spaces hold: no counterexample is ever cut off, and often none is left."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from conspec.encodings.bounds import hidden_bounds
from conspec.encodings.query import Query
from conspec.encodings.regions import Box
from conspec.encodings.tightening import multipliers, tightened
from conspec.specs import formula as f
from conspec.specs.rewrite import All, Halfspace
from tests import oracle, spaces
from tests.test_encodings_linear_bounds import points

modest = settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)


def conjunction(query: Query) -> list[Halfspace]:
    """The half-spaces at the top of a violation."""
    nnf = query.violation
    parts = nnf.operands if isinstance(nnf, All) else (nnf,)
    return [part for part in parts if isinstance(part, Halfspace)]


@modest
@given(
    spaces.contested(
        st.one_of(
            spaces.spaces(depth=st.integers(1, 3)),
            spaces.spaces(depth=st.integers(1, 2), weights=spaces.SINGLE),
            spaces.spaces(depth=st.integers(1, 2), weights=spaces.SIZES),
        )
    )
)
def test_no_counterexample_is_cut_off(query: Query) -> None:
    literals = conjunction(query)
    base = hidden_bounds(query.space.head, query.region)
    if not literals or not all(np.isfinite(b.reach).all() for b in base):
        return
    left = tightened(query.space, query.region, base, literals)
    assert isinstance(query.region, Box)
    for point in points(query.region):
        if not all(holds(query, literal, point) for literal in literals):
            continue
        assert not left.refuted
        for bound, values in zip(left.bounds, oracle.hidden(query.space, point), strict=False):
            for low, value, high in zip(bound.lower, values, bound.upper, strict=True):
                assert Fraction(low) <= value <= Fraction(high)


@modest
@given(spaces.contested(spaces.spaces(depth=st.integers(1, 2))))
def test_what_is_refuted_is_true(query: Query) -> None:
    """By z3, which looks everywhere; a refuted part of a conjunction refutes it whole."""
    literals = conjunction(query)
    if literals:
        base = hidden_bounds(query.space.head, query.region)
        if tightened(query.space, query.region, base, literals).refuted:
            assert oracle.decide(query)


def holds(query: Query, literal: Halfspace, point: list[Fraction]) -> bool:
    """Whether a half-space holds at a point, from the formula's own scores."""
    scores = oracle.scores_at(query.space, point)
    value = literal.constant
    for factor, symbol in literal.terms:
        match symbol:
            case f.Logit(label):
                value += factor * Fraction(scores.logits[label])
            case f.Score(concept):
                value += factor * Fraction(scores.concepts[concept])
            case f.Coordinate(index):
                value += factor * point[index]
    return value > 0 if literal.strict else value >= 0


NUMBERS = st.sampled_from([-2.0, -1.0, -0.3, 0.0, 0.0, 0.5, 1.0, 3.0])


@modest
@given(
    st.integers(1, 5).flatmap(
        lambda n: st.tuples(
            st.lists(NUMBERS, min_size=n, max_size=n), st.lists(NUMBERS, min_size=n, max_size=n)
        )
    ),
    NUMBERS,
)
def test_the_multiplier_solves_the_knapsack(
    pair: tuple[list[float], list[float]], constant: float
) -> None:
    row, normal = (np.array(values) for values in pair)
    with np.errstate(divide="ignore", invalid="ignore"):
        (share,) = multipliers(row[None], normal, constant)
    assert share >= 0
    found = linprog(-row, A_ub=-normal[None], b_ub=[constant], bounds=(-1, 1), method="highs")
    bound = np.abs(row + share * normal).sum() + share * constant
    if found.status == 2:  # the condition holds nowhere, and any multiplier will do
        return
    assert bound == pytest.approx(-found.fun, abs=1e-9)


SPACE = spaces.space(
    ([[1.0, 0.0]], [0.0]),
    ([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], [0.0, 0.0, 0.0]),
    ([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [-1.0, 0.0]),
)
REGION = spaces.box_of([-1, -1], [1, 1])


def test_a_condition_settles_neurons() -> None:
    """Where ``score(a) ≥ 0.5``, the first neuron is active and the second is not."""
    query = spaces.query(SPACE, "not (score(a) >= 0.5)", REGION)
    base = hidden_bounds(SPACE.head, REGION)
    (left,) = tightened(SPACE, REGION, base, conjunction(query)).bounds
    assert left.lower[0] == pytest.approx(0.5)
    assert left.upper[1] == pytest.approx(-0.5)
    assert left.upper[2] == pytest.approx(1.0)
    assert left.lower[0] <= 0.5


def test_rounds_refute_what_one_bound_leaves_open() -> None:
    """``|x| ≥ 1.1 − small`` where ``x ≥ 0.2``, so ``x`` itself must be large: none is left."""
    query = spaces.query(
        SPACE, "not (logit(x) >= -0.1 and score(a) >= 0.2 and score(a) <= 0.8)", REGION
    )
    base = hidden_bounds(SPACE.head, REGION)
    literals = conjunction(query)
    assert tightened(SPACE, REGION, base, literals).refuted
    assert not tightened(SPACE, REGION, base, literals[:1]).refuted


def test_a_tie_is_not_refuted() -> None:
    query = spaces.query(SPACE, "not (logit(x) >= 0 and score(a) >= 1)", REGION)
    base = hidden_bounds(SPACE.head, REGION)
    assert not tightened(SPACE, REGION, base, conjunction(query)).refuted
