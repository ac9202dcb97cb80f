"""``conspec lens validate``: does the model see concepts as the vision-language model does?"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conspec.cli.console import print_json, say, show
from conspec.cli.inputs import open_lens
from conspec.cli.verify import JsonOption
from conspec.specs.errors import BadUsage

if TYPE_CHECKING:
    from conspec.verifier.probability.validation import Disagreement, Preferences, Validation

SHOWN = 20
"""So many disagreements are shown in the table; all of them stand in the JSON document."""


def validate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder of a lens bundle.")],
    label: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Only this class; may be repeated."),
    ] = None,
    confidence: Annotated[
        float, typer.Option("--confidence", metavar="C", help="Of each interval by itself.")
    ] = 0.95,
    alpha: Annotated[
        float,
        typer.Option("--alpha", metavar="P", help="Error of all significant differences together."),
    ] = 0.05,
    as_json: JsonOption = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Write validation.json and a picture of each class to DIR."
        ),
    ] = None,
) -> None:
    """Compare the model, seen through the map, with the VLM itself.

    For each class and each two concepts, the share of held-out images on which the first is
    stronger: once by the VLM's own embedding, once by the model's, mapped. Lists where the two
    differ significantly (McNemar's exact test, Holm's correction over all classes and pairs, the
    ones left out by --class included). Statistics, no proof; see docs/statistics.md.

    Exit codes: 0 compared, 3 bad input.
    """
    from conspec.verifier.probability.validation import validate as compared

    lens = open_lens(bundle)
    if not 0 < alpha < 1:
        raise BadUsage(f"--alpha {alpha:g}: must lie between 0 and 1")
    places = [lens.class_index(name) for name in label] if label else range(len(lens.classes))
    found = compared(lens, confidence)
    if not found.totals.any():
        raise BadUsage(f"{bundle}: no held-out image with a known class, so nothing to compare")
    places = list(dict.fromkeys(places))
    document = {"bundle": lens.hash} | _document(found, places, alpha)
    if as_json:
        print_json(document)
    else:
        _show(found, places, alpha)
    if out is not None:
        _write(out, found, places, alpha, document)


def _document(found: "Validation", places: Sequence[int], alpha: float) -> dict[str, Any]:
    """All numbers; matrices are [M, M] by concept, the row's one the stronger."""
    return {
        "confidence": found.confidence,
        "alpha": alpha,
        "assumption": found.assumption,
        "concepts": list(found.concepts),
        "classes": [
            {
                "class": found.classes[place],
                "n": int(found.totals[place]),
                "vlm": _matrices(found.vlm, place),
                "model": _matrices(found.model, place),
                "p_value": found.p_values[place].tolist(),
            }
            for place in places
        ],
        "disagreements": [
            {
                "class": one.label,
                "stronger": one.stronger,
                "weaker": one.weaker,
                "vlm": one.vlm,
                "model": one.model,
                "vlm_only": one.vlm_only,
                "model_only": one.model_only,
                "p_value": one.p_value,
            }
            for one in _chosen(found, places, alpha)
        ],
    }


def _matrices(side: "Preferences", place: int) -> dict[str, Any]:
    return {
        "count": side.counts[place].tolist(),
        "lower": side.lower[place].tolist(),
        "upper": side.upper[place].tolist(),
    }


def _chosen(found: "Validation", places: Sequence[int], alpha: float) -> "list[Disagreement]":
    """The disagreements in some of the classes, the surest first."""
    names = {found.classes[place] for place in places}
    return [one for one in found.disagreements(alpha) if one.label in names]


def _show(found: "Validation", places: Sequence[int], alpha: float) -> None:
    from conspec.report.validation_tables import class_table, disagreement_table

    cells = _chosen(found, places, alpha)
    show(class_table(found, places, alpha))
    if cells:
        show(disagreement_table(found, cells[:SHOWN]))
    if len(cells) > SHOWN:
        say(f"{len(cells) - SHOWN} more cells differ; --json or --out names all of them")


def _write(
    out: Path, found: "Validation", places: Sequence[int], alpha: float, document: dict[str, Any]
) -> None:
    from conspec.report.validation import validation_figure

    out.mkdir(parents=True, exist_ok=True)
    path = out / "validation.json"
    path.write_text(json.dumps(document, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    for place in places:
        label = found.classes[place]
        # The number keeps names apart that are one after the replacement.
        name = f"validation-{place:02}-{re.sub(r'[^A-Za-z0-9_-]+', '-', label)}.png"
        (out / name).write_bytes(validation_figure(found, label, alpha))
    say(f"{path}: written, with {len(places)} picture{'' if len(places) == 1 else 's'} beside it")
