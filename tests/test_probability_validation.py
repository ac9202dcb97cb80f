"""The VLM against the model: counts by hand, exact tests, and planted differences."""

import io
from dataclasses import replace
from fractions import Fraction
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binomtest, false_discovery_control

from conspec.encodings.exact import from_array
from conspec.encodings.network import Affine
from conspec.encodings.query import space_of
from conspec.lens import Lens
from conspec.lens.tables import Embeddings
from conspec.report.validation import validation_caption, validation_figure
from conspec.verifier.probability import validation
from conspec.verifier.probability.intervals import clopper_pearson
from conspec.verifier.probability.validation import mcnemar, validate
from tests.bundles import write_random, write_tiny

EMOJI = Path(__file__).parent.parent / "lens" / "emoji10" / "bundle"


def with_embeddings(lens: Lens, embeddings: Embeddings) -> Lens:
    """The same bundle with other embeddings in memory."""
    copy = Lens(lens.root, lens.hash, lens.manifest)
    copy.__dict__["embeddings"] = embeddings
    return copy


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Lens:
    """A random bundle whose VLM embeddings are noisy, with ties planted on both sides."""
    folder = tmp_path_factory.mktemp("validation")
    made = write_random(folder / "random", 1, signed=True)
    random = np.random.default_rng(6)
    vlm = made.embeddings.vlm + random.normal(size=made.embeddings.vlm.shape)
    vlm[::4, 1] = vlm[::4, 0]  # the directions are the coordinates, so this is a tie
    label = made.embeddings.label.copy()
    label[:6] = -1
    return with_embeddings(made, replace(made.embeddings, vlm=vlm.astype(np.float32), label=label))


def test_counts_are_those_of_exact_comparisons(lens: Lens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "WORK", 16 * 7)  # several steps
    found, data, space = validate(lens, 0.9), lens.embeddings, space_of(lens)
    size = len(lens.concepts)
    expected = np.zeros((4, len(lens.classes), size, size), dtype=np.int64)
    totals = np.zeros(len(lens.classes), dtype=np.int64)
    for image in np.flatnonzero(data.heldout & (data.label >= 0)).tolist():
        c = int(data.label[image])
        totals[c] += 1
        g = [Fraction(v) for v in data.vlm[image].tolist()]
        directions = [[Fraction(v) for v in row] for row in data.directions.tolist()]
        vlm = [sum(x * y for x, y in zip(row, g, strict=True)) for row in directions]
        model = space.concept_map.exact(from_array(data.z[image]))
        for a in range(size):
            for b in range(size):
                one, two = vlm[a] > vlm[b], model[a] > model[b]
                expected[:, c, a, b] += [one, two, one and not two, two and not one]
    assert (found.totals == totals).all()
    sides = (found.vlm.counts, found.model.counts, found.vlm_only, found.model_only)
    for side, counts in zip(sides, expected, strict=True):
        assert (side == counts).all()
    ties = totals[:, None] - found.vlm.counts[:, 0, 1] - found.vlm.counts[:, 1, 0]
    assert ties.any()
    low, high = clopper_pearson(int(expected[1, 1, 2, 3]), int(totals[1]), 0.9)
    assert (found.model.lower[1, 2, 3], found.model.upper[1, 2, 3]) == (low, high)


def test_comparisons_within_rounding_are_exact() -> None:
    weight = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    points = np.array([[1.0, 2.0**-60], [1.0, -(2.0**-60)], [1.0, 0.0]])
    above = validation._Side(Affine(weight, np.zeros(3)), points).above(slice(None))
    assert above[:, 1, 0].tolist() == above[:, 2, 0].tolist() == [True, False, False]
    assert above[:, 0, 1].tolist() == [False, True, False]
    assert not above[:, 1, 2].any()


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_two_sided_binomial_test(first: int, second: int) -> None:
    found = float(mcnemar(np.array([first]), np.array([second]))[0])
    total, least = first + second, min(first, second)
    tail = Fraction(sum(comb(total, k) for k in range(least + 1)), 2**total)
    assert found == pytest.approx(float(min(2 * tail, Fraction(1))), rel=1e-12)
    if total:
        assert found == pytest.approx(binomtest(first, total, 0.5).pvalue, rel=1e-9)
    else:
        assert found == 1.0


def test_holm_is_over_all_cells_off_the_diagonal(lens: Lens) -> None:
    found = validate(lens)
    raw = mcnemar(found.vlm_only, found.model_only)
    off = ~np.eye(len(lens.concepts), dtype=np.bool_)[None] & (found.totals > 0)[:, None, None]
    off = np.broadcast_to(off, raw.shape)
    smallest = float(raw[off].min())
    assert found.p_values[off].min() == pytest.approx(min(1.0, smallest * int(off.sum())))
    assert (found.p_values >= raw - 1e-15).all()
    assert (found.p_values[~off] == 1).all()
    assert false_discovery_control(raw[off]).min() <= found.p_values[off].min() + 1e-15


def test_identical_sides_never_differ(tmp_path: Path) -> None:
    tiny = write_tiny(tmp_path / "tiny")  # its map is the identity, its VLM the encoder
    found = validate(tiny)
    assert not found.vlm_only.any()
    assert not found.model_only.any()
    assert found.disagreements() == []
    assert (found.vlm.counts == found.model.counts).all()


def test_a_planted_difference_is_found(tmp_path: Path) -> None:
    tiny = write_tiny(tmp_path / "tiny")
    data = tiny.embeddings
    vlm = data.vlm.copy()
    birds = data.label == 1
    vlm[birds, 0], vlm[birds, 1] = data.vlm[birds, 1], data.vlm[birds, 0]
    # Ten held-out birds are too few for 36 cells; with all images held out there are thirty.
    everyone = np.ones_like(data.heldout)
    swapped = with_embeddings(tiny, replace(data, vlm=vlm, heldout=everyone))
    cells = validate(swapped).disagreements(0.001)
    assert {cell.label for cell in cells} == {"bird"}
    pairs = {(cell.stronger, cell.weaker): cell for cell in cells}
    swap = pairs["wings", "wheels"]
    assert (swap.vlm, swap.model, swap.vlm_only, swap.model_only) == (0.0, 1.0, 0, 30)
    assert pairs["wheels", "wings"].vlm == 1.0
    assert [cell.p_value for cell in cells] == sorted(cell.p_value for cell in cells)
    with_picture = validation_caption(validate(swapped), "bird", 0.001)
    assert f"{len(cells)} cells differ significantly" in with_picture


def test_the_sides_may_be_exchanged_and_classes_are_independent(lens: Lens) -> None:
    found = validate(lens)
    assert (mcnemar(found.vlm_only, found.model_only)
            == mcnemar(found.model_only, found.vlm_only)).all()  # fmt: skip
    data = lens.embeddings
    fewer = with_embeddings(lens, replace(data, heldout=data.heldout & (data.label != 2)))
    less = validate(fewer)
    assert less.totals.tolist() == [*found.totals[:2], 0]
    assert (less.vlm.counts[:2] == found.vlm.counts[:2]).all()
    assert (less.vlm.upper[2] == 1).all()
    assert (less.p_values[2] == 1).all()


def test_the_picture_frames_what_differs(tmp_path: Path) -> None:
    lens = Lens.load(EMOJI)
    found = validate(lens)
    plain = Image.open(io.BytesIO(validation_figure(found, "mammal"))).convert("RGB")
    p_values = found.p_values.copy()
    p_values[8, 2, 5] = 0.0
    framed = Image.open(io.BytesIO(validation_figure(replace(found, p_values=p_values), "mammal")))
    assert plain.size == framed.size
    assert plain.size[0] > plain.size[1]

    def red(picture: Image.Image) -> int:
        pixels = np.asarray(picture.convert("RGB"), dtype=np.int64)
        return int(((pixels[..., 0] > 220) & (pixels[..., 1] < 90)).sum())

    assert red(plain) == 0 < red(framed)
    assert "No cell differs" in validation_caption(found, "mammal")


def test_a_class_without_images_still_has_a_picture(lens: Lens) -> None:
    data = lens.embeddings
    found = validate(with_embeddings(lens, replace(data, heldout=data.heldout & (data.label != 2))))
    assert Image.open(io.BytesIO(validation_figure(found, lens.classes[2]))).size[0] > 500
