"""Intervals and tests of proportions that come from counts, alone and over a whole suite.

All of them assume that the totals are independent draws of one population (i.i.d. images), and
that the sample size was fixed before looking; ``sequences`` has those for streams. They are
statistics: with the stated probability they are wrong, so none is a proof.

Counts are non-negative whole numbers below 2**53. Functions take scalars or arrays that broadcast
together; scalars give plain floats.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Any, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from conspec.specs.errors import BadUsage

Floats: TypeAlias = NDArray[np.float64]
Count: TypeAlias = int | np.integer[Any]
Counts: TypeAlias = NDArray[np.integer[Any]] | Sequence[int]


class Decision(Enum):
    """What the counts say about "the probability is at least p". None of them is a proof."""

    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "undecided"


@overload
def clopper_pearson(
    counts: Count, totals: Count, confidence: float = ...
) -> tuple[float, float]: ...
@overload
def clopper_pearson(
    counts: Counts, totals: Counts | Count, confidence: float = ...
) -> tuple[Floats, Floats]: ...
def clopper_pearson(
    counts: Counts | Count, totals: Counts | Count, confidence: float = 0.95
) -> tuple[Floats | float, Floats | float]:
    """The exact two-sided interval of Clopper and Pearson (1934).

    Whatever the true proportion, it lies below the lower bound with probability at most
    (1 − confidence) / 2, and above the upper bound with at most the same.

    Args:
        counts: how many draws were successes, [S] or a scalar.
        totals: how many draws there were, [S] or a scalar; 0 gives the interval (0, 1).
        confidence: between 0 and 1.

    Returns:
        Lower and upper bounds, each [S] float64, or plain floats for scalars.

    Raises:
        BadUsage: counts that are no whole numbers in [0, totals], or a bad confidence.
    """
    k, n = _checked(counts, totals)
    tail = error_of(confidence) / 2
    return _plain(_lower(k, n, tail)), _plain(_upper(k, n, tail))


@overload
def clopper_pearson_lower(counts: Count, totals: Count, confidence: float = ...) -> float: ...
@overload
def clopper_pearson_lower(
    counts: Counts, totals: Counts | Count, confidence: float = ...
) -> Floats: ...
def clopper_pearson_lower(
    counts: Counts | Count, totals: Counts | Count, confidence: float = 0.95
) -> Floats | float:
    """The exact one-sided lower bound; see ``clopper_pearson``."""
    return _plain(_lower(*_checked(counts, totals), error_of(confidence)))


@overload
def clopper_pearson_upper(counts: Count, totals: Count, confidence: float = ...) -> float: ...
@overload
def clopper_pearson_upper(
    counts: Counts, totals: Counts | Count, confidence: float = ...
) -> Floats: ...
def clopper_pearson_upper(
    counts: Counts | Count, totals: Counts | Count, confidence: float = 0.95
) -> Floats | float:
    """The exact one-sided upper bound; see ``clopper_pearson``."""
    return _plain(_upper(*_checked(counts, totals), error_of(confidence)))


@overload
def wilson(counts: Count, totals: Count, confidence: float = ...) -> tuple[float, float]: ...
@overload
def wilson(
    counts: Counts, totals: Counts | Count, confidence: float = ...
) -> tuple[Floats, Floats]: ...
def wilson(
    counts: Counts | Count, totals: Counts | Count, confidence: float = 0.95
) -> tuple[Floats | float, Floats | float]:
    """The score interval of Wilson (1927): approximate, shorter than Clopper and Pearson's.

    Its coverage is near the confidence on average over the true proportion, and well below it
    for some proportions near 0 and 1. The bounds are the roots p of
    (n + z²) p² − (2 k + z²) p + k² / n = 0.
    """
    from scipy.special import ndtri

    k, n = _checked(counts, totals)
    z2 = float(ndtri(error_of(confidence) / 2)) ** 2
    some = np.maximum(n, 1.0)
    sum_of_terms = 2 * k + z2 + np.sqrt(z2 * (z2 + 4 * k * (n - k) / some))
    # The smaller root follows from the product of the roots, which does not cancel.
    lower = 2 * k * (k / some) / sum_of_terms
    upper = np.minimum(sum_of_terms / (2 * (n + z2)), 1.0)
    return _plain(lower), _plain(np.where(n > 0, upper, 1.0))


@overload
def jeffreys(counts: Count, totals: Count, confidence: float = ...) -> tuple[float, float]: ...
@overload
def jeffreys(
    counts: Counts, totals: Counts | Count, confidence: float = ...
) -> tuple[Floats, Floats]: ...
def jeffreys(
    counts: Counts | Count, totals: Counts | Count, confidence: float = 0.95
) -> tuple[Floats | float, Floats | float]:
    """The Bayesian interval with equal tails under Jeffreys' prior Beta(1/2, 1/2).

    A count of 0 has the lower bound 0, and a full count the upper bound 1 (Brown, Cai and
    DasGupta, 2001, section 4.1.2). The confidence is a posterior probability: it holds on average
    over the prior, and not for every true proportion.
    """
    from scipy.special import betainccinv, betaincinv

    k, n = _checked(counts, totals)
    tail = error_of(confidence) / 2
    lower = np.where(k > 0, betaincinv(k + 0.5, n - k + 0.5, tail), 0.0)
    upper = np.where(k < n, betainccinv(k + 0.5, n - k + 0.5, tail), 1.0)
    return _plain(lower), _plain(upper)


def binomial_p_value(
    counts: Counts | Count,
    totals: Counts | Count,
    p: Floats | float,
    alternative: Literal["greater", "less"],
) -> Floats:
    """The exact one-sided binomial test: how likely counts this extreme are at proportion p.

    Args:
        counts: how many draws were successes, [S] or a scalar.
        totals: how many draws there were, [S] or a scalar.
        p: the proportion at the edge of the null hypothesis, [S] or a scalar, in [0, 1].
        alternative: "greater" tests against the null "at most p", "less" against "at least p".

    Returns:
        P(X ≥ count) or P(X ≤ count) for X binomial (total, p), [S] float64.

    Raises:
        BadUsage: bad counts, p outside [0, 1], or another alternative.
    """
    from scipy.special import betainc, betaincc

    k, n, at = np.broadcast_arrays(*_checked(counts, totals), _proportions(p))
    # The arguments where a tail is everything are replaced, since the functions have poles there.
    if alternative == "greater":
        tail = betainc(np.maximum(k, 1), n - np.maximum(k, 1) + 1, at)
        return np.where(k > 0, tail, 1.0)
    if alternative == "less":
        tail = betaincc(k + 1, np.maximum(n - k, 1), at)
        return np.where(k < n, tail, 1.0)
    raise BadUsage(f"the alternative must be 'greater' or 'less', not {alternative!r}")


def holm(p_values: Floats | Sequence[float]) -> Floats:
    """Holm's (1979) adjusted p-values of a family of tests, however they depend on each other.

    Rejecting each null hypothesis whose adjusted p-value is at most α rejects a true one with
    probability at most α.

    Args:
        p_values: one for each hypothesis, [S], each in [0, 1].

    Returns:
        [S] float64, in the order given: in increasing order the i-th of m p-values (from 0) is
        multiplied by m − i, made monotone, and cut at 1.

    Raises:
        BadUsage: p-values that are no list of numbers in [0, 1].
    """
    given = _proportions(p_values)
    if given.ndim != 1:
        raise BadUsage(f"Holm's correction takes a list of p-values, not shape {given.shape}")
    order = np.argsort(given, kind="stable")
    steps = given[order] * np.arange(len(given), 0, -1)
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def simultaneous(
    counts: Counts, totals: Counts | Count, confidence: float = 0.95
) -> tuple[Floats, Floats]:
    """Clopper–Pearson intervals that hold for all proportions of a suite at once (Bonferroni).

    Each of S intervals gets the error (1 − confidence) / S, so that all of them together are
    right with the confidence, however the specs depend on each other. Holm's method gains its
    power in steps: how strict it is with one hypothesis depends on which others were rejected.
    So it gives decisions about fixed thresholds. The intervals that belong to it (Strassburger
    and Bretz, 2008) are one-sided, and say nothing beyond the threshold for most rejected ones.

    Args:
        counts: successes of each spec, [S].
        totals: draws of each spec, [S] or one number.
        confidence: that all S intervals are right.

    Returns:
        Lower and upper bounds, each [S] float64.

    Raises:
        BadUsage: as ``clopper_pearson``.
    """
    k, n = _checked(counts, totals)
    tail = error_of(confidence) / (2 * max(k.size, 1))
    return _lower(k, n, tail), _upper(k, n, tail)


def decide(
    counts: Counts, totals: Counts | Count, p: Floats | float, confidence: Floats | float
) -> list[Decision]:
    """Decides "probability >= p with confidence c" for each spec by itself.

    HOLDS when the one-sided lower Clopper–Pearson bound at confidence c is at least p; FAILS
    when the one-sided upper bound is below p; else UNDECIDED. The bounds are compared through
    their p-values, which keep their digits where a bound rounds to 0 or 1. For each spec the
    decision is wrong with probability at most 1 − c: only one of the two answers can be wrong.
    Over many specs some decisions will be wrong; see ``decide_family``.

    Args:
        counts: successes of each spec, [S].
        totals: draws of each spec, [S] or one number.
        p: the stated probability, [S] or one number.
        confidence: c, [S] or one number, strictly between 0 and 1.

    Returns:
        One decision for each spec.

    Raises:
        BadUsage: bad counts, p or confidence.
    """
    above, below = _two_tests(counts, totals, p)
    return _decisions(above, below, error_of(confidence))


def decide_family(
    counts: Counts, totals: Counts | Count, p: Floats | float, confidence: float
) -> list[Decision]:
    """Decides "probability >= p" for a whole suite, with one confidence for all of it.

    With probability at least c not one of the decisions is wrong, neither a HOLDS nor a FAILS,
    however the specs depend on each other. The two kinds of decisions are two families with
    Holm's correction, each at the error (1 − c) / 2. (One family at the error 1 − c would not do:
    each spec has exactly one true null hypothesis, so there are always as many as specs, and
    Holm's steps would gain nothing.) A single spec needs no halving, and is decided as by
    ``decide``.

    Args:
        counts: successes of each spec, [S].
        totals: draws of each spec, [S] or one number.
        p: the stated probability, [S] or one number.
        confidence: c, strictly between 0 and 1.

    Returns:
        One decision for each spec.

    Raises:
        BadUsage: bad counts, p or confidence.
    """
    above, below = _two_tests(counts, totals, p)
    kinds = 2 if len(above) > 1 else 1
    return _decisions(holm(above), holm(below), error_of(confidence) / kinds)


def _two_tests(counts: Counts, totals: Counts | Count, p: Floats | float) -> tuple[Floats, Floats]:
    """The p-values of "the probability is below p" and of "it is at least p", each [S]."""
    at = _proportions(p)
    # No probability is below 0, so that null hypothesis is false before any data.
    above = np.where(at > 0, binomial_p_value(counts, totals, at, "greater"), 0.0)
    below = binomial_p_value(counts, totals, at, "less")
    return np.atleast_1d(above), np.atleast_1d(below)


def _decisions(above: Floats, below: Floats, error: Floats | float) -> list[Decision]:
    """What each pair of p-values decides at a given error.

    An upper bound equal to p is no failure, hence the strict comparison there.
    """
    hold, fail = np.broadcast_arrays(above <= error, below < error)
    return [
        Decision.HOLDS if up else Decision.FAILS if down else Decision.UNDECIDED
        for up, down in zip(hold, fail, strict=True)
    ]


def _lower(k: Floats, n: Floats, tail: float) -> Floats:
    """The p at which the binomial tail P(X ≥ k) is ``tail``; 0 for k = 0."""
    from scipy.special import betaincinv

    return np.where(k > 0, betaincinv(np.maximum(k, 1), n - np.maximum(k, 1) + 1, tail), 0.0)


def _upper(k: Floats, n: Floats, tail: float) -> Floats:
    """The p at which the binomial tail P(X ≤ k) is ``tail``; 1 for k = n."""
    from scipy.special import betainccinv

    # The complementary inverse takes the small tail itself: 1 − tail would round it away.
    return np.where(k < n, betainccinv(k + 1, np.maximum(n - k, 1), tail), 1.0)


def _checked(counts: Counts | Count, totals: Counts | Count) -> tuple[Floats, Floats]:
    """Both as float64 of one shape; whole numbers of this size are exact there."""
    try:
        k, n = np.broadcast_arrays(
            np.asarray(counts, dtype=np.float64), np.asarray(totals, dtype=np.float64)
        )
    except (TypeError, ValueError) as error:
        raise BadUsage(f"counts and totals must be numbers of one shape: {error}") from None
    sound = (k >= 0) & (k <= n) & (n < 2.0**53) & (k == np.floor(k)) & (n == np.floor(n))
    if not sound.all():
        at = tuple(int(i) for i in np.argwhere(~sound)[0])
        raise BadUsage(
            f"a count must be a whole number from 0 to its total, not {k[at]} of {n[at]}"
        )
    return k, n


def _proportions(values: Floats | Sequence[float] | float) -> Floats:
    """The values as float64, refused outside [0, 1]."""
    given = np.asarray(values, dtype=np.float64)
    if not ((given >= 0) & (given <= 1)).all():
        raise BadUsage(f"a probability must lie in [0, 1], not {given}")
    return given


@overload
def error_of(confidence: float) -> float: ...
@overload
def error_of(confidence: Floats | float) -> Floats | float: ...
def error_of(confidence: Floats | float) -> Floats | float:
    """1 − confidence, exact in floats from 0.5 on; refused outside (0, 1)."""
    given = np.asarray(confidence, dtype=np.float64)
    if not ((given > 0) & (given < 1)).all():
        raise BadUsage(f"a confidence must lie strictly between 0 and 1, not {confidence}")
    return _plain(1.0 - given)


def _plain(values: Floats) -> Floats | float:
    """A plain float for what has no axes."""
    return float(values) if np.ndim(values) == 0 else values
