"""Splitting a violation into cases loses nothing and adds nothing."""

from collections.abc import Mapping
from fractions import Fraction
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conspec.encodings.query import truth_and_margin
from conspec.specs import parse_formula
from conspec.specs.formula import Formula
from conspec.specs.rewrite import (
    All,
    Count,
    Halfspace,
    Literal,
    Nnf,
    Some,
    literals,
    negation_normal_form,
)
from conspec.verifier.cases import CASES, cases_of, literals_of
from tests import strategies as tree
from tests.spaces import CLASSES, CONCEPTS, CONSTANTS

modest = settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
FORMULAS = tree.formulas(CLASSES, CONCEPTS, has=True, coefficients=CONSTANTS, max_leaves=10)


def true_at(nnf: Nnf, values: Mapping[Literal, Fraction]) -> bool:
    return truth_and_margin(nnf, lambda literal: values[literal])[0]


@modest
@given(FORMULAS, st.integers(1, 40), st.randoms(use_true_random=False))
def test_the_cases_together_are_the_violation(body: Formula, limit: int, random: Random) -> None:
    violation = negation_normal_form(body, CLASSES, negate=True)
    cases = cases_of(violation, limit)
    assert len(cases) <= limit
    for _ in range(10):
        values = {lit: Fraction(random.choice([-1, 1])) for lit in literals(violation)}
        assert any(true_at(case, values) for case in cases) is true_at(violation, values)


def test_a_prediction_has_one_case_per_other_class() -> None:
    violation = negation_normal_form(parse_formula("predict(x)"), CLASSES, negate=True)
    cases = cases_of(violation)
    assert len(cases) == len(CLASSES) - 1
    assert all(len(literals_of(case)) == 1 == len(case.operands) for case in cases)


def test_a_count_is_multiplied_out_only_while_there_is_room() -> None:
    parts = tuple(negation_normal_form(parse_formula(f"score(a) > {n}"), CLASSES) for n in range(6))
    assert len(cases_of(Count(3, parts), 20)) == 20
    (whole,) = cases_of(Count(3, parts), 19)
    assert whole == All((Count(3, parts),))


def test_the_smallest_disjunction_is_split_first() -> None:
    a, b, c, d, e = (
        negation_normal_form(parse_formula(f"score(a) > {n}"), CLASSES) for n in range(5)
    )
    cases = cases_of(All((Some((a, b, c)), Some((d, e)))), 3)
    assert [case.operands[0] for case in cases] == [d, e]
    assert all(isinstance(case.operands[1], Some) for case in cases)


def test_constants() -> None:
    assert cases_of(Some(())) == []
    assert cases_of(All(())) == [All(())]
    (literal,) = literals(negation_normal_form(parse_formula("score(a) > 1"), CLASSES))
    assert isinstance(literal, Halfspace)
    assert cases_of(All((literal, All((literal, All(())))))) == [All((literal,))]
    assert CASES >= 9  # a prediction among ten classes
