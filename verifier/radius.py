"""The largest scale γ of a region for which a spec still holds.

A set of literals that would violate the spec is impossible on the region of scale γ exactly as
long as some weighted sum of them is: ``λ·a + support_γ(Σ λ_i g_i) < 0`` with the values a at the
centre. For fixed λ that holds up to a γ in closed form; the best λ at that γ gives the next γ
(Dinkelbach's method), and after a few linear programs with hot starts the two meet. The least
such γ over all ways to violate the formula is γ*.

That search is in floating point and proves nothing. What is reported are two ordinary verdicts,
at a decimal just below γ* (a proof with its certificate) and just above it (a counterexample). For
logits of ReLU heads and for ``has`` such verdicts are bisected.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction

import numpy as np

from conspec.encodings.images import Shape
from conspec.encodings.query import Query, space_of
from conspec.encodings.regions import (
    ConvexRegion,
    build_regions,
    class_moments,
    scaled_box,
)
from conspec.encodings.rounding import Floats
from conspec.encodings.scores import ScoreSpace
from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadRegion
from conspec.specs.rewrite import Halfspace, Literal, literals
from conspec.verifier.ball import ball_optimum
from conspec.verifier.decide import DEFAULT_LIMITS, Limits, verify_suite
from conspec.verifier.linear import LinearProgram, LinearRow
from conspec.verifier.propositional import Search, TooHard
from conspec.verifier.results import Result
from conspec.verifier.verdict import Proved, Violated

LARGEST = 1000.0
"""Scales above this are not looked at; a spec that holds so far holds everywhere that matters."""
DIGITS = 6
"""Significant digits of the reported scales."""
GAPS = (1e-6, 1e-4, 1e-2)
"""How far from γ* a verdict is asked for, relatively, until one is found."""
ROUNDS = 40
SLICE = 64
"""Specs whose verdicts are asked for together."""
BISECTIONS = 40
"""Verdicts asked for one spec where no linear program gives γ*."""
TIGHT = Fraction(1, 1000)
"""Relative width at which a bisection stops."""
SMALLEST = Fraction(1, 10**6)
"""Scale below which a bisection gives up looking for a proof."""
WITHOUT_SCALE: Mapping[type[f.Region], str] = {
    f.Hull: "a hull",
    f.Box: "a box with given bounds",
    f.Polytope: "a polytope",
    f.Both: "an intersection of regions",
    f.Either: "a union of regions",
}
"""The regions that are not scaled, in words."""


@dataclass(frozen=True, slots=True)
class Radius:
    """Certified bounds of γ* for one spec.

    Attributes:
        spec: the spec as given; its own scale plays no part.
        proof: the verdict at the largest scale tried with success, a proof; None if the spec
            is proved at none, as when it fails at the centre.
        violation: the verdict at the smallest scale with a counterexample; None if none is known.
    """

    spec: f.ForAll
    proof: Result | None
    violation: Result | None

    @property
    def lower(self) -> Fraction | None:
        """The largest scale for which the spec is proved."""
        return None if self.proof is None else scale_of(self.proof.spec.region)

    @property
    def upper(self) -> Fraction | None:
        """The smallest scale for which a counterexample is known."""
        return None if self.violation is None else scale_of(self.violation.spec.region)


def scale_of(region: f.Region) -> Fraction:
    """The scale γ (or radius) of a scalable region.

    Raises:
        BadRegion: the region has no scale.
    """
    match region:
        case f.Focus() | f.PcaBox() | f.Zonotope() | f.Ellipsoid():
            return region.gamma
        case f.Ball():
            return region.radius
        case _:
            raise BadRegion(
                f"{WITHOUT_SCALE[type(region)]} has no scale γ; focus, pca_box, zonotope, "
                "ellipsoid and ball have one"
            )


def at_scale(region: f.Region, scale: Fraction) -> f.Region:
    """The region at another scale."""
    match region:
        case f.Focus() | f.PcaBox() | f.Zonotope() | f.Ellipsoid():
            return replace(region, gamma=scale)
        case f.Ball():
            return replace(region, radius=scale)
        case _:
            scale_of(region)
            return region


def radius_suite(suite: f.Suite, lens: Lens, limits: Limits = DEFAULT_LIMITS) -> Iterator[Radius]:
    """Certified radii of a suite's ``forall`` specs, in order.

    Raises:
        BadRegion: a region that has no scale, or cannot be built; before the first result.
    """
    space = space_of(lens)
    searches: dict[f.Region, ScaleSearch] = {}
    specs = [spec for spec in suite.specs if isinstance(spec, f.ForAll)]
    for spec in specs:
        family = at_scale(spec.region, Fraction(1))
        if family not in searches:
            searches[family] = ScaleSearch.of(space, family, lens)
    for start in range(0, len(specs), SLICE):
        chunk = specs[start : start + SLICE]
        estimates = [searches[at_scale(s.region, Fraction(1))].estimate(s) for s in chunk]
        yield from _certified(chunk, estimates, lens, limits)


def _certified(
    specs: Sequence[f.ForAll], estimates: Sequence[float | None], lens: Lens, limits: Limits
) -> list[Radius]:
    """Verdicts just below and just above the estimates; by bisection where there is none."""
    found = [_Bracket(spec, estimate) for spec, estimate in zip(specs, estimates, strict=True)]
    for turn in range(BISECTIONS):
        asked = [(bracket, scale) for bracket in found for scale in bracket.wanted(turn)]
        if not asked:
            break
        tried = [replace(b.spec, region=at_scale(b.spec.region, scale)) for b, scale in asked]
        results = verify_suite(f.Suite(tuple(tried)), lens, "auto", limits)
        for (bracket, _), result in zip(asked, results, strict=True):
            bracket.take(result)
    return [bracket.radius() for bracket in found]


@dataclass(eq=False)
class _Bracket:
    """The best proof and counterexample so far for one spec."""

    spec: f.ForAll
    estimate: float | None
    proof: Result | None = None
    violation: Result | None = None
    undecided: bool = False

    def wanted(self, turn: int) -> list[Fraction]:
        """Scales to ask about next; none when enough is known."""
        if self.estimate is None:
            return self._middle()
        if turn >= len(GAPS):
            # A tie at the estimate may be no violation, for instance of a strict comparison.
            return [] if self._done() else self._middle()
        if self.estimate <= 0 and turn == 0:
            return [Fraction(0)]
        below, above = _decimals(min(self.estimate, LARGEST), GAPS[turn])
        wanted = [] if self.proof is not None or self.estimate <= 0 else [below]
        return (
            wanted if self.violation is not None or self.estimate >= LARGEST else [*wanted, above]
        )

    @property
    def _ends(self) -> tuple[Fraction | None, Fraction | None]:
        """The largest scale proved and the smallest one violated, as far as known."""
        known = self.radius()
        return known.lower, known.upper

    def _done(self) -> bool:
        """Whether both ends are known, or there is nothing to be found beyond the one known."""
        low, high = self._ends
        if low is None or high is None:
            return high == 0 or (low is not None and low >= LARGEST * (1 - GAPS[-1]))
        return high - low <= max(low, high) * Fraction(GAPS[-1]) * 4

    def _middle(self) -> list[Fraction]:
        """The next scale of a bisection: doubling or halving first, then the middle."""
        if self.undecided:
            return []
        if self.proof is None and self.violation is None:
            return [Fraction(1)]
        low, high = self._ends
        if high is None:
            return [max(low * 4, SMALLEST)] if low is not None and low < LARGEST else []
        if not low:
            return [high / 4] if high > SMALLEST else []
        if high - low <= low * TIGHT:
            return []
        return [Fraction(Context(DIGITS).create_decimal(Decimal(float(low + high) / 2)))]

    def take(self, result: Result) -> None:
        """Keeps a verdict if it is better than what is known."""
        scale = scale_of(result.spec.region)
        low, high = self._ends
        if isinstance(result.verdict, Proved):
            if low is None or scale > low:
                self.proof = result
        elif isinstance(result.verdict, Violated):
            if high is None or scale < high:
                self.violation = result
        else:
            self.undecided = True

    def radius(self) -> Radius:
        """What was found."""
        return Radius(self.spec, self.proof, self.violation)


def _decimals(estimate: float, gap: float) -> tuple[Fraction, Fraction]:
    """Short decimals just below and above an estimate."""
    down, up = Context(DIGITS, ROUND_FLOOR), Context(DIGITS, ROUND_CEILING)
    below = down.create_decimal(Decimal(estimate * (1.0 - gap)))
    above = up.create_decimal(Decimal(max(estimate * (1.0 + gap), gap * 1e-3)))
    return Fraction(below), Fraction(above)


@dataclass(eq=False)
class ScaleSearch:
    """The search for γ* in one family of regions; rows are those of scale 1."""

    space: ScoreSpace
    shape: Shape
    query: Query
    floor: Floats | None
    """For a focus box cut to ``z ≥ 0``: the least value [k] of each parameter; else None."""
    _rows: list[LinearRow] = field(default_factory=list)
    _places: dict[Literal, int] = field(default_factory=dict)
    _program: LinearProgram | None = None

    @classmethod
    def of(cls, space: ScoreSpace, family: f.Region, lens: Lens) -> "ScaleSearch":
        """The search over a family, given at scale 1."""
        spec = f.ForAll("scale", family, f.Constant(False))
        if isinstance(family, f.Focus):
            mean, deviation = class_moments(lens, family.label)
            region: ConvexRegion = scaled_box(mean, deviation, Fraction(1), nonnegative=False)
            floor = _least(mean.floats(), deviation.floats()) if lens.nonnegative else None
        else:
            (part,) = build_regions(family, lens)
            region, floor = part.region, None
        return cls(space, region.shape, Query(spec, space, region), floor)

    def estimate(self, spec: f.ForAll) -> float | None:
        """γ* of a spec in floating point; infinite above ``LARGEST``.

        None where no linear program gives it: for ReLU heads and for formulas with ``has``.
        """
        query = replace(self.query, spec=spec)
        target = query.violation
        found = literals(target)
        if query.cones or not query.is_affine:
            return None
        places = {literal: place for place, literal in enumerate(found)}
        for literal in found:
            self._prepare(literal)
        smallest = float("inf")
        search = Search(places, [])
        for place, literal in enumerate(found):
            if isinstance(literal, Halfspace) and self._limit([literal], [1.0]) > LARGEST:
                search.lemmas.append(1 << place)
        try:
            while (chosen := search.implicant(target)) is not None:
                active = [lit for place, lit in enumerate(found) if chosen >> place & 1]
                halves = [lit for lit in active if isinstance(lit, Halfspace)]
                scale, weights = self._smallest(halves)
                smallest = min(smallest, scale)
                used = [places[lit] for lit, w in zip(halves, weights, strict=True) if w > 0]
                if not used or scale <= 0:
                    return min(smallest, 0.0) if scale <= 0 else smallest
                search.lemmas.append(sum(1 << place for place in used))
        except TooHard:
            return smallest
        return smallest

    def _prepare(self, literal: Literal) -> None:
        """The literal's row over the parameters of scale 1."""
        if not isinstance(literal, Halfspace) or literal in self._places:
            return
        weights, constant = self.query.region.pull(*self.space.row_over_z(literal))
        values = weights.floats()
        size = max(float(np.abs(values).sum()), abs(float(constant)))
        self._places[literal] = len(self._rows)
        row = LinearRow(weights, constant, size or 1.0)
        self._rows.append(row)
        if self._program is not None:
            self._program.add(row)

    def _limit(self, found: Sequence[Halfspace], weights: Sequence[float]) -> float:
        """Up to which γ the weighted sum of the literals is impossible, in closed form."""
        rows = [self._rows[self._places[literal]] for literal in found]
        total = sum(
            (w * row.row.floats() for w, row in zip(weights, rows, strict=True)),
            np.zeros(self.query.region.parameters),
        )
        middle = sum(w * float(row.constant) for w, row in zip(weights, rows, strict=True))
        if middle >= 0:
            return 0.0
        if self.shape is Shape.BALL:
            length = float(np.linalg.norm(total))
            return -middle / length if length else float("inf")
        return _root(middle, np.abs(total), self._reaches(total))

    def _reaches(self, total: Floats) -> Floats:
        """The scale at which each parameter stops growing in the direction that it is pushed."""
        if self.floor is None:
            return np.full(len(total), np.inf)
        return np.where(total < 0, -self.floor, np.inf)

    def _smallest(self, found: Sequence[Halfspace]) -> tuple[float, list[float]]:
        """The least γ at which all literals hold somewhere, and the multipliers that show it."""
        if not found:
            return 0.0, []
        limits = [self._limit([literal], [1.0]) for literal in found]
        best = int(np.argmax(limits))
        scale, weights = limits[best], [float(i == best) for i in range(len(found))]
        for _ in range(ROUNDS):
            if scale > LARGEST:
                return float("inf"), weights
            margin, multipliers = self._optimum(found, scale)
            if margin >= -1e-9 or multipliers is None:
                return scale, weights
            larger = self._limit(found, multipliers)
            if larger <= scale * (1.0 + 1e-9):
                return scale, weights
            scale, weights = larger, multipliers
        return scale, weights

    def _optimum(
        self, found: Sequence[Halfspace], scale: float
    ) -> tuple[float, list[float] | None]:
        """The largest scaled margin at a scale, and its multipliers."""
        places = [self._places[literal] for literal in found]
        if self.shape is Shape.BALL:
            exact = Fraction(scale)
            rows = [self._rows[place] for place in places]
            grown = [LinearRow(r.row.scaled(exact), r.constant, r.scale) for r in rows]
            optimum = ball_optimum(grown)
        else:
            if self._program is None:
                self._program = LinearProgram(Shape.CUBE, self.query.region.parameters)
                for row in self._rows:
                    self._program.add(row)
            lower = np.full(self.query.region.parameters, -scale)
            if self.floor is not None:
                lower = np.maximum(lower, self.floor)
            self._program.set_bounds(lower, np.full(len(lower), scale))
            optimum = self._program.maximise(places, 10.0)
        if optimum is None:
            return 0.0, None
        return optimum.margin, [max(float(value), 0.0) for value in optimum.multipliers]


def _root(middle: float, slopes: Floats, reaches: Floats) -> float:
    """The γ at which ``middle + Σ slope_j · min(γ, reach_j)`` becomes zero; ``middle < 0``."""
    order = np.argsort(reaches, kind="stable")
    slope, total, last = float(slopes.sum()), middle, 0.0
    for place in order:
        reach = float(reaches[place])
        if slope > 0 and total + slope * (reach - last) >= 0:
            break
        if not np.isfinite(reach):
            break
        total += slope * (reach - last)
        slope, last = slope - float(slopes[place]), reach
    if slope <= 1e-300:
        return float("inf")
    return last - total / slope


def _least(mean: Floats, deviation: Floats) -> Floats:
    """The parameter at which each coordinate of a focus box reaches zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(deviation > 0, -mean / deviation, 0.0)
