"""``conspec bench export``: the folder, its files read back, seeds, and what is refused."""

import csv
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conspec.benchmarks.runner.instances import read_suite
from conspec.benchmarks.suites import folder as folder_module
from conspec.benchmarks.suites import formats
from conspec.benchmarks.suites.families import FAMILIES
from conspec.benchmarks.suites.folder import export_suite, licence
from conspec.benchmarks.suites.regenerate import main as regenerate
from conspec.benchmarks.suites.request import Request
from conspec.benchmarks.suites.synthetic import write_synthetic
from conspec.benchmarks.suites.truth import answer_of
from conspec.cli.bench_export import export
from conspec.cli.check import opened, recheck
from conspec.encodings.onnx_reader import read_network
from conspec.encodings.query import queries_of, space_of
from conspec.encodings.vnnlib_property import query_of
from conspec.encodings.vnnlib_reader import read_property
from conspec.lens import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadFile, BadUsage
from conspec.specs.parser import parse
from conspec.verifier.decide import Limits, verify
from tests.bundles import write_skewed
from tests.commands import lines
from tests.oracle import scores_at

SMALL = Request(seed=4, count=1, families=("strength", "premise", "has", "graded"), seconds=10.0)
REGIONS = """
spec in_a_box: forall x in box(1, 4): predict(truck) => wheels > wings
spec in_a_focus: forall x in focus(truck, gamma=0.8): wheels > wings or wings > fur
spec in_a_ball: forall x in ball(0, radius=0.7, norm=linf): not (fur > wings) and predict(truck)
spec in_axes: forall x in pca_box(bird, gamma=0.3): wings > fur
spec in_a_zonotope: forall x in zonotope(bird, gamma=1.5): predict(bird) => wings > fur
spec in_a_hull: forall x in hull(truck): wheels > "floppy ears" <=> predict(truck)
spec in_a_cut: forall x in focus(bird, gamma=2) and polytope(score(wings) >= 2): predict(bird)
spec in_two: forall x in focus(bird, gamma=0.2) or hull("sea lion"): atleast(2, wings > fur, z(1) >= 2, not predict(truck))
spec in_a_round_ball: forall x in ball(3, radius=0.5, norm=l2): wheels > wings
spec in_an_ellipsoid: forall x in ellipsoid(bird, gamma=0.5): has(wings)
"""  # noqa: E501
ROUND = {"in_a_round_ball", "in_an_ellipsoid"}


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Lens:
    place = tmp_path_factory.mktemp("bundle") / "synthetic"
    return write_synthetic(place, 6, 0, 3, classes=3, concepts=5)


@pytest.fixture(scope="module")
def suite(lens: Lens, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small exported suite; tests that change it copy it first."""
    return export_suite(lens, tmp_path_factory.mktemp("suite") / "out", SMALL).folder


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def instances(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "suite.json").read_text())["instances"]
    return found


def answers(folder: Path) -> dict[str, str | None]:
    return {line["instance"]: line["answer"] for line in lines(folder / "truth.jsonl")}


# --- the folder --------------------------------------------------------------------------------


def test_the_folder_is_what_vnn_comp_wants(suite: Path) -> None:
    tables = {}
    for version in ("1.0", "2.0"):
        with (suite / version / "instances.csv").open(newline="") as stream:
            tables[version] = list(csv.reader(stream))
    assert tables["1.0"] == tables["2.0"]
    timed = [entry for entry in instances(suite) if "onnx" in entry["files"]]
    assert len(tables["1.0"]) == len(timed) == 2 + 6
    for version, rows in tables.items():
        for (onnx, vnnlib, seconds), entry in zip(rows, timed, strict=True):
            assert (suite / version / onnx).is_file()
            assert (suite / version / vnnlib).stem == entry["name"]
            assert float(seconds) == 10.0
    assert (suite / "LICENSE").read_bytes() == licence()
    assert b"Apache License" in licence()


def test_every_file_is_listed_and_every_listed_file_is_there(suite: Path) -> None:
    listed = {name for entry in instances(suite) for name in entry["files"].values()}
    own = {"README.md", "LICENSE", "generate_properties.py", "suite.json", "truth.jsonl"}
    own |= {"specs.conspec", "sample.json", "1.0/instances.csv", "2.0/instances.csv"}
    found = contents(suite).keys()
    assert {name for name in found if not name.startswith("bundle/")} == (
        (listed - {"bundle/manifest.json"}) | own
    )
    assert listed <= found


def test_what_has_no_polyhedral_form_is_in_smt_and_a_spec_only(suite: Path) -> None:
    for entry in instances(suite):
        assert entry["files"].pop("spec") == "specs.conspec"
        assert entry["files"].pop("lens") == "bundle/manifest.json"
        if entry["family"] == "has":
            assert set(entry["files"]) == {"smt2"}
            assert set(entry["left_out"]) == {"vnnlib", "milp"}
        else:
            assert entry["left_out"] == {}
            assert set(entry["files"]) == {
                *("onnx", "vnnlib1", "onnx2", "vnnlib2", "smt2", "mps", "lp", "exact")
            }


def test_the_runner_reads_it_with_its_answers(suite: Path) -> None:
    found = read_suite(suite)
    known = answers(suite)
    assert [instance.name for instance in found.instances] == list(known)
    for instance in found.instances:
        assert instance.truth == known[instance.name]
        assert instance.evidence in ("certificate", "exact counterexample")
        assert instance.seconds == 10.0


def test_the_checker_reads_the_answers(suite: Path) -> None:
    found = recheck(suite / "truth.jsonl", opened(suite / "bundle"))
    assert found.refused == []
    assert found.established == len(instances(suite))


def test_the_specs_are_those_that_are_answered(suite: Path) -> None:
    specs = parse((suite / "specs.conspec").read_text()).specs
    assert [spec.name for spec in specs] == [entry["name"] for entry in instances(suite)]
    assert {line["text"] for line in lines(suite / "truth.jsonl")} == {
        line["text"] for line in lines(suite / "truth.jsonl") if line["spec"] == line["instance"]
    }


def test_the_sample_is_what_the_network_makes_of_it(suite: Path, lens: Lens) -> None:
    sample = json.loads((suite / "sample.json").read_text())
    point = [Fraction(value) for value in sample["input"]["values"]]
    scores = scores_at(space_of(lens), point)
    expected = [*scores.logits.values(), *scores.concepts.values()]
    assert sample["output"]["values"] == pytest.approx([float(v) for v in expected], rel=1e-5)
    spec = parse((suite / "specs.conspec").read_text()).specs[0]
    assert isinstance(spec, f.ForAll)
    (query,) = queries_of(spec, lens, space_of(lens))
    assert query.region.members(np.array([sample["input"]["values"]])).all()


def test_the_readme_tells_what_a_user_needs(suite: Path, lens: Lens) -> None:
    text = (suite / "README.md").read_text()
    for word in (lens.hash[:16], "X_0 to X_5", "| Y_0 | logit of class_1 |", "generate_properties"):
        assert word in text
    assert "| Y_7 | score of concept concept_5 |" in text
    counts = Counter(answers(suite).values())
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| graded")]
    assert [int(cell) for cell in rows[0][3:6]] == [3, 3, 0]
    assert sum(counts.values()) == len(instances(suite))


# --- seeds -------------------------------------------------------------------------------------


def test_the_script_rewrites_the_same_files_for_the_same_seed(suite: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(suite, tmp_path / "copy")
    (copy / "mine.txt").write_text("stays")
    for name in ("README.md", "1.0/instances.csv", "truth.jsonl"):
        (copy / name).write_bytes(b"damaged")
    script = [sys.executable, str(copy / "generate_properties.py")]
    subprocess.run([*script, "4"], check=True, cwd=tmp_path)
    assert contents(copy) == contents(suite) | {"mine.txt": b"stays"}
    assert list(tmp_path.iterdir()) == [copy]


def test_another_seed_gives_other_instances_of_the_same_networks(
    suite: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(suite, tmp_path / "copy")
    assert regenerate(copy, ["5"]) == 0
    before, after = contents(suite), contents(copy)
    assert before["specs.conspec"] != after["specs.conspec"]
    assert before["1.0/onnx/scores.onnx"] == after["1.0/onnx/scores.onnx"]
    assert json.loads(after["suite.json"])["request"]["seed"] == 5
    assert recheck(copy / "truth.jsonl", opened(copy / "bundle")).refused == []
    assert regenerate(copy, ["4"]) == 0
    assert contents(copy) == before


def test_without_its_bundle_the_script_asks_for_it(
    suite: Path, lens: Lens, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(suite, tmp_path / "copy")
    shutil.rmtree(copy / "bundle")
    assert regenerate(copy, ["4"]) == 3
    assert "name the lens bundle with --lens" in capsys.readouterr().err
    other = write_synthetic(tmp_path / "other", 6, 0, 4, classes=3, concepts=5)
    before = contents(copy)
    assert regenerate(copy, ["4", "--lens", str(other.root)]) == 3
    assert "is another bundle" in capsys.readouterr().err
    assert contents(copy) == before
    assert regenerate(copy, ["4", "--lens", str(lens.root)]) == 0
    assert contents(copy) == contents(suite)


def test_an_own_suite_is_the_same_for_every_seed(lens: Lens, tmp_path: Path) -> None:
    text = "spec own: forall x in focus(class_1, gamma=0.1): concept_1 > concept_2"
    (tmp_path / "own.conspec").write_text(text)
    out = tmp_path / "out"
    export(out, lens=lens.root, suite=str(tmp_path / "own.conspec"), timeout=10.0)
    before = contents(out)
    assert [entry["family"] for entry in instances(out)] == ["own"]
    assert regenerate(out, ["9"]) == 0
    after = contents(out)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"suite.json", "generate_properties.py"}  # which name the seed


@pytest.mark.parametrize(
    "text", ["{}", "[]", "no", '{"format": "conspec-bench-suite", "version": 9}']
)
def test_what_is_no_suite_is_not_rewritten(text: str, suite: Path, tmp_path: Path) -> None:
    (tmp_path / "suite.json").write_text(text)
    shutil.copytree(suite / "bundle", tmp_path / "bundle")
    with pytest.raises(BadFile, match=r"suite\.json"):
        folder_module.read_request(tmp_path)


# --- refusals ----------------------------------------------------------------------------------


def test_a_used_folder_is_left_alone(lens: Lens, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("out", "file", "link"):
        with pytest.raises(BadUsage, match="is not an empty folder; choose another --out"):
            export(tmp_path / name, lens=lens.root)
    assert contents(tmp_path / "out") == {"mine.txt": b"mine"}


def test_an_empty_folder_is_filled(lens: Lens, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    found = export_suite(lens, tmp_path / "out", Request(count=1, families=("strength",)))
    assert (found.folder / "suite.json").is_file()
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_nothing_half_written_is_left(
    lens: Lens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "LARGEST_FILE", 100)
    with pytest.raises(BadUsage, match=r"scores\.onnx has 0 MB; VNN-COMP's repositories"):
        export_suite(lens, tmp_path / "out", Request(count=1, families=("strength",)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of --lens and --synthetic"),
        ({"synthetic": "x"}, "--synthetic x: expected N or N,HIDDEN"),
        ({"synthetic": "8,2,3"}, "expected N or N,HIDDEN"),
        ({"synthetic": "8,"}, "expected N or N,HIDDEN"),
        ({"synthetic": "1"}, "1 dimensions: must be 2 to 4096"),
        ({"synthetic": "8", "timeout": 1e4}, "VNN-COMP allows 6"),
        ({"synthetic": "8", "family": ["ha"]}, "no family 'ha'; there are strength"),
        ({"synthetic": "8", "suite": "/nowhere.conspec"}, "/nowhere.conspec: No such file"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((BadUsage, BadFile), match=message):
        export(tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


# --- the command -------------------------------------------------------------------------------


def test_the_command_ends_with_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    export(out, synthetic="8,3", seed=2, count=1, family=["strength", "rule"], timeout=10.0)
    found = capsys.readouterr()
    words = [line.split() for line in found.out.splitlines()]
    known = answers(out)
    for family in ("strength", "rule"):
        answer = known[f"{family}_8_001"]
        row = [str(int(answer == word)) for word in ("unsat", "sat", None)]
        assert [family, *row] in words
    assert f"2 instances in {out}" in found.out
    assert f"wrote {out / 'README.md'}" in found.err
    manifest = json.loads((out / "bundle" / "manifest.json").read_text())
    assert manifest["name"] == "synthetic-8-3"


def test_only_the_formats_asked_for_are_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(out, synthetic="4", count=2, family=["strength"], timeout=20000, formats=["smt"])
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["bundle", "smt"]
    assert [set(entry["files"]) for entry in instances(out)] == [{"smt2", "spec", "lens"}] * 2
    text = (out / "README.md").read_text()
    assert "SMT-LIB" in text
    assert "`1.0/`" not in text
    before = contents(out)
    assert regenerate(out, ["0"]) == 0
    assert contents(out) == before


def test_the_shipped_bundle_comes_with_its_notice(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(out, lens=Path("emoji10"), count=1, family=["premise", "robust"], timeout=10.0)
    assert b"Noto Emoji" in (out / "bundle" / "NOTICE.md").read_bytes()
    assert recheck(out / "truth.jsonl", opened(out / "bundle")).refused == []
    check_round_trip(out)


# --- round trips -------------------------------------------------------------------------------


def check_round_trip(folder: Path) -> Counter[str]:
    """Every instance of both versions, read back, has the answer that is known; and how many."""
    known, seen = answers(folder), Counter[str]()
    for entry in instances(folder):
        for onnx, vnnlib in (("onnx", "vnnlib1"), ("onnx2", "vnnlib2")):
            if vnnlib in entry["files"]:
                answer = read_back(folder, entry["files"], (onnx, vnnlib))
                assert answer == known[entry["name"]], (entry["name"], vnnlib)
                seen[answer or "unknown"] += 1
    return seen


def read_back(folder: Path, files: Mapping[str, str], kinds: tuple[str, str]) -> str | None:
    """The answer to an instance as the importer reads it."""
    if kinds[1] == "vnnlib2":
        pytest.importorskip("vnnlib")
    network = read_network(folder / files[kinds[0]])
    query = query_of(read_property(folder / files[kinds[1]]), network)
    return answer_of(verify(query, "auto", Limits(20.0)))


def test_what_is_exported_is_read_back_with_the_same_answer(suite: Path) -> None:
    seen = check_round_trip(suite)
    assert seen["sat"] >= 6
    assert seen["unsat"] >= 6


@pytest.mark.parametrize("hidden", [False, True])
def test_every_kind_of_region_keeps_its_answer(hidden: bool, tmp_path: Path) -> None:
    lens = write_skewed(tmp_path / "bundle", hidden)
    out = export_suite(lens, tmp_path / "out", Request(suite=REGIONS, seconds=10.0)).folder
    for entry in instances(out):
        assert ("onnx" in entry["files"]) is (entry["name"] not in ROUND), entry
        assert "smt2" in entry["files"]
    assert None not in [answers(out)[e["name"]] for e in instances(out) if e["name"] not in ROUND]
    check_round_trip(out)
    networks = {path.stem for path in (out / "1.0" / "onnx").iterdir()}
    own = {"in_axes", "in_a_zonotope", "in_a_hull", "in_two_part_2"}
    assert networks == {"scores", *own}  # boxes share one


@pytest.mark.slow
@pytest.mark.parametrize(("dimension", "hidden"), [(8, 0), (8, 5), (16, 8), (64, 0), (512, 0)])
def test_hundreds_of_instances_keep_their_answer(
    dimension: int, hidden: int, tmp_path: Path
) -> None:
    lens = write_synthetic(tmp_path / "bundle", dimension, hidden, 7)
    request = Request(seed=7, count=6, families=(*FAMILIES, "graded"), seconds=20.0)
    out = export_suite(lens, tmp_path / "out", request).folder
    seen = check_round_trip(out)
    assert min(seen["sat"], seen["unsat"]) >= 30
