"""Counts of satisfied formulas are those of the exact meaning, whatever was rounded on the way."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conspec.encodings.exact import from_array
from conspec.encodings.network import Affine, Network
from conspec.encodings.scores import ScoreSpace, signed_square
from conspec.specs import parse, parse_formula
from conspec.specs.errors import BadUsage, UnknownName
from conspec.specs.formula import Implies, Predict, Stronger
from conspec.specs.semantics import Scores, holds
from conspec.verifier.probability.compiled import compiled
from conspec.verifier.probability.levels import Format, Level
from conspec.verifier.probability.satisfaction import (
    Question,
    Satisfaction,
    class_of,
    count_satisfied,
    question_of,
)
from conspec.verifier.probability.shards import Shard, shards_of
from tests import oracle, spaces
from tests import strategies as tree

THRESHOLDS = {"a": Fraction("0.6"), "b": Fraction("-0.25"), "c": Fraction(0)}
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Few values, so that ties are common; neighbours of them, so that near ties are; and huge ones.
ENTRIES = st.sampled_from(
    [0.0, 0.5, 1.0, 1.0, -1.0, 2.0, 1.0 + 2.0**-10, 1.0 + 2.0**-23, 1.0 + 2.0**-52, 1e-8, 1e30]
)


def exactly(space: ScoreSpace, z: torch.Tensor) -> Scores:
    """The exact scores of one embedding; cosines and thresholds are squared with their sign."""
    point = from_array(z.double().numpy()).fractions()
    found = oracle.scores_at(space, point)
    if space.alignment is None:
        return replace(found, embedding=point)
    mapped = from_array(np.array(space.alignment.exact(from_array(z.double().numpy())), object))
    norm = sum((value * value for value in mapped.fractions()), Fraction(0))
    cosines = {
        name: signed_square(Fraction(score)) / norm
        if norm
        else (Fraction(9) if score > 0 else Fraction(-9))
        for name, score in found.concepts.items()
    }
    thresholds = {name: signed_square(value) for name, value in space.thresholds.items()}
    return replace(found, cosines=cosines, thresholds=thresholds, embedding=point)


def expected(
    space: ScoreSpace, z: torch.Tensor, labels: Sequence[int], questions: Sequence[Question]
) -> tuple[list[int], list[int]]:
    """Counts and totals, one embedding and one formula at a time."""
    scores = [exactly(space, row) for row in z]
    counts, totals = [], []
    for question in questions:
        own = [
            one
            for one, label in zip(scores, labels, strict=True)
            if question.label is None or space.classes.index(question.label) == label
        ]
        counts.append(sum(holds(question.formula, one) for one in own))
        totals.append(len(own))
    return counts, totals


def counted(found: Satisfaction) -> tuple[list[int], list[int]]:
    return found.counts.tolist(), found.totals.tolist()


@st.composite
def cases(draw: st.DrawFn) -> tuple[ScoreSpace, torch.Tensor, list[int], list[Question]]:
    scores = draw(spaces.spaces())
    size = scores.dimension
    alignment = draw(spaces.layers(size, 2, spaces.SIMPLE))
    space = replace(scores, alignment=alignment, thresholds=THRESHOLDS)
    row = st.lists(ENTRIES, min_size=size, max_size=size)
    rows = draw(st.lists(row, min_size=1, max_size=6))
    z = torch.tensor(rows, dtype=torch.float64)
    dtype = draw(st.sampled_from(DTYPES))
    z = (z.clamp(max=60000.0) if dtype == torch.float16 else z).to(dtype)
    labels = draw(st.lists(st.integers(-1, len(space.classes) - 1), min_size=len(z),
                           max_size=len(z)))  # fmt: skip
    formula = tree.formulas(
        space.classes, space.concepts, coefficients=spaces.CONSTANTS, coordinates=size
    )
    pair = st.builds(Stronger, *[st.sampled_from(space.concepts)] * 2)
    simple = st.builds(Implies, st.sampled_from(space.classes).map(Predict), pair)
    label = st.one_of(st.none(), st.sampled_from(space.classes))
    questions = st.builds(Question, st.one_of(formula, pair, simple), label)
    return space, z, labels, draw(st.lists(questions, max_size=6))


@settings(deadline=None, max_examples=60)
@given(cases())
def test_counts_are_those_of_the_exact_meaning(
    case: tuple[ScoreSpace, torch.Tensor, list[int], list[Question]],
) -> None:
    space, z, labels, questions = case
    found = count_satisfied([Shard(z, torch.tensor(labels))], questions, space)
    assert counted(found) == expected(space, z, labels, questions)


@settings(deadline=None, max_examples=15)
@given(cases())
def test_half_precision_products_are_not_trusted(
    case: tuple[ScoreSpace, torch.Tensor, list[int], list[Question]],
) -> None:
    space, z, labels, questions = case
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = count_satisfied([Shard(z, torch.tensor(labels))], questions, space)
    finally:
        torch.set_float32_matmul_precision(before)
    assert counted(found) == expected(space, z, labels, questions)


def close_pair(size: int, nudge: float) -> tuple[ScoreSpace, torch.Tensor, torch.Tensor]:
    """Two scores whose exact difference is ``nudge · z_5``, and embeddings with some z_5 = 0.

    Embeddings repeat their first half, and one row swaps the other's halves: so both sum the same
    numbers in another order, and rounding differs although the exact sums agree. The scores are
    concepts, logits, and the mapped embedding ``(3t, 4t)``, whose norm is ``5|t|``.
    """
    chance = np.random.default_rng(3)
    halves = chance.normal(size=(2, size)).astype(np.float32).astype(np.float64)
    halves[1, 5] = 1.0
    one = halves.ravel()
    swapped = halves[::-1].ravel()
    other = swapped.copy()
    other[5] += nudge
    both = (np.array([one, other]).tolist(), [0.0, 0.0])
    mapped = spaces.affine(np.array([3 * one, 4 * swapped]).tolist(), [0.0, 0.0])
    # b is above 0.2 of the norm exactly where t > 0 and z_5 > 0.
    space = spaces.space(both, both, alignment=mapped, thresholds={"b": Fraction(1, 5)})
    half = torch.from_numpy(chance.normal(size=(64, size))).half()
    half[::9, 5] = 0.0
    z = torch.cat([half, half], 1)
    total = z.double() @ torch.from_numpy(one)
    assert total.abs().min() > 0.05  # its sign is not in question
    return space, z, total


TEXTS = {  # what holds where z_5 < 0, = 0 and > 0, for a positive nudge
    "a > b": (True, False, False),
    "b > a": (False, False, True),
    "predict(x)": (True, False, False),
    "predict(y)": (False, False, True),
    "a >= b": (True, True, False),
    "b - a > 0": (False, False, True),
    "logit(x) - logit(y) < 0": (False, False, True),
    "not predict(y)": (True, True, False),
    "predict(y) => b > a": (True, True, True),
    "predict(x) => b > a": (False, True, True),
}
PAIRS = [Question(parse_formula(text)) for text in TEXTS]


def expected_of_pairs(z: torch.Tensor) -> list[int]:
    signs = z[:, 5].sign().long() + 1
    return [sum(truth[sign] for sign in signs.tolist()) for truth in TEXTS.values()]


@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("nudge", [2.0**-14, 2.0**-20, 2.0**-44, 2.0**-51])
def test_differences_below_rounding_are_decided_exactly(nudge: float, precision: str) -> None:
    space, z, total = close_pair(300, nudge)
    has = Question(parse_formula("has(b)"))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        found = count_satisfied([Shard(z)], [*PAIRS, has], space)
    finally:
        torch.set_float32_matmul_precision(before)
    positive = int(((total > 0) & (z[:, 5] > 0)).sum())
    assert found.counts.tolist() == [*expected_of_pairs(z), positive]
    assert found.exact >= int((z[:, 5] == 0).sum())


@pytest.mark.parametrize("nudge", [2.0**-20, 2.0**-24, 2.0**-51])
def test_rounding_in_hidden_layers_is_paid_for(nudge: float) -> None:
    # The neurons are 1 and 1 + 1024 · nudge · z_5, the differences of sums that are far greater.
    space, z, _ = close_pair(300, nudge)
    one, other = 1024 * space.head.affines[0].weight
    rows = [[*one, *-one], [*other, *-one]]
    first = spaces.affine(rows, [1.0, 1.0])
    last = spaces.affine([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])
    concepts = spaces.affine(rows, [0.0, 0.0])
    space = replace(
        space, head=Network((first, last)), concept_map=concepts, alignment=None, thresholds={}
    )
    found = count_satisfied([Shard(torch.cat([z, z], 1))], PAIRS, space)
    assert found.counts.tolist() == expected_of_pairs(z)


def test_sums_that_overflow_on_the_way() -> None:
    # In single precision the first sums are infinite; the exact ones are 0 and 1.
    row = [1e8] * 64 + [-1e8] * 64
    space = spaces.space(([row, [0.0] * 128], [0.0, 1.0]))
    z = torch.full((3, 128), 1e30)
    texts = ["a > b", "b > a", "predict(x)", "predict(y)", "a - b > 0"]
    found = count_satisfied([Shard(z)], [Question(parse_formula(t)) for t in texts], space)
    assert found.counts.tolist() == [0, 3, 0, 3, 0]


def test_the_bounds_cover_what_rounding_did() -> None:
    """Scaled columns and their bounds against exact scores, for both formats and a ReLU head."""
    chance = np.random.default_rng(8)
    layers = [spaces.affine(chance.normal(size=(3, 40)).tolist(), [1e3, 0.0, -1.0]),
              spaces.affine(chance.normal(size=(2, 3)).tolist(), [0.1, 0.2])]  # fmt: skip
    concepts = spaces.affine((10 * chance.normal(size=(3, 40))).tolist(), [0.0, 0.3, -70.0])
    alignment = spaces.affine(chance.normal(size=(5, 40)).tolist(), [0.0] * 5)
    space = ScoreSpace(("x", "y"), ("a", "b", "c"), Network(tuple(layers)), concepts, alignment,
                       THRESHOLDS)  # fmt: skip
    text = "logit(x) > logit(y) + a + b + c + z(3) or has(a)"
    program = compiled([parse_formula(text)], space)
    z = torch.from_numpy(chance.normal(size=(20, 40))).float()
    for dtype in (torch.float32, torch.float64):
        level = Level(program, space, Format(dtype, "cpu"))
        values = level.values(z)
        _, errors = level._columns_bounds()
        for place, row in enumerate(z):
            found = exactly(space, row)
            mapped = space.aligned.exact(from_array(row.double().numpy()))
            norm = float(sum(value * value for value in mapped)) ** 0.5
            exact = [norm, *found.logits.values(), *found.concepts.values(), float(row[3])]
            share = Fraction(float(values.share[place]))
            for value, right, bound in zip(values.columns[:, place], exact, errors, strict=True):
                gap = abs(Fraction(float(value)) - Fraction(right) * share)
                assert gap <= Fraction(float(bound)) + Fraction(2) ** -50  # of the norm's root
            # No smaller than what inner products of this length may lose (rule S5).
            reach = float(1 / values.share[place].double())
            unit = torch.finfo(dtype).eps / 2
            lost = 40 * unit * (np.abs(concepts.weight) @ np.abs(row.double().numpy()))
            assert (errors[3:6] * reach >= lost).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_are_not_finite_are_counted_and_named(dtype: torch.dtype) -> None:
    z = torch.ones(40, 2, dtype=dtype)
    z[3, 0], z[17, 1], z[39] = torch.nan, torch.inf, -torch.inf
    shards = [Shard(z[:10]), Shard(z[10:])]
    found = count_satisfied(shards, [Question(parse_formula("a >= b"))], spaces.identity(2))
    assert (found.skipped.count, found.skipped.first) == (3, (3, 17, 39))
    assert (found.rows, *counted(found)) == (37, [37], [37])


def test_huge_finite_rows_are_not_taken_for_infinite_ones() -> None:
    z = torch.full((4, 2), 3e38)
    z[:, 1] = 2e38
    texts = ["a > b", "predict(x)", "a + a > b", "b > a or a > 1e38"]
    questions = [Question(parse_formula(text)) for text in texts]
    found = count_satisfied([Shard(z)], questions, spaces.identity(2, 2.0))
    assert found.counts.tolist() == [4, 4, 4, 4]
    assert found.skipped.count == 0


def test_sharding_and_memory_maps_change_nothing(tmp_path: Any) -> None:
    space, z, _ = close_pair(50, 2.0**-20)
    path = tmp_path / "z.f16"
    path.write_bytes(z.numpy().tobytes())
    stored = np.memmap(path, np.float16, "r", 0, tuple(z.shape))
    one = count_satisfied([Shard(z)], PAIRS, space)
    parts = count_satisfied([Shard(z[:7]), Shard(z[7:7]), Shard(z[7:])], PAIRS, space)
    mapped = count_satisfied(shards_of(stored), PAIRS, space)
    assert counted(one) == counted(parts) == counted(mapped)


def test_negation_counts_the_others() -> None:
    space, z, _ = close_pair(50, 2.0**-20)
    texts = ["predict(x) => a > b", "not (predict(x) => a > b)"]
    found = count_satisfied([Shard(z)], [Question(parse_formula(t)) for t in texts], space)
    assert found.counts.sum() == found.rows == len(z)


def test_twin_concepts_need_no_exact_arithmetic() -> None:
    row = [0.1, 0.7, -0.3]
    space = spaces.space(([row, row], [0.5, 0.5]))
    z = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    questions = [Question(parse_formula(text)) for text in ("a > b", "a >= b")]
    found = count_satisfied([Shard(z)], questions, space)
    assert (found.counts.tolist(), found.exact) == ([0, 100], 0)


SPECS = """
spec one: forall x in focus(truck, gamma=1): wheels > wings
spec two: forall x in focus(truck, gamma=1) and box(0, 1): wheels > wings
spec three: forall x in hull(truck) or hull(bird): wheels > wings
spec four: forall x in ball(3, 0.1, l2): wheels > wings
spec five: probability >= 0.9 with confidence 0.9 for x in class(bird): wheels > wings
"""


def test_the_population_of_a_spec() -> None:
    found = [question_of(spec) for spec in parse(SPECS).specs]
    assert [question.label for question in found] == ["truck", "truck", None, None, "bird"]
    assert {question.formula for question in found} == {Stronger("wheels", "wings")}
    assert class_of(parse("spec s: forall x in hull(a) or hull(a): b > c").specs[0].region) == "a"  # type: ignore[union-attr]


def test_what_is_missing_is_named() -> None:
    space, shard = spaces.identity(2), Shard(torch.ones(3, 2))

    def ask(text: str, label: str | None = None, rows: Shard = shard) -> Satisfaction:
        return count_satisfied([rows], [Question(parse_formula(text), label)], space)

    with pytest.raises(BadUsage, match="need the labels"):
        ask("a > b", "x")
    with pytest.raises(UnknownName, match="no class 'q'"):
        ask("a > b", "q")
    with pytest.raises(UnknownName, match="no concept 'q'"):
        ask("a > q")
    with pytest.raises(UnknownName, match="no calibrated threshold for 'a'"):
        ask("has(a)")
    with pytest.raises(UnknownName, match="coordinate 7"):
        ask("z(7) > a")
    with pytest.raises(BadUsage, match="too large for floating point"):
        ask("1e400*a > b")
    with pytest.raises(BadUsage, match="embeddings have 5 entries, the head reads 2"):
        ask("a > b", rows=Shard(torch.ones(3, 5)))
    with pytest.raises(BadUsage, match=r"labels: expected one per embedding \(3\), got \[2\]"):
        Shard(torch.ones(3, 2), torch.zeros(2))
    with pytest.raises(BadUsage, match="expected floats, got int64"):
        Shard(np.ones((3, 2), dtype=np.int64))
    with pytest.raises(BadUsage, match=r"expected shape \[N, n\], got \[3\]"):
        Shard(torch.ones(3))
    with pytest.raises(BadUsage, match="a shard has embeddings of 3 entries, the first 2"):
        count_satisfied([shard, Shard(torch.ones(1, 3))], [], space)


def test_an_empty_stream_and_an_empty_suite() -> None:
    space = spaces.identity(2)
    empty = count_satisfied([], PAIRS, space)
    assert (empty.rows, *counted(empty)) == (0, [0] * len(PAIRS), [0] * len(PAIRS))
    assert count_satisfied([Shard(torch.ones(3, 2))], [], space).rows == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU to compare with the CPU")
def test_a_gpu_counts_the_same() -> None:
    space, z, _ = close_pair(600, 2.0**-20)
    cpu = count_satisfied([Shard(z)], PAIRS, space)
    gpu = count_satisfied([Shard(z)], PAIRS, space, "cuda")
    assert counted(cpu) == counted(gpu)


def test_weights_whose_squares_vanish_are_counted_exactly() -> None:
    """Near-ties of rows of size 1e-170, whose squares are zero in float64."""
    chance = np.random.default_rng(0)
    rows = chance.integers(1, 100, size=(2, 4)) / 10 * 1e-170
    z = chance.integers(1, 100, size=(200, 4)) / 10
    gap = rows[0] - rows[1]
    z[:, 3] = -(z[:, :3] @ gap[:3]) / gap[3]
    nothing = Affine(np.zeros((1, 4)), np.zeros(1))
    space = ScoreSpace(("x",), ("a", "b"), Network((nothing,)), Affine(rows, np.zeros(2)))
    found = count_satisfied(shards_of(z), [Question(Stronger("a", "b"))], space)
    exact = [Fraction(a) - Fraction(b) for a, b in zip(*rows.tolist(), strict=True)]
    margins = [sum(g * Fraction(v) for g, v in zip(exact, point, strict=True)) for point in z]
    assert found.counts[0] == sum(value > 0 for value in margins)
