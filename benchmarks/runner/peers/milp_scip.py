"""SCIP: ``python -m conspec.benchmarks.runner.peers.milp_scip FILE.mps SECONDS``."""

import sys
from pathlib import Path

from conspec.benchmarks.runner.peers.milp_answer import BELOW, ENOUGH, Found, inputs_of, main
from conspec.specs.errors import MissingSolver


def solve(path: Path, seconds: float) -> Found:
    """SCIP's best margin and bound; it runs on one thread unless it is asked otherwise.

    Raises:
        MissingSolver: pyscipopt is not installed.
    """
    try:
        import pyscipopt
    except ImportError as error:
        raise MissingSolver("scip needs pyscipopt: pip install 'conspec[scip]'") from error
    model = pyscipopt.Model()
    model.hideOutput()
    model.readProblem(str(path))
    limits = {"limits/time": seconds, "limits/primal": ENOUGH, "limits/dual": BELOW}
    model.setParams({**limits, "lp/threads": 1})
    model.optimize()
    status = model.getStatus()
    if status == "infeasible":  # the region is empty
        return Found(None, float("-inf"))
    margin, inputs = None, []
    if model.getNSols() > 0:
        best = model.getBestSol()
        margin = model.getSolObjVal(best)
        variables = model.getVars(transformed=False)
        values = {variable.name: best[variable] for variable in variables}
        ends = {v.name: (v.getLbOriginal(), v.getUbOriginal()) for v in variables}
        inputs = inputs_of(values, ends)
    bound = margin if status == "optimal" and margin is not None else model.getDualbound()
    return Found(margin, bound, inputs, {"timelimit": "timeout"}.get(status, status))


if __name__ == "__main__":
    sys.exit(main(solve, sys.argv[1:]))
