"""Models of a class's embeddings, and half-spaces in them around a violation.

See `rare`, which samples there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import comb, prod

import numpy as np

from conspec.encodings.rounding import Floats
from conspec.encodings.scores import ScoreSpace
from conspec.specs.errors import BadUsage
from conspec.specs.formula import Logit
from conspec.specs.rewrite import All, Cone, Count, Halfspace, Literal, Nnf, Some
from conspec.verifier.screen import rows_of

LARGEST_COVER = 64
"""Conjunctions that a cover has at most; beyond, it is made coarser."""
FARTHEST = 35.0
"""Half-spaces farther than this (probability below 1e-267) are not sampled but counted."""
SWEEPS = 200
"""Sweeps of the search for multipliers."""
SHRINK = 1 - 1e-9
"""Distances are shrunk by this factor, more than rounding can move a half-space."""


@dataclass(frozen=True, eq=False)
class Model:
    """``z = centre_i + factor · x``, x standard normal [r], i uniform.

    Attributes:
        centers: [C, n]; one for a Gaussian.
        factor: [n, r].
        text: the model in words.
    """

    centers: Floats
    factor: Floats
    text: str

    def __post_init__(self) -> None:
        """Refuse shapes that do not fit and numbers that are none."""
        if self.centers.ndim != 2 or self.factor.shape[:1] != self.centers.shape[1:]:
            raise BadUsage("a model needs centres [C, n] and a factor [n, r]")
        if not len(self.centers) or not self.factor.size:
            raise BadUsage("a model needs at least one centre and one dimension")
        if not (np.isfinite(self.centers).all() and np.isfinite(self.factor).all()):
            raise BadUsage("a model's centres and factor must be finite")


def gaussian_model(mean: Floats, factor: Floats) -> Model:
    """A Gaussian: ``factor`` [n, r] with ``factor · factorᵀ`` the covariance, or [n] deviations.

    For a class: its mean and its principal axes, as a bundle stores them.
    """
    text = "embeddings are normal with the given mean and covariance"
    return Model(mean[None], np.diag(factor) if factor.ndim == 1 else factor, text)


def kernel_model(points: Floats) -> Model:
    """A kernel density over embeddings [N, n]: normal kernels along the coordinates.

    Bandwidths are the deviations times ``N^(−1/(n+4))`` (Scott's rule).
    """
    count, size = points.shape
    width = points.std(axis=0) * count ** (-1.0 / (size + 4))
    text = f"embeddings follow a kernel density of {count} embeddings (Scott's bandwidths)"
    return Model(points, np.diag(width), text)


Conjunction = tuple[Halfspace, ...]


def cover(space: ScoreSpace, violation: Nnf) -> tuple[list[Conjunction], bool]:
    """Conjunctions of half-spaces over z that together contain the violation.

    Returns:
        At most `LARGEST_COVER` conjunctions, and whether they are the violation exactly.
    """
    exact = True

    def usable(literal: Literal) -> bool:
        if isinstance(literal, Cone):
            return False
        return space.head.is_affine or not any(
            isinstance(symbol, Logit) for _, symbol in literal.terms
        )

    def visit(node: Nnf) -> list[Conjunction]:
        nonlocal exact
        match node:
            case Halfspace() | Cone():
                if isinstance(node, Halfspace) and usable(node):
                    return [(node,)]
                exact = False
                return [()]
            case Some(operands):
                return list(dict.fromkeys(part for each in operands for part in visit(each)))
            case All(operands):
                return joined([visit(each) for each in operands])
            case Count(count, operands):
                if comb(len(operands), count) <= LARGEST_COVER:
                    return visit(Some(tuple(All(c) for c in combinations(operands, count))))
                exact = False
                return visit(Some(operands[: len(operands) - count + 1]))

    def joined(parts: Sequence[list[Conjunction]]) -> list[Conjunction]:
        nonlocal exact
        chosen: list[list[Conjunction]] = []
        for part in sorted(parts, key=len):
            if prod(map(len, [*chosen, part])) <= LARGEST_COVER:
                chosen.append(part)
            else:
                exact = False
        sums = [tuple(dict.fromkeys(sum(choice, ()))) for choice in product(*chosen)]
        return list(dict.fromkeys(sums))

    found = visit(violation)
    if len(found) <= LARGEST_COVER:
        return found, exact
    return [()], False


def design(space: ScoreSpace, part: Conjunction, model: Model) -> tuple[Floats, Floats]:
    """A half-space ``normal · x ≥ distance`` around a conjunction, for each centre.

    Returns:
        Unit normals [C, r] and distances [C] from 0. The distance is 0 (and the half-space all of
        space) where the conjunction may hold at the centre, inf where it holds nowhere.
    """
    count, size = len(model.centers), model.factor.shape[1]
    if not part:
        return np.zeros((count, size)), np.zeros(count)
    rows = rows_of(space, part)
    own = rows.rows[:, : space.dimension]
    normals, heights = own @ model.factor, model.centers @ own.T + rows.constants
    lengths = np.linalg.norm(normals, axis=1)
    flat = lengths <= 1e-12 * np.linalg.norm(own, axis=1) * np.linalg.norm(model.factor)
    scale = np.where(flat, 1.0, lengths)
    normals, heights = normals[~flat] / scale[~flat, None], heights / scale
    values = multipliers(normals, heights[:, ~flat])
    directions = values @ normals
    reach = -(values * heights[:, ~flat]).sum(axis=1)
    norm = np.linalg.norm(directions, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        beta = np.where(reach > 0, reach / norm, 0.0) * SHRINK
        unit = np.where(norm[:, None] > 0, directions / norm[:, None], 0.0)
    tolerance = 1e-9 * (1 + np.abs(model.centers) @ np.abs(own[flat]).T)
    beta = np.where((heights[:, flat] < -tolerance).any(axis=1), np.inf, beta)
    return np.where(beta[:, None] > 0, unit, 0.0), beta


def multipliers(normals: Floats, heights: Floats) -> Floats:
    """Multipliers ``λ ≥ 0`` [C, m] of the points nearest to 0 with ``normals·x + heights ≥ 0``.

    Coordinate ascent on the dual ``−‖Gᵀλ‖²/2 − λ·h`` (Hildreth 1957); normals have length 1.

    Args:
        normals: [m, r].
        heights: [C, m], one problem a row.
    """
    gram = normals @ normals.T
    found = np.zeros_like(heights)
    for _ in range(SWEEPS if len(gram) > 1 else 1):
        for place in range(len(gram)):
            slope = found @ gram[place] + heights[:, place]
            found[:, place] = np.maximum(found[:, place] - slope, 0.0)
        if found.max(initial=0.0) > 100 * FARTHEST:  # no such point, or none that matters
            break
    return found
