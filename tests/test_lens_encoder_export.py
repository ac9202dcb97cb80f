"""The encoder's ONNX file gives the embeddings that the lens stores."""

from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from conspec.lens.encoder_export import export_encoder
from conspec.lens.encoders import Classifier, split
from conspec.lens.preprocess import Preprocess
from conspec.specs.errors import BadFile

PLAIN = Preprocess(8, 8)
SHIFTED = Preprocess(8, 8, (0.25, 0.5, 0.75), (0.5, 0.25, 2.0))


class Tiny(nn.Module):
    """A convolution, batch norm and pooling, then a head."""

    def __init__(self, between: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        y = self.between(self.norm(self.conv(x))).mean(dim=(2, 3))
        found: Tensor = self.head(y)
        return found


def classifier(preprocess: Preprocess, module: nn.Module | None = None) -> Classifier:
    torch.manual_seed(1)
    return split(module or Tiny(), preprocess, "tiny")


@pytest.mark.parametrize("preprocess", [PLAIN, SHIFTED])
def test_embeddings_are_those_of_the_lens(preprocess: Preprocess) -> None:
    made = classifier(preprocess)
    session = ort.InferenceSession(export_encoder(made))
    (entry,) = session.get_inputs()
    assert (entry.name, entry.shape) == ("pixels", [1, 3, 8, 8])
    random = np.random.default_rng(0)
    for _ in range(3):
        colours = random.integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
        pixels = (colours.astype(np.float32) / 255).transpose(2, 0, 1)[None]
        (found,) = session.run(["embedding"], {"pixels": pixels})
        expected = made.embed([Image.fromarray(colours)]).numpy()
        assert found.shape == expected.shape == (1, 4)
        assert np.allclose(found, expected, atol=1e-5)
        assert np.abs(expected).max() > 1e-3


def test_the_same_classifier_gives_the_same_bytes() -> None:
    made = classifier(PLAIN)
    assert export_encoder(made) == export_encoder(made)


def test_an_encoder_that_is_no_fixed_function_is_refused() -> None:
    """Tracing would freeze the random numbers; the comparison with torch notices."""

    def noisy(x: Tensor) -> Tensor:
        return x + torch.rand_like(x)

    made = classifier(PLAIN, Tiny(noisy))
    with pytest.raises(BadFile, match="ONNX embeddings differ from torch's by"):
        export_encoder(made)


def test_what_torch_cannot_export_is_refused() -> None:
    def strange(x: Tensor) -> Tensor:
        found: Tensor = torch.linalg.matrix_exp(x)
        return found

    made = classifier(PLAIN, Tiny(strange))
    with pytest.raises(BadFile, match="tiny: torch cannot export the encoder"):
        export_encoder(made)
