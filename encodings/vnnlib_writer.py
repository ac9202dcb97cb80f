"""A query as VNN-LIB text: "is there an X that satisfies all of this?", a counterexample if so.

Y are the outputs of the network that `onnx_writer` makes of the same query: logits, then concept
scores. All numbers are exact decimals. A row with a coefficient that is no finite decimal, such
as 1/3, is multiplied by a positive integer first, which leaves its meaning as it is.

Where that is short, the condition is one disjunction of conjunctions, which is what most tools
read; else it stays nested. VNN-LIB has no counting: "at least k of n" is written out
(`connectives`). VNN-LIB 1.0 has non-strict comparisons only in its examples, and many tools read
no others. Strict ones, which negations of ``>=`` give, are written as ``>`` and ``<`` all the
same: a tool that refuses them is better than one that answers another question.

Sources: vnnlib.org; the VNN-LIB 2.0 standard, arXiv 2605.07451.
"""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

from conspec.encodings.boxed import Boxed, over_box
from conspec.encodings.connectives import disjuncts, without_counts, written_size
from conspec.encodings.decimals import LONGEST, decimal_text
from conspec.encodings.export_notes import ascii_lines, quoted
from conspec.encodings.query import Query, fold
from conspec.encodings.regions import Box
from conspec.encodings.scores import ScoreSpace
from conspec.specs.errors import BadUsage
from conspec.specs.formula import Coordinate, Symbol
from conspec.specs.rewrite import FALSE, TRUE, All, Cone, Halfspace, Literal, Nnf

MOST_DISJUNCTS = 256
"""Longest disjunction that is written as one ``or`` of ``and``s."""
MOST_LITERALS = 4_096
"""Most comparisons in such a disjunction."""
MOST_TEXT = 20_000_000
"""Characters of a condition; no tool reads longer ones."""
_NUMBER = re.compile(r"(?<![\w.])[0-9]+\.[0-9]+")


def vnnlib1(boxed: Boxed, title: str = "") -> str:
    """The query as VNN-LIB 1.0.

    Args:
        boxed: the query; X are its inputs.
        title: the first line of comment.

    Raises:
        BadUsage: it has ``has`` or an L2 ball, or is too long to be written.
    """
    if boxed.ball is not None:
        raise BadUsage(_no_form(boxed, "the L2 ball of its region", "1.0"))
    space = boxed.source.space
    names = _Names("1.0", space, lambda index: f"X_{index}", lambda place: f"Y_{place}")
    inputs, outputs = range(boxed.region.dimension), range(_outputs(space))
    lines = [
        *_comments(boxed, title, names),
        *(f"(declare-const {names.coordinate(index)} Real)" for index in inputs),
        *(f"(declare-const {names.score(place)} Real)" for place in outputs),
        *_assertions(boxed, names),
    ]
    return "\n".join(lines) + "\n"


def vnnlib2(boxed: Boxed, title: str = "", network: str = "f") -> str:
    """The query as VNN-LIB 2.0, over real numbers; an L2 ball is a sum of squares.

    Args:
        boxed: the query; X are its inputs.
        title: the first line of comment.
        network: what the network is called.

    Raises:
        BadUsage: it has ``has``, or is too long to be written.
    """
    space = boxed.source.space
    names = _two("X", space)
    size = boxed.region.dimension
    lines = [
        *_opening(network, _comments(boxed, title, names), f"declare-input X real [1,{size}]"),
        f"  (declare-output Y real [1,{_outputs(space)}])",
        ")",
        *_assertions(boxed, names),
    ]
    if boxed.ball is not None:
        factor, limit = _decimals([Fraction(1), boxed.ball**2])
        squares = " ".join(f"(* {factor} X[0,{i}] X[0,{i}])" for i in range(size))
        lines.append(f"(assert (<= (+ {squares}) {limit}))")
    return _readable("\n".join(lines) + "\n")


@dataclass(frozen=True, slots=True)
class Picture:
    """The input of an encoder: all pictures of a shape with entries between two bounds.

    Attributes:
        shape: of the input, the batch axis of 1 included, such as (1, 3, 32, 32).
        lower: least value of an entry.
        upper: greatest value of an entry.
    """

    shape: tuple[int, ...]
    lower: Fraction = Fraction(0)
    upper: Fraction = Fraction(1)


def vnnlib2_hidden(
    query: Query, picture: Picture, hidden: str, title: str = "", network: str = "f"
) -> str:
    """The query about pictures whose embedding lies in the region, as VNN-LIB 2.0.

    The embedding is a hidden tensor Z of the network that `onnx_writer.write_with_encoder`
    makes. A proof of it says less than one about the region: only of embeddings of pictures.

    Args:
        query: the query; its region must be a box.
        picture: the network's input X.
        hidden: the tensor's name in the ONNX file.
        title: the first line of comment.
        network: what the network is called.

    Raises:
        BadUsage: the region is no box, the query has ``has``, or is too long to be written.
    """
    if not isinstance(query.region, Box):
        text = "a region of the hidden tensor that is no box"
        raise BadUsage(_no_form(over_box(query), text, "2.0"))
    if '"' in hidden or not hidden.isprintable():
        raise BadUsage(f"the tensor's name {hidden!r} cannot be written in VNN-LIB")
    boxed, space = over_box(query), query.space
    names = _two("Z", space)
    shape = ",".join(map(str, picture.shape))
    lines = [
        *_opening(network, _comments(boxed, title, names), f"declare-input X real [{shape}]"),
        f'  (declare-hidden Z real [1,{space.dimension}] "{hidden}")',
        f"  (declare-output Y real [1,{_outputs(space)}])",
        ")",
    ]
    for place in _indices(picture.shape):
        pixel = f"X[{','.join(map(str, place))}]"
        lines += _bounds_of(pixel, picture.lower, picture.upper)
    return _readable("\n".join([*lines, *_assertions(boxed, names)]) + "\n")


# --- names and comments ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Names:
    """How a version of the format writes variables."""

    version: str
    space: ScoreSpace
    coordinate: Callable[[int], str]
    score: Callable[[int], str]

    def of(self, symbol: Symbol) -> str:
        """The variable that stands for a symbol."""
        if isinstance(symbol, Coordinate):
            return self.coordinate(symbol.index)
        return self.score(self.space.position(symbol))


def _two(inputs: str, space: ScoreSpace) -> _Names:
    """The names of VNN-LIB 2.0."""
    return _Names("2.0", space, lambda index: f"{inputs}[0,{index}]", lambda place: f"Y[0,{place}]")


def _readable(text: str) -> str:
    """The text of VNN-LIB 2.0, whose own package reads no number that a float64 cannot hold."""
    for number in set(_NUMBER.findall(text)):
        is_zero = not number.strip("0.")
        if not is_zero and not sys.float_info.min <= float(number) <= sys.float_info.max:
            raise BadUsage(
                "a number is beyond the range of float64, which readers of VNN-LIB 2.0 refuse; "
                "use VNN-LIB 1.0 or SMT-LIB"
            )
    return text


def _outputs(space: ScoreSpace) -> int:
    """Number of logits and concept scores."""
    return len(space.classes) + len(space.concepts)


def _opening(network: str, comments: Sequence[str], declaration: str) -> list[str]:
    """Version, comments, and the network down to its input."""
    if not (network.isascii() and network.isidentifier()):
        raise BadUsage(f"a network of VNN-LIB cannot be called {network!r}; use letters and digits")
    return [
        "(vnnlib-version <2.0>)",
        *comments,
        f"(declare-network {network}",
        f"  ({declaration})",
    ]


def _indices(shape: Sequence[int]) -> list[tuple[int, ...]]:
    """All places of an array, row by row."""
    places: list[tuple[int, ...]] = [()]
    for size in shape:
        places = [(*place, index) for place in places for index in range(size)]
    return places


def _comments(boxed: Boxed, title: str, names: _Names) -> list[str]:
    """What the file asks, and what its variables are; plain ASCII, whatever the names."""
    space = boxed.source.space
    first, last = names.coordinate(0), names.coordinate(boxed.region.dimension - 1)
    entries = f"{first} to {last}"
    if boxed.prelude is None:
        meaning = f"{entries}: the entries of the embedding."
    else:
        meaning = f"{entries}: parameters of the region; the network's first layer makes the"
        meaning += " embedding of them."
    lines = [
        *([title] if title else []),
        "sat: a counterexample to this spec; unsat: the spec is proved"
        + (f" (part {boxed.source.part} of its region)." if boxed.source.part else "."),
        *quoted(boxed.source.spec).splitlines(),
        meaning,
        *(f"{names.score(i)}: logit of {name}" for i, name in enumerate(space.classes)),
        *(
            f"{names.score(len(space.classes) + i)}: score of {name}"
            for i, name in enumerate(space.concepts)
        ),
    ]
    return [f"; {line}".rstrip() for line in ascii_lines(lines)]


def _no_form(boxed: Boxed, what: str, version: str) -> str:
    """Why a query is refused."""
    return (
        f"spec '{boxed.source.spec.name}': {what} cannot be written in VNN-LIB {version}; "
        "export it as SMT-LIB"
    )


# --- assertions -------------------------------------------------------------------------------


def _assertions(boxed: Boxed, names: _Names) -> list[str]:
    """Bounds, cuts and the violation, one assertion a line."""
    lower, upper = boxed.region.lower.fractions(), boxed.region.upper.fractions()
    lines = []
    for index, (low, high) in enumerate(zip(lower, upper, strict=True)):
        lines += _bounds_of(names.coordinate(index), low, high)

    def text(literal: Literal) -> str:
        if isinstance(literal, Cone):
            raise BadUsage(_no_form(boxed, f"has({literal.concept})", names.version))
        terms = [(factor, names.of(symbol)) for factor, symbol in literal.terms]
        return comparison(terms, literal.constant, strict=literal.strict)

    written = {literal: text(literal) for literal in boxed.source.space.literals(boxed.violation)}
    lines += [f"(assert {text(cut)})" for cut in boxed.cuts]
    if boxed.violation == TRUE:
        return lines
    if boxed.violation == FALSE:
        # No X satisfies it: X_0 would have to be larger than its upper bound.
        beyond = comparison([(Fraction(1), names.coordinate(0))], -upper[0] - 1, strict=False)
        return [*lines, f"(assert {beyond})"]
    found = _conditions(without_counts(boxed.violation), written)
    if found is None:
        raise BadUsage(
            _no_form(boxed, f"a condition of over {MOST_TEXT} characters", names.version)
        )
    return [*lines, *(f"(assert {condition})" for condition in found)]


def _bounds_of(name: str, low: Fraction, high: Fraction) -> list[str]:
    """A variable's two bounds."""
    least = comparison([(Fraction(1), name)], -low, strict=False)
    most = comparison([(Fraction(-1), name)], high, strict=False)
    return [f"(assert {least})", f"(assert {most})"]


def _conditions(nnf: Nnf, written: dict[Literal, str]) -> list[str] | None:
    """A formula of literals, `All` and `Some` as conditions that all must hold; None if too long.

    Literals that must hold come first; what is left is one ``or`` of ``and``s if that is short.
    """
    parts = nnf.operands if isinstance(nnf, All) else (nnf,)
    single = [part for part in parts if isinstance(part, Halfspace)]
    rest = tuple(part for part in parts if not isinstance(part, Halfspace))
    lines = [written[part] for part in single]
    if not rest:
        return lines
    choices = disjuncts(All(rest), MOST_DISJUNCTS)
    if choices is not None and sum(map(len, choices)) <= MOST_LITERALS:
        cases = [f"(and {' '.join(written[part] for part in one)})" for one in choices]
        return [*lines, f"(or {' '.join(cases)})"]
    if written_size(All(rest), lambda literal: len(written[literal])) > MOST_TEXT:
        return None
    return [*lines, *(_nested(part, written) for part in rest)]


def _nested(nnf: Nnf, written: dict[Literal, str]) -> str:
    """A formula of literals, `All` and `Some` as nested text."""

    def join(count: int, parts: list[str]) -> str:
        if len(parts) == 1:
            return parts[0]
        return f"({'and' if count == len(parts) else 'or'} {' '.join(parts)})"

    return fold(nnf, lambda literal: written[literal], join)


def comparison(terms: Sequence[tuple[Fraction, str]], constant: Fraction, *, strict: bool) -> str:
    """``Σ factor · variable + constant >= 0`` (or ``> 0``) in the simplest form there is.

    That is ``(<= X_0 0.5)`` for one variable, ``(>= Y_0 Y_1)`` for a difference, else a sum of
    products, multiplied by a positive number where that makes all numbers finite decimals.

    Args:
        terms: factors that are not zero, and variables.
        constant: the constant.
        strict: whether equality is excluded.

    Raises:
        BadUsage: a number is longer than any tool reads.
    """
    above, below = (">", "<") if strict else (">=", "<=")
    if len(terms) == 1:
        ((factor, name),) = terms
        bound = decimal_text(-constant / factor)
        if bound is not None:
            return f"({above if factor > 0 else below} {name} {bound})"
    if len(terms) == 2 and constant == 0 and terms[0][0] == -terms[1][0]:
        (factor, one), (_, other) = terms
        return f"({above} {one} {other})" if factor > 0 else f"({above} {other} {one})"
    numbers = _decimals([*(factor for factor, _ in terms), -constant])
    products = [f"(* {number} {name})" for number, (_, name) in zip(numbers, terms, strict=False)]
    left = products[0] if len(products) == 1 else f"(+ {' '.join(products)})"
    return f"({above} {left} {numbers[-1]})"


def _decimals(values: Sequence[Fraction]) -> list[str]:
    """The values times one positive integer, as finite decimals."""
    factor = lcm(*(_without_tens(value.denominator) for value in values))
    texts = [decimal_text(value * factor) for value in values]
    found = [text for text in texts if text is not None]
    if len(found) < len(texts):
        raise BadUsage(
            f"a comparison has a number of more than {LONGEST} digits, which no tool would read"
        )
    return found


def _without_tens(number: int) -> int:
    """A positive integer without its factors 2 and 5."""
    number >>= (number & -number).bit_length() - 1
    while number % 5 == 0:
        number //= 5
    return number
