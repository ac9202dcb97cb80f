"""The oracles agree with each other, so that a verdict can be held against them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from conspec.encodings.query import Query
from tests import oracle, spaces

FLAT = spaces.spaces(2, depth=st.just(0))


@settings(max_examples=40, derandomize=True, deadline=None)
@given(spaces.queries(FLAT))
def test_z3_agrees_with_fractions_in_the_plane(query: Query) -> None:
    assert oracle.decide(query) is oracle.decide_in_plane(query)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(spaces.queries(spaces.spaces(1)))
def test_z3_agrees_with_fractions_on_the_line(query: Query) -> None:
    assert oracle.decide(query) is oracle.decide_on_segment(query, *oracle.ends(query))
