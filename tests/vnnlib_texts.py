"""Random VNN-LIB 1.0 conditions, their text, and two judges: a tiny evaluator, and z3.

The evaluator walks the drawn tree, not the text. z3 parses the text itself, for VNN-LIB 1.0 is
SMT-LIB, and gets the network as exact rationals. Neither shares a line with the reader.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from conspec.encodings.network import Network

Tree = Any
"""``("and", …)``, ``("or", …)``, ``("not", a)``, ``("=>", a, b)``, a comparison of terms such as
``("<=", s, t, …)``; a term is a Fraction, a name, or ``("+", …)``, ``("-", …)``, ``("*", …)``,
``("/", t, number)``."""

NUMBERS = st.sampled_from([Fraction(v) for v in ("0", "1", "-1", "0.5", "-0.25", "2", "0.1")])
_FOLD: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}


def value(term: Tree, at: dict[str, Fraction]) -> Fraction:
    """A term's value."""
    if isinstance(term, Fraction):
        return term
    if isinstance(term, str):
        return at[term]
    name, first, *rest = term
    result = value(first, at)
    if not rest:
        return -result if name == "-" else result
    for part in rest:
        result = _FOLD[name](result, value(part, at))
    return result


def holds(tree: Tree, at: dict[str, Fraction]) -> bool:
    """A tree's truth."""
    name, *parts = tree
    if name == "and":
        return all(holds(part, at) for part in parts)
    if name == "or":
        return any(holds(part, at) for part in parts)
    if name == "not":
        return not holds(parts[0], at)
    if name == "=>":
        return not all(holds(part, at) for part in parts[:-1]) or holds(parts[-1], at)
    values = [value(part, at) for part in parts]
    return all(_COMPARE[name](left, right) for left, right in pairwise(values))


def text_of(tree: Tree, strict: bool = True) -> str:
    """A tree in SMT-LIB; unless ``strict`` with signs and exponents, as benchmarks have them."""
    if isinstance(tree, str):
        return tree
    if not isinstance(tree, Fraction):
        return "(" + " ".join([tree[0], *(text_of(part, strict) for part in tree[1:])]) + ")"
    plain = f"{float(abs(tree))!r}"
    if tree >= 0:
        return plain if strict else f"{int(tree * 10_000)}e-4"
    return f"(- {plain})" if strict else f"-{plain}"


@dataclass(frozen=True)
class Problem:
    """A condition over ``inputs`` and ``outputs``, with bounds for each input in it."""

    inputs: int
    outputs: int
    asserted: tuple[Tree, ...]

    def text(self, strict: bool = True) -> str:
        """The file."""
        names = [f"X_{i}" for i in range(self.inputs)] + [f"Y_{j}" for j in range(self.outputs)]
        lines = [f"(declare-const {name} Real)" for name in names]
        lines += [f"(assert {text_of(tree, strict)})" for tree in self.asserted]
        return "\n".join(lines) + "\n"

    def holds(self, inputs: Sequence[Fraction], outputs: Sequence[Fraction]) -> bool:
        """Whether X and Y satisfy every assert."""
        at = {f"X_{i}": x for i, x in enumerate(inputs)}
        at |= {f"Y_{j}": y for j, y in enumerate(outputs)}
        return all(holds(tree, at) for tree in self.asserted)


@cache
def terms(names: tuple[str, ...]) -> st.SearchStrategy[Tree]:
    """Linear terms."""
    variable = st.sampled_from(names)
    simple = st.one_of(variable, NUMBERS)
    divisors = st.sampled_from([Fraction(2), Fraction(-4)])
    scaled = st.one_of(
        st.tuples(st.just("*"), NUMBERS, variable),
        st.tuples(st.just("*"), variable, NUMBERS),
        st.tuples(st.just("*"), NUMBERS, variable, NUMBERS),
        st.tuples(st.just("/"), variable, divisors),
        st.tuples(st.just("/"), variable, divisors, divisors),
        st.tuples(st.just("-"), variable),
    )
    operand = st.one_of(simple, scaled)
    sums = st.lists(operand, min_size=2, max_size=3).flatmap(
        lambda found: st.sampled_from([("+", *found), ("-", *found)])
    )
    return st.one_of(simple, simple, scaled, sums)


@cache
def conditions(names: tuple[str, ...], max_leaves: int = 6) -> st.SearchStrategy[Tree]:
    """Trees over the names, with chains, equalities and contradictions among them."""
    compared = st.tuples(
        st.sampled_from(list(_COMPARE)), st.lists(terms(names), min_size=2, max_size=3)
    )
    return st.recursive(
        compared.map(lambda found: (found[0], *found[1])),
        lambda parts: st.one_of(
            st.lists(parts, min_size=1, max_size=3).map(lambda found: ("and", *found)),
            st.lists(parts, min_size=1, max_size=3).map(lambda found: ("or", *found)),
            parts.map(lambda part: ("not", part)),
            st.lists(parts, min_size=2, max_size=3).map(lambda found: ("=>", *found)),
        ),
        max_leaves=max_leaves,
    )


@cache
def _bounds(index: int) -> st.SearchStrategy[Tree]:
    """Bounds of one input, in one of many spellings; now and then a point, or empty."""
    widths = st.sampled_from([Fraction(v) for v in ("0", "1", "1", "2")])
    name = f"X_{index}"

    def spellings(ends: tuple[Fraction, Fraction]) -> list[Tree]:
        low, width = ends
        high = low + width
        found: list[Tree] = [
            ("and", (">=", name, low), ("<=", name, high)),
            ("<=", low, name, high),
            ("not", ("or", ("<", name, low), (">", name, high))),
            ("and", ("<=", ("-", name), -low), ("<=", ("*", Fraction(2), name), 2 * high)),
            ("and", ("<", low, name), ("<", name, high)),
        ]
        return [*found, ("=", name, low)] if width == 0 else found

    return st.tuples(NUMBERS, widths).flatmap(lambda ends: st.sampled_from(spellings(ends)))


@cache
def problems(inputs: int, outputs: int) -> st.SearchStrategy[Problem]:
    """Problems with bounded inputs: a box, or a disjunction of boxes, then anything."""
    names = [f"X_{i}" for i in range(inputs)] + [f"Y_{j}" for j in range(outputs)]
    boxes = st.tuples(*(_bounds(i) for i in range(inputs)))
    side = st.tuples(boxes, conditions(tuple(names), 2)).map(lambda two: ("and", *two[0], two[1]))
    union = st.lists(side, min_size=1, max_size=3).map(lambda found: (("or", *found),))
    more = st.lists(conditions(tuple(names)), max_size=2)
    asserted = st.tuples(st.one_of(boxes, union), more).map(lambda two: [*two[0], *two[1]])
    return asserted.flatmap(st.permutations).map(
        lambda trees: Problem(inputs, outputs, tuple(trees))
    )


def z3_says(text: str, network: Network, point: Sequence[Fraction] | None = None) -> str:
    """What z3 says of a text with an exact network, perhaps with the inputs fixed."""
    import z3

    def number(amount: Fraction) -> Any:
        return z3.Q(amount.numerator, amount.denominator)

    solver = z3.Solver()
    solver.set("timeout", 20_000)
    solver.add(z3.parse_smt2_string(text))
    values: list[Any] = [z3.Real(f"X_{index}") for index in range(network.inputs)]
    if point is not None:
        solver.add([x == number(amount) for x, amount in zip(values, point, strict=True)])
    for depth, layer in enumerate(network.affines):
        if depth:
            values = [z3.If(v > 0, v, number(Fraction(0))) for v in values]
        values = [
            sum(
                (number(Fraction(w)) * v for w, v in zip(row, values, strict=True)),
                number(Fraction(bias)),
            )
            for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        ]
    solver.add([z3.Real(f"Y_{index}") == v for index, v in enumerate(values)])
    return str(solver.check())
