"""SCIP as a MILP engine, when pyscipopt is installed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from conspec.encodings.milp import INFINITY, Answer, Column, Row, Status
from conspec.specs.errors import MissingSolver

_NO_GOAL = 1e99  # SCIP_INVALID, the parameter's default


class Scip:
    """A SCIP model that grows and shrinks at its end."""

    def __init__(self) -> None:
        """Start an empty model.

        Raises:
            MissingSolver: pyscipopt is not installed.
        """
        try:
            import pyscipopt
        except ImportError as error:
            raise MissingSolver(
                "SCIP is not installed; `pip install 'conspec[scip]'` brings it, or use "
                "--engine highs"
            ) from error
        self._api = pyscipopt
        self._model = pyscipopt.Model()
        self._model.hideOutput()
        self._model.setParam("limits/gap", 0.0)
        # With presolving, SCIP 10.0 calls a maximum of -0.001 optimal where 5.8e-6 is reached.
        self._model.setParam("presolving/maxrounds", 0)
        self._variables: list[Any] = []
        self._constraints: list[Any] = []

    def add_columns(self, columns: Sequence[Column]) -> None:
        """Append variables."""
        for column in columns:
            kind = "B" if column.integer else "C"
            self._variables.append(self._model.addVar(lb=column.lower, ub=column.upper, vtype=kind))

    def add_rows(self, rows: Sequence[Row]) -> None:
        """Append constraints."""
        for row in rows:
            pairs = zip(row.columns, row.values, strict=True)
            terms = self._api.quicksum(float(v) * self._variables[i] for i, v in pairs)
            if row.lower == row.upper:
                self._constraints.append(self._model.addCons(terms == float(row.lower)))
            elif row.upper == INFINITY:
                self._constraints.append(self._model.addCons(terms >= float(row.lower)))
            else:
                self._constraints.append(self._model.addCons(terms <= float(row.upper)))

    def drop(self, columns: int, rows: int) -> None:
        """Remove the last variables and constraints."""
        self._model.freeTransform()
        for _ in range(rows):
            self._model.delCons(self._constraints.pop())
        for _ in range(columns):
            self._model.delVar(self._variables.pop())

    def maximise(
        self, objective: Sequence[tuple[int, float]], seconds: float, goal: float = INFINITY
    ) -> Answer:
        """Maximise a linear objective, until a point with ``goal`` or more is found."""
        self._model.freeTransform()
        terms = self._api.quicksum(value * self._variables[place] for place, value in objective)
        self._model.setObjective(terms, "maximize")
        self._model.setParam("limits/time", seconds)
        self._model.setParam("limits/primal", goal if goal < INFINITY else _NO_GOAL)
        self._model.optimize()
        return self._answer()

    def _answer(self) -> Answer:
        """What the run gave."""
        word = self._model.getStatus()
        statuses = {
            "optimal": Status.OPTIMAL,
            "infeasible": Status.INFEASIBLE,
            "timelimit": Status.TIME_LIMIT,
            "primallimit": Status.GOAL,
        }
        status = statuses.get(word, Status.FAILED)
        bound = INFINITY
        if status in (Status.OPTIMAL, Status.TIME_LIMIT, Status.GOAL):
            bound = float(self._model.getDualbound())
        point = None
        if self._model.getNSols() > 0:
            best = self._model.getBestSol()
            point = np.array([best[variable] for variable in self._variables])
        return Answer(status, bound, point, f"SCIP: {word}")
