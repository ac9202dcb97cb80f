"""Times the evaluation of a suite on embeddings beside matrix products, and tells its memory.

    python -m conspec.benchmarks.estimate_speed
    python -m conspec.benchmarks.estimate_speed --rows 1280000

Synthetic and seeded: 1,000 classes, 100 concepts and 2,048 dimensions, 1,000 specs of mixed shapes.

* Throughput: embeddings in memory, float16, and all of the evaluation: conversion, scores, atoms,
  formulas, counts, and the second look at what rounding left open. Beside it, in turns, two
  yardsticks of ``torch.matmul``: one float32 product of all scores, and the products that the
  evaluation does (float32 logits; concepts in the format it settled on). Medians.
* Memory: ``--rows`` float16 embeddings in a file on disk that is read through a memory map. Peak
  resident memory is the process's ``VmHWM``: interpreter, libraries, and the pages of the file that
  the system keeps as long as it has room for them.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conspec.benchmarks.machine import describe
from conspec.encodings.network import Affine, Network
from conspec.encodings.scores import ScoreSpace
from conspec.specs import formula as f
from conspec.verifier.probability.satisfaction import ROWS, Counter, Question, count_satisfied
from conspec.verifier.probability.shards import Shard, chunks, shards_of

CLASSES, CONCEPTS, DIMENSIONS, SPECS = 1000, 100, 2048, 1000
RUNS = 40
PIECE = 16_384
"""Rows generated at a time."""


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description="How fast are specs evaluated on embeddings?")
    parser.add_argument("--rows", type=int, default=100_000, help="embeddings of the memory test")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(json.dumps(measure(options.rows, options.runs, options.device), indent=1))


def measure(rows: int = 100_000, runs: int = RUNS, device: str = "cpu") -> dict[str, Any]:
    """Throughput and memory."""
    return {
        "throughput": throughput(runs, device),
        "memory": memory(rows, device),
        "machine": describe(),
    }


def space() -> ScoreSpace:
    """Random heads and concepts with rows of length about 1; every weight a float32."""
    chance = np.random.default_rng(0)

    def affine(rows: int) -> Affine:
        weight = chance.normal(size=(rows, DIMENSIONS)) / DIMENSIONS**0.5
        bias = 0.1 * chance.normal(size=rows)
        single = weight.astype(np.float32), bias.astype(np.float32)
        return Affine(single[0].astype(np.float64), single[1].astype(np.float64))

    classes = tuple(f"class{index}" for index in range(CLASSES))
    concepts = tuple(f"concept{index}" for index in range(CONCEPTS))
    return ScoreSpace(classes, concepts, Network((affine(CLASSES),)), affine(CONCEPTS))


def questions(scores: ScoreSpace) -> list[Question]:
    """Mixed shapes: of ten specs four suppose a prediction, four compare two concepts (one of
    them asked of one class), and two are made of several atoms."""
    chance = np.random.default_rng(1)
    found = []
    for index in range(SPECS):
        a, b, c, d = (scores.concepts[i] for i in chance.choice(CONCEPTS, 4, replace=False))
        label = scores.classes[chance.integers(CLASSES)]
        pair, other = f.Stronger(a, b), f.Stronger(c, d)
        score = [f.Linear(((Fraction(1), f.Score(name)),)) for name in (a, b)]
        shift = f.Linear(score[1].terms, Fraction("0.1"))
        shapes: list[Question] = [
            *[Question(f.Implies(f.Predict(label), pair))] * 4,
            *[Question(pair)] * 3,
            Question(pair, label),
            Question(f.Implies(f.And((f.Predict(label), other)), pair)),
            Question(f.Or((other, f.Compare(score[0], f.Relation.GE, shift)))),
        ]
        found.append(shapes[index % len(shapes)])
    return found


def embeddings(rows: int, seed: int) -> NDArray[np.float16]:
    """Half of the entries zero, as after a ReLU, [rows, n]."""
    chance = np.random.default_rng(seed)
    normal = chance.standard_normal((rows, DIMENSIONS), dtype=np.float32)
    return np.maximum(normal, 0.0).astype(np.float16)


def throughput(runs: int, device: str) -> dict[str, Any]:
    """Rows a second of the evaluation and of the yardsticks, chunk by chunk in turns."""
    import torch

    scores = space()
    start = perf_counter()
    counter = Counter(questions(scores), scores, device)
    setup = perf_counter() - start
    rows = ROWS[torch.device(device).type]
    z = torch.from_numpy(embeddings(rows, 0)).to(device)
    labels = torch.arange(rows, device=device) % CLASSES
    whole = torch.randn(CLASSES + CONCEPTS, DIMENSIONS, device=device)
    single, concepts = z.float(), whole[CLASSES:]

    def evaluate() -> None:
        for chunk in chunks([Shard(z, labels)], rows, device):
            counter.add(chunk)

    evaluate()  # warms up, and finds out whether float32 leaves too much open
    double = counter.in_double
    right = (concepts.double(), single.double()) if double else (concepts, single)

    def same_products() -> None:
        torch.matmul(single, whole[:CLASSES].T)
        torch.matmul(right[0], right[1].T)

    work: dict[str, Callable[[], object]] = {
        "evaluation": evaluate,
        "one float32 product": lambda: torch.matmul(single, whole.T),
        "the products it does": same_products,
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(runs):
        for name, step in work.items():
            seconds[name].append(_seconds(step, device))
    middle = {name: median(times) for name, times in seconds.items()}
    found = counter.result()
    return {
        "rows a chunk": rows,
        "specs": SPECS,
        "threads": torch.get_num_threads(),
        "seconds to prepare": setup,
        "rows a second": {name: round(rows / value) for name, value in middle.items()},
        "share of one float32 product": middle["one float32 product"] / middle["evaluation"],
        "share of the products it does": middle["the products it does"] / middle["evaluation"],
        "concepts in float64": double,
        "share evaluated again": found.retried / found.rows,
        "decided exactly": found.exact,
    }


def _seconds(step: Callable[[], object], device: str) -> float:
    """How long a step takes, the device's queue included."""
    import torch

    start = perf_counter()
    step()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - start


def memory(rows: int, device: str) -> dict[str, Any]:
    """Seconds and peak memory of a stream from a file on disk."""
    scores = space()
    asked = questions(scores)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "embeddings.f16"
        with path.open("wb") as file:
            for seed, start in enumerate(range(0, rows, PIECE)):
                file.write(embeddings(min(PIECE, rows - start), seed).tobytes())
        _reset_peak()
        start_memory, start_time = _status("VmRSS"), perf_counter()
        found = count_satisfied(_shards(path, rows), asked, scores, device)
        seconds = perf_counter() - start_time
    return {
        "rows": found.rows,
        "specs": len(asked),
        "seconds": seconds,
        "GiB of embeddings": rows * DIMENSIONS * 2 / 2**30,
        "GiB peak": _status("VmHWM") / 2**20,
        "GiB before": start_memory / 2**20,
        "evaluated again in float64": found.retried,
        "decided exactly": found.exact,
    }


def _shards(path: Path, rows: int) -> Iterator[Shard]:
    """Shards of a file, each through a map of its own, so that pages read before are let go."""
    for start in range(0, rows, PIECE):
        size = min(PIECE, rows - start)
        offset = start * DIMENSIONS * 2
        part = np.memmap(path, np.float16, "r", offset, (size, DIMENSIONS))
        yield from shards_of(part, (np.arange(size) + start) % CLASSES)


def _status(key: str) -> int:
    """A line of /proc/self/status, in KiB."""
    with open("/proc/self/status", encoding="utf-8") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))


def _reset_peak() -> None:
    """Lets ``VmHWM`` begin at what the process holds now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


if __name__ == "__main__":
    main()
