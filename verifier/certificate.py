"""Certificates: what an independent checker needs to re-establish a proof.

A proof is a list of lemmas. Each names literals of the violation and a non-negative multiplier
for each: the weighted sum of the literals' left sides is below zero on the whole region (or not
above zero, and one weighted literal is strict), so they cannot hold together (Farkas). Lemmas that
no choice of literals can avoid refute the violation.

Where bounds on ``has`` literals are not tight enough on the whole region, a box is split in two
along a coordinate, and each half has a proof of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

FORMAT = "conspec-certificate"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Term:
    """A literal's share in a lemma.

    Attributes:
        literal: its place among the literals of the violation, in order of appearance.
        multiplier: positive.
        direction: for a ``has`` literal, the vector u with ``‖u‖ ≤ 1`` whose tangent cut
            ``u·e ≤ ‖e‖`` stands for it; empty for a half-space.
        norm: for a ``has`` literal that is not convex, the N of the upper bound
            ``‖e‖ ≤ (q(e) + N²) / 2N`` that stands for it; else None.
    """

    literal: int
    multiplier: Fraction
    direction: tuple[Fraction, ...] = ()
    norm: Fraction | None = None


@dataclass(frozen=True, slots=True)
class Lemma:
    """Literals that cannot hold together on the region, with the multipliers that show it."""

    terms: tuple[Term, ...]

    @property
    def mask(self) -> int:
        """The literals as bits."""
        return sum(1 << place for place in {term.literal for term in self.terms})


@dataclass(frozen=True, slots=True)
class Split:
    """Proofs on both halves of a box.

    Attributes:
        coordinate: across which the box is cut.
        at: where; between the box's bounds.
        below: the proof on the half with smaller values, the cut included.
        above: the proof on the other half, the cut included.
    """

    coordinate: int
    at: Fraction
    below: "Part"
    above: "Part"


Part = tuple[Lemma, ...] | Split
"""The proof on one convex part of a region, or on a piece of it."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """The proof on each convex part of a spec's region, in the order of the parts."""

    parts: tuple[Part, ...]


def to_json(certificate: Certificate) -> dict[str, Any]:
    """The certificate as JSON: rationals as "p/q" strings."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "parts": [_part_json(part) for part in certificate.parts],
    }


def _part_json(part: Part) -> list[list[dict[str, Any]]] | dict[str, Any]:
    if isinstance(part, Split):
        return {
            "split": {"coordinate": part.coordinate, "at": str(part.at)},
            "below": _part_json(part.below),
            "above": _part_json(part.above),
        }
    return [_lemma_json(lemma) for lemma in part]


def _lemma_json(lemma: Lemma) -> list[dict[str, Any]]:
    terms = []
    for term in lemma.terms:
        entry: dict[str, Any] = {"literal": term.literal, "multiplier": str(term.multiplier)}
        if term.direction:
            entry["direction"] = [str(value) for value in term.direction]
        if term.norm is not None:
            entry["norm"] = str(term.norm)
        terms.append(entry)
    return terms


def merged(parts: Sequence[Certificate | None]) -> Certificate | None:
    """The certificate of a union from those of its parts; None if one is missing."""
    proofs: list[Part] = []
    for part in parts:
        if part is None:
            return None
        proofs += part.parts
    return Certificate(tuple(proofs))
