"""The bundle on disk: what is written is what is read, and nothing else is accepted."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file, save_file

from conspec.lens import Lens
from conspec.lens.files import sha256
from conspec.lens.onnx_files import affine_model
from conspec.lens.tables import Embeddings
from conspec.lens.thumbnails import jpeg, pack, unpack
from conspec.lens.write import Contents, write_bundle
from conspec.specs.errors import BadFile, BadUsage, UnknownName

N, SIZE, P, K, M = 20, 6, 5, 3, 4
CLASSES, CONCEPTS = ("cat", "dog", "truck"), ("wheels", "wings", "fur", "two words")
FILES = (
    "manifest.json", "head.onnx", "concept_map.onnx", "alignment.onnx", "vocabulary.json",
    "embeddings.safetensors", "statistics.safetensors", "images.json",
    "thumbnails.safetensors", "quality.json",
)  # fmt: skip


def make_contents() -> Contents:
    random = np.random.default_rng(0)
    f32 = np.float32
    head = random.normal(size=(K, SIZE)).astype(f32)
    align = random.normal(size=(P, SIZE)).astype(f32)
    q = random.normal(size=(M, P)).astype(f32)
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    z = np.abs(random.normal(size=(N, SIZE))).astype(f32)
    embeddings = Embeddings(
        z=z,
        label=random.integers(-1, K, N),
        predicted=(z @ head.T).argmax(axis=1),
        heldout=random.random(N) < 0.3,
        vlm=z @ align.T,
        directions=q,
        class_directions=q[:K],
        attributes=random.integers(-1, 2, (N, M)).astype(np.int8),
    )
    return Contents(
        name="tiny",
        classes=CLASSES,
        concepts=CONCEPTS,
        head=affine_model(head, np.ones(K, f32), "logits"),
        concept_map=affine_model(q @ align, np.zeros(M, f32), "concepts"),
        alignment=affine_model(align, np.zeros(P, f32), "mapped"),
        embeddings=embeddings,
        image_ids=tuple(f"{i}.png" for i in range(N)),
        thresholds={"wheels": "0.125", "wings": "-0.3"},
        captions={"wheels": ["a photo of wheels"]},
        thumbnails=[jpeg(Image.new("RGB", (9, 5), (10 * i, 0, 0))) for i in range(N)],
        quality={"ridge": 0.1, "r2_per_dimension": [0.5] * P},
    )


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("lens") / "tiny", make_contents()).root


@pytest.fixture
def bundle(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "bundle"))


def reseal(root: Path) -> None:
    """Make the manifest's hashes right again, as a writer with other ideas would."""
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["files"] = {name: sha256(root / name) for name in manifest["files"]}
    (root / "manifest.json").write_text(json.dumps(manifest))


def test_what_is_written_is_what_is_read(pristine: Path) -> None:
    contents, lens = make_contents(), Lens.load(pristine)
    assert {path.name for path in pristine.iterdir()} == set(FILES)
    for name, array in vars(contents.embeddings).items():
        np.testing.assert_array_equal(getattr(lens.embeddings, name), array)
    assert (lens.classes, lens.concepts) == (CLASSES, CONCEPTS)
    assert lens.image_ids == contents.image_ids
    assert (lens.count, lens.dim, lens.vlm_dim, lens.nonnegative) == (N, SIZE, P, True)
    assert lens.quality == contents.quality
    assert lens.manifest.quality == {"ridge": 0.1}
    assert lens.hash == sha256(pristine / "manifest.json")


def test_arrays_are_read_only(pristine: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        Lens.load(pristine).embeddings.z[0, 0] = 1


def test_statistics_are_of_correct_training_images(pristine: Path) -> None:
    lens = Lens.load(pristine)
    e, stats = lens.embeddings, lens.statistics
    for k in range(K):
        z = e.z[(e.label == k) & (e.predicted == k) & ~e.heldout].astype(np.float64)
        assert stats.count[k] == len(z)
        if len(z):
            np.testing.assert_allclose(stats.mean[k], z.mean(0), rtol=1e-12)
            np.testing.assert_allclose(stats.std[k], z.std(0), rtol=1e-9, atol=1e-12)
            assert stats.axes is not None
            assert stats.residual is not None
            expected = np.cov(z.T, bias=True)
            np.testing.assert_allclose(stats.axes[k] @ stats.axes[k].T, expected, atol=1e-12)
            lengths = np.linalg.norm(stats.axes[k], axis=0)
            assert (np.diff(lengths) <= 1e-12).all()
            left = (stats.axes[k, :, :8] ** 2).sum(1) + stats.residual[k] ** 2
            np.testing.assert_allclose(left, z.var(0), atol=1e-9)
            np.testing.assert_array_equal(stats.minimum[k], z.min(0))


def test_replay_is_the_stored_maps(pristine: Path) -> None:
    lens = Lens.load(pristine)
    z = lens.embeddings.z
    logits, concepts = lens.replay(z)
    assert logits.dtype == concepts.dtype == np.float32
    np.testing.assert_array_equal(logits.argmax(1), lens.embeddings.predicted)
    np.testing.assert_allclose(lens.mapped(z), lens.embeddings.vlm, rtol=1e-5, atol=1e-6)
    expected = lens.mapped(z) @ lens.embeddings.directions.T
    np.testing.assert_allclose(concepts, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(BadUsage, match=r"\[N, 6\]"):
        lens.replay(z[:, :5])


def test_names_thresholds_and_thumbnails(pristine: Path) -> None:
    lens = Lens.load(pristine)
    assert lens.class_index("truck") == 2
    assert lens.concept_index("two words") == 3
    assert lens.threshold("wheels") == Fraction(1, 8)
    assert lens.threshold("wings") == Fraction(-3, 10)
    assert lens.threshold("fur") is None
    assert lens.thumbnail(7).size == (9, 5)
    with pytest.raises(UnknownName, match="did you mean 'truck'"):
        lens.class_index("trucks")
    with pytest.raises(UnknownName, match="known: wheels"):
        lens.threshold("zzz")
    with pytest.raises(UnknownName, match="0 to 19"):
        lens.thumbnail(-1)


def test_thumbnails_may_be_left_out(tmp_path: Path) -> None:
    contents = make_contents()
    lens = write_bundle(tmp_path / "b", Contents(**vars(contents) | {"thumbnails": None}))
    assert not lens.has_thumbnails
    with pytest.raises(BadUsage, match="without thumbnails"):
        lens.thumbnail(0)


def test_packing_thumbnails_is_reversible() -> None:
    for pictures in ([], [b"a"], [b"abc", b"", b"d"]):
        packed = pack(pictures)
        assert unpack(packed["data"], packed["offsets"]) == pictures


def test_writing_never_leaves_half_a_bundle(tmp_path: Path) -> None:
    contents = make_contents()
    nan = vars(contents.embeddings) | {"vlm": np.full((N, P), np.nan, np.float32)}
    broken = Contents(**vars(contents) | {"embeddings": Embeddings(**nan)})
    with pytest.raises(BadFile, match="vlm holds NaN"):
        write_bundle(tmp_path / "b", broken)
    assert list(tmp_path.iterdir()) == []


def test_overwriting_is_asked_for_and_only_of_bundles(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BadUsage, match="exists already"):
        write_bundle(bundle, make_contents())
    write_bundle(bundle, make_contents(), overwrite=True)
    assert Lens.load(bundle).name == "tiny"
    (tmp_path / "mine").mkdir()
    with pytest.raises(BadUsage, match="is no lens bundle"):
        write_bundle(tmp_path / "mine", make_contents(), overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "mine"}


def test_the_front_door_imports_no_torch() -> None:
    code = "import sys, conspec.lens; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BadFile, match=name):
        Lens.load(bundle)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_link_out_of_the_bundle_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    (bundle / name).rename(outside)
    (bundle / name).symlink_to(outside)
    with pytest.raises(BadFile, match="leads out of"):
        Lens.load(bundle)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/b", "..", ".hidden", "a\0b", "", "a" * 999]
)
@pytest.mark.parametrize("check", [True, False])
def test_a_name_that_leaves_the_bundle_is_refused(bundle: Path, name: str, check: bool) -> None:
    edit_manifest(bundle, lambda m: m["files"].update({name: "0" * 64}))
    with pytest.raises(BadFile, match="not the plain name"):
        Lens.load(bundle, check=check)


def edit_manifest(root: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = root / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


MANIFEST_EDITS: tuple[tuple[Callable[[dict[str, Any]], object], str], ...] = (
    (lambda m: m.update(format="zip"), "format is 'zip'"),
    (lambda m: m.update(version=2), "version 2 is unknown"),
    (lambda m: m.pop("version"), "version None is unknown"),
    (lambda m: m.update(files=[]), "'files' must map"),
    (lambda m: m["files"].update({"head.onnx": "12"}), "64 hexadecimal"),
    (lambda m: m["files"].update({"head.onnx": "0" * 64}), "SHA-256 is"),
    (lambda m: m["files"].pop("quality.json"), "does not list quality.json"),
    (lambda m: m.update(classes=["a", "a", "b"]), "lists a name twice"),
    (lambda m: m.update(classes="abc"), "'classes' must be list"),
    (lambda m: m.update(classes=["a", 1, "b"]), "list of names"),
    (lambda m: m.update(dim=7), "z has shape"),
    (lambda m: m.update(dim=True), "'dim' must be int"),
    (lambda m: m.update(count=0), "at least 1"),
    (lambda m: m.update(count=21), "expected"),
    (lambda m: m.update(concepts=["a", "b", "c", "d"]), "manifest's concepts"),
    (lambda m: m.update(nonnegative=1), "'nonnegative' must be bool"),
)


@pytest.mark.parametrize(("edit", "message"), MANIFEST_EDITS)
def test_a_manifest_that_says_something_else_is_refused(
    bundle: Path, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_manifest(bundle, edit)
    with pytest.raises(BadFile, match=message):
        Lens.load(bundle)


ARRAY_EDITS: tuple[tuple[str, str, Callable[[Any], Any], str], ...] = (
    ("embeddings", "z", lambda a: a * np.float32(np.nan), "z holds NaN"),
    ("embeddings", "z", lambda a: -a, "negative entries"),
    ("embeddings", "z", lambda a: a.astype(np.float64), "dtype F64"),
    ("embeddings", "z", lambda a: a.astype(np.float16), "dtype F16"),
    ("embeddings", "z", lambda a: a[1:], "shape"),
    ("embeddings", "z", lambda a: a[..., None], "shape"),
    ("embeddings", "label", lambda a: a + 9, "label runs"),
    ("embeddings", "predicted", lambda a: a - 9, "predicted runs"),
    ("embeddings", "attributes", lambda a: a + 5, "attributes runs"),
    ("embeddings", "extra", lambda a: np.zeros(1), "unknown array 'extra'"),
    ("embeddings", "vlm", lambda a: None, "'vlm' is missing"),
    ("statistics", "std", lambda a: -a - 1, "std runs"),
    ("statistics", "min", lambda a: a + 99, "min is above max"),
    ("statistics", "mean", lambda a: a + np.inf, "mean holds NaN or infinity"),
    ("thumbnails", "offsets", lambda a: a[::-1], "offsets do not rise"),
    ("thumbnails", "offsets", lambda a: a + 1, "offsets do not rise"),
)


@pytest.mark.parametrize(("file", "name", "edit", "message"), ARRAY_EDITS)
def test_wrong_arrays_are_refused_even_when_sealed(
    bundle: Path, file: str, name: str, edit: Callable[[Any], Any], message: str
) -> None:
    path = bundle / f"{file}.safetensors"
    arrays = load_file(path)
    changed = edit(arrays.pop(name, None))
    if changed is not None:
        arrays[name] = np.ascontiguousarray(changed)
    save_file(arrays, path)
    reseal(bundle)
    with pytest.raises(BadFile, match=message):
        Lens.load(bundle)


@pytest.mark.parametrize("threshold", ["1/3", "NaN", "1.5", 0.1, "", "1e-1", " 0.1", "٠.١"])
def test_a_threshold_is_a_decimal_cosine(bundle: Path, threshold: object) -> None:
    path = bundle / "vocabulary.json"
    vocabulary = json.loads(path.read_text())
    vocabulary["concepts"]["fur"]["threshold"] = threshold
    path.write_text(json.dumps(vocabulary))
    reseal(bundle)
    with pytest.raises(BadFile, match="concept 'fur'"):
        Lens.load(bundle)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 9999, "9" * 9999, "\xff"]
)
def test_bad_json_is_refused(bundle: Path, text: str) -> None:
    for name in ("manifest.json", "vocabulary.json", "images.json", "quality.json"):
        (bundle / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(BadFile, match=r"manifest\.json"):
        Lens.load(bundle)


def test_a_damaged_onnx_file_is_refused_on_use(bundle: Path) -> None:
    lens = Lens.load(bundle, check=False)
    (bundle / "head.onnx").write_bytes(b"\x08\x08garbage")
    with pytest.raises(BadFile, match=r"head\.onnx"):
        lens.replay(lens.embeddings.z)


def test_swapped_onnx_files_are_refused_on_use(bundle: Path) -> None:
    shutil.copy(bundle / "concept_map.onnx", bundle / "head.onnx")
    reseal(bundle)
    lens = Lens.load(bundle)
    with pytest.raises(BadFile, match=r"expected float32 \[N, 3\]"):
        lens.replay(lens.embeddings.z)


def test_weights_outside_the_onnx_file_are_refused(bundle: Path) -> None:
    import onnx

    path = bundle / "head.onnx"
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(BadFile, match="lies outside the file"):
        Lens.load(bundle, check=False).replay(np.zeros((1, SIZE), np.float32))


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_damage_is_never_accepted(pristine: Path, data: st.DataObject) -> None:
    """One changed byte, or a cut: refused, or (in the manifest) another hash."""
    name = data.draw(st.sampled_from(FILES))
    original = (pristine / name).read_bytes()
    place = data.draw(st.integers(0, len(original) - 1))
    flip = data.draw(st.integers(0, 255))
    changed = original[:place]
    if flip:
        changed += bytes([original[place] ^ flip]) + original[place + 1 :]
    before = Lens.load(pristine).hash
    (pristine / name).write_bytes(changed)
    try:
        after = Lens.load(pristine)
    except BadFile:
        return
    else:
        assert name == "manifest.json"
        assert after.hash != before
    finally:
        (pristine / name).write_bytes(original)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_damage_without_the_hash_check_is_only_ever_a_bad_file(
    pristine: Path, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(FILES))
    original = (pristine / name).read_bytes()
    place = data.draw(st.integers(0, min(len(original) - 1, 600)))
    junk = data.draw(st.binary(min_size=0, max_size=8))
    (pristine / name).write_bytes(original[:place] + junk + original[place + len(junk) :])
    try:
        lens = Lens.load(pristine, check=False)
        lens._read_everything()
        lens.replay(lens.embeddings.z)
        lens.mapped(lens.embeddings.z)
        lens.thumbnail(0)
    except (BadFile, BadUsage):
        return
    finally:
        (pristine / name).write_bytes(original)
