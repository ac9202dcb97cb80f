"""Trains the small vision-language model of Emoji-10: an open_clip model of our own."""

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

from conspec.benchmarks.emoji10.augment import augment
from conspec.benchmarks.emoji10.captions import Phrases
from conspec.benchmarks.emoji10.render import Others
from conspec.lens import emoji10
from conspec.lens.captions import TEMPLATES
from conspec.lens.emoji10 import models

SEED = 10
STEPS = 1600
BATCH = 64
OTHERS = 24
CAPTIONS = 32
RATE = 2e-3
#: Sharpness of the yes-or-no question "is this caption true of this image?".
SCALE = 12.0

Tokenizer = Callable[[list[str]], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """Images and what may be said about them; N0 images of the ten classes come first.

    Attributes:
        tiles: float [N, 4, 64, 64] in [0, 1], RGBA.
        true: bool [N0, P], from `Phrases`.
        known: bool [N0, P].
        words: The P phrases.
        weights: float [N0], how often each image of the ten classes is drawn.
        names: The things shown, [N].
        fixed: How many phrases, from the first on, are classes and attributes.
        classes: How many of those are classes.
    """

    tiles: Tensor
    true: Tensor
    known: Tensor
    words: tuple[str, ...]
    weights: Tensor
    names: tuple[str, ...]
    fixed: int
    classes: int


def train(target: Path, phrases: Phrases, extra: Others, steps: int = STEPS) -> None:
    """Train the model that `vlm.json` describes; write `vlm.safetensors` into `target`."""
    torch.manual_seed(SEED)
    random = torch.Generator().manual_seed(SEED)
    lessons = _lessons(phrases, extra)
    model, tokenizer = _untrained(target / "vlm.json")
    bias = torch.nn.Parameter(torch.tensor(-4.0))
    parameters = [*model.parameters(), bias]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(steps):
        loss = _loss(model, tokenizer, bias, lessons, random)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
    # Half precision costs nothing measurable (metrics.json is taken from this very file).
    state = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    save_file(state, target / "vlm.safetensors")


def _untrained(config: Path) -> tuple[Any, Tokenizer]:
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns that there are no weights yet
    open_clip.add_model_config(config)
    model, _, _ = open_clip.create_model_and_transforms(config.stem)
    return model.train(), open_clip.get_tokenizer(config.stem)


def _lessons(phrases: Phrases, extra: Others) -> Lessons:
    data = emoji10.load_images()
    attributes, _ = emoji10.attribute_table()
    chosen = np.flatnonzero(data.split == "train")
    names = (*(data.names[k] for k in chosen), *(thing.name for thing in extra.things))
    labels = torch.from_numpy(data.labels[chosen])
    return Lessons(
        tiles=models.pixels(np.concatenate([emoji10.tiles()[chosen], extra.tiles])),
        true=torch.from_numpy(phrases.true[chosen]),
        known=torch.from_numpy(phrases.known[chosen]),
        words=phrases.words,
        weights=labels.bincount().float().rsqrt()[labels],
        names=tuple(name.lower() for name in names),
        fixed=len(data.classes) + len(attributes),
        classes=len(data.classes),
    )


def _loss(
    model: Any, tokenizer: Tokenizer, bias: Tensor, lessons: Lessons, random: torch.Generator
) -> Tensor:
    inside, everything = len(lessons.true), len(lessons.names)
    own = torch.multinomial(lessons.weights, BATCH, replacement=True, generator=random)
    other = torch.randint(inside, everything, (OTHERS,), generator=random)
    asked = _asked(lessons, own, random)
    words = [lessons.words[k] for k in asked] + [lessons.names[k] for k in other]
    # One batch in four is as coarse as the classifier's images, so that those can be read too.
    size = 32 if torch.rand((), generator=random) < 0.25 else 64
    images = _encode_images(model, augment(lessons.tiles[torch.cat([own, other])], size, random))
    texts = functional.normalize(model.encode_text(tokenizer(_captions(words, random))), dim=-1)
    cosines = images @ texts.T
    n = len(asked)
    truth = _questions(cosines[:BATCH, :n], lessons, own, asked, bias)
    zero_shot = functional.cross_entropy(
        SCALE * cosines[:BATCH, : lessons.classes],
        lessons.true[own, : lessons.classes].float().argmax(dim=1),
        label_smoothing=0.1,
    )
    return truth + 0.5 * zero_shot + 0.3 * _matching(cosines[BATCH:, n:], words[n:])


def _asked(lessons: Lessons, own: Tensor, random: torch.Generator) -> Tensor:
    """Choose phrases: all classes and attributes, and some that are true of some image here."""
    possible = lessons.true[own, lessons.fixed :].any(dim=0).nonzero().flatten()
    order = torch.randperm(len(possible), generator=random)[:CAPTIONS]
    return torch.cat([torch.arange(lessons.fixed), possible[order] + lessons.fixed])


def _captions(words: list[str], random: torch.Generator) -> list[str]:
    drawn = torch.randint(len(TEMPLATES), (len(words),), generator=random)
    return [TEMPLATES[k].format(word) for k, word in zip(drawn.tolist(), words, strict=True)]


def _encode_images(model: Any, images: Tensor) -> Tensor:
    """Encode square images [n, 3, h, h] the way the model's own transform prepares them."""
    size = model.visual.image_size[0]
    large = functional.interpolate(images, size, mode="bicubic").clamp(0, 1)
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
    deviation = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)
    return functional.normalize(model.encode_image((large - mean) / deviation), dim=-1)


def _questions(
    cosines: Tensor, lessons: Lessons, own: Tensor, asked: Tensor, bias: Tensor
) -> Tensor:
    """Ask whether each caption is true of each image; one threshold serves all captions.

    Several captions are true of an image and several images share a caption, so this takes
    the place of CLIP's one-to-one softmax. Yes and no weigh the same for every caption.
    """
    true = lessons.true[own][:, asked].float()
    known = lessons.known[own][:, asked].float()
    losses = functional.binary_cross_entropy_with_logits(
        SCALE * cosines + bias, true, reduction="none"
    )
    yes, no = true * known, (1 - true) * known
    by_caption = [(losses * m).sum(0) / m.sum(0).clamp(min=1) for m in (yes, no)]
    return (by_caption[0] + by_caption[1]).mean()


def _matching(cosines: Tensor, words: list[str]) -> Tensor:
    """CLIP's symmetric loss on the other emojis; equal names share their target evenly."""
    same = torch.tensor([[a == b for b in words] for a in words]).float()
    target = same / same.sum(dim=1, keepdim=True)
    by_image = functional.cross_entropy(SCALE * cosines, target)
    by_text = functional.cross_entropy(SCALE * cosines.T, target)
    return (by_image + by_text) / 2
