"""A violation as a few cases, each a conjunction, that are settled one after the other.

The violation of ``predict(c)`` holds if some other logit is as large: one case per class. On a
ReLU head a case is far easier than all of them at once: its literals narrow the ranges of the
neurons before a solver sees them (``conspec.encodings.tightening``), and fewer neurons matter.
"""

from collections.abc import Sequence
from itertools import combinations
from math import comb

from conspec.specs.rewrite import All, Cone, Count, Halfspace, Literal, Nnf, Some

Parts = tuple[Nnf, ...]
CASES = 32
"""Cases that a violation may be split into; what would make more stays a disjunction in them."""


def cases_of(violation: Nnf, limit: int = CASES) -> list[All]:
    """Conjunctions of which at least one holds exactly where the violation does.

    Disjunctions and counts are multiplied out while there are at most ``limit`` cases.
    """
    done: list[Parts] = []
    left = [_flat((violation,))]
    while left:
        case = left.pop()
        node = _smallest(case)
        if node is None or len(done) + len(left) + _number(node) > limit:
            done.append(case)
            continue
        rest = tuple(part for part in case if part is not node)
        left += [_flat((*choice, *rest)) for choice in reversed(_choices(node))]
    return [All(case) for case in done]


def literals_of(case: All) -> list[Halfspace]:
    """The half-spaces that hold wherever the case does."""
    return [part for part in case.operands if isinstance(part, Halfspace)]


def _flat(case: Sequence[Nnf]) -> Parts:
    """The case without conjunctions inside it and without repetitions."""
    found: dict[int | Literal, Nnf] = {}
    for part in case:
        inner = _flat(part.operands) if isinstance(part, All) else (part,)
        for one in inner:
            found.setdefault(one if isinstance(one, (Halfspace, Cone)) else id(one), one)
    return tuple(found.values())


def _smallest(case: Parts) -> Some | Count | None:
    """The disjunction of the case with the fewest choices."""
    open_parts = [part for part in case if isinstance(part, (Some, Count))]
    return min(open_parts, key=_number, default=None)


def _number(node: Some | Count) -> int:
    """How many choices a disjunction has."""
    if isinstance(node, Some):
        return len(node.operands)
    return comb(len(node.operands), node.count)


def _choices(node: Some | Count) -> list[Parts]:
    """The conjunctions of which at least one holds where the node does."""
    if isinstance(node, Some):
        return [(part,) for part in node.operands]
    return list(combinations(node.operands, node.count))
