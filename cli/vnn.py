"""``conspec vnn``: other people's problems, in the words of the VNN-LIB standards.

``verify`` and ``supports`` follow the solver interface of the VNN-LIB 2.0 standard (its chapter
"Solver Command-line Interface"): the answer is the first line of standard output, everything else
but the witness goes to standard error. The standard knows no exit codes; 0 means that there
is an answer.
"""

import re
from pathlib import Path
from typing import Annotated

import typer

from conspec.cli.console import say
from conspec.cli.groups import show_help
from conspec.cli.verify import Engine
from conspec.specs.errors import BadUsage, UnknownName

NetworkOption = Annotated[
    list[str],
    typer.Option(
        "--network", metavar="NAME=FILE", help="The ONNX file; VNN-LIB 1.0 needs no NAME."
    ),
]
EngineOption = Annotated[
    Engine, typer.Option("--engine", help="auto takes the cheapest that decides it.")
]
RealOption = Annotated[
    bool,
    typer.Option(
        "--real", help="Read float types of VNN-LIB 2.0 as real numbers: not IEEE arithmetic."
    ),
]

app = typer.Typer(
    help="Decide VNN-LIB 1.0 and 2.0 problems about ONNX networks, exactly over the reals.",
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    name: Annotated[bool, typer.Option("--name", help="Print the solver's name.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print its version.")] = False,
) -> None:
    if name or version:
        from importlib.metadata import version as version_of

        typer.echo("conspec" if name else version_of("conspec"))
        raise typer.Exit
    show_help(context)


@app.command()
def verify(
    query: Annotated[Path, typer.Argument(metavar="QUERY", help="A .vnnlib file.")],
    network: NetworkOption,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", help="Seconds for everything.")
    ] = 60.0,
    engine: EngineOption = Engine.AUTO,
    witness: Annotated[
        Path | None,
        typer.Option("--witness", metavar="FILE", help="If sat, write the answer here too."),
    ] = None,
    real: RealOption = False,
) -> None:
    """Search an input of the network that satisfies QUERY, or prove that there is none.

    Prints sat, unsat, unknown or timed-out, after sat the witness: exact over the reals, in the
    format of QUERY's version. What the answer rests on is told on standard error.

    Exit codes: 0 there is an answer, 3 bad input.
    """
    from conspec.cli.vnn_process import answered, checked_seconds
    from conspec.cli.vnn_worker import Job

    if len(network) != 1:
        raise BadUsage(f"{len(network)} networks are given; conspec decides queries about one")
    if witness is not None and not witness.parent.is_dir():
        raise BadUsage(f"--witness {witness}: there is no folder {witness.parent}")
    name, model = _named(network[0], query)
    answer = answered(Job(str(query), model, name, engine, checked_seconds(timeout), real))
    text = f"{answer.word}\n{answer.witness}"
    typer.echo(text, nl=False)
    if answer.witness and witness is not None:
        witness.write_text(text, encoding="utf-8")
    for note in answer.notes:
        say(note)


def _named(network: str, query: Path) -> tuple[str, str]:
    """The name and the path in ``NAME=FILE``; the name is empty in a bare ``FILE``."""
    found = re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)=(.+)", network, re.DOTALL)
    if found is None or (Path(network).exists() and not Path(found[2]).exists()):
        return "", network
    return found[1], found[2]


@app.command()
def run(
    instances: Annotated[
        Path, typer.Argument(metavar="CSV", help="Lines onnx,vnnlib,timeout as in VNN-COMP.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="CSV", help="Where results are appended.")
    ] = Path("results.csv"),
    engine: EngineOption = Engine.AUTO,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="S", help="Seconds for each, whatever CSV says."),
    ] = None,
    real: RealOption = False,
) -> None:
    """Decide each instance of CSV in a process of its own.

    Each result is appended to --out as soon as it is known, and its witness written to a folder
    beside it; started again, it continues. Files of CSV are relative to it, and may be packed
    (.gz).

    Exit codes: 0 each instance has an answer, 3 some could not be read, 130 interrupted.
    """
    from conspec.cli.vnn_run import run_instances

    raise typer.Exit(run_instances(instances, out, engine, timeout, real))


@app.command(context_settings={"ignore_unknown_options": True})
def supports(
    capability: Annotated[
        str, typer.Argument(metavar="CAPABILITY", help="Such as --onnx-operators.")
    ],
) -> None:
    """Print what conspec supports, for tools that choose among solvers.

    CAPABILITY is one of --onnx-opset-versions, --onnx-element-types, --onnx-operators,
    --vnnlib-versions, --hidden-node-theories, --multiple-input-output-theories,
    --multiple-network-theories, --multiple-node-comparison-theories,
    --arithmetic-complexity-theories, --optimised-disjunctive-reasoning, --serialise-assignments,
    --unsat-proofs.
    """
    known = _capabilities()
    if capability not in known:
        raise UnknownName(f"no capability '{capability}'; there are {', '.join(known)}")
    typer.echo("\n".join(known[capability]))


def _capabilities() -> dict[str, tuple[str, ...]]:
    """The lines printed for each capability, in the identifiers of the standard."""
    from conspec.encodings.onnx_operators import OPERATORS
    from conspec.encodings.onnx_reader import OPSETS

    return {
        "--onnx-opset-versions": (str(OPSETS.start), str(OPSETS.stop - 1)),
        "--onnx-element-types": ("real",),
        "--onnx-operators": tuple(name for name in OPERATORS if name != "Softmax"),
        "--vnnlib-versions": ("1.0", "2.0"),
        "--hidden-node-theories": ("NH",),
        "--multiple-input-output-theories": ("SIO",),
        "--multiple-network-theories": ("SNET",),
        "--multiple-node-comparison-theories": ("MNC",),
        "--arithmetic-complexity-theories": ("LIN",),
        "--optimised-disjunctive-reasoning": ("true",),
        "--serialise-assignments": ("false",),
        "--unsat-proofs": ("false",),
    }
