"""The CIFAR-10 classifiers built in: small residual nets, some with a ReLU head.

``resnet20``, ``resnet32``, ``resnet56``: He et al. (2016), section 4.2, with the parameter-free
shortcut (option A). ``resnet2b``, ``resnet4b``: the adversarially trained nets of the
alpha-beta-CROWN benchmarks: no batch norm, biases everywhere, and a head of two linear layers.
The modules carry the names of the published weights.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conspec.lens.preprocess import Preprocess

PLAIN = Preprocess(32, 32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
ROBUST = Preprocess(32, 32, (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))


class _PlainBlock(nn.Module):
    """Two 3×3 convolutions with batch norm; the shortcut subsamples and pads with zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.padding = stride, (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = F.pad(shortcut, (0, 0, 0, 0, self.padding, self.padding))
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + shortcut)


class PlainResNet(nn.Module):
    """He et al.'s ResNet for CIFAR: three stages of blocks, 64 features."""

    def __init__(self, depth: int) -> None:
        """Random weights; each stage has ``depth`` blocks."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(_PlainBlock, (16, 16), depth, 1)
        self.layer2 = _stage(_PlainBlock, (16, 32), depth, 2)
        self.layer3 = _stage(_PlainBlock, (32, 64), depth, 2)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, 10] of normalised pictures [B, 3, 32, 32]."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.layer3(self.layer2(self.layer1(y)))
        logits: Tensor = self.linear(y.mean(dim=(2, 3)))
        return logits


class _RobustBlock(nn.Module):
    """Two 3×3 convolutions with biases; the shortcut is a 1×1 convolution or nothing."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        return F.relu(y + self.shortcut(x))


class RobustResNet(nn.Module):
    """A small ResNet without batch norm; each of its stages halves the picture."""

    def __init__(self, width: int, stages: int) -> None:
        """Random weights; ``width`` channels after the first layer, 1 or 2 ``stages``."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.layer1 = _stage(_RobustBlock, (width, 2 * width), 2, 2)
        self.layer2 = nn.Sequential()
        if stages == 2:
            self.layer2 = _stage(_RobustBlock, (2 * width, 2 * width), 2, 2)
        side = 16 // 2**stages
        self.linear1 = nn.Linear(2 * width * side * side, 100)
        self.relu = nn.ReLU()
        self.linear2 = nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, 10] of normalised pictures [B, 3, 32, 32]."""
        y = self.layer2(self.layer1(F.relu(self.conv1(x))))
        logits: Tensor = self.linear2(self.relu(self.linear1(torch.flatten(y, 1))))
        return logits


def _stage(
    block: Callable[[int, int, int], nn.Module],
    widths: tuple[int, int],
    depth: int,
    stride: int,
) -> nn.Sequential:
    inputs, outputs = widths
    rest = [block(outputs, outputs, 1) for _ in range(depth - 1)]
    return nn.Sequential(block(inputs, outputs, stride), *rest)


ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], Preprocess, str]] = {
    "resnet20": (lambda: PlainResNet(3), PLAIN, "linear"),
    "resnet32": (lambda: PlainResNet(5), PLAIN, "linear"),
    "resnet56": (lambda: PlainResNet(9), PLAIN, "linear"),
    "resnet2b": (lambda: RobustResNet(8, 1), ROBUST, "linear1"),
    "resnet4b": (lambda: RobustResNet(16, 2), ROBUST, "linear1"),
}
"""Name → how to make it, its preprocessing, and the module its head starts from."""
