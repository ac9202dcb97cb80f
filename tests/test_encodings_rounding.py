"""Bounds in float64 are theorems: held against Fractions where float64 is at its worst."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conspec.encodings.bounds import hidden_bounds
from conspec.encodings.exact import from_array
from conspec.encodings.network import Network
from conspec.encodings.rounding import TINY, UNIT, Floats, gamma, row_bounds
from conspec.encodings.scores import ScoreSpace
from tests import oracle, spaces

hard = settings(max_examples=150, derandomize=True, deadline=None)
# Signs and sizes that cancel, overflow and underflow.
NUMBERS = st.one_of(
    st.sampled_from(
        [0.0, 1.0, -1.0, 0.1, -0.1, 1e16, -1e16, 1.0 + 2.0**-52, 1e-300, 5e-324, -5e-324]
    ),
    st.sampled_from([1e300, -1e300, 1e155, -1e155, 1e-155, 1e-162, -1e-162, TINY]),
    st.floats(-1e20, 1e20),
)


def exact_range(row: Floats, constant: float, lower: Floats, upper: Floats) -> list[Fraction]:
    """Least and greatest exact value of the row over the box."""
    low = high = Fraction(constant)
    for weight, bottom, top in zip(*(map(Fraction, a.tolist()) for a in (row, lower, upper)),
                                   strict=True):  # fmt: skip
        ends = (weight * bottom, weight * top)
        low, high = low + min(ends), high + max(ends)
    return [low, high]


def vectors(size: int) -> st.SearchStrategy[Floats]:
    return st.lists(NUMBERS, min_size=size, max_size=size).map(np.array)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Floats, float, Floats, Floats]:
    size = draw(st.integers(1, 6))
    row, one, two = (draw(vectors(size)) for _ in range(3))
    return row, draw(NUMBERS), np.minimum(one, two), np.maximum(one, two)


@hard
@given(problems())
def test_row_bounds_contain_the_exact_range(problem: tuple[Floats, float, Floats, Floats]) -> None:
    row, constant, lower, upper = problem
    exact = (np.zeros((1, len(row))), np.zeros(1))
    constants = np.array([constant])
    low, high = row_bounds(row[None], constants, exact, lower[None], upper[None])
    least, greatest = exact_range(row, constant, lower, upper)
    assert low[0, 0] == -np.inf or Fraction(low[0, 0]) <= least
    assert high[0, 0] == np.inf or Fraction(high[0, 0]) >= greatest


@pytest.mark.parametrize("seed", range(30))
def test_cancelling_sums_are_paid_for(seed: int) -> None:
    """Point boxes whose exact value is far below the rounding of the sum."""
    random = np.random.default_rng(seed)
    half = random.normal(size=6) * 10.0 ** random.integers(-3, 16, 6)
    row = np.concatenate([half, -half, [random.normal()]])[random.permutation(13)]
    point = np.ones(13) * (1.0 + 2.0**-40)
    exact = (np.zeros((1, 13)), np.zeros(1))
    low, high = row_bounds(row[None], np.zeros(1), exact, point[None], point[None])
    value, _ = exact_range(row, 0.0, point, point)
    assert Fraction(low[0, 0]) <= value <= Fraction(high[0, 0])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_products_that_vanish_are_paid_for(sign: float) -> None:
    row, point = np.full((1, 20), sign * 1.5e-162), np.full((1, 20), 1.5e-162)
    low, high = row_bounds(row, np.zeros(1), (np.zeros((1, 20)), np.zeros(1)), point, point)
    value = 20 * Fraction(row[0, 0]) * Fraction(point[0, 0])
    assert Fraction(low[0, 0]) <= value <= Fraction(high[0, 0])


@hard
@given(problems(), st.data())
def test_row_bounds_allow_for_the_error_of_the_rows(
    problem: tuple[Floats, float, Floats, Floats], data: st.DataObject
) -> None:
    row, constant, lower, upper = problem
    changes = data.draw(vectors(len(row)))
    errors = (np.abs(changes)[None], np.array([abs(constant)]))
    low, high = row_bounds(row[None], np.array([constant]), errors, lower[None], upper[None])
    for sign in (1, -1):
        true = [Fraction(a) + sign * Fraction(b) for a, b in zip(row, changes, strict=True)]
        value = Fraction(constant) * (1 + sign)
        ends = [
            sorted([w * Fraction(a), w * Fraction(b)])
            for w, a, b in zip(true, lower, upper, strict=True)
        ]
        assert low[0, 0] == -np.inf or Fraction(low[0, 0]) <= value + sum(e[0] for e in ends)
        assert high[0, 0] == np.inf or Fraction(high[0, 0]) >= value + sum(e[1] for e in ends)


@pytest.mark.parametrize("size", [10, 1000])
@pytest.mark.parametrize("scale", [1e-280, 1.0, 1e150])
def test_row_bounds_are_tight(size: int, scale: float) -> None:
    """Sound is not enough: always answering infinity would be sound."""
    random = np.random.default_rng(0)
    row, center = random.normal(size=size) * scale, random.normal(size=size)
    lower, upper = center - 0.1, center + 0.1
    exact = (np.zeros((1, size)), np.zeros(1))
    low, high = row_bounds(row[None], np.zeros(1), exact, lower[None], upper[None])
    least, greatest = exact_range(row, 0.0, lower, upper)
    reach = float(np.abs(row).sum())
    assert float(least) - low[0, 0] <= 1e-11 * reach
    assert high[0, 0] - float(greatest) <= 1e-11 * reach


def test_overflow_bounds_nothing_and_warns_of_nothing() -> None:
    row, box = np.array([[1e300, 1.0]]), np.array([[1e300, 1.0]])
    zero = (np.zeros((1, 2)), np.zeros(1))
    low, high = row_bounds(row, np.zeros(1), zero, -box, box)
    assert (low[0, 0], high[0, 0]) == (-np.inf, np.inf)


@pytest.mark.parametrize("length", [1, 2, 1000, 10**6])
def test_gamma_is_rounded_up(length: int) -> None:
    exact = length * Fraction(UNIT) / (1 - length * Fraction(UNIT))
    assert exact <= Fraction(gamma(length)) <= exact * (1 + Fraction(1, 10**9))


SIZES = spaces.SIZES.map(lambda value: float(np.float32(value)))


@settings(max_examples=80, derandomize=True, deadline=None)
@given(
    st.one_of(
        spaces.spaces(depth=st.integers(1, 2)),
        spaces.spaces(depth=st.integers(1, 2), weights=spaces.SINGLE),
        spaces.spaces(depth=st.integers(1, 2), weights=SIZES),
    ),
    st.data(),
)
def test_hidden_bounds_contain_every_neuron(space: ScoreSpace, data: st.DataObject) -> None:
    region = data.draw(spaces.boxes(space.dimension))
    bounds = hidden_bounds(space.head, region)
    for share in (0, 1, Fraction(1, 3)):
        pairs = zip(region.lower.fractions(), region.upper.fractions(), strict=True)
        point = [low + share * (high - low) for low, high in pairs]
        for bound, values in zip(bounds, oracle.hidden(space, point), strict=False):
            for low, value, high in zip(bound.lower, values, bound.upper, strict=True):
                assert low == -np.inf or Fraction(low) <= value
                assert high == np.inf or Fraction(high) >= value


def test_hidden_bounds_know_weights_that_no_float_holds() -> None:
    """A third, rounded down, would lose the neuron's sign."""
    third = spaces.affine([[1.0]], [0.0])
    weight = np.array([[Fraction(1, 3)]], dtype=object)
    layer = type(third)(weight, np.array([-Fraction(1, 3)], dtype=object))
    network = Network((layer, third))
    (bound,) = hidden_bounds(network, spaces.box_of([1], [1]))
    assert bound.lower[0] < 0 < bound.upper[0]


def test_a_relu_cuts_the_bounds_of_the_next_layer() -> None:
    one = spaces.affine([[1.0]], [0.0])
    *_, last = hidden_bounds(Network((one, one, one)), spaces.box_of([-1], [2]))
    assert last.lower[0] == pytest.approx(0.0, abs=1e-12)
    assert last.upper[0] == pytest.approx(2.0)


def test_exact_values_survive_the_way_through_floats() -> None:
    assert from_array(np.array([5e-324])).fractions() == [Fraction(1, 2**1074)]
