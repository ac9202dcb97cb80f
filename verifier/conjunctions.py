"""What ranges of single literals leave open, conjunction by conjunction.

A violation in disjunctive normal form is a few conjunctions. Multipliers that the ascent found
refute one of them if the weighted sum of its literals is below zero on the whole region: that is
established here with every rounding error paid for, and is a lemma of the certificate. A point
that satisfies one of them is a counterexample once it is validated exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from math import prod

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.bounds import extended_box
from conspec.encodings.images import Shape
from conspec.encodings.query import Query, fold
from conspec.encodings.regions import Box, ConvexRegion
from conspec.encodings.rounding import TINY, Bools, Floats, gamma, row_bounds
from conspec.encodings.scores import ScoreSpace
from conspec.specs.rewrite import Halfspace, Literal, Nnf
from conspec.verifier.ascent import Frame, Places, ascend
from conspec.verifier.certificate import Certificate, Lemma, Term
from conspec.verifier.device import Device
from conspec.verifier.screen import Ranges, Rows, single_lemmas
from conspec.verifier.verdict import Proved, Trust, Violated
from conspec.verifier.witness import validated_at

BRANCHES = 32
"""Conjunctions of a violation that are still tried one by one; more go to the lemma engine."""
BITS = 16
"""Significant bits of a multiplier, so that exact checking of it is cheap."""

Branch = tuple[Literal, ...]


def branches(nnf: Nnf) -> list[Branch] | None:
    """The conjunctions of a formula's disjunctive normal form; None if they are too many."""

    def join(count: int, parts: list[list[Branch] | None]) -> list[Branch] | None:
        known = [part for part in parts if part is not None]
        if len(known) < len(parts) or count not in (1, len(parts)):
            return None
        if count == 1 and len(parts) != 1:
            found = [branch for part in known for branch in part]
        elif prod(map(len, known)) > BRANCHES:
            return None
        else:
            found = [()]
            for part in known:
                found = [(*first, *second) for first in found for second in part]
        return found if len(found) <= BRANCHES else None

    def leaf(literal: Literal) -> list[Branch] | None:
        return [(literal,)]

    return fold(nnf, leaf, join)


def combined(rows: Rows, multipliers: Floats) -> tuple[Floats, Floats, tuple[Floats, Floats]]:
    """Weighted sums of the rows: rows [B, n+h], constants [B] and bounds of their errors.

    Args:
        rows: the A literals.
        multipliers: [B, A], non-negative and exact.
    """
    length = len(rows.literals)
    share = gamma(2 * length + 8)
    with np.errstate(over="ignore", invalid="ignore"):
        sums, constants = multipliers @ rows.rows, multipliers @ rows.constants
        off = multipliers @ rows.errors + share * (multipliers @ (np.abs(rows.rows) + rows.errors))
        shift = multipliers @ rows.constant_errors + share * (
            multipliers @ (np.abs(rows.constants) + rows.constant_errors)
        )
    tiny = 4 * (length + 1) * TINY
    return sums, constants, (off + tiny, shift + tiny)


def short(multipliers: Floats) -> Floats:
    """Multipliers with few significant bits; what is no finite positive number becomes 0."""
    usable = np.where(np.isfinite(multipliers) & (multipliers > TINY), multipliers, 0.0)
    mantissa, exponent = np.frexp(usable)
    rounded: Floats = np.ldexp(np.round(mantissa * 2.0**BITS), exponent - BITS)
    return np.where(np.isfinite(rounded), rounded, 0.0)


@dataclass(frozen=True, eq=False)
class _Asked:
    """A query that is still open, and its conjunctions that are.

    Attributes:
        place: its region.
        query: the query.
        waiting: places of its conjunctions that are neither refuted nor satisfied.
        lemmas: what refutes the others.
    """

    place: int
    query: Query
    waiting: set[int]
    lemmas: list[Lemma]


@dataclass(eq=False)
class Conjunctions:
    """The open queries of a block of formulas over R regions.

    Attributes:
        space: the score space.
        regions: the R regions.
        ranges: ranges of the block's literals over them.
        device: where the ascent is computed; numpy if None.
    """

    space: ScoreSpace
    regions: Sequence[ConvexRegion]
    ranges: Ranges
    device: Device | None = None
    _asked: dict[int, _Asked] = field(default_factory=dict)
    _owner: list[int] = field(default_factory=list)
    _literals: list[tuple[Halfspace, ...]] = field(default_factory=list)
    _verdicts: dict[int, Proved | Violated] = field(default_factory=dict)

    def decide(
        self, open_queries: Sequence[tuple[int, int, Query]]
    ) -> dict[int, Proved | Violated]:
        """Verdicts of what could be settled, by index.

        Args:
            open_queries: index, place of the region, and query.
        """
        for index, place, query in open_queries:
            self._ask(index, place, query)
        which = np.array([self._asked[owner].place for owner in self._owner], dtype=np.intp)
        for frame, members in self._frames():
            own = np.flatnonzero(np.isin(which, members))
            if own.size:
                inside = np.searchsorted(members, which[own])
                ascend(frame, self._chosen(own), inside, partial(self._settle, own), self.device)
        return self._verdicts

    def _ask(self, index: int, place: int, query: Query) -> None:
        """Takes in a query, unless one of its conjunctions is beyond the ascent."""
        found = branches(query.constrained)
        if found is None:
            return
        never = {
            literal
            for literal in self.space.literals(query.constrained)
            if self.ranges.never(literal)[place]
        }
        halves = [
            tuple(literal for literal in branch if isinstance(literal, Halfspace))
            for branch in found
            if never.isdisjoint(branch)
        ]
        if not all(halves):  # a conjunction of `has` literals alone
            return
        first = len(self._literals)
        waiting = set(range(first, first + len(halves)))
        lemmas = single_lemmas(self.space.literals(query.constrained), never)
        self._asked[index] = _Asked(place, query, waiting, lemmas)
        self._owner += [index] * len(halves)
        self._literals += halves

    def _chosen(self, own: Places) -> Bools:
        """The literals of some conjunctions: bool [B, A]."""
        chosen = np.zeros((len(own), len(self.ranges.rows.literals)), dtype=bool)
        for row, number in enumerate(own):
            chosen[row, [self.ranges.rows.place(lit) for lit in self._literals[number]]] = True
        return chosen

    def _frames(self) -> list[tuple[Frame, NDArray[np.intp]]]:
        """The boxes as one frame, each other region as its own; with the places of the regions."""
        rows, constants = self.ranges.rows.rows, self.ranges.rows.constants
        affine = self.space.head.is_affine
        boxes = [p for p, r in enumerate(self.regions) if isinstance(r, Box) or not affine]
        frames = []
        with np.errstate(over="ignore", invalid="ignore"):
            if boxes:
                ends = [extended_box(self.space, self.regions[place]) for place in boxes]
                lower, upper = (np.stack([end[side] for end in ends]) for side in (0, 1))
                middle, radius = lower / 2 + upper / 2, upper / 2 - lower / 2
                frame = Frame(Shape.CUBE, rows, middle @ rows.T + constants, radius)
                frames.append((frame, np.array(boxes, dtype=np.intp)))
            for place, region in enumerate(self.regions):
                if place not in boxes:
                    pulled, moved = region.pull_rough(rows, constants)
                    ones = np.ones((1, pulled.shape[1]))
                    frame = Frame(region.shape, pulled, moved[None], ones)
                    frames.append((frame, np.array([place], dtype=np.intp)))
        return frames

    def _settle(
        self, own: Places, places: Places, multipliers: Floats, points: Floats, margins: Floats
    ) -> Bools:
        """Judges the candidates of some conjunctions; which of them are settled."""
        numbers = own[places]
        weights = short(multipliers)
        regions = np.array([self._asked[self._owner[number]].place for number in numbers])
        for place in np.unique(regions):
            same = np.flatnonzero(regions == place)
            for index in same[self._refuted(int(place), weights[same])]:
                self._take_lemma(int(numbers[index]), weights[index])
        for index in np.flatnonzero(margins > 0):
            if not self._is_settled(int(numbers[index])):
                self._try_point(int(numbers[index]), points[index])
        return np.array([self._is_settled(int(number)) for number in numbers])

    def _refuted(self, place: int, multipliers: Floats) -> Bools:
        """Whether weighted sums of the literals are below zero on a whole region: bool [B]."""
        region = self.regions[place]
        rows, constants, errors = combined(self.ranges.rows, multipliers)
        if self.space.head.is_affine:
            _, upper = region.bounds(rows, constants, errors)
        else:
            lower, upper = extended_box(self.space, region)
            _, found = row_bounds(rows, constants, errors, lower[None], upper[None])
            upper = found[0]
        below: Bools = upper < 0
        return below

    def _take_lemma(self, number: int, multipliers: Floats) -> None:
        """Files the refutation of a conjunction; the last one of a query proves it."""
        asked = self._asked[self._owner[number]]
        known = self.space.literals(asked.query.constrained)
        weights = {lit: multipliers[self.ranges.rows.place(lit)] for lit in self._literals[number]}
        terms = tuple(
            Term(place, Fraction(float(weights[literal])))
            for place, literal in enumerate(known)
            if isinstance(literal, Halfspace) and weights.get(literal, 0.0) > 0
        )
        asked.waiting.discard(number)
        asked.lemmas.append(Lemma(terms))
        if not asked.waiting:
            certificate = Certificate((tuple(asked.lemmas),))
            proof = Proved(Trust.CERTIFIED, certificate=certificate)
            self._verdicts[self._owner[number]] = proof

    def _try_point(self, number: int, parameters: Floats) -> None:
        """Validates a candidate of a conjunction; a counterexample settles its query."""
        query = self._asked[self._owner[number]].query
        if not self.space.head.is_affine:
            if not isinstance(query.region, Box):
                return  # the parameters are those of the box around the region
            parameters = parameters[: query.region.parameters]
        witness = validated_at(query, query.region.into(parameters))
        if witness is not None:
            self._verdicts[self._owner[number]] = Violated(witness)

    def _is_settled(self, number: int) -> bool:
        """Whether nothing more is to be found for a conjunction."""
        owner = self._owner[number]
        return owner in self._verdicts or number not in self._asked[owner].waiting
