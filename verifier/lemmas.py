"""The lemma engine: arbitrary Boolean structure over half-spaces of z, with certificates.

That is everything over an affine head, and what speaks of no logit over a ReLU head.

A propositional search proposes a set of literals that would satisfy the violation. A linear
program over the region either finds a point where they all hold (checked exactly: a
counterexample), or multipliers that show that they cannot; rounded to short rationals and checked
exactly, these become a lemma. When no set of literals is left, the lemmas are the proof.

Lemmas belong to the region, so specs of one region share them.

``has`` literals are cones. Where one is convex, tangents at the program's optimum are added until
it is described well enough; where it is not, half-spaces that bound the norm from above. If that
does not decide a spec on a box, its halves are tried.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from time import monotonic

import numpy as np

from conspec.encodings.exact import combination, nearest
from conspec.encodings.images import Shape, shape_maximum
from conspec.encodings.query import Query
from conspec.encodings.regions import Box, ConvexRegion
from conspec.encodings.rounding import Floats
from conspec.encodings.scores import ScoreSpace
from conspec.specs.rewrite import Cone, Literal, Nnf, literals
from conspec.verifier.ball import ball_optimum
from conspec.verifier.certificate import Certificate, Lemma, Part, Term
from conspec.verifier.cones import (
    Cut,
    SquareBound,
    direction_at,
    is_convex,
    secant_cut,
    square_bound,
    tangent_cut,
)
from conspec.verifier.linear import (
    LinearProgram,
    LinearRow,
    Optimum,
    exact_multipliers,
    exact_parameters,
)
from conspec.verifier.propositional import Search, TooHard
from conspec.verifier.splitting import Known, Outcome, prove_in_pieces
from conspec.verifier.verdict import Proved, Reason, Trust, Unknown, Verdict, Violated, Witness
from conspec.verifier.witness import validated_at

PRECISIONS = (8, 16, 32, 52)
"""Bits of the multipliers, tried in this order, before the exact ones of the basis."""
CONE_ROUNDS = 12
"""Cuts added to each ``has`` literal in one search for a point."""
INNER_ROUNDS = 3
"""Steps from an optimum towards a point where the ``has`` literals hold, in each round."""
STALLED = 0.05
"""A box is split when a round lowers the margin by less than this share of it."""
PROGRESS = 1e-9
"""A new cut must lower the optimum's scaled margin at its point by this."""


@dataclass(frozen=True, eq=False)
class _Row:
    """A row that a literal implies: itself, or a cut of its cone."""

    literal: Literal
    strict: bool
    linear: LinearRow
    impossible: bool = False
    direction: tuple[Fraction, ...] = ()
    norm: Fraction | None = None

    def value(self, optimum: Optimum) -> float:
        """The scaled value at an optimum's point, in float64."""
        row, constant = self.linear.floats
        return float(row @ optimum.parameters) + constant


@dataclass(frozen=True, eq=False)
class _SharedLemma:
    """A lemma of the region: rows of literals, with multipliers."""

    rows: tuple[_Row, ...]
    multipliers: tuple[Fraction, ...]

    def for_query(self, places: dict[Literal, int]) -> Lemma | None:
        """The lemma in a query's numbering; None if the query lacks one of its literals."""
        if any(row.literal not in places for row in self.rows):
            return None
        pairs = zip(self.rows, self.multipliers, strict=True)
        return Lemma(tuple(Term(places[r.literal], m, r.direction, r.norm) for r, m in pairs))


@dataclass(eq=False)
class LemmaEngine:
    """All queries of one region whose half-spaces are half-spaces of z (``Query.is_affine``)."""

    space: ScoreSpace
    region: ConvexRegion
    _rows: list[_Row] = field(default_factory=list)
    _of_literal: dict[Literal, list[int]] = field(default_factory=dict)
    _lemmas: dict[Literal, list[_SharedLemma]] = field(default_factory=dict)
    _program: LinearProgram | None = None

    def decide(self, query: Query, violation: Nnf, seconds: float) -> Verdict:
        """The verdict, with a certificate if it is a proof.

        The certificate speaks of the query's own violation, so the reduced one is not used.
        """
        deadline = monotonic() + seconds
        try:
            outcome = self._refuted(query, {}, deadline)
        except OverflowError as error:
            self._program = None  # it lacks the row that did not fit
            return Unknown(Reason.SOLVER_FAILED, str(error))
        part: Part | Violated | Unknown = outcome
        if isinstance(outcome, Unknown) and outcome.reason is Reason.CONE_PRECISION:
            part = self._in_pieces(query, outcome, deadline)
        if isinstance(part, Violated | Unknown):
            return part
        return Proved(Trust.CERTIFIED, certificate=Certificate((part,)))

    def _in_pieces(
        self, query: Query, undecided: Unknown, deadline: float
    ) -> Part | Violated | Unknown:
        """The same by splitting the region, if it is a box."""
        if not isinstance(self.region, Box):
            return undecided

        def attempt(half: Box, known: Known) -> tuple[Outcome, Known]:
            engine = LemmaEngine(self.space, half)
            on_half = replace(query, region=half)
            outcome = engine._refuted(on_half, known, deadline)
            return outcome, {**known, **engine._inheritance(on_half)}

        return prove_in_pieces(self.space, self.region, self._inheritance(query), attempt)

    def _refuted(self, query: Query, known: Known, deadline: float) -> Outcome:
        """The lemmas that refute a query's violation, or a counterexample, or why neither."""
        target = query.constrained
        places = _places(query)
        found = dict(known)
        for literal in places:
            self._prepare(literal)
        for lemma in self._numbered(places):
            found.setdefault(lemma.mask, lemma)
        search = Search(places, list(found))
        by_place = list(places)
        try:
            while (chosen := search.implicant(target)) is not None:
                if monotonic() > deadline:
                    return Unknown(Reason.TIME_LIMIT)
                active = [lit for place, lit in enumerate(by_place) if chosen >> place & 1]
                outcome = self._conjunction(query, active, deadline)
                if not isinstance(outcome, _SharedLemma):
                    return outcome
                new = outcome.for_query(places)
                if new is None:
                    raise RuntimeError("a new lemma speaks of literals that were not active")
                found[new.mask] = new
                search.lemmas.append(new.mask)
        except TooHard:
            return Unknown(Reason.TOO_HARD)
        return tuple(found[mask] for mask in search.used)

    def _numbered(self, places: dict[Literal, int]) -> list[Lemma]:
        """The lemmas known so far that speak of a query's literals alone, in its numbering."""
        shared = (lemma for literal in places for lemma in self._lemmas.get(literal, []))
        lemmas = (lemma.for_query(places) for lemma in shared)
        return [lemma for lemma in lemmas if lemma is not None]

    def _inheritance(self, query: Query) -> Known:
        """Lemmas that hold on every part of the region: bounds of the norm are its own."""
        lemmas = self._numbered(_places(query))
        return {
            lemma.mask: lemma for lemma in lemmas if all(term.norm is None for term in lemma.terms)
        }

    def _prepare(self, literal: Literal) -> None:
        """Gives a literal its first row, and a lemma if it cannot hold alone."""
        if literal in self._of_literal:
            return
        self._of_literal[literal] = []
        if isinstance(literal, Cone):
            center = self.region.center
            if self.region.shape is Shape.SIMPLEX:
                middle = np.full(self.region.parameters, 1.0 / self.region.parameters)
                center = self.region.at(self.region.into(middle))
            row = self._cone_row(literal, self.space.aligned.exact(center))
            if row is not None:
                self._add(row)
        else:
            weights, constant = self.space.row_over_z(literal)
            self._add(self._row(literal, (weights, constant, literal.strict)))

    @cached_property
    def _square(self) -> SquareBound | None:
        """The bound of the mapped embedding's squared norm on the region."""
        return square_bound(self.space, self.region)

    def _cone_row(self, literal: Cone, mapped: list[Fraction]) -> _Row | None:
        """A cut of a ``has`` literal, tight at a mapped embedding; None if there is none."""
        if is_convex(self.space, literal):
            direction = direction_at(mapped)
            return self._row(literal, tangent_cut(self.space, literal, direction), direction)
        if self._square is None:
            return None
        root = self._square.root_at(mapped)
        return self._row(literal, secant_cut(self.space, literal, self._square, root), norm=root)

    def _row(
        self,
        literal: Literal,
        cut: Cut,
        direction: tuple[Fraction, ...] = (),
        norm: Fraction | None = None,
    ) -> _Row:
        """A half-space over the region's parameters."""
        weights, constant = self.region.pull(cut[0], cut[1])
        highest, _ = shape_maximum(self.region.shape, weights)
        lowest, _ = shape_maximum(self.region.shape, weights.scaled(-1))
        size = max(abs(highest + constant), abs(constant - lowest))
        # A scale beyond float64 is cut; the row is divided by it exactly, whatever it is.
        scale = min(nearest(*size.as_integer_ratio()), sys.float_info.max)
        linear = LinearRow(weights, constant, scale or 1.0)
        impossible = highest + constant < 0 or (cut[2] and highest + constant == 0)
        return _Row(literal, cut[2], linear, impossible, direction, norm)

    def _append(self, row: _Row) -> int:
        """Takes a row into the linear program, inactive; its place."""
        self._rows.append(row)
        if self._program is not None:
            self._program.add(row.linear)
        return len(self._rows) - 1

    def _add(self, row: _Row) -> None:
        """Takes a row that its literal implies; if it alone is impossible, that is a lemma."""
        self._of_literal[row.literal].append(self._append(row))
        if row.impossible:
            self._keep(_SharedLemma((row,), (Fraction(1),)))

    def _keep(self, lemma: _SharedLemma) -> None:
        """Files a lemma under its first literal."""
        self._lemmas.setdefault(lemma.rows[0].literal, []).append(lemma)

    def _conjunction(
        self, query: Query, active: Sequence[Literal], deadline: float
    ) -> _SharedLemma | Violated | Unknown:
        """A lemma against a set of literals, a counterexample, or why there is neither."""
        cones = [literal for literal in active if isinstance(literal, Cone)]
        last = np.inf
        for _ in range(1 + CONE_ROUNDS * bool(cones)):
            places = [place for literal in active for place in self._of_literal[literal]]
            optimum = self._maximise(places, deadline - monotonic())
            if optimum is None:
                return Unknown(Reason.SOLVER_FAILED, "the linear program was not solved")
            rows = [self._rows[place] for place in places]
            found = self._point(query, rows, optimum) or self._refutation(rows, optimum)
            if found is None and cones:
                found = self._inner_point(query, places, cones, optimum)
            if found is not None:
                return Violated(found) if isinstance(found, Witness) else found
            if monotonic() > deadline:
                return Unknown(Reason.TIME_LIMIT)
            stalled = last - optimum.margin < STALLED * optimum.margin
            if not self._cut(cones, optimum) or (stalled and isinstance(self.region, Box)):
                break
            last = optimum.margin
        return Unknown(Reason.CONE_PRECISION if cones else Reason.MARGIN_IN_TOLERANCE)

    def _inner_point(
        self, query: Query, places: Sequence[int], cones: Sequence[Cone], optimum: Optimum
    ) -> Witness | None:
        """A counterexample near an optimum at which a cone that is not convex fails.

        Tangents imply such a cone, so it is replaced by one, at the point reached so far.
        """
        bent = [literal for literal in cones if not is_convex(self.space, literal)]
        others = [place for place in places if self._rows[place].literal not in bent]
        for _ in range(INNER_ROUNDS if bent else 0):
            direction = direction_at(self._mapped(optimum))
            cuts = [(literal, tangent_cut(self.space, literal, direction)) for literal in bent]
            inner = [self._append(self._row(literal, cut)) for literal, cut in cuts]
            chosen = [*others, *inner]
            found = self._maximise(chosen, 1.0)
            if found is None:
                return None
            witness = self._point(query, [self._rows[place] for place in chosen], found)
            if witness is not None or found.margin < -1e-7:
                return witness
            optimum = found
        return None

    def _mapped(self, optimum: Optimum) -> list[Fraction]:
        """The mapped embedding at an optimum."""
        return self.space.aligned.exact(self.region.at(self.region.into(optimum.parameters)))

    def _maximise(self, places: Sequence[int], seconds: float) -> Optimum | None:
        """The optimum of the rows over the region."""
        if not places:
            middle = np.zeros(self.region.parameters)
            return Optimum(1.0, middle, np.zeros(0), (), ())
        if self.region.shape is Shape.BALL:
            return ball_optimum([self._rows[place].linear for place in places])
        if self._program is None:
            self._program = LinearProgram(self.region.shape, self.region.parameters)
            for row in self._rows:
                self._program.add(row.linear)
        return self._program.maximise(places, seconds)

    def _point(self, query: Query, rows: Sequence[_Row], optimum: Optimum) -> Witness | None:
        """A counterexample at the optimum, in float64 or, at a margin of zero, exactly."""
        if optimum.margin < -1e-7:
            return None
        witness = validated_at(query, self.region.into(optimum.parameters))
        if witness is None and abs(optimum.margin) < 1e-7 and self._program is not None:
            linear = [row.linear for row in rows]
            exact = exact_parameters(linear, optimum, self.region.shape)
            witness = None if exact is None else validated_at(query, exact)
        return witness

    def _refutation(self, rows: Sequence[_Row], optimum: Optimum) -> _SharedLemma | None:
        """A lemma from the optimum's multipliers, short ones first; kept for later."""
        if optimum.margin > 1e-7:
            return None
        for values in self._multipliers(rows, optimum):
            pairs = [(row, m) for row, m in zip(rows, values, strict=True) if m > 0]
            if pairs and self._refutes(pairs):
                lemma = _SharedLemma(tuple(r for r, _ in pairs), tuple(m for _, m in pairs))
                self._keep(lemma)
                return lemma
        return None

    def _multipliers(self, rows: Sequence[_Row], optimum: Optimum) -> list[list[Fraction]]:
        """Candidates for exact multipliers, cheapest to check first."""
        found = [rounded(optimum.multipliers, bits) for bits in PRECISIONS]
        if optimum.margin > -1e-7 and self._program is not None:
            linear = [row.linear for row in rows]
            exact = exact_multipliers(linear, optimum, self.region.shape)
            found += [exact] if exact is not None else []
        return found

    def _refutes(self, pairs: Sequence[tuple[_Row, Fraction]]) -> bool:
        """Whether the weighted sum of the rows is impossible on the region, exactly."""
        total = combination([(m, row.linear.row) for row, m in pairs])
        constant = sum((m * row.linear.constant for row, m in pairs), Fraction(0))
        highest, exact = shape_maximum(self.region.shape, total)
        if highest + constant < 0:
            return True
        strict = any(row.strict for row, _ in pairs)
        return strict and exact and highest + constant == 0

    def _cut(self, cones: Sequence[Cone], optimum: Optimum) -> bool:
        """Adds a cut to each cone at the optimum, if it cuts; whether any was added."""
        mapped = self._mapped(optimum) if cones else []
        added = False
        for literal in cones:
            row = self._cone_row(literal, mapped)
            if row is not None and row.value(optimum) < optimum.margin - PROGRESS:
                self._add(row)
                added = True
        return added


def _places(query: Query) -> dict[Literal, int]:
    """The literals of a query's violation, numbered."""
    return {literal: place for place, literal in enumerate(literals(query.constrained))}


def rounded(multipliers: Floats, bits: int) -> list[Fraction]:
    """Multipliers as multiples of ``2**-bits`` of the largest; relative size is all that counts."""
    largest = float(multipliers.max(initial=0.0))
    if not largest or not np.isfinite(largest):
        return [Fraction(0)] * len(multipliers)
    return [Fraction(round(float(value) / largest * 2**bits), 2**bits) for value in multipliers]
