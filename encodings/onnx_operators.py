"""The ONNX operators of a feed-forward head, each as an exact function of symbolic tensors.

A handler reads every attribute and input that its operator may have; `Call.finish` refuses what
is left. Shapes are those for one image: a batch axis of any length has length 1 here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from onnx import TensorProto

import conspec.encodings.onnx_rearrange as rearrange
from conspec.encodings.exact import array_sum, nearest_root, objects, shortest
from conspec.encodings.onnx_constants import Value
from conspec.encodings.onnx_node import Call, Refused, same_kind
from conspec.encodings.onnx_tensors import Exact, Tensor, constant
from conspec.specs.errors import BadFile


def _scalar(value: float) -> Exact:
    """One exact number."""
    return np.array(float(value))


def _negative(tensor: Tensor) -> Tensor:
    """``−tensor``."""
    return tensor.times(_scalar(-1))


def _broadcast(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both in their common shape."""
    try:
        shape = np.broadcast_shapes(first.shape, second.shape)
    except ValueError:
        shapes = f"{list(first.shape)} and {list(second.shape)}"
        raise Refused(f"shapes {shapes} do not fit together") from None
    return first.broadcast(shape), second.broadcast(shape)


def _add(call: Call) -> Value:
    first, second = _broadcast(*call.tensors())
    return first.plus(second)


def _sub(call: Call) -> Value:
    first, second = _broadcast(*call.tensors())
    return first.plus(_negative(second))


def _mul(call: Call) -> Value:
    first, second = _broadcast(*call.tensors())
    if not first.terms:
        first, second = second, first
    if second.terms:
        raise Refused("the product of two values that depend on the input is not affine")
    return first.scaled(second.bias)


def _div(call: Call) -> Value:
    call.tensors()
    divisor = call.constant(1)
    if np.any(divisor.bias == 0):
        raise Refused("the divisor has a zero")
    entries = [1 / Fraction(value) for value in divisor.bias.tolist()]
    inverse = constant(shortest(objects(entries, divisor.shape)), divisor.kind)
    first, second = _broadcast(call.tensor(0), inverse)
    return first.scaled(second.bias)


def _neg(call: Call) -> Value:
    return _negative(call.tensor(0))


def _product(left: Tensor, right: Tensor) -> Tensor:
    """The matrix product; one side is a constant."""
    if not right.terms:
        if len(right.shape) == 1:
            column = left.times_matrix(right.array[:, None])
            return column.rearranged(lambda places: places[..., 0])
        if len(right.shape) == 2:
            return left.times_matrix(right.array)
    elif not left.terms and len(left.shape) == 2 and len(right.shape) in (1, 2):
        return _transposed(_transposed(right).times_matrix(left.array.T))
    elif not left.terms and len(left.shape) == 1 and len(right.shape) == 2:
        row = _transposed(right).times_matrix(left.array[:, None])
        return row.rearranged(lambda places: places[..., 0])
    shapes = f"{list(left.shape)} and {list(right.shape)}"
    raise Refused(f"a product of {shapes} is not supported; one side must be a constant matrix")


def _transposed(tensor: Tensor) -> Tensor:
    """The tensor with its axes in reverse order."""
    return tensor.rearranged(np.transpose)


def _matmul(call: Call) -> Value:
    return _product(*call.tensors())


def _gemm(call: Call) -> Value:
    left, right = call.tensors()
    if call.integer("transA", 0):
        raise Refused("transA=1 is not supported; export with transA=0")
    alpha, beta = call.real("alpha", 1.0), call.real("beta", 1.0)
    if len(left.shape) != 2 or len(right.shape) != 2:
        raise Refused(f"inputs of shapes {list(left.shape)} and {list(right.shape)}, not matrices")
    if call.integer("transB", 0):
        right = _transposed(right)
    if alpha != 1 and left.terms:
        right = right.times(_scalar(alpha))
    elif alpha != 1:
        left = left.times(_scalar(alpha))
    result = _product(left, right)
    if not call.has(2):
        return result
    same_kind(result, call.tensor(2))
    summand = call.tensor(2).broadcast(result.shape)
    return result.plus(summand if beta == 1 else summand.times(_scalar(beta)))


def _relu(call: Call) -> Value:
    return call.blocks.relu(call.tensor(0))


def _leaky_relu(call: Call) -> Value:
    """``relu(x) − α·relu(−x)``."""
    alpha, x = call.real("alpha", 0.01), call.tensor(0)
    positive = call.blocks.relu(x)
    if alpha == 0:
        return positive
    return positive.plus(call.blocks.relu(_negative(x)).times(_scalar(-alpha)))


def _clip(call: Call) -> Value:
    """``l + relu(x − l) − relu(x − u)``; bounds at the type's limits are no bounds."""
    x = call.tensor(0)
    kind = np.float32 if x.kind == TensorProto.FLOAT else np.float64
    largest = float(np.finfo(kind).max)
    lower = _clip_bound(call, "min", 1, -largest)
    upper = _clip_bound(call, "max", 2, largest)
    if lower > upper:
        raise Refused(f"the lower bound {lower} is above the upper bound {upper}")
    if lower > -largest:
        positive = call.blocks.relu(_shifted(x, -lower))
        above = call.blocks.relu(_shifted(x, -upper)) if upper < largest else None
        result = _shifted(positive, lower)
        return result if above is None else result.plus(_negative(above))
    if upper < largest:
        return _shifted(_negative(call.blocks.relu(_shifted(_negative(x), upper))), upper)
    return x


def _clip_bound(call: Call, name: str, index: int, default: float) -> float:
    """A bound of Clip: an attribute before opset 11, an input since."""
    if call.opset < 11:
        return call.real(name, default)
    if not call.has(index):
        return default
    bound = call.constant(index)
    same_kind(call.tensor(0), bound)
    if bound.size != 1 or bound.bias.dtype == object:
        raise Refused(f"input {index} ({name}) must be one stored number")
    return float(bound.bias[0])


def _shifted(tensor: Tensor, number: float) -> Tensor:
    """``tensor + number``."""
    bias = array_sum(tensor.bias, _scalar(number))
    return Tensor(tensor.shape, bias, tensor.terms, tensor.kind)


def _batch_normalization(call: Call) -> Value:
    """``factor·(x − mean) + bias``; ``scale/√(var + ε)`` is rounded once to float64."""
    x, epsilon = call.tensor(0), Fraction(call.real("epsilon", 1e-5))
    call.real("momentum", 0.9)  # matters in training only
    if call.integer("training_mode", 0):
        raise Refused("training_mode=1 is not supported; export for inference")
    if call.opset < 9 and call.integer("spatial", 1) != 1:
        raise Refused("spatial=0 is not supported")
    if len(x.shape) < 2:
        raise Refused(f"an input of shape {list(x.shape)} has no channel axis")
    channels = x.shape[1]
    parameters = [call.constant(index) for index in range(1, 5)]
    if any(parameter.shape != (channels,) for parameter in parameters):
        raise Refused(f"scale, bias, mean and variance must have shape [{channels}]")
    scale, shift, mean, variance = (parameter.bias for parameter in parameters)
    factors = np.array([_factor(s, v, epsilon) for s, v in zip(scale, variance, strict=True)])
    if not np.isfinite(factors).all():
        raise Refused("scale/sqrt(variance + epsilon) is infinite")
    channel = np.arange(x.size) // (x.size // (x.shape[0] * channels)) % channels
    centred = x.plus(constant(-mean[channel], x.kind))
    result = centred.scaled(factors[channel]).plus(constant(shift[channel], x.kind))
    return Tensor(x.shape, result.bias, result.terms, x.kind)


def _factor(scale: Any, variance: Any, epsilon: Fraction) -> float:
    """``scale/√(variance + ε)`` rounded to the nearest float64."""
    inside = Fraction(variance) + epsilon
    if inside <= 0:
        raise Refused("variance + epsilon is not positive")
    root = nearest_root(Fraction(scale) ** 2 / inside)
    return -root if scale < 0 else root


def _softmax(call: Call) -> Value:
    x = call.tensor(0)
    axis = call.integer("axis", -1 if call.opset >= 13 else 1)
    if not call.drop_softmax:
        raise Refused("a softmax is not piecewise linear; export the model without it")
    if axis not in (-1, len(x.shape) - 1):
        raise Refused(f"axis={axis} is not the last one")
    return x


@dataclass(frozen=True, slots=True)
class Operator:
    """How an operator is read, and how many inputs it may have."""

    read: Callable[[Call], Value]
    least: int
    most: int


OPERATORS = {
    "Add": Operator(_add, 2, 2),
    "BatchNormalization": Operator(_batch_normalization, 5, 5),
    "Cast": Operator(rearrange.cast, 1, 1),
    "Clip": Operator(_clip, 1, 3),
    "Concat": Operator(rearrange.concat, 1, 10**4),
    "Constant": Operator(rearrange.stored, 0, 0),
    "Div": Operator(_div, 2, 2),
    "Dropout": Operator(rearrange.dropout, 1, 3),
    "Flatten": Operator(rearrange.flatten, 1, 1),
    "Gather": Operator(rearrange.gather, 2, 2),
    "Gemm": Operator(_gemm, 2, 3),
    "Identity": Operator(rearrange.identity, 1, 1),
    "LeakyRelu": Operator(_leaky_relu, 1, 1),
    "MatMul": Operator(_matmul, 2, 2),
    "Mul": Operator(_mul, 2, 2),
    "Neg": Operator(_neg, 1, 1),
    "Relu": Operator(_relu, 1, 1),
    "Reshape": Operator(rearrange.reshape, 1, 2),
    "Shape": Operator(rearrange.shape_of, 1, 1),
    "Slice": Operator(rearrange.cut, 1, 5),
    "Softmax": Operator(_softmax, 1, 1),
    "Squeeze": Operator(rearrange.squeeze, 1, 2),
    "Sub": Operator(_sub, 2, 2),
    "Transpose": Operator(rearrange.transpose, 1, 1),
    "Unsqueeze": Operator(rearrange.unsqueeze, 1, 2),
}


def apply(call: Call) -> Value:
    """The value of a node.

    Raises:
        Refused: an operator, attribute, shape or type that is not supported.
        BadFile: a constant that is damaged.
    """
    node = call.node
    operator = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if operator is None:
        where = f" of the domain {node.domain!r}" if node.domain else ""
        raise Refused(f"this operator{where} is not supported; use {', '.join(OPERATORS)}")
    if not operator.least <= len(call.inputs) <= operator.most:
        raise Refused(f"{len(call.inputs)} inputs, not {operator.least} to {operator.most}")
    if node.op_type != "Dropout" and len([name for name in node.output if name]) != 1:
        raise Refused("it must have one output")
    try:
        result = operator.read(call)
    except (BadFile, Refused):
        raise
    except (ArithmeticError, IndexError, ValueError) as error:
        raise Refused(str(error)) from None
    call.finish()
    return result
