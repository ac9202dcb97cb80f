"""A whole lens from pictures, a small classifier and a small open_clip model of random weights."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from conspec.lens import Lens, build_emoji_lens, build_lens, emoji10
from conspec.lens.config import LensConfig, config_from, load_config, parse_names
from conspec.lens.extract import SHARD
from conspec.lens.job import emoji_job, open_both, open_job, stratified
from conspec.lens.progress import bar
from conspec.lens.vlm import OpenClip, VisionLanguageModel, load_vlm, open_clip_model
from conspec.specs.errors import BadFile, BadUsage

TINY_CLIP = {
    "embed_dim": 12,
    "vision_cfg": {
        "image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8,
    },
    "text_cfg": {
        "context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1,
    },
}  # fmt: skip
MODEL = """
import torch
from torch import nn
def make():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 7, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 2))
"""
COUNT = 24


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("build")
    random = np.random.default_rng(0)
    for label, offset in (("red", 120), ("dark", 0)):
        (root / "images" / label).mkdir(parents=True)
        for i in range(COUNT // 2):
            pixels = random.integers(0, 120, (12, 10, 3), dtype=np.uint8)
            pixels[..., 0] += offset
            Image.fromarray(pixels).save(root / "images" / label / f"{i:02}.png")
    (root / "model.py").write_text(MODEL)
    (root / "tinyclip.json").write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(root / "tinyclip.json")
    torch.manual_seed(0)
    save_file(open_clip.create_model("tinyclip").state_dict(), root / "clip.safetensors")
    rows = [f"{label}/{i:02}.png,{int(label == 'red')}" for label in ("red", "dark")
            for i in range(COUNT // 2)]  # fmt: skip
    (root / "shown.csv").write_text("image,redness\n" + "\n".join(rows))
    (root / "relevant.csv").write_text("class,redness\nred,1\ndark,0\n")
    return root


@pytest.fixture
def config(place: Path) -> LensConfig:
    return config_from(
        {
            "images": str(place / "images"),
            "model": f"{place / 'model.py'}:make",
            "preprocess": {"resize": 8, "crop": 8, "mean": [0.4, 0.4, 0.4]},
            "vlm": str(place / "tinyclip.json"),
            "vlm_checkpoint": str(place / "clip.safetensors"),
            "concepts": ["redness", "blue things"],
            "attributes": str(place / "shown.csv"),
            "heldout": 0.25,
            "batch_size": 5,
        },
        "test",
    )


def test_a_lens_from_end_to_end(config: LensConfig, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    lens = build_lens(config, tmp_path / "lens", lambda *step: told.append(step))
    assert lens.hash == Lens.load(tmp_path / "lens").hash
    assert [path.name for path in tmp_path.iterdir()] == ["lens"]
    assert told[-1] == ("aligning and writing", 1, 1)
    assert ("encoding images", 10, COUNT) in told
    e = lens.embeddings
    assert (e.z.shape, e.vlm.shape) == ((COUNT, 7), (COUNT, 12))
    assert e.heldout.sum() == 6
    assert e.attributes is not None
    np.testing.assert_array_equal(e.attributes[:, 0], e.label == lens.class_index("red"))
    assert (e.attributes[:, 1] == -1).all()
    assert lens.nonnegative
    logits, concepts = lens.replay(e.z)
    np.testing.assert_array_equal(logits.argmax(axis=1), e.predicted)
    expected = lens.mapped(e.z) @ e.directions.T
    np.testing.assert_allclose(concepts, expected, rtol=1e-4, atol=1e-5)
    assert lens.threshold("blue things") is None
    assert len(lens.vocabulary["concepts"]["redness"]["captions"]) == 69
    assert lens.thumbnail(0).size == (10, 12)
    assert set(lens.manifest.quality) >= {"heldout_r2", "train_mse", "vlm_accuracy"}
    assert lens.image_ids[0] == "dark/00.png"


def test_building_twice_gives_the_same_bundle(config: LensConfig, tmp_path: Path) -> None:
    first, second = (build_lens(config, tmp_path / name) for name in "ab")
    assert first.hash == second.hash
    with pytest.raises(BadUsage, match=r"exists already; .* --overwrite"):
        build_lens(config, tmp_path / "a")


def test_an_interrupted_build_goes_on_where_it_stopped(
    config: LensConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conspec.lens.extract.SHARD", 8)
    whole = build_lens(config, tmp_path / "whole")

    def interrupt(what: str, done: int, total: int) -> None:
        if done >= 15:  # in the second shard, before it is written
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_lens(config, tmp_path / "lens", interrupt)
    left = tmp_path / "lens.partial"
    assert not (tmp_path / "lens").exists()
    assert [p.name for p in left.glob("shard-*")] == ["shard-000000.safetensors"]
    told: list[int] = []
    (left / "mine.txt").touch()
    lens = build_lens(config, tmp_path / "lens", lambda _what, done, _total: told.append(done))
    assert told[:2] == [8, 13]  # the first shard at once, then batches of the second
    assert lens.hash == whole.hash
    assert [p.name for p in left.iterdir()] == ["mine.txt"]


def test_what_another_build_left_is_not_used(
    config: LensConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conspec.lens.extract.SHARD", 8)

    def interrupt(what: str, done: int, total: int) -> None:
        if done == COUNT:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_lens(config, tmp_path / "lens", interrupt)
    assert config.preprocess is not None
    other = replace(config, preprocess=replace(config.preprocess, mean=(0.0, 0.0, 0.0)))
    fresh = build_lens(other, tmp_path / "fresh")
    assert build_lens(other, tmp_path / "lens").hash == fresh.hash
    assert config.batch_size <= SHARD


def test_a_second_source_is_held_out(config: LensConfig, place: Path) -> None:
    both, heldout = open_both(replace(config, heldout=str(place / "images")))
    assert len(both.pictures) == 2 * COUNT
    np.testing.assert_array_equal(heldout, np.arange(2 * COUNT) >= COUNT)
    _, none = open_both(replace(config, heldout="0"))
    assert not none.any()
    for share in ("1", "-0.1", "nan"):
        with pytest.raises(BadUsage, match="heldout"):
            open_both(replace(config, heldout=share))


@given(
    st.lists(st.sampled_from(["a", "b", "c", "rare", None]), min_size=1, max_size=80),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 5),
)
def test_the_held_out_share_is_that_of_each_class(
    labels: list[str | None], share: float, seed: int
) -> None:
    chosen = stratified(labels, share, seed)
    np.testing.assert_array_equal(chosen, stratified(labels, share, seed))
    full = False
    for label in set(labels):
        own = np.array([other == label for other in labels])
        count, wanted = int((chosen & own).sum()), share * int(own.sum())
        assert count <= own.sum() - 1
        full |= count == own.sum() - 1
        assert count < wanted + 1
        assert count > wanted - 1 or count == own.sum() - 1
    assert full or abs(chosen.sum() - share * len(labels)) <= 0.5


def test_the_held_out_share_depends_on_the_seed(config: LensConfig) -> None:
    choices = {open_both(replace(config, seed=seed))[1].tobytes() for seed in range(5)}
    assert len(choices) == 5
    _, heldout = open_both(config)
    assert heldout.reshape(2, -1).sum(axis=1).tolist() == [3, 3]


def test_relevance_calibrates_without_attributes(
    config: LensConfig, place: Path, tmp_path: Path
) -> None:
    other = replace(config, attributes=str(place / "relevant.csv"), concepts=())
    lens = build_lens(other, tmp_path / "lens")
    assert lens.concepts == ("redness",)
    assert lens.embeddings.attributes is None
    assert "relevant" in lens.vocabulary["concepts"]["redness"]["calibrated"]


def test_what_does_not_fit_is_refused_before_anything_is_encoded(
    config: LensConfig, place: Path
) -> None:
    with pytest.raises(BadFile, match="class 'red' is not one of dark, green"):
        open_job(replace(config, classes=("dark", "green")))
    with pytest.raises(BadFile, match="2 logits for 3 classes"):
        open_job(replace(config, classes=("dark", "green", "red")))
    with pytest.raises(BadUsage, match="name the concepts"):
        open_job(replace(config, attributes=None, concepts=()))


def test_a_damaged_picture_stops_the_build(config: LensConfig, place: Path, tmp_path: Path) -> None:
    table = place / "damaged.csv"
    (place / "broken.png").write_bytes(b"no picture")
    table.write_text("path,label\nimages/red/00.png,red\nimages/dark/00.png,dark\nbroken.png,\n")
    broken = replace(config, images=str(table), attributes=None, heldout="0")
    with pytest.raises(BadFile, match=r"broken\.png"):
        build_lens(broken, tmp_path / "lens")
    assert not (tmp_path / "lens").exists()


def test_an_embedding_that_is_no_number_is_refused(
    config: LensConfig, place: Path, tmp_path: Path
) -> None:
    code = MODEL.replace("nn.ReLU()", "nn.Threshold(9e9, float('nan'))")
    (place / "nan.py").write_text(code)
    with pytest.raises(BadFile, match="NaN or infinity for random pictures"):
        build_lens(replace(config, model=f"{place / 'nan.py'}:make"), tmp_path / "lens")
    # Division by the spread goes wrong only for a picture of one colour.
    code = MODEL.replace("nn.ReLU()", "Spread()") + SPREAD
    (place / "spread.py").write_text(code)
    Image.new("RGB", (9, 9)).save(place / "images" / "red" / "black.png")
    try:
        with pytest.raises(BadFile, match=r"the model gives NaN .* red/black\.png"):
            build_lens(replace(config, model=f"{place / 'spread.py'}:make"), tmp_path / "lens")
    finally:
        (place / "images" / "red" / "black.png").unlink()


SPREAD = """
class Spread(nn.Module):
    def forward(self, x):
        return x / (x - x[:, :, :1, :1]).abs().amax(dim=(1, 2, 3), keepdim=True)
"""


def test_open_clip_and_plug_ins(place: Path, tmp_path: Path) -> None:
    config, weights = str(place / "tinyclip.json"), str(place / "clip.safetensors")
    vlm = load_vlm(config, weights)
    assert isinstance(vlm, OpenClip)
    assert isinstance(vlm, VisionLanguageModel)
    pictures = [Image.new("RGB", (20, 30), "red")] * 2
    assert vlm.encode_image(pictures).shape == (2, 12)
    assert vlm.encode_text(["a", "b", "c"]).shape == (3, 12)
    code = tmp_path / "plug.py"
    code.write_text(
        "class Mine:\n"
        "    def encode_image(self, pictures): ...\n"
        "    def encode_text(self, texts): ...\n"
        "one, none = Mine(), 3\n"
    )
    for name in ("Mine", "one"):
        assert isinstance(load_vlm(f"{code}:{name}", None), VisionLanguageModel)
    with pytest.raises(BadUsage, match="no encode_image"):
        load_vlm(f"{code}:none", None)


def test_a_wrong_vlm_is_refused(place: Path, tmp_path: Path) -> None:
    config = str(place / "tinyclip.json")
    with pytest.raises(BadUsage, match="open_clip has no model"):
        open_clip_model("ViT-Z-99", "openai")
    with pytest.raises(
        BadUsage, match=r"ViT-B-32: give its weights with --vlm-checkpoint: .*openai"
    ):
        load_vlm("ViT-B-32", None)
    with pytest.raises(
        BadUsage, match=r"tinyclip\.json: give .*--vlm-checkpoint: a .safetensors file$"
    ):
        load_vlm(config, None)
    with pytest.raises(BadUsage, match="hf-hub:a/b: comes with its weights; leave out --vlm-ch"):
        load_vlm("hf-hub:a/b", "openai")
    with pytest.raises(BadUsage, match=r"ViT-B-32 has no weights 'opnai'; give .* tag: openai"):
        open_clip_model("ViT-B-32", "opnai")
    with pytest.raises(BadFile, match="run code when"):
        open_clip_model(config, "weights.pt")
    save_file(nn.Linear(2, 2).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(BadFile, match="cannot load tinyclip"):
        open_clip_model(config, str(tmp_path / "other.safetensors"))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((place / "clip.safetensors").read_bytes()[:5000])
    with pytest.raises(BadFile, match="cannot load tinyclip"):
        open_clip_model(config, str(cut))
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(BadFile, match="not a model configuration"):
        open_clip_model(str(tmp_path / "bad.json"), "x.safetensors")


@pytest.mark.parametrize(
    ("spec", "tag", "message"),
    [
        ("ViT-B-32", "openai", "cannot fetch ViT-B-32 openai .no network.*with --vlm-checkpoint"),
        ("hf-hub:a/b", None, "cannot fetch hf-hub:a/b .no network.*--vlm-checkpoint.*--vlm "),
    ],
)
def test_a_vlm_that_cannot_be_fetched(
    spec: str, tag: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise FileNotFoundError("Failed to\ndownload")

    monkeypatch.setattr("open_clip.factory.download_pretrained", fail)
    monkeypatch.setattr("open_clip.factory.download_pretrained_from_hf", fail)
    with pytest.raises(BadFile, match=message) as caught:
        load_vlm(spec, tag)
    assert "\n" not in str(caught.value)


def test_a_hub_that_has_no_weights_gives_no_random_vlm(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """open_clip itself only logs that the weights failed, and goes on with random ones."""
    (place / "hub.json").write_text(json.dumps({"model_cfg": TINY_CLIP, "preprocess_cfg": {}}))

    def fetch(_model: str, filename: str | None = None, **_: object) -> str:
        if filename is None:
            raise FileNotFoundError("no weights")
        return str(place / "hub.json")

    monkeypatch.setattr("open_clip.factory.download_pretrained_from_hf", fetch)
    with pytest.raises(BadFile, match="cannot fetch hf-hub:a/b"):
        load_vlm("hf-hub:a/b", None)


def test_a_tokenizer_that_cannot_be_fetched(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_name: str) -> None:
        raise OSError("offline")

    monkeypatch.setattr("open_clip.get_tokenizer", fail)
    with pytest.raises(BadFile, match=r"cannot fetch the tokenizer of .*tinyclip\.json"):
        load_vlm(str(place / "tinyclip.json"), str(place / "clip.safetensors"))


def test_configurations_in_json_and_toml_are_the_same(tmp_path: Path) -> None:
    settings = {"images": "i", "model": "m", "vlm": "v", "concepts": ["a"], "ridge": 1}
    (tmp_path / "c.json").write_text(json.dumps(settings))
    lines = ['images = "i"', 'model = "m"', 'vlm = "v"', 'concepts = ["a"]', "ridge = 1"]
    (tmp_path / "c.toml").write_text("\n".join(lines))
    found = load_config(tmp_path / "c.json")
    assert found == load_config(tmp_path / "c.toml")
    assert found == LensConfig(images="i", model="m", vlm="v", concepts=("a",), ridge=1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modle": "x"}, "unknown setting 'modle'; did you mean 'model'"),
        ({"model": None}, "'model' must be"),
        ({"seed": True}, "'seed' must be"),
        ({"seed": 1.5}, "'seed' must be"),
        ({"concepts": "a,b"}, "list of names"),
        ({"preprocess": 3}, "'preprocess' must be"),
        ({"preprocess": {"resize": "8", "crop": 8}}, "numbers of pixels"),
        ({"preprocess": {"resize": 8, "crop": 8, "mean": ["a"]}}, "three numbers"),
        ({"preprocess": {"resize": 8, "crop": 8, "size": 8}}, "unknown setting 'size'"),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(BadFile, match=message):
        config_from({"images": "i", "model": "m", "vlm": "v"} | change, "here")


def test_unreadable_configurations_are_refused(tmp_path: Path) -> None:
    for name, text in (("a.json", "{"), ("b.toml", "="), ("c.json", "[]"), ("d.json", "{}")):
        (tmp_path / name).write_text(text)
        with pytest.raises(BadFile, match=name):
            load_config(tmp_path / name)
    with pytest.raises(BadFile, match=r"none\.json"):
        load_config(tmp_path / "none.json")
    with pytest.raises(BadUsage, match="named twice"):
        LensConfig(images="i", model="m", vlm="v", concepts=("a", "a"))
    with pytest.raises(BadUsage, match="batch_size"):
        LensConfig(images="i", model="m", vlm="v", batch_size=0)


def test_names_from_a_list_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("wheels  # round\n\n# nothing\nfloppy ears\n")
    assert parse_names(str(path)) == ("wheels", "floppy ears")
    assert parse_names("wheels, floppy ears,") == ("wheels", "floppy ears")
    assert parse_names("wheels") == ("wheels",)
    bare = tmp_path / "names,all"
    bare.write_text("wings\nfur\n")
    assert parse_names(str(bare)) == ("wings", "fur")
    assert len(parse_names("a," * 5000)) == 5000  # longer than any file's name may be
    with pytest.raises(BadFile, match="cannot be read"):
        parse_names("missing.txt")


def test_the_bar_follows_a_build(capsys: pytest.CaptureFixture[str]) -> None:
    with bar() as progress:
        progress("encoding images", 1, 4)
        progress("encoding images", 4, 4)
    assert "encoding images" in capsys.readouterr().out


def test_emoji_10_is_a_job_like_others() -> None:
    job = emoji_job()
    known = emoji10.load_images()
    some = np.flatnonzero(job.heldout)[::20]
    pictures = [job.images.pictures[i].load() for i in some]
    pixels = job.classifier.preprocess(pictures).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(pixels * np.float32(255), known.images[some])
    assert job.vlm.encode_image(pictures[:2]).shape == job.vlm.encode_text(["a", "b"]).shape
    with torch.no_grad():
        logits = job.classifier.head(job.classifier.embed(pictures))
    assert (logits.argmax(dim=1).numpy() == known.labels[some]).mean() > 0.5


@pytest.mark.slow
def test_the_lens_of_emoji_10(tmp_path: Path) -> None:
    lens = build_emoji_lens(tmp_path / "lens")
    assert lens.nonnegative
    assert lens.manifest.quality["model_accuracy"] > 0.7
    assert all(lens.threshold(concept) is not None for concept in lens.concepts)
