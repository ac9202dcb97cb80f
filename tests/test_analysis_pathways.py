"""Pathways and thresholds against a literal transcription of their definition."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from conspec.analysis import pathways as module
from conspec.analysis.pathways import LastLayer, last_layer, pathways
from conspec.analysis.predicates import (
    Explained,
    Fitting,
    Predicate,
    Vocabulary,
    explain,
    fit,
    written_bound,
)
from conspec.encodings.query import space_of
from conspec.lens import Lens
from conspec.specs.errors import BadUsage
from conspec.specs.semantics import Scores, holds
from tests.bundles import write_skewed, write_tiny

Case = tuple[LastLayer, Any, Any, Any]
FEW = st.sampled_from([-2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0])  # ties and zeros abound
MANY = st.floats(-4, 4, width=32)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A last layer, features [N, d], predictions that need not be the largest, true classes."""
    classes, width = draw(st.integers(1, 4)), draw(st.integers(1, 22))
    count = draw(st.integers(0, 5))
    values = draw(st.sampled_from([FEW, MANY]))
    kind = draw(st.sampled_from([np.float32, np.float64]))

    def array(*shape: int, dtype: Any = np.float64) -> Any:
        return draw(arrays.arrays(dtype, shape, elements=values, fill=values))

    layer = LastLayer(array(classes, width), array(classes))
    z = array(count, width, dtype=kind)
    if count > 1 and draw(st.booleans()):
        z[1] = z[0]
    labels = arrays.arrays(np.int64, count, elements=st.integers(0, classes - 1))
    predicted = layer.predicted(z) if draw(st.booleans()) else draw(labels)
    return layer, z, predicted, draw(labels)


def literal(layer: LastLayer, z: Any, c: int, ahead: int = 0) -> tuple[list[int], bool]:
    """The pathway of one image with features [d], step by step as it is defined."""
    order = np.argsort(layer.weight[c] * z, kind="stable")[::-1]
    partial, taken = layer.bias.copy(), []
    left = None
    for j in order:
        partial = partial + layer.weight[:, j] * np.float64(z[j])
        taken.append(int(j))
        if left is None and int(np.argmax(partial)) == c:
            left = ahead
        elif left is not None:
            left -= 1
        if left == 0:
            break
    return taken, left is not None


@given(cases(), st.integers(0, 3))
@settings(deadline=None, max_examples=200)
def test_pathways_are_those_of_the_definition(case: Case, ahead: int) -> None:
    layer, z, predicted, _ = case
    found = pathways(layer, z, predicted, ahead)
    for row in range(len(z)):
        wanted, reached = literal(layer, z[row], int(predicted[row]), ahead)
        assert found.of(row).tolist() == wanted
        assert found.recovered[row] == reached
    signs = z[found.rows, found.features] >= 0
    np.testing.assert_array_equal(found.positive, signs)
    np.testing.assert_array_equal(found.signed, found.features + layer.width * ~signs)
    assert found.lengths.sum() == len(found.features)


def test_rows_do_not_depend_on_their_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    layer = LastLayer(random.normal(size=(7, 40)), random.normal(size=7))
    z = random.normal(size=(30, 40)).astype(np.float32)
    predicted = random.integers(0, 7, 30)  # not the largest: long pathways
    whole = pathways(layer, z, predicted)
    assert whole.lengths.max() > 20
    monkeypatch.setattr(module, "_ROWS", 7)
    parts = pathways(layer, z, predicted)
    np.testing.assert_array_equal(whole.features, parts.features)
    monkeypatch.setattr(module, "_ONE_BY_ONE", 1)
    np.testing.assert_array_equal(pathways(layer, z, predicted).features, whole.features)
    for row in range(30):
        assert whole.of(row).tolist() == literal(layer, z[row], int(predicted[row]))[0]


def test_many_ties_among_many_features() -> None:
    random = np.random.default_rng(4)
    layer = LastLayer(random.integers(-1, 2, (5, 300)).astype(float), random.normal(size=5))
    z = random.integers(-1, 3, (20, 300)).astype(np.float32)
    predicted = random.integers(0, 5, 20)
    found = pathways(layer, z, predicted, ahead=250)
    for row in range(20):
        wanted, reached = literal(layer, z[row], int(predicted[row]), 250)
        assert found.of(row).tolist() == wanted
        assert found.recovered[row] == reached


def test_ties_of_features_take_the_higher_number_and_ties_of_classes_the_first() -> None:
    layer = LastLayer(np.array([[1.0, 1, 1], [1, 1, 1]]), np.zeros(2))
    z = np.ones((1, 3), np.float32)
    assert pathways(layer, z, np.array([0])).of(0).tolist() == [2]
    second = pathways(layer, z, np.array([1]))
    assert second.of(0).tolist() == [2, 1, 0]
    assert not second.recovered[0]


def test_a_negative_feature_with_a_negative_weight_is_selected_with_its_sign() -> None:
    layer = LastLayer(np.array([[-2.0, 1.0], [0.0, 0.0]]), np.zeros(2))
    z = np.array([[-3.0, 1.0]])
    found = pathways(layer, z)
    assert found.predicted.tolist() == [0]
    assert found.signed.tolist() == [2]
    words = fit(layer, z, found.predicted, found.predicted)
    assert list(words) == [Predicate(0, 0, -1, -3.0, 1)]
    assert words.active(np.array([[-3.0, 0.0], [-2.9, 0.0]])).tolist() == [[True], [False]]


@given(st.data(), st.sampled_from([1e-30, 1e-3, 1.0, 1e3, 1e30]))
@settings(deadline=None, max_examples=100)
def test_predictions_are_those_of_float64(data: st.DataObject, scale: float) -> None:
    values = data.draw(st.sampled_from([FEW, MANY]))
    layer = LastLayer(
        data.draw(arrays.arrays(np.float64, (3, 4), elements=values)),
        data.draw(arrays.arrays(np.float64, 3, elements=values)),
    )
    z = data.draw(arrays.arrays(np.float64, (5, 4), elements=values)) * scale
    logits = [[_exact(layer, k, row) for k in range(3)] for row in z]
    found = layer.predicted(z)
    for row, exact in enumerate(logits):
        size = float(np.abs(layer.weight @ z[row]).max() + np.abs(layer.bias).max())
        assert float(max(exact) - exact[found[row]]) <= 1e-13 * max(size, scale)


def _exact(layer: LastLayer, k: int, z: Any) -> Fraction:
    pairs = zip(layer.weight[k], z, strict=True)
    return sum((Fraction(w) * Fraction(x) for w, x in pairs), Fraction(layer.bias[k]))


def test_predictions_that_float32_would_get_wrong() -> None:
    close = 1 + 2.0**-40
    layer = LastLayer(np.array([[1.0], [close], [0.0]]), np.zeros(3))
    assert layer.predicted(np.ones((3, 1), np.float32)).tolist() == [1, 1, 1]
    assert LastLayer(np.array([[1e300], [2e300]]), np.zeros(2)).predicted(
        np.ones((1, 1))
    ).tolist() == [1]
    assert LastLayer(np.ones((1, 2)), np.zeros(1)).predicted(np.ones((2, 2))).tolist() == [0, 0]


@given(cases(), st.integers(0, 2))
@settings(deadline=None, max_examples=120)
def test_thresholds_are_the_extrema_over_source_images(case: Case, ahead: int) -> None:
    layer, z, predicted, label = case
    wanted: dict[tuple[int, int, int], list[float]] = {}
    for row in np.flatnonzero(predicted == label):
        c = int(predicted[row])
        for j in literal(layer, z[row], c, ahead)[0]:
            sign = 1 if z[row, j] >= 0 else -1
            wanted.setdefault((c, j, sign), []).append(float(z[row, j]))
    fitting = Fitting(layer, ahead)
    found = fitting.add(z, predicted, label)
    words = fitting.vocabulary()
    assert {(p.label, p.feature, p.sign): (p.threshold, p.support) for p in words} == {
        key: (min(values) if key[2] > 0 else max(values), len(values))
        for key, values in wanted.items()
    }
    assert (
        words.sources.tolist()
        == np.bincount(label[predicted == label], minlength=layer.classes).tolist()
    )
    assert (np.diff(words.keys) > 0).all()
    # Every source selection satisfies its threshold.
    explained = explain(words, found)
    assert explained.eligible.all()
    assert explained.active.all()
    np.testing.assert_array_equal(explained.counts, found.lengths)


@given(cases(), st.fractions(0, Fraction(19, 20), max_denominator=20), st.integers(1, 3))
@settings(deadline=None, max_examples=100)
def test_quantile_thresholds_keep_their_share(case: Case, share: Fraction, least: int) -> None:
    layer, z, predicted, label = case
    tight = fit(layer, z, predicted, label, share, least)
    loose = fit(layer, z, predicted, label)
    right = predicted == label
    found = pathways(layer, z[right], predicted[right])
    cells = {(p.label, p.feature, p.sign): p for p in loose if p.support >= least}
    assert cells.keys() == {(p.label, p.feature, p.sign) for p in tight}
    for predicate in tight:
        own = (found.predicted[found.rows] == predicate.label) & (
            found.signed == predicate.feature + layer.width * (predicate.sign < 0)
        )
        values = np.sort(predicate.sign * found.values[own])
        assert predicate.sign * predicate.threshold == values[int(share * len(values))]
        kept = (values >= predicate.sign * predicate.threshold).sum()
        assert kept >= (1 - share) * len(values)
        wide = cells[predicate.label, predicate.feature, predicate.sign]
        assert predicate.sign * predicate.threshold >= wide.sign * wide.threshold


@given(cases())
@settings(deadline=None, max_examples=50)
def test_a_vocabulary_does_not_depend_on_batches(case: Case) -> None:
    layer, z, predicted, label = case
    parts = Fitting(layer)
    for row in range(len(z)):
        parts.add(z[row : row + 1], predicted[row : row + 1], label[row : row + 1])
    for share in (Fraction(0), Fraction(1, 3)):
        assert list(parts.vocabulary(share)) == list(fit(layer, z, predicted, label, share))


@given(cases())
@settings(deadline=None, max_examples=100)
def test_an_image_is_explained_by_what_is_selected_known_and_active(case: Case) -> None:
    layer, z, predicted, label = case
    half = len(z) // 2
    words = fit(layer, z[:half], predicted[:half], label[:half], Fraction(1, 4))
    found = explain(words, pathways(layer, z, predicted))
    active = words.active(z)
    for place, predicate in enumerate(words):
        np.testing.assert_array_equal(active[:, place], predicate.holds(z))
    for row in range(len(z)):
        selected = [(j, 1 if z[row, j] >= 0 else -1) for j in found.pathways.of(row).tolist()]
        wanted = [
            place
            for j, sign in selected
            for place, p in enumerate(words)
            if (p.label, p.feature, p.sign) == (predicted[row], j, sign) and active[row, place]
        ]
        assert found.of(row).tolist() == wanted
        assert found.counts[row] == len(wanted)
    known = {(p.label, p.feature, p.sign) for p in words}
    signs = np.where(found.pathways.positive, 1, -1)
    triples = zip(predicted[found.pathways.rows], found.pathways.features, signs, strict=True)
    assert found.eligible.tolist() == [(int(c), int(j), int(s)) in known for c, j, s in triples]


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from([1, -1]))
@example(float(np.finfo(np.float32).max), 1)
@example(-float(np.finfo(np.float32).max), -1)
@example(float(np.finfo(np.float32).smallest_subnormal), 1)
@example(-0.0, 1)
@settings(deadline=None)
def test_a_written_bound_is_the_threshold_for_every_float32(value: float, sign: int) -> None:
    bound = written_bound(value, sign)
    with np.errstate(over="ignore"):
        beyond = float(np.nextafter(np.float32(value), np.float32(-sign * np.inf)))
    assert sign * bound <= sign * Fraction(value)
    assert np.isinf(beyond) or sign * bound > sign * Fraction(beyond)
    assert len(str(bound.numerator).strip("-0")) <= 60


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([1, -1]))
@settings(deadline=None)
def test_a_written_bound_is_the_threshold_for_every_float64(value: float, sign: int) -> None:
    bound = written_bound(value, sign)
    assert sign * bound <= sign * Fraction(value)
    with np.errstate(over="ignore"):
        single = np.float32(value)
    kind = np.float32 if float(single) == value else np.float64
    with np.errstate(over="ignore"):
        beyond = np.nextafter(kind(value), kind(-sign * np.inf))
    assert np.isinf(beyond) or sign * bound > sign * Fraction(float(beyond))


@given(st.floats(-10, 10, width=32), st.floats(-10, 10, width=32), st.sampled_from([1, -1]))
@example(float(np.float32(0.1)), float(np.float32(0.1)), 1)
@example(float(np.float32(0.1)), float(np.float32(0.1)), -1)
@settings(deadline=None)
def test_the_formula_means_the_predicate(threshold: float, value: float, sign: int) -> None:
    predicate = Predicate(0, 1, sign, threshold, 1)
    z = np.array([[0, value]], np.float32)
    exact = holds(predicate.formula, Scores({}, {}, embedding=[0.0, value]))
    assert exact == bool(predicate.holds(z)[0])


def test_the_last_layer_of_a_bundle(tmp_path: Path) -> None:
    tiny = write_tiny(tmp_path / "tiny")
    layer, z = last_layer(tiny)
    np.testing.assert_array_equal(layer.weight, np.eye(3, 4))
    np.testing.assert_array_equal(z, tiny.embeddings.z)
    hidden = write_skewed(tmp_path / "hidden", hidden=True)
    layer, z = last_layer(hidden)
    assert (layer.width, z.shape) == (5, (90, 5))
    assert z.dtype == np.float32
    logits = space_of(hidden).head.floats(hidden.embeddings.z.astype(np.float64))
    np.testing.assert_allclose(z @ layer.weight.T + layer.bias, logits, atol=1e-4)


def _layer() -> LastLayer:
    return LastLayer(np.eye(2, 3), np.zeros(2))


@pytest.mark.parametrize(
    ("weight", "bias", "said"),
    [
        (np.eye(2), np.zeros(3), "a last layer has weights"),
        (np.zeros((2, 0)), np.zeros(2), "a last layer has weights"),
        (np.array([[np.nan]]), np.zeros(1), "a NaN or an infinity among its weights"),
    ],
)
def test_what_is_no_last_layer_is_refused(weight: Any, bias: Any, said: str) -> None:
    with pytest.raises(BadUsage, match=said):
        LastLayer(weight, bias)


@pytest.mark.parametrize(
    ("z", "predicted", "said"),
    [
        (np.ones((2, 4)), [0, 0], r"features are float32 or float64 \[N, 3\], got float64"),
        (np.ones((2, 3), int), [0, 0], "got int64"),
        (np.ones((2, 3)), [0], "2 images need as many predictions"),
        (np.ones((2, 3)), [0, 2], "from 0 to 1"),
        (np.ones((2, 3)), [-1, 0], "from 0 to 1"),
        (np.full((1, 3), np.inf), [0], "a NaN or an infinity among the features"),
        (np.array([[0, np.nan, 0]]), [0], "a NaN or an infinity among the features"),
        (np.full((1, 3), -1e308), [0], "so large that logits would overflow"),
    ],
)
def test_bad_features_are_refused(z: Any, predicted: list[int], said: str) -> None:
    with pytest.raises(BadUsage, match=said):
        pathways(_layer(), z, np.array(predicted))


def test_bad_quantiles_and_other_layers_are_refused() -> None:
    with pytest.raises(BadUsage, match=r"must lie in \[0, 1\)"):
        Fitting(_layer()).vocabulary(Fraction(1))
    words: Vocabulary = Fitting(LastLayer(np.eye(2), np.zeros(2))).vocabulary()
    with pytest.raises(BadUsage, match="about 2 features, the images have 3"):
        explain(words, pathways(_layer(), np.ones((1, 3))))


def test_nothing_comes_of_nothing() -> None:
    words = Fitting(_layer()).vocabulary(Fraction(1, 2))
    assert len(words) == 0
    assert words.sizes.tolist() == [0, 0]
    none: Explained = explain(words, pathways(_layer(), np.ones((2, 3))))
    assert none.counts.tolist() == [0, 0]
    assert not none.eligible.any()
    assert len(pathways(_layer(), np.ones((0, 3))).features) == 0


def test_bundles_recover_their_predictions(tmp_path: Path) -> None:
    lens: Lens = write_tiny(tmp_path / "lens")
    layer, z = last_layer(lens)
    found = pathways(layer, z, lens.embeddings.predicted)
    assert found.recovered.all()
    assert found.lengths.tolist() == [1] * lens.count  # logits are single features
