"""Specs of graded difficulty: regions of 0.5 to 2 times the scale γ* up to which a spec holds.

Just below γ* a proof has almost no slack, just above it counterexamples fill almost nothing of the
region: such specs are hard on purpose. γ* lies in a bracket between a scale that was proved and one
that was violated. Where only half-spaces of the embedding are compared, the ends differ by a
relative 1e-6 or so. Logits of ReLU heads need a solver for every scale; where that gives no answer
in time, the bracket stays wide. Factors below 1 are of the proved end, those above 1 of the
violated one, so that the answer is known. A spec that fails by a tie only, at the violated end, is
passed over: at no scale could a solver with tolerances tell its answers apart.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import sqrt
from random import Random

from conspec.benchmarks.suites.families import (
    Drawn,
    Entry,
    Source,
    boolean,
    premise,
    robust,
    short,
    strength,
)
from conspec.benchmarks.suites.request import GRADED
from conspec.encodings.query import queries_of, space_of
from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.specs.exact import write_number
from conspec.verifier.decide import Limits, verify_suite
from conspec.verifier.radius import LARGEST, SMALLEST, at_scale, radius_suite
from conspec.verifier.verdict import Proved, Verdict, Violated

FACTORS = tuple(Fraction(text) for text in ("0.5", "0.9", "0.99", "1.01", "1.1", "2"))
KINDS: dict[str, Callable[[Source, float], Drawn]] = {
    "robust": robust,
    "premise": premise,
    "strength": strength,
    "boolean": boolean,
}
"""The generators of the specs whose γ* is looked for, in turn."""
BOOLEAN_SHARE = 0.2
"""Size of Boolean formulas, as a share of the largest."""
DIGITS = 5
"""Significant digits of the scales: rounding moves them by 5e-5 at most, factors by 1e-2."""
SPARE = 5
"""Draws for each spec wanted: some have no γ*, since they fail at the centre or hold anywhere."""


SEARCH_SECONDS = 10.0
"""Time for each verdict of the search, at most."""
VERDICTS, UNDECIDED = 30, 5
"""Verdicts asked for one spec with logits of a ReLU head, and how many may be undecided."""
TIGHT, LOOSE = 1.002, 1.1
"""Quotient of two scales between which nothing is looked for: if one is proved and the other
violated, and if one of them was not decided."""
STEP = 4
"""Factor of the first steps, up to a violation or down to a proof."""


def graded(lens: Lens, count: int, seed: int, seconds: float) -> Iterator[list[Entry]]:
    """For each of ``count`` specs with a known γ*, one spec a factor; as soon as known.

    Fewer, if the bundle has fewer such specs among those drawn.

    Args:
        lens: the bundle.
        count: of specs whose γ* is looked for.
        seed: of their choice.
        seconds: for each verdict that the search asks for; at most `SEARCH_SECONDS` are used.
    """
    source = Source(lens, Random(f"{GRADED}-{seed}"))
    known: set[Drawn] = set()
    found = 0
    for _ in range(SPARE * count):
        if found == count:
            return
        kind = list(KINDS)[found % len(KINDS)]
        region, body = KINDS[kind](source, BOOLEAN_SHARE)
        base = f.ForAll(f"{GRADED}_{lens.dim}_{found + 1:03}", at_scale(region, Fraction(1)), body)
        if (base.region, body) in known:
            continue
        known.add((base.region, body))
        if bracket := _bracket(base, lens, Limits(min(seconds, SEARCH_SECONDS))):
            found += 1
            yield [_entry(base, kind, bracket, factor) for factor in FACTORS]


def _bracket(base: f.ForAll, lens: Lens, limits: Limits) -> tuple[Fraction, Fraction] | None:
    """A scale that was proved and one that was violated; None if one of them is not found."""
    (query,) = queries_of(base, lens, space_of(lens))
    if not query.is_affine:
        return _bisected(base, lens, limits)
    (radius,) = radius_suite(f.Suite((base,)), lens, limits)
    if radius.violation is None or _is_tie(radius.violation.verdict):
        return None
    return (radius.lower, radius.upper) if radius.lower and radius.upper else None


def _is_tie(verdict: Verdict) -> bool:
    """Whether it is a violation by two equal numbers only."""
    return isinstance(verdict, Violated) and verdict.witness.margin == 0


@dataclass
class _Known:
    """The scales that were asked about, by answer."""

    proved: list[Fraction] = field(default_factory=list)
    violated: list[Fraction] = field(default_factory=list)
    open: list[Fraction] = field(default_factory=list)

    def take(self, scale: Fraction, verdict: Verdict) -> None:
        """Remembers an answer."""
        if isinstance(verdict, Proved):
            self.proved.append(scale)
        else:
            (self.violated if isinstance(verdict, Violated) else self.open).append(scale)

    def next(self) -> Fraction | None:
        """The scale to ask about; None if nothing is to be gained."""
        if len(self.open) > UNDECIDED:
            return None
        if not self.proved:
            least = min([*self.open, *self.violated], default=Fraction(STEP))
            return least / STEP if least > SMALLEST else None
        if not self.violated:
            most = max([*self.open, *self.proved])
            return most * STEP if most < LARGEST else None
        ends = [max(self.proved), min(self.violated)]
        inner = sorted(scale for scale in self.open if ends[0] < scale < ends[1])
        limit = LOOSE if inner else TIGHT
        points = [ends[0], *inner, ends[1]]
        # Between two undecided scales nothing is decided either.
        gaps = [(points[0], points[1]), (points[-2], points[-1])]
        low, high = max(gaps, key=lambda gap: gap[1] / gap[0])
        return short(sqrt(float(low * high)), DIGITS) if high > low * Fraction(limit) else None


def _bisected(base: f.ForAll, lens: Lens, limits: Limits) -> tuple[Fraction, Fraction] | None:
    """The bracket by verdicts, first of the cheap engine and then of HiGHS."""
    known = _Known()
    for _ in range(VERDICTS):
        if (scale := known.next()) is None:
            break
        spec = replace(base, region=at_scale(base.region, scale))
        for engine in ("box", "highs"):
            (result,) = verify_suite(f.Suite((spec,)), lens, engine, limits)
            if isinstance(result.verdict, Proved | Violated):
                break
        if _is_tie(result.verdict):
            return None
        known.take(scale, result.verdict)
    if not (known.proved and known.violated):
        return None
    return max(known.proved), min(known.violated)


def _entry(
    base: f.ForAll, kind: str, bracket: tuple[Fraction, Fraction], factor: Fraction
) -> Entry:
    """The spec at a multiple of γ*, which lies in the bracket."""
    end = bracket[0] if factor < 1 else bracket[1]
    scale = short(float(factor * end), DIGITS)
    times = write_number(factor)
    name = f"{base.name}_at_{times.replace('.', '_')}"
    about = {
        "kind": kind,
        "factor": times,
        "of": "proved" if factor < 1 else "violated",
        "proved_up_to": write_number(bracket[0]),
        "violated_from": write_number(bracket[1]),
    }
    return Entry(replace(base, name=name, region=at_scale(base.region, scale)), GRADED, about)
