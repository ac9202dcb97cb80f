"""Emoji-10: the image set, attribute table, classifier and lens that ship with conspec.

Ten classes of emoji, each thing drawn by up to six design houses. Everything is read from the
files beside this one; nothing is fetched. README.md says where it all comes from.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

    from conspec.lens.emoji10.models import EmojiNet

_HERE = files(__name__)
_TILE = 64
_COLUMNS = 16


@dataclass(frozen=True, slots=True, eq=False)
class EmojiImages:
    """The images and what is known about each; all fields agree in their first axis.

    Attributes:
        images: uint8 [N, 32, 32, 3], on white.
        labels: int64 [N], positions in `classes`.
        classes: The ten class names, sorted.
        names: Unicode's name of the thing shown, such as "delivery truck".
        houses: The design house that drew it, such as "twemoji".
        families: Houses that redraw each other's pictures share a family.
        split: "train", or "heldout" for the family that no model has seen.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    names: tuple[str, ...]
    houses: tuple[str, ...]
    families: tuple[str, ...]
    split: NDArray[np.str_]


def load_images() -> EmojiImages:
    """Read all images at the classifier's resolution: the thumbnails, averaged 2×2."""
    from PIL.Image import Resampling

    rows = _rows("images.csv")
    shown = thumbnails(range(len(rows)))
    return EmojiImages(
        images=np.stack([np.asarray(tile.resize((32, 32), Resampling.BOX)) for tile in shown]),
        labels=np.array([int(row["label"]) for row in rows], dtype=np.int64),
        classes=tuple(dict.fromkeys(row["class"] for row in rows)),
        names=tuple(row["thing"] for row in rows),
        houses=tuple(row["house"] for row in rows),
        families=tuple(row["family"] for row in rows),
        split=np.array([row["split"] for row in rows]),
    )


@cache
def tiles() -> NDArray[np.uint8]:
    """Return all drawings with their transparency: RGBA, uint8 [N, 64, 64, 4], read-only."""
    from PIL import Image

    found = []
    for name in dict.fromkeys(row["class"] for row in _rows("images.csv")):
        with (_HERE / "sheets" / f"{name.replace(' ', '-')}.png").open("rb") as file:
            sheet = np.asarray(Image.open(file).convert("RGBA"))
        count = sum(row["class"] == name for row in _rows("images.csv"))
        grid = sheet.reshape(-1, _TILE, _COLUMNS, _TILE, 4).swapaxes(1, 2)
        found.append(grid.reshape(-1, _TILE, _TILE, 4)[:count])
    everything: NDArray[np.uint8] = np.concatenate(found)
    everything.setflags(write=False)
    return everything


def thumbnails(indices: Iterable[int]) -> list[Image]:
    """Return the images at these positions at 64 px, for people to look at."""
    from PIL import Image

    everything = tiles()
    return [Image.fromarray(_on_white(everything[index])) for index in indices]


def attribute_table() -> tuple[tuple[str, ...], NDArray[np.bool_]]:
    """Return the names of the attributes and, per image, which of them can be seen in it.

    Returns:
        The m attribute names, and a table [N, m] in the order of `load_images`.
    """
    shown = {(row["thing"], row["house"]): row for row in _rows("attributes.csv")}
    attributes = tuple(next(iter(shown.values())))[3:]
    table = [
        [shown[row["thing"], row["house"]][name] == "1" for name in attributes]
        for row in _rows("images.csv")
    ]
    return attributes, np.array(table, dtype=np.bool_)


def load_classifier() -> EmojiNet:
    """Return the trained classifier, in evaluation mode, on the CPU."""
    from conspec.lens.emoji10 import models

    with as_file(_HERE / "classifier.safetensors") as path:
        return models.load(path)


def load_vlm() -> tuple[Any, Callable[[Image], Any], Callable[..., Any]]:
    """Load the small vision-language model through open_clip, from packaged files alone.

    Returns:
        The open_clip model in evaluation mode, the image transform, and the tokenizer.
    """
    import open_clip

    with as_file(_HERE / "vlm.json") as config:
        open_clip.add_model_config(config)
    with as_file(_HERE / "vlm.safetensors") as weights:
        model, _, preprocess = open_clip.create_model_and_transforms("vlm", pretrained=str(weights))
    return model.eval(), preprocess, open_clip.get_tokenizer("vlm")


def _on_white(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay RGBA tiles on white in integer arithmetic, so that every machine gets the same."""
    colour, alpha = tiles[..., :3].astype(np.uint32), tiles[..., 3:].astype(np.uint32)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


@cache
def _rows(name: str) -> tuple[dict[str, str], ...]:
    text = (_HERE / name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))
