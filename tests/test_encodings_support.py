"""Batched support functions in torch against the exact ones, with their error bounds."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conspec.encodings.exact import from_array, vector
from conspec.encodings.images import Image, Shape
from conspec.encodings.regions import Box, ConvexRegion
from conspec.encodings.support import support
from conspec.specs.errors import BadUsage
from tests.spaces import box_of

modest = settings(max_examples=100, derandomize=True, deadline=None)
# Sizes at which products overflow or vanish, in float32 or in float64.
SIZES = st.sampled_from([0.0, 0.0, 1.0, -1.0, 0.1, -3.7, 1e-30, 1e30, 1e-45, -1e38, 1e-170])
PLAIN = st.floats(-4.0, 4.0)
SCALES = st.sampled_from([Fraction(v) for v in ("0", "1", "1/3", "0.1", "1e-30", "1e30", "1e-400")])
TYPES = st.sampled_from([torch.float32, torch.float64])


@st.composite
def regions(draw: st.DrawFn, size: int) -> ConvexRegion:
    entries = draw(st.sampled_from([SIZES, PLAIN]))
    center = [Fraction(draw(entries)) for _ in range(size)]
    if draw(st.booleans()):
        widths = [abs(Fraction(draw(entries))) for _ in range(size)]
        return box_of(center, [low + width for low, width in zip(center, widths, strict=True)])
    count = draw(st.integers(1, 5))
    generators = np.array([[draw(entries) for _ in range(count)] for _ in range(size)])
    return Image(vector(center), generators, draw(SCALES), draw(st.sampled_from(Shape)))


@modest
@given(st.data(), TYPES)
def test_the_error_bound_covers_the_exact_support(data: st.DataObject, kind: torch.dtype) -> None:
    size = data.draw(st.integers(1, 4))
    region = data.draw(regions(size))
    entries = data.draw(st.sampled_from([SIZES, PLAIN]))
    drawn = [[data.draw(entries) for _ in range(size)] for _ in range(3)]
    rows = torch.tensor(drawn, dtype=torch.float64).clamp(-3e38, 3e38).to(kind)
    found = support(region, rows)
    assert found.values.dtype == found.errors.dtype == found.points.dtype == kind
    for row, value, error in zip(rows.double().numpy(), found.values, found.errors, strict=True):
        if torch.isinf(error):
            continue
        exact = region.support(from_array(row))
        # The exact support of a ball is rounded up, by 2**-64 of itself.
        room = abs(exact) / 2**60 + Fraction(1, 2**1000)
        assert abs(Fraction(value.item()) - exact) <= Fraction(error.item()) + room


def wide(shape: Shape | None, seed: int = 0) -> ConvexRegion:
    chance = np.random.default_rng(seed)
    middle = vector(Fraction(int(v), 8) for v in chance.integers(-9, 9, 60))
    if shape is None:
        low = middle.fractions()
        return box_of(low, [value + Fraction(1, 3) for value in low])
    count = 60 if shape is Shape.BALL else 70
    return Image(middle, chance.normal(size=(60, count)), Fraction(3, 10), shape)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [None, *Shape])
def test_bounds_are_tight_and_maximisers_attain_them(
    shape: Shape | None, kind: torch.dtype
) -> None:
    region = wide(shape)
    rows = torch.tensor(np.random.default_rng(1).normal(size=(9, 60)), dtype=kind)
    found = support(region, rows)
    share = 1e-3 if kind is torch.float32 else 1e-11
    assert (found.errors <= share * (1 + found.values.abs())).all()
    assert found.parameters.shape == (9, region.parameters)
    for row, parameters, point, value in zip(
        rows.double().numpy(),
        found.parameters.double().numpy(),
        found.points.double().numpy(),
        found.values.tolist(),
        strict=True,
    ):
        exact = region.at(region.into(parameters))  # in the region, exactly
        reached = float(from_array(row).dot(exact))
        assert reached == pytest.approx(value, rel=share, abs=share)
        np.testing.assert_allclose(point, exact.floats(), rtol=share, atol=share)
        assert region.contains(exact)


@pytest.mark.parametrize("shape", [None, *Shape])
def test_a_negative_row_gives_the_minimum(shape: Shape | None) -> None:
    region = wide(shape, seed=2)
    rows = torch.tensor(np.random.default_rng(3).normal(size=(4, 60)))
    found = support(region, -rows)
    for row, value, error in zip(rows.numpy(), found.values, found.errors, strict=True):
        gap = abs(Fraction(-value.item()) - region.lowest(from_array(row)))
        assert gap <= Fraction(error.item()) * (1 + Fraction(1, 10**6))


def one(generator: float, scale: str, shape: Shape = Shape.SIMPLEX) -> Image:
    """A region along one coordinate, with centre 0."""
    return Image(vector([Fraction(0)]), np.array([[generator]]), Fraction(scale), shape)


@pytest.mark.parametrize(
    ("region", "row"),
    [
        (one(1e-30, "1e30"), 1e-30),  # the product vanishes before it is scaled
        (one(1e30, "1e-60"), 1e5),  # the scale vanishes
        (one(1e-60, "1e30"), 1e20),  # the generator vanishes
        (one(1e-60, "1e30", Shape.BALL), 1e20),
        (one(1e-60, "1e30", Shape.CUBE), 1e20),
        (box_of(["-1e-60"], ["1e-60"]), 1e30),
        (one(0.0, "0").scaled(Fraction(0)), 1.0),
    ],
)
def test_what_vanishes_in_float32_is_paid_for(region: ConvexRegion, row: float) -> None:
    rows = torch.tensor([[row]], dtype=torch.float32)
    found = support(region, rows)
    exact = region.support(from_array(rows[0].double().numpy()))
    assert abs(Fraction(found.values.item()) - exact) <= Fraction(found.errors.item())


@pytest.mark.parametrize("shape", [None, *Shape])
def test_rounding_is_paid_for_where_terms_cancel(shape: Shape | None) -> None:
    """Rows nearly orthogonal to all generators and to the centre: what is left is rounding."""
    chance = np.random.default_rng(5)
    middle = chance.normal(size=40)
    generators = chance.normal(size=(40, 3))
    region: ConvexRegion = Image(from_array(middle), generators, Fraction(1), shape or Shape.CUBE)
    if shape is None:
        bounds = from_array(middle)
        region = box_of(bounds.fractions(), bounds.fractions())
    plane = np.linalg.qr(np.column_stack([middle, generators]))[0]
    drawn = chance.normal(size=(50, 40))
    rows = torch.tensor(drawn - drawn @ plane @ plane.T, dtype=torch.float32)
    found = support(region, rows)
    missed = 0
    for row, value, error in zip(rows.double().numpy(), found.values, found.errors, strict=True):
        gap = abs(Fraction(value.item()) - region.support(from_array(row)))
        assert gap <= Fraction(error.item())
        missed += gap > abs(Fraction(value.item())) / 2**10
    assert missed  # so it was rounding


def test_a_row_of_zeros_has_the_support_zero() -> None:
    for shape in (None, *Shape):
        found = support(wide(shape), torch.zeros(2, 60))
        assert found.values.tolist() == [0.0, 0.0]
        assert (found.errors < 1e-30).all()
        assert torch.isfinite(found.parameters).all()


def test_overflow_says_that_nothing_is_known() -> None:
    found = support(box_of([-1, 0], [10**30, 1]), torch.full((1, 2), 1e30))
    assert torch.isinf(found.errors).all()
    opposed = np.array([[1e30], [-1e30]])  # inf − inf
    for shape in Shape:
        region = Image(vector([Fraction(0)] * 2), opposed, Fraction(1), shape)
        assert torch.isinf(support(region, torch.full((1, 2), 1e30)).errors).all()


def test_no_rows_give_no_values() -> None:
    for shape in (None, *Shape):
        assert support(wide(shape), torch.zeros(0, 60)).values.shape == (0,)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.zeros(1, 60, dtype=torch.float16), "float32 or float64"),
        (torch.zeros(1, 59), r"shape \(1, 59\) for 60 dimensions"),
        (torch.zeros(60), r"shape \(60,\) for 60 dimensions"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows: torch.Tensor, message: str) -> None:
    region = wide(None)
    assert isinstance(region, Box)
    with pytest.raises(BadUsage, match=message):
        support(region, rows)
