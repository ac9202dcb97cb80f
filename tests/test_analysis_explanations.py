"""Formal explanations against brute force over all subsets, in exact arithmetic."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations, product
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conspec.analysis.concept_questions import concept_question, ranking_units, score_units
from conspec.analysis.explanations import LinearHead, LinearQuestion, Units
from conspec.analysis.hitting_sets import enumerate_explanations, smallest_by_hitting
from conspec.analysis.image_questions import ExactLayer, embedding_domain, subject_of
from conspec.analysis.pathways import last_layer
from conspec.analysis.predicates import Vocabulary, fit
from conspec.analysis.reasons import (
    Case,
    Kind,
    Outcome,
    UnitKind,
    concept_case,
    feature_case,
    predicate_case,
    reasons,
)
from conspec.analysis.smallest import Branch, Cover, smallest_axp, smallest_cxp
from conspec.encodings.exact import from_array, vector
from conspec.encodings.network import Affine
from conspec.encodings.query import queries_of, space_of
from conspec.encodings.regions import Box, box
from conspec.encodings.rounding import Bools
from conspec.lens import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadRegion, BadUsage
from conspec.verifier.checker import check_line
from conspec.verifier.checker_files import Bundle
from conspec.verifier.decide import verify, verify_suite
from conspec.verifier.results import to_json
from conspec.verifier.verdict import Proved, Violated
from tests.bundles import write_random, write_skewed

# Zeros and repetitions for ties; large numbers that cancel, for sums that float64 gets wrong.
PLAIN = st.sampled_from([-2.0, -1.0, 0.0, 0.0, 0.5, 1.0, 1.0, 3.0])
NASTY = st.sampled_from([1e16, -1e16, 1.0, -1.0, 0.1, 0.2, 0.3, 1e-20, 0.0, 1e30, -1e30])
PLACES = st.sampled_from([Fraction(v) for v in ("0", "1/3", "1/2", "1")])
Sets = set[frozenset[int]]


@dataclass(frozen=True)
class Instance:
    """A question, and all that is needed to answer it by hand."""

    weight: list[list[Fraction]]
    bias: list[Fraction]
    target: int
    lower: list[Fraction]
    upper: list[Fraction]
    units: list[tuple[int, Fraction, Fraction]]
    known: dict[frozenset[int], bool] = field(default_factory=dict)

    @property
    def question(self) -> LinearQuestion:
        floats = np.array([[float(v) for v in row] for row in self.weight])
        head = LinearHead(Affine(floats, np.array([float(v) for v in self.bias])))
        names = tuple(f"u{n}" for n in range(len(self.units)))
        features = np.array([j for j, _, _ in self.units], dtype=np.intp)
        low, high = (vector([unit[side] for unit in self.units]) for side in (1, 2))
        units = Units(names, features, low, high)
        return LinearQuestion.of(head, self.target, self.domain, units)

    @property
    def domain(self) -> Box:
        return box(vector(self.lower), vector(self.upper))

    def suffices(self, kept: frozenset[int]) -> bool:
        """At every corner of what the kept units leave of the domain, the target wins."""
        if kept not in self.known:
            self.known[kept] = self._wins_everywhere(kept)
        return self.known[kept]

    def _wins_everywhere(self, kept: frozenset[int]) -> bool:
        sides = [[low, high] for low, high in zip(self.lower, self.upper, strict=True)]
        for unit in kept:
            j, low, high = self.units[unit]
            sides[j] = [max(sides[j][0], low), min(sides[j][1], high)]
        for corner in product(*sides):
            logits = [
                sum((w * z for w, z in zip(row, corner, strict=True)), bias)
                for row, bias in zip(self.weight, self.bias, strict=True)
            ]
            rivals = [value for k, value in enumerate(logits) if k != self.target]
            if any(logits[self.target] <= value for value in rivals):
                return False
        return True

    def minimal(self, kind: Kind) -> Sets:
        """All AXps or CXps, by trying all sets from the smallest on."""
        everything = frozenset(range(len(self.units)))
        found: Sets = set()
        for chosen in subsets(len(self.units)):
            if any(known <= chosen for known in found):
                continue
            suffices = self.suffices(chosen if kind is Kind.AXP else everything - chosen)
            if suffices is (kind is Kind.AXP):
                found.add(chosen)
        return found


def subsets(count: int) -> Iterator[frozenset[int]]:
    for size in range(count + 1):
        yield from map(frozenset, combinations(range(count), size))


def mask(chosen: frozenset[int], count: int) -> Bools:
    return np.array([unit in chosen for unit in range(count)], dtype=bool)


def places(chosen: Bools) -> frozenset[int]:
    return frozenset(np.flatnonzero(chosen).tolist())


@st.composite
def instances(
    draw: st.DrawFn, weights: st.SearchStrategy[float] = PLAIN, most: int = 5
) -> Instance:
    """Heads of up to four classes, a point in a box, and as units its values or looser bounds."""
    size, classes = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    row = st.lists(weights, min_size=size, max_size=size)
    weight = [draw(row) for _ in range(classes)]
    bias = draw(st.lists(weights, min_size=classes, max_size=classes))
    if classes > 2 and draw(st.integers(0, 3)) == 0:
        weight[1], bias[1] = weight[0], bias[0]
    lower = [Fraction(draw(st.integers(-2, 1))) for _ in range(size)]
    upper = [low + draw(st.sampled_from([0, 1, 1, 2])) for low in lower]
    point = [low + (high - low) * draw(PLACES) for low, high in zip(lower, upper, strict=True)]
    units = []
    for j in range(size):
        loose = draw(st.sampled_from(["value", "value", "above", "below", "both"]))
        if loose == "value":
            units.append((j, point[j], point[j]))
        if loose in ("above", "both"):
            units.append((j, (lower[j] + point[j]) / 2, upper[j]))
        if loose in ("below", "both"):
            units.append((j, lower[j], (point[j] + upper[j]) / 2))
    exact = [[Fraction(v) for v in one] for one in weight]
    logits = [
        sum((w * z for w, z in zip(one, point, strict=True)), Fraction(b))
        for one, b in zip(exact, bias, strict=True)
    ]
    target = max(range(classes), key=logits.__getitem__)
    return Instance(exact, [Fraction(v) for v in bias], target, lower, upper, units[:6])


@settings(deadline=None, max_examples=150)
@given(st.one_of(instances(), instances(NASTY)))
def test_each_set_suffices_exactly_if_no_corner_says_otherwise(case: Instance) -> None:
    question = case.question
    for chosen in subsets(question.size):
        kept = mask(chosen, question.size)
        assert question.sufficient(kept) is case.suffices(chosen)
        exact = [question.exact_slack(k, ~kept) for k in range(len(case.bias)) if k != case.target]
        assert all(value > 0 for value in exact) is case.suffices(chosen)


@settings(deadline=None, max_examples=150)
@given(st.one_of(instances(), instances(NASTY)), st.randoms(use_true_random=False))
def test_made_smaller_until_nothing_can_go(case: Instance, chance: object) -> None:
    question = case.question
    axps, cxps = case.minimal(Kind.AXP), case.minimal(Kind.CXP)
    everything = frozenset(range(question.size))
    order = list(everything)
    chance.shuffle(order)  # type: ignore[attr-defined]  # a random.Random
    for chosen in subsets(question.size):
        for way in (None, order):
            if case.suffices(chosen):
                axp = places(question.smaller_kept(mask(chosen, question.size), way))
                assert axp <= chosen
                assert axp in axps
            if not case.suffices(everything - chosen):
                cxp = places(question.smaller_freed(mask(chosen, question.size), way))
                assert cxp <= chosen
                assert cxp in cxps


@settings(deadline=None, max_examples=80)
@given(st.one_of(instances(), instances(NASTY)))
def test_all_explanations_are_found_and_hit_each_other(case: Instance) -> None:
    for kind in (None, "axp", "cxp"):
        found = enumerate_explanations(case.question, 1000, kind)
        assert found.complete
        assert set(map(frozenset, found.axps)) == case.minimal(Kind.AXP)
        assert set(map(frozenset, found.cxps)) == case.minimal(Kind.CXP)
        assert len(set(found.axps)) == len(found.axps)
        assert all(set(a) & set(c) for a in found.axps for c in found.cxps)


@settings(deadline=None, max_examples=80)
@given(st.one_of(instances(), instances(NASTY)))
def test_smallest_ones_are_the_smallest(case: Instance) -> None:
    question, everything = case.question, frozenset(range(len(case.units)))
    axps, cxps = case.minimal(Kind.AXP), case.minimal(Kind.CXP)
    smallest = smallest_axp(question)
    assert (smallest is None) is not case.suffices(everything)
    if smallest is not None:
        assert smallest.is_smallest
        assert places(smallest.chosen) in axps
        assert smallest.lower == min(map(len, axps))
    contrast = smallest_cxp(question)
    assert (contrast is None) is case.suffices(frozenset())
    if contrast is not None:
        assert places(contrast.chosen) in cxps
        assert contrast.lower == min(map(len, cxps))
    if smallest is not None and contrast is not None:
        for kind, own in (("axp", axps), ("cxp", cxps)):
            hitting = smallest_by_hitting(question, kind)
            assert hitting.is_smallest
            assert places(hitting.chosen) in own
            assert hitting.lower == min(map(len, own))


@settings(deadline=None, max_examples=120)
@given(st.one_of(instances(), instances(NASTY)))
def test_the_search_for_a_smallest_one_needs_no_good_start(case: Instance) -> None:
    """From the worst start it ends at the best, and no bound on its way is too high."""
    question = case.question
    everything = np.ones(question.size, dtype=bool)
    if not question.sufficient(everything):
        return
    least = min(map(len, case.minimal(Kind.AXP)))
    cover = Cover.of(question)
    for unit in (None, *range(question.size)):
        branch = Branch.root(question.size)
        if unit is not None:
            branch = Branch(np.arange(question.size) == unit, branch.given_up, 0)
        sizes = [
            len(chosen | {unit} if unit is not None else chosen)
            for chosen in subsets(question.size)
            if case.suffices(chosen | {unit} if unit is not None else chosen)
        ]
        assert cover.relaxed(branch)[0] <= min(sizes)
    found = cover.proved(question, everything, monotonic() + 60)
    assert found.is_smallest
    assert found.lower == least
    assert case.suffices(places(found.chosen))
    none = cover.proved(question, everything, monotonic())
    assert none.lower <= least


@settings(deadline=None, max_examples=80)
@given(st.one_of(instances(), instances(NASTY)))
def test_the_worst_point_is_one_where_the_lead_is_least(case: Instance) -> None:
    question = case.question
    rivals = [k for k in range(len(case.bias)) if k != case.target]
    for chosen in subsets(question.size):
        freed = ~mask(chosen, question.size)
        if not rivals:
            with pytest.raises(BadUsage, match="no rival"):
                question.worst_point(freed)
            continue
        point, rival = question.worst_point(freed)
        logits = [
            sum((w * z for w, z in zip(row, point.fractions(), strict=True)), bias)
            for row, bias in zip(case.weight, case.bias, strict=True)
        ]
        least = min(question.exact_slack(k, freed) for k in rivals)
        assert logits[case.target] - logits[rival] == least
        assert (least > 0) is case.suffices(chosen)
        assert case.domain.contains(point)
        for unit in chosen:
            j, low, high = case.units[unit]
            assert low <= point.fractions()[j] <= high


def test_random_large_heads_agree_with_exact_sums() -> None:
    """At a size where rounding counts: what is given up last leaves every exact slack positive."""
    random = np.random.default_rng(2)
    weight = random.normal(size=(20, 60)).astype(np.float32).astype(np.float64)
    points = np.abs(random.normal(size=(4, 60))).astype(np.float32)
    head = LinearHead(Affine(weight, np.zeros(20)))
    domain = box(from_array(points.min(axis=0)), from_array(points.max(axis=0)))
    for point in points:
        z, target = from_array(point), int((weight @ point).argmax())
        units = Units(tuple(map(str, range(60))), np.arange(60), z, z)
        question = LinearQuestion.of(head, target, domain, units)
        kept = question.smaller_kept(np.ones(60, dtype=bool))
        freed = question.smaller_freed(np.ones(60, dtype=bool))
        rivals = [k for k in range(20) if k != target]

        def wins(given_up: Bools, one: LinearQuestion, against: list[int]) -> bool:
            return all(one.exact_slack(k, given_up) > 0 for k in against)

        assert wins(~kept, question, rivals)
        assert not wins(freed, question, rivals)
        for unit in np.flatnonzero(kept):
            assert not wins(~kept | (np.arange(60) == unit), question, rivals)
        for unit in np.flatnonzero(freed):
            assert wins(freed & (np.arange(60) != unit), question, rivals)
        small = smallest_axp(question, 0.5)
        assert small is not None
        assert small.lower <= small.chosen.sum() <= kept.sum()
        assert wins(~small.chosen, question, rivals)


def test_a_tie_that_float64_does_not_see_is_a_tie() -> None:
    """0.1 + 0.2 − 0.3 is 2.8e-17 as exact float64 numbers, and 5.6e-17 in float64 arithmetic."""
    rest = float(Fraction(0.1) + Fraction(0.2) - Fraction(0.3))
    for bias, expected in ((0.0, True), (rest, False), (-rest, True)):
        weight = [[Fraction(v) for v in (0.1, 0.2, -0.3)], [Fraction(0)] * 3]
        one = Fraction(1)
        units = [(j, one, one) for j in range(3)]
        case = Instance(weight, [Fraction(0), Fraction(bias)], 0, [one] * 3, [one] * 3, units)
        assert case.question.sufficient(np.zeros(3, dtype=bool)) is expected
        assert case.suffices(frozenset()) is expected


def test_units_that_make_no_sense_are_refused() -> None:
    zero, one, two = Fraction(0), Fraction(1), Fraction(2)

    def refused(match: str, *units: tuple[int, Fraction, Fraction]) -> None:
        case = Instance([[one], [zero]], [one, zero], 0, [zero], [two], list(units))
        with pytest.raises(BadUsage, match=match):
            _ = case.question

    refused("reach out of the domain", (0, zero, Fraction(3)))
    refused("reach out of the domain", (0, two, one))
    refused("feature 1; there are 1", (1, zero, one))
    refused("two units bound the same side", (0, one, one), (0, one, two))
    with pytest.raises(BadUsage, match="a name, a feature and two bounds"):
        Units(("a",), np.array([0, 1]), vector([zero]), vector([one]))


# --- on bundles --------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[False, True], ids=["nonnegative", "signed"])
def lens(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lens:
    folder = tmp_path_factory.mktemp("why") / "bundle"
    return write_random(folder, seed=8, signed=request.param)


def vocabulary(lens: Lens, quantile: str = "0.3") -> Vocabulary:
    layer, z = last_layer(lens)
    predicted = layer.predicted(z)
    return fit(layer, z, predicted, predicted, Fraction(quantile))


def cases(lens: Lens, image: int) -> Iterator[Case]:
    layer = ExactLayer.of(lens)
    label = subject_of(layer, image).label
    for region in (None, f.Focus(label, Fraction("0.4")), f.Focus(label, Fraction(2))):
        yield feature_case(layer, image, region)
        yield predicate_case(layer, image, vocabulary(lens), region)
        yield concept_case(layer, image, UnitKind.CONCEPTS, region)
        yield concept_case(layer, image, UnitKind.SCORES, region)


@pytest.mark.parametrize("image", [0, 31, 75])
def test_each_explanation_is_established_by_the_checker(lens: Lens, image: int) -> None:
    bundle, seen = Bundle(lens.root), set()
    for case in cases(lens, image):
        assert case.spec_of is not None
        for kind in Kind:
            found = reasons(case, kind, most=3)
            seen.add(found.outcome)
            if found.outcome is Outcome.INSUFFICIENT:
                assert found.whole is not None
                assert isinstance(_verdict(found.whole, lens), Violated)
            for reason in found.reasons:
                assert reason.spec is not None
                (result,) = verify_suite(f.Suite((reason.spec,)), lens)
                expected = (Proved, "proof") if kind is Kind.AXP else (Violated, "counterexample")
                assert isinstance(result.verdict, expected[0]), reason.spec
                assert check_line(to_json(result, lens), bundle) == expected[1]
                chosen = mask(frozenset(reason.units), case.question.size)
                for unit in reason.units:
                    less = chosen & (np.arange(len(chosen)) != unit)
                    spec = case.spec_of(less if kind is Kind.AXP else ~less, "less")
                    verdict = _verdict(spec, lens)
                    assert isinstance(verdict, Violated if kind is Kind.AXP else Proved)
    assert {Outcome.EXPLAINED, Outcome.INSUFFICIENT} <= seen


def _verdict(spec: f.ForAll, lens: Lens) -> object:
    (query,) = queries_of(spec, lens, space_of(lens))
    return verify(query)


def test_the_domain_holds_the_image_and_says_how_far_it_was_widened(lens: Lens) -> None:
    layer = ExactLayer.of(lens)
    observed = embedding_domain(layer, 1)
    training = lens.embeddings.z[~lens.embeddings.heldout]
    assert observed.widened == 0
    assert np.array_equal(observed.box.lower.floats(), training.min(axis=0))
    point = embedding_domain(layer, 1, f.Focus("truck", Fraction(0)))
    assert point.widened == lens.dim
    assert isinstance(point.region, f.Box)
    for image in range(lens.count):
        found = embedding_domain(layer, image, f.Focus("truck", Fraction(1)))
        assert found.box.contains(from_array(lens.embeddings.z[image]))
        assert (found.widened > 0) is isinstance(found.region, f.Box)


def test_regions_that_are_no_boxes_are_refused(lens: Lens) -> None:
    layer = ExactLayer.of(lens)
    with pytest.raises(BadRegion, match="needs a box"):
        feature_case(layer, 0, f.Ball(0, Fraction(1), f.Norm.L2))
    focus = f.Focus("truck", Fraction(1))
    with pytest.raises(BadRegion, match="needs a box"):
        feature_case(layer, 0, f.Either((focus, focus)))
    with pytest.raises(BadRegion, match="is empty"):
        feature_case(layer, 0, f.Box((Fraction(1),), (Fraction(0),)))
    with pytest.raises(BadRegion, match="no image 9000"):
        feature_case(layer, 9000)


def test_an_image_whose_classes_tie_has_no_prediction(tmp_path: Path) -> None:
    lens = write_random(tmp_path / "bundle", seed=8, signed=False)
    layer = ExactLayer.of(lens)
    same = Affine(np.zeros((3, 4)), np.zeros(3))
    object.__setattr__(layer, "head", LinearHead(same))
    with pytest.raises(BadUsage, match="two classes tie"):
        feature_case(layer, 0)


def test_hidden_heads_are_explained_by_their_last_layer(tmp_path: Path) -> None:
    lens = write_skewed(tmp_path / "relu", hidden=True)
    layer = ExactLayer.of(lens)
    case = feature_case(layer, 3)
    assert len(case.names) == layer.space.head.affines[-1].inputs
    assert case.spec_of is None
    (reason,) = reasons(case, Kind.AXP).reasons
    assert reason.spec is None
    question = case.question
    assert isinstance(question, LinearQuestion)
    lower, upper = question.clipped(mask(frozenset(reason.units), question.size))
    weight, bias = layer.head.affine.floats
    samples = np.random.default_rng(0).uniform(lower.floats(), upper.floats(), (500, question.size))
    assert (samples @ weight.T + bias).argmax(axis=1).tolist() == [question.target] * 500
    with pytest.raises(BadUsage, match="leave the region out"):
        feature_case(layer, 3, f.Focus("truck", Fraction(1)))
    with pytest.raises(BadUsage, match="does not speak of the neurons"):
        subject_of(layer, 3).feature_spec(question, np.ones(question.size, dtype=bool), "x")
    found = predicate_case(layer, 3, vocabulary(lens))
    assert reasons(found, Kind.AXP).outcome in (Outcome.EXPLAINED, Outcome.INSUFFICIENT)


def test_concepts_of_a_hidden_head_go_through_the_verifier(tmp_path: Path) -> None:
    lens = write_skewed(tmp_path / "relu", hidden=True)
    case = concept_case(ExactLayer.of(lens), 3, UnitKind.SCORES, f.Focus("truck", Fraction("0.3")))
    found = reasons(case, Kind.AXP)
    assert case.spec_of is not None
    assert found.outcome is not Outcome.INSUFFICIENT
    for reason in found.reasons:
        assert reason.spec is not None
        assert isinstance(_verdict(reason.spec, lens), Proved)


def test_answers_of_the_verifier_are_kept_and_used_again(lens: Lens) -> None:
    layer, asked, calls, mixed = ExactLayer.of(lens), 0, 0, 0
    assert len(ranking_units(lens, 0)) == len(lens.concepts) - 1
    for image, gamma in product((0, 31, 75), ("0.4", "0.7", "1", "1.6")):
        label = subject_of(layer, image).label
        domain = embedding_domain(layer, image, f.Focus(label, Fraction(gamma)))
        for units in (ranking_units(lens, image), score_units(lens, image)):
            shared, answers = concept_question(lens, image, domain.region, label, units), set()
            chance = list(subsets(len(units)))
            np.random.default_rng(image).shuffle(chance)  # any sequence
            for chosen in chance:
                kept = mask(chosen, len(units))
                alone = concept_question(lens, image, domain.region, label, units)
                answers.add(alone.sufficient(kept))
                assert shared.sufficient(kept) is alone.sufficient(kept)
                asked += alone.calls
            before = shared.calls
            assert shared.sufficient(mask(chance[0], len(units))) in answers
            assert shared.calls == before
            calls, mixed = calls + before, mixed + (answers == {True, False})
    assert mixed >= 1
    assert calls < asked / 2


def test_units_that_do_not_hold_are_refused(lens: Lens) -> None:
    (first, *_) = ranking_units(lens, 0)
    with pytest.raises(BadUsage, match="does not satisfy"):
        concept_question(
            lens, 0, f.Focus("truck", Fraction(1)), "truck", [f.Stronger(first.b, first.a)]
        )
    with pytest.raises(BadUsage, match="are no concepts"):
        concept_case(ExactLayer.of(lens), 0, UnitKind.FEATURES)


def test_a_predicate_that_does_not_hold_is_no_unit(lens: Lens) -> None:
    subject = subject_of(ExactLayer.of(lens), 0)
    words = vocabulary(lens, "0.9")
    z = lens.embeddings.z[:1]
    inactive = next(predicate for predicate in words if not predicate.holds(z)[0])
    with pytest.raises(BadUsage, match="image 0 does not satisfy"):
        subject.predicates([inactive])
