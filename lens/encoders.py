"""A classifier as an encoder, which makes embeddings, and a head, which makes logits of them.

The split is found by running the model once and looking at its innermost modules in the order
they run: the head is the last of them, from the last linear layer on or from where the user
says; its input is the embedding. Running the head alone must then give the model's logits,
otherwise something happens between its modules that an exported head would miss.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from conspec.lens.config import LensConfig
from conspec.lens.plugins import fetching, load_attribute, load_weights
from conspec.lens.preprocess import FILTERS, Preprocess
from conspec.specs.errors import BadFile, BadUsage

SPLIT_TOLERANCE = 1e-4  # of the largest logit: float32 layers may be fused differently


@dataclass(frozen=True)
class Classifier:
    """A model, split.

    Attributes:
        name: what it is.
        module: the whole model, in evaluation mode.
        head: its last modules, run one after the other: embeddings [B, n] → logits [B, K].
        preprocess: from pictures to the model's input.
        outputs: K, how many logits it gives.
    """

    name: str
    module: nn.Module
    head: nn.Sequential
    preprocess: Preprocess
    outputs: int

    def embed(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Embeddings of RGB pictures, float32 [B, n], on the CPU."""
        place = next(self.module.parameters()).device
        z, _ = capture(self.module, self.head[0], self.preprocess(pictures).to(place))
        return z.float().cpu()


def load_classifier(config: LensConfig, classes: int) -> Classifier:
    """The classifier that a configuration names.

    ``config.model`` is ``timm:NAME``, ``torchvision:NAME``, ``cifar:NAME``, or the import path
    of an ``nn.Module`` or of a function that makes one (see ``plugins.load_attribute``).
    ``config.weights`` is a safetensors file, or ``hub`` for what timm or torchvision publish; a
    user's module may come with its weights.

    Args:
        config: what the user wrote.
        classes: K, how many logits it must have.

    Raises:
        BadUsage: no such model, or weights or preprocessing are missing.
        BadFile: the weights do not fit, or the model does not split.
    """
    spec, weights = config.model, config.weights
    kind, _, name = spec.partition(":")
    makers = {"timm": _timm, "torchvision": _torchvision, "cifar": _cifar}
    if kind in makers:
        if weights is None:
            raise BadUsage(f"{spec}: give its weights with --weights: FILE.safetensors or hub")
        module, own, start = makers[kind](name, classes, weights == "hub")
    else:
        module, own, start = _user_module(spec), None, None
    if weights not in (None, "hub"):
        load_weights(module, Path(weights))
    chosen = config.preprocess or own
    if chosen is None:
        raise BadUsage(
            f"{spec}: say how pictures are prepared for it (resize, crop, mean, std) "
            "under [preprocess] in the TOML file of --config"
        )
    found = split(module.to(config.device), chosen, spec, config.head_from or start)
    if found.outputs != classes:
        raise BadFile(
            f"{spec}: gives {found.outputs} logits for {classes} classes; name the model's "
            f"{found.outputs} classes in the order of its logits: --classes a,b,…"
        )
    return found


def _user_module(spec: str) -> nn.Module:
    made = load_attribute(spec)
    module = made() if callable(made) and not isinstance(made, nn.Module) else made
    if not isinstance(module, nn.Module):
        raise BadUsage(f"{spec}: is not a torch module and does not make one")
    return module


def _fetching_weights(spec: str, hub: bool) -> AbstractContextManager[None]:
    local = "a local .safetensors file with --weights"
    return fetching(f"the weights of {spec}", local) if hub else nullcontext()


def _timm(name: str, classes: int, hub: bool) -> tuple[nn.Module, Preprocess | None, None]:
    import timm

    if not timm.is_model(name):
        near = timm.list_models(f"*{name[:6]}*")[:4]
        raise BadUsage(f"timm has no model {name!r}; near: {', '.join(near) or 'none'}")
    options = {} if hub else {"num_classes": classes}
    with _fetching_weights(f"timm:{name}", hub):
        module: nn.Module = timm.create_model(name, pretrained=hub, **options)
    how: dict[str, Any] = timm.data.resolve_model_data_config(module)
    if how["interpolation"] not in FILTERS or how.get("crop_mode", "center") != "center":
        return module, None, None  # the user has to say
    crop = how["input_size"][-1]
    resize = int(crop / how["crop_pct"])
    return module, Preprocess(resize, crop, how["mean"], how["std"], how["interpolation"]), None


def _torchvision(name: str, classes: int, hub: bool) -> tuple[nn.Module, Preprocess, None]:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise BadUsage(f"torchvision has no model {name!r} that classifies pictures")
    best = models.get_model_weights(name).DEFAULT
    how = best.transforms()
    (resize,), (crop,) = how.resize_size, how.crop_size
    own = Preprocess(resize, crop, tuple(how.mean), tuple(how.std), how.interpolation.value)
    options = {"weights": best} if hub else {"num_classes": classes}
    with _fetching_weights(f"torchvision:{name}", hub):
        return models.get_model(name, **options), own, None


def _cifar(name: str, classes: int, hub: bool) -> tuple[nn.Module, Preprocess, str]:
    from conspec.lens.cifar import ARCHITECTURES

    if name not in ARCHITECTURES:
        raise BadUsage(f"no built-in model cifar:{name}; known: {', '.join(ARCHITECTURES)}")
    if hub or classes != 10:
        raise BadUsage(f"cifar:{name} has 10 classes, and its weights must be a local file")
    make, preprocess, start = ARCHITECTURES[name]
    return make(), preprocess, start


def split(
    module: nn.Module, preprocess: Preprocess, name: str, head_from: str | None = None
) -> Classifier:
    """Find the head of a model; see this file's text.

    Args:
        module: float32 pictures [B, 3, crop, crop] → logits [B, K].
        preprocess: says how large the pictures are.
        name: what errors and the manifest call the model.
        head_from: name of the module that the head starts from.

    Raises:
        BadUsage: there is no module of that name.
        BadFile: the model has no such head.
    """
    module.eval()
    place = next(module.parameters()).device
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(2, 3, preprocess.crop, preprocess.crop, generator=generator).to(place)
    order = _running_order(module, probe)
    head = nn.Sequential(*order[_head_start(module, order, name, head_from) :]).eval()
    z, logits = capture(module, head[0], probe)
    if z.ndim != 2 or logits.ndim != 2:
        raise BadFile(
            f"{name}: the head takes {list(z.shape)} and gives {list(logits.shape)}; "
            "expected one vector for each picture"
        )
    if not torch.isfinite(logits).all():
        raise BadFile(f"{name}: gives NaN or infinity for random pictures")
    with torch.inference_mode():
        gap = (head(z) - logits).abs().max()
    if not gap <= SPLIT_TOLERANCE * logits.abs().max():
        raise BadFile(
            f"{name}: its last modules alone do not give its logits (off by {gap:.3g}); "
            "something runs between them that is no module, so name a later --head-from"
        )
    return Classifier(name, module, head, preprocess, logits.shape[1])


def _running_order(module: nn.Module, probe: Tensor) -> list[nn.Module]:
    """The innermost modules in the order in which they run."""
    order: list[nn.Module] = []
    leaves = [m for m in module.modules() if not any(m.children())]
    hooks = [leaf.register_forward_hook(lambda m, _i, _o: order.append(m)) for leaf in leaves]
    try:
        with torch.inference_mode():
            module(probe)
    finally:
        for hook in hooks:
            hook.remove()
    return order


def _head_start(module: nn.Module, order: list[nn.Module], name: str, head_from: str | None) -> int:
    if head_from is None:
        linear = [i for i, leaf in enumerate(order) if isinstance(leaf, nn.Linear)]
        if not linear:
            raise BadFile(f"{name}: has no linear layer to be its head")
        return linear[-1]
    parts = dict(module.named_modules())
    if head_from not in parts:
        raise BadUsage(f"{name}: has no module {head_from!r} for its head to start from")
    inside = set(parts[head_from].modules())
    started = [i for i, leaf in enumerate(order) if leaf in inside]
    if not started:
        raise BadFile(f"{name}: module {head_from!r} never ran")
    return started[0]


def capture(module: nn.Module, part: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
    """What ``part`` was given (the last time) while ``module`` ran, and what came out of it."""
    seen: list[Tensor] = []
    hook = part.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    try:
        with torch.inference_mode():
            logits = module(batch)
    finally:
        hook.remove()
    return seen[-1], logits
