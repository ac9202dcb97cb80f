"""Captions, the affine alignment, and the thresholds of `has`."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conspec.lens.alignment import (
    GRID,
    Alignment,
    cosines,
    fit,
    moments,
    quality,
    report,
    solve,
    squared_error,
    zero_shot_accuracy,
)
from conspec.lens.calibrate import calibrate
from conspec.lens.captions import captions, directions, pool
from conspec.lens.tables import Embeddings
from conspec.lens.thresholds import between_groups, short_decimal, youden
from conspec.specs.errors import BadFile, BadUsage


def pairs(count: int, n: int = 7, p: int = 4) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(count)
    z = random.normal(loc=3, size=(count, n)).astype(np.float32)
    g = z @ random.normal(size=(n, p)) + 2 + 0.3 * random.normal(size=(count, p))
    return z, g.astype(np.float32)


def test_there_are_69_distinct_captions_about_the_concept() -> None:
    found = captions("floppy-ears")
    assert len(set(found)) == 69
    assert all("floppy-ears" in text for text in found)
    assert not any(re.search(r"[{}]|  |^ | $", text) for text in found)
    assert "a photo containing the floppy-ears object" in found
    assert captions("{0}")[0] == "a bad photo of a {0}"  # names are not formats


def test_pooling_is_a_unit_vector_and_the_order_of_normalising_matters() -> None:
    texts = np.array([[10, 0], [0, 1]], dtype=np.float32)
    raw, normalised = pool(texts), pool(texts, normalize_before_mean=True)
    np.testing.assert_allclose(raw, np.array([10, 1]) / np.hypot(10, 1), rtol=1e-6)
    np.testing.assert_allclose(normalised, [np.sqrt(0.5)] * 2, rtol=1e-6)


def test_a_text_without_direction_is_refused() -> None:
    for texts in (np.zeros((2, 3)), np.array([[1, 0], [-1, 0]]), np.full((1, 2), np.nan)):
        with pytest.raises(BadFile, match="no direction"):
            pool(texts.astype(np.float32))


def test_each_concept_gets_its_direction() -> None:
    def encode(texts: list[str]) -> np.ndarray:
        return np.array([[1.0, "fur" in t] for t in texts], dtype=np.float32)

    found = directions(("fur", "wheel"), encode)
    np.testing.assert_allclose(found, [[np.sqrt(0.5)] * 2, [1, 0]], rtol=1e-6)


@pytest.mark.parametrize("count", [30, 5000])
def test_without_a_ridge_it_is_least_squares(count: int) -> None:
    z, g = pairs(count)
    found = fit(z, g, ridge=0.0)
    ones = np.hstack([z, np.ones((count, 1))]).astype(np.float64)
    expected = np.linalg.lstsq(ones, g.astype(np.float64), rcond=None)[0]
    np.testing.assert_allclose(found.weight, expected[:-1].T, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.bias, expected[-1], rtol=1e-7, atol=1e-9)


def test_with_a_ridge_it_is_least_squares_with_more_rows() -> None:
    z, g = pairs(40)
    ridge = 0.3
    found = fit(z, g, ridge=ridge)
    a, b = (x.astype(np.float64) - x.astype(np.float64).mean(0) for x in (z, g))
    penalty = np.sqrt(ridge * (a**2).sum() / a.shape[1]) * np.eye(a.shape[1])
    rows, targets = np.vstack([a, penalty]), np.vstack([b, np.zeros((7, 4))])
    expected = np.linalg.lstsq(rows, targets, rcond=None)[0].T
    np.testing.assert_allclose(found.weight, expected, rtol=1e-9)


def test_moments_of_parts_add_up() -> None:
    z, g = pairs(50)
    whole, parts = moments(z, g), moments(z[:13], g[:13]) + moments(z[13:], g[13:])
    for name, value in vars(whole).items():
        np.testing.assert_allclose(getattr(parts, name), value, rtol=1e-9, atol=1e-9)


def test_squared_error_from_moments_is_the_squared_error() -> None:
    z, g = pairs(60)
    found = solve(moments(z[:20], g[:20]), 0.1)
    expected = ((found(z) - g) ** 2).sum()
    assert squared_error(found, moments(z, g)) == pytest.approx(expected, rel=1e-9)


def test_the_ridge_is_chosen_from_the_grid_the_same_way_each_time() -> None:
    random = np.random.default_rng(1)
    z = random.normal(size=(30, 25)).astype(np.float32)
    noise = random.normal(size=(30, 3)).astype(np.float32)
    assert fit(z, noise).ridge == GRID[-1]  # nothing to learn: the strongest
    exact, _ = pairs(200)
    assert fit(exact, exact).ridge == GRID[0]  # the weakest
    np.testing.assert_array_equal(fit(z, noise).weight, fit(z, noise).weight)


def test_degenerate_embeddings_have_an_alignment() -> None:
    same = np.ones((20, 3), dtype=np.float32)
    target = np.arange(40, dtype=np.float32).reshape(20, 2)
    found = fit(same, target)
    np.testing.assert_allclose(found(same), np.tile(target.mean(0), (20, 1)))
    doubled = np.repeat(pairs(20)[0], 2, axis=1)  # every column twice
    assert np.isfinite(fit(doubled, target, ridge=0.0).weight).all()
    with pytest.raises(BadUsage, match="at least one"):
        fit(same[:0], target[:0])
    with pytest.raises(BadUsage, match="ridge"):
        fit(same, target, ridge=-1.0)


def test_quality_of_a_perfect_and_of_a_useless_map() -> None:
    z, g = pairs(50)
    perfect = quality(fit(z, z, ridge=0.0), z, z)
    assert perfect["r2"] == pytest.approx(1)
    assert perfect["cosine"] == pytest.approx(1)
    mean = Alignment(np.zeros((4, 7)), g.astype(np.float64).mean(0), 0.0)
    useless = quality(mean, z, g)
    assert useless["r2"] == pytest.approx(0, abs=1e-12)
    assert useless["mse"] == pytest.approx(g.astype(np.float64).var(axis=0).mean())


def test_cosines_are_in_range_and_zero_for_zero() -> None:
    np.testing.assert_allclose(cosines(np.array([[3.0, 0], [0, 0]]), np.array([1.0, 1])),
                               [np.sqrt(0.5), 0])  # fmt: skip


def make_embeddings() -> Embeddings:
    """Class 0 along the first axis, class 1 along the second; concept 0 is shown by class 0."""
    z = np.array([[1, 0.01 * i] if i % 2 == 0 else [0.01 * i, 2] for i in range(10)])
    label = np.arange(10) % 2
    shown = np.stack([label == 0, np.full(10, -1)], axis=1).astype(np.int8)
    return Embeddings(
        z=z.astype(np.float32),
        label=label,
        predicted=label,
        heldout=np.arange(10) >= 6,
        vlm=z.astype(np.float32),
        directions=np.eye(2, dtype=np.float32),
        class_directions=np.eye(2, dtype=np.float32),
        attributes=shown,
    )


def test_the_report_names_every_number() -> None:
    e = make_embeddings()
    found = report(Alignment(np.eye(2), np.zeros(2), 0.0), e)
    assert found["heldout_mse"] == found["train_mse"] == 0
    assert found["model_accuracy"] == found["vlm_accuracy"] == found["mapped_accuracy"] == 1
    assert zero_shot_accuracy(e.vlm, e.class_directions[::-1], e.label) == 0


def test_calibration_uses_labels_then_relevance_then_nothing() -> None:
    e = make_embeddings()
    identity = Alignment(np.eye(2), np.zeros(2), 0.0)
    concepts = ("first", "second")
    table = {"second": frozenset({"b"})}
    found = calibrate(identity, e, concepts, (("a", "b"), table))
    first, second = found.thresholds["first"], found.thresholds["second"]
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(cosines(e.z, e.directions[0]) > float(first), e.label == 0)
    np.testing.assert_array_equal(cosines(e.z, e.directions[1]) > float(second), e.label == 1)
    assert found.balanced == {"first": 1.0}
    assert "training images" in found.how["first"]
    assert "relevant" in found.how["second"]
    without = calibrate(identity, e, concepts, (("a", "b"), {}))
    assert without.thresholds["second"] is None
    assert "never" in without.how["second"]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=12),
)
def test_youden_is_the_best_of_all_thresholds(rows: list[tuple[int, bool]]) -> None:
    cosine = np.array([value / 8 for value, _ in rows])
    present = np.array([shown for _, shown in rows])

    def gain(threshold: float) -> float:
        above = cosine > threshold
        return float(above[present].mean() - above[~present].mean())

    found = youden(cosine, present)
    if present.all() or not present.any():
        assert found is None
    elif found is None:
        assert max(gain(value) for value in cosine) <= 1e-12
    else:
        assert gain(float(found)) == pytest.approx(max(gain(value) for value in cosine))


def test_thresholds_are_short_decimals() -> None:
    assert short_decimal(0.1, 0.2) == "0.15"
    assert short_decimal(-0.04, 0.03) == "0.0"
    assert short_decimal(0.12345671, 0.12345672) == "0.123457"
    cosine = np.array([0.0, 0.2, 0.5, 0.7])
    assert between_groups(cosine, np.array([False, False, True, True])) == "0.350000"
    assert between_groups(cosine, np.array([True, True, False, False])) is None
    assert between_groups(cosine, np.ones(4, dtype=bool)) is None
