"""Exact numbers: from decimal text to ``Fraction`` and back.

Sizes are limited, because a short text can name a number that fills the memory
(``1e999999999``) and because arithmetic on very long numbers, though exact, would never end.
"""

from fractions import Fraction

MAX_EXPONENT = 400
MAX_BITS = 10_000  # about 3,000 digits; Python refuses to write integers beyond 4,300
MAX_LITERAL = 4_000  # characters; so that reading an integer always stays within that limit

# A finite decimal with more digits than this is written as a quotient.
LONGEST_DECIMAL = 20
# Beyond these an exponent reads better than zeros: 0.000001 but 1e-7.
SMALLEST_PLAIN, LARGEST_PLAIN = -6, 15


def read_number(text: str) -> Fraction:
    """Reads an unsigned decimal such as ``12``, ``0.5`` or ``1e-9``.

    Raises:
        ValueError: the number is too long, or its exponent is beyond ±400.
    """
    if len(text) > MAX_LITERAL:
        raise ValueError(f"a number may have at most {MAX_LITERAL} characters")
    _, _, exponent = text.lower().partition("e")
    if exponent and abs(int(exponent)) > MAX_EXPONENT:
        raise ValueError(f"an exponent may be at most {MAX_EXPONENT}, here it is {exponent}")
    return limited(Fraction(text))


def limited(value: Fraction) -> Fraction:
    """Returns ``value`` unless it is too long to compute with.

    Raises:
        ValueError: numerator or denominator has more than ``MAX_BITS`` bits.
    """
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise ValueError("this number has too many digits to compute with exactly")
    return value


def write_number(value: Fraction) -> str:
    """Writes a number so that the parser reads back exactly ``value``.

    A short finite decimal is written as such (``0.3``, ``1e-9``), any other number as ``p/q``.
    """
    decimal = _decimal(abs(value))
    if decimal is None:
        return str(value)
    return f"-{decimal}" if value < 0 else decimal


def _decimal(value: Fraction) -> str | None:
    """Writes a number ``>= 0`` as a decimal, or returns None if that is long or impossible."""
    if max(value.numerator, value.denominator).bit_length() > MAX_EXPONENT * 4:
        return None
    places = _decimal_places(value.denominator)
    if places is None:
        return None
    integer = str(value.numerator * 10**places // value.denominator)
    digits = integer.rstrip("0") or "0"
    if len(digits) > LONGEST_DECIMAL:
        return None
    magnitude = len(integer) - places - 1  # of the first digit: 0.05 has -2
    if SMALLEST_PLAIN <= magnitude <= LARGEST_PLAIN or value == 0:
        return _plain(integer, places)
    if abs(magnitude) > MAX_EXPONENT:
        return None
    return f"{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e{magnitude}"


def _decimal_places(denominator: int) -> int | None:
    """Returns the least k with 10^k divisible by ``denominator``, or None."""
    twos = (denominator & -denominator).bit_length() - 1
    rest, fives = denominator >> twos, 0
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    return max(twos, fives) if rest == 1 else None


def _plain(integer: str, places: int) -> str:
    """Puts the point ``places`` digits before the end of ``integer``."""
    if places == 0:
        return integer
    padded = integer.rjust(places + 1, "0")
    return f"{padded[:-places]}.{padded[-places:]}"
