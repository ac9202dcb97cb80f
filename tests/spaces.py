"""Small score spaces, boxes and queries: by hand, and as hypothesis strategies.

Weights are few and small, so that ties, duplicated rows and zero rows are common.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from conspec.encodings.exact import vector
from conspec.encodings.images import Image, Shape
from conspec.encodings.network import Affine, Network
from conspec.encodings.query import Query
from conspec.encodings.regions import Box, ConvexRegion, box
from conspec.encodings.scores import ScoreSpace
from conspec.specs import formula as f
from conspec.specs import parse_formula
from conspec.specs.rewrite import Halfspace
from tests import oracle
from tests import strategies as tree

CLASSES = ("x", "y", "w")
CONCEPTS = ("a", "b", "c")
Number = float | Fraction | int | str
Layer = tuple[Sequence[Sequence[float]], Sequence[float]]

# What float32 can hold, from denormals to the largest; and the sizes issue 3 asks for.
SIZES = st.sampled_from([0.0, 1.0, -1.0, 3.0, 1e-30, -1e-30, 1e30, -1e30, 1e-45, -1e38, 2e-10])
SIMPLE = st.sampled_from([-2.0, -1.0, 0.0, 0.0, 0.5, 1.0, 1.0, 2.0])
SINGLE = st.floats(-4.0, 4.0, width=32)  # any float32, denormals included
CONSTANTS = st.sampled_from([Fraction(v) for v in ("0", "0", "1", "-1", "1/3", "0.1", "2.5")])


def affine(weight: Sequence[Sequence[float]], bias: Sequence[float]) -> Affine:
    return Affine(np.array(weight, dtype=np.float64), np.array(bias, dtype=np.float64))


def space(concepts: Layer, *head: Layer, **more: object) -> ScoreSpace:
    """A space with as many of the names above as there are rows."""
    layers = tuple(affine(*layer) for layer in head) or (affine(*concepts),)
    return ScoreSpace(
        CLASSES[: layers[-1].outputs],
        CONCEPTS[: len(concepts[1])],
        Network(layers),
        affine(*concepts),
        **more,  # type: ignore[arg-type]  # alignment and thresholds, when a test has them
    )


def identity(size: int, scale: float = 1.0) -> ScoreSpace:
    """Logits and concept scores are the embedding's entries, times a scale."""
    rows = (np.eye(size) * scale).tolist()
    return space((rows, [0.0] * size), (rows, [0.0] * size))


def box_of(lower: Sequence[Number], upper: Sequence[Number]) -> Box:
    """A box with exact bounds; a string is the exact decimal."""
    return box(vector([Fraction(v) for v in lower]), vector([Fraction(v) for v in upper]))


def query(scores: ScoreSpace, body: f.Formula | str, region: ConvexRegion) -> Query:
    """A query whose spec says nothing of the region."""
    formula = parse_formula(body) if isinstance(body, str) else body
    unused = f.Box((Fraction(0),), (Fraction(1),))
    return Query(f.ForAll("spec", unused, formula), scores, region)


@st.composite
def layers(draw: st.DrawFn, inputs: int, outputs: int, weights: st.SearchStrategy[float]) -> Affine:
    """An affine layer, now and then with a row repeated or zero."""
    rows = st.lists(weights, min_size=inputs, max_size=inputs)
    weight = [draw(rows) for _ in range(outputs)]
    bias = draw(st.lists(weights, min_size=outputs, max_size=outputs))
    if outputs > 1 and draw(st.integers(0, 4)) == 0:
        weight[1], bias[1] = weight[0], bias[0]
    return affine(weight, bias)


@st.composite
def spaces(
    draw: st.DrawFn,
    dimension: int | None = None,
    depth: st.SearchStrategy[int] = st.integers(0, 2),  # noqa: B008  # strategies are values
    weights: st.SearchStrategy[float] = SIMPLE,
) -> ScoreSpace:
    """Spaces of one to three dimensions, classes and concepts, and ``depth`` hidden layers."""
    size = dimension or draw(st.integers(1, 3))
    classes, concepts = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    sizes = [size, *(draw(st.integers(1, 3)) for _ in range(draw(depth))), classes]
    head = [draw(layers(n, m, weights)) for n, m in pairwise(sizes)]
    concept_map = draw(layers(size, concepts, weights))
    return ScoreSpace(CLASSES[:classes], CONCEPTS[:concepts], Network(tuple(head)), concept_map)


@st.composite
def boxes(draw: st.DrawFn, dimension: int) -> Box:
    """Boxes that are not empty; widths of zero are common."""
    numbers = st.sampled_from([Fraction(v) for v in ("-1", "0", "0", "0.1", "1/3", "1")])
    widths = st.sampled_from([Fraction(v) for v in ("0", "1e-12", "0.2", "1", "2", "2")])
    lower = draw(st.lists(numbers, min_size=dimension, max_size=dimension))
    return box_of(lower, [low + draw(widths) for low in lower])


@st.composite
def queries(draw: st.DrawFn, scores: st.SearchStrategy[ScoreSpace], max_leaves: int = 8) -> Query:
    """A random formula over a random box."""
    chosen = draw(scores)
    body = tree.formulas(
        chosen.classes, chosen.concepts, has=False, coefficients=CONSTANTS, max_leaves=max_leaves
    )
    return query(chosen, draw(body), draw(boxes(chosen.dimension)))


OFFSETS = st.sampled_from([Fraction(v) for v in ("0", "0", "1e-12", "-1e-9", "1e-3", "-0.1")])


@st.composite
def contested(draw: st.DrawFn, scores: st.SearchStrategy[ScoreSpace]) -> Query:
    """A query that bounds on single atoms rarely decide: all comparisons cut the box.

    Each passes through one of two points of the box, or very near, so that several meet there.
    """
    chosen = draw(scores)
    region = draw(boxes(chosen.dimension))
    anchors = [_inside(region, draw(st.integers(0, 8)), draw(st.integers(0, 8))) for _ in "ab"]
    relations = st.sampled_from(f.Relation)
    atoms: list[f.Formula] = []
    for _ in range(draw(st.integers(2, 6))):
        left = draw(tree.linears(chosen.classes, chosen.concepts, CONSTANTS))
        value = _value_at(chosen, left, draw(st.sampled_from(anchors))) + draw(OFFSETS)
        atoms.append(f.Compare(left, draw(relations), f.Linear((), value)))
    half = len(atoms) // 2
    premise, conclusion = atoms[:half], atoms[half:]
    body: f.Formula = f.Implies(draw(_gathered(premise)), draw(_gathered(conclusion)))
    return query(chosen, f.Not(body) if draw(st.integers(0, 3)) == 0 else body, region)


def _gathered(parts: Sequence[f.Formula]) -> st.SearchStrategy[f.Formula]:
    """The parts under one connective."""
    some = tuple(parts)
    if len(some) == 1:
        return st.just(some[0])
    counts = st.integers(1, len(some))
    return st.one_of(
        st.sampled_from([f.And(some), f.Or(some), f.Iff(some[0], f.Or(some[1:] * 2))]),
        counts.map(lambda count: f.AtLeast(count, some)),
        counts.map(lambda count: f.AtMost(count, some)),
    )


def _inside(region: Box, first: int, rest: int) -> list[Fraction]:
    """A point of the box: the first coordinate and the others at eighths of its widths."""
    pairs = zip(region.lower.fractions(), region.upper.fractions(), strict=True)
    shares = [Fraction(first, 8)] + [Fraction(rest, 8)] * (region.dimension - 1)
    return [low + share * (high - low) for (low, high), share in zip(pairs, shares, strict=True)]


def _value_at(scores: ScoreSpace, linear: f.Linear, point: Sequence[Fraction]) -> Fraction:
    found = oracle.scores_at(scores, point)
    return next(oracle.compared(f.Compare(linear, f.Relation.GT, f.Linear(())), found))


@st.composite
def images(draw: st.DrawFn, scores: st.SearchStrategy[ScoreSpace], shape: Shape) -> Query:
    """A contested query moved to an image of a cube, ball or simplex, at times cut."""
    found = draw(contested(scores))
    size, count = found.space.dimension, draw(st.integers(1, 3))
    rows = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 0.1]), min_size=count, max_size=count)
    generators = np.array([draw(rows) for _ in range(size)])
    scale = draw(st.sampled_from([Fraction(v) for v in ("1", "0.1", "2", "1/3", "0")]))
    center = found.region.at(found.region.into(np.zeros(size)))
    region = Image(center, generators, scale, shape)
    cuts: tuple[Halfspace, ...] = ()
    if draw(st.booleans()):
        wall = ((Fraction(1), f.Coordinate(0)), (Fraction(-1, 3), f.Coordinate(size - 1)))
        middle = center.fractions()[0] - center.fractions()[-1] / 3
        cuts = (Halfspace(wall[: min(size, 2)] if size > 1 else wall[:1], -middle, False),)
    return replace(found, region=region, cuts=cuts)
