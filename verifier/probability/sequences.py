"""Bounds and tests for streams that stay valid when one looks at any time, and stops at will.

An interval for a fixed sample size loses its confidence when it is computed again and again until
it suits. The ones here hold for all times at once: with probability at least the confidence, not
one of the intervals that a stream will ever give misses the mean. They are statistics, no proofs.

All rest on Ville's inequality: a non-negative process that starts at 1 and is not expected to
grow (an e-process) ever reaches 1 / α with probability at most α. The intervals assume that each
value has the same mean given all values before it; the tests assume under their null hypothesis
that each such mean lies on the null's side. Independent draws of one population do both. A stream
whose mean may move is for ``ChangeDetector``.

Streams come in batches of any size, [N] for one stream or [N, *streams] for several side by side.
How they are cut into batches changes nothing but rounding.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from conspec.specs.errors import BadUsage
from conspec.verifier.probability.intervals import Floats, error_of

Values: TypeAlias = NDArray[Any] | Sequence[float]

PRIOR = 0.5
"""Both parameters of the Beta distribution over alternatives: Jeffreys', fair to all of them."""
LARGEST_BET = 0.5
"""Cap of λ in the empirical-Bernstein sequence, as in the paper."""
HALVINGS = 60
"""Bisections of an interval's end, after which it moves by less than the spacing of floats."""
ODDS = tuple(2.0 ** (step / 2) for step in range(1, 17))
"""How many times the odds of the edge a changed rate may have, for ``ChangeDetector``."""
PIECE = 4096
"""Values that ``ChangeDetector`` looks at together; an alarm costs no more than one piece."""


def log_mixture(successes: Floats, times: Floats, p: Floats | float) -> Floats:
    """Log of Robbins' (1970) mixture martingale for 0/1 values with mean p.

    The likelihood of the stream, averaged over proportions drawn from Beta(a, a) with a = 1/2, and
    divided by the likelihood at p: B(a + s, a + t − s) / (B(a, a) p^s (1 − p)^(t − s)).

    Args:
        successes: s, how many ones, [S].
        times: t, how many values, [S].
        p: the mean under test, [S] or one number in [0, 1].

    Returns:
        [S] float64; +inf where such a stream cannot come at p.
    """
    from scipy.special import betaln

    average = betaln(PRIOR + successes, PRIOR + times - successes) - betaln(PRIOR, PRIOR)
    return np.asarray(average - _log_likelihood(successes, times, p))


def bernoulli_interval(
    successes: Floats | float, times: Floats | float, confidence: float = 0.95
) -> tuple[Floats, Floats]:
    """The anytime-valid interval of a proportion after t values of which s were ones.

    All p with ``log_mixture`` below log(1 / α). It depends on s and t only, so one call with the
    running sums gives the intervals at all times of a stream.

    Args:
        successes: s, [S] or one number.
        times: t, [S] or one number; 0 gives (0, 1).
        confidence: that the intervals at all times hold the proportion, together.

    Returns:
        Lower and upper ends, each [S] float64.

    Raises:
        BadUsage: s outside [0, t], or a bad confidence.
    """
    s, t = np.broadcast_arrays(
        np.asarray(successes, dtype=np.float64), np.asarray(times, dtype=np.float64)
    )
    if not ((s >= 0) & (s <= t)).all():
        raise BadUsage("the number of ones must lie between 0 and the number of values")
    limit = -math.log(error_of(confidence))
    # Zeros have the proportion 1 − p.
    return _lower_end(s, t, limit), 1.0 - _lower_end(t - s, t, limit)


def _lower_end(s: Floats, t: Floats, limit: float) -> Floats:
    """The smallest p that is not refuted; below s / t the mixture falls in p.

    The bisection runs in log p, since the end may lie many orders of magnitude below s / t. It
    starts where the mixture is surely above the limit: at p = (s / t) exp(−d) its log is at least
    s (d − 1) − log(t) / 2 − log(2), the last two terms being the price of not knowing p
    (Krichevsky and Trofimov, 1981).
    """
    ones = np.maximum(s, 1.0)
    inside = np.log(ones / np.maximum(t, 1.0))
    refuted = inside - 1.0 - (limit + np.log(t + 1.0) / 2 + math.log(2.0)) / ones
    for _ in range(HALVINGS):
        middle = (inside + refuted) / 2
        is_refuted = log_mixture(s, t, np.exp(middle)) >= limit
        refuted, inside = (
            np.where(is_refuted, middle, refuted),
            np.where(is_refuted, inside, middle),
        )
    return np.where(s > 0, np.exp(refuted), 0.0)


class BernoulliSequence:
    """A confidence sequence for the proportion of ones in each of several streams.

    Attributes:
        confidence: that all intervals of one stream, at all times, hold its proportion.
        times: how many values came so far.
        successes: how many of them were ones, [*streams] float64.
    """

    def __init__(self, confidence: float = 0.95, streams: tuple[int, ...] = ()) -> None:
        """Starts with no data.

        Args:
            confidence: strictly between 0 and 1.
            streams: how many streams run side by side; () for one.

        Raises:
            BadUsage: a bad confidence.
        """
        error_of(confidence)
        self.confidence = confidence
        self.times = 0
        self.successes: Floats = np.zeros(streams)

    def update(self, values: Values) -> None:
        """Takes the next values, [N, *streams], zeros and ones; BadUsage for others."""
        new = _binary(values, self.successes.shape)
        self.times += len(new)
        self.successes = self.successes + new.sum(axis=0)

    @property
    def interval(self) -> tuple[Floats, Floats]:
        """The lower and upper ends now, each [*streams]."""
        return bernoulli_interval(self.successes, float(self.times), self.confidence)


class BoundedSequence:
    """A confidence sequence for the means of streams of values in [0, 1].

    The predictable plug-in empirical-Bernstein sequence of Waudby-Smith and Ramdas (2024, theorem
    2): the smaller the variance that the stream shows, the shorter the interval. For 0/1 values
    ``BernoulliSequence`` is shorter.

    Attributes:
        confidence: that all intervals of one stream, at all times, hold its mean.
        times: how many values came so far.
    """

    def __init__(self, confidence: float = 0.95, streams: tuple[int, ...] = ()) -> None:
        """Starts with no data; arguments and errors as for ``BernoulliSequence``."""
        self.confidence = confidence
        self.times = 0
        self._log_limit = math.log(2.0 / error_of(confidence))
        self._sum: Floats = np.zeros(streams)
        self._squares: Floats = np.zeros(streams)  # of X_i − μ_i
        self._bets: Floats = np.zeros(streams)  # sum of λ_i
        self._weighted: Floats = np.zeros(streams)  # sum of λ_i X_i
        self._penalty: Floats = np.zeros(streams)  # sum of v_i ψ(λ_i)

    def update(self, values: Values) -> None:
        """Takes the next values, [N, *streams], each in [0, 1]; BadUsage for others.

        The bet on value i and the mean it is compared with come from the values before i only.
        """
        x = _bounded(values, self._sum.shape)
        if not len(x):
            return
        i = self.times + np.arange(1.0, len(x) + 1).reshape(-1, *(1,) * self._sum.ndim)
        sums = self._sum + np.cumsum(x, axis=0)
        before = (0.5 + sums - x) / i
        deviations = (x - (0.5 + sums) / (i + 1)) ** 2
        squares = self._squares + np.cumsum(deviations, axis=0)
        variance = (0.25 + squares - deviations) / i
        bets = np.sqrt(2 * self._log_limit / (variance * i * np.log1p(i)))
        bets = np.minimum(bets, LARGEST_BET)
        self.times += len(x)
        self._sum, self._squares = sums[-1], squares[-1]
        self._bets = self._bets + bets.sum(axis=0)
        self._weighted = self._weighted + (bets * x).sum(axis=0)
        self._penalty = self._penalty - ((x - before) ** 2 * (np.log1p(-bets) + bets)).sum(axis=0)

    @property
    def interval(self) -> tuple[Floats, Floats]:
        """The lower and upper ends now, each [*streams]; (0, 1) without data."""
        if not self.times:
            return np.zeros_like(self._sum), np.ones_like(self._sum)
        centre = self._weighted / self._bets
        half = (self._log_limit + self._penalty) / self._bets
        return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)


def log_evidence(successes: Floats, times: Floats | float, edge: float) -> Floats:
    """Log of an e-process against the null "every value is a one with probability at most edge".

    As ``log_mixture``, with the alternatives drawn from the part of Beta(1/2, 1/2) above the edge.
    Each alternative's likelihood ratio to the edge is not expected to grow under the null, since
    it grows on ones and shrinks on zeros; so neither is their average.

    Args:
        successes: how many ones, [S].
        times: how many values, [S] or one number.
        edge: the largest rate of the null, strictly between 0 and 1.

    Returns:
        [S] float64; −inf where the evidence is too small for a float.
    """
    from scipy.special import betaincc, betaln

    ones, zeros = PRIOR + successes, PRIOR + times - successes
    share = betaincc(ones, zeros, edge) / betaincc(PRIOR, PRIOR, edge)
    with np.errstate(divide="ignore"):  # a share of 0 is −inf, which errs to the safe side
        average = betaln(ones, zeros) - betaln(PRIOR, PRIOR) + np.log(share)
    return np.asarray(average - _log_likelihood(successes, times, edge))


class ProportionTest:
    """A test of each stream's rate of ones against a given rate, to be read at any time.

    The null hypothesis is "the rate is at most the edge" for the alternative "greater", and "at
    least" for "less". Stopping as soon as ``p_value`` is at most α rejects a true null with
    probability at most α, whenever one looks and however long one goes on.

    Attributes:
        edge: the rate tested against.
        alternative: "greater" or "less".
        times: how many values came so far.
    """

    def __init__(
        self,
        edge: float,
        alternative: Literal["greater", "less"] = "greater",
        streams: tuple[int, ...] = (),
    ) -> None:
        """Starts with no data.

        Raises:
            BadUsage: an edge outside (0, 1), or another alternative.
        """
        if alternative not in ("greater", "less"):
            raise BadUsage(f"the alternative must be 'greater' or 'less', not {alternative!r}")
        self.edge = _rate(edge)
        self.alternative = alternative
        self.times = 0
        self._count: Floats = np.zeros(streams)  # of ones; of zeros for "less"
        self._highest: Floats = np.zeros(streams)

    def update(self, values: Values) -> None:
        """Takes the next values, [N, *streams], zeros and ones; BadUsage for others."""
        new = _binary(values, self._count.shape)
        if not len(new):
            return
        counts = self._count + np.cumsum(new if self.alternative == "greater" else 1 - new, axis=0)
        times = self.times + np.arange(1.0, len(new) + 1).reshape(-1, *(1,) * self._count.ndim)
        reached = log_evidence(counts, times, self._null).max(axis=0)
        self._highest = np.maximum(self._highest, reached)
        self._count = counts[-1]
        self.times += len(new)

    @property
    def _null(self) -> float:
        """The largest rate of what is counted under the null."""
        return self.edge if self.alternative == "greater" else 1.0 - self.edge

    @property
    def log_e(self) -> Floats:
        """Log of the e-process now, [*streams]; the evidence may fall again as values come."""
        return log_evidence(self._count, float(self.times), self._null)

    @property
    def p_value(self) -> Floats:
        """The anytime-valid p-value, [*streams]: 1 / the highest value the e-process ever had."""
        return np.exp(-self._highest)


class ChangeDetector:
    """Alarms when the rate of ones in a stream has risen above a given rate, again and again.

    The mixture e-SR procedure of Shin, Ramdas and Rinaldo (2023): the sum over all possible times
    of the change of the evidence gathered since then, averaged over a grid of changed rates. An
    alarm is given when it reaches the run length; then everything starts anew.

    What it guarantees: as long as each value is a one with probability at most ``edge``, given all
    values before, the mean number of values from a start to the next alarm (average run length) is
    at least ``run_length``; and an alarm comes among the first n values with probability at most
    n / run_length. Sooner or later a false alarm does come. How soon a change is seen is not
    guaranteed. (Their e-CUSUM, which takes the largest term instead of the sum, has the same
    guarantee and alarms no sooner.)

    Attributes:
        edge: the largest rate that is no cause for alarm.
        run_length: the mean number of values between false alarms, at the least.
        times: how many values came so far.
    """

    def __init__(self, edge: float, run_length: float) -> None:
        """Starts with no data.

        Raises:
            BadUsage: an edge outside (0, 1), or a run length below 1.
        """
        if not 1 <= run_length < math.inf:
            raise BadUsage(f"the run length must be a number of values, not {run_length}")
        self.edge = _rate(edge)
        self.run_length = run_length
        self.times = 0
        odds = np.array(ODDS) * self.edge / (1.0 - self.edge)
        # log1p(odds) is −log(1 − q) for a rate q, so these are the logs of the likelihood ratios.
        self._on_zero: Floats = -np.log1p(odds) - math.log1p(-self.edge)
        self._on_one: Floats = np.log(np.array(ODDS)) + self._on_zero
        self._levels: Floats = np.full(len(ODDS), -np.inf)

    def update(self, values: Values) -> list[int]:
        """Takes the next values, [N], zeros and ones or truth values.

        Returns:
            The times of the alarms among them, counted from 1 at the first value ever.

        Raises:
            BadUsage: other values, or another shape.
        """
        new = _binary(values, ())
        alarms: list[int] = []
        at = 0
        while at < len(new):
            paths = self._paths(new[at : at + PIECE])
            over = np.logaddexp.reduce(paths, axis=0) >= math.log(self.run_length * len(ODDS))
            if over.any():
                at += int(over.argmax()) + 1
                alarms.append(self.times + at)
                self._levels = np.full(len(ODDS), -np.inf)
            else:
                at += paths.shape[1]
                self._levels = paths[:, -1]
        self.times += len(new)
        return alarms

    def _paths(self, x: Floats) -> Floats:
        """Logs of the sums M for each changed rate, [rates, N], after each value of x [N].

        M_n = L_n (M_(n−1) + 1), with the likelihood ratio L_n of value n. In closed form, with
        P_n = L_1 … L_n: M_n = P_n (M_0 + 1 / P_0 + … + 1 / P_(n−1)).
        """
        ratios = np.where(x > 0, self._on_one[:, None], self._on_zero[:, None])
        products = np.cumsum(ratios, axis=1)
        shares = np.logaddexp.accumulate(ratios - products, axis=1)
        return products + np.logaddexp(shares, self._levels[:, None])

    @property
    def log_level(self) -> float:
        """Log of the detector's value now; the next alarm comes at log(run_length)."""
        return float(np.logaddexp.reduce(self._levels)) - math.log(len(ODDS))


def _log_likelihood(s: Floats, t: Floats | float, p: Floats | float) -> Floats:
    """S log p + (t − s) log(1 − p), with 0 log 0 = 0."""
    from scipy.special import xlog1py, xlogy

    return np.asarray(xlogy(s, p) + xlog1py(np.asarray(t) - s, -np.asarray(p)))


def _bounded(values: Values, streams: tuple[int, ...]) -> Floats:
    """The values as float64 [N, *streams], refused outside [0, 1]."""
    x = np.asarray(values, dtype=np.float64)
    if x.shape[1:] != streams or x.ndim != len(streams) + 1:
        wanted = "[" + ", ".join(["N", *map(str, streams)]) + "]"
        raise BadUsage(f"values must have the shape {wanted}, not {list(x.shape)}")
    if not ((x >= 0) & (x <= 1)).all():
        raise BadUsage("the values of a stream must lie in [0, 1]; there is one outside, or a NaN")
    return x


def _binary(values: Values, streams: tuple[int, ...]) -> Floats:
    """The values as float64 [N, *streams], refused unless each is 0 or 1."""
    x = _bounded(values, streams)
    if not ((x == 0) | (x == 1)).all():
        raise BadUsage("the values of this stream must be 0 or 1")
    return x


def _rate(edge: float) -> float:
    """The edge, refused outside (0, 1)."""
    if not 0 < edge < 1:
        raise BadUsage(f"a rate to test against must lie strictly between 0 and 1, not {edge}")
    return edge
