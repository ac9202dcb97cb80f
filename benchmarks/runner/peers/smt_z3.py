"""z3: ``python -m conspec.benchmarks.runner.peers.smt_z3 FILE.smt2 SECONDS``.

The solver is the one that z3 makes for the logic of the file. On the queries that were
tried it was as fast as z3's default solver, or faster, and so was it as z3's own program, but for
Python's start of 0.2 s.
"""

import re
import sys
from fractions import Fraction
from pathlib import Path

from conspec.benchmarks.runner.peers.smt_answer import main

_LOGIC = re.compile(r"^\(set-logic (\w+)\)", re.MULTILINE)
_INPUT = re.compile(r"^\(declare-const (X_\d+) Real\)", re.MULTILINE)


def solve(path: Path, seconds: float) -> tuple[str, list[Fraction]]:
    """z3's answer and its X."""
    import z3

    text = path.read_text(encoding="ascii")
    logic = _LOGIC.search(text)
    solver = z3.SolverFor(logic.group(1)) if logic else z3.Solver()
    solver.set("timeout", max(1, int(seconds * 1000)))
    solver.add(z3.parse_smt2_string(text))
    word = str(solver.check())
    if word == "unknown" and solver.reason_unknown() in ("timeout", "canceled"):
        return "timeout", []
    if word != "sat":
        return word, []
    model = solver.model()
    found = [model.eval(z3.Real(x), model_completion=True) for x in _INPUT.findall(text)]
    if not all(z3.is_rational_value(value) for value in found):
        return word, []
    pairs = [(value.numerator_as_long(), value.denominator_as_long()) for value in found]
    return word, [Fraction(top, bottom) for top, bottom in pairs]


if __name__ == "__main__":
    sys.set_int_max_str_digits(0)  # z3's numbers can be long
    sys.exit(main(solve, sys.argv[1:]))
