"""Margins that carry a proof from the mapped embedding over to the VLM's own embedding.

A proof speaks of the scores ``s_a(z) = q̂_a · (A z + d)``; the VLM would say ``q̂_a · g`` with its
embedding g of the same image. Their disagreement about a pair of concepts is the residual

    r_ab = (s_a(z) − s_b(z)) − (q̂_a · g − q̂_b · g).

The map was fitted to g as the VLM gives it, not normalised, so the residual is taken there too;
as ``‖g‖ > 0`` is a common factor, ``a > b`` means the same of projections and of cosines.

Split conformal prediction: of n held-out images, which had no part in the fit, the residual of one
more exchangeable image is at most the k-th smallest, ``k = ⌈(n + 1)(1 − α)⌉``, with probability at
least 1 − α; with k > n there is no bound. A formula about g follows from one about z in which
``a > b`` is replaced by ``s_a − s_b > U_ab`` where it is asserted, and by ``s_a − s_b > −U_ba``
where it is a premise, as long as ``r_ab ≤ U_ab`` for each ordered pair that is used; α is divided
among these (Bonferroni).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from math import ceil
from typing import assert_never

import numpy as np

from conspec.encodings.query import space_of
from conspec.encodings.regions import build_regions
from conspec.encodings.rounding import TINY, Floats, gamma
from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadUsage
from conspec.specs.exact import write_number
from conspec.specs.linear import total
from conspec.specs.printer import to_text
from conspec.verifier.results import Result, coverage_of
from conspec.verifier.verdict import Reason, Unknown

DIGITS = 6
"""Significant digits of a margin."""

Pair = tuple[str, str]
"""Concepts (a, b) with the bound ``r_ab ≤ U_ab``."""


@dataclass(frozen=True, eq=False)
class Residuals:
    """``s_a(z) − q̂_a · g`` of the calibration images.

    Attributes:
        concepts: M names.
        values: float64 [n, M].
        errors: bounds of how far each value is from the exact one [n, M].
    """

    concepts: tuple[str, ...]
    values: Floats
    errors: Floats

    @classmethod
    def of(cls, lens: Lens) -> "Residuals":
        """Those of a bundle's held-out images."""
        data = lens.embeddings
        weight, bias = space_of(lens).concept_map.floats
        z = data.z[data.heldout].astype(np.float64)
        g = data.vlm[data.heldout].astype(np.float64)
        directions = data.directions.astype(np.float64)
        length = z.shape[1] + g.shape[1] + 8
        sizes = np.abs(z) @ np.abs(weight.T) + np.abs(bias) + np.abs(g) @ np.abs(directions.T)
        errors = gamma(length) * sizes * (1 + gamma(2 * length)) + length * TINY
        return cls(lens.concepts, z @ weight.T + bias - g @ directions.T, errors)

    @property
    def count(self) -> int:
        """How many calibration images n there are."""
        return len(self.values)

    def bound(self, pair: Pair, alpha: Fraction) -> Fraction | None:
        """``U_ab``: exceeded by a new image's residual with probability at most alpha.

        Rounded up to a short decimal; None if there are too few images for such a bound.
        """
        rank = rank_of(self.count, alpha)
        if rank is None:
            return None
        a, b = (self.concepts.index(concept) for concept in pair)
        gaps = self.values[:, a] - self.values[:, b]
        slack = self.errors[:, a] + self.errors[:, b] + gamma(4) * np.abs(gaps) + TINY
        above = np.sort(np.nextafter(gaps + slack * (1 + gamma(8)), np.inf))[rank - 1]
        return Fraction(Context(DIGITS, ROUND_CEILING).create_decimal(Decimal(float(above))))


def rank_of(count: int, alpha: Fraction) -> int | None:
    """Which smallest of ``count`` residuals bounds a new one but for alpha; None if none does."""
    rank = ceil((count + 1) * (1 - alpha))
    return rank if rank <= count else None


@dataclass(frozen=True, slots=True)
class Shifted:
    """A spec with margins.

    Attributes:
        spec: the spec with margins, which is what is verified; the original one if there are
            too few calibration images for margins.
        margins: ``U_ab`` for each ordered pair in use; None where there is none.
        assumptions: what a proof of the spec means then, and what for that is assumed.
    """

    spec: f.ForAll
    margins: Mapping[Pair, Fraction | None]
    assumptions: tuple[str, ...]

    @property
    def is_bounded(self) -> bool:
        """Whether there are enough calibration images for every pair."""
        return None not in self.margins.values()


def with_margins(spec: f.ForAll, residuals: Residuals, level: Fraction) -> Shifted:
    """The spec whose proof says something about the VLM's own embeddings.

    Args:
        spec: the spec as written.
        residuals: of the calibration images.
        level: 1 − α for all pairs of the spec together, in (0, 1).

    Raises:
        BadUsage: the level is out of range, or the formula has ``has`` or a comparison of concept
            scores that is not of the difference of two.
    """
    if not 0 < level < 1:
        raise BadUsage(f"an alignment margin needs a level between 0 and 1, not {level}")
    pairs = pairs_of(spec)
    alpha = (1 - level) / max(len(pairs), 1)
    margins = {pair: residuals.bound(pair, alpha) for pair in pairs}
    known = {pair: bound for pair, bound in margins.items() if bound is not None}
    if len(known) < len(margins):
        return Shifted(spec, margins, (_too_few(residuals.count, len(pairs), level),))
    body = _shifted(spec, known.__getitem__)
    said = _meaning(spec, residuals.count, len(pairs), level) if pairs else ()
    return Shifted(replace(spec, body=body), margins, said)


def undecided(spec: f.ForAll, lens: Lens, engine: str) -> Result:
    """The result of a spec for which there are too few calibration images."""
    parts = build_regions(spec.region, lens)
    coverage = coverage_of(spec.region, parts, lens, space_of(lens))
    return Result(spec, engine, Unknown(Reason.TOO_FEW_IMAGES), 0.0, coverage, "calibration")


def pairs_of(spec: f.ForAll) -> list[Pair]:
    """The ordered pairs whose residuals have to be bounded, in order of appearance."""
    found: dict[Pair, None] = {}

    def note(pair: Pair) -> Fraction:
        found[pair] = None
        return Fraction(0)

    _shifted(spec, note)
    return list(found)


def _meaning(spec: f.ForAll, count: int, pairs: int, level: Fraction) -> tuple[str, ...]:
    share = write_number(level)
    return (
        f"If proved: with probability at least {share}, a new image satisfies, for the VLM's own "
        f"embedding, {to_text(spec.body)}, or its embedding lies outside the region. "
        "A counterexample refutes the formula with margins only.",
        f"Assumes that the new image is exchangeable with the {count} held-out images, of all "
        f"classes together, and that the probability {share} is over all such images, not only "
        f"those in the region. Split conformal margins of {pairs} ordered concept "
        f"{'pair' if pairs == 1 else 'pairs'} (Bonferroni), in units of the VLM's embedding as it "
        "gives it.",
    )


def _too_few(count: int, pairs: int, level: Fraction) -> str:
    least = ceil(pairs / (1 - level)) - 1
    return (
        f"{count} held-out images are too few to calibrate on: {pairs} ordered concept "
        f"{'pair' if pairs == 1 else 'pairs'} at level {write_number(level)} "
        f"{'needs' if pairs == 1 else 'need'} at least {least}."
    )


def _shifted(spec: f.ForAll, bound: Callable[[Pair], Fraction]) -> f.Formula:
    """The formula with the margin ``bound(a, b)`` for each ordered pair."""

    def rewritten(node: f.Formula, asserted: bool) -> f.Formula:
        match node:
            case f.Constant() | f.Predict():
                return node
            case f.Stronger(a, b):
                if a == b:
                    return node
                difference = f.Linear(((Fraction(1), f.Score(a)), (Fraction(-1), f.Score(b))))
                stronger = f.Compare(difference, f.Relation.GT, f.Linear(()))
                return _moved(spec, stronger, asserted, bound)
            case f.Compare():
                return _moved(spec, node, asserted, bound)
            case f.Has(concept):
                raise BadUsage(
                    f"spec {spec.name}: has({concept}) cannot be given an alignment margin; "
                    "compare two concepts instead, or leave out --alignment-margin"
                )
            case f.Not(operand):
                return f.Not(rewritten(operand, not asserted))
            case f.And(operands):
                return f.And(tuple(rewritten(part, asserted) for part in operands))
            case f.Or(operands):
                return f.Or(tuple(rewritten(part, asserted) for part in operands))
            case f.Implies(premise, conclusion):
                return f.Implies(rewritten(premise, not asserted), rewritten(conclusion, asserted))
            case f.Iff(left, right):
                both = f.And((f.Implies(left, right), f.Implies(right, left)))
                return rewritten(both, asserted)
            case f.AtLeast(count, operands):
                return f.AtLeast(count, tuple(rewritten(part, asserted) for part in operands))
            case f.AtMost(count, operands):
                return f.AtMost(count, tuple(rewritten(part, not asserted) for part in operands))
            case _:
                assert_never(node)

    return rewritten(spec.body, True)


def _moved(
    spec: f.ForAll, node: f.Compare, asserted: bool, bound: Callable[[Pair], Fraction]
) -> f.Compare:
    """A comparison made harder by its margin where it is asserted, easier where it is not."""
    upward = node.relation in (f.Relation.GT, f.Relation.GE)
    sign = 1 if upward else -1
    difference = total([(sign, node.left), (-sign, node.right)])
    scores = [(factor, s.concept) for factor, s in difference.terms if isinstance(s, f.Score)]
    if not scores:
        return node
    if len(scores) != 2 or scores[0][0] + scores[1][0] != 0:
        raise BadUsage(
            f"spec {spec.name}: {to_text(node)} is no comparison of two concepts' scores, as "
            "score(a) - score(b) >= 0.1 is; only those can be given an alignment margin"
        )
    # The difference is factor · (score(a) − score(b)) + …, and must be above zero.
    (factor, a), (_, b) = sorted(scores, reverse=True)
    shift = factor * (bound((a, b)) if asserted else -bound((b, a)))
    right = replace(node.right, constant=node.right.constant + sign * shift)
    return replace(node, right=right)
