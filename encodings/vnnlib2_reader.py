"""VNN-LIB 2.0, read through the package ``vnnlib`` of the standard's authors.

The package gives the tree of a text whose names, shapes and element types it has checked. It
keeps each number as written, and only that text is used: its own values are floats. What does
not become one input X, one output Y and linear comparisons is refused by name.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import prod
from typing import Any

from conspec.encodings.decimals import parse_number
from conspec.encodings.vnnlib2_text import VERSION, check_text
from conspec.encodings.vnnlib_property import Declared, Property
from conspec.specs import formula as f
from conspec.specs.errors import BadFile, MissingSolver
from conspec.specs.linear import product, total

Node = Any  # a node of the package's tree

MOST_ENTRIES = 10_000_000
"""Most entries of one tensor."""
_KINDS = {
    "Real": "real",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "BF16": "bfloat16",
    "F8E4M3FN": "float8e4m3fn",
    "F8E5M2": "float8e5m2",
    "F8E4M3FNUZ": "float8e4m3fnuz",
    "F8E5M2FNUZ": "float8e5m2fnuz",
    "F4E2M1": "float4e2m1",
}
"""The element types whose values are real numbers, by the package's names."""
_RELATIONS = {
    "LessThan": f.Relation.LT,
    "LessEqual": f.Relation.LE,
    "GreaterThan": f.Relation.GT,
    "GreaterEqual": f.Relation.GE,
}


@dataclass(frozen=True, slots=True)
class BehindHidden:
    """What a query with a hidden tensor says about the part of the network behind that tensor.

    Attributes:
        property: the comparisons of the hidden tensor (as input) and the output.
        tensor: the hidden tensor's name in the ONNX graph.
        aside: how many assertions speak of the network's input alone, and are left out.
    """

    property: Property
    tensor: str
    aside: int


def read_property2(text: str, source: str) -> Property:
    """The property that a VNN-LIB 2.0 text states of one network.

    Args:
        text: the whole file.
        source: its name, for messages.

    Raises:
        BadFile: the text is no VNN-LIB 2.0, or says something that is not supported.
        MissingSolver: the package ``vnnlib`` is not installed.
    """
    query = _parse(text, source)
    network = _only_network(query, source)
    if network.hidden:
        names = ", ".join(tensor.name for tensor in network.hidden)
        raise BadFile(
            f"{source}: the hidden tensor {names} of network {network.name} is not supported;"
            " leave declare-hidden out if no assertion needs it, or cut the model there and"
            " declare that tensor as the input"
        )
    walk = _Walk(source, _declared(network.inputs, source), _declared(network.outputs, source))
    conditions = [walk.truth(assertion.expr) for assertion in query.assertions]
    return walk.property(network.name, _joined(f.And, conditions))


def read_behind_hidden(text: str, source: str) -> BehindHidden:
    """The property of the network behind a hidden tensor, if the text's query rests on that.

    Every input of the whole network gives some value of the hidden tensor. So if no value of it
    satisfies the comparisons, no input does: ``unsat`` of this property is ``unsat`` of the
    query. ``sat`` is not ``sat`` of the query, since perhaps no input reaches the value found; it
    must be reported as unknown. Assertions about the input alone are left out, which is sound
    for the same reason.

    Raises:
        BadFile: as `read_property2`; or there is not just one hidden tensor, or one assertion
            mixes the input with others.
        MissingSolver: as `read_property2`.
    """
    query = _parse(text, source)
    network = _only_network(query, source)
    if len(network.hidden) != 1:
        raise BadFile(f"{source}: {len(network.hidden)} hidden tensors are declared, not one")
    walk = _Walk(source, _declared(network.hidden, source), _declared(network.outputs, source))
    front = {_declared(network.inputs, source).name}
    conditions: list[f.Formula] = []
    aside = 0
    for assertion in query.assertions:
        names = set(_names(assertion.expr))
        if names and names <= front:
            aside += 1
        elif names & front:
            raise BadFile(
                f"{source}: an assertion speaks of the input {', '.join(names & front)} and of"
                " other tensors, so the query does not rest on the hidden tensor alone"
            )
        else:
            conditions.append(walk.truth(assertion.expr))
    condition = _joined(f.And, conditions) if conditions else f.Constant(True)
    # The package gives the name as the file writes it, with its quotes.
    tensor = json.loads(network.hidden[0].onnx_name, strict=False)
    return BehindHidden(walk.property(network.name, condition), tensor, aside)


def _parse(text: str, source: str) -> Node:
    """The package's tree of a text."""
    check_text(text, source)
    try:
        import vnnlib
    except ImportError:
        raise MissingSolver(
            f"{source}: VNN-LIB 2.0 is read by the package vnnlib, which is not installed;"
            " pip install 'conspec[vnnlib]', or use VNN-LIB 1.0"
        ) from None
    try:
        return vnnlib.parse_query_string(text)
    except vnnlib.VNNLibException as error:
        raise BadFile(f"{source}: {_plain(str(error))}") from None
    except (ValueError, IndexError, OverflowError, UnicodeError, RuntimeError) as error:
        # The C++ functions stoll and stod refuse numbers beyond 64 bits.
        raise BadFile(
            f"{source}: the package vnnlib cannot read a number or name in it ({error}); integers"
            " must fit 64 bits, decimals must lie in the range of float64"
        ) from None


def _plain(message: str) -> str:
    """The package's message in one line; it sends errors of names and types as JSON."""
    try:
        first = json.loads(message)["errors"][0]
        text = f"line {first['line']}: {first['offendingSymbol']}: {first['message']}. "
        return f"{text}{first['hint']}"
    except (ValueError, LookupError, TypeError):
        hint = " (numbers have no exponent in VNN-LIB 2.0)" if ": 'e" in message.lower() else ""
        return " ".join(message.split()) + hint


def _only_network(query: Node, source: str) -> Node:
    """The query's one network."""
    if len(query.networks) != 1:
        names = ", ".join(network.name for network in query.networks)
        raise BadFile(
            f"{source}: it declares {len(query.networks)} networks ({names}), also where they are"
            " equal-to or isomorphic-to each other; only one is supported. Join them to one ONNX"
            " model with one input and one output"
        )
    return query.networks[0]


def _declared(tensors: Sequence[Node], source: str) -> Declared:
    """The one tensor of its sort, with a type whose values are real numbers."""
    if len(tensors) != 1:
        names = ", ".join(tensor.name for tensor in tensors)
        raise BadFile(
            f"{source}: {len(tensors)} tensors of one sort ({names}) are declared; only one input"
            " and one output are supported. Join them to one tensor in the ONNX model"
        )
    tensor = tensors[0]
    kind = _KINDS.get(tensor.dtype.name)
    if kind is None:
        raise BadFile(
            f"{source}: tensor {tensor.name} has element type {tensor.dtype.name}; only real and"
            " the float types are supported"
        )
    if prod(tensor.shape) > MOST_ENTRIES:
        raise BadFile(f"{source}: tensor {tensor.name} has more than {MOST_ENTRIES} entries")
    return Declared(tensor.name, kind, tuple(tensor.shape))


def _joined(
    join: Callable[[tuple[f.Formula, ...]], f.Formula], parts: list[f.Formula]
) -> f.Formula:
    """The conjunction or disjunction; of one part, the part itself."""
    return parts[0] if len(parts) == 1 else join(tuple(parts))


def _names(node: Node) -> Iterator[str]:
    """The tensors that occur."""
    if type(node).__name__ == "Var":
        yield node.name
    for child in node.children():
        yield from _names(child)


@dataclass(frozen=True, slots=True)
class _Walk:
    """The passes over the package's tree."""

    source: str
    inputs: Declared
    outputs: Declared

    def property(self, network: str, condition: f.Formula) -> Property:
        """The property of the two tensors."""
        return Property(VERSION, self.inputs, self.outputs, condition, network, self.source)

    def truth(self, node: Node) -> f.Formula:
        """The formula that a Boolean node is."""
        match type(node).__name__:
            case "And":
                return _joined(f.And, [self.truth(part) for part in node.args])
            case "Or":
                return _joined(f.Or, [self.truth(part) for part in node.args])
            case "Equal":
                return f.And(tuple(self._compare(node, way) for way in _WEAK))
            case "NotEqual":
                return f.Or(tuple(self._compare(node, way) for way in _STRICT))
            case name if name in _RELATIONS:
                return self._compare(node, _RELATIONS[name])
            case name:
                raise BadFile(f"{self.source}: {name} is not supported: {_short(node)}")

    def _compare(self, node: Node, relation: f.Relation) -> f.Formula:
        """The comparison, variables on the left and the constant on the right."""
        try:
            difference = total([(1, self._value(node.lhs)), (-1, self._value(node.rhs))])
        except ValueError as error:
            raise BadFile(f"{self.source}: {_short(node)}: {error}") from None
        left, right = f.Linear(difference.terms), f.Linear((), -difference.constant)
        if left.terms:
            return f.Compare(left, relation, right)
        return f.Constant(_HOLDS[relation](Fraction(0), right.constant))

    def _value(self, node: Node) -> f.Linear:
        """The linear expression that an arithmetic node is.

        Raises:
            ValueError: two factors have variables, or a number becomes too long.
        """
        match type(node).__name__:
            case "Var":
                return f.Linear(((Fraction(1), self._symbol(node)),))
            case "Float" | "Int":
                return f.Linear((), parse_number(node.lexeme))
            case "Negate":
                return total([(-1, self._value(node.expr))])
            case "Plus":
                return total([(1, self._value(part)) for part in node.args])
            case "Minus":
                rest = [(-1, self._value(part)) for part in node.rest]
                return total([(1, self._value(node.head)), *rest])
            case "Multiply":
                # Numbers first, so that a long sum is scaled once.
                factors = sorted(map(self._value, node.args), key=lambda part: bool(part.terms))
                return reduce(product, factors)
            case name:
                raise BadFile(f"{self.source}: {name} is not supported: {_short(node)}")

    def _symbol(self, node: Node) -> f.Symbol:
        """The entry of a tensor, counted row by row."""
        place = 0
        for index, size in zip(node.indices, node.shape, strict=True):
            place = place * size + index
        if node.name == self.inputs.name:
            return f.Coordinate(place)
        if node.name == self.outputs.name:
            return f.Logit(f"Y_{place}")
        raise BadFile(f"{self.source}: line {node.line}: {node.name} is not supported here")


_WEAK = (f.Relation.GE, f.Relation.LE)
_STRICT = (f.Relation.GT, f.Relation.LT)
_HOLDS: dict[f.Relation, Callable[[Fraction, Fraction], bool]] = {
    f.Relation.LT: Fraction.__lt__,
    f.Relation.LE: Fraction.__le__,
    f.Relation.GT: Fraction.__gt__,
    f.Relation.GE: Fraction.__ge__,
}


def _short(node: Node) -> str:
    """The beginning of a node's text."""
    text = str(node)
    return text if len(text) <= 80 else f"{text[:77]}…"
