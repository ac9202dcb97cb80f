"""Numbers in the files of other tools: read exactly, written so that nothing is lost.

SMT-LIB knows ``12`` and ``0.5`` only; VNN-LIB files also hold ``-0.5`` and ``1e-5``. Each of them
names one rational number, and that number is meant, never the nearest float.
"""

import re
from decimal import Decimal
from fractions import Fraction

from conspec.specs.exact import read_number

LONGEST = 1_200
"""Characters of the longest decimal that is written; the longest float64 has about 1,080."""
_MOST_POWERS = 4 * LONGEST
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)


def parse_number(text: str) -> Fraction:
    """The exact value of a signed decimal, with an exponent or without.

    Raises:
        ValueError: it is no such number, or too long to compute with.
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a decimal number")
    value = read_number(text.lstrip("+-"))
    return -value if text.startswith("-") else value


def decimal_text(value: Fraction) -> str | None:
    """The exact value as a plain decimal such as ``-0.25`` or ``3.0``, which every reader knows.

    It has no exponent, since SMT-LIB has none, and always a point, since to some readers a
    number without one is an integer. None if it is no finite decimal, or one of more than
    `LONGEST` characters.
    """
    places = _places(value.denominator)
    if places is None or value.numerator.bit_length() > _MOST_POWERS:
        return None
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    whole, part = (digits[:-places], digits[-places:]) if places else (digits, "0")
    text = f"{'-' if value < 0 else ''}{whole}.{part}"
    return text if len(text) <= LONGEST else None


def _places(denominator: int) -> int | None:
    """The least k such that 10^k is a multiple of the denominator; None if there is no short k."""
    if denominator.bit_length() > _MOST_POWERS:
        return None
    twos = (denominator & -denominator).bit_length() - 1
    rest, fives = denominator >> twos, 0
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives)
    return places if rest == 1 and places <= LONGEST else None


def rational_text(value: Fraction) -> str:
    """The exact value as ``p/q``, whatever its length."""
    # Decimal writes integers of any length; Python's int refuses more than 4,300 digits.
    return f"{Decimal(value.numerator):f}/{Decimal(value.denominator):f}"


def parse_rational(text: str) -> Fraction:
    """The exact value of a decimal or of ``p/q``, both of them decimals.

    Raises:
        ValueError: it is neither, too long to compute with, or divides by zero.
    """
    top, bar, bottom = text.partition("/")
    value = parse_number(top)
    if not bar:
        return value
    divisor = parse_number(bottom)
    if divisor == 0:
        raise ValueError(f"{text[:40]!r} divides by zero")
    return value / divisor
