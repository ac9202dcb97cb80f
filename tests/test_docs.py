"""What the documentation says and a machine can check."""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from conspec.cli.main import main
from conspec.specs import parse, parse_formula, parse_region, to_text
from conspec.specs.errors import ConspecError

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

# The vocabulary of the examples that show an error.
CLASSES = ("truck", "bird")
CONCEPTS = ("wheels", "wings")

_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
_OBJECTS = ("coverage", "counterexample")
_COMMANDS = (
    *(("verify",), ("radius",), ("check",), ("demo",), ("lens", "build"), ("lens", "show")),
    *(("specs", "check"), ("specs", "format"), ("specs", "generate")),
    *(("heatmap",), ("specs", "from-heatmap")),
    *(("localize",), ("repair",)),
    *(("estimate",), ("lens", "validate"), ("monitor", "fit"), ("monitor", "run")),
    ("monitor", "prove"),
    *(("rules", "extract"), ("rules", "explain"), ("rules", "evaluate"), ("rules", "prove")),
    *(("rules", "why"), ("rules", "ground"), ("rules", "perturb")),
    *(("bench", "export"), ("bench", "run"), ("bench", "compare")),
    *(("vnn", "verify"), ("vnn", "run"), ("vnn", "supports")),
)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Kind and text of each fenced block of a page, in order."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def examples(kind: str) -> Iterator[tuple[str, str]]:
    """Page and text of each block of a kind."""
    for page in PAGES:
        for found, text in blocks(page):
            if found == kind:
                yield page.name, text


@pytest.mark.parametrize(("page", "text"), list(examples("conspec")))
def test_suites_are_parsed_and_printed(page: str, text: str) -> None:
    suite = parse(text, file=page)
    assert suite.specs
    assert parse(to_text(suite)) == suite


@pytest.mark.parametrize(("page", "text"), list(examples("conspec formula")))
def test_formulas_are_parsed(page: str, text: str) -> None:
    for line in text.splitlines():
        parse_formula(line, file=page)


@pytest.mark.parametrize(("page", "text"), list(examples("conspec region")))
def test_regions_are_parsed(page: str, text: str) -> None:
    for line in text.splitlines():
        parse_region(line, file=page)


def test_errors_are_as_shown() -> None:
    neighbours = pairwise(blocks(ROOT / "docs" / "language.md"))
    pairs = [(text, after[1]) for (kind, text), after in neighbours if kind == "conspec bad"]
    assert pairs
    for text, message in pairs:
        with pytest.raises(ConspecError) as caught:
            parse(text, classes=CLASSES, concepts=CONCEPTS)
        assert str(caught.value) == message.rstrip("\n")


def test_the_language_page_has_every_word_of_the_grammar() -> None:
    from conspec.specs.calls import FUNCTIONS
    from conspec.specs.names import RESERVED

    page = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    assert [word for word in FUNCTIONS if f"{word}(" not in page] == []
    assert [word for word in RESERVED if f"`{word}`" not in page] == []


def test_the_results_page_has_every_field() -> None:
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    schema = json.loads((ROOT / "report" / "results.schema.json").read_text(encoding="utf-8"))
    defined = schema["$defs"]
    parts = [schema, schema["properties"]["radius"], *(defined[name] for name in _OBJECTS)]
    names = [name for part in parts for name in part["properties"]]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_the_engines_page_has_every_engine() -> None:
    from conspec.verifier import ENGINES

    page = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    assert [engine for engine in ENGINES if f"| `{engine}` |" not in page] == []


def test_the_soundness_page_has_every_file_of_the_checker() -> None:
    page = (ROOT / "docs" / "soundness.md").read_text(encoding="utf-8")
    files = [f"verifier/{path.name}" for path in (ROOT / "verifier").glob("checker*.py")]
    assert [name for name in files if f"`{name}`" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = _LINK.findall(page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    known: dict[tuple[str, ...], str] = {}
    for command in _COMMANDS:
        assert main([*command, "--help"]) == 0
        known[command] = capsys.readouterr().out
    shown = [line for _, text in examples("sh") for line in _joined(text)]
    assert shown
    for line in shown:
        words = line.split("#")[0].split()
        (command,) = [c for c in _COMMANDS if tuple(words[1 : 1 + len(c)]) == c]
        wrong = [word for word in words if word.startswith("-") and word not in known[command]]
        assert not wrong, line


def test_options_named_in_texts_exist(capsys: pytest.CaptureFixture[str]) -> None:
    helps = ""
    for command in _COMMANDS:
        main([*command, "--help"])
        helps += capsys.readouterr().out
    pages = [page for page in PAGES if page.name != "CONTRIBUTING.md"]
    named = {
        option
        for page in pages
        for option in re.findall(r"`(--[a-z][a-z0-9-]*)", page.read_text(encoding="utf-8"))
    }
    assert sorted(option for option in named if option not in helps) == []


def _joined(text: str) -> list[str]:
    """The lines of a block that call conspec, continued lines joined."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("conspec ")]
