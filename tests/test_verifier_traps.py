"""Where a float solver is wrong, shown first; conspec is right there, or says that it is not sure.

``naive`` asks for a violation the usual way: strict as non-strict, a literal chosen by a binary
with a big-M, and the solver's word taken as it is.
"""

from fractions import Fraction
from importlib.util import find_spec

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from conspec.encodings.query import Query
from conspec.verifier import ENGINES, Proved, Unknown, Violated, verify
from tests import oracle, spaces

RUN = [engine for engine in ENGINES if engine != "scip" or find_spec("pyscipopt")]
SQUARE = spaces.box_of([0, 0], [1, 1])


def right_or_unsure(query: Query, truth: bool) -> None:
    """Every engine; ``auto`` and z3 must be sure."""
    assert oracle.decide(query) is truth
    for engine in RUN:
        match verify(query, engine):
            case Proved():
                assert truth, engine
            case Violated(witness):
                assert not truth, engine
                assert oracle.refuted(query, witness)
            case Unknown():
                assert engine not in ("auto", "z3")


def naive_feasible(rows: list[list[float]], right: list[float]) -> bool:
    """Whether ``rows · z ≥ right`` has a solution in the unit square, says HiGHS."""
    box = [(0.0, 1.0)] * 2
    a, b = -np.array(rows), -np.array(right)
    return bool(linprog(np.zeros(2), A_ub=a, b_ub=b, bounds=box).status == 0)


@pytest.mark.parametrize("gap", ["1e-9", "1e-12", "1e-15"])
def test_an_empty_strip_looks_inhabited(gap: str) -> None:
    """``a + b`` is never both above 1 + gap and below 1: HiGHS finds a point all the same."""
    assert naive_feasible([[1, 1], [-1, -1]], [1 + float(gap), -1])
    body = f"not (score(a) + score(b) >= 1 + {gap} and score(a) + score(b) <= 1)"
    right_or_unsure(spaces.query(spaces.identity(2), body, SQUARE), True)


def test_a_tie_looks_like_a_strict_violation() -> None:
    """``a < b`` and ``b <= a``: rounded to non-strict, a solver calls the tie a violation."""
    assert naive_feasible([[-1, 1], [1, -1]], [0, 0])
    body = "not (b > a and score(b) <= score(a))"
    right_or_unsure(spaces.query(spaces.identity(2), body, SQUARE), True)


@pytest.mark.parametrize("gap", ["1e-9", "1e-12"])
def test_a_thin_strip_looks_empty_with_a_safety_margin(gap: str) -> None:
    """Strictness by an epsilon of 1e-6, as is usual, hides a counterexample of size 1e-9."""
    assert not naive_feasible([[1, 1], [-1, -1]], [1 + 1e-6, -(1 + float(gap)) + 1e-6])
    body = f"not (score(a) + score(b) > 1 and score(a) + score(b) < 1 + {gap})"
    right_or_unsure(spaces.query(spaces.identity(2), body, SQUARE), False)


def naive_big_m(offset: float, big: float) -> bool:
    """``a ≥ offset or b ≥ offset`` by binaries and a big-M, over the unit square."""
    rows = np.array([[1.0, 0, -big, 0], [0, 1.0, 0, -big], [0, 0, 1.0, 1.0]])
    low = np.array([offset - big, offset - big, 1.0])
    answer = milp(
        np.zeros(4),
        constraints=LinearConstraint(rows, low, np.inf),
        integrality=np.array([0, 0, 1, 1]),
        bounds=Bounds(0, 1),
        options={"presolve": False},  # which would see through a query as small as this
    )
    return bool(answer.status == 0)


def test_a_big_m_leaks() -> None:
    """With M = 1e8, a binary of 1 − 1e-7 is integer enough, and lifts the literal by 10."""
    assert not naive_big_m(2.0, 10.0)
    assert naive_big_m(2.0, 1e8)
    body = "score(a) < 2 and score(b) < 2"
    right_or_unsure(spaces.query(spaces.identity(2), body, SQUARE), True)
    nested = "atmost(0, score(a) >= 2 and score(b) > 0.5, score(b) >= 2 and score(a) > 0.5)"
    right_or_unsure(spaces.query(spaces.identity(2), nested, SQUARE), True)


@pytest.mark.parametrize(("gap", "truth"), [("1e-9", False), ("0", True), ("-1e-9", True)])
def test_three_lines_that_almost_meet(gap: str, truth: bool) -> None:
    """A triangle of size 1e-9, a point, or nothing: open sides around (1/3, 1/3)."""
    body = f"""not (score(a) > 1/3 and score(b) > 1/3
                    and score(a) + score(b) < 2/3 + {gap})"""
    right_or_unsure(spaces.query(spaces.identity(2), body, SQUARE), truth)


@pytest.mark.parametrize(("gap", "truth"), [("1e-9", False), ("0", False), ("-1e-9", True)])
def test_three_lines_that_almost_meet_closed(gap: str, truth: bool) -> None:
    body = f"""not (score(a) >= 1/3 and score(b) >= 1/3
                    and score(a) + score(b) <= 2/3 + {gap})"""
    right_or_unsure(spaces.query(spaces.identity(2), body, SQUARE), truth)


@pytest.mark.parametrize("radius", ["1e-6", "1e-9", "1e-11"])
@pytest.mark.parametrize("size", [3, 12])
def test_a_small_box_far_out(size: int, radius: str) -> None:
    """Rounding of ``w · z`` at 1e9 is larger than all that happens in the box."""
    random = np.random.default_rng(size)
    weights = random.integers(-9, 10, size) / 8
    center = [Fraction(int(value), 7) for value in random.integers(10**8, 10**10, size)]
    space = spaces.space(([weights.tolist()], [0.0]), ([[1.0] * size], [0.0]))
    middle = sum((Fraction(w) * c for w, c in zip(weights, center, strict=True)), Fraction(0))
    width = Fraction(radius)
    region = spaces.box_of([c - width for c in center], [c + width for c in center])
    low, high = middle + width / 10, middle + width / 5
    body = f"not (score(a) > {low} and score(a) < {high})"
    right_or_unsure(spaces.query(space, body, region), False)
    body = f"score(a) > {low} or score(a) < {high}"
    right_or_unsure(spaces.query(space, body, region), True)


@pytest.mark.parametrize("radius", ["1e-8", "1e-10", "1e-12"])
def test_a_small_ball_under_a_relu(radius: str) -> None:
    """HiGHS drops the coefficients of such a box, below 1e-9, unless neurons are scaled."""
    space = spaces.space(
        ([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]), ([[1.0, -1.0], [-1.0, 1.0]], [0.0, 0.0]),
        ([[1.0, 1.0]], [0.0]),
    )  # fmt: skip
    width = Fraction(radius)
    region = spaces.box_of([1 - width, 1 - width], [1 + width, 1 + width])
    for share, truth in (("1.5", False), ("2.5", True)):
        body = f"logit(x) <= {share} * {radius}"
        right_or_unsure(spaces.query(space, body, region), truth)
