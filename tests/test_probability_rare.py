"""Rare events: known probabilities down to 1e-30, covers that are covers, honest intervals."""

from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from scipy.stats import binom, norm

import conspec.lens
from conspec.encodings.exact import vector
from conspec.encodings.network import Affine
from conspec.encodings.query import Query, evaluate_at, space_of
from conspec.encodings.scores import ScoreSpace
from conspec.lens.bundle import Lens
from conspec.specs import parse_formula
from conspec.specs.errors import BadUsage
from conspec.verifier.probability.designs import (
    LARGEST_COVER,
    Model,
    cover,
    design,
    gaussian_model,
    kernel_model,
    multipliers,
)
from conspec.verifier.probability.rare import (
    RareEstimate,
    Sampling,
    bernstein,
    rare_violation,
    violated,
)
from tests import spaces

SURE = Sampling(samples=40_000, confidence=1 - 1e-9, seed=1)
BUNDLE = Path(conspec.lens.__file__).parent / "emoji10" / "bundle"
modest = settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)


def standard(size: int) -> Model:
    return gaussian_model(np.zeros(size), np.ones(size))


def estimate(body: str, model: Model, how: Sampling = SURE) -> RareEstimate:
    return rare_violation(spaces.identity(model.centers.shape[1]), parse_formula(body), model, how)


def right(found: RareEstimate, exact: float, width: float) -> bool:
    """The exact probability lies in the interval, which is not wider than stated.

    Float64 tells union and exact probability apart to 1e-7 only, since half-spaces are shrunk.
    """
    inside = found.lower * (1 - 1e-6) <= exact <= found.upper * (1 + 1e-6)
    return inside and found.upper - found.lower <= width * exact


@pytest.mark.parametrize("distance", [0.5, 3.0, 5.0, 7.03, 12.0, 30.0])
def test_one_half_space_is_exact(distance: float) -> None:
    found = estimate(f"z(0) < {distance}", standard(2))
    exact = norm.sf(distance)
    assert right(found, exact, 0.01)
    assert found.estimate == pytest.approx(exact, rel=1e-3)
    assert found.union == pytest.approx(exact, rel=1e-6)


def test_a_skewed_half_space_of_a_correlated_gaussian() -> None:
    random = np.random.default_rng(2)
    factor, mean, weights = random.normal(size=(3, 3)), random.normal(size=3), np.array([1, -2, 3])
    spread = np.linalg.norm(weights @ factor)
    bound = weights @ mean + 6 * spread
    found = estimate(f"z(0) - 2 * z(1) + 3 * z(2) < {bound}", gaussian_model(mean, factor))
    assert right(found, norm.sf(6), 0.01)


def test_a_union_of_half_spaces() -> None:
    found = estimate("z(0) < 5 and z(1) < 5.2 and z(0) > -5.5", standard(2))
    p, q = norm.sf(5) + norm.sf(5.5), norm.sf(5.2)
    assert right(found, p + q - p * q, 0.02)
    assert found.designs == 3


def test_overlapping_half_spaces_are_not_counted_twice() -> None:
    """The same half-space twice under other names, and one inside another."""
    found = estimate("z(0) < 4 and 2 * z(0) < 8 and z(0) < 4.1", standard(2))
    assert right(found, norm.sf(4), 0.05)
    assert found.union > 2 * norm.sf(4)


def test_a_quadrant() -> None:
    found = estimate("z(0) < 3.5 or z(1) < 4", standard(2))
    assert right(found, norm.sf(3.5) * norm.sf(4), 0.3)


@pytest.mark.parametrize("size", [2, 3])
def test_a_box(size: int) -> None:
    found = estimate("not (z(0) > 5 and z(0) < 5.2 and z(1) > 1 and z(1) < 2)", standard(size))
    exact = (norm.sf(5) - norm.sf(5.2)) * (norm.sf(1) - norm.sf(2))
    assert right(found, exact, 0.3)


def test_counts_are_covered() -> None:
    found = estimate("atmost(1, z(0) > 4, z(1) > 4, z(2) > 4)", standard(3))
    p = norm.sf(4)
    assert right(found, 3 * p**2 * (1 - p) + p**3, 0.4)


def test_counts_with_many_combinations_are_covered() -> None:
    """At least four of nine, of which five never hold: the four are those of z(0)."""
    never = ", ".join(f"z(1) > {50 + k}" for k in range(5))
    found = estimate(
        f"atmost(3, {never}, z(0) > 3.7, z(0) > 3.8, z(0) > 3.9, z(0) > 4)", standard(2)
    )
    assert right(found, norm.sf(4), 0.2)


def test_a_kernel_density_is_a_mixture() -> None:
    random = np.random.default_rng(4)
    points = random.normal(size=(50, 2))
    model = kernel_model(points)
    width = points[:, 0].std() * 50 ** (-1 / 6)
    assert np.diag(model.factor)[0] == pytest.approx(width)
    found = estimate("z(0) < 5", model)
    assert right(found, norm.sf((5 - points[:, 0]) / width).mean(), 0.01)


def test_what_cannot_happen_has_probability_zero() -> None:
    found = estimate("z(0) < 1 or z(0) > 0", standard(2))
    assert (found.hits, found.estimate) == (0, 0.0)
    assert found.upper < 1e-3
    for body in ("z(0) < 1e3", "z(0) > 0 or z(0) <= 0"):
        assert estimate(body, standard(2)).upper < 2e-3


def test_a_constant_coordinate() -> None:
    """z(0) is 1 exactly: of the conjunction only z(1) counts, or nothing is left."""
    model = Model(np.array([[1.0, 0.0]]), np.array([[0.0], [1.0]]), "a line")
    assert right(estimate("z(0) < 0.5 => z(1) < 5", model), 0.0, 1.0)
    assert right(estimate("z(0) > 0.5 => z(1) < 5", model), norm.sf(5), 0.01)


def test_coverage_is_at_least_nominal() -> None:
    """300 seeds at 90 %: fewer hits than a binomial law allows with risk 1e-9 would fail."""
    exact = norm.sf(3.5) * norm.sf(4)
    found = [
        estimate("z(0) < 3.5 or z(1) < 4", standard(2), Sampling(2000, 0.9, seed))
        for seed in range(300)
    ]
    covered = sum(each.lower <= exact <= each.upper for each in found)
    assert binom.cdf(covered, 300, 0.9) > 1e-9
    # The approximate interval is narrower; unbiasedness: the mean of all within 6 deviations.
    assert all(each.approximate[1] <= each.upper + 1e-12 for each in found)
    values = np.array([each.estimate for each in found])
    assert abs(values.mean() - exact) <= 6.2 * values.std() / np.sqrt(300)


def test_coverage_of_the_bernstein_bound_for_the_hardest_law() -> None:
    """Numbers that are 1 with a small chance, else 0."""
    random = np.random.default_rng(0)
    for chance in (0.002, 0.05, 0.5):
        draws = (random.random((400, 1000)) < chance).astype(np.float64)
        for risk in (0.1, 0.01):
            ends = [bernstein(row, risk) for row in draws]
            covered = sum(low <= chance <= high for low, high in ends)
            assert binom.cdf(covered, 400, 1 - risk) > 1e-9
            assert ends[0][1] - ends[0][0] < 0.15


def test_seeds_repeat_and_differ() -> None:
    body, model = "z(0) < 3.5 or z(1) < 4", standard(2)
    first = estimate(body, model, Sampling(1000, 0.9, 1))
    assert first == estimate(body, model, Sampling(1000, 0.9, 1))
    assert first.estimate != estimate(body, model, Sampling(1000, 0.9, 2)).estimate


def network() -> ScoreSpace:
    """logit(x) = |z(0)|, logit(y) = 0; concepts are the coordinates."""
    hidden = [[1.0, 0.0], [-1.0, 0.0]], [0.0, 0.0]
    last = [[1.0, 1.0], [0.0, 0.0]], [0.0, 0.0]
    return spaces.space(([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]), hidden, last)


def test_a_relu_head_is_sampled_around_found_violations() -> None:
    formula = parse_formula("logit(x) < 4")
    found = rare_violation(network(), formula, standard(2), SURE)
    exact = 2 * norm.sf(4)
    assert found.lower <= exact <= found.upper
    assert found.hits > 1000  # plain samples would give about two
    low, high = found.approximate
    assert low < exact < high
    assert high - low < exact
    assert found.bound == pytest.approx(2)


def test_concepts_of_a_relu_network_still_give_half_spaces() -> None:
    formula = parse_formula("score(b) < 5 or logit(x) < 1")
    found = rare_violation(network(), formula, standard(2), SURE)
    assert right(found, norm.sf(5) * 2 * norm.sf(1), 0.2)


def test_has_is_sampled_too() -> None:
    """The cosine with the first axis is above 1/2: an angle of 60 degrees to each side."""
    layer = Affine(np.eye(2), np.zeros(2))
    scores = spaces.space(
        (np.eye(2).tolist(), [0.0, 0.0]), alignment=layer, thresholds={"a": Fraction(1, 2)}
    )
    plain = rare_violation(scores, parse_formula("not has(a)"), standard(2), SURE)
    assert plain.lower <= 1 / 3 <= plain.upper
    far = rare_violation(scores, parse_formula("has(a) => z(0) < 6"), standard(2), SURE)
    assert far.upper <= norm.sf(6) * (1 + 1e-6)
    assert far.lower > 0.9 * norm.sf(6)


@modest
@given(spaces.contested(spaces.spaces()), st.integers(0, 100))
def test_every_violation_lies_in_the_cover_and_in_its_half_spaces(query: Query, seed: int) -> None:
    conjunctions, complete = cover(query.space, query.violation)
    assert len(conjunctions) <= LARGEST_COVER
    random = np.random.default_rng(seed)
    size = query.space.dimension
    model = Model(random.normal(size=(1, size)), random.normal(size=(size, size)), "random")
    planes = [design(query.space, part, model) for part in conjunctions]
    for x in random.normal(size=(20, size)) * 2:
        point = vector([Fraction(v) for v in model.centers[0] + model.factor @ x])
        truth, value = evaluate_at(query.violation, query.space, point)
        parts = [
            all(evaluate_at(literal, query.space, point)[0] for literal in part)
            for part in conjunctions
        ]
        assert any(parts) or not truth
        assert not complete or any(parts) == truth
        for holds, (normal, distance) in zip(parts, planes, strict=True):
            if holds and abs(value) > 1e-6:
                assert normal[0] @ x >= distance[0] - 1e-9


@modest
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 4))
def test_multipliers_give_the_nearest_point(seed: int, count: int, size: int) -> None:
    """Against non-negative least squares (Lawson and Hanson): the least distance problem."""
    random = np.random.default_rng(seed)
    normals = random.normal(size=(count, size))
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    inner = random.normal(size=size)
    heights = random.random(count) - normals @ inner  # holds at the inner point
    (found,) = multipliers(normals, heights[None])
    nearest = normals.T @ found
    assert (found >= 0).all()
    # min ‖x‖ with Gx ≥ −h is nnls([Gᵀ; −hᵀ], [0, …, 0, 1]).
    system = np.vstack([normals.T, -heights])
    residual = system @ nnls(system, np.eye(size + 1)[size])[0] - np.eye(size + 1)[size]
    expected = -residual[:size] / residual[size]
    assert (normals @ expected + heights >= -1e-7).all()
    reach = np.linalg.norm(expected)
    # Any multipliers are safe; these are near the best.
    assert -(found @ heights) <= np.linalg.norm(nearest) * reach * (1 + 1e-9) + 1e-9
    assert np.linalg.norm(nearest) == pytest.approx(reach, rel=0.05, abs=1e-6)


def test_a_cover_that_would_be_too_large_is_made_coarser() -> None:
    pairs = " and ".join(f"(z(0) > {k} or z(1) > {k})" for k in range(8))
    query = spaces.query(spaces.identity(2), f"not ({pairs})", spaces.box_of([0, 0], [1, 1]))
    found, complete = cover(query.space, query.violation)
    assert len(found) <= LARGEST_COVER
    assert not complete
    result = rare_violation(
        query.space, query.spec.body, gaussian_model(np.zeros(2), np.ones(2)), SURE
    )
    assert result.lower <= 1 - norm.cdf(7) ** 2 <= result.upper


def test_bad_models_and_samples_are_refused() -> None:
    for centers, factor, words in (
        (np.zeros(2), np.eye(2), "needs centres"),
        (np.zeros((1, 3)), np.eye(2), "needs centres"),
        (np.zeros((0, 2)), np.eye(2), "at least one centre"),
        (np.full((1, 2), np.nan), np.eye(2), "finite"),
    ):
        with pytest.raises(BadUsage, match=words):
            Model(centers, factor, "")
    with pytest.raises(BadUsage, match="two samples"):
        estimate("z(0) < 1", standard(2), Sampling(samples=1))
    with pytest.raises(BadUsage, match="confidence between"):
        estimate("z(0) < 1", standard(2), Sampling(confidence=1.0))
    with pytest.raises(BadUsage, match="3 dimensions for embeddings of 2"):
        rare_violation(spaces.identity(2), parse_formula("z(0) < 1"), standard(3))


def test_the_shipped_bundle_in_64_dimensions() -> None:
    """Plain samples of the same Gaussian agree where they see anything."""
    lens = Lens.load(BUNDLE)
    space, row = space_of(lens), lens.class_index("flower")
    assert lens.statistics.axes is not None
    model = gaussian_model(lens.statistics.mean[row], lens.statistics.axes[row])
    draws = model.centers + np.random.default_rng(1).normal(size=(40_000, 64)) @ model.factor.T
    for first, second in product(("petals", "fur", "leaf"), ("wheels", "wings")):
        formula = parse_formula(f"predict(flower) => {first} > {second}")
        found = rare_violation(space, formula, model, Sampling(20_000, 1 - 1e-9))
        hits = int(violated(space, formula, draws).sum())
        assert binom.sf(hits - 1, len(draws), found.upper) > 1e-10
        assert binom.cdf(hits, len(draws), found.lower) > 1e-10
