"""Suite throughput: all concept pairs as matrices, beside one solver query per spec.

The suite is every ordered concept pair × class × five scales with the premise ``predict``. conspec
decides all of it (``verify_pairs``, then ``verify_suite`` for what stays open), certificates
included; each solver is asked the same specs one by one, on a seeded sample, in its best fair
configuration: exact rows given as matrices, no output, the model of a region kept where that is
faster. Ratios are of the solver's median time per query to conspec's time per spec, in this run.

Run by ``python -m conspec.benchmarks.speed``.
"""

import random
import statistics
from collections.abc import Callable
from fractions import Fraction
from time import perf_counter
from typing import Any

import numpy as np

from conspec.encodings.query import space_of
from conspec.encodings.regions import focus_box
from conspec.encodings.rounding import Floats
from conspec.encodings.scores import ScoreSpace
from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.verifier.checker import check_line
from conspec.verifier.checker_files import Bundle
from conspec.verifier.decide import verify_suite
from conspec.verifier.pairs import PairVerdicts, verify_pairs
from conspec.verifier.results import Result, to_json
from conspec.verifier.verdict import Proved, Trust, Violated

SCALES = tuple(Fraction(text) for text in ("0.1", "0.3", "0.5", "1", "2"))
Query = tuple[Floats, Floats, Floats, Floats]
"""Rows [K, n] and offsets [K] that a violation satisfies, and bounds [n], [n] of the region."""


def conspec_seconds(lens: Lens, space: ScoreSpace) -> tuple[float, dict[str, int]]:
    """Wall-clock time for the whole suite with certificates, and how it came out."""
    start = perf_counter()
    found = list(verify_pairs(lens, space, SCALES))
    certificates = [
        verdicts.certificate(int(scale), int(pair))
        for verdicts in found
        for scale, pair in np.argwhere(verdicts.proved)
    ]
    rest = tuple(
        verdicts.spec(int(scale), int(pair), space)
        for verdicts in found
        for scale, pair in np.argwhere(verdicts.open)
    )
    later = list(verify_suite(f.Suite(rest), lens))
    seconds = perf_counter() - start
    proved = len(certificates) + sum(isinstance(r.verdict, Proved) for r in later)
    violated = sum(int(v.violated.sum()) for v in found)
    violated += sum(isinstance(r.verdict, Violated) for r in later)
    total = sum(v.proved.size for v in found)
    return seconds, {
        "specs": total,
        "proved": proved,
        "violated": violated,
        "unknown": total - proved - violated,
        "left to verify_suite": len(rest),
    }


def check_milliseconds(lens: Lens, space: ScoreSpace, found: list[PairVerdicts]) -> list[float]:
    """Times to check certificates of the matrices exactly, one by one.

    Without the first, which also builds the parser: that happens once in a run of the checker.
    """
    bundle = Bundle(lens.root)
    _ = bundle.hash
    times = []
    for verdicts in found:
        for scale, pair in np.argwhere(verdicts.proved)[:50]:
            spec = verdicts.spec(int(scale), int(pair), space)
            proof = Proved(Trust.CERTIFIED, certificate=verdicts.certificate(int(scale), int(pair)))
            line = to_json(Result(spec, "auto", proof, 0.0, None, "pairs"), lens)
            start = perf_counter()
            if check_line(line, bundle) != "proof":
                raise RuntimeError(f"the checker did not accept {spec.name}")
            times.append(1e3 * (perf_counter() - start))
    return times[1:]


def sample(lens: Lens, space: ScoreSpace, count: int, seed: int) -> list[Query]:
    """Random specs of the suite as what a solver needs."""
    chance = random.Random(seed)
    weight, bias = space.head.affines[0].floats
    rows, offsets = space.concept_map.floats
    queries = []
    for _ in range(count):
        place = chance.randrange(len(space.classes))
        a, b = chance.sample(range(len(space.concepts)), 2)
        rivals = [k for k in range(len(space.classes)) if k != place]
        lower, upper = focus_box(lens, space.classes[place], chance.choice(SCALES)).outer
        matrix = np.vstack([weight[place] - weight[rivals], rows[b] - rows[a]])
        offset = np.append(bias[place] - bias[rivals], offsets[b] - offsets[a])
        queries.append((matrix, offset, lower, upper))
    return queries


def ask_z3(query: Query) -> None:
    """One exact query: is there a point of the box with all rows non-negative?"""
    import z3

    def exact(value: float) -> Any:
        return z3.Q(*float(value).as_integer_ratio())

    matrix, offset, lower, upper = query
    solver = z3.SolverFor("QF_LRA")
    variables = [z3.Real(f"z{i}") for i in range(len(lower))]
    for variable, low, high in zip(variables, lower, upper, strict=True):
        solver.add(variable >= exact(low), variable <= exact(high))
    for place, (row, shift) in enumerate(zip(matrix, offset, strict=True)):
        value = z3.Sum([exact(g) * v for g, v in zip(row, variables, strict=True)]) + exact(shift)
        solver.add(value > 0 if place < len(matrix) - 1 else value >= 0)
    solver.check()


def ask_scip(query: Query) -> None:
    """The same as a linear program that maximises the violated pair's difference."""
    import pyscipopt

    matrix, offset, lower, upper = query
    model = pyscipopt.Model()
    model.hideOutput()
    bounds = zip(lower.tolist(), upper.tolist(), strict=True)
    variables = [model.addVar(lb=low, ub=high) for low, high in bounds]
    for row, shift in zip(matrix[:-1].tolist(), offset[:-1].tolist(), strict=True):
        terms = zip(row, variables, strict=True)
        model.addCons(pyscipopt.quicksum(g * v for g, v in terms) >= -shift)
    goal = zip(matrix[-1].tolist(), variables, strict=True)
    model.setObjective(pyscipopt.quicksum(g * v for g, v in goal), "maximize")
    model.optimize()


def gurobi_asker() -> Callable[[Query], None]:
    """The same in Gurobi's matrix interface; the licence is checked out once."""
    import gurobipy

    environment = gurobipy.Env(params={"OutputFlag": 0, "LogToConsole": 0, "Threads": 1})

    def ask(query: Query) -> None:
        matrix, offset, lower, upper = query
        with gurobipy.Model(env=environment) as model:
            z = model.addMVar(len(lower), lb=lower, ub=upper)
            model.addConstr(matrix[:-1] @ z >= -offset[:-1])
            model.setObjective(matrix[-1] @ z, gurobipy.GRB.MAXIMIZE)
            model.optimize()

    return ask


def gurobi_kept_asker(queries: list[Query]) -> Callable[[Query], None]:
    """Gurobi with one model kept: only bounds, rows and objective of the next query are set."""
    import gurobipy

    environment = gurobipy.Env(params={"OutputFlag": 0, "LogToConsole": 0, "Threads": 1})
    matrix, offset, lower, upper = queries[0]
    model = gurobipy.Model(env=environment)
    z = model.addMVar(len(lower), lb=lower, ub=upper)
    model.addConstr(matrix[:-1] @ z >= -offset[:-1])
    model.update()

    def ask(query: Query) -> None:
        # The premise and the box of one region stay, as they would in a suite sorted by region.
        model.setObjective(query[0][-1] @ z, gurobipy.GRB.MAXIMIZE)
        model.optimize()

    return ask


def medians(queries: list[Query]) -> dict[str, float]:
    """Median milliseconds per query of each solver."""
    import importlib.util

    askers: dict[str, Callable[[Query], None]] = {
        "z3 (exact), a query per spec": ask_z3,
        "Gurobi, a model per spec": gurobi_asker(),
        "Gurobi, one model kept per region": gurobi_kept_asker(queries),
    }
    if importlib.util.find_spec("pyscipopt"):
        askers["SCIP, a model per spec"] = ask_scip
    found = {}
    for name, ask in askers.items():
        ask(queries[0])
        times = []
        for query in queries:
            start = perf_counter()
            ask(query)
            times.append(1e3 * (perf_counter() - start))
        found[name] = statistics.median(times)
    return found


def measure(lens: Lens, sample_size: int = 60, repeat: int = 5) -> dict[str, Any]:
    """The whole comparison on one bundle."""
    import torch

    space = space_of(lens)
    threads = torch.get_num_threads()
    # The matrices of one class are small: a second thread costs more than it brings.
    torch.set_num_threads(1)
    runs = [conspec_seconds(lens, space) for _ in range(repeat)]
    torch.set_num_threads(threads)
    seconds = statistics.median(seconds for seconds, _ in runs)
    outcome = runs[0][1]
    each = 1e3 * seconds / outcome["specs"]
    solvers = medians(sample(lens, space, sample_size, seed=0))
    checks = check_milliseconds(lens, space, list(verify_pairs(lens, space, SCALES)))
    return {
        "lens": lens.name,
        "dimensions": lens.dim,
        "classes": len(lens.classes),
        "concepts": len(lens.concepts),
        "scales": [str(scale) for scale in SCALES],
        "outcome": outcome,
        "seconds": seconds,
        "ms_per_spec": each,
        "ms_per_query": solvers,
        "ratio": {name: value / each for name, value in solvers.items()},
        "ms_per_check": statistics.mean(checks),
    }
