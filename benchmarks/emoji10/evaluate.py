"""Measures the shipped models on the held-out family, from the shipped files alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from conspec.benchmarks.emoji10 import classifier
from conspec.lens import emoji10
from conspec.lens.captions import directions


def evaluate(target: Path) -> dict[str, object]:
    """Measure everything, write metrics.json into `target` and return it."""
    data = emoji10.load_images()
    held = data.split == "heldout"
    net = emoji10.load_classifier()
    predicted = classifier.predict(net, data).numpy()
    images = _image_vectors(len(data.labels))
    guessed = (images @ _directions(data.classes).T).argmax(axis=1)
    metrics: dict[str, object] = {
        "images": {"train": int((~held).sum()), "heldout": int(held.sum())},
        "classifier": _accuracy(predicted, data, held),
        "vlm_zero_shot": _accuracy(guessed, data, held),
        "concept_auc": _concept_auc(images, held),
    }
    text = json.dumps(metrics, indent=1) + "\n"
    (target / "metrics.json").write_text(text, encoding="utf-8")
    return metrics


def auc(scores: NDArray[np.float64], true: NDArray[np.bool_]) -> float:
    """Return the share of (true, false) pairs whose scores are in order; ties count half."""
    yes, no = scores[true][:, None], scores[~true][None, :]
    return float((yes > no).mean() + (yes == no).mean() / 2)


def _accuracy(
    predicted: NDArray[np.int64], data: emoji10.EmojiImages, held: NDArray[np.bool_]
) -> dict[str, object]:
    right = predicted == data.labels
    return {
        "train": _round(right[~held].mean()),
        "heldout": _round(right[held].mean()),
        "heldout_by_class": {
            name: _round(right[held & (data.labels == label)].mean())
            for label, name in enumerate(data.classes)
        },
    }


def _concept_auc(images: NDArray[np.float64], held: NDArray[np.bool_]) -> dict[str, object]:
    attributes, table = emoji10.attribute_table()
    cosines = images @ _directions(attributes).T
    by_name = {name: auc(cosines[held, k], table[held, k]) for k, name in enumerate(attributes)}
    return {
        "heldout_mean": _round(np.mean(list(by_name.values()))),
        "heldout": {name: _round(value) for name, value in by_name.items()},
    }


def _image_vectors(count: int) -> NDArray[np.float64]:
    """The unit image embeddings of all tiles at 64 px, [count, d]."""
    model, preprocess, _ = emoji10.load_vlm()
    batch = torch.stack([preprocess(tile) for tile in emoji10.thumbnails(range(count))])
    with torch.inference_mode():
        vectors = functional.normalize(model.encode_image(batch), dim=-1)
    return vectors.double().numpy()


def _directions(words: tuple[str, ...]) -> NDArray[np.float64]:
    """The unit direction of each word, [len(words), d], as the lens takes it."""
    model, _, tokenizer = emoji10.load_vlm()

    def encode(texts: list[str]) -> NDArray[np.float32]:
        with torch.inference_mode():
            vectors: NDArray[np.float32] = model.encode_text(tokenizer(texts)).numpy()
        return vectors

    return directions(words, encode).astype(np.float64)


def _round(value: float | np.floating[Any]) -> float:
    return round(float(value), 4)
