"""Trains a small open_clip model on CIFAR-10 pictures and captions made from frequencies.

The questions asked are those of Emoji-10's model ("is this caption true of this picture?",
``benchmarks.emoji10.vlm``), without what is special there: no layers, no names of things.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from conspec.benchmarks.cifar10.data import CLASSES
from conspec.lens.captions import TEMPLATES

NAME = "conspec-cifar10"
CONFIG = {
    "embed_dim": 64,
    "vision_cfg": {
        "timm_model_name": "test_resnet",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "image_size": 64,
    },
    "text_cfg": {
        "context_length": 24,
        "vocab_size": 49408,
        "width": 64,
        "heads": 4,
        "layers": 2,
    },
}
STEPS = 1200
BATCH = 128
PAIRS = 20
RATE = 2e-3
REPORT = 200  # steps between two lines of progress
SHIFT = 4
#: Sharpness of the cosines in both losses.
SCALE = 12.0


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """Pictures and what may be said of them.

    Attributes:
        pixels: float [N, 3, 32, 32] in [0, 1].
        labels: int64 [N].
        words: The P phrases: the classes, the attributes, and "class with attribute".
        true: bool [N, P].
        fixed: How many phrases are classes or attributes.
    """

    pixels: Tensor
    labels: Tensor
    words: tuple[str, ...]
    true: Tensor
    fixed: int


def lessons(
    pixels: np.ndarray[Any, np.dtype[np.uint8]],
    labels: np.ndarray[Any, np.dtype[np.int64]],
    concepts: tuple[str, ...],
    shown: np.ndarray[Any, np.dtype[np.bool_]],
) -> Lessons:
    """From uint8 pictures [N, 32, 32, 3], labels [N] and drawn attributes [N, M]."""
    columns = {name: labels == k for k, name in enumerate(CLASSES)}
    columns |= {name: shown[:, j] for j, name in enumerate(concepts)}
    for k, label in enumerate(CLASSES):
        for j, concept in enumerate(concepts):
            both = (labels == k) & shown[:, j]
            if both.any():
                columns[f"{label} with {concept}"] = both
    return Lessons(
        pixels=torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255,
        labels=torch.from_numpy(labels),
        words=tuple(columns),
        true=torch.from_numpy(np.stack(list(columns.values()), axis=1)),
        fixed=len(CLASSES) + len(concepts),
    )


def train(target: Path, material: Lessons, seed: int, steps: int = STEPS) -> tuple[Path, Path]:
    """Train the model of ``CONFIG``; return its configuration and its weights, in ``target``."""
    config, weights = target / f"{NAME}.json", target / f"{NAME}.safetensors"
    config.write_text(json.dumps(CONFIG, indent=1) + "\n", encoding="utf-8")
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    model, tokenize = _untrained(config)
    bias = torch.nn.Parameter(torch.tensor(-2.0))
    parameters = [*model.parameters(), bias]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for step in range(1, steps + 1):
        loss = _loss(model, tokenize, bias, material, random)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % REPORT == 0:
            print(f"training: step {step} of {steps}, loss {loss.item():.3f}", flush=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, weights)
    return config, weights


def _untrained(config: Path) -> tuple[Any, Callable[[list[str]], Tensor]]:
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns that there are no weights yet
    open_clip.add_model_config(config)
    model, _, _ = open_clip.create_model_and_transforms(config.stem)
    return model.train(), open_clip.get_tokenizer(config.stem)


def _loss(
    model: Any,
    tokenize: Callable[[list[str]], Tensor],
    bias: Tensor,
    material: Lessons,
    random: torch.Generator,
) -> Tensor:
    own = torch.randint(len(material.labels), (BATCH,), generator=random)
    asked = _asked(material, own, random)
    pictures = _prepared(_moved(material.pixels[own], random), model.visual.image_size[0])
    images = functional.normalize(model.encode_image(pictures), dim=-1)
    captions = _captions([material.words[k] for k in asked.tolist()], random)
    texts = functional.normalize(model.encode_text(tokenize(captions)), dim=-1)
    cosines = images @ texts.T
    true = material.true[own][:, asked].float()
    losses = functional.binary_cross_entropy_with_logits(
        SCALE * cosines + bias, true, reduction="none"
    )
    # Yes and no weigh the same for every caption, however rare it is.
    yes, no = [(losses * m).sum(0) / m.sum(0).clamp(min=1) for m in (true, 1 - true)]
    by_class = functional.cross_entropy(
        SCALE * cosines[:, : len(CLASSES)], material.labels[own], label_smoothing=0.1
    )
    return (yes + no).mean() + 0.5 * by_class


def _asked(material: Lessons, own: Tensor, random: torch.Generator) -> Tensor:
    """All classes and attributes, and some pairs that are true of a picture here."""
    possible = material.true[own, material.fixed :].any(dim=0).nonzero().flatten()
    order = torch.randperm(len(possible), generator=random)[:PAIRS]
    return torch.cat([torch.arange(material.fixed), possible[order] + material.fixed])


def _captions(words: list[str], random: torch.Generator) -> list[str]:
    drawn = torch.randint(len(TEMPLATES), (len(words),), generator=random)
    return [TEMPLATES[k].format(word) for k, word in zip(drawn.tolist(), words, strict=True)]


def _moved(pixels: Tensor, random: torch.Generator) -> Tensor:
    """Shift each picture [n, 3, 32, 32] by up to ``SHIFT`` pixels; mirror half of them."""
    n, _, height, width = pixels.shape
    padded = functional.pad(pixels, (SHIFT,) * 4, mode="reflect")
    shift = torch.randint(2 * SHIFT + 1, (2, n, 1), generator=random)
    rows, columns = shift[0] + torch.arange(height), shift[1] + torch.arange(width)
    mirror = torch.rand(n, 1, generator=random) < 0.5
    columns = torch.where(mirror, columns.flip(1), columns)
    which = torch.arange(n)[:, None, None]
    return padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


def _prepared(pixels: Tensor, size: int) -> Tensor:
    """Square pictures the way the model's own transform prepares them."""
    large = functional.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
    deviation = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)
    return (large - mean) / deviation
