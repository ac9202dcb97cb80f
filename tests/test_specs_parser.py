"""Reading Con_spec: what texts mean, and what is said about texts that mean nothing."""

import re
import subprocess
import sys
import time
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conspec.specs import (
    ScoreBatch,
    Scores,
    holds,
    margin,
    negation_normal_form,
    parse,
    parse_file,
    parse_formula,
    parse_region,
    relevance_suite,
    to_text,
    truth,
)
from conspec.specs.build import MAX_DEPTH
from conspec.specs.errors import BadFile, ConspecError, SpecSyntaxError, UnknownName
from conspec.specs.formula import (
    And,
    AtLeast,
    AtMost,
    Ball,
    Both,
    Box,
    ClassOf,
    Compare,
    Constant,
    Either,
    Focus,
    Formula,
    Has,
    Hull,
    Iff,
    Implies,
    Linear,
    Logit,
    Norm,
    Not,
    Or,
    Polytope,
    Predict,
    Probability,
    Region,
    Relation,
    Score,
    Stronger,
)
from conspec.specs.names import RESERVED
from conspec.specs.parser import _grammar
from conspec.specs.suites import rival10_concepts, rival10_relevance

A, B, C, D = Stronger("a", "b"), Has("b"), Has("c"), Has("d")


def score(concept: str, weight: Fraction | int = 1) -> tuple[Fraction, Score]:
    return Fraction(weight), Score(concept)


def linear(*terms: tuple[Fraction, Score | Logit], constant: str = "0") -> Linear:
    return Linear(terms, Fraction(constant))


# --- atoms ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("a > b", A),
        ("b < a", A),
        (">(x, a, b)", A),
        (">(a, b)", A),
        ("(a) > ((b))", A),
        ("a >= b", Compare(linear(score("a")), Relation.GE, linear(score("b")))),
        ("a ≤ b", Compare(linear(score("a")), Relation.LE, linear(score("b")))),
        ("score(a) > score(b)", Compare(linear(score("a")), Relation.GT, linear(score("b")))),
        ("predict(x, c)", Predict("c")),
        ("predict(c)", Predict("c")),
        ("predict(x)", Predict("x")),  # one argument: the class that is called x
        ("predict(x, x)", Predict("x")),
        ("has(x)", Has("x")),
        ("has(x, b)", B),
        ("hasCon(x, b)", B),
        ("hasCon(b)", B),
        ("x > y", Stronger("x", "y")),
        (">(x, x, x)", Stronger("x", "x")),
        ("true", Constant(True)),
        ("false", Constant(False)),
        ("atleast(2, a > b, has(b), has(c))", AtLeast(2, (A, B, C))),
        ("atmost(0, a > b)", AtMost(0, (A,))),
        ("'long snout' > \"floppy-ears\"", Stronger("long snout", "floppy-ears")),
        (r"'it\'s' > '\\'", Stronger("it's", "\\")),
        ("ball > box", Stronger("ball", "box")),  # functions are no reserved words
        ("predict > has", Stronger("predict", "has")),
    ],
)
def test_atoms(text: str, formula: Formula) -> None:
    assert parse_formula(text) == formula


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("logit(c) > 0", linear((Fraction(1), Logit("c")))),
        ("logit(x, c) > 0", linear((Fraction(1), Logit("c")))),
        ("2*score(a) - a/3 > 0", linear(score("a", Fraction(5, 3)))),
        ("a - a > 0", linear()),
        ("a - b + a > 0", linear(score("a", 2), score("b", -1))),
        ("-(a - 2*(b + 1)) > 0", linear(score("a", -1), score("b", 2), constant="2")),
        ("- - a > 0", linear(score("a"))),
        ("1/3 + 1e-9 > 0", linear(constant="1000000003/3000000000")),
        (".5 + 2. + 1E2 > 0", linear(constant="102.5")),
        ("0*a + 1 > 0", linear(constant="1")),
        ("a * 2 / 4 > 0", linear(score("a", Fraction(1, 2)))),
        ("6 / 2 * 3 > 0", linear(constant="9")),
        ("1 - 2 - 3 > 0", linear(constant="-4")),
    ],
)
def test_linear_expressions(text: str, left: Linear) -> None:
    assert parse_formula(text) == Compare(left, Relation.GT, linear())


# --- precedence -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("not a > b and has(b)", And((Not(A), B))),
        ("not not a > b", Not(Not(A))),
        ("a > b or has(b) and has(c)", Or((A, And((B, C))))),
        ("a > b and has(b) or has(c)", Or((And((A, B)), C))),
        ("a > b and has(b) and has(c)", And((A, B, C))),
        ("(a > b and has(b)) and has(c)", And((And((A, B)), C))),
        ("a > b and (has(b) and has(c))", And((A, And((B, C))))),
        ("a > b or has(b) => has(c)", Implies(Or((A, B)), C)),
        ("a > b => has(b) => has(c)", Implies(A, Implies(B, C))),
        ("(a > b => has(b)) => has(c)", Implies(Implies(A, B), C)),
        ("a > b => has(b) <=> has(c) => has(d)", Iff(Implies(A, B), Implies(C, D))),
        ("a > b <=> has(b) <=> has(c)", Iff(Iff(A, B), C)),
        ("¬ a > b ∧ has(b) ∨ has(c) ⇒ has(d)", Implies(Or((And((Not(A), B)), C)), D)),
        ("~a > b & has(b) | has(c) -> has(d)", Implies(Or((And((Not(A), B)), C)), D)),
        ("!a > b ⇔ has(b)", Iff(Not(A), B)),
        ("a > b <-> has(b)", Iff(A, B)),
        ("a + 1 > b and has(c)", And((parse_formula("(a + 1) > b"), C))),
        ("android > orbit", Stronger("android", "orbit")),
        ("notable > b", Stronger("notable", "b")),
    ],
)
def test_precedence(text: str, formula: Formula) -> None:
    assert parse_formula(text) == formula


# --- regions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("focus(truck, gamma=0.3)", Focus("truck", Fraction(3, 10))),
        ("focus(truck, 3/10)", Focus("truck", Fraction(3, 10))),
        ("focus(gamma=0.3, class=truck)", Focus("truck", Fraction(3, 10))),
        ("hull('fire truck')", Hull("fire truck")),
        ("ball(7, 0.1, linf)", Ball(7, Fraction(1, 10), Norm.LINF)),
        ("ball(7, norm=l2, radius=0)", Ball(7, Fraction(0), Norm.L2)),
        ("box(-1, 1)", Box((Fraction(-1),), (Fraction(1),))),
        ("box([0, 1], [1, 2])", Box((Fraction(0), Fraction(1)), (Fraction(1), Fraction(2)))),
        ("box(0, [1, 2])", Box((Fraction(0),), (Fraction(1), Fraction(2)))),
        (
            "polytope(wheels >= wings)",
            Polytope(
                (Compare(linear(score("wheels")), Relation.GE, linear(score("wings"))),),
            ),
        ),
        ("hull(a) and hull(b) or hull(c)", Either((Both((Hull("a"), Hull("b"))), Hull("c")))),
        ("hull(a) and (hull(b) or hull(c))", Both((Hull("a"), Either((Hull("b"), Hull("c")))))),
    ],
)
def test_regions(text: str, region: Region) -> None:
    assert parse_region(text) == region


# --- suites -----------------------------------------------------------------------------------


def test_a_suite_keeps_its_order_and_ignores_layout_and_comments() -> None:
    text = "# first\nspec b:forall x in hull(c):\n\n a>b#!\n and true spec 'a 1' :\n forall y in\n"
    suite = parse(text + "hull(c): >(y, a, b)")
    assert [spec.name for spec in suite.specs] == ["b", "a 1"]
    assert [spec.body for spec in suite.specs] == [And((A, Constant(True))), A]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_comment_ends_with_its_line(end: str) -> None:
    assert parse_formula(f"a > b # c{end}and has(b)") == And((A, B))


def test_probability() -> None:
    text = "spec s: probability >= 0.95 with confidence 99/100 for i in {}: has(i, b)"
    [spec] = parse(text.format("class(truck)")).specs
    assert spec == Probability("s", Fraction(19, 20), Fraction(99, 100), ClassOf("truck"), B)
    [spec] = parse(text.format("all")).specs
    assert isinstance(spec, Probability)
    assert spec.population == ClassOf(None)


def test_the_language_of_the_peer_is_read_in_full() -> None:
    # Its parser took '=>', 'not' and parentheses, and then looked at the left-most atom only.
    formula = parse_formula("predict(x, a) => not (>(x, a, b) and hasCon(x, b))")
    assert formula == Implies(Predict("a"), Not(And((A, B))))


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "s.conspec"
    path.write_text("\ufeffspec s: forall x in hull(c): a > b", encoding="utf-8")
    assert parse_file(path) == parse("spec s: forall x in hull(c): a > b")
    path.write_text("spec s:\n forall", encoding="utf-8")
    with pytest.raises(SpecSyntaxError, match=r"s\.conspec:2:8: expected a name"):
        parse_file(path)
    path.write_bytes(b"spec \xff")
    with pytest.raises(BadFile, match=r"s\.conspec: not UTF-8 text at byte 5"):
        parse_file(path)
    with pytest.raises(BadFile, match="missing: No such file"):
        parse_file(tmp_path / "missing")


def test_reserved_words_are_those_of_the_grammar() -> None:
    patterns = {terminal.pattern.value for terminal in _grammar().terminals}
    words = {word for word in patterns if re.fullmatch("[a-z]+", word)}
    assert words | {"and", "or", "not"} == RESERVED


# --- errors -----------------------------------------------------------------------------------

FORMULA_ERRORS = [
    ("a >", "1:4: expected a formula, but the text ends here"),
    ("", "1:1: expected a formula, but the text ends here"),
    ("(a > b", r"1:7: expected '\)', but the text ends here"),
    ("a > b)", r"1:6: expected the end of the text, found '\)'"),
    ("a > b > c", "1:9: comparisons do not chain"),
    ("floppy-ears > b", "1:1: \"floppy-ears\" needs quotes, or blanks around '-'"),
    ("floppy-ears > b", 'as a name: "floppy-ears"; as a subtraction: floppy - ears'),
    ("colored eyes > b", "1:9: .*found 'eyes'\n.*\n.*\n.*a name with blanks needs quotes"),
    ("for > b", "'for' is a word of the language; as a name it needs quotes: \"for\""),
    ("a $ b", r"1:3: unexpected character '\$'"),
    ("a ^ b", "1:3: unexpected character .*\n.*\n.*\n.*write 'and'"),
    ("a = b", "there is no equality; two comparisons with >= and <= say the same"),
    ('"a > b', "1:1: this quote is not closed on its line"),
    (r'"a\n" > b', "only a quote or a backslash may follow a backslash"),
    ("'' > b", "1:1: a name cannot be empty"),
    ("'a\tb' > b", "1:1: a name may hold only printable characters"),
    ("predikt(c)", "1:1: unknown function 'predikt'\n.*\n.*\n.*did you mean 'predict'"),
    ("qqq(c)", "there are predict, has, "),
    ("predict(y, c)", "1:9: expected the image variable, which is called 'x' here"),
    ("predict('x', c)", "expected the image variable, which is called 'x' here"),
    ("predict()", "1:1: 'predict' takes a class"),
    (">(a)", "1:1: '>' takes a concept and a concept"),
    (">=(a, b)", "1:1: only '>' may stand before its arguments, found '>='"),
    ("a", "1:1: expected a formula, found the name 'a'"),
    ("3", "1:1: expected a formula, found the number 3"),
    ("a + b", "1:1: expected a formula, found a score"),
    ("hull(c)", "1:1: expected a formula, found a region"),
    ("a > b and hull(c)", "1:11: expected a formula, found a region"),
    ("(a > b) > c", "1:2: expected a number or a score, found a formula"),
    ("a*b > c", "1:3: a score may be multiplied only by a number"),
    ("1/a > c", "1:3: a score may be divided only by a number"),
    ("a/(1-1) > c", "1:4: division by zero"),
    ("atleast(1)", "1:1: 'atleast' takes a whole number and one formula or more"),
    ("atleast(1.5, a > b)", "1:9: expected a whole number, found 1.5"),
    ("atleast(-1, a > b)", "1:9: expected a number >= 0, found -1"),
    ("atleast(a, a > b)", "1:9: expected a number, found the name 'a'"),
    ("logit(logit(a)) > 0", "1:7: expected the name of a class, found a score"),
    ("a > 1e999999999", "1:5: an exponent may be at most 400"),
    ("a > 1e-401", "1:5: an exponent may be at most 400"),
    (f"a > {'9' * 5000}", "1:5: a number may have at most 4000 characters"),
    (f"a > {'9' * 3900}", "1:5: this number has too many digits"),
    ("a > " + "*".join(["1e400"] * 9), "too many digits"),
    ("not " * 200 + "a > b", "nested more than 100 levels deep"),
    ("a > b => " * 200 + "a > b", "nested more than 100 levels deep"),
]


@pytest.mark.parametrize(("text", "message"), FORMULA_ERRORS)
def test_formula_errors(text: str, message: str) -> None:
    with pytest.raises(SpecSyntaxError, match=message):
        parse_formula(text)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("wings", r"compare it \(wings > other\), or write has\(wings\)$"),
        ("bird", r"hint: write predict\(bird\)$"),
        ("fish", r"compare it .* or write has\(fish\) or predict\(fish\)$"),
        ("other", r"compare it .* or write has\(other\) or predict\(other\)$"),
    ],
)
def test_a_bare_name_is_offered_what_it_can_be(name: str, hint: str) -> None:
    with pytest.raises(SpecSyntaxError, match=hint):
        parse_formula(name, classes=("bird", "fish"), concepts=("wings", "fish"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a > b", "1:1: expected a region, found a formula"),
        ("not hull(c)", "1:5: expected a formula, found a region"),
        ("hull(c) and a > b", "1:13: expected a region, found a formula"),
        ("focus(c)", r"1:1: 'focus' takes \(class, gamma\)"),
        ("focus(c, 1, 2)", r"1:13: 'focus' takes \(class, gamma\)"),
        ("focus(c, 1, gamma=2)", r"1:13: 'focus' takes \(class, gamma\)"),
        ("focus(c, gama=2)", r"1:10: 'focus' takes \(class, gamma\)"),
        ("focus(gamma=1, c)", r"1:16: 'focus' takes \(class, gamma\)"),
        ("focus(c, -0.5)", "1:10: expected a number >= 0, found -0.5"),
        ("ball(1, -1, l2)", "1:9: expected a number >= 0, found -1"),
        ("ball(1.5, 1, l2)", "1:6: expected a whole number, found 1.5"),
        ("ball(1, 1, l1)", "1:12: expected the norm of a ball: l2 or linf"),
        ("box(1, 0)", r"this box is empty: \[1, 0\] has its lower bound above"),
        ("box([0, 3], 2)", r"this box is empty: \[3, 2\]"),
        ("box([0, 1], [1, 2, 3])", "the bounds of a box differ in length: 2 and 3"),
        ("polytope()", "'polytope' takes one comparison or more"),
        ("polytope(a > b)", "1:10: a polytope takes >= or <=.*a region includes its border"),
        ("polytope(logit(a) < 1)", "a region includes its border"),
        ("polytope(has(a))", r"a polytope takes comparisons such as logit\(truck\) >= 2"),
        (
            "class(c)",
            r"1:1: expected a region, found a set of images\n.*\n.*\n.*class\(...\) is",
        ),
    ],
)
def test_region_errors(text: str, message: str) -> None:
    with pytest.raises(SpecSyntaxError, match=message):
        parse_region(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a > b", "1:1: expected 'spec' or the end of the text.*\n.*\n.*\n.*a suite consists"),
        ("spec a forall", "1:8: expected ':', found 'forall'"),
        ("spec for: true", "1:6: expected a name, found 'for'\n.*\n.*\n.*needs quotes"),
        ("spec a-b: forall x in hull(c): true", '1:6: "a-b" needs quotes'),
        ("spec a: foral x in", "1:9: expected 'forall' or .*\n.*\n.*\n.*did you mean 'forall'"),
        ("spec a: forall 'x' in hull(c): true", "1:16: expected a name, found 'x'"),
        ("spec a: forall x in : true", "1:21: expected a region, found ':'"),
        ("spec a: forall x in hull(c) true", "1:29: expected ':' or an operator"),
        ("spec a: forall x in hull(c):", "1:29: expected a formula, but the text ends here"),
        (
            "spec a: forall x in class(c): true",
            "1:21: expected a region, found a set of images",
        ),
        ("spec a: forall i in hull(c): has(x, b)", "the image variable, which is called 'i'"),
        (
            "spec a: forall x in hull(c): true\nspec a: forall x in hull(c): true",
            "2:6: the spec 'a' is already defined on line 1",
        ),
        (
            "spec a: probability > 0.9 with confidence 0.9 for x in all: true",
            "1:21: a probability is bounded from below",
        ),
        (
            "spec a: probability >= 2 with confidence 0.9 for x in all: true",
            "1:24: a probability to be reached lies above 0 and at most at 1",
        ),
        (
            "spec a: probability >= 0.9 with confidence 1 for x in all: true",
            "1:44: a confidence lies strictly between 0 and 1",
        ),
        (
            "spec a: probability >= ) with confidence 1 for x in all: true",
            r"1:24: expected a number, found '\)'",
        ),
        (
            "spec a: probability >= 1 with confidence 0.9 for x in : true",
            r"1:55: expected class\(NAME\) or all, found ':'",
        ),
        (
            "spec a: probability >= 1 with confidence 0.9 for x in hull(c): true",
            "1:55: expected the images to sample from: class",
        ),
    ],
)
def test_suite_errors(text: str, message: str) -> None:
    with pytest.raises(SpecSyntaxError, match=message):
        parse(text)


def test_an_error_shows_line_and_caret() -> None:
    with pytest.raises(SpecSyntaxError) as error:
        parse("spec a:\n  forall x in hull(c):\n    wheels > => wings", file="my.conspec")
    assert str(error.value).split("\n") == [
        "my.conspec:3:14: expected a formula, found '=>'",
        "        wheels > => wings",
        "                 ^",
    ]


def test_an_error_in_a_long_line_shows_the_part_around_it() -> None:
    with pytest.raises(SpecSyntaxError) as error:
        parse_formula("a > b and " * 1000 + "a > $ and " + "a > b and " * 1000)
    _, shown, caret = str(error.value).split("\n")
    assert len(shown) < 110
    assert shown[caret.index("^")] == "$"


def test_an_error_shows_nothing_that_a_terminal_would_act_on() -> None:
    with pytest.raises(SpecSyntaxError) as error:
        parse_formula("a > 'b\x1b[31m' $ \x07")
    assert str(error.value).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("whels > wings", "1:1: unknown concept 'whels'\n.*\n.*\n.*did you mean 'wheels'"),
        ("Wheels > wings", "did you mean 'wheels'"),
        ("floppy - ears > wings", 'did you mean "floppy-ears"'),
        ("truck > wings", "'truck' is a class"),
        ("predict(wheels)", "unknown class 'wheels'\n.*\n.*\n.*'wheels' is a concept"),
        ("logit(zebra) > 0", "known are 'truck', 'car'"),
        ("has(x, x)", "1:8: unknown concept 'x'"),
    ],
)
def test_unknown_names(text: str, message: str) -> None:
    with pytest.raises(UnknownName, match=message):
        parse_formula(text, classes=["truck", "car"], concepts=["wheels", "wings", "floppy-ears"])


def test_unknown_class_in_a_region() -> None:
    with pytest.raises(UnknownName, match=r"1:7: unknown class 'truk'.*\n.*\n.*\n.*'truck'"):
        parse_region("focus(truk, 1)", classes=["truck"])


# --- limits -----------------------------------------------------------------------------------


def test_the_deepest_formula_passes_everywhere() -> None:
    text = "atleast(1, " * (MAX_DEPTH - 1) + "a > b" + ")" * (MAX_DEPTH - 1)
    formula = parse_formula(text)
    assert parse_formula(to_text(formula)) == formula
    assert len({hash(formula), hash(parse_formula(text))}) == 1
    assert repr(formula) == repr(parse_formula(text))
    assert holds(formula, Scores({}, {"a": 2.0, "b": 1.0}))
    assert negation_normal_form(formula, ["c"]) == negation_normal_form(A, ["c"])
    batch = ScoreBatch(np.zeros((1, 1)), np.array([[2.0, 1.0]]), ["c"], ["a", "b"])
    assert truth(formula, batch).tolist() == [True]
    assert margin(formula, batch).tolist() == [1.0]


def test_width_is_no_depth() -> None:
    formula = parse_formula(" and ".join(["a > b"] * 5000))
    assert isinstance(formula, And)
    assert len(formula.operands) == 5000
    assert parse_formula("(" * 5000 + "a > b" + ")" * 5000) == A


def test_too_long_a_text() -> None:
    with pytest.raises(SpecSyntaxError, match="<formula>: a suite may have at most 16,777,216"):
        parse_formula(" " * (2**24 + 1))


def test_a_large_suite_is_read_fast() -> None:
    concepts = rival10_concepts()
    suite = relevance_suite(rival10_relevance(), concepts, gamma="0.3")
    text = to_text(suite)
    parse("")  # compiles the grammar
    start = time.perf_counter()
    assert parse(text, classes=list(rival10_relevance()), concepts=concepts) == suite
    assert time.perf_counter() - start < 5  # takes 0.3 s on a free machine


def test_importing_does_not_import_lark_or_torch() -> None:
    code = "import sys, conspec.specs; print({'lark', 'torch', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"set()"


# --- fuzzing ----------------------------------------------------------------------------------

WORDS = [
    *sorted(RESERVED),
    *("a", "b", "x", "truck", "'q q'", '"', "-", "+", "*", "/", "(", ")", "[", "]", ",", ":"),
    *(">", "<", ">=", "<=", "=", "=>", "<=>", "0", "1.5", "1e9", "#", "\n", "~", "\\", "all"),
    *("predict(", "has(", "score(", "logit(", "atleast(", "focus(", "box(", "polytope("),
    *("ball(", "class(", "gamma=", "l2", "spec s: forall x in hull(c):"),
]

# No short text may take long; the bound is generous because test machines are shared.
SOON = timedelta(seconds=5)


def survives(text: str) -> None:
    for read in (parse, parse_formula, parse_region):
        try:
            read(text, classes=["truck", "b"], concepts=["a", "b"])
        except ConspecError as error:
            assert str(error).isprintable() or "\n" in str(error)  # noqa: PT017


@settings(deadline=SOON)
@given(st.text())
def test_any_text(text: str) -> None:
    survives(text)


@settings(deadline=SOON)
@given(st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join))
def test_any_words(text: str) -> None:
    survives(text)


@settings(deadline=SOON)
@given(st.text("()[]-!~>'\"\\x1e.,", max_size=60))
def test_any_symbols(text: str) -> None:
    survives(text)
