"""The measurements of rules run, and the documentation shows what they wrote."""

import json
import shutil
from pathlib import Path

import pytest

from conspec.benchmarks import rules, rules_speed
from tests.bundles import write_skewed, write_tiny

ROOT = Path(__file__).parent.parent


def test_the_page_shows_the_files(tmp_path: Path) -> None:
    page = tmp_path / "rules.md"
    shutil.copy(ROOT / "docs" / "rules.md", page)
    before = page.read_text(encoding="utf-8")
    rules.write_page(page, ROOT / "docs" / "rules")
    assert page.read_text(encoding="utf-8") == before
    assert before.count("| learner | size |") == 4


@pytest.mark.parametrize("hidden", [False, True])
def test_a_bundle_is_measured(tmp_path: Path, hidden: bool) -> None:
    pytest.importorskip("sklearn")
    folder = tmp_path / "lens"
    lens = write_skewed(folder, hidden=True) if hidden else write_tiny(folder)
    found = json.loads(json.dumps(rules.measure(lens)))
    assert found["images"] == {"train": 60, "heldout": 30}
    assert set(found["rule_sets"]) == set(rules.RULE_SETS)
    assert (found["names"] is None) == hidden
    shown = rules.section(found)
    assert "linear probe" in shown
    assert ("no names" in shown) == hidden


def test_speed_counts_what_it_extracts() -> None:
    found = rules_speed.measure((300, 24, 5), ahead=1)
    assert (found["rows"], found["ahead"]) == (300, 1)
    assert 0 < found["sources"] <= 300
    assert 0 < found["predicates"] <= 2 * 24 * 5
    assert found["pathway"]["median"] >= 2
    assert found["peak_mib"] > 0
