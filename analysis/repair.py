"""The smallest change of an affine head after which chosen specs hold over their regions.

Counterexamples become cuts: each is a point where a spec must be made to hold, which is linear
in the head's numbers. The smallest change that meets all cuts so far gives a head; where that
head still fails, there are new counterexamples; and so on, until every spec is proved (a
cutting-plane method, or counterexample-guided synthesis).

A spec whose formula is one comparison, or several joined by ``and``, such as ``predict(c)`` or
``logit(a) - logit(b) >= 1``, asks for linear conditions only: every cut is then necessary, and
the change found is the smallest. Where a formula leaves a choice, as ``predict(c) => a > b``
does (at a point where a ≤ b, some other class must win, but which?), the choice that needs the
least is taken at each point; then the change need not be the smallest, and failing to find one
does not show that there is none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from conspec.analysis.alternatives import Option, alternatives, conjuncts
from conspec.analysis.head_change import Cut, Norm, smallest
from conspec.analysis.heatmaps import Floats
from conspec.encodings.exact import from_array
from conspec.encodings.network import Affine, Network, affine
from conspec.encodings.query import Query, evaluate_at
from conspec.encodings.scores import ScoreSpace
from conspec.specs.errors import BadUsage
from conspec.specs.formula import Logit
from conspec.specs.rewrite import Halfspace, Literal, Nnf, negation_normal_form
from conspec.verifier.decide import Limits, verify
from conspec.verifier.objectives import Objective, more_witnesses
from conspec.verifier.verdict import Unknown, Violated

_ENOUGH = 0.9
"""A condition that reaches this share of the margin is met: cuts hold up to solver tolerance."""


class Failure(Enum):
    """Why no repair was found: one sentence each."""

    NO_HEAD = (
        "Changing the head does not help: at this embedding the formula fails whatever the "
        "logits that may change are."
    )
    CONTRADICTION = (
        "No change of the head meets all conditions at once with this margin; "
        "keep fewer specs, let more rows change, or lower --margin."
    )
    CHOICES_CONTRADICT = (
        "The conditions chosen at the counterexamples contradict each other; other choices "
        "might not. Keep fewer specs, or let more rows change."
    )
    TOO_MANY_STEPS = "New counterexamples kept coming up to the limit; raise --steps."
    UNDECIDED = "A spec could not be decided on a changed head; raise --timeout."
    CLASS_LOST = (
        "The changed head classifies no training image of a class correctly any more, so that "
        "regions made of them are gone; keep specs of that class, or let fewer rows change."
    )
    REGIONS_MOVE = (
        "With each changed head other training images are classified correctly, so that the "
        "regions made of them moved, up to the limit of rounds."
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """What kind of repair is wanted.

    Attributes:
        norm: what is to be small.
        margin: by how much each comparison of logits must hold, in logits; above 0, so that
            rounding to float32 cannot undo it.
        rows: classes whose weights may change; all if empty.
        steps: how often to look for new counterexamples.
        seconds: time limit of each verification and of each linear program.
    """

    norm: Norm = Norm.L2
    margin: Fraction = Fraction(1, 1000)
    rows: tuple[str, ...] = ()
    steps: int = 200
    seconds: float = 60.0

    def __post_init__(self) -> None:
        """Refuse a margin that rounding could undo."""
        if self.margin <= 0:
            raise BadUsage(f"the margin of a repair must be above 0, not {self.margin}")


@dataclass(frozen=True, eq=False)
class Change:
    """A changed head.

    Attributes:
        weight: float32 [K, n].
        bias: float32 [K].
        size: of the change, in the norm asked for, after rounding to float32.
        changed: how many of its numbers differ from before.
        smallest: whether no smaller change gives every comparison the margin (up to the
            solver's tolerance), for the regions at hand.
        steps: how often counterexamples were looked for.
        cuts: how many conditions they gave.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    size: float
    changed: int
    smallest: bool
    steps: int
    cuts: int


@dataclass(frozen=True, slots=True)
class NoChange:
    """No repair was found.

    Attributes:
        failure: why.
        spec: the spec it failed at; empty if several play a part.
        detail: numbers or an engine's words.
    """

    failure: Failure
    spec: str = ""
    detail: str = ""


@dataclass(frozen=True, eq=False)
class _Head:
    """An affine head in float64, and which of its rows may change."""

    weight: Floats
    bias: Floats
    free: tuple[int, ...]

    def moved(self, change: Floats) -> "_Head":
        """The head after a change [F · (n + 1)] of its free rows, rounded to float32."""
        weight, bias = self.weight.copy(), self.bias.copy()
        blocks = change.reshape(len(self.free), -1)
        weight[list(self.free)] += blocks[:, :-1]
        bias[list(self.free)] += blocks[:, -1]
        return _Head(
            weight.astype(np.float32).astype(np.float64),
            bias.astype(np.float32).astype(np.float64),
            self.free,
        )


def head_of(space: ScoreSpace) -> Affine:
    """The one layer of an affine head.

    Raises:
        BadUsage: the head has ReLU layers.
    """
    if not space.head.is_affine:
        raise BadUsage("only affine heads can be repaired; this one has ReLU layers")
    return space.head.affines[0]


def with_head(space: ScoreSpace, weight: Floats, bias: Floats) -> ScoreSpace:
    """The same scores with another affine head."""
    return ScoreSpace(
        space.classes,
        space.concepts,
        Network((affine(weight, bias),)),
        space.concept_map,
        space.alignment,
        space.thresholds,
    )


def find_change(queries: Sequence[Query], settings: Settings) -> Change | NoChange:
    """The smallest change of the head after which every query is proved.

    Args:
        queries: all of one score space.
        settings: what kind of change.

    Raises:
        BadUsage: the head is not affine, or a formula leaves too many choices.
        UnknownName: a row is of no class.
    """
    space = queries[0].space
    layer = head_of(space)
    names = settings.rows or space.classes
    free = tuple(sorted({space.position(Logit(name)) for name in names}))
    search = _Search(queries, settings, _Head(*layer.floats, free))
    return search.run()


class _Search:
    """The loop of cuts and counterexamples."""

    def __init__(self, queries: Sequence[Query], settings: Settings, head: _Head) -> None:
        self._queries = queries
        self._settings = settings
        self._first = head
        self._space = queries[0].space
        self._wanted = [negation_normal_form(q.spec.body, self._space.classes) for q in queries]
        self._cuts: list[Cut] = []
        self._chosen = False  # whether a cut took one of several alternatives

    def run(self) -> Change | NoChange:
        """Cuts and counterexamples in turn."""
        size = len(self._first.free) * (self._space.dimension + 1)
        change = np.zeros(size)
        for step in range(1, self._settings.steps + 1):
            head = self._first.moved(change)
            found = self._new_cuts(head)
            if isinstance(found, NoChange):
                return found
            if not found:
                return self._finished(head, step)
            self._cuts += found
            settings = self._settings
            solved = smallest(settings.norm, self._cuts, size, settings.seconds)
            if solved is None:
                failure = Failure.CHOICES_CONTRADICT if self._chosen else Failure.CONTRADICTION
                return NoChange(failure, detail=f"{len(self._cuts)} conditions")
            change = solved
        return NoChange(Failure.TOO_MANY_STEPS, detail=f"{self._settings.steps} steps")

    def _finished(self, head: _Head, steps: int) -> Change:
        first = self._first
        moved = np.hstack([head.weight - first.weight, (head.bias - first.bias)[:, None]])
        return Change(
            weight=head.weight.astype(np.float32),
            bias=head.bias.astype(np.float32),
            size=self._settings.norm.of(moved.ravel()),
            changed=int((moved != 0).sum()),
            smallest=not self._chosen,
            steps=steps,
            cuts=len(self._cuts),
        )

    def _new_cuts(self, head: _Head) -> list[Cut] | NoChange:
        """Cuts that this head does not meet; none if it makes every query proved."""
        pairs = list(zip(self._queries, self._wanted, strict=True))
        linear = [conjuncts(nnf) if not q.cuts else None for q, nnf in pairs]
        cuts = [
            cut
            for (query, _), parts in zip(pairs, linear, strict=True)
            if parts is not None
            for cut in self._worst(query, parts, head)
        ]
        space = with_head(self._space, head.weight, head.bias)
        for (query, nnf), parts in zip(pairs, linear, strict=True):
            if parts is not None and cuts:
                continue  # its own cuts come first; what is left is verified when they are met
            found = self._counterexample(query, nnf, space, head)
            if isinstance(found, NoChange):
                return found
            cuts += found
        return cuts

    def _worst(self, query: Query, parts: Sequence[Halfspace], head: _Head) -> Iterable[Cut]:
        """A cut for each comparison that lacks the margin somewhere, at its worst point."""
        movable = [literal for literal in parts if self._movable(literal)]
        if not movable:
            return
        rows = [self._row(literal, head) for literal in movable]
        weights, constants = np.stack([row for row, _ in rows]), np.array([c for _, c in rows])
        pulled, _ = query.region.pull_rough(weights, constants)
        points = query.region.points(query.region.maximisers(-pulled))
        values = (weights * points).sum(axis=1) + constants
        for literal, point, value in zip(movable, points, values, strict=True):
            if value < _ENOUGH * float(self._settings.margin):
                yield self._cut(literal, point)

    def _counterexample(
        self, query: Query, nnf: Nnf, space: ScoreSpace, head: _Head
    ) -> list[Cut] | NoChange:
        """The cuts of one counterexample, the deepest that can be found; none if it is proved."""
        asked = Query(query.spec, space, query.region, query.part, query.cuts)
        name, seconds = query.spec.name, self._settings.seconds
        verdict = verify(asked, limits=Limits(seconds))
        if isinstance(verdict, Unknown):
            return NoChange(Failure.UNDECIDED, name, verdict.reason.value)
        if not isinstance(verdict, Violated):
            return []
        wanted = (Objective.LARGEST, 1)
        witness = more_witnesses(asked, asked.constrained, verdict.witness, wanted, seconds)[0]
        point = witness.point.floats()
        return self._cuts_at(query, nnf, point, head)

    def _cuts_at(self, query: Query, nnf: Nnf, point: Floats, head: _Head) -> list[Cut] | NoChange:
        """The conditions that make a formula true at a point: those that need the least."""
        exact = from_array(point)

        def known(literal: Literal) -> bool | None:
            if isinstance(literal, Halfspace) and self._movable(literal):
                return None
            return evaluate_at(literal, self._space, exact)[0]

        options = alternatives(nnf, known, query.spec.name)
        if not options:
            where = ", ".join(f"{value:.4g}" for value in point[:4])
            return NoChange(Failure.NO_HEAD, query.spec.name, f"z = ({where}, …)")
        self._chosen |= len(options) > 1
        best = min(options, key=lambda option: self._effort(option, point, head))
        return [self._cut(literal, point) for literal in sorted(best, key=str)]

    def _effort(self, option: Option, point: Floats, head: _Head) -> float:
        """How long a change makes the hardest comparison of an option true at a point."""
        efforts = [0.0]
        for literal in option:
            row, constant = self._row(literal, head)
            cut = self._cut(literal, point)
            lacking = float(self._settings.margin) - float(row @ point) - constant
            efforts.append(lacking / float(np.linalg.norm(cut.row)))
        return max(efforts)

    def _movable(self, literal: Halfspace) -> bool:
        """Whether its value depends on a row of the head that may change."""
        places = (self._space.position(s) for _, s in literal.terms if isinstance(s, Logit))
        return any(place in self._first.free for place in places)

    def _row(self, literal: Halfspace, head: _Head) -> tuple[Floats, float]:
        """The literal over z with a head, in float64: weights [n] and constant."""
        row, constant = np.zeros(self._space.dimension), float(literal.constant)
        for factor, symbol in literal.terms:
            place = self._space.position(symbol)
            if isinstance(symbol, Logit):
                weights, bias = head.weight[place], float(head.bias[place])
            else:
                exact, shift = self._space.score_row(place)
                weights, bias = exact.floats(), float(shift)
            row += float(factor) * weights
            constant += float(factor) * bias
        return row, constant

    def _cut(self, literal: Halfspace, point: Floats) -> Cut:
        """``value at the point ≥ margin``, as a condition on the change of the first head."""
        blocks = np.zeros((len(self._first.free), len(point) + 1))
        for factor, symbol in literal.terms:
            place = self._space.position(symbol)
            if isinstance(symbol, Logit) and place in self._first.free:
                blocks[self._first.free.index(place)] += float(factor) * np.append(point, 1.0)
        row, constant = self._row(literal, self._first)
        lacking = float(self._settings.margin) - float(row @ point) - constant
        return Cut(blocks.ravel(), lacking)
