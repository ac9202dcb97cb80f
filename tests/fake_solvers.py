"""A small benchmark, and solvers that are scripts of the tests: honest, broken and lying ones."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUTS = "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)\n"
BOX = "(assert (>= X_0 0.0))(assert (<= X_0 1.0))(assert (>= X_1 0.0))(assert (<= X_1 1.0))\n"
QUERIES = {"reach": "(assert (>= Y_0 1.5))", "never": "(assert (>= Y_0 2.5))"}
"""Whether the sum of two numbers from [0, 1] reaches 1.5 (sat), or 2.5 (unsat)."""
WITNESS = "((X_0 1.0) (X_1 0.75) (Y_0 1.75))"


def write_network(path: Path) -> Path:
    """Y_0 = X_0 + X_1 as ONNX."""
    weight = numpy_helper.from_array(np.ones((2, 1), np.float32), "W")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["X", "W"], ["Y"])],
        "sum",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [1, 1])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def write_benchmark(folder: Path, names: Sequence[str] = tuple(QUERIES)) -> Path:
    """A folder as of VNN-COMP, with the answers in ``expected.csv``."""
    write_network(folder / "onnx" / "sum.onnx")
    (folder / "vnnlib").mkdir(exist_ok=True)
    for name in names:
        text = INPUTS + BOX + QUERIES[name]
        (folder / "vnnlib" / f"{name}.vnnlib").write_text(text, encoding="utf-8")
    rows = [f"onnx/sum.onnx,vnnlib/{name}.vnnlib,20\n" for name in names]
    (folder / "instances.csv").write_text("".join(rows), encoding="utf-8")
    return folder


def write_truth(folder: Path, **answers: str) -> None:
    """``expected.csv``."""
    rows = "".join(f"{name},{answer}\n" for name, answer in answers.items())
    (folder / "expected.csv").write_text("instance,answer\n" + rows, encoding="utf-8")


def adapter(
    folder: Path,
    name: str,
    code: str,
    arguments: Sequence[str] = ("{query}", "{onnx}", "{seconds}"),
    more: str = "",
) -> str:
    """The adapter file of a solver that is a Python script; ``more`` are further lines of it."""
    script = folder / f"{name}.py"
    script.write_text(code, encoding="utf-8")
    command = json.dumps([sys.executable, str(script), *arguments])
    path = folder / f"{name}.toml"
    lines = (f'name = "{name}"', 'formats = ["vnnlib1"]', f"command = {command}", more)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


HONEST = f"""
import sys
print("sat\\n{WITNESS}" if "reach" in sys.argv[1] else "unsat")
"""
"""Knows the two answers."""
