"""The runtime monitor: its score, its guarantee, its files, and what is proved about it."""

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from conspec.analysis.calibration import (
    ALWAYS,
    NEVER,
    Calibration,
    Drift,
    calibrated,
    conformal_threshold,
    rate_of,
    rates,
    usual_rate,
)
from conspec.analysis.heatmaps import Kind, grouped, summary
from conspec.analysis.monitor import LEAST, Monitor, Readout, Reference, Rule, monitor_of
from conspec.analysis.monitor_export import ABOUT, ARRAYS, MODEL, Saved, load, save, to_onnx
from conspec.analysis.monitor_proof import Claim, soundness
from conspec.analysis.monitor_spec import acceptance, acceptance_spec
from conspec.analysis.proof_index import ProofIndex, Walls
from conspec.analysis.similarity import Measure, similarities
from conspec.encodings.exact import from_array, vector
from conspec.encodings.query import space_of
from conspec.encodings.regions import box, build_regions
from conspec.lens.bundle import Lens
from conspec.lens.onnx_files import open_session
from conspec.specs import ScoreBatch, parse, truth
from conspec.specs import formula as f
from conspec.specs.errors import BadFile, BadUsage, UnknownName
from conspec.specs.parser import parse_region
from conspec.specs.printer import to_text
from conspec.verifier import Proved, Unknown, Violated, verify_suite
from conspec.verifier.results import to_json
from tests.bundles import write_random, write_skewed, write_tiny

RULES = list(Rule)
CHANCE = 1e-9
"""Bound of the probability that a correct program fails a statistical test here."""


def readout(seed: int, hidden: int = 0, size: int = 6, concepts: int = 5) -> Readout:
    """Random maps; with a hidden layer if asked."""
    random = np.random.default_rng(seed)
    sizes = [size, *([hidden] if hidden else []), 3]
    layers = tuple((random.normal(size=(b, a)), random.normal(size=b)) for a, b in pairwise(sizes))
    # Biases far enough apart that some pairs of concepts nearly always have one order.
    concept_map = (
        random.normal(size=(concepts, size)),
        np.linspace(0.0, 2.5 * (concepts - 1), concepts),
    )
    return Readout(tuple("xyw"), tuple("abcdefgh"[:concepts]), layers, concept_map)


def points(own: Readout, seed: int, count: int) -> NDArray[np.float32]:
    """Embeddings."""
    random = np.random.default_rng(seed)
    return random.normal(size=(count, own.dimension)).astype(np.float32)


def data_of(own: Readout, seed: int, count: int = 300) -> tuple[NDArray[Any], ...]:
    """Embeddings, predictions, and labels of which a third is wrong."""
    random = np.random.default_rng(seed)
    z = points(own, seed, count)
    predicted = own.logits(z.astype(np.float64)).argmax(axis=1)
    wrong = random.random(count) < 0.3
    return z, predicted, np.where(wrong, (predicted + 1) % 3, predicted)


def fitted(rule: Rule, seed: int = 1, hidden: int = 0, per_class: bool = False) -> Monitor:
    own = readout(seed, hidden)
    monitor = Monitor(own, rule).fit(*data_of(own, seed))
    z, predicted, label = data_of(own, seed + 1)
    return monitor.calibrate(z, predicted, label, "0.3", per_class)


# --- the score -------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_score_is_the_similarity_that_the_rule_says(rule: Rule) -> None:
    own = readout(3)
    z, predicted, label = data_of(own, 3)
    monitor = Monitor(own, rule).fit(z, predicted, label)
    scores = own.concept_scores(z.astype(np.float64))
    maps = {
        kind: summary(scores, *grouped(kind, label, predicted, own.classes), own.concepts)
        for kind in (Kind.CORRECT, Kind.OUTPUT_WRONG)
    }
    right, wrong = maps[Kind.CORRECT], maps[Kind.OUTPUT_WRONG]
    assert (wrong.totals >= LEAST).all()
    rows = np.arange(len(z))
    if rule is Rule.COUNT:
        above = scores[:, :, None] > scores[:, None, :]
        expected = (above & (right.shares > 0.9)[predicted]).sum(axis=(1, 2)).astype(float)
    else:
        measure = Measure.LIKELIHOOD if rule is Rule.LIKELIHOOD else Measure.COSINE
        expected = similarities(scores, right, measure)[rows, predicted]
        if rule is not Rule.COSINE:
            expected = expected - similarities(scores, wrong, measure)[rows, predicted]
    assert np.abs(monitor.score_samples(z) - expected).max() < 1e-9
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize("rule", RULES)
def test_a_brute_force_sum_over_pairs_gives_the_same_number_exactly(rule: Rule) -> None:
    monitor = fitted(rule)
    z = points(monitor.readout, 9, 20)
    judged = monitor.judge(z)
    weights, start = monitor.reference.weights, monitor.reference.start
    for row, point in enumerate(z.astype(np.float64)):
        scores = monitor.readout.concept_scores(point[None])[0]
        label = int(monitor.readout.logits(point[None])[0].argmax())
        total = Fraction(float(start[label]))
        for i, j in product(range(5), repeat=2):
            if scores[i] > scores[j]:
                total += Fraction(float(weights[label, i, j]))
        assert Fraction(float(judged.score[row])) == total  # nothing was rounded
        assert judged.predicted[row] == label
        threshold = float(monitor.calibration.thresholds[label])
        assert judged.flagged[row] == (total < Fraction(threshold))


@pytest.mark.parametrize("hidden", [0, 4])
@pytest.mark.parametrize("rule", RULES)
def test_one_input_is_judged_as_in_a_batch(rule: Rule, hidden: int) -> None:
    monitor = fitted(rule, hidden=hidden)
    z = points(monitor.readout, 2, 200)
    judged = monitor.judge(z)
    one = [monitor.one(point) for point in z]
    assert [label for label, _, _ in one] == judged.predicted.tolist()
    assert [score for _, score, _ in one] == judged.score.tolist()
    assert [flag for _, _, flag in one] == judged.flagged.tolist()
    assert 0 < judged.flagged.sum() < len(z)
    assert monitor.predict(z).tolist() == np.where(judged.flagged, -1, 1).tolist()


def test_ties_count_for_neither_order() -> None:
    own = readout(1)
    z, predicted, label = data_of(own, 1)
    usual = Monitor(own, Rule.COUNT).fit(z, predicted, label).calibrate(z, predicted, label)
    tied = replace(own, concept_map=(np.zeros((5, 6)), np.zeros(5)))
    monitor = Monitor.fitted(tied, Rule.COUNT, usual.reference, usual.calibration)
    assert usual.score_samples(z).max() > 0
    assert (monitor.score_samples(z) == 0).all()
    assert monitor.one(z[0])[1] == 0
    session = open_session(to_onnx(monitor), "monitor")
    assert (session.run(["score"], {"z": z})[0] == 0).all()


def test_thresholds_for_each_class() -> None:
    own = readout(1)
    z, predicted, label = data_of(own, 1)
    monitor = Monitor(own).fit(z, predicted, label).calibrate(z, predicted, label, 0.2, True)
    scores, right = monitor.score_samples(z), predicted == label
    for place in range(3):
        expected = conformal_threshold(scores[right & (predicted == place)], Fraction("0.2"))
        assert monitor.calibration.thresholds[place] == expected
    assert len(set(monitor.calibration.thresholds.tolist())) == 3


def test_a_monitor_refuses_what_it_cannot_judge() -> None:
    own = readout(1)
    z, predicted, label = data_of(own, 1)
    monitor = Monitor(own)
    with pytest.raises(BadUsage, match="no references yet"):
        monitor.score_samples(z)
    monitor.fit(z, predicted, label)
    with pytest.raises(BadUsage, match="no thresholds yet"):
        monitor.predict(z)
    monitor.calibrate(z, predicted, label)
    with pytest.raises(BadUsage, match=r"expected \[N, 6\]"):
        monitor.predict(z[:, :5])
    with pytest.raises(BadUsage, match="NaN"):
        monitor.predict(np.full((1, 6), np.nan))
    assert monitor.one(np.full(6, np.nan))[2]
    assert monitor.one(np.full(6, np.inf))[2]
    with pytest.raises(BadUsage, match="a class for each"):
        monitor.fit(z, predicted[1:], label)
    with pytest.raises(BadUsage, match="no image is classified correctly"):
        monitor.fit(z, predicted, (predicted + 1) % 3)
    with pytest.raises(BadUsage, match="fewer than two"):
        Monitor(readout(1, concepts=1))
    with pytest.raises(BadUsage, match="strictly between 0 and 1"):
        monitor.calibrate(z, predicted, label, "1.5")
    with pytest.raises(BadUsage, match="must be a number"):
        rate_of("many")
    reference = monitor.reference
    with pytest.raises(BadUsage, match="multiples of"):
        Reference(
            reference.weights * 0.1, reference.start, *(getattr(reference, k) for k in
                                                        ("known", "right", "wrong"))
        )  # fmt: skip


def test_a_class_without_reference_is_always_flagged() -> None:
    own = readout(1)
    z, predicted, label = data_of(own, 1)
    label = np.where(predicted == 0, 1, label)
    monitor = Monitor(own).fit(z, predicted, label).calibrate(z, predicted, label)
    assert monitor.reference.known.tolist() == [False, True, True]
    judged = monitor.judge(z)
    assert judged.flagged[predicted == 0].all()
    assert not judged.flagged[predicted != 0].all()
    assert monitor.calibration.thresholds[0] == ALWAYS


# --- the guarantee ---------------------------------------------------------------------------


@given(
    st.lists(st.integers(-3, 3).map(float), max_size=30),
    st.fractions("0.01", "0.99", max_denominator=100),
)
def test_conformal_threshold_by_exchangeability(scores: list[float], rate: Fraction) -> None:
    """Of n + 1 values, at most α (n + 1) lie below the threshold that the others give."""
    below = sum(
        value < conformal_threshold(np.array(scores[:place] + scores[place + 1 :]), rate)
        for place, value in enumerate(scores)
    )
    assert below <= rate * len(scores)
    found = conformal_threshold(np.array(scores), rate)
    assert (found == NEVER) == (len(scores) + 1 < 1 / rate)


def test_conformal_threshold_is_the_largest_one() -> None:
    """With distinct scores the rate is exactly k / (n + 1); the next score would exceed α."""
    scores = np.arange(99.0)
    assert conformal_threshold(scores, Fraction("0.05")) == 4.0
    assert conformal_threshold(np.arange(19.0), Fraction("0.05")) == 0.0
    assert conformal_threshold(np.arange(18.0), Fraction("0.05")) == NEVER


@pytest.mark.parametrize("per_class", [False, True])
def test_false_alarm_rate_in_simulation(per_class: bool) -> None:
    """The mean rate over many calibration sets lies in [α − 1/(n+1), α], up to ``CHANCE``."""
    from scipy.stats import binom

    random, trials = np.random.default_rng(4), 8_000
    rate = Fraction("0.1")
    flags = 0
    for _ in range(trials):
        # Two classes with scores on very different scales; the next image is of class 0.
        scores = np.concatenate([random.normal(size=24), 100 + random.normal(size=24)])
        predicted = np.repeat([0, 1], 24)
        known = np.ones(2, dtype=bool)
        found = calibrated(scores, predicted, known, rate, per_class)
        own = 0 if per_class or random.random() < 0.5 else 1
        flags += random.normal() + 100 * own < found.thresholds[own]
    size = 24 if per_class else 48
    level = int(rate * (size + 1)) / (size + 1)
    assert binom.cdf(flags, trials, level) > CHANCE / 2
    assert binom.sf(flags - 1, trials, level) > CHANCE / 2
    # The test would see a threshold one rank too high.
    too_high = (int(rate * (size + 1)) + 1) / (size + 1)
    assert binom.cdf(flags, trials, too_high) < CHANCE


def test_calibration_says_what_it_does() -> None:
    scores, predicted = np.arange(30.0), np.repeat([0, 1, 2], [25, 3, 2])
    known = np.array([True, True, False])
    found = calibrated(scores, predicted, known, Fraction("0.1"), per_class=True)
    assert found.thresholds.tolist() == [1.0, NEVER, ALWAYS]
    assert found.silent.tolist() == [False, True, False]
    assert found.counts.tolist() == [25, 3, 2]
    assert "at most 0.1, for each class by itself" in found.statement
    pooled = calibrated(scores, predicted, known, Fraction("0.1"), per_class=False)
    assert pooled.thresholds.tolist() == [1.0, 1.0, ALWAYS]
    assert "for each class" not in pooled.statement


def test_rates_count_what_they_say() -> None:
    flagged = np.array([True, False, True, False, True, False])
    predicted = np.array([0, 0, 1, 1, 2, 2])
    label = np.array([0, 0, 0, 0, -1, -1])
    found = rates(flagged, predicted, label)
    assert (found.false_alarms.count, found.false_alarms.total) == (1, 2)
    assert (found.detections.count, found.detections.total) == (1, 2)
    assert (found.accepted_errors.count, found.accepted_errors.total) == (1, 2)
    assert 0 < found.detections.lower < 0.5 < found.detections.upper < 1


# --- drift -----------------------------------------------------------------------------------


def test_drift_alarms_rarely_without_and_surely_with_a_drift() -> None:
    from scipy.stats import binom

    random, streams, alarm = np.random.default_rng(5), 400, 0.05
    count = 0
    for _ in range(streams):
        drift = Drift(0.1, alarm)
        count += drift.update(random.random(500) < 0.1)
    assert binom.sf(count - 1, streams, alarm) > CHANCE
    drift = Drift(0.1, alarm)
    alarms = [drift.update([flag]) for flag in random.random(400) < 0.4]
    assert alarms[-1]
    assert alarms == sorted(alarms)  # it stays
    assert drift.times == 400
    assert drift.p_value <= alarm
    with pytest.raises(BadUsage, match="false alarm"):
        Drift(0.1, 1.0)
    assert 0.5 < usual_rate(np.array([True, False] * 50)) < 0.7


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [0, 4])
@pytest.mark.parametrize("rule", RULES)
def test_onnx_gives_the_same_numbers(rule: Rule, hidden: int) -> None:
    monitor = fitted(rule, hidden=hidden, per_class=True)
    session = open_session(to_onnx(monitor), "monitor")
    z = points(monitor.readout, 6, 500)
    score, flag, predicted, threshold = session.run(None, {"z": z})
    judged = monitor.judge(z)
    # Scores are exact, so that away from ties of concepts they agree to the last bit.
    assert np.array_equal(score, judged.score)
    assert np.array_equal(flag, judged.flagged)
    assert np.array_equal(predicted, judged.predicted)
    assert np.array_equal(threshold, judged.threshold)
    assert 0 < flag.sum() < len(z)
    bad = np.array([[np.nan] * 6, [np.inf] * 6], dtype=np.float32)
    assert session.run(["flag"], {"z": bad})[0].all()


@pytest.mark.parametrize("hidden", [0, 4])
def test_saved_and_loaded(tmp_path: Path, hidden: int) -> None:
    monitor = fitted(Rule.CONTRAST, hidden=hidden)
    save(Saved(monitor, "hash", 0.2, np.arange(3)), tmp_path)
    found = load(tmp_path)
    z = points(monitor.readout, 6, 100)
    first, second = monitor.judge(z), found.monitor.judge(z)
    assert np.array_equal(first.score, second.score)
    assert np.array_equal(first.flagged, second.flagged)
    assert found.monitor.one(z[0]) == monitor.one(z[0])
    assert (found.bundle, found.edge, found.evaluation.tolist()) == ("hash", 0.2, [0, 1, 2])
    assert found.monitor.calibration.statement == monitor.calibration.statement
    assert found.monitor.rule is Rule.CONTRAST


def _signed(folder: Path) -> None:
    """Make the hashes of changed files fit again."""
    from conspec.lens.files import sha256

    about = json.loads((folder / ABOUT).read_text())
    about["files"] = {name: sha256(folder / name) for name in (ARRAYS, MODEL)}
    (folder / ABOUT).write_text(json.dumps(about))


def _broken(folder: Path) -> None:
    (folder / ARRAYS).write_bytes(b"x")
    _signed(folder)


def _arrays(folder: Path, **changed: NDArray[Any]) -> None:
    from safetensors.numpy import load_file, save_file

    save_file({**load_file(folder / ARRAYS), **changed}, folder / ARRAYS)
    _signed(folder)


def _about(folder: Path, **changed: object) -> None:
    about = json.loads((folder / ABOUT).read_text())
    (folder / ABOUT).write_text(json.dumps(about | changed))


DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (lambda p: (p / ABOUT).unlink(), "no such file"),
    (lambda p: (p / ABOUT).write_text("{"), "not valid JSON"),
    (lambda p: (p / MODEL).write_bytes(b"x"), "SHA-256"),
    (lambda p: (p / ARRAYS).write_bytes(b"x"), "SHA-256"),
    (lambda p: _broken(p), "not a valid safetensors"),
    (lambda p: _about(p, version=2), "version 1"),
    (lambda p: _about(p, rule="magic"), "unknown rule"),
    (lambda p: _about(p, edge=2.0), "out of range"),
    (lambda p: _about(p, per_class=1), "per_class"),
    (lambda p: _about(p, false_alarm="7"), "strictly between"),
    (lambda p: _about(p, concepts=["a"]), "shape"),
    (lambda p: _about(p, classes=["a", "a", "b"]), "twice"),
    (lambda p: _about(p, layers=2), "missing"),
    (lambda p: _arrays(p, start=np.full(3, np.nan)), "NaN"),
    (lambda p: _arrays(p, start=np.full(3, 0.1)), "multiples"),
    (lambda p: _arrays(p, counts=np.zeros(3)), "dtype"),
    (lambda p: _arrays(p, head_weight0=np.zeros((3, 5))), "do not fit"),
]


@pytest.mark.parametrize("place", range(len(DAMAGE)))
def test_damaged_files_are_refused(tmp_path: Path, place: int) -> None:
    save(Saved(fitted(Rule.COSINE), "hash", 0.2), tmp_path)
    load(tmp_path)
    damage, text = DAMAGE[place]
    damage(tmp_path)
    with pytest.raises(BadFile, match=text):
        load(tmp_path)


def test_no_folder_is_no_monitor(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="no such monitor"):
        load(tmp_path / "nothing")


# --- what is proved about it -----------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Lens:
    return write_tiny(tmp_path_factory.mktemp("lens") / "tiny")


def monitor_on(lens: Lens, rule: Rule, false_alarm: str = "0.2") -> Monitor:
    data = lens.embeddings
    everything = np.arange(lens.count)
    return monitor_of(lens, everything, rule).calibrate(
        data.z, data.predicted, data.label, false_alarm
    )


def exact_score(lens: Lens, monitor: Monitor, label: int, point: Any) -> Fraction:
    """The score from the definition, in rationals."""
    scores = space_of(lens).concept_map.exact(point)
    cells = product(range(len(scores)), repeat=2)
    total = Fraction(float(monitor.reference.start[label]))
    return total + sum(
        (Fraction(float(monitor.reference.weights[label, i, j])) for i, j in cells
         if scores[i] > scores[j]),
        Fraction(0),
    )  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("gamma", ["0.1", "0.5", "1", "2", "5"])
def test_soundness_agrees_with_samples(tiny: Lens, rule: Rule, gamma: str) -> None:
    monitor = monitor_on(tiny, rule)
    for label, accepts in product(tiny.classes, (True, False)):
        region = f.Focus(label, Fraction(gamma))
        found = soundness(monitor, tiny, Claim(label, region, accepts))
        _check(tiny, monitor, label, region, accepts, found.verdict)
        if isinstance(found.verdict, Proved) and found.verdict.certificate is None:
            assert all(isinstance(r.verdict, Proved) for r in found.orders)


@settings(max_examples=8, deadline=None)
@example(seed=291, radius="0.05")  # every order is proved, and the claim is still false
@example(seed=345, radius="0.2")  # refuted by the formula of few open pairs
@given(seed=st.integers(0, 10_000), radius=st.sampled_from(["0.05", "0.2", "1"]))
def test_soundness_on_random_bundles(
    tmp_path_factory: pytest.TempPathFactory, seed: int, radius: str
) -> None:
    lens = write_random(tmp_path_factory.mktemp("lens") / "random", seed, signed=bool(seed % 2))
    rule = RULES[seed % len(RULES)]
    monitor = monitor_on(lens, rule)
    region = f.Ball(seed % lens.count, Fraction(radius), f.Norm.LINF)
    for label in lens.classes:
        found = soundness(monitor, lens, Claim(label, region, bool(seed % 3)))
        _check(lens, monitor, label, region, bool(seed % 3), found.verdict)


def _check(
    lens: Lens, monitor: Monitor, label: str, region: f.Region, accepts: bool, verdict: Any
) -> None:
    """A proof is not contradicted by samples, and a counterexample is one exactly."""
    (part,) = build_regions(region, lens)
    place = lens.class_index(label)
    threshold = Fraction(float(monitor.calibration.thresholds[place]))
    space = space_of(lens)
    if isinstance(verdict, Violated):
        point = verdict.witness.point
        logits = space.head.affines[0].exact(point)
        assert all(logits[place] > v for k, v in enumerate(logits) if k != place)
        assert part.region.contains(point)
        score = exact_score(lens, monitor, place, point)
        assert (score >= threshold) is not accepts
        assert verdict.witness.margin == abs(score - threshold)
    elif isinstance(verdict, Proved):
        points = part.region.sample(2000, 1)
        points = points[np.array([part.region.contains(from_array(p)) for p in points])]
        judged = monitor.judge(points)
        own = judged.predicted == place
        assert (judged.flagged[own] != accepts).all()
    else:
        assert isinstance(verdict, Unknown)


def test_soundness_knows_what_is_obvious(tiny: Lens) -> None:
    """In the middle of a class all is accepted, as wheels are far above the rest there."""
    monitor = monitor_on(tiny, Rule.COSINE)
    middle = f.Focus("truck", Fraction("0.01"))
    found = soundness(monitor, tiny, Claim("truck", middle))
    assert isinstance(found.verdict, (Proved, Violated))
    # Images of trucks, with the largest and the smallest possible threshold.
    region = f.Focus("truck", Fraction(1))
    calibration = monitor.calibration
    for threshold, accepts in ((NEVER, True), (ALWAYS, False)):
        changed = replace(calibration, thresholds=np.full(3, threshold))
        other = Monitor.fitted(monitor.readout, monitor.rule, monitor.reference, changed)
        right = soundness(other, tiny, Claim("truck", region, accepts))
        assert isinstance(right.verdict, Proved)
        wrong = soundness(other, tiny, Claim("truck", region, not accepts))
        assert isinstance(wrong.verdict, Violated)


def test_few_open_pairs_are_decided_as_a_formula(tiny: Lens) -> None:
    """No pair alone decides, but wings and fur are never both above wheels where trucks are."""
    reference = Reference(
        np.zeros((3, 4, 4)), np.zeros(3), np.ones(3, dtype=bool), np.ones(3, dtype=int),
        np.zeros(3, dtype=int),
    )  # fmt: skip
    # Concepts 0 to 3 are the coordinates; the region bounds z_1 + z_3 and not each by itself.
    reference.weights[0, 0, 1] = 1.0
    reference.weights[0, 0, 3] = 1.0
    calibration = Calibration(np.full(3, 1.0), np.ones(3, dtype=int), Fraction("0.1"), False)
    monitor = Monitor.fitted(Readout.of(tiny), Rule.CONTRAST, reference, calibration)
    text = "box([2, 0, 0, 0], [2, 3, 0, 3]) and polytope(z(1) + z(3) <= 3.9)"
    claim = Claim("truck", parse_region(text))
    found = soundness(monitor, tiny, claim)
    # predict(truck) implies z_1 < z_0, so that order is proved; the other pair is open.
    assert found.open_pairs == 1
    assert isinstance(found.verdict, Proved)
    strict = replace(calibration, thresholds=np.full(3, 2.0))
    other = Monitor.fitted(monitor.readout, Rule.CONTRAST, reference, strict)
    assert isinstance(soundness(other, tiny, claim).verdict, Violated)


def test_the_formula_of_few_open_pairs_keeps_strictness(tiny: Lens) -> None:
    """The score is how many of z_1 and z_2 are above z_3 = 2."""
    reference = Reference(
        np.zeros((3, 4, 4)), np.zeros(3), np.ones(3, dtype=bool), np.ones(3, dtype=int),
        np.zeros(3, dtype=int),
    )  # fmt: skip
    reference.weights[0, 1, 3] = 1.0
    reference.weights[0, 2, 3] = 1.0
    region = parse_region(
        "box([5, 0, 0, 2], [5, 3, 3, 2]) and polytope(z(1) + z(2) >= 4.5, z(1) + z(2) <= 5)"
    )
    some = Calibration(np.zeros(3), np.ones(3, dtype=int), Fraction("0.1"), False)
    # With a sum of 4.5 at least, one of both is above 2; scores 1 and 2 occur.
    for threshold, accepts, expected in (
        (1.0, True, Proved),
        (1.5, True, Violated),
        (2.0, True, Violated),
        (1.0, False, Violated),
        (2.0, False, Violated),
        (2.5, False, Proved),
    ):
        changed = replace(some, thresholds=np.full(3, threshold))
        monitor = Monitor.fitted(Readout.of(tiny), Rule.CONTRAST, reference, changed)
        found = soundness(monitor, tiny, Claim("truck", region, accepts))
        assert isinstance(found.verdict, expected), (threshold, accepts)
    # With z(1) + z(2) = 3.5 at most, both are never above 2: strictly fewer than 2.
    region = parse_region("box([5, 0, 0, 2], [5, 3, 3, 2]) and polytope(z(1) + z(2) <= 3.5)")
    changed = replace(some, thresholds=np.full(3, 2.0))
    monitor = Monitor.fitted(Readout.of(tiny), Rule.CONTRAST, reference, changed)
    found = soundness(monitor, tiny, Claim("truck", region, accepts=False))
    assert isinstance(found.verdict, Proved)
    assert found.open_pairs == 2


def test_threshold_formula_is_the_weighted_sum() -> None:
    from conspec.analysis.monitor_proof import _reaches

    gains = [Fraction(1, 2), Fraction(1), Fraction(1), Fraction(3, 4)]
    atoms = [f.Stronger(a, "e") for a in "abcd"]
    cases = np.array(list(product([0.0, 2.0], repeat=4)))
    batch = ScoreBatch(
        np.zeros((16, 1)), np.hstack([cases, np.ones((16, 1))]), ("x",), tuple("abcde")
    )
    for needed, strict in product([Fraction(k, 4) for k in range(-1, 15)], (True, False)):
        sums = [
            sum((g for g, v in zip(gains, row, strict=True) if v), Fraction(0)) for row in cases
        ]
        expected = [s > needed if strict else s >= needed for s in sums]
        formula = _reaches(atoms, gains, needed, strict)
        assert truth(formula, batch).tolist() == expected


def test_acceptance_of_the_count_rule_is_a_formula(tiny: Lens) -> None:
    monitor = monitor_on(tiny, Rule.COUNT, "0.3")
    z = np.abs(np.random.default_rng(8).normal(2, 2, size=(500, 4))).astype(np.float32)
    judged = monitor.judge(z)
    logits, concepts = (getattr(monitor.readout, k)(z.astype(float)) for k in
                        ("logits", "concept_scores"))  # fmt: skip
    batch = ScoreBatch(logits, concepts, tiny.classes, tiny.concepts)
    for place, label in enumerate(tiny.classes):
        own = judged.predicted == place
        accepted = truth(acceptance(monitor, label), batch)
        assert np.array_equal(accepted[own], ~judged.flagged[own])
    assert 0 < judged.flagged.sum() < len(z)
    region = f.Focus("truck", Fraction("0.1"))
    spec = acceptance_spec(monitor, "truck", region, "accepted")
    (result,) = verify_suite(f.Suite((spec,)), tiny)
    assert type(result.verdict) is type(soundness(monitor, tiny, Claim("truck", region)).verdict)
    with pytest.raises(BadUsage, match="only the rule 'count'"):
        acceptance(monitor_on(tiny, Rule.COSINE), "truck")


def test_soundness_refuses_another_model(tiny: Lens, tmp_path: Path) -> None:
    monitor = monitor_on(tiny, Rule.COSINE)
    claim = Claim("truck", f.Focus("truck", Fraction(1)))
    with pytest.raises(BadUsage, match="another model"):
        soundness(monitor, write_skewed(tmp_path / "other", hidden=False), claim)
    with pytest.raises(UnknownName, match="no class 'tank'"):
        soundness(monitor, tiny, replace(claim, label="tank"))


def test_soundness_with_a_relu_head(tmp_path: Path) -> None:
    lens = write_skewed(tmp_path / "relu", hidden=True)
    monitor = monitor_on(lens, Rule.COSINE)
    region = f.Ball(1, Fraction("0.01"), f.Norm.LINF)
    label = lens.classes[int(monitor.judge(lens.embeddings.z[1:2]).predicted[0])]
    found = soundness(monitor, lens, Claim(label, region))
    flagged = bool(monitor.judge(lens.embeddings.z[1:2]).flagged[0])
    assert isinstance(found.verdict, Violated if flagged else Proved)


# --- the monitor that knows the proofs ----------------------------------------------------------

BOUNDS = st.one_of(
    st.fractions(-3, 3, max_denominator=7),
    st.floats(-4, 4, width=32).map(Fraction),
    st.sampled_from([Fraction(10) ** 40, -(Fraction(10) ** 40), Fraction(1, 10**50), Fraction(0)]),
    st.floats(-4, 4).map(Fraction),
)


@settings(max_examples=150)
@given(
    low=BOUNDS,
    width=st.one_of(st.just(Fraction(0)), BOUNDS.map(abs)),
    steps=st.integers(-2, 2),
    kind=st.sampled_from([np.float32, np.float64]),
    upper=st.booleans(),
)
def test_walls_hold_exactly_what_the_box_holds(
    low: Fraction, width: Fraction, steps: int, kind: Any, upper: bool
) -> None:
    """Points next to a bound, in steps of one float."""
    own = box(vector([low]), vector([low + width]))
    with np.errstate(over="ignore"):
        value = kind(float(low + width if upper else low))
    for _ in range(abs(steps)):
        value = np.nextafter(value, kind(np.copysign(np.inf, steps)))
    (inside,) = Walls.of([own], kind).hold(np.array([[value]], dtype=kind))[0]
    expected = bool(np.isfinite(value)) and low <= Fraction(float(value)) <= low + width
    assert inside == expected


SPECS = """
spec a: forall x in focus(truck, gamma=2): wheels > wings
spec b: forall x in focus(truck, gamma=2): score(wheels) >= 0
spec c: forall x in ball(4, 0.5, linf) or ball(7, 0.3, l2): score(fur) >= -1
spec h: forall x in ball(4, 0.9, linf) or ball(50, 0.9, linf): score(fur) >= -2
spec d: forall x in box([0], [6]) and polytope(score(wheels) >= 2): score(wheels) >= 1
spec e: forall x in focus(bird, gamma=1): wheels > wings
spec g: forall x in focus(truck, gamma=1): predict(bird) and predict(truck) => fur > fur
"""


def test_index_of_proofs(tiny: Lens) -> None:
    suite = parse(SPECS, classes=tiny.classes, concepts=tiny.concepts)
    results = [to_json(r, tiny) for r in verify_suite(suite, tiny)]
    verdicts = {r["spec"]: r["verdict"] for r in results}
    assert verdicts["b"] == verdicts["c"] == verdicts["d"] == "proved"
    assert verdicts["e"] == "violated"
    index = ProofIndex(results, tiny)
    names = [g.spec.name for g in index.guarantees]
    assert "e" not in names
    assert "g" not in names  # vacuous
    z = tiny.embeddings.z
    space = space_of(tiny)
    members = index.members(z)
    for point in z:
        found = {g.spec.name for g in index.guaranteed(point)}
        expected = set()
        for g in index.guarantees:
            for part in build_regions(g.spec.region, tiny):
                exact = from_array(point)
                cut = all(space.row(c)[0].dot(exact) + space.row(c)[1] >= 0 for c in part.cuts)
                if part.region.contains(exact) and cut:
                    expected.add(g.spec.name)
        assert found == expected
    assert index.counts(z).tolist() == [len(index.guaranteed(point)) for point in z]
    assert members.any(axis=0).all()
    assert not members.all()
    assert np.array_equal(members, index.members(z.astype(np.float64)))
    outside = np.full((2, 4), np.nan, dtype=np.float32)
    assert not index.members(outside).any()


def test_index_refuses_foreign_results(tiny: Lens) -> None:
    spec = parse("spec b: forall x in focus(truck, gamma=2): score(wheels) >= 0").specs[0]
    line = {"verdict": "proved", "bundle": tiny.hash, "text": to_text(spec), "trust": "certified"}
    assert len(ProofIndex([line], tiny).guarantees) == 1
    assert ProofIndex([line | {"verdict": "unknown"}], tiny).regions == 0
    assert not ProofIndex([], tiny).members(tiny.embeddings.z).any()
    with pytest.raises(BadFile, match="another bundle"):
        ProofIndex([line | {"bundle": "x"}], tiny)
    with pytest.raises(BadFile, match="not one spec"):
        ProofIndex([line | {"text": ""}], tiny)
    index = ProofIndex([line], tiny)
    with pytest.raises(BadUsage, match="float32 or float64"):
        index.members(np.zeros((1, 4), dtype=np.int64))
    with pytest.raises(BadUsage, match=r"expected \[N, 4\]"):
        index.members(np.zeros((1, 5)))
