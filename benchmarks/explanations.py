"""Times formal explanations of single images: one AXp each, and one CXp.

python -m conspec.benchmarks.explanations [--images N] [--smallest N] [--lens BUNDLE ...]

Heads and embeddings are synthetic and seeded, with 512 features and 10 or 1,000 classes; and the
shipped bundle emoji10, and other bundles that are named. The domain is the box of the training
embeddings (of all, for synthetic ones). An image's time holds everything from its embedding on:
exact values, the sums, the set. What belongs to the head alone (its weights laid out) is done once
and not timed. "smallest" is the time for an AXp that no other one is smaller than, for a few
images, up to 10 s each; "shown" is for how many of them that was proved. "load" is how many
processes wanted a core meanwhile.
"""

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from conspec.analysis.explanations import LinearHead, LinearQuestion, Units
from conspec.analysis.image_questions import ExactLayer
from conspec.analysis.smallest import smallest_axp
from conspec.benchmarks.machine import describe
from conspec.cli.inputs import SHIPPED
from conspec.encodings.exact import from_array
from conspec.encodings.network import Affine
from conspec.encodings.regions import Box, box
from conspec.encodings.rounding import Floats
from conspec.lens import Lens

FEATURES = 512
EMBEDDINGS = 5_000


@dataclass(frozen=True, eq=False)
class Setting:
    """A head, a domain, and the embeddings [N, n] to be explained in it."""

    name: str
    head: LinearHead
    domain: Box
    points: Floats

    def question(self, point: Floats) -> LinearQuestion:
        """The question about an embedding; its domain holds it."""
        weight, bias = self.head.affine.floats
        target, z = int((weight @ point + bias).argmax()), from_array(point)
        places = np.arange(len(point))
        units = Units(tuple(map(str, places.tolist())), places, z, z)
        return LinearQuestion.of(self.head, target, self.domain, units)


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description="How fast are formal explanations?")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--smallest", type=int, default=5)
    parser.add_argument("--lens", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    chosen = [*settings(), *map(of_lens, options.lens)]
    found = [measure(one, options.images, options.smallest) for one in chosen]
    print(json.dumps({"settings": found, "machine": describe()}, indent=1))


def settings() -> Iterator[Setting]:
    """Synthetic heads of 10 and of 1,000 classes, and emoji10."""
    for classes in (10, 1000):
        yield synthetic(classes)
    yield of_lens(SHIPPED["emoji10"])


def of_lens(path: Path) -> Setting:
    """The head of a bundle, and its training embeddings."""
    lens = Lens.load(path)
    layer = ExactLayer.of(lens)
    training = lens.embeddings.z[~lens.embeddings.heldout].astype(np.float64)
    return Setting(lens.name, layer.head, layer.observed, training)


def synthetic(classes: int) -> Setting:
    """Embeddings of a ReLU around class means, and the head of the means' directions."""
    random = np.random.default_rng(classes)
    means = random.gamma(0.5, 1.0, (classes, FEATURES))
    label = random.integers(0, classes, EMBEDDINGS)
    noise = random.normal(scale=0.5, size=(EMBEDDINGS, FEATURES))
    points = np.maximum(means[label] + noise, 0.0).astype(np.float32).astype(np.float64)
    centred = means - means.mean(axis=0)
    weight = (centred / np.sqrt(FEATURES)).astype(np.float32).astype(np.float64)
    bias = (-0.5 * (means * weight).sum(axis=1)).astype(np.float32).astype(np.float64)
    domain = box(from_array(points.min(axis=0)), from_array(points.max(axis=0)))
    name = f"{FEATURES} features, {classes} classes"
    return Setting(name, LinearHead(Affine(weight, bias)), domain, points)


def measure(setting: Setting, images: int, smallest: int) -> dict[str, Any]:
    """Milliseconds and sizes for some images of a setting, drawn at random."""
    count = min(images, len(setting.points))
    drawn = np.random.default_rng(0).choice(len(setting.points), count, replace=False)
    everything = np.ones(setting.points.shape[1], dtype=bool)
    setting.question(setting.points[drawn[0]])  # lays out the head
    axp_times, cxp_times, axps, cxps = [], [], [], []
    for point in setting.points[drawn]:
        start = perf_counter()
        question = setting.question(point)
        kept = question.smaller_kept(everything)
        axp_times.append(1000 * (perf_counter() - start))
        axps.append(int(kept.sum()))
        start = perf_counter()
        freed = question.smaller_freed(everything)
        cxp_times.append(1000 * (perf_counter() - start))
        cxps.append(int(freed.sum()))
    return {
        "setting": setting.name,
        "images": count,
        "axp_ms": _summary(axp_times),
        "axp_features": _summary(axps),
        "cxp_ms": _summary(cxp_times),
        "cxp_features": _summary(cxps),
        "smallest": _smallest(setting, setting.points[drawn[:smallest]]),
        "load": round(os.getloadavg()[0], 1),
    }


def _summary(values: list[Any]) -> dict[str, float]:
    """Median, 95 % quantile and the largest."""
    return {
        "median": round(float(median(values)), 2),
        "p95": round(float(np.quantile(values, 0.95)), 2),
        "largest": round(float(max(values)), 2),
    }


def _smallest(setting: Setting, points: Floats) -> dict[str, Any]:
    """Seconds for smallest AXps, how many were shown to be that, and their sizes and bounds."""
    times, sizes = [], []
    for point in points:
        start = perf_counter()
        found = smallest_axp(setting.question(point))
        times.append(round(perf_counter() - start, 2))
        if found is not None:
            sizes.append((int(found.chosen.sum()), found.lower))
    shown = sum(size == least for size, least in sizes)
    return {"images": len(points), "shown": shown, "size_and_bound": sizes, "seconds": times}


if __name__ == "__main__":
    main()
