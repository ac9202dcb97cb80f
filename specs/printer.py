"""Writes Con_spec text that parses back to the same tree.

For every tree in *normal form*, ``parse(to_text(tree)) == tree``. Normal form is what the
parser makes:

* names are not empty and hold only printable characters;
* ``And``, ``Or``, ``Both`` and ``Either`` have two operands or more (one directly within
  another of its kind keeps its own parentheses), cardinalities have one or more and a
  count >= 0, and ``Polytope`` has one comparison or more, each ``>=`` or ``<=``;
* a ``Linear`` has each symbol at most once and no coefficient zero;
* numbers fit the limits of ``exact.py``, scales are >= 0, a probability is in (0, 1], a
  confidence in (0, 1), a box is not empty;
* formulas and regions nest no deeper than the parser allows.
"""

from fractions import Fraction
from typing import assert_never

from conspec.specs.exact import write_number
from conspec.specs.formula import (
    And,
    AtLeast,
    AtMost,
    Ball,
    Both,
    Box,
    ClassOf,
    Compare,
    Constant,
    Coordinate,
    Either,
    Ellipsoid,
    Focus,
    ForAll,
    Formula,
    Has,
    Hull,
    Iff,
    Implies,
    Linear,
    Logit,
    Not,
    Or,
    PcaBox,
    Polytope,
    Predict,
    Probability,
    Region,
    Score,
    Spec,
    Stronger,
    Suite,
    Symbol,
    Zonotope,
)
from conspec.specs.names import quoted

# How tightly a formula holds together; an operand that is no tighter gets parentheses.
_LOOSE, _IMPLIES, _OR, _AND, _NOT, _COMPARISON, _CALL = range(7)


def to_text(tree: Suite | Spec | Formula | Region) -> str:
    """Writes a suite, a spec, a formula or a region; the image variable is ``x``."""
    if isinstance(tree, Suite):
        return "\n".join(f"{_spec(spec)}\n" for spec in tree.specs)
    if isinstance(tree, Spec):
        return _spec(tree)
    if isinstance(tree, Region):
        return _region(tree)
    return _formula(tree)


def _spec(spec: Spec) -> str:
    match spec:
        case ForAll(name, region, body):
            scope = f"forall x in {_region(region)}"
        case Probability(name, at_least, confidence, population, body):
            bound = f"{write_number(at_least)} with confidence {write_number(confidence)}"
            scope = f"probability >= {bound} for x in {_population(population)}"
        case _:
            assert_never(spec)
    return f"spec {quoted(name)}:\n    {scope}:\n        {_formula(body)}"


def _population(population: ClassOf) -> str:
    return "all" if population.label is None else f"class({quoted(population.label)})"


def _formula(formula: Formula) -> str:
    return _written(formula)[0]


def _within(formula: Formula, bond: int) -> str:
    """Writes an operand, in parentheses unless it holds together more tightly than ``bond``."""
    text, own_bond = _written(formula)
    return text if own_bond > bond else f"({text})"


def _written(formula: Formula) -> tuple[str, int]:
    """Returns the text of a formula and how tightly it holds together."""
    match formula:
        case Constant(value):
            return ("true" if value else "false"), _CALL
        case Stronger(a, b):
            return f"{quoted(a)} > {quoted(b)}", _COMPARISON
        case Compare():
            return _compare(formula), _COMPARISON
        case Predict(label):
            return f"predict(x, {quoted(label)})", _CALL
        case Has(concept):
            return f"has(x, {quoted(concept)})", _CALL
        case Not(operand):
            # "not a > b" would parse, but a reader may take it for "(not a) > b".
            return f"not {_within(operand, _COMPARISON)}", _NOT
        case And(operands):
            return " and ".join([_within(operand, _AND) for operand in operands]), _AND
        case Or(operands):
            return " or ".join([_within(operand, _OR) for operand in operands]), _OR
        case Implies(premise, conclusion):
            # It associates to the right, where alone a second "=>" needs no parentheses.
            right = _within(conclusion, _LOOSE)
            return f"{_within(premise, _IMPLIES)} => {right}", _IMPLIES
        case Iff(left, right_side):
            return f"{_within(left, _LOOSE)} <=> {_within(right_side, _LOOSE)}", _LOOSE
        case AtLeast(count, operands):
            return _call("atleast", str(count), *map(_formula, operands)), _CALL
        case AtMost(count, operands):
            return _call("atmost", str(count), *map(_formula, operands)), _CALL
        case _:
            assert_never(formula)


def _compare(comparison: Compare) -> str:
    left, right = _linear(comparison.left), _linear(comparison.right)
    return f"{left} {comparison.relation.value} {right}"


def _linear(linear: Linear) -> str:
    parts = [(weight < 0, _term(abs(weight), symbol)) for weight, symbol in linear.terms]
    if linear.constant or not parts:
        parts.append((linear.constant < 0, write_number(abs(linear.constant))))
    (negative, first), *others = parts
    rest = [f" {'-' if negative else '+'} {text}" for negative, text in others]
    return f"{'-' if negative else ''}{first}{''.join(rest)}"


def _term(weight: Fraction, symbol: Symbol) -> str:
    match symbol:
        case Logit(label):
            text = _call("logit", quoted(label))
        case Score(concept):
            text = _call("score", quoted(concept))
        case Coordinate(index):
            text = _call("z", str(index))
        case _:
            assert_never(symbol)
    return text if weight == 1 else f"{write_number(weight)}*{text}"


def _region(region: Region) -> str:
    match region:
        case Focus(label, gamma):
            return _call("focus", quoted(label), f"gamma={write_number(gamma)}")
        case PcaBox(label, gamma):
            return _call("pca_box", quoted(label), f"gamma={write_number(gamma)}")
        case Zonotope(label, gamma):
            return _call("zonotope", quoted(label), f"gamma={write_number(gamma)}")
        case Ellipsoid(label, gamma):
            return _call("ellipsoid", quoted(label), f"gamma={write_number(gamma)}")
        case Hull(label):
            return _call("hull", quoted(label))
        case Ball(image, radius, norm):
            return _call("ball", str(image), f"radius={write_number(radius)}", f"norm={norm.value}")
        case Box(lower, upper):
            return _call("box", _bounds(lower), _bounds(upper))
        case Polytope(constraints):
            return _call("polytope", *map(_compare, constraints))
        case Both(regions):
            return " and ".join([_part(part) for part in regions])
        case Either(regions):
            return " or ".join([_part(part) for part in regions])
        case _:
            assert_never(region)


def _part(region: Region) -> str:
    """Writes an operand; all compound ones get parentheses, as regions nest rarely."""
    text = _region(region)
    return f"({text})" if isinstance(region, Both | Either) else text


def _bounds(values: tuple[Fraction, ...]) -> str:
    if len(values) == 1:
        return write_number(values[0])
    return f"[{', '.join(map(write_number, values))}]"


def _call(function: str, *arguments: str) -> str:
    return f"{function}({', '.join(arguments)})"
