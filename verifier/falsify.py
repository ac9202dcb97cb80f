"""A search for counterexamples on ReLU heads: ascent from many points at once, in float64.

Each point follows one way to violate the formula, a conjunction of literals, and climbs the least
of them. A step goes from a point towards the vertex of the region that its gradient points to;
half of the points jump there, the other half take shorter and shorter steps (Frank and Wolfe,
1956). What looks like a counterexample is checked exactly; nothing is concluded from failure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

import numpy as np

from conspec.encodings.images import Shape
from conspec.encodings.network import Network
from conspec.encodings.query import Query, fold
from conspec.encodings.regions import ConvexRegion
from conspec.encodings.rounding import Bools, Floats
from conspec.encodings.scores import Coefficients, ScoreSpace
from conspec.specs.rewrite import All, Cone, Count, Halfspace, Literal, Nnf, Some, literals
from conspec.verifier.screen import nth_largest, values_at
from conspec.verifier.verdict import Reason, Unknown, Verdict, Violated
from conspec.verifier.witness import validated_at

POINTS = 64
"""Points that climb at once."""
STEPS = 40
"""Steps of each point."""
TRIES = 4
"""Points that are checked exactly after a step with promising ones."""
SHARPNESS = 16.0
"""How much more the least literal of a conjunction counts than others, per size of the values."""


class Falsifier:
    """The search on one region; deterministic."""

    def __init__(self, space: ScoreSpace, region: ConvexRegion) -> None:
        """Remember where to look."""
        self._space = space
        self._region = region

    def decide(self, query: Query, violation: Nnf, seconds: float) -> Verdict:
        """A counterexample, or no answer.

        Raises:
            ValueError: the query is about another region.
        """
        if query.region is not self._region:
            raise ValueError("a session answers queries about its own region only")
        found = [lit for lit in literals(violation) if isinstance(lit, Halfspace)]
        if not found:
            return Unknown(Reason.INCOMPLETE)
        deadline = monotonic() + seconds
        generator = np.random.default_rng(0)
        climb = _Climb(self._space, found, _aims(violation, found, generator))
        points = self._starts(generator)
        for step in range(STEPS):
            embeddings = self._region.points(points)
            values = values_at(self._space, found, embeddings)
            witness = self._checked(query, points, _margins(violation, found, values))
            if isinstance(witness, Violated) or monotonic() > deadline:
                break
            points = self._moved(points, climb.gradients(embeddings, values), step)
        return witness

    def _starts(self, generator: np.random.Generator) -> Floats:
        """The centre, and vertices of the region scaled towards it: parameters [POINTS, k]."""
        size = self._region.parameters
        vertices = self._region.maximisers(generator.normal(size=(POINTS, size)))
        shares = generator.random((POINTS, 1))
        shares[0] = 0.0
        middle = vertices.mean(axis=0) if np.all(vertices >= 0) else np.zeros(size)
        starts: Floats = middle + shares * (vertices - middle)
        return starts

    def _moved(self, points: Floats, gradients: Floats, step: int) -> Floats:
        """The points after a step along the gradients [POINTS, n] over the embedding."""
        pulled, _ = self._region.pull_rough(gradients, np.zeros(len(gradients)))
        pulled = np.where(np.isfinite(pulled), pulled, 0.0)
        vertices = self._region.maximisers(pulled)
        # What does not matter stays where it is: a coordinate of a cube, else the whole point.
        matters = pulled != 0
        if self._region.shape is not Shape.CUBE:
            matters = np.any(matters, axis=1, keepdims=True)
        vertices = np.where(matters, vertices, points)
        shares = np.where(np.arange(len(points)) % 2 == 0, 1.0, 2.0 / (step + 3.0))
        moved: Floats = points + shares[:, None] * (vertices - points)
        return moved

    def _checked(self, query: Query, points: Floats, margins: Floats) -> Verdict:
        """The exact verdict on the points with the largest margins, if those are positive."""
        for place in np.argsort(-margins)[:TRIES]:
            if not margins[place] > 0:
                break
            witness = validated_at(query, self._region.into(points[place]))
            if witness is not None:
                return Violated(witness)
        return Unknown(Reason.INCOMPLETE)


def _margins(violation: Nnf, found: Sequence[Halfspace], values: Floats) -> Floats:
    """The violation's margin [N] from the values [A, N] of its half-spaces."""
    places = {literal: place for place, literal in enumerate(found)}
    count = values.shape[1]

    def leaf(literal: Literal) -> Floats:
        if isinstance(literal, Cone):
            return np.full(count, np.inf)
        row: Floats = values[places[literal]]
        return row

    def join(number: int, parts: list[Floats]) -> Floats:
        return nth_largest(number, parts, count)

    margins = fold(violation, leaf, join)
    return np.where(np.isnan(margins), -np.inf, margins)


def _aims(violation: Nnf, found: Sequence[Halfspace], generator: np.random.Generator) -> Bools:
    """For each point, literals that together violate the formula, chosen at random: [POINTS, A]."""
    places = {literal: place for place, literal in enumerate(found)}
    aims = np.zeros((POINTS, len(found)), dtype=bool)

    def choose(node: Nnf, row: Bools) -> None:
        match node:
            case Halfspace():
                row[places[node]] = True
            case Cone():
                pass
            case All(operands):
                for part in operands:
                    choose(part, row)
            case Some(operands) | Count(_, operands) if operands:
                count = node.count if isinstance(node, Count) else 1
                for place in generator.permutation(len(operands))[:count]:
                    choose(operands[int(place)], row)

    for row in aims:
        choose(violation, row)
    return aims


@dataclass(frozen=True, eq=False)
class _Climb:
    """Gradients of conjunctions of half-spaces over the embedding.

    Attributes:
        space: the score functions.
        found: the A half-spaces.
        aims: which of them each point wants to hold: bool [N, A].
    """

    space: ScoreSpace
    found: Sequence[Halfspace]
    aims: Bools

    @np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore")
    def gradients(self, points: Floats, values: Floats) -> Floats:
        """Gradients [N, n] of each point's soft minimum, from values [A, N] at points [N, n]."""
        wanted = np.where(self.aims, values.T, np.inf)
        least = wanted.min(axis=1, keepdims=True)
        size = np.abs(np.where(self.aims, values.T, 0.0)).max(axis=1, keepdims=True)
        weights = np.exp(-SHARPNESS * (wanted - least) / np.where(size > 0, size, 1.0))
        weights = np.where(self.aims & np.isfinite(weights), weights, 0.0)
        table: Coefficients = self.space.coefficients(self.found)
        scores = weights @ table.scores
        classes = len(self.space.classes)
        concept_weight, _ = self.space.concept_map.floats
        slopes: Floats = scores[:, classes:] @ concept_weight + weights @ table.coordinates
        return slopes + _backwards(self.space.head, points, scores[:, :classes])


def _backwards(network: Network, points: Floats, slopes: Floats) -> Floats:
    """Gradients [N, n] at points [N, n] of combinations [N, K] of a network's outputs."""
    active = []
    values = points
    for layer in network.affines[:-1]:
        weight, bias = layer.floats
        values = values @ weight.T + bias
        active.append(values > 0)
        values = np.maximum(values, 0.0)
    for place in reversed(range(len(network.affines))):
        slopes = slopes @ network.affines[place].floats[0]
        if place:
            slopes = slopes * active[place - 1]
    return slopes
