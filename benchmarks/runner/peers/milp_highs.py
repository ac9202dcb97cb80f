"""HiGHS: ``python -m conspec.benchmarks.runner.peers.milp_highs FILE.mps SECONDS``."""

import sys
from pathlib import Path
from typing import Any

from conspec.benchmarks.runner.peers.milp_answer import BELOW, ENOUGH, Found, inputs_of, main
from conspec.specs.errors import BadFile


def solve(path: Path, seconds: float) -> Found:
    """HiGHS's best margin and bound.

    Raises:
        BadFile: HiGHS does not read the file.
    """
    import highspy

    model = highspy.Highs()
    options = {"output_flag": False, "threads": 1, "mip_rel_gap": 0.0, "mip_abs_gap": 0.0}
    for name, value in {**options, "time_limit": seconds}.items():
        model.setOptionValue(name, value)
    if model.readModel(str(path)) == highspy.HighsStatus.kError:
        raise BadFile(f"{path}: HiGHS does not read it")

    def stop(event: Any) -> None:
        # HiGHS has a target for the objective of a MIP, but none for its bound.
        margin, bound = event.data_out.mip_primal_bound, event.data_out.mip_dual_bound
        if margin >= ENOUGH or bound <= BELOW:
            event.interrupt()

    model.cbMipInterrupt.subscribe(stop)
    model.run()
    return _found(model, highspy)


def _found(model: Any, api: Any) -> Found:
    status, info, lp = model.getModelStatus(), model.getInfo(), model.getLp()
    if status == api.HighsModelStatus.kInfeasible:  # the region is empty
        return Found(None, float("-inf"))
    why = {api.HighsModelStatus.kOptimal: "done", api.HighsModelStatus.kTimeLimit: "timeout"}
    mixed = any(kind == api.HighsVarType.kInteger for kind in lp.integrality_)
    optimal = status == api.HighsModelStatus.kOptimal
    bound = info.mip_dual_bound if mixed else float("inf")
    if optimal:
        bound = info.objective_function_value
    margin, inputs = None, []
    if info.primal_solution_status == 2:  # feasible
        margin = info.objective_function_value
        ends = list(zip(lp.col_lower_, lp.col_upper_, strict=True))
        values = dict(zip(lp.col_names_, model.getSolution().col_value, strict=True))
        inputs = inputs_of(values, dict(zip(lp.col_names_, ends, strict=True)))
    return Found(margin, bound, inputs, why.get(status, model.modelStatusToString(status)))


if __name__ == "__main__":
    sys.exit(main(solve, sys.argv[1:]))
