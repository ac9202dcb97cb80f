"""Image sources: where pictures and their labels come from.

A source is opened from one line of text:

* ``FOLDER`` with a folder for each class, or ``FILE.tar`` of such a folder, read in place;
* ``FILE.csv`` with the columns ``path`` (relative to the file) and ``label``;
* ``rival10:FOLDER:train`` or ``:test``, the format RIVAL10 is published in;
* ``torchvision:NAME:FOLDER:SPLIT``, any data set of ``torchvision.datasets``.

Nothing is decoded until a picture is loaded, and nothing is ever extracted or unpickled by us
(torchvision's own readers of CIFAR unpickle files whose checksum they verify first).
"""

import csv
import io
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from conspec.specs.errors import BadFile, BadUsage

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, slots=True)
class Picture:
    """One image: its name, its class if known, and how to load it as RGB."""

    id: str
    label: str | None
    load: Callable[[], Image.Image]


@dataclass(frozen=True, slots=True)
class Attributes:
    """Which concepts an image shows: int8 [N, len(names)]; 1, 0, or −1 for unknown."""

    names: tuple[str, ...]
    values: npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class ImageSet:
    """The pictures of one source.

    Attributes:
        name: where they come from.
        classes: names of the classes, in the source's order.
        pictures: in a fixed order.
        attributes: of each picture, if the source has them.
    """

    name: str
    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    attributes: Attributes | None = None


def open_images(source: str, download: bool = False) -> ImageSet:
    """Open an image source; see this module's text for the forms it may have.

    Args:
        source: where the images are.
        download: let torchvision fetch the data set if it is not there.

    Raises:
        BadUsage: the text is none of the forms.
        BadFile: files are missing or damaged.
    """
    match source.split(":"):
        case ["rival10", folder, split]:
            from conspec.lens.rival10 import read_rival10

            return read_rival10(folder, split)
        case ["torchvision", name, folder, split]:
            return read_torchvision(name, Path(folder), split, download)
    path = Path(source)
    if path.is_dir():
        return read_folder(path)
    if path.suffix.lower() == ".tar":
        return read_tar(path)
    if path.suffix.lower() == ".csv":
        return read_csv(path)
    raise BadUsage(
        f"{source}: no such folder; expected a folder with one folder per class, a .tar, "
        "a .csv, rival10:FOLDER:SPLIT or torchvision:NAME:FOLDER:SPLIT"
    )


def read_folder(folder: Path) -> ImageSet:
    """A folder with one folder of pictures for each class.

    Raises:
        BadFile: there is no picture in it.
    """
    files = sorted(p for p in folder.glob("*/*") if p.suffix.lower() in SUFFIXES)
    pictures = [
        Picture(str(p.relative_to(folder)), p.parent.name, partial(load_file, p)) for p in files
    ]
    if not pictures:
        raise BadFile(f"{folder}: no pictures found; {_expected_below(folder)}")
    return _image_set(folder, pictures)


def _expected_below(folder: Path) -> str:
    expected = f"expected FOLDER/CLASS/picture ({', '.join(sorted(SUFFIXES))})"
    if _has_picture(folder, "*"):
        return f"{expected}, but pictures lie right in this folder; give the one above it"
    deeper = sorted(p for p in folder.glob("*") if _has_picture(p, "*/*"))
    if deeper:
        return f"{expected}, but pictures lie one folder deeper; give {deeper[0]}"
    return expected


def _has_picture(folder: Path, pattern: str) -> bool:
    return any(p.suffix.lower() in SUFFIXES for p in folder.glob(pattern))


def read_tar(path: Path) -> ImageSet:
    """An uncompressed tar of a folder as in :func:`read_folder`, at any depth; read in place.

    Raises:
        BadFile: it is damaged, compressed, or has no picture.
    """
    pictures = []
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as archive:
            for entry in archive:
                inside = Path(entry.name)
                if not entry.isreg() or inside.suffix.lower() not in SUFFIXES:
                    continue
                if entry.issparse() or entry.offset_data + entry.size > size:
                    raise BadFile(f"{path}: {entry.name} is cut off or sparse")
                load = partial(_load_slice, path, entry.name, entry.offset_data, entry.size)
                pictures.append(Picture(entry.name, inside.parent.name, load))
    except (tarfile.TarError, OSError) as error:
        raise BadFile(f"{path}: not an uncompressed tar file: {error}") from error
    return _image_set(path, sorted(pictures, key=lambda picture: picture.id))


def read_csv(path: Path) -> ImageSet:
    """A table with the columns ``path``, relative to the table's folder, and ``label``.

    An empty label is an unknown one.

    Raises:
        BadFile: a column is missing, or a file is.
    """
    pictures = []
    for line, row in read_table(path, ("path", "label")):
        file = path.parent / row["path"]
        if not file.is_file():
            raise BadFile(f"{path}, line {line}: no such file: {file}")
        pictures.append(Picture(row["path"], row["label"] or None, partial(load_file, file)))
    return _image_set(path, pictures)


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with their line numbers.

    Raises:
        BadFile: it cannot be read, lacks one of ``columns``, or a row has another length.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            rows = [(reader.line_num, row) for row in reader]
            header = reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadFile(f"{path}: cannot be read as CSV: {error}") from error
    if missing := [column for column in columns if column not in header]:
        raise BadFile(f"{path}, line 1: no column {missing[0]!r}")
    for line, row in rows:
        if None in row or None in row.values():
            raise BadFile(f"{path}, line {line}: expected {len(header)} cells")
    return rows


def read_torchvision(name: str, root: Path, split: str, download: bool = False) -> ImageSet:
    """A data set of ``torchvision.datasets``, for instance ``CIFAR10``.

    Args:
        name: its class in torchvision.
        root: where its files are.
        split: "train", "test", or another name that the data set knows.
        download: let torchvision fetch it if it is not there.

    Raises:
        BadUsage: torchvision has no such data set.
        BadFile: torchvision cannot open it.
    """
    from inspect import signature

    from torchvision import datasets

    if name not in datasets.__all__:
        raise BadUsage(f"torchvision.datasets has no {name!r}")
    kind = getattr(datasets, name)
    known = signature(kind).parameters
    options: dict[str, str | bool] = {"split": split}
    if "train" in known:
        options = {"train": split == "train"}
    if "download" in known:
        options["download"] = download
    try:
        data = kind(root=str(root), **options)
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        raise BadFile(f"{root}: torchvision cannot open {name} ({split}): {error}") from error
    classes = tuple(str(c) for c in getattr(data, "classes", ()))
    pictures = [
        Picture(
            f"{name}/{split}/{i}",
            classes[k] if classes else str(k),
            partial(_load_item, data, i),
        )
        for i, k in enumerate(_targets(data))
    ]
    return _image_set(root, pictures, classes)


def _targets(data: object) -> list[int]:
    """Labels without decoding where the data set keeps them; the names vary."""
    for name in ("targets", "_labels", "labels"):
        if (found := getattr(data, name, None)) is not None:
            return [int(k) for k in found]
    return [int(data[i][1]) for i in range(len(data))]  # type: ignore[arg-type,index]


def _image_set(path: Path, pictures: Sequence[Picture], classes: tuple[str, ...] = ()) -> ImageSet:
    if not pictures:
        raise BadFile(f"{path}: no pictures found ({', '.join(sorted(SUFFIXES))})")
    found = classes or tuple(sorted({p.label for p in pictures if p.label is not None}))
    return ImageSet(str(path), found, tuple(pictures))


def load_file(path: Path) -> Image.Image:
    """The picture in a file, as RGB.

    Raises:
        BadFile: it cannot be read or decoded.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadFile(f"{path}: cannot be read: {error.strerror}") from error
    return decode(data, str(path))


def _load_slice(path: Path, name: str, offset: int, size: int) -> Image.Image:
    with path.open("rb") as stream:
        stream.seek(offset)
        return decode(stream.read(size), f"{path}: {name}")


def _load_item(data: Sequence[tuple[Image.Image, object]], index: int) -> Image.Image:
    return flatten(data[index][0])


def decode(data: bytes, name: str) -> Image.Image:
    """The picture in ``data``, as RGB; ``name`` is what an error calls it.

    Raises:
        BadFile: it is no picture, or a damaged one.
    """
    try:
        return flatten(Image.open(io.BytesIO(data)))
    except UnidentifiedImageError as error:
        raise BadFile(f"{name}: not a picture in a format that Pillow reads") from error
    except Exception as error:  # Pillow's decoders fail in ways that have no common base
        raise BadFile(f"{name}: not a picture, or damaged: {error}") from error


def flatten(image: Image.Image) -> Image.Image:
    """The picture as RGB; what is transparent becomes white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")
