"""The propositional part of a proof: does every way to satisfy the violation hit a lemma?

A lemma is a set of literals that cannot hold together. The violation is refuted when no choice
of literals that satisfies it avoids all lemmas. The search is plain backtracking over the formula
in negation normal form, with sets of literals as bit masks: what must hold is chosen first, a
choice with one open option left is made at once, and the narrowest choice is split. No choice
holds both ``has(a)`` and its negation.

This file is part of the trusted base: the certificate checker decides with it. It imports
nothing but the rewriting.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from conspec.specs.rewrite import All, Cone, Count, Halfspace, Literal, Nnf, Some

BUDGET = 200_000
"""Steps of one search; more than any sensible spec needs."""


class TooHard(Exception):
    """The search took more than its budget of steps."""


@dataclass
class Search:
    """A search for a set of literals that satisfies a formula and contains no lemma.

    Attributes:
        places: bit of each literal.
        lemmas: bit masks; no chosen set may contain one.
        steps: how many steps are left.
        used: after a search without result, the lemmas that it met; they alone suffice.
    """

    places: dict[Literal, int]
    lemmas: list[int]
    steps: int = BUDGET
    used: set[int] = field(default_factory=set)
    opposites: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Notes which literals are each other's negations."""
        cones = [literal for literal in self.places if isinstance(literal, Cone)]
        pairs = [(cone, Cone(cone.concept, not cone.holds)) for cone in cones if cone.holds]
        self.opposites = tuple(
            1 << self.places[cone] | 1 << self.places[other]
            for cone, other in pairs
            if other in self.places
        )

    def implicant(self, nnf: Nnf) -> int | None:
        """Bits of literals that make the formula true and avoid all lemmas; None if none do.

        Raises:
            TooHard: the budget is used up.
        """
        self.used.clear()
        return self._extend([(1, (nnf,))], 0)

    def _extend(self, goals: Sequence[tuple[int, tuple[Nnf, ...]]], chosen: int) -> int | None:
        """Satisfy goals "at least count of these" on top of what is chosen."""
        todo = list(goals)
        choices: list[tuple[int, tuple[Nnf, ...]]] = []
        while todo:
            self.steps -= 1
            if self.steps < 0:
                raise TooHard
            count, parts = todo.pop()
            count, parts = self._open(count, parts, chosen)
            if count <= 0:
                continue
            if count > len(parts):
                return None
            if count < len(parts):
                choices.append((count, parts))
                continue
            for part in parts:
                match part:
                    case Halfspace() | Cone():
                        chosen |= 1 << self.places[part]
                        if self._clashes(chosen):
                            return None
                        # What was chosen may have closed options of the choices seen so far.
                        todo += choices
                        choices = []
                    case All(operands):
                        todo.append((len(operands), operands))
                    case Some(operands):
                        todo.append((1, operands))
                    case Count(least, operands):
                        todo.append((least, operands))
        if not choices:
            return chosen
        return self._split(choices, chosen)

    def _split(self, choices: list[tuple[int, tuple[Nnf, ...]]], chosen: int) -> int | None:
        """Either the first option of the narrowest choice holds, or it need not."""
        choices.sort(key=lambda goal: len(goal[1]))
        (count, parts), rest = choices[0], choices[1:]
        first, others = parts[0], parts[1:]
        found = self._extend([*rest, (1, (first,)), (count - 1, others)], chosen)
        if found is not None:
            return found
        return self._extend([*rest, (count, others)], chosen)

    def _open(self, count: int, parts: tuple[Nnf, ...], chosen: int) -> tuple[int, tuple[Nnf, ...]]:
        """The goal without options that are chosen already or would clash with a lemma."""
        left = []
        for part in parts:
            if isinstance(part, Halfspace | Cone):
                bit = 1 << self.places[part]
                if chosen & bit:
                    count -= 1
                    continue
                if self._clashes(chosen | bit):
                    continue
            elif part == All(()):
                count -= 1
                continue
            left.append(part)
        return count, tuple(left)

    def _clashes(self, chosen: int) -> bool:
        """Whether the set contains a lemma."""
        for lemma in self.lemmas:
            if lemma & chosen == lemma:
                self.used.add(lemma)
                return True
        return any(pair & chosen == pair for pair in self.opposites)
