"""Ties, empty and point regions, equal and zero rows, sizes from 1e-45 to 1e308: known answers."""

from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec

import numpy as np
import pytest

from conspec.encodings.regions import Box
from conspec.encodings.scores import ScoreSpace
from conspec.verifier import ENGINES, Proved, Unknown, Violated, verify
from tests import oracle, spaces
from tests.spaces import box_of

RUN = [engine for engine in ENGINES if engine != "scip" or find_spec("pyscipopt")]

ONE, TWO = spaces.identity(1), spaces.identity(2)
UNIT = box_of([0], [1])
SQUARE = box_of([-1, -1], [1, 1])
TWINS = spaces.space(([[1.0, 2.0], [1.0, 2.0]], [0.5, 0.5]), ([[1.0, 2.0], [1.0, 2.0]], [0.5, 0.5]))
ZEROS = spaces.space(([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0]), ([[0.0, 0.0]], [0.0]))
TENTH = Fraction(1, 10)
NEAREST = Fraction(0.1)  # a little above one tenth


def singles(scale: float) -> ScoreSpace:
    """``a = s·z0`` and ``b = s·z1`` with a float32 s."""
    return spaces.identity(2, float(np.float32(scale)))


def deep(*weights: float) -> ScoreSpace:
    """A chain of ReLU neurons, with a logit at its end, over one dimension."""
    layers = [([[weight]], [0.0]) for weight in weights]
    return spaces.space(([[1.0]], [0.0]), *layers)


@dataclass(frozen=True)
class Case:
    """A query with a known answer."""

    name: str
    space: ScoreSpace
    body: str
    region: Box
    holds: bool


CASES = [
    # A margin of exactly zero, strict and not.
    Case("equal rows are not stronger", TWINS, "a > b", SQUARE, False),
    Case("equal rows, either way", TWINS, "not a > b and not b > a", SQUARE, True),
    Case("equal rows are at least as strong", TWINS, "score(a) >= score(b)", SQUARE, True),
    Case("a tie is no prediction", TWINS, "predict(x)", SQUARE, False),
    Case("nobody is predicted at a tie", TWINS, "not predict(x) and not predict(y)", SQUARE, True),
    Case("zero rows: 0 > 0", ZEROS, "a > b", SQUARE, False),
    Case("zero rows: 0 >= 0", ZEROS, "score(a) >= score(b)", SQUARE, True),
    Case("one class is always predicted", ONE, "predict(x)", UNIT, True),
    Case("a concept is not above itself", ONE, "a > a", UNIT, False),
    # The box touches the half-space.
    Case("touches from inside, closed", ONE, "score(a) >= 0", UNIT, True),
    Case("touches from inside, open", ONE, "score(a) > 0", UNIT, False),
    Case("touches from outside, closed", ONE, "score(a) <= 1", UNIT, True),
    Case("touches from outside, open", ONE, "score(a) < 1", UNIT, False),
    Case("corner touches, closed", TWO, "score(a) + score(b) <= 2", SQUARE, True),
    Case("corner touches, open", TWO, "score(a) + score(b) < 2", SQUARE, False),
    # Two closed sides meet in one point, which an open side excludes.
    Case("meet in a line", ONE, "score(a) > 1/2 or score(a) < 1/2", UNIT, False),
    Case("overlap in a line", ONE, "score(a) >= 1/2 or score(a) <= 1/2", UNIT, True),
    Case("no gap", ONE, "score(a) > 1/2 or score(a) <= 1/2", UNIT, True),
    Case("a gap of 1e-12", ONE, "score(a) > 0.500000000001 or score(a) <= 1/2", UNIT, False),
    Case("an overlap of 1e-12", ONE, "score(a) >= 1/2 or score(a) <= 0.500000000001", UNIT, True),
    Case("three meet in a point", TWO, "a > b or b > a or score(a) != 0".replace(
        "score(a) != 0", "score(a) + score(b) < 0 or score(a) + score(b) > 0"), SQUARE, False),
    Case("cyclic", spaces.identity(3), "a > b and b > c => a > c", box_of([-1] * 3, [1] * 3), True),
    # Point regions and dimensions of no width.
    Case("point, tie, closed", TWO, "score(a) >= score(b)", box_of([1, 1], [1, 1]), True),
    Case("point, tie, open", TWO, "a > b", box_of([1, 1], [1, 1]), False),
    Case("one flat side", TWO, "a > b", box_of([1, "-1"], [1, "0.9"]), True),
    Case("one flat side, touched", TWO, "a > b", box_of([1, "-1"], [1, 1]), False),
    # Decimals are the numbers written.
    Case("0.1 >= 0.1", ONE, "score(a) >= 0.1", box_of(["0.1"], ["0.1"]), True),
    Case("0.1 > 0.1", ONE, "score(a) > 0.1", box_of(["0.1"], ["0.1"]), False),
    Case("0.1 <= 0.1", ONE, "score(a) <= 0.1", box_of(["0.1"], ["0.1"]), True),
    Case("nearest float > 0.1", ONE, "score(a) > 0.1", box_of([NEAREST], [NEAREST]), True),
    Case("nearest float <= 0.1", ONE, "score(a) <= 0.1", box_of([NEAREST], [NEAREST]), False),
    Case("thirds", ONE, "score(a) >= 1/3", box_of([Fraction(1, 3)], [1]), True),
    Case("0.1 + 0.2 = 0.3", TWO, "score(a) + score(b) <= 0.3", box_of(["0.1", "0.2"],
         ["0.1", "0.2"]), True),
    # Cancellation that float64 cannot see.
    Case("1e30 - 1e30 + 1", singles(1e30), "score(a) - score(b) + 1 > 0",
         box_of([1, 1], [1, 1]), True),
    Case("1e30 - 1e30 - 1", singles(1e30), "score(a) - score(b) - 1 > 0",
         box_of([1, 1], [1, 1]), False),
    Case("a far, small box, below", TWO, "score(a) - score(b) < 3e-9",
         box_of(["1e9", "1e9"], ["1000000000.000000001", "1000000000.000000001"]), True),
    Case("a far, small box, above", TWO, "score(a) - score(b) < 1e-9",
         box_of(["1e9", "1e9"], ["1000000000.000000001", "1000000000.000000001"]), False),
    # Sizes.
    *[Case(f"scale {scale:g}, true", singles(scale), "a > b", box_of([2, 0], [3, 1]), True)
      for scale in (1e-45, 1e-40, 1e-30, 1e-10, 1e10, 1e30, 3e38)],
    *[Case(f"scale {scale:g}, a tie", singles(scale), "a > b", box_of([1, 0], [3, 1]), False)
      for scale in (1e-45, 1e-40, 1e-30, 1e-10, 1e10, 1e30, 3e38)],
    *[Case(f"box of size {size}, true", TWO, f"a > b or score(b) >= {size}",
           box_of([size, 0], [size, size]), True)
      for size in ("1e-400", "1e-300", "1e-30", "1e30", "1e300", "1e308", "1e400")],
    *[Case(f"box of size {size}, false", TWO, "a > b", box_of([size, 0], [size, size]), False)
      for size in ("1e-400", "1e-300", "1e-30", "1e30", "1e300", "1e308", "1e400")],
    Case("wider than float64", ONE, "score(a) < 1", box_of(["-1.7e308"], ["1.7e308"]), False),
    *[Case(f"factor {factor}, true", ONE, f"{factor} * score(a) >= 0 or score(a) < 0",
           box_of([-1], [1]), True) for factor in ("1e-400", "1e-320", "1e-30", "1e30", "1e400")],
    *[Case(f"factor {factor}, false", ONE, f"{factor} * score(a) > 0 or score(a) < 0",
           box_of([-1], [1]), False) for factor in ("1e-400", "1e-320", "1e-30", "1e30", "1e400")],
    *[Case(f"constant {size}", ONE, f"score(a) < {size}", UNIT, True)
      for size in ("1e30", "1e400")],
    Case("rounded factors swap sides",
         spaces.space(([[float(np.float32(3e38))], [float(np.float32(3.3e38))]], [0.0, 0.0])),
         "7e-324 * score(a) - 3e-324 * score(b) <= 0", box_of([1], [2]), False),
    # ReLU chains whose value is that of relu(z), but whose neurons are tiny or huge.
    *[Case(f"chain {low:g}, {kind}", deep(low, 1 / low), f"logit(x) < {limit}", box_of([-1], [1]),
           kind == "true")
      for low in (2.0**-120, 2.0**-40, 2.0**-20, 2.0**20, 2.0**40, 2.0**120)
      for kind, limit in (("true", "1.5"), ("false", "0.5"))],
    *[Case(f"chain over a box of {size}, {kind}", deep(1.0, 1.0), f"logit(x) <= {limit} * {size}",
           box_of([f"-{size}"], [size]), kind == "true")
      for size in ("1e-12", "1e-300", "1e12")
      for kind, limit in (("true", "1"), ("false", "0.5"))],
]  # fmt: skip


@pytest.mark.parametrize("engine", RUN)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_known_answers(case: Case, engine: str) -> None:
    query = spaces.query(case.space, case.body, case.region)
    match verify(query, engine):
        case Proved():
            assert case.holds
        case Violated(witness):
            assert not case.holds
            assert oracle.refuted(query, witness)
        case Unknown(reason):
            assert engine not in ("auto", "z3"), reason


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_table_is_right(case: Case) -> None:
    assert oracle.decide(spaces.query(case.space, case.body, case.region)) is case.holds


@pytest.mark.parametrize("engine", RUN)
@pytest.mark.parametrize("gap", ["1", "1e-12", "1e-400"])
def test_an_empty_region_proves_anything_and_says_so(engine: str, gap: str) -> None:
    region = box_of([0, Fraction(gap)], [1, 0])
    verdict = verify(spaces.query(TWO, "false", region), engine)
    assert isinstance(verdict, Proved)
    assert verdict.vacuous is True


def test_a_point_region_is_not_empty() -> None:
    assert isinstance(verify(spaces.query(TWO, "false", box_of([1, 1], [1, 1]))), Violated)


@pytest.mark.parametrize(
    ("premise", "vacuous"),
    [("score(a) > 1", True), ("score(a) >= 1", False), ("a > a", True), ("predict(x)", False)],
)
def test_vacuity_is_exact(premise: str, vacuous: bool) -> None:
    verdict = verify(spaces.query(ONE, f"{premise} => score(a) >= 0", UNIT))
    assert isinstance(verdict, Proved)
    assert verdict.vacuous is vacuous


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_stated_bound_is_a_finite_true_one(case: Case) -> None:
    query = spaces.query(case.space, case.body, case.region)
    verdict = verify(query)
    if isinstance(verdict, Proved) and verdict.bound is not None:
        assert np.isfinite(verdict.bound), "JSON has no infinity"
        for point in (case.region.lower, case.region.upper):
            _, margin = query.margin(point)
            assert -margin >= Fraction(verdict.bound)
