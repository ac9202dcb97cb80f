"""Predicates and rules as they are shown: readable logic, tables, and bars of classes."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from rich.table import Table

from conspec.analysis.calibration import Rate
from conspec.analysis.names import Name
from conspec.analysis.predicates import Predicate
from conspec.analysis.rule_statistics import (
    COVERED,
    CUT_OFFS,
    ClassQuality,
    Concentration,
    Quality,
    Reuse,
    Usage,
)
from conspec.analysis.rules import Local, Rule, RuleSet
from conspec.report import canvas
from conspec.report.canvas import Canvas, Style, shortened, width_of
from conspec.report.tables import columns_table, facts_table
from conspec.report.words import percent, printable

Names = Sequence[Name | None]

_PAGE = 720.0
_EDGE = 24.0
_ROW = 34.0
_TITLE = Style(15, bold=True)
_BODY = Style(10.5)
_FAINT = Style(10, colour=canvas.FAINT)


def predicate_text(predicate: Predicate, name: Name | None = None) -> str:
    """A predicate as readable logic, for instance ``z(21) ≥ 2.74 (wheels)``."""
    relation = "≥" if predicate.sign > 0 else "≤"
    called = f" ({name})" if name is not None else ""
    return f"z({predicate.feature}) {relation} {predicate.threshold:.3g}{called}"


def conjunction_text(rules: RuleSet, places: Sequence[int], names: Names | None = None) -> str:
    """Some predicates, joined by "and"."""
    parts = (predicate_text(rules.vocabulary[p], names[p] if names else None) for p in places)
    return " and ".join(parts)


def rule_text(rules: RuleSet, rule: Rule, names: Names | None = None) -> str:
    """A rule as readable logic: ``z(21) ≥ 2.74 (wheels) and … ⇒ truck``."""
    return f"{conjunction_text(rules, rule.predicates, names)} ⇒ {rules.names[rule.label]}"


def rules_text(rules: RuleSet, names: Names | None = None) -> str:
    """All rules as readable logic, class by class, best first."""
    blocks = []
    for label, called in enumerate(rules.names):
        own = list(rules.of_class(label))
        lines = [f"{called}: {len(own)} rules"]
        lines += [
            f"  {conjunction_text(rules, rule.predicates, names)}\n"
            f"      {rule.right} of {rule.covered} covered training images are predicted so; "
            f"local rule of {rule.support}"
            for rule in own
        ]
        blocks.append("\n".join(lines))
    return printable(
        "\n\n".join([*blocks, f"Where no rule matches: {default_text(rules)}."]) + "\n"
    )


def default_text(rules: RuleSet) -> str:
    """What is said where no rule matches."""
    if rules.settings.abstain:
        return "nothing is said"
    return f"{rules.names[rules.default]}, which is predicted most often"


def rate_text(found: Rate | None) -> str:
    """A share in percent with its interval, such as ``83 [80, 86]``."""
    if found is None or found.total == 0:
        return "–"
    point = found.count / found.total
    return f"{percent(point)} [{percent(found.lower)}, {percent(found.upper)}]"


def settings_facts(rules: RuleSet) -> dict[str, str]:
    """How a rule set was learnt, and how large it is."""
    settings, words = rules.settings, rules.vocabulary
    share = float(settings.quantile)
    return {
        "thresholds": "extremum of the source images"
        if share == 0
        else f"quantile {share:g} of the source images, {int(words.sources.sum())} in all",
        "look-ahead": f"{settings.ahead} features after the prediction is reached",
        "predicates": f"{len(words)}, with a support of {settings.predicate_support} or more",
        "rules": f"{len(rules.rules)}, the local rule of {settings.rule_support} images or more",
        "conflicts": f"the rule with the best {settings.resolution.value} decides",
        "where none matches": default_text(rules),
    }


def settings_table(rules: RuleSet, title: str) -> Table:
    """What ``settings_facts`` says."""
    return facts_table(settings_facts(rules), title)


def rule_table(rules: RuleSet, names: Names | None, most: int) -> Table:
    """The best rules of each class, ``most`` at most, as readable logic."""
    rows = [
        [
            called if place == 0 else "",
            conjunction_text(rules, rule.predicates, names),
            f"{rule.right}/{rule.covered}",
            str(rule.support),
        ]
        for label, called in enumerate(rules.names)
        for place, rule in enumerate(list(rules.of_class(label))[:most])
    ]
    title = "Best rules of each class (right/covered: training images)"
    return columns_table(title, ("class", "if", "right/covered", "support"), rows)


def quality_table(found: Quality, title: str) -> Table:
    """How a rule set does, with 95 % intervals."""
    rates = {
        "coverage: some rule matches, %": found.coverage,
        "precision: the model's class where covered, %": found.precision,
        "fidelity: the model's class, default included, %": found.fidelity,
        "accuracy against the true classes, %": found.accuracy,
        "true class among the first five, %": found.accuracy5,
        "several rules match, %": found.overlap,
        "rules of several classes match, %": found.conflict,
    }
    median, mean = found.length
    sizes = {
        "rules": str(found.rules),
        "predicates used": str(found.predicates),
        "predicates a rule, median": f"{median:g} (mean {mean:.1f})",
    }
    return facts_table({name: rate_text(rate) for name, rate in rates.items()} | sizes, title)


def class_table(rows: Sequence[ClassQuality]) -> Table:
    """A row for each class."""
    cells = [
        [row.name, str(row.rules), str(row.predicates)]
        + [rate_text(found) for found in (row.recall, row.precision)]
        for row in rows
    ]
    headings = ("class", "rules", "predicates", "found of the model's, %", "right of its own, %")
    return columns_table("By class, against the model", headings, cells)


def usage_table(found: Usage) -> Table:
    """How predicates explain images."""
    return facts_table(usage_facts(found), "Predicates in held-out images")


def usage_facts(found: Usage) -> dict[str, str]:
    """What ``usage_table`` says."""

    def middle(pair: tuple[float, float]) -> str:
        return f"{pair[0]:g} (mean {pair[1]:.1f})"

    return {
        "selected per image, median": middle(found.selected),
        "active in its class, median": middle(found.active),
        "explaining per image, median": middle(found.explaining),
        "images without one, %": rate_text(found.unexplained),
        "selected and in the vocabulary, %": rate_text(found.eligible),
        "of these, threshold retained, %": rate_text(found.retained),
    }


def sharing_facts(found: Concentration, shared: Reuse) -> dict[str, str]:
    """How few predicates do most of the work, and how classes share them: medians of classes."""
    some = found.images > 0
    facts = {"signed features selected": f"{np.median(found.used[some]):g}"} if some.any() else {}
    for place, share in enumerate(COVERED):
        facts[f"n{100 * share:g}"] = f"{np.median(found.fewest[some, place]):g}"
    for place, cut in enumerate(CUT_OFFS):
        name = f"in {100 * cut:g} % of its images or more"
        facts[name] = f"{np.median(found.frequent[some, place]):g}"
    if len(shared.features):
        facts["classes that use a feature, median (most)"] = (
            f"{np.median(shared.classes):g} ({shared.classes.max()})"
        )
        facts["entropy over classes, bits, median"] = f"{np.median(shared.entropy):.2f}"
        facts["Herfindahl index, median"] = f"{np.median(shared.concentration):.2f}"
    return facts


def sharing_table(found: Concentration, shared: Reuse) -> Table:
    """What ``sharing_facts`` says."""
    return facts_table(sharing_facts(found, shared), "Predicates of a class (median of classes)")


def local_table(rules: RuleSet, local: Local, z: Sequence[float], names: Names | None) -> Table:
    """The pathway of an image, feature by feature, and what its predicates say."""
    slack = dict(zip(local.predicates, local.slack, strict=True))
    rows = []
    for step, (feature, sign) in enumerate(local.pathway):
        signed = feature if sign > 0 else rules.vocabulary.width + feature
        place = int(rules.vocabulary.places(np.array([local.label]), np.array([signed]))[0])
        known = place >= 0
        name = names[place] if known and names else None
        rows.append(
            [
                "decides" if step < local.needed else "look-ahead",
                f"z({feature}){'+' if sign > 0 else '−'}",
                f"{z[feature]:.3g}",
                f"{rules.vocabulary.threshold[place]:.3g}" if known else "–",
                _status(known, slack.get(place)),
                str(name) if name is not None else "–",
            ]
        )
    headings = ("step", "feature", "value", "threshold", "predicate", "name")
    return columns_table("Pathway", headings, rows)


def _status(known: bool, slack: float | None) -> str:
    if not known:
        return "none: never selected in source images of the class"
    return "inactive" if slack is None else f"holds, by {slack:.3g}"


def class_figure(rows: Sequence[ClassQuality], title: str) -> Image.Image:
    """Two bars for each class: what its rules find, and how often they are right."""
    height = 2 * _EDGE + 60 + _ROW * len(rows)
    page = Canvas(_PAGE, height)
    page.text((_EDGE, _EDGE - 4), shortened(printable(title), _PAGE - 2 * _EDGE, _TITLE), _TITLE)
    legend = (
        (canvas.BLUE, "of the images that the model predicts as the class, the rules do, too"),
        (canvas.GREEN, "of those that the rules call the class, the model does, too"),
    )
    for place, (colour, text) in enumerate(legend):
        down = _EDGE + 20 + 15 * place
        page.bar((_EDGE, down + 3, _EDGE + 10, down + 11), colour)
        page.text((_EDGE + 16, down), text, _FAINT)
    left = _EDGE + min(170.0, max(width_of(printable(row.name), _BODY) for row in rows) + 12)
    for place, row in enumerate(rows):
        down = _EDGE + 60 + _ROW * place
        name = shortened(printable(row.name), left - _EDGE - 8, _BODY)
        page.text((left - 8, down + 12), name, _BODY, "rm")
        for line, (found, colour) in enumerate(
            ((row.recall, canvas.BLUE), (row.precision, canvas.GREEN))
        ):
            _bar(page, (left, down + 12 * line), found, colour)
    return page.image


def _bar(page: Canvas, at: tuple[float, float], found: Rate, colour: str) -> None:
    """A bar with the share, and its interval in words."""
    if not found.total:
        page.text((at[0] + 2, at[1]), "no such images", _FAINT)
        return
    full = _PAGE - _EDGE - 130 - at[0]
    page.bar((at[0], at[1], at[0] + full * found.count / found.total, at[1] + 10), colour)
    text = f"{rate_text(found)} % of {found.total}"
    page.text((_PAGE - _EDGE - 124, at[1] + 5), text, Style(8.5, colour=canvas.FAINT), "lm")
