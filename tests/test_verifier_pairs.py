"""All concept pairs as matrices say what the queries say one by one."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from conspec.encodings.network import Affine
from conspec.encodings.query import Query, queries_of, space_of
from conspec.encodings.regions import focus_box
from conspec.lens import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadRegion
from conspec.verifier.certificate import Certificate
from conspec.verifier.checker import check_line
from conspec.verifier.checker_files import Bundle
from conspec.verifier.decide import verify, verify_suite
from conspec.verifier.pairs import PairVerdicts, verify_pairs
from conspec.verifier.results import Result, to_json
from conspec.verifier.verdict import Proved, Trust, Violated
from conspec.verifier.weakest import weakest_pairs
from tests.bundles import write_random, write_skewed

SCALES = tuple(Fraction(text) for text in ("0", "0.2", "0.7", "1.5", "3"))


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Lens:
    return write_random(tmp_path_factory.mktemp("pairs") / "bundle", seed=4, signed=False)


@pytest.fixture(scope="module")
def found(lens: Lens) -> list[PairVerdicts]:
    return list(verify_pairs(lens, space_of(lens), SCALES))


def test_each_pair_has_the_verdict_of_its_query(lens: Lens, found: list[PairVerdicts]) -> None:
    space = space_of(lens)
    specs, words = [], []
    for verdicts in found:
        assert not (verdicts.proved & verdicts.violated).any()
        for scale, pair in np.ndindex(verdicts.proved.shape):
            specs.append(verdicts.spec(scale, pair, space))
            proved, violated = verdicts.proved[scale, pair], verdicts.violated[scale, pair]
            words.append("proved" if proved else "violated" if violated else "open")
    results = verify_suite(f.Suite(tuple(specs)), lens)
    for spec, word, result in zip(specs, words, results, strict=True):
        expected = {Proved: "proved", Violated: "violated"}[type(result.verdict)]
        assert word in (expected, "open"), spec.name
    assert {"proved", "violated"} <= set(words)
    assert words.count("open") <= len(words) / 20


def test_each_certificate_passes_the_checker(lens: Lens, found: list[PairVerdicts]) -> None:
    space, bundle = space_of(lens), Bundle(lens.root)
    with_premise = 0
    for verdicts in found:
        for scale, pair in np.argwhere(verdicts.proved):
            certificate = verdicts.certificate(int(scale), int(pair))
            (lemmas,) = certificate.parts
            assert isinstance(lemmas, tuple)
            with_premise += len(lemmas[0].terms) > 1
            assert check_line(_line(verdicts, (scale, pair), certificate, lens), bundle) == "proof"
        for scale, pair in np.argwhere(verdicts.violated):
            query = _query(verdicts.spec(int(scale), int(pair), space), lens)
            point = verdicts.counterexample(int(scale), int(pair), lens)
            assert focus_box(lens, verdicts.label, SCALES[scale]).contains(point)
            assert query.margin(point)[0]
            with pytest.raises(ValueError, match="only a proved pair"):
                verdicts.certificate(int(scale), int(pair))
    assert with_premise > 0


def _line(
    verdicts: PairVerdicts, place: tuple[int, int], certificate: Certificate, lens: Lens
) -> dict[str, object]:
    spec = verdicts.spec(int(place[0]), int(place[1]), space_of(lens))
    proof = Proved(Trust.CERTIFIED, certificate=certificate)
    return to_json(Result(spec, "auto", proof, 0.0, None, "pairs"), lens)


def _query(spec: f.ForAll, lens: Lens) -> Query:
    (query,) = queries_of(spec, lens, space_of(lens))
    return query


def test_a_relu_head_is_refused(tmp_path: Path) -> None:
    lens = write_skewed(tmp_path / "relu", hidden=True)
    with pytest.raises(BadRegion, match="affine heads only"):
        next(verify_pairs(lens, space_of(lens), SCALES))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(2, 3, 1), (30, 7, 5), (150, 3, 40)])
def test_the_weakest_pairs_are_the_weakest(dtype: torch.dtype, size: tuple[int, int, int]) -> None:
    concepts, classes, dimensions = size
    chance = torch.Generator().manual_seed(3)
    rows = torch.randn(concepts, dimensions, generator=chance, dtype=dtype)
    offsets = torch.randn(concepts, generator=chance, dtype=dtype)
    means = torch.rand(classes, dimensions, generator=chance, dtype=dtype)
    deviations = torch.rand(classes, dimensions, generator=chance, dtype=dtype)
    count = min(10, concepts * (concepts - 1) // 2)
    weakest = weakest_pairs((rows, offsets), means, deviations, count)
    wide = rows.double(), offsets.double(), means.double(), deviations.double()
    scores = wide[0] @ wide[2].T + wide[1][:, None]
    slope = (wide[0][:, None] - wide[0]).abs() @ wide[3].T
    exact = (scores[:, None] - scores) / slope  # [a, b, class], negative where b is stronger
    upper = exact.abs()[torch.triu_indices(concepts, concepts, 1).unbind()]
    expected = upper.sort(0).values[:count].T
    torch.testing.assert_close(
        weakest.scales.double(), expected, rtol=2e-3, atol=1e-4, check_dtype=False
    )
    for place in range(classes):
        own = exact[weakest.stronger[place], weakest.weaker[place], place]
        # A certified lower bound: never above the exact scale of the pair that is named.
        assert (weakest.scales[place].double() <= own).all()


def test_pairs_that_are_too_close_to_call_have_scale_zero() -> None:
    rows = torch.tensor([[1.0, 2.0], [1.0, 2.0], [4.0, 0.0]])
    ones = torch.ones(1, 2)
    found = weakest_pairs((rows, torch.zeros(3)), ones, ones, 5)
    assert found.scales[0, 0] == 0
    assert torch.isinf(found.scales[0, 3:]).all()


def test_verify_agrees_at_a_point_region(lens: Lens) -> None:
    """At scale 0 the box is a point, so every pair is decided by arithmetic alone."""
    (first, *_) = verify_pairs(lens, space_of(lens), (Fraction(0),))
    for pair in range(len(first.pairs)):
        verdict = verify(_query(first.spec(0, pair, space_of(lens)), lens))
        assert first.open[0, pair] or first.proved[0, pair] == isinstance(verdict, Proved)


def test_weights_that_are_no_floats_are_left_to_the_others(lens: Lens) -> None:
    """The difference of two rounded thirds can be off by more than all of it."""
    space = space_of(lens)
    weight = space.concept_map.weight.astype(object)
    weight[0, 0] = Fraction(1, 3)
    other = replace(space, concept_map=Affine(weight, space.concept_map.bias))
    with pytest.raises(BadRegion, match="weights that are floats"):
        next(verify_pairs(lens, other, SCALES))
