"""One solver on one instance, from the files to the checked answer.

Nothing that a foreign program or file does ends the run: it becomes an answer with a reason.
"""

import gzip
import hashlib
import json
import os
import re
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

from conspec.benchmarks.runner import check_witness, convert
from conspec.benchmarks.runner.answers import Answer, clean, read_answer
from conspec.benchmarks.runner.instances import Instance, file_hash, file_head
from conspec.benchmarks.runner.process import STDOUT_BYTES, Ended, run_limited
from conspec.benchmarks.runner.recipe import NETWORK_OF, WORDS, Solver, filled
from conspec.benchmarks.runner.store import Found
from conspec.specs.errors import ConspecError

SEED = 0
_POOLS = ("OMP", "OPENBLAS", "MKL", "NUMEXPR")
ONE_THREAD = {f"{pool}_NUM_THREADS": "1" for pool in _POOLS} | {"VECLIB_MAXIMUM_THREADS": "1"}
"""Solvers are compared on one core; libraries would take all of them by default."""
ASIDE_SECONDS = 600.0
"""The limit of what is not the solver's time: preparing, converting, checking a witness."""
ASIDE_MIB = 8192
_MOST_UNPACKED = 4 << 30
_CHUNK = 1 << 20
_DECLARED = re.compile(r"\(\s*declare-network\s+([^\s()]+)")


class Unsupported(Exception):
    """The solver cannot be given this instance; the message says why."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """What all tasks of a run share.

    Attributes:
        category: the suite's name, which scripts of VNN-COMP want.
        cache: the folder for files made from others; made when first needed.
        memory_mib: the memory limit of a solver.
        cancel: set when the run is to stop.
    """

    category: str
    cache: Path
    memory_mib: int
    cancel: Event


def solve(solver: Solver, instance: Instance, seconds: float, workplace: Workplace) -> Found:
    """Run the solver, read its answer, and check its witness.

    Raises:
        KeyboardInterrupt: the run was cancelled meanwhile.
    """
    with TemporaryDirectory(prefix="conspec-bench-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        try:
            files = _files(solver, instance, workplace)
            ended, output = _run(solver, files, seconds, scratch, workplace)
        except (Unsupported, ConspecError) as reason:
            return Found("unsupported", detail=clean(str(reason)))
        words = {**WORDS, **solver.words}
        truncated = len(output) >= STDOUT_BYTES if solver.results else ended.truncated
        answer = read_answer(ended, output, truncated, words)
        return _checked(answer, ended, instance, scratch, workplace)


def _files(solver: Solver, instance: Instance, workplace: Workplace) -> dict[str, str]:
    """The values for the placeholders that an instance fills."""
    kind = next((kind for kind in solver.formats if kind in instance.files), None)
    if kind is None:
        kind = next((kind for kind in solver.formats if kind in convert.FORMATS), None)
        if kind is None:
            raise Unsupported(
                f"it reads {', '.join(solver.formats)}; the instance has "
                f"{', '.join(instance.files) or 'no files'}"
            )
        query = _converted(instance, kind, workplace)
    else:
        query = unpacked(instance.files[kind], workplace.cache)
    network = instance.files.get(NETWORK_OF.get(kind, ""))
    if kind in NETWORK_OF and network is None:
        raise Unsupported(f"the instance has {kind} and no {NETWORK_OF[kind]}")
    return {
        "query": str(query),
        "onnx": "" if network is None else str(unpacked(network, workplace.cache)),
        "network": _network_name(query) if kind == "vnnlib2" else "f",
        "lens": str(_lens(instance)) if kind == "spec" else "",
        "name": instance.name,
    }


def _lens(instance: Instance) -> Path:
    """The folder of the lens bundle that an instance's spec is about."""
    if "lens" not in instance.files:
        reason = instance.left_out.get("lens", "its suite names none")
        raise Unsupported(f"the instance has a spec and no lens bundle: {reason}")
    return instance.files["lens"].resolve().parent


def _network_name(query: Path) -> str:
    """The name that a VNN-LIB 2.0 query gives to its network, which its command line wants."""
    found = _DECLARED.search(file_head(query))
    if found is None:
        raise Unsupported(f"{query.name}: declares no network")
    return found[1]


def unpacked(path: Path, cache: Path) -> Path:
    """The file itself, or the content of a gzipped one, in the cache.

    Raises:
        Unsupported: it is damaged or too large.
    """
    if path.suffix != ".gz":
        return path.resolve()
    target = cache / f"{file_hash(path)[:32]}-{path.stem}"
    if target.exists():
        return target.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"{target.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with gzip.open(path) as source, draft.open("wb") as sink:
            while chunk := source.read(_CHUNK):
                sink.write(chunk)
                if sink.tell() > _MOST_UNPACKED:
                    raise Unsupported(f"{path}: more than {_MOST_UNPACKED >> 30} GiB unpacked")
        draft.replace(target)
    except (OSError, EOFError, zlib.error) as error:
        raise Unsupported(f"{path}: cannot be unpacked: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return target.resolve()


def _converted(instance: Instance, kind: str, workplace: Workplace) -> Path:
    """The instance in a format that it does not come in, made once and kept in the cache."""
    source = next((name for name in NETWORK_OF if name in instance.files), None)
    if source is None or NETWORK_OF[source] not in instance.files:
        raise Unsupported(f"the instance has no {kind}, and no VNN-LIB to make it from")
    parts = [instance.files[NETWORK_OF[source]], instance.files[source]]
    digest = hashlib.sha256("".join(map(file_hash, parts)).encode()).hexdigest()
    target = workplace.cache.resolve() / f"{digest[:32]}.{kind}"
    if not target.exists():
        workplace.cache.mkdir(parents=True, exist_ok=True)
        files = [str(unpacked(part, workplace.cache)) for part in parts]
        ended = _aside(convert.__name__, [*files, kind, str(target)], workplace)
        if ended.why != "done" or ended.code != 0:
            raise Unsupported(f"it cannot be written as {kind}: {_reason(ended)}")
    return target


def _aside(module: str, arguments: list[str], workplace: Workplace) -> Ended:
    """Run a program of ours beside the solvers."""
    command = [sys.executable, "-m", module, *arguments]
    env = {**os.environ, **ONE_THREAD}
    return run_limited(command, ASIDE_SECONDS, ASIDE_MIB, env=env, cancel=workplace.cancel)


def _reason(ended: Ended) -> str:
    if ended.why != "done":
        return f"{ended.why} ({ASIDE_SECONDS:g} s, {ASIDE_MIB} MiB)"
    lines = ended.stderr.strip().splitlines()
    return lines[-1][:300] if lines else f"exit code {ended.code}"


def _run(
    solver: Solver, files: Mapping[str, str], seconds: float, scratch: Path, workplace: Workplace
) -> tuple[Ended, str]:
    """Prepare, then run the solver in an empty folder; how it ended, and its answer's text."""
    place = scratch / "here"
    place.mkdir()
    results = scratch / "results.txt"
    values = {
        **files,
        "seconds": f"{seconds:g}",
        "results": str(results),
        "category": workplace.category,
    }
    env = {
        **os.environ, **ONE_THREAD, "PYTHONHASHSEED": str(SEED), "TMPDIR": str(place),
    }  # fmt: skip
    if solver.prepare:
        ended = run_limited(
            filled(solver.prepare, values), ASIDE_SECONDS, workplace.memory_mib, place, env,
            workplace.cancel,
        )  # fmt: skip
        if ended.why != "done" or ended.code != 0:
            raise Unsupported(f"its preparation failed: {_reason(ended)}")
    ended = run_limited(
        filled(solver.command, values), seconds, workplace.memory_mib, place, env, workplace.cancel
    )
    return ended, _head(results) if solver.results else ended.stdout


def _head(path: Path) -> str:
    """The beginning of a results file; nothing if it is no file."""
    if not path.is_file() or path.is_symlink():
        return ""
    with path.open("rb") as file:
        return file.read(STDOUT_BYTES).decode("utf-8", errors="replace")


def _checked(
    answer: Answer, ended: Ended, instance: Instance, scratch: Path, workplace: Workplace
) -> Found:
    """The answer with what its witness is worth."""
    check: dict[str, str | None] = {}
    if answer.answer == "sat":
        if answer.witness is None:
            check = {"check": "missing", "detail": answer.detail or "it gave no witness"}
        else:
            check = judge_witness(answer.witness, instance, scratch, workplace)
    left = f"{ended.survivors} of its processes could not be killed" if ended.survivors else ""
    notes = (answer.detail, check.get("detail") if answer.witness else None, left)
    return Found(
        answer=answer.answer,
        seconds=ended.seconds,
        cpu_seconds=ended.cpu_seconds,
        peak_mib=ended.peak_mib,
        detail=clean("; ".join(dict.fromkeys(note for note in notes if note))),
        witness=answer.witness,
        witness_check=check.get("check"),
        float32_check=check.get("float32"),
    )


def judge_witness(
    witness: str, instance: Instance, scratch: Path, workplace: Workplace
) -> dict[str, str | None]:
    """The check of a witness against the instance's own files, whatever the solver read.

    The inputs of all formats of an instance are the same.
    """
    note = scratch / "witness.txt"
    note.write_text(witness, encoding="utf-8")
    try:
        question = _question(instance, workplace.cache)
    except (Unsupported, ConspecError) as reason:
        return {"check": None, "detail": f"witness not checked: {reason}"}
    ended = _aside(check_witness.__name__, [str(note), *question], workplace)
    if ended.why == "done" and ended.code == 0:
        found: dict[str, str | None] = json.loads(ended.stdout.splitlines()[-1])
        return found
    return {"check": None, "detail": f"witness not checked: {_reason(ended)}"}


def _question(instance: Instance, cache: Path) -> list[str]:
    """What `check_witness` reads of an instance: that which says most about a witness."""
    files = instance.files
    for query, network in NETWORK_OF.items():
        if query in files and network in files:
            return [str(unpacked(files[kind], cache)) for kind in (query, network)]
    if "spec" in files and "lens" in files:
        return [str(unpacked(files["spec"], cache)), str(_lens(instance)), instance.name]
    if "smt2" in files:
        return [str(unpacked(files["smt2"], cache))]
    raise Unsupported("it has no VNN-LIB, no spec with its bundle and no SMT-LIB")
