"""Limits of time, memory and output hold against programs that do not play along."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread

import pytest

from conspec.benchmarks.runner import process, supervisor
from conspec.benchmarks.runner.process import Ended, run_limited
from conspec.specs.errors import BadUsage

LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the tree is in /proc")
PAUSE = "import time; time.sleep(600)"


def python(
    code: str,
    *arguments: str,
    seconds: float = 20.0,
    memory_mib: int = 500,
    cwd: Path | None = None,
) -> Ended:
    return run_limited([sys.executable, "-c", code, *arguments], seconds, memory_mib, cwd)


def alive(pid: int) -> bool:
    """Whether the process exists; a zombie does."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone(pid: int) -> bool:
    """Whether the process ends within a few seconds (for those that init collects)."""
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


def test_a_program_that_ends_is_reported_as_it_ended(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd()); print('oops', file=sys.stderr); sys.exit(7)"
    ended = python(code, cwd=tmp_path)
    assert (ended.why, ended.code, ended.truncated, ended.survivors) == ("done", 7, False, 0)
    assert ended.stdout == f"{tmp_path}\n"
    assert ended.stderr == "oops\n"


def test_standard_input_is_empty() -> None:
    assert python("import sys; print(repr(sys.stdin.read()))").stdout == "''\n"


def test_the_environment_is_the_one_given() -> None:
    command = [sys.executable, "-c", "import os; print(sorted(os.environ))"]
    given = run_limited(command, 20, 500, env={"ONLY": "this"}).stdout
    assert "'ONLY'" in given
    assert "'PATH'" not in given


def test_no_descriptor_of_ours_is_open_in_it() -> None:
    with open(os.devnull) as file:
        os.set_inheritable(file.fileno(), True)
        code = """
import os
for number in range(3, 64):
    try:
        os.fstat(number)
    except OSError:
        continue
    print(number)
"""
        assert python(code).stdout == ""


def test_a_crash_has_the_number_of_its_signal() -> None:
    ended = python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert (ended.why, ended.code) == ("done", -signal.SIGSEGV)


@pytest.mark.parametrize("command", [["no-such-program"], ["/"], ["x" * 3_000_000], ["a\0b"]])
def test_what_cannot_start_says_why(command: list[str]) -> None:
    ended = run_limited(command, 5, 100)
    assert (ended.why, ended.code) == ("start-failed", None)
    assert ended.stderr


def test_a_folder_that_is_missing_is_a_failed_start(tmp_path: Path) -> None:
    assert python("", cwd=tmp_path / "none").why == "start-failed"


@pytest.mark.parametrize(
    ("command", "seconds", "memory"),
    [
        ([], 1, 1),
        (["true"], 0, 1),
        (["true"], float("nan"), 1),
        (["true"], float("inf"), 1),
        (["true"], 1, 0),
    ],
)
def test_limits_must_be_positive(command: list[str], seconds: float, memory: int) -> None:
    with pytest.raises(BadUsage, match="positive limits"):
        run_limited(command, seconds, memory)


def test_one_that_ignores_every_signal_is_killed_at_the_time_limit() -> None:
    code = """
import signal, time
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
print('started', flush=True)
while True:
    time.sleep(600)
"""
    ended = python(code, seconds=1)
    assert (ended.why, ended.code, ended.stdout) == ("timeout", -signal.SIGKILL, "started\n")
    assert ended.seconds >= 1


# A child that has left its session and its parent, and has an empty environment.
DAEMON = """
import os, sys
inner, outer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    os.write(outer, str(os.getpid()).encode())
    os.execve(sys.executable, [sys.executable, '-c', {pause!r}], {{}})
print(os.read(inner, 99).decode(), flush=True)
"""


@LINUX
@pytest.mark.parametrize("rest", ["", PAUSE])
def test_a_daemon_does_not_outlive_its_program(rest: str) -> None:
    ended = python(DAEMON.format(pause=PAUSE) + rest, seconds=1.5)
    assert ended.why == ("timeout" if rest else "done")
    assert not alive(int(ended.stdout))


@LINUX
def test_children_of_children_are_all_killed() -> None:
    code = """
import os, time
for _ in range(5):
    os.fork()
os.write(1, b'%d\\n' % os.getpid())
time.sleep(600)
"""
    ended = python(code, seconds=1.5)
    pids = ended.stdout.split()
    assert (ended.why, ended.survivors, len(pids)) == ("timeout", 0, 32)
    assert not any(alive(int(pid)) for pid in pids)


EAT = "data = [b'x' * (1 << 20) for _ in range({mib})]\n"


@LINUX
def test_the_memory_limit_is_on_the_whole_tree() -> None:
    """No process reaches the limit alone, and the parent is small."""
    eat = EAT.format(mib=80)
    code = f"import os\nfor _ in range(2):\n  if os.fork() == 0:\n    {eat}\n    break\n"
    ended = python(code + PAUSE, memory_mib=130)
    assert (ended.why, ended.code) == ("memory", -signal.SIGKILL)
    assert ended.peak_mib > 130


@LINUX
def test_shared_pages_count_once() -> None:
    """Forks of a large parent that write nothing use its memory again, and no more."""
    code = EAT.format(mib=60) + "import os\nfor _ in range(4):\n  if os.fork() == 0: break\n"
    ended = python(code + "import time; time.sleep(0.5)", memory_mib=150)
    assert (ended.why, ended.code) == ("done", 0)


def test_memory_and_processor_time_are_measured() -> None:
    code = "data = b'x' * (120 << 20)\nimport time\nwhile time.process_time() < 0.3: pass"
    ended = python(code)
    assert ended.why == "done"
    assert 120 <= ended.peak_mib <= 200
    assert 0.3 <= ended.cpu_seconds <= 5


def test_the_time_of_children_counts() -> None:
    busy = "import time\nwhile time.process_time() < 0.2: pass"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {busy!r}])"
    assert python(code).cpu_seconds >= 0.2


def test_gigabytes_of_output_are_read_and_dropped() -> None:
    code = "import sys\nwhile True: sys.stdout.buffer.write(b'y' * 65536)"
    ended = python(code, seconds=1)
    assert (ended.why, ended.truncated) == ("timeout", True)
    assert len(ended.stdout) == process.STDOUT_BYTES


def test_the_end_of_a_long_stderr_is_kept() -> None:
    ended = python("import sys; sys.stderr.write('n' * 1_000_000 + 'the error')")
    assert ended.stderr.endswith("nthe error")
    assert len(ended.stderr) == process.STDERR_BYTES
    assert not ended.truncated


def test_bytes_that_are_no_text_are_replaced() -> None:
    ended = python("import sys; sys.stdout.buffer.write(bytes(range(256)))")
    assert ended.why == "done"
    assert "�" in ended.stdout


@LINUX
def test_when_we_are_killed_the_program_is_too(tmp_path: Path) -> None:
    """The supervisor sees its standard input end."""
    note = tmp_path / "pid"
    inner = f"import os; open({str(note)!r}, 'w').write(str(os.getpid())); {PAUSE}"
    code = (
        "import sys; from conspec.benchmarks.runner.process import run_limited; "
        f"run_limited([sys.executable, '-c', {inner!r}], 600, 500)"
    )
    runner = subprocess.Popen([sys.executable, "-c", code])
    while not (note.exists() and note.read_text()):
        time.sleep(0.01)
    runner.kill()
    runner.wait()
    assert gone(int(note.read_text()))


def test_an_interrupt_kills_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    note = tmp_path / "pid"

    def interrupt(*arguments: object) -> None:
        while not (note.exists() and note.read_text()):
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "_read", interrupt)
    with pytest.raises(KeyboardInterrupt):
        python(f"import os; open({str(note)!r}, 'w').write(str(os.getpid())); {PAUSE}")
    assert not alive(int(note.read_text()))


def test_the_death_of_the_supervisor_is_no_result() -> None:
    """As when the system's memory killer takes it."""
    code = f"import os, signal; os.kill(os.getppid(), signal.SIGKILL); {PAUSE}"
    ended = python(code)
    assert (ended.why, ended.code) == ("start-failed", None)
    assert "watches the program" in ended.stderr


def test_without_proc_the_process_group_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on macOS: children in the group go, memory is measured and not limited."""
    monkeypatch.setattr(process, "PROC", str(tmp_path))
    code = "import os; data = b'x' * (50 << 20); pid = os.fork()\nif pid: print(pid, flush=True)\n"
    ended = python(code + PAUSE, seconds=1, memory_mib=30)
    assert (ended.why, ended.code) == ("timeout", -signal.SIGKILL)
    assert ended.peak_mib >= 50
    assert gone(int(ended.stdout))


@LINUX
def test_the_tree_is_found_whatever_a_process_is_called(tmp_path: Path) -> None:
    """The name in /proc/PID/stat may hold spaces, parentheses and digits."""
    zeros = " ".join(["0"] * 19)
    for pid, parent, name in [(1, 0, b"init"), (7, 1, b"a) R 9 ("), (8, 7, b"((("), (9, 1, b"x")]:
        (tmp_path / str(pid)).mkdir()
        text = b"%d (%s) S %d %s 3 0" % (pid, name, parent, zeros[2:].encode())
        (tmp_path / str(pid) / "stat").write_bytes(text)
    (tmp_path / "net").mkdir()
    found = supervisor.tree(tmp_path, 7)
    assert [(entry.pid, entry.parent) for entry in found] == [(8, 7)]
    assert {entry.pid for entry in supervisor.tree(tmp_path, 1)} == {7, 8, 9}


def test_a_folder_may_be_called_anything(tmp_path: Path) -> None:
    folder = tmp_path / "a \"quoted\" 'name' – ü {seconds}"
    folder.mkdir()
    ended = python("import os; print(ascii(os.getcwd()))", cwd=folder)
    assert ended.stdout.strip() == ascii(str(folder))


def test_another_thread_may_cancel(tmp_path: Path) -> None:
    note, cancel = tmp_path / "pid", Event()
    code = f"import os; open({str(note)!r}, 'w').write(str(os.getpid())); {PAUSE}"

    def stop() -> None:
        while not (note.exists() and note.read_text()):
            time.sleep(0.01)
        cancel.set()

    thread = Thread(target=stop)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_limited([sys.executable, "-c", code], 600, 500, cancel=cancel)
    thread.join()
    assert not alive(int(note.read_text()))
