"""All ordered concept pairs of every class as matrices.

The specs are ``forall x in focus(c, γ): predict(x, c) => a > b`` for every class c, scale γ and
ordered pair (a, b). Asked one by one they are a loop over linear programs; here each class is one
batch. For multipliers λ ≥ 0 of the premise's literals, a pair is proved at a scale if
``max_z (D z + λ G z + …) < 0``; all pairs and scales descend together in torch, and the points at
which the maxima are attained are tried as counterexamples.

Verdicts are exact: bounds carry their rounding error (`conspec.encodings.rounding`), which also
covers the few ulps by which a point in float64 may lie outside the exact box. What stays open is
left to ``verify_suite``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.exact import Vector
from conspec.encodings.regions import class_moments, focus_box, scaled_box
from conspec.encodings.rounding import TINY, Bools, Floats, gamma
from conspec.encodings.scores import ScoreSpace
from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadRegion
from conspec.verifier.certificate import Certificate, Lemma, Term

Places = NDArray[np.intp]
Tensor = Any  # torch.Tensor; torch is imported when first used
ROUNDS = 6
"""Times that the open pairs are looked at again."""
STEPS = 24
"""Steps of the descent between two looks."""
AIM = 2e-3
"""How far inside the premise the descent aims, as a share of each literal's spread."""
SMALL = 1e-18
"""Keeps float32 divisors, and their squares, above zero."""
GRID = 2.0**-12
"""Multipliers are rounded to multiples of this, so that exact checking of them is cheap."""


@dataclass(frozen=True, eq=False)
class PairVerdicts:
    """Verdicts of all ordered pairs of one class at several scales.

    Attributes:
        label: the class.
        scales: the S scales of its focus box.
        pairs: places [P, 2] of a and b.
        proved: bool [S, P]; ``multipliers`` then refute the violation.
        violated: bool [S, P]; the point of the exact box nearest to ``point`` is then a
            counterexample.
        multipliers: [S, P, K-1] of the premise's literals; that of the pair's own literal is 1.
        points: [F, n].
        places: [S, P], the counterexample's place among the points; −1 stands for the corner of
            the box that maximises ``rows``.
        rows: [P, n] ``q_b − q_a``.
        bounds: [2, S, n], bounds a few ulps inside the boxes.
    """

    label: str
    scales: tuple[Fraction, ...]
    pairs: Places
    proved: Bools
    violated: Bools
    multipliers: Floats
    points: Floats
    places: Places
    rows: Floats
    bounds: Floats

    @property
    def open(self) -> Bools:
        """What is neither proved nor violated: bool [S, P]."""
        return ~(self.proved | self.violated)

    def spec(self, scale: int, pair: int, space: ScoreSpace) -> f.ForAll:
        """The spec of a pair at a scale."""
        a, b = (space.concepts[place] for place in self.pairs[pair])
        body = f.Implies(f.Predict(self.label), f.Stronger(a, b))
        name = f"{self.label} {a} over {b} {scale}"
        return f.ForAll(name, f.Focus(self.label, self.scales[scale]), body)

    def counterexample(self, scale: int, pair: int, lens: Lens) -> Vector:
        """The exact counterexample of a violated pair.

        Raises:
            ValueError: the pair is not violated at this scale.
        """
        if not self.violated[scale, pair]:
            raise ValueError("only a violated pair has a counterexample")
        if (place := self.places[scale, pair]) >= 0:
            point = self.points[place]
        else:
            point = np.where(self.rows[pair] > 0, self.bounds[1, scale], self.bounds[0, scale])
        return focus_box(lens, self.label, self.scales[scale]).clamped(point)

    def certificate(self, scale: int, pair: int) -> Certificate:
        """The certificate of a proved pair.

        Raises:
            ValueError: the pair is not proved at this scale.
        """
        if not self.proved[scale, pair]:
            raise ValueError("only a proved pair has a certificate")
        values = self.multipliers[scale, pair]
        if not values.any():
            return _alone(len(values))
        # The premise's literals come first, one per rival in the order of the classes.
        terms = [
            Term(place, Fraction(value)) for place, value in enumerate(values.tolist()) if value
        ]
        return Certificate(((Lemma((*terms, Term(len(values), Fraction(1)))),),))


@cache
def _alone(place: int) -> Certificate:
    """The certificate of pairs whose own literal is impossible by itself."""
    return Certificate(((Lemma((Term(place, Fraction(1)),)),),))


def verify_pairs(
    lens: Lens, space: ScoreSpace, scales: Sequence[Fraction], device: str = "cpu"
) -> Iterator[PairVerdicts]:
    """Verdicts of all ordered concept pairs, one class at a time.

    Raises:
        BadRegion: the head is not affine, a class has no statistics, or a weight is no float.
    """
    if not space.head.is_affine:
        raise BadRegion("pairs are screened as matrices for affine heads only")
    maps = (space.head.affines[0], space.concept_map)
    if any(part.dtype == object for each in maps for part in (each.weight, each.bias)):
        # Differences of rounded weights may be wrong by far more than a rounding of their own.
        raise BadRegion(
            "pairs are screened as matrices for weights that are floats; verify_suite takes others"
        )
    import torch

    count = len(space.concepts)
    pairs = np.array([(a, b) for a in range(count) for b in range(count) if a != b], dtype=np.intp)
    weight, bias = (torch.from_numpy(part).to(device) for part in space.head.affines[0].floats)
    rows, offsets = (torch.from_numpy(part).to(device) for part in space.concept_map.floats)
    own = rows[pairs[:, 1]] - rows[pairs[:, 0]]
    own_offsets = offsets[pairs[:, 1]] - offsets[pairs[:, 0]]
    predicted = lens.embeddings.predicted
    for place, label in enumerate(space.classes):
        rivals = [k for k in range(len(space.classes)) if k != place]
        moments = class_moments(lens, label)
        boxes = [scaled_box(*moments, scale, nonnegative=lens.nonnegative) for scale in scales]
        lower, upper = (np.stack([box.outer[side] for box in boxes]) for side in (0, 1))
        search = _Descent(
            own,
            own_offsets,
            weight[place] - weight[rivals],
            bias[place] - bias[rivals],
            torch.from_numpy(lower).to(device),
            torch.from_numpy(upper).to(device),
            # Only images of this prediction can satisfy the premise.
            torch.from_numpy(lens.embeddings.z[predicted == place].astype(np.float64)).to(device),
        )
        yield PairVerdicts(label, tuple(scales), pairs, *search.run())


@dataclass(eq=False)
class _Descent:
    """One class: P pairs at S scales.

    Every row is a difference of two stored floats, so each entry is rounded once.

    Attributes:
        own: rows [P, n] ``q_b − q_a`` and offsets [P] of the pairs' literals.
        premise: rows [K-1, n] ``w_c − w_k`` and offsets [K-1] of the premise's literals.
        lower: bounds [S, n] of boxes that contain the exact ones by at most two ulps.
        upper: likewise.
        stored: [N, n] embeddings of real images.
    """

    own: Tensor
    own_offsets: Tensor
    premise: Tensor
    premise_offsets: Tensor
    lower: Tensor
    upper: Tensor
    stored: Tensor

    def run(self) -> tuple[Bools, Bools, Floats, Floats, Places, Floats, Floats]:
        """What ``PairVerdicts`` holds, from ``proved`` on."""
        import torch

        scales, pairs = len(self.lower), len(self.own)
        self._prepare()
        self.proved = self.own.new_zeros((scales, pairs), dtype=torch.bool)
        self.violated = torch.zeros_like(self.proved)
        self.multipliers = self.own.new_zeros((scales, pairs, len(self.premise)))
        self.points = [self.own.new_zeros((0, self.own.shape[1]))]
        self.places = torch.full_like(self.proved, -1, dtype=torch.long)
        self._corners()
        self._images()
        which = (~(self.proved | self.violated)).nonzero().T
        state = torch.zeros((which.shape[1], len(self.premise)), device=self.own.device)
        for turn in range(ROUNDS):
            if not which.shape[1]:
                break
            state, points = self._descend(which, state, 0.3 * 0.5**turn)
            left = self._settle(which, state, points)
            which, state = which[:, left], state[left]
        found = (
            *(self.proved, self.violated, self.multipliers, torch.cat(self.points), self.places),
            *(self.own, torch.stack(self._inner)),
        )
        return tuple(part.cpu().numpy() for part in found)  # type: ignore[return-value]

    def _prepare(self) -> None:
        """Middles, half-widths, bounds for points, and rounding errors."""
        import torch

        self._center, self._radius = (self.lower + self.upper) / 2, (self.upper - self.lower) / 2
        self._inner = [self.lower, self.upper]
        for _ in range(3):
            for side, limit in enumerate((torch.inf, -torch.inf)):
                bound = self._inner[side]
                self._inner[side] = torch.nextafter(bound, torch.full_like(bound, limit))
        crossed = self._inner[0] > self._inner[1]  # a box of hardly any width, or none
        self._inner = [torch.where(crossed, self._center, bound) for bound in self._inner]
        reach = torch.maximum(self.lower.abs(), self.upper.abs())
        self._own_reach = reach @ self.own.abs().T + self.own_offsets.abs()
        self._premise_reach = reach @ self.premise.abs().T + self.premise_offsets.abs()
        # 16 more than the arithmetic needs: the exact point may lie a few ulps away.
        length = 2 * self.own.shape[1] + 2 * len(self.premise) + 32
        self._share, self._floor = gamma(length), length * TINY
        # A counterexample has to meet the premise strictly, so the descent aims a little inside.
        self._aim = AIM * (self._radius @ self.premise.abs().T)

    def _corners(self) -> None:
        """Settles pairs without the premise: by their bound, or at the corner that attains it."""
        up, down = self.own.clamp_min(0.0), self.own.clamp_max(0.0)
        highest = self.upper @ up.T + self.lower @ down.T + self.own_offsets
        room = self._share * self._own_reach + self._floor
        self.proved |= highest + room < 0
        low, high = self._inner
        values = high @ up.T + low @ down.T + self.own_offsets
        # The premise at the corners, as products of 0, 1 and the bounds times its rows.
        above = (self.own > 0).to(self.own.dtype)
        tops, bottoms = (bound[:, None] * self.premise for bound in (high, low))
        premise = above @ tops.flatten(0, 1).T + (1.0 - above) @ bottoms.flatten(0, 1).T
        premise = premise.unflatten(1, tops.shape[:2]).transpose(0, 1) + self.premise_offsets
        needed = (self._share * self._premise_reach + self._floor)[:, None]
        self.violated |= (values > room) & (premise > needed).all(-1)

    def _images(self) -> None:
        """Settles pairs that a stored image in the box violates."""
        import torch

        # Boxes of one class lie in each other, so the largest leaves few images for the others.
        members = self.stored
        for place in self._radius.sum(1).argsort(descending=True).tolist():
            low, high = self._inner[0][place], self._inner[1][place]
            members = members[((members >= low) & (members <= high)).all(1)]
            values = members @ self.premise.T + self.premise_offsets
            room = self._share * self._premise_reach[place] + self._floor
            met = members[(values > room).all(1)]
            if not len(met):
                continue
            values, best = (met @ self.own.T + self.own_offsets).max(0)
            good = values > self._share * self._own_reach[place] + self._floor
            good &= ~(self.proved[place] | self.violated[place])
            (pairs,) = good.nonzero(as_tuple=True)
            self._keep((torch.full_like(pairs, place), pairs), met[best[pairs]])

    def _keep(self, where: tuple[Tensor, Tensor], points: Tensor) -> None:
        """Records counterexamples [F, n] of pairs at scales."""
        import torch

        start = sum(map(len, self.points))
        self.violated[where] = True
        self.places[where] = torch.arange(start, start + len(points), device=points.device)
        self.points.append(points)

    def _descend(self, which: Tensor, state: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        """Some accelerated steps on smoothed bounds: multipliers [O, K-1] and points [O, n].

        With ``x = D + λG`` the bound is ``x·c + Σ r|x|`` and its gradient the premise's values at
        the maximising point; ``|x|`` is replaced by ``sqrt(x² + ε²)``. Multipliers stay
        non-negative.
        """
        import torch

        # In float32, since nothing is concluded from it: what it finds is checked in float64.
        center, radius = self._center[which[0]].float(), self._radius[which[0]].float()
        own, premise = self.own[which[1]].float(), self.premise.float()
        base = torch.addmm((self.premise_offsets - self._aim[which[0]]).float(), center, premise.T)
        total = radius.sum(1, keepdim=True).clamp_min(SMALL)
        width = (smoothing * (own.abs() * radius).sum(1, keepdim=True) / total).clamp_min(SMALL)
        # Curvature of the smoothed bound along each multiplier: Σ g² r / ε. The factor is tuned;
        # whatever it is, only verdicts that were checked are given.
        step = width / (1.5 * radius @ (premise**2).T).clamp_min(SMALL)
        square = width * width
        current, previous, moved = state, state, radius
        for turn in range(STEPS):
            ahead = current + (turn / (turn + 3.0)) * (current - previous)
            x = torch.addmm(own, ahead, premise)
            moved = torch.addcmul(square, x, x).rsqrt_().mul_(x).mul_(radius)
            slope = torch.addmm(base, moved, premise.T)
            previous, current = current, (ahead - step * slope).clamp_min_(0.0)
        return current, (center + moved).double()

    def _settle(self, which: Tensor, state: Tensor, points: Tensor) -> Tensor:
        """Records what multipliers or points settle; bool [O] of what is left."""
        import torch

        place = (which[0], which[1])
        rounded = torch.round(state.double() / GRID) * GRID
        proved = self._refuted(which, rounded)
        self.proved[place] = proved
        self.multipliers[place[0][proved], place[1][proved]] = rounded[proved]
        moved = torch.minimum(
            torch.maximum(points, self._inner[0][which[0]]), self._inner[1][which[0]]
        )
        values = (moved * self.own[which[1]]).sum(1) + self.own_offsets[which[1]]
        premise = moved @ self.premise.T + self.premise_offsets
        met = (premise > self._share * self._premise_reach[which[0]] + self._floor).all(1)
        good = met & (values > self._share * self._own_reach[place] + self._floor) & ~proved
        self._keep((place[0][good], place[1][good]), moved[good])
        left: Tensor = ~(proved | good)
        return left

    def _refuted(self, which: Tensor, multipliers: Tensor) -> Tensor:
        """Whether the weighted sums are below zero on the whole boxes, whatever was rounded."""
        import torch

        x = self.own[which[1]] + multipliers @ self.premise
        best = torch.where(x > 0, self.upper[which[0]], self.lower[which[0]])
        offsets = self.own_offsets[which[1]] + multipliers @ self.premise_offsets
        value = (x * best).sum(1) + offsets
        extent = self._own_reach[which[0], which[1]]
        extent = extent + (multipliers * self._premise_reach[which[0]]).sum(1)
        refuted: Tensor = value + self._share * extent + self._floor < 0
        return refuted
