"""Closed-form γ* of all concept pairs of all classes, beside one matrix product of the same size.

Synthetic and seeded: K classes × M concepts × n dimensions in float32, the weakest 100 pairs of
every class. The yardstick is what ``torch.matmul`` takes for as many multiply-adds, in the same
run, in chunks of the same shape. Memory is the process's peak beyond the inputs.

Run by ``python -m conspec.benchmarks.speed``.
"""

import resource
import statistics
from time import perf_counter
from typing import Any

from conspec.verifier.weakest import CHUNK, weakest_pairs


def inputs(classes: int, concepts: int, dimensions: int) -> Any:
    """Concept rows and offsets, class means and deviations, float32, seeded."""
    import torch

    chance = torch.Generator().manual_seed(0)
    rows = torch.randn(concepts, dimensions, generator=chance) / dimensions**0.5
    means = torch.rand(classes, dimensions, generator=chance)
    deviations = 0.3 * torch.rand(classes, dimensions, generator=chance)
    return (rows, torch.zeros(concepts)), means, deviations


def product_seconds(classes: int, concepts: int, dimensions: int, chunks: int) -> float:
    """What matrix products with as many multiply-adds take, from a timed sample of chunks."""
    import torch

    pairs = concepts * (concepts - 1) // 2
    block, deviations = torch.rand(CHUNK, dimensions), torch.rand(classes, dimensions)
    times = []
    for _ in range(chunks):
        start = perf_counter()
        _ = block @ deviations.T
        times.append(perf_counter() - start)
    return statistics.median(times) * pairs / CHUNK


def measure(classes: int, concepts: int, dimensions: int) -> dict[str, float]:
    """One size: seconds, the yardstick before and after, the ratio, and memory."""
    data = inputs(classes, concepts, dimensions)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yardstick = [product_seconds(classes, concepts, dimensions, 10)]
    start = perf_counter()
    found = weakest_pairs(*data)
    seconds = perf_counter() - start
    yardstick.append(product_seconds(classes, concepts, dimensions, 10))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    matmul = statistics.mean(yardstick)
    return {
        "classes": classes,
        "concepts": concepts,
        "dimensions": dimensions,
        "pairs in all": classes * concepts * (concepts - 1) // 2,
        "seconds": seconds,
        "matmul seconds": matmul,
        "ratio": seconds / matmul,
        "GiB beyond the inputs": (after - before) / 2**20,
        "smallest scale": float(found.scales.min()),
    }


def growth(classes: int, concepts: int, dimensions: int) -> list[dict[str, float]]:
    """Smaller sizes, halved in one direction at a time: classes, dimensions, pairs."""
    measure(classes // 4, concepts // 4, dimensions // 4)  # warm up
    sizes = [(classes // d, concepts // 4, dimensions) for d in (8, 4, 2, 1)]
    sizes += [(classes, concepts // 4, dimensions // d) for d in (8, 4, 2)]
    sizes += [(classes, round(concepts / d**0.5), dimensions) for d in (32, 8, 4)]
    return [measure(*size) for size in sizes]
