"""Gurobi: ``python -m conspec.benchmarks.runner.peers.milp_gurobi FILE.mps SECONDS``.

The licence that comes with gurobipy takes 2,000 variables and 2,000 rows; more is an error.
"""

import sys
from pathlib import Path

from conspec.benchmarks.runner.peers.milp_answer import BELOW, ENOUGH, Found, inputs_of, main


def solve(path: Path, seconds: float) -> Found:
    """Gurobi's best margin and bound."""
    import gurobipy

    environment = gurobipy.Env(params={"OutputFlag": 0, "LogToConsole": 0})
    model = gurobipy.read(str(path), env=environment)
    parameters = {"Threads": 1, "MIPGap": 0.0, "MIPGapAbs": 0.0, "TimeLimit": seconds}
    for name, value in {**parameters, "BestObjStop": ENOUGH, "BestBdStop": BELOW}.items():
        model.setParam(name, value)
    model.optimize()
    codes, status = gurobipy.GRB, model.Status
    if status == codes.INFEASIBLE:  # the region is empty
        return Found(None, float("-inf"))
    margin, inputs = None, []
    if model.SolCount:
        margin = float(model.ObjVal)
        variables = model.getVars()
        values = {variable.VarName: variable.X for variable in variables}
        inputs = inputs_of(values, {v.VarName: (v.LB, v.UB) for v in variables})
    bound = float("inf")
    if status == codes.OPTIMAL and margin is not None:
        bound = margin
    elif model.IsMIP:
        bound = float(model.ObjBound)
    why = {codes.OPTIMAL: "done", codes.TIME_LIMIT: "timeout"}
    return Found(margin, bound, inputs, why.get(status, f"status {status}"))


if __name__ == "__main__":
    sys.exit(main(solve, sys.argv[1:]))
