"""``conspec heatmap`` and ``conspec specs from-heatmap``."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conspec.cli.inputs import SHIPPED
from conspec.cli.main import main
from conspec.lens import Lens
from conspec.report.semantic import Map, Ranking, Scale, Usual, map_figure, ranking_figure
from conspec.specs import parse
from tests.bundles import write_tiny

KINDS = ("ground-truth", "output", "correct", "wrong", "output-wrong", "confusion", "binarized")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny(tmp_path_factory.mktemp("lens") / "tiny").root)


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(["heatmap", "--lens", "emoji10", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["heatmap", *arguments]) == 3
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.count("\n") == 1
    return found.err


def test_the_table_says_what_goes_with_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["heatmap", "--lens", "emoji10"]) == 0
    shown = capsys.readouterr().out
    assert "fur > wings: 94 → 27 %, +0.67 [+0.40, +0.83]" in shown
    assert "No map for boat: no image is misclassified." in shown
    assert "wings 1.34" in shown
    assert "nan" not in shown


@pytest.mark.parametrize("kind", KINDS)
def test_summary_kinds_count_images(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    lens = Lens.load(SHIPPED["emoji10"])
    data = lens.embeddings
    found = document(capsys, "--kind", kind, "--split", "all", "--source", "vlm")
    right = data.label == data.predicted
    expected = {"correct": right.sum(), "wrong": (~right).sum(), "output-wrong": (~right).sum()}
    expected["confusion"] = (~right).sum()
    assert sum(entry["images"] for entry in found["maps"]) == expected.get(kind, lens.count)
    scores = data.vlm @ data.directions.T
    wings, fur = lens.concepts.index("wings"), lens.concepts.index("fur")
    above = scores[:, wings] > scores[:, fur]
    chosen = {"correct": right, "wrong": ~right, "output-wrong": ~right, "confusion": ~right}
    counted = sum(entry["counts"][wings][fur] for entry in found["maps"])
    assert counted == above[chosen.get(kind, np.ones_like(right))].sum()
    for entry in found["maps"]:
        share = np.array(entry["counts"]) / entry["images"]
        assert (np.array(entry["lower"]) <= share + 1e-6).all()
        assert (np.array(entry["upper"]) >= share - 1e-6).all()
    assert sorted(found["order"]) == sorted(lens.concepts)


def test_the_order_of_concepts_is_the_same_for_all_that_is_compared(
    capsys: pytest.CaptureFixture[str],
) -> None:
    orders = [
        document(capsys, *more)["order"]
        for more in ((), ("--kind", "wrong"), ("--source", "vlm"), ("--class", "bird"))
    ]
    assert all(order == orders[0] for order in orders)


def test_pictures_have_that_order_in_rows_columns_and_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    drawn: list[Map] = []

    def keep(found: Map) -> bytes:
        drawn.append(found)
        return b""

    monkeypatch.setattr("conspec.cli.heatmap_views.map_figure", keep)
    arguments = ("--class", "mammal", "--out", str(tmp_path))
    found = document(capsys, *arguments)
    places = [found["concepts"].index(name) for name in found["order"]]
    delta = np.array(found["maps"][0]["delta"])
    assert list(drawn[0].names) == found["order"] != found["concepts"]
    assert np.allclose(drawn[0].values, delta[places][:, places], atol=1e-6)


def test_a_class_is_tested_beside_all_others(capsys: pytest.CaptureFixture[str]) -> None:
    """Looking at one class only does not make its cells more significant."""
    everything = document(capsys)
    (own,) = document(capsys, "--class", "mammal")["maps"]
    assert own == next(entry for entry in everything["maps"] if entry["class"] == "mammal")
    assert everything["missing"] == [{"class": "boat", "reason": "no image is misclassified"}]
    assert sum(map(sum, own["significant"])) == 8
    assert next(iter(own["responsible"])) == "wings"
    lenient = document(capsys, "--class", "mammal", "--correction", "bh")["maps"][0]
    assert sum(map(sum, lenient["significant"])) > 8


def test_a_dead_band_opens_cells(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--kind", "binarized", "--class", "mammal")
    plain = np.array(document(capsys, *arguments)["maps"][0]["cells"])
    banded = np.array(document(capsys, *arguments, "--band", "0.1")["maps"][0]["cells"])
    assert set(np.unique(plain)) == {0, 1}
    assert (banded == -1).any()
    assert np.array_equal(banded[banded >= 0], plain[banded >= 0])


def test_one_image(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = document(capsys, "--kind", "single", "--image", "822")
    assert (found["id"], found["class"], found["predicted"]) == (
        "orangutan (twemoji)", "mammal", "bird",
    )  # fmt: skip
    assert sorted(found["below"].values()) == list(range(20))
    assert max(found["cosine"], key=found["cosine"].get) == "mammal"
    arguments = ["--kind", "single", "--image", "822", "--out", str(tmp_path)]
    assert main(["heatmap", "--lens", "emoji10", *arguments]) == 0
    assert "usual in bird" in capsys.readouterr().out
    with Image.open(tmp_path / "single-822.png") as picture:
        assert picture.size[0] == 1440


def test_pictures_are_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    names = ["--class", "marine animal", "--class", "boat"]
    assert main(["heatmap", "--lens", "emoji10", *names, "--out", str(tmp_path)]) == 0
    assert "wrote 1 picture" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["differential-marine-animal.png"]
    with Image.open(tmp_path / "differential-marine-animal.png") as picture:
        picture.load()


def test_a_bundle_without_errors_has_no_differential_map(
    capsys: pytest.CaptureFixture[str], tiny: str
) -> None:
    assert main(["heatmap", "--lens", tiny]) == 0
    assert capsys.readouterr().out.count("no image is misclassified") == 3
    assert "no such images" in refused(capsys, "--lens", tiny, "--kind", "wrong")
    assert "no such images" in refused(capsys, "--lens", tiny, "--kind", "confusion")


def test_what_does_not_fit_is_refused(capsys: pytest.CaptureFixture[str], tiny: str) -> None:
    here = ("--lens", tiny)
    assert "--image IMAGE" in refused(capsys, *here, "--kind", "single")
    assert "0 to 89" in refused(capsys, *here, "--kind", "single", "--image", "90")
    assert "only --kind single" in refused(capsys, *here, "--image", "1")
    assert "only --kind binarized" in refused(capsys, *here, "--band", "0.1")
    assert "did you mean 'bird'" in refused(capsys, *here, "--class", "birt")
    assert "between 0 and 1" in refused(capsys, *here, "--confidence", "1")
    assert "--band x" in refused(capsys, *here, "--kind", "binarized", "--band", "x")
    assert "dead band" in refused(capsys, *here, "--kind", "binarized", "--band", "0.7")


def test_specs_from_a_heatmap_parse_and_are_decided(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "mined.conspec"
    command = ["specs", "from-heatmap", "--lens", "emoji10"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert main([*command, "-o", str(path), "--most", "2", "--gamma", "0.1"]) == 0
    capsys.readouterr()
    lens = Lens.load(SHIPPED["emoji10"])
    suite = parse(text, classes=lens.classes, concepts=lens.concepts)
    assert [spec.name for spec in suite.specs][:2] == [
        "mammal_fur_over_wings", "mammal_ears_over_wings",
    ]  # fmt: skip
    assert "# fur > wings in 46 of 49 correct images of mammal and 4 of 15" in text
    assert main(["verify", str(path), "--lens", "emoji10", "--json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    assert len(found["results"]) == 2
    assert found["summary"]["unknown"] == 0


def test_no_significant_cell_means_no_suite(capsys: pytest.CaptureFixture[str], tiny: str) -> None:
    assert main(["specs", "from-heatmap", "--lens", tiny]) == 3
    assert "no cell is significant" in capsys.readouterr().err
    assert main(["specs", "from-heatmap", "--lens", tiny, "--confidence", "0"]) == 3
    assert "between 0 and 1" in capsys.readouterr().err


def picture_of(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def grid(names: list[str], scale: Scale, value: float) -> Map:
    size = len(names)
    values = np.full((size, size), value)
    values[0, size - 1] = np.nan
    return Map("t", ("l",), names, values, np.ones((size, size), dtype=bool), scale)


@pytest.mark.parametrize("size", [2, 20, 60])
def test_maps_of_any_size_have_the_colour_of_their_values(size: int) -> None:
    names = [f"a rather long name of concept number {i}" for i in range(size)]
    blue, red = (picture_of(map_figure(grid(names, Scale.DIFFERENCE, v))) for v in (0.6, -0.6))
    assert (blue[:, :, 2] > blue[:, :, 0] + 60).mean() > 2 * (
        red[:, :, 2] > red[:, :, 0] + 60
    ).mean()
    assert (red[:, :, 0] > red[:, :, 2] + 60).mean() > 2 * (
        blue[:, :, 0] > blue[:, :, 2] + 60
    ).mean()


def test_strange_names_are_drawn() -> None:
    names = ["$x$", "<b>", "名前", "\x1b[31m"]
    picture_of(map_figure(grid(names, Scale.ORDER, 1.0)))
    found = Ranking("\x1b[0m", ["fact"], None, names, [1.0, 0.5, 0.2, 0.0],
                    [Usual("c", 1, [0.1, 0.2, 0.3, 0.4])])  # fmt: skip
    assert ranking_figure(found).size[0] == 1440
