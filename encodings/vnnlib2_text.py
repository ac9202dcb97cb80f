"""What is checked of a VNN-LIB 2.0 text before the package ``vnnlib`` sees it.

The package is C++, and some texts it takes are not what it then reads: it stops at a NUL
character without a word, cuts a fraction off an index, takes negative indices, and ends the
whole process on a text nested some ten thousand deep (measured; with a stack of 1 MiB, at 10,000;
with the usual 8 MiB, at 100,000). So a lexer with the tokens of the standard's grammar runs
first. What it does not know is refused.
"""

import re
from collections import deque
from collections.abc import Iterator

from conspec.encodings.sexpr import refuse_bare_returns
from conspec.specs.errors import BadFile

MOST_CHARACTERS = 2**25
"""Longest text; the package needs about 40 bytes of memory for each character."""
MOST_DEPTH = 100
"""Deepest nesting of parentheses; passes over formulas use a few Python frames for each level."""

VERSION = "2.0"

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n\f]+|;[^\n]*)
    |(?P<open>\((?:assert|declare-(?:network|input|hidden|output)|equal-to|isomorphic-to
                  |vnnlib-version)?)
    |(?P<close>\))
    |(?P<number>-?[0-9]+(?:\.[0-9]+)?)
    |(?P<begin>\[)|(?P<end>\])
    |(?P<other><[0-9]+\.[0-9]+>|[A-Za-z][A-Za-z0-9_]*|[<>!=]=|[-+*<>,]
              |"(?:[^"\\]|\\["\\nt])*")
    |(?P<bad>.)""",
    re.VERBOSE | re.DOTALL,
)


def check_text(text: str, source: str) -> None:
    """Refuse a text that the package could misread, or that could end it.

    Raises:
        BadFile: it is too long or too deep, is of another version, or holds a character or an
            index that the grammar does not have.
    """
    if len(text) > MOST_CHARACTERS:
        raise BadFile(f"{source}: the text has more than the limit {MOST_CHARACTERS} characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadFile(f"{source}: this is no Unicode text") from None
    refuse_bare_returns(text, source)
    tokens = _tokens(text, source)
    if [next(tokens, ""), next(tokens, "")] != ["(vnnlib-version", f"<{VERSION}>"]:
        raise BadFile(
            f"{source}: a VNN-LIB 2.0 file starts with (vnnlib-version <{VERSION}>);"
            " other versions are not read here"
        )
    deque(tokens, maxlen=0)


def _tokens(text: str, source: str) -> Iterator[str]:
    """The tokens, each checked; comments and spaces are left out."""
    depth, inside = 0, False
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "space":
            continue
        token = match.group()
        if kind == "open":
            depth += 1
            if depth > MOST_DEPTH:
                raise BadFile(_at(match, source, f"parentheses deeper than {MOST_DEPTH}"))
        elif kind == "close":
            depth -= 1
        elif kind == "begin":
            inside = True
        elif kind == "end":
            inside = False
        elif kind == "number" and inside and not token.isdigit():
            raise BadFile(_at(match, source, f"index {token}; indices and sizes count from 0"))
        elif kind == "bad":
            raise BadFile(_at(match, source, f"the character {token!r} has no place here"))
        yield token


def _at(match: re.Match[str], source: str, message: str) -> str:
    """The message with file and line."""
    return f"{source}:{match.string.count(chr(10), 0, match.start()) + 1}: {message}"
