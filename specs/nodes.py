"""Pieces of a parsed text with their places, read as what the context asks for."""

from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction

from conspec.specs.exact import write_number
from conspec.specs.formula import ClassOf, Formula, Linear, Region, Score
from conspec.specs.names import quoted, shown
from conspec.specs.source import Place, Source, nearest


@dataclass(frozen=True, slots=True)
class Name:
    """A class, a concept, the image variable, or a word such as ``l2``; the context knows."""

    text: str
    in_quotes: bool


@dataclass(frozen=True, slots=True)
class Keyword:
    """An argument of the form ``key=value``."""

    key: str
    value: "Node"


@dataclass(frozen=True, slots=True)
class Vector:
    """A list in square brackets."""

    items: "tuple[Node, ...]"


Value = Formula | Linear | Region | ClassOf | Name | Keyword | Vector


@dataclass(frozen=True, slots=True)
class Node:
    """A value, where it begins, and how deep its tree is."""

    value: Value
    place: Place
    depth: int = 0


@dataclass(slots=True)
class Reader:
    """Reads nodes as formulas, numbers, names and so on, or says why that is impossible.

    Attributes:
        source: The text, for messages.
        classes: Known class names; None when any name will do.
        concepts: Known concept names; None when any name will do.
        variable: The image variable of the spec being read.
    """

    source: Source
    classes: Collection[str] | None = None
    concepts: Collection[str] | None = None
    variable: str = "x"

    def formula(self, node: Node) -> Formula:
        """Reads a node as a formula."""
        value = node.value
        if isinstance(value, Formula):
            return value
        raise self._wrong(node, "a formula", self._formula_hint(value))

    def _formula_hint(self, value: Value) -> str:
        if isinstance(value, Linear):
            return "compare it, for instance with '>= 0'"
        if not isinstance(value, Name):
            return ""
        name = quoted(value.text)
        as_concept = f"compare it ({name} > other), or write has({name})"
        as_class = f"write predict({name})"
        is_concept = value.text in (self.concepts or ())
        is_class = value.text in (self.classes or ())
        if is_concept is is_class:  # both, or not known
            return f"{as_concept} or predict({name})"
        return as_concept if is_concept else as_class

    def region(self, node: Node) -> Region:
        """Reads a node as a region of embeddings."""
        value = node.value
        if isinstance(value, Region):
            return value
        hint = "for instance focus(truck, gamma=0.3) or box(0, 1)"
        if isinstance(value, ClassOf):
            hint = "class(...) is a set of images, for 'probability'; a proof needs a region"
        raise self._wrong(node, "a region", hint)

    def linear(self, node: Node) -> Linear:
        """Reads a node as a linear expression; a bare name is that concept's score."""
        value = node.value
        if isinstance(value, Linear):
            return value
        if isinstance(value, Name):
            return Linear(((Fraction(1), Score(self.concept(node))),))
        raise self._wrong(node, "a number or a score")

    def number(self, node: Node, at_least: int | None = None) -> Fraction:
        """Reads a node as a number, perhaps with a least value."""
        value = node.value
        if not isinstance(value, Linear) or value.terms:
            raise self._wrong(node, "a number")
        if at_least is not None and value.constant < at_least:
            message = f"expected a number >= {at_least}, found {write_number(value.constant)}"
            raise self.source.syntax_error(node.place, message)
        return value.constant

    def whole(self, node: Node) -> int:
        """Reads a node as a whole number >= 0."""
        number = self.number(node, at_least=0)
        if number.denominator != 1:
            message = f"expected a whole number, found {write_number(number)}"
            raise self.source.syntax_error(node.place, message)
        return number.numerator

    def class_name(self, node: Node) -> str:
        """Reads a node as the name of a class."""
        return self._known(node, "class", self.classes, self.concepts)

    def concept(self, node: Node) -> str:
        """Reads a node as the name of a concept."""
        return self._known(node, "concept", self.concepts, self.classes)

    def _known(
        self,
        node: Node,
        kind: str,
        known: Collection[str] | None,
        other: Collection[str] | None,
    ) -> str:
        value = node.value
        if not isinstance(value, Name):
            raise self._wrong(node, f"the name of a {kind}")
        if known is None or value.text in known:
            return value.text
        if other is not None and value.text in other:
            hint = f"{shown(value.text)} is a {'class' if kind == 'concept' else 'concept'}"
        elif (best := nearest(value.text, known)) is not None:
            hint = f"did you mean {shown(best)}?"
        else:
            some = [shown(name) for name in list(known)[:8]]
            hint = f"known are {', '.join(some)}{', …' if len(known) > len(some) else ''}"
        message = f"unknown {kind} {shown(value.text)}"
        raise self.source.unknown_name(node.place, message, hint)

    def _wrong(self, node: Node, expected: str, hint: str = "") -> Exception:
        message = f"expected {expected}, found {describe(node.value)}"
        return self.source.syntax_error(node.place, message, hint)


def describe(value: Value) -> str:
    """Names the kind of a value in the reader's words."""
    if isinstance(value, Formula):
        return "a formula"
    if isinstance(value, Region):
        return "a region"
    if isinstance(value, Linear):
        return "a score" if value.terms else f"the number {write_number(value.constant)}"
    if isinstance(value, Name):
        return f"the name {shown(value.text)}"
    if isinstance(value, Keyword):
        return f"the argument '{value.key}='"
    return "a list" if isinstance(value, Vector) else "a set of images"
