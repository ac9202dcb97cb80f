"""Rigorous bounds of every neuron of a ReLU head over a box of embeddings.

For an affine head there is nothing to bound. For the others the bounds of the last hidden layer
complete the box of embeddings to a box of ``v = (z, y)`` on which every score is affine.
"""

from dataclasses import dataclass

import numpy as np

from conspec.encodings.network import Affine, Network
from conspec.encodings.regions import ConvexRegion
from conspec.encodings.rounding import TINY, UNIT, Floats, row_bounds
from conspec.encodings.scores import ScoreSpace


@dataclass(frozen=True, eq=False)
class LayerBounds:
    """Bounds [m] of one layer's values before its ReLU."""

    lower: Floats
    upper: Floats


def hidden_bounds(network: Network, region: ConvexRegion) -> list[LayerBounds]:
    """Bounds of each hidden layer before its ReLU, by interval arithmetic layer by layer."""
    lower, upper = region.outer
    found = []
    for layer in network.affines[:-1]:
        low, high = _layer_bounds(layer, lower, upper)
        found.append(LayerBounds(low, high))
        lower, upper = np.maximum(low, 0.0), np.maximum(high, 0.0)
    return found


def _layer_bounds(layer: Affine, lower: Floats, upper: Floats) -> tuple[Floats, Floats]:
    """Bounds of an affine layer's outputs over a box of its inputs."""
    weight, bias = layer.floats
    errors = (np.abs(weight) * UNIT + TINY, np.abs(bias) * UNIT + TINY)
    low, high = row_bounds(weight, bias, errors, lower[None], upper[None])
    return low[0], high[0]


def extended_box(space: ScoreSpace, region: ConvexRegion) -> tuple[Floats, Floats]:
    """Float64 bounds of ``v = (z, y)``: the region, and the last hidden layer after its ReLU."""
    lower, upper = region.outer
    if space.head.is_affine:
        return lower, upper
    last = hidden_bounds(space.head, region)[-1]
    return (
        np.concatenate([lower, np.maximum(last.lower, 0.0)]),
        np.concatenate([upper, np.maximum(last.upper, 0.0)]),
    )
