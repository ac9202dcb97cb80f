"""Screening a whole suite: a few matrix products for all specs of regions that share formulas."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.query import Query, fold
from conspec.encodings.regions import ConvexRegion
from conspec.encodings.rounding import Bools, Floats
from conspec.encodings.scores import ScoreSpace
from conspec.specs.rewrite import All, Cone, Halfspace, Literal, Nnf
from conspec.verifier.certificate import Certificate
from conspec.verifier.conjunctions import Conjunctions
from conspec.verifier.device import Device
from conspec.verifier.screen import (
    Ranges,
    cone_values,
    impossible,
    literal_values,
    margin_bounds,
    nth_largest,
    ranges_of,
    rows_of,
    single_lemmas,
)
from conspec.verifier.verdict import Proved, Trust, Violated, Witness
from conspec.verifier.witness import validated_at, validated_near

BLOCK = 64
"""Formulas screened together; it bounds the memory, whatever the suite's size."""
SLACK = 1e-9
"""Relative margin below zero at which a point is still worth an exact check (it may be a tie)."""


@dataclass(frozen=True, eq=False)
class Screened:
    """What the screen knows of one query.

    Attributes:
        query: the query.
        ranges: ranges of its literals, for all regions of its block.
        place: the query's region among them.
        verdict: a proof or a counterexample, or None.
        stage: "look" if a stored image settled it, "ascent" if multipliers did, else "screen".
    """

    query: Query
    ranges: Ranges
    place: int
    verdict: Proved | Violated | None
    stage: str = "screen"


class Gallery:
    """The stored embeddings, and which of them lie in a region."""

    def __init__(self, embeddings: Floats) -> None:
        """Take the embeddings [N, n]."""
        self.embeddings = embeddings
        self._members: dict[int, tuple[ConvexRegion, NDArray[np.intp]]] = {}

    def members(self, region: ConvexRegion) -> NDArray[np.intp]:
        """Places of the embeddings in the region."""
        if id(region) not in self._members:
            inside = np.flatnonzero(region.members(self.embeddings))
            self._members[id(region)] = (region, inside)
        return self._members[id(region)][1]


def screen(
    queries: Sequence[Query],
    *,
    points: bool,
    ascent: bool = False,
    gallery: Gallery | None = None,
    device: Device | None = None,
) -> list[Screened]:
    """Screens queries of one score space, none of which has an empty region.

    Args:
        queries: the queries; those of one region should share the region object.
        points: also try the points that maximise single literals as counterexamples.
        ascent: also search multipliers and points for what single literals leave open.
        gallery: also, and first, try the stored embeddings in the region.
        device: where the matrix products are computed; numpy if None.

    Returns:
        One entry per query, in order.
    """
    found: dict[int, Screened] = {}
    for block in _blocks(queries, gallery, device):
        part = dict(block.screened(points))
        found.update(block.ascended(part) if ascent else part)
    return [found[index] for index in range(len(queries))]


def _blocks(
    queries: Sequence[Query], gallery: Gallery | None, device: Device | None
) -> Iterator["_Block"]:
    """Queries sorted into regions that are asked the same formulas, a few formulas at a time."""
    of_region: dict[tuple[int, object], list[int]] = {}
    for index, query in enumerate(queries):
        key = (id(query.region), query.cuts)
        of_region.setdefault(key, []).append(index)
    groups: dict[tuple[object, ...], list[list[int]]] = {}
    for members in of_region.values():
        # The violation is one object per formula, so its identity stands for the formula.
        formulas = (queries[members[0]].cuts, *(id(queries[i].violation) for i in members))
        groups.setdefault(formulas, []).append(members)
    for rows in groups.values():
        regions = [queries[members[0]].region for members in rows]
        columns = [[(i, queries[i]) for i in column] for column in zip(*rows, strict=True)]
        for start in range(0, len(columns), BLOCK):
            chunk = columns[start : start + BLOCK]
            yield _Block(queries[rows[0][0]].space, regions, chunk, gallery, device)


@dataclass(frozen=True, eq=False)
class _Block:
    """A few formulas, each asked of the same regions.

    Attributes:
        space: the score space.
        regions: R regions.
        queries: per formula, the index and query of each region.
        gallery: stored embeddings to try, or None.
        device: where the matrix products are computed.
    """

    space: ScoreSpace
    regions: list[ConvexRegion]
    queries: list[list[tuple[int, Query]]]
    gallery: Gallery | None
    device: Device | None

    @cached_property
    def ranges(self) -> Ranges:
        """Ranges of all literals over all regions."""
        found = [
            literal
            for row in self.queries
            for literal in self.space.literals(row[0][1].constrained)
            if isinstance(literal, Halfspace)
        ]
        return ranges_of(self.space, rows_of(self.space, found), self.regions, self.device)

    @cached_property
    def maximisers(self) -> list[Floats]:
        """Per region, parameters [A, k] that maximise each literal."""
        size = self.space.dimension
        rows, constants = self.ranges.rows.rows[:, :size], self.ranges.rows.constants
        return [region.maximisers(region.pull_rough(rows, constants)[0]) for region in self.regions]

    @cached_property
    def values(self) -> Floats:
        """Values [R, A, A] of each literal (last axis) at each literal's maximiser."""
        pairs = zip(self.regions, self.maximisers, strict=True)
        rows = self.ranges.rows
        return np.stack(
            [literal_values(self.space, rows, region.points(t)).T for region, t in pairs]
        )

    @cached_property
    def stored_values(self) -> dict[int, Floats]:
        """Values [A, m] of each literal at the m stored embeddings in each region that has any."""
        found = {}
        for place, region in enumerate(self.regions if self.gallery else []):
            points = self._stored(region)
            if len(points):
                found[place] = literal_values(self.space, self.ranges.rows, points)
        return found

    def _stored(self, region: ConvexRegion) -> Floats:
        """The stored embeddings [m, n] in a region."""
        if self.gallery is None:
            return np.zeros((0, self.space.dimension))
        return self.gallery.embeddings[self.gallery.members(region)]

    def screened(self, points: bool) -> Iterator[tuple[int, Screened]]:
        """Each query's index and what is known of it."""
        for row in self.queries:
            nnf = row[0][1].constrained
            proved = impossible(nnf, self.ranges)
            bounds = margin_bounds(nnf, self.ranges)
            candidates = self._candidates(nnf, ~proved) if points else {}
            for place, (index, query) in enumerate(row):
                verdict: Proved | Violated | None = None
                stage = "screen"
                if proved[place]:
                    certificate = self._certificate(nnf, place)
                    bound = -float(bounds[place]) if np.isfinite(bounds[place]) else None
                    verdict = Proved(Trust.CERTIFIED, bound=bound, certificate=certificate)
                elif (seen := self._look(query, place)) is not None:
                    verdict, stage = Violated(seen), "look"
                elif place in candidates:
                    parameters = self.maximisers[place][candidates[place]]
                    witness = validated_at(query, query.region.into(parameters))
                    verdict = Violated(witness) if witness else None
                yield index, Screened(query, self.ranges, place, verdict, stage)

    def ascended(self, found: dict[int, Screened]) -> dict[int, Screened]:
        """The same, with what the ascent on multipliers settles of the open ones."""
        left = [(i, one.place, one.query) for i, one in found.items() if one.verdict is None]
        if not left:
            return found
        verdicts = Conjunctions(self.space, self.regions, self.ranges, self.device).decide(left)
        settled = {i: replace(found[i], verdict=v, stage="ascent") for i, v in verdicts.items()}
        return {**found, **settled}

    def _look(self, query: Query, place: int) -> Witness | None:
        """The stored embedding in the region that violates most, if one does."""
        if self.gallery is None or place not in self.stored_values:
            return None
        values = self.stored_values[place]

        def leaf(literal: Literal) -> Floats:
            if isinstance(literal, Cone):
                return cone_values(self.space, literal, self._stored(query.region))
            row: Floats = values[self.ranges.rows.place(literal)]
            return row

        def join(count: int, parts: list[Floats]) -> Floats:
            return nth_largest(count, parts, values.shape[1])

        margins: Floats = fold(query.constrained, leaf, join)
        best = int(np.argmax(margins))
        if not margins[best] >= 0:
            return None
        image = int(self.gallery.members(query.region)[best])
        return validated_near(query, self.gallery.embeddings[image], image)

    def _candidates(self, nnf: Nnf, unproved: Bools) -> dict[int, int]:
        """For unproved regions, the literal whose maximiser violates most, if it is promising."""
        rows = self.ranges.rows
        halfspaces = [lit for lit in self.space.literals(nnf) if isinstance(lit, Halfspace)]
        own = np.array([rows.place(literal) for literal in halfspaces], dtype=np.intp)
        places = np.flatnonzero(unproved)
        if not own.size or not places.size:
            return {}
        values = self.values[np.ix_(places, own)]  # [P, own points, A literals]
        shape = values.shape[:2]

        def leaf(literal: Literal) -> Floats:
            if isinstance(literal, Cone):
                return np.full(shape, np.inf)
            column: Floats = values[:, :, rows.place(literal)]
            return column

        def join(count: int, parts: list[Floats]) -> Floats:
            return nth_largest(count, parts, shape)

        margins: Floats = fold(nnf, leaf, join)
        best = np.argmax(margins, axis=1)
        reach = np.abs(self.ranges.upper[np.ix_(places, own)]).max(axis=1)
        worth = margins[np.arange(len(places)), best] >= -SLACK * reach
        return {
            int(place): int(own[choice])
            for place, choice, good in zip(places, best, worth, strict=True)
            if good
        }

    def _certificate(self, nnf: Nnf, place: int) -> Certificate:
        """Lemmas of one literal each; a conjunction needs only one of them."""
        known = self.space.literals(nnf)
        never = {literal for literal in known if self.ranges.never(literal)[place]}
        if isinstance(nnf, All):
            direct = next((literal for literal in nnf.operands if literal in never), None)
            never = never if direct is None else {direct}
        return Certificate((tuple(single_lemmas(known, never)),))
