"""Tables of a lens's validation: where the VLM and the model through the map differ."""

from collections.abc import Sequence

import numpy as np
from rich.table import Table
from rich.text import Text

from conspec.report.tables import columns_table, plain
from conspec.report.words import percent
from conspec.verifier.probability.validation import Disagreement, Validation


def class_table(found: Validation, places: Sequence[int], alpha: float) -> Table:
    """One row a class: how alike both sides are, and how many cells differ significantly.

    Args:
        found: the validation of a lens.
        places: numbers of the classes to show.
        alpha: the error of all significant differences together.
    """
    rows = [_class_row(found, place, alpha) for place in places]
    headings = (
        *("class", "held-out\nimages", "mean\ngap", "largest\ngap", "which is that of"),
        "significant\ncells",
    )
    table = columns_table("How often is one concept stronger than another?", headings, rows)
    for column in (*table.columns[1:4], table.columns[5]):
        column.justify = "right"
    table.caption = (
        "A cell is a pair of concepts: the share of a class's held-out images on which the first "
        "is stronger, by the VLM and by the model through the map. Gap: between the two shares, in "
        "percentage points. Significant: by McNemar's exact test with Holm's correction over all "
        f"cells of all classes, α = {alpha:g}; few images show little. None of this is a proof; "
        "see docs/statistics.md."
    )
    table.caption_justify, table.caption_style = "left", "dim"
    return table


def _class_row(found: Validation, place: int, alpha: float) -> tuple[str, ...]:
    """Name, images, mean and largest gap in percentage points, the pair of it, significant ones."""
    total, size = int(found.totals[place]), len(found.concepts)
    if not total or size < 2:
        return found.classes[place], str(total), *["–"] * 4
    gap = 100 * np.abs(found.vlm.counts[place] - found.model.counts[place]) / total
    first, second = divmod(int(gap.argmax()), size)
    differ = int((found.p_values[place] <= alpha).sum())
    return (
        found.classes[place],
        str(total),
        # The diagonal is 0 on both sides.
        f"{gap.sum() / (size * (size - 1)):.1f}",
        f"{gap.max():.0f}",
        f"{found.concepts[first]} > {found.concepts[second]}" if gap.any() else "–",
        f"{differ} of {size * (size - 1)}",
    )


def disagreement_table(found: Validation, cells: Sequence[Disagreement]) -> Table:
    """Where both sides differ significantly, the surest first; with intervals of both shares."""
    table = columns_table("Where they differ most surely", (), ())
    for heading in ("class", "stronger > weaker", "VLM", "model"):
        table.add_column(heading, overflow="fold")
    table.add_column("only VLM /\nonly model", no_wrap=True, justify="right")
    table.add_column("p", no_wrap=True, justify="right")
    for cell in cells:
        table.add_row(
            plain(cell.label),
            plain(f"{cell.stronger} > {cell.weaker}"),
            *(Text(_share(found, cell, model)) for model in (False, True)),
            f"{cell.vlm_only} / {cell.model_only}",
            f"{cell.p_value:.1g}",
        )
    return table


def _share(found: Validation, cell: Disagreement, model: bool) -> str:
    """A share in percent with its interval."""
    side = found.model if model else found.vlm
    at = (
        found.classes.index(cell.label),
        found.concepts.index(cell.stronger),
        found.concepts.index(cell.weaker),
    )
    ends = f"[{percent(float(side.lower[at]))}, {percent(float(side.upper[at]))}]"
    return f"{percent(cell.model if model else cell.vlm)} % {ends}"
