"""One class of a lens's validation: the VLM and the model side by side, as heat maps."""

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from conspec.report import canvas
from conspec.report.words import percent, printable
from conspec.verifier.probability.validation import Validation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = "cividis"  # reads the same with and without red-green blindness
MOST_NUMBERS = 30
"""With more concepts than this, cells carry no numbers."""
_CELL = (0.3, 0.25)  # inches
_GAP = 0.35
_DOTS = 150  # per inch
_LONGEST = 20
_FRAME = "#ff3b30"
_EMPTY = "#e8e9ed"


def validation_figure(found: Validation, label: str, alpha: float = 0.05) -> bytes:
    """Two tables as a PNG file: P(row > column | class), for the VLM and through the map.

    Cells in which the two differ significantly have a red frame.

    Args:
        found: the validation of a lens.
        label: one of its classes.
        alpha: the error of all significant differences together.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    place = found.classes.index(label)
    names = [_name(concept) for concept in found.concepts]
    longest = 0.082 * max(map(len, names), default=0)
    left, top = 0.3 + longest, 1.15 + longest
    width, height = (side * max(len(names), 4) for side in _CELL)
    page = max(left + 2 * width + _GAP + 1.0, 7.6), top + height + 0.2
    figure = Figure(page, dpi=_DOTS)
    FigureCanvasAgg(figure)
    differ = found.p_values[place] <= alpha
    _write_head(figure, found, place, f"{int(differ.sum())} differ significantly, α = {alpha:g}")
    total = int(found.totals[place])
    sides = (("the VLM itself", found.vlm), ("the model, through the map", found.model))
    for turn, (heading, side) in enumerate(sides):
        start = left + turn * (width + _GAP)
        axes = figure.add_axes((start / page[0], 0.2 / page[1], width / page[0], height / page[1]))
        _draw(axes, side.counts[place] / total if total else np.full(differ.shape, np.nan))
        _mark(axes, differ)
        _write_names(axes, names if turn == 0 else [""] * len(names), names, heading)
    bar = (left + 2 * width + _GAP + 0.15) / page[0]
    side_axes = figure.add_axes((bar, 0.2 / page[1], 0.14 / page[0], height / page[1]))
    figure.colorbar(ScalarMappable(Normalize(0, 100), COLOURS), cax=side_axes, label="% of images")
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in a script that the font lacks becomes boxes
        figure.savefig(stream, format="png")
    return stream.getvalue()


def validation_caption(found: Validation, label: str, alpha: float = 0.05) -> str:
    """The picture in words, for those who cannot see it."""
    cells = [cell for cell in found.disagreements(alpha) if cell.label == label]
    said = (
        f"Two heat maps for the class {label}: how often each of {len(found.concepts)} concepts is "
        "stronger than each other one, for the VLM and for the model. "
    )
    if not cells:
        return said + "No cell differs significantly."
    first = cells[0]
    return said + (
        f"{len(cells)} cells differ significantly, most surely {first.stronger} over "
        f"{first.weaker}: {percent(first.vlm)} % for the VLM, {percent(first.model)} % for the "
        "model."
    )


def _name(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _write_head(figure: "Figure", found: Validation, place: int, differ: str) -> None:
    across, down = figure.get_size_inches()
    title = f"{printable(found.classes[place])}: is the row's concept stronger than the column's?"
    legend = (
        f"Share of the class's {int(found.totals[place])} held-out images, in percent.\n"
        f"Red frame: the two sides differ (McNemar, Holm over all classes; {differ})."
    )
    for text, at, size, colour in ((title, 0.12, 12, canvas.INK), (legend, 0.4, 8.5, canvas.FAINT)):
        figure.text(
            0.15 / across, 1 - at / down, text, va="top", size=size, color=colour,
            parse_math=False,
        )  # fmt: skip


def _draw(axes: "Axes", shares: NDArray[np.float64]) -> None:
    """Coloured cells with their shares [M, M] in percent; the diagonal is empty."""
    from matplotlib import colormaps

    size = len(shares)
    known = np.where(np.eye(size, dtype=np.bool_), np.nan, shares)
    colours = colormaps[COLOURS].with_extremes(bad=_EMPTY)
    axes.imshow(np.ma.masked_invalid(known), cmap=colours, vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(np.arange(size - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(size - 1) + 0.5, minor=True)
    axes.grid(which="minor", color=canvas.PAPER, lw=0.6)
    axes.tick_params(which="both", length=0)
    for row, column in np.argwhere(np.isfinite(known)) if size <= MOST_NUMBERS else ():
        share = float(known[row, column])
        # Half of this colour map is dark enough for white.
        ink = canvas.PAPER if share < 0.55 else "#000000"
        text = f"{100 * share:.0f}"
        axes.text(column, row, text, ha="center", va="center", size=6.5, color=ink)


def _mark(axes: "Axes", differ: NDArray[np.bool_]) -> None:
    from matplotlib.patches import Rectangle

    for row, column in np.argwhere(differ):
        box = Rectangle((column - 0.46, row - 0.46), 0.92, 0.92)
        box.set(fill=False, edgecolor=_FRAME, linewidth=1.6)
        axes.add_patch(box)


def _write_names(axes: "Axes", rows: list[str], columns: list[str], heading: str) -> None:
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(columns)), columns, rotation=90)
    axes.set_yticks(range(len(rows)), rows)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(size=9, parse_math=False)
    axes.set_title(heading, size=10, color=canvas.INK, pad=8)
    for spine in axes.spines.values():
        spine.set_visible(False)
