"""Exact membership in images of cubes, balls and simplices, against z3 and by construction."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import z3
from hypothesis import given, settings
from hypothesis import strategies as st

from conspec.encodings import membership
from conspec.encodings.exact import Vector, combination, vector
from conspec.encodings.images import Image, Shape, in_shape
from conspec.encodings.regions import Box, ConvexRegion
from conspec.encodings.rounding import Floats
from conspec.encodings.tableau import Bounds, Conflict, Feasible, solve_within
from conspec.specs.errors import BadRegion
from tests.spaces import box_of

modest = settings(max_examples=80, derandomize=True, deadline=None)
ENTRIES = st.sampled_from([0.0, 0.0, 1.0, -1.0, 0.5, 3.0, 0.1, 1e-9])
SCALES = st.sampled_from([Fraction(v) for v in ("0", "1", "1/3", "0.1", "1e-30", "1e30")])
SHARES = st.sampled_from([Fraction(v) for v in ("0", "1", "-1", "1/3", "-0.2", "3/5", "4/5")])
SLIGHT = st.sampled_from([Fraction(v) for v in ("0", "0", "1e-40", "-1e-40", "1e-9", "-1e-9", "1")])


@st.composite
def images(draw: st.DrawFn, shape: Shape) -> Image:
    """Small regions with zero, repeated and dependent generators, flat sets among them."""
    size, count = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    generators = np.array([[draw(ENTRIES) for _ in range(count)] for _ in range(size)])
    if count > 1 and draw(st.integers(0, 3)) == 0:
        generators[:, 1] = generators[:, 0]
    center = vector(draw(SHARES) for _ in range(size))
    return Image(
        center, generators * draw(st.sampled_from([1.0, 1e-30, 1e30])), draw(SCALES), shape
    )


@st.composite
def candidates(draw: st.DrawFn, shape: Shape) -> tuple[Image, Vector]:
    """A region and a point on its border or next to it."""
    image = draw(images(shape))
    shares = [draw(SHARES) for _ in range(image.parameters)]
    if shape is Shape.SIMPLEX:
        shares = [abs(share) for share in shares]
        total = sum(shares) or Fraction(1)
        shares = [share / total for share in shares]
    point = image.at(vector(shares))
    away = image.at(vector([draw(SHARES) for _ in range(image.parameters)]))
    slight = draw(SLIGHT)
    return image, combination([(1 + slight, point), (-slight, away)])


def by_z3(image: Image, point: Vector) -> bool:
    """The definition, given to z3: some t of T reproduces the point."""
    solver = z3.Solver()
    t = [z3.Real(f"t{j}") for j in range(image.parameters)]
    match image.shape:
        case Shape.CUBE:
            solver.add(z3.And([z3.And(x >= -1, x <= 1) for x in t]))
        case Shape.SIMPLEX:
            solver.add(z3.And([x >= 0 for x in t]), z3.Sum(t) == 1)
        case Shape.BALL:
            solver.add(z3.Sum([x * x for x in t]) <= 1)

    def number(value: Fraction) -> Any:
        return z3.Q(value.numerator, value.denominator)

    triples = zip(image.center.fractions(), image.generators, point.fractions(), strict=True)
    for middle, row, value in triples:
        terms = [
            number(Fraction(g) * image.scale) * x for g, x in zip(row.tolist(), t, strict=True)
        ]
        solver.add(number(middle) + z3.Sum(terms) == number(value))
    answer = solver.check()
    assert answer != z3.unknown
    return bool(answer == z3.sat)


@modest
@given(st.one_of(candidates(Shape.CUBE), candidates(Shape.SIMPLEX), candidates(Shape.BALL)))
def test_membership_is_what_z3_says(drawn: tuple[Image, Vector]) -> None:
    image, point = drawn
    assert image.contains(point) == by_z3(image, point)


@modest
@given(st.one_of(candidates(Shape.CUBE), candidates(Shape.SIMPLEX), candidates(Shape.BALL)))
def test_elimination_alone_gives_the_same_answers(drawn: tuple[Image, Vector]) -> None:
    """Without the cheaper arguments before it, which would leave it little to do."""
    image, point = drawn
    if not image.scale:
        return
    offset = point.plus(image.center.scaled(-1)).scaled(1 / image.scale)
    system = membership._System(image, offset)
    if image.shape is Shape.BALL:
        found = membership._ball_by_elimination(system)
    else:
        nothing = np.zeros(0, dtype=np.intp)
        base = Vector((1,) + (0,) * (image.parameters - 1))
        guess = membership._Program(np.zeros(0), base, nothing)
        found = membership._by_elimination(system, guess)
    assert found == by_z3(image, point)


def random_image(shape: Shape, size: int, count: int, seed: int) -> tuple[Image, Floats]:
    chance = np.random.default_rng(seed)
    generators = chance.normal(size=(size, count)) * 10.0 ** chance.uniform(-6, 2, count)
    center = vector(Fraction(int(v), 7) for v in chance.integers(-9, 9, size))
    return Image(center, generators, Fraction(1, 3), shape), chance.normal(size=(1, count))


CASES = [(24, 24), (24, 32), (24, 10)]


@pytest.mark.parametrize(("size", "count"), CASES)
@pytest.mark.parametrize("shape", [Shape.CUBE, Shape.SIMPLEX])
@pytest.mark.parametrize("gap", ["1e-6", "1e-15", "1e-60"])
def test_just_inside_and_just_outside_a_vertex(
    shape: Shape, size: int, count: int, gap: str
) -> None:
    image, row = random_image(shape, size, count, seed=size + count)
    vertex = image.at(image.into(image.maximisers(row @ np.diag(np.ones(count)))[0]))
    middle = image.at(image.into(np.full(count, 1.0 if shape is Shape.SIMPLEX else 0.0)))
    assert image.contains(vertex)
    step = Fraction(gap)
    assert image.contains(combination([(1 - step, vertex), (step, middle)]))
    assert not image.contains(combination([(1 + step, vertex), (-step, middle)]))


@pytest.mark.parametrize(("size", "count"), [(24, 24), (24, 10)])
@pytest.mark.parametrize("gap", ["1e-6", "1e-15", "1e-60"])
def test_just_inside_and_just_outside_an_ellipsoid(size: int, count: int, gap: str) -> None:
    image, _ = random_image(Shape.BALL, size, count, seed=size)
    five = image.at(vector([Fraction(3, 5), Fraction(-4, 5)] + [Fraction(0)] * (count - 2)))
    step = Fraction(gap)
    assert image.contains(five)
    assert image.contains(combination([(1 - step, five), (step, image.center)]))
    assert not image.contains(combination([(1 + step, five), (-step, image.center)]))


@pytest.mark.parametrize("shape", [Shape.CUBE, Shape.BALL, Shape.SIMPLEX])
def test_a_point_off_a_flat_set_is_outside_however_near(shape: Shape) -> None:
    image, _ = random_image(shape, 12, 5, seed=3)
    inside = image.at(image.into(np.full(5, 0.1)))
    assert image.contains(inside)
    off = Vector((0,) * 11 + (1,)).scaled(Fraction(1, 10**50))
    assert not image.contains(inside.plus(off))


@pytest.mark.parametrize("size", ["1e-30", "1", "1e30"])
def test_a_euclidean_ball_by_squares(size: str) -> None:
    """A radius that is attained exactly, and one part in 10**40 more."""
    radius, count = Fraction(size), 300
    center = vector([Fraction(1, 3)] * count)
    ball = Image(center, np.eye(count), radius, Shape.BALL)
    step = vector([3 * radius / 5, 4 * radius / 5] + [Fraction(0)] * (count - 2))
    assert ball.contains(center.plus(step))
    assert not ball.contains(center.plus(step.scaled(1 + Fraction(1, 10**40))))


@pytest.mark.parametrize("shape", Shape)
def test_a_region_of_scale_zero_is_its_centre(shape: Shape) -> None:
    image = random_image(shape, 3, 3, seed=0)[0].scaled(Fraction(0))
    assert image.contains(image.center)
    assert not image.contains(
        image.center.plus(vector([Fraction(0), Fraction(1, 10**99), Fraction(0)]))
    )


def test_what_is_too_large_for_exact_arithmetic_is_not_guessed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Repeated generators leave an ellipsoid to elimination; here with no work allowed."""
    monkeypatch.setattr(membership, "MOST_WORK", 0)
    image = Image(
        vector([Fraction(0)] * 2), np.array([[1.0, 1.0], [2.0, 2.0]]), Fraction(1), Shape.BALL
    )
    with pytest.raises(membership.Undecided, match="too near to the border"):
        image.contains(vector([Fraction(1), Fraction(2)]))


def test_an_elimination_that_takes_too_long_is_given_up() -> None:
    bounds = [Bounds(Fraction(0), Fraction(1))] * 2
    goal = [Fraction(3, 2)]
    found = solve_within([[1, 1]], goal, bounds, [False, False], (), 10)
    assert isinstance(found, Feasible)
    assert sum(found.values) == goal[0]
    assert solve_within([[1, 1]], goal, bounds, [False, False], (), 1) is None
    beyond = solve_within([[1, 1]], [Fraction(5, 2)], bounds, [False, False], (), 10)
    assert isinstance(beyond, Conflict)
    assert beyond.direction[0] > 0


REGIONS: list[ConvexRegion] = [
    box_of(["-1", "0.1", "0"], ["1", "0.2", "0"]),
    *(random_image(shape, 6, count, seed=1)[0] for shape in Shape for count in (4, 6, 9)),
]


@pytest.mark.parametrize("region", REGIONS)
def test_samples_lie_inside_up_to_rounding(region: ConvexRegion) -> None:
    """A sample is within rounding of the point of the same parameters, which is inside."""
    points = region.sample(20, seed=4)
    np.testing.assert_array_equal(points, region.sample(20, seed=4))
    lower, upper = region.outer
    room = 1e-13 * (1 + np.abs(lower) + np.abs(upper))
    assert np.all((points >= lower - room) & (points <= upper + room))
    for point in points:
        row = point - region.center.floats()
        exact = region.support(vector(Fraction(v) for v in row))
        assert float(row @ point) <= float(exact) + 1e-12 * (1 + float(row @ row))
    if isinstance(region, Image) and region.shape is Shape.CUBE:
        chance = np.random.default_rng(4)
        drawn = region.into(chance.uniform(-1, 1, (20, region.parameters))[0])
        assert in_shape(region.shape, drawn)
        assert region.contains(region.at(drawn))
        np.testing.assert_allclose(region.at(drawn).floats(), points[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("region", REGIONS)
def test_scaling_is_about_the_centre_and_exact(region: ConvexRegion) -> None:
    row = vector([Fraction(1, 3)] * region.dimension)
    middle = row.dot(region.center)
    half = region.scaled(Fraction(1, 2))
    assert half.center.fractions() == region.center.fractions()
    if not (isinstance(region, Image) and region.shape is Shape.BALL):  # whose roots are rounded
        assert half.support(row) - middle == (region.support(row) - middle) / 2
    assert region.scaled(Fraction(0)).contains(region.center)
    assert isinstance(half, type(region))
    with pytest.raises(BadRegion, match="must not be negative"):
        region.scaled(Fraction(-1))


def test_boxes_and_diagonal_cubes_agree() -> None:
    box = box_of(["-1", "-2"], ["1", "2"])
    image = Image(box.center, np.diag([1.0, 2.0]), Fraction(1), Shape.CUBE)
    assert isinstance(box, Box)
    for x in ("-1", "0", "1", "1.0000000000000000000001"):
        for y in ("-2", "2", "2.0000000000000000000001"):
            point = vector([Fraction(x), Fraction(y)])
            assert image.contains(point) == box.contains(point)
