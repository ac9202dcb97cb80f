"""``conspec rules``: what is printed, written and refused."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conspec.analysis.rule_files import load
from conspec.analysis.rules import PAPER
from conspec.cli.inputs import SHIPPED
from conspec.cli.main import main
from conspec.lens import Lens
from conspec.specs import parse
from tests.bundles import write_skewed, write_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "lens").root


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_skewed(tmp_path_factory.mktemp("hidden") / "lens", hidden=True).root


def documents(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(["rules", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_extract_prints_and_writes_the_rules(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert main(["rules", "extract", "--lens", str(tiny), "--paper", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "Rules of tiny" in printed.out
    assert "(wheels)" in printed.out
    assert f"wrote rules.json, rules.txt, rules.conspec to {out}" in printed.err
    lens, saved = Lens.load(tiny), load(out / "rules.json")
    assert (saved.bundle, saved.hidden) == (lens.hash, False)
    assert saved.rules.settings == PAPER
    data = lens.embeddings
    source = ~data.heldout & (data.label == data.predicted)
    # Logits are single features, so each class has one predicate: its least value of its logit.
    for predicate in saved.rules.vocabulary:
        own = data.z[source & (data.label == predicate.label), predicate.label]
        assert (predicate.feature, predicate.threshold) == (predicate.label, float(own.min()))
    text = (out / "rules.txt").read_text(encoding="utf-8")
    assert "truck: 1 rules\n  z(0) ≥ " in text
    assert "Where no rule matches: " in text
    suite = parse(
        (out / "rules.conspec").read_text(encoding="utf-8"),
        classes=lens.classes,
        concepts=lens.concepts,
    )
    assert [spec.name for spec in suite.specs] == ["rule_1_truck", "rule_2_bird", "rule_3_sea_lion"]
    assert main(["verify", str(out / "rules.conspec"), "--lens", str(tiny)]) in (0, 1)


def test_extract_as_json_says_the_same(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path
) -> None:
    arguments = ("extract", "--lens", str(tiny), "--paper", "--out", str(tmp_path))
    found = documents(capsys, *arguments)
    saved = load(tmp_path / "rules.json").rules
    assert [rule["predicates"] for rule in found["rules"]] == [
        list(r.predicates) for r in saved.rules
    ]
    assert [p["threshold"] for p in found["predicates"]] == saved.vocabulary.threshold.tolist()
    assert [p["name"]["concept"] for p in found["predicates"]] == ["wheels", "wings", "fur"]


def test_settings_reach_the_rules(tmp_path: Path) -> None:
    options = "--quantile 0.1 --ahead 1 --support 3 --predicate-support 4 --resolution length"
    arguments = ["--lens", "emoji10", *options.split(), "--abstain", "--out", str(tmp_path)]
    assert main(["rules", "extract", *arguments]) == 0
    rules = load(tmp_path / "rules.json").rules
    chosen = rules.settings
    assert (float(chosen.quantile), chosen.ahead, chosen.rule_support) == (0.1, 1, 3)
    assert (chosen.predicate_support, chosen.resolution.value, chosen.abstain) == (
        4,
        "length",
        True,
    )
    assert min(rule.support for rule in rules.rules) >= 3
    assert rules.vocabulary.support.min() >= 4


def test_explain_shows_why(capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path) -> None:
    assert main(["rules", "extract", "--lens", str(tiny), "--paper", "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    rules = ("--rules", str(tmp_path / "rules.json"))
    assert main(["rules", "explain", "--lens", str(tiny), *rules, "1"]) == 0
    shown = capsys.readouterr().out
    assert "truck/0001.png (1): predicted truck" in shown
    assert "because z(0) ≥ " in shown
    assert "(wheels) ⇒ truck" in shown
    (entry,) = documents(capsys, "explain", "--lens", str(tiny), *rules, "truck/0001.png")
    assert (entry["image"], entry["predicted"], entry["rules_say"]) == (1, "truck", "truck")
    assert entry["pathway"] == [[0, 1]]
    lens = Lens.load(tiny)
    (predicate,) = entry["predicates"]
    slack = float(lens.embeddings.z[1, 0]) - predicate["threshold"]
    assert predicate["slack"] == pytest.approx(slack)


def test_explain_learns_rules_if_none_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "explain", "--lens", "emoji10", "hamster (twemoji)"]) == 0
    shown = capsys.readouterr().out
    assert "hamster (twemoji) (1062): predicted building, is mammal" in shown
    assert "look-ahead" in shown
    assert "No global rule matches; the default: mammal" in shown


def test_evaluate_measures_held_out_images(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["rules", "evaluate", "--lens", "emoji10", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "Rules on 231 held-out images" in shown
    assert "fidelity: the model's class" in shown
    found = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert found == documents(capsys, "evaluate", "--lens", "emoji10")
    together = found["quality"]
    assert together["fidelity"]["total"] == found["images"] == 231
    assert sum(row["recall"]["count"] for row in found["classes"]) == together["fidelity"]["count"]
    assert sum(row["rules"] for row in found["classes"]) == together["rules"]
    lens = Lens.load(SHIPPED["emoji10"])
    predicted = lens.embeddings.predicted[lens.embeddings.heldout]
    totals = [row["recall"]["total"] for row in found["classes"]]
    assert totals == np.bincount(predicted, minlength=len(lens.classes)).tolist()
    with Image.open(tmp_path / "classes.png") as picture:
        assert picture.width == 1440


def test_a_hidden_layer_has_rules_without_a_suite(
    capsys: pytest.CaptureFixture[str], hidden: Path, tmp_path: Path
) -> None:
    assert main(["rules", "extract", "--lens", str(hidden), "--out", str(tmp_path)]) == 0
    assert "the head has a hidden layer" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rules.json", "rules.txt"]
    assert load(tmp_path / "rules.json").hidden
    assert main(["rules", "explain", "--lens", str(hidden), "0"]) == 0
    assert main(["rules", "evaluate", "--lens", str(hidden)]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("extract --lens emoji10 --quantile half", "--quantile half: must be a number"),
        ("extract --lens emoji10 --quantile 1", r"--quantile 1: must lie in \[0, 1\)"),
        ("extract --lens emoji10 --gamma wide", "gamma wide: must be a number"),
        ("extract --lens nowhere", "no such lens bundle"),
        ("explain --lens emoji10 nobody", "no image is called 'nobody'"),
        ("explain --lens emoji10 99999", "no image 99999: the bundle has 0 to"),
        ("explain --lens emoji10 hamster", "'hamster' is in the names of"),
        ("explain --lens emoji10 1 --rules missing.json", "missing.json"),
    ],
)
def test_bad_input_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    assert main(["rules", *arguments.split()]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.search(said, captured.err)


def test_rules_of_another_bundle_are_refused(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path
) -> None:
    assert main(["rules", "extract", "--lens", str(tiny), "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    rules = str(tmp_path / "rules.json")
    assert main(["rules", "evaluate", "--lens", "emoji10", "--rules", rules]) == 3
    assert "these rules were learnt from another bundle" in capsys.readouterr().err
