"""What else bounds the probabilities of a suite: proofs, distributions, models, balls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from conspec.cli.console import progress
from conspec.specs.errors import BadRegion
from conspec.specs.formula import ForAll, Spec, Suite

if TYPE_CHECKING:
    from conspec.lens.bundle import Lens
    from conspec.verifier.probability.covered import Covered
    from conspec.verifier.probability.mass import MassBounds
    from conspec.verifier.probability.rare import RareEstimate
    from conspec.verifier.probability.robust import RobustRadii
    from conspec.verifier.probability.shards import Shard

T = TypeVar("T")


class MassName(StrEnum):
    """Distributions on a region."""

    UNIFORM = "uniform"
    GAUSSIAN = "gaussian"


class RareName(StrEnum):
    """Models of a class."""

    GAUSSIAN = "gaussian"
    KERNEL = "kernel"


class NormName(StrEnum):
    """Norms of balls around images."""

    L2 = "l2"
    LINF = "linf"
    MAHALANOBIS = "mahalanobis"


@dataclass(frozen=True, slots=True)
class Asked:
    """Which bounds are wanted besides the counts.

    Attributes:
        covered: by proofs.
        mass: under a distribution on the region; None if not.
        rare: violations in a model; None if not.
        robust: certified balls around images; None if not.
        confidence: of each.
        seconds: for each spec's mass, and for each proof.
        samples: for each spec's violations.
    """

    covered: bool
    mass: MassName | None
    rare: RareName | None
    robust: NormName | None
    confidence: float
    seconds: float
    samples: int


@dataclass(eq=False)
class Beyond:
    """The bounds found, by the specs' names.

    Attributes:
        covered: bounds by proofs.
        mass: bounds under a distribution on the region.
        rare: violations in a model.
        robust: certified balls around held-out images.
        left_out: why a spec has no such number, in sentences.
        complete: whether all is there that was asked; not so after Ctrl-C.
    """

    covered: "dict[str, Covered]" = field(default_factory=dict)
    mass: "dict[str, MassBounds]" = field(default_factory=dict)
    rare: "dict[str, RareEstimate]" = field(default_factory=dict)
    robust: "RobustRadii | None" = None
    left_out: list[str] = field(default_factory=list)
    complete: bool = False


def bound_suite(
    suite: Suite, lens: "Lens", asked: Asked, sample: "Sequence[Shard] | None"
) -> Beyond:
    """Find what was asked for. Ctrl-C ends it early; what is known by then is returned.

    Args:
        suite: the specs.
        lens: the bundle.
        asked: which bounds.
        sample: where coverage is measured; the held-out images if None.
    """
    beyond = Beyond()
    try:
        if asked.robust is not None:
            _robust(suite, lens, asked.robust, beyond)
        if asked.covered:
            _covered(suite, lens, asked, sample, beyond)
        if asked.mass is not None:
            _mass(suite, lens, asked.mass, asked.seconds, beyond)
        if asked.rare is not None:
            _rare(suite, lens, asked.rare, asked, beyond)
        beyond.complete = True
    except KeyboardInterrupt:
        beyond.left_out.append("Interrupted: not everything that was asked for is here.")
    return beyond


def _robust(suite: Suite, lens: "Lens", norm: NormName, beyond: Beyond) -> None:
    from conspec.verifier.probability.robust import Metric, robust_radii

    beyond.robust = robust_radii(lens, suite.specs, Metric(norm.value))


def _covered(
    suite: Suite, lens: "Lens", asked: Asked, sample: "Sequence[Shard] | None", beyond: Beyond
) -> None:
    """Bounds by the largest region on which each spec is proved."""
    from conspec.cli.radius import scalable
    from conspec.verifier.decide import Limits
    from conspec.verifier.probability.covered import covered_radii
    from conspec.verifier.radius import radius_suite

    scaled, skipped = scalable(suite)
    for name, reason in skipped.items():
        beyond.left_out.append(_without(name, "--covered", reason))
    _pass_over(suite, "--covered", beyond)
    limits = Limits(seconds=asked.seconds)
    images = None if sample is None else _joined(sample)
    with progress() as advance:
        for radius in radius_suite(scaled, lens, limits) if scaled.specs else ():
            (found,) = covered_radii([[radius]], lens, asked.confidence, images, limits)
            beyond.covered[found.spec.name] = found
            advance("proving", len(beyond.covered), len(scaled.specs))


def _joined(shards: "Sequence[Shard]") -> "Shard":
    """All embeddings together, with their labels if all have some."""
    import numpy as np

    from conspec.verifier.probability.shards import Shard

    labels = [shard.labels for shard in shards if shard.labels is not None]
    known = len(labels) == len(shards)
    return Shard(
        np.concatenate([shard.embeddings for shard in shards]),
        np.concatenate(labels) if known else None,
    )


def _mass(suite: Suite, lens: "Lens", name: MassName, seconds: float, beyond: Beyond) -> None:
    from conspec.verifier.probability.mass import Limits
    from conspec.verifier.probability.stated import Mass, mass_of

    _pass_over(suite, "--mass", beyond)
    specs = [spec for spec in suite.specs if isinstance(spec, ForAll)]
    law, limits = Mass(name.value), Limits(seconds=seconds)
    _each("--mass", specs, lambda spec: mass_of(spec, lens, law, limits), beyond, beyond.mass)


def _rare(suite: Suite, lens: "Lens", name: RareName, asked: Asked, beyond: Beyond) -> None:
    from conspec.verifier.probability.rare import Sampling
    from conspec.verifier.probability.stated import Tail, tail_of

    how, tail = Sampling(samples=asked.samples, confidence=asked.confidence), Tail(name.value)
    _each("--rare", suite.specs, lambda spec: tail_of(spec, lens, tail, how), beyond, beyond.rare)


def _each(
    option: str,
    specs: Sequence[Spec],
    ask: Callable[[Any], T],
    beyond: Beyond,
    found: dict[str, T],
) -> None:
    """Ask of each spec; one that has no answer is named with the reason."""
    with progress() as advance:
        for done, spec in enumerate(specs, start=1):
            try:
                found[spec.name] = ask(spec)
            except BadRegion as error:
                reason = str(error).removeprefix(f"{spec.name}: ")
                beyond.left_out.append(_without(spec.name, option, reason))
            advance(option, done, len(specs))


def _pass_over(suite: Suite, option: str, beyond: Beyond) -> None:
    """Name the specs without a region."""
    from conspec.cli.verify import some

    if others := [spec.name for spec in suite.specs if not isinstance(spec, ForAll)]:
        beyond.left_out.append(f"{option} is about regions; passed over: {some(others)}.")


def _without(name: str, option: str, reason: str) -> str:
    return f"{name} has no {option} number: {reason}."


def bounds_json(beyond: Beyond, name: str, place: int) -> dict[str, Any]:
    """What a spec's line in an estimates file holds besides the counts."""
    found: dict[str, Any] = {}
    if name in beyond.covered:
        found["covered"] = _covered_json(beyond.covered[name])
    if name in beyond.mass:
        mass = beyond.mass[name]
        ends = {"lower": mass.lower, "upper": mass.upper, "undecided": mass.undecided}
        found["mass"] = {key: str(value) for key, value in ends.items()}
        found["mass"] |= {
            "distribution": mass.distribution,
            "boxes": mass.boxes,
            "assumption": mass.assumption,
        }
    if name in beyond.rare:
        rare = beyond.rare[name]
        keys = ("estimate", "lower", "upper", "confidence", "samples", "hits", "assumption")
        found["violation"] = {key: getattr(rare, key) for key in keys}
    if beyond.robust is not None:
        found["robust"] = _robust_json(beyond.robust, place)
    return found


def _covered_json(bound: "Covered") -> dict[str, Any]:
    from conspec.specs.printer import to_text

    share = bound.coverage
    return {
        "region": None if bound.region is None else to_text(bound.region),
        "count": None if share is None else share.count,
        "n": None if share is None else share.total,
        "lower": bound.lower,
        "combined": bound.combined,
        "confidence": bound.confidence,
        "assumptions": list(bound.assumptions),
    }


def _robust_json(radii: "RobustRadii", place: int) -> dict[str, Any]:
    """Certified radii of the spec's images; infinite ones as text."""
    own = radii.population[:, place]
    lower = [x if x < float("inf") else "inf" for x in radii.lower[own, place].tolist()]
    return {
        "norm": radii.metric.value,
        "images": radii.images[own].tolist(),
        "satisfied": radii.satisfied[own, place].tolist(),
        "radius": lower,
    }
