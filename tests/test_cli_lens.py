"""``conspec lens``: show, and the settings that build makes of its options."""

import json
from pathlib import Path
from typing import Any

import pytest

from conspec.cli.main import main
from conspec.lens import Lens, build
from conspec.lens.config import LensConfig
from tests.bundles import write_tiny


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("lens") / "tiny").root


def test_show(lens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lens", "show", str(lens)]) == 0
    out = capsys.readouterr().out
    for text in ("tiny", "sea lion", "floppy ears", "0.5000", "R²", "100 %", "90 (30 held out)"):
        assert text in out


def test_show_json(lens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lens", "show", str(lens), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["hash"] == Lens.load(lens).hash
    assert found["classes"][0] == {
        "name": "truck",
        "train": 20,
        "train_correct": 20,
        "heldout": 10,
        "heldout_correct": 10,
    }
    assert found["concepts"][0] == {"name": "wheels", "threshold": "0.5", "auc": 1.0}


def test_show_images(lens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lens", "show", str(lens), "--images"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "index\timage\tclass\tpredicted\tsplit"
    assert lines[1] == "0\ttruck/0000.png\ttruck\ttruck\theldout"
    assert lines[90] == "89\tsea lion/0089.png\tsea lion\tsea lion\ttrain"
    assert len(lines) == 91
    assert main(["lens", "show", str(lens), "--images", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found[7].values()) == [7, "truck/0007.png", "truck", "truck", "train"]


def test_show_refuses_what_is_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lens", "show", str(tmp_path)]) == 3
    assert "manifest.json: no such file" in capsys.readouterr().err


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[LensConfig]:
    """The configurations that a build was asked for; each gives the tiny bundle."""
    asked: list[LensConfig] = []

    def build_lens(config: LensConfig, out: Path, progress: Any, overwrite: bool) -> Lens:
        asked.append(config)
        progress("encoding", 1, 2)
        return write_tiny(out)

    monkeypatch.setattr(build, "build_lens", build_lens)
    return asked


def test_build_options(
    built: list[LensConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (
        "--images pictures --model net.py:make --weights w.safetensors --vlm ViT-B-32 "
        "--vlm-checkpoint openai --concepts wheels,wings --heldout 0.3 --seed 4 --ridge 0.1 "
        "--no-thumbnails --normalize-before-mean --batch-size 8"
    )
    assert main(["lens", "build", str(tmp_path / "new"), *options.split()]) == 0
    assert built == [
        LensConfig(
            images="pictures",
            model="net.py:make",
            weights="w.safetensors",
            vlm="ViT-B-32",
            vlm_checkpoint="openai",
            concepts=("wheels", "wings"),
            heldout="0.3",
            seed=4,
            ridge=0.1,
            thumbnails=False,
            normalize_before_mean=True,
            batch_size=8,
            name="new",
        )
    ]
    captured = capsys.readouterr()
    assert "sea lion" in captured.out
    assert "conspec lens show" in captured.err


def test_build_options_come_before_the_file(built: list[LensConfig], tmp_path: Path) -> None:
    config = tmp_path / "lens.toml"
    config.write_text('images = "a"\nmodel = "b"\nvlm = "c"\nseed = 3\nname = "n"\n')
    options = ["--config", str(config), "--images", "d"]
    assert main(["lens", "build", str(tmp_path / "new"), *options]) == 0
    assert built == [LensConfig(images="d", model="b", vlm="c", seed=3, name="n")]


def test_build_options_and_the_file_complete_each_other(
    built: list[LensConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "lens.toml"
    config.write_text('model = "b"\nvlm = "c"\nconcepts = ["z"]\n')
    options = ["--config", str(config), "--concepts", "a,b"]
    assert main(["lens", "build", str(tmp_path / "new"), *options, "--images", "d"]) == 0
    assert built == [LensConfig(images="d", model="b", vlm="c", concepts=("a", "b"))]
    assert main(["lens", "build", str(tmp_path / "other"), *options]) == 3
    assert "lens.toml: setting 'images' is missing" in capsys.readouterr().err


def test_build_says_what_is_missing(
    built: list[LensConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lens", "build", str(tmp_path / "new"), "--images", "d"]) == 3
    assert "--model is missing" in capsys.readouterr().err
    assert built == []


def test_build_refuses_images_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--images", str(tmp_path / "none"), "--model", "timm:x", "--vlm", "y"]
    assert main(["lens", "build", str(tmp_path / "new"), *options]) == 3
    assert "none: no such folder" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
