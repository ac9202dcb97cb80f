"""``conspec rules ground`` and ``conspec rules perturb``: predicates under changed pictures."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from itertools import count as numbers
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conspec.cli.console import print_json, progress, say, show, warn
from conspec.cli.rules_input import OutOption, RulesOption
from conspec.cli.rules_subject import (
    ConfigOption,
    HeldoutOption,
    ImagesOption,
    ModelOption,
    Subject,
    WeightsOption,
    chosen_pictures,
    count_option,
    last_layer_of,
    open_subject,
    settings_of,
)
from conspec.cli.verify import JsonOption, LensOption

if TYPE_CHECKING:
    from PIL.Image import Image

    from conspec.analysis.attributions import Encoder
    from conspec.analysis.grounding import Grounding, Scene
    from conspec.analysis.perturbations import Family, Study
    from conspec.analysis.rule_files import Saved
    from conspec.analysis.rules import RuleSet, Settings
    from conspec.lens.bundle import Lens
    from conspec.report.grounding import Names


class FillName(StrEnum):
    """What takes the place of pixels."""

    BLUR = "blur"
    MEAN = "mean"
    NOISE = "noise"
    INPAINT = "inpaint"


LayerOption = Annotated[
    str | None,
    typer.Option("--layer", metavar="MODULE", help="Whose maps make the heatmaps; found if not."),
]
FillOption = Annotated[
    FillName, typer.Option("--fill", help="What takes the place of a region's pixels.")
]


def ground(
    lens: LensOption,
    images_asked: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE…", help="Names or numbers of images, or files."),
    ] = None,
    count: int = count_option(20),
    fill: FillOption = FillName.BLUR,
    rules: RulesOption = None,
    layer: LayerOption = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    images: ImagesOption = None,
    heldout: HeldoutOption = None,
    config: ConfigOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find where in a picture each predicate looks, by changing the picture there.

    The region that a heatmap proposes is blurred; it is accepted if the predicate then no longer
    holds. Beside it, a random rectangle of the same area gets the same chances: a success means
    little if chance succeeds as often. Without IMAGE, held-out images are drawn and summed up.
    Without --rules, predicates are as published (quantile 0), learnt from the training images.
    """
    from conspec.analysis.attributions import open_encoder

    settings = settings_of(model, weights, images, heldout, config)
    subject = open_subject(lens, settings)
    encoder = open_encoder(subject.classifier, layer)
    saved = subject.saved(rules)
    wanted = chosen_pictures(subject, images_asked or [], count)
    scenes, found = ground_all(encoder, saved.rules, wanted, fill.value)
    names = _names_of(subject, saved)
    document = ground_document(subject.lens, encoder, found)
    if as_json:
        print_json(document)
    else:
        _show_groundings(found, names, summed_up=not images_asked)
    if out is not None:
        write_strips(out, scenes, found, names)


def perturb(
    lens: LensOption,
    count: int = count_option(100),
    rules: RulesOption = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    images: ImagesOption = None,
    heldout: HeldoutOption = None,
    config: ConfigOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what survives of predicates, rules and predictions when pictures are perturbed.

    Brightness, contrast, blur, noise, hue and occlusion in five strengths. With the shipped
    bundle, a second model is studied beside its classifier: the vision-language model's image
    tower under a linear head that is fitted on the training images (ridge regression).
    """
    from conspec.analysis.perturbations import study

    subject = open_subject(lens, settings_of(model, weights, images, heldout, config))
    wanted = chosen_pictures(subject, [], count)
    names, pictures = [name for name, _ in wanted], [picture for _, picture in wanted]
    studies = []
    with progress() as advance:
        for family in families(subject, rules):

            def told(done: int, total: int, name: str = family.name) -> None:
                advance(name, done, total)

            studies.append(study(family, pictures, names, told))
    document = {"bundle": subject.lens.hash, "studies": [asdict(each) for each in studies]}
    if as_json:
        print_json(document)
    else:
        _show_studies(studies)
    if out is not None:
        _write_study(out, studies, document)


# --- grounding -------------------------------------------------------------------------------


def ground_all(
    encoder: "Encoder", rules: "RuleSet", wanted: "Sequence[tuple[str, Image]]", fill: str
) -> "tuple[list[Scene], list[Grounding]]":
    """Ground every explaining predicate of some pictures; a scene for each grounding."""
    from conspec.analysis.edits import Fill
    from conspec.analysis.grounding import Scene, explaining, ground

    layer = last_layer_of(encoder)
    scenes, found = [], []
    with progress() as advance:
        for place, (name, picture) in enumerate(wanted):
            scene = Scene(encoder, encoder.prepared(picture), name)
            for predicate in explaining(rules, layer, scene.features[None])[0]:
                found.append(ground(scene, predicate, rules.names[predicate.label], Fill(fill)))
                scenes.append(scene)
            advance("grounding", place + 1, len(wanted))
    return scenes, found


def ground_document(
    lens: "Lens", encoder: "Encoder", found: "Sequence[Grounding]"
) -> dict[str, Any]:
    """All attempts of all groundings, and the summary, for JSON."""
    from conspec.analysis.edits import BLUR
    from conspec.analysis.grounding_summary import summarize

    summary = asdict(summarize(found)) if found else None
    if summary is not None:
        summary["cutoffs"] = {f"{cut:.2f}": pair for cut, pair in summary["cutoffs"].items()}
    return {
        "bundle": lens.hash,
        "model": encoder.name,
        "layer": encoder.layer_name,
        "blur_pixels": BLUR * encoder.side,
        "summary": summary,
        "groundings": [_grounding_document(each) for each in found],
    }


def _grounding_document(found: "Grounding") -> dict[str, Any]:
    plain = asdict(found)
    del plain["predicate"]["label"]  # the number of the class, which is there by name
    for side in ("guided", "random"):
        series = getattr(found, side)
        plain[side] = plain[side]["attempts"]
        plain[f"{side}_accepted"] = (
            None if series.accepted is None else series.attempts.index(series.accepted)
        )
    return plain


def _show_groundings(found: "Sequence[Grounding]", names: "Names", summed_up: bool) -> None:
    from rich.text import Text

    from conspec.analysis.grounding_summary import summarize
    from conspec.report.grounding import grounding_table, summary_notes, summary_table

    if not found:
        warn("no predicate explains any of these pictures, so there is nothing to ground")
        return
    show(grounding_table(found, names))
    if summed_up:
        summary = summarize(found)
        show(summary_table(summary), Text("\n".join(summary_notes(summary))))


def _names_of(subject: Subject, saved: "Saved") -> "Names":
    """Names of predicates in the bundle's concepts; those that nothing fits have none."""
    named = subject.basis.names(saved) or []
    pairs = zip(saved.rules.vocabulary, named, strict=False)  # a hidden layer has no names at all
    return {predicate: name for predicate, name in pairs if name is not None}


def write_strips(
    folder: Path, scenes: "Sequence[Scene]", found: "Sequence[Grounding]", names: "Names"
) -> None:
    """Write a strip of pictures for each grounding; 256 colours keep the files small."""
    from conspec.report.grounding import strip

    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    for scene, each in zip(scenes, found, strict=True):
        stem = re.sub(r"\W+", "-", each.image).strip("-").casefold()
        sign = "" if each.predicate.sign > 0 else "-"
        stem = f"{stem}-z{sign}{each.predicate.feature}"
        number = next(n for n in numbers(1) if f"{stem}{n}" not in taken)
        taken.add(f"{stem}{number}")
        place = folder / f"{stem}{f'-{number}' if number > 1 else ''}.png"
        strip(scene, each, names).quantize(256).save(place, optimize=True)
    say(f"{folder}: wrote {len(found)} {'picture' if len(found) == 1 else 'pictures'}")


# --- perturbations ---------------------------------------------------------------------------


def families(subject: Subject, path: Path | None) -> "list[Family]":
    """The bundle's classifier and, for the shipped bundle, the image tower under a fitted head.

    The rules of the second are learnt with the settings of the first's.
    """
    from conspec.analysis.attributions import open_encoder
    from conspec.analysis.perturbations import Family

    encoder = open_encoder(subject.classifier)
    rules = subject.saved(path).rules
    found = [Family(encoder.name, encoder.embed, last_layer_of(encoder), rules)]
    if subject.lens.manifest.vlm == "emoji10":
        found.append(tower_family(subject.lens, rules.settings))
    return found


def tower_family(lens: "Lens", settings: "Settings") -> "Family":
    """The shipped vision-language model's image tower under a linear head fitted by ridge."""
    from conspec.analysis.attributions import open_encoder
    from conspec.analysis.perturbations import Family
    from conspec.analysis.rules import learn
    from conspec.analysis.tower import tower_classifier
    from conspec.lens.emoji10 import load_vlm
    from conspec.lens.vlm import OpenClip

    name = "image tower of the VLM, ridge head"
    encoder = open_encoder(tower_classifier(OpenClip(*load_vlm()), lens, name))
    layer, data = last_layer_of(encoder), lens.embeddings
    train = ~data.heldout
    z = data.vlm[train]
    rules = learn(lens.classes, layer, (z, layer.predicted(z), data.label[train]), settings)
    return Family(name, encoder.embed, layer, rules)


def _show_studies(studies: "Sequence[Study]") -> None:
    from rich.text import Text

    from conspec.report.perturbations import survival_table

    note = (
        "Intervals: Clopper and Pearson, 0.95 for each by itself, for independent pictures. The "
        "share of predicates has none: those of one picture depend on each other."
    )
    show(*(survival_table(each) for each in studies), Text(note))


def _write_study(folder: Path, studies: "Sequence[Study]", document: Mapping[str, Any]) -> None:
    import json

    from conspec.report.perturbations import survival_figure

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "perturbations.png").write_bytes(survival_figure(studies))
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "perturbations.json").write_text(text + "\n", encoding="utf-8")
    say(f"{folder}: wrote perturbations.png and perturbations.json")
