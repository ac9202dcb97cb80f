"""Why the model predicts what it predicts for one stored image: explanations with their specs.

Each explanation comes with the statement of Con_spec that it stands for: that the kept units
imply the prediction over the domain (an AXp, to be proved), or that they do so without the
units of a contrastive set (a CXp, to be refuted). What they rest on is for the verifier to say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from conspec.analysis.concept_questions import concept_question, ranking_units, score_units
from conspec.analysis.explanations import LinearQuestion
from conspec.analysis.hitting_sets import (
    Question,
    Smallest,
    enumerate_explanations,
    smallest_by_hitting,
)
from conspec.analysis.image_questions import (
    Domain,
    ExactLayer,
    Subject,
    embedding_domain,
    predicted,
    subject_of,
)
from conspec.analysis.predicates import Predicate, Vocabulary
from conspec.analysis.smallest import smallest_axp, smallest_cxp
from conspec.encodings.rounding import Bools
from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadUsage
from conspec.specs.printer import to_text
from conspec.verifier.decide import DEFAULT_LIMITS, Limits


class Kind(StrEnum):
    """The kinds of explanations."""

    AXP = "axp"
    CXP = "cxp"


class UnitKind(StrEnum):
    """What explanations are made of."""

    FEATURES = "features"
    """Each feature at the image's own value."""
    PREDICATES = "predicates"
    """Predicates of the predicted class that are active in the image."""
    CONCEPTS = "concepts"
    """The order of the concepts' scores in the image."""
    SCORES = "scores"
    """Each concept at least as present as in the image."""


@dataclass(frozen=True, eq=False)
class Case:
    """One image, and what its prediction is to be explained with.

    Attributes:
        image: its number in the bundle.
        label: the predicted class.
        domain: the box over which explanations hold.
        names: of the units.
        question: which of them suffice.
        spec_of: the statement that a set of kept units [U] suffices, given its name; None where
            Con_spec does not speak of the features.
    """

    image: int
    label: str
    domain: Domain
    names: tuple[str, ...]
    question: Question
    spec_of: Callable[[Bools, str], f.ForAll] | None


@dataclass(frozen=True, eq=False)
class Reason:
    """One explanation.

    Attributes:
        kind: abductive or contrastive.
        units: its units, rising.
        least: no explanation of the kind has fewer units; certain for features and predicates,
            on the word of z3 for concepts and scores. None if that was not asked.
        minimal: whether no part of it is an explanation; not so only if the verifier left
            something open.
        spec: the statement, proved for an AXp and violated for a CXp.
    """

    kind: Kind
    units: tuple[int, ...]
    least: int | None
    minimal: bool
    spec: f.ForAll | None


class Outcome(StrEnum):
    """What can be said of a prediction in terms of units."""

    EXPLAINED = "explained"
    """Explanations were found."""
    INSUFFICIENT = "insufficient"
    """All units together do not suffice, so neither kind exists; ``whole`` is then violated."""
    UNCONDITIONAL = "unconditional"
    """The class is predicted on the whole domain: the AXp is empty, and there is no CXp."""
    UNDECIDED = "undecided"
    """The verifier left open whether all units suffice, or whether none do."""


@dataclass(frozen=True, eq=False)
class Reasons:
    """The explanations of one image.

    Attributes:
        case: the question.
        outcome: what can be said.
        reasons: what was found; one empty AXp if it is unconditional and that was asked for.
        complete: whether there are no others of the kind.
        whole: the statement that all units together suffice; None as for ``spec_of``.
        undecided: how many answers of the verifier were missing on the way.
    """

    case: Case
    outcome: Outcome
    reasons: tuple[Reason, ...]
    complete: bool
    whole: f.ForAll | None
    undecided: int


def feature_case(layer: ExactLayer, image: int, region: f.Region | None = None) -> Case:
    """An image explained with its features.

    Raises:
        BadUsage, BadRegion: see `subject_of`.
    """
    subject = subject_of(layer, image, region)
    question = subject.features()

    def spec_of(kept: Bools, name: str) -> f.ForAll:
        return subject.feature_spec(question, kept, name)

    return Case(
        image,
        subject.label,
        subject.domain,
        question.units.names,
        question,
        spec_of if layer.is_embedding else None,
    )


def predicate_case(
    layer: ExactLayer, image: int, vocabulary: Vocabulary, region: f.Region | None = None
) -> Case:
    """An image explained with the predicates of its class that are active in it.

    Raises:
        BadUsage, BadRegion: see `subject_of`.
    """
    subject = subject_of(layer, image, region)
    chosen = _active(subject, vocabulary)
    question = subject.predicates(chosen)

    def spec_of(kept: Bools, name: str) -> f.ForAll:
        return subject.predicate_spec(chosen, kept, name)

    return Case(
        image,
        subject.label,
        subject.domain,
        question.units.names,
        question,
        spec_of if layer.is_embedding else None,
    )


def _active(subject: Subject, vocabulary: Vocabulary) -> tuple[Predicate, ...]:
    """The predicates of the predicted class that the image satisfies, exactly."""
    values = subject.point.fractions()
    found = [vocabulary[place] for place in vocabulary.of_class(subject.target).tolist()]
    return tuple(p for p in found if p.sign * values[p.feature] >= p.sign * p.bound)


def concept_case(
    layer: ExactLayer,
    image: int,
    kind: UnitKind,
    region: f.Region | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Case:
    """An image explained with its concepts, by their order or by their scores.

    Raises:
        BadUsage, BadRegion: see `subject_of`; or other units are asked for.
    """
    makers: dict[UnitKind, Callable[[Lens, int], Sequence[f.Formula]]] = {
        UnitKind.CONCEPTS: ranking_units,
        UnitKind.SCORES: score_units,
    }
    if kind not in makers:
        raise BadUsage(f"{kind} are no concepts")
    label = layer.space.classes[predicted(layer, image)]
    domain = embedding_domain(layer, image, region)
    units = makers[kind](layer.lens, image)
    question = concept_question(layer.lens, image, domain.region, label, units, limits)
    names = tuple(map(to_text, units))
    return Case(image, label, domain, names, question, question.spec)


def reasons(case: Case, kind: Kind, most: int = 1, smallest: bool = False) -> Reasons:
    """Explanations of an image.

    Args:
        case: the image and its units.
        kind: which explanations.
        most: how many at most; with more than one, they are enumerated.
        smallest: one of the fewest units, in place of any; with as much of a proof of that as
            is found.
    """
    outcome = _outcome(case.question)
    everything = np.ones(case.question.size, dtype=bool)
    if outcome is Outcome.UNCONDITIONAL and kind is Kind.AXP:
        return _found(case, outcome, kind, [~everything], complete=True, least=0)
    if outcome is not Outcome.EXPLAINED:
        return _found(case, outcome, kind, [], complete=outcome is not Outcome.UNDECIDED)
    if smallest:
        best = _smallest(case.question, kind)
        return _found(case, outcome, kind, [best.chosen], complete=False, least=best.lower)
    if most > 1:
        listed = enumerate_explanations(case.question, most, kind.value)
        places = listed.axps if kind is Kind.AXP else listed.cxps
        return _found(case, outcome, kind, [_mask(p, everything) for p in places], listed.complete)
    shrink = case.question.smaller_kept if kind is Kind.AXP else case.question.smaller_freed
    return _found(case, outcome, kind, [shrink(everything)], complete=False)


def _outcome(question: Question) -> Outcome:
    """Whether there is something to explain."""
    everything = np.ones(question.size, dtype=bool)
    all_suffice = question.sufficient(everything)
    if all_suffice is not True:
        return Outcome.UNDECIDED if all_suffice is None else Outcome.INSUFFICIENT
    none_suffice = question.sufficient(~everything)
    if none_suffice is None:
        return Outcome.UNDECIDED
    return Outcome.UNCONDITIONAL if none_suffice else Outcome.EXPLAINED


def _smallest(question: Question, kind: Kind) -> Smallest:
    """A small explanation, and how small one can be."""
    if not isinstance(question, LinearQuestion):
        return smallest_by_hitting(question, kind.value)
    found = smallest_axp(question) if kind is Kind.AXP else smallest_cxp(question)
    if found is None:
        raise ValueError("the question has no explanation")
    return found


def _mask(places: Sequence[int], everything: Bools) -> Bools:
    chosen = np.zeros_like(everything)
    chosen[list(places)] = True
    return chosen


def _found(
    case: Case,
    outcome: Outcome,
    kind: Kind,
    chosen: Sequence[Bools],
    complete: bool,
    least: int | None = None,
) -> Reasons:
    """The explanations with their specs."""
    undecided = int(getattr(case.question, "undecided", 0))
    found = []
    for place, units in enumerate(chosen, start=1):
        kept = units if kind is Kind.AXP else ~units
        name = f"{kind} {place} of image {case.image}"
        spec = None if case.spec_of is None else case.spec_of(kept, name)
        numbers = tuple(np.flatnonzero(units).tolist())
        found.append(Reason(kind, numbers, least, not undecided, spec))
    everything = np.ones(case.question.size, dtype=bool)
    name = f"all units of image {case.image}"
    whole = None if case.spec_of is None else case.spec_of(everything, name)
    return Reasons(case, outcome, tuple(found), complete, whole, undecided)
