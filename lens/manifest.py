"""The manifest of a lens bundle: names, sizes, and the SHA-256 of every file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from conspec.specs.errors import BadFile

FORMAT = "conspec-lens"
VERSION = 1

HEAD = "head.onnx"
CONCEPT_MAP = "concept_map.onnx"
ALIGNMENT = "alignment.onnx"
VOCABULARY = "vocabulary.json"
EMBEDDINGS = "embeddings.safetensors"
STATISTICS = "statistics.safetensors"
IMAGES = "images.json"
THUMBNAILS = "thumbnails.safetensors"
QUALITY = "quality.json"
REQUIRED = (
    HEAD, CONCEPT_MAP, ALIGNMENT, VOCABULARY, EMBEDDINGS, STATISTICS, IMAGES, QUALITY,
)  # fmt: skip

_DECIMAL = re.compile(r"-?[01](\.\d{1,30})?")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Manifest:
    """``manifest.json``, checked.

    Attributes:
        name: what the bundle is called in reports.
        classes: the K classes, in the order of the logits.
        concepts: the M concepts, in the order of the concept scores.
        count: N, how many images are stored.
        dim: n, the size of an embedding.
        vlm_dim: p, the size of an embedding of the VLM.
        nonnegative: no stored embedding has a negative entry: the encoder ends in a ReLU.
        model: which vision model.
        vlm: which vision-language model.
        images: which images.
        seed: of the held-out split.
        versions: of conspec and the libraries that wrote the bundle.
        quality: summary of the alignment's quality.
        files: SHA-256 by file name.
    """

    name: str
    classes: tuple[str, ...]
    concepts: tuple[str, ...]
    count: int
    dim: int
    vlm_dim: int
    nonnegative: bool
    model: str
    vlm: str
    images: str
    seed: int
    versions: Mapping[str, Any]
    quality: Mapping[str, Any]
    files: Mapping[str, str]


def parse_manifest(manifest: dict[str, Any], path: Path) -> Manifest:
    """Check a manifest read from ``path``.

    Raises:
        BadFile: a key is missing or says something it cannot.
    """
    if (found := manifest.get("format")) != FORMAT:
        raise BadFile(f"{path}: format is {found!r:.60}, expected {FORMAT!r}")
    if (found := manifest.get("version")) != VERSION:
        raise BadFile(f"{path}: version {found!r:.60} is unknown; this conspec reads {VERSION}")
    _check_listing(manifest.get("files"), path)
    texts = {key: _typed(manifest, key, str, path) for key in ("name", "model", "vlm", "images")}
    return Manifest(
        **texts,
        classes=checked_names(manifest, "classes", path),
        concepts=checked_names(manifest, "concepts", path),
        count=_size(manifest, "count", path),
        dim=_size(manifest, "dim", path),
        vlm_dim=_size(manifest, "vlm_dim", path),
        nonnegative=_typed(manifest, "nonnegative", bool, path),
        seed=_typed(manifest, "seed", int, path),
        versions=_typed(manifest, "versions", dict, path),
        quality=_typed(manifest, "quality", dict, path),
        files=manifest["files"],
    )


def checked_vocabulary(
    found: dict[str, Any], concepts: tuple[str, ...], path: Path
) -> dict[str, Any]:
    """The vocabulary ``found`` in ``path``, with a valid threshold for each concept.

    Raises:
        BadFile: it lists other concepts, or a threshold is neither null nor a decimal cosine.
    """
    entries = found.get("concepts")
    if not isinstance(entries, dict) or list(entries) != list(concepts):
        raise BadFile(f"{path}: 'concepts' must list the manifest's concepts in its order")
    for name, entry in entries.items():
        _check_concept(path, name, entry)
    return found


def _check_concept(path: Path, name: str, entry: Any) -> None:
    threshold = entry.get("threshold", "") if isinstance(entry, dict) else ""
    if threshold is None:
        return
    if not isinstance(threshold, str) or not _DECIMAL.fullmatch(threshold):
        raise BadFile(f"{path}: concept {name!r}: 'threshold' must be a decimal string or null")
    if abs(Fraction(threshold)) > 1:
        raise BadFile(f"{path}: concept {name!r}: threshold {threshold} is no cosine")


def _check_listing(files: Any, path: Path) -> None:
    if not isinstance(files, dict):
        raise BadFile(f"{path}: 'files' must map the names of files to their SHA-256")
    for name, digest in files.items():
        if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise BadFile(f"{path}: the SHA-256 of {name!r} is not 64 hexadecimal digits")
    if missing := [name for name in REQUIRED if name not in files]:
        raise BadFile(f"{path}: 'files' does not list {missing[0]}")


def _typed(manifest: dict[str, Any], key: str, kind: type[_T], path: Path) -> _T:
    value = manifest.get(key)
    if type(value) is not kind:
        raise BadFile(f"{path}: {key!r} must be {kind.__name__}, found {value!r:.60}")
    return value


def _size(manifest: dict[str, Any], key: str, path: Path) -> int:
    value = _typed(manifest, key, int, path)
    if value < 1:
        raise BadFile(f"{path}: {key!r} must be at least 1, found {value}")
    return value


def checked_names(
    manifest: dict[str, Any], key: str, path: Path, unique: bool = True
) -> tuple[str, ...]:
    """The list of names under ``key``.

    Raises:
        BadFile: it is not a list of names, or is empty, or (if ``unique``) repeats one.
    """
    names = _typed(manifest, key, list, path)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise BadFile(f"{path}: {key!r} must be a list of names, not empty")
    if unique and len(set(names)) < len(names):
        raise BadFile(f"{path}: {key!r} lists a name twice")
    return tuple(names)
