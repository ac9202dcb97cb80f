"""The user's own code and weights: ``module.py:name``, ``package.module:name``, safetensors.

And weights from the internet, whose absence is an everyday failure: see :func:`fetching`.
"""

import importlib
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from conspec.specs.errors import BadFile, BadUsage

if TYPE_CHECKING:
    from torch import nn

_FORMS = (
    "expected FILE.py:NAME or PACKAGE.MODULE:NAME; "
    "a classifier may also be timm:NAME, torchvision:NAME or cifar:NAME"
)


def load_attribute(spec: str) -> Any:
    """What ``spec`` names, which runs the module it is in.

    Args:
        spec: ``path/to/module.py:name`` or ``package.module:name``.

    Raises:
        BadUsage: the text has another form, or there is no such module or name.
    """
    where, colon, name = spec.rpartition(":")
    if not colon or not name.isidentifier():
        raise BadUsage(f"{spec!r}: {_FORMS}")
    module = _module_of_file(Path(where)) if where.endswith(".py") else _module(where, spec)
    if not hasattr(module, name):
        raise BadUsage(f"{spec!r}: {where} has no {name!r}")
    return getattr(module, name)


def _module(name: str, spec: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise BadUsage(f"{spec!r}: no module named {error.name!r}; {_FORMS}") from error


def _module_of_file(path: Path) -> Any:
    found = importlib.util.spec_from_file_location(f"conspec_plugin_{path.stem}", path)
    if not path.is_file() or found is None or found.loader is None:
        raise BadUsage(f"{path}: no such file")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def require_safetensors(path: Path) -> None:
    """Refuse weights that only unpickling could read.

    Raises:
        BadFile: the file is missing or is not called ``….safetensors``.
    """
    if path.suffix != ".safetensors":
        raise BadFile(
            f"{path}: weights must be a .safetensors file; other formats run code when "
            "they are read (convert with safetensors.torch.save_file(model.state_dict(), …))"
        )
    if not path.is_file():
        raise BadFile(f"{path}: no such file")


def load_weights(module: "nn.Module", path: Path) -> None:
    """Put the weights of a safetensors file into ``module``; all of them, and no others.

    Raises:
        BadFile: the file is damaged, or its tensors are not those of the module.
    """
    from safetensors.torch import load_file

    require_safetensors(path)
    try:
        module.load_state_dict(load_file(path), strict=True)
    except (SafetensorError, OSError) as error:
        raise BadFile(f"{path}: not a valid safetensors file: {error}") from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise BadFile(f"{path}: these weights do not fit the model: {reason}") from error


@contextmanager
def fetching(what: str, instead: str) -> Iterator[None]:
    """Make one line of whatever goes wrong while libraries fetch ``what``; their logs are off.

    Args:
        what: what the error says cannot be fetched.
        instead: what the error tells the user to give.

    Raises:
        BadFile: of any failure inside.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    except Exception as error:  # of http, hubs, checksums: they have no common base
        reason = shorten(f"{type(error).__name__}: {error}", 200, placeholder=" …")
        raise BadFile(f"cannot fetch {what} (no network?); give {instead} ({reason})") from error
    finally:
        logging.disable(before)
