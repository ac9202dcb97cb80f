"""How a solver is called: what it reads, its command line, and the words it answers with."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

PLACEHOLDERS = ("onnx", "query", "network", "lens", "name", "seconds", "results", "category")
QUERIES = ("vnnlib1", "vnnlib2", "smt2", "mps", "lp", "spec")
NETWORK_OF = MappingProxyType({"vnnlib1": "onnx", "vnnlib2": "onnx2"})
"""The network that goes with a query; ``spec`` has a lens bundle, the others hold it themselves."""
WORDS: Mapping[str, str] = MappingProxyType(
    {
        "sat": "sat",
        "unsat": "unsat",
        "unknown": "unknown",
        "timeout": "timeout",
        "timed-out": "timeout",  # VNN-LIB 2.0
        "error": "error",
    }
)
"""What the standards call the answers, and what we call them."""
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Solver:
    """A program that answers queries.

    Attributes:
        name: what it is called in results.
        formats: queries that it reads (`QUERIES`), the preferred one first.
        command: the program and its arguments, with `PLACEHOLDERS` in braces.
        packages: distributions whose versions are its version, if there is no ``version``.
        extra: what to install when one of them is missing.
        version: a command whose first line of output is its version.
        prepare: a command that is run before, without counting its time.
        results: whether the answer is in the file ``{results}``; else on standard output.
        words: its words for the answers, besides `WORDS`.
    """

    name: str
    formats: tuple[str, ...]
    command: tuple[str, ...]
    packages: tuple[str, ...] = ()
    extra: str = ""
    version: tuple[str, ...] = ()
    prepare: tuple[str, ...] = ()
    results: bool = False
    words: Mapping[str, str] = field(default_factory=dict)


def placeholders(parts: Sequence[str]) -> set[str]:
    """The names in braces in a command.

    >>> sorted(placeholders(["run", "--net={onnx}", "{seconds}s"]))
    ['onnx', 'seconds']
    """
    return {name for part in parts for name in _PLACEHOLDER.findall(part)}


def filled(parts: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """The command with values in place of the names in braces; values are not looked into.

    >>> filled(["run", "--net={onnx}"], {"onnx": "a {seconds}.onnx"})
    ['run', '--net=a {seconds}.onnx']
    """
    return [_PLACEHOLDER.sub(lambda match: values[match[1]], part) for part in parts]
