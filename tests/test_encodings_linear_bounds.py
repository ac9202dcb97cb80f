"""Linear bounds of ReLU networks: never below what exact arithmetic finds, and tight if known."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import z3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conspec.encodings.bounds import extended_box, hidden_bounds, interval_bounds
from conspec.encodings.exact import vector
from conspec.encodings.images import Image, Shape
from conspec.encodings.linear_bounds import Combinations, LayerBounds, linear_uppers
from conspec.encodings.network import Network
from conspec.encodings.regions import Box
from conspec.encodings.scores import ScoreSpace
from tests import oracle, spaces

modest = settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
SIZES = spaces.SIZES
DEEP = st.one_of(
    spaces.spaces(depth=st.integers(1, 4)),
    spaces.spaces(depth=st.integers(1, 4), weights=spaces.SINGLE),
    spaces.spaces(depth=st.integers(1, 3), weights=SIZES),
)


def points(region: Box) -> list[list[Fraction]]:
    """Corners of one diagonal, points between, and points near single corners."""
    low, high = region.lower.fractions(), region.upper.fractions()
    shares = [Fraction(0), Fraction(1), Fraction(1, 3), Fraction(1, 2), Fraction(7, 8)]
    turned = [[shares[(i + j) % 5] for j in range(len(low))] for i in range(5)]
    rows = [*([share] * len(low) for share in shares), *turned]
    return [[a + s * (b - a) for a, b, s in zip(low, high, row, strict=True)] for row in rows]


def after(values: Sequence[Fraction]) -> list[Fraction]:
    return [max(value, Fraction(0)) for value in values]


@modest
@given(DEEP, st.data())
def test_every_neuron_lies_within_its_bounds(space: ScoreSpace, data: st.DataObject) -> None:
    region = data.draw(spaces.boxes(space.dimension))
    bounds = hidden_bounds(space.head, region)
    for point in points(region):
        for bound, values in zip(bounds, oracle.hidden(space, point), strict=False):
            for low, value, high in zip(bound.lower, values, bound.upper, strict=True):
                assert low == -np.inf or Fraction(low) <= value
                assert high == np.inf or Fraction(high) >= value


@modest
@given(DEEP, st.data())
def test_they_are_never_wider_than_intervals(space: ScoreSpace, data: st.DataObject) -> None:
    region = data.draw(spaces.boxes(space.dimension))
    pairs = zip(hidden_bounds(space.head, region), interval_bounds(space.head, region), strict=True)
    for tight, wide in pairs:
        assert np.all(tight.upper <= wide.upper)
        assert np.all(tight.lower >= wide.lower)
        assert not np.isnan(tight.upper).any()


@modest
@given(DEEP, st.data())
def test_the_affine_function_itself_is_an_upper_bound(
    space: ScoreSpace, data: st.DataObject
) -> None:
    """Not only its maximum: at each point, in exact arithmetic, with the slack."""
    region = data.draw(spaces.boxes(space.dimension))
    numbers = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1e-3, 3.0])
    bounds = hidden_bounds(space.head, region)
    on_hidden = np.array([[data.draw(numbers) for _ in range(space.hidden)] for _ in "ab"])
    on_region = np.array([[data.draw(numbers) for _ in range(space.dimension)] for _ in "ab"])
    wanted = Combinations(on_hidden, on_region, np.array([data.draw(numbers), 0.0]))
    uppers = linear_uppers(space.head, region, bounds, wanted)
    known = np.isfinite(uppers.rows).all(axis=1) & np.isfinite(uppers.constants + uppers.slack)
    for point in points(region):
        *_, hidden, _ = [[], *oracle.hidden(space, point)]
        for row in np.flatnonzero(known):
            exact = vector([Fraction(v) for v in on_hidden[row]]).dot(vector(after(hidden)))
            exact += vector([Fraction(v) for v in on_region[row]]).dot(vector(point))
            exact += Fraction(wanted.constants[row])
            bound = vector([Fraction(v) for v in uppers.rows[row]]).dot(vector(point))
            bound += Fraction(uppers.constants[row]) + Fraction(uppers.slack[row])
            assert exact <= bound
    highest = uppers.highest(region)
    assert not np.isnan(highest).any()


@settings(modest, max_examples=25)
@given(spaces.spaces(depth=st.integers(1, 3)), st.data())
def test_no_bound_is_below_the_exact_optimum(space: ScoreSpace, data: st.DataObject) -> None:
    region = data.draw(spaces.boxes(space.dimension))
    weight, bias = space.head.affines[-1].floats
    wanted = Combinations(weight, np.zeros((len(bias), space.dimension)), bias)
    highest = linear_uppers(space.head, region, hidden_bounds(space.head, region), wanted).highest(
        region
    )
    for place, bound in enumerate(highest):
        assert maximum(space, region, place) <= Fraction(bound)


def maximum(space: ScoreSpace, region: Box, place: int) -> Fraction:
    """The exact maximum of a logit, by z3."""
    search = z3.Optimize()
    values = [z3.Real(f"x{i}") for i in range(space.dimension)]
    ends = zip(values, region.lower.fractions(), region.upper.fractions(), strict=True)
    for value, low, high in ends:
        search.add(value >= z3.Q(low.numerator, low.denominator))
        search.add(value <= z3.Q(high.numerator, high.denominator))
    for depth, layer in enumerate(space.head.affines):
        inputs = values if depth == 0 else [z3.If(v > 0, v, z3.RealVal(0)) for v in values]
        values = []
        for weights, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True):
            exact = [Fraction(w) for w in (*weights, bias)]
            terms = [z3.Q(w.numerator, w.denominator) for w in exact]
            values.append(z3.Sum([t * x for t, x in zip(terms, inputs, strict=False)] + terms[-1:]))
    goal = z3.simplify(values[place])
    search.maximize(goal)
    assert search.check() == z3.sat
    found = search.model().eval(goal, model_completion=True)
    assert isinstance(found, z3.RatNumRef)
    return Fraction(found.as_fraction())


def test_what_intervals_forget_is_kept() -> None:
    """Two equal neurons that are always active cancel: intervals say [−2, 2]."""
    first = spaces.affine([[1.0], [1.0]], [3.0, 3.0])
    second = spaces.affine([[1.0, -1.0]], [0.0])
    network = Network((first, second, spaces.affine([[1.0]], [0.0])))
    region = spaces.box_of([-1], [1])
    assert interval_bounds(network, region)[1].upper[0] == pytest.approx(2.0)
    bounds = hidden_bounds(network, region)[1]
    assert 0 <= bounds.upper[0] < 1e-12
    assert -1e-12 < bounds.lower[0] <= 0


def test_the_triangle_over_an_unstable_neuron() -> None:
    """``relu(x) − x/2`` on [−1, 3]: the chord 3/4 (x + 1) gives 3/2 at x = 3, its true maximum."""
    network = Network((spaces.affine([[1.0]], [0.0]), spaces.affine([[1.0]], [0.0])))
    region = spaces.box_of([-1], [3])
    wanted = Combinations(np.array([[1.0]]), np.array([[-0.5]]), np.zeros(1))
    bounds = hidden_bounds(network, region)
    uppers = linear_uppers(network, region, bounds, wanted)
    assert uppers.rows == pytest.approx(np.array([[0.25]]))
    assert uppers.highest(region) == pytest.approx(np.array([1.5]))
    lowers = linear_uppers(network, region, bounds, wanted.negated())
    assert lowers.rows == pytest.approx(np.array([[-0.5]]))  # below: the identity


def test_deep_networks_do_not_die_of_loose_bounds() -> None:
    """Five hidden layers of fifty: intervals grow by the width, linear bounds by far less."""
    generator = np.random.default_rng(1)
    sizes = [5, 50, 50, 50, 50, 50, 5]
    layers = [
        spaces.affine(
            (generator.normal(size=(m, n)) / np.sqrt(n)).tolist(),
            (generator.normal(size=m) / 10).tolist(),
        )
        for n, m in pairwise(sizes)
    ]
    network = Network(tuple(layers))
    region = spaces.box_of([-0.02] * 5, [0.02] * 5)
    tight = hidden_bounds(network, region)[-1]
    wide = interval_bounds(network, region)[-1]
    assert (tight.upper - tight.lower).mean() < (wide.upper - wide.lower).mean() / 20


def test_overflow_is_an_infinite_bound() -> None:
    big = spaces.affine([[1e300], [-1e300]], [0.0, 0.0])
    network = Network((big, spaces.affine([[1e300, 1e300]], [0.0]), big))
    *_, last = hidden_bounds(network, spaces.box_of([-1], [1]))
    assert last.upper[0] == np.inf


@pytest.mark.parametrize("shape", list(Shape))
def test_an_image_is_bounded_by_its_support(shape: Shape) -> None:
    """In the first layer no box around the region is needed: ``x + y`` cancels on this line."""
    region = Image(vector([0, 0]), np.array([[1.0, -1.0], [-1.0, 1.0]]), Fraction(1), shape)
    network = Network((spaces.affine([[1.0, 1.0]], [0.5]), spaces.affine([[1.0]], [0.0])))
    (bounds,) = hidden_bounds(network, region)
    assert bounds.lower[0] == pytest.approx(0.5)
    assert bounds.upper[0] == pytest.approx(0.5)
    assert bounds.lower[0] <= 0.5 <= bounds.upper[0]


def test_the_screen_keeps_the_bounds_that_the_checker_knows() -> None:
    """A certificate is checked with intervals, so the screen must not use better ones."""
    first = ([[1.0], [1.0]], [3.0, 3.0])
    space = spaces.space(([[1.0]], [0.0]), first, ([[1.0, -1.0]], [0.0]), ([[1.0]], [0.0]))
    _, upper = extended_box(space, spaces.box_of([-1], [1]))
    assert upper[-1] == pytest.approx(2.0)


def test_bounds_within_others() -> None:
    one = LayerBounds(np.array([-1.0, 0.5]), np.array([1.0, 2.0]))
    both = one.within(LayerBounds(np.array([-2.0, 1.0]), np.array([0.5, 3.0])))
    assert both.lower.tolist() == [-1.0, 1.0]
    assert both.upper.tolist() == [0.5, 2.0]
    assert both.unstable.tolist() == [True, False]
