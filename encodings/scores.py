"""The exact functions a formula speaks about: logits, concept scores, and the mapped embedding.

Variables of the linear view are ``v = (z, y)``: the embedding, and the last hidden layer after its
ReLU (empty for an affine head). Every score is affine in ``v``; so a literal is one row over ``v``,
and a box around ``v`` bounds it, whether the head is affine or not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.exact import Vector, combination, nearest, vector, zeros
from conspec.encodings.network import Affine, Network
from conspec.specs.errors import BadFile, UnknownName
from conspec.specs.formula import Coordinate, Formula, Logit, Score, Symbol
from conspec.specs.rewrite import Halfspace, Literal, Nnf, literals, negation_normal_form

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Row = tuple[Vector, Fraction]
"""Coefficients over ``v`` and a constant: the literal's value is ``row · v + constant``."""


@dataclass(frozen=True, eq=False)
class ScoreSpace:
    """Exact head, concept map and alignment, with the names of their outputs.

    Attributes:
        classes: K names, one per logit.
        concepts: M names, one per concept score.
        head: z [n] → logits [K].
        concept_map: z [n] → concept scores [M]; its rows are unit directions times alignment.
        alignment: z [n] → mapped embedding [p], whose norm ``has`` needs; None if absent.
        thresholds: calibrated cosine threshold per concept that has one.
    """

    classes: tuple[str, ...]
    concepts: tuple[str, ...]
    head: Network
    concept_map: Affine
    alignment: Affine | None = None
    thresholds: Mapping[str, Fraction] = field(default_factory=dict)
    _negations: dict[Formula, Nnf] = field(default_factory=dict, repr=False)
    _rows: dict[int, tuple[Halfspace, Row]] = field(default_factory=dict, repr=False)
    _literals: dict[int, tuple[Nnf, list[Literal]]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuse parts whose sizes do not fit together."""
        if self.head.outputs != len(self.classes):
            raise BadFile(
                f"the head has {self.head.outputs} outputs for {len(self.classes)} classes"
            )
        if self.concept_map.outputs != len(self.concepts):
            raise BadFile(
                f"the concept map has {self.concept_map.outputs} outputs for "
                f"{len(self.concepts)} concepts"
            )
        parts = [self.concept_map.inputs]
        parts += [self.alignment.inputs] if self.alignment else []
        if any(size != self.head.inputs for size in parts):
            raise BadFile(
                f"the head reads {self.head.inputs} dimensions, but the concept map or the "
                f"alignment reads {parts}"
            )

    @property
    def dimension(self) -> int:
        """Length n of an embedding."""
        return self.head.inputs

    @property
    def hidden(self) -> int:
        """Length of the last hidden layer; 0 for an affine head."""
        return 0 if self.head.is_affine else self.head.affines[-1].inputs

    @cached_property
    def _positions(self) -> dict[Symbol, int]:
        """Each symbol's place among the scores: logits first, then concepts."""
        symbols: list[Symbol] = [Logit(name) for name in self.classes]
        symbols += [Score(name) for name in self.concepts]
        return {symbol: place for place, symbol in enumerate(symbols)}

    def position(self, symbol: Symbol) -> int:
        """Place of a symbol: the K logits, the M concept scores, then the n coordinates.

        Raises:
            UnknownName: the bundle has no such class, concept or coordinate.
        """
        match symbol:
            case Coordinate(index) if index < self.dimension:
                return len(self._positions) + index
            case Coordinate(index):
                text = f"coordinate {index}; embeddings have {self.dimension}"
            case _ if symbol in self._positions:
                return self._positions[symbol]
            case Logit(label):
                text = f"class '{label}'"
            case Score(concept):
                text = f"concept '{concept}'"
        raise UnknownName(f"the bundle has no {text}")

    def score_row(self, position: int) -> Row:
        """One score (or coordinate) as an exact row over ``v = (z, y)``."""
        outside = position - len(self._positions)
        if outside >= 0:
            unit = [0] * (self.dimension + self.hidden)
            unit[outside] = 1
            return Vector(tuple(unit)), Fraction(0)
        if position >= len(self.classes):
            weights, bias = self.concept_map.row(position - len(self.classes))
            return _joined(weights, zeros(self.hidden)), bias
        weights, bias = self.head.affines[-1].row(position)
        if self.head.is_affine:
            return weights, bias
        return _joined(zeros(self.dimension), weights), bias

    def negated(self, body: Formula) -> Nnf:
        """The negation of a formula in negation normal form; made once per formula.

        Raises:
            UnknownName: it names what the bundle does not have, or ``has`` without a threshold.
        """
        if body not in self._negations:
            negation = negation_normal_form(body, self.classes, negate=True)
            for literal in literals(negation):
                self._check(literal)
            self._negations[body] = negation
        return self._negations[body]

    def _check(self, literal: Literal) -> None:
        """Refuse a literal that has no meaning here."""
        if isinstance(literal, Halfspace):
            for _, symbol in literal.terms:
                self.position(symbol)
        else:
            _ = self.position(Score(literal.concept)), self.threshold(literal.concept), self.aligned

    def literals(self, nnf: Nnf) -> list[Literal]:
        """The distinct literals of a formula in order; found once per formula object."""
        known = self._literals.get(id(nnf))
        if known is None:
            known = self._literals[id(nnf)] = (nnf, literals(nnf))
        return known[1]

    def row(self, literal: Halfspace) -> Row:
        """A literal as an exact row over ``v``; made once per literal object."""
        known = self._rows.get(id(literal))
        if known is None:
            # The literal is kept too, so that its identity stays its own.
            known = self._rows[id(literal)] = (literal, self._row(literal))
        return known[1]

    def is_affine(self, literal: Halfspace) -> bool:
        """Whether a literal is a half-space of z: it names no logit of a ReLU head."""
        if self.head.is_affine:
            return True
        return not any(isinstance(symbol, Logit) for _, symbol in literal.terms)

    def row_over_z(self, literal: Halfspace) -> Row:
        """A literal as an exact row over z alone.

        Raises:
            ValueError: it names a logit of a ReLU head, so it is no half-space of z.
        """
        weights, constant = self.row(literal)
        if self.head.is_affine:
            return weights, constant
        if not self.is_affine(literal):
            raise ValueError("a logit of a ReLU head is no affine function of the embedding")
        return Vector(weights.numerators[: self.dimension], weights.denominator), constant

    def _row(self, literal: Halfspace) -> Row:
        parts = [(c, self.score_row(self.position(symbol))) for c, symbol in literal.terms]
        constant = sum((c * bias for c, (_, bias) in parts), literal.constant)
        return combination([(c, weights) for c, (weights, _) in parts]), constant

    @cached_property
    def matrix(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """All scores as float64 rows over ``v = (z, y)`` [K+M, n+h] and constants [K+M].

        Each entry is the exact one rounded to nearest (and exact where weights are floats).
        """
        weight, bias = self.head.affines[-1].floats
        concept_weight, concept_bias = self.concept_map.floats
        rows = np.zeros((len(bias) + len(concept_bias), self.dimension + self.hidden))
        rows[: len(bias), (self.dimension if self.hidden else 0) :] = weight
        rows[len(bias) :, : self.dimension] = concept_weight
        return rows, np.concatenate([bias, concept_bias])

    def coefficients(self, found: Sequence[Halfspace]) -> "Coefficients":
        """Half-spaces as sparse float64 coefficients; each entry rounded to nearest."""
        from scipy.sparse import csr_array

        starts = np.cumsum([0] + [len(literal.terms) for literal in found])
        terms = [term for literal in found for term in literal.terms]
        values = np.array([nearest(*factor.as_integer_ratio()) for factor, _ in terms])
        places = np.array([self.position(symbol) for _, symbol in terms], dtype=np.int64)
        shape = (len(found), len(self._positions) + self.dimension)
        table = csr_array((values, places, starts), shape=shape)
        constants = np.array([nearest(*lit.constant.as_integer_ratio()) for lit in found])
        width = len(self._positions)
        return Coefficients(table[:, :width], table[:, width:], constants)

    def with_hidden(self, point: Vector) -> Vector:
        """The exact ``v = (z, y)`` of an embedding."""
        if self.head.is_affine:
            return point
        values = point
        for affine in self.head.affines[:-1]:
            values = vector([max(value, Fraction(0)) for value in affine.exact(values)])
        return _joined(point, values)

    def concept_row(self, concept: str) -> Row:
        """A concept's score as an exact row over z."""
        return self.concept_map.row(self.position(Score(concept)) - len(self.classes))

    @property
    def aligned(self) -> Affine:
        """The alignment, which ``has`` needs.

        Raises:
            UnknownName: the bundle has none.
        """
        if self.alignment is None:
            raise UnknownName("has(…): the bundle has no alignment to measure cosines with")
        return self.alignment

    def threshold(self, concept: str) -> Fraction:
        """A concept's calibrated cosine threshold.

        Raises:
            UnknownName: it has none.
        """
        if concept not in self.thresholds:
            raise UnknownName(
                f"has({concept}): the bundle holds no calibrated threshold for '{concept}'; "
                "build the lens with attribute labels"
            )
        return self.thresholds[concept]

    def exact_has(self, concept: str, point: Vector) -> Fraction:
        """A number whose sign is that of ``score − τ·‖A z + d‖``: positive iff ``has`` holds.

        Both sides are squared where that keeps the order, so no root is taken.

        Raises:
            UnknownName: the concept has no calibrated threshold, or the bundle no alignment.
        """
        threshold = self.threshold(concept)
        weights, bias = self.concept_row(concept)
        score = weights.dot(point) + bias
        norm = sum((value * value for value in self.aligned.exact(point)), Fraction(0))
        return signed_square(score) - signed_square(threshold) * norm


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Half-spaces over scores and coordinates.

    Attributes:
        scores: sparse [A, K+M].
        coordinates: sparse [A, n].
        constants: [A].
    """

    scores: "csr_array"
    coordinates: "csr_array"
    constants: NDArray[np.float64]


def signed_square(value: Fraction) -> Fraction:
    """``|x|·x``: the square with the sign kept, so that it grows with x."""
    return value * abs(value)


def _joined(first: Vector, second: Vector) -> Vector:
    """The two vectors one after the other."""
    if not second.numerators:
        return first
    return vector([*first.fractions(), *second.fractions()])
