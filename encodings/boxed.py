"""A query over a box: what formats that know only input boxes and linear constraints can say.

A region that is no box is the image of a cube, a simplex or a ball, ``z = c + s·G·t``. Its query
is asked of the parameters ``X = s·t`` instead: ``z = c + G·X``, so that the generators stay the
stored float64 numbers and the scale goes into the bounds of X. All of that is exact:

* cube: ``X in [−s, s]^k``.
* simplex: ``X in [0, s]^k`` and ``Σ X = s``, as two cuts.
* ball: ``X in [−s, s]^k`` and ``‖X‖ ≤ s``. The last is no linear constraint; `Boxed.ball` is s.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple, assert_never

from conspec.encodings.exact import Vector, array_sum, from_array, matrix_product, objects, vector
from conspec.encodings.images import Image, Shape
from conspec.encodings.network import Affine, Network
from conspec.encodings.query import Query
from conspec.encodings.regions import Box, box
from conspec.encodings.rounding import Floats
from conspec.encodings.scores import ScoreSpace
from conspec.specs import formula as f
from conspec.specs.rewrite import TRUE, Halfspace, Nnf, negation_normal_form


class Prelude(NamedTuple):
    """``z = center + generators · X``, exactly.

    Attributes:
        center: [n].
        generators: float64 [n, k], as stored.
    """

    center: Vector
    generators: Floats

    def at(self, parameters: Vector) -> Vector:
        """The exact embedding of exact parameters X."""
        rows = (from_array(row) for row in self.generators)
        pairs = zip(rows, self.center.fractions(), strict=True)
        return vector(row.dot_plus(parameters, start) for row, start in pairs)


@dataclass(frozen=True, eq=False)
class Boxed:
    """A query whose region is a box of inputs X, cut by half-spaces.

    Attributes:
        source: the query as it was, over embeddings z.
        spec: the spec over X; its region is the box and the cuts.
        region: bounds of X.
        cuts: further half-spaces that bound X, over scores and ``Coordinate(i)``, which is X_i.
        prelude: how z comes from X; None where X is z.
        ball: s where ``‖X‖ ≤ s`` belongs to the region too, else None. Formats without
            polynomials must refuse such a query.
    """

    source: Query
    spec: f.ForAll
    region: Box
    cuts: tuple[Halfspace, ...]
    prelude: Prelude | None = None
    ball: Fraction | None = None

    @cached_property
    def violation(self) -> Nnf:
        """The negated formula over X, without composing any weights."""
        if self.prelude is None:
            return self.source.violation
        return negation_normal_form(self.spec.body, self.source.space.classes, negate=True)

    @cached_property
    def query(self) -> Query:
        """The same as a query over X: weights times generators, exactly, when first asked for.

        With a ball it is the query over the cube around it.

        Raises:
            ValueError: the exact product of weights and generators would take too long.
        """
        if self.prelude is None:
            return self.source
        space = _composed(self.source, self.prelude)
        return Query(self.spec, space, self.region, self.source.part, self.cuts)

    def embedding(self, inputs: Vector) -> Vector:
        """The exact z of exact inputs X."""
        return inputs if self.prelude is None else self.prelude.at(inputs)


def over_box(query: Query) -> Boxed:
    """The query with a box as its region; see this file's text.

    Raises:
        UnknownName: formula or cuts name what the space does not have.
    """
    region = query.region
    if isinstance(region, Box):
        return Boxed(query, query.spec, region, query.cuts)
    for literal in query.space.literals(query.constrained):
        for _, symbol in literal.terms if isinstance(literal, Halfspace) else ():
            query.space.position(symbol)
    prelude = Prelude(region.center, region.generators)
    bounds = _bounds(region)
    cuts = [_moved_cut(cut, prelude, bounds, query.space.classes) for cut in query.cuts]
    chosen = tuple(cut for cut in cuts if cut is not None)
    if region.shape is Shape.SIMPLEX:
        chosen = (*_sum_cuts(region), *chosen)
    body = _mapped(query.spec.body, lambda linear: _moved(linear, prelude))
    spec = replace(query.spec, region=_written(bounds, chosen), body=body)
    is_round = region.shape is Shape.BALL and region.parameters > 1 and region.scale > 0
    return Boxed(query, spec, bounds, chosen, prelude, region.scale if is_round else None)


def _bounds(region: Image) -> Box:
    """Bounds of ``X = s·t``."""
    high = vector([region.scale] * region.parameters)
    low = high.scaled(0 if region.shape is Shape.SIMPLEX else -1)
    return box(low, high)


def _sum_cuts(region: Image) -> tuple[Halfspace, Halfspace]:
    """``Σ X = s`` as two half-spaces."""

    def side(sign: int) -> Halfspace:
        terms = tuple((Fraction(sign), f.Coordinate(j)) for j in range(region.parameters))
        return Halfspace(terms, -sign * region.scale, strict=False)

    return side(1), side(-1)


def _written(bounds: Box, cuts: tuple[Halfspace, ...]) -> f.Region:
    """Box and cuts as a region of the language."""
    lower, upper = bounds.lower.fractions(), bounds.upper.fractions()
    base = f.Box(tuple(lower), tuple(upper))
    if not cuts:
        return base
    return f.Both((base, f.Polytope(tuple(_comparison(cut) for cut in cuts))))


def _comparison(cut: Halfspace) -> f.Compare:
    relation = f.Relation.GT if cut.strict else f.Relation.GE
    return f.Compare(f.Linear(cut.terms, cut.constant), relation, f.Linear(()))


# --- coordinates of z as linear functions of X ------------------------------------------------


def _moved_cut(
    cut: Halfspace, prelude: Prelude, bounds: Box, classes: tuple[str, ...]
) -> Halfspace | None:
    """A cut over X; None if it holds everywhere."""
    compare = _comparison(cut)
    moved = replace(compare, left=_moved(compare.left, prelude))
    found = negation_normal_form(moved, classes)
    if isinstance(found, Halfspace):
        return found
    if found == TRUE:
        return None
    # Left is "false". Nothing satisfies it, so no X may: X_0 must exceed its upper bound.
    beyond = bounds.upper.fractions()[0] + 1
    return Halfspace(((Fraction(1), f.Coordinate(0)),), -beyond, strict=False)


def _moved(linear: f.Linear, prelude: Prelude) -> f.Linear:
    """A linear expression with each ``z_i`` replaced by ``c_i + Σ_j G_ij X_j``."""
    if not any(isinstance(symbol, f.Coordinate) for _, symbol in linear.terms):
        return linear
    totals: dict[f.Symbol, Fraction] = {}
    constant = linear.constant
    for factor, symbol in linear.terms:
        if not isinstance(symbol, f.Coordinate):
            totals[symbol] = totals.get(symbol, Fraction(0)) + factor
            continue
        place = symbol.index
        constant += factor * Fraction(prelude.center.numerators[place], prelude.center.denominator)
        row = prelude.generators[place]
        for j in row.nonzero()[0].tolist():
            parameter = f.Coordinate(j)
            share = factor * Fraction(float(row[j]))
            totals[parameter] = totals.get(parameter, Fraction(0)) + share
    terms = tuple((value, symbol) for symbol, value in totals.items() if value)
    return f.Linear(terms, constant)


def _mapped(node: f.Formula, change: Callable[[f.Linear], f.Linear]) -> f.Formula:
    """The formula with every linear expression changed."""
    match node:
        case f.Compare(left, relation, right):
            return f.Compare(change(left), relation, change(right))
        case f.Constant() | f.Stronger() | f.Predict() | f.Has():
            return node
        case f.Not(operand):
            return f.Not(_mapped(operand, change))
        case f.And(operands):
            return f.And(tuple(_mapped(part, change) for part in operands))
        case f.Or(operands):
            return f.Or(tuple(_mapped(part, change) for part in operands))
        case f.Implies(premise, conclusion):
            return f.Implies(_mapped(premise, change), _mapped(conclusion, change))
        case f.Iff(left, right):
            return f.Iff(_mapped(left, change), _mapped(right, change))
        case f.AtLeast(count, operands):
            return f.AtLeast(count, tuple(_mapped(part, change) for part in operands))
        case f.AtMost(count, operands):
            return f.AtMost(count, tuple(_mapped(part, change) for part in operands))
        case _:
            assert_never(node)


# --- functions of z as functions of X ---------------------------------------------------------


def _composed(query: Query, prelude: Prelude) -> ScoreSpace:
    """The score space over X; with an alignment only if ``has`` needs one."""
    space = query.space
    first = _after(space.head.affines[0], prelude)
    alignment = space.alignment if query.cones else None
    return replace(
        space,
        head=Network((first, *space.head.affines[1:])),
        concept_map=_after(space.concept_map, prelude),
        alignment=None if alignment is None else _after(alignment, prelude),
        _negations={},
        _rows={},
        _literals={},
    )


def _after(layer: Affine, prelude: Prelude) -> Affine:
    """``W·(c + G·X) + b`` as one exact affine map of X."""
    rows = [layer.row(index)[0] for index in range(layer.outputs)]
    moved = objects([row.dot(prelude.center) for row in rows], (layer.outputs,))
    weight = matrix_product(layer.weight, prelude.generators)
    return Affine(weight, array_sum(layer.bias, moved))
