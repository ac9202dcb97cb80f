"""RIVAL10 in the folder format it is published in; none of it comes with conspec.

``FOLDER/{train,test}/ordinary/<synset>_<number>.JPEG`` are the images. Beside each lies
``…_attr_labels.npy``, [2, 18], whose first row says which attributes are present. The masks
(``…_merged_mask.JPEG``) and the pickled mask dictionaries are never opened.
"""

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from conspec.lens.images import Attributes, ImageSet, Picture, load_file
from conspec.specs.errors import BadFile

ATTRIBUTES = (
    "long-snout", "wings", "wheels", "text", "horns", "floppy-ears", "ears", "colored-eyes",
    "tail", "mane", "beak", "hairy", "metallic", "rectangular", "wet", "long", "tall",
    "patterned",
)  # fmt: skip

# Each class is made of two ImageNet synsets; the order is that of the labels.
SYNSETS = {
    "truck": ("n03796401", "n04467665"),
    "car": ("n02814533", "n03100240"),
    "plane": ("n02690373", "n04552348"),
    "ship": ("n03673027", "n03095699"),
    "cat": ("n02123394", "n02124075"),
    "dog": ("n02099712", "n02099601"),
    "equine": ("n02389026", "n02391049"),
    "deer": ("n02423022", "n02422699"),
    "frog": ("n01644373", "n01644900"),
    "bird": ("n01531178", "n01532829"),
}
_CLASS_OF = {synset: label for label, pair in SYNSETS.items() for synset in pair}


def read_rival10(root: str | Path, split: str) -> ImageSet:
    """The images of ``root/split/ordinary`` with their classes and attributes.

    Raises:
        BadFile: no such folder, an unknown synset, or a missing or damaged label file.
    """
    folder = Path(root) / split / "ordinary"
    files = sorted(p for p in folder.glob("*.JPEG") if "merged_mask" not in p.name)
    if not files:
        raise BadFile(f"{folder}: no RIVAL10 images (*.JPEG) in this folder")
    pictures = tuple(Picture(p.name, _label(p), partial(load_file, p)) for p in files)
    values = np.stack([_attributes(path) for path in files])
    return ImageSet(str(folder), tuple(SYNSETS), pictures, Attributes(ATTRIBUTES, values))


def _label(path: Path) -> str:
    synset = path.name.partition("_")[0]
    if synset not in _CLASS_OF:
        raise BadFile(f"{path}: {synset!r} is not one of RIVAL10's twenty synsets")
    return _CLASS_OF[synset]


def _attributes(image: Path) -> npt.NDArray[np.int8]:
    path = image.with_name(image.stem + "_attr_labels.npy")
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadFile(f"{path}: cannot be read as a plain array: {error}") from error
    if not isinstance(found, np.ndarray) or found.shape != (2, len(ATTRIBUTES)):
        raise BadFile(f"{path}: expected an array of shape [2, {len(ATTRIBUTES)}]")
    if not np.isin(found[0], (0, 1)).all():
        raise BadFile(f"{path}: expected zeros and ones")
    return np.asarray(found[0], dtype=np.int8)
