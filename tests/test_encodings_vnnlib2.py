"""VNN-LIB 2.0: what is read means what the text says, and nothing is dropped or rounded."""

import builtins
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conspec.encodings.vnnlib2_reader import (
    MOST_ENTRIES,
    BehindHidden,
    read_behind_hidden,
    read_property2,
)
from conspec.encodings.vnnlib2_text import MOST_CHARACTERS, MOST_DEPTH, check_text
from conspec.encodings.vnnlib_property import Declared
from conspec.specs import formula as f
from conspec.specs.errors import BadFile, ConspecError, MissingSolver

pytest.importorskip("vnnlib")

HEAD = """(vnnlib-version <2.0>)
(declare-network net (declare-input X real [2,3]) (declare-output Y real [1,4]))
"""
HIDDEN = """(vnnlib-version <2.0>)
(declare-network net
    (declare-input X float32 [2])
    (declare-hidden H float32 [3] "/body/Relu_output_0")
    (declare-output Y float32 [4]))
"""
ORDERS: dict[str, Callable[[Fraction, Fraction], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
Tree = Any  # nested lists of strings


def condition(body: str) -> f.Formula:
    """What ``(assert body)`` says."""
    return read_property2(f"{HEAD}(assert {body})", "q.vnnlib").condition


# An evaluator of the text itself: no package, no formula.


def s_expressions(text: str) -> list[Tree]:
    """The nested lists of a text; ``X[0,1]`` is one word."""
    text = re.sub(r";[^\n]*", "", text)
    stack: list[list[Tree]] = [[]]
    for token in re.findall(r"[()]|[A-Za-z]\w*\s*\[[^\]]*\]|[^\s()]+", text):
        if token == "(":
            stack.append([])
        elif token == ")":
            closed = stack.pop()
            stack[-1].append(closed)
        else:
            stack[-1].append(re.sub(r"\s", "", token))
    return stack[0]


def number(tree: Tree, values: Mapping[str, Fraction]) -> Fraction:
    """The value of an arithmetic expression."""
    if isinstance(tree, str):
        return values[tree] if "[" in tree else Fraction(tree)
    parts = [number(part, values) for part in tree[1:]]
    if tree[0] == "+":
        return sum(parts, Fraction(0))
    if tree[0] == "-":
        return -parts[0] if len(parts) == 1 else parts[0] - sum(parts[1:], Fraction(0))
    product = Fraction(1)
    for part in parts:
        product *= part
    return product


def truth(tree: Tree, values: Mapping[str, Fraction]) -> bool:
    """The value of a Boolean expression."""
    if tree[0] in ("and", "or"):
        return (all if tree[0] == "and" else any)(truth(part, values) for part in tree[1:])
    return ORDERS[tree[0]](number(tree[1], values), number(tree[2], values))


def holds(formula: f.Formula, values: Mapping[f.Symbol, Fraction]) -> bool:
    """The value of a formula of the reader."""

    def side(linear: f.Linear) -> Fraction:
        symbols = [symbol for _, symbol in linear.terms]
        assert len(set(symbols)) == len(symbols)
        assert all(weight for weight, _ in linear.terms)
        return sum((weight * values[symbol] for weight, symbol in linear.terms), linear.constant)

    match formula:
        case f.And(parts):
            assert len(parts) > 1
            return all(holds(part, values) for part in parts)
        case f.Or(parts):
            assert len(parts) > 1
            return any(holds(part, values) for part in parts)
        case f.Compare(left, relation, right):
            return ORDERS[relation.value](side(left), side(right))
        case f.Constant(value):
            return value
    raise AssertionError(formula)


def spell(parts: Sequence[str]) -> str:
    """The text of a list."""
    return f"({' '.join(parts)})"


WORDS: dict[str, f.Symbol] = {
    **{f"X[{i},{j}]": f.Coordinate(3 * i + j) for i in range(2) for j in range(3)},
    **{f"Y[0,{j}]": f.Logit(f"Y_{j}") for j in range(4)},
}
decimals = st.decimals(-9, 9, allow_nan=False, places=2).map(lambda value: f"{value:.2f}")
leaves = st.sampled_from(sorted(WORDS)) | decimals
# Products have one factor with variables at most, at any place.
constants = st.recursive(
    decimals, lambda part: st.tuples(st.sampled_from("+*-"), part, part).map(spell), max_leaves=3
)


def larger(part: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions made of smaller ones."""
    several = st.lists(part, min_size=1, max_size=3).map(tuple)
    return (
        st.tuples(st.sampled_from("+-"), several).map(lambda pair: spell((pair[0], *pair[1])))
        | st.tuples(st.just("*"), constants, part, constants).map(spell)
        | st.tuples(st.just("*"), part).map(spell)
    )


expressions = st.recursive(leaves, larger, max_leaves=5)
comparisons = st.tuples(st.sampled_from(sorted(ORDERS)), expressions, expressions).map(spell)
formulas = st.recursive(
    comparisons,
    lambda part: st.tuples(
        st.sampled_from(["and", "or"]), st.lists(part, min_size=1, max_size=3)
    ).map(lambda pair: spell((pair[0], *pair[1]))),
    max_leaves=5,
)
# Multiples of 1/100 in a small range, so that equalities happen.
points = st.fixed_dictionaries(
    {word: st.integers(-200, 200).map(lambda k: Fraction(k, 100)) for word in WORDS}
)
spaces = st.sampled_from([" ", "\n", "\t ", ' ; (or ) "comment\n', "\r\n"])


@settings(max_examples=150)
@given(st.lists(formulas, min_size=1, max_size=3), points, st.data())
def test_the_condition_means_what_the_text_says(
    bodies: list[str], point: dict[str, Fraction], data: st.DataObject
) -> None:
    asserts = "".join(f"(assert {body})" for body in bodies)
    spaced = re.sub(" ", lambda _: data.draw(spaces), asserts)
    found = read_property2(HEAD + spaced, "q").condition
    values = {WORDS[word]: value for word, value in point.items()}
    expected = all(truth(tree[1], point) for tree in s_expressions(spaced))
    assert holds(found, values) == expected


@given(expressions, st.sampled_from(sorted(ORDERS)), points)
def test_comparisons_hold_or_fail_at_ties(
    left: str, order: str, point: dict[str, Fraction]
) -> None:
    """Both sides take the same value: what tells ``<`` from ``<=``."""
    values = {WORDS[word]: value for word, value in point.items()}
    level = number(s_expressions(left)[0], point)
    over = Fraction(1, 10**12)
    for value in (level - over, level, level + over):
        text = f"{value.numerator * (10**40 // value.denominator)}".replace("-", "")
        text = f"{'-' if value < 0 else ''}{text[:-40] or '0'}.{text[-40:].rjust(40, '0')}"
        found = condition(f"({order} {left} {text})")
        assert holds(found, values) == ORDERS[order](level, Fraction(text))


@given(st.from_regex(r"-?[0-9]{1,30}\.[0-9]{1,60}", fullmatch=True))
def test_numbers_are_the_decimals_as_written(text: str) -> None:
    match condition(f"(<= X[0,0] {text})"):
        case f.Compare(f.Linear(((weight, f.Coordinate(0)),), _), f.Relation.LE, right):
            assert (weight, right) == (Fraction(1), f.Linear((), Fraction(text)))
        case other:
            pytest.fail(f"{other}")


def test_a_number_between_two_floats_is_not_rounded() -> None:
    """No float64 lies strictly between these two, and the comparison still tells them apart."""
    assert condition("(< 0.1 0.1000000000000000000000000000000000001)") == f.Constant(True)
    assert condition("(< 0.1000000000000000000000000000000000001 0.1)") == f.Constant(False)


def test_tensors_are_declared_with_type_and_shape() -> None:
    text = """(vnnlib-version <2.0>) ; any shape
    (declare-network N (declare-input img float32 [1,2,2,2]) (declare-output out float64 []))
    (assert (>= img[0,1,0,1] -0.5)) (assert (<= out 2.0))"""
    found = read_property2(text, "some.vnnlib")
    assert found.inputs == Declared("img", "float32", (1, 2, 2, 2))
    assert found.outputs == Declared("out", "float64", ())
    assert (found.version, found.network, found.source) == ("2.0", "N", "some.vnnlib")
    first = f.Compare(
        f.Linear(((Fraction(1), f.Coordinate(5)),)), f.Relation.GE, f.Linear((), -HALF)
    )
    last = f.Compare(
        f.Linear(((Fraction(1), f.Logit("Y_0")),)), f.Relation.LE, f.Linear((), Fraction(2))
    )
    assert found.condition == f.And((first, last))


HALF = Fraction(1, 2)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("(<= (* X[0,0] Y[0,0]) 1.0)", "may be multiplied only by a number"),
        ("(<= (* 2.0 X[0,0] (+ 1.0 X[0,0])) 1.0)", "may be multiplied only by a number"),
        ("(<= X[0] 1.0)", "Not enough indices"),
        ("(<= X[2,0] 1.0)", "out of bounds"),
        ("(<= X[0,-1] 1.0)", "q.vnnlib:3: index -1"),
        ("(<= X[0,1.9] 1.0)", "q.vnnlib:3: index 1.9"),
        ("(<= X[0,4294967296] 1.0)", "out of bounds"),
        ("(<= Z[0] 1.0)", "Undeclared variable"),
        ("(<= X[0,0] 1)", "Type mismatch"),
        ("(<= X[0,0] 1.5e-3)", "no exponent"),
        ("(<= 1 99999999999999999999)", "64 bits"),
        (f"(<= X[0,0] 0.{'0' * 400}1)", "range of float64"),
        (f"(<= (* {'9999999999.5 ' * 1000}) X[0,0])", "too many digits"),
        ("(=> (<= X[0,0] 1.0) (<= X[0,0] 1.0))", "'='"),
        ("(not (<= X[0,0] 1.0))", "syntax error"),
        ("(and)", "syntax error"),
        ("(<= X[0,0] 1.0 2.0)", "syntax error"),
        ("(<= X[0,0] 1.0)) \0 (assert (<= X[0,0] 0.5)", "the character '\\x00'"),
        ("(<= X[0,0] ½)", "the character '½'"),
        ("(<= X[0,0] \ud800)", "no Unicode text"),
        ('(<= X[0,0] "\ud800")', "no Unicode text"),
        (f"{'(and ' * MOST_DEPTH}(<= 1 1){')' * MOST_DEPTH}", "parentheses deeper"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(body: str, message: str) -> None:
    with pytest.raises(BadFile, match=re.escape(message)) as caught:
        condition(body)
    assert str(caught.value).startswith("q.vnnlib")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "starts with (vnnlib-version <2.0>)"),
        ("(vnnlib-version <2.1>)", "other versions"),
        ("(vnnlib-version <20.0>)", "other versions"),
        ("(declare-const X_0 Real)", "starts with"),
        (HEAD, "syntax error"),
        (HEAD.replace("Y real [1,4]", "Y int8 [4]") + "(assert (<= 1 2))", "element type I8"),
        (HEAD.replace("X real", "X bool") + "(assert (<= 1 2))", "element type Bool"),
        (HEAD.replace("[2,3]", "[9000,9000]") + "(assert (<= 1 2))", f"more than {MOST_ENTRIES}"),
        (HEAD.replace("[2,3]", "[2.5]") + "(assert (<= 1 2))", "index 2.5"),
        (HEAD.replace("[2,3]", "[0]") + "(assert (<= 1 2))", "Dimensions must be positive"),
        (HEAD.replace("))", ")(declare-output Z real []))") + "(assert (<= 1 2))", "(Y, Z)"),
        (HEAD.replace("t X", "t W real [](declare-input X") + "(assert (<= 1 2))", "syntax"),
        (HIDDEN + "(assert (<= H[0] 1.0))", "hidden tensor H of network net"),
        (
            HEAD + "(declare-network g (equal-to net) (declare-input V real [2,3])"
            "(declare-output W real [1,4]))(assert (<= Y[0,0] W[0,0]))",
            "2 networks (net, g), also where they are equal-to",
        ),
        (
            HEAD.replace("(declare-output", "(declare-input W real [2]) (declare-output")
            + "(assert (<= 1 2))",
            "(X, W)",
        ),
    ],
)
def test_other_texts_are_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(BadFile, match=re.escape(message)):
        read_property2(text, "q.vnnlib")


def test_the_deepest_text_that_is_read() -> None:
    depth = MOST_DEPTH - 2
    deepest = f"{'(and ' * depth}(<= X[0,0] 1.0){')' * depth}"
    assert condition(deepest) == condition("(<= X[0,0] 1.0)")
    assert condition(f"(<= {'(- ' * depth}X[0,0]{')' * depth} 1.0)") == condition("(<= X[0,0] 1.0)")


def test_parentheses_in_comments_do_not_hide_depth() -> None:
    """A comment's ``)`` is none; otherwise it would allow a text that ends the process."""
    line = "(and ; ))))\n"
    with pytest.raises(BadFile, match="deeper"):
        condition(f"{line * 50_000}(<= 1 1){')' * 50_000}")


def test_a_text_beyond_the_limit_is_refused() -> None:
    with pytest.raises(BadFile, match="more than the limit"):
        check_text(HEAD + " " * MOST_CHARACTERS, "q")


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **named: Any) -> Any:
        if name == "vnnlib":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingSolver, match=re.escape("pip install 'conspec[vnnlib]'")):
        condition("(<= X[0,0] 1.0)")


def test_behind_a_hidden_tensor() -> None:
    """Assertions of the input alone are left out; the tensor is the new input."""
    rest = "(assert (or (< H[2] Y[3]) (== H[0] 0.5))) (assert (<= H[1] 2.0))"
    body = f"(assert (<= X[0] 1.0)) {rest} (assert (> X[1] X[0]))"
    behind = re.sub("declare-input.*", "declare-input H float32 [3])", HIDDEN)
    behind = re.sub(".*declare-hidden.*", "", behind)
    found = read_behind_hidden(HIDDEN + body, "q")
    assert found == BehindHidden(read_property2(behind + rest, "q"), "/body/Relu_output_0", aside=2)


def test_behind_a_hidden_tensor_without_comparisons_everything_holds() -> None:
    """Then the property says nothing of it, and ``unsat`` cannot follow."""
    found = read_behind_hidden(HIDDEN + "(assert (<= X[0] 1.0))", "q")
    assert (found.property.condition, found.aside) == (f.Constant(True), 1)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("(<= X[0] Y[0])", "speaks of the input X"),
        ("(or (<= X[0] 1.0) (<= Y[0] 1.0))", "speaks of the input X"),
        ("(<= (* Y[0] Y[1]) 1.0)", "may be multiplied only by a number"),
    ],
)
def test_what_does_not_rest_on_the_hidden_tensor_is_refused(body: str, message: str) -> None:
    with pytest.raises(BadFile, match=re.escape(message)):
        read_behind_hidden(f"{HIDDEN}(assert {body})", "q")


SEEDS = [
    HEAD + "(assert (and (<= X[0,1] 0.5) (or (== Y[0,0] -2.5) (!= (+ Y[0,0] (* 2.0 Y[0,1]) (- 3.0)"
    " (- Y[0,2] 1.0 X[0,0])) -7.0))))\n(assert (>= X[1,2] -1.0)) ; comment",
    HIDDEN + "(assert (<= H[0] 1.0))\n(assert (> Y[2] (* 3.0 H[1])))",
]
JUNK = [
    "(",
    ")",
    "[",
    "]",
    '"',
    ";",
    "-",
    "9" * 25,
    "1.5",
    "0",
    "\0",
    "é",
    "<2.0>",
    "X",
    "Y",
    "and",
]
JUNK += ["(assert", "(declare-hidden", "(equal-to net)", "float32", "bool", "e5", ",", "*", "\\"]


@settings(max_examples=400)
@given(st.sampled_from(SEEDS), st.data())
def test_damaged_texts_are_refused_or_read(text: str, data: st.DataObject) -> None:
    """Nothing but our own errors escapes, and the process survives."""
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        stop = min(len(text), start + data.draw(st.integers(0, 12)))
        junk = st.sampled_from([*JUNK, text[:40], text[-60:], ""]) | st.text(max_size=3)
        text = text[:start] + data.draw(junk) + text[stop:]
    for read in (read_property2, read_behind_hidden):
        assert complaint(read, text).startswith("q.vnnlib")


def complaint(read: Callable[[str, str], object], text: str) -> str:
    """The message that refuses the text; only the source if it is read."""
    try:
        read(text, "q.vnnlib")
    except ConspecError as error:
        return str(error)
    return "q.vnnlib"
