"""Attacks stay in their ball, reach their goal, and the adaptive one deceives the monitor."""

from typing import Any

import numpy as np
import pytest
import torch

from conspec.analysis.attacks import (
    Attack,
    Norm,
    SoftMonitor,
    Target,
    attack,
    classify_as,
    deceive,
    fgsm,
    misclassify,
)
from conspec.analysis.monitor import Monitor, Rule, monitor_of
from conspec.lens.bundle import Lens
from conspec.lens.emoji10 import load_classifier, load_images
from conspec.lens.emoji10.models import pixels
from conspec.specs.errors import BadUsage

COUNT = 24
ROUNDING = 1e-6


@pytest.fixture(scope="module")
def lens() -> Lens:
    from conspec.cli.inputs import SHIPPED

    return Lens.load(SHIPPED["emoji10"])


@pytest.fixture(scope="module")
def target() -> Target:
    net = load_classifier().requires_grad_(False)
    return Target(net.encoder, net.head)


@pytest.fixture(scope="module")
def images(lens: Lens) -> tuple[Any, Any]:
    """Correctly classified held-out images and their labels."""
    data = lens.embeddings
    chosen = np.flatnonzero(data.heldout & (data.label == data.predicted))[::4][:COUNT]
    return pixels(load_images().images[chosen]), torch.tensor(data.label[chosen])


@pytest.fixture(scope="module")
def monitor(lens: Lens) -> Monitor:
    data = lens.embeddings
    held = np.flatnonzero(data.heldout)
    fitted = monitor_of(lens, np.flatnonzero(~data.heldout), Rule.CONTRAST)
    return fitted.calibrate(data.z[held], data.predicted[held], data.label[held], "0.3")


def lead(target: Target, images: Any, labels: Any) -> Any:
    """Each image's logit of its class minus the largest other, by plain indexing."""
    with torch.no_grad():
        logits = target.head(target.encoder(images))
    return torch.stack(
        [row[k] - torch.cat([row[:k], row[k + 1 :]]).max() for row, k in zip(logits, labels)]  # noqa: B905
    )


ATTACKS = [
    fgsm(4 / 255),
    Attack(2 / 255, steps=5),
    Attack(8 / 255, steps=5, random_start=False),
    Attack(0.5, steps=5, norm=Norm.L2),
    Attack(2.0, steps=3, norm=Norm.L2, random_start=False),
]


@pytest.mark.parametrize("how", ATTACKS)
def test_attacks_stay_inside_and_lower_the_margin(
    how: Attack, target: Target, images: tuple[Any, Any]
) -> None:
    pictures, labels = images
    moved = attack(target, pictures, misclassify(labels), how)
    assert moved.min() >= 0
    assert moved.max() <= 1
    shift = (moved - pictures).flatten(1)
    size = shift.abs().amax(dim=1) if how.norm is Norm.LINF else shift.norm(dim=1)
    assert size.max() <= how.radius + ROUNDING
    assert size.max() > how.radius / 2
    before, after = (lead(target, x, labels) for x in (pictures, moved))
    assert (after <= before).all()  # the best iterate, and the image itself is one
    assert (after < before).float().mean() > 0.9
    assert (after < 0).any()


def test_targeted_attack(target: Target, images: tuple[Any, Any]) -> None:
    pictures, labels = images
    goals = (labels + 1) % 10
    moved = attack(target, pictures, classify_as(goals), Attack(16 / 255, steps=10))
    assert (lead(target, moved, goals) > 0).float().mean() > 0.4
    assert (lead(target, moved, goals) > lead(target, pictures, goals)).all()


def test_a_larger_ball_fools_more_often(target: Target, images: tuple[Any, Any]) -> None:
    pictures, labels = images
    rates = [
        float((lead(target, attack(target, pictures, misclassify(labels), Attack(k / 255, steps=8)),
                    labels) < 0).float().mean())
        for k in (0, 2, 16)
    ]  # fmt: skip
    assert rates[0] == 0.0
    assert rates[0] < rates[1] < rates[2]


def test_attacks_can_be_repeated(target: Target, images: tuple[Any, Any]) -> None:
    pictures, labels = images[0][:8], images[1][:8]
    how = Attack(4 / 255, steps=3)
    first, again, other = (
        attack(target, pictures, misclassify(labels), how, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_soft_score_approaches_the_score(monitor: Monitor, lens: Lens) -> None:
    z = torch.tensor(lens.embeddings.z[:200])
    judged = monitor.judge(z.numpy())
    soft = SoftMonitor(monitor)(z, torch.tensor(judged.predicted)).numpy()
    assert np.corrcoef(soft, judged.score)[0, 1] > 0.97
    assert np.abs(soft - judged.score).mean() < 0.1


def test_adaptive_attack_passes_the_monitor_more_often(
    target: Target, images: tuple[Any, Any], monitor: Monitor
) -> None:
    pictures, labels = images
    past = {}
    how = Attack(4 / 255, steps=12)
    for name, goal in (("plain", misclassify(labels)), ("adaptive", deceive(monitor, labels))):
        moved = attack(target, pictures, goal, how)
        assert (moved - pictures).abs().max() <= how.radius + ROUNDING
        with torch.no_grad():
            judged = monitor.judge(target.encoder(moved).numpy())
        fooled = judged.predicted != labels.numpy()
        past[name] = int((fooled & ~judged.flagged).sum())
    assert past["adaptive"] > past["plain"]


@pytest.mark.parametrize("norm", Norm)
def test_projection_leaves_what_is_inside(norm: Norm) -> None:
    from conspec.analysis.attacks import _projected

    random = torch.Generator().manual_seed(3)
    pictures = 0.4 + 0.2 * torch.rand((5, 3, 4, 4), generator=random)
    shift = 0.01 * torch.randn(pictures.shape, generator=random)
    kept = _projected(pictures + shift, pictures, Attack(1.0, norm=norm))
    assert torch.allclose(kept, pictures + shift, atol=1e-6)


@pytest.mark.parametrize(("radius", "steps"), [(-1.0, 5), (0.1, 0), (float("nan"), 5)])
def test_bad_attacks_are_refused(radius: float, steps: int) -> None:
    with pytest.raises(BadUsage, match="needs a radius"):
        Attack(radius, steps)
