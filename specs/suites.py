"""Suites made from a table that says which concepts matter for which class."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

from conspec.specs.calls import SCALED_REGIONS
from conspec.specs.errors import BadUsage, UnknownName
from conspec.specs.formula import (
    ForAll,
    Formula,
    Hull,
    Implies,
    Predict,
    Region,
    Stronger,
    Suite,
)
from conspec.specs.names import shown
from conspec.specs.source import nearest

Relevance = Mapping[str, Sequence[str]]


def relevance_suite(
    relevance: Relevance,
    concepts: Sequence[str],
    *,
    gamma: Fraction | float | str,
    region: str = "focus",
    premise: bool = True,
) -> Suite:
    """Makes one spec per class, relevant concept and irrelevant concept of that class.

    Each says: in the class's region, whenever the model predicts the class, the relevant
    concept is stronger than the irrelevant one. Names are like ``truck_wheels_over_wings``.

    Args:
        relevance: The relevant concepts of each class.
        concepts: All concepts; those not relevant to a class are irrelevant to it.
        gamma: Scale of the region; a float means the decimal it prints as.
        region: ``focus``, ``pca_box``, ``zonotope``, ``ellipsoid`` or ``hull`` (no scale).
        premise: Whether the spec has the premise ``predict``.

    Raises:
        UnknownName: a relevant concept is not among ``concepts``.
        BadUsage: names given twice or differing only in case, two specs of one name, no spec
            at all, an unknown region, or a bad scale.
    """
    _refuse_twins("concepts", concepts)
    _refuse_twins("classes", list(relevance))
    specs = []
    for label, relevant in relevance.items():
        _refuse_twins(f"relevant concepts of {shown(label)}", relevant)
        _refuse_unknown(label, relevant, concepts)
        where = _region(region, label, _scale(gamma))
        for a in relevant:
            for b in concepts:
                if b in relevant:
                    continue
                stronger = Stronger(a, b)
                body: Formula = Implies(Predict(label), stronger) if premise else stronger
                specs.append(ForAll(_identifier(f"{label}_{a}_over_{b}"), where, body))
    if not specs:
        raise BadUsage("no class has both a relevant and an irrelevant concept")
    _refuse_twins("spec names", [spec.name for spec in specs])
    return Suite(tuple(specs))


def frequency_relevance(
    frequencies: Mapping[str, Mapping[str, float]],
    threshold: float,
    *,
    drop: Mapping[str, Collection[str]] | None = None,
) -> dict[str, list[str]]:
    """Derives which concepts matter for a class from how often its images have them.

    Args:
        frequencies: Per class and concept, the share of the class's images that have it.
        threshold: A concept is relevant from this share on.
        drop: Concepts that count for no class but those given: ``{"patterned": ("bird",)}``.

    Raises:
        BadUsage: a share or the threshold is not in [0, 1].
        UnknownName: ``drop`` names a concept or class without frequencies.
    """
    exceptions = drop or {}
    shares = [share for row in frequencies.values() for share in row.values()]
    if not all(0 <= share <= 1 for share in [threshold, *shares]):
        raise BadUsage("frequencies and their threshold are shares: they lie in [0, 1]")
    known = {concept for row in frequencies.values() for concept in row}
    for concept, labels in exceptions.items():
        _refuse_unknown("drop", [concept], known)
        _refuse_unknown("drop", labels, frequencies)
    return {
        label: [
            concept
            for concept, share in row.items()
            if share >= threshold and label in exceptions.get(concept, (label,))
        ]
        for label, row in frequencies.items()
    }


def rival10_concepts() -> list[str]:
    """The 18 attributes of RIVAL10, in the data set's order."""
    return list(_rival10()["concepts"])


def rival10_relevance() -> dict[str, list[str]]:
    """The concepts relevant to each of RIVAL10's ten classes."""
    return {label: list(row) for label, row in _rival10()["relevance"].items()}


def rival10_frequencies() -> dict[str, dict[str, float]]:
    """The share of each class's images that have an attribute, good to about 0.02."""
    return {label: dict(row) for label, row in _rival10()["frequencies"].items()}


@lru_cache(maxsize=1)
def _rival10() -> dict[str, Any]:
    path = Path(__file__).with_name("data") / "rival10.json"
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return table


def _region(kind: str, label: str, gamma: Fraction) -> Region:
    if kind == "hull":
        return Hull(label)
    if kind not in SCALED_REGIONS:
        kinds = ", ".join([*SCALED_REGIONS, "hull"])
        raise BadUsage(f"unknown region {shown(kind)}; there are {kinds}")
    return SCALED_REGIONS[kind](label, gamma)


def _scale(gamma: Fraction | float | str) -> Fraction:
    try:
        scale = Fraction(str(gamma))
    except (ValueError, ZeroDivisionError):
        raise BadUsage(f"gamma: expected a number, got {gamma!r}") from None
    if scale < 0:
        raise BadUsage(f"gamma: expected a number >= 0, got {gamma}")
    return scale


def _identifier(text: str) -> str:
    """Replaces what would need quotes: ``dog_floppy-ears_over_wings`` would."""
    return re.sub(r"\W", "_", text)


def _refuse_twins(what: str, names: Sequence[str]) -> None:
    """Refuses equal names, and names that differ only in case.

    The latter are one concept, written in two ways: as relevant and irrelevant at once it
    would make a spec that compares the concept with itself.
    """
    first: dict[str, str] = {}
    for name in names:
        twin = first.get(name.casefold())
        if twin == name:
            raise BadUsage(f"{what}: {shown(name)} is given twice")
        if twin is not None:
            raise BadUsage(f"{what}: {shown(twin)} and {shown(name)} differ only in case")
        first[name.casefold()] = name


def _refuse_unknown(where: str, names: Collection[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            best = nearest(name, known)
            hint = f"; did you mean {shown(best)}?" if best else ""
            raise UnknownName(f"{where}: unknown name {shown(name)}{hint}")
