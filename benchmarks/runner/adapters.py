"""Foreign tools, described by a TOML file.

A tool with the scripts of VNN-COMP, which leave their answer in a file::

    name = "alpha-beta-crown"
    formats = ["vnnlib1"]
    version = ["git", "-C", "/opt/abcrown", "describe", "--always"]
    prepare = ["/opt/abcrown/vnncomp_scripts/prepare_instance.sh",
               "v1", "{category}", "{onnx}", "{query}"]
    command = ["/opt/abcrown/vnncomp_scripts/run_instance.sh",
               "v1", "{category}", "{onnx}", "{query}", "{results}", "{seconds}"]
    answer = "results"

    [words]
    holds = "unsat"
    violated = "sat"

A tool with the command line of VNN-LIB 2.0, which prints its answer::

    name = "vibecheck"
    formats = ["vnnlib2", "vnnlib1"]
    version = ["vibecheck", "--version"]
    command = ["vibecheck", "verify", "{query}", "--network", "{network}={onnx}",
               "--timeout", "{seconds}"]

``name``, ``formats`` and ``command`` are needed. The first line of the answer is one word (those
of the standards are known: sat, unsat, unknown, timeout, timed-out, error; ``words`` maps others);
after ``sat``, the rest is the witness in the form of VNN-LIB 1.0 or 2.0.

In commands, ``{onnx}`` and ``{query}`` stand for files, ``{network}`` for the network's name in a
VNN-LIB 2.0 query (``f`` for other formats), ``{seconds}`` for the time limit, ``{results}`` for
the file to write the answer to, ``{category}`` for the suite's name. A command is a list, never a
line for a shell; it starts in an empty folder, so paths in it must be absolute.

An adapter runs the commands it holds, with the rights of whoever runs it: that is what it is for.
Use only those that you trust. Its structure is not trusted: whatever is not described here is
refused by name.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conspec.benchmarks.runner.recipe import PLACEHOLDERS, QUERIES, WORDS, Solver, placeholders
from conspec.specs.errors import BadFile

_KEYS = ("name", "formats", "version", "prepare", "command", "answer", "words")
_MOST_BYTES = 1 << 20
_NAME_LENGTH = 60


def read_adapter(path: Path) -> Solver:
    """The solver that a TOML file describes.

    Raises:
        BadFile: it cannot be read, is not TOML, or says something that is not described here.
    """
    table = _table(path)
    if unknown := sorted(table.keys() - set(_KEYS)):
        raise BadFile(f"{path}: unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}")
    if missing := [key for key in ("name", "formats", "command") if key not in table]:
        raise BadFile(f"{path}: {missing[0]!r} is missing")
    answer = table.get("answer", "stdout")
    if answer not in ("stdout", "results"):
        raise BadFile(f'{path}: answer: expected "stdout" or "results", not {answer!r}')
    solver = Solver(
        name=_name(table["name"], f"{path}: name"),
        formats=_formats(table["formats"], f"{path}: formats"),
        command=_command(table["command"], f"{path}: command"),
        version=_command(table["version"], f"{path}: version") if "version" in table else (),
        prepare=_command(table["prepare"], f"{path}: prepare") if "prepare" in table else (),
        results=answer == "results",
        words=_words(table.get("words", {}), f"{path}: words"),
    )
    _check_uses(solver, path)
    return solver


def _table(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise BadFile(f"{path}: larger than {_MOST_BYTES >> 20} MiB")
        return tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{path}: not TOML: {error}") from error


def _name(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= _NAME_LENGTH:
        raise BadFile(f"{where}: expected at most {_NAME_LENGTH} printable characters")
    return value


def _formats(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise BadFile(f"{where}: expected a list of formats, out of {', '.join(QUERIES)}")
    for entry in value:
        if entry not in QUERIES:
            raise BadFile(f"{where}: {str(entry)[:40]!r} is none of {', '.join(QUERIES)}")
    return tuple(value)


def _command(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(part, str) for part in value):
        raise BadFile(f"{where}: expected a list of strings, the program first")
    if unknown := sorted(placeholders(value) - set(PLACEHOLDERS)):
        names = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise BadFile(f"{where}: unknown placeholder {{{unknown[0][:40]}}}; known are {names}")
    return tuple(value)


def _words(value: Any, where: str) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise BadFile(f"{where}: expected a table of its words and ours")
    ours = sorted(set(WORDS.values()))
    for word, meaning in value.items():
        if meaning not in ours:
            raise BadFile(f"{where}: {word!r}: {str(meaning)[:40]!r} is none of {', '.join(ours)}")
        if WORDS.get(word, meaning) != meaning:
            raise BadFile(f"{where}: {word!r} is a word of the standard and means {WORDS[word]}")
    return value


def _check_uses(solver: Solver, path: Path) -> None:
    """Refuse commands that cannot work."""
    if used := placeholders(solver.version):
        raise BadFile(f"{path}: version: {{{min(used)}}} has no meaning without an instance")
    used = placeholders(solver.command)
    if "query" not in used:
        raise BadFile(f"{path}: command: {{query}} does not occur in it")
    if solver.results != ("results" in used):
        raise BadFile(f'{path}: answer = "results" and {{results}} in the command go together')
