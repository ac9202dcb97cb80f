"""ONNX operators that compute nothing: they rearrange entries, or hold and cast constants."""

from collections.abc import Sequence
from math import prod

import numpy as np
from onnx import AttributeProto, TensorProto

from conspec.encodings.onnx_constants import (
    Integers,
    Value,
    checked_floats,
    kind_name,
    read_tensor,
)
from conspec.encodings.onnx_node import Call, Refused, same_kind
from conspec.encodings.onnx_tensors import (
    Move,
    Tensor,
    check_entries,
    concatenated,
    constant,
)


def dropout(call: Call) -> Value:
    """The identity: at inference nothing is dropped."""
    if call.opset < 12:
        call.real("ratio", 0.5)
        return call.tensor(0)
    call.integer("seed", 0)
    if call.has(1):
        call.constant(1)
    mode = call.value(2) if call.has(2) else None
    if mode is not None and not (isinstance(mode, Integers) and not mode.array.any()):
        raise Refused("training_mode is not a constant false; export for inference")
    return call.tensor(0)


def _moved(value: Value, move: Move) -> Value:
    """A value with its entries rearranged."""
    if isinstance(value, Tensor):
        return value.rearranged(move)
    return Integers(move(value.array), value.kind)


def identity(call: Call) -> Value:
    """The input itself."""
    return call.value()


def reshape(call: Call) -> Value:
    """The entries in another shape, in the same order."""
    value, wanted = call.value(), call.integers(1)
    shape = _shape(value)
    if wanted.ndim != 1:
        raise Refused("the new shape must be a list")
    sizes = wanted.tolist()
    if not call.integer("allowzero", 0):
        if any(size == 0 and axis >= len(shape) for axis, size in enumerate(sizes)):
            raise Refused(f"the shape {sizes} copies an axis that {list(shape)} does not have")
        sizes = [shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    if any(size < -1 for size in sizes):
        raise Refused(f"{sizes} is not a shape")
    return _moved(value, lambda places: places.reshape(sizes))


def _shape(value: Value) -> tuple[int, ...]:
    """The shape of a tensor or of constant integers."""
    return value.shape if isinstance(value, Tensor) else value.array.shape


def flatten(call: Call) -> Value:
    """The entries as a matrix."""
    value = call.value()
    rank = len(_shape(value))
    axis = call.integer("axis", 1)
    if not -rank <= axis <= rank:
        raise Refused(f"axis={axis} does not fit an input with {rank} axes")
    rows = prod(_shape(value)[: axis + rank if axis < 0 else axis])
    return _moved(value, lambda places: places.reshape(rows, -1))


def _axes(call: Call) -> list[int] | None:
    """The axes of Squeeze or Unsqueeze: an attribute before opset 13, an input since."""
    if call.opset < 13:
        return call.integer_list("axes")
    return call.integers(1).ravel().tolist() if call.has(1) else None


def squeeze(call: Call) -> Value:
    """The input without axes of length 1."""
    axes = _axes(call)
    return _moved(call.value(), lambda p: np.squeeze(p, None if axes is None else tuple(axes)))


def unsqueeze(call: Call) -> Value:
    """The input with new axes of length 1."""
    axes = _axes(call)
    if axes is None:
        raise Refused("it does not say which axes")
    return _moved(call.value(), lambda places: np.expand_dims(places, tuple(axes)))


def transpose(call: Call) -> Value:
    """The input with its axes in another order."""
    axes = call.integer_list("perm")
    return _moved(call.value(), lambda places: np.transpose(places, axes))


def cut(call: Call) -> Value:
    """ONNX's Slice: every so many entries along some axes."""
    value = call.value()
    starts, ends, axes, steps = _slice_bounds(call)
    rank = len(_shape(value))
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if any(not -rank <= axis < rank for axis in axes):
        raise Refused(f"axes {axes} do not fit an input with {rank} axes")
    axes = [axis % rank for axis in axes]
    if not len(starts) == len(ends) == len(axes) == len(steps) or len(set(axes)) < len(axes):
        raise Refused("starts, ends, axes and steps do not fit together")
    cuts = [slice(None)] * rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        cuts[axis] = slice(start, end, step)
    return _moved(value, lambda places: places[tuple(cuts)])


Bounds = tuple[Sequence[int], Sequence[int], list[int] | None, list[int] | None]


def _slice_bounds(call: Call) -> Bounds:
    """Starts, ends, axes and steps: attributes before opset 10, inputs since."""
    if call.opset < 10:
        starts, ends = call.integer_list("starts"), call.integer_list("ends")
        return starts or [], ends or [], call.integer_list("axes"), None
    lists = [call.integers(i).ravel().tolist() if call.has(i) else None for i in range(1, 5)]
    return lists[0] or [], lists[1] or [], lists[2], lists[3]


def gather(call: Call) -> Value:
    """The entries at constant indices along one axis."""
    value, axis, indices = call.value(), call.integer("axis", 0), call.integers(1)
    check_entries(prod(_shape(value)) * indices.size)
    return _moved(value, lambda places: np.take(places, indices, axis=axis))


def concat(call: Call) -> Value:
    """The inputs one after the other along one axis."""
    attribute = call.take("axis", AttributeProto.INT)
    if attribute is None:
        raise Refused("it has no axis")
    axis = attribute.i
    if all(isinstance(value, Integers) for value in call.inputs):
        arrays = [call.integers(index) for index in range(len(call.inputs))]
        return Integers(np.concatenate(arrays, axis=axis), TensorProto.INT64)
    parts = [call.tensor(index) for index in range(len(call.inputs))]
    same_kind(*parts)
    places, start = [], 0
    for part in parts:
        places.append(np.arange(start, start + part.size).reshape(part.shape))
        start += part.size
    together = np.concatenate(places, axis=axis)
    return concatenated(parts).rearranged(lambda flat: flat[together])


def cast(call: Call) -> Value:
    """Another element type, where that changes no value; stored constants may be rounded."""
    value, to = call.value(), call.integer("to", 0)
    call.integer("saturate", 1)  # matters for 8-bit floats only
    if to == value.kind:
        return value
    if isinstance(value, Integers) and to in (TensorProto.INT64, TensorProto.INT32):
        if to == TensorProto.INT32 and np.any(value.array != value.array.astype(np.int32)):
            raise Refused("an integer does not fit INT32")
        return Integers(value.array, to)
    if isinstance(value, Tensor) and to == TensorProto.DOUBLE:
        return Tensor(value.shape, value.bias, value.terms, to)
    fixed = isinstance(value, Tensor) and not value.terms and value.bias.dtype != object
    if isinstance(value, Tensor) and fixed and to == TensorProto.FLOAT:
        with np.errstate(over="ignore"):
            rounded = value.array.astype(np.float32)
        return constant(checked_floats(rounded, "the result"), to)
    names = f"{kind_name(value.kind)} to {kind_name(to)}"
    raise Refused(f"a cast of such a value from {names} is not supported")


def shape_of(call: Call) -> Value:
    """ONNX's Shape: the sizes of the input, for one image."""
    shape = np.array(_shape(call.value()), dtype=np.int64)
    start, end = call.integer("start", 0), call.take("end", AttributeProto.INT)
    return Integers(shape[start : None if end is None else end.i], TensorProto.INT64)


def stored(call: Call) -> Value:
    """ONNX's Constant."""
    attribute = call.take("value", AttributeProto.TENSOR)
    if attribute is not None:
        return read_tensor(attribute.t, None)
    if (attribute := call.take("value_float", AttributeProto.FLOAT)) is not None:
        return constant(checked_floats(np.array(attribute.f), "value"), TensorProto.FLOAT)
    if (attribute := call.take("value_floats", AttributeProto.FLOATS)) is not None:
        return constant(checked_floats(np.array(attribute.floats), "value"), TensorProto.FLOAT)
    if (attribute := call.take("value_int", AttributeProto.INT)) is not None:
        return Integers(np.array(attribute.i, dtype=np.int64), TensorProto.INT64)
    if (attribute := call.take("value_ints", AttributeProto.INTS)) is not None:
        return Integers(np.array(attribute.ints, dtype=np.int64), TensorProto.INT64)
    call.finish()
    raise Refused("it has no value")
