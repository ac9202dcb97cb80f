"""Marabou from PyPI: ``python -m conspec.benchmarks.runner.peers.marabou ONNX VNNLIB SECONDS``.

Network and property are read by Marabou's own readers. Where its reader of properties gives up
(strict comparisons, ``and`` and ``or`` nested deeper than one disjunction of conjunctions), the
same is said through its API, as a disjunction of conjunctions, strict comparisons as non-strict
ones, for it has no others. A ``sat`` that is then a tie by Marabou's own values is ``unknown``: it
was asked about slightly more.

Its options are its defaults with one worker, since solvers are compared on one core: other rules
for splitting and LP tightening after splits were no faster on the ReLU heads that were tried, and
bounds by ``sbt`` were slower. Solving by MILP needs a build with Gurobi, which the wheel is not.
The witness is printed as Marabou gives it, each float exactly.

One limit of Marabou 2.0.0 is left as it is: of several bounds of an input its reader takes the last
one.
"""

import math
import sys
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from conspec.benchmarks.runner.peers.printing import quiet_output, witness_text
from conspec.specs.errors import BadUsage, MissingSolver

MOST_DISJUNCTS = 4_096
"""Conjunctions in a property that is given through the API."""
_WORDS = {"sat": "sat", "unsat": "unsat", "TIMEOUT": "timeout", "UNKNOWN": "unknown"}


def solve(network: Path, prop: Path, seconds: float) -> tuple[str, list[float]]:
    """Marabou's answer, and for ``sat`` its inputs [n]; ``error`` for what it has no word for.

    Raises:
        MissingSolver: maraboupy is not installed.
    """
    try:
        from maraboupy import Marabou, MarabouCore
    except ImportError as error:
        raise MissingSolver("marabou needs maraboupy: pip install 'conspec[peers]'") from error
    read = Marabou.read_onnx(str(network))
    query, is_strict = read.getInputQuery(), None
    try:
        MarabouCore.loadProperty(query, str(prop))
    except RuntimeError as error:
        print(f"through the API, since its reader says: {error}", file=sys.stderr)
        read = Marabou.read_onnx(str(network))
        is_strict = _state(read, network, prop)
        query = read.getInputQuery()
    limit = max(1, math.floor(seconds))  # whole seconds; what is over the limit is killed
    options = Marabou.createOptions(numWorkers=1, timeoutInSeconds=limit, verbosity=0)
    answer, values, _ = MarabouCore.solve(query, options, "")
    if answer == "sat" and is_strict is not None and not is_strict(values):
        return "unknown", []
    inputs = [int(name) for variables in read.inputVars for name in variables.ravel()]
    return _WORDS.get(answer, "error"), [values[name] for name in inputs if answer == "sat"]


Values = Mapping[int, float]


def _state(read: Any, network: Path, prop: Path) -> Callable[[Values], bool]:
    """Add a property to a MarabouNetwork by its API.

    Returns:
        Whether values of its variables satisfy the strict comparisons of some conjunction.

    Raises:
        BadUsage: as a disjunction of conjunctions it is too long.
    """
    from maraboupy import MarabouCore, MarabouUtils

    from conspec.encodings.boxed import over_box
    from conspec.encodings.connectives import disjuncts, without_counts
    from conspec.encodings.vnnlib_problem import read_problem
    from conspec.encodings.vnnlib_property import query_of
    from conspec.specs.rewrite import Halfspace

    query = query_of(*read_problem(prop, network))
    found = disjuncts(without_counts(query.constrained), MOST_DISJUNCTS)
    if found is None:
        raise BadUsage(f"more than {MOST_DISJUNCTS} conjunctions")
    inputs = [int(name) for variables in read.inputVars for name in variables.ravel()]
    outputs = [int(name) for variables in read.outputVars for name in variables.ravel()]
    box = over_box(query).region
    lower, upper = box.lower.floats().tolist(), box.upper.floats().tolist()
    for name, low, high in zip(inputs, lower, upper, strict=True):
        read.setLowerBound(name, low)
        read.setUpperBound(name, high)

    def terms(literal: Halfspace) -> list[tuple[float, int]]:
        places = [(float(factor), query.space.position(symbol)) for factor, symbol in literal.terms]
        return [(factor, [*outputs, *inputs][place]) for factor, place in places]

    def equation(literal: Halfspace) -> Any:
        row = MarabouUtils.Equation(MarabouCore.Equation.GE)
        for factor, name in terms(literal):
            row.addAddend(factor, name)
        row.setScalar(float(-literal.constant))
        return row

    sides = [[part for part in side if isinstance(part, Halfspace)] for side in found]
    if len(sides) == 1:
        for literal in sides[0]:
            read.addEquation(equation(literal))
    else:
        read.addDisjunctionConstraint([[equation(part) for part in side] for side in sides])

    def is_above(literal: Halfspace, values: Values) -> bool:
        total = math.fsum(factor * values[name] for factor, name in terms(literal))
        return total + float(literal.constant) > 0

    return lambda values: any(
        all(is_above(part, values) for part in side if part.strict) for side in sides
    )


def main(arguments: list[str]) -> int:
    """Print the answer; the exit code is 1 for an error."""
    network, prop, seconds = arguments
    try:
        with quiet_output():
            answer, values = solve(Path(network), Path(prop), float(seconds))
    except Exception as error:  # Marabou's errors are RuntimeError, KeyError, SystemExit, …
        print("error")
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(answer)
    if answer == "sat":
        print(witness_text([Fraction(value) for value in values]))
    return int(answer == "error")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
