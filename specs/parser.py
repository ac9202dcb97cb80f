"""Reads Con_spec text: suites, single formulas and regions.

lark is imported, and the grammar compiled, with the first text and not before.
"""

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from conspec.specs.errors import BadFile, SpecSyntaxError
from conspec.specs.formula import Formula, Region, Suite
from conspec.specs.nodes import Node, Reader
from conspec.specs.source import Source

if TYPE_CHECKING:
    from lark import Lark

MAX_CHARACTERS = 16 * 2**20

Names = Collection[str] | None


def parse(
    text: str, *, file: str = "<text>", classes: Names = None, concepts: Names = None
) -> Suite:
    """Reads a suite.

    Args:
        text: The suite: any number of specs.
        file: What error messages call the text.
        classes: The class names of the model; None accepts any name.
        concepts: The concept names of the lens; None accepts any name.

    Raises:
        SpecSyntaxError: the text is not Con_spec; file, line and column are in the message.
        UnknownName: a class or concept is none of those given.
    """
    suite = _read(text, "suite", Reader(Source(file, text), classes, concepts))
    if not isinstance(suite, Suite):
        raise TypeError(f"the rule 'suite' gave {type(suite).__name__}")
    return suite


def parse_file(path: str | Path, *, classes: Names = None, concepts: Names = None) -> Suite:
    """Reads a suite from a UTF-8 file.

    Raises:
        BadFile: the file cannot be read, or is not UTF-8.
        SpecSyntaxError: as for ``parse``.
        UnknownName: as for ``parse``.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadFile(f"{path}: not UTF-8 text at byte {error.start}") from error
    return parse(text, file=str(path), classes=classes, concepts=concepts)


def parse_formula(
    text: str, *, file: str = "<formula>", classes: Names = None, concepts: Names = None
) -> Formula:
    """Reads one formula, in which the image variable is called ``x``.

    Raises:
        SpecSyntaxError: as for ``parse``.
        UnknownName: as for ``parse``.
    """
    reader = Reader(Source(file, text), classes, concepts)
    return reader.formula(_expression(text, reader))


def parse_region(
    text: str, *, file: str = "<region>", classes: Names = None, concepts: Names = None
) -> Region:
    """Reads one region, for instance ``focus(truck, gamma=0.3)``.

    Raises:
        SpecSyntaxError: as for ``parse``.
        UnknownName: as for ``parse``.
    """
    reader = Reader(Source(file, text), classes, concepts)
    return reader.region(_expression(text, reader))


def _expression(text: str, reader: Reader) -> Node:
    node = _read(text, "expression", reader)
    if not isinstance(node, Node):
        raise TypeError(f"the rule 'expression' gave {type(node).__name__}")
    return node


def _read(text: str, rule: str, reader: Reader) -> object:
    from lark.exceptions import UnexpectedInput

    from conspec.specs.build import build
    from conspec.specs.explain import explain

    if len(text) > MAX_CHARACTERS:
        message = f"a suite may have at most {MAX_CHARACTERS:,} characters; split it"
        raise SpecSyntaxError(f"{reader.source.file}: {message}")
    try:
        tree = _grammar().parse(text, start=rule)
    except UnexpectedInput as error:
        raise explain(error, reader.source) from None
    return build(tree, reader)


@lru_cache(maxsize=1)
def _grammar() -> "Lark":
    from lark import Lark

    text = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    return Lark(
        text,
        parser="lalr",
        lexer="basic",
        start=["suite", "expression"],
        maybe_placeholders=False,
    )
