"""Exact arithmetic on linear expressions of scores."""

from collections.abc import Iterable
from fractions import Fraction

from conspec.specs.exact import limited
from conspec.specs.formula import Linear, Symbol


def total(parts: Iterable[tuple[int, Linear]]) -> Linear:
    """Returns ``Σ sign · part``; symbols stand in order of first appearance.

    Raises:
        ValueError: a number becomes too long.
    """
    weights: dict[Symbol, Fraction] = {}
    constant = Fraction(0)
    for sign, part in parts:
        constant = limited(constant + sign * part.constant)
        for weight, symbol in part.terms:
            weights[symbol] = limited(weights.get(symbol, Fraction(0)) + sign * weight)
    terms = tuple((weight, symbol) for symbol, weight in weights.items() if weight)
    return Linear(terms, constant)


def product(left: Linear, right: Linear) -> Linear:
    """Returns ``left · right``, one of which is a number.

    Raises:
        ValueError: both hold scores, or a number becomes too long.
    """
    if left.terms and right.terms:
        raise ValueError("a score may be multiplied only by a number")
    scores, factor = (right, left.constant) if right.terms else (left, right.constant)
    terms = tuple((limited(weight * factor), symbol) for weight, symbol in scores.terms)
    return Linear(terms if factor else (), limited(scores.constant * factor))


def quotient(left: Linear, right: Linear) -> Linear:
    """Returns ``left / right``, where ``right`` is a number.

    Raises:
        ValueError: ``right`` holds scores or is zero, or a number becomes too long.
    """
    if right.terms:
        raise ValueError("a score may be divided only by a number")
    if right.constant == 0:
        raise ValueError("division by zero")
    return product(left, Linear((), 1 / right.constant))
