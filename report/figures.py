"""Pictures of results: contact sheets of counterexamples, and the bars of a whole suite."""

import io
from collections.abc import Mapping, Sequence

from PIL import Image

from conspec.lens.bundle import Lens
from conspec.report import canvas
from conspec.report.canvas import Canvas, Style, shortened, width_of, wrapped
from conspec.report.records import Counterexample, Near, Outcome, Record
from conspec.report.summary import Tally, by_class
from conspec.report.words import counts, printable
from conspec.specs.formula import Suite
from conspec.specs.rewrite import Cone, literals, negation_normal_form

COLOURS = {
    Outcome.PROVED: canvas.GREEN,
    Outcome.VIOLATED: canvas.RED,
    Outcome.UNKNOWN: canvas.AMBER,
}

_PAGE = 720.0
_EDGE = 24.0
_INNER = _PAGE - 2 * _EDGE
_TILE = 112.0
_GAP = 26.0
_SHOWN = 5
_BARS = 12
_ROW = 19.0

_TITLE = Style(15, bold=True)
_BODY = Style(10.5)
_FAINT = Style(10, colour=canvas.FAINT)
_LABEL = Style(10, bold=True)
_HEADING = Style(11, bold=True)


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def contact_sheet(record: Record, found: Counterexample, lens: Lens) -> Image.Image:
    """One page about a counterexample.

    The nearest stored images side by side, and the concept scores and logits at the
    counterexample itself.
    """
    formula = wrapped(printable(record.formula), _INNER, _BODY, lines=3)
    concepts = _concept_bars(record, found, lens)
    logits = _largest(found.logits)
    bars = max(len(concepts), len(logits))
    top = _EDGE + 24 + 16 * len(formula) + 40
    height = top + _TILE + 78 + (34 + _ROW * bars if bars else 0) + _EDGE
    page = Canvas(_PAGE, height)
    _heading(page, record, found, formula)
    _neighbours(page, top, found.neighbours[:_SHOWN], lens)
    below = top + _TILE + 78
    half = (_INNER - 32) / 2
    if bars:
        _bar_chart(page, (_EDGE, below, half), "Concept scores at the counterexample", concepts)
        _bar_chart(page, (_EDGE + half + 32, below, half), "Logits at the counterexample", logits)
    return page.image


def _heading(page: Canvas, record: Record, found: Counterexample, formula: Sequence[str]) -> None:
    title = shortened(printable(record.spec), _INNER - 90, _TITLE)
    page.text((_EDGE, _EDGE - 4), title, _TITLE)
    page.text((_PAGE - _EDGE, _EDGE), "✗ violated", Style(11, True, canvas.RED), "ra")
    for row, line in enumerate(formula):
        page.text((_EDGE, _EDGE + 24 + 16 * row), line, _BODY)
    nearest = "The images whose embeddings are nearest to the counterexample:"
    if found.image is not None:
        nearest = "The first image is itself the counterexample; others near it:"
    said = f"in {printable(record.region)}, fails by {found.margin:.3g}. {nearest}"
    place = _EDGE + 24 + 16 * len(formula) + 4
    page.text((_EDGE, place), shortened(said, _INNER, _FAINT), _FAINT)


def _neighbours(page: Canvas, top: float, near: Sequence[Near], lens: Lens) -> None:
    if not near:
        page.text((_EDGE, top), "No stored image is known near it.", _FAINT)
    for place, image in enumerate(near):
        _neighbour(page, (_EDGE + 2 + place * (_TILE + _GAP), top), image, lens)


def _neighbour(page: Canvas, at: tuple[float, float], near: Near, lens: Lens) -> None:
    label = int(lens.embeddings.label[near.image])
    predicted = int(lens.embeddings.predicted[near.image])
    wrong = label not in (-1, predicted)
    frame = canvas.RED if wrong else canvas.RULE
    page.picture(_thumbnail(lens, near.image), at, _TILE, frame)
    name = "class unknown" if label < 0 else printable(lens.classes[label])
    colour = canvas.RED if wrong else canvas.FAINT
    lines = (
        (name, _LABEL, False),
        (f"predicted {printable(lens.classes[predicted])}", Style(9.5, colour=colour), False),
        (f"distance {near.distance:.3g}", Style(9.5, colour=canvas.FAINT), False),
        (printable(near.id), Style(8, colour=canvas.GREY), True),
    )
    down = at[1] + _TILE + 6
    for text, style, keep_end in lines:
        page.text((at[0], down), shortened(text, _TILE + _GAP - 8, style, keep_end), style)
        down += style.size + 4.5


def _thumbnail(lens: Lens, index: int) -> Image.Image:
    if lens.has_thumbnails:
        return lens.thumbnail(index)
    blank = Canvas(32, 32)
    blank.bar((0, 0, 32, 32), "#eef0f4")
    blank.text((16, 16), "no picture", Style(5, colour=canvas.FAINT), "mm")
    return blank.image


def _concept_bars(record: Record, found: Counterexample, lens: Lens) -> dict[str, float]:
    """Scores of the concepts that the formula speaks about, or of the strongest ones."""
    from conspec.specs.parser import parse

    concepts: list[str] = []
    suite: Suite = parse(record.text)
    for spec in suite.specs:
        for literal in literals(negation_normal_form(spec.body, lens.classes)):
            if isinstance(literal, Cone):
                concepts.append(literal.concept)
            else:
                concepts += [s.concept for _, s in literal.terms if hasattr(s, "concept")]
    involved = {name: found.concepts[name] for name in concepts if name in found.concepts}
    return _largest(involved or found.concepts)


def _largest(scores: Mapping[str, float]) -> dict[str, float]:
    """The largest scores, largest first."""
    ranked = sorted(scores.items(), key=lambda pair: -pair[1])
    return dict(ranked[:_BARS])


def _bar_chart(
    page: Canvas, place: tuple[float, float, float], title: str, scores: Mapping[str, float]
) -> None:
    """Horizontal bars from a common zero; ``place`` is (left, top, width)."""
    left, top, width = place
    page.text((left, top), title, _HEADING)
    if not scores:
        page.text((left, top + 26), "none in this formula", _FAINT)
        return
    names = {name: shortened(printable(name), 0.34 * width, _BODY) for name in scores}
    label = max(width_of(name, _BODY) for name in names.values()) + 10
    values = {name: f"{value:.3g}".replace("-", "−") for name, value in scores.items()}
    number = max(width_of(value, _FAINT) for value in values.values()) + 8
    lowest, highest = min(0.0, *scores.values()), max(0.0, *scores.values())
    span = (highest - lowest) or 1.0
    start, room = left + label, width - label - number

    def across(value: float) -> float:
        return start + room * (value - lowest) / span

    for row, (name, value) in enumerate(scores.items()):
        middle = top + 34 + _ROW * row
        page.text((start - 10, middle), names[name], _BODY, "rm")
        ends = sorted((across(0.0), across(value)))
        page.bar((ends[0], middle - 6, ends[1], middle + 6), canvas.GREY if row else canvas.BLUE)
        page.text((left + width, middle), values[name], _FAINT, "rm")
    zero = across(0.0)
    page.bar((zero - 0.5, top + 24, zero + 0.5, top + 26 + _ROW * len(scores)), canvas.FAINT)


def summary_figure(records: Sequence[Record], title: str) -> Image.Image:
    """Stacked bars: how many specs of each class are proved, violated and unknown."""
    groups = by_class(records)
    page = Canvas(_PAGE, 88 + 30 * len(groups) + _EDGE)
    page.text((_EDGE, _EDGE - 4), shortened(printable(title), _INNER, _TITLE), _TITLE)
    across = _EDGE
    for outcome in Outcome:
        page.bar((across, 54, across + 10, 64), COLOURS[outcome])
        page.text((across + 15, 59), outcome, _BODY, "lm")
        across += 32 + width_of(outcome, _BODY)
    names = {name: shortened(printable(name), 180, _BODY) for name in groups}
    label = max((width_of(name, _BODY) for name in names.values()), default=0.0) + 12
    most = max((group.total for group in groups.values()), default=1)
    for row, (name, group) in enumerate(groups.items()):
        middle = 96 + 30.0 * row
        page.text((_EDGE, middle), names[name], _BODY, "lm")
        _stack(page, (_EDGE + label, middle), _INNER - label - 40, group, most)
    return page.image


def _stack(page: Canvas, at: tuple[float, float], room: float, group: Tally, most: int) -> None:
    left, middle = at
    for outcome in Outcome:
        count = group.count(outcome)
        right = left + room * count / most
        page.bar((left, middle - 10, right, middle + 10), COLOURS[outcome])
        inside = Style(9.5, True, canvas.PAPER)
        if count and width_of(str(count), inside) + 6 <= right - left:
            page.text(((left + right) / 2, middle), str(count), inside, "mm")
        left = right
    page.text((left + 8, middle), str(group.total), _FAINT, "lm")


def caption(records: Sequence[Record]) -> str:
    """The summary figure in words, for those who cannot see it."""
    parts = [f"{name}: {counts(group)}" for name, group in by_class(records).items()]
    return "; ".join(parts)
