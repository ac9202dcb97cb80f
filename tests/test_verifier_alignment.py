"""Alignment margins: coverage of the conformal bound, polarity, what is refused, the command."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from conspec.cli.main import main
from conspec.encodings.query import truth_and_margin
from conspec.lens import Lens
from conspec.report.records import read_record, schema
from conspec.specs import formula as f
from conspec.specs import parse, parse_formula
from conspec.specs.errors import BadUsage
from conspec.specs.printer import to_text
from conspec.specs.rewrite import Halfspace, Literal, negation_normal_form
from conspec.specs.semantics import Scores, holds
from conspec.verifier.alignment_margin import (
    Pair,
    Residuals,
    pairs_of,
    rank_of,
    with_margins,
)
from conspec.verifier.checker import check_line
from conspec.verifier.checker_files import Bundle
from tests.bundles import write_skewed, write_tiny

CLASSES, CONCEPTS = ("x", "y"), ("a", "b", "c")
LEVEL = Fraction("0.9")
SURE = 1e-9
"""How likely a test of a correct implementation may fail."""


def spec_of(body: str | f.Formula) -> f.ForAll:
    formula = parse_formula(body) if isinstance(body, str) else body
    return f.ForAll("s", f.Box((Fraction(0),), (Fraction(1),)), formula)


def residuals_of(values: np.ndarray[Any, Any]) -> Residuals:
    return Residuals(CONCEPTS, values, np.zeros_like(values))


# --- The conformal bound -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 18, 19, 20, 99, 100])
@pytest.mark.parametrize("alpha", ["0.05", "0.1", "1/3", "0.001"])
def test_the_rank_is_that_of_split_conformal_prediction(count: int, alpha: str) -> None:
    """Of n + 1 exchangeable numbers, the last exceeds the k-th of the others for n + 1 − k."""
    rank = rank_of(count, Fraction(alpha))
    enough = [
        k for k in range(1, count + 1) if Fraction(count + 1 - k, count + 1) <= Fraction(alpha)
    ]
    assert rank == (min(enough) if enough else None)


def test_the_smallest_samples_that_suffice() -> None:
    assert rank_of(18, Fraction("0.05")) is None
    assert rank_of(19, Fraction("0.05")) == 19
    assert rank_of(38, Fraction("0.025")) is None
    assert rank_of(39, Fraction("0.025")) == 39


def test_a_margin_is_a_short_decimal_at_or_above_the_quantile() -> None:
    random = np.random.default_rng(0)
    for scale in (1e-9, 1.0, 1e6):
        values = random.normal(size=(50, 3)) * scale
        for pair in (("a", "b"), ("b", "a"), ("c", "a")):
            one, two = (CONCEPTS.index(name) for name in pair)
            exact = sorted(Fraction(row[one]) - Fraction(row[two]) for row in values.tolist())
            quantile = exact[ceil(51 * LEVEL) - 1]
            bound = residuals_of(values).bound(pair, 1 - LEVEL)
            assert bound is not None
            assert quantile <= bound <= quantile + abs(quantile) / 10**4 + Fraction(1, 10**20)
            assert len(str(float(bound)).split("e")[0].strip("-").replace(".", "")) <= 9


def test_the_statement_holds_as_often_as_promised() -> None:
    """Heavy-tailed, dependent residuals; all bounds together, at the level divided by four."""
    random = np.random.default_rng(1)
    spec = spec_of("(a > b => b > c) and c > a and score(a) - score(c) >= 0.5")
    pairs = pairs_of(spec)
    assert pairs == [("b", "a"), ("b", "c"), ("c", "a"), ("a", "c")]
    trials, kept, single = 4000, 0, 0
    for _ in range(trials):
        shared = random.standard_cauchy((61, 1))
        sample = random.standard_t(3, (61, 3)) + shared * np.array([0.5, -0.2, 1.0])
        residuals, new = residuals_of(sample[:60]), sample[60]
        found = with_margins(spec, residuals, LEVEL)
        gaps = {(p, q): new[CONCEPTS.index(p)] - new[CONCEPTS.index(q)] for p, q in pairs}
        bounds = {pair: bound for pair, bound in found.margins.items() if bound is not None}
        assert len(bounds) == len(pairs)
        kept += all(Fraction(gaps[pair]) <= bounds[pair] for pair in pairs)
        bound = residuals.bound(("a", "b"), 1 - LEVEL)
        assert bound is not None
        single += Fraction(new[0] - new[1]) <= bound
    # Hoeffding's inequality: off by more than this with probability below SURE.
    room = (np.log(1 / SURE) / (2 * trials)) ** 0.5
    assert kept / trials >= float(LEVEL) - room
    assert abs(single / trials - ceil(61 * LEVEL) / 61) <= room  # exact for one pair


def exact_residual(lens: Lens, image: int, concept: int) -> Fraction:
    """The definition, in Fractions, from the ONNX weights as the checker reads them."""
    (tops, bottom), bias = Bundle(lens.root).concepts[lens.concepts[concept]]
    data = lens.embeddings
    z = [Fraction(value) for value in data.z[image].tolist()]
    g = [Fraction(value) for value in data.vlm[image].tolist()]
    q = [Fraction(value) for value in data.directions[concept].tolist()]
    score = sum((t * v for t, v in zip(tops, z, strict=True)), Fraction(0)) / bottom + bias
    return score - sum((a * b for a, b in zip(q, g, strict=True)), Fraction(0))


def test_residuals_are_those_of_held_out_images(tmp_path: Path) -> None:
    lens = write_skewed(tmp_path / "lens", hidden=False)
    found = Residuals.of(lens)
    held = np.flatnonzero(lens.embeddings.heldout).tolist()
    assert found.count == len(held) > 0
    for place, image in enumerate(held[:6]):
        for concept in range(len(lens.concepts)):
            exact = exact_residual(lens, image, concept)
            off = abs(Fraction(found.values[place, concept]) - exact)
            assert off <= Fraction(found.errors[place, concept]) < Fraction(1, 10**10)


# --- Polarity ----------------------------------------------------------------------------------

SMALL = st.sampled_from([Fraction(v) for v in ("-2", "-1", "-1/2", "0", "0", "1/2", "1", "2")])


@st.composite
def comparisons(draw: st.DrawFn) -> f.Formula:
    """A difference of two concepts, its terms on any side, now and then with a logit."""
    one, two = draw(st.permutations(CONCEPTS))[:2]
    factor = draw(SMALL) or Fraction(1)
    first, second = (factor, f.Score(one)), (-factor, f.Score(two))
    left: tuple[tuple[Fraction, f.Symbol], ...] = (first, second)
    right: tuple[tuple[Fraction, f.Symbol], ...] = ()
    if draw(st.booleans()):
        left, right = (first,), ((factor, f.Score(two)),)
    if draw(st.integers(0, 3)) == 0:
        left += ((Fraction(1), f.Logit("x")),)
    relation = draw(st.sampled_from(f.Relation))
    return f.Compare(f.Linear(left, draw(SMALL)), relation, f.Linear(right, draw(SMALL)))


def _formulas() -> st.SearchStrategy[f.Formula]:
    names = st.sampled_from(CONCEPTS)
    atoms = st.one_of(
        st.builds(f.Stronger, names, names),
        comparisons(),
        st.sampled_from(CLASSES).map(f.Predict),
        st.booleans().map(f.Constant),
    )

    def compound(inner: st.SearchStrategy[f.Formula]) -> st.SearchStrategy[f.Formula]:
        some = st.lists(inner, min_size=2, max_size=3).map(tuple)
        counts = st.integers(0, 3)
        return st.one_of(
            st.builds(f.Not, inner),
            st.builds(f.And, some),
            st.builds(f.Or, some),
            st.builds(f.Implies, inner, inner),
            st.builds(f.Iff, inner, inner),
            st.builds(f.AtLeast, counts, some),
            st.builds(f.AtMost, counts, some),
        )

    return st.recursive(atoms, compound, max_leaves=6)


@dataclass(frozen=True, eq=False)
class Given(Residuals):
    """Margins that a test chooses."""

    margins: Mapping[Pair, Fraction]

    def bound(self, pair: Pair, alpha: Fraction) -> Fraction | None:
        return self.margins[pair]


def shifted(body: f.Formula, margins: Mapping[Pair, Fraction]) -> f.Formula:
    none = np.zeros((9, 3))
    return with_margins(spec_of(body), Given(CONCEPTS, none, none, margins), LEVEL).spec.body


def slowly_shifted(
    body: f.Formula, margins: Mapping[Pair, Fraction], scores: Mapping[f.Symbol, Fraction]
) -> bool:
    """The rewriting said otherwise: in negation normal form every half-space is asserted.

    One with ``c·(score(a) − score(b))``, c > 0, must hold by ``c·U_ab``.
    """

    def value(literal: Literal) -> Fraction:
        assert isinstance(literal, Halfspace)
        total = literal.constant + sum(
            (factor * scores[symbol] for factor, symbol in literal.terms), Fraction(0)
        )
        concepts = {s.concept: c for c, s in literal.terms if isinstance(s, f.Score)}
        for a, b in margins:
            if concepts.get(a, 0) > 0 > concepts.get(b, 0):
                total -= concepts[a] * margins[a, b]
        return total

    return truth_and_margin(negation_normal_form(body, CLASSES), value)[0]


numbers = st.lists(SMALL, min_size=3, max_size=3)


def test_what_is_proved_of_the_map_is_true_of_the_vlm() -> None:
    met: Counter[str] = Counter()

    @settings(
        max_examples=600,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(_formulas(), numbers, numbers, st.lists(SMALL.map(abs), min_size=9, max_size=9), numbers)
    def run(
        body: f.Formula,
        mapped: list[Fraction],
        true: list[Fraction],
        slack: list[Fraction],
        logits: list[Fraction],
    ) -> None:
        margins = {
            (CONCEPTS[i], CONCEPTS[j]): mapped[i]
            - mapped[j]
            - (true[i] - true[j])
            + slack[3 * i + j]
            for i in range(3)
            for j in range(3)
            if i != j
        }
        heads = dict(zip(CLASSES, logits, strict=False))
        through_map = Scores(heads, dict(zip(CONCEPTS, mapped, strict=True)))
        of_the_vlm = Scores(heads, dict(zip(CONCEPTS, true, strict=True)))
        claimed = holds(shifted(body, margins), through_map)
        named: dict[f.Symbol, Fraction] = {f.Logit(k): v for k, v in heads.items()}
        named |= {f.Score(k): v for k, v in zip(CONCEPTS, mapped, strict=True)}
        assert claimed == slowly_shifted(body, margins, named)
        if claimed:
            assert holds(body, of_the_vlm)
        if pairs_of(spec_of(body)):
            met[f"claimed {claimed}, true {holds(body, of_the_vlm)}"] += 1

    run()
    assert min(met["claimed True, true True"], met["claimed False, true False"]) > 60
    assert met["claimed True, true False"] == 0


def test_a_map_without_error_changes_no_truth() -> None:
    none = dict.fromkeys([(a, b) for a in CONCEPTS for b in CONCEPTS], Fraction(0))
    for text in ("a > b => b > c", "a > b <=> not c > a", "atmost(1, a > b, b > c, c > a)"):
        body = parse_formula(text)
        for values in np.ndindex(3, 3, 3):
            scores = Scores({}, dict(zip(CONCEPTS, map(Fraction, values), strict=True)))
            assert holds(shifted(body, none), scores) == holds(body, scores)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a > b", "score(a) - score(b) > 1"),
        ("not a > b", "not (score(a) - score(b) > -2)"),
        ("a > b => b > c", "score(a) - score(b) > -2 => score(b) - score(c) > 3"),
        ("score(a) - score(b) >= 0.5", "score(a) - score(b) >= 1.5"),
        ("score(b) + 0.5 <= score(a)", "score(b) + 0.5 <= score(a) - 1"),
        ("2*score(a) - 2*score(b) > 0", "2*score(a) - 2*score(b) > 2"),
        ("not 2*score(a) < 2*score(b)", "not (2*score(a) < 2*score(b) + 2)"),
        ("logit(x) + score(b) - score(a) < 4", "logit(x) + score(b) - score(a) < 3"),
        ("predict(x) => a > b", "predict(x, x) => score(a) - score(b) > 1"),
        ("logit(x) >= 1 and not z(0) > 2", "logit(x) >= 1 and not (z(0) > 2)"),
        ("a > a", "a > a"),
        ("atmost(1, a > b, true)", "atmost(1, score(a) - score(b) > -2, true)"),
    ],
)
def test_the_rewriting_in_words(text: str, expected: str) -> None:
    margins = {("a", "b"): Fraction(1), ("b", "a"): Fraction(2), ("b", "c"): Fraction(3)}
    found = shifted(parse_formula(text), margins)
    assert found == parse_formula(expected), to_text(found)


def test_each_side_of_an_equivalence_is_needed_both_ways() -> None:
    assert set(pairs_of(spec_of("a > b <=> predict(x)"))) == {("a", "b"), ("b", "a")}
    assert pairs_of(spec_of("a > b and (a > b or score(a) - score(b) > 3)")) == [("a", "b")]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("has(a)", r"spec s: has\(a\) cannot be given an alignment margin"),
        ("predict(x) => not has(a)", "cannot be given"),
        ("score(a) > 0.2", "no comparison of two concepts' scores"),
        ("score(a) + score(b) > 0", "no comparison of two"),
        ("2*score(a) > score(b)", "no comparison of two"),
        ("score(a) + score(b) - 2*score(c) > 0", "no comparison of two"),
        ("logit(x) > score(a)", "no comparison of two"),
    ],
)
def test_what_has_no_margin_is_refused(text: str, match: str) -> None:
    with pytest.raises(BadUsage, match=match):
        with_margins(spec_of(text), residuals_of(np.zeros((99, 3))), LEVEL)


@pytest.mark.parametrize("level", ["0", "1", "-0.5", "95"])
def test_a_level_outside_0_and_1_is_refused(level: str) -> None:
    with pytest.raises(BadUsage, match="between 0 and 1"):
        with_margins(spec_of("a > b"), residuals_of(np.zeros((99, 3))), Fraction(level))


def test_too_few_images_give_no_margin_and_say_how_many_would() -> None:
    residuals = residuals_of(np.zeros((18, 3)))
    found = with_margins(spec_of("a > b and b > c"), residuals, LEVEL)
    assert not found.is_bounded
    assert found.spec == spec_of("a > b and b > c")
    (said,) = found.assumptions
    assert "18 held-out images are too few" in said
    assert "2 ordered concept pairs at level 0.9 need at least 19" in said
    assert with_margins(found.spec, residuals_of(np.zeros((19, 3))), LEVEL).is_bounded


def test_a_spec_without_concepts_needs_no_assumption() -> None:
    spec = spec_of("predict(x) or logit(y) > 3")
    found = with_margins(spec, residuals_of(np.zeros((0, 3))), LEVEL)
    assert (found.spec, found.assumptions, found.is_bounded) == (spec, (), True)


# --- The command -------------------------------------------------------------------------------

SUITE = """
spec one: forall x in focus(truck, gamma=0.5): predict(truck) => wheels > wings
spec two: forall x in focus(truck, gamma=0.5): wheels > wings and wheels > fur
spec three: forall x in focus(truck, gamma=0.5): wings > wheels
"""


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("lens") / "tiny").root


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "suite.conspec"
    path.write_text(SUITE, encoding="utf-8")
    return path


def run(suite: Path, lens: Path, *options: str | Path) -> int:
    return main(["verify", str(suite), "--lens", str(lens), *map(str, options)])


def test_the_command_prints_the_assumptions_with_the_verdict(
    suite: Path, lens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """30 held-out images are enough for one pair at 0.95, not for two."""
    results = tmp_path / "r.jsonl"
    assert run(suite, lens, "--alignment-margin", "0.95", "--jsonl", results) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "3 specs: 1 proved, 1 violated, 1 unknown" in out
    assert "with probability at least 0.95" in out
    assert "exchangeable with the 30 held-out images" in out
    assert "2 ordered concept pairs at level 0.95 need at least 39" in out
    lines = {line["spec"]: line for line in map(json.loads, results.read_text().splitlines())}
    for line in lines.values():
        jsonschema.validate(line, schema())
        assert list(read_record(line).assumptions) == line["assumptions"] != []
    assert "score(wheels) - score(wings) > " in lines["one"]["formula"]
    assert "predict(x, truck) => wheels > wings" in lines["one"]["assumptions"][0]
    assert lines["two"]["reason"].startswith("Too few held-out images")
    assert lines["two"]["coverage"]["n"] == 10
    bundle = Bundle(lens)
    assert check_line(lines["one"], bundle) == "proof"
    assert check_line(lines["three"], bundle) == "counterexample"


def test_a_run_with_margins_resumes_and_one_without_has_no_assumptions(
    suite: Path, lens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "r.jsonl"
    run(suite, lens, "--alignment-margin", "0.95", "--jsonl", results)
    before = results.read_text()
    capsys.readouterr()
    run(suite, lens, "--alignment-margin", "0.95", "--jsonl", results)
    assert "3 of 3 specs are answered already" in capsys.readouterr().err
    assert results.read_text() == before
    assert run(suite, lens, "--jsonl", results) == 1
    later = [json.loads(line) for line in results.read_text().splitlines()[3:]]
    assert [line["spec"] for line in later] == ["one", "two", "three"]
    assert all(line["assumptions"] == [] for line in later)


@pytest.mark.parametrize(
    ("level", "message"),
    [("2", "between 0 and 1"), ("x", "must be a number"), ("1/0", "must be a number")],
)
def test_a_bad_level_is_3(
    suite: Path, lens: Path, level: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(suite, lens, "--alignment-margin", level) == 3
    assert message in capsys.readouterr().err


def test_has_is_3_and_names_the_spec(
    suite: Path, lens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite.write_text("spec h: forall x in box(0, 1): has(wheels)", encoding="utf-8")
    assert run(suite, lens, "--alignment-margin", "0.9") == 3
    assert "spec h: has(wheels) cannot be given an alignment margin" in capsys.readouterr().err
    assert parse(suite.read_text()).specs
