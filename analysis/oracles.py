"""Reading the class of a picture from its embedding, without the head.

Two oracles, both readings of "Debugging and Runtime Analysis of Neural Networks with VLMs"
(arXiv 2503.17416): zero-shot, ``argmax_c cos(e, q_c)`` with the directions of the class names,
and by heatmap, ``argmax_c sim(A(x), G_c)`` with the summary maps of the training images that the
model classifies correctly. Each may be asked about the model's embedding, mapped into the VLM's
space, and about the VLM's own embedding of the same picture.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from math import ceil

import numpy as np

from conspec.analysis.heatmaps import Bools, Floats, Integers, Kind, Maps, grouped, summary
from conspec.analysis.similarity import similarities
from conspec.encodings.query import space_of
from conspec.lens.alignment import Alignment
from conspec.lens.bundle import Lens
from conspec.specs.errors import BadUsage
from conspec.specs.ranking import ranks
from conspec.verifier.probability.intervals import clopper_pearson_lower

LEAST = 0.75
"""Share of the model's right answers that an oracle must know to be asked about wrong ones."""
_ROWS = 512
"""Embeddings compared with the gallery at once."""


class Oracle(StrEnum):
    """Who reads the class from an embedding."""

    ZERO_SHOT = "zero-shot"
    """The class whose name has the most similar direction."""
    HEATMAP = "heatmap"
    """The class whose summary map is most alike the image's ranking of concepts."""


class Gap(StrEnum):
    """How far a mapped embedding e is from where it should be, to notice a map at fault."""

    RESIDUAL = "residual"
    """‖e − g‖ with the VLM's own embedding g of the picture. An encoder fault makes it large,
    too."""
    NEAREST = "nearest"
    """‖e − g'‖ with the nearest embedding g' that the VLM has of any training image: small where
    the encoder took the picture for another one, large where e is like no picture at all."""


@dataclass(frozen=True, eq=False)
class Images:
    """N images whose faults are asked for.

    Attributes:
        z: embeddings of the model, [N, n].
        vlm: embeddings of the VLM of the same pictures, [N, p].
        label: true class, int64 [N]; −1 where it is unknown.
        predicted: what the model says, int64 [N].
    """

    z: Floats
    vlm: Floats
    label: Integers
    predicted: Integers

    def __post_init__(self) -> None:
        """Refuse arrays of different lengths."""
        if len({len(self.z), len(self.vlm), len(self.label), len(self.predicted)}) > 1:
            raise BadUsage("z, vlm, label and predicted must be of the same images")

    def chosen(self, places: Integers | Bools) -> "Images":
        """Some of the images."""
        return Images(self.z[places], self.vlm[places], self.label[places], self.predicted[places])


def stored(lens: Lens) -> Images:
    """All images of a bundle."""
    data = lens.embeddings
    z, vlm = data.z.astype(np.float64), data.vlm.astype(np.float64)
    return Images(z, vlm, data.label, data.predicted)


@dataclass(frozen=True, eq=False)
class Reference:
    """What images are compared with: the maps of a bundle and its correctly classified images.

    Attributes:
        classes: K names.
        concepts: M names.
        alignment: embeddings to the VLM's space, [p, n].
        directions: unit directions of the concepts, [M, p].
        class_directions: unit directions of the class names, [K, p].
        z: embeddings of the R correctly classified training images, [R, n].
        scores: their concept scores, [R, M].
        own: their classes, int64 [R].
        maps: for the model and for the VLM, their summary maps by class.
        gallery: the VLM's embeddings of the T training images, [T, p].
        gaps: of the C correctly classified held-out images, rising, [C] of each kind.
        right: for how many of these each oracle reads the true class through the map.
    """

    classes: tuple[str, ...]
    concepts: tuple[str, ...]
    alignment: Alignment
    directions: Floats
    class_directions: Floats
    z: Floats
    scores: Floats
    own: Integers
    maps: tuple[Maps, Maps]
    gallery: Floats
    gaps: Mapping[Gap, Floats]
    right: Mapping[Oracle, int]

    def mapped(self, images: Images) -> Floats:
        """The model's embeddings in the VLM's space, e = A z + d, [N, p]."""
        return self.alignment(images.z)

    def concept_scores(self, images: Images) -> Floats:
        """Concept scores through the map, [N, M]."""
        return np.asarray(self.mapped(images) @ self.directions.T, dtype=np.float64)

    @property
    def calibrated(self) -> int:
        """C, how many correctly classified held-out images there are."""
        return len(self.gaps[Gap.RESIDUAL])

    def gap(self, kind: Gap, images: Images) -> Floats:
        """How far each mapped embedding is from where it should be, [N]."""
        mapped = self.mapped(images)
        match kind:
            case Gap.RESIDUAL:
                return np.asarray(np.linalg.norm(mapped - images.vlm, axis=1))
            case Gap.NEAREST:
                parts = [mapped[i : i + _ROWS] for i in range(0, len(mapped), _ROWS)]
                return np.concatenate([np.zeros(0), *(_nearest(x, self.gallery) for x in parts)])

    def limit(self, kind: Gap, level: Fraction) -> float:
        """The gap that a new correctly classified image exceeds with chance ≤ 1 − level.

        The split-conformal quantile: the ⌈(C + 1) · level⌉-th smallest of C gaps. It
        assumes that the image and the held-out ones are exchangeable.

        Raises:
            BadUsage: there are too few correctly classified held-out images, or no such level.
        """
        if not 0 < level < 1:
            raise BadUsage(f"the level of a gap's quantile must be in (0, 1), not {level}")
        place = ceil((self.calibrated + 1) * level)
        if place > self.calibrated:
            raise BadUsage(
                f"{self.calibrated} correctly classified held-out images are too few for the "
                f"guard of the map at level {float(level):g}: "
                f"{ceil(1 / (1 - level)) - 1} are needed; lower --level, or ask --without-guards"
            )
        return float(self.gaps[kind][place - 1])

    def p_values(self, kind: Gap, gaps: Floats) -> Floats:
        """The conformal p-value of each gap, ``(1 + #{held out ≥ gap}) / (C + 1)``, [N]."""
        below = np.searchsorted(self.gaps[kind], gaps, side="left")
        total = self.calibrated
        return np.asarray((1 + total - below) / (total + 1), dtype=np.float64)

    def reliable(self, oracle: Oracle) -> bool:
        """Whether the oracle surely knows most of what the model gets right.

        The lower 95 % bound (Clopper and Pearson) of how often it reads the true class through
        the map, over the correctly classified held-out images, must be above three quarters. An
        oracle that fails there would blame the encoder for its own errors.
        """
        total = self.calibrated
        return total > 0 and clopper_pearson_lower(self.right[oracle], total) > LEAST


def reference_of(lens: Lens, alignment: Alignment | None = None) -> Reference:
    """What the images of a bundle are compared with.

    Args:
        lens: the bundle.
        alignment: another map into the VLM's space than the bundle's.

    Raises:
        BadUsage: no training image is classified correctly, or there is only one concept.
    """
    if len(lens.concepts) < 2:
        raise BadUsage(f"{lens.root}: a heatmap needs at least two concepts")
    data, images = lens.embeddings, stored(lens)
    chosen = alignment or stored_alignment(lens)
    directions = data.directions.astype(np.float64)
    correct = (data.label >= 0) & (data.label == data.predicted)
    fit = correct & ~data.heldout
    if not fit.any():
        raise BadUsage(f"{lens.root}: no training image is classified correctly")
    groups, names = grouped(Kind.CORRECT, data.label, data.predicted, lens.classes)
    scores = (chosen(images.z) @ directions.T, images.vlm @ directions.T)
    model, vlm = (summary(each, np.where(fit, groups, -1), names, lens.concepts) for each in scores)
    found = Reference(
        classes=lens.classes,
        concepts=lens.concepts,
        alignment=chosen,
        directions=directions,
        class_directions=data.class_directions.astype(np.float64),
        z=images.z[fit],
        scores=scores[0][fit],
        own=data.label[fit],
        maps=(model, vlm),
        gallery=images.vlm[~data.heldout],
        gaps={},
        right={},
    )
    return _calibrated(found, images.chosen(correct & data.heldout))


def stored_alignment(lens: Lens) -> Alignment:
    """The bundle's own map into the VLM's space, from its ONNX file."""
    return Alignment(*space_of(lens).aligned.floats, lens.quality.get("ridge", 0.0))


def _calibrated(found: Reference, images: Images) -> Reference:
    """The reference with the gaps and the oracles' answers on images of known class."""
    right = {o: int((answers(found, o, images) == images.label).sum()) for o in Oracle}
    gaps = {kind: np.sort(found.gap(kind, images)) for kind in Gap}
    return replace(found, gaps=gaps, right=right)


def _nearest(mapped: Floats, gallery: Floats) -> Floats:
    """The distance of each row [N, p] to the nearest of the gallery [T, p]."""
    squares = (gallery**2).sum(axis=1) - 2 * mapped @ gallery.T
    least = squares.min(axis=1) + (mapped**2).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(least, 0.0)), dtype=np.float64)


def answers(reference: Reference, oracle: Oracle, images: Images) -> Integers:
    """The class that an oracle reads in each model's embedding, through the map, int64 [N]."""
    return _asked(reference, oracle, reference.mapped(images), reference.maps[0])


def vlm_answers(reference: Reference, oracle: Oracle, images: Images) -> Integers:
    """The class that an oracle reads in the VLM's own embedding, int64 [N]."""
    return _asked(reference, oracle, images.vlm, reference.maps[1])


def _asked(reference: Reference, oracle: Oracle, vectors: Floats, maps: Maps) -> Integers:
    """The answer for embeddings [N, p] in the VLM's space; the first of the best at a tie."""
    match oracle:
        case Oracle.ZERO_SHOT:
            # The length of an embedding scales all its cosines alike.
            return np.asarray((vectors @ reference.class_directions.T).argmax(axis=1))
        case Oracle.HEATMAP:
            ranking = ranks(vectors @ reference.directions.T)
            known = np.flatnonzero(maps.known)
            return np.asarray(known[similarities(ranking, maps.only_known()).argmax(axis=1)])
