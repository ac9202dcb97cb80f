"""``has``: verdicts against z3's non-linear reals and exact points; certificates; splits; ties."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conspec.encodings.exact import Vector, from_array, vector
from conspec.encodings.images import Image, Shape
from conspec.encodings.network import Affine, Network
from conspec.encodings.query import Query, queries_of, space_of
from conspec.encodings.regions import Box, ConvexRegion, build_regions
from conspec.encodings.scores import ScoreSpace
from conspec.lens import Lens
from conspec.lens.onnx_files import affine_model
from conspec.lens.tables import Embeddings
from conspec.lens.write import Contents, write_bundle
from conspec.specs import formula as f
from conspec.specs import parse
from conspec.specs.rewrite import Cone
from conspec.specs.semantics import holds
from conspec.verifier import (
    Proved,
    Reason,
    Result,
    Unknown,
    Verdict,
    Violated,
    lemmas,
    verify,
    verify_suite,
)
from conspec.verifier.certificate import Part, Split
from conspec.verifier.checker import check_line
from conspec.verifier.checker_cones import norm_bound
from conspec.verifier.checker_files import Bundle, Refused
from conspec.verifier.checker_regions import regions_of
from conspec.verifier.cones import direction_at, exact_root, square_bound
from conspec.verifier.lemmas import LemmaEngine
from conspec.verifier.results import to_json
from tests import oracle, spaces

CONCEPTS = ("a", "b", "c")
THRESHOLDS = ("-0.6", "-0.2", "0", "0.2", "0.5", "0.8")
Random = np.random.Generator


# --- The definition, in Fractions ------------------------------------------------------------


def has_at(space: ScoreSpace, concept: str, point: list[Fraction]) -> bool:
    """``score > τ·‖e‖`` by cases of the signs."""
    score = Fraction(oracle.scores_at(space, point).concepts[concept])
    square = sum((value * value for value in space.aligned.exact(vector(point))), Fraction(0))
    threshold = space.thresholds[concept]
    if threshold >= 0:
        return score > 0 and score * score > threshold * threshold * square
    if score >= 0:
        return score > 0 or square > 0
    return score * score < threshold * threshold * square


def true_at(space: ScoreSpace, body: f.Formula, point: list[Fraction]) -> bool:
    def ground(node: Any) -> Any:
        if isinstance(node, f.Has):
            return f.Constant(has_at(space, node.concept, point))
        if isinstance(node, tuple):
            return tuple(map(ground, node))
        if is_dataclass(node) and not isinstance(node, type) and isinstance(node, f.Formula):
            return replace(node, **{k.name: ground(getattr(node, k.name)) for k in fields(node)})
        return node

    return holds(ground(body), oracle.scores_at(space, point))


# --- Random spaces and formulas --------------------------------------------------------------


def quarters(random: Random, *shape: int) -> np.ndarray[Any, Any]:
    """Multiples of a quarter: short enough for z3, and ties are common."""
    return np.round(random.normal(size=shape) * 4) / 4


def random_space(random: Random, size: int, width: int) -> ScoreSpace:
    weight, offset = quarters(random, width, size), quarters(random, width) * random.integers(3)
    directions = quarters(random, 3, width)
    return ScoreSpace(
        ("x", "y"),
        CONCEPTS,
        Network((Affine(quarters(random, 2, size), np.zeros(2)),)),
        Affine(directions @ weight, directions @ offset),
        Affine(weight, offset),
        {name: Fraction(str(random.choice(THRESHOLDS))) for name in CONCEPTS},
    )


def random_formula(random: Random, depth: int) -> f.Formula:
    kind = int(random.integers(4))
    if depth == 0 or random.random() < 0.2:
        one, two = map(str, random.choice(CONCEPTS, 2, replace=False))
        atoms = (f.Has(one), f.Has(two), f.Predict("x"), f.Stronger(one, two))
        return atoms[kind]
    if kind == 0:
        return f.Not(random_formula(random, depth - 1))
    left, right = (random_formula(random, depth - 1) for _ in "ab")
    return (f.And((left, right)), f.Or((left, right)), f.Implies(left, right))[kind - 1]


def random_queries(seed: int, count: int) -> Iterator[Query]:
    random = np.random.default_rng(seed)
    while count:
        space = random_space(random, int(random.integers(1, 4)), int(random.integers(1, 4)))
        center = quarters(random, space.dimension) * 2
        radius = np.abs(quarters(random, space.dimension)) * random.choice([0, 0.5, 1, 2])
        region = spaces.box_of(list(center - radius), list(center + radius))
        found = spaces.query(space, random_formula(random, 2), region)
        if found.cones:
            count -= 1
            yield found


def leaves(part: Part) -> int:
    return leaves(part.below) + leaves(part.above) if isinstance(part, Split) else 1


def grid(region: Box, steps: int) -> Iterator[list[Fraction]]:
    """Points of the box, its corners included."""
    pairs = list(zip(region.lower.fractions(), region.upper.fractions(), strict=True))
    for index in np.ndindex(*[steps + 1] * region.dimension):
        shares = [Fraction(int(place), steps) for place in index]
        yield [low + s * (high - low) for (low, high), s in zip(pairs, shares, strict=True)]


def test_no_verdict_contradicts_z3_or_a_point() -> None:
    outcomes: Counter[str] = Counter()
    for query in random_queries(0, 250):
        space, body = query.space, query.spec.body
        verdict = verify(query)
        outcomes[type(verdict).__name__] += 1
        match verdict:
            case Violated(witness):
                point = witness.point.fractions()
                assert query.region.contains(witness.point)
                assert not true_at(space, body, point)
            case Proved():
                assert all(true_at(space, body, point) for point in grid(query.region, 4))  # type: ignore[arg-type]
        truth = oracle.decide(query, 0.5)
        if truth is None:
            outcomes["z3 gave up"] += 1
        elif not isinstance(verdict, Unknown):
            assert truth == isinstance(verdict, Proved), body
    assert outcomes["Proved"] > 60
    assert outcomes["Violated"] > 60
    assert outcomes["Unknown"] <= 8, outcomes
    assert outcomes["z3 gave up"] < 50, outcomes


@pytest.mark.parametrize("engine", ["box", "z3", "highs"])
def test_named_engines_are_sound_about_cones(engine: str) -> None:
    for query in random_queries(1, 40):
        match verify(query, engine), verify(query):
            case Proved(), other:
                assert not isinstance(other, Violated)
            case Violated(witness), other:
                assert not true_at(query.space, query.spec.body, witness.point.fractions())
                assert not isinstance(other, Proved)


# --- Ties ------------------------------------------------------------------------------------


def plane(threshold: str, **more: str) -> ScoreSpace:
    """``a`` and ``b`` are the two entries of z, which is its own mapped embedding."""
    rows = [[1.0, 0.0], [0.0, 1.0]]
    thresholds = {"a": Fraction(threshold), "b": Fraction(more.get("b", "0.5"))}
    identity = Affine(np.array(rows), np.zeros(2))
    return spaces.space((rows, [0.0, 0.0]), alignment=identity, thresholds=thresholds)


POINT = spaces.box_of([3, 4], [3, 4])
ZERO = spaces.box_of([0, 0], [0, 0])
TIES = [
    # At (3, 4) the norm is 5 and the cosine of a is 0.6.
    ("0.6", "has(a)", POINT, False),
    ("0.6", "not has(a)", POINT, True),
    ("0.5999999999999999999", "has(a)", POINT, True),
    ("0.6000000000000000001", "not has(a)", POINT, True),
    ("-0.6", "has(a)", spaces.box_of([-3, 4], [-3, 4]), False),
    ("-0.6", "not has(a)", spaces.box_of([-3, 4], [-3, 4]), True),
    ("-0.6000000000000000001", "has(a)", spaces.box_of([-3, 4], [-3, 4]), True),
    # The norm is zero: has is score > 0.
    ("0.6", "has(a)", ZERO, False),
    ("-0.6", "has(a)", ZERO, False),
    ("-0.6", "not has(a)", ZERO, True),
    ("0.6", "not has(a)", ZERO, True),
    ("0", "not has(a)", ZERO, True),
    # A threshold of zero is a half-space.
    ("0", "has(a)", spaces.box_of([0, 1], [1, 1]), False),
    ("0", "has(a)", spaces.box_of(["1e-30", -1], [1, 1]), True),
    ("0", "not has(a)", spaces.box_of([-1, -1], [0, 1]), True),
    # The region touches the cone in one corner: (3, 4), which is a tie.
    ("0.6", "not has(a)", spaces.box_of([-1, 4], [3, 6]), True),
    ("0.6", "has(a)", spaces.box_of([3, -4], [5, 4]), False),
    ("0.6", "not has(a)", spaces.box_of([-1, 4], ["3.0000001", 6]), False),
    ("0.6", "has(a)", spaces.box_of(["3.0000001", -4], [5, 4]), True),
    ("-0.6", "has(a)", spaces.box_of(["-2.9999999", 4], [1, 6]), True),
    ("-0.5999999999", "not has(a)", spaces.box_of([-9, -4], [-3, 4]), True),
    # Inside and around the apex.
    ("0.6", "has(a)", spaces.box_of([-1, -1], [1, 1]), False),
    ("1", "not has(a)", spaces.box_of([-1, -1], [1, 1]), True),
    ("-1", "has(a)", spaces.box_of([-1, "0.1"], [1, 1]), True),
    ("0.6", "has(a) => not has(b) or true", spaces.box_of([-1, -1], [1, 1]), True),
    ("0.6", "has(a) => has(a)", spaces.box_of([-1, -1], [1, 1]), True),
    ("0.6", "has(a) <=> not not has(a)", spaces.box_of([-1, -1], [1, 1]), True),
]


@pytest.mark.parametrize(("threshold", "body", "region", "truth"), TIES)
def test_ties_and_thresholds(threshold: str, body: str, region: Box, truth: bool) -> None:
    query = spaces.query(plane(threshold), body, region)
    assert oracle.decide(query) is truth
    verdict = verify(query)
    assert isinstance(verdict, Proved if truth else Violated), verdict


def test_one_implies_a_weaker_one_away_from_the_apex() -> None:
    """The same direction with two thresholds: the difference is ``0.1·‖e‖``."""
    rows = [[1.0, 0.0], [1.0, 0.0]]
    space = spaces.space(
        (rows, [0.0, 0.0]),
        alignment=Affine(np.eye(2), np.zeros(2)),
        thresholds={"a": Fraction("0.6"), "b": Fraction("0.5")},
    )
    query = spaces.query(space, "has(a) => has(b)", spaces.box_of([1, -4], [5, 4]))
    assert isinstance(verify(query), Proved)


def test_a_region_that_is_no_box_says_why_it_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two narrow cones meet at their common apex alone, which no cut shows exactly."""
    monkeypatch.setattr(lemmas, "CONE_ROUNDS", 3)
    space = plane("0.9", b="0.9")
    disc = Image(Vector((0, 0)), np.eye(2), Fraction(1), Shape.BALL)
    query = Query(
        f.ForAll(
            "s", f.Box((Fraction(0),), (Fraction(1),)), f.Not(f.And((f.Has("a"), f.Has("b"))))
        ),
        space,
        disc,
    )
    verdict = verify(query)
    assert isinstance(verdict, Unknown)
    assert verdict.reason is Reason.CONE_PRECISION
    away = Image(Vector((3, 3)), np.eye(2), Fraction(1), Shape.BALL)
    assert isinstance(verify(replace(query, region=away)), Proved)


# --- Splits ----------------------------------------------------------------------------------


def contested(seed: int, gap: float) -> Iterator[tuple[Query, bool]]:
    """Queries whose threshold is just beyond the cosines of sampled points, or just within."""
    random = np.random.default_rng(seed)
    while True:
        space = random_space(random, int(random.integers(2, 5)), int(random.integers(2, 5)))
        center = random.normal(size=space.dimension) * 2
        radius = np.abs(random.normal(size=space.dimension)) * 2
        region = spaces.box_of([Fraction(v) for v in center - radius],
                               [Fraction(v) for v in center + radius])  # fmt: skip
        corners = random.integers(0, 2, (3000, space.dimension))
        shares = np.concatenate([random.random((3000, space.dimension)), corners])
        points = center + radius * (2 * shares - 1)
        scores = points @ space.concept_map.weight.T + space.concept_map.bias
        mapped = points @ space.aligned.weight.T + space.aligned.bias
        kept = scores[:, 1] > scores[:, 2]
        if kept.sum() < 50:
            continue
        cosines = (scores[:, 0] / np.linalg.norm(mapped, axis=1))[kept]
        within = random.random() < 0.3
        shift = -gap if within else gap
        has: f.Formula = f.Has("a")
        threshold = cosines.min() - shift
        if random.random() < 0.5:
            has, threshold = f.Not(has), cosines.max() + shift
        chosen = replace(space, thresholds={"a": Fraction(f"{threshold:.6f}")})
        yield spaces.query(chosen, f.Implies(f.Stronger("b", "c"), has), region), within


def test_contested_boxes_are_split_until_decided() -> None:
    undecided, pieces = 0, []
    queries = contested(3, 0.002)
    for _ in range(60):
        query, within = next(queries)
        verdict = LemmaEngine(query.space, query.region).decide(query, query.violation, 10)
        match verdict:
            case Proved(certificate=certificate):
                assert not within
                assert certificate is not None
                pieces.append(leaves(certificate.parts[0]))
            case Violated(witness):
                assert query.region.contains(witness.point)
                assert not true_at(query.space, query.spec.body, witness.point.fractions())
            case Unknown():
                undecided += 1
    assert len(pieces) > 15
    assert max(pieces) > 1, "no box was split"
    assert undecided <= 2


# --- The bounds behind it ---------------------------------------------------------------------


def some_regions(random: Random, size: int) -> list[ConvexRegion]:
    center = from_array(quarters(random, size))
    generators = random.normal(size=(size, size + 2))
    sides = random.normal(size=(2, size))
    lower, upper = sides.min(axis=0), sides.max(axis=0)
    return [
        spaces.box_of([Fraction(v) for v in lower], [Fraction(v) for v in upper]),
        spaces.box_of([Fraction(v) for v in lower], [Fraction(v) for v in lower]),
        *(Image(center, generators, Fraction("0.3"), shape) for shape in Shape),
        Image(center, generators, Fraction(0), Shape.CUBE),
    ]


def test_the_bound_of_the_squared_norm_holds_at_every_point() -> None:
    random = np.random.default_rng(5)
    for _ in range(20):
        space = random_space(random, int(random.integers(1, 5)), int(random.integers(1, 5)))
        for region in some_regions(random, space.dimension):
            bound = square_bound(space, region)
            assert bound is not None
            parameters = random.uniform(-1, 1, (20, region.parameters))
            if region.shape is Shape.CUBE:
                parameters = np.sign(parameters)
            if region.shape is Shape.BALL:
                parameters /= np.linalg.norm(parameters, axis=1)[:, None]
            if region.shape is Shape.SIMPLEX:
                parameters = np.eye(region.parameters)[random.integers(0, region.parameters, 20)]
            for row in parameters:
                mapped = space.aligned.exact(region.at(region.into(row)))
                square = sum((value * value for value in mapped), Fraction(0))
                pairs = zip(bound.factors, mapped, strict=True)
                assert square <= sum((a * b for a, b in pairs), bound.constant)


def test_directions_are_never_longer_than_one() -> None:
    random = np.random.default_rng(6)
    for scale in (1.0, 1e-30, 1e30, 1e-300):
        for size in (1, 2, 5, 64):
            mapped = [Fraction(v) for v in random.normal(size=size) * scale]
            length = sum((value * value for value in direction_at(mapped)), Fraction(0))
            assert 1 - Fraction(1, 2**40) < length <= 1
    assert direction_at([Fraction(3), Fraction(4)]) == (Fraction(3, 5), Fraction(4, 5))
    assert not any(direction_at([Fraction(0)] * 2))
    assert exact_root(Fraction(9, 4)) == Fraction(3, 2)
    assert exact_root(Fraction(2)) is None


# --- Certificates ----------------------------------------------------------------------------


def write_random(folder: Path, seed: int, size: int = 3, width: int = 3) -> Lens:
    """A bundle whose map and directions are random."""
    random = np.random.default_rng(seed)
    z = np.abs(1 + random.normal(size=(60, size))).astype(np.float32)
    weight = random.normal(size=(width, size)).astype(np.float32)
    offset = random.normal(size=width).astype(np.float32)
    directions = random.normal(size=(3, width))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    head = random.normal(size=(2, size)).astype(np.float32)
    mapped = z @ weight.T + offset
    cosines = (mapped @ directions.T) / np.linalg.norm(mapped, axis=1, keepdims=True)
    predicted = (z @ head.T).argmax(axis=1)
    label = np.where(random.random(60) < 0.8, predicted, 0)
    thresholds = [
        f"{value:.4f}" for value in np.quantile(cosines, (0.2, 0.3, 0.4), axis=0).diagonal()
    ]
    embeddings = Embeddings(
        z=z,
        label=label,
        predicted=predicted,
        heldout=np.arange(60) % 3 == 0,
        vlm=mapped.astype(np.float32),
        directions=directions.astype(np.float32),
        class_directions=np.eye(2, width, dtype=np.float32),
    )
    return write_bundle(
        folder,
        Contents(
            name="random",
            classes=("x", "y"),
            concepts=CONCEPTS,
            head=affine_model(head, np.zeros(2, np.float32), "logits"),
            concept_map=affine_model(
                (directions @ weight).astype(np.float32),
                (directions @ offset).astype(np.float32),
                "concepts",
            ),
            alignment=affine_model(weight, offset, "mapped"),
            embeddings=embeddings,
            image_ids=tuple(map(str, range(60))),
            thresholds=dict(zip(CONCEPTS, thresholds, strict=True)),
        ),
    )


REGIONS = (
    "box(-1, 1)",
    "box(0.5, 2.5)",
    "ball(image=0, radius=0.7, norm=linf)",
    "ball(image=1, radius=0.7, norm=l2)",
    "focus(x, gamma=1)",
    "pca_box(x, gamma=1)",
    "zonotope(x, gamma=0.5)",
    "ellipsoid(x, gamma=1)",
    "hull(x)",
    "focus(x, gamma=2) and polytope(z(0) + z(1) <= 2.5, z(1) >= 0.5)",
    "focus(x, gamma=0.5) or ball(image=2, radius=0.5, norm=linf)",
)
FORMULAS = (
    "has(a)",
    "not has(b)",
    "predict(x) => has(a)",
    "has(a) and a > b => has(b)",
    "has(a) or has(b) or not has(c)",
    "predict(x) => score(a) > -5 and (has(c) => c > b or has(b))",
    "has(a) => score(a) > 0.05",
    "score(a) > 3 => has(a)",
    "atmost(2, has(a), has(b), has(c))",
)


def lines_of(lens: Lens, text: str) -> list[tuple[Verdict, dict[str, Any]]]:
    found = [(result.verdict, to_json(result, lens)) for result in verify_suite(parse(text), lens)]
    return [(verdict, json.loads(json.dumps(line))) for verdict, line in found]


def test_every_certificate_passes_the_checker(tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(3):
        lens = write_random(tmp_path / str(seed), seed, 2 + seed, 3)
        bundle = Bundle(lens.root)
        text = "\n".join(
            f"spec s{i}_{j}: forall x in {region}: {body}"
            for i, region in enumerate(REGIONS)
            for j, body in enumerate(FORMULAS)
        )
        for verdict, line in lines_of(lens, text):
            outcomes[type(verdict).__name__] += 1
            box = line["region"].startswith(("box", "focus"))
            outcomes["Unknown box"] += isinstance(verdict, Unknown) and box
            word = {"proved": "proof", "violated": "counterexample"}.get(line["verdict"], "nothing")
            assert check_line(line, bundle) == word, line["text"]
            assert line["verdict"] != "proved" or line["trust"] == "certified"
    # Regions that are no boxes are not split; boxes are decided but for near ties.
    assert outcomes["Unknown"] <= 0.04 * outcomes.total(), outcomes
    assert outcomes["Unknown box"] <= 1, outcomes
    assert outcomes["Proved"] > 100


# The premise cuts off the corners, where the bound of the norm is exact: only splitting helps.
BOX = "box([0.5, -3], [3.5, 3])"
SPLIT = f"spec s: forall x in {BOX}: score(b) >= -0.3 and score(b) <= 0.3 => has(a)"


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Lens:
    """Concepts a and b are the two coordinates, and z is its own mapped embedding."""
    folder = tmp_path_factory.mktemp("flat") / "lens"
    identity, none = np.eye(2, dtype=np.float32), np.zeros(2, np.float32)
    z = np.array([[1, 0.1], [1, 0.2], [0.2, 1]], dtype=np.float32)
    head, scores, mapped = (
        affine_model(identity, none, name) for name in ("logits", "concepts", "mapped")
    )
    embeddings = Embeddings(
        z=z,
        label=np.array([0, 0, 1]),
        predicted=np.array([0, 0, 1]),
        heldout=np.array([False, False, True]),
        vlm=z,
        directions=identity,
        class_directions=identity,
    )
    thresholds: dict[str, str | None] = {"a": "0.5", "b": "-0.3"}
    contents = Contents(
        "flat", ("x", "y"), ("a", "b"), head, scores, mapped, embeddings, tuple("012")
    )
    return write_bundle(folder, replace(contents, thresholds=thresholds))


def proved_line(lens: Lens, text: str) -> dict[str, Any]:
    ((verdict, line),) = lines_of(lens, text)
    assert isinstance(verdict, Proved), verdict
    assert check_line(line, Bundle(lens.root)) == "proof"
    return line


def refused(lens: Lens, line: dict[str, Any], match: str) -> None:
    with pytest.raises(Refused, match=match):
        check_line(line, Bundle(lens.root))


def test_a_tampered_direction_is_refused(flat: Lens) -> None:
    text = "spec s: forall x in box([-1, 1], [0.05, 2]): not has(a)"
    line = proved_line(flat, text)
    ((lemma,),) = line["certificate"]["parts"]
    (term,) = lemma
    true = list(term["direction"])
    for factor in (Fraction(11, 10), Fraction(1 << 60, (1 << 60) - 1) ** 64):
        term["direction"] = [str(Fraction(value) * factor) for value in true]
        refused(flat, line, "longer than 1")
    term["direction"] = [str(-Fraction(value)) for value in true]
    refused(flat, line, "can be satisfied")
    term["direction"] = [*true, "0"]
    refused(flat, line, "malformed")
    del term["direction"]
    refused(flat, line, "malformed")
    term["norm"] = "1"
    refused(flat, line, "malformed")


def test_a_tampered_norm_is_refused(flat: Lens) -> None:
    line = proved_line(flat, "spec s: forall x in box([1, -1], [2, 1]): has(a)")
    (((term,),),) = line["certificate"]["parts"]
    for norm in ("0", "-1", "-1/1000000"):
        term["norm"] = norm
        refused(flat, line, "not positive")
    for norm in ("1/1000", "1000"):
        term["norm"] = norm
        refused(flat, line, "can be satisfied")
    for norm in ("x", "1/0", "1.5"):
        term["norm"] = norm
        refused(flat, line, "no exact number|malformed")
    del term["norm"]
    refused(flat, line, "malformed")


def test_a_tampered_split_is_refused(flat: Lens) -> None:
    line = proved_line(flat, SPLIT)
    (part,) = line["certificate"]["parts"]
    assert set(part) == {"split", "below", "above"}, "the case no longer needs a split"
    before = json.dumps(part)

    def broken(match: str, **changes: Any) -> None:
        line["certificate"]["parts"] = [{**json.loads(before), **changes}]
        refused(flat, line, match)

    at = part["split"]["at"]
    low, high = (0.5, 3.5) if part["split"]["coordinate"] == 0 else (-3, 3)
    for outside in (low - 1, high + 1):
        split = {**part["split"], "at": str(Fraction(outside))}
        broken("outside the bounds", split=split)
    for coordinate in (-1, 2, "0", True, None, 0.0):
        broken("across coordinate", split={"coordinate": coordinate, "at": at})
    broken("malformed", split={"coordinate": 0})
    broken("malformed", split=None)
    broken("satisfied|do not rule out|outside the bounds", below=part["above"])
    broken("do not rule out", above=[])
    line["certificate"]["parts"] = [{k: v for k, v in part.items() if k != "above"}]
    refused(flat, line, "malformed")
    line["certificate"]["parts"] = [part["below"]]
    refused(flat, line, "can be satisfied|do not rule out")


def test_only_a_box_can_be_split(flat: Lens) -> None:
    line = proved_line(flat, "spec s: forall x in ball(image=0, radius=0.1, norm=l2): has(a)")
    (part,) = line["certificate"]["parts"]
    cut = {"coordinate": 0, "at": "1"}
    line["certificate"]["parts"] = [{"split": cut, "below": part, "above": part}]
    refused(flat, line, "only a box")


def test_a_counterexample_in_a_piece_is_one_of_the_region(
    flat: Lens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given by its point alone, which the checker looks up in the whole box."""
    monkeypatch.setattr(lemmas, "INNER_ROUNDS", 0)  # else it is found before any split
    (spec,) = parse(SPLIT.replace("<= 0.3", "<= 0.9")).specs
    assert isinstance(spec, f.ForAll)
    (query,) = queries_of(spec, flat, space_of(flat))
    verdict = LemmaEngine(query.space, query.region).decide(query, query.violation, 10)
    assert isinstance(verdict, Violated)
    assert verdict.witness.parameters is None
    line = to_json(Result(spec, "auto", verdict, 0.0, None, "lemmas"), flat)
    assert check_line(line, Bundle(flat.root)) == "counterexample"


def test_the_checkers_bound_is_no_looser_than_the_engines(tmp_path: Path) -> None:
    """What the engine rounds up, the checker has exactly; so certificates with ties pass too."""
    lens = write_random(tmp_path / "lens", 9, 4, 3)
    space, bundle = space_of(lens), Bundle(lens.root)
    for text in REGIONS[:9]:
        (spec,) = parse(f"spec s: forall x in {text}: true").specs
        assert isinstance(spec, f.ForAll)
        (part,) = build_regions(spec.region, lens)
        bound = square_bound(space, part.region)
        assert bound is not None
        root = Fraction(3)
        ((region, _),) = regions_of(spec.region, bundle)
        factors, constant = norm_bound(region, bundle, root)
        assert factors == [value / (2 * root) for value in bound.factors]
        own = (bound.constant + root * root) / (2 * root)
        assert own - Fraction(1, 10**9) <= constant <= own


def test_opposite_cones_need_no_lemma(flat: Lens) -> None:
    line = proved_line(flat, "spec s: forall x in box(-1, 1): has(a) => has(a) or b > a")
    assert line["certificate"]["parts"] == [[]]
    assert Cone("a", True) != Cone("a", False)
