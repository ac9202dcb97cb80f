"""Feed-forward ONNX models as exact networks.

What the file stores is the definition: every weight is the rational number that its float32 or
float64 is, and nothing is rounded on the way, with one exception: the factor
``scale/sqrt(variance + epsilon)`` of a BatchNormalization is defined as the float64 nearest to
it. The network is the function of one image: a batch axis has length 1.

Whatever the reader does not understand (operators, attributes, types, shapes) is refused by
name; nothing is taken for a default.
"""

from collections import Counter
from collections.abc import Iterable
from math import prod
from pathlib import Path

import numpy as np
from google.protobuf.message import (  # type: ignore[import-untyped]  # it has no stubs
    DecodeError,
    Message,
)
from onnx import GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto

from conspec.encodings.network import Affine, Network
from conspec.encodings.onnx_constants import FLOATS, Value, kind_name, read_tensor
from conspec.encodings.onnx_node import Call, Refused
from conspec.encodings.onnx_operators import apply
from conspec.encodings.onnx_tensors import INPUT, MOST_ENTRIES, Blocks, Tensor, block_tensor
from conspec.specs.errors import BadFile, UnsupportedOperator

MOST_BYTES = 2**31
MOST_NODES = 10_000
MOST_STORED = 4 * MOST_ENTRIES  # numbers in all tensors together
OPSETS = range(7, 29)  # 7 brought today's broadcasting; 28 is the newest that was read


def read_network(path: Path, *, softmax_allowed: bool = False) -> Network:
    """The exact network in an ONNX file with one input [N, n], [n] or [N, …] and one output.

    Args:
        path: the model; external data must lie in the same folder or below it.
        softmax_allowed: whether a softmax at the end is dropped (the largest output stays the
            largest) or refused.

    Raises:
        BadFile: the file cannot be read, is damaged, absurdly large or contradicts itself.
        UnsupportedOperator: an operator, attribute, type or shape that is not supported.
    """
    try:
        return _Graph(_read_model(path), path.parent, softmax_allowed).network()
    except BadFile as error:
        raise type(error)(f"{path}: {error}") from None


def read_affine(path: Path) -> Affine:
    """The exact affine map in an ONNX file, for a concept map.

    Raises:
        BadFile: as `read_network`.
        UnsupportedOperator: as `read_network`, or the model has a ReLU.
    """
    network = read_network(path)
    if not network.is_affine:
        hidden = sum(layer.outputs for layer in network.affines[:-1])
        raise UnsupportedOperator(
            f"{path}: the concept map must be affine, but the model has a ReLU"
            f" ({hidden} hidden units)"
        )
    return network.affines[0]


def _read_model(path: Path) -> ModelProto:
    """The parsed file."""
    try:
        if not path.is_file():
            raise BadFile("there is no such file")
        if path.stat().st_size > MOST_BYTES:
            raise BadFile(f"the file is larger than the limit {MOST_BYTES} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise BadFile(f"the file cannot be read: {error.strerror}") from None
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise BadFile("this is no ONNX model, or a damaged one") from None
    if not model.HasField("graph"):
        raise BadFile("this is no ONNX model: it has no graph")
    for what, count in _counts(model.graph).items():
        if count > MOST_NODES:
            raise BadFile(f"{count} {what} are more than the limit {MOST_NODES}")
    _check_fields(model)
    _check_texts(model)
    return model


def _counts(graph: GraphProto) -> dict[str, int]:
    """How many parts the graph has of each sort."""
    return {
        "nodes": len(graph.node),
        "initializers": len(graph.initializer),
        "declared values": len(graph.value_info),
    }


def _check_kinds(model: ModelProto) -> None:
    """Refuse kinds of models that say more than their nodes and weights."""
    extras = {
        "functions": model.functions,
        "training information": model.training_info,
        "sparse initializers": model.graph.sparse_initializer,
        "quantized tensors": model.graph.quantization_annotation,
    }
    for what, found in extras.items():
        if len(found):
            raise UnsupportedOperator(f"models with {what} are not supported")


def _check_fields(model: ModelProto) -> None:
    """Refuse fields that this version of onnx does not know: they could mean anything."""
    size = model.ByteSize()
    model.DiscardUnknownFields()
    if model.ByteSize() != size:
        raise BadFile("the model is damaged, or of a newer format: it has unknown fields")


def _check_texts(message: Message) -> None:
    """Refuse names that are no UTF-8 text: protobuf hands them out as bytes."""
    for field, value in message.ListFields():
        values = [value] if isinstance(value, (Message, str, bytes)) else value
        if field.type == field.TYPE_MESSAGE:
            for part in values:
                _check_texts(part)
        elif field.type == field.TYPE_STRING and not all(isinstance(v, str) for v in values):
            raise BadFile("the model is damaged: a name in it is no UTF-8 text")


def _opset(model: ModelProto) -> int:
    """The version of the standard operators."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if len(versions) != 1:
        raise BadFile(f"the model names {len(versions)} versions of the operators, not one")
    if versions[0] not in OPSETS:
        raise UnsupportedOperator(
            f"opset {versions[0]} is not supported; export with opset"
            f" {OPSETS.start} to {OPSETS.stop - 1}"
        )
    return int(versions[0])


class _Graph:
    """The values of a graph's names, made one node after the other."""

    def __init__(self, model: ModelProto, folder: Path, softmax_allowed: bool) -> None:
        """Check the graph's ends and read its constants."""
        graph = model.graph
        _check_kinds(model)
        self._opset = _opset(model)
        self._nodes = list(graph.node)
        self._softmax_allowed = softmax_allowed
        self._values: dict[str, Value] = {}
        self._stored = 0
        self._read_constants(graph, folder)
        inputs = [entry for entry in graph.input if entry.name not in self._values]
        self._input = _only(inputs, "input")
        self._output = _only(graph.output, "output")
        self._declared = [*graph.value_info, self._output]
        self._uses = Counter(name for node in self._nodes for name in node.input)

    def network(self) -> Network:
        """Run all nodes, then collect what the output needs."""
        kind, shape = _input_type(self._input)
        try:
            start = block_tensor(INPUT, shape, kind)
        except ValueError as error:
            raise UnsupportedOperator(f"input {self._input.name!r}: {error}") from None
        self._define(self._input.name, start)
        blocks = Blocks(start.size)
        for number, node in enumerate(self._nodes):
            self._run(node, f"node {node.name or f'#{number}'!r} ({node.op_type})", blocks)
        for entry in self._declared:
            self._check_declared(entry)
        result = self._result()
        try:
            network = blocks.layered(result)
        except ValueError as error:
            raise BadFile(str(error)) from None
        for layer in network.affines:
            _check_range(layer)
        return network

    def _read_constants(self, graph: GraphProto, folder: Path) -> None:
        """The values of the initializers."""
        total = sum(prod(tensor.dims) for tensor in graph.initializer)
        if total > MOST_ENTRIES:
            raise BadFile(f"{total} weights are more than the limit {MOST_ENTRIES}")
        for tensor in graph.initializer:
            self._define(tensor.name, read_tensor(tensor, folder))

    def _define(self, name: str, value: Value) -> None:
        """Give a name its only value."""
        if not name:
            raise BadFile("a tensor has no name")
        if name in self._values:
            raise BadFile(f"two tensors have the name {name!r}")
        self._values[name] = value
        self._stored += value.stored if isinstance(value, Tensor) else value.array.size
        if self._stored > MOST_STORED:
            raise BadFile(f"the tensors hold more than the limit {MOST_STORED} numbers")

    def _run(self, node: NodeProto, label: str, blocks: Blocks) -> None:
        """Compute a node's output."""
        inputs = [self._lookup(name, label) for name in node.input]
        if not node.output or not node.output[0]:
            raise BadFile(f"{label} has no output")
        name = node.output[0]
        last = name == self._output.name and not self._uses[name]
        try:
            call = Call(node, inputs, self._opset, blocks, last and self._softmax_allowed)
            self._define(name, apply(call))
        except Refused as error:
            raise UnsupportedOperator(f"{label}: {error}") from None
        except BadFile as error:
            raise type(error)(f"{label}: {error}") from None

    def _lookup(self, name: str, label: str) -> Value | None:
        """The value of an input; None if it is left out."""
        if name and name not in self._values:
            raise BadFile(f"{label} uses {name!r}, which nothing before it makes")
        return self._values[name] if name else None

    def _check_declared(self, entry: ValueInfoProto) -> None:
        """Refuse a declared type or shape that the nodes contradict."""
        value = self._values.get(entry.name)
        if value is None or not entry.type.HasField("tensor_type"):
            return
        shape = value.shape if isinstance(value, Tensor) else value.array.shape
        declared, tensor_type = _sizes(entry.type), entry.type.tensor_type
        if tensor_type.elem_type not in (0, value.kind):
            raise BadFile(
                f"{entry.name!r} is declared {kind_name(tensor_type.elem_type)},"
                f" but computed {kind_name(value.kind)}"
            )
        fits = declared is None or (
            len(declared) == len(shape)
            and all(size in (None, real) for size, real in zip(declared, shape, strict=True))
        )
        if not fits:
            raise BadFile(f"{entry.name!r} is declared {declared}, but computed {list(shape)}")

    def _result(self) -> Tensor:
        """The output, [N, m] or [m]."""
        name = self._output.name
        value = self._values.get(name)
        if not isinstance(value, Tensor):
            what = "is not made by any node" if value is None else "holds no floats"
            raise BadFile(f"the output {name!r} {what}")
        if value.shape not in ((value.size,), (1, value.size)):
            raise UnsupportedOperator(
                f"the output {name!r} has shape {list(value.shape)}, not [N, m] or [m]"
            )
        return value


def _check_range(layer: Affine) -> None:
    """Refuse weights that are combined to more than a float64 can hold."""
    rational = layer.weight.dtype == object or layer.bias.dtype == object
    if rational and not all(np.isfinite(values).all() for values in layer.floats):
        raise BadFile("the weights combine to more than a float64 can hold")


def _only(entries: Iterable[ValueInfoProto], what: str) -> ValueInfoProto:
    """The graph's one input or output."""
    found = list(entries)
    if len(found) != 1:
        names = ", ".join(repr(entry.name) for entry in found)
        raise UnsupportedOperator(f"the model has {len(found)} {what}s ({names}), not one")
    return found[0]


def _sizes(type_proto: TypeProto) -> list[int | None] | None:
    """A declared shape, None for unknown sizes."""
    tensor_type = type_proto.tensor_type
    if not tensor_type.HasField("shape"):
        return None
    dims = tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]


def _input_type(entry: ValueInfoProto) -> tuple[int, tuple[int, ...]]:
    """Element type and shape of the input for one image."""
    label, tensor_type = f"input {entry.name!r}", entry.type.tensor_type
    sizes = _sizes(entry.type) if entry.type.HasField("tensor_type") else None
    if not sizes:
        raise UnsupportedOperator(f"{label} has no shape; [N, n] is needed")
    if tensor_type.elem_type not in FLOATS:
        kind = kind_name(tensor_type.elem_type)
        raise UnsupportedOperator(f"{label} has element type {kind}, not FLOAT or DOUBLE")
    if len(sizes) > 1 and sizes[0] in (None, 1):
        sizes[0] = 1
    elif len(sizes) > 1:
        raise UnsupportedOperator(f"{label} has shape {sizes}; the batch axis must be N or 1")
    if any(size is None for size in sizes):
        raise UnsupportedOperator(f"{label} has shape {sizes}; only the batch axis may be dynamic")
    shape = tuple(size for size in sizes if size is not None)
    if min(shape) < 1:
        raise BadFile(f"{label} has shape {sizes}")
    return tensor_type.elem_type, shape
