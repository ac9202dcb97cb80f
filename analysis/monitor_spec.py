"""The monitor that is a formula of Con_spec: the rule ``count``.

Its score counts pairs of concepts in the right order, so that "accepted" is "at least k of these
comparisons hold", which ``verify`` proves or refutes over a region, with a certificate.
"""

import numpy as np

from conspec.analysis.monitor import Monitor, Readout, Rule
from conspec.specs import formula as f
from conspec.specs.errors import BadUsage, UnknownName


def acceptance(monitor: Monitor, label: str) -> f.Formula:
    """When an input predicted as a class is accepted, as a formula: at least k pairs in order.

    Raises:
        BadUsage: the monitor's rule is not ``count``, or the class has no reference.
        UnknownName: there is no such class.
    """
    if monitor.rule is not Rule.COUNT:
        raise BadUsage(f"only the rule 'count' is a formula of Con_spec, not '{monitor.rule}'")
    place = place_of(monitor.readout, label)
    names, threshold = monitor.readout.concepts, float(monitor.calibration.thresholds[place])
    pairs = tuple(
        f.Stronger(names[a], names[b])
        for a, b in np.argwhere(monitor.reference.weights[place]).tolist()
    )
    if threshold > len(pairs):  # as is ALWAYS
        return f.Constant(False)
    needed = int(np.ceil(threshold))
    if needed <= 0:  # as is NEVER
        return f.Constant(True)
    return pairs[0] if len(pairs) == 1 else f.AtLeast(needed, pairs)


def acceptance_spec(monitor: Monitor, label: str, region: f.Region, name: str) -> f.ForAll:
    """``forall x in R: predict(c) => (accepted)``, for ``conspec verify``; see ``acceptance``."""
    return f.ForAll(name, region, f.Implies(f.Predict(label), acceptance(monitor, label)))


def place_of(readout: Readout, label: str) -> int:
    """The place of a class; UnknownName if there is none."""
    if label not in readout.classes:
        raise UnknownName(f"the monitor knows no class '{label}'")
    return readout.classes.index(label)
