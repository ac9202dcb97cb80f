"""Rules, their statistics, their names and their files, against brute force."""

import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from conspec.analysis.names import evidence
from conspec.analysis.pathways import LastLayer, last_layer, pathways
from conspec.analysis.predicates import Fitting, Vocabulary, explain
from conspec.analysis.rule_files import Saved, load, save, to_suite
from conspec.analysis.rule_statistics import (
    by_class,
    concentration,
    occurrences,
    quality,
    reuse,
    trade_off,
    usage,
)
from conspec.analysis.rules import (
    ABSTAIN,
    PAPER,
    Resolution,
    Rule,
    RuleSet,
    Settings,
    learn,
    local_rule,
    local_rules,
    without_superfluous,
)
from conspec.cli.inputs import SHIPPED
from conspec.lens import Lens
from conspec.specs import parse, to_text
from conspec.specs.columns import ScoreBatch
from conspec.specs.errors import BadFile, BadUsage
from conspec.specs.formula import ForAll, Implies, Predict
from conspec.specs.semantics import Scores, holds, truth
from conspec.verifier.probability.intervals import clopper_pearson, holm
from tests.bundles import write_skewed, write_tiny

NAMES = ("truck", "sea lion", "bird")
ALL = [
    Settings(Fraction(0), 0, 1, 1),
    Settings(Fraction(1, 5), 1, 2, 2, Resolution.LENGTH),
    Settings(Fraction(1, 20), 2, 1, 1, Resolution.PRECISION, abstain=True),
]


def learnt(seed: int, chosen: Settings, count: int = 60) -> tuple[RuleSet, Any, Any, Any]:
    """A rule set of a random layer, and the images that it was learnt from."""
    random = np.random.default_rng(seed)
    layer = LastLayer(random.normal(size=(3, 6)), random.normal(size=3))
    z = np.round(random.normal(size=(count, 6)), 1).astype(np.float32)
    predicted = layer.predicted(z)
    label = np.where(random.random(count) < 0.8, predicted, random.integers(0, 3, count))
    return learn(NAMES, layer, (z, predicted, label), chosen), z, predicted, label


def satisfies(rules: RuleSet, rule: Rule, z: Any) -> bool:
    """Whether one image satisfies a rule, number by number."""
    return all(
        (z[p.feature] >= p.threshold if p.sign > 0 else z[p.feature] <= p.threshold)
        for p in rules.predicates(rule)
    )


@given(st.integers(0, 10_000), st.sampled_from(ALL))
@settings(deadline=None, max_examples=60)
def test_answers_are_those_of_a_search_through_all_rules(seed: int, chosen: Settings) -> None:
    rules, _, predicted, _ = learnt(seed, chosen)
    z = np.round(np.random.default_rng(seed + 1).normal(size=(25, 6)), 1).astype(np.float32)
    found = rules.answers(z)
    counts = np.bincount(predicted, minlength=3)

    def rank(rule: Rule) -> tuple[Any, ...]:
        length, weight = len(rule.predicates), Fraction(rule.right + 1, rule.covered + 2)
        first: tuple[Any, ...] = (-weight, -length)
        if chosen.resolution is Resolution.LENGTH:
            first = (-length, -weight)
        return (*first, -rule.support, rule.label, *rule.predicates)

    for row in range(len(z)):
        matching = [rule for rule in rules.rules if satisfies(rules, rule, z[row])]
        labels = {rule.label for rule in matching}
        assert (found.rules[row], found.classes[row]) == (len(matching), len(labels))
        rest = sorted(set(range(3)) - labels, key=lambda c: (-counts[c], c))
        if not matching:
            assert found.rule[row] == -1
            assert found.predicted[row] == (ABSTAIN if chosen.abstain else counts.argmax())
            assert found.ranking[row].tolist() == rest
            continue
        order = sorted(matching, key=rank)
        assert rules.rules[found.rule[row]] == order[0]
        assert found.predicted[row] == order[0].label
        first = list(dict.fromkeys(rule.label for rule in order))
        assert found.ranking[row].tolist() == first + rest


@given(st.integers(0, 10_000), st.sampled_from(ALL))
@settings(deadline=None, max_examples=60)
def test_rules_are_the_local_ones_of_source_images_pruned(seed: int, chosen: Settings) -> None:
    rules, z, predicted, label = learnt(seed, chosen)
    layer = _layer(seed)
    fitting = Fitting(layer, chosen.ahead)
    found = fitting.add(z, predicted, label)
    words = fitting.vocabulary(chosen.quantile, chosen.predicate_support)
    assert list(words) == list(rules.vocabulary)
    explained = explain(words, found)
    drafts: Counter[tuple[int, frozenset[int]]] = Counter()
    for row in range(len(found.predicted)):
        if len(explained.of(row)):
            drafts[int(found.predicted[row]), frozenset(explained.of(row).tolist())] += 1
    assert drafts == {(c, frozenset(p)): n for (c, p), n in local_rules(explained).items()}
    supported = {key: n for key, n in drafts.items() if n >= chosen.rule_support}
    for rule in rules.rules:
        assert supported[rule.label, frozenset(rule.predicates)] == rule.support
        matching = np.array([satisfies(rules, rule, row) for row in z])
        assert rule.covered == matching.sum() >= rule.support
        assert rule.right == (matching & (predicted == rule.label)).sum()
    # Pruning changes no match of a class.
    for row in z:
        for c in range(3):
            kept = any(satisfies(rules, rule, row) for rule in rules.of_class(c))
            whole = any(
                all(words[p].holds(row[None])[0] for p in places)
                for label_of, places in supported
                if label_of == c
            )
            assert kept == whole
    ranks = [(rule.label, rules.priority[i]) for i, rule in enumerate(rules.rules)]
    assert ranks == sorted(ranks)


def _layer(seed: int) -> LastLayer:
    random = np.random.default_rng(seed)
    return LastLayer(random.normal(size=(3, 6)), random.normal(size=3))


def test_a_longer_rule_stays_only_if_it_is_more_precise() -> None:
    general = Rule(0, (1,), 5, 10, 8)
    as_precise = Rule(0, (1, 2), 3, 5, 4)
    more_precise = Rule(0, (1, 3), 3, 5, 5)
    other_class = Rule(1, (1, 2), 3, 5, 4)
    another = Rule(0, (2, 3), 1, 4, 1)
    every = [as_precise, more_precise, other_class, another, general]
    assert set(without_superfluous(every)) == {general, more_precise, other_class, another}


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.frozensets(st.integers(0, 4), min_size=1),
            st.integers(0, 3),
            st.integers(1, 3),
        ),
        max_size=12,
        unique_by=lambda draft: draft[:2],
    )
)
@settings(deadline=None)
def test_pruning_is_that_of_all_pairs(drafts: list[tuple[int, frozenset[int], int, int]]) -> None:
    rules = [Rule(c, tuple(sorted(p)), 1, k + n, k) for c, p, k, n in drafts]
    wanted = [
        rule
        for rule in rules
        if not any(
            other.label == rule.label
            and set(other.predicates) < set(rule.predicates)
            and Fraction(other.right, other.covered) >= Fraction(rule.right, rule.covered)
            for other in rules
        )
    ]
    assert set(without_superfluous(rules)) == set(wanted)


@given(st.integers(0, 10_000), st.sampled_from(ALL))
@settings(deadline=None, max_examples=30)
def test_every_source_image_with_a_kept_local_rule_matches_a_rule_of_its_class(
    seed: int, chosen: Settings
) -> None:
    rules, z, predicted, label = learnt(seed, replace(chosen, rule_support=1))
    for row in np.flatnonzero(predicted == label):
        local = local_rule(_layer(seed), rules, z[row], int(predicted[row]))
        assert all(slack >= 0 for slack in local.slack)
        assert local.needed + chosen.ahead >= len(local.pathway)
        if local.predicates:
            assert any(satisfies(rules, r, z[row]) for r in rules.of_class(local.label))
        elif chosen.quantile == 0:
            pytest.fail("with extremal thresholds each source image has a local rule")


def test_rules_of_nothing_say_the_default(tmp_path: Path) -> None:
    rules, z, _, _ = learnt(1, replace(PAPER, rule_support=1000))
    assert rules.rules == ()
    found = rules.answers(z)
    assert set(found.predicted) == {rules.default}
    assert found.rules.sum() == 0
    assert rules.answers(z[:0]).ranking.shape == (0, 3)
    saved = Saved(rules, "h", hidden=False)
    save(saved, tmp_path / "r.json")
    assert load(tmp_path / "r.json").rules.rules == ()


def test_nothing_is_learnt_without_a_correct_image() -> None:
    layer = LastLayer(np.eye(2), np.zeros(2))
    images = (np.ones((2, 2)), np.array([0, 0]), np.array([1, -1]))
    with pytest.raises(BadUsage, match="no training image is classified correctly"):
        learn(("a", "b"), layer, images)


def test_other_features_are_refused() -> None:
    rules, *_ = learnt(0, PAPER)
    with pytest.raises(BadUsage, match="the rules are about 6 features"):
        rules.answers(np.ones((2, 5), np.float32))


# --- Con_spec and JSON -----------------------------------------------------------------------


@given(st.integers(0, 10_000), st.sampled_from(ALL))
@settings(deadline=None, max_examples=25)
def test_the_suite_means_what_the_rules_do(seed: int, chosen: Settings) -> None:
    rules, z, _, _ = learnt(seed, chosen)
    text = to_text(to_suite(Saved(rules, "h", hidden=False), "0.3"))
    if not rules.rules:
        assert text == ""
        return
    suite = parse(text, classes=NAMES)
    assert len(suite.specs) == len(rules.rules)
    exact = rules.vocabulary.threshold.astype(np.float32)
    random = np.random.default_rng(seed)
    points = np.concatenate([z, random.normal(size=(20, 6)).astype(np.float32)])
    points[::3, rules.vocabulary.feature[0]] = exact[0]  # exactly at a threshold
    batch = ScoreBatch(
        logits=np.zeros((len(points), 3)),
        concepts=np.zeros((len(points), 1)),
        class_names=NAMES,
        concept_names=("wheels",),
        embeddings=points.astype(np.float64),
    )
    matches = rules.matches(points)
    for place, spec in enumerate(suite.specs):
        assert isinstance(spec, ForAll)
        assert isinstance(spec.body, Implies)
        assert spec.body.conclusion == Predict(NAMES[rules.rules[place].label])
        np.testing.assert_array_equal(truth(spec.body.premise, batch), matches[:, place])
        scores = Scores({}, {}, embedding=points[0].tolist())
        assert holds(spec.body.premise, scores) == matches[0, place]


def test_a_suite_needs_the_embedding_and_a_scale() -> None:
    rules, *_ = learnt(2, PAPER)
    with pytest.raises(BadUsage, match="hidden layer of the head"):
        to_suite(Saved(rules, "h", hidden=True), "0.3")
    for wrong in ("wide", "-1", "1/0"):
        with pytest.raises(BadUsage, match=f"gamma {wrong}: must"):
            to_suite(Saved(rules, "h", hidden=False), wrong)


@given(st.integers(0, 10_000), st.sampled_from(ALL), st.booleans())
@settings(deadline=None, max_examples=20)
def test_json_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, seed: int, chosen: Settings, hidden: bool
) -> None:
    path = tmp_path_factory.mktemp("rules") / "rules.json"
    rules, z, _, _ = learnt(seed, chosen)
    save(Saved(rules, "abc", hidden), path)
    found = load(path)
    assert (found.bundle, found.hidden) == ("abc", hidden)
    again = found.rules
    assert (again.names, again.rules, again.settings) == (rules.names, rules.rules, chosen)
    assert list(again.vocabulary) == list(rules.vocabulary)
    assert again.vocabulary.sources.tolist() == rules.vocabulary.sources.tolist()
    for name in ("predicted", "rule", "ranking"):
        np.testing.assert_array_equal(
            getattr(again.answers(z), name), getattr(rules.answers(z), name)
        )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rules, *_ = learnt(4, PAPER)
    save(Saved(rules, "abc", hidden=False), tmp_path / "rules.json")
    return tmp_path / "rules.json"


def test_damaged_files_are_refused(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    document = json.loads(text)
    for key in document:
        less = {name: value for name, value in document.items() if name != key}
        file.write_text(json.dumps(less), encoding="utf-8")
        with pytest.raises(BadFile, match=r"rules\.json: "):
            load(file)
    document["predicates"][0][3] += 1e-9
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(BadFile, match="changed or damaged after it was written"):
        load(file)
    file.write_text(text[:-40], encoding="utf-8")
    with pytest.raises(BadFile, match=r"rules\.json"):
        load(file)
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(BadFile, match="no rule set; 'conspec rules extract' writes one"):
        load(file)
    file.write_text(json.dumps({"format": "conspec-rules", "version": 9}), encoding="utf-8")
    with pytest.raises(BadFile, match="rules of format 9, this conspec reads 1"):
        load(file)


def test_rule_sets_that_cannot_be_are_refused(tmp_path: Path) -> None:
    rules, *_ = learnt(4, PAPER)
    words = rules.vocabulary
    broken = [
        replace(rules, vocabulary=replace(words, sign=0 * words.sign)),
        replace(rules, rules=(), vocabulary=replace(words, label=words.label[::-1].copy())),
        replace(rules, vocabulary=replace(words, feature=words.feature + 6)),
        replace(rules, rules=(Rule(0, (len(words),), 1, 1, 1),)),
        replace(rules, rules=(Rule(0, (), 1, 1, 1),)),
        replace(rules, rules=(Rule(2, (0,), 1, 1, 1),)),
    ]
    for number, each in enumerate(broken):
        path = tmp_path / f"{number}.json"
        save(Saved(each, "h", hidden=False), path)
        with pytest.raises(BadFile, match="no rule set"):
            load(path)


# --- statistics ------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.sampled_from(ALL))
@settings(deadline=None, max_examples=25)
def test_quality_counts_images(seed: int, chosen: Settings) -> None:
    rules, *_ = learnt(seed, chosen)
    random = np.random.default_rng(seed)
    z = random.normal(size=(30, 6)).astype(np.float32)
    predicted, label = _layer(seed).predicted(z), random.integers(-1, 3, 30)
    answers = rules.answers(z)
    rows = range(len(z))
    covered = [row for row in rows if answers.rule[row] >= 0]
    known = [row for row in rows if label[row] >= 0]
    right = [row for row in rows if answers.predicted[row] == predicted[row]]
    found = quality(rules, z, predicted, label)
    assert (found.coverage.count, found.coverage.total) == (len(covered), 30)
    assert found.precision.count == len(set(covered) & set(right))
    assert found.precision.total == len(covered)
    assert found.fidelity.count == len(right)
    assert found.accuracy is not None
    assert found.accuracy.total == len(known)
    assert found.accuracy.count == sum(answers.predicted[row] == label[row] for row in known)
    assert found.accuracy5 is not None
    ranked = [row for row in known if row in covered or not chosen.abstain]
    assert found.accuracy5.count == len(ranked)  # three classes, so all are among five
    assert found.overlap.count == (answers.rules > 1).sum()
    assert found.conflict.count == (answers.classes > 1).sum()
    interval = clopper_pearson(found.fidelity.count, 30, 0.95)
    assert (found.fidelity.lower, found.fidelity.upper) == interval
    for place, row in enumerate(by_class(rules, z, predicted)):
        said, own = answers.predicted == place, predicted == place
        assert (row.recall.count, row.recall.total) == ((said & own).sum(), own.sum())
        assert (row.precision.count, row.precision.total) == ((said & own).sum(), said.sum())
    unknown = quality(rules, z, predicted, np.full(30, -1))
    assert unknown.accuracy is None
    assert unknown.accuracy5 is None


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_statistics_of_predicates(seed: int) -> None:
    rules, *_ = learnt(seed, ALL[1])
    z = np.random.default_rng(seed).normal(size=(30, 6)).astype(np.float32)
    layer, words = _layer(seed), rules.vocabulary
    explained = explain(words, pathways(layer, z))
    predicted, rows = explained.pathways.predicted, range(30)
    found = usage(words, explained, z)
    active = [
        sum(p.label == predicted[i] and p.holds(z[i : i + 1])[0] for p in words) for i in rows
    ]
    assert found.active == (np.median(active), np.mean(active))
    assert found.selected[0] == np.median([len(explained.pathways.of(i)) for i in rows])
    assert found.unexplained.count == sum(len(explained.of(i)) == 0 for i in rows)
    assert found.retained.total == found.eligible.count == explained.eligible.sum()
    pairs = [(p.label == predicted[i], p) for i in rows for p in words if p.holds(z[i : i + 1])[0]]
    trade = trade_off(words, explained, z)
    assert (trade.precision.count, trade.precision.total) == (sum(o for o, _ in pairs), len(pairs))

    counts, images = occurrences(explained, 3), explained.pathways.images_by_class(3)
    for c in range(3):
        for signed in range(12):
            assert counts[c, signed] == sum(
                predicted[i] == c and signed in _signed(explained, i) for i in rows
            )
    few = concentration(counts, images)
    for c in range(3):
        ranked = sorted(counts[c].tolist(), reverse=True)
        for place, share in enumerate((0.5, 0.8, 0.9)):
            wanted = 0
            while sum(ranked[:wanted]) < share * sum(ranked):
                wanted += 1
            assert few.fewest[c, place] == wanted
        for place, cut in enumerate((0.01, 0.05, 0.1, 0.25)):
            frequent = sum(n >= cut * images[c] for n in ranked) if images[c] else 0
            assert few.frequent[c, place] == frequent
    shared = reuse(counts, images)
    assert all(a >= b for a, b in pairwise(shared.classes.tolist()))
    for place, signed in enumerate(shared.features):
        shares = [counts[c, signed] / images[c] if images[c] else 0 for c in range(3)]
        assert shared.classes[place] == sum(share >= 0.01 for share in shares)
        parts = np.array(shares) / sum(shares)
        assert shared.entropy[place] == pytest.approx(stats.entropy(parts, base=2))
        assert shared.concentration[place] == pytest.approx((parts**2).sum())


def _signed(explained: Any, row: int) -> set[int]:
    part = slice(*explained.pathways.starts[row : row + 2])
    return set(explained.pathways.signed[part].tolist())


# --- names -----------------------------------------------------------------------------------


def test_names_are_the_concepts_that_features_are_about(tmp_path: Path) -> None:
    lens = write_tiny(tmp_path / "lens")  # score k is feature k, and so is logit k for k < 3
    rules, words, found = _named(lens)
    named = found.names(confidence=0.95)
    assert len(rules.rules) >= 3
    for predicate, name in zip(words, named, strict=True):
        assert name is not None
        assert name.concept == lens.concepts[predicate.feature]
        assert name.direction == pytest.approx(1)
        assert str(name) == name.concept


def test_differences_are_those_of_welch_and_holm() -> None:
    lens = Lens.load(SHIPPED["emoji10"])
    _, words, found = _named(lens)
    data = lens.embeddings
    train, z = ~data.heldout, data.z
    unit = data.vlm / np.linalg.norm(data.vlm.astype(np.float64), axis=1, keepdims=True)
    scores = (unit @ data.directions.T.astype(np.float64))[train]
    plain = np.ones((len(words), len(lens.concepts)))
    for place, predicate in enumerate(words):
        active = predicate.holds(z)[train]
        if min(active.sum(), (~active).sum()) < 5:
            continue
        a, b = scores[active], scores[~active]
        np.testing.assert_allclose(
            found.difference[place], a.mean(axis=0) - b.mean(axis=0), atol=1e-9
        )
        plain[place] = stats.ttest_ind(a, b, equal_var=False).pvalue
        pooled = ((len(a) - 1) * a.var(axis=0, ddof=1) + (len(b) - 1) * b.var(axis=0, ddof=1)) / (
            len(a) + len(b) - 2
        )
        effect = (a.mean(axis=0) - b.mean(axis=0)) / np.sqrt(pooled)
        np.testing.assert_allclose(found.effect[place], effect, atol=1e-6)
    wanted = holm(plain.ravel()).reshape(plain.shape)
    np.testing.assert_allclose(found.p_value, wanted, rtol=1e-5, atol=1e-12)
    for name, row in zip(found.names(), range(len(words)), strict=True):
        fits = (
            (found.p_value[row] <= 0.05)
            & (found.effect[row] >= 0.5)
            & (found.direction[row] > found.least_cosine)
        )
        assert (name is not None) == bool(fits.any())
        if name is not None:
            assert name.effect == found.effect[row][fits].max()


def test_nothing_fits_what_goes_with_no_concept(tmp_path: Path) -> None:
    lens = write_tiny(tmp_path / "lens")
    _, words, _ = _named(lens)
    random = np.random.default_rng(0).random((lens.count, len(words))) < 0.5
    every = np.ones(lens.count, bool)
    assert set(evidence(lens, words, random, every).names()) == {None}
    always = evidence(lens, words, np.ones_like(random), every)
    assert set(always.names()) == {None}
    assert (always.p_value == 1).all()
    backwards = replace(words, sign=-words.sign)
    active = words.active(lens.embeddings.z)
    assert set(evidence(lens, backwards, active, every).names()) == {None}


def test_hidden_layers_get_no_names(tmp_path: Path) -> None:
    lens = write_skewed(tmp_path / "lens", hidden=True)
    layer, z = last_layer(lens)
    data = lens.embeddings
    images = (z, layer.predicted(z), layer.predicted(z))
    rules = learn(lens.classes, layer, images)
    words = rules.vocabulary
    with pytest.raises(BadUsage, match="predicates of a hidden layer get no names"):
        evidence(lens, words, words.active(z), ~data.heldout)


def _named(lens: Lens) -> tuple[RuleSet, Vocabulary, Any]:
    layer, z = last_layer(lens)
    data = lens.embeddings
    train = ~data.heldout
    images = (z[train], data.predicted[train], data.label[train])
    rules = learn(lens.classes, layer, images, PAPER)
    words = rules.vocabulary
    return rules, words, evidence(lens, words, words.active(z), train)
