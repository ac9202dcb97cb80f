"""Tables of estimates: shares of images and what bounds them, each with what it assumes."""

from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from fractions import Fraction

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from conspec.report.tables import plain
from conspec.report.words import percent, satisfaction
from conspec.specs.exact import write_number
from conspec.specs.formula import Probability
from conspec.specs.printer import to_text
from conspec.verifier.estimates import Estimate, Interval
from conspec.verifier.probability.covered import Covered
from conspec.verifier.probability.intervals import Decision
from conspec.verifier.probability.mass import MassBounds
from conspec.verifier.probability.rare import RareEstimate
from conspec.verifier.probability.robust import RobustRadii

STYLES = {Decision.HOLDS: "green", Decision.FAILS: "bold red", Decision.UNDECIDED: "yellow"}
NAMES = {
    Interval.CLOPPER_PEARSON: "Clopper–Pearson",
    Interval.WILSON: "Wilson (approximate)",
    Interval.JEFFREYS: "Jeffreys (Bayesian)",
}


def estimate_table(estimates: Sequence[Estimate], whose: str = "held-out images") -> Table:
    """One row a spec: the share seen, and lower bounds of the probability by other arguments.

    Args:
        estimates: of a suite.
        whose: what was counted.
    """
    table = _titled(f"Share of {whose} that satisfy each spec")
    level = f"{100 * estimates[0].confidence:g} %"
    table.caption = (
        f"Intervals: {level} {NAMES[estimates[0].interval]}, and below it exact ones that hold for "
        "all specs at once. By moments: one-sided bounds from mean and variance of the margins, "
        "for any distribution of them, and for a normal one (p: small speaks against it; – where "
        "it cannot be tested). None of this is a proof; see docs/statistics.md."
    )
    table.caption_justify, table.caption_style = "left", "dim"
    stated = any(isinstance(one.spec, Probability) for one in estimates)
    table.add_column("spec", overflow="fold", min_width=20)
    table.add_column("satisfied", no_wrap=True)
    if stated:
        table.add_column("decision", no_wrap=True)
    table.add_column("by moments", no_wrap=True)
    for one in estimates:
        name = plain(one.spec.name)
        name.append_text(plain(f"\n{to_text(one.spec.body)}", "dim"))
        row = [name, _seen(one)]
        if stated:
            row.append(_decision(one))
        table.add_row(*row, _moments(one))
    return table


def _seen(one: Estimate) -> Text:
    """The share, its interval, that for all specs at once, and whose share it is."""
    first, _, rest = satisfaction(one).partition(" of ")
    if one.share is None:
        return plain(f"{first}\nof {rest}", "dim")
    ends = ", ".join(percent(end) for end in one.family)
    text = plain(first)
    return text.append_text(plain(f"\nall at once [{ends}]\nof {rest}", "dim"))


def _at_least(lower: float | None) -> str:
    """A lower bound in percent, rounded down, so that it stays one."""
    if lower is None:
        return "–"
    share = Decimal(str(lower))
    # Near both ends one digit more than leads to 0 or 100 is shown.
    near = min(share, 1 - share)
    digits = max(2, -near.adjusted()) if near else 2
    down = share.quantize(Decimal(1).scaleb(-digits), ROUND_FLOOR)
    return f"≥ {percent(float(down))} %"


def _moments(one: Estimate) -> Text:
    if one.cantelli is None:
        return Text("–", style="dim")
    text = Text(f"{_at_least(one.cantelli)} any")
    if one.gaussian is not None:
        tested = "\n(p: –)" if one.normality is None else f"\n(p = {one.normality:.1g})"
        text.append(f"\n{_at_least(one.gaussian)} if normal")
        text.append(tested, style="dim")
    return text


def _decision(one: Estimate) -> Text:
    if not isinstance(one.spec, Probability) or one.family_decision is None:
        return Text("–", style="dim")
    word = Text(one.family_decision.value, style=STYLES[one.family_decision])
    word.append(f"\n≥ {write_number(one.spec.at_least)}", style="dim")
    word.append(f"\nat {write_number(one.spec.confidence)}", style="dim")
    if one.decision is not one.family_decision and one.decision is not None:
        word.append(f"\n({one.decision.value} by itself)", style="dim")
    return word


def covered_table(found: Mapping[str, Covered]) -> Table:
    """What proofs and the coverage of their regions say about the same probabilities."""
    table = _beside("Proved on a region, and covered by it", "proved on", "coverage")
    table.add_column("so at\nleast", justify="right")
    table.add_column("with the\ncount", justify="right")
    for name, one in found.items():
        if one.region is None or one.coverage is None:
            table.add_row(plain(name), Text("none", style="dim"), "", "", _at_least(one.combined))
            continue
        seen = f"{one.coverage.count} of {one.coverage.total} {one.population}"
        bounds = (_at_least(one.lower), _at_least(one.combined))
        table.add_row(plain(name), plain(to_text(one.region)), plain(seen), *bounds)
    return table


def mass_table(found: Mapping[str, MassBounds], law: str) -> Table:
    """Sound bounds under a stated distribution; the undecided mass beside them."""
    title = f"Probability on the region under the {law} distribution: sound bounds"
    table = _beside(title, "at least", "at most")
    table.add_column("undecided", justify="right")
    table.add_column("boxes", justify="right")
    for name, one in found.items():
        ends = (_digits(one.lower, ROUND_FLOOR), _digits(one.upper, ROUND_CEILING))
        table.add_row(plain(name), *ends, f"{float(one.undecided):.2g}", f"{one.boxes:,}")
    return table


def _digits(value: Fraction, rounding: str) -> str:
    """Nine decimals, rounded outward; in full precision near 0 where these say nothing."""
    places = Decimal(1).scaleb(-9)
    with localcontext(prec=60, rounding=rounding):
        exact = Decimal(value.numerator) / Decimal(value.denominator)
        shown = exact.quantize(places)
        if 0 < exact < places:
            return f"{exact:.1e}"
    return f"{shown.normalize():f}"


def rare_table(found: Mapping[str, RareEstimate], model: str) -> Table:
    """How probable violations are in a model of the class."""
    table = _beside(f"Violations in a {model} model of the class", "estimate", "interval")
    table.add_column("approximate\n(CLT)")
    samples = max((one.samples for one in found.values()), default=0)
    table.add_column(f"violating of\n{samples:,}", justify="right")
    for name, one in found.items():
        table.add_row(
            plain(name),
            f"{one.estimate:.3g}",
            f"[{one.lower:.3g}, {one.upper:.3g}]",
            f"[{one.approximate[0]:.3g}, {one.approximate[1]:.3g}]",
            f"{one.hits:,}",
        )
    return table


def robust_table(radii: RobustRadii, names: Sequence[str]) -> Table:
    """Of the specs named, in that order, how far around its images each is certified."""
    import numpy as np

    norm = {"l2": "L2", "linf": "L∞", "mahalanobis": "Mahalanobis"}[radii.metric.value]
    title = f"Radius of the {norm} ball around a held-out embedding on which a spec is certified"
    table = _beside(title, "satisfied", "for half of the images\nat least")
    table.add_column("for nine in ten\nat least", justify="right")
    columns = {spec.name: column for column, spec in enumerate(radii.specs)}
    for name in names:
        column = columns[name]
        own = radii.population[:, column]
        good = radii.satisfied[own, column]
        reached = np.where(good, radii.lower[own, column], 0.0)
        # The lower of two neighbours: a mean of finite and infinite radii would mean nothing.
        ends = np.quantile(reached, [0.5, 0.1], method="lower") if len(reached) else ()
        shown = [f"{end:.3g}" for end in ends] or ["–", "–"]
        table.add_row(plain(name), f"{int(good.sum())} of {int(own.sum())}", *shown)
    return table


def _beside(title: str, *columns: str) -> Table:
    """An empty table of specs."""
    table = _titled(title)
    table.add_column("spec", overflow="fold", min_width=12)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _titled(title: str) -> Table:
    """An empty table of the usual looks."""
    return Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
