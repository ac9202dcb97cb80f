"""Building a lens bundle: encode images, align, export, calibrate, write.

``build_lens`` builds from a ``LensConfig``; ``build_emoji_lens`` builds the lens of Emoji-10.
Both go through :func:`build`. What was encoded lies in ``OUT.partial`` until the bundle is
written, so that an interrupted build continues where it stopped.
"""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from conspec.lens import alignment as align
from conspec.lens.attributes import for_concepts
from conspec.lens.bundle import Lens
from conspec.lens.calibrate import calibrate
from conspec.lens.captions import captions, directions
from conspec.lens.config import LensConfig
from conspec.lens.export import export_head, export_maps
from conspec.lens.extract import Extracted, Progress, Towers, clear, extract
from conspec.lens.job import Job, emoji_job, open_job
from conspec.lens.onnx_files import open_session, run
from conspec.lens.tables import Embeddings
from conspec.lens.write import Contents, refuse_existing, write_bundle

__all__ = ["LensConfig", "build", "build_emoji_lens", "build_lens"]

CHECKED = 256  # embeddings that torch's and onnxruntime's logits are compared on


def _silent(_what: str, _done: int, _total: int) -> None:
    pass


def build_lens(
    config: LensConfig, out: Path | str, progress: Progress = _silent, overwrite: bool = False
) -> Lens:
    """Build the lens that ``config`` describes and write it to the folder ``out``.

    Args:
        config: what to build from.
        out: the bundle's folder, which must not exist.
        progress: told what is being done and how far it is.
        overwrite: replace ``out`` if it is a lens bundle.

    Raises:
        ConspecError: something in the configuration or behind it is missing, damaged or does
            not fit; nothing is written to ``out`` then.
    """
    refuse_existing(Path(out), overwrite)
    return build(open_job(config), Path(out), progress, overwrite)


def build_emoji_lens(
    out: Path | str, progress: Progress = _silent, overwrite: bool = False
) -> Lens:
    """Build the lens of Emoji-10, the image set and models that ship with conspec.

    The held-out images are those of the design family that no model has seen.
    """
    refuse_existing(Path(out), overwrite)
    return build(emoji_job(), Path(out), progress, overwrite)


def build(job: Job, out: Path, progress: Progress = _silent, overwrite: bool = False) -> Lens:
    """Make the bundle of a job; see :func:`build_lens`."""
    partial = out.with_name(out.name + ".partial")
    towers = Towers(job.classifier.embed, job.vlm.encode_image, job.config.batch_size)
    found = extract(job.images.pictures, towers, partial, _key(job, towers), progress)
    progress("encoding captions", 0, 1)
    q, class_q = (_directions(job, names) for names in (job.concepts, job.classes))
    progress("encoding captions", 1, 1)
    progress("aligning and writing", 0, 1)
    head = export_head(job.classifier.head, torch.from_numpy(found.z[:CHECKED]))
    logits = run(open_session(head, "head"), found.z, len(job.classes), "head")
    index = {label: k for k, label in enumerate(job.classes)}
    embeddings = Embeddings(
        z=found.z,
        label=np.array([index.get(p.label or "", -1) for p in job.images.pictures]),
        predicted=logits.argmax(axis=1),
        heldout=job.heldout,
        vlm=found.vlm,
        directions=q,
        class_directions=class_q,
        attributes=for_concepts(job.images.attributes, job.concepts),
    )
    lens = write_bundle(out, _contents(job, embeddings, head, found), overwrite)
    clear(partial)
    progress("aligning and writing", 1, 1)
    return lens


def _key(job: Job, towers: Towers) -> str:
    """Changes with the images' names and with what either encoder makes of two pictures."""
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    probes = [Image.fromarray(noise), Image.fromarray(noise[:50, :40])]
    digest = hashlib.sha256(
        "\n".join([job.images.name, *(p.id for p in job.images.pictures)]).encode()
    )
    for tower in (towers.model, towers.vlm):
        digest.update(tower(probes).numpy().tobytes())
    return digest.hexdigest()


def _directions(job: Job, names: tuple[str, ...]) -> npt.NDArray[np.float32]:
    def encode(texts: list[str]) -> npt.NDArray[np.float32]:
        return np.asarray(job.vlm.encode_text(texts).numpy(), dtype=np.float32)

    return directions(names, encode, job.config.normalize_before_mean)


def _contents(job: Job, embeddings: Embeddings, head: bytes, found: Extracted) -> Contents:
    train = ~job.heldout
    fitted = align.fit(
        embeddings.z[train], embeddings.vlm[train], job.config.ridge, job.config.seed
    )
    alignment, concept_map = export_maps(fitted.weight, fitted.bias, embeddings.directions)
    # From here on the alignment is what its file says.
    stored = align.Alignment(
        fitted.weight.astype(np.float32).astype(np.float64),
        fitted.bias.astype(np.float32).astype(np.float64),
        fitted.ridge,
    )
    chosen = calibrate(stored, embeddings, job.concepts, (job.classes, job.relevance))
    return Contents(
        name=job.config.name,
        classes=job.classes,
        concepts=job.concepts,
        head=head,
        concept_map=concept_map,
        alignment=alignment,
        embeddings=embeddings,
        image_ids=tuple(picture.id for picture in job.images.pictures),
        thresholds=chosen.thresholds,
        captions={name: captions(name) for name in (*job.concepts, *job.classes)},
        calibration=chosen.how,
        thumbnails=found.thumbnails if job.config.thumbnails else None,
        about={
            "model": job.classifier.name,
            "vlm": f"{job.config.vlm} {job.config.vlm_checkpoint or ''}".strip(),
            "images": job.images.name,
        },
        quality=align.report(stored, embeddings) | {"has_balanced_accuracy": chosen.balanced},
        seed=job.config.seed,
    )
