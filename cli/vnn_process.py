"""Running a VNN-LIB problem in a process of its own, and reading what it says."""

import os
import sys

from conspec.benchmarks.runner.process import Ended, run_limited
from conspec.cli.vnn_worker import NOTE, Answer, Job
from conspec.specs.errors import BadFile, BadUsage

WORDS = ("sat", "unsat", "unknown", "timed-out")


def answered(job: Job) -> Answer:
    """The answer to a job within its time, whatever happens to the process.

    Raises:
        BadFile: its files or words are at fault; the message is the reader's own.
    """
    program = [sys.executable, "-P", "-m", "conspec.cli.vnn_worker", *job.arguments()]
    return _read(run_limited(program, job.seconds, _memory_mib()))


def _read(ended: Ended) -> Answer:
    """What the process said, or what became of it."""
    if ended.why == "timeout":
        return Answer("timed-out")
    if ended.why == "memory":
        return Answer("unknown", notes=("the memory of this machine did not suffice",))
    lines = ended.stderr.strip().splitlines()
    if ended.code == 3 and lines:
        raise BadFile(lines[-1].removeprefix("error: "))
    word, _, witness = ended.stdout.partition("\n")
    notes = tuple(line.removeprefix(NOTE) for line in lines if line.startswith(NOTE))
    is_whole = word in WORDS and bool(witness) == (word == "sat")
    if ended.code == 0 and is_whole:
        return Answer(word, witness, notes)
    last = f": {lines[-1]}" if lines else ""
    return Answer("unknown", notes=(f"the process ended with code {ended.code}{last}",))


def _memory_mib() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def checked_seconds(seconds: float) -> float:
    """The time limit, if it is one.

    Raises:
        BadUsage: it is not positive, or endless.
    """
    if not 0 < seconds < 10**7:
        raise BadUsage(f"--timeout {seconds}: give seconds above 0 and below 10,000,000")
    return seconds
