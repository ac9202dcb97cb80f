"""Vision-language models: one space for pictures and texts.

Whatever has the two methods of ``VisionLanguageModel`` will do. ``open_clip_model`` loads any
model of open_clip; ``load_vlm`` also takes the import path of a model of the user's.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from conspec.lens.plugins import fetching, load_attribute, require_safetensors
from conspec.specs.errors import BadFile, BadUsage


@runtime_checkable
class VisionLanguageModel(Protocol):
    """Encodes RGB pictures and texts into one space of p dimensions; lengths mean nothing."""

    def encode_image(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Float32 [B, p], on the CPU."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Float32 [T, p], on the CPU."""


class OpenClip:
    """A model of open_clip with its preprocessing and tokenizer."""

    def __init__(
        self,
        model: nn.Module,
        preprocess: Callable[[Image.Image], Tensor],
        tokenize: Callable[[list[str]], Tensor],
        device: str = "cpu",
    ) -> None:
        """Take over the three things that open_clip makes; the model goes to ``device``."""
        self.model = model.eval().to(device)
        self.preprocess = preprocess
        self.tokenize = tokenize
        self.device = device

    def encode_image(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Float32 [B, p], not normalised."""
        batch = torch.stack([self.preprocess(picture) for picture in pictures])
        return self._encode("encode_image", batch)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Float32 [T, p], not normalised."""
        return self._encode("encode_text", self.tokenize(list(texts)))

    def _encode(self, method: str, batch: Tensor) -> Tensor:
        with torch.inference_mode():
            found: Tensor = getattr(self.model, method)(batch.to(self.device))
        return found.float().cpu()


def open_clip_model(name: str, checkpoint: str | None, device: str = "cpu") -> OpenClip:
    """Any model of open_clip.

    Args:
        name: as open_clip knows it (``ViT-B-32``), a model configuration (a JSON file), or
            ``hf-hub:OWNER/NAME``, which needs no checkpoint.
        checkpoint: a local safetensors file, or the tag of published weights (``openai``).
        device: any torch device.

    Raises:
        BadUsage: open_clip knows no such model or tag.
        BadFile: the configuration or the weights are damaged, do not fit or cannot be fetched.
    """
    import open_clip

    spec = name
    if spec.endswith(".json"):
        name = _add_config(Path(spec))
    if _from_hub(name, spec, checkpoint):
        what = f"{name} {checkpoint or ''}".strip()
        local = "a local .safetensors file with --vlm-checkpoint"
        if checkpoint is None:
            local += ", and a model of open_clip or its .json with --vlm"
        with fetching(what, local):
            model, preprocess = open_clip.create_model_from_pretrained(name, checkpoint)
    else:
        model, preprocess = _from_file(name, checkpoint)
    with fetching(f"the tokenizer of {spec}", "a model with open_clip's own tokenizer with --vlm"):
        tokenizer = open_clip.get_tokenizer(name)
    return OpenClip(model, preprocess, tokenizer, device)


def _from_file(
    name: str, checkpoint: str | None
) -> tuple[nn.Module, Callable[[Image.Image], Tensor]]:
    import open_clip

    try:
        model, preprocess = open_clip.create_model_from_pretrained(name, checkpoint)
    except (SafetensorError, RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadFile(f"{checkpoint}: open_clip cannot load {name} from it: {reason}") from error
    return model, preprocess


def _from_hub(name: str, spec: str, checkpoint: str | None) -> bool:
    """Whether the weights come from the internet; refuses what is neither there nor a file."""
    import open_clip

    if name.startswith("hf-hub:"):
        if checkpoint is not None:
            raise BadUsage(f"{name}: comes with its weights; leave out --vlm-checkpoint")
        return True
    if name not in open_clip.list_models():
        raise BadUsage(f"open_clip has no model {name!r}; open_clip.list_models() has them all")
    tags = open_clip.list_pretrained_tags_by_model(name)
    known = f"a .safetensors file{', or a tag: ' if tags else ''}{', '.join(tags)}"
    if checkpoint is None:
        raise BadUsage(f"{spec}: give its weights with --vlm-checkpoint: {known}")
    if checkpoint in tags:
        return True
    if not Path(checkpoint).suffix:
        raise BadUsage(f"{spec} has no weights {checkpoint!r}; give {known}")
    require_safetensors(Path(checkpoint))
    return False


def _add_config(path: Path) -> str:
    import open_clip

    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadFile(f"{path}: not a model configuration in JSON: {error}") from error
    open_clip.add_model_config(path)
    return path.stem


def load_vlm(spec: str, checkpoint: str | None, device: str = "cpu") -> VisionLanguageModel:
    """A vision-language model from what the user wrote.

    Args:
        spec: a model of open_clip, or ``FILE.py:NAME`` or ``PACKAGE.MODULE:NAME`` of a
            ``VisionLanguageModel`` or of a function that makes one.
        checkpoint: for open_clip, see ``open_clip_model``.
        device: any torch device; a model of the user's chooses its own.

    Raises:
        BadUsage: no such model, or it cannot encode pictures and texts.
        BadFile: damaged weights.
    """
    if ":" not in spec or spec.startswith("hf-hub:"):
        return open_clip_model(spec, checkpoint, device)
    found: Any = load_attribute(spec)
    if isinstance(found, type) or not isinstance(found, VisionLanguageModel):
        found = found() if callable(found) else found
    if not isinstance(found, VisionLanguageModel):
        raise BadUsage(f"{spec}: has no encode_image and encode_text")
    return found
