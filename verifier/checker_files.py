"""What the checker reads: exact weights and statistics of a lens bundle, by its own readers.

Vectors are integers over a common denominator; nothing here is floating point, and nothing comes
from the rooms whose results are checked.
"""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import lcm
from operator import mul
from pathlib import Path
from typing import Any

Row = tuple[list[int], int]
"""Integers over a positive common denominator."""


class Refused(Exception):
    """The line does not establish what it says; the message says why."""


def fractions_row(values: Sequence[Fraction]) -> Row:
    """Rationals over their least common denominator."""
    bottom = lcm(*(value.denominator for value in values)) if values else 1
    return [value.numerator * (bottom // value.denominator) for value in values], bottom


def fractions_of(row: Row) -> list[Fraction]:
    """The entries as rationals."""
    return [Fraction(value, row[1]) for value in row[0]]


def floats_row(values: Sequence[float]) -> Row:
    """The exact values of floats."""
    pairs = [value.as_integer_ratio() for value in values]
    bottom = max((low for _, low in pairs), default=1)
    return [top * (bottom // low) for top, low in pairs], bottom


def dot(first: Row, second: Row) -> Fraction:
    """The inner product."""
    if len(first[0]) != len(second[0]):
        raise Refused(f"vectors of {len(first[0])} and {len(second[0])} entries")
    return Fraction(sum(map(mul, first[0], second[0])), first[1] * second[1])


def weighted(terms: Sequence[tuple[Fraction, Row]], size: int) -> Row:
    """``Σ factor · row``, rows of ``size`` entries."""
    bottom = lcm(*(factor.denominator * row[1] for factor, row in terms)) if terms else 1
    total = [0] * size
    for factor, row in terms:
        weight = factor.numerator * (bottom // (factor.denominator * row[1]))
        total = [old + weight * value for old, value in zip(total, row[0], strict=True)]
    return total, bottom


def strict_json(data: bytes | str) -> Any:
    """JSON in which no object has a key twice, and every number is one.

    Raises:
        ValueError: it is not that; RecursionError if it is nested too deeply.
    """
    return json.loads(data, object_pairs_hook=_unique, parse_constant=_no_number)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one JSON object")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


@dataclass(frozen=True, eq=False)
class Bundle:
    """The lens bundle as the checker reads it: names, exact weights, statistics.

    Whatever is used of a file comes from bytes with the SHA-256 that the manifest names.
    """

    root: Path

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        data = (self.root / Path(name).name).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.manifest["files"][name]:
            raise Refused(f"{name} is not the file that the bundle's manifest names")
        return data

    @cached_property
    def _manifest(self) -> bytes:
        return (self.root / "manifest.json").read_bytes()

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """``manifest.json``."""
        return dict(strict_json(self._manifest))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the manifest, after every file in it was found to have its own."""
        for name in self.manifest["files"]:
            self.read(name)
        return hashlib.sha256(self._manifest).hexdigest()

    @cached_property
    def classes(self) -> list[str]:
        """Class names."""
        return list(self.manifest["classes"])

    @cached_property
    def head(self) -> "Layers":
        """The head."""
        head = read_layers(self.read("head.onnx"))
        if len(head.affine[-1]) != len(self.classes):
            raise Refused("the head has another number of outputs than there are classes")
        return head

    @cached_property
    def concepts(self) -> dict[str, tuple[Row, Fraction]]:
        """Each concept's score as a row over z."""
        (layer,) = read_layers(self.read("concept_map.onnx")).affine
        return dict(zip(self.manifest["concepts"], layer, strict=True))

    @cached_property
    def alignment(self) -> list[tuple[Row, Fraction]]:
        """The mapped embedding's coordinates as rows over z."""
        (layer,) = read_layers(self.read("alignment.onnx")).affine
        return layer

    @cached_property
    def thresholds(self) -> dict[str, Fraction]:
        """Calibrated thresholds of the concepts that have one."""
        entries = strict_json(self.read("vocabulary.json"))["concepts"]
        found = {name: entry["threshold"] for name, entry in entries.items()}
        return {name: Fraction(text) for name, text in found.items() if text is not None}

    @cached_property
    def statistics(self) -> "Tensors":
        """The class statistics."""
        return Tensors(self.read("statistics.safetensors"))

    @cached_property
    def embeddings(self) -> "Tensors":
        """The stored embeddings."""
        return Tensors(self.read("embeddings.safetensors"))

    @property
    def size(self) -> int:
        """Dimensions of an embedding."""
        return int(self.manifest["dim"])


class Tensors:
    """A safetensors file: a JSON header, then raw numbers."""

    _FORMATS: Mapping[str, tuple[str, int]] = {
        "F64": ("d", 8),
        "F32": ("f", 4),
        "I64": ("q", 8),
        "BOOL": ("?", 1),
    }

    def __init__(self, data: bytes) -> None:
        """Read the header."""
        self._data = data
        (length,) = struct.unpack("<Q", self._data[:8])
        self._start = 8 + length
        self._header = strict_json(self._data[8 : self._start])

    def row(self, name: str, *index: int) -> list[Any]:
        """The last axis of a tensor at the indices of the axes before it."""
        entry = self._header[name]
        letter, width = self._FORMATS[entry["dtype"]]
        shape = entry["shape"]
        place = 0
        for size, position in zip(shape[:-1], index, strict=True):
            if not 0 <= position < size:
                raise Refused(f"there is no {name} {position}")
            place = place * size + position
        start = self._start + entry["data_offsets"][0] + place * shape[-1] * width
        return list(struct.unpack_from(f"<{shape[-1]}{letter}", self._data, start))


Affine = list[tuple[Row, Fraction]]
"""One row and offset per output."""


@dataclass(frozen=True)
class Activation:
    """A function of one number that never falls: ``x``, or ``slope · x`` below 0, then clipped."""

    slope: Fraction = Fraction(1)
    low: Fraction | None = None
    high: Fraction | None = None

    def __call__(self, value: Fraction) -> Fraction:
        """Its value."""
        value = value if value >= 0 else self.slope * value
        value = value if self.low is None else max(value, self.low)
        return value if self.high is None else min(value, self.high)


@dataclass(frozen=True)
class Layers:
    """Affine layers, with an activation after each but the last."""

    affine: list[Affine]
    activations: list[Activation]


def read_layers(data: bytes) -> Layers:
    """The layers of an ONNX file's chain of Gemm and activations, exactly.

    Raises:
        Refused: the file holds anything else.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own, which has no name without importing it
        raise Refused("not an ONNX file") from error
    graph = model.graph
    weights = {tensor.name: _tensor(tensor) for tensor in graph.initializer}
    layers: list[Affine] = []
    activations: list[Activation] = []
    (current,) = [source.name for source in graph.input]
    if model.functions or len(weights) < len(graph.initializer) or current in weights:
        raise Refused("an ONNX file that redefines a name")
    for node in graph.node:
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        if node.input[0] != current or node.domain:
            raise Refused("the layers of an ONNX file are not a chain")
        if node.op_type == "Gemm" and len(activations) == len(layers):
            if attributes != {"transB": 1} or len(node.input) != 3:
                raise Refused("a Gemm of another form than the exporter's")
            (rows, width), (bias, _) = weights[node.input[1]], weights[node.input[2]]
            split = [rows[start : start + width] for start in range(0, len(rows), width)]
            pairs = zip(split, bias, strict=True)
            layers.append([(floats_row(row), Fraction(offset)) for row, offset in pairs])
        elif len(activations) < len(layers):
            bounds = [weights[name][0] if name else None for name in node.input[1:]]
            activations.append(_activation(node.op_type, attributes, bounds))
        else:
            raise Refused(f"the checker does not know the ONNX operator {node.op_type} here")
        (current,) = node.output
    if len(activations) == len(layers) or [output.name for output in graph.output] != [current]:
        raise Refused("the last layer of an ONNX file is not its output")
    return Layers(layers, activations)


def _activation(
    operator: str, attributes: Mapping[str, Any], bounds: Sequence[Sequence[float] | None]
) -> Activation:
    """An activation of the exporter's."""
    if operator == "Relu" and not attributes and not bounds:
        return Activation(low=Fraction(0))
    if operator == "LeakyRelu" and attributes.keys() <= {"alpha"} and not bounds:
        (slope,) = struct.unpack("<f", struct.pack("<f", attributes.get("alpha", 0.01)))
        if slope >= 0:
            return Activation(slope=Fraction(slope))
    if operator == "Clip" and not attributes and len(bounds) == 2:
        low, high = (None if bound is None else Fraction(bound[0]) for bound in bounds)
        if low is None or high is None or low <= high:
            return Activation(low=low, high=high)
    raise Refused(f"the checker does not know this form of the ONNX operator {operator}")


def _tensor(tensor: Any) -> tuple[list[float], int]:
    """A float32 tensor's numbers in order, and the length of its last axis."""
    if tensor.data_type != 1 or tensor.data_location != 0:
        raise Refused(f"weight {tensor.name} is not float32 inside the file")
    width = tensor.dims[-1] if tensor.dims else 1
    if tensor.raw_data:
        count = len(tensor.raw_data) // 4
        return list(struct.unpack(f"<{count}f", tensor.raw_data)), width
    return list(tensor.float_data), width
