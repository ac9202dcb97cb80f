"""Our engine on a spec: ``python -m conspec.benchmarks.runner.spec_worker …``.

Arguments: BUNDLE, the folder of a lens bundle; SPECS, a ``.conspec`` file; NAME, one of its specs;
and SECONDS. So our engine decides ``has`` and L2 balls too, which VNN-LIB cannot say. Word and
witness are printed as the peers do it; the witness is X of the instance's other files, exactly.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from time import monotonic
from typing import assert_never

from conspec.benchmarks.runner.peers.smt_answer import main as answer


def solve(bundle: Path, name: str, specs: Path, seconds: float) -> tuple[str, list[Fraction]]:
    """conspec's answer and its X.

    Raises:
        ConspecError: the files are at fault, or there is no such spec.
    """
    from conspec.benchmarks.runner.spec_query import inputs_of, read_query
    from conspec.specs.formula import Not
    from conspec.verifier.decide import Limits, verify
    from conspec.verifier.verdict import Proved, Reason, Unknown, Violated

    deadline = monotonic() + seconds
    query = read_query(bundle, specs, name)
    # Equal to the spec, but no implication: whether a premise can hold at all is not asked.
    spec = replace(query.spec, body=Not(Not(query.spec.body)))
    left = max(deadline - monotonic(), 0.01)
    verdict = verify(replace(query, spec=spec), "auto", Limits(left))
    match verdict:
        case Proved():
            return "unsat", []
        case Violated(witness):
            return "sat", inputs_of(query.region, witness).fractions()
        case Unknown(reason, detail):
            print(f"{reason.value} {detail}".strip(), file=sys.stderr)
            return "timeout" if reason is Reason.TIME_LIMIT else "unknown", []
        case _:
            assert_never(verdict)


def main(arguments: Sequence[str]) -> int:
    """Print the answer and a witness; the exit code is 1 for an error."""
    bundle, specs, name, seconds = arguments
    return answer(partial(solve, Path(bundle), name), (specs, seconds))


if __name__ == "__main__":
    sys.set_int_max_str_digits(0)  # exact numbers can be long
    sys.exit(main(sys.argv[1:]))
