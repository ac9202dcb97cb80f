"""The search for counterexamples: what it finds is one, and it finds what is easy to climb to."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conspec.encodings.exact import vector
from conspec.encodings.images import Image, Shape
from conspec.encodings.query import Query
from conspec.verifier import Proved, Unknown, Violated, verify
from conspec.verifier.falsify import Falsifier
from tests import oracle, spaces

modest = settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)


def search(query: Query) -> object:
    return Falsifier(query.space, query.region).decide(query, query.constrained, 20.0)


@modest
@given(
    st.one_of(
        spaces.contested(spaces.spaces(depth=st.integers(1, 3))),
        spaces.queries(spaces.spaces(depth=st.integers(1, 2), weights=spaces.SIZES)),
    )
)
def test_what_it_finds_is_a_counterexample(query: Query) -> None:
    found = search(query)
    assert isinstance(found, (Violated, Unknown))
    if isinstance(found, Violated):
        assert oracle.refuted(query, found.witness)
        assert not oracle.decide(query)


def ridge(size: int) -> Query:
    """``Σ relu(zᵢ − 0.2)`` is below almost its maximum: violated near one corner of 2^size only."""
    eye = np.eye(size).tolist()
    bias = [-0.2] * size
    head = ((eye, bias), ([[1.0] * size], [0.0]))
    scores = spaces.space((eye[:1], [0.0]), *head)
    limit = Fraction(8 * size, 10) - Fraction(1, 100)
    return spaces.query(scores, f"logit(x) < {float(limit)}", spaces.box_of([0] * size, [1] * size))


def test_it_climbs_to_a_corner_that_chance_does_not_hit() -> None:
    query = ridge(40)
    found = search(query)
    assert isinstance(found, Violated)
    assert found.witness.margin > 0


def test_it_is_deterministic() -> None:
    one, two = search(ridge(12)), search(ridge(12))
    assert isinstance(one, Violated)
    assert isinstance(two, Violated)
    assert one.witness.point == two.witness.point


@pytest.mark.parametrize("shape", list(Shape))
def test_it_searches_every_kind_of_region(shape: Shape) -> None:
    generators = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]])
    region = Image(vector([0, 0]), generators, Fraction(1), shape)
    scores = spaces.space(
        ([[1.0, 0.0]], [0.0]), ([[1.0, 1.0], [1.0, -1.0]], [0.0, 0.0]), ([[1.0, -1.0]], [0.0])
    )
    query = spaces.query(scores, "logit(x) < 0.9", region)
    found = search(query)
    assert isinstance(found, Violated)
    assert query.margin(found.witness.point)[0]


def test_a_conjunction_needs_all_of_its_literals() -> None:
    """Two logits that pull apart: both are large only near the middle of one side."""
    head = (([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], [1.0, 1.0, 0.0]),)
    last = ([[1.0, 0.0, 0.3], [0.0, 1.0, 0.3]], [0.0, 0.0])
    scores = spaces.space(([[1.0, 0.0]], [0.0]), *head, last)
    query = spaces.query(
        scores, "not (logit(x) > 1.2 and logit(y) > 1.2)", spaces.box_of([-1, -1], [1, 1])
    )
    assert isinstance(search(query), Violated)


def test_nothing_is_concluded_from_failure() -> None:
    query = spaces.query(ridge(3).space, "logit(x) < 2.5", ridge(3).region)
    assert isinstance(search(query), Unknown)
    assert isinstance(verify(query), Proved)


def test_another_region_is_refused() -> None:
    query = ridge(2)
    other = spaces.box_of([0, 0], [1, 1])
    with pytest.raises(ValueError, match="its own region"):
        Falsifier(query.space, other).decide(query, query.violation, 1.0)
