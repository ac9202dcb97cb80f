"""Counterexamples of VNN-LIB problems: made printable, written and read back.

A verdict's point is exact, and often a rational that no reader of decimals can hold. Each
candidate here is moved into the box first and then checked in rational arithmetic against what
the file says, so what is printed is a counterexample as it stands, over the reals.
"""

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from math import prod
from typing import NamedTuple

import numpy as np

from conspec.encodings.decimals import decimal_text, parse_rational, rational_text
from conspec.encodings.exact import Vector, vector
from conspec.encodings.network import Network
from conspec.encodings.query import Query
from conspec.encodings.regions import Box
from conspec.encodings.sexpr import Sexp, bad, read_sexps
from conspec.encodings.vnnlib_property import Property, condition_at
from conspec.specs.errors import BadFile

DIGITS = 40
"""Decimal places of a point that is no float."""
SHORT = 60
"""Characters up to which an exact output is written whole."""
_HEADER = re.compile(r"\S+ +\S+ *\[[ \d,]*\]", re.ASCII)


class Form(Enum):
    """What all coordinates of a printed point are."""

    FLOAT32 = "float32 numbers, written exactly"
    FLOAT64 = "float64 numbers, written exactly"
    DECIMAL = "decimals, written exactly (no floats)"
    RATIONAL = "rationals p/q: no decimal near the point is a counterexample"


class Printable(NamedTuple):
    """A counterexample whose coordinates are all of one form."""

    point: Vector
    form: Form


def is_counterexample(prop: Property, network: Network, point: Vector) -> bool:
    """Whether an exact point satisfies what the file says, with the exact network's outputs."""
    return condition_at(prop.condition, point.fractions(), network.exact(point))


def printable(prop: Property, query: Query, point: Vector) -> Printable | None:
    """The simplest counterexample near an exact one; None if that is none itself.

    Args:
        prop: what the file says; each candidate is checked against it.
        query: the query whose box the point lies in.
        point: the exact point.
    """
    for form, candidate in _candidates(query, point):
        if query.region.contains(candidate) and is_counterexample(
            prop, query.space.head, candidate
        ):
            return Printable(candidate, form)
    return None


def _candidates(query: Query, point: Vector) -> Iterator[tuple[Form, Vector]]:
    """Points near the given one, the simplest form first."""
    region = query.region
    if isinstance(region, Box):
        for form, kind in ((Form.FLOAT32, np.float32), (Form.FLOAT64, np.float64)):
            rounded = _rounded(point, region, kind)
            if rounded is not None:
                yield form, rounded
    values = point.fractions()
    if all(decimal_text(value) is not None for value in values):
        yield Form.DECIMAL, point
    unit = Fraction(1, 10**DIGITS)
    near = [round(value / unit) * unit for value in values]
    if isinstance(region, Box):
        bounds = zip(near, region.lower.fractions(), region.upper.fractions(), strict=True)
        near = [min(max(value, low), high) for value, low, high in bounds]
    if all(decimal_text(value) is not None for value in near):
        yield Form.DECIMAL, vector(near)
    yield Form.RATIONAL, point


def _rounded(point: Vector, region: Box, kind: type[np.floating]) -> Vector | None:
    """Each coordinate's nearest float in the box; None if one has none."""
    with np.errstate(over="ignore"):
        floats = point.floats().astype(kind)
    ends = zip(region.lower.fractions(), region.upper.fractions(), strict=True)
    entries = []
    for value, (low, high) in zip(floats, ends, strict=True):
        if not np.isfinite(value):
            return None
        if Fraction(float(value)) < low:
            value = np.nextafter(value, kind(np.inf))
        elif Fraction(float(value)) > high:
            value = np.nextafter(value, kind(-np.inf))
        if not np.isfinite(value) or not low <= Fraction(float(value)) <= high:
            return None
        entries.append(Fraction(float(value)))
    return vector(entries)


class Written(NamedTuple):
    """The lines of a witness, and whether some output in it had to be rounded."""

    text: str
    outputs_rounded: bool


def write_witness(prop: Property, network: Network, point: Vector) -> Written:
    """A counterexample as the standard of the property's version wants it.

    Inputs are exact. Outputs are those of the exact network, written whole where that takes at
    most `SHORT` characters, else rounded to 17 digits; who checks a witness computes them anew.
    """
    inputs = [decimal_text(value) or rational_text(value) for value in point.fractions()]
    found = [_output_text(value) for value in network.exact(point)]
    outputs = [text for text, _ in found]
    is_rounded = not all(is_exact for _, is_exact in found)
    if prop.version.startswith("1"):
        values = [f"(X_{index} {text})" for index, text in enumerate(inputs)]
        values += [f"(Y_{index} {text})" for index, text in enumerate(outputs)]
        return Written("(" + "\n".join(values) + ")\n", is_rounded)
    lines: list[str] = []
    for declared, texts in ((prop.inputs, inputs), (prop.outputs, outputs)):
        sizes = ",".join(map(str, declared.shape))
        lines += [f"{declared.name} {declared.kind} [{sizes}]", *texts]
    return Written("\n".join(lines) + "\n", is_rounded)


def _output_text(value: Fraction) -> tuple[str, bool]:
    """An output, and whether that is all of it."""
    text = decimal_text(value)
    if text is not None and len(text) <= SHORT:
        return text, True
    try:
        return f"{Decimal(repr(float(value))):f}", False
    except OverflowError:
        return rational_text(value), True


def read_witness(text: str, inputs: int, source: str = "witness") -> Vector:
    """The exact inputs in a witness of either standard; its outputs are passed over.

    Args:
        text: the witness, with or without the line ``sat`` before it.
        inputs: how many inputs there are.
        source: what errors call the text.

    Raises:
        BadFile: it is no witness, or an input is missing, double, unknown or no number.
    """
    # Lines stay where they are, so that messages count them right.
    body = re.sub(r"\A\s*sat[ \t\r]*\n", "\n", text)
    start = body.lstrip()
    if start.startswith("("):
        return _read1(body, inputs, source)
    if _HEADER.match(start):
        return _read2(start, inputs, source)
    raise BadFile(f"{source}: neither ((X_0 …) …) nor NAME TYPE [sizes]: {start[:40]!r}")


def _read1(text: str, inputs: int, source: str) -> Vector:
    """``((X_0 0.5) … (Y_0 1.0))``."""
    found: dict[str, Fraction] = {}
    lists = list(read_sexps(text, source))
    if len(lists) != 1:
        raise BadFile(f"{source}: {len(lists)} lists of values, not one")
    for pair in lists[0]:
        match pair:
            case [str(name), value] if name.startswith("Y_"):
                continue
            case [str(name), value]:
                if name in found:
                    raise BadFile(f"{source}: {name[:40]!r} has two values")
                try:
                    found[name] = _value(value)
                except ValueError as error:
                    raise BadFile(f"{source}: {name[:40]!r}: {error}") from None
            case Sexp():
                raise bad(source, text, pair.at, "this is no (NAME VALUE)")
            case _:
                raise BadFile(f"{source}: {pair[:40]!r} is no (NAME VALUE)")
    wanted = [f"X_{index}" for index in range(inputs)]
    if missing := next((name for name in wanted if name not in found), None):
        raise BadFile(f"{source}: {missing} has no value")
    if len(found) > inputs:
        extra = next(name for name in found if name not in set(wanted))
        raise BadFile(f"{source}: {extra[:40]!r} is none of the {inputs} inputs")
    return vector(found[name] for name in wanted)


def _value(node: Sexp | str) -> Fraction:
    """A decimal, ``p/q``, ``(- v)`` or ``(/ v v)``."""
    match node:
        case str():
            return parse_rational(node)
        case ["-", operand]:
            return -_value(operand)
        case ["/", str(top), str(bottom)]:
            return parse_rational(f"{top}/{bottom}")
        case ["/", ["-", str(top)], str(bottom)]:
            return -parse_rational(f"{top}/{bottom}")
    raise ValueError("this is no number")


def _read2(text: str, inputs: int, source: str) -> Vector:
    """``X real [1,2]`` and a value in each line; the input is declared first."""
    lines: Sequence[str] = text.splitlines()
    header = lines[0]
    sizes = [int(size) for size in re.findall(r"\d{1,9}", header[header.index("[") :])]
    if prod(sizes) != inputs:
        raise BadFile(f"{source}: {header[:80]!r} is not the input of {inputs} entries")
    values = [line.strip() for line in lines[1 : 1 + inputs]]
    if len(values) < inputs:
        raise BadFile(f"{source}: {len(values)} values for {inputs} inputs")
    if len(lines) > 1 + inputs and lines[1 + inputs].strip():
        following = lines[1 + inputs].strip()
        if not _HEADER.fullmatch(following):
            raise BadFile(f"{source}: {following[:40]!r} stands where the next variable should")
    try:
        return vector([parse_rational(value) for value in values])
    except ValueError as error:
        raise BadFile(f"{source}: {error}") from None
