"""Turns the hand-checked things.txt into the attribute table and its statistics."""

import csv
import json
from pathlib import Path

import numpy as np

from conspec.lens import emoji10

SOURCE = Path(__file__).with_name("things.txt")
#: A class's relevant concepts are those that at least this share of its things have.
RELEVANT = 0.6


def tabulate(target: Path) -> None:
    """Write attributes.csv, frequencies.json and relevance.json into `target`."""
    with (target / "images.csv").open(encoding="utf-8", newline="") as file:
        images = list(csv.DictReader(file))
    attributes, shown = read(SOURCE)
    unknown = {thing for thing, _ in shown} - {row["thing"] for row in images}
    if unknown:
        raise ValueError(f"{SOURCE.name} lists things without an image: {sorted(unknown)}")
    with (target / "attributes.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("class", "thing", "house", *attributes))
        for row in images:
            own = shown.get((row["thing"], row["house"])) or shown[row["thing"], ""]
            bits = [int(name in own) for name in attributes]
            writer.writerow((row["class"], row["thing"], row["house"], *bits))
    frequencies = _frequencies()
    relevance = {
        name: [attribute for attribute, share in shares.items() if share >= RELEVANT]
        for name, shares in frequencies.items()
    }
    _write(target / "frequencies.json", frequencies)
    _write(target / "relevance.json", relevance)


def read(path: Path) -> tuple[tuple[str, ...], dict[tuple[str, str], frozenset[str]]]:
    """Read things.txt: the attributes, and what (thing, house) shows; house "" is the rest."""
    attributes: tuple[str, ...] = ()
    shown: dict[tuple[str, str], frozenset[str]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        head, _, tail = line.partition(":")
        if head == "attributes":
            attributes = tuple(tail.split())
            continue
        if not set(tail.split()) <= set(attributes):
            raise ValueError(f"{path.name}:{number}: unknown attribute in {tail!r}")
        thing, _, houses = head.partition(" @ ")
        for house in houses.split() or [""]:
            if (thing, house) in shown:
                raise ValueError(f"{path.name}:{number}: {head!r} is listed twice")
            shown[thing, house] = frozenset(tail.split())
    return attributes, shown


def _frequencies() -> dict[str, dict[str, float]]:
    """Per class, the share of its things with each attribute; a thing counts once.

    A thing that only some houses draw with an attribute counts with that share of its houses.
    """
    data = emoji10.load_images()
    names, table = emoji10.attribute_table()
    things = np.array(data.names)
    result = {}
    for label, class_name in enumerate(data.classes):
        own = list(dict.fromkeys(things[data.labels == label]))
        shares = np.mean([table[things == thing].mean(axis=0) for thing in own], axis=0)
        result[class_name] = {n: round(float(s), 4) for n, s in zip(names, shares, strict=True)}
    return result


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
