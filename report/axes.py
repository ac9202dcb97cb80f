"""How the axes of all plots look."""

from typing import TYPE_CHECKING

from conspec.report import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def dress(axes: "Axes", labelsize: float = 8.5) -> None:
    """A light grid behind the data, and no frame but the two axes."""
    axes.tick_params(length=3, labelsize=labelsize, color=canvas.RULE)
    axes.grid(color=canvas.RULE, lw=0.6)
    axes.set_axisbelow(True)
    for name in ("top", "right"):
        axes.spines[name].set_visible(False)
    for name in ("left", "bottom"):
        axes.spines[name].set_color(canvas.RULE)
