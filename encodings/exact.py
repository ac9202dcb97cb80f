"""Exact rational vectors and arrays, fast enough to check proofs with.

A vector is a tuple of integers over one common denominator, so that an inner product is one
pass of integer multiplications and a sum, without a greatest common divisor at each step.

An exact array is float64 when every entry is exactly a float64, else it holds Fractions (dtype
object). Sums and products of arrays are computed in float64 where a test shows that nothing was
rounded, and in rationals otherwise.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt, lcm
from operator import mul
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Vector:
    """The rational vector ``numerators / denominator``; the denominator is positive."""

    numerators: tuple[int, ...]
    denominator: int = 1

    def __len__(self) -> int:
        """Number of entries."""
        return len(self.numerators)

    def fractions(self) -> list[Fraction]:
        """The entries as reduced fractions."""
        return [Fraction(value, self.denominator) for value in self.numerators]

    def floats(self) -> NDArray[np.float64]:
        """The entries rounded to the nearest float64 each (integer division does that)."""
        bottom = self.denominator
        return np.array([nearest(value, bottom) for value in self.numerators], dtype=np.float64)

    def dot(self, other: "Vector") -> Fraction:
        """The exact inner product."""
        if len(self) != len(other):
            raise ValueError(f"inner product of vectors of {len(self)} and {len(other)} entries")
        total = sum(map(mul, self.numerators, other.numerators))
        return Fraction(total, self.denominator * other.denominator)

    def dot_plus(self, other: "Vector", constant: Fraction) -> Fraction:
        """The exact inner product plus a constant, reduced once."""
        if len(self) != len(other):
            raise ValueError(f"inner product of vectors of {len(self)} and {len(other)} entries")
        bottom, share = self.denominator * other.denominator, constant.denominator
        total = sum(map(mul, self.numerators, other.numerators)) * share
        return Fraction(total + constant.numerator * bottom, bottom * share)

    def scaled(self, factor: Fraction | int) -> "Vector":
        """The vector times a rational."""
        top, bottom = factor.numerator, factor.denominator
        return Vector(tuple(value * top for value in self.numerators), self.denominator * bottom)

    def over(self, denominator: int) -> "Vector":
        """The same vector over a multiple of its denominator."""
        factor = denominator // self.denominator
        return Vector(tuple(value * factor for value in self.numerators), denominator)

    def plus(self, other: "Vector") -> "Vector":
        """The exact sum."""
        return combination([(Fraction(1), self), (Fraction(1), other)])


def nearest(top: int, bottom: int) -> float:
    """``top / bottom`` rounded to the nearest float64; infinite when out of range."""
    try:
        return top / bottom
    except OverflowError:
        return float("inf") if top > 0 else float("-inf")


def vector(values: Iterable[Fraction | int]) -> Vector:
    """A vector from rationals, over their least common denominator."""
    entries = list(values)
    bottom = lcm(*(value.denominator for value in entries)) if entries else 1
    return Vector(tuple(v.numerator * (bottom // v.denominator) for v in entries), bottom)


def zeros(length: int) -> Vector:
    """The zero vector."""
    return Vector((0,) * length)


def product(first: Vector, second: Vector) -> Vector:
    """The product entry by entry."""
    if len(first) != len(second):
        raise ValueError(f"product of vectors of {len(first)} and {len(second)} entries")
    tops = tuple(map(mul, first.numerators, second.numerators))
    return Vector(tops, first.denominator * second.denominator)


def combination(terms: Sequence[tuple[Fraction, Vector]]) -> Vector:
    """``Σ factor · vector``, exactly; at least one term, all of one length."""
    bottom = lcm(*(factor.denominator * part.denominator for factor, part in terms))
    totals: list[int] | None = None
    for factor, part in terms:
        weight = factor.numerator * (bottom // (factor.denominator * part.denominator))
        column = [value * weight for value in part.numerators]
        totals = column if totals is None else list(map(int.__add__, totals, column))
    if totals is None:
        raise ValueError("a combination needs at least one term")
    return Vector(tuple(totals), bottom)


def from_array(values: NDArray[Any]) -> Vector:
    """The exact value of a finite float (or object-of-Fraction) array of one dimension.

    Raises:
        ValueError: an entry is infinite or not a number.
    """
    if values.dtype == object:
        return vector(values.tolist())
    doubles = np.asarray(values, dtype=np.float64)
    if not np.isfinite(doubles).all():
        raise ValueError("an infinite entry or one that is not a number has no exact value")
    mantissas, exponents = np.frexp(doubles)
    integers = (mantissas * 2.0**53).astype(np.int64).tolist()
    shifts = (exponents.astype(np.int64) - 53).tolist()
    used = [shift for integer, shift in zip(integers, shifts, strict=True) if integer]
    lowest = min(used, default=0)
    tops = tuple(
        integer << (shift - lowest) if integer else 0
        for integer, shift in zip(integers, shifts, strict=True)
    )
    if lowest >= 0:
        return Vector(tuple(top << lowest for top in tops))
    return _reduced(tops, -lowest)


def _reduced(tops: tuple[int, ...], power: int) -> Vector:
    """``tops / 2**power`` with common factors of two removed (float32 data has many)."""
    every = 0
    for top in tops:
        every |= top
    spare = min(power, (every & -every).bit_length() - 1) if every else power
    return Vector(tuple(top >> spare for top in tops), 1 << (power - spare))


MOST_FRACTIONS = 10**7  # entries; one Fraction takes about 100 bytes
MOST_WORK = 10**11  # multiplications in one matrix product of floats
MOST_SLOW_WORK = 10**9  # the same, of rationals
_FLOAT_BITS = 53
_SMALLEST_NORMAL = 2.0**-1022


def is_float(value: Fraction | int) -> bool:
    """Whether the rational is exactly a finite float64."""
    try:
        return Fraction(float(value)) == value
    except OverflowError:
        return False


def shortest(values: NDArray[Any]) -> NDArray[Any]:
    """The same exact values as float64 if each is one, else unchanged (Fractions)."""
    if values.dtype != object:
        return values.astype(np.float64)
    if all(is_float(value) for value in values.ravel().tolist()):
        return values.astype(np.float64)
    return values


def rational(values: NDArray[Any]) -> NDArray[Any]:
    """The entries as Fractions.

    Raises:
        ValueError: there are more than `MOST_FRACTIONS`.
    """
    if values.dtype == object:
        return values
    if values.size > MOST_FRACTIONS:
        raise ValueError(f"{values.size} entries need fractions; {MOST_FRACTIONS} at most")
    return objects([Fraction(value) for value in values.ravel().tolist()], values.shape)


def objects(entries: Sequence[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """An array of Python objects in a shape."""
    result = np.empty(len(entries), dtype=object)
    result[:] = entries
    return result.reshape(shape)


def joined(parts: Sequence[NDArray[Any]], axis: int = 0) -> NDArray[Any]:
    """Exact arrays one after the other; all become Fractions if one has them."""
    if any(part.dtype == object for part in parts):
        parts = [rational(part) for part in parts]
    return np.concatenate(parts, axis=axis)


def array_sum(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """``left + right`` without rounding, with broadcasting."""
    if left.dtype != object and right.dtype != object:
        with np.errstate(all="ignore"):
            total = left + right
            back = total - left
            error = (left - (total - back)) + (right - back)  # Knuth's TwoSum: exact
        if np.all(error == 0):
            return np.asarray(total, dtype=np.float64)
    return shortest(rational(left) + rational(right))


def array_product(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """``left · right`` entry by entry without rounding, with broadcasting."""
    if left.dtype != object and right.dtype != object:
        with np.errstate(all="ignore"):
            result = np.asarray(left * right, dtype=np.float64)
        size = np.abs(result)
        normal = (size >= _SMALLEST_NORMAL) & (size < np.inf) & (_bits(left, right) <= _FLOAT_BITS)
        if np.all(normal | (left == 0) | (right == 0)):
            return result
    return shortest(rational(left) * rational(right))


def _bits(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.int64]:
    """How many bits the products' mantissas need at most."""
    total: NDArray[np.int64] = _length(left) + _length(right)
    return total


def _length(values: NDArray[Any]) -> NDArray[np.int64]:
    """Bits of each float's mantissa without the zeros at its end."""
    return _FLOAT_BITS - _trailing_zeros(_mantissas(values)[0])


def _mantissas(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Integers and exponents with ``value = integer · 2**exponent``; 53 bits unless zero."""
    mantissas, exponents = np.frexp(values)
    integers = np.asarray(mantissas * 2.0**_FLOAT_BITS, dtype=np.int64)
    return integers, np.asarray(exponents, dtype=np.int64) - _FLOAT_BITS


def _trailing_zeros(integers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Zeros at the end of each integer's binary digits; -1 for zero."""
    lowest = (integers & -integers).astype(np.float64)
    return np.asarray(np.frexp(lowest)[1], dtype=np.int64) - 1


def matrix_product(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """The matrix product [m, n] of [m, k] and [k, n] without rounding.

    Raises:
        ValueError: the product would take too long.
    """
    work = left.shape[0] * left.shape[1] * right.shape[1]
    slow = left.dtype == object or right.dtype == object
    if work > (MOST_SLOW_WORK if slow else MOST_WORK):
        raise ValueError(f"an exact matrix product of {work} multiplications is too large")
    if not left.any() or not right.any():
        return np.zeros((left.shape[0], right.shape[1]))
    if slow:
        columns = [from_array(column) for column in right.T]
        rows = [from_array(row) for row in left]
        entries = [row.dot(column) for row in rows for column in columns]
        return shortest(objects(entries, (len(rows), len(columns))))
    return _float_product(left, right)


def _float_product(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """The exact product of float matrices.

    Both are cut into digits so short that the floating-point products of digits are exact.
    """
    width = (_FLOAT_BITS - left.shape[1].bit_length()) // 2
    first, first_exponent = _digits(left, width)
    second, second_exponent = _digits(right, width)
    total = np.zeros((left.shape[0], right.shape[1]), dtype=object)
    for place in range(len(first) + len(second) - 1):
        part = np.zeros(total.shape, dtype=np.int64)
        for i in range(max(0, place - len(second) + 1), min(place + 1, len(first))):
            part += (first[i] @ second[place - i]).astype(np.int64)
        total += part.astype(object) * (1 << (width * place))
    return _dyadic(total, first_exponent + second_exponent)


def _digits(values: NDArray[Any], width: int) -> tuple[list[NDArray[np.float64]], int]:
    """Digits d, exponent e: ``values = 2**e · Σ d[p] · 2**(width·p)``; not all are zero."""
    integers, exponents = _mantissas(values)
    used = integers != 0
    exponent = int((exponents + _trailing_zeros(integers))[used].min())
    length = int(exponents[used].max()) + _FLOAT_BITS - exponent
    sizes, mask = np.abs(integers), (1 << width) - 1
    digits = []
    for place in range(0, length, width):
        down = place - (exponents - exponent)  # how far the digit lies above the mantissa's end
        above = sizes >> np.clip(down, 0, 63)
        below = (sizes & mask) << np.clip(-down, 0, width)
        digit = np.where(down >= 0, above, below) & mask
        digits.append(np.where(integers < 0, -digit, digit).astype(np.float64))
    return digits, exponent


def _dyadic(integers: NDArray[Any], exponent: int) -> NDArray[Any]:
    """``integers · 2**exponent`` as an exact array."""
    entries = integers.ravel().tolist()
    if -1000 <= exponent <= 900 and max(map(abs, entries)) <= 1 << _FLOAT_BITS:
        return np.ldexp(integers.astype(np.float64), exponent)
    top, bottom = 1 << max(exponent, 0), 1 << max(-exponent, 0)
    if integers.size > MOST_FRACTIONS:
        raise ValueError(f"{integers.size} entries need fractions; {MOST_FRACTIONS} at most")
    return shortest(objects([Fraction(v * top, bottom) for v in entries], integers.shape))


def nearest_root(square: Fraction) -> float:
    """The float64 nearest to the root of a non-negative rational."""
    if square == 0:
        return 0.0
    size = square.numerator.bit_length() - square.denominator.bit_length()
    half = max(0, (140 - size + 1) // 2)  # so that the integer root has about 70 bits
    scaled, rest = divmod(square.numerator << (2 * half), square.denominator)
    root = isqrt(scaled)
    inexact = bool(rest) or root * root != scaled
    return nearest(2 * root + inexact, 1 << (half + 1))
