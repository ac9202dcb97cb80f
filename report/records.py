"""Results lines read back: what tables, figures and the HTML report are made from.

A line is what ``conspec.verifier.results.to_json`` gives; ``results.schema.json`` describes it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any

from conspec.specs.errors import BadFile

Line = Mapping[str, Any]
"""One verdict as a JSON object."""


class Outcome(StrEnum):
    """The three verdicts as words."""

    PROVED = "proved"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Share:
    """The share of held-out embeddings inside a region, with its 95 % interval.

    Attributes:
        point: the share seen, in [0, 1].
        lower: lower confidence bound.
        upper: upper confidence bound.
        n: how many embeddings were looked at.
        population: whose they are: a class, or "all".
    """

    point: float
    lower: float
    upper: float
    n: int
    population: str


@dataclass(frozen=True, slots=True)
class Near:
    """A stored image near a counterexample: its index, its name, and how far away it is."""

    image: int
    id: str
    distance: float


@dataclass(frozen=True, slots=True)
class Counterexample:
    """An embedding at which the formula fails.

    Attributes:
        margin: by how much; 0 for a tie.
        image: name of the stored image whose embedding this is, if it is a real one.
        logits: float32 logits by class, from the replay; empty without one.
        concepts: float32 concept scores, likewise.
        replayed: whether the formula fails in float32 too; None without a replay.
        neighbours: nearest stored images, nearest first.
    """

    margin: float
    image: str | None
    logits: Mapping[str, float]
    concepts: Mapping[str, float]
    replayed: bool | None
    neighbours: tuple[Near, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One verdict with all that belongs to it, in words and floats.

    Attributes:
        spec: name of the spec.
        text: the spec as written by the printer; ``formula`` and ``region`` are its parts.
        formula: see ``text``.
        region: see ``text``.
        outcome: the verdict.
        decided_by: the stage or solver that settled it.
        certified: whether the verdict rests on conspec's own arithmetic; None if unknown.
        reason: why it is unknown, else None.
        margin: of the formula; negative where violated, a lower bound where proved.
        vacuous: whether no point of the region satisfies the premise; None if not decided.
        seconds: time spent.
        coverage: of the region; None without held-out data.
        counterexamples: the witness and further ones.
        assumptions: what the verdict means and assumes beyond its region.
    """

    spec: str
    text: str
    formula: str
    region: str
    outcome: Outcome
    decided_by: str
    certified: bool | None
    reason: str | None
    margin: float | None
    vacuous: bool | None
    seconds: float
    coverage: Share | None
    counterexamples: tuple[Counterexample, ...]
    assumptions: tuple[str, ...] = ()


def read_record(line: Line, place: str = "results line") -> Record:
    """A results line as a record.

    Args:
        line: the JSON object.
        place: what errors call it, for instance ``results.jsonl:12``.

    Raises:
        BadFile: a field is missing or says something it cannot.
    """
    try:
        return _record(line)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadFile(f"{place}: not a results line: {error!r}") from error


def _record(line: Line) -> Record:
    first, others = line["counterexample"], line["more_counterexamples"]
    coverage, margin, trust = line["coverage"], line["margin"], line["trust"]
    return Record(
        spec=_text(line, "spec"),
        text=_text(line, "text"),
        formula=_text(line, "formula"),
        region=_text(line, "region"),
        outcome=Outcome(line["verdict"]),
        decided_by=_text(line, "decided_by"),
        certified=None if trust is None else trust == "certified",
        reason=None if line["reason"] is None else _text(line, "reason"),
        margin=None if margin is None else float(margin),
        vacuous=line["vacuous"],
        seconds=float(line["seconds"]),
        coverage=None if coverage is None else _share(coverage),
        counterexamples=tuple(map(_counterexample, [first, *others] if first else [])),
        assumptions=tuple(map(str, line.get("assumptions", ()))),
    )


def _text(line: Line, key: str) -> str:
    if not isinstance(line[key], str):
        raise TypeError(f"{key!r} must be a text")
    return str(line[key])


def _share(found: Line) -> Share:
    numbers = {key: float(found[key]) for key in ("point", "lower", "upper")}
    return Share(**numbers, n=int(found["n"]), population=_text(found, "population"))


def _counterexample(found: Line) -> Counterexample:
    replay = found["replay"]
    return Counterexample(
        margin=float(found["margin"]),
        image=found["image"],
        logits={} if replay is None else dict(replay["logits"]),
        concepts={} if replay is None else dict(replay["concepts"]),
        replayed=None if replay is None else bool(replay["violates"]),
        neighbours=tuple(
            Near(int(near["image"]), _text(near, "id"), float(near["distance"]))
            for near in found["neighbours"]
        ),
    )


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of a results line."""
    text = (files("conspec.report") / "results.schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
