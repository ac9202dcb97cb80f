"""Regions as linear constraints: exact ones, and balls between two polyhedra."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import z3
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from conspec.encodings.constraints import (
    Equation,
    Inequality,
    LinearConstraints,
    Side,
    linear_constraints,
    tangent,
)
from conspec.encodings.exact import Vector, vector
from conspec.encodings.images import Image, Shape, in_shape
from conspec.encodings.regions import ConvexRegion
from conspec.encodings.rounding import Floats
from tests import spaces

modest = settings(max_examples=40, derandomize=True, deadline=None)
NUMBERS = st.sampled_from([Fraction(v) for v in ("0", "1", "-1", "1/3", "-0.2", "3", "1e-9")])
ENTRIES = st.sampled_from([0.0, 1.0, -1.0, 0.5, 3.0, 0.1])
SIZES = st.sampled_from([Fraction(v) for v in ("0", "1", "1/3", "1e-30", "1e30")])


@st.composite
def images(draw: st.DrawFn, *shapes: Shape) -> Image:
    size, count = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    generators = np.array([[draw(ENTRIES) for _ in range(count)] for _ in range(size)])
    center = vector(draw(NUMBERS) for _ in range(size))
    return Image(center, generators, draw(SIZES), draw(st.sampled_from(shapes)))


def rows_for(data: st.DataObject, region: ConvexRegion, count: int) -> list[Vector]:
    size = region.dimension
    return [vector([data.draw(NUMBERS) for _ in range(size)]) for _ in range(count)]


def reaches(
    found: LinearConstraints, row: Vector, value: Fraction, *, strict: bool = False
) -> bool:
    """Whether ``row · z`` gets to a value (or above it) within the constraints, by z3."""

    def number(value: Fraction) -> Any:
        return z3.Q(value.numerator, value.denominator)

    def linear(factors: Vector) -> Any:
        return z3.Sum([number(a) * x for a, x in zip(factors.fractions(), t, strict=True)])

    t = [z3.Real(f"t{j}") for j in range(found.parameters)]
    solver = z3.SolverFor("QF_LRA")
    for low, x, high in zip(found.lower.fractions(), t, found.upper.fractions(), strict=True):
        solver.add(x >= number(low), x <= number(high))
    for part in found.inequalities:
        solver.add(linear(part.row) <= number(part.bound))
    for equation in found.equations:
        solver.add(linear(equation.row) == number(equation.value))
    pulled, constant = found.pull(row, Fraction(0))
    goal = number(value - constant)
    solver.add(linear(pulled) > goal if strict else linear(pulled) >= goal)
    answer = solver.check()
    assert answer != z3.unknown
    return bool(answer == z3.sat)


@modest
@given(st.one_of(spaces.boxes(2), images(Shape.CUBE, Shape.SIMPLEX)), st.data())
def test_polyhedra_have_the_regions_own_support(region: ConvexRegion, data: st.DataObject) -> None:
    found = linear_constraints(region)
    assert found.is_exact
    (row,) = rows_for(data, region, 1)
    assert reaches(found, row, region.support(row))
    assert not reaches(found, row, region.support(row), strict=True)


@modest
@given(images(Shape.BALL), st.data())
def test_a_ball_lies_between_its_two_descriptions(region: Image, data: st.DataObject) -> None:
    rows = rows_for(data, region, 2)
    outer = linear_constraints(region, Side.OUTER, rows)
    inner = linear_constraints(region, Side.INNER, rows)
    assert not outer.is_exact
    assert not inner.is_exact
    (other,) = rows_for(data, region, 1)
    for row in (*rows, other):
        middle = row.dot(region.center)
        reach = region.support(row) - middle
        # The support of a ball is rounded up in its 64th bit where it is an ugly root.
        assert reaches(outer, row, middle + reach * (1 - Fraction(1, 2**60)))
        assert not reaches(inner, row, middle + reach, strict=True)
    for row in rows:
        middle = row.dot(region.center)
        reach = region.support(row) - middle
        assert not reaches(outer, row, middle + reach * (1 + Fraction(1, 2**17)), strict=True)
        assert reaches(inner, row, middle + reach * (1 - Fraction(1, 2**17)))


@modest
@given(images(Shape.BALL), st.data(), st.integers(0, 99))
def test_every_point_of_the_ball_satisfies_the_outer_description(
    region: Image, data: st.DataObject, seed: int
) -> None:
    outer = linear_constraints(region, Side.OUTER, rows_for(data, region, 3))
    directions = np.random.default_rng(seed).normal(size=(10, region.parameters))
    for direction in directions:
        inside = region.into(direction / np.linalg.norm(direction))
        assert outer.admits(inside)
        assert outer.at(inside).fractions() == region.at(inside).fractions()
    for part in outer.inequalities:  # the point of the ball that reaches farthest
        assert part.bound**2 >= part.row.dot(part.row)


@modest
@given(images(Shape.BALL), st.data())
def test_every_vertex_of_the_inner_description_is_in_the_ball(
    region: Image, data: st.DataObject
) -> None:
    rows = rows_for(data, region, 2)
    inner = linear_constraints(region, Side.INNER, rows)
    for place in range(inner.parameters):
        weights = Vector(tuple(int(place == other) for other in range(inner.parameters)))
        assert inner.admits(weights)
        assert region.contains(inner.at(weights))


@modest
@given(st.one_of(spaces.boxes(3), images(Shape.CUBE, Shape.SIMPLEX, Shape.BALL)), st.data())
def test_pulling_a_row_is_evaluating_it(region: ConvexRegion, data: st.DataObject) -> None:
    found = linear_constraints(region)
    (row,) = rows_for(data, region, 1)
    parameters = vector([data.draw(NUMBERS) for _ in range(found.parameters)])
    pulled, constant = found.pull(row, Fraction(1, 7))
    assert pulled.dot(parameters) + constant == row.dot(found.at(parameters)) + Fraction(1, 7)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("beyond", ["1e-30", "1"])
def test_what_breaks_a_bound_is_not_admitted(place: int, beyond: str) -> None:
    more = Fraction(beyond)
    found = linear_constraints(spaces.box_of([0, 0], [1, 1]))
    assert found.admits(vector([Fraction(1), Fraction(0)]))
    entries = [Fraction(1), Fraction(1)]
    entries[place] += more
    assert not found.admits(vector(entries))
    entries[place] = -more
    assert not found.admits(vector(entries))
    hull = linear_constraints(
        Image(vector([Fraction(0)]), np.ones((1, 2)), Fraction(1), Shape.SIMPLEX)
    )
    assert hull.equations == (Equation(Vector((1, 1)), Fraction(1)),)
    assert hull.admits(vector([Fraction(1, 3), Fraction(2, 3)]))
    assert not hull.admits(vector([Fraction(1, 3), Fraction(2, 3) - more / 4]))


def test_a_tangent_with_a_whole_length_is_exact() -> None:
    assert tangent(vector([Fraction(3), Fraction(4)])).bound ** 2 <= Fraction(25, 16) * 2**44
    found = tangent(vector([Fraction(0), Fraction(-1, 3)]))
    assert found == Inequality(Vector((0, -(2**20))), Fraction(2**20))
    with pytest.raises(ValueError, match="other than zero"):
        tangent(vector([Fraction(0)] * 2))


@given(st.lists(NUMBERS, min_size=2, max_size=5), st.integers(0, 99))
@modest
def test_tangents_hold_on_the_unit_ball(direction: list[Fraction], seed: int) -> None:
    if not any(direction):
        return
    found = tangent(vector(direction))
    ball = Image(
        vector([Fraction(0)] * len(direction)), np.eye(len(direction)), Fraction(1), Shape.BALL
    )
    assert found.bound >= 0
    assert found.bound**2 >= found.row.dot(found.row)
    for point in ball.sample(10, seed):
        inside = ball.into(point * 1.01)
        assert in_shape(Shape.BALL, inside)
        assert found.row.dot(inside) <= found.bound


def test_a_float_solver_reads_the_same_constraints() -> None:
    """Arrays for HiGHS, from the same numbers; a 3-4-5 ellipse and a row it is tight for."""
    region = Image(vector([Fraction(1)] * 2), np.diag([3.0, 4.0]), Fraction(1), Shape.BALL)
    row = vector([Fraction(1), Fraction(1)])  # the maximum is 2 + 5
    outer = linear_constraints(region, Side.OUTER, [row])
    pulled, constant = outer.pull(row, Fraction(0))
    rows: Floats = np.array([part.row.floats() for part in outer.inequalities])
    answer = linprog(
        -pulled.floats(),
        A_ub=rows,
        b_ub=[float(part.bound) for part in outer.inequalities],
        bounds=np.stack([outer.lower.floats(), outer.upper.floats()], axis=1),
    )
    assert float(constant) - answer.fun == pytest.approx(7.0, rel=1e-5)
    assert region.support(row) == 7
