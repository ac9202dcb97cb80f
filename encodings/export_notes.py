"""What an exported file says of itself in its comments: the spec, and what X and Y mean."""

from collections.abc import Sequence
from textwrap import wrap

from conspec.encodings.boxed import Boxed
from conspec.encodings.query import Query
from conspec.specs.formula import Coordinate, ForAll, Score, Symbol
from conspec.specs.printer import to_text
from conspec.specs.rewrite import Halfspace

LONGEST_SPEC = 2_000
"""Characters of the spec that are quoted."""
WIDTH = 96
"""Characters of a line of comment; readers of MPS and LP limit the length of lines."""


def scores_of(query: Query) -> list[int]:
    """Positions of the scores that the condition names, in order."""
    symbols: set[Symbol] = set()
    for literal in query.space.literals(query.constrained):
        if isinstance(literal, Halfspace):
            symbols.update(symbol for _, symbol in literal.terms)
        else:
            symbols.add(Score(literal.concept))
    named = [symbol for symbol in symbols if not isinstance(symbol, Coordinate)]
    return sorted(query.space.position(symbol) for symbol in named)


def notes(boxed: Boxed, title: str, scores: Sequence[int]) -> list[str]:
    """Lines of plain ASCII without any sign of comment.

    Args:
        boxed: the query.
        title: the first line; nothing if it is empty.
        scores: positions of the scores that occur (`scores_of`).
    """
    source = boxed.source
    part = f" (part {source.part} of its region)" if source.part else ""
    lines = [
        *([title] if title else []),
        f"sat: a counterexample to this spec{part}; unsat: the spec is proved{part}.",
        *quoted(source.spec).splitlines(),
        _inputs(boxed),
        *(_score(boxed, place) for place in scores),
    ]
    return [piece for line in ascii_lines(lines) for piece in _wrapped(line)]


def quoted(spec: ForAll) -> str:
    """The spec's text, or the beginning of a very long one."""
    text = to_text(spec)
    if len(text) <= LONGEST_SPEC:
        return text
    return f"{text[:LONGEST_SPEC]} ... ({len(text)} characters)"


def ascii_lines(lines: Sequence[str]) -> list[str]:
    """Lines that no name in them can break or leave, in plain ASCII."""
    plain = [piece for line in lines for piece in line.splitlines()]
    return [line.encode("unicode_escape").decode("ascii") for line in plain]


def _wrapped(line: str) -> list[str]:
    """A line in pieces, its indentation kept."""
    indent = line[: len(line) - len(line.lstrip())]
    return wrap(line, WIDTH, subsequent_indent=f"{indent}  ", drop_whitespace=True) or [""]


def _inputs(boxed: Boxed) -> str:
    """What X is."""
    names = f"X_0 to X_{boxed.region.dimension - 1}"
    if boxed.prelude is None:
        return f"{names}: the entries of the embedding z."
    return (
        f"{names}: parameters of the region, z = c + G X, with the region's centre c and "
        "generators G; the rows below are multiplied by G already."
    )


def _score(boxed: Boxed, place: int) -> str:
    """What Y_place is."""
    space = boxed.source.space
    classes = len(space.classes)
    if place < classes:
        return f"Y_{place}: logit of {space.classes[place]}"
    return f"Y_{place}: score of {space.concepts[place - classes]}"
