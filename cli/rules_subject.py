"""What ``conspec rules`` looks at when it needs pictures: a bundle, its model, its images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conspec.cli.images import stored_image
from conspec.cli.rules_input import Basis, basis_of
from conspec.specs.errors import BadUsage

if TYPE_CHECKING:
    from PIL.Image import Image

    from conspec.analysis.attributions import Encoder
    from conspec.analysis.pathways import LastLayer
    from conspec.analysis.rule_files import Saved
    from conspec.lens.bundle import Lens
    from conspec.lens.encoders import Classifier
    from conspec.lens.images import Picture

_CLOSE = 1e-3  # of the largest feature: another machine's float32 differs by less
_CHECKED = 4  # pictures whose features are compared with the bundle's


@dataclass(frozen=True)
class Subject:
    """A bundle with the model and the pictures that it was made from.

    Attributes:
        basis: the bundle, as rules see it.
        classifier: its model.
        pictures: its pictures, in the order of the bundle.
    """

    basis: Basis
    classifier: "Classifier"
    pictures: "Sequence[Picture]"

    @property
    def lens(self) -> "Lens":
        """The bundle."""
        return self.basis.lens

    def saved(self, path: Path | None) -> "Saved":
        """Rules from a file, or by VisionLogic's definition from the bundle's training images."""
        from conspec.analysis.rules import PAPER

        return self.basis.learn(PAPER) if path is None else self.basis.read(path)


ModelOption = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="The model, as for 'conspec lens build'."),
]
WeightsOption = Annotated[
    str | None, typer.Option("--weights", metavar="FILE", help="Its weights, likewise.")
]
ImagesOption = Annotated[
    str | None, typer.Option("--images", metavar="SOURCE", help="The bundle's images, likewise.")
]
HeldoutOption = Annotated[
    str | None,
    typer.Option("--heldout", metavar="SOURCE", help="A second source of images, if it has one."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The settings that the bundle was built with."),
]


def count_option(default: int) -> Any:
    """``--count``, with a default of the command's."""
    return typer.Option(
        default, "--count", metavar="N", help="So many held-out images, drawn with seed 42."
    )


def settings_of(
    model: str | None,
    weights: str | None,
    images: str | None,
    heldout: str | None,
    config: Path | None,
) -> dict[str, Any]:
    """Settings of a lens, as a file and options give them; options come first."""
    from conspec.lens.config import read_settings

    given = {"model": model, "weights": weights, "images": images, "heldout": heldout}
    options = {key: value for key, value in given.items() if value is not None}
    return (read_settings(config) if config else {}) | options


def open_subject(path: Path, settings: Mapping[str, Any]) -> Subject:
    """A bundle with its model and pictures.

    Args:
        path: the bundle, as ``--lens`` names it.
        settings: what it was built from; not needed for the shipped bundle.

    Raises:
        BadUsage: the model or the pictures are missing, or are not the bundle's.
    """
    basis = basis_of(path)
    lens = basis.lens
    if not settings and (lens.manifest.model, lens.manifest.images) == ("emoji10", "emoji10"):
        from conspec.lens.job import emoji_job

        job = emoji_job()
        subject = Subject(basis, job.classifier, job.images.pictures)
    else:
        subject = _opened(basis, settings)
    _check(subject)
    return subject


def _opened(basis: Basis, settings: Mapping[str, Any]) -> Subject:
    from conspec.lens.config import config_from
    from conspec.lens.encoders import load_classifier
    from conspec.lens.job import open_both

    lens = basis.lens
    for key in ("model", "images"):
        if key not in settings:
            raise BadUsage(
                f"--{key} is missing: a bundle holds neither its model ({lens.manifest.model}) nor "
                f"its images ({lens.manifest.images}); give both, or --config FILE"
            )
    # The vision-language model is not needed here.
    chosen = config_from({"vlm": "", **settings}, "command line")
    found, _ = open_both(chosen)
    classifier = load_classifier(chosen, len(lens.classes))
    return Subject(basis, classifier, _of_bundle(lens, found.pictures))


def _of_bundle(lens: "Lens", pictures: "Sequence[Picture]") -> "Sequence[Picture]":
    """The bundle's pictures, in its order, out of some that may be more.

    Raises:
        BadUsage: one is missing.
    """
    if tuple(picture.id for picture in pictures) == lens.image_ids:
        return pictures
    by_name = {picture.id: picture for picture in pictures}
    missing = [name for name in lens.image_ids if name not in by_name]
    if missing:
        raise BadUsage(
            f"{lens.root}: was built from other images: {missing[0]!r} is not among the "
            f"{len(pictures)} given, named like {pictures[0].id!r}"
        )
    return [by_name[name] for name in lens.image_ids]


def _check(subject: Subject) -> None:
    """Refuse a model, and pictures, that are not the bundle's."""
    import numpy as np

    from conspec.analysis.attributions import open_encoder

    stored = subject.basis.z[:_CHECKED]
    seen = [picture.load() for picture in subject.pictures[:_CHECKED]]
    found = open_encoder(subject.classifier).embed(seen)
    if found.shape != stored.shape or not np.allclose(
        found, stored, rtol=0, atol=_CLOSE * float(np.abs(stored).max())
    ):
        raise BadUsage(
            f"{subject.lens.root}: was built with another model, or other weights or images, than "
            f"{subject.classifier.name}: its first images have other features"
        )


def chosen_pictures(
    subject: Subject, asked: Sequence[str], count: int
) -> "list[tuple[str, Image]]":
    """Names and pictures: those asked for, or ``count`` held-out ones drawn with seed 42.

    Raises:
        BadFile: a picture file is damaged.
        BadUsage: there are no such images, or several of that name.
        UnknownName: there is no image of that name.
    """
    import numpy as np

    pictures = subject.pictures
    if asked:
        return [_asked(subject, text) for text in asked]
    held = np.flatnonzero(subject.lens.embeddings.heldout)
    if count < 1 or not len(held):
        raise BadUsage(f"--count {count}: draw at least one of {len(held)} held-out images")
    drawn = np.random.default_rng(42).permutation(held)[:count]
    return [(pictures[place].id, pictures[place].load()) for place in sorted(drawn.tolist())]


def _asked(subject: Subject, text: str) -> "tuple[str, Image]":
    """A picture file, or an image of the bundle by its name or number."""
    from conspec.lens.images import load_file

    if Path(text).is_file():
        return text, load_file(Path(text))
    found = subject.pictures[stored_image(subject.lens, text)]
    return found.id, found.load()


def last_layer_of(encoder: "Encoder") -> "LastLayer":
    """The last layer of a torch model, as an exact float64 copy."""
    from conspec.analysis.pathways import LastLayer

    weight, bias = encoder.last.weight.detach(), encoder.last.bias
    offset = weight.new_zeros(len(weight)) if bias is None else bias.detach()
    return LastLayer(weight.double().cpu().numpy(), offset.double().cpu().numpy())
