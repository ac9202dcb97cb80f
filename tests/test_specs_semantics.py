"""What formulas mean on a batch agrees with what they mean on one embedding."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conspec.specs import ScoreBatch, Scores, holds, margin, parse_formula, truth
from conspec.specs.errors import BadUsage, UnknownName
from conspec.specs.formula import Formula, Has, Not, Predict, Stronger
from tests import strategies as tree

N, K, M = 6, len(tree.CLASSES), len(tree.CONCEPTS)
THRESHOLDS = {"wheels": 0.0, "floppy-ears": 0.5, "colored eyes": -0.5, "x": 0.25}

# Multiples of 1/4, few of them: sums are exact in floating point, and ties are common.
QUARTERS = st.integers(-3, 3).map(lambda value: value / 4)
COEFFICIENTS = st.integers(-4, 4).map(lambda value: Fraction(value, 2))


def arrays(width: int) -> st.SearchStrategy[Any]:
    row = st.lists(QUARTERS, min_size=width, max_size=width)
    return st.lists(row, min_size=N, max_size=N).map(np.array)


@st.composite
def batches(draw: st.DrawFn) -> ScoreBatch:
    parts = [draw(arrays(width)) for width in (K, M, M, tree.COORDINATES)]
    library = draw(st.sampled_from(["float64", "float32", "torch"]))
    if library == "torch":
        parts = [torch.tensor(array) for array in parts]
    else:
        parts = [array.astype(library) for array in parts]
    logits, concepts, cosines, embeddings = parts
    names = (tree.CLASSES, tree.CONCEPTS)
    return ScoreBatch(logits, concepts, *names, cosines, THRESHOLDS, embeddings)


def row(batch: ScoreBatch, index: int) -> Scores:
    def values(array: Any, names: Any) -> dict[str, float]:
        return dict(zip(names, array[index].tolist(), strict=True))

    return Scores(
        values(batch.logits, batch.class_names),
        values(batch.concepts, batch.concept_names),
        values(batch.cosines, batch.concept_names),
        batch.thresholds,
        [] if batch.embeddings is None else batch.embeddings[index].tolist(),
    )


@settings(deadline=None, max_examples=50)
@given(tree.formulas(coefficients=COEFFICIENTS, coordinates=tree.COORDINATES), batches())
def test_truth_is_that_of_each_row(formula: Formula, batch: ScoreBatch) -> None:
    expected = [holds(formula, row(batch, index)) for index in range(N)]
    assert truth(formula, batch).tolist() == expected


@settings(deadline=None, max_examples=50)
@given(tree.formulas(coefficients=COEFFICIENTS, coordinates=tree.COORDINATES), batches())
def test_the_sign_of_a_margin_is_the_truth(formula: Formula, batch: ScoreBatch) -> None:
    pairs = zip(margin(formula, batch).tolist(), truth(formula, batch).tolist(), strict=True)
    for value, true in pairs:
        assert value == 0 or (value > 0) == true


@settings(deadline=None, max_examples=50)
@given(tree.formulas(coefficients=COEFFICIENTS, coordinates=tree.COORDINATES), batches())
def test_negation_turns_the_margin_round(formula: Formula, batch: ScoreBatch) -> None:
    assert margin(Not(formula), batch).tolist() == (-margin(formula, batch)).tolist()


def one(*, logits: list[float], concepts: list[float]) -> ScoreBatch:
    names = ("a", "b", "c")
    return ScoreBatch(
        np.array([logits]), np.array([concepts]), names[: len(logits)], names[: len(concepts)]
    )


@pytest.mark.parametrize(
    ("text", "value", "true"),
    [
        ("a > b", -1, False),
        ("b > a", 1, True),
        ("c > b", 0, False),  # a tie is not stronger
        ("c >= b", 0, True),
        ("c <= b", 0, True),
        ("predict(a)", 2, True),
        ("predict(b)", -2, False),
        ("b > a and c > b", 0, False),
        ("b > a or a > b", 1, True),
        ("b > a => a > b", -1, False),
        ("a > b => b > a", 1, True),
        ("a > b <=> a > c", 1, True),
        ("a > b <=> b > a", -1, False),
        ("2*a - b + 0.5 < logit(c)", -0.5, False),
        ("atleast(1, a > b, b > a, 3*b > a)", 5, True),
        ("atleast(2, a > b, b > a, 3*b > a)", 1, True),
        ("atleast(3, a > b, b > a, 3*b > a)", -1, False),
        ("atmost(2, a > b, b > a, 3*b > a)", 1, True),
        ("atmost(1, a > b, b > a, 3*b > a)", -1, False),
        ("atleast(0, a > b)", float("inf"), True),
        ("atleast(2, b > a)", float("-inf"), False),
        ("atmost(1, a > b)", float("inf"), True),
        ("true", float("inf"), True),
        ("false", float("-inf"), False),
    ],
)
def test_margins(text: str, value: float, true: bool) -> None:
    batch = one(logits=[3.0, 1.0, 0.0], concepts=[1.0, 2.0, 2.0])
    assert margin(parse_formula(text), batch).tolist() == [value]
    assert truth(parse_formula(text), batch).tolist() == [true]


def test_a_tie_is_no_prediction() -> None:
    batch = one(logits=[1.0, 1.0], concepts=[0.0])
    assert truth(Predict("a"), batch).tolist() == [False]
    assert margin(Predict("a"), batch).tolist() == [0.0]
    assert not holds(Predict("a"), Scores({"a": 1.0, "b": 1.0}, {}))


def test_the_only_class_is_always_predicted() -> None:
    batch = one(logits=[-5.0], concepts=[0.0])
    assert truth(Predict("a"), batch).tolist() == [True]
    assert margin(Predict("a"), batch).tolist() == [float("inf")]
    assert holds(Predict("a"), Scores({"a": -5.0}, {}))


def test_single_precision_scores_are_compared_with_exact_numbers() -> None:
    # 0.1 in single precision is above 0.1; rounding 0.1 to single precision would make a tie.
    batch = ScoreBatch(torch.zeros(1, 1), torch.tensor([[0.1]]), ["c"], ["a"])
    assert truth(parse_formula("a > 0.1"), batch).tolist() == [True]


def test_one_embedding_is_judged_exactly() -> None:
    scores = Scores({}, {"a": 1e-300, "b": 1.0})
    assert holds(parse_formula("a + b > 1"), scores)
    assert not holds(parse_formula("3*b > 3"), scores)


def test_an_empty_batch() -> None:
    batch = ScoreBatch(np.zeros((0, 2)), np.zeros((0, 1)), ["a", "b"], ["c"])
    assert truth(parse_formula("predict(a) and c > 0"), batch).shape == (0,)


def test_every_call_keeps_the_library() -> None:
    batch = ScoreBatch(torch.zeros(2, 1), torch.zeros(2, 2), ["c"], ["a", "b"])
    assert truth(Stronger("a", "b"), batch).dtype == torch.bool
    assert margin(Stronger("a", "b"), batch).dtype == torch.float64


@pytest.mark.parametrize("evaluate", [truth, margin])
def test_has_needs_cosines_and_a_threshold(evaluate: Any) -> None:
    batch = one(logits=[1.0], concepts=[1.0])
    with pytest.raises(BadUsage, match=r"has\(a\) needs the concept's cosines"):
        evaluate(Has("a"), batch)
    given = ScoreBatch(batch.logits, batch.concepts, ["a"], ["a"], batch.concepts)
    with pytest.raises(BadUsage, match=r"has\(a\) needs the concept's threshold"):
        evaluate(Has("a"), given)
    with pytest.raises(UnknownName, match="no cosine for 'a'"):
        holds(Has("a"), Scores({}, {"a": 1.0}))


@pytest.mark.parametrize("text", ["predict(q)", "q > a", "logit(q) > 0", "score(q) > 0"])
def test_unknown_names(text: str) -> None:
    with pytest.raises(UnknownName, match="no column for 'q'"):
        truth(parse_formula(text), one(logits=[1.0], concepts=[1.0]))
    with pytest.raises(UnknownName, match="for 'q' among the scores"):
        holds(parse_formula(text), Scores({"a": 1.0}, {"a": 1.0}))


def test_shapes_are_checked() -> None:
    with pytest.raises(BadUsage, match=r"concepts: expected shape \(2, 1\), got \(2, 3\)"):
        ScoreBatch(np.zeros((2, 1)), np.zeros((2, 3)), ["a"], ["b"])


def test_a_coefficient_beyond_floating_point() -> None:
    with pytest.raises(BadUsage, match="too large for floating point"):
        truth(parse_formula("1e400*a > b"), one(logits=[1.0], concepts=[1.0, 1.0]))
