"""The part of an ONNX model behind one of its tensors, as an exact network of that tensor."""

from pathlib import Path
from tempfile import TemporaryDirectory

from onnx import GraphProto, ModelProto

from conspec.encodings.network import Network
from conspec.encodings.onnx_reader import read_network
from conspec.specs.errors import BadFile, UnsupportedOperator

MOST_BYTES = 2**31


def network_behind(path: Path, tensor: str) -> Network:
    """The function from a tensor inside a model to the model's output, exactly.

    What lies before the tensor may hold any operators; it is not looked at.

    Raises:
        BadFile: the model cannot be read, has no such tensor, or does not say its shape.
        UnsupportedOperator: the output depends on the input past that tensor too, or the part
            behind it is not understood.
    """
    model = _model(path)
    graph = model.graph
    known = [info for info in (*graph.value_info, *graph.output) if info.name == tensor]
    if not known:
        raise BadFile(f"{path}: there is no tensor {tensor!r} of known shape in the model")
    needed = _behind(graph, tensor)
    kept = [node for node, used in zip(graph.node, needed, strict=True) if used]
    made = {name for node in kept for name in node.output}
    made |= {tensor, *(weight.name for weight in graph.initializer)}
    used = {name for node in kept for name in node.input if name}
    if outside := sorted((used | {graph.output[0].name}) - made):
        raise UnsupportedOperator(
            f"{path}: the output depends on {outside[0]!r} too, and not on {tensor!r} alone"
        )
    del graph.node[:]
    graph.node.extend(kept)
    weights = [weight for weight in graph.initializer if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(weights)
    del graph.input[:]
    graph.input.append(known[0])
    del graph.value_info[:]
    with TemporaryDirectory() as folder:
        part = Path(folder) / path.name
        part.write_bytes(model.SerializeToString())
        try:
            return read_network(part)
        except BadFile as error:
            message = str(error).removeprefix(f"{part}: ")
            raise type(error)(f"{path}: behind {tensor!r}: {message}") from None


def _model(path: Path) -> ModelProto:
    """The model with the shapes of its tensors, as far as onnx can tell them."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs

    if not path.is_file():
        raise BadFile(f"{path}: there is no such file")
    if path.stat().st_size > MOST_BYTES:
        raise BadFile(f"{path}: the file is larger than the limit {MOST_BYTES} bytes")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except (DecodeError, onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise BadFile(f"{path}: no ONNX model of consistent shapes: {first}") from None


def _behind(graph: GraphProto, tensor: str) -> list[bool]:
    """For each node, whether the output needs it once the tensor is given."""
    wanted = {output.name for output in graph.output} - {tensor}
    needed = [False] * len(graph.node)
    for place in range(len(graph.node) - 1, -1, -1):  # nodes stand in topological order
        node = graph.node[place]
        if wanted.intersection(node.output):
            needed[place] = True
            wanted.update(name for name in node.input if name and name != tensor)
    return needed
