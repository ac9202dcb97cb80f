"""Names as they are written: bare, or in quotes where they would be read as something else."""

import re

# The grammar's words; as names they need quotes. A test compares this set with the grammar.
RESERVED = frozenset(
    {"spec", "forall", "probability", "with", "confidence", "for", "in"}
    | {"and", "or", "not", "true", "false"}
)
# Longer names are cut in messages.
SHOWN_LENGTH = 60

_BARE = re.compile(r"[^\W\d]\w*")
_ESCAPE = re.compile(r"\\(.)")


def quoted(name: str) -> str:
    """Writes a name, in double quotes unless it can stand bare."""
    if _BARE.fullmatch(name) and name not in RESERVED:
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def shown(name: str) -> str:
    """Writes a name for a message: always in quotes, and no longer than a line."""
    if len(name) > SHOWN_LENGTH:
        name = name[: SHOWN_LENGTH - 1] + "…"
    written = quoted(name)
    return written if written.startswith('"') else f"'{written}'"


def unquoted(text: str) -> str:
    r"""Reads a name in quotes; within them ``\\``, ``\"`` and ``\'`` stand for one character.

    Raises:
        ValueError: the name is empty, has another escape, or a character that cannot be seen.
    """
    inner = text[1:-1]
    if any(escape not in "\\\"'" for escape in _ESCAPE.findall(inner)):
        raise ValueError("in quotes, only a quote or a backslash may follow a backslash")
    name = _ESCAPE.sub(r"\1", inner)
    if not name:
        raise ValueError("a name cannot be empty")
    if not name.isprintable():
        raise ValueError("a name may hold only printable characters")
    return name
