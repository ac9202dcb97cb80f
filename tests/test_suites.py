"""Generated suites: the same seed gives the same specs, and each known answer is the right one."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conspec.benchmarks.suites import truth as truth_module
from conspec.benchmarks.suites.choice import _refuse_overtime, choose, stems
from conspec.benchmarks.suites.families import FAMILIES, Entry, generate, missing
from conspec.benchmarks.suites.radius import FACTORS, UNDECIDED, VERDICTS, _Known, graded
from conspec.benchmarks.suites.request import ALL_FAMILIES, GRADED, Request
from conspec.benchmarks.suites.synthetic import write_synthetic
from conspec.benchmarks.suites.truth import Truth, answer_of, ground_truth, truth_line
from conspec.encodings.exact import Vector
from conspec.encodings.query import Query, queries_of, space_of
from conspec.lens import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadUsage, MissingSolver, SpecSyntaxError, UnknownName
from conspec.specs.parser import parse
from conspec.specs.printer import to_text
from conspec.specs.semantics import holds
from conspec.verifier.checker import check_line
from conspec.verifier.checker_files import Bundle
from conspec.verifier.decide import Limits, verify_suite
from conspec.verifier.engines import open_session
from conspec.verifier.radius import LARGEST, SMALLEST
from conspec.verifier.results import Result
from conspec.verifier.verdict import Proved, Reason, Trust, Unknown, Verdict, Violated, Witness
from tests.bundles import write_tiny
from tests.oracle import decide, scores_at

EMOJI = Path(__file__).parents[1] / "lens" / "emoji10" / "bundle"
HEADS = {"affine": 0, "relu": 4}
POLYHEDRAL = tuple(name for name in FAMILIES if name != "has")


def silent(what: str, done: int, total: int) -> None:
    """Nobody looks at the progress."""


@pytest.fixture(scope="module")
def emoji() -> Lens:
    return Lens.load(EMOJI)


@pytest.fixture(scope="module", params=HEADS)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lens:
    """A synthetic bundle of five dimensions; once with an affine and once with a ReLU head."""
    folder = tmp_path_factory.mktemp("synthetic") / "bundle"
    return write_synthetic(folder, 5, HEADS[request.param], 1, classes=3, concepts=5)


def query_of(spec: f.ForAll, lens: Lens) -> Query:
    (query,) = queries_of(spec, lens, space_of(lens))
    return query


def atoms(node: f.Formula) -> Iterator[f.Formula]:
    """The atoms of a formula, each as often as it is written."""
    match node:
        case f.Not(operand):
            yield from atoms(operand)
        case f.Implies(left, right) | f.Iff(left, right):
            yield from atoms(left)
            yield from atoms(right)
        case f.And(parts) | f.Or(parts) | f.AtLeast(_, parts) | f.AtMost(_, parts):
            for part in parts:
                yield from atoms(part)
        case _:
            yield node


# --- generators --------------------------------------------------------------------------------


def test_every_family_that_can_be_asked_for_has_a_generator() -> None:
    assert (*FAMILIES, GRADED) == ALL_FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_the_seed_decides_and_names_and_specs_differ(family: str, emoji: Lens) -> None:
    first, again, other = (generate(emoji, family, 8, seed) for seed in (1, 1, 2))
    assert first == again
    assert {entry.spec.body for entry in first} != {entry.spec.body for entry in other}
    assert [entry.spec.name for entry in first] == [f"{family}_64_{i:03}" for i in range(1, 9)]
    assert len({(entry.spec.region, entry.spec.body) for entry in first}) == 8
    text = to_text(f.Suite(tuple(entry.spec for entry in first)))
    read = parse(text, classes=emoji.classes, concepts=emoji.concepts)
    assert read.specs == tuple(entry.spec for entry in first)


@pytest.mark.parametrize("family", POLYHEDRAL)
def test_specs_hold_at_the_middle_of_their_region(family: str, small: Lens) -> None:
    for entry in generate(small, family, 6, 3):
        query = query_of(entry.spec, small)
        box = small.statistics.mean, small.embeddings.z
        match entry.spec.region:
            case f.Focus(label, _):
                point = box[0][small.class_index(label)]
            case f.Ball(image, _, _):
                point = box[1][image]
        exact = [Fraction(float(value)) for value in point]
        scores = replace(scores_at(query.space, exact), embedding=exact)
        assert holds(entry.spec.body, scores)


def test_sizes_run_from_the_least_to_the_largest(emoji: Lens) -> None:
    counts = [len(list(atoms(entry.spec.body))) for entry in generate(emoji, "boolean", 15, 4)]
    assert counts == list(range(2, 31, 2))
    found = [entry.spec.body for entry in generate(emoji, "cardinality", 10, 4)]
    assert [len(list(atoms(body))) for body in found] == list(range(3, 13))
    assert {type(body) for body in found} == {f.AtLeast, f.AtMost}


def test_each_family_says_what_its_name_says(emoji: Lens) -> None:
    bodies = {
        family: [entry.spec.body for entry in generate(emoji, family, 10, 0)] for family in FAMILIES
    }
    assert all(isinstance(body, f.Stronger) for body in bodies["strength"])
    for family in ("premise", "rule"):
        assert all(isinstance(body, f.Implies) for body in bodies[family])
    assert all(isinstance(body, f.Predict) for body in bodies["robust"])
    assert all(any(isinstance(a, f.Has) for a in atoms(body)) for body in bodies["has"])
    regions = [entry.spec.region for entry in generate(emoji, "robust", 10, 0)]
    assert all(isinstance(r, f.Ball) and r.norm is f.Norm.LINF and r.radius > 0 for r in regions)


def test_what_a_bundle_lacks_is_said(tmp_path: Path) -> None:
    lens = write_tiny(tmp_path / "tiny")
    assert missing("has", lens) is None
    with pytest.raises(BadUsage, match=r"gives only \d+ different specs; lower --count"):
        generate(lens, "strength", 2000, 0)


def test_families_without_material_are_left_out_and_named(tmp_path: Path) -> None:
    lens = write_tiny(tmp_path / "tiny")
    vocabulary = {"concepts": {name: {"threshold": None} for name in lens.concepts}}
    lens.__dict__["vocabulary"] = vocabulary  # a bundle without thresholds
    from conspec.encodings import query

    query._SPACES.clear()
    chosen = choose(lens, Request(count=2, families=("has", "strength")), silent)
    lens.embeddings.predicted.setflags(write=True)
    lens.embeddings.predicted[:] = (lens.embeddings.label + 1) % 3
    for family in ("robust", "graded"):
        assert missing(family, lens) == "no image of the bundle is classified correctly"
    query._SPACES.clear()
    assert [entry.family for entry in chosen.entries] == ["strength"] * 2
    assert chosen.notes == (
        "No specs of family has: the bundle holds no calibrated threshold of a concept.",
    )


# --- known answers -----------------------------------------------------------------------------


def all_entries(lens: Lens, count: int, seed: int) -> list[Entry]:
    found = [entry for name in FAMILIES for entry in generate(lens, name, count, seed)]
    return found + [entry for group in graded(lens, count, seed, 10.0) for entry in group]


def test_every_answer_is_that_of_independent_judges(small: Lens) -> None:
    """z3 over the formula as written, z3 over its normal form, and the checker."""
    entries = all_entries(small, 2, 5)
    answers = list(ground_truth([entry.spec for entry in entries], small, 10.0))
    bundle = Bundle(small.root)
    seen = set()
    for entry, truth in zip(entries, answers, strict=True):
        line = json.loads(json.dumps(truth_line(truth, small)))
        seen.add(line["answer"])
        assert (line["instance"], line["seconds"]) == (entry.spec.name, 0.0)
        kind = check_line(line, bundle)
        if truth.answer == "sat":
            assert kind == "counterexample"
        elif line["evidence"] == "certificate":
            assert kind == "proof"
        else:
            assert kind == "nothing"
        if entry.family == "has":
            continue
        query = query_of(entry.spec, small)
        assert truth.answer is not None
        assert decide(query) is (truth.answer == "unsat")
        solver = open_session("z3", query.space, query.region)
        assert answer_of(solver.decide(query, query.constrained, 20.0)) == truth.answer
    assert {"sat", "unsat"} <= seen


@pytest.fixture(scope="module")
def groups(small: Lens) -> list[list[Entry]]:
    return list(graded(small, 4, 2, 10.0))


def test_graded_specs_hold_below_their_scale_and_fail_above(
    small: Lens, groups: list[list[Entry]]
) -> None:
    assert len(groups) == 4
    kinds = {group[0].about["kind"] for group in groups}
    assert kinds == {"robust", "premise", "strength", "boolean"}
    for group in groups:
        assert [Fraction(entry.about["factor"]) for entry in group] == list(FACTORS)
        lower, upper = (Fraction(group[0].about[k]) for k in ("proved_up_to", "violated_from"))
        assert 0 < lower < upper <= lower * Fraction("1.003")
        for entry, factor in zip(group, FACTORS, strict=True):
            region = entry.spec.region
            assert isinstance(region, f.Focus | f.Ball)
            scale = region.gamma if isinstance(region, f.Focus) else region.radius
            end = lower if factor < 1 else upper
            assert abs(scale / (factor * end) - 1) <= Fraction(1, 10**4)
            assert decide(query_of(entry.spec, small)) is (factor < 1)


def test_solvers_are_named_where_there_is_no_certificate(
    small: Lens, groups: list[list[Entry]]
) -> None:
    specs = [entry.spec for group in groups for entry in group]
    words = {truth_line(truth, small)["evidence"] for truth in ground_truth(specs, small, 10.0)}
    allowed = {"certificate", "exact counterexample"}
    if space_of(small).head.is_affine:
        assert words == allowed
    else:
        others = words - allowed - {"linear bounds"}
        assert words > allowed
        assert all(word.startswith("solvers highs and ") for word in others)


def _asked(answers: Callable[[Fraction], Verdict]) -> list[Fraction]:
    """The scales that a search asks about, when a scale is answered like this."""
    known = _Known()
    scales: list[Fraction] = []
    while (scale := known.next()) is not None and len(scales) < VERDICTS:
        scales.append(scale)
        known.take(scale, answers(scale))
    return scales


@pytest.mark.parametrize("edge", ["0.0001", "0.03", "0.9", "1", "7", "400"])
def test_a_search_closes_in_on_the_edge(edge: str) -> None:
    at = Fraction(edge)
    violated = Violated(Witness(Vector((0,)), Fraction(1)))
    scales = _asked(lambda scale: violated if scale >= at else Proved(Trust.SOLVER))
    below = max(scale for scale in scales if scale < at)
    assert min(scale for scale in scales if scale >= at) <= below * Fraction("1.0025")
    assert len(scales) < VERDICTS


def test_a_search_stops_where_nothing_is_decided() -> None:
    violated, undecided = Violated(Witness(Vector((0,)), Fraction(1))), Unknown(Reason.TIME_LIMIT)

    def answers(scale: Fraction) -> Verdict:
        return violated if scale >= 2 else undecided if scale > 1 else Proved(Trust.SOLVER)

    scales = _asked(answers)
    open_ones = [scale for scale in scales if 1 < scale < 2]
    assert 1 <= len(open_ones) <= UNDECIDED + 1
    assert len(_asked(lambda scale: undecided)) == UNDECIDED + 1
    assert max(_asked(lambda scale: Proved(Trust.SOLVER))) <= 4 * LARGEST
    assert min(_asked(lambda scale: violated)) >= SMALLEST / 4


def _claimed(lens: Lens, body: str) -> Result:
    """A proof on the word of HiGHS, whether it is true or not."""
    text = f"spec s: forall x in focus(truck, gamma=0.5): {body}"
    (spec,) = parse(text).specs
    assert isinstance(spec, f.ForAll)
    return Result(spec, "auto", Proved(Trust.SOLVER), 0.0, None, "highs")


def test_a_counterexample_beats_a_solvers_word(tmp_path: Path) -> None:
    lens = write_tiny(tmp_path / "tiny")
    wrong = truth_module._seconded(_claimed(lens, "wings > wheels"), lens, Limits(5.0))
    assert (wrong.answer, wrong.disagreement) == ("sat", "highs said unsat")
    assert truth_line(wrong, lens)["evidence"] == "exact counterexample"
    right = truth_module._seconded(_claimed(lens, "wheels > wings"), lens, Limits(5.0))
    assert (right.answer, right.disagreement) == ("unsat", None)
    assert right.solvers[0] == "highs"
    assert len(right.solvers) == 2


def test_without_a_second_solver_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lens = write_tiny(tmp_path / "tiny")

    def absent(*arguments: Any) -> Iterator[Result]:
        raise MissingSolver("no licence")

    monkeypatch.setattr(truth_module, "verify_suite", absent)
    found = truth_module._seconded(_claimed(lens, "wheels > wings"), lens, Limits(5.0))
    assert (found.answer, found.solvers) == ("unsat", ("highs",))
    assert truth_line(found, lens)["evidence"] == "solvers highs"


def test_what_is_not_decided_has_no_answer(tmp_path: Path) -> None:
    lens = write_tiny(tmp_path / "tiny")
    verdict = Unknown(Reason.TIME_LIMIT, "after 3.1415 seconds")
    result = replace(_claimed(lens, "wheels > wings"), verdict=verdict)
    line = truth_line(Truth(result), lens)
    assert (line["answer"], line["evidence"], line["verdict"]) == (None, "not decided", "unknown")
    assert "3.1415" not in json.dumps(line)  # so that the same suite has the same file


def test_answers_keep_their_words() -> None:
    (found,) = {answer_of(Proved(trust)) for trust in Trust}
    assert found == "unsat"
    assert answer_of(Unknown(Reason.TOO_HARD)) is None


# --- requests ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 0}, "0 specs a family: must be at least 1"),
        ({"seconds": 0.0}, "a time limit of 0 s"),
        ({"seconds": float("nan")}, "a time limit of nan s"),
        ({"families": ("strenght",)}, "no family 'strenght'; there are strength, premise"),
        ({"families": ("has", "has")}, "name each family once"),
        ({"families": ()}, "name each family once"),
        ({"formats": ("mps",)}, "no format 'mps'; there are vnnlib, smt, milp"),
        ({"formats": ()}, "name each format once"),
    ],
)
def test_bad_requests_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(BadUsage, match=message):
        Request(**wrong)


def test_the_total_time_is_checked_before_anything_is_made(emoji: Lens) -> None:
    _refuse_overtime(360, Request())
    _refuse_overtime(361, Request(formats=("smt", "milp")))  # the limit is VNN-COMP's
    with pytest.raises(BadUsage, match=r"at most 360 instances fit .* at most 59 s"):
        _refuse_overtime(361, Request())
    families = ("strength", "graded", "has")  # 31 + 6 × 31, and has(…) is not timed
    with pytest.raises(BadUsage, match=r"217 instances of 100 s take up to 6\.0 hours"):
        choose(emoji, Request(count=31, families=families, seconds=100.0), silent)


OWN = """
spec one: forall x in focus(truck, gamma=0.5) or focus(bird, gamma=0.5): wheels > wings
spec two: forall x in (ball(0, radius=1, norm=l2) or focus(bird, gamma=1)) and box(0, 9): wheels > fur
spec rate: probability >= 0.9 with confidence 0.9 for x in all: wheels > wings
"""  # noqa: E501


def test_unions_of_an_own_suite_become_specs_of_their_own(tmp_path: Path) -> None:
    lens = write_tiny(tmp_path / "tiny")
    chosen = choose(lens, Request(suite=OWN), silent)
    names = [entry.spec.name for entry in chosen.entries]
    assert names == ["one_part_1", "one_part_2", "two_part_1", "two_part_2"]
    assert chosen.notes == ("Not exported, since it asks for a probability: rate.",)
    space = space_of(lens)
    whole = {spec.name: spec for spec in parse(OWN).specs if isinstance(spec, f.ForAll)}
    for entry in chosen.entries:
        name, number = entry.spec.name.split("_part_")
        part = queries_of(whole[name], lens, space)[int(number) - 1]
        (query,) = queries_of(entry.spec, lens, space)
        assert type(query.region) is type(part.region)
        assert query.cuts == part.cuts
        z = np.random.default_rng(0).uniform(0, 5, size=(200, 4))
        assert (query.region.members(z) == part.region.members(z)).all()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (OWN + "spec one_part_1: forall x in focus(bird, gamma=1): true", BadUsage, "be called"),
        ("spec a: forall x in focus(bird, gamma=1): wheel > fur", UnknownName, "wheel"),
        ("spec a forall", SpecSyntaxError, "spec"),
        (OWN.strip().splitlines()[2], BadUsage, "nothing to export: Not exported"),
    ],
)
def test_bad_own_suites_are_refused(
    text: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        choose(write_tiny(tmp_path / "tiny"), Request(suite=text), silent)


def test_file_names_are_plain_and_differ() -> None:
    names = ["a b", "a/b", "A_B", "../x", "ok-1.5", "…", "", "x" * 300, "x" * 301, ".hidden"]
    found = stems(names)
    assert list(found) == names
    assert len({stem.casefold() for stem in found.values()}) == len(names)
    for stem in found.values():
        assert stem
        assert set(stem) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
        assert stem[0] not in ".-"
        assert len(stem) < 110
    assert found["ok-1.5"] == "ok-1.5"


# --- synthetic bundles -------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [0, 5])
def test_synthetic_bundles_repeat_byte_for_byte(hidden: int, tmp_path: Path) -> None:
    first, again, other = (
        write_synthetic(tmp_path / name, 12, hidden, seed)
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first.hash == again.hash != other.hash
    assert first.dim == 12
    assert space_of(first).hidden == hidden
    right = first.embeddings.predicted == first.embeddings.label
    assert right.mean() > 0.9
    assert (first.replay(first.embeddings.z)[0].argmax(axis=1) == first.embeddings.predicted).all()
    assert (first.statistics.count > 10).all()
    assert all(first.threshold(name) is not None for name in first.concepts)


@pytest.mark.slow
@pytest.mark.parametrize(("dimension", "hidden"), [(64, 0), (256, 50), (2048, 0), (2048, 100)])
def test_synthetic_bundles_of_all_sizes_give_both_answers(
    dimension: int, hidden: int, tmp_path: Path
) -> None:
    lens = write_synthetic(tmp_path / "bundle", dimension, hidden, 0)
    specs = [entry.spec for name in POLYHEDRAL for entry in generate(lens, name, 3, 0)]
    found = list(verify_suite(f.Suite(tuple(specs)), lens, "auto", Limits(10.0)))
    kinds = {type(result.verdict) for result in found}
    assert {Proved, Violated} <= kinds


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((1, 0), "1 dimensions: must be 2 to 4096"),
        ((5000, 0), "5000 dimensions"),
        ((8, 9999), "9999 hidden neurons"),
    ],
)
def test_impossible_sizes_are_refused(sizes: tuple[int, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadUsage, match=message):
        write_synthetic(tmp_path / "bundle", *sizes, seed=0)
    assert not (tmp_path / "bundle").exists()
