"""Fault localization on faults that were planted: ``python -m conspec.benchmarks.planted_faults``.

Held-out images that the model classifies correctly are spoiled in one place: the head's rows are
swapped or noised (head faults), the encoder is fed noise, blur or adversarial pictures (encoder
faults), the map is noised (undetermined). Those that are misclassified then have a known cause.
Writes ``docs/faults/NAME.json`` and the tables of ``docs/faults.md``; with ``--data``, also for
the CIFAR-10 lens, of which only the numbers are kept.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from conspec.analysis.attacks import Attack, Target, attack, misclassify
from conspec.analysis.faults import ALL, NONE, Guards, Verdict, localize, misclassified
from conspec.analysis.oracles import Gap, Images, Oracle, Reference, reference_of, stored
from conspec.benchmarks.machine import describe
from conspec.encodings.query import space_of
from conspec.lens.alignment import Alignment
from conspec.lens.bundle import Lens
from conspec.lens.encoders import Classifier, load_classifier
from conspec.lens.vlm import VisionLanguageModel, load_vlm

Pictures = list[Image.Image]
Report = Mapping[str, Any]

SEED = 5
EMOJI = Path(__file__).parents[1] / "lens" / "emoji10" / "bundle"
COUNT = 500
"""Held-out images of CIFAR-10 that are looked at."""
BATCH = 100
NOISE = 0.15
"""Standard deviation of the noise on a picture, in units of its range."""
BLUR = 1 / 24
"""Radius of the blur, in sides of the picture."""
RADIUS = 8 / 255
"""Of the L∞ ball in which PGD searches, with 20 steps."""
LOUD = 2.0
"""Standard deviation of the noise on the head or the map, in units of its own entries'."""
GUARDS = {
    "none": NONE,
    "VLM": replace(NONE, vlm=True),
    "residual": replace(NONE, gap=Gap.RESIDUAL),
    "nearest": replace(NONE, gap=Gap.NEAREST),
    "oracle": replace(NONE, oracle=True),
    "all, residual": replace(ALL, gap=Gap.RESIDUAL),
    "all, nearest": ALL,
}
SAME, CLEAN = "the same picture", "the clean picture"


@dataclass(frozen=True, eq=False)
class World:
    """A lens and the models behind it, with the held-out images that are right when clean.

    Attributes:
        lens: the bundle.
        reference: what its images are compared with.
        classifier: the vision model.
        vlm: the vision-language model.
        pictures: P of them.
        places: their numbers in the bundle, int64 [P].
    """

    lens: Lens
    reference: Reference
    classifier: Classifier
    vlm: VisionLanguageModel
    pictures: Pictures
    places: NDArray[np.int64]

    @property
    def clean(self) -> Images:
        """What the bundle stores of the pictures."""
        return stored(self.lens).chosen(self.places)


@dataclass(frozen=True, eq=False)
class Case:
    """Planted faults of one kind.

    Attributes:
        name: what was done.
        planted: the right answer; None for faults that nobody planted.
        images: those that are misclassified now.
        reference: what they are compared with.
        vlm_sees: which picture the VLM was given.
    """

    name: str
    planted: Verdict | None
    images: Images
    reference: Reference
    vlm_sees: str = SAME


def main() -> None:
    """Plants the faults, localizes them, and writes the page."""
    parser = argparse.ArgumentParser(description="Localize planted faults.")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10's tars and weights")
    parser.add_argument("--cifar", type=Path, help="what benchmarks.cifar10.build wrote")
    parser.add_argument("--page-only", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.docs / "faults"
    folder.mkdir(parents=True, exist_ok=True)
    if not options.page_only:
        write(folder / "emoji10.json", measure(emoji_world()))
        if options.data and options.cifar:
            write(folder / "cifar10.json", measure(cifar_world(options.data, options.cifar)))
    write_page(options.docs / "faults.md", folder)


def write(path: Path, report: Report) -> None:
    """A JSON file."""
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def emoji_world() -> World:
    """Emoji-10, as it ships."""
    from conspec.lens.job import emoji_job

    lens, job = Lens.load(EMOJI), emoji_job()
    places = _right(lens)
    pictures = [job.images.pictures[place].load() for place in places]
    return World(lens, reference_of(lens), job.classifier, job.vlm, pictures, places)


def cifar_world(data: Path, built: Path) -> World:
    """Some held-out images of the CIFAR-10 lens that ``benchmarks.cifar10.build`` wrote."""
    from conspec.benchmarks.cifar10.build import SEED as DRAWN
    from conspec.benchmarks.cifar10.data import open_split
    from conspec.lens.config import LensConfig

    lens = Lens.load(built / "lens")
    config, weights = built / "conspec-cifar10.json", built / "conspec-cifar10.safetensors"
    settings = LensConfig(
        images="",
        model="cifar:resnet20",
        weights=str(data / "weights" / "resnet20-cifar10.safetensors"),
        vlm=str(config),
        vlm_checkpoint=str(weights),
    )
    heldout = np.flatnonzero(lens.embeddings.heldout)
    test = open_split(data, "test", len(heldout) // len(lens.classes), DRAWN).pictures
    right = _right(lens)
    places = np.sort(np.random.default_rng(SEED).permutation(right)[:COUNT])
    pictures = [test[place].load() for place in np.searchsorted(heldout, places)]
    classifier = load_classifier(settings, len(lens.classes))
    vlm = load_vlm(str(config), str(weights))
    return World(lens, reference_of(lens), classifier, vlm, pictures, places)


def _right(lens: Lens) -> NDArray[np.int64]:
    data = lens.embeddings
    return np.flatnonzero(data.heldout & (data.label == data.predicted))


def measure(world: World) -> dict[str, Any]:
    """All cases of one lens."""
    cases = [*natural(world), *head_faults(world), *encoder_faults(world), *map_faults(world)]
    return {
        "lens": world.lens.name,
        "images": len(world.places),
        "settings": {"noise": NOISE, "blur": BLUR, "radius": RADIUS, "loud": LOUD},
        "cases": [result(case) for case in cases],
        "machine": describe(),
    }


def result(case: Case) -> dict[str, Any]:
    """What each oracle finds with each set of guards."""
    found = {
        oracle.value: {name: _counts(case, oracle, guards) for name, guards in GUARDS.items()}
        for oracle in Oracle
    }
    return {
        "case": case.name,
        "planted": case.planted.value if case.planted else None,
        "VLM sees": case.vlm_sees,
        "images": len(case.images.label),
        "found": found,
    }


def _counts(case: Case, oracle: Oracle, guards: Guards) -> dict[str, int]:
    verdicts = localize(case.reference, case.images, oracle, guards).verdicts
    return {verdict.value: verdicts.count(verdict) for verdict in Verdict}


def natural(world: World) -> list[Case]:
    """The held-out images that the model misclassifies by itself."""
    images = stored(world.lens)
    wrong = [i for i in misclassified(images) if world.lens.embeddings.heldout[i]]
    chosen = images.chosen(np.array(wrong, dtype=np.int64))
    return [Case("nothing: misclassified as they are", None, chosen, world.reference)]


def head_faults(world: World) -> list[Case]:
    """The same embeddings under a spoiled head."""
    weight, bias = space_of(world.lens).head.affines[0].floats
    neighbour = np.arange(len(weight)) ^ 1
    neighbour = np.where(neighbour < len(weight), neighbour, np.arange(len(weight)))
    random = np.random.default_rng(SEED)
    noisy = weight + LOUD * weight.std() * random.normal(size=weight.shape)
    heads = {"head: rows swapped in pairs": (weight[neighbour], bias[neighbour])}
    heads["head: noise on its rows"] = (noisy, bias)
    clean = world.clean
    return [
        _spoiled(name, Verdict.HEAD, replace(clean, predicted=(clean.z @ w.T + b).argmax(axis=1)),
                 world.reference)
        for name, (w, b) in heads.items()
    ]  # fmt: skip


def encoder_faults(world: World) -> list[Case]:
    """Spoiled pictures under the sound head; the VLM is given the same ones, or clean ones."""
    cases = []
    for name, pictures in spoiled_pictures(world).items():
        clean = world.clean
        z = _batched(world.classifier.embed, pictures)
        weight, bias = space_of(world.lens).head.affines[0].floats
        predicted = (z @ weight.T + bias).argmax(axis=1)
        seen = _batched(world.vlm.encode_image, pictures)
        for vlm, what in ((seen, SAME), (clean.vlm, CLEAN)):
            images = Images(z, vlm, clean.label, predicted)
            case = _spoiled(f"encoder: {name}", Verdict.ENCODER, images, world.reference)
            cases.append(replace(case, vlm_sees=what))
    return cases


def map_faults(world: World) -> list[Case]:
    """A sound encoder, a head with swapped rows, and a noised map between the two spaces.

    The map may break after the residuals were calibrated, or before it.
    """
    swapped = head_faults(world)[0].images
    sound, random = world.reference.alignment, np.random.default_rng(SEED)
    noise = LOUD * sound.weight.std() * random.normal(size=sound.weight.shape)
    broken = Alignment(sound.weight + noise, sound.bias, sound.ridge)
    after = replace(world.reference, alignment=broken)
    before = reference_of(world.lens, broken)
    return [
        Case("map: noise, after calibration", Verdict.UNDETERMINED, swapped, after),
        Case("map: noise, before calibration", Verdict.UNDETERMINED, swapped, before),
    ]


def _spoiled(name: str, planted: Verdict, images: Images, reference: Reference) -> Case:
    return Case(name, planted, images.chosen(misclassified(images)), reference)


def spoiled_pictures(world: World) -> dict[str, Pictures]:
    """The pictures with noise, blur, and after an attack on the classifier."""
    random = np.random.default_rng(SEED)
    pixels = np.stack([np.asarray(picture, dtype=np.float64) / 255 for picture in world.pictures])
    noisy = pixels + NOISE * random.normal(size=pixels.shape)
    blur = ImageFilter.GaussianBlur(BLUR * pixels.shape[1])
    return {
        "noise": _pictures(noisy),
        "blur": [picture.filter(blur) for picture in world.pictures],
        f"PGD-20, L∞ {Fraction(RADIUS).limit_denominator(255)}": _pictures(
            _attacked(world, pixels)
        ),
    }


def _attacked(world: World, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    how, model = world.classifier.preprocess, world.classifier.module
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (how.mean, how.std))

    def logits(images: Tensor) -> Tensor:
        # Averaging is the box filter that both lenses' pictures go through, if any.
        small = torch.nn.functional.adaptive_avg_pool2d(images, how.crop)
        found: Tensor = model((small - mean) / std)
        return found

    target = Target(encoder=logits, head=lambda found: found)
    start = torch.tensor(pixels, dtype=torch.float32).permute(0, 3, 1, 2)
    labels = torch.tensor(world.clean.label)
    parts = [
        attack(target, start[i : i + BATCH], misclassify(labels[i : i + BATCH]), Attack(RADIUS))
        for i in range(0, len(start), BATCH)
    ]
    return torch.cat(parts).permute(0, 2, 3, 1).double().numpy()


def _pictures(pixels: NDArray[np.float64]) -> Pictures:
    """Rounded to 8 bits, as any picture is."""
    rounded = np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    return [Image.fromarray(each) for each in rounded]


def _batched(encode: Any, pictures: Pictures) -> NDArray[np.float64]:
    parts = [encode(pictures[i : i + BATCH]) for i in range(0, len(pictures), BATCH)]
    return np.asarray(torch.cat(parts).double().numpy())


# --- the page --------------------------------------------------------------------------------


def write_page(page: Path, folder: Path) -> None:
    """Replace what stands between the marks of each JSON file in the page."""
    text = page.read_text(encoding="utf-8")
    for path in sorted(folder.glob("*.json")):
        begin, end = f"<!-- table {path.stem} -->", f"<!-- end {path.stem} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        report = json.loads(path.read_text(encoding="utf-8"))
        text = f"{before}{begin}\n{section(report)}\n{end}{after}"
    page.write_text(text, encoding="utf-8")


def section(report: Report) -> str:
    """The tables of one lens."""
    oracles = [oracle.value for oracle in Oracle]
    parts = [
        f"`{report['lens']}`: {report['images']} held-out images that are classified correctly "
        "when nothing is spoiled. Found: encoder / head / undetermined, by oracle and guards.",
        _table(
            ["planted", "VLM sees", "images", *(f"{o}; {g}" for o in oracles for g in _SHOWN)],
            [_row(case) for case in report["cases"]],
        ),
        "Planted against found, all cases together; an encoder fault is counted with the VLM "
        "seeing the same picture.",
        _table(
            ["oracle", "guards", "planted", *(f"found {v.value}" for v in Verdict), "right"],
            [row for oracle in oracles for row in _confusion(report, oracle)],
        ),
    ]
    return "\n\n".join(parts)


_SHOWN = ("none", "all, residual", "all, nearest")


def _row(case: Report) -> list[str]:
    cells = [
        " / ".join(str(case["found"][oracle.value][guards][v.value]) for v in Verdict)
        for oracle in Oracle
        for guards in _SHOWN
    ]
    return [case["case"], case["VLM sees"], str(case["images"]), *cells]


def _confusion(report: Report, oracle: str) -> list[list[str]]:
    """Rows of the confusion matrix for one oracle, for each set of guards."""
    rows = []
    for guards in _SHOWN:
        for planted in Verdict:
            counts = dict.fromkeys([v.value for v in Verdict], 0)
            for case in report["cases"]:
                if case["planted"] == planted.value and case["VLM sees"] == SAME:
                    for name, number in case["found"][oracle][guards].items():
                        counts[name] += number
            total = sum(counts.values())
            share = f"{100 * counts[planted.value] / total:.0f} %" if total else "–"
            rows.append([oracle, guards, planted.value, *map(str, counts.values()), share])
    return rows


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    main()
