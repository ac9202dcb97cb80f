"""The pieces of the CIFAR-10 lens, on a made-up archive of coloured squares."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conspec.benchmarks.cifar10 import vlm
from conspec.benchmarks.cifar10.data import CLASSES, RENAMED, draw_attributes, open_split
from conspec.lens.vlm import load_vlm
from conspec.specs.errors import BadUsage
from conspec.specs.suites import rival10_concepts, rival10_frequencies, rival10_relevance

FOLDERS = {new: old for old, new in RENAMED.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    with tarfile.open(folder / "cifar10-train.tar", "w") as archive:
        for k, label in enumerate(CLASSES):
            for index in range(4):
                stream = io.BytesIO()
                Image.new("RGB", (32, 32), (20 * k, 60 * index, 90)).save(stream, "JPEG")
                entry = tarfile.TarInfo(f"train/{FOLDERS.get(label, label)}/{index:04}.jpg")
                entry.size = stream.tell()
                stream.seek(0)
                archive.addfile(entry, stream)
    return folder


def test_classes_are_rival10s() -> None:
    assert set(CLASSES) == set(rival10_relevance()) == set(rival10_frequencies())


def test_a_split_is_drawn_by_class_and_renamed(data: Path) -> None:
    found = open_split(data, "train", 3, seed=1)
    assert [p.label for p in found.pictures] == [name for name in CLASSES for _ in range(3)]
    assert found.pictures[0].id.startswith("train/airplane/")
    again = open_split(data, "train", 3, seed=1)
    assert [p.id for p in found.pictures] == [p.id for p in again.pictures]
    with pytest.raises(BadUsage, match="4 pictures of plane, not 5"):
        open_split(data, "train", 5, seed=1)


def test_attributes_have_the_frequencies_of_their_class() -> None:
    labels = np.full(4000, CLASSES.index("truck"))
    shown = draw_attributes(labels, rival10_frequencies(), tuple(rival10_concepts()), seed=2)
    shares = dict(zip(rival10_concepts(), shown.mean(axis=0), strict=True))
    assert shares["beak"] == 0
    # 4,000 draws: 0.05 is more than six standard deviations of a share.
    assert shares["tall"] == pytest.approx(0.71, abs=0.05)


def test_shifting_and_mirroring_keeps_the_pixels() -> None:
    ramp = torch.arange(32.0).expand(5, 3, 32, 32) / 32
    moved = vlm._moved(ramp, torch.Generator().manual_seed(3))
    assert moved.shape == ramp.shape
    steps = (moved[..., 1:] - moved[..., :-1]).abs()
    assert torch.allclose(steps, torch.full_like(steps, 1 / 32))


def test_a_model_is_trained_and_loads_as_any_other(data: Path, tmp_path: Path) -> None:
    pictures = open_split(data, "train", 4, seed=1).pictures
    labels = np.repeat(np.arange(10), 4)
    concepts = tuple(rival10_concepts())
    pixels = np.stack([np.asarray(picture.load()) for picture in pictures])
    shown = draw_attributes(labels, rival10_frequencies(), concepts, seed=2)
    material = vlm.lessons(pixels, labels, concepts, shown)
    assert material.words[:2] == ("plane", "car")
    assert material.fixed == 28
    config, weights = vlm.train(tmp_path, material, seed=4, steps=2)
    model = load_vlm(str(config), str(weights))
    assert model.encode_image([picture.load() for picture in pictures[:2]]).shape == (2, 64)
    assert model.encode_text(["a photo of a truck"]).shape == (1, 64)
