"""Proofs on pieces of a box: what cannot be decided on the whole is tried on both halves.

Bounds on the norm in ``has`` literals tighten with the square of a box's width, so a few splits
often settle what one bound over the whole region leaves open.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from conspec.encodings.exact import Vector, vector
from conspec.encodings.regions import Box, box
from conspec.encodings.scores import ScoreSpace
from conspec.verifier.certificate import Lemma, Part, Split
from conspec.verifier.cones import square_bound
from conspec.verifier.verdict import Reason, Unknown, Violated

LEAVES = 200
"""Pieces of one region, at most."""

Known = Mapping[int, Lemma]
"""Lemmas that hold on the whole box, by their literals."""
Outcome = tuple[Lemma, ...] | Violated | Unknown
Attempt = Callable[[Box, Known], tuple[Outcome, Known]]
"""Tries to prove the spec on a box, knowing lemmas; gives what its halves may know, too."""


@dataclass(eq=False)
class _Piece:
    """A box with its proof, once it has one."""

    region: Box
    known: Known
    lemmas: tuple[Lemma, ...] = ()
    cut: tuple[int, Fraction] | None = None
    halves: list["_Piece"] = field(default_factory=list)

    def part(self) -> Part:
        """The proof."""
        if self.cut is None:
            return self.lemmas
        below, above = self.halves
        return Split(*self.cut, below.part(), above.part())


def prove_in_pieces(
    space: ScoreSpace, region: Box, known: Known, attempt: Attempt
) -> Part | Violated | Unknown:
    """Proves a spec on the halves of a box on which it could not be decided, and on theirs.

    The widest piece is the next to be split. A counterexample is given by its point alone, since
    its parameters would be those of a piece.
    """
    root = _Piece(region, known)
    waiting, leaves = deque([root]), 1
    while waiting:
        piece = waiting.popleft()
        piece.cut = _cut(space, piece.region)
        if piece.cut is None or leaves == LEAVES:
            return Unknown(Reason.CONE_PRECISION, f"{leaves} pieces of the region were tried.")
        leaves += 1
        for half in halves(piece.region, *piece.cut):
            outcome, handed_on = attempt(half, piece.known)
            child = _Piece(half, handed_on)
            piece.halves.append(child)
            match outcome:
                case Violated(witness):
                    return Violated(replace(witness, parameters=None))
                case Unknown(Reason.CONE_PRECISION):
                    waiting.append(child)
                case Unknown():
                    return outcome
                case _:
                    child.lemmas = outcome
    return root.part()


def _cut(space: ScoreSpace, region: Box) -> tuple[int, Fraction] | None:
    """The coordinate that makes the bound of the norm loosest, and the middle of its range."""
    bound = square_bound(space, region)
    if bound is None or not bound.shares.any():
        return None
    coordinate = int(np.argmax(bound.shares))
    ends = [
        Fraction(side.numerators[coordinate], side.denominator)
        for side in (region.lower, region.upper)
    ]
    middle = (ends[0] + ends[1]) / 2
    short = Fraction(float(middle))  # few digits keep exact arithmetic fast
    at = short if ends[0] < short < ends[1] else middle
    return (coordinate, at) if ends[0] < at < ends[1] else None


def halves(region: Box, coordinate: int, at: Fraction) -> tuple[Box, Box]:
    """The box cut in two; both halves hold the cut."""
    return (
        box(region.lower, _with_entry(region.upper, coordinate, at)),
        box(_with_entry(region.lower, coordinate, at), region.upper),
    )


def _with_entry(values: Vector, place: int, entry: Fraction) -> Vector:
    """The vector with one entry replaced."""
    entries = values.fractions()
    entries[place] = entry
    return vector(entries)
