"""What a formula means: on one embedding exactly, and on a batch in floating point.

``holds`` is the definition; every encoding and every solver is tested against it. ``truth`` and
``margin`` are the same for a whole batch of images, on numpy arrays and torch tensors alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce
from typing import assert_never

from conspec.specs.columns import Array, Columns, ScoreBatch
from conspec.specs.errors import UnknownName
from conspec.specs.formula import (
    And,
    AtLeast,
    AtMost,
    Compare,
    Constant,
    Coordinate,
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

__all__ = ["Number", "ScoreBatch", "Scores", "holds", "margin", "truth"]

Number = float | Fraction


@dataclass(frozen=True, slots=True)
class Scores:
    """All scores of one embedding, by name.

    ``cosines`` and ``thresholds`` are needed only for ``has``, ``embedding`` only for ``z(i)``.
    """

    logits: Mapping[str, Number]
    concepts: Mapping[str, Number]
    cosines: Mapping[str, Number] = field(default_factory=dict)
    thresholds: Mapping[str, Number] = field(default_factory=dict)
    embedding: Sequence[Number] = ()


def holds(formula: Formula, scores: Scores) -> bool:
    """Whether the formula is true of one embedding, in exact arithmetic.

    Floats count as the rational numbers they are.

    Raises:
        UnknownName: the formula names a class or concept without a score.
    """
    match formula:
        case Constant(value):
            return value
        case Stronger(a, b):
            return _get(scores.concepts, a, "concept") > _get(scores.concepts, b, "concept")
        case Predict(label):
            own = _get(scores.logits, label, "class")
            return all(own > other for name, other in scores.logits.items() if name != label)
        case Has(concept):
            cosine = _get(scores.cosines, concept, "cosine")
            return cosine > _get(scores.thresholds, concept, "threshold")
        case Compare(left, relation, right):
            difference = _exact(left, scores) - _exact(right, scores)
            return bool(_related(difference, relation))
        case Not(operand):
            return not holds(operand, scores)
        case And(operands):
            return all(holds(operand, scores) for operand in operands)
        case Or(operands):
            return any(holds(operand, scores) for operand in operands)
        case Implies(premise, conclusion):
            return not holds(premise, scores) or holds(conclusion, scores)
        case Iff(left_side, right_side):
            return holds(left_side, scores) == holds(right_side, scores)
        case AtLeast(count, operands):
            return sum(holds(operand, scores) for operand in operands) >= count
        case AtMost(count, operands):
            return sum(holds(operand, scores) for operand in operands) <= count
        case _:
            assert_never(formula)


def _exact(linear: Linear, scores: Scores) -> Fraction:
    total = linear.constant
    for weight, symbol in linear.terms:
        match symbol:
            case Logit(label):
                value = _get(scores.logits, label, "class")
            case Score(concept):
                value = _get(scores.concepts, concept, "concept")
            case Coordinate(index):
                if index >= len(scores.embedding):
                    raise UnknownName(f"z({index}): the embedding has no such coordinate")
                value = scores.embedding[index]
            case _:
                assert_never(symbol)
        total += weight * Fraction(value)
    return total


def _get(values: Mapping[str, Number], name: str, kind: str) -> Number:
    if name not in values:
        raise UnknownName(f"no {kind} for '{name}' among the scores")
    return values[name]


def _related(difference: Array, relation: Relation) -> Array:
    """Compares ``left - right`` with zero; on numbers and on arrays."""
    match relation:
        case Relation.GT:
            return difference > 0
        case Relation.GE:
            return difference >= 0
        case Relation.LT:
            return difference < 0
        case Relation.LE:
            return difference <= 0
        case _:
            assert_never(relation)


def truth(formula: Formula, batch: ScoreBatch) -> Array:
    """Whether the formula holds, per image: bool, shape [N].

    Comparisons are computed in float64. Those of two scores are exact; a linear comparison is
    rounded and may differ from ``holds`` where its sides agree to within that rounding.

    Raises:
        UnknownName: the formula names a class or concept that the batch has no column for.
        BadUsage: ``has`` without cosines or threshold, or a coefficient beyond float64.
    """
    columns = Columns(batch)

    def true_of(operand: Formula) -> Array:
        match operand:
            case Constant(value):
                return columns.full(value, columns.space.bool)
            case Compare(_, relation, _):
                return _related(columns.difference(operand), relation)
            case Stronger() | Predict() | Has():
                return columns.margin(operand) > 0
            case Not(inner):
                return ~true_of(inner)
            case And(operands):
                return reduce(lambda a, b: a & b, [true_of(each) for each in operands])
            case Or(operands):
                return reduce(lambda a, b: a | b, [true_of(each) for each in operands])
            case Implies(premise, conclusion):
                return ~true_of(premise) | true_of(conclusion)
            case Iff(left, right):
                return true_of(left) == true_of(right)
            case AtLeast(count, operands):
                return columns.space.stack([true_of(each) for each in operands]).sum(0) >= count
            case AtMost(count, operands):
                return columns.space.stack([true_of(each) for each in operands]).sum(0) <= count
            case _:
                assert_never(operand)

    return true_of(formula)


def margin(formula: Formula, batch: ScoreBatch) -> Array:
    """How far the formula is from changing its truth, per image: float64, shape [N].

    A positive margin means true, a negative one false; at zero a comparison decides that is
    exactly a tie, and ``truth`` tells. ``and`` takes the least margin, ``or`` the greatest,
    ``not`` the opposite, "at least k" the k-th greatest; constants are ±infinity.

    Raises:
        UnknownName: as for ``truth``.
        BadUsage: as for ``truth``.
    """
    columns = Columns(batch)
    lesser, greater = columns.space.minimum, columns.space.maximum

    def margin_of(operand: Formula) -> Array:
        match operand:
            case Constant(value):
                return columns.infinite(value)
            case Compare(_, relation, _):
                difference = columns.difference(operand)
                return difference if relation in (Relation.GT, Relation.GE) else -difference
            case Stronger() | Predict() | Has():
                return columns.margin(operand)
            case Not(inner):
                return -margin_of(inner)
            case And(operands):
                return reduce(lesser, [margin_of(each) for each in operands])
            case Or(operands):
                return reduce(greater, [margin_of(each) for each in operands])
            case Implies(premise, conclusion):
                return greater(-margin_of(premise), margin_of(conclusion))
            case Iff(left, right):
                a, b = margin_of(left), margin_of(right)
                return greater(lesser(a, b), lesser(-a, -b))
            case AtLeast(count, operands):
                return columns.greatest(count, [margin_of(each) for each in operands])
            case AtMost(count, operands):
                # At most k hold exactly if not k + 1 of them do.
                return -columns.greatest(count + 1, [margin_of(each) for each in operands])
            case _:
                assert_never(operand)

    return margin_of(formula)
