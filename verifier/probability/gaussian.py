"""Independent normal coordinates, cut to a box or not, as a `Law`.

What is trusted: `scipy.special.ndtr` within the relative error `ERROR` (cephes states 1e-14 or
better down to arguments of −37), `numpy.exp`, and the nodes and weights of `numpy.polynomial` to
within `ROUNDING`. Quantiles need no trust: each bound is checked by the distribution function.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property

import numpy as np

from conspec.encodings.exact import from_array
from conspec.encodings.regions import Box, box
from conspec.encodings.rounding import TINY, UNIT, Bools, Floats
from conspec.specs.errors import BadRegion, BadUsage
from conspec.verifier.probability.distributions import ROUNDING, Cells, Transform, refuse_empty

ERROR = 2.0**-40
"""Relative error granted to the normal distribution function of scipy."""
REACH = 12.0
"""A Gaussian is cut at this many standard deviations; beyond lies less than `BEYOND`."""
BEYOND = Fraction(1, 10**32)
"""More than ``2 Φ(−REACH) = 3.6e-33``, by far enough for the rounding of the cut."""
NODES = 96
"""Points of the Gauss-Legendre rule for a cut Gaussian."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Independent normal coordinates, cut to a box (that is: given that they lie in it) or not.

    Attributes:
        mean: [n], exactly the float64 numbers given.
        sigma: [n], standard deviations before the cut; a coordinate with 0 is constant.
        region: the box of the cut, or None.
    """

    mean: Floats
    sigma: Floats
    region: Box | None = None

    def __post_init__(self) -> None:
        """Refuse what is no distribution, or has its mass out of reach."""
        if self.mean.shape != self.sigma.shape or self.mean.ndim != 1:
            raise BadUsage("a Gaussian needs as many standard deviations as means")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.sigma).all()):
            raise BadUsage("means and standard deviations must be finite")
        if (self.sigma < 0).any():
            raise BadUsage("a standard deviation is negative")
        if self.region is not None:
            if self.region.dimension != len(self.mean):
                raise BadUsage("the box and the Gaussian differ in dimension")
            refuse_empty(self.region)
        if self.start.is_empty:
            raise BadRegion(
                f"the box lies more than {REACH:.0f} standard deviations from the Gaussian's mean"
            )
        # Accessing the core raises where too little of the Gaussian is left.
        _ = self.core

    @property
    def text(self) -> str:
        """In words."""
        cut = "" if self.region is None else ", given that they lie in the region's box"
        return f"coordinates are independent and normal with the class's moments{cut}"

    @cached_property
    def start(self) -> Box:
        """The box, cut at `REACH` standard deviations."""
        center, far = from_array(self.mean), from_array(self.sigma).scaled(Fraction(REACH))
        around = box(center.plus(far.scaled(-1)), center.plus(far))
        return around if self.region is None else around.intersected(self.region)

    @cached_property
    def free(self) -> Bools:
        """Coordinates with a positive deviation and a positive width."""
        return np.array([top > 0 for top in self.start.radius.numerators], dtype=np.bool_)

    @cached_property
    def _frame(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Bounds of the start, scale (1 for constants), and their rounding in scales."""
        low, high = self.start.lower.floats(), self.start.upper.floats()
        scale = np.where(self.free, self.sigma, 1.0)
        shift = 4 * UNIT * (np.abs(low) + np.abs(high) + 2 * np.abs(self.mean)) / scale + TINY
        return low, high, scale, shift

    @cached_property
    def _error(self) -> Floats:
        """Relative error of Φ at rounded standardised bounds, as d ln Φ(q)/dq ≤ |q| + 1."""
        return 2 * ERROR + 4 * (REACH + 1) * self._frame[3]

    @cached_property
    def _blur(self) -> Floats:
        """Relative error of the density from rounding in its exponent, normalisation included."""
        return ROUNDING + 2 * (REACH + 1) * self._frame[3]

    @cached_property
    def core(self) -> Fraction:
        """One, less what lies beyond the reach, given the box.

        Raises:
            BadRegion: the box has less than 1e-20 of a coordinate's probability.
        """
        from scipy.special import ndtr

        low, high, scale, _ = self._frame
        a, b = (low - self.mean) / scale, (high - self.mean) / scale
        left = np.where(a + b > 0, ndtr(-a) - ndtr(-b), ndtr(b) - ndtr(a))
        left = left - self._error * np.where(a + b > 0, ndtr(-a), ndtr(b))
        # For narrow boxes: the width times the least density, which is at an end.
        least = np.exp(-np.maximum(a * a, b * b) / 2) / np.sqrt(2 * np.pi)
        left = np.maximum(left, (b - a - self._frame[3]) * least * (1 - 1e-6))
        for place in np.flatnonzero(self.free & (left < 1e-20)):
            raise BadRegion(
                f"the box holds less than 1e-20 of the Gaussian's coordinate {place}, too little "
                "to condition on; move the box or take the uniform distribution"
            )
        # A coordinate without spread lies at its mean, and so not beyond anything.
        cut = left[self._shortened & self.free]
        return 1 - sum((BEYOND / Fraction(value) for value in cut), Fraction(0))

    @cached_property
    def _shortened(self) -> Bools:
        """Coordinates whose box reaches beyond `REACH`."""
        if self.region is None:
            return self.free
        ends = zip(self.start.lower.fractions(), self.region.lower.fractions(), strict=True)
        tops = zip(self.start.upper.fractions(), self.region.upper.fractions(), strict=True)
        pairs = zip(ends, tops, strict=True)
        return np.array([own != far or own_top != top for (own, far), (own_top, top) in pairs])

    def cells(self, first: Floats, last: Floats) -> Cells:
        """See `Law`."""
        scale = self._frame[2]
        below, above = self._quantiles(first), self._quantiles(last)
        lower, upper = below[0], above[1]
        slack = (below[1] - lower) + (upper - above[0]) + TINY
        half = (upper - lower) / 2
        middle = lower + half
        points, weights = _rule()
        nodes = middle[..., None] + half[..., None] * points
        nearest = np.clip(self.mean, lower, upper)
        away, peak = (nodes - self.mean[:, None]), (nearest - self.mean)[..., None]
        # The density relative to its maximum over the cell; one for constants.
        exponent = (away - peak) * (away + peak) / (2 * scale**2)[:, None]
        density = np.where(self.free[:, None], np.exp(-exponent), 1.0)
        shares = weights * density
        mass = shares.sum(axis=2)
        shares = shares / mass[..., None]
        mean = (shares * (nodes - lower[..., None])).sum(axis=2) + lower
        error = self._rule_error(lower, upper, np.zeros_like(lower)) * 2 / mass + self._blur
        width = np.nextafter(upper - lower, np.inf)
        size = 8 * UNIT * (np.abs(lower) + np.abs(upper)) + TINY
        # The cut law is log-concave, also after tilting by exp(s z): its variance is then at most
        # σ² (Brascamp and Lieb) and at most that of a uniform law (it is smaller in convex order
        # than the log-affine law of the same mean on the interval); so is the variance proxy.
        proxy = np.minimum(np.where(self.free, self.sigma**2, np.inf), width * width / 12)
        spread = half * mass * np.maximum(1 - 2.0**-40 - error, 0.0)
        return Cells(
            lower,
            upper,
            slack,
            mean,
            np.minimum(8 * error * width + size, width),
            np.nextafter(proxy * (1 + 8 * UNIT), np.inf),
            spread,
            nodes - mean[..., None],
            shares,
        )

    def _rule_error(self, lower: Floats, upper: Floats, frequency: Floats) -> Floats:
        """Bound of the rule's error for ``exp(i·frequency·z)`` times the density, over [−1, 1].

        Source: ``(64/15) M ρ^(−2m) / (1 − ρ^(−2))`` (Trefethen, Approximation Theory and
        Approximation Practice, theorem 19.3, for m + 1 points), with M the maximum over the
        Bernstein ellipse of ρ.

        Args:
            lower: [..., n] cells, as for `cells`.
            upper: the same.
            frequency: [..., n], any sign.
        """
        scale = self._frame[2]
        half = (upper - lower) / 2 / scale
        away = np.maximum(np.maximum(lower - self.mean, self.mean - upper), 0.0) / scale
        best = np.full(np.broadcast_shapes(lower.shape, frequency.shape), np.inf)
        for rho in (1.25, 1.5, 2.0, 3.0, 5.0, 9.0):
            up, out = (rho - 1 / rho) / 2, (rho + 1 / rho) / 2 - 1
            largest = (
                np.abs(frequency) * scale * half * up + (half * up) ** 2 / 2 + away * half * out
            )
            power = largest - 2 * (NODES - 1) * np.log(rho)
            best = np.minimum(best, 64 / 15 / (1 - rho**-2) * np.exp(np.minimum(power, 50.0)))
        return np.where(self.free, best * 1.001, 0.0)

    def _quantiles(self, share: Floats) -> tuple[Floats, Floats]:
        """Bounds [R, n] of the quantiles of the cut law, checked by the distribution function."""
        from scipy.special import ndtr, ndtri

        low, high, scale, _ = self._frame
        a, b = (low - self.mean) / scale, (high - self.mean) / scale
        left = (1 - share) * ndtr(a) + share * ndtr(b)
        right = (1 - share) * ndtr(-a) + share * ndtr(-b)
        # On the side where the tail is smaller, nothing cancels.
        sign = np.where(left <= right, 1.0, -1.0)
        target = np.minimum(left, right)
        near = ndtri(np.clip(target, 1e-300, 0.5))
        under, over = _bracket(near, target, 8 * self._error, ndtr)
        first, second = np.where(sign > 0, under, -over), np.where(sign > 0, over, -under)
        size = 8 * UNIT * (np.abs(low) + np.abs(high) + np.abs(self.mean)) + TINY
        below, above = self.mean + scale * first - size, self.mean + scale * second + size
        # In narrow boxes the density hardly changes, by the factor ratio at most.
        near, far = np.maximum(np.maximum(a, -b), 0.0), np.maximum(np.abs(a), np.abs(b))
        with np.errstate(over="ignore"):
            ratio = np.exp((far - near) * (far + near) / 2 + 32 * self._frame[3]) * (1 + ERROR)
            width = high - low
            below = np.maximum(below, low + width * share / ratio - size)
            below = np.maximum(below, high - width * (1 - share) * ratio - size)
            above = np.minimum(above, low + width * share * ratio + size)
            above = np.minimum(above, high - width * (1 - share) / ratio + size)
        floor, roof = np.nextafter(low - size, -np.inf), np.nextafter(high + size, np.inf)
        below, above = np.clip(below, floor, roof), np.clip(above, floor, roof)
        below = np.where(share == 0, floor, np.where(share == 1, high - size, below))
        above = np.where(share == 0, low + size, np.where(share == 1, roof, above))
        return below, above

    def transform(self, cells: Cells, rows: Floats, base: Floats, terms: int) -> Transform:
        """See `Law`: by quadrature over each coordinate."""
        steps = rows * base[:, None]
        with np.errstate(under="ignore"):
            unit = np.exp(1j * steps[..., None] * cells.nodes)
            powers, found = np.ones_like(unit), np.empty((len(rows), terms), dtype=np.complex128)
            for place in range(terms):
                powers *= unit
                factors = np.einsum("pnm,pnm->pn", powers, cells.weights)
                found[:, place] = factors.prod(axis=1)
        return found

    def transform_error(self, cells: Cells, rows: Floats, base: Floats, terms: int) -> Floats:
        """See `Law`: quadrature and rounding."""
        steps = np.abs(rows * base[:, None])
        reach = np.abs(cells.nodes).max(axis=2)
        rule = self._rule_error(cells.lower, cells.upper, steps * terms)
        half = (cells.upper - cells.lower) / 2
        # The rule's error counts relative to the mass of the density scaled to maximum one.
        relative = 2 * rule * half / np.maximum(cells.spread, TINY)
        rounding = self._blur + 8 * UNIT * terms * (1 + steps * reach)
        total: Floats = np.where(self.free, relative + rounding, rounding).sum(axis=1)
        return total


@cache
def _rule() -> tuple[Floats, Floats]:
    """Points and weights of the quadrature rule on [−1, 1]."""
    points, weights = np.polynomial.legendre.leggauss(NODES)
    return np.asarray(points, dtype=np.float64), np.asarray(weights, dtype=np.float64)


def _bracket(
    near: Floats, target: Floats, error: Floats, cdf: Callable[[Floats], Floats]
) -> tuple[Floats, Floats]:
    """Arguments below and above each solution of ``cdf(q) = target``, by widening until sure."""
    step = np.broadcast_to(error * 4, near.shape).copy()
    under, over = near - step, near + step
    for _ in range(60):
        high, low = cdf(under) > target * (1 - error), cdf(over) < target * (1 + error)
        if not (high.any() or low.any()):
            break
        step *= 2
        under, over = np.where(high, near - step, under), np.where(low, near + step, over)
    high, low = cdf(under) > target * (1 - error), cdf(over) < target * (1 + error)
    return np.where(high, -np.inf, under), np.where(low, np.inf, over)
