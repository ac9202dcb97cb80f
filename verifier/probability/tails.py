"""Lower bounds of P(margin > 0) from the moments of a spec's margin alone.

Moments are what is left when the data are gone: the margin g·z + h of a spec that nobody had
thought of has the mean g·μ + h and the variance gᵀ Σ g, without another look at the embeddings.
Where the data are there, the Clopper–Pearson bound of the counts is better; see ``intervals``.

Each bound carries the sentence that says what it assumes. None is a proof.

Variances are second central moments, divided by the count and not by the count − 1. Functions
take scalars or arrays that broadcast together, [S] for S specs, and give float64 arrays.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from conspec.specs.errors import BadUsage
from conspec.verifier.probability.intervals import Floats, clopper_pearson_lower, error_of

Numbers: TypeAlias = NDArray[np.float64] | NDArray[np.int64] | float

KNOWN = "the margin has exactly this mean and variance, whatever its distribution"
SAMPLED = "the margins behind the moments are independent draws of one distribution, whatever it is"
GAUSSIAN = "the margin is normally distributed, and its moments come from independent draws"
ROUNDING = 1e-9
"""Relative error granted to the moments before a number of draws is rounded up."""
DOUBLINGS = 60
HALVINGS = 34
"""Bisections of a non-centrality: what is left is below 1e-9 of its standard error."""
NODES = 64
"""Points of a Gauss–Legendre sum, which leave an error of less than 1e-8 of the tail (tested)."""
REACH = 10.0
"""Standard deviations that a sum extends to, either way."""
FEWEST = 20
"""Draws below which the test of normality is not accurate (its kurtosis part, in particular)."""


@dataclass(frozen=True, slots=True)
class TailBound:
    """A lower bound of the probability that a margin is above 0.

    Attributes:
        lower: the bound, [S] float64.
        confidence: with which each bound holds; None where the moments are taken as known.
        assumption: what it assumes, in a sentence.
    """

    lower: Floats
    confidence: float | None
    assumption: str


@dataclass(frozen=True, slots=True)
class Normality:
    """How far moments are from those of a normal distribution.

    Attributes:
        skewness: third standardized moment, [S]; 0 for a normal distribution.
        kurtosis: fourth standardized moment, [S]; 3 for a normal distribution.
        p_value: how often normal margins would look at least as far from normal, [S]. A small one
            speaks against ``gaussian``; a large one is no evidence for it. NaN where all margins
            are equal or there are fewer than 20.
    """

    skewness: Floats
    kurtosis: Floats
    p_value: Floats


@dataclass(frozen=True, slots=True)
class Moments:
    """Count and central moments of the margins of S specs; they can be merged.

    Attributes:
        count: how many draws.
        mean: [S] float64.
        second: mean of (margin − mean)², [S].
        third: mean of (margin − mean)³, [S].
        fourth: mean of (margin − mean)⁴, [S].
    """

    count: int
    mean: Floats
    second: Floats
    third: Floats
    fourth: Floats

    @property
    def skewness(self) -> Floats:
        """Third standardized moment, [S]; NaN where the variance is 0."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.second > 0, self.third / self.second**1.5, np.nan)

    @property
    def kurtosis(self) -> Floats:
        """Fourth standardized moment, [S]; NaN where the variance is 0."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.second > 0, self.fourth / self.second**2, np.nan)

    def merged(self, other: "Moments") -> "Moments":
        """The moments of both sets of draws together (Pébay, 2008, section 2.1).

        Args:
            other: moments of the same specs over other draws.
        """
        count = self.count + other.count
        a, b = self.count / count, other.count / count
        gap = other.mean - self.mean
        return Moments(
            count,
            self.mean + b * gap,
            a * self.second + b * other.second + a * b * gap**2,
            a * self.third
            + b * other.third
            + a * b * (a - b) * gap**3
            + 3 * a * b * gap * (other.second - self.second),
            a * self.fourth
            + b * other.fourth
            + a * b * (a * a - a * b + b * b) * gap**4
            + 6 * a * b * gap**2 * (a * other.second + b * self.second)
            + 4 * a * b * gap * (other.third - self.third),
        )


def moments_of(margins: NDArray[np.floating[Any]]) -> Moments:
    """The moments of a batch of margins.

    Args:
        margins: [N, S], any float type; summed as float64. N is at least 1.

    Raises:
        BadUsage: no margins, or NaN or infinite ones.
    """
    x = np.asarray(margins, dtype=np.float64)
    if x.ndim != 2 or not len(x):
        raise BadUsage(f"margins must have the shape [N, S] with N at least 1, not {list(x.shape)}")
    if not np.isfinite(x).all():
        raise BadUsage("margins must be finite numbers; drop and count the others before")
    mean = x.mean(axis=0)
    deviation = x - mean
    powers = [(deviation**power).mean(axis=0) for power in (2, 3, 4)]
    return Moments(len(x), mean, *powers)


def cantelli(mean: Numbers, variance: Numbers) -> TailBound:
    """Cantelli's inequality: P(margin > 0) is at least mean² / (mean² + variance).

    For moments that are known, not estimated; 0 where the mean is not positive.

    Args:
        mean: true mean, [S] or a scalar.
        variance: true variance, [S] or a scalar.

    Raises:
        BadUsage: a negative variance, or numbers that are not finite.
    """
    return TailBound(_share(mean, variance), None, KNOWN)


def cantelli_sampled(
    count: Numbers, mean: Numbers, variance: Numbers, confidence: float = 0.95
) -> TailBound:
    """A lower bound of P(margin > 0) from the moments of a sample, of any distribution.

    Cantelli's inequality holds for the sample's own distribution without any error: at least the
    share mean² / (mean² + variance) of the draws had a margin above 0. The one-sided
    Clopper–Pearson bound for that many draws is then a lower bound of the probability, since it
    grows with the count, and the true count is no smaller.

    The finite-sample inequality of Saw, Yang and Mo (1984), also in Kabán's form (2012), is not
    used: it bounds the chance that the next draw lies k standard deviations from the sample's mean
    for a k fixed beforehand, on average over samples. Here k = mean / deviation comes from the
    sample, and a statement about this distribution is wanted.

    Args:
        count: number of draws, [S] or a scalar.
        mean: their mean, [S] or a scalar.
        variance: their variance, divided by the count; [S] or a scalar.
        confidence: that each bound is right.

    Raises:
        BadUsage: bad moments, or a bad confidence.
    """
    n, share = np.broadcast_arrays(_whole(count), _share(mean, variance))
    satisfied = np.ceil(n * share * (1.0 - ROUNDING)).astype(np.int64)
    lower = clopper_pearson_lower(satisfied, n, confidence)
    return TailBound(np.asarray(lower), confidence, SAMPLED)


def gaussian(
    count: Numbers, mean: Numbers, variance: Numbers, confidence: float = 0.95
) -> TailBound:
    """A lower bound of P(margin > 0) for normal margins whose moments come from a sample.

    P(margin > 0) is Φ(μ / σ), and t = √n mean / s is a draw of Student's t with n − 1 degrees of
    freedom and the non-centrality √n μ / σ. The bound is Φ(δ / √n) for the δ at which a t this
    large has the probability 1 − confidence (Owen, 1968): the exact one-sided tolerance bound.
    It leans on the shape of a tail that no data reached: show ``normality`` beside it.

    Args:
        count: number of draws, [S] or a scalar; below 2 the bound is 0.
        mean: their mean, [S] or a scalar.
        variance: their variance, divided by the count; [S] or a scalar.
        confidence: that each bound is right if the margins are normal; at most 1 − 1e-12, what
            the numerical integral is good for.

    Raises:
        BadUsage: bad moments, or a bad confidence.
    """
    from scipy.special import ndtr

    error = error_of(confidence)
    if confidence > 1.0 - 1e-12:
        raise BadUsage(f"the Gaussian bound needs a confidence of at most 1 - 1e-12: {confidence}")
    n, m, v = np.broadcast_arrays(_whole(count), *_moments(mean, variance))
    usual = (n >= 2) & (v > 0)
    freedom = np.where(usual, n - 1.0, 1.0)
    # √n mean / s, with s² = variance n / (n − 1)
    t = np.where(usual, m, 0.0) * np.sqrt(freedom / np.where(usual, v, 1.0))
    bound = ndtr(_noncentrality(freedom, t, error) / np.sqrt(np.maximum(n, 1)))
    same = np.where(m > 0, 1.0, 0.0)
    return TailBound(np.where(n < 2, 0.0, np.where(v > 0, bound, same)), confidence, GAUSSIAN)


def normality(count: Numbers, skewness: Numbers, kurtosis: Numbers) -> Normality:
    """The test of D'Agostino and Pearson (1973) from moments: skewness and kurtosis together.

    Args:
        count: number of draws, [S] or a scalar.
        skewness: third standardized moment, [S] or a scalar.
        kurtosis: fourth standardized moment (3 for normal ones), [S] or a scalar.
    """
    from scipy.special import chdtrc

    given = np.asarray(count, float), np.asarray(skewness, float), np.asarray(kurtosis, float)
    n, b1, b2 = np.broadcast_arrays(*given)
    enough = np.where(n >= FEWEST, n, np.nan)
    squares = _skewness_score(enough, b1) ** 2 + _kurtosis_score(enough, b2) ** 2
    return Normality(b1, b2, np.asarray(chdtrc(2, squares)))


def _skewness_score(n: Floats, b1: Floats) -> Floats:
    """The skewness as a standard normal variable if the draws are normal (D'Agostino, 1970)."""
    y = b1 * np.sqrt((n + 1) * (n + 3) / (6 * (n - 2)))
    fourth = 3 * (n * n + 27 * n - 70) * (n + 1) * (n + 3)
    fourth = fourth / ((n - 2) * (n + 5) * (n + 7) * (n + 9))
    w2 = np.sqrt(2 * (fourth - 1)) - 1
    return np.asarray(np.arcsinh(y * np.sqrt((w2 - 1) / 2)) / np.sqrt(np.log(w2) / 2))


def _kurtosis_score(n: Floats, b2: Floats) -> Floats:
    """The kurtosis as a standard normal variable if they are (Anscombe and Glynn, 1983)."""
    expected = 3 * (n - 1) / (n + 1)
    variance = 24 * n * (n - 2) * (n - 3) / ((n + 1) ** 2 * (n + 3) * (n + 5))
    x = (b2 - expected) / np.sqrt(variance)
    skew = 6 * (n * n - 5 * n + 2) / ((n + 7) * (n + 9))
    skew = skew * np.sqrt(6 * (n + 3) * (n + 5) / (n * (n - 2) * (n - 3)))
    a = 6 + 8 / skew * (2 / skew + np.sqrt(1 + 4 / skew**2))
    root = np.cbrt((1 - 2 / a) / (1 + x * np.sqrt(2 / (a - 4))))
    return np.asarray((1 - 2 / (9 * a) - root) / np.sqrt(2 / (9 * a)))


def _noncentrality(freedom: Floats, t: Floats, error: float) -> Floats:
    """The δ at which P(T ≥ t) = error for a non-central T, from below; −inf if none is found.

    By bisection: scipy's inverse loses small errors, and its distribution function gives up on
    large t.
    """
    from scipy.special import ndtri

    reach = (1.0 - ndtri(min(error, 0.5))) * np.sqrt(1 + t * t / (2 * freedom))
    low, high = t - reach, t + reach
    for _ in range(DOUBLINGS):
        found = _noncentral_tail(freedom, t, low) < error
        if found.all():
            break
        reach = 2 * reach
        low = np.where(found, low, t - reach)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = _noncentral_tail(freedom, t, middle) < error
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.where(_noncentral_tail(freedom, t, low) < error, low, -np.inf)


def _noncentral_tail(freedom: Floats, t: Floats, delta: Floats) -> Floats:
    """P(T ≥ t) for T = (Z + δ) / W with Z normal and freedom · W² chi-square; each [...].

    A Gauss–Legendre sum over W where t is small against the spread of W, and over Z elsewhere, so
    that the factor summed over is never narrower than the other.
    """
    flat = [np.ravel(part) for part in (freedom, t, delta)]
    steep = np.abs(flat[1]) > np.sqrt(2 * flat[0])
    found = np.empty(steep.shape)
    for chosen, tail in ((steep, _tail_over_z), (~steep, _tail_over_w)):
        found[chosen] = tail(*(part[chosen][:, None] for part in flat))
    return found.reshape(np.shape(t))


@cache
def _nodes() -> tuple[Floats, Floats]:
    """Points in [−1, 1] and weights of the Gauss–Legendre sum, each [NODES]."""
    x, weights = np.polynomial.legendre.leggauss(NODES)
    return x, weights


def _tail_over_w(freedom: Floats, t: Floats, delta: Floats) -> Floats:
    """The mean of P(Z ≥ t w − δ) over w; arguments [S, 1], result [S]."""
    from scipy.special import ndtr

    x, weights = _nodes()
    spread = REACH / np.sqrt(2 * freedom)
    low = np.maximum(-1.0, -spread)
    u = (low + spread) / 2 + (spread - low) / 2 * x  # w − 1, whose digits matter near w = 1
    log_density = (freedom - 1) * np.log1p(u) - freedom * u * (1 + u / 2)
    density = weights * np.exp(log_density - log_density.max(axis=1, keepdims=True))
    return np.asarray((density * ndtr(delta - t * (1 + u))).sum(axis=1) / density.sum(axis=1))


def _tail_over_z(freedom: Floats, t: Floats, delta: Floats) -> Floats:
    """The mean of P(W t ≤ z + δ) over z; arguments [S, 1] with t not 0, result [S]."""
    from scipy.special import gammainc, gammaincc, ndtr

    x, weights = _nodes()
    # z + δ has the sign of t here, and each sign its own half; the other half is all or nothing.
    start = np.clip(-delta, -REACH, REACH)
    half = (np.where(t > 0, REACH, -REACH) - start) / 2
    z = start + half * (1 + x)
    squares = freedom * ((z + delta) / t) ** 2 / 2
    chance = np.where(t > 0, gammainc(freedom / 2, squares), gammaincc(freedom / 2, squares))
    normal = np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    total = (weights * np.abs(half) * normal * chance).sum(axis=1)
    return np.asarray(total + np.where(t > 0, 0.0, ndtr(delta))[:, 0])


def _share(mean: Numbers, variance: Numbers) -> Floats:
    """Share mean² / (mean² + variance), 0 where the mean is not positive; without overflow."""
    m, v = _moments(mean, variance)
    length = np.hypot(m, np.sqrt(v))
    return np.where(m > 0, (m / np.where(length > 0, length, 1.0)) ** 2, 0.0)


def _moments(mean: Numbers, variance: Numbers) -> tuple[Floats, Floats]:
    """Both as float64 of one shape, checked."""
    m, v = np.broadcast_arrays(np.asarray(mean, float), np.asarray(variance, float))
    if not (np.isfinite(m) & np.isfinite(v) & (v >= 0)).all():
        raise BadUsage("a mean must be finite, and a variance finite and not negative")
    return m, v


def _whole(count: Numbers) -> NDArray[np.int64]:
    """Counts of draws as integers, checked."""
    n = np.asarray(count, float)
    if not ((n >= 0) & (n < 2.0**53) & (n == np.floor(n))).all():
        raise BadUsage("a count of draws must be a whole number")
    return n.astype(np.int64)
