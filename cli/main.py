"""The program ``conspec``: its commands, and how an error becomes one line and an exit code.

Importing this imports neither torch nor a solver; commands import what they need when they run,
so that ``conspec --help`` is instant.
"""

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from conspec.cli import (
    bench,
    check,
    demo,
    estimate,
    heatmap,
    lens,
    localize,
    monitor,
    radius,
    repair,
    rules,
    specs,
    verify,
    vnn,
)
from conspec.cli.console import say
from conspec.cli.exits import Exit
from conspec.cli.groups import show_help
from conspec.specs.errors import ConspecError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What a write that knows no file name may say."""

app = typer.Typer(
    name="conspec",
    help="Prove statements about vision models in the words people use for pictures.",
    epilog="Start with: conspec demo",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("verify")(verify.verify)
app.command("radius")(radius.radius)
app.command("estimate")(estimate.estimate)
app.command("check")(check.check)
app.command("heatmap")(heatmap.heatmap)
app.command("localize")(localize.localize)
app.command("repair")(repair.repair)
app.command("demo")(demo.demo)
app.add_typer(bench.app, name="bench")
app.add_typer(lens.app, name="lens")
app.add_typer(monitor.app, name="monitor")
app.add_typer(rules.app, name="rules")
app.add_typer(specs.app, name="specs")
app.add_typer(vnn.app, name="vnn")


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version and stop.")
    ] = False,
) -> None:
    if show_version:
        typer.echo(f"conspec {_version()}")
        raise typer.Exit
    show_help(context)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code (DESIGN.md 10)."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # a test's stream may be of another kind
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # as above
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # typer and rich turn the first into the second
        _close_quietly()
        return Exit.BROKEN_PIPE
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    return code


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = app(args=arguments, prog_name="conspec", standalone_mode=False)
    except ConspecError as error:
        return _refuse(str(error))
    except typer.TyperException as error:  # usage: an unknown option, a missing argument
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "conspec"
        return _refuse(f"{error.format_message()} (see {command} --help)")
    except OSError as error:
        if error.filename is not None:
            return _refuse(f"{error.filename}: {error.strerror}")
        if error.errno not in _NO_ROOM:
            raise
        return _refuse(f"{error.strerror}: not everything could be written")
    return int(code or Exit.PROVED)


def _refuse(message: str) -> int:
    say(f"error: {message}")
    return Exit.BAD_INPUT


def _close_quietly() -> None:
    """Let nothing be written to a closed pipe again, also when Python shuts down."""
    sink = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError, ValueError):
            os.dup2(sink, stream.fileno())


def _version() -> str:
    try:
        return version("conspec")
    except PackageNotFoundError:  # run from a folder that is not installed
        return "(not installed)"
