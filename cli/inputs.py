"""Reading what a command is given: suites and bundles."""

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conspec.specs.errors import BadFile, BadUsage
from conspec.specs.formula import ForAll, Probability, Suite

if TYPE_CHECKING:
    from conspec.lens.bundle import Lens
    from conspec.verifier.probability.shards import Shard

STANDARD_INPUT = "-"
SHIPPED = {"emoji10": Path(__file__).parents[1] / "lens" / "emoji10" / "bundle"}
"""Bundles that ship with conspec, by the name that ``--lens`` takes."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The specs of a suite that a command is about.

    Attributes:
        proofs: those to be proved.
        estimates: names of those about a probability, which ``verify`` does not decide.
    """

    proofs: Suite
    estimates: tuple[str, ...]


def bundle_folder(path: Path) -> Path:
    """The folder that ``--lens`` names: itself, or that of a shipped bundle."""
    return path if path.exists() else SHIPPED.get(str(path), path)


def open_lens(path: Path) -> "Lens":
    """The bundle that ``--lens`` names.

    Raises:
        BadFile: it is none, or not as it was written.
    """
    from conspec.lens.bundle import Lens

    return Lens.load(bundle_folder(path))


def read_text(source: str) -> str:
    """The text of a file, or of standard input for ``-``.

    Raises:
        BadFile: it cannot be read, or is not UTF-8.
    """
    try:
        data = sys.stdin.buffer.read() if source == STANDARD_INPUT else Path(source).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise BadFile(f"{source}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadFile(f"{source}: not UTF-8 text at byte {error.start}") from error


def read_suite(source: str, lens: "Lens | None" = None) -> Suite:
    """The suite of a file, or of standard input for ``-``; see `parse_suite`."""
    return parse_suite(read_text(source), source, lens)


def parse_suite(text: str, source: str, lens: "Lens | None" = None) -> Suite:
    """The suite that a text says; with a bundle, its names must be the bundle's.

    Raises:
        BadFile: it holds no spec.
        SpecSyntaxError: it is not Con_spec.
        UnknownName: the bundle has no such class or concept.
    """
    from conspec.specs.parser import parse

    suite = parse(
        text,
        file="<stdin>" if source == STANDARD_INPUT else source,
        classes=lens.classes if lens else None,
        concepts=lens.concepts if lens else None,
    )
    if not suite.specs:
        raise BadFile(f"{source}: there is no spec in it")
    return suite


def select(suite: Suite, patterns: Sequence[str]) -> Wanted:
    """The specs whose name matches one of the patterns (all, without patterns).

    Raises:
        BadUsage: a pattern matches none, or none is left to be proved.
    """
    chosen = select_specs(suite, patterns).specs
    proofs = tuple(spec for spec in chosen if isinstance(spec, ForAll))
    estimates = tuple(spec.name for spec in chosen if isinstance(spec, Probability))
    if not proofs:
        raise BadUsage(
            f"nothing to prove: {', '.join(estimates[:5])}: "
            "about a probability, which 'conspec estimate' decides"
        )
    return Wanted(Suite(proofs), estimates)


def select_specs(suite: Suite, patterns: Sequence[str]) -> Suite:
    """The specs of either kind whose name matches one of the patterns (all, without patterns).

    Raises:
        BadUsage: a pattern matches none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(spec.name, pattern) for spec in suite.specs):
            some = ", ".join(spec.name for spec in suite.specs[:5])
            more = ", …" if len(suite.specs) > 5 else ""
            raise BadUsage(f"--spec {pattern}: no spec has such a name; there are {some}{more}")
    kept = [spec for spec in suite.specs if not patterns or _matches(spec.name, patterns)]
    return Suite(tuple(kept))


def read_shards(paths: Sequence[Path], dimension: int, classes: int) -> "list[Shard]":
    """Embeddings from files, memory-mapped where the format allows it.

    Args:
        paths: ``.npy`` of embeddings [N, n], or ``.safetensors`` with ``z`` [N, n] and, if it is
            known, ``label`` [N], the numbers of the classes.
        dimension: the n of the bundle.
        classes: how many there are; a negative label is an unknown class.

    Raises:
        BadFile: a file cannot be read, or holds something else.
    """
    import numpy as np

    from conspec.verifier.probability.shards import Shard

    shards = []
    for path in paths:
        arrays = _arrays(path)
        z, label = arrays["z"], arrays.get("label")
        if z.dtype not in (np.float16, np.float32, np.float64):
            raise BadFile(f"{path}: embeddings must be float16, float32 or float64, not {z.dtype}")
        if label is not None and label.dtype.kind not in "iu":
            raise BadFile(f"{path}: labels must be whole numbers, not {label.dtype}")
        try:
            shard = Shard(z, label)
        except BadUsage as error:
            raise BadFile(f"{path}: {error}") from error
        if label is not None and label.size and label.max() >= classes:
            raise BadFile(
                f"{path}: label {label.max()}, but the bundle's {classes} classes are numbered "
                "from 0"
            )
        if shard.embeddings.shape[1] != dimension:
            raise BadFile(
                f"{path}: embeddings of {shard.embeddings.shape[1]} entries; those of the bundle "
                f"have {dimension}"
            )
        shards.append(shard)
    return shards


def _arrays(path: Path) -> "dict[str, Any]":
    """The arrays ``z`` and, perhaps, ``label`` of a file."""
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if path.suffix not in (".npy", ".safetensors"):
        raise BadFile(f"{path}: embeddings are read from .npy and .safetensors files only")
    try:
        if path.suffix == ".npy":
            # Unlike np.load, this reads nothing but .npy, whatever the file holds.
            return {"z": np.lib.format.open_memmap(path, mode="r")}
        arrays = load_file(path)
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror or error}") from error
    except (ValueError, EOFError, TypeError, AttributeError, SafetensorError) as error:
        raise BadFile(f"{path}: no embeddings can be read from it: {error}") from error
    if "z" not in arrays:
        raise BadFile(f"{path}: no tensor 'z' in it; there are {', '.join(arrays)}")
    return {name: arrays[name] for name in ("z", "label") if name in arrays}


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
