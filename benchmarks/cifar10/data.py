"""CIFAR-10 as tar files of JPEGs, under RIVAL10's class names, and what may be said of it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from conspec.lens.images import ImageSet, Picture, read_tar
from conspec.specs.errors import BadUsage

#: RIVAL10 calls three of CIFAR-10's classes by other names.
RENAMED = {"airplane": "plane", "automobile": "car", "horse": "equine"}
#: RIVAL10's names in the order of CIFAR-10's, which is that of every CIFAR-10 model's logits.
CLASSES = (
    "plane", "car", "bird", "cat", "deer", "dog", "frog", "equine", "ship", "truck",
)  # fmt: skip


def open_split(data: Path, split: str, per_class: int, seed: int) -> ImageSet:
    """Pictures of the "train" or "test" split, drawn at random, in the archive's order.

    Args:
        data: The folder with ``cifar10-train.tar`` and ``cifar10-test.tar``.
        split: Which of the two.
        per_class: How many pictures of each class.
        seed: Of the draw.

    Raises:
        BadFile: the archive is missing or damaged.
        BadUsage: it has too few pictures of a class.
    """
    path = data / f"cifar10-{split}.tar"
    random = np.random.default_rng(seed)
    of_class: dict[str, list[Picture]] = {name: [] for name in CLASSES}
    for picture in read_tar(path).pictures:
        label = RENAMED.get(str(picture.label), str(picture.label))
        of_class[label].append(replace(picture, label=label))
    chosen: list[Picture] = []
    for name, pictures in of_class.items():
        if len(pictures) < per_class:
            raise BadUsage(f"{path}: has {len(pictures)} pictures of {name}, not {per_class}")
        order = np.sort(random.permutation(len(pictures))[:per_class])
        chosen += [pictures[index] for index in order]
    return ImageSet(f"CIFAR-10 {split}, {per_class} of each class", CLASSES, tuple(chosen))


def draw_attributes(
    labels: npt.NDArray[np.int64],
    frequencies: Mapping[str, Mapping[str, float]],
    concepts: tuple[str, ...],
    seed: int,
) -> npt.NDArray[np.bool_]:
    """Attributes for each picture, drawn with the frequencies of its class: bool [N, M].

    CIFAR-10 has no attribute labels. What is drawn is true of the class as a whole, not of the
    picture, so a model trained on it learns how often a class shows an attribute.
    """
    table = [[frequencies[name].get(concept, 0.0) for concept in concepts] for name in CLASSES]
    shares = np.array(table)[labels]
    drawn: npt.NDArray[np.bool_] = np.random.default_rng(seed).random(shares.shape) < shares
    return drawn
