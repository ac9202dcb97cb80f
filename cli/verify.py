"""``conspec verify``: prove, refute or leave undecided each spec of a suite."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from conspec.cli.console import print_json, say, warn
from conspec.cli.inputs import Wanted, open_lens, read_suite, select
from conspec.cli.journal import write_lines
from conspec.cli.output import EVERY_SPEC, SHEETS, Findings, show_results, write_folder
from conspec.cli.run import Outcome, Task, device_of, limits_of, run, with_alignment_margin
from conspec.specs.errors import BadUsage


class Engine(StrEnum):
    """The engines."""

    AUTO = "auto"
    BOX = "box"
    Z3 = "z3"
    HIGHS = "highs"
    GUROBI = "gurobi"
    SCIP = "scip"


class Goal(StrEnum):
    """Which counterexample is wanted."""

    ANY = "any"
    LARGEST = "largest"
    CLOSEST = "closest"


SuiteArgument = Annotated[
    str, typer.Argument(metavar="SUITE", help="A .conspec file, or - for standard input.")
]
LensOption = Annotated[
    Path, typer.Option("--lens", metavar="BUNDLE", help="The folder of a lens bundle.")
]
EngineOption = Annotated[
    Engine, typer.Option("--engine", help="auto takes the cheapest that decides a spec.")
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", metavar="S", help="Seconds for each spec.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else.")
]
JsonlOption = Annotated[
    Path | None,
    typer.Option(
        "--jsonl",
        metavar="FILE",
        help="Append each result to FILE as soon as it is known, and resume from it.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Write results.jsonl, report.html, summary.png and counterexamples/ to DIR.",
    ),
]
CountOption = Annotated[
    int,
    typer.Option("--counterexamples", metavar="K", help="How many for each violated spec."),
]
GoalOption = Annotated[
    Goal,
    typer.Option(
        "--objective",
        help="The first found, the largest violation, or the one closest to the centre.",
    ),
]
SpecOption = Annotated[
    list[str] | None,
    typer.Option("--spec", metavar="GLOB", help="Only specs of such names; may be repeated."),
]
VerboseOption = Annotated[
    bool,
    typer.Option("--verbose", help=f"A line for each spec, also for more than {EVERY_SPEC}."),
]
SheetsOption = Annotated[
    int, typer.Option("--sheets", metavar="N", min=0, help="Contact sheets in DIR, at most.")
]


MarginOption = Annotated[
    str | None,
    typer.Option(
        "--alignment-margin",
        metavar="LEVEL",
        help="Prove it of the VLM's own embedding, with this probability (such as 0.95).",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Bound the suite with torch on cpu, cuda, cuda:1, mps; numpy if not given.",
    ),
]
SingleOption = Annotated[
    bool,
    typer.Option("--float32", help="With --device: bounds in float32, wider and as rigorous."),
]


def verify(
    suite: SuiteArgument,
    lens: LensOption,
    engine: EngineOption = Engine.AUTO,
    timeout: TimeoutOption = 60.0,
    as_json: JsonOption = False,
    jsonl: JsonlOption = None,
    out: OutOption = None,
    counterexamples: CountOption = 1,
    objective: GoalOption = Goal.ANY,
    spec: SpecOption = None,
    verbose: VerboseOption = False,
    sheets: SheetsOption = SHEETS,
    alignment_margin: MarginOption = None,
    device: DeviceOption = None,
    float32: SingleOption = False,
) -> None:
    """Prove the specs of SUITE, or refute them.

    Each spec is proved over its whole region of embeddings, or refuted by one of them, or left
    unknown with the reason; never two of these.

    Exit codes: 0 all proved, 1 something violated, 2 something unknown, 3 bad input.
    """
    limits = limits_of(timeout, counterexamples, objective)
    bundle = open_lens(lens)
    wanted = select(read_suite(suite, bundle), spec or [])
    task = Task(wanted.proofs, bundle, engine, limits, device=device_of(device, float32))
    if alignment_margin is not None:
        task = with_alignment_margin(task, alignment_margin)
    found = run(task, results_file(jsonl, out))
    if as_json:
        print_json(_document(suite, found, wanted))
    else:
        show_results(found.records, verbose or len(found.lines) <= EVERY_SPEC)
    notes = _notes(found, wanted)
    for note in notes:
        warn(note)
    if out is not None:
        if jsonl is not None:
            write_lines(out / "results.jsonl", found.lines)
        findings = Findings(f"Verification of {suite}", found.records, bundle, notes)
        files = write_folder(out, findings, sheets)
        say(f"wrote {files[0]}" + (f" and {len(files) - 1} pictures" if files[1:] else ""))
    raise typer.Exit(found.exit_code(len(wanted.estimates)))


def results_file(jsonl: Path | None, out: Path | None) -> Path | None:
    """Where the results go, if anywhere.

    Raises:
        BadUsage: it cannot be a file there.
    """
    if jsonl is None:
        return None if out is None else out / "results.jsonl"
    if not jsonl.parent.is_dir():
        raise BadUsage(f"--jsonl {jsonl}: there is no folder {jsonl.parent}")
    return jsonl


def _notes(found: Outcome, wanted: Wanted) -> list[str]:
    """What a reader of the results must know besides them."""
    notes = []
    if wanted.estimates:
        notes.append(
            f"Not verified, since they ask for a probability: {some(wanted.estimates)}. "
            "conspec estimate decides them."
        )
    if not found.complete:
        done, total = len(found.lines), len(wanted.proofs.specs)
        notes.append(f"The run was interrupted; {total - done} of {total} specs are missing.")
    if vacuous := [line["spec"] for line in found.lines if line["vacuous"]]:
        notes.append(
            "Vacuously proved, since no embedding of the region satisfies the premise: "
            f"{some(vacuous)}."
        )
    return notes


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _document(suite: str, found: Outcome, wanted: Wanted) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "suite": suite,
        "summary": _counts([line["verdict"] for line in found.lines]),
        "complete": found.complete,
        "not_verified": list(wanted.estimates),
        "results": list(found.lines),
    }


def _counts(verdicts: Sequence[str]) -> dict[str, int]:
    return {word: verdicts.count(word) for word in ("proved", "violated", "unknown")}
