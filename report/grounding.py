"""Groundings of predicates: a strip of pictures for each, and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from rich.table import Table

from conspec.analysis.edits import Region, mask_of
from conspec.analysis.grounding import Attempt, Grounding, Scene, Stage
from conspec.analysis.grounding_summary import Count, Paired, Summary
from conspec.analysis.names import Name
from conspec.analysis.predicates import Predicate
from conspec.report import canvas
from conspec.report.canvas import Canvas, Style
from conspec.report.rules import predicate_text
from conspec.report.tables import columns_table
from conspec.report.words import percent, printable

Names = Mapping[Predicate, Name]
"""Concept names of the predicates that have one."""
_PANEL = 118.0  # points
_GAP = 10.0
_TOP = 46.0
_BELOW = 46.0
_HEADING = Style(12, bold=True)
_LABEL = Style(9, bold=True)
_LINE = Style(8.5)
_HEADINGS = (
    *("picture", "predicate", "margin", "guided:\ncut-off, area", "random:\ncut-off, area"),
    *("least\narea", "fills", "sufficient"),
)
_STAGES = {Stage.GRAD_CAM: "Grad-CAM", Stage.SCORE_CAM: "Score-CAM"}


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of a strip: RGB, what it is, and lines below it with their colours."""

    picture: Image.Image
    label: str
    lines: tuple[tuple[str, str], ...]


def strip(scene: Scene, found: Grounding, names: Names) -> Image.Image:
    """Picture, heatmap, region, edited picture, control and least region, side by side.

    Args:
        scene: the picture.
        found: what was found in it.
        names: of predicates.
    """
    panels = _panels(scene, found)
    width = _GAP + len(panels) * (_PANEL + _GAP)
    page = Canvas(width, _TOP + _PANEL + _BELOW)
    title = f"{found.image}: {_predicate(found, names)}"
    room = width - 2 * _GAP
    page.text((_GAP, 8), canvas.shortened(printable(title), room, _HEADING), _HEADING)
    for place, panel in enumerate(panels):
        left = _GAP + place * (_PANEL + _GAP)
        page.text((left, 29), panel.label, _LABEL)
        page.picture(panel.picture, (left, _TOP), _PANEL, canvas.RULE)
        for line, (text, colour) in enumerate(panel.lines):
            style = Style(_LINE.size, colour=colour)
            at = (left, _TOP + _PANEL + 6 + 13 * line)
            page.text(at, canvas.shortened(text, _PANEL + _GAP - 2, style), style)
    return page.image


def _predicate(found: Grounding, names: Names) -> str:
    """The predicate and its class, for instance ``z(21) ≥ 2.74 (wheels), truck``."""
    return f"{predicate_text(found.predicate, names.get(found.predicate))}, {found.label}"


def _panels(scene: Scene, found: Grounding) -> list[Panel]:
    side = scene.encoder.side
    shown = found.guided.accepted or found.guided.attempts[-1]
    beside = found.random.attempts[found.guided.attempts.index(shown)]
    heat = scene.heat(shown.stage, found.predicate)
    before = (f"z = {found.value:.3g}", canvas.INK), (f"margin {_signed(found.margin)}", canvas.INK)
    said = "heat" if heat.max() > 0 else "nowhere positive"
    where = ((said, canvas.FAINT), (f"layer {scene.encoder.layer_name}", canvas.FAINT))
    tried = "first that works" if shown.off else "none works; the last"
    cut = ((f"cut-off {shown.cutoff:.2f}", canvas.INK), (tried, canvas.INK))
    panels = [
        Panel(Image.fromarray(scene.image), "picture", before),
        Panel(_warm(scene, heat), _STAGES[shown.stage], where),
        Panel(_framed(scene, shown.region), f"region, {percent(shown.area)} %", cut),
        _edited(scene, found, shown, f"{found.fill.value} inside"),
        _edited(scene, found, beside, f"control, {percent(beside.area)} %"),
    ]
    if found.least is not None:
        panels.append(_edited(scene, found, found.least, f"least, {percent(found.least.area)} %"))
    if found.kept is not None:
        outside = scene.painted(~mask_of(shown.region, side), found.fill)
        panels.append(Panel(Image.fromarray(outside), "only the region", _verdict(found.kept)))
    return panels


def _edited(scene: Scene, found: Grounding, attempt: Attempt, label: str) -> Panel:
    mask = mask_of(attempt.region, scene.encoder.side)
    picture = Image.fromarray(scene.painted(mask, found.fill))
    return Panel(_with_frames(picture, attempt.region), label, _verdict(attempt.margin))


def _verdict(margin: float) -> tuple[tuple[str, str], ...]:
    colour = canvas.BLUE if margin < 0 else canvas.AMBER
    state = "predicate off" if margin < 0 else "still active"
    return ((f"margin {_signed(margin)}", colour), (state, colour))


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−")


def _warm(scene: Scene, heat: Any) -> Image.Image:
    """The picture in grey under its heatmap."""
    from matplotlib import colormaps

    grey = np.asarray(Image.fromarray(scene.image).convert("L"), dtype=np.float64)[:, :, None]
    share = (heat / heat.max() if heat.max() > 0 else heat)[:, :, None]
    colours = 255 * colormaps["inferno"](share[:, :, 0])[:, :, :3]
    return Image.fromarray(np.rint(0.3 * grey + 0.7 * colours).clip(0, 255).astype(np.uint8))


def _framed(scene: Scene, region: Region) -> Image.Image:
    """The picture, paler outside the region, with its boxes."""
    mask = mask_of(region, scene.encoder.side)[:, :, None]
    pale = 0.35 * scene.image + 0.65 * 255
    picture = Image.fromarray(np.where(mask, scene.image, pale).astype(np.uint8))
    return _with_frames(picture, region)


def _with_frames(picture: Image.Image, region: Region) -> Image.Image:
    """The picture, enlarged to the panel, with the outlines of the boxes."""
    scale = max(1, round(2 * _PANEL / picture.width))
    grown = picture.resize(
        (scale * picture.width, scale * picture.height), Image.Resampling.BICUBIC
    )
    draw = ImageDraw.Draw(grown)
    for box in region:
        corners = (box.left, box.top, box.right, box.bottom)
        left, top, right, bottom = (scale * corner for corner in corners)
        draw.rectangle((left, top, right - 1, bottom - 1), outline=canvas.RED, width=2)
    return grown


# --- tables ----------------------------------------------------------------------------------


def grounding_table(found: Sequence[Grounding], names: Names) -> Table:
    """A row for each predicate of each picture."""
    rows = [_row(each, names) for each in found]
    return columns_table("Grounding by intervention", _HEADINGS, rows)


def _row(found: Grounding, names: Names) -> tuple[str, ...]:
    works = sum(margin < 0 for margin in found.fills.values())
    kept = "–" if found.kept is None else ("yes" if found.kept >= 0 else "no")
    return (
        found.image,
        _predicate(found, names),
        f"{found.margin:.3g}",
        _attempt(found.guided.accepted),
        _attempt(found.random.accepted),
        "–" if found.least is None else f"{percent(found.least.area)} %",
        f"{works} of {len(found.fills)}" if found.fills else "–",
        kept,
    )


def _attempt(attempt: Attempt | None) -> str:
    if attempt is None:
        return "none"
    by = "" if attempt.stage is Stage.GRAD_CAM else f"{_STAGES[attempt.stage]} "
    return f"{by}{attempt.cutoff:.2f}, {percent(attempt.area)} %"


HEADINGS = ("test", "guided", "random", "only guided", "only random", "McNemar p")


def summary_rows(summary: Summary) -> list[tuple[str, ...]]:
    """Guided against random, a row for each test."""
    middle = summary.cutoffs[0.3]
    return [
        ("schedule, all predicates", *paired_cells(summary.tests)),
        ("schedule, first predicate of a picture", *paired_cells(summary.first)),
        ("schedule, and half of z_j gone", *paired_cells(summary.deep)),
        ("one try: Grad-CAM, cut-off 0.30", *paired_cells(middle)),
        ("sufficient: only the region kept", *paired_cells(summary.kept)),
    ]


def paired_cells(pair: Paired) -> tuple[str, ...]:
    """Both sides with intervals, the pairs in which they differ, and the p-value."""
    return (
        count_text(pair.guided),
        count_text(pair.random),
        str(pair.guided_only),
        str(pair.random_only),
        f"{pair.p_value:.2g}",
    )


def count_text(count: Count) -> str:
    """For instance ``27 of 30, 90 % [73, 98]``."""
    if not count.total:
        return "no tests"
    interval = f"[{percent(count.lower)}, {percent(count.upper)}]"
    return f"{count.count} of {count.total}, {percent(count.count / count.total)} % {interval}"


def summary_table(summary: Summary) -> Table:
    """The summary in the terminal."""
    return columns_table("Guided against random", HEADINGS, summary_rows(summary))


def summary_notes(summary: Summary) -> list[str]:
    """What the table leaves out, in sentences."""
    fills = "; ".join(f"{fill.value} {count_text(n)}" for fill, n in summary.fills.items())
    areas = (summary.area, summary.area_random, summary.area_least)
    guided, random, least = ("–" if a is None else f"{percent(a)} %" for a in areas)
    return [
        f"Pictures with a grounded predicate: {count_text(summary.grounded)}.",
        f"Median share of the picture: accepted regions {guided}, accepted controls {random}, "
        f"least regions {least}.",
        f"Grad-CAM failed in {summary.fallback.total} tests; Score-CAM recovered "
        f"{summary.fallback.count} of them.",
        f"The accepted region works with: {fills}; with all of them {count_text(summary.agreed)}.",
        "Intervals (Clopper and Pearson) and p-values take all tests as independent; only those "
        "over first predicates need no more than independent pictures. None of this is a proof.",
    ]
