"""The encoder of a classifier as an ONNX file, from pixels to embeddings.

No proof rests on this file. It is there for tools that are to see the whole network, with the
embedding as one of its tensors.
"""

import io
import warnings

import numpy as np
import torch
from torch import Tensor, nn

from conspec.lens.encoders import Classifier
from conspec.lens.onnx_files import open_session
from conspec.specs.errors import BadFile

OPSET = 17
TOLERANCE = 1e-3
"""Of the largest entry: two float32 evaluations of a deep network in different orders."""
OUTPUT = "embedding"


def export_encoder(classifier: Classifier) -> bytes:
    """The part of a classifier before its head as an ONNX file.

    The input is ``pixels``, float32 [1, 3, crop, crop] in [0, 1]: the picture after resizing and
    cropping. Mean and deviation of the preprocessing are the file's first nodes. The output is
    ``embedding``, float32 [1, n].

    Args:
        classifier: the classifier, split.

    Raises:
        BadFile: torch cannot export it, or onnxruntime's embeddings are not torch's.
    """
    encoder = _Encoder(classifier).eval()
    side = classifier.preprocess.crop
    place = next(classifier.module.parameters()).device
    generator = torch.Generator().manual_seed(0)
    probe = torch.rand(1, 3, side, side, generator=generator)
    with torch.inference_mode():
        expected = encoder(probe.to(place)).cpu().numpy()
    data = _exported(encoder, probe.to(place), classifier.name)
    session = open_session(data, classifier.name)
    (found,) = session.run(None, {"pixels": probe.numpy()})
    if found.shape != expected.shape:
        raise BadFile(f"{classifier.name}: the ONNX encoder gives {found.shape}")
    gap = float(np.abs(found - expected).max())
    if not gap <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise BadFile(f"{classifier.name}: ONNX embeddings differ from torch's by {gap:.3g}")
    return data


class _Encoder(nn.Module):
    """Pixels [1, 3, crop, crop] → what the classifier's head is given, [1, n]."""

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: Classifier) -> None:
        """Keep the classifier, and mean and deviation as they are used."""
        super().__init__()
        self.module, self.start = classifier.module, classifier.head[0]
        place = next(classifier.module.parameters()).device
        how = classifier.preprocess
        self.plain = (how.mean, how.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        for name, values in (("mean", how.mean), ("std", how.std)):
            self.register_buffer(name, torch.tensor(values, device=place).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """The embedding of a picture."""
        seen: list[Tensor] = []
        hook = self.start.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
        try:
            self.module(pixels if self.plain else (pixels - self.mean) / self.std)
        finally:
            hook.remove()
        return seen[-1].float()


def _exported(encoder: nn.Module, probe: Tensor, name: str) -> bytes:
    """The ONNX file by torch's tracing exporter, which needs no further packages."""
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this exporter is the older one
            torch.onnx.export(
                encoder,
                (probe,),
                buffer,  # type: ignore[arg-type]  # a file object is allowed
                input_names=["pixels"],
                output_names=[OUTPUT],
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:  # what torch raises here has no common base class
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise BadFile(f"{name}: torch cannot export the encoder: {first}") from error
    return buffer.getvalue()
