"""Which features of the last layer's input decide a prediction (VisionLogic, arXiv 2503.10547).

A classifier ends in a linear layer, logits ``W z + b``. For an image of predicted class c the
features are sorted by their contributions ``W[c, j] z_j`` and added to the bias one after the
other; the pathway is the first prefix with which class c has the largest of all partial logits.

Ties: features of equal contribution come in the order of NumPy's stable sort reversed, so the
higher number first; of equal partial logits the first class wins, as in ``argmax``. Sums are
float64, feature by feature in the pathway's order, so that a batch gives bit for bit what the
definition gives for each image by itself.

A pathway may look ahead: it then has some of the following features, too. Rules made of such
pathways tell classes better apart (the paper's first version had such a step).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from conspec.specs.errors import BadUsage

if TYPE_CHECKING:
    from conspec.lens.bundle import Lens

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
Array: TypeAlias = NDArray[Any]

_ROWS = 512
"""Images at once: their contributions and partial logits then stay in the cache."""
_ONE_BY_ONE = 16
"""So many features are looked for one by one; whoever needs more has all of them sorted."""


@dataclass(frozen=True, eq=False)
class LastLayer:
    """The linear layer that ends a classifier.

    Attributes:
        weight: W, float64 [K, d].
        bias: b, float64 [K].
    """

    weight: Floats
    bias: Floats

    def __post_init__(self) -> None:
        """Refuse what is no linear layer."""
        weight, bias = np.asarray(self.weight, np.float64), np.asarray(self.bias, np.float64)
        if weight.ndim != 2 or 0 in weight.shape or bias.shape != weight.shape[:1]:
            raise BadUsage(
                f"a last layer has weights [K, d] and a bias [K], got {weight.shape} and "
                f"{bias.shape}"
            )
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise BadUsage("the last layer has a NaN or an infinity among its weights")
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", bias)

    @property
    def classes(self) -> int:
        """K, how many classes it tells apart."""
        return len(self.bias)

    @property
    def width(self) -> int:
        """d, how many features it reads."""
        return int(self.weight.shape[1])

    def predicted(self, z: Array) -> Integers:
        """The class with the largest logit in float64, the first of equal ones: int64 [N].

        Where float32 cannot be wrong about it, it is taken from there, which is twice as fast.
        """
        parts = [self._predicted(z[part]) for part in _parts(len(z), 4 * _ROWS)]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def _predicted(self, z: Array) -> Integers:
        with np.errstate(over="ignore", invalid="ignore"):
            logits = z.astype(np.float32) @ self._single[0].T + self._single[1]
            best: Integers = logits.argmax(axis=1)
            rows = np.arange(len(z))
            largest = logits[rows, best]
            logits[rows, best] = -np.inf
            lead = largest - logits.max(axis=1)
            unsure = np.flatnonzero(~(lead > 2 * self._rounding(z)))
        wide = np.asarray(z[unsure], np.float64) @ self.weight.T + self.bias
        best[unsure] = wide.argmax(axis=1)
        return best

    @cached_property
    def _single(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with np.errstate(over="ignore"):
            return self.weight.astype(np.float32), self.bias.astype(np.float32)

    def _rounding(self, z: Array) -> Floats:
        """How far float32 logits may be from the real ones, [N]: a sum of d + 1 products.

        With weights and features rounded to float32, ``γ_k (‖W_c‖ ‖z‖ + |b_c|)`` with
        ``k = d + 4`` bounds the error for every order of summation; doubled, to be on the safe
        side of float64's own rounding. The last term is for what is below float32's range.
        """
        unit = (self.width + 4) * 2.0**-24
        if unit >= 0.5:
            return np.full(len(z), np.inf)
        weight, bias = np.linalg.norm(self.weight, axis=1).max(), np.abs(self.bias).max()
        size = weight * np.sqrt(np.einsum("ij,ij->i", z, z, dtype=np.float64)) + bias
        tiny = float(np.finfo(np.float32).tiny) * (self.width + 1) * (1 + weight)
        return np.asarray(2 * unit / (1 - unit) * size + tiny * (1 + size))


@dataclass(frozen=True, eq=False)
class Pathways:
    """The pathways of N images, one after the other; S features in all.

    Attributes:
        width: d, how many features there are.
        predicted: the class whose prediction each pathway keeps, int64 [N].
        starts: where each image's features begin, and the last one's end, int64 [N + 1].
        features: numbers of the features in the order in which they were added, int64 [S].
        values: what they are in the image, in the type of the embeddings [S].
        recovered: whether the prediction was reached, [N]. It is not only where rounding of the
            sum decides between classes; the pathway then has all features.
    """

    width: int
    predicted: Integers
    starts: Integers
    features: Integers
    values: Array
    recovered: Bools

    @property
    def lengths(self) -> Integers:
        """How many features each pathway has, int64 [N]."""
        return np.diff(self.starts)

    @cached_property
    def rows(self) -> Integers:
        """Which image each feature was selected for, int64 [S]."""
        return np.repeat(np.arange(len(self.predicted)), self.lengths)

    @cached_property
    def positive(self) -> Bools:
        """Sign of each selected feature: + where its value is at least 0, bool [S]."""
        return self.values >= 0

    @cached_property
    def signed(self) -> Integers:
        """Signed feature: j for (j, +), and d + j for (j, −), int64 [S]."""
        return self.features + np.where(self.positive, 0, self.width)

    def images_by_class(self, classes: int) -> Integers:
        """How many images are predicted as each class, int64 [K]."""
        return np.bincount(self.predicted, minlength=classes)

    def of(self, row: int) -> Integers:
        """The features of one image, in the order in which they were added."""
        return self.features[self.starts[row] : self.starts[row + 1]]


def pathways(
    layer: LastLayer, z: Array, predicted: Integers | None = None, ahead: int = 0
) -> Pathways:
    """The prediction-preserving pathway of each image.

    Args:
        layer: the classifier's last layer.
        z: what goes into it, float32 or float64 [N, d].
        predicted: the classes that the model predicts, [N]; those of ``layer.predicted`` if not
            given.
        ahead: how many features to take after the prediction is reached.

    Raises:
        BadUsage: other shapes, a class that does not exist, a NaN or an infinity.
    """
    chosen = layer.predicted(z) if predicted is None else np.asarray(predicted, np.int64)
    check_features(layer, z, chosen)
    columns = np.ascontiguousarray(layer.weight.T)
    mirrored = np.ascontiguousarray(layer.weight[:, ::-1])
    chunks = [
        _chunk((layer.bias, columns, mirrored), z[part], chosen[part], ahead)
        for part in _parts(len(z), _ROWS)
    ]
    lengths, features, recovered = (
        np.concatenate(arrays) for arrays in zip(_nothing(), *chunks, strict=True)
    )
    rows = np.repeat(np.arange(len(z)), lengths)
    starts = np.concatenate([np.zeros(1, np.int64), lengths.cumsum()])
    return Pathways(layer.width, chosen, starts, features, z[rows, features], recovered)


def check_features(layer: LastLayer, z: Array, predicted: Integers) -> None:
    """Refuse features and predictions that the layer cannot have.

    Raises:
        BadUsage: other shapes, a class that does not exist, a NaN, an infinity, or near one.
    """
    if z.ndim != 2 or z.shape[1] != layer.width or z.dtype not in (np.float32, np.float64):
        raise BadUsage(
            f"features are float32 or float64 [N, {layer.width}], got {z.dtype} {z.shape}"
        )
    if predicted.shape != z.shape[:1]:
        raise BadUsage(f"{len(z)} images need as many predictions, got {predicted.shape}")
    if ((predicted < 0) | (predicted >= layer.classes)).any():
        raise BadUsage(f"predictions are numbers of classes, from 0 to {layer.classes - 1}")
    lowest, highest = float(z.min(initial=0.0)), float(z.max(initial=0.0))  # NaN if there is one
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise BadUsage("there is a NaN or an infinity among the features")
    with np.errstate(over="ignore"):
        sums = np.abs(layer.weight).max() * max(-lowest, highest) * layer.width
    if not np.isfinite(sums + np.abs(layer.bias).max()):
        raise BadUsage("features and weights are so large that logits would overflow")


def _parts(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def _nothing() -> tuple[Integers, Integers, Bools]:
    return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool)


def _chunk(
    layer: tuple[Floats, Floats, Floats], z: Array, predicted: Integers, ahead: int
) -> tuple[Integers, Integers, Bools]:
    """Lengths [n], features one image after the other [s], and whether predictions were reached.

    Args:
        layer: bias, weights by feature [d, K], and weights by class in mirrored order [K, d].
            Contributions are kept in that order: the first maximum, and the stable sort of the
            negatives, then put the higher number first, as the stable sort reversed does.
        z: features [n, d].
        predicted: classes [n].
        ahead: how many features to take after the prediction is reached.
    """
    bias, columns, mirrored = layer
    count, width = z.shape
    contributions = mirrored[predicted]
    contributions *= z[:, ::-1]
    partial = np.tile(bias, (count, 1))
    lengths = np.full(count, width, np.int64)
    recovered = np.zeros(count, bool)
    taken: list[tuple[Integers, Integers]] = []  # rows, and the feature each got in this step
    order: Integers = np.zeros((0, width), np.int64)
    left = np.arange(count)  # rows that take more
    for step in range(width):
        if step < _ONE_BY_ONE:
            place = contributions.argmax(axis=1)
            contributions[np.arange(len(left)), place] = -np.inf
        else:
            if step == _ONE_BY_ONE:
                order = np.argsort(-contributions, axis=1, kind="stable")
            place = order[:, step - _ONE_BY_ONE]
        feature = width - 1 - place
        taken.append((left, feature))
        added = columns[feature]
        added *= z[left, feature][:, None]
        partial += added
        reached = left[(partial.argmax(axis=1) == predicted[left]) & ~recovered[left]]
        lengths[reached] = np.minimum(step + 1 + ahead, width)
        recovered[reached] = True
        on = lengths[left] > step + 1
        if not on.all():
            left, partial, contributions = left[on], partial[on], contributions[on]
            order = order[on] if len(order) else order
        if not len(left):
            break
    rows = np.concatenate([np.zeros(0, np.int64), *(rows for rows, _ in taken)])
    features = np.concatenate([np.zeros(0, np.int64), *(found for _, found in taken)])
    return lengths, features[np.argsort(rows, kind="stable")], recovered


def last_layer(lens: "Lens") -> tuple[LastLayer, Array]:
    """The last layer of a bundle's head, and what goes into it for each stored image [N, d].

    For an affine head that is the embedding; otherwise the activations of the last hidden layer,
    computed from the stored embeddings in float64 and rounded to float32.
    """
    from conspec.encodings.query import space_of

    affines = space_of(lens).head.affines
    z: Array = lens.embeddings.z
    for hidden in affines[:-1]:
        weight, bias = hidden.floats
        z = np.maximum(z @ weight.T + bias, 0.0)
    weight, bias = affines[-1].floats
    return LastLayer(weight, bias), z.astype(np.float32, copy=False)
