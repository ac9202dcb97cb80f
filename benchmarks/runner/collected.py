"""What ``conspec bench run`` left in its databases, read for a comparison."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from conspec.benchmarks.runner.store import Key, read_results
from conspec.specs.errors import BadFile


class Answer(StrEnum):
    """What came of one solver on one instance."""

    SAT = "sat"
    UNSAT = "unsat"
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    ERROR = "error"
    GARBAGE = "garbage"
    UNSUPPORTED = "unsupported"


class Check(StrEnum):
    """What the exact check of a ``sat`` answer's witness found."""

    EXACT = "exact"
    TOLERANCE = "tolerance"
    INVALID = "invalid"
    MISSING = "missing"
    UNCHECKED = "unchecked"
    """conspec has nothing that it could check the witness with."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of a suite.

    Attributes:
        suite: name of the suite; with the beginning of its hash if two suites share the name.
        name: name in the suite.
        family: what its generator calls its kind.
        truth: ``Answer.SAT`` or ``Answer.UNSAT`` where the suite knows it.
        evidence: what that rests on, in words; empty if unknown.
    """

    suite: str
    name: str
    family: str
    truth: Answer | None
    evidence: str


@dataclass(frozen=True, slots=True)
class Result:
    """One solver on one instance.

    Attributes:
        instance: the instance.
        solver: the name that tells it from the other solvers of the comparison.
        version: what it says of itself.
        limit: seconds that it was given.
        answer: what came of it.
        seconds: wall-clock time.
        cpu_seconds: processor time of its processes.
        peak_mib: most memory of its processes in MiB; 0 where it was not started.
        check: of the witness; None unless the answer is ``sat``.
        float32: what the replay of the witness in float32 found; empty if there was none.
        detail: a line about what happened.
    """

    instance: Instance
    solver: str
    version: str
    limit: float
    answer: Answer
    seconds: float
    cpu_seconds: float
    peak_mib: float
    check: Check | None
    float32: str
    detail: str


@dataclass(frozen=True, slots=True)
class Run:
    """One call of ``conspec bench run``: when, where, with what.

    Attributes:
        file: name of the database.
        started: as the database has it.
        suite: name of the suite.
        suite_hash: its hash.
        machine: facts about the machine.
        versions: of packages and solvers.
        seconds: its limit for each instance; None where each has its own.
        memory_mib: its memory limit for each instance.
        seed: its seed.
    """

    file: str
    started: str
    suite: str
    suite_hash: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    seconds: float | None
    memory_mib: float
    seed: int


@dataclass(frozen=True, slots=True)
class Collection:
    """All that the databases hold: runs by their start, the rest by suite and name."""

    runs: tuple[Run, ...]
    instances: tuple[Instance, ...]
    results: tuple[Result, ...]

    @property
    def suites(self) -> list[str]:
        """Names of the suites that have results, in their order."""
        return sorted({result.instance.suite for result in self.results})

    @property
    def solvers(self) -> list[str]:
        """Names of the solvers in their order."""
        return sorted({result.solver for result in self.results})


LARGEST = 1e15
"""Of seconds, memory and seeds."""
_Row = Mapping[str, Any]
_InstanceKey = tuple[str, str]
_KEY = tuple(field.name for field in fields(Key))
_TABLES = ("runs", "instances")


def collect(paths: Sequence[Path]) -> Collection:
    """Read databases together.

    Raises:
        BadFile: one cannot be read, has no results, or they contradict each other: different
            truths of an instance, or different results of one solver with the same limits.
    """
    files = list({path.resolve(): path for path in paths}.values())
    results = [
        {**asdict(row.key), **asdict(row.found), "file": str(path)}
        for path in files
        for row in read_results(path)
    ]
    noted = {name: [row for path in files for row in _rows(path, name)] for name in _TABLES}
    runs = sorted(map(_run, noted["runs"]), key=lambda run: (run.started, run.file, run.suite))
    instances = _instances(noted["instances"], _suite_names(runs))
    rows = _merged(results)
    if not rows:
        raise BadFile(f"{', '.join(map(str, paths))}: no results; 'conspec bench run' writes them")
    names = _solver_names(rows)
    judged = [_result(row, name, instances) for row, name in zip(rows, names, strict=True)]
    return Collection(
        tuple(runs),
        tuple(sorted(instances.values(), key=lambda instance: (instance.suite, instance.name))),
        tuple(sorted(judged, key=lambda r: (r.instance.suite, r.instance.name, r.solver))),
    )


def _rows(path: Path, table: str) -> Iterator[_Row]:
    """The rows of a table, each with the name of its file under ``file``."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            for row in database.execute(f"SELECT * FROM {table} ORDER BY rowid"):
                if any(isinstance(value, bytes) for value in row):
                    raise BadFile(f"{path}: a row of {table} holds bytes, not text")
                yield {**dict(row), "file": str(path)}
    except sqlite3.Error as error:
        raise BadFile(f"{path}: cannot be used as the database of results: {error}") from error


def _run(row: _Row) -> Run:
    return Run(
        Path(row["file"]).name,
        str(row["started"]),
        str(row["suite"]),
        str(row["suite_hash"]),
        _facts(row, "machine"),
        _facts(row, "versions"),
        None if row["seconds"] is None else _number(row, "seconds"),
        _number(row, "memory_mib"),
        int(_number(row, "seed")),
    )


def _facts(row: _Row, column: str) -> Mapping[str, str]:
    try:
        found = json.loads(row[column] or "{}")
    except (TypeError, ValueError, RecursionError) as error:
        raise BadFile(f"{row['file']}: runs.{column} of run {row['id']} is not JSON") from error
    if not isinstance(found, dict):
        raise BadFile(f"{row['file']}: runs.{column} of run {row['id']} is not a JSON object")
    return {str(key): str(value) for key, value in found.items()}


def _suite_names(runs: Sequence[Run]) -> Callable[[str], str]:
    """The name to show for a suite's hash; two suites of one name show their hashes too."""
    names = {run.suite_hash: run.suite for run in reversed(runs)}
    taken = list(names.values())

    def name(suite_hash: str) -> str:
        found = names.get(suite_hash, suite_hash[:12])
        return f"{found} ({suite_hash[:8]})" if taken.count(found) > 1 else found

    return name


def _instances(rows: Sequence[_Row], suite: Callable[[str], str]) -> dict[_InstanceKey, Instance]:
    found: dict[_InstanceKey, Instance] = {}
    for row in rows:
        key = (row["suite_hash"], row["instance"])
        truth = _member(row, "truth", (Answer.SAT, Answer.UNSAT))
        known = found.get(key)
        if known is None or known.truth is None:
            evidence = str(row["evidence"] or "") if truth else ""
            found[key] = Instance(
                suite(key[0]), str(key[1]), str(row["family"] or "–"), truth, evidence
            )
        elif truth not in (None, known.truth):
            raise BadFile(
                f"{row['file']}: says that instance {key[1]} is {truth}; another of the files "
                f"says {known.truth}. Both cannot hold, so look at their evidence first"
            )
    return found


def _merged(rows: Sequence[_Row]) -> list[_Row]:
    """Each result once, where files share some."""
    found: dict[tuple[Any, ...], _Row] = {}
    for row in rows:
        first = found.setdefault(tuple(row[column] for column in _KEY), row)
        if {**first, "file": ""} != {**row, "file": ""}:
            raise BadFile(
                f"{row['file']}: has another result of {row['solver']} on {row['instance']} than "
                f"{first['file']}, with the same version and limits; compare these files apart"
            )
    return list(found.values())


def _solver_names(rows: Sequence[_Row]) -> list[str]:
    """A name for each result; with version, limit or memory where only these differ.

    The limit may differ from instance to instance, so it tells results apart only where one
    instance has results of the same solver under several limits.
    """
    said: dict[str, dict[str, set[Any]]] = {}
    limits: dict[tuple[Any, ...], set[float]] = {}
    for row in rows:
        seen = said.setdefault(row["solver"], {"version": set(), "memory_mib": set()})
        for column in seen:
            seen[column].add(row[column])
        same = tuple(row[column] for column in _KEY if column != "seconds_limit")
        limits.setdefault(same, set()).add(row["seconds_limit"])
    by_limit = {key[2] for key, values in limits.items() if len(values) > 1}
    names = []
    for row in rows:
        seen = said[row["solver"]]
        parts = [str(row["version"])] if len(seen["version"]) > 1 else []
        parts += [f"{row['seconds_limit']:g} s"] if row["solver"] in by_limit else []
        parts += [f"{row['memory_mib']} MiB"] if len(seen["memory_mib"]) > 1 else []
        names.append(f"{row['solver']} ({'; '.join(parts)})" if parts else str(row["solver"]))
    return names


def _result(row: _Row, name: str, instances: Mapping[_InstanceKey, Instance]) -> Result:
    answer = _member(row, "answer", tuple(Answer))
    if answer is None:
        raise BadFile(f"{_place(row)}: has no answer")
    check = _member(row, "witness_check", tuple(Check)) or Check.UNCHECKED
    return Result(
        instances[row["suite_hash"], row["instance"]],
        name,
        str(row["version"]),
        _number(row, "seconds_limit"),
        answer,
        _number(row, "seconds"),
        _number(row, "cpu_seconds"),
        _number(row, "peak_mib"),
        check if answer is Answer.SAT else None,
        str(row["float32_check"] or ""),
        str(row["detail"] or ""),
    )


_Member = TypeVar("_Member", bound=StrEnum)


def _member(row: _Row, column: str, members: tuple[_Member, ...]) -> _Member | None:
    value = row[column]
    if value is None or value == "":
        return None
    for member in members:
        if member.value == value:
            return member
    raise BadFile(f"{_place(row)}: {column} {value!r} is none of {', '.join(members)}")


def _number(row: _Row, column: str) -> float:
    """A number that is not negative, and not absurd."""
    value = row[column]
    if not isinstance(value, int | float) or not 0 <= value <= LARGEST:
        raise BadFile(f"{_place(row)}: {column} {value!r} is not a number from 0 to {LARGEST:g}")
    return float(value)


def _place(row: _Row) -> str:
    if "instance" not in row:
        return f"{row['file']}: run {row['id']}"
    solver = f"{row['solver']} on " if "solver" in row else ""
    return f"{row['file']}: {solver}{row['instance']}"
