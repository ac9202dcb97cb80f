"""Tables of what images show: per image (``image,wheels,wings,…``) or per class (``class,…``).

Cells are 1, 0, or empty for unknown.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from conspec.lens.images import Attributes, ImageSet, read_table
from conspec.specs.errors import BadFile

_CELLS = {"1": 1, "0": 0, "": -1}


def read_attributes(path: Path, key: str) -> tuple[tuple[str, ...], dict[str, list[int]]]:
    """The concepts in a table's header, and a row of 1, 0, −1 for each value of column ``key``.

    Raises:
        BadFile: the column is missing, a value stands twice, or a cell is something else.
    """
    rows: dict[str, list[int]] = {}
    names: tuple[str, ...] = ()
    for line, row in read_table(path, (key,)):
        place = f"{path}, line {line}"
        names = tuple(column for column in row if column != key)
        if row[key] in rows:
            raise BadFile(f"{place}: {row[key]!r} stands twice")
        for name in names:
            if row[name].strip() not in _CELLS:
                raise BadFile(f"{place}, {name}: {row[name]!r} is not 1, 0 or empty")
        rows[row[key]] = [_CELLS[row[name].strip()] for name in names]
    return names, rows


def is_per_class(path: Path) -> bool:
    """Whether the table has a row for each class, not for each image."""
    rows = read_table(path, ())
    return bool(rows) and "class" in rows[0][1] and "image" not in rows[0][1]


def per_image(path: Path, images: ImageSet) -> Attributes:
    """The attributes of each picture; −1 for a picture that has no row.

    Raises:
        BadFile: the table is damaged, or none of its rows names a picture.
    """
    names, rows = read_attributes(path, "image")
    if not any(picture.id in rows for picture in images.pictures):
        raise BadFile(f"{path}: no row names an image; ids are like {images.pictures[0].id!r}")
    unknown = [-1] * len(names)
    values = [rows.get(picture.id, unknown) for picture in images.pictures]
    return Attributes(names, np.array(values, dtype=np.int8))


def relevance(path: Path, classes: Sequence[str]) -> Mapping[str, frozenset[str]]:
    """For each concept of a per-class table, the classes it is relevant for.

    Raises:
        BadFile: the table is damaged or names an unknown class.
    """
    names, rows = read_attributes(path, "class")
    if unknown := sorted(set(rows) - set(classes)):
        raise BadFile(f"{path}: unknown class {unknown[0]!r}; known: {', '.join(classes)}")
    return {
        name: frozenset(label for label, cells in rows.items() if cells[i] == 1)
        for i, name in enumerate(names)
    }


def for_concepts(found: Attributes | None, concepts: Sequence[str]) -> npt.NDArray[np.int8] | None:
    """The columns of ``concepts``, int8 [N, M]; −1 where there is none; None if all are."""
    if found is None or not set(concepts) & set(found.names):
        return None
    table = np.full((len(found.values), len(concepts)), -1, dtype=np.int8)
    for j, name in enumerate(concepts):
        if name in found.names:
            table[:, j] = found.values[:, found.names.index(name)]
    return table
