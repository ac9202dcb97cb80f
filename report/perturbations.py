"""The perturbation study: curves of what survives, and a table."""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from PIL import Image
from rich.table import Table

from conspec.analysis.grounding_summary import Count
from conspec.analysis.perturbations import STRENGTHS, Kind, Study, Survival
from conspec.report import canvas
from conspec.report.axes import dress
from conspec.report.tables import columns_table
from conspec.report.words import percent, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DOTS = 100  # per inch
_PANEL = (1.75, 1.45)  # inches
_COLOURS = (canvas.BLUE, canvas.AMBER, canvas.GREEN, canvas.RED, "#7b3fa0", "#3a3a3a")
_LINES: tuple[tuple[str, Callable[[Survival], Count]], ...] = (
    ("first predicate", lambda row: row.first),
    ("local rule", lambda row: row.rule),
    ("global rules' answer", lambda row: row.answer),
    ("prediction", lambda row: row.prediction),
)
HEADINGS = (
    "perturbation",
    "strength",
    "predicates",
    "first predicate",
    "local rule",
    "global rules",
    "prediction",
)


def survival_figure(studies: Sequence[Study]) -> bytes:
    """A PNG file: a column for each kind, a row for each thing that may survive."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across, down = len(Kind), len(_LINES)
    figure = Figure(
        (0.9 + across * _PANEL[0], 1.0 + down * _PANEL[1]), dpi=_DOTS, layout="constrained"
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    for row, (name, pick) in enumerate(_LINES):
        for column, kind in enumerate(Kind):
            axes = grid[row][column]
            for place, study in enumerate(studies):
                _draw(axes, study, kind, pick, _COLOURS[place % len(_COLOURS)])
            _dress(axes, kind, name, row, column)
    lines, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper left", ncols=2, fontsize=8.5, frameon=False)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in a script that the font lacks becomes boxes
        figure.savefig(stream, format="png")
    small = io.BytesIO()
    Image.open(stream).convert("RGB").quantize(64).save(small, "PNG", optimize=True)
    return small.getvalue()


def _draw(
    axes: "Axes", study: Study, kind: Kind, pick: Callable[[Survival], Count], colour: str
) -> None:
    rows = [row for row in study.rows if row.kind is kind]
    counts = [pick(row) for row in rows]
    at = [0.0, *(row.strength for row in rows)]
    label = f"{printable(study.family)} ({study.explained} pictures)"
    shares = [1.0, *(count.count / count.total for count in counts)]
    lower, upper = (
        [1.0, *ends] for ends in zip(*((c.lower, c.upper) for c in counts), strict=True)
    )
    axes.fill_between(at, lower, upper, color=colour, alpha=0.16, lw=0)
    axes.plot(at, shares, marker="o", ms=3, lw=1.5, color=colour, label=label)


def _dress(axes: "Axes", kind: Kind, name: str, row: int, column: int) -> None:
    axes.set_ylim(0.0, 1.03)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "50 %", "", "100 %"])
    axes.set_xticks([0.0, STRENGTHS[kind][2], STRENGTHS[kind][-1]])
    dress(axes, 8)
    if row == 0:
        axes.set_title(kind.value, size=9.5, color=canvas.INK)
    if column == 0:
        axes.set_ylabel(name, size=9, color=canvas.INK)


def survival_rows(study: Study) -> list[tuple[str, ...]]:
    """A row for each kind and strength."""
    return [
        (
            row.kind.value,
            f"{row.strength:g}",
            f"{percent(row.predicates)} %",
            *(_cell(count) for count in (row.first, row.rule, row.answer, row.prediction)),
        )
        for row in study.rows
    ]


def _cell(count: Count) -> str:
    share = percent(count.count / count.total)
    return f"{share} % [{percent(count.lower)}, {percent(count.upper)}]"


def survival_table(study: Study) -> Table:
    """What survives of one model, in the terminal."""
    title = (
        f"{study.family}: what survives, of {study.explained} pictures with {study.predicates} "
        "predicates"
    )
    return columns_table(title, HEADINGS, survival_rows(study))
