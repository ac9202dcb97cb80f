"""Sound bounds of a formula's probability under a stated distribution of embeddings.

The distribution is cut into cells of exactly known probability (`distributions`). In each cell
the probability of the violation has bounds: 0 or 1 where rigorous ranges settle it, otherwise
bounds of its half-spaces (`halfspaces`) joined by the inequalities of Boole and Fréchet. What
lies between the bounds is undecided; the cells with most of it are halved, again and again (the
idea of arXiv 2405.17556). Sums of cells are exact integers, so nothing is lost in between.

These bounds are no statistics: no sample is drawn and no confidence is paid. They are a statement
about the distribution that they name, and not about real images, whose distribution nobody knows.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from time import monotonic

import numpy as np

from conspec.encodings.exact import Vector
from conspec.encodings.query import Query, evaluate_at, fold
from conspec.encodings.regions import Box
from conspec.encodings.rounding import TINY, UNIT, Floats, gamma, row_bounds
from conspec.encodings.scores import ScoreSpace
from conspec.specs.errors import BadRegion, BadUsage
from conspec.specs.rewrite import Cone, Halfspace, Literal, Nnf
from conspec.verifier.probability.distributions import Cells, Law, Uniform
from conspec.verifier.probability.gaussian import Gaussian
from conspec.verifier.probability.halfspaces import (
    Masses,
    normal_masses,
    series_masses,
    tail_masses,
)
from conspec.verifier.screen import FALSE, TRUE, Ranges, Rows, at_least, rows_of

BITS = 60
"""Bounds inside a cell are rounded outward to multiples of 2**-BITS, so that sums are integers."""
DEEPEST = 50
"""How often one coordinate is halved at most; its quantiles stay exact floats."""
LARGEST_BATCH = 32
"""Cells halved together."""
Pair = tuple[Floats, Floats]


@dataclass(frozen=True)
class Limits:
    """When to stop refining.

    Attributes:
        undecided: stop when no more probability than this is undecided.
        seconds: stop after this time.
        boxes: stop after this many cells.
    """

    undecided: float = 1e-3
    seconds: float = 10.0
    boxes: int = 100_000


@dataclass(frozen=True)
class MassBounds:
    """Bounds of the probability that a formula holds, under a distribution that is named.

    Attributes:
        lower: the proved mass: at least this probability satisfies the formula.
        refuted: at least this probability violates it.
        boxes: cells bounded so far.
        seconds: time spent.
        distribution: the class of the distribution.
        assumption: what the bounds assume, in words.
    """

    lower: Fraction
    refuted: Fraction
    boxes: int
    seconds: float
    distribution: str
    assumption: str

    @property
    def upper(self) -> Fraction:
        """One minus the refuted mass."""
        return 1 - self.refuted

    @property
    def undecided(self) -> Fraction:
        """The mass that is neither proved nor refuted: upper minus lower."""
        return 1 - self.refuted - self.lower


def uniform_law(query: Query) -> Uniform:
    """The uniform distribution on a query's region.

    Raises:
        BadRegion: the region is not a box, or empty.
    """
    return Uniform(_box_of(query))


def class_law(query: Query, moments: tuple[Vector, Vector]) -> Gaussian:
    """Independent normal coordinates with a class's moments, given that they lie in the region.

    Args:
        query: its region is the box of the cut.
        moments: mean and standard deviation, as `regions.class_moments` gives them.

    Raises:
        BadRegion: the region is not a box, is empty, or holds next to nothing of the Gaussian.
    """
    return Gaussian(moments[0].floats(), moments[1].floats(), _box_of(query))


def _box_of(query: Query) -> Box:
    """The query's region, if it is a box."""
    if not isinstance(query.region, Box) or query.cuts:
        raise BadRegion(
            f"{query.spec.name}: a distribution needs a region that is one box (focus, box or a "
            "ball with norm=linf), not cut by a polytope"
        )
    return query.region


def final_bounds(query: Query, law: Law, limits: Limits | None = None) -> MassBounds:
    """The bounds when a limit is reached; see `mass_bounds`."""
    *_, last = mass_bounds(query.space, query.violation, law, limits)
    return last


def mass_bounds(
    space: ScoreSpace, violation: Nnf, law: Law, limits: Limits | None = None
) -> Iterator[MassBounds]:
    """Bounds of the probability that a violation does not occur, better and better.

    The undecided mass never grows from one result to the next, and the first comes at once.

    Args:
        space: the exact score functions.
        violation: the negated formula, for instance `Query.violation`.
        law: the distribution.
        limits: when to stop.

    Raises:
        BadUsage: the distribution has another dimension than the embeddings.
    """
    limits = limits or Limits()
    if law.start.dimension != space.dimension:
        raise BadUsage(
            f"a distribution of {law.start.dimension} dimensions for embeddings of "
            f"{space.dimension}"
        )
    start = monotonic()
    search = _Search(space, _settled(violation, space, law), law)
    size = 1
    while True:
        yield search.found(start)
        if search.undecided <= limits.undecided or not search.heap:
            return
        if monotonic() - start >= limits.seconds or search.boxes >= limits.boxes:
            return
        search.refine(size)
        size = min(2 * size, LARGEST_BATCH)


def _settled(violation: Nnf, space: ScoreSpace, law: Law) -> Nnf:
    """The violation without the literals that are constant on the distribution, exactly."""
    point = law.start.lower
    fixed = not law.free.any()

    def leaf(literal: Literal) -> Nnf:
        if not fixed and (isinstance(literal, Cone) or not space.head.is_affine):
            return literal
        if isinstance(literal, Halfspace) and not fixed:
            row = space.row(literal)[0].numerators
            if any(top and free for top, free in zip(row, law.free, strict=True)):
                return literal
        return TRUE if evaluate_at(literal, space, point)[0] else FALSE

    return fold(violation, leaf, at_least)


@dataclass(frozen=True, eq=False)
class _Leaf:
    """A cell: coordinate j runs from quantile ``first[j]`` to ``last[j]``.

    Attributes:
        first: [n].
        last: [n].
        depth: it has probability ``2**-depth``.
        lower: the violation's probability in it is at least ``lower · 2**-BITS``.
        upper: and at most ``upper · 2**-BITS``.
        axis: the coordinate to halve next, or −1 if there is none.
    """

    first: Floats
    last: Floats
    depth: int
    lower: int
    upper: int
    axis: int

    @property
    def open(self) -> float:
        """The undecided probability."""
        return float((self.upper - self.lower) * 2.0 ** (-BITS - self.depth))


class _Search:
    """The cells so far, and the bounds that they give."""

    def __init__(self, space: ScoreSpace, violation: Nnf, law: Law) -> None:
        """Bound the whole distribution."""
        self.space, self.violation, self.law = space, violation, law
        self.halfspaces = [lit for lit in space.literals(violation) if isinstance(lit, Halfspace)]
        self.rows = rows_of(space, self.halfspaces)
        self.heap: list[tuple[float, int, _Leaf]] = []
        self.boxes = 0
        self.lower, self.upper = Fraction(0), Fraction(1)
        self._lowers: dict[int, int] = {}  # sums over cells, by depth
        self._uppers: dict[int, int] = {}
        size = space.dimension
        if isinstance(law, Gaussian) and law.region is None and space.head.is_affine:
            low, high = frechet(violation, self.rows, normal_masses(law, self.rows))
            self._improve(Fraction(float(low[0])), Fraction(float(high[0])))
        self._add(np.zeros((1, size)), np.ones((1, size)), [0])
        self._tighten()

    @property
    def undecided(self) -> Fraction:
        """The undecided probability."""
        return self.upper - self.lower

    def found(self, start: float) -> MassBounds:
        """The result so far."""
        name, seconds = type(self.law).__name__, monotonic() - start
        return MassBounds(
            1 - self.upper, self.lower, self.boxes, seconds, name.lower(), self.law.text
        )

    def refine(self, count: int) -> None:
        """Halve the cells with most undecided probability."""
        chosen = [heapq.heappop(self.heap)[2] for _ in range(min(count, len(self.heap)))]
        first = np.repeat([leaf.first for leaf in chosen], 2, axis=0)
        last = np.repeat([leaf.last for leaf in chosen], 2, axis=0)
        for place, leaf in enumerate(chosen):
            axis = leaf.axis
            middle = (leaf.first[axis] + leaf.last[axis]) / 2  # exact: at most DEEPEST halvings
            last[2 * place, axis] = first[2 * place + 1, axis] = middle
            self._count(leaf, -1)
        self._add(first, last, [leaf.depth + 1 for leaf in chosen for _ in range(2)])
        self._tighten()

    def _add(self, first: Floats, last: Floats, depths: Sequence[int]) -> None:
        """Bound new cells [R, n] and take them in."""
        bounded = _bounded(self, first, last)
        for place, depth in enumerate(depths):
            # Scaling by a power of two is exact, so are floor and ceiling.
            low = int(np.floor(bounded.lower[place] * 2.0**BITS))
            high = int(np.ceil(bounded.upper[place] * 2.0**BITS))
            leaf = _Leaf(first[place], last[place], depth, low, high, int(bounded.axis[place]))
            self._count(leaf, 1)
            self.boxes += 1
            if leaf.axis >= 0 and high > low:
                heapq.heappush(self.heap, (-leaf.open, self.boxes, leaf))

    def _count(self, leaf: _Leaf, sign: int) -> None:
        """Add a cell to the sums, or take it away."""
        self._lowers[leaf.depth] = self._lowers.get(leaf.depth, 0) + sign * leaf.lower
        self._uppers[leaf.depth] = self._uppers.get(leaf.depth, 0) + sign * leaf.upper

    def _tighten(self) -> None:
        """Take the bounds of all cells together, where they are better than those before."""
        low, high = _total(self._lowers), _total(self._uppers)
        core = self.law.core
        self._improve(core * low, core * high + 1 - core)

    def _improve(self, lower: Fraction, upper: Fraction) -> None:
        self.lower, self.upper = max(self.lower, lower), min(self.upper, upper, Fraction(1))


def _total(sums: dict[int, int]) -> Fraction:
    """``Σ sum · 2**(−BITS − depth)``."""
    deepest = max(sums)
    total = sum(value << (deepest - depth) for depth, value in sums.items())
    return Fraction(total, 1 << (BITS + deepest))


@dataclass(frozen=True, eq=False)
class _Bounded:
    """R cells with the violation's bounds [R] and the coordinate [R] to halve next."""

    lower: Floats
    upper: Floats
    axis: Floats


def _bounded(search: _Search, first: Floats, last: Floats) -> _Bounded:
    """Bounds of cells between quantiles [R, n]."""
    law, rows, violation = search.law, search.rows, search.violation
    cells = law.cells(first, last)
    lower, upper = _extended(search.space, cells)
    ranges = Ranges(rows, *row_bounds(*_parts(rows), lower, upper))
    reach = np.maximum(np.abs(lower), np.abs(upper))
    masses, _ = tail_masses(cells, ranges, reach)
    low, high = frechet(violation, rows, masses)
    wanted = high > low
    if wanted.any():
        masses = series_masses(law, cells, ranges, reach, wanted)
        low, high = frechet(violation, rows, masses)
    return _Bounded(low, high, _axes(search, cells, masses, last - first))


def _parts(rows: Rows) -> tuple[Floats, Floats, tuple[Floats, Floats]]:
    return rows.rows, rows.constants, (rows.errors, rows.constant_errors)


def _extended(space: ScoreSpace, cells: Cells) -> Pair:
    """Bounds [R, n+h] of ``v = (z, y)`` over each cell, y by interval arithmetic."""
    lower, upper = cells.lower, cells.upper
    for layer in space.head.affines[:-1]:
        weight, bias = layer.floats
        errors = (np.abs(weight) * UNIT + TINY, np.abs(bias) * UNIT + TINY)
        low, high = row_bounds(weight, bias, errors, lower, upper)
        lower, upper = np.maximum(low, 0.0), np.maximum(high, 0.0)
    if space.head.is_affine:
        return lower, upper
    return np.hstack([cells.lower, lower]), np.hstack([cells.upper, upper])


def _influence(space: ScoreSpace, rows: Rows) -> Floats:
    """How much each half-space can change with each coordinate at most: [A, n]."""
    size = space.dimension
    found = np.abs(rows.rows[:, :size])
    if not space.head.is_affine:
        hidden = np.abs(rows.rows[:, size:])
        for layer in reversed(space.head.affines[:-1]):
            hidden = hidden @ np.abs(layer.floats[0])
        found = found + hidden
    return found


def _axes(search: _Search, cells: Cells, masses: Masses, shares: Floats) -> Floats:
    """The coordinate [R] with most influence on undecided half-spaces; −1 if none is left."""
    widths = cells.upper - cells.lower
    influence = _influence(search.space, search.rows)
    open_ = np.maximum(masses.upper - masses.lower, 0.0)
    total = np.maximum(widths @ influence.T, TINY)
    score = (open_ / total) @ influence * widths
    # Without half-spaces (cones only) the widest coordinate is as good as any.
    score = score + TINY * widths
    usable = search.law.free & (shares > 2.0**-DEEPEST)
    best = np.argmax(np.where(usable, score, -1.0), axis=1)
    return np.where(usable.any(axis=1), best, -1)


def frechet(violation: Nnf, rows: Rows, masses: Masses) -> Pair:
    """Bounds [R] of a formula's probability from those of its half-spaces, however dependent.

    "At least k of n" has at most probability ``(Σ of the n−m least)/(k−m)`` for each m < k
    (Markov's inequality, once m of them are granted), and is the opposite of "at least n−k+1 of
    the negations". For a conjunction and a disjunction these are Boole's and Fréchet's bounds.
    """

    def leaf(literal: Literal) -> Pair:
        if isinstance(literal, Cone):
            size = len(masses.lower)
            return np.zeros(size), np.ones(size)
        place = rows.place(literal)
        return masses.lower[:, place], masses.upper[:, place]

    def join(count: int, parts: list[Pair]) -> Pair:
        size = len(masses.lower)
        if count == 0:
            return np.ones(size), np.ones(size)
        if count > len(parts):
            return np.zeros(size), np.zeros(size)
        upper = _most(count, np.stack([high for _, high in parts]))
        failing = _most(len(parts) - count + 1, np.stack([_opposite(low) for low, _ in parts]))
        lower = np.where(failing > 0, np.nextafter(1.0 - failing, -1.0), 1.0)
        return np.maximum(lower, 0.0), upper

    return fold(violation, leaf, join)


def _opposite(lower: Floats) -> Floats:
    """Upper bound of one minus a probability of at least ``lower``."""
    return np.where(lower >= 1, 0.0, np.minimum(np.nextafter(1.0 - lower, 2.0), 1.0))


def _most(count: int, chances: Floats) -> Floats:
    """Upper bound [R] of "at least count hold" from upper bounds [n, R] of each."""
    ordered = np.sort(chances, axis=0)
    sums = np.cumsum(ordered, axis=0) * (1 + gamma(2 * len(ordered) + 4))
    best = np.ones(chances.shape[1])
    for granted in range(count):
        best = np.minimum(best, sums[len(ordered) - granted - 1] / (count - granted))
    return best
