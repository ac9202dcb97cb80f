"""Adversarial images: FGSM, PGD in two norms, targeted, and one that also deceives the monitor.

Sources: FGSM, Goodfellow et al. (2015); PGD with random starts, Madry et al. (2018); the margin
loss, Carlini and Wagner (2017); attacks on the detector itself, Carlini and Wagner, "Adversarial
Examples Are Not Easily Detected" (2017), and Tramèr et al. (2020).

Images are float [N, C, H, W] in [0, 1]. A model is two torch modules or functions: an encoder from
images to embeddings [N, n], and a head from those to logits [N, K]; both differentiable, in
evaluation mode. An attack that finds nothing proves nothing: it gives an upper bound of robustness.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from conspec.analysis.monitor import Monitor
from conspec.specs.errors import BadUsage

Tensor = Any  # torch.Tensor; torch is imported when first used
Function = Callable[[Tensor], Tensor]

STRIDE = 2.5
"""A step is this multiple of radius / steps, so that PGD can reach the border and turn."""
SOFTNESS = 0.05
"""Temperature of a soft comparison, in units of the spread of an image's concept scores."""
STAKE = 0.2
"""How far above its threshold the adaptive attack pushes a score, of the scores' spread."""


class Norm(Enum):
    """The norm of the ball around an image."""

    LINF = "linf"
    L2 = "l2"


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack.

    Attributes:
        radius: of the ball: largest change of a value (1 is white), or Euclidean length.
        steps: gradient steps; 1 is FGSM.
        norm: of the ball.
        random_start: begin at a random point of the ball.
    """

    radius: float
    steps: int = 20
    norm: Norm = Norm.LINF
    random_start: bool = True

    def __post_init__(self) -> None:
        """Refuse a negative radius, and no steps."""
        if not self.radius >= 0 or self.steps < 1:
            raise BadUsage(f"an attack needs a radius >= 0 and a step, not {self}")


def fgsm(radius: float) -> Attack:
    """One step of the full radius along the sign of the gradient."""
    return Attack(radius, steps=1, random_start=False)


@dataclass(frozen=True, eq=False)
class Target:
    """What is attacked.

    Attributes:
        encoder: images [N, C, H, W] → embeddings [N, n].
        head: embeddings [N, n] → logits [N, K].
    """

    encoder: Function
    head: Function


Goal = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From embeddings and logits to a loss [N] that the attack raises, and how good each image is,
[N]: of all iterates, that with the greatest value is returned."""


def attack(target: Target, images: Tensor, goal: Goal, how: Attack, seed: int = 0) -> Tensor:
    """Images [N, C, H, W] in the ball and in [0, 1] that do best for the goal.

    The iterates of each image are compared, its own picture among them, and the best is returned.

    Args:
        target: what is attacked.
        images: float [N, C, H, W] in [0, 1].
        goal: what for; ``misclassify``, ``classify_as`` or ``deceive``.
        how: the ball and the steps.
        seed: of the random start.
    """
    import torch

    start = images.detach()
    noise = torch.Generator(device=start.device).manual_seed(seed)
    current = _started(start, how, noise) if how.random_start else start.clone()
    size = how.radius if how.steps == 1 else STRIDE * how.radius / how.steps
    best = start.clone()
    worth = torch.full((len(start),), -torch.inf, device=start.device)
    with torch.no_grad():
        _keep(best, worth, start, _judged(target, start, goal)[1])
    for _ in range(how.steps):
        leaf = current.clone().requires_grad_()
        loss, value = _judged(target, leaf, goal)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        _keep(best, worth, current, value.detach())
        moved = current + size * _steepest(gradient, how.norm)
        current = _projected(moved, start, how)
    with torch.no_grad():
        _keep(best, worth, current, _judged(target, current, goal)[1])
    return best


def _judged(target: Target, images: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
    z = target.encoder(images)
    return goal(z, target.head(z))


def _keep(best: Tensor, worth: Tensor, images: Tensor, value: Tensor) -> None:
    """Replace what is now surpassed, in place."""
    better = value > worth
    best[better] = images[better]
    worth[better] = value[better].to(worth.dtype)


def _started(images: Tensor, how: Attack, noise: Any) -> Tensor:
    import torch

    random = torch.randn(images.shape, generator=noise, device=images.device, dtype=images.dtype)
    if how.norm is Norm.LINF:
        shift = how.radius * (2 * torch.special.ndtr(random) - 1)
    else:
        share = torch.rand(len(images), generator=noise, device=images.device, dtype=images.dtype)
        shift = how.radius * _each(share, images) * _steepest(random, Norm.L2)
    return _projected(images + shift, images, how)


def _steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """The step of length 1 along which a linear function with this gradient grows most."""
    if norm is Norm.LINF:
        return gradient.sign()
    return gradient / _each(_lengths(gradient).clamp_min(1e-12), gradient)


def _projected(moved: Tensor, images: Tensor, how: Attack) -> Tensor:
    """Back into the ball, then into [0, 1]; the second step only moves towards the image."""
    import torch

    shift = moved - images
    if how.norm is Norm.LINF:
        shift = shift.clamp(-how.radius, how.radius)
    else:
        share = how.radius / _lengths(shift).clamp_min(1e-12)
        shift = shift * _each(share.clamp_max(1.0), shift)
    return torch.clamp(images + shift, 0.0, 1.0)


def _lengths(values: Tensor) -> Tensor:
    return values.flatten(1).norm(dim=1)


def _each(factors: Tensor, images: Tensor) -> Tensor:
    """One factor an image, to multiply images with."""
    return factors.reshape(-1, *(1,) * (images.ndim - 1))


# --- goals -----------------------------------------------------------------------------------


def misclassify(labels: Tensor) -> Goal:
    """Raise the cross-entropy of the true classes [N]; best is the smallest margin."""
    import torch

    def goal(_: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        return loss, -_lead(logits, labels)

    return goal


def classify_as(targets: Tensor) -> Goal:
    """Lower the cross-entropy of chosen classes [N]; best is their largest margin."""
    import torch

    def goal(_: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        return -loss, _lead(logits, targets)

    return goal


def _lead(logits: Tensor, labels: Tensor) -> Tensor:
    """Each image's logit of its class minus the largest of the others, [N]."""
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -float("inf"))
    return own - others.max(dim=1).values


def deceive(monitor: Monitor, labels: Tensor) -> Goal:
    """Be misclassified, and be accepted by the monitor as what one is taken for.

    The attacker knows everything. The score of the wrong class with the largest logit is made
    smooth: ``[s_i > s_j]`` becomes ``sigmoid((s_i − s_j) / T)``. The loss is the smaller of the
    margin of misclassification and the lead of that score over its threshold (both cut), so that
    each step works on what is still missing. Images are judged by the monitor's own flags.

    Args:
        monitor: fitted and calibrated.
        labels: true classes, [N].
    """
    import torch

    soft = SoftMonitor(monitor)

    def goal(z: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        wrong = logits.scatter(1, labels[:, None], -float("inf")).argmax(dim=1)
        fooled = -_lead(logits, labels)
        lead = soft(z, wrong) - soft.thresholds[wrong].clamp(-1e3, 1e3)
        spread = soft.spread[wrong]
        # Both parts in comparable units: a logit's margin, and shares of the scores' spread.
        both = torch.minimum(fooled.clamp_max(1.0), (lead / spread).clamp_max(STAKE) / STAKE)
        judged = monitor.judge(z.detach().cpu().double().numpy())
        accepted = torch.from_numpy(~judged.flagged).to(logits.device)
        # A misclassified and accepted image beats every misclassified one, and that every other.
        rank = (fooled > 0).double() + ((fooled > 0) & accepted).double()
        return both + 0.1 * fooled.clamp_max(1.0), 10 * rank + torch.tanh(both.detach().double())

    return goal


class SoftMonitor:
    """A monitor's score, made differentiable.

    Attributes:
        thresholds: of each class, float64 [K].
        spread: how far the scores of a class can vary: Σ|W| / 2, float64 [K].
    """

    def __init__(self, monitor: Monitor) -> None:
        """Copies of the monitor's arrays as tensors on the CPU."""
        import torch

        weight, bias = monitor.readout.concept_map
        self._weight, self._bias = torch.tensor(weight), torch.tensor(bias)
        self._cells = torch.tensor(monitor.reference.weights)
        self._start = torch.tensor(monitor.reference.start)
        self.thresholds = torch.tensor(monitor.calibration.thresholds)
        self.spread = (self._cells.abs().sum(dim=(1, 2)) / 2).clamp_min(1e-12)

    def __call__(self, z: Tensor, predicted: Tensor) -> Tensor:
        """Smooth scores [N] of embeddings [N, n] taken for classes [N], float64."""
        import torch

        scores = z.double() @ self._weight.T + self._bias
        scale = SOFTNESS * scores.detach().std(dim=1, keepdim=True).clamp_min(1e-12)
        gaps = scores[:, :, None] - scores[:, None, :]
        above = torch.sigmoid(gaps / scale[:, :, None])
        sums = (above * self._cells[predicted]).sum(dim=(1, 2))
        return sums + self._start[predicted]
