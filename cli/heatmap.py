"""``conspec heatmap``: which concepts are stronger than which, and where that goes with errors."""

import re
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conspec.cli.console import print_json, say, show
from conspec.cli.images import stored_image
from conspec.cli.inputs import open_lens
from conspec.cli.verify import JsonOption, LensOption
from conspec.specs.errors import BadUsage

if TYPE_CHECKING:
    from conspec.analysis.heatmaps import Bools
    from conspec.cli.heatmap_views import View
    from conspec.lens.bundle import Lens


class KindName(StrEnum):
    """The kinds of heatmaps."""

    DIFFERENTIAL = "differential"
    GROUND_TRUTH = "ground-truth"
    OUTPUT = "output"
    BINARIZED = "binarized"
    SINGLE = "single"
    CORRECT = "correct"
    WRONG = "wrong"
    OUTPUT_WRONG = "output-wrong"
    CONFUSION = "confusion"


class SourceName(StrEnum):
    """Whose concept scores."""

    MODEL = "model"
    VLM = "vlm"


class Split(StrEnum):
    """Which images of the bundle."""

    HELDOUT = "heldout"
    TRAIN = "train"
    ALL = "all"


class CorrectionName(StrEnum):
    """How to correct for the number of cells."""

    HOLM = "holm"
    BH = "bh"


_ABOUT = {
    KindName.DIFFERENTIAL: "correct minus misclassified images",
    KindName.GROUND_TRUTH: "images of each class",
    KindName.OUTPUT: "images predicted as each class",
    KindName.BINARIZED: "majority order in the images of each class",
    KindName.CORRECT: "correctly classified images of each class",
    KindName.WRONG: "misclassified images of each class",
    KindName.OUTPUT_WRONG: "images wrongly predicted as each class",
    KindName.CONFUSION: "images of each class by what the model predicts",
}
_WHOSE = {SourceName.MODEL: "model, through the concept map", SourceName.VLM: "the VLM itself"}
_IMAGES = {Split.HELDOUT: "held-out", Split.TRAIN: "training", Split.ALL: "all"}

SourceOption = Annotated[
    SourceName, typer.Option("--source", help="The model through the map, or the VLM itself.")
]
SplitOption = Annotated[Split, typer.Option("--split", help="Which images of the bundle.")]
ConfidenceOption = Annotated[
    float, typer.Option("--confidence", metavar="P", help="Of intervals and of significance.")
]
CorrectionOption = Annotated[
    CorrectionName,
    typer.Option("--correction", help="For many cells: family-wise, or false discovery rate."),
]


@dataclass(frozen=True)
class Asked:
    """What is to be shown.

    Attributes:
        lens: the bundle.
        kind: the kind of heatmaps.
        source: whose scores.
        split: which images.
        confidence: of intervals and of significance.
        classes: those to show.
    """

    lens: "Lens"
    kind: KindName
    source: SourceName
    split: Split
    confidence: float
    classes: tuple[str, ...]

    @property
    def images(self) -> "Bools":
        """Which images count, [N]."""
        return chosen_images(self.lens, self.split)

    @property
    def whose(self) -> str:
        """Whose scores, in words."""
        return _WHOSE[self.source]

    @property
    def which(self) -> str:
        """Which images, in a word."""
        return _IMAGES[self.split]

    @property
    def title(self) -> str:
        """What a table is about."""
        words = f"{self.whose}; {self.which} images"
        return f"{self.kind.value.capitalize()} heatmaps: {_ABOUT[self.kind]} ({words})"

    @cached_property
    def order(self) -> list[int]:
        """Concepts by mean strength in the model over all classes: the same for every picture."""
        from conspec.analysis.heatmaps import Kind, Source, by_strength, maps_of

        return by_strength(maps_of(self.lens, Kind.GROUND_TRUTH, Source.MODEL, self.images))


def chosen_images(lens: "Lens", split: Split) -> "Bools":
    """Which images of a bundle count, bool [N].

    Raises:
        BadUsage: there are none.
    """
    import numpy as np

    heldout = lens.embeddings.heldout
    chosen = {Split.HELDOUT: heldout, Split.TRAIN: ~heldout, Split.ALL: np.ones_like(heldout)}
    if not chosen[split].any():
        raise BadUsage(f"--split {split.value}: the bundle has no such images; try --split all")
    return chosen[split]


def heatmap(
    lens: LensOption,
    kind: Annotated[
        KindName, typer.Option("--kind", help="What to compare; see docs/heatmaps.md.")
    ] = KindName.DIFFERENTIAL,
    label: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Only this class; may be repeated."),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option("--image", metavar="IMAGE", help="For --kind single: its name or number."),
    ] = None,
    source: SourceOption = SourceName.MODEL,
    split: SplitOption = Split.HELDOUT,
    confidence: ConfidenceOption = 0.95,
    correction: CorrectionOption = CorrectionName.HOLM,
    band: Annotated[
        str | None,
        typer.Option("--band", metavar="T", help="For --kind binarized: 0.5 ± T is open; else 0."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write a picture of each map.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which concepts are stronger than which, per class, and what goes with errors.

    A heatmap says for each pair of concepts how often the first is stronger than the second.
    The differential one compares correctly classified with misclassified images of a class: the
    pairs that differ more than by chance point to the concepts that are responsible. These are
    statistics; to prove something, see 'conspec specs from-heatmap' and 'conspec verify'.
    """
    _check(kind, image, confidence)
    if kind is not KindName.BINARIZED and band is not None:
        raise BadUsage("--band: only --kind binarized has one")
    bundle = open_lens(lens)
    place = 0 if image is None else stored_image(bundle, image)
    wanted = tuple(label or bundle.classes)
    for name in wanted:
        bundle.class_index(name)
    asked = Asked(bundle, kind, source, split, confidence, wanted)
    view = _view(asked, place, correction, _share(band or "0"))
    if as_json:
        print_json(view.document)
    else:
        show(*view.parts)
    if out is not None:
        _write(out, view)


def _check(kind: KindName, image: str | None, confidence: float) -> None:
    if not 0 < confidence < 1:
        raise BadUsage(f"--confidence {confidence:g}: must lie between 0 and 1")
    if kind is KindName.SINGLE and image is None:
        raise BadUsage(
            "--kind single: say which image with --image IMAGE; "
            "'conspec lens show BUNDLE --images' lists them"
        )
    if kind is not KindName.SINGLE and image is not None:
        raise BadUsage("--image: only --kind single is about one image")


def _share(text: str) -> Fraction:
    from conspec.specs.exact import read_number

    try:
        return read_number(text)
    except (ValueError, ZeroDivisionError) as error:
        raise BadUsage(f"--band {text}: must be a number such as 0.1") from error


def _view(asked: Asked, image: int, correction: CorrectionName, band: Fraction) -> "View":
    from conspec.cli import heatmap_views as views

    if asked.kind is KindName.SINGLE:
        return views.single(asked, image)
    if asked.kind is KindName.DIFFERENTIAL:
        return views.differential(asked, correction)
    return views.binary(asked, band) if asked.kind is KindName.BINARIZED else views.means(asked)


def _write(folder: Path, view: "View") -> None:
    """Write the pictures; names of classes become names of files."""
    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    for name, draw in view.pictures:
        stem = re.sub(r"\W+", "-", name).strip("-")
        number = sum(stem.casefold() == other.casefold() for other in taken)
        taken.add(stem)
        (folder / f"{stem}{f'-{number + 1}' if number else ''}.png").write_bytes(draw())
    noun = "picture" if len(view.pictures) == 1 else "pictures"
    say(f"{folder}: wrote {len(view.pictures)} {noun}")
