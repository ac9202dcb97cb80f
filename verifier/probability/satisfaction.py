"""How many embeddings satisfy each formula of a suite, counted exactly, as matrix work.

Scores of a chunk of embeddings are a few matrix products; formulas are Boolean work on whole
columns. Both are done in float32 first (float64 for float64 embeddings), with rigorous bounds of
the rounding errors. Embeddings on which a formula stays open within these bounds are done again in
float64, and the comparisons that stay open there in rational arithmetic. So the counts are those of
``conspec.specs.semantics.holds`` over the exact scores, whatever the device.

A count is a statistic of the embeddings it was taken of. It proves nothing of others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.scores import ScoreSpace
from conspec.specs.errors import BadUsage
from conspec.specs.formula import (
    Both,
    Either,
    Ellipsoid,
    Focus,
    ForAll,
    Formula,
    Hull,
    Logit,
    PcaBox,
    Region,
    Spec,
    Zonotope,
)
from conspec.verifier.probability.compiled import Atom, Program, compiled
from conspec.verifier.probability.levels import Format, Level, single_is_exact
from conspec.verifier.probability.shards import NONE, Chunk, Shard, Skipped, chunks
from conspec.verifier.probability.ties import ExactScores

Tensor = Any  # torch.Tensor; torch is imported when first used

ROWS = {"cpu": 2048, "cuda": 16_384}
"""Embeddings evaluated at a time; with the number of formulas, this bounds the memory."""
TOO_MANY = 4
"""Float32 is given up for comparisons once more than one embedding in so many stayed open."""


@dataclass(frozen=True, slots=True)
class Question:
    """How many images of a class (of all, if ``label`` is None) satisfy a formula?"""

    formula: Formula
    label: str | None = None


@dataclass(frozen=True, eq=False)
class Satisfaction:
    """Answers to S questions.

    Attributes:
        counts: embeddings that satisfy the formula, int64 [S].
        totals: embeddings of the question's population, int64 [S].
        rows: usable embeddings of the stream.
        skipped: rows with NaN or infinite entries, in neither counts nor totals.
        retried: embeddings that were evaluated again in float64, for predictions or comparisons.
        exact: comparisons and predictions that rational arithmetic decided.
    """

    counts: NDArray[np.int64]
    totals: NDArray[np.int64]
    rows: int
    skipped: Skipped
    retried: int
    exact: int


def question_of(spec: Spec) -> Question:
    """The question a spec asks of a population: its class, or that of its region, or everyone."""
    label = class_of(spec.region) if isinstance(spec, ForAll) else spec.population.label
    return Question(spec.body, label)


def class_of(region: Region) -> str | None:
    """The class whose images a region is about, None for all images."""
    match region:
        case Focus(label, _) | PcaBox(label, _) | Zonotope(label, _) | Ellipsoid(label, _):
            return label
        case Hull(label):
            return label
        case Both(parts):  # what lies in all parts lies in the one that names a class
            found = {class_of(part) for part in parts} - {None}
            return found.pop() if len(found) == 1 else None
        case Either(parts):
            found = {class_of(part) for part in parts}
            return found.pop() if len(found) == 1 else None
        case _:
            return None


def count_satisfied(
    shards: Iterable[Shard], questions: Sequence[Question], space: ScoreSpace, device: str = "cpu"
) -> Satisfaction:
    """Counts, in one pass, the embeddings that satisfy each question's formula.

    Args:
        shards: embeddings, with labels if a question is about a class.
        questions: S questions; equal formulas are evaluated once.
        space: head, concept map, alignment and thresholds.
        device: where to compute, for instance ``cuda``.

    Raises:
        UnknownName: a question names a class, concept, coordinate or threshold that is not there.
        BadUsage: labels are missing, embeddings have another dimension than the head reads, or a
            coefficient is too large.
    """
    counter = Counter(questions, space, device)
    for chunk in chunks(shards, ROWS.get(device.partition(":")[0], ROWS["cuda"]), device):
        counter.add(chunk)
    return counter.result()


@dataclass(eq=False)
class Counter:
    """Counts while embeddings come in.

    Attributes:
        questions: S questions.
        space: the score functions.
        device: where the chunks lie.
    """

    questions: Sequence[Question]
    space: ScoreSpace
    device: str = "cpu"
    _rows: int = 0
    _skipped: Skipped = NONE
    _retried: int = 0
    _tried: int = 0
    _open: int = 0
    _program: Program = field(init=False)
    _exact: ExactScores = field(init=False)

    def __post_init__(self) -> None:
        """Compiles the suite."""
        import torch

        self._program = compiled([question.formula for question in self.questions], self.space)
        self._exact = ExactScores(self.space)
        columns = self._program.columns
        self._simple_atoms = [
            Atom(((Fraction(1), columns[a]), (Fraction(-1), columns[b])))
            for a, b in zip(self._program.left, self._program.right, strict=True)
        ]
        self._levels = [
            Level(self._program, self.space, Format(dtype, self.device))
            for dtype in (torch.float32, torch.float64)
        ]
        self._row_of = torch.tensor(self._program.row_of, dtype=torch.int64, device=self.device)
        places = [
            -1 if question.label is None else self.space.position(Logit(question.label))
            for question in self.questions
        ]
        self._class_of = torch.tensor(places, dtype=torch.int32, device=self.device)
        self._counts = torch.zeros(len(places), dtype=torch.int64, device=self.device)
        self._totals = torch.zeros_like(self._counts)

    @property
    def in_double(self) -> bool:
        """Whether comparisons are begun in float64, because float32 left too many open."""
        return self._open * TOO_MANY > self._tried

    def result(self) -> Satisfaction:
        """The answers so far."""
        return Satisfaction(
            self._counts.cpu().numpy().copy(),
            self._totals.cpu().numpy().copy(),
            self._rows,
            self._skipped,
            self._retried,
            self._exact.decided,
        )

    def add(self, chunk: Chunk) -> None:
        """Takes a chunk of embeddings into account.

        Raises:
            BadUsage: labels are missing, or the dimension is not what the head reads.
        """
        import torch

        if chunk.embeddings.shape[1] != self.space.dimension:
            found, expected = chunk.embeddings.shape[1], self.space.dimension
            raise BadUsage(f"embeddings have {found} entries, the head reads {expected}")
        self._skipped = self._skipped.merged(chunk.skipped)
        self._rows += len(chunk.embeddings)
        members = self._members(chunk)
        if not len(chunk.embeddings) or not len(self.questions):
            return
        # float64 embeddings, and products that torch may compute in less than float32, begin high.
        high = chunk.embeddings.dtype == torch.float64 or not single_is_exact()
        predicted = self._class_of.new_zeros(len(chunk.embeddings))
        if self._program.predicts:
            predicted = self._predicted(chunk.embeddings, int(high))
        truth = self._truth(chunk.embeddings, predicted, members, int(high or self.in_double))
        satisfied = truth.index_select(0, self._row_of)
        if members is None:
            self._totals += len(chunk.embeddings)
        else:
            satisfied &= members
            self._totals += members.sum(1)
        self._counts += satisfied.sum(1)

    def _members(self, chunk: Chunk) -> Tensor | None:
        """Which embeddings are in each question's population, bool [S, N]; None for all in all."""
        everyone = self._class_of < 0
        if bool(everyone.all()):
            return None
        if chunk.labels is None:
            raise BadUsage("questions about a class need the labels of the embeddings")
        same = chunk.labels.int()[None] == self._class_of[:, None]
        return same.logical_or_(everyone[:, None])

    def _predicted(self, embeddings: Tensor, level: int, classes: Tensor | None = None) -> Tensor:
        """The class whose logit is strictly the greatest, exactly; −1 for a tie; int64 [N]."""
        guess = self._levels[level].predictions(embeddings, classes)
        predicted, again = guess.predicted, embeddings[guess.unsure]
        if len(again) and level == 0:
            self._retried += len(again)
            # Only classes that may win somewhere have to be looked at again.
            rivals = guess.classes[guess.rivals.any(0)]
            predicted[guess.unsure] = self._predicted(again, 1, rivals)
        elif len(again):
            found = [
                self._exact.winner(z, guess.classes[few].tolist())
                for z, few in zip(again, guess.rivals, strict=True)
            ]
            predicted[guess.unsure] = predicted.new_tensor(found)
        return predicted

    def _truth(
        self, embeddings: Tensor, predicted: Tensor, members: Tensor | None, level: int
    ) -> Tensor:
        """Whether each formula holds, bool [F, N]; exact where it is asked for."""
        true, undecided = self._evaluated(embeddings, predicted, level, exact=False)
        asked = undecided.index_select(0, self._row_of)
        if members is not None:
            asked &= members
        rows = asked.any(0).nonzero()[:, 0]
        if level == 0:
            self._tried += len(embeddings)
            self._open += len(rows)
            self._retried += len(rows)
        if len(rows):
            again = embeddings[rows], predicted[rows]
            if level == 0:
                some = None if members is None else members[:, rows]
                true[:, rows] = self._truth(*again, some, 1)
            else:
                true[:, rows] = self._evaluated(*again, 1, exact=True)[0]
        return true

    def _evaluated(
        self, embeddings: Tensor, predicted: Tensor, level: int, *, exact: bool
    ) -> tuple[Tensor, Tensor]:
        """Whether each formula is surely true, and whether it is open, bool [F, N] each.

        With ``exact``, open comparisons are decided in rational arithmetic, so no formula is open.
        """
        import torch

        program, now = self._program, self._levels[level]
        values = now.values(embeddings)
        simple = len(program.left)
        shape = (simple + len(program.judges), len(embeddings))
        true = torch.empty(shape, dtype=torch.bool, device=self.device)
        undecided = torch.empty_like(true)
        above, below = now.simple(values)
        excused = now.excused(predicted)
        known = above | below | excused
        if exact:
            self._exact.decide(embeddings, self._simple_atoms, above, known)
        torch.logical_or(above, excused, out=true[:simple])
        torch.logical_not(known, out=undecided[:simple])
        facts = now.facts(values, predicted)
        if exact:
            self._exact.decide(embeddings, program.atoms, facts.true, facts.true | facts.false)
            torch.logical_not(facts.true, out=facts.false)
        for row, judge in enumerate(program.judges, simple):
            true[row], false = judge(facts)
            torch.logical_or(true[row], false, out=undecided[row]).logical_not_()
        return true, undecided
