"""``conspec lens validate``: counts, planted disagreements, files, refusals."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conspec.cli import validate as command
from conspec.cli.main import main
from conspec.lens import Lens
from conspec.lens.write import write_bundle
from tests import bundles
from tests.bundles import CLASSES, PER_CLASS, write_tiny


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle, but for trucks the VLM has wheels and wings the other way round."""
    contents = bundles._contents()
    # Many held-out images, so that the difference can be told from chance.
    heldout = np.arange(len(CLASSES) * PER_CLASS) % 5 > 0
    vlm = contents.embeddings.vlm.copy()
    vlm[:PER_CLASS, :2] = vlm[:PER_CLASS, 1::-1]
    embeddings = replace(contents.embeddings, vlm=vlm, heldout=heldout)
    folder = tmp_path_factory.mktemp("lens") / "planted"
    return write_bundle(folder, replace(contents, embeddings=embeddings)).root


def validate(bundle: Path | str, *options: str | Path) -> int:
    return main(["lens", "validate", str(bundle), *map(str, options)])


def document(capsys: pytest.CaptureFixture[str], *arguments: Any) -> Any:
    assert validate(*arguments) == 0
    return json.loads(capsys.readouterr().out)


def test_the_planted_difference_and_no_other_is_found(
    planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(capsys, planted, "--json")
    named = {(one["class"], one["stronger"], one["weaker"]) for one in found["disagreements"]}
    assert {("truck", "wheels", "wings"), ("truck", "wings", "wheels")} <= named
    assert {label for label, *_ in named} == {"truck"}
    assert all({"wheels", "wings"} & {a, b} for _, a, b in named)
    for one in found["disagreements"]:
        assert one["p_value"] <= 0.05
        assert (one["vlm"] - one["model"]) * 24 == pytest.approx(
            one["vlm_only"] - one["model_only"]
        )
    data = Lens.load(planted).embeddings
    for place, entry in enumerate(found["classes"]):
        own = data.heldout & (data.label == place)
        assert entry["n"] == own.sum() == 24
        for side, z in (("vlm", data.vlm[own]), ("model", data.z[own])):
            above = (z[:, :, None] > z[:, None, :]).sum(axis=0)
            assert entry[side]["count"] == above.tolist()
            share = above / entry["n"]
            assert (np.array(entry[side]["lower"]) <= share).all()
            assert (np.array(entry[side]["upper"]) >= share).all()


def test_the_table_says_where_they_differ(
    planted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert validate(planted) == 0
    out = capsys.readouterr().out
    (truck, *_) = [line.split() for line in out.splitlines() if line.startswith(" truck")]
    assert truck[:2] == ["truck", "24"]
    assert "0 of 12" in out  # birds and sea lions
    assert "wheels > wings" in out
    (row,) = [line for line in out.splitlines() if "wheels > wings" in line and "0 / 24" in line]
    # The VLM has it on none of the images, the model on all.
    assert row.index("0 % [0, 14]") < row.index("100 % [86, 100]")
    monkeypatch.setattr(command, "SHOWN", 1)
    assert validate(planted) == 0
    captured = capsys.readouterr()
    assert "more cells differ; --json or --out names all of them" in captured.err
    assert len(captured.out) < len(out)


def test_alpha_decides_what_is_significant(
    planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 24 images all one way: 2 / 2²⁴ = 1.2e-7, times at most 36 cells.
    assert document(capsys, planted, "--json", "--alpha", "1e-8")["disagreements"] == []
    assert len(document(capsys, planted, "--json", "--alpha", "1e-5")["disagreements"]) >= 2


def test_classes_are_chosen_and_the_correction_is_not(
    planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = document(capsys, planted, "--json")
    names = ("--class", "sea lion", "--class", "truck", "--class", "sea lion")
    part = document(capsys, planted, "--json", *names)
    assert part["classes"] == [whole["classes"][2], whole["classes"][0]]
    assert part["disagreements"] == whole["disagreements"]
    assert document(capsys, planted, "--json", "--class", "bird")["disagreements"] == []


def test_the_folder_holds_the_document_and_a_picture_of_each_class(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(capsys, planted, "--json", "--out", tmp_path / "new" / "out")
    written = tmp_path / "new" / "out"
    assert json.loads((written / "validation.json").read_text(encoding="utf-8")) == found
    pictures = sorted(path.name for path in written.glob("*.png"))
    assert pictures == [
        "validation-00-truck.png",
        "validation-01-bird.png",
        "validation-02-sea-lion.png",
    ]
    assert all((written / name).read_bytes().startswith(b"\x89PNG") for name in pictures)


def test_names_of_classes_cannot_leave_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tiny(tmp_path / "odd", ("../a b", "../a/b", "\N{SNOWMAN}")).root
    assert validate(root, "--out", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["odd", "out"]
    assert "\N{SNOWMAN}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--class", "brid"), "unknown class 'brid'; did you mean 'bird'?"),
        (("--alpha", "0"), "--alpha 0: must lie between 0 and 1"),
        (("--confidence", "1"), "a confidence must lie strictly between 0 and 1"),
    ],
)
def test_refusals(
    planted: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert validate(planted, *options) == 3
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert message in captured.err


def test_without_held_out_images_there_is_nothing_to_compare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = bundles._contents()
    none = replace(contents.embeddings, heldout=np.zeros(len(contents.embeddings.z), np.bool_))
    root = write_bundle(tmp_path / "none", replace(contents, embeddings=none)).root
    assert validate(root) == 3
    assert "no held-out image with a known class" in capsys.readouterr().err


def test_the_shipped_lens_has_a_row_for_each_class(capsys: pytest.CaptureFixture[str]) -> None:
    assert validate("emoji10", "--class", "boat", "--class", "mammal") == 0
    out = capsys.readouterr().out
    assert "fur > legs" in out
    assert "nan" not in out
