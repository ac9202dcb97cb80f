"""What the MILP peers share: how a margin becomes an answer, and their command line.

The file's objective row says which comparisons the violation has (`encodings.milp_file`):

* ``margin_strict``: sat if the optimum is > 0, unsat if it is <= 0.
* ``margin_closed``: sat if it is >= 0, unsat if it is < 0.
* ``margin_mixed``: sat if it is > 0, unsat if it is < 0, unknown at exactly 0.

The numbers are compared as the solver reports them: that its tolerances of about 1e-6 can be
larger than a margin is part of what is measured. A search ends as soon as a point has a margin of
`ENOUGH` or the bound is negative; a smaller margin might be the solver's noise, so it goes on
looking for a better point. All solvers run on one thread with no gap allowed, otherwise at their
defaults.
"""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from time import monotonic

from conspec.benchmarks.runner.peers.printing import quiet_output, witness_text
from conspec.specs.errors import BadFile

ENOUGH = 1e-5
"""A margin with which the search ends: ten times the usual feasibility tolerance."""
BELOW = -1e-9
"""A bound with which the search ends."""
_GOAL = re.compile(r"^ +(?:N +)?margin_(strict|closed|mixed)\b", re.MULTILINE)


@dataclass(frozen=True)
class Found:
    """How a solver ended.

    Attributes:
        margin: the best one found; None if there is no point.
        bound: no point has a larger margin, says the solver; ``inf`` if it says nothing.
        inputs: X of the best point [n].
        why: "done", "timeout", or the solver's own word for anything else.
    """

    margin: float | None
    bound: float
    inputs: Sequence[float] = ()
    why: str = "done"


Solve = Callable[[Path, float], Found]


def comparisons_of(path: Path) -> str:
    """Which comparisons the violation of an MPS or LP file has: strict, closed or mixed.

    Raises:
        BadFile: the file does not say so.
    """
    match = _GOAL.search(path.read_text(encoding="ascii"))
    if match is None:
        raise BadFile(f"{path}: no objective called margin_strict, margin_closed or margin_mixed")
    return match.group(1)


def word_of(comparisons: str, found: Found) -> str:
    """The answer that a solver's numbers give."""
    closed = comparisons == "closed"
    if found.margin is not None and (found.margin > 0 or (closed and found.margin == 0)):
        return "sat"
    if found.bound < 0 or (comparisons == "strict" and found.bound == 0):
        return "unsat"
    return "timeout" if found.why == "timeout" else "unknown"


def inputs_of(values: dict[str, float], bounds: dict[str, tuple[float, float]]) -> list[float]:
    """X_0, X_1, … of a point, moved into their bounds."""
    names = [f"X_{index}" for index in range(sum(name.startswith("X_") for name in values))]
    return [min(max(values[name], bounds[name][0]), bounds[name][1]) for name in names]


def main(solve: Solve, arguments: Sequence[str]) -> int:
    """``FILE SECONDS``: print the answer and a witness; the exit code is 1 for an error."""
    start = monotonic()
    try:
        path, seconds = Path(arguments[0]), float(arguments[1])
        with quiet_output():
            comparisons = comparisons_of(path)
            found = solve(path, max(seconds - (monotonic() - start), 0.01))
    except Exception as error:  # solvers raise errors of their own
        print("error")
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    word = word_of(comparisons, found)
    print(word)
    if word == "sat":
        print(witness_text([Fraction(value) for value in found.inputs]))
    elif word == "unknown":
        print(f"{found.why}; margin {found.margin}, bound {found.bound}", file=sys.stderr)
    return 0
