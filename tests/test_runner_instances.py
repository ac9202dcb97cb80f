"""Reading benchmark folders, ours and others', and refusing what is not one."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conspec.benchmarks.runner.instances import SECONDS, BenchSuite, read_suite
from conspec.specs.errors import BadFile

ONE = "(declare-const X_0 Real)\n"
TWO = "; VNN-LIB\n(vnnlib-version <2.0>)\n(declare-network f (declare-input X real [1]))\n"


def put(folder: Path, name: str, text: str = ONE) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)


def competition(folder: Path, table: str, **files: str) -> Path:
    """A folder with that ``instances.csv`` and two networks and properties."""
    put(folder, "instances.csv", table)
    for name in ("onnx/a.onnx", "onnx/sub/b.onnx"):
        put(folder, name, name)
    for name in ("vnnlib/p.vnnlib", "vnnlib/sub/q.vnnlib"):
        put(folder, name, ONE + name)
    return folder


def names(suite: BenchSuite) -> list[str]:
    return [instance.name for instance in suite.instances]


@pytest.mark.parametrize(
    "table",
    [
        "onnx/a.onnx,vnnlib/p.vnnlib,30\nonnx/sub/b.onnx,vnnlib/sub/q.vnnlib,2.5\n",
        "onnx,vnnlib,timeout\nonnx/a.onnx,vnnlib/p.vnnlib,30\nonnx/sub/b.onnx,vnnlib/sub/q.vnnlib,2.5",
        "# a\n\nonnx/a.onnx, vnnlib/p.vnnlib , 30\r\n # b\nonnx/sub/b.onnx,vnnlib/sub/q.vnnlib,2.5",
        '\ufeff"onnx/a.onnx","vnnlib/p.vnnlib","30"\n./onnx/sub/b.onnx,"vnnlib/sub/q.vnnlib",2.5',
    ],
    ids=["plain", "header", "comments", "quoted"],
)
def test_every_way_to_write_the_list_is_read(tmp_path: Path, table: str) -> None:
    suite = read_suite(competition(tmp_path / "bench", table))
    assert suite.name == "bench"
    assert names(suite) == ["p", "q"]
    first, second = suite.instances
    assert first.files["onnx"].read_text() == "onnx/a.onnx"
    assert second.files["vnnlib1"].read_text().endswith("vnnlib/sub/q.vnnlib")
    assert (first.seconds, second.seconds, first.truth, first.family) == (30, 2.5, None, "bench")


def test_a_missing_time_limit_has_a_default(tmp_path: Path) -> None:
    table = "onnx/a.onnx,vnnlib/p.vnnlib\nonnx/a.onnx,vnnlib/sub/q.vnnlib,\n"
    assert {i.seconds for i in read_suite(competition(tmp_path, table)).instances} == {SECONDS}


def test_the_list_itself_may_be_named(tmp_path: Path) -> None:
    folder = competition(tmp_path, "onnx/a.onnx,vnnlib/p.vnnlib,1\n")
    (folder / "instances.csv").rename(folder / "some.csv")
    assert names(read_suite(folder / "some.csv")) == ["p"]
    with pytest.raises(BadFile, match=r"neither suite\.json nor instances\.csv"):
        read_suite(folder)


def test_gzipped_files_stand_for_the_plain_ones_and_the_other_way_round(tmp_path: Path) -> None:
    put(tmp_path, "a.onnx.gz", "n")
    put(tmp_path, "p.vnnlib.gz", TWO)
    put(tmp_path, "q.vnnlib")
    put(tmp_path, "instances.csv", "a.onnx,p.vnnlib,1\na.onnx.gz,q.vnnlib.gz,1\n")
    first, second = read_suite(tmp_path).instances
    assert {kind: path.name for kind, path in first.files.items()} == {
        "onnx2": "a.onnx.gz",
        "vnnlib2": "p.vnnlib.gz",
    }
    assert second.files["vnnlib1"].name == "q.vnnlib"
    assert (first.name, second.name) == ("p", "q")


def test_properties_of_one_name_are_told_apart(tmp_path: Path) -> None:
    put(tmp_path, "a.onnx")
    for name in ("x/p.vnnlib", "y/p.vnnlib", "z/p.vnnlib", "p-2.vnnlib"):
        put(tmp_path, name)
    rows = [f"a.onnx,{name},1" for name in ("x/p.vnnlib", "p-2.vnnlib", "y/p.vnnlib", "z/p.vnnlib")]
    put(tmp_path, "instances.csv", "\n".join(rows))
    found = names(read_suite(tmp_path))
    assert found[:2] == ["p", "p-2"]
    assert len(set(found)) == 4


def versions(folder: Path, second: str = "onnx/a.onnx,vnnlib/p.vnnlib,7\n") -> Path:
    for version, text in (("1.0", ONE), ("2.0", TWO)):
        put(folder, f"{version}/onnx/a.onnx", version)
        put(folder, f"{version}/vnnlib/p.vnnlib", text)
    put(folder, "1.0/instances.csv", "onnx/a.onnx,vnnlib/p.vnnlib,7\n")
    put(folder, "2.0/instances.csv", second)
    return folder


def test_both_versions_of_an_instance_are_one(tmp_path: Path) -> None:
    (instance,) = read_suite(versions(tmp_path)).instances
    assert set(instance.files) == {"onnx", "vnnlib1", "onnx2", "vnnlib2"}
    assert instance.files["onnx2"].read_text() == "2.0"


def test_versions_with_other_instances_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="must list the same ones"):
        read_suite(versions(tmp_path, "onnx/a.onnx,vnnlib/p.vnnlib,7\n" * 2))
    put(tmp_path, "2.0/instances.csv", "onnx/a.onnx,vnnlib/p.vnnlib,7\n")
    put(tmp_path, "2.0/vnnlib/p.vnnlib", ONE)
    with pytest.raises(BadFile, match="of the same version: onnx, vnnlib1"):
        read_suite(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("../out.onnx,vnnlib/p.vnnlib,1", "leads out of"),
        ("onnx/../../out.onnx,vnnlib/p.vnnlib,1", "leads out of"),
        ("/etc/hosts.onnx,vnnlib/p.vnnlib,1", "not a relative path"),
        ("link.onnx,vnnlib/p.vnnlib,1", "leads out of"),
        ("folder/out.onnx,vnnlib/p.vnnlib,1", "leads out of"),
        ("loop.onnx,vnnlib/p.vnnlib,1", "csv:2"),
        (f"{'x' * 300}.onnx,vnnlib/p.vnnlib,1", "csv:2"),
        ("onnx/none.onnx,vnnlib/p.vnnlib,1", r"csv:2: there is no file 'onnx/none\.onnx'"),
        ("onnx,vnnlib/p.vnnlib,1", "networks are not supported"),
        ("\"[('f', 'a.onnx')]\",vnnlib/p.vnnlib,1", "networks are not supported"),
        ("onnx/a.onnx,onnx/a.onnx,1", r"not one \.vnnlib file"),
        ("onnx/a.onnx", "expected onnx,vnnlib,timeout"),
        ("onnx/a.onnx,vnnlib/p.vnnlib,1,2", "there are 4 fields"),
        ("onnx/a.onnx,vnnlib/p.vnnlib,soon", "'soon' is not a time limit"),
        ("onnx/a.onnx,vnnlib/p.vnnlib,0", "not a time limit"),
        ("onnx/a.onnx,vnnlib/p.vnnlib,nan", "not a time limit"),
        ("onnx/a.onnx,vnnlib/p.vnnlib,inf", "not a time limit"),
    ],
)
def test_what_a_line_may_not_say(tmp_path: Path, row: str, message: str) -> None:
    folder = competition(tmp_path / "bench", f"onnx/a.onnx,vnnlib/p.vnnlib,1\n{row}\n")
    put(tmp_path, "out.onnx")
    (folder / "link.onnx").symlink_to(tmp_path / "out.onnx")
    (folder / "loop.onnx").symlink_to(folder / "loop.onnx")
    (folder / "folder").symlink_to(tmp_path)
    with pytest.raises(BadFile, match=message):
        read_suite(folder)


def test_a_link_inside_the_folder_is_a_file_like_others(tmp_path: Path) -> None:
    folder = competition(tmp_path / "bench", "onnx/same.onnx,vnnlib/p.vnnlib,1\n")
    (folder / "onnx" / "same.onnx").symlink_to("a.onnx")
    assert names(read_suite(folder)) == ["p"]
    (tmp_path / "other").symlink_to(folder)
    assert names(read_suite(tmp_path / "other")) == ["p"]


def ours(folder: Path, **changes: Any) -> Path:
    files = {"onnx": "1.0/onnx/n.onnx", "vnnlib1": "1.0/vnnlib/a.vnnlib", "smt2": "smt/a.smt2",
             "exact": "milp/a.exact.json"}  # fmt: skip
    for name in files.values():
        put(folder, name, name)
    entry = {"name": "a b", "family": "rule", "seconds": 5, "files": files, "about": {}} | changes
    document = {"format": "conspec-bench-suite", "name": "emoji_64", "instances": [entry]}
    put(folder, "suite.json", json.dumps(document))
    return folder


def test_our_own_folder_is_read(tmp_path: Path) -> None:
    folder = ours(tmp_path)
    line = {"instance": "a b", "answer": "unsat", "evidence": "certificate", "verdict": "proved"}
    put(folder, "truth.jsonl", json.dumps(line) + "\n")
    suite = read_suite(folder)
    assert suite.name == "emoji_64"
    (instance,) = suite.instances
    assert (instance.name, instance.family, instance.seconds) == ("a b", "rule", 5)
    assert set(instance.files) == {"onnx", "vnnlib1", "smt2"}
    assert (instance.truth, instance.evidence) == ("unsat", "certificate")
    assert read_suite(folder / "suite.json") == suite


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": {"smt2": "../x.smt2"}}, "leads out of"),
        ({"files": {"smt2": 3}}, "expected a name or path"),
        ({"files": []}, "expected an object with 'name' and 'files'"),
        ({"name": None}, "expected a name or path"),
        ({"seconds": True}, "not a time limit"),
        ({"seconds": "9" * 5000}, "not a time limit"),
        ({"seconds": 10**400}, "not a time limit"),
    ],
)
def test_what_our_own_list_may_not_say(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadFile, match=message):
        read_suite(ours(tmp_path, **changes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "a list 'instances'"),
        ('{"instances": []}', "has no instances"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_damaged_list_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "suite.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadFile, match=message):
        read_suite(tmp_path)


def test_two_instances_of_one_name_are_refused(tmp_path: Path) -> None:
    document = json.loads((ours(tmp_path) / "suite.json").read_text())
    document["instances"] *= 2
    put(tmp_path, "suite.json", json.dumps(document))
    with pytest.raises(BadFile, match="two instances are called 'a b'"):
        read_suite(tmp_path)


TABLE = "onnx/a.onnx,vnnlib/p.vnnlib,1\nonnx/a.onnx,vnnlib/sub/q.vnnlib,1\n"


def test_expected_answers_are_read(tmp_path: Path) -> None:
    put(competition(tmp_path, TABLE), "expected.csv", "instance,answer\n# known\np, sat\nq,unknown")
    assert [instance.truth for instance in read_suite(tmp_path).instances] == ["sat", None]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("expected.csv", "r,sat\n", r"expected\.csv: 'r' is no instance"),
        ("expected.csv", "p,maybe\n", r"expected\.csv:1: the answer is 'maybe'"),
        ("expected.csv", "p,sat,certain\n", "expected instance,answer"),
        ("expected.csv", "p,sat\np,unsat\n", ":2: 'p' is said to be both"),
        ("truth.jsonl", '{"instance": "p", "answer": 1}', r"truth\.jsonl:1"),
        ("truth.jsonl", '\n{"instance": "p"', r"truth\.jsonl:2: not JSON"),
        ("truth.jsonl", "[]", "expected an object"),
    ],
)
def test_a_wrong_truth_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    put(competition(tmp_path, TABLE), name, text)
    with pytest.raises(BadFile, match=message):
        read_suite(tmp_path)


def test_the_hash_is_of_what_is_asked(tmp_path: Path) -> None:
    """Not of where the folder is, its time limits or its answers; but of each byte of a file."""
    first = read_suite(competition(tmp_path / "a", TABLE)).hash
    other = competition(tmp_path / "b", TABLE.replace(",1", ",99"))
    put(other, "expected.csv", "p,sat\n")
    assert read_suite(other).hash == first
    put(other, "onnx/a.onnx", "changed")
    changed = read_suite(other).hash
    put(other, "instances.csv", TABLE.splitlines()[0])
    assert len({first, changed, read_suite(other).hash}) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    folder = competition(tmp_path, TABLE)
    (folder / "onnx" / "a.onnx").chmod(0)
    with pytest.raises(BadFile, match=r"a\.onnx"):
        read_suite(folder)


GZIP = gzip.compress(ONE.encode() * 50)


@pytest.mark.parametrize("data", [b"plain", GZIP[:-9], GZIP[:20] + b"\0" * 30])
def test_a_damaged_gzip_file_is_refused(tmp_path: Path, data: bytes) -> None:
    folder = competition(tmp_path, "onnx/a.onnx,bad.vnnlib.gz,1\n")
    (folder / "bad.vnnlib.gz").write_bytes(data)
    with pytest.raises(BadFile, match=r"bad\.vnnlib\.gz"):
        read_suite(folder)


PIECES = st.sampled_from(
    ["onnx/a.onnx", "vnnlib/p.vnnlib", ",", "\n", '"', "#", "..", "/", "1", "1e5", "\0", ".gz",
     "onnx", "\\", " ", "\x85", "é", "-", "{", "}", "[", "]", ":", "instances", "files", "null"]
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    name=st.sampled_from(["instances.csv", "suite.json", "expected.csv", "truth.jsonl"]),
    text=st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=30),
)
def test_whatever_stands_in_a_file_it_is_read_or_refused(
    tmp_path: Path, name: str, text: str
) -> None:
    folder = tmp_path / "fuzz"
    if not folder.exists():
        competition(folder, TABLE)
    put(folder, "instances.csv", TABLE)
    (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        suite = read_suite(folder)
    except BadFile:
        pass
    else:
        assert all(path.is_file() for i in suite.instances for path in i.files.values())
    finally:
        if name != "instances.csv":
            (folder / name).unlink()
