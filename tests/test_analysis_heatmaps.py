"""Semantic heatmaps against their definitions, and their statistics against exact sums."""

from fractions import Fraction
from itertools import product
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, false_discovery_control, hypergeom

from conspec.analysis.differences import (
    Correction,
    Differences,
    benjamini_hochberg,
    differences,
    differences_of,
    fisher,
    newcombe,
)
from conspec.analysis.heatmap_specs import mined, significant_cells
from conspec.analysis.heatmaps import (
    Floats,
    Integers,
    Kind,
    Maps,
    Source,
    binarized,
    by_strength,
    grouped,
    maps_of,
    scores_of,
    strengths,
    summary,
)
from conspec.cli.inputs import SHIPPED
from conspec.lens import Lens
from conspec.specs import parse
from conspec.specs.errors import BadUsage
from conspec.specs.formula import Implies, Predict, Stronger
from conspec.specs.ranking import pair_counts, ranks
from tests.bundles import write_tiny

CLASSES = ("truck", "bird", "sea lion")

scores_and_groups = st.integers(1, 5).flatmap(
    lambda width: st.lists(
        st.tuples(st.lists(st.integers(-2, 2), min_size=width, max_size=width), st.integers(-1, 3)),
        min_size=1,
        max_size=20,
    )
)


def arrays(rows: list[tuple[list[int], int]], dtype: str = "f8") -> tuple[Any, Integers]:
    return (
        np.array([scores for scores, _ in rows], dtype=dtype),
        np.array([group for _, group in rows], dtype=np.int64),
    )


def by_definition(scores: Any, groups: Any, number: int) -> list[list[list[int]]]:
    """The counts, written as the definition says it."""
    width = len(scores[0])
    return [
        [
            [
                sum(
                    bool(row[i] > row[j])
                    for row, group in zip(scores, groups, strict=True)
                    if group == g
                )
                for j in range(width)
            ]
            for i in range(width)
        ]
        for g in range(number)
    ]


@pytest.fixture(scope="module")
def emoji() -> Lens:
    return Lens.load(SHIPPED["emoji10"])


# Counting


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "u1"])
@given(rows=scores_and_groups)
def test_pair_counts_are_the_definition(dtype: str, rows: list[tuple[list[int], int]]) -> None:
    scores, groups = arrays(rows)
    scores = (scores + 2).astype(dtype)
    expected = by_definition(scores, groups, 4)
    assert pair_counts(scores, groups, 4).tolist() == expected
    assert pair_counts(ranks(scores), groups, 4).tolist() == expected


@given(rows=scores_and_groups)
def test_ranks_count_what_is_strictly_below(rows: list[tuple[list[int], int]]) -> None:
    scores, _ = arrays(rows)
    below = [[sum(other < own for other in row) for own in row] for row in scores]
    assert ranks(scores).tolist() == below


@pytest.mark.parametrize("device", ["cpu", "other"])
def test_torch_counts_and_ranks_like_numpy(device: str) -> None:
    import torch

    from conspec.specs import ranking

    random = np.random.default_rng(1)
    scores, groups = random.integers(0, 4, (300, 7)).astype("f4"), random.integers(-1, 3, 300)
    tensors = torch.from_numpy(scores), torch.from_numpy(groups)
    count = ranking._counts_on_device if device == "other" else pair_counts
    found = count(*tensors, 4)
    assert isinstance(found, torch.Tensor)
    assert np.array_equal(found.numpy(), pair_counts(scores, groups, 4))
    assert np.array_equal(ranks(tensors[0]).numpy(), ranks(scores))


@pytest.mark.parametrize("rows", [1, 2040, 16_319, 16_320, 16_321, 40_000])
def test_counts_do_not_overflow_at_the_edges_of_tiles(rows: int) -> None:
    scores = np.tile(np.array([[2.0, 1.0, 1.0]]), (rows, 1))
    found = pair_counts(scores, np.zeros(rows, dtype=np.int64))[0]
    assert found.tolist() == [[0, rows, rows], [0, 0, 0], [0, 0, 0]]


def test_many_concepts_have_wider_ranks() -> None:
    scores = np.arange(300.0)[None]
    assert ranks(scores).dtype == np.int16
    assert ranks(scores)[0].tolist() == list(range(300))


def test_infinities_are_ordered_and_nan_is_refused() -> None:
    scores, groups = np.array([[np.inf, -np.inf, 0.0]]), np.zeros(1, dtype=np.int64)
    assert pair_counts(scores, groups)[0].sum(1).tolist() == [2, 0, 1]
    scores[0, 0] = np.nan
    with pytest.raises(BadUsage, match="not a number"):
        pair_counts(scores, groups)
    with pytest.raises(BadUsage, match="not a number"):
        ranks(scores)


def test_shapes_and_groups_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadUsage, match="shapes"):
        pair_counts(np.zeros((3, 2)), np.zeros(2, dtype=np.int64))
    with pytest.raises(BadUsage, match="group 2, but there are only 2"):
        pair_counts(np.zeros((1, 2)), np.array([2]), 2)
    with pytest.raises(BadUsage, match=r"\[N, M\]"):
        ranks(np.zeros(3))


def test_no_rows_and_no_concepts_have_no_counts() -> None:
    nobody = np.zeros(0, dtype=np.int64)
    assert not pair_counts(np.zeros((0, 3)), nobody, 2).any()
    assert pair_counts(np.zeros((2, 0)), np.zeros(2, dtype=np.int64)).shape == (1, 0, 0)


# Which images


def test_kinds_are_their_definitions() -> None:
    label = np.array([0, 0, 0, 1, 1, 2, -1, -1])
    predicted = np.array([0, 1, 2, 1, 0, 2, 0, 2])
    wanted: dict[Kind, Any] = {
        Kind.GROUND_TRUTH: lambda y, f, c: y == c,
        Kind.OUTPUT: lambda y, f, c: f == c,
        Kind.CORRECT: lambda y, f, c: y == c and f == c,
        Kind.WRONG: lambda y, f, c: y == c and f != c,
        Kind.OUTPUT_WRONG: lambda y, f, c: f == c and y not in (c, -1),
    }
    for kind, belongs in wanted.items():
        groups, names = grouped(kind, label, predicted, CLASSES)
        assert names == list(CLASSES)
        for c in range(3):
            pairs = zip(label, predicted, strict=True)
            assert (groups == c).tolist() == [bool(belongs(y, f, c)) for y, f in pairs]


def test_confusions_are_named_by_both_classes() -> None:
    label, predicted = np.array([0, 0, 1, 2, -1, 0]), np.array([1, 2, 1, 0, 1, 1])
    groups, names = grouped(Kind.CONFUSION, label, predicted, CLASSES)
    assert names == ["truck as bird", "truck as sea lion", "sea lion as truck"]
    assert groups.tolist() == [0, 1, -1, 2, -1, 0]


@pytest.mark.parametrize("source", Source)
@pytest.mark.parametrize("kind", Kind)
def test_maps_of_a_bundle(emoji: Lens, kind: Kind, source: Source) -> None:
    data = emoji.embeddings
    maps = maps_of(emoji, kind, source, data.heldout)
    groups, _ = grouped(kind, data.label, data.predicted, emoji.classes)
    scores = scores_of(emoji, source)[data.heldout]
    above = scores[:, :, None] > scores[:, None, :]
    for place in range(len(maps.groups)):
        own = groups[data.heldout] == place
        assert np.array_equal(maps.counts[place], above[own].sum(0))
        assert maps.totals[place] == own.sum()


def test_scores_are_the_replayed_ones_and_the_cosines_order(emoji: Lens) -> None:
    data = emoji.embeddings
    found = scores_of(emoji, Source.MODEL)
    assert np.allclose(found, emoji.replay(data.z)[1], atol=1e-4)
    vlm = scores_of(emoji, Source.VLM)
    cosines = vlm / np.linalg.norm(data.vlm, axis=1, keepdims=True)
    assert np.array_equal(ranks(vlm[:50]), ranks(cosines[:50]))


# Summary maps


@given(rows=scores_and_groups, order=st.randoms(use_true_random=False))
def test_permutations_of_images_concepts_and_groups(
    rows: list[tuple[list[int], int]], order: Any
) -> None:
    scores, groups = arrays(rows)
    width = scores.shape[1]
    names = [f"c{i}" for i in range(width)]
    plain = summary(scores, groups, "abcd", names)
    images = np.array(order.sample(range(len(rows)), len(rows)))
    concepts = np.array(order.sample(range(width), width))
    other = np.array(order.sample(range(4), 4))
    moved = np.where(groups < 0, -1, other[groups])
    found = summary(
        scores[images][:, concepts], moved[images], "abcd", [names[i] for i in concepts]
    )
    assert np.array_equal(found.counts[other][:, np.argsort(concepts)][:, :, np.argsort(concepts)],
                          plain.counts)  # fmt: skip
    assert np.array_equal(found.totals[other], plain.totals)


@given(rows=scores_and_groups)
def test_opposite_scores_transpose_the_map(rows: list[tuple[list[int], int]]) -> None:
    scores, groups = arrays(rows)
    names = [str(i) for i in range(scores.shape[1])]
    there, back = (summary(s, groups, "abcd", names) for s in (scores, -scores))
    assert np.array_equal(there.counts, back.counts.transpose(0, 2, 1))


def some_maps(counts: Any, totals: Any) -> Maps:
    array = np.array(counts, dtype=np.int64)
    groups = tuple(f"g{i}" for i in range(len(array)))
    concepts = tuple(f"c{i}" for i in range(array.shape[1]))
    return Maps(groups, concepts, array, np.array(totals, dtype=np.int64))


def test_a_group_without_images_has_no_map() -> None:
    maps = some_maps([[[0, 1], [1, 0]], [[0, 0], [0, 0]]], [3, 0])
    assert maps.known.tolist() == [True, False]
    with pytest.raises(BadUsage, match="no map without images: g1"):
        _ = maps.shares
    with pytest.raises(BadUsage, match="no map without images"):
        binarized(maps)
    lower, upper = maps.intervals()
    assert (lower[1] == 0).all()
    assert (upper[1] == 1).all()
    assert maps.only_known().groups == ("g0",)
    assert maps.only_known().shares[0].tolist() == [[0, 1 / 3], [1 / 3, 0]]


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(BadUsage, match="more often than there are images"):
        some_maps([[[0, 2], [2, 0]]], [3])
    with pytest.raises(BadUsage, match="expected"):
        some_maps([[[0, 1], [1, 0]]], [3, 4])


@pytest.mark.parametrize(
    ("count", "band", "cell"),
    [
        (6, "0", 1), (5, "0", 0), (4, "0", 0), (6, "0.1", 1), (6, "0.11", -1), (5, "0.1", -1),
        (4, "0.1", 0), (10, "0.5", 1), (9, "0.5", -1), (0, "0.5", 0), (7, "0.2", 1), (8, "0.3", 1),
    ],
)  # fmt: skip
def test_binarized_cells(count: int, band: str, cell: int) -> None:
    maps = some_maps([[[0, count], [0, 0]]], [10])
    assert binarized(maps, Fraction(band))[0, 0, 1] == cell


def test_a_dead_band_out_of_range_is_refused() -> None:
    with pytest.raises(BadUsage, match="dead band"):
        binarized(some_maps([[[0]]], [1]), Fraction(3, 5))


def test_strength_is_the_chance_to_win() -> None:
    maps = summary(np.array([[3.0, 1, 2], [3, 2, 1]]), np.zeros(2, dtype=np.int64), "g", "abc")
    assert strengths(maps).tolist() == [[1.0, 0.25, 0.25]]
    assert by_strength(maps) == [0, 1, 2]


# Differences


def reference_p(a: int, n: int, b: int, m: int) -> float:
    law = hypergeom(n + m, a + b, n)
    return float(min(1.0, 2 * min(law.sf(a - 1), law.cdf(a))))


@given(st.lists(st.tuples(*[st.integers(0, 40)] * 4), min_size=1, max_size=10))
def test_fishers_test_is_twice_the_smaller_tail(cells: list[tuple[int, int, int, int]]) -> None:
    right = some_maps(
        [[[0, a], [0, 0]] for a, _, _, _ in cells], [a + c + 1 for a, _, c, _ in cells]
    )
    wrong = some_maps(
        [[[0, b], [0, 0]] for _, b, _, _ in cells], [b + d + 1 for _, b, _, d in cells]
    )
    found = fisher(right, wrong)
    for place, (a, b, c, d) in enumerate(cells):
        expected = reference_p(a, a + c + 1, b, b + d + 1)
        assert found[place, 0, 1] == pytest.approx(expected, rel=1e-9)
        assert found[place, 1, 1] == 1


def test_fishers_test_keeps_its_digits_far_out() -> None:
    a, n, b, m = 900, 1000, 90, 200
    ways = sum(comb(n, x) * comb(m, a + b - x) for x in range(a, min(n, a + b) + 1))
    expected = 2 * float(Fraction(ways, comb(n + m, a + b)))
    assert 0 < expected < 1e-30
    found = fisher(some_maps([[[0, a], [0, 0]]], [n]), some_maps([[[0, b], [0, 0]]], [m]))
    assert found[0, 0, 1] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(8, 3), (12, 12), (30, 5)])
def test_fishers_test_errs_no_more_often_than_it_says(n: int, m: int) -> None:
    """Exact: summed over all outcomes, on a grid of true shares."""
    counts = np.array(list(product(range(n + 1), range(m + 1))))
    right = some_maps([[[0, a], [0, 0]] for a, _ in counts], [n] * len(counts))
    wrong = some_maps([[[0, b], [0, 0]] for _, b in counts], [m] * len(counts))
    p_values = fisher(right, wrong)[:, 0, 1]
    for share in np.linspace(0.02, 0.98, 25):
        chance = binom.pmf(counts[:, 0], n, share) * binom.pmf(counts[:, 1], m, share)
        for level in (0.01, 0.05, 0.2):
            assert chance[p_values <= level].sum() <= level + 1e-12


def test_newcombes_interval_is_the_published_one() -> None:
    """Newcombe (1998), table II, method 10, cases (a) to (h)."""
    cases = [
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((6, 7), (2, 7), (0.0582, 0.8062)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((0, 10), (0, 20), (-0.1611, 0.2775)),
        ((0, 10), (0, 10), (-0.2775, 0.2775)),
        ((10, 10), (0, 20), (0.6791, 1.0)),
        ((10, 10), (0, 10), (0.6075, 1.0)),
    ]
    for (a, n), (b, m), expected in cases:
        ends = newcombe(some_maps([[[0, a], [0, 0]]], [n]), some_maps([[[0, b], [0, 0]]], [m]))
        assert [end[0, 0, 1] for end in ends] == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("n", "m"), [(40, 15), (20, 20), (100, 12)])
def test_newcombes_interval_covers(n: int, m: int) -> None:
    """Exact coverage: summed over all outcomes, on a grid of pairs of shares."""
    counts = np.array(list(product(range(n + 1), range(m + 1))))
    right = some_maps([[[0, a], [0, 0]] for a, _ in counts], [n] * len(counts))
    wrong = some_maps([[[0, b], [0, 0]] for _, b in counts], [m] * len(counts))
    lower, upper = (end[:, 0, 1] for end in newcombe(right, wrong))
    grid = np.linspace(0.05, 0.95, 13)
    covered = []
    for p, q in product(grid, grid):
        chance = binom.pmf(counts[:, 0], n, p) * binom.pmf(counts[:, 1], m, q)
        covered.append(chance[(lower <= p - q) & (p - q <= upper)].sum())
    assert np.mean(covered) >= 0.95
    assert np.min(covered) >= 0.91


def test_intervals_of_cells_cover_in_a_simulation() -> None:
    """10,000 draws of a cell with share 0.3; P(fewer than 9,300 cover) is below 1e-9."""
    random = np.random.default_rng(11)
    draws = random.binomial(50, 0.3, 10_000)
    maps = some_maps([[[0, c], [0, 0]] for c in draws], [50] * len(draws))
    lower, upper = maps.intervals(0.95)
    assert binom.cdf(9_299, 10_000, 0.95) < 1e-9
    assert ((lower[:, 0, 1] <= 0.3) & (upper[:, 0, 1] >= 0.3)).sum() >= 9_300


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_benjamini_hochberg_is_scipys(values: list[float]) -> None:
    expected = false_discovery_control(values, method="bh")
    assert benjamini_hochberg(np.array(values)) == pytest.approx(expected)


def planted(seed: int, images: int = 300) -> tuple[Floats, Integers, Integers]:
    """Concept 0 beats 1 in all correct and no wrong images of class 0, and nothing else differs."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(images, 5))
    label = random.integers(0, 3, images)
    predicted = np.where(random.random(images) < 0.3, (label + 1) % 3, label)
    above = np.where(label == 0, predicted == label, random.random(images) < 0.5)
    scores[:, 1] = scores[:, 0] + np.where(above, -1e-9, 1e-9)
    return scores, label, predicted


def halves(scores: Floats, label: Integers, predicted: Integers) -> tuple[Maps, Maps]:
    found = []
    for kind in (Kind.CORRECT, Kind.WRONG):
        groups, names = grouped(kind, label, predicted, CLASSES)
        found.append(summary(scores, groups, names, "abcde"))
    return found[0], found[1]


@pytest.mark.parametrize("correction", Correction)
def test_a_planted_difference_is_found_and_blamed(correction: Correction) -> None:
    found = differences(*halves(*planted(3)), correction)
    assert found.significant()[0, 0, 1]
    assert found.significant()[0, 1, 0]
    assert found.delta[0, 0, 1] == 1
    assert set(np.argsort(-found.blame()[0])[:2]) == {0, 1}
    if correction is Correction.HOLM:
        assert found.significant().sum() == 2


def test_corrected_p_values_are_holms_over_one_test_a_pair() -> None:
    right, wrong = halves(*planted(4))
    raw, found = fisher(right, wrong), differences(right, wrong).p_values
    above = np.triu(np.ones((5, 5), dtype=bool), 1)
    values = sorted(raw[:, above].ravel())
    worst = 0.0
    for place, value in enumerate(values):
        worst = min(1.0, max(worst, value * (len(values) - place)))
        assert found[raw == value] == pytest.approx(worst)
    assert np.array_equal(found, found.transpose(0, 2, 1))


def test_with_ties_both_directions_are_tests() -> None:
    right = some_maps([[[0, 30], [0, 0]]], [40])
    wrong = some_maps([[[0, 0], [0, 0]]], [40])
    found = differences(right, wrong)
    assert found.p_values[0, 0, 1] == pytest.approx(2 * fisher(right, wrong)[0, 0, 1])
    assert found.p_values[0, 1, 0] == 1


def test_chance_alone_is_rarely_significant() -> None:
    """1,000 classes with no difference, each a family: more than 97 errors at 5 % is < 1e-9."""
    random = np.random.default_rng(8)
    errors = 0
    for _ in range(1000):
        counts = [random.binomial(total, 0.6, 3) for total in (30, 20)]
        maps = [
            some_maps([[[0, a, b], [n - a, 0, c], [n - b, n - c, 0]]], [n])
            for (a, b, c), n in zip(counts, (30, 20), strict=True)
        ]
        errors += bool(differences(maps[0], maps[1]).significant(0.95).any())
    assert binom.sf(97, 1000, 0.05) < 1e-9
    assert errors <= 97


def test_classes_without_one_kind_of_image_are_named() -> None:
    label, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    scores = np.arange(20.0).reshape(4, 5)
    found = differences(*halves(scores, label, predicted))
    assert found.right.groups == ("truck",)
    assert found.missing == (
        ("bird", "no image is misclassified"),
        ("sea lion", "there are no images"),
    )
    assert np.isfinite(found.delta).all()
    found = differences(*halves(scores, label, (label + 1) % 3))
    assert ("truck", "no image is classified correctly") in found.missing
    assert found.p_values.shape == (0, 5, 5)


def test_maps_of_other_groups_are_not_compared() -> None:
    one = some_maps([[[0]]], [1])
    with pytest.raises(BadUsage, match="other groups or concepts"):
        differences(one, Maps(("other",), one.concepts, one.counts, one.totals))


def test_emoji_mammals_lose_fur_and_ears(emoji: Lens) -> None:
    data = emoji.embeddings
    found = differences_of(emoji, Source.MODEL, data.heldout)
    assert dict(found.missing) == {"boat": "no image is misclassified"}
    place = found.right.groups.index("mammal")
    fur, wings = emoji.concepts.index("fur"), emoji.concepts.index("wings")
    own = data.heldout & (data.label == emoji.classes.index("mammal"))
    scores = emoji.replay(data.z)[1]
    above = scores[:, fur] > scores[:, wings]
    right = own & (data.predicted == data.label)
    expected = above[right].mean() - above[own & ~right].mean()
    assert found.delta[place, fur, wings] == pytest.approx(expected)


# Specs


def found_in(lens: Lens) -> Differences:
    return differences_of(lens, Source.MODEL, lens.embeddings.heldout)


def test_mined_specs_say_what_the_cells_say(emoji: Lens) -> None:
    cells = significant_cells(found_in(emoji), 0.2)
    made = mined(cells, "0.3")
    assert len(made.suite.specs) == len(made.cells) > 0
    for cell, spec in zip(made.cells, made.suite.specs, strict=True):
        assert spec.body == Implies(Predict(cell.label), Stronger(cell.stronger, cell.weaker))
        assert cell.delta == pytest.approx(
            cell.right[0] / cell.right[1] - cell.wrong[0] / cell.wrong[1]
        )
        assert cell.interval[0] < cell.delta < cell.interval[1]
        assert cell.p_value <= 0.05
        assert 2 * cell.right[0] > cell.right[1]
    text = made.text(["two\nlines"])
    assert parse(text, classes=emoji.classes, concepts=emoji.concepts) == made.suite
    assert text.startswith("# two lines\n")
    assert text.count("Δ = ") == len(made.cells)


def test_limits_of_mined_specs(emoji: Lens) -> None:
    found = found_in(emoji)
    cells = significant_cells(found)
    assert len(mined(cells, "1", limit=2).cells) == 2
    assert mined(cells, "1", limit=2).cells == mined(cells, "1").cells[:2]
    bar = cells[1].delta
    assert all(cell.delta >= bar for cell in significant_cells(found, bar))
    with pytest.raises(BadUsage, match="no cell is significant"):
        mined(significant_cells(found, 0.99), "1")


def test_an_order_that_fails_in_most_correct_images_is_no_spec() -> None:
    right = some_maps([[[0, 40], [60, 0]]], [100])
    wrong = some_maps([[[0, 0], [100, 0]]], [100])
    cells = significant_cells(differences(right, wrong))
    assert [(cell.stronger, cell.weaker) for cell in cells] == [("c0", "c1")]
    with pytest.raises(BadUsage, match="no cell is significant"):
        mined(cells, "1")


def test_names_that_become_one_word_stay_apart() -> None:
    right, wrong = halves(*planted(3))
    names = ("a b", "c", "a-b", "A b", "e")
    renamed = [Maps(m.groups, names, m.counts, m.totals) for m in (right, wrong)]
    (cell,) = significant_cells(differences(renamed[0], renamed[1]))
    twin = type(cell)(cell.label, "a-b", *(getattr(cell, n) for n in cell.__slots__[2:]))
    specs = mined([cell, twin], "1").suite.specs
    assert [spec.name for spec in specs] == ["truck_a_b_over_c", "truck_a_b_over_c_2"]


def test_the_tiny_bundle_has_no_wrong_images(tmp_path: Path) -> None:
    found = found_in(write_tiny(tmp_path / "tiny"))
    assert [why for _, why in found.missing] == ["no image is misclassified"] * 3
    assert significant_cells(found) == []
