from fractions import Fraction
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from conspec.encodings import exact
from conspec.encodings.exact import Vector, combination, from_array, nearest, vector, zeros

FINITE = st.floats(allow_nan=False, allow_infinity=False)
SHORT = st.floats(allow_nan=False, allow_infinity=False, width=32)
RATIONAL = st.fractions(min_value=-1000, max_value=1000, max_denominator=60)
ENTRY = st.one_of(FINITE, SHORT, st.sampled_from([0.0, -0.0, 1.0, 0.1, 5e-324, 2.0**-1022]))


def array(values: list[list[Any]]) -> NDArray[Any]:
    if all(isinstance(value, float) for row in values for value in row):
        return np.array(values, dtype=np.float64)
    flat = [Fraction(value) for row in values for value in row]
    return exact.objects(flat, (len(values), len(values[0])))


def fractions(values: NDArray[Any]) -> list[list[Fraction]]:
    return [[Fraction(value) for value in row] for row in values.tolist()]


@st.composite
def matrices(draw: st.DrawFn, rows: int, columns: int) -> NDArray[Any]:
    entry = draw(st.sampled_from([ENTRY, SHORT, RATIONAL]))
    row = st.lists(entry, min_size=columns, max_size=columns)
    return array(draw(st.lists(row, min_size=rows, max_size=rows)))


@given(st.lists(FINITE), st.data())
def test_vectors_are_exact(values: list[float], data: st.DataObject) -> None:
    others = data.draw(st.lists(FINITE, min_size=len(values), max_size=len(values)))
    first, second = from_array(np.array(values)), from_array(np.array(others))
    assert first.fractions() == [Fraction(v) for v in values]
    assert first.floats().tolist() == values
    assert first.dot(second) == sum(
        (Fraction(a) * Fraction(b) for a, b in zip(values, others, strict=True)), Fraction(0)
    )
    if values:
        both = [Fraction(a) + Fraction(b) for a, b in zip(values, others, strict=True)]
        assert first.plus(second).fractions() == both


@given(st.lists(RATIONAL), RATIONAL)
def test_rational_vectors(values: list[Fraction], factor: Fraction) -> None:
    assert vector(values).fractions() == values
    assert vector(values).scaled(factor).fractions() == [factor * value for value in values]
    assert from_array(exact.objects(values, (len(values),))).fractions() == values


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_no_exact_value(bad: float) -> None:
    with pytest.raises(ValueError, match="no exact value"):
        from_array(np.array([1.0, bad]))


def test_vectors_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="2 and 3 entries"):
        zeros(2).dot(zeros(3))
    with pytest.raises(ValueError, match="at least one term"):
        combination([])
    assert Vector((1, 2), 4).fractions() == [Fraction(1, 4), Fraction(1, 2)]


def test_nearest_out_of_range() -> None:
    assert nearest(10**400, 1) == np.inf
    assert nearest(-(10**400), 1) == -np.inf


@given(matrices(2, 3), matrices(2, 3))
def test_sums_and_products_are_exact(left: NDArray[Any], right: NDArray[Any]) -> None:
    pairs = [
        list(zip(a, b, strict=True)) for a, b in zip(fractions(left), fractions(right), strict=True)
    ]
    assert fractions(exact.array_sum(left, right)) == [[a + b for a, b in row] for row in pairs]
    assert fractions(exact.array_product(left, right)) == [[a * b for a, b in row] for row in pairs]


@given(matrices(2, 3), matrices(3, 2))
def test_matrix_products_are_exact(left: NDArray[Any], right: NDArray[Any]) -> None:
    columns = list(zip(*fractions(right), strict=True))
    expected = [
        [sum((a * b for a, b in zip(row, column, strict=True)), Fraction(0)) for column in columns]
        for row in fractions(left)
    ]
    assert fractions(exact.matrix_product(left, right)) == expected


def test_results_are_floats_where_nothing_is_lost() -> None:
    third = exact.objects([Fraction(1, 3)], (1, 1))
    three = np.array([[3.0]])
    assert exact.array_product(third, three).dtype == np.float64
    assert exact.matrix_product(third, three).dtype == np.float64
    assert exact.array_sum(np.array([1.0]), np.array([2.0**-60])).dtype == object
    assert exact.array_product(np.array([1e300]), np.array([1e300])).dtype == object
    assert exact.matrix_product(np.array([[0.1]]), np.array([[0.1]])).dtype == object
    assert exact.matrix_product(np.ones((2, 9)), np.ones((9, 2))).dtype == np.float64


def test_joined_arrays_have_one_kind() -> None:
    both = exact.joined([np.array([0.5]), exact.objects([Fraction(1, 3)], (1,))])
    assert [type(value) for value in both] == [Fraction, Fraction]


def test_absurd_sizes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "MOST_FRACTIONS", 3)
    monkeypatch.setattr(exact, "MOST_WORK", 7)
    with pytest.raises(ValueError, match="4 entries need fractions"):
        exact.array_product(np.full(4, 0.1), np.full(4, 0.1))
    with pytest.raises(ValueError, match="4 entries need fractions"):
        exact.matrix_product(np.full((2, 1), 0.1), np.full((1, 2), 0.1))
    with pytest.raises(ValueError, match="8 multiplications is too large"):
        exact.matrix_product(np.ones((2, 2)), np.ones((2, 2)))


@given(st.floats(min_value=0, allow_infinity=False), st.floats(min_value=0, allow_infinity=False))
def test_nearest_root(first: float, second: float) -> None:
    assert exact.nearest_root(Fraction(first)) == sqrt(first)
    root = exact.nearest_root(Fraction(first) + Fraction(second) / 3)
    below, above = (Fraction(np.nextafter(root, to)) for to in (0, np.inf))
    middle = (below + Fraction(root)) / 2, (Fraction(root) + above) / 2
    assert middle[0] ** 2 <= Fraction(first) + Fraction(second) / 3 <= middle[1] ** 2
