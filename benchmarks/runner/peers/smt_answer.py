"""What the SMT peers share: their command line, and rational witnesses."""

import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from time import monotonic

from conspec.benchmarks.runner.peers.marabou import quiet_output
from conspec.encodings.decimals import decimal_text, rational_text

Solve = Callable[[Path, float], tuple[str, list[Fraction]]]
"""File and seconds to a word and, for sat, the inputs X; no inputs if they are not rational."""


def witness_text(inputs: Sequence[Fraction]) -> str:
    """A witness of VNN-LIB 1.0, with decimals where they are finite, else quotients.

    >>> witness_text([Fraction(1, 2), Fraction(-1, 3)])
    '((X_0 0.5)\\n(X_1 -1/3))'
    """
    texts = [decimal_text(value) or rational_text(value) for value in inputs]
    return "(" + "\n".join(f"(X_{index} {text})" for index, text in enumerate(texts)) + ")"


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
