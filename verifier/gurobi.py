"""Gurobi as a MILP engine; its bundled licence takes 2,000 variables and 2,000 rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from conspec.encodings.milp import INFINITY, Answer, Column, Row, Status
from conspec.specs.errors import MissingSolver

_TOO_LARGE = 10010  # GRB.Error.SIZE_LIMIT_EXCEEDED


class Gurobi:
    """A Gurobi model that grows and shrinks at its end."""

    def __init__(self) -> None:
        """Start an empty model.

        Raises:
            MissingSolver: no licence is found.
        """
        import gurobipy

        self._api = gurobipy
        try:
            # The banner goes to standard output, so silence it before the environment starts.
            environment = gurobipy.Env(params={"OutputFlag": 0, "LogToConsole": 0})
            self._model = gurobipy.Model("conspec", env=environment)
        except gurobipy.GurobiError as error:
            raise MissingSolver(
                f"Gurobi does not start ({error}); check its licence, or use --engine highs"
            ) from error
        self._model.Params.Threads = 1
        self._model.Params.MIPGap = 0.0
        self._model.ModelSense = gurobipy.GRB.MAXIMIZE
        self._variables: list[Any] = []
        self._constraints: list[Any] = []

    def add_columns(self, columns: Sequence[Column]) -> None:
        """Append variables."""
        for column in columns:
            kind = self._api.GRB.BINARY if column.integer else self._api.GRB.CONTINUOUS
            self._variables.append(self._model.addVar(column.lower, column.upper, vtype=kind))

    def add_rows(self, rows: Sequence[Row]) -> None:
        """Append constraints."""
        for row in rows:
            terms = self._api.LinExpr(row.values, [self._variables[i] for i in row.columns])
            if row.lower == row.upper:
                self._constraints.append(self._model.addConstr(terms == row.lower))
            elif row.upper == INFINITY:
                self._constraints.append(self._model.addConstr(terms >= row.lower))
            else:
                self._constraints.append(self._model.addConstr(terms <= row.upper))

    def drop(self, columns: int, rows: int) -> None:
        """Remove the last variables and constraints."""
        for _ in range(rows):
            self._model.remove(self._constraints.pop())
        for _ in range(columns):
            self._model.remove(self._variables.pop())

    def maximise(
        self, objective: Sequence[tuple[int, float]], seconds: float, goal: float = INFINITY
    ) -> Answer:
        """Maximise a linear objective, until a point with ``goal`` or more is found."""
        terms = [value for _, value in objective]
        self._model.setObjective(
            self._api.LinExpr(terms, [self._variables[place] for place, _ in objective])
        )
        self._model.Params.TimeLimit = seconds
        self._model.Params.BestObjStop = goal
        try:
            self._model.optimize()
        except self._api.GurobiError as error:
            large = error.errno == _TOO_LARGE
            return Answer(Status.TOO_LARGE if large else Status.FAILED, detail=f"Gurobi: {error}")
        return self._answer()

    def _answer(self) -> Answer:
        """What the run gave."""
        codes = self._api.GRB
        statuses = {
            codes.OPTIMAL: Status.OPTIMAL,
            codes.INFEASIBLE: Status.INFEASIBLE,
            codes.TIME_LIMIT: Status.TIME_LIMIT,
            codes.USER_OBJ_LIMIT: Status.GOAL,
        }
        code = self._model.Status
        status = statuses.get(code, Status.FAILED)
        bound = INFINITY
        stopped = status in (Status.TIME_LIMIT, Status.GOAL)
        if status is Status.OPTIMAL or (stopped and self._model.IsMIP):
            bound = float(self._model.ObjBound)
        point = None
        if self._model.SolCount:
            point = np.array(self._model.getAttr("X", self._variables))
        return Answer(status, bound, point, f"Gurobi: status {code}")
