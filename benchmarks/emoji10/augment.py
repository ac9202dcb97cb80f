"""Random variations of tiles: place, size, mirror image, colours, background, cover."""

import torch
from torch import Tensor
from torch.nn import functional


def augment(tiles: Tensor, size: int, random: torch.Generator) -> Tensor:
    """Vary RGBA tiles [n, 4, h, w] in [0, 1] and lay them on a background: [n, 3, size, size].

    Half of the backgrounds stay white, because that is what the shipped images have.
    """
    moved = _move(_premultiplied(tiles), size, random)
    colour, alpha = _recolour(moved[:, :3], random), moved[:, 3:]
    n = len(tiles)
    background = torch.rand(n, 3, 1, 1, generator=random)
    white = torch.rand(n, 1, 1, 1, generator=random) < 0.5
    background = torch.where(white, torch.ones(()), background)
    # Brightness may have pushed a premultiplied colour above its own coverage.
    images = torch.minimum(colour, alpha) + (1 - alpha) * background
    return _cover(_fade(images, random), random)


def _premultiplied(tiles: Tensor) -> Tensor:
    return torch.cat([tiles[:, :3] * tiles[:, 3:], tiles[:, 3:]], dim=1)


def _move(tiles: Tensor, size: int, random: torch.Generator) -> Tensor:
    n = len(tiles)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=random) * (high - low) + low

    angle, scale = uniform(-0.3, 0.3), uniform(0.85, 1.3)
    stretch, mirror = uniform(0.85, 1.18), (uniform(0, 1) < 0.5).float() * 2 - 1
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = (
        torch.stack([cos * mirror * stretch, -sin, uniform(-0.2, 0.2)], dim=1),
        torch.stack([sin * mirror * stretch, cos, uniform(-0.2, 0.2)], dim=1),
    )
    grid = functional.affine_grid(torch.stack(rows, dim=1), [n, 4, size, size], False)
    # Tiles have twice the model's resolution: averaging first keeps thin lines from flickering.
    smooth = functional.avg_pool2d(tiles, tiles.shape[-1] // size)
    return functional.grid_sample(smooth, grid, align_corners=False)


def _recolour(colour: Tensor, random: torch.Generator) -> Tensor:
    """Turn the hue by a random angle and change saturation, contrast and brightness."""
    n = len(colour)
    angle = torch.randn(n, 1, 1, generator=random) * 0.5
    grey = torch.full((1, 3, 3), 1 / 3)
    axis = torch.tensor([[[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]]) / 3**0.5
    saturation = 1 + 0.3 * torch.randn(n, 1, 1, generator=random)
    hue = torch.cos(angle) * (torch.eye(3) - grey) + torch.sin(angle) * axis
    gain = 1 + 0.15 * torch.randn(n, 1, 1, generator=random)
    turned = torch.einsum("nij,njhw->nihw", gain * (grey + saturation * hue), colour)
    return turned.clamp(0, 1)


def _fade(images: Tensor, random: torch.Generator) -> Tensor:
    """Take the colour from three images in ten: houses agree on shapes, not on colours."""
    grey = torch.rand(len(images), 1, 1, 1, generator=random) < 0.3
    return torch.where(grey, images.mean(dim=1, keepdim=True), images)


def _cover(images: Tensor, random: torch.Generator) -> Tensor:
    """Cover a random third of each side with a square of one colour."""
    n, size = len(images), images.shape[-1]
    centre = torch.randint(size, (2, n, 1), generator=random)
    rows, columns = (torch.arange(size) - centre).abs() <= size // 6
    covered = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(covered, torch.rand(n, 3, 1, 1, generator=random), images)
