"""From lark's parse tree to a suite, a formula or a region, bottom up and without recursion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from lark import Token, Tree
from lark.exceptions import VisitError
from lark.visitors import Transformer_NonRecursive

from conspec.specs.calls import Call, value_of
from conspec.specs.exact import read_number
from conspec.specs.formula import (
    And,
    Both,
    ClassOf,
    Compare,
    Constant,
    Either,
    ForAll,
    Iff,
    Implies,
    Linear,
    Not,
    Or,
    Probability,
    Region,
    Relation,
    Spec,
    Stronger,
    Suite,
)
from conspec.specs.linear import product, quotient, total
from conspec.specs.names import SHOWN_LENGTH, shown, unquoted
from conspec.specs.nodes import Keyword, Name, Node, Reader, Value, Vector
from conspec.specs.source import Place

# Passes over formulas are recursive, a few Python frames a level, and comparing two formulas
# takes the most; this depth stays well within Python's default limit of 1000 frames.
MAX_DEPTH = 100

_RELATIONS = {"≥": Relation.GE, "≤": Relation.LE} | {kind.value: kind for kind in Relation}


@dataclass(frozen=True, slots=True)
class Bound:
    """The part ``probability >= P with confidence C`` of a spec."""

    at_least: Fraction
    confidence: Fraction


@dataclass(frozen=True, slots=True)
class Named:
    """A spec and the place of its name."""

    spec: Spec
    place: Place


def build(tree: Tree[Token], reader: Reader) -> object:
    """Returns a ``Suite`` for the rule ``suite`` and a ``Node`` for the rule ``expression``.

    Raises:
        SpecSyntaxError: something has not the type that its context asks for.
        UnknownName: a class or concept that the model does not have.
    """
    try:
        return _Builder(reader).transform(tree)
    except VisitError as error:
        raise error.orig_exc from None


class _Builder(Transformer_NonRecursive[Token, object]):
    """One method per rule of the grammar; lark calls them from the leaves upward.

    Children come in the order of the text, so ``forall x in`` sets the variable before the
    spec's region and formula are read.
    """

    def __init__(self, reader: Reader) -> None:
        super().__init__(visit_tokens=False)
        self.reader = reader

    def suite(self, specs: Sequence[Named]) -> Suite:
        first: dict[str, Place] = {}
        for named in specs:
            name = named.spec.name
            if name in first:
                message = f"the spec {shown(name)} is already defined on line {first[name].line}"
                raise self.reader.source.syntax_error(named.place, message)
            first[name] = named.place
        return Suite(tuple(named.spec for named in specs))

    def spec(self, children: tuple[Node, tuple[Bound | None, Node], Node]) -> Named:
        name, (bound, scope), body = children
        title = name.value.text if isinstance(name.value, Name) else ""
        formula = self.reader.formula(body)
        if bound is None:
            return Named(ForAll(title, self.reader.region(scope), formula), name.place)
        population = self.population(scope)
        spec = Probability(title, bound.at_least, bound.confidence, population, formula)
        return Named(spec, name.place)

    def population(self, node: Node) -> ClassOf:
        if isinstance(node.value, ClassOf):
            return node.value
        if node.value == Name("all", in_quotes=False):
            return ClassOf(None)
        message = "expected the images to sample from: class(NAME), or all"
        raise self.reader.source.syntax_error(node.place, message)

    def header(self, children: tuple[Bound | None, Node]) -> tuple[Bound | None, Node]:
        bound, scope = children
        return bound, scope

    def forall(self, children: Sequence[Token]) -> None:
        self.reader.variable = self.bare(children[0])

    def probability(self, children: tuple[Token, Node, Node, Token]) -> Bound:
        relation, at_least, confidence, variable = children
        self.reader.variable = self.bare(variable)
        if _RELATIONS[relation] is not Relation.GE:
            message = "a probability is bounded from below: write 'probability >= 0.95'"
            raise self.reader.source.syntax_error(relation, message)
        if not 0 < self.reader.number(at_least) <= 1:
            message = "a probability to be reached lies above 0 and at most at 1"
            raise self.reader.source.syntax_error(at_least.place, message)
        if not 0 < self.reader.number(confidence) < 1:
            message = "a confidence lies strictly between 0 and 1"
            raise self.reader.source.syntax_error(confidence.place, message)
        return Bound(self.reader.number(at_least), self.reader.number(confidence))

    def expression(self, children: Sequence[Node]) -> Node:
        return children[0]

    def equivalence(self, children: Sequence[Node | Token]) -> Node:
        result, *others = self.operands(children)
        for other in others:
            value = Iff(self.reader.formula(result), self.reader.formula(other))
            result = self.node(value, (result, other))
        return result

    def implication(self, children: tuple[Node, Token, Node]) -> Node:
        premise, _, conclusion = children
        value = Implies(self.reader.formula(premise), self.reader.formula(conclusion))
        return self.node(value, (premise, conclusion))

    def disjunction(self, children: Sequence[Node | Token]) -> Node:
        return self.joined(children, Or, Either)

    def conjunction(self, children: Sequence[Node | Token]) -> Node:
        return self.joined(children, And, Both)

    def joined(
        self,
        children: Sequence[Node | Token],
        formulas: type[And | Or],
        regions: type[Both | Either],
    ) -> Node:
        """Joins formulas or regions; the first operand says which they are."""
        operands = self.operands(children)
        if isinstance(operands[0].value, Region):
            joined = regions(tuple(self.reader.region(operand) for operand in operands))
            return self.node(joined, operands)
        return self.node(formulas(tuple(map(self.reader.formula, operands))), operands)

    def negation(self, children: tuple[Token, Node]) -> Node:
        _, operand = children
        return self.node(Not(self.reader.formula(operand)), (operand,))

    def comparison(self, children: Sequence[Node | Token]) -> Node:
        operands = self.operands(children)
        if len(operands) > 2:
            message = "comparisons do not chain"
            hint = "write a > b and b > c"
            raise self.reader.source.syntax_error(operands[2].place, message, hint)
        relation = _RELATIONS[str(children[1])]
        left, right = operands
        if isinstance(left.value, Name) and isinstance(right.value, Name):
            a, b = self.reader.concept(left), self.reader.concept(right)
            if relation is Relation.GT:
                return self.node(Stronger(a, b), operands)
            if relation is Relation.LT:
                return self.node(Stronger(b, a), operands)
        sides = self.reader.linear(left), self.reader.linear(right)
        return self.node(Compare(sides[0], relation, sides[1]), operands)

    def addition(self, children: Sequence[Node | Token]) -> Node:
        operands = self.operands(children)
        signs = [1, *(-1 if sign == "-" else 1 for sign in children[1::2])]
        parts = zip(signs, map(self.reader.linear, operands), strict=True)
        return self.linear(operands[0].place, lambda: total(parts))

    def multiplication(self, children: Sequence[Node | Token]) -> Node:
        result, *others = self.operands(children)
        for operator, other in zip(children[1::2], others, strict=True):
            combine = quotient if operator == "/" else product
            sides = self.reader.linear(result), self.reader.linear(other)
            value = self.linear(other.place, combine, *sides).value
            result = Node(value, result.place)
        return result

    def minus(self, children: tuple[Token, Node]) -> Node:
        sign, operand = children
        factor = Linear((), Fraction(-1 if sign == "-" else 1))
        return self.linear(sign, product, factor, self.reader.linear(operand))

    def linear(self, place: Place, compute: Callable[..., Linear], *arguments: Linear) -> Node:
        """Computes a linear expression; what is wrong with it is wrong at ``place``."""
        try:
            return Node(compute(*arguments), place)
        except ValueError as error:
            raise self.reader.source.syntax_error(place, str(error)) from None

    def number(self, children: Sequence[Token]) -> Node:
        token = children[0]
        return self.linear(token, lambda: Linear((), read_number(token)))

    def constant(self, children: Sequence[Token]) -> Node:
        return Node(Constant(children[0] == "true"), children[0])

    def name(self, children: Sequence[Token]) -> Node:
        token = children[0]
        if token.type == "NAME":
            return Node(Name(self.bare(token), in_quotes=False), token)
        try:
            return Node(Name(unquoted(token), in_quotes=True), token)
        except ValueError as error:
            raise self.reader.source.syntax_error(token, str(error)) from None

    def bare(self, token: Token) -> str:
        """Returns a name without quotes, which may hold no dash."""
        if "-" in token:
            message = f"{shown(token)} needs quotes, or blanks around '-'"
            hint = f"as a name: {shown(token)}; as a subtraction: {token.replace('-', ' - ')}"
            hint = hint if len(token) <= SHOWN_LENGTH else ""
            raise self.reader.source.syntax_error(token, message, hint)
        return str(token)

    def call(self, children: tuple[Token, *tuple[Node, ...]]) -> Node:
        function, *arguments = children
        value = value_of(Call(self.bare(function), function, tuple(arguments)), self.reader)
        return self.node(value, arguments, function)

    def strength(self, children: tuple[Token, *tuple[Node, ...]]) -> Node:
        relation, *arguments = children
        if relation != ">":
            message = f"only '>' may stand before its arguments, found '{relation}'"
            hint = "write >(x, a, b) or a > b"
            raise self.reader.source.syntax_error(relation, message, hint)
        value = value_of(Call(">", relation, tuple(arguments)), self.reader)
        return self.node(value, arguments, relation)

    def keyword(self, children: tuple[Token, Node]) -> Node:
        key, node = children
        return self.node(Keyword(self.bare(key), node), (node,), key)

    def vector(self, children: Sequence[Node]) -> Node:
        return self.node(Vector(tuple(children)), children)

    def operands(self, children: Sequence[Node | Token]) -> list[Node]:
        """Drops the operators between operands."""
        return [child for child in children if isinstance(child, Node)]

    def node(self, value: Value, parts: Sequence[Node], place: Place | None = None) -> Node:
        """Makes a node of its parts, unless that nests too deep."""
        depth = 1 + max((part.depth for part in parts), default=0)
        where = place if place is not None else parts[0].place
        if depth > MAX_DEPTH:
            message = f"nested more than {MAX_DEPTH} levels deep"
            raise self.reader.source.syntax_error(where, message)
        return Node(value, where, depth)
