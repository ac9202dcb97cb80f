"""Torch heads as ONNX files with few and plain operators, checked against torch.

A head may be made of Linear, ReLU, LeakyReLU, ReLU6, Hardtanh, BatchNorm1d, Dropout, Flatten,
Identity, and Sequential of them. Every other module is refused by name, subclasses too, since
what they compute is not known. The file, not the torch module, is what proofs are about.
"""

from dataclasses import dataclass
from typing import assert_never

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from conspec.lens.onnx_files import affine_model, model, open_session, run
from conspec.specs.errors import BadFile, UnsupportedOperator

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

TOLERANCE = 1e-4  # of the largest logit: two float32 evaluations in different orders


@dataclass(frozen=True)
class Affine:
    """``x → weight @ x + bias``, float64 [m, k] and [m]; rounded to float32 when written."""

    weight: Float64
    bias: Float64

    def after(self, first: "Affine") -> "Affine":
        """This map applied to what ``first`` gives."""
        return Affine(self.weight @ first.weight, self.weight @ first.bias + self.bias)


@dataclass(frozen=True)
class Scale(Affine):
    """A batch norm in evaluation mode: an affine map with a diagonal weight."""


@dataclass(frozen=True)
class Leaky:
    """``x`` where x ≥ 0, else ``slope · x``."""

    slope: float


@dataclass(frozen=True)
class Clip:
    """``min(max(x, low), high)``; without ``high`` it is the ReLU."""

    low: float
    high: float | None


Layer = Affine | Leaky | Clip


def export_head(head: nn.Module, z: Tensor) -> bytes:
    """A head as an ONNX file from ``z`` [N, n] to ``logits`` [N, K].

    Batch norms are folded into the linear layer beside them, in float64.

    Args:
        head: embeddings [N, n] → logits [N, K], in evaluation mode.
        z: embeddings to check the file with, float32 [N, n], N ≥ 1.

    Raises:
        UnsupportedOperator: a module that is not in this file's list.
        BadFile: no layer, a weight that is NaN or infinite, or onnxruntime's logits are not
            torch's.
    """
    layers = fold(layers_of(head))
    if not layers:
        raise BadFile("head: it has no layer")
    with torch.inference_mode():
        expected = head(z.to(next(head.parameters(), z).device)).float().cpu().numpy()
    data = write_layers(layers, (z.shape[1], expected.shape[1]))
    found = run(open_session(data, "head"), z.numpy(), expected.shape[1], "head")
    gap = np.abs(found - expected).max()
    if not gap <= TOLERANCE * max(1.0, np.abs(expected).max()):
        raise BadFile(f"head: the ONNX file's logits differ from torch's by {gap:.3g}")
    return data


def export_maps(weight: Float64, bias: Float64, directions: Float32) -> tuple[bytes, bytes]:
    """``alignment.onnx`` (``A z + d``) and ``concept_map.onnx`` (``Q̂ (A z + d)``, one Gemm).

    Both are computed from the float64 alignment and rounded once to float32.

    Args:
        weight: A, float64 [p, n].
        bias: d, float64 [p].
        directions: Q̂, unit concept directions, float32 [M, p].
    """
    q = directions.astype(np.float64)
    alignment = affine_model(weight.astype(np.float32), bias.astype(np.float32), "mapped")
    concepts = ((q @ weight).astype(np.float32), (q @ bias).astype(np.float32))
    return alignment, affine_model(*concepts, "concepts")


def layers_of(module: nn.Module, path: str = "head") -> list[Layer]:
    """What a module computes, layer by layer, in float64.

    Raises:
        UnsupportedOperator: it, or a module in it, is not in this file's list.
    """
    kind = type(module)
    if kind in (nn.Identity, nn.Dropout):
        return []
    if isinstance(module, nn.Sequential) and kind is nn.Sequential:
        parts = module.named_children() if len(module) else ()
        return [layer for name, part in parts for layer in layers_of(part, f"{path}.{name}")]
    if isinstance(module, nn.Flatten) and kind is nn.Flatten:
        if (module.start_dim, module.end_dim) == (1, -1):
            return []  # embeddings are flat already
        raise _unsupported(module, path, "only start_dim=1, end_dim=-1")
    return [_layer(module, path)]


def _layer(module: nn.Module, path: str) -> Layer:
    kind = type(module)
    if kind is nn.ReLU:
        return Clip(0.0, None)
    if isinstance(module, nn.Hardtanh) and kind in (nn.Hardtanh, nn.ReLU6):
        return Clip(float(module.min_val), float(module.max_val))
    if isinstance(module, nn.LeakyReLU) and kind is nn.LeakyReLU:
        return Leaky(float(module.negative_slope))
    if isinstance(module, nn.Linear) and kind is nn.Linear:
        weight = _float64(module.weight)
        return Affine(weight, _or(module.bias, np.zeros(len(weight))))
    if isinstance(module, nn.BatchNorm1d) and kind is nn.BatchNorm1d:
        return _batch_norm(module, path)
    raise _unsupported(module, path, "not among those that a head may be made of")


def _batch_norm(module: nn.BatchNorm1d, path: str) -> Scale:
    if module.running_mean is None or module.running_var is None:
        raise _unsupported(module, path, "without running statistics it is no fixed function")
    spread = np.sqrt(_float64(module.running_var) + module.eps)
    scale = _or(module.weight, np.ones(len(spread))) / spread
    shift = _or(module.bias, np.zeros(len(spread))) - _float64(module.running_mean) * scale
    return Scale(np.diag(scale), shift)


def _float64(tensor: Tensor) -> Float64:
    return tensor.detach().cpu().double().numpy()


def _or(tensor: Tensor | None, default: Float64) -> Float64:
    return default if tensor is None else _float64(tensor)


def _unsupported(module: nn.Module, path: str, why: str) -> UnsupportedOperator:
    return UnsupportedOperator(f"{path} ({type(module).__name__}) cannot be exported: {why}")


def fold(layers: list[Layer]) -> list[Layer]:
    """The same function, with each batch norm merged into an affine layer beside it."""
    folded: list[Layer] = []
    for layer in layers:
        last = folded[-1] if folded else None
        one_is_scale = isinstance(layer, Scale) or isinstance(last, Scale)
        if one_is_scale and isinstance(layer, Affine) and isinstance(last, Affine):
            folded[-1] = layer.after(last)
        else:
            folded.append(layer)
    return folded


def write_layers(layers: list[Layer], sizes: tuple[int, int]) -> bytes:
    """An ONNX file of the layers, from ``z`` [N, n] to ``logits`` [N, K]; sizes = (n, K).

    Raises:
        BadFile: a weight is NaN or infinite in float32.
    """
    from onnx import helper

    nodes = []
    weights: dict[str, Float32] = {}
    names = ["z", *(f"h{i}" for i in range(1, len(layers))), "logits"]
    for i, layer in enumerate(layers):
        operator, own, attributes = _operator(layer)
        weights |= {f"{key}{i}": value for key, value in own.items()}
        inputs = [names[i], *(f"{key}{i}" for key in own)]
        node = helper.make_node(operator, inputs, [names[i + 1]], f"{operator.lower()}{i}")
        node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
        nodes.append(node)
    return model(nodes, weights, "logits", sizes)


def _operator(layer: Layer) -> tuple[str, dict[str, Float32], dict[str, float]]:
    """Operator, further inputs, and attributes of the ONNX node for a layer."""
    match layer:
        case Affine(weight, bias):
            with np.errstate(over="ignore"):  # an infinite weight is refused with its name
                rounded = {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
            return "Gemm", rounded, {"transB": 1}
        case Leaky(slope):
            return "LeakyRelu", {}, {"alpha": slope}
        case Clip(0.0, None):
            return "Relu", {}, {}
        case Clip(low, high):
            bounds = {"low": np.float32(low)}
            if high is not None:
                bounds["high"] = np.float32(high)
            return "Clip", {key: np.asarray(value) for key, value in bounds.items()}, {}
        case _:
            assert_never(layer)
