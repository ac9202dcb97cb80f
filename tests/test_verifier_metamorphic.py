"""What must not change a verdict, and how verdicts of related queries hang together."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conspec.encodings.network import Affine, Network
from conspec.encodings.query import Query
from conspec.encodings.regions import Box
from conspec.encodings.scores import ScoreSpace
from conspec.specs import formula as f
from conspec.verifier import Proved, Unknown, Violated, verify
from tests import oracle, spaces

modest = settings(
    max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
QUERIES = st.one_of(spaces.contested(spaces.spaces()), spaces.queries(spaces.spaces()))


def answer(query: Query, engine: str = "auto") -> type:
    return type(verify(query, engine))


def with_body(query: Query, body: f.Formula) -> Query:
    return replace(query, spec=replace(query.spec, body=body))


def permuted(layer: Affine, order: Sequence[int]) -> Affine:
    return Affine(layer.weight[list(order)], layer.bias[list(order)])


def scaled(layer: Affine, weight: float, bias: float) -> Affine:
    return Affine(layer.weight * weight, layer.bias * bias)


@modest
@given(QUERIES, st.sampled_from(["0", "1/3", "1"]), st.sampled_from(["0", "1/7", "1"]))
def test_shrinking_a_region_keeps_a_proof(query: Query, low: str, high: str) -> None:
    lower, upper = oracle.ends(query)
    start, share = Fraction(low) / 2, Fraction(high) / 2
    pairs = list(zip(lower, upper, strict=True))
    first = [a + start * (b - a) for a, b in pairs]
    second = [a + (start + share) * (b - a) for a, b in pairs]
    if answer(query) is Proved:
        for engine in ("auto", "highs", "box"):
            small = replace(query, region=spaces.box_of(first, second))
            assert answer(small, engine) is not Violated


@modest
@given(QUERIES)
def test_a_formula_and_its_negation_are_never_both_proved(query: Query) -> None:
    negation = with_body(query, f.Not(query.spec.body))
    for engine in ("auto", "box", "highs", "gurobi"):
        assert {answer(query, engine), answer(negation, engine)} != {Proved}


@modest
@given(QUERIES, st.sampled_from([-3, 5, 60]), st.sampled_from([-7, 2, 50]))
def test_powers_of_two_change_nothing(query: Query, in_power: int, out_power: int) -> None:
    """Embeddings times s, weights by 1/s; then all scores and constants times t."""
    s, t = 2.0**in_power, 2.0**out_power
    first, *rest = query.space.head.affines
    head = [scaled(first, 1 / s, 1.0), *rest]
    head[-1] = scaled(head[-1], t, t)
    concept_map = scaled(query.space.concept_map, t / s, t)
    space = replace(query.space, head=Network(tuple(head)), concept_map=concept_map)
    region = spaces.box_of(*([Fraction(s) * v for v in side] for side in oracle.ends(query)))
    body = multiplied(query.spec.body, Fraction(t))
    assert answer(spaces.query(space, body, region)) is answer(query)


def multiplied(node: f.Formula, factor: Fraction) -> f.Formula:
    """The formula whose constants are the factor times as large."""
    match node:
        case f.Compare(left, relation, right):
            sides = [replace(side, constant=side.constant * factor) for side in (left, right)]
            return f.Compare(sides[0], relation, sides[1])
        case f.Not(operand):
            return f.Not(multiplied(operand, factor))
        case f.Implies(one, two):
            return f.Implies(multiplied(one, factor), multiplied(two, factor))
        case f.Iff(one, two):
            return f.Iff(multiplied(one, factor), multiplied(two, factor))
        case f.And(operands) | f.Or(operands):
            return type(node)(tuple(multiplied(part, factor) for part in operands))
        case f.AtLeast(count, operands) | f.AtMost(count, operands):
            return type(node)(count, tuple(multiplied(part, factor) for part in operands))
        case _:
            return node


@modest
@given(QUERIES, st.integers(0, 5), st.integers(0, 5))
def test_the_order_of_classes_concepts_and_coordinates_is_nothing(
    query: Query, first: int, second: int
) -> None:
    space = query.space
    classes = list(permutations(range(len(space.classes))))
    concepts = list(permutations(range(len(space.concepts))))
    one, two = classes[first % len(classes)], concepts[second % len(concepts)]
    *hidden, last = space.head.affines
    shuffled = ScoreSpace(
        tuple(space.classes[i] for i in one),
        tuple(space.concepts[i] for i in two),
        Network((*hidden, permuted(last, one))),
        permuted(space.concept_map, two),
    )
    assert answer(replace(query, space=mirrored(shuffled), region=reverse(query))) is (
        answer(query)
    )


def mirrored(space: ScoreSpace) -> ScoreSpace:
    """The same functions of the embedding read backwards."""
    first, *rest = space.head.affines
    flipped = [Affine(layer.weight[:, ::-1], layer.bias) for layer in (first, space.concept_map)]
    return replace(space, head=Network((flipped[0], *rest)), concept_map=flipped[1])


def reverse(query: Query) -> Box:
    return spaces.box_of(*(side[::-1] for side in oracle.ends(query)))


@modest
@given(QUERIES)
def test_redundant_parts_change_nothing(query: Query) -> None:
    """Also nodes that are the same object twice, which a solver might count once."""
    body, truth = query.spec.body, answer(query)
    for other in (
        f.And((body, body)),
        f.Or((body, body)),
        f.Not(f.Not(body)),
        f.AtLeast(2, (body, body)),
        f.AtLeast(2, (body, body, f.Constant(False))),
        f.AtMost(1, (f.Not(body), f.Not(body), f.Constant(False))),
        f.And((body, f.Stronger("a", "a"), f.Constant(True)))
        if truth is Violated
        else f.Or((body, f.Stronger("a", "a"))),
    ):
        assert answer(with_body(query, other)) is truth
        for engine in ("highs", "gurobi"):
            assert answer(with_body(query, other), engine) in (truth, Unknown)


@modest
@given(QUERIES, st.sampled_from(["0", "1/3", "1/2", "1"]))
def test_a_box_cut_in_two_is_as_good_as_its_worse_half(query: Query, share: str) -> None:
    lower, upper = oracle.ends(query)
    middle = lower[0] + Fraction(share) * (upper[0] - lower[0])
    left = spaces.box_of(lower, [middle, *upper[1:]])
    right = spaces.box_of([middle, *lower[1:]], upper)
    halves = [answer(replace(query, region=half)) for half in (left, right)]
    worst = Violated if Violated in halves else Proved
    assert answer(query) is worst


@pytest.mark.parametrize("engine", ["auto", "z3", "highs", "gurobi"])
def test_a_duplicated_operand_counts_twice(engine: str) -> None:
    above = f.Compare(
        f.Linear(((Fraction(1), f.Score("a")),)), f.Relation.GT, f.Linear((), Fraction(1, 2))
    )
    other = f.Stronger("b", "a")
    body = f.Not(f.AtLeast(2, (above, above, other)))
    square = spaces.box_of([0, 0], [1, 1])
    assert answer(spaces.query(spaces.identity(2), body, square), engine) is Violated
    below = spaces.box_of([0, 0], ["0.4", "0.4"])
    assert answer(spaces.query(spaces.identity(2), body, below), engine) is Proved


def test_numbers_that_are_equal_are_equal() -> None:
    """Guards the helper above: scaling by a power of two is exact for what we draw."""
    assert np.all(np.array([0.1]) * 2.0**60 / 2.0**60 == np.array([0.1]))
