"""A suite's formulas, prepared once for evaluation on whole columns of scores.

Truth has three values here: surely true, surely false, and open, where a comparison lies within
rounding of a tie. Each is a pair of Boolean columns, and connectives act on both (Kleene's strong
logic), so an open atom leaves a formula open only if it can matter.

``a > b`` and ``predict(c) => a > b``, of which generated suites consist, are kept as arrays of
column numbers. Every other formula becomes one function of the truth of its atoms.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce
from typing import Any, assert_never

from conspec.encodings.exact import nearest
from conspec.encodings.scores import ScoreSpace
from conspec.specs.errors import BadUsage
from conspec.specs.formula import (
    And,
    AtLeast,
    AtMost,
    Compare,
    Constant,
    Formula,
    Has,
    Iff,
    Implies,
    Linear,
    Logit,
    Not,
    Or,
    Predict,
    Relation,
    Score,
    Stronger,
)

Tensor = Any  # torch.Tensor; torch is imported when first used
Pair = tuple[Tensor, Tensor]
"""Surely true and surely false, bool [N] each."""

NORM = -1
"""The column that holds the norm of the mapped embedding, which ``has`` needs."""


@dataclass(frozen=True, slots=True)
class Atom:
    """``Σ factor · column + constant > 0``; columns are positions of scores, or ``NORM``."""

    terms: tuple[tuple[Fraction, int], ...]
    constant: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of N embeddings: the truth of atoms [A, N], and the predicted class [N]."""

    true: Tensor
    false: Tensor
    predicted: Tensor  # −1 where no logit is strictly the greatest


Judge = Callable[[Facts], Pair]


@dataclass(frozen=True, eq=False)
class Program:
    """F distinct formulas: first the P simple ones, then the others.

    Attributes:
        columns: the C positions of scores (or ``NORM``) that any formula needs.
        left: place among the columns of the stronger concept of each simple formula, [P].
        right: of the weaker one, [P].
        premise: place of the class that a simple formula supposes predicted, or −1, [P].
        atoms: the A distinct atoms of the other formulas.
        judges: one function per other formula.
        row_of: which of the F formulas each question is about.
        predicts: whether any formula speaks of predictions.
    """

    columns: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    premise: tuple[int, ...]
    atoms: tuple[Atom, ...]
    judges: tuple[Judge, ...]
    row_of: tuple[int, ...]
    predicts: bool


def compiled(formulas: Sequence[Formula], space: ScoreSpace) -> Program:
    """Prepares formulas; equal ones, and equal atoms, are evaluated once.

    Raises:
        UnknownName: a formula names what the space does not have.
        BadUsage: a coefficient is beyond float64.
    """
    compiler = _Compiler(space)
    distinct = list(dict.fromkeys(formulas))
    simple, others = [], []
    for formula in distinct:
        found = compiler.simple(formula)
        if found is None:
            others.append((formula, compiler.judge(formula)))
        else:
            simple.append((formula, found))
    rows = {formula: row for row, (formula, _) in enumerate([*simple, *others])}
    used = {position for _, (a, b, _) in simple for position in (a, b)}
    used |= {position for atom in compiler.atoms for _, position in atom.terms}
    columns = tuple(sorted(used))
    place = {position: index for index, position in enumerate(columns)}
    return Program(
        columns,
        tuple(place[a] for _, (a, _, _) in simple),
        tuple(place[b] for _, (_, b, _) in simple),
        tuple(c for _, (_, _, c) in simple),
        tuple(compiler.atoms),
        tuple(judge for _, judge in others),
        tuple(rows[formula] for formula in formulas),
        compiler.predicts,
    )


@dataclass(eq=False)
class _Compiler:
    """Collects the atoms of formulas while it turns them into functions."""

    space: ScoreSpace
    atoms: dict[Atom, int] = field(default_factory=dict)
    predicts: bool = False
    _twins: dict[object, int] = field(default_factory=dict)

    def simple(self, formula: Formula) -> tuple[int, int, int] | None:
        """Two concepts' positions and the class supposed predicted, if it has such a shape."""
        match formula:
            case Stronger(a, b):
                return self.concept(a), self.concept(b), -1
            case Implies(Predict(label), Stronger(a, b)):
                return self.concept(a), self.concept(b), self.label(label)
            case _:
                return None

    def judge(self, formula: Formula) -> Judge:
        """A function from the truth of atoms to that of the formula."""
        match formula:
            case Constant(value):
                return lambda facts: _known(value, facts.predicted)
            case Stronger(a, b):
                return self.above(_score(a), _score(b))
            case Compare(left, relation, right):
                return self.compare(left, relation, right)
            case Predict(label):
                place = self.label(label)
                return lambda facts: _surely(facts.predicted == place)
            case Has(concept):
                return self.has(concept)
            case Not(operand):
                return _not(self.judge(operand))
            case And(operands):
                return _all([self.judge(each) for each in operands])
            case Or(operands):
                return _not(_all([_not(self.judge(each)) for each in operands]))
            case Implies(premise, conclusion):
                return _not(_all([self.judge(premise), _not(self.judge(conclusion))]))
            case Iff(one, other):
                return _same(self.judge(one), self.judge(other))
            case AtLeast(count, operands):
                return _at_least(count, [self.judge(each) for each in operands])
            case AtMost(count, operands):
                return _not(_at_least(count + 1, [self.judge(each) for each in operands]))
            case _:
                assert_never(formula)

    def concept(self, name: str) -> int:
        """Position of a concept, the first of those with exactly the same row.

        So a comparison of twins is one column against itself, and no tie that needs exact
        arithmetic on every embedding.
        """
        position = self.space.position(Score(name))
        row = position - len(self.space.classes)
        weight, bias = (part[row] for part in (self.space.concept_map.weight,
                                               self.space.concept_map.bias))  # fmt: skip
        content = tuple(weight) if weight.dtype == object else weight.tobytes()
        return self._twins.setdefault((content, Fraction(bias)), position)

    def label(self, name: str) -> int:
        """Place of a class that is to be predicted."""
        self.predicts = True
        return self.space.position(Logit(name))

    def compare(self, left: Linear, relation: Relation, right: Linear) -> Judge:
        """A comparison as a strict one or the negation of one."""
        match relation:
            case Relation.GT:
                return self.above(left, right)
            case Relation.LT:
                return self.above(right, left)
            case Relation.GE:
                return _not(self.above(right, left))
            case Relation.LE:
                return _not(self.above(left, right))
            case _:
                assert_never(relation)

    def above(self, left: Linear, right: Linear) -> Judge:
        """``left > right``."""
        weights: dict[int, Fraction] = {}
        for sign, side in ((1, left), (-1, right)):
            for weight, symbol in side.terms:
                match symbol:
                    case Score(concept):
                        place = self.concept(concept)
                    case _:
                        place = self.space.position(symbol)
                weights[place] = weights.get(place, Fraction(0)) + sign * weight
        terms = tuple((weight, place) for place, weight in sorted(weights.items()) if weight)
        return self.leaf(Atom(terms, left.constant - right.constant))

    def has(self, concept: str) -> Judge:
        """``score > τ · norm``."""
        threshold, _ = self.space.threshold(concept), self.space.aligned
        terms = ((Fraction(1), self.concept(concept)), (-threshold, NORM))
        return self.leaf(Atom(terms if threshold else terms[:1]))

    def leaf(self, atom: Atom) -> Judge:
        """The truth of an atom."""
        numbers = [atom.constant, *(factor for factor, _ in atom.terms)]
        if any(abs(nearest(*value.as_integer_ratio())) == float("inf") for value in numbers):
            raise BadUsage("a coefficient is too large for floating point")
        place = self.atoms.setdefault(atom, len(self.atoms))
        return lambda facts: (facts.true[place], facts.false[place])


def _score(concept: str) -> Linear:
    return Linear(((Fraction(1), Score(concept)),))


def _surely(column: Tensor) -> Pair:
    """A column that is known."""
    return column, ~column


def _known(value: bool, like: Tensor) -> Pair:
    import torch

    return _surely(torch.full_like(like, value, dtype=torch.bool))


def _not(judge: Judge) -> Judge:
    def negated(facts: Facts) -> Pair:
        true, false = judge(facts)
        return false, true

    return negated


def _all(judges: Sequence[Judge]) -> Judge:
    def conjunction(facts: Facts) -> Pair:
        pairs = [judge(facts) for judge in judges]
        true = reduce(lambda a, b: a & b, [pair[0] for pair in pairs])
        return true, reduce(lambda a, b: a | b, [pair[1] for pair in pairs])

    return conjunction


def _same(one: Judge, other: Judge) -> Judge:
    def equivalence(facts: Facts) -> Pair:
        (a, not_a), (b, not_b) = one(facts), other(facts)
        return (a & b) | (not_a & not_b), (a & not_b) | (not_a & b)

    return equivalence


def _at_least(count: int, judges: Sequence[Judge]) -> Judge:
    def cardinality(facts: Facts) -> Pair:
        import torch

        pairs = [judge(facts) for judge in judges]
        true, false = (torch.stack([pair[side] for pair in pairs]).sum(0) for side in (0, 1))
        return true >= count, false > len(judges) - count

    return cardinality
