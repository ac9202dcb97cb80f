"""Heatmaps of single features: Grad-CAM (by captum) and Score-CAM, for any torch classifier.

The target is the signed feature ``sign · z_j``, an input of the classifier's last linear layer,
and never a class's logit (VisionLogic, arXiv 2503.10547). Both heatmaps are made from one layer's
maps: by default those of the last module that still has a picture's two dimensions, and in a
transformer those of the norm before the last attention.

Sources: Grad-CAM, Selvaraju et al. (2017); Score-CAM, Wang et al. (2020).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from conspec.specs.errors import BadFile, BadUsage, MissingSolver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from conspec.lens.encoders import Classifier

Tensor = Any  # torch.Tensor; torch is imported when first used
Module = Any  # torch.nn.Module
Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Pixels = NDArray[np.uint8]

_BATCH = 64
"""Pictures encoded at once."""
_NORMS = ("norm1", "ln_1")
"""What timm and torchvision call the norm before a transformer block's attention."""


@dataclass(frozen=True, eq=False)
class Encoder:
    """A classifier, looked at from its last linear layer and from one layer with maps.

    Attributes:
        classifier: the model.
        last: its last linear layer, whose inputs are the features z.
        layer: the module whose maps make the heatmaps.
        layer_name: its name in the model.
    """

    classifier: "Classifier"
    last: Module
    layer: Module
    layer_name: str

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.classifier.name

    @property
    def side(self) -> int:
        """Side of the square pictures that the model sees, in pixels."""
        return self.classifier.preprocess.crop

    def prepared(self, picture: "Image") -> Pixels:
        """The square that the model sees of a picture, uint8 [S, S, 3]; edits are made there."""
        plain = replace(self.classifier.preprocess, mean=(0.0,) * 3, std=(1.0,) * 3)
        shares = plain([picture])[0].permute(1, 2, 0).numpy()
        return np.asarray(np.rint(255 * shares), dtype=np.uint8)

    def inputs(self, images: Pixels) -> Tensor:
        """What the model is given for prepared pictures [B, S, S, 3]: float32 [B, 3, S, S]."""
        from PIL import Image

        alone = replace(self.classifier.preprocess, resize=self.side)
        place = next(self.classifier.module.parameters()).device
        return alone([Image.fromarray(image) for image in images]).to(place)

    def features(self, inputs: Tensor) -> Singles:
        """The features float32 [B, d] of a batch of inputs, on the CPU."""
        import torch

        with torch.inference_mode():
            parts = [self.differentiable(part) for part in inputs.split(_BATCH)]
        return np.asarray(torch.cat(parts).float().cpu().numpy(), dtype=np.float32)

    def embed(self, pictures: "Sequence[Image]") -> Singles:
        """The features float32 [B, d] of pictures as they come, on the CPU."""
        place = next(self.classifier.module.parameters()).device
        parts = [
            self.features(self.classifier.preprocess(pictures[start : start + _BATCH]).to(place))
            for start in range(0, len(pictures), _BATCH)
        ]
        return np.concatenate(parts)

    def differentiable(self, inputs: Tensor) -> Tensor:
        """The features [B, d] with their graph."""
        seen: list[Tensor] = []
        hook = self.last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            self.classifier.module(inputs)
        finally:
            hook.remove()
        return seen[-1]


def open_encoder(classifier: "Classifier", layer: str | None = None) -> Encoder:
    """A classifier whose features can be attributed.

    Args:
        classifier: the model; its head ends in a linear layer.
        layer: name of the module whose maps make the heatmaps; found if not given.

    Raises:
        BadFile: the model does not end in a linear layer, or no layer has maps.
        BadUsage: there is no module of that name, or it has no maps.
    """
    from torch import nn

    leaves = [leaf for leaf in classifier.head if not isinstance(leaf, nn.Dropout | nn.Identity)]
    if not leaves or not isinstance(leaves[-1], nn.Linear):
        raise BadFile(f"{classifier.name}: does not end in a linear layer, so it has no features")
    shapes = _shapes(classifier)
    modules = dict(classifier.module.named_modules())
    if layer is None:
        layer = _last_with_maps(classifier.name, shapes)
    elif layer not in modules:
        raise BadUsage(f"--layer {layer}: {classifier.name} has no such module")
    elif _grid(shapes.get(layer, ())) is None:
        raise BadUsage(
            f"--layer {layer}: gives {list(shapes.get(layer, ()))}, which are no maps; "
            f"{_last_with_maps(classifier.name, shapes)} would do"
        )
    return Encoder(classifier, leaves[-1], modules[layer], layer)


def _shapes(classifier: "Classifier") -> dict[str, tuple[int, ...]]:
    """What each module gives for a picture, in the order in which they finish."""
    import torch

    found: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable[[Module, Any, Any], None]:
        def hook(_module: Module, _inputs: Any, output: Any) -> None:
            found.pop(name, None)  # a module that runs twice counts where it last ran
            found[name] = tuple(getattr(output, "shape", ()))

        return hook

    named = [(name, part) for name, part in classifier.module.named_modules() if name]
    hooks = [part.register_forward_hook(note(name)) for name, part in named]
    side = classifier.preprocess.crop
    place = next(classifier.module.parameters()).device
    try:
        with torch.inference_mode():
            classifier.module(torch.zeros(1, 3, side, side, device=place))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _last_with_maps(name: str, shapes: dict[str, tuple[int, ...]]) -> str:
    """The last module with maps; of a transformer, the norm before its last attention."""
    pictured = [part for part, shape in shapes.items() if _grid(shape) is not None]
    if not pictured:
        raise BadFile(f"{name}: no module keeps a picture's two dimensions; it has no heatmaps")
    norms = [part for part in pictured if part.rpartition(".")[2] in _NORMS]
    tokens = [part for part in norms if len(shapes[part]) == 3]
    return (tokens or pictured)[-1]


def _grid(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Height and width of a layer's maps: of [B, C, h, w], or of [B, tokens, C]; None of others.

    Tokens form a square, before which a class token may stand.
    """
    if len(shape) == 4 and min(shape[2:]) > 1:
        return shape[2], shape[3]
    if len(shape) == 3 and shape[1] > 3 and shape[1] - isqrt(shape[1]) ** 2 in (0, 1):
        return isqrt(shape[1]), isqrt(shape[1])
    return None


@contextmanager
def _maps(encoder: Encoder) -> Iterator[Module]:
    """A module through which the layer's maps [B, C, h, w] flow while the model runs."""
    from torch import nn

    spy = nn.Identity()

    def through(_module: Module, _inputs: Any, output: Tensor) -> Tensor:
        if output.ndim == 4:
            return spy(output)
        grid = _grid(tuple(output.shape))
        if grid is None:
            raise BadUsage(f"{encoder.layer_name}: gives {list(output.shape)}, no maps")
        start = output.shape[1] - grid[0] * grid[1]
        tokens = spy(output[:, start:].transpose(1, 2).unflatten(2, grid))
        return nn.functional.pad(tokens.flatten(2).transpose(1, 2), (0, 0, start, 0)) + (
            nn.functional.pad(output[:, :start], (0, 0, 0, grid[0] * grid[1]))
        )

    hook = encoder.layer.register_forward_hook(through)
    try:
        yield spy
    finally:
        hook.remove()


def grad_cam(encoder: Encoder, image: Pixels, feature: int, sign: int) -> Floats:
    """Grad-CAM of a signed feature: ``relu(Σ_k mean(∂ sign·z_j / ∂A_k) · A_k)``, enlarged.

    Args:
        encoder: the model.
        image: a prepared picture, uint8 [S, S, 3].
        feature: j.
        sign: 1 or −1.

    Returns:
        float64 [S, S], at least 0; bilinear with aligned corners, as in Score-CAM.

    Raises:
        MissingSolver: captum is not installed.
    """
    cam = _captum()

    def target(inputs: Tensor) -> Tensor:
        return sign * encoder.differentiable(inputs)

    with _maps(encoder) as layer:
        method = cam(target, layer)
        inputs = encoder.inputs(image[None]).requires_grad_()
        heat = method.attribute(inputs, target=feature, relu_attributions=True)
    return np.asarray(_enlarged(heat.detach(), encoder.side)[0, 0].clip(min=0.0))


def _captum() -> Any:
    """Grad-CAM of captum."""
    try:
        from captum.attr import LayerGradCam
    except ImportError as error:
        raise MissingSolver(
            "captum is not installed; `pip install 'conspec[ground]'` brings it"
        ) from error
    return LayerGradCam


@dataclass(frozen=True, eq=False)
class Masked:
    """What Score-CAM needs of a picture; it serves all features.

    Attributes:
        maps: the layer's C maps, enlarged, float64 [C, S, S].
        features: of the input times each map brought to [0, 1], float32 [C, d].
    """

    maps: Floats
    features: Singles


def masked(encoder: Encoder, image: Pixels) -> Masked:
    """Run the model on the picture masked with each of its layer's maps.

    A mask is a map enlarged to the picture and brought to [0, 1]; a constant map is a mask of
    zeros. It multiplies what the model is given, after mean and deviation.
    """
    import torch

    inputs = encoder.inputs(image[None])
    seen: list[Tensor] = []
    with _maps(encoder) as layer, torch.inference_mode():
        layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        encoder.classifier.module(inputs)
    maps = _enlarged(seen[-1].transpose(0, 1), encoder.side)[:, 0]
    least = maps.min(axis=(1, 2), keepdims=True)
    reach = maps.max(axis=(1, 2), keepdims=True) - least
    masks = np.divide(maps - least, reach, out=np.zeros_like(maps), where=reach > 0)
    stack = torch.from_numpy(masks[:, None].astype(np.float32)).to(inputs.device)
    return Masked(maps, encoder.features(inputs * stack))


def score_cam(found: Masked, feature: int, sign: int) -> Floats:
    """Score-CAM of a signed feature: ``relu(Σ_k w_k A_k)`` brought to [0, 1].

    w is the softmax over all channels of ``sign · z_j`` of the masked inputs.

    Returns:
        float64 [S, S]; zeros where no map is positive.
    """
    values = sign * found.features[:, feature].astype(np.float64)
    weights = np.exp(values - values.max())
    heat = np.maximum(np.tensordot(weights / weights.sum(), found.maps, 1), 0.0)
    heat -= heat.min()
    top = heat.max()
    return np.asarray(heat / top if top > 0 else heat)


def _enlarged(maps: Tensor, side: int) -> Floats:
    """Maps [B, C, h, w] at the size of the picture, float64 [B, C, S, S]."""
    import torch

    grown = torch.nn.functional.interpolate(
        maps.double(), size=(side, side), mode="bilinear", align_corners=True
    )
    return np.asarray(grown.cpu().numpy(), dtype=np.float64)
