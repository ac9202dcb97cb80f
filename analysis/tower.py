"""A vision-language model's image tower as a classifier: a linear head fitted on top of it.

It gives a second model for the same pictures, so that studies can compare model families.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from conspec.lens.bundle import Lens
from conspec.specs.errors import BadUsage

if TYPE_CHECKING:
    from conspec.lens.encoders import Classifier
    from conspec.lens.vlm import OpenClip

RIDGE = 1e-2
"""Of the fitted head, as a share of the mean variance of an embedding's entries."""


def tower_classifier(vlm: "OpenClip", lens: Lens, name: str) -> "Classifier":
    """The image tower with a head fitted by ridge regression on the bundle's training images.

    The targets are 1 for the image's class and 0 for the others; embeddings and targets are
    centred. The tower's own weights are left as they are.

    Args:
        vlm: a model of open_clip; the bundle's VLM embeddings must be its.
        lens: the bundle.
        name: what the model is called.

    Raises:
        BadUsage: no training image has a known class, or the tower's preparation is unknown.
    """
    import torch
    from torch import nn

    from conspec.lens.encoders import split
    from conspec.lens.preprocess import Preprocess

    tower: Any = vlm.model.visual
    how = getattr(tower, "preprocess_cfg", None)
    if how is None or how["resize_mode"] != "shortest" or how["size"][0] != how["size"][1]:
        raise BadUsage(f"{name}: prepares pictures in a way that cannot be taken over")
    side = int(how["size"][0])
    prepared = Preprocess(side, side, how["mean"], how["std"], how["interpolation"])
    weight, bias = _ridge(lens)
    head = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    return split(nn.Sequential(tower, head), prepared, name)


def _ridge(lens: Lens) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float64]], ...]:
    """Weight [K, p] and bias [K]."""
    data = lens.embeddings
    chosen = ~data.heldout & (data.label >= 0)
    if not chosen.any():
        raise BadUsage(f"{lens.name}: no training image has a known class to fit a head on")
    z = data.vlm[chosen].astype(np.float64)
    targets = np.eye(len(lens.classes))[data.label[chosen]]
    mean, share = z.mean(axis=0), targets.mean(axis=0)
    centred = z - mean
    gram = centred.T @ centred
    ridge = RIDGE * np.trace(gram) / len(gram)
    weight = np.linalg.solve(gram + ridge * np.eye(len(gram)), centred.T @ (targets - share)).T
    return weight, share - weight @ mean
