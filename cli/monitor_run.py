"""What ``conspec monitor run`` does: on a bundle, on a file, and on lines as they come."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from conspec.cli.console import print_json, show
from conspec.cli.inputs import read_shards
from conspec.specs.errors import BadFile, BadUsage

if TYPE_CHECKING:
    from conspec.analysis.calibration import Drift, Rate, Rates
    from conspec.analysis.monitor import Judgement, Monitor
    from conspec.analysis.monitor_export import Saved
    from conspec.analysis.proof_index import ProofIndex
    from conspec.lens.bundle import Lens


def say_out(text: str) -> None:
    """A sentence that belongs to the result: standard output."""
    from rich.text import Text

    show(Text(text))


def show_rates(found: "Rates", title: str) -> None:
    """Print the table of what a monitor does."""
    from conspec.report.tables import columns_table

    rows = [
        ["correctly classified", "flagged (false alarm)", *_cells(found.false_alarms)],
        ["misclassified", "flagged (detected)", *_cells(found.detections)],
        ["accepted", "misclassified", *_cells(found.accepted_errors)],
    ]
    show(columns_table(title, ("images", "of them", "count", "share", "95 % interval"), rows))


def _cells(rate: "Rate") -> list[str]:
    from conspec.report.words import percent

    if not rate.total:
        return ["0 of 0", "–", "–"]
    share, low, high = (percent(v) for v in (rate.count / rate.total, rate.lower, rate.upper))
    return [f"{rate.count} of {rate.total}", f"{share} %", f"[{low}, {high}] %"]


def run_bundle(saved: "Saved", bundle: "Lens", proofs: Path | None, as_json: bool) -> None:
    """Judge the held-out images that the monitor has not seen.

    Raises:
        BadUsage: the bundle has other names, or no such images.
    """
    import numpy as np

    from conspec.analysis.calibration import rates

    monitor, data = saved.monitor, bundle.embeddings
    names = (monitor.readout.classes, monitor.readout.concepts)
    if names != (bundle.classes, bundle.concepts):
        raise BadUsage(f"{bundle.root}: has other classes or concepts than the monitor")
    own = saved.bundle == bundle.hash
    chosen = saved.evaluation if own else np.flatnonzero(data.heldout)
    if not len(chosen) or chosen.max() >= bundle.count:
        raise BadUsage(f"{bundle.root}: there are no held-out images to judge")
    judged = monitor.judge(data.z[chosen])
    found = rates(judged.flagged, judged.predicted, data.label[chosen])
    index = None if proofs is None else _index(proofs, bundle)
    counts = None if index is None else index.counts(data.z[chosen])
    if as_json:
        ids = [bundle.image_ids[i] for i in chosen.tolist()]
        inputs = _inputs(judged, monitor, {"index": chosen.tolist(), "image": ids})
        if counts is not None:
            pairs = zip(inputs, counts.tolist(), strict=True)
            inputs = [{**row, "guaranteed": number} for row, number in pairs]
        print_json({"summary": _summary(judged) | {"measured": asdict(found)}, "inputs": inputs})
        return
    which = "that the monitor has not seen" if own else "of another bundle than it was fitted on"
    _show_classes(judged, monitor)
    show_rates(found, f"Held-out images {which}")
    if index is not None and counts is not None:
        lying = int((counts > 0).sum())
        say_out(
            f"{lying} of {len(counts)} images lie in one of the {index.regions} regions over "
            f"which something is proved ({len(index.guarantees)} specs). What is proved of a "
            "region holds for each image in it, and says nothing of the others."
        )


def run_file(saved: "Saved", path: Path, drift: "Drift", as_json: bool) -> None:
    """Judge a stream that is all there."""
    import numpy as np

    from conspec.analysis.calibration import rate

    readout = saved.monitor.readout
    (shard,) = read_shards([path], readout.dimension, len(readout.classes))
    if not len(shard.embeddings):
        raise BadFile(f"{path}: there are no embeddings in it")
    try:
        judged = saved.monitor.judge(np.asarray(shard.embeddings))
    except BadUsage as error:
        raise BadFile(f"{path}: {error}") from error
    drift.update(judged.flagged)
    if as_json:
        rows = _inputs(judged, saved.monitor, {"index": list(range(len(judged.flagged)))})
        print_json({"summary": _summary(judged) | {"drift": _drift(drift)}, "inputs": rows})
        return
    _show_classes(judged, saved.monitor)
    flagged = rate(judged.flagged)
    say_out(f"Flagged: {', '.join(_cells(flagged))} (95 % interval).")
    say_out(_drift_words(drift))


def run_lines(saved: "Saved", drift: "Drift") -> None:
    """Answer each line of standard input at once."""
    import numpy as np

    monitor, size = saved.monitor, saved.monitor.readout.dimension
    for number, text in enumerate(sys.stdin, start=1):
        if not text.strip():
            continue
        try:
            z = np.array(json.loads(text), dtype=np.float64)
        except (ValueError, TypeError, RecursionError) as error:
            raise BadFile(f"<stdin>:{number}: not a JSON array of numbers: {error}") from error
        if z.shape != (size,) or not np.isfinite(z).all():
            raise BadFile(f"<stdin>:{number}: expected an array of {size} finite numbers")
        label, score, flagged = monitor.one(z)
        drift.update([flagged])
        answer = {
            "index": number - 1,
            "predicted": monitor.readout.classes[label],
            "score": score,
            "threshold": float(monitor.calibration.thresholds[label]),
            "flagged": flagged,
            "drift": drift.is_alarm,
            "drift_p_value": drift.p_value,
        }
        typer.echo(json.dumps(answer, ensure_ascii=False))
        sys.stdout.flush()


def _index(path: Path, bundle: "Lens") -> "ProofIndex":
    from conspec.analysis.proof_index import ProofIndex

    return ProofIndex(_lines(path), bundle)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    from conspec.lens.files import parse_json, read_bytes

    for number, text in enumerate(read_bytes(path).splitlines(), start=1):
        yield parse_json(text, Path(f"{path}:{number}"))


def _inputs(
    judged: "Judgement", monitor: "Monitor", columns: dict[str, Sequence[Any]]
) -> list[dict[str, Any]]:
    table: dict[str, Iterable[Any]] = {
        **columns,
        "predicted": [monitor.readout.classes[label] for label in judged.predicted.tolist()],
        "score": judged.score.tolist(),
        "threshold": judged.threshold.tolist(),
        "flagged": judged.flagged.tolist(),
    }
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def _summary(judged: "Judgement") -> dict[str, Any]:
    return {"inputs": len(judged.flagged), "flagged": int(judged.flagged.sum())}


def _drift(drift: "Drift") -> dict[str, Any]:
    return {
        "alarm": drift.is_alarm,
        "p_value": drift.p_value,
        "edge": drift.edge,
        "false_alarm_probability": drift.alarm,
    }


def _drift_words(drift: "Drift") -> str:
    from conspec.report.words import percent

    found = "DRIFT" if drift.is_alarm else "No drift found"
    return (
        f"{found}: anytime-valid p-value {drift.p_value:.2g} of 'at most {percent(drift.edge)} % "
        f"of inputs are flagged', the bound measured when the monitor was fitted; an alarm comes "
        f"at {drift.alarm:g}."
    )


def _show_classes(judged: "Judgement", monitor: "Monitor") -> None:
    from conspec.report.tables import columns_table

    rows = []
    for label, name in enumerate(monitor.readout.classes):
        own = judged.flagged[judged.predicted == label]
        rows.append([name, str(len(own)), str(int(own.sum()))])
    rows.append(["together", str(len(judged.flagged)), str(int(judged.flagged.sum()))])
    show(columns_table("Inputs", ("predicted", "inputs", "flagged"), rows))
