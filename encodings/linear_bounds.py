"""Rigorous linear bounds of a ReLU network: each neuron below an affine function of the embedding.

An unstable ReLU lies below the chord over its range and above any line through the origin with a
slope in [0, 1]. Put into each other from the last layer to the first, these give an affine upper
bound of any combination of neurons, and its maximum over the region is a bound of theirs. It knows
that two neurons depend on the same inputs, which intervals forget; in deep networks that decides.

Source: CROWN (Zhang et al., arXiv 1811.00866), DeepPoly (Singh et al., POPL 2019). Their rounding
errors are paid for here as in ``conspec.encodings.rounding``, so that the bounds are theorems.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from conspec.encodings.network import Affine, Network
from conspec.encodings.regions import ConvexRegion
from conspec.encodings.rounding import TINY, UNIT, Bools, Floats, gamma


@dataclass(frozen=True, eq=False)
class LayerBounds:
    """Bounds [m] of one layer's values before its ReLU."""

    lower: Floats
    upper: Floats

    @property
    def unstable(self) -> Bools:
        """Which neurons may have either sign: bool [m]."""
        both: Bools = (self.lower < 0) & (self.upper > 0)
        return both

    @property
    def reach(self) -> Floats:
        """Bounds of the absolute values before the ReLU."""
        found: Floats = np.maximum(np.abs(self.lower), np.abs(self.upper))
        return found

    def within(self, other: "LayerBounds") -> "LayerBounds":
        """Both bounds at once; a lower bound above the upper one means that nothing is left."""
        lower = np.maximum(self.lower, other.lower)
        return LayerBounds(lower, np.minimum(self.upper, other.upper))


@dataclass(frozen=True, eq=False)
class Combinations:
    """``on_hidden · y + on_region · z + constants``: y is a hidden layer after its ReLU.

    Every entry is an exact number rounded to the nearest float64.

    Attributes:
        on_hidden: [A, h]; h is 0 before the first hidden layer.
        on_region: [A, n].
        constants: [A].
    """

    on_hidden: Floats
    on_region: Floats
    constants: Floats

    def negated(self) -> "Combinations":
        """The same with the opposite sign."""
        return Combinations(-self.on_hidden, -self.on_region, -self.constants)


@dataclass(frozen=True, eq=False)
class Linear:
    """Functions that are at most ``rows · z + constants + slack`` on a region.

    Attributes:
        rows: [A, n], exact as they are.
        constants: [A].
        slack: [A], not negative; the rounding errors that were made.
    """

    rows: Floats
    constants: Floats
    slack: Floats

    def highest(self, region: ConvexRegion) -> Floats:
        """Rigorous upper bounds [A] of the functions on the region; infinite on overflow."""
        errors = (np.zeros_like(self.rows), self.slack)
        _, high = region.bounds(self.rows, self.constants, errors)
        return high


def preactivations(layer: Affine, chosen: Bools, size: int, *, first: bool) -> Combinations:
    """Some neurons of a layer before its ReLU, for embeddings of ``size`` dimensions.

    Args:
        layer: the layer.
        chosen: which of its neurons, bool [m].
        size: number of dimensions of the embedding.
        first: whether the layer reads the embedding, not another layer.
    """
    weight, bias = layer.floats
    weight = weight[chosen]
    if first:
        return Combinations(np.zeros((len(weight), 0)), weight, bias[chosen])
    return Combinations(weight, np.zeros((len(weight), size)), bias[chosen])


@np.errstate(over="ignore", invalid="ignore", under="ignore")
def linear_uppers(
    network: Network, region: ConvexRegion, known: Sequence[LayerBounds], wanted: Combinations
) -> Linear:
    """Affine upper bounds of combinations of the last known layer, for embeddings in the region.

    They hold for each z of the region whose neurons lie within the known bounds.

    Args:
        network: the head.
        region: where z lies.
        known: finite bounds of the hidden layers up to the one that is combined.
        wanted: the combinations.
    """
    lower, upper = region.outer
    reach = np.maximum(np.abs(lower), np.abs(upper))
    reaches = [reach, *(np.maximum(bounds.upper, 0.0) for bounds in known)]
    rows, constants = wanted.on_hidden, wanted.constants
    slack = np.abs(constants) * UNIT + TINY
    if known:
        slack = slack + (np.abs(rows) * UNIT + TINY) @ reaches[-1]
    terms = 64
    for depth in reversed(range(len(known))):
        layer, bounds, inputs = network.affines[depth], known[depth], reaches[depth]
        rows, moved, paid = _through_relu(rows, bounds)
        slack, constants = slack + paid, constants + moved
        slack = slack + 2.0 * UNIT * (np.abs(constants) + np.abs(moved)) + TINY
        rows, moved, paid = _through_layer(rows, layer, inputs)
        slack, constants = slack + paid, constants + moved
        slack = slack + 2.0 * UNIT * (np.abs(constants) + np.abs(moved)) + TINY
        terms += 4 * (layer.inputs + layer.outputs)
    own = wanted.on_region
    if known:
        slack = slack + (4.0 * UNIT * (np.abs(rows) + np.abs(own)) + 2.0 * TINY) @ reach
        rows = rows + own
    else:
        rows = own
        slack = slack + (np.abs(own) * UNIT + TINY) @ reach
    # All of these are sums of non-negative numbers, so their own rounding is relative.
    slack = slack * (1.0 + gamma(terms + 4 * len(reach))) + terms * TINY
    return Linear(rows, constants, slack)


def _through_relu(rows: Floats, bounds: LayerBounds) -> tuple[Floats, Floats, Floats]:
    """Rows over ``relu(a)`` as rows over a, with a constant and the errors [A] of both."""
    rising = rows > 0
    above, offset, below = _lines(bounds)
    moved = rows * np.where(rising, above, below)
    shift = np.where(rising, rows, 0.0) @ offset
    paid = (UNIT * np.abs(moved) + TINY) @ bounds.reach
    length = len(offset) + 4
    return moved, shift, paid + gamma(length) * shift + length * TINY


def _lines(bounds: LayerBounds) -> tuple[Floats, Floats, Floats]:
    """Slope and offset of a line above each ReLU, and the slope of one through 0 below it.

    Any slope in [0, 1] would do; its offset is then rounded up. ``relu(a) − s·a`` is convex, so
    it is largest at an end of the range.
    """
    low, high, unstable = bounds.lower, bounds.upper, bounds.unstable
    active = (low >= 0).astype(np.float64)
    chord = np.clip(high / np.where(unstable, high - low, 1.0), 0.0, 1.0)
    offset = np.maximum(-chord * low, (1.0 - chord) * high) * (1.0 + 8.0 * UNIT) + 4.0 * TINY
    above = np.where(unstable, chord, active)
    # The smaller triangle: the identity if more of the range is positive, else zero.
    below = np.where(unstable, (high > -low).astype(np.float64), active)
    return above, np.where(unstable, np.nextafter(offset, np.inf), 0.0), below


def _through_layer(rows: Floats, layer: Affine, inputs: Floats) -> tuple[Floats, Floats, Floats]:
    """Rows over ``W x + b`` as rows over x with ``|x| ≤ inputs``, with a constant and errors."""
    weight, bias = layer.floats
    sizes = np.abs(rows)
    length = layer.inputs + layer.outputs + 8
    reach = np.abs(weight) @ inputs + np.abs(bias)
    paid = gamma(length) * (sizes @ reach)
    # What vanishes below the normal numbers: entries of the weights, products, and sums of them.
    total = inputs.sum() + 1.0
    paid = paid + TINY * (sizes.sum(axis=1) + length) * total
    return rows @ weight, rows @ bias, paid
