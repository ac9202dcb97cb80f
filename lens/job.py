"""From the settings of a lens to everything it is made from, opened and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL.Image import Image

from conspec.lens.attributes import is_per_class, per_image, relevance
from conspec.lens.config import LensConfig
from conspec.lens.encoders import Classifier, load_classifier, split
from conspec.lens.images import Attributes, ImageSet, Picture, open_images
from conspec.lens.preprocess import Preprocess
from conspec.lens.vlm import OpenClip, VisionLanguageModel, load_vlm
from conspec.specs.errors import BadFile, BadUsage


@dataclass(frozen=True)
class Job:
    """Everything that a bundle is made from, opened and checked.

    Attributes:
        config: the settings.
        images: training and held-out images.
        heldout: bool [N].
        classes: in the order of the logits.
        concepts: the concepts.
        classifier: the vision model, split.
        vlm: the vision-language model.
        relevance: for each concept the classes it is relevant for, where a table says so.
    """

    config: LensConfig
    images: ImageSet
    heldout: npt.NDArray[np.bool_]
    classes: tuple[str, ...]
    concepts: tuple[str, ...]
    classifier: Classifier
    vlm: VisionLanguageModel
    relevance: Mapping[str, frozenset[str]] = field(default_factory=dict)


def open_job(config: LensConfig) -> Job:
    """Open everything that a configuration names.

    Raises:
        ConspecError: something is missing, damaged or does not fit.
    """
    images, heldout = open_both(config)
    classes = config.classes or images.classes
    if unknown := sorted({p.label for p in images.pictures if p.label} - set(classes)):
        raise BadFile(f"{images.name}: class {unknown[0]!r} is not one of {', '.join(classes)}")
    images, relevant = _with_attributes(config, images, classes)
    concepts = config.concepts or (images.attributes.names if images.attributes else ())
    concepts = concepts or tuple(relevant)
    if not concepts:
        raise BadUsage("name the concepts: these images come with no attributes")
    classifier = load_classifier(config, len(classes))
    vlm = load_vlm(config.vlm, config.vlm_checkpoint, config.device)
    return Job(config, images, heldout, classes, concepts, classifier, vlm, relevant)


def _with_attributes(
    config: LensConfig, images: ImageSet, classes: tuple[str, ...]
) -> tuple[ImageSet, Mapping[str, frozenset[str]]]:
    """The images with the attributes of a per-image table, or a per-class table's relevance."""
    if config.attributes is None:
        return images, {}
    table = Path(config.attributes)
    if is_per_class(table):
        return images, relevance(table, classes)
    return replace(images, attributes=per_image(table, images)), {}


def open_both(config: LensConfig) -> tuple[ImageSet, npt.NDArray[np.bool_]]:
    """The images, and which of them are held out, bool [N].

    Raises:
        BadUsage: the share is not from 0 to below 1.
        BadFile: an image source is damaged.
    """
    images = open_images(config.images, config.download)
    try:
        share = float(config.heldout)
    except ValueError:
        return _joined(images, open_images(config.heldout, config.download))
    if not 0 <= share < 1:
        raise BadUsage(f"heldout must be a share from 0 to below 1, not {config.heldout}")
    return images, stratified([p.label for p in images.pictures], share, config.seed)


def stratified(labels: Sequence[str | None], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """A random choice of images, bool [N]: the same share of each class, rounded up or down.

    Never all images of a class: one of them is left to train on.
    """
    random = np.random.default_rng(seed)
    numbers = {label: k for k, label in enumerate(dict.fromkeys(labels))}
    # Classes in random order, so that chance decides which of them are rounded up.
    group = random.permutation(len(numbers))[[numbers[label] for label in labels]]
    order = random.permutation(len(labels))
    order = order[np.argsort(group[order], kind="stable")]
    # Along that order, an image is chosen whenever the share adds up to one more.
    steps = np.floor(np.arange(len(labels) + 1) * share + 0.5)
    chosen = np.zeros(len(labels), dtype=np.bool_)
    chosen[order] = np.diff(steps) > 0
    first = order[np.unique(group[order], return_index=True)[1]]
    chosen[first] &= np.bincount(group, ~chosen)[group[first]] > 0
    return chosen


def _joined(train: ImageSet, test: ImageSet) -> tuple[ImageSet, npt.NDArray[np.bool_]]:
    if (train.attributes is None) != (test.attributes is None):
        raise BadUsage(f"only one of {train.name} and {test.name} comes with attributes")
    attributes = None
    if train.attributes is not None and test.attributes is not None:
        if train.attributes.names != test.attributes.names:
            raise BadUsage(f"{train.name} and {test.name} come with different attributes")
        both = np.concatenate([train.attributes.values, test.attributes.values])
        attributes = Attributes(train.attributes.names, both)
    name = f"{train.name}, held out: {test.name}"
    joined = ImageSet(name, train.classes, train.pictures + test.pictures, attributes)
    return joined, np.arange(len(joined.pictures)) >= len(train.pictures)


def emoji_job() -> Job:
    """Emoji-10: the images and models that ship with conspec."""
    from conspec.lens import emoji10

    images = emoji10.load_images()
    names, table = emoji10.attribute_table()
    drawn = zip(images.names, images.houses, images.labels, strict=True)
    pictures = tuple(
        Picture(f"{name} ({house})", images.classes[label], partial(_emoji, index))
        for index, (name, house, label) in enumerate(drawn)
    )
    shown = Attributes(names, table.astype(np.int8))
    # 64-pixel tiles averaged 2×2 are the classifier's 32 pixels; the VLM sees all 64.
    halved = Preprocess(32, 32, interpolation="box")
    return Job(
        config=LensConfig(images="emoji10", model="emoji10", vlm="emoji10", name="emoji10"),
        images=ImageSet("emoji10", images.classes, pictures, shown),
        heldout=images.split == "heldout",
        classes=images.classes,
        concepts=names,
        classifier=split(emoji10.load_classifier(), halved, "emoji10"),
        vlm=OpenClip(*emoji10.load_vlm()),
    )


def _emoji(index: int) -> Image:
    from conspec.lens import emoji10

    return emoji10.thumbnails([index])[0]
