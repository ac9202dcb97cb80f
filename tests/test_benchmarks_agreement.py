"""The comparison of engines, on a tiny bundle; and that it would notice a disagreement."""

import json
from pathlib import Path

import pytest

from conspec.benchmarks import agreement, box_speed, tables
from conspec.benchmarks.agreement import Answer
from conspec.lens import Lens
from conspec.specs.errors import BadFile
from conspec.specs.formula import Suite
from tests.bundles import SUITE, VIOLATED, write_tiny

RUNS = ["auto", "box", "z3", "highs", "z3-alone", "highs-alone"]


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Lens:
    return write_tiny(tmp_path_factory.mktemp("lens") / "tiny")


@pytest.fixture
def relevance(tmp_path: Path) -> Path:
    path = tmp_path / "relevance.json"
    path.write_text(json.dumps({"truck": ["wheels"], "bird": ["wings"]}), encoding="utf-8")
    return path


def test_engines_agree_and_the_page_gets_its_tables(
    lens: Lens, relevance: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- table tiny -->\nold\n<!-- end tiny -->\nbelow\n", encoding="utf-8")
    given = ["--lens", str(lens.root), "--suite", str(relevance), "--gamma", "0.5", "8"]
    given += ["--name", "tiny", "--out", str(tmp_path), "--docs", str(page), "--sample", "z3=5"]
    assert agreement.main([*given, "--runs", *RUNS]) == 0
    found = json.loads((tmp_path / "tiny.json").read_text(encoding="utf-8"))
    assert found["disagreements"] == []
    assert [run["run"] for run in found["runs"]] == RUNS
    assert found["specs"] == 12
    by_run = {run["run"]: run for run in found["runs"]}
    assert by_run["z3"]["asked"] == 5
    assert by_run["z3"]["verdicts"].count(agreement.NOT_ASKED) == 7
    verdicts = by_run["auto"]["verdicts"]
    assert set(verdicts) == {"P", "V"}
    assert by_run["auto"]["checked"] == {
        "counterexample": verdicts.count("V"),
        "proof": verdicts.count("P"),
    }
    assert by_run["z3-alone"]["verdicts"] == verdicts
    text = page.read_text(encoding="utf-8")
    assert text.startswith("above\n")
    assert text.endswith("below\n")
    assert "old" not in text
    assert "| z3 | 5 drawn at random |" in text
    tables.rewrite(page, tmp_path)
    assert page.read_text(encoding="utf-8") == text


def test_a_suite_of_ones_own(lens: Lens, tmp_path: Path) -> None:
    path = tmp_path / "own.conspec"
    path.write_text(SUITE + VIOLATED, encoding="utf-8")
    given = ["--lens", str(lens.root), "--suite", str(path), "--runs", "auto", "box"]
    assert agreement.main([*given, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "agreement.json").read_text(encoding="utf-8"))
    assert found["scales"][0]["scale"] == "as written"


def test_contradictions_are_found_and_unknown_is_none() -> None:
    found = {
        "a": {0: Answer("proved", 0, ""), 1: Answer("unknown", 0, ""), 2: Answer("proved", 0, "")},
        "b": {0: Answer("violated", 0, ""), 1: Answer("proved", 0, "")},
    }
    assert list(agreement.contradictions(found, 3)) == [(0, {"a": "proved", "b": "violated"})]


def test_a_contradiction_fails_the_run(
    lens: Lens, relevance: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lie(name: str, setting: agreement.Setting) -> agreement.Answers:
        said = "proved" if name == "z3" else "violated"
        return ((index, Answer(said, 0.0, name)) for index in setting.chosen(name))

    monkeypatch.setattr(agreement, "_run", lie)
    given = ["--lens", str(lens.root), "--suite", str(relevance), "--out", str(tmp_path)]
    assert agreement.main([*given, "--runs", "z3", "highs"]) == 1


def test_a_refused_line_fails_the_run(
    lens: Lens, relevance: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(name: str, setting: agreement.Setting) -> agreement.Answers:
        for index in setting.chosen(name):
            yield index, Answer("proved", 0.0, name, checked="refused: no")

    monkeypatch.setattr(agreement, "_run", refused)
    given = ["--lens", str(lens.root), "--suite", str(relevance), "--out", str(tmp_path)]
    assert agreement.main([*given, "--runs", "auto"]) == 1


@pytest.mark.parametrize(
    ("sample", "message"), [("z3", "RUN=N"), ("nobody=3", "RUN one of"), ("z3=x", "RUN=N")]
)
def test_a_bad_sample_is_refused(
    lens: Lens, sample: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert agreement.main(["--lens", str(lens.root), "--sample", sample]) == 3
    assert message in capsys.readouterr().err


def test_a_page_without_a_place_for_tables_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no place\n", encoding="utf-8")
    with pytest.raises(BadFile, match="table NAME"):
        tables.rewrite(page, tmp_path)
    page.write_text("<!-- table a -->\n", encoding="utf-8")
    with pytest.raises(BadFile, match="has no <!-- end a -->"):
        tables.rewrite(page, tmp_path)


def test_box_speed_counts_verdicts(lens: Lens, relevance: Path) -> None:
    specs, scales = agreement.suite_of(str(relevance), lens, box_speed.GAMMAS)
    assert scales[0] == "0.1"
    found = box_speed.measure(lens, Suite(specs), runs=2)
    assert found["specs"] == 60
    assert isinstance(found["seconds"], list)
    assert len(found["seconds"]) == 2
