"""Curves of certified satisfaction: the share of images that stay right within a radius."""

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from conspec.report import canvas
from conspec.report.axes import dress
from conspec.report.words import percent, printable
from conspec.verifier.probability.robust import Curves, Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 8
"""Specs in one picture, a panel each: bands drawn over each other could not be told apart."""
_COLUMNS = 2
_PANEL = (3.3, 1.75)  # inches
_GAP = (0.35, 0.5)
_LEFT, _TOP, _BOTTOM = 0.6, 1.15, 0.6
_DOTS = 150  # per inch
_LONGEST = 34
_UNITS = {
    Metric.L2: "radius ε around the embedding (L2)",
    Metric.LINF: "radius ε around the embedding (L∞)",
    Metric.MAHALANOBIS: "radius ε around the embedding, in standard deviations (Mahalanobis)",
}


def curve_figure(curves: Curves, title: str, shown: Sequence[int] | None = None) -> bytes:
    """The curves as a PNG file, one panel for each spec, with its band.

    Args:
        curves: of the suite.
        title: the heading.
        shown: which specs, at most ``SHOWN`` of them; the first ones if None.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = _chosen(curves, shown)
    rows = max(-(-len(chosen) // _COLUMNS), 1)
    page = (
        _LEFT + _COLUMNS * (_PANEL[0] + _GAP[0]),
        _TOP + rows * (_PANEL[1] + _GAP[1]) - _GAP[1] + _BOTTOM,
    )
    figure = Figure(page, dpi=_DOTS)
    FigureCanvasAgg(figure)
    _write_head(figure, title, curves)
    for place, spec in enumerate(chosen):
        row, column = divmod(place, _COLUMNS)
        left = _LEFT + column * (_PANEL[0] + _GAP[0])
        top = _TOP + row * (_PANEL[1] + _GAP[1])
        box = (left, page[1] - top - _PANEL[1], *_PANEL)
        axes = figure.add_axes(
            (box[0] / page[0], box[1] / page[1], box[2] / page[0], box[3] / page[1])
        )
        _draw(axes, curves, spec)
        _dress(axes, curves, first=column == 0)
    figure.text(0.5, 0.12 / page[1], _UNITS[curves.metric], ha="center", size=9.5, color=canvas.INK)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in a script that the font lacks becomes boxes
        figure.savefig(stream, format="png")
    return stream.getvalue()


def curve_caption(curves: Curves, shown: Sequence[int] | None = None) -> str:
    """The picture in words, for those who cannot see it."""
    said = []
    for spec in _chosen(curves, shown):
        if not curves.totals[spec]:
            said.append(f"{curves.names[spec]}: no held-out images")
            continue
        share = curves.share[spec]
        half = curves.epsilons[share >= 0.5]
        text = f"{curves.names[spec]}: {percent(float(share[0]))} % satisfied"
        if half.size:
            text += f", half of the images certified up to ε = {float(half[-1]):.3g}"
        said.append(text)
    return "Certified satisfaction against the radius. " + "; ".join(said) + "."


def _chosen(curves: Curves, shown: Sequence[int] | None) -> list[int]:
    return list(range(len(curves.names)) if shown is None else shown)[:SHOWN]


def _write_head(figure: "Figure", title: str, curves: Curves) -> None:
    across, down = figure.get_size_inches()
    share = f"{100 * curves.confidence:g} %"
    legend = (
        "Share of held-out images whose whole ball of radius ε is certified to satisfy the spec.\n"
        f"Shaded: {share} confidence band for all ε of a curve at once (Dvoretzky, Kiefer, "
        "Wolfowitz, Massart)."
    )
    for text, place, size, colour in (
        (printable(title), 0.12, 12, canvas.INK),
        (legend, 0.4, 8.5, canvas.FAINT),
    ):
        figure.text(
            0.15 / across, 1 - place / down, text, va="top", size=size, color=colour,
            parse_math=False,
        )  # fmt: skip


def _draw(axes: "Axes", curves: Curves, spec: int) -> None:
    name = printable(curves.names[spec])
    name = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
    heading = f"{name}, {int(curves.totals[spec])} images"
    axes.set_title(heading, size=9, color=canvas.INK, loc="left", pad=5, parse_math=False)
    if not curves.totals[spec]:
        axes.text(
            0.5, 0.5, "no held-out images", transform=axes.transAxes, ha="center", va="center",
            size=9, color=canvas.FAINT,
        )  # fmt: skip
        return
    # A share between two places is at least that at the next one, so steps go down before it.
    at, band = curves.epsilons, (curves.lower[spec], curves.upper[spec])
    axes.fill_between(at, *band, step="pre", color=canvas.BLUE, alpha=0.18, lw=0)
    axes.step(at, curves.share[spec], where="pre", color=canvas.BLUE, lw=1.8)


def _dress(axes: "Axes", curves: Curves, first: bool) -> None:
    last = float(curves.epsilons[-1]) if len(curves.epsilons) else 1.0
    axes.set_xlim(0.0, last if last > 0 else 1.0)
    axes.set_ylim(0.0, 1.03)
    labels = [f"{25 * i} %" if first else "" for i in range(5)]
    axes.set_yticks(np.linspace(0, 1, 5), labels)
    dress(axes)
