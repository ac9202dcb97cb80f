"""Image sources: every form is read, and what is damaged or missing is named."""

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conspec.lens import rival10
from conspec.lens.attributes import for_concepts, is_per_class, per_image, relevance
from conspec.lens.images import ImageSet, decode, open_images
from conspec.lens.preprocess import Preprocess
from conspec.specs.errors import BadFile, BadUsage

COLOURS = {"cat/a.png": (250, 0, 0), "cat/b.png": (0, 250, 0), "dog/c.png": (0, 0, 250)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in COLOURS.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), colour).save(path)
    (tmp_path / "images" / "cat" / "notes.txt").write_text("no picture")
    return tmp_path / "images"


def check(found: ImageSet) -> None:
    assert found.classes == ("cat", "dog")
    assert [p.label for p in found.pictures] == ["cat", "cat", "dog"]
    colours = [p.load().getpixel((0, 0)) for p in found.pictures]
    assert colours == list(COLOURS.values())
    assert all(p.load().mode == "RGB" for p in found.pictures)


def test_a_folder_per_class(folder: Path) -> None:
    check(open_images(str(folder)))


def test_a_tar_is_read_in_place(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "images.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(folder, "../../up")  # names are names: nothing is extracted
        link = tarfile.TarInfo("up/cat/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    check(open_images(str(path)))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("cut", [100, 700, 1200])
def test_a_cut_off_tar_is_refused(folder: Path, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "images.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(folder / "cat" / "a.png", "cat/a.png")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BadFile, match=r"images\.tar"):
        _ = [picture.load() for picture in open_images(str(path)).pictures]


def test_a_compressed_tar_is_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "images.tar"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, ".")
    with pytest.raises(BadFile, match="uncompressed"):
        open_images(str(path))


def test_a_table_of_paths(folder: Path) -> None:
    table = folder / "table.csv"
    table.write_text("path,label\ncat/a.png,cat\ncat/b.png,cat\ndog/c.png,dog\n")
    check(open_images(str(table)))
    table.write_text("path,label\ncat/a.png,\n")
    assert open_images(str(table)).pictures[0].label is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\ncat/a.png,cat\ncat/zzz.png,cat\n", "line 3: no such file: .*zzz"),
        ("path\ncat/a.png\n", "no column 'label'"),
        ("path,label\ncat/a.png\n", "line 2: expected 2 cells"),
        ("path,label\ncat/a.png,cat,dog\n", "line 2: expected 2 cells"),
        ("", "no column 'path'"),
        ("path,label\n", "no pictures"),
        ('path,label\n"cat/a.png,cat\n', "cannot be read as CSV"),
    ],
)
def test_a_wrong_table_is_refused(folder: Path, text: str, message: str) -> None:
    table = folder / "table.csv"
    table.write_text(text)
    with pytest.raises(BadFile, match=message):
        open_images(str(table))


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_damaged_picture_is_named(folder: Path, data: bytes) -> None:
    (folder / "dog" / "c.png").write_bytes(data)
    with pytest.raises(BadFile, match=r"dog.c\.png: not a picture"):
        open_images(str(folder)).pictures[2].load()


def test_a_cut_off_picture_is_named(folder: Path) -> None:
    path = folder / "dog" / "c.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadFile, match=r"c\.png"):
        open_images(str(folder)).pictures[2].load()


def test_what_is_transparent_is_white() -> None:
    for mode in ("RGBA", "P"):
        buffer = io.BytesIO()
        picture = Image.new("RGBA", (2, 2), (0, 0, 0, 0)).convert(mode)
        picture.save(buffer, "PNG", **({"transparency": 0} if mode == "P" else {}))
        assert decode(buffer.getvalue(), "x").getpixel((0, 0)) == (255, 255, 255)


def test_unknown_sources_are_refused(tmp_path: Path) -> None:
    for source in ("nowhere", "rival10:only", "torchvision:CIFAR10", "s3:a:b"):
        with pytest.raises(BadUsage, match="expected a folder"):
            open_images(source)
    with pytest.raises(BadUsage, match="no 'Nothing'"):
        open_images("torchvision:Nothing:x:train")
    with pytest.raises(BadFile, match="torchvision cannot open CIFAR10"):
        open_images(f"torchvision:CIFAR10:{tmp_path}:train")
    with pytest.raises(BadFile, match="no pictures"):
        open_images(str(tmp_path))


def test_a_folder_too_high_or_too_low_is_told(folder: Path, tmp_path: Path) -> None:
    low = r"expected FOLDER/CLASS/picture .*right in this folder; give the one above"
    with pytest.raises(BadFile, match=low):
        open_images(str(folder / "cat"))
    high = rf"expected FOLDER/CLASS/picture .*one folder deeper; give {folder}$"
    with pytest.raises(BadFile, match=high):
        open_images(str(folder.parent))
    shutil.rmtree(folder)
    with pytest.raises(BadFile, match=r"expected FOLDER/CLASS/picture \(.*\.webp\)$"):
        open_images(str(tmp_path))


def test_a_torchvision_data_set(tmp_path: Path) -> None:
    def idx(name: str, header: list[int], data: np.ndarray) -> None:
        words = b"".join(number.to_bytes(4, "big") for number in header)
        (tmp_path / "MNIST" / "raw" / name).write_bytes(words + data.tobytes())

    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    pixels = np.arange(3 * 28 * 28, dtype=np.uint8)
    for part in ("t10k", "train"):
        idx(f"{part}-images-idx3-ubyte", [0x803, 3, 28, 28], pixels)
        idx(f"{part}-labels-idx1-ubyte", [0x801, 3], np.array([7, 1, 7], np.uint8))
    found = open_images(f"torchvision:MNIST:{tmp_path}:test")
    assert [p.label for p in found.pictures] == ["7 - seven", "1 - one", "7 - seven"]
    assert found.pictures[1].load().getpixel((1, 0)) == ((784 + 1) % 256,) * 3


def make_rival10(root: Path) -> None:
    folder = root / "train" / "ordinary"
    folder.mkdir(parents=True)
    for synset, first in (("n02389026", 0), ("n03796401", 1)):
        Image.new("RGB", (5, 5)).save(folder / f"{synset}_12.JPEG")
        Image.new("L", (5, 5)).save(folder / f"{synset}_12_merged_mask.JPEG")
        np.save(folder / f"{synset}_12_attr_labels.npy", np.full((2, 18), first))
        (folder / f"{synset}_12_attr_dict.pkl").write_bytes(b"never opened")


def test_rival10_as_published(tmp_path: Path) -> None:
    make_rival10(tmp_path)
    found = open_images(f"rival10:{tmp_path}:train")
    assert found.classes[6] == "equine"
    assert [p.label for p in found.pictures] == ["equine", "truck"]
    assert found.attributes is not None
    assert found.attributes.names == rival10.ATTRIBUTES
    np.testing.assert_array_equal(found.attributes.values, [[0] * 18, [1] * 18])
    assert found.pictures[0].load().size == (5, 5)


def test_damaged_rival10_is_refused(tmp_path: Path) -> None:
    make_rival10(tmp_path)
    labels = tmp_path / "train" / "ordinary" / "n02389026_12_attr_labels.npy"
    objects = np.empty((2, 18), dtype=object)
    for array, message in (
        (objects, "plain array"),
        (np.zeros((1, 18)), r"shape \[2, 18\]"),
        (np.full((2, 18), 7), "zeros and ones"),
    ):
        np.save(labels, array, allow_pickle=True)
        with pytest.raises(BadFile, match=message):
            open_images(f"rival10:{tmp_path}:train")
    labels.unlink()
    with pytest.raises(BadFile, match=r"n02389026_12_attr_labels\.npy"):
        open_images(f"rival10:{tmp_path}:train")
    (tmp_path / "train" / "ordinary" / "n99_1.JPEG").touch()
    labels.touch()
    with pytest.raises(BadFile, match="n99"):
        open_images(f"rival10:{tmp_path}:train")
    with pytest.raises(BadFile, match="no RIVAL10 images"):
        open_images(f"rival10:{tmp_path}:test")


def test_attributes_by_image_and_by_class(folder: Path, tmp_path: Path) -> None:
    images, table = open_images(str(folder)), tmp_path / "t.csv"
    table.write_text("image,fur,wheels\ncat/a.png,1,0\ndog/c.png,,1\n")
    assert not is_per_class(table)
    found = per_image(table, images)
    np.testing.assert_array_equal(found.values, [[1, 0], [-1, -1], [-1, 1]])
    chosen = for_concepts(found, ("wheels", "wings"))
    np.testing.assert_array_equal(chosen, [[0, -1], [-1, -1], [1, -1]])
    assert for_concepts(found, ("wings",)) is None
    table.write_text("class,fur,wheels\ncat,1,0\ndog,1,\n")
    assert is_per_class(table)
    assert relevance(table, images.classes) == {"fur": {"cat", "dog"}, "wheels": set()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,fur\ncat/a.png,yes\n", "line 2, fur: 'yes' is not"),
        ("image,fur\ncat/a.png,1\ncat/a.png,1\n", "stands twice"),
        ("image,fur\nx.png,1\n", "no row names an image"),
        ("picture,fur\nx.png,1\n", "no column 'image'"),
    ],
)
def test_a_wrong_table_of_attributes_is_refused(
    folder: Path, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(BadFile, match=message):
        per_image(tmp_path / "t.csv", open_images(str(folder)))


def test_a_table_with_an_unknown_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("class,fur\nhorse,1\n")
    with pytest.raises(BadFile, match="unknown class 'horse'"):
        relevance(tmp_path / "t.csv", ("cat", "dog"))


def test_preprocessing_crops_the_middle_and_normalises() -> None:
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:, 4:8] = (255, 0, 51)
    found = Preprocess(8, 4, (0.5, 0, 0), (0.5, 1, 0.1))([Image.fromarray(pixels)])
    assert found.shape == (1, 3, 4, 4)
    np.testing.assert_allclose(found[0, :, 1, 1], [1, 0, 2], rtol=1e-6)
    assert Preprocess(6, 5)([Image.new("RGB", (3, 100))]).shape == (1, 3, 5, 5)


def test_preprocessing_that_makes_no_picture_is_refused() -> None:
    with pytest.raises(BadUsage, match="crop 9 must be"):
        Preprocess(8, 9)
    with pytest.raises(BadUsage, match="'cubic' is none of"):
        Preprocess(8, 8, interpolation="cubic")
    with pytest.raises(BadUsage, match="std positive"):
        Preprocess(8, 8, std=(1, 0, 1))
