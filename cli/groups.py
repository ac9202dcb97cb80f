"""Groups of commands."""

import typer


def group(about: str) -> typer.Typer:
    """A group of commands that shows its help when it is called without one."""
    app = typer.Typer(help=about, rich_markup_mode=None)
    app.callback(invoke_without_command=True)(show_help)
    return app


def show_help(context: typer.Context) -> None:
    """Print the help of a group if no command of it was named."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit
