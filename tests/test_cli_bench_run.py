"""``conspec bench run`` with solvers that hang, grow, crash, babble and lie."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from conspec.benchmarks.runner import execute, solvers
from conspec.benchmarks.runner.adapters import read_adapter
from conspec.benchmarks.runner.recipe import Solver, placeholders
from conspec.benchmarks.runner.solvers import SOLVERS, find_solvers, version_of
from conspec.benchmarks.runner.store import Row, read_results
from conspec.cli.bench_run import run
from conspec.specs.errors import BadFile, BadUsage, MissingSolver, UnknownName
from tests.fake_solvers import HONEST, WITNESS, adapter, write_benchmark, write_truth

LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the tree is in /proc")


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    return write_benchmark(tmp_path / "bench")


def call(*arguments: object) -> int:
    app = typer.Typer()
    app.command()(run)
    return int(app([str(argument) for argument in arguments], standalone_mode=False) or 0)


def results(
    suite: Path, names: Sequence[str], *options: object, out: str = "r.sqlite"
) -> tuple[int, list[Row]]:
    """The exit code, and what stands in the database."""
    place = suite.parent / out
    chosen = [part for name in names for part in ("--solver", name)]
    return call(suite, *chosen, "--out", place, *options), read_results(place)


def summary(rows: Sequence[Row]) -> list[tuple[str, str, str, str | None]]:
    return [
        (row.key.instance, row.key.solver, row.found.answer, row.found.witness_check)
        for row in rows
    ]


# One that ignores signals and leaves a daemon that ignores them as well.
HANGS = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[4], "w").write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
print("unsat", flush=True)
time.sleep(600)
"""
BAD = {
    "eats": "data = [b'x' * (1 << 20) for _ in range(10_000)]",
    "crashes": "import os; print('unsat', flush=True); os.kill(os.getpid(), 11)",
    "fails": "raise SystemExit('no such operator')",
    "silent": "",
    "garbage": "print('I think it is unsat')",
    "binary": "import sys; sys.stdout.buffer.write(bytes(range(256)) * 9)",
    "gigabytes": "import sys\nwhile True: sys.stdout.buffer.write(b'unsat' * 9999)",
    "lies-sat": "print('sat\\n((X_0 0.25) (X_1 0.25) (Y_0 9.0))')",
    "lies-unsat": "print('unsat')",
    "bare-sat": "print('sat')",
    "odd-sat": "print('sat\\n((X_0 one) (X_1 two))')",
    "floods": "print('sat')\nprint('(' + '(X_0 1.0)' * 2_500_000)",
}
EXPECTED = {
    "hangs": ("timeout", None),
    "eats": ("memory", None),
    "crashes": ("error", None),
    "fails": ("error", None),
    "silent": ("garbage", None),
    "garbage": ("garbage", None),
    "binary": ("garbage", None),
    "gigabytes": ("timeout", None),
    "lies-sat": ("sat", "invalid"),
    "lies-unsat": ("unsat", None),
    "bare-sat": ("sat", "missing"),
    "odd-sat": ("sat", "missing"),
    "floods": ("sat", "missing"),
    "honest": ("sat", "exact"),
}


@LINUX
def test_whatever_a_solver_does_is_recorded_and_stops_nothing(
    bench: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    note = tmp_path / "daemon"
    files = [adapter(tmp_path, "hangs", HANGS, ("{query}", "{onnx}", "{seconds}", str(note)))]
    files += [adapter(tmp_path, name, code) for name, code in BAD.items()]
    files.append(adapter(tmp_path, "honest", HONEST))
    short = [name for name in files if Path(name).stem in ("hangs", "gigabytes")]
    some = ("--only", "reach", "--jobs", 2, "--memory", 200)
    code, rows = results(bench, short, "--timeout", 1.5, *some)
    assert code == 0
    others = [name for name in files if name not in short]
    code, rows = results(bench, others, "--timeout", 30, *some)
    found = {row.key.solver: (row.found.answer, row.found.witness_check) for row in rows}
    assert found == EXPECTED
    details = {row.key.solver: row.found.detail for row in rows}
    assert details["hangs"] == "after it had said unsat"
    assert details["crashes"] == "ended by signal 11 after it had said unsat"
    assert details["fails"] == "exit code 1; no such operator"
    assert "too long" in details["floods"]
    assert all(detail.isprintable() for detail in details.values())
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)
    assert code == 1
    shown = capfd.readouterr().out.replace("\n", " ")
    assert "COUNTEREXAMPLE DOES NOT HOLD: reach: lies-sat" in shown
    assert "WRONG ANSWER: reach: lies-unsat: unsat, but the counterexample of honest" in shown


def test_honest_solvers_are_no_fault(
    bench: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_truth(bench, reach="sat", never="unsat")
    code, rows = results(bench, [adapter(tmp_path, "honest", HONEST)])
    assert (code, summary(rows)) == (
        0,
        [("reach", "honest", "sat", "exact"), ("never", "honest", "unsat", None)],
    )
    (first, _) = rows
    assert (first.found.witness, first.found.float32_check) == (WITNESS, "exact")
    assert (first.key.seconds_limit, first.key.memory_mib, first.key.version) == (20, 4096, "")
    assert 0 < first.found.seconds <= 20
    assert first.found.peak_mib > 1
    out, err = capfd.readouterr()
    assert "honest" in out
    assert "1/1" in out
    assert "bench compare" in err


def test_a_truth_shows_who_is_wrong(bench: Path, tmp_path: Path) -> None:
    write_truth(bench, never="unsat")
    liar = adapter(tmp_path, "liar", "print('sat')")
    code, _ = results(bench, [liar], "--only", "never")
    assert code == 1


def test_one_document_is_printed(
    bench: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = [adapter(tmp_path, "a", HONEST), adapter(tmp_path, "b", "print('unsat')")]
    assert results(bench, names, "--json")[0] == 1
    document: dict[str, Any] = json.loads(capfd.readouterr().out)
    assert [(r["instance"], r["solver"], r["answer"]) for r in document["results"]] == [
        ("reach", "a", "sat"),
        ("reach", "b", "unsat"),
        ("never", "a", "unsat"),
        ("never", "b", "unsat"),
    ]
    (fault,) = document["faults"]
    assert (fault["kind"], fault["solvers"]) == ("wrong answer", ["b"])


COUNTS = """
import sys
with open(sys.argv[1], "a") as file:
    file.write("x")
print("unsat")
"""


def test_a_run_goes_on_where_it_stopped(bench: Path, tmp_path: Path) -> None:
    tally = tmp_path / "tally"
    name = adapter(tmp_path, "counts", COUNTS, (str(tally), "{query}"))

    def calls(*options: object) -> int:
        before = len(tally.read_text()) if tally.exists() else 0
        results(bench, [name], *options)
        return len(tally.read_text()) - before

    assert calls("--only", "reach") == 1
    assert calls() == 1  # the other instance
    assert calls() == 0
    assert calls("--timeout", 5) == 2  # another limit is another question
    assert calls("--timeout", 5, "--memory", 300) == 2
    assert calls("--again") == 2
    assert len(read_results(tmp_path / "r.sqlite")) == 6


INTERRUPTED = """
import sys, typer
from conspec.cli.bench_run import run
app = typer.Typer()
app.command()(run)
sys.exit(app(sys.argv[1:], standalone_mode=False))
"""
SLOW = """
import os, sys, time
if "never" in sys.argv[1]:
    open(sys.argv[2], "w").write(str(os.getpid()))
    time.sleep(600)
print("unsat")
"""


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupt_keeps_what_is_known_and_ends_the_rest(
    bench: Path, tmp_path: Path, jobs: str
) -> None:
    note, out = tmp_path / "pid", tmp_path / "r.sqlite"
    name = adapter(tmp_path, "slow", SLOW, ("{query}", str(note)))
    options = ["--solver", name, "--out", str(out), "--timeout", "500", "--jobs", jobs]
    command = [sys.executable, "-c", INTERRUPTED, str(bench), *options]
    runner = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (note.exists() and note.read_text() and out.exists() and _count(out)):
        assert runner.poll() is None
        time.sleep(0.02)
    runner.send_signal(signal.SIGINT)
    _, err = runner.communicate(timeout=20)
    assert runner.returncode == 130
    assert "goes on from there" in err
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)
    assert summary(read_results(out)) == [("reach", "slow", "unsat", None)]


def _count(path: Path) -> int:
    try:
        return len(read_results(path))
    except BadFile:  # just being made
        return 0


def test_scripts_of_vnncomp_leave_their_answer_in_a_file(bench: Path, tmp_path: Path) -> None:
    prepared = tmp_path / "prepared"
    code = """
import os, sys
assert sys.argv[1:3] == ["v1", "bench"] and os.path.exists(sys.argv[3]) and os.listdir(".") == []
assert os.path.exists(sys.argv[7]) and float(sys.argv[6]) == 20
print("noise")
open(sys.argv[5], "w").write("violated\\n((X_0 1) (X_1 1))" if "reach" in sys.argv[4] else "holds")
"""
    prepare = [sys.executable, "-c", f"open({str(prepared)!r}, 'w')"]
    more = f'prepare = {json.dumps(prepare)}\nanswer = "results"\n'
    more += '[words]\nholds = "unsat"\nviolated = "sat"\n'
    arguments = ("v1", "{category}", "{onnx}", "{query}", "{results}", "{seconds}", str(prepared))
    code_, rows = results(bench, [adapter(tmp_path, "script", code, arguments, more)])
    assert (code_, summary(rows)) == (
        0,
        [("reach", "script", "sat", "exact"), ("never", "script", "unsat", None)],
    )


@pytest.mark.parametrize(
    ("more", "answer", "detail"),
    [
        ('prepare = ["false"]', "unsupported", "its preparation failed: exit code 1"),
        ('answer = "results"', "garbage", "it printed nothing"),
    ],
)
def test_what_goes_wrong_around_the_solver(
    bench: Path, tmp_path: Path, more: str, answer: str, detail: str
) -> None:
    name = adapter(tmp_path, "odd", "print('unsat')", ("{query}", "{results}"), more)
    if "results" not in more:
        name = adapter(tmp_path, "odd", "print('unsat')", ("{query}",), more)
    _, rows = results(bench, [name], "--only", "reach")
    assert (rows[0].found.answer, rows[0].found.detail) == (answer, detail)


def test_gzipped_files_are_unpacked_for_the_solver(bench: Path, tmp_path: Path) -> None:
    for path in (bench / "onnx" / "sum.onnx", bench / "vnnlib" / "reach.vnnlib"):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    code = f"""
import sys
assert b"assert" in open(sys.argv[1], "rb").read() and b"MatMul" in open(sys.argv[2], "rb").read()
print("sat\\n{WITNESS}")
"""
    name = adapter(tmp_path, "reads", code)
    _, rows = results(bench, [name], "--only", "reach")
    assert summary(rows) == [("reach", "reads", "sat", "exact")]


def only_formats(name: str, kinds: str) -> str:
    """Change the formats that an adapter names."""
    path = Path(name)
    text = path.read_text().replace('formats = ["vnnlib1"]', f"formats = {kinds}")
    path.write_text(text)
    return name


def test_a_format_that_cannot_be_had_is_unsupported(bench: Path, tmp_path: Path) -> None:
    name = only_formats(adapter(tmp_path, "new", "print('unsat')"), '["vnnlib2"]')
    code, rows = results(bench, [name])
    assert code == 0
    assert {row.found.answer for row in rows} == {"unsupported"}
    assert rows[0].found.detail == "it reads vnnlib2; the instance has onnx, vnnlib1"


def test_missing_formats_are_made(bench: Path, tmp_path: Path) -> None:
    tell = "import sys; text = open(sys.argv[1]).read(); print('unsat' if len(text) > 99 else 'no')"
    kinds = ["lp", "mps", "smt2"]
    names = [
        only_formats(adapter(tmp_path, kind, tell, ("{query}",)), f'["{kind}"]') for kind in kinds
    ]
    _, rows = results(bench, names, "--only", "never", "--jobs", 3)
    assert [(row.found.answer, row.found.detail) for row in rows] == [("unsat", "")] * 3
    made = {path.suffix[1:]: path for path in (tmp_path / "r.sqlite.files").iterdir()}
    assert sorted(made) == kinds
    assert "QF_LRA" in made["smt2"].read_text()
    before = made["mps"].stat().st_mtime_ns
    results(bench, names, "--only", "never", "--again")
    assert made["mps"].stat().st_mtime_ns == before  # kept


def test_a_format_that_cannot_be_made_says_why(bench: Path, tmp_path: Path) -> None:
    (bench / "vnnlib" / "reach.vnnlib").write_text("(assert (>= Z 1))")
    name = only_formats(adapter(tmp_path, "reads", "print('unsat')", ("{query}",)), '["smt2"]')
    _, rows = results(bench, [name], "--only", "reach")
    assert rows[0].found.answer == "unsupported"
    assert "it cannot be written as smt2" in rows[0].found.detail
    assert "reach.vnnlib" in rows[0].found.detail


def test_a_witness_that_cannot_be_judged_is_not_judged(bench: Path, tmp_path: Path) -> None:
    (bench / "onnx" / "sum.onnx").write_bytes(b"not a network")
    code, rows = results(bench, [adapter(tmp_path, "honest", HONEST)], "--only", "reach")
    assert (code, summary(rows)) == (0, [("reach", "honest", "sat", None)])
    assert "witness not checked" in rows[0].found.detail


def test_the_name_of_a_network_of_version_2_is_found(tmp_path: Path) -> None:
    query = tmp_path / "q.vnnlib"
    query.write_text("; (declare-network no)\n(vnnlib-version <2.0>)\n( declare-network\n  net_1 (")
    assert execute._network_name(query) == "net_1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("name", "label"), "unknown key 'label'"),
        (("answer", "answers"), "unknown key 'answers'"),
        (("formats", "words"), "TOML"),
        (('["vnnlib1"]', '["vnnlib3"]'), "'vnnlib3' is none of"),
        (('["vnnlib1"]', '"vnnlib1"'), "expected a list of formats"),
        (('["tool", "{query}"]', '"tool {query}"'), "command: expected a list of strings"),
        (('["tool", "{query}"]', '["tool"]'), "{query} does not occur"),
        (("{query}", "{query} {file}"), "unknown placeholder {file}"),
        (("{query}", "{query} {}"), "unknown placeholder {}"),
        (("{query}", "{query} {results}"), "go together"),
        (('"stdout"', '"results"'), "go together"),
        (('"stdout"', '"stderr"'), "answer: expected"),
        (('"--version"', '"{onnx}"'), "has no meaning without an instance"),
        (('holds = "unsat"', 'holds = "yes"'), "'yes' is none of"),
        (('holds = "unsat"', 'sat = "unsat"'), "'sat' is a word of the standard"),
        (('"x"', '""'), "printable characters"),
        (('"x"', "7"), "printable characters"),
        (("[words]", "[words"), "not TOML"),
        (("[words]", "[words.more]"), "is none of"),
    ],
)
def test_an_adapter_that_says_something_else_is_refused(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    text = 'name = "x"\nformats = ["vnnlib1"]\nversion = ["tool", "--version"]\n'
    text += 'command = ["tool", "{query}"]\nanswer = "stdout"\n[words]\nholds = "unsat"\n'
    path = tmp_path / "x.toml"
    path.write_text(text)
    assert read_adapter(path).words == {"holds": "unsat"}
    path.write_text(text.replace(*change))
    with pytest.raises(BadFile) as refused:
        read_adapter(path)
    assert message in str(refused.value)
    assert "x.toml" in str(refused.value)


def test_the_examples_of_the_documentation_are_adapters(tmp_path: Path) -> None:
    from conspec.benchmarks.runner import adapters

    blocks = str(adapters.__doc__).split("::\n\n")[1:]
    texts = ["\n".join(line[4:] for line in block.splitlines() if not line or line[0] == " ")
             for block in blocks]  # fmt: skip
    found = []
    for text in texts:
        (tmp_path / "x.toml").write_text(text)
        found.append(read_adapter(tmp_path / "x.toml"))
    assert [(solver.name, solver.results) for solver in found] == [
        ("alpha-beta-crown", True),
        ("vibecheck", False),
    ]


def test_solvers_are_known_by_name(tmp_path: Path) -> None:
    ours = {"conspec", "conspec-highs", "conspec-gurobi", "conspec-scip", "conspec-z3"}
    ours.add("conspec-spec")
    assert {"marabou", "z3", "cvc5", "highs", "scip", "gurobi"} | ours == set(SOLVERS)
    with pytest.raises(UnknownName, match=r"no such solver; known are conspec, .*NAME\.toml"):
        find_solvers(["nnenum"])
    with pytest.raises(BadUsage, match="two solvers are called 'z3'"):
        find_solvers(["z3", adapter(tmp_path, "z3", "")])


def test_versions_are_asked_before_anything_runs(bench: Path, tmp_path: Path) -> None:
    told = json.dumps([sys.executable, "-c", "print('v 1.2\\nmore')"])
    assert version_of(find_solvers([adapter(tmp_path, "a", "", more=f"version = {told}")])[0]) == (
        "v 1.2"
    )
    assert version_of(SOLVERS["conspec-z3"]).startswith("conspec ")
    broken = json.dumps([sys.executable, "-c", "raise SystemExit('broken')"])
    name = adapter(tmp_path, "b", "", more=f"version = {broken}")
    with pytest.raises(MissingSolver, match=r"solver b: its version command .* failed: broken"):
        results(bench, [adapter(tmp_path, "honest", HONEST), name])
    assert read_results(tmp_path / "r.sqlite") == []


def test_a_missing_package_says_how_to_get_it() -> None:
    solver = Solver("m", ("vnnlib1",), ("m",), ("no-such-package",), "conspec[peers]")
    with pytest.raises(MissingSolver, match=r"pip install 'conspec\[peers\]'"):
        version_of(solver)


def test_reasons_of_errors_are_shown(
    bench: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.toml"
    command = f'["{sys.executable}", "-c", "raise SystemExit(\'no such thing\')", "{{query}}"]'
    broken.write_text(f'name = "broken"\nformats = ["vnnlib1"]\ncommand = {command}\n')
    assert results(bench, [str(broken)])[0] == 0
    _, err = capfd.readouterr()
    assert "broken: 2 " in err
    assert "no such thing" in err


def test_each_peer_is_a_program_of_its_own() -> None:
    for name in ("conspec-highs", "marabou", "highs"):
        command = solvers.SOLVERS[name].command
        assert command[0] == sys.executable
        assert {"query", "seconds"} <= placeholders(command)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--solver is missing; known are conspec"),
        (("--solver", "z3", "--timeout", "0"), "--timeout 0: expected a positive"),
        (("--solver", "z3", "--timeout", "nan"), "--timeout nan"),
        (("--solver", "z3", "--only", "x*"), "no instance or family"),
        (("--solver", "z3", "--out", "none/r.sqlite"), "there is no folder none"),
    ],
)
def test_usage_that_makes_no_sense(bench: Path, options: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadUsage) as refused:
        call(bench, *options)
    assert message in str(refused.value)
