"""``conspec monitor``: fit and run, as a user does."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from conspec.cli.main import main
from conspec.lens import Lens
from conspec.lens.onnx_files import open_session
from tests.bundles import SUITE, write_skewed, write_tiny


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("lens") / "tiny").root


@pytest.fixture(scope="module")
def folder(lens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("monitor") / "mon"
    assert main(["monitor", "fit", "--lens", str(lens), "--false-alarm", "0.2", "--out",
                 str(out)]) == 0  # fmt: skip
    return out


def test_fit_says_what_it_guarantees_and_measured(
    lens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["monitor", "fit", "--lens", str(lens), "--out", str(tmp_path / "m")]
    assert main([*command, "--false-alarm", "0.1"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "flagged with probability at most 0.1, if it is exchangeable" in out
    for text in ("correctly classified flagged (false alarm)", "of 15", "0, not used", "sea lion"):
        assert text in out
    assert main([*command, "--false-alarm", "0.1", "--per-class", "--json"]) == 0
    found = capsys.readouterr()
    document = json.loads(found.out)
    assert document["per_class"] is True
    assert [row["class"] for row in document["classes"]] == list(Lens.load(lens).classes)
    assert sum(row["calibration"] for row in document["classes"]) == 15
    assert document["measured"]["false_alarms"]["total"] == 15
    assert "Nothing will be flagged in" in found.err
    assert "at least 9 correctly classified" in found.err


def test_run_on_the_bundle(lens: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["monitor", "run", str(folder), "--lens", str(lens), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    inputs, summary = document["inputs"], document["summary"]
    assert summary["inputs"] == len(inputs) == 15
    assert summary["flagged"] == sum(row["flagged"] for row in inputs)
    assert all(row["flagged"] == (row["score"] < row["threshold"]) for row in inputs)
    assert all(Lens.load(lens).embeddings.heldout[row["index"]] for row in inputs)
    assert summary["measured"]["false_alarms"]["count"] == summary["flagged"]
    session = open_session((folder / "monitor.onnx").read_bytes(), "monitor")
    z = Lens.load(lens).embeddings.z[[row["index"] for row in inputs]]
    assert session.run(["flag"], {"z": z})[0].tolist() == [row["flagged"] for row in inputs]
    assert main(["monitor", "run", str(folder), "--lens", str(lens)]) == 0
    assert "that the monitor has not seen" in capsys.readouterr().out


def test_run_with_proofs(
    lens: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tmp_path / "s.conspec"
    suite.write_text(SUITE.replace("gamma=0.5", "gamma=1.5"))
    results = tmp_path / "r.jsonl"
    main(["verify", str(suite), "--lens", str(lens), "--jsonl", str(results)])
    capsys.readouterr()
    command = ["monitor", "run", str(folder), "--lens", str(lens), "--proofs", str(results)]
    assert main([*command, "--json"]) == 0
    counts = [row["guaranteed"] for row in json.loads(capsys.readouterr().out)["inputs"]]
    assert set(counts) == {0, 1}
    assert main(command) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"{sum(counts)} of 15 images lie in one of the" in out


def test_run_on_a_file_watches_for_drift(
    lens: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    z = Lens.load(lens).embeddings.z
    usual, strange = tmp_path / "usual.npy", tmp_path / "strange.safetensors"
    np.save(usual, z)
    # The head sees the same, and all concepts that it does not look at are turned around.
    reversed_ = z.copy()
    reversed_[:, 3] = 100
    save_file({"z": np.repeat(reversed_, 3, axis=0)}, strange)
    assert main(["monitor", "run", str(folder), "--embeddings", str(usual)]) == 0
    out = capsys.readouterr().out
    assert "No drift found" in out
    assert "together" in out
    assert main(["monitor", "run", str(folder), "--embeddings", str(strange), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["summary"]["inputs"] == 270
    assert document["summary"]["drift"]["alarm"] is True
    assert document["summary"]["drift"]["p_value"] <= 0.01


def test_run_on_a_stream(
    lens: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    z = Lens.load(lens).embeddings.z[:5]
    text = "\n".join(json.dumps(row.tolist()) for row in z) + "\n\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main(["monitor", "run", str(folder), "--embeddings", "-"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    assert {row["predicted"] for row in rows} == {"truck"}
    assert all(row["drift"] is False for row in rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "array of 4 finite numbers"),
        ("[1, 2, 3, NaN]", "array of 4 finite numbers"),
        ("nonsense", "<stdin>:1: not a JSON array"),
        ('{"a": 1}', "<stdin>:1: not a JSON array"),
    ],
)
def test_a_bad_line_of_a_stream(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    message: str,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main(["monitor", "run", str(folder), "--embeddings", "-"]) == 3
    assert message in capsys.readouterr().err


def test_count_rule_writes_specs_that_verify_reads(
    lens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "count"
    assert main(["monitor", "fit", "--lens", str(lens), "--rule", "count", "--false-alarm", "0.3",
                 "--out", str(out)]) == 0  # fmt: skip
    suite = out / "accepted.conspec"
    assert "conspec verify" in capsys.readouterr().err
    assert main(["verify", str(suite), "--lens", str(lens), "--json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    assert len(found["results"]) == 9
    assert main(["monitor", "fit", "--lens", str(lens), "--false-alarm", "0.3", "--out",
                 str(out)]) == 0  # fmt: skip
    assert not suite.exists()  # another rule has none


def test_bad_usage(
    lens: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_skewed(tmp_path / "other", hidden=False).root
    strange = write_tiny(tmp_path / "strange", ("a", "b", "c")).root
    np.save(tmp_path / "flat.npy", np.zeros(4))
    (tmp_path / "bad.npy").write_bytes(b"no")
    (tmp_path / "z.txt").write_text("1")
    run, fit = ["monitor", "run", str(folder)], ["monitor", "fit", "--out", str(tmp_path / "m")]
    cases = [
        (run, "say what to judge"),
        ([*run, "--lens", str(lens), "--embeddings", "-"], "say what to judge"),
        ([*run, "--embeddings", "-", "--proofs", "x"], "needs --lens"),
        ([*run, "--embeddings", str(tmp_path / "flat.npy")], "expected shape [N, n]"),
        ([*run, "--embeddings", str(tmp_path / "bad.npy")], "no embeddings can be read"),
        ([*run, "--embeddings", str(tmp_path / "z.txt")], "from .npy and .safetensors files only"),
        ([*run, "--embeddings", str(tmp_path / "none.npy")], "No such file"),
        ([*run, "--lens", str(strange)], "other classes or concepts"),
        ([*run, "--lens", str(lens), "--drift-alarm", "2", "--embeddings", "-"], "what to judge"),
        (["monitor", "run", str(tmp_path / "no"), "--lens", str(lens)], "no such monitor"),
        ([*fit, "--lens", str(lens), "--false-alarm", "2"], "strictly between 0 and 1"),
        ([*fit, "--lens", str(lens), "--false-alarm", "x"], "must be a number"),
    ]
    for arguments, message in cases:
        assert main(arguments) == 3, arguments
        assert message in " ".join(capsys.readouterr().err.split())
    assert main([*run, "--lens", str(other)]) == 0  # the same names: judged by its own images
    assert "of another bundle" in capsys.readouterr().out
