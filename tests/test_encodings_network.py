from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conspec.encodings.exact import from_array, objects
from conspec.encodings.network import Affine, Network, affine

SMALL = st.integers(-8, 8).map(lambda value: value / 4)


def random_affine(data: st.DataObject, inputs: int, outputs: int) -> Affine:
    entries = data.draw(
        st.lists(SMALL, min_size=outputs * (inputs + 1), max_size=outputs * (inputs + 1))
    )
    values = np.array(entries).reshape(outputs, inputs + 1)
    return affine(values[:, :-1], values[:, -1])


@given(st.data())
def test_exact_and_floats_agree(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    layers = [random_affine(data, n, m) for n, m in pairwise(sizes)]
    network = Network(tuple(layers))
    point = np.array(data.draw(st.lists(SMALL, min_size=sizes[0], max_size=sizes[0])))
    exactly = network.exact(from_array(point))
    assert [float(value) for value in exactly] == network.floats(point[None])[0].tolist()
    assert (network.inputs, network.outputs) == (sizes[0], sizes[-1])
    assert network.is_affine == (len(sizes) == 2)


def test_rows_are_kept() -> None:
    layer = Affine(np.array([[0.5, 2.0]]), np.array([0.25]))
    weights, bias = layer.row(0)
    assert (weights.fractions(), bias) == ([Fraction(1, 2), Fraction(2)], Fraction(1, 4))
    assert layer.row(0)[0] is weights


def test_affine_prefers_floats() -> None:
    halves = affine(objects([Fraction(1, 2)], (1, 1)), objects([Fraction(3)], (1,)))
    assert halves.weight.dtype == halves.bias.dtype == np.float64
    thirds = affine(objects([Fraction(1, 3)], (1, 1)), objects([Fraction(10**400)], (1,)))
    assert thirds.weight.dtype == thirds.bias.dtype == object
    assert thirds.floats[0][0, 0] == 1 / 3
    assert thirds.floats[1][0] == np.inf


def test_layers_must_fit() -> None:
    with pytest.raises(ValueError, match="at least one affine layer"):
        Network(())
    layer = affine(np.ones((2, 3)), np.zeros(2))
    with pytest.raises(ValueError, match="2 outputs meets one with 3 inputs"):
        Network((layer, layer))
