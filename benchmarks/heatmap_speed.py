"""Times heatmaps of many embeddings: counting, ranking, similarities, intervals and tests.

python -m conspec.benchmarks.heatmap_speed [--images N] [--concepts M] [--groups G] [--runs R]

Scores are random. Mapping embeddings of 512 numbers to scores is timed, too. Memory is the
process's peak, with the scores twice. "load" is how many processes wanted a core meanwhile.
"""

import argparse
import json
import os
import resource
from collections.abc import Callable
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np

from conspec.analysis.differences import differences
from conspec.analysis.heatmaps import Maps, summary
from conspec.analysis.similarity import similarities
from conspec.benchmarks.machine import describe
from conspec.specs.ranking import pair_counts, ranks

DIMENSION = 512
BATCH = 65_536


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description="How fast are heatmaps?")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--concepts", type=int, default=100)
    parser.add_argument("--groups", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    sizes = (options.images, options.concepts, options.groups)
    print(json.dumps(measure(sizes, options.runs) | {"machine": describe()}, indent=1))


def measure(sizes: tuple[int, int, int], runs: int) -> dict[str, Any]:
    """Seconds of each step, medians of the runs, by the wall clock and of the processor."""
    images, concepts, groups = sizes
    random = np.random.default_rng(0)
    label = random.integers(0, groups, images)
    right = random.random(images) < 0.9
    scores = random.standard_normal((images, concepts), dtype=np.float32)
    mapped = np.empty_like(scores)
    z = random.normal(size=(BATCH, DIMENSION)).astype(np.float32)
    weight = random.normal(size=(DIMENSION, concepts)).astype(np.float32)

    def project() -> None:
        for start in range(0, images, BATCH):
            part = mapped[start : start + BATCH]
            np.matmul(z[: len(part)], weight, out=part)

    def maps_of(groups_of_images: Any) -> Maps:
        names = [
            [f"{letter}{i}" for i in range(n)] for letter, n in (("g", groups), ("c", concepts))
        ]
        return summary(scores, groups_of_images, *names)

    maps, fails = (maps_of(np.where(chosen, label, -1)) for chosen in (right, ~right))
    part = scores[:100_000]
    steps: dict[str, Callable[[], object]] = {
        "scores of the embeddings": project,
        "summary maps": lambda: pair_counts(scores, label, groups),
        "ranks": lambda: ranks(scores),
        f"cosine of {len(part)} images with {groups} maps": lambda: similarities(ranks(part), maps),
        "intervals of all cells": maps.intervals,
        "tests of all cells": lambda: differences(maps, fails),
    }
    times = {name: [_seconds(step) for _ in range(runs)] for name, step in steps.items()}
    return {
        "images": images,
        "concepts": concepts,
        "groups": groups,
        "dimension": DIMENSION,
        "wall": {name: round(median(t[0] for t in found), 4) for name, found in times.items()},
        "processor": {name: round(median(t[1] for t in found), 4) for name, found in times.items()},
        "load": round(os.getloadavg()[0], 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "scores_mb": scores.nbytes // 2**20,
    }


def _seconds(step: Callable[[], object]) -> tuple[float, float]:
    """By the wall clock, and of the processor: they differ where others use the machine."""
    wall, processor = perf_counter(), process_time()
    step()
    return perf_counter() - wall, process_time() - processor


if __name__ == "__main__":
    main()
