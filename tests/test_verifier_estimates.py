"""Estimates of a suite, against scipy, exact evaluation, and cases counted by hand."""

from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import beta, binomtest, normaltest

from conspec.encodings.exact import from_array
from conspec.encodings.query import space_of
from conspec.lens import Lens
from conspec.lens.tables import Embeddings
from conspec.specs import parse
from conspec.specs.errors import BadUsage, UnknownName
from conspec.specs.semantics import margin
from conspec.verifier import estimates
from conspec.verifier.estimates import Estimate, Interval, estimate_suite, held_out, to_json
from conspec.verifier.probability.intervals import Decision
from conspec.verifier.probability.rare import scores
from conspec.verifier.probability.shards import Shard
from tests.bundles import write_skewed, write_tiny
from tests.commands import estimates_schema

ABOUT_TRUCKS = "spec a: forall x in focus(truck, gamma=0.1): {}"
LIKELY = "spec {}: probability >= {} with confidence {} for x in all: wheels > wings\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Lens:
    return write_tiny(tmp_path_factory.mktemp("lens") / "tiny")


@pytest.fixture(scope="module", params=[False, True], ids=["affine", "relu"])
def skewed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lens:
    return write_skewed(tmp_path_factory.mktemp("lens") / "skewed", request.param)


def with_embeddings(lens: Lens, embeddings: Embeddings) -> Lens:
    """The same bundle with other embeddings in memory."""
    copy = Lens(lens.root, lens.hash, lens.manifest)
    copy.__dict__["embeddings"] = embeddings
    return copy


def draws(satisfied: int, total: int, dtype: str = "f4") -> Shard:
    """So many embeddings of the tiny bundle with ``wheels > wings``, the rest without; trucks."""
    z = np.tile(np.array([0.0, 1.0, 0.5, 0.5]), (total, 1))
    z[:satisfied, 0] = 2.0
    return Shard(z.astype(dtype), np.zeros(total, dtype=np.int64))


def one(lens: Lens, text: str, sample: Shard | None = None, confidence: float = 0.95) -> Estimate:
    (found,) = estimate_suite(
        parse(text), lens, None if sample is None else [sample], confidence
    ).specs
    return found


def test_each_spec_is_counted_on_its_own_images(tiny: Lens) -> None:
    data = tiny.embeddings
    label = data.label.copy()
    label[:6] = -1  # unknown: in no class, but among all images
    lens = with_embeddings(tiny, replace(data, label=label))
    texts = {
        'focus("sea lion", gamma=1)': "sea lion",
        "hull(bird)": "bird",
        "focus(truck, gamma=1) and box(0, 9)": "truck",
        "focus(truck, gamma=1) or pca_box(truck, gamma=2)": "truck",
        "focus(truck, gamma=1) or focus(bird, gamma=1)": "all",
        "ball(3, radius=1, norm=l2)": "all",
        "box(0, 1)": "all",
    }
    suite = parse(
        "\n".join(
            f"spec s{place}: forall x in {region}: wheels > wings"
            for place, region in enumerate(texts)
        )
        + "\nspec p: probability >= 0.5 with confidence 0.9 for x in class(bird): wheels > wings"
        + "\nspec q: probability >= 0.5 with confidence 0.9 for x in all: wheels > wings"
    )
    found = estimate_suite(suite, lens).specs
    assert [each.population for each in found] == [*texts.values(), "bird", "all"]
    held = data.heldout
    for each in found:
        own = held.copy()
        if each.population != "all":
            own &= label == lens.classes.index(each.population)
        z = data.z[own]
        assert (each.count, each.total) == (int((z[:, 0] > z[:, 1]).sum()), int(own.sum()))


def test_a_class_without_images_says_nothing(tiny: Lens) -> None:
    label = np.where(tiny.embeddings.heldout, 0, tiny.embeddings.label)
    lens = with_embeddings(tiny, replace(tiny.embeddings, label=label))
    found = one(
        lens,
        "spec a: probability >= 0.1 with confidence 0.6 for x in class(bird): wheels > wings",
    )
    assert (found.count, found.total, found.share) == (0, 0, None)
    assert (found.lower, found.upper, found.family) == (0.0, 1.0, (0.0, 1.0))
    assert found.decision is found.family_decision is Decision.UNDECIDED
    assert found.cantelli is found.gaussian is found.normality is None


@given(
    pairs=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=4),
    confidence=st.sampled_from([0.5, 0.9, 0.95, 0.999]),
)
@settings(max_examples=25, deadline=None)
def test_intervals_are_those_of_scipy(
    tiny: Lens, pairs: list[tuple[int, int]], confidence: float
) -> None:
    good, bad = (sum(column) for column in zip(*pairs, strict=True))
    total = good + bad
    texts = [
        ABOUT_TRUCKS.replace("spec a", f"spec a{k}").format("wheels > wings")
        for k in range(len(pairs))
    ]
    found = {}
    for kind in Interval:
        (*_, found[kind]) = estimate_suite(
            parse("\n".join(texts)), tiny, [draws(good, total)], confidence, kind
        ).specs
    ends = {kind: (each.lower, each.upper) for kind, each in found.items()}
    if not total:
        assert set(ends.values()) == {(0.0, 1.0)}
        return
    test = binomtest(good, total)
    exact = test.proportion_ci(confidence, "exact")
    assert ends[Interval.CLOPPER_PEARSON] == pytest.approx((exact.low, exact.high), abs=1e-9)
    score = test.proportion_ci(confidence, "wilson")
    assert ends[Interval.WILSON] == pytest.approx((score.low, score.high), abs=1e-9)
    tail = (1 - confidence) / 2
    posterior = beta(good + 0.5, bad + 0.5)
    low, high = posterior.ppf(tail), posterior.isf(tail)
    expected = (low if good else 0.0, high if bad else 1.0)
    assert ends[Interval.JEFFREYS] == pytest.approx(expected, abs=1e-9)
    together = test.proportion_ci(1 - (1 - confidence) / len(pairs), "exact")
    for each in found.values():  # always exact, whatever the interval
        assert each.family == pytest.approx((together.low, together.high), abs=1e-9)


@pytest.mark.parametrize(
    ("satisfied", "total", "decision"),
    [
        (29, 29, Decision.HOLDS),  # 0.9²⁹ = 0.047: one-sided at 0.95; two-sided takes 36
        (28, 28, Decision.UNDECIDED),  # 0.9²⁸ = 0.052
        (0, 2, Decision.FAILS),  # 0.1² = 0.01
        (0, 1, Decision.UNDECIDED),  # 0.1
    ],
)
def test_one_spec_is_decided_one_sided(
    tiny: Lens, satisfied: int, total: int, decision: Decision
) -> None:
    found = one(tiny, LIKELY.format("a", "0.9", "0.95"), draws(satisfied, total))
    assert found.decision is found.family_decision is decision
    # The confidence of the intervals is another one.
    assert one(tiny, LIKELY.format("a", "0.9", "0.95"), draws(satisfied, total), 0.5).decision is (
        decision
    )


@pytest.mark.parametrize(("total", "decision"), [(22, "holds"), (21, "undecided")])
def test_the_confidence_is_the_spec_s_own(tiny: Lens, total: int, decision: str) -> None:
    # 0.9²² = 0.098, 0.9²¹ = 0.109
    found = one(tiny, LIKELY.format("a", "0.9", "0.9"), draws(total, total))
    assert found.decision is found.family_decision is Decision(decision)


def test_specs_of_one_confidence_are_a_family(tiny: Lens) -> None:
    two = LIKELY.format("a", "0.9", "0.95") + LIKELY.format("b", "0.9", "0.95")
    first, second = estimate_suite(parse(two), tiny, [draws(29, 29)]).specs
    assert first.decision is second.decision is Decision.HOLDS
    assert first.family_decision is second.family_decision is Decision.UNDECIDED
    other = LIKELY.format("a", "0.9", "0.95") + LIKELY.format("b", "0.9", "0.951")
    found = estimate_suite(parse(other), tiny, [draws(29, 29)]).specs
    assert [each.family_decision for each in found] == [Decision.HOLDS] * 2
    # 0.9⁴² = 0.012 passes 0.05 / 2 / 2, the first of Holm's steps for two specs of two kinds.
    assert {e.family_decision for e in estimate_suite(parse(two), tiny, [draws(42, 42)]).specs} == {
        Decision.HOLDS
    }
    assert {e.family_decision for e in estimate_suite(parse(two), tiny, [draws(41, 41)]).specs} == {
        Decision.UNDECIDED
    }


def test_extreme_numbers_are_not_rounded_to_something_else(tiny: Lens) -> None:
    sample = draws(0, 5)
    least = one(tiny, LIKELY.format("a", "1e-390", "0.9"), sample)
    assert least.decision is Decision.UNDECIDED  # as a float, 0 or more always holds
    with pytest.raises(BadUsage, match="spec a: its confidence is too close to 0 or 1"):
        one(tiny, LIKELY.format("a", "0.5", "0." + 20 * "9"), sample)
    surest = one(tiny, ABOUT_TRUCKS.format("wheels > wings"), draws(30, 30), 1 - 1e-13)
    assert surest.gaussian is None
    assert surest.cantelli is not None


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 60), shift=st.floats(-2, 4))
@settings(max_examples=40, deadline=None)
def test_moments_bound_no_more_than_the_count(
    tiny: Lens, seed: int, size: int, shift: float
) -> None:
    z = np.random.default_rng(seed).normal(size=(size, 4)).astype(np.float32)
    z[:, 0] += np.float32(shift)
    sample = Shard(z, np.zeros(size, dtype=np.int64))
    found = one(tiny, ABOUT_TRUCKS.format("wheels > wings or fur > 1.5"), sample)
    margins = np.maximum(z[:, 0].astype(float) - z[:, 1], z[:, 2].astype(float) - 1.5)
    test = binomtest(found.count, size, alternative="greater").proportion_ci(0.95, "exact")
    assert found.cantelli is not None
    assert found.cantelli <= test.low + 1e-12
    mean, variance = margins.mean(), margins.var()
    share = mean**2 / (mean**2 + variance) if mean > 0 else 0.0
    sure = binomtest(int(np.ceil(size * share - 1e-6)), size, alternative="greater")
    assert found.cantelli == pytest.approx(sure.proportion_ci(0.95, "exact").low, abs=1e-9)
    assert found.gaussian is not None
    assert 0 <= found.gaussian <= 1
    if size < 20:
        assert found.normality is None
    else:
        assert found.normality == pytest.approx(normaltest(margins).pvalue, rel=1e-6)


def test_a_constant_formula_has_sure_moments(tiny: Lens) -> None:
    always = one(tiny, ABOUT_TRUCKS.format("true"), draws(3, 30))
    never = one(tiny, ABOUT_TRUCKS.format("false and wheels > wings"), draws(3, 30))
    assert (always.count, never.count) == (30, 0)
    assert always.gaussian == 1.0
    assert never.gaussian == never.cantelli == 0.0
    assert always.normality is None  # equal margins have no shape


FORMULAS = (
    "predict(truck) => wheels > wings",
    "has(wheels) or has(wings)",
    "logit(truck) - logit(bird) >= 0.5",
    "atleast(2, wheels > wings, fur > wings, has(fur))",
    "not predict(bird) and (wheels > wings <=> fur > wings)",
)


def test_counts_and_moments_of_every_kind_of_formula(skewed: Lens) -> None:
    suite = parse(
        "\n".join(
            f"spec s{place}: forall x in focus(truck, gamma=1): {formula}"
            for place, formula in enumerate(FORMULAS)
        )
    )
    found = estimate_suite(suite, skewed).specs
    data = skewed.embeddings
    own = data.z[data.heldout & (data.label == 0)].astype(np.float64)
    batch = scores(space_of(skewed), own)
    for spec, each in zip(suite.specs, found, strict=True):
        margins: NDArray[np.float64] = np.asarray(margin(spec.body, batch))
        assert (np.abs(margins) > 1e-9).all()  # no tie, so floats count right
        assert (each.count, each.total) == (int((margins > 0).sum()), len(own))
        assert each.normality is None
        assert each.gaussian is not None


def test_how_embeddings_are_cut_changes_nothing(
    tiny: Lens, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = parse(
        ABOUT_TRUCKS.format("wheels > wings")
        + "\nspec b: probability >= 0.5 with confidence 0.9 for x in all: fur > wings"
    )
    whole = estimate_suite(suite, tiny)
    held = held_out(tiny)
    assert held.labels is not None
    parts = [Shard(held.embeddings[a:b], held.labels[a:b]) for a, b in ((0, 1), (1, 1), (1, 30))]
    monkeypatch.setattr(estimates, "CHUNK", 4)
    for a, b in zip(whole.specs, estimate_suite(suite, tiny, parts).specs, strict=True):
        assert replace(b, cantelli=0, gaussian=0, normality=0) == replace(
            a, cantelli=0, gaussian=0, normality=0
        )
        assert (b.cantelli, b.gaussian) == pytest.approx((a.cantelli, a.gaussian), rel=1e-9)
    # What half precision holds exactly gives the same in every width.
    widths = [one(tiny, LIKELY.format("a", "0.5", "0.9"), draws(7, 9, t)) for t in ("f2", "f8")]
    assert widths[0] == widths[1]


def test_unusable_embeddings_are_named_and_count_nowhere(tiny: Lens) -> None:
    held = held_out(tiny)
    assert held.labels is not None
    z = held.embeddings.copy()
    z[1, 3], z[12, 0] = np.nan, np.inf
    text = parse(ABOUT_TRUCKS.format("wheels > wings"))
    found = estimate_suite(
        text, tiny, [Shard(z[:5], held.labels[:5]), Shard(z[5:], held.labels[5:])]
    )
    kept = [row for row in range(len(z)) if row not in (1, 12)]
    clean = estimate_suite(text, tiny, [Shard(z[kept], held.labels[kept])])
    assert (found.skipped.count, found.skipped.first) == (2, (1, 12))
    assert found.specs[0].total == 9
    assert found.specs[0].cantelli == pytest.approx(clean.specs[0].cantelli, rel=1e-9)
    assert replace(found.specs[0], cantelli=0, gaussian=0) == replace(
        clean.specs[0], cantelli=0, gaussian=0
    )


def test_overflow_takes_the_moments_and_not_the_count(skewed: Lens) -> None:
    z = np.full((3, 4), 1e308)
    suite = parse(
        ABOUT_TRUCKS.format("3 * score(wheels) > 3 * score(wings)")
        + "\nspec b: forall x in focus(truck, gamma=1): z(0) > 1"
    )
    first, second = estimate_suite(suite, skewed, [Shard(z, np.zeros(3, int))]).specs
    assert first.total == second.total == second.count == 3
    exact = space_of(skewed).concept_map.exact(from_array(z[0]))
    assert first.count == 3 * (exact[0] > exact[1])
    assert first.cantelli is first.gaussian is None
    assert second.cantelli == pytest.approx(0.05 ** (1 / 3))


def test_refusals(tiny: Lens) -> None:
    data = tiny.embeddings
    none = with_embeddings(tiny, replace(data, heldout=np.zeros_like(data.heldout)))
    text = ABOUT_TRUCKS.format("wheels > wings")
    with pytest.raises(BadUsage, match="no image of this bundle is held out"):
        one(none, text)
    assert one(none, text, held_out(tiny)).total == 10
    bare = Shard(data.z)
    with pytest.raises(BadUsage, match=r"spec a is about the class 'truck', .* without labels"):
        one(tiny, text, bare)
    assert one(tiny, LIKELY.format("a", "0.5", "0.9"), bare).total == 90
    with pytest.raises(UnknownName, match=r"spec a: .*fur.*threshold"):
        one(tiny, ABOUT_TRUCKS.format("has(fur)"))
    with pytest.raises(UnknownName, match=r"spec a: .*petals"):
        one(tiny, ABOUT_TRUCKS.format("wheels > petals"))
    for confidence in (0.0, 1.0, float("nan")):
        with pytest.raises(BadUsage, match="confidence must lie strictly between 0 and 1"):
            one(tiny, text, confidence=confidence)
    with pytest.raises(BadUsage, match="embeddings have 5 entries, the head reads 4"):
        one(tiny, text, Shard(np.zeros((2, 5), np.float32), np.zeros(2, int)))


def test_lines_follow_the_schema(tiny: Lens) -> None:
    suite = parse(ABOUT_TRUCKS.format("wheels > wings") + "\n" + LIKELY.format("b", "0.50", "0.9"))
    found = estimate_suite(suite, tiny)
    for each in found.specs:
        line = to_json(each, tiny, found.skipped, ["more.npy"])
        jsonschema.validate(line, estimates_schema())
        assert line["point"] == each.share
        assert line["family"]["lower"] <= line["lower"] <= line["point"] <= line["upper"]
        assert line["files"] == ["more.npy"]
        assert parse(line["text"]).specs == (each.spec,)
    lines = [to_json(each, tiny, found.skipped) for each in found.specs]
    assert [line["at_least"] for line in lines] == [None, "0.5"]
    for name in ("extra", "count"):
        broken = dict(lines[0])
        broken.pop(name, None) if name in broken else broken.update({name: 1})
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, estimates_schema())
