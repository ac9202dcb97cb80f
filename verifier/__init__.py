"""Deciding queries: verdicts, engines, counterexamples.

``verify(query)`` gives the verdict of one query, ``verify_suite(suite, lens)`` results of a suite.
Importing this package imports no engine: the certificate checker in it must run without them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conspec.verifier.decide import DEFAULT_LIMITS, ENGINES, Limits, verify, verify_suite
    from conspec.verifier.objectives import Objective
    from conspec.verifier.results import Coverage, Result
    from conspec.verifier.verdict import Proved, Reason, Trust, Unknown, Verdict, Violated, Witness

_HOMES = {
    "decide": ("DEFAULT_LIMITS", "ENGINES", "Limits", "verify", "verify_suite"),
    "objectives": ("Objective",),
    "results": ("Coverage", "Result"),
    "verdict": ("Proved", "Reason", "Trust", "Unknown", "Verdict", "Violated", "Witness"),
}

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


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"conspec.verifier.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
