"""Bounds by proof and coverage: scales that do not depend on data, counts, and error rates."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from conspec.encodings.query import queries_of, space_of
from conspec.encodings.regions import build_regions
from conspec.lens import Lens
from conspec.specs import formula as f
from conspec.specs import parse
from conspec.specs.errors import BadUsage
from conspec.verifier import verify
from conspec.verifier.probability import covered
from conspec.verifier.probability.covered import covered_radii, proved_and_covered, settled_scale
from conspec.verifier.probability.shards import Shard
from conspec.verifier.radius import LARGEST, Radius, at_scale, radius_suite
from conspec.verifier.verdict import Proved, Reason, Unknown, Violated
from tests.bundles import write_skewed, write_tiny

ERROR = 1e-12
TEXT = """
spec a: forall x in {0}(truck, gamma=1): predict(truck) => wheels > wings
spec b: forall x in {0}(bird, gamma=1): wings > fur and predict(bird)
spec c: forall x in {0}(bird, gamma=1): fur > wings
"""
HAS = "spec h: forall x in focus(truck, gamma=1): has(wheels) and wheels > fur"
FAMILIES = ("focus", "ellipsoid")


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Lens:
    return write_tiny(tmp_path_factory.mktemp("covered") / "tiny")


@pytest.fixture(scope="module")
def radii(lens: Lens) -> dict[str, list[Radius]]:
    return {name: list(radius_suite(parse(TEXT.format(name)), lens)) for name in FAMILIES}


def specs_of(text: str) -> list[f.ForAll]:
    return [spec for spec in parse(text).specs if isinstance(spec, f.ForAll)]


# --- Scales ----------------------------------------------------------------------------------


@given(st.fractions(Fraction(1, 10**6), 2000))
def test_two_digit_scales_are_neighbours(scale: Fraction) -> None:
    below = covered._below(scale)
    after = covered._next(below)
    assert below <= scale < after
    for value in (below, after):
        while value < 10:
            value *= 10
        while value >= 100:
            value /= 10
        assert value.denominator == 1
    assert covered._below(after) == after


def test_a_settled_scale_is_the_largest_true_one(
    lens: Lens, radii: dict[str, list[Radius]]
) -> None:
    space = space_of(lens)
    settled = 0
    for radius in [radius for family in radii.values() for radius in family]:
        scale = settled_scale(radius, lens)
        if scale is None:
            assert radius.lower is None
            continue
        if scale == LARGEST:  # a tautology
            assert radius.violation is None
            continue
        for tried, kind in ((scale, Proved), (covered._next(scale), Violated)):
            spec = replace(radius.spec, region=at_scale(radius.spec.region, tried))
            assert all(isinstance(verify(q), kind) for q in queries_of(spec, lens, space))
        settled += 1
    assert settled == 2


def test_it_does_not_depend_on_the_bracket(lens: Lens, radii: dict[str, list[Radius]]) -> None:
    radius = radii["focus"][1]
    scale = settled_scale(radius, lens)
    assert scale is not None
    assert radius.proof is not None
    lower = at_scale(radius.spec.region, scale - Fraction(1, 100))
    assert covered._below(scale - Fraction(1, 100)) < scale
    weaker = replace(radius.proof, spec=replace(radius.spec, region=lower))
    assert settled_scale(replace(radius, proof=weaker), lens) == scale
    assert settled_scale(replace(radius, proof=weaker, violation=None), lens) == scale
    assert settled_scale(replace(radius, proof=None), lens) is None


def test_an_open_scale_settles_nothing(
    lens: Lens, radii: dict[str, list[Radius]], monkeypatch: pytest.MonkeyPatch
) -> None:
    radius = radii["focus"][1]
    assert settled_scale(radius, lens) is not None
    monkeypatch.setattr(covered, "verify", lambda *_, **__: Unknown(Reason.TIME_LIMIT))
    assert settled_scale(replace(radius, violation=None), lens) is None


def test_has_is_settled_by_proofs_alone(tmp_path: Path) -> None:
    skewed = write_skewed(tmp_path / "skewed", hidden=False)
    (spec,) = specs_of(HAS)
    scale = settled_scale(Radius(spec, None, None), skewed)
    assert scale is not None
    assert scale in covered.SCALES
    proved = replace(spec, region=at_scale(spec.region, scale))
    assert all(
        isinstance(verify(query), Proved) for query in queries_of(proved, skewed, space_of(skewed))
    )


# --- Bounds ----------------------------------------------------------------------------------


def lowest(count: int, total: int, error: float) -> float:
    """The one-sided Clopper–Pearson bound from the beta distribution."""
    return float(beta.ppf(error, count, total - count + 1)) if count else 0.0


def test_counts_and_bounds_by_hand(lens: Lens) -> None:
    specs = specs_of(TEXT.format("focus"))
    regions: list[list[f.Region]] = [[f.Focus("truck", Fraction(2))], [], []]
    found = proved_and_covered(specs, regions, lens, 0.9)
    data = lens.embeddings
    trucks = data.z[data.heldout & (data.label == 0)]
    mean, deviation = lens.statistics.mean[0], lens.statistics.std[0]
    inside = np.all(np.abs(trucks - mean) <= 2 * deviation, axis=1)
    first = found[0]
    assert first.coverage is not None
    assert (first.coverage.count, first.coverage.total) == (inside.sum(), len(trucks))
    assert first.lower == pytest.approx(lowest(int(inside.sum()), len(trucks), 0.1))
    satisfied = (trucks[:, 0] > trucks[:, 1]) | (trucks[:, :3].argmax(axis=1) != 0)
    assert first.direct.count == satisfied.sum()
    assert first.combined == pytest.approx(lowest(int(satisfied.sum()), len(trucks), 0.05))
    assert first.spec.region == first.region == f.Focus("truck", Fraction(2))
    assert first.population == "truck"
    for other in found[1:]:
        assert (other.region, other.coverage) == (None, None)
        assert other.lower == 0.0
    assert any("None of these numbers is a proof" in line for line in first.assumptions)


def test_the_direct_share_is_never_lower_on_the_same_images(
    lens: Lens, radii: dict[str, list[Radius]]
) -> None:
    for found in covered_radii([radii[name] for name in FAMILIES], lens):
        if found.coverage is not None:
            assert found.coverage.count <= found.direct.count
            assert found.coverage.total == found.direct.total
        assert found.combined <= found.direct.count / found.direct.total
        assert f"{len(FAMILIES)} families" in found.assumptions[0]


def test_each_family_gets_its_share_of_the_error(
    lens: Lens, radii: dict[str, list[Radius]]
) -> None:
    both = covered_radii([radii[name] for name in FAMILIES], lens, 0.9)
    for place, found in enumerate(both):
        shares = []
        for name in FAMILIES:
            (one,) = covered_radii([[radii[name][place]]], lens, 0.9)
            if one.coverage is not None:
                shares.append(lowest(one.coverage.count, one.coverage.total, 0.05))
        assert found.lower == pytest.approx(max(shares, default=0.0))


def test_unusable_embeddings_of_a_sample_count_as_outside(lens: Lens) -> None:
    (spec, *_) = specs_of(TEXT.format("focus"))
    z = lens.embeddings.z[:12].copy()
    labels = lens.embeddings.label[:12]
    z[3], z[5, 1] = np.nan, np.inf
    wide: list[list[f.Region]] = [[f.Focus("truck", Fraction(50))]]
    (found,) = proved_and_covered([spec], wide, lens, sample=Shard(z, labels))
    assert found.coverage is not None
    assert (found.coverage.count, found.coverage.total) == (10, 12)
    assert "sample" in found.assumptions[-1]


def test_a_cut_region_is_measured_with_its_cuts(lens: Lens) -> None:
    text = "spec s: forall x in focus(truck, gamma=9) and polytope(wheels >= 4): wheels > fur"
    (spec,) = specs_of(text)
    (found,) = proved_and_covered([spec], [[spec.region]], lens)
    trucks = lens.embeddings.z[lens.embeddings.heldout & (lens.embeddings.label == 0)]
    assert found.coverage is not None
    assert found.population == "truck"
    assert found.coverage.count == (trucks[:, 0] >= 4).sum() > 0


def test_the_bound_is_wrong_as_seldom_as_it_says(lens: Lens) -> None:
    # The population is the bundle's own images, of which samples are drawn with replacement.
    (spec, *_) = specs_of(TEXT.format("focus"))
    everyone = replace(spec, region=f.Both((f.Box((Fraction(0),), (Fraction(9),)),)))
    regions: list[f.Region] = [f.Focus("truck", Fraction(5)), f.Focus("bird", Fraction(5))]
    z, random = lens.embeddings.z, np.random.default_rng(4)
    truth = [
        float(part.region.members(z).mean()) for r in regions for part in build_regions(r, lens)
    ]
    runs, confidence, misses = 150, 0.6, 0
    for _ in range(runs):
        sample = Shard(z[random.integers(0, len(z), 25)])
        (found,) = proved_and_covered([everyone], [regions], lens, confidence, sample, families=2)
        misses += found.lower > max(truth)
    assert 0 < misses <= binom.isf(ERROR, runs, 1 - confidence)


# --- Refusals --------------------------------------------------------------------------------


def test_what_does_not_fit_together_is_refused(lens: Lens, radii: dict[str, list[Radius]]) -> None:
    (spec, *_) = specs_of(TEXT.format("focus"))
    two: list[f.Region] = [f.Focus("truck", Fraction(1)), f.Ellipsoid("truck", Fraction(1))]
    with pytest.raises(BadUsage, match="2 regions of 1 families"):
        proved_and_covered([spec], [two], lens)
    with pytest.raises(BadUsage, match="needs the labels"):
        proved_and_covered([spec], [two[:1]], lens, sample=Shard(lens.embeddings.z))
    with pytest.raises(BadUsage, match="not made for the same specs"):
        covered_radii([radii["focus"], radii["ellipsoid"][::-1]], lens)
    with pytest.raises(BadUsage, match="confidence"):
        proved_and_covered([spec], [two[:1]], lens, 0.0)
    assert covered_radii([], lens) == []
