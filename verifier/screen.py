"""Closed-form bounds for a whole suite at once, as matrix products.

Every half-space of every formula is one row; over a box it has its range in closed form. Ranges
settle most literals, and through them most formulas: if the settled literals make the violation
false, that is a proof; and the corner that maximises a literal is a likely counterexample.

All numbers are float64 with a rigorous error bound (`conspec.encodings.rounding`), so what is
settled here is settled for the exact real-number functions.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from conspec.encodings.bounds import extended_box
from conspec.encodings.query import fold
from conspec.encodings.regions import Box, ConvexRegion
from conspec.encodings.rounding import TINY, Bools, Floats, gamma, row_bounds
from conspec.encodings.scores import ScoreSpace
from conspec.specs.rewrite import All, Cone, Count, Halfspace, Literal, Nnf, Some, literals
from conspec.verifier.certificate import Lemma, Term
from conspec.verifier.device import Device

TRUE: Nnf = All(())
FALSE: Nnf = Some(())


@dataclass(frozen=True, eq=False)
class Rows:
    """Half-spaces as float64 rows over ``v = (z, y)``, with the error of each entry.

    Attributes:
        literals: the A half-spaces.
        rows: [A, n+h].
        errors: [A, n+h], bound of ``|rows − exact rows|``.
        constants: [A].
        constant_errors: [A].
    """

    literals: tuple[Halfspace, ...]
    rows: Floats
    errors: Floats
    constants: Floats
    constant_errors: Floats

    @cached_property
    def _index(self) -> dict[Halfspace, int]:
        return {literal: place for place, literal in enumerate(self.literals)}

    @cached_property
    def _seen(self) -> dict[int, tuple[Halfspace, int]]:
        return {}

    def place(self, literal: Halfspace) -> int:
        """Place of a literal; hashed once per object, since hashing rationals is slow."""
        known = self._seen.get(id(literal))
        if known is None:
            known = self._seen[id(literal)] = (literal, self._index[literal])
        return known[1]


@np.errstate(over="ignore", invalid="ignore")
def rows_of(space: ScoreSpace, found: Iterable[Halfspace]) -> Rows:
    """The rows of distinct half-spaces: their coefficients times the score matrix."""
    distinct = tuple(dict.fromkeys(found))
    scores, biases = space.matrix
    weights = space.coefficients(distinct)
    sizes = abs(weights.scores)
    # Coefficients, weights, products and sums: one rounding each, so γ of a length a little
    # above the number of terms covers all of them.
    terms = max((len(literal.terms) for literal in distinct), default=0) + 6
    share = gamma(terms)
    rows = weights.scores @ scores
    reach = sizes @ np.abs(scores)
    if weights.coordinates.nnz:
        rows[:, : space.dimension] += weights.coordinates
        reach[:, : space.dimension] += abs(weights.coordinates)
    # A factor or a weight below the normal numbers is off by up to TINY, times the other; a
    # factor may have become zero, so it counts wherever one is written.
    used = sizes.copy()
    used.data[:] = 1.0
    tiny = (used @ np.abs(scores) + sizes.sum(axis=1)[:, None]) * TINY
    return Rows(
        distinct,
        rows,
        share * reach + tiny + terms * TINY,
        weights.scores @ biases + weights.constants,
        share * (sizes @ np.abs(biases) + np.abs(weights.constants))
        + used @ np.abs(biases) * TINY
        + (sizes.sum(axis=1) + terms) * TINY,
    )


@dataclass(frozen=True, eq=False)
class Ranges:
    """Rigorous bounds [R, A] of each row over each of R regions.

    Attributes:
        rows: the A rows.
        lower: [R, A].
        upper: [R, A].
    """

    rows: Rows
    lower: Floats
    upper: Floats

    def bounds(self, literal: Halfspace) -> tuple[Floats, Floats]:
        """The literal's lower and upper bounds [R]."""
        place = self.rows.place(literal)
        return self.lower[:, place], self.upper[:, place]

    def never(self, literal: Literal) -> Bools:
        """Over which regions the literal is false everywhere: bool [R]."""
        if isinstance(literal, Cone):
            return np.zeros(len(self.upper), dtype=bool)
        _, upper = self.bounds(literal)
        never: Bools = upper <= 0 if literal.strict else upper < 0
        return never

    def always(self, literal: Literal) -> Bools:
        """Over which regions the literal is true everywhere: bool [R]."""
        if isinstance(literal, Cone):
            return np.zeros(len(self.upper), dtype=bool)
        lower, _ = self.bounds(literal)
        always: Bools = lower > 0 if literal.strict else lower >= 0
        return always


def ranges_of(
    space: ScoreSpace, rows: Rows, regions: Sequence[ConvexRegion], device: Device | None = None
) -> Ranges:
    """The rows' ranges over regions that are not empty, computed on the device if one is given.

    Regions that are images of a ball, a simplex or another cube are always bounded by numpy.
    """
    if space.head.is_affine and not all(isinstance(region, Box) for region in regions):
        errors = (rows.errors, rows.constant_errors)
        found = [region.bounds(rows.rows, rows.constants, errors) for region in regions]
        return Ranges(rows, np.stack([low for low, _ in found]), np.stack([up for _, up in found]))
    boxes = [extended_box(space, region) for region in regions]
    lower = np.stack([low for low, _ in boxes])
    upper = np.stack([high for _, high in boxes])
    errors = (rows.errors, rows.constant_errors)
    bounded = device.row_bounds if device else row_bounds
    low, high = bounded(rows.rows, rows.constants, errors, lower, upper)
    return Ranges(rows, low, high)


def single_lemmas(known: Sequence[Literal], never: Collection[Literal]) -> list[Lemma]:
    """Lemmas of one literal each: those of ``known`` that are false on the whole region."""
    numbers = [number for number, literal in enumerate(known) if literal in never]
    return [Lemma((Term(number, Fraction(1)),)) for number in numbers]


def impossible(nnf: Nnf, ranges: Ranges) -> Bools:
    """Over which regions the ranges alone make the formula false everywhere: bool [R]."""

    def join(count: int, parts: list[Bools]) -> Bools:
        if count == 0:
            return np.zeros(len(ranges.upper), dtype=bool)
        false = np.sum(parts, axis=0, initial=0)
        return np.broadcast_to(false > len(parts) - count, len(ranges.upper))

    return fold(nnf, ranges.never, join)


def margin_bounds(nnf: Nnf, ranges: Ranges) -> Floats:
    """Upper bounds [R] of the formula's margin over each region; ``inf`` where a cone decides."""

    def leaf(literal: Literal) -> Floats:
        if isinstance(literal, Cone):
            return np.full(len(ranges.upper), np.inf)
        return ranges.bounds(literal)[1]

    def join(count: int, parts: list[Floats]) -> Floats:
        return nth_largest(count, parts, len(ranges.upper))

    return fold(nnf, leaf, join)


def nth_largest(count: int, parts: Sequence[Floats], size: int | tuple[int, ...]) -> Floats:
    """The margin of "at least ``count`` of the parts", elementwise over arrays of one shape."""
    if count == 0:
        return np.full(size, np.inf)
    if count > len(parts):
        return np.full(size, -np.inf)
    best: Floats = np.sort(parts, axis=0)[len(parts) - count]
    return best


def reduce(nnf: Nnf, ranges: Ranges, region: int) -> Nnf:
    """The formula without the literals that are settled over the region; equivalent there."""
    never = {lit for lit in literals(nnf) if ranges.never(lit)[region]}
    always = {lit for lit in literals(nnf) if ranges.always(lit)[region]}

    def leaf(literal: Literal) -> Nnf:
        return FALSE if literal in never else TRUE if literal in always else literal

    return fold(nnf, leaf, at_least)


def at_least(count: int, parts: Sequence[Nnf]) -> Nnf:
    """At least ``count`` of the parts, with constants folded."""
    count -= sum(part == TRUE for part in parts)
    unsettled = tuple(part for part in parts if part not in (TRUE, FALSE))
    if count <= 0:
        return TRUE
    if count > len(unsettled):
        return FALSE
    if len(unsettled) == 1:
        return unsettled[0]
    if count == 1:
        return Some(unsettled)
    return All(unsettled) if count == len(unsettled) else Count(count, unsettled)


@np.errstate(over="ignore", invalid="ignore")
def literal_values(space: ScoreSpace, rows: Rows, points: Floats) -> Floats:
    """Values [A, N] of the literals at points [N, n], in float64 without an error bound."""
    if space.head.is_affine:
        found: Floats = rows.rows @ points.T + rows.constants[:, None]
        return found
    return values_at(space, rows.literals, points)


@np.errstate(over="ignore", invalid="ignore")
def values_at(space: ScoreSpace, found: Sequence[Halfspace], points: Floats) -> Floats:
    """The same by way of the scores, for any head."""
    weight, bias = space.concept_map.floats
    scores = np.concatenate([space.head.floats(points), points @ weight.T + bias], axis=1)
    weights = space.coefficients(found)
    values: Floats = weights.scores @ scores.T + weights.constants[:, None]
    values += weights.coordinates @ points.T
    return values


def cone_values(space: ScoreSpace, literal: Cone, points: Floats) -> Floats:
    """``±(score − τ‖e‖)`` [N] of a ``has`` literal at points [N, n], in plain float64."""
    threshold = space.threshold(literal.concept)
    weight, bias = space.aligned.floats
    lengths = np.linalg.norm(points @ weight.T + bias, axis=1)
    row, constant = space.concept_row(literal.concept)
    values: Floats = points @ row.floats() + float(constant) - float(threshold) * lengths
    return values if literal.holds else -values
