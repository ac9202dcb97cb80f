"""Formulas for formats that know only ``and`` and ``or``: counting written out, normal forms.

"At least k of n" is split in the middle: for some i, at least i hold on the left and at least
k − i on the right. The parts for one (half, i) are shared, so the result is a graph of O(n²)
nodes. Written as text it is a tree, of size n^O(log n) in the worst case and not C(n, k);
`written_size` tells how long the text will be before it is written.
"""

from collections.abc import Callable, Sequence

from conspec.encodings.query import fold
from conspec.specs.rewrite import FALSE, TRUE, All, Count, Literal, Nnf, Some


def without_counts(nnf: Nnf) -> Nnf:
    """An equivalent formula of literals, `All` and `Some` alone."""
    return fold(nnf, lambda literal: literal, at_least)


def at_least(count: int, parts: Sequence[Nnf]) -> Nnf:
    """At least ``count`` of the parts hold, in `All` and `Some` alone."""
    known: dict[tuple[int, int, int], Nnf] = {}

    def of(count: int, start: int, stop: int) -> Nnf:
        key = (count, start, stop)
        if key not in known:
            known[key] = split(count, start, stop)
        return known[key]

    def split(count: int, start: int, stop: int) -> Nnf:
        length = stop - start
        if count <= 0 or count > length:
            return TRUE if count <= 0 else FALSE
        if count in (1, length):
            kind = All if count == length else Some
            flat = _flat(parts[start:stop], kind)
            return flat[0] if len(flat) == 1 else kind(flat)
        middle = start + length // 2
        most = min(count, middle - start)
        choices = [
            _flat((of(left, start, middle), of(count - left, middle, stop)), All)
            for left in range(max(0, count - (stop - middle)), most + 1)
        ]
        return Some(tuple(one[0] if len(one) == 1 else All(one) for one in choices))

    return of(count, 0, len(parts))


def _flat(parts: Sequence[Nnf], kind: type[All] | type[Some]) -> tuple[Nnf, ...]:
    """The parts, with nested ones of the same kind opened (true drops out of `All`)."""
    found: list[Nnf] = []
    for part in parts:
        found.extend(part.operands if isinstance(part, kind) else (part,))
    return tuple(found)


def written_size(nnf: Nnf, size: Callable[[Literal], int]) -> int:
    """The sum of the literals' sizes when the formula is written as a tree."""
    return fold(nnf, size, lambda count, sizes: sum(sizes))


Disjuncts = list[tuple[Literal, ...]]


def disjuncts(nnf: Nnf, most: int) -> Disjuncts | None:
    """The disjunctive normal form of a formula without `Count`; None if longer than ``most``.

    Each disjunct holds a literal once. An empty list is false, an empty disjunct true.
    """
    return _spread(nnf, most, {})


def _spread(nnf: Nnf, most: int, known: dict[int, Disjuncts | None]) -> Disjuncts | None:
    if id(nnf) not in known:
        known[id(nnf)] = _spread_new(nnf, lambda part: _spread(part, most, known), most)
    return known[id(nnf)]


def _spread_new(nnf: Nnf, spread: Callable[[Nnf], Disjuncts | None], most: int) -> Disjuncts | None:
    match nnf:
        case All(operands):
            result: Disjuncts = [()]
            for part in operands:
                right = spread(part)
                if right is None or len(right) * len(result) > most:
                    return None
                result = [tuple(dict.fromkeys((*one, *other))) for one in result for other in right]
            return result
        case Some(operands):
            total: Disjuncts = []
            for part in operands:
                more = spread(part)
                if more is None or len(total) + len(more) > most:
                    return None
                total += more
            return list(dict.fromkeys(total))
        case Count():
            raise ValueError("counts must be written out first")
        case _:
            return [(nnf,)]
