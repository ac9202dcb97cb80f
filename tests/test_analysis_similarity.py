"""Similarities of heatmaps against their definitions and scipy."""

from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cosine
from scipy.stats import kendalltau, norm

from conspec.analysis.heatmaps import Floats, Kind, Maps, Source, maps_of, scores_of, summary
from conspec.analysis.similarity import (
    Measure,
    auroc,
    compare,
    pair_sums,
    similarities,
)
from conspec.cli.inputs import SHIPPED
from conspec.lens import Lens
from conspec.specs.errors import BadUsage
from conspec.specs.ranking import ranks
from tests.bundles import write_tiny

WIDTH = 4
rows = st.lists(st.lists(st.integers(0, 3), min_size=WIDTH, max_size=WIDTH), min_size=1, max_size=8)


def maps_from(scores: Any, groups: Any, number: int) -> Maps:
    names = [f"c{i}" for i in range(scores.shape[1])]
    return summary(scores, np.asarray(groups), [f"g{i}" for i in range(number)], names)


def by_definition(row: Any, maps: Maps, place: int, measure: Measure, band: float) -> float:
    """One similarity, cell by cell."""
    pairs = [(i, j) for i, j in product(range(len(row)), repeat=2) if i != j]
    a = np.array([float(row[i] > row[j]) for i, j in pairs])
    count = np.array([maps.counts[place, i, j] for i, j in pairs])
    total = maps.totals[place]
    g = count / total
    match measure:
        case Measure.COSINE:
            return 0.0 if (g == 0.5).all() else float(1 - cosine(a - 0.5, g - 0.5))
        case Measure.AGREEMENT:
            counted = np.abs(2 * count - total) >= 2 * band * total
            same = a == (g > 0.5)
            return float(same[counted].mean()) if counted.any() else 0.5
        case Measure.L1:
            return float(1 - np.abs(a - g).mean())
        case Measure.L2:
            return float(1 - np.sqrt(((a - g) ** 2).mean()))
        case Measure.LIKELIHOOD:
            p = (count + 0.5) / (total + 1)
            return float((a * np.log(p) + (1 - a) * np.log(1 - p)).mean())
        case Measure.KENDALL:
            wins = [(maps.counts[place, i, j] > maps.counts[place, j, i]) for i, j in pairs]
            loss = [(maps.counts[place, i, j] < maps.counts[place, j, i]) for i, j in pairs]
            order = np.array(wins, dtype=float) - np.array(loss, dtype=float)
            own = np.sign([float(row[i]) - float(row[j]) for i, j in pairs])
            lengths = np.sqrt((own**2).sum() * (order**2).sum())
            return float(own @ order / lengths) if lengths else 0.0


@pytest.mark.parametrize("band", ["0", "0.2"])
@pytest.mark.parametrize("measure", Measure)
@given(images=rows, known=rows)
def test_similarities_are_their_definitions(
    measure: Measure, band: str, images: list[list[int]], known: list[list[int]]
) -> None:
    asked, seen = np.array(images), np.array(known)
    number = min(len(seen), 2)
    maps = maps_from(seen, np.arange(len(seen)) % number, number)
    found = similarities(asked, maps, measure, Fraction(band))
    assert found.shape == (len(asked), number)
    for n, g in product(range(len(asked)), range(number)):
        expected = by_definition(asked[n], maps, g, measure, float(band))
        # The root of a sum that is 0 but for rounding.
        assert found[n, g] == pytest.approx(expected, abs=1e-7 if measure is Measure.L2 else 1e-12)
    assert np.allclose(similarities(ranks(asked), maps, measure, Fraction(band)), found)


@given(rows)
def test_kendall_between_two_rankings_is_scipys_tau_b(images: list[list[int]]) -> None:
    scores = np.array(images)
    maps = maps_from(scores, np.arange(len(scores)), len(scores))
    found = similarities(scores, maps, Measure.KENDALL)
    for n, g in product(range(len(scores)), repeat=2):
        ties = min(len(set(images[n])), len(set(images[g]))) == 1
        expected = 0.0 if ties else kendalltau(images[n], images[g]).statistic
        assert found[n, g] == pytest.approx(expected)


@pytest.mark.parametrize("measure", Measure)
@given(images=rows, order=st.permutations(range(WIDTH)))
def test_the_order_of_concepts_does_not_matter(
    measure: Measure, images: list[list[int]], order: list[int]
) -> None:
    scores = np.array(images)
    groups = np.zeros(len(scores), dtype=np.int64)
    plain = similarities(scores, maps_from(scores, groups, 1), measure)
    moved = similarities(scores[:, order], maps_from(scores[:, order], groups, 1), measure)
    assert np.allclose(plain, moved, atol=1e-7)


@pytest.mark.parametrize(
    ("measure", "same", "opposite"),
    [
        (Measure.COSINE, 1, -1),
        (Measure.AGREEMENT, 1, 0),
        (Measure.L1, 1, 0),
        (Measure.L2, 1, 0),
        (Measure.LIKELIHOOD, np.log(10.5 / 11), np.log(0.5 / 11)),
        (Measure.KENDALL, 1, -1),
    ],
)
def test_the_same_and_the_opposite_ranking(measure: Measure, same: float, opposite: float) -> None:
    scores = np.tile(np.arange(5.0), (10, 1))
    maps = maps_from(scores, np.zeros(10, dtype=np.int64), 1)
    found = similarities(np.array([np.arange(5.0), -np.arange(5.0)]), maps, measure)
    assert found[:, 0] == pytest.approx([same, opposite])


def test_maps_that_say_nothing() -> None:
    half = np.array([[0.0, 1.0], [1.0, 0.0]])
    maps = maps_from(half, np.zeros(2, dtype=np.int64), 1)
    assert similarities(half, maps, Measure.COSINE).tolist() == [[0.0], [0.0]]
    assert similarities(half, maps, Measure.KENDALL).tolist() == [[0.0], [0.0]]
    assert similarities(half, maps, Measure.AGREEMENT, Fraction(1, 4)).tolist() == [[0.5], [0.5]]


def test_pieces_of_a_large_batch_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    scores, weights = random.normal(size=(50, 6)), random.normal(size=(3, 6, 6))
    expected = [[(w * (row[:, None] > row[None, :])).sum() for w in weights] for row in scores]
    for cells in (1, 36 * 7, 1 << 20):
        monkeypatch.setattr("conspec.analysis.similarity._CELLS", cells)
        assert np.allclose(pair_sums(scores, weights), expected)
    assert pair_sums(scores[:0], weights).shape == (0, 3)


def test_bad_shapes_and_empty_maps_are_refused() -> None:
    maps = maps_from(np.arange(6.0).reshape(2, 3), np.zeros(2, dtype=np.int64), 2)
    with pytest.raises(BadUsage, match="no map without images: g1"):
        similarities(np.zeros((1, 3)), maps)
    with pytest.raises(BadUsage, match=r"expected \[N, 3\]"):
        similarities(np.zeros((1, 2)), maps)
    with pytest.raises(BadUsage, match="dead band"):
        similarities(np.zeros((1, 3)), maps.only_known(), Measure.AGREEMENT, Fraction(2))


# Areas under ROC curves


@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=12),
    st.lists(st.integers(0, 5), min_size=2, max_size=12),
)
def test_the_area_is_the_chance_to_rank_a_pair_correctly(
    positive: list[int], negative: list[int]
) -> None:
    wins = [(p > q) + 0.5 * (p == q) for p in positive for q in negative]
    area, covariance = auroc(np.array([positive], dtype=float), np.array([negative], dtype=float))
    assert area[0] == pytest.approx(np.mean(wins))
    table = np.array(wins, dtype=float).reshape(len(positive), len(negative))
    expected = table.mean(1).var(ddof=1) / len(positive) + table.mean(0).var(ddof=1) / len(negative)
    assert covariance[0, 0] == pytest.approx(expected, abs=1e-12)


def test_delongs_interval_covers_in_a_simulation() -> None:
    """2,000 samples of normal scores; fewer than 1,800 of a 95 % interval's would be < 1e-9."""
    random = np.random.default_rng(5)
    positive, negative = random.normal(1.0, 1, (2000, 60)), random.normal(0, 1, (2000, 40))
    truth, covered = norm.cdf(1 / np.sqrt(2)), 0
    for p, n in zip(positive, negative, strict=True):
        area, covariance = auroc(p[None], n[None])
        covered += abs(area[0] - truth) <= 1.96 * np.sqrt(covariance[0, 0])
    assert covered >= 1800


def test_too_few_images_have_no_area() -> None:
    with pytest.raises(BadUsage, match="two images of each kind, not 3 and 1"):
        auroc(np.zeros((1, 3)), np.zeros((1, 1)))


# On a bundle


@pytest.fixture(scope="module")
def emoji() -> Lens:
    return Lens.load(SHIPPED["emoji10"])


def test_the_table_is_made_of_training_maps_and_held_out_images(emoji: Lens) -> None:
    data = emoji.embeddings
    table = compare(emoji, Source.MODEL)
    assert [row.measure for row in table.rows] == list(Measure)
    assert (table.right, table.wrong) == (193, 38)
    maps = maps_of(emoji, Kind.CORRECT, Source.MODEL, ~data.heldout)
    scores = scores_of(emoji, Source.MODEL)
    for row in table.rows:
        values = np.array(
            [
                by_definition(scores[i], maps, data.predicted[i], row.measure, 0.0)
                for i in np.flatnonzero(data.heldout)
            ]
        )
        right = (data.predicted == data.label)[data.heldout]
        assert row.area == pytest.approx(auroc_of(values, right))
        assert row.lower < row.area < row.upper
        assert row.gain == pytest.approx(row.area - table.rows[0].area)
        assert row.gain_lower <= row.gain <= row.gain_upper
    assert (table.rows[0].gain_lower, table.rows[0].gain_upper) == (0, 0)


def auroc_of(values: Floats, right: Any) -> float:
    # Sums in another order may break a tie of two images with the same map.
    gaps = values[right][:, None] - values[~right][None, :]
    return float((gaps > 1e-9).mean() + 0.5 * (np.abs(gaps) <= 1e-9).mean())


def test_without_wrong_images_there_is_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(BadUsage, match="two images of each kind, not 30 and 0"):
        compare(write_tiny(tmp_path / "tiny"), Source.VLM)
