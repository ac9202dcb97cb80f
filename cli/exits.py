"""Exit codes (DESIGN.md 10)."""

from enum import IntEnum


class Exit(IntEnum):
    """What the exit code of a command means."""

    PROVED = 0
    """Everything proved; or the command did what it was asked."""
    VIOLATED = 1
    """At least one spec is violated."""
    UNKNOWN = 2
    """None is violated, but at least one is not decided."""
    BAD_INPUT = 3
    """The input or the usage is at fault; the message says how."""
    INTERRUPTED = 130
    """Ctrl-C, after what was known had been written."""
    BROKEN_PIPE = 141
    """Whoever read the output stopped reading."""
