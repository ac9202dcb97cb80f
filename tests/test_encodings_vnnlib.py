"""VNN-LIB import: the reader, the query that a file is, and witnesses."""

import gzip
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conspec.encodings.decimals import decimal_text, parse_number, parse_rational, rational_text
from conspec.encodings.exact import Vector, vector
from conspec.encodings.network import Network
from conspec.encodings.sexpr import DEEPEST, read_sexps
from conspec.encodings.vnnlib_property import (
    MOST_CASES,
    Declared,
    Property,
    condition_at,
    queries_of,
    query_of,
)
from conspec.encodings.vnnlib_reader import read_property, read_property1
from conspec.encodings.vnnlib_witness import (
    Form,
    is_counterexample,
    printable,
    read_witness,
    write_witness,
)
from conspec.specs import formula as f
from conspec.specs.errors import BadFile, BadRegion, ConspecError
from conspec.specs.rewrite import FALSE, Halfspace, Some
from conspec.verifier import Proved, Unknown, Violated, verify
from tests import spaces, vnnlib_texts

SPACES = spaces.spaces(dimension=2)
POINTS = st.lists(st.lists(vnnlib_texts.NUMBERS, min_size=2, max_size=2), min_size=5, max_size=8)
modest = settings(max_examples=40, suppress_health_check=list(HealthCheck))
many = settings(max_examples=80, suppress_health_check=list(HealthCheck))

DECLARED = """(declare-const X_0 Real)
(declare-const X_1 Real)
(declare-const Y_0 Real)
(declare-const Y_1 Real)
"""
UNIT = "(assert (and (<= 0 X_0 1) (<= 0 X_1 1)))\n"
IDENTITY = Network((spaces.affine([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]),))
RELU = Network(
    (
        spaces.affine([[1.0, -1.0], [-1.0, 1.0]], [0.0, 0.0]),
        spaces.affine([[1.0, 1.0], [1.0, -1.0]], [0.0, 0.0]),
    )
)


def stated(body: str) -> Property:
    """A property of two inputs and two outputs."""
    return read_property1(DECLARED + body, "q.vnnlib")


def answer(prop: Property, network: Network) -> str:
    """What conspec says, split into cases; each witness is checked by the file's own words."""
    words = []
    for query in queries_of(prop, network):
        verdict = verify(query)
        if isinstance(verdict, Violated):
            found = printable(prop, query, verdict.witness.point)
            assert found is not None
            assert is_counterexample(prop, network, found.point)
            return "sat"
        words.append("unknown" if isinstance(verdict, Unknown) else "unsat")
    return "unknown" if "unknown" in words else "unsat"


def refusal(call: Callable[[], object]) -> str:
    """The message of our own error, or nothing; any other error escapes."""
    try:
        call()
    except ConspecError as error:
        return str(error)
    return ""


# --- numbers ---------------------------------------------------------------------------------


@many
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_written_exactly_and_read_back(value: float) -> None:
    exact = Fraction(value)
    text = decimal_text(exact)
    assert text is not None
    assert "e" not in text
    assert "." in text
    assert parse_rational(rational_text(exact)) == exact or abs(exact) < Fraction(1, 10**300)
    if len(text) <= 350:
        assert parse_number(text) == exact
    assert Fraction(text) == exact


@many
@given(st.fractions())
def test_a_decimal_is_written_iff_there_is_one(value: Fraction) -> None:
    text = decimal_text(value)
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    assert (text is None) == (rest != 1)
    assert text is None or Fraction(text) == value
    assert parse_rational(rational_text(value)) == value


def test_numbers_at_the_limits() -> None:
    assert decimal_text(Fraction(1, 10**1190)) is not None
    assert decimal_text(Fraction(1, 10**1300)) is None
    assert decimal_text(Fraction(10**9000)) is None
    assert decimal_text(Fraction(1, 2**100_000)) is None
    assert rational_text(Fraction(10**9000, 3)) == "1" + "0" * 9000 + "/3"
    assert parse_number("-1.5e-3") == Fraction(-3, 2000)
    assert parse_number("+.5") == Fraction(1, 2)
    assert parse_number("5.") == 5


@pytest.mark.parametrize(
    "text", ["", "-", ".", "1e", "0x1", "1_0", "inf", "nan", "--1", "1e999", "1e99999", "٣", "1 "]
)
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"number|exponent"):
        parse_number(text)


def test_division_by_zero_is_no_rational() -> None:
    with pytest.raises(ValueError, match="divides by zero"):
        parse_rational("1/0.0")


# --- the reader --------------------------------------------------------------------------------


@many
@given(st.data())
def test_the_text_means_what_the_tree_means(data: st.DataObject) -> None:
    """Against a tiny evaluator of the tree, for any X and Y, in both spellings."""
    problem = data.draw(vnnlib_texts.problems(2, 2))
    prop = read_property1(problem.text(strict=data.draw(st.booleans())), "q")
    for inputs, outputs in pairwise(data.draw(POINTS)):
        expected = problem.holds(inputs, outputs)
        assert condition_at(prop.condition, inputs, outputs) == expected


def test_declarations_in_any_order_comments_and_commands_without_meaning() -> None:
    text = """; a comment (with parentheses
    (set-logic QF_LRA) (set-info :source |someone; else|) (set-info :status "un(sat")
    (declare-fun Y_0 () Real) (declare-const X_1 Real)
    (declare-const X_0 Real) ; another
    (assert(and(<= X_0 1)(>= X_1(- 2))))(check-sat)(get-model)(exit)"""
    prop = read_property1(text, "q")
    assert (prop.inputs, prop.outputs) == (Declared("X", "real", (2,)), Declared("Y", "real", (1,)))
    assert condition_at(prop.condition, [Fraction(1), Fraction(-2)], [Fraction(0)])
    assert not condition_at(prop.condition, [Fraction(1), Fraction(-3)], [Fraction(0)])


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("(* 2 X_0 3 5)", 30),
        ("(/ X_0 2 4 0.5)", Fraction(1, 4)),
        ("(- X_0 1 2 3)", -5),
        ("(+ X_0 1 2 3)", 7),
        ("(- X_0)", -1),
        ("(+ X_0)", 1),
        ("(* (- X_0 X_0) X_1)", 0),
    ],
)
def test_arithmetic_of_many_operands(term: str, expected: Fraction) -> None:
    prop = stated(f"(assert (= {term} Y_0))")
    for amount, is_equal in ((Fraction(expected), True), (expected + Fraction(1, 9), False)):
        inputs, outputs = [Fraction(1)] * 2, [amount, Fraction(0)]
        assert condition_at(prop.condition, inputs, outputs) == is_equal


def test_decimals_are_exact() -> None:
    prop = stated("(assert (<= X_0 0.1)) (assert (<= X_1 1e-5))")
    tenth = Fraction(1, 10)
    for inputs, expected in (
        ([tenth, Fraction(1, 10**5)], True),
        ([Fraction(0.1), Fraction(0)], False),  # the float is above the decimal
        ([tenth, Fraction(1, 10**5) + Fraction(1, 10**30)], False),
    ):
        assert condition_at(prop.condition, inputs, [Fraction(0)] * 2) == expected


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("(assert (<= (* X_0 X_1) 1))", r"q.vnnlib:5: a product of two variables"),
        ("(assert (<= (/ 1 X_1) 1))", r":5: a division by a variable"),
        ("(assert (<= (/ X_1 0) 1))", r":5: division by zero"),
        ("\n(assert (<= X_2 1))", r":6: X_2 is not declared"),
        ("(assert (<= Z 1))", r":5: neither a variable nor a number: 'Z'"),
        ("(assert (<= 1e999 X_0))", r":5: neither a variable nor a number: an exponent"),
        ("(assert (<= X_0))", r":5: '<=' with 1 operands"),
        ("(assert (< ))", r":5: '<' with 0 operands"),
        ("(assert (distinct X_0 X_1))", r":5: 'distinct' with 2 operands is no formula"),
        ("(assert (= (<= X_0 1) true))", r":5: '<=' with 2 operands is no number"),
        ("(assert (<= (ite true X_0 1) 1))", r":5: 'ite' with 3 operands is no number"),
        ("(assert (and))", r":5: 'and' with 0 operands"),
        ("(assert (not true false))", r":5: 'not' with 2 operands"),
        ("(assert X_0)", r":5: 'X_0' is no formula"),
        ("(assert ())", r":5: a formula must begin with"),
        ("(assert (<= () 1))", r":5: a number must begin with"),
        ("(assert ((and) true))", r":5: a formula must begin with"),
        ("(assert true true)", r":5: an assert has one formula"),
        ("(assert (let ((a 1)) (<= X_0 a)))", r":5: 'let' with 2 operands"),
        ("(check-sat)\n(assert true)", r":6: an assert after check-sat"),
        ("(define-fun a () Real 1)", r":5: the command 'define-fun' is not understood"),
        ("(push 1)", r":5: the command 'push'"),
        ("((assert true))", r":5: a command must begin with its name"),
        ("()", r":5: a command must begin with its name"),
        ("(declare-const X_0 Real)", r":5: X_0 is declared twice"),
        ("(declare-const X_00 Real)", r":5: 'X_00' is no name"),
        ("(declare-const Z_0 Real)", r":5: 'Z_0' is no name"),
        ("(declare-const X_3 Real)", r"3 inputs are declared, but no X_2"),
        ("(declare-const X_2 Int)", r":5: write \(declare-const …\) for a variable"),
        ("(declare-fun X_2 (Real) Real)", r":5: write \(declare-fun …\)"),
        ("(assert true", r":5: this parenthesis is never closed"),
        ("(assert true))", r":5: '\)' has no place here"),
        ("assert", r":5: 'assert' has no place here"),
        ('(set-info "a', r":5: '\"' has no place here"),
        ("(assert " * (DEEPEST + 1), rf":5: nested more than {DEEPEST} levels deep"),
    ],
)
def test_what_is_not_understood_is_refused_by_line(body: str, message: str) -> None:
    with pytest.raises(BadFile, match=message):
        stated(body)


def test_variables_must_be_declared() -> None:
    with pytest.raises(BadFile, match=r"no outputs Y_0, … are declared"):
        read_property1("(declare-const X_0 Real)", "q")
    with pytest.raises(BadFile, match=r"no inputs X_0, … are declared"):
        read_property1("", "q")
    with pytest.raises(BadFile, match=r"q:1: X_0 is not declared before"):
        read_property1("(assert (<= X_0 1)) (declare-const X_0 Real)", "q")


def test_files_packed_damaged_and_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.vnnlib"
    text = DECLARED + UNIT
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    packed = tmp_path / "a.vnnlib.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert read_property(path).condition == read_property(packed).condition
    packed.write_bytes(gzip.compress(text.encode())[:-12])
    with pytest.raises(BadFile, match="damaged gzip"):
        read_property(packed)
    packed.write_bytes(b"not packed")
    with pytest.raises(BadFile, match="damaged gzip"):
        read_property(packed)
    path.write_bytes(b"\xff\xfe(")
    with pytest.raises(BadFile, match="no UTF-8 text"):
        read_property(path)
    with pytest.raises(BadFile, match="cannot be read: No such file"):
        read_property(tmp_path / "none")
    with pytest.raises(BadFile, match="cannot be read: Is a directory"):
        read_property(tmp_path)


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conspec.encodings.vnnlib_reader.MOST_BYTES", 100)
    path = tmp_path / "a.vnnlib.gz"
    path.write_bytes(gzip.compress(b" " * 10_000))
    with pytest.raises(BadFile, match="larger than the limit 100 bytes"):
        read_property(path)
    monkeypatch.setattr("conspec.encodings.sexpr.MOST_TOKENS", 10)
    with pytest.raises(BadFile, match=r"a:2: more than 10 words"):
        list(read_sexps("(a b c d e\n f g h i j k)", "a"))


@pytest.mark.parametrize("piece", [" ", "; \n", "(", "( ", "|", '"', "[", "1", "((X_0 "])
def test_long_runs_end(tmp_path: Path, piece: str) -> None:
    """No pattern goes back and forth over what it has read."""
    path = tmp_path / "a"
    path.write_text(piece * 20_000 + "x")
    with pytest.raises(BadFile):
        read_property(path)
    with pytest.raises(BadFile):
        read_witness("X real " + piece * 20_000, 2)


def test_the_deepest_formula_is_decided() -> None:
    """Every pass is recursive, so this is the test that the limit on depth is low enough."""
    body = "(or (= Y_0 5) (= Y_1 0.5))"
    for depth in range((DEEPEST - 4) // 2):
        body = f"(and (<= X_0 1) (or (>= X_1 {depth + 2}) {body}))"
    prop = stated(f"{UNIT}(assert {body})")
    assert answer(prop, IDENTITY) == "sat"
    assert answer(stated(f"{UNIT}(assert {body.replace('0.5', '1.5')})"), IDENTITY) == "unsat"


_PIECES = [*"()", " ", "\n", ";", "|", '"', "X_0", "Y_0", "X_9", "Real", "assert", "and", "or"]
_PIECES += ["not", "=>", "<=", "=", "*", "/", "-", "1e-5", "1e400", "-0.5", "declare-const", "\0"]


@settings(max_examples=250, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_mutated_file_is_read_or_refused(data: st.DataObject) -> None:
    """Only our own errors escape; what is read has bounds or says that it has none."""
    text = DECLARED + UNIT + "(assert (or (and (>= Y_0 (* 2 Y_1)) (< X_0 0.5)) (= Y_1 1e-1)))"
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.integers(0, 12))
        text = text[:start] + data.draw(st.sampled_from(_PIECES)) + text[end:]
    assert "\n" not in refusal(lambda: query_of(read_property1(text, "q"), IDENTITY))


@settings(max_examples=150)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_any_bytes_are_read_or_refused(tmp_path_factory: Any, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.vnnlib"
    path.write_bytes(data)
    with pytest.raises(ConspecError):
        read_property(path)


# --- the query ---------------------------------------------------------------------------------


@many
@given(st.data())
def test_the_query_is_the_file(data: st.DataObject) -> None:
    """At any X, the file's words, the query and its cases agree with the tiny evaluator."""
    network = data.draw(SPACES).head
    problem = data.draw(vnnlib_texts.problems(2, network.outputs))
    prop = read_property1(problem.text(), "q")
    whole, cases = query_of(prop, network), queries_of(prop, network)
    for point in data.draw(POINTS):
        exact = vector(point)
        expected = problem.holds(point, network.exact(exact))
        assert is_counterexample(prop, network, exact) == expected
        assert (whole.region.contains(exact) and whole.margin(exact)[0]) == expected
        assert any(q.region.contains(exact) and q.margin(exact)[0] for q in cases) == expected


@modest
@given(st.data())
def test_answers_are_those_of_z3(data: st.DataObject) -> None:
    """z3 parses the same text and decides it exactly, for affine and ReLU networks."""
    network = data.draw(SPACES).head
    problem = data.draw(vnnlib_texts.problems(2, network.outputs))
    text = problem.text()
    prop = read_property1(text, "q")
    expected = vnnlib_texts.z3_says(text, network)
    assert expected in ("sat", "unsat")
    assert answer(prop, network) == expected
    whole = verify(query_of(prop, network))
    assert isinstance(whole, Violated if expected == "sat" else Proved)


@modest
@given(st.data())
def test_witnesses_are_those_of_z3_too(data: st.DataObject) -> None:
    """z3, with the inputs fixed to what was printed and read back, agrees."""
    network = data.draw(SPACES).head
    problem = data.draw(vnnlib_texts.problems(2, network.outputs))
    prop = read_property1(problem.text(), "q")
    for query in queries_of(prop, network):
        verdict = verify(query)
        if isinstance(verdict, Violated):
            found = printable(prop, query, verdict.witness.point)
            assert found is not None
            again = read_witness(write_witness(prop, network, found.point).text, 2)
            assert again.fractions() == found.point.fractions()
            assert vnnlib_texts.z3_says(problem.text(), network, again.fractions()) == "sat"


def bounds(body: str) -> tuple[list[str], list[str]]:
    """The box that was found, as text."""
    region: Any = query_of(stated(body), IDENTITY).region
    return [str(v) for v in region.lower.fractions()], [str(v) for v in region.upper.fractions()]


@pytest.mark.parametrize(
    ("body", "lower", "upper"),
    [
        (UNIT, "0 0", "1 1"),
        ("(assert (= X_0 X_1)) (assert (<= -1 X_1 2))", "-1 -1", "2 2"),
        (UNIT + "(assert (<= (+ X_0 X_1) 0.5))", "0 0", "1/2 1/2"),
        ("(assert (<= 0 X_0 1)) (assert (<= X_0 X_1 (+ X_0 3)))", "0 0", "1 4"),
        (UNIT + "(assert (or (<= X_0 0.25) (<= X_0 0.5)))", "0 0", "1/2 1"),
        (UNIT + "(assert (or (<= X_0 0.25) (<= Y_0 0.5)))", "0 0", "1 1"),
        (UNIT + "(assert (or (<= X_0 0.25) (< 1 X_1)))", "0 0", "1/4 1"),
        (UNIT + "(assert (not (=> (<= X_0 0.5) (>= X_1 0.5))))", "0 0", "1/2 1/2"),
        (
            "(assert (or (and (<= 0 X_0 1) (= X_1 7)) (and (<= 3 X_0 4) (= X_1 5))))",
            "0 5",
            "4 7",
        ),
    ],
)
def test_bounds_are_exact_hulls(body: str, lower: str, upper: str) -> None:
    assert bounds(body) == (lower.split(), upper.split())


def test_a_plain_box_leaves_only_output_literals() -> None:
    query = query_of(stated(UNIT + "(assert (or (>= Y_0 Y_1) (< Y_0 0.5)))"), IDENTITY)
    assert isinstance(query.violation, Some)
    assert all(isinstance(part, Halfspace) for part in query.violation.operands)
    symbols = {symbol for part in query.halfspaces for _, symbol in part.terms}
    assert symbols == {f.Logit("Y_0"), f.Logit("Y_1")}


def test_strict_bounds_stay() -> None:
    """The box is closed; that its border does not count must not be forgotten."""
    body = "(assert (and (< 0 X_0) (<= X_0 1) (= X_1 0) (<= Y_0 0)))"
    assert answer(stated(body), IDENTITY) == "unsat"
    assert answer(stated(body.replace("(< 0 X_0)", "(<= 0 X_0)")), IDENTITY) == "sat"


@pytest.mark.parametrize(
    "body",
    [
        "(assert (<= 1 X_0 0))",  # and X_1 has no bounds at all
        UNIT + "(assert (< X_0 0))",
        UNIT + "(assert (> (+ X_0 X_1) 2))",
        UNIT + "(assert (and (> X_0 0.5) (< X_0 0.5)))",
        UNIT + "(assert (or (< X_0 0) (> X_1 1)))",
        UNIT + "(assert false)",
        "(assert (and (> X_0 0.5) (< X_0 0.5)))",  # the closed hull is a point, not empty
    ],
)
def test_inputs_that_contradict_each_other_are_unsat(body: str) -> None:
    query = query_of(stated(body), IDENTITY)
    assert query.violation == FALSE
    verdict = verify(query)
    assert isinstance(verdict, Proved)
    assert verdict.certificate is not None
    assert answer(stated(body), IDENTITY) == "unsat"


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (UNIT, "sat"),  # no condition at all
        ("(assert (= X_0 0.1)) (assert (= X_1 X_0)) (assert (= Y_0 0.1))", "sat"),
        ("(assert (= X_0 0.1)) (assert (= X_1 X_0)) (assert (< Y_0 0.1))", "unsat"),
        (UNIT + "(assert (and (>= Y_0 1) (>= Y_1 1)))", "sat"),  # a corner, margin zero
        (UNIT + "(assert (and (> Y_0 1) (>= Y_1 1)))", "unsat"),
        (UNIT + "(assert (= Y_0 Y_1 0.3))", "sat"),
        (UNIT + "(assert (= (* 3 Y_0) 1))", "sat"),  # a point that is no decimal
        (UNIT + "(assert (= Y_0 (+ X_0 1)))", "unsat"),
        (UNIT + "(assert (> Y_0 X_0))", "unsat"),
        (UNIT + "(assert (or (< X_0 0) (and (> X_0 0.9) (< Y_0 0.9))))", "unsat"),
    ],
)
def test_degenerate_cases(body: str, word: str) -> None:
    assert answer(stated(body), IDENTITY) == word


POLYTOPE = UNIT + "(assert (<= (+ X_0 X_1) 1)) (assert (>= X_0 (* 2 X_1)))"
UNION = """(assert (or (and (<= 0 X_0 0.1) (<= 0 X_1 0.1)) (and (<= 0.9 X_0 1) (<= 0.8 X_1 0.9))))
"""


@pytest.mark.parametrize(
    ("body", "word"),
    [
        # |x0 - x1| and x0 - x1: what others drop decides these
        (POLYTOPE + "(assert (> Y_1 Y_0))", "unsat"),
        (POLYTOPE + "(assert (>= Y_0 1))", "sat"),
        (POLYTOPE + "(assert (< Y_1 0))", "unsat"),  # x0 < x1 lies in the box only
        (UNION + "(assert (>= Y_0 0.3))", "unsat"),  # the hull of the boxes has such a point
        (UNION + "(assert (>= Y_0 0.2))", "sat"),  # 1 - 0.8
        (UNION + "(assert (> Y_0 0.2))", "unsat"),
        (UNIT + "(assert (or (and (>= Y_0 1) (<= Y_1 -1)) (and (>= Y_0 2) (<= Y_1 5))))", "sat"),
        (UNIT + "(assert (or (and (>= Y_0 1) (<= Y_1 -1.1)) (and (>= Y_0 2) true)))", "unsat"),
        (UNIT + "(assert (<= Y_1 (- X_0 X_1 0.1)))", "unsat"),  # inputs with outputs
    ],
)
def test_constructs_that_other_tools_drop(body: str, word: str) -> None:
    prop = stated(body)
    assert answer(prop, RELU) == word
    whole = verify(query_of(prop, RELU))
    assert isinstance(whole, Violated if word == "sat" else Proved)


def test_a_union_of_boxes_becomes_a_query_for_each() -> None:
    found = [query.region for query in queries_of(stated(UNION + "(assert (>= Y_0 0))"), RELU)]
    assert len(found) == 2
    assert found[1].contains(vector([Fraction("0.9"), Fraction("0.8")]))
    assert not found[0].contains(vector([Fraction("0.9"), Fraction("0.8")]))
    many_boxes = " ".join(f"(= X_0 {index})" for index in range(MOST_CASES + 1))
    text = f"(assert (or {many_boxes})) (assert (<= 0 X_1 1))"
    (query,) = queries_of(stated(text), IDENTITY)
    assert query.region.contains(vector([Fraction(MOST_CASES), Fraction(1)]))
    assert not query.margin(vector([Fraction(1, 2), Fraction(0)]))[0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", r"input X_0 has no lower bound"),
        ("(assert (<= 0 X_0 1)) (assert (<= X_1 1))", r"q.vnnlib: input X_1 has no lower bound"),
        ("(assert (<= 0 X_0 1)) (assert (>= X_1 X_0))", r"input X_1 has no upper bound"),
        ("(assert (or (<= 0 X_0 1) (<= 0 X_1 1)))", r"input X_[01] has no lower bound"),
        ("(assert (<= 0 X_0 1)) (assert (<= 0 Y_0 1))", r"input X_1 has no lower bound"),
    ],
)
def test_unbounded_inputs_are_refused(body: str, message: str) -> None:
    for build in (query_of, queries_of):
        with pytest.raises(BadRegion, match=message):
            build(stated(body), IDENTITY)


def test_a_network_of_another_size_is_refused() -> None:
    three = Network((spaces.affine([[1.0, 0.0, 0.0]] * 2, [0.0, 0.0]),))
    with pytest.raises(BadFile, match=r"X has 2 entries, but the network has 3 inputs"):
        query_of(stated(UNIT), three)
    one = Network((spaces.affine([[1.0, 0.0]], [0.0]),))
    with pytest.raises(BadFile, match=r"Y has 2 entries, but the network has 1 outputs"):
        query_of(stated(UNIT), one)


def test_an_endless_propagation_ends() -> None:
    body = "(assert (and (<= 0 X_0 (/ X_1 3)) (<= 0 X_1 (/ X_0 7)) (<= X_0 1)))"
    assert answer(stated(body), IDENTITY) == "sat"  # the origin


# --- witnesses ---------------------------------------------------------------------------------


def forms(body: str, point: str) -> tuple[Form, list[Fraction]] | None:
    """The printable point near a given one."""
    prop = stated(body)
    exact = vector([Fraction(value) for value in point.split()])
    found = printable(prop, query_of(prop, IDENTITY), exact)
    return None if found is None else (found.form, found.point.fractions())


def test_the_simplest_form_is_taken() -> None:
    third = Fraction(1, 3)
    single = Fraction(float(np.float32(1 / 3)))
    assert forms(UNIT, "1/3 0.5") == (Form.FLOAT32, [single, Fraction(1, 2)])
    near = f"(assert (<= 0.33333333 X_0 0.33333334)) (assert (= X_1 0)) (assert (< Y_0 {1e9}))"
    assert forms(near, "1/3 0") == (Form.FLOAT64, [Fraction(1 / 3), Fraction(0)])
    assert forms("(assert (= X_0 X_1 0.1))", "0.1 0.1") == (Form.DECIMAL, [Fraction(1, 10)] * 2)
    assert forms(UNIT + "(assert (= (* 3 X_0) 1))", "1/3 1") == (Form.RATIONAL, [third, 1])
    assert forms(UNIT + "(assert (>= Y_0 0.5))", "0.25 0") is None  # no counterexample itself


def test_rounding_stays_in_the_box() -> None:
    """The nearest float of each bound lies outside; its neighbour inside is taken."""
    body = "(assert (<= 0.7 X_0 1.1)) (assert (<= -1.1 X_1 -0.7))"
    assert Fraction(float(np.float32(0.7))) < Fraction("0.7") < Fraction("1.1")
    assert Fraction(float(np.float32(1.1))) > Fraction("1.1")
    for point in ("0.7 -0.7", "1.1 -1.1"):
        found = forms(body, point)
        assert found is not None
        form, (x, y) = found
        assert form is Form.FLOAT32
        assert Fraction("0.7") <= x <= Fraction("1.1")
        assert Fraction("-1.1") <= y <= Fraction("-0.7")
        for value in (x, y):
            assert Fraction(float(np.float32(float(value)))) == value


def test_a_decimal_is_moved_into_a_box_finer_than_it() -> None:
    low, high = "0." + "3" * 45, "0." + "3" * 44 + "4"
    found = forms(f"(assert (<= {low} X_0 {high})) (assert (= X_1 0))", "1/3 0")
    assert found == (Form.DECIMAL, [Fraction(low), Fraction(0)])


def test_a_huge_point_is_no_float() -> None:
    body = f"(assert (= X_0 1{'0' * 60}.0)) (assert (= X_1 0))"
    assert forms(body, f"1{'0' * 60} 0") == (Form.DECIMAL, [Fraction(10**60), Fraction(0)])


@many
@given(st.lists(st.fractions(), min_size=2, max_size=2), st.sampled_from(["1.0", "2.0"]))
def test_witnesses_are_read_back(point: list[Fraction], version: str) -> None:
    sides = Declared("X", "real", (1, 2)), Declared("Y", "real", (2,))
    prop = Property(version, *sides, f.Constant(True), "f")
    written = write_witness(prop, IDENTITY, vector(point))
    for text in (written.text, "sat\n" + written.text):
        assert read_witness(text, 2).fractions() == point


def test_both_formats() -> None:
    sides = Declared("A", "real", (1, 2)), Declared("B", "real", (2,))
    point = Vector((1, -4), 2)
    first = write_witness(Property("1.0", *sides, f.Constant(True)), IDENTITY, point)
    assert first == ("((X_0 0.5)\n(X_1 -2.0)\n(Y_0 0.5)\n(Y_1 -2.0))\n", False)
    second = write_witness(Property("2.0", *sides, f.Constant(True)), IDENTITY, point)
    assert second == ("A real [1,2]\n0.5\n-2.0\nB real [2]\n0.5\n-2.0\n", False)
    third = write_witness(Property("1.0", *sides, f.Constant(True)), IDENTITY, Vector((1, 0), 3))
    assert third == ("((X_0 1/3)\n(X_1 0.0)\n(Y_0 0.3333333333333333)\n(Y_1 0.0))\n", True)


def test_witnesses_of_others() -> None:
    text = "sat\n((X_1 (- 1.5)) ; comment\n (Y_0 garbage) (X_0 (/ (- 1) 3)))"
    assert read_witness(text, 2).fractions() == [Fraction(-1, 3), Fraction(-3, 2)]
    assert read_witness("X float32 [2]\n1e-3\n  -2\nY float32 [1]\nwhat", 2).fractions() == [
        Fraction(1, 1000),
        -2,
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither"),
        ("unsat", "neither"),
        ("((X_0 1))", "X_1 has no value"),
        ("((X_0 1) (X_1 2) (X_2 3))", "'X_2' is none of the 2 inputs"),
        ("((X_0 1) (X_1 2) (X_0 3))", "'X_0' has two values"),
        ("((X_0 1) (X_1 two))", "'X_1': 'two' is not a decimal number"),
        ("((X_0 1) (X_1 1/0))", "'X_1': '1/0' divides by zero"),
        ("((X_0 1) (X_1 (+ 1 2)))", "'X_1': this is no number"),
        ("((X_0 1) (X_1))", r"witness:1: this is no \(NAME VALUE\)"),
        ("((X_0 1) X_1)", r"'X_1' is no \(NAME VALUE\)"),
        ("((X_0 1) (X_1 1))()", "2 lists of values"),
        ("((X_0 1) (X_1 1)", "never closed"),
        ("sat\n((X_0 1)\n(X_1))", "witness:3: this is no"),
        ("X real [3]\n1\n2\n3", "is not the input of 2 entries"),
        ("X real [2]\n1", "1 values for 2 inputs"),
        ("X real [2]\n1\ntwo", "'two' is not a decimal number"),
        ("X real [2]\n1\n2\n3", "'3' stands where the next variable should"),
    ],
)
def test_bad_witnesses_are_refused(text: str, message: str) -> None:
    with pytest.raises(BadFile, match=message):
        read_witness(text, 2)


@settings(max_examples=150)
@given(st.data())
def test_any_witness_text_is_read_or_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(["((X_0 0.5)\n(X_1 1/3)\n(Y_0 1))", "X real [2]\n1\n-2e3"]))
    start = data.draw(st.integers(0, len(text)))
    piece = data.draw(st.sampled_from([*_PIECES, "[", "]", ",", "1/", "9" * 5000]))
    text = text[:start] + piece + text[start + data.draw(st.integers(0, 6)) :]
    assert "\n" not in refusal(lambda: read_witness(text, 2))
