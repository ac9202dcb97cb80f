"""What a lens bundle holds and how good its alignment is, as rows of words and numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from conspec.lens.bundle import Lens
from conspec.report.words import percent

_MEANINGS = {
    "mse": "mean squared error of an entry",
    "r2": "R²",
    "r2_per_dimension": "R² per dimension",
    "cosine": "mean cosine of mapped and true embedding",
    "model_accuracy": "accuracy of the vision model",
    "vlm_accuracy": "zero-shot accuracy of the VLM itself",
    "mapped_accuracy": "zero-shot accuracy through the map",
    "ridge": "ridge of the fit",
}

Row = tuple[str, ...]


def bundle_facts(lens: Lens) -> dict[str, str]:
    """The bundle at a glance."""
    about = lens.manifest
    heldout = int(lens.embeddings.heldout.sum())
    return {
        "bundle": lens.name,
        "folder": str(lens.root),
        "vision model": about.model or "not recorded",
        "vision-language model": about.vlm or "not recorded",
        "images": f"{about.images or 'not recorded'}: {lens.count} ({heldout} held out)",
        "embedding": f"{lens.dim} dimensions{', none negative' if lens.nonnegative else ''}",
        "VLM embedding": f"{lens.vlm_dim} dimensions",
        "classes": str(len(lens.classes)),
        "concepts": str(len(lens.concepts)),
        "SHA-256": lens.hash,
    }


QUALITY_HEADINGS = ("alignment", "training", "held-out")


def quality_rows(lens: Lens) -> list[Row]:
    """Each number of the alignment's quality, on training and on held-out images."""
    rows: dict[str, dict[str, str]] = {}
    for key, value in lens.quality.items():
        part, _, name = key.partition("_")
        if part not in ("train", "heldout"):
            part, name = ("" if key == "ridge" else "heldout"), key
        if text := _said(value):
            meaning = _MEANINGS.get(name, name.replace("_", " "))
            rows.setdefault(meaning, {})[part or "train"] = text
    return [(name, row.get("train", ""), row.get("heldout", "")) for name, row in rows.items()]


def _said(value: Any) -> str:
    """A number, a text, or the spread of a list of numbers; empty for anything else."""
    if isinstance(value, bool | int | str):
        return str(value)
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list) and value and all(isinstance(x, int | float) for x in value):
        low, middle, high = np.quantile(np.array(value, dtype=np.float64), [0, 0.5, 1])
        return f"{middle:.3g} ({low:.3g} … {high:.3g})"
    return ""


CLASS_HEADINGS = ("class", "training", "accuracy", "held-out", "accuracy")


def class_rows(lens: Lens) -> list[Row]:
    """For each class its images and the classifier's accuracy, training and held-out."""
    data = lens.embeddings
    rows = []
    for index, name in enumerate(lens.classes):
        row = [name]
        for part in (~data.heldout, data.heldout):
            own = (data.label == index) & part
            count, right = int(own.sum()), int((own & (data.predicted == index)).sum())
            row += [str(count), f"{percent(right / count)} %" if count else "–"]
        rows.append(tuple(row))
    return rows


CONCEPT_HEADINGS = ("concept", "AUC", "threshold", "balanced", "threshold calibrated by")


def concept_rows(lens: Lens) -> list[Row]:
    """For each concept how well its cosine ranks images, and the threshold of ``has``.

    AUC and balanced accuracy are over held-out images with attribute labels.
    """
    aucs = held_out_aucs(lens)
    balanced = lens.quality.get("has_balanced_accuracy")
    balanced = balanced if isinstance(balanced, Mapping) else {}
    rows: list[Row] = []
    for name in lens.concepts:
        threshold = lens.threshold(name)
        how = lens.vocabulary["concepts"][name].get("calibrated")
        rows.append(
            (
                name,
                f"{aucs[name]:.3f}" if name in aucs else "–",
                "–" if threshold is None else f"{float(threshold):.4f}",
                _said(balanced.get(name)) or "–",
                how if isinstance(how, str) else "–",
            )
        )
    return rows


def held_out_aucs(lens: Lens) -> dict[str, float]:
    """How well each concept's cosine ranks held-out images with it above those without it.

    Area under the ROC curve (the Mann–Whitney statistic, ties counted half) of the mapped
    embeddings' cosines. Concepts without labels of both kinds are left out.
    """
    data = lens.embeddings
    if data.attributes is None or not data.heldout.any():
        return {}
    mapped = lens.mapped(data.z[data.heldout]).astype(np.float64)
    norms = np.linalg.norm(mapped, axis=1, keepdims=True)
    cosines = (mapped / np.where(norms > 0, norms, 1.0)) @ data.directions.T.astype(np.float64)
    labels = data.attributes[data.heldout]
    found = {}
    for index, name in enumerate(lens.concepts):
        above = cosines[labels[:, index] == 1, index]
        below = np.sort(cosines[labels[:, index] == 0, index])
        if len(above) and len(below):
            wins = np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")
            found[name] = float(wins.mean()) / (2 * len(below))
    return found
