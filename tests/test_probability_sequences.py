"""Confidence sequences and e-processes: against direct sums, exact martingale properties, paths.

A simulation allows as many misses as its nominal rate explains with an error of 1e-12; that number
comes from the binomial distribution (``most_misses``), never by hand.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import binom

from conspec.specs.errors import BadUsage
from conspec.verifier.probability import sequences
from conspec.verifier.probability.intervals import Floats, clopper_pearson
from conspec.verifier.probability.sequences import (
    ODDS,
    BernoulliSequence,
    BoundedSequence,
    ChangeDetector,
    ProportionTest,
    bernoulli_interval,
    log_evidence,
    log_mixture,
)

# No deadline: how fast the machine is says nothing about the bounds.
modest = settings(deadline=None)
PATHS, STEPS = 2000, 1000
counted = st.integers(1, 300).flatmap(lambda t: st.tuples(st.integers(0, t), st.just(t)))
rates = st.floats(0.001, 0.999)
binary = st.lists(st.integers(0, 1), max_size=60)


def most_misses(runs: int, rate: float) -> int:
    """More misses than this come with probability below 1e-12 if the rate is kept."""
    return int(binom.isf(1e-12, runs, rate))


def likelihood(angle: float, s: int, t: int) -> float:
    """q^s (1 − q)^(t − s) under Beta(1/2, 1/2), in q = sin²(angle), over its value at s / t."""
    q = math.sin(angle) ** 2
    best = s / t
    log = s * math.log(q / best) if s else 0.0
    log += (t - s) * math.log((1 - q) / (1 - best)) if s < t else 0.0
    return math.exp(log)


def log_ratio(s: int, t: int, p: float, low: float) -> float:
    """Log of the mean likelihood of q above ``low``, over that at p, by quadrature."""
    best = s / t
    # the peak, so that the quadrature cannot miss it
    points = sorted({low, *(min(max(best + d, low), 1) for d in (-0.2, -0.05, 0, 0.05, 0.2))} | {1})
    angles = [math.asin(math.sqrt(point)) for point in points]
    total = sum(
        quad(likelihood, a, b, args=(s, t), epsabs=0, epsrel=1e-9)[0]
        for a, b in itertools.pairwise(angles)
        if a < b
    )
    log = math.log(total / (math.pi / 2 - math.asin(math.sqrt(low))))
    log += s * math.log(best / p) if s else 0.0
    return log + ((t - s) * math.log((1 - best) / (1 - p)) if s < t else 0.0)


# --- 0/1 values ------------------------------------------------------------------------------


@modest
@given(counted, rates)
def test_the_mixture_is_the_average_likelihood_ratio(st_: tuple[int, int], p: float) -> None:
    s, t = st_
    found = float(log_mixture(np.array(float(s)), np.array(float(t)), p))
    assert found == pytest.approx(log_ratio(s, t, p, 0.0), rel=1e-6, abs=1e-6)


@modest
@given(counted, rates)
def test_the_mixture_is_a_martingale(st_: tuple[int, int], p: float) -> None:
    s, t = (np.array(float(value)) for value in st_)
    now = log_mixture(s, t, p)
    after_one, after_zero = log_mixture(s + 1, t + 1, p), log_mixture(s, t + 1, p)
    expected = p * np.exp(after_one - now) + (1 - p) * np.exp(after_zero - now)
    assert float(expected) == pytest.approx(1, rel=1e-9)
    assert float(log_mixture(np.array(0.0), np.array(0.0), p)) == 0


@modest
@given(counted, st.sampled_from([0.5, 0.9, 0.95, 1 - 1e-12]))
def test_the_interval_is_what_the_mixture_does_not_refute(
    st_: tuple[int, int], confidence: float
) -> None:
    s, t = (float(value) for value in st_)
    lower, upper = (float(end) for end in bernoulli_interval(s, t, confidence))
    grid = np.linspace(0, 1, 2001)
    gap = log_mixture(np.array(s), np.array(t), grid) - math.log(1 / (1 - confidence))
    clear = np.abs(gap) > 1e-9  # at an end itself, rounding decides
    np.testing.assert_array_equal((gap < 0)[clear], ((grid >= lower) & (grid <= upper))[clear])
    assert (lower == 0) == (s == 0)
    assert (upper == 1) == (s == t)


@modest
@given(counted, st.sampled_from([0.9, 0.99]))
def test_zeros_mirror_the_interval(st_: tuple[int, int], confidence: float) -> None:
    s, t = st_
    lower, upper = bernoulli_interval(s, t, confidence)
    mirrored = bernoulli_interval(t - s, t, confidence)
    np.testing.assert_allclose(mirrored, (1 - upper, 1 - lower), atol=1e-14)


@pytest.mark.parametrize(("s", "t"), [(0, 10**9), (3, 10**9), (5 * 10**8, 10**9), (1, 1), (0, 1)])
@pytest.mark.parametrize("confidence", [0.95, 1 - 1e-12])
def test_long_streams_and_high_confidence(s: int, t: int, confidence: float) -> None:
    lower, upper = (float(end) for end in bernoulli_interval(s, t, confidence))
    exact = clopper_pearson(s, t, confidence)
    # Wider, for looking at any time; for a single value both have the same closed form.
    assert 0 <= lower <= exact[0] * (1 + 1e-12)
    assert 1 >= upper >= exact[1] * (1 - 1e-12)
    if t > 1:
        assert upper - lower < 4 * (exact[1] - exact[0])


def paths(rate: float, seed: int) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """The different (ones, values so far) on random paths, and which of them each path visits."""
    s = np.cumsum(np.random.default_rng(seed).random((PATHS, STEPS)) < rate, axis=1)
    codes = s * (STEPS + 1) + np.arange(1, STEPS + 1)
    pairs, place = np.unique(codes, return_inverse=True)
    ones, times = np.divmod(pairs, STEPS + 1)
    return ones.astype(float), times.astype(float), place.reshape(s.shape)


@pytest.mark.parametrize(
    ("p", "confidence"), [(0.003, 0.8), (0.2, 0.8), (0.5, 0.95), (0.5, 0.5), (0.95, 0.9)]
)
def test_whole_paths_of_proportions_are_covered(p: float, confidence: float) -> None:
    ones, times, place = paths(p, 1)
    lower, upper = bernoulli_interval(ones, times, confidence)
    missed = ((lower > p) | (upper < p))[place].any(axis=1)
    assert missed.sum() <= most_misses(PATHS, 1 - confidence)


# --- values between 0 and 1 ------------------------------------------------------------------


def bernstein(
    values: Sequence[float], confidence: float
) -> tuple[float, float, Callable[[float], float]]:
    """Theorem 2 of Waudby-Smith and Ramdas, word by word; and the two capitals' mean at m."""
    alpha = 1 - confidence
    total, squares, mean, variance = 0.0, 0.0, 0.5, 0.25
    steps: list[tuple[float, float, float]] = []
    for t, x in enumerate(values, start=1):
        bet = min(math.sqrt(2 * math.log(2 / alpha) / (variance * t * math.log(1 + t))), 0.5)
        v = 4 * (x - mean) ** 2
        steps.append((bet, x, v * (-math.log(1 - bet) - bet) / 4))
        total += x
        mean = (0.5 + total) / (t + 1)
        squares += (x - mean) ** 2
        variance = (0.25 + squares) / (t + 1)
    bets, penalty = sum(step[0] for step in steps), sum(step[2] for step in steps)
    centre = sum(bet * x for bet, x, _ in steps) / bets
    half = (math.log(2 / alpha) + penalty) / bets

    def capital(m: float) -> float:
        gain = sum(bet * (x - m) for bet, x, _ in steps)
        return (math.exp(gain - penalty) + math.exp(-gain - penalty)) / 2

    return max(centre - half, 0), min(centre + half, 1), capital


@modest
@given(st.lists(st.floats(0, 1), min_size=1, max_size=80), st.data())
def test_the_bounded_sequence_is_the_papers(values: list[float], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(values)))
    sequence = BoundedSequence(0.9)
    sequence.update(np.array(values[:cut]))
    sequence.update(values[cut:])
    lower, upper, _ = bernstein(values, 0.9)
    assert sequence.times == len(values)
    np.testing.assert_allclose(sequence.interval, (lower, upper), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spread", [0.05, 1.0])
def test_it_is_also_the_papers_where_bets_are_not_capped(spread: float) -> None:
    values = spread * np.random.default_rng(3).random(700)
    sequence = BoundedSequence(0.9)
    sequence.update(values[:450])
    sequence.update(values[450:])
    lower, upper, _ = bernstein(values.tolist(), 0.9)
    np.testing.assert_allclose(sequence.interval, (lower, upper), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("weights", [(0.2, 0.5, 0.3), (0.9, 0.0, 0.1), (0.0, 0.97, 0.03)])
def test_its_capital_is_not_expected_to_grow(weights: tuple[float, float, float]) -> None:
    points = (0.0, 0.3, 1.0)
    mean = sum(w * x for w, x in zip(weights, points, strict=True))
    last = 1.0
    for steps in range(1, 7):
        expected = 0.0
        for path in itertools.product(range(3), repeat=steps):
            chance = math.prod(weights[i] for i in path)
            expected += chance * bernstein([points[i] for i in path], 0.9)[2](mean)
        assert expected <= last * (1 + 1e-12)
        last = expected


@modest
@given(st.lists(st.floats(0, 1), min_size=1, max_size=80))
def test_mirrored_values_mirror_the_bounded_interval(values: list[float]) -> None:
    straight, mirrored = BoundedSequence(), BoundedSequence()
    straight.update(values)
    mirrored.update(1 - np.array(values))
    lower, upper = straight.interval
    np.testing.assert_allclose(mirrored.interval, (1 - upper, 1 - lower), atol=1e-9)


def test_a_small_variance_gives_a_short_interval() -> None:
    random = np.random.default_rng(0)
    widths = []
    for spread in (0.01, 0.1, 1.0):
        sequence = BoundedSequence()
        sequence.update(0.5 + spread * (random.random(5000) - 0.5))
        lower, upper = sequence.interval
        widths.append(float(upper - lower))
    assert widths == sorted(widths)
    assert widths[0] < widths[2] / 10


@pytest.mark.parametrize(
    ("draw", "mean"),
    [
        (lambda random, shape: random.random(shape), 0.5),
        (lambda random, shape: random.beta(0.1, 0.9, shape), 0.1),
        (lambda random, shape: (random.random(shape) < 0.02).astype(float), 0.02),
        (lambda random, shape: 0.7 + 0.01 * random.random(shape), 0.705),
    ],
)
def test_whole_paths_of_means_are_covered(
    draw: Callable[[np.random.Generator, tuple[int, int]], Floats], mean: float
) -> None:
    values = draw(np.random.default_rng(8), (STEPS, PATHS))
    sequence = BoundedSequence(0.8, streams=(PATHS,))
    missed = np.zeros(PATHS, dtype=bool)
    for row in values:
        sequence.update(row[None])
        lower, upper = sequence.interval
        missed |= (lower > mean) | (upper < mean)
    assert missed.sum() <= most_misses(PATHS, 0.2)


@pytest.mark.parametrize("kind", [BernoulliSequence, BoundedSequence])
def test_streams_side_by_side_are_independent(
    kind: type[BernoulliSequence] | type[BoundedSequence],
) -> None:
    values = np.random.default_rng(1).random((50, 2, 3)) < 0.4
    together = kind(0.9, streams=(2, 3))
    assert np.all(np.stack(together.interval) == np.array([0, 1])[:, None, None])
    for batch in (values[:7], values[7:7], values[7:]):
        together.update(batch)
    for i, j in itertools.product(range(2), range(3)):
        alone = kind(0.9)
        alone.update(values[:, i, j])
        expected = [end[i, j] for end in together.interval]
        np.testing.assert_allclose(alone.interval, expected, rtol=1e-9)


# --- evidence against a rate -----------------------------------------------------------------


@modest
@given(counted, st.floats(0.01, 0.99))
def test_the_evidence_is_an_average_over_larger_rates(st_: tuple[int, int], edge: float) -> None:
    s, t = st_
    found = float(log_evidence(np.array(float(s)), t, edge))
    if found > -50:  # below that the quadrature has no digits
        assert found == pytest.approx(log_ratio(s, t, edge, edge), rel=1e-5, abs=1e-5)


@modest
@given(counted, st.floats(0.01, 0.99), st.floats(0, 1))
def test_the_evidence_is_not_expected_to_grow_under_the_null(
    st_: tuple[int, int], edge: float, share: float
) -> None:
    s, t = (np.array(float(value)) for value in st_)
    rate = share * edge
    now = log_evidence(s, t, edge)
    if not np.isfinite(now) or now < -500:
        return
    after_one, after_zero = log_evidence(s + 1, t + 1, edge), log_evidence(s, t + 1, edge)
    expected = rate * np.exp(after_one - now) + (1 - rate) * np.exp(after_zero - now)
    assert expected <= 1 + 1e-7
    if share == 1:
        assert expected == pytest.approx(1, rel=1e-7)


@pytest.mark.parametrize("edge", [0.01, 0.3, 0.6])
def test_the_evidence_seldom_misleads_at_any_time(edge: float) -> None:
    ones, times, place = paths(edge, 2)
    highest = log_evidence(ones, times, edge)[place].max(axis=1)
    for error in (0.5, 0.2, 0.05):
        assert (highest >= -math.log(error)).sum() <= most_misses(PATHS, error)


@pytest.mark.parametrize("alternative", ["greater", "less"])
def test_a_true_null_is_seldom_rejected_at_any_time(
    alternative: Literal["greater", "less"],
) -> None:
    runs = 1000
    test = ProportionTest(0.6, alternative, streams=(runs,))
    random = np.random.default_rng(2)
    for _ in range(4):
        test.update(random.random((50, runs)) < 0.6)
    for error in (0.5, 0.05):
        assert (test.p_value <= error).sum() <= most_misses(runs, error)


@pytest.mark.parametrize(("edge", "rate"), [(0.01, 0.04), (0.5, 0.6)])
def test_a_false_null_is_rejected_and_the_true_one_kept(edge: float, rate: float) -> None:
    values = np.random.default_rng(4).random(2000) < rate
    above, below = ProportionTest(edge), ProportionTest(edge, "less")
    above.update(values)
    below.update(values)
    assert above.p_value < 1e-6
    assert below.p_value > 0.05
    assert float(above.log_e) <= -math.log(float(above.p_value))


@modest
@given(binary, st.data())
def test_batches_do_not_change_the_p_value(values: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(values)))
    whole, parts, mirrored = ProportionTest(0.3), ProportionTest(0.3), ProportionTest(0.7, "less")
    whole.update(values)
    parts.update(values[:cut])
    parts.update(values[cut:])
    mirrored.update(1 - np.array(values))
    # The highest evidence at any time, not at the ends of batches.
    steps = [log_evidence(np.array(float(sum(values[:t]))), t, 0.3) for t in range(len(values) + 1)]
    expected = math.exp(-max(0.0, *map(float, steps), 0.0))
    for test in (whole, parts, mirrored):
        assert float(test.p_value) == pytest.approx(expected, rel=1e-9)
        assert float(test.log_e) == pytest.approx(float(steps[-1]), rel=1e-9, abs=1e-9)


# --- changes ---------------------------------------------------------------------------------


def levels(values: Sequence[int], edge: float, run_length: float) -> tuple[list[int], float]:
    """Alarms and the last level, from the definition: a sum over all starts since an alarm."""
    alarms, start, level = [], 0, 0.0
    for n in range(1, len(values) + 1):
        level = 0.0
        for times in ODDS:
            odds = times * edge / (1 - edge)
            q = odds / (1 + odds)
            ratios = [q / edge if x else (1 - q) / (1 - edge) for x in values[start:n]]
            level += sum(math.prod(ratios[j:]) for j in range(len(ratios))) / len(ODDS)
        if level >= run_length:
            alarms.append(n)
            start, level = n, 0.0
    return alarms, level


@modest
@given(binary, st.sampled_from([0.02, 0.3, 0.7]), st.sampled_from([3.3, 40.0, 1e6]), st.data())
def test_the_detector_sums_over_all_starts(
    values: list[int], edge: float, run_length: float, data: st.DataObject
) -> None:
    expected, level = levels(values, edge, run_length)
    cut = data.draw(st.integers(0, len(values)))
    detector = ChangeDetector(edge, run_length)
    found = [*detector.update(values[:cut]), *detector.update(values[cut:])]
    assert found == expected
    assert detector.times == len(values)
    assert math.exp(detector.log_level) == pytest.approx(level, rel=1e-9)


def test_pieces_of_a_long_stream_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(6).random(3 * sequences.PIECE // 2) < 0.03
    whole = ChangeDetector(0.02, 500)
    alarms = whole.update(values)
    assert len(alarms) > 1
    monkeypatch.setattr(sequences, "PIECE", 37)
    small = ChangeDetector(0.02, 500)
    assert small.update(values) == alarms
    assert small.log_level == pytest.approx(whole.log_level, rel=1e-9)


@pytest.mark.parametrize("edge", [0.05, 0.4])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_level_grows_by_one_a_value_at_most(edge: float, share: float) -> None:
    # So, by optional stopping, the mean time to reach a level is no smaller than the level.
    rate = share * edge
    for n in (1, 2, 5, 9):
        expected = 0.0
        for path in itertools.product((0, 1), repeat=n):
            detector = ChangeDetector(edge, 1e30)
            detector.update(path)
            ones = sum(path)
            expected += rate**ones * (1 - rate) ** (n - ones) * math.exp(detector.log_level)
        assert expected <= n * (1 + 1e-9)
        if share == 1:
            assert expected == pytest.approx(n, rel=1e-9)


def test_false_alarms_are_as_rare_as_stated() -> None:
    random, runs, n, run_length = np.random.default_rng(12), 1500, 200, 1000
    alarmed = sum(
        bool(ChangeDetector(0.1, run_length).update(random.random(n) < 0.1)) for _ in range(runs)
    )
    assert 0 < alarmed <= most_misses(runs, n / run_length)


def test_a_change_is_seen_and_seen_again() -> None:
    random = np.random.default_rng(7)
    detector = ChangeDetector(0.01, 1e6)
    assert detector.update(random.random(5000) < 0.01) == []
    alarms = detector.update(random.random(2000) < 0.1)
    assert len(alarms) > 3
    assert 5000 < alarms[0] < 5500


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5], "must be 0 or 1"),
        ([2], "must lie in"),
        ([math.nan], "must lie in"),
        ([[1]], r"must have the shape \[N\], not \[1, 1\]"),
    ],
)
def test_streams_take_zeros_and_ones(values: list[float], message: str) -> None:
    streams = (BernoulliSequence(), ProportionTest(0.5), ChangeDetector(0.5, 10))
    for stream in streams:
        with pytest.raises(BadUsage, match=message):
            stream.update(values)
        assert stream.times == 0


def test_bounded_streams_take_values_between_0_and_1() -> None:
    with pytest.raises(BadUsage, match="must lie in"):
        BoundedSequence().update([1.5])
    with pytest.raises(BadUsage, match=r"must have the shape \[N, 2\], not \[3\]"):
        BoundedSequence(streams=(2,)).update([0, 1, 0])


def test_settings_are_checked() -> None:
    for kind in (BernoulliSequence, BoundedSequence):
        with pytest.raises(BadUsage, match="a confidence must lie"):
            kind(95)
    with pytest.raises(BadUsage, match="a rate to test against must lie"):
        ProportionTest(0.0)
    with pytest.raises(BadUsage, match="a rate to test against must lie"):
        ChangeDetector(1.0, 100)
    with pytest.raises(BadUsage, match="must be 'greater' or 'less'"):
        ProportionTest(0.5, "more")  # type: ignore[arg-type]  # that is the test
    with pytest.raises(BadUsage, match="the run length must be a number of values"):
        ChangeDetector(0.5, math.inf)
    with pytest.raises(BadUsage, match="the number of ones"):
        bernoulli_interval(3, 2)
