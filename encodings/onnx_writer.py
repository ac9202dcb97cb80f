"""The network of a query as one ONNX file from X [1, n] to Y [1, K+M]: logits, concept scores.

Only Gemm and Relu occur, and one Concat where the head has hidden layers. Where X are parameters
of a region (`boxed`), the first Gemm makes the embedding of them, so no weight is ever multiplied
out or rounded. Weights are FLOAT if all of them are exactly float32, else DOUBLE.

Opset and IR version are old on purpose: more tools read them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.boxed import Boxed, Prelude
from conspec.encodings.exact import joined, objects, shortest
from conspec.encodings.network import Affine, Network
from conspec.encodings.scores import ScoreSpace
from conspec.specs.errors import BadFile, BadUsage

OPSET = 13
IR_VERSION = 7  # what opset 13 came with
MOST_BYTES = 2**31 - 2**20  # protobuf's limit, with room for what is not a weight

Weights = NDArray[np.float32] | NDArray[np.float64]


def write_network(boxed: Boxed, path: Path) -> None:
    """Write the network of a query; the same query gives the same bytes.

    Args:
        boxed: the query.
        path: the file to write; its folder must exist.

    Raises:
        BadUsage: a weight is no float64, or the weights are more than a file can hold.
        BadFile: the file cannot be written.
    """
    space, prelude = boxed.source.space, boxed.prelude
    layers = [*space.head.affines, space.concept_map]
    first = None if prelude is None else _as_layer(prelude)
    builder = _Builder(_kind([*layers, *([first] if first else [])]))
    source = "X"
    if first is not None:
        source = builder.gemm("embedding", "X", first)
    builder.scores(space, source, "Y")
    inputs = _declared("X", builder.kind, (1, boxed.region.dimension))
    outputs = _declared("Y", builder.kind, (1, _outputs(space)))
    _save(_model(builder, inputs, outputs), path)


def write_with_encoder(encoder: Path, space: ScoreSpace, path: Path) -> str:
    """Write encoder, head and concept map as one network from pictures to Y [1, K+M].

    Args:
        encoder: an ONNX file from pictures [N, …] or [1, …] to embeddings [N, n], such as
            `conspec.lens.encoder_export` makes.
        space: head and concept map.
        path: the file to write; its folder must exist.

    Returns:
        The name of the embedding's tensor, [1, n], in the file.

    Raises:
        BadFile: the encoder cannot be read, or makes other embeddings than the head takes.
        BadUsage: a weight of head or concept map is not exactly of the encoder's element type.
    """
    from onnx import TensorProto

    model = _read(encoder)
    graph = model.graph
    picture, embedding = graph.input[0], graph.output[0]
    element = embedding.type.tensor_type.elem_type
    types = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64}
    if element not in types:
        raise BadFile(f"{encoder}: the embedding is neither FLOAT nor DOUBLE")
    builder = _Builder(np.dtype(types[element]), _unused_prefix(graph))
    builder.scores(space, embedding.name, builder.prefix + "Y")
    _fix_batch(picture)
    del graph.value_info[:]  # they may speak of other batches
    graph.value_info.append(_declared(embedding.name, builder.kind, (1, space.dimension)))
    del graph.output[:]
    graph.output.append(_declared(builder.prefix + "Y", builder.kind, (1, _outputs(space))))
    graph.node.extend(builder.nodes)
    graph.initializer.extend(builder.tensors())
    _check(model, f"{encoder}: with this head")
    _save(model, path)
    return str(embedding.name)


@dataclass
class _Builder:
    """Nodes and weights of a graph, in the order in which they run."""

    kind: "np.dtype[Any]"
    prefix: str = ""
    nodes: list[Any] = field(default_factory=list)
    weights: dict[str, Weights] = field(default_factory=dict)

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node; the name of what it makes."""
        from onnx import helper

        node = helper.make_node(operator, inputs, [output], name=f"{output}_node", **attributes)
        self.nodes.append(node)
        return output

    def gemm(self, output: str, source: str, layer: Affine) -> str:
        """Add an affine layer; ``output`` is also part of its weights' names."""
        names = (f"{output}_weight", f"{output}_bias")
        for name, values in zip(names, (layer.weight, layer.bias), strict=True):
            self.weights[name] = _stored(values, self.kind)
        return self.node("Gemm", [source, *names], output, transB=1)

    def scores(self, space: ScoreSpace, source: str, output: str) -> None:
        """Add head and concept map of the embedding ``source``."""
        names, concept_map, hidden = self.prefix, space.concept_map, space.head.affines[:-1]
        if not hidden:
            self.gemm(output, source, _stacked(space.head, concept_map))
            return
        value = source
        for place, layer in enumerate(hidden, 1):
            before = self.gemm(f"{names}before{place}", value, layer)
            value = self.node("Relu", [before], f"{names}hidden{place}")
        if not concept_map.outputs:
            self.gemm(output, value, space.head.affines[-1])
            return
        logits = self.gemm(f"{names}logits", value, space.head.affines[-1])
        concepts = self.gemm(f"{names}concepts", source, concept_map)
        self.node("Concat", [logits, concepts], output, axis=1)

    def tensors(self) -> list[Any]:
        """The weights, stored."""
        from onnx import numpy_helper

        return [numpy_helper.from_array(array, name) for name, array in self.weights.items()]


def _outputs(space: ScoreSpace) -> int:
    """Number of logits and concept scores."""
    return space.head.outputs + space.concept_map.outputs


def _stacked(head: Network, concept_map: Affine) -> Affine:
    """An affine head's rows above those of the concept map."""
    (first,) = head.affines
    if not concept_map.outputs:
        return first
    return Affine(
        joined([first.weight, concept_map.weight]), joined([first.bias, concept_map.bias])
    )


def _as_layer(prelude: Prelude) -> Affine:
    """``c + G·X`` as an affine layer."""
    center = objects(prelude.center.fractions(), (len(prelude.center),))
    return Affine(prelude.generators, shortest(center))


# --- exact weights ------------------------------------------------------------------------------


def _kind(layers: Sequence[Affine]) -> "np.dtype[Any]":
    """The smallest float type that holds every weight exactly."""
    arrays = [array for layer in layers for array in (layer.weight, layer.bias)]
    kind: np.dtype[Any] = np.dtype(np.float32)
    if not all(array.dtype != object and _fits(array, kind) for array in arrays):
        kind = np.dtype(np.float64)
    size = sum(array.size for array in arrays) * kind.itemsize
    if size > MOST_BYTES:
        raise BadUsage(f"the weights are {size} bytes; an ONNX file holds {MOST_BYTES} at most")
    return kind


def _fits(array: NDArray[Any], kind: "np.dtype[Any]") -> bool:
    """Whether float64 entries are exact in a type."""
    with np.errstate(over="ignore"):
        return bool(np.array_equal(array.astype(kind).astype(np.float64), array))


def _stored(values: NDArray[Any], kind: "np.dtype[Any]") -> Weights:
    """The exact values in a float type.

    Raises:
        BadUsage: one of them is not of that type.
    """
    found = shortest(values)
    if found.dtype == object or not _fits(found, kind):
        wrong = next(value for value in values.ravel().tolist() if not _is_in(value, kind))
        raise BadUsage(
            f"the network cannot be written exactly: its weight {str(wrong)[:60]} is no {kind}, "
            "and ONNX has no other numbers; export the query as SMT-LIB"
        )
    return np.ascontiguousarray(found.astype(kind))


def _is_in(value: Any, kind: "np.dtype[Any]") -> bool:
    """Whether one exact value is of a float type."""
    found = shortest(objects([value], (1,)))
    return found.dtype != object and _fits(found, kind)


# --- files --------------------------------------------------------------------------------------


def _declared(name: str, kind: "np.dtype[Any]", shape: tuple[int, ...]) -> Any:
    """A tensor's name, type and shape."""
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(kind), shape)


def _model(builder: _Builder, inputs: Any, outputs: Any) -> Any:
    """The checked model of a graph."""
    from onnx import helper

    graph = helper.make_graph(builder.nodes, "conspec", [inputs], [outputs], builder.tensors())
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, producer_name="conspec", opset_imports=opset)
    model.ir_version = IR_VERSION
    _check(model, "the network")
    return model


def _check(model: Any, what: str) -> None:
    """Refuse a model whose types or shapes do not fit together."""
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise BadFile(f"{what} is no valid ONNX model: {first}") from None


def _save(model: Any, path: Path) -> None:
    """Write the file."""
    try:
        path.write_bytes(model.SerializeToString(deterministic=True))
    except OSError as error:
        raise BadFile(f"{path}: cannot be written: {error.strerror}") from None


def _read(path: Path) -> Any:
    """An encoder with one input and one output."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise BadFile(f"{path}: cannot be read: {error.strerror}") from None
    except DecodeError:
        raise BadFile(f"{path}: not a valid ONNX file") from None
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        raise BadFile(f"{path}: has weights outside the file; save it as one file")
    inputs = [entry for entry in graph.input if entry.name not in stored]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise BadFile(f"{path}: an encoder has one input and one output")
    del graph.input[:]
    graph.input.append(inputs[0])
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if len(versions) != 1 or versions[0] < OPSET:
        raise BadFile(f"{path}: export the encoder with opset {OPSET} or newer")
    return model


def _fix_batch(picture: Any) -> None:
    """Make the first axis of a declared input 1."""
    first = picture.type.tensor_type.shape.dim[0]
    first.Clear()
    first.dim_value = 1


def _unused_prefix(graph: Any) -> str:
    """A prefix that no name of the graph begins with."""
    names = [entry.name for entry in (*graph.input, *graph.initializer)]
    names += [name for node in graph.node for name in (*node.output, node.name)]
    prefix = "scores_"
    while any(name.startswith(prefix) for name in names):
        prefix += "_"
    return prefix
