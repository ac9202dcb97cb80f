"""Export suites, run every solver on them, and compare: the tables and plots of the docs.

    python -m conspec.benchmarks.solver_comparison WORK --out docs/comparison \\
        --relu resnet2b/lens --relu resnet4b/lens

Each step is a command that a reader could type; they are printed as they run. Suites and results
stay in WORK, and a second call goes on from there. On hidden layers of 100 ReLUs only those are
asked who decide some of it: z3 and cvc5, exact as they are, do not, and of the MILP solvers that
read our MPS files the fastest stands for all.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conspec.benchmarks.suites.handmade import write_handmade
from conspec.cli.main import main as conspec

OURS = ("conspec", "conspec-spec", "conspec-highs", "conspec-gurobi", "conspec-scip", "conspec-z3")
MILP = ("highs", "scip", "gurobi")
EXACT = ("z3", "cvc5")
ALL = (*OURS, "marabou", *MILP, *EXACT)
RELU = ("conspec", "conspec-highs", "conspec-gurobi", "conspec-scip", "marabou", "gurobi")


@dataclass(frozen=True, slots=True)
class Planned:
    """A suite and who runs on it.

    Attributes:
        name: the folder's name, and the suite's in the tables.
        export: arguments of ``conspec bench export``; none for the handmade suite.
        solvers: names for ``conspec bench run``.
        seconds: time limit of an instance.
    """

    name: str
    export: tuple[str, ...]
    solvers: tuple[str, ...]
    seconds: float


def planned(relu: Sequence[Path]) -> list[Planned]:
    """All suites; one for each bundle with a ReLU head."""
    drawn = _families("strength", "premise", "boolean", "cardinality", "robust", "graded")
    found = [
        Planned("handmade", (), ALL, 20.0),
        Planned("emoji10", ("--lens", "emoji10", "--count", "4"), ALL, 20.0),
        Planned("synthetic-512", ("--synthetic", "512", "--count", "1", *drawn), ALL, 20.0),
        Planned("synthetic-2048", ("--synthetic", "2048", "--count", "1", *drawn), ALL, 20.0),
    ]
    formats = ("--format", "vnnlib", "--format", "milp")
    chosen = ("--count", "3", *formats, *_families("robust", "premise", "graded"))
    found += [
        Planned(path.parent.name, ("--lens", str(path), *chosen), RELU, 60.0) for path in relu
    ]
    return found


def _families(*names: str) -> tuple[str, ...]:
    return tuple(part for name in names for part in ("--family", name))


def make(suite: Planned, folder: Path) -> None:
    """Write the suite, unless it is there."""
    if folder.exists():
        return
    if suite.export:
        call(
            "bench", "export", "--out", str(folder), "--timeout", str(suite.seconds), *suite.export
        )
    else:
        write_handmade(folder)


def call(*arguments: str) -> None:
    """One command of conspec; wrong answers of solvers (exit code 1) are what we are after."""
    sys.stdout.write(f"$ conspec {shlex.join(arguments)}\n")
    sys.stdout.flush()
    code = conspec(list(arguments))
    if code not in (0, 1):
        raise SystemExit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="a folder for suites and results")
    parser.add_argument("--out", type=Path, required=True, help="where tables and plots go")
    parser.add_argument("--relu", type=Path, action="append", default=[], metavar="BUNDLE")
    parser.add_argument("--jobs", type=int, default=1, help="solvers run at a time")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    database = str(options.work / "results.sqlite")
    for suite in planned(options.relu):
        folder = options.work / suite.name
        make(suite, folder)
        names = [part for name in suite.solvers for part in ("--solver", name)]
        limits = ("--timeout", str(suite.seconds), "--jobs", str(options.jobs))
        call("bench", "run", str(folder), *names, *limits, "--out", database)
    call("bench", "compare", database, "--scatter", "conspec,marabou", "--out", str(options.out))


if __name__ == "__main__":
    main()
