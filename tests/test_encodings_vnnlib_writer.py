"""VNN-LIB texts say exactly what the query says, to readers that share no code with the writer.

VNN-LIB 1.0 is read by z3 (it is SMT-LIB but for negative numbers), 2.0 by the standard's own
parser; both are evaluated at exact points, inside, outside and on borders.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conspec.encodings import vnnlib_writer
from conspec.encodings.boxed import Boxed, over_box
from conspec.encodings.connectives import at_least, disjuncts, without_counts, written_size
from conspec.encodings.exact import Vector, from_array, vector
from conspec.encodings.images import Image, Shape, in_shape
from conspec.encodings.network import Network
from conspec.encodings.onnx_reader import read_network
from conspec.encodings.onnx_writer import write_network
from conspec.encodings.query import Query, evaluate_at, fold
from conspec.encodings.regions import Box, box
from conspec.encodings.scores import ScoreSpace
from conspec.encodings.vnnlib_property import query_of
from conspec.encodings.vnnlib_reader import read_property
from conspec.encodings.vnnlib_writer import Picture, comparison, vnnlib1, vnnlib2, vnnlib2_hidden
from conspec.specs import formula as f
from conspec.specs.errors import BadUsage
from conspec.specs.rewrite import All, Count, Halfspace, Nnf, Some
from conspec.specs.semantics import holds
from tests import oracle, spaces

FEW = settings(max_examples=40, derandomize=True, deadline=None)
DEEP = spaces.spaces(depth=st.integers(0, 2))
EIGHTHS = st.integers(0, 8).map(lambda share: Fraction(share, 8))
POINTS = 4
Values = Mapping[str, Fraction]


# --- readers ------------------------------------------------------------------------------------


def z3_truth(text: str, values: Values) -> bool:
    """Whether the assertions of a VNN-LIB 1.0 text hold, as z3 reads them."""
    import z3

    standard = re.sub(r"(?<=[ (])-(\d+\.\d+)", r"(- \1)", text)  # SMT-LIB has no negative decimals
    goal = z3.And(*z3.parse_smt2_string(standard))
    pairs = [
        (z3.Real(name), z3.RealVal(f"{value.numerator}/{value.denominator}"))
        for name, value in values.items()
    ]
    answer = z3.simplify(z3.substitute(goal, *pairs))
    assert z3.is_true(answer) or z3.is_false(answer), "a variable was not declared or not valued"
    return bool(z3.is_true(answer))


def parsed2(text: str) -> Any:
    vnnlib = pytest.importorskip("vnnlib")
    return vnnlib.parse_query_string(text)


def vnnlib_truth(text: str, values: Values) -> bool:
    """Whether the assertions of a VNN-LIB 2.0 text hold, as the standard's parser reads them."""
    return all(_true(assertion.expr, values) for assertion in parsed2(text).assertions)


def _true(node: Any, values: Values) -> bool:
    kind = type(node).__name__
    if kind in ("And", "Or"):
        return (all if kind == "And" else any)(_true(part, values) for part in node.args)
    left, right = _value(node.lhs, values), _value(node.rhs, values)
    table = {
        "LessEqual": left <= right,
        "LessThan": left < right,
        "GreaterEqual": left >= right,
        "GreaterThan": left > right,
    }
    return table[kind]


def _value(node: Any, values: Values) -> Fraction:
    match type(node).__name__:
        case "Float":
            return Fraction(node.lexeme)
        case "Var":
            return values[f"{node.name}[{','.join(map(str, node.indices))}]"]
        case "Plus":
            return sum((_value(part, values) for part in node.args), Fraction(0))
        case "Multiply":
            total = Fraction(1)
            for part in node.args:
                total *= _value(part, values)
            return total
        case kind:
            raise AssertionError(f"unexpected {kind}")


def values1(boxed: Boxed, inputs: Vector) -> dict[str, Fraction]:
    """Values of X_i and Y_j at exact inputs, from the query's own functions over z."""
    z, space = boxed.embedding(inputs), boxed.source.space
    outputs = [*space.head.exact(z), *space.concept_map.exact(z)]
    named = {f"X_{i}": value for i, value in enumerate(inputs.fractions())}
    return named | {f"Y_{j}": value for j, value in enumerate(outputs)}


def values2(boxed: Boxed, inputs: Vector) -> dict[str, Fraction]:
    old = values1(boxed, inputs)
    return {f"{name[0]}[0,{name[2:]}]": value for name, value in old.items()}


# --- queries and points -------------------------------------------------------------------------


@st.composite
def points(draw: st.DrawFn, boxed: Boxed) -> list[Vector]:
    """Inputs inside the box, on its border, at ties, and a little outside."""
    region = boxed.region
    found = []
    for _ in range(POINTS):
        outside = draw(st.sampled_from([Fraction(0), Fraction(0), Fraction(1, 8)]))
        pairs = zip(region.lower.fractions(), region.upper.fractions(), strict=True)
        shares = draw(st.lists(EIGHTHS, min_size=region.dimension, max_size=region.dimension))
        entries = [
            low + share * (high - low) + outside * draw(st.sampled_from([0, 0, 1, -1]))
            for (low, high), share in zip(pairs, shares, strict=True)
        ]
        if boxed.source.region.shape is Shape.SIMPLEX and draw(st.booleans()):
            entries[0] = sum(region.upper.fractions()[:1]) - sum(entries[1:], Fraction(0))
        found.append(vector(entries))
    return found


def refutes(found: Query, inputs: Vector) -> bool:
    """Whether inputs give a counterexample, from the region's definition and the formula."""
    region = found.region
    if isinstance(region, Box):
        inside, z = region.contains(inputs), inputs
    elif region.scale:
        t = inputs.scaled(1 / region.scale)
        inside, z = in_shape(region.shape, t), region.at(t)
    else:
        inside, z = not any(inputs.numerators), region.center
    inside = inside and all(evaluate_at(cut, found.space, z)[0] for cut in found.cuts)
    return inside and not holds(found.spec.body, oracle.scores_at(found.space, z.fractions()))


def any_query(*shapes: Shape) -> st.SearchStrategy[Query]:
    images = st.sampled_from(shapes).flatmap(lambda shape: spaces.images(DEEP, shape))
    return st.one_of(spaces.queries(DEEP), spaces.contested(DEEP), images)


POLYHEDRA = any_query(Shape.CUBE, Shape.SIMPLEX)


@FEW
@given(POLYHEDRA, st.sampled_from([256, 1]), st.data())
def test_version_1_has_the_truth_of_the_query(found: Query, most: int, data: st.DataObject) -> None:
    boxed = over_box(found)
    with mock.patch.object(vnnlib_writer, "MOST_DISJUNCTS", most):
        text = vnnlib1(boxed)
    for inputs in data.draw(points(boxed)):
        assert z3_truth(text, values1(boxed, inputs)) is refutes(found, inputs)


@FEW
@given(any_query(*Shape), st.sampled_from([256, 1]), st.data())
def test_version_2_has_the_truth_of_the_query(found: Query, most: int, data: st.DataObject) -> None:
    boxed = over_box(found)
    with mock.patch.object(vnnlib_writer, "MOST_DISJUNCTS", most):
        text = vnnlib2(boxed)
    (network,) = parsed2(text).networks
    assert list(network.inputs[0].shape) == [1, boxed.region.dimension]
    for inputs in data.draw(points(boxed)):
        assert vnnlib_truth(text, values2(boxed, inputs)) is refutes(found, inputs)


@FEW
@given(spaces.contested(DEEP), st.data())
def test_hidden_bounds_have_the_truth_of_the_query(found: Query, data: st.DataObject) -> None:
    text = vnnlib2_hidden(found, Picture((1, 1, 2), Fraction(-1), Fraction("0.1")), "/relu.z")
    (network,) = parsed2(text).networks
    assert list(network.inputs[0].shape) == [1, 1, 2]
    assert [(h.name, h.onnx_name.strip('"')) for h in network.hidden] == [("Z", "/relu.z")]
    boxed = over_box(found)
    for z in data.draw(points(boxed)):
        values = {name.replace("X", "Z"): v for name, v in values2(boxed, z).items()}
        for pixel in ("-1", "0.1", "0.11"):
            pixels = {"X[0,0,0]": Fraction(0), "X[0,0,1]": Fraction(pixel)}
            expected = pixel != "0.11" and refutes(found, z)
            assert vnnlib_truth(text, values | pixels) is expected


def fixed(body: str, *, region: Any = None, hidden: bool = False) -> Boxed:
    three = (np.eye(3).tolist(), [0.0] * 3)
    scores = spaces.space(three, three, *([three] if hidden else []))
    return over_box(spaces.query(scores, body, region or spaces.box_of([0] * 3, [1] * 3)))


@pytest.mark.parametrize(
    "body",
    [
        "a > b", "not (a > b)", "predict(x)", "predict(x) => b > c", "a > b <=> b > c",
        "a > b and b > c", "predict(x) or predict(y)", "a > b or b > c and a > c",
        "atleast(2, a > b, b > c, c > a)",
        "atmost(1, a > b, b > c, predict(y))", "atleast(3, a > b, b > c, c > a, predict(w))",
        "score(a) >= 0.1", "3 * score(a) >= 1", "3 * score(a) - logit(x) > 1/3",
        "logit(x) - 2 * logit(y) <= 0.5", "true", "false", "atleast(2, a > b, true, c > b)",
    ],
)  # fmt: skip
@pytest.mark.parametrize("most", [256, 1])
def test_every_connective_at_every_border(body: str, most: int) -> None:
    """All points of a grid on which every comparison above is a tie somewhere."""
    boxed = fixed(body)
    with mock.patch.object(vnnlib_writer, "MOST_DISJUNCTS", most):
        one, two = vnnlib1(boxed), vnnlib2(boxed)
    truths = set()
    for entries in product([Fraction(v) for v in ("-0.5", "0", "0.1", "1/3", "1")], repeat=3):
        inputs = vector(entries)
        expected = refutes(boxed.source, inputs)
        assert vnnlib_truth(two, values2(boxed, inputs)) is expected
        truths.add(expected)
        if entries[2] in (0, Fraction("-0.5")):  # z3 is slower
            assert z3_truth(one, values1(boxed, inputs)) is expected
    assert truths == ({False} if body == "true" else {True, False})


def with_stored_centre(found: Query) -> Query:
    """The query with a centre of float64 numbers, as bundles have: ONNX holds no others."""
    if isinstance(found.region, Box):
        return found
    return replace(found, region=replace(found.region, center=stored(found.region.center)))


def stored(values: Vector) -> Vector:
    return from_array(values.floats())


@FEW
@given(POLYHEDRA.map(with_stored_centre), st.sampled_from([vnnlib1, vnnlib2]))
def test_our_importer_gives_the_same_answer(
    tmp_path_factory: pytest.TempPathFactory, found: Query, write: Callable[[Boxed], str]
) -> None:
    boxed, folder = over_box(found), tmp_path_factory.mktemp("roundtrip")
    write_network(boxed, folder / "f.onnx")
    (folder / "q.vnnlib").write_text(write(boxed), encoding="ascii")
    if write is vnnlib2:
        pytest.importorskip("vnnlib")
    read = query_of(read_property(folder / "q.vnnlib"), read_network(folder / "f.onnx"))
    expected = oracle.decide(found)
    assert expected is not None
    assert oracle.decide(read) is expected


@pytest.mark.parametrize("radius", ["0.1", "2", "1/3"])
def test_a_ball_is_round(radius: str) -> None:
    """(3, 4)/5 is a point of the unit circle; all of these are points of its box too."""
    scale = Fraction(radius)
    region = Image(vector([Fraction(0)] * 2), np.eye(2), scale, Shape.BALL)
    boxed = over_box(spaces.query(spaces.identity(2), "a > b", region))
    text, short = vnnlib2(boxed), scale / 5
    for point, inside in [((3, 4), True), ((-3, 4), True), ((-3, 5), False), ((0, 5), True)]:
        inputs = vector([value * short for value in point])
        assert vnnlib_truth(text, values2(boxed, inputs)) is inside
        assert refutes(boxed.source, inputs) is inside
    beyond = vector([3 * short, 4 * short + Fraction(1, 10**9)])
    assert not vnnlib_truth(text, values2(boxed, beyond))


# --- the form of the text -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "constant", "strict", "expected"),
    [
        ([("1", "u")], "-0.2", False, "(>= u 0.2)"),
        ([("-2", "u")], "1", True, "(< u 0.5)"),
        ([("3", "u")], "-1", False, "(>= (* 3.0 u) 1.0)"),
        ([("-1/3", "u")], "1", False, "(<= u 3.0)"),
        ([("1/3", "u")], "-1/7", False, "(>= (* 7.0 u) 3.0)"),
        ([("1", "u"), ("-1", "v")], "0", False, "(>= u v)"),
        ([("-1/3", "u"), ("1/3", "v")], "0", True, "(> v u)"),
        ([("2", "u"), ("-1", "v")], "-0.5", False, "(>= (+ (* 2.0 u) (* -1.0 v)) 0.5)"),
        ([("1", "u"), ("-1", "v")], "1/6", True, "(> (+ (* 3.0 u) (* -3.0 v)) -0.5)"),
        ([("1", "u"), ("1", "v")], "0", False, "(>= (+ (* 1.0 u) (* 1.0 v)) 0.0)"),
        ([("1", "u"), ("-1", "v"), ("1", "w")], "0", False,
         "(>= (+ (* 1.0 u) (* -1.0 v) (* 1.0 w)) 0.0)"),
    ],
)  # fmt: skip
def test_comparisons_are_as_simple_as_they_can_be(
    terms: list[tuple[str, str]], constant: str, strict: bool, expected: str
) -> None:
    exact = [(Fraction(factor), name) for factor, name in terms]
    assert comparison(exact, Fraction(constant), strict=strict) == expected


def lines_of(text: str) -> list[str]:
    """The assertions about outputs."""
    return [line for line in text.splitlines() if line.startswith("(assert") and "Y" in line]


def test_short_conditions_are_one_disjunction_of_conjunctions() -> None:
    text = vnnlib1(fixed("predict(x) and (a > b or b > c) and (a > b or c > a)"))
    assert lines_of(text) == [
        "(assert (or (and (>= Y_1 Y_0)) (and (>= Y_2 Y_0)) (and (>= Y_4 Y_3) (>= Y_5 Y_4)) "
        "(and (>= Y_4 Y_3) (>= Y_3 Y_5))))"
    ]
    assert lines_of(vnnlib1(fixed("predict(x) => a > b"))) == [
        "(assert (> Y_0 Y_1))",
        "(assert (> Y_0 Y_2))",
        "(assert (>= Y_4 Y_3))",
    ]


def test_the_whole_text_of_a_small_query() -> None:
    layer = ([[1.0]], [0.0])
    found = spaces.query(spaces.space(layer, layer), "score(a) > 0.5", spaces.box_of(["-0.1"], [2]))
    assert vnnlib1(over_box(found), "a title").splitlines() == [
        "; a title",
        "; sat: a counterexample to this spec; unsat: the spec is proved.",
        '; spec "spec":',
        ";     forall x in box(0, 1):",
        ";         score(a) > 0.5",
        "; X_0 to X_0: the entries of the embedding.",
        "; Y_0: logit of x",
        "; Y_1: score of a",
        "(declare-const X_0 Real)",
        "(declare-const Y_0 Real)",
        "(declare-const Y_1 Real)",
        "(assert (>= X_0 -0.1))",
        "(assert (<= X_0 2.0))",
        "(assert (<= Y_1 0.5))",
    ]
    two = vnnlib2(over_box(found)).splitlines()
    assert two[0] == "(vnnlib-version <2.0>)"
    assert two[-7:] == [
        "(declare-network f",
        "  (declare-input X real [1,1])",
        "  (declare-output Y real [1,2])",
        ")",
        "(assert (>= X[0,0] -0.1))",
        "(assert (<= X[0,0] 2.0))",
        "(assert (<= Y[0,1] 0.5))",
    ]


def test_names_cannot_leave_their_comment() -> None:
    layer = spaces.affine([[1.0], [2.0]], [0.0, 0.0])
    names = ("é\n(assert false)", 'a"\u2028(assert (<= Y_0 Y_1))\r\x00')
    scores = ScoreSpace(names, (), Network((layer,)), spaces.affine(np.zeros((0, 1)), []))  # type: ignore[arg-type]
    compare = f.Compare(f.Linear(((Fraction(1), f.Logit(names[0])),)), f.Relation.GE, f.Linear(()))
    boxed = over_box(spaces.query(scores, compare, spaces.box_of([0], [1])))
    for text in (vnnlib1(boxed, "t\n(check-sat)"), vnnlib2(boxed, "t\n(check-sat)")):
        assert text.isascii()
        assert [line for line in text.splitlines() if "assert false" in line or "check" in line]
        assert all(line[0] in ";( )" for line in text.splitlines())
        assert len(lines_of(text)) == 1
        assert not re.search(r"^[^;]*(check-sat|false)", text, re.MULTILINE)
    assert z3_truth(vnnlib1(boxed), values1(boxed, vector([Fraction(-1)]))) is False


def test_what_has_no_form_is_refused() -> None:
    mapping = (np.eye(2).tolist(), [0.0] * 2)
    scores = spaces.space(
        mapping, alignment=spaces.affine(*mapping), thresholds={"a": Fraction(1, 2)}
    )
    region = spaces.box_of([0, 0], [1, 1])
    has = over_box(spaces.query(scores, "has(a) or a > b", region))
    for write, version in ((vnnlib1, "1.0"), (vnnlib2, "2.0")):
        with pytest.raises(
            BadUsage,
            match=rf"'spec': has\(a\) cannot be written in VNN-LIB {version}; export it as",
        ):
            write(has)
    ball = Image(vector([Fraction(0)] * 2), np.eye(2), Fraction(1), Shape.BALL)
    boxed = over_box(spaces.query(scores, "a > b", ball))
    with pytest.raises(BadUsage, match=r"the L2 ball of its region cannot be written in VNN-LIB 1"):
        vnnlib1(boxed)
    with pytest.raises(BadUsage, match="a region of the hidden tensor that is no box cannot"):
        vnnlib2_hidden(boxed.source, Picture((1, 2)), "z")
    with pytest.raises(BadUsage, match="the tensor's name 'a\"b' cannot be written"):
        vnnlib2_hidden(has.source, Picture((1, 2)), 'a"b')
    with pytest.raises(BadUsage, match="cannot be called 'f g'"):
        vnnlib2(fixed("a > b"), network="f g")
    tiny = spaces.box_of([0], [Fraction(1, 2**5000)])
    one = spaces.space(([[1.0]], [0.0]))
    with pytest.raises(BadUsage, match="a number of more than 1200 digits"):
        vnnlib1(over_box(spaces.query(one, "score(a) > 0", tiny)))
    small = over_box(spaces.query(one, "score(a) > 0", spaces.box_of([0], [Fraction(1, 2**1060)])))
    assert "0.0000" in vnnlib1(small)
    with pytest.raises(BadUsage, match="beyond the range of float64"):  # the package reads none
        vnnlib2(small)


# --- counting -----------------------------------------------------------------------------------


def atoms(count: int) -> list[Halfspace]:
    return [Halfspace(((Fraction(1), f.Coordinate(i)),), Fraction(0), True) for i in range(count)]


def truth(nnf: Nnf, values: Callable[[int], bool]) -> bool:
    def leaf(literal: Any) -> bool:
        return values(literal.terms[0][1].index)

    return fold(nnf, leaf, lambda count, parts: sum(parts) >= count)


@pytest.mark.parametrize("length", range(6))
def test_counts_are_right_for_all_truth_values(length: int) -> None:
    for count in range(-1, length + 2):
        found = at_least(count, atoms(length))
        choices = disjuncts(found, 10**4)
        assert choices is not None
        for values in product([False, True], repeat=length):
            expected = sum(values) >= count
            assert truth(found, values.__getitem__) is expected
            spread = Some(tuple(All(one) for one in choices))
            assert truth(spread, values.__getitem__) is expected


def test_long_disjunctions_are_given_up() -> None:
    some = atoms(9)
    product_of_27 = All(tuple(Some(tuple(some[start : start + 3])) for start in (0, 3, 6)))
    found = disjuncts(product_of_27, 27)
    assert found is not None
    assert len(set(found)) == 27
    assert disjuncts(product_of_27, 26) is None
    assert disjuncts(Some(tuple(some)), 9) == [(atom,) for atom in some]
    assert disjuncts(Some(tuple(some)), 8) is None


def has_counts(nnf: Nnf) -> bool:
    if isinstance(nnf, Count):
        return True
    return isinstance(nnf, All | Some) and any(has_counts(part) for part in nnf.operands)


@FEW
@given(st.integers(2, 40).flatmap(
    lambda n: st.tuples(st.integers(0, n), st.lists(st.booleans(), min_size=n, max_size=n))
))  # fmt: skip
def test_large_counts_are_right(drawn: tuple[int, list[bool]]) -> None:
    count, values = drawn
    found = without_counts(Count(count, tuple(atoms(len(values)))))
    assert not has_counts(found)
    assert truth(found, values.__getitem__) is (sum(values) >= count)
    if count > 1:
        near = [place < count for place in range(len(values))]
        assert truth(found, near.__getitem__)
        near[0] = False
        assert not truth(found, near.__getitem__)


@FEW
@given(spaces.contested(DEEP), st.integers(1, 40), st.data())
def test_disjuncts_have_the_same_truth(found: Query, most: int, data: st.DataObject) -> None:
    plain = without_counts(found.violation)
    choices = disjuncts(plain, most)
    everything = disjuncts(plain, 10**6)
    assert everything is not None
    if choices is None:
        assert len(everything) > 0
        return
    assert len(choices) <= most
    spread = Some(tuple(All(one) for one in choices))
    for point in data.draw(points(over_box(found))):
        expected = evaluate_at(found.violation, found.space, point)[0]
        assert evaluate_at(spread, found.space, point)[0] is expected
        assert evaluate_at(plain, found.space, point)[0] is expected


def of_many(count: int, total: int) -> Boxed:
    """At most ``count − 1`` of ``total`` concepts are above a half; a violation has ``count``."""
    names = tuple(f"c{i}" for i in range(total))
    layer = spaces.affine(np.eye(total).tolist(), [0.0] * total)
    scores = ScoreSpace(names[:1], names, Network((spaces.affine([[1.0] * total], [0.0]),)), layer)
    above = [
        f.Compare(f.Linear(((Fraction(1), f.Score(name)),)), f.Relation.GT,
                  f.Linear((), Fraction(1, 2)))
        for name in names
    ]  # fmt: skip
    body = f.AtMost(count - 1, tuple(above))
    return over_box(spaces.query(scores, body, spaces.box_of([0] * total, [1] * total)))


def test_fifteen_of_thirty_is_written_out_and_right() -> None:
    boxed = of_many(15, 30)
    one, two = vnnlib1(boxed), vnnlib2(boxed)
    assert written_size(without_counts(boxed.violation), lambda _: 1) < 50_000  # C(30, 15) is 1.6e8
    for inside in (14, 15, 16):
        for step in (1, 7, 11):
            entries = [Fraction(1, 4)] * 30
            for place in range(inside):
                entries[place * step % 30] = Fraction(3, 4)
            inputs = vector(entries)
            assert vnnlib_truth(two, values2(boxed, inputs)) is (inside >= 15)
            if step == 7:
                assert z3_truth(one, values1(boxed, inputs)) is (inside >= 15)


def test_a_hundred_of_two_hundred_is_refused_by_name() -> None:
    with pytest.raises(BadUsage, match=r"a condition of over 20000000 characters cannot be"):
        vnnlib1(of_many(100, 200))


# --- sizes ---------------------------------------------------------------------------------------


def test_two_thousand_dimensions_are_cheap() -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(4, 2048)).astype(np.float32).astype(np.float64)
    layer = spaces.affine(weight.tolist(), [0.0] * 4)
    scores = ScoreSpace(tuple("abcd"), tuple("wxyz"), Network((layer,)), layer)
    center = from_array(random.normal(size=2048))
    half = vector([Fraction(1, 10)] * 2048)
    region = box(center.plus(half.scaled(-1)), center.plus(half))
    boxed = over_box(spaces.query(scores, "predict(a) => w > x", region))
    text = vnnlib1(boxed)
    assert z3_truth(text, values1(boxed, center)) is refutes(boxed.source, center)
    assert "query" not in vars(boxed)


def test_files_are_the_same_each_time() -> None:
    for body in ("a > b <=> b > c", "atleast(2, a > b, b > c, c > a)"):
        assert vnnlib1(fixed(body)) == vnnlib1(fixed(body))
        assert vnnlib2(fixed(body)) == vnnlib2(fixed(body))
