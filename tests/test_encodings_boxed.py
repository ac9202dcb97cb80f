"""A query over a box asks the same question as the query that it came from, exactly."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conspec.encodings.boxed import Boxed, over_box
from conspec.encodings.exact import Vector, vector
from conspec.encodings.images import Image, Shape
from conspec.encodings.network import Network
from conspec.encodings.query import Query, evaluate_at
from conspec.encodings.regions import Box
from conspec.encodings.scores import ScoreSpace
from conspec.specs import formula as f
from conspec.specs.errors import UnknownName
from conspec.specs.formula import Coordinate
from conspec.specs.rewrite import Halfspace
from conspec.verifier import verify
from conspec.verifier.verdict import Proved, Violated
from tests import oracle, spaces
from tests import strategies as tree

FEW = settings(max_examples=40, derandomize=True, deadline=None)
DEEP = spaces.spaces(depth=st.integers(0, 2))
SHARES = st.sampled_from([Fraction(v) for v in ("0", "1", "-1", "1/3", "0.5", "-1/7")])
ZERO = Fraction(0)
Coordinates = tuple[tuple[Fraction, f.Symbol], ...]


@st.composite
def with_coordinates(draw: st.DrawFn, found: Query) -> Query:
    """The query, at times with a comparison of coordinates (and scores) beside its formula."""
    if draw(st.booleans()):
        return found
    size = found.space.dimension
    side = tree.linears(
        found.space.classes, found.space.concepts, spaces.CONSTANTS, coordinates=size
    )
    atom = f.Compare(draw(side), draw(st.sampled_from(f.Relation)), draw(side))
    both = (found.spec.body, atom)
    body: f.Formula = f.And(both) if draw(st.booleans()) else f.Or(both)
    return replace(found, spec=replace(found.spec, body=body))


def region_queries(shape: Shape) -> st.SearchStrategy[Query]:
    return spaces.images(DEEP, shape).flatmap(with_coordinates)


@st.composite
def parameters(draw: st.DrawFn, image: Image) -> Vector:
    """Exact parameters t of the shape T, its corners and border among them."""
    values = draw(st.lists(SHARES, min_size=image.parameters, max_size=image.parameters))
    if image.shape is Shape.CUBE:
        return vector(values)
    if image.shape is Shape.BALL:
        first = draw(st.integers(0, image.parameters - 1))
        return vector([v if place == first else Fraction(0) for place, v in enumerate(values)])
    sizes = [abs(value) for value in values]
    total = sum(sizes, Fraction(0))
    if not total:
        return Vector((1,) + (0,) * (len(sizes) - 1))
    return vector(value / total for value in sizes)


def in_region(boxed: Boxed, inputs: Vector) -> bool:
    """Whether exact inputs satisfy bounds, cuts and ball."""
    inside = boxed.region.contains(inputs)
    inside &= all(evaluate_at(cut, boxed.query.space, inputs)[0] for cut in boxed.cuts)
    return inside and (boxed.ball is None or inputs.dot(inputs) <= boxed.ball**2)


@FEW
@given(st.data(), st.sampled_from(Shape))
def test_truth_and_margin_are_those_of_the_embedding(data: st.DataObject, shape: Shape) -> None:
    found = data.draw(region_queries(shape))
    assert isinstance(found.region, Image)
    boxed = over_box(found)
    t = data.draw(parameters(found.region))
    inputs = t.scaled(found.region.scale)
    z = found.region.at(t)
    assert boxed.embedding(inputs).fractions() == z.fractions()
    assert boxed.query.margin(inputs) == found.margin(z)
    assert evaluate_at(boxed.violation, boxed.query.space, inputs) == found.margin(z)
    cuts_hold = all(evaluate_at(cut, found.space, z)[0] for cut in found.cuts)
    assert in_region(boxed, inputs) is cuts_hold


@FEW
@given(st.data(), st.sampled_from(Shape))
def test_inputs_outside_the_shape_are_outside_the_box_and_cuts(
    data: st.DataObject, shape: Shape
) -> None:
    found = replace(data.draw(region_queries(shape)), cuts=())
    assert isinstance(found.region, Image)
    boxed = over_box(found)
    count = found.region.parameters
    numbers = data.draw(st.lists(SHARES, min_size=count, max_size=count))
    inputs = vector(value * found.region.scale * 2 for value in numbers)
    parts = [value * 2 for value in numbers]
    inside = {
        Shape.CUBE: all(abs(value) <= 1 for value in parts),
        Shape.BALL: sum(value * value for value in parts) <= 1,
        Shape.SIMPLEX: all(value >= 0 for value in parts) and sum(parts) == 1,
    }[shape]
    if found.region.scale:
        assert in_region(boxed, inputs) is inside


@FEW
@given(st.data(), st.sampled_from([Shape.CUBE, Shape.SIMPLEX]))
def test_the_answer_is_that_of_the_query(data: st.DataObject, shape: Shape) -> None:
    found = data.draw(region_queries(shape))
    expected, answer = oracle.decide(found), oracle.decide(over_box(found).query)
    assert expected is not None
    assert answer is expected
    verdict = verify(over_box(found).query)
    if isinstance(verdict, Proved | Violated):
        assert isinstance(verdict, Proved) is expected


@FEW
@given(spaces.images(DEEP, Shape.BALL))
def test_the_cube_around_a_ball_proves_no_more(found: Query) -> None:
    boxed = over_box(found)
    assert isinstance(found.region, Image)
    assert (boxed.ball is None) is (found.region.parameters == 1 or not found.region.scale)
    if isinstance(verify(boxed.query), Proved):
        assert not isinstance(verify(found), Violated)


@FEW
@given(spaces.queries(DEEP))
def test_a_box_stays_as_it_is(found: Query) -> None:
    boxed = over_box(found)
    assert (boxed.query, boxed.region, boxed.violation) == (found, found.region, found.violation)
    assert (boxed.prelude, boxed.ball, boxed.spec) == (None, None, found.spec)


def test_a_hull_has_its_scale_in_the_sum() -> None:
    found = spaces.query(spaces.identity(2), "a > b", Image(vector([Fraction(5), Fraction(1)]),
        np.array([[1.0, 2.0, 0.5], [0.0, 1.0, 4.0]]), Fraction(2), Shape.SIMPLEX))  # fmt: skip
    boxed = over_box(found)
    ones = tuple((Fraction(1), Coordinate(j)) for j in range(3))
    minus = tuple((Fraction(-1), Coordinate(j)) for j in range(3))
    assert boxed.cuts == (
        Halfspace(ones, Fraction(-2), strict=False),
        Halfspace(minus, Fraction(2), strict=False),
    )
    assert boxed.region.lower.fractions() == [0, 0, 0]
    assert boxed.region.upper.fractions() == [2, 2, 2]
    # A vertex t = (0, 0, 1) is X = (0, 0, 2): z = (5 + 2·0.5, 1 + 2·4).
    assert boxed.embedding(vector([Fraction(v) for v in (0, 0, 2)])).fractions() == [6, 9]
    assert isinstance(boxed.spec.region, f.Both)


def cut_image(row: tuple[int, int], constant: int) -> Boxed:
    """Cut ``row·z + constant >= 0`` of a segment on which z_1 is 1 and z_0 is in [0, 2]."""
    pairs = zip(row, (Coordinate(0), Coordinate(1)), strict=True)
    terms: Coordinates = tuple((Fraction(a), symbol) for a, symbol in pairs if a)
    image = Image(
        vector([Fraction(1), Fraction(1)]), np.array([[1.0], [0.0]]), Fraction(1), Shape.CUBE
    )
    found = spaces.query(spaces.identity(2), "a > b", image)
    return over_box(replace(found, cuts=(Halfspace(terms, Fraction(constant), strict=False),)))


def test_a_cut_that_becomes_constant_is_dropped_or_empties_the_region() -> None:
    assert cut_image((0, 1), -1).cuts == ()
    (cut,) = cut_image((0, 1), -2).cuts
    assert not any(
        evaluate_at(cut, cut_image((0, 1), -2).query.space, vector([Fraction(x)]))[0]
        for x in (-1, 0, 1)
    )
    assert cut_image((2, 1), -2).cuts == (
        Halfspace(((Fraction(2), Coordinate(0)),), Fraction(1), strict=False),
    )


def with_has(**more: object) -> Query:
    mapping = ([[1.0, 0.0], [0.0, 1.0]], [0.5, 0.0])
    scores = spaces.space(
        mapping, alignment=spaces.affine(*mapping), thresholds={"a": Fraction(1, 2)}, **more
    )
    image = Image(vector([Fraction(1)] * 2), np.array([[1.0, 2.0], [0.5, -1.0]]), Fraction(1, 3),
                  Shape.CUBE)  # fmt: skip
    return spaces.query(scores, "has(a)", image)


def test_has_is_measured_at_the_same_embedding() -> None:
    found = with_has()
    boxed = over_box(found)
    assert isinstance(found.region, Image)
    for t in ([1, 1], [-1, 1], [1, -1], [0, 0]):
        inputs = vector([Fraction(value, 3) for value in t])
        z = found.region.at(vector([Fraction(value) for value in t]))
        assert boxed.query.margin(inputs) == found.margin(z)
    assert over_box(replace(found, spec=spaces.query(
        found.space, "a > b", found.region).spec)).query.space.alignment is None  # fmt: skip


def test_an_unknown_name_is_refused() -> None:
    found = with_has()
    body = f.Compare(f.Linear(((Fraction(1), Coordinate(2)),)), f.Relation.GE, f.Linear(()))
    wrong = replace(found, spec=replace(found.spec, body=f.Or((found.spec.body, body))))
    with pytest.raises(UnknownName, match="coordinate 2; embeddings have 2"):
        over_box(wrong)
    cut = Halfspace(((Fraction(1), f.Logit("none")), (Fraction(1), Coordinate(0))), ZERO, False)
    with pytest.raises(UnknownName, match="no class 'none'"):
        over_box(replace(found, cuts=(cut,)))
    cut = Halfspace(((Fraction(1), Coordinate(2)),), ZERO, strict=False)
    with pytest.raises(UnknownName, match="coordinate 2; embeddings have 2"):
        over_box(replace(found, cuts=(cut,)))


def test_one_literal_has_its_own_row_in_each_space() -> None:
    found = with_has()
    literal = Halfspace(((Fraction(1), f.Score("a")),), ZERO, strict=False)
    assert found.space.row(literal)[0].fractions() == [1, 0]
    assert over_box(found).query.space.row(literal)[0].fractions() == [1, 2]
    assert found.space.row(literal)[0].fractions() == [1, 0]


def test_large_balls_and_hulls_are_cheap() -> None:
    """2,048 dimensions and a hull of 3,000 samples; generators are never multiplied out."""
    random = np.random.default_rng(0)
    single = random.normal(size=(10, 2048)).astype(np.float32).astype(np.float64)
    layer = spaces.affine(single.tolist(), [0.0] * 10)
    names = tuple(f"c{k}" for k in range(10))
    scores = ScoreSpace(names, (), Network((layer,)), spaces.affine(np.empty((0, 2048)), []))  # type: ignore[arg-type]
    center = vector([Fraction(1)] * 2048)
    for image in (
        Image(center, np.eye(2048), Fraction(1, 10), Shape.BALL),
        Image(center, random.normal(size=(2048, 3000)).astype(np.float32).astype(np.float64),
              Fraction(1), Shape.SIMPLEX),
    ):  # fmt: skip
        boxed = over_box(spaces.query(scores, "logit(c0) > logit(c1)", image))
        assert boxed.region.dimension == image.parameters
        assert isinstance(boxed.region, Box)
        assert isinstance(boxed.violation, Halfspace)
        assert "query" not in vars(boxed)
