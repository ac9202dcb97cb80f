"""A small vision transformer for Emoji-10, so that a CNN can be compared with one.

It is trained from scratch on the 998 training images, in about two minutes of one core, and is
not shipped. Few images make a weak transformer; what it gets right is said where it is used.
"""

import torch
from torch import nn

from conspec.lens import emoji10

_EPOCHS = 30
_BATCH = 50
_RATE = 1.5e-3
_SHIFT = 3  # pixels


class _Scaled(nn.Module):
    """Pixels in [0, 1] to [-1, 1], then the transformer."""

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.vit(2.0 * images - 1.0)
        return logits


def train_vit(seed: int = 0, epochs: int = _EPOCHS) -> nn.Module:
    """Train timm's smallest test ViT (6 blocks, width 64) on 4×4 patches of 32×32 images."""
    import timm

    found = emoji10.load_images()
    chosen = found.split == "train"
    images = torch.from_numpy(found.images[chosen]).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(found.labels[chosen])
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    shape = {"img_size": 32, "patch_size": 4, "num_classes": len(found.classes)}
    model = _Scaled(timm.create_model("test_vit", pretrained=False, **shape))
    optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=0.05)
    steps = epochs * (len(images) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=random)[: len(images) // _BATCH * _BATCH]
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            logits = model(_moved(images[rows], random))
            loss = nn.functional.cross_entropy(logits, labels[rows], label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            optimiser.step()
            schedule.step()
    return model.eval()


def _moved(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Half of the images mirrored, all of them shifted."""
    flip = torch.rand(len(images), generator=random) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    shift = torch.randint(-_SHIFT, _SHIFT + 1, (2,), generator=random).tolist()
    return torch.roll(images, shift, (2, 3))
