"""Times the extraction of predicates: pathways and thresholds of many embeddings.

python -m conspec.benchmarks.rules_speed [--rows N] [--features D] [--classes K] [--out FILE]

Embeddings are made from a seed, part by part, and are not counted in the time: the mean of the
class and noise, cut at zero as a ReLU does. The head has the class means as its weights, and
noise. Predicting the classes is timed, too. Memory is the process's peak (VmHWM).
"""

import argparse
import json
import os
import resource
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conspec.analysis.pathways import LastLayer
from conspec.analysis.predicates import Fitting
from conspec.benchmarks.machine import describe

PART = 8192
"""Embeddings made at once."""
ACTIVE = 0.02
"""Share of the features that a class's mean has."""
NOISE = 1.1
"""Standard deviation around the mean: the head then errs about as often as on ImageNet."""


def main() -> None:
    """Measure, print and write one JSON object."""
    parser = argparse.ArgumentParser(description="How fast are predicates extracted?")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--ahead", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write it to this file")
    options = parser.parse_args()
    found = measure((options.rows, options.features, options.classes), options.ahead)
    text = json.dumps(found | {"machine": describe()}, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")


def measure(sizes: tuple[int, int, int], ahead: int = 0) -> dict[str, Any]:
    """Seconds by the wall clock and of the processor, peak memory, and what was extracted."""
    rows, features, classes = sizes
    random = np.random.default_rng(0)
    means, layer = _model(random, features, classes)
    fitting, lengths = Fitting(layer, ahead), np.zeros(features + 1, np.int64)
    wall = {"predict": 0.0, "extract": 0.0}
    processor = dict(wall)
    for start in range(0, rows, PART):
        z, label = _part(random, means, min(PART, rows - start))
        watch = _Watch()
        predicted = layer.predicted(z)
        watch.stop("predict", wall, processor)
        found = fitting.add(z, predicted, label)
        watch.stop("extract", wall, processor)
        lengths += np.bincount(found.lengths, minlength=len(lengths))
    watch = _Watch()
    vocabulary = fitting.vocabulary()
    watch.stop("extract", wall, processor)
    sources = int(lengths.sum())
    return {
        "rows": rows,
        "features": features,
        "classes": classes,
        "ahead": ahead,
        "sources": sources,
        "predicates": len(vocabulary),
        "pathway": {
            "median": int(np.searchsorted(lengths.cumsum(), sources / 2)),
            "p99": int(np.searchsorted(lengths.cumsum(), 0.99 * sources)),
            "longest": int(np.flatnonzero(lengths)[-1]),
        },
        "seconds": {name: round(value, 2) for name, value in wall.items()},
        "processor_seconds": {name: round(value, 2) for name, value in processor.items()},
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "load": os.getloadavg()[0],
    }


class _Watch:
    """Adds up the time since it was last stopped."""

    def __init__(self) -> None:
        self._wall, self._processor = perf_counter(), process_time()

    def stop(self, name: str, wall: dict[str, float], processor: dict[str, float]) -> None:
        """Count the time as that of a step."""
        now, used = perf_counter(), process_time()
        wall[name] += now - self._wall
        processor[name] += used - self._processor
        self._wall, self._processor = now, used


def _model(
    random: np.random.Generator, features: int, classes: int
) -> tuple[NDArray[np.float32], LastLayer]:
    """Class means, float32 [K, d], and a head that reads them."""
    means = random.exponential(size=(classes, features)).astype(np.float32)
    means *= random.random(size=means.shape, dtype=np.float32) < ACTIVE
    noise = random.normal(scale=0.02, size=means.shape)
    return means, LastLayer(0.1 * means + noise, np.zeros(classes))


def _part(
    random: np.random.Generator, means: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Embeddings [count, d] and their classes."""
    label = random.integers(0, len(means), count)
    z = random.standard_normal((count, means.shape[1]), dtype=np.float32)
    z *= np.float32(NOISE)
    z += means[label]
    return np.maximum(z, 0, out=z), label


if __name__ == "__main__":
    main()
