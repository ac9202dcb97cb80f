"""Plots of a comparison: solved instances against time, and the times of two solvers."""

import io
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from conspec.benchmarks.runner.compare import Comparison, Judged, fastest
from conspec.report import canvas
from conspec.report.axes import dress
from conspec.report.words import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart; the light ones are a bit darker.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c0559a", "#d69200", "#3fa3dc", canvas.INK)
_DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", (0, (4, 1.4)), (0, (1, 1.1)))
_MARKERS = "osD^vP*X"
_DOTS = 150  # per inch
_TINY = 1e-3
"""Seconds; what was faster is drawn here, since a logarithmic axis has no zero."""
_BORDER = 2.0
"""Where the scatter draws what was not solved, in limits."""
_LONGEST = 30
_FAMILIES = 14
"""Families with a marker of their own in a scatter; the rest share one."""
_Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class _Stroke:
    """How a line is drawn; lines of a higher order lie above the others."""

    colour: str
    dash: str | tuple[int, tuple[float, ...]]
    width: float
    order: float


_BEST = _Stroke(canvas.GREY, (0, (1, 1.4)), 1.7, 2)


def cactus_figure(comparison: Comparison, solvers: Sequence[str]) -> bytes:
    """How many instances each solver solved within a time, as a PNG file.

    Args:
        comparison: of one suite.
        solvers: all solvers that are shown anywhere, which fixes their colours.
    """
    lines = [line.solver for line in comparison.lines]
    height = max(4.5, 1.45 + 0.19 * (len(lines) + 1))
    page = (8.8, height)
    figure = _figure(page)
    limits = [entry.result.limit for entry in comparison.judged]
    start, end = _span([e.result.seconds for e in comparison.judged if e.solved], max(limits))
    total = len(comparison.instances)
    heading = f"{comparison.suite}: instances solved within a time"
    _write_head(figure, heading, f"{_many(total, 'instance')}; {_limit_text(limits)}")
    axes = _axes(figure, (0.75, 0.6, 5.35, height - 1.4))
    curves = [
        (
            _short(name),
            [e for e in comparison.judged if e.solved and e.result.solver == name],
            _stroke(solvers.index(name)),
        )
        for name in lines
    ]
    if len(lines) > 1:
        curves.append(("virtual best", fastest(comparison.judged), _BEST))
    for _, judged, stroke in curves:
        _staircase(axes, [entry.result.seconds for entry in judged], (start, end), stroke)
    axes.set_xscale("log")
    axes.set_xlim(start, end)
    axes.set_ylim(0, total * 1.04)
    axes.axhline(total, color=canvas.FAINT, lw=0.8)
    _time_ticks(axes.xaxis, start, end)
    axes.set_yticks(_count_ticks(total))
    axes.set_xlabel("time, wall clock (log scale)", size=9.5, color=canvas.INK)
    axes.set_ylabel("instances solved", size=9.5, color=canvas.INK)
    dress(axes)
    ends = [(len(judged), f"{name}  {len(judged)}", stroke) for name, judged, stroke in curves]
    ends[: len(lines)] = ends[: len(lines)][::-1]  # of equal ones, the first name stands highest
    _label_ends(axes, ends, height - 1.4)
    return _png(figure)


def cactus_caption(comparison: Comparison) -> str:
    """The picture in words, for those who cannot see it."""
    said = ", ".join(f"{line.solver} {line.solved}" for line in comparison.lines)
    total = _many(len(comparison.instances), "instance")
    return f"Instances of {comparison.suite} solved against time. Of {total}: {said}"


def scatter_figure(comparison: Comparison, first: str, second: str) -> bytes:
    """The times of two solvers on the instances that both were asked, as a PNG file."""
    pairs = scatter_pairs(comparison, first, second)
    limit = max((entry.result.limit for pair in pairs for entry in pair), default=1.0)
    solved = [entry.result.seconds for pair in pairs for entry in pair if entry.solved]
    start, end = _span(solved, limit)
    figure = _figure((8.4, 5.9))
    names = (_short(first), _short(second))
    _write_head(figure, f"{comparison.suite}: {names[0]} and {names[1]}", _counts(pairs, names))
    axes = _axes(figure, (0.95, 0.65, 4.45, 4.45))
    border = end * _BORDER
    top = border * 1.35
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(start, top)
    axes.set_ylim(start, top)
    for side in (axes.axvspan, axes.axhspan):
        side(end, top, color=canvas.RULE, alpha=0.45, lw=0)
    for factor, dash in ((1.0, "-"), (10.0, ":"), (0.1, ":")):
        ends = (max(start, start / factor), min(end, end / factor))
        if ends[0] < ends[1]:
            axes.plot(ends, [factor * x for x in ends], dash, color=canvas.GREY, lw=0.9, zorder=1)
    _draw_pairs(axes, pairs, (start, border))
    for axis in (axes.xaxis, axes.yaxis):
        _time_ticks(axis, start, end, border)
    axes.set_xlabel(f"{names[0]}, wall clock", size=9.5, color=canvas.INK, parse_math=False)
    axes.set_ylabel(f"{names[1]}, wall clock", size=9.5, color=canvas.INK, parse_math=False)
    dress(axes)
    if pairs:
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.03, 1.01), frameon=False, fontsize=9,
            labelspacing=0.7, handletextpad=0.3, title="family", alignment="left",
            title_fontproperties={"size": 9, "weight": "bold"}, labelcolor=canvas.INK,
        )  # fmt: skip
    figure.text(
        5.55 / 8.4, 0.66 / 5.9, "Solid line: the same time.\nDotted lines: ten times as long.",
        size=8.5, color=canvas.FAINT, va="bottom", linespacing=1.5,
    )  # fmt: skip
    return _png(figure)


def scatter_caption(comparison: Comparison, first: str, second: str) -> str:
    """The picture in words, for those who cannot see it."""
    pairs = scatter_pairs(comparison, first, second)
    return f"Times of {first} and {second} on {comparison.suite}: {_counts(pairs, (first, second))}"


def scatter_pairs(comparison: Comparison, first: str, second: str) -> list[tuple[Judged, Judged]]:
    """The results of two solvers on each instance that both were asked."""
    found = [
        {e.result.instance: e for e in comparison.judged if e.result.solver == name}
        for name in (first, second)
    ]
    return [(entry, found[1][i]) for i, entry in found[0].items() if i in found[1]]


def _counts(pairs: Sequence[tuple[Judged, Judged]], names: tuple[str, str]) -> str:
    counts = Counter((a.solved, b.solved) for a, b in pairs)
    return (
        f"{_many(len(pairs), 'instance')} asked of both: solved by both {counts[True, True]}, "
        f"only by {names[0]} {counts[True, False]}, only by {names[1]} {counts[False, True]}, "
        f"by neither {counts[False, False]}"
    )


def _draw_pairs(
    axes: "Axes", pairs: Sequence[tuple[Judged, Judged]], ends: tuple[float, float]
) -> None:
    """A marker for each instance, by family; what was not solved stands on the border."""
    sizes = Counter(pair[0].result.instance.family for pair in pairs)
    largest = sorted(sizes, key=lambda family: (-sizes[family], family))
    own = sorted(largest if len(largest) <= _FAMILIES else largest[: _FAMILIES - 1])
    groups = {family: [family] for family in own}
    if rest := [family for family in largest if family not in own]:
        groups[f"{len(rest)} others"] = rest
    size = max(44 * min(math.sqrt(200 / max(len(pairs), 1)), 1), 8)  # square points
    for place, (name, families) in enumerate(groups.items()):
        members = [pair for pair in pairs if pair[0].result.instance.family in families]
        across, up = (
            [
                max(pair[i].result.seconds, ends[0]) if pair[i].solved else ends[1]
                for pair in members
            ]
            for i in (0, 1)
        )
        axes.scatter(
            across, up, s=size, marker=_MARKERS[place % len(_MARKERS)],
            color=canvas.FAINT if families is rest else _COLOURS[place % len(_COLOURS)],
            alpha=0.8, linewidths=0.5, edgecolors="white", clip_on=False, zorder=3,
            label=f"{_short(name)}  {len(members)}",
        )  # fmt: skip


def _figure(page: tuple[float, float]) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(page, dpi=_DOTS)
    FigureCanvasAgg(figure)
    return figure


def _axes(figure: "Figure", box: _Box) -> "Axes":
    """Axes at left, bottom, width and height in inches."""
    across, down = figure.get_size_inches()
    return figure.add_axes((box[0] / across, box[1] / down, box[2] / across, box[3] / down))


def _write_head(figure: "Figure", title: str, about: str) -> None:
    across, down = figure.get_size_inches()
    for text, place, size, colour in (
        (title, 0.14, 12, canvas.INK),
        (about, 0.42, 9, canvas.FAINT),
    ):
        figure.text(
            0.15 / across, 1 - place / down, _one_line(text), va="top", size=size, color=colour,
            parse_math=False,
        )  # fmt: skip


def _png(figure: "Figure") -> bytes:
    """The figure as a small PNG file that does not name the version of what drew it."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in a script that the font lacks becomes boxes
        figure.savefig(stream, format="png", metadata={"Software": None})
    small = io.BytesIO()
    # The usual method merges rare colours, and with them families.
    reduced = Image.open(stream).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    reduced.save(small, "PNG", optimize=True)
    return small.getvalue()


def _span(times: Sequence[float], limit: float) -> tuple[float, float]:
    """Ends of an axis of seconds: a power of ten below all times, and the limit."""
    end = max(limit, 10 * _TINY)
    least = min([max(time, _TINY) for time in times] + [end / 10])
    return max(10.0 ** math.floor(math.log10(least) + 1e-9), _TINY), end


def _staircase(
    axes: "Axes", seconds: Sequence[float], ends: tuple[float, float], stroke: _Stroke
) -> None:
    """The number of times up to each moment, from the start of the axis to its end."""
    times = sorted(max(time, ends[0]) for time in seconds)
    axes.step(
        [ends[0], *times, ends[1]], [*range(len(times) + 1), len(times)], where="post",
        color=stroke.colour, ls=stroke.dash, lw=stroke.width, zorder=stroke.order, clip_on=False,
    )  # fmt: skip


def _label_ends(axes: "Axes", ends: Sequence[tuple[float, str, _Stroke]], inches: float) -> None:
    """Names at the right ends of the lines, pushed apart where they would overlap."""
    top = axes.get_ylim()[1]
    ordered = sorted(ends, key=lambda end: end[0])
    places = _apart([value / top for value, _, _ in ordered], 0.175 / inches)
    for (value, text, stroke), place in zip(ordered, places, strict=True):
        axes.plot(
            [1.0, 1.03, 1.065], [value / top, place, place], color=stroke.colour, ls=stroke.dash,
            lw=stroke.width, transform=axes.transAxes, clip_on=False, zorder=stroke.order,
        )  # fmt: skip
        axes.text(
            1.075, place, text, transform=axes.transAxes, va="center", size=9, color=canvas.INK,
            parse_math=False,
        )  # fmt: skip


def _apart(wanted: Sequence[float], gap: float) -> list[float]:
    """Places in [0, 1] near the wanted ones, which are sorted, at least ``gap`` apart.

    Neighbours that are too close form a group around the mean of what they want.

    >>> [round(place, 6) for place in _apart([0.5, 0.5, 0.9], 0.1)]
    [0.45, 0.55, 0.9]
    >>> [round(place, 6) for place in _apart([0.0, 0.0, 0.0], 0.1)]
    [0.0, 0.1, 0.2]
    """
    groups: list[list[float]] = []
    for value in wanted:
        groups.append([value])
        while len(groups) > 1 and _first(groups[-1], gap) < _last(groups[-2], gap) + gap - 1e-12:
            group = groups.pop()
            groups[-1] += group
    return [_first(group, gap) + gap * i for group in groups for i in range(len(group))]


def _first(group: Sequence[float], gap: float) -> float:
    """Where a group begins: around its mean, but inside [0, 1] if it fits."""
    extent = gap * (len(group) - 1)
    return max(min(math.fsum(group) / len(group) - extent / 2, 1 - extent), 0.0)


def _last(group: Sequence[float], gap: float) -> float:
    return _first(group, gap) + gap * (len(group) - 1)


def _time_ticks(axis: "Axis", start: float, end: float, border: float | None = None) -> None:
    """Ticks at 1 (and 2, 5 where there is room) times powers of ten; one at the border."""
    decades = math.log10(end / start)
    steps = (1,) if decades > 2.5 else (1, 2, 5)
    low, high = math.floor(math.log10(start)), math.ceil(math.log10(end))
    ticks = [step * 10.0**power for power in range(low, high + 1) for step in steps]
    ticks = [tick for tick in ticks if start * 0.999 <= tick <= end * 1.001]
    labels = {tick: _time_text(tick) for tick in ticks}
    if border is not None:
        labels[border] = "not\nsolved"
    axis.set_ticks(list(labels), list(labels.values()))
    axis.set_ticks([], minor=True)


def _count_ticks(total: int) -> list[int]:
    """Whole numbers from 0 to at most ``total``, at most nine of them.

    >>> _count_ticks(1), _count_ticks(60), _count_ticks(175)
    ([0, 1], [0, 10, 20, 30, 40, 50, 60], [0, 50, 100, 150])
    """
    power = 10 ** max(len(str(total)) - 2, 0)
    step = next(step * power for step in (1, 2, 5, 10, 20, 50) if total <= 8 * step * power)
    return list(range(0, total + 1, step))


def _time_text(seconds: float) -> str:
    """A tick's time, for instance ``10 ms`` or ``5 s``."""
    return f"{1000 * seconds:.3g} ms" if seconds < 0.0999 else f"{seconds:,.3g} s"


def _stroke(place: int) -> _Stroke:
    """The line of a solver."""
    dash = _DASHES[place // len(_COLOURS) % len(_DASHES)]
    return _Stroke(_COLOURS[place % len(_COLOURS)], dash, 1.9, 3)


def _limit_text(limits: Sequence[float]) -> str:
    least, most = min(limits), max(limits)
    if least == most:
        return f"limit {least:g} s each"
    return f"limits from {least:g} to {most:g} s"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun if count == 1 else noun + 's'}"


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())


def _short(name: str) -> str:
    shown = _one_line(name)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"
