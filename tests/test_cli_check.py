"""``conspec check``: what it accepts, refuses, cannot read, and never imports."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conspec.cli.main import main
from tests.bundles import SUITE, VIOLATED, write_skewed, write_tiny

Line = dict[str, Any]

PREMISED = """
spec truck_over_fur: forall x in hull(truck): predict(truck) => wheels > fur or wheels > 0
"""
FORBIDDEN = (
    "torch", "z3", "highspy", "gurobipy", "pyscipopt", "scipy", "onnxruntime", "matplotlib",
    "conspec.encodings", "conspec.lens",
)  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle, and the results of a suite on it."""
    folder = tmp_path_factory.mktemp("check")
    lens = write_tiny(folder / "lens").root
    suite = folder / "s.conspec"
    suite.write_text(SUITE + VIOLATED + PREMISED, encoding="utf-8")
    assert main(["verify", str(suite), "--lens", str(lens), "--out", str(folder / "out")]) == 1
    return folder / "out" / "results.jsonl", lens


@pytest.fixture
def results(done: tuple[Path, Path]) -> Path:
    return done[0]


@pytest.fixture
def lens(done: tuple[Path, Path]) -> Path:
    return done[1]


def check(results: Path, lens: Path, *options: str) -> int:
    return main(["check", str(results), "--lens", str(lens), *options])


def tampered(results: Path, path: Path, change: Callable[[Line], None], number: int = 1) -> Path:
    """A copy of the results with one line changed."""
    lines = [json.loads(text) for text in results.read_text(encoding="utf-8").splitlines()]
    change(lines[number - 1])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_what_verify_writes_is_re_established(
    results: Path, lens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(results, lens) == 0
    out = capsys.readouterr().out
    assert "3   proofs re-established" in out
    assert "1   violations re-established" in out
    assert "4 re-established, 0 refused" in out


def test_json_is_one_document(
    results: Path, lens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(results, lens, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["summary"] == {
        "proof": 3, "counterexample": 1, "solver": 0, "unknown": 0, "refused": 0,
    }  # fmt: skip
    assert found["refused"] == []
    assert found["milliseconds"] > 0


def _multiplier(line: Line) -> None:
    line["certificate"]["parts"][0][0][0]["multiplier"] = "-1"


def _formula(line: Line) -> None:
    line["formula"] = line["formula"].replace("wings", "fur")


def _verdict(line: Line) -> None:
    line["verdict"] = "violated"


def _bundle(line: Line) -> None:
    line["bundle"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_multiplier, "a multiplier is not positive"),
        (_formula, "the spec's text differs from the line's name, formula or region"),
        (_verdict, "malformed line"),
        (_bundle, "the line belongs to another lens bundle"),
    ],
)
def test_a_tampered_copy_is_refused_with_line_and_reason(
    results: Path,
    lens: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Line], None],
    reason: str,
) -> None:
    copy = tampered(results, tmp_path / "r.jsonl", change, number=2)
    assert check(copy, lens) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert f"2 wings_over_fur {reason}" in out
    assert "3 re-established, 1 refused" in out
    assert check(copy, lens, "--json") == 1
    (refused,) = json.loads(capsys.readouterr().out)["refused"]
    assert (refused["line"], refused["spec"]) == (2, "wings_over_fur")


def test_a_name_from_a_stranger_is_shown_as_text(
    results: Path, lens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tampered(results, tmp_path / "r", lambda line: line.update(spec="[red]\x1b[2J[/red]"))
    assert check(copy, lens) == 1
    out = capsys.readouterr().out
    assert "[red]" in out
    assert "\x1b[2J" not in out


def test_lines_that_claim_nothing_are_counted_apart(
    results: Path, lens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tampered(results, tmp_path / "r", lambda line: line.update(trust="solver"))
    assert check(copy, lens) == 0
    assert "1   proofs on the word of a solver: nothing to check" in capsys.readouterr().out
    only = tmp_path / "only"
    only.write_text(copy.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    assert check(only, lens) == 2
    tampered(only, only, lambda line: line.update(verdict="unknown"))
    assert check(only, lens) == 2
    assert "1   unknown: nothing to check" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("garbage\n", "r.jsonl:5: not a results line: Expecting value"),
        ("\n", "r.jsonl:5: not a results line"),
        ("[1, 2]\n", "r.jsonl:5: not a results line: no JSON object"),
        ('{"spec": "a", "spec": "b"}\n', "r.jsonl:5: not a results line: a key stands twice"),
        ('{"margin": NaN}\n', "r.jsonl:5: not a results line: NaN"),
        ("[" * 100_000 + "\n", "r.jsonl:5: not a results line"),
        ('{"a": ' + "9" * 5000 + "}\n", "r.jsonl:5: not a results line"),
        ('{"spec": "cut', "r.jsonl:5: not a results line"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(
    results: Path,
    lens: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str,
    message: str,
) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(results.read_text(encoding="utf-8") + content, encoding="utf-8")
    assert check(path, lens) == 3
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


def test_bytes_that_are_no_text_are_named(
    lens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r").write_bytes(b"\x80\xff\n")
    assert check(tmp_path / "r", lens) == 3
    assert "r:1: not a results line" in capsys.readouterr().err
    (tmp_path / "r").write_bytes(b"")
    assert check(tmp_path / "r", lens) == 3
    assert "there is no result in it" in capsys.readouterr().err


def test_missing_files_are_named(
    results: Path, lens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(tmp_path / "none.jsonl", lens) == 3
    assert "none.jsonl: No such file" in capsys.readouterr().err
    assert check(results, tmp_path / "none") == 3
    assert "no lens bundle" in capsys.readouterr().err
    assert check(tmp_path, lens) == 3


@pytest.mark.parametrize(
    "manifest", ["", "{}", "[]", "null", '{"files": []}', '{"files": {"x": "y"}}', "[" * 10**5]
)
def test_what_is_no_bundle_is_bad_input(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], manifest: str
) -> None:
    (tmp_path / "manifest.json").write_text(manifest, encoding="utf-8")
    assert check(results, tmp_path) == 3
    assert f"{tmp_path}: no lens bundle" in capsys.readouterr().err


def test_a_damaged_bundle_is_bad_input(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tiny(tmp_path / "lens").root
    (root / "head.onnx").write_bytes(b"")
    assert check(results, root) == 3
    assert "head.onnx is not the file that the bundle's manifest names" in capsys.readouterr().err


def test_another_bundle_refuses_everything(results: Path, tmp_path: Path) -> None:
    assert check(results, write_skewed(tmp_path / "other", hidden=False).root) == 1


def test_no_engine_takes_part(results: Path, lens: Path) -> None:
    code = (
        "import sys; from conspec.cli.main import main; "
        f"code = main(['check', {str(results)!r}, '--lens', {str(lens)!r}]); "
        "print([name for name in sys.modules for bad in "
        f"{FORBIDDEN!r} if name == bad or name.startswith(bad + '.')]); sys.exit(code)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env={**os.environ}
    )
    assert found.stdout.decode().splitlines()[-1] == "[]"
