"""A little drawing on top of Pillow: texts that fit, bars, and pictures with frames.

Lengths are in points of the finished page; everything is drawn at twice that, so that it stays
sharp on dense screens.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SCALE = 2

INK = "#1f2430"
FAINT = "#6b7280"
RULE = "#d9dce3"
PAPER = "#ffffff"
GREEN = "#1f8a4c"
RED = "#c8362f"
AMBER = "#c98a12"
BLUE = "#3566b8"
GREY = "#aab1bf"


@cache
def _font(size: float, bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has Greek letters and symbols."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(str(path), size * SCALE)


@dataclass(frozen=True, slots=True)
class Style:
    """How a text looks: size in points, weight and colour."""

    size: float = 11
    bold: bool = False
    colour: str = INK


class Canvas:
    """A white page of ``width`` by ``height`` points to draw on."""

    def __init__(self, width: float, height: float) -> None:
        """Start with an empty page."""
        self.image = Image.new("RGB", (round(width * SCALE), round(height * SCALE)), PAPER)
        self._draw = ImageDraw.Draw(self.image)

    def text(self, at: tuple[float, float], text: str, style: Style, anchor: str = "la") -> None:
        """Write one line; ``anchor`` says which point of it stands ``at`` (Pillow's letters)."""
        place = (at[0] * SCALE, at[1] * SCALE)
        font = _font(style.size, style.bold)
        self._draw.text(place, text, fill=style.colour, font=font, anchor=anchor)

    def bar(self, box: tuple[float, float, float, float], colour: str) -> None:
        """Fill the rectangle (left, top, right, bottom); one without area is left out."""
        left, top, right, bottom = (round(value * SCALE) for value in box)
        if right > left and bottom > top:
            self._draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)

    def picture(self, image: Image.Image, at: tuple[float, float], size: float, frame: str) -> None:
        """Draw an image into a square with a frame, keeping its proportions."""
        side = round(size * SCALE)
        left, top = round(at[0] * SCALE), round(at[1] * SCALE)
        grown = image.copy()
        ratio = side / max(image.size)
        grown = image.resize(
            (max(1, round(image.width * ratio)), max(1, round(image.height * ratio))),
            Image.Resampling.BICUBIC,
        )
        offset = ((side - grown.width) // 2, (side - grown.height) // 2)
        self.image.paste(grown, (left + offset[0], top + offset[1]))
        outer = (left - 3, top - 3, left + side + 2, top + side + 2)
        self._draw.rectangle(outer, outline=frame, width=3)


def width_of(text: str, style: Style) -> float:
    """Width of one line in points."""
    return _font(style.size, style.bold).getlength(text) / SCALE


def shortened(text: str, width: float, style: Style, keep_end: bool = False) -> str:
    """The text cut with ``…`` to fit; at its beginning where the end says more."""
    if width_of(text, style) <= width:
        return text
    for length in range(len(text) - 1, 0, -1):
        cut = "…" + text[-length:] if keep_end else text[:length] + "…"
        if width_of(cut, style) <= width:
            return cut
    return "…"


def wrapped(text: str, width: float, style: Style, lines: int) -> list[str]:
    """The text in at most ``lines`` lines, broken at blanks; the last one is cut if need be."""
    rows = [""]
    for word in text.split():
        longer = f"{rows[-1]} {word}".strip()
        if not rows[-1] or width_of(longer, style) <= width:
            rows[-1] = longer
        elif len(rows) < lines:
            rows.append(word)
        else:
            rows[-1] = longer + " …"
            break
    return [shortened(row, width, style) for row in rows]
