"""Solvers on a whole suite, with the results in a database; a run goes on where one stopped."""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from conspec.benchmarks.runner.execute import SEED, Workplace, solve
from conspec.benchmarks.runner.instances import BenchSuite, Instance
from conspec.benchmarks.runner.machine import describe_machine
from conspec.benchmarks.runner.recipe import Solver
from conspec.benchmarks.runner.solvers import version_of
from conspec.benchmarks.runner.store import Found, Key, Row, Run, Store

Advance = Callable[[Row | None, int, int], None]
"""Called with a new result (None at the start), how many are known, and how many there will be."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Attributes:
        suite: the suite, whole.
        instances: those of its instances that are wanted.
        solvers: the solvers.
        seconds: the time limit; None takes that of each instance.
        memory_mib: the memory limit.
        jobs: how many solvers run at a time.
        again: results that are known are found anew.
    """

    suite: BenchSuite
    instances: Sequence[Instance]
    solvers: Sequence[Solver]
    seconds: float | None
    memory_mib: int
    jobs: int = 1
    again: bool = False


@dataclass(frozen=True, slots=True)
class _Task:
    solver: Solver
    instance: Instance
    key: Key


def run_plan(plan: Plan, store: Store, cache: Path, advance: Advance) -> list[Row]:
    """Find what is missing, write each result as soon as it is known, and return all of them.

    Args:
        plan: what to run.
        store: where results are kept.
        cache: a folder for files in other formats.
        advance: who is told.

    Raises:
        MissingSolver: a solver is not there; nothing has been run then.
        KeyboardInterrupt: by the user; what was known is written, and nothing runs on.
    """
    from conspec.verifier.results import versions

    named = {solver.name: version_of(solver) for solver in plan.solvers}
    tasks = list(_tasks(plan, named))
    store.note(plan.suite)
    known = {} if plan.again else {row.key: row for row in store.rows(plan.suite.hash)}
    done = {task.key: known[task.key] for task in tasks if task.key in known}
    todo = [task for task in tasks if task.key not in done]
    advance(None, len(done), len(tasks))
    if todo:
        facts = Run(
            describe_machine() | {"jobs": str(plan.jobs)},
            {**versions(), **{f"solver {name}": text for name, text in named.items()}},
            plan.seconds,
            plan.memory_mib,
            SEED,
        )
        run = store.begin(plan.suite, facts)
        # Closed at once when this is interrupted, so that nothing runs on.
        with closing(_solved(todo, plan, cache)) as solved:
            for task, found in solved:
                row = done[task.key] = Row(task.key, run, found)
                store.add(row)
                advance(row, len(done), len(tasks))
    return [done[task.key] for task in tasks]


def _tasks(plan: Plan, versions: dict[str, str]) -> Iterator[_Task]:
    """Every solver on an instance before the next instance, so that a stopped run compares."""
    for instance in plan.instances:
        seconds = instance.seconds if plan.seconds is None else plan.seconds
        for solver in plan.solvers:
            name = solver.name
            key = Key(
                plan.suite.hash, instance.name, name, versions[name], seconds, plan.memory_mib
            )
            yield _Task(solver, instance, key)


def _solved(
    tasks: list[_Task], plan: Plan, cache: Path
) -> Generator[tuple[_Task, Found], None, None]:
    """The tasks with their results, as they come.

    They wait in threads, since the work is in other processes. However this ends, the processes
    of all threads end too.
    """
    cancel = Event()
    workplace = Workplace(plan.suite.name, cache, plan.memory_mib, cancel)

    def work(task: _Task) -> Found:
        if cancel.is_set():
            raise KeyboardInterrupt
        return solve(task.solver, task.instance, task.key.seconds_limit, workplace)

    with ThreadPoolExecutor(plan.jobs) as threads:
        try:
            waiting: dict[Future[Found], _Task] = {
                threads.submit(work, task): task for task in tasks
            }
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        finally:
            cancel.set()
            threads.shutdown(wait=False, cancel_futures=True)
