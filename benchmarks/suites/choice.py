"""The specs of a suite: drawn from a bundle, or a user's own."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from conspec.benchmarks.suites.families import Entry, generate, missing
from conspec.benchmarks.suites.radius import FACTORS, graded
from conspec.benchmarks.suites.request import GRADED, LONGEST_TOTAL, OWN, Request
from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadUsage

LONGEST_STEM = 100  # characters of a file name without its ending

Advance = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Chosen:
    """The specs of a suite.

    Attributes:
        entries: in the suite's order; their names are unique.
        notes: sentences on what was asked for and is not there.
    """

    entries: tuple[Entry, ...]
    notes: tuple[str, ...]


def choose(lens: Lens, request: Request, advance: Advance) -> Chosen:
    """The specs that a request gives for a bundle.

    Raises:
        BadUsage: there are none, too many for the total time, or too few different ones.
        SpecSyntaxError, UnknownName: the user's own suite is not one for this bundle.
    """
    if request.suite is not None:
        found = _own(lens, request.suite)
        _refuse_overtime(len(found.entries), request)
    else:
        found = _drawn(lens, request, advance)
    if not found.entries:
        raise BadUsage("there is nothing to export: " + " ".join(found.notes))
    return found


def _refuse_overtime(instances: int, request: Request) -> None:
    """Refuse more instances of VNN-LIB than VNN-COMP's total time allows.

    Raises:
        BadUsage: their time limits sum to more than six hours.
    """
    seconds = request.seconds
    if "vnnlib" in request.formats and instances * seconds > LONGEST_TOTAL:
        most = int(LONGEST_TOTAL // seconds)
        raise BadUsage(
            f"{instances} instances of {seconds:g} s take up to {instances * seconds / 3600:.1f} "
            f"hours; VNN-COMP allows 6. With this limit at most {most} instances fit (--count, "
            f"--family), with these instances at most {LONGEST_TOTAL // instances} s (--timeout)"
        )


def _drawn(lens: Lens, request: Request, advance: Advance) -> Chosen:
    """Specs of all families asked for."""
    notes = {name: why for name in request.families if (why := missing(name, lens))}
    present = [name for name in request.families if name not in notes]
    sizes = {GRADED: request.count * len(FACTORS), "has": 0}  # has(…) is in no timed folder
    _refuse_overtime(sum(sizes.get(name, request.count) for name in present), request)
    entries: list[Entry] = []
    words = [f"No specs of family {name}: {why}." for name, why in notes.items()]
    for name in present:
        if name != GRADED:
            entries += generate(lens, name, request.count, request.seed)
            continue
        groups = graded(lens, request.count, request.seed, request.seconds)
        found = 0
        for found, group in enumerate(groups, start=1):
            entries += group
            advance("looking for γ*", found, request.count)
        if found < request.count:
            words.append(
                f"Family {GRADED}: γ* was found for {found} specs of {request.count} only."
            )
    return Chosen(tuple(entries), tuple(words))


def _own(lens: Lens, text: str) -> Chosen:
    """The specs of a user's own suite; those over a union as one spec for each part."""
    from conspec.specs.parser import parse

    suite = parse(text, classes=lens.classes, concepts=lens.concepts)
    proofs = [spec for spec in suite.specs if isinstance(spec, f.ForAll)]
    others = [spec.name for spec in suite.specs if not isinstance(spec, f.ForAll)]
    notes = [f"Not exported, since it asks for a probability: {name}." for name in others]
    entries = [Entry(part, OWN) for spec in proofs for part in _parts(spec)]
    names = [entry.spec.name for entry in entries]
    if twins := sorted({name for name in names if names.count(name) > 1}):
        raise BadUsage(f"two specs would be called {twins[0]!r}; rename one of them")
    return Chosen(tuple(entries), tuple(notes))


def _parts(spec: f.ForAll) -> list[f.ForAll]:
    """One spec for each convex part of the region."""
    regions = _convex(spec.region)
    if len(regions) == 1:
        return [replace(spec, region=regions[0])]
    return [
        replace(spec, name=f"{spec.name}_part_{place}", region=region)
        for place, region in enumerate(regions, start=1)
    ]


def _convex(region: f.Region) -> list[f.Region]:
    """The parts of a region expression, none of which holds a union."""
    match region:
        case f.Either(parts):
            return [part for each in parts for part in _convex(each)]
        case f.Both(parts):
            return [f.Both(chosen) for chosen in product(*map(_convex, parts))]
        case _:
            return [region]


def stems(names: Sequence[str]) -> Mapping[str, str]:
    """A file name for each name: letters, digits, ``_``, ``-`` and ``.``, different in any case."""
    taken: set[str] = set()
    found = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:LONGEST_STEM].lstrip(".-") or "spec"
        stem, number = plain, 1
        while stem.casefold() in taken:
            number += 1
            stem = f"{plain}_{number}"
        taken.add(stem.casefold())
        found[name] = stem
    return found
