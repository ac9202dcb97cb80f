"""The checker accepts what the engines prove, and nothing that was changed since.

``still_proof`` judges a changed certificate without the checker: with the engines' exact rows and
regions and every choice of literals where the head is affine, else at sampled points.
"""

import copy
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cache
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from time import monotonic
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from conspec.encodings.exact import combination
from conspec.encodings.images import shape_maximum
from conspec.encodings.query import Query, queries_of, space_of
from conspec.lens import Lens
from conspec.report.records import schema
from conspec.specs import formula as f
from conspec.specs import parse
from conspec.specs.printer import to_text
from conspec.specs.rewrite import All, Cone, Count, Halfspace, Literal, Nnf, Some, literals
from conspec.verifier import Limits, verify_suite
from conspec.verifier.checker import check_line
from conspec.verifier.checker_files import Bundle, Refused, strict_json
from conspec.verifier.results import to_json
from tests.bundles import write_skewed

Line = dict[str, Any]
Path_ = tuple[str | int, ...]

CYCLE = "not (wheels > fur + 0.1 and fur > wings and wings >= wheels)"
"""Three literals that only together are impossible."""

PROVED = f"""
spec in_focus: forall x in focus(truck, gamma=0.5): predict(truck) => wheels > wings
spec focus_cycle: forall x in focus(truck, gamma=9): {CYCLE}
spec in_box: forall x in box([0, 0, 0, 0], [4, 3, 2, 1]): {CYCLE}
spec in_linf: forall x in ball(image=1, radius=5, norm=linf): predict(truck) => {CYCLE}
spec in_l2: forall x in ball(image=2, radius=5, norm=l2): {CYCLE}
spec in_pca: forall x in pca_box(bird, gamma=20): {CYCLE}
spec in_ellipsoid: forall x in ellipsoid(truck, gamma=20): {CYCLE}
spec in_zonotope: forall x in zonotope("sea lion", gamma=9): {CYCLE}
spec in_hull: forall x in hull(truck): not predict(truck) => wings > wheels or fur > wheels
spec hull_premise: forall x in hull(bird): wheels > wings => fur > wings or wheels > fur
spec in_union:
    forall x in focus(truck, gamma=0.4) or ball(image=3, radius=0.2, norm=l2):
        wheels > wings and not predict(bird)
spec in_cut:
    forall x in focus(truck, gamma=3) and polytope(wings <= 1.2, wheels - fur >= 1):
        wheels > wings or fur > 0.5 or wings > 1
spec counted: forall x in box(0, 2): atmost(2, z(0)-z(1) > 0, z(1)-z(2) > 0, z(2)-z(0) > 0)
spec at_least: forall x in focus(truck, gamma=0.5): atleast(2, wheels > wings, wheels > fur, z(3)<0)
spec tied: forall x in box(0, 1): not (z(0) > 1)
spec logits: forall x in box(0, 2): predict(truck) => logit(truck) - 0.5 * logit(bird) > -99
spec constant: forall x in box(0, 1): wheels > wings or true
spec has_joint: forall x in focus(truck, gamma=0.3): has(fur) => (has(wings) or wheels > fur)
"""
AFFINE_ONLY = f"""
spec in_cut_ball: forall x in ellipsoid(bird, gamma=2) and box(1, 5): {CYCLE}
spec has_it: forall x in focus(truck, gamma=0.2): has(wheels)
spec has_low: forall x in focus(truck, gamma=0.1): has(wings)
spec has_never: forall x in focus(bird, gamma=0.2): not has(wheels) or wheels > 9
"""
REFUTED = """
spec wrong: forall x in focus(truck, gamma=0.5): predict(truck) => wings > wheels
spec wrong_box: forall x in box(0, 3): wheels > wings
spec wrong_ball: forall x in ellipsoid(truck, gamma=0.5): wings > wheels
spec wrong_union: forall x in focus(truck, gamma=0.4) or focus(bird, gamma=0.4): wheels > wings
spec wrong_cut: forall x in hull(truck) and polytope(score(wheels) >= 1): wings > wheels
spec wrong_has: forall x in focus(truck, gamma=0.2): not has(wheels)
"""


class World:
    """A bundle with the results of the suites, and the same spec judged without the checker."""

    def __init__(self, root: Path, hidden: bool) -> None:
        self.lens = write_skewed(root, hidden)
        self.bundle = Bundle(root)
        self.space = space_of(self.lens)
        suite = parse(PROVED + (REFUTED if hidden else AFFINE_ONLY + REFUTED))
        limits = Limits(seconds=5.0)
        found = [to_json(r, self.lens) for r in verify_suite(suite, self.lens, limits=limits)]
        self.lines = {line["spec"]: line for line in json.loads(json.dumps(found))}

    @property
    def proofs(self) -> list[Line]:
        return [line for line in self.lines.values() if line["certificate"] is not None]

    @property
    def refutations(self) -> list[Line]:
        return [line for line in self.lines.values() if line["verdict"] == "violated"]

    def accepts(self, line: Line) -> bool:
        """Whether the checker does; anything but a refusal is a failed test."""
        try:
            return check_line(line, self.bundle) != "nothing"
        except Refused:
            return False

    def queries(self, text: str) -> list[Query]:
        (spec,) = parse(text).specs
        assert isinstance(spec, f.ForAll)
        return queries_of(spec, self.lens, self.space)


WORLDS = ("affine", "relu")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    folder = tmp_path_factory.mktemp("worlds")
    return {name: World(folder / name, name == "relu") for name in WORLDS}


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, worlds: dict[str, World]) -> World:
    return worlds[request.param]


@pytest.fixture
def affine(worlds: dict[str, World]) -> World:
    return worlds["affine"]


def changed(line: Line, path: Path_, value: Any) -> Line:
    """The line with another value at one place."""
    result = copy.deepcopy(line)
    at(result, path[:-1])[path[-1]] = value
    return result


def at(document: Any, path: Path_) -> Any:
    for step in path:
        document = document[step]
    return document


def leaves(document: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Places of all numbers, texts, lists and objects in a document."""
    if path:
        yield path
    if isinstance(document, dict | list):
        pairs = document.items() if isinstance(document, dict) else enumerate(document)
        for key, value in pairs:
            yield from leaves(value, (*path, key))


# --- The judge -----------------------------------------------------------------------------------


def still_proof(world: World, line: Line) -> bool:
    """Whether the line's certificate proves its spec."""
    queries = world.queries(line["text"])
    parts = line["certificate"]["parts"]
    return len(parts) == len(queries) and all(map(_part_holds, queries, parts))


def _part_holds(query: Query, part: Any) -> bool:
    found = literals(query.constrained)
    lemmas = list(_lemmas(part))
    fine = all(_lemma_holds(query, found, lemma, piece) for lemma, piece in lemmas)
    masks = {frozenset(term["literal"] for term in lemma) for lemma, _ in lemmas}
    is_split = isinstance(part, dict)  # then each piece must refute it, which sampling covers
    return fine and (is_split or not _avoidable(query.constrained, found, masks))


def _lemmas(part: Any, piece: tuple[Any, ...] = ()) -> Iterator[tuple[list[Any], tuple[Any, ...]]]:
    """The lemmas of a part, each with the walls of its piece."""
    if isinstance(part, dict):
        wall = (part["split"]["coordinate"], Fraction(part["split"]["at"]))
        yield from _lemmas(part["below"], (*piece, (*wall, 1)))
        yield from _lemmas(part["above"], (*piece, (*wall, -1)))
    else:
        for lemma in part:
            yield lemma, piece


def _avoidable(nnf: Nnf, found: Sequence[Literal], masks: set[frozenset[int]]) -> bool:
    """Whether some choice of literals makes the formula true and contains no lemma."""
    places = range(len(found))
    return any(
        not any(mask <= set(chosen) for mask in masks)
        and _true(nnf, {found[place] for place in chosen})
        for size in range(len(found) + 1)
        for chosen in combinations(places, size)
    )


def _true(nnf: Nnf, chosen: set[Literal]) -> bool:
    match nnf:
        case Halfspace() | Cone():
            return nnf in chosen
        case All(operands):
            return all(_true(part, chosen) for part in operands)
        case Some(operands):
            return any(_true(part, chosen) for part in operands)
        case Count(count, operands):
            return sum(_true(part, chosen) for part in operands) >= count


def _lemma_holds(
    query: Query, found: Sequence[Literal], lemma: Sequence[Line], piece: tuple[Any, ...]
) -> bool:
    """Whether a lemma is what it says: exactly for half-spaces of an affine head."""
    terms = [(found[term["literal"]], Fraction(term["multiplier"])) for term in lemma]
    if not terms or any(multiplier <= 0 for _, multiplier in terms):
        return False
    if query.space.head.is_affine and all(isinstance(literal, Halfspace) for literal, _ in terms):
        return _impossible(query, [(lit, m) for lit, m in terms if isinstance(lit, Halfspace)])
    return not _sampled(query, [literal for literal, _ in terms], piece)


def _impossible(query: Query, terms: Sequence[tuple[Halfspace, Fraction]]) -> bool:
    rows = [query.space.row(literal) for literal, _ in terms]
    row = combination([(m, row) for (_, m), (row, _) in zip(terms, rows, strict=True)])
    constant = sum((m * c for (_, m), (_, c) in zip(terms, rows, strict=True)), Fraction(0))
    pulled, shift = query.region.pull(row, constant)
    highest, _ = shape_maximum(query.region.shape, pulled)
    strict = any(literal.strict for literal, _ in terms)
    return highest + shift < 0 or (strict and highest + shift == 0)


def _sampled(query: Query, wanted: Sequence[Literal], piece: tuple[Any, ...]) -> bool:
    """Whether all literals clearly hold at some sampled point of the piece."""
    points = query.region.sample(2000, seed=3)
    for coordinate, place, sign in piece:
        points = points[sign * (points[:, coordinate] - float(place)) <= 0]
    values = [_values(query, literal, points) > 1e-6 for literal in wanted]
    return bool(np.all(values, axis=0).any())


def _values(query: Query, literal: Literal, points: np.ndarray[Any, Any]) -> Any:
    """A literal's value at points [N, n], in float64."""
    space = query.space
    scores = space.concept_map.floats[0] @ points.T + space.concept_map.floats[1][:, None]
    if isinstance(literal, Cone):  # here the concept map is the alignment: unit axes
        score = scores[space.concepts.index(literal.concept)]
        value = score - float(space.thresholds[literal.concept]) * np.linalg.norm(scores, axis=0)
        return value if literal.holds else -value
    logits = points.T
    for depth, layer in enumerate(space.head.affines):
        logits = layer.floats[0] @ (np.maximum(logits, 0) if depth else logits)
        logits = logits + layer.floats[1][:, None]
    total = np.full(len(points), float(literal.constant))
    for weight, symbol in literal.terms:
        match symbol:
            case f.Logit(label):
                total = total + float(weight) * logits[space.classes.index(label)]
            case f.Score(concept):
                total = total + float(weight) * scores[space.concepts.index(concept)]
            case f.Coordinate(index):
                total = total + float(weight) * points[:, index]
    return total


# --- What the engines prove is accepted -------------------------------------------------------


def test_what_is_certified_is_accepted(world: World) -> None:
    wrong = {line["spec"] for line in world.refutations}
    assert wrong == {spec.name for spec in parse(REFUTED).specs}
    for line in world.lines.values():
        assert line["verdict"] == ("violated" if line["spec"] in wrong else "proved"), line["spec"]
        if line["trust"] == "certified":
            expected = "counterexample" if line["spec"] in wrong else "proof"
            assert check_line(line, world.bundle) == expected
        else:
            assert check_line(line, world.bundle) == "nothing"
    assert len(world.proofs) >= (20 if world.space.head.is_affine else 8)


def test_certificates_follow_the_schema(world: World) -> None:
    for line in world.proofs:
        jsonschema.validate(line["certificate"], certificate_schema())
        jsonschema.validate(line, schema())


def test_the_judge_knows_proofs(world: World) -> None:
    assert all(still_proof(world, line) for line in world.proofs)


@cache
def certificate_schema() -> dict[str, Any]:
    path = Path(__file__).parent.parent / "verifier" / "certificate.schema.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


# --- Certificates changed -----------------------------------------------------------------------


def lemmas_of(line: Line) -> Iterator[tuple[Path_, int]]:
    """The place of each list of lemmas, and its length."""
    for path in leaves(line["certificate"]["parts"]):
        value = at(line["certificate"]["parts"], path)
        if isinstance(value, list) and all(isinstance(v, list) for v in value) and value:
            yield ("certificate", "parts", *path), len(value)


def terms_of(line: Line) -> Iterator[Path_]:
    """The place of each term of each lemma."""
    for path in leaves(line["certificate"]):
        if path[-1] == "multiplier":
            yield ("certificate", *path[:-1])


MULTIPLIERS: tuple[Callable[[Fraction], Fraction], ...] = (
    lambda m: Fraction(0),
    lambda m: -m,
    lambda m: m / 2,
    lambda m: 2 * m,
    lambda m: m * (1 + Fraction(1, 10**30)),
    lambda m: m * (1 - Fraction(1, 10**30)),
    lambda m: m + 10**9,
    lambda m: m / 10**9,
)


def test_a_changed_multiplier_counts_only_if_it_still_proves(world: World) -> None:
    refused = 0
    for line in world.proofs:
        for path in terms_of(line):
            for change in MULTIPLIERS:
                value = change(Fraction(at(line, path)["multiplier"]))
                mutant = changed(line, (*path, "multiplier"), str(value))
                accepted = world.accepts(mutant)
                refused += not accepted
                agree(world, mutant, accepted)
                assert value > 0 or not accepted
    assert refused > 2 * len(world.proofs)


def agree(world: World, mutant: Line, accepted: bool) -> None:
    """What is accepted is a proof; where the judge is exact, also the reverse."""
    judged = still_proof(world, mutant)
    assert judged or not accepted, mutant["certificate"]
    if world.space.head.is_affine and "has" not in mutant["formula"]:
        assert accepted or not judged, mutant["certificate"]


def test_all_multipliers_scaled_alike_prove_the_same(world: World) -> None:
    for line in world.proofs:
        mutant = copy.deepcopy(line)
        for path in terms_of(line):
            term = at(mutant, path)
            term["multiplier"] = str(Fraction(term["multiplier"]) * Fraction(7, 3))
        assert world.accepts(mutant)


def test_another_literal_counts_only_if_it_still_proves(world: World) -> None:
    for line in world.proofs:
        most = max(len(literals(query.constrained)) for query in world.queries(line["text"]))
        for path in terms_of(line):
            for place in {0, 1, 2, 3, most - 1} - {at(line, path)["literal"]}:
                if place < most:
                    mutant = changed(line, (*path, "literal"), place)
                    agree(world, mutant, world.accepts(mutant))
            for place in (-1, most, 10**30):
                assert not world.accepts(changed(line, (*path, "literal"), place))


def test_a_dropped_lemma_is_missed(world: World) -> None:
    dropped = 0
    for line in world.proofs:
        for path, count in lemmas_of(line):
            for place in range(count):
                mutant = copy.deepcopy(line)
                del at(mutant, path)[place]
                accepted = world.accepts(mutant)
                dropped += not accepted
                agree(world, mutant, accepted)
    assert dropped >= len(world.proofs) - 2


def test_a_dropped_term_counts_only_if_it_still_proves(world: World) -> None:
    for line in world.proofs:
        for path in terms_of(line):
            mutant = copy.deepcopy(line)
            del at(mutant, path[:-1])[path[-1]]
            agree(world, mutant, world.accepts(mutant))


def test_the_order_of_lemmas_and_of_terms_means_nothing(world: World) -> None:
    """A proof is a set of lemmas; what may not change is which literal has which multiplier."""
    for line in world.proofs:
        mutant = copy.deepcopy(line)
        for path, _ in lemmas_of(line):
            at(mutant, path).reverse()
            for lemma in at(mutant, path):
                lemma.reverse()
            at(mutant, path).append(at(mutant, path)[0])
        assert world.accepts(mutant)


def test_a_literal_named_twice_adds_up(affine: World) -> None:
    line = affine.lines["in_box"]
    path = next(terms_of(line))
    term = at(line, path)
    halved = {**term, "multiplier": str(Fraction(term["multiplier"]) / 2)}
    mutant = changed(line, path, halved)
    assert affine.accepts(mutant) == still_proof(affine, mutant)
    at(mutant, path[:-1]).append(halved)
    assert affine.accepts(mutant)


def test_multipliers_exchanged_count_only_if_they_still_prove(world: World) -> None:
    for line in world.proofs:
        for path, _ in lemmas_of(line):
            for place, lemma in enumerate(at(line, path)):
                if len(lemma) > 1:
                    mutant = copy.deepcopy(line)
                    first, second = at(mutant, (*path, place))[:2]
                    first["literal"], second["literal"] = second["literal"], first["literal"]
                    agree(world, mutant, world.accepts(mutant))


def test_certificates_of_other_specs_count_only_if_they_prove(world: World) -> None:
    refused = 0
    for one in world.proofs:
        for other in world.proofs:
            mutant = changed(one, ("certificate",), other["certificate"])
            accepted = world.accepts(mutant)
            refused += not accepted
            if accepted:
                assert still_proof(world, mutant)
    assert refused > len(world.proofs) ** 2 / 3


def test_other_directions_prove_nothing_false(world: World) -> None:
    """Whatever stands for a cone: a longer tangent, another one, another norm, another split."""
    for line in world.proofs:
        for path in leaves(line["certificate"]["parts"]):
            whole: Path_ = ("certificate", "parts", *path)
            if not {"direction", "norm", "split"} & set(path):
                continue
            value = at(line, whole)
            if isinstance(value, str):
                for other in ("2", "-1", "0", str(-Fraction(value)), str(3 * Fraction(value))):
                    mutant = changed(line, whole, other)
                    if world.accepts(mutant):
                        assert still_proof(world, mutant)
            elif isinstance(value, list):
                for row in ([], value[:-1], [*value, "0"], value[::-1]):
                    mutant = changed(line, whole, row)
                    if world.accepts(mutant):
                        assert still_proof(world, mutant)
                assert not world.accepts(changed(line, whole, ["2"] * len(value)))


NO_PROOFS: list[Any] = [
    [],
    [[]],
    [[[]]],
    [[[], []]],
    [[[{"literal": 0, "multiplier": "0"}]]],
    [[[{"literal": 0, "multiplier": "-1"}]]],
    [[[{"literal": 0, "multiplier": "1"}]]],
    [[[{"literal": 0, "multiplier": "1"}, {"literal": 0, "multiplier": "1"}]]],
    [[[{"literal": 0, "multiplier": "1/0"}]]],
    [[[{"literal": True, "multiplier": "1"}]]],
    [[[{"literal": "0", "multiplier": "1"}]]],
    [[[{"literal": 0.0, "multiplier": "1"}]]],
    [""],
    {"": []},
    [None],
    [0],
]


@pytest.mark.parametrize("parts", NO_PROOFS, ids=str)
def test_nothing_proves_what_is_false(world: World, parts: Any) -> None:
    for line in world.refutations:
        for wanted in (parts, parts * 2 if isinstance(parts, list) else parts):
            assert not world.accepts(as_proved(line, wanted))


def as_proved(line: Line, parts: Any) -> Line:
    """A refuted spec, called proved."""
    certificate = {"format": "conspec-certificate", "version": 1, "parts": parts}
    return {**line, "verdict": "proved", "certificate": certificate, "counterexample": None}


NUMBERS = st.one_of(
    st.integers(-2, 40).map(str),
    st.fractions(-2, 2).map(str),
    st.sampled_from(["1", "0", "1/0", "1e9", "0.5", " 1", "1 ", "+1", "١", "", "-0", "NaN", "1_0"]),
)
TERMS = st.fixed_dictionaries(
    {"literal": st.integers(-1, 8), "multiplier": NUMBERS},
    optional={
        "direction": st.lists(NUMBERS, max_size=5),
        "norm": NUMBERS,
    },
)
LEMMAS = st.lists(st.lists(TERMS, max_size=4), max_size=8)
PARTS = st.recursive(
    LEMMAS,
    lambda part: st.fixed_dictionaries(
        {
            "split": st.fixed_dictionaries(
                {"coordinate": st.integers(-1, 4), "at": NUMBERS | st.fractions(0, 5).map(str)}
            ),
            "below": part,
            "above": part,
        }
    ),
    max_leaves=4,
)


@given(st.data())
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_certificate_proves_what_is_false(worlds: dict[str, World], data: st.DataObject) -> None:
    world = worlds[data.draw(st.sampled_from(WORLDS))]
    line = data.draw(st.sampled_from(world.refutations))
    count = len(world.queries(line["text"]))
    parts = data.draw(st.lists(PARTS, min_size=count, max_size=count))
    assert not world.accepts(as_proved(line, parts))


@pytest.mark.parametrize(
    "number",
    ["1/0", " 1", "1 ", "1\n", "1e3", "1.5", "١", "²", "1_0", "+1", "NaN", "inf", "", "0x1"],
)
def test_a_number_is_digits_with_at_most_one_stroke(affine: World, number: str) -> None:
    line = affine.lines["in_focus"]
    path = next(terms_of(line))
    assert not affine.accepts(changed(line, (*path, "multiplier"), number))
    refuted = affine.lines["wrong_box"]
    assert not affine.accepts(changed(refuted, ("counterexample", "z", 3), number))


# --- Lines changed ------------------------------------------------------------------------------


EDITS: list[tuple[str, str]] = [
    ("wheels > wings", "wings > wheels"),
    ("wheels > wings", "wheels >= wings"),
    ("gamma = 0.5", "gamma = 0.6"),
    ("0.5", "0.50001"),
    ("focus(truck", "focus(bird"),
    ("predict(truck)", "predict(bird)"),
    ("forall x", "forall y"),
    ("in_focus", "in_focuz"),
]


@pytest.mark.parametrize("field", ["text", "formula", "region", "spec"])
@pytest.mark.parametrize(("old", "new"), EDITS)
def test_an_edited_text_is_refused(affine: World, field: str, old: str, new: str) -> None:
    line = affine.lines["in_focus"]
    edited = line[field].replace(old, new)
    if old == "forall x" or edited == line[field]:
        return  # another name of the variable is the same spec
    assert not affine.accepts({**line, field: edited})


def test_texts_of_other_specs_are_refused(world: World) -> None:
    lines = [*world.proofs, *world.refutations]
    for one in lines:
        for other in lines:
            if one is not other:
                assert not world.accepts({**one, "text": other["text"]})
                if one["formula"] != other["formula"]:
                    assert not world.accepts({**one, "formula": other["formula"]})


def test_a_spec_edited_throughout_needs_a_proof_of_its_own(affine: World) -> None:
    line = affine.lines["in_focus"]
    for body, region in (
        ("predict(truck) => wings > wheels", None),
        (None, "focus(truck, gamma=40)"),
        (None, "focus(bird, gamma=0.5)"),
        (None, "box(-9, 9)"),
    ):
        text = f"spec in_focus: forall x in {region or line['region']}: {body or line['formula']}"
        (spec,) = parse(text).specs
        assert isinstance(spec, f.ForAll)
        mutant = {**line, "text": to_text(spec), "formula": to_text(spec.body)}
        assert not affine.accepts({**mutant, "region": to_text(spec.region)})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (("bundle",), "0" * 64),
        (("bundle",), None),
        (("verdict",), "Proved"),
        (("verdict",), ["proved"]),
        (("verdict",), "violated"),
        (("trust",), None),
        (("trust",), "Solver"),
        (("trust",), True),
        (("certificate",), None),
        (("certificate", "format"), "vipr"),
        (("certificate", "version"), 2),
        (("certificate", "version"), "1"),
        (("certificate", "version"), None),
        (("certificate", "parts"), []),
        (("certificate", "parts"), None),
        (("text",), "spec a: forall x in box(0, 1): true spec b: forall x in box(0, 1): true"),
        (("text",), "spec p: probability >= 0.9 with confidence 0.9 for x in all: wheels > wings"),
        (("text",), ""),
        (("text",), 5),
        (("text",), ["spec"]),
    ],
)
def test_other_claims_are_refused(world: World, field: Path_, value: Any) -> None:
    for line in world.proofs:
        assert not world.accepts(changed(line, field, value))


def test_a_verdict_turned_round_is_refused(world: World) -> None:
    for line in world.refutations:
        assert not world.accepts({**line, "verdict": "proved"})
        assert not world.accepts({**line, "trust": "solver"})
        assert not world.accepts({**line, "trust": None})
        for proof in world.proofs:
            mutant = {**proof, "verdict": "violated", "counterexample": line["counterexample"]}
            assert not world.accepts(mutant)


def test_a_missing_field_is_refused(world: World) -> None:
    wanted = ("spec", "formula", "region", "text", "verdict", "trust", "bundle")
    for line in (world.proofs[0], world.refutations[0]):
        own = "certificate" if line["verdict"] == "proved" else "counterexample"
        for name in (*wanted, own):
            mutant = {key: value for key, value in line.items() if key != name}
            assert not world.accepts(mutant)


# --- Counterexamples changed --------------------------------------------------------------------


def moved(line: Line, place: int, step: Fraction, by_parameters: bool) -> Line:
    mutant = copy.deepcopy(line)
    claim = mutant["counterexample"]
    if not by_parameters:
        claim["parameters"] = None
    row = claim["parameters"] if by_parameters else claim["z"]
    row[place] = str(Fraction(row[place]) + step)
    return mutant


def test_a_point_moved_out_of_the_region_or_to_where_it_holds_is_refused(world: World) -> None:
    for line in world.refutations:
        for place in range(4):
            assert not world.accepts(moved(line, place, Fraction(100), False))
            # Parameters and point no longer belong together.
            kept = copy.deepcopy(line)
            if kept["counterexample"]["parameters"] is not None:
                row = kept["counterexample"]["z"]
                row[place] = str(Fraction(row[place]) + Fraction(1, 10**20))
                assert not world.accepts(kept)
                assert not world.accepts(moved(line, place, Fraction(3), True))


def test_a_point_where_the_formula_holds_is_refused(affine: World) -> None:
    line = affine.lines["wrong_box"]
    query = affine.queries(line["text"])[0]
    for z in (["3", "0", "0", "0"], ["3", "1", "1", "1"], ["2", "0", "1/2", "3"]):
        point = {**line["counterexample"], "z": z, "parameters": None}
        violates, _ = query.margin(_vector(z))
        assert affine.accepts({**line, "counterexample": point}) == violates


def _vector(values: Sequence[str]) -> Any:
    from conspec.encodings.exact import vector

    return vector([Fraction(value) for value in values])


def test_a_point_of_another_part_or_spec_is_refused(world: World) -> None:
    for line in world.refutations:
        parts = len(world.queries(line["text"]))
        for part in (-1, parts, 10**20, True, None, "0", 0.0):
            assert not world.accepts(changed(line, ("counterexample", "part"), part))
    line = world.lines["wrong_union"]
    other = 1 - line["counterexample"]["part"]
    assert not world.accepts(changed(line, ("counterexample", "part"), other))


def test_further_counterexamples_are_checked_too(world: World) -> None:
    for line in world.refutations:
        good = {**line, "more_counterexamples": [line["counterexample"]]}
        assert world.accepts(good)
        bad = {**line["counterexample"], "z": ["1000"] * 4, "parameters": None}
        assert not world.accepts({**line, "more_counterexamples": [bad]})


# --- Bundles changed ----------------------------------------------------------------------------


def copied(world: World, folder: Path) -> Path:
    shutil.copytree(world.lens.root, folder)
    return folder


def restamp(root: Path) -> str:
    """Make the manifest agree with the files, and return its hash."""
    path = root / "manifest.json"
    manifest = json.loads(path.read_bytes())
    for name in manifest["files"]:
        manifest["files"][name] = sha256((root / name).read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return sha256(path.read_bytes()).hexdigest()


def nudged(path: Path, place: int) -> None:
    """Change a weight of an ONNX file a lot."""
    model = onnx.load(path)
    tensor = model.graph.initializer[place]
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] -= 50.0
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    path.write_bytes(model.SerializeToString())


def refusals(root: Path, lines: Sequence[Line]) -> int:
    bundle, count = Bundle(root), 0
    for line in lines:
        try:
            check_line(line, bundle)
        except Refused:
            count += 1
    return count


@pytest.mark.parametrize("name", ["head.onnx", "concept_map.onnx", "statistics.safetensors"])
def test_a_changed_file_is_refused_with_and_without_its_hash(
    world: World, tmp_path: Path, name: str
) -> None:
    root = copied(world, tmp_path / "copy")
    if name.endswith("onnx"):
        nudged(root / name, 0)
    else:
        data = (root / name).read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        body = -np.frombuffer(data[start:], dtype=np.float64)
        (root / name).write_bytes(data[:start] + body.tobytes())
    lines = [*world.proofs, *world.refutations]
    assert refusals(root, lines) == len(lines)
    stamp = restamp(root)
    assert refusals(root, lines) == len(lines)
    # Claimed of the changed bundle, only what does not rest on the change may stand.
    assert refusals(root, [{**line, "bundle": stamp} for line in lines]) >= 2


def test_results_of_another_bundle_are_refused(worlds: dict[str, World]) -> None:
    for line in worlds["affine"].proofs:
        assert not worlds["relu"].accepts(line)


@pytest.mark.parametrize("name", ["head.onnx", "concept_map.onnx", "statistics.safetensors"])
def test_a_file_that_the_manifest_does_not_vouch_for_is_not_used(
    affine: World, tmp_path: Path, name: str
) -> None:
    root = copied(affine, tmp_path / "copy")
    path = root / "manifest.json"
    manifest = json.loads(path.read_bytes())
    del manifest["files"][name]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    stamp = sha256(path.read_bytes()).hexdigest()
    for spec in ("in_focus", "logits"):  # one rests on concepts and statistics, one on the head
        world = [{**affine.lines[spec], "bundle": stamp}]
        rests = (name == "head.onnx") == (spec == "logits")
        assert refusals(root, world) >= rests


def test_what_is_used_of_a_file_is_what_was_hashed(affine: World, tmp_path: Path) -> None:
    root = copied(affine, tmp_path / "copy")
    bundle = Bundle(root)
    assert bundle.hash == affine.bundle.hash
    nudged(root / "head.onnx", 0)
    with pytest.raises(Refused, match=r"head\.onnx is not the file"):
        check_line(affine.lines["logits"], bundle)


def test_names_in_the_manifest_do_not_lead_out_of_the_bundle(affine: World, tmp_path: Path) -> None:
    root = copied(affine, tmp_path / "copy")
    (tmp_path / "secret").write_bytes(b"x")
    path = root / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["files"]["../secret"] = sha256(b"x").hexdigest()
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="copy/secret"):
        _ = Bundle(root).hash


def _model(nodes: list[Any], inputs: Sequence[str], weights: Mapping[str, Any]) -> bytes:
    def info(name: str) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)

    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = onnx.helper.make_graph(nodes, "g", list(map(info, inputs)), [info("y")], tensors)
    data: bytes = onnx.helper.make_model(graph).SerializeToString()
    return data


EYE = {"w": np.eye(2, dtype=np.float32), "b": np.zeros(2, np.float32)}
GEMM = onnx.helper.make_node("Gemm", ["z", "w", "b"], ["y"], transB=1)
CHAINS = {
    "no ONNX": b"\xff\xff",
    "empty": b"",
    "no Gemm": _model([], ["z"], EYE),
    "alpha": _model(
        [onnx.helper.make_node("Gemm", ["z", "w", "b"], ["y"], transB=1, alpha=2.0)], ["z"], EYE
    ),
    "not transposed": _model([onnx.helper.make_node("Gemm", ["z", "w", "b"], ["y"])], ["z"], EYE),
    "other domain": _model(
        [onnx.helper.make_node("Gemm", ["z", "w", "b"], ["y"], transB=1, domain="x")], ["z"], EYE
    ),
    "softmax": _model([GEMM, onnx.helper.make_node("Softmax", ["y"], ["p"])], ["z"], EYE),
    "two inputs": _model([GEMM], ["z", "w"], EYE),
    "weight as input": _model([GEMM], ["w"], EYE),
    "ends in Relu": _model(
        [
            onnx.helper.make_node("Gemm", ["z", "w", "b"], ["h"], transB=1),
            onnx.helper.make_node("Relu", ["h"], ["y"]),
        ],
        ["z"],
        EYE,
    ),
    "double": _model([GEMM], ["z"], {**EYE, "w": np.eye(2)}),
}


@pytest.mark.parametrize("name", CHAINS)
def test_an_onnx_file_of_another_form_is_refused(name: str) -> None:
    from conspec.verifier.checker_files import read_layers

    with pytest.raises((Refused, ValueError)):
        read_layers(CHAINS[name])
    assert len(read_layers(_model([GEMM], ["z"], EYE)).affine) == 1


def test_the_exporters_activations_are_read_exactly() -> None:
    from conspec.verifier.checker_files import read_layers

    half = np.array(0.5, np.float32)
    nodes = [
        onnx.helper.make_node("Gemm", ["z", "w", "b"], ["h"], transB=1),
        onnx.helper.make_node("LeakyRelu", ["h"], ["r"], alpha=0.25),
        onnx.helper.make_node("Gemm", ["r", "w", "b"], ["i"], transB=1),
        onnx.helper.make_node("Clip", ["i", "low", "high"], ["s"]),
        onnx.helper.make_node("Gemm", ["s", "w", "b"], ["y"], transB=1),
    ]
    layers = read_layers(_model(nodes, ["z"], {**EYE, "low": -half, "high": half}))
    assert len(layers.affine) == 3
    leaky, clip = layers.activations
    values = [Fraction(v) for v in ("-4", "-1/3", "0", "1/3", "4")]
    assert [leaky(v) for v in values] == [Fraction(v) for v in ("-1", "-1/12", "0", "1/3", "4")]
    assert [clip(v) for v in values] == [Fraction(v) for v in ("-1/2", "-1/3", "0", "1/3", "1/2")]


# --- Claims about nothing -----------------------------------------------------------------------


def claim(world: World, text: str, **fields: Any) -> Line:
    """A line as an attacker would write it, right but for what it claims."""
    (spec,) = parse(text).specs
    assert isinstance(spec, f.ForAll)
    texts = {"spec": spec.name, "formula": to_text(spec.body), "region": to_text(spec.region)}
    base = {**world.lines["in_focus"], **texts, "text": to_text(spec)}
    certificate = {"format": "conspec-certificate", "version": 1, "parts": [[]]}
    return {**base, "certificate": certificate, **fields}


EMPTY = [
    "box(0, 1) and box(2, 3)",
    "box(0, 1) and box([0, 0, 0, 2], [9, 9, 9, 9])",
    "focus(truck, gamma=0.1) and box(0, 0.5)",
    "ball(image=1, radius=0.1, norm=linf) and box(50, 60)",
]


@pytest.mark.parametrize("region", EMPTY)
def test_an_empty_region_has_no_counterexample(affine: World, region: str) -> None:
    """Half-widths below zero must not turn an empty box into one with points."""
    for parameters in (["0"] * 4, None):
        point = {"z": ["3/2"] * 4, "parameters": parameters, "part": 0}
        text = f"spec s: forall x in {region}: wheels > wheels + 1"
        line = claim(affine, text, verdict="violated", counterexample=point)
        assert not affine.accepts(line)


@pytest.mark.parametrize(
    "text",
    [
        "spec s: forall x in ball(image=100000, radius=0, norm=linf): true",
        "spec s: forall x in ball(image=90, radius=0, norm=l2): true",
        "spec s: forall x in focus(lorry, gamma=1): true",
        "spec s: forall x in box([0, 0], [1, 1]): true",
        "spec s: forall x in box(0, 1): true or wheels > hooves",
        "spec s: forall x in box(0, 1): true or predict(lorry)",
        "spec s: forall x in polytope(wheels >= 0): true",
        "spec s: forall x in ellipsoid(truck, gamma=1) and hull(truck): true",
    ],
)
def test_a_spec_without_a_meaning_in_this_bundle_is_refused(affine: World, text: str) -> None:
    assert affine.accepts(claim(affine, "spec s: forall x in box(0, 1): true"))
    assert not affine.accepts(claim(affine, text))


# --- Anything at all ----------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 10**25)
    | st.floats(allow_nan=True)
    | st.sampled_from(["", "0", "1", "1/0", "proved", "certified", "\ud800", "x" * 99, "-1"])
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["literal", "multiplier", "split", "below", "parts", "z", "part"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
UNCHECKED = {
    "engine", "decided_by", "reason", "margin", "vacuous", "seconds", "coverage", "versions",
    "limits", "exact_margin", "image", "replay", "neighbours",
}  # fmt: skip
"""What a line says besides what the checker re-establishes."""


@given(st.data())
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
def test_anything_anywhere_is_refused_without_a_crash(
    worlds: dict[str, World], data: st.DataObject
) -> None:
    world = worlds[data.draw(st.sampled_from(WORLDS))]
    line = data.draw(st.sampled_from([*world.proofs, *world.refutations]))
    places = [path for path in leaves(line) if not UNCHECKED & set(path)]
    path = data.draw(st.sampled_from(places))
    value = data.draw(JSON)
    mutant = changed(line, path, value)
    if world.accepts(mutant) and mutant["verdict"] == "proved":
        assert still_proof(world, mutant)


@given(JSON)
@example([])
@example({"verdict": "proved", "trust": "certified"})
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_anything_as_a_line_is_refused_without_a_crash(
    worlds: dict[str, World], value: Any
) -> None:
    assert not worlds["affine"].accepts(value)


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


DEEP = 50_000
HOSTILE: list[tuple[str, Path_, Any]] = [
    ("many digits", ("certificate", "parts", 0, 0, 0, "multiplier"), "9" * 10**6),
    ("many digits below", ("certificate", "parts", 0, 0, 0, "multiplier"), "1/" + "9" * 10**6),
    ("an exponent", ("certificate", "parts", 0, 0, 0, "multiplier"), "1e999999999"),
    ("deep nesting", ("certificate", "parts"), nested(DEEP)),
    ("deep nesting in a part", ("certificate", "parts", 0), nested(DEEP)),
    ("a deep text", ("text",), "spec s: forall x in box(0, 1): " + "(" * 10**5 + "true"),
    ("a long text", ("text",), "#" * (17 * 2**20)),
    ("many nots", ("text",), "spec s: forall x in box(0, 1): " + "not " * 10**4 + "true"),
    ("a region of many parts", ("text",), None),
    ("a formula of many ways", ("text",), None),
]


@pytest.mark.parametrize(("name", "path", "value"), HOSTILE, ids=[name for name, _, _ in HOSTILE])
def test_hostile_lines_are_refused_in_a_short_time(
    affine: World, name: str, path: Path_, value: Any
) -> None:
    if name == "a region of many parts":
        line = claim(
            affine, f"spec s: forall x in {' and '.join(['(box(0, 1) or box(0, 2))'] * 30)}: true"
        )
    elif name == "a formula of many ways":
        ways = " and ".join(f"(z(0) > {i} or z(1) > {i})" for i in range(40))
        line = claim(affine, f"spec s: forall x in box(0, 99): not ({ways} and z(0) < 0 - 1)")
    else:
        line = changed(affine.lines["in_focus"], path, value)
    start = monotonic()
    assert not affine.accepts(line)
    assert monotonic() - start < 10


def test_a_counterexample_to_nested_equivalences_is_checked_in_a_short_time(
    affine: World,
) -> None:
    """Their normal form is a small graph, but an exponential tree."""
    body = "z(0) > 1"
    for index in range(40):
        body = f"({body}) <=> z({index % 4}) > {index}"
    point = {"z": ["1/2"] * 4, "parameters": None, "part": 0}
    line = claim(affine, f"spec s: forall x in box(0, 1): {body}", verdict="violated")
    start = monotonic()
    affine.accepts({**line, "counterexample": point})
    assert monotonic() - start < 10


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', '{"a": NaN}', "[Infinity]", '{"a": {"b": 1, "b": 1}}']
)
def test_json_says_everything_once_and_in_numbers(text: str) -> None:
    with pytest.raises(ValueError, match=r"twice|no JSON number"):
        strict_json(text)


def test_a_bundle_read_anew_agrees(affine: World) -> None:
    lens = Lens.load(affine.lens.root)
    assert lens.hash == affine.bundle.hash
