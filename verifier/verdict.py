"""Verdicts: three cases, never merged, without a truth value."""

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import NoReturn

from conspec.encodings.exact import Vector
from conspec.verifier.certificate import Certificate


class Reason(Enum):
    """Why a verdict is unknown: one sentence each, with what to do."""

    TIME_LIMIT = "The engine stopped at its time limit; raise --timeout or shrink the region."
    MARGIN_IN_TOLERANCE = (
        "The solver's best margin lies within its own tolerance, so neither answer is sure; "
        "use --engine z3 (exact)."
    )
    NO_VALID_POINT = (
        "The solver's point is no exact counterexample; use --engine auto or z3 (exact)."
    )
    REPLAY_DIFFERS = (
        "The counterexample's scores differ between exact arithmetic and onnxruntime by more "
        "than float32 rounding explains; please report this bundle."
    )
    INCOMPLETE = (
        "This engine can only bound the atoms one by one, and that does not decide it; "
        "use --engine auto."
    )
    UNSUPPORTED_ATOM = (
        "This engine cannot decide has(…) atoms here, and bounds on them do not suffice; "
        "use --engine auto, or state the property with score(…)."
    )
    CONE_PRECISION = (
        "The bounds on has(…) atoms stayed too loose within the limits; shrink the region (boxes "
        "are split, others are not), or state the property with score(…)."
    )
    TOO_LARGE = "The model is larger than the solver's licence or limits allow; use --engine highs."
    SOLVER_FAILED = "The solver reported neither a bound nor a point."
    TOO_HARD = (
        "The formula has too many alternatives for the lemma engine; split the spec, or use "
        "--engine z3."
    )
    TOO_FEW_IMAGES = (
        "Too few held-out images to calibrate the alignment margin on; build the lens with more, "
        "lower the level, or split the spec so that each uses fewer pairs of concepts."
    )
    INTERRUPTED = "Interrupted before it was decided."


class Trust(Enum):
    """What a proof rests on."""

    CERTIFIED = "certified"
    """Exact arithmetic, or floating point with a rigorous error bound, by conspec itself."""
    SOLVER = "solver"
    """The word of a solver."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The counterexample in float32, through onnxruntime.

    Attributes:
        logits: [K] as onnxruntime gives them.
        concepts: [M] likewise.
        violates: whether the formula also fails on these float32 scores. At margins near zero
            rounding can hide a violation; the exact verdict stands.
    """

    logits: tuple[float, ...]
    concepts: tuple[float, ...]
    violates: bool


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A stored image near a counterexample.

    Attributes:
        image: index in the bundle.
        distance: Euclidean distance of the embeddings.
    """

    image: int
    distance: float


@dataclass(frozen=True, slots=True)
class Witness:
    """A counterexample, valid in exact arithmetic.

    Attributes:
        point: the embedding, exact, inside the region.
        margin: by how much the formula fails; 0 for a tie.
        parameters: the point's parameters in its region; None if it is given by itself.
        part: the convex part of the spec's region that it lies in.
        replay: the same point in float32.
        neighbours: nearest stored images, nearest first.
        image: the stored image whose embedding this is, if it is a real one.
    """

    point: Vector
    margin: Fraction
    parameters: Vector | None = None
    part: int = 0
    replay: Replay | None = None
    neighbours: tuple[Neighbour, ...] = ()
    image: int | None = None


class _NoTruthValue:
    """A verdict in an ``if`` would merge two of its cases."""

    __slots__ = ()

    def __bool__(self) -> NoReturn:
        raise TypeError("a verdict has no truth value: match Proved, Violated or Unknown")


@dataclass(frozen=True, slots=True)
class Proved(_NoTruthValue):
    """The formula holds for every embedding of the region.

    Attributes:
        trust: what the proof rests on.
        bound: the formula's margin is at least this on the region, where an engine knows it.
        vacuous: whether no point of the region satisfies the premise; None if not decided.
        certificate: what the checker needs; present when the trust is certified.
    """

    trust: Trust
    bound: float | None = None
    vacuous: bool | None = None
    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True)
class Violated(_NoTruthValue):
    """The formula fails at the witness; ``others`` are further, different counterexamples."""

    witness: Witness
    others: tuple[Witness, ...] = ()


@dataclass(frozen=True, slots=True)
class Unknown(_NoTruthValue):
    """Neither was established.

    Attributes:
        reason: why.
        detail: the engine's own words or numbers.
    """

    reason: Reason
    detail: str = ""


Verdict = Proved | Violated | Unknown
