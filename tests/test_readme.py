"""The README's Python example runs as it stands there, and prints what it says."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from conspec.lens.build import build
from conspec.lens.job import emoji_job

README = Path(__file__).parent.parent / "README.md"


def test_python_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = README.read_text(encoding="utf-8")
    found = re.findall(r"```python\n(.*?)```\n\nprints\n\n```text\n(.*?)```", text, re.DOTALL)
    ((code, output),) = found
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo-output").mkdir()
    _build_part_of_the_demo_lens(Path("demo-output/lens"))
    exec(compile(code, str(README), "exec"), {})
    assert capsys.readouterr().out == output


def _build_part_of_the_demo_lens(folder: Path) -> None:
    """The lens of the demo from a third of its images: as good an example, in a third the time."""
    job = emoji_job()
    images = replace(job.images, pictures=job.images.pictures[::3], attributes=None)
    build(replace(job, images=images, heldout=job.heldout[::3]), folder)


def test_emoji_figures_are_those_measured() -> None:
    path = README.parent / "lens" / "emoji10" / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    figures = [
        metrics["classifier"]["heldout"],
        metrics["vlm_zero_shot"]["heldout"],
        metrics["concept_auc"]["heldout_mean"],
    ]
    shown = re.findall(
        r"^\| .* \| (0\.\d{3}) \|$", README.read_text(encoding="utf-8"), re.MULTILINE
    )
    # Half a thousandth of rounding, either way where the figure lies half-way.
    assert [float(text) for text in shown] == pytest.approx(figures, rel=0, abs=0.00051)
