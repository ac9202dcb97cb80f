"""Check a counterexample exactly: ``python -m conspec.benchmarks.runner.check_witness``.

Arguments: WITNESS.txt, and what it is checked against: PROPERTY.vnnlib NETWORK.onnx, or
SPECS.conspec BUNDLE NAME, or QUERY.smt2. One line of JSON is printed, with ``check``, ``float32``
and ``detail``, as in `store.Found`.

It is a program of its own, run under limits like the solvers: networks and witnesses come from
others, exact evaluation of a huge network takes long, and onnxruntime may crash on a strange one.
"""

import json
import re
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conspec.specs.errors import BadFile, ConspecError

if TYPE_CHECKING:
    from conspec.encodings.exact import Vector
    from conspec.encodings.vnnlib_property import Property
    from conspec.specs.rewrite import Nnf

Check = dict[str, str | None]

TOLERANCE = Fraction(1, 10_000)
"""VNN-COMP's, for inputs outside the box and for output constraints."""
_INPUT = re.compile(r"X_(?:0|[1-9]\d*)", re.ASCII)


def check_against_network(witness: str, prop: Path, model: Path) -> Check:
    """Judge a witness by the property and the network.

    Raises:
        ConspecError: they cannot be read exactly, so nothing can be said.
    """
    from conspec.encodings.vnnlib_problem import read_problem
    from conspec.encodings.vnnlib_property import output_names
    from conspec.encodings.vnnlib_witness import read_witness
    from conspec.specs.rewrite import negation_normal_form

    stated, network = read_problem(prop, model)
    sizes = (stated.inputs.size, stated.outputs.size)
    if sizes != (network.inputs, network.outputs):
        raise BadFile(
            f"{prop} is about {sizes[0]} inputs and {sizes[1]} outputs, but {model} has "
            f"{network.inputs} and {network.outputs}"
        )
    try:
        point = read_witness(witness, network.inputs)
    except (ConspecError, ValueError) as error:
        return {"check": "missing", "float32": None, "detail": f"no witness: {error}"}
    condition = negation_normal_form(stated.condition, output_names(network.outputs))
    check = judged(condition, point.fractions(), network.exact(point))
    single, detail = _replayed(condition, stated, point, model)
    return {"check": check, "float32": single, "detail": detail}


def judged(condition: "Nnf", inputs: Sequence[Fraction], outputs: Sequence[Fraction]) -> str:
    """``exact``, ``tolerance`` or ``invalid``: what X and Y together are worth."""
    if holds(condition, inputs, outputs, Fraction(0)):
        return "exact"
    return "tolerance" if holds(condition, inputs, outputs, TOLERANCE) else "invalid"


def holds(
    condition: "Nnf", inputs: Sequence[Fraction], outputs: Sequence[Fraction], slack: Fraction
) -> bool:
    """Whether a property's condition holds if each comparison may be missed by ``slack``."""
    from conspec.encodings.query import truth_and_margin
    from conspec.specs.formula import Coordinate, Logit
    from conspec.specs.rewrite import Halfspace, Literal

    def value(literal: Literal) -> Fraction:
        if not isinstance(literal, Halfspace):
            raise BadFile("an imported property has no has(…)")
        total = literal.constant + slack
        for factor, symbol in literal.terms:
            match symbol:
                case Coordinate(index):
                    total += factor * inputs[index]
                case Logit(name):
                    total += factor * outputs[int(name.removeprefix("Y_"))]
                case _:
                    raise BadFile(f"an imported property has no {symbol}")
        return total

    return truth_and_margin(condition, value)[0]


def _replayed(
    condition: "Nnf", stated: "Property", point: "Vector", model: Path
) -> tuple[str | None, str]:
    """The same for the nearest floats and what onnxruntime computes there; or why it is not."""
    import numpy as np

    from conspec.encodings.exact import from_array
    from conspec.encodings.vnnlib_replay import replay

    try:
        found = replay(model, stated, point)
    except ConspecError as error:
        return None, f"no replay: {error}"
    given = from_array(point.floats().astype(found.kind)).fractions()
    return judged(condition, given, from_array(np.array(found.outputs)).fractions()), ""


def check_against_spec(witness: str, specs: Path, bundle: Path, name: str) -> Check:
    """Judge a witness by a spec and its lens bundle; ``has`` and L2 balls are decided exactly.

    Raises:
        ConspecError: they cannot be read, so nothing can be said.
    """
    from conspec.benchmarks.runner.spec_query import is_counterexample, read_query
    from conspec.encodings.vnnlib_witness import read_witness

    query = read_query(bundle, specs, name)
    try:
        inputs = read_witness(witness, query.region.parameters)
    except (ConspecError, ValueError) as error:
        return {"check": "missing", "float32": None, "detail": f"no witness: {error}"}
    if is_counterexample(query, inputs, Fraction(0)):
        check = "exact"
    else:
        check = "tolerance" if is_counterexample(query, inputs, TOLERANCE) else "invalid"
    return {"check": check, "float32": None, "detail": ""}


def check_against_smt(witness: str, query: Path) -> Check:
    """Judge a witness by an SMT-LIB query; with its inputs fixed, z3 decides it exactly.

    Raises:
        ConspecError: z3 does not read the file, or does not decide.
    """
    import z3

    from conspec.encodings.vnnlib_witness import read_witness

    solver = z3.Solver()
    try:
        solver.from_file(str(query))
    except z3.Z3Exception as error:
        raise BadFile(f"{query}: z3 does not read it: {error}") from error
    names = {name for part in solver.assertions() for name in _inputs(part)}
    if not names or names != {f"X_{index}" for index in range(len(names))}:
        raise BadFile(f"{query}: its inputs are not X_0, X_1, …")
    try:
        point = read_witness(witness, len(names))
    except (ConspecError, ValueError) as error:
        return {"check": "missing", "float32": None, "detail": f"no witness: {error}"}
    for index, value in enumerate(point.fractions()):
        solver.add(z3.Real(f"X_{index}") == z3.RatVal(value.numerator, value.denominator))
    answer = solver.check()
    if answer == z3.unknown:
        raise BadFile(f"{query}: z3 does not decide it at the point: {solver.reason_unknown()}")
    check = "exact" if answer == z3.sat else "invalid"
    return {"check": check, "float32": None, "detail": "checked by z3 with the inputs fixed"}


def _inputs(expression: Any) -> set[str]:
    """Names of the inputs that occur in an expression of z3."""
    import z3

    found: set[str] = set()
    seen: set[int] = set()
    todo = [expression]
    while todo:
        node = todo.pop()
        if node.get_id() in seen:
            continue
        seen.add(node.get_id())
        if z3.is_const(node) and _INPUT.fullmatch(node.decl().name()):
            found.add(node.decl().name())
        todo += node.children()
    return found


def main(arguments: list[str]) -> int:
    """Print the check; the exit code is 3 if nothing can be said."""
    witness, query = Path(arguments[0]).read_text(encoding="utf-8"), Path(arguments[1])
    more = arguments[2:]
    try:
        match more:
            case [bundle, name]:
                found = check_against_spec(witness, query, Path(bundle), name)
            case [model]:
                found = check_against_network(witness, query, Path(model))
            case _:
                found = check_against_smt(witness, query)
        print(json.dumps(found))
    except ConspecError as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
