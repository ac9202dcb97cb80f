"""From a differential heatmap to a suite of specs, which the verifier proves or refutes.

Where a concept a is above b in most images that the model classifies correctly as c, and clearly
less often in those of c that it misclassifies, the order "a above b" goes with being right. The
spec says that it always holds where the model says c: ``predict(c) => a > b``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from conspec.analysis.differences import Differences
from conspec.specs.errors import BadUsage
from conspec.specs.formula import ForAll, Suite
from conspec.specs.names import quoted
from conspec.specs.printer import to_text
from conspec.specs.suites import relevance_suite


@dataclass(frozen=True, slots=True)
class Cell:
    """One significant cell of a differential map.

    Attributes:
        label: class c.
        stronger: concept a.
        weaker: concept b.
        right: images classified correctly with a above b, and all of them.
        wrong: misclassified images with a above b, and all of them.
        delta: Δ_c[a, b].
        interval: Newcombe's interval of it.
        p_value: corrected for all cells of all classes.
    """

    label: str
    stronger: str
    weaker: str
    right: tuple[int, int]
    wrong: tuple[int, int]
    delta: float
    interval: tuple[float, float]
    p_value: float


@dataclass(frozen=True, slots=True)
class Mined:
    """A suite with its evidence.

    Attributes:
        cells: one for each spec, strongest evidence of a class first.
        suite: the specs.
    """

    cells: tuple[Cell, ...]
    suite: Suite

    def text(self, heading: Sequence[str] = ()) -> str:
        """The suite as Con_spec, with the evidence as comments above each spec."""
        top = "".join(f"# {_one_line(line)}\n" for line in heading)
        pairs = zip(self.cells, self.suite.specs, strict=True)
        blocks = [f"# {_one_line(evidence(cell))}\n{to_text(spec)}\n" for cell, spec in pairs]
        return "\n".join([top, *blocks] if top else blocks)


def significant_cells(
    found: Differences, least: float = 0.0, confidence: float = 0.95
) -> list[Cell]:
    """The cells with Δ above 0 that are more than chance, class by class, largest |Δ| first.

    Of cells (a, b) and (b, a), which mirror each other, it is that with Δ > 0.

    Args:
        found: the differential maps.
        least: leave out cells with a smaller Δ.
        confidence: of significance over all cells, and of each interval by itself.
    """
    delta, (lower, upper) = found.delta, found.intervals(confidence)
    chosen = found.significant(confidence) & (delta > 0) & (delta >= least)
    names, concepts = found.right.groups, found.right.concepts
    cells = [
        Cell(
            label=names[g],
            stronger=concepts[i],
            weaker=concepts[j],
            right=(int(found.right.counts[g, i, j]), int(found.right.totals[g])),
            wrong=(int(found.wrong.counts[g, i, j]), int(found.wrong.totals[g])),
            delta=float(delta[g, i, j]),
            interval=(float(lower[g, i, j]), float(upper[g, i, j])),
            p_value=float(found.p_values[g, i, j]),
        )
        for g, i, j in np.argwhere(chosen)
    ]
    return sorted(cells, key=lambda cell: (names.index(cell.label), -cell.delta))


def mined(
    cells: Sequence[Cell], gamma: Fraction | str, region: str = "focus", limit: int | None = None
) -> Mined:
    """A spec for each cell whose order holds in most correctly classified images.

    Args:
        cells: the evidence, from ``significant_cells``.
        gamma: scale of the region.
        region: ``focus``, ``pca_box``, ``zonotope``, ``ellipsoid`` or ``hull`` (no scale).
        limit: so many for each class at most, those with the largest Δ.

    Raises:
        BadUsage: no cell is left, or a bad region or scale.
    """
    kept: list[Cell] = []
    for cell in cells:
        count, total = cell.right
        so_far = sum(other.label == cell.label for other in kept)
        if 2 * count > total and (limit is None or so_far < limit):
            kept.append(cell)
    if not kept:
        raise BadUsage(
            "no cell is significant with its order in most correct images, so there is no spec "
            "to write; try more images, a smaller least difference, or less confidence"
        )
    specs = [_spec(cell, gamma, region) for cell in kept]
    return Mined(tuple(kept), Suite(_renamed(specs)))


def _spec(cell: Cell, gamma: Fraction | str, region: str) -> ForAll:
    """``predict(c) => a > b`` over the class's region, with the names of generated suites."""
    table = {cell.label: [cell.stronger]}
    suite = relevance_suite(table, [cell.stronger, cell.weaker], gamma=gamma, region=region)
    (spec,) = (spec for spec in suite.specs if isinstance(spec, ForAll))
    return spec


def _renamed(specs: Sequence[ForAll]) -> tuple[ForAll, ...]:
    """Specs with names of their own: different concepts may become one word in a name."""
    taken: set[str] = set()
    found = []
    for spec in specs:
        name, number = spec.name, 2
        while name.casefold() in taken:
            name, number = f"{spec.name}_{number}", number + 1
        taken.add(name.casefold())
        found.append(replace(spec, name=name))
    return tuple(found)


def evidence(cell: Cell) -> str:
    """What the images say, in one sentence."""
    (a, n), (b, m) = cell.right, cell.wrong
    low, high = cell.interval
    return (
        f"{quoted(cell.stronger)} > {quoted(cell.weaker)} in {a} of {n} correct images of "
        f"{quoted(cell.label)} and {b} of {m} misclassified: "
        f"Δ = {cell.delta:+.2f} [{low:+.2f}, {high:+.2f}], corrected p = {cell.p_value:.1g}"
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
