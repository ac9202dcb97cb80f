"""Probabilities under a distribution that is stated, spec by spec: of a region, or of a class.

The distribution is a model. That a formula holds with some probability under it says nothing of
images unless their embeddings are distributed so, which is not tested here.
"""

from enum import StrEnum

import numpy as np

from conspec.encodings.query import queries_of, space_of
from conspec.encodings.regions import class_moments
from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadRegion
from conspec.verifier.probability.designs import gaussian_model, kernel_model
from conspec.verifier.probability.mass import (
    Limits,
    MassBounds,
    class_law,
    final_bounds,
    uniform_law,
)
from conspec.verifier.probability.rare import RareEstimate, Sampling, rare_violation
from conspec.verifier.probability.satisfaction import question_of


class Mass(StrEnum):
    """Distributions on a region."""

    UNIFORM = "uniform"
    """Uniform on the region."""
    GAUSSIAN = "gaussian"
    """Independent normal coordinates with the moments of the class, cut to the region."""


class Tail(StrEnum):
    """Distributions of a class's embeddings."""

    GAUSSIAN = "gaussian"
    """Normal with the class's mean and covariance (its deviations where no axes are stored)."""
    KERNEL = "kernel"
    """A normal distribution around each correctly classified training embedding of the class."""


def mass_of(spec: f.ForAll, lens: Lens, mass: Mass, limits: Limits | None = None) -> MassBounds:
    """Sound bounds of the probability that a spec's formula holds on its region.

    Raises:
        BadRegion: the region is not one box, or is none of a class where its moments are needed.
    """
    queries = queries_of(spec, lens, space_of(lens))
    if len(queries) != 1:
        raise BadRegion("a distribution needs one box; this region is a union")
    (query,) = queries
    if mass is Mass.UNIFORM:
        return final_bounds(query, uniform_law(query), limits)
    return final_bounds(query, class_law(query, class_moments(lens, _label(spec))), limits)


def tail_of(spec: f.Spec, lens: Lens, tail: Tail, how: Sampling | None = None) -> RareEstimate:
    """How probable a violation is in a model of the class that a spec is about.

    Raises:
        BadRegion: the spec is about no class, or the class has no training images.
    """
    label = _label(spec)
    index = lens.class_index(label)
    class_moments(lens, label)  # refuses a class without statistics
    known, data = lens.statistics, lens.embeddings
    if tail is Tail.KERNEL:
        chosen = (data.label == index) & (data.predicted == index) & ~data.heldout
        model = kernel_model(data.z[chosen].astype(np.float64))
    elif known.axes is None:
        model = gaussian_model(known.mean[index], known.std[index])
    else:
        model = gaussian_model(known.mean[index], known.axes[index])
    return rare_violation(space_of(lens), spec.body, model, how)


def _label(spec: f.Spec) -> str:
    """The class that a spec is about."""
    label = question_of(spec).label
    if label is None:
        raise BadRegion("it is about no class whose distribution could be taken")
    return label
