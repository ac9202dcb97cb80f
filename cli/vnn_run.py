"""``conspec vnn run``: every instance of a list, one process each, resumable."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from time import monotonic

from conspec.benchmarks.runner.instances import Instance, read_suite
from conspec.cli.console import progress, say
from conspec.cli.exits import Exit
from conspec.cli.vnn_process import answered, checked_seconds
from conspec.cli.vnn_worker import Answer, Job
from conspec.specs.errors import BadFile, BadUsage, ConspecError

HEADER = ("instance", "onnx", "vnnlib", "result", "seconds", "engine", "timeout")
ERROR = "error"
_WORDS = {"timed-out": "timeout"}
"""VNN-COMP's word where it differs from the standard's."""


def run_instances(table: Path, out: Path, engine: str, timeout: float | None, real: bool) -> Exit:
    """Decide what is not decided yet; each result is appended as soon as it is known.

    Raises:
        BadFile: the list or an earlier results file cannot be read.
        BadUsage: the results file was made with other options, or cannot be there.
    """
    if not out.parent.is_dir():
        raise BadUsage(f"--out {out}: there is no folder {out.parent}")
    instances = read_suite(table).instances
    asked = [instance for instance in instances if _files(instance) is not None]
    if others := [instance.name for instance in instances if instance not in asked]:
        some = ", ".join(others[:5]) + (", …" if len(others) > 5 else "")
        say(f"{len(others)} instances have no VNN-LIB and are left out: {some}")
    jobs = {instance.name: _job(instance, engine, timeout, real) for instance in asked}
    results = _opened(out, jobs)
    witnesses = out.with_name(f"{out.stem}-witnesses")
    try:
        with progress() as advance:
            for name, job in jobs.items():
                advance(table.name, len(results), len(jobs))
                if name not in results:
                    results[name] = _decided(name, job, out, witnesses)
            advance(table.name, len(results), len(jobs))
    except KeyboardInterrupt:
        say(
            f"interrupted after {len(results)} of {len(jobs)} instances; the same command continues"
        )
        raise
    words = list(results.values())
    counts = ", ".join(f"{words.count(word)} {word}" for word in sorted(set(words)))
    say(f"{len(words)} instances: {counts}; results in {out}")
    return Exit.BAD_INPUT if ERROR in words else Exit.PROVED


def _files(instance: Instance) -> tuple[Path, Path] | None:
    """The instance's VNN-LIB and network, of version 1.0 if it has one; None if it has neither."""
    for query, model in (("vnnlib1", "onnx"), ("vnnlib2", "onnx2")):
        if query in instance.files and model in instance.files:
            return instance.files[query], instance.files[model]
    return None


def _job(instance: Instance, engine: str, timeout: float | None, real: bool) -> Job:
    """What is asked about an instance that has VNN-LIB."""
    found = _files(instance)
    if found is None:
        raise BadUsage(f"instance {instance.name} has no VNN-LIB")
    query, model = found
    seconds = checked_seconds(instance.seconds if timeout is None else timeout)
    return Job(str(query), str(model), None, engine, seconds, real)


def _decided(name: str, job: Job, out: Path, witnesses: Path) -> str:
    """The result of one instance, written down."""
    start = monotonic()
    try:
        answer = answered(job)
    except ConspecError as error:
        answer = Answer(ERROR, notes=(str(error),))
    seconds = monotonic() - start
    word = _WORDS.get(answer.word, answer.word)
    for note in answer.notes:
        if word in (ERROR, "unknown") or note.startswith("warning: "):
            say(f"{name}: {note}")
    if answer.witness:
        witnesses.mkdir(exist_ok=True)
        place = witnesses / f"{name}.counterexample"
        place.write_text(f"sat\n{answer.witness}", encoding="utf-8")
    with out.open("a", encoding="utf-8", newline="") as stream:
        stream.write(_line(name, *_inputs(job), word, f"{seconds:.3f}", *_options(job)))
    return word


def _inputs(job: Job) -> tuple[str, str]:
    return job.model, job.query


def _options(job: Job) -> tuple[str, str]:
    return job.engine + ("-real" if job.real else ""), f"{job.seconds:g}"


def _line(*fields: str) -> str:
    """One line of the results file."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(fields)
    return buffer.getvalue()


def _opened(out: Path, jobs: Mapping[str, Job]) -> dict[str, str]:
    """The results that are there already; a last line that was cut short is dropped."""
    header = _line(*HEADER)
    try:
        data = out.read_bytes() if out.exists() else b""
        end = data.rfind(b"\n") + 1
        lines = data[:end].decode("utf-8").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise BadFile(f"{out}: no UTF-8 text (byte {error.start})") from None
    if not lines:
        if data and not header.encode().startswith(data):
            raise BadFile(f"{out}: this is no file of results; choose another --out")
        out.write_text(header, encoding="utf-8", newline="")
        return {}
    if lines[0] != header:
        raise BadFile(f"{out}: this is no file of results; choose another --out")
    done = {}
    for number, fields in enumerate(csv.reader(lines[1:]), start=2):
        name = fields[0] if len(fields) == len(HEADER) else ""
        job = jobs.get(name)
        if job is None or (fields[1], fields[2], *fields[5:]) != (*_inputs(job), *_options(job)):
            raise BadUsage(
                f"{out}:{number}: a result of another list or of other options; "
                "choose another --out"
            )
        done[name] = fields[3]
    # Errors are asked about again: the files may have been mended.
    kept = [line for line, word in zip(lines[1:], done.values(), strict=True) if word != ERROR]
    if end < len(data) or len(kept) < len(done):
        draft = out.with_name(f"{out.name}.new")
        draft.write_text(header + "".join(kept), encoding="utf-8", newline="")
        draft.replace(out)
    return {name: word for name, word in done.items() if word != ERROR}
