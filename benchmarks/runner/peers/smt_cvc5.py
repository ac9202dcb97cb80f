"""cvc5: ``python -m conspec.benchmarks.runner.peers.smt_cvc5 FILE.smt2 SECONDS``.

Its options are its defaults. Those that its authors chose for QF_LRA in SMT-COMP (soi-simplex, no
restricted pivots, new propagation) were as fast on the queries that were tried.
"""

import sys
from fractions import Fraction
from pathlib import Path

from conspec.benchmarks.runner.peers.smt_answer import main
from conspec.specs.errors import BadFile, MissingSolver


def solve(path: Path, seconds: float) -> tuple[str, list[Fraction]]:
    """cvc5's answer and its X.

    Raises:
        MissingSolver: cvc5 is not installed.
        BadFile: cvc5 refuses a command, or there is no check-sat.
    """
    try:
        import cvc5
    except ImportError as error:
        raise MissingSolver("cvc5 is not installed: pip install 'conspec[peers]'") from error
    solver = cvc5.Solver(cvc5.TermManager())
    solver.setOption("tlimit-per", str(max(1, int(seconds * 1000))))
    parser = cvc5.InputParser(solver)
    parser.setFileInput(cvc5.InputLanguage.SMT_LIB_2_6, str(path))
    symbols = parser.getSymbolManager()
    while not (command := parser.nextCommand()).isNull():
        if command.getCommandName() != "check-sat":
            said = str(command.invoke(solver, symbols) or "")
            if said.startswith(("(error", "unsupported")):
                raise BadFile(f"{path}: cvc5 says {said.strip()[:200]}")
            continue
        result = solver.checkSat()
        if result.isSat():
            terms = [term for term in symbols.getDeclaredTerms() if _is_input(str(term))]
            terms.sort(key=lambda term: int(str(term)[2:]))
            values = [solver.getValue(term) for term in terms]
            rational = all(value.isRealValue() for value in values)
            return "sat", [Fraction(v.getRealValue()) for v in values] if rational else []
        if result.isUnsat():
            return "unsat", []
        timeout = result.getUnknownExplanation() == cvc5.UnknownExplanation.TIMEOUT
        return "timeout" if timeout else "unknown", []
    raise BadFile(f"{path}: no check-sat")


def _is_input(name: str) -> bool:
    return name.startswith("X_") and name[2:].isdigit()


if __name__ == "__main__":
    sys.set_int_max_str_digits(0)  # its numbers can be long
    sys.exit(main(solve, sys.argv[1:]))
