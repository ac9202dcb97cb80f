"""The solvers that ``conspec bench run`` knows by name: our engines and the peers.

Our own engines are programs like all others, one process for each instance, so that they pay for
their start, their reading and their exact checks as everybody does.
"""

import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from conspec.benchmarks.runner.adapters import read_adapter
from conspec.benchmarks.runner.process import run_limited
from conspec.benchmarks.runner.recipe import Solver
from conspec.specs.errors import BadUsage, MissingSolver, UnknownName

_VERSION_SECONDS = 120.0
_VERSION_MIB = 4096
_CONSPEC = (sys.executable, "-P", "-m", "conspec.cli.vnn_worker")
_SPEC = (sys.executable, "-P", "-m", "conspec.benchmarks.runner.spec_worker")
_PACKAGES = {"z3": "z3-solver", "highs": "highspy", "gurobi": "gurobipy", "scip": "pyscipopt"}


def _engine(name: str) -> Solver:
    """One of our engines: the process that ``conspec vnn verify`` starts, under our own limits.

    Float types are read as real numbers, as all the other tools do without being asked.
    """
    engine = name.partition("-")[2] or "auto"
    files = ("query={query}", "model={onnx}")
    limits = ("seconds={seconds}", f"engine={engine}", "real=yes")
    packages = ("conspec", *(_PACKAGES[key] for key in (engine,) if key in _PACKAGES))
    extra = "conspec[scip]" if engine == "scip" else "conspec"
    return Solver(name, ("vnnlib1", "vnnlib2"), (*_CONSPEC, *files, *limits), packages, extra)


def _peer(module: str, package: str, query: str, extra: str) -> Solver:
    """A program of `conspec.benchmarks.runner.peers`, named by what is after ``_``."""
    program = (sys.executable, "-m", f"conspec.benchmarks.runner.peers.{module}")
    files = ("{onnx}", "{query}") if query == "vnnlib1" else ("{query}",)
    name = module.rpartition("_")[2]
    return Solver(name, (query,), (*program, *files, "{seconds}"), (package,), extra)


SOLVERS = {
    solver.name: solver
    for solver in (
        *map(
            _engine,
            ("conspec", "conspec-highs", "conspec-gurobi", "conspec-scip", "conspec-z3"),
        ),
        Solver(
            "conspec-spec",
            ("spec",),
            (*_SPEC, "{lens}", "{query}", "{name}", "{seconds}"),
            ("conspec",),
            extra="conspec",
        ),
        _peer("marabou", "maraboupy", "vnnlib1", "conspec[peers]"),
        _peer("smt_z3", "z3-solver", "smt2", "conspec"),
        _peer("smt_cvc5", "cvc5", "smt2", "conspec[peers]"),
        _peer("milp_highs", "highspy", "mps", "conspec"),
        _peer("milp_scip", "pyscipopt", "mps", "conspec[scip]"),
        _peer("milp_gurobi", "gurobipy", "mps", "conspec"),
    )
}


def find_solvers(names: Sequence[str]) -> list[Solver]:
    """Solvers by their names, or by their adapter files (``*.toml``).

    Raises:
        UnknownName: no solver is called so.
        BadFile: an adapter file is not one.
        BadUsage: two are called the same.
    """
    found = [_find(name) for name in names]
    called = [solver.name for solver in found]
    if len(set(called)) < len(called):
        twice = next(name for name in called if called.count(name) > 1)
        raise BadUsage(f"--solver: two solvers are called {twice!r}; each is run once")
    return found


def _find(name: str) -> Solver:
    if name.endswith(".toml"):
        return read_adapter(Path(name))
    if name not in SOLVERS:
        raise UnknownName(
            f"--solver {name}: no such solver; known are {', '.join(SOLVERS)}, and any other "
            "tool by an adapter file NAME.toml"
        )
    return SOLVERS[name]


def version_of(solver: Solver) -> str:
    """What the solver says of its version; empty if it says nothing.

    Raises:
        MissingSolver: a package or the version's program is not there.
    """
    if solver.version:
        return _asked(solver)
    parts = []
    for package in solver.packages:
        try:
            parts.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError as error:
            raise MissingSolver(
                f"solver {solver.name} needs {package}: pip install '{solver.extra}'"
            ) from error
    return parts[0][1] if len(parts) == 1 else ", ".join(" ".join(part) for part in parts)


def _asked(solver: Solver) -> str:
    ended = run_limited(solver.version, _VERSION_SECONDS, _VERSION_MIB)
    if ended.why != "done" or ended.code != 0:
        said = ended.stderr.strip().splitlines()[-1:] or [f"{ended.why}, exit code {ended.code}"]
        raise MissingSolver(
            f"solver {solver.name}: its version command {' '.join(solver.version)!r} failed: "
            f"{said[0][:200]}"
        )
    lines = ended.stdout.strip().splitlines() or ended.stderr.strip().splitlines()
    return lines[0].strip()[:200] if lines else ""
