"""How numbers, coverages and verdicts are said; the same in the terminal, HTML and pictures."""

from typing import TYPE_CHECKING

from conspec.report.records import Counterexample, Outcome, Record, Share
from conspec.report.summary import Tally

if TYPE_CHECKING:  # `conspec check` reads this file, and no engine may take part in it
    from conspec.verifier.estimates import Estimate

SYMBOLS = {Outcome.PROVED: "✓", Outcome.VIOLATED: "✗", Outcome.UNKNOWN: "?"}


def printable(text: str) -> str:
    """The text without what a terminal would act on: names come from strangers' files."""
    return "".join(
        char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text
    )


def percent(share: float) -> str:
    """A share in percent without the sign; never rounded to 0 or 100 unless it is that.

    >>> percent(0.19), percent(0.004), percent(0.9998), percent(0.0), percent(1.0)
    ('19', '0.4', '99.98', '0', '100')
    """
    value = 100 * share
    if 0 < value < 1:
        return f"{value:.1g}"
    if 99 < value < 100:
        return f"{100 - float(f'{100 - value:.1g}'):g}"
    return f"{value:.0f}"


def coverage(share: Share | None) -> str:
    """A coverage with its interval, for instance ``19 % [15, 24] of 100 held-out``."""
    if share is None:
        return "no held-out images"
    if share.n == 0:
        return "no held-out images"
    interval = f"[{percent(share.lower)}, {percent(share.upper)}]"
    return f"{percent(share.point)} % {interval} of {share.n} held-out"


def satisfaction(estimate: "Estimate") -> str:
    """A share of images with its interval, for instance ``97 % [89, 99.6] of 64 mammal``."""
    if estimate.share is None:
        return f"no images of {estimate.population}"
    interval = f"[{percent(estimate.lower)}, {percent(estimate.upper)}]"
    whose = "" if estimate.population == "all" else f" {estimate.population}"
    return f"{percent(estimate.share)} % {interval} of {estimate.total}{whose}"


def margin(record: Record) -> str:
    """The margin, ``≥`` where it is a lower bound; empty where there is none."""
    if record.margin is None:
        return ""
    sign = "≥ " if record.outcome is Outcome.PROVED else ""
    return f"{sign}{record.margin:.3g}".replace("-", "−")


def seconds(value: float) -> str:
    """A time with its unit.

    >>> seconds(0.00042), seconds(0.25), seconds(95.0)
    ('0.4 ms', '0.25 s', '95 s')
    """
    if value < 0.01:
        return f"{1000 * value:.1f} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def explanation(record: Record) -> str:
    """What a reader should know about this verdict; empty if nothing but the verdict."""
    return "\n".join(filter(None, (_about(record), *record.assumptions)))


def _about(record: Record) -> str:
    match record.outcome:
        case Outcome.PROVED:
            return _about_proof(record)
        case Outcome.VIOLATED:
            return (
                _about_counterexample(record.counterexamples[0]) if record.counterexamples else ""
            )
        case Outcome.UNKNOWN:
            return record.reason or "no reason was recorded"


def about_radius(proof: Record | None) -> str:
    """What the proof at the end of a radius rests on and covers; empty without a proof."""
    if proof is None:
        return ""
    trust = "certified" if proof.certified else "solver's word"
    share = "" if proof.coverage is None else f", covers {percent(proof.coverage.point)} %"
    return f"{trust}{share}{', vacuous' if proof.vacuous else ''}"


def _about_proof(record: Record) -> str:
    said = []
    if record.vacuous:
        said.append("vacuous: no embedding of the region satisfies the premise")
    if record.certified is False:
        said.append("rests on the solver's word alone")
    return "; ".join(said)


def _about_counterexample(found: Counterexample) -> str:
    said = []
    if found.image is not None:
        said.append(f"the stored image {found.image} violates it")
    elif found.neighbours:
        near = found.neighbours[0]
        said.append(f"nearest image {near.id} at distance {near.distance:.3g}")
    if found.margin == 0:
        said.append("a tie, exactly")
    if found.replayed is False:
        said.append("float32 rounding hides it")
    return "; ".join(said)


def counts(found: Tally) -> str:
    """A sentence of counts, for instance ``25 specs: 14 proved, 6 violated, 5 unknown``."""
    noun = "spec" if found.total == 1 else "specs"
    parts = ", ".join(f"{found.count(outcome)} {outcome}" for outcome in Outcome)
    return f"{found.total} {noun}: {parts}"
