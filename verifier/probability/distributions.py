"""Distributions with independent coordinates, cut into cells of exactly known probability.

A cell is a box in quantiles: coordinate j runs through the quantiles from ``t`` to ``t'`` of its
marginal. Its probability is ``Π (t'_j − t_j)``, so halving a cell halves its probability exactly,
whatever the marginals are; all rounding lies in the cell's bounds in embedding space, which are
rounded outward.

What is trusted: `numpy.sin` within `ROUNDING` of the sine of its argument.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.regions import Box
from conspec.encodings.rounding import TINY, UNIT, Bools, Floats
from conspec.specs.errors import BadRegion

ROUNDING = 2.0**-44
"""Error granted to one sine, exponential or quadrature sum, beside that of its argument."""
NONE: Floats = np.zeros((0, 0, 0))
Transform = NDArray[np.complex128]


@dataclass(frozen=True, eq=False)
class Cells:
    """R cells in embedding space; arrays are [R, n].

    The law inside a cell is that of its coordinates, given that they lie in the cell; it differs
    from the law on ``[lower, upper]`` by moving each coordinate by at most ``slack``.

    Attributes:
        lower: outward bounds of each cell.
        upper: the same, above.
        slack: how far a coordinate may be off because the bounds are rounded.
        mean: mean of each coordinate on ``[lower, upper]``, up to ``mean_error``.
        mean_error: its error.
        proxy: bound of the variance proxy: ``E exp(s(z_j − mean)) ≤ exp(s² proxy / 2)``.
        spread: lower bound of one over the density's maximum; the density is unimodal. Zero
            where there is no density.
        nodes: [R, n, m] points of a quadrature rule, relative to the mean; empty without one.
        weights: [R, n, m], of sum 1.
    """

    lower: Floats
    upper: Floats
    slack: Floats
    mean: Floats
    mean_error: Floats
    proxy: Floats
    spread: Floats
    nodes: Floats = field(default_factory=lambda: NONE)
    weights: Floats = field(default_factory=lambda: NONE)


class Law(Protocol):
    """A distribution of embeddings with independent coordinates."""

    @property
    def text(self) -> str:
        """The distribution in words: what a bound assumes."""

    @property
    def start(self) -> Box:
        """Where cells lie: all of the distribution, but for 1 − core."""

    @property
    def core(self) -> Fraction:
        """Lower bound of the probability of ``start``."""

    @property
    def free(self) -> Bools:
        """Which coordinates vary: bool [n]; the others have one value."""

    def cells(self, first: Floats, last: Floats) -> Cells:
        """The cells between quantiles ``first`` and ``last``, multiples of 2**-50: [R, n]."""

    def transform(self, cells: Cells, rows: Floats, base: Floats, terms: int) -> Transform:
        """Characteristic function of ``row · (z − mean)`` in P cells, one for each of P rows.

        Args:
            cells: P cells.
            rows: [P, n].
            base: [P], the lowest frequency ω.
            terms: K.

        Returns:
            Complex [P, K] at ω, 2ω, …, Kω, up to `transform_error`.
        """

    def transform_error(self, cells: Cells, rows: Floats, base: Floats, terms: int) -> Floats:
        """Bound [P] of the error of each entry of `transform`; inf where it is not known."""


def refuse_empty(region: Box) -> None:
    """Refuse an empty box: it has no distribution."""
    if region.is_empty:
        raise BadRegion("the region is empty, so there is no distribution on it")


def _outward(values: Floats, error: Floats) -> tuple[Floats, Floats]:
    """Values less and plus an error, rounded outward."""
    return np.nextafter(values - error, -np.inf), np.nextafter(values + error, np.inf)


@dataclass(frozen=True, eq=False)
class Uniform:
    """The uniform distribution on a box; coordinates of width zero are constant."""

    start: Box
    core: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        """Refuse an empty box."""
        refuse_empty(self.start)

    @property
    def text(self) -> str:
        """In words."""
        return "embeddings are uniformly distributed on the region's box"

    @cached_property
    def free(self) -> Bools:
        """Coordinates of positive width."""
        return np.array([top > 0 for top in self.start.radius.numerators], dtype=np.bool_)

    def cells(self, first: Floats, last: Floats) -> Cells:
        """See `Law`."""
        low, high = self.start.lower.floats(), self.start.upper.floats()
        # Two roundings of the bounds, one of the difference, the product and the sum.
        error = 8 * UNIT * (np.abs(low) + np.abs(high)) + 8 * TINY
        lower, _ = _outward(low + first * (high - low), error)
        _, upper = _outward(low + last * (high - low), error)
        width = np.nextafter(upper - lower, np.inf)
        mean = lower + (upper - lower) / 2
        return Cells(
            lower,
            upper,
            np.broadcast_to(4 * error, lower.shape),
            mean,
            4 * UNIT * (np.abs(lower) + np.abs(upper)) + TINY,
            # sinh(x)/x ≤ exp(x²/6): a uniform law has its variance as variance proxy.
            np.nextafter(width * width / 12 * (1 + 8 * UNIT), np.inf),
            np.maximum((upper - lower) * (1 - 4 * UNIT), 0.0),
        )

    def transform(self, cells: Cells, rows: Floats, base: Floats, terms: int) -> Transform:
        """See `Law`: the product of ``sin(x)/x`` with ``x = row_j · width_j · frequency / 2``."""
        half = rows * (cells.upper - cells.lower) / 2 * base[:, None]
        count = np.arange(1, terms + 1)
        found = np.ones((len(rows), terms))
        for column in half.T:
            found *= np.sinc(column[:, None] * count / np.pi)
        return found.astype(np.complex128)

    def transform_error(self, cells: Cells, rows: Floats, base: Floats, terms: int) -> Floats:
        """See `Law`; sinc changes by at most half of what its argument does."""
        half = np.abs(rows) * (cells.upper - cells.lower) / 2 * base[:, None]
        found: Floats = rows.shape[1] * ROUNDING + 8 * UNIT * terms * half.sum(axis=1)
        return found


@dataclass(frozen=True, eq=False)
class Marginals:
    """Any independent coordinates on a box, known by bounds of their distribution functions.

    Attributes:
        start: the box; each coordinate lies in it with probability 1.
        bounds: ``bounds(j, x)`` gives floats below and above ``P(z_j ≤ x)``, both growing with x.
        text: what the distribution is.
    """

    start: Box
    bounds: Callable[[int, float], tuple[float, float]]
    text: str
    core: Fraction = Fraction(1)
    _known: dict[tuple[int, float], tuple[float, float]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuse an empty box."""
        refuse_empty(self.start)

    @cached_property
    def free(self) -> Bools:
        """Coordinates of positive width."""
        return np.array([top > 0 for top in self.start.radius.numerators], dtype=np.bool_)

    def cells(self, first: Floats, last: Floats) -> Cells:
        """See `Law`; of the law inside a cell nothing is known but the cell."""
        lower = np.array([[self._quantile(j, t)[0] for j, t in enumerate(row)] for row in first])
        upper = np.array([[self._quantile(j, t)[1] for j, t in enumerate(row)] for row in last])
        half = np.nextafter((upper - lower) / 2 * (1 + 4 * UNIT), np.inf)
        size = 4 * UNIT * (np.abs(lower) + np.abs(upper)) + TINY
        # Hoeffding's lemma: a variable on an interval has proxy width²/4 about its mean.
        proxy = np.nextafter(half * half * (1 + 4 * UNIT), np.inf)
        zero = np.zeros_like(lower)
        return Cells(lower, upper, zero, lower + (upper - lower) / 2, half + size, proxy, zero)

    def transform(self, cells: Cells, rows: Floats, base: Floats, terms: int) -> Transform:
        """Not known."""
        return np.zeros((len(rows), terms), dtype=np.complex128)

    def transform_error(self, cells: Cells, rows: Floats, base: Floats, terms: int) -> Floats:
        """See `Law`."""
        return np.full(len(rows), np.inf)

    def _quantile(self, place: int, share: float) -> tuple[float, float]:
        """Bounds of a quantile, by bisection of the distribution function's bounds."""
        if (place, share) not in self._known:
            low, high = (float(ends[place]) for ends in self.start.outer)
            if 0 < share < 1:
                below = _last(low, high, lambda x: self.bounds(place, x)[1] <= share)
                above = -_last(-high, -low, lambda x: self.bounds(place, -x)[0] >= share)
                self._known[place, share] = below, above
            else:
                self._known[place, share] = (low, low) if share == 0 else (high, high)
        return self._known[place, share]


def _last(low: float, high: float, holds: Callable[[float], bool]) -> float:
    """A number near the last where a falling condition holds, and where it does; else ``low``."""
    for _ in range(64):
        middle = low + (high - low) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
