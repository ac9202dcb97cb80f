"""What ``conspec rules`` writes as JSON."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from conspec.cli.rules_input import Basis

if TYPE_CHECKING:
    from conspec.analysis.calibration import Rate
    from conspec.analysis.names import Name
    from conspec.analysis.rule_files import Saved
    from conspec.analysis.rule_statistics import Quality
    from conspec.analysis.rules import Local


def local_document(
    basis: Basis,
    saved: "Saved",
    local: "Local",
    names: "Sequence[Name | None] | None",
    image: int,
) -> dict[str, Any]:
    """An image's local rule, and what the global ones say of it."""
    rules, lens = saved.rules, basis.lens
    answer = rules.answers(basis.z[image : image + 1])
    place, said = int(answer.rule[0]), int(answer.predicted[0])
    label = int(lens.embeddings.label[image])
    return {
        "image": image,
        "id": lens.image_ids[image],
        "predicted": lens.classes[local.label],
        "label": lens.classes[label] if label >= 0 else None,
        "pathway": [[feature, sign] for feature, sign in local.pathway],
        "needed": local.needed,
        "predicates": [
            _predicate_document(saved, place, names) | {"slack": slack}
            for place, slack in zip(local.predicates, local.slack, strict=True)
        ],
        "rule": place if place >= 0 else None,
        "rules_say": lens.classes[said] if said >= 0 else None,
    }


def _predicate_document(
    saved: "Saved", place: int, names: "Sequence[Name | None] | None"
) -> dict[str, Any]:
    predicate, name = saved.rules.vocabulary[place], names[place] if names else None
    return {
        "class": saved.rules.names[predicate.label],
        "feature": predicate.feature,
        "sign": predicate.sign,
        "threshold": predicate.threshold,
        "support": predicate.support,
        "name": None
        if name is None
        else {
            "concept": name.concept,
            "direction": name.direction,
            "difference": name.difference,
            "effect": name.effect,
            "p_value": name.p_value,
        },
    }


def evaluation_document(basis: Basis, saved: "Saved") -> dict[str, Any]:
    """What ``evaluate --json`` prints."""
    from conspec.analysis.rule_statistics import by_class, quality

    z, predicted, label = basis.heldout()
    found = quality(saved.rules, z, predicted, label)
    return {
        "bundle": basis.lens.hash,
        "images": found.images,
        "quality": quality_document(found),
        "classes": [
            {
                "class": row.name,
                "rules": row.rules,
                "predicates": row.predicates,
                "recall": rate_document(row.recall),
                "precision": rate_document(row.precision),
            }
            for row in by_class(saved.rules, z, predicted)
        ],
    }


def quality_document(found: "Quality") -> dict[str, Any]:
    """How a rule set does, for JSON."""
    rates = ("coverage", "precision", "fidelity", "accuracy", "accuracy5", "overlap", "conflict")
    return {
        **{name: rate_document(getattr(found, name)) for name in rates},
        "rules": found.rules,
        "predicates": found.predicates,
        "length": list(found.length),
    }


def rate_document(found: "Rate | None") -> dict[str, Any] | None:
    """A share with its interval, for JSON."""
    if found is None:
        return None
    return {
        "count": found.count,
        "total": found.total,
        "lower": found.lower,
        "upper": found.upper,
    }


def extract_document(
    basis: Basis, saved: "Saved", names: "Sequence[Name | None] | None"
) -> dict[str, Any]:
    """What ``extract --json`` prints."""
    rules = saved.rules
    return {
        "bundle": basis.lens.hash,
        "hidden": saved.hidden,
        "predicates": [
            _predicate_document(saved, place, names) for place in range(len(rules.vocabulary))
        ],
        "rules": [
            {
                "class": rules.names[rule.label],
                "predicates": list(rule.predicates),
                "support": rule.support,
                "covered": rule.covered,
                "right": rule.right,
            }
            for rule in rules.rules
        ],
    }
