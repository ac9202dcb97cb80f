"""ReLU heads: what speaks of no logit is affine, so it is decided and certified like all that."""

from dataclasses import replace
from fractions import Fraction
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conspec.encodings.query import Query
from conspec.specs import formula as f
from conspec.specs import parse
from conspec.specs.rewrite import Halfspace
from conspec.verifier import Proved, Trust, Unknown, Violated, verify, verify_suite
from conspec.verifier.checker import check_line
from conspec.verifier.checker_files import Bundle
from conspec.verifier.lemmas import LemmaEngine
from conspec.verifier.results import to_json
from tests import oracle, spaces
from tests.bundles import write_skewed

modest = settings(
    max_examples=80, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)


@st.composite
def concept_queries(draw: st.DrawFn) -> Query:
    """Formulas of comparisons of concepts, over ReLU heads of one or two hidden layers."""
    scores = draw(spaces.spaces(depth=st.integers(1, 2)))
    concept = st.sampled_from(scores.concepts)
    values = st.builds(
        lambda name, factor, constant: f.Linear(((factor, f.Score(name)),), constant),
        concept,
        st.sampled_from([Fraction(v) for v in ("1", "-1", "1/3", "2")]),
        spaces.CONSTANTS,
    )
    atoms = st.one_of(
        st.builds(f.Stronger, concept, concept),
        st.builds(f.Compare, values, st.sampled_from(list(f.Relation)), values),
    )
    body = st.recursive(
        atoms,
        lambda parts: st.one_of(
            st.builds(f.Not, parts),
            st.builds(f.Implies, parts, parts),
            st.lists(parts, min_size=2, max_size=3).map(lambda found: f.Or(tuple(found))),
            st.lists(parts, min_size=2, max_size=3).map(lambda found: f.AtLeast(2, tuple(found))),
        ),
        max_leaves=8,
    )
    return spaces.query(scores, draw(body), draw(spaces.boxes(scores.dimension)))


@modest
@given(concept_queries())
def test_specs_of_concepts_alone_are_certified(query: Query) -> None:
    verdict = verify(query)
    assert query.is_affine
    assert not isinstance(verdict, Unknown)
    assert isinstance(verdict, Proved) is oracle.decide(query)
    if isinstance(verdict, Proved):
        assert verdict.trust is Trust.CERTIFIED
        assert verdict.certificate is not None
    elif isinstance(verdict, Violated):
        assert oracle.refuted(query, verdict.witness)


@modest
@given(concept_queries())
def test_the_lemma_engine_alone_agrees(query: Query) -> None:
    found = LemmaEngine(query.space, query.region).decide(query, query.violation, 20.0)
    assert isinstance(found, Proved) is oracle.decide(query)
    assert not isinstance(found, Unknown)


def test_a_logit_of_a_relu_head_is_no_row_over_the_embedding() -> None:
    one = ([[1.0]], [0.0])
    scores = spaces.space(one, one, one)
    query = spaces.query(scores, "logit(x) > 0", spaces.box_of([-1], [1]))
    assert not query.is_affine
    assert replace(query, spec=replace(query.spec, body=f.Constant(True))).is_affine
    (literal,) = scores.literals(query.violation)
    assert isinstance(literal, Halfspace)
    with pytest.raises(ValueError, match="no affine function"):
        scores.row_over_z(literal)


BODIES = (
    "predict({c}) => {a} > {b}",
    "logit({c}) >= score({a}) + 0.3 => {a} > {b} or predict({c})",
    "not ({a} > {b} and score({b}) > 0.2 and score({a}) < 0.3)",
)


def test_the_checker_accepts_each_certificate_on_a_relu_head(tmp_path: Path) -> None:
    lens = write_skewed(tmp_path / "lens", hidden=True)
    triples = [
        (label, a, b)
        for label in ("truck", "bird")
        for a, b in permutations(("wheels", "wings", "fur"), 2)
    ]
    specs = [
        f"spec s{number}_{index}_{scale}: forall x in focus({label}, gamma={scale}): "
        + body.format(c=label, a=a, b=b)
        for number, (label, a, b) in enumerate(triples)
        for index, body in enumerate(BODIES)
        for scale in (1, 3, 8)
    ]
    bundle = Bundle(lens.root)
    stages = set()
    for result in verify_suite(parse("\n".join(specs)), lens):
        if isinstance(result.verdict, Proved) and result.verdict.certificate:
            assert check_line(to_json(result, lens), bundle) == "proof"
            stages.add(result.decided_by)
    assert stages >= {"screen", "ascent"}
