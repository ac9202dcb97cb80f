"""An instance as a spec over a lens bundle: its query, and its inputs X.

X is what it is in the instance's other files (``encodings.boxed``): the embedding z over a box,
else the parameters of ``z = c + G·X``. Whether X is a counterexample is decided here on the query
as the spec states it, not on what an exporter made of it.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from conspec.specs.errors import BadUsage, UnknownName

if TYPE_CHECKING:
    from conspec.encodings.exact import Vector
    from conspec.encodings.images import Image
    from conspec.encodings.query import Query
    from conspec.encodings.regions import ConvexRegion
    from conspec.specs.rewrite import Literal
    from conspec.verifier.verdict import Witness


def read_query(bundle: Path, specs: Path, name: str) -> "Query":
    """The query of one spec of a suite, about a lens bundle whose files are checked.

    Raises:
        UnknownName: no spec of the suite is called so, or it names what the bundle does not have.
        BadUsage: it asks for a probability, or its region is a union, so that there is no one X.
        BadFile: bundle or suite cannot be read.
        SpecSyntaxError: the suite is not Con_spec.
        BadRegion: the bundle has no such region.
    """
    from conspec.encodings.query import queries_of, space_of
    from conspec.lens.bundle import Lens
    from conspec.specs.formula import ForAll
    from conspec.specs.parser import parse_file

    lens = Lens.load(bundle)
    suite = parse_file(specs, classes=lens.classes, concepts=lens.concepts)
    found = [spec for spec in suite.specs if spec.name == name]
    if not found:
        raise UnknownName(f"{specs}: there is no spec {name[:80]!r}")
    (spec,) = found  # the parser refuses a second one
    if not isinstance(spec, ForAll):
        raise BadUsage(f"{specs}: {name} asks for a probability; there is nothing to prove")
    queries = queries_of(spec, lens, space_of(lens))
    if len(queries) != 1:
        raise BadUsage(
            f"{specs}: the region of {name} is a union of {len(queries)}; write a spec for each"
        )
    return queries[0]


def inputs_of(region: "ConvexRegion", witness: "Witness") -> "Vector":
    """X of a counterexample, exactly."""
    from conspec.encodings.regions import Box

    if isinstance(region, Box):
        return witness.point
    if witness.parameters is None:
        raise ValueError("a counterexample in a region that is no box has parameters")
    return witness.parameters.scaled(region.scale)


def is_counterexample(query: "Query", inputs: "Vector", slack: Fraction) -> bool:
    """Whether X lies in the region and the formula fails there, in rational arithmetic.

    Args:
        query: the spec's query.
        inputs: X, one entry for each parameter of the region.
        slack: by how much each bound of X, each comparison of scores and each cosine of ``has``
            may be missed; 0 for none.
    """
    from conspec.encodings.boxed import Prelude
    from conspec.encodings.query import truth_and_margin
    from conspec.encodings.regions import Box
    from conspec.specs.rewrite import Cone, Halfspace

    region, space = query.region, query.space
    if isinstance(region, Box):
        ends = zip(region.lower.fractions(), inputs.fractions(), region.upper.fractions(),
                   strict=True)  # fmt: skip
        is_inside = all(low - slack <= x <= high + slack for low, x, high in ends)
        point = inputs
    else:
        is_inside = _in_image(region, inputs.fractions(), slack)
        point = Prelude(region.center, region.generators).at(inputs)
    if not is_inside:
        return False
    full = space.with_hidden(point)

    def value(literal: "Literal") -> Fraction:
        match literal:
            case Halfspace():
                weights, constant = space.row(literal)
                return weights.dot_plus(full, constant) + slack
            case Cone(concept, holds):
                threshold = space.threshold(concept) + (-slack if holds else slack)
                moved = replace(space, thresholds={concept: threshold})
                excess = moved.exact_has(concept, point)
                return excess if holds else -excess
            case _:
                assert_never(literal)

    return truth_and_margin(query.constrained, value)[0]


def _in_image(region: "Image", inputs: Sequence[Fraction], slack: Fraction) -> bool:
    """Whether X lies in the cube, ball or simplex of size s, up to the slack."""
    from conspec.encodings.images import Shape

    reach = region.scale + slack
    match region.shape:
        case Shape.CUBE:
            return all(abs(x) <= reach for x in inputs)
        case Shape.BALL:
            return sum(x * x for x in inputs) <= reach**2
        case Shape.SIMPLEX:
            total = abs(sum(inputs, Fraction(0)) - region.scale)
            return all(x >= -slack for x in inputs) and total <= slack
        case _:
            assert_never(region.shape)
