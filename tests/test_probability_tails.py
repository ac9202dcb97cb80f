"""Tail bounds from moments: against counts, scipy's distributions, tables, and simulated coverage.

A simulation allows as many misses as its nominal rate explains with an error of 1e-12; that number
comes from the binomial distribution (``most_misses``), never by hand.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from conspec.specs.errors import BadUsage
from conspec.verifier.probability.intervals import Floats, clopper_pearson_lower
from conspec.verifier.probability.tails import (
    GAUSSIAN,
    KNOWN,
    SAMPLED,
    cantelli,
    cantelli_sampled,
    gaussian,
    moments_of,
    normality,
)

# No deadline: how fast the machine is says nothing about the bounds.
modest = settings(deadline=None)
margins = st.lists(st.integers(-50, 200).map(lambda value: value / 8), min_size=1, max_size=40)
batches = st.lists(st.lists(st.floats(-100, 100), min_size=2, max_size=2), min_size=1, max_size=20)


def most_misses(runs: int, rate: float) -> int:
    """More misses than this come with probability below 1e-12 if the rate is kept."""
    return int(stats.binom.isf(1e-12, runs, rate))


# --- Cantelli --------------------------------------------------------------------------------


@modest
@given(margins, st.data())
def test_cantelli_holds_for_every_distribution(values: list[float], data: st.DataObject) -> None:
    size = len(values)
    weights = np.array(data.draw(st.lists(st.integers(1, 100), min_size=size, max_size=size)))
    chance, x = weights / weights.sum(), np.array(values)
    mean = float(chance @ x)
    found = cantelli(mean, float(chance @ (x - mean) ** 2))
    assert 0 <= found.lower <= chance[x > 0].sum() + 1e-12
    assert (found.confidence, found.assumption) == (None, KNOWN)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
def test_cantelli_is_reached_by_two_points(share: float, scale: float) -> None:
    # `share` of the mass at the scale, the rest at 0
    mean, variance = share * scale, share * (1 - share) * scale * scale
    assert float(cantelli(mean, variance).lower) == pytest.approx(share, rel=1e-12)


def test_cantelli_says_nothing_without_a_positive_mean() -> None:
    found = cantelli(np.array([-1.0, 0.0, 0.0, 2.0]), np.array([1.0, 1.0, 0.0, 0.0]))
    np.testing.assert_array_equal(found.lower, [0, 0, 0, 1])


@modest
@given(margins, st.sampled_from([0.5, 0.95, 1 - 1e-9]))
def test_the_sampled_bound_is_below_that_of_the_counts(
    values: list[float], confidence: float
) -> None:
    x = np.array(values)
    moments = moments_of(x[:, None])
    found = cantelli_sampled(len(x), moments.mean, moments.second, confidence)
    counted = clopper_pearson_lower(int((x > 0).sum()), len(x), confidence)
    assert 0 <= found.lower[0] <= counted
    assert (found.confidence, found.assumption) == (confidence, SAMPLED)


@modest
@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from([0.3, 1.0, 7.7]))
def test_the_sampled_bound_is_that_of_the_counts_for_two_points(
    positive: int, zero: int, at: float
) -> None:
    if not positive:
        return
    moments = moments_of(np.array([at] * positive + [0.0] * zero)[:, None])
    found = cantelli_sampled(moments.count, moments.mean, moments.second, 0.9)
    assert found.lower[0] == clopper_pearson_lower(positive, positive + zero, 0.9)


@pytest.mark.parametrize(
    ("draw", "true"),
    [
        (lambda random, shape: (random.random(shape) < 0.8) * 1.0, 0.8),  # the hardest case
        (lambda random, shape: random.standard_t(2.1, shape) + 1, stats.t.cdf(1, 2.1)),
        (lambda random, shape: 3 - random.pareto(2.5, shape), 1 - 4**-2.5),
    ],
)
def test_the_sampled_bound_covers_any_distribution(
    draw: Callable[[np.random.Generator, tuple[int, int]], Floats], true: float
) -> None:
    runs = 5000
    for n in (5, 60):
        moments = moments_of(draw(np.random.default_rng(n), (n, runs)))
        found = cantelli_sampled(n, moments.mean, moments.second, 0.8)
        assert (found.lower > true).sum() <= most_misses(runs, 0.2)


# --- Gaussian --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "factor"),
    # One-sided normal tolerance factors for 95 % of the population with confidence 95 %
    # (Natrella, 1963, Experimental Statistics, table A-7), to three decimals.
    [(3, 7.655), (5, 4.202), (10, 2.911), (20, 2.396), (30, 2.220), (50, 2.065)],
)
def test_the_gaussian_bound_agrees_with_printed_tolerance_factors(n: int, factor: float) -> None:
    variance = (n - 1) / n  # s = 1
    assert gaussian(n, factor + 0.001, variance).lower > 0.95
    assert gaussian(n, factor - 0.001, variance).lower < 0.95


@pytest.mark.parametrize("n", [2, 6, 50, 10**4])
@pytest.mark.parametrize("ratio", [-2.0, -0.1, 0.0, 0.05, 1.0, 4.0])
@pytest.mark.parametrize("confidence", [0.3, 0.5, 0.95, 1 - 1e-6])
def test_the_noncentral_tail_at_the_bound_is_the_error(
    n: int, ratio: float, confidence: float
) -> None:
    lower = float(gaussian(n, ratio, (n - 1) / n, confidence).lower)
    if not 1e-12 < lower < 1 - 1e-9:
        return  # Φ has lost the digits to go back
    delta = math.sqrt(n) * stats.norm.ppf(lower)
    # P(T ≥ t) = E Φ(δ − t w), where (n − 1) w² is chi-square: a direct integral over w
    nodes, weights = np.polynomial.legendre.leggauss(200)
    squares = stats.chi2.ppf(1e-18, n - 1), stats.chi2.isf(1e-18, n - 1)
    low, high = np.sqrt(np.array(squares) / (n - 1))
    at = (low + high) / 2 + (high - low) / 2 * nodes
    density = stats.chi2.pdf(at**2 * (n - 1), n - 1) * 2 * at * (n - 1)
    tail = stats.norm.cdf(delta - ratio * math.sqrt(n) * at)
    total = float(weights @ (density * tail)) * (high - low) / 2
    assert total == pytest.approx(1 - confidence, rel=1e-3)


@pytest.mark.parametrize("n", [2, 8, 200])
@pytest.mark.parametrize("true", [0.3, 0.9999])
def test_the_gaussian_bound_has_its_confidence_exactly(n: int, true: float) -> None:
    runs = 800
    x = np.random.default_rng(n).normal(stats.norm.ppf(true), 1, (n, runs))
    moments = moments_of(x)
    found = gaussian(n, moments.mean, moments.second, 0.9)
    misses = int((found.lower > true).sum())
    assert misses <= most_misses(runs, 0.1)
    assert runs - misses <= most_misses(runs, 0.9)  # and not fewer, so nothing is given away
    assert (found.confidence, found.assumption) == (0.9, GAUSSIAN)


def test_the_gaussian_bound_in_degenerate_cases() -> None:
    counts, means = np.array([0, 1, 2, 2, 2]), np.array([1.0, 1.0, 1.0, 0.0, -1.0])
    np.testing.assert_array_equal(gaussian(counts, means, 0.0).lower, [0, 0, 1, 0, 0])


def test_many_draws_bring_the_gaussian_bound_near_the_point() -> None:
    found = gaussian(10**9, np.array([0.001, 1.0, 3.0]), 1.0, 1 - 1e-12).lower
    point = stats.norm.cdf([0.001, 1.0, 3.0])
    assert np.all(found < point)
    np.testing.assert_allclose(found, point, atol=2e-4)


# --- normality -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [20, 100, 5000])
@pytest.mark.parametrize("law", ["normal", "laplace", "uniform", "exponential"])
def test_normality_is_scipys_test(n: int, law: str) -> None:
    x = getattr(np.random.default_rng(n), law)(size=(n, 3))
    moments = moments_of(x)
    found = normality(n, moments.skewness, moments.kurtosis)
    np.testing.assert_allclose(found.skewness, stats.skew(x), rtol=1e-9)
    np.testing.assert_allclose(found.kurtosis, stats.kurtosis(x, fisher=False), rtol=1e-9)
    np.testing.assert_allclose(found.p_value, stats.normaltest(x).pvalue, rtol=1e-8)


def test_normality_is_not_tested_on_few_or_equal_margins() -> None:
    few = moments_of(np.random.default_rng(0).normal(size=(19, 1)))
    assert np.isnan(normality(few.count, few.skewness, few.kurtosis).p_value).all()
    equal = moments_of(np.full((50, 1), 3.0))
    assert np.isnan(normality(equal.count, equal.skewness, equal.kurtosis).p_value).all()


# --- moments ---------------------------------------------------------------------------------


@modest
@given(batches, batches, batches)
def test_moments_merge_in_any_order(
    a: list[list[float]], b: list[list[float]], c: list[list[float]]
) -> None:
    one, two, three = (moments_of(np.array(batch)) for batch in (a, b, c))
    x = np.array(a + b + c)
    ways = (
        one.merged(two).merged(three),
        one.merged(two.merged(three)),
        three.merged(one).merged(two),
    )
    for found in ways:
        assert found.count == len(x)
        np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-9, atol=1e-9)
        for power, moment in ((2, found.second), (3, found.third), (4, found.fourth)):
            expected = ((x - x.mean(axis=0)) ** power).mean(axis=0)
            np.testing.assert_allclose(moment, expected, rtol=1e-9, atol=200.0**power * 1e-12)


def test_half_precision_margins_are_summed_in_double() -> None:
    x = (np.arange(60_000) % 7 + 2000).astype(np.float16)[:, None]
    found = moments_of(x)
    np.testing.assert_allclose(found.mean, x.astype(np.float64).mean(), rtol=1e-12)


# --- bad input -------------------------------------------------------------------------------


def test_bad_moments_are_refused() -> None:
    for bad in ((math.nan, 1.0), (1.0, -1.0), (1.0, math.inf)):
        with pytest.raises(BadUsage, match="a mean must be finite, and a variance"):
            cantelli(*bad)
    for count in (-1, 1.5, math.nan):
        with pytest.raises(BadUsage, match="a count of draws must be a whole number"):
            gaussian(count, 1.0, 1.0)
    with pytest.raises(BadUsage, match="a confidence must lie strictly"):
        cantelli_sampled(5, 1.0, 1.0, 1.0)
    with pytest.raises(BadUsage, match="a confidence of at most 1 - 1e-12"):
        gaussian(5, 1.0, 1.0, 1 - 1e-13)
    with pytest.raises(BadUsage, match=r"shape \[N, S\] with N at least 1, not \[0, 2\]"):
        moments_of(np.zeros((0, 2)))
    with pytest.raises(BadUsage, match="margins must be finite"):
        moments_of(np.array([[math.nan]]))
