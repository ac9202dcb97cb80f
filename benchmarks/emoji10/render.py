"""Draws every thing in every house's style and packs the tiles into one sheet per class."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from conspec.benchmarks.emoji10 import sources

TILE = 64
COLUMNS = 16
NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
FIELDS = ("index", "class", "label", "thing", "unicode", "house", "family", "split", "tile")


def render(packages: Path, target: Path) -> None:
    """Write `sheets/<class>.png` (RGBA tiles of 64 px) and `images.csv` into `target`."""
    (target / "sheets").mkdir(parents=True, exist_ok=True)
    icon_sets = {house: sources.icons(packages, house) for house in sources.PACKAGES}
    everything = sources.things(packages)
    rows: list[dict[str, object]] = []
    seen: set[bytes] = set()
    for label, class_name in enumerate(sources.CLASSES):
        tiles: list[NDArray[np.uint8]] = []
        for thing in (t for t in everything if t.class_name == class_name):
            for house, icon_set in icon_sets.items():
                if (thing.name, house) in sources.WRONG_DRAWINGS:
                    continue
                tile = _tile(icon_set, sources.icon_name(thing, house))
                # A house sometimes files one drawing under two names; it counts once.
                if tile is None or tile.tobytes() in seen:
                    continue
                seen.add(tile.tobytes())
                family = sources.FAMILIES[house]
                split = "heldout" if family == sources.HELD_OUT_FAMILY else "train"
                values = (len(rows), class_name, label, thing.name, thing.unicode, house)
                rows.append(dict(zip(FIELDS, (*values, family, split, len(tiles)), strict=True)))
                tiles.append(tile)
        name = class_name.replace(" ", "-")
        Image.fromarray(_sheet(tiles)).save(target / "sheets" / f"{name}.png", optimize=True)
    with (target / "images.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@dataclass(frozen=True, slots=True, eq=False)
class Others:
    """Drawings of all other emojis by the houses in training: practice, never shipped.

    Attributes:
        tiles: uint8 [N, 64, 64, 4], RGBA.
        things: What each shows.
    """

    tiles: NDArray[np.uint8]
    things: tuple[sources.Thing, ...]


def others(packages: Path) -> Others:
    """Draw what is not in the ten classes, in every house outside the held-out family."""
    outside = [thing for thing in sources.things(packages) if thing.class_name is None]
    tiles, shown = [], []
    for house, family in sources.FAMILIES.items():
        if family == sources.HELD_OUT_FAMILY:
            continue
        icon_set = sources.icons(packages, house)
        for thing in outside:
            tile = _tile(icon_set, sources.icon_name(thing, house))
            if tile is not None:
                tiles.append(tile)
                shown.append(thing)
    return Others(np.stack(tiles), tuple(shown))


def _tile(icon_set: dict[str, Any], name: str) -> NDArray[np.uint8] | None:
    """Draw one icon at 64 px with its transparency, or return None where the house has none."""
    turns: dict[str, Any] = {}
    if name in icon_set.get("aliases", {}):
        turns = icon_set["aliases"][name]
        name = turns["parent"]
    if name not in icon_set["icons"] or turns.keys() - {"parent"}:
        return None
    icon = icon_set["icons"][name]
    size = [icon.get(key, icon_set.get(key, 16)) for key in ("width", "height")]
    origin = [icon.get(key, 0) for key in ("left", "top")]
    box = " ".join(str(number) for number in (*origin, *size))
    svg = f'<svg {NAMESPACES} viewBox="{box}">{icon["body"]}</svg>'
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=TILE, skip_system_fonts=True))
    drawn = Image.open(io.BytesIO(png)).convert("RGBA")
    square = Image.new("RGBA", (TILE, TILE))
    drawn.thumbnail((TILE, TILE))
    square.paste(drawn, ((TILE - drawn.width) // 2, (TILE - drawn.height) // 2))
    pixels = np.array(square)
    # Colours nobody can see would only cost bytes in the sheet.
    pixels[pixels[..., 3] == 0] = 0
    return pixels


def _sheet(tiles: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    rows = -(-len(tiles) // COLUMNS)
    sheet = np.zeros((rows * TILE, COLUMNS * TILE, 4), dtype=np.uint8)
    for position, tile in enumerate(tiles):
        top, left = (TILE * step for step in divmod(position, COLUMNS))
        sheet[top : top + TILE, left : left + TILE] = tile
    return sheet
