"""Seeded generators of specs from a lens bundle, one a family.

A generator draws a class, a region of it and a formula that holds at the middle of that region,
judged exactly; so whether the spec holds depends on the region's size, and a suite has both
answers. All chance comes from ``random.Random`` and all judgements from exact arithmetic: the
same seed gives the same specs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from fractions import Fraction
from functools import cached_property
from random import Random

import numpy as np

from conspec.benchmarks.suites.request import GRADED
from conspec.encodings.exact import Vector
from conspec.encodings.query import evaluate_at, space_of
from conspec.encodings.regions import class_moments, image_embedding
from conspec.encodings.scores import ScoreSpace
from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadUsage

SCALES = tuple(Fraction(text) for text in ("0.02", "0.05", "0.1", "0.2", "0.4", "0.8"))
"""Scales γ of focus regions."""
RULE_SCALES = tuple(Fraction(text) for text in ("0.5", "1", "2", "3", "5"))
"""The same for rules, whose own bounds cut the regions."""
RADII = tuple(Fraction(text) for text in ("0.1", "0.3", "0.5", "0.8", "1.2"))
"""Radii of balls, in mean standard deviations of the image's class."""
FEWEST_ATOMS, MOST_ATOMS = 2, 30
MOST_COUNTED = 12
AMONG = 4
"""Concepts of which the strongest and the weakest are compared."""
RULE_LENGTH = 3
"""Bounds in a rule for a head with hidden layers."""
RULE_QUANTILE = 0.05
TRIES = 200
"""Draws for one spec before a bundle is held to have no further one."""


@dataclass(frozen=True)
class Entry:
    """One spec of a suite.

    Attributes:
        spec: over a region that is no union.
        family: the generator that made it.
        about: what a reader may want to know besides, by short keys.
    """

    spec: f.ForAll
    family: str
    about: Mapping[str, str] = field(default_factory=dict)


Drawn = tuple[f.Region, f.Formula]


@dataclass(frozen=True, eq=False)
class Source:
    """What generators draw from."""

    lens: Lens
    random: Random

    @cached_property
    def space(self) -> ScoreSpace:
        """The exact scores of the bundle."""
        return space_of(self.lens)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The classes that have focus regions of some size.

        Raises:
            BadUsage: there is none.
        """
        statistics = self.lens.statistics
        usable = (statistics.count > 1) & (statistics.std > 0).any(axis=1)
        if not usable.any():
            raise BadUsage(f"{self.lens.root}: no class has two correctly classified images")
        return tuple(self.lens.classes[place] for place in np.flatnonzero(usable).tolist())

    @cached_property
    def images(self) -> tuple[tuple[int, str], ...]:
        """Correctly classified held-out images (all, if none is held out) with their class."""
        data = self.lens.embeddings
        right = data.label == data.predicted
        chosen = np.flatnonzero(right & data.heldout)
        chosen = chosen if len(chosen) else np.flatnonzero(right)
        pairs = ((place, self.lens.classes[data.label[place]]) for place in chosen.tolist())
        return tuple((place, label) for place, label in pairs if label in self.labels)

    @cached_property
    def rules(self) -> tuple[tuple[str, f.Formula], ...]:
        """Rules with their classes: mined ones, if the head has no hidden layer."""
        if self.space.head.is_affine:
            return _mined_rules(self.lens)
        return tuple((label, _rule_like(self.lens, label)) for label in self.labels)

    def focus(self) -> f.Focus:
        """A focus region of any class and scale."""
        return f.Focus(self.random.choice(self.labels), self.random.choice(SCALES))

    def middle(self, label: str) -> Vector:
        """The mean of a class."""
        return class_moments(self.lens, label)[0]

    def holds(self, body: f.Formula, point: Vector) -> bool:
        """Whether a formula holds at an embedding, exactly."""
        return not evaluate_at(self.space.negated(body), self.space, point)[0]

    def true_one(self, body: f.Formula, point: Vector) -> f.Formula:
        """The formula or its negation: the one that holds at an embedding."""
        return body if self.holds(body, point) else f.Not(body)

    def pair(self, point: Vector, among: int = 2) -> f.Formula:
        """The strongest of some random concepts at an embedding, above the weakest of them."""
        drawn = self.random.sample(self.lens.concepts, min(among, len(self.lens.concepts)))
        rows = {name: self.space.concept_row(name) for name in drawn}
        scores = {name: row.dot_plus(point, bias) for name, (row, bias) in rows.items()}
        return f.Stronger(max(drawn, key=scores.__getitem__), min(drawn, key=scores.__getitem__))

    def atom(self, point: Vector) -> f.Formula:
        """An atom of any kind without ``has``; three of four hold at the embedding."""
        kind = self.random.randrange(4)
        if kind == 0 and len(self.lens.classes) > 1:
            first, second = self.random.sample(self.lens.classes, 2)
            own, other = (_one(f.Logit(label)) for label in (first, second))
            found: f.Formula = f.Compare(own, f.Relation.GE, other)
        elif kind == 1:
            found = f.Predict(self.random.choice(self.lens.classes))
        else:
            found = self.pair(point)
        right = self.random.random() < 0.75
        return found if self.holds(found, point) == right else f.Not(found)


def strength(source: Source, share: float) -> Drawn:
    """``a > b`` on a focus region."""
    region = source.focus()
    return region, source.pair(source.middle(region.label), AMONG)


def premise(source: Source, share: float) -> Drawn:
    """``predict(c) => a > b`` on the focus region of c."""
    region, body = strength(source, share)
    return region, f.Implies(f.Predict(_label(region)), body)


def boolean(source: Source, share: float) -> Drawn:
    """2 to 30 atoms under all connectives."""
    region = source.focus()
    point = source.middle(region.label)
    count = FEWEST_ATOMS + round(share * (MOST_ATOMS - FEWEST_ATOMS))
    return region, source.true_one(_tree(source, point, count), point)


def cardinality(source: Source, share: float) -> Drawn:
    """``atleast`` or ``atmost`` of up to 12 atoms, with a slack of one or two at the middle."""
    region = source.focus()
    point = source.middle(region.label)
    atoms = _distinct(source, point, 3 + round(share * (MOST_COUNTED - 3)))
    true = sum(source.holds(atom, point) for atom in atoms)
    slack = source.random.randint(1, 2)
    if source.random.random() < 0.5:
        return region, f.AtLeast(max(true - slack, 1), atoms)
    return region, f.AtMost(min(true + slack, len(atoms) - 1), atoms)


def rule(source: Source, share: float) -> Drawn:
    """A rule of the last layer, ``z(i) >= t and … => predict(c)``, on the focus region of c."""
    label, body = source.random.choice(source.rules)
    return f.Focus(label, source.random.choice(RULE_SCALES)), body


def has(source: Source, share: float) -> Drawn:
    """``has(a)`` as at the middle, with or without the premise ``predict(c)``."""
    region = source.focus()
    concept = source.random.choice(sorted(source.space.thresholds))
    body = source.true_one(f.Has(concept), source.middle(region.label))
    if source.random.random() < 0.5:
        return region, body
    return region, f.Implies(f.Predict(region.label), body)


def robust(source: Source, share: float) -> Drawn:
    """``predict(c)`` on an L∞ ball around the embedding of an image of c."""
    place, label = source.random.choice(source.images)
    deviation = float(source.lens.statistics.std[source.lens.class_index(label)].mean())
    radius = short(deviation * float(source.random.choice(RADII)), 2)
    return f.Ball(place, radius, f.Norm.LINF), f.Predict(label)


FAMILIES: Mapping[str, Callable[[Source, float], Drawn]] = {
    "strength": strength,
    "premise": premise,
    "boolean": boolean,
    "cardinality": cardinality,
    "rule": rule,
    "has": has,
    "robust": robust,
}
"""Each makes a spec from a source and its share in [0, 1] of the family's largest size."""


def missing(family: str, lens: Lens) -> str | None:
    """Why a bundle has no specs of a family, or None if it has."""
    source = Source(lens, Random(0))
    if family == "has" and not source.space.thresholds:
        return "the bundle holds no calibrated threshold of a concept"
    if family == "rule" and not source.rules:
        return "no rule was found in the bundle's training images"
    if family in ("robust", GRADED) and not source.images:
        return "no image of the bundle is classified correctly"
    if family not in ("rule", "has", "robust") and len(lens.concepts) < 2:
        return "the bundle has only one concept"
    return None


def generate(lens: Lens, family: str, count: int, seed: int) -> list[Entry]:
    """Different specs of one family.

    Raises:
        BadUsage: the bundle does not give so many.
    """
    source = Source(lens, Random(f"{family}-{seed}"))
    found: dict[Drawn, Entry] = {}
    for place in range(count):
        drawn = _fresh(source, FAMILIES[family], place / max(count - 1, 1), found)
        if drawn is None:
            raise BadUsage(
                f"family {family}: the bundle gives only {place} different specs; lower --count"
            )
        name = f"{family}_{lens.dim}_{place + 1:03}"
        found[drawn] = Entry(f.ForAll(name, *drawn), family)
    return list(found.values())


def short(value: float, digits: int) -> Fraction:
    """The decimal of so many significant digits that is nearest to a float."""
    return Fraction(Context(digits).create_decimal(Decimal(value)))


def _fresh(
    source: Source,
    make: Callable[[Source, float], Drawn],
    share: float,
    known: Mapping[Drawn, Entry],
) -> Drawn | None:
    """A draw that holds at the middle of its region and was not made before."""
    for _ in range(TRIES):
        region, body = make(source, share)
        if (region, body) not in known and source.holds(body, _middle_of(source, region)):
            return region, body
    return None


def _middle_of(source: Source, region: f.Region) -> Vector:
    if isinstance(region, f.Ball):
        return image_embedding(source.lens, region.image)
    return source.middle(_label(region))


def _label(region: f.Region) -> str:
    if not isinstance(region, f.Focus):
        raise TypeError(f"{type(region).__name__} is no focus region")
    return region.label


def _one(symbol: f.Symbol) -> f.Linear:
    return f.Linear(((Fraction(1), symbol),))


def _distinct(source: Source, point: Vector, count: int) -> tuple[f.Formula, ...]:
    """So many atoms, all different (fewer if a small bundle has no more)."""
    found: dict[f.Formula, None] = {}
    for _ in range(TRIES):
        found[source.atom(point)] = None
        if len(found) == count:
            break
    return tuple(found)


def _tree(source: Source, point: Vector, count: int) -> f.Formula:
    """A random formula with so many atoms."""
    if count == 1:
        return source.atom(point)
    left = source.random.randint(1, count - 1)
    parts = (_tree(source, point, left), _tree(source, point, count - left))
    kind = source.random.choice(("and", "and", "or", "or", "implies", "iff"))
    match kind:
        case "and":
            return f.And(parts)
        case "or":
            return f.Or(parts)
        case "implies":
            return f.Implies(*parts)
        case _:
            return f.Iff(*parts)


def _mined_rules(lens: Lens) -> tuple[tuple[str, f.Formula], ...]:
    """The rules that ``conspec rules`` learns from the bundle's training images."""
    from conspec.analysis.pathways import last_layer
    from conspec.analysis.rule_files import rule_formula
    from conspec.analysis.rules import learn

    layer, z = last_layer(lens)
    data = lens.embeddings
    train = ~data.heldout
    found = learn(lens.classes, layer, (z[train], data.predicted[train], data.label[train]))
    return tuple((found.names[rule.label], rule_formula(found, rule)) for rule in found.rules)


def _rule_like(lens: Lens, label: str) -> f.Formula:
    """Bounds of the coordinates that tell a class best from the others, and so it is predicted.

    For heads with a hidden layer, whose mined rules speak of that and not of the embedding.
    """
    from conspec.analysis.predicates import written_bound

    data, statistics, place = lens.embeddings, lens.statistics, lens.class_index(label)
    own = data.z[(data.label == place) & ~data.heldout]
    spread = np.where(statistics.std[place] > 0, statistics.std[place], np.inf)
    lead = (statistics.mean[place] - data.z.mean(axis=0, dtype=np.float64)) / spread
    order: Sequence[int] = np.argsort(-lead, kind="stable")[:RULE_LENGTH].tolist()
    bounds = np.quantile(own[:, order], RULE_QUANTILE, axis=0, method="lower").tolist()
    parts = tuple(
        f.Compare(_one(f.Coordinate(j)), f.Relation.GE, f.Linear((), written_bound(bound, 1)))
        for j, bound in zip(order, bounds, strict=True)
    )
    return f.Implies(f.And(parts) if len(parts) > 1 else parts[0], f.Predict(label))
