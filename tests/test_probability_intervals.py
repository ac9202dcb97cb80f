"""Intervals of proportions: against their definitions, closed testing, and simulated coverage.

A simulation allows as many misses as its nominal rate explains with an error of 1e-12; that number
comes from the binomial distribution (``most_misses``), never by hand.
"""

import json
import math
from collections.abc import Callable
from fractions import Fraction
from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import beta, betabinom, binom, norm

from conspec.specs.errors import BadUsage
from conspec.verifier.probability.intervals import (
    Decision,
    Floats,
    binomial_p_value,
    clopper_pearson,
    clopper_pearson_lower,
    clopper_pearson_upper,
    decide,
    decide_family,
    holm,
    jeffreys,
    simultaneous,
    wilson,
)

# No deadline: how fast the machine is says nothing about the bounds.
modest = settings(deadline=None)
ERROR = 1e-12
HOLDS, FAILS, UNDECIDED = Decision.HOLDS, Decision.FAILS, Decision.UNDECIDED

counted = st.integers(0, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.sampled_from([0.5, 0.9, 0.95, 0.999, 1 - 1e-9, 1 - 1e-12])
probabilities = st.floats(0, 1)


def most_misses(runs: int, rate: float) -> int:
    """More misses than this come with probability below ``ERROR`` if the rate is kept."""
    return int(binom.isf(ERROR, runs, rate))


def tail(k: int, n: int, p: float, above: bool) -> float:
    """P(X ≥ k) or P(X ≤ k), summed in exact arithmetic."""
    q = Fraction(p)
    chosen = range(k, n + 1) if above else range(k + 1)
    return float(sum(math.comb(n, j) * q**j * (1 - q) ** (n - j) for j in chosen))


# --- Clopper and Pearson ---------------------------------------------------------------------


@modest
@given(counted, levels)
def test_the_bounds_are_where_the_binomial_tails_are_the_error(
    kn: tuple[int, int], confidence: float
) -> None:
    k, n = kn
    error = 1 - confidence
    lower, upper = (
        clopper_pearson_lower(k, n, confidence),
        clopper_pearson_upper(k, n, confidence),
    )
    if k:
        assert tail(k, n, lower, above=True) == pytest.approx(error, rel=1e-9)
    else:
        assert lower == 0
    if k < n:
        # Near 1 the bound itself is rounded; then the two neighbouring floats enclose the tail.
        below, above = math.nextafter(upper, 0), math.nextafter(upper, 1)
        low, high = (tail(k, n, p, above=False) for p in (above, below))
        assert low * (1 - 1e-9) <= error <= high * (1 + 1e-9)
    else:
        assert upper == 1


@modest
@given(counted, st.sampled_from([0.5, 0.9, 0.99]))
def test_two_sided_bounds_are_one_sided_ones_at_half_the_error(
    kn: tuple[int, int], confidence: float
) -> None:
    k, n = kn
    one_sided = (1 + confidence) / 2
    expected = clopper_pearson_lower(k, n, one_sided), clopper_pearson_upper(k, n, one_sided)
    assert clopper_pearson(k, n, confidence) == pytest.approx(expected, rel=1e-12)


@modest
@given(counted, levels)
def test_counting_failures_mirrors_the_interval(kn: tuple[int, int], confidence: float) -> None:
    k, n = kn
    lower, upper = clopper_pearson(k, n, confidence)
    assert clopper_pearson(n - k, n, confidence) == pytest.approx((1 - upper, 1 - lower), abs=1e-12)


@pytest.mark.parametrize("n", [1, 7, 10**6, 10**9])
@pytest.mark.parametrize("confidence", [0.95, 1 - 1e-12])
def test_all_or_nothing_has_closed_forms(n: int, confidence: float) -> None:
    log_error = math.log(1 - confidence)
    # 1e-7: what 1 − bound can hold of 2e-8 as a float near 1
    missed = -math.expm1(log_error / n)
    assert clopper_pearson_upper(0, n, confidence) == pytest.approx(missed, rel=1e-8)
    assert 1 - clopper_pearson_lower(n, n, confidence) == pytest.approx(missed, rel=1e-7)
    assert clopper_pearson_lower(0, n, confidence) == 0
    assert clopper_pearson_upper(n, n, confidence) == 1


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("confidence", [0.95, 1 - 1e-12])
def test_rare_events_among_a_billion(k: int, confidence: float) -> None:
    n = 10**9

    def at_most(j: int, p: float) -> float:
        terms = (
            math.comb(n, i) * math.exp(i * math.log(p) + (n - i) * math.log1p(-p))
            for i in range(j + 1)
        )
        return math.fsum(terms)

    upper = clopper_pearson_upper(k, n, confidence)
    assert at_most(k, upper) == pytest.approx(1 - confidence, rel=1e-6)
    lower = clopper_pearson_lower(k, n, 0.95)
    assert 1 - at_most(k - 1, lower) == pytest.approx(0.05, rel=1e-6)


def test_no_draws_say_nothing() -> None:
    for interval in (clopper_pearson, wilson, jeffreys):
        assert interval(0, 0) == (0.0, 1.0)
    assert decide([0], [0], 0.5, 0.9) == [UNDECIDED]


def test_scalars_give_plain_floats_and_arrays_broadcast() -> None:
    for interval in (clopper_pearson, wilson, jeffreys):
        pair = interval(np.int64(3), 10)
        assert [type(bound) for bound in pair] == [float, float]
        assert json.loads(json.dumps(pair)) == list(pair)
        lower, upper = interval(np.arange(11)[:, None], np.array([10, 20]))
        assert lower.shape == upper.shape == (11, 2)
        assert (float(lower[3, 0]), float(upper[3, 0])) == pytest.approx(pair, rel=1e-12)


# --- Wilson and Jeffreys ---------------------------------------------------------------------


@modest
@given(counted, st.sampled_from([0.5, 0.95, 1 - 1e-9]))
def test_wilsons_bounds_solve_his_quadratic(kn: tuple[int, int], confidence: float) -> None:
    k, n = kn
    if n == 0:
        return
    z = float(norm.isf((1 - confidence) / 2))
    roots = np.sort(np.roots([n + z * z, -(2 * k + z * z), k * k / n]).real)
    assert wilson(k, n, confidence) == pytest.approx(tuple(roots), abs=1e-7)
    for p in wilson(k, n, confidence):
        # Where p is a bound, the score test just rejects it.
        assert (k - n * p) ** 2 == pytest.approx(z * z * n * p * (1 - p), rel=1e-6, abs=1e-9)


@modest
@given(counted, st.sampled_from([0.5, 0.9, 0.99]))
def test_jeffreys_tails_hold_equal_posterior_mass(kn: tuple[int, int], confidence: float) -> None:
    k, n = kn

    def density(angle: float) -> float:
        return math.sin(angle) ** (2 * k) * math.cos(angle) ** (2 * (n - k))

    def mass(low: float, high: float) -> float:
        # p = sin²(angle) takes the poles of the density away
        ends = math.asin(math.sqrt(low)), math.asin(math.sqrt(high))
        return float(quad(density, *ends, epsabs=0, epsrel=1e-10)[0])

    lower, upper = jeffreys(k, n, confidence)
    half = (1 - confidence) / 2
    assert mass(0, lower) / mass(0, 1) == pytest.approx(half if k else 0, rel=1e-6)
    assert mass(upper, 1) / mass(0, 1) == pytest.approx(half if k < n else 0, rel=1e-6)


# --- coverage by simulation ------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.8, 0.99])
@pytest.mark.parametrize(("n", "p"), [(5, 0.5), (40, 0.03), (1000, 0.97), (10**6, 0.2)])
def test_clopper_pearson_covers_every_proportion(n: int, p: float, confidence: float) -> None:
    runs = 20_000
    k = np.random.default_rng(n).binomial(n, p, runs)
    lower, upper = clopper_pearson(k, n, confidence)
    allowed = most_misses(runs, (1 - confidence) / 2)
    assert (lower > p).sum() <= allowed
    assert (upper < p).sum() <= allowed
    assert (clopper_pearson_lower(k, n, confidence) > p).sum() <= most_misses(runs, 1 - confidence)
    assert (clopper_pearson_upper(k, n, confidence) < p).sum() <= most_misses(runs, 1 - confidence)


@pytest.mark.parametrize(
    ("interval", "prior"), [(jeffreys, (0.5, 0.5)), (wilson, (1.0, 1.0)), (wilson, (5.0, 8.0))]
)
@pytest.mark.parametrize("n", [10, 400])
def test_the_approximate_intervals_cover_on_average(
    interval: Callable[..., tuple[Floats, Floats]],
    prior: tuple[float, float],
    n: int,
) -> None:
    # What the simulation should find, exactly: the mean coverage is the posterior's, over counts.
    k, (a, b) = np.arange(n + 1), prior
    lower, upper = interval(k, n, 0.9)
    covered = beta.cdf(upper, a + k, b + n - k) - beta.cdf(lower, a + k, b + n - k)
    assert float(betabinom.pmf(k, n, a, b) @ covered) >= 0.9
    runs = 200_000
    random = np.random.default_rng(n)
    p = random.beta(a, b, runs)
    lower, upper = interval(random.binomial(n, p), n, 0.9)
    assert ((lower > p) | (upper < p)).sum() <= most_misses(runs, 0.1)


def test_simultaneous_intervals_hold_together() -> None:
    runs, specs, n = 5000, 12, 60
    p = np.linspace(0.05, 0.95, specs)
    random = np.random.default_rng(3)
    for shared in (False, True):  # independent specs, and all judged on the same draws
        u = random.random((runs, n, 1 if shared else specs))
        k = (u < p).sum(axis=1)
        missed = 0
        for row in k:
            lower, upper = simultaneous(row, n, 0.8)
            missed += bool(((lower > p) | (upper < p)).any())
        assert missed <= most_misses(runs, 0.2)


def test_simultaneous_intervals_of_one_spec_are_the_plain_ones() -> None:
    np.testing.assert_array_equal(simultaneous([7], 30), clopper_pearson([7], 30))


# --- tests and decisions ---------------------------------------------------------------------


@modest
@given(counted, probabilities)
def test_p_values_are_binomial_tails(kn: tuple[int, int], p: float) -> None:
    k, n = kn
    greater, less = (binomial_p_value(k, n, p, side) for side in ("greater", "less"))
    # Below 1e-300 a float tail may round to 0.
    assert float(greater) == pytest.approx(tail(k, n, p, above=True), rel=1e-9, abs=1e-300)
    assert float(less) == pytest.approx(tail(k, n, p, above=False), rel=1e-9, abs=1e-300)


@modest
@given(
    st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.03, 0.5, 1.0]) | probabilities, max_size=6)
)
def test_holm_is_closed_testing_with_bonferroni(p_values: list[float]) -> None:
    m = len(p_values)
    subsets = list(chain.from_iterable(combinations(range(m), size) for size in range(1, m + 1)))

    def intersection(chosen: tuple[int, ...]) -> float:
        return min(1.0, len(chosen) * min(p_values[i] for i in chosen))

    # A hypothesis is rejected when every intersection that it takes part in is.
    expected = [max(intersection(chosen) for chosen in subsets if i in chosen) for i in range(m)]
    np.testing.assert_allclose(holm(p_values), expected, rtol=1e-15)


@modest
@given(st.lists(probabilities, min_size=1, max_size=30), st.integers(0, 1000))
def test_holm_follows_the_order_given(p_values: list[float], seed: int) -> None:
    adjusted = holm(p_values)
    order = np.random.default_rng(seed).permutation(len(p_values))
    np.testing.assert_array_equal(holm(np.array(p_values)[order]), adjusted[order])


edges = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]) | probabilities


@modest
@given(st.lists(st.tuples(counted, edges), min_size=1, max_size=5), levels)
def test_decisions_compare_one_sided_bounds(
    cases: list[tuple[tuple[int, int], float]], confidence: float
) -> None:
    k, n = (np.array([case[0][i] for case in cases]) for i in (0, 1))
    p = np.array([case[1] for case in cases])
    lower, upper = (
        clopper_pearson_lower(k, n, confidence),
        clopper_pearson_upper(k, n, confidence),
    )
    for i, decision in enumerate(decide(k, n, p, confidence)):
        if min(abs(lower[i] - p[i]), abs(upper[i] - p[i])) < 1e-9 and 0 < p[i] < 1:
            continue  # too close to the bound to tell in floats
        if p[i] == 1:  # the upper bound of an incomplete count may round to 1
            assert decision is (FAILS if k[i] < n[i] else UNDECIDED)
        else:
            side = HOLDS if lower[i] >= p[i] else FAILS if upper[i] < p[i] else UNDECIDED
            assert decision is side


def test_each_spec_may_ask_for_its_own_probability_and_confidence() -> None:
    stated, asked = np.array([0.9, 0.9, 0.99]), np.array([0.99, 0.9999999, 0.99])
    assert decide([98, 98, 90], 100, stated, asked) == [HOLDS, UNDECIDED, FAILS]


def test_extremes_are_decided_where_bounds_round() -> None:
    sure = 1 - 1e-12
    assert decide([0], [1], 0.0, sure) == [HOLDS]  # no probability is below 0
    assert decide([10**9 - 1], [10**9], 1.0, sure) == [FAILS]  # one failure settles it
    assert decide([10**9], [10**9], 1.0, sure) == [UNDECIDED]  # no data ever show it


@modest
@given(st.lists(st.tuples(counted, edges), min_size=1, max_size=5), st.sampled_from([0.6, 0.95]))
def test_family_decisions_are_two_closed_tests(
    cases: list[tuple[tuple[int, int], float]], confidence: float
) -> None:
    k, n = (np.array([case[0][i] for case in cases]) for i in (0, 1))
    p = np.array([case[1] for case in cases])
    alone, together = decide(k, n, p, confidence), decide_family(k, n, p, confidence)
    for one, all_of_them in zip(alone, together, strict=True):
        assert all_of_them in (one, UNDECIDED)  # a family only makes it stricter
    if len(cases) == 1:
        assert together == alone
        return
    for kind, side in ((HOLDS, "greater"), (FAILS, "less")):
        p_values = np.array(
            [
                0.0 if kind is HOLDS and edge == 0 else float(binomial_p_value(a, b, edge, side))  # type: ignore[arg-type]  # zip over literals
                for a, b, edge in zip(k, n, p, strict=True)
            ]
        )
        error = (1 - confidence) / 2
        if np.any(np.abs(np.outer(p_values, np.arange(1, 6)) - error) < 1e-12):
            continue  # equal up to rounding
        # Holm's own words: step down until one p-value is above error / (what is left).
        left, rejected = set(range(len(p))), set()
        while left and min(p_values[list(left)]) <= error / len(left):
            best = min(left, key=lambda i: p_values[i])
            left.remove(best)
            rejected.add(best)
        assert {i for i, decision in enumerate(together) if decision is kind} == rejected


@pytest.mark.parametrize("shared", [False, True])
def test_a_family_is_wrong_no_more_often_than_stated(shared: bool) -> None:
    runs, specs, n, edge = 5000, 8, 100, 0.7
    # At the edge FAILS would be wrong, just below it HOLDS would be: the hardest cases for both.
    true = np.where(np.arange(specs) % 2, edge, edge - 1e-9)
    wrong = np.array([HOLDS, FAILS] * (specs // 2))
    random = np.random.default_rng(11)
    u = random.random((runs, n, 1 if shared else specs))
    k = (u < true).sum(axis=1)
    errors = alone = 0
    for row in k:
        errors += bool((np.array(decide_family(row, n, edge, 0.8)) == wrong).any())
        alone += bool((np.array(decide(row, n, edge, 0.8)) == wrong).any())
    assert errors <= most_misses(runs, 0.2)
    if not shared:  # and the correction is needed
        assert alone > most_misses(runs, 0.2)


@pytest.mark.parametrize(("true", "wrong"), [(0.7, FAILS), (0.7 - 1e-9, HOLDS)])
def test_one_decision_is_wrong_no_more_often_than_stated(true: float, wrong: Decision) -> None:
    runs, n = 20_000, 150
    k = np.random.default_rng(5).binomial(n, true, runs)
    decisions = decide(k, n, 0.7, 0.9)
    assert decisions.count(wrong) <= most_misses(runs, 0.1)


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "totals"),
    [([3], [2]), ([-1], [2]), ([1.5], [2]), ([math.nan], [2]), ([1], [2.0**53])],
)
def test_counts_must_be_counts(counts: list[int], totals: list[int]) -> None:
    with pytest.raises(BadUsage, match="a count must be a whole number from 0 to its total"):
        clopper_pearson(counts, totals)


def test_counts_and_totals_must_fit() -> None:
    with pytest.raises(BadUsage, match="counts and totals must be numbers of one shape"):
        clopper_pearson([1, 2], [3, 4, 5])


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_confidence_must_lie_between(confidence: float) -> None:
    with pytest.raises(BadUsage, match="a confidence must lie strictly between 0 and 1"):
        wilson(1, 2, confidence)


def test_other_arguments_are_checked() -> None:
    with pytest.raises(BadUsage, match="a probability must lie in"):
        decide([1], [2], 1.5, 0.9)
    with pytest.raises(BadUsage, match="a probability must lie in"):
        holm([0.1, math.nan])
    with pytest.raises(BadUsage, match="takes a list of p-values"):
        holm(np.zeros((2, 2)))
    with pytest.raises(BadUsage, match="must be 'greater' or 'less', not 'two-sided'"):
        binomial_p_value(1, 2, 0.5, "two-sided")  # type: ignore[arg-type]  # that is the test
