"""MPS and LP files: the program is exact, all readers read the same, and optima answer queries."""

import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import z3
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from conspec.encodings.boxed import Boxed, over_box
from conspec.encodings.exact import vector
from conspec.encodings.images import Shape
from conspec.encodings.layer_ranges import hidden_ranges, outward
from conspec.encodings.milp_file import ExactMilp, exact_json, lp_text, milp_of, mps_text
from conspec.encodings.query import Query
from conspec.encodings.regions import Box
from conspec.specs import formula as f
from conspec.specs.errors import BadUsage
from conspec.specs.rewrite import Halfspace
from conspec.verifier import Limits, Proved, Violated, verify
from tests import oracle, spaces
from tests.test_encodings_smtlib import KINDS, points
from tests.test_verifier_has import random_queries

TOLERANCE = 1e-5
SQUARE = spaces.box_of([-1] * 3, [1] * 3)
EMPTY = -1e6  # stands for the optimum over an empty region
NUMBERS = st.fractions(-10, 10, max_denominator=1000)


def modest(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )


# --- The program itself, in exact arithmetic -------------------------------------------------


def in_z3(milp: ExactMilp) -> tuple[Any, list[Any]]:
    """The program's constraints and its columns, exactly."""
    solver, columns = z3.Solver(), []
    for column in milp.columns:
        name = z3.Real(column.name)
        columns.append(name)
        if column.binary:
            solver.add(z3.Or(name == 0, name == 1))
        solver.add(rational(column.lower) <= name, name <= rational(column.upper))
    for row in milp.rows:
        total = z3.Sum([rational(factor) * columns[place] for factor, place in row.terms])
        bound = rational(row.bound)
        solver.add({">=": total >= bound, "<=": total <= bound, "=": total == bound}[row.sense])
    return solver, columns


def rational(value: Fraction) -> Any:
    return z3.Q(value.numerator, value.denominator)


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_m_at_a_point_is_its_margin(kind: str) -> None:
    @modest(12)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        boxed = over_box(data.draw(KINDS[kind]))
        milp = milp_of(boxed)
        solver, columns = in_z3(milp)
        for _ in range(3):
            inputs = data.draw(points(boxed))
            solver.push()
            solver.add(
                [c == rational(v) for c, v in zip(columns, inputs.fractions(), strict=False)]
            )
            inside = boxed.region.contains(inputs) and all(
                cut_value(boxed, cut, inputs) >= 0 for cut in boxed.cuts
            )
            assert (str(solver.check()) == "sat") == inside
            if inside:
                _, margin = boxed.query.margin(inputs)
                best = columns[milp.margin]
                assert str(solver.check(best >= rational(margin))) == "sat"
                assert str(solver.check(best > rational(margin))) == "unsat"
            solver.pop()

    run()


def test_counts_inside_disjunctions_count() -> None:
    body = "not (c > a or atleast(2, a > b, score(a) > 0, b > c, c > b))"
    query = spaces.query(spaces.identity(3), body, SQUARE)
    solver, columns = in_z3(milp_of(over_box(query)))
    for point in product([Fraction(v, 2) for v in (-2, 0, 1, 2)], repeat=3):
        here = [c == rational(v) for c, v in zip(columns, point, strict=False)]
        margin = rational(query.margin(vector(point))[1])
        best = next(column for column in columns if str(column) == "m")
        assert str(solver.check(*here, best >= margin)) == "sat"
        assert str(solver.check(*here, best > margin)) == "unsat"


def cut_value(boxed: Boxed, cut: Halfspace, inputs: Any) -> Fraction:
    weights, constant = boxed.query.space.row(cut)
    return weights.dot_plus(boxed.query.space.with_hidden(inputs), constant)


@modest(40)
@given(st.data())
def test_neurons_stay_within_their_ranges(data: st.DataObject) -> None:
    query = data.draw(spaces.queries(spaces.spaces(depth=st.integers(1, 2))))
    assert isinstance(query.region, Box)
    ranges = hidden_ranges(query.space.head, query.region)
    point = data.draw(points(over_box(query))).fractions()
    lower, upper = oracle.ends(query)
    if all(a <= v <= b for a, v, b in zip(lower, point, upper, strict=True)):
        for layer, values in zip(ranges, oracle.hidden(query.space, point), strict=False):
            assert all(low <= v <= high for (low, high), v in zip(layer, values, strict=True))


@given(NUMBERS, NUMBERS)
def test_ranges_are_rounded_outward_to_floats(one: Fraction, two: Fraction) -> None:
    low, high = outward((min(one, two), max(one, two)))
    assert low <= min(one, two) <= max(one, two) <= high
    for value, near in ((low, min(one, two)), (high, max(one, two))):
        assert Fraction(float(value)) == value
        assert abs(value - near) <= abs(near) / 2**52


# --- Files -----------------------------------------------------------------------------------


def written(folder: Path, query: Query) -> tuple[ExactMilp, Path, Path]:
    milp = milp_of(over_box(query), "a title")
    mps, lp = folder / "query.mps", folder / "query.lp"
    mps.write_text(mps_text(milp), encoding="ascii")
    lp.write_text(lp_text(milp), encoding="ascii")
    return milp, mps, lp


def highs_optimum(path: Path) -> float:
    model = highs_model(path)
    model.setOptionValue("mip_rel_gap", 0.0)
    model.run()
    word = model.modelStatusToString(model.getModelStatus())
    if word == "Infeasible":
        return EMPTY
    assert word == "Optimal"
    return float(model.getInfo().objective_function_value)


def highs_model(path: Path) -> Any:
    import highspy

    model = highspy.Highs()
    model.setOptionValue("output_flag", False)
    assert model.readModel(str(path)) != highspy.HighsStatus.kError
    return model


def scip_optimum(path: Path) -> float:
    pyscipopt = pytest.importorskip("pyscipopt")
    model = pyscipopt.Model()
    model.hideOutput()
    model.readProblem(str(path))
    model.optimize()
    if model.getStatus() == "infeasible":
        return EMPTY
    assert model.getStatus() == "optimal"
    return float(model.getObjVal())


def gurobi_optimum(path: Path) -> float:
    gurobipy = pytest.importorskip("gurobipy")
    environment = gurobipy.Env(params={"OutputFlag": 0, "LogToConsole": 0})
    model = gurobipy.read(str(path), env=environment)
    model.Params.MIPGap = 0.0
    model.optimize()
    if model.Status == gurobipy.GRB.INFEASIBLE:
        return EMPTY
    assert model.Status == gurobipy.GRB.OPTIMAL
    return float(model.ObjVal)


@pytest.mark.parametrize("kind", KINDS)
def test_optima_of_all_readers_answer_the_query(kind: str, tmp_path: Path) -> None:
    clear = set()

    @modest(35)
    @given(KINDS[kind])
    def run(query: Query) -> None:
        _, mps, lp = written(tmp_path, query)
        found = [highs_optimum(mps), scip_optimum(mps), scip_optimum(lp), gurobi_optimum(mps)]
        found += [highs_optimum(lp), gurobi_optimum(lp)]
        assert max(found) - min(found) <= TOLERANCE * (1 + abs(found[0]))
        verdict = verify(query, "z3", Limits(seconds=20.0))
        assert isinstance(verdict, Proved | Violated)
        for optimum in found:
            if abs(optimum) > TOLERANCE:
                assert isinstance(verdict, Violated) == (optimum > 0)
                clear.add(optimum > 0)

    run()
    assert clear == {True, False}


def arrays(path: Path) -> dict[str, Any]:
    """The model as HiGHS has read it, by names."""
    lp = highs_model(path).getLp()
    matrix: dict[tuple[str, str], float] = {}
    starts, places, values = lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_
    assert str(lp.a_matrix_.format_).endswith("kColwise")
    for column, name in enumerate(lp.col_names_):
        for k in range(starts[column], starts[column + 1]):
            if values[k]:
                matrix[lp.row_names_[places[k]], name] = values[k]
    kinds = [str(kind) for kind in lp.integrality_] or ["kContinuous"] * lp.num_col_
    return {
        "sense": str(lp.sense_),
        "cost": dict(zip(lp.col_names_, lp.col_cost_, strict=True)),
        "lower": dict(zip(lp.col_names_, lp.col_lower_, strict=True)),
        "upper": dict(zip(lp.col_names_, lp.col_upper_, strict=True)),
        "integer": {n for n, kind in zip(lp.col_names_, kinds, strict=True) if "kInt" in kind},
        "row_lower": dict(zip(lp.row_names_, lp.row_lower_, strict=True)),
        "row_upper": dict(zip(lp.row_names_, lp.row_upper_, strict=True)),
        "matrix": matrix,
    }


@pytest.mark.parametrize("kind", ["relu", "simplex", "contested affine"])
def test_mps_and_lp_hold_the_rounded_exact_numbers(kind: str, tmp_path: Path) -> None:
    @modest(20)
    @given(KINDS[kind])
    def run(query: Query) -> None:
        milp, mps, lp = written(tmp_path, query)
        read = arrays(mps)
        assert read == arrays(lp)
        exact = json.loads(exact_json(milp))
        assert read["sense"].endswith("kMaximize")
        assert {name for name, cost in read["cost"].items() if cost} == {exact["maximise"]}
        names = [column["name"] for column in exact["columns"]]
        assert names == list(read["cost"])
        assert read["integer"] == {c["name"] for c in exact["columns"] if c["binary"]}
        for column in exact["columns"]:
            assert read["lower"][column["name"]] == float(Fraction(column["lower"]))
            assert read["upper"][column["name"]] == float(Fraction(column["upper"]))
        matrix = {}
        for row in exact["rows"]:
            bound = float(Fraction(row["bound"]))
            if row["sense"] != "<=":
                assert read["row_lower"][row["name"]] == bound
            if row["sense"] != ">=":
                assert read["row_upper"][row["name"]] == bound
            for name, text in row["terms"].items():
                matrix[row["name"], name] = float(Fraction(text))
        # HiGHS itself takes factors below 1e-9 for zero.
        assert read["matrix"] == {k: v for k, v in matrix.items() if abs(v) > 1e-9}

    run()


def test_every_float_is_in_the_text_with_all_its_digits() -> None:
    scores = spaces.space(([[1 / 3, 1e-30], [0.1, 3.0]], [0.0, 1e-45]))
    region = spaces.box_of(["1/3", -1], ["2/3", 1])
    milp = milp_of(over_box(spaces.query(scores, "a > b", region)))
    for text in (mps_text(milp), lp_text(milp)):
        for value in ("0.3333333333333333", "1e-30", "0.1", "1e-45", "0.6666666666666666"):
            assert value in text
    assert '"1/3"' in exact_json(milp)


def lines_of(text: str) -> Iterator[int]:
    return (len(line) for line in text.splitlines())


def test_long_rows_and_comments_are_wrapped() -> None:
    size = 300
    row = [[1 / 3] * size]
    scores = spaces.space((row * 2, [0.0, 0.1]), (row, [0.0]))
    body = f.Or(tuple(f.Stronger("a", "b") for _ in range(40)))
    found = spaces.query(scores, body, spaces.box_of([-1] * size, [1] * size))
    milp = milp_of(over_box(found), "long " * 100)
    assert max(lines_of(lp_text(milp))) <= 255
    assert max(lines_of(mps_text(milp))) <= 255


@pytest.mark.parametrize(
    ("body", "comparisons", "optimum"),
    [
        ("a > b", "closed", 0.0),
        ("a >= b", "strict", 0.0),
        ("a > b and score(a) >= 5", "mixed", 5.0),
        ("not (a > b)", "strict", 0.0),
    ],
)
def test_the_objective_says_how_to_read_a_tie(
    body: str, comparisons: str, optimum: float, tmp_path: Path
) -> None:
    """Over the points with a = b every margin of a and b is 0."""
    scores = spaces.space(([[1.0], [1.0]], [0.0, 0.0]))
    milp, mps, lp = written(tmp_path, spaces.query(scores, body, spaces.box_of([0], [1])))
    assert milp.comparisons == comparisons
    assert f" N  margin_{comparisons}\n" in mps.read_text()
    assert f" margin_{comparisons}: m\n" in lp.read_text()
    assert highs_optimum(mps) == pytest.approx(optimum, abs=1e-9)


@pytest.mark.parametrize(("value", "optimum"), [(True, -1.0), (False, 1.0)])
def test_constants(value: bool, optimum: float, tmp_path: Path) -> None:
    found = spaces.query(spaces.identity(1), f.Constant(value), spaces.box_of([0], [1]))
    _, mps, lp = written(tmp_path, found)
    for path in (mps, lp):
        assert highs_optimum(path) == optimum
        assert scip_optimum(path) == optimum
        assert gurobi_optimum(path) == optimum


def test_a_strict_cut_is_a_comparison_of_the_violation() -> None:
    found = spaces.query(spaces.identity(2), "a > b", spaces.box_of([0, 0], [1, 1]))
    wall = Halfspace(((Fraction(1), f.Coordinate(0)),), Fraction(-1, 2), strict=True)
    milp = milp_of(over_box(replace(found, cuts=(wall,))))
    solver, columns = in_z3(milp)
    best = columns[milp.margin]
    assert str(solver.check(columns[0] == rational(Fraction(1, 2)), best > 0)) == "unsat"
    assert str(solver.check(columns[0] == 1, best == 0)) == "sat"
    assert milp.comparisons == "mixed"


def test_what_is_not_linear_is_refused_by_name() -> None:
    query = next(random_queries(1, 1))
    with pytest.raises(BadUsage, match=r"has\([abc]\).*SMT-LIB"):
        milp_of(over_box(query))

    @modest(10)
    @given(spaces.images(spaces.spaces(), Shape.BALL))
    def run(query: Query) -> None:
        boxed = over_box(query)
        if boxed.ball is not None:
            with pytest.raises(BadUsage, match=r"ball.*SMT-LIB"):
                milp_of(boxed)

    run()


def test_numbers_beyond_float64_are_refused() -> None:
    region = spaces.box_of([0], ["1e310"])
    query = spaces.query(spaces.identity(1), "score(a) >= 1", region)
    with pytest.raises(BadUsage, match="float64"):
        mps_text(milp_of(over_box(query)))
