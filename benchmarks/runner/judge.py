"""Who is wrong: answers against witnesses, against the suite's truth, and against each other.

What settles an instance, strongest first: a witness that holds in exact arithmetic (then it is
``sat``, whoever says what), and the truth that the suite knows. What most solvers say settles
nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from conspec.benchmarks.runner.instances import ANSWERS, Instance
from conspec.benchmarks.runner.store import Row


class Kind(StrEnum):
    """What is wrong."""

    WRONG = "wrong answer"
    TRUTH = "wrong truth"
    WITNESS = "counterexample does not hold"
    OPEN = "answers contradict each other"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with the answers to an instance.

    Attributes:
        kind: what.
        instance: where.
        solvers: who is wrong; for `Kind.OPEN`, all who contradict each other, since nothing shows
            who is; none for `Kind.TRUTH`.
        why: what shows it, as a sentence.
    """

    kind: Kind
    instance: str
    solvers: tuple[str, ...]
    why: str


def find_faults(rows: Iterable[Row], instances: Mapping[str, Instance]) -> list[Fault]:
    """All that is wrong with results of one suite, by instance in the order they come in."""
    by_instance: dict[str, list[Row]] = {}
    for row in rows:
        by_instance.setdefault(row.key.instance, []).append(row)
    return [
        fault
        for name, found in by_instance.items()
        if name in instances
        for fault in _faults(instances[name], found)
    ]


def _faults(instance: Instance, rows: list[Row]) -> list[Fault]:
    faults = [
        Fault(
            Kind.WITNESS,
            instance.name,
            (row.key.solver,),
            "its counterexample is outside the inputs or does not satisfy the property, by more "
            "than 1e-4 in exact arithmetic",
        )
        for row in rows
        if row.found.witness_check == "invalid"
    ]
    said = {answer: _named(rows, answer) for answer in ANSWERS}
    exact = [row.key.solver for row in rows if row.found.witness_check == "exact"]
    if exact:
        why = f"the counterexample of {exact[0]} holds in exact arithmetic"
        if instance.truth == "unsat":
            stated = f"the suite says unsat ({instance.evidence or 'no evidence given'})"
            faults.append(Fault(Kind.TRUTH, instance.name, (), f"{stated}, but {why}"))
        return faults + _wrong(instance, said["unsat"], f"unsat, but {why}")
    if instance.truth is not None:
        wrong = "unsat" if instance.truth == "sat" else "sat"
        why = f"{wrong}, but the suite knows {instance.truth}"
        why += f" ({instance.evidence})" if instance.evidence else ""
        return faults + _wrong(instance, said[wrong], why)
    if all(said.values()):
        texts = (f"{', '.join(solvers)} say {answer}" for answer, solvers in said.items())
        everyone = tuple(dict.fromkeys(said["sat"] + said["unsat"]))
        why = f"{' and '.join(texts)}; no counterexample holds exactly, and no truth is known"
        faults.append(Fault(Kind.OPEN, instance.name, everyone, why))
    return faults


def _named(rows: list[Row], answer: str) -> tuple[str, ...]:
    """Who gave this answer."""
    return tuple(dict.fromkeys(row.key.solver for row in rows if row.found.answer == answer))


def _wrong(instance: Instance, solvers: tuple[str, ...], why: str) -> list[Fault]:
    return [Fault(Kind.WRONG, instance.name, solvers, why)] if solvers else []
