"""Exact symbolic tensors: every entry is an affine function of the inputs and the ReLU outputs.

The unknowns come in blocks: block 0 is the network's input, every ReLU adds one. A tensor
keeps, for each block it depends on, one linear term; a constant has none. At the end `layered`
brings what the output depends on into affine maps with ReLU between them. A value that a later
layer needs is carried through the ReLUs in between: outputs of a ReLU unchanged, as
``relu(h) = h``, and inputs as ``x = relu(x) − relu(−x)``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from operator import mul
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.exact import (
    array_product,
    array_sum,
    joined,
    matrix_product,
    rational,
)
from conspec.encodings.network import Affine, Network, affine

MOST_ENTRIES = 10**8  # numbers in one constant or one matrix
MOST_NEURONS = 10**6  # entries of a tensor that depends on the input
INPUT = 0

Shape = tuple[int, ...]
Indices = NDArray[np.int64]
Move = Callable[[NDArray[Any]], NDArray[Any]]  # a rearrangement, whatever the entries are
Exact = NDArray[Any]  # float64, or Fractions in an array of objects


@dataclass(frozen=True, slots=True, eq=False)
class Picks:
    """The linear map with one entry a row: ``y[i] = factors[i] · x[columns[i]]``."""

    columns: Indices
    factors: Exact
    width: int

    def dense(self) -> Exact:
        """The matrix [rows, width]."""
        rows = len(self.columns)
        result = _blank((rows, self.width), self.factors)
        result[np.arange(rows), self.columns] = self.factors
        return result

    def take(self, rows: Indices) -> "Picks":
        """The given rows."""
        return Picks(self.columns[rows], self.factors[rows], self.width)

    def scaled(self, factors: Exact) -> "Picks":
        """Every row times its factor."""
        return Picks(self.columns, array_product(self.factors, factors), self.width)

    def under(self, matrix: Exact) -> "Full":
        """``matrix · self``."""
        if len(np.unique(self.columns)) < len(self.columns):
            return Full(matrix_product(matrix, self.dense()))
        if not np.all(self.factors == 1):
            matrix = array_product(matrix, self.factors[None, :])
        if np.array_equal(self.columns, np.arange(self.width)):
            return Full(matrix)
        result = _blank((matrix.shape[0], self.width), matrix)
        result[:, self.columns] = matrix
        return Full(result)


@dataclass(frozen=True, slots=True, eq=False)
class Full:
    """The linear map with a matrix [rows, width]."""

    matrix: Exact

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(self.matrix.shape[1])

    def dense(self) -> Exact:
        """The matrix."""
        return self.matrix

    def take(self, rows: Indices) -> "Full":
        """The given rows."""
        check_entries(len(rows) * self.width)
        return Full(self.matrix[rows])

    def scaled(self, factors: Exact) -> "Full":
        """Every row times its factor."""
        return Full(array_product(self.matrix, factors[:, None]))

    def under(self, matrix: Exact) -> "Full":
        """``matrix · self``."""
        return Full(matrix_product(matrix, self.matrix))


Term = Picks | Full


def check_entries(count: int) -> None:
    """Refuse to make an array that is absurdly large."""
    if count > MOST_ENTRIES:
        raise ValueError(f"an array of {count} numbers is larger than the limit {MOST_ENTRIES}")


def _blank(shape: Shape, like: Exact) -> Exact:
    """Zeros, rational if ``like`` is."""
    check_entries(prod(shape))
    zeros = np.zeros(shape)
    return rational(zeros) if like.dtype == object else zeros


def _added(first: Term, second: Term) -> Term:
    """The sum of two linear maps."""
    match first, second:
        case Picks(), Picks() if np.array_equal(first.columns, second.columns):
            factors = array_sum(first.factors, second.factors)
            return Picks(first.columns, factors, first.width)
    return Full(array_sum(first.dense(), second.dense()))


def _stacked(terms: Sequence[Term]) -> Term:
    """The linear maps one below the other."""
    picks = [term for term in terms if isinstance(term, Picks)]
    if len(picks) == len(terms):
        columns = np.concatenate([term.columns for term in picks])
        return Picks(columns, joined([term.factors for term in picks]), picks[0].width)
    return Full(joined([term.dense() for term in terms]))


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """``Σ terms[b] · block b + bias``, in a shape.

    Attributes:
        shape: the tensor's shape, for one image.
        bias: [size], row-major.
        terms: the linear term of each block the tensor depends on; empty for a constant.
        kind: the ONNX element type, FLOAT or DOUBLE.
    """

    shape: Shape
    bias: Exact
    terms: Mapping[int, Term]
    kind: int

    def __post_init__(self) -> None:
        """Refuse empty tensors and absurdly large ones."""
        if not self.size:
            raise ValueError(f"a tensor of shape {list(self.shape)} is empty")
        limit = MOST_NEURONS if self.terms else MOST_ENTRIES
        if self.size > limit:
            raise ValueError(f"a tensor of {self.size} entries is larger than the limit {limit}")

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)

    @property
    def stored(self) -> int:
        """How many numbers are kept."""
        terms = self.terms.values()
        return self.size + sum(t.matrix.size for t in terms if isinstance(t, Full))

    @property
    def array(self) -> Exact:
        """A constant's values in their shape."""
        return self.bias.reshape(self.shape)

    def rearranged(self, move: Move) -> "Tensor":
        """The entries where ``move`` takes an array of their positions."""
        if not self.terms:
            return constant(move(self.array), self.kind)
        places = move(np.arange(self.size).reshape(self.shape))
        flat = places.ravel()
        if np.array_equal(flat, np.arange(self.size)):
            return Tensor(places.shape, self.bias, self.terms, self.kind)
        terms = {block: term.take(flat) for block, term in self.terms.items()}
        return Tensor(places.shape, self.bias[flat], terms, self.kind)

    def broadcast(self, shape: Shape) -> "Tensor":
        """The tensor repeated to a larger shape."""
        check_entries(prod(shape))
        return self.rearranged(lambda places: np.broadcast_to(places, shape))

    def scaled(self, factors: Exact) -> "Tensor":
        """Every entry times its factor, [size]."""
        terms = {block: term.scaled(factors) for block, term in self.terms.items()}
        return Tensor(self.shape, array_product(self.bias, factors), terms, self.kind)

    def times(self, factor: Exact) -> "Tensor":
        """Every entry times one number, an array of shape ()."""
        return self.scaled(np.broadcast_to(factor, (self.size,)))

    def plus(self, other: "Tensor") -> "Tensor":
        """The sum of two tensors of one shape."""
        terms = dict(self.terms)
        for block, term in other.terms.items():
            terms[block] = _added(terms[block], term) if block in terms else term
        return Tensor(self.shape, array_sum(self.bias, other.bias), terms, self.kind)

    def times_matrix(self, matrix: Exact) -> "Tensor":
        """``self · matrix`` for a tensor [..., k] and a matrix [k, m]."""
        k, m = matrix.shape
        if not self.shape or self.shape[-1] != k:
            raise ValueError(f"shapes {list(self.shape)} and {[k, m]} do not multiply")
        count = self.size // k
        check_entries(count * m)
        bias = matrix_product(self.bias.reshape(count, k), matrix).ravel()
        terms: dict[int, Term] = {}
        for block, term in self.terms.items():
            check_entries(count * m * term.width)
            rows = [np.arange(i * k, (i + 1) * k) for i in range(count)]
            parts = [term.take(row) if count > 1 else term for row in rows]
            terms[block] = _stacked([part.under(matrix.T) for part in parts])
        return Tensor((*self.shape[:-1], m), bias, terms, self.kind)


def constant(values: Exact, kind: int) -> Tensor:
    """A tensor that does not depend on the input."""
    return Tensor(values.shape, values.ravel(), {}, kind)


def block_tensor(block: int, shape: Shape, kind: int) -> Tensor:
    """The unknowns of one block, in a shape."""
    size = prod(shape)
    if size > MOST_NEURONS:
        raise ValueError(f"a tensor of {size} entries is larger than the limit {MOST_NEURONS}")
    term = Picks(np.arange(size), np.ones(size), size)
    return Tensor(shape, np.zeros(size), {block: term}, kind)


def concatenated(parts: Sequence[Tensor]) -> Tensor:
    """The entries of all parts as one tensor of one dimension."""
    widths = {block: term.width for part in parts for block, term in part.terms.items()}
    terms = {
        block: _stacked([part.terms.get(block, _nothing(part.size, width)) for part in parts])
        for block, width in widths.items()
    }
    bias = joined([part.bias for part in parts])
    return Tensor(bias.shape, bias, terms, parts[0].kind)


def _nothing(rows: int, width: int) -> Picks:
    """The zero map."""
    return Picks(np.zeros(rows, dtype=np.int64), np.zeros(rows), width)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Unknowns: the input (level 0), or the ReLU of ``before`` (above all that it uses)."""

    level: int
    size: int
    before: Tensor | None


class Blocks:
    """All unknowns of a graph; block 0 is the input."""

    def __init__(self, inputs: int) -> None:
        """Start with the input."""
        self.blocks = [Block(0, inputs, None)]

    def level(self, tensor: Tensor) -> int:
        """The number of ReLUs below a tensor, one behind the other."""
        return max((self.blocks[block].level for block in tensor.terms), default=0)

    def relu(self, tensor: Tensor) -> Tensor:
        """``max(tensor, 0)``: a new block, unless the tensor is a constant."""
        if not tensor.terms:
            values = tensor.bias.copy()
            values[tensor.bias <= 0] = Fraction(0)
            return Tensor(tensor.shape, values, {}, tensor.kind)
        self.blocks.append(Block(self.level(tensor) + 1, tensor.size, tensor))
        return block_tensor(len(self.blocks) - 1, tensor.shape, tensor.kind)

    def layered(self, output: Tensor) -> Network:
        """The network that computes ``output``, with what it does not need left out."""
        depth = self.level(output)
        stages: list[list[int]] = [[] for _ in range(depth + 1)]
        for block, last in self._last_uses(output, depth).items():
            for stage in range(self.blocks[block].level, last + 1):
                stages[stage].append(block)
        widths = [self._width(blocks, stage) for stage, blocks in enumerate(stages)]
        check_entries(sum(map(mul, widths, [*widths[1:], output.size])))
        layers = []
        for stage, blocks in enumerate(stages):
            following = [output] if stage == depth else self._targets(stages[stage + 1], stage)
            layers.append(self._layer(concatenated(following), blocks, stage))
        return Network(tuple(layers))

    def _width(self, blocks: Sequence[int], stage: int) -> int:
        """Number of values at a stage; the input counts twice once it is carried."""
        twice = self.blocks[INPUT].size if INPUT in blocks and stage > 0 else 0
        return sum(self.blocks[number].size for number in blocks) + twice

    def _last_uses(self, output: Tensor, depth: int) -> dict[int, int]:
        """The last stage at which each needed block is used, in the blocks' order."""
        until = dict.fromkeys(output.terms, depth)
        for number in range(len(self.blocks) - 1, 0, -1):
            before = self.blocks[number].before
            if number in until and before is not None:
                for block in before.terms:
                    until[block] = max(until.get(block, 0), self.blocks[number].level - 1)
        until.setdefault(INPUT, 0)
        return dict(sorted(until.items()))

    def _targets(self, blocks: Sequence[int], stage: int) -> list[Tensor]:
        """What must be made from the values at ``stage``, so that its ReLU gives ``blocks``."""
        targets = []
        for number in blocks:
            block = self.blocks[number]
            carried = block_tensor(number, (block.size,), 0)
            if block.before is not None and block.level == stage + 1:
                targets.append(block.before)
            elif number == INPUT:
                targets += [carried, carried.times(np.array(-1.0))]
            else:
                targets.append(carried)
        return targets

    def _layer(self, target: Tensor, blocks: Sequence[int], stage: int) -> Affine:
        """The affine map from the values of ``blocks`` to ``target``."""
        parts = []
        for number in blocks:
            size = self.blocks[number].size
            part = target.terms.get(number, _nothing(target.size, size)).dense()
            parts.append(part)
            if number == INPUT and stage > 0:
                parts.append(array_product(part, np.array(-1.0)))
        weight = parts[0] if len(parts) == 1 else joined(parts, axis=1)
        return affine(np.ascontiguousarray(weight), target.bias)
