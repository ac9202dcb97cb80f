"""What the peers share: silence on standard output, and witnesses."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction

from conspec.encodings.decimals import decimal_text, rational_text


@contextmanager
def quiet_output() -> Iterator[None]:
    """Send what C++ code prints to standard error; our answer alone goes to standard output."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def witness_text(inputs: Sequence[Fraction]) -> str:
    """A witness of VNN-LIB 1.0, with decimals where they are finite, else quotients.

    >>> witness_text([Fraction(1, 2), Fraction(-1, 3)])
    '((X_0 0.5)\\n(X_1 -1/3))'
    """
    texts = [decimal_text(value) or rational_text(value) for value in inputs]
    return "(" + "\n".join(f"(X_{index} {text})" for index, text in enumerate(texts)) + ")"
