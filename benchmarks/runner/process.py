"""Run a foreign program under hard limits of time, memory and output.

The program is not trusted to end, to be small, to be quiet or to clean up: see `supervisor`, the
process that stands between it and us.
"""

import json
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Literal

from conspec.benchmarks.runner import supervisor
from conspec.specs.errors import BadUsage

Why = Literal["done", "timeout", "memory", "start-failed"]

STDOUT_BYTES = 16 << 20  # kept from the beginning: a witness of 10^5 inputs fits
STDERR_BYTES = 64 << 10  # kept from the end, where the error is
PROC = "/proc"
_GRACE = 0.5  # seconds for output that is still in a pipe when everything has ended
_LONGEST = 10_000_000.0  # seconds; select(2) takes no more than that everywhere


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended.

    Attributes:
        code: its exit code, or -N if signal N ended it, also when we sent it; None if it did
            not start.
        stdout: what it wrote there, at most the first `STDOUT_BYTES`, undecodable bytes replaced.
        stderr: the last `STDERR_BYTES`; if it did not start, the reason.
        seconds: wall-clock time until it ended or reached a limit.
        cpu_seconds: user and system time of its whole tree. A process whose parent ignores the
            death of its children is not counted by the system.
        peak_mib: the most memory the tree had: the largest sum seen, or what the system recorded
            for its largest process if that is more (a few MiB stand for the start itself).
        why: "done", also when it crashed; "timeout" and "memory": it was killed at that limit.
        truncated: it wrote more to stdout than was kept.
        survivors: processes that could not be killed (in an uninterruptible system call).
    """

    code: int | None
    stdout: str
    stderr: str
    seconds: float
    cpu_seconds: float
    peak_mib: float
    why: Why
    truncated: bool = False
    survivors: int = 0


class _Kept:
    """The first or the last bytes of a stream, and whether there were more."""

    def __init__(self, most: int, first: bool) -> None:
        self.data, self.most, self.first, self.more = bytearray(), most, first, False

    def add(self, data: bytes) -> None:
        """Take more bytes in, and drop what is too much."""
        self.data += data
        if len(self.data) > self.most:
            self.more = True
            del self.data[slice(self.most, None) if self.first else slice(-self.most)]

    def text(self) -> str:
        """The bytes as text."""
        return self.data.decode("utf-8", errors="replace")


def run_limited(
    command: Sequence[str],
    seconds: float,
    memory_mib: int,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    cancel: Event | None = None,
) -> Ended:
    """Run a command, and kill its whole process tree when it ends or reaches a limit.

    It gets an empty standard input and a session of its own. Nothing here depends on what it
    does or prints. An interrupt (Ctrl-C) goes to us alone, and kills the tree as well. Safe to
    call from several threads.

    Args:
        command: the program, looked up in PATH, and its arguments.
        seconds: the limit of wall-clock time.
        memory_mib: the limit of the resident memory of the whole tree, in MiB.
        cwd: the folder it starts in.
        env: its environment; ours if None. Threads are limited by what the caller puts here.
        cancel: when another thread sets it, the command is killed.

    Raises:
        KeyboardInterrupt: ``cancel`` was set.
        BadUsage: a limit that is not positive, or an empty command.
    """
    if not command or not 0 < seconds <= _LONGEST or memory_mib <= 0:
        raise BadUsage(
            f"a command and positive limits are needed, not {list(command)}, {seconds} s "
            f"(at most {_LONGEST:.0f}) and {memory_mib} MiB"
        )
    request = {
        "seconds": seconds,
        "memory_mib": memory_mib,
        "cwd": None if cwd is None else str(cwd),
        "proc": PROC,
    }
    reading, writing = os.pipe()
    program = [sys.executable, "-I", "-S", supervisor.__file__, str(writing), json.dumps(request)]
    try:
        process = subprocess.Popen(
            [*program, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if env is None else dict(env),
            pass_fds=(writing,),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:  # an argument too long, or one with a NUL
        os.close(reading)
        return _not_started(str(error))
    finally:
        os.close(writing)
    out, err, report = _Kept(STDOUT_BYTES, True), _Kept(STDERR_BYTES, False), bytearray()
    try:
        _read(process, reading, (out, err, report), cancel)
    finally:
        os.close(reading)
        _close(process)
    return _ended(report, out, err)


def _read(
    process: subprocess.Popen[bytes],
    reading: int,
    kept: tuple[_Kept, _Kept, bytearray],
    cancel: Event | None,
) -> None:
    """Read the three pipes until all end, or `_GRACE` seconds after the report did.

    A process that has escaped (macOS) may hold the other two open for ever.
    """
    if process.stdout is None or process.stderr is None:
        raise RuntimeError("the pipes that were asked for are missing")
    out, err, report = kept
    sinks: dict[int, Callable[[bytes], None]] = {
        process.stdout.fileno(): out.add,
        process.stderr.fileno(): err.add,
        reading: report.extend,
    }
    deadline = None
    with selectors.DefaultSelector() as selector:
        for descriptor in sinks:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            left = math.inf if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return
            if cancel is not None and cancel.is_set():
                raise KeyboardInterrupt
            for key, _ in selector.select(min(left, _GRACE)):
                data = os.read(key.fd, 1 << 16)
                sinks[key.fd](data)
                if not data:
                    selector.unregister(key.fd)
                    if key.fd == reading:
                        deadline = time.monotonic() + _GRACE


def _close(process: subprocess.Popen[bytes]) -> None:
    """End the supervisor, which kills the tree when its standard input ends."""
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()
    process.wait()


def _ended(report: bytearray, out: _Kept, err: _Kept) -> Ended:
    messages: list[dict[str, Any]] = [json.loads(line) for line in report.splitlines()]
    last = messages[-1] if messages else {}
    if last.get("why") == "start-failed":
        return _not_started(last["error"])
    if "why" not in last:  # the supervisor itself was killed, as by the system's memory killer
        for message in messages:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(message["pid"], signal.SIGKILL)
        return _not_started("the process that watches the program ended: " + err.text())
    return Ended(stdout=out.text(), stderr=err.text(), truncated=out.more, **last)


def _not_started(reason: str) -> Ended:
    return Ended(None, "", reason, 0.0, 0.0, 0.0, "start-failed")
