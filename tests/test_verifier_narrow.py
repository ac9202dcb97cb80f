"""MILP engines on ReLU heads over narrow regions: no solver's tolerance becomes a proof.

Each query is violated at the middle of its box, exactly, by nothing or next to nothing. Solvers
have said "infeasible" to such models when the ranges of neurons were narrow, and that was taken
for a proof.
"""

from fractions import Fraction
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from conspec.encodings.exact import vector
from conspec.encodings.images import Image, Shape
from conspec.encodings.network import Affine, Network
from conspec.encodings.query import Query
from conspec.encodings.regions import box
from conspec.encodings.scores import ScoreSpace
from conspec.specs import formula as f
from conspec.specs.exact import write_number
from conspec.verifier import Limits, Proved, Verdict, Violated, verify
from conspec.verifier.batch import screen
from conspec.verifier.decide import _Sessions, _settled
from conspec.verifier.engines import MILP_SOLVERS, open_session
from tests import oracle, spaces

SIZES = (3, 5, 4, 2)
RADII = tuple(Fraction(text) for text in ("0", "1e-13", "1e-9", "1e-6", "0.1"))
BELOW = tuple(Fraction(text) for text in ("0", "1e-14", "1e-11", "1e-8", "1e-4"))


def layer(random: Random, inputs: int, outputs: int) -> Affine:
    """Weights with equal and opposite ones among them, and biases of all sizes."""

    def weight() -> float:
        return random.choice([-1.0, 1.0, 0.5, 0.0, random.uniform(-1, 1)])

    weights = np.array([[weight() for _ in range(inputs)] for _ in range(outputs)], np.float32)
    biases = [random.choice([0.0, 1.0, 1e-9, -1e-12, random.uniform(-1, 1)]) for _ in weights]
    if random.random() < 0.5:
        weights[:, 1] = -weights[:, 0]
    if random.random() < 0.3:
        weights[1], biases[1] = weights[0], biases[0]
    return Affine(weights.astype(np.float64), np.array(biases, np.float32).astype(np.float64))


def planted(random: Random, above: Fraction | None = None) -> Query:
    """A query that the middle of its box violates; with ``above``, misses by that much."""
    pairs = pairwise(SIZES)
    network = Network(tuple(layer(random, inputs, outputs) for inputs, outputs in pairs))
    names = ("a", "b")
    nothing = Affine(np.zeros((0, SIZES[0])), np.zeros(0))
    space = ScoreSpace(names, (), network, nothing)
    middle = [Fraction(random.randint(-20, 20), 10) for _ in range(SIZES[0])]
    signs = [Fraction(1), Fraction(-1)][: random.randint(1, 2)]
    terms = tuple((sign, f.Logit(name)) for sign, name in zip(signs, names, strict=False))
    outputs = network.exact(vector(middle))
    value = sum((s * y for s, y in zip(signs, outputs, strict=False)), Fraction(0))
    least = f.Linear((), value - random.choice(BELOW) if above is None else value + above)
    body = f.Not(f.Compare(f.Linear(terms), f.Relation.GE, least))
    radius = random.choice(RADII)
    lower, upper = [x - radius for x in middle], [x + radius for x in middle]
    spec = f.ForAll("planted", f.Box(tuple(lower), tuple(upper)), body)
    query = Query(spec, space, box(vector(lower), vector(upper)))
    assert query.margin(vector(middle))[0] is (above is None)
    return query


@pytest.mark.parametrize("name", ["bounds", *MILP_SOLVERS])
def test_nothing_violated_is_proved(name: str) -> None:
    if name == "scip":
        pytest.importorskip("pyscipopt")
    random = Random(7)
    for _ in range(250):
        query = planted(random)
        session = open_session(name, query.space, query.region)
        verdict = session.decide(query, query.constrained, Limits().seconds)
        assert not isinstance(verdict, Proved), query


def test_linear_bounds_alone_prove_what_is_far_from_violated() -> None:
    random = Random(8)
    for _ in range(50):
        query = planted(random, Fraction(1000))
        verdict, stage = verdict_and_stage(query)
        assert isinstance(verdict, Proved)
        assert stage in ("screen", "bounds")
    close = [verdict_and_stage(planted(random, Fraction(1, 10)))[1] for _ in range(150)]
    assert close.count("bounds") > 3


def verdict_and_stage(query: Query) -> tuple[Verdict, str]:
    (screened,) = screen([query], points=False, ascent=True)
    return _settled(screened, "auto", Limits(5.0), _Sessions())


def not_proved(query: Query, point: list[Fraction], name: str) -> None:
    """No solver's word for what a point of the region refutes."""
    assert query.region.contains(vector(point))
    assert query.margin(vector(point))[0]
    session = open_session(name, query.space, query.region)
    assert not isinstance(session.decide(query, query.constrained, 5.0), Proved)


@pytest.mark.parametrize("name", MILP_SOLVERS)
def test_a_range_of_a_denormal_or_two_is_not_rounded_down(name: str) -> None:
    """A half-width of 1.4 denormals is 1 as a float; in units of that, its end would be cut off."""
    if name == "scip":
        pytest.importorskip("pyscipopt")
    unit = Fraction(5e-324)
    layers = ([[1.0]], [1e-300]), ([[1.0]], [-1e-300])
    space = spaces.space(([[1.0]], [0.0]), *layers)  # the logit is z itself
    radius, limit = unit * Fraction(7, 5), unit * Fraction(6, 5)
    body = f"logit(x) < {limit.numerator}/{limit.denominator}"
    query = spaces.query(space, body, spaces.box_of([-radius], [radius]))
    not_proved(query, [radius], name)


@pytest.mark.parametrize("name", MILP_SOLVERS)
def test_a_tie_that_presolving_of_scip_loses(name: str) -> None:
    """SCIP 10.0 with its presolving calls the margin's floor optimal here."""
    if name == "scip":
        pytest.importorskip("pyscipopt")
    layers = (
        (
            [[-0.6348480819282373, 0.0], [-3.655819481816354, 3.4504062651583385]],
            [-679756.927015046, 2009689.1751728037],
        ),
        (
            [
                [0.0, 0.0],
                [-1532908.25, -2344087.25],
                [-0.010226624086499214, 0.0059165251441299915],
                [-34.01338195800781, -40.397727966308594],
            ],
            [125791.63429851695, 125791634172.72531, 839.2046668137601, 12581954594.231245],
        ),
        (
            [
                [1.5192630959164344, -1.5192630959164344, 0.0, 0.0],
                [0.0, 0.0, 0.0, 0.0],
                [-0.06799920422371142, 0.0, -0.250408469273342, 0.0],
                [0.0, 0.0, 0.0, 0.0],
            ],
            [-72165.66076128537, -118702.152096881, 98105.01355518919, -107928.6707846879],
        ),
    )
    affines = tuple(Affine(np.array(weight), np.array(bias)) for weight, bias in layers)
    names = ("a", "b", "c", "d")
    space = ScoreSpace(names, (), Network(affines), Affine(np.zeros((0, 2)), np.zeros(0)))
    point = [Fraction("-1199999.999"), Fraction("-1900000.001")]
    outputs = Network(affines).exact(vector(point))
    terms = ((Fraction(1), f.Logit("b")), (Fraction(-1), f.Logit("c")))
    tie = f.Linear((), outputs[1] - outputs[2])
    body = f.Not(f.Compare(f.Linear(terms), f.Relation.GE, tie))
    lower = (Fraction("-1200000.001"), Fraction("-1900000.001"))
    upper = (Fraction("-1199999.999"), Fraction("-1899999.999"))
    spec = f.ForAll("tie", f.Box(lower, upper), body)
    not_proved(Query(spec, space, box(vector(lower), vector(upper))), point, name)


@pytest.mark.parametrize("name", MILP_SOLVERS)
@pytest.mark.parametrize("spread", [0.0, 1e-13, 1e-9, 1e-6])
def test_a_hull_far_from_the_origin(name: str, spread: float) -> None:
    """What all samples have in common must not multiply the tolerance of their weights' sum."""
    if name == "scip":
        pytest.importorskip("pyscipopt")
    corner = np.array([[1e3 * (1 + spread)], [1.7e3]])
    region = Image(vector([0, 0]), corner, Fraction(1), Shape.SIMPLEX)
    layers = ([[1.0, -1.0], [-1.0, 1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0])
    space = spaces.space(([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]), *layers)
    first, second = region.at(vector([1])).fractions()
    least = Fraction("1e-13")
    limits = [write_number(first - least), write_number(abs(first - second) - least)]
    body = f"not (z(0) >= {limits[0]} and logit(x) >= {limits[1]})"
    query = spaces.query(space, body, region)
    not_proved(query, [first, second], name)


@pytest.mark.parametrize("name", MILP_SOLVERS)
@pytest.mark.parametrize("width", ["0", "1e-6", "1e-3"])
@pytest.mark.parametrize("middle", ["0", "0.5", "-0.7"])
def test_a_literal_of_an_earlier_query_that_hardly_varies(
    middle: str, width: str, name: str
) -> None:
    """The logit is z; the column of the first query's literal is 1 ± 1e-7, and it stays."""
    if name == "scip":
        pytest.importorskip("pyscipopt")
    layers = ([[1.0]], [2.0]), ([[1.0]], [-2.0])
    space = spaces.space(([[1.0]], [0.0]), *layers)
    region = spaces.box_of([-1], [1])
    session = open_session(name, space, region)
    before = spaces.query(space, "not (1e-7 * logit(x) + 1 >= 0)", region)
    session.decide(before, before.constrained, 5.0)
    point, half = Fraction(middle), Fraction(width)
    near = f"logit(x) >= {write_number(point - half)} and logit(x) <= {write_number(point + half)}"
    body = f"not ({near} and 0.9659 - 0.0341 * logit(x) >= 0)"
    query = spaces.query(space, body, region)
    assert query.margin(vector([point]))[0]
    assert not isinstance(session.decide(query, query.constrained, 5.0), Proved)


@pytest.mark.parametrize("name", ["auto", *MILP_SOLVERS])
def test_logits_that_hardly_vary(name: str) -> None:
    """x is 1 − 1e-7 z and w is 0.5 + 1e-7 z; violated at z = 0.001."""
    if name == "scip":
        pytest.importorskip("pyscipopt")
    slopes = [[1.0], [1 + 1e-7], [1.0], [1 - 1e-7]]
    last = [[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, -1.0]]
    hidden = (slopes, [5.0, 5.0, 2.0, 5.0])
    space = spaces.space(([[1.0]], [0.0]), hidden, (last, [1.0, -2.0, 0.5]))
    body = """not (logit(y) >= 0.001 and logit(y) <= 0.001 and 0.1 * logit(y) + logit(x) >= 0
                   and logit(w) >= 0 and 0.0341 * logit(y) + 1.02 * logit(x) >= 0)"""
    query = spaces.query(space, body, spaces.box_of([-1], [1]))
    assert query.margin(vector([Fraction(1, 1000)]))[0]
    assert not isinstance(verify(query, name), Proved)


@pytest.mark.parametrize("body", [f"logit(x) < 1{'0' * 400}", "1e400 * logit(x) > score(a)"])
@pytest.mark.parametrize("name", ["auto", *MILP_SOLVERS])
def test_a_constant_beyond_float64_is_no_traceback(name: str, body: str) -> None:
    if name == "scip":
        pytest.importorskip("pyscipopt")
    layers = ([[1.0], [-1.0]], [0.0, 0.5]), ([[1.0, 1.0]], [0.0])
    space = spaces.space(([[1.0]], [0.0]), *layers)
    query = spaces.query(space, body, spaces.box_of([-1], [1]))
    verdict = verify(query, name)
    truth = oracle.decide(query)
    assert not isinstance(verdict, Proved) or truth
    assert not isinstance(verdict, Violated) or not truth
