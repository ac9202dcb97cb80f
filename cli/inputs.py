"""Reading what a command is given: suites and bundles."""

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from conspec.specs.errors import BadFile, BadUsage
from conspec.specs.formula import ForAll, Probability, Suite

if TYPE_CHECKING:
    from conspec.lens.bundle import Lens

STANDARD_INPUT = "-"
SHIPPED = {"emoji10": Path(__file__).parents[1] / "lens" / "emoji10" / "bundle"}
"""Bundles that ship with conspec, by the name that ``--lens`` takes."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The specs of a suite that a command is about.

    Attributes:
        proofs: those to be proved.
        estimates: names of those about a probability, which ``verify`` does not decide.
    """

    proofs: Suite
    estimates: tuple[str, ...]


def bundle_folder(path: Path) -> Path:
    """The folder that ``--lens`` names: itself, or that of a shipped bundle."""
    return path if path.exists() else SHIPPED.get(str(path), path)


def open_lens(path: Path) -> "Lens":
    """The bundle that ``--lens`` names.

    Raises:
        BadFile: it is none, or not as it was written.
    """
    from conspec.lens.bundle import Lens

    return Lens.load(bundle_folder(path))


def read_text(source: str) -> str:
    """The text of a file, or of standard input for ``-``.

    Raises:
        BadFile: it cannot be read, or is not UTF-8.
    """
    try:
        data = sys.stdin.buffer.read() if source == STANDARD_INPUT else Path(source).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise BadFile(f"{source}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadFile(f"{source}: not UTF-8 text at byte {error.start}") from error


def read_suite(source: str, lens: "Lens | None" = None) -> Suite:
    """The suite of a file, or of standard input for ``-``; see `parse_suite`."""
    return parse_suite(read_text(source), source, lens)


def parse_suite(text: str, source: str, lens: "Lens | None" = None) -> Suite:
    """The suite that a text says; with a bundle, its names must be the bundle's.

    Raises:
        BadFile: it holds no spec.
        SpecSyntaxError: it is not Con_spec.
        UnknownName: the bundle has no such class or concept.
    """
    from conspec.specs.parser import parse

    suite = parse(
        text,
        file="<stdin>" if source == STANDARD_INPUT else source,
        classes=lens.classes if lens else None,
        concepts=lens.concepts if lens else None,
    )
    if not suite.specs:
        raise BadFile(f"{source}: there is no spec in it")
    return suite


def select(suite: Suite, patterns: Sequence[str]) -> Wanted:
    """The specs whose name matches one of the patterns (all, without patterns).

    Raises:
        BadUsage: a pattern matches none, or none is left to be proved.
    """
    for pattern in patterns:
        if not any(fnmatchcase(spec.name, pattern) for spec in suite.specs):
            some = ", ".join(spec.name for spec in suite.specs[:5])
            raise BadUsage(f"--spec {pattern}: no spec has such a name; there are {some}, …")
    chosen = [spec for spec in suite.specs if not patterns or _matches(spec.name, patterns)]
    proofs = tuple(spec for spec in chosen if isinstance(spec, ForAll))
    estimates = tuple(spec.name for spec in chosen if isinstance(spec, Probability))
    if not proofs:
        raise BadUsage(
            f"nothing to prove: {', '.join(estimates[:5])} "
            "asks for a probability, which 'conspec verify' does not estimate"
        )
    return Wanted(Suite(proofs), estimates)


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
