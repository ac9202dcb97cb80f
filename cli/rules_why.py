"""``conspec rules why``: formal explanations of single images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conspec.cli.console import print_json, show
from conspec.cli.exits import Exit
from conspec.cli.images import stored_image
from conspec.cli.journal import Job, write_lines
from conspec.cli.rules_input import Basis, RulesOption, basis_of
from conspec.cli.rules_prove import (
    LinesOption,
    RegionOption,
    TimeoutOption,
    read_region,
    read_scale,
    word,
)
from conspec.cli.run import limits_of
from conspec.cli.verify import JsonOption, LensOption, results_file
from conspec.specs.errors import BadUsage

if TYPE_CHECKING:
    from conspec.analysis.image_questions import ExactLayer
    from conspec.analysis.reasons import Case, Reason, Reasons
    from conspec.specs import formula as f
    from conspec.verifier.decide import Limits
    from conspec.verifier.results import Result


class KindName(StrEnum):
    """The kinds of explanations."""

    AXP = "axp"
    CXP = "cxp"


class UnitName(StrEnum):
    """What explanations are made of."""

    FEATURES = "features"
    PREDICATES = "predicates"
    CONCEPTS = "concepts"
    SCORES = "scores"


_UNITS = {
    UnitName.FEATURES: "features at this image's values",
    UnitName.PREDICATES: "active predicates of the class",
    UnitName.CONCEPTS: "comparisons in this image's order of concepts",
    UnitName.SCORES: "concepts at least as present as here",
}


@dataclass(frozen=True, eq=False)
class Asked:
    """What is to be explained, and how.

    Attributes:
        basis: the bundle.
        layer: its last layer, exactly.
        kind: which explanations.
        units: of what.
        smallest: of the fewest units.
        most: how many, at most.
        region: the domain; None for the box of the training embeddings.
        gamma: the domain is the focus region of the predicted class at this scale, if given.
        rules: where predicates come from; None if they are learnt anew.
        limits: of each call of the verifier.
    """

    basis: Basis
    layer: "ExactLayer"
    kind: KindName
    units: UnitName
    smallest: bool
    most: int
    region: "f.Region | None"
    gamma: Fraction | None
    rules: Path | None
    limits: "Limits"


@dataclass(frozen=True, eq=False)
class Answer:
    """The explanations of one image with their verdicts.

    Attributes:
        found: the explanations.
        results: of each explanation; of the statement about all units if that fails. None for
            those without a spec.
        names: the units as they are shown.
        applies: to how many held-out images each explanation applies, and of how many.
    """

    found: "Reasons"
    results: "tuple[Result | None, ...]"
    names: tuple[str, ...]
    applies: tuple[tuple[int, int], ...]


def why(
    lens: LensOption,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...", help="Numbers or names of stored images, or a part of a name."
        ),
    ],
    kind: Annotated[
        KindName, typer.Option("--kind", help="What suffices, or what would have to change.")
    ] = KindName.AXP,
    units: Annotated[
        UnitName, typer.Option("--units", help="What explanations are made of; see the docs.")
    ] = UnitName.FEATURES,
    gamma: Annotated[
        str | None,
        typer.Option(
            "--gamma", metavar="G", help="Over the focus region of the predicted class, widened."
        ),
    ] = None,
    region: RegionOption = None,
    smallest: Annotated[
        bool, typer.Option("--smallest", help="One of the fewest units, with a proof of that.")
    ] = False,
    most: Annotated[
        int, typer.Option("--all", metavar="N", min=1, help="Up to N different explanations.")
    ] = 1,
    rules: RulesOption = None,
    timeout: TimeoutOption = 10.0,
    as_json: JsonOption = False,
    jsonl: LinesOption = None,
) -> None:
    """Explain why the model predicts what it predicts, with certainty.

    An abductive explanation (axp) is a part of what is known of the image that suffices: whatever
    else holds within the domain, the class is the same; and no part of it does. A contrastive one
    (cxp) is a set of units that, if they may change, let another class win; and no part of it
    does. The domain is the box of all training embeddings, unless --gamma or --region is given;
    either is widened where the image lies outside.

    Exit codes: 0 every image explained, 2 some not, 3 bad input.
    """
    from conspec.analysis.image_questions import ExactLayer

    if gamma is not None and region is not None:
        raise BadUsage("--gamma and --region: give one of them")
    limits, path = limits_of(timeout, 1, "any"), results_file(jsonl, None)
    basis = basis_of(lens)
    asked = Asked(
        basis, ExactLayer.of(basis.lens), kind, units, smallest, most,
        None if region is None else read_region(region, basis.lens),
        None if gamma is None else read_scale(gamma),
        rules, limits,
    )  # fmt: skip
    wanted = [stored_image(basis.lens, name) for name in images]
    answers = [_answer(asked, case) for case in map(_case_maker(asked), wanted)]
    if path is not None:
        write_lines(path, _lines(answers, asked))
    if as_json:
        print_json([_document(asked, answer) for answer in answers])
    else:
        for answer in answers:
            _show(asked, answer)
    explained = all(answer.found.reasons for answer in answers)
    raise typer.Exit(Exit.PROVED if explained else Exit.UNKNOWN)


def _case_maker(asked: Asked) -> Any:
    """What makes the question about an image: image → (case, names of its units)."""
    from conspec.analysis import reasons as r
    from conspec.analysis.image_questions import predicted
    from conspec.specs.formula import Focus

    layer, classes = asked.layer, asked.basis.lens.classes

    def region_of(image: int) -> "f.Region | None":
        if asked.gamma is None:
            return asked.region
        return Focus(classes[predicted(layer, image)], asked.gamma)

    if asked.units is UnitName.FEATURES:
        return lambda image: r.feature_case(layer, image, region_of(image))
    if asked.units is UnitName.PREDICATES:
        saved = asked.basis.rules(asked.rules)
        called = _predicate_names(asked.basis, saved)

        def predicates(image: int) -> "Case":
            case = r.predicate_case(layer, image, saved.rules.vocabulary, region_of(image))
            return replace(case, names=tuple(called.get(name, name) for name in case.names))

        return predicates
    kind = r.UnitKind(asked.units.value)
    return lambda image: r.concept_case(layer, image, kind, region_of(image), asked.limits)


def _predicate_names(basis: Basis, saved: Any) -> dict[str, str]:
    """Predicates as they are shown, by their formulas."""
    from conspec.report.rules import predicate_text
    from conspec.specs.printer import to_text

    vocabulary, names = saved.rules.vocabulary, basis.names(saved)
    return {
        to_text(predicate.formula): predicate_text(predicate, names[place] if names else None)
        for place, predicate in enumerate(vocabulary)
    }


def _answer(asked: Asked, case: "Case") -> Answer:
    """The explanations of an image, each verified."""
    from conspec.analysis.reasons import Kind, Outcome, reasons
    from conspec.specs.formula import Suite
    from conspec.verifier.decide import verify_suite

    found = reasons(case, Kind(asked.kind.value), asked.most, asked.smallest)
    fails = found.outcome is Outcome.INSUFFICIENT
    specs = [found.whole] if fails else [reason.spec for reason in found.reasons]
    written = tuple(spec for spec in specs if spec is not None)
    verdicts = iter(verify_suite(Suite(written), asked.basis.lens, limits=asked.limits))
    results = tuple(None if spec is None else next(verdicts) for spec in specs)
    applies = tuple(_applies(spec, asked) for spec in written)
    return Answer(found, results, case.names, applies)


def _applies(spec: "f.ForAll", asked: Asked) -> tuple[int, int]:
    """How many held-out images lie in a spec's region and meet its premise, and of how many."""
    from conspec.encodings.regions import build_regions
    from conspec.specs.columns import ScoreBatch
    from conspec.specs.formula import Implies
    from conspec.specs.semantics import truth

    lens = asked.basis.lens
    points = lens.embeddings.z[lens.embeddings.heldout]
    if not len(points):
        return 0, 0
    (part,) = build_regions(spec.region, lens)
    chosen = part.region.members(points)
    if isinstance(spec.body, Implies):
        logits, concepts = lens.replay(points)
        batch = ScoreBatch(logits, concepts, lens.classes, lens.concepts, embeddings=points)
        chosen = chosen & truth(spec.body.premise, batch)
    return int(chosen.sum()), len(points)


def _lines(answers: Sequence[Answer], asked: Asked) -> list[Mapping[str, Any]]:
    from conspec.verifier.results import to_json

    lens = asked.basis.lens
    job = Job("auto", lens.hash, asked.limits.seconds, 1, "any")
    results = [result for answer in answers for result in answer.results if result is not None]
    return [job.signed(to_json(result, lens)) for result in results]


# --- shown -----------------------------------------------------------------------------------


def _show(asked: Asked, answer: Answer) -> None:
    from rich.text import Text

    from conspec.report.words import printable

    case, lens = answer.found.case, asked.basis.lens
    head = f"{lens.image_ids[case.image]} ({case.image}): predicted {case.label}"
    parts = [Text(printable(head), style="bold"), Text(printable(_domain(asked, answer)), "dim")]
    said = [_outcome(asked, answer)]
    said += [_reason(asked, answer, r, place) for place, r in enumerate(answer.found.reasons)]
    parts += [Text(printable(text)) for text in said if text]
    if asked.most > 1 and answer.found.reasons:
        others = "There are no others." if answer.found.complete else "There may be others."
        parts.append(Text(others))
    show(*parts)


def _domain(asked: Asked, answer: Answer) -> str:
    domain = answer.found.case.domain
    if asked.gamma is not None:
        text = f"Domain: focus({answer.found.case.label}, gamma={float(asked.gamma):g})"
    elif asked.region is not None:
        text = "Domain: the region given"
    else:
        text = "Domain: the box of all training embeddings"
    if domain.widened:
        text += f", widened for {domain.widened} of {len(domain.box.lower)} features"
    return f"{text}. Units: {len(answer.names)} {_UNITS[asked.units]}."


def _outcome(asked: Asked, answer: Answer) -> str:
    """What is to be said besides the explanations."""
    from conspec.analysis.reasons import Outcome

    label = answer.found.case.label
    match answer.found.outcome:
        case Outcome.INSUFFICIENT:
            return (
                f"No explanation: all units together do not suffice for {label} on this domain"
                f"{_rival(asked, answer.results[0])}. Try a smaller one (--gamma), or other units."
            )
        case Outcome.UNCONDITIONAL if not answer.found.reasons:
            return f"No explanation: whatever changes within the domain, {label} is predicted."
        case Outcome.UNDECIDED:
            return "Unknown: the verifier did not decide whether the units suffice."
        case _:
            return ""


def _reason(asked: Asked, answer: Answer, reason: "Reason", place: int) -> str:
    label, result = answer.found.case.label, answer.results[place]
    if asked.kind is KindName.AXP and not reason.units:
        return (
            f"{label} is predicted on the whole domain: no unit has to be held. "
            f"{_certainty(result)}"
        )
    chosen = ", ".join(answer.names[unit] for unit in reason.units)
    count = f"{len(reason.units)} of {len(answer.names)}"
    if asked.kind is KindName.AXP:
        text = f"Sufficient for {label}, {count}: {chosen}."
    else:
        text = f"{label} is lost if these may change, {count}: {chosen}{_rival(asked, result)}."
    notes = [_size(asked, reason), _certainty(result)]
    if asked.kind is KindName.AXP and result is not None:
        applied, total = answer.applies[place]
        notes.append(f"Applies to {applied} of {total} held-out images.")
    return "\n".join([text, " ".join(notes)])


def _size(asked: Asked, reason: "Reason") -> str:
    """How small it is, and what is known of smaller ones."""
    by_z3 = asked.units in (UnitName.CONCEPTS, UnitName.SCORES) and reason.units
    source = ", on the word of z3" if by_z3 else ""
    if reason.least == len(reason.units):
        return f"None has fewer units{source}."
    if reason.least is not None:
        return f"None has fewer than {reason.least} units{source}."
    if not reason.minimal:
        return "Perhaps a part of it would do: the verifier left something open."
    return "No part of it would do."


def _certainty(result: "Result | None") -> str:
    """What an explanation rests on."""
    from conspec.verifier.verdict import Proved, Trust, Violated

    if result is None:
        return "Certain by exact sums over the last layer, of which Con_spec does not speak."
    match result.verdict:
        case Proved(trust=Trust.CERTIFIED):
            return "Proved, with a certificate."
        case Proved():
            return "Proved, on the word of a solver."
        case Violated():
            return "Shown by an exact counterexample."
        case verdict:
            return f"Not certified: {verdict.reason.value}"


def _rival(asked: Asked, result: "Result | None") -> str:
    """The class that wins at a counterexample; empty without one."""
    from conspec.verifier.verdict import Violated

    if result is None or not isinstance(result.verdict, Violated):
        return ""
    logits = asked.layer.space.head.exact(result.verdict.witness.point)
    classes = asked.layer.space.classes
    top = max(logits)
    winners = [name for name, value in zip(classes, logits, strict=True) if value == top]
    return f"; for instance to {' and '.join(winners)}{' in a tie' if winners[1:] else ''}"


def _document(asked: Asked, answer: Answer) -> dict[str, Any]:
    from conspec.specs.printer import to_text

    case, lens = answer.found.case, asked.basis.lens
    rows = []
    for place, reason in enumerate(answer.found.reasons):
        result = answer.results[place]
        rows.append(
            {
                "units": [answer.names[unit] for unit in reason.units],
                "least": reason.least,
                "minimal": reason.minimal,
                "spec": None if reason.spec is None else to_text(reason.spec),
                "verdict": None if result is None else word(result),
                "certainty": _certainty(result),
                "heldout_images": answer.applies[place][0] if result is not None else None,
            }
        )
    return {
        "image": case.image,
        "name": lens.image_ids[case.image],
        "predicted": case.label,
        "kind": asked.kind.value,
        "units": asked.units.value,
        "of": len(answer.names),
        "widened": case.domain.widened,
        "outcome": answer.found.outcome.value,
        "complete": answer.found.complete,
        "explanations": rows,
    }
