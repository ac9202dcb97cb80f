"""Deciding queries: verdicts, engines, counterexamples.

``verify(query)`` gives the verdict of one query, ``verify_suite(suite, lens)`` results of a suite.
"""

from conspec.verifier.decide import DEFAULT_LIMITS, ENGINES, Limits, verify, verify_suite
from conspec.verifier.objectives import Objective
from conspec.verifier.results import Coverage, Result
from conspec.verifier.verdict import Proved, Reason, Trust, Unknown, Verdict, Violated, Witness

__all__ = [
    "DEFAULT_LIMITS",
    "ENGINES",
    "Coverage",
    "Limits",
    "Objective",
    "Proved",
    "Reason",
    "Result",
    "Trust",
    "Unknown",
    "Verdict",
    "Violated",
    "Witness",
    "verify",
    "verify_suite",
]
