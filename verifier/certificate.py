"""Certificates: what an independent checker needs to re-establish a proof.

A proof is a list of lemmas. Each names literals of the violation and a non-negative multiplier
for each: the weighted sum of the literals' left sides is below zero on the whole region (or not
above zero, and one weighted literal is strict), so they cannot hold together (Farkas). Lemmas that
no choice of literals can avoid refute the violation.
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
    """

    literal: int
    multiplier: Fraction
    direction: tuple[Fraction, ...] = ()


@dataclass(frozen=True, slots=True)
class Lemma:
    """Literals that cannot hold together on the region, with the multipliers that show it."""

    terms: tuple[Term, ...]

    @property
    def mask(self) -> int:
        """The literals as bits."""
        return sum(1 << term.literal for term in self.terms)


@dataclass(frozen=True, slots=True)
class Certificate:
    """The lemmas for each convex part of a spec's region, in the order of the parts."""

    parts: tuple[tuple[Lemma, ...], ...]


def to_json(certificate: Certificate) -> dict[str, Any]:
    """The certificate as JSON: rationals as "p/q" strings."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "parts": [[_lemma_json(lemma) for lemma in part] for part in certificate.parts],
    }


def _lemma_json(lemma: Lemma) -> list[dict[str, Any]]:
    terms = []
    for term in lemma.terms:
        entry: dict[str, Any] = {"literal": term.literal, "multiplier": str(term.multiplier)}
        if term.direction:
            entry["direction"] = [str(value) for value in term.direction]
        terms.append(entry)
    return terms


def merged(parts: Sequence[Certificate | None]) -> Certificate | None:
    """The certificate of a union from those of its parts; None if one is missing."""
    lemmas: list[tuple[Lemma, ...]] = []
    for part in parts:
        if part is None:
            return None
        lemmas += part.parts
    return Certificate(tuple(lemmas))
