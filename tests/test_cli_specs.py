"""``conspec specs``: check, format and generate."""

import io
import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conspec.cli.comments import with_comments
from conspec.cli.main import main
from conspec.specs import suites
from conspec.specs.formula import Suite
from conspec.specs.parser import parse, parse_file
from conspec.specs.printer import to_text
from tests import strategies as tree
from tests.bundles import write_tiny

TEXT = """
# A suite about trucks.

# wheels matter
spec a: forall x in focus(truck, gamma=0.50): # not much
    wheels > wings   # strictly
spec "b # c": forall x in focus(bird, gamma=1): "floppy ears" > 'fur'
# the end
"""
FORMATTED = """\
# A suite about trucks.

# wheels matter
# not much
# strictly
spec a:
    forall x in focus(truck, gamma=0.5):
        wheels > wings

spec "b # c":
    forall x in focus(bird, gamma=1):
        "floppy ears" > fur

# the end
"""


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("lens") / "tiny").root


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "suite.conspec"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_check(suite: Path, lens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["specs", "check", str(suite), "--lens", str(lens)]) == 0
    assert "2 specs to prove, 0 about a probability" in capsys.readouterr().out
    suite.write_text(TEXT.replace("wheels > ", "wheel > "), encoding="utf-8")
    assert main(["specs", "check", str(suite)]) == 0
    assert "names were not checked" in capsys.readouterr().out
    assert main(["specs", "check", str(suite), "--lens", str(lens)]) == 3
    assert "suite.conspec:6:5: unknown concept 'wheel'" in capsys.readouterr().err


def test_format_prints_and_keeps_comments(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["specs", "format", str(suite)]) == 0
    assert capsys.readouterr().out == FORMATTED
    assert suite.read_text(encoding="utf-8") == TEXT


def test_format_writes_once(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = parse_file(suite)
    assert main(["specs", "format", str(suite), "--write"]) == 0
    assert suite.read_text(encoding="utf-8") == FORMATTED
    assert parse_file(suite) == before
    assert main(["specs", "format", str(suite), "--write"]) == 0
    assert "unchanged" in capsys.readouterr().err
    assert not list(suite.parent.glob("tmp*"))


def test_format_leaves_a_broken_file_alone(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite.write_text("# mine\nspec", encoding="utf-8")
    assert main(["specs", "format", str(suite), "--write"]) == 3
    assert "suite.conspec:2:5: expected" in capsys.readouterr().err
    assert suite.read_text(encoding="utf-8") == "# mine\nspec"


def test_format_of_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert main(["specs", "format", "-"]) == 0
    assert capsys.readouterr().out == FORMATTED
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert main(["specs", "format", "-", "--write"]) == 3


@given(tree.suites(), st.data())
def test_no_comment_is_lost_and_nothing_else_changes(suite: Suite, data: st.DataObject) -> None:
    lines = to_text(suite).split("\n")
    for place in data.draw(st.lists(st.integers(0, len(lines) - 1), max_size=8, unique=True)):
        blanks = "\n" * data.draw(st.integers(0, 2))
        lines[place] += f"{blanks} # \"comment' spec {place}{blanks}"
    source = "\n".join(lines)
    text = with_comments(source, [to_text(spec) for spec in suite.specs])
    assert parse(text) == parse(source) == suite
    assert sorted(_comments(text)) == sorted(_comments(source))
    assert with_comments(text, [to_text(spec) for spec in suite.specs]) == text


def _comments(text: str) -> list[str]:
    return re.findall(r"# \"comment' spec \d+", text)


def test_comments_need_as_many_specs_as_the_text_has() -> None:
    with pytest.raises(ValueError, match="2 specs in the text, 1 were given"):
        with_comments(TEXT, ["spec a"])


def test_generate_rival10(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["specs", "generate", "--rival10", "--gamma", "0.3"]) == 0
    suite = parse(capsys.readouterr().out)
    assert len(suite.specs) == 531
    out = tmp_path / "r.conspec"
    options = ["--rival10", "--gamma", "0.3", "--gamma", "0.5", "-o", str(out)]
    assert main(["specs", "generate", *options]) == 0
    assert "1062 specs" in capsys.readouterr().err
    names = [spec.name for spec in parse_file(out).specs]
    assert names[0] == "truck_wheels_over_long_snout_at_0_3"
    assert names[531].endswith("_at_0_5")


def test_generate_without_a_scale(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["specs", "generate", "--rival10"]) == 0
    unsaid = capsys.readouterr().out
    assert main(["specs", "generate", "--rival10", "--gamma", "0.3"]) == 0
    assert unsaid == capsys.readouterr().out


def test_generate_rival10_for_another_bundle(
    lens: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["specs", "generate", "--rival10", "--lens", str(lens)]) == 3
    error = capsys.readouterr().err
    assert "RIVAL10's classes are not this bundle's: it has no 'car', 'plane'" in error
    assert "did you mean" not in error
    monkeypatch.setattr(suites, "rival10_relevance", lambda: {"truck": ["wheels", "text"]})
    assert main(["specs", "generate", "--rival10", "--lens", str(lens)]) == 3
    assert "RIVAL10's concepts are not this bundle's: it has no 'text'" in capsys.readouterr().err


def test_generate_from_relevance_and_frequencies(
    lens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relevance, frequencies = tmp_path / "r.json", tmp_path / "f.json"
    relevance.write_text(json.dumps({"truck": ["wheels"], "sea lion": ["fur"]}))
    frequencies.write_text(
        json.dumps({"truck": {"wheels": 0.9, "wings": 0.1, "fur": 0, "floppy ears": 0}})
    )
    given = ["--gamma", "0.3", "--lens", str(lens)]
    assert main(["specs", "generate", *given, "--relevance", str(relevance)]) == 0
    assert len(parse(capsys.readouterr().out).specs) == 6
    options = [*given, "--frequencies", str(frequencies), "--threshold", "0.5"]
    assert main(["specs", "generate", *options, "--no-premise"]) == 0
    out = capsys.readouterr().out
    assert len(parse(out).specs) == 3
    assert "predict" not in out


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ({"lorry": ["wheels"]}, (), "unknown class 'lorry'"),
        ({"truck": ["wheel"]}, (), "unknown name 'wheel'; did you mean 'wheels'?"),
        ({"truck": "wheels"}, (), "'truck': expected a list of concepts"),
        ({"truck": ["wheels"]}, ("--gamma", "much"), "gamma: expected a number"),
        ({"truck": ["wheels"]}, ("--gamma", "0.3"), "one is given twice"),
        ({"truck": ["wheels"]}, ("--rival10",), "give one of --relevance"),
    ],
)
def test_bad_tables_are_refused(
    lens: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    table: object,
    options: tuple[str, ...],
    message: str,
) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(table), encoding="utf-8")
    given = ["--gamma", "0.3", "--lens", str(lens), "--relevance", str(path)]
    assert main(["specs", "generate", *given, *options]) == 3
    assert message in capsys.readouterr().err


def test_bad_frequencies_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "f.json"
    path.write_text('{"truck": {"wheels": 7}}', encoding="utf-8")
    assert main(["specs", "generate", "--gamma", "1", "--frequencies", str(path)]) == 3
    assert "'truck': expected a share in [0, 1]" in capsys.readouterr().err
