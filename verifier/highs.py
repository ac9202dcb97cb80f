"""HiGHS as a MILP engine."""

from collections.abc import Sequence

import numpy as np

from conspec.encodings.milp import INFINITY, Answer, Column, Row, Status


class Highs:
    """A HiGHS model that grows and shrinks at its end."""

    def __init__(self) -> None:
        """Start an empty model."""
        import highspy

        self._model = highspy.Highs()
        for name, value in (("output_flag", False), ("threads", 1), ("mip_rel_gap", 0.0)):
            self._model.setOptionValue(name, value)
        self._model.changeObjectiveSense(highspy.ObjSense.kMaximize)
        self._integer = highspy.HighsVarType.kInteger
        self._statuses = {
            highspy.HighsModelStatus.kOptimal: Status.OPTIMAL,
            highspy.HighsModelStatus.kInfeasible: Status.INFEASIBLE,
            highspy.HighsModelStatus.kTimeLimit: Status.TIME_LIMIT,
            highspy.HighsModelStatus.kObjectiveTarget: Status.GOAL,
        }

    def add_columns(self, columns: Sequence[Column]) -> None:
        """Append variables."""
        first = self._model.getNumCol()
        for place, column in enumerate(columns, first):
            self._model.addVar(column.lower, column.upper)
            if column.integer:
                self._model.changeColIntegrality(place, self._integer)

    def add_rows(self, rows: Sequence[Row]) -> None:
        """Append constraints."""
        for row in rows:
            # HiGHS refuses a row that names a column twice, and goes on without it.
            places, index = np.unique(np.array(row.columns, dtype=np.int32), return_inverse=True)
            values = np.bincount(index, row.values, len(places)).astype(np.float64)
            self._model.addRow(row.lower, row.upper, len(places), places, values)

    def drop(self, columns: int, rows: int) -> None:
        """Remove the last variables and constraints."""
        height, width = self._model.getNumRow(), self._model.getNumCol()
        if rows:
            last = np.arange(height - rows, height, dtype=np.int32)
            self._model.deleteRows(rows, last)
        if columns:
            last = np.arange(width - columns, width, dtype=np.int32)
            self._model.deleteCols(columns, last)

    def maximise(
        self, objective: Sequence[tuple[int, float]], seconds: float, goal: float = INFINITY
    ) -> Answer:
        """Maximise a linear objective, then clear it."""
        for place, value in objective:
            self._model.changeColCost(place, value)
        # The limit of an LP is for the model's whole life, that of a MILP for one run.
        spent = 0.0 if self._is_mixed() else self._model.getRunTime()
        self._model.setOptionValue("time_limit", spent + max(seconds, 0.01))
        # HiGHS takes no target by default, which for a maximum it writes as minus infinity.
        self._model.setOptionValue("objective_target", goal if goal < INFINITY else -INFINITY)
        self._model.run()
        answer = self._answer()
        for place, _ in objective:
            self._model.changeColCost(place, 0.0)
        return answer

    def _is_mixed(self) -> bool:
        """Whether some variable is an integer."""
        return any(kind == self._integer for kind in self._model.getLp().integrality_)

    def _answer(self) -> Answer:
        """What the run gave."""
        model_status = self._model.getModelStatus()
        status = self._statuses.get(model_status, Status.FAILED)
        info = self._model.getInfo()
        mixed = self._is_mixed()
        bound = float("inf")
        if status is Status.OPTIMAL:
            bound = info.mip_dual_bound if mixed else info.objective_function_value
        elif status in (Status.TIME_LIMIT, Status.GOAL) and mixed:
            bound = info.mip_dual_bound
        solution = self._model.getSolution()
        # primal_solution_status 2 means feasible; without it the values are meaningless.
        point = np.array(solution.col_value) if info.primal_solution_status == 2 else None
        detail = self._model.modelStatusToString(model_status)
        return Answer(status, bound, point, f"HiGHS: {detail}")
