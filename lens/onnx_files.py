"""Small ONNX files without torch: one affine map written as a Gemm, and running a file."""

from typing import Any

import numpy as np
import numpy.typing as npt

from conspec.specs.errors import BadFile

OPSET = 17
IR_VERSION = 8  # what opset 17 came with; every onnxruntime since 1.12 accepts it

Float32 = npt.NDArray[np.float32]


def affine_model(weight: Float32, bias: Float32, output: str) -> bytes:
    """An ONNX file with ``output`` = ``z @ weight.T + bias``, as one Gemm.

    Args:
        weight: float32 [m, n].
        bias: float32 [m].
        output: name of the output, [N, m]; the input is ``z`` [N, n].

    Raises:
        BadFile: a weight is not float32, or is NaN or infinite.
    """
    from onnx import helper

    node = helper.make_node("Gemm", ["z", "weight", "bias"], [output], name=output, transB=1)
    return model([node], {"weight": weight, "bias": bias}, output, weight.shape[::-1])


def model(
    nodes: list[Any], weights: dict[str, Float32], output: str, sizes: tuple[int, ...]
) -> bytes:
    """An ONNX file of ``nodes`` from input ``z`` [N, n] to ``output`` [N, m]; sizes = (n, m).

    Raises:
        BadFile: a weight is not float32, or is NaN or infinite.
    """
    from onnx import TensorProto, helper, numpy_helper

    for name, array in weights.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise BadFile(f"weight {name!r} of the ONNX file must be finite float32")
    n, m = sizes
    graph = helper.make_graph(
        nodes,
        output,
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", n])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", m])],
        [numpy_helper.from_array(np.ascontiguousarray(a), k) for k, a in weights.items()],
    )
    return model_bytes(graph)


def model_bytes(graph: Any) -> bytes:
    """The ONNX file of a graph, checked; the same graph gives the same bytes."""
    import onnx
    from onnx import helper

    opset = [helper.make_opsetid("", OPSET)]
    file = helper.make_model(graph, producer_name="conspec", opset_imports=opset)
    file.ir_version = IR_VERSION
    onnx.checker.check_model(file, full_check=True)
    data: bytes = file.SerializeToString(deterministic=True)
    return data


def open_session(data: bytes, name: str) -> Any:
    """An onnxruntime session on the CPU for an ONNX file in memory.

    Args:
        data: the bytes of the file.
        name: what errors call it.

    Raises:
        BadFile: the file is damaged or keeps weights outside itself.
    """
    import onnxruntime as ort

    _refuse_external(data, name)
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong comes as an exception
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common base class for its errors
        raise _refused(name, error) from error


def run(session: Any, z: Float32, width: int, name: str) -> Float32:
    """The output, float32 [N, width], for embeddings float32 [N, n].

    Raises:
        BadFile: the inputs or outputs have other shapes or types.
    """
    try:
        (result,) = session.run(None, {"z": z})
    except Exception as error:  # as above
        raise _refused(name, error) from error
    scores = np.asarray(result)
    if scores.shape != (len(z), width) or scores.dtype != np.float32:
        raise BadFile(
            f"{name}: gives {scores.dtype} {list(scores.shape)}, expected float32 [N, {width}]"
        )
    return scores


def _refused(name: str, error: Exception) -> BadFile:
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return BadFile(f"{name}: onnxruntime refuses it: {first}")


def _refuse_external(data: bytes, name: str) -> None:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        file = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise BadFile(f"{name}: not a valid ONNX file") from error
    for tensor in file.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise BadFile(f"{name}: weight {tensor.name!r} lies outside the file; not allowed")
