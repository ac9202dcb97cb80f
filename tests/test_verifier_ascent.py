"""The ascent on multipliers: what it settles is held to the oracle and to exact arithmetic."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conspec.encodings.exact import vector
from conspec.encodings.images import Image, Shape
from conspec.encodings.query import Query
from conspec.encodings.regions import Box, ConvexRegion
from conspec.specs.errors import BadUsage
from conspec.specs.rewrite import All, Halfspace, Literal, Nnf, Some, literals
from conspec.verifier.batch import Screened, screen
from conspec.verifier.conjunctions import BRANCHES, branches, combined, short
from conspec.verifier.device import Device
from conspec.verifier.screen import ranges_of, rows_of
from conspec.verifier.verdict import Proved, Violated
from tests import oracle, spaces

modest = settings(
    max_examples=80, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
SIZES = spaces.SIZES.map(lambda value: float(np.float32(value)))
QUERIES = st.one_of(
    spaces.contested(spaces.spaces()),
    spaces.queries(spaces.spaces()),
    spaces.contested(spaces.spaces(weights=SIZES)),
)
DEVICES = [None, Device("cpu"), Device("cpu", single=True)]
NAMES = ["numpy", "float64", "float32"]


def ascended(query: Query, device: Device | None = None) -> Screened:
    (found,) = screen([query], points=False, ascent=True, device=device)
    return found


def impossible(query: Query, terms: list[tuple[Literal, Fraction]]) -> bool:
    """Whether a weighted sum is below zero on the whole region, by exact arithmetic alone."""
    total: dict[int, Fraction] = {}
    constant, strict = Fraction(0), False
    for literal, factor in terms:
        assert isinstance(literal, Halfspace)
        row, shift = query.space.row(literal)
        for place, value in enumerate(row.fractions()):
            total[place] = total.get(place, Fraction(0)) + factor * value
        constant += factor * shift
        strict |= literal.strict
    lower, upper = query.region.outer
    ends = [(Fraction(low), Fraction(high)) for low, high in zip(lower, upper, strict=True)]
    if isinstance(query.region, Box) and query.space.head.is_affine:
        box = query.region
        ends = list(zip(box.lower.fractions(), box.upper.fractions(), strict=True))
    highest = constant + sum(max(total[i] * low, total[i] * up) for i, (low, up) in enumerate(ends))
    return highest < 0 or (strict and highest == 0)


@modest
@given(QUERIES, st.sampled_from(DEVICES))
def test_what_the_ascent_settles_is_so(query: Query, device: Device | None) -> None:
    found = ascended(query, device)
    if isinstance(found.verdict, Proved):
        assert oracle.decide(query) is True
    elif isinstance(found.verdict, Violated):
        assert oracle.refuted(query, found.verdict.witness)


@modest
@given(spaces.contested(spaces.spaces(depth=st.just(0))), st.sampled_from(DEVICES))
def test_its_lemmas_are_true_in_exact_arithmetic(query: Query, device: Device | None) -> None:
    found = ascended(query, device)
    if not isinstance(found.verdict, Proved):
        return
    certificate = found.verdict.certificate
    assert certificate is not None
    (lemmas,) = certificate.parts
    assert isinstance(lemmas, tuple)
    known = literals(query.constrained)
    for lemma in lemmas:
        assert impossible(query, [(known[term.literal], term.multiplier) for term in lemma.terms])


@modest
@given(st.sampled_from(list(Shape)).flatmap(lambda s: spaces.images(spaces.spaces(), s)))
def test_images_too(query: Query) -> None:
    found = ascended(query)
    if isinstance(found.verdict, Proved):
        assert oracle.decide(query) is True
    elif isinstance(found.verdict, Violated):
        assert oracle.refuted(query, found.verdict.witness)


@modest
@given(QUERIES, st.sampled_from(DEVICES[1:]))
def test_ranges_on_a_device_contain_the_exact_values(query: Query, device: Device) -> None:
    found = [lit for lit in literals(query.violation) if isinstance(lit, Halfspace)]
    rows = rows_of(query.space, found)
    near, far = (ranges_of(query.space, rows, [query.region], d) for d in (None, device))
    for literal in rows.literals:
        exact = [query.space.row(literal)]
        if not query.space.head.is_affine:
            continue
        row, constant = exact[0]
        low, high = query.region.lowest(row) + constant, query.region.support(row) + constant
        for known in (near, far):
            (down,), (up,) = known.bounds(literal)
            assert down == -np.inf or Fraction(down) <= low
            assert up == np.inf or Fraction(up) >= high


def triangle(offset: str) -> Query:
    """``a + b ≤ 1`` and ``a, b ≥ offset`` in the unit square: possible up to an offset of 1/2."""
    body = f"not (1 >= score(a) + score(b) and score(a) >= {offset} and score(b) >= {offset})"
    return spaces.query(spaces.identity(2), body, spaces.box_of([0, 0], [1, 1]))


@pytest.mark.parametrize("device", DEVICES, ids=NAMES)
def test_it_finds_multipliers_where_no_single_literal_will_do(device: Device | None) -> None:
    assert isinstance(ascended(triangle("0.51"), device).verdict, Proved)
    assert isinstance(ascended(triangle("0.49"), device).verdict, Violated)
    assert ascended(triangle("0.5"), device).verdict is None  # a tie is not for floats
    assert ascended(triangle("0.51"), device).stage == "ascent"


def test_a_verdict_needs_every_branch() -> None:
    """One branch refuted and one left open is no proof."""
    first = "(1 >= score(a) + score(b) and score(a) >= 0.6 and score(b) >= 0.6)"
    tie = "(1 >= score(a) + score(b) and score(a) >= 0.5 and score(b) >= 0.5)"
    region = spaces.box_of([0, 0], [1, 1])
    query = spaces.query(spaces.identity(2), f"not ({first} or {tie})", region)
    assert ascended(query).verdict is None
    assert isinstance(ascended(spaces.query(query.space, f"not {first}", region)).verdict, Proved)


def test_a_relu_head_is_bounded_by_the_box_of_its_neurons() -> None:
    """``x = max(a, 0)`` and ``a ≥ 1`` on [−1, 2]; the conclusion needs both concepts together."""
    one = ([[1.0]], [0.0])
    scores = spaces.space(([[1.0], [-1.0]], [0.0, 0.5]), one, one)
    region = spaces.box_of([-1], [2])
    query = spaces.query(scores, "not (score(a) >= 0.3 and score(b) >= 0.3)", region)
    assert isinstance(ascended(query).verdict, Proved)
    assert oracle.decide(query) is True


def test_branches_are_those_of_the_disjunctive_normal_form() -> None:
    a, b, c = (Halfspace((), Fraction(i), strict=False) for i in range(3))
    nnf: Nnf = All((a, Some((b, c))))
    assert branches(nnf) == [(a, b), (a, c)]
    assert branches(Some((a, All((b, c))))) == [(a,), (b, c)]
    wide = Some(tuple(Halfspace((), Fraction(i), strict=False) for i in range(BRANCHES + 1)))
    assert branches(wide) is None
    assert branches(All((Some((a, b)),) * 6)) is None


@modest
@given(spaces.contested(spaces.spaces(depth=st.just(0))), st.data())
def test_weighted_sums_are_known_up_to_their_error(query: Query, data: st.DataObject) -> None:
    found = [lit for lit in literals(query.violation) if isinstance(lit, Halfspace)]
    if not found:
        return
    rows = rows_of(query.space, found)
    count = len(rows.literals)
    drawn = data.draw(st.lists(st.floats(0, 2.0**60), min_size=count, max_size=count))
    (weights,) = short(np.array([drawn]))
    sums, constants, (off, shift) = combined(rows, weights[None])
    exact = [query.space.row(literal) for literal in rows.literals]
    for place in range(sums.shape[1]):
        total = sum(
            Fraction(w) * row.fractions()[place]
            for w, (row, _) in zip(weights.tolist(), exact, strict=True)
        )
        assert abs(Fraction(float(sums[0, place])) - total) <= Fraction(float(off[0, place]))
    total = sum(Fraction(w) * c for w, (_, c) in zip(weights.tolist(), exact, strict=True))
    assert abs(Fraction(float(constants[0])) - total) <= Fraction(float(shift[0]))


def test_short_multipliers() -> None:
    values = np.array([[1.0, 1 / 3, 1e300, 1e-310, np.nan, np.inf, -1.0, 0.0]])
    found = short(values)[0]
    assert found[0] == 1.0
    assert found[1] == pytest.approx(1 / 3, rel=2.0**-15)
    assert found[2] == pytest.approx(1e300, rel=2.0**-15)
    assert found[3:].tolist() == [0.0] * 5
    assert float(found[1]).as_integer_ratio()[0] < 2**16


def test_many_regions_and_formulas_at_once_are_as_one_by_one() -> None:
    boxes = [spaces.box_of([0, 0], [width, 1]) for width in ("0.4", "0.8", "1", "2")]
    image = Image(vector([0, 0]), np.eye(2), Fraction(1), Shape.BALL)
    regions: list[ConvexRegion] = [*boxes, image]
    queries = [
        replace(triangle(offset), region=region)
        for region in regions
        for offset in ("0.3", "0.49", "0.51", "0.9")
    ]
    together = screen(queries, points=False, ascent=True)
    alone = [ascended(query) for query in queries]
    assert [type(one.verdict) for one in together] == [type(one.verdict) for one in alone]
    assert {type(one.verdict) for one in alone} == {Proved, Violated}
    for query, one in zip(queries, together, strict=True):
        assert oracle.decide(query) is isinstance(one.verdict, Proved)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(BadUsage, match=r"device 'cuda:99' cannot be used.*`cpu` works"):
        Device("cuda:99")
    with pytest.raises(BadUsage, match="device 'nonsense' cannot be used"):
        Device("nonsense")


def test_a_gpu_gives_the_same_verdicts() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine")
    for single in (False, True):
        device = Device("cuda", single)
        for offset, kind in (("0.51", Proved), ("0.49", Violated)):
            assert isinstance(ascended(triangle(offset), device).verdict, kind)
