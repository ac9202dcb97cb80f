"""A tiny lens bundle whose verdicts can be seen with the naked eye.

Embeddings have four entries. The logits of the three classes are the first three, and the scores
of the four concepts are all of them: ``score(wheels)`` is z_0, which is large for trucks.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import helper
from PIL import Image, ImageDraw

from conspec.lens import Lens
from conspec.lens.onnx_files import affine_model, model
from conspec.lens.tables import Embeddings
from conspec.lens.thumbnails import jpeg
from conspec.lens.write import Contents, write_bundle

CLASSES = ("truck", "bird", "sea lion")
CONCEPTS = ("wheels", "wings", "fur", "floppy ears")
PER_CLASS = 30
Singles = npt.NDArray[np.float32]

SUITE = """
spec wheels_over_wings:
    forall x in focus(truck, gamma=0.5): predict(truck) => wheels > wings
spec wings_over_fur:
    forall x in focus(bird, gamma=0.5): wings > fur and predict(bird)
"""
VIOLATED = """
spec wings_over_wheels:
    forall x in focus(truck, gamma=0.5): predict(truck) => wings > wheels
"""


def write_tiny(folder: Path, names: tuple[str, ...] = CLASSES) -> Lens:
    """Write the bundle; ``names`` calls the classes something else."""
    return write_bundle(folder, replace(_contents(), classes=names))


def write_skewed(folder: Path, hidden: bool) -> Lens:
    """Write a bundle with the same embeddings and uneven weights; ``hidden`` adds a ReLU layer."""
    random = np.random.default_rng(5)

    def near_identity(rows: int, columns: int) -> Singles:
        return (np.eye(rows, columns) + 0.2 * random.normal(size=(rows, columns))).astype("f4")

    mapping, offset = near_identity(4, 4), near_identity(1, 4)[0]
    head = affine_model(near_identity(3, 4), near_identity(1, 3)[0], "logits")
    if hidden:
        sizes = {"w0": (5, 4), "b0": (1, 5), "w1": (3, 5), "b1": (1, 3)}
        weights = {name: near_identity(*size) for name, size in sizes.items()}
        weights |= {"b0": weights["b0"][0], "b1": weights["b1"][0]}
        nodes = [
            helper.make_node("Gemm", ["z", "w0", "b0"], ["h"], transB=1),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Gemm", ["r", "w1", "b1"], ["logits"], transB=1),
        ]
        head = model(nodes, weights, "logits", (4, 3))
    thresholds = {"wheels": "0.6", "wings": "-0.2", "fur": "0.05"}
    return write_bundle(
        folder,
        replace(
            _contents(),
            head=head,
            concept_map=affine_model(mapping, offset, "concepts"),
            alignment=affine_model(mapping, offset, "mapped"),
            thresholds=thresholds,
            calibration=dict.fromkeys(thresholds, "hand"),
        ),
    )


def _contents() -> Contents:
    random = np.random.default_rng(7)
    identity = np.eye(4, dtype=np.float32)
    label = np.repeat(np.arange(3), PER_CLASS)
    centres = np.ones((3, 4)) + 3 * np.eye(3, 4)
    z = np.abs(centres[label] + 0.4 * random.normal(size=(len(label), 4))).astype(np.float32)
    embeddings = Embeddings(
        z=z,
        label=label,
        predicted=z[:, :3].argmax(axis=1),
        heldout=np.arange(len(label)) % 3 == 0,
        vlm=z,
        directions=identity,
        class_directions=identity[:3],
        attributes=(z > 2.5).astype(np.int8),
    )
    return Contents(
        name="tiny",
        classes=CLASSES,
        concepts=CONCEPTS,
        head=affine_model(identity[:3], np.zeros(3, np.float32), "logits"),
        concept_map=affine_model(identity, np.zeros(4, np.float32), "concepts"),
        alignment=affine_model(identity, np.zeros(4, np.float32), "mapped"),
        embeddings=embeddings,
        image_ids=tuple(f"{CLASSES[k]}/{i:04}.png" for i, k in enumerate(label)),
        thresholds={"wheels": "0.5", "wings": "0.5"},
        calibration={"wheels": "hand", "wings": "hand"},
        thumbnails=[jpeg(_drawing(int(k), i)) for i, k in enumerate(label)],
        about={"model": "identity", "vlm": "identity", "images": "drawings"},
        quality={
            "ridge": 0.001,
            "train_r2": 1.0,
            "heldout_r2": 1.0,
            "heldout_r2_per_dimension": [1.0, 0.9],
            "model_accuracy": 1.0,
            "has_balanced_accuracy": {"wheels": 0.9},
        },
    )


def _drawing(label: int, index: int) -> Image.Image:
    """A disc, a triangle or a square in a colour of its own."""
    image = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(image)
    colour = ("#c44", "#4a4", "#46c")[label]
    edge = 6 + index % 12
    box = (edge, edge, 64 - edge, 64 - edge)
    if label == 0:
        draw.rectangle(box, fill=colour)
    elif label == 1:
        draw.regular_polygon((32, 32, 30 - index % 12), 3, fill=colour)
    else:
        draw.ellipse(box, fill=colour)
    return image


def write_random(folder: Path, seed: int, signed: bool) -> Lens:
    """Write a bundle with random affine maps; classes overlap, ``signed`` has negative entries.

    Boxes of two deviations around a class reach below zero, so that the cut to ``z ≥ 0`` counts.
    """
    random = np.random.default_rng(seed)

    def singles(*shape: int) -> Singles:
        return random.normal(size=shape).astype(np.float32)

    contents = _contents()
    label = contents.embeddings.label
    centres = np.abs(random.normal(size=(3, 4)))
    z = np.abs(centres[label] + 0.7 * random.normal(size=(len(label), 4))) - 2.0 * signed
    embeddings = replace(contents.embeddings, z=z.astype(np.float32), predicted=label)
    concept_map = affine_model(singles(4, 4), singles(4), "concepts")
    return write_bundle(
        folder,
        replace(
            contents,
            embeddings=embeddings,
            head=affine_model(singles(3, 4), singles(3), "logits"),
            concept_map=concept_map,
        ),
    )
