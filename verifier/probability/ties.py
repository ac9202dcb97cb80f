"""Comparisons that floating point leaves open, decided in rational arithmetic, one at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from conspec.encodings.exact import Vector, from_array
from conspec.encodings.scores import ScoreSpace, signed_square
from conspec.verifier.probability.compiled import NORM, Atom

Tensor = Any  # torch.Tensor; torch is imported when first used

KEPT = 256
"""Embeddings whose exact scores are remembered: the same one (all zeros, say) may come often."""


@dataclass(eq=False)
class ExactRow:
    """The exact scores of one embedding, each computed when first asked for."""

    space: ScoreSpace
    point: Vector
    _full: Vector = field(init=False)
    _scores: dict[int, Fraction] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The hidden layer belongs to what scores are affine in."""
        self._full = self.space.with_hidden(self.point)

    def score(self, position: int) -> Fraction:
        """A logit, a concept's score or a coordinate; for ``NORM`` the squared norm."""
        if position not in self._scores:
            if position == NORM:
                mapped = self.space.aligned.exact(self.point)
                value = sum((entry * entry for entry in mapped), Fraction(0))
            else:
                weights, constant = self.space.score_row(position)
                value = weights.dot_plus(self._full, constant)
            self._scores[position] = value
        return self._scores[position]

    def holds(self, atom: Atom) -> bool:
        """Whether an atom is true; a comparison with the norm is squared with its sign."""
        if any(position == NORM for _, position in atom.terms):
            factors = {position: factor for factor, position in atom.terms}
            share = factors.pop(NORM)
            (position,) = factors
            return signed_square(self.score(position)) > signed_square(-share) * self.score(NORM)
        return sum((f * self.score(p) for f, p in atom.terms), atom.constant) > 0

    def winner(self, classes: Sequence[int]) -> int:
        """The class among those given whose logit is strictly the greatest; −1 for a tie."""
        logits = [self.score(place) for place in classes]
        best = max(logits)
        return classes[logits.index(best)] if logits.count(best) == 1 else -1


@dataclass(eq=False)
class ExactScores:
    """Exact rows by their content.

    Attributes:
        space: the score functions.
        decided: how many comparisons and predictions were decided here.
    """

    space: ScoreSpace
    decided: int = 0
    _rows: dict[bytes, ExactRow] = field(default_factory=dict)

    def row(self, embedding: Tensor) -> ExactRow:
        """The exact row of an embedding [n] of any float type."""
        entries = np.asarray(embedding.double().cpu().numpy())
        key = entries.tobytes()
        if key not in self._rows:
            if len(self._rows) >= KEPT:
                self._rows.clear()
            self._rows[key] = ExactRow(self.space, from_array(entries))
        return self._rows[key]

    def winner(self, embedding: Tensor, classes: Sequence[int]) -> int:
        """See ``ExactRow.winner``."""
        self.decided += 1
        return self.row(embedding).winner(classes)

    def decide(
        self, embeddings: Tensor, atoms: Sequence[Atom], truth: Tensor, known: Tensor
    ) -> None:
        """Writes into ``truth`` [A, N] whether atoms hold where ``known`` [A, N] is false."""
        open_places = (~known).nonzero().tolist()
        self.decided += len(open_places)
        for index, place in open_places:
            truth[index, place] = self.row(embeddings[place]).holds(atoms[index])
