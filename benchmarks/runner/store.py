"""The results of a run in SQLite: written as soon as known, kept whatever happens after.

Each result is a transaction of its own in SQLite's default rollback journal, which survives a
killed process and a power cut. Write-ahead logging would be faster, but it leaves two files beside
the database, and a copy without them, or a read-only folder, then lacks results; a result takes
seconds to get and a millisecond to write.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from conspec.benchmarks.runner.instances import BenchSuite
from conspec.specs.errors import BadFile

APPLICATION = 0x636F6E73  # "cons", in the header of the file
SCHEMA = 1
_BUSY = 30.0  # seconds to wait for another process that writes
_TABLES = """
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY, started TEXT NOT NULL, suite TEXT NOT NULL, suite_hash TEXT NOT NULL,
    machine TEXT NOT NULL, versions TEXT NOT NULL, seconds REAL, memory_mib INTEGER NOT NULL,
    seed INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS instances (
    suite_hash TEXT NOT NULL, instance TEXT NOT NULL, place INTEGER NOT NULL,
    family TEXT NOT NULL, truth TEXT, evidence TEXT NOT NULL,
    PRIMARY KEY (suite_hash, instance));
CREATE TABLE IF NOT EXISTS results (
    suite_hash TEXT NOT NULL, instance TEXT NOT NULL, solver TEXT NOT NULL,
    version TEXT NOT NULL, seconds_limit REAL NOT NULL, memory_mib INTEGER NOT NULL,
    run INTEGER NOT NULL REFERENCES runs (id), answer TEXT NOT NULL, seconds REAL NOT NULL,
    cpu_seconds REAL NOT NULL, peak_mib REAL NOT NULL, detail TEXT NOT NULL, witness TEXT,
    witness_check TEXT, float32_check TEXT,
    PRIMARY KEY (suite_hash, instance, solver, version, seconds_limit, memory_mib));
"""


@dataclass(frozen=True, slots=True)
class Key:
    """What a result is about; a result with the same key need not be found again."""

    suite_hash: str
    instance: str
    solver: str
    version: str
    seconds_limit: float
    memory_mib: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a solver did on an instance.

    Attributes:
        answer: sat, unsat, unknown, timeout, memory, error, garbage or unsupported.
        seconds: wall-clock time.
        cpu_seconds: processor time of all its processes.
        peak_mib: their most memory.
        detail: a line about what happened; may be empty.
        witness: what it gave as counterexample, as written.
        witness_check: for ``sat``: exact, tolerance, invalid or missing; None if the instance
            has no network and property that conspec can check it with.
        float32_check: the same through onnxruntime in float32; None if that could not run.
    """

    answer: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mib: float = 0.0
    detail: str = ""
    witness: str | None = None
    witness_check: str | None = None
    float32_check: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table ``results``."""

    key: Key
    run: int
    found: Found


@dataclass(frozen=True, slots=True)
class Run:
    """One call of ``conspec bench run``.

    Attributes:
        machine: facts about the machine.
        versions: of packages and solvers.
        seconds: the time limit for every instance; None where each has its own.
        memory_mib: the memory limit.
        seed: what solvers that use Python's hash order are started with.
    """

    machine: Mapping[str, str]
    versions: Mapping[str, str]
    seconds: float | None
    memory_mib: int
    seed: int


_KEY = [field.name for field in fields(Key)]
_FOUND = [field.name for field in fields(Found)]
_COLUMNS = [*_KEY, "run", *_FOUND]


class Store:
    """An open database; `open_store` makes it."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self._path, self._database = path, database

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it, or nothing."""
        with _explained(self._path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                self._database.execute("ROLLBACK")
                raise

    def note(self, suite: BenchSuite) -> None:
        """Write the instances of a suite, and what is known of their answers now."""
        with self._change() as database:
            database.executemany(
                "INSERT OR REPLACE INTO instances VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (suite.hash, entry.name, place, entry.family, entry.truth, entry.evidence)
                    for place, entry in enumerate(suite.instances)
                ],
            )

    def begin(self, suite: BenchSuite, run: Run) -> int:
        """Note a new run; return its number."""
        with self._change() as database:
            cursor = database.execute(
                "INSERT INTO runs VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    datetime.now(UTC).isoformat(timespec="seconds"), suite.name, suite.hash,
                    json.dumps(dict(run.machine)), json.dumps(dict(run.versions)), run.seconds,
                    run.memory_mib, run.seed,
                ),
            )  # fmt: skip
            return int(cursor.lastrowid or 0)

    def add(self, row: Row) -> None:
        """Write a result; one with the same key is replaced."""
        marks = ", ".join("?" * len(_COLUMNS))
        with self._change() as database:
            database.execute(
                f"INSERT OR REPLACE INTO results ({', '.join(_COLUMNS)}) VALUES ({marks})",
                (*astuple(row.key), row.run, *astuple(row.found)),
            )

    def rows(self, suite_hash: str | None = None) -> list[Row]:
        """The results, of one suite or all, in the order of the instances."""
        columns = ", ".join(f"r.{name}" for name in _COLUMNS)
        with _explained(self._path):
            found = self._database.execute(
                f"SELECT {columns} FROM results r JOIN instances i USING (suite_hash, instance) "
                "WHERE ?1 IS NULL OR suite_hash = ?1 ORDER BY suite_hash, place, solver, r.rowid",
                (suite_hash,),
            ).fetchall()
        split = len(_KEY)
        return [Row(Key(*row[:split]), row[split], Found(*row[split + 1 :])) for row in found]


@contextmanager
def open_store(path: Path, writing: bool = True) -> Iterator[Store]:
    """Open a database, or make it.

    Raises:
        BadFile: it is no database of ours, one of a newer conspec, or cannot be read or written.
    """
    if not writing and not path.is_file():
        raise BadFile(f"{path}: no such file; 'conspec bench run' writes it")
    address = f"{path.resolve().as_uri()}?mode={'rwc' if writing else 'ro'}"
    with _explained(path):
        database = sqlite3.connect(address, uri=True, timeout=_BUSY, isolation_level=None)
    with closing(database):
        with _explained(path):
            _check(database, path, writing)
        yield Store(path, database)


def read_results(path: Path) -> list[Row]:
    """All results in a database.

    Raises:
        BadFile: as `open_store`.
    """
    with open_store(path, writing=False) as store:
        return store.rows()


def _check(database: sqlite3.Connection, path: Path, writing: bool) -> None:
    """Refuse what is not ours; make the tables in an empty file."""
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application == APPLICATION:
        if version != SCHEMA:
            raise BadFile(
                f"{path}: its schema has version {version}, this conspec knows {SCHEMA}; use the "
                "conspec that wrote it, or another file with --out"
            )
    elif application or version or tables or not writing:
        raise BadFile(f"{path}: a database, but not of 'conspec bench run'; it is left as it is")
    else:
        database.executescript(
            f"BEGIN EXCLUSIVE; {_TABLES} PRAGMA application_id = {APPLICATION}; "
            f"PRAGMA user_version = {SCHEMA}; COMMIT;"
        )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise BadFile(f"{path}: cannot be used as the database of results: {error}") from error
