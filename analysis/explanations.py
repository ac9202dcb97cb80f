"""Formal explanations in closed form: what of an embedding suffices for its prediction.

An embedding lies in a box, the domain. Units are parts of what is known of it: bounds of single
features that it satisfies, such as its own value, or a predicate's threshold. A set of units
*suffices* for class c if every embedding of the domain that satisfies them is strictly predicted
as c. A subset-minimal sufficient set is an abductive explanation (AXp); a subset-minimal set
whose loss lets another class win or tie is a contrastive one (CXp). Each AXp hits each CXp
(Ignatiev et al., From contrastive to abductive explanations and back again, 2020).

For an affine head it is all sums. With ``d = W_k − W_c`` the largest lead of rival k over c is the
sum of ``max(d_j l_j, d_j u_j)``. Giving up a unit widens one side of one feature, and so adds a
cost that no other unit changes. A set of units suffices if and only if, for every rival, the slack
with all units is above the costs of those that were given up; a tie is no prediction.

Sums are float64 with a rigorous error bound; those too near to zero are computed exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import lcm

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.exact import Vector, combination
from conspec.encodings.network import Affine
from conspec.encodings.regions import Box
from conspec.encodings.rounding import TINY, Bools, Floats, gamma
from conspec.specs.errors import BadUsage

Integers = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Units:
    """U bounds of single features, all satisfied by the embedding that is explained.

    Attributes:
        names: how each is called.
        features: int [U]; the feature that each bounds.
        lower: [U] exact least value of the feature while the unit is kept.
        upper: [U] exact greatest one.
    """

    names: tuple[str, ...]
    features: Integers
    lower: Vector
    upper: Vector

    def __post_init__(self) -> None:
        """Refuse parts of different lengths."""
        if len({len(self.names), len(self.features), len(self.lower), len(self.upper)}) > 1:
            raise BadUsage("units need a name, a feature and two bounds each")


@dataclass(frozen=True, eq=False)
class LinearHead:
    """An affine head, laid out for questions about it.

    Attributes:
        affine: z [n] → logits [K].
    """

    affine: Affine

    @cached_property
    def columns(self) -> Floats:
        """The weights [n, K], rounded to nearest."""
        return np.ascontiguousarray(self.affine.floats[0].T)

    @cached_property
    def sizes(self) -> Floats:
        """The weights' sizes [n, K]."""
        return np.abs(self.columns)

    @cached_property
    def largest(self) -> float:
        """The largest weight's size."""
        return float(self.sizes.max(initial=0.0))


@dataclass(frozen=True, eq=False)
class LinearQuestion:
    """Which units of one embedding suffice for class ``target``.

    Attributes:
        head: the head.
        target: the class c, counted from 0.
        domain: the box of all embeddings that count.
        units: what may be kept or given up; lies in the domain.
        slack: float64 [K]; by how much c beats each rival at least while all is kept; infinite
            for c itself.
        costs: float64 [U, K]; what giving up a unit takes from that, never negative.
        room: float64 [K]; no sum of a slack and costs is farther than this from the exact one.
    """

    head: LinearHead
    target: int
    domain: Box
    units: Units
    slack: Floats
    costs: Floats
    room: Floats
    _exact: dict[int, "ExactSums"] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, head: LinearHead, target: int, domain: Box, units: Units) -> "LinearQuestion":
        """Prepare the sums.

        Raises:
            BadUsage: a unit reaches out of the domain, or two bound the same side of a feature.
        """
        bounds = _Bounds.of(domain, units)
        bounds.check()
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            slack, costs, room = _sums(head, target, bounds)
        return cls(head, target, domain, units, slack, costs, room)

    @property
    def size(self) -> int:
        """How many units there are."""
        return len(self.units.names)

    def sufficient(self, kept: Bools) -> bool:
        """Whether the units ``kept`` [U] suffice; certain."""
        freed = ~kept
        with np.errstate(over="ignore", invalid="ignore"):
            return self._holds(self.slack - freed @ self.costs, freed)

    def smaller_kept(self, kept: Bools, order: Sequence[int] | None = None) -> Bools:
        """A subset-minimal sufficient part [U] of a sufficient set: an AXp.

        Args:
            kept: units that suffice.
            order: in which they are tried to be given up; by default those that cost little first.
        """
        kept = kept.copy()
        with np.errstate(over="ignore", invalid="ignore"):
            rest = self.slack - ~kept @ self.costs
            for unit in self.cheapest_first() if order is None else order:
                if not kept[unit]:
                    continue
                kept[unit] = False
                trial = rest - self.costs[unit]
                if self._holds(trial, ~kept):
                    rest = trial
                else:
                    kept[unit] = True
        return kept

    def smaller_freed(self, freed: Bools, order: Sequence[int] | None = None) -> Bools:
        """A subset-minimal part [U] of a set that, given up, lets c lose or tie: a CXp.

        Args:
            freed: units without which the others do not suffice.
            order: in which they are tried to be kept; by default those that cost little first.
        """
        freed = freed.copy()
        with np.errstate(over="ignore", invalid="ignore"):
            rest = self.slack - freed @ self.costs
            for unit in self.cheapest_first() if order is None else order:
                if not freed[unit]:
                    continue
                freed[unit] = False
                trial = rest + self.costs[unit]
                if self._holds(trial, freed):
                    freed[unit] = True
                else:
                    rest = trial
        return freed

    def cheapest_first(self) -> list[int]:
        """The units by the largest share of a rival's slack that giving them up takes."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            shares = (self.costs / np.maximum(self.slack, TINY)).max(axis=1, initial=0.0)
        order: list[int] = np.argsort(shares, kind="stable").tolist()
        return order

    def exact_slack(self, rival: int, freed: Bools) -> Fraction:
        """By how much c beats a rival at least with the units ``freed`` [U] given up; exact."""
        found = self.exact_sums(rival)
        rest = found.slack - sum(found.costs[unit] for unit in np.flatnonzero(freed).tolist())
        return Fraction(rest, found.denominator)

    def worst_point(self, freed: Bools) -> tuple[Vector, int]:
        """The embedding and the rival where c leads least with the units ``freed`` given up.

        Returns:
            The embedding, exact, in the domain, with the kept units satisfied; and the rival.

        Raises:
            BadUsage: the head has one class only.
        """
        rivals = [k for k in range(len(self.slack)) if k != self.target]
        if not rivals:
            raise BadUsage("a head of one class has no rival")
        with np.errstate(over="ignore", invalid="ignore"):
            rest = self.slack - freed @ self.costs
        near = np.flatnonzero(~(rest - self.room > np.nanmin(rest + self.room))).tolist()
        candidates = [k for k in near if k != self.target] or rivals
        rival = min(candidates, key=lambda k: self.exact_slack(k, freed))
        lower, upper = self._bounds.exact(freed)
        signs = self.exact_sums(rival).row.numerators
        tops = [high if sign > 0 else low
                for sign, low, high in zip(signs, lower, upper, strict=True)]  # fmt: skip
        return Vector(tuple(tops), self._bounds.denominator), rival

    def clipped(self, kept: Bools) -> tuple[Vector, Vector]:
        """Exact bounds [n] of the domain with the units ``kept`` [U]."""
        lower, upper = self._bounds.exact(~kept)
        bottom = self._bounds.denominator
        return Vector(tuple(lower), bottom), Vector(tuple(upper), bottom)

    def _holds(self, rest: Floats, freed: Bools) -> bool:
        """Whether every exact sum behind ``rest`` [K] is positive."""
        low = rest - self.room
        if (low > 0).all():
            return True
        if (rest + self.room <= 0).any():
            return False
        close = np.flatnonzero(~(low > 0)).tolist()
        return all(self.exact_slack(rival, freed) > 0 for rival in close)

    @cached_property
    def _bounds(self) -> "_Bounds":
        return _Bounds.of(self.domain, self.units)

    def exact_sums(self, rival: int) -> "ExactSums":
        """The exact slack of c over a rival, and the exact costs; made once per rival."""
        if rival not in self._exact:
            (own, own_bias), (other, bias) = (self.head.affine.row(k) for k in (self.target, rival))
            row = combination([(Fraction(1), other), (Fraction(-1), own)])
            self._exact[rival] = _exact_sums(row, bias - own_bias, self._bounds)
        return self._exact[rival]


@dataclass(frozen=True, eq=False)
class ExactSums:
    """Slack and costs of one rival, as integers over one denominator.

    Attributes:
        row: ``W_k − W_c`` [n].
        denominator: of slack and costs.
        slack: by how much c beats the rival at least while all units are kept.
        costs: [U] what giving up each takes from that.
    """

    row: Vector
    denominator: int
    slack: int
    costs: list[int]


def _exact_sums(row: Vector, shift: Fraction, bounds: "_Bounds") -> ExactSums:
    """The sums of a rival with lead ``row · z + shift``."""
    share = row.denominator * bounds.denominator
    bottom = lcm(share, shift.denominator)
    factor = bottom // share
    lower, upper = bounds.exact(np.zeros(len(bounds.features), dtype=bool))
    lead = sum(
        d * (high if d > 0 else low)
        for d, low, high in zip(row.numerators, lower, upper, strict=True)
    )
    slack = -lead * factor - shift.numerator * (bottom // shift.denominator)
    slopes = [row.numerators[j] for j in bounds.features]
    costs = [
        factor * d * (above if d > 0 else below)
        for d, below, above in zip(slopes, *bounds.gains, strict=True)
    ]
    return ExactSums(row, bottom, slack, costs)


@dataclass(frozen=True, eq=False)
class _Bounds:
    """The bounds of domain and units, as integers over one denominator."""

    denominator: int
    features: list[int]
    domain: tuple[tuple[int, ...], tuple[int, ...]]
    units: tuple[tuple[int, ...], tuple[int, ...]]

    @classmethod
    def of(cls, domain: Box, units: Units) -> "_Bounds":
        bottom = lcm(domain.lower.denominator, units.lower.denominator, units.upper.denominator)
        lower, upper, low, high = (
            part.over(bottom).numerators
            for part in (domain.lower, domain.upper, units.lower, units.upper)
        )
        return cls(bottom, units.features.tolist(), (lower, upper), (low, high))

    def check(self) -> None:
        """Refuse units outside the domain, and two that bound the same side of a feature."""
        (lower, upper), sides = self.domain, (set[int](), set[int]())
        for j, low, high in zip(self.features, *self.units, strict=True):
            if not 0 <= j < len(lower):
                raise BadUsage(f"a unit bounds feature {j}; there are {len(lower)}")
            if not lower[j] <= low <= high <= upper[j]:
                raise BadUsage(f"a unit's bounds of feature {j} reach out of the domain")
            for side, used in zip(sides, (low > lower[j], high < upper[j]), strict=True):
                if used and j in side:
                    raise BadUsage(f"two units bound the same side of feature {j}")
                side |= {j} if used else set()

    def exact(self, freed: Bools) -> tuple[list[int], list[int]]:
        """Lower and upper bounds [n] of the domain with all but the freed units."""
        lower, upper = map(list, self.domain)
        for j, low, high, free in zip(self.features, *self.units, freed.tolist(), strict=True):
            if not free:
                lower[j], upper[j] = max(lower[j], low), min(upper[j], high)
        return lower, upper

    @property
    def gains(self) -> tuple[list[int], list[int]]:
        """How far giving up each unit moves the lower bound (≤ 0) and the upper one (≥ 0)."""
        lower, upper = self.domain
        return (
            [lower[j] - low for j, low in zip(self.features, self.units[0], strict=True)],
            [upper[j] - high for j, high in zip(self.features, self.units[1], strict=True)],
        )

    def floats(self, tops: Sequence[int]) -> Floats:
        """Integers over the denominator, each rounded to nearest."""
        return Vector(tuple(tops), self.denominator).floats()


def _sums(head: LinearHead, target: int, bounds: _Bounds) -> tuple[Floats, Floats, Floats]:
    """Slack [K], costs [U, K] and room [K] in float64.

    With A = |W_k| + |W_c| and B the larger of a feature's bounds, a feature adds at most 3AB to a
    slack (its lower end, and its width) and its units at most 4AB to the costs. Each factor is
    off by a few units of roundoff, and a chain has n + 2U additions, so γ of a slightly larger
    number times the sum of sizes covers it. Factors that vanish are off by up to TINY.
    """
    count = len(bounds.features)
    lower, upper = map(bounds.floats, bounds.exact(np.zeros(count, dtype=bool)))
    below, above = map(bounds.floats, bounds.gains)
    bias = head.affine.floats[1]
    lead = head.columns - head.columns[:, target : target + 1]
    width = upper - lower
    slack = -(lower @ lead + (width @ lead.clip(min=0.0) if width.any() else 0.0))
    slack -= bias - bias[target]
    own = lead[bounds.features]
    costs = np.maximum(own * above[:, None], own * below[:, None])
    reach = np.maximum(*(np.abs(bounds.floats(side)) for side in bounds.domain))
    extent = reach @ head.sizes
    extent = 8.0 * (extent + extent[target]) + np.abs(bias) + np.abs(bias[target])
    terms = len(lower) + 2 * count + 64
    tiny = terms * TINY * (8.0 + 4.0 * head.largest + 4.0 * float(reach.max(initial=0.0)))
    room = gamma(terms) * extent * (1.0 + gamma(terms)) + tiny
    slack[target], room[target] = np.inf, 0.0
    costs[:, target] = 0.0
    return slack, costs, room
