"""Instances as specs over a lens bundle: the answers, the witnesses, and their exact check."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conspec.benchmarks.runner import spec_worker
from conspec.benchmarks.runner.check_witness import check_against_spec
from conspec.benchmarks.runner.instances import read_suite
from conspec.benchmarks.runner.peers.printing import witness_text
from conspec.benchmarks.runner.spec_query import inputs_of, is_counterexample, read_query
from conspec.benchmarks.suites import folder as folder_module
from conspec.benchmarks.suites.folder import export_suite
from conspec.benchmarks.suites.request import Request
from conspec.encodings.boxed import over_box
from conspec.encodings.exact import Vector, vector, zeros
from conspec.encodings.images import Image, Shape
from conspec.encodings.query import Query
from conspec.encodings.regions import Box
from conspec.specs.errors import BadFile, BadUsage, SpecSyntaxError, UnknownName
from conspec.verifier import Violated, verify
from conspec.verifier import decide as decide_module
from conspec.verifier.verdict import Reason, Unknown, Witness
from tests import oracle, spaces
from tests.bundles import write_skewed
from tests.commands import lines
from tests.fake_solvers import adapter
from tests.test_cli_bench_run import results
from tests.test_encodings_smtlib import KINDS, expected, modest, points
from tests.test_verifier_has import grid, random_queries

ROUND = spaces.images(spaces.spaces(), Shape.BALL)
ANY = {**KINDS, "ball": ROUND}
SUITE = """
spec in_a_box: forall x in focus(truck, gamma=2): not has(x, wings)
spec proved: forall x in focus(truck, gamma=0.1): has(x, wings)
spec in_a_ball: forall x in ball(3, radius=2.5, norm=l2): wheels > wings and predict(truck)
spec in_a_small_ball: forall x in ball(3, radius=0.01, norm=l2): predict(truck)
spec in_an_ellipsoid: forall x in ellipsoid(bird, gamma=3): has(wings) and not has(fur)
spec in_axes: forall x in pca_box(bird, gamma=2): has(fur) => wings > fur
spec in_a_hull: forall x in hull(truck): not has(wings)
spec in_a_cut: forall x in ball(40, 3, l2) and polytope(score(wings) >= 2): predict(bird)
spec never: forall x in focus(bird, gamma=0.1): predict(truck) => has(fur)
spec linear: forall x in focus(truck, gamma=2): predict(truck) => wheels > wings
"""


@pytest.fixture(scope="module", params=["affine", "relu"])
def suite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported suite of `SUITE`; tests that change it copy it first."""
    place = tmp_path_factory.mktemp("spec")
    lens = write_skewed(place / "lens", request.param == "relu")
    return export_suite(lens, place / "suite", Request(suite=SUITE, seconds=10.0)).folder


def truths(suite: Path) -> dict[str, str | None]:
    return {line["instance"]: line["answer"] for line in lines(suite / "truth.jsonl")}


def asked(suite: Path, name: str, seconds: str = "20") -> list[str]:
    return [str(suite / "bundle"), str(suite / "specs.conspec"), name, seconds]


def judged(suite: Path, name: str, witness: str) -> str | None:
    return check_against_spec(witness, suite / "specs.conspec", suite / "bundle", name)["check"]


# --- the program -------------------------------------------------------------------------------


def test_answers_are_right_and_witnesses_exact(
    suite: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen = Counter[str]()
    for name, truth in truths(suite).items():
        assert spec_worker.main(asked(suite, name)) == 0
        word, _, witness = capfd.readouterr().out.partition("\n")
        assert word == truth, name
        seen[word] += 1
        if word == "sat":
            assert judged(suite, name, witness) == "exact", name
        else:
            assert witness == ""
    assert seen["sat"] >= 4
    assert seen["unsat"] >= 3


@pytest.mark.parametrize(
    ("reason", "word"), [(Reason.TIME_LIMIT, "timeout"), (Reason.CONE_PRECISION, "unknown")]
)
def test_what_is_not_decided_says_why(
    reason: Reason,
    word: str,
    suite: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given_limits = []

    def undecided(query: Query, engine: str, limits: decide_module.Limits) -> Unknown:
        given_limits.append((engine, limits.seconds))
        return Unknown(reason, "see there")

    monkeypatch.setattr(decide_module, "verify", undecided)
    assert spec_worker.main(asked(suite, "in_a_box", "7")) == 0
    found = capfd.readouterr()
    assert found.out.splitlines() == [word]
    assert "see there" in found.err
    ((engine, seconds),) = given_limits
    assert engine == "auto"
    assert 0 < seconds <= 7


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("spec t: forall x in focus(truck, gamma=1): wings > fur", UnknownName, "no spec 's'"),
        ("spec s: forall x in focus(van, gamma=1): wings > fur", UnknownName, "van"),
        ("spec s: forall x in focus(truck gamma=1)", SpecSyntaxError, r"s\.conspec:1"),
        (
            "spec s: probability >= 0.5 with confidence 0.9 for x in class(truck): wings > fur",
            BadUsage,
            "s asks for a probability",
        ),
        (
            "spec s: forall x in hull(truck) or hull(bird): wings > fur",
            BadUsage,
            "the region of s is a union of 2",
        ),
    ],
)
def test_what_is_no_instance_is_refused(
    text: str,
    error: type[Exception],
    message: str,
    suite: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "s.conspec").write_text(text)
    with pytest.raises(error, match=message):
        read_query(suite / "bundle", tmp_path / "s.conspec", "s")
    arguments = [str(suite / "bundle"), str(tmp_path / "s.conspec"), "s", "5"]
    assert spec_worker.main(arguments) == 1
    assert capfd.readouterr().out == "error\n"


def test_a_changed_bundle_is_refused(
    suite: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(suite, tmp_path / "copy")
    path = copy / "bundle" / "head.onnx"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert spec_worker.main(asked(copy, "in_a_box")) == 1
    found = capfd.readouterr()
    assert found.out == "error\n"
    assert "the file was changed or damaged" in found.err
    with pytest.raises(BadFile, match=r"head\.onnx: SHA-256"):
        judged(copy, "in_a_box", "((X_0 1))")


# --- X and its check ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ANY)
def test_a_point_is_accepted_iff_it_is_a_counterexample(kind: str) -> None:
    """Against the exported form of the region and the formula as written."""

    @modest(25)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        query = data.draw(ANY[kind])
        boxed = over_box(query)
        for _ in range(4):
            inputs = data.draw(points(boxed))
            is_one = expected(boxed, inputs)
            assert is_counterexample(query, inputs, Fraction(0)) == is_one
            assert not is_one or is_counterexample(query, inputs, Fraction(1, 10**4))

    run()


def test_has_is_judged_exactly() -> None:
    """Ties included: coordinates are multiples of a quarter."""
    seen = set()
    for query in random_queries(seed=8, count=60):
        assert isinstance(query.region, Box)
        boxed = over_box(query)
        for point in grid(query.region, 1):
            inputs = vector(point)
            is_one = expected(boxed, inputs)
            assert is_counterexample(query, inputs, Fraction(0)) == is_one
            seen.add(is_one)
    assert seen == {True, False}


@pytest.mark.parametrize("shape", Shape)
def test_parameters_of_a_witness_are_its_inputs(shape: Shape) -> None:
    found = 0

    @modest(30)
    @given(spaces.images(spaces.spaces(depth=st.just(0)), shape))
    def run(query: Query) -> None:
        nonlocal found
        verdict = verify(query)
        if isinstance(verdict, Violated):
            inputs = inputs_of(query.region, verdict.witness)
            assert is_counterexample(query, inputs, Fraction(0))
            assert (
                over_box(query).embedding(inputs).fractions() == verdict.witness.point.fractions()
            )
            assert oracle.refuted(query, verdict.witness)
            found += 1

    run()
    assert found >= 5


def test_a_point_without_parameters_has_inputs_in_a_box_only() -> None:
    witness = Witness(zeros(2), Fraction(1))
    assert inputs_of(spaces.box_of([0, 0], [1, 1]), witness) == zeros(2)
    with pytest.raises(ValueError, match="has parameters"):
        inputs_of(Image(zeros(2), np.eye(2), Fraction(1), Shape.BALL), witness)


def image(shape: Shape, body: str, size: int = 2) -> Query:
    region = Image(zeros(size), np.eye(size), Fraction(2), shape)
    return spaces.query(spaces.identity(size), body, region)


NEAR, FAR = Fraction(9, 10**5), Fraction(11, 10**5)


@pytest.mark.parametrize("past", [NEAR, FAR])
@pytest.mark.parametrize(
    ("shape", "inputs"),
    [
        (None, lambda past: [1 + past, 0]),
        (None, lambda past: [0, -1 - past]),
        (Shape.CUBE, lambda past: [2 + past, 0]),
        (Shape.CUBE, lambda past: [0, -2 - past]),
        (Shape.BALL, lambda past: [0, 2 + past]),
        (Shape.BALL, lambda past: [(2 + past) * Fraction(v) for v in ("3/5", "4/5")]),
        (Shape.SIMPLEX, lambda past: [2 + past, -past]),
        (Shape.SIMPLEX, lambda past: [2 + past, 0]),
        (Shape.SIMPLEX, lambda past: [2 - past, 0]),
    ],
)  # fmt: skip
def test_a_region_may_be_missed_by_the_tolerance(
    shape: Shape | None, inputs: Callable[[Fraction], Sequence[Fraction]], past: Fraction
) -> None:
    query = image(shape, "false") if shape else box_query("false")
    outside, border = vector(inputs(past)), vector(inputs(Fraction(0)))
    assert is_counterexample(query, border, Fraction(0))
    assert not is_counterexample(query, outside, Fraction(0))
    assert is_counterexample(query, outside, Fraction(1, 10**4)) == (past < Fraction(1, 10**4))


def box_query(body: str) -> Query:
    return spaces.query(spaces.identity(2), body, spaces.box_of([-1, -1], [1, 1]))


def has_query(body: str) -> Query:
    """Cosines with the axes, above 0.6 for ``has``."""
    space = spaces.space(
        (np.eye(2).tolist(), [0.0, 0.0]),
        (np.eye(2).tolist(), [0.0, 0.0]),
        alignment=spaces.affine(np.eye(2).tolist(), [0.0, 0.0]),
        thresholds={"a": Fraction(3, 5), "b": Fraction(-3, 5)},
    )
    return spaces.query(space, body, spaces.box_of([-9, -9], [9, 9]))


def at_angle(cosine: Fraction) -> Vector:
    """A point whose cosine with the first axis is about that: its error is below 1e-9."""
    height = Fraction(str(round(float(1 - cosine**2) ** 0.5, 12)))
    return vector([5 * cosine, 5 * height])


def turned(point: Vector) -> Vector:
    """The same with the axes exchanged."""
    return vector(reversed(point.fractions()))


@pytest.mark.parametrize("past", [NEAR, FAR])
@pytest.mark.parametrize(
    ("body", "query", "at"),
    [
        ("not has(x, a)", has_query, lambda past: at_angle(Fraction(3, 5) - past)),
        ("has(x, a)", has_query, lambda past: at_angle(Fraction(3, 5) + past)),
        ("has(x, b)", has_query, lambda past: turned(at_angle(Fraction(-3, 5) + past))),
        ("score(a) >= 0.5", box_query, lambda past: vector([Fraction(1, 2) + past, 0])),
        ("score(a) < 0.5", box_query, lambda past: vector([Fraction(1, 2) - past, 0])),
    ],
)
def test_a_formula_may_be_missed_by_the_tolerance(
    body: str, query: Callable[[str], Query], at: Callable[[Fraction], Vector], past: Fraction
) -> None:
    asked_about = query(body)
    assert not is_counterexample(asked_about, at(past), Fraction(0))
    is_near = is_counterexample(asked_about, at(past), Fraction(1, 10**4))
    assert is_near == (past < Fraction(1, 10**4))
    assert is_counterexample(asked_about, at(Fraction(-1, 10**6)), Fraction(0))


@pytest.mark.parametrize("text", ["", "((X_0 1))", "((X_0 1) (X_1 1) (X_2 1) (X_3 x))", "no"])
def test_what_is_no_witness_is_missing(suite: Path, text: str) -> None:
    assert judged(suite, "in_a_box", text) == "missing"


def test_the_word_of_a_witness_is_by_how_much_it_misses(suite: Path) -> None:
    query = read_query(suite / "bundle", suite / "specs.conspec", "in_a_ball")
    assert isinstance(query.region, Image)
    assert query.region.shape is Shape.BALL
    verdict = verify(query)
    assert isinstance(verdict, Violated)
    inputs = inputs_of(query.region, verdict.witness)
    length = Fraction(float(inputs.floats() @ inputs.floats()) ** 0.5)
    found = {}
    for past in ("0", "1/50000", "1/100"):
        far = query.region.scale * (1 + Fraction(past)) / length
        if past == "0":
            far *= 1 - Fraction(1, 10**9)
        found[past] = judged(suite, "in_a_ball", witness_text(inputs.scaled(far).fractions()))
    assert found == {"0": "exact", "1/50000": "tolerance", "1/100": "invalid"}


# --- suites and runs ---------------------------------------------------------------------------


@pytest.mark.parametrize("suite", ["relu"], indirect=True)
def test_a_run_answers_what_vnnlib_cannot_say(suite: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(suite, tmp_path / "copy")
    lie = "sat\n" + witness_text([Fraction(0)] * 4)
    liar = adapter(tmp_path, "liar", f"print({lie!r})", ("{query}", "{lens}", "{name}"))
    Path(liar).write_text(Path(liar).read_text().replace('["vnnlib1"]', '["spec"]'))
    names = ["conspec-spec", "conspec", "z3", liar]
    code, rows = results(copy, names, "--only", "in_a_b*", "--jobs", 2)
    assert code == 1  # because of the liar
    found = {
        solver: {
            row.key.instance: (row.found.answer, row.found.witness_check)
            for row in rows
            if row.key.solver == solver
        }
        for solver in ("conspec-spec", "conspec", "z3", "liar")
    }
    right = dict.fromkeys(("in_a_box", "in_a_ball"), ("sat", "exact"))
    assert found["conspec-spec"] == right
    assert found["z3"] == right
    assert found["conspec"] == dict.fromkeys(right, ("unsupported", None))
    assert found["liar"] == dict.fromkeys(right, ("sat", "invalid"))


def test_without_its_bundle_an_instance_is_unsupported_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "LARGEST_BUNDLE", 0)
    lens = write_skewed(tmp_path / "lens", hidden=False)
    request = Request(suite=SUITE, seconds=10.0, formats=("smt",))
    suite = export_suite(lens, tmp_path / "suite", request).folder
    assert not (suite / "bundle").exists()
    assert "too large to be in this folder" in (suite / "README.md").read_text()
    code, (ours, other) = results(suite, ["conspec-spec", "z3"], "--only", "in_a_box")
    assert (code, ours.found.answer) == (0, "unsupported")
    assert ours.found.detail == (
        "the instance has a spec and no lens bundle: the bundle was not copied, since it has more "
        "than 0 MiB"
    )
    assert (other.found.answer, other.found.witness_check) == ("sat", "exact")
    assert other.found.detail == "checked by z3 with the inputs fixed"


def changed(suite: Path, **files: Any) -> Path:
    """The suite with other entries of its first instance."""
    document = json.loads((suite / "suite.json").read_text())
    for key, value in files.items():
        if key == "left_out":
            document["instances"][0]["left_out"] = value
        else:
            document["instances"][0]["files"][key] = value
    (suite / "suite.json").write_text(json.dumps(document))
    return suite


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"lens": "bundle/head.onnx"}, r"'lens' is not the manifest\.json"),
        ({"lens": "bundle"}, "there is no file 'bundle'"),
        ({"lens": "../lens/manifest.json"}, "leads out of"),
        ({"spec": "/specs.conspec"}, "not a relative path"),
        ({"left_out": ["smt"]}, "'left_out': expected an object"),
        ({"left_out": {"smt": 3}}, "expected a name or path"),
    ],
)
def test_what_an_instance_may_not_say(
    suite: Path, files: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadFile, match=message):
        read_suite(changed(shutil.copytree(suite, tmp_path / "copy"), **files))


def test_the_hash_is_of_specs_and_bundle_too(suite: Path, tmp_path: Path) -> None:
    found = {read_suite(suite).hash}
    for name in ("specs.conspec", "bundle/manifest.json"):
        copy = shutil.copytree(suite, tmp_path / Path(name).stem)
        assert read_suite(copy).hash in found
        with (copy / name).open("a") as stream:
            stream.write("\n")
        found.add(read_suite(copy).hash)
    assert len(found) == 3
