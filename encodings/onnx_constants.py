"""The numbers in an ONNX file, read exactly: initializers, constants, external data."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from conspec.encodings.onnx_tensors import MOST_ENTRIES, Tensor, constant
from conspec.specs.errors import BadFile, UnsupportedOperator

FLOATS: dict[int, str] = {TensorProto.FLOAT: "<f4", TensorProto.DOUBLE: "<f8"}
_INTEGERS: dict[int, str] = {
    TensorProto.INT64: "<i8",
    TensorProto.INT32: "<i4",
    TensorProto.BOOL: "|b1",
}
_FIELDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.INT32: "int32_data",
    TensorProto.BOOL: "int32_data",
}
_ALL_FIELDS = (*sorted(set(_FIELDS.values())), "uint64_data", "string_data")


@dataclass(frozen=True, slots=True, eq=False)
class Integers:
    """A constant of integers or truth values: a shape, axes, indices.

    Attributes:
        array: the values, int64.
        kind: the ONNX element type.
    """

    array: NDArray[np.int64]
    kind: int


Value = Tensor | Integers


def kind_name(kind: int) -> str:
    """The ONNX name of an element type."""
    names: dict[int, str] = {number: name for name, number in TensorProto.DataType.items()}
    return names.get(kind, f"number {kind}")


def read_tensor(tensor: TensorProto, folder: Path | None) -> Value:
    """The exact values of a stored tensor.

    Args:
        tensor: as the file has it.
        folder: where external data may lie; None refuses external data.

    Raises:
        BadFile: damaged, NaN or infinite.
        UnsupportedOperator: an element type that is no weight or index.
    """
    label = f"tensor {tensor.name!r}"
    kind, shape = tensor.data_type, tuple(tensor.dims)
    if kind not in FLOATS and kind not in _INTEGERS:
        known = ", ".join(kind_name(k) for k in (*FLOATS, *_INTEGERS))
        raise UnsupportedOperator(
            f"{label}: element type {kind_name(kind)} is not supported; the reader knows {known}"
        )
    if any(size < 0 for size in shape) or len(shape) > 32:
        raise BadFile(f"{label}: {list(shape)} is not a shape")
    if max(prod(shape), *shape, 1) > MOST_ENTRIES:
        raise BadFile(f"{label}: {prod(shape)} numbers are more than the limit {MOST_ENTRIES}")
    values = _flat_values(tensor, label, prod(shape), folder)
    if kind in _INTEGERS:
        return Integers(values.astype(np.int64).reshape(shape), kind)
    return constant(checked_floats(values, label).reshape(shape), kind)


def checked_floats(values: NDArray[Any], label: str) -> NDArray[np.float64]:
    """Float weights as exact float64, refused when empty, NaN or infinite."""
    if not values.size:
        raise BadFile(f"{label} is empty")
    if not np.isfinite(values).all():
        what = "NaN" if np.isnan(values).any() else "infinite"
        raise BadFile(f"{label} has {what} entries")
    return values.astype(np.float64)


def _flat_values(tensor: TensorProto, label: str, count: int, folder: Path | None) -> NDArray[Any]:
    """The numbers in row-major order, from the one place where the tensor has them."""
    if tensor.HasField("segment"):
        raise UnsupportedOperator(f"{label}: tensors in segments are not supported")
    dtype = np.dtype((FLOATS | _INTEGERS)[tensor.data_type])
    filled = [name for name in _ALL_FIELDS if len(getattr(tensor, name))]
    if tensor.data_location == TensorProto.EXTERNAL:
        if filled or tensor.raw_data:
            raise BadFile(f"{label} has numbers inside and outside the file")
        return _decoded(_external_bytes(tensor, label, count * dtype.itemsize, folder), dtype)
    field = _FIELDS[tensor.data_type]
    if tensor.external_data or set(filled) - {field} or (filled and tensor.raw_data):
        raise BadFile(f"{label} has its numbers in several places")
    stored = len(getattr(tensor, field)) if filled else len(tensor.raw_data)
    expected = count if filled else count * dtype.itemsize
    if stored != expected:
        unit = "numbers" if filled else "bytes"
        raise BadFile(f"{label} of shape {list(tensor.dims)} has {stored} {unit}, not {expected}")
    if not filled:
        return _decoded(tensor.raw_data, dtype)
    values: NDArray[Any] = np.array(getattr(tensor, field), dtype=dtype)
    return values


def _decoded(data: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Little-endian numbers; a truth value is any byte but zero."""
    if dtype == np.bool_:
        return np.frombuffer(data, dtype=np.uint8).astype(np.bool_)
    return np.frombuffer(data, dtype=dtype)


def _external_bytes(tensor: TensorProto, label: str, expected: int, folder: Path | None) -> bytes:
    """A tensor's bytes from a file beside the model."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    unknown = sorted(set(entries) - {"location", "offset", "length"})
    if unknown or len(entries) < len(tensor.external_data):
        raise UnsupportedOperator(f"{label}: external data with {unknown or 'repeated'} keys")
    path = _external_path(entries.get("location", ""), label, folder)
    offset = _natural(entries.get("offset", "0"), label)
    length = _natural(entries.get("length", str(expected)), label)
    if length != expected:
        raise BadFile(f"{label} has {length} bytes of external data, not {expected}")
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
    except (OSError, OverflowError) as error:
        raise BadFile(f"{label}: its external data cannot be read: {error}") from None
    if len(data) != length:
        raise BadFile(f"{label}: its external data file {path.name!r} is too short")
    return data


def _external_path(location: str, label: str, folder: Path | None) -> Path:
    """The file, if it is a real one inside the model's folder."""
    if folder is None:
        raise UnsupportedOperator(f"{label}: external data is supported for initializers only")
    inside = Path(location)
    if not location or "\0" in location or inside.is_absolute() or ".." in inside.parts:
        raise BadFile(f"{label}: external data {location!r} lies outside the model's folder")
    try:
        path = (folder / inside).resolve(strict=True)
        regular = path.is_file()
    except (OSError, RuntimeError, ValueError):
        raise BadFile(f"{label}: there is no external data file {location!r}") from None
    if not path.is_relative_to(folder.resolve()):
        raise BadFile(f"{label}: external data {location!r} leads out of the model's folder")
    if not regular:
        raise BadFile(f"{label}: external data {location!r} is not a file")
    return path


def _natural(text: str, label: str) -> int:
    """An offset or a length."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadFile(f"{label}: external data with the offset or length {text!r}")
    return int(text)
