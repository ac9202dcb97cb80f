"""What ``conspec heatmap`` shows of each kind of heatmap: tables, JSON, pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from conspec.analysis.differences import Correction, Differences, differences_of
from conspec.analysis.heatmaps import (
    Floats,
    Kind,
    Maps,
    Source,
    binarized,
    maps_of,
    scores_of,
    strengths,
)
from conspec.analysis.similarity import Measure, similarities
from conspec.cli.heatmap import Asked, CorrectionName, KindName
from conspec.report.semantic import Map, Ranking, Scale, Usual, map_figure, ranking_figure
from conspec.report.semantic_tables import decided, difference_table, ranking_table, summary_table
from conspec.specs.errors import BadUsage
from conspec.specs.ranking import pair_counts, ranks

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class View:
    """What a command shows.

    Attributes:
        document: for ``--json``.
        parts: tables and texts for the terminal.
        pictures: a name, and a function that draws a PNG file.
    """

    document: dict[str, Any]
    parts: "Sequence[RenderableType]"
    pictures: Sequence[tuple[str, Callable[[], bytes]]]


def differential(asked: Asked, correction: CorrectionName) -> View:
    """Correct minus misclassified images of each class."""
    source = Source(asked.source.value)
    found = differences_of(asked.lens, source, asked.images, Correction(correction.value))
    shown = [p for p, name in enumerate(found.right.groups) if name in asked.classes]
    delta, significant = found.delta, found.significant(asked.confidence)
    pictures = []
    for place in shown:
        name, right = found.right.groups[place], found.right.totals[place]
        wrong = found.wrong.totals[place]
        legend = (
            f"Blue: row > column more often in the {right} correct images than in the {wrong} "
            "misclassified ones. Red: less often.",
            f"Percentage points; bold: more than chance ({_promise(asked, correction)}).",
            _origin(asked),
        )
        picture = _map(asked, f"{name}: correct minus misclassified", legend, delta[place],
                       significant[place], Scale.DIFFERENCE)  # fmt: skip
        pictures.append((f"differential-{name}", partial(map_figure, picture)))
    missing = [(name, why) for name, why in found.missing if name in asked.classes]
    document = _head(asked) | {
        "correction": correction.value,
        "maps": [_difference_document(found, place, asked.confidence) for place in shown],
        "missing": [{"class": name, "reason": why} for name, why in missing],
    }
    notes = _notes([f"No map for {name}: {why}." for name, why in missing])
    if not shown:
        return View(document, (notes,), pictures)
    table = difference_table(found, asked.title, asked.classes, asked.confidence)
    parts = (table, _notes(_about_differences(asked, correction)))
    return View(document, (*parts, notes) if missing else parts, pictures)


def _about_differences(asked: Asked, correction: CorrectionName) -> list[str]:
    width = len(asked.lens.concepts)
    return [
        f"Pairs: how many of {width * (width - 1) // 2} differ more than by chance, by Fisher's "
        f"exact test ({_promise(asked, correction)}).",
        "Responsible: the sum of |Δ| over the concept's pairs of that kind. Intervals: Newcombe, "
        f"{asked.confidence:g} for each by itself. None of this is a proof.",
    ]


def _promise(asked: Asked, correction: CorrectionName) -> str:
    if correction is CorrectionName.HOLM:
        return f"Holm, {asked.confidence:g} for all cells of all classes together"
    return f"Benjamini-Hochberg, at most {1 - asked.confidence:.3g} of them false on average"


def _difference_document(found: Differences, place: int, confidence: float) -> dict[str, Any]:
    lower, upper = found.intervals(confidence)
    blame = found.blame(confidence)[place]
    concepts = found.right.concepts
    order = [int(i) for i in np.argsort(-blame, kind="stable") if blame[i] > 0]
    return {
        "class": found.right.groups[place],
        "correct": int(found.right.totals[place]),
        "wrong": int(found.wrong.totals[place]),
        "responsible": {concepts[i]: round(float(blame[i]), 6) for i in order},
        "delta": _rounded(found.delta[place]),
        "lower": _rounded(lower[place]),
        "upper": _rounded(upper[place]),
        "p": [[float(f"{p:.4g}") for p in row] for row in found.p_values[place]],
        "significant": found.significant(confidence)[place].tolist(),
    }


def means(asked: Asked) -> View:
    """Summary maps: how often one concept is above another in each group of images."""
    maps, missing = _summary(asked, Kind(asked.kind.value))
    shares, sure = maps.shares, decided(maps, asked.confidence)
    pictures = []
    for place, name in enumerate(maps.groups):
        legend = (
            f"Percent of {maps.totals[place]} images ({ABOUT_ONE[asked.kind]}) in which row > "
            "column.",
            f"Bold: the {asked.confidence:g}-interval of the cell by itself leaves out 50.",
            _origin(asked),
        )
        picture = _map(asked, f"{name}: which concept is stronger", legend, shares[place],
                       sure[place], Scale.SHARE)  # fmt: skip
        pictures.append((f"{asked.kind.value}-{name}", partial(map_figure, picture)))
    return View(_summary_document(asked, maps, missing), _summary_parts(asked, maps, missing),
                pictures)  # fmt: skip


ABOUT_ONE = {
    KindName.GROUND_TRUTH: "all of that class",
    KindName.OUTPUT: "all predicted as it",
    KindName.CORRECT: "of that class, classified correctly",
    KindName.WRONG: "of that class, misclassified",
    KindName.OUTPUT_WRONG: "of other classes, predicted as it",
    KindName.CONFUSION: "of the first class, predicted as the second",
}


def binary(asked: Asked, band: Fraction) -> View:
    """Ground-truth maps made of 0 and 1: the order that most images of a class have."""
    maps, missing = _summary(asked, Kind.GROUND_TRUTH)
    cells = binarized(maps, band)
    document = _summary_document(asked, maps, missing)
    pictures = []
    for place, name in enumerate(maps.groups):
        document["maps"][place]["cells"] = cells[place].tolist()
        open_cells = "" if band == 0 else f" Grey: between {0.5 - band:g} and {0.5 + band:g}."
        legend = (
            f"Blue: row > column in more than half of the {maps.totals[place]} images of that "
            f"class; red: not.{open_cells}",
            _origin(asked),
        )
        values = np.where(cells[place] < 0, np.nan, cells[place]).astype(np.float64)
        marked = np.ones(values.shape, dtype=np.bool_)
        picture = _map(asked, f"{name}: majority order", legend, values, marked, Scale.ORDER)
        pictures.append((f"binarized-{name}", partial(map_figure, picture)))
    document["band"] = float(band)
    return View(document, _summary_parts(asked, maps, missing), pictures)


def _summary(asked: Asked, kind: Kind) -> tuple[Maps, list[str]]:
    """The maps that were asked for, and the groups that have none.

    Raises:
        BadUsage: there is none at all.
    """
    maps = maps_of(asked.lens, kind, Source(asked.source.value), asked.images)
    if kind is Kind.CONFUSION:
        ways = {f"{own} as {other}" for own in asked.classes for other in asked.lens.classes}
        asked_for = [p for p, name in enumerate(maps.groups) if name in ways]
        maps = maps.chosen(asked_for).only_known()
    else:
        maps = maps.chosen([maps.groups.index(name) for name in asked.classes])
    missing = [name for name, known in zip(maps.groups, maps.known, strict=True) if not known]
    if not maps.known.any():
        raise BadUsage(f"--kind {asked.kind.value}: there are no such images; try --split all")
    return maps.only_known(), missing


def _summary_parts(asked: Asked, maps: Maps, missing: Sequence[str]) -> "Sequence[RenderableType]":
    heading = "class as predicted" if asked.kind is KindName.CONFUSION else "class"
    said = [
        f"Pairs decided: their {asked.confidence:g}-interval (Clopper-Pearson, each by itself) "
        "leaves out one half.",
        *(f"No map for {name}: there are no such images." for name in missing),
    ]
    return summary_table(maps, asked.title, heading, asked.confidence), _notes(said)


def _summary_document(asked: Asked, maps: Maps, missing: Sequence[str]) -> dict[str, Any]:
    lower, upper = maps.intervals(asked.confidence)
    entries = [
        {
            "group": name,
            "images": int(maps.totals[place]),
            "counts": maps.counts[place].tolist(),
            "lower": _rounded(lower[place]),
            "upper": _rounded(upper[place]),
        }
        for place, name in enumerate(maps.groups)
    ]
    reason = "there are no such images"
    return _head(asked) | {
        "maps": entries,
        "missing": [{"class": name, "reason": reason} for name in missing],
    }


def single(asked: Asked, image: int) -> View:
    """One image: the ranking of its concepts, beside what is usual in its classes.

    Raises:
        BadUsage: there is no such image.
    """
    lens, data = asked.lens, asked.lens.embeddings
    if not 0 <= image < lens.count:
        raise BadUsage(f"--image {image}: the bundle has images 0 to {lens.count - 1}")
    source = Source(asked.source.value)
    ranking = ranks(scores_of(lens, source)[image : image + 1])
    maps = maps_of(lens, Kind.CORRECT, source, asked.images).only_known()
    own = pair_counts(ranking, np.zeros(1, dtype=np.int64))[0].sum(axis=1)
    near = similarities(ranking, maps, Measure.COSINE)[0]
    label, predicted = int(data.label[image]), int(data.predicted[image])
    usual = _usual(maps, [lens.classes[p] for p in dict.fromkeys((predicted, label)) if p >= 0])
    facts = [
        f"class {lens.classes[label]}" if label >= 0 else "class unknown",
        f"predicted {lens.classes[predicted]}",
        "held-out image" if data.heldout[image] else "training image",
        f"Concepts as the {'model' if source is Source.MODEL else 'VLM'} sees them.",
        "Most alike (cosine): "
        + ", ".join(f"{maps.groups[g]} {near[g]:.2f}" for g in np.argsort(-near)[:3]),
    ]
    figure = Ranking(
        title=lens.image_ids[image],
        facts=facts,
        picture=lens.thumbnail(image) if lens.has_thumbnails else None,
        names=lens.concepts,
        strengths=[float(value) / max(len(own) - 1, 1) for value in own],
        usual=usual,
    )
    document = _head(asked) | {
        "image": image,
        "id": lens.image_ids[image],
        "class": lens.classes[label] if label >= 0 else None,
        "predicted": lens.classes[predicted],
        "below": {name: int(rank) for name, rank in zip(lens.concepts, ranking[0], strict=True)},
        "cosine": {name: round(float(near[g]), 6) for g, name in enumerate(maps.groups)},
    }
    return View(
        document,
        (ranking_table(figure), _notes(facts)),
        [(f"single-{image}", partial(_drawn, figure))],
    )


def _drawn(figure: Ranking) -> bytes:
    from conspec.report.figures import png

    return png(ranking_figure(figure))


def _usual(maps: Maps, classes: Sequence[str]) -> list[Usual]:
    means_of = strengths(maps)
    places = [maps.groups.index(name) for name in classes if name in maps.groups]
    return [
        Usual(maps.groups[p], int(maps.totals[p]), [float(v) for v in means_of[p]]) for p in places
    ]


def _map(
    asked: Asked,
    title: str,
    legend: Sequence[str],
    values: Floats,
    marked: NDArray[np.bool_],
    scale: Scale,
) -> Map:
    """A map with its concepts in the common order."""
    order = asked.order
    grid = np.ix_(order, order)
    names = [asked.lens.concepts[place] for place in order]
    return Map(title, legend, names, values[grid], marked[grid], scale)


def _origin(asked: Asked) -> str:
    return f"{asked.lens.name}: {asked.whose}; {asked.which} images. Statistics, no proof."


def _head(asked: Asked) -> dict[str, Any]:
    return {
        "kind": asked.kind.value,
        "source": asked.source.value,
        "split": asked.split.value,
        "confidence": asked.confidence,
        "bundle": asked.lens.hash,
        "concepts": list(asked.lens.concepts),
        "order": [asked.lens.concepts[place] for place in asked.order],
    }


def _rounded(values: Floats) -> list[list[float]]:
    return [[round(float(value), 6) for value in row] for row in values]


def _notes(lines: Sequence[str]) -> Text:
    from conspec.report.tables import plain

    return plain("\n".join(lines), "dim")
