"""Rigorous bounds of every neuron of a ReLU head over a region of embeddings.

For an affine head there is nothing to bound. For the others there are two kinds. Interval
arithmetic completes the box of embeddings to a box of ``v = (z, y)`` on which every score is
affine; the certificate checker does the same in exact arithmetic, so what is proved on that box is
certified. Linear bounds (``linear_bounds.py``) are tighter behind the first hidden layer; they
serve the solvers' models, whose proofs are a solver's word anyway.
"""

from collections.abc import Sequence

import numpy as np

from conspec.encodings.linear_bounds import LayerBounds, linear_uppers, preactivations
from conspec.encodings.network import Affine, Network
from conspec.encodings.regions import ConvexRegion
from conspec.encodings.rounding import TINY, UNIT, Floats, row_bounds
from conspec.encodings.scores import ScoreSpace


def interval_bounds(network: Network, region: ConvexRegion) -> list[LayerBounds]:
    """Bounds of each hidden layer before its ReLU, by interval arithmetic layer by layer."""
    lower, upper = region.outer
    found = []
    for layer in network.affines[:-1]:
        bounds = _layer_bounds(layer, lower, upper)
        found.append(bounds)
        lower, upper = np.maximum(bounds.lower, 0.0), np.maximum(bounds.upper, 0.0)
    return found


def hidden_bounds(network: Network, region: ConvexRegion) -> list[LayerBounds]:
    """The same, with linear bounds where they are tighter."""
    lower, upper = region.outer
    found: list[LayerBounds] = []
    for layer in network.affines[:-1]:
        bounds = _layer_bounds(layer, lower, upper).within(
            _linear_bounds(network, region, found, layer)
        )
        found.append(bounds)
        lower, upper = np.maximum(bounds.lower, 0.0), np.maximum(bounds.upper, 0.0)
    return found


def _linear_bounds(
    network: Network, region: ConvexRegion, known: Sequence[LayerBounds], layer: Affine
) -> LayerBounds:
    """Bounds of the layer behind the known ones, from affine functions of the embedding."""
    everything = np.ones(layer.outputs, dtype=bool)
    values = preactivations(layer, everything, network.inputs, first=not known)
    high = linear_uppers(network, region, known, values).highest(region)
    low = linear_uppers(network, region, known, values.negated()).highest(region)
    return LayerBounds(-low, high)


def _layer_bounds(layer: Affine, lower: Floats, upper: Floats) -> LayerBounds:
    """Bounds of an affine layer's outputs over a box of its inputs."""
    weight, bias = layer.floats
    errors = (np.abs(weight) * UNIT + TINY, np.abs(bias) * UNIT + TINY)
    low, high = row_bounds(weight, bias, errors, lower[None], upper[None])
    return LayerBounds(low[0], high[0])


def extended_box(space: ScoreSpace, region: ConvexRegion) -> tuple[Floats, Floats]:
    """Float64 bounds of ``v = (z, y)``: the region, and the last hidden layer after its ReLU.

    By intervals, since the checker must find the same or better when it checks a certificate.
    """
    lower, upper = region.outer
    if space.head.is_affine:
        return lower, upper
    last = interval_bounds(space.head, region)[-1]
    return (
        np.concatenate([lower, np.maximum(last.lower, 0.0)]),
        np.concatenate([upper, np.maximum(last.upper, 0.0)]),
    )
