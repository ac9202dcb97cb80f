"""Keeping a suite's comments when it is written anew: the syntax tree does not hold them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

# Everything but names in quotes and comments is code; ``spec`` is a reserved word there.
_PIECE = re.compile(
    r"""(?P<comment>\#[^\n]*)
      | (?P<newline>\n)
      | (?P<quoted>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<word>\w+)
      | (?P<other>[^\s\w"'\#]|["'])""",
    re.VERBOSE,
)


@dataclass(slots=True)
class _Reader:
    """Goes through a text once and says above which spec each comment belongs.

    Attributes:
        above: for each spec, and for the end of the text, the lines above it; "" is a blank.
        waiting: comments on lines of their own; the next code decides whose they are.
        newlines: how many there were since the last code or comment.
    """

    above: list[list[str]] = field(default_factory=lambda: [[]])
    waiting: list[str] = field(default_factory=list)
    newlines: int = 1

    def read(self, text: str) -> None:
        for piece in _PIECE.finditer(text):
            if piece.lastgroup == "newline":
                self.newlines += 1
                continue
            if self.newlines > 1 and self.waiting:
                self.waiting.append("")
            self._piece(str(piece.lastgroup), piece[0].rstrip())
            self.newlines = 0
        self.above[-1] += self.waiting

    def _piece(self, kind: str, text: str) -> None:
        match kind:
            case "comment" if self.newlines:
                self.waiting.append(text)
            case "comment":
                self._within([text])
            case "word" if text == "spec":
                self.above[-1] += self.waiting
                self.above.append([])
                self.waiting = []
            case _:
                self._within([line for line in self.waiting if line])
                self.waiting = []

    def _within(self, comments: list[str]) -> None:
        """Comments within a spec, or at the end of its lines, go above that spec."""
        self.above[max(0, len(self.above) - 2)] += comments


def with_comments(source: str, specs: Sequence[str]) -> str:
    r"""The texts of all specs of a suite with the comments of the suite's text ``source``.

    >>> print(with_comments("# a\nspec s: forall x in r: # b\n p", ["spec s: …"]), end="")
    # a
    # b
    spec s: …
    """
    reader = _Reader()
    reader.read(source)
    *above, last = reader.above
    if len(above) != len(specs):
        raise ValueError(f"{len(above)} specs in the text, {len(specs)} were given")
    blocks = ["\n".join([*lines, spec]) for lines, spec in zip(above, specs, strict=True)]
    blocks += ["\n".join(last).rstrip()] if last else []
    return "".join(f"{block}\n\n" for block in blocks).rstrip("\n") + "\n"
