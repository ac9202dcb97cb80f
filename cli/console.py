"""Where things are written: results to standard output, everything else to standard error."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

PLAIN_WIDTH = 120  # columns, where the output is a file or a pipe


def console(stderr: bool = False) -> "Console":
    """A console of rich; wider than its default where no terminal limits it."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, emoji=False)


def show(*items: "RenderableType") -> None:
    """Print tables and texts to standard output, a blank line between them."""
    out = console()
    for item in items:
        out.print(item)
        out.print()


def say(text: str) -> None:
    """A sentence for the person in front; standard error."""
    from conspec.report.words import printable

    typer.echo(printable(text), err=True)


def warn(text: str) -> None:
    """A sentence about something that may surprise; standard error."""
    say(f"warning: {text}")


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))


Advance = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@contextmanager
def progress() -> Iterator[Advance]:
    """Progress bars on standard error, one for each thing done; none without a terminal."""
    bars = _bars()
    tasks: dict[str, Any] = {}

    def advance(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done, total=total)

    with bars:
        yield advance


def _bars() -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeElapsedColumn as Elapsed

    out = console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        Elapsed(),
    )
    return Progress(*columns, console=out, disable=not out.is_terminal)
