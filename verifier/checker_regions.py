"""Regions as the checker derives them from a spec's text and the bundle's statistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import isqrt
from operator import mul

from conspec.specs import formula as f
from conspec.specs.rewrite import Halfspace, negation_normal_form
from conspec.verifier.checker_files import (
    Bundle,
    Refused,
    Row,
    dot,
    floats_row,
    fractions_of,
    fractions_row,
    weighted,
)

LEADING = 8
"""Principal axes of a zonotope."""
MOST_PARTS = 1024
"""Convex parts of one region; an intersection of unions multiplies them."""
ONE = Fraction(1)


@dataclass(frozen=True, eq=False)
class Region:
    """``{ center + Σ t_j generators_j : t in shape }``; the shape is cube, ball or simplex.

    The generators of a box are given as one row, its half-widths.
    """

    center: Row
    generators: Sequence[Row] | Row
    shape: str

    def pull(self, row: Row) -> Row:
        """The row over t."""
        if isinstance(self.generators, tuple):
            return list(map(mul, row[0], self.generators[0])), row[1] * self.generators[1]
        return fractions_row([dot(row, generator) for generator in self.generators])

    def support(self, row: Row) -> tuple[Fraction, bool]:
        """The maximum of ``row · z`` on the region, and whether it is exact (else above)."""
        tops, bottom = self.pull(row)
        middle = dot(row, self.center)
        if self.shape == "cube":
            return middle + Fraction(sum(map(abs, tops)), bottom), True
        if self.shape == "simplex":
            return middle + Fraction(max(tops), bottom), True
        square = sum(map(mul, tops, tops)) << 128
        root = isqrt(square)
        exact = root * root == square
        return middle + Fraction(root + (not exact), bottom << 64), exact

    def halves(self, coordinate: object, at: Fraction) -> tuple["Region", "Region"]:
        """A box cut in two across a coordinate; both halves hold the cut."""
        if not isinstance(self.generators, tuple):
            raise Refused("only a box can be split")
        middle, wide = fractions_of(self.center), fractions_of(self.generators)
        if type(coordinate) is not int or not 0 <= coordinate < len(middle):
            raise Refused(f"a split across coordinate {coordinate!r}")
        low = middle[coordinate] - wide[coordinate]
        high = middle[coordinate] + wide[coordinate]
        if not low <= at <= high:
            raise Refused("a split outside the bounds of the box")
        found = []
        for start, end in ((low, at), (at, high)):
            middle[coordinate], wide[coordinate] = (start + end) / 2, (end - start) / 2
            found.append(Region(fractions_row(middle), fractions_row(wide), "cube"))
        return found[0], found[1]

    def at(self, parameters: Sequence[Fraction]) -> Row:
        """The point with these parameters, which must lie in the shape."""
        inside = all(abs(value) <= 1 for value in parameters)
        if self.shape == "ball":
            inside = sum(value * value for value in parameters) <= 1
        if self.shape == "simplex":
            inside = all(value >= 0 for value in parameters) and sum(parameters) == 1
        if not inside:
            raise Refused("the counterexample's parameters lie outside the region")
        if isinstance(self.generators, tuple):
            t = fractions_row(parameters)
            moved = (list(map(mul, t[0], self.generators[0])), t[1] * self.generators[1])
            return weighted([(Fraction(1), self.center), (Fraction(1), moved)], len(moved[0]))
        if len(parameters) != len(self.generators):
            raise Refused("the counterexample has the wrong number of parameters")
        pairs = list(zip(parameters, self.generators, strict=True))
        return weighted([(Fraction(1), self.center), *pairs], len(self.center[0]))

    def holds(self, point: Row) -> bool:
        """Whether a point given by itself lies in the region; asked of boxes only."""
        if not isinstance(self.generators, tuple):
            raise Refused("a counterexample in this kind of region needs its parameters")
        (mid, one), (wide, two), (tops, three) = self.center, self.generators, point
        triples = zip(mid, wide, tops, strict=True)
        return all(abs(top * one - m * three) * two <= w * one * three for m, w, top in triples)


Cuts = tuple[Halfspace, ...]


@dataclass(frozen=True)
class Bounds:
    """A box by its exact bounds."""

    lower: list[Fraction]
    upper: list[Fraction]

    def region(self) -> Region:
        """The box as centre and half-widths."""
        pairs = list(zip(self.lower, self.upper, strict=True))
        if any(low > high for low, high in pairs):
            raise Refused("the region is empty")
        center = fractions_row([(low + high) / 2 for low, high in pairs])
        return Region(center, fractions_row([(high - low) / 2 for low, high in pairs]), "cube")

    def walls(self) -> Cuts:
        """The box as half-spaces of coordinates."""
        found = []
        for index, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
            found.append(Halfspace(((ONE, f.Coordinate(index)),), -low, strict=False))
            found.append(Halfspace(((-ONE, f.Coordinate(index)),), high, strict=False))
        return tuple(found)


Loose = tuple[Region | Bounds | None, Cuts]


@lru_cache(maxsize=16)
def regions_of(expression: f.Region, bundle: Bundle) -> list[tuple[Region, Cuts]]:
    """The convex parts that a region expression denotes, with the half-spaces that cut them."""
    found = []
    for base, cuts in _parts(expression, bundle):
        if base is None:
            raise Refused("the region is not bounded")
        found.append((base.region() if isinstance(base, Bounds) else base, cuts))
    return found


def _parts(expression: f.Region, bundle: Bundle) -> list[Loose]:
    match expression:
        case f.Either(parts):
            return [found for part in parts for found in _parts(part, bundle)]
        case f.Both(parts):
            result = _parts(parts[0], bundle)
            for other in parts[1:]:
                second = _parts(other, bundle)
                if len(result) * len(second) > MOST_PARTS:
                    raise Refused("the region has too many parts")
                result = [_both(a, b) for a in result for b in second]
            return result
        case f.Polytope(constraints):
            cuts = [negation_normal_form(compare, bundle.classes) for compare in constraints]
            return [(None, tuple(_halfspace(cut) for cut in cuts))]
        case _:
            return [(_base(expression, bundle), ())]


def _halfspace(cut: object) -> Halfspace:
    if not isinstance(cut, Halfspace) or cut.strict:
        raise Refused("a polytope's comparison is not closed")
    return cut


def _both(first: Loose, second: Loose) -> Loose:
    """The intersection of two parts."""
    cuts = first[1] + second[1]
    bases = [base for base in (first[0], second[0]) if base is not None]
    boxes = [base for base in bases if isinstance(base, Bounds)]
    others = [base for base in bases if isinstance(base, Region)]
    if len(others) == 2:
        raise Refused("an intersection of two regions that are no boxes")
    if others:
        return others[0], cuts + tuple(wall for box in boxes for wall in box.walls())
    if len(boxes) == 2:
        lower = list(map(max, boxes[0].lower, boxes[1].lower))
        return Bounds(lower, list(map(min, boxes[0].upper, boxes[1].upper))), cuts
    return (boxes[0] if boxes else None), cuts


def _base(expression: f.Region, bundle: Bundle) -> Region | Bounds:
    """A region without connectives."""
    match expression:
        case f.Focus(label, gamma):
            return _focus(_known(label, bundle), gamma, bundle)
        case f.Box(lower, upper):
            low = list(lower) * (bundle.size if len(lower) == 1 else 1)
            high = list(upper) * (bundle.size if len(upper) == 1 else 1)
            if (len(low), len(high)) != (bundle.size, bundle.size):
                raise Refused("a box of another dimension than the embeddings")
            return Bounds(low, high)
        case f.Ball(image, radius, norm):
            center = bundle.embeddings.row("z", image)
            if norm is f.Norm.LINF:
                exact = [Fraction(value) for value in center]
                return Bounds([v - radius for v in exact], [v + radius for v in exact])
            return Region(floats_row(center), _diagonal([radius] * bundle.size), "ball")
        case f.Hull(label):
            return Region(
                ([0] * bundle.size, 1), _samples(_known(label, bundle), bundle), "simplex"
            )
        case f.PcaBox(label, gamma):
            return _axial(_known(label, bundle), gamma, bundle, "cube")
        case f.Ellipsoid(label, gamma):
            return _axial(_known(label, bundle), gamma, bundle, "ball")
        case f.Zonotope(label, gamma):
            place = _known(label, bundle)
            axes = _axes(place, gamma, bundle)[:LEADING]
            residual = bundle.statistics.row("residual", place)
            rest = _diagonal([gamma * Fraction(value) for value in residual])
            return Region(_mean(place, bundle), [*axes, *rest], "cube")
        case _:
            raise Refused("a region expression inside another")


def _known(label: str, bundle: Bundle) -> int:
    """The place of a class that has statistics."""
    place = bundle.classes.index(label)
    if bundle.statistics.row("count")[place] < 1:
        raise Refused(f"the bundle has no statistics of {label}")
    return place


def _mean(place: int, bundle: Bundle) -> Row:
    return floats_row(bundle.statistics.row("mean", place))


def _focus(place: int, gamma: Fraction, bundle: Bundle) -> Bounds:
    """``μ ± γσ``, cut to ``z ≥ 0`` where the encoder ends in a ReLU."""
    mean = [Fraction(value) for value in bundle.statistics.row("mean", place)]
    reach = [gamma * Fraction(value) for value in bundle.statistics.row("std", place)]
    lower = [m - r for m, r in zip(mean, reach, strict=True)]
    upper = [m + r for m, r in zip(mean, reach, strict=True)]
    if bundle.manifest["nonnegative"]:
        lower = [max(value, Fraction(0)) for value in lower]
        upper = [max(value, Fraction(0)) for value in upper]
    return Bounds(lower, upper)


def _axial(place: int, gamma: Fraction, bundle: Bundle, shape: str) -> Region:
    """The image of a cube or ball under the principal axes."""
    return Region(_mean(place, bundle), _axes(place, gamma, bundle), shape)


def _axes(place: int, gamma: Fraction, bundle: Bundle) -> list[Row]:
    """The principal axes times ``γ``."""
    rows = [bundle.statistics.row("axes", place, i) for i in range(bundle.size)]
    columns = [floats_row(list(column)) for column in zip(*rows, strict=True)]
    return [weighted([(gamma, column)], bundle.size) for column in columns]


def _diagonal(values: Sequence[Fraction]) -> list[Row]:
    """Generators along the coordinates."""
    size = len(values)
    return [
        ([value.numerator if i == j else 0 for i in range(size)], value.denominator)
        for j, value in enumerate(values)
    ]


def _samples(place: int, bundle: Bundle) -> list[Row]:
    """The correctly classified training embeddings of a class."""
    e = bundle.embeddings
    label, predicted, heldout = e.row("label"), e.row("predicted"), e.row("heldout")
    chosen = [
        index
        for index in range(len(label))
        if label[index] == predicted[index] == place and not heldout[index]
    ]
    return [floats_row(e.row("z", index)) for index in chosen]
