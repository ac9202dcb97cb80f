"""Hypothesis strategies for formulas, regions, specs and suites, all in normal form.

Normal form is defined in ``conspec.specs.printer``. Strategies build; they do not filter.
"""

from collections.abc import Sequence
from fractions import Fraction

from hypothesis import strategies as st

from conspec.specs.formula import (
    And,
    AtLeast,
    AtMost,
    Ball,
    Both,
    Box,
    ClassOf,
    Compare,
    Constant,
    Coordinate,
    Either,
    Ellipsoid,
    Focus,
    ForAll,
    Formula,
    Has,
    Hull,
    Iff,
    Implies,
    Linear,
    Logit,
    Norm,
    Not,
    Or,
    PcaBox,
    Polytope,
    Predict,
    Probability,
    Region,
    Relation,
    Score,
    Spec,
    Stronger,
    Suite,
    Symbol,
    Zonotope,
)

CLASSES = ("truck", "car", "x")  # "x" is also the image variable
CONCEPTS = ("wheels", "floppy-ears", "colored eyes", "x")

# Names that are hard to write: reserved words, quotes, other alphabets, functions.
ODD_NAMES = (
    "and",
    "forall",
    "spec",
    "a-b",
    'say "hi"',
    "it's",
    "back\\slash",
    "écran",
    "predict",
)
names = st.one_of(
    st.sampled_from(ODD_NAMES),
    st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1),
)


COORDINATES = 3  # of the embeddings that formulas speak of


def numbers(least: int | None = None) -> st.SearchStrategy[Fraction]:
    """Exact numbers: decimals, quotients, tiny and huge ones."""
    exponents = st.integers(-20, 20)
    tens = st.builds(
        lambda digit, exponent: digit * Fraction(10) ** exponent,
        st.integers(-99, 99),
        exponents,
    )
    either = st.one_of(st.fractions(max_denominator=1000), tens, st.integers().map(Fraction))
    return either if least is None else either.map(lambda value: least + abs(value))


def symbols(
    classes: Sequence[str], concepts: Sequence[str], coordinates: int
) -> st.SearchStrategy[Symbol]:
    logits = st.sampled_from(classes).map(Logit)
    scores = st.sampled_from(concepts).map(Score)
    if not coordinates:
        return st.one_of(logits, scores)
    return st.one_of(logits, scores, st.integers(0, coordinates - 1).map(Coordinate))


def linears(
    classes: Sequence[str],
    concepts: Sequence[str],
    coefficients: st.SearchStrategy[Fraction] | None = None,
    coordinates: int = 0,
) -> st.SearchStrategy[Linear]:
    values = numbers() if coefficients is None else coefficients
    weights = values.map(lambda value: value or Fraction(1))
    terms = st.lists(
        st.tuples(weights, symbols(classes, concepts, coordinates)),
        max_size=4,
        unique_by=lambda term: term[1],
    )
    return st.builds(Linear, terms.map(tuple), values)


def formulas(
    classes: Sequence[str] = CLASSES,
    concepts: Sequence[str] = CONCEPTS,
    *,
    has: bool = True,
    linear: bool = True,
    coefficients: st.SearchStrategy[Fraction] | None = None,
    coordinates: int = 0,
    max_leaves: int = 12,
) -> st.SearchStrategy[Formula]:
    """Formulas over the given names.

    Args:
        classes: Names for ``predict`` and ``logit``.
        concepts: Names for ``>``, ``has`` and ``score``.
        has: Whether ``has`` occurs.
        linear: Whether linear comparisons occur.
        coefficients: Numbers in linear comparisons; by default any that can be written.
        coordinates: How many coordinates of the embedding linear comparisons may speak of.
        max_leaves: How many atoms a formula has at most.
    """
    concept = st.sampled_from(concepts)
    atoms: list[st.SearchStrategy[Formula]] = [
        st.builds(Stronger, concept, concept),
        st.sampled_from(classes).map(Predict),
        st.booleans().map(Constant),
    ]
    if has:
        atoms.append(concept.map(Has))
    if linear:
        side = linears(classes, concepts, coefficients, coordinates)
        atoms.append(st.builds(Compare, side, st.sampled_from(Relation), side))

    def compound(inner: st.SearchStrategy[Formula]) -> st.SearchStrategy[Formula]:
        some = st.lists(inner, min_size=1, max_size=4).map(tuple)
        several = st.lists(inner, min_size=2, max_size=4).map(tuple)
        count = st.integers(0, 5)
        return st.one_of(
            st.builds(Not, inner),
            st.builds(And, several),
            st.builds(Or, several),
            st.builds(Implies, inner, inner),
            st.builds(Iff, inner, inner),
            st.builds(AtLeast, count, some),
            st.builds(AtMost, count, some),
        )

    return st.recursive(st.one_of(atoms), compound, max_leaves=max_leaves)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """Boxes with one bound, or as many as dimensions, on each side."""
    dimensions = draw(st.integers(1, 4))
    lower = draw(st.lists(numbers(), min_size=dimensions, max_size=dimensions))
    widths = draw(st.lists(numbers(least=0), min_size=dimensions, max_size=dimensions))
    upper = [low + width for low, width in zip(lower, widths, strict=True)]
    if draw(st.booleans()):
        return Box(tuple(lower), (max(upper),))
    return Box(tuple(lower), tuple(upper))


def regions(
    classes: Sequence[str] = CLASSES, concepts: Sequence[str] = CONCEPTS
) -> st.SearchStrategy[Region]:
    label, size = st.sampled_from(classes), numbers(least=0)
    side = linears(classes, concepts, coordinates=COORDINATES)
    closed = st.builds(Compare, side, st.sampled_from([Relation.GE, Relation.LE]), side)
    simple: st.SearchStrategy[Region] = st.one_of(
        st.builds(Focus, label, size),
        st.builds(PcaBox, label, size),
        st.builds(Zonotope, label, size),
        st.builds(Ellipsoid, label, size),
        st.builds(Hull, label),
        st.builds(Ball, st.integers(0, 10**6), size, st.sampled_from(Norm)),
        boxes(),
        st.builds(Polytope, st.lists(closed, min_size=1, max_size=3).map(tuple)),
    )

    def compound(inner: st.SearchStrategy[Region]) -> st.SearchStrategy[Region]:
        several = st.lists(inner, min_size=2, max_size=3).map(tuple)
        return st.one_of(st.builds(Both, several), st.builds(Either, several))

    return st.recursive(simple, compound, max_leaves=4)


def specs(
    classes: Sequence[str] = CLASSES, concepts: Sequence[str] = CONCEPTS
) -> st.SearchStrategy[Spec]:
    body = formulas(classes, concepts, coordinates=COORDINATES)
    share = st.fractions(0, 1, max_denominator=1000)
    population = st.sampled_from([None, *classes]).map(ClassOf)
    return st.one_of(
        st.builds(ForAll, names, regions(classes, concepts), body),
        st.builds(
            Probability,
            names,
            share.map(lambda value: value or Fraction(1)),
            share.map(lambda value: value if 0 < value < 1 else Fraction(1, 2)),
            population,
            body,
        ),
    )


def suites(
    classes: Sequence[str] = CLASSES, concepts: Sequence[str] = CONCEPTS
) -> st.SearchStrategy[Suite]:
    several = st.lists(specs(classes, concepts), max_size=3, unique_by=lambda spec: spec.name)
    return several.map(lambda found: Suite(tuple(found)))
