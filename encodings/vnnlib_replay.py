"""What the ONNX file itself does with a counterexample, run by onnxruntime in its own floats."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.exact import Vector
from conspec.encodings.vnnlib_property import Property, condition_at
from conspec.specs.errors import BadFile

_KINDS: dict[str, type[np.floating]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}


@dataclass(frozen=True, slots=True)
class Replayed:
    """A counterexample as onnxruntime sees it.

    Attributes:
        kind: the element type of the model's input, ``float32`` or ``float64``.
        is_same_input: whether the point is one of those floats in every coordinate, so that
            onnxruntime was given exactly this point and not a rounded one.
        outputs: [m], as onnxruntime gives them.
        satisfied: whether the condition holds for the input given and the outputs found,
            compared exactly.
    """

    kind: str
    is_same_input: bool
    outputs: tuple[float, ...]
    satisfied: bool


def replay(model: Path, prop: Property, point: Vector) -> Replayed:
    """Run the model on a point and judge the file's condition on what comes out.

    Raises:
        BadFile: onnxruntime refuses the model or the input, or gives no finite numbers.
    """
    from conspec.lens.onnx_files import open_session

    session = open_session(model.read_bytes(), str(model))
    declared = session.get_inputs()[0]
    kind = _KINDS.get(declared.type)
    if kind is None:
        raise BadFile(f"{model}: the input is of type {declared.type}, not float or double")
    with np.errstate(over="ignore"):
        given = point.floats().astype(kind)
    outputs = _run(session, declared, given, model)
    seen = [Fraction(float(value)) for value in given] if np.isfinite(given).all() else []
    if not seen or not np.isfinite(outputs).all() or outputs.size != prop.outputs.size:
        raise BadFile(f"{model}: onnxruntime gives no {prop.outputs.size} finite numbers")
    found = [Fraction(float(value)) for value in outputs]
    return Replayed(
        kind=np.dtype(kind).name,
        is_same_input=seen == point.fractions(),
        outputs=tuple(outputs.tolist()),
        satisfied=condition_at(prop.condition, seen, found),
    )


def _run(session: Any, declared: Any, given: NDArray[Any], model: Path) -> NDArray[Any]:
    """The outputs [m] for one input [n]; axes without a size, such as the batch, have length 1."""
    sizes = [size if isinstance(size, int) and size > 0 else 1 for size in declared.shape]
    try:
        (result, *_) = session.run(None, {declared.name: given.reshape(sizes)})
    except Exception as error:  # onnxruntime has no common base class for its errors
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise BadFile(f"{model}: onnxruntime refuses the input: {first}") from None
    return np.asarray(result).ravel()
