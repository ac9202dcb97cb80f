"""Exact feed-forward networks: affine maps with ReLU between them, nothing else.

Every operator that the ONNX reader accepts is brought into this form without rounding: a leaky
ReLU is ``relu(x) − α·relu(−x)``, a clip ``l + relu(x − l) − relu(x − u)``. So each encoding
and each bound has one non-linearity to treat. What the file stores is the definition: float32
weights are rational numbers, and the network is the real-number function with exactly these.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.exact import (
    Vector,
    from_array,
    nearest,
    shortest,
    vector,
)


@dataclass(frozen=True, eq=False)
class Affine:
    """``x ↦ weight · x + bias``.

    Attributes:
        weight: [m, n], float64 when every entry is exactly a float64, else Fractions (object).
        bias: [m], likewise.
    """

    weight: NDArray[Any]
    bias: NDArray[Any]
    _rows: dict[int, tuple[Vector, Fraction]] = field(default_factory=dict, repr=False)

    @property
    def inputs(self) -> int:
        """Number of inputs n."""
        return int(self.weight.shape[1])

    @property
    def outputs(self) -> int:
        """Number of outputs m."""
        return int(self.weight.shape[0])

    def row(self, index: int) -> tuple[Vector, Fraction]:
        """Exact weights and bias of one output; made when first asked for, then kept."""
        if index not in self._rows:
            bias = self.bias[index]
            self._rows[index] = (from_array(self.weight[index]), Fraction(bias))
        return self._rows[index]

    @cached_property
    def floats(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight and bias, each entry the exact one rounded to the nearest float64."""
        return _rounded(self.weight), _rounded(self.bias)

    def exact(self, point: Vector) -> list[Fraction]:
        """The exact outputs at an exact point."""
        rows = (self.row(index) for index in range(self.outputs))
        return [weights.dot(point) + bias for weights, bias in rows]


@dataclass(frozen=True, eq=False)
class Network:
    """``affines[0]``, then ReLU, then ``affines[1]``, …; the last one makes the result."""

    affines: tuple[Affine, ...]

    def __post_init__(self) -> None:
        """Refuse layers that do not fit together."""
        if not self.affines:
            raise ValueError("a network has at least one affine layer")
        for first, second in zip(self.affines, self.affines[1:], strict=False):
            if first.outputs != second.inputs:
                raise ValueError(
                    f"a layer with {first.outputs} outputs meets one with {second.inputs} inputs"
                )

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return self.affines[0].inputs

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return self.affines[-1].outputs

    @property
    def is_affine(self) -> bool:
        """Whether there is no ReLU at all."""
        return len(self.affines) == 1

    def exact(self, point: Vector) -> list[Fraction]:
        """The exact outputs at an exact point."""
        values = self.affines[0].exact(point)
        for affine in self.affines[1:]:
            values = affine.exact(vector([max(value, Fraction(0)) for value in values]))
        return values

    def floats(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outputs [N, m] at points [N, n], in float64 without an error bound."""
        weight, bias = self.affines[0].floats
        values = points @ weight.T + bias
        for affine in self.affines[1:]:
            weight, bias = affine.floats
            values = np.maximum(values, 0.0) @ weight.T + bias
        return values


def affine(weight: NDArray[Any], bias: NDArray[Any]) -> Affine:
    """An affine map from exact entries, stored as float64 wherever that loses nothing."""
    return Affine(shortest(weight), shortest(bias))


def _rounded(values: NDArray[Any]) -> NDArray[np.float64]:
    """Each entry rounded to the nearest float64; infinite when out of range."""
    if values.dtype != object:
        return values.astype(np.float64)
    flat = [nearest(value.numerator, value.denominator) for value in values.ravel().tolist()]
    return np.array(flat, dtype=np.float64).reshape(values.shape)
