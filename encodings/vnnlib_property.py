"""A VNN-LIB problem, whatever version it was written in, and the query that it is.

A VNN-LIB file describes a counterexample: "is there an X, with Y = network(X), that satisfies
this?". So it becomes a query about a spec whose formula is the negation of that. X needs bounds,
which the file gives only through its comparisons: their hull is found exactly (``hull``). The
box is a superset of what the file allows; comparisons that the box does not imply stay in the
formula, so nothing is lost and nothing is gained.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod

import numpy as np

from conspec.encodings.exact import vector
from conspec.encodings.hull import Spans, hull, settled, speaks_of_inputs_only
from conspec.encodings.network import Affine, Network
from conspec.encodings.query import Query
from conspec.encodings.regions import box
from conspec.encodings.scores import ScoreSpace
from conspec.specs import formula as f
from conspec.specs.errors import BadFile, BadRegion, BadUsage
from conspec.specs.rewrite import (
    FALSE,
    All,
    Cone,
    Count,
    Halfspace,
    Nnf,
    Some,
    literals,
    negation_normal_form,
)

MOST_CASES = 64
"""Queries that a disjunction of input sets is split into, at most."""


@dataclass(frozen=True, slots=True)
class Declared:
    """Inputs or outputs as a file declares them.

    Attributes:
        name: the variable; ``X`` and ``Y`` in VNN-LIB 1.0.
        kind: the element type, such as ``real`` or ``float32``.
        shape: its sizes; entries are counted in row-major order.
    """

    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many entries it has."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Property:
    """What a VNN-LIB file says.

    Attributes:
        version: ``1.0`` or ``2.0``.
        inputs: X.
        outputs: Y.
        condition: what a counterexample satisfies, over ``Coordinate(i)`` for X and
            ``Logit("Y_j")`` for Y.
        network: the name that the file gives to the network; VNN-LIB 1.0 gives none.
        source: the file, for messages.
    """

    version: str
    inputs: Declared
    outputs: Declared
    condition: f.Formula
    network: str = ""
    source: str = "the property"


def output_names(count: int) -> tuple[str, ...]:
    """The names of the outputs in a condition: ``Y_0``, ``Y_1`` and so on."""
    return tuple(f"Y_{index}" for index in range(count))


def query_of(prop: Property, network: Network, name: str = "query") -> Query:
    """The property as one query over a box that holds every counterexample.

    Raises:
        BadFile: the network has other numbers of inputs or outputs than the property.
        BadRegion: an input has no bounds.
    """
    space, condition = _stated(prop, network)
    return _query(prop, space, condition, Spans(), name) or _never(space, name)


def queries_of(prop: Property, network: Network, name: str = "query") -> list[Query]:
    """The property as queries over smaller boxes: it has a counterexample iff one of them has.

    A disjunction of input sets (``or`` of boxes) gives a query for each, up to `MOST_CASES`.

    Raises:
        BadFile: as `query_of`.
        BadRegion: as `query_of`.
    """
    space, condition = _stated(prop, network)
    spans = hull(condition)
    if spans is None:
        return [_never(space, name)]
    cases = _cases(settled(condition, spans))
    parts = [_query(prop, space, case, spans, name) for case in cases]
    found = [query for query in parts if query is not None]
    return [replace(query, part=part) for part, query in enumerate(found)] or [_never(space, name)]


def condition_at(
    condition: f.Formula, inputs: Sequence[Fraction], outputs: Sequence[Fraction]
) -> bool:
    """Whether the condition, as the file states it, holds for an X and a Y."""

    def value(side: f.Linear) -> Fraction:
        return side.constant + sum((w * entry(symbol) for w, symbol in side.terms), Fraction(0))

    def entry(symbol: f.Symbol) -> Fraction:
        match symbol:
            case f.Coordinate(index):
                return inputs[index]
            case f.Logit(label):
                return outputs[int(label.removeprefix("Y_"))]
        raise _foreign()

    def holds(node: f.Formula) -> bool:
        match node:
            case f.Constant(known):
                return known
            case f.Compare(left, relation, right):
                return _HOLDS[relation](value(left), value(right))
            case f.Not(operand):
                return not holds(operand)
            case f.And(operands):
                return all(map(holds, operands))
            case f.Or(operands):
                return any(map(holds, operands))
            case f.Implies(premise, conclusion):
                return not holds(premise) or holds(conclusion)
        raise _foreign()

    return holds(condition)


_HOLDS: dict[f.Relation, Callable[[Fraction, Fraction], bool]] = {
    f.Relation.LT: operator.lt,
    f.Relation.LE: operator.le,
    f.Relation.GT: operator.gt,
    f.Relation.GE: operator.ge,
}


def _foreign() -> BadUsage:
    return BadUsage("a VNN-LIB condition holds comparisons of X and Y, and, or, not, =>; no more")


def _stated(prop: Property, network: Network) -> tuple[ScoreSpace, Nnf]:
    """The functions and the condition in negation normal form, checked against each other."""
    sizes = (("inputs", prop.inputs, network.inputs), ("outputs", prop.outputs, network.outputs))
    for what, declared, count in sizes:
        if declared.size != count:
            raise BadFile(
                f"{prop.source}: {declared.name} has {declared.size} entries, but the network "
                f"has {count} {what}"
            )
    names = output_names(network.outputs)
    nothing = Affine(np.zeros((0, network.inputs)), np.zeros(0))
    space = ScoreSpace(classes=names, concepts=(), head=network, concept_map=nothing)
    condition = negation_normal_form(prop.condition, names)
    for literal in literals(condition):
        if isinstance(literal, Halfspace):
            for _, symbol in literal.terms:
                space.position(symbol)
    return space, condition


def _query(
    prop: Property, space: ScoreSpace, condition: Nnf, around: Spans, name: str
) -> Query | None:
    """The query of one condition within bounds; None if no inputs can satisfy it."""
    spans = hull(condition, around)
    if spans is None:
        return None
    rest = settled(condition, spans)
    if rest == FALSE:
        return None
    lower, upper = _bounds(prop, spans)
    spec = f.ForAll(name, f.Box(lower, upper), f.Not(_formula(rest)))
    return Query(spec, space, box(vector(lower), vector(upper)))


def _bounds(prop: Property, spans: Spans) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
    """The bounds of every input."""
    lower, upper = [], []
    for index in range(prop.inputs.size):
        low, high = spans[index]
        if low is None or high is None:
            raise BadRegion(
                f"{prop.source}: input {input_name(prop, index)} has no "
                f"{'lower' if low is None else 'upper'} bound; conspec needs bounds of every "
                "input, by comparisons with numbers or with bounded inputs"
            )
        lower.append(low)
        upper.append(high)
    return tuple(lower), tuple(upper)


def input_name(prop: Property, index: int) -> str:
    """An input as the file writes it: ``X_3``, or ``X[0,3]`` in VNN-LIB 2.0."""
    if prop.version.startswith("1"):
        return f"{prop.inputs.name}_{index}"
    places = np.unravel_index(index, prop.inputs.shape) if prop.inputs.shape else ()
    return f"{prop.inputs.name}[{','.join(str(int(place)) for place in places)}]"


def _never(space: ScoreSpace, name: str) -> Query:
    """A query without a counterexample, for inputs that contradict each other.

    Its region is a point and its violation is false, so that no engine or writer meets an
    empty box.
    """
    origin = (Fraction(0),) * space.dimension
    spec = f.ForAll(name, f.Box(origin, origin), f.Constant(True))
    return Query(spec, space, box(vector(origin), vector(origin)))


def _formula(nnf: Nnf) -> f.Formula:
    """A formula in negation normal form as a formula of Con_spec."""
    match nnf:
        case Halfspace(terms, constant, strict):
            relation = f.Relation.GT if strict else f.Relation.GE
            return f.Compare(f.Linear(terms), relation, f.Linear((), -constant))
        case All(operands):
            return f.And(tuple(map(_formula, operands))) if operands else f.Constant(True)
        case Some(operands):
            return f.Or(tuple(map(_formula, operands))) if operands else f.Constant(False)
        case Cone() | Count():
            raise _foreign()


def _cases(condition: Nnf) -> list[Nnf]:
    """Conditions one of which holds iff the given one does, each with fewer alternatives."""
    waiting: list[Nnf] = [condition]
    done: list[Nnf] = []
    while waiting:
        case = waiting.pop()
        parts = case.operands if isinstance(case, All) else (case,)
        choice = next((part for part in parts if _is_choice(part)), None)
        room = MOST_CASES - len(waiting) - len(done)
        if not isinstance(choice, Some) or len(choice.operands) > room:
            done.append(case)
            continue
        rest = [part for part in parts if part is not choice]
        waiting += [All(tuple(_flat([*rest, side]))) for side in reversed(choice.operands)]
    return done


def _flat(parts: list[Nnf]) -> Iterator[Nnf]:
    for part in parts:
        yield from part.operands if isinstance(part, All) else (part,)


def _is_choice(part: Nnf) -> bool:
    """Whether it is a disjunction in which each side says something of the inputs alone."""
    return isinstance(part, Some) and all(
        any(
            isinstance(found, Halfspace) and speaks_of_inputs_only(found)
            for found in literals(side)
        )
        for side in part.operands
    )
