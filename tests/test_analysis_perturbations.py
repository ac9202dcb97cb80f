"""Perturbations grow with their strength, and survival is counted as it is defined."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conspec.analysis.pathways import LastLayer, pathways
from conspec.analysis.perturbations import STRENGTHS, Family, Kind, perturbed, study
from conspec.analysis.predicates import explain
from conspec.analysis.rules import PAPER, learn
from conspec.analysis.tower import tower_classifier
from conspec.cli.inputs import SHIPPED
from conspec.lens import Lens
from conspec.lens.emoji10 import load_vlm, thumbnails
from conspec.lens.vlm import OpenClip
from conspec.report.perturbations import survival_figure, survival_rows, survival_table
from conspec.specs.errors import BadUsage
from tests.bundles import write_tiny

TIGHT = replace(PAPER, quantile=Fraction(1, 3))


def pixels(picture: Image.Image) -> Any:
    return np.asarray(picture).astype(float)


@pytest.fixture(scope="module")
def some() -> list[Image.Image]:
    return thumbnails([3, 400, 900])


@pytest.mark.parametrize("kind", list(Kind))
def test_stronger_means_farther(kind: Kind, some: list[Image.Image]) -> None:
    assert list(STRENGTHS[kind]) == sorted(set(STRENGTHS[kind]))
    assert STRENGTHS[kind][0] > 0
    for place, picture in enumerate(some):
        far = [
            np.abs(pixels(perturbed(picture, kind, s, f"{place}")) - pixels(picture)).mean()
            for s in (0.0, *STRENGTHS[kind])
        ]
        assert far[0] == 0
        assert far[1] > 0
        assert far == sorted(far)


@pytest.mark.parametrize("kind", list(Kind))
def test_the_name_of_a_picture_seeds_what_is_random(kind: Kind, some: list[Image.Image]) -> None:
    def drawn(name: str) -> Any:
        return pixels(perturbed(some[0], kind, STRENGTHS[kind][2], name))

    assert (drawn("a") == drawn("a")).all()
    random = kind in (Kind.BRIGHTNESS, Kind.NOISE, Kind.OCCLUSION)
    assert any((drawn("a") != drawn(name)).any() for name in "bcdefg") == random


def test_perturbations_are_what_they_say() -> None:
    grey = Image.fromarray(np.full((20, 40, 3), 100, np.uint8))
    lighter = [pixels(perturbed(grey, Kind.BRIGHTNESS, 0.2, name)) for name in "abcdef"]
    assert {float(found.mean()) for found in lighter} == {49.0, 151.0}
    half = Image.fromarray(np.repeat(np.array([[[0] * 3], [[200] * 3]], np.uint8), 20, axis=1))
    assert set(pixels(perturbed(half, Kind.CONTRAST, 0.4, "a")).ravel()) == {40.0, 160.0}
    red = Image.fromarray(np.full((4, 4, 3), (255, 0, 0), np.uint8))
    assert pixels(perturbed(red, Kind.HUE, 1 / 3, "a"))[0, 0].tolist() == [0, 255, 0]
    noisy = pixels(perturbed(grey, Kind.NOISE, 0.1, "a")) - 100
    assert noisy.std() == pytest.approx(25.5, rel=0.1)
    stripes = np.zeros((20, 40, 3), np.uint8)
    stripes[:, ::2] = 255
    covered = pixels(perturbed(Image.fromarray(stripes), Kind.OCCLUSION, 0.125, "a"))
    assert (np.abs(covered - 128) < 1).all(axis=2).sum() == 100
    flat = pixels(perturbed(Image.fromarray(stripes), Kind.BLUR, 0.1, "a"))
    assert np.abs(flat - 127.5)[:, 8:-8].max() < 4


def test_a_patch_grows_around_one_place(some: list[Image.Image]) -> None:
    before = np.zeros((64, 64), bool)
    for strength in STRENGTHS[Kind.OCCLUSION]:
        found = pixels(perturbed(some[1], Kind.OCCLUSION, strength, "x"))
        colour = np.rint(pixels(some[1]).mean(axis=(0, 1)))
        now = (found == colour).all(axis=2)
        assert not (before & ~now).any()
        before = now


# --- the study -----------------------------------------------------------------------------------


def mean_colours(pictures: Sequence[Image.Image]) -> Any:
    """Features that brightness changes and noise hardly does."""
    return np.stack([pixels(p).mean(axis=(0, 1)) for p in pictures]).astype(np.float32)


@pytest.fixture(scope="module")
def family() -> Family:
    # Two colours speak for each class, so that some pathways need both.
    weight = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.1], [1.0, 0.0, 1.2]])
    layer = LastLayer(weight, np.array([20.0, 0.0, 0.0]))
    sources = mean_colours(thumbnails(range(0, 998, 3)))
    predicted = layer.predicted(sources)
    rules = learn(("red", "green", "blue"), layer, (sources, predicted, predicted), TIGHT)
    return Family("colours", mean_colours, layer, rules)


def test_survival_is_counted_as_defined(family: Family) -> None:
    pictures = thumbnails(range(1000, 1040))
    names = [str(place) for place in range(40)]
    found = study(family, pictures, names)
    clean = mean_colours(pictures)
    words = family.rules.vocabulary
    weight, bias = family.layer.weight, family.layer.bias
    explained = explain(words, pathways(family.layer, clean))
    rows = [row for row in range(40) if len(explained.of(row))]
    assert found.explained == len(rows) < found.pictures == 40
    assert found.predicates == sum(len(explained.of(row)) for row in rows)
    assert len(found.rows) == sum(map(len, STRENGTHS.values()))
    before = clean[rows]
    for each in found.rows:
        z = mean_colours([perturbed(pictures[n], each.kind, each.strength, names[n]) for n in rows])
        alive = [
            [words[i].holds(z[[place]])[0] for i in explained.of(row)]
            for place, row in enumerate(rows)
        ]
        assert each.rule.count == sum(all(own) for own in alive)
        assert each.first.count == sum(own[0] for own in alive)
        assert each.predicates == np.mean([value for own in alive for value in own])
        says = [(values @ weight.T + bias).argmax(axis=1) for values in (z, before)]
        assert each.prediction.count == (says[0] == says[1]).sum()
        answers = family.rules.answers
        assert each.answer.count == (answers(z).predicted == answers(before).predicted).sum()
        assert each.rule.lower <= each.rule.count / len(rows) <= each.rule.upper
        assert each.rule.count <= each.first.count
    assert any(each.rule.count < each.first.count for each in found.rows)


def test_a_study_is_shown(family: Family) -> None:
    found = study(family, thumbnails([1000, 1001]), ["a", "b"])
    rows = survival_rows(found)
    assert rows[0][:2] == ("brightness", "0.1")
    assert len({len(row) for row in rows}) == 1
    assert survival_table(found).row_count == len(found.rows)
    drawn = survival_figure([found, found])
    assert drawn.startswith(b"\x89PNG")
    assert len(drawn) < 100_000


def test_without_predicates_there_is_no_study(family: Family) -> None:
    none = family.rules.vocabulary.supported(10**6)
    rules = type(family.rules)(family.rules.names, none, (), family.rules.frequency, PAPER)
    with pytest.raises(BadUsage, match="no predicate explains any of 1 pictures"):
        study(Family("bare", mean_colours, family.layer, rules), thumbnails([0]), ["a"])


# --- the tower -----------------------------------------------------------------------------------


def test_the_tower_gives_the_embeddings_of_the_bundle() -> None:
    from conspec.analysis.attributions import open_encoder

    lens = Lens.load(SHIPPED["emoji10"])
    encoder = open_encoder(tower_classifier(OpenClip(*load_vlm()), lens, "tower"))
    stored = lens.embeddings.vlm[[0, 700, 1100]]
    assert np.allclose(encoder.embed(thumbnails([0, 700, 1100])), stored, atol=1e-3)
    # The head is a ridge regression: its gradient is zero on the training images.
    data = lens.embeddings
    z = data.vlm[~data.heldout].astype(np.float64)
    weight = encoder.last.weight.detach().double().numpy()
    bias = encoder.last.bias.detach().double().numpy()
    residual = z @ weight.T + bias - np.eye(10)[data.label[~data.heldout]]
    centred = z - z.mean(axis=0)
    ridge = 1e-2 * np.trace(centred.T @ centred) / z.shape[1]
    scale = np.abs(centred).T @ np.abs(residual)
    assert np.abs(centred.T @ residual + ridge * weight.T).max() < 1e-5 * scale.max()
    assert np.abs(residual.mean(axis=0)).max() < 1e-6
    held = encoder.last(encoder.last.weight.new_tensor(data.vlm[data.heldout])).argmax(1).numpy()
    assert (held == data.label[data.heldout]).mean() > 0.7


def test_a_tower_of_unknown_preparation_is_refused(tmp_path: Any) -> None:
    class Visual:
        preprocess_cfg = None

    class Model:
        visual = Visual()

    class Fake:
        model = Model()

    fake: Any = Fake()
    with pytest.raises(BadUsage, match="prepares pictures in a way"):
        tower_classifier(fake, write_tiny(tmp_path / "tiny"), "fake")
