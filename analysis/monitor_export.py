"""A monitor as files: JSON and safetensors to go on with, ONNX to deploy beside the model.

==========================  ===============================================================
``monitor.json``            format, rule, names, the guarantee, SHA-256 of the other files
``monitor.safetensors``     readout, references, thresholds, images left for evaluation
``monitor.onnx``            ``z`` → ``score``, ``flag``, ``predicted``, ``threshold``
==========================  ===============================================================

Nothing is pickled. What is not exactly as it was written is refused.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from conspec.analysis.calibration import Calibration, rate_of
from conspec.analysis.heatmaps import Integers
from conspec.analysis.monitor import Monitor, Readout, Reference, Rule
from conspec.lens.files import Field, member, parse_json, read_arrays, read_bytes, sha256
from conspec.lens.manifest import checked_names
from conspec.specs.errors import BadFile, BadUsage

FORMAT = "conspec-monitor"
VERSION = 1
ABOUT, ARRAYS, MODEL = "monitor.json", "monitor.safetensors", "monitor.onnx"
FIELDS = {
    "map_weight": Field("F64", ("M", "n")),
    "map_bias": Field("F64", ("M",)),
    "weights": Field("F64", ("K", "M", "M")),
    "start": Field("F64", ("K",)),
    "known": Field("BOOL", ("K",)),
    "right": Field("I64", ("K",)),
    "wrong": Field("I64", ("K",)),
    "thresholds": Field("F64", ("K",)),
    "counts": Field("I64", ("K",)),
    "evaluation": Field("I64", ("E",)),
}


@dataclass(frozen=True, eq=False)
class Saved:
    """A monitor with what a later run must know.

    Attributes:
        monitor: fitted and calibrated.
        bundle: hash of the bundle that it was fitted on.
        edge: how often inputs are flagged at most, as ``usual_rate`` says, for ``Drift``.
        evaluation: images of that bundle that it has not seen, int64 [E].
    """

    monitor: Monitor
    bundle: str
    edge: float
    evaluation: Integers = field(default_factory=lambda: np.empty(0, dtype=np.int64))


def save(saved: Saved, folder: Path) -> None:
    """Write the three files; the JSON comes last, so that a folder with it is complete."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    monitor, readout = saved.monitor, saved.monitor.readout
    reference, calibration = monitor.reference, monitor.calibration
    arrays = {
        "map_weight": readout.concept_map[0],
        "map_bias": readout.concept_map[1],
        "weights": reference.weights,
        "start": reference.start,
        "known": reference.known,
        "right": reference.right,
        "wrong": reference.wrong,
        "thresholds": calibration.thresholds,
        "counts": calibration.counts,
        "evaluation": saved.evaluation,
    }
    for depth, (weight, bias) in enumerate(readout.head):
        arrays |= {f"head_weight{depth}": weight, f"head_bias{depth}": bias}
    save_file({key: np.ascontiguousarray(a) for key, a in arrays.items()}, folder / ARRAYS)
    (folder / MODEL).write_bytes(to_onnx(monitor))
    about = {
        "format": FORMAT,
        "version": VERSION,
        "rule": monitor.rule.value,
        "classes": list(readout.classes),
        "concepts": list(readout.concepts),
        "layers": len(readout.head),
        "false_alarm": str(calibration.false_alarm),
        "per_class": calibration.per_class,
        "guarantee": calibration.statement,
        "edge": saved.edge,
        "bundle": saved.bundle,
        "files": {name: sha256(folder / name) for name in (ARRAYS, MODEL)},
    }
    text = json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / ABOUT).write_text(text + "\n", encoding="utf-8")


def load(folder: Path) -> Saved:
    """The monitor of a folder.

    Raises:
        BadFile: it is not exactly what was written.
    """
    if not folder.is_dir():
        raise BadFile(f"{folder}: no such monitor (expected a folder; see conspec monitor fit)")
    path = member(folder, ABOUT)
    about = parse_json(read_bytes(path), path)
    _check_about(about, path)
    for name in (ARRAYS, MODEL):
        if sha256(member(folder, name)) != about["files"].get(name):
            raise BadFile(
                f"{folder / name}: its SHA-256 is not the one in {ABOUT}; the file was changed "
                "or damaged after the monitor was written"
            )
    try:
        return _read(about, folder / ARRAYS, path)
    except BadUsage as error:
        raise BadFile(f"{path}: {error}") from error


_TYPES = {
    "rule": str,
    "layers": int,
    "false_alarm": str,
    "per_class": bool,
    "edge": float,
    "bundle": str,
    "files": dict,
}


def _check_about(about: dict[str, Any], path: Path) -> None:
    if about.get("format") != FORMAT or about.get("version") != VERSION:
        raise BadFile(f"{path}: not a {FORMAT} of version {VERSION}")
    for name, kind in _TYPES.items():
        if type(about.get(name)) is not kind:
            raise BadFile(f"{path}: {name!r} is missing or is no {kind.__name__}")
    if about["rule"] not in list(Rule):
        raise BadFile(f"{path}: unknown rule {about['rule']!r}; known: {', '.join(Rule)}")
    if not 1 <= about["layers"] <= 100 or not 0 < about["edge"] < 1:
        raise BadFile(f"{path}: 'layers' or 'edge' is out of range")


def _read(about: dict[str, Any], source: Path, path: Path) -> Saved:
    classes = checked_names(about, "classes", path)
    concepts = checked_names(about, "concepts", path)
    depth = about["layers"]
    inputs = ["n", *(f"h{layer}" for layer in range(1, depth))]
    outputs = [*inputs[1:], "K"]
    head: dict[str, Field] = {}
    for layer, shape in enumerate(zip(outputs, inputs, strict=True)):
        head |= {
            f"head_weight{layer}": Field("F64", shape),
            f"head_bias{layer}": Field("F64", shape[:1]),
        }
    sizes = {"K": len(classes), "M": len(concepts)}
    arrays = read_arrays(source, FIELDS | head, sizes)
    layers = [(arrays[f"head_weight{i}"], arrays[f"head_bias{i}"]) for i in range(depth)]
    widths = [arrays["map_weight"].shape[1], *(len(bias) for _, bias in layers[:-1])]
    if any(w.shape[1] != size for (w, _), size in zip(layers, widths, strict=True)):
        raise BadFile(f"{source}: the layers of the head do not fit together")
    readout = Readout(classes, concepts, tuple(layers), (arrays["map_weight"], arrays["map_bias"]))
    reference = Reference(*(arrays[k] for k in ("weights", "start", "known", "right", "wrong")))
    calibration = Calibration(
        arrays["thresholds"],
        arrays["counts"],
        rate_of(about["false_alarm"]),
        about["per_class"],
    )
    monitor = Monitor.fitted(readout, Rule(about["rule"]), reference, calibration)
    return Saved(monitor, about["bundle"], about["edge"], arrays["evaluation"])


def to_onnx(monitor: Monitor) -> bytes:
    """The whole monitor as an ONNX file, in float64 inside.

    Input ``z`` float32 [N, n]; outputs ``score`` float64 [N], ``flag`` bool [N], ``predicted``
    int64 [N] and ``threshold`` float64 [N], as ``Monitor.judge`` gives them. Sums of weights are
    exact, so that only rankings of concepts, or of logits, that agree up to float64 rounding can
    come out differently. Where a concept's score is NaN or infinite, the score is NaN and the
    input flagged.
    """
    from onnx import TensorProto, helper, numpy_helper

    from conspec.lens.onnx_files import model_bytes

    readout = monitor.readout
    weights, nodes = _parts(monitor)
    outputs = [
        ("score", TensorProto.DOUBLE),
        ("flag", TensorProto.BOOL),
        ("predicted", TensorProto.INT64),
        ("threshold", TensorProto.DOUBLE),
    ]
    graph = helper.make_graph(
        [helper.make_node(*node[:3], **node[3]) for node in nodes],
        "monitor",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", readout.dimension])],
        [helper.make_tensor_value_info(name, kind, ["N"]) for name, kind in outputs],
        [numpy_helper.from_array(np.ascontiguousarray(a), k) for k, a in weights.items()],
    )
    return model_bytes(graph)


_Node = tuple[str, list[str], list[str], dict[str, Any]]


def _parts(monitor: Monitor) -> tuple[dict[str, Any], list[_Node]]:
    """Constants and nodes of the graph."""
    from onnx import TensorProto

    readout, reference = monitor.readout, monitor.reference
    size = len(readout.concepts)
    weights: dict[str, Any] = {
        "map_weight": readout.concept_map[0].T,
        "map_bias": readout.concept_map[1],
        "cells": reference.weights.reshape(-1, size * size).T,
        "start": reference.start,
        "thresholds": monitor.calibration.thresholds,
        "flat": np.array([-1, size * size]),
        "one": np.array([1]),
        "two": np.array([2]),
    }
    double = {"to": TensorProto.DOUBLE}
    nodes: list[_Node] = [("Cast", ["z"], ["wide"], double)]
    value = "wide"
    for depth, (weight, bias) in enumerate(readout.head):
        weights |= {f"weight{depth}": weight.T, f"bias{depth}": bias}
        if depth:
            nodes.append(("Relu", [value], [f"relu{depth}"], {}))
            value = f"relu{depth}"
        nodes.append(("MatMul", [value, f"weight{depth}"], [f"product{depth}"], {}))
        nodes.append(("Add", [f"product{depth}", f"bias{depth}"], [f"layer{depth}"], {}))
        value = f"layer{depth}"
    nodes += [
        ("ArgMax", [value], ["predicted"], {"axis": 1, "keepdims": 0}),
        ("MatMul", ["wide", "map_weight"], ["mapped"], {}),
        ("Add", ["mapped", "map_bias"], ["concepts"], {}),
        ("Unsqueeze", ["concepts", "two"], ["left"], {}),
        ("Unsqueeze", ["concepts", "one"], ["right"], {}),
        ("Greater", ["left", "right"], ["above"], {}),
        ("Cast", ["above"], ["ones"], double),
        ("Reshape", ["ones", "flat"], ["ranking"], {}),
        ("MatMul", ["ranking", "cells"], ["sums"], {}),
        ("Add", ["sums", "start"], ["scores"], {}),
        ("Unsqueeze", ["predicted", "one"], ["column"], {}),
        ("GatherElements", ["scores", "column"], ["chosen"], {"axis": 1}),
        ("Squeeze", ["chosen", "one"], ["sum"], {}),
        # Zero, or NaN where a concept's score is not finite: then the input must be flagged.
        ("Sub", ["concepts", "concepts"], ["zeros"], {}),
        ("ReduceSum", ["zeros", "one"], ["zero"], {"keepdims": 0}),
        ("Add", ["sum", "zero"], ["score"], {}),
        ("Gather", ["thresholds", "predicted"], ["threshold"], {}),
        ("GreaterOrEqual", ["score", "threshold"], ["accepted"], {}),
        ("Not", ["accepted"], ["flag"], {}),
    ]
    return weights, nodes
