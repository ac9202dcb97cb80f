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

from conspec.encodings.network import Affine
from conspec.encodings.query import Query
from conspec.encodings.scores import ScoreSpace
from conspec.specs import formula as f
from conspec.specs.semantics import Scores, holds

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


def fails_at(query: Query, point: Point) -> bool:
    """Whether the point lies in the region and the formula is false there."""
    bounds = zip(query.region.lower.fractions(), point, query.region.upper.fractions(), strict=True)
    inside = all(low <= value <= high for low, value, high in bounds)
    return inside and not holds(query.spec.body, scores_at(query.space, point))


# --- z3 --------------------------------------------------------------------------------------


def decide(query: Query, seconds: float = 20.0) -> bool | None:
    """Whether the formula holds on the whole region; None if z3 gave up."""
    solver = z3.Solver()
    solver.set("timeout", int(seconds * 1000))
    bounds = list(
        zip(query.region.lower.fractions(), query.region.upper.fractions(), strict=True)
    )
    z = [z3.Real(f"oracle_z{i}") for i in range(len(bounds))]
    for value, (low, high) in zip(z, bounds, strict=True):
        solver.add(_number(low) <= value, value <= _number(high))
    solver.add(z3.Not(_Reader(query.space, z, solver).formula(query.spec.body)))
    word = solver.check()
    return None if word == z3.unknown else bool(word == z3.unsat)


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

    def _linear(self, linear: f.Linear) -> Any:
        parts = [_number(linear.constant)]
        for factor, symbol in linear.terms:
            if isinstance(symbol, f.Logit):
                parts.append(_number(factor) * self._logits[symbol.label])
            else:
                parts.append(_number(factor) * self._concepts[symbol.concept])
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
                one, two = self._linear(left), self._linear(right)
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


def _value(linear: f.Linear, scores: Scores) -> Fraction:
    total = linear.constant
    for factor, symbol in linear.terms:
        if isinstance(symbol, f.Logit):
            total += factor * Fraction(scores.logits[symbol.label])
        else:
            total += factor * Fraction(scores.concepts[symbol.concept])
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


def decide_on_segment(query: Query, start: Point, end: Point) -> bool:
    """Whether the formula holds on the segment between two points of the region."""
    space, body = query.space, query.spec.body

    def point(t: Fraction) -> list[Fraction]:
        return [a + t * (b - a) for a, b in zip(start, end, strict=True)]

    places = [ZERO, Fraction(1)]
    for depth in range(len(space.head.affines) - 1):
        places = _refined(places, lambda t, depth=depth: list(hidden(space, point(t)))[depth])
    places = _refined(places, lambda t: list(compared(body, scores_at(space, point(t)))))
    places += [(left + right) / 2 for left, right in pairwise(places)]
    return all(holds(body, scores_at(space, point(t))) for t in places)


def decide_in_plane(query: Query) -> bool:
    """Whether the formula holds on a box of two dimensions; affine heads only.

    Between the abscissas where two lines of the arrangement meet, every vertical segment meets
    the same cells, so one of them (the middle one) stands for all.
    """
    space, body = query.space, query.spec.body
    (left, low), (right, high) = query.region.lower.fractions(), query.region.upper.fractions()
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
