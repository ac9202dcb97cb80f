"""``conspec monitor prove``: what the monitor does on whole regions, proved or refuted."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, assert_never

import typer

from conspec.cli.console import print_json, progress, say, show, warn
from conspec.cli.exits import Exit
from conspec.cli.inputs import open_lens
from conspec.cli.rules_prove import read_scale
from conspec.cli.run import limits_of
from conspec.cli.verify import JsonOption, LensOption, some

if TYPE_CHECKING:
    from rich.table import Table

    from conspec.analysis.monitor import Monitor
    from conspec.analysis.monitor_proof import Claim, Soundness
    from conspec.lens.bundle import Lens
    from conspec.report.records import Outcome, Share
    from conspec.verifier.decide import Limits
    from conspec.verifier.verdict import Verdict, Witness

GAMMAS = ("0.1", "0.3", "0.5", "1")
"""Scales of the focus regions, unless asked otherwise."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One claim, about the focus region of a class.

    Attributes:
        claim: what is to be shown.
        gamma: scale of the region.
        coverage: share of the class's held-out embeddings in it; None without held-out data.
    """

    claim: "Claim"
    gamma: Fraction
    coverage: "Share | None"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of one claim, and how many seconds that took."""

    asked: Asked
    found: "Soundness"
    seconds: float

    @property
    def outcome(self) -> "Outcome":
        """The verdict in a word."""
        return outcome_of(self.found.verdict)


def prove(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What 'monitor fit' wrote.")],
    lens: LensOption,
    label: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Only this class; may be repeated."),
    ] = None,
    gamma: Annotated[
        list[str] | None,
        typer.Option(
            "--gamma",
            metavar="G",
            help=f"Scale of the focus regions; may be repeated; else {', '.join(GAMMAS)}.",
        ),
    ] = None,
    flags: Annotated[
        bool, typer.Option("--flags", help="Prove that all are flagged, not accepted.")
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", help="Seconds for each order of concepts.")
    ] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Prove what a monitor does on whole regions of embeddings, or refute it.

    The claim, for each class and scale: every embedding of the focus region that is predicted as
    the class is accepted. It is about the exact monitor and about embeddings, not about images.
    Ctrl-C ends it early and shows what is known.

    Exit codes: 0 all proved, 1 something violated, 2 something unknown, 3 bad input.
    """
    from conspec.analysis.monitor_export import load

    limits = limits_of(timeout, 1, "any")
    scales = list(dict.fromkeys(read_scale(text) for text in gamma or GAMMAS))
    bundle = open_lens(lens)
    monitor = load(folder).monitor
    places = dict.fromkeys(bundle.class_index(name) for name in label or bundle.classes)
    labels = [bundle.classes[place] for place in places]
    asked = [_asked(bundle, name, scale, not flags) for name in labels for scale in scales]
    answers = _decided(monitor, bundle, asked, limits)
    if as_json:
        print_json(_document(answers, len(asked), bundle, not flags))
    else:
        _show(answers, bundle, not flags)
    for note in _notes(answers, len(asked)):
        warn(note)
    raise typer.Exit(_exit_code(answers, len(asked)))


def _asked(lens: "Lens", label: str, gamma: Fraction, accepts: bool) -> Asked:
    """The claim about one region.

    Raises:
        BadRegion: the class has no focus region.
    """
    from conspec.analysis.monitor_proof import Claim
    from conspec.encodings.query import space_of
    from conspec.encodings.regions import build_regions
    from conspec.report.records import Share
    from conspec.specs.formula import Focus
    from conspec.verifier.results import coverage_of

    region = Focus(label, gamma)
    found = coverage_of(region, build_regions(region, lens), lens, space_of(lens))
    coverage = None if found is None else Share(**asdict(found))
    return Asked(Claim(label, region, accepts), gamma, coverage)


def _decided(
    monitor: "Monitor", lens: "Lens", asked: Sequence[Asked], limits: "Limits"
) -> list[Answer]:
    """The claims decided, in order; fewer than asked after Ctrl-C."""
    from conspec.analysis.monitor_proof import soundness

    answers: list[Answer] = []
    try:
        with progress() as advance:
            advance("proving", 0, len(asked))
            for one in asked:
                start = monotonic()
                found = soundness(monitor, lens, one.claim, limits)
                answers.append(Answer(one, found, monotonic() - start))
                advance("proving", len(answers), len(asked))
    except KeyboardInterrupt:
        say(f"interrupted: {len(answers)} of {len(asked)} claims are decided")
    return answers


def outcome_of(verdict: "Verdict") -> "Outcome":
    """The verdict in a word."""
    from conspec.report.records import Outcome
    from conspec.verifier.verdict import Proved, Unknown, Violated

    match verdict:
        case Proved():
            return Outcome.PROVED
        case Violated():
            return Outcome.VIOLATED
        case Unknown():
            return Outcome.UNKNOWN
        case _:
            assert_never(verdict)


def _exit_code(answers: Sequence[Answer], total: int) -> Exit:
    from conspec.report.records import Outcome

    outcomes = {answer.outcome for answer in answers}
    if len(answers) < total:
        return Exit.INTERRUPTED
    if Outcome.VIOLATED in outcomes:
        return Exit.VIOLATED
    return Exit.UNKNOWN if Outcome.UNKNOWN in outcomes else Exit.PROVED


def _notes(answers: Sequence[Answer], total: int) -> list[str]:
    """What a reader must know besides the verdicts."""
    from conspec.specs.printer import to_text

    notes = []
    if len(answers) < total:
        missing = total - len(answers)
        notes.append(f"The run was interrupted; {missing} of {total} claims are missing.")
    if names := [to_text(a.asked.claim.region) for a in answers if _is_vacuous(a.found)]:
        notes.append(
            "Vacuously proved, since no embedding of the region is predicted as the class, or the "
            f"class has no threshold: {some(names)}."
        )
    return notes


def _is_vacuous(found: "Soundness") -> bool:
    """Whether a proof says nothing: no embedding to speak of, or no threshold that could matter."""
    from conspec.analysis.calibration import ALWAYS, NEVER
    from conspec.verifier.verdict import Proved

    constant = found.threshold in (NEVER, ALWAYS)
    return isinstance(found.verdict, Proved) and (constant or found.verdict.vacuous is True)


# --- in words --------------------------------------------------------------------------------


def explanation(found: "Soundness", lens: "Lens") -> str:
    """Why the verdict is what it is, in a sentence without its full stop."""
    from conspec.analysis.calibration import ALWAYS, NEVER
    from conspec.verifier.verdict import Proved, Unknown, Violated

    constant = {NEVER: "nothing is flagged in this class", ALWAYS: "all is flagged in this class"}
    match found.verdict:
        case Proved():
            return _about_proof(found, constant.get(found.threshold))
        case Violated(witness):
            return constant.get(found.threshold) or _about_witness(found.claim, witness, lens)
        case Unknown():
            return _reason(found)
        case _:
            assert_never(found.verdict)


def _about_proof(found: "Soundness", constant: str | None) -> str:
    from conspec.verifier.verdict import Proved, Trust

    verdict = found.verdict
    if constant is not None:
        said = f"vacuous: {constant}"
    elif _is_vacuous(found):
        said = "vacuous: no embedding of the region is predicted as the class"
    elif isinstance(verdict, Proved) and verdict.bound is None:  # by the formula
        said = f"the {found.open_pairs} open pairs decided together"
    else:
        said = f"score {found.worst:.3g} at worst; threshold {found.threshold:.3g}"
    solver = isinstance(verdict, Proved) and verdict.trust is Trust.SOLVER
    return f"{said}; rests on the solver's word alone" if solver else said


def _about_witness(claim: "Claim", witness: "Witness", lens: "Lens") -> str:
    if witness.image is not None:
        which = f"the stored image {lens.image_ids[witness.image]}"
    elif witness.neighbours:
        near = witness.neighbours[0]
        which = f"an embedding at distance {near.distance:.3g} from {lens.image_ids[near.image]}"
    else:
        which = "an embedding"
    judged, side = ("flagged", "below") if claim.accepts else ("accepted", "above")
    margin = float(witness.margin)
    where = f"{margin:.3g} {side} the threshold" if margin else "exactly at the threshold"
    return f"{which} is {judged}: {where}"


def _reason(found: "Soundness") -> str:
    """Why a claim is unknown, and what to do."""
    from conspec.analysis.monitor_proof import MOST_OPEN
    from conspec.verifier.verdict import Reason, Unknown

    if not isinstance(found.verdict, Unknown):
        return ""
    reason, detail = found.verdict.reason, found.verdict.detail
    if reason is Reason.INCOMPLETE and found.open_pairs > MOST_OPEN:
        return (
            f"{found.open_pairs} pairs are open, and at most {MOST_OPEN} are decided together; "
            "take a smaller γ"
        )
    return f"{reason.value} {detail}".strip()


# --- shown -----------------------------------------------------------------------------------


def _show(answers: Sequence[Answer], lens: "Lens", accepts: bool) -> None:
    from rich.text import Text

    from conspec.report import words
    from conspec.report.records import Outcome

    if answers:
        show(_table(answers, lens, accepts))
    found = [answer.outcome for answer in answers]
    counts = ", ".join(f"{found.count(outcome)} {outcome}" for outcome in Outcome)
    noun = "claim" if len(found) == 1 else "claims"
    seconds = words.seconds(sum(answer.seconds for answer in answers))
    show(Text(f"{len(found)} {noun}: {counts} ({seconds})", style="bold"))


def _table(answers: Sequence[Answer], lens: "Lens", accepts: bool) -> "Table":
    """A row for each scale, together by class."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=_statement(accepts),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("class", overflow="fold")
    table.add_column("γ", justify="right", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("orders\nproved", justify="right", no_wrap=True)
    table.add_column("pairs\nopen", justify="right", no_wrap=True)
    table.add_column("coverage, held-out", overflow="fold")
    table.add_column("why", overflow="fold")
    before = None
    for answer in answers:
        label = answer.asked.claim.label
        if before not in (None, label):
            table.add_section()
        _add_row(table, answer, lens, is_first=label != before)
        before = label
    return table


def _add_row(table: "Table", answer: Answer, lens: "Lens", is_first: bool) -> None:
    from rich.text import Text

    from conspec.report import words
    from conspec.report.tables import plain, verdict_text
    from conspec.specs.exact import write_number

    found = answer.found
    table.add_row(
        plain(answer.asked.claim.label if is_first else "", "bold"),
        Text(write_number(answer.asked.gamma)),
        verdict_text(answer.outcome),
        Text(str(len(found.orders))),
        Text(str(found.open_pairs)),
        Text(words.coverage(answer.asked.coverage).removesuffix(" held-out")),
        plain(explanation(found, lens), "yellow" if _is_vacuous(found) else ""),
    )


def _statement(accepts: bool) -> str:
    done = "accepted" if accepts else "flagged"
    return f"Every embedding of focus(class, γ) that is predicted as the class is {done}"


def _document(answers: Sequence[Answer], total: int, lens: "Lens", accepts: bool) -> dict[str, Any]:
    """What ``--json`` prints."""
    from conspec.report.records import Outcome

    outcomes = [answer.outcome for answer in answers]
    return {
        "claim": _statement(accepts),
        "bundle": lens.hash,
        "summary": {outcome.value: outcomes.count(outcome) for outcome in Outcome},
        "complete": len(answers) == total,
        "claims": [_entry(answer, lens) for answer in answers],
    }


def _entry(answer: Answer, lens: "Lens") -> dict[str, Any]:
    from conspec.specs.exact import write_number
    from conspec.specs.printer import to_text
    from conspec.verifier.results import witness_json
    from conspec.verifier.verdict import Proved, Violated

    asked, found, verdict = answer.asked, answer.found, answer.found.verdict
    return {
        "class": asked.claim.label,
        "gamma": write_number(asked.gamma),
        "region": to_text(asked.claim.region),
        "verdict": answer.outcome.value,
        "trust": verdict.trust.value if isinstance(verdict, Proved) else None,
        "vacuous": verdict.vacuous if isinstance(verdict, Proved) else None,
        "why": explanation(found, lens),
        "threshold": found.threshold,
        "worst_score": found.worst,
        "orders_proved": len(found.orders),
        "open_pairs": found.open_pairs,
        "coverage": None if asked.coverage is None else asdict(asked.coverage),
        "counterexample": (
            witness_json(verdict.witness, lens) if isinstance(verdict, Violated) else None
        ),
        "seconds": answer.seconds,
    }
