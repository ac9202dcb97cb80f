"""Rules as statements about whole regions: proved, refuted, complete, free of conflicts.

A rule says that its predicates imply its class. Predicates bound single features, so over a box
they leave a smaller box, on which the lead of each rival has its maximum in closed form: a batch
of rules is a matrix product with a rigorous error bound. Its dual multipliers are the certificate:
for each rival one lemma, the rival's literal plus ``|W_kj − W_cj|`` times each predicate that
stops feature j on the rival's side. Rules that this leaves open, and regions that are no boxes,
go to the verifier.

A rule set is complete over a region if every embedding of it satisfies a rule, and free of
conflicts if none satisfies rules of two classes. Both are formulas that the verifier decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from time import monotonic

import numpy as np

from conspec.analysis.image_questions import conjunction
from conspec.analysis.predicates import Predicate
from conspec.encodings.exact import Vector, combination
from conspec.encodings.query import space_of
from conspec.encodings.regions import Box, build_regions
from conspec.encodings.rounding import Bools, Floats, row_bounds
from conspec.encodings.scores import ScoreSpace
from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadUsage
from conspec.specs.rewrite import Halfspace, literals, negation_normal_form
from conspec.verifier.certificate import Certificate, Lemma, Term
from conspec.verifier.decide import DEFAULT_LIMITS, Limits, verify_suite
from conspec.verifier.results import Result, coverage_of
from conspec.verifier.screen import rows_of
from conspec.verifier.verdict import Proved, Trust

CLOSED_FORM = "clipped box"
"""The stage that decides a rule by the box that its predicates leave."""
BATCH = 256
"""Rules bounded at once; it bounds the memory."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A rule over a region.

    Attributes:
        name: what the spec is called.
        label: the class that it concludes.
        predicates: what it asks for; one at least.
        region: over which it is to hold.
    """

    name: str
    label: str
    predicates: tuple[Predicate, ...]
    region: f.Region

    @property
    def premise(self) -> f.Formula:
        """All its predicates."""
        return conjunction([predicate.formula for predicate in self.predicates])

    @property
    def spec(self) -> f.ForAll:
        """``forall x in region: (predicates) => predict(class)``."""
        return f.ForAll(self.name, self.region, f.Implies(self.premise, f.Predict(self.label)))


@dataclass(frozen=True, eq=False)
class RuleProof:
    """What is known of a rule over its region.

    Attributes:
        claim: the rule.
        result: the verdict, with the region's coverage.
        inside: held-out images in the region, of any class.
        matching: those of them that satisfy the rule's predicates. Of a proved rule the model
            predicts the class for all of them, and for whatever else lies there.
        lead: by this, at least, the class leads each other one wherever the rule matches. None
            for vacuous rules, and for those that the verifier decided.
    """

    claim: Claim
    result: Result
    inside: int
    matching: int
    lead: float | None


def prove_rules(
    claims: Sequence[Claim], lens: Lens, limits: Limits = DEFAULT_LIMITS
) -> list[RuleProof]:
    """Prove or refute rules, each over its region.

    Raises:
        BadUsage: the head has hidden layers, so predicates are not about embeddings.
        BadRegion: a region is empty or cannot be built.
        UnknownName: there is no such class.
    """
    space = space_of(lens)
    _refuse_hidden(space)
    known: dict[int, tuple[Result, float | None]] = {}
    groups: dict[tuple[f.Region, str], list[int]] = {}
    for place, claim in enumerate(claims):
        lens.class_index(claim.label)
        groups.setdefault((claim.region, claim.label), []).append(place)
    for places in groups.values():
        for start in range(0, len(places), BATCH):
            part = places[start : start + BATCH]
            found = _in_closed_form([claims[place] for place in part], lens, space)
            known |= {place: r for place, r in zip(part, found, strict=True) if r is not None}
    left = [place for place in range(len(claims)) if place not in known]
    suite = f.Suite(tuple(claims[place].spec for place in left))
    decided = verify_suite(suite, lens, limits=limits)
    known |= {place: (result, None) for place, result in zip(left, decided, strict=True)}
    insides = {region: _inside(region, lens) for region, _ in groups}
    return [
        _counted(claim, known[place], insides[claim.region]) for place, claim in enumerate(claims)
    ]


def _refuse_hidden(space: ScoreSpace) -> None:
    if not space.head.is_affine:
        raise BadUsage(
            "the head has hidden layers, so its predicates bound neurons of the last one; Con_spec "
            "does not speak of these, and rules about them cannot be proved over a region"
        )


def _inside(region: f.Region, lens: Lens) -> Floats:
    """The held-out embeddings [m, n] in a region."""
    points = lens.embeddings.z[lens.embeddings.heldout].astype(np.float64)
    chosen = np.zeros(len(points), dtype=bool)
    for part in build_regions(region, lens):
        members = part.region.members(points)
        if part.cuts and len(points):
            rows = rows_of(space_of(lens), part.cuts)
            members &= (points @ rows.rows.T + rows.constants >= 0).all(axis=1)
        chosen |= members
    return points[chosen]


def _counted(claim: Claim, found: tuple[Result, float | None], inside: Floats) -> RuleProof:
    """A verdict and a lead, with the images of the region [m, n] that match counted."""
    active = [predicate.holds(inside) for predicate in claim.predicates]
    result, lead = found
    return RuleProof(claim, result, len(inside), int(np.all(active, axis=0).sum()), lead)


# --- closed form -------------------------------------------------------------------------------


def _in_closed_form(
    claims: Sequence[Claim], lens: Lens, space: ScoreSpace
) -> list[tuple[Result, float | None] | None]:
    """Proofs of rules of one region and class, with the lead of that class.

    None where the clipped box does not prove them.
    """
    start = monotonic()
    region, label = claims[0].region, claims[0].label
    parts = build_regions(region, lens)
    base = parts[0].region
    if len(parts) != 1 or parts[0].cuts or not isinstance(base, Box) or base.is_empty:
        return [None] * len(claims)
    clips = [_Clip.of(claim, base) for claim in claims]
    bounds = _lead_bounds(clips, base, label, space).tolist()
    coverage = coverage_of(region, parts, lens, space)
    proofs: list[tuple[Proved, float | None] | None] = []
    for claim, clip, bound in zip(claims, clips, bounds, strict=True):
        if clip.contradiction:
            certificate = _vacuous(claim, clip, space)
            proofs.append((Proved(Trust.CERTIFIED, None, True, certificate), None))
        elif bound < 0:
            certificate = _certificate(claim, clip, space)
            lead = -bound if isfinite(bound) else None  # a head of one class has no rival
            proofs.append((Proved(Trust.CERTIFIED, None, False, certificate), lead))
        else:
            proofs.append(None)
    share = (monotonic() - start) / len(claims)
    return [
        None
        if proof is None
        else (Result(claim.spec, "auto", proof[0], share, coverage, CLOSED_FORM), proof[1])
        for claim, proof in zip(claims, proofs, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Clip:
    """How a rule's predicates cut a box.

    Attributes:
        lower: feature to the predicate that raises its lower bound most, if one does.
        upper: likewise for upper bounds.
        contradiction: predicates that no embedding of the box satisfies together; may be none.
    """

    lower: dict[int, Predicate]
    upper: dict[int, Predicate]
    contradiction: tuple[Predicate, ...]

    @classmethod
    def of(cls, claim: Claim, base: Box) -> "_Clip":
        sides: tuple[dict[int, Predicate], dict[int, Predicate]] = ({}, {})
        for predicate in claim.predicates:
            j, bound = predicate.feature, predicate.bound
            side = sides[predicate.sign < 0]
            ends = base.lower if predicate.sign > 0 else base.upper
            edge = side[j].bound if j in side else Fraction(ends.numerators[j], ends.denominator)
            if predicate.sign * bound > predicate.sign * edge:
                side[j] = predicate
        return cls(*sides, _contradiction(sides, base))


def _contradiction(
    sides: tuple[dict[int, Predicate], dict[int, Predicate]], base: Box
) -> tuple[Predicate, ...]:
    """One or two predicates that leave nothing of some feature's interval; may be none."""
    for j in sides[0] | sides[1]:
        found = [side.get(j) for side in sides]
        ends = [
            Fraction(edge.numerators[j], edge.denominator) if p is None else p.bound
            for p, edge in zip(found, (base.lower, base.upper), strict=True)
        ]
        if ends[0] > ends[1]:
            return tuple(p for p in found if p is not None)
    return ()


def _lead_bounds(clips: Sequence[_Clip], base: Box, label: str, space: ScoreSpace) -> Floats:
    """Rigorous upper bounds [R] of the largest lead of a rival over the class, per clipped box."""
    rivals = literals(negation_normal_form(f.Predict(label), space.classes, negate=True))
    rows = rows_of(space, [row for row in rivals if isinstance(row, Halfspace)])
    if not rows.literals:
        return np.full(len(clips), -np.inf)
    lower, upper = (np.tile(edge, (len(clips), 1)) for edge in base.outer)
    for place, clip in enumerate(clips):
        for side, sign, edges in ((clip.lower, -1, lower), (clip.upper, 1, upper)):
            for j, predicate in side.items():
                edges[place, j] = np.nextafter(float(predicate.bound), sign * np.inf)
    upper = np.maximum(upper, lower)  # an empty box has no meaning here; it is a contradiction
    _, high = row_bounds(
        rows.rows, rows.constants, (rows.errors, rows.constant_errors), lower, upper
    )
    largest: Floats = high.max(axis=1)
    return largest


def _vacuous(claim: Claim, clip: _Clip, space: ScoreSpace) -> Certificate:
    """The contradiction as a lemma: its literals add up to less than zero on the box."""
    places, _ = _places(claim, space)
    terms = [Term(places[p.feature, p.sign, p.bound], Fraction(1)) for p in clip.contradiction]
    return Certificate(((Lemma(tuple(sorted(terms, key=lambda t: t.literal))),),))


def _certificate(claim: Claim, clip: _Clip, space: ScoreSpace) -> Certificate:
    """For each rival, its literal plus the predicates that stop it, with their multipliers."""
    places, rivals = _places(claim, space)
    lemmas = []
    for place, lead in rivals:
        terms = [Term(place, Fraction(1))]
        for side, sign in ((clip.lower, -1), (clip.upper, 1)):
            for j, p in side.items():
                if sign * lead.numerators[j] > 0:
                    multiplier = Fraction(abs(lead.numerators[j]), lead.denominator)
                    terms.append(Term(places[j, p.sign, p.bound], multiplier))
        lemmas.append(Lemma(tuple(sorted(terms, key=lambda term: term.literal))))
    return Certificate((tuple(lemmas),))


def _places(
    claim: Claim, space: ScoreSpace
) -> tuple[dict[tuple[int, int, Fraction], int], list[tuple[int, Vector]]]:
    """Places of the violation's literals: of predicates, and of rivals with ``W_k − W_c``."""
    predicates, rivals = {}, []
    for place, literal in enumerate(space.literals(space.negated(claim.spec.body))):
        if not isinstance(literal, Halfspace):
            raise BadUsage("a rule holds nothing but predicates")
        factor, symbol = literal.terms[0]
        if isinstance(symbol, f.Coordinate):
            sign = 1 if factor > 0 else -1
            predicates[symbol.index, sign, -literal.constant / factor] = place
        else:
            parts = [(c, space.score_row(space.position(s))[0]) for c, s in literal.terms]
            rivals.append((place, combination(parts)))
    return predicates, rivals


# --- rule sets ---------------------------------------------------------------------------------


def completeness_spec(claims: Sequence[Claim], region: f.Region, name: str) -> f.ForAll:
    """``forall x in region``: some rule matches."""
    parts = tuple(dict.fromkeys(claim.premise for claim in claims))
    body: f.Formula = f.Constant(False)
    if parts:
        body = parts[0] if len(parts) == 1 else f.Or(parts)
    return f.ForAll(name, region, body)


def conflict_spec(claims: Sequence[Claim], region: f.Region, name: str) -> f.ForAll:
    """``forall x in region``: rules of at most one class match."""
    classes: dict[str, dict[f.Formula, None]] = {}
    for claim in claims:
        classes.setdefault(claim.label, {})[claim.premise] = None
    matches = [
        next(iter(found)) if len(found) == 1 else f.Or(tuple(found)) for found in classes.values()
    ]
    body = f.AtMost(1, tuple(matches)) if len(matches) > 1 else f.Constant(True)
    return f.ForAll(name, region, body)


def decide_set(
    claims: Sequence[Claim], region: f.Region, lens: Lens, limits: Limits = DEFAULT_LIMITS
) -> tuple[Result, Result]:
    """Whether the rules are complete, and whether they are free of conflicts, over a region.

    Raises:
        BadUsage, BadRegion: as for `prove_rules`.
    """
    _refuse_hidden(space_of(lens))
    specs = (
        completeness_spec(claims, region, "some rule matches"),
        conflict_spec(claims, region, "no two classes match"),
    )
    complete, free = verify_suite(f.Suite(specs), lens, limits=limits)
    return complete, free


def matching(claims: Sequence[Claim], point: Vector) -> Bools:
    """Which rules match an exact embedding: bool [R]."""
    values = point.fractions()
    return np.array(
        [all(p.sign * values[p.feature] >= p.sign * p.bound for p in c.predicates) for c in claims],
        dtype=bool,
    )
