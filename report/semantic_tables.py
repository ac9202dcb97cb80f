"""Semantic heatmaps in the terminal: what matters of each map, in a row."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from conspec.analysis.differences import Differences
from conspec.analysis.heatmap_specs import Cell, significant_cells
from conspec.analysis.heatmaps import Bools, Maps, strengths
from conspec.report.semantic import Ranking
from conspec.report.tables import columns_table
from conspec.report.words import percent

_CONCEPTS = 4
_PAIRS = 3


def decided(maps: Maps, confidence: float) -> Bools:
    """Which cells' intervals leave out one half, [G, M, M]: the order is more than chance."""
    lower, upper = maps.intervals(confidence)
    return np.asarray((lower > 0.5) | (upper < 0.5), dtype=np.bool_)


def summary_table(maps: Maps, title: str, heading: str, confidence: float) -> Table:
    """A row for each group with images: its strongest and weakest concepts.

    Args:
        maps: the maps; groups without images have no row.
        title: of the table.
        heading: what the groups are.
        confidence: of each cell's interval by itself.
    """
    shown = maps.only_known()
    borda, sure = strengths(shown), decided(shown, confidence)
    pairs = len(maps.concepts) * (len(maps.concepts) - 1) // 2
    rows = []
    for place, name in enumerate(shown.groups):
        order = np.argsort(-borda[place], kind="stable")
        either = np.triu(sure[place] | sure[place].T, 1)
        rows.append(
            (
                name,
                str(shown.totals[place]),
                _listed(order[:_CONCEPTS], maps.concepts, borda[place]),
                _listed(order[::-1][:_CONCEPTS], maps.concepts, borda[place]),
                f"{int(either.sum())} of {pairs}",
            )
        )
    headings = (heading, "images", "strongest (% of others)", "weakest", "pairs decided")
    return columns_table(title, headings, rows)


def _listed(places: Iterable[int], names: Sequence[str], values: NDArray[np.float64]) -> str:
    return ", ".join(f"{names[place]} {percent(values[place])}" for place in places)


def difference_table(
    found: Differences, title: str, classes: Sequence[str], confidence: float
) -> Table:
    """A row for each class: the most responsible concepts and the pairs that differ most."""
    cells, blame = significant_cells(found, confidence=confidence), found.blame(confidence)
    concepts = found.right.concepts
    rows = []
    for place, name in enumerate(found.right.groups):
        if name not in classes:
            continue
        own = [cell for cell in cells if cell.label == name]
        order = [i for i in np.argsort(-blame[place], kind="stable") if blame[place, i] > 0]
        named = [f"{concepts[i]} {blame[place, i]:.2f}" for i in order[:_CONCEPTS]]
        rows.append(
            (
                name,
                str(found.right.totals[place]),
                str(found.wrong.totals[place]),
                str(len(own)),
                "\n".join(named) or "–",
                "\n".join(pair_words(cell) for cell in own[:_PAIRS]) or "–",
            )
        )
    headings = (
        "class",
        "correct",
        "wrong",
        "pairs",
        "responsible",
        "largest differences: correct → wrong, Δ",
    )
    return columns_table(title, headings, rows)


def pair_words(cell: Cell) -> str:
    """For instance ``fur > wings 94 → 27 %, Δ −0.67 [0.40, 0.83]``."""
    (a, n), (b, m) = cell.right, cell.wrong
    low, high = (f"{value:+.2f}".replace("-", "−") for value in cell.interval)
    return (
        f"{cell.stronger} > {cell.weaker}: {percent(a / n)} → {percent(b / m)} %, "
        f"{cell.delta:+.2f} [{low}, {high}]"
    )


def ranking_table(found: Ranking) -> Table:
    """A row for each concept of one image, the strongest first, beside what is usual."""
    order = sorted(range(len(found.names)), key=lambda place: -found.strengths[place])
    rows = [
        (
            found.names[place],
            percent(found.strengths[place]),
            *(percent(usual.strengths[place]) for usual in found.usual),
        )
        for place in order
    ]
    headings = ("concept", "above % of others",
                *(f"usual in {usual.label}" for usual in found.usual))  # fmt: skip
    return columns_table(found.title, headings, rows)
