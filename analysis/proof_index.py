"""A monitor that knows the proofs: what has been proved of the region that an embedding lies in.

For a box, "z lies in it" is decided exactly by two comparisons of floats an entry: a float z is
at least an exact bound if and only if it is at least the smallest float of its kind that is. So
no rounding enters, and a thousand boxes take microseconds.

What follows is certain: if z lies in R and φ was proved over R, then φ holds at z, in real
arithmetic with the stored weights (docs/soundness.md). It is as sure as the proofs; run
``conspec check`` on the results first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from conspec.analysis.heatmaps import Bools
from conspec.encodings.exact import Vector, from_array
from conspec.encodings.membership import Undecided
from conspec.encodings.query import evaluate_at, space_of
from conspec.encodings.regions import Box, Part, build_regions
from conspec.encodings.scores import ScoreSpace
from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadFile, BadUsage
from conspec.specs.parser import parse
from conspec.specs.rewrite import All

_CELLS = 1 << 22
"""Comparisons held at once."""


@dataclass(frozen=True, slots=True)
class Guarantee:
    """One proved spec.

    Attributes:
        spec: the spec.
        trust: "certified" or "solver".
        assumptions: what the proof assumes beyond its region; see ``verifier.alignment_margin``.
    """

    spec: f.ForAll
    trust: str
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Place:
    """One region, and the guarantees that were proved over it."""

    parts: tuple[Part, ...]
    guarantees: tuple[Guarantee, ...]


@dataclass(frozen=True, eq=False)
class Walls:
    """R boxes as floats of one kind, so that comparing with them is exact.

    Attributes:
        lower: the smallest floats inside, [R, n].
        upper: the largest floats inside, [R, n].
    """

    lower: NDArray[Any]
    upper: NDArray[Any]

    @classmethod
    def of(cls, boxes: Iterable[Box], kind: type[np.floating[Any]]) -> Self:
        """The walls of boxes for points in float32 or float64."""
        rows = [(_inward(box.lower, kind, 1), _inward(box.upper, kind, -1)) for box in boxes]
        return cls(*(np.array(side) for side in zip(*rows, strict=True)))

    def hold(self, points: NDArray[Any]) -> Bools:
        """Which points [N, n] lie in which boxes: bool [N, R]."""
        found = np.empty((len(points), len(self.lower)), dtype=np.bool_)
        step = max(1, _CELLS // max(self.lower.size, 1))
        for start in range(0, len(points), step):
            rows = points[start : start + step, None]
            inside = (rows >= self.lower) & (rows <= self.upper)
            inside.all(axis=2, out=found[start : start + step])
        return found


def _inward(bounds: Vector, kind: type[np.floating[Any]], side: int) -> NDArray[Any]:
    """The floats nearest to exact bounds on one side: at least (1) or at most (−1) each."""
    away = kind(side * np.inf)
    with np.errstate(over="ignore"):
        values = bounds.floats().astype(kind)
    for place, exact in enumerate(bounds.fractions()):
        # Two roundings to nearest leave at most one step to go, in either direction.
        before = np.nextafter(values[place], -away)
        for value in (before, values[place], np.nextafter(values[place], away)):
            if _beyond(value, exact, side):
                values[place] = value
                break
    return values


def _beyond(value: Any, exact: Fraction, side: int) -> bool:
    """Whether a float is at least (1) or at most (−1) the exact number."""
    if not np.isfinite(value):
        return bool(value * side > 0)
    return (Fraction(float(value)) - exact) * side >= 0


class ProofIndex:
    """The proved specs of a results file, to be asked for by embedding.

    Attributes:
        guarantees: all of them, in the order of the file.
    """

    def __init__(self, results: Iterable[Mapping[str, Any]], lens: Lens) -> None:
        """Build the regions; lines that are not proved, or proved vacuously, are passed over.

        Args:
            results: lines of ``conspec verify --jsonl``.
            lens: the bundle that they are about.

        Raises:
            BadFile: a line is about another bundle, or its text is not a spec.
        """
        by_region: dict[f.Region, list[Guarantee]] = {}
        for number, line in enumerate(results, start=1):
            if line.get("verdict") != "proved" or line.get("vacuous"):
                continue
            if line.get("bundle") != lens.hash:
                raise BadFile(f"results line {number}: proved of another bundle than {lens.root}")
            found = _guarantee(line, number, lens)
            by_region.setdefault(found.spec.region, []).append(found)
        self._space: ScoreSpace = space_of(lens)
        self._dimension = lens.dim
        self._places = [
            _Place(tuple(build_regions(region, lens)), tuple(found))
            for region, found in by_region.items()
        ]
        self.guarantees = tuple(g for place in self._places for g in place.guarantees)

    @property
    def regions(self) -> int:
        """How many different regions there are."""
        return len(self._places)

    @cached_property
    def _boxes(self) -> tuple[tuple[int, Part], ...]:
        """The parts that are boxes (perhaps cut), each with its place."""
        return tuple((i, part) for i, part in self._parts if isinstance(part.region, Box))

    @cached_property
    def _cut(self) -> tuple[tuple[int, Part], ...]:
        """The boxes that half-spaces cut, each with its column."""
        return tuple((column, part) for column, (_, part) in enumerate(self._boxes) if part.cuts)

    @cached_property
    def _columns(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The places that have boxes, and the column of the first box of each."""
        places, starts = np.unique([place for place, _ in self._boxes], return_index=True)
        return places, starts

    @cached_property
    def _others(self) -> tuple[tuple[int, Part], ...]:
        return tuple((i, part) for i, part in self._parts if not isinstance(part.region, Box))

    @property
    def _parts(self) -> list[tuple[int, Part]]:
        return [(i, part) for i, place in enumerate(self._places) for part in place.parts]

    @cached_property
    def _walls(self) -> dict[type, Walls]:
        boxes = [part.region for _, part in self._boxes if isinstance(part.region, Box)]
        return {kind: Walls.of(boxes, kind) for kind in (np.float32, np.float64)} if boxes else {}

    def members(self, z: NDArray[Any]) -> Bools:
        """Which embeddings [N, n] lie in which regions, exactly: bool [N, regions].

        A point that cannot be decided, at the border of a large region that is no box, counts as
        outside: then nothing is claimed of it.

        Args:
            z: float32 or float64, each entry the exact number that it is.

        Raises:
            BadUsage: another dtype or shape.
        """
        points = np.asarray(z)
        if points.dtype not in (np.float32, np.float64):
            raise BadUsage(f"embeddings must be float32 or float64, not {points.dtype}")
        if points.ndim != 2 or points.shape[1] != self._dimension:
            raise BadUsage(f"embeddings have shape {points.shape}, expected [N, {self._dimension}]")
        found = np.zeros((len(points), len(self._places)), dtype=np.bool_)
        if self._boxes:
            inside = self._walls[points.dtype.type].hold(points)
            for column, part in self._cut:
                inside[:, column] = self._within_cuts(points, inside[:, column], part)
            # Boxes stand in the order of their places; those of one place are a union.
            places, starts = self._columns
            found[:, places] = np.logical_or.reduceat(inside, starts, axis=1)
        for place, part in self._others:
            near = _near(points, part) & ~found[:, place]
            kept = np.array([near[i] and self._holds(points[i], part) for i in range(len(near))])
            found[:, place] |= kept.astype(np.bool_)
        return found

    def guaranteed(self, z: NDArray[Any]) -> tuple[Guarantee, ...]:
        """The specs that were proved of some region which the embedding [n] lies in."""
        (row,) = self.members(np.asarray(z)[None])
        return tuple(g for i in np.flatnonzero(row) for g in self._places[i].guarantees)

    def counts(self, z: NDArray[Any]) -> NDArray[np.int64]:
        """How many specs are guaranteed for each of the embeddings [N, n], [N]."""
        sizes = np.array([len(place.guarantees) for place in self._places], dtype=np.int64)
        return np.asarray(self.members(z) @ sizes, dtype=np.int64)

    def _within_cuts(self, points: NDArray[Any], hits: Bools, part: Part) -> Bools:
        kept = hits.copy()
        for row in np.flatnonzero(hits):
            kept[row] = evaluate_at(All(part.cuts), self._space, from_array(points[row]))[0]
        return kept

    def _holds(self, point: NDArray[Any], part: Part) -> bool:
        exact = from_array(point)
        try:
            inside = part.region.contains(exact)
        except Undecided:
            return False
        return inside and evaluate_at(All(part.cuts), self._space, exact)[0]


def _near(points: NDArray[Any], part: Part) -> Bools:
    """Points in the box around a region: the others need no exact arithmetic."""
    lower, upper = part.region.outer
    finite = np.isfinite(points).all(axis=1)
    return np.asarray(((points >= lower) & (points <= upper)).all(axis=1) & finite)


def _guarantee(line: Mapping[str, Any], number: int, lens: Lens) -> Guarantee:
    """The spec of a line, read from its text."""
    place = f"results line {number}"
    text = str(line.get("text"))
    suite = parse(text, file=place, classes=lens.classes, concepts=lens.concepts)
    spec = suite.specs[0] if len(suite.specs) == 1 else None
    if not isinstance(spec, f.ForAll):
        raise BadFile(f"{place}: its text is not one spec about all of a region")
    return Guarantee(spec, str(line.get("trust")), tuple(line.get("assumptions") or ()))
