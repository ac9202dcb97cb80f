"""``conspec check``: re-establish the verdicts of a results file in exact arithmetic.

No engine, no solver and no torch takes part: only the checker and what it trusts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conspec.cli.console import Advance, print_json, progress, show
from conspec.cli.exits import Exit
from conspec.cli.inputs import bundle_folder
from conspec.specs.errors import BadFile

if TYPE_CHECKING:
    from rich.table import Table

    from conspec.verifier.checker_files import Bundle

ResultsArgument = Annotated[
    Path, typer.Argument(metavar="RESULTS", help="A results file: JSON Lines of conspec verify.")
]
LensOption = Annotated[
    Path, typer.Option("--lens", metavar="BUNDLE", help="The lens bundle they speak of.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else.")
]

ROWS = {
    "proof": "proofs re-established",
    "counterexample": "violations re-established",
    "solver": "proofs on the word of a solver: nothing to check",
    "unknown": "unknown: nothing to check",
}
"""What a line can turn out to be, and how that is said."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that does not establish what it says.

    Attributes:
        line: its number, from 1.
        spec: the name of its spec.
        reason: why.
    """

    line: int
    spec: str
    reason: str


@dataclass
class Findings:
    """What checking a file gave.

    Attributes:
        counts: how many lines there are of each kind in ``ROWS``.
        refused: the lines refused.
        seconds: time spent on checking.
    """

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROWS, 0))
    refused: list[Refusal] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def established(self) -> int:
        """How many verdicts stand."""
        return self.counts["proof"] + self.counts["counterexample"]

    @property
    def milliseconds(self) -> float:
        """The mean time of a line that claims something."""
        return 1000 * self.seconds / max(self.established + len(self.refused), 1)

    @property
    def exit_code(self) -> Exit:
        """0 if all that is claimed stands, and something is claimed."""
        if self.refused:
            return Exit.VIOLATED
        return Exit.PROVED if self.established else Exit.UNKNOWN


def check(results: ResultsArgument, lens: LensOption, as_json: JsonOption = False) -> None:
    """Re-establish every certified proof and every counterexample of RESULTS.

    Weights, statistics and atoms are derived anew from BUNDLE and the specs' texts, and each
    proof is checked in exact arithmetic; no solver and no torch takes part. What is not claimed
    by a certificate or a counterexample (margins, coverage, times) is not checked.

    Exit codes: 0 all re-established, 1 a line is refused, 2 no line claims anything that can be
    checked, 3 bad input.
    """
    bundle = opened(lens)
    found = recheck(results, bundle)
    if as_json:
        print_json(_document(results, bundle, found))
    else:
        _show(found)
    raise typer.Exit(found.exit_code)


def recheck(results: Path, bundle: "Bundle") -> Findings:
    """Check every line of a results file.

    Raises:
        BadFile: it is none.
    """
    total = _lines_in(results)
    with progress() as advance:
        return _checked(results, bundle, total, advance)


def opened(path: Path) -> "Bundle":
    """The bundle, with files that are those its manifest names.

    Raises:
        BadFile: it is none, or a file is not that.
    """
    from conspec.verifier.checker_files import Bundle, Refused

    bundle = Bundle(bundle_folder(path))
    try:
        _ = bundle.hash, bundle.classes, bundle.size, bundle.concepts, bundle.head
    except OSError as error:
        raise BadFile(f"{path}: no lens bundle: {error.filename}: {error.strerror}") from error
    except (Refused, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise BadFile(f"{path}: no lens bundle that can be checked: {error}") from error
    return bundle


def _lines_in(path: Path) -> int:
    """How many lines a file has.

    Raises:
        BadFile: none.
    """
    with path.open("rb") as stream:
        total = sum(1 for _ in stream)
    if not total:
        raise BadFile(f"{path}: there is no result in it")
    return total


def _checked(path: Path, bundle: "Bundle", total: int, advance: Advance) -> Findings:
    """Every line of a results file, checked one by one."""
    from conspec.verifier.checker import check_line
    from conspec.verifier.checker_files import Refused

    found = Findings()
    for number, line in _lines(path):
        start = perf_counter()
        try:
            kind = check_line(line, bundle)
        except Refused as error:
            found.refused.append(Refusal(number, str(line.get("spec")), str(error)))
        else:
            unknown = line["verdict"] == "unknown"
            found.counts[kind if kind in ROWS else "unknown" if unknown else "solver"] += 1
        found.seconds += perf_counter() - start
        advance("checking", number, total)
    return found


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a results file with their numbers, one at a time.

    Raises:
        BadFile: a line is no JSON object.
    """
    from conspec.verifier.checker_files import strict_json

    with path.open("rb") as stream:
        for number, text in enumerate(stream, start=1):
            try:
                line = strict_json(text)
            except (ValueError, RecursionError) as error:
                raise BadFile(f"{path}:{number}: not a results line: {error}") from error
            if not isinstance(line, dict):
                raise BadFile(f"{path}:{number}: not a results line: no JSON object")
            yield number, line


def _show(found: Findings) -> None:
    """Print the refused lines and the counts."""
    from rich.text import Text

    if found.refused:
        show(_refusals(found))
    show(_summary(found))
    show(Text(said(found), style="bold red" if found.refused else "bold"))


def said(found: Findings) -> str:
    """The outcome in a line."""
    from conspec.report import words

    time = words.seconds(found.milliseconds / 1000)
    return f"{found.established} re-established, {len(found.refused)} refused ({time} a line)"


def _refusals(found: Findings) -> "Table":
    """One row a refused line."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from conspec.report.tables import plain

    table = Table(title="Refused", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("line", justify="right")
    table.add_column("spec", overflow="fold")
    table.add_column("reason", overflow="fold")
    for refusal in found.refused:
        table.add_row(str(refusal.line), plain(refusal.spec), plain(refusal.reason))
    return table


def _summary(found: Findings) -> "Table":
    """How many lines turned out to be what."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Checked", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("lines", justify="right")
    table.add_column("what they are")
    for kind, words in ROWS.items():
        if found.counts[kind]:
            table.add_row(str(found.counts[kind]), words)
    if found.refused:
        table.add_row(Text(str(len(found.refused)), style="bold red"), "refused")
    return table


def _document(path: Path, bundle: "Bundle", found: Findings) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "results": str(path),
        "bundle": bundle.hash,
        "summary": {**found.counts, "refused": len(found.refused)},
        "refused": [
            {"line": refusal.line, "spec": refusal.spec, "reason": refusal.reason}
            for refusal in found.refused
        ],
        "milliseconds": found.milliseconds,
    }
