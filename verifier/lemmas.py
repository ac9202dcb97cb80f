"""The lemma engine: arbitrary Boolean structure over an affine head, with certificates.

A propositional search proposes a set of literals that would satisfy the violation. A linear
program over the region either finds a point where they all hold (checked exactly: a
counterexample), or multipliers that show that they cannot; rounded to short rationals and checked
exactly, these become a lemma. When no set of literals is left, the lemmas are the proof.

Lemmas belong to the region, so specs of one region share them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from time import monotonic

import numpy as np

from conspec.encodings.exact import Vector, combination
from conspec.encodings.images import Shape, shape_maximum
from conspec.encodings.query import Query
from conspec.encodings.regions import ConvexRegion
from conspec.encodings.rounding import Floats
from conspec.encodings.scores import ScoreSpace
from conspec.specs.rewrite import Cone, Halfspace, Literal, Nnf, literals
from conspec.verifier.ball import ball_optimum
from conspec.verifier.certificate import Certificate, Lemma, Term
from conspec.verifier.cones import direction_at, is_convex, secant_cut, tangent_cut
from conspec.verifier.linear import (
    LinearProgram,
    LinearRow,
    Optimum,
    exact_multipliers,
    exact_parameters,
)
from conspec.verifier.propositional import Search, TooHard
from conspec.verifier.verdict import Proved, Reason, Trust, Unknown, Verdict, Violated, Witness
from conspec.verifier.witness import validated_at

PRECISIONS = (8, 16, 32, 52)
"""Bits of the multipliers, tried in this order, before the exact ones of the basis."""
CONE_ROUNDS = 12
"""Tangent cuts added to one ``has`` literal in one search for a point."""


@dataclass(frozen=True, eq=False)
class _Row:
    """A row that a literal implies: itself, or a cut of its cone."""

    literal: Literal
    strict: bool
    linear: LinearRow
    direction: tuple[Fraction, ...] = ()


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
        return Lemma(tuple(Term(places[r.literal], m, r.direction) for r, m in pairs))


@dataclass(eq=False)
class LemmaEngine:
    """All queries of one region over an affine head."""

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
        target = query.constrained
        places = {literal: place for place, literal in enumerate(literals(target))}
        known: dict[int, Lemma] = {}
        for literal in places:
            self._prepare(literal)
            for shared in self._lemmas.get(literal, []):
                lemma = shared.for_query(places)
                if lemma is not None:
                    known.setdefault(lemma.mask, lemma)
        search = Search(places, list(known))
        by_place = list(places)
        try:
            while (chosen := search.implicant(target)) is not None:
                if monotonic() > deadline:
                    return Unknown(Reason.TIME_LIMIT)
                active = [lit for place, lit in enumerate(by_place) if chosen >> place & 1]
                outcome = self._conjunction(query, active, deadline)
                if not isinstance(outcome, _SharedLemma):
                    return outcome
                lemma = outcome.for_query(places)
                if lemma is None:
                    raise RuntimeError("a new lemma speaks of literals that were not active")
                known[lemma.mask] = lemma
                search.lemmas.append(lemma.mask)
        except TooHard:
            return Unknown(Reason.TOO_HARD)
        used = tuple(known[mask] for mask in search.used)
        return Proved(Trust.CERTIFIED, certificate=Certificate((used,)))

    def _prepare(self, literal: Literal) -> None:
        """Gives a literal its first row, and a lemma if it cannot hold alone."""
        if literal in self._of_literal:
            return
        self._of_literal[literal] = []
        if isinstance(literal, Halfspace):
            weights, constant = self.region.pull(*self.space.row(literal))
            self._add(literal, literal.strict, weights, constant, ())
        else:
            self._add_cone(literal, self.region.center.floats())

    def _add_cone(self, literal: Cone, point: Floats) -> None:
        """Gives a ``has`` literal a cut: tangent at a point, or the secant if not convex."""
        direction: tuple[Fraction, ...] = ()
        if is_convex(self.space, literal):
            direction = direction_at(self.space, point)
            row, constant, strict = tangent_cut(self.space, literal, direction)
        else:
            row, constant, strict = secant_cut(self.space, literal, self.region)
        self._add(literal, strict, *self.region.pull(row, constant), direction)

    def _add(
        self,
        literal: Literal,
        strict: bool,
        weights: Vector,
        constant: Fraction,
        direction: tuple[Fraction, ...],
    ) -> None:
        """Appends a row; if it alone is impossible, that is a lemma."""
        highest, _ = shape_maximum(self.region.shape, weights)
        lowest, _ = shape_maximum(self.region.shape, weights.scaled(-1))
        size = max(abs(highest + constant), abs(constant - lowest))
        scale = float(size) if size else 1.0
        row = _Row(literal, strict, LinearRow(weights, constant, scale or 1.0), direction)
        self._of_literal[literal].append(len(self._rows))
        self._rows.append(row)
        if self._program is not None:
            self._program.add(row.linear)
        if highest + constant < 0 or (strict and highest + constant == 0):
            self._keep(_SharedLemma((row,), (Fraction(1),)))

    def _keep(self, lemma: _SharedLemma) -> None:
        """Files a lemma under its first literal."""
        self._lemmas.setdefault(lemma.rows[0].literal, []).append(lemma)

    def _conjunction(
        self, query: Query, active: Sequence[Literal], deadline: float
    ) -> _SharedLemma | Verdict:
        """A lemma against a set of literals, a counterexample, or why there is neither."""
        cones = [literal for literal in active if isinstance(literal, Cone)]
        for _ in range(1 + CONE_ROUNDS * bool(cones)):
            places = [place for literal in active for place in self._of_literal[literal]]
            optimum = self._maximise(places, deadline - monotonic())
            if optimum is None:
                return Unknown(Reason.SOLVER_FAILED, "the linear program was not solved")
            rows = [self._rows[place] for place in places]
            found = self._point(query, rows, optimum) or self._refutation(rows, optimum)
            if found is not None:
                return Violated(found) if isinstance(found, Witness) else found
            if monotonic() > deadline:
                return Unknown(Reason.TIME_LIMIT)
            if not self._cut(cones, optimum):
                break
        return Unknown(Reason.UNSUPPORTED_ATOM if cones else Reason.MARGIN_IN_TOLERANCE)

    def _maximise(self, places: Sequence[int], seconds: float) -> Optimum | None:
        """The optimum of the rows over the region."""
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
        """Adds tangents at the optimum to the convex cones; whether any was added."""
        point = self.region.points(optimum.parameters[None])[0]
        convex = [literal for literal in cones if is_convex(self.space, literal)]
        for literal in convex:
            self._add_cone(literal, point)
        return bool(convex)


def rounded(multipliers: Floats, bits: int) -> list[Fraction]:
    """Multipliers as multiples of ``2**-bits`` of the largest; relative size is all that counts."""
    largest = float(multipliers.max(initial=0.0))
    if not largest or not np.isfinite(largest):
        return [Fraction(0)] * len(multipliers)
    return [Fraction(round(float(value) / largest * 2**bits), 2**bits) for value in multipliers]
