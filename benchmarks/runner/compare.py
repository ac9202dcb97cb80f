"""Which answers of the solvers hold, and what that adds up to.

An instance is ``sat`` once any solver gave a witness that holds in exact arithmetic; else its truth
is what the suite says. What most solvers say settles nothing.
"""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from conspec.benchmarks.runner.collected import Answer, Check, Collection, Instance, Result

POINTS = 10
"""VNN-COMP 2026: for an answer that nothing refutes, ``sat`` with a valid witness."""
PENALTY = -150
"""VNN-COMP 2026: for a wrong answer, or ``sat`` without a valid witness."""
_VALID = (Check.EXACT, Check.TOLERANCE)
_REFUTED = (Check.INVALID, Check.MISSING)
_DEFINITE = (Answer.SAT, Answer.UNSAT)


class Judgement(StrEnum):
    """Whether an answer ``sat`` or ``unsat`` is the truth."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNJUDGED = "unjudged"


class Outcome(StrEnum):
    """What a result counts as; each counts once."""

    SAT = "sat"
    UNSAT = "unsat"
    WRONG = "wrong"
    UNWITNESSED = "sat, no valid witness"
    OPEN = "contradicted, open"
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    ERROR = "error"
    GARBAGE = "garbage"
    UNSUPPORTED = "unsupported"


SOLVED = (Outcome.SAT, Outcome.UNSAT)


@dataclass(frozen=True, slots=True)
class Settled:
    """What is known of an instance.

    Attributes:
        truth: ``Answer.SAT``, ``Answer.UNSAT`` or None.
        why: what that rests on, or why it is open.
        contested: nothing settles it, and nothing refutes either of two contradicting answers.
    """

    truth: Answer | None
    why: str
    contested: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """A result, and what it counts as.

    Attributes:
        result: the result.
        judgement: of an answer ``sat`` or ``unsat``, None for the others.
        outcome: what it counts as in the tables.
        points: in the score of VNN-COMP 2026.
    """

    result: Result
    judgement: Judgement | None
    outcome: Outcome
    points: int

    @property
    def solved(self) -> bool:
        """Whether it counts as solved."""
        return self.outcome in SOLVED

    @property
    def par2(self) -> float:
        """Seconds; twice the limit unless solved."""
        return self.result.seconds if self.solved else 2 * self.result.limit


@dataclass(frozen=True, slots=True)
class Line:
    """One solver on one suite.

    Attributes:
        solver: its name.
        counts: how many results count as what.
        unjudged: how many of the solved ones nothing but the solver speaks for.
        par2: mean of ``Judged.par2``.
        median: of the seconds on the instances of ``Comparison.common``; None if there are none.
        peak_mib: most memory of its processes.
        unique: instances that no other solver of the comparison solved.
        checks: what the checks of its ``sat`` answers' witnesses found.
        float32: what the replays of them in float32 found.
        points: the score of VNN-COMP 2026, summed.
    """

    solver: str
    counts: Mapping[Outcome, int]
    unjudged: int
    par2: float
    median: float | None
    peak_mib: float
    unique: int
    checks: Mapping[Check, int]
    float32: Mapping[str, int]
    points: int

    @property
    def asked(self) -> int:
        """How many instances it was asked."""
        return sum(self.counts.values())

    @property
    def solved(self) -> int:
        """How many it solved."""
        return sum(self.counts.get(outcome, 0) for outcome in SOLVED)


@dataclass(frozen=True, slots=True)
class Best:
    """The virtual best solver: for each instance the fastest that solved it.

    Attributes:
        sat: how many it solves with this answer.
        unsat: how many it solves with this answer.
        par2: as of a solver; the largest limit counts for what nobody solved.
    """

    sat: int
    unsat: int
    par2: float


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An instance on which answers contradict each other, or the truth."""

    instance: Instance
    settled: Settled
    answers: tuple[Judged, ...]

    @property
    def wrong(self) -> list[str]:
        """The solvers that are shown wrong."""
        return [j.result.solver for j in self.answers if j.judgement is Judgement.WRONG]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All solvers on one suite.

    Attributes:
        suite: its name.
        instances: its instances, also those that nobody was asked.
        settled: what is known of each.
        judged: every result.
        lines: one a solver, by name.
        best: the virtual best.
        common: how many instances all those solved that solved any.
        families: for each family, how many instances it has and who solved how many;
            the virtual best under the name ``""``.
        disagreements: instances with contradicting answers.
    """

    suite: str
    instances: tuple[Instance, ...]
    settled: Mapping[Instance, Settled]
    judged: tuple[Judged, ...]
    lines: tuple[Line, ...]
    best: Best
    common: int
    families: Mapping[str, tuple[int, Mapping[str, int]]]
    disagreements: tuple[Disagreement, ...]


def settle(instance: Instance, results: Iterable[Result]) -> Settled:
    """What is known of an instance, given all results about it."""
    answers = list(results)
    stated = instance.evidence or "no evidence named"
    if found := [r.solver for r in answers if r.check is Check.EXACT]:
        why = f"exact witness of {', '.join(found)}"
        if instance.truth is Answer.UNSAT:
            why += f"; so the suite's truth is wrong, unsat by {stated}"
        return Settled(Answer.SAT, why)
    if instance.truth is not None:
        return Settled(instance.truth, f"the suite's truth: {stated}")
    claimed = any(r.answer is Answer.SAT and r.check not in _REFUTED for r in answers)
    denied = any(r.answer is Answer.UNSAT for r in answers)
    return Settled(None, "nothing settles it", contested=claimed and denied)


def judge(result: Result, settled: Settled) -> Judged:
    """What a result counts as, given what is known of its instance."""
    points = _points(result, settled)
    if result.answer not in _DEFINITE:
        return Judged(result, None, Outcome(result.answer.value), points)
    judgement = Judgement.UNJUDGED
    if settled.truth is not None:
        right = result.answer is settled.truth
        judgement = Judgement.CORRECT if right else Judgement.WRONG
    return Judged(result, judgement, _outcome(result, settled, judgement), points)


def _outcome(result: Result, settled: Settled, judgement: Judgement) -> Outcome:
    """Of an answer ``sat`` or ``unsat``; a wrong one stays wrong when it comes too late."""
    if judgement is Judgement.WRONG:
        return Outcome.WRONG
    if result.seconds > result.limit:
        return Outcome.TIMEOUT
    if result.check in _REFUTED:
        return Outcome.UNWITNESSED
    return Outcome.OPEN if settled.contested else Outcome(result.answer.value)


def _points(result: Result, settled: Settled) -> int:
    """Points in VNN-COMP 2026, whose scoring code this follows (``Judged.points``).

    An answer after the limit is a timeout. ``unsat`` counts unless the instance is known to be
    ``sat``. ``sat`` counts with a witness that is valid within 1e-4, and gives nothing where there
    is no way to check it.
    """
    if result.answer not in _DEFINITE or result.seconds > result.limit:
        return 0
    if result.answer is Answer.UNSAT:
        return PENALTY if settled.truth is Answer.SAT else POINTS
    if result.check in _REFUTED:
        return PENALTY
    return POINTS if result.check in _VALID else 0


def compare(collection: Collection) -> list[Comparison]:
    """All suites, by name."""
    return [_suite(collection, suite) for suite in collection.suites]


def _suite(collection: Collection, suite: str) -> Comparison:
    instances = tuple(i for i in collection.instances if i.suite == suite)
    by_instance: dict[Instance, list[Result]] = {instance: [] for instance in instances}
    for result in collection.results:
        if result.instance.suite == suite:
            by_instance[result.instance].append(result)
    settled = {instance: settle(instance, found) for instance, found in by_instance.items()}
    judged = {
        instance: [judge(result, settled[instance]) for result in found]
        for instance, found in by_instance.items()
    }
    everything = tuple(entry for found in judged.values() for entry in found)
    common = _common(judged, {entry.result.solver for entry in everything if entry.solved})
    solvers = sorted({entry.result.solver for entry in everything})
    return Comparison(
        suite,
        instances,
        settled,
        everything,
        tuple(_line(solver, judged, common) for solver in solvers),
        _best(judged),
        len(common),
        _families(judged),
        _disagreements(judged, settled),
    )


def _common(judged: Mapping[Instance, Sequence[Judged]], solvers: set[str]) -> set[Instance]:
    """The instances that all of these solvers solved."""
    return {
        instance
        for instance, found in judged.items()
        if solvers and solvers == {entry.result.solver for entry in found if entry.solved}
    }


def _line(solver: str, judged: Mapping[Instance, Sequence[Judged]], common: set[Instance]) -> Line:
    own = [e for found in judged.values() for e in found if e.result.solver == solver]
    times = [e.result.seconds for e in own if e.solved and e.result.instance in common]
    alone = [
        instance
        for instance, found in judged.items()
        if [entry.result.solver for entry in found if entry.solved] == [solver]
    ]
    return Line(
        solver,
        Counter(entry.outcome for entry in own),
        sum(entry.solved and entry.judgement is Judgement.UNJUDGED for entry in own),
        statistics.fmean(entry.par2 for entry in own),
        statistics.median(times) if times else None,
        max(entry.result.peak_mib for entry in own),
        len(alone),
        Counter(entry.result.check for entry in own if entry.result.check is not None),
        Counter(entry.result.float32 for entry in own if entry.result.float32),
        sum(entry.points for entry in own),
    )


def fastest(judged: Iterable[Judged]) -> list[Judged]:
    """The fastest result that solves, for each instance that has one."""
    best: dict[Instance, Judged] = {}
    for entry in judged:
        known = best.get(entry.result.instance)
        if entry.solved and (known is None or entry.result.seconds < known.result.seconds):
            best[entry.result.instance] = entry
    return list(best.values())


def _best(judged: Mapping[Instance, Sequence[Judged]]) -> Best:
    solved = fastest(entry for found in judged.values() for entry in found)
    missed = [
        2 * max(entry.result.limit for entry in found)
        for found in judged.values()
        if found and not any(entry.solved for entry in found)
    ]
    times = [entry.result.seconds for entry in solved] + missed
    counts = Counter(entry.outcome for entry in solved)
    par2 = statistics.fmean(times) if times else 0.0
    return Best(counts[Outcome.SAT], counts[Outcome.UNSAT], par2)


def _families(
    judged: Mapping[Instance, Sequence[Judged]],
) -> dict[str, tuple[int, Mapping[str, int]]]:
    sizes = Counter(instance.family for instance in judged)
    solved: dict[str, Counter[str]] = {family: Counter() for family in sorted(sizes)}
    for instance, found in judged.items():
        names = [entry.result.solver for entry in found if entry.solved]
        solved[instance.family].update([*names, ""] if names else [])
    return {family: (sizes[family], counts) for family, counts in solved.items()}


def _disagreements(
    judged: Mapping[Instance, Sequence[Judged]], settled: Mapping[Instance, Settled]
) -> tuple[Disagreement, ...]:
    found = []
    for instance, entries in judged.items():
        answers = tuple(entry for entry in entries if entry.judgement is not None)
        said = {entry.result.answer for entry in answers}
        said |= {truth} if (truth := instance.truth) else set()
        if answers and len(said) > 1:
            found.append(Disagreement(instance, settled[instance], answers))
    return tuple(found)
