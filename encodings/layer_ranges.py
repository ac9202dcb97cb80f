"""Ranges of affine functions and of hidden neurons over a box, for files that need exact numbers.

`bounds.hidden_bounds` does this in float64 with error terms. Here everything is rational, and a
range is rounded outward to float64 numbers only at the end of a layer, so that numbers stay short.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import inf, nextafter

from conspec.encodings.exact import Vector, nearest, vector
from conspec.encodings.network import Network
from conspec.encodings.regions import Box
from conspec.specs.errors import BadUsage

Range = tuple[Fraction, Fraction]


def row_range(weights: Vector, constant: Fraction, lower: Vector, upper: Vector) -> Range:
    """Exact least and greatest value of ``weights · x + constant`` for lower ≤ x ≤ upper."""
    low, high = _below(weights, lower, upper), -_below(weights.scaled(-1), lower, upper)
    return constant + low, constant + high


def _below(weights: Vector, lower: Vector, upper: Vector) -> Fraction:
    """The least value of ``weights · x``."""
    down = [value if value < 0 else 0 for value in weights.numerators]
    up = [value if value > 0 else 0 for value in weights.numerators]
    bottom = weights.denominator
    return Vector(tuple(down), bottom).dot(upper) + Vector(tuple(up), bottom).dot(lower)


def hidden_ranges(network: Network, region: Box) -> list[list[Range]]:
    """Ranges of each hidden layer's values before the ReLU, rounded outward to float64 numbers.

    Raises:
        BadUsage: a neuron's values can be larger than any float64.
    """
    lower, upper = region.lower, region.upper
    found = []
    for layer in network.affines[:-1]:
        rows = (layer.row(index) for index in range(layer.outputs))
        ranges = [outward(row_range(weights, bias, lower, upper)) for weights, bias in rows]
        found.append(ranges)
        lower, upper = after_relu(ranges)
    return found


def after_relu(ranges: Sequence[Range]) -> tuple[Vector, Vector]:
    """Bounds of a hidden layer's values after the ReLU."""
    zero = Fraction(0)
    return vector(max(low, zero) for low, _ in ranges), vector(max(h, zero) for _, h in ranges)


def outward(ends: Range) -> Range:
    """The smallest range of float64 numbers around a range.

    Raises:
        BadUsage: there is none.
    """
    low, high = -_up(-ends[0]), _up(ends[1])
    return low, high


def _up(value: Fraction) -> Fraction:
    """The least float64 number that is at least the value."""
    found = nearest(value.numerator, value.denominator)
    if found not in (inf, -inf) and Fraction(found) < value:
        found = nextafter(found, inf)
    if found in (inf, -inf):
        raise BadUsage("a value of this query can be larger than any float64 number")
    return Fraction(found)
