"""``verify_suite`` on a bundle on disk: coverage, neighbours, replay, unions, errors."""

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from conspec.encodings.query import queries_of, space_of
from conspec.lens import Lens
from conspec.lens.onnx_files import affine_model
from conspec.lens.tables import Embeddings
from conspec.lens.write import Contents, write_bundle
from conspec.specs import parse
from conspec.specs.errors import BadRegion, BadUsage, MissingSolver, UnknownName
from conspec.specs.semantics import Scores, holds
from conspec.verifier import (
    ENGINES,
    Limits,
    Objective,
    Proved,
    Reason,
    Result,
    Unknown,
    Verdict,
    Violated,
    verify_suite,
)
from conspec.verifier import witness as witness_module
from conspec.verifier.results import clopper_pearson, to_json
from tests.bundles import write_tiny

BOX = "box([0, 0, 0, 0], [2, 2, 2, 2])"


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Lens:
    return write_tiny(tmp_path_factory.mktemp("suite") / "tiny")


def run(lens: Lens, text: str, engine: str = "auto", limits: Limits | None = None) -> list[Result]:
    return list(verify_suite(parse(text), lens, engine, limits or Limits()))


def verdict_of(lens: Lens, body: str, region: str = BOX, engine: str = "auto") -> Verdict:
    (result,) = run(lens, f"spec s: forall x in {region}: {body}", engine)
    return result.verdict


def violated(lens: Lens, body: str, region: str = BOX, limits: Limits | None = None) -> Violated:
    (result,) = run(lens, f"spec s: forall x in {region}: {body}", limits=limits)
    assert isinstance(result.verdict, Violated)
    return result.verdict


# --- coverage --------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "total"), [(0, 1), (1, 1), (0, 30), (7, 30), (30, 30), (1, 999)])
def test_the_interval_is_clopper_and_pearsons(count: int, total: int) -> None:
    expected = binomtest(count, total).proportion_ci(0.95, method="exact")
    found = clopper_pearson(count, total)
    np.testing.assert_allclose(found, (expected.low, expected.high), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gamma", ["0", "1", "2", "100"])
def test_coverage_counts_the_heldout_images_of_the_class(lens: Lens, gamma: str) -> None:
    (result,) = run(lens, f"spec s: forall x in focus(bird, gamma={gamma}): true")
    mean, std = lens.statistics.mean[1], lens.statistics.std[1]
    z = lens.embeddings.z[lens.embeddings.heldout & (lens.embeddings.label == 1)]
    low = np.maximum(mean - float(gamma) * std, 0)
    inside = np.all((z >= low) & (z <= mean + float(gamma) * std), axis=1)
    assert result.coverage is not None
    assert result.coverage.n == len(z)
    assert result.coverage.point == inside.mean()
    assert result.coverage.population == "bird"


def test_coverage_of_a_union_counts_each_image_once(lens: Lens) -> None:
    once, twice, everything = run(
        lens,
        """
        spec once: forall x in focus(bird, gamma=2): true
        spec twice: forall x in focus(bird, gamma=2) or focus(bird, gamma=1.9): true
        spec all: forall x in box(0, 1000): true
        """,
    )
    assert once.coverage == twice.coverage
    assert everything.coverage is not None
    assert everything.coverage.point == 1.0
    assert everything.coverage.n == int(lens.embeddings.heldout.sum())
    assert everything.coverage.population == "all"


# --- counterexamples -------------------------------------------------------------------------


def test_neighbours_are_the_nearest_images(lens: Lens) -> None:
    witness = violated(lens, "wheels > wings").witness
    gaps = lens.embeddings.z.astype(np.float64) - witness.point.floats()
    distances = np.sqrt((gaps**2).sum(axis=1))
    best = np.sort(distances)[: len(witness.neighbours)]
    assert len(witness.neighbours) == 5
    np.testing.assert_allclose([near.distance for near in witness.neighbours], best, rtol=1e-6)
    for near in witness.neighbours:
        assert distances[near.image] == pytest.approx(near.distance, rel=1e-6)


def test_a_real_image_that_violates_comes_first(lens: Lens) -> None:
    witness = violated(lens, "wheels > wings", "box(0, 100)").witness
    assert witness.image is not None
    assert witness.point.floats().tolist() == lens.embeddings.z[witness.image].tolist()
    assert witness.neighbours[0].image == witness.image
    assert witness.neighbours[0].distance == 0


@pytest.mark.parametrize(
    "body", ["wheels > wings", "predict(truck) => fur > wings", "not has(wheels)"]
)
def test_the_replay_is_onnxruntimes(lens: Lens, body: str) -> None:
    found = violated(lens, body)
    replay = found.witness.replay
    assert replay is not None
    single = found.witness.point.floats().astype(np.float32)
    logits, concepts = lens.replay(single[None])
    assert replay.logits == tuple(logits[0].tolist())
    assert replay.concepts == tuple(concepts[0].tolist())
    assert replay.violates


def test_exact_margin_and_scores(lens: Lens) -> None:
    witness = violated(lens, "score(wheels) + 1/3 * score(fur) < 1/3").witness
    z = witness.point.fractions()
    assert witness.margin == z[0] + z[2] / 3 - Fraction(1, 3)
    scores = Scores(
        dict(zip(lens.classes, z[:3], strict=True)), dict(zip(lens.concepts, z, strict=True))
    )
    (spec,) = parse(f"spec s: forall x in {BOX}: score(wheels) + 1/3 * score(fur) < 1/3").specs
    assert not holds(spec.body, scores)


def test_a_head_that_replays_otherwise_is_not_believed(
    lens: Lens, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Lens.replay
    monkeypatch.setattr(
        Lens, "replay", lambda self, z: tuple(part + 0.01 for part in real(self, z))
    )
    verdict = verdict_of(lens, "wheels > wings")
    assert isinstance(verdict, Unknown)
    assert verdict.reason is Reason.REPLAY_DIFFERS


def test_float32_rounding_is_not_held_against_a_counterexample(lens: Lens) -> None:
    """A tie at a point that float32 has not: exactly violated, whatever the replay says."""
    region = "box([0.1, 0.1, 0, 0], [0.1, 0.1, 0, 0])"
    witness = violated(lens, "wheels > wings", region).witness
    assert witness.margin == 0
    assert witness.replay is not None


def test_the_largest_violation(lens: Lens) -> None:
    """Also where one literal is much wider than another: 10·z_0 is the larger violation."""
    limits = Limits(objective=Objective.LARGEST)
    assert violated(lens, "wheels > wings", limits=limits).witness.margin == 2
    body = "score(wings) < 1 and 10 * score(wheels) < 1"
    assert float(violated(lens, body, limits=limits).witness.margin) == pytest.approx(19, abs=1e-5)
    body = "not (score(wings) > 1 and 100 * score(wheels) > 1 and score(wheels) < 1.5)"
    found = violated(lens, body, limits=limits).witness
    assert float(found.margin) == pytest.approx(1, abs=1e-5)


def test_the_closest_violation(lens: Lens) -> None:
    """Closest to the centre (1, 1, 1, 1), in units of the half-widths; not quite a tie."""
    limits = Limits(objective=Objective.CLOSEST)
    witness = violated(lens, "score(wheels) < 1.5", limits=limits).witness
    gap = np.abs(witness.point.floats() - 1).max()
    assert 0.5 <= gap <= 0.51
    assert witness.margin > 0


@pytest.mark.parametrize("wanted", [2, 3, 5])
def test_several_counterexamples_are_different_and_valid(lens: Lens, wanted: int) -> None:
    body = "wheels > wings"
    found = violated(lens, body, limits=Limits(counterexamples=wanted))
    every = [found.witness, *found.others]
    assert len(every) == wanted
    points = {tuple(witness.point.fractions()) for witness in every}
    assert len(points) == wanted
    for witness in every:
        z = witness.point.fractions()
        assert all(0 <= value <= 2 for value in z)
        assert z[0] <= z[1]
        assert witness.replay is not None


def test_a_point_has_one_counterexample(lens: Lens) -> None:
    region = "box([1, 1, 0, 0], [1, 1, 0, 0])"
    assert violated(lens, "wheels > wings", region, Limits(counterexamples=4)).others == ()


# --- verdicts over a suite -------------------------------------------------------------------


def test_a_union_is_as_good_as_its_worst_part(lens: Lens) -> None:
    good = "box([1, 0, 0, 0], [2, 0.5, 1, 1])"
    bad = "box([0, 1, 0, 0], [0.5, 2, 1, 1])"
    for engine in ENGINES[:4]:
        assert isinstance(verdict_of(lens, "wheels > wings", good, engine), Proved)
        assert isinstance(verdict_of(lens, "wheels > wings", bad, engine), Violated)
        for region in (f"{good} or {bad}", f"{bad} or {good}"):
            assert isinstance(verdict_of(lens, "wheels > wings", region, engine), Violated)
        both = f"{good} or {good}"
        assert isinstance(verdict_of(lens, "wheels > wings", both, engine), Proved)
        meet = f"{good} and box(0, 1.5)"
        assert isinstance(verdict_of(lens, "score(wheels) < 1.6", meet, engine), Proved)


@pytest.mark.parametrize("engine", ENGINES[:4])
def test_vacuity_is_told(lens: Lens, engine: str) -> None:
    for body, expected in (
        ("score(wheels) > 2.1 => wings > fur", True),
        ("score(wheels) >= 2 => score(fur) >= -1", False),
        ("score(wheels) >= -1", False),
    ):
        verdict = verdict_of(lens, body, engine=engine)
        assert isinstance(verdict, Proved)
        assert verdict.vacuous is expected


def test_a_union_is_vacuous_only_if_all_parts_are(lens: Lens) -> None:
    body = "score(wheels) > 2 => score(wheels) > 1"
    small, large = BOX, "box(0, 3)"
    for region, expected in ((f"{small} or {small}", True), (f"{small} or {large}", False)):
        verdict = verdict_of(lens, body, region)
        assert isinstance(verdict, Proved)
        assert verdict.vacuous is expected


def test_results_keep_the_order_and_agree_with_single_runs(lens: Lens) -> None:
    regions = ["focus(truck, gamma=1)", "focus(bird, gamma=1)", BOX]
    bodies = ["predict(truck) => wheels > wings", "wings > wheels", "predict(bird)", "fur > fur"]
    specs = [
        f"spec s{i}{j}: forall x in {region}: {body}"
        for i, region in enumerate(regions)
        for j, body in enumerate(bodies)
    ]
    together = run(lens, "\n".join(specs))
    assert [result.spec.name for result in together] == [text.split()[1][:-1] for text in specs]
    for text, result in zip(specs, together, strict=True):
        for engine in ("auto", "z3", "highs"):
            (alone,) = run(lens, text, engine)
            assert type(alone.verdict) in (type(result.verdict), Unknown)


def test_results_come_one_by_one(lens: Lens) -> None:
    text = "\n".join(f"spec s{i}: forall x in {BOX}: true" for i in range(3))
    results = verify_suite(parse(text), lens)
    assert isinstance(results, Iterator)
    assert next(results).spec.name == "s0"


def test_probability_specs_are_passed_over(lens: Lens) -> None:
    text = f"""
    spec p: probability >= 0.9 with confidence 0.9 for x in class(truck): wheels > wings
    spec s: forall x in {BOX}: true
    """
    assert [result.spec.name for result in run(lens, text)] == ["s"]
    assert run(lens, "") == []


def test_every_result_is_json_without_infinities(lens: Lens) -> None:
    import json

    bodies = [
        "true",
        "false",
        "wheels > wings",
        "score(wheels) >= 0",
        "has(wheels) or not has(wheels)",
    ]
    text = "\n".join(f"spec s{i}: forall x in {BOX}: {body}" for i, body in enumerate(bodies))
    for result in run(lens, text):
        json.dumps(to_json(result, lens), allow_nan=False)


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("region", "body", "error", "words"),
    [
        (f"{BOX} and box([0, 0, 0, 2.000000000001], 9)", "true", BadRegion, "the region is empty"),
        (f"{BOX} and box(3, 4)", "true", BadRegion, "the region is empty"),
        (f"{BOX} or {BOX} and box(3, 4)", "true", BadRegion, "the region is empty"),
        ("box([0, 0], [1, 1])", "true", BadRegion, "4 dimensions"),
        ("ball(image=90, radius=1, norm=linf)", "true", BadRegion, "no image 90"),
        ("focus(lorry, gamma=1)", "true", UnknownName, "unknown class 'lorry'"),
        (BOX, "predict(lorry)", UnknownName, "lorry"),
        (BOX, "wheels > hair", UnknownName, "hair"),
        (BOX, "logit(lorry) > 0", UnknownName, "lorry"),
        (BOX, "has(hair)", UnknownName, "hair"),
        (BOX, "has(fur)", UnknownName, "no calibrated threshold for 'fur'"),
    ],
)
def test_bad_input_is_refused_before_the_first_result(
    lens: Lens, region: str, body: str, error: type[Exception], words: str
) -> None:
    text = f"spec good: forall x in {BOX}: true\nspec s: forall x in {region}: {body}"
    for engine in ("auto", "box", "z3"):
        with pytest.raises(error, match=words):
            next(verify_suite(parse(text), lens, engine))


def test_an_unknown_engine_is_refused_at_once(lens: Lens) -> None:
    with pytest.raises(BadUsage, match="no engine 'cplex'; there are auto, box, z3"):
        verify_suite(parse(f"spec s: forall x in {BOX}: true"), lens, "cplex")


def test_a_missing_solver_is_named_with_another_way(
    lens: Lens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyscipopt", None)
    with pytest.raises(MissingSolver, match=r"pip install 'conspec\[scip\]'.*--engine highs"):
        verdict_of(lens, "wheels > wings", engine="scip")


def test_a_missing_licence_is_named_with_another_way(
    lens: Lens, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gurobipy

    def refuse(**_: object) -> None:
        raise gurobipy.GurobiError(10009, "no licence")

    monkeypatch.setattr(gurobipy, "Env", refuse)
    with pytest.raises(MissingSolver, match="check its licence, or use --engine highs"):
        verdict_of(lens, "wheels > wings", engine="gurobi")


def wide_bundle(folder: Path, size: int) -> Lens:
    random = np.random.default_rng(0)
    rows = random.normal(size=(2, size)).astype(np.float32)
    z = np.abs(random.normal(size=(4, size))).astype(np.float32)
    zeros = np.zeros(2, np.float32)
    embeddings = Embeddings(
        z=z,
        label=np.zeros(4, dtype=np.int64),
        predicted=np.zeros(4, dtype=np.int64),
        heldout=np.array([False, False, True, True]),
        vlm=z[:, :2],
        directions=np.eye(2, dtype=np.float32),
        class_directions=np.eye(2, dtype=np.float32),
        attributes=np.zeros((4, 2), np.int8),
    )
    head, concepts, mapped = (
        affine_model(rows, zeros, name) for name in ("logits", "concepts", "mapped")
    )
    names, ids = ("a", "b"), tuple("1234")
    contents = Contents("wide", names, names, head, concepts, mapped, embeddings, ids)
    return write_bundle(folder, contents)


def test_a_model_beyond_gurobis_licence_is_unknown_and_names_another_way(tmp_path: Path) -> None:
    lens = wide_bundle(tmp_path / "wide", 2100)
    text = """
    spec first: forall x in box(0, 1): predict(a) => score(b) > 1
    spec again: forall x in box(0, 1): predict(a) => score(b) < 1
    """
    for result in run(lens, text, "gurobi"):
        assert isinstance(result.verdict, Unknown)
        assert result.verdict.reason is Reason.TOO_LARGE
        assert "--engine highs" in result.verdict.reason.value
    for result in run(lens, text, "highs"):
        assert isinstance(result.verdict, Violated)


def test_a_verdict_is_never_a_truth_value(lens: Lens) -> None:
    with pytest.raises(TypeError, match="match Proved, Violated or Unknown"):
        bool(verdict_of(lens, "true"))


def test_queries_of_a_spec_are_its_parts(lens: Lens) -> None:
    space = space_of(lens)
    (spec,) = parse(f"spec s: forall x in {BOX} or {BOX} or {BOX}: true").specs
    assert [query.part for query in queries_of(spec, lens, space)] == [0, 1, 2]  # type: ignore[arg-type]


def test_the_float32_room_is_no_blank_cheque(lens: Lens) -> None:
    space = space_of(lens)
    _, room = witness_module.single_precision_room(space.head, np.ones((1, 4)))
    assert 0 < room.max() < 1e-5
