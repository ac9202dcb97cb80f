"""One ONNX node while it is read: inputs and attributes are consumed, the rest is refused."""

from dataclasses import dataclass, field
from math import isfinite

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto

from conspec.encodings.onnx_constants import Integers, Value, kind_name
from conspec.encodings.onnx_tensors import Blocks, Indices, Tensor


class Refused(ValueError):
    """Why a node is not supported; the graph adds the node's name."""


@dataclass
class Call:
    """One node with the values of its inputs.

    Attributes:
        inputs: the values, None where an optional input is left out.
        opset: the version of the operators.
        blocks: where ReLUs add their unknowns.
        drop_softmax: whether a Softmax here may be left out: it is the last node, and the
            caller asked for it.
    """

    node: NodeProto
    inputs: list[Value | None]
    opset: int
    blocks: Blocks
    drop_softmax: bool
    _attributes: dict[str, AttributeProto] = field(init=False)
    _read: set[int] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        """Refuse repeated and indirect attributes."""
        self._attributes = {attribute.name: attribute for attribute in self.node.attribute}
        if len(self._attributes) < len(self.node.attribute):
            raise Refused("an attribute appears twice")
        if any(attribute.ref_attr_name for attribute in self.node.attribute):
            raise Refused("attributes that refer to a function's are not supported")

    def has(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def value(self, index: int = 0) -> Value:
        """An input of any type."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise Refused(f"input {index} is missing")
        self._read.add(index)
        return value

    def tensor(self, index: int) -> Tensor:
        """An input of floats."""
        value = self.value(index)
        if not isinstance(value, Tensor):
            kind = kind_name(value.kind)
            raise Refused(f"input {index} has element type {kind}; it must be FLOAT or DOUBLE")
        return value

    def tensors(self) -> tuple[Tensor, Tensor]:
        """The two inputs of a binary operator, of one element type."""
        first, second = self.tensor(0), self.tensor(1)
        same_kind(first, second)
        return first, second

    def constant(self, index: int) -> Tensor:
        """An input of floats that does not depend on the network's input."""
        value = self.tensor(index)
        if value.terms:
            raise Refused(f"input {index} must be a constant")
        return value

    def integers(self, index: int) -> Indices:
        """An input of constant integers."""
        value = self.value(index)
        if not isinstance(value, Integers) or value.kind == TensorProto.BOOL:
            raise Refused(f"input {index} must be a constant of INT32 or INT64")
        return value.array

    def take(self, name: str, kind: int) -> AttributeProto | None:
        """An attribute of the given type, marked as read."""
        attribute = self._attributes.pop(name, None)
        if attribute is not None and attribute.type != kind:
            raise Refused(f"attribute {name} has a wrong type")
        return attribute

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        attribute = self.take(name, AttributeProto.INT)
        return default if attribute is None else attribute.i

    def integer_list(self, name: str) -> list[int] | None:
        """An attribute of integers."""
        attribute = self.take(name, AttributeProto.INTS)
        return None if attribute is None else list(attribute.ints)

    def real(self, name: str, default: float) -> float:
        """A float attribute, a float32 number; so is its default, if it is in their range."""
        attribute = self.take(name, AttributeProto.FLOAT)
        in_range = abs(default) <= float(np.finfo(np.float32).max)
        rounded = float(np.float32(default)) if in_range else default
        value = rounded if attribute is None else attribute.f
        if not isfinite(value):
            raise Refused(f"attribute {name} is {value}")
        return value

    def finish(self) -> None:
        """Refuse attributes and inputs that nobody read."""
        if self._attributes:
            names = ", ".join(map(repr, sorted(self._attributes)))
            raise Refused(f"attribute {names} is not supported")
        for index, value in enumerate(self.inputs):
            if value is not None and index not in self._read:
                raise Refused(f"input {index} is not supported in opset {self.opset}")


def same_kind(*tensors: Tensor) -> None:
    """Refuse a mix of float32 and float64."""
    kinds = sorted({kind_name(tensor.kind) for tensor in tensors})
    if len(kinds) > 1:
        raise Refused(f"inputs have different element types: {', '.join(kinds)}")
