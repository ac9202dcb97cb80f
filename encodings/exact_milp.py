"""A query as a mixed-integer linear program with rational numbers, to be written to files.

The program maximises ``m``, the margin of the violation in the scores' own units: minimum over
conjunctions, maximum over disjunctions, the k-th largest of a count (`Query.margin`). Columns:

* ``X_i``: inputs, in their own units and bounds.
* ``H_d_i``: hidden neurons after their ReLU, ``B_d_i``: 1 if the neuron is active. Only if a
  logit of a ReLU head occurs, and a binary only where the sign can change.
* ``Y_j``: scores that occur.
* ``D_k``: 1 if a part of a disjunction or count is claimed to hold.
* ``m``: between the least and the greatest value that any comparison can have over the box.

Every big-M is the range of what it relaxes. These ranges, and those of H, Y and m, are rounded
outward to float64 numbers, so that writing them as such loses nothing. A point with the least m
satisfies every row of the condition, so the program is infeasible only if the region is empty.

How its optimum answers the query: there is a counterexample if it is positive, none if it is
negative. At exactly 0 it depends: a violation of non-strict comparisons alone (``>=``) holds
there, one of strict comparisons alone does not, and for a mixture of both the program does not
tell. `ExactMilp.comparisons` says which of the three it is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal as Word

from conspec.encodings.boxed import Boxed
from conspec.encodings.exact import Vector, vector
from conspec.encodings.export_notes import notes, scores_of
from conspec.encodings.layer_ranges import Range, after_relu, hidden_ranges, outward, row_range
from conspec.encodings.query import Query
from conspec.encodings.regions import Box
from conspec.specs.errors import BadUsage
from conspec.specs.formula import Coordinate, Symbol
from conspec.specs.rewrite import FALSE, TRUE, All, Cone, Count, Halfspace, Nnf, Some

Comparisons = Word["strict", "closed", "mixed"]
Sense = Word[">=", "<=", "="]
ZERO, ONE = Fraction(0), Fraction(1)


@dataclass(frozen=True, slots=True)
class ExactColumn:
    """A variable; a binary one has the bounds 0 and 1."""

    name: str
    lower: Fraction
    upper: Fraction
    binary: bool = False


@dataclass(frozen=True, slots=True)
class ExactRow:
    """``Σ factor · column`` compared with a bound; columns are distinct, factors not zero."""

    name: str
    terms: tuple[tuple[Fraction, int], ...]
    sense: Sense
    bound: Fraction


@dataclass(frozen=True, slots=True)
class ExactMilp:
    """A mixed-integer linear program.

    Attributes:
        columns: the variables.
        rows: the constraints.
        margin: the column that is maximised, ``m``.
        comparisons: whether the violation compares strictly, not so, or both.
        notes: what the file says of the query, lines of plain ASCII.
    """

    columns: tuple[ExactColumn, ...]
    rows: tuple[ExactRow, ...]
    margin: int
    comparisons: Comparisons
    notes: tuple[str, ...]


def milp_of(boxed: Boxed, title: str = "") -> ExactMilp:
    """The query as a mixed-integer linear program.

    Args:
        boxed: the query; X are its inputs.
        title: the first line of comment.

    Raises:
        BadUsage: the query has ``has`` or an L2 ball, or a value beyond float64.
    """
    query = boxed.query
    if query.cones or boxed.ball is not None:
        what = f"has({query.cones[0].concept})" if query.cones else "the L2 ball of its region"
        raise BadUsage(
            f"spec '{boxed.source.spec.name}': {what} cannot be written in a linear program; "
            "export it as SMT-LIB"
        )
    # A strict cut says the same as one more comparison of the violation.
    strict = tuple(cut for cut in query.cuts if cut.strict)
    violation = All((*strict, query.violation)) if strict else query.violation
    writer = _Writer(query, boxed.region, scores_of(query))
    for cut in query.cuts:
        if not cut.strict:
            writer.add_cut(cut)
    writer.condition(violation)
    found = query.space.literals(violation)
    kinds = {literal.strict for literal in found if isinstance(literal, Halfspace)}
    comparisons: Comparisons = "mixed"
    if len(kinds) < 2:
        comparisons = "strict" if True in kinds else "closed"
    return ExactMilp(
        tuple(writer.columns),
        tuple(writer.rows),
        writer.margin,
        comparisons,
        (*notes(boxed, title, scores_of(query)), *_READING[comparisons]),
    )


_READING = {
    "strict": (
        "Maximise m, the margin of the violation. All its comparisons are strict:",
        "sat if the optimum is > 0, unsat if it is <= 0.",
    ),
    "closed": (
        "Maximise m, the margin of the violation. None of its comparisons is strict:",
        "sat if the optimum is >= 0, unsat if it is < 0.",
    ),
    "mixed": (
        "Maximise m, the margin of the violation. Some of its comparisons are strict, some not:",
        "sat if the optimum is > 0, unsat if it is < 0. At exactly 0 this program does not tell.",
    ),
}


class _Writer:
    """Columns and rows as they are added."""

    def __init__(self, query: Query, region: Box, positions: Sequence[int]) -> None:
        self._space = query.space
        self.columns: list[ExactColumn] = []
        self.rows: list[ExactRow] = []
        self._lower, self._upper = region.lower, region.upper  # of z, then of (z, y)
        bounds = zip(self._lower.fractions(), self._upper.fractions(), strict=True)
        self._linear = [self._new(f"X_{i}", ends) for i, ends in enumerate(bounds)]
        self._size = len(self._linear)
        if not self._space.head.is_affine and any(p < len(self._space.classes) for p in positions):
            self._neurons(hidden_ranges(self._space.head, region))
        self._scores = {place: self._score(place) for place in positions}
        self.margin = -1  # until there is a condition
        self._rooms: dict[Halfspace, Fraction] = {}
        self._choices: dict[int, int] = {}
        self._required: set[tuple[int, int | None]] = set()

    def _new(self, name: str, ends: Range, binary: bool = False) -> int:
        """Add a column; its index."""
        self.columns.append(ExactColumn(name, *ends, binary))
        return len(self.columns) - 1

    def _add(
        self,
        name: str,
        terms: Iterable[tuple[Fraction, int]],
        sense: Sense,
        bound: Fraction,
    ) -> None:
        """Add a row; factors of one column are added up."""
        totals: dict[int, Fraction] = {}
        for factor, column in terms:
            totals[column] = totals.get(column, ZERO) + factor
        kept = tuple((factor, column) for column, factor in totals.items() if factor)
        self.rows.append(ExactRow(name, kept, sense, bound))

    # --- scores ---

    def _neurons(self, layers: Sequence[Sequence[Range]]) -> None:
        """The hidden layers; the last one completes z to v = (z, y)."""
        inputs = self._linear
        for depth, ranges in enumerate(layers):
            layer = self._space.head.affines[depth]
            outputs = []
            for index, ends in enumerate(ranges):
                weights, bias = layer.row(index)
                before = list(zip(weights.fractions(), inputs, strict=True))
                outputs.append(self._neuron(f"{depth}_{index}", before, bias, ends))
            inputs = outputs
        low, high = after_relu(layers[-1])
        self._linear = [*self._linear, *inputs]
        self._lower = vector([*self._lower.fractions(), *low.fractions()])
        self._upper = vector([*self._upper.fractions(), *high.fractions()])

    def _neuron(
        self, place: str, before: list[tuple[Fraction, int]], bias: Fraction, ends: Range
    ) -> int:
        """The column of a neuron after its ReLU, with ``before + bias`` in front of it."""
        low, high = ends
        after = self._new(f"H_{place}", (max(low, ZERO), max(high, ZERO)))
        if high <= 0:
            return after
        difference = [(ONE, after), *((-factor, column) for factor, column in before)]
        if low >= 0:
            self._add(f"relu_{place}", difference, "=", bias)
            return after
        active = self._new(f"B_{place}", (ZERO, ONE), binary=True)
        self._add(f"relu_{place}_a", difference, ">=", bias)
        self._add(f"relu_{place}_b", [*difference, (-low, active)], "<=", bias - low)
        self._add(f"relu_{place}_c", [(ONE, after), (-high, active)], "<=", ZERO)
        return after

    def _score(self, place: int) -> int:
        """The column of a score and the row that defines it."""
        weights, constant = self._space.score_row(place)
        column = self._new(f"Y_{place}", self._range(weights, constant))
        factors = weights.fractions()[: len(self._linear)]
        terms = list(zip(factors, self._linear, strict=True))
        self._add(f"score_{place}", [*terms, (-ONE, column)], "=", -constant)
        return column

    def _range(self, weights: Vector, constant: Fraction) -> Range:
        """Bounds of ``weights · v + constant``, rounded outward."""
        used = Vector(weights.numerators[: len(self._linear)], weights.denominator)
        return outward(row_range(used, constant, self._lower, self._upper))

    # --- the condition ---

    def _terms(self, literal: Halfspace) -> list[tuple[Fraction, int]]:
        """A comparison over columns."""
        return [(factor, self._column(symbol)) for factor, symbol in literal.terms]

    def _column(self, symbol: Symbol) -> int:
        if isinstance(symbol, Coordinate):
            return symbol.index
        return self._scores[self._space.position(symbol)]

    def add_cut(self, cut: Halfspace) -> None:
        """A half-space that bounds the region."""
        self._add(f"cut_{len(self.rows)}", self._terms(cut), ">=", -cut.constant)

    def condition(self, violation: Nnf) -> None:
        """The margin, and the rows that say that the violation holds with it."""
        found = [lit for lit in self._space.literals(violation) if isinstance(lit, Halfspace)]
        ranges = {literal: self._range(*self._space.row(literal)) for literal in found}
        low = min((low for low, _ in ranges.values()), default=ONE)
        high = max((high for _, high in ranges.values()), default=ONE)
        if violation == FALSE:
            low = high = -ONE
        self.margin = self._new("m", (low, high))
        # Without its guard nothing is asked of a literal: m - literal never exceeds this.
        self._rooms = {lit: outward((ZERO, high - least))[1] for lit, (least, _) in ranges.items()}
        if violation not in (TRUE, FALSE):
            self._require(violation, None)

    def _require(self, node: Nnf, guard: int | None) -> None:
        """The node holds with the margin whenever the guard is 1 (always, without a guard)."""
        if (id(node), guard) in self._required:
            return
        self._required.add((id(node), guard))
        match node:
            case Halfspace():
                self._require_literal(node, guard)
            case All(operands):
                for part in operands:
                    self._require(part, guard)
            case Some(operands):
                self._require_count(1, operands, guard)
            case Count(count, operands):
                self._require_count(count, operands, guard)
            case Cone():
                raise BadUsage(f"has({node.concept}) cannot be written in a linear program")

    def _require_literal(self, literal: Halfspace, guard: int | None) -> None:
        terms = [*self._terms(literal), (-ONE, self.margin)]
        bound = -literal.constant
        if guard is not None:
            terms.append((-self._rooms[literal], guard))
            bound -= self._rooms[literal]
        self._add(f"margin_{len(self.rows)}", terms, ">=", bound)

    def _require_count(self, count: int, parts: Sequence[Nnf], guard: int | None) -> None:
        terms = [(ONE, self._choice(part)) for part in parts]
        if guard is None:
            self._add(f"choose_{len(self.rows)}", terms, ">=", Fraction(count))
        else:
            terms.append((-Fraction(count), guard))
            self._add(f"choose_{len(self.rows)}", terms, ">=", ZERO)

    def _choice(self, node: Nnf) -> int:
        """The binary that, when 1, requires the node."""
        if id(node) not in self._choices:
            column = self._new(f"D_{len(self._choices)}", (ZERO, ONE), binary=True)
            self._choices[id(node)] = column
            self._require(node, column)
        return self._choices[id(node)]
