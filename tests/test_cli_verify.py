"""``conspec verify``: exit codes, output, the results file, and what is refused."""

import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from conspec.cli.main import main
from conspec.lens import Lens
from conspec.report.records import schema
from conspec.specs.errors import MissingSolver
from conspec.specs.formula import ForAll, Suite
from conspec.verifier import decide
from conspec.verifier.decide import Limits
from conspec.verifier.device import Device
from conspec.verifier.results import Result
from conspec.verifier.verdict import Proved, Reason, Trust, Unknown
from tests.bundles import SUITE, VIOLATED, write_tiny
from tests.commands import lines


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("lens") / "tiny").root


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "suite.conspec"
    path.write_text(SUITE, encoding="utf-8")
    return path


class Fake:
    """Stands for ``verify_suite``: gives the verdicts it is told to, and remembers its calls."""

    def __init__(self, verdicts: Sequence[Any] = ()) -> None:
        self.verdicts = list(verdicts)
        self.asked: list[list[str]] = []

    def __call__(
        self, suite: Suite, lens: Lens, engine: str, limits: Limits, device: Device | None
    ) -> Iterator[Result]:
        self.asked.append([spec.name for spec in suite.specs])
        for spec in suite.specs:
            verdict = self.verdicts.pop(0) if self.verdicts else Proved(Trust.CERTIFIED, 1.0)
            if isinstance(verdict, BaseException):
                raise verdict
            assert isinstance(spec, ForAll)
            yield Result(spec, engine, verdict, 0.5, None, "fake")


def fake(monkeypatch: pytest.MonkeyPatch, *verdicts: Any) -> Fake:
    found = Fake(verdicts)
    monkeypatch.setattr(decide, "verify_suite", found)
    return found


def verify(suite: Path | str, lens: Path, *options: str | Path) -> int:
    return main(["verify", str(suite), "--lens", str(lens), *map(str, options)])


def test_all_proved_is_0_and_coverage_stands_beside_it(
    suite: Path, lens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(suite, lens) == 0
    out = capsys.readouterr().out
    assert "✓ proved" in out
    assert "coverage 0 % [0, 31] of 10 held-out" in out
    assert "2 specs: 2 proved, 0 violated, 0 unknown" in out


def test_a_violated_spec_is_1_and_shows_the_nearest_image(
    suite: Path, lens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite.write_text(SUITE + VIOLATED, encoding="utf-8")
    assert verify(suite, lens, "--engine", "box") == 1
    out = capsys.readouterr().out
    assert "✗ violated" in out
    assert "nearest image truck/" in out


@pytest.mark.parametrize("options", [("--device", "cpu"), ("--device", "cpu", "--float32")])
def test_verdicts_on_a_torch_device_are_the_same(
    suite: Path, lens: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    path = tmp_path / "r.jsonl"
    assert verify(suite, lens, "--jsonl", path, *options) == 0
    assert [line["verdict"] for line in lines(path)] == ["proved"] * len(lines(path))


def test_unknown_is_2_and_says_why(
    suite: Path, lens: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, Proved(Trust.SOLVER), Unknown(Reason.TIME_LIMIT))
    assert verify(suite, lens) == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "? unknown" in out
    assert "raise --timeout" in out
    assert "solver's word" in out


def test_violated_wins_over_unknown(
    suite: Path, lens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite.write_text(VIOLATED + SUITE, encoding="utf-8")
    (violated,) = decide.verify_suite(
        Suite(tuple(s for s in _parsed(suite).specs if s.name == "wings_over_wheels")),
        Lens.load(lens),
    )
    fake(monkeypatch, violated.verdict, Unknown(Reason.TIME_LIMIT), Proved(Trust.SOLVER))
    assert verify(suite, lens) == 1


def _parsed(path: Path) -> Suite:
    from conspec.specs.parser import parse_file

    return parse_file(path)


def test_a_vacuous_proof_is_warned_about(
    suite: Path, lens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite.write_text(
        "spec v: forall x in focus(truck, gamma=0.5): predict(bird) => wings > fur",
        encoding="utf-8",
    )
    assert verify(suite, lens) == 0
    captured = capsys.readouterr()
    assert "vacuous: no embedding of the region satisfies the premise" in captured.out
    assert "warning: Vacuously proved" in captured.err


def test_probability_specs_are_not_silently_passed(
    suite: Path, lens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    estimate = "spec p: probability >= 0.9 with confidence 0.9 for x in all: wheels > wings\n"
    suite.write_text(SUITE + estimate, encoding="utf-8")
    assert verify(suite, lens) == 2
    assert "Not verified, since they ask for a probability: p." in capsys.readouterr().err
    assert verify(suite, lens, "--spec", "p") == 3
    assert "nothing to prove" in capsys.readouterr().err


def test_json_is_one_document_and_nothing_else(
    suite: Path, lens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite.write_text(SUITE + VIOLATED, encoding="utf-8")
    assert verify(suite, lens, "--json", "--engine", "box", "--counterexamples", "2") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["summary"] == {"proved": 2, "violated": 1, "unknown": 0}
    for line in document["results"]:
        jsonschema.validate(line, schema())


def test_lines_follow_the_schema(suite: Path, lens: Path, tmp_path: Path) -> None:
    suite.write_text(SUITE + VIOLATED, encoding="utf-8")
    verify(suite, lens, "--jsonl", tmp_path / "r.jsonl")
    jsonschema.Draft202012Validator.check_schema(schema())
    for line in lines(tmp_path / "r.jsonl"):
        jsonschema.validate(line, schema())
        assert set(line) <= set(schema()["properties"])


def test_spec_patterns_select(
    suite: Path, lens: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = fake(monkeypatch)
    assert verify(suite, lens, "--spec", "wings*") == 0
    assert found.asked == [["wings_over_fur"]]
    assert verify(suite, lens, "--spec", "nope*") == 3
    assert "--spec nope*: no spec has such a name" in capsys.readouterr().err


def test_standard_input(
    lens: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SUITE.encode())))
    assert verify("-", lens) == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"spec s")))
    assert verify("-", lens) == 3
    assert "<stdin>:1:7: expected" in capsys.readouterr().err


def test_a_run_resumes(
    suite: Path, lens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, file = fake(monkeypatch), tmp_path / "r.jsonl"
    verify(suite, lens, "--jsonl", file, "--spec", "wings*")
    verify(suite, lens, "--jsonl", file)
    verify(suite, lens, "--jsonl", file)
    assert found.asked == [["wings_over_fur"], ["wheels_over_wings"]]
    assert [line["spec"] for line in lines(file)] == ["wings_over_fur", "wheels_over_wings"]
    verify(suite, lens, "--jsonl", file, "--engine", "z3")
    assert found.asked[2] == ["wheels_over_wings", "wings_over_fur"]


def test_another_bundle_or_formula_is_computed_anew(
    suite: Path, lens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, file = fake(monkeypatch), tmp_path / "r.jsonl"
    verify(suite, lens, "--jsonl", file)
    suite.write_text(SUITE.replace("wings > fur", "wings >= fur + 1"), encoding="utf-8")
    verify(suite, lens, "--jsonl", file)
    other = write_tiny(tmp_path / "other", ("truck", "bird", "seal"))
    verify(suite, other.root, "--jsonl", file)
    assert [len(names) for names in found.asked] == [2, 1, 2]


def test_what_was_unknown_is_tried_again_with_more_time(
    suite: Path, lens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, file = fake(monkeypatch, *[Unknown(Reason.TIME_LIMIT)] * 2), tmp_path / "r.jsonl"
    assert verify(suite, lens, "--jsonl", file, "--timeout", "5") == 2
    assert verify(suite, lens, "--jsonl", file, "--timeout", "5") == 2
    assert verify(suite, lens, "--jsonl", file, "--timeout", "50") == 0
    assert verify(suite, lens, "--jsonl", file, "--timeout", "5") == 0
    assert len(found.asked) == 2


@pytest.mark.parametrize("cut", [1, 20, 300])
def test_a_line_cut_off_by_a_kill_is_dropped(
    suite: Path, lens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    found, file = fake(monkeypatch), tmp_path / "r.jsonl"
    verify(suite, lens, "--jsonl", file)
    whole = file.read_bytes()
    first = whole.index(b"\n") + 1
    file.write_bytes(whole[: first + cut])
    verify(suite, lens, "--jsonl", file)
    assert found.asked[1] == ["wings_over_fur"]
    assert [line["spec"] for line in lines(file)] == ["wheels_over_wings", "wings_over_fur"]


def test_a_whole_last_line_without_its_end_is_kept(
    suite: Path, lens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, file = fake(monkeypatch), tmp_path / "r.jsonl"
    verify(suite, lens, "--jsonl", file)
    file.write_bytes(file.read_bytes().rstrip(b"\n"))
    verify(suite, lens, "--jsonl", file)
    assert len(found.asked) == 1
    assert len(lines(file)) == 2


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"some notes of mine", "r.jsonl"),
        (b"some notes\nof mine\n", "r.jsonl:1"),
        (b'{"spec": "a"}\n', "r.jsonl:1"),
        (b"\x00\xff\n", "r.jsonl:1"),
    ],
)
def test_a_file_of_another_kind_is_refused_and_left_as_it_is(
    suite: Path,
    lens: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    place: str,
) -> None:
    file = tmp_path / "r.jsonl"
    file.write_bytes(content)
    assert verify(suite, lens, "--jsonl", file) == 3
    assert f"{place}: " in capsys.readouterr().err
    assert file.read_bytes() == content


def test_ctrl_c_keeps_what_is_done(
    suite: Path,
    lens: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = fake(monkeypatch, Proved(Trust.CERTIFIED, 1.0), KeyboardInterrupt())
    assert verify(suite, lens, "--out", tmp_path / "out") == 130
    captured = capsys.readouterr()
    assert "wheels_over_wings" in captured.out
    assert "1 of 2 specs are done" in captured.err
    assert len(lines(tmp_path / "out" / "results.jsonl")) == 1
    assert (tmp_path / "out" / "report.html").is_file()
    assert verify(suite, lens, "--out", tmp_path / "out") == 0
    assert found.asked[1] == ["wings_over_fur"]


def test_an_interrupted_verdict_is_not_kept(
    suite: Path, lens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, Proved(Trust.CERTIFIED), Unknown(Reason.INTERRUPTED))
    assert verify(suite, lens, "--jsonl", tmp_path / "r.jsonl") == 2
    assert len(lines(tmp_path / "r.jsonl")) == 1


def test_out_writes_everything(
    suite: Path, lens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite.write_text(SUITE + VIOLATED, encoding="utf-8")
    options = ("--out", tmp_path / "out", "--engine", "box", "--counterexamples", "2")
    assert verify(suite, lens, *options) == 1
    names = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    assert {"results.jsonl", "report.html", "summary.png"} <= names
    assert "counterexamples/wings_over_wheels.png" in names
    assert "report.html" in capsys.readouterr().err


def test_out_and_jsonl_both_hold_the_results(suite: Path, lens: Path, tmp_path: Path) -> None:
    assert verify(suite, lens, "--out", tmp_path / "o", "--jsonl", tmp_path / "r.jsonl") == 0
    assert lines(tmp_path / "r.jsonl") == lines(tmp_path / "o" / "results.jsonl") != []


def test_more_than_forty_specs_are_shown_by_region(
    suite: Path, lens: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch)
    text = "spec s{}: forall x in focus(truck, gamma=0.5): wheels > {}\n"
    suite.write_text("".join(text.format(i, i) for i in range(50)), encoding="utf-8")
    assert verify(suite, lens) == 0
    assert "s49" not in capsys.readouterr().out
    assert verify(suite, lens, "--verbose") == 0
    assert "s49" in capsys.readouterr().out


REFUSED = [
    ("spec s: forall x in focus(truk, gamma=1): wheels > wings", "unknown class 'truk'"),
    ("spec s: forall x in focus(truck, gamma=1): wheel > wings", "did you mean 'wheels'?"),
    ("spec s: forall x in focus(truck, gamma=1): wheels >", "s.conspec:1:52: expected"),
    ("# nothing\n", "there is no spec in it"),
    ("spec s: forall x in box([0, 0], [1, 1]): wheels > wings", "2"),
    ("spec s: forall x in ball(image=9999, radius=1, norm=linf): wheels > wings", "no image 9999"),
    (
        "spec s: forall x in box(0, 1) and box(2, 3): wheels > wings",
        "spec s: the region is empty",
    ),
    ("spec s: forall x in focus(truck, gamma=1): has(fur)", "no calibrated threshold"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_bad_suites_are_refused(
    lens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path = tmp_path / "s.conspec"
    path.write_text(text, encoding="utf-8")
    assert verify(path, lens, "--out", tmp_path / "out") == 3
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--engine", "cplex"), "'cplex' is not one of"),
        (("--timeout", "0"), "--timeout 0: must be above 0 seconds"),
        (("--timeout", "nan"), "--timeout nan"),
        (("--timeout", "inf"), "--timeout inf"),
        (("--sheets", "-1"), "'--sheets'"),
        (("--counterexamples", "0"), "must be at least 1"),
        (("--jsonl", "no/such/folder/r.jsonl"), "there is no folder"),
        (("--colour",), "No such option"),
        (("--device", "cuda:99"), "device 'cuda:99' cannot be used"),
        (("--float32",), "--float32 needs --device"),
    ],
)
def test_bad_options_are_refused(
    suite: Path,
    lens: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    assert verify(suite, lens, *options) == 3
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_a_missing_file_is_named(
    lens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(tmp_path / "none.conspec", lens) == 3
    assert "none.conspec: No such file" in capsys.readouterr().err
    assert verify(tmp_path, lens) == 3
    (tmp_path / "latin").write_bytes(b"# \xe9t\xe9")
    assert verify(tmp_path / "latin", lens) == 3
    assert "latin: not UTF-8 text at byte 2" in capsys.readouterr().err


def test_a_missing_solver_is_named(
    suite: Path, lens: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, MissingSolver("scip: pip install conspec[scip], or use --engine highs"))
    assert verify(suite, lens, "--engine", "scip") == 3
    assert "pip install" in capsys.readouterr().err


def test_damaged_bundles_are_refused(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(suite, tmp_path / "none") == 3
    assert "no such lens bundle" in capsys.readouterr().err
    root = write_tiny(tmp_path / "damaged").root
    (root / "head.onnx").write_bytes(b"")
    assert verify(suite, root, "--out", tmp_path / "out") == 3
    assert "head.onnx: SHA-256 is" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
