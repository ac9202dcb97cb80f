"""The question put to an engine: is there a z in the region where the formula fails?"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from conspec.encodings.exact import Vector
from conspec.encodings.onnx_reader import read_affine, read_network
from conspec.encodings.regions import ConvexRegion, build_regions
from conspec.encodings.scores import ScoreSpace
from conspec.lens.bundle import Lens
from conspec.specs.formula import ForAll
from conspec.specs.rewrite import (
    All,
    Cone,
    Count,
    Halfspace,
    Literal,
    Nnf,
    Some,
)


@dataclass(frozen=True, eq=False)
class Query:
    """One spec over one convex region.

    Attributes:
        spec: the spec, as written.
        space: the exact functions behind the scores.
        region: where to look; the spec's region, or one part of it if that is a union.
        part: which part of the union, counted from 0.
        cuts: further half-spaces that bound the region (a polytope, or a box around another
            region); ``region`` is then a superset of it.
    """

    spec: ForAll
    space: ScoreSpace
    region: ConvexRegion
    part: int = 0
    cuts: tuple[Halfspace, ...] = ()

    @cached_property
    def violation(self) -> Nnf:
        """The negated formula in negation normal form: what a counterexample satisfies."""
        return self.space.negated(self.spec.body)

    @cached_property
    def constrained(self) -> Nnf:
        """The violation together with the cuts of the region: what an engine has to refute."""
        return All((*self.cuts, self.violation)) if self.cuts else self.violation

    @cached_property
    def halfspaces(self) -> tuple[Halfspace, ...]:
        """The distinct half-spaces of the violation."""
        found = self.space.literals(self.violation)
        return tuple(literal for literal in found if isinstance(literal, Halfspace))

    @cached_property
    def cones(self) -> tuple[Cone, ...]:
        """The distinct ``has`` literals of the violation."""
        found = self.space.literals(self.violation)
        return tuple(literal for literal in found if isinstance(literal, Cone))

    @cached_property
    def is_affine(self) -> bool:
        """Whether all its half-spaces are half-spaces of z: no logit of a ReLU head occurs."""
        found = self.space.literals(self.constrained)
        halfspaces = [literal for literal in found if isinstance(literal, Halfspace)]
        return all(self.space.is_affine(literal) for literal in halfspaces)

    def margin(self, point: Vector) -> tuple[bool, Fraction]:
        """Whether the violation holds at an exact embedding, and by how much (exact).

        The margin is the usual one: minimum over conjunctions, maximum over disjunctions of
        the half-spaces' values. It is positive for every strict violation, and 0 for one by a tie.
        """
        return evaluate_at(self.violation, self.space, point)


def evaluate_at(nnf: Nnf, space: ScoreSpace, point: Vector) -> tuple[bool, Fraction]:
    """Truth and margin of a formula in negation normal form at an exact embedding."""
    full = space.with_hidden(point)

    def value(literal: Literal) -> Fraction:
        if isinstance(literal, Halfspace):
            weights, constant = space.row(literal)
            return weights.dot_plus(full, constant)
        excess = space.exact_has(literal.concept, point)
        return excess if literal.holds else -excess

    return truth_and_margin(nnf, value)


T = TypeVar("T")


def fold(nnf: Nnf, leaf: Callable[[Literal], T], join: Callable[[int, list[T]], T]) -> T:
    """Evaluates bottom-up, each shared node once; ``join(k, parts)`` is "at least k of them".

    A conjunction of n is "at least n", a disjunction "at least 1".
    """
    known: dict[int, T] = {}

    def visit(node: Nnf) -> T:
        if id(node) not in known:
            known[id(node)] = judge(node)
        return known[id(node)]

    def judge(node: Nnf) -> T:
        match node:
            case Halfspace() | Cone():
                return leaf(node)
            case All(operands):
                return join(len(operands), [visit(part) for part in operands])
            case Some(operands):
                return join(1, [visit(part) for part in operands])
            case Count(count, operands):
                return join(count, [visit(part) for part in operands])

    return visit(nnf)


def truth_and_margin(nnf: Nnf, value: Callable[[Literal], Fraction]) -> tuple[bool, Fraction]:
    """Truth and margin from the literals' values; true and false have margin 1 and −1."""

    def leaf(literal: Literal) -> tuple[bool, Fraction]:
        amount = value(literal)
        strict = literal.strict if isinstance(literal, Halfspace) else literal.holds
        return (amount > 0 if strict else amount >= 0), amount

    def join(count: int, parts: list[tuple[bool, Fraction]]) -> tuple[bool, Fraction]:
        if count == 0:
            return True, Fraction(1)
        if count > len(parts):
            return False, Fraction(-1)
        margins = sorted((margin for _, margin in parts), reverse=True)
        return sum(truth for truth, _ in parts) >= count, margins[count - 1]

    return fold(nnf, leaf, join)


_SPACES: dict[tuple[Path, str], ScoreSpace] = {}
"""The score space of the bundle used last, by folder and hash."""


def space_of(lens: Lens) -> ScoreSpace:
    """The exact score functions of a bundle, read from its ONNX files (once per bundle).

    Raises:
        BadFile: a file is damaged, or says something that the exact reader does not understand.
    """
    key = (lens.root, lens.hash)
    if key not in _SPACES:
        _SPACES.clear()
        _SPACES[key] = _read_space(lens)
    return _SPACES[key]


def _read_space(lens: Lens) -> ScoreSpace:
    thresholds = {name: lens.threshold(name) for name in lens.concepts}
    return ScoreSpace(
        classes=lens.classes,
        concepts=lens.concepts,
        head=read_network(lens.file("head.onnx"), softmax_allowed=True),
        concept_map=read_affine(lens.file("concept_map.onnx")),
        alignment=read_affine(lens.file("alignment.onnx")),
        thresholds={name: value for name, value in thresholds.items() if value is not None},
    )


def queries_of(spec: ForAll, lens: Lens, space: ScoreSpace) -> list[Query]:
    """One query per convex part of the spec's region.

    Raises:
        BadRegion: the region cannot be built from this bundle.
    """
    parts = build_regions(spec.region, lens)
    return [Query(spec, space, part.region, place, part.cuts) for place, part in enumerate(parts)]
