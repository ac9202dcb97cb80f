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
from conspec.encodings.network import Affine, Network
from conspec.encodings.query import Query
from conspec.encodings.regions import box
from conspec.encodings.scores import ScoreSpace
from conspec.specs import formula as f
from conspec.verifier import Limits, Proved, Verdict
from conspec.verifier.batch import screen
from conspec.verifier.decide import _Sessions, _settled
from conspec.verifier.engines import MILP_SOLVERS, open_session

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
