"""Robust radii: against exact distances, z3, proofs with certificates, and simulated bands."""

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binom

from conspec.encodings.exact import from_array
from conspec.encodings.images import Shape
from conspec.encodings.query import evaluate_at, space_of
from conspec.encodings.scores import ScoreSpace
from conspec.lens import Lens
from conspec.lens.tables import Statistics
from conspec.report.curves import curve_caption, curve_figure
from conspec.specs import formula as f
from conspec.specs import parse, parse_formula, to_text
from conspec.specs.errors import BadUsage, UnknownName
from conspec.specs.rewrite import Halfspace
from conspec.specs.semantics import holds
from conspec.verifier import verify, verify_suite
from conspec.verifier.checker import check_line
from conspec.verifier.checker_files import Bundle
from conspec.verifier.decide import Limits
from conspec.verifier.probability.nearest import conjunction_radii
from conspec.verifier.probability.robust import (
    Curves,
    Metric,
    RobustRadii,
    certified_share,
    curves,
    dkw_width,
    robust_radii,
)
from conspec.verifier.probability.slopes import Literals, UnitBall, growth_at
from conspec.verifier.results import to_json
from conspec.verifier.verdict import Proved, Trust, Violated
from tests import oracle, spaces
from tests import strategies as tree
from tests.bundles import CLASSES, CONCEPTS, write_random, write_skewed, write_tiny

ERROR = 1e-12
EMOJI = Path(__file__).parent.parent / "lens" / "emoji10" / "bundle"
modest = settings(
    max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
everyone = f.Box((Fraction(0),), (Fraction(1),))
Folder = pytest.TempPathFactory


def spec(body: f.Formula | str, name: str = "s", region: f.Region = everyone) -> f.ForAll:
    return f.ForAll(name, region, parse_formula(body) if isinstance(body, str) else body)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: Folder) -> Lens:
    return write_random(tmp_path_factory.mktemp("robust") / "random", 3, signed=True)


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: Folder) -> Lens:
    return write_skewed(tmp_path_factory.mktemp("robust") / "hidden", hidden=True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: Folder) -> Lens:
    return write_tiny(tmp_path_factory.mktemp("robust") / "tiny")


# --- Exact distances -------------------------------------------------------------------------


def dual_square(row: list[Fraction], metric: Metric, axes: Any) -> Fraction:
    """The squared dual norm of an exact row."""
    if metric is Metric.LINF:
        return sum((abs(value) for value in row), Fraction(0)) ** 2
    if metric is Metric.MAHALANOBIS:
        columns = [[Fraction(value) for value in column] for column in axes.T.tolist()]
        row = [sum(a * b for a, b in zip(row, c, strict=True)) for c in columns]  # type: ignore[misc]
    return sum((value * value for value in row), Fraction(0))


@pytest.mark.parametrize("metric", Metric)
def test_single_half_spaces_have_their_exact_distance(plain: Lens, metric: Metric) -> None:
    pairs = [(a, b) for a in CONCEPTS for b in CONCEPTS if a != b]
    specs = [spec(f.Stronger(a, b), f"s{i}") for i, (a, b) in enumerate(pairs)]
    found = robust_radii(plain, specs, metric)
    space = space_of(plain)
    for column, (a, b) in enumerate(pairs):
        row, constant = space.row(Halfspace(((Fraction(1), f.Score(a)), (Fraction(-1), f.Score(b))),
                                            Fraction(0), strict=True))  # fmt: skip
        for place, image in enumerate(found.images.tolist()):
            z = [Fraction(v) for v in plain.embeddings.z[image].tolist()]
            value = sum((x * y for x, y in zip(row.fractions(), z, strict=True)), constant)
            assert found.satisfied[place, column] == (value > 0)
            if value <= 0:
                assert found.lower[place, column] == found.upper[place, column] == 0
                continue
            assert plain.statistics.axes is not None
            axes = plain.statistics.axes[plain.embeddings.predicted[image]]
            square = dual_square(row.fractions(), metric, axes)
            low, high = found.lower[place, column], found.upper[place, column]
            assert Fraction(low) ** 2 * square < value**2 <= Fraction(high) ** 2 * square
            assert high - low <= 1e-9 * high


BODIES = tree.formulas(
    CLASSES, CONCEPTS, has=False, coefficients=spaces.CONSTANTS, coordinates=4, max_leaves=6
)


@modest
@given(data=st.data())
def test_z3_agrees_about_cubes(plain: Lens, hidden: Lens, data: st.DataObject) -> None:
    lens = data.draw(st.sampled_from([plain, plain, hidden]))
    body = data.draw(BODIES)
    image = data.draw(st.integers(0, lens.count - 1))
    found = robust_radii(lens, [spec(body)], Metric.LINF, np.array([image]))
    low, high = float(found.lower[0, 0]), float(found.upper[0, 0])
    assert low <= high
    # z3 decides the formula as written, on the box made by the region's own builder.
    assert oracle.decide(found.query_of(0, 0, Fraction(0))) is bool(found.satisfied[0, 0])
    if found.satisfied[0, 0]:
        assert oracle.decide(found.query_of(0, 0, Fraction(min(low, 1e6)))) is True
    if np.isfinite(high):
        larger = Fraction(high) * (1 + Fraction(1, 10**9)) + Fraction(1, 10**12)
        assert oracle.decide(found.query_of(0, 0, larger)) is False


@pytest.mark.parametrize("metric", [Metric.L2, Metric.MAHALANOBIS])
def test_proofs_and_counterexamples_agree_about_round_balls(plain: Lens, metric: Metric) -> None:
    bodies = [
        "predict(truck) => wheels > fur",
        "wheels > fur and wings > fur",
        "wheels > fur or predict(bird)",
        "atleast(2, wheels > fur, wings > fur, fur > wheels, predict(bird))",
        "predict(bird) <=> wheels > wings",
    ]
    found = robust_radii(plain, [spec(body, f"s{i}") for i, body in enumerate(bodies)], metric)
    tight = 0
    for image in range(0, len(found.images), 4):
        for column in range(len(bodies)):
            low, high = float(found.lower[image, column]), float(found.upper[image, column])
            if not found.satisfied[image, column]:
                assert low == high == 0
                continue
            # A millionth below the border the prover's own tolerances play no part.
            inside = Fraction(min(low, 1e3)) * (1 - Fraction(1, 10**6))
            assert isinstance(verify(found.query_of(image, column, inside)), Proved)
            if np.isfinite(high):
                outside = Fraction(high) * (1 + Fraction(1, 10**6)) + Fraction(1, 10**9)
                assert isinstance(verify(found.query_of(image, column, outside)), Violated)
                tight += high - low <= 1e-5 * high
    assert tight > 0.8 * np.isfinite(found.upper[::4][found.satisfied[::4]]).sum()


@pytest.mark.parametrize("metric", Metric)
@modest
@given(data=st.data())
def test_no_point_of_a_certified_ball_violates(
    plain: Lens, hidden: Lens, metric: Metric, data: st.DataObject
) -> None:
    lens = data.draw(st.sampled_from([plain, hidden]))
    found = robust_radii(lens, [spec(data.draw(BODIES))], metric, np.arange(0, lens.count, 9))
    space, random = space_of(lens), np.random.default_rng(data.draw(st.integers(0, 99)))
    for place in np.flatnonzero(found.satisfied[:, 0]):
        radius = Fraction(min(float(found.lower[place, 0]), 100.0))
        region = found.query_of(int(place), 0, radius).region
        corners = region.maximisers(random.normal(size=(4, lens.dim)))
        for parameters in corners:
            point = region.at(region.into(parameters)).fractions()
            scores = replace(oracle.scores_at(space, point), embedding=point)
            assert holds(found.specs[0].body, scores)


def test_heads_with_relu_and_has_get_positive_bounds(hidden: Lens) -> None:
    specs = [
        spec("predict(truck)", "p"),
        spec("has(wheels)", "h"),
        spec("not has(wings)", "n"),
        spec("has(fur) => wheels > fur", "m"),
    ]
    random = np.random.default_rng(2)
    for metric in Metric:
        found = robust_radii(hidden, specs, metric)
        for column in range(len(specs)):
            chosen = np.flatnonzero(found.satisfied[:, column])[:1]
            for place in chosen:
                assert found.lower[place, column] > 0
                radius = Fraction(min(float(found.lower[place, column]), 10.0))
                query = found.query_of(int(place), column, radius)
                assert not isinstance(verify(query, limits=Limits(seconds=1.0)), Violated)
                for parameters in query.region.maximisers(random.normal(size=(10, hidden.dim))):
                    point = query.region.at(query.region.into(parameters))
                    assert not query.margin(point)[0]
        assert np.isinf(found.upper[:, 0][found.satisfied[:, 0]]).all()


@modest
@given(spaces.spaces(), st.data())
def test_values_and_growth_enclose_the_exact_ones(scores: ScoreSpace, data: st.DataObject) -> None:
    names = [f.Logit(name) for name in scores.classes] + [f.Score(c) for c in scores.concepts]
    found = [Halfspace(((Fraction(1), name),), Fraction(0), strict=True) for name in names]
    entries = st.sampled_from([-1.5, -0.1, 0.0, 0.3, 2.0])
    z, step = (np.array([data.draw(entries) for _ in range(scores.dimension)]) for _ in "zt")
    for shape in (Shape.BALL, Shape.CUBE):
        growth = growth_at(Literals.of(scores, found), z[None], UnitBall(shape, len(z)))
        length = float(np.abs(step).max() if shape is Shape.CUBE else np.linalg.norm(step))
        for place, literal in enumerate(growth.literals.all):
            before, after = (evaluate_at(literal, scores, from_array(p))[1] for p in (z, z + step))
            assert growth.lower[0, place] <= before <= growth.upper[0, place]
            assert float(after - before) <= growth.most[place] * length * (1 + 1e-9) + 1e-12


def test_growth_through_active_neurons_is_exact() -> None:
    weights = ([[1.0, 2.0], [3.0, 0.5]], [0.1, 0.2])
    scores = spaces.space(weights, weights, ([[0.7, 1.0]], [0.0]))
    literal = Halfspace(((Fraction(1), f.Logit("x")),), Fraction(-9), strict=True)
    for shape, expected in ((Shape.CUBE, 5.6), (Shape.BALL, float(np.hypot(3.7, 1.9)))):
        growth = growth_at(Literals.of(scores, [literal]), np.ones((1, 2)), UnitBall(shape, 2))
        assert growth.most[0] == pytest.approx(expected, rel=1e-12)


def test_what_is_no_violation_bounds_nothing_from_above(plain: Lens, hidden: Lens) -> None:
    never = [spec("not (wheels > fur and fur > wheels)"), spec("wheels > fur or fur >= wheels")]
    for metric in Metric:
        found = robust_radii(plain, never, metric)
        assert np.isinf(found.upper).all()
        assert found.satisfied.all()
        # The logits may well exclude what satisfies the other half of the violation.
        partly = robust_radii(hidden, [spec("predict(truck) => wheels > fur")], metric)
        assert np.isinf(partly.upper[partly.satisfied]).all()


# --- Degenerate and metamorphic --------------------------------------------------------------


def test_ties_zero_rows_and_constants() -> None:
    space = spaces.space(([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0.0, -1.0, 0.0]))
    ball = UnitBall(Shape.BALL, 2)
    a, b, c = (f.Score(name) for name in "abc")

    def half(left: f.Score, right: f.Score, shift: int, strict: bool) -> Halfspace:
        terms = ((Fraction(1), left), (Fraction(-1), right))
        return Halfspace(tuple(sorted(terms, key=str)), Fraction(shift), strict)

    never = half(b, a, 0, True)  # always −1: the rows are equal
    always = half(a, b, 0, True)
    tied, loose = half(a, c, 0, True), half(a, c, 0, False)
    literals = Literals.of(space, [never, always, tied, loose])
    growth = growth_at(literals, np.array([[2.0, 2.0], [2.0, 5.0]]), ball)
    radii = {lit: growth.impossible[:, place].tolist() for lit, place in literals.places.items()}
    upper = {lit: growth.possible[:, place].tolist() for lit, place in literals.places.items()}
    assert radii[never] == upper[never] == [np.inf, np.inf]
    assert radii[always] == upper[always] == [0, 0]
    assert radii[tied][0] == radii[loose][0] == 0
    assert [upper[tied][0], upper[loose][0]] == pytest.approx([0, 0], abs=1e-12)
    assert radii[tied][1] == pytest.approx(3 / np.sqrt(2), rel=1e-12)
    assert not growth.false[0, literals.places[loose]]


def test_a_tie_is_decided_exactly(tiny: Lens) -> None:
    data = tiny.embeddings
    exact = Fraction(float(data.z[0, 0])) - Fraction(float(data.z[0, 1]))
    left = f.Linear(((Fraction(1), f.Score("wheels")), (Fraction(-1), f.Score("wings"))))
    bodies = [
        f.Compare(left, relation, f.Linear((), exact))
        for relation in (f.Relation.GE, f.Relation.GT)
    ]
    found = robust_radii(tiny, [spec(body) for body in bodies], Metric.L2, np.array([0]))
    assert found.satisfied[0].tolist() == [True, False]
    assert found.lower[0].tolist() == [0, 0]
    assert found.upper[0].tolist() == pytest.approx([0, 0], abs=1e-12)
    assert found.certified(0.0)[0].tolist() == [True, False]


def test_true_and_false_formulas(tiny: Lens) -> None:
    found = robust_radii(tiny, [spec(f.Constant(True)), spec(f.Constant(False))], Metric.L2)
    assert found.satisfied[:, 0].all()
    assert not found.satisfied[:, 1].any()
    assert np.isinf(found.lower[:, 0]).all()
    assert np.isinf(found.upper[:, 0]).all()
    assert not found.lower[:, 1].any()
    assert not found.upper[:, 1].any()


@settings(modest, max_examples=15)
@given(st.integers(-3, 3), st.integers(-3, 3))
def test_scales_of_embeddings_and_of_scores(inputs: int, outputs: int) -> None:
    random = np.random.default_rng(5)
    rows, bias = random.integers(-8, 9, (3, 3)).astype(float), random.integers(-8, 9, 3) * 1.0
    points = random.integers(-8, 9, (6, 3)).astype(float)
    one, two = 2.0**inputs, 2.0**outputs
    names = [("a", "b"), ("a", "c"), ("c", "b")]
    halves = [Halfspace(((Fraction(1), f.Score(x)), (Fraction(-1), f.Score(y))), Fraction(0), True)
              for x, y in names]  # fmt: skip
    for shape in (Shape.BALL, Shape.CUBE):
        found = []
        for grow, size in ((1.0, 1.0), (two, one)):
            space = spaces.space(((rows * grow).tolist(), (bias * grow * size).tolist()))
            literals = Literals.of(space, halves)
            growth = growth_at(literals, points * size, UnitBall(shape, 3))
            every = np.ones((1, len(points)), dtype=np.bool_)
            found.append((growth, conjunction_radii(growth, [[0, 1, 2]], every)))
        (first, joint), (second, scaled) = found
        assert np.allclose(second.impossible, first.impossible * one, rtol=1e-12)
        assert np.allclose(scaled[0], joint[0] * one, rtol=1e-5)


def test_more_conjuncts_never_shrink_a_radius(plain: Lens) -> None:
    bodies = ["not (fur >= wheels)", "not (fur >= wheels and wings >= wheels)"]
    found = robust_radii(plain, [spec(body) for body in bodies], Metric.L2)
    both = found.satisfied.all(axis=1)
    assert (found.lower[both, 1] >= found.lower[both, 0]).all()
    assert (found.lower[both, 1] > found.lower[both, 0] * 1.01).any()


# --- Certificates ----------------------------------------------------------------------------


def test_shipped_bundle_gives_certificates_that_check() -> None:
    lens = Lens.load(EMOJI)
    text = """
    spec a: forall x in class(mammal): predict(mammal) => ears > wheels
    spec b: forall x in class(mammal): ears > wheels and ears > hull
    """.replace("class(mammal)", "focus(mammal, gamma=1)")
    members = np.flatnonzero(lens.embeddings.heldout & (lens.embeddings.predicted == 8))[:12]
    for metric in (Metric.L2, Metric.LINF):
        found = robust_radii(lens, parse(text).specs, metric, members)
        places = [(int(i), int(s)) for i, s in np.argwhere(found.satisfied & (found.lower > 0))]
        assert len(places) > 8
        specs = [replace(found.spec_of(i, s), name=f"s{n}") for n, (i, s) in enumerate(places)]
        above = [
            found.spec_of(i, s, Fraction(float(found.upper[i, s])) * (1 + Fraction(1, 10**5)))
            for i, s in places
        ]
        for result in verify_suite(f.Suite(tuple(specs)), lens):
            assert isinstance(result.verdict, Proved)
            assert result.verdict.trust is Trust.CERTIFIED
            assert parse(to_text(result.spec)).specs == (result.spec,)
            assert check_line(to_json(result, lens), Bundle(EMOJI)) == "proof"
        for place, one in enumerate(above[:6]):
            (result,) = verify_suite(f.Suite((replace(one, name=f"u{place}"),)), lens)
            assert isinstance(result.verdict, Violated)


# --- Populations, curves and bands -----------------------------------------------------------


def made(lower: Any, satisfied: Any, lens: Lens) -> RobustRadii:
    lower = np.asarray(lower, dtype=np.float64)
    members = np.ones(lower.shape, dtype=np.bool_)
    specs = tuple(spec("wheels > fur", f"s{i}") for i in range(lower.shape[1]))
    ones = np.arange(len(lower))
    return RobustRadii(specs, ones, lower, lower, satisfied, members, Metric.L2, lens)


def test_curves_count_images_with_a_large_enough_radius(plain: Lens) -> None:
    focus = f.Focus("bird", Fraction(1))
    specs = [spec("wheels > fur", "one", focus), spec("wings > fur", "two")]
    found = robust_radii(plain, specs, Metric.L2)
    labels = plain.embeddings.label[found.images]
    assert (found.population[:, 0] == (labels == 1)).all()
    assert found.population[:, 1].all()
    places = np.array([0.0, 0.05, 0.3, float(found.lower[found.population[:, 0], 0].max())])
    drawn = curves(found, 0.9, places)
    for s in range(2):
        own = found.population[:, s]
        for g, epsilon in enumerate(places):
            counts, totals, low, high = certified_share(found, float(epsilon), 0.9)
            share = found.certified(float(epsilon))[own, s].mean()
            assert drawn.share[s, g] == pytest.approx(share)
            assert counts[s] == pytest.approx(share * own.sum())
            assert totals[s] == own.sum()
            assert low[s] <= share <= high[s]
            assert drawn.lower[s, g] <= share <= drawn.upper[s, g]
    assert "no proof" in drawn.assumption


def test_a_spec_without_images_has_an_empty_curve(plain: Lens) -> None:
    found = replace(made(np.zeros((3, 1)), np.ones((3, 1), bool), plain),
                    population=np.zeros((3, 1), bool))  # fmt: skip
    drawn = curves(found)
    assert np.isnan(drawn.share).all()
    assert not drawn.lower.any()
    assert (drawn.upper == 1).all()
    assert Image.open(io.BytesIO(curve_figure(drawn, "none"))).size[0] > 600
    assert "no held-out images" in curve_caption(drawn)


def missed(drawn: Curves, truth: Any) -> Any:
    """Whether each spec's band leaves out its true curve somewhere."""
    return ((truth < drawn.lower - 1e-12) | (truth > drawn.upper + 1e-12)).any(axis=1)


@pytest.mark.parametrize("rounding", [None, 4], ids=["continuous", "with ties"])
def test_the_band_holds_the_whole_curve_as_often_as_it_says(
    plain: Lens, rounding: int | None
) -> None:
    runs, images, confidence, wrong = 4000, 40, 0.8, 0.3
    random = np.random.default_rng(11)
    radii = random.random((images, runs))
    radii = radii if rounding is None else np.floor(radii * rounding) / rounding
    satisfied = random.random((images, runs)) >= wrong
    steps = np.linspace(0.0, 1.0, 401)
    places = np.concatenate([steps, np.nextafter(steps[1:], 0.0), np.nextafter(steps, 2.0)])
    places.sort()
    drawn = curves(made(np.where(satisfied, radii, 0.0), satisfied, plain), confidence, places)
    reach = 1.0 - places if rounding is None else 1.0 - np.ceil(places * rounding) / rounding
    misses = int(missed(drawn, (1 - wrong) * np.maximum(reach, 0.0)).sum())
    assert misses <= binom.isf(ERROR, runs, 1 - confidence)
    assert drawn.lower.max() <= 1
    assert drawn.upper.min() >= 0
    # A band of 0.6 times the width would be found out.
    width = dkw_width(drawn.totals, confidence)[0]
    thin = replace(drawn, lower=drawn.share - 0.6 * width, upper=drawn.share + 0.6 * width)
    if rounding is None:
        assert missed(thin, (1 - wrong) * np.maximum(reach, 0.0)).sum() > binom.isf(
            ERROR, runs, 1 - confidence
        )


def test_the_picture_has_a_panel_for_each_spec(plain: Lens) -> None:
    found = robust_radii(plain, [spec("wheels > fur", f"name_{i}") for i in range(5)], Metric.L2)
    drawn = curves(found)
    heights = []
    for shown in (range(1), range(3), range(5)):
        picture = Image.open(io.BytesIO(curve_figure(drawn, "A $title$", list(shown))))
        heights.append(picture.size[1])
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20
    assert heights[0] < heights[1] < heights[2]
    assert curve_caption(drawn, [0]).count("satisfied") == 1


# --- Refusals --------------------------------------------------------------------------------


def test_what_cannot_be_asked_is_refused(plain: Lens) -> None:
    specs = [spec("wheels > fur"), spec(f.Constant(True))]
    with pytest.raises(UnknownName, match="numbered from 0 to 89"):
        robust_radii(plain, specs, Metric.L2, np.array([90]))
    found = robust_radii(plain, specs, Metric.MAHALANOBIS)
    with pytest.raises(BadUsage, match="cannot be written as a region"):
        found.spec_of(0, 0)
    with pytest.raises(BadUsage, match="no finite certified radius"):
        found.query_of(0, 1)
    missing = replace_statistics(plain, replace(plain.statistics, axes=None, residual=None))
    with pytest.raises(BadUsage, match="need principal axes"):
        robust_radii(missing, specs, Metric.MAHALANOBIS)
    with pytest.raises(BadUsage, match="confidence"):
        curves(found, 1.0)


def test_classes_without_statistics_get_no_mahalanobis_bound(plain: Lens) -> None:
    counts = plain.statistics.count.copy()
    counts[1] = 0
    without = replace_statistics(plain, replace(plain.statistics, count=counts))
    found = robust_radii(without, [spec("wheels > fur")], Metric.MAHALANOBIS)
    affected = plain.embeddings.predicted[found.images] == 1
    assert not found.lower[affected].any()
    assert found.lower[~affected].any()
    assert np.isinf(found.upper[affected & found.satisfied[:, 0]]).all()


def replace_statistics(lens: Lens, statistics: Statistics) -> Lens:
    """The same bundle with other statistics in memory."""
    copy = Lens(lens.root, lens.hash, lens.manifest)
    copy.__dict__["statistics"] = statistics
    return copy
