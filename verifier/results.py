"""One verdict with all that belongs to it, and its line in a results file (DESIGN.md 9)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.regions import Part
from conspec.encodings.rounding import Bools, Floats
from conspec.encodings.scores import ScoreSpace
from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.verifier import certificate
from conspec.verifier.probability.intervals import clopper_pearson as clopper_pearson
from conspec.verifier.screen import values_at
from conspec.verifier.verdict import Proved, Unknown, Verdict, Violated, Witness


@dataclass(frozen=True, slots=True)
class Coverage:
    """The share of held-out embeddings inside a region, with a Clopper–Pearson interval.

    Assumes that the held-out images are independent draws of the population named.

    Attributes:
        point: the share seen.
        lower: lower confidence bound, two-sided 95 %.
        upper: upper confidence bound, two-sided 95 %.
        n: how many held-out embeddings were looked at.
        population: whose they are: a class name, or "all".
    """

    point: float
    lower: float
    upper: float
    n: int
    population: str


@dataclass(frozen=True, slots=True)
class Result:
    """What verifying one spec gave.

    Attributes:
        spec: the spec.
        engine: the engine asked for.
        verdict: the verdict over the whole region (all parts of a union).
        seconds: wall-clock time spent on it; work shared by a batch is divided evenly.
        coverage: how much of the held-out data the region holds; None without held-out data.
        decided_by: the stage or solver that settled it.
        assumptions: what the verdict means and assumes beyond its region; see
            ``alignment_margin``.
    """

    spec: f.ForAll
    engine: str
    verdict: Verdict
    seconds: float
    coverage: Coverage | None
    decided_by: str
    assumptions: tuple[str, ...] = ()


def coverage_of(
    expression: f.Region, parts: Sequence[Part], lens: Lens, space: ScoreSpace
) -> Coverage | None:
    """The share of held-out embeddings in the union of the parts; None without held-out data.

    Regions made for a class are measured on that class's images, others on all images.
    """
    label = _population(expression)
    chosen = lens.embeddings.heldout
    if label is not None:
        chosen = chosen & (lens.embeddings.label == lens.class_index(label))
    points = lens.embeddings.z[chosen]
    if not len(points):
        return None
    count, total = int(inside(parts, space, points).sum()), len(points)
    lower, upper = clopper_pearson(count, total)
    return Coverage(count / total, lower, upper, total, label or "all")


def inside(parts: Sequence[Part], space: ScoreSpace, points: NDArray[np.float32] | Floats) -> Bools:
    """Which finite points [N, n] lie in one of a region's parts: bool [N]; for statistics only."""
    found = np.zeros(len(points), dtype=np.bool_)
    for part in parts:
        members = part.region.members(points)
        if part.cuts:
            met = values_at(space, part.cuts, points.astype(np.float64)) >= 0
            members = members & met.all(axis=0)
        found |= members
    return found


def _population(expression: f.Region) -> str | None:
    """The one class that a region speaks of, or None."""
    match expression:
        case f.Focus(label) | f.PcaBox(label) | f.Zonotope(label) | f.Ellipsoid(label):
            return label
        case f.Hull(label):
            return label
        case f.Both(parts) | f.Either(parts):
            labels = {_population(part) for part in parts} - {None}
            return labels.pop() if len(labels) == 1 else None
        case f.Ball() | f.Box() | f.Polytope():
            return None


@cache
def versions() -> Mapping[str, str]:
    """Versions of what a verdict may depend on; looked up once, since that reads files."""
    names = ("conspec", "z3-solver", "highspy", "gurobipy", "pyscipopt", "numpy", "onnxruntime")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def to_json(result: Result, lens: Lens) -> dict[str, Any]:
    """The result as one JSON object with the fields of DESIGN.md 9."""
    from conspec.specs.printer import to_text

    verdict = result.verdict
    word, trust, reason, margin = _summary(verdict)
    return {
        "spec": result.spec.name,
        "formula": to_text(result.spec.body),
        "region": to_text(result.spec.region),
        "text": to_text(result.spec),
        "engine": result.engine,
        "decided_by": result.decided_by,
        "verdict": word,
        "trust": trust,
        "reason": reason,
        "margin": margin,
        "vacuous": verdict.vacuous if isinstance(verdict, Proved) else None,
        "seconds": result.seconds,
        "coverage": _coverage(result.coverage),
        "assumptions": list(result.assumptions),
        "counterexample": (
            witness_json(verdict.witness, lens) if isinstance(verdict, Violated) else None
        ),
        "more_counterexamples": (
            [witness_json(other, lens) for other in verdict.others]
            if isinstance(verdict, Violated)
            else []
        ),
        "certificate": _certificate(verdict),
        "bundle": lens.hash,
        "versions": dict(versions()),
    }


def _summary(verdict: Verdict) -> tuple[str, str | None, str | None, float | None]:
    """The verdict's word, trust, reason and margin of the formula (negative if violated)."""
    match verdict:
        case Proved(trust, bound):
            return "proved", trust.value, None, bound
        case Violated(witness):
            return "violated", "certified", None, -float(witness.margin)
        case Unknown(reason, detail):
            text = f"{reason.value} {detail}".strip()
            return "unknown", None, text, None


def _certificate(verdict: Verdict) -> dict[str, Any] | None:
    """The certificate of a proof, if it has one."""
    if not isinstance(verdict, Proved) or verdict.certificate is None:
        return None
    return certificate.to_json(verdict.certificate)


def _coverage(coverage: Coverage | None) -> Mapping[str, Any] | None:
    """Coverage as JSON."""
    if coverage is None:
        return None
    return {
        "point": coverage.point,
        "lower": coverage.lower,
        "upper": coverage.upper,
        "n": coverage.n,
        "population": coverage.population,
    }


def witness_json(witness: Witness, lens: Lens) -> dict[str, Any]:
    """A counterexample as JSON: exact coordinates as strings, the rest as floats."""
    replay = witness.replay
    return {
        "z": [str(value) for value in witness.point.fractions()],
        "parameters": None
        if witness.parameters is None
        else [str(value) for value in witness.parameters.fractions()],
        "part": witness.part,
        "margin": float(witness.margin),
        "exact_margin": str(witness.margin),
        "image": None if witness.image is None else lens.image_ids[witness.image],
        "replay": None
        if replay is None
        else {
            "violates": replay.violates,
            "logits": dict(zip(lens.classes, replay.logits, strict=True)),
            "concepts": dict(zip(lens.concepts, replay.concepts, strict=True)),
        },
        "neighbours": [
            {
                "image": near.image,
                "id": lens.image_ids[near.image],
                "distance": near.distance,
            }
            for near in witness.neighbours
        ],
    }
