"""Deciding queries: verdicts, engines, counterexamples.

``verify(query)`` gives the verdict of one query, ``verify_suite(suite, lens)`` results of a suite,
``radius_suite`` how far its specs hold, ``estimate_suite`` of how many images.
Importing this package imports no engine: the certificate checker in it must run without them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conspec.verifier.decide import DEFAULT_LIMITS, ENGINES, Limits, verify, verify_suite
    from conspec.verifier.estimates import Estimate, Estimates, estimate_suite
    from conspec.verifier.objectives import Objective
    from conspec.verifier.radius import Radius, radius_suite
    from conspec.verifier.results import Coverage, Result
    from conspec.verifier.verdict import Proved, Reason, Trust, Unknown, Verdict, Violated, Witness

_HOMES = {
    "decide": ("DEFAULT_LIMITS", "ENGINES", "Limits", "verify", "verify_suite"),
    "estimates": ("Estimate", "Estimates", "estimate_suite"),
    "objectives": ("Objective",),
    "radius": ("Radius", "radius_suite"),
    "results": ("Coverage", "Result"),
    "verdict": ("Proved", "Reason", "Trust", "Unknown", "Verdict", "Violated", "Witness"),
}

__all__ = [
    "DEFAULT_LIMITS",
    "ENGINES",
    "Coverage",
    "Estimate",
    "Estimates",
    "Limits",
    "Objective",
    "Proved",
    "Radius",
    "Reason",
    "Result",
    "Trust",
    "Unknown",
    "Verdict",
    "Violated",
    "Witness",
    "estimate_suite",
    "radius_suite",
    "verify",
    "verify_suite",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"conspec.verifier.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
