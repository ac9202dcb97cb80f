"""The program as a whole: help, usage, the demo's suite, and how it ends."""

import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from conspec.cli.demo import _clear
from conspec.cli.exits import Exit
from conspec.cli.main import main
from conspec.cli.output import file_name
from conspec.lens import emoji10
from conspec.specs.errors import BadUsage
from conspec.specs.parser import parse
from tests.bundles import write_tiny

HEAVY = ("torch", "onnx", "onnxruntime", "z3", "matplotlib", "numpy", "lark", "rich", "jinja2")

PROGRAM = "import sys; from conspec.cli.main import main; sys.exit(main())"


def conspec(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from conspec.cli.main import main; main(['--help']); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert found.stdout.decode().splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["--version"],
        ["lens"],
        ["specs"],
        ["verify", "--help"],
        ["demo", "--help"],
        ["lens", "build", "--help"],
        ["lens", "show", "--help"],
        ["specs", "check", "--help"],
        ["specs", "format", "--help"],
        ["specs", "generate", "--help"],
    ],
)
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "conspec" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prove"], "No such command 'prove'"),
        (["verify"], "Missing argument 'SUITE'"),
        (["verify", "s.conspec"], "Missing option '--lens'"),
        (["lens", "build"], "Missing argument 'BUNDLE'"),
    ],
)
def test_usage_errors_are_3(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 3
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_file_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "none" / "s.conspec")
    assert main(["specs", "generate", "--rival10", "--gamma", "1", "-o", target]) == 3
    assert "there is no folder" in capsys.readouterr().err


def test_an_error_is_one_line_on_standard_error() -> None:
    found = conspec("specs", "check", "no-such-file")
    assert found.returncode == 3
    assert found.stdout == ""
    assert found.stderr == "error: no-such-file: No such file or directory\n"


def test_a_reader_that_stops_reading_is_no_traceback() -> None:
    arguments = ["specs", "generate", "--rival10", "--gamma", "0.3"]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == Exit.BROKEN_PIPE


def test_an_ascii_terminal_is_no_traceback(tmp_path: Path) -> None:
    root = write_tiny(tmp_path / "lens", ("köter", "bird", "sea lion")).root
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", PROGRAM, "lens", "show", str(root)]
    found = subprocess.run(command, capture_output=True, check=True, env=environment)
    assert b"k?ter" in found.stdout


def test_the_demo_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(BadUsage, match=r"holds 'thesis\.tex', which no demo wrote"):
        _clear(tmp_path)


def test_the_demo_forgets_earlier_results(tmp_path: Path) -> None:
    (tmp_path / "counterexamples").mkdir()
    for name in ("results.jsonl", "report.html", "counterexamples/a.png"):
        (tmp_path / name).touch()
    _clear(tmp_path)
    assert not (tmp_path / "results.jsonl").exists()
    assert not list((tmp_path / "counterexamples").iterdir())


def test_the_demo_suite_speaks_about_emoji10() -> None:
    text = (files("conspec.specs") / "data" / "emoji10.conspec").read_text(encoding="utf-8")
    images = emoji10.load_images()
    concepts, _ = emoji10.attribute_table()
    suite = parse(text, classes=images.classes, concepts=concepts)
    assert len(suite.specs) >= 25
    assert (images.names[740], images.houses[740]) == ("delivery truck", "twemoji")
    assert images.split[740] == "heldout"


def test_file_names_are_plain_and_distinct() -> None:
    hostile = ["a b", "a_b", "../../etc/passwd", ".", "..", "ä", "a" * 300, "a" * 301, "a%20b"]
    names = [file_name(name, place) for name in hostile for place in (0, 1)]
    assert len(set(names)) == len(names)
    for name in names:
        assert "/" not in name
        assert not name.startswith(".")
        assert len(name.encode()) < 250
