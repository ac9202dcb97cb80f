"""``conspec lens``: build a lens bundle, look into one, and compare its model with its VLM."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conspec.cli.console import print_json, progress, say, show
from conspec.cli.groups import group
from conspec.cli.inputs import open_lens
from conspec.cli.validate import validate

if TYPE_CHECKING:
    from conspec.lens.bundle import Lens
    from conspec.lens.config import LensConfig

app = group("Build a lens bundle, look into one, and compare its model with its VLM.")

_Text = str | None


def _option(name: str, metavar: str, about: str) -> Any:
    return typer.Option(name, metavar=metavar, help=about)


@app.command("build")
def build(
    out: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder to write.")],
    images: Annotated[
        _Text,
        _option(
            "--images",
            "SOURCE",
            "A folder with one folder for each class, a .tar of one, a .csv with the columns "
            "path and label, rival10:FOLDER:SPLIT, or torchvision:NAME:FOLDER:SPLIT.",
        ),
    ] = None,
    model: Annotated[
        _Text,
        _option("--model", "MODEL", "timm:NAME, torchvision:NAME, cifar:NAME, or FILE.py:NAME."),
    ] = None,
    weights: Annotated[_Text, _option("--weights", "FILE", "A .safetensors file, or hub.")] = None,
    vlm: Annotated[
        _Text, _option("--vlm", "NAME", "A model of open_clip, its .json, or FILE.py:NAME.")
    ] = None,
    vlm_checkpoint: Annotated[
        _Text, _option("--vlm-checkpoint", "FILE", "Its weights: .safetensors, or a tag.")
    ] = None,
    concepts: Annotated[
        _Text, _option("--concepts", "a,b,c", "The concepts, or a file with one a line.")
    ] = None,
    classes: Annotated[
        _Text, _option("--classes", "a,b,c", "The classes in the order of the logits.")
    ] = None,
    attributes: Annotated[
        _Text, _option("--attributes", "CSV", "What images (or classes) show, for has(…).")
    ] = None,
    heldout: Annotated[
        _Text, _option("--heldout", "SHARE", "Share held out (0.2), or a second image source.")
    ] = None,
    head_from: Annotated[
        _Text, _option("--head-from", "MODULE", "Where the head starts; found if not given.")
    ] = None,
    ridge: Annotated[
        float | None, _option("--ridge", "λ", "Ridge of the alignment; chosen if not given.")
    ] = None,
    seed: Annotated[int | None, _option("--seed", "N", "Of the held-out share (0).")] = None,
    device: Annotated[_Text, _option("--device", "DEVICE", "cpu (default), cuda, …")] = None,
    batch_size: Annotated[
        int | None, _option("--batch-size", "N", "Images encoded at once (64).")
    ] = None,
    name: Annotated[_Text, _option("--name", "NAME", "What reports call the bundle.")] = None,
    config: Annotated[
        Path | None,
        _option(
            "--config", "FILE", "Settings in .toml or .json, also [preprocess]; options come first."
        ),
    ] = None,
    thumbnails: Annotated[
        bool | None, typer.Option(help="Store small pictures of the images.", show_default=False)
    ] = None,
    normalize: Annotated[
        bool | None,
        typer.Option(
            "--normalize-before-mean",
            help="Normalise each caption's embedding first.",
            show_default=False,
        ),
    ] = None,
    download: Annotated[
        bool | None,
        typer.Option("--download", help="Let torchvision fetch images.", show_default=False),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace BUNDLE if it is one.")
    ] = False,
) -> None:
    """Build a lens bundle from images, a vision model and a vision-language model.

    An interrupted build goes on where it stopped.
    """
    from conspec.lens.build import build_lens

    given = {
        "images": images,
        "model": model,
        "weights": weights,
        "vlm": vlm,
        "vlm_checkpoint": vlm_checkpoint,
        "concepts": _names(concepts),
        "classes": _names(classes),
        "attributes": attributes,
        "heldout": heldout,
        "head_from": head_from,
        "ridge": ridge,
        "seed": seed,
        "device": device,
        "batch_size": batch_size,
        "name": name or (None if config else out.name),
        "thumbnails": thumbnails,
        "normalize_before_mean": normalize,
        "download": download,
    }
    settings = {key: value for key, value in given.items() if value is not None}
    with progress() as advance:
        lens = build_lens(_config(config, settings), out, advance, overwrite)
    show_lens(lens)
    say(f"{out}: written; look again with: conspec lens show {out}")


def _names(text: str | None) -> list[str] | None:
    from conspec.lens.config import parse_names

    return None if text is None else list(parse_names(text))


def _config(path: Path | None, settings: Mapping[str, Any]) -> "LensConfig":
    """The settings of a file, if any, with those of the options in their place."""
    from conspec.lens.config import config_from, read_settings
    from conspec.specs.errors import BadUsage

    if path is not None:
        return config_from({**read_settings(path), **settings}, str(path))
    for key in ("images", "model", "vlm"):
        if key not in settings:
            raise BadUsage(f"--{key} is missing; give it, or --config FILE")
    return config_from(settings, "command line")


@app.command("show")
def show_command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's folder.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document and nothing else.")
    ] = False,
    images: Annotated[
        bool,
        typer.Option("--images", help="List the images instead, for ball(INDEX, …)."),
    ] = False,
) -> None:
    """Show what a bundle holds and how good its alignment is."""
    lens = open_lens(bundle)
    if images and as_json:
        print_json(_images(lens))
    elif images:
        _show_images(lens)
    elif as_json:
        print_json(_document(lens))
    else:
        show_lens(lens)


def show_lens(lens: "Lens") -> None:
    """Print the tables about a bundle."""
    from conspec.report import facts
    from conspec.report.tables import columns_table, facts_table

    show(
        facts_table(facts.bundle_facts(lens), "Lens bundle"),
        columns_table("Alignment", facts.QUALITY_HEADINGS, facts.quality_rows(lens)),
        columns_table("Classes", facts.CLASS_HEADINGS, facts.class_rows(lens)),
        columns_table("Concepts", facts.CONCEPT_HEADINGS, facts.concept_rows(lens)),
    )


def _show_images(lens: "Lens") -> None:
    """A line for each image, its columns divided by tabs; ``-`` for an unknown class."""
    from conspec.report.words import printable

    rows = _images(lens)
    for cells in (rows[0], *(row.values() for row in rows)):
        words = ("-" if cell is None else " ".join(str(cell).splitlines()) for cell in cells)
        typer.echo("\t".join(printable(word) for word in words))


def _images(lens: "Lens") -> list[dict[str, Any]]:
    data = lens.embeddings
    return [
        {
            "index": index,
            "image": name,
            "class": lens.classes[label] if label >= 0 else None,
            "predicted": lens.classes[predicted],
            "split": "heldout" if heldout else "train",
        }
        for index, (name, label, predicted, heldout) in enumerate(
            zip(lens.image_ids, data.label, data.predicted, data.heldout, strict=True)
        )
    ]


def _document(lens: "Lens") -> dict[str, Any]:
    from conspec.report.facts import held_out_aucs

    data, about = lens.embeddings, lens.manifest
    aucs = held_out_aucs(lens)
    classes = []
    for index, name in enumerate(lens.classes):
        own = data.label == index
        right = own & (data.predicted == index)
        classes.append(
            {
                "name": name,
                "train": int((own & ~data.heldout).sum()),
                "train_correct": int((right & ~data.heldout).sum()),
                "heldout": int((own & data.heldout).sum()),
                "heldout_correct": int((right & data.heldout).sum()),
            }
        )
    thresholds = {name: lens.vocabulary["concepts"][name]["threshold"] for name in lens.concepts}
    return {
        "name": lens.name,
        "hash": lens.hash,
        "model": about.model,
        "vlm": about.vlm,
        "images": about.images,
        "count": lens.count,
        "dim": lens.dim,
        "vlm_dim": lens.vlm_dim,
        "nonnegative": lens.nonnegative,
        "classes": classes,
        "concepts": [
            {"name": name, "threshold": thresholds[name], "auc": aucs.get(name)}
            for name in lens.concepts
        ],
        "quality": dict(lens.quality),
        "versions": dict(about.versions),
    }


app.command("validate")(validate)
