"""``conspec localize``: is a misclassification the encoder's fault, or the head's?"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conspec.cli.console import print_json, say, show
from conspec.cli.heatmap import Split, SplitOption, chosen_images
from conspec.cli.images import stored_image
from conspec.cli.inputs import open_lens
from conspec.cli.verify import JsonOption, LensOption
from conspec.specs.errors import BadUsage

if TYPE_CHECKING:
    from conspec.analysis.faults import Blamed, Causes, Faults, Guards
    from conspec.analysis.oracles import Reference
    from conspec.lens.bundle import Lens


class OracleName(StrEnum):
    """Who reads the class from an embedding."""

    ZERO_SHOT = "zero-shot"
    HEATMAP = "heatmap"


class GapName(StrEnum):
    """What the guard of the map looks at."""

    NEAREST = "nearest"
    RESIDUAL = "residual"


@dataclass(frozen=True)
class Asked:
    """What is to be localized.

    Attributes:
        lens: the bundle.
        reference: what its images are compared with.
        oracle: who decides.
        guards: when not to decide.
        quiet: whether nothing is shown.
    """

    lens: "Lens"
    reference: "Reference"
    oracle: OracleName
    guards: "Guards"
    quiet: bool

    def faults(self, places: Sequence[int]) -> "Faults":
        """The faults of some misclassified images."""
        import numpy as np

        from conspec.analysis.faults import localize as decide
        from conspec.analysis.oracles import Oracle, stored

        chosen = stored(self.lens).chosen(np.array(places, dtype=np.int64))
        return decide(self.reference, chosen, Oracle(self.oracle.value), self.guards)


ImagesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="IMAGE",
        help="Numbers or names of stored images, or a part of a name; all misclassified if none.",
    ),
]
OracleOption = Annotated[
    OracleName, typer.Option("--oracle", help="By class names, or by heatmaps of the classes.")
]
GapOption = Annotated[
    GapName,
    typer.Option("--map-guard", help="Distance to the nearest training image, or the residual."),
]
LevelOption = Annotated[
    str,
    typer.Option(
        "--level", metavar="P", help="Distances beyond this quantile leave it undetermined."
    ),
]
GuardsOption = Annotated[
    bool, typer.Option("--without-guards", help="Always say encoder or head, as in the paper.")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Write faults.json and, for all, causes.png."),
]


def localize(
    lens: LensOption,
    images: ImagesArgument = None,
    oracle: OracleOption = OracleName.ZERO_SHOT,
    map_guard: GapOption = GapName.NEAREST,
    level: LevelOption = "0.95",
    without_guards: GuardsOption = False,
    split: SplitOption = Split.HELDOUT,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find out whether the encoder or the head is at fault for misclassified images.

    An oracle reads the class in the model's embedding, seen through the lens. If it reads the
    true class, the head is at fault, otherwise the encoder. Guards say undetermined where the
    oracle, the map or the VLM itself is the likelier culprit. With IMAGE, also which concepts
    are responsible. Only images that are stored in the bundle can be asked about:
    'conspec lens show BUNDLE --images' lists them.

    This is a judgement from examples and proves nothing.
    """
    from conspec.analysis.oracles import reference_of

    bundle = open_lens(lens)
    wanted = [stored_image(bundle, name) for name in images or []]
    guards = _guards(map_guard, level, without_guards)
    asked = Asked(bundle, reference_of(bundle), oracle, guards, as_json)
    document = _single(asked, wanted) if wanted else _all(asked, split, out)
    if as_json:
        print_json(document)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        (out / "faults.json").write_text(text + "\n", encoding="utf-8")
        say(f"wrote {out / 'faults.json'}" + ("" if wanted else " and causes.png"))


def _guards(gap: GapName, level: str, without: bool) -> "Guards":
    from conspec.analysis.faults import NONE, Guards
    from conspec.analysis.oracles import Gap
    from conspec.specs.exact import read_number

    try:
        share = read_number(level)
    except (ValueError, ZeroDivisionError) as error:
        raise BadUsage(f"--level {level}: must be a number such as 0.95") from error
    if not 0 < share < 1:
        raise BadUsage(f"--level {level}: must lie between 0 and 1")
    return NONE if without else Guards(gap=Gap(gap.value), level=share)


def _single(asked: Asked, wanted: Sequence[int]) -> dict[str, Any]:
    """Show some images one by one."""
    from conspec.analysis.faults import responsible
    from conspec.encodings.query import space_of

    lens, network = asked.lens, space_of(asked.lens).head
    head = network.affines[0].floats[0] if network.is_affine else None
    data, entries = lens.embeddings, []
    for image in wanted:
        entry: dict[str, Any] = {"image": image, "id": lens.image_ids[image]}
        label, predicted = int(data.label[image]), int(data.predicted[image])
        entry["label"] = None if label < 0 else lens.classes[label]
        entry["predicted"] = lens.classes[predicted]
        if label in (-1, predicted):
            why = "its class is unknown" if label < 0 else "it is classified correctly"
            entry |= {"verdict": None, "reason": f"There is no fault to localize: {why}."}
            if not asked.quiet:
                show(_heading(entry), entry["reason"])
        else:
            faults = asked.faults([image])
            blamed = responsible(asked.reference, faults, 0, head)
            entry |= _entry(lens, faults, 0) | {"concepts": [_concept(each) for each in blamed]}
            if not asked.quiet:
                _show_one(lens, faults, blamed, entry)
        entries.append(entry)
    return {"oracle": asked.oracle.value, "images": entries}


def _show_one(
    lens: "Lens", faults: "Faults", blamed: "Sequence[Blamed]", entry: dict[str, Any]
) -> None:
    from rich.text import Text

    from conspec.report.faults import blame_table, fault_lines

    show(_heading(entry), Text("\n".join(fault_lines(faults, 0, lens.classes))))
    if blamed:
        show(blame_table(blamed, faults.verdicts[0], (entry["label"], entry["predicted"])))


def _heading(entry: dict[str, Any]) -> Any:
    from conspec.report.tables import plain

    label = "class unknown" if entry["label"] is None else entry["label"]
    return plain(
        f"Image {entry['image']}, {entry['id']}: {label}, predicted {entry['predicted']}", "bold"
    )


def _all(asked: Asked, split: Split, out: Path | None) -> dict[str, Any]:
    """Show the causes of every misclassified image, class by class."""
    import numpy as np

    from conspec.analysis.faults import causes, misclassified
    from conspec.analysis.oracles import stored
    from conspec.report.faults import causes_figure, causes_table
    from conspec.report.figures import png

    lens = asked.lens
    images, chosen = stored(lens), chosen_images(lens, split)
    wrong = [int(place) for place in misclassified(images) if chosen[place]]
    if not wrong:
        raise BadUsage(f"--split {split.value}: no image is misclassified")
    faults = asked.faults(wrong)
    rows = causes(faults, lens.classes, np.where(chosen, images.label, -1))
    title = f"Causes of misclassification: {lens.name}, {split.value} images, {asked.oracle} oracle"
    concepts = _class_concepts(asked.reference, faults)
    if not asked.quiet:
        show(causes_table(rows, title))
        if concepts:
            show(_class_table(concepts))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "causes.png").write_bytes(png(causes_figure(rows, title)))
    entries = [
        {"image": image, "id": lens.image_ids[image]} | _entry(lens, faults, place)
        for place, image in enumerate(wrong)
    ]
    return {
        "oracle": asked.oracle.value,
        "split": split.value,
        "classes": [_causes_entry(row) for row in rows],
        "concepts": concepts,
        "images": entries,
    }


def _class_concepts(reference: "Reference", faults: "Faults") -> list[dict[str, Any]]:
    """For each class and fault, the concepts whose cells differ by more than chance."""
    from conspec.analysis.faults import Verdict, class_differences

    found = []
    for verdict in (Verdict.ENCODER, Verdict.HEAD):
        differences = class_differences(reference, faults, verdict)
        blame = differences.blame()
        for name, scores, total in zip(
            differences.right.groups, blame, differences.wrong.totals, strict=True
        ):
            order = [i for i in (-scores).argsort(kind="stable") if scores[i] > 0]
            if order:
                weights = {reference.concepts[i]: round(float(scores[i]), 3) for i in order}
                entry = {"fault": verdict.value, "class": name, "images": int(total)}
                found.append(entry | {"concepts": weights})
    return found


def _class_table(found: Sequence[dict[str, Any]]) -> Any:
    from conspec.report.tables import columns_table

    rows = [
        [
            f"{entry['fault']}: {'is' if entry['fault'] == 'encoder' else 'taken for'} "
            f"{entry['class']}",
            str(entry["images"]),
            ", ".join(f"{name} {value:.2g}" for name, value in list(entry["concepts"].items())[:6]),
        ]
        for entry in found
    ]
    title = (
        "Responsible concepts: sum of |Δ| over pairs that differ by more than chance (5 %, Holm)"
    )
    return columns_table(title, ("fault", "images", "concepts"), rows)


def _entry(lens: "Lens", faults: "Faults", place: int) -> dict[str, Any]:
    """One fault, for JSON."""
    images = faults.images
    return {
        "label": lens.classes[images.label[place]],
        "predicted": lens.classes[images.predicted[place]],
        "verdict": faults.verdicts[place].value,
        "reason": faults.reasons[place].value,
        "oracles": {o.value: lens.classes[a[place]] for o, a in faults.answers.items()},
        "vlm": {o.value: lens.classes[a[place]] for o, a in faults.vlm_answers.items()},
        "gaps": {kind.value: float(gaps[place]) for kind, gaps in faults.gaps.items()},
        "gap_p": {kind.value: float(p[place]) for kind, p in faults.p_values.items()},
        "gap_limit": faults.limit,
    }


def _concept(blamed: "Blamed") -> dict[str, Any]:
    return {
        "concept": blamed.concept,
        "deviation": blamed.deviation,
        "shift": blamed.shift,
        "p_value": blamed.p_value,
        "push": blamed.push,
    }


def _causes_entry(row: "Causes") -> dict[str, Any]:
    return {
        "class": row.label,
        "images": row.images,
        "wrong": row.wrong,
        "reasons": {reason.name.lower(): count for reason, count in row.counts.items()},
        "encoder_share": row.encoder_share(),
    }
