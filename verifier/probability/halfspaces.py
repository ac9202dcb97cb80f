"""Probability of half-spaces inside cells of a product distribution, rigorously.

The value of a half-space is a sum of independent terms, so its law is one-dimensional whatever
the dimension. Three bounds, from cheap to dear; each pays for its rounding:

* its range over the cell, which settles it for good (`conspec.verifier.screen`);
* the sub-Gaussian tail ``P(S − E S ≤ −t) ≤ exp(−t²/(2 Σ g_j² p_j))`` with variance proxies p
  (Hoeffding's inequality with the sharper proxies of uniform and of cut normal laws);
* the Fourier series of the law. For S − E S in an interval of length L (up to a tail, which is
  counted), ``F(x) = 1/2 + x/L − Σ_k Im φ(ω_k)(exp(−iω_k x) − (−1)^k)/(πk)`` with ``ω_k = 2πk/L``
  has no discretisation error. The rest of the series is bounded by ``|φ_j(ω)| ≤ 2 max f_j/|ω|``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.rounding import TINY, UNIT, Bools, Floats, gamma
from conspec.verifier.probability.distributions import ROUNDING, Cells, Law
from conspec.verifier.probability.gaussian import ERROR, Gaussian
from conspec.verifier.screen import Ranges, Rows

Places = NDArray[np.intp]

TAIL = 1e-15
"""Probability outside of the interval of a Fourier series."""
TAIL_END = 1e-290
"""More than the normal tail beyond 37 deviations, where scipy's precision ends."""
ENOUGH = 1e-10
"""Error at which a series is long enough."""
WORTH = 0.1
"""Error at which the longest series is still worth its time."""
LENGTHS = (32, 64, 128, 256, 512)
"""Numbers of terms that are tried."""
WORK = 2**21
"""Entries of the largest array of one step of a series."""


@dataclass(frozen=True, eq=False)
class Masses:
    """Bounds [R, A] of the probability that each of A half-spaces holds, given each of R cells."""

    lower: Floats
    upper: Floats


@dataclass(frozen=True, eq=False)
class _Sums:
    """The half-spaces' values as sums: [R, A] each.

    Attributes:
        mean: mean of the value.
        error: how far rounding moves the value, and the mean.
        proxy: bound of the variance proxy.
        usable: [A], whether the value is a sum of coordinates at all.
    """

    mean: Floats
    error: Floats
    proxy: Floats
    usable: Bools


def range_masses(ranges: Ranges) -> Masses:
    """0 and 1 where the range settles the half-space."""
    strict = np.array([literal.strict for literal in ranges.rows.literals], dtype=np.bool_)
    never = np.where(strict, ranges.upper <= 0, ranges.upper < 0)
    always = np.where(strict, ranges.lower > 0, ranges.lower >= 0)
    return Masses(always.astype(np.float64), 1.0 - never)


def tail_masses(cells: Cells, ranges: Ranges, reach: Floats) -> tuple[Masses, _Sums]:
    """The ranges' masses, tightened by sub-Gaussian tails.

    Args:
        cells: R cells.
        ranges: of the A half-spaces over the cells.
        reach: [R, n+h], largest absolute value of each variable ``v = (z, y)`` over the cells.
    """
    sums = _sums(cells, ranges, reach)
    known = range_masses(ranges)
    above, below = _tails(sums.mean - sums.error, sums), _tails(-sums.mean - sums.error, sums)
    lower = np.maximum(known.lower, np.nextafter(1.0 - above, 0.0))
    return Masses(lower, np.minimum(known.upper, below)), sums


def _tails(distance: Floats, sums: _Sums) -> Floats:
    """Upper bounds of the probability that the value falls short of its mean by a distance."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        power = distance * distance / sums.proxy * (0.5 - 2.0**-40)
        found = np.exp(-power) * (1 + 2.0**-40) + TINY
    good = (distance > 0) & np.isfinite(power) & sums.usable
    return np.where(good, np.minimum(found, 1.0), 1.0)


@np.errstate(over="ignore", invalid="ignore", under="ignore")
def _sums(cells: Cells, ranges: Ranges, reach: Floats) -> _Sums:
    """Mean, error and proxy of each value in each cell."""
    size = cells.lower.shape[1]
    rows, errors = ranges.rows.rows[:, :size], ranges.rows.errors
    sizes, constants = np.abs(rows), ranges.rows.constants
    mean = cells.mean @ rows.T + constants
    error = (cells.slack + cells.mean_error) @ sizes.T + reach @ errors.T
    error += ranges.rows.constant_errors
    error += gamma(2 * size + 16) * (reach[:, :size] @ sizes.T + np.abs(constants))
    grown = 1.0 + gamma(4 * size + 32)
    proxy = np.nextafter(cells.proxy @ (rows * rows).T * grown, np.inf)
    usable: Bools = np.logical_not(ranges.rows.rows[:, size:].any(axis=1))
    return _Sums(mean, np.nextafter(error * grown + (4 * size + 8) * TINY, np.inf), proxy, usable)


def series_masses(
    law: Law, cells: Cells, ranges: Ranges, reach: Floats, wanted: Bools | None = None
) -> Masses:
    """The best of all bounds.

    Args:
        law: the distribution that the cells are of.
        cells: R cells.
        ranges: of the A half-spaces over the cells.
        reach: as for `tail_masses`.
        wanted: [R], for which cells the series is worth its time; all by default.
    """
    found, sums = tail_masses(cells, ranges, reach)
    open_ = (found.upper - found.lower > ENOUGH) & sums.usable
    if wanted is not None:
        open_ &= wanted[:, None]
    cell, place = np.nonzero(open_)
    rows = ranges.rows.rows[:, : cells.lower.shape[1]]
    lengths = _lengths(law, cells, rows, sums, (cell, place))
    lower, upper = found.lower.copy(), found.upper.copy()
    for terms in LENGTHS:
        chosen = np.flatnonzero(lengths == terms)
        step = max(1, WORK // (rows.shape[1] * max(terms, cells.nodes.shape[-1])))
        for start in range(0, len(chosen), step):
            part = chosen[start : start + step]
            at = cell[part], place[part]
            low, high = _series(law, _taken(cells, at[0]), rows[at[1]], _at(sums, at), terms)
            lower[at] = np.maximum(lower[at], low)
            upper[at] = np.minimum(upper[at], high)
    return Masses(lower, upper)


def _taken(cells: Cells, chosen: Places) -> Cells:
    """Some of the cells."""
    return Cells(
        cells.lower[chosen],
        cells.upper[chosen],
        cells.slack[chosen],
        cells.mean[chosen],
        cells.mean_error[chosen],
        cells.proxy[chosen],
        cells.spread[chosen],
        cells.nodes[chosen] if cells.nodes.size else cells.nodes,
        cells.weights[chosen] if cells.weights.size else cells.weights,
    )


def _at(sums: _Sums, at: tuple[Places, Places]) -> tuple[Floats, Floats, Floats]:
    """Mean, error and proxy [P] of pairs of a cell and a half-space."""
    return sums.mean[at], sums.error[at], sums.proxy[at]


def _period(widths: Floats, proxy: Floats) -> tuple[Floats, Floats]:
    """Length [P] of the interval of the series, and the probability outside of it.

    Args:
        widths: [P, n], ranges of the terms.
        proxy: [P].
    """
    whole = 2 * widths.sum(axis=1) * (1 + 1e-9) + TINY
    short = 2 * np.sqrt(2 * proxy * np.log(2 / TAIL)) * (1 + 1e-9) + TINY
    return np.minimum(whole, short), np.where(short < whole, TAIL, 0.0)


def _rest(widths: Floats, period: Floats, terms: int) -> Floats:
    """Bound [P] of the series' terms beyond the given number.

    ``|φ_j(ω_k)| ≤ r_j/k`` with ``r_j = L/(π a_j)``, a_j one over the term's largest density.
    """
    with np.errstate(divide="ignore", over="ignore"):
        ratio = period[:, None] / (np.pi * terms * widths)
    useful = ratio < 1
    count = useful.sum(axis=1)
    logs = np.log(np.where(useful, ratio, 1.0)).sum(axis=1)
    with np.errstate(under="ignore"):
        rest: Floats = np.exp(logs) * 2 / np.pi / np.maximum(count, 1) * (1 + 1e-9)
    return np.where(count > 0, rest, np.inf)


def _lengths(
    law: Law, cells: Cells, rows: Floats, sums: _Sums, at: tuple[Places, Places]
) -> Places:
    """How many terms each pair's series should have [P]; 0 where a series cannot help."""
    chosen, own = _taken(cells, at[0]), rows[at[1]]
    period, _ = _period(np.abs(own) * (chosen.upper - chosen.lower), sums.proxy[at])
    found, best = np.zeros(len(own), dtype=np.intp), np.full(len(own), WORTH)
    for terms in LENGTHS:
        error = _error(law, chosen, own, period, terms)
        better = (error < best) & (best > ENOUGH)
        found[better], best[better] = terms, error[better]
    return found


def _error(law: Law, cells: Cells, rows: Floats, period: Floats, terms: int) -> Floats:
    """Error [P] of a series: the terms left out, and the rounding of the others."""
    wrong = law.transform_error(cells, rows, 2 * np.pi / period, terms)
    rest = _rest(np.abs(rows) * cells.spread, period, terms)
    # Each of the terms is at most 2|φ|/(πk); the angles are rounded relative to their size.
    found: Floats = rest + 2 / np.pi * (1 + np.log(terms)) * (wrong + ROUNDING) + 32 * UNIT * terms
    return found


def _series(
    law: Law, cells: Cells, rows: Floats, sums: tuple[Floats, Floats, Floats], terms: int
) -> tuple[Floats, Floats]:
    """Bounds [P] of ``P(row · z + constant > 0)`` in P cells."""
    mean, error, proxy = sums
    period, outside = _period(np.abs(rows) * (cells.upper - cells.lower), proxy)
    base = 2 * np.pi / period
    values = law.transform(cells, rows, base, terms)
    count = np.arange(1, terms + 1)
    weight = values / (np.pi * count)
    fixed = (weight * np.where(count % 2, -1.0, 1.0)).imag.sum(axis=1)

    def distribution(at: Floats) -> Floats:
        x = np.clip(at, -period / 2, period / 2)
        turns = np.exp(-1j * (base * x)[:, None] * count)
        found: Floats = 0.5 + x / period - (weight * turns).imag.sum(axis=1) + fixed
        return found

    total = _error(law, cells, rows, period, terms) + outside
    return (
        np.clip(1 - distribution(error - mean) - total, 0.0, 1.0),
        np.clip(1 - distribution(-error - mean) + total, 0.0, 1.0),
    )


@np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore")
def normal_masses(gaussian: Gaussian, rows: Rows) -> Masses:
    """The half-spaces' probabilities [1, A] under a Gaussian that is not cut: normal tails.

    ``g·z + h`` is normal with mean ``g·μ + h`` and variance ``Σ g_j² σ_j²``.
    """
    size = len(gaussian.mean)
    own, errors = rows.rows[:, :size], rows.errors[:, :size]
    reach, terms = np.abs(gaussian.mean), gamma(2 * size + 16)
    mean = own @ gaussian.mean + rows.constants
    slip = terms * (np.abs(own) @ reach + np.abs(rows.constants)) + errors @ reach
    slip = (slip + rows.constant_errors) * (1 + terms) + (4 * size + 8) * TINY
    least, most = np.maximum(np.abs(own) - errors, 0.0), np.abs(own) + errors
    variance = gaussian.sigma * gaussian.sigma
    short = np.sqrt((least * least) @ variance) * (1 - 2 * terms)
    long = np.sqrt((most * most) @ variance) * (1 + 2 * terms)
    low, high = mean - slip, mean + slip
    low, high = low / np.where(low > 0, long, short), high / np.where(high > 0, short, long)
    usable = ~rows.rows[:, size:].any(axis=1) & np.isfinite(low) & np.isfinite(high)
    # The division moves the argument by some ulps; d ln Φ(q)/dq ≤ |q| + 1 is far below ERROR
    # for |q| ≤ 37, and beyond it TAIL_END decides.
    lower, upper = _normal(low)[0], _normal(high)[1]
    return Masses(np.where(usable, lower, 0.0)[None], np.where(usable, upper, 1.0)[None])


def _normal(at: Floats) -> tuple[Floats, Floats]:
    """Bounds of the normal distribution function, from the side where nothing cancels."""
    from scipy.special import ndtr

    tail = ndtr(-np.abs(at))
    small, large = np.maximum(tail * (1 - 2 * ERROR) - TAIL_END, 0.0), tail * (1 + 2 * ERROR)
    large = np.minimum(large + TAIL_END, 1.0)
    under = np.where(at > 0, np.nextafter(1.0 - large, 0.0), small)
    over = np.where(at > 0, np.nextafter(1.0 - small, 2.0), large)
    return under, np.minimum(over, 1.0)
