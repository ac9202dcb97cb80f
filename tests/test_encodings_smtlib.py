"""SMT-LIB text: what z3 and cvc5 read in it is the query, at each point and as a whole."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import z3
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from conspec.encodings.boxed import Boxed, over_box
from conspec.encodings.exact import Vector, vector
from conspec.encodings.images import Shape
from conspec.encodings.query import Query, evaluate_at
from conspec.encodings.smtlib import chord, number, smtlib
from conspec.specs import formula as f
from conspec.specs.rewrite import Count
from conspec.verifier import Limits, Proved, Violated, verify
from tests import oracle, spaces
from tests import strategies as tree
from tests.test_verifier_has import random_queries, true_at

ALL_CHECKS = list(HealthCheck)


def modest(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        suppress_health_check=ALL_CHECKS,
        phases=[Phase.generate, Phase.shrink],
    )


AFFINE, RELU = st.just(0), st.integers(1, 2)
KINDS: dict[str, st.SearchStrategy[Query]] = {
    "affine": spaces.queries(spaces.spaces(depth=AFFINE)),
    "relu": spaces.queries(spaces.spaces(depth=RELU)),
    "float32": spaces.contested(spaces.spaces(weights=spaces.SINGLE)),
    "contested affine": spaces.contested(spaces.spaces(depth=AFFINE)),
    "contested relu": spaces.contested(spaces.spaces(depth=RELU)),
    "cube": spaces.images(spaces.spaces(), Shape.CUBE),
    "simplex": spaces.images(spaces.spaces(), Shape.SIMPLEX),
}
SHARES = st.sampled_from([Fraction(v) for v in ("0", "1", "0.5", "1/3", "0.25", "0.875")])


# --- Readers ---------------------------------------------------------------------------------


def assertions(text: str) -> list[Any]:
    """The assertions as z3 reads them."""
    return list(z3.parse_smt2_string(text))


def holds_at(read: Sequence[Any], point: Sequence[Fraction]) -> bool:
    """Whether the assertions are true with these X; neurons and scores are left to z3."""
    solver = z3.Solver()
    solver.add(read)
    for index, value in enumerate(point):
        solver.add(z3.Real(f"X_{index}") == z3.Q(value.numerator, value.denominator))
    return str(solver.check()) == "sat"


def cvc5_answers(text: str, milliseconds: int = 20_000) -> list[str]:
    """What cvc5 prints for each command that prints something; the first is sat or unsat."""
    cvc5 = pytest.importorskip("cvc5")
    solver = cvc5.Solver(cvc5.TermManager())
    solver.setOption("tlimit-per", str(milliseconds))
    parser = cvc5.InputParser(solver)
    parser.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, text, "query")
    symbols, printed = parser.getSymbolManager(), []
    while not (command := parser.nextCommand()).isNull():
        said = command.invoke(solver, symbols)
        if said:
            printed.append(str(said).strip())
            if printed == ["unsat"]:
                break
    return printed


def values(text: str) -> list[Fraction]:
    """The numbers of ``((X_0 (- (/ 1 3))) …)``, in order."""
    found = []
    for entry in re.findall(r"\(X_\d+ ((?:[^()]|\([^()]*\)|\((?:[^()]|\([^()]*\))*\))*)\)", text):
        sign = -1 if "(-" in entry or entry.startswith("-") else 1
        numbers = [Fraction(v) for v in re.findall(r"[\d.]+", entry)]
        found.append(sign * numbers[0] / (numbers[1] if len(numbers) > 1 else 1))
    return found


# --- Points ----------------------------------------------------------------------------------


def expected(boxed: Boxed, inputs: Vector) -> bool:
    """Whether X lies in the region and is a counterexample, from the formula as written."""
    inside = boxed.region.contains(inputs)
    inside &= boxed.ball is None or inputs.dot(inputs) <= boxed.ball**2
    point, source = boxed.embedding(inputs), boxed.source
    inside &= all(evaluate_at(cut, boxed.query.space, inputs)[0] for cut in boxed.cuts)
    return inside and not true_at(source.space, source.spec.body, point.fractions())


@st.composite
def points(draw: st.DrawFn, boxed: Boxed) -> Vector:
    """Points of the box at simple shares of its widths, borders included; now and then outside."""
    lower, upper = boxed.region.lower.fractions(), boxed.region.upper.fractions()
    entries = [low + draw(SHARES) * (high - low) for low, high in zip(lower, upper, strict=True)]
    if draw(st.integers(0, 5)) == 0:
        entries[0] = upper[0] + draw(st.sampled_from([Fraction(1, 10**12), Fraction(1)]))
    if boxed.cuts and any(entries) and draw(st.booleans()):
        # On a hull the parameters must add up to the scale, which is each one's upper bound.
        total = sum(entries, Fraction(0))
        entries = [value * upper[0] / total for value in entries]
    return vector(entries)


def tied(read: Sequence[Any], boxed: Boxed, inputs: Vector) -> None:
    assert holds_at(read, inputs.fractions()) == expected(boxed, inputs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_point_satisfies_the_text_iff_it_is_a_counterexample(kind: str) -> None:
    @modest(15)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        boxed = over_box(data.draw(KINDS[kind]))
        read = assertions(smtlib(boxed))
        for _ in range(4):
            tied(read, boxed, data.draw(points(boxed)))

    run()


@modest(20)
@given(st.data())
def test_neurons_are_determined_by_x(data: st.DataObject) -> None:
    found = data.draw(spaces.queries(spaces.spaces(depth=st.integers(1, 2))))
    text = smtlib(over_box(found))
    lower, upper = oracle.ends(found)
    share = data.draw(SHARES)
    point = [low + share * (high - low) for low, high in zip(lower, upper, strict=True)]
    solver = z3.Solver()
    solver.add(assertions(text.rpartition("(assert ")[0]))  # without the condition
    solver.add([z3.Real(f"X_{i}") == z3.Q(*v.as_integer_ratio()) for i, v in enumerate(point)])
    assert str(solver.check()) == "sat"
    for depth, layer in enumerate(oracle.hidden(found.space, point)):
        for index, value in enumerate(layer):
            name, right = f"H_{depth}_{index}", max(value, Fraction(0))
            if f"(declare-const {name} Real)" in text:
                assert (
                    str(solver.check(z3.Real(name) != z3.Q(*right.as_integer_ratio()))) == "unsat"
                )


@modest(25)
@given(st.data())
def test_balls_are_round(data: st.DataObject) -> None:
    boxed = over_box(data.draw(spaces.images(spaces.spaces(depth=AFFINE), Shape.BALL)))
    read = assertions(smtlib(boxed))
    for _ in range(4):
        tied(read, boxed, data.draw(points(boxed)))
    if boxed.ball is not None:  # on the border itself, and beyond it inside the cube
        size = boxed.region.dimension
        corner = [boxed.ball * v for v in (Fraction(3, 5), Fraction(4, 5))] + [Fraction(0)] * size
        tied(read, boxed, vector(corner[:size]))
        tied(read, boxed, vector([value * Fraction(1001, 1000) for value in corner[:size]]))


def has_points(query: Query) -> Iterator[Vector]:
    lower, upper = oracle.ends(query)
    for share in (Fraction(0), Fraction(1, 3), Fraction(1, 2), Fraction(1)):
        yield vector(low + share * (high - low) for low, high in zip(lower, upper, strict=True))
    yield vector([Fraction(0)] * len(lower))


def test_has_holds_where_its_squares_say_so() -> None:
    truths = set()
    for query in random_queries(seed=3, count=60):
        boxed = over_box(query)
        text = smtlib(boxed)
        assert "(set-logic QF_NRA)" in text
        read = assertions(text)
        for point in has_points(query):
            tied(read, boxed, point)
            truths.add(expected(boxed, point))
    assert truths == {True, False}


# --- Whole queries ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_cvc5_answers_as_our_exact_engine(kind: str) -> None:
    words = []

    @modest(35)
    @given(KINDS[kind])
    def run(query: Query) -> None:
        boxed = over_box(query)
        said = cvc5_answers(smtlib(boxed))
        verdict = verify(query, "z3", Limits(seconds=20.0))
        assert isinstance(verdict, Proved | Violated)
        assert said[0] == ("unsat" if isinstance(verdict, Proved) else "sat")
        words.append(said[0])
        if said[0] == "sat":
            assert expected(boxed, vector(values(said[1])))

    run()
    assert {"sat", "unsat"} == set(words)


def test_cvc5_and_z3_agree_on_has() -> None:
    answers = []
    for query in random_queries(seed=5, count=30):
        text = smtlib(over_box(query))
        solver = z3.Solver()
        solver.set("timeout", 2_000)
        solver.add(assertions(text))
        answers.append((str(solver.check()), cvc5_answers(text, 2_000)[0]))
    decided = [pair for pair in answers if "unknown" not in pair]
    assert all(one == other for one, other in decided)
    assert {"sat", "unsat"} == {one for one, _ in decided}
    assert len(decided) >= 20


@pytest.mark.parametrize(("count", "of"), [(1, 1), (2, 4), (5, 9), (9, 9), (8, 12)])
def test_counts_are_exact(count: int, of: int) -> None:
    """X_i > 0 for at least k of n: true exactly at points with so many positive entries."""
    atoms = [f.Compare(f.Linear(((Fraction(1), f.Coordinate(i)),)), f.Relation.GT, f.Linear(()))
             for i in range(of)]  # fmt: skip
    region = spaces.box_of([-1] * of, [1] * of)
    query = spaces.query(spaces.identity(3), f.Not(f.AtLeast(count, tuple(atoms))), region)
    query = replace(query, space=_wide(of))
    if 1 < count < of:
        assert isinstance(query.violation, Count)
    read = assertions(smtlib(over_box(query)))
    for positive in range(of + 1):
        point = [Fraction(1)] * positive + [Fraction(0)] * (of - positive)
        assert holds_at(read, point) == (positive >= count)


def _wide(size: int) -> Any:
    """A space of many dimensions whose scores do not matter."""
    row = [[0.0] * size]
    return spaces.space((row, [0.0]), (row, [0.0]))


def test_nested_equivalences_stay_small() -> None:
    region = spaces.box_of([-1] * 3, [1] * 3)
    sizes = []
    for depth in (4, 8, 16):
        body: f.Formula = f.Stronger("a", "b")
        for level in range(depth):
            body = f.Iff(body, f.Stronger("b", "c") if level % 2 else f.Stronger("c", "a"))
        sizes.append(len(smtlib(over_box(spaces.query(spaces.identity(3), body, region)))))
    assert sizes[2] - sizes[1] <= 2.5 * (sizes[1] - sizes[0])  # linear, not exponential


@pytest.mark.parametrize(("body", "word"), [("true", "unsat"), ("false", "sat")])
def test_constants(body: str, word: str) -> None:
    formula = f.Constant(body == "true")
    text = smtlib(over_box(spaces.query(spaces.identity(1), formula, spaces.box_of([0], [1]))))
    assert cvc5_answers(text)[0] == word


# --- Parts -----------------------------------------------------------------------------------


@given(tree.numbers())
def test_numbers_are_exact(value: Fraction) -> None:
    (read,) = assertions(f"(declare-const x Real)(assert (= x {number(value)}))")
    solver = z3.Solver()
    solver.add(read)
    assert str(solver.check()) == "sat"
    assert solver.model()[z3.Real("x")].as_fraction() == value


@given(
    st.fractions(max_value=-(10**-9)) | st.just(Fraction(-1, 3)),
    st.fractions(min_value=10**-9) | st.just(Fraction(10**30)),
)
def test_a_chord_is_above_the_relu_and_near_it(low: Fraction, high: Fraction) -> None:
    slope, offset = chord(low, high)
    assert 0 <= slope <= 1
    assert slope * low + offset >= 0
    assert slope * high + offset >= high
    true = -low * high / (high - low)  # the offset of the chord itself
    assert offset <= true + (high - low) / 256


def test_only_what_occurs_is_written() -> None:
    relu = ([[1.0, 0.5], [0.0, 1.0]], [0.0, 0.5])
    scores = spaces.space(relu, relu, relu)
    region = spaces.box_of([-1, -1], [1, 1])
    text = smtlib(over_box(spaces.query(scores, "a > b", region)))
    assert "H_0_0" not in text
    assert "Y_0" not in text
    assert "define-fun Y_2" in text
    assert "H_0_0" in smtlib(over_box(spaces.query(scores, "predict(x)", region)))


def test_comments_cannot_be_left() -> None:
    """A name with a line break, or any other character, stays inside the comment."""
    scores = replace(spaces.identity(2), classes=("x\n(assert false)", "é"), concepts=("a", "b"))
    body = f.Predict("é")
    found = spaces.query(scores, body, spaces.box_of([-1, -1], [1, 1]))
    text = smtlib(over_box(found), "one\r\n(assert false)\x85(assert false)\u2028x")
    assert text.isascii()
    assert not [line for line in text.splitlines() if line.startswith("(assert false)")]
    assert cvc5_answers(text)[0] == "sat"


def test_the_text_says_what_it_is() -> None:
    text = smtlib(over_box(next(random_queries(1, 1))), "instance 7")
    assert text.startswith("; instance 7\n")
    assert '; spec "spec":' in text
    assert "; Y_" in text
    assert text.count("(check-sat)") == 1
