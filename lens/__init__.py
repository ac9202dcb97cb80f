"""Front door of the lens: ``Lens`` reads a bundle, ``build_lens`` makes one.

Importing this package imports no torch: what needs it is imported when first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from conspec.lens.bundle import Lens

if TYPE_CHECKING:
    from conspec.lens.build import LensConfig, build_emoji_lens, build_lens

__all__ = ["Lens", "LensConfig", "build_emoji_lens", "build_lens"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("conspec.lens.build"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
