"""The layout promises that packaging, start-up and the order of rooms rely on."""

import ast
import doctest
import importlib
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A room imports only from itself and from rooms before it.
ROOMS = (
    "specs",
    "lens",
    "encodings",
    "verifier",
    "analysis",
    "report",
    "benchmarks.suites",  # the two parts of benchmarks/ that have commands of their own
    "benchmarks.runner",
    "cli",
    "benchmarks",
)
NOT_SOURCE = ("tests", "typings", "build", "dist")
TOPS = [
    top
    for top in ROOT.iterdir()
    if top.is_dir()
    and not top.name.startswith(".")
    and top.name not in NOT_SOURCE
    and not (top / "pyvenv.cfg").exists()
]
SOURCES = sorted(path for top in TOPS for path in top.rglob("*.py"))
HEAVY = ("torch", "z3", "onnx", "onnxruntime", "highspy", "gurobipy", "pyscipopt", "matplotlib")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("conspec", *parts)).removesuffix(".__init__")


def packages() -> set[str]:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return set(config["tool"]["setuptools"]["packages"])


def imported(path: Path) -> Iterator[str]:
    """Full names of what a file imports, at any place in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_python_starts_with_the_root_on_its_path() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    code = "import conspec.encodings, encodings; print(encodings.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True
    )
    assert str(ROOT / "encodings") not in found.stdout


def test_encodings_and_conspec_have_no_init() -> None:
    assert not (ROOT / "encodings" / "__init__.py").exists()
    assert not (ROOT / "__init__.py").exists()


def test_every_source_folder_is_packaged() -> None:
    folders = {".".join(("conspec", *path.parent.relative_to(ROOT).parts)) for path in SOURCES}
    assert folders == packages()


def test_every_room_has_a_link_for_mypy_and_is_typed() -> None:
    rooms = {name.split(".")[1] for name in packages()}
    links = {path.name: path for path in (ROOT / "typings" / "conspec").iterdir()}
    assert set(links) == rooms
    for room in rooms:
        assert links[room].resolve() == ROOT / room
        assert (ROOT / room / "py.typed").exists()


def room_of(name: str) -> str:
    """The room of ``conspec.encodings.exact`` is ``encodings``."""
    parts = name.split(".")
    if ".".join(parts[1:3]) in ROOMS:
        return ".".join(parts[1:3])
    assert parts[1] in ROOMS, f"{parts[1]}/ is no room: give it a place in ROOMS"
    return parts[1]


def test_rooms_import_only_from_rooms_above_them() -> None:
    wrong = []
    for path in SOURCES:
        room = room_of(module_name(path))
        allowed = ROOMS[: ROOMS.index(room) + 1]
        ours = [name for name in imported(path) if name.startswith("conspec.")]
        strangers = [name for name in ours if room_of(name) not in allowed]
        wrong += [f"{path.relative_to(ROOT)} imports {name}" for name in strangers]
    assert wrong == []


@pytest.mark.parametrize(
    "code",
    [
        "import conspec.specs",
        "import conspec.lens",
        "import conspec.verifier",
        "import conspec.verifier.checker",
        "from conspec.cli.main import main; main(['--help'])",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_used(code: str) -> None:
    code += f"; import sys; print([name for name in {HEAVY} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    assert found.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", [module_name(path) for path in SOURCES])
def test_doctests(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
