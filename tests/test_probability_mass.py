"""Sound mass bounds: exact volumes, closed forms, samples with an error below 1e-9, soundness."""

from fractions import Fraction
from itertools import pairwise, product
from math import comb, factorial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm, truncnorm

import conspec.lens
from conspec.encodings.exact import vector
from conspec.encodings.network import Affine, Network
from conspec.encodings.query import Query, queries_of, space_of
from conspec.encodings.regions import Box, box, class_moments
from conspec.encodings.scores import ScoreSpace
from conspec.lens.bundle import Lens
from conspec.specs import parse
from conspec.specs.errors import BadRegion, BadUsage
from conspec.specs.formula import Focus, ForAll
from conspec.verifier.probability.distributions import Law, Marginals, Uniform
from conspec.verifier.probability.gaussian import Gaussian
from conspec.verifier.probability.halfspaces import Masses, tail_masses
from conspec.verifier.probability.mass import (
    Limits,
    MassBounds,
    class_law,
    final_bounds,
    frechet,
    mass_bounds,
    uniform_law,
)
from conspec.verifier.screen import ranges_of, rows_of
from tests import oracle, spaces

QUICK = Limits(undecided=1e-9, seconds=60.0, boxes=600)
BUNDLE = Path(conspec.lens.__file__).parent / "emoji10" / "bundle"
RISK = 1e-10  # of a sample test going wrong by chance
modest = settings(
    max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)


def summed(weights: list[float]) -> ScoreSpace:
    """One logit and one concept score, both the weighted sum of the embedding's entries."""
    layer = Affine(np.array([weights]), np.zeros(1))
    return ScoreSpace(("x",), ("a",), Network((layer,)), layer)


def cube(size: int) -> Box:
    return spaces.box_of([0] * size, [1] * size)


def irwin_hall(size: int, at: Fraction) -> Fraction:
    """``P(Σ z_j ≤ at)`` for z uniform in the unit cube, exactly."""
    terms = ((-1) ** k * comb(size, k) * (at - k) ** size for k in range(int(at) + 1))
    return Fraction(sum(terms), 1) / factorial(size)


def contains(bounds: MassBounds, exact: Fraction | float) -> bool:
    return bounds.lower <= Fraction(exact) <= bounds.upper


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 12, 64])
@pytest.mark.parametrize("share", ["1/2", "5/12", "1/9"])
def test_sums_of_uniform_numbers_have_the_irwin_hall_distribution(size: int, share: str) -> None:
    at = Fraction(share) * size
    query = spaces.query(summed([1.0] * size), f"score(a) <= {at}", cube(size))
    found = final_bounds(query, uniform_law(query), QUICK)
    assert contains(found, irwin_hall(size, at))
    assert found.undecided < 1e-5


@pytest.mark.parametrize(
    ("body", "area"),
    [
        ("z(0) + z(1) <= 1/2", Fraction(1, 8)),
        ("z(0) + z(1) <= 1/2 or z(0) + z(1) >= 3/2", Fraction(1, 4)),
        ("z(0) >= 1/4 and z(0) <= 1/2 and z(1) > z(0)", Fraction(5, 32)),
        ("z(0) > z(1) <=> z(0) + z(1) > 1", Fraction(1, 2)),
        ("z(0) > z(1)", Fraction(1, 2)),
        ("z(0) >= z(1)", Fraction(1, 2)),
        ("atleast(2, z(0) <= 1/3, z(1) <= 1/3, z(0) + z(1) <= 1/3)", Fraction(1, 9)),
    ],
)
def test_areas_of_polygons(body: str, area: Fraction) -> None:
    query = spaces.query(spaces.identity(2), body, cube(2))
    found = final_bounds(query, uniform_law(query), Limits(1e-9, 60.0, 3000))
    assert contains(found, area)
    assert found.undecided < 0.02


def test_an_octant_that_no_single_bound_sees() -> None:
    """Volume of ``max(z) ≤ 3/7`` in four dimensions."""
    body = " and ".join(f"z({j}) <= 3/7" for j in range(3))
    query = spaces.query(spaces.identity(3), body, cube(3))
    found = final_bounds(query, uniform_law(query), Limits(1e-9, 60.0, 2000))
    assert contains(found, Fraction(27, 343))
    assert found.undecided < 0.02


def point_probability(query: Query, law: Law, seed: int, count: int) -> tuple[int, int]:
    """Samples of a law that satisfy the query's formula, judged in float64, and their number."""
    random = np.random.default_rng(seed)
    share = random.random((count, query.space.dimension))
    low, high = law.start.lower.floats(), law.start.upper.floats()
    z = low + share * (high - low)
    if isinstance(law, Gaussian):
        wide = high - low > 1e-6  # in narrower boxes the density is constant
        ends = [(end[wide] - law.mean[wide]) / law.sigma[wide] for end in (low, high)]
        laws = truncnorm(*ends, loc=law.mean[wide], scale=law.sigma[wide])
        z[:, wide] = laws.ppf(share[:, wide])
    exact = [not oracle.fails_at(query, [Fraction(v) for v in row]) for row in z]
    return sum(exact), count


def plausible(found: MassBounds, hits: int, count: int) -> bool:
    """Whether the hits do not contradict the bounds, at a risk of `RISK` each side."""
    rare_low = binom.sf(hits - 1, count, float(found.upper)) > RISK
    return bool(rare_low and binom.cdf(hits, count, float(found.lower)) > RISK)


@modest
@given(spaces.contested(spaces.spaces()), st.booleans())
def test_samples_do_not_contradict_the_bounds(query: Query, normal: bool) -> None:
    """Any formula, any head with ReLU layers, degenerate boxes included."""
    assert isinstance(query.region, Box)
    size = query.space.dimension
    law: Law = Uniform(query.region)
    if normal:
        low, high = query.region.outer
        center = (low + high) / 2 + 0.3
        law = Gaussian(center, np.full(size, 0.7), query.region)
    found = final_bounds(query, law, Limits(1e-6, 60.0, 60))
    inside = Query(query.spec, query.space, spaces.box_of([-9] * size, [9] * size))
    hits, count = point_probability(inside, law, 5, 150)
    if law.free.all() or not law.free.any():
        assert plausible(found, hits, count)
    assert 0 <= found.lower <= found.upper <= 1
    assert found.lower + found.undecided + found.refuted == 1


@modest
@given(spaces.contested(spaces.spaces()))
def test_every_cell_that_is_decided_is_so_at_exact_points(query: Query) -> None:
    """Proved and refuted mass against the oracle: a point of each kind must exist."""
    assert isinstance(query.region, Box)
    found = final_bounds(query, Uniform(query.region), Limits(1e-6, 60.0, 30))
    pairs = list(zip(*oracle.ends(query), strict=True))
    shares = [Fraction(v) for v in ("1/5", "3/7", "8/9")]
    points = product(*[[low + s * (high - low) for s in shares] for low, high in pairs])
    fails = [oracle.fails_at(query, point) for point in points]
    if found.lower == 1:
        assert not all(fails)
    if found.refuted == 1:
        assert any(fails)


def test_refining_never_loses_mass() -> None:
    query = spaces.query(spaces.identity(3), "z(0) > z(1) or z(2) > z(1)", cube(3))
    found = list(mass_bounds(query.space, query.violation, uniform_law(query), QUICK))
    assert len(found) > 3
    for before, after in pairwise(found):
        assert before.lower <= after.lower <= after.upper <= before.upper
        assert after.boxes > before.boxes
    assert found[-1].undecided < found[0].undecided
    for each in found:
        assert each.lower + each.undecided + each.refuted == 1
        assert contains(each, Fraction(2, 3))


@pytest.mark.parametrize(
    ("body", "expected"),
    [("z(0) >= 1/3", 1), ("z(0) > 1/3", 0), ("z(0) >= z(1)", 1), ("not z(0) >= z(1)", 0)],
)
def test_a_point_has_all_mass_and_ties_are_decided(body: str, expected: int) -> None:
    point = spaces.box_of(["1/3", "1/3"], ["1/3", "1/3"])
    query = spaces.query(spaces.identity(2), body, point)
    laws: list[Law] = [uniform_law(query), Gaussian(np.ones(2), np.ones(2), point)]
    for law in laws:
        found = final_bounds(query, law, QUICK)
        assert found.lower == found.upper == expected


def test_ties_of_a_coordinate_of_width_zero_are_decided() -> None:
    """z(0) is 0.1 exactly; only z(1) varies."""
    region = spaces.box_of(["0.1", 0], ["0.1", 1])
    for body, expected in (("z(0) > 0.1 or z(1) < 1/4", "1/4"), ("z(0) >= 0.1", "1")):
        query = spaces.query(spaces.identity(2), body, region)
        found = final_bounds(query, uniform_law(query), QUICK)
        assert contains(found, Fraction(expected))
        assert found.undecided < 1e-8


def test_a_network_with_one_point_is_decided_exactly() -> None:
    hidden = (([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [-0.5]))
    scores = spaces.space(([[1.0]], [0.0]), *hidden)
    for value, expected in (("1/2", 1), ("1/3", 0)):
        query = spaces.query(scores, "logit(x) >= 0", spaces.box_of([value], [value]))
        assert final_bounds(query, uniform_law(query), QUICK).lower == expected


def test_a_network_over_an_interval() -> None:
    """The logit is |z| − 1/2 on [−1, 1]: positive on half of it."""
    hidden = (([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [-0.5]))
    query = spaces.query(
        spaces.space(([[1.0]], [0.0]), *hidden), "logit(x) >= 0", spaces.box_of([-1], [1])
    )
    found = final_bounds(query, uniform_law(query), QUICK)
    assert contains(found, Fraction(1, 2))
    assert found.undecided < 1e-8


@pytest.mark.parametrize("size", [1, 2, 7, 64])
@pytest.mark.parametrize("at", [-7.0, -1.5, 0.0, 0.3, 4.0])
def test_half_spaces_of_a_gaussian_are_exact(size: int, at: float) -> None:
    random = np.random.default_rng(size)
    weights, mean = random.normal(size=size), random.normal(size=size)
    sigma = random.random(size) + 0.1
    scale = np.sqrt((weights**2 * sigma**2).sum())
    bound = Fraction(float(weights @ mean + at * scale))
    query = spaces.query(summed(weights.tolist()), f"score(a) <= {bound}", cube(size))
    found = final_bounds(query, Gaussian(mean, sigma), Limits(1e-9, 60.0, 1))
    assert float(found.lower) <= norm.cdf(at) * (1 + 1e-9)
    assert float(found.upper) >= norm.cdf(at) * (1 - 1e-9)
    # The mean of the sum is rounded; relative to it the tail is known to 1e-12.
    assert found.undecided <= 4e-12 * min(norm.cdf(at), norm.sf(at)) + 1e-12


def test_a_gaussian_cut_to_an_interval() -> None:
    region = spaces.box_of(["-1/2"], [2])
    query = spaces.query(summed([1.0]), "score(a) <= 1", region)
    for mean, sigma in ((0.0, 1.0), (3.0, 0.5), (-4.0, 0.7), (0.7, 100.0)):
        law = Gaussian(np.array([mean]), np.array([sigma]), region)
        ends = (-0.5 - mean) / sigma, (2 - mean) / sigma
        expected = truncnorm.cdf(1, *ends, loc=mean, scale=sigma)
        found = final_bounds(query, law, QUICK)
        assert float(found.lower) - 1e-10 <= expected <= float(found.upper) + 1e-10
        assert found.undecided < 1e-8


@pytest.mark.parametrize("signs", [(1, 1), (1, -1)])
def test_two_cut_gaussians_against_quadrature(signs: tuple[int, int]) -> None:
    """``P(z0 ± z1 ≤ t)`` by a sum over z0 and the distribution function of z1."""
    region = spaces.box_of([-1, 0], [1, 2])
    mean, sigma = np.array([0.4, -0.3]), np.array([0.6, 1.1])
    query = spaces.query(summed(list(map(float, signs))), "score(a) <= 0.7", region)
    laws = [
        truncnorm((a - m) / s, (b - m) / s, loc=m, scale=s)
        for a, b, m, s in zip((-1, 0), (1, 2), mean, sigma, strict=True)
    ]
    points, weights = np.polynomial.legendre.leggauss(400)
    rest = 0.7 - points
    inner = laws[1].cdf(rest) if signs[1] > 0 else laws[1].sf(-rest)
    kinks = float((weights * laws[0].pdf(points) * inner).sum())
    found = final_bounds(query, Gaussian(mean, sigma, region), Limits(1e-9, 60.0, 1000))
    assert float(found.lower) - 1e-5 <= kinks <= float(found.upper) + 1e-5
    assert found.undecided < 1e-4


def test_quantiles_of_a_cut_gaussian_enclose_scipys() -> None:
    random = np.random.default_rng(3)
    for _ in range(20):
        mean, sigma = random.normal(size=3) * 5, random.random(3) * 2 + 0.01
        low = mean + sigma * random.uniform(-9, 7, 3)
        region = box(vector(map(Fraction, low)), vector(map(Fraction, low + sigma)))
        share = random.integers(0, 2**10, (6, 3)) / 2**10
        cells = Gaussian(mean, sigma, region).cells(share, np.ones((6, 3)))
        ends = (low - mean) / sigma, (low + sigma - mean) / sigma
        expected = truncnorm.ppf(share, *ends, loc=mean, scale=sigma)
        slack = 1e-9 * sigma + 1e-12
        assert (cells.lower <= expected + slack).all()
        assert (np.abs(cells.lower - expected) <= 1e-6 * sigma).all()
        assert (cells.slack < 1e-6 * sigma).all()


def test_any_marginals_known_by_bounds_of_their_distribution_functions() -> None:
    """``P(z ≤ x) = x²`` on [0, 1], known to 1e-6: ``P(z0 ≤ 1/2, z1 ≤ 1/2) = 1/16``."""

    def bounds(_: int, x: float) -> tuple[float, float]:
        value = min(max(x, 0.0), 1.0) ** 2
        return max(value - 1e-6, 0.0), min(value + 1e-6, 1.0)

    law = Marginals(cube(2), bounds, "squares of uniform numbers")
    query = spaces.query(spaces.identity(2), "z(0) <= 1/2 and z(1) <= 1/2", cube(2))
    found = final_bounds(query, law, Limits(1e-9, 60.0, 400))
    assert contains(found, Fraction(1, 16))
    assert found.undecided < 0.05
    assert found.assumption == "squares of uniform numbers"


def test_quantiles_of_marginals_are_bounds() -> None:
    """The square root of each share, from a distribution function known to 0.1."""

    def bounds(_: int, x: float) -> tuple[float, float]:
        return x * x - 0.1, x * x + 0.1

    law = Marginals(cube(1), bounds, "")
    share = np.arange(1, 8)[:, None] / 8
    cells = law.cells(share, share)
    assert (cells.lower <= np.sqrt(share)).all()
    assert (cells.upper >= np.sqrt(share)).all()
    assert (cells.lower**2 >= share - 0.1 - 1e-9).all()
    assert (cells.upper**2 <= share + 0.1 + 1e-9).all()


def test_what_lies_beyond_the_reach_of_a_gaussian_stays_undecided() -> None:
    """A network that satisfies the formula everywhere: all but the cut tails is proved."""
    hidden = (([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [-0.5]))
    query = spaces.query(spaces.space(([[1.0]], [0.0]), *hidden), "logit(x) >= -1", cube(1))
    law = Gaussian(np.zeros(1), np.ones(1))
    found = final_bounds(query, law, QUICK)
    assert found.upper == 1
    assert found.lower == law.core < 1 - 2 * Fraction(norm.sf(12.0))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_bounds_of_counts_hold_for_every_dependence(count: int) -> None:
    """At least k of 4 events that are unions of atoms of a random finite space."""
    query = spaces.query(
        spaces.identity(3),
        f"not atleast({count}, z(0) > 0, z(1) > 0, z(2) > 0, z(0) + z(1) > 0)",
        cube(3),
    )
    rows = rows_of(query.space, query.halfspaces)
    random = np.random.default_rng(count)
    for _ in range(200):
        atoms = random.dirichlet(np.full(9, 0.3))
        events = random.random((4, 9)) < random.random()
        chances = events @ atoms
        truth = atoms[events.sum(axis=0) >= count].sum()
        low, high = frechet(query.violation, rows, Masses(chances[None], chances[None]))
        assert low[0] <= truth + 1e-12
        assert high[0] >= truth - 1e-12
        assert high[0] - low[0] <= 1


def test_bounds_of_conjunctions_are_those_of_frechet() -> None:
    query = spaces.query(spaces.identity(2), "not (z(0) > 0 and z(1) > 0)", cube(2))
    rows = rows_of(query.space, query.halfspaces)
    low, high = frechet(query.violation, rows, Masses(*(np.array([[0.75, 0.5]]),) * 2))
    assert low[0] == pytest.approx(0.25)
    assert high[0] == pytest.approx(0.5)


def test_has_stays_undecided_and_other_literals_still_count() -> None:
    layer = Affine(np.eye(2), np.zeros(2))
    scores = spaces.space(
        (np.eye(2).tolist(), [0.0, 0.0]), alignment=layer, thresholds={"a": Fraction(1, 2)}
    )
    query = spaces.query(scores, "has(a) or z(0) > 3/4", cube(2))
    found = final_bounds(query, uniform_law(query), QUICK)
    assert Fraction(1, 4) - Fraction(1, 10**4) <= found.lower <= Fraction(1, 4)
    assert found.upper == 1


def test_bad_distributions_are_refused() -> None:
    query = spaces.query(spaces.identity(2), "z(0) > 0", cube(2))
    empty = spaces.box_of([1, 0], [0, 1])
    with pytest.raises(BadRegion, match="empty"):
        uniform_law(spaces.query(spaces.identity(2), "z(0) > 0", empty))
    with pytest.raises(BadRegion, match="empty"):
        Gaussian(np.zeros(2), np.ones(2), empty)
    with pytest.raises(BadRegion, match="12 standard deviations"):
        Gaussian(np.full(2, 99.0), np.ones(2), cube(2))
    with pytest.raises(BadRegion, match="less than 1e-20"):
        Gaussian(np.full(2, 11.9), np.ones(2), cube(2))
    with pytest.raises(BadUsage, match="negative"):
        Gaussian(np.zeros(2), -np.ones(2))
    with pytest.raises(BadUsage, match="finite"):
        Gaussian(np.full(2, np.nan), np.ones(2))
    with pytest.raises(BadUsage, match="as many"):
        Gaussian(np.zeros(2), np.ones(3))
    with pytest.raises(BadUsage, match="differ in dimension"):
        Gaussian(np.zeros(3), np.ones(3), cube(2))
    with pytest.raises(BadUsage, match="3 dimensions for embeddings of 2"):
        final_bounds(query, Uniform(cube(3)))


def test_regions_that_are_no_box_are_refused() -> None:
    lens = Lens.load(BUNDLE)
    text = "spec s: forall x in ellipsoid(bird, gamma=1): beak > fur"
    spec = parse(text).specs[0]
    assert isinstance(spec, ForAll)
    (query,) = queries_of(spec, lens, space_of(lens))
    with pytest.raises(BadRegion, match="s: a distribution needs a region that is one box"):
        uniform_law(query)


SHIPPED = """
spec large: forall x in focus(flower, gamma=2): petals > fur
spec wheels: forall x in focus(aircraft, gamma=3): predict(aircraft) => wings > wheels
spec counted: forall x in focus(mammal, gamma=2): atleast(2, fur > wings, ears > wings, legs > fins)
spec both: forall x in focus(bird, gamma=3): predict(bird) => beak > fur and beak > fins
"""


def test_64_dimensions_of_the_shipped_bundle() -> None:
    """Undecided mass is small for one pair of half-spaces that matters, and samples agree."""
    lens = Lens.load(BUNDLE)
    space = space_of(lens)
    for spec, most in zip(parse(SHIPPED).specs, (1e-9, 0.01, 0.12, 0.16), strict=True):
        assert isinstance(spec, ForAll)
        assert isinstance(spec.region, Focus)
        (query,) = queries_of(spec, lens, space)
        moments = class_moments(lens, spec.region.label)
        for law in (uniform_law(query), class_law(query, moments)):
            found = final_bounds(query, law, Limits(1e-4, 60.0, 2))
            assert found.undecided < most, spec.name
            if isinstance(law, Uniform):
                hits, count = point_probability(query, law, 1, 50)
                assert plausible(found, hits, count)


def test_cells_of_a_cut_gaussian_know_their_moments() -> None:
    random = np.random.default_rng(8)
    for _ in range(30):
        mean, sigma = random.normal(size=2), random.random(2) + 0.05
        low = mean + sigma * random.uniform(-6, 4, 2)
        high = low + sigma * random.uniform(0.1, 3, 2)
        law = Gaussian(mean, sigma, box(vector(map(Fraction, low)), vector(map(Fraction, high))))
        cells = law.cells(np.zeros((1, 2)), np.ones((1, 2)))
        own = truncnorm((low - mean) / sigma, (high - mean) / sigma, loc=mean, scale=sigma)
        assert np.abs(cells.mean[0] - own.mean()) == pytest.approx(0, abs=1e-6)
        assert (cells.mean_error < 1e-9).all()
        assert (cells.proxy[0] >= own.var() * (1 - 1e-6)).all()
        peak = own.pdf(np.clip(mean, low, high))
        assert cells.spread[0] * peak == pytest.approx(1)
        for scale in (-3.0, 0.5, 7.0):  # E exp(s(z − mean)) ≤ exp(s² proxy / 2)
            x = low + (np.arange(4000)[:, None] + 0.5) / 4000 * (high - low)
            tilted = (np.exp(scale * (x - own.mean())) * own.pdf(x)).mean(axis=0) * (high - low)
            assert (tilted <= np.exp(scale**2 * cells.proxy[0] / 2) * (1 + 1e-4)).all()


@pytest.mark.parametrize("size", [2, 5, 40])
def test_tails_alone_are_sound(size: int) -> None:
    """Sub-Gaussian bounds of a sum of uniform numbers, against the exact distribution."""
    scores = summed([1.0] * size)
    for share in range(1, 20):
        at = Fraction(share, 20) * size
        query = spaces.query(scores, f"not score(a) > {at}", cube(size))
        rows = rows_of(scores, query.halfspaces)
        ranges = ranges_of(scores, rows, [cube(size)])
        cells = uniform_law(query).cells(np.zeros((1, size)), np.ones((1, size)))
        found, _ = tail_masses(cells, ranges, np.ones((1, size)))
        exact = 1 - irwin_hall(size, at)
        assert Fraction(float(found.lower[0, 0])) <= exact <= Fraction(float(found.upper[0, 0]))
        if size == 40 and share in (3, 17):
            assert min(found.upper[0, 0], 1 - found.lower[0, 0]) < 1e-8


@pytest.mark.parametrize("mean", [0.0, 0.3, -0.9])
def test_a_coordinate_without_spread_in_a_wide_box(mean: float) -> None:
    """A dead neuron: it lies at its mean, however wide the box is there."""
    region = spaces.box_of([-1, -1], [1, 1])
    query = spaces.query(spaces.identity(2), "score(a) > 0.25", region)
    law = Gaussian(np.array([0.0, mean]), np.array([1.0, 0.0]), region)
    (*_, found) = mass_bounds(query.space, query.violation, law, QUICK)
    truth = float((norm.cdf(1) - norm.cdf(0.25)) / (norm.cdf(1) - norm.cdf(-1)))
    assert 0 <= found.lower <= found.upper <= 1
    assert float(found.lower) - 1e-9 <= truth <= float(found.upper) + 1e-9
    assert float(found.undecided) < 1e-6
