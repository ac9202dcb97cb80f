"""The ONNX file of a query computes exactly the query's functions, and others can run it."""

import importlib.util
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from conspec.encodings.boxed import Boxed, over_box
from conspec.encodings.exact import Vector, from_array, objects, vector
from conspec.encodings.images import Image, Shape
from conspec.encodings.network import Affine, Network
from conspec.encodings.onnx_reader import read_network
from conspec.encodings.onnx_writer import write_network, write_with_encoder
from conspec.encodings.query import Query, space_of
from conspec.encodings.scores import ScoreSpace
from conspec.lens import Lens, emoji10
from conspec.lens.encoder_export import export_encoder
from conspec.lens.encoders import split
from conspec.lens.onnx_files import affine_model
from conspec.lens.preprocess import Preprocess
from conspec.specs.errors import BadFile, BadUsage
from tests import spaces

FEW = settings(max_examples=40, derandomize=True, deadline=None)
DEEP = spaces.spaces(depth=st.integers(0, 2))
DEEP_SINGLE = spaces.spaces(depth=st.integers(0, 2), weights=spaces.SINGLE)
NUMBERS = st.sampled_from([Fraction(v) for v in ("0", "1", "-1", "1/3", "0.5", "-5/7", "1e-9")])


def written(boxed: Boxed, folder: Path) -> Path:
    path = folder / "network.onnx"
    write_network(boxed, path)
    return path


def outputs(boxed: Boxed, inputs: Vector) -> list[Fraction]:
    """Logits and concept scores at exact inputs, from the composed functions."""
    space = boxed.query.space
    return [*space.head.exact(inputs), *space.concept_map.exact(inputs)]


@st.composite
def stored_images(draw: st.DrawFn, shape: Shape) -> Query:
    """A query over an image whose centre is stored in float64, as every bundle's is."""
    found = draw(spaces.images(DEEP_SINGLE, shape))
    assert isinstance(found.region, Image)
    center = from_array(found.region.center.floats())
    image = Image(center, found.region.generators, found.region.scale, shape)
    return Query(found.spec, found.space, image, 0, found.cuts)


def any_query() -> st.SearchStrategy[Query]:
    return st.one_of(
        spaces.queries(DEEP),
        spaces.queries(DEEP_SINGLE),
        st.sampled_from(Shape).flatmap(stored_images),
    )


@FEW
@given(any_query(), st.data())
def test_reading_back_gives_the_same_functions(
    tmp_path_factory: pytest.TempPathFactory, found: Query, data: st.DataObject
) -> None:
    boxed = over_box(found)
    network = read_network(written(boxed, tmp_path_factory.mktemp("onnx")))
    size = boxed.region.dimension
    assert (network.inputs, network.outputs) == (
        size,
        len(outputs(boxed, vector([Fraction(0)] * size))),
    )
    inputs = vector(data.draw(st.lists(NUMBERS, min_size=size, max_size=size)))
    assert network.exact(inputs) == outputs(boxed, inputs)
    if network.is_affine:
        space = boxed.query.space
        rows = [*space.head.affines[0].weight.tolist(), *space.concept_map.weight.tolist()]
        assert network.affines[0].weight.tolist() == rows


@FEW
@given(any_query(), st.data())
def test_onnxruntime_runs_it(
    tmp_path_factory: pytest.TempPathFactory, found: Query, data: st.DataObject
) -> None:
    boxed = over_box(found)
    path = written(boxed, tmp_path_factory.mktemp("onnx"))
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (entry,), (result,) = session.get_inputs(), session.get_outputs()
    size = boxed.region.dimension
    assert (entry.name, entry.shape, result.name) == ("X", [1, size], "Y")
    inputs = data.draw(st.lists(NUMBERS, min_size=size, max_size=size))
    kind = np.float32 if entry.type == "tensor(float)" else np.float64
    given_values = np.array([[float(value) for value in inputs]], dtype=kind)
    (values,) = session.run(["Y"], {"X": given_values})
    expected = [float(value) for value in outputs(boxed, from_array(given_values[0].astype("f8")))]
    assert values.shape == (1, len(expected))
    assert np.allclose(values[0], expected, rtol=1e-4, atol=1e-3)


def kinds(path: Path) -> set[int]:
    return {tensor.data_type for tensor in onnx.load(path).graph.initializer}


def flat_query(weight: float) -> Query:
    scores = spaces.space(([[weight]], [0.0]), ([[1.0]], [0.0]))
    return spaces.query(scores, "score(a) > 0", spaces.box_of([0], [1]))


def test_the_smallest_exact_type_is_taken(tmp_path: Path) -> None:
    assert kinds(written(over_box(flat_query(0.5)), tmp_path)) == {TensorProto.FLOAT}
    for weight in (0.1, 1e39, 1e-46):  # not float32: too fine, too large, too small
        path = written(over_box(flat_query(weight)), tmp_path)
        assert kinds(path) == {TensorProto.DOUBLE}
        assert read_network(path).exact(vector([Fraction(1)])) == [1, Fraction(weight)]


def test_one_double_generator_makes_all_double(tmp_path: Path) -> None:
    image = Image(vector([Fraction(1)]), np.array([[0.1]]), Fraction(1, 3), Shape.CUBE)
    found = spaces.query(spaces.identity(1), "a > a", image)
    path = written(over_box(found), tmp_path)
    assert kinds(path) == {TensorProto.DOUBLE}
    graph = onnx.load(path).graph
    assert [node.op_type for node in graph.node] == ["Gemm", "Gemm"]
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    assert stored["embedding_weight"].tolist() == [[0.1]]


def test_a_third_is_refused(tmp_path: Path) -> None:
    third = objects([Fraction(1, 3)], (1, 1))
    layer = Affine(third, np.zeros(1))
    scores = ScoreSpace(("x",), (), Network((layer,)), Affine(np.zeros((0, 1)), np.zeros(0)))
    found = spaces.query(scores, "logit(x) > 0", spaces.box_of([0], [1]))
    with pytest.raises(BadUsage, match="weight 1/3 is no float64, and ONNX has no other numbers"):
        write_network(over_box(found), tmp_path / "n.onnx")
    assert not (tmp_path / "n.onnx").exists()


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"none/n\.onnx: cannot be written: No such file"):
        write_network(over_box(flat_query(1.0)), tmp_path / "none" / "n.onnx")


def test_the_operators_are_few_and_the_bytes_always_the_same(tmp_path: Path) -> None:
    layer = ([[1.0, 2.0], [0.5, -1.0]], [0.0, 1.0])
    for hidden, expected in (
        ([layer], ["Gemm"]),
        ([layer, layer], ["Gemm", "Relu", "Gemm", "Gemm", "Concat"]),
    ):
        found = spaces.query(spaces.space(layer, *hidden), "a > b", spaces.box_of([0, 0], [1, 1]))
        path = written(over_box(found), tmp_path)
        model = onnx.load(path)
        assert [node.op_type for node in model.graph.node] == expected
        assert (model.opset_import[0].version, model.ir_version) == (13, 7)
        first = path.read_bytes()
        assert written(over_box(found), tmp_path).read_bytes() == first


def test_without_concepts_nothing_is_joined(tmp_path: Path) -> None:
    layers = (spaces.affine([[1.0], [2.0]], [0.0, 1.0]), spaces.affine([[1.0, -1.0]], [0.25]))
    nothing = Affine(np.zeros((0, 1)), np.zeros(0))
    for head in (Network(layers), Network(layers[:1])):
        names = tuple("abc"[: head.outputs])
        scores = ScoreSpace(names, (), head, nothing)
        found = spaces.query(scores, "logit(a) > 0", spaces.box_of([0], [1]))
        path = written(over_box(found), tmp_path)
        assert "Concat" not in {node.op_type for node in onnx.load(path).graph.node}
        point = vector([Fraction(1, 3)])
        assert read_network(path).exact(point) == head.exact(point)


MARABOU = """
import sys, warnings
warnings.simplefilter("ignore")
from maraboupy import Marabou
network = Marabou.read_onnx(sys.argv[1])
for variable, value in zip(network.inputVars[0].flatten(), map(float, sys.argv[2:])):
    network.setLowerBound(variable, value)
    network.setUpperBound(variable, value)
word, values, _ = network.solve(verbose=False, options=Marabou.createOptions(verbosity=0))
print("FOUND", *[values[variable] for variable in network.outputVars[0].flatten()])
"""


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("is_image", [False, True])
def test_marabou_reads_it(tmp_path: Path, depth: int, is_image: bool) -> None:
    if importlib.util.find_spec("maraboupy") is None:
        pytest.skip("maraboupy is not installed")
    random = np.random.default_rng(depth)

    def layer(rows: int, columns: int) -> spaces.Layer:
        weight = random.normal(size=(rows, columns)).astype(np.float32).astype(np.float64)
        return weight.tolist(), [0.5] * rows

    head = [layer(3, 3)] if depth == 0 else [layer(4, 3), layer(5, 4), layer(3, 5)]
    region = (
        Image(vector([Fraction(1)] * 3), random.normal(size=(3, 2)), Fraction(1), Shape.CUBE)
        if is_image
        else spaces.box_of([-1] * 3, [1] * 3)
    )
    boxed = over_box(spaces.query(spaces.space(layer(2, 3), *head), "a > b", region))
    path = written(boxed, tmp_path)
    inputs = [0.5, -0.25, 0.75][: boxed.region.dimension]
    command = [sys.executable, "-c", MARABOU, str(path), *map(str, inputs)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    found = next(line for line in answer.stdout.splitlines() if line.startswith("FOUND"))
    expected = [float(value) for value in outputs(boxed, vector(map(Fraction, inputs)))]
    assert np.allclose([float(word) for word in found.split()[1:]], expected, atol=1e-5)


# --- with an encoder ----------------------------------------------------------------------------


def encoder_file(folder: Path, batch: int | str = 1, **changes: object) -> Path:
    """Pictures [batch, 2, 2] → embeddings [batch, 3]: a flatten, a Gemm and a ReLU."""
    weight = (np.arange(12, dtype=np.float32) - 5).reshape(3, 4) / 4
    nodes = [
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["scores_before"], transB=1),
        helper.make_node("Relu", ["scores_before"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, 2, 2])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [batch, 3])],
        [
            onnx.numpy_helper.from_array(weight, "w"),
            onnx.numpy_helper.from_array(np.ones(3, np.float32), "b"),
        ],
    )
    opset = [helper.make_opsetid("", int(str(changes.get("opset", 17))))]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    path = folder / "encoder.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def joined_space(weight: float = 0.5, *, hidden: bool = True) -> ScoreSpace:
    three = ([[1.0, -1.0, 0.5], [0.0, 2.0, weight], [1.0, 1.0, 1.0]], [0.0, 0.5, -1.0])
    return spaces.space(three, three, three) if hidden else spaces.space(three, three)


@pytest.mark.parametrize("batch", [1, "N"])
@pytest.mark.parametrize("hidden", [False, True])
def test_the_embedding_is_a_tensor_of_the_joined_network(
    tmp_path: Path, batch: int | str, hidden: bool
) -> None:
    space, path = joined_space(hidden=hidden), tmp_path / "joined.onnx"
    encoder = encoder_file(tmp_path, batch)
    assert write_with_encoder(encoder, space, path) == "z"
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    pixels = np.linspace(-1, 2, 4, dtype=np.float32).reshape(1, 2, 2)
    (expected,) = ort.InferenceSession(encoder).run(None, {"pixels": pixels})
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3]))
    session = ort.InferenceSession(model.SerializeToString())
    scores, z = session.run(None, {"pixels": pixels})
    assert np.array_equal(z, expected)
    point = from_array(z[0].astype(np.float64))
    exact = [*space.head.exact(point), *space.concept_map.exact(point)]
    assert np.allclose(scores, [[float(value) for value in exact]])
    assert session.get_inputs()[0].shape == [1, 2, 2]
    # The exact reader knows all these operators, so the whole network can be compared.
    pixel_point = from_array(pixels.ravel().astype(np.float64))
    assert read_network(path).exact(pixel_point) == [
        *space.head.exact(vector(read_network(encoder).exact(pixel_point))),
        *space.concept_map.exact(vector(read_network(encoder).exact(pixel_point))),
    ]


def test_the_embedding_of_emoji_10_is_the_stored_one(tmp_path: Path) -> None:
    """The whole shipped network: pictures, embedding, logits and concept scores."""
    lens = Lens.load(Path(emoji10.__file__).parent / "bundle")
    space, path = space_of(lens), tmp_path / "whole.onnx"
    made = split(emoji10.load_classifier(), Preprocess(32, 32), "emoji10")
    (tmp_path / "encoder.onnx").write_bytes(export_encoder(made))
    assert write_with_encoder(tmp_path / "encoder.onnx", space, path) == "embedding"
    model = onnx.load(path)
    size = [1, lens.dim]
    model.graph.output.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, size))
    session = ort.InferenceSession(model.SerializeToString())
    images = emoji10.load_images().images
    for place in (0, 7, 300):
        pixels = images[place].astype(np.float32).transpose(2, 0, 1)[None] / np.float32(255)
        scores, z = session.run(None, {"pixels": pixels})
        assert np.allclose(z[0], lens.embeddings.z[place], atol=1e-3)
        point = from_array(z[0].astype(np.float64))
        exact = [*space.head.exact(point), *space.concept_map.exact(point)]
        assert np.allclose(scores[0], [float(value) for value in exact], atol=1e-3)


def test_encoders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "joined.onnx"
    encoder = encoder_file(tmp_path)
    with pytest.raises(BadUsage, match=r"weight 0\.1 is no float32"):
        write_with_encoder(encoder, joined_space(0.1), out)
    with pytest.raises(BadFile, match="with this head is no valid ONNX model"):
        write_with_encoder(encoder, spaces.identity(2), out)
    with pytest.raises(BadFile, match="opset 13 or newer"):
        write_with_encoder(encoder_file(tmp_path, opset=11), joined_space(), out)
    with pytest.raises(BadFile, match=r"none\.onnx: cannot be read: No such file"):
        write_with_encoder(tmp_path / "none.onnx", joined_space(), out)
    (tmp_path / "bad.onnx").write_bytes(b"\xff\xff no model")
    with pytest.raises(BadFile, match="not a valid ONNX file"):
        write_with_encoder(tmp_path / "bad.onnx", joined_space(), out)
    assert not out.exists()


def test_an_encoder_needs_one_input_and_no_weights_outside(tmp_path: Path) -> None:
    model = onnx.load(encoder_file(tmp_path))
    extra = helper.make_tensor_value_info("more", TensorProto.FLOAT, [1])
    model.graph.input.append(extra)
    path = tmp_path / "two.onnx"
    onnx.save(model, path)
    with pytest.raises(BadFile, match="one input and one output"):
        write_with_encoder(path, joined_space(), tmp_path / "joined.onnx")
    plain = tmp_path / "affine.onnx"
    plain.write_bytes(affine_model(np.eye(3, dtype=np.float32), np.zeros(3, np.float32), "z2"))
    onnx.save(
        onnx.load(plain), path, save_as_external_data=True, location="weights", size_threshold=0
    )
    with pytest.raises(BadFile, match="weights outside the file"):
        write_with_encoder(path, joined_space(), tmp_path / "joined.onnx")
    assert write_with_encoder(plain, joined_space(), tmp_path / "joined.onnx") == "z2"
