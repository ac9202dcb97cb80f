"""The Emoji-10 classifier's architecture: a small residual ReLU network with an affine head."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

#: Size of the embedding between encoder and head.
EMBEDDING = 64


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut; halves the resolution when `stride` is 2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Make a block from `inputs` to `outputs` channels."""
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch of feature maps [n, inputs, h, w] to [n, outputs, h/stride, w/stride]."""
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


class EmojiNet(nn.Module):
    """Classifier of 32×32 RGB images in [0, 1] into the ten Emoji-10 classes.

    The encoder's last step is a ReLU, so every embedding is non-negative.

    Attributes:
        encoder: Images [n, 3, 32, 32] to embeddings [n, 64].
        head: The affine map from embeddings to the ten logits.
    """

    def __init__(self, classes: int = 10, width: int = 32) -> None:
        """Make an untrained network."""
        super().__init__()
        self.encoder = nn.Sequential(
            Standardise(),
            nn.Conv2d(3, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            Block(width, width, 2),
            Block(width, 2 * width, 2),
            Block(2 * width, 4 * width, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * width, EMBEDDING),
            nn.ReLU(),
        )
        self.head = nn.Linear(EMBEDDING, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [n, classes] of images [n, 3, 32, 32]."""
        logits: Tensor = self.head(self.encoder(images))
        return logits


class Standardise(nn.Module):
    """Maps pixels from [0, 1] to [-1, 1], so that callers need no mean and deviation."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the images on the scale the convolutions were trained on."""
        return 2.0 * images - 1.0


def load(path: Path) -> EmojiNet:
    """Read a trained network from a safetensors file; it comes back in evaluation mode."""
    from safetensors.torch import load_file

    net = EmojiNet()
    net.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return net.eval()


def pixels(images: NDArray[np.uint8]) -> Tensor:
    """Turn uint8 images [n, h, w, 3] into float images [n, 3, h, w] in [0, 1]."""
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 255.0
