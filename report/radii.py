"""How far specs hold: the scales γ between which each of them breaks, by spec and by class."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from enum import StrEnum
from fractions import Fraction
from statistics import median

from conspec.report.records import Record
from conspec.specs import formula as f
from conspec.specs.exact import write_number
from conspec.specs.printer import to_text

LARGEST_GRID = 45
"""With more rows than this, a class gets one row and not one for each stronger concept."""


class Place(StrEnum):
    """Where a spec's own scale lies."""

    INSIDE = "inside"
    """It is proved there."""
    BEYOND = "beyond"
    """It fails there."""
    BETWEEN = "between"
    """Neither follows."""


@dataclass(frozen=True, slots=True)
class Span:
    """How far one spec holds; both ends are verdicts of their own.

    Attributes:
        spec: the spec, at its own scale.
        own: that scale.
        lower: the largest scale for which it is proved; None if for none.
        upper: the smallest scale for which a counterexample is known; None if for none.
        proof: the verdict at ``lower``.
        violation: the verdict at ``upper``.
    """

    spec: f.ForAll
    own: Fraction
    lower: Fraction | None
    upper: Fraction | None
    proof: Record | None
    violation: Record | None

    @property
    def place(self) -> Place:
        """Where the own scale lies; regions grow with their scale."""
        if self.lower is not None and self.own <= self.lower:
            return Place.INSIDE
        if self.upper is not None and self.own >= self.upper:
            return Place.BEYOND
        return Place.BETWEEN

    @property
    def reach(self) -> float:
        """``lower`` as a number to compare by; 0 if it is proved for no scale."""
        return float(self.lower or 0)


def family(region: f.Region) -> str:
    """A region without its scale.

    >>> family(f.Focus("bird", Fraction(1, 2)))
    'focus(bird)'
    """
    match region:
        case f.Focus() | f.PcaBox() | f.Zonotope() | f.Ellipsoid():
            return to_text(replace(region, gamma=Fraction(0))).replace(", gamma=0)", ")")
        case f.Ball(image, _, norm):
            return f"ball({image}, norm={norm.value})"
        case _:
            return to_text(region)


def lower_end(span: Span, digits: int | None = None) -> str:
    """Up to which scale it is proved, rounded down to so many digits."""
    if span.lower is None:
        return "–"
    return _short(span.lower, digits, ROUND_FLOOR)


def upper_end(span: Span, digits: int | None = None) -> str:
    """From which scale on it fails, rounded up to so many digits."""
    if span.upper is None:
        return "–"
    if span.upper == 0:
        return "the centre"
    return _short(span.upper, digits, ROUND_CEILING)


def _short(scale: Fraction, digits: int | None, rounding: str) -> str:
    if digits is None or scale == 0:
        return write_number(scale)
    exact = Decimal(scale.numerator) / Decimal(scale.denominator)
    return write_number(Fraction(Context(digits, rounding).create_decimal(exact)))


def both_ends(span: Span) -> str:
    """Both ends in three digits, for instance ``0.484 / 0.485``."""
    return f"{lower_end(span, 3)} / {upper_end(span, 3)}"


@dataclass(frozen=True, slots=True)
class Claim:
    """``predict(label) => stronger > weaker`` in a region of the class ``label``."""

    label: str
    stronger: str
    weaker: str


def claim_of(spec: f.ForAll) -> Claim | None:
    """What a spec of a relevance suite claims; None for other specs."""
    match spec.region, spec.body:
        case (
            f.Focus(label) | f.PcaBox(label) | f.Zonotope(label) | f.Ellipsoid(label),
            f.Implies(f.Predict(predicted), f.Stronger(stronger, weaker)),
        ) if predicted == label:
            return Claim(label, stronger, weaker)
    return None


@dataclass(frozen=True, slots=True)
class Grid:
    """The claims of a relevance suite as a table.

    Attributes:
        rows: a class, or a class and its stronger concept.
        columns: weaker concepts.
        cells: by row and column, the span that reaches least far.
        merged: whether a row stands for all stronger concepts of its class.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Mapping[tuple[str, str], Span]
    merged: bool

    @property
    def own(self) -> Fraction | None:
        """The specs' own scale, if all have the same."""
        scales = {span.own for span in self.cells.values()}
        return scales.pop() if len(scales) == 1 else None


def grid_of(spans: Sequence[Span]) -> Grid | None:
    """The relevance specs among them as a table; None if fewer than half are such."""
    claims = [(claim, span) for span in spans if (claim := claim_of(span.spec)) is not None]
    if not claims or 2 * len(claims) < len(spans):
        return None
    kinds = {type(span.spec.region) for _, span in claims}

    def named(claim: Claim, span: Span, merged: bool) -> str:
        row = claim.label if merged else f"{claim.label}: {claim.stronger}"
        return row if len(kinds) == 1 else f"{row} ({to_text(span.spec.region).split('(')[0]})"

    merged = len({named(claim, span, False) for claim, span in claims}) > LARGEST_GRID
    cells: dict[tuple[str, str], Span] = {}
    for claim, span in claims:
        key = (named(claim, span, merged), claim.weaker)
        if key not in cells or span.reach < cells[key].reach:
            cells[key] = span
    rows, columns = dict.fromkeys(row for row, _ in cells), dict.fromkeys(c for _, c in cells)
    return Grid(tuple(rows), tuple(sorted(columns)), cells, merged)


@dataclass(frozen=True, slots=True)
class ClassRow:
    """The claims about one class: how many, and how far they hold."""

    label: str
    count: int
    inside: int
    weakest: Span
    middle: float
    farthest: float


def class_rows(spans: Iterable[Span]) -> list[ClassRow]:
    """A row for each class of a relevance suite."""
    groups: dict[str, list[Span]] = {}
    for span in spans:
        if claim := claim_of(span.spec):
            groups.setdefault(claim.label, []).append(span)
    return [
        ClassRow(
            label=label,
            count=len(group),
            inside=sum(span.place is Place.INSIDE for span in group),
            weakest=min(group, key=lambda span: span.reach),
            middle=median(span.reach for span in group),
            farthest=max(span.reach for span in group),
        )
        for label, group in groups.items()
    ]


def summary(spans: Sequence[Span]) -> str:
    """A sentence, for instance ``12 radii: 9 specs hold at their own scale, …``."""
    counts = [sum(span.place is place for span in spans) for place in Place]
    centre = sum(span.upper == 0 for span in spans)
    noun = "spec" if len(spans) == 1 else "specs"
    said = f"{len(spans)} {noun}: {counts[0]} hold at their own scale, {counts[1]} fail there"
    said += f", {counts[2]} undecided there" if counts[2] else ""
    return said + (f"; {centre} fail at the centre already" if centre else "")


def vacuous(spans: Iterable[Span]) -> list[str]:
    """Names of the specs whose proof says nothing, since the premise fails everywhere."""
    return [span.spec.name for span in spans if span.proof is not None and span.proof.vacuous]
