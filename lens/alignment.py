"""The affine map from embeddings of the vision model to those of the VLM: ``r_map`` of paper 1.

It is least squares with a small ridge, solved in closed form from sums over the images, which
are gathered in one pass. Everything is float64.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from conspec.lens.tables import Embeddings
from conspec.specs.errors import BadUsage

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

GRID = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridges tried, in units of the mean variance of an embedding's entries."""

FOLDS = 5
BATCH = 4096


@dataclass(frozen=True, eq=False)
class Alignment:
    """``z → A z + d``.

    Attributes:
        weight: A, float64 [p, n].
        bias: d, float64 [p].
        ridge: λ, in units of the mean variance of an embedding's entries.
    """

    weight: Float64
    bias: Float64
    ridge: float

    def __call__(self, z: npt.NDArray[np.floating]) -> Float64:
        """Mapped embeddings float64 [N, p] of embeddings [N, n]."""
        return np.asarray(z.astype(np.float64) @ self.weight.T + self.bias)


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, means and centred products of pairs ``(z, g)``; two of them can be added.

    Attributes:
        count: of pairs.
        mean_z: float64 [n].
        mean_g: float64 [p].
        zz: Σ (z − z̄)(z − z̄)ᵀ, float64 [n, n].
        zg: Σ (z − z̄)(g − ḡ)ᵀ, float64 [n, p].
        gg: Σ (g − ḡ)², float64 [p].
    """

    count: int
    mean_z: Float64
    mean_g: Float64
    zz: Float64
    zg: Float64
    gg: Float64

    @classmethod
    def of(cls, z: Float32, g: Float32) -> Self:
        """The moments of the pairs of rows of ``z`` [N, n] and ``g`` [N, p]."""
        a, b = z.astype(np.float64), g.astype(np.float64)
        mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
        a -= mean_a
        b -= mean_b
        return cls(len(z), mean_a, mean_b, a.T @ a, a.T @ b, (b * b).sum(axis=0))

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of both sets of pairs together (Chan, Golub and LeVeque)."""
        count = self.count + other.count
        dz, dg = other.mean_z - self.mean_z, other.mean_g - self.mean_g
        share, weight = other.count / count, self.count * other.count / count
        return Moments(
            count,
            self.mean_z + share * dz,
            self.mean_g + share * dg,
            self.zz + other.zz + weight * np.outer(dz, dz),
            self.zg + other.zg + weight * np.outer(dz, dg),
            self.gg + other.gg + weight * dg * dg,
        )


def moments(z: Float32, g: Float32) -> Moments:
    """The moments of ``z`` [N, n] and ``g`` [N, p], gathered batch by batch.

    Raises:
        BadUsage: there are no rows.
    """
    if not len(z):
        raise BadUsage("the alignment needs at least one training image")
    total = Moments.of(z[:BATCH], g[:BATCH])
    for start in range(BATCH, len(z), BATCH):
        total += Moments.of(z[start : start + BATCH], g[start : start + BATCH])
    return total


def fit(z: Float32, g: Float32, ridge: float | None = None, seed: int = 0) -> Alignment:
    """Fit ``A z + d ≈ g`` (paper 1, section on ``r_map``; the technique of Text-to-concept).

    Minimises ``Σ ‖A z + d − g‖² + N λ v ‖A‖²``, where v is the mean variance of an entry of z;
    the bias is not penalised.

    Args:
        z: training embeddings, float32 [N, n].
        g: the VLM's embeddings of the same images, float32 [N, p].
        ridge: λ; if None, that of ``GRID`` with the least squared error on a random fifth of
            the training images, which the fit then uses too. Held-out images play no part.
        seed: of that choice.

    Raises:
        BadUsage: there are no images, or λ is negative.
    """
    if ridge is not None and not 0 <= ridge < np.inf:
        raise BadUsage(f"the ridge must be 0 or a positive number, not {ridge}")
    if ridge is not None or len(z) < 2 * FOLDS:
        return solve(moments(z, g), GRID[2] if ridge is None else ridge)
    left = np.random.default_rng(seed).permutation(len(z)) % FOLDS == 0
    rest, part = moments(z[~left], g[~left]), moments(z[left], g[left])
    best = min(GRID, key=lambda candidate: squared_error(solve(rest, candidate), part))
    return solve(rest + part, best)


def solve(sums: Moments, ridge: float) -> Alignment:
    """The minimiser that :func:`fit` describes, from its moments."""
    n = len(sums.mean_z)
    scale = np.trace(sums.zz) / n
    if ridge > 0 and scale > 0:
        weight = np.linalg.solve(sums.zz + ridge * scale * np.eye(n), sums.zg).T
    else:
        weight = np.linalg.lstsq(sums.zz, sums.zg, rcond=None)[0].T
    bias = sums.mean_g - weight @ sums.mean_z
    return Alignment(weight.astype(np.float64), bias.astype(np.float64), ridge)


def squared_error(alignment: Alignment, sums: Moments) -> float:
    """Σ ‖A z + d − g‖² over the pairs behind ``sums``."""
    weight = alignment.weight
    offset = weight @ sums.mean_z + alignment.bias - sums.mean_g
    quadratic = ((weight @ sums.zz) * weight).sum() - 2 * (weight.T * sums.zg).sum()
    return float(quadratic + sums.gg.sum() + sums.count * offset @ offset)


def quality(alignment: Alignment, z: Float32, g: Float32) -> dict[str, float | list[float]]:
    """How close mapped and true embeddings are, over the given images.

    Args:
        alignment: the map.
        z: embeddings, float32 [N, n]; N ≥ 1.
        g: the VLM's embeddings, float32 [N, p].

    Returns:
        ``mse``, the mean squared error of an entry; ``r2`` = 1 − error / variance, over all
        entries together; ``r2_per_dimension``, p numbers, 0 where an entry is constant; and
        ``cosine``, the mean cosine of mapped and true embedding.
    """
    mapped, true = alignment(z), g.astype(np.float64)
    error = ((mapped - true) ** 2).sum(axis=0)
    spread = ((true - true.mean(axis=0)) ** 2).sum(axis=0)
    per_dimension = 1 - np.divide(error, spread, out=np.ones_like(error), where=spread > 0)
    total = float(spread.sum())
    return {
        "mse": float(error.sum() / true.size),
        "r2": 1 - float(error.sum()) / total if total > 0 else 0.0,
        "r2_per_dimension": [float(r) for r in per_dimension],
        "cosine": float(cosines(mapped, true).mean()),
    }


def report(alignment: Alignment, embeddings: Embeddings) -> dict[str, float | list[float]]:
    """:func:`quality` on training and held-out images, and accuracies where labels are known.

    Accuracies are over the held-out images, or over all if none are held out: of the model, of
    the VLM by class names, and of class names through the map.
    """
    found: dict[str, float | list[float]] = {"ridge": alignment.ridge}
    for name, part in (("train", ~embeddings.heldout), ("heldout", embeddings.heldout)):
        if part.any():
            numbers = quality(alignment, embeddings.z[part], embeddings.vlm[part])
            found |= {f"{name}_{key}": value for key, value in numbers.items()}
    test = embeddings.heldout if embeddings.heldout.any() else ~embeddings.heldout
    test = test & (embeddings.label >= 0)
    if test.any():
        label, q = embeddings.label[test], embeddings.class_directions
        found["model_accuracy"] = float((embeddings.predicted[test] == label).mean())
        found["vlm_accuracy"] = zero_shot_accuracy(embeddings.vlm[test], q, label)
        found["mapped_accuracy"] = zero_shot_accuracy(alignment(embeddings.z[test]), q, label)
    return found


def cosines(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> Float64:
    """The cosine of each row of ``a`` with the same row of ``b`` (or with the vector ``b``).

    A zero row has cosine 0 with everything.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    products = (x * y).sum(axis=-1)
    found: Float64 = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    return found


def zero_shot_accuracy(
    embeddings: npt.NDArray[np.floating], directions: Float32, labels: npt.NDArray[np.int64]
) -> float:
    """Share of images whose most similar class name is their class (paper 1, rep by CLIP).

    Args:
        embeddings: in the VLM's space, [N, p]; N ≥ 1.
        directions: unit directions of the class names, float32 [K, p].
        labels: true classes, int64 [N].
    """
    # An embedding's own length scales all its cosines alike.
    best = (embeddings.astype(np.float64) @ directions.T.astype(np.float64)).argmax(axis=1)
    return float((best == labels).mean())
