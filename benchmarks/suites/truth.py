"""The known answers of a suite, each with what it rests on.

``sat`` says that a counterexample exists, ``unsat`` that none does. An answer is a results line of
conspec: an exact counterexample, or a proof with its certificate, both of which ``conspec check``
re-establishes. For ReLU logits a proof has no certificate: it rests on conspec's linear bounds, or
on a solver's word; then a second solver is asked, and both are named. What was not decided has no
answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never

from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.specs.errors import MissingSolver
from conspec.verifier.decide import Limits, verify_suite
from conspec.verifier.engines import MILP_SOLVERS
from conspec.verifier.results import Result, to_json
from conspec.verifier.verdict import Proved, Trust, Unknown, Verdict, Violated

Answer = Literal["sat", "unsat"] | None
BOUNDS = "bounds"
"""The stage of linear bounds, which no solver has a part in."""


@dataclass(frozen=True)
class Truth:
    """What is known of one spec.

    Attributes:
        result: the verdict that the answer rests on.
        solvers: for a proof on the word of solvers, those that gave it; else empty.
        disagreement: what a solver claimed against it; None if none did.
    """

    result: Result
    solvers: tuple[str, ...] = ()
    disagreement: str | None = None

    @property
    def answer(self) -> Answer:
        """Whether a counterexample exists; None if that is not known."""
        return answer_of(self.result.verdict)


def answer_of(verdict: Verdict) -> Answer:
    """A verdict in the words of satisfiability."""
    match verdict:
        case Proved():
            return "unsat"
        case Violated():
            return "sat"
        case Unknown():
            return None
        case _:
            assert_never(verdict)


def ground_truth(specs: Sequence[f.ForAll], lens: Lens, seconds: float) -> Iterator[Truth]:
    """The known answers of specs, in order, each as soon as it is found.

    Args:
        specs: over regions that are no unions.
        lens: their bundle.
        seconds: time limit of each solver that is asked about a spec.
    """
    limits = Limits(seconds)
    for result in verify_suite(f.Suite(tuple(specs)), lens, "auto", limits):
        verdict = result.verdict
        is_solvers = isinstance(verdict, Proved) and verdict.trust is Trust.SOLVER
        if is_solvers and result.decided_by != BOUNDS:
            yield _seconded(result, lens, limits)
        else:
            yield Truth(result)


def _seconded(first: Result, lens: Lens, limits: Limits) -> Truth:
    """A solver's proof, with the answer of another solver where one can be had."""
    own = first.decided_by
    for engine in MILP_SOLVERS:
        if engine == own:
            continue
        try:
            (second,) = verify_suite(f.Suite((first.spec,)), lens, engine, limits)
        except MissingSolver:
            continue
        match second.verdict:
            case Proved():
                return Truth(first, (own, second.decided_by))
            case Violated():  # its counterexample is exact, so the first solver was wrong
                return Truth(second, (), f"{own} said unsat")
            case Unknown():
                continue
    return Truth(first, (own,))


def truth_line(truth: Truth, lens: Lens) -> dict[str, Any]:
    """The results line of an answer, which ``conspec check`` reads, with the answer beside it.

    Times are left at zero, so that the same suite has the same file.
    """
    line = to_json(truth.result, lens)
    verdict = truth.result.verdict
    if isinstance(verdict, Unknown):
        line["reason"] = verdict.reason.value  # without the solver's numbers
    return {
        **line,
        "seconds": 0.0,
        "instance": truth.result.spec.name,
        "answer": truth.answer,
        "evidence": evidence(truth),
        "disagreement": truth.disagreement,
    }


def evidence(truth: Truth) -> str:
    """What an answer rests on, in a few words."""
    match truth.result.verdict:
        case Violated():
            return "exact counterexample"
        case Proved(trust=Trust.CERTIFIED):
            return "certificate"
        case Proved():
            return "solvers " + " and ".join(truth.solvers) if truth.solvers else "linear bounds"
        case Unknown():
            return "not decided"
        case _:
            assert_never(truth.result.verdict)
