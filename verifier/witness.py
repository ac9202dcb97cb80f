"""Turning a candidate point into a counterexample, or refusing it.

Exact arithmetic decides. The float32 replay through onnxruntime is there to catch a
difference between what conspec read from the ONNX file and what the file does: it must agree with
the exact scores up to what float32 rounding explains.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.exact import Vector, from_array
from conspec.encodings.images import Shape, in_shape
from conspec.encodings.network import Network
from conspec.encodings.query import Query, evaluate_at
from conspec.encodings.regions import Box
from conspec.encodings.rounding import Bools, Floats
from conspec.encodings.scores import ScoreSpace
from conspec.lens.bundle import Lens
from conspec.specs.formula import Formula
from conspec.specs.rewrite import All
from conspec.specs.semantics import Scores, holds
from conspec.verifier.verdict import Neighbour, Replay, Witness

Singles = NDArray[np.float32]
SINGLE = 2.0**-24
NEIGHBOURS = 5
SPARE = 8
_CHUNK = 64


def validated_at(query: Query, parameters: Vector) -> Witness | None:
    """The region's point with these parameters as a counterexample if it is one, exactly."""
    if not in_shape(query.region.shape, parameters):
        return None
    return _judged(query, query.region.at(parameters), parameters)


def validated_near(query: Query, embedding: Floats, image: int) -> Witness | None:
    """A stored image's embedding [n] as a counterexample, if it is one, exactly.

    In a box the embedding itself is tried; in other regions the point that has its parameters
    in float64, which is the embedding up to rounding (and is then not called the image's).
    """
    region = query.region
    if isinstance(region, Box):
        point = from_array(embedding)
        witness = _judged(query, point, None) if region.contains(point) else None
        return replace(witness, image=image) if witness else None
    if region.shape is Shape.SIMPLEX:
        same = np.flatnonzero(np.all(embedding == region.generators.T, axis=1))
        parameters = np.eye(region.parameters)[same[:1]]
    else:
        parameters, _ = region.parameters_of(embedding[None])
    return validated_at(query, region.into(parameters[0])) if len(parameters) else None


def _judged(query: Query, point: Vector, parameters: Vector | None) -> Witness | None:
    """A point of the uncut region as a counterexample, if cuts and violation hold there."""
    if query.cuts:
        kept, _ = evaluate_at(All(query.cuts), query.space, point)
        if not kept:
            return None
    violates, margin = query.margin(point)
    return Witness(point, margin, parameters, query.part) if violates else None


_STORES: dict[tuple[Path, str], "Store"] = {}
"""The store of the bundle used last, by folder and hash."""


@dataclass(frozen=True, eq=False)
class Store:
    """A bundle's embeddings as float64, with what neighbours and replays need."""

    lens: Lens
    space: ScoreSpace
    embeddings: Floats

    @classmethod
    def of(cls, lens: Lens, space: ScoreSpace) -> "Store":
        """The store of a bundle; that of the bundle used last is kept."""
        key = (lens.root, lens.hash)
        if key not in _STORES:
            _STORES.clear()
            _STORES[key] = cls(lens, space, lens.embeddings.z.astype(np.float64))
        return _STORES[key]

    @cached_property
    def singles(self) -> Singles:
        """The embeddings in float32, as stored."""
        return self.embeddings.astype(np.float32)

    @cached_property
    def squares(self) -> Singles:
        """Squared lengths [N] of the embeddings."""
        lengths: Singles = (self.singles**2).sum(axis=1)
        return lengths

    @cached_property
    def thresholds(self) -> dict[str, float]:
        """The calibrated thresholds, rounded."""
        return {name: float(tau) for name, tau in self.space.thresholds.items()}

    def completed(self, found: Sequence[tuple[Witness, Formula]]) -> list[tuple[Witness, bool]]:
        """Witnesses with replay and neighbours, and whether the replay is consistent."""
        done: list[tuple[Witness, bool]] = []
        for start in range(0, len(found), _CHUNK):
            done += self._chunk(found[start : start + _CHUNK])
        return done

    def _chunk(self, found: Sequence[tuple[Witness, Formula]]) -> list[tuple[Witness, bool]]:
        """The same for few enough witnesses to hold their distances in memory."""
        if not found:
            return []
        with np.errstate(over="ignore"):
            singles = np.array([w.point.floats() for w, _ in found]).astype(np.float32)
        near = self._neighbours(singles.astype(np.float64))
        finite = np.all(np.isfinite(singles), axis=1)
        logits, concepts = self.lens.replay(np.where(finite[:, None], singles, 0.0))
        mapped = self.lens.mapped(np.where(finite[:, None], singles, 0.0))
        both = np.concatenate([logits, concepts], axis=1)
        consistent = self._consistent(singles, both) | ~finite
        done = []
        for index, (witness, formula) in enumerate(found):
            replay = None
            if finite[index]:
                scores = (logits[index], concepts[index], mapped[index])
                replay = self._replay(formula, singles[index], *scores)
            full = replace(witness, replay=replay, neighbours=near[index])
            done.append((full, bool(consistent[index])))
        return done

    def _replay(
        self,
        formula: Formula,
        embedding: Singles,
        logits: Singles,
        concepts: Singles,
        mapped: Singles,
    ) -> Replay:
        """Judge the formula on float32 scores, by the reference semantics."""
        length = float(np.linalg.norm(mapped.astype(np.float64)))
        cosines = [float(value) / length if length else 0.0 for value in concepts]
        scores = Scores(
            logits=dict(zip(self.lens.classes, logits.tolist(), strict=True)),
            concepts=dict(zip(self.lens.concepts, concepts.tolist(), strict=True)),
            cosines=dict(zip(self.lens.concepts, cosines, strict=True)),
            thresholds=self.thresholds,
            embedding=embedding.tolist(),
        )
        violates = not holds(formula, scores)
        return Replay(tuple(logits.tolist()), tuple(concepts.tolist()), violates)

    @np.errstate(over="ignore", invalid="ignore")
    def _neighbours(self, points: Floats) -> list[tuple[Neighbour, ...]]:
        """The nearest stored images of each point [V, n].

        Found in float32 with a few to spare, then measured and sorted in float64.
        """
        squares = (-2.0 * points).astype(np.float32) @ self.singles.T
        squares += self.squares
        total = len(self.embeddings)
        nearest = np.argpartition(squares, min(NEIGHBOURS + SPARE, total) - 1, axis=1)
        nearest = nearest[:, : min(NEIGHBOURS + SPARE, total)]
        offsets = self.embeddings[nearest] - points[:, None]
        distances = np.sqrt((offsets**2).sum(axis=2))
        order = np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBOURS]
        images = np.take_along_axis(nearest, order, axis=1).tolist()
        lengths = np.take_along_axis(distances, order, axis=1).tolist()
        return [
            tuple(Neighbour(image, length) for image, length in zip(*pair, strict=True))
            for pair in zip(images, lengths, strict=True)
        ]

    def _consistent(self, points: Singles, scores: Singles) -> Bools:
        """Whether float32 scores [V, K+M] agree with the exact ones up to float32 rounding."""
        wide = points.astype(np.float64)
        logits, logit_room = single_precision_room(self.space.head, wide)
        concepts, concept_room = single_precision_room(Network((self.space.concept_map,)), wide)
        expected = np.concatenate([logits, concepts], axis=1)
        room = np.concatenate([logit_room, concept_room], axis=1)
        agrees: Bools = np.all(np.abs(scores - expected) <= room, axis=1)
        return agrees


def single_precision_room(network: Network, points: Floats) -> tuple[Floats, Floats]:
    """Float64 outputs [V, m] at float32 points, and how far float32 evaluation may be off.

    The bound of one layer is ``γ_{n+8} (|W||x| + |b|)`` in float32, plus what the layer makes
    of the error of its inputs. The float64 evaluation's own error is far below it.
    """
    values, error = points, np.zeros_like(points)
    for depth, layer in enumerate(network.affines):
        weight, bias = layer.floats
        if depth:
            values = np.maximum(values, 0.0)
        length = layer.inputs + 8
        share = length * SINGLE / (1.0 - length * SINGLE)
        sizes = np.abs(weight)
        reach = (np.abs(values) + error) @ sizes.T + np.abs(bias)
        error = error @ sizes.T + share * reach + length * float(np.finfo(np.float32).tiny)
        values = values @ weight.T + bias
    return values, error
