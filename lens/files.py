"""Reading files that may be damaged or hostile: JSON, safetensors, and names inside a folder.

Everything wrong with a file is a ``BadFile`` that names it and the place; nothing is unpickled.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from conspec.specs.errors import BadFile

Array = npt.NDArray[Any]

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_DTYPES: dict[str, type[np.generic]] = {
    "F32": np.float32,
    "F64": np.float64,
    "I64": np.int64,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One array of a safetensors file: its dtype and its shape in named sizes."""

    dtype: str
    shape: tuple[str, ...]
    optional: bool = False


def member(folder: Path, name: str) -> Path:
    """The regular file ``name`` directly inside ``folder``.

    Raises:
        BadFile: the name is not a plain one, the file is missing, or a link leads outside.
    """
    path = folder / name
    if not _PLAIN_NAME.fullmatch(name):
        raise BadFile(f"{folder}: {name!r} is not the plain name of a file in this folder")
    if not path.is_file():
        raise BadFile(f"{path}: no such file")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BadFile(f"{path}: is a link that leads out of {folder}")
    return path


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes.

    Raises:
        BadFile: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BadFile(f"{path}: cannot be read: {error.strerror}") from error


def read_bytes(path: Path) -> bytes:
    """The whole file.

    Raises:
        BadFile: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadFile(f"{path}: cannot be read: {error.strerror}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object without duplicate keys, NaN or infinity.

    Raises:
        BadFile: it cannot be read, or is anything else.
    """
    return parse_json(read_bytes(path), path)


def parse_json(data: bytes, path: Path) -> dict[str, Any]:
    """As :func:`read_json`, for bytes already read from ``path``."""
    try:
        value = json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{path}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadFile(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key stands twice among {[key for key, _ in pairs][:8]}")
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number")


def read_arrays(
    path: Path, layout: Mapping[str, Field], sizes: Mapping[str, int]
) -> dict[str, Array]:
    """The arrays of a safetensors file, checked against ``layout``; read-only.

    Args:
        path: the file.
        layout: the fields it must have; no others may be there.
        sizes: what the letters in the shapes stand for; an unlisted letter may be any size.

    Raises:
        BadFile: damaged file, missing or unknown array, wrong dtype or shape, NaN or infinity.
    """
    try:
        with safe_open(path, framework="np") as file:
            _check_names(path, set(file.keys()), layout)
            names = [name for name in layout if name in file.keys()]  # noqa: SIM118 (no dict)
            for name in names:
                part = file.get_slice(name)
                _check_header(path, name, (part.get_dtype(), part.get_shape()), layout, sizes)
            arrays = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise BadFile(f"{path}: not a valid safetensors file: {error}") from error
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise BadFile(f"{path}: {name} holds NaN or infinity")
        array.flags.writeable = False
    return arrays


def _check_names(path: Path, found: set[str], layout: Mapping[str, Field]) -> None:
    required = {name for name, field in layout.items() if not field.optional}
    if missing := sorted(required - found):
        raise BadFile(f"{path}: array {missing[0]!r} is missing")
    if unknown := sorted(found - set(layout)):
        raise BadFile(f"{path}: unknown array {unknown[0]!r}; expected {sorted(layout)}")


def _check_header(
    path: Path,
    name: str,
    header: tuple[str, list[int]],
    layout: Mapping[str, Field],
    sizes: Mapping[str, int],
) -> None:
    dtype, shape = header
    field = layout[name]
    if dtype != field.dtype:
        raise BadFile(f"{path}: {name} has dtype {dtype}, expected {field.dtype}")
    expected = [sizes.get(letter, "any") for letter in field.shape]
    fits = len(shape) == len(expected) and all(
        want in ("any", got) for want, got in zip(expected, shape, strict=True)
    )
    if not fits:
        raise BadFile(f"{path}: {name} has shape {shape}, expected {expected}")


def typed(array: Array, dtype: str) -> Array:
    """A C-contiguous copy of ``array`` in the numpy type that safetensors calls ``dtype``."""
    return np.ascontiguousarray(array, dtype=_DTYPES[dtype])
