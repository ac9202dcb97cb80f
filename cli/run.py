"""One verification run: what is already known is read, the rest is computed and written."""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from conspec.cli.console import progress, say
from conspec.cli.exits import Exit
from conspec.cli.journal import Job, Journal, Line, open_journal
from conspec.specs.errors import BadUsage
from conspec.specs.formula import ForAll, Suite

if TYPE_CHECKING:
    from conspec.lens.bundle import Lens
    from conspec.report.records import Record
    from conspec.verifier.decide import Limits
    from conspec.verifier.device import Device


@dataclass(frozen=True, slots=True)
class Task:
    """What to verify, and how.

    Attributes:
        suite: specs to be proved.
        lens: the bundle.
        engine: the engine asked for.
        limits: see ``verifier.decide``.
        assumptions: by a spec's text, what its verdict means and assumes beyond its region.
        undecided: texts of specs for which there are too few images to calibrate on.
        device: where the screen computes; numpy if None.
    """

    suite: Suite
    lens: "Lens"
    engine: str
    limits: "Limits"
    assumptions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    undecided: Collection[str] = ()
    device: "Device | None" = None

    @property
    def job(self) -> Job:
        """What a line of an earlier run is compared with."""
        return Job(
            engine=self.engine,
            bundle=self.lens.hash,
            seconds=self.limits.seconds,
            counterexamples=self.limits.counterexamples,
            objective=self.limits.objective.value,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run gave.

    Attributes:
        lines: the results lines, in the order of the suite.
        complete: whether every spec has one; not so after Ctrl-C.
    """

    lines: tuple[Line, ...]
    complete: bool

    @property
    def records(self) -> "tuple[Record, ...]":
        """The lines read."""
        from conspec.report.records import read_record

        return tuple(map(read_record, self.lines))

    def exit_code(self, skipped: int = 0) -> Exit:
        """The command's exit code; a spec that was left out counts as unknown."""
        verdicts = {line["verdict"] for line in self.lines}
        if not self.complete:
            return Exit.INTERRUPTED
        if "violated" in verdicts:
            return Exit.VIOLATED
        if "unknown" in verdicts or skipped:
            return Exit.UNKNOWN
        return Exit.PROVED


def limits_of(seconds: float, counterexamples: int, objective: str) -> "Limits":
    """The limits that the options ask for.

    Raises:
        BadUsage: one of them is out of range.
    """
    from conspec.verifier.decide import Limits
    from conspec.verifier.objectives import Objective

    if not 0 < seconds < math.inf:
        raise BadUsage(f"--timeout {seconds:g}: must be above 0 seconds, and finite")
    if counterexamples < 1:
        raise BadUsage(f"--counterexamples {counterexamples}: must be at least 1")
    return Limits(seconds, counterexamples, Objective(objective))


def device_of(name: str | None, single: bool) -> "Device | None":
    """The device that the options ask for.

    Raises:
        BadUsage: it cannot be used, or a precision is asked for without a device.
    """
    from conspec.verifier.device import Device

    if name is None:
        if single:
            raise BadUsage("--float32 needs --device")
        return None
    return Device(name, single)


def with_alignment_margin(task: Task, level: str) -> Task:
    """The task whose proofs say something about the VLM's own embeddings.

    Raises:
        BadUsage: the level is no number between 0 and 1, or a formula cannot be given margins.
    """
    from conspec.specs.exact import read_number
    from conspec.specs.printer import to_text
    from conspec.verifier.alignment_margin import Residuals, with_margins

    try:
        share = read_number(level)
    except (ValueError, ZeroDivisionError) as error:
        raise BadUsage(f"--alignment-margin {level}: must be a number such as 0.95") from error
    residuals = Residuals.of(task.lens)
    specs = [spec for spec in task.suite.specs if isinstance(spec, ForAll)]
    shifted = {
        to_text(found.spec): found for found in (with_margins(s, residuals, share) for s in specs)
    }
    return replace(
        task,
        suite=Suite(tuple(found.spec for found in shifted.values())),
        assumptions={text: found.assumptions for text, found in shifted.items()},
        undecided=[text for text, found in shifted.items() if not found.is_bounded],
    )


def run(task: Task, path: Path | None) -> Outcome:
    """Verify a suite; each result is appended to the results file ``path`` as soon as known.

    Ctrl-C ends it early; what is known by then is returned, and stands in the file.
    """
    journal = open_journal(path)
    known = _known(task, journal)
    total = len(task.suite.specs)
    if known and path is not None:
        say(f"{path}: {len(known)} of {total} specs are answered already")
    complete = False
    try:
        with progress() as advance:
            advance("verifying", len(known), total)
            for text, line in _computed(task, journal, known):
                known[text] = line
                advance("verifying", len(known), total)
        complete = True
    except KeyboardInterrupt:
        say(f"interrupted: {len(known)} of {total} specs are done")
    texts = _texts(task.suite)
    return Outcome(tuple(known[text] for text in texts if text in known), complete)


def _texts(suite: Suite) -> list[str]:
    """The text of each spec, by which results lines are known."""
    from conspec.specs.printer import to_text

    return [to_text(spec) for spec in suite.specs]


def _known(task: Task, journal: Journal) -> dict[str, Line]:
    answers: Mapping[str, Line] = journal.answers(task.job)
    return {
        text: answers[text]
        for text in _texts(task.suite)
        if text in answers and _assumed(task, text) == answers[text].get("assumptions", [])
    }


def _assumed(task: Task, text: str) -> list[str]:
    return list(task.assumptions.get(text, ()))


def _computed(
    task: Task, journal: Journal, known: Mapping[str, Line]
) -> Iterator[tuple[str, Line]]:
    from conspec.specs.printer import to_text
    from conspec.verifier.alignment_margin import undecided
    from conspec.verifier.decide import verify_suite
    from conspec.verifier.results import to_json
    from conspec.verifier.verdict import Reason, Unknown

    pairs = zip(task.suite.specs, _texts(task.suite), strict=True)
    pending = {text: spec for spec, text in pairs if text not in known}
    asked = Suite(tuple(spec for text, spec in pending.items() if text not in task.undecided))
    decided = (
        verify_suite(asked, task.lens, task.engine, task.limits, task.device) if asked.specs else ()
    )
    left = (
        undecided(spec, task.lens, task.engine)
        for text, spec in pending.items()
        if text in task.undecided and isinstance(spec, ForAll)
    )
    for result in chain(decided, left):
        if task.assumptions:
            said = task.assumptions.get(to_text(result.spec), ())
            result = replace(result, assumptions=said)
        line = task.job.signed(to_json(result, task.lens))
        verdict = result.verdict
        if not (isinstance(verdict, Unknown) and verdict.reason is Reason.INTERRUPTED):
            journal.append(line)
        yield line["text"], line
