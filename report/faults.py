"""Fault localization as it is shown: tables in the terminal, and stacked bars of causes."""

from collections.abc import Sequence

from PIL import Image
from rich.table import Table

from conspec.analysis.faults import SHORT, Blamed, Causes, Faults, Verdict
from conspec.analysis.oracles import Gap, Oracle
from conspec.report import canvas
from conspec.report.canvas import Canvas, Style, shortened, width_of
from conspec.report.tables import columns_table
from conspec.report.words import percent, printable

COLOURS = {
    Verdict.ENCODER: canvas.BLUE,
    Verdict.HEAD: canvas.AMBER,
    Verdict.UNDETERMINED: canvas.GREY,
}
_GAPS = {
    Gap.RESIDUAL: "From the mapped embedding to the VLM's own of the picture",
    Gap.NEAREST: "From the mapped embedding to the nearest training image in the VLM",
}

_PAGE = 720.0
_EDGE = 24.0
_ROW = 30.0
_TITLE = Style(15, bold=True)
_BODY = Style(10.5)
_FAINT = Style(10, colour=canvas.FAINT)
_SHOWN = 6


def causes_table(rows: Sequence[Causes], title: str) -> Table:
    """A row for each class, the last for all together."""
    headings = ("class", "images", "wrong", *Verdict, "because of", "encoder's share, %")
    return columns_table(title, headings, [_causes_row(row) for row in rows])


def _causes_row(row: Causes) -> list[str]:
    undetermined = [
        f"{word} {row.counts[reason]}" for reason, word in SHORT.items() if row.counts[reason]
    ]
    counts = [str(row.count(verdict)) for verdict in Verdict]
    return [
        row.label,
        str(row.images),
        str(row.wrong),
        *counts,
        ", ".join(undetermined) or "–",
        share_text(row),
    ]


def share_text(row: Causes) -> str:
    """The encoder's share of what was determined, such as ``54 [25, 81]``."""
    share = row.encoder_share()
    if share is None:
        return "–"
    point, lower, upper = (percent(value) for value in share)
    return f"{point} [{lower}, {upper}]"


def fault_lines(faults: Faults, place: int, classes: Sequence[str]) -> list[str]:
    """What is known of one fault, in sentences."""
    reason = faults.reasons[place]
    lines = [f"Fault: {faults.verdicts[place].value}. {reason.value}"]
    for oracle in Oracle:
        own, seen = faults.answers[oracle][place], faults.vlm_answers[oracle][place]
        used = " (decides)" if oracle is faults.oracle else ""
        lines.append(
            f"Oracle {oracle.value}{used}: the embedding shows '{classes[own]}'; "
            f"to the VLM itself the picture shows '{classes[seen]}'."
        )
    for kind, words in _GAPS.items():
        allowed = f" (allowed: up to {faults.limit:.3g})" if kind is faults.guard else ""
        lines.append(
            f"{words}: {faults.gaps[kind][place]:.3g}{allowed}, p = "
            f"{faults.p_values[kind][place]:.2g} among correctly classified held-out images."
        )
    return [printable(line) for line in lines]


def blame_table(blamed: Sequence[Blamed], verdict: Verdict, compared: tuple[str, str]) -> Table:
    """The concepts behind one fault, the most significant first.

    Args:
        blamed: in that order.
        verdict: encoder or head.
        compared: the true and the predicted class.
    """
    true, wrong = compared
    group = true if verdict is Verdict.ENCODER else wrong
    has_push = any(each.push is not None for each in blamed)
    headings = ["concept", "differs in", f"than in '{group}'", "p, corrected"]
    headings += ["push, logits"] if has_push else []
    rows = [
        [
            each.concept,
            f"{percent(each.deviation)} % of pairs",
            _shifted(each.shift),
            f"{each.p_value:.2g}",
            *([f"{each.push:+.2f}".replace("-", "−")] if each.push is not None else []),
        ]
        for each in blamed[:_SHOWN]
    ]
    about = {
        Verdict.ENCODER: f"Concepts that set the embedding apart from correct '{true}'",
        Verdict.HEAD: f"Concepts that spoke against '{wrong}' and did not count",
    }[verdict]
    return columns_table(about, headings, rows)


def _shifted(shift: float) -> str:
    """How much stronger a concept is, in percent of the others that it is above."""
    if shift == 0:
        return "as strong"
    return f"{'weaker' if shift < 0 else 'stronger'} by {percent(abs(shift))} points"


def causes_figure(rows: Sequence[Causes], title: str) -> Image.Image:
    """Stacked bars: of the misclassified images of each class, whose fault they are."""
    shown = [row for row in rows[:-1] if row.wrong]
    page = Canvas(_PAGE, 108 + _ROW * len(shown) + _EDGE)
    page.text((_EDGE, _EDGE - 4), shortened(printable(title), _PAGE - 2 * _EDGE, _TITLE), _TITLE)
    _legend(page, rows[-1])
    names = {row.label: shortened(printable(row.label), 180, _BODY) for row in shown}
    label = max((width_of(name, _BODY) for name in names.values()), default=0.0) + 12
    most = max((row.wrong for row in shown), default=1)
    room = _PAGE - 2 * _EDGE - label - 60
    for number, row in enumerate(shown):
        middle = 96 + _ROW * number
        page.text((_EDGE, middle), names[row.label], _BODY, "lm")
        _stack(page, (_EDGE + label, middle), room / most, row)
    under = "numbers: misclassified images; at the end: all of them, of how many images"
    page.text((_EDGE, 96 + _ROW * len(shown)), under, _FAINT, "lm")
    return page.image


def _legend(page: Canvas, total: Causes) -> None:
    across = _EDGE
    for verdict in Verdict:
        said = f"{verdict.value} ({total.count(verdict)})"
        page.bar((across, 54, across + 10, 64), COLOURS[verdict])
        page.text((across + 15, 59), said, _BODY, "lm")
        across += 36 + width_of(said, _BODY)


def _stack(page: Canvas, at: tuple[float, float], scale: float, row: Causes) -> None:
    """One bar; ``scale`` is points per image."""
    left, middle = at
    for verdict in Verdict:
        count = row.count(verdict)
        right = left + scale * count
        page.bar((left, middle - 10, right, middle + 10), COLOURS[verdict])
        inside = Style(9.5, True, canvas.PAPER)
        if count and width_of(str(count), inside) + 6 <= right - left:
            page.text(((left + right) / 2, middle), str(count), inside, "mm")
        left = right
    page.text((left + 8, middle), f"{row.wrong} of {row.images}", _FAINT, "lm")
