"""Thresholds of all concepts, from the training images, and how well they do on the others."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from conspec.lens.alignment import Alignment, cosines
from conspec.lens.tables import Embeddings
from conspec.lens.thresholds import between_groups, youden


@dataclass(frozen=True)
class Calibration:
    """By concept: a threshold or None, how it came about, and held-out balanced accuracy.

    Attributes:
        thresholds: decimal strings, or None.
        how: in words.
        balanced: mean of sensitivity and specificity on held-out images, where both exist.
    """

    thresholds: Mapping[str, str | None]
    how: Mapping[str, str]
    balanced: Mapping[str, float]


def calibrate(
    alignment: Alignment,
    embeddings: Embeddings,
    concepts: tuple[str, ...],
    relevance: tuple[tuple[str, ...], Mapping[str, frozenset[str]]],
) -> Calibration:
    """A threshold on ``cos(A z + d, q)`` for each concept, where there is ground to choose one.

    Args:
        alignment: the map as stored.
        embeddings: of all images; only training images are calibrated on.
        concepts: their names, in the order of the directions.
        relevance: the classes, and for each concept those it is relevant for.
    """
    mapped = alignment(embeddings.z)
    classes, table = relevance
    thresholds: dict[str, str | None] = {}
    how: dict[str, str] = {}
    balanced: dict[str, float] = {}
    for j, concept in enumerate(concepts):
        cosine = cosines(mapped, embeddings.directions[j])
        present = _present(embeddings, j)
        train, test = _known(embeddings, present)
        if train.any():
            thresholds[concept] = youden(cosine[train], present[train] == 1)
            how[concept] = f"best balanced accuracy on {train.sum()} training images"
        elif concept in table:
            relevant = [k for k, label in enumerate(classes) if label in table[concept]]
            train, _ = _known(embeddings, embeddings.label)
            groups = np.isin(embeddings.label[train], relevant)
            thresholds[concept] = between_groups(cosine[train], groups)
            how[concept] = "half-way between images of relevant and of other classes"
        else:
            thresholds[concept], how[concept] = None, "never: no attributes are known"
        if (text := thresholds[concept]) is not None:
            balanced |= _balanced(concept, cosine[test] > float(text), present[test] == 1)
    return Calibration(thresholds, how, balanced)


def _known(
    embeddings: Embeddings, truth: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Training and held-out images, bool [N], whose entry of ``truth`` is known."""
    return ~embeddings.heldout & (truth >= 0), embeddings.heldout & (truth >= 0)


def _present(embeddings: Embeddings, concept: int) -> npt.NDArray[np.int8]:
    if embeddings.attributes is None:
        return np.full(len(embeddings.z), -1, dtype=np.int8)
    return embeddings.attributes[:, concept]


def _balanced(
    concept: str, said: npt.NDArray[np.bool_], present: npt.NDArray[np.bool_]
) -> dict[str, float]:
    if not len(present) or present.all() or not present.any():
        return {}
    return {concept: float((said[present].mean() + (~said[~present]).mean()) / 2)}
