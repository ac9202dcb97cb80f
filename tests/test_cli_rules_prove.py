"""``conspec rules prove`` and ``conspec rules why``."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conspec.cli.inputs import SHIPPED
from conspec.cli.main import main
from conspec.encodings.query import space_of
from conspec.lens import Lens
from conspec.specs import parse
from tests.bundles import write_skewed
from tests.commands import lines

EMOJI = ("--lens", "emoji10")


def document(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> Any:
    assert main(["rules", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["rules", *arguments]) == 3
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.count("\n") == 1
    return found.err


def checked(path: Path, capsys: pytest.CaptureFixture[str], count: int) -> None:
    """Every line of a results file is established again by the checker."""
    assert len(lines(path)) == count
    assert main(["check", str(path), *EMOJI]) == 0
    assert f"{count} re-established, 0 refused" in capsys.readouterr().out


@pytest.fixture(scope="module")
def some_rules(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with the rules that stand for many images."""
    folder = tmp_path_factory.mktemp("rules")
    assert main(["rules", "extract", *EMOJI, "--support", "8", "--out", str(folder)]) == 0
    return str(folder / "rules.json")


# --- prove -------------------------------------------------------------------------------------


def test_rules_are_proved_over_their_classes(
    tmp_path: Path, some_rules: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rules.jsonl"
    arguments = ("--rules", some_rules, "--jsonl", str(path))
    found = document(capsys, 0, "prove", *EMOJI, *arguments)
    rules, regions = found["rules"], found["regions"]
    assert len(regions) == len({row["text"].rpartition("⇒")[2] for row in rules}) > 5
    assert {row["verdict"] for row in rules} == {"proved"}
    assert all((row["lead"] is None) is row["vacuous"] for row in rules)
    assert {row["complete"] for row in regions} <= {"proved", "violated"}
    checked(path, capsys, len(rules) + 2 * len(regions))
    (spec,) = parse(rules[0]["spec"]).specs
    assert spec.name == rules[0]["rule"]


def test_a_table_shows_each_rule_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "prove", *EMOJI, "--gamma", "1", "--verbose"]) == 1
    found = capsys.readouterr()
    assert "⇒ marine animal" in found.out
    assert "✗ violated" in found.out
    assert "focus(fruit," in found.out
    assert "of the proofs are vacuous" in found.err


def test_rules_of_a_file_break_at_a_radius(
    tmp_path: Path, some_rules: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "radius.jsonl"
    arguments = ("--rules", some_rules, "--radius", "--jsonl", str(path))
    found = document(capsys, 0, "prove", *EMOJI, "--gamma", "0.2", *arguments)
    assert 0 < len(found["rules"]) <= 40
    for row in found["rules"]:
        ends = row["radius"]
        assert float(ends["proved_up_to"]) > 0.2
        assert float(ends["fails_from"]) > float(ends["proved_up_to"])
    checked(path, capsys, 3 * len(found["rules"]) + 2 * len(found["regions"]))
    assert main(["rules", "prove", *EMOJI, *arguments[:3]]) == 0
    shown = capsys.readouterr().out
    assert "proved up to γ" in shown
    assert f"{len(found['rules'])} rules: {len(found['rules'])} proved" in shown


def test_one_region_for_all_rules(capsys: pytest.CaptureFixture[str]) -> None:
    region = "box(lower=0, upper=0.5)"
    found = document(capsys, 0, "prove", *EMOJI, "--region", region)
    assert [row["region"] for row in found["regions"]] == ["box(0, 0.5)"]
    assert all(row["vacuous"] and row["lead"] is None for row in found["rules"])
    assert found["regions"][0]["complete"] == "violated"
    assert found["regions"][0]["conflict_free"] == "proved"


def test_bad_input_to_prove_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ("--gamma", "1", "--region", "hull(bird)")
    assert "give one of them" in refused(capsys, "prove", *EMOJI, *both)
    assert "must be a number" in refused(capsys, "prove", *EMOJI, "--gamma", "big")
    assert "must not be below 0" in refused(capsys, "prove", *EMOJI, "--gamma=-1")
    assert "no rules to prove" in refused(
        capsys, "prove", *EMOJI, "--rules", str(_empty_rules(tmp_path, capsys))
    )
    hidden = write_skewed(tmp_path / "relu", hidden=True)
    assert "bound neurons" in refused(capsys, "prove", "--lens", str(hidden.root))


def _empty_rules(folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["rules", "extract", *EMOJI, "--support", "5000", "--out", str(folder)]) == 0
    capsys.readouterr()
    return folder / "rules.json"


# --- why ---------------------------------------------------------------------------------------


def test_features_that_suffice_are_certified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "why.jsonl"
    (found,) = document(capsys, 0, "why", "0", *EMOJI, "--smallest", "--jsonl", str(path))
    assert found["outcome"] == "explained"
    (reason,) = found["explanations"]
    assert reason["verdict"] == "proved"
    assert reason["least"] == len(reason["units"]) < found["of"] == 64
    checked(path, capsys, 1)
    lens = Lens.load(SHIPPED["emoji10"])
    weight, bias = space_of(lens).head.affines[0].floats
    data = lens.embeddings
    low, high = (op(data.z[~data.heldout], axis=0) for op in (np.min, np.max))
    kept = [int(unit[2:-1]) for unit in reason["units"]]
    points = np.random.default_rng(1).uniform(low, high, (2000, 64))
    points[:, kept] = data.z[0, kept]
    winners = (points @ weight.T + bias).argmax(axis=1)
    assert set(winners.tolist()) == {lens.classes.index(found["predicted"])}


def test_contrastive_ones_name_the_class_that_wins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "why.jsonl"
    arguments = ("why", "0", "20", *EMOJI, "--kind", "cxp", "--smallest", "--jsonl", str(path))
    assert main(["rules", *arguments]) == 0
    shown = capsys.readouterr().out
    assert "aircraft is lost if these may change, 3 of 64" in shown
    assert "for instance to" in shown
    assert "Shown by an exact counterexample." in shown
    checked(path, capsys, 2)


def test_predicates_have_their_names_and_their_images(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("why", "0", *EMOJI, "--units", "predicates", "--gamma", "0.7", "--all", "3")
    assert main(["rules", *arguments]) == 0
    shown = capsys.readouterr().out
    assert "widened for 25 of 64 features" in shown
    assert "(antennae)" in shown
    assert "Proved, with a certificate. Applies to" in shown
    assert "There are no others." in shown or "There may be others." in shown


def test_what_does_not_suffice_is_said_and_refuted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "why.jsonl"
    arguments = ("why", "20", *EMOJI, "--units", "predicates", "--jsonl", str(path))
    assert main(["rules", *arguments]) == 2
    assert "all units together do not suffice for aircraft" in capsys.readouterr().out
    checked(path, capsys, 1)
    assert lines(path)[0]["verdict"] == "violated"


def test_concepts_are_asked_of_the_verifier(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("why", "20", *EMOJI, "--gamma", "0.4")
    (found,) = document(capsys, 0, *arguments, "--units", "concepts")
    (reason,) = found["explanations"]
    assert all(" > " in unit for unit in reason["units"])
    assert (found["of"], reason["verdict"], reason["minimal"]) == (19, "proved", True)
    (found,) = document(capsys, 0, *arguments, "--units", "scores")
    assert all(unit.startswith("score(") for unit in found["explanations"][0]["units"])


def test_a_small_domain_needs_no_reason(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("why", "0", *EMOJI, "--gamma", "0.1")
    assert main(["rules", *arguments]) == 0
    assert (
        "aircraft is predicted on the whole domain: no unit has to be held."
        in capsys.readouterr().out
    )
    assert main(["rules", *arguments, "--kind", "cxp"]) == 2
    assert "whatever changes within the domain" in capsys.readouterr().out


def test_hidden_heads_have_certain_reasons_without_specs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lens = write_skewed(tmp_path / "relu", hidden=True)
    (found,) = document(capsys, 0, "why", "3", "--lens", str(lens.root))
    assert found["of"] == 5
    (reason,) = found["explanations"]
    assert (reason["spec"], reason["verdict"]) == (None, None)
    assert "Con_spec does not speak" in reason["certainty"]
    assert main(["rules", "why", "3", "--lens", str(lens.root)]) == 0
    assert "Con_spec does not speak" in capsys.readouterr().out


def test_bad_input_to_why_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no image is called 'bicorn'" in refused(capsys, "why", "bicorn", *EMOJI)
    assert "no image 99999" in refused(capsys, "why", "99999", *EMOJI)
    both = ("--gamma", "1", "--region", "focus(bird, gamma=1)")
    assert "give one of them" in refused(capsys, "why", "0", *EMOJI, *both)
    assert "needs a box" in refused(capsys, "why", "0", *EMOJI, "--region", "hull(bird)")
    assert main(["rules", "why", "0", *EMOJI, "--region", "focus(brid, gamma=1)"]) == 3
    assert "unknown class 'brid'" in capsys.readouterr().err
