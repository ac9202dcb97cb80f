"""``conspec localize`` and ``conspec repair``: what is printed, written and refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conspec.cli.inputs import SHIPPED
from conspec.cli.main import main
from conspec.lens import Lens
from tests.bundles import write_tiny
from tests.commands import lines

SUITE = """
spec birds_here:
    forall x in box([2, 2.1, 0, 0], [2.5, 2.4, 1, 1]): predict(bird)
spec trucks_stay:
    forall x in focus(truck, gamma=0.5): predict(truck)
spec wings_everywhere:
    forall x in focus(truck, gamma=0.5): wings > wheels
spec lions_stay:
    forall x in focus("sea lion", gamma=0.5): predict("sea lion")
spec rare:
    probability >= 0.5 with confidence 0.9 for x in class(truck): wings > wheels
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "lens").root


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "suite.conspec"
    path.write_text(SUITE, encoding="utf-8")
    return path


def localized(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert main(["localize", "--lens", "emoji10", "--json", *options]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_table_of_causes_adds_up(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["localize", "--lens", "emoji10", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "Causes of misclassification" in shown
    found = json.loads((tmp_path / "out" / "faults.json").read_text(encoding="utf-8"))
    assert found == localized(capsys)
    *classes, together = found["classes"]
    assert together["wrong"] == len(found["images"]) == sum(row["wrong"] for row in classes) == 38
    for row in found["classes"]:
        assert sum(row["reasons"].values()) == row["wrong"]
    lens = Lens.load(SHIPPED["emoji10"])
    assert together["images"] == int(lens.embeddings.heldout.sum())
    for entry in found["images"]:
        assert lens.image_ids[entry["image"]] == entry["id"]
        assert entry["label"] != entry["predicted"]
    with Image.open(tmp_path / "out" / "causes.png") as picture:
        assert picture.width == 1440


def test_without_guards_nothing_is_undetermined(capsys: pytest.CaptureFixture[str]) -> None:
    for oracle in ("zero-shot", "heatmap"):
        found = localized(capsys, "--without-guards", "--oracle", oracle)
        assert {entry["verdict"] for entry in found["images"]} == {"encoder", "head"}
        for entry in found["images"]:
            kept = entry["oracles"][oracle] == entry["label"]
            assert entry["verdict"] == ("head" if kept else "encoder")


def test_one_image_names_its_concepts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["localize", "ram (twemoji)", "--lens", "emoji10", "--without-guards"]) == 0
    shown = capsys.readouterr().out
    assert "Fault: encoder." in shown
    assert "Concepts that set the embedding apart from correct 'mammal'" in shown
    entry = localized(capsys, "ram (twemoji)", "--without-guards")["images"][0]
    again = localized(capsys, str(entry["image"]), "--without-guards")["images"][0]
    assert entry == again
    assert len(entry["concepts"]) == 20
    assert entry["concepts"][0]["p_value"] <= 0.05
    assert entry["concepts"][0]["push"] is None


def test_a_head_fault_says_what_the_head_made_of_each_concept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = localized(capsys, "--without-guards")
    image = next(entry["image"] for entry in found["images"] if entry["verdict"] == "head")
    entry = localized(capsys, str(image), "--without-guards")["images"][0]
    assert all(isinstance(each["push"], float) for each in entry["concepts"])
    assert main(["localize", str(image), "--lens", "emoji10", "--without-guards"]) == 0
    assert "push, logits" in capsys.readouterr().out


def test_images_without_a_fault_say_so(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["localize", "0", "--lens", str(tiny)]) == 0
    assert "There is no fault to localize: it is classified correctly." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no image is misclassified"),
        (("99",), "no image 99: the bundle has 0 to 89"),
        (("no such",), "no image is called 'no such'"),
        (("truck",), "'truck' is in the names of 30 images: truck/0000.png (0)"),
        (("--level", "1"), "must lie between 0 and 1"),
        (("--level", "high"), "must be a number such as 0.95"),
    ],
)
def test_refusals(
    tiny: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert main(["localize", "--lens", str(tiny), *arguments]) == 3
    assert message in capsys.readouterr().err


# --- repair ----------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_a_repair_is_written_and_checks(
    tiny: Path, suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], norm: str
) -> None:
    out = tmp_path / "out"
    wanted = ["--spec", "birds_*", "--keep", "trucks_*", "--norm", norm, "--out", str(out)]
    assert main(["repair", str(suite), "--lens", str(tiny), *wanted]) == 0
    shown = capsys.readouterr().out
    assert "Repaired 1 and kept 1 specs." in shown
    assert "the smallest such change" in shown
    assert "Accuracy on 30 held-out images: 100.0 % before" in shown
    assert "Of 1 other proved specs of the suite, 0 are lost." in shown
    assert sorted(path.name for path in out.iterdir()) == ["lens", "repair.json", "results.jsonl"]
    found = lines(out / "results.jsonl")
    assert [line["verdict"] for line in found] == ["proved"] * 2
    assert [line["trust"] for line in found] == ["certified"] * 2
    check = ["check", str(out / "results.jsonl"), "--lens", str(out / "lens")]
    assert main(check) == 0
    assert "2 re-established, 0 refused" in capsys.readouterr().out
    about = json.loads((out / "repair.json").read_text(encoding="utf-8"))
    assert (about["repair"], about["keep"]) == (["birds_here"], ["trucks_stay"])
    assert about["smallest"] is True
    assert about["numbers"] == 15


def test_no_repair_says_why_and_writes_nothing(
    tiny: Path, suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    base = ["repair", str(suite), "--lens", str(tiny), "--out", str(out)]
    assert main([*base, "--spec", "wings_everywhere"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "No repair was found. spec wings_everywhere: Changing the head does not help" in shown
    assert main([*base, "--json"]) == 1  # all that are violated, wings_everywhere among them
    found = json.loads(capsys.readouterr().out)
    assert found["repaired"] is False
    assert found["repair"] == ["birds_here", "wings_everywhere"]
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--spec", "trucks_stay"], "trucks_stay: is not violated"),
        (["--spec", "birds_here", "--keep", "wings_*"], "wings_everywhere is not proved now"),
        (["--spec", "nothing"], "--spec nothing: no spec has such a name"),
        (["--keep", "nothing"], "--keep nothing: no spec has such a name"),
        (["--row", "boat"], "unknown class 'boat'"),
        (["--margin", "wide"], "must be a number such as 0.001"),
        (["--margin", "0"], "must be above 0"),
    ],
)
def test_repair_refuses(
    tiny: Path,
    suite: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    out = tmp_path / "out"
    arguments = ["repair", str(suite), "--lens", str(tiny), "--out", str(out), *options]
    assert main(arguments) == 3
    assert message in capsys.readouterr().err
    assert not out.exists()
    out.mkdir()
    assert main([*arguments[:6], "--spec", "birds_here"]) == 3
    assert "exists already" in capsys.readouterr().err
