"""Independent answers to a query, from the formula as written: no normal form, rows or bounds.

``decide`` asks z3 about real variables, exact rational weights and ``If`` for a ReLU.
``decide_on_segment`` and ``decide_in_plane`` use nothing but Fractions: all scores are piecewise
affine, so a formula's truth can change only where two of the compared values meet.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import combinations, pairwise
from typing import Any, assert_never

import z3

from conspec.encodings.images import Image, Shape
from conspec.encodings.network import Affine
from conspec.encodings.query import Query
from conspec.encodings.regions import Box
from conspec.encodings.scores import ScoreSpace
from conspec.specs import formula as f
from conspec.specs.rewrite import Halfspace
from conspec.specs.semantics import Scores, holds
from conspec.verifier.verdict import Witness

Point = Sequence[Fraction]
Affines = list[tuple[list[list[Fraction]], list[Fraction]]]
ZERO = Fraction(0)


def _exact(layer: Affine) -> tuple[list[list[Fraction]], list[Fraction]]:
    rows = [[Fraction(value) for value in row] for row in layer.weight.tolist()]
    return rows, [Fraction(value) for value in layer.bias.tolist()]


def _applied(layer: Affine, values: Point) -> list[Fraction]:
    weight, bias = _exact(layer)
    return [
        sum((w * v for w, v in zip(row, values, strict=True)), b)
        for row, b in zip(weight, bias, strict=True)
    ]


def hidden(space: ScoreSpace, point: Point) -> Iterator[list[Fraction]]:
    """The neurons of each hidden layer before the ReLU, then the logits."""
    values = _applied(space.head.affines[0], point)
    yield values
    for layer in space.head.affines[1:]:
        values = _applied(layer, [max(value, ZERO) for value in values])
        yield values


def scores_at(space: ScoreSpace, point: Point) -> Scores:
    """The exact scores at a point; without ``has``."""
    *_, logits = hidden(space, point)
    concepts = _applied(space.concept_map, point)
    return Scores(
        dict(zip(space.classes, logits, strict=True)),
        dict(zip(space.concepts, concepts, strict=True)),
    )


def ends(query: Query) -> tuple[list[Fraction], list[Fraction]]:
    """The bounds of a query's box."""
    assert isinstance(query.region, Box)
    return query.region.lower.fractions(), query.region.upper.fractions()


def fails_at(query: Query, point: Point) -> bool:
    """Whether the formula is false at a point of the query's box."""
    inside = all(a <= value <= b for a, value, b in zip(*_sides(query, point), strict=True))
    return inside and not holds(query.spec.body, scores_at(query.space, point))


def _sides(query: Query, point: Point) -> tuple[Point, Point, Point]:
    lower, upper = ends(query)
    return lower, point, upper


def refuted(query: Query, witness: Witness) -> bool:
    """Whether a witness lies in the region and the formula is false there."""
    point = witness.point.fractions()
    scores = scores_at(query.space, point)
    if any(_value(_linear_of(cut), scores, point) < 0 for cut in query.cuts):
        return False
    if isinstance(query.region, Box):
        return fails_at(query, point)
    assert witness.parameters is not None
    t = witness.parameters.fractions()
    shape = query.region.shape
    inside = {
        Shape.CUBE: all(-1 <= value <= 1 for value in t),
        Shape.BALL: sum((value * value for value in t), ZERO) <= 1,
        Shape.SIMPLEX: all(value >= 0 for value in t) and sum(t, ZERO) == 1,
    }[shape]
    return inside and _image(query.region, t) == point and not holds(query.spec.body, scores)


def _image(region: Image, t: Sequence[Any]) -> list[Any]:
    """``center + scale · generators · t`` for numbers or z3 variables."""
    rows = [[region.scale * Fraction(value) for value in row] for row in region.generators.tolist()]
    center = region.center.fractions()
    if all(isinstance(value, Fraction) for value in t):
        return [sum((a * v for a, v in zip(r, t, strict=True)), c)
                for r, c in zip(rows, center, strict=True)]  # fmt: skip
    return [
        z3.Sum([_number(c), *(_number(a) * v for a, v in zip(r, t, strict=True))])
        for r, c in zip(rows, center, strict=True)
    ]


def _linear_of(cut: Halfspace) -> f.Linear:
    return f.Linear(cut.terms, cut.constant)


# --- z3 --------------------------------------------------------------------------------------


def decide(query: Query, seconds: float = 20.0) -> bool | None:
    """Whether the formula holds on the whole region; None if z3 gave up."""
    solver = z3.Solver()
    solver.set("timeout", int(seconds * 1000))
    z = _embedding(query, solver)
    reader = _Reader(query.space, z, solver)
    solver.add([reader.linear(_linear_of(cut)) >= 0 for cut in query.cuts])
    solver.add(z3.Not(reader.formula(query.spec.body)))
    word = solver.check()
    return None if word == z3.unknown else bool(word == z3.unsat)


def _embedding(query: Query, solver: Any) -> list[Any]:
    """The embedding's entries, confined to the region."""
    region = query.region
    t = [z3.Real(f"oracle_t{i}") for i in range(region.parameters)]
    if isinstance(region, Box):
        for value, low, high in zip(t, *ends(query), strict=True):
            solver.add(_number(low) <= value, value <= _number(high))
        return t
    match region.shape:
        case Shape.CUBE:
            solver.add([z3.And(value >= -1, value <= 1) for value in t])
        case Shape.BALL:
            solver.add(z3.Sum([value * value for value in t]) <= 1)
        case Shape.SIMPLEX:
            solver.add([value >= 0 for value in t])
            solver.add(z3.Sum(t) == 1)
    return _image(region, t)


def _number(value: Fraction) -> Any:
    return z3.RealVal(f"{value.numerator}/{value.denominator}")


class _Reader:
    """A formula as a z3 expression over the embedding."""

    def __init__(self, space: ScoreSpace, z: list[Any], solver: Any) -> None:
        self._space, self._z, self._solver = space, z, solver
        values = self._affine(space.head.affines[0], z)
        for layer in space.head.affines[1:]:
            values = self._affine(layer, [z3.If(value >= 0, value, 0) for value in values])
        self._logits = dict(zip(space.classes, values, strict=True))
        concepts = self._affine(space.concept_map, z)
        self._concepts = dict(zip(space.concepts, concepts, strict=True))

    def _affine(self, layer: Affine, values: list[Any]) -> list[Any]:
        weight, bias = _exact(layer)
        return [
            z3.Sum([_number(b), *(_number(w) * v for w, v in zip(row, values, strict=True))])
            for row, b in zip(weight, bias, strict=True)
        ]

    def linear(self, linear: f.Linear) -> Any:
        parts = [_number(linear.constant)]
        for factor, symbol in linear.terms:
            match symbol:
                case f.Logit(label):
                    parts.append(_number(factor) * self._logits[label])
                case f.Score(concept):
                    parts.append(_number(factor) * self._concepts[concept])
                case f.Coordinate(index):
                    parts.append(_number(factor) * self._z[index])
        return z3.Sum(parts)

    def _has(self, concept: str) -> Any:
        """``score > τ · norm``, with the norm as the root of a square."""
        assert self._space.alignment is not None
        mapped = self._affine(self._space.alignment, self._z)
        norm = z3.Real("oracle_norm")
        self._solver.add(norm >= 0, norm * norm == z3.Sum([value * value for value in mapped]))
        return self._concepts[concept] > _number(self._space.thresholds[concept]) * norm

    def formula(self, node: f.Formula) -> Any:
        match node:
            case f.Constant(value):
                return z3.BoolVal(value)
            case f.Stronger(a, b):
                return self._concepts[a] > self._concepts[b]
            case f.Predict(label):
                own = self._logits[label]
                return z3.And([own > v for name, v in self._logits.items() if name != label])
            case f.Has(concept):
                return self._has(concept)
            case f.Compare(left, relation, right):
                one, two = self.linear(left), self.linear(right)
                table = {
                    f.Relation.GT: one > two,
                    f.Relation.GE: one >= two,
                    f.Relation.LT: one < two,
                    f.Relation.LE: one <= two,
                }
                return table[relation]
            case f.Not(operand):
                return z3.Not(self.formula(operand))
            case f.And(operands):
                return z3.And([self.formula(part) for part in operands])
            case f.Or(operands):
                return z3.Or([self.formula(part) for part in operands])
            case f.Implies(premise, conclusion):
                return z3.Implies(self.formula(premise), self.formula(conclusion))
            case f.Iff(first, second):
                return self.formula(first) == self.formula(second)
            case f.AtLeast(count, operands):
                return self._how_many(operands) >= count
            case f.AtMost(count, operands):
                return self._how_many(operands) <= count
            case _:
                assert_never(node)

    def _how_many(self, operands: Sequence[f.Formula]) -> Any:
        return z3.Sum([z3.If(self.formula(part), 1, 0) for part in operands])


# --- Fractions only --------------------------------------------------------------------------


def compared(node: f.Formula, scores: Scores) -> Iterator[Fraction]:
    """The differences whose signs decide the formula, in a fixed order."""
    match node:
        case f.Constant() | f.Has():
            return
        case f.Stronger(a, b):
            yield Fraction(scores.concepts[a]) - Fraction(scores.concepts[b])
        case f.Predict(label):
            for value in scores.logits.values():
                yield Fraction(scores.logits[label]) - Fraction(value)
        case f.Compare(left, _, right):
            yield _value(left, scores) - _value(right, scores)
        case f.Not(operand):
            yield from compared(operand, scores)
        case f.Implies(first, second) | f.Iff(first, second):
            yield from compared(first, scores)
            yield from compared(second, scores)
        case f.And(operands) | f.Or(operands):
            for part in operands:
                yield from compared(part, scores)
        case f.AtLeast(_, operands) | f.AtMost(_, operands):
            for part in operands:
                yield from compared(part, scores)
        case _:
            assert_never(node)


def _value(linear: f.Linear, scores: Scores, point: Point = ()) -> Fraction:
    total = linear.constant
    for factor, symbol in linear.terms:
        match symbol:
            case f.Logit(label):
                total += factor * Fraction(scores.logits[label])
            case f.Score(concept):
                total += factor * Fraction(scores.concepts[concept])
            case f.Coordinate(index):
                total += factor * point[index]
    return total


Line = Callable[[Fraction], list[Fraction]]


def _refined(places: list[Fraction], line: Line) -> list[Fraction]:
    """The places, and the roots between them of functions that are affine there."""
    found = set(places)
    for left, right in pairwise(places):
        for at_left, at_right in zip(line(left), line(right), strict=True):
            if at_left * at_right < 0:
                found.add(left + (right - left) * at_left / (at_left - at_right))
    return sorted(found)


def _layer(space: ScoreSpace, depth: int, point: Callable[[Fraction], Point]) -> Line:
    """The neurons of a hidden layer along a segment."""
    return lambda t: list(hidden(space, point(t)))[depth]


def decide_on_segment(query: Query, start: Point, end: Point) -> bool:
    """Whether the formula holds on the segment between two points of the region."""
    space, body = query.space, query.spec.body

    def point(t: Fraction) -> list[Fraction]:
        return [a + t * (b - a) for a, b in zip(start, end, strict=True)]

    places = [ZERO, Fraction(1)]
    for depth in range(len(space.head.affines) - 1):
        places = _refined(places, _layer(space, depth, point))
    places = _refined(places, lambda t: list(compared(body, scores_at(space, point(t)))))
    places += [(left + right) / 2 for left, right in pairwise(places)]
    return all(holds(body, scores_at(space, point(t))) for t in places)


def decide_in_plane(query: Query) -> bool:
    """Whether the formula holds on a box of two dimensions; affine heads only.

    Between the abscissas where two lines of the arrangement meet, every vertical segment meets
    the same cells, so one of them (the middle one) stands for all.
    """
    space, body = query.space, query.spec.body
    (left, low), (right, high) = ends(query)
    at_origin, at_x, at_y = (
        list(compared(body, scores_at(space, [Fraction(x), Fraction(y)])))
        for x, y in ((0, 0), (1, 0), (0, 1))
    )
    lines = [(x - c, y - c, c) for c, x, y in zip(at_origin, at_x, at_y, strict=True)]
    one = Fraction(1)
    lines += [(ZERO, one, -low), (ZERO, one, -high)]
    places = {left, right}
    for (a, b, c), (d, e, g) in combinations(lines, 2):
        if a * e != b * d:
            places.add((b * g - c * e) / (a * e - b * d))
    places |= {-c / a for a, b, c in lines if a and not b}
    inside = sorted(place for place in places if left <= place <= right)
    inside += [(one_x + other) / 2 for one_x, other in pairwise(inside)]
    return all(decide_on_segment(query, [x, low], [x, high]) for x in inside)
