"""The questions that explanations of stored images answer: domain, units, and their Con_spec form.

The domain is a box that holds the image. By default it is the box of all training embeddings: each
feature anywhere between its smallest and largest value seen, whatever the others are. It is the
same for all images, claims nothing of a class, and holds each image or is widened to. Any box of
Con_spec may stand instead (``focus``, ``box``, an L∞ ``ball``), widened likewise.

Features are those of the head's last layer: the embedding itself for an affine head, else the
neurons of the last hidden layer. Con_spec does not speak of the latter, so such explanations
are as certain, but have no spec that ``conspec check`` could re-establish.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conspec.analysis.explanations import LinearHead, LinearQuestion, Units
from conspec.analysis.predicates import Predicate
from conspec.encodings.exact import Vector, from_array, vector
from conspec.encodings.query import space_of
from conspec.encodings.regions import Box, box, build_regions, image_embedding
from conspec.encodings.rounding import Bools, Floats
from conspec.encodings.scores import ScoreSpace
from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadRegion, BadUsage
from conspec.specs.printer import to_text


def conjunction(parts: Sequence[f.Formula]) -> f.Formula:
    """All of the formulas; true if there are none."""
    if not parts:
        return f.Constant(True)
    return parts[0] if len(parts) == 1 else f.And(tuple(parts))


@dataclass(frozen=True, eq=False)
class ExactLayer:
    """What the last layer of a bundle's head reads.

    Attributes:
        lens: the bundle.
        space: its exact functions.
    """

    lens: Lens
    space: ScoreSpace

    @classmethod
    def of(cls, lens: Lens) -> "ExactLayer":
        """The last layer of a bundle."""
        return cls(lens, space_of(lens))

    @property
    def is_embedding(self) -> bool:
        """Whether the features are those of the embedding: the head is affine."""
        return self.space.head.is_affine

    @cached_property
    def head(self) -> LinearHead:
        """The last layer."""
        return LinearHead(self.space.head.affines[-1])

    @cached_property
    def observed(self) -> Box:
        """The box of all training embeddings, or of their last hidden values in float64.

        Raises:
            BadUsage: the bundle holds no training images.
        """
        points = self.features(self.lens.embeddings.z[~self.lens.embeddings.heldout])
        return _extent(points, self.lens)

    def features(self, embeddings: NDArray[Any]) -> Floats:
        """Features [N, h] of embeddings [N, n], in float64 without an error bound."""
        values = np.asarray(embeddings, dtype=np.float64)
        for layer in self.space.head.affines[:-1]:
            weight, bias = layer.floats
            values = np.maximum(values @ weight.T + bias, 0.0)
        return values

    def exact_features(self, image: int) -> Vector:
        """The exact features of a stored image."""
        point = image_embedding(self.lens, image)
        if self.is_embedding:
            return point
        return vector(self.space.with_hidden(point).fractions()[len(point) :])


@dataclass(frozen=True, eq=False)
class Domain:
    """A box that holds an image.

    Attributes:
        box: the box, exact.
        region: the same in Con_spec; of embeddings.
        widened: how many features the region asked for was widened for, so that it holds the
            image.
    """

    box: Box
    region: f.Region
    widened: int


@dataclass(frozen=True, eq=False)
class Subject:
    """One image, and the domain over which its prediction is explained.

    Attributes:
        layer: the last layer.
        image: its number in the bundle.
        target: the class that the exact head predicts strictly.
        point: its exact features.
        domain: a box of features that holds it.
    """

    layer: ExactLayer
    image: int
    target: int
    point: Vector
    domain: Domain

    @property
    def label(self) -> str:
        """The predicted class."""
        return self.layer.space.classes[self.target]

    def features(self) -> LinearQuestion:
        """The question whose units are the features at the image's own values."""
        names = tuple(f"z({j})" for j in range(len(self.point)))
        units = Units(names, np.arange(len(self.point)), self.point, self.point)
        return LinearQuestion.of(self.layer.head, self.target, self.domain.box, units)

    def predicates(self, chosen: Sequence[Predicate]) -> LinearQuestion:
        """The question whose units are predicates, as they are written in rules.

        Raises:
            BadUsage: the image does not satisfy one of them.
        """
        values, low, high = (
            part.fractions() for part in (self.point, self.domain.box.lower, self.domain.box.upper)
        )
        lower, upper = [], []
        for predicate in chosen:
            j, bound = predicate.feature, predicate.bound
            if (values[j] < bound) if predicate.sign > 0 else (values[j] > bound):
                raise BadUsage(f"image {self.image} does not satisfy {to_text(predicate.formula)}")
            lower.append(max(low[j], bound) if predicate.sign > 0 else low[j])
            upper.append(min(high[j], bound) if predicate.sign < 0 else high[j])
        features = np.array([predicate.feature for predicate in chosen], dtype=np.intp)
        names = tuple(to_text(predicate.formula) for predicate in chosen)
        units = Units(names, features, vector(lower), vector(upper))
        return LinearQuestion.of(self.layer.head, self.target, self.domain.box, units)

    def feature_spec(self, question: LinearQuestion, kept: Bools, name: str) -> f.ForAll:
        """``predict(c)`` over the domain with the kept features at the image's values.

        Raises:
            BadUsage: Con_spec does not speak of these features.
        """
        self._refuse_hidden()
        lower, upper = question.clipped(kept)
        region = f.Box(tuple(lower.fractions()), tuple(upper.fractions()))
        return f.ForAll(name, region, f.Predict(self.label))

    def predicate_spec(self, chosen: Sequence[Predicate], kept: Bools, name: str) -> f.ForAll:
        """``(kept predicates) => predict(c)`` over the domain.

        Raises:
            BadUsage: Con_spec does not speak of these features.
        """
        self._refuse_hidden()
        parts = [chosen[unit].formula for unit in np.flatnonzero(kept).tolist()]
        body: f.Formula = f.Predict(self.label)
        if parts:
            body = f.Implies(conjunction(parts), body)
        return f.ForAll(name, self.domain.region, body)

    def _refuse_hidden(self) -> None:
        if not self.layer.is_embedding:
            raise BadUsage("Con_spec does not speak of the neurons of a hidden layer")


def subject_of(layer: ExactLayer, image: int, region: f.Region | None = None) -> Subject:
    """An image and its domain; by default the box of all training embeddings.

    Raises:
        BadUsage: the exact head does not predict one class strictly, or the region is one of
            embeddings while the features are hidden neurons.
        BadRegion: the region is no box, or there is no such image.
    """
    point, target = layer.exact_features(image), predicted(layer, image)
    if layer.is_embedding:
        return Subject(layer, image, target, point, embedding_domain(layer, image, region))
    if region is not None:
        raise BadUsage(
            "the head has hidden layers, so features are neurons of its last one, and a region of "
            "embeddings does not bound them; leave the region out"
        )
    return Subject(layer, image, target, point, _around(layer.observed, point, None))


def predicted(layer: ExactLayer, image: int) -> int:
    """The class that the exact head predicts for a stored image.

    Raises:
        BadUsage: two classes tie.
        BadRegion: there is no such image.
    """
    logits = layer.head.affine.exact(layer.exact_features(image))
    target = max(range(len(logits)), key=logits.__getitem__)
    if logits.count(logits[target]) > 1:
        raise BadUsage(f"image {image}: two classes tie, so there is no prediction to explain")
    return target


def embedding_domain(layer: ExactLayer, image: int, region: f.Region | None = None) -> Domain:
    """A box of embeddings around an image: a region, or the box of all training embeddings.

    Raises:
        BadUsage: there are no training images.
        BadRegion: the region is no box, or is empty.
    """
    point = image_embedding(layer.lens, image)
    if region is None:
        z = layer.lens.embeddings.z[~layer.lens.embeddings.heldout]
        return _around(_extent(z, layer.lens), point, None)
    parts = build_regions(region, layer.lens)
    if len(parts) != 1 or parts[0].cuts or not isinstance(parts[0].region, Box):
        raise BadRegion(
            "an explanation needs a box: focus, box, a ball of norm linf, or such joined by and"
        )
    if parts[0].region.is_empty:
        raise BadRegion("the region is empty, so there is nothing to explain")
    return _around(parts[0].region, point, region)


def _extent(points: NDArray[Any], lens: Lens) -> Box:
    """The least box that holds some points [N, n]."""
    if not len(points):
        raise BadUsage(f"{lens.root}: there are no training images to take a box from")
    return box(from_array(points.min(axis=0)), from_array(points.max(axis=0)))


def _around(found: Box, point: Vector, region: f.Region | None) -> Domain:
    """The smallest box that holds a box and a point."""
    lows, values, highs = (part.fractions() for part in (found.lower, point, found.upper))
    outside = [not low <= value <= high for low, value, high in zip(lows, values, highs,
                                                                    strict=True)]  # fmt: skip
    if any(outside):
        lows, highs = list(map(min, lows, values)), list(map(max, highs, values))
        found, region = box(vector(lows), vector(highs)), None
    return Domain(found, region or f.Box(tuple(lows), tuple(highs)), sum(outside))
