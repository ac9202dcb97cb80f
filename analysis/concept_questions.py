"""Explanations whose units are any formulas: the verifier says which of them suffice.

Units are statements of Con_spec that hold for the image, such as "wheels > wings". A set of them
suffices if ``forall x in R: (units) => predict(c)`` is proved. Each answer is kept: what contains
a sufficient set suffices, and what holds altogether at a counterexample does not, so most
questions never reach the verifier.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from math import floor

import numpy as np

from conspec.analysis.image_questions import conjunction
from conspec.encodings.exact import Vector
from conspec.encodings.query import evaluate_at, space_of
from conspec.encodings.regions import image_embedding
from conspec.encodings.rounding import Bools
from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadUsage
from conspec.specs.rewrite import Nnf, negation_normal_form
from conspec.verifier.decide import DEFAULT_LIMITS, Limits, verify_suite
from conspec.verifier.results import Result
from conspec.verifier.verdict import Proved, Violated

DIGITS = 3
"""Decimals of the scores that units name, rounded down."""


def ranking_units(lens: Lens, image: int) -> list[f.Stronger]:
    """The order of an image's concepts: each is strictly above the next in it.

    All other comparisons that hold follow from these; equal scores are left out.
    """
    scores = _concept_scores(lens, image)
    order = sorted(scores, key=lambda name: -scores[name])
    return [f.Stronger(a, b) for a, b in pairwise(order) if scores[a] > scores[b]]


def score_units(lens: Lens, image: int) -> list[f.Compare]:
    """Each concept is at least as present as in the image, up to ``DIGITS`` decimals."""
    units = []
    for name, score in _concept_scores(lens, image).items():
        least = Fraction(floor(score * 10**DIGITS), 10**DIGITS)
        left = f.Linear(((Fraction(1), f.Score(name)),))
        units.append(f.Compare(left, f.Relation.GE, f.Linear((), least)))
    return units


def _concept_scores(lens: Lens, image: int) -> dict[str, Fraction]:
    """The exact concept scores of a stored image."""
    values = space_of(lens).concept_map.exact(image_embedding(lens, image))
    return dict(zip(lens.concepts, values, strict=True))


@dataclass(eq=False)
class VerifierQuestion:
    """Which units suffice for a class over a region, as far as the verifier can tell.

    Attributes:
        lens: the bundle.
        region: the domain; any region of Con_spec.
        label: the class.
        units: U formulas, all true of the image.
        limits: of each call of the verifier.
        calls: how many specs the verifier was asked.
        undecided: how many of them it left open.
    """

    lens: Lens
    region: f.Region
    label: str
    units: Sequence[f.Formula]
    limits: Limits = DEFAULT_LIMITS
    calls: int = 0
    undecided: int = 0
    results: dict[bytes, Result] = field(default_factory=dict, repr=False)
    _sufficient: list[Bools] = field(default_factory=list, repr=False)
    _insufficient: list[Bools] = field(default_factory=list, repr=False)

    @property
    def size(self) -> int:
        """How many units there are."""
        return len(self.units)

    def spec(self, kept: Bools, name: str = "explanation") -> f.ForAll:
        """``(kept units) => predict(c)`` over the domain."""
        parts = [self.units[unit] for unit in np.flatnonzero(kept).tolist()]
        body: f.Formula = f.Predict(self.label)
        return f.ForAll(name, self.region, f.Implies(conjunction(parts), body) if parts else body)

    def sufficient(self, kept: Bools) -> bool | None:
        """Whether the units suffice; None if the verifier left it open.

        Raises:
            BadRegion: the region is empty or cannot be built.
        """
        known = self._known(kept)
        if known is None and kept.tobytes() not in self.results:
            self._ask([kept])
            known = self._known(kept)
        return known

    def smaller_kept(self, kept: Bools) -> Bools:
        """A sufficient part of a sufficient set, from which nothing could be given up.

        It is an AXp if nothing was left open on the way (``undecided``).
        """
        self._ask([_without(kept, unit) for unit in np.flatnonzero(kept).tolist()])
        kept = kept.copy()
        for unit in np.flatnonzero(kept).tolist():
            if self.sufficient(_without(kept, unit)):
                kept[unit] = False
        return kept

    def smaller_freed(self, freed: Bools) -> Bools:
        """A part of a set without which the others do not suffice, likewise; see above."""
        self._ask([~_without(freed, unit) for unit in np.flatnonzero(freed).tolist()])
        freed = freed.copy()
        for unit in np.flatnonzero(freed).tolist():
            if self.sufficient(~_without(freed, unit)) is False:
                freed[unit] = False
        return freed

    def _known(self, kept: Bools) -> bool | None:
        """What follows from earlier answers."""
        if any((~known | kept).all() for known in self._sufficient):
            return True
        return False if any((~kept | known).all() for known in self._insufficient) else None

    def _ask(self, sets: Iterable[Bools]) -> None:
        """Asks the verifier of all sets that earlier answers leave open, in one batch."""
        new = {s.tobytes(): s for s in sets if self._known(s) is None}
        asked = [kept for key, kept in new.items() if key not in self.results]
        suite = f.Suite(tuple(self.spec(kept, f"units {n}") for n, kept in enumerate(asked)))
        results = verify_suite(suite, self.lens, limits=self.limits) if asked else iter(())
        for kept, result in zip(asked, results, strict=True):
            self.calls += 1
            self.results[kept.tobytes()] = result
            match result.verdict:
                case Proved():
                    self._sufficient.append(kept)
                case Violated(witness):
                    self._insufficient.append(self._true_at(witness.point))
                case _:
                    self.undecided += 1

    def _true_at(self, point: Vector) -> Bools:
        """Which units hold at an exact embedding, where c is not predicted: bool [U]."""
        space = space_of(self.lens)
        return np.array([evaluate_at(nnf, space, point)[0] for nnf in self._forms()], dtype=bool)

    def _forms(self) -> list[Nnf]:
        """The units in negation normal form."""
        return [negation_normal_form(unit, self.lens.classes) for unit in self.units]


def concept_question(
    lens: Lens, image: int, region: f.Region, label: str, units: Sequence[f.Formula],
    limits: Limits = DEFAULT_LIMITS,
) -> VerifierQuestion:  # fmt: skip
    """The question about an image, all of whose units must be true of it.

    Raises:
        BadUsage: one of them is not.
    """
    question = VerifierQuestion(lens, region, label, units, limits)
    true = question._true_at(image_embedding(lens, image))
    if not true.all():
        raise BadUsage(f"image {image} does not satisfy {units[int(np.argmin(true))]}")
    return question


def _without(chosen: Bools, unit: int) -> Bools:
    """The set without one unit."""
    rest = chosen.copy()
    rest[unit] = False
    return rest
