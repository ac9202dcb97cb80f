"""Pictures of semantic heatmaps: one map a page, and the ranking that one image is."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conspec.report import canvas
from conspec.report.canvas import Canvas, Style, shortened, width_of, wrapped
from conspec.report.words import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = "RdBu"  # reads the same with and without red-green blindness
NUMBERED = 40
"""Up to so many concepts, each cell shows its number."""

_CELL = (0.36, 0.27)  # inches
_SMALL = (0.15, 0.15)
_DOTS = 100  # per inch
_LONGEST = 28
_METHOD = Image.Quantize.MAXCOVERAGE  # keeps colours that are rare, such as a scale's ends
_BLANK = (0.93, 0.935, 0.95)
_CARELESS = (0.80, 0.81, 0.84)
_DARK = 0.5
"""From this distance to the middle of the scale on, ink must be white."""


class Scale(Enum):
    """What the values of a map are, and between which ends their colours run."""

    SHARE = (0.0, 1.0)
    """Shares of images."""
    DIFFERENCE = (-1.0, 1.0)
    """Differences of shares."""
    ORDER = (-0.6, 1.6)
    """Only 0 and 1; they get lighter colours, and need no scale beside them."""


@dataclass(frozen=True, slots=True)
class Map:
    """One heatmap as it is drawn.

    Attributes:
        title: in bold.
        legend: lines below it that say what is seen.
        names: M concepts, in the order of the rows and of the columns.
        values: [M, M]; NaN for cells that say nothing.
        marked: which cells are more than chance, bool [M, M].
        scale: what the values are.
    """

    title: str
    legend: Sequence[str]
    names: Sequence[str]
    values: NDArray[np.float64]
    marked: NDArray[np.bool_]
    scale: Scale


def map_figure(found: Map) -> bytes:
    """The heatmap as a PNG file: rows are the stronger concepts, columns the weaker ones."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    numbered = len(found.names) <= NUMBERED
    cell = _CELL if numbered else _SMALL
    longest = max(len(_name(name)) for name in found.names)
    table = (cell[0] * len(found.names), max(cell[1] * len(found.names), 1.4))
    left = 0.35 + 0.085 * longest
    top = 0.5 + 0.19 * len(found.legend) + 0.085 * longest
    page = (max(left + table[0] + 1.05, 7.6), top + table[1] + 0.2)
    figure = Figure(page, dpi=_DOTS)
    FigureCanvasAgg(figure)
    _write_heading(figure, found)
    place = (left / page[0], 0.2 / page[1], table[0] / page[0], table[1] / page[1])
    _draw(figure.add_axes(place), found, numbered)
    side = ((left + table[0] + 0.2) / page[0], place[1], 0.14 / page[0], place[3])
    if found.scale is not Scale.ORDER:
        signed = found.scale is Scale.DIFFERENCE
        label = "difference of shares" if signed else "share of images with row > column"
        colours = ScalarMappable(Normalize(*found.scale.value), COLOURS)
        figure.colorbar(colours, cax=figure.add_axes(side), label=label)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in a script that the font lacks becomes boxes
        figure.savefig(stream, format="png")
    return _smaller(stream)


def _smaller(stream: io.BytesIO) -> bytes:
    """The picture with a palette of colours: the same to the eye, and a third of the size."""
    small = io.BytesIO()
    Image.open(stream).convert("RGB").quantize(256, _METHOD).save(small, "PNG", optimize=True)
    return small.getvalue()


def _name(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _write_heading(figure: "Figure", found: Map) -> None:
    across, down = figure.get_size_inches()
    lines = [(printable(found.title), 12.0, canvas.INK)]
    lines += [(line, 8.5, canvas.FAINT) for line in found.legend]
    for row, (text, size, colour) in enumerate(lines):
        height = 0.12 if row == 0 else 0.19 + 0.19 * row
        figure.text(
            0.15 / across, 1 - height / down, text, va="top", size=size, color=colour,
            parse_math=False,
        )  # fmt: skip


def _draw(axes: "Axes", found: Map, numbered: bool) -> None:
    from matplotlib import colormaps

    low, high = found.scale.value
    place = (found.values - low) / (high - low)
    colours = colormaps[COLOURS](np.nan_to_num(place, nan=0.5))[:, :, :3]
    colours[np.isnan(found.values)] = _CARELESS
    colours[np.eye(len(found.names), dtype=np.bool_)] = _BLANK
    axes.imshow(colours, aspect="auto", interpolation="nearest")
    dark = np.abs(2 * place - 1) > _DARK
    if numbered:
        _write_numbers(axes, found, dark)
    else:
        i, j = np.nonzero(found.marked & ~np.eye(len(found.names), dtype=np.bool_))
        inks = [canvas.PAPER if is_dark else "#000000" for is_dark in dark[i, j]]
        axes.scatter(j, i, s=2, c=inks, linewidths=0)
    _write_names(axes, found.names, 9.0 if numbered else 7.5)


def _write_numbers(axes: "Axes", found: Map, dark: NDArray[np.bool_]) -> None:
    for i, j in np.ndindex(found.values.shape):
        if i == j:
            continue
        marked = found.marked[i, j]
        ink = canvas.PAPER if dark[i, j] else canvas.INK if marked else "#565d6b"
        text = _number(float(found.values[i, j]), found.scale)
        axes.text(
            j, i, text, ha="center", va="center", size=8, color=ink,
            weight="bold" if marked else "normal", parse_math=False,
        )  # fmt: skip


def _number(value: float, scale: Scale) -> str:
    """In percent, but for an order; empty for a cell that says nothing.

    >>> _number(0.94, Scale.SHARE), _number(0.666, Scale.DIFFERENCE), _number(1.0, Scale.ORDER)
    ('94', '+67', '1')
    """
    if np.isnan(value):
        return ""
    if scale is Scale.ORDER:
        return f"{value:.0f}"
    number = round(100 * value)
    text = f"{number:+d}" if scale is Scale.DIFFERENCE and number else str(number)
    return text.replace("-", "−")


def _write_names(axes: "Axes", names: Sequence[str], size: float) -> None:
    count = len(names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_xticks(range(count), map(_name, names), rotation=90)
    axes.set_yticks(range(count), map(_name, names))
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(size=size, parse_math=False)
    for place in range(1, count if count <= NUMBERED else 0):
        axes.axhline(place - 0.5, color=canvas.PAPER, lw=0.8)
        axes.axvline(place - 0.5, color=canvas.PAPER, lw=0.8)
    for spine in axes.spines.values():
        spine.set_visible(False)


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual among the correctly classified images of a class.

    Attributes:
        label: the class.
        images: how many there are.
        strengths: of each concept, its mean share over the others, [M].
    """

    label: str
    images: int
    strengths: Sequence[float]


@dataclass(frozen=True, slots=True)
class Ranking:
    """A single-input heatmap as it is drawn: it is the ranking of the concepts.

    Attributes:
        title: the image's name.
        facts: lines about the image.
        picture: its thumbnail, or None.
        names: M concepts.
        strengths: of each, the share of the others that it is above, [M].
        usual: what to compare with, at most two classes, the predicted one first.
    """

    title: str
    facts: Sequence[str]
    picture: Image.Image | None
    names: Sequence[str]
    strengths: Sequence[float]
    usual: Sequence[Usual]


_PAGE = 720.0
_EDGE = 24.0
_LEFT = 214.0
_ROW = 19.0
_TITLE = Style(15, bold=True)
_BODY = Style(10.5)
_FAINT = Style(10, colour=canvas.FAINT)
_TICKS = (canvas.INK, canvas.AMBER)


def ranking_figure(found: Ranking) -> Image.Image:
    """The image on the left, its concepts from the strongest to the weakest on the right."""
    top = _EDGE + 34
    height = max(top + 20 * len(found.usual) + 24 + _ROW * len(found.names), top + 260) + _EDGE
    page = Canvas(_PAGE, height)
    inner = _PAGE - 2 * _EDGE
    title = shortened(printable(found.title), inner, _TITLE, keep_end=True)
    page.text((_EDGE, _EDGE - 4), title, _TITLE)
    if found.picture is not None:
        page.picture(found.picture, (_EDGE + 2, top), 160, canvas.RULE)
    down = top + (176 if found.picture is not None else 0)
    for fact in found.facts:
        for line in wrapped(printable(fact), _LEFT - _EDGE - 12, _BODY, lines=3):
            page.text((_EDGE, down), line, _BODY)
            down += 16
        down += 4
    _ranking_bars(page, top, found)
    return page.image


def _ranking_bars(page: Canvas, top: float, found: Ranking) -> None:
    right = _PAGE - _EDGE
    page.text((_LEFT, top), "Bar: share of the other concepts that it is above.", _FAINT)
    for row, usual in enumerate(found.usual):
        down = top + 20 + 20 * row
        page.bar((_LEFT, down - 1, _LEFT + 3, down + 13), _TICKS[row])
        noun = "image" if usual.images == 1 else "images"
        said = f"mean of {usual.images} correctly classified {noun} of {printable(usual.label)}"
        page.text((_LEFT + 10, down), shortened(said, right - _LEFT - 10, _FAINT), _FAINT)
    start = top + 20 * len(found.usual) + 40
    names = [shortened(printable(name), 150, _BODY) for name in found.names]
    label = max(width_of(name, _BODY) for name in names) + 34
    room = right - _LEFT - label
    order = sorted(range(len(names)), key=lambda place: -found.strengths[place])
    for row, place in enumerate(order):
        middle, left = start + _ROW * row, _LEFT + label
        page.text((_LEFT + 16, middle), str(row + 1), _FAINT, "rm")
        page.text((_LEFT + 26, middle), names[place], _BODY, "lm")
        page.bar((left, middle - 6, left + room, middle + 6), "#eef0f4")
        page.bar((left, middle - 6, left + room * found.strengths[place], middle + 6), canvas.BLUE)
        for tick, usual in enumerate(found.usual):
            across = left + room * usual.strengths[place]
            page.bar((across - 1.5, middle - 8, across + 1.5, middle + 8), _TICKS[tick])
