"""The results file of a run: lines appended as soon as known, and read back to resume."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conspec.specs.errors import BadFile

Line = Mapping[str, Any]

_BEGINNING = b'{"spec":'


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked of a run; a line of an earlier run counts if it answers the same.

    Attributes:
        engine: the engine asked for.
        bundle: hash of the lens bundle.
        seconds: the time limit for each spec.
        counterexamples: how many are wanted.
        objective: which are wanted.
    """

    engine: str
    bundle: str
    seconds: float
    counterexamples: int
    objective: str

    def signed(self, line: Line) -> Line:
        """A line of this run, with the limits that it was found under."""
        limits = {
            "seconds": self.seconds,
            "counterexamples": self.counterexamples,
            "objective": self.objective,
        }
        return {**line, "limits": limits}

    def answered_by(self, line: Line) -> bool:
        """Whether a line makes a new computation needless.

        A proof stands whatever the limits were; a counterexample must be the kind asked for; and
        what was unknown is tried again if there is more time now.
        """
        if (line["engine"], line["bundle"]) != (self.engine, self.bundle):
            return False
        limits = line.get("limits") or {}
        match line["verdict"]:
            case "proved":
                return True
            case "violated":
                wanted = (self.counterexamples, self.objective)
                return (limits.get("counterexamples"), limits.get("objective")) == wanted
            case _:
                return float(limits.get("seconds", 0)) >= self.seconds


@dataclass
class Journal:
    """The results file of a run; without a path, nothing is kept."""

    path: Path | None
    lines: list[Line] = field(default_factory=list)

    def append(self, line: Line) -> None:
        """Write a line, at once and whole; with the first one, the file is made."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as stream:
            stream.write(_encoded(line))

    def answers(self, job: Job) -> dict[str, Line]:
        """Lines that answer ``job``, by the text of their spec; of several, the latest."""
        return {line["text"]: line for line in self.lines if job.answered_by(line)}


def write_lines(path: Path, lines: Iterable[Line]) -> None:
    """Write a results file anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(_encoded, lines)))


def _encoded(line: Line) -> bytes:
    return json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def open_journal(path: Path | None) -> Journal:
    """Open a results file to go on where it stops; one that is not there is empty.

    The last line of a run that was killed may be cut off; it is dropped. Nothing else is ever
    removed or changed.

    Raises:
        BadFile: the file holds something else than results lines.
    """
    if path is None or not path.exists():
        return Journal(path)
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    lines = list(_lines(data[:end], path))
    if tail := data[end:]:
        lines += _mend(path, end, tail)
    return Journal(path, lines)


def _mend(path: Path, end: int, tail: bytes) -> list[Line]:
    """Drop a last line without its end, or give a whole one its end."""
    if not (tail.startswith(_BEGINNING) or _BEGINNING.startswith(tail)):
        raise BadFile(f"{path}: its last line is not a results line; the file is left as it is")
    try:
        line = json.loads(tail)
    except ValueError:
        with path.open("rb+") as stream:
            stream.truncate(end)
        return []
    with path.open("ab") as stream:
        stream.write(b"\n")
    return [line]


def _lines(data: bytes, path: Path) -> Iterator[Line]:
    from conspec.report.records import read_record

    for number, text in enumerate(data.splitlines(), start=1):
        place = f"{path}:{number}"
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadFile(f"{place}: not a results line: {error}") from error
        read_record(line, place)
        if not {"engine", "bundle"} <= line.keys():
            raise BadFile(f"{place}: not a results line: 'engine' or 'bundle' is missing")
        yield line
