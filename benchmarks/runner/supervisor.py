"""Run one command, watch its whole process tree, and leave nothing of it behind.

`process.run_limited` starts this file as a program of its own, one for each command::

    python -I -S supervisor.py REPORT_FD REQUEST COMMAND…

and so one command's orphans, zombies and CPU time never mix with another's. It uses the standard
library alone. REQUEST is a JSON object with ``seconds``, ``memory_mib``, ``cwd`` and ``proc``.
Two lines of JSON go to the file descriptor REPORT_FD: the command's process id when it has
started, and how it ended.

On Linux the supervisor is a *child subreaper* (prctl(2)): a process whose parent has died becomes
its child. So "every descendant of the supervisor" is the whole tree, whatever new sessions, double
forks or cleaned environments the command uses, and /proc lists it. Without /proc (macOS) only the
command's process group is known: a child that leaves the group escapes, and memory is measured
at the end but not limited.

The memory limit is on the resident memory of the tree, looked at every `POLL` seconds. RLIMIT_AS
would be exact, but it limits reserved addresses: torch, onnxruntime, CUDA and the allocators'
arenas for threads reserve many gigabytes that they never touch, and it counts each process alone.

When standard input ends, whoever started the supervisor is gone, and the tree is killed.
"""

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

POLL = 0.05  # seconds between two looks at the tree
LAST = 5.0  # seconds in which killed processes must be gone
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER in linux/prctl.h
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Process:
    """A line of the process table; ``resident`` in bytes."""

    pid: int
    parent: int
    resident: int


@dataclass(slots=True)
class Watch:
    """What has been seen of the command: its status, once it ended, and the tree's peak (bytes)."""

    pid: int
    proc: Path | None
    status: int | None = None
    peak: int = 0


def tree(proc: Path, root: int) -> list[Process]:
    """All descendants of the process ``root``, zombies too, by the files of ``proc``."""
    children: dict[int, list[Process]] = {}
    for process in _table(proc):
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    front = [root]
    while front:
        for process in children.pop(front.pop(), []):
            found.append(process)
            front.append(process.pid)
    return found


def _table(proc: Path) -> Iterator[Process]:
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        try:
            with open(f"{proc}/{name}/stat", "rb") as file:
                text = file.read()
        except OSError:  # it has just ended
            continue
        # proc(5): "pid (name) state ppid …"; the name may hold spaces and parentheses.
        fields = text[text.rfind(b")") + 2 :].split()
        yield Process(int(name), int(fields[1]), max(int(fields[21]), 0) * _PAGE)


def used(proc: Path, processes: list[Process], limit: int) -> int:
    """Bytes of memory of the processes.

    The sum of resident sizes counts a page that forked processes share once for each of them. It
    is used while it is below the limit; above it, the proportional sizes decide, which are slower
    to get and count each page once.
    """
    resident = sum(process.resident for process in processes)
    if resident <= limit:
        return resident
    return sum(_proportional(proc, process) for process in processes)


def _proportional(proc: Path, process: Process) -> int:
    try:
        with open(f"{proc}/{process.pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:  # it has ended, or the kernel has no such file
        return process.resident
    return 0  # a zombie: the file is empty


def reap(watch: Watch) -> None:
    """Collect every child that has ended."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == watch.pid:
                watch.status = ended[1]


def watch_until_end(
    watch: Watch, seconds: float, memory: int, wait: Callable[[float], bool]
) -> str:
    """Return why the command has ended or must: done, timeout, memory or orphaned.

    Args:
        watch: the command.
        seconds: the limit of wall-clock time.
        memory: the limit in bytes.
        wait: waits so many seconds at most; False when whoever wanted the result is gone.
    """
    deadline = time.monotonic() + seconds
    while True:
        reap(watch)
        if watch.status is not None:
            return "done"
        if (left := deadline - time.monotonic()) <= 0:
            return "timeout"
        if watch.proc is not None:
            now = used(watch.proc, tree(watch.proc, os.getpid()), memory)
            watch.peak = max(watch.peak, now)
            if now > memory:
                return "memory"
        if not wait(min(POLL, left)):
            return "orphaned"


def kill_tree(watch: Watch) -> int:
    """Kill all that is left of the command; return how many processes would not go."""
    deadline = time.monotonic() + LAST
    while True:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(watch.pid, signal.SIGKILL)
        reap(watch)
        if watch.proc is None:
            left = int(watch.status is None)
        else:
            processes = tree(watch.proc, os.getpid())
            left = len(processes)
            for process in processes:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process.pid, signal.SIGKILL)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.002)


def main(arguments: list[str]) -> None:
    """Run the command as the module says."""
    report, request, command = int(arguments[0]), json.loads(arguments[1]), arguments[2:]
    proc = Path(request["proc"])
    watched = proc if (proc / "self" / "stat").exists() and _become_subreaper() else None
    wait = _waiting()
    started = time.monotonic()
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, cwd=request["cwd"], start_new_session=True
        )
    except (OSError, ValueError) as error:
        _send(report, {"why": "start-failed", "error": str(error)})
        return
    _send(report, {"pid": child.pid})
    watch = Watch(child.pid, watched)
    why = watch_until_end(watch, request["seconds"], request["memory_mib"] * _MIB, wait)
    seconds = time.monotonic() - started
    survivors = kill_tree(watch)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    largest = spent.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    child.returncode = 0  # it was collected here; Popen need not look for it
    ended: dict[str, object] = {
        "why": why,
        "code": None if watch.status is None else os.waitstatus_to_exitcode(watch.status),
        "seconds": seconds,
        "cpu_seconds": spent.ru_utime + spent.ru_stime,
        "peak_mib": max(watch.peak, largest) / _MIB,
        "survivors": survivors,
    }
    _send(report, ended)


def _become_subreaper() -> bool:
    import ctypes

    try:
        return bool(ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def _waiting() -> Callable[[float], bool]:
    """A wait that ends early when a child ends, and is False when standard input has ended."""
    inner, outer = os.pipe()
    os.set_blocking(inner, False)
    os.set_blocking(outer, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(outer, warn_on_full_buffer=False)

    def wait(seconds: float) -> bool:
        ready = select.select([0, inner], [], [], seconds)[0]
        if inner in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(inner, 4096)
        return not (0 in ready and os.read(0, 1) == b"")

    return wait


def _send(report: int, message: dict[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(report, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
