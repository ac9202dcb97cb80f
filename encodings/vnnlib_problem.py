"""A VNN-LIB file and the ONNX file that it is about, read together."""

from pathlib import Path

from conspec.encodings.network import Network
from conspec.encodings.onnx_reader import read_network
from conspec.encodings.vnnlib_property import Declared, Property
from conspec.encodings.vnnlib_reader import read_property
from conspec.specs.errors import BadFile


def read_problem(prop: Path, model: Path) -> tuple[Property, Network]:
    """The property and the exact network.

    Raises:
        BadFile: one of them cannot be read, or they do not fit together.
        UnsupportedOperator: as `read_network`.
        MissingSolver: as `read_property`.
    """
    stated, network = read_property(prop), read_network(model)
    check_shapes(stated, model)
    return stated, network


def check_shapes(prop: Property, model: Path) -> None:
    """Refuse a VNN-LIB 2.0 property whose shapes are not the model's.

    VNN-LIB 1.0 numbers inputs and outputs without a shape. In 2.0, ``X[2,0]`` of another shape than
    the model's would be a guess.

    Raises:
        BadFile: the shapes differ; a size that the model leaves open fits any.
    """
    if prop.version.startswith("1"):
        return
    import onnx

    graph = onnx.load(str(model), load_external_data=False).graph
    stored = {entry.name for entry in graph.initializer}
    (entry,) = (entry for entry in graph.input if entry.name not in stored)
    for declared, value in ((prop.inputs, entry), (prop.outputs, graph.output[0])):
        shape = value.type.tensor_type.shape
        sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in shape.dim]
        if value.type.tensor_type.HasField("shape") and not _fits(declared, sizes):
            written = [size if size is not None else "?" for size in sizes]
            raise BadFile(
                f"{prop.source}: {declared.name} has the shape {list(declared.shape)}, but in "
                f"{model} it has {written}"
            )


def _fits(declared: Declared, sizes: list[int | None]) -> bool:
    """Whether a declared shape is one that the model can have."""
    pairs = zip(declared.shape, sizes, strict=False)
    return len(declared.shape) == len(sizes) and all(size in (None, own) for own, size in pairs)
