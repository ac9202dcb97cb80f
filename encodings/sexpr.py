"""S-expressions, read without recursion and within limits, for SMT-LIB text and witnesses."""

import re
from collections.abc import Iterator

from conspec.specs.errors import BadFile

MOST_TOKENS = 5_000_000
DEEPEST = 100
"""Parentheses inside each other; the passes over formulas recurse, and are tested to it."""
_TOKEN = re.compile(r'\s+|;[^\n]*|[()]|[^\s();"|]+|"[^"]*"|\|[^|]*\||.', re.ASCII)

_BARE_RETURN = re.compile(r"\r(?!\n)")


class Sexp(list["Sexp | str"]):
    """A list of atoms and lists; ``at`` is the place of its parenthesis in the text."""

    __slots__ = ("at",)

    def __init__(self, at: int) -> None:
        """An empty list at a place."""
        super().__init__()
        self.at = at


def read_sexps(text: str, source: str) -> Iterator[Sexp]:
    """The top-level lists of a text, one after the other; comments are left out.

    Raises:
        BadFile: an atom outside every list, unbalanced parentheses, or a limit is passed.
    """
    stack: list[Sexp] = []
    count = 0
    for match in _TOKEN.finditer(text):
        token = match.group()
        first = token[0]
        if first in " \t\r\n\f\v;":
            continue
        count += 1
        if count > MOST_TOKENS:
            raise bad(source, text, match.start(), f"more than {MOST_TOKENS} words")
        if first == "(":
            if len(stack) == DEEPEST:
                raise bad(source, text, match.start(), f"nested more than {DEEPEST} levels deep")
            stack.append(Sexp(match.start()))
        elif not stack or token in '"|':
            raise bad(source, text, match.start(), f"{token[:40]!r} has no place here")
        elif first != ")":
            stack[-1].append(token)
        else:
            done = stack.pop()
            if stack:
                stack[-1].append(done)
            else:
                yield done
    if stack:
        raise bad(source, text, stack[-1].at, "this parenthesis is never closed")


def refuse_bare_returns(text: str, source: str) -> None:
    """Refuse a carriage return without a line feed: some readers end a comment there, some don't.

    Raises:
        BadFile: there is one.
    """
    found = _BARE_RETURN.search(text)
    if found:
        message = "a carriage return without a line feed, at which comments may end or not"
        raise bad(source, text, found.start(), message)


def bad(source: str, text: str, at: int, message: str) -> BadFile:
    """The error at a place of a text, in one line; the place's line is counted only now."""
    return BadFile(f"{source}:{text.count(chr(10), 0, at) + 1}: {' '.join(message.split())}")
