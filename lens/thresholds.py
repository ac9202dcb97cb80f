"""The cosine above which an image counts as showing a concept: calibration of ``has``.

The paper leaves the threshold of ``hasCon`` open. With attribute labels ours is the best single
threshold on the training images; with only a table of relevant concepts per class it lies
half-way between the two groups of classes; with neither there is none.
"""

import numpy as np
import numpy.typing as npt

DIGITS = 6


def youden(cosines: npt.NDArray[np.float64], present: npt.NDArray[np.bool_]) -> str | None:
    """The threshold with the largest balanced accuracy (Youden's J).

    Args:
        cosines: with the concept's direction, float64 [N].
        present: whether each image shows the concept, bool [N].

    Returns:
        A short decimal t: ``cosine > t`` separates best; or None if a group is empty or no
        threshold is better than chance.
    """
    if present.all() or not present.any():
        return None
    order = np.argsort(cosines)
    values, shown = cosines[order], present[order]
    # Above position i lie the images i+1 … N−1; J = sensitivity + specificity − 1.
    missed = np.cumsum(shown) / shown.sum()
    rejected = np.cumsum(~shown) / (~shown).sum()
    gain = (rejected - missed)[:-1]
    gain[values[1:] <= values[:-1]] = -1.0  # no threshold separates equal cosines
    best = int(gain.argmax())
    return short_decimal(values[best], values[best + 1]) if gain[best] > 0 else None


def between_groups(cosines: npt.NDArray[np.float64], relevant: npt.NDArray[np.bool_]) -> str | None:
    """Half-way between the mean cosines of images of relevant and of other classes.

    Args:
        cosines: with the concept's direction, float64 [N].
        relevant: whether the image's class is one the concept is relevant for, bool [N].

    Returns:
        A short decimal, or None if a group is empty or the relevant one is not above.
    """
    if relevant.all() or not relevant.any():
        return None
    low, high = cosines[~relevant].mean(), cosines[relevant].mean()
    return f"{(low + high) / 2:.{DIGITS}f}" if low < high else None


def short_decimal(low: float, high: float) -> str:
    """The shortest decimal strictly between ``low`` and ``high``, of at most six digits.

    >>> short_decimal(0.12, 0.19)
    '0.15'

    Where no decimal of six digits lies between them, the middle rounded to six.
    """
    middle = (low + high) / 2
    for digits in range(1, DIGITS + 1):
        text = f"{middle:.{digits}f}"
        if low < float(text) < high:
            break
    return text.removeprefix("-") if float(text) == 0 else text
