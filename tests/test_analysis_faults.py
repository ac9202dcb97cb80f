"""Fault localization: oracles, guards, planted faults with known answers, and p-values."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conspec.analysis.differences import differences
from conspec.analysis.faults import (
    ALL,
    NONE,
    Guards,
    Reason,
    Verdict,
    _deviations,
    causes,
    class_differences,
    localize,
    misclassified,
    pulled,
    responsible,
)
from conspec.analysis.heatmaps import Floats, summary
from conspec.analysis.oracles import (
    Gap,
    Images,
    Oracle,
    Reference,
    answers,
    reference_of,
    stored,
    vlm_answers,
)
from conspec.cli.inputs import SHIPPED
from conspec.encodings.query import space_of
from conspec.lens import Lens
from conspec.lens.alignment import Alignment
from conspec.specs.errors import BadUsage
from conspec.verifier.probability.intervals import clopper_pearson
from tests.bundles import write_random, write_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Lens:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "lens")


@pytest.fixture(scope="module")
def reference(tiny: Lens) -> Reference:
    return reference_of(tiny)


def heldout(lens: Lens) -> Images:
    return stored(lens).chosen(lens.embeddings.heldout)


def rotated(images: Images) -> Images:
    """The same images under a head that gives every class the next one's name."""
    return replace(images, predicted=(images.label + 1) % 3)


def swapped(images: Images) -> Images:
    """Embeddings of the next class under a sound head; the VLM sees the right picture."""
    other = np.concatenate([np.flatnonzero(images.label == (k + 1) % 3) for k in range(3)])
    return replace(images, z=images.z[other], predicted=images.label[other])


# --- oracles ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_zero_shot_is_the_largest_cosine(tmp_path: Path, seed: int) -> None:
    lens = write_random(tmp_path / "lens", seed, signed=True)
    found, images = reference_of(lens), stored(lens)
    q = lens.embeddings.class_directions.astype(float)
    for vectors, read in ((lens.mapped(images.z), answers), (images.vlm, vlm_answers)):
        cosine = [
            [v @ c / (np.linalg.norm(v) * np.linalg.norm(c)) for c in q]
            for v in vectors.astype(float)
        ]
        expected = np.argmax(cosine, axis=1)
        assert (read(found, Oracle.ZERO_SHOT, images) == expected).all()


@pytest.mark.parametrize("seed", range(3))
def test_heatmap_oracle_is_the_largest_cosine_of_centred_maps(tmp_path: Path, seed: int) -> None:
    lens = write_random(tmp_path / "lens", seed, signed=False)
    found, data = reference_of(lens), lens.embeddings
    off = ~np.eye(len(lens.concepts), dtype=bool)
    fit = (data.label == data.predicted) & ~data.heldout
    for vectors, read in ((lens.mapped(data.z), answers), (data.vlm, vlm_answers)):
        scores = vectors.astype(float) @ data.directions.T
        above = (scores[:, :, None] > scores[:, None, :]).astype(float)
        maps = [above[fit & (data.label == k)].mean(axis=0)[off] - 0.5 for k in range(3)]
        own = [each[off] - 0.5 for each in above]
        value = [[a @ g / np.linalg.norm(a) / np.linalg.norm(g) for g in maps] for a in own]
        chosen = read(found, Oracle.HEATMAP, stored(lens))[:, None]
        best = np.take_along_axis(np.array(value), chosen, 1)[:, 0]
        np.testing.assert_allclose(best, np.max(value, axis=1), atol=1e-9)


def test_reference_counts_what_the_oracles_know(tiny: Lens, reference: Reference) -> None:
    right = heldout(tiny)
    for oracle in Oracle:
        known = int((answers(reference, oracle, right) == right.label).sum())
        assert reference.right[oracle] == known
        assert reference.reliable(oracle)
    assert not replace(reference, right=dict.fromkeys(Oracle, 25)).reliable(Oracle.ZERO_SHOT)
    assert reference.calibrated == 30


# --- planted faults --------------------------------------------------------------------------


@pytest.mark.parametrize("oracle", Oracle)
@pytest.mark.parametrize("guards", [NONE, ALL])
def test_a_rotated_head_is_at_fault(
    tiny: Lens, reference: Reference, oracle: Oracle, guards: Guards
) -> None:
    verdicts = localize(reference, rotated(heldout(tiny)), oracle, guards).verdicts
    assert verdicts.count(Verdict.HEAD) >= 27
    assert Verdict.ENCODER not in verdicts


@pytest.mark.parametrize("oracle", Oracle)
@pytest.mark.parametrize("guards", [NONE, ALL])
def test_an_encoder_that_takes_pictures_for_others_is_at_fault(
    tiny: Lens, reference: Reference, oracle: Oracle, guards: Guards
) -> None:
    verdicts = localize(reference, swapped(heldout(tiny)), oracle, guards).verdicts
    assert verdicts.count(Verdict.ENCODER) >= 27
    assert Verdict.HEAD not in verdicts


def test_the_residual_blames_the_map_for_what_the_encoder_did(
    tiny: Lens, reference: Reference
) -> None:
    guards = replace(ALL, gap=Gap.RESIDUAL)
    found = localize(reference, swapped(heldout(tiny)), Oracle.ZERO_SHOT, guards)
    assert set(found.reasons) == {Reason.MAP}


def test_the_vlm_guard_speaks_where_the_vlm_errs(tiny: Lens, reference: Reference) -> None:
    images = rotated(heldout(tiny))
    blind = replace(images, vlm=np.roll(images.vlm, 10, axis=0))
    found = localize(reference, blind, Oracle.ZERO_SHOT, replace(NONE, vlm=True))
    assert set(found.reasons) == {Reason.VLM}
    found = localize(reference, blind, Oracle.ZERO_SHOT, NONE)
    assert set(found.reasons) == {Reason.KEPT}


@pytest.mark.parametrize("gap", Gap)
def test_the_map_guard_speaks_where_the_map_breaks_later(
    tiny: Lens, reference: Reference, gap: Gap
) -> None:
    far = Alignment(reference.alignment.weight, reference.alignment.bias + 20, 0.0)
    guards = replace(NONE, gap=gap)
    found = localize(
        replace(reference, alignment=far), rotated(heldout(tiny)), Oracle.ZERO_SHOT, guards
    )
    assert set(found.reasons) == {Reason.MAP}


def test_the_oracle_guard_speaks_where_the_map_was_broken_before(tiny: Lens) -> None:
    wrong = Alignment(np.roll(np.eye(4), 1, axis=0), np.zeros(4), 0.0)
    broken = reference_of(tiny, wrong)
    found = localize(broken, rotated(heldout(tiny)), Oracle.ZERO_SHOT, ALL)
    assert set(found.reasons) == {Reason.ORACLE}


def test_only_misclassified_images_are_localized(tiny: Lens, reference: Reference) -> None:
    images = heldout(tiny)
    unknown = replace(images, label=np.full(30, -1))
    assert len(misclassified(images)) == len(misclassified(unknown)) == 0
    for each in (images, unknown):
        with pytest.raises(BadUsage, match="class is known and predicted wrongly"):
            localize(reference, each)
    with pytest.raises(BadUsage, match="same images"):
        replace(images, label=images.label[1:])


# --- the conformal limit ---------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 50), min_size=2, max_size=60),
    st.fractions(Fraction(1, 20), Fraction(19, 20), max_denominator=20),
)
def test_the_limit_is_exceeded_no_more_often_than_promised(
    values: list[int], level: Fraction
) -> None:
    # Each value in turn is the new one, the others calibrate: all orders are as likely.
    base = reference_with(np.zeros(1))
    exceeded = asked = 0
    for place, new in enumerate(values):
        rest = np.sort(np.array(values[:place] + values[place + 1 :], dtype=float))
        found = replace(base, gaps={Gap.RESIDUAL: rest})
        try:
            limit = found.limit(Gap.RESIDUAL, level)
        except BadUsage:
            assert len(values) * level > len(rest)
            continue
        asked += 1
        above = new > limit
        exceeded += above
        (p_value,) = found.p_values(Gap.RESIDUAL, np.array([float(new)]))
        assert p_value == pytest.approx((1 + sum(rest >= new)) / len(values))
        if above:
            assert p_value <= 1 - float(level) + 1e-12
    if asked:
        assert exceeded <= (1 - level) * len(values)


def reference_with(gaps: Floats) -> Reference:
    one = np.zeros((1, 2))
    maps = summary(np.array([[0.0, 1.0]]), np.array([0]), ["c"], ["a", "b"])
    return Reference(
        ("c",), ("a", "b"), Alignment(np.eye(2), np.zeros(2), 0.0), np.eye(2), one, one, one,
        np.zeros(1, dtype=np.int64), (maps, maps), one, dict.fromkeys(Gap, gaps), {},
    )  # fmt: skip


def test_too_few_images_for_the_limit_say_how_many(reference: Reference) -> None:
    with pytest.raises(BadUsage, match=r"30 correctly .* level 0.99: 99 are needed"):
        reference.limit(Gap.NEAREST, Fraction(99, 100))
    assert reference.limit(Gap.NEAREST, Fraction(30, 31)) == reference.gaps[Gap.NEAREST][-1]
    with pytest.raises(BadUsage, match="must be in"):
        reference.limit(Gap.NEAREST, Fraction(1))


def test_nearest_gap_is_the_least_distance(tiny: Lens, reference: Reference) -> None:
    images, train = heldout(tiny), ~tiny.embeddings.heldout
    gallery = tiny.embeddings.vlm[train].astype(float)
    expected = [min(np.linalg.norm(z - g) for g in gallery) for z in images.z]
    np.testing.assert_allclose(reference.gap(Gap.NEAREST, images), expected, atol=1e-6)


# --- responsible concepts --------------------------------------------------------------------


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(2, 30), st.integers(2, 6), st.integers(0, 10**6), st.booleans())
def test_p_values_are_family_wise_exact(count: int, width: int, seed: int, has_ties: bool) -> None:
    random = np.random.default_rng(seed)
    scores = random.normal(size=(count, width)) + random.normal(size=width)
    scores = np.round(scores) if has_ties else scores
    least = []
    for place in range(count):  # each row in turn is the image that is asked about
        rest = np.delete(scores, place, axis=0)
        least.append(_deviations(np.vstack([rest, scores[place]]))[2].min())
    for level in (0.05, 0.1, 0.3, 0.5, 0.9):
        assert np.mean(np.array(least) <= level + 1e-12) <= level + 1e-9


def test_the_planted_concept_comes_first(tiny: Lens, reference: Reference) -> None:
    images = heldout(tiny).chosen(np.array([0]))
    # A truck whose wheels are gone; wings take their place.
    z = images.z.copy()
    z[0, [0, 1]] = [0.0, 9.0]
    spoiled = replace(images, z=z, predicted=np.array([1]))
    found = localize(reference, spoiled, Oracle.ZERO_SHOT, NONE)
    assert found.verdicts == (Verdict.ENCODER,)
    blamed = responsible(reference, found, 0)
    # The least p-value that 20 correct training images of trucks and this one allow.
    assert blamed[0].concept == "wheels"
    assert blamed[0].p_value == pytest.approx(1 / 21)
    assert blamed[0].shift == pytest.approx(-1, abs=0.1)
    assert {each.concept for each in blamed} == set(tiny.concepts)
    assert [each.p_value for each in blamed] == sorted(each.p_value for each in blamed)


def test_head_faults_are_compared_with_the_predicted_class(
    tiny: Lens, reference: Reference
) -> None:
    images = rotated(heldout(tiny)).chosen(np.array([0]))
    head = space_of(tiny).head.affines[0].floats[0]
    found = localize(reference, images, Oracle.ZERO_SHOT, NONE)
    blamed = {each.concept: each for each in responsible(reference, found, 0, head)}
    # A truck that is called a bird: wheels spoke against it, wings did not speak for it.
    assert blamed["wheels"].shift > 0.3
    assert blamed["wings"].shift < -0.3
    wheels, wings = blamed["wheels"].push, blamed["wings"].push
    assert wheels is not None
    assert wings is not None
    assert wheels < 0
    assert wings < 0


def test_undetermined_faults_name_no_concept(tiny: Lens, reference: Reference) -> None:
    images = rotated(heldout(tiny)).chosen(np.array([0]))
    blind = replace(images, vlm=-images.vlm)
    found = localize(reference, blind, Oracle.ZERO_SHOT, ALL)
    assert responsible(reference, found, 0) == []


@pytest.mark.parametrize("seed", range(3))
def test_pull_is_ridge_regression(tmp_path: Path, seed: int) -> None:
    lens = write_random(tmp_path / "lens", seed, signed=True)
    found, head = reference_of(lens), np.random.default_rng(seed).normal(size=(3, 4))
    pull = pulled(found, head, 0, 2)
    x = found.scores - found.scores.mean(axis=0)
    y = found.z @ (head[2] - head[0])
    y = y - y.mean()
    penalty = np.sqrt(0.1 * (x**2).sum() / 4) * np.eye(4)
    expected = np.linalg.lstsq(np.vstack([x, penalty]), np.append(y, np.zeros(4)), rcond=None)[0]
    np.testing.assert_allclose(pull.weights, expected, atol=1e-8)
    assert pull.explained == pytest.approx(1 - ((y - x @ expected) ** 2).sum() / (y**2).sum())


# --- whole data sets -------------------------------------------------------------------------


def test_causes_add_up(tiny: Lens, reference: Reference) -> None:
    images = heldout(tiny)
    mixed = Images(
        *(np.concatenate([getattr(part, name) for part in (rotated(images), swapped(images))])
          for name in ("z", "vlm", "label", "predicted"))
    )  # fmt: skip
    found = localize(reference, mixed, Oracle.ZERO_SHOT, NONE)
    rows = causes(found, tiny.classes, images.label)
    assert [row.wrong for row in rows] == [20, 20, 20, 60]
    assert [row.images for row in rows] == [10, 10, 10, 30]
    assert [row.count(Verdict.HEAD) for row in rows] == [10, 10, 10, 30]
    share = rows[-1].encoder_share()
    assert share == (0.5, *clopper_pearson(30, 60, 0.95))
    assert replace(rows[0], counts={Reason.VLM: 4}).encoder_share() is None


def test_class_differences_compare_with_the_right_group(tiny: Lens, reference: Reference) -> None:
    images = heldout(tiny)
    spoiled = localize(reference, swapped(images), Oracle.ZERO_SHOT, NONE)
    found = class_differences(reference, spoiled, Verdict.ENCODER)
    scores = reference.concept_scores(spoiled.images)
    wrong = summary(scores, images.label, tiny.classes, tiny.concepts)
    expected = differences(reference.maps[0], wrong)
    np.testing.assert_array_equal(found.p_values, expected.p_values)
    # A truck's embedding became a bird's: wheels and wings changed places.
    blame = dict(zip(tiny.concepts, found.blame()[0], strict=True))
    assert min(blame["wheels"], blame["wings"]) > max(blame["fur"], blame["floppy ears"])
    nothing = class_differences(reference, spoiled, Verdict.HEAD)
    assert nothing.right.groups == ()


def test_emoji10_faults_are_deterministic_and_mixed() -> None:
    lens = Lens.load(SHIPPED["emoji10"])
    found, images = reference_of(lens), stored(lens)
    wrong = [i for i in misclassified(images) if lens.embeddings.heldout[i]]
    chosen = images.chosen(np.array(wrong))
    first, second = (localize(found, chosen) for _ in range(2))
    assert first.reasons == second.reasons
    assert {Verdict.ENCODER, Verdict.HEAD, Verdict.UNDETERMINED} == set(first.verdicts)
