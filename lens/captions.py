"""The captions that turn a word into a direction of the VLM's embedding space.

The 69 templates are those that the independent derivatives of paper 1 share: OpenAI's ImageNet
templates, trimmed, and ten "containing" and "with" captions for concepts that are parts.
"""

from collections.abc import Callable
from itertools import product

import numpy as np
import numpy.typing as npt

from conspec.specs.errors import BadFile

_ARTICLES = ("a", "the")
_LOOKS = (
    "bad", "cropped", "bright", "dark", "close-up", "black and white", "pixelated",
    "jpeg corrupted", "blurry", "good", "low resolution",
)  # fmt: skip
_KINDS = ("clean", "dirty", "cool", "nice", "weird", "small", "large", "hard to see")
_ARTS = ("rendering", "drawing", "painting", "sketch", "doodle")
# "{}" is the concept; each row is a template and what its other two places run over.
_FAMILIES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("a {0} photo of {1} {{}}", _LOOKS, _ARTICLES),
    ("a photo of {1} {0} {{}}", _KINDS, _ARTICLES),
    ("a {0} of {1} {{}}", _ARTS, _ARTICLES),
    ("{1} {{}} in an image", ("",), _ARTICLES),
    ("art of {1} {{}}", ("",), _ARTICLES),
    ("{1} cartoon {{}}", ("",), _ARTICLES),
    ("a photo of {1} {{}}", ("",), _ARTICLES),
    ("a photo of {0} {{}}", ("many", "my", "one"), ("",)),
    ("a photo {0} {1} {{}}", ("containing", "with"), _ARTICLES),
    ("a photo {0} {1} {{}} object", ("containing", "with", "of"), _ARTICLES),
)

TEMPLATES: tuple[str, ...] = tuple(
    form.format(first, second)
    for form, firsts, seconds in _FAMILIES
    for first, second in product(firsts, seconds)
)


def captions(concept: str) -> tuple[str, ...]:
    """The 69 captions that mention ``concept``.

    >>> len(captions("wheels")), captions("wheels")[0]
    (69, 'a bad photo of a wheels')
    """
    return tuple(template.replace("{}", concept) for template in TEMPLATES)


def pool(
    texts: npt.NDArray[np.float32], normalize_before_mean: bool = False
) -> npt.NDArray[np.float32]:
    """One unit direction from the text embeddings of a concept's captions (paper 1, rep).

    Args:
        texts: text embeddings as the VLM gives them, float32 [T, p].
        normalize_before_mean: give each caption the same weight whatever its norm.

    Returns:
        The normalised mean, computed in float64, float32 [p].

    Raises:
        BadFile: an embedding or the mean is zero, NaN or infinite: it has no direction.
    """
    rows = texts.astype(np.float64)
    if normalize_before_mean:
        rows = unit(rows)
    return unit(rows.mean(axis=0)).astype(np.float32)


def directions(
    concepts: tuple[str, ...],
    encode_text: Callable[[list[str]], npt.NDArray[np.float32]],
    normalize_before_mean: bool = False,
) -> npt.NDArray[np.float32]:
    """The unit direction of each concept, float32 [M, p]; see :func:`pool`."""
    rows = [pool(encode_text(list(captions(c))), normalize_before_mean) for c in concepts]
    return np.stack(rows)


def unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Each row (or the one vector) divided by its norm.

    Raises:
        BadFile: a row is zero, NaN or infinite.
    """
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise BadFile("the VLM gave a zero, NaN or infinite embedding, which has no direction")
    return np.asarray(rows / norms, dtype=np.float64)
