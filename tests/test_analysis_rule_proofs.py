"""Rules over regions: proofs against the verifier, samples, and brute force on grids."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest

from conspec.analysis.predicates import Predicate
from conspec.analysis.rule_proofs import (
    CLOSED_FORM,
    Claim,
    RuleProof,
    conflict_spec,
    decide_set,
    matching,
    prove_rules,
)
from conspec.encodings.exact import Vector, vector
from conspec.encodings.query import space_of
from conspec.encodings.regions import Box, build_regions
from conspec.lens import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadRegion, BadUsage, UnknownName
from conspec.verifier.certificate import Certificate
from conspec.verifier.checker import check_line
from conspec.verifier.checker_files import Bundle, Refused
from conspec.verifier.decide import verify_suite
from conspec.verifier.radius import radius_suite
from conspec.verifier.results import to_json
from conspec.verifier.verdict import Proved, Trust, Violated
from tests.bundles import write_random, write_skewed, write_tiny

SCALES = ("0", "0.2", "0.5", "1", "2")


@pytest.fixture(scope="module", params=[False, True], ids=["nonnegative", "signed"])
def lens(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lens:
    folder = tmp_path_factory.mktemp("rules") / "bundle"
    return write_random(folder, seed=3, signed=request.param)


def predicate(feature: int, sign: int, threshold: float) -> Predicate:
    return Predicate(0, feature, sign, threshold, 1)


def random_claims(lens: Lens, count: int, region: f.Region | None = None) -> list[Claim]:
    """Rules with one to four predicates, about the class that the model predicts at the middle.

    Thresholds lie within about a deviation of the mean, so that some cut a region, some do not
    reach into it, and some leave nothing of it.
    """
    random = np.random.default_rng(11)
    weight, bias = space_of(lens).head.affines[0].floats
    claims = []
    for number in range(count):
        home = int(random.integers(3))
        mean, deviation = lens.statistics.mean[home], lens.statistics.std[home]
        label = lens.classes[int((weight @ mean + bias).argmax())]
        features = random.choice(4, size=random.integers(1, 5), replace=False)
        predicates = []
        for j in features.tolist():
            sign = int(random.choice([1, -1]))
            threshold = mean[j] + sign * random.uniform(-0.6, 0.25) * deviation[j]
            predicates.append(predicate(j, sign, float(np.float32(threshold))))
        scale = Fraction(SCALES[random.integers(len(SCALES))])
        own = region or f.Focus(lens.classes[home], scale)
        claims.append(Claim(f"rule {number}", label, tuple(predicates), own))
    return claims


@pytest.fixture(scope="module")
def proofs(lens: Lens) -> list[RuleProof]:
    return prove_rules(random_claims(lens, 150), lens)


def test_rules_have_the_verdicts_of_their_specs(lens: Lens, proofs: list[RuleProof]) -> None:
    suite = f.Suite(tuple(proof.claim.spec for proof in proofs))
    for proof, other in zip(proofs, verify_suite(suite, lens), strict=True):
        found, expected = proof.result.verdict, other.verdict
        assert type(found) is type(expected), proof.claim
        if isinstance(found, Proved) and isinstance(expected, Proved):
            assert found.vacuous is expected.vacuous
            assert found.trust is Trust.CERTIFIED
        assert proof.result.coverage == other.coverage
    kinds = {(type(p.result.verdict), p.result.decided_by == CLOSED_FORM) for p in proofs}
    assert {(Proved, True), (Violated, False)} <= kinds
    assert any(p.result.verdict.vacuous for p in proofs if isinstance(p.result.verdict, Proved))


def test_each_verdict_is_established_by_the_checker(lens: Lens, proofs: list[RuleProof]) -> None:
    bundle = Bundle(lens.root)
    for proof in proofs:
        expected = "proof" if isinstance(proof.result.verdict, Proved) else "counterexample"
        assert check_line(to_json(proof.result, lens), bundle) == expected


def test_a_certificate_without_one_of_its_lemmas_is_refused(
    lens: Lens, proofs: list[RuleProof]
) -> None:
    bundle, tried = Bundle(lens.root), 0
    for proof in proofs:
        verdict = proof.result.verdict
        if not isinstance(verdict, Proved) or proof.result.decided_by != CLOSED_FORM:
            continue
        assert verdict.certificate is not None
        (lemmas,) = verdict.certificate.parts
        assert isinstance(lemmas, tuple)
        for place in range(len(lemmas)):
            less = Certificate((lemmas[:place] + lemmas[place + 1 :],))
            result = replace(proof.result, verdict=replace(verdict, certificate=less))
            with pytest.raises(Refused):
                check_line(to_json(result, lens), bundle)
            tried += 1
    assert tried > 50


def test_proved_rules_hold_on_samples(lens: Lens, proofs: list[RuleProof]) -> None:
    weight, bias = space_of(lens).head.affines[0].floats
    met = 0
    for number, proof in enumerate(proofs):
        if not isinstance(proof.result.verdict, Proved):
            continue
        (part,) = build_regions(proof.claim.region, lens)
        points = part.region.sample(2000, number)
        active = np.all([one.holds(points) for one in proof.claim.predicates], axis=0)
        met += int(active.sum())
        logits = points[active] @ weight.T + bias
        own = logits[:, [lens.class_index(proof.claim.label)]]
        leads = np.where(own == logits, np.inf, own - logits).min(axis=1, initial=np.inf)
        assert (leads > (proof.lead or 0)).all()
    assert met > 1000


def test_images_that_match_are_counted(lens: Lens, proofs: list[RuleProof]) -> None:
    heldout = lens.embeddings.z[lens.embeddings.heldout]
    for proof in proofs:
        (part,) = build_regions(proof.claim.region, lens)
        inside = [z for z in heldout.astype(np.float64) if part.region.members(z[None])[0]]
        assert proof.inside == len(inside)
        active = [all(one.holds(z[None])[0] for one in proof.claim.predicates) for z in inside]
        assert proof.matching == sum(active)


def test_a_tie_refutes_and_the_next_number_proves(tmp_path: Path) -> None:
    """Logits are z(0), z(1), z(2): over the box [0, 1]³ trucks need z(0) above the others."""
    lens = write_tiny(tmp_path / "tiny")
    region = f.Box((Fraction(0),), (Fraction(1),))
    bundle = Bundle(lens.root)

    def vacuous(*predicates: Predicate) -> bool | None:
        """Whether the rule is vacuous; None if it is refuted. Proofs need no verifier."""
        (proof,) = prove_rules([Claim("rule", "truck", predicates, region)], lens)
        verdict = proof.result.verdict
        check_line(to_json(proof.result, lens), bundle)
        if isinstance(verdict, Violated):
            return None
        assert isinstance(verdict, Proved)
        assert proof.result.decided_by == CLOSED_FORM
        return verdict.vacuous

    half, above = float(np.float32(0.5)), float(np.nextafter(np.float32(0.5), np.float32(1)))
    bounds = (predicate(1, -1, half), predicate(2, -1, half))
    assert vacuous(predicate(0, 1, half), *bounds) is None
    assert vacuous(predicate(0, 1, above), *bounds) is False
    assert vacuous(predicate(0, 1, 1.0), *bounds) is False  # only the border is left
    assert vacuous(predicate(0, 1, 2.0)) is True
    assert vacuous(predicate(0, 1, 0.75), predicate(0, -1, 0.25)) is True
    assert vacuous(predicate(0, 1, 0.75), predicate(0, -1, 0.75), *bounds) is False
    for order in ((0.25, 0.75), (0.75, 0.25), (0.75, -1.0)):
        assert vacuous(*(predicate(0, 1, t) for t in order), *bounds) is False


def test_regions_that_are_no_boxes_go_to_the_verifier(lens: Lens) -> None:
    regions = (f.Zonotope("truck", Fraction("0.3")), f.Ball(0, Fraction("0.1"), f.Norm.L2))
    for region in regions:
        claims = random_claims(lens, 6, region)
        for proof in prove_rules(claims, lens):
            assert proof.result.decided_by != CLOSED_FORM
            assert isinstance(proof.result.verdict, Proved | Violated)
    cut = f.Both((f.Focus("truck", Fraction(1)), f.Polytope((predicate(0, 1, 0.5).formula,))))
    held = lens.embeddings.z[lens.embeddings.heldout]
    for proof in prove_rules(random_claims(lens, 3, cut), lens):
        (part,) = build_regions(f.Focus("truck", Fraction(1)), lens)
        assert proof.inside == int((part.region.members(held) & (held[:, 0] >= 0.5)).sum())


def test_rules_break_at_their_radius(lens: Lens) -> None:
    claims = random_claims(lens, 12)
    at_two = [replace(c, region=f.Focus(_home(c), Fraction(2))) for c in claims]
    for claim, found in zip(
        at_two, radius_suite(f.Suite(tuple(c.spec for c in at_two)), lens), strict=True
    ):
        ends = [(found.lower, Proved), (found.upper, Violated)]
        for scale, expected in ends:
            if scale is not None:
                moved = replace(claim, region=f.Focus(_home(claim), scale))
                (proof,) = prove_rules([moved], lens)
                assert isinstance(proof.result.verdict, expected)
        if found.lower is not None and found.upper is not None:
            assert found.upper - found.lower <= found.upper * Fraction(1, 20)


def _home(claim: Claim) -> str:
    """The class of a rule's region."""
    assert isinstance(claim.region, f.Focus)
    return claim.region.label


def test_bad_input_is_refused(lens: Lens, tmp_path: Path) -> None:
    (claim,) = random_claims(lens, 1)
    with pytest.raises(UnknownName, match="unknown class 'lorry'"):
        prove_rules([replace(claim, label="lorry")], lens)
    with pytest.raises(BadRegion, match="rule 0: the region is empty"):
        prove_rules([replace(claim, region=f.Box((Fraction(1),), (Fraction(0),)))], lens)
    hidden = write_skewed(tmp_path / "relu", hidden=True)
    with pytest.raises(BadUsage, match="bound neurons of the last one"):
        prove_rules([claim], hidden)
    with pytest.raises(BadUsage, match="bound neurons of the last one"):
        decide_set([claim], claim.region, hidden)


# --- rule sets ---------------------------------------------------------------------------------


def representatives(claims: list[Claim], base: Box) -> list[Vector]:
    """Points of a box, one for each way in which rules can be met: thresholds and what lies
    between them, in all combinations."""
    grids = []
    for j, (low, high) in enumerate(zip(base.lower.fractions(), base.upper.fractions(),
                                        strict=True)):  # fmt: skip
        cuts = {p.bound for claim in claims for p in claim.predicates if p.feature == j}
        values = sorted({low, high} | {cut for cut in cuts if low < cut < high})
        grids.append(sorted({*values, *((a + b) / 2 for a, b in pairwise(values))}))
    return [vector(list(point)) for point in product(*grids)]


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("seed", range(6))
def test_rule_sets_are_complete_or_not_as_a_grid_says(lens: Lens, seed: int, count: int) -> None:
    random = np.random.default_rng([seed, count])
    region = f.Focus(lens.classes[seed % 3], Fraction("0.8"))
    (part,) = build_regions(region, lens)
    base = part.region
    assert isinstance(base, Box)
    low, high = base.lower.floats(), base.upper.floats()
    claims = []
    for number in range(count):
        features = random.choice(2, size=random.integers(1, 3), replace=False)
        shares = random.choice([-0.1, 0.0, 0.3, 0.5, 0.7], size=2)
        predicates = tuple(
            predicate(
                int(j),
                int(sign),
                float(np.float32(low[j] + share * (high[j] - low[j]))),
            )
            for j, sign, share in zip(features, random.choice([1, -1], 2), shares, strict=False)
        )
        label = lens.classes[int(random.integers(3))]
        claims.append(Claim(f"rule {number}", label, predicates, region))
    complete, free = decide_set(claims, region, lens)
    matches = np.array([matching(claims, point) for point in representatives(claims, base)])
    labels = np.array([claim.label for claim in claims])
    several = [len(set(labels[row])) > 1 for row in matches]
    assert isinstance(complete.verdict, Proved if matches.any(axis=1).all() else Violated)
    assert isinstance(free.verdict, Violated if any(several) else Proved)
    if isinstance(complete.verdict, Violated):
        assert not matching(claims, complete.verdict.witness.point).any()
    if isinstance(free.verdict, Violated):
        found = matching(claims, free.verdict.witness.point)
        assert len(set(labels[found])) > 1
    bundle = Bundle(lens.root)
    for result in (complete, free):
        check_line(to_json(result, lens), bundle)


def test_a_set_without_rules_matches_nothing_and_has_no_conflict(lens: Lens) -> None:
    region = f.Focus("truck", Fraction("0.5"))
    complete, free = decide_set([], region, lens)
    assert isinstance(complete.verdict, Violated)
    assert isinstance(free.verdict, Proved)
    same = random_claims(lens, 3, region)
    alike = [replace(claim, label="truck") for claim in same]
    assert conflict_spec(alike, region, "x").body == f.Constant(True)
