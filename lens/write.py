"""Writing a lens bundle: everything into a temporary folder, which is then renamed."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from conspec.lens import manifest as names
from conspec.lens.bundle import Lens
from conspec.lens.files import Array, Field, sha256, typed
from conspec.lens.tables import (
    EMBEDDING_FIELDS,
    LEADING,
    STATISTICS_FIELDS,
    THUMBNAIL_FIELDS,
    Embeddings,
    Statistics,
)
from conspec.lens.thumbnails import pack
from conspec.specs.errors import BadUsage

LARGEST_COVARIANCE = 512  # dimensions; beyond, K·n² numbers outweigh the embeddings


@dataclass(frozen=True, eq=False)
class Contents:
    """What goes into a bundle; hashes, sizes, moments and versions are worked out on writing.

    Attributes:
        name: what the bundle is called in reports.
        classes: the K classes, in the order of the logits.
        concepts: the M concepts, in the order of the concept scores.
        head: the bytes of ``head.onnx``; likewise ``concept_map`` and ``alignment``.
        embeddings: of the N images.
        image_ids: the name of each image.
        thresholds: for each concept a decimal string, a cosine, or None.
        captions: for each concept and class what the VLM was asked.
        calibration: for each concept how its threshold came about.
        thumbnails: a JPEG of each image, or None.
        about: ``model``, ``vlm`` and ``images`` in words, for the manifest.
        quality: of the alignment; its numbers go into the manifest too.
        seed: of the held-out split.
    """

    name: str
    classes: tuple[str, ...]
    concepts: tuple[str, ...]
    head: bytes
    concept_map: bytes
    alignment: bytes
    embeddings: Embeddings
    image_ids: tuple[str, ...]
    thresholds: Mapping[str, str | None] = field(default_factory=dict)
    captions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    calibration: Mapping[str, str] = field(default_factory=dict)
    thumbnails: Sequence[bytes] | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


def write_bundle(out: Path | str, contents: Contents, overwrite: bool = False) -> Lens:
    """Write a bundle to the folder ``out`` and read it back, checked.

    Nothing half-written is ever seen at ``out``: it appears by one renaming, after the finished
    bundle was read back.

    Args:
        out: the bundle's folder, which must not exist.
        contents: what to write.
        overwrite: replace ``out`` if it is a lens bundle.

    Raises:
        BadUsage: ``out`` exists.
        BadFile: the contents do not fit together.
    """
    out = Path(out)
    refuse_existing(out, overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write_files(work / "new", contents)
        Lens.load(work / "new")
        if out.exists():
            out.rename(work / "old")
        (work / "new").rename(out)
    finally:
        shutil.rmtree(work)
    return Lens.load(out, check=False)


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Make sure that a bundle may be written at ``out``.

    Raises:
        BadUsage: something is there; with ``overwrite``, something that is no bundle.
    """
    if not out.exists() and not out.is_symlink():
        return
    if not overwrite:
        raise BadUsage(f"{out}: exists already; remove it, or replace it with --overwrite")
    if not (out / "manifest.json").is_file():
        raise BadUsage(f"{out}: exists and is no lens bundle; it is not overwritten")


def class_statistics(embeddings: Embeddings, classes: int) -> Statistics:
    """Moments of each class over its correctly classified training embeddings, in float64."""
    n = embeddings.z.shape[1]
    zeros = np.zeros((classes, n))
    stats = Statistics(
        count=np.zeros(classes, dtype=np.int64),
        mean=zeros.copy(),
        std=zeros.copy(),
        minimum=zeros.copy(),
        maximum=zeros.copy(),
        axes=np.zeros((classes, n, n)) if n <= LARGEST_COVARIANCE else None,
        residual=zeros.copy() if n <= LARGEST_COVARIANCE else None,
    )
    for k in range(classes):
        correct = (embeddings.label == k) & (embeddings.predicted == k) & ~embeddings.heldout
        stats.count[k] = correct.sum()
        if stats.count[k]:
            _fill(stats, k, embeddings.z[correct].astype(np.float64))
    return stats


def _fill(stats: Statistics, k: int, z: Array) -> None:
    stats.mean[k] = z.mean(axis=0)
    stats.std[k] = z.std(axis=0)
    stats.minimum[k] = z.min(axis=0)
    stats.maximum[k] = z.max(axis=0)
    if stats.axes is not None and stats.residual is not None:
        _, lengths, directions = np.linalg.svd(z - stats.mean[k], full_matrices=False)
        axes = directions.T * (lengths / np.sqrt(len(z)))
        stats.axes[k, :, : axes.shape[1]] = axes
        explained = (axes[:, :LEADING] ** 2).sum(axis=1)
        stats.residual[k] = np.sqrt(np.maximum(stats.std[k] ** 2 - explained, 0.0))


def _write_files(folder: Path, contents: Contents) -> None:
    folder.mkdir()
    (folder / names.HEAD).write_bytes(contents.head)
    (folder / names.CONCEPT_MAP).write_bytes(contents.concept_map)
    (folder / names.ALIGNMENT).write_bytes(contents.alignment)
    _write_json(folder / names.VOCABULARY, _vocabulary(contents))
    _write_json(folder / names.IMAGES, {"images": list(contents.image_ids)})
    _write_json(folder / names.QUALITY, contents.quality)
    _save(folder / names.EMBEDDINGS, EMBEDDING_FIELDS, vars(contents.embeddings))
    stats = vars(class_statistics(contents.embeddings, len(contents.classes)))
    renamed = stats | {"min": stats["minimum"], "max": stats["maximum"]}
    _save(folder / names.STATISTICS, STATISTICS_FIELDS, renamed)
    if contents.thumbnails is not None:
        _save(folder / names.THUMBNAILS, THUMBNAIL_FIELDS, pack(contents.thumbnails))
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    _write_json(folder / "manifest.json", _manifest(contents, files))


def _vocabulary(contents: Contents) -> dict[str, Any]:
    return {
        "concepts": {
            name: {
                "captions": list(contents.captions.get(name, ())),
                "threshold": contents.thresholds.get(name),
                "calibrated": contents.calibration.get(name),
            }
            for name in contents.concepts
        },
        "classes": {
            name: {"captions": list(contents.captions.get(name, ()))} for name in contents.classes
        },
    }


def _manifest(contents: Contents, files: dict[str, str]) -> dict[str, Any]:
    z, vlm = contents.embeddings.z, contents.embeddings.vlm
    return {
        "format": names.FORMAT,
        "version": names.VERSION,
        "name": contents.name,
        "classes": list(contents.classes),
        "concepts": list(contents.concepts),
        "count": len(z),
        "dim": z.shape[1],
        "vlm_dim": vlm.shape[1],
        "nonnegative": bool(z.min(initial=0) >= 0),
        **{key: contents.about.get(key, "") for key in ("model", "vlm", "images")},
        "seed": contents.seed,
        "versions": _versions(),
        "quality": {k: v for k, v in contents.quality.items() if isinstance(v, float)},
        "files": files,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in (
        "conspec",
        "numpy",
        "onnx",
        "open_clip_torch",
        "timm",
        "torch",
        "torchvision",
    ):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # an extra that is not installed wrote nothing
            continue
    return found


def _save(path: Path, layout: Mapping[str, Field], arrays: Mapping[str, Array | None]) -> None:
    present = {name: array for name in layout if (array := arrays[name]) is not None}
    # Written by ourselves, since safetensors makes files that only their owner may read.
    path.write_bytes(save({k: typed(a, layout[k].dtype) for k, a in present.items()}))


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
