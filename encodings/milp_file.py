"""The mixed-integer linear program of a query as files: MPS, LP, and its exact numbers as JSON.

MPS and LP readers round decimals to float64, so both files hold each number's nearest float64,
written so that reading gives that float64 again; a factor that is nearest to 0 is left out. The
JSON beside them holds the rationals.

MPS is the free format, in the forms that HiGHS, SCIP and Gurobi read alike: no RANGES, explicit
bounds for every column, binaries with BV between integer markers, ``OBJSENSE MAX``. The objective
row is called ``margin_strict``, ``margin_closed`` or ``margin_mixed``, which says how the optimum
is to be read (`exact_milp`) even where comments are lost.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from math import isinf

from conspec.encodings.decimals import rational_text
from conspec.encodings.exact import nearest
from conspec.encodings.exact_milp import ExactColumn, ExactMilp, ExactRow, milp_of
from conspec.specs.errors import BadUsage

__all__ = ["ExactMilp", "exact_json", "lp_text", "milp_of", "mps_text"]

LINE = 200
"""Characters of a line of an LP file; CPLEX reads 560."""


def mps_text(milp: ExactMilp) -> str:
    """The program as MPS in free format.

    Raises:
        BadUsage: a number is beyond float64.
    """
    goal = f"margin_{milp.comparisons}"
    letters = {">=": "G", "<=": "L", "=": "E"}
    lines = [
        *(f"* {note}".rstrip() for note in milp.notes),
        "NAME conspec",
        "OBJSENSE",
        "    MAX",
        "ROWS",
        f" N  {goal}",
        *(f" {letters[row.sense]}  {row.name}" for row in milp.rows),
        "COLUMNS",
        *_mps_columns(milp, goal),
        "RHS",
        *(f"    RHS {row.name} {_float(row.bound)}" for row in milp.rows if row.bound),
        "BOUNDS",
        *(line for column in milp.columns for line in _mps_bounds(column)),
        "ENDATA",
    ]
    return "\n".join(lines) + "\n"


def _mps_columns(milp: ExactMilp, goal: str) -> Iterator[str]:
    """One line for each factor, column by column."""
    entries: list[list[tuple[str, str]]] = [[] for _ in milp.columns]
    entries[milp.margin].append((goal, "1.0"))
    for row in milp.rows:
        for text, place in _factors(row):
            entries[place].append((row.name, text))
    markers = 0
    inside = False
    for column, found in zip(milp.columns, entries, strict=True):
        if column.binary != inside:
            yield f"    MARKER_{markers} 'MARKER' '{'INTORG' if column.binary else 'INTEND'}'"
            markers, inside = markers + 1, column.binary
        # A column without any factor exists only if it is named here.
        for name, text in found or [(goal, "0.0")]:
            yield f"    {column.name} {name} {text}"
    if inside:
        yield f"    MARKER_{markers} 'MARKER' 'INTEND'"


def _mps_bounds(column: ExactColumn) -> list[str]:
    """The bounds of a column."""
    if column.binary:
        return [f" BV BND {column.name}"]
    low, high = _float(column.lower), _float(column.upper)
    if low == high:
        return [f" FX BND {column.name} {low}"]
    return [f" LO BND {column.name} {low}", f" UP BND {column.name} {high}"]


def lp_text(milp: ExactMilp) -> str:
    """The program in the LP format of CPLEX, with the numbers of `mps_text`.

    Raises:
        BadUsage: a number is beyond float64.
    """
    bounds = []
    for column in milp.columns:
        low, high = _float(column.lower), _float(column.upper)
        if low == high:
            bounds.append(f" {column.name} = {low}")
        elif not column.binary:
            bounds.append(f" {low} <= {column.name} <= {high}")
    lines = [
        *(f"\\ {note}".rstrip() for note in milp.notes),
        "Maximize",
        f" margin_{milp.comparisons}: {milp.columns[milp.margin].name}",
        "Subject To",
        *(line for row in milp.rows for line in _lp_row(milp.columns, row)),
        "Bounds",
        *bounds,
    ]
    binaries = [column.name for column in milp.columns if column.binary]
    if binaries:
        lines += ["Binaries", *_wrapped(binaries)]
    return "\n".join([*lines, "End"]) + "\n"


def _lp_row(columns: Sequence[ExactColumn], row: ExactRow) -> Iterator[str]:
    """A row on as many lines as it needs."""
    terms = []
    for text, place in _factors(row):
        sign, size = ("-", text[1:]) if text.startswith("-") else ("+", text)
        terms.append(f"{sign} {size} {columns[place].name}")
    terms = terms or [f"+ 0.0 {columns[0].name}"]
    yield from _wrapped([f"{row.name}:", *terms, f"{row.sense} {_float(row.bound)}"])


def _wrapped(words: Iterable[str]) -> Iterator[str]:
    """Words on lines that are not too long."""
    line = ""
    for word in words:
        if line and len(line) + len(word) >= LINE:
            yield line
            line = ""
        line += f" {word}"
    if line:
        yield line


def _factors(row: ExactRow) -> Iterator[tuple[str, int]]:
    """Factors as floats, and their columns; without those that are nearest to 0."""
    for factor, place in row.terms:
        text = _float(factor)
        if float(text) != 0.0:
            yield text, place


def _float(value: Fraction) -> str:
    """The nearest float64, written so that it is read back as such."""
    found = nearest(value.numerator, value.denominator)
    if isinf(found):
        raise BadUsage("a number of this query is beyond float64, which MPS and LP files hold")
    return repr(found + 0.0)  # -0.0 becomes 0.0


def exact_json(milp: ExactMilp) -> str:
    """The same program with every number as a rational ``p/q``."""
    names = [column.name for column in milp.columns]
    document = {
        "format": "conspec-milp",
        "version": 1,
        "notes": list(milp.notes),
        "maximise": names[milp.margin],
        "comparisons": milp.comparisons,
        "columns": [
            {
                "name": column.name,
                "lower": rational_text(column.lower),
                "upper": rational_text(column.upper),
                "binary": column.binary,
            }
            for column in milp.columns
        ],
        "rows": [
            {
                "name": row.name,
                "terms": {names[place]: rational_text(factor) for factor, place in row.terms},
                "sense": row.sense,
                "bound": rational_text(row.bound),
            }
            for row in milp.rows
        ],
    }
    return json.dumps(document, indent=1, ensure_ascii=True) + "\n"
