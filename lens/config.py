"""What to build a lens from: a plain value, read from JSON or TOML, or made of CLI options."""

import difflib
import json
import os.path
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from conspec.lens.preprocess import Preprocess
from conspec.specs.errors import BadFile, BadUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class LensConfig:
    """A lens to build.

    Attributes:
        name: what the bundle is called in reports.
        images: an image source, see ``images.open_images``.
        heldout: share of the images to hold out, such as ``"0.2"``, or a second image source.
        model: the classifier, see ``encoders.load_classifier``; likewise the next three.
        weights: a safetensors file, or ``hub``.
        head_from: the module that the head starts from; default: the last linear layer.
        preprocess: how pictures are prepared, if not as the model says.
        vlm: the vision-language model, see ``vlm.load_vlm``.
        vlm_checkpoint: its weights.
        concepts: the concepts; default: the attributes that the images come with.
        classes: names of the classes in the order of the logits; default: the images' classes.
        attributes: a table of what images or classes show, see ``attributes``.
        normalize_before_mean: normalise each caption's embedding before the mean.
        ridge: of the alignment; default: chosen among ``alignment.GRID``.
        seed: of the held-out share and of the choice of the ridge.
        device: any torch device.
        batch_size: images encoded at once.
        thumbnails: store small pictures of the images in the bundle.
        download: let torchvision fetch the images.
    """

    images: str
    model: str
    vlm: str
    name: str = "lens"
    heldout: str = "0.2"
    weights: str | None = None
    head_from: str | None = None
    preprocess: Preprocess | None = None
    vlm_checkpoint: str | None = None
    concepts: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    attributes: str | None = None
    normalize_before_mean: bool = False
    ridge: float | None = None
    seed: int = 0
    device: str = "cpu"
    batch_size: int = 64
    thumbnails: bool = True
    download: bool = False

    def __post_init__(self) -> None:
        """Refuse what no lens can be built from.

        Raises:
            BadUsage: of it.
        """
        if self.batch_size < 1:
            raise BadUsage(f"batch_size must be at least 1, not {self.batch_size}")
        for what, found in (("concept", self.concepts), ("class", self.classes)):
            if len(set(found)) < len(found) or not all(found):
                raise BadUsage(f"a {what} is empty or named twice in {', '.join(found)}")


def load_config(path: Path) -> LensConfig:
    """A configuration in a ``.json`` or ``.toml`` file, with the attributes' names as keys.

    Raises:
        BadFile: it cannot be read, or a key or value is not one of a configuration.
    """
    return config_from(read_settings(path), str(path))


def read_settings(path: Path) -> dict[str, Any]:
    """The plain values of a configuration file, which may lack some; see `config_from`.

    Raises:
        BadFile: it cannot be read, or is no table.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise BadFile(f"{path}: expected the settings of a lens by name")
    return found


def config_from(settings: Mapping[str, Any], place: str) -> LensConfig:
    """A configuration from plain values: texts, numbers, lists; ``place`` is for the errors.

    Raises:
        BadFile: a key or value is not one of a configuration.
    """
    known = {field.name: field.type for field in fields(LensConfig)}
    for key in settings:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1) or sorted(known)
            raise BadFile(f"{place}: unknown setting {key!r}; did you mean {near[0]!r}?")
    for key in ("images", "model", "vlm"):
        if key not in settings:
            raise BadFile(f"{place}: setting {key!r} is missing")
    return LensConfig(**{key: _value(key, v, known[key], place) for key, v in settings.items()})


def _value(key: str, value: Any, kind: Any, place: str) -> Any:
    if key == "preprocess" and isinstance(value, dict):
        return _preprocess(value, place)
    if kind == tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise BadFile(f"{place}: {key!r} must be a list of names")
        return tuple(value)
    if key in ("heldout", "ridge") and type(value) in (int, float):
        return str(value) if key == "heldout" else float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise BadFile(f"{place}: {key!r} must be {kind}, found {value!r:.60}")
    return value


def _preprocess(value: Mapping[str, Any], place: str) -> Preprocess:
    sizes = {key: value.get(key) for key in ("resize", "crop")}
    colours = {key: value.get(key, [d] * 3) for key, d in (("mean", 0.0), ("std", 1.0))}
    if unknown := sorted(set(value) - set(sizes) - set(colours) - {"interpolation"}):
        raise BadFile(f"{place}: preprocess: unknown setting {unknown[0]!r}")
    if not all(type(size) is int for size in sizes.values()):
        raise BadFile(f"{place}: preprocess: 'resize' and 'crop' must be numbers of pixels")
    for key, found in colours.items():
        if not isinstance(found, list) or not all(type(x) in (int, float) for x in found):
            raise BadFile(f"{place}: preprocess: {key!r} must be a list of three numbers")
    return Preprocess(
        value["resize"],
        value["crop"],
        tuple(colours["mean"]),
        tuple(colours["std"]),
        str(value.get("interpolation", "bilinear")),
    )


def parse_names(text: str) -> tuple[str, ...]:
    """Names from a file with one on each line (``#`` starts a comment), or from ``a,b,c``.

    What is no file is a list, unless it looks like a file's name: one word with a suffix.

    Raises:
        BadFile: the file cannot be read.
    """
    path = Path(text)
    if not os.path.isfile(text) and ("," in text or not path.suffix):
        return tuple(name for part in text.split(",") if (name := part.strip()))
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(f"{path}: cannot be read: {error}") from error
    return tuple(name for line in lines if (name := line.partition("#")[0].strip()))
