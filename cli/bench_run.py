"""``conspec bench run``: solvers on a suite, under limits, with every counterexample checked."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conspec.cli.console import console, print_json, progress, say, show
from conspec.cli.exits import Exit
from conspec.specs.errors import BadUsage

if TYPE_CHECKING:
    from rich.table import Table

    from conspec.benchmarks.runner.instances import BenchSuite, Instance
    from conspec.benchmarks.runner.judge import Fault
    from conspec.benchmarks.runner.store import Row

MOST_JOBS = 256
MOST_FAULTS = 12
"""That are printed; all of them are in the comparison."""
_REASONED = ("error", "garbage", "unsupported")
_SHORT = {"unsupported": "n/a"}
ANSWERS = ("sat", "unsat", "unknown", "timeout", "memory", "error", "garbage", "unsupported")

SuiteArgument = Annotated[
    Path, typer.Argument(metavar="SUITE", help="A folder of 'bench export' or VNN-COMP, or a CSV.")
]
SolverOption = Annotated[
    list[str] | None,
    typer.Option(
        "--solver",
        metavar="NAME",
        help="A solver, or an adapter file NAME.toml of another tool; may be repeated.",
    ),
]
SecondsOption = Annotated[
    float | None,
    typer.Option("--timeout", metavar="S", help="Seconds for each instance; else the suite's."),
]
MemoryOption = Annotated[
    int, typer.Option("--memory", metavar="MiB", min=1, help="Memory of a solver's processes.")
]
ResultsOption = Annotated[
    Path, typer.Option("--out", metavar="FILE", help="The database, which is added to.")
]
JobsOption = Annotated[
    int,
    typer.Option("--jobs", metavar="N", min=1, max=MOST_JOBS, help="Solvers run at a time."),
]
OnlyOption = Annotated[
    str | None,
    typer.Option("--only", metavar="PATTERN", help="Only instances or families of such names."),
]
AgainOption = Annotated[
    bool, typer.Option("--again", help="Find known results anew, and replace them.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else.")
]


def run(
    suite: SuiteArgument,
    solver: SolverOption = None,
    timeout: SecondsOption = None,
    memory: MemoryOption = 4096,
    out: ResultsOption = Path("results.sqlite"),
    jobs: JobsOption = 1,
    only: OnlyOption = None,
    again: AgainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run solvers on the instances of SUITE, each in a process of its own on one core.

    The limits are hard: at them, all processes of a solver are killed, and what it said does not
    count. A crash, garbage or a lie is a result like others. Every counterexample is checked in
    exact arithmetic. Each result is in the database as soon as it is known; the same command goes
    on where it was stopped. Files that an instance lacks are made from its VNN-LIB, in a folder
    beside the database.

    Our engines are conspec, conspec-highs, conspec-gurobi, conspec-scip and conspec-z3, which read
    VNN-LIB, and conspec-spec, which reads a suite's specs and lens bundle, and so decides has(…)
    and L2 balls too; the peers are marabou, z3, cvc5, highs, scip and gurobi.

    An adapter file runs the commands in it: use only those that you trust.

    The table at the end counts answers (n/a: no format that the solver reads), counterexamples that
    are exact, seconds in all, and the most MiB.

    Exit codes: 0 nothing is wrong, 1 an answer is wrong, a counterexample does not hold, or
    answers contradict each other, 3 bad input.
    """
    from conspec.benchmarks.runner.campaign import Plan, run_plan
    from conspec.benchmarks.runner.instances import read_suite
    from conspec.benchmarks.runner.judge import find_faults
    from conspec.benchmarks.runner.solvers import SOLVERS, find_solvers
    from conspec.benchmarks.runner.store import open_store

    if not solver:
        raise BadUsage(f"--solver is missing; known are {', '.join(SOLVERS)}, and NAME.toml")
    if timeout is not None and not 0 < timeout < 1e7:
        raise BadUsage(f"--timeout {timeout:g}: expected a positive number of seconds")
    if not out.resolve().parent.is_dir():
        raise BadUsage(f"--out {out}: there is no folder {out.parent}")
    solvers = find_solvers(solver)
    found = read_suite(suite)
    wanted = [instance for instance in found.instances if _matches(instance, only)]
    if not wanted:
        raise BadUsage(f"--only {only}: no instance or family has such a name")
    plan = Plan(found, wanted, solvers, timeout, memory, jobs, again)
    with open_store(out) as store, progress() as advance:

        def tell(row: "Row | None", done: int, total: int) -> None:
            advance("running", done, total)

        try:
            rows = run_plan(plan, store, out.resolve().parent / f"{out.name}.files", tell)
        except KeyboardInterrupt:
            say(f"stopped; what was known is in {out}, and the same command goes on from there")
            raise
    faults = find_faults(rows, {instance.name: instance for instance in found.instances})
    if as_json:
        print_json(_document(found, out, rows, faults))
    else:
        show(_table(rows))
        for line in _reasons(rows):
            say(line)
        _shout(faults)
        say(f"wrote {out}; 'conspec bench compare {out}' compares the solvers")
    raise typer.Exit(Exit.VIOLATED if faults else Exit.PROVED)


def _matches(instance: "Instance", pattern: str | None) -> bool:
    names = (instance.name, instance.family)
    return pattern is None or any(fnmatchcase(name, pattern) for name in names)


def _table(rows: "Sequence[Row]") -> "Table":
    """A line for each solver: how often it gave which answer, and its time."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from conspec.report.words import printable

    used = [word for word in ANSWERS if any(row.found.answer == word for row in rows)]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("solver", no_wrap=True)
    for name in (*(_SHORT.get(word, word) for word in used), "exact", "seconds", "MiB"):
        table.add_column(name, justify="right")
    for (solver, _), own in _by_solver(rows):
        counts = Counter(row.found.answer for row in own)
        exact = sum(row.found.witness_check == "exact" for row in own)
        table.add_row(
            printable(solver),
            *(str(counts[word] or "·") for word in used),
            f"{exact}/{counts['sat']}",
            f"{sum(row.found.seconds for row in own):.1f}",
            f"{max(row.found.peak_mib for row in own):.0f}",
        )
    return table


def _reasons(rows: "Sequence[Row]") -> list[str]:
    """One line for each solver's errors and the like, with an example of each reason."""
    from conspec.report.words import printable

    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.found.answer in _REASONED:
            found.setdefault((row.key.solver, row.found.answer), []).append(row)
    lines = []
    for (solver, answer), own in found.items():
        first = own[0]
        text = f"{solver}: {len(own)} {answer}, such as {first.key.instance}: {first.found.detail}"
        lines.append(printable(text))
    return lines


def _by_solver(rows: "Sequence[Row]") -> "Iterator[tuple[tuple[str, str], list[Row]]]":
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.key.solver, row.key.version), []).append(row)
    yield from found.items()


def _shout(faults: "Sequence[Fault]") -> None:
    """Everything that is wrong, in red, on standard output."""
    from rich.text import Text

    from conspec.report.words import printable

    out = console()
    for fault in faults[:MOST_FAULTS]:
        who = ", ".join(fault.solvers) or "the suite"
        line = f"{fault.kind.upper()}: {fault.instance}: {who}: {fault.why}"
        out.print(Text(printable(line), style="bold red"))
    if len(faults) > MOST_FAULTS:
        out.print(Text(f"and {len(faults) - MOST_FAULTS} more; see 'conspec bench compare'"))
    if faults:
        out.print()


def _document(
    suite: "BenchSuite", out: Path, rows: "Sequence[Row]", faults: "Sequence[Fault]"
) -> dict[str, Any]:
    """What ``--json`` prints; witnesses are in the database."""
    results = []
    for row in rows:
        line = {**asdict(row.key), **asdict(row.found)}
        results.append({key: line[key] for key in line if key not in ("witness", "suite_hash")})
    return {
        "suite": suite.name,
        "suite_hash": suite.hash,
        "database": str(out),
        "results": results,
        "faults": [asdict(fault) for fault in faults],
    }
