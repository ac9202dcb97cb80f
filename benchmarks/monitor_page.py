"""The tables of ``docs/monitor.md``, written from the JSON files between two marks in the page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conspec.specs.errors import BadFile

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
Report = Mapping[str, Any]


def write_page(page: Path, folder: Path) -> None:
    """Replace what stands between the marks.

    Raises:
        BadFile: the page has no marks.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise BadFile(f"{page}: the marks {BEGIN} and {END} are missing")
    reports = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    speed = reports.pop("speed", None)
    parts = [_section(report) for report in reports.values()]
    parts += [_speed(speed)] if speed else []
    middle = "\n\n".join(parts)
    page.write_text(f"{before}{BEGIN}\n\n{middle}\n\n{END}{after}", encoding="utf-8")


def _section(report: Report) -> str:
    images = report["images"]
    adversarial = report["adversarial"]
    return "\n\n".join(
        [
            f"### {report['bundle']}, {report['model']}",
            f"{images['evaluation']:,} held-out images: {images['right']:,} classified correctly, "
            f"{images['wrong']:,} misclassified. Measured in {report['seconds']:.0f} s.",
            "**Misclassified images against correctly classified ones.** 95 % intervals; AURC is "
            "the mean risk over all coverages, less is better; the last column is the accuracy on "
            "the 80 % of the images with the highest scores.",
            _misclassified(report["misclassification"]),
            "**At the thresholds calibrated for at most 5 % false alarms.**",
            _conformal(report["conformal"]),
            "**Adversarial images that are misclassified against clean images.** AUROC.",
            _attacks(adversarial, "auroc"),
            "The share of them that is found when 5 % of the clean images are flagged, and below "
            "it the AUPR (intervals are in the JSON file):",
            _attacks(adversarial, "tpr", interval=False),
            _attacks(adversarial, "aupr", interval=False),
            "**What gets through.** Of the attacked images, those that are misclassified *and* "
            "accepted at the calibrated threshold:",
            _undetected(adversarial),
            _faults(report["encoder faults"]),
        ]
    )


def _misclassified(found: Report) -> str:
    keys = ("auroc", "aupr", "tpr", "aurc", "selective accuracy")
    best = {key: _best(found, key, least=key == "aurc") for key in keys}
    rows = [
        [name, *(_figure(row[key], bold=name == best[key]) for key in keys)]
        for name, row in found.items()
    ]
    headings = ["detector", "AUROC", "AUPR", "TPR at 5 % FPR", "AURC", "accuracy at 80 %"]
    return table(headings, rows)


def _best(found: Report, key: str, least: bool = False) -> str:
    choose = min if least else max
    return str(choose(found, key=lambda name: found[name][key]["value"]))


def _figure(figure: Mapping[str, float], bold: bool = False, interval: bool = True) -> str:
    value = f"**{figure['value']:.3f}**" if bold else f"{figure['value']:.3f}"
    return value + (f" [{figure['lower']:.3f}, {figure['upper']:.3f}]" if interval else "")


def _conformal(found: Report) -> str:
    keys = ("false_alarms", "detections", "accepted_errors")
    rows = [[rule, *(_rate(row[key]) for key in keys)] for rule, row in found.items()]
    return table(["rule", "false alarms", "detected errors", "errors among accepted"], rows)


def _rate(rate: Mapping[str, float]) -> str:
    share = rate["count"] / max(rate["total"], 1)
    interval = f"[{100 * rate['lower']:.1f}, {100 * rate['upper']:.1f}]"
    return f"{100 * share:.1f} % {interval} of {rate['total']:,}"


def _attacks(found: Report, key: str, interval: bool = True) -> str:
    """A row for each detector, a column for each attack with enough successes."""
    usable = {name: row for name, row in found.items() if "detectors" in row}
    names = list(next(iter(usable.values()))["detectors"]) if usable else []
    best = {attack: _best(row["detectors"], key) for attack, row in usable.items()}
    rows = [
        [name]
        + [
            _figure(row["detectors"][name][key], name == best[attack], interval)
            for attack, row in usable.items()
        ]
        for name in names
    ]
    return table(["detector", *usable], rows)


def _undetected(found: Report) -> str:
    rules = list(next(iter(found.values()))["undetected"])
    rows = [
        [name, f"{row['successful']} of {row['attacked']}"]
        + [str(row["undetected"][rule]) for rule in rules]
        for name, row in found.items()
    ]
    return table(["attack", "misclassified", *(f"past {rule}" for rule in rules)], rows)


def _faults(found: Report) -> str:
    parts = [f"{name} {row['count']} of {row['total']}" for name, row in found.items()]
    return (
        "**Where the fault lies.** Of the misclassified images, those whose mapped embedding is "
        f"nearest to another class name too (the encoder lost the class): {'; '.join(parts)}."
    )


def _speed(found: Report) -> str:
    rows = [
        [what, *(f"{found[key][p]:.1f} µs" for p in ("50", "95", "99"))]
        for what, key in (
            ("one embedding, numpy", "one"),
            ("one embedding, ONNX in onnxruntime", "onnx"),
            (f"in which of {found['boxes']} proved boxes it lies", "proofs"),
        )
    ]
    machine = ", ".join(f"{key} {value}" for key, value in found["machine"].items())
    return "\n\n".join(
        [
            "### Latency",
            f"Besides the encoder, for n = {found['dimension']}, {found['concepts']} concepts and "
            f"{found['classes']} classes, on one core; a batch takes {found['batch']:.1f} µs an "
            "input.",
            table(["batch 1", "median", "95 %", "99 %"], rows),
            f"Measured on: {machine}.",
        ]
    )


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
