"""Heads as ONNX files: the same function as torch's, and nothing unknown is let through."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from conspec.lens.export import export_head, export_maps, fold, layers_of
from conspec.lens.onnx_files import open_session, run
from conspec.specs.errors import BadFile, UnsupportedOperator


def lively_norm(size: int, affine: bool = True) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(size, affine=affine)
    with torch.no_grad():
        for tensor in norm.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return norm


HEADS: dict[str, Callable[[], nn.Module]] = {
    "affine": lambda: nn.Linear(6, 3),
    "no bias": lambda: nn.Linear(6, 3, bias=False),
    "mlp": lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)),
    "relu first": lambda: nn.Sequential(nn.ReLU(), nn.Linear(6, 3)),
    "nested": lambda: nn.Sequential(
        nn.Flatten(), nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 5)), nn.Identity(),
        nn.LeakyReLU(0.2), nn.Sequential(), nn.Linear(5, 3), nn.ReLU6(),
    ),
    "hardtanh": lambda: nn.Sequential(nn.Linear(6, 4), nn.Hardtanh(-0.5, 0.7), nn.Linear(4, 3)),
    "norm after": lambda: nn.Sequential(
        nn.Linear(6, 5), lively_norm(5), nn.ReLU(), nn.Linear(5, 3)
    ),
    "norm before": lambda: nn.Sequential(lively_norm(6), nn.Linear(6, 3)),
    "norm between": lambda: nn.Sequential(
        nn.Linear(6, 5), lively_norm(5), nn.Linear(5, 4), lively_norm(4, affine=False),
        nn.Linear(4, 3),
    ),
    "norm alone": lambda: nn.Sequential(nn.ReLU(), lively_norm(6), nn.ReLU(), nn.Linear(6, 3)),
    "half": lambda: nn.Sequential(nn.Linear(6, 3).half().float()),
    "double": lambda: nn.Linear(6, 3).double().float(),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_the_file_computes_what_torch_computes(name: str) -> None:
    torch.manual_seed(0)
    head = HEADS[name]().eval()
    z = 3 * torch.randn(50, 6)
    data = export_head(head, z[:2])
    found = run(open_session(data, "head"), z.numpy(), 3, "head")
    with torch.no_grad():
        np.testing.assert_allclose(found, head(z).numpy(), rtol=1e-5, atol=1e-5)


def test_the_file_is_plain_opset_17_with_a_free_batch() -> None:
    head = HEADS["norm after"]()
    model = onnx.load_model_from_string(export_head(head.eval(), torch.zeros(1, 6)))
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Relu", "Gemm"]
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    for value, name, size in ((model.graph.input, "z", 6), (model.graph.output, "logits", 3)):
        (only,) = value
        first, second = only.type.tensor_type.shape.dim
        assert (only.name, first.dim_param, second.dim_value) == (name, "N", size)


def test_linear_weights_are_stored_bit_for_bit() -> None:
    head = nn.Linear(6, 3)
    model = onnx.load_model_from_string(export_head(head, torch.zeros(1, 6)))
    weight, bias = (onnx.numpy_helper.to_array(t) for t in model.graph.initializer)
    np.testing.assert_array_equal(weight, head.weight.detach().numpy())
    np.testing.assert_array_equal(bias, head.bias.detach().numpy())


def test_two_linear_layers_are_not_merged() -> None:
    assert len(fold(layers_of(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))))) == 2


class Subclass(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 1


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Linear(6, 3), nn.Softmax(dim=1)), r"head\.1 \(Softmax\)"),
        (nn.Sequential(nn.Sequential(nn.GELU())), r"head\.0\.0 \(GELU\)"),
        (Subclass(6, 3), r"head \(Subclass\)"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)), r"ParametrizedLinear"),
        (nn.BatchNorm1d(6, track_running_stats=False), "running statistics"),
        (nn.Flatten(0), "start_dim=1"),
        (nn.LayerNorm(6), "LayerNorm"),
    ],
)
def test_other_modules_are_refused_by_name(module: nn.Module, message: str) -> None:
    with pytest.raises(UnsupportedOperator, match=message):
        export_head(module.eval(), torch.zeros(1, 6))


def test_weights_that_are_no_numbers_are_refused() -> None:
    for value in (float("nan"), float("inf")):
        head = nn.Linear(6, 3)
        nn.init.constant_(head.weight, value)
        with pytest.raises(BadFile, match="'weight0' of the ONNX file must be finite"):
            export_head(head, torch.ones(1, 6))
    huge = nn.Linear(6, 3).double()
    nn.init.constant_(huge.weight, 1e300)
    with pytest.raises(BadFile, match="finite float32"):
        export_head(huge, torch.ones(1, 6, dtype=torch.float64))


def test_a_head_that_torch_evaluates_differently_is_refused() -> None:
    head = nn.Linear(6, 3)
    head.register_forward_hook(lambda _m, _i, out: out + 1)
    with pytest.raises(BadFile, match="differ from torch's"):
        export_head(head, torch.zeros(1, 6))


def test_an_empty_head_is_refused() -> None:
    with pytest.raises(BadFile, match="no layer"):
        export_head(nn.Sequential(nn.Dropout()).eval(), torch.zeros(1, 6))


def test_the_concept_map_is_one_gemm_rounded_once() -> None:
    random = np.random.default_rng(0)
    weight, bias = random.normal(size=(5, 6)), random.normal(size=5)
    q = random.normal(size=(4, 5)).astype(np.float32)
    alignment, concepts = export_maps(weight, bias, q)
    model = onnx.load_model_from_string(concepts)
    assert [node.op_type for node in model.graph.node] == ["Gemm"]
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    q64 = q.astype(np.float64)
    np.testing.assert_array_equal(stored["weight"], (q64 @ weight).astype(np.float32))
    np.testing.assert_array_equal(stored["bias"], (q64 @ bias).astype(np.float32))
    z = random.normal(size=(3, 6)).astype(np.float32)
    mapped = run(open_session(alignment, "a"), z, 5, "a")
    np.testing.assert_allclose(mapped, z @ weight.T + bias, rtol=1e-4, atol=1e-5)
    found = run(open_session(concepts, "c"), z, 4, "c")
    np.testing.assert_allclose(found, (z @ weight.T + bias) @ q.T, rtol=1e-4, atol=1e-5)
