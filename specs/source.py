"""Where a piece of Con_spec stands in its file, and errors that show the place."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from conspec.specs.errors import SpecSyntaxError, UnknownName

# A longer line is cut around the caret: suites made by programs can have very long ones.
SHOWN_WIDTH = 96


class Place(Protocol):
    """A position in a text, both counted from one; every token of lark has these."""

    @property
    def line(self) -> int | None: ...  # noqa: D102
    @property
    def column(self) -> int | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Source:
    """A text and the name of the file it came from."""

    file: str
    text: str

    def syntax_error(self, place: Place, message: str, hint: str = "") -> SpecSyntaxError:
        """Returns the error for a text that is not Con_spec."""
        return SpecSyntaxError(self._report(place, message, hint))

    def unknown_name(self, place: Place, message: str, hint: str = "") -> UnknownName:
        """Returns the error for a class or concept that the model does not have."""
        return UnknownName(self._report(place, message, hint))

    def _report(self, place: Place, message: str, hint: str) -> str:
        line, column = place.line or 1, place.column or 1
        shown, caret = _excerpt(self.text.split("\n")[line - 1], column - 1)
        report = f"{self.file}:{line}:{column}: {message}\n    {shown}\n    {caret}"
        return f"{report}\n    hint: {hint}" if hint else report


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name most like ``name`` (case aside), if one is close."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[close[0]] if close else None


def _excerpt(line: str, offset: int) -> tuple[str, str]:
    """Returns the part of a line around ``offset``, and the caret to write under it."""
    # Anything a terminal would act on is shown as a blank of the same width.
    clean = "".join(char if char.isprintable() else " " for char in line)
    start = max(0, offset - SHOWN_WIDTH // 2) if len(clean) > SHOWN_WIDTH else 0
    return clean[start : start + SHOWN_WIDTH].rstrip(), " " * (offset - start) + "^"
