"""The database of results: nothing lost, nothing foreign touched."""

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from conspec.benchmarks.runner.instances import BenchSuite, Instance
from conspec.benchmarks.runner.store import (
    SCHEMA,
    Found,
    Key,
    Row,
    Run,
    Store,
    open_store,
    read_results,
)
from conspec.specs.errors import BadFile

SUITE = BenchSuite(
    "tiny",
    tuple(Instance(name, "rule", {}, 5.0, truth, "by hand") for name, truth in
          (("b", "sat"), ("a", None))),
    "0123",
)  # fmt: skip
RUN = Run({"cores": "2"}, {"solver s": "1"}, None, 100, 0)
FOUND = Found("sat", 1.5, 1.25, 30.5, "noted", "((X_0 1/3)) é\0\ufffd", "exact", "tolerance")


def key(instance: str, solver: str = "s") -> Key:
    return Key(SUITE.hash, instance, solver, "1", 5.0, 100)


def write(path: Path, *rows: tuple[Key, Found]) -> int:
    with open_store(path) as store:
        store.note(SUITE)
        run = store.begin(SUITE, RUN)
        for about, found in rows:
            store.add(Row(about, run, found))
    return run


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    rows = [(key("a"), FOUND), (key("b", "t"), Found("timeout")), (key("b", "s"), Found("unsat"))]
    run = write(path, *rows)
    assert read_results(path) == [
        Row(key("b", "s"), run, Found("unsat")),
        Row(key("b", "t"), run, Found("timeout")),
        Row(key("a"), run, FOUND),
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.sqlite"]


def test_the_tables_are_those_of_the_plan(tmp_path: Path) -> None:
    write(tmp_path / "r.sqlite", (key("a"), FOUND))
    database = sqlite3.connect(tmp_path / "r.sqlite")
    found = database.execute(
        "SELECT r.witness_check, r.float32_check, i.place, i.truth, i.evidence, u.suite, u.seconds,"
        " json_extract(u.machine, '$.cores'), json_extract(u.versions, '$.solver s'), u.seed"
        " FROM results r JOIN runs u ON r.run = u.id JOIN instances i USING (suite_hash, instance)"
    ).fetchall()
    database.close()
    assert found == [("exact", "tolerance", 1, None, "by hand", "tiny", None, "2", "1", 0)]


def test_the_same_key_is_replaced_and_each_part_of_it_counts(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    write(path, (key("a"), FOUND))
    run = write(path, (key("a"), Found("unknown")))
    assert [(row.run, row.found.answer) for row in read_results(path)] == [(run, "unknown")]
    others = [
        replace(key("a"), instance="b"),
        replace(key("a"), solver="t"),
        replace(key("a"), version="2"),
        replace(key("a"), seconds_limit=6.0),
        replace(key("a"), memory_mib=101),
    ]
    write(path, *((other, FOUND) for other in others))
    assert len(read_results(path)) == 1 + len(others)


def test_another_suite_stands_beside_the_first(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    write(path, (key("a"), FOUND))
    other = replace(SUITE, name="other", hash="4567")
    with open_store(path) as store:
        store.note(other)
        run = store.begin(other, RUN)
        store.add(Row(replace(key("a"), suite_hash="4567"), run, Found("unsat")))
        assert [row.found.answer for row in store.rows("4567")] == ["unsat"]
        assert [row.found.answer for row in store.rows(SUITE.hash)] == ["sat"]
        assert len(store.rows()) == 2


def test_what_is_known_of_an_instance_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    write(path, (key("a"), FOUND))
    with open_store(path) as store:
        store.note(replace(SUITE, instances=(replace(SUITE.instances[1], truth="unsat"),)))
    database = sqlite3.connect(path)
    found = database.execute("SELECT instance, truth FROM instances ORDER BY 1").fetchall()
    database.close()
    assert found == [("a", "unsat"), ("b", "sat")]


KILLED = """
import os, signal, sys
from pathlib import Path
from conspec.benchmarks.runner.store import Found, Row, open_store
from tests.test_runner_store import RUN, SUITE, key
with open_store(Path(sys.argv[1])) as store:
    store.note(SUITE)
    run = store.begin(SUITE, RUN)
    store.add(Row(key("a"), run, Found("sat")))
    store._database.execute("BEGIN IMMEDIATE")
    store._database.execute("UPDATE results SET answer = 'unsat'")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_between_two_writes_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    root = str(Path(__file__).parent.parent)
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=root, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [row.found.answer for row in read_results(path)] == ["sat"]
    write(path, (key("b"), FOUND))
    assert len(read_results(path)) == 2


def interrupted_change(store: Store) -> None:
    with store._change() as database:
        database.execute("DELETE FROM results")
        raise KeyboardInterrupt


def test_an_interrupt_inside_a_write_undoes_it(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    write(path, (key("a"), FOUND))
    with open_store(path) as store:
        with pytest.raises(KeyboardInterrupt):
            interrupted_change(store)
        assert len(store.rows()) == 1
        store.add(Row(key("b"), 1, FOUND))  # the connection is usable


def test_a_foreign_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE results (x)")
    database.commit()
    database.close()
    before = path.read_bytes()
    with pytest.raises(BadFile, match="not of 'conspec bench run'"), open_store(path):
        pass
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    write(path, (key("a"), FOUND))
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    database.close()
    with pytest.raises(BadFile, match=f"version {SCHEMA + 1}, this conspec knows {SCHEMA}"):
        read_results(path)


@pytest.mark.parametrize("data", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 200])
def test_what_is_no_database_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "r.sqlite"
    path.write_bytes(data)
    with pytest.raises(BadFile, match="cannot be used as the database"), open_store(path):
        pass
    assert path.read_bytes() == data


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="cannot be used"), open_store(tmp_path):
        pass


def test_reading_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="no such file"):
        read_results(tmp_path / "none.sqlite")
    (tmp_path / "empty").touch()
    with pytest.raises(BadFile, match="not of 'conspec bench run'"):
        read_results(tmp_path / "empty")
    assert os.listdir(tmp_path) == ["empty"]


def test_two_processes_may_write_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with open_store(path) as first, open_store(path) as second:
        first.note(SUITE)
        second.note(SUITE)
        runs = [store.begin(SUITE, RUN) for store in (first, second)]
        first.add(Row(key("a", "x"), runs[0], FOUND))
        second.add(Row(key("a", "y"), runs[1], FOUND))
        assert len(set(runs)) == 2
        assert len(first.rows()) == len(second.rows()) == 2
