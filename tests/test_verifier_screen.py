"""What the screen settles without a solver: certified, so it is held to the oracle, and reduce."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conspec.encodings.exact import vector
from conspec.encodings.query import Query, evaluate_at
from conspec.specs import formula as f
from conspec.specs.rewrite import Halfspace, literals
from conspec.verifier.batch import screen
from conspec.verifier.screen import Ranges, impossible, margin_bounds, ranges_of, reduce, rows_of
from conspec.verifier.verdict import Proved, Trust, Violated
from tests import oracle, spaces

modest = settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
SIZES = spaces.SIZES.map(lambda value: float(np.float32(value)))
QUERIES = st.one_of(
    spaces.contested(spaces.spaces()),
    spaces.queries(spaces.spaces()),
    spaces.contested(spaces.spaces(weights=SIZES)),
)


def ranges(query: Query) -> Ranges:
    found = [lit for lit in literals(query.violation) if isinstance(lit, Halfspace)]
    return ranges_of(query.space, rows_of(query.space, found), [query.region])


def points(query: Query) -> list[list[Fraction]]:
    """Corners and inner points of the box."""
    pairs = list(zip(*oracle.ends(query), strict=True))
    shares = [Fraction(v) for v in ("0", "1", "1/2", "1/3")]
    found = [[low + share * (high - low) for low, high in pairs] for share in shares]
    return [*found, [pair[i % 2] for i, pair in enumerate(pairs)]]


@modest
@given(QUERIES)
def test_ranges_contain_the_exact_values(query: Query) -> None:
    known = ranges(query)
    for literal in known.rows.literals:
        (low,), (high,) = known.bounds(literal)
        for point in points(query):
            _, value = evaluate_at(literal, query.space, vector(point))
            assert low == -np.inf or Fraction(low) <= value
            assert high == np.inf or Fraction(high) >= value
            assert not known.never(literal)[0] or not (value > 0 if literal.strict else value >= 0)
            assert not known.always(literal)[0] or (value > 0 if literal.strict else value >= 0)


@modest
@given(QUERIES)
def test_a_reduced_violation_is_equivalent_on_the_region(query: Query) -> None:
    reduced = reduce(query.violation, ranges(query), 0)
    for point in points(query):
        truth, _ = evaluate_at(query.violation, query.space, vector(point))
        assert truth is oracle.fails_at(query, point)
        assert evaluate_at(reduced, query.space, vector(point))[0] is truth


@modest
@given(QUERIES)
def test_what_is_impossible_is_so_and_margins_are_bounded(query: Query) -> None:
    known = ranges(query)
    (highest,) = margin_bounds(query.violation, known)
    (never,) = impossible(query.violation, known)
    for point in points(query):
        truth, margin = query.margin(vector(point))
        assert not (never and truth)
        assert highest == np.inf or highest == -np.inf or Fraction(highest) >= margin


@modest
@given(QUERIES, QUERIES)
def test_the_screen_is_right_and_keeps_the_order(one: Query, two: Query) -> None:
    """Several specs and regions of one space at once; the regions in different orders."""
    negation = f.Not(one.spec.body)
    other = replace(one, region=spaces.box_of([0] * one.space.dimension, [1] * one.space.dimension))
    batch = [
        replace(query, spec=replace(query.spec, body=body))
        for query in (one, other)
        for body in (one.spec.body, negation, f.And((negation, one.spec.body)))
    ]
    found = screen(batch, points=True)
    assert [entry.query for entry in found] == batch
    for entry in found:
        if isinstance(entry.verdict, Proved):
            assert entry.verdict.trust is Trust.CERTIFIED
            assert oracle.decide(entry.query) is True
        elif isinstance(entry.verdict, Violated):
            assert oracle.refuted(entry.query, entry.verdict.witness)
    alone = [screen([query], points=True)[0] for query in batch]
    assert [type(e.verdict) for e in found] == [type(e.verdict) for e in alone]


def settled(body: str, low: str, high: str) -> type:
    query = spaces.query(spaces.identity(2), body, spaces.box_of([low, 0], [high, 1]))
    return type(screen([query], points=True)[0].verdict)


def test_the_screen_settles_the_easy_ones() -> None:
    """Sound is not enough: it must decide what bounds and corners decide."""
    assert settled("a > b", "1.001", "2") is Proved
    assert settled("a > b", "0.999", "2") is Violated
    assert settled("predict(x) => a > b", "-1", "2") is type(None)
    assert settled("score(b) >= 0.5 => a > b", "1.001", "2") is Proved
    assert settled("atleast(2, a > b, score(a) > 1, score(b) > 0.5)", "1.001", "2") is Proved
    assert settled("atleast(3, a > b, score(a) > 1, score(b) > 0.5)", "1.001", "2") is Violated


def test_a_tie_is_left_to_exact_arithmetic() -> None:
    assert settled("a > b or score(a) >= 1", "1", "2") is not Violated
    verdicts: list[Callable[[], type]] = [
        lambda: settled("score(a) >= 1", "1", "2"),
        lambda: settled("score(a) > 1", "1", "2"),
    ]
    assert [verdict() for verdict in verdicts] == [type(None), Violated]
