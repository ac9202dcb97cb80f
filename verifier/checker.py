"""The independent checker: re-establishes verdicts in exact arithmetic, trusting no engine.

It takes a line of a results file and the lens bundle, re-derives the formula from the spec's
text and the weights from the ONNX files, and checks each lemma of a proof, or the counterexample.
Trusted are this file, ``checker_cones``, ``checker_files`` and ``checker_regions``, the Con_spec
parser and printer, the rewriting to negation normal form, the propositional search, and the
packages that decode protobuf and JSON. No solver, no torch, no floating point.

A proof is accepted if every lemma's weighted sum of literals is impossible on the region, and no
choice of literals that satisfies the negated formula avoids all lemmas.
"""

import re
import struct
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from operator import mul
from typing import Any

from conspec.specs import formula as f
from conspec.specs.errors import ConspecError
from conspec.specs.parser import parse
from conspec.specs.printer import to_text
from conspec.specs.rewrite import (
    All,
    Cone,
    Count,
    Halfspace,
    Literal,
    Nnf,
    Some,
    literals,
    negation_normal_form,
)
from conspec.verifier.checker_cones import norm_bound
from conspec.verifier.checker_files import (
    Bundle,
    Refused,
    Row,
    dot,
    fractions_row,
    weighted,
)
from conspec.verifier.checker_regions import Region, regions_of
from conspec.verifier.propositional import Search, TooHard


def check_line(line: Mapping[str, Any], bundle: Bundle) -> str:
    """Re-establishes one result.

    Returns:
        "proof" or "counterexample" for what was re-established; "nothing" for a line that
        claims nothing checkable (unknown, or a proof on the word of a solver).

    Raises:
        Refused: the line claims something that does not follow.
    """
    try:
        return _check(line, bundle)
    except (
        ArithmeticError, AttributeError, LookupError, TypeError, ValueError,
        ConspecError, struct.error,
    ) as error:  # fmt: skip
        raise Refused(f"malformed line: {error!r}") from error
    except (TooHard, RecursionError) as error:
        raise Refused("the proof's propositional part is too hard to check") from error


def _check(line: Mapping[str, Any], bundle: Bundle) -> str:
    verdict, trust = line["verdict"], line["trust"]
    if verdict not in ("proved", "violated", "unknown"):
        raise Refused(f"no such verdict: {verdict!r}")
    if verdict == "unknown" or (verdict == "proved" and trust == "solver"):
        return "nothing"
    if trust != "certified":
        raise Refused(f"no such trust: {trust!r}")
    if line["bundle"] != bundle.hash:
        raise Refused("the line belongs to another lens bundle")
    spec = _spec(line, bundle)
    parts = regions_of(spec.region, bundle)
    if verdict == "violated":
        for claim in (line["counterexample"], *line["more_counterexamples"]):
            _check_counterexample(spec, parts, claim, bundle)
        return "counterexample"
    certificate = line["certificate"]
    if (certificate["format"], certificate["version"]) != ("conspec-certificate", 1):
        raise Refused("a certificate of another format or version")
    if len(certificate["parts"]) != len(parts):
        raise Refused("the certificate has another number of parts than the region")
    for (region, cuts), part in zip(parts, certificate["parts"], strict=True):
        negated = negation_normal_form(spec.body, bundle.classes, negate=True)
        _check_part(All((*cuts, negated)) if cuts else negated, region, part, bundle)
    return "proof"


def _spec(line: Mapping[str, Any], bundle: Bundle) -> f.ForAll:
    """The spec in the line's text, which must agree with the line's other fields."""
    (spec,) = parse(line["text"], classes=bundle.classes, concepts=bundle.concepts).specs
    if not isinstance(spec, f.ForAll):
        raise Refused("only forall specs are proved or refuted")
    printed = (spec.name, to_text(spec.body), to_text(spec.region))
    if printed != (line["spec"], line["formula"], line["region"]):
        raise Refused("the spec's text differs from the line's name, formula or region")
    return spec


def _check_part(violation: Nnf, region: Region, part: Any, bundle: Bundle) -> None:
    """The part refutes the violation on the region: by lemmas, or on both halves of a split."""
    if isinstance(part, list):
        _check_lemmas(violation, region, part, bundle)
        return
    below, above = region.halves(part["split"]["coordinate"], _exact(part["split"]["at"]))
    _check_part(violation, below, part["below"], bundle)
    _check_part(violation, above, part["above"], bundle)


def _check_lemmas(violation: Nnf, region: Region, lemmas: Any, bundle: Bundle) -> None:
    """Every lemma holds on the region, and together they refute the violation."""
    found = literals(violation)
    masks = []
    for lemma in lemmas:
        _check_lemma([(found[_place(t, found)], t) for t in lemma], region, bundle)
        masks.append(sum({1 << _place(term, found) for term in lemma}))
    places = {literal: place for place, literal in enumerate(found)}
    if Search(places, masks).implicant(violation) is not None:
        raise Refused("the lemmas do not rule out every way to violate the formula")


def _exact(text: Any) -> Fraction:
    """A rational number as the schema has it: ``p`` or ``p/q`` in plain digits."""
    if type(text) is not str or not re.fullmatch("-?[0-9]+(/[0-9]+)?", text):
        raise Refused(f"{text!r:.60} is no exact number")
    return Fraction(text)


def _place(term: Mapping[str, Any], found: Sequence[Literal]) -> int:
    place = term["literal"]
    if type(place) is not int or not 0 <= place < len(found):
        raise Refused(f"a lemma names literal {place!r}, the formula has {len(found)}")
    return place


def _check_lemma(
    terms: Sequence[tuple[Literal, Mapping[str, Any]]], region: Region, bundle: Bundle
) -> None:
    """The weighted sum of the literals cannot be satisfied on the region."""
    weights: dict[f.Symbol, Fraction] = {}
    rows: list[tuple[Fraction, Row]] = []
    constant, strict = Fraction(0), False
    for literal, term in terms:
        multiplier = _exact(term["multiplier"])
        if multiplier <= 0:
            raise Refused("a multiplier is not positive")
        if isinstance(literal, Halfspace):
            strict |= literal.strict
            pairs, shift = literal.terms, literal.constant
        else:
            strict |= literal.holds
            sign = 1 if literal.holds else -1
            pairs = ((Fraction(sign), f.Score(literal.concept)),)
            cut, shift = _cone(literal, term, region, bundle)
            rows += [(multiplier * sign * factor, row) for factor, row in cut]
            shift *= sign
        constant += multiplier * shift
        for factor, symbol in pairs:
            weights[symbol] = weights.get(symbol, Fraction(0)) + multiplier * factor
    highest, exact = _maximum(weights, rows, region, bundle)
    if highest + constant < 0 or (strict and exact and highest + constant == 0):
        return
    raise Refused("a lemma's weighted sum can be satisfied on the region")


def _maximum(
    weights: Mapping[f.Symbol, Fraction],
    rows: Sequence[tuple[Fraction, Row]],
    region: Region,
    bundle: Bundle,
) -> tuple[Fraction, bool]:
    """The maximum of weighted scores and rows over the region, and whether it is exact.

    The last hidden layer of a ReLU head counts as free within its bounds, which is more than
    can happen.
    """
    total, constant = list(rows), Fraction(0)
    hidden: list[tuple[Fraction, Row]] = []
    for symbol, weight in weights.items():
        row, bias = _score(symbol, bundle)
        constant += weight * bias
        is_hidden = isinstance(symbol, f.Logit) and len(bundle.head.affine) > 1
        (hidden if is_hidden else total).append((weight, row))
    highest, exact = region.support(weighted(total, bundle.size))
    if hidden:
        bounds = _hidden_bounds(region, bundle)
        tops, bottom = weighted(hidden, len(bounds))
        sides = [high if top > 0 else low for top, (low, high) in zip(tops, bounds, strict=True)]
        highest += sum(map(mul, tops, sides), Fraction(0)) / bottom
    return highest + constant, exact


def _score(symbol: f.Symbol, bundle: Bundle) -> tuple[Row, Fraction]:
    """A symbol as a row over z, or over the last hidden layer for a ReLU head's logit."""
    match symbol:
        case f.Logit(label):
            return bundle.head.affine[-1][bundle.classes.index(label)]
        case f.Score(concept):
            return bundle.concepts[concept]
        case f.Coordinate(index):
            unit = [0] * bundle.size
            unit[index] = 1
            return (unit, 1), Fraction(0)


@lru_cache(maxsize=16)
def _hidden_bounds(region: Region, bundle: Bundle) -> list[tuple[Fraction, Fraction]]:
    """Bounds of the last hidden layer after its activation, by exact interval arithmetic."""
    bounds: list[tuple[Fraction, Fraction]] = []
    for depth, activation in enumerate(bundle.head.activations):
        found = []
        for (tops, bottom), bias in bundle.head.affine[depth]:
            if depth == 0:
                high = region.support((tops, bottom))[0]
                low = -region.support(([-top for top in tops], bottom))[0]
            else:
                pairs = list(zip(tops, bounds, strict=True))
                high = sum((t * b[t > 0] for t, b in pairs), Fraction(0)) / bottom
                low = sum((t * b[t < 0] for t, b in pairs), Fraction(0)) / bottom
            found.append((activation(low + bias), activation(high + bias)))
        bounds = found
    return bounds


def _cone(
    literal: Cone, term: Mapping[str, Any], region: Region, bundle: Bundle
) -> tuple[list[tuple[Fraction, Row]], Fraction]:
    """``−τ·X`` as rows and a constant, with ``±(score − τ·X)`` implied by a ``has`` literal.

    X is ``u·e(z)`` with the term's direction u, ``‖u‖ ≤ 1``, where the literal is convex; else it
    is the affine upper bound of ``‖e(z)‖`` on the region that the term's norm chooses.
    """
    threshold = bundle.thresholds[literal.concept]
    if literal.holds == (threshold >= 0):
        factors, constant = [_exact(text) for text in term["direction"]], Fraction(0)
        if sum(value * value for value in factors) > 1:
            raise Refused("a tangent's direction is longer than 1")
    else:
        factors, constant = norm_bound(region, bundle, _exact(term["norm"]))
    rows = []
    for factor, (row, bias) in zip(factors, bundle.alignment, strict=True):
        constant += factor * bias
        rows.append((-threshold * factor, row))
    return rows, -threshold * constant


def _check_counterexample(
    spec: f.ForAll,
    parts: Sequence[tuple[Region, tuple[Halfspace, ...]]],
    claim: Mapping[str, Any],
    bundle: Bundle,
) -> None:
    """The point lies in the region, and the formula fails there."""
    part = claim["part"]
    if type(part) is not int or not 0 <= part < len(parts):
        raise Refused(f"the counterexample lies in part {part!r:.60}, there are {len(parts)}")
    region, cuts = parts[part]
    point = fractions_row([_exact(text) for text in claim["z"]])
    parameters = claim["parameters"]
    if parameters is not None:
        placed = region.at([_exact(text) for text in parameters])
        if [v * point[1] for v in placed[0]] != [v * placed[1] for v in point[0]]:
            raise Refused("the counterexample's point is not that of its parameters")
    elif not region.holds(point):
        raise Refused("the counterexample lies outside the region")
    negated = negation_normal_form(spec.body, bundle.classes, negate=True)
    scores = _exact_scores(point, bundle)
    if not _true(All((*cuts, negated)), scores, point, bundle):
        raise Refused("the formula holds at the counterexample")


def _exact_scores(point: Row, bundle: Bundle) -> dict[f.Symbol, Fraction]:
    """Every score and coordinate at a point."""
    values = point
    for depth, layer in enumerate(bundle.head.affine):
        found = [dot(row, values) + bias for row, bias in layer]
        if depth < len(bundle.head.activations):
            found = [bundle.head.activations[depth](value) for value in found]
        values = fractions_row(found)
    scores: dict[f.Symbol, Fraction] = {
        f.Logit(name): Fraction(top, values[1])
        for name, top in zip(bundle.classes, values[0], strict=True)
    }
    for name, (row, bias) in bundle.concepts.items():
        scores[f.Score(name)] = dot(row, point) + bias
    for index, top in enumerate(point[0]):
        scores[f.Coordinate(index)] = Fraction(top, point[1])
    return scores


def _true(nnf: Nnf, scores: Mapping[f.Symbol, Fraction], point: Row, bundle: Bundle) -> bool:
    """Whether a formula in negation normal form is true."""
    known: dict[int, bool] = {}  # by id: the formula is a graph, whose tree may be exponential

    def true(node: Nnf) -> bool:
        if id(node) not in known:
            known[id(node)] = judge(node)
        return known[id(node)]

    def judge(node: Nnf) -> bool:
        match node:
            case Halfspace(terms, constant, strict):
                value = sum((c * scores[symbol] for c, symbol in terms), constant)
                return value > 0 if strict else value >= 0
            case Cone(concept, holds):
                mapped = [dot(row, point) + bias for row, bias in bundle.alignment]
                square = sum((value * value for value in mapped), Fraction(0))
                score, threshold = scores[f.Score(concept)], bundle.thresholds[concept]
                # score > τ‖e‖, with both sides squared, keeping their signs
                has = score * abs(score) > threshold * abs(threshold) * square
                return has == holds
            case All(operands):
                return all(map(true, operands))
            case Some(operands):
                return any(map(true, operands))
            case Count(count, operands):
                return sum(map(true, operands)) >= count

    return true(nnf)
