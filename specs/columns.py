"""A batch of scores, and its columns by name, for numpy arrays and torch tensors alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from conspec.specs.errors import BadUsage, UnknownName
from conspec.specs.formula import (
    Compare,
    Coordinate,
    Has,
    Linear,
    Logit,
    Predict,
    Score,
    Stronger,
    Symbol,
)

Array = Any  # numpy.ndarray or torch.Tensor: the same code serves both


@dataclass(frozen=True, slots=True)
class ScoreBatch:
    """The scores of N images with K classes and M concepts, as numpy arrays or torch tensors.

    Attributes:
        logits: Shape [N, K].
        concepts: Shape [N, M].
        class_names: K names.
        concept_names: M names.
        cosines: Shape [N, M], needed only for ``has``.
        thresholds: Per concept, needed only for ``has``.

    Raises:
        BadUsage: the shapes do not fit the names.
    """

    logits: Array
    concepts: Array
    class_names: Sequence[str]
    concept_names: Sequence[str]
    cosines: Array | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    embeddings: Array | None = None

    def __post_init__(self) -> None:
        """Checks shapes, so that no evaluation has to."""
        n = len(self.logits)
        shapes = [("logits", self.logits, len(self.class_names))]
        shapes.append(("concepts", self.concepts, len(self.concept_names)))
        if self.cosines is not None:
            shapes.append(("cosines", self.cosines, len(self.concept_names)))
        for name, array, width in shapes:
            if tuple(array.shape) != (n, width):
                raise BadUsage(f"{name}: expected shape ({n}, {width}), got {tuple(array.shape)}")


class Columns:
    """Columns of a batch by name, in float64, and the few array operations that passes need."""

    def __init__(self, batch: ScoreBatch) -> None:
        """Finds out whether the arrays are numpy's or torch's."""
        self.batch = batch
        if type(batch.logits).__module__.partition(".")[0] == "torch":
            import torch

            self.space: Any = torch
        else:
            import numpy

            self.space = numpy

    def full(self, value: object, dtype: object) -> Array:
        """One value for every image: shape [N]."""
        return self.space.full_like(self.batch.concepts[:, 0], value, dtype=dtype)

    def infinite(self, positive: bool) -> Array:
        """Plus or minus infinity for every image."""
        return self.full(float("inf") if positive else float("-inf"), self.space.float64)

    def concept(self, name: str) -> Array:
        """The scores of a concept."""
        return self._column(self.batch.concepts, self.batch.concept_names, name)

    def symbol(self, symbol: Symbol) -> Array:
        """The logits of a class, the scores of a concept, or a coordinate of the embeddings."""
        match symbol:
            case Logit(label):
                return self._column(self.batch.logits, self.batch.class_names, label)
            case Score(concept):
                return self.concept(concept)
            case Coordinate(index):
                if self.batch.embeddings is None or index >= self.batch.embeddings.shape[1]:
                    raise BadUsage(f"z({index}) needs embeddings with that coordinate")
                return self._float64(self.batch.embeddings[:, index])
            case _:
                assert_never(symbol)

    def margin(self, atom: Stronger | Predict | Has) -> Array:
        """Left minus right of an atom that is strict."""
        match atom:
            case Stronger(a, b):
                return self.concept(a) - self.concept(b)
            case Predict(label):
                return self.lead(label)
            case Has(concept):
                return self.excess(concept)
            case _:
                assert_never(atom)

    def lead(self, label: str) -> Array:
        """The logit of a class minus the greatest other one."""
        own = _index(self.batch.class_names, label)
        rivals = [other for other in range(len(self.batch.class_names)) if other != own]
        if not rivals:
            return self.infinite(True)
        logits = self._float64(self.batch.logits)
        return logits[:, own] - self.space.amax(logits[:, rivals], 1)

    def excess(self, concept: str) -> Array:
        """The cosine with a concept's direction minus its threshold."""
        if self.batch.cosines is None or concept not in self.batch.thresholds:
            missing = "cosines" if self.batch.cosines is None else "threshold"
            raise BadUsage(f"has({concept}) needs the concept's {missing}, which is not given")
        cosine = self._column(self.batch.cosines, self.batch.concept_names, concept)
        return cosine - self.batch.thresholds[concept]

    def difference(self, comparison: Compare) -> Array:
        """Left minus right of a comparison."""
        return self.linear(comparison.left) - self.linear(comparison.right)

    def linear(self, linear: Linear) -> Array:
        """The value of a linear expression."""
        try:
            weighted = [(float(weight), symbol) for weight, symbol in linear.terms]
            constant = float(linear.constant)
        except OverflowError:
            raise BadUsage("a coefficient is too large for floating point") from None
        start = self.full(constant, self.space.float64)
        return sum([weight * self.symbol(symbol) for weight, symbol in weighted], start)

    def greatest(self, count: int, margins: Sequence[Array]) -> Array:
        """The ``count``-th greatest of some margins: at least ``count`` are no smaller."""
        if count <= 0 or count > len(margins):
            return self.infinite(count <= 0)
        # Insertion into a list of the greatest so far, written with min and max only, which
        # numpy and torch spell alike.
        best = [self.infinite(True), *(self.infinite(False) for _ in range(count))]
        for new in margins:
            for place in range(count, 0, -1):
                pushed = self.space.minimum(best[place - 1], new)
                best[place] = self.space.maximum(best[place], pushed)
        return best[count]

    def _column(self, array: Array, names: Sequence[str], name: str) -> Array:
        return self._float64(array[:, _index(names, name)])

    def _float64(self, array: Array) -> Array:
        return self.space.asarray(array, dtype=self.space.float64)


def _index(names: Sequence[str], name: str) -> int:
    if name not in names:
        raise UnknownName(f"the scores have no column for '{name}'")
    return list(names).index(name)
