"""Screening a whole suite: a few matrix products for all specs of regions that share formulas."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from conspec.encodings.query import Query, fold
from conspec.encodings.regions import ConvexRegion
from conspec.encodings.rounding import Bools, Floats
from conspec.encodings.scores import ScoreSpace
from conspec.specs.rewrite import All, Cone, Halfspace, Literal, Nnf, literals
from conspec.verifier.certificate import Certificate, Lemma, Term
from conspec.verifier.screen import (
    Ranges,
    impossible,
    literal_values,
    margin_bounds,
    nth_largest,
    ranges_of,
    rows_of,
)
from conspec.verifier.verdict import Proved, Trust, Violated
from conspec.verifier.witness import validated_at

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
    """

    query: Query
    ranges: Ranges
    place: int
    verdict: Proved | Violated | None


def screen(queries: Sequence[Query], *, points: bool) -> list[Screened]:
    """Screens queries of one score space, none of which has an empty region.

    Args:
        queries: the queries; those of one region should share the region object.
        points: also try the points that maximise single literals as counterexamples.

    Returns:
        One entry per query, in order.
    """
    found: dict[int, Screened] = {}
    for block in _blocks(queries):
        found.update(block.screened(points))
    return [found[index] for index in range(len(queries))]


def _blocks(queries: Sequence[Query]) -> Iterator["_Block"]:
    """Queries sorted into regions that are asked the same formulas, a few formulas at a time."""
    of_region: dict[int, list[int]] = {}
    for index, query in enumerate(queries):
        of_region.setdefault(id(query.region), []).append(index)
    groups: dict[tuple[object, ...], list[list[int]]] = {}
    for members in of_region.values():
        formulas = (queries[members[0]].cuts, *(queries[index].spec.body for index in members))
        groups.setdefault(formulas, []).append(members)
    for rows in groups.values():
        regions = [queries[members[0]].region for members in rows]
        columns = [[(i, queries[i]) for i in column] for column in zip(*rows, strict=True)]
        for start in range(0, len(columns), BLOCK):
            chunk = columns[start : start + BLOCK]
            yield _Block(queries[rows[0][0]].space, regions, chunk)


@dataclass(frozen=True, eq=False)
class _Block:
    """A few formulas, each asked of the same regions.

    Attributes:
        space: the score space.
        regions: R regions.
        queries: per formula, the index and query of each region.
    """

    space: ScoreSpace
    regions: list[ConvexRegion]
    queries: list[list[tuple[int, Query]]]

    @cached_property
    def ranges(self) -> Ranges:
        """Ranges of all literals over all regions."""
        found = [
            literal
            for row in self.queries
            for _, query in row
            for literal in literals(query.constrained)
            if isinstance(literal, Halfspace)
        ]
        return ranges_of(self.space, rows_of(self.space, found), self.regions)

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

    def screened(self, points: bool) -> Iterator[tuple[int, Screened]]:
        """Each query's index and what is known of it."""
        for row in self.queries:
            nnf = row[0][1].constrained
            proved = impossible(nnf, self.ranges)
            bounds = margin_bounds(nnf, self.ranges)
            candidates = self._candidates(nnf, ~proved) if points else {}
            for place, (index, query) in enumerate(row):
                verdict: Proved | Violated | None = None
                if proved[place]:
                    verdict = Proved(
                        Trust.CERTIFIED,
                        bound=-float(bounds[place]),
                        certificate=_certificate(nnf, self.ranges, place),
                    )
                elif place in candidates:
                    parameters = self.maximisers[place][candidates[place]]
                    witness = validated_at(query, query.region.into(parameters))
                    verdict = Violated(witness) if witness else None
                yield index, Screened(query, self.ranges, place, verdict)

    def _candidates(self, nnf: Nnf, unproved: Bools) -> dict[int, int]:
        """For unproved regions, the literal whose maximiser violates most, if it is promising."""
        index = self.ranges.rows.index
        halfspaces = [lit for lit in literals(nnf) if isinstance(lit, Halfspace)]
        own = np.array([index[literal] for literal in halfspaces], dtype=np.intp)
        places = np.flatnonzero(unproved)
        if not own.size or not places.size:
            return {}
        values = self.values[np.ix_(places, own)]  # [P, own points, A literals]
        shape = values.shape[:2]

        def leaf(literal: Literal) -> Floats:
            if isinstance(literal, Cone):
                return np.full(shape, np.inf)
            column: Floats = values[:, :, index[literal]]
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


def _certificate(nnf: Nnf, ranges: Ranges, place: int) -> Certificate:
    """Lemmas of one literal each; a conjunction needs only one of them."""
    found = [
        (number, literal)
        for number, literal in enumerate(literals(nnf))
        if ranges.never(literal)[place]
    ]
    if isinstance(nnf, All):
        direct = [pair for pair in found if pair[1] in nnf.operands]
        found = direct[:1] or found
    lemmas = tuple(Lemma((Term(number, Fraction(1)),)) for number, _ in found)
    return Certificate((lemmas,))
