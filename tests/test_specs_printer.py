"""The printer and the parser are inverses."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conspec.specs import parse, parse_formula, parse_region, to_text
from conspec.specs.exact import read_number, write_number
from conspec.specs.formula import (
    And,
    Formula,
    Iff,
    Implies,
    Not,
    Or,
    Region,
    Score,
    Stronger,
    Suite,
)
from tests import strategies as tree

A, B, C = Stronger("a", "b"), Stronger("b", "c"), Stronger("c", "a")


@settings(deadline=None, max_examples=60)
@given(tree.formulas(coordinates=tree.COORDINATES))
def test_formula(formula: Formula) -> None:
    assert parse_formula(to_text(formula)) == formula


@settings(deadline=None, max_examples=60)
@given(tree.names.flatmap(lambda name: tree.formulas((name,), (name,), max_leaves=2)))
def test_formula_with_any_name(formula: Formula) -> None:
    assert parse_formula(to_text(formula)) == formula


@settings(deadline=None, max_examples=60)
@given(tree.regions())
def test_region(region: Region) -> None:
    assert parse_region(to_text(region)) == region


@settings(deadline=None, max_examples=60)
@given(tree.suites())
def test_suite(suite: Suite) -> None:
    text = to_text(suite)
    assert parse(text, classes=tree.CLASSES, concepts=tree.CONCEPTS) == suite
    assert to_text(parse(text)) == text


@settings(deadline=None, max_examples=60)
@given(tree.numbers())
def test_number(value: Fraction) -> None:
    text = write_number(abs(value))
    top, _, bottom = text.partition("/")
    assert read_number(top) / (read_number(bottom) if bottom else 1) == abs(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(3, 10), "0.3"),
        (Fraction(-1, 8), "-0.125"),
        (Fraction(1, 3), "1/3"),
        (Fraction(-2, 7), "-2/7"),
        (Fraction(0), "0"),
        (Fraction(100), "100"),
        (Fraction(1, 10**6), "0.000001"),
        (Fraction(1, 10**9), "1e-9"),
        (Fraction(125 * 10**30), "1.25e32"),
        (Fraction(0.1), "3602879701896397/36028797018963968"),
        (Fraction(1, 10**400), "1e-400"),
        (Fraction(10**401), str(10**401)),
    ],
)
def test_how_numbers_look(value: Fraction, text: str) -> None:
    assert write_number(value) == text


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        (And((And((A, B)), C)), "(a > b and b > c) and c > a"),
        (Or((And((A, B)), C)), "a > b and b > c or c > a"),
        (And((Or((A, B)), C)), "(a > b or b > c) and c > a"),
        (Not(A), "not (a > b)"),
        (Not(Not(A)), "not (not (a > b))"),
        (Implies(A, Implies(B, C)), "a > b => b > c => c > a"),
        (Implies(Implies(A, B), C), "(a > b => b > c) => c > a"),
        (Iff(Iff(A, B), C), "(a > b <=> b > c) <=> c > a"),
    ],
)
def test_parentheses(formula: Formula, text: str) -> None:
    assert to_text(formula) == text


def test_layout_is_that_of_the_design() -> None:
    text = """\
spec truck_wheels_over_wings:
    forall x in focus(truck, gamma=0.3):
        predict(x, truck) => wheels > wings

spec likely:
    probability >= 0.95 with confidence 0.99 for x in class(truck):
        wheels > wings or has(x, metallic)
"""
    assert to_text(parse(text)) == text


def test_a_suite_of_no_specs() -> None:
    assert parse(to_text(Suite(()))) == Suite(())


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(tree.ODD_NAMES))
def test_odd_names_in_every_place(name: str) -> None:
    formula = parse_formula(f"score({in_single_quotes(name)}) >= 0")
    assert Score(name) in [symbol for _, symbol in formula.left.terms]  # type: ignore[union-attr]


def in_single_quotes(name: str) -> str:
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"
