"""Exact bounds of inputs that a Boolean combination of comparisons implies.

Intervals are propagated in rational arithmetic: a conjunction intersects, a disjunction unites,
and a linear comparison bounds each of its inputs by the ranges of the others. Each step keeps
every point that satisfies the formula, so stopping early is only less tight.
Source: hull consistency of interval constraint propagation (Benhamou and Older, 1997).
"""

from collections.abc import Callable, Iterable
from fractions import Fraction

from conspec.specs.errors import BadUsage
from conspec.specs.formula import Coordinate
from conspec.specs.rewrite import FALSE, TRUE, All, Cone, Count, Halfspace, Nnf, Some

ROUNDS = 10
"""Passes over the formula; each may use what the one before found."""
MOST_BITS = 2_000
"""A bound of longer numbers than this is not taken where there is another one already."""

Span = tuple[Fraction | None, Fraction | None]
"""Lower and upper bound; None where there is none."""


class Spans:
    """What is known of each input at one place of a formula, on top of what holds around it."""

    def __init__(self, around: "Spans | None" = None) -> None:
        """Start with what holds around this place, if anything."""
        self._around = around
        self.own: dict[int, Span] = {}

    def __getitem__(self, index: int) -> Span:
        """The bounds of an input."""
        place: Spans | None = self
        while place is not None:
            if index in place.own:
                return place.own[index]
            place = place._around
        return None, None

    def narrow(self, index: int, low: Fraction | None, high: Fraction | None) -> bool:
        """Intersect with further bounds; False if nothing is left."""
        old_low, old_high = self[index]
        if low is None or (old_low is not None and low <= old_low):
            low = old_low
        if high is None or (old_high is not None and high >= old_high):
            high = old_high
        if low is not old_low or high is not old_high:
            self.own[index] = low, high
        return low is None or high is None or low <= high


def hull(nnf: Nnf, around: Spans | None = None) -> Spans | None:
    """Bounds of every input that the formula bounds; None if they contradict each other.

    Args:
        nnf: the formula.
        around: bounds that hold besides it.
    """
    spans = Spans(around)
    for _ in range(ROUNDS):
        before = dict(spans.own)
        if not _narrowed(nnf, spans):
            return None
        if spans.own == before:
            break
    return spans


def settled(nnf: Nnf, spans: Spans) -> Nnf:
    """The formula without the comparisons of inputs that the bounds decide, exactly.

    Within the bounds, and only there, it is equivalent to the one given.
    """
    match nnf:
        case Halfspace():
            return _decided(nnf, spans)
        case All(operands):
            return _joined((settled(part, spans) for part in operands), every=True)
        case Some(operands):
            return _joined((_alternative(part, spans) for part in operands), every=False)
        case Cone() | Count():
            raise _foreign()


def speaks_of_inputs_only(literal: Halfspace) -> bool:
    """Whether a comparison names no output."""
    return all(isinstance(symbol, Coordinate) for _, symbol in literal.terms)


def _foreign() -> BadUsage:
    return BadUsage("a counterexample's condition holds comparisons, and, or, not, =>; no more")


def _alternative(nnf: Nnf, spans: Spans) -> Nnf:
    """One side of a disjunction; false if its own comparisons contradict each other."""
    return settled(nnf, spans) if _narrowed(nnf, Spans(spans)) else FALSE


def _joined(parts: Iterable[Nnf], every: bool) -> Nnf:
    """A conjunction or disjunction, flat, and without the operands that do not matter."""
    neutral, absorbing = (TRUE, FALSE) if every else (FALSE, TRUE)
    kind = All if every else Some
    operands: list[Nnf] = []
    for part in parts:
        if part == absorbing:
            return absorbing
        if part != neutral:
            operands.extend(part.operands if isinstance(part, kind) else (part,))
    return operands[0] if len(operands) == 1 else kind(tuple(operands))


def _narrowed(nnf: Nnf, spans: Spans) -> bool:
    """Tighten the bounds by one pass over the formula; False if nothing is left."""
    match nnf:
        case Halfspace():
            return not speaks_of_inputs_only(nnf) or _propagated(nnf, spans)
        case All(operands):
            return all(_narrowed(part, spans) for part in operands)
        case Some(operands):
            return _united(operands, spans)
        case Cone() | Count():
            raise _foreign()


def _united(operands: Iterable[Nnf], spans: Spans) -> bool:
    """Tighten to the union of what the alternatives allow."""
    sides = [(part, Spans(spans)) for part in operands]
    alive = [side.own for part, side in sides if _narrowed(part, side)]
    if not alive:
        return False
    for index in alive[0]:
        if all(index in side for side in alive):
            lows = [side[index][0] for side in alive]
            highs = [side[index][1] for side in alive]
            if not spans.narrow(index, _end(lows, min), _end(highs, max)):
                return False
    return True


def _end(
    ends: list[Fraction | None], outermost: Callable[[list[Fraction]], Fraction]
) -> Fraction | None:
    """The outermost of some bounds; None if one is missing."""
    known = [end for end in ends if end is not None]
    return outermost(known) if len(known) == len(ends) else None


def _reach(weight: Fraction, span: Span) -> Fraction | None:
    """The maximum of ``weight · x``; None if there is none."""
    end = span[1] if weight > 0 else span[0]
    return None if end is None else weight * end


def _range(literal: Halfspace, spans: Spans) -> Span:
    """Least and greatest value of a comparison of inputs; None where it has none."""
    lows, highs = [], []
    for weight, symbol in literal.terms:
        if isinstance(symbol, Coordinate):
            highs.append(_reach(weight, spans[symbol.index]))
            lows.append(_reach(-weight, spans[symbol.index]))
    low, high = _total(lows), _total(highs)
    return (
        None if low is None else literal.constant - low,
        None if high is None else literal.constant + high,
    )


def _total(parts: list[Fraction | None]) -> Fraction | None:
    known = [part for part in parts if part is not None]
    return sum(known, Fraction(0)) if len(known) == len(parts) else None


def _decided(literal: Halfspace, spans: Spans) -> Nnf:
    """True or false where the bounds decide a comparison of inputs, else itself."""
    if not speaks_of_inputs_only(literal):
        return literal
    low, high = _range(literal, spans)
    if low is not None and (low > 0 if literal.strict else low >= 0):
        return TRUE
    if high is not None and (high <= 0 if literal.strict else high < 0):
        return FALSE
    return literal


def _propagated(literal: Halfspace, spans: Spans) -> bool:
    """Tighten each input of ``Σ a·x + c ≥ 0`` by the ranges of the others.

    ``a_j·x_j ≥ −c − Σ max a_k·x_k`` over the others k; a strict comparison bounds a closed
    interval too, and stays in the formula.
    """
    terms = [(a, symbol.index) for a, symbol in literal.terms if isinstance(symbol, Coordinate)]
    tops = [_reach(weight, spans[index]) for weight, index in terms]
    endless = [place for place, top in enumerate(tops) if top is None]
    if len(endless) > 1:
        return True
    total = literal.constant + sum((top for top in tops if top is not None), Fraction(0))
    if not endless and (total <= 0 if literal.strict else total < 0):
        return False
    for place in endless or range(len(terms)):
        weight, index = terms[place]
        others = total - (tops[place] or 0)
        end = -others / weight
        low, high = (end, None) if weight > 0 else (None, end)
        known = spans[index][0 if weight > 0 else 1]
        too_long = max(end.numerator.bit_length(), end.denominator.bit_length()) > MOST_BITS
        if known is not None and too_long and len(terms) > 1:
            continue
        if not spans.narrow(index, low, high):
            return False
    return True
