"""A query as SMT-LIB 2.6 text: sat if and only if there is a counterexample; every number exact.

The logic is QF_LRA; with ``has`` or an L2 ball it is QF_NRA, since both compare squares.

The form is the one that z3 and cvc5 solved fastest among those that were tried on lens bundles of
64 and 512 dimensions and on ReLU heads of 10 to 16 neurons:

* Inputs in their own coordinates (scaled to [-1, 1] they cost a factor of up to 6), and scores as
  definitions, which solvers substitute (as variables they cost one of up to 5).
* A count is written with ``and`` and ``or`` (`connectives`), not as a sum of zeros and ones.
* Only what occurs in the condition is written. A neuron that keeps its sign over the box is a
  definition. Any other has its two cases, and the line above them (`chord`), which follows from
  the bounds of X: without it z3 took up to 14 times as long.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil

from conspec.encodings.boxed import Boxed
from conspec.encodings.connectives import without_counts
from conspec.encodings.decimals import decimal_text, rational_text
from conspec.encodings.exact import Vector
from conspec.encodings.export_notes import notes, scores_of
from conspec.encodings.layer_ranges import hidden_ranges
from conspec.encodings.query import Query, fold
from conspec.encodings.regions import Box
from conspec.encodings.scores import signed_square
from conspec.specs.formula import Coordinate, Score, Symbol
from conspec.specs.rewrite import Halfspace, Literal

LONGEST_DECIMAL = 60
"""Characters of a decimal; any longer one is written as a quotient."""
Terms = list[tuple[Fraction, str]]


def smtlib(boxed: Boxed, title: str = "") -> str:
    """The query as SMT-LIB text in plain ASCII.

    Hidden neurons are H_layer_place, scores Y_place, comparisons L_k, connectives N_k.

    Args:
        boxed: the query; X are its inputs.
        title: the first line of comment.
    """
    query = boxed.query
    scores = scores_of(query)
    body = _Body(query, boxed.region)
    body.inputs(boxed.ball)
    body.scores(scores)
    body.norm()
    body.condition()
    logic = "QF_NRA" if query.cones or boxed.ball is not None else "QF_LRA"
    lines = [
        *(f"; {line}".rstrip() for line in notes(boxed, title, scores)),
        "; The values of X follow if it is sat; if it is unsat, get-value is an error.",
        "(set-info :smt-lib-version 2.6)",
        "(set-option :produce-models true)",
        f"(set-logic {logic})",
        *body.lines,
        "(check-sat)",
        f"(get-value ({' '.join(body.names)}))",
    ]
    return "\n".join(lines) + "\n"


class _Body:
    """Declarations and assertions, in the order of the file."""

    def __init__(self, query: Query, region: Box) -> None:
        self._query = query
        self._region = region
        self._space = query.space
        # Solvers for polynomials do not square a definition well: scores are variables for them.
        self._variables = bool(query.cones)
        self._hidden: list[str] = []
        self.names = [f"X_{index}" for index in range(region.dimension)]
        self.lines: list[str] = []

    def inputs(self, ball: Fraction | None) -> None:
        """X with its bounds, and the ball if there is one."""
        region = self._region
        self.lines += [f"(declare-const {name} Real)" for name in self.names]
        bounds = zip(self.names, region.lower.fractions(), region.upper.fractions(), strict=True)
        for name, low, high in bounds:
            self.lines += [f"(assert (<= {number(low)} {name}))"]
            self.lines += [f"(assert (<= {name} {number(high)}))"]
        if ball is not None:
            self.lines.append(f"(assert (<= {_squares(self.names)} {number(ball**2)}))")

    def scores(self, positions: Sequence[int]) -> None:
        """The scores that occur, and before them the neurons that they need."""
        space = self._space
        if not space.head.is_affine and any(place < len(space.classes) for place in positions):
            self._neurons()
        names = [*self.names, *self._hidden]
        for place in positions:
            weights, constant = space.score_row(place)
            terms = list(zip(weights.fractions()[: len(names)], names, strict=True))
            self._define(f"Y_{place}", _sum(terms, constant))

    def _define(self, name: str, text: str) -> None:
        """A name for a real-valued term."""
        if self._variables:
            self.lines += [f"(declare-const {name} Real)", f"(assert (= {name} {text}))"]
        else:
            self.lines.append(f"(define-fun {name} () Real {text})")

    def _neurons(self) -> None:
        """The hidden layers; their last one's names are kept."""
        inputs = self.names
        for depth, ranges in enumerate(hidden_ranges(self._space.head, self._region)):
            layer = self._space.head.affines[depth]
            outputs = []
            for index, (low, high) in enumerate(ranges):
                name = f"H_{depth}_{index}"
                weights, bias = layer.row(index)
                self._neuron(name, _row(weights, inputs, bias), low, high)
                outputs.append(name)
            inputs = outputs
        self._hidden = inputs

    def _neuron(self, name: str, before: str, low: Fraction, high: Fraction) -> None:
        """One neuron after its ReLU; its value before lies between ``low`` and ``high``."""
        if high <= 0 or low >= 0:
            self.lines.append(f"(define-fun {name} () Real {before if low >= 0 else '0.0'})")
            return
        self.lines.append(f"(define-fun {name}_in () Real {before})")
        slope, offset = chord(low, high)
        above = _sum([(slope, f"{name}_in")], offset)
        self.lines += [
            f"(declare-const {name} Real)",
            f"(assert (>= {name} 0.0))",
            f"(assert (>= {name} {name}_in))",
            f"(assert (or (<= {name} 0.0) (<= {name} {name}_in)))",
            f"(assert (<= {name} {above}))",
        ]

    def norm(self) -> None:
        """The square of the mapped embedding's length, if ``has`` occurs."""
        if not self._query.cones:
            return
        entries = []
        for index in range(self._space.aligned.outputs):
            weights, bias = self._space.aligned.row(index)
            entries.append(f"E_{index}")
            self._define(entries[-1], _row(weights, self.names, bias))
        self._define("E_square", _squares(entries))

    def condition(self) -> None:
        """The cuts and the violation."""
        literals: dict[Literal, str] = {}

        def leaf(literal: Literal) -> str:
            if literal not in literals:
                literals[literal] = f"L_{len(literals)}"
                self._bool(literals[literal], self._literal(literal))
            return literals[literal]

        nodes = 0

        def join(count: int, parts: list[str]) -> str:
            nonlocal nodes
            if len(parts) == 1:
                return parts[0]
            nodes += 1
            word = "and" if count == len(parts) else "or"
            neutral = "true" if word == "and" else "false"
            self._bool(f"N_{nodes - 1}", f"({word} {' '.join(parts)})" if parts else neutral)
            return f"N_{nodes - 1}"

        for cut in self._query.cuts:
            self.lines.append(f"(assert {self._literal(cut)})")
        root = fold(without_counts(self._query.violation), leaf, join)
        self.lines.append(f"(assert {root})")

    def _bool(self, name: str, text: str) -> None:
        self.lines.append(f"(define-fun {name} () Bool {text})")

    def _literal(self, literal: Literal) -> str:
        """A comparison; ``has`` by squares that keep their signs (`ScoreSpace.exact_has`)."""
        if isinstance(literal, Halfspace):
            return _comparison(
                [(factor, self._name(symbol)) for factor, symbol in literal.terms],
                -literal.constant,
                ">" if literal.strict else ">=",
            )
        score = self._name(Score(literal.concept))
        square = f"(ite (>= {score} 0.0) (* {score} {score}) (- (* {score} {score})))"
        factor = signed_square(self._space.threshold(literal.concept))
        bound = f"(* {number(factor)} E_square)"
        return f"({'>' if literal.holds else '<='} {square} {bound})"

    def _name(self, symbol: Symbol) -> str:
        if isinstance(symbol, Coordinate):
            return self.names[symbol.index]
        return f"Y_{self._space.position(symbol)}"


def _row(weights: Vector, names: Sequence[str], constant: Fraction) -> str:
    """``Σ weight · name + constant``."""
    return _sum(list(zip(weights.fractions(), names, strict=True)), constant)


def _sum(terms: Terms, constant: Fraction) -> str:
    """A sum without its zeros."""
    parts = [_product(factor, name) for factor, name in terms if factor]
    if constant or not parts:
        parts.append(number(constant))
    return parts[0] if len(parts) == 1 else f"(+ {' '.join(parts)})"


def _comparison(terms: Terms, bound: Fraction, above: str) -> str:
    """``Σ factor · name >= bound`` (or ``>``); a plain ``(>= Y_0 Y_1)`` where it is no more."""
    if bound == 0 and sorted(factor for factor, _ in terms) == [-1, 1]:
        (factor, one), (_, other) = terms
        return f"({above} {one} {other})" if factor > 0 else f"({above} {other} {one})"
    return f"({above} {_sum(terms, Fraction(0))} {number(bound)})"


def _product(factor: Fraction, name: str) -> str:
    if factor == 1:
        return name
    return f"(- {name})" if factor == -1 else f"(* {number(factor)} {name})"


def _squares(names: Sequence[str]) -> str:
    """The sum of squares."""
    parts = [f"(* {name} {name})" for name in names]
    return parts[0] if len(parts) == 1 else f"(+ {' '.join(parts)})"


def chord(low: Fraction, high: Fraction) -> tuple[Fraction, Fraction]:
    """A line above the ReLU between ``low < 0`` and ``high > 0``, near its chord: slope, offset.

    Both are short: 8 bits and 24. The ReLU is convex, so being above it at both ends is enough.
    """
    slope = Fraction(round(256 * high / (high - low)), 256)
    offset = max(-slope * low, (1 - slope) * high)
    bits = offset.numerator.bit_length() - offset.denominator.bit_length()
    unit = Fraction(2) ** (bits - 24)
    return slope, ceil(offset / unit) * unit


def number(value: Fraction) -> str:
    """An exact number: a decimal if there is a short one, else a quotient of two.

    >>> number(Fraction(-1, 4)), number(Fraction(1, 3))
    ('(- 0.25)', '(/ 1.0 3.0)')
    """
    if value < 0:
        return f"(- {number(-value)})"
    decimal = decimal_text(value)
    if decimal is not None and len(decimal) <= LONGEST_DECIMAL:
        return decimal
    top, _, bottom = rational_text(value).partition("/")
    return f"(/ {top}.0 {bottom}.0)"
