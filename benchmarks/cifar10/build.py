"""Builds the CIFAR-10 lens: ``python -m conspec.benchmarks.cifar10.build --data D --out DIR``.

Trains a small open_clip model (about four minutes of one core) and builds the lens bundle of a
CIFAR ResNet-20 with RIVAL10's vocabulary. The pictures and the ResNet's weights are read in
place; nothing made from them belongs in the repository, except the numbers measured.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from conspec.benchmarks.cifar10 import vlm
from conspec.benchmarks.cifar10.data import CLASSES, draw_attributes, open_split
from conspec.benchmarks.emoji10.evaluate import auc
from conspec.lens import Lens
from conspec.lens.alignment import cosines
from conspec.lens.build import build
from conspec.lens.config import LensConfig
from conspec.lens.encoders import load_classifier
from conspec.lens.images import ImageSet
from conspec.lens.job import Job
from conspec.lens.vlm import load_vlm
from conspec.specs.suites import rival10_concepts, rival10_frequencies, rival10_relevance

SEED = 10
TRAIN, TEST = 1000, 1000  # pictures of each class


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description="Build the CIFAR-10 lens.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tars and weights")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--model", default="resnet20", help="which CIFAR classifier")
    parser.add_argument("--per-class", type=int, default=TRAIN, help="training pictures")
    parser.add_argument("--heldout-per-class", type=int, default=TEST, help="test pictures")
    parser.add_argument("--steps", type=int, default=vlm.STEPS, help="of training")
    parser.add_argument("--retrain", action="store_true", help="train although weights exist")
    arguments = parser.parse_args()
    # The order of summation, and with it the weights, depends on the number of threads.
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    train = open_split(arguments.data, "train", arguments.per_class, SEED)
    test = open_split(arguments.data, "test", arguments.heldout_per_class, SEED)
    config = arguments.out / f"{vlm.NAME}.json"
    weights = config.with_suffix(".safetensors")
    if arguments.retrain or not weights.is_file():
        config, weights = vlm.train(arguments.out, _lessons(train), SEED, arguments.steps)
    settings = LensConfig(
        images=train.name,
        model=f"cifar:{arguments.model}",
        weights=str(arguments.data / "weights" / f"{arguments.model}-cifar10.safetensors"),
        vlm=str(config),
        vlm_checkpoint=str(weights),
        name="cifar10",
        batch_size=128,
    )
    lens = build(_job(settings, train, test), arguments.out / "lens", overwrite=True)
    found = json.dumps(metrics(lens), indent=1)
    (arguments.out / "metrics.json").write_text(found + "\n", encoding="utf-8")
    print(found)


def _lessons(train: ImageSet) -> vlm.Lessons:
    concepts = tuple(rival10_concepts())
    labels = np.array([CLASSES.index(str(picture.label)) for picture in train.pictures])
    pixels = np.stack([np.asarray(picture.load()) for picture in train.pictures])
    shown = draw_attributes(labels, rival10_frequencies(), concepts, SEED)
    return vlm.lessons(pixels, labels, concepts, shown)


def _job(settings: LensConfig, train: ImageSet, test: ImageSet) -> Job:
    relevance = rival10_relevance()
    pictures = train.pictures + test.pictures
    assert settings.vlm_checkpoint is not None
    return Job(
        config=settings,
        images=ImageSet(f"{train.name}, held out: {test.name}", CLASSES, pictures),
        heldout=np.arange(len(pictures)) >= len(train.pictures),
        classes=CLASSES,
        concepts=tuple(rival10_concepts()),
        classifier=load_classifier(settings, len(CLASSES)),
        vlm=load_vlm(settings.vlm, settings.vlm_checkpoint),
        relevance={
            concept: frozenset(name for name, row in relevance.items() if concept in row)
            for concept in rival10_concepts()
        },
    )


def metrics(lens: Lens) -> dict[str, object]:
    """Accuracies and, per concept, how well it separates the classes it is relevant for."""
    data, relevance = lens.embeddings, rival10_relevance()
    held = data.heldout
    mapped = lens.mapped(data.z[held])
    separated: dict[str, dict[str, float]] = {"vlm": {}, "mapped": {}}
    for place, concept in enumerate(lens.concepts):
        relevant = [k for k, name in enumerate(lens.classes) if concept in relevance[name]]
        true = np.isin(data.label[held], relevant)
        if not true.any():
            continue
        for name, vectors in (("vlm", data.vlm[held]), ("mapped", mapped)):
            separated[name][concept] = round(auc(cosines(vectors, data.directions[place]), true), 4)
    scalars = {k: v for k, v in lens.quality.items() if isinstance(v, float)}
    return {
        "images": {"train": int((~held).sum()), "heldout": int(held.sum())},
        "quality": {key: round(value, 5) for key, value in scalars.items()},
        "mean_auc": {k: round(float(np.mean(list(v.values()))), 4) for k, v in separated.items()},
        "auc": separated,
    }


if __name__ == "__main__":
    main()
