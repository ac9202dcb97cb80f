"""Negation normal form: the same truth, and nothing left but half-spaces and cones."""

import itertools
from fractions import Fraction
from typing import assert_never

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conspec.specs import Scores, holds, literals, negation_normal_form, parse_formula
from conspec.specs.errors import UnknownName
from conspec.specs.formula import (
    AtLeast,
    AtMost,
    Coordinate,
    Formula,
    Has,
    Iff,
    Logit,
    Not,
    Predict,
    Score,
    Stronger,
)
from conspec.specs.rewrite import All, Cone, Count, Halfspace, Nnf, Some
from tests import strategies as tree

# Few values, so that ties, the heart of the matter, are common.
VALUES = st.sampled_from([Fraction(value) for value in (-1, 0, 0, 1)] + [Fraction(1, 3)])
SMALL = st.sampled_from([Fraction(value) for value in (-2, -1, 0, 1, 2)])


def scores(classes: tuple[str, ...] = tree.CLASSES) -> st.SearchStrategy[Scores]:
    concepts = st.fixed_dictionaries(dict.fromkeys(tree.CONCEPTS, VALUES))
    logits = st.fixed_dictionaries(dict.fromkeys(classes, VALUES))
    embedding = st.lists(VALUES, min_size=tree.COORDINATES, max_size=tree.COORDINATES)
    return st.builds(Scores, logits, concepts, concepts, concepts, embedding)


def nnf_holds(nnf: Nnf, scores: Scores) -> bool:
    match nnf:
        case Halfspace(terms, constant, strict):
            total = constant
            for weight, symbol in terms:
                match symbol:
                    case Logit(label):
                        total += weight * Fraction(scores.logits[label])
                    case Score(concept):
                        total += weight * Fraction(scores.concepts[concept])
                    case Coordinate(index):
                        total += weight * Fraction(scores.embedding[index])
            return total > 0 if strict else total >= 0
        case Cone(concept, positive):
            return holds(Has(concept), scores) == positive
        case All(operands):
            return all(nnf_holds(operand, scores) for operand in operands)
        case Some(operands):
            return any(nnf_holds(operand, scores) for operand in operands)
        case Count(count, operands):
            return sum(nnf_holds(operand, scores) for operand in operands) >= count
        case _:
            assert_never(nnf)


def nodes(nnf: Nnf) -> list[Nnf]:
    if isinstance(nnf, Halfspace | Cone):
        return [nnf]
    return [nnf, *(inner for operand in nnf.operands for inner in nodes(operand))]


@settings(deadline=None, max_examples=100)
@given(tree.formulas(coefficients=SMALL), scores())
def test_it_means_the_same(formula: Formula, values: Scores) -> None:
    true = holds(formula, values)
    assert nnf_holds(negation_normal_form(formula, tree.CLASSES), values) == true
    assert nnf_holds(negation_normal_form(formula, tree.CLASSES, negate=True), values) != true


@settings(deadline=None, max_examples=100)
@given(tree.formulas(coordinates=tree.COORDINATES))
def test_negation_twice_is_the_formula(formula: Formula) -> None:
    plain = negation_normal_form(formula, tree.CLASSES)
    assert negation_normal_form(Not(Not(formula)), tree.CLASSES) == plain
    assert negation_normal_form(Not(formula), tree.CLASSES, negate=True) == plain


@settings(deadline=None, max_examples=100)
@given(tree.formulas(coordinates=tree.COORDINATES), st.booleans())
def test_its_shape(formula: Formula, negate: bool) -> None:
    whole = negation_normal_form(formula, tree.CLASSES, negate=negate)
    for node in nodes(whole):
        match node:
            case All(operands) | Some(operands):
                assert len(operands) != 1
                assert node is whole or operands
                assert not any(isinstance(operand, type(node)) for operand in operands)
            case Count(count, operands):
                assert 1 < count < len(operands)
            case Halfspace(terms, _, _):
                symbols = [symbol for _, symbol in terms]
                assert all(weight for weight, _ in terms)
                assert 0 < len(symbols) == len(set(symbols))
    found = literals(whole)
    assert found == list(dict.fromkeys(n for n in nodes(whole) if isinstance(n, Halfspace | Cone)))


@pytest.mark.parametrize("kind", [AtLeast, AtMost])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("negate", [False, True])
def test_every_cardinality(kind: type[AtLeast | AtMost], size: int, negate: bool) -> None:
    names = "abcd"[:size]
    for count in range(size + 2):
        formula = kind(count, tuple(parse_formula(f"{name} > 0") for name in names))
        nnf = negation_normal_form(formula, [], negate=negate)
        for values in itertools.product([0, 1], repeat=size):
            scores = Scores({}, dict(zip(names, values, strict=True)))
            expected = sum(values) >= count if kind is AtLeast else sum(values) <= count
            assert holds(formula, scores) == expected
            assert nnf_holds(nnf, scores) == (expected != negate)


def lead(a: str, b: str, *, strict: bool) -> Halfspace:
    terms = sorted([(Fraction(1), Logit(a)), (Fraction(-1), Logit(b))], key=lambda t: t[1].label)
    return Halfspace(tuple(terms), Fraction(0), strict)


def test_predict_is_a_strict_win_against_every_rival() -> None:
    classes = ["a", "b", "c"]
    wins = (lead("b", "a", strict=True), lead("b", "c", strict=True))
    assert negation_normal_form(Predict("b"), classes) == All(wins)


def test_not_predict_is_some_rival_at_least_level() -> None:
    # One query in which all rivals beat the class at once is the peer's wrong negation.
    classes = ["a", "b", "c"]
    losses = (lead("a", "b", strict=False), lead("c", "b", strict=False))
    assert negation_normal_form(Predict("b"), classes, negate=True) == Some(losses)


def test_predict_with_few_classes() -> None:
    assert negation_normal_form(Predict("a"), ["a"]) == All(())
    assert negation_normal_form(Predict("a"), ["a"], negate=True) == Some(())
    assert negation_normal_form(Predict("a"), ["a", "b"]) == lead("a", "b", strict=True)


@pytest.mark.parametrize("classes", [[], ["b"], ["a", "a", "b"]])
def test_predict_needs_its_class_once(classes: list[str]) -> None:
    with pytest.raises(UnknownName, match=r"predict\(a\): the head must have this class exactly"):
        negation_normal_form(Predict("a"), classes)


def test_a_tie_is_not_stronger() -> None:
    terms = ((Fraction(-1), Score("a")), (Fraction(1), Score("b")))
    expected = Halfspace(terms, Fraction(0), strict=False)
    assert negation_normal_form(Stronger("a", "b"), [], negate=True) == expected


@pytest.mark.parametrize(
    ("text", "nnf"),
    [
        ("a > a", Some(())),
        ("a >= a", All(())),
        ("1 > 2 - 1", Some(())),
        ("1 >= 2 - 1", All(())),
        ("a > b and 1 > 0", parse_formula("a > b")),
        ("a > b or 1 < 0", parse_formula("a > b")),
        ("a > b and 1 < 0", Some(())),
        ("a > b or 1 > 0", All(())),
        ("atleast(0, a > b)", All(())),
        ("atleast(2, a > b)", Some(())),
        ("atmost(1, a > b)", All(())),
        ("atleast(2, a > b, true, false)", parse_formula("a > b")),
        ("atmost(0, a > b, false)", parse_formula("not a > b")),
    ],
)
def test_folding(text: str, nnf: Nnf | Formula) -> None:
    expected = nnf if isinstance(nnf, All | Some) else negation_normal_form(nnf, [])  # type: ignore[arg-type]
    assert negation_normal_form(parse_formula(text), []) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a > b", "b < a"),
        ("a > b", "score(a) > score(b)"),
        ("a > b", "score(a) - score(b) > 0"),
        ("not (a >= b)", "b > a"),
        ("logit(c) + a >= 1", "a - 1 >= -logit(c)"),
    ],
)
def test_equal_literals_are_equal(one: str, other: str) -> None:
    rewritten = [negation_normal_form(parse_formula(text), []) for text in (one, other)]
    assert rewritten[0] == rewritten[1]


def test_nothing_is_rescaled() -> None:
    [literal] = literals(negation_normal_form(parse_formula("2*a > 2*b"), []))
    assert isinstance(literal, Halfspace)
    assert literal.terms == ((Fraction(2), Score("a")), (Fraction(-2), Score("b")))


def test_nested_equivalences_stay_small() -> None:
    formula: Formula = Stronger("a", "b")
    for index in range(90):
        formula = Iff(formula, Stronger(f"a{index}", "b"))
    nnf = negation_normal_form(formula, [], negate=True)
    assert len(literals(nnf)) == 2 * 91
