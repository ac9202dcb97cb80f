"""Rule sets as files: JSON that is read back exactly, and suites of Con_spec."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from conspec.analysis.pathways import Integers
from conspec.analysis.predicates import Predicate, Vocabulary
from conspec.analysis.rules import Resolution, Rule, RuleSet, Settings
from conspec.lens.files import read_json
from conspec.specs.errors import BadFile, BadUsage
from conspec.specs.exact import read_number
from conspec.specs.formula import And, Focus, ForAll, Formula, Implies, Predict, Suite

FORMAT = "conspec-rules"
VERSION = 1
_VOCABULARY = ("label", "feature", "sign", "threshold", "support")
_RULE = ("label", "predicates", "support", "covered", "right")


@dataclass(frozen=True, eq=False)
class Saved:
    """A rule set with what it was learnt from.

    Attributes:
        rules: the rule set.
        bundle: SHA-256 of the lens bundle.
        hidden: whether the features are a hidden layer of the head, not the embedding.
    """

    rules: RuleSet
    bundle: str
    hidden: bool


def save(saved: Saved, path: Path) -> None:
    """Write a rule set as JSON; thresholds are written so that they are read back exactly."""
    rules, words = saved.rules, saved.rules.vocabulary
    settings = rules.settings
    content = {
        "bundle": saved.bundle,
        "hidden": saved.hidden,
        "settings": {
            "quantile": str(settings.quantile),
            "ahead": settings.ahead,
            "predicate_support": settings.predicate_support,
            "rule_support": settings.rule_support,
            "resolution": settings.resolution.value,
            "abstain": settings.abstain,
        },
        "classes": list(rules.names),
        "features": words.width,
        "frequency": rules.frequency.tolist(),
        "sources": words.sources.tolist(),
        "predicates": _rows(words, _VOCABULARY),
        "rules": [[getattr(rule, name) for name in _RULE] for rule in rules.rules],
    }
    document = {"format": FORMAT, "version": VERSION, "sha256": _digest(content), **content}
    path.write_text(_text(document), encoding="utf-8")


def _rows(words: Vocabulary, names: Sequence[str]) -> list[list[Any]]:
    columns = [getattr(words, name).tolist() for name in names]
    return [list(row) for row in zip(*columns, strict=True)]


def _text(document: dict[str, Any]) -> str:
    """JSON with a line for each predicate and each rule."""
    parts = []
    for key, value in document.items():
        if key in ("predicates", "rules") and value:
            rows = ",\n".join(f"  {json.dumps(row)}" for row in value)
            parts.append(f' "{key}": [\n{rows}\n ]')
        else:
            parts.append(f' "{key}": {json.dumps(value, ensure_ascii=False)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _digest(content: dict[str, Any]) -> str:
    """Of the content in one canonical form, so that a change of a number is noticed."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def load(path: Path) -> Saved:
    """Read a rule set.

    Raises:
        BadFile: it is none, or was changed or damaged after it was written.
    """
    document = dict(read_json(path))
    if document.pop("format", None) != FORMAT:
        raise BadFile(f"{path}: no rule set; 'conspec rules extract' writes one")
    if (version := document.pop("version", None)) != VERSION:
        raise BadFile(f"{path}: rules of format {version}, this conspec reads {VERSION}")
    expected = document.pop("sha256", None)
    try:
        if _digest(document) != expected:
            raise BadFile(f"{path}: changed or damaged after it was written; extract it again")
        return _read(document)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadFile(f"{path}: no rule set: {error!r}; extract it again") from error


def _read(document: dict[str, Any]) -> Saved:
    names, settings = tuple(document["classes"]), document["settings"]
    table = document["predicates"]
    columns = list(zip(*table, strict=True)) if table else [()] * len(_VOCABULARY)
    label, feature, sign, threshold, support = columns
    words = Vocabulary(
        len(names),
        document["features"],
        _integers(label),
        _integers(feature),
        _integers(sign),
        np.array(threshold, dtype=np.float64),
        _integers(support),
        _integers(document["sources"]),
    )
    rows = (dict(zip(_RULE, row, strict=True)) for row in document["rules"])
    rules = tuple(Rule(**{**row, "predicates": tuple(row["predicates"])}) for row in rows)
    found = Settings(
        Fraction(settings["quantile"]),
        settings["ahead"],
        settings["predicate_support"],
        settings["rule_support"],
        Resolution(settings["resolution"]),
        settings["abstain"],
    )
    kept = RuleSet(names, words, rules, _integers(document["frequency"]), found)
    _check(kept)
    return Saved(kept, document["bundle"], document["hidden"])


def _integers(values: Sequence[int]) -> Integers:
    return np.array(values, dtype=np.int64)


def _check(rules: RuleSet) -> None:
    """Refuse what no rule set can be."""
    words, count = rules.vocabulary, len(rules.names)
    if not (np.diff(words.keys) > 0).all() or not np.isfinite(words.threshold).all():
        raise ValueError("predicates out of order, or a threshold that is no number")
    within = (words.label < count) & (words.feature < words.width)
    if not (np.isin(words.sign, (1, -1)) & within & (words.label >= 0)).all():
        raise ValueError("a predicate of no class or feature, or without a sign")
    for rule in rules.rules:
        if not rule.predicates or not all(0 <= p < len(words) for p in rule.predicates):
            raise ValueError("a rule about predicates that do not exist")
        if any(words.label[p] != rule.label for p in rule.predicates) or rule.covered < 1:
            raise ValueError("a rule with predicates of another class, or that covers nothing")


def conjunction(predicates: Sequence[Predicate]) -> Formula:
    """The conjunction of one or more predicates as a formula."""
    parts = tuple(predicate.formula for predicate in predicates)
    return parts[0] if len(parts) == 1 else And(parts)


def rule_formula(rules: RuleSet, rule: Rule) -> Formula:
    """``z(3) >= 0.5 and … => predict(x, c)``."""
    return Implies(conjunction(rules.predicates(rule)), Predict(rules.names[rule.label]))


def rule_name(rules: RuleSet, place: int) -> str:
    """``rule_1_truck``: the rule's number, counted from 1, and its class."""
    label = rules.names[rules.rules[place].label]
    plain = "".join(c if c.isalnum() else "_" for c in label)
    return f"rule_{place + 1}_{plain}"


def to_suite(saved: Saved, gamma: str) -> Suite:
    """Each rule as a spec over the focus region of its class.

    ``forall x in focus(c, gamma=G): z(3) >= 0.5 and … => predict(x, c)``

    Raises:
        BadUsage: the rules are about a hidden layer, of which Con_spec does not speak; or
            ``gamma`` is no number.
    """
    if saved.hidden:
        raise BadUsage(
            "these rules are about a hidden layer of the head; Con_spec speaks of the embedding "
            "only, so they cannot be written as a suite"
        )
    try:
        scale = read_number(gamma)
    except (ValueError, ZeroDivisionError) as error:
        raise BadUsage(f"gamma {gamma}: must be a number such as 0.3") from error
    if scale < 0:
        raise BadUsage(f"gamma {gamma}: must not be below 0")
    rules = saved.rules
    specs = [
        ForAll(
            rule_name(rules, place),
            Focus(rules.names[rule.label], scale),
            rule_formula(rules, rule),
        )
        for place, rule in enumerate(rules.rules)
    ]
    return Suite(tuple(specs))
