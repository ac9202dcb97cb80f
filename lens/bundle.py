"""The lens bundle: the one folder that everything behind the lens works from.

``Lens.load`` refuses what is not exactly as it was written. Arrays are read when first used and
are read-only. Importing this module imports neither torch nor onnxruntime.

=========================  ==============================================================
``manifest.json``          format, names, sizes, versions, and the SHA-256 of each file
``head.onnx``              ``z`` [N, n] → ``logits`` [N, K]
``concept_map.onnx``       ``z`` [N, n] → ``concepts`` [N, M]; one Gemm, ``Q̂ (A z + d)``
``alignment.onnx``         ``z`` [N, n] → ``mapped`` [N, p]; one Gemm, ``A z + d``
``vocabulary.json``        captions and calibrated threshold of each concept
``embeddings.safetensors`` embeddings, labels, VLM embeddings, concept directions
``statistics.safetensors`` moments of each class's correctly classified training embeddings
``images.json``            the name of each image
``thumbnails.safetensors`` JPEGs (may be absent)
``quality.json``           quality of the alignment
=========================  ==============================================================
"""

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from conspec.lens.files import Array, member, parse_json, read_bytes, read_json, sha256
from conspec.lens.manifest import (
    ALIGNMENT,
    CONCEPT_MAP,
    EMBEDDINGS,
    HEAD,
    IMAGES,
    QUALITY,
    STATISTICS,
    THUMBNAILS,
    VOCABULARY,
    Manifest,
    checked_names,
    checked_vocabulary,
    parse_manifest,
)
from conspec.lens.tables import (
    Embeddings,
    Statistics,
    read_embeddings,
    read_statistics,
    read_thumbnails,
)
from conspec.specs.errors import BadFile, BadUsage, UnknownName

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Lens:
    """A lens bundle on disk. Build one with ``conspec.lens.build_lens``; read with ``load``."""

    root: Path
    hash: str
    manifest: Manifest = field(repr=False, compare=False)

    @classmethod
    def load(cls, path: Path | str, check: bool = True) -> Self:
        """Open the bundle in the folder ``path``.

        Args:
            path: the bundle's folder.
            check: compare every file's SHA-256 with the manifest, and read all arrays now.
                Without it, files are only found; arrays are still checked when first used.

        Raises:
            BadFile: the bundle is not exactly what was written.
        """
        root = Path(path)
        if not root.is_dir():
            raise BadFile(f"{root}: no such lens bundle (expected a folder)")
        source = member(root, "manifest.json")
        data = read_bytes(source)
        manifest = parse_manifest(parse_json(data, source), source)
        lens = cls(root, hashlib.sha256(data).hexdigest(), manifest)
        lens._check_files(hashes=check)
        if check:
            lens._read_everything()
        return lens

    def _check_files(self, hashes: bool) -> None:
        for name, expected in self.manifest.files.items():
            path = member(self.root, name)
            if hashes and (found := sha256(path)) != expected:
                raise BadFile(
                    f"{path}: SHA-256 is {found[:12]}…, the manifest says {expected[:12]}…; "
                    "the file was changed or damaged after the bundle was written"
                )

    def _read_everything(self) -> None:
        _ = (self.embeddings, self.statistics, self.vocabulary, self.image_ids, self.quality)
        if self.has_thumbnails:
            _ = self._thumbnails

    @property
    def name(self) -> str:
        """What the bundle is called in reports."""
        return self.manifest.name

    @property
    def classes(self) -> tuple[str, ...]:
        """The K classes, in the order of the logits."""
        return self.manifest.classes

    @property
    def concepts(self) -> tuple[str, ...]:
        """The M concepts, in the order of the concept scores."""
        return self.manifest.concepts

    @property
    def count(self) -> int:
        """N, how many images are stored."""
        return self.manifest.count

    @property
    def dim(self) -> int:
        """n, the size of an embedding."""
        return self.manifest.dim

    @property
    def vlm_dim(self) -> int:
        """p, the size of an embedding of the VLM."""
        return self.manifest.vlm_dim

    @property
    def nonnegative(self) -> bool:
        """Whether no stored embedding has a negative entry: the encoder ends in a ReLU."""
        return self.manifest.nonnegative

    @property
    def _sizes(self) -> dict[str, int]:
        return {
            "N": self.count,
            "N+1": self.count + 1,
            "n": self.dim,
            "p": self.vlm_dim,
            "K": len(self.classes),
            "M": len(self.concepts),
        }

    def file(self, name: str) -> Path:
        """The path of one of the bundle's files, for instance ``"head.onnx"``.

        Raises:
            BadFile: the manifest does not list it, or it is missing.
        """
        if name not in self.manifest.files:
            raise BadFile(f"{self.root / 'manifest.json'}: no file {name!r} is listed")
        return member(self.root, name)

    @cached_property
    def embeddings(self) -> Embeddings:
        """Embeddings of all images; read once."""
        return read_embeddings(self.file(EMBEDDINGS), self._sizes, self.nonnegative)

    @cached_property
    def statistics(self) -> Statistics:
        """Moments of each class; read once."""
        return read_statistics(self.file(STATISTICS), self._sizes)

    @cached_property
    def vocabulary(self) -> Mapping[str, Any]:
        """``vocabulary.json``: captions and thresholds of the concepts, captions of classes."""
        path = self.file(VOCABULARY)
        return checked_vocabulary(read_json(path), self.concepts, path)

    @cached_property
    def image_ids(self) -> tuple[str, ...]:
        """The name of each image (a path, mostly), in the order of the embeddings."""
        path = self.file(IMAGES)
        names = checked_names(read_json(path), "images", path, unique=False)
        if len(names) != self.count:
            raise BadFile(f"{path}: {len(names)} images, the manifest says {self.count}")
        return names

    @cached_property
    def quality(self) -> Mapping[str, Any]:
        """``quality.json``: errors, R² and zero-shot accuracies of the alignment."""
        return read_json(self.file(QUALITY))

    @property
    def has_thumbnails(self) -> bool:
        """Whether the bundle holds small pictures of its images."""
        return THUMBNAILS in self.manifest.files

    @cached_property
    def _thumbnails(self) -> tuple[Array, Array]:
        return read_thumbnails(self.file(THUMBNAILS), self._sizes)

    def thumbnail(self, index: int) -> "Image":
        """A small picture of the image, at most 64 pixels wide and high.

        Raises:
            UnknownName: there is no image ``index``.
            BadUsage: the bundle was written without thumbnails.
            BadFile: the picture is damaged.
        """
        from conspec.lens.images import decode

        if not 0 <= index < self.count:
            raise UnknownName(f"no image {index}: the bundle has 0 to {self.count - 1}")
        if not self.has_thumbnails:
            raise BadUsage(f"{self.root}: this bundle was written without thumbnails")
        data, offsets = self._thumbnails
        jpeg = data[slice(*offsets[index : index + 2])].tobytes()
        return decode(jpeg, f"{self.file(THUMBNAILS)}: image {index}")

    def class_index(self, name: str) -> int:
        """The row of a class among the logits.

        Raises:
            UnknownName: there is no such class.
        """
        return _index("class", name, self.classes)

    def concept_index(self, name: str) -> int:
        """The row of a concept among the concept scores.

        Raises:
            UnknownName: there is no such concept.
        """
        return _index("concept", name, self.concepts)

    def threshold(self, concept: str) -> Fraction | None:
        """The calibrated cosine above which ``has(x, concept)`` holds; None if there is none.

        Raises:
            UnknownName: there is no such concept.
        """
        self.concept_index(concept)
        text = self.vocabulary["concepts"][concept]["threshold"]
        return None if text is None else Fraction(text)

    def replay(self, z: Array) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Logits float32 [N, K] and concept scores float32 [N, M] of embeddings [N, n].

        Computed in float32 by onnxruntime from the bundle's ONNX files.

        Raises:
            BadUsage: ``z`` has another shape.
            BadFile: an ONNX file is damaged or has other inputs or outputs.
        """
        return self._run(HEAD, z, len(self.classes)), self._run(CONCEPT_MAP, z, len(self.concepts))

    def mapped(self, z: Array) -> npt.NDArray[np.float32]:
        """``A z + d``: embeddings [N, n] in the VLM's space, float32 [N, p]; see `replay`."""
        return self._run(ALIGNMENT, z, self.vlm_dim)

    def _run(self, name: str, z: Array, width: int) -> npt.NDArray[np.float32]:
        from conspec.lens.onnx_files import open_session, run

        batch = np.ascontiguousarray(z, dtype=np.float32)
        if batch.ndim != 2 or batch.shape[1] != self.dim:
            raise BadUsage(f"embeddings have shape {batch.shape}, expected [N, {self.dim}]")
        path = self.file(name)
        if name not in self._sessions:
            self._sessions[name] = open_session(read_bytes(path), str(path))
        return run(self._sessions[name], batch, width, str(path))

    @cached_property
    def _sessions(self) -> dict[str, Any]:
        return {}


def _index(kind: str, name: str, known: tuple[str, ...]) -> int:
    if name in known:
        return known.index(name)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known[:12])}"
    raise UnknownName(f"unknown {kind} {name!r}; {hint}")
