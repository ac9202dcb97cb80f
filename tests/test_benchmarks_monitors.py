"""The figures that detectors are compared by, and the page that shows them."""

from pathlib import Path

import numpy as np
import pytest

from conspec.benchmarks.detection import (
    average_precision,
    compared,
    risk_coverage,
    true_positives,
)
from conspec.benchmarks.monitor_page import BEGIN, END, write_page
from conspec.specs.errors import BadFile

GOOD = np.array([5.0, 4.0, 3.0, 1.0])
BAD = np.array([4.5, 2.0, 0.5])


def test_figures_by_hand() -> None:
    # From the lowest score up: bad, good, bad, good, good, bad, good.
    assert average_precision(GOOD, BAD) == pytest.approx((1 / 1 + 2 / 3 + 3 / 6) / 3)
    assert true_positives(GOOD, BAD) == pytest.approx(1 / 3)  # below 1: no good one is flagged
    assert true_positives(np.arange(40.0), np.array([1.5, 2.0, 3.0])) == pytest.approx(1 / 3)
    scores, right = np.concatenate([GOOD, BAD]), np.array([True] * 4 + [False] * 3)
    found = risk_coverage(scores, right)
    risks = [0, 1 / 2, 1 / 3, 1 / 4, 2 / 5, 2 / 6, 3 / 7]
    assert found["aurc"]["value"] == pytest.approx(np.mean(risks))
    assert found["selective accuracy"]["value"] == pytest.approx(1 - risks[4])


def test_compared_tells_a_good_detector_from_chance() -> None:
    random = np.random.default_rng(0)
    good = {"sharp": random.normal(3, 1, 300), "blind": random.normal(size=300)}
    bad = {"sharp": random.normal(0, 1, 200), "blind": random.normal(size=200)}
    found = compared(good, bad)
    assert found["sharp"]["auroc"]["lower"] > 0.95
    assert found["blind"]["auroc"]["lower"] < 0.5 < found["blind"]["auroc"]["upper"]
    for figures in found.values():
        for figure in figures.values():
            assert 0 <= figure["lower"] <= figure["value"] <= figure["upper"] <= 1


def test_the_page_is_rewritten_between_its_marks(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent / "docs"
    page = tmp_path / "monitor.md"
    page.write_text(f"before\n{BEGIN}\nSTALE\n{END}\nafter\n", encoding="utf-8")
    write_page(page, root / "monitor")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "STALE" not in text
    shipped = (root / "monitor.md").read_text(encoding="utf-8")
    assert (
        text.partition(BEGIN)[2].partition(END)[0] == shipped.partition(BEGIN)[2].partition(END)[0]
    )
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(BadFile, match="are missing"):
        write_page(page, tmp_path)
