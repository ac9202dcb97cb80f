"""Boxes against brute force: support, corners, membership; exact at the border."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conspec.encodings.exact import Vector, from_array, vector
from conspec.encodings.regions import Box, box, scaled_box
from conspec.specs.errors import BadRegion
from tests import spaces
from tests.spaces import box_of

modest = settings(max_examples=60, derandomize=True, deadline=None)
# Numbers whose nearest float64 lies below, above, or nowhere near.
ODD = st.sampled_from(
    [Fraction(v) for v in ("0", "0.1", "0.3", "1/3", "-2/3", "1", "1e-320", "1e-400", "1e17")]
    + [Fraction(0.1), Fraction(1) / 2**1074]
)


@st.composite
def odd_boxes(draw: st.DrawFn, dimension: int = 2) -> Box:
    lower = [draw(ODD) for _ in range(dimension)]
    widths = [abs(draw(ODD)) for _ in range(dimension)]
    return box_of(lower, [low + width for low, width in zip(lower, widths, strict=True)])


def corners(region: Box) -> list[Vector]:
    pairs = zip(region.lower.fractions(), region.upper.fractions(), strict=True)
    return [vector(point) for point in product(*pairs)]


def inside(region: Box, point: Vector) -> bool:
    bounds = zip(region.lower.fractions(), point.fractions(), region.upper.fractions(), strict=True)
    return all(low <= value <= high for low, value, high in bounds)


@modest
@given(odd_boxes(), st.lists(ODD, min_size=2, max_size=2), st.booleans())
def test_support_is_the_best_corner(region: Box, row: list[Fraction], flip: bool) -> None:
    direction = vector([-value if flip else value for value in row])
    values = [direction.dot(corner) for corner in corners(region)]
    assert (region.lowest(direction), region.support(direction)) == (min(values), max(values))


@modest
@given(odd_boxes())
def test_parameters_of_plus_and_minus_one_are_the_corners(region: Box) -> None:
    ends = (region.lower.fractions(), region.upper.fractions())
    for signs in product([False, True], repeat=2):
        corner = region.at(region.into(np.where(signs, 1.0, -1.0)))
        assert corner.fractions() == [ends[up][i] for i, up in enumerate(signs)]
        assert region.contains(corner)


@modest
@given(odd_boxes(), st.lists(ODD, min_size=2, max_size=2), st.booleans())
def test_the_maximiser_attains_the_support(region: Box, row: list[Fraction], flip: bool) -> None:
    direction = vector([-value if flip else value for value in row])
    signs = region.maximisers(np.sign([float(v > 0) - float(v < 0) for v in direction.fractions()]))
    point = region.at(region.into(signs))
    assert direction.dot(point) == region.support(direction)


@modest
@given(odd_boxes(), st.lists(st.floats(-2, 2), min_size=2, max_size=2), ODD)
def test_every_parameter_gives_a_point_of_the_region(
    region: Box, parameters: list[float], constant: Fraction
) -> None:
    exact = region.into(np.array(parameters))
    point = region.at(exact)
    assert region.contains(point)
    row = vector([Fraction(3), Fraction(-1, 7)])
    pulled, rest = region.pull(row, constant)
    assert pulled.dot(exact) + rest == row.dot(point) + constant


@modest
@given(odd_boxes(), st.data())
def test_membership_is_exact_at_the_border(region: Box, data: st.DataObject) -> None:
    """Floats at the bounds and one step to both sides, in float64 and float32."""
    near = np.concatenate([region.lower.floats(), region.upper.floats()])
    steps = [near, np.nextafter(near, np.inf), np.nextafter(near, -np.inf)]
    pool = np.concatenate([*steps, near.astype(np.float32).astype(np.float64), [0.0, 0.5]])
    picks = data.draw(st.lists(st.sampled_from(pool.tolist()), min_size=2 * 6, max_size=2 * 6))
    points = np.array(picks).reshape(6, 2)
    for cast in (points, points.astype(np.float32)):
        expected = [inside(region, from_array(point)) for point in cast]
        assert region.members(cast).tolist() == expected
        assert [region.contains(from_array(point)) for point in cast] == expected


@modest
@given(odd_boxes())
def test_the_float_bounds_contain_the_box(region: Box) -> None:
    lower, upper = region.outer
    for low, bound in zip(lower, region.lower.fractions(), strict=True):
        assert Fraction(low) <= bound <= Fraction(np.nextafter(np.nextafter(low, 1e99), 1e99))
    for high, bound in zip(upper, region.upper.fractions(), strict=True):
        assert Fraction(high) >= bound >= Fraction(np.nextafter(np.nextafter(high, -1e99), -1e99))


def test_members_counts_both_ends() -> None:
    points = np.array([[0.0], [1.0], [np.nextafter(1.0, 2.0)], [np.nextafter(0.0, -1.0)], [0.5]])
    expected = [True, True, False, False, True]
    assert box_of([0], [1]).members(points).tolist() == expected


@pytest.mark.parametrize(("bound", "member"), [("0.1", False), (Fraction(0.1), True)])
def test_the_nearest_float_of_a_decimal_is_another_number(
    bound: str | Fraction, member: bool
) -> None:
    assert box_of([0], [bound]).members(np.array([[0.1]])).tolist() == [member]


@modest
@given(odd_boxes(), odd_boxes(), st.lists(ODD, min_size=2, max_size=2))
def test_an_intersection_holds_what_both_hold(
    first: Box, second: Box, point: list[Fraction]
) -> None:
    both = first.intersected(second)
    where = vector(point)
    assert both.contains(where) == (first.contains(where) and second.contains(where))
    lower, upper = both.lower.fractions(), both.upper.fractions()
    assert both.is_empty == any(low > high for low, high in zip(lower, upper, strict=True))


@pytest.mark.parametrize("gap", ["1e-12", "1e-400", "1"])
def test_emptiness_is_exact(gap: str) -> None:
    assert box_of([0, Fraction(gap)], [1, 0]).is_empty
    assert not box_of([0, -Fraction(gap)], [1, 0]).is_empty
    assert not box_of([0], [0]).is_empty


@modest
@given(odd_boxes())
def test_samples_lie_inside_up_to_rounding(region: Box) -> None:
    lower, upper = region.lower.floats(), region.upper.floats()
    points = region.sample(20, 0)
    room = 1e-12 * (1 + np.abs(lower) + np.abs(upper))
    assert np.all(points >= lower - room)
    assert np.all(points <= upper + room)
    np.testing.assert_array_equal(points, region.sample(20, 0))


@pytest.mark.parametrize(("gamma", "low", "high"), [("1/3", "0", "8/15"), ("0.1", "0.13", "0.27")])
def test_scaled_boxes_are_exact_in_gamma_and_cut_at_zero(gamma: str, low: str, high: str) -> None:
    center, radius = vector([Fraction("0.2")]), vector([Fraction(1)])
    if gamma == "0.1":
        radius = vector([Fraction("0.7")])
    found = scaled_box(center, radius, Fraction(gamma), nonnegative=True)
    assert found.lower.fractions() == [Fraction(low)]
    assert found.upper.fractions() == [Fraction(high)]
    free = scaled_box(center, radius, Fraction(gamma), nonnegative=False)
    assert free.lower.fractions() == [center.fractions()[0] * 2 - Fraction(high)]


def test_bounds_of_different_lengths_are_refused() -> None:
    with pytest.raises(BadRegion, match="1 lower and 2 upper"):
        box(vector([Fraction(0)]), vector([Fraction(1), Fraction(2)]))
    with pytest.raises(BadRegion, match="common denominator"):
        Box(Vector((0,), 1), Vector((1,), 2))


@modest
@given(st.lists(ODD, min_size=3, max_size=3), st.lists(ODD, min_size=3, max_size=3), ODD)
def test_vectors_compute_exactly(one: list[Fraction], two: list[Fraction], by: Fraction) -> None:
    first, second = vector(one), vector(two)
    assert first.fractions() == one
    assert first.dot(second) == sum((a * b for a, b in zip(one, two, strict=True)), Fraction(0))
    assert first.plus(second).fractions() == [a + b for a, b in zip(one, two, strict=True)]
    assert first.scaled(by).fractions() == [value * by for value in one]
    assert first.scaled(-by).fractions() == [-value * by for value in one]
    assert first.over(first.denominator * 6).fractions() == one
    assert first.floats().tolist() == [float(value) for value in one]


@modest
@given(spaces.boxes(2))
def test_drawn_boxes_are_never_empty(region: Box) -> None:
    assert not region.is_empty
