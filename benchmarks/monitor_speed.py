"""What the monitor costs for each input, besides the encoder; on one core."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from conspec.analysis.monitor import Monitor, Readout
from conspec.analysis.monitor_export import to_onnx
from conspec.analysis.proof_index import Walls
from conspec.encodings.exact import from_array
from conspec.encodings.regions import box

DIMENSION, CONCEPTS, CLASSES = 512, 50, 10
IMAGES = 2000
BOXES = 100


def measure() -> dict[str, Any]:
    """Microseconds an input, on random weights: one by one, through ONNX, and in a batch."""
    from conspec.lens.onnx_files import open_session

    random = np.random.default_rng(0)
    z = np.abs(random.normal(size=(IMAGES, DIMENSION))).astype(np.float32)
    monitor = _monitor(random, z)
    session = open_session(to_onnx(monitor), "monitor")
    corners = random.normal(size=(BOXES, DIMENSION)) - 1
    walls = Walls.of((box(from_array(c), from_array(c + 6)) for c in corners), np.float32)
    singles = [row[None] for row in z]
    start = time.perf_counter()
    monitor.judge(z)
    batch = 1e6 * (time.perf_counter() - start) / len(z)
    return {
        "dimension": DIMENSION,
        "concepts": CONCEPTS,
        "classes": CLASSES,
        "one": _times(monitor.one, list(z)),
        "onnx": _times(lambda row: session.run(None, {"z": row}), singles),
        "batch": batch,
        "boxes": BOXES,
        "proofs": _times(walls.hold, singles),
    }


def _monitor(random: np.random.Generator, z: Any) -> Monitor:
    readout = Readout(
        tuple(f"class {k}" for k in range(CLASSES)),
        tuple(f"concept {k}" for k in range(CONCEPTS)),
        ((random.normal(size=(CLASSES, DIMENSION)), random.normal(size=CLASSES)),),
        (random.normal(size=(CONCEPTS, DIMENSION)), random.normal(size=CONCEPTS)),
    )
    predicted = readout.logits(z.astype(np.float64)).argmax(axis=1)
    label = np.where(random.random(len(z)) < 0.2, (predicted + 1) % CLASSES, predicted)
    half = slice(0, len(z) // 2), slice(len(z) // 2, None)
    monitor = Monitor(readout).fit(*(part[half[0]] for part in (z, predicted, label)))
    return monitor.calibrate(*(part[half[1]] for part in (z, predicted, label)))


def _times(call: Callable[[Any], object], inputs: list[Any]) -> dict[str, float]:
    """Median, 95th and 99th percentile of one call, in microseconds."""
    found = []
    for value in inputs:
        start = time.perf_counter()
        call(value)
        found.append(1e6 * (time.perf_counter() - start))
    return {str(p): float(np.percentile(found, p)) for p in (50, 95, 99)}
