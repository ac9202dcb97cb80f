"""The tree of Con_spec: immutable values in closed unions, without behaviour.

A pass over formulas (printing, rewriting, evaluating) is one function with one ``match`` whose
last case is ``assert_never``; so the type checker lists every pass that misses a new node.
Numbers are exact: what the text says in decimals is a ``Fraction``, never the nearest float.

The atoms are those of Con_spec (arXiv 2403.19837): strength ``>(x, a, b)``, ``predict(x, c)``
and ``hasCon(x, a)``; linear comparisons of scores and cardinalities are ours.
"""

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Logit:
    """The head's output for a class."""

    label: str


@dataclass(frozen=True, slots=True)
class Score:
    """The concept map's output for a concept."""

    concept: str


@dataclass(frozen=True, slots=True)
class Coordinate:
    """One entry of the embedding itself, counted from 0; written ``z(3)``."""

    index: int


Symbol = Logit | Score | Coordinate


@dataclass(frozen=True, slots=True)
class Linear:
    """``Σ coefficient · symbol + constant``; each symbol at most once, no zero coefficient."""

    terms: tuple[tuple[Fraction, Symbol], ...]
    constant: Fraction = Fraction(0)


class Relation(Enum):
    """How two linear expressions are compared."""

    GT = ">"
    GE = ">="
    LT = "<"
    LE = "<="


@dataclass(frozen=True, slots=True)
class Stronger:
    """Concept ``a`` is strictly more present than concept ``b``."""

    a: str
    b: str


@dataclass(frozen=True, slots=True)
class Predict:
    """The logit of ``label`` is strictly above every other; a tie is not a prediction."""

    label: str


@dataclass(frozen=True, slots=True)
class Has:
    """The cosine with the concept's direction is above the concept's calibrated threshold."""

    concept: str


@dataclass(frozen=True, slots=True)
class Compare:
    """A linear comparison of scores, for instance ``logit(truck) - logit(car) >= 1.5``."""

    left: Linear
    relation: Relation
    right: Linear


@dataclass(frozen=True, slots=True)
class Constant:
    """``true`` or ``false``."""

    value: bool


@dataclass(frozen=True, slots=True)
class Not:
    """Negation."""

    operand: "Formula"


@dataclass(frozen=True, slots=True)
class And:
    """Conjunction of two or more formulas."""

    operands: tuple["Formula", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Disjunction of two or more formulas."""

    operands: tuple["Formula", ...]


@dataclass(frozen=True, slots=True)
class Implies:
    """``premise => conclusion``; associates to the right."""

    premise: "Formula"
    conclusion: "Formula"


@dataclass(frozen=True, slots=True)
class Iff:
    """Both sides have the same truth value."""

    left: "Formula"
    right: "Formula"


@dataclass(frozen=True, slots=True)
class AtLeast:
    """At least ``count`` of the operands hold."""

    count: int
    operands: tuple["Formula", ...]


@dataclass(frozen=True, slots=True)
class AtMost:
    """At most ``count`` of the operands hold."""

    count: int
    operands: tuple["Formula", ...]


Atom = Stronger | Predict | Has | Compare | Constant
Formula = Atom | Not | And | Or | Implies | Iff | AtLeast | AtMost


@dataclass(frozen=True, slots=True)
class Focus:
    """Class box ``μ ± γσ`` of correctly classified training embeddings, cut to ``z ≥ 0``."""

    label: str
    gamma: Fraction


@dataclass(frozen=True, slots=True)
class PcaBox:
    """Box ``± γ`` standard deviations along the principal axes of a class."""

    label: str
    gamma: Fraction


@dataclass(frozen=True, slots=True)
class Zonotope:
    """``μ + γ Σ t_i σ_i v_i`` with ``|t_i| ≤ 1`` over the leading principal axes of a class."""

    label: str
    gamma: Fraction


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """Mahalanobis ball of radius ``γ`` around a class mean."""

    label: str
    gamma: Fraction


@dataclass(frozen=True, slots=True)
class Hull:
    """Convex hull of a class's correctly classified training embeddings."""

    label: str


class Norm(Enum):
    """The norm of a ball."""

    L2 = "l2"
    LINF = "linf"


@dataclass(frozen=True, slots=True)
class Ball:
    """Ball around the stored embedding of one image (its index in the bundle)."""

    image: int
    radius: Fraction
    norm: Norm


@dataclass(frozen=True, slots=True)
class Box:
    """Plain box; one bound stands for every dimension."""

    lower: tuple[Fraction, ...]
    upper: tuple[Fraction, ...]


@dataclass(frozen=True, slots=True)
class Polytope:
    """All embeddings whose scores satisfy the comparisons (affine heads only; closed)."""

    constraints: tuple[Compare, ...]


@dataclass(frozen=True, slots=True)
class Both:
    """Intersection of regions."""

    regions: tuple["Region", ...]


@dataclass(frozen=True, slots=True)
class Either:
    """Union of regions: one query each."""

    regions: tuple["Region", ...]


@dataclass(frozen=True, slots=True)
class ClassOf:
    """The images of a class, as a population to sample from; ``None`` is every image."""

    label: str | None


Region = Focus | PcaBox | Zonotope | Ellipsoid | Hull | Ball | Box | Polytope | Both | Either


@dataclass(frozen=True, slots=True)
class ForAll:
    """``spec NAME: forall x in REGION: FORMULA``, to be proved."""

    name: str
    region: Region
    body: Formula


@dataclass(frozen=True, slots=True)
class Probability:
    """``spec NAME: probability >= P with confidence C for x in CLASS: FORMULA``, estimated."""

    name: str
    at_least: Fraction
    confidence: Fraction
    population: ClassOf
    body: Formula


Spec = ForAll | Probability


@dataclass(frozen=True, slots=True)
class Suite:
    """The specs of one file, in its order; names are unique."""

    specs: tuple[Spec, ...]
