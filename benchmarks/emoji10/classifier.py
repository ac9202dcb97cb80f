"""Trains the Emoji-10 classifier on the families that are not held out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from conspec.benchmarks.emoji10.augment import augment
from conspec.benchmarks.emoji10.render import Others
from conspec.lens import emoji10
from conspec.lens.emoji10 import models

SEED = 10
STEPS = 2200
BATCH = 64
OTHERS = 32
RATE = 3e-3


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """Everything the network practises on, images of the ten classes first.

    Attributes:
        tiles: float [N, 4, 64, 64] in [0, 1], RGBA.
        labels: int64 [N0], the class of each of the first N0 tiles.
        things: int64 [N], which emoji each tile shows.
        weights: float [N0], how often each image of the ten classes is drawn.
    """

    tiles: Tensor
    labels: Tensor
    things: Tensor
    weights: Tensor


def train(target: Path, extra: Others, steps: int = STEPS) -> None:
    """Train an `EmojiNet` and write `classifier.safetensors` into `target`.

    A second head, dropped afterwards, tells all emojis of the packages apart, also those
    outside the ten classes. It keeps in the embedding what the ten labels alone would let go.
    """
    torch.manual_seed(SEED)
    random = torch.Generator().manual_seed(SEED)
    lessons = _lessons(extra)
    net = models.EmojiNet()
    names = nn.Linear(models.EMBEDDING, int(lessons.things.max()) + 1)
    parameters = [*net.parameters(), *names.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(steps):
        loss = _loss(net, names, lessons, random)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        optimiser.step()
        schedule.step()
    save_file(net.state_dict(), target / "classifier.safetensors")


def _lessons(extra: Others) -> Lessons:
    data = emoji10.load_images()
    chosen = np.flatnonzero(data.split == "train")
    labels = torch.from_numpy(data.labels[chosen])
    shown = [data.names[k] for k in chosen] + [thing.name for thing in extra.things]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(shown))}
    return Lessons(
        tiles=models.pixels(np.concatenate([emoji10.tiles()[chosen], extra.tiles])),
        labels=labels,
        things=torch.tensor([numbers[name] for name in shown]),
        # The square root keeps mammals from drowning boats without drawing boats all the time.
        weights=labels.bincount().float().rsqrt()[labels],
    )


def _loss(
    net: models.EmojiNet, names: nn.Linear, lessons: Lessons, random: torch.Generator
) -> Tensor:
    inside, everything = len(lessons.labels), len(lessons.things)
    own = torch.multinomial(lessons.weights, BATCH, replacement=True, generator=random)
    other = torch.randint(inside, everything, (OTHERS,), generator=random)
    batch = torch.cat([own, other])
    z = net.encoder(augment(lessons.tiles[batch], 32, random))
    by_class = functional.cross_entropy(
        net.head(z[:BATCH]), lessons.labels[own], label_smoothing=0.1
    )
    by_thing = functional.cross_entropy(names(z), lessons.things[batch], label_smoothing=0.1)
    return by_class + 0.5 * by_thing


def predict(net: models.EmojiNet, data: emoji10.EmojiImages) -> Tensor:
    """Return the predicted label of every image, [N]."""
    with torch.inference_mode():
        labels: Tensor = net(models.pixels(data.images)).argmax(dim=1)
    return labels
