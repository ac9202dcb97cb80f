"""``conspec rules ground`` and ``conspec rules perturb``."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conspec.cli.main import main
from tests.bundles import write_tiny

GOAT = "1000"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["rules", *arguments]) == 3
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.count("\n") == 1
    return found.err


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(["rules", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_one_image_gets_a_row_and_a_strip(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rules", "ground", "--lens", "emoji10", GOAT, "--out", str(tmp_path)]) == 0
    found = capsys.readouterr()
    assert "goat (fxemoji)" in found.out
    assert "z(48) ≥ 2.31" in found.out
    assert "Guided against random" not in found.out  # one image is no sample
    assert found.err == f"{tmp_path}: wrote 1 picture\n"
    (file,) = tmp_path.iterdir()
    assert file.name == "goat-fxemoji-z48.png"
    with Image.open(file) as strip:
        assert strip.width > 4 * strip.height
        assert len(np.unique(np.asarray(strip.convert("RGB")).reshape(-1, 3), axis=0)) > 100
    assert file.stat().st_size < 100_000


def test_json_has_every_attempt(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "ground", "--lens", "emoji10", "goat (fx")
    assert found["blur_pixels"] == pytest.approx(32 * 20 / 224)
    (one,) = found["groundings"]
    assert one["image"] == "goat (fxemoji)"
    assert one["label"] == "mammal"
    accepted = one["guided"][one["guided_accepted"]]
    assert accepted["margin"] < 0 <= one["margin"]
    assert all(a["margin"] >= 0 for a in one["guided"][: one["guided_accepted"]])
    assert len(one["random"]) == len(one["guided"])
    assert one["least"]["area"] <= accepted["area"]
    assert set(one["fills"]) == {"blur", "mean", "noise", "inpaint"}
    assert found["summary"]["tests"]["guided"]["total"] == 1
    assert found == document(capsys, "ground", "--lens", "emoji10", "goat (fx")


def test_drawn_images_are_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "ground", "--lens", "emoji10", "--count", "3", "--fill", "mean"]) == 0
    shown = capsys.readouterr().out
    for text in ("Guided against random", "McNemar", "sufficient:", "None of this is a proof"):
        assert text in shown
    held = document(capsys, "ground", "--lens", "emoji10", "--count", "3")
    assert {g["image"].split("(")[1] for g in held["groundings"]} == {"twemoji)"}


def test_a_picture_file_and_rules_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from conspec.lens.emoji10 import thumbnails

    file = tmp_path / "mine.png"
    thumbnails([1000])[0].save(file)
    (alone,) = document(capsys, "ground", "--lens", "emoji10", str(file))["groundings"]
    (stored,) = document(capsys, "ground", "--lens", "emoji10", GOAT)["groundings"]
    assert alone["image"] == str(file)
    assert alone["margin"] == stored["margin"]  # the same pixels, other controls
    assert main(["rules", "extract", "--lens", "emoji10", "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    rules = str(tmp_path / "rules.json")
    found = document(capsys, "ground", "--lens", "emoji10", GOAT, "--rules", rules)["groundings"]
    assert {g["predicate"]["threshold"] for g in found} != {stored["predicate"]["threshold"]}


def test_perturbations_are_counted_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["perturb", "--lens", "emoji10", "--count", "4", "--out", str(tmp_path)]
    found = document(capsys, *arguments)
    assert [each["family"] for each in found["studies"]] == [
        "emoji10",
        "image tower of the VLM, ridge head",
    ]
    assert {row["kind"] for row in found["studies"][0]["rows"]} == {
        *("brightness", "contrast", "blur", "noise", "hue", "occlusion")
    }
    assert json.loads((tmp_path / "perturbations.json").read_text(encoding="utf-8")) == found
    with Image.open(tmp_path / "perturbations.png") as figure:
        assert figure.format == "PNG"
    assert found["studies"][0]["pictures"] == 4


def test_what_is_missing_or_wrong_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lens = ("--lens", "emoji10")
    assert "5000" in refused(capsys, "ground", *lens, "5000")
    assert "no image is called 'nope.png'" in refused(capsys, "ground", *lens, "nope.png")
    assert "--count 0" in refused(capsys, "ground", *lens, "--count", "0")
    assert "no such module" in refused(capsys, "ground", *lens, "--layer", "x", GOAT)
    tiny = write_tiny(tmp_path / "tiny")
    said = refused(capsys, "ground", "--lens", str(tiny.root))
    assert "--model is missing" in said
    assert "drawings" in said
    folder = tmp_path / "images" / "truck"
    folder.mkdir(parents=True)
    Image.new("RGB", (32, 32), "red").save(folder / "other.png")
    given = ("--lens", str(tiny.root), "--images", str(folder.parent), "--model", "cifar:resnet20")
    assert "cifar:resnet20" in refused(capsys, "ground", *given)
    code = "from torch import nn\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), "
    code += "nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))\n"
    (tmp_path / "model.py").write_text(code, encoding="utf-8")
    config = tmp_path / "settings.toml"
    config.write_text(
        f'images = "{folder.parent}"\nmodel = "{tmp_path / "model.py"}:make"\nvlm = "any"\n'
        "[preprocess]\nresize = 32\ncrop = 32\n",
        encoding="utf-8",
    )
    said = refused(capsys, "ground", "--lens", str(tiny.root), "--config", str(config))
    assert "was built from other images" in said
    for label, name in enumerate(tiny.image_ids):
        file = tmp_path / "all" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (label, 0, 0)).save(file)
    given = ("--lens", str(tiny.root), "--config", str(config), "--images", str(tmp_path / "all"))
    assert "was built with another model" in refused(capsys, "ground", *given)


def test_the_page_says_what_was_measured(tmp_path: Path) -> None:
    from conspec.benchmarks.grounding import rewrite

    docs = Path(__file__).parent.parent / "docs"
    text = (docs / "grounding.md").read_text(encoding="utf-8")
    page = tmp_path / "grounding.md"
    page.write_text(text.replace("97 %", "98 %"), encoding="utf-8")
    rewrite(page, docs / "grounding")
    assert page.read_text(encoding="utf-8") == text
