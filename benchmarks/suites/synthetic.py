"""Seeded synthetic lens bundles of any dimension, with an affine or a one-hidden-layer head.

Images are points around class means, and heads are nearest-mean classifiers (of the embedding, or
of ReLU features of it that each lean towards a class), so that classes, focus regions and
robustness mean what they do for a trained model. Concepts lean towards classes, too. The bundle is
a real one: every command works.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conspec.lens.bundle import Lens
from conspec.lens.onnx_files import affine_model, model
from conspec.lens.tables import Embeddings
from conspec.lens.write import Contents, write_bundle
from conspec.specs.errors import BadUsage

Singles = NDArray[np.float32]

CLASSES = 5
CONCEPTS = 12
PER_CLASS = 40
MAPPED = 16
"""Dimension of the embedding that concepts are measured in."""
SPREAD = 0.5
"""Standard deviation of an entry around its class mean; means have one of about 0.6."""
LARGEST = 4096


def write_synthetic(
    out: Path,
    dimension: int,
    hidden: int,
    seed: int,
    *,
    classes: int = CLASSES,
    concepts: int = CONCEPTS,
) -> Lens:
    """Write a synthetic bundle.

    Args:
        out: its folder, which must not exist.
        dimension: n of the embeddings, 2 to 4,096.
        hidden: ReLU neurons of the head's hidden layer; 0 for an affine head.
        seed: the same one gives the same bytes.
        classes: K, at least 2.
        concepts: M, at least 2.

    Raises:
        BadUsage: a size is out of range, or ``out`` exists.
    """
    sizes = {"dimensions": dimension, "classes": classes, "concepts": concepts}
    for what, size in sizes.items():
        if not 2 <= size <= LARGEST:
            raise BadUsage(f"a synthetic bundle with {size} {what}: must be 2 to {LARGEST}")
    if not 0 <= hidden <= LARGEST:
        raise BadUsage(f"a synthetic head with {hidden} hidden neurons: must be 0 to {LARGEST}")
    random = np.random.default_rng(seed)
    label = np.repeat(np.arange(classes), PER_CLASS)
    centres = np.abs(random.normal(size=(classes, dimension)))
    noise = SPREAD * random.normal(size=(len(label), dimension))
    z = np.maximum(centres[label] + noise, 0).astype(np.float32)
    head, predicted = _head(random, z, label, hidden)
    alignment, directions = _concepts(random, z, label, concepts)
    vlm = z @ alignment[0].T + alignment[1]
    names = tuple(f"concept_{place + 1}" for place in range(concepts))
    embeddings = Embeddings(
        z=z,
        label=label,
        predicted=predicted,
        heldout=np.arange(len(label)) % 4 == 0,
        vlm=vlm,
        directions=directions,
        class_directions=_unit(random.normal(size=(classes, MAPPED))),
    )
    contents = Contents(
        name=f"synthetic-{dimension}" + (f"-{hidden}" if hidden else ""),
        classes=tuple(f"class_{place + 1}" for place in range(classes)),
        concepts=names,
        head=head,
        concept_map=affine_model(
            (directions @ alignment[0]).astype(np.float32),
            (directions @ alignment[1]).astype(np.float32),
            "concepts",
        ),
        alignment=affine_model(*alignment, "mapped"),
        embeddings=embeddings,
        image_ids=tuple(f"point_{place}" for place in range(len(label))),
        thresholds=_thresholds(names, vlm, directions),
        calibration=dict.fromkeys(names, "median of the stored cosines"),
        about={"model": "synthetic", "vlm": "synthetic", "images": f"synthetic, seed {seed}"},
        quality={"model_accuracy": float((predicted == label).mean())},
        seed=seed,
    )
    return write_bundle(out, contents)


def _head(
    random: np.random.Generator, z: Singles, label: NDArray[np.int64], hidden: int
) -> tuple[bytes, NDArray[np.int64]]:
    """A nearest-mean classifier as an ONNX file, and what it predicts."""
    if not hidden:
        weight, bias = _nearest_mean(z, label)
        return affine_model(weight, bias, "logits"), (z @ weight.T + bias).argmax(axis=1)
    from onnx import helper

    n = z.shape[1]
    count = int(label.max()) + 1
    means = np.stack([z[label == k].mean(axis=0, dtype=np.float64) for k in range(count)])
    lean = _unit(means - means.mean(axis=0))[np.arange(hidden) % count]
    first = _unit(lean + 0.5 * _unit(random.normal(size=(hidden, n))))
    # Each neuron's threshold is its mean over the images, so that it is active for about half.
    offset = -(first @ z.mean(axis=0)).astype(np.float32)
    features = np.maximum(z @ first.T + offset, 0).astype(np.float32)
    weight, bias = _nearest_mean(features, label)
    nodes: list[Any] = [
        helper.make_node("Gemm", ["z", "weight_1", "bias_1"], ["hidden"], transB=1),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "weight_2", "bias_2"], ["logits"], transB=1),
    ]
    weights = {"weight_1": first, "bias_1": offset, "weight_2": weight, "bias_2": bias}
    data = model(nodes, weights, "logits", (n, len(bias)))
    return data, (features @ weight.T + bias).argmax(axis=1)


def _nearest_mean(points: Singles, label: NDArray[np.int64]) -> tuple[Singles, Singles]:
    """Logits whose differences say which class mean is nearer: ``μ·x − ‖μ‖²/2``."""
    count = int(label.max()) + 1
    means = np.stack([points[label == k].mean(axis=0, dtype=np.float64) for k in range(count)])
    bias = -(means**2).sum(axis=1) / 2
    return means.astype(np.float32), bias.astype(np.float32)


def _concepts(
    random: np.random.Generator, z: Singles, label: NDArray[np.int64], concepts: int
) -> tuple[tuple[Singles, Singles], Singles]:
    """An alignment, and unit concept directions that each lean towards one class."""
    n = z.shape[1]
    weight = (random.normal(size=(MAPPED, n)) / np.sqrt(n)).astype(np.float32)
    offset = -(weight @ z.mean(axis=0)).astype(np.float32)
    count = int(label.max()) + 1
    means = np.stack([z[label == k].mean(axis=0, dtype=np.float64) for k in range(count)])
    lean = _unit(means @ weight.T + offset)[np.arange(concepts) % count]
    return (weight, offset), _unit(lean + 0.25 * random.normal(size=(concepts, MAPPED)))


def _unit(rows: NDArray[Any]) -> Singles:
    """Rows scaled to length 1."""
    scaled: Singles = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def _thresholds(names: tuple[str, ...], vlm: Singles, directions: Singles) -> dict[str, str | None]:
    """The median cosine of each concept, with three decimals."""
    cosines = _unit(vlm) @ directions.T
    middle = np.median(cosines, axis=0).tolist()
    return {name: f"{value:.3f}" for name, value in zip(names, middle, strict=True)}
