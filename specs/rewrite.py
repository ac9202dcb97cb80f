"""Negation normal form: the formula as a monotone combination of half-spaces and cones.

This file belongs to the trusted base of the certificate checker, which re-derives every atom
with it. It is therefore short, exact (``Fraction`` only), and follows one rule per node:

* ``a > b`` is ``score(a) - score(b) > 0``; its negation is ``score(b) - score(a) >= 0``.
* ``predict(c)`` is ``logit(c) - logit(k) > 0`` for *all* ``k != c``; its negation is
  ``logit(k) - logit(c) >= 0`` for *some* ``k != c``.
* ``not`` is pushed inward by De Morgan; "fewer than k of n hold" is "at least n-k+1 fail".

Each node is rewritten at most once per polarity, and the result shares what it built. Nested
``<=>`` thus stays small as a graph although the tree it denotes is exponential; passes over the
result should remember nodes by identity, as ``literals`` does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import assert_never

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
    Symbol,
)


@dataclass(frozen=True, slots=True)
class Halfspace:
    """``Σ coefficient · symbol + constant > 0`` when ``strict``, else ``>= 0``.

    Terms are sorted, distinct and non-zero, so equal literals are equal; nothing is rescaled.
    """

    terms: tuple[tuple[Fraction, Symbol], ...]
    constant: Fraction
    strict: bool


@dataclass(frozen=True, slots=True)
class Cone:
    """``has(concept)`` if ``holds``, else its negation."""

    concept: str
    holds: bool


@dataclass(frozen=True, slots=True)
class All:
    """Every operand holds; ``All(())`` is true."""

    operands: tuple["Nnf", ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one operand holds; ``Some(())`` is false."""

    operands: tuple["Nnf", ...]


@dataclass(frozen=True, slots=True)
class Count:
    """At least ``count`` operands hold, with ``1 < count < len(operands)``."""

    count: int
    operands: tuple["Nnf", ...]


Literal = Halfspace | Cone
Nnf = Literal | All | Some | Count

TRUE = All(())
FALSE = Some(())


def negation_normal_form(formula: Formula, classes: Sequence[str], *, negate: bool = False) -> Nnf:
    """Rewrites the formula, or its negation, so that no ``not`` is left.

    Args:
        formula: The formula, nested no deeper than the parser allows.
        classes: Every class of the head, once; ``predict`` compares with all of them.
        negate: Rewrite ``not formula`` instead.

    Raises:
        UnknownName: ``predict`` names a class that ``classes`` does not hold exactly once.
    """
    done: dict[tuple[int, bool], Nnf] = {}  # by id, which is safe: the root keeps nodes alive

    def rewrite(node: Formula, negate: bool) -> Nnf:
        key = (id(node), negate)
        if key in done:
            return done[key]
        result: Nnf
        match node:
            case Constant(value):
                result = FALSE if value == negate else TRUE
            case Stronger(a, b):
                result = _compare(_score(a), Relation.GT, _score(b), negate)
            case Compare(left, relation, right):
                result = _compare(left, relation, right, negate)
            case Predict(label):
                result = _predict(label, classes, negate)
            case Has(concept):
                result = Cone(concept, not negate)
            case Not(operand):
                result = rewrite(operand, not negate)
            case And(operands):
                parts = [rewrite(operand, negate) for operand in operands]
                result = _some(parts) if negate else _all(parts)
            case Or(operands):
                parts = [rewrite(operand, negate) for operand in operands]
                result = _all(parts) if negate else _some(parts)
            case Implies(premise, conclusion):
                parts = [rewrite(premise, not negate), rewrite(conclusion, negate)]
                result = _all(parts) if negate else _some(parts)
            case Iff(left, right):
                both = _all([rewrite(left, False), rewrite(right, negate)])
                neither = _all([rewrite(left, True), rewrite(right, not negate)])
                result = _some([both, neither])
            case AtLeast(count, operands):
                parts = [rewrite(operand, negate) for operand in operands]
                result = _count(len(parts) - count + 1 if negate else count, parts)
            case AtMost(count, operands):
                parts = [rewrite(operand, not negate) for operand in operands]
                result = _count(count + 1 if negate else len(parts) - count, parts)
            case _:
                assert_never(node)
        done[key] = result
        return result

    return rewrite(formula, negate)


def literals(nnf: Nnf) -> list[Literal]:
    """Returns the distinct literals in order of appearance."""
    found: dict[Literal, None] = {}
    seen: set[int] = set()
    todo: list[Nnf] = [nnf]
    while todo:
        node = todo.pop()
        if isinstance(node, Halfspace | Cone):
            found[node] = None
        elif id(node) not in seen:
            seen.add(id(node))
            todo.extend(reversed(node.operands))
    return list(found)


def _score(concept: str) -> Linear:
    return Linear(((Fraction(1), Score(concept)),))


def _logit(label: str) -> Linear:
    return Linear(((Fraction(1), Logit(label)),))


def _predict(label: str, classes: Sequence[str], negate: bool) -> Nnf:
    rivals = [rival for rival in classes if rival != label]
    if len(rivals) != len(classes) - 1:
        raise UnknownName(f"predict({label}): the head must have this class exactly once")
    wins = [_compare(_logit(label), Relation.GT, _logit(rival), negate) for rival in rivals]
    return _some(wins) if negate else _all(wins)


def _compare(left: Linear, relation: Relation, right: Linear, negate: bool) -> Nnf:
    """Brings a comparison, or its negation, into the form ``difference > 0`` or ``>= 0``."""
    upward = relation in (Relation.GT, Relation.GE)
    strict = relation in (Relation.GT, Relation.LT)
    # Negation turns the order round and swaps strictness: not (l > r) is r >= l.
    above, below = (left, right) if upward != negate else (right, left)
    return _halfspace(above, below, strict != negate)


def _halfspace(above: Linear, below: Linear, strict: bool) -> Nnf:
    """``above - below > 0`` or ``>= 0``; true or false when nothing but a constant remains."""
    weights: dict[Symbol, Fraction] = {}
    for sign, side in ((1, above), (-1, below)):
        for weight, symbol in side.terms:
            weights[symbol] = weights.get(symbol, Fraction(0)) + sign * weight
    terms = tuple((weight, symbol) for symbol, weight in weights.items() if weight)
    constant = above.constant - below.constant
    if terms:
        return Halfspace(tuple(sorted(terms, key=_order)), constant, strict)
    return TRUE if (constant > 0 if strict else constant >= 0) else FALSE


def _order(term: tuple[Fraction, Symbol]) -> tuple[int, str, int]:
    """Sorts logits, scores, coordinates, each by name or number."""
    match term[1]:
        case Logit(label):
            return 0, label, 0
        case Score(concept):
            return 1, concept, 0
        case Coordinate(index):
            return 2, "", index


def _all(parts: Iterable[Nnf]) -> Nnf:
    operands: list[Nnf] = []
    for part in parts:
        if part == FALSE:
            return FALSE
        operands.extend(part.operands if isinstance(part, All) else (part,))
    return operands[0] if len(operands) == 1 else All(tuple(operands))


def _some(parts: Iterable[Nnf]) -> Nnf:
    operands: list[Nnf] = []
    for part in parts:
        if part == TRUE:
            return TRUE
        operands.extend(part.operands if isinstance(part, Some) else (part,))
    return operands[0] if len(operands) == 1 else Some(tuple(operands))


def _count(count: int, parts: Sequence[Nnf]) -> Nnf:
    """At least ``count`` of ``parts``; constants among them are counted now."""
    count -= sum(part == TRUE for part in parts)
    operands = tuple(part for part in parts if part not in (TRUE, FALSE))
    if count <= 0:
        return TRUE
    if count == 1:
        return _some(operands)
    if count >= len(operands):
        return _all(operands) if count == len(operands) else FALSE
    return Count(count, operands)
