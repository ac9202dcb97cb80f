"""What can be said about the images: phrases, and whether each is true of each image."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conspec.benchmarks.emoji10 import sources
from conspec.lens import emoji10

#: Words for several classes at once, which Unicode's tags use unevenly.
HYPERNYMS = {
    "animal": ("bird", "bug", "mammal", "marine animal"),
    "vehicle": ("aircraft", "boat", "ground vehicle"),
    "plant": ("flower", "fruit"),
    "food": ("fruit",),
}


@dataclass(frozen=True, slots=True, eq=False)
class Phrases:
    """P phrases about N images.

    Attributes:
        words: The phrases; the classes first, then the attributes, then everything else.
        true: bool [N, P], whether the phrase is true of the image.
        known: bool [N, P], whether `true` can be relied on.
    """

    words: tuple[str, ...]
    true: NDArray[np.bool_]
    known: NDArray[np.bool_]


def phrases(packages: Path) -> Phrases:
    """Collect class names, attributes, hypernyms, labels, tags and "class with attribute"."""
    data = emoji10.load_images()
    attributes, table = emoji10.attribute_table()
    is_class = {name: data.labels == k for k, name in enumerate(data.classes)}
    columns = dict(is_class)
    columns |= {name: table[:, k] for k, name in enumerate(attributes)}
    for word, classes in HYPERNYMS.items():
        columns[word] = np.any([is_class[name] for name in classes], axis=0)
    certain = {name: np.ones(len(data.labels), dtype=bool) for name in columns}
    things = np.array(data.names)
    for name in dict.fromkeys(data.names):
        # The thing called "bird" is one bird of many: the word stays the class's.
        columns.setdefault(name.lower(), things == name)
    for name, members in is_class.items():
        for attribute, shown in zip(attributes, table.T, strict=True):
            if 0 < (members & shown).sum() < members.sum():
                columns[f"{name} with {attribute}"] = members & shown
    for tag, tagged in _tags(packages).items():
        if tag not in columns:
            columns[tag] = np.isin(things, tagged)
            # Tags are far from complete, so within a class a missing tag says nothing.
            near = np.isin(data.labels, np.unique(data.labels[columns[tag]]))
            certain[tag] = columns[tag] | ~near
    always = np.ones(len(data.labels), dtype=bool)
    words = tuple(columns)
    known = np.stack([certain.get(word, always) for word in words], axis=1)
    return Phrases(words, np.stack([columns[word] for word in words], axis=1), known)


def _tags(packages: Path) -> dict[str, list[str]]:
    """Per tag, the things that have it or whose label contains it as a word."""
    everything = [thing for thing in sources.things(packages) if thing.class_name is not None]
    tags = sorted({tag for thing in everything for tag in thing.tags})
    return {
        tag: [t.name for t in everything if tag in t.tags or tag in t.name.lower().split()]
        for tag in tags
    }
