"""How alike a single-input heatmap and a summary map are: one family of measures, greater = closer.

Every measure is a linear function of the single-input map A, since its cells are 0 and 1:

    T(x) = Σ_{i≠j} A(x)[i, j] · W[i, j],

then shifted and scaled. So N images and G maps are one matrix product of comparisons and weights,
done a piece at a time; the N·M² cells are never held at once. Sums run over all ordered pairs
i ≠ j; a tie, where neither concept is stronger, has A = 0 in both directions.
"""

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

import numpy as np

from conspec.analysis.heatmaps import (
    Bools,
    Floats,
    Integers,
    Kind,
    Maps,
    Ranking,
    Source,
    binarized,
    grouped,
    scores_of,
    summary,
)
from conspec.lens.bundle import Lens
from conspec.specs.errors import BadUsage
from conspec.specs.ranking import ranks

_CELLS = 1 << 20
"""Comparisons made at once: 8 MiB of float64."""


class Measure(StrEnum):
    """The measures, each of a single-input map A and a summary map G with cells c of n images."""

    COSINE = "cosine"
    """Cosine of A − ½ and G − ½, in [−1, 1]; 0 for a map that is ½ everywhere."""
    AGREEMENT = "agreement"
    """Share of cells that A and the binarized G have in common (1 − Hamming distance), in [0, 1];
    cells of a dead band do not count, and without any other cell it is ½."""
    L1 = "l1"
    """1 − mean |A − G|, in [0, 1]."""
    L2 = "l2"
    """1 − the root of the mean of (A − G)², in [0, 1]."""
    LIKELIHOOD = "likelihood"
    """Mean of A log P + (1 − A) log(1 − P), P = (c + ½) / (n + 1), at most 0."""
    KENDALL = "kendall"
    """Kendall's τ_b of the ranking and the order G[i, j] > G[j, i], in [−1, 1]; 0 where one of
    them ties everything."""


@dataclass(frozen=True, eq=False)
class _Linear:
    """A measure before its last step: ``start + Σ A · weights``.

    Attributes:
        weights: [G, M, M], 0 on the diagonal.
        start: [G].
    """

    weights: Floats
    start: Floats


def similarities(
    ranking: Ranking,
    maps: Maps,
    measure: Measure = Measure.COSINE,
    band: Fraction = Fraction(0),
) -> Floats:
    """How alike each single-input map and each summary map are; greater is closer.

    Args:
        ranking: the single-input maps, as ranks (``specs.ranking.ranks``) or as scores, [N, M].
        maps: G summary maps, each of at least one image.
        measure: which measure.
        band: of AGREEMENT: cells of G strictly between ½ − band and ½ + band are left out.

    Returns:
        float64 [N, G].

    Raises:
        BadUsage: other concepts than the maps', fewer than two of them, a map without images,
            or a band out of range.
    """
    width = len(maps.concepts)
    if ranking.ndim != 2 or ranking.shape[1] != width or width < 2:
        raise BadUsage(f"rankings have shape {ranking.shape}, expected [N, {width}], {width} ≥ 2")
    cells = width * (width - 1)
    off = ~np.eye(width, dtype=np.bool_)
    linear, scale = _linear(maps, measure, band, off)
    sums = pair_sums(ranking, linear.weights) + linear.start
    if measure is Measure.L2:
        # Rounding may leave a tiny negative sum of squares.
        return 1 - np.sqrt(np.maximum(sums, 0.0) / cells)
    if measure is Measure.KENDALL:
        decided = pair_sums(ranking, off[None].astype(np.float64))
        product = np.sqrt(decided * scale)
        return np.divide(sums, product, out=np.zeros_like(sums), where=product > 0)
    return np.divide(sums, scale, out=np.zeros_like(sums), where=scale > 0) + (
        0.5 * (scale == 0) if measure is Measure.AGREEMENT else 0.0
    )


def _linear(maps: Maps, measure: Measure, band: Fraction, off: Bools) -> tuple[_Linear, Floats]:
    """The linear part of a measure, and what each map's sum is divided by, [G]."""
    shares, all_cells = maps.shares, np.full(len(maps.groups), float(off.sum()))
    match measure:
        case Measure.COSINE:
            centred = np.where(off, shares - 0.5, 0.0)
            norms = np.sqrt((centred**2).sum(axis=(1, 2)) * off.sum()) / 2
            return _Linear(centred, -centred.sum(axis=(1, 2)) / 2), norms
        case Measure.AGREEMENT:
            cells = binarized(maps, band)
            counted = off & (cells >= 0)
            weights = np.where(counted, 2.0 * cells - 1.0, 0.0)
            zeros = (counted & (cells == 0)).sum(axis=(1, 2))
            return _Linear(weights, zeros), counted.sum(axis=(1, 2)).astype(np.float64)
        case Measure.L1:
            weights = np.where(off, 2 * shares - 1, 0.0)
            return _Linear(weights, np.where(off, 1 - shares, 0.0).sum(axis=(1, 2))), all_cells
        case Measure.L2:
            weights = np.where(off, 1 - 2 * shares, 0.0)
            return _Linear(weights, np.where(off, shares**2, 0.0).sum(axis=(1, 2))), all_cells
        case Measure.LIKELIHOOD:
            totals = maps.totals[:, None, None]
            yes, no = (
                np.where(off, np.log((c + 0.5) / (totals + 1)), 0.0)
                for c in (maps.counts, totals - maps.counts)
            )
            return _Linear(yes - no, no.sum(axis=(1, 2))), all_cells
        case Measure.KENDALL:
            order = np.sign(maps.counts - maps.counts.transpose(0, 2, 1)).astype(np.float64)
            # A has one of the two cells of a pair, so that the sum counts a pair once, as here.
            pairs = np.abs(order).sum(axis=(1, 2)) / 2
            return _Linear(order, np.zeros(len(order))), pairs


def pair_sums(ranking: Ranking, weights: Floats) -> Floats:
    """``Σ_{i,j} A(x)[i, j] · W_g[i, j]`` with ``A(x)[i, j] = 1`` if score i is above score j.

    Args:
        ranking: ranks or scores, [N, M].
        weights: [G, M, M].

    Returns:
        float64 [N, G].
    """
    width, total = ranking.shape[1], len(weights)
    flat = np.ascontiguousarray(weights.reshape(total, width * width).T)
    sums = np.empty((len(ranking), total))
    step = max(1, _CELLS // max(width * width, 1))
    above = np.empty((min(step, len(ranking)), width, width))
    for start in range(0, len(ranking), step):
        rows = ranking[start : start + step]
        part = above[: len(rows)]
        part[:] = rows[:, :, None] > rows[:, None, :]
        np.matmul(part.reshape(len(rows), -1), flat, out=sums[start : start + step])
    return sums


def auroc(positive: Floats, negative: Floats) -> tuple[Floats, Floats]:
    """The areas under the ROC curves of S scores, and their covariance (DeLong et al., 1988).

    Args:
        positive: scores of the images that should score high, [S, p], p ≥ 2.
        negative: those of the others, [S, q], q ≥ 2.

    Returns:
        The areas, [S]: the chance that a positive scores above a negative, ties counting half;
        and the covariance matrix of these estimates, [S, S].

    Raises:
        BadUsage: there are fewer than two images of a kind.
    """
    from scipy.stats import rankdata

    p, q = positive.shape[1], negative.shape[1]
    if min(p, q) < 2:
        raise BadUsage(f"an AUROC needs two images of each kind, not {p} and {q}")
    joint = rankdata(np.hstack([positive, negative]), axis=1)
    of_positive = (joint[:, :p] - rankdata(positive, axis=1)) / q
    of_negative = 1 - (joint[:, p:] - rankdata(negative, axis=1)) / p
    covariance = np.atleast_2d(np.cov(of_positive)) / p + np.atleast_2d(np.cov(of_negative)) / q
    return of_positive.mean(axis=1), covariance


@dataclass(frozen=True, slots=True)
class Comparison:
    """How well one measure tells correctly classified held-out images from misclassified ones.

    Attributes:
        measure: which one.
        area: its AUROC.
        lower: end of DeLong's interval of it.
        upper: end of DeLong's interval of it.
        gain: its AUROC minus that of the first measure.
        gain_lower: end of DeLong's interval of that, from the same images.
        gain_upper: end of DeLong's interval of that.
    """

    measure: Measure
    area: float
    lower: float
    upper: float
    gain: float
    gain_lower: float
    gain_upper: float


@dataclass(frozen=True, slots=True)
class Table:
    """All measures compared on a bundle.

    Attributes:
        rows: one for each measure.
        right: correctly classified held-out images.
        wrong: misclassified ones.
    """

    rows: tuple[Comparison, ...]
    right: int
    wrong: int


def compare(lens: Lens, source: Source, confidence: float = 0.95) -> Table:
    """How well each measure tells correct from wrong predictions, on a bundle's held-out images.

    Each held-out image with a known class is scored by how alike its single-input map is to the
    map of the training images that the model classified correctly as the class that it predicts
    here. Nothing is fitted to the held-out images. Intervals are normal approximations.

    Raises:
        BadUsage: fewer than two held-out images of a kind, or a predicted class without
            correctly classified training images.
    """
    from scipy.special import ndtri

    data = lens.embeddings
    scores = scores_of(lens, source)
    groups, names = grouped(Kind.CORRECT, data.label, data.predicted, lens.classes)
    maps = summary(scores, np.where(data.heldout, -1, groups), names, lens.concepts)
    asked = np.flatnonzero(data.heldout & (data.label >= 0))
    predicted: Integers = data.predicted[asked]
    needed = np.unique(predicted)
    chosen = maps.chosen([int(place) for place in needed])
    ranking, column = ranks(scores[asked]), np.searchsorted(needed, predicted)
    found = np.stack(
        [similarities(ranking, chosen, m)[np.arange(len(asked)), column] for m in Measure]
    )
    right = predicted == data.label[asked]
    areas, covariance = auroc(found[:, right], found[:, ~right])
    z = float(ndtri((1 + confidence) / 2))
    rows = [_row(measure, areas, covariance, z) for measure in range(len(areas))]
    return Table(tuple(rows), int(right.sum()), int((~right).sum()))


def _row(place: int, areas: Floats, covariance: Floats, z: float) -> Comparison:
    half = z * np.sqrt(covariance[place, place])
    spread = covariance[place, place] + covariance[0, 0] - 2 * covariance[place, 0]
    reach = z * np.sqrt(max(float(spread), 0.0))
    area, gain = float(areas[place]), float(areas[place] - areas[0])
    return Comparison(
        list(Measure)[place],
        area,
        max(area - float(half), 0.0),
        min(area + float(half), 1.0),
        gain,
        gain - float(reach),
        gain + float(reach),
    )
