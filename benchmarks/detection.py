"""How well scores tell bad inputs from good ones, with intervals.

Scores are greater for what looks good. The areas under ROC curves have DeLong's intervals, the
others percentile bootstrap intervals; each at 95 %, by itself. Bad inputs are the positives.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from conspec.analysis.heatmaps import Bools, Floats
from conspec.analysis.similarity import auroc

RESAMPLES = 200
LEVEL = 0.95
ALLOWED = 0.05
"""Share of good inputs that may be flagged, for the rate of true positives."""
COVERED = 0.8
"""Share of inputs that is kept, for the selective accuracy."""
Interval = dict[str, float]


def compared(good: Mapping[str, Floats], bad: Mapping[str, Floats]) -> dict[str, Any]:
    """AUROC, AUPR and the true positives at 5 % false ones, for each detector.

    Args:
        good: scores of the good inputs by detector, each [p].
        bad: those of the bad ones, each [q].
    """
    names = list(good)
    found, covariance = auroc(
        np.stack([good[name] for name in names]), np.stack([bad[name] for name in names])
    )
    half = 1.96 * np.sqrt(np.diag(covariance))
    return {
        name: {
            "auroc": _interval(found[i], max(found[i] - half[i], 0), min(found[i] + half[i], 1)),
            "aupr": bootstrapped(average_precision, good[name], bad[name]),
            "tpr": bootstrapped(true_positives, good[name], bad[name]),
        }
        for i, name in enumerate(names)
    }


def average_precision(good: Floats, bad: Floats) -> float:
    """Area under the precision-recall curve, in steps, as scikit-learn computes it."""
    from sklearn.metrics import average_precision_score

    truth = np.concatenate([np.zeros(len(good)), np.ones(len(bad))])
    return float(average_precision_score(truth, -np.concatenate([good, bad])))


def true_positives(good: Floats, bad: Floats) -> float:
    """The share of bad inputs flagged if at most 5 % of these good ones are."""
    threshold = np.sort(good)[int(ALLOWED * len(good))]
    return float((bad < threshold).mean())


def risk_coverage(scores: Floats, right: Bools) -> dict[str, Interval]:
    """Area under the risk-coverage curve, and selective accuracy at 80 % coverage.

    Inputs are kept from the highest score down; the risk is the share of wrong ones among those
    kept. Equal scores are kept in random order.
    """
    good, bad = scores[right], scores[~right]
    return {
        "aurc": bootstrapped(lambda p, q: float(_risks(p, q).mean()), good, bad),
        "selective accuracy": bootstrapped(
            lambda p, q: float(1 - _risks(p, q)[int(COVERED * (len(p) + len(q))) - 1]), good, bad
        ),
    }


def _risks(good: Floats, bad: Floats) -> Floats:
    """The risk after each input that is kept, [N]."""
    scores = np.concatenate([good, bad])
    wrong = np.concatenate([np.zeros(len(good)), np.ones(len(bad))])
    order = np.random.default_rng(0).permutation(len(scores))
    order = order[np.argsort(-scores[order], kind="stable")]
    return np.asarray(np.cumsum(wrong[order]) / np.arange(1, len(order) + 1))


def bootstrapped(figure: Callable[[Floats, Floats], float], good: Floats, bad: Floats) -> Interval:
    """A figure with its percentile interval; good and bad inputs are drawn again separately."""
    random = np.random.default_rng(0)
    values = [
        figure(
            good[random.integers(len(good), size=len(good))],
            bad[random.integers(len(bad), size=len(bad))],
        )
        for _ in range(RESAMPLES)
    ]
    lower, upper = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = figure(good, bad)
    # Resampling repeats inputs, which may shift a figure; the interval holds at least the value.
    return _interval(value, min(lower, value), max(upper, value))


def _interval(value: float, lower: float, upper: float) -> Interval:
    return {"value": float(value), "lower": float(lower), "upper": float(upper)}
