"""The heat map of a relevance suite: how far each claim holds, by class and concepts."""

import io
import warnings
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from conspec.report import canvas
from conspec.report.radii import Grid, Span
from conspec.report.words import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

Colour = tuple[float, float, float]
"""Red, green and blue, from 0 to 1."""
COLOURS = "cividis"  # reads the same with and without red-green blindness
_CELL = (0.31, 0.25)  # inches
_DOTS = 150  # per inch
_LONGEST = 28
_FAILS = "#e8e9ed"


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the table stands on the page, in inches."""

    left: float
    top: float
    width: float
    height: float

    @property
    def page(self) -> tuple[float, float]:
        """Width and height of the page."""
        return max(self.left + self.width + 1.15, 6.4), self.top + self.height + 0.2

    def box(self, left: float, width: float) -> tuple[float, float, float, float]:
        """A box as high as the table, in shares of the page."""
        across, down = self.page
        return left / across, 0.2 / down, width / across, self.height / down


def heat_map(grid: Grid, title: str) -> bytes:
    """The table as a PNG file: colours and numbers say up to which γ a claim is proved."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    layout = _layout(grid)
    figure = Figure(layout.page, dpi=_DOTS)
    FigureCanvasAgg(figure)
    _write_title(figure, title, _legend(grid))
    scale = _scale(grid)
    _draw_cells(figure.add_axes(layout.box(layout.left, layout.width)), grid, scale)
    side = figure.add_axes(layout.box(layout.left + layout.width + 0.2, 0.14))
    figure.colorbar(ScalarMappable(scale, COLOURS), cax=side, label="proved up to γ")
    if grid.own is not None:
        _mark(side, grid.own, scale)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in a script that the font lacks becomes boxes
        figure.savefig(stream, format="png")
    return stream.getvalue()


def caption(grid: Grid) -> str:
    """The heat map in words, for those who cannot see it."""
    weakest = min(grid.cells, key=lambda key: grid.cells[key].reach)
    farthest = max(grid.cells, key=lambda key: grid.cells[key].reach)
    return (
        f"Heat map of {len(grid.rows)} rows and {len(grid.columns)} columns. Least far holds "
        f"{weakest[0]} over {weakest[1]}, up to γ = {grid.cells[weakest].reach:g}; farthest "
        f"{farthest[0]} over {farthest[1]}, up to γ = {grid.cells[farthest].reach:g}."
    )


def _layout(grid: Grid) -> _Layout:
    rows = max(len(_name(row)) for row in grid.rows)
    columns = max(len(_name(column)) for column in grid.columns)
    return _Layout(
        left=0.3 + 0.082 * rows,
        top=0.85 + 0.082 * columns,
        width=_CELL[0] * len(grid.columns),
        height=max(_CELL[1] * len(grid.rows), 1.2),
    )


def _name(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _legend(grid: Grid) -> str:
    rows = "class" if grid.merged else "class: stronger concept"
    least = "\n(the least over the class's stronger concepts)" if grid.merged else ""
    return (
        f"Rows: {rows}. Columns: weaker concept.\n"
        f"Numbers: proved up to this γ, ✗: fails at the centre of the region.{least}"
    )


def _write_title(figure: "Figure", title: str, legend: str) -> None:
    across, down = figure.get_size_inches()
    for text, place, size, colour in (
        (printable(title), 0.12, 12, canvas.INK),
        (legend, 0.38, 8.5, canvas.FAINT),
    ):
        figure.text(
            0.15 / across, 1 - place / down, text, va="top", size=size, color=colour,
            parse_math=False,
        )  # fmt: skip


def _scale(grid: Grid) -> "Normalize":
    """Colours from 0 to what nearly all claims reach; one far outlier would hide the others."""
    from matplotlib.colors import Normalize

    reaches = sorted(span.reach for span in grid.cells.values())
    return Normalize(0.0, reaches[int(0.98 * (len(reaches) - 1))] or 1.0, clip=True)


def _draw_cells(axes: "Axes", grid: Grid, scale: "Normalize") -> None:
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    for (row, column), span in grid.cells.items():
        at = (grid.columns.index(column), grid.rows.index(row))
        shade = colormaps[COLOURS](float(scale(span.reach)))
        colour = to_rgb(_FAILS if span.lower is None else shade)
        axes.fill_between([at[0] - 0.5, at[0] + 0.5], at[1] - 0.5, at[1] + 0.5, color=colour, lw=0)
        ink = max(canvas.PAPER, "#000000", key=lambda ink: _contrast(to_rgb(ink), colour))
        axes.text(*at, _number(span), ha="center", va="center", size=8, color=ink)
    axes.set_xlim(-0.5, len(grid.columns) - 0.5)
    axes.set_ylim(len(grid.rows) - 0.5, -0.5)
    _write_names(axes, grid)
    labels = [row.partition(":")[0] for row in grid.rows]
    for place in range(1, len(labels)):
        new = labels[place] != labels[place - 1]
        axes.axhline(place - 0.5, color=canvas.INK if new else canvas.PAPER, lw=0.8)
    for place in range(1, len(grid.columns)):
        axes.axvline(place - 0.5, color=canvas.PAPER, lw=0.8)


def _contrast(first: Colour, second: Colour) -> float:
    """The contrast of two colours as WCAG 2 defines it, from 1 to 21."""
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: Colour) -> float:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _write_names(axes: "Axes", grid: Grid) -> None:
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_xticks(range(len(grid.columns)), map(_name, grid.columns), rotation=90)
    axes.set_yticks(range(len(grid.rows)), map(_name, grid.rows))
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(size=9, parse_math=False)


def _number(span: Span) -> str:
    """The scale in at most three characters, rounded down."""
    if span.lower is None:
        return "✗" if span.upper is not None else "?"
    value = Decimal(span.lower.numerator) / Decimal(span.lower.denominator)
    if value >= 1000:
        return "≥1k"
    step = Decimal("0.01") if value < 1 else Decimal("0.1") if value < 10 else Decimal(1)
    text = str(value.quantize(step, ROUND_FLOOR))
    return text.removeprefix("0") if step < 1 else text


def _mark(side: "Axes", own: Fraction, scale: "Normalize") -> None:
    """Mark the suite's own scale beside the colours."""
    if scale.vmax is not None and own <= Fraction(scale.vmax):
        side.axhline(float(own), color=canvas.RED, lw=2)
        side.set_title(f"— own γ = {float(own):g}", size=8.5, color=canvas.RED, loc="left")
