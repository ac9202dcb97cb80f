"""``conspec monitor``: accept or flag inputs by how their concepts are ranked."""

import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conspec.cli.console import print_json, say, show, warn
from conspec.cli.groups import group
from conspec.cli.inputs import STANDARD_INPUT, open_lens
from conspec.cli.monitor_prove import prove
from conspec.cli.monitor_run import run_bundle, run_file, run_lines, say_out, show_rates
from conspec.cli.verify import JsonOption, LensOption, some
from conspec.specs.errors import BadUsage

if TYPE_CHECKING:
    from conspec.analysis.calibration import Rates
    from conspec.analysis.heatmaps import Integers
    from conspec.analysis.monitor import Monitor
    from conspec.analysis.monitor_export import Saved
    from conspec.lens.bundle import Lens

app = group("Accept or flag inputs at run time, by how their concepts are ranked.")

FORMULA = "accepted.conspec"
"""With ``--rule count``: when inputs are accepted, as specs."""
GAMMAS = ("0.1", "0.3", "0.5")
"""Scales of the focus regions of those specs."""


class RuleName(StrEnum):
    """What inputs are scored by."""

    CONTRAST = "contrast"
    COSINE = "cosine"
    LIKELIHOOD = "likelihood"
    COUNT = "count"


@app.command("fit")
def fit(
    lens: LensOption,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write.")],
    false_alarm: Annotated[
        str,
        typer.Option(
            "--false-alarm", metavar="P", help="Flag correct inputs with this probability at most."
        ),
    ] = "0.05",
    rule: Annotated[
        RuleName, typer.Option("--rule", help="What inputs are scored by; see docs/monitor.md.")
    ] = RuleName.CONTRAST,
    per_class: Annotated[
        bool,
        typer.Option("--per-class", help="Promise it for each predicted class by itself."),
    ] = False,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Of the split of held-out images.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Fit a monitor to a bundle, and measure it.

    References come from the training images, thresholds from one half of the held-out images;
    what it does is measured on the other half. Writes monitor.json, monitor.safetensors and
    monitor.onnx (z to score, flag, predicted class and threshold) to DIR.
    """
    from conspec.analysis.calibration import rate_of, rates, usual_rate
    from conspec.analysis.monitor import Rule, monitor_of
    from conspec.analysis.monitor_export import Saved, save

    rate = rate_of(false_alarm)
    bundle = open_lens(lens)
    data = bundle.embeddings
    training, calibration, evaluation = split(bundle, seed)
    monitor = monitor_of(bundle, training, Rule(rule.value)).calibrate(
        data.z[calibration],
        data.predicted[calibration],
        data.label[calibration],
        rate,
        per_class,
    )
    judged = monitor.judge(data.z[evaluation])
    edge = min(max(usual_rate(judged.flagged), 1e-6), 1 - 1e-6)
    saved = Saved(monitor, bundle.hash, edge, evaluation)
    save(saved, out)
    _write_formula(monitor, out)
    found = rates(judged.flagged, judged.predicted, data.label[evaluation])
    if as_json:
        print_json(_fit_document(saved, found))
    else:
        _show_fit(saved, found)
    silent = [bundle.classes[place] for place in monitor.calibration.silent.nonzero()[0]]
    if silent:
        warn(
            f"Nothing will be flagged in {some(silent)}: a rate of {false_alarm} needs at least "
            f"{-(-1 // rate) - 1} correctly classified calibration images; raise --false-alarm"
            + (", or leave out --per-class." if per_class else ".")
        )
    say(f"{out}: written; use it with: conspec monitor run {out} --lens {lens}")


def split(lens: "Lens", seed: int) -> "tuple[Integers, Integers, Integers]":
    """Training images, and the held-out ones with a known class in two halves drawn at random.

    Raises:
        BadUsage: there are too few of them.
    """
    import numpy as np

    data = lens.embeddings
    held = np.flatnonzero(data.heldout & (data.label >= 0))
    training = np.flatnonzero(~data.heldout & (data.label >= 0))
    if len(held) < 2 or not len(training):
        raise BadUsage(
            f"{lens.root}: a monitor needs training images and at least two held-out images whose "
            f"class is known; there are {len(training)} and {len(held)}"
        )
    drawn = np.random.default_rng(seed).permutation(held)
    middle = len(held) // 2
    return training, np.sort(drawn[:middle]), np.sort(drawn[middle:])


def _write_formula(monitor: "Monitor", folder: Path) -> None:
    """With the rule ``count``, the suite that says when inputs are accepted."""
    from fractions import Fraction

    from conspec.analysis.monitor import Rule
    from conspec.analysis.monitor_spec import acceptance_spec
    from conspec.specs.formula import Focus, Suite
    from conspec.specs.printer import to_text

    path = folder / FORMULA
    path.unlink(missing_ok=True)
    if monitor.rule is not Rule.COUNT:
        return
    labels = [monitor.readout.classes[place] for place in monitor.reference.known.nonzero()[0]]
    cells = [(label, gamma) for label in labels for gamma in GAMMAS]
    specs = [
        acceptance_spec(monitor, label, Focus(label, Fraction(gamma)), f"accepted {label} {gamma}")
        for label, gamma in cells
    ]
    path.write_text(to_text(Suite(tuple(specs))), encoding="utf-8")
    say(f"{path}: when inputs are accepted, as specs; prove them with: conspec verify {path}")


def _fit_document(saved: "Saved", found: "Rates") -> dict[str, Any]:
    monitor, calibration = saved.monitor, saved.monitor.calibration
    reference = monitor.reference
    columns = (reference.right, reference.wrong, calibration.counts, calibration.thresholds)
    rows = zip(monitor.readout.classes, *(column.tolist() for column in columns), strict=True)
    keys = ("class", "right", "wrong", "calibration", "threshold")
    return {
        "rule": monitor.rule.value,
        "false_alarm": float(calibration.false_alarm),
        "per_class": calibration.per_class,
        "guarantee": calibration.statement,
        "classes": [dict(zip(keys, row, strict=True)) for row in rows],
        "measured": asdict(found),
        "edge": saved.edge,
    }


def _show_fit(saved: "Saved", found: "Rates") -> None:
    from conspec.analysis.calibration import ALWAYS, NEVER
    from conspec.analysis.monitor import LEAST, Rule
    from conspec.report.tables import columns_table

    monitor = saved.monitor
    least = LEAST if monitor.rule in (Rule.CONTRAST, Rule.LIKELIHOOD) else sys.maxsize
    words = {NEVER: "flags nothing", ALWAYS: "flags all"}
    headings = ("class", "H⁺ from", "H⁻ from", "calibrated on", "threshold")
    rows = [
        [
            row["class"],
            str(row["right"]),
            str(row["wrong"]) if row["wrong"] >= least else f"{row['wrong']}, not used",
            str(row["calibration"]),
            words.get(row["threshold"], f"{row['threshold']:.4g}"),
        ]
        for row in _fit_document(saved, found)["classes"]
    ]
    show(columns_table(f"Monitor, rule {monitor.rule.value}", headings, rows))
    say_out(f"Guaranteed: {monitor.calibration.statement}")
    show_rates(found, "Measured on the held-out images that it has not seen")


@app.command("run")
def run(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What 'monitor fit' wrote.")],
    lens: Annotated[
        Path | None,
        typer.Option("--lens", metavar="BUNDLE", help="Judge the held-out images of a bundle."),
    ] = None,
    embeddings: Annotated[
        str | None,
        typer.Option(
            "--embeddings",
            metavar="FILE",
            help="Judge a stream: .npy or .safetensors [N, n], or - for one JSON array a line.",
        ),
    ] = None,
    proofs: Annotated[
        Path | None,
        typer.Option(
            "--proofs", metavar="FILE", help="Results of 'verify': say what is proved of each."
        ),
    ] = None,
    drift_alarm: Annotated[
        float,
        typer.Option(
            "--drift-alarm", metavar="P", help="Probability of ever alarming without a drift."
        ),
    ] = 0.01,
    as_json: JsonOption = False,
) -> None:
    """Judge inputs by a monitor.

    With --lens, the held-out images that the monitor has not seen, and how often it was right.
    With --embeddings, a stream in its order: the rate of flags is watched for a drift. From
    standard input, each line is answered at once by a JSON object.
    """
    from conspec.analysis.calibration import Drift
    from conspec.analysis.monitor_export import load

    if (lens is None) == (embeddings is None):
        raise BadUsage("say what to judge: --lens BUNDLE, or --embeddings FILE (or -)")
    if proofs is not None and lens is None:
        raise BadUsage("--proofs: needs --lens too, the bundle that the proofs are about")
    saved = load(folder)
    if lens is not None:
        run_bundle(saved, open_lens(lens), proofs, as_json)
    elif embeddings == STANDARD_INPUT:
        run_lines(saved, Drift(saved.edge, drift_alarm))
    else:
        run_file(saved, Path(str(embeddings)), Drift(saved.edge, drift_alarm), as_json)


app.command("prove")(prove)
