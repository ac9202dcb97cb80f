"""``conspec estimate``: how probable it is that an image satisfies a spec."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conspec.cli.bounds import Asked, Beyond, MassName, NormName, RareName, bound_suite, bounds_json
from conspec.cli.console import print_json, say, show, warn
from conspec.cli.exits import Exit
from conspec.cli.inputs import open_lens, read_shards, read_suite, select_specs
from conspec.cli.journal import write_lines
from conspec.cli.output import EVERY_SPEC
from conspec.cli.verify import (
    JsonOption,
    LensOption,
    SpecOption,
    SuiteArgument,
    VerboseOption,
    some,
)
from conspec.specs.errors import BadUsage

if TYPE_CHECKING:
    from conspec.lens.bundle import Lens
    from conspec.verifier.estimates import Estimate, Estimates
    from conspec.verifier.probability.robust import RobustRadii


class IntervalName(StrEnum):
    """How intervals are made."""

    CLOPPER_PEARSON = "clopper-pearson"
    WILSON = "wilson"
    JEFFREYS = "jeffreys"


ConfidenceOption = Annotated[
    float, typer.Option("--confidence", metavar="C", help="Of the intervals, between 0 and 1.")
]
IntervalOption = Annotated[
    IntervalName,
    typer.Option("--interval", help="The exact one, an approximate one, or a Bayesian one."),
]
EmbeddingsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--embeddings",
        metavar="FILE",
        help="Count on these instead of the held-out images: .npy of embeddings [N, n], or "
        ".safetensors with z and label [N], numbers of classes; may be repeated.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="Where torch counts: cpu, cuda, cuda:1.")
]
CoveredOption = Annotated[
    bool,
    typer.Option(
        "--covered", help="Also bound by proofs: the coverage of the largest proved region."
    ),
]
MassOption = Annotated[
    MassName | None,
    typer.Option("--mass", help="Also bound the probability on the region under a distribution."),
]
RareOption = Annotated[
    RareName | None,
    typer.Option("--rare", help="Also sample violations in a model of the class."),
]
RobustOption = Annotated[
    NormName | None,
    typer.Option("--robust", help="Also certify a ball around each held-out image."),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        "--timeout",
        metavar="S",
        help="Seconds for each spec of --mass and each proof of --covered.",
    ),
]
SamplesOption = Annotated[
    int, typer.Option("--samples", metavar="N", min=2, help="Samples for each spec of --rare.")
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Write estimates.jsonl and, with --robust, robust.png to DIR.",
    ),
]


def estimate(
    suite: SuiteArgument,
    lens: LensOption,
    confidence: ConfidenceOption = 0.95,
    interval: IntervalOption = IntervalName.CLOPPER_PEARSON,
    embeddings: EmbeddingsOption = None,
    device: DeviceOption = "cpu",
    covered: CoveredOption = False,
    mass: MassOption = None,
    rare: RareOption = None,
    robust: RobustOption = None,
    timeout: TimeoutOption = 5.0,
    samples: SamplesOption = 100_000,
    as_json: JsonOption = False,
    out: OutOption = None,
    spec: SpecOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Estimate how probable it is that an image satisfies each spec of SUITE.

    Counts the held-out images (or others) of each spec's class that satisfy its formula, with
    intervals, and decides the specs that state a probability. None of this is a proof; what each
    number assumes stands in docs/statistics.md.

    Exit codes: 0 every stated probability holds, or none is stated; 1 one fails; 2 none fails,
    but one is undecided; 3 bad input.
    """
    from conspec.verifier.device import Device
    from conspec.verifier.estimates import Interval, estimate_suite

    bundle = open_lens(lens)
    wanted = select_specs(read_suite(suite, bundle), spec or [])
    Device(device)  # refused before anything is computed
    if not timeout > 0:
        raise BadUsage(f"--timeout {timeout:g}: must be above 0 seconds")
    files = embeddings or []
    sample = read_shards(files, bundle.dim, len(bundle.classes)) if files else None
    kind = Interval(interval.value)
    found = estimate_suite(wanted, bundle, sample, confidence, kind, device)
    asked = Asked(covered, mass, rare, robust, confidence, timeout, samples)
    beyond = bound_suite(wanted, bundle, asked, sample)
    lines = _lines(found, bundle, beyond, files)
    if as_json:
        print_json({"suite": suite, "left_out": beyond.left_out, "estimates": lines})
    else:
        few = not verbose and len(found.specs) > EVERY_SPEC
        shown = _least(found) if few else found.specs
        _show(shown, beyond, asked, files)
        if few:
            total = len(found.specs)
            say(f"{EVERY_SPEC} of {total} specs, the least satisfied; --verbose shows all")
    _warn(found, beyond)
    if out is not None:
        write_lines(out / "estimates.jsonl", lines)
        say(f"{out / 'estimates.jsonl'}: written")
        if beyond.robust is not None:
            _draw(beyond.robust, confidence, out / "robust.png")
    raise typer.Exit(_exit(found) if beyond.complete else Exit.INTERRUPTED)


def _exit(found: "Estimates") -> Exit:
    from conspec.verifier.probability.intervals import Decision

    decisions = {one.family_decision for one in found.specs}
    if Decision.FAILS in decisions:
        return Exit.VIOLATED
    return Exit.UNKNOWN if Decision.UNDECIDED in decisions else Exit.PROVED


def _lines(
    found: "Estimates", lens: "Lens", beyond: Beyond, files: Sequence[Path]
) -> list[dict[str, Any]]:
    """One JSON object a spec."""
    from conspec.verifier.estimates import to_json

    names = [str(path) for path in files]
    return [
        to_json(one, lens, found.skipped, names) | bounds_json(beyond, one.spec.name, place)
        for place, one in enumerate(found.specs)
    ]


def _least(found: "Estimates") -> "Sequence[Estimate]":
    """Those that a reader should see first: what fails or is open, and the smallest shares."""
    from conspec.verifier.probability.intervals import Decision

    order = {Decision.FAILS: 0, Decision.UNDECIDED: 1}

    def rank(one: "Estimate") -> tuple[int, float]:
        place = 2 if one.family_decision is None else order.get(one.family_decision, 2)
        return place, 2.0 if one.share is None else one.share

    return sorted(found.specs, key=rank)[:EVERY_SPEC]


def _show(
    chosen: "Sequence[Estimate]", beyond: Beyond, asked: Asked, files: Sequence[Path]
) -> None:
    from conspec.report import estimates as tables

    names = [one.spec.name for one in chosen]
    show(tables.estimate_table(chosen, "embeddings" if files else "held-out images"))
    if covered := {name: beyond.covered[name] for name in names if name in beyond.covered}:
        show(tables.covered_table(covered))
    mass = {name: beyond.mass[name] for name in names if name in beyond.mass}
    if asked.mass is not None and mass:
        show(tables.mass_table(mass, asked.mass.value))
    rare = {name: beyond.rare[name] for name in names if name in beyond.rare}
    if asked.rare is not None and rare:
        show(tables.rare_table(rare, asked.rare.value))
    if beyond.robust is not None:
        show(tables.robust_table(beyond.robust, names))


def _warn(found: "Estimates", beyond: Beyond) -> None:
    """What must not be overlooked."""
    if (skipped := found.skipped).count:
        one = skipped.count == 1
        rows = ", ".join(map(str, skipped.first))
        warn(
            f"{skipped.count} embedding{' has' if one else 's have'} NaN or infinite entries and "
            f"{'was' if one else 'were'} left out: row{'' if one else 's'} {rows}"
            f"{', …' if skipped.count > len(skipped.first) else ''}"
        )
    if empty := [one.spec.name for one in found.specs if not one.total]:
        warn(f"There are no images to count for {some(empty)}.")
    for sentence in beyond.left_out:
        warn(sentence)


def _draw(radii: "RobustRadii", confidence: float, path: Path) -> None:
    from conspec.report.curves import SHOWN, curve_figure
    from conspec.verifier.probability.robust import curves

    path.write_bytes(curve_figure(curves(radii, confidence), "Certified satisfaction"))
    total = len(radii.specs)
    say(f"{path}: written" + (f"; the first {SHOWN} of {total} specs" if total > SHOWN else ""))
