"""Where Emoji-10 comes from: named npm packages, the things drawn, and their classes."""

import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EMOJIBASE = "emojibase-data@17.0.0"

#: House -> npm package. The order is that of the tiles of one thing in a sheet.
PACKAGES = {
    "noto": "@iconify-json/noto@1.2.9",
    "noto-v1": "@iconify-json/noto-v1@1.2.5",
    "twemoji": "@iconify-json/twemoji@1.2.5",
    "fxemoji": "@iconify-json/fxemoji@1.2.2",
    "fluent": "@iconify-json/fluent-emoji@1.2.7",
    "fluent-flat": "@iconify-json/fluent-emoji-flat@1.2.6",
}

#: Houses that redraw each other's pictures belong to one family, and a family is never split.
FAMILIES = {
    "noto": "noto",
    "noto-v1": "noto",
    "twemoji": "twemoji",
    "fxemoji": "fxemoji",
    "fluent": "fluent",
    "fluent-flat": "fluent",
}
#: Twitter's house stands alone in its family and draws each thing once, so that the held-out
#: images are one unseen drawing of every thing.
HELD_OUT_FAMILY = "twemoji"

#: Unicode subgroup -> class. Dictionary order is the order of the labels.
SUBGROUPS = {
    "transport-air": "aircraft",
    "animal-bird": "bird",
    "transport-water": "boat",
    "animal-bug": "bug",
    "place-building": "building",
    "place-religious": "building",
    "plant-flower": "flower",
    "food-fruit": "fruit",
    "transport-ground": "ground vehicle",
    "animal-mammal": "mammal",
    "animal-marine": "marine animal",
}
CLASSES = tuple(dict.fromkeys(SUBGROUPS.values()))

#: Outside these subgroups, but plainly a member of the class.
ADDED = {"person rowing boat": "boat"}

#: Filed by Unicode in a subgroup whose class they are not a member of.
EXCLUDED = frozenset(
    {
        *("paw prints", "pig nose", "feather", "wing", "spider web", "microbe", "rosette"),
        *("building construction", "brick", "rock", "wood", "Statue of Liberty"),
        *("bus stop", "motorway", "railway track", "oil drum", "fuel pump", "wheel"),
        *("police car light", "horizontal traffic light", "vertical traffic light"),
        *("stop sign", "construction", "anchor", "ring buoy", "seat"),
        *("suspension railway", "mountain cableway", "aerial tramway"),
    }
)

#: Drawings that show something else: a cricket bat, and a tram lost in black on black.
WRONG_DRAWINGS = frozenset({("cricket", "noto-v1"), ("tram car", "fxemoji")})

#: Firefox OS names that are not the Unicode label without its spaces. Its bare "cat" is the
#: cat's face, so the bare names of animals with a face and a side view are all listed here.
FXEMOJI_NAMES = {
    "baby chick": "babychick",
    "bullet train": "highspeedtrainbulletnose",
    "camel": "dromedarycamel",
    "castle": "europeancastle",
    "cat": "catside",
    "cat face": "cat",
    "dog": "dogside",
    "dog face": "dog",
    "dove": "doveofpeace",
    "ewe": "sheep",
    "front-facing baby chick": "frontfacingchick",
    "hamster": "hampster",
    "house": "housebuilding",
    "houses": "housebuildings",
    "leopard": "leopardside",
    "locomotive": "steamlocomotive",
    "mouse": "mouseside",
    "mouse face": "mouse",
    "panda": "pandaface",
    "person rowing boat": "rowboat",
    "pig": "pigside",
    "pig face": "pig",
    "post office": "europeanpostoffice",
    "rabbit": "bunnyside",
    "rabbit face": "bunny",
    "racing car": "racecar",
    "spouting whale": "spurtingwhale",
    "sport utility vehicle": "recreationalvehicle",
    "tiger": "tigerside",
    "tiger face": "tiger",
    "Tokyo tower": "toykotower",
    "two-hump camel": "bactriancamel",
    "wolf": "wolfface",
}


@dataclass(frozen=True, slots=True)
class Thing:
    """One emoji.

    Attributes:
        name: Its Unicode label, such as "delivery truck".
        unicode: Its code points, such as "1F69A".
        subgroup: Unicode's subgroup, such as "transport-ground".
        class_name: The Emoji-10 class it belongs to, or None.
        tags: Emojibase's search words for it.
    """

    name: str
    unicode: str
    subgroup: str
    class_name: str | None
    tags: tuple[str, ...]


def fetch(folder: Path) -> None:
    """Download and unpack the named packages below `folder`, unless they already lie there."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in (EMOJIBASE, *PACKAGES.values()):
        target = _unpacked(folder, package)
        if target.is_dir():
            continue
        packed = subprocess.run(
            ["npm", "pack", "--silent", package],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        )
        with tarfile.open(folder / packed.stdout.strip()) as archive:
            archive.extractall(target, filter="data")


def things(folder: Path) -> list[Thing]:
    """List all emojis but flags and variants by skin tone, in Unicode's order."""
    base = _unpacked(folder, EMOJIBASE) / "package" / "en"
    subgroups = {s["order"]: s["key"] for s in _read(base / "messages.json")["subgroups"]}
    found = []
    for entry in _read(base / "data.json"):
        subgroup = subgroups.get(entry.get("subgroup"), "flag")
        if not subgroup.endswith("flag"):
            name = entry["label"]
            class_name = None if name in EXCLUDED else ADDED.get(name, SUBGROUPS.get(subgroup))
            tags = tuple(entry.get("tags", ()))
            found.append(Thing(name, entry["hexcode"], subgroup, class_name, tags))
    return found


def icons(folder: Path, house: str) -> dict[str, Any]:
    """Read the icon set of a house: SVG bodies by name, with the set's width and height."""
    icon_set: dict[str, Any] = _read(_unpacked(folder, PACKAGES[house]) / "package" / "icons.json")
    return icon_set


def icon_name(thing: Thing, house: str) -> str:
    """Return the name under which a house files a thing."""
    if house == "fxemoji":
        plain = thing.name.lower().replace(" ", "").replace("-", "")
        return FXEMOJI_NAMES.get(thing.name, plain)
    return thing.name.lower().replace(" ", "-")


def _unpacked(folder: Path, package: str) -> Path:
    return folder / package.removeprefix("@").replace("/", "-").replace("@", "-")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
