"""Differential heatmaps, ``Δ_c = G_c⁺ − G_c⁻``, and which of their cells are more than chance.

A cell compares two shares: how often a > b in the correctly classified images of a class, and in
its misclassified ones. All of it assumes that the images are independent draws, and none of it is
a proof.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from conspec.analysis.heatmaps import Bools, Floats, Integers, Kind, Maps, Source, maps_of
from conspec.lens.bundle import Lens
from conspec.specs.errors import BadUsage
from conspec.verifier.probability.intervals import holm, wilson

_NEGLIGIBLE = 1e-17
"""A term that much smaller than the sum so far changes no digit of it."""


class Correction(StrEnum):
    """What is promised about the cells that are called significant."""

    HOLM = "holm"
    """With the confidence asked for, not one of them is so by chance (family-wise error)."""
    BH = "bh"
    """Of them, at most the allowed share is so by chance on average (false discovery rate);
    Benjamini and Hochberg prove it for tests that are independent or positively dependent."""


@dataclass(frozen=True, eq=False)
class Differences:
    """The differential maps of G classes that have both kinds of images.

    Attributes:
        right: maps of the correctly classified images, G groups, each with images.
        wrong: maps of the misclassified ones, of the same groups and concepts.
        p_values: of each cell, corrected for all of them, float64 [G, M, M]; 1 on the diagonal.
        missing: classes without a differential map, and why.
    """

    right: Maps
    wrong: Maps
    p_values: Floats
    missing: tuple[tuple[str, str], ...] = ()

    @property
    def delta(self) -> Floats:
        """Δ in [−1, 1], float64 [G, M, M]."""
        return self.right.shares - self.wrong.shares

    def intervals(self, confidence: float = 0.95) -> tuple[Floats, Floats]:
        """Newcombe's interval of each cell of Δ, each by itself: two of [G, M, M]."""
        return newcombe(self.right, self.wrong, confidence)

    def significant(self, confidence: float = 0.95) -> Bools:
        """Which cells differ by more than chance, over all cells of all classes, [G, M, M]."""
        return self.p_values <= 1 - confidence

    def blame(self, confidence: float = 0.95) -> Floats:
        """How responsible each concept is: the sum of significant |Δ| over its row, [G, M]."""
        found = np.where(self.significant(confidence), np.abs(self.delta), 0.0)
        return np.asarray(found.sum(axis=2), dtype=np.float64)


def differences(right: Maps, wrong: Maps, correction: Correction = Correction.HOLM) -> Differences:
    """The differential maps of two batches of summary maps.

    The family of tests is every cell of every class that has both kinds of images. Cells (i, j)
    and (j, i) are one test, unless there is a tie between i and j, for then they say different
    things.

    Raises:
        BadUsage: the batches are of other groups or concepts.
    """
    if (right.groups, right.concepts) != (wrong.groups, wrong.concepts):
        raise BadUsage("the maps to be compared are of other groups or concepts")
    both = [int(place) for place in np.flatnonzero(right.known & wrong.known)]
    missing = tuple(
        (name, _why_missing(bool(some), bool(fails)))
        for name, some, fails in zip(right.groups, right.known, wrong.known, strict=True)
        if not (some and fails)
    )
    right, wrong = right.chosen(both), wrong.chosen(both)
    return Differences(right, wrong, _corrected(right, wrong, correction), missing)


def _why_missing(some: bool, fails: bool) -> str:
    if some:
        return "no image is misclassified"
    return "no image is classified correctly" if fails else "there are no images"


def differences_of(
    lens: Lens, source: Source, images: Bools, correction: Correction = Correction.HOLM
) -> Differences:
    """The differential map of each class of a bundle.

    Args:
        lens: the bundle.
        source: whose scores are compared.
        images: which images count, bool [N].
        correction: how p-values are corrected for the number of cells.
    """
    right, wrong = (maps_of(lens, kind, source, images) for kind in (Kind.CORRECT, Kind.WRONG))
    return differences(right, wrong, correction)


def _corrected(right: Maps, wrong: Maps, correction: Correction) -> Floats:
    values = fisher(right, wrong)
    above = right.counts + wrong.counts
    totals = (right.totals + wrong.totals)[:, None, None]
    tied = above + above.transpose(0, 2, 1) < totals
    upper = np.triu(np.ones(values.shape[1:], dtype=np.bool_), 1)
    family = upper | (tied & upper.T)
    if correction is Correction.HOLM:
        values[family] = holm(values[family])
    else:
        values[family] = benjamini_hochberg(values[family])
    # What is no test of its own is the same test as its mirror image.
    return np.where(upper.T & ~tied, values.transpose(0, 2, 1), values)


def benjamini_hochberg(p_values: Floats) -> Floats:
    """Benjamini and Hochberg's (1995) adjusted p-values, [S] → [S].

    In increasing order the i-th of m (from 1) is multiplied by m / i, made monotone from the
    largest down, and cut at 1.
    """
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0)
    return adjusted


def newcombe(right: Maps, wrong: Maps, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Intervals of the difference of two independent shares, two of [G, M, M].

    The hybrid score interval (Newcombe, 1998, method 10): Wilson's intervals of both shares
    joined. Its coverage is the confidence on average over the shares, and some percent
    less for a few of them (0.91 at 0.95 for 40 and 15 images).

    Args:
        right: G groups, each with images.
        wrong: the same groups.
        confidence: of each interval by itself.
    """
    (p, low_p, high_p), (q, low_q, high_q) = (_scored(m, confidence) for m in (right, wrong))
    lower = p - q - np.hypot(p - low_p, high_q - q)
    upper = p - q + np.hypot(high_p - p, q - low_q)
    return np.maximum(lower, -1.0), np.minimum(upper, 1.0)


def _scored(maps: Maps, confidence: float) -> tuple[Floats, Floats, Floats]:
    """The shares, and Wilson's bounds of them."""
    totals = np.broadcast_to(maps.totals[:, None, None], maps.counts.shape)
    lower, upper = wilson(maps.counts.ravel(), totals.ravel(), confidence)
    return maps.shares, lower.reshape(totals.shape), upper.reshape(totals.shape)


def fisher(right: Maps, wrong: Maps) -> Floats:
    """Fisher's exact test of each cell: whether both shares are the same, [G, M, M].

    Given how many images of both kinds together have i above j, the count among the correct ones
    is hypergeometric. The two-sided p-value is twice the smaller tail, cut at 1, so that a
    significant cell is also significant in its direction (Fay, 2010, calls it central).

    Args:
        right: G groups, each with images.
        wrong: the same groups.
    """
    shape = right.counts.shape
    totals = [np.broadcast_to(m.totals[:, None, None], shape).ravel() for m in (right, wrong)]
    counts = (right.counts.ravel(), wrong.counts.ravel())
    cells, back = np.unique(np.stack([*counts, *totals]), axis=1, return_inverse=True)
    a, b, n, m = cells
    # The other tail is the same one with successes and failures exchanged.
    tails = np.minimum(_tail(a, b, n, m), _tail(n - a, m - b, n, m))
    found = np.minimum(2 * tails, 1.0)[np.ravel(back)].reshape(shape)
    diagonal = np.arange(shape[1])
    found[:, diagonal, diagonal] = 1.0
    return np.asarray(found, dtype=np.float64)


def _tail(a: Integers, b: Integers, n: Integers, m: Integers) -> Floats:
    """P(X ≥ a) for X hypergeometric: of a + b successes among n + m draws, those among the n.

    The probability of a itself comes from Beta functions; each further one from the one before,
    by P(x + 1) / P(x) = (n − x) (b − k) / ((x + 1) (m − b + k + 1)), with x = a + k, until it
    no longer counts.
    """
    from scipy.special import betaln

    def log_choose(total: Integers, part: Integers) -> Floats:
        return np.asarray(-betaln(total - part + 1.0, part + 1.0) - np.log(total + 1.0))

    first = log_choose(n, a) + log_choose(m, b) - log_choose(n + m, a + b)
    term = np.ones(len(a))
    total = np.ones(len(a))
    active = np.flatnonzero((a < n) & (b > 0))
    step = 0
    while len(active):
        x, rest = a[active] + step, b[active] - step
        ratio = (n[active] - x) * rest / ((x + 1.0) * (m[active] - rest + 1.0))
        term[active] *= ratio
        total[active] += term[active]
        # Terms first grow and then shrink, so that none after a negligible one counts.
        going = term[active] > _NEGLIGIBLE * total[active]
        step += 1
        active = active[going & (n[active] > x + 1) & (rest > 1)]
    return np.asarray(np.minimum(np.exp(first + np.log(total)), 1.0))
