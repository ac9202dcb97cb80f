"""One VNN-LIB problem in a process of its own: ``python -m conspec.cli.vnn_worker query=FILE …``.

The arguments are the fields of `Job`. Word and witness are printed as the standard has them, notes
on standard error. What decides may hang in a solver or fill the memory; so ``conspec vnn`` runs it
here, under limits, and can always answer in time. ``conspec bench run``, which has its own limits,
calls it at once.
"""

import gzip
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING

from conspec.cli.exits import Exit
from conspec.specs.errors import BadFile, BadUsage, ConspecError

if TYPE_CHECKING:
    from conspec.encodings.exact import Vector
    from conspec.encodings.network import Network
    from conspec.encodings.query import Query
    from conspec.encodings.vnnlib2_reader import BehindHidden
    from conspec.encodings.vnnlib_property import Property
    from conspec.verifier.verdict import Verdict, Violated

MOST_BYTES = 2**31
"""Of an unpacked network."""
NOTE = "note: "
"""What a line of notes begins with."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked.

    Attributes:
        query: the VNN-LIB file.
        model: the ONNX file, perhaps packed (``.gz``).
        name: what the user calls the network; None if it may have any name.
        engine: as in `conspec.verifier.verify`.
        seconds: time for everything.
        real: whether float types of VNN-LIB 2.0 are read as real numbers.
    """

    query: str
    model: str
    name: str | None
    engine: str
    seconds: float
    real: bool = False

    def arguments(self) -> list[str]:
        """The job as arguments of this program."""
        found = [f"query={self.query}", f"model={self.model}", f"engine={self.engine}"]
        found.append(f"seconds={self.seconds!r}")
        found += [] if self.name is None else [f"name={self.name}"]
        return [*found, "real=yes"] if self.real else found

    @classmethod
    def of(cls, arguments: Sequence[str]) -> "Job":
        """The job that arguments of this program describe."""
        given = dict(argument.split("=", 1) for argument in arguments)
        query, model, engine = given["query"], given["model"], given["engine"]
        return cls(
            query, model, given.get("name"), engine, float(given["seconds"]), "real" in given
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What came out.

    Attributes:
        word: ``sat``, ``unsat``, ``unknown`` or ``timed-out``.
        witness: its lines, in the format of the standard; empty if there is none.
        notes: what a reader must know besides, one sentence each.
    """

    word: str
    witness: str = ""
    notes: tuple[str, ...] = ()


def main(arguments: Sequence[str]) -> int:
    """Decide the job in the arguments; `Exit.BAD_INPUT` if its files are at fault."""
    start = monotonic()
    try:
        answer = decide(Job.of(arguments), start)
    except (ConspecError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return Exit.BAD_INPUT
    for note in answer.notes:
        print(NOTE + " ".join(note.split()), file=sys.stderr)
    print(answer.word)
    print(answer.witness, end="")
    return 0


def decide(job: Job, start: float) -> Answer:
    """Read, decide, and replay what was found.

    Raises:
        ConspecError: the files or the words of the job are at fault.
    """
    from conspec.encodings.onnx_reader import read_network
    from conspec.encodings.vnnlib_problem import check_shapes
    from conspec.encodings.vnnlib_reader import read_behind, read_property

    hidden = read_behind(Path(job.query))
    prop = read_property(Path(job.query)) if hidden is None else hidden.property
    _check_words(job, prop)
    deadline = start + job.seconds
    with _unpacked(Path(job.model)) as model:
        if hidden is not None:
            return _decide_behind(job, hidden, model, deadline)
        network = read_network(model)
        check_shapes(prop, model)
        return _decide(job, prop, network, model, deadline)


def _decide_behind(job: Job, hidden: "BehindHidden", model: Path, deadline: float) -> Answer:
    """``unsat`` if no value of the hidden tensor satisfies the query; more is not known.

    Each input gives some value of the hidden tensor, so ``unsat`` of the part behind it is
    ``unsat`` of the whole. A value that satisfies the query may be one that no input gives.
    """
    from conspec.encodings.onnx_behind import network_behind

    prop = hidden.property
    behind = _decide(job, prop, network_behind(model, hidden.tensor), None, deadline)
    scope = (
        f"only the network behind {prop.inputs.name} was looked at; assertions about the input "
        f"alone were left aside: {hidden.aside}"
    )
    if behind.word == "sat":
        reached = (
            f"some value of {prop.inputs.name} satisfies the query, but perhaps no input gives it"
        )
        return Answer("unknown", notes=(behind.notes[0], scope, reached))
    return Answer(behind.word, notes=(*behind.notes, scope))


def _check_words(job: Job, prop: "Property") -> None:
    """Refuse a wrong name of the network, and element types that are not proved about."""
    if prop.network and job.name is not None and job.name != prop.network:
        raise BadUsage(
            f"{job.query}: the network is called {prop.network}; write "
            f"--network {prop.network}={job.model}"
        )
    kinds = {prop.inputs.kind, prop.outputs.kind} - {"real"}
    if kinds and not job.real:
        raise BadUsage(
            f"{job.query}: it declares {' and '.join(sorted(kinds))}, so it asks about IEEE "
            "floating-point arithmetic, but conspec proves statements about the real-number "
            "function with the file's weights. Declare real instead (VNN-LIB 2.0, Real "
            "queries), or accept that reading with --real"
        )


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """The ONNX file itself; of a packed one, a copy for the time being."""
    if path.suffix != ".gz":
        yield path
        return
    with TemporaryDirectory() as folder:
        copy = Path(folder) / path.stem
        try:
            with gzip.open(path) as packed:
                data = packed.read(MOST_BYTES + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise BadFile(f"{path}: damaged gzip file: {error}") from None
        if len(data) > MOST_BYTES:
            raise BadFile(f"{path}: larger than the limit {MOST_BYTES} bytes")
        copy.write_bytes(data)
        yield copy


def _decide(
    job: Job, prop: "Property", network: "Network", model: Path | None, deadline: float
) -> Answer:
    """The answer about a network; a witness is replayed if its model is given."""
    from conspec.encodings.vnnlib_property import queries_of
    from conspec.verifier.verdict import Proved, Trust, Violated

    queries = queries_of(prop, network)
    notes = [_reading(prop)]
    if len(queries) > 1:
        notes.append(f"the inputs were split into {len(queries)} sets")
    verdicts = []
    for query, verdict in _verdicts(queries, job.engine, deadline):
        if isinstance(verdict, Violated):
            return _sat(prop, query, verdict, model, notes)
        verdicts.append(verdict)
    left = [verdict for verdict in verdicts if not isinstance(verdict, Proved)]
    if left:
        return _unknown(left, notes)
    proofs = [verdict for verdict in verdicts if isinstance(verdict, Proved)]
    if any(proof.trust is Trust.SOLVER for proof in proofs):
        notes.append("unsat has no certificate: it rests on linear bounds, or on a solver's word")
    else:
        notes.append("unsat was established by conspec itself, in exact or rigorous arithmetic")
    return Answer("unsat", notes=tuple(notes))


def _reading(prop: "Property") -> str:
    """About which numbers the answer speaks."""
    if prop.inputs.kind == prop.outputs.kind == "real":
        return "the answer is about real-number arithmetic with the file's exact weights"
    return (
        f"warning: the query declares {prop.inputs.kind} and {prop.outputs.kind}; by --real the "
        "answer is about real-number arithmetic and may differ from IEEE arithmetic"
    )


def _verdicts(
    queries: Sequence["Query"], engine: str, deadline: float
) -> Iterator[tuple["Query", "Verdict"]]:
    """The verdict of each query; what is cheap comes first, the rest shares the time left."""
    from conspec.verifier.decide import Limits, verify
    from conspec.verifier.verdict import Reason, Unknown

    hard = []
    for query in queries:
        verdict = verify(query, "box") if len(queries) > 1 else None
        if verdict is None or isinstance(verdict, Unknown):
            hard.append(query)
        else:
            yield query, verdict
    for place, query in enumerate(hard):
        left = deadline - monotonic()
        if left > 0:
            yield query, verify(query, engine, Limits(left / (len(hard) - place)))
        else:
            yield query, Unknown(Reason.TIME_LIMIT)


def _unknown(left: Sequence["Verdict"], notes: list[str]) -> Answer:
    """What to say when something stayed open."""
    from conspec.verifier.verdict import Reason, Unknown

    reasons: list[Unknown] = [verdict for verdict in left if isinstance(verdict, Unknown)]
    notes += dict.fromkeys(f"{found.reason.value} {found.detail}".strip() for found in reasons)
    is_late = all(found.reason is Reason.TIME_LIMIT for found in reasons)
    return Answer("timed-out" if is_late else "unknown", notes=tuple(notes))


def _sat(
    prop: "Property", query: "Query", found: "Violated", model: Path | None, notes: list[str]
) -> Answer:
    """The witness, exact over the reals, and what onnxruntime makes of it."""
    from conspec.encodings.vnnlib_witness import printable, write_witness

    point = printable(prop, query, found.witness.point)
    if point is None:
        notes.append("the point found does not satisfy the file's own words; please report this")
        return Answer("unknown", notes=tuple(notes))
    text, is_rounded = write_witness(prop, query.space.head, point.point)
    notes.append(f"the witness is exact over the reals; its inputs are {point.form.value}")
    if is_rounded:
        notes.append("outputs in the witness are the exact ones rounded to 17 digits")
    if model is not None:
        notes += _replayed(prop, query.space.head, model, point.point)
    return Answer("sat", text, tuple(notes))


def _replayed(prop: "Property", network: "Network", model: Path, point: "Vector") -> Iterator[str]:
    """Sentences about the replay through onnxruntime."""
    from conspec.encodings.vnnlib_replay import replay

    try:
        found = replay(model, prop, point)
    except BadFile as error:
        yield f"warning: no replay: {error}"
        return
    given = "the witness" if found.is_same_input else "the witness rounded to its input type"
    about = f"replay of {given} through onnxruntime ({found.kind})"
    if found.satisfied:
        yield f"{about}: the condition holds there too"
    else:
        yield (
            f"warning: {about}: the condition does not hold there; a checker in floating point "
            "may refuse the witness"
        )
    if found.is_same_input and not _agrees(network, point, found.outputs):
        yield (
            "warning: the outputs of that replay differ from the exact ones by more than "
            "rounding in float32 explains; please report this network"
        )


def _agrees(network: "Network", point: "Vector", outputs: Sequence[float]) -> bool:
    """Whether outputs in float32 are those of the exact network, up to rounding."""
    import numpy as np

    from conspec.verifier.witness import single_precision_room

    expected, room = single_precision_room(network, point.floats()[None])
    return bool(np.all(np.abs(np.asarray(outputs) - expected[0]) <= room[0]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
