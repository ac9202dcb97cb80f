"""The runtime monitor against the usual detectors, on two kinds of defects.

    python -m conspec.benchmarks.monitors --docs docs
    python -m conspec.benchmarks.monitors --docs docs --data DATA --cifar BUNDLE [BUNDLE ...]

Without --cifar, on Emoji-10; with it, on bundles of CIFAR-10 (``benchmarks.cifar10.build``) with
the pictures and weights in DATA. Writes ``docs/monitor/NAME.json`` and then the tables in
``docs/monitor.md`` from all JSON files there; with --page-only only the latter.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from conspec.analysis.attacks import (
    Attack,
    Goal,
    Norm,
    Target,
    attack,
    classify_as,
    deceive,
    fgsm,
    misclassify,
)
from conspec.analysis.calibration import rates
from conspec.analysis.heatmaps import Bools, Floats, Integers
from conspec.analysis.monitor import Monitor, Rule, monitor_of
from conspec.benchmarks import monitor_speed
from conspec.benchmarks.detection import compared, risk_coverage
from conspec.benchmarks.machine import describe
from conspec.benchmarks.monitor_page import write_page
from conspec.benchmarks.speed import write
from conspec.lens.bundle import Lens
from conspec.specs.errors import BadUsage

ATTACKED = 300
"""Correctly classified images that each attack starts from, at most."""
SEED = 0
BATCH = 100
FALSE_ALARM = "0.05"
EMOJI = Path(__file__).parents[1] / "lens" / "emoji10" / "bundle"

Detector = Callable[[torch.Tensor, NDArray[np.float32]], Floats]
"""From images and their embeddings to scores, greater for what looks right."""


@dataclass(frozen=True, eq=False)
class Case:
    """A bundle with its model and its held-out pictures.

    Attributes:
        lens: the bundle.
        target: the model; its encoder takes pictures in [0, 1].
        images: of the held-out images, [H, 3, 32, 32], in the order of the bundle.
    """

    lens: Lens
    target: Target
    images: torch.Tensor

    def embed(self, images: torch.Tensor) -> NDArray[np.float32]:
        """Embeddings [N, n]."""
        with torch.no_grad():
            parts = [self.target.encoder(part) for part in torch.split(images, BATCH)]
        return np.asarray(torch.cat(parts).numpy())

    def logits(self, z: NDArray[np.float32]) -> torch.Tensor:
        """Logits [N, K]."""
        with torch.no_grad():
            found: torch.Tensor = self.target.head(torch.from_numpy(z))
        return found


def main() -> None:
    """Measures, then writes the page."""
    parser = argparse.ArgumentParser(description="Compare the monitor with other detectors.")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10 and of weights")
    parser.add_argument("--cifar", type=Path, nargs="*", default=[], metavar="BUNDLE")
    parser.add_argument("--attacked", type=int, default=ATTACKED)
    parser.add_argument("--page-only", action="store_true")
    options = parser.parse_args()
    folder = options.docs / "monitor"
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if not options.page_only:
        if options.cifar and options.data is None:
            parser.error("--cifar needs --data too")
        if not options.cifar:
            write(folder / "speed.json", monitor_speed.measure() | {"machine": describe()})
        cases = [cifar(path, options.data) for path in options.cifar] or [emoji()]
        for case in cases:
            report = measure(case, options.attacked)
            name = f"{case.lens.name}-{case.lens.manifest.model.partition(':')[2]}".strip("-")
            write(folder / f"{name}.json", report | {"machine": describe()})
    write_page(options.docs / "monitor.md", folder)


# --- models ----------------------------------------------------------------------------------


def emoji() -> Case:
    """Emoji-10, as shipped."""
    from conspec.lens.emoji10 import load_classifier, load_images
    from conspec.lens.emoji10.models import pixels

    lens, net = Lens.load(EMOJI), load_classifier().requires_grad_(False)
    images = pixels(load_images().images)[torch.from_numpy(lens.embeddings.heldout.copy())]
    return _checked(Case(lens, Target(net.encoder, net.head), images))


def cifar(path: Path, data: Path) -> Case:
    """A CIFAR-10 bundle whose model is ``cifar:resnet…`` with a linear head."""
    from conspec.benchmarks.cifar10.build import SEED as DRAWN
    from conspec.benchmarks.cifar10.data import open_split
    from conspec.lens.cifar import ARCHITECTURES
    from conspec.lens.plugins import load_weights

    lens = Lens.load(path)
    name = lens.manifest.model.partition(":")[2]
    make, prepare, head = ARCHITECTURES[name]
    if head != "linear":
        raise BadUsage(f"{path}: its model is {name}, expected a plain ResNet")
    net = make()
    load_weights(net, data / "weights" / f"{name}-cifar10.safetensors")
    net.eval().requires_grad_(False)
    linear = net.get_submodule(head)
    net.set_submodule(head, torch.nn.Identity())
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (prepare.mean, prepare.std))
    held = int(lens.embeddings.heldout.sum())
    pictures = open_split(data, "test", held // len(lens.classes), DRAWN).pictures
    pixels = np.stack([np.asarray(picture.load()) for picture in pictures])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return _checked(Case(lens, Target(lambda x: net((x - mean) / std), linear), images))


def _checked(case: Case) -> Case:
    """Refuse pictures that are not those of the bundle."""
    stored = case.lens.embeddings.z[case.lens.embeddings.heldout][:BATCH]
    gap = np.abs(case.embed(case.images[:BATCH]) - stored).max()
    if not gap <= 1e-3 * max(1.0, np.abs(stored).max()):
        raise BadUsage(f"{case.lens.root}: its embeddings are not those of the pictures ({gap:g})")
    return case


# --- what is compared ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Split:
    """The held-out images: one half to calibrate on, the other to measure on.

    Attributes:
        calibration: places among the held-out images.
        evaluation: likewise.
    """

    calibration: Integers
    evaluation: Integers


def monitors_of(case: Case, split: Split) -> dict[Rule, Monitor]:
    """A monitor for each rule: references from training images, thresholds from one half."""
    data = case.lens.embeddings
    training = np.flatnonzero(~data.heldout & (data.label >= 0))
    at = np.flatnonzero(data.heldout)[split.calibration]
    known = (data.z[at], data.predicted[at], data.label[at])
    return {
        rule: monitor_of(case.lens, training, rule).calibrate(*known, FALSE_ALARM) for rule in Rule
    }


def detectors_of(case: Case, monitors: Mapping[Rule, Monitor]) -> dict[str, Detector]:
    """Ours, and those of pytorch-ood, fitted on the same training images."""
    from pytorch_ood.detector import KNN, ODIN, EnergyBased, Entropy, Mahalanobis, MaxSoftmax

    data = case.lens.embeddings
    chosen = ~data.heldout & (data.label >= 0)
    z, labels = torch.from_numpy(data.z[chosen]), torch.from_numpy(data.label[chosen])
    mahalanobis = Mahalanobis(None).fit_features(z, labels)
    nearest = KNN(None, k=min(50, len(z))).fit_features(z, labels)
    odin = ODIN(lambda x: case.target.head(case.target.encoder(x)))

    def by_logits(score: Callable[[torch.Tensor], torch.Tensor]) -> Detector:
        return lambda _, own: -score(case.logits(own)).double().numpy()

    def by_embedding(detector: Any) -> Detector:
        return lambda _, own: -detector.predict_features(torch.from_numpy(own)).double().numpy()

    def by_images(images: torch.Tensor, _: NDArray[np.float32]) -> Floats:
        parts = [-odin.predict(part).detach().double() for part in torch.split(images, BATCH)]
        return np.asarray(torch.cat(parts).numpy())

    def ours(monitor: Monitor) -> Detector:
        return lambda _, own: monitor.score_samples(own)

    return {
        **{f"conspec {rule.value}": ours(monitor) for rule, monitor in monitors.items()},
        "max softmax": by_logits(MaxSoftmax.score),
        "entropy": by_logits(Entropy.score),
        "energy": by_logits(EnergyBased.score),
        "Mahalanobis": by_embedding(mahalanobis),
        "ODIN": by_images,
        "nearest neighbours": by_embedding(nearest),
    }


def attacks_of(
    labels: torch.Tensor, monitors: Mapping[Rule, Monitor]
) -> dict[str, tuple[Goal, Attack]]:
    """Each attack with its goal; the last ones know the monitor."""
    wrong, next_one = misclassify(labels), classify_as((labels + 1) % 10)
    adaptive = deceive(monitors[Rule.CONTRAST], labels)
    return {
        "FGSM 8/255": (wrong, fgsm(8 / 255)),
        **{f"PGD-20 {k}/255": (wrong, Attack(k / 255)) for k in (1, 2, 4, 8)},
        "PGD-20 L2 0.5": (wrong, Attack(0.5, norm=Norm.L2)),
        "PGD-20 targeted 8/255": (next_one, Attack(8 / 255)),
        "adaptive 2/255": (adaptive, Attack(2 / 255, steps=40)),
        "adaptive 8/255": (adaptive, Attack(8 / 255, steps=40)),
    }


# --- measuring -------------------------------------------------------------------------------


def measure(case: Case, attacked: int) -> dict[str, Any]:
    """Both defects on one bundle."""
    start, data = time.monotonic(), case.lens.embeddings
    held = np.flatnonzero(data.heldout)
    order = np.random.default_rng(SEED).permutation(len(held))
    split = Split(np.sort(order[: len(held) // 2]), np.sort(order[len(held) // 2 :]))
    monitors = monitors_of(case, split)
    detectors = detectors_of(case, monitors)
    at = held[split.evaluation]
    images, z = case.images[split.evaluation], data.z[at]
    label, right = data.label[at], data.label[at] == data.predicted[at]
    scores = {name: detector(images, z) for name, detector in detectors.items()}
    print(f"{case.lens.name}: misclassification, {len(at)} images", flush=True)
    report: dict[str, Any] = {
        "bundle": case.lens.name,
        "model": case.lens.manifest.model,
        "images": {"evaluation": len(at), "right": int(right.sum()), "wrong": int((~right).sum())},
        "misclassification": _misclassification(scores, right),
        "conformal": _conformal(monitors, z, label),
        "encoder faults": {"misclassified": _lost(case, z[~right], label[~right])},
        "adversarial": {},
    }
    chosen = np.sort(np.random.default_rng(SEED).permutation(np.flatnonzero(right))[:attacked])
    clean = {name: values[chosen] for name, values in scores.items()}
    own, labels = images[chosen], torch.from_numpy(label[chosen])
    for name in attacks_of(labels, monitors):
        moved = _attacked(case, own, labels, name, monitors)
        found = _adversarial(case, detectors, monitors, moved, (clean, label[chosen]))
        report["encoder faults"][name] = found.pop("encoder faults")
        report["adversarial"][name] = found
        print(f"{case.lens.name}: {name}, {time.monotonic() - start:.0f} s", flush=True)
    report["seconds"] = time.monotonic() - start
    return report


def _attacked(
    case: Case,
    images: torch.Tensor,
    labels: torch.Tensor,
    name: str,
    monitors: Mapping[Rule, Monitor],
) -> torch.Tensor:
    """The images after an attack, made in batches."""
    parts = []
    for first in range(0, len(images), BATCH):
        some = slice(first, first + BATCH)
        goal, how = attacks_of(labels[some], monitors)[name]
        parts.append(attack(case.target, images[some], goal, how, seed=first))
    return torch.cat(parts)


def _misclassification(scores: Mapping[str, Floats], right: Bools) -> dict[str, Any]:
    good, bad = ({k: v[chosen] for k, v in scores.items()} for chosen in (right, ~right))
    found = compared(good, bad)
    for name, values in scores.items():
        found[name] |= risk_coverage(values, right)
    return found


def _adversarial(
    case: Case,
    detectors: Mapping[str, Detector],
    monitors: Mapping[Rule, Monitor],
    moved: torch.Tensor,
    clean: tuple[Mapping[str, Floats], Integers],
) -> dict[str, Any]:
    """How well those attacked images that are misclassified are told from the clean ones."""
    scores, label = clean
    z = case.embed(moved)
    fooled = case.logits(z).argmax(dim=1).numpy() != label
    found: dict[str, Any] = {"attacked": len(z), "successful": int(fooled.sum())}
    flags = {rule: monitor.judge(z).flagged for rule, monitor in monitors.items()}
    found["undetected"] = {
        f"conspec {rule.value}": int((fooled & ~flagged).sum()) for rule, flagged in flags.items()
    }
    found["encoder faults"] = _lost(case, z[fooled], label[fooled])
    if fooled.sum() >= 2:
        kept = moved[torch.from_numpy(fooled)]
        bad = {name: detector(kept, z[fooled]) for name, detector in detectors.items()}
        found["detectors"] = compared(scores, bad)
    return found


def _lost(case: Case, z: NDArray[np.float32], label: Integers) -> dict[str, int]:
    """How many of misclassified embeddings the map does not show as their class either.

    The nearest class name to the mapped embedding: oracle A of fault localization.
    """
    if not len(z):
        return {"count": 0, "total": 0}
    nearest = (case.lens.mapped(z) @ case.lens.embeddings.class_directions.T).argmax(axis=1)
    return {"count": int((nearest != label).sum()), "total": len(z)}


def _conformal(
    monitors: Mapping[Rule, Monitor], z: NDArray[np.float32], label: Integers
) -> dict[str, Any]:
    """False alarms and detections at the calibrated thresholds."""
    from dataclasses import asdict

    found = {}
    for rule, monitor in monitors.items():
        judged = monitor.judge(z)
        found[rule.value] = asdict(rates(judged.flagged, judged.predicted, label))
    return found


if __name__ == "__main__":
    main()
