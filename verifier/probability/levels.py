"""Truth of a compiled suite on many embeddings in one format, and what rounding leaves open.

Every score of an embedding z is one inner product, so its rounding error is at most ``c · ν``
with ``c = γ_{n+16}·‖(w, b)‖ + 4(n+2)·η`` per score and ``ν = ‖(z, 1)‖`` per embedding: the bound of
``encodings.rounding`` with the Cauchy–Schwarz inequality (rule S5 of docs/soundness.md). The index
n + 16 also pays for rounding weights to the format, and for differences and quotients of scores.
Behind a ReLU layer with error ``e`` and weights W the error is ``c · ν + |W|·e``. The bounds hold
for every order of summation, so for any BLAS and GPU, as long as TF32 and the like are off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.exact import nearest
from conspec.encodings.network import Affine
from conspec.encodings.rounding import TINY
from conspec.encodings.scores import ScoreSpace
from conspec.verifier.probability.compiled import NORM, Facts, Program

Tensor = Any  # torch.Tensor; torch is imported when first used
Floats = NDArray[np.float64]

SLACK = 1.0 + 2.0**-18
"""Covers the rounding of the bounds themselves, to float32 included."""
EXTRA = 16
"""Operations on a score besides its inner product that the bounds allow for."""


def single_is_exact() -> bool:
    """Whether torch computes float32 products in float32: no TF32, no bfloat16."""
    import torch

    return torch.get_float32_matmul_precision() == "highest"


@dataclass(frozen=True, eq=False)
class Format:
    """A floating-point format of the device: float32 or float64."""

    dtype: Any
    device: str

    @property
    def unit(self) -> float:
        """Half the distance from 1 to the next number."""
        import torch

        return float(torch.finfo(self.dtype).eps) / 2

    @property
    def tiny(self) -> float:
        """The smallest normal number, so that flushing denormals to zero is covered."""
        import torch

        return float(torch.finfo(self.dtype).tiny)

    @property
    def largest(self) -> float:
        """A sixteenth of the largest number: what stays below it cannot overflow."""
        import torch

        return float(torch.finfo(self.dtype).max) / 16

    def gamma(self, length: int) -> float:
        """``γ_k`` of an inner product of this length."""
        return length * self.unit / (1.0 - length * self.unit)

    def tensor(self, values: Floats) -> Tensor:
        """An array in this format."""
        import torch

        with np.errstate(over="ignore"):
            return torch.from_numpy(np.ascontiguousarray(values)).to(self.device, self.dtype)


@dataclass(frozen=True, eq=False)
class Layer:
    """Rows of an affine map, with bounds per unit of ν of their values and errors.

    Attributes:
        weight: [m, n].
        bias: [m].
        size: bound [m] of the values, ``‖(w, b)‖``.
        error: bound [m] of the errors.
    """

    weight: Tensor
    bias: Tensor
    size: Floats
    error: Floats


def _layer(
    part: Affine, form: Format, rows: Sequence[int] | slice, before: Layer | None = None
) -> Layer:
    """Some rows of an affine map, perhaps behind the ReLU of another layer."""
    weight, bias = (values[rows] for values in part.floats)
    length = weight.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):
        # Squares below 1e-308 vanish, which moves the root by at most sqrt(length · 1e-308).
        lost = np.sqrt((length + 1) * TINY)
        size = (np.sqrt((weight**2).sum(1) + bias**2) + lost) * SLACK
        error = form.gamma(length + EXTRA) * size + (length + 2) * 4 * form.tiny
        if before is not None:
            error = error + np.abs(weight) @ before.error
    return Layer(form.tensor(weight), form.tensor(bias), size, error * SLACK)


@dataclass(frozen=True, eq=False)
class Values:
    """The columns of a program for N embeddings, divided by ν: so error bounds are numbers.

    Attributes:
        columns: [C, N].
        share: 1/ν, [N].
        safe: bool [N]; for the others something may have overflowed.
    """

    columns: Tensor
    share: Tensor
    safe: Tensor


@dataclass(frozen=True, eq=False)
class Guess:
    """Predicted classes of N embeddings, and where rounding leaves them open.

    Attributes:
        predicted: the class with the greatest logit, int64 [N].
        unsure: places of the U embeddings where it need not be strictly the greatest.
        rivals: which of the k classes may have the greatest logit there, bool [U, k].
        classes: the k classes that were compared.
    """

    predicted: Tensor
    unsure: Tensor
    rivals: Tensor
    classes: Tensor


class Level:
    """A program's weights and error bounds in one format."""

    def __init__(self, program: Program, space: ScoreSpace, form: Format) -> None:
        """Round the weights, and bound what that and the arithmetic can change."""
        self._program, self._form = program, form
        self._room: Tensor | None = None
        classes, scores = len(space.classes), len(space.classes) + len(space.concepts)
        every = slice(None)
        logits = [p for p in program.columns if 0 <= p < classes]
        concepts = [p - classes for p in program.columns if classes <= p < scores]
        self._entries = [p - scores for p in program.columns if p >= scores]
        self._hidden: list[Layer] = []
        for part in space.head.affines[:-1]:
            self._hidden.append(_layer(part, form, every, self._last))
        output = space.head.affines[-1]
        self._logits = _layer(output, form, logits, self._last) if logits else None
        self._all_logits = _layer(output, form, every, self._last) if program.predicts else None
        self._concepts = _layer(space.concept_map, form, concepts) if concepts else None
        needs_norm = NORM in program.columns
        self._mapped = _layer(space.aligned, form, every) if needs_norm else None
        self._every = self._indices(range(classes))
        self._limit = self._overflow()
        self._bounds()

    @property
    def _last(self) -> Layer | None:
        return self._hidden[-1] if self._hidden else None

    def _overflow(self) -> float:
        """What ν has to stay below so that nothing overflows."""
        parts = [self._logits, self._all_logits, self._concepts, self._mapped, *self._hidden]
        sizes = [part.size.max(initial=1.0) for part in parts if part is not None]
        limit = self._form.largest / max(sizes, default=1.0)
        if self._mapped is not None:
            whole = float(np.sqrt((self._mapped.size**2).sum()))
            limit = min(limit, self._form.largest**0.5 / max(whole, 1.0))
        return float(min(limit, self._form.largest**0.5))

    def _bounds(self) -> None:
        """Error bounds, per unit of ν, of simple formulas and atoms."""
        program, form = self._program, self._form
        size, error = self._columns_bounds()
        left, right = (np.array(side, dtype=np.intp) for side in (program.left, program.right))
        simple = np.where(left == right, 0.0, (error[left] + error[right]) * SLACK)
        self._simple_error = form.tensor(simple)
        self._left, self._right, self._premise = (
            self._indices(side) for side in (program.left, program.right, program.premise)
        )
        self._excusable = self._premise >= 0
        factors, places, constants = self._coefficients()
        count = len(factors)
        rounding = form.gamma(count + EXTRA)
        with np.errstate(over="ignore", invalid="ignore"):
            sizes, errors = size[places], error[places]
            bound = (np.abs(factors) * (errors + rounding * sizes)).sum(0)
            bound += rounding * np.abs(constants) + 4 * form.tiny * (count + 1 + sizes.sum(0))
            extent = (np.abs(factors) * sizes).sum(0) + np.abs(constants)
        bound[np.array([not atom.terms for atom in program.atoms], dtype=bool)] = 0.0
        self._limit = min(self._limit, form.largest / max(extent.max(initial=0.0), 1.0))
        self._factors, self._constants = form.tensor(factors), form.tensor(constants)
        self._places = [self._indices(row.tolist()) for row in places]
        self._atom_error = form.tensor(bound * SLACK)

    def _coefficients(self) -> tuple[Floats, NDArray[np.intp], Floats]:
        """Factors [T, A], columns [T, A] and constants [A] of atoms with at most T terms."""
        program = self._program
        place = {position: index for index, position in enumerate(program.columns)}
        count = max((len(atom.terms) for atom in program.atoms), default=0)
        factors = np.zeros((count, len(program.atoms)))
        places = np.zeros((count, len(program.atoms)), dtype=np.intp)
        constants = np.zeros(len(program.atoms))
        for index, atom in enumerate(program.atoms):
            constants[index] = nearest(*atom.constant.as_integer_ratio())
            if not atom.terms:  # the sign is all that matters, and it must not be rounded away
                constants[index] = np.sign(atom.constant.numerator)
            for term, (factor, position) in enumerate(atom.terms):
                factors[term, index] = nearest(*factor.as_integer_ratio())
                places[term, index] = place[position]
        return factors, places, constants

    def _columns_bounds(self) -> tuple[Floats, Floats]:
        """Bounds of value and error of each column, per unit of ν."""
        parts: list[tuple[Floats, Floats]] = []
        if self._mapped is not None:  # NORM is the first column
            whole = float(np.sqrt((self._mapped.size**2).sum())) * SLACK
            error = float(np.sqrt((self._mapped.error**2).sum()))
            length = len(self._mapped.size)
            error += self._form.gamma(length + EXTRA) * whole
            error += 4 * (length * self._form.tiny) ** 0.5  # squares may underflow
            parts.append((np.array([whole]), np.array([error * SLACK])))
        layers = (self._logits, self._concepts)
        parts += [(part.size, part.error) for part in layers if part is not None]
        entries = len(self._entries)
        parts.append((np.ones(entries), np.full(entries, self._form.gamma(EXTRA))))
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _indices(self, values: Sequence[int]) -> Tensor:
        import torch

        return torch.tensor(list(values), dtype=torch.int64, device=self._form.device)

    def _activations(self, embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The embeddings in this format, the last hidden layer (or they again), and ν."""
        import torch

        reach = reach_of(embeddings).to(self._form.dtype) * SLACK
        z = last = self._converted(embeddings)
        for layer in self._hidden:
            last = torch.addmm(layer.bias, last, layer.weight.T).clamp_min_(0.0)
            reach = torch.maximum(reach, reach_of(last).to(reach.dtype))
        return z, last, reach

    def _converted(self, embeddings: Tensor) -> Tensor:
        """Embeddings in the level's format; valid until the next call.

        The memory of a whole chunk is kept: to ask the system for it anew each time takes longer
        than to convert.
        """
        import torch

        if embeddings.dtype == self._form.dtype:
            return embeddings
        if self._room is None or len(self._room) < len(embeddings):
            self._room = torch.empty_like(embeddings, dtype=self._form.dtype)
        return self._room[: len(embeddings)].copy_(embeddings)

    def predictions(self, embeddings: Tensor, classes: Tensor | None) -> Guess:
        """Who has the greatest logit among some classes [k] (None: all), as far as it is sure."""
        import torch

        layer = self._all_logits
        if layer is None:
            raise RuntimeError("no formula speaks of predictions")
        _, values, reach = self._activations(embeddings)
        if classes is None:
            classes, weight, bias = self._every, layer.weight, layer.bias
        else:
            weight, bias = layer.weight[classes], layer.bias[classes]
        logits = torch.addmm(bias, values, weight.T)
        if len(classes) == 1:
            none = classes[:0]
            return Guess(classes.expand(len(embeddings)).clone(), none, logits[:0] > 0, classes)
        room = reach * (2 * SLACK * float(layer.error.max()))
        safe = reach < self._limit
        best, place = logits.topk(2, dim=1)
        sure = safe & (best[:, 0] - best[:, 1] > room)
        unsure = (~sure).nonzero()[:, 0]
        lowest = (best[unsure, 0] - room[unsure])[:, None]
        rivals = ~(logits[unsure] < lowest) | ~safe[unsure][:, None]
        return Guess(classes[place[:, 0]], unsure, rivals, classes)

    def values(self, embeddings: Tensor) -> Values:
        """The program's columns."""
        import torch

        z, last, reach = self._activations(embeddings)
        parts = []
        if self._mapped is not None:
            mapped = torch.addmm(self._mapped.bias, z, self._mapped.weight.T)
            parts.append(torch.linalg.vector_norm(mapped, dim=1)[None])
        if self._logits is not None:
            bias = self._logits.bias[:, None]
            parts.append(torch.addmm(bias, self._logits.weight, last.T))
        if self._concepts is not None:
            bias = self._concepts.bias[:, None]
            parts.append(torch.addmm(bias, self._concepts.weight, z.T))
        if self._entries or not parts:
            parts.append(z[:, self._entries].T)
        columns = parts[0] if len(parts) == 1 else torch.cat(parts)
        share = 1.0 / reach
        return Values(columns * share, share, reach < self._limit)

    def simple(self, values: Values) -> tuple[Tensor, Tensor]:
        """Whether each simple formula's comparison is surely true or false, bool [P, N]."""
        gap = values.columns.index_select(0, self._left)
        gap -= values.columns.index_select(0, self._right)
        return _signs(gap, self._simple_error, values)

    def excused(self, predicted: Tensor) -> Tensor:
        """Whether a simple formula's premise is false, bool [P, N]."""
        narrow = predicted.int()
        other = narrow[None] != self._premise.int()[:, None]
        return other.logical_and_(self._excusable[:, None])

    def facts(self, values: Values, predicted: Tensor) -> Facts:
        """The truth of the atoms, bool [A, N]."""
        import torch

        total = torch.outer(self._constants, values.share)
        for factors, places in zip(self._factors, self._places, strict=True):
            total.addcmul_(factors[:, None], values.columns.index_select(0, places))
        return Facts(*_signs(total, self._atom_error, values), predicted)


def reach_of(values: Tensor) -> Tensor:
    """``ν = ‖(z, 1)‖`` [N] of rows [N, n], rounded up; of doubles where float32 overflows."""
    import torch

    length = torch.linalg.vector_norm(values, dim=1)
    if values.dtype != torch.float64 and not bool(length.isfinite().all()):
        return reach_of(values.double())
    form = Format(values.dtype, values.device.type)
    found: Tensor = (length + 1.0) * (SLACK + form.gamma(values.shape[1] + EXTRA))
    return found


def _signs(gaps: Tensor, errors: Tensor, values: Values) -> tuple[Tensor, Tensor]:
    """Whether numbers [A, N] are surely above zero, and surely not, for errors [A].

    NaN is neither, nor is what may have overflowed.
    """
    above, below = gaps > errors[:, None], gaps <= -errors[:, None]
    return above.logical_and_(values.safe), below.logical_and_(values.safe)
