"""A bar on the terminal for what a build tells of its progress."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conspec.lens.extract import Progress


@contextmanager
def bar() -> "Iterator[Progress]":
    """Shows one line for each thing that is being done; give what it yields to ``build_lens``."""
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    with Bars() as bars:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=total)

        yield show
