"""Support functions of a region for many rows at once, in torch on any device.

The maximum of ``row · z`` over a region, for a batch of rows, with a parameter vector that attains
it and a rigorous bound of the rounding error (``conspec.encodings.rounding``). float32 and float64
both give theorems; the bound is only wider in float32.

A region cut by half-spaces has no closed form. The values for its uncut base are upper bounds of
its own, and their maximisers may be cut away; the lemma engine and the solvers handle cuts.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from conspec.encodings.exact import nearest
from conspec.encodings.images import Image, Shape
from conspec.encodings.regions import Box, ConvexRegion
from conspec.encodings.rounding import Floats, full_precision, gamma
from conspec.specs.errors import BadUsage

Tensor = Any  # torch.Tensor; torch is imported when first used


@dataclass(frozen=True, eq=False)
class Supports:
    """Maxima of A rows over one region.

    Attributes:
        values: [A].
        errors: [A], bound of ``|values − exact maxima|``; infinite where arithmetic overflows.
        parameters: [A, k], parameters t of T that attain the maxima, up to rounding.
        points: [A, n], the same as embeddings, without an error bound.
    """

    values: Tensor
    errors: Tensor
    parameters: Tensor
    points: Tensor


def support(region: ConvexRegion, rows: Tensor) -> Supports:
    """The maxima of ``row · z`` over the region, and where they are.

    Args:
        region: not empty.
        rows: float32 or float64 [A, n], taken as exact numbers; results have its type and device.

    Raises:
        BadUsage: rows of another type or length.
    """
    import torch

    if rows.dtype not in (torch.float32, torch.float64):
        raise BadUsage(f"rows of type {rows.dtype}: support() needs float32 or float64")
    if rows.ndim != 2 or rows.shape[1] != region.dimension:
        raise BadUsage(f"rows of shape {tuple(rows.shape)} for {region.dimension} dimensions")
    with torch.no_grad(), full_precision():
        found = _of_box(region, rows) if isinstance(region, Box) else _of_image(region, rows)
    finite = torch.isfinite(found.values) & torch.isfinite(found.errors)
    errors = torch.where(finite, found.errors, torch.inf)
    return Supports(found.values, errors, found.parameters, found.points)


def _like(values: Floats, rows: Tensor) -> Tensor:
    """Numbers of numpy, rounded to the rows' type, on their device."""
    with np.errstate(over="ignore", under="ignore"):
        return rows.new_tensor(values)


def _widened(error: Tensor, length: int, limits: tuple[float, float]) -> Tensor:
    """An error term that also covers its own rounding."""
    unit, tiny = limits
    return error * (1.0 + gamma(2 * length, unit)) + length * tiny


def _limits(rows: Tensor) -> tuple[float, float]:
    """Unit roundoff and smallest normal number of the rows' type."""
    import torch

    info = torch.finfo(rows.dtype)
    return info.eps / 2.0, info.tiny


def _of_box(region: Box, rows: Tensor) -> Supports:
    """Upper bounds where the row is positive, lower bounds where it is not."""
    import torch

    lower, upper = (_like(side.floats(), rows) for side in (region.lower, region.upper))
    unit, tiny = limits = _limits(rows)
    length = 2 * region.dimension + 8
    up, down = rows.clip(min=0.0), rows.clip(max=0.0)
    values = up @ upper + down @ lower
    # A bound is off by its rounding, or by `tiny` below the normal numbers.
    sizes = rows.abs()
    reach = up @ upper.abs() - down @ lower.abs()
    error = gamma(length, unit) * reach + tiny * sizes.sum(dim=1)
    ones = rows.new_ones(())
    return Supports(
        values,
        _widened(error, length, limits),
        torch.where(rows > 0, ones, -ones),
        torch.where(rows > 0, upper, lower),
    )


def _of_image(region: Image, rows: Tensor) -> Supports:
    """Closed forms in the parameters, after the rows are pulled back to them."""
    limits = _limits(rows)
    unit, tiny = limits
    generators = _like(region.generators, rows)
    center = _like(region.center.floats(), rows)
    scale = _like(np.array(nearest(*region.scale.as_integer_ratio())), rows)
    length = region.dimension + 8
    pulled = rows @ generators * scale
    sizes = rows.abs()
    total = sizes.sum(dim=1)
    # Entries, scale and centre are rounded once each; below the normal numbers they are off by
    # `tiny`, times what they are multiplied with.
    largest = generators.abs().max()
    off = gamma(length, unit) * (sizes @ generators.abs() * scale)
    off = off + tiny * total[:, None] * (1.0 + largest + scale)
    off = off + length * tiny * (1.0 + scale)
    parameters, reach, reached = _on_shape(region.shape, pulled, off, limits)
    moved = rows @ center
    shift = gamma(length, unit) * (sizes @ center.abs()) + tiny * total
    values = moved + reach
    error = shift + reached + 2 * unit * (moved.abs() + reach.abs())
    points = center + scale * (parameters @ generators.T)
    return Supports(values, _widened(error, 2 * length, limits), parameters, points)


def _on_shape(
    shape: Shape, pulled: Tensor, off: Tensor, limits: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Maximisers [A, k] and maxima [A] of rows over T, and bounds [A] of the maxima's errors.

    Args:
        shape: T.
        pulled: rows [A, k].
        off: bounds [A, k] of their errors.
        limits: unit roundoff and smallest normal number.
    """
    import torch

    unit, tiny = limits
    count = pulled.shape[1]
    slack = gamma(count + 8, unit)
    match shape:
        case Shape.CUBE:
            signs = (pulled > 0).to(pulled.dtype) * 2 - 1
            reach = pulled.abs().sum(dim=1)
            return signs, reach, off.sum(dim=1) * (1 + slack) + slack * reach
        case Shape.SIMPLEX:
            reach, places = pulled.max(dim=1)
            vertices = torch.zeros_like(pulled).scatter_(1, places[:, None], 1.0)
            return vertices, reach, off.max(dim=1).values
        case Shape.BALL:
            # Over the largest entry, so that squares neither vanish nor overflow.
            largest = pulled.abs().amax(dim=1).clamp(min=tiny)
            shares = pulled / largest[:, None]
            norm = (shares * shares).sum(dim=1).sqrt()
            reach = largest * norm
            # | ‖exact‖ − ‖pulled‖ | ≤ ‖off‖ ≤ the sum, which is never less than the norm.
            widest = off.amax(dim=1)
            spread = torch.minimum(off.sum(dim=1), widest * (float(count) ** 0.5 * (1 + slack)))
            error = spread * (1 + slack) + slack * reach + count * tiny
            return shares / norm.clamp(min=1.0)[:, None], reach, error
