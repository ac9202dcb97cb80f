"""``conspec monitor prove``: exit codes, the table, the document, and what is refused."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conspec.analysis import monitor_proof
from conspec.analysis.calibration import ALWAYS, NEVER
from conspec.analysis.monitor import Monitor
from conspec.analysis.monitor_export import Saved, load, save
from conspec.analysis.monitor_proof import Claim, Soundness, soundness
from conspec.cli.main import main
from conspec.encodings.exact import vector
from conspec.encodings.query import space_of
from conspec.encodings.regions import build_regions
from conspec.lens import Lens
from conspec.specs.parser import parse_region
from conspec.verifier import Proved, Unknown, Violated
from conspec.verifier.decide import Limits
from conspec.verifier.verdict import Reason, Trust, Verdict, Witness
from tests.bundles import CLASSES, write_skewed, write_tiny


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("lens") / "tiny").root


@pytest.fixture(scope="module")
def folder(lens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("monitor") / "mon"
    assert main(["monitor", "fit", "--lens", str(lens), "--false-alarm", "0.2", "--out",
                 str(out)]) == 0  # fmt: skip
    return out


def prove(folder: Path, lens: Path, *options: str) -> int:
    return main(["monitor", "prove", str(folder), "--lens", str(lens), *options])


Document = Callable[..., dict[str, Any]]


@pytest.fixture
def document(folder: Path, lens: Path, capsys: pytest.CaptureFixture[str]) -> Document:
    """What ``--json`` prints, which must be one document and agree with the exit code."""

    def run(*options: str, monitor: Path = folder) -> dict[str, Any]:
        capsys.readouterr()
        code = prove(monitor, lens, "--json", *options)
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        counts = found["summary"]
        verdicts = [row["verdict"] for row in found["claims"]]
        assert counts == {w: verdicts.count(w) for w in ("proved", "violated", "unknown")}
        expected = 1 if counts["violated"] else 2 if counts["unknown"] else 0
        assert code == (expected if found["complete"] else 130)
        return found

    return run


def fake(monkeypatch: pytest.MonkeyPatch, *verdicts: Verdict) -> list[Claim]:
    """Claims get these verdicts, then Ctrl-C is pressed; returns what was asked."""
    asked: list[Claim] = []
    left: Iterator[Verdict] = iter(verdicts)

    def answer(monitor: Monitor, lens: Lens, claim: Claim, limits: Limits) -> Soundness:
        verdict = next(left, None)
        if verdict is None:
            raise KeyboardInterrupt
        asked.append(claim)
        return Soundness(claim, verdict, 0.5, 0.25, (), 20)

    monkeypatch.setattr(monitor_proof, "soundness", answer)
    return asked


VIOLATED = Violated(Witness(vector([1, 2, 3, 4]), Fraction(1, 2)))
PROVED, UNKNOWN = Proved(Trust.CERTIFIED, 1.0, False), Unknown(Reason.TIME_LIMIT)


def test_every_class_at_the_usual_scales(document: Document) -> None:
    found = document()
    assert found["complete"] is True
    cells = [(row["class"], row["gamma"]) for row in found["claims"]]
    assert cells == [(name, gamma) for name in CLASSES for gamma in ("0.1", "0.3", "0.5", "1")]
    verdicts = {cell: row["verdict"] for cell, row in zip(cells, found["claims"], strict=True)}
    assert verdicts["truck", "0.1"] == "proved"
    assert verdicts["truck", "0.3"] == "violated"
    assert {verdicts["bird", gamma] for gamma in ("0.1", "1")} == {"proved"}


def test_what_the_document_says_is_what_is_known_of_the_claim(
    document: Document, folder: Path, lens: Path
) -> None:
    bundle, monitor = Lens.load(lens), load(folder).monitor
    space = space_of(bundle)
    for flags, gamma in ((False, "0.1"), (False, "2"), (True, "0.5")):
        options = ["--class", "truck", "--gamma", gamma, *(["--flags"] if flags else [])]
        (row,) = document(*options)["claims"]
        region = parse_region(row["region"])
        found = soundness(monitor, bundle, Claim("truck", region, not flags))
        assert row["orders_proved"] == len(found.orders)
        assert (row["threshold"], row["worst_score"]) == (found.threshold, found.worst)
        (part,) = build_regions(region, bundle)
        held = bundle.embeddings.heldout & (bundle.embeddings.label == 0)
        inside = part.region.members(bundle.embeddings.z[held])
        assert row["coverage"]["point"] == inside.mean()
        assert row["coverage"]["population"] == "truck"
        if row["verdict"] == "proved":
            assert row["trust"] == "certified"
            assert row["counterexample"] is None
            continue
        point = vector([Fraction(text) for text in row["counterexample"]["z"]])
        assert part.region.contains(point)
        logits = space.head.affines[0].exact(point)
        assert all(logits[0] > logits[k] for k in (1, 2))
        z = np.array([[float(v) for v in point.fractions()]])
        assert bool(monitor.judge(z).flagged[0]) is not flags


def test_flags_is_the_other_claim(document: Document, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--class", "truck", "--gamma", "0.1")
    accepted, flagged = document(*options), document(*options, "--flags")
    assert "is accepted" in accepted["claim"]
    assert "is flagged" in flagged["claim"]
    assert [row["verdict"] for row in accepted["claims"]] == ["proved"]
    assert [row["verdict"] for row in flagged["claims"]] == ["violated"]
    assert "is accepted: 0.315 above the threshold" in flagged["claims"][0]["why"]


def test_the_table(folder: Path, lens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--class", "truck", "--class", "sea lion", "--gamma", "0.1", "--gamma", "0.5")
    assert prove(folder, lens, *options) == 1
    captured = capsys.readouterr()
    out = " ".join(captured.out.split())
    assert "Every embedding of focus(class, γ) that is predicted as the class is accepted" in out
    assert "truck 0.1 ✓ proved 5 1 0 % [0, 31] of 10 score 0.788 at worst; threshold 0.563" in out
    assert "0.5 ✗ violated 3 3" in out
    assert "is flagged: 0.09 below the threshold" in out
    assert "4 claims: 3 proved, 1 violated, 0 unknown" in out
    assert captured.err == ""


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ((PROVED, PROVED), 0),
        ((UNKNOWN, VIOLATED), 1),
        ((PROVED, VIOLATED), 1),
        ((PROVED, UNKNOWN), 2),
        ((VIOLATED,), 130),
        ((), 130),
    ],
)
def test_exit_codes(
    folder: Path,
    lens: Path,
    monkeypatch: pytest.MonkeyPatch,
    verdicts: tuple[Verdict, ...],
    code: int,
) -> None:
    asked = fake(monkeypatch, *verdicts)
    assert prove(folder, lens, "--class", "bird", "--gamma", "1", "--gamma", "2") == code
    assert [claim.label for claim in asked] == ["bird"] * len(verdicts)


def test_unknown_says_why(
    document: Document, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, UNKNOWN, Unknown(Reason.INCOMPLETE, "the order of 20 pairs is open on it"))
    first, second = document("--class", "bird", "--gamma", "1", "--gamma", "2")["claims"]
    assert first["why"] == Reason.TIME_LIMIT.value
    assert second["why"].startswith("20 pairs are open, and at most 14 are decided together")


def test_interrupted_keeps_what_is_done(
    folder: Path,
    lens: Path,
    document: Document,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake(monkeypatch, PROVED, VIOLATED, UNKNOWN)
    found = document()
    assert found["complete"] is False
    assert [row["verdict"] for row in found["claims"]] == ["proved", "violated", "unknown"]
    fake(monkeypatch, PROVED)
    assert prove(folder, lens, "--class", "bird", "--gamma", "1", "--gamma", "2") == 130
    captured = capsys.readouterr()
    assert "1 claim: 1 proved" in captured.out
    assert "interrupted: 1 of 2 claims are decided" in captured.err
    assert "1 of 2 claims are missing" in captured.err


def test_proofs_say_what_they_rest_on(
    folder: Path, lens: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, Proved(Trust.SOLVER, 1.0, True), Proved(Trust.CERTIFIED, None, False))
    assert prove(folder, lens, "--class", "sea lion", "--gamma", "1", "--gamma", "2") == 0
    captured = capsys.readouterr()
    out = " ".join(captured.out.split())
    assert "vacuous: no embedding of the region" in out
    assert "rests on the solver's word alone" in out
    assert "the 20 open pairs decided together" in out
    assert "Vacuously proved, since no embedding of the region is predicted" in captured.err
    assert 'focus("sea lion", gamma=1).' in captured.err


@pytest.mark.parametrize(
    ("threshold", "verdict", "why"),
    [
        (NEVER, "proved", "vacuous: nothing is flagged in this class"),
        (ALWAYS, "violated", "all is flagged in this class"),
    ],
)
def test_a_class_without_a_usable_threshold(
    document: Document, folder: Path, tmp_path: Path, threshold: float, verdict: str, why: str
) -> None:
    saved = load(folder)
    monitor = saved.monitor
    changed = replace(monitor.calibration, thresholds=np.full(3, threshold))
    other = Monitor.fitted(monitor.readout, monitor.rule, monitor.reference, changed)
    save(Saved(other, saved.bundle, saved.edge, saved.evaluation), tmp_path / "m")
    (row,) = document("--class", "bird", "--gamma", "1", monitor=tmp_path / "m")["claims"]
    assert (row["verdict"], row["why"]) == (verdict, why)


@pytest.mark.parametrize(
    ("text", "shown", "value"),
    [
        ("0.1", "0.1", Fraction(1, 10)),
        ("0.30000000000000001", "0.30000000000000001", Fraction(30000000000000001, 10**17)),
        ("1e-30", "1e-30", Fraction(1, 10**30)),
        ("0", "0", Fraction(0)),
    ],
)
def test_scales_stay_exact(
    document: Document, monkeypatch: pytest.MonkeyPatch, text: str, shown: str, value: Fraction
) -> None:
    asked = fake(monkeypatch, PROVED)
    (row,) = document("--class", "bird", "--gamma", text)["claims"]
    assert (row["gamma"], row["region"]) == (shown, f"focus(bird, gamma={shown})")
    (claim,) = asked
    assert claim.region == parse_region(f"focus(bird, gamma={text})")
    assert getattr(claim.region, "gamma", None) == value


def test_what_is_said_twice_counts_once(
    document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, PROVED, PROVED)
    names = ("--class", "sea lion", "--class", "truck", "--class", "sea lion")
    found = document(*names, "--gamma", "0.5", "--gamma", "0.50")
    assert [row["class"] for row in found["claims"]] == ["sea lion", "truck"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--class", "brid"), "unknown class 'brid'; did you mean 'bird'?"),
        (("--gamma", "-0.1"), "--gamma -0.1: must not be below 0"),
        (("--gamma", "0.3", "--gamma", "small"), "--gamma small: must be a number such as 0.3"),
        (("--gamma", "nan"), "--gamma nan: must be a number"),
        (("--gamma", "1e999"), "--gamma 1e999: must be a number"),
        (("--timeout", "0"), "--timeout 0: must be above 0 seconds"),
    ],
)
def test_bad_input_is_3_and_one_line(
    folder: Path,
    lens: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    assert prove(folder, lens, *options) == 3
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_foreign_folders_are_refused(
    folder: Path, lens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_skewed(tmp_path / "other", hidden=False).root
    for monitor, bundle, message in (
        (tmp_path / "none", lens, "no such monitor"),
        (folder, tmp_path / "none", "no such lens bundle"),
        (folder, other, "the monitor is of another model than the bundle"),
    ):
        assert prove(monitor, bundle) == 3
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.out == ""
