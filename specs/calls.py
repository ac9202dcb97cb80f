"""The functions of Con_spec: what ``predict(...)``, ``focus(...)`` and the others stand for."""

from dataclasses import dataclass
from fractions import Fraction

from conspec.specs.exact import write_number
from conspec.specs.formula import (
    AtLeast,
    AtMost,
    Ball,
    Box,
    ClassOf,
    Compare,
    Coordinate,
    Ellipsoid,
    Focus,
    Formula,
    Has,
    Hull,
    Linear,
    Logit,
    Norm,
    PcaBox,
    Polytope,
    Predict,
    Region,
    Relation,
    Score,
    Stronger,
    Zonotope,
)
from conspec.specs.names import shown
from conspec.specs.nodes import Keyword, Name, Node, Reader, Vector
from conspec.specs.source import Place, nearest

SCALED_REGIONS: dict[str, type[Focus | PcaBox | Zonotope | Ellipsoid]] = {
    "focus": Focus,
    "pca_box": PcaBox,
    "zonotope": Zonotope,
    "ellipsoid": Ellipsoid,
}
FUNCTIONS = (
    *("predict", "has", "hasCon", "logit", "score", "z", "atleast", "atmost"),
    *SCALED_REGIONS,
    *("hull", "ball", "box", "polytope", "class"),
)


@dataclass(frozen=True, slots=True)
class Call:
    """A function applied to arguments, as it stands in the text."""

    function: str
    place: Place
    arguments: tuple[Node, ...]


def value_of(call: Call, reader: Reader) -> Formula | Linear | Region | ClassOf:
    """Returns what a call stands for.

    Raises:
        SpecSyntaxError: no such function, or arguments that do not fit.
        UnknownName: a class or concept that the model does not have.
    """
    match call.function:
        case ">":
            a, b = _names(call, reader, ("concept", "concept"))
            return Stronger(reader.concept(a), reader.concept(b))
        case "predict":
            return Predict(reader.class_name(*_names(call, reader, ("class",))))
        case "has" | "hasCon":
            return Has(reader.concept(*_names(call, reader, ("concept",))))
        case "logit":
            label = reader.class_name(*_names(call, reader, ("class",)))
            return Linear(((Fraction(1), Logit(label)),))
        case "score":
            concept = reader.concept(*_names(call, reader, ("concept",)))
            return Linear(((Fraction(1), Score(concept)),))
        case "z":
            (index,) = _bind(call, reader, ("index",))
            return Linear(((Fraction(1), Coordinate(reader.whole(index))),))
        case "atleast" | "atmost":
            return _cardinality(call, reader)
        case "class":
            return ClassOf(reader.class_name(*_bind(call, reader, ("class",))))
        case _:
            return _region(call, reader)


def _cardinality(call: Call, reader: Reader) -> AtLeast | AtMost:
    if len(call.arguments) < 2:
        raise _misfit(call, reader, "a whole number and one formula or more")
    count = reader.whole(call.arguments[0])
    operands = tuple(reader.formula(argument) for argument in call.arguments[1:])
    return (AtLeast if call.function == "atleast" else AtMost)(count, operands)


def _region(call: Call, reader: Reader) -> Region:
    if call.function in SCALED_REGIONS:
        label, gamma = _bind(call, reader, ("class", "gamma"))
        kind = SCALED_REGIONS[call.function]
        return kind(reader.class_name(label), reader.number(gamma, at_least=0))
    match call.function:
        case "hull":
            return Hull(reader.class_name(*_bind(call, reader, ("class",))))
        case "ball":
            image, radius, norm = _bind(call, reader, ("image", "radius", "norm"))
            size = reader.number(radius, at_least=0)
            return Ball(reader.whole(image), size, _norm(norm, reader))
        case "box":
            return _box(call, reader)
        case "polytope":
            if not call.arguments:
                raise _misfit(call, reader, "one comparison or more")
            return Polytope(tuple(_closed(node, reader) for node in call.arguments))
    best = nearest(call.function, FUNCTIONS)
    hint = f"did you mean '{best}'?" if best else f"there are {', '.join(FUNCTIONS)}"
    raise reader.source.syntax_error(call.place, f"unknown function {shown(call.function)}", hint)


def _norm(node: Node, reader: Reader) -> Norm:
    if isinstance(node.value, Name) and node.value.text in [norm.value for norm in Norm]:
        return Norm(node.value.text)
    raise reader.source.syntax_error(node.place, "expected the norm of a ball: l2 or linf")


def _box(call: Call, reader: Reader) -> Box:
    lower, upper = (
        tuple(
            reader.number(item)
            for item in (node.value.items if isinstance(node.value, Vector) else (node,))
        )
        for node in _bind(call, reader, ("lower", "upper"))
    )
    if len(lower) != len(upper) and 1 not in (len(lower), len(upper)):
        message = f"the bounds of a box differ in length: {len(lower)} and {len(upper)}"
        raise reader.source.syntax_error(call.place, message)
    for index in range(max(len(lower), len(upper))):
        low, high = lower[index % len(lower)], upper[index % len(upper)]
        if low > high:
            bounds = f"[{write_number(low)}, {write_number(high)}]"
            message = f"this box is empty: {bounds} has its lower bound above its upper bound"
            raise reader.source.syntax_error(call.place, message)
    return Box(lower, upper)


def _closed(node: Node, reader: Reader) -> Compare:
    """Reads one comparison of a polytope."""
    value = node.value
    if isinstance(value, Compare) and value.relation in (Relation.GE, Relation.LE):
        return value
    if isinstance(value, Compare | Stronger):
        message = "a polytope takes >= or <=, not > or <: a region includes its border"
    else:
        message = "a polytope takes comparisons such as logit(truck) >= 2"
    raise reader.source.syntax_error(node.place, message)


def _names(call: Call, reader: Reader, takes: tuple[str, ...]) -> tuple[Node, ...]:
    """Returns the arguments of an atom without the image variable, which may be left out."""
    arguments = call.arguments
    if len(arguments) == len(takes) + 1:
        image, *others = arguments
        if image.value != Name(reader.variable, in_quotes=False):
            message = f"expected the image variable, which is called '{reader.variable}' here"
            raise reader.source.syntax_error(image.place, message)
        arguments = tuple(others)
    if len(arguments) != len(takes):
        raise _misfit(call, reader, " and ".join(f"a {kind}" for kind in takes))
    return arguments


def _bind(call: Call, reader: Reader, takes: tuple[str, ...]) -> tuple[Node, ...]:
    """Assigns arguments to parameters, first by position, then by keyword."""
    bound: dict[str, Node] = {}
    for position, node in enumerate(call.arguments):
        if isinstance(node.value, Keyword):
            key, argument = node.value.key, node.value.value
            misfit = key in bound or key not in takes
        else:
            key, argument = takes[min(position, len(takes) - 1)], node
            # A position after a keyword, or one too many, finds its parameter taken.
            misfit = key in bound
        if misfit:
            raise _misfit(call, reader, f"({', '.join(takes)})", node)
        bound[key] = argument
    if len(bound) != len(takes):
        raise _misfit(call, reader, f"({', '.join(takes)})")
    return tuple(bound[key] for key in takes)


def _misfit(call: Call, reader: Reader, takes: str, node: Node | None = None) -> Exception:
    place = call.place if node is None else node.place
    return reader.source.syntax_error(place, f"'{call.function}' takes {takes}")
