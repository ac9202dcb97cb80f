"""What the SMT peers share: their command line."""

import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from time import monotonic

from conspec.benchmarks.runner.peers.printing import quiet_output, witness_text

Solve = Callable[[Path, float], tuple[str, list[Fraction]]]
"""File and seconds to a word and, for sat, the inputs X; no inputs if they are not rational."""


def main(solve: Solve, arguments: Sequence[str]) -> int:
    """``FILE SECONDS``: print the answer and a witness; the exit code is 1 for an error."""
    start = monotonic()
    try:
        path, seconds = Path(arguments[0]), float(arguments[1])
        with quiet_output():
            word, inputs = solve(path, max(seconds - (monotonic() - start), 0.01))
    except Exception as error:  # solvers raise errors of their own
        print("error")
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(word)
    if word == "sat" and inputs:
        print(witness_text(inputs))
    return 0
