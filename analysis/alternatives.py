"""The ways in which a formula can be made true at one point."""

from collections.abc import Callable, Sequence
from itertools import combinations, product
from math import comb, prod

from conspec.specs.errors import BadUsage
from conspec.specs.rewrite import All, Cone, Count, Halfspace, Literal, Nnf, Some

_CHOICES = 4096
"""Alternatives of one formula at one point, at most."""

Option = frozenset[Halfspace]
"""Comparisons that together make a formula true at a point."""


def conjuncts(nnf: Nnf) -> list[Halfspace] | None:
    """The comparisons of a formula that is nothing but a conjunction of them."""
    parts = nnf.operands if isinstance(nnf, All) else (nnf,)
    found = [part for part in parts if isinstance(part, Halfspace)]
    return found if len(found) == len(parts) else None


def alternatives(nnf: Nnf, known: Callable[[Literal], bool | None], spec: str) -> list[Option]:
    """The alternatives that make a formula true; one that asks for nothing stands alone.

    Args:
        nnf: the formula.
        known: the truth of a literal that no change of the head can alter, else None.
        spec: its name, for messages.

    Raises:
        BadUsage: there are too many alternatives.
    """
    if isinstance(nnf, Halfspace | Cone):
        truth = known(nnf)
        if truth is None and isinstance(nnf, Halfspace):
            return [frozenset({nnf})]
        return [frozenset()] if truth else []
    inner = [alternatives(part, known, spec) for part in nnf.operands]
    match nnf:
        case Some():
            found = [option for options in inner for option in options]
        case All():
            found = _joined(inner, spec)
        case Count(count, _):
            if comb(len(inner), count) > _CHOICES:
                raise _too_many(spec)
            found = [
                option for chosen in combinations(inner, count) for option in _joined(chosen, spec)
            ]
    if len(found) > _CHOICES:
        raise _too_many(spec)
    return [frozenset()] if frozenset() in found else list(dict.fromkeys(found))


def _joined(parts: Sequence[Sequence[Option]], spec: str) -> list[Option]:
    """One option of each part, together, in every way."""
    if prod(len(options) for options in parts) > _CHOICES:
        raise _too_many(spec)
    return [frozenset().union(*chosen) for chosen in product(*parts)]


def _too_many(spec: str) -> BadUsage:
    return BadUsage(
        f"spec {spec}: its formula can be made true in more than {_CHOICES} ways at one point; "
        "split it into simpler specs"
    )
