"""Write a property in a format that it does not come in, for tools that read nothing else.

``python -m conspec.benchmarks.runner.convert NETWORK.onnx PROPERTY.vnnlib FORMAT OUT``, with
FORMAT ``smt2``, ``mps`` or ``lp``. A program of its own, run under limits: exact bounds of a large
network take long.
"""

import os
import sys
from pathlib import Path

from conspec.specs.errors import BadUsage, ConspecError

FORMATS = ("smt2", "mps", "lp")


def convert(model: Path, prop: Path, kind: str) -> str:
    """The property over the network as the text of another format.

    Raises:
        ConspecError: it cannot be read, or not be written so.
    """
    from conspec.encodings.boxed import over_box
    from conspec.encodings.vnnlib_problem import read_problem
    from conspec.encodings.vnnlib_property import query_of

    boxed = over_box(query_of(*read_problem(prop, model)))
    if kind == "smt2":
        from conspec.encodings.smtlib import smtlib

        return smtlib(boxed)
    if kind not in FORMATS:
        raise BadUsage(f"{kind!r} is none of {', '.join(FORMATS)}")
    from conspec.encodings.milp_file import lp_text, milp_of, mps_text

    return (mps_text if kind == "mps" else lp_text)(milp_of(boxed))


def main(arguments: list[str]) -> int:
    """Write the file, whole or not at all; the exit code is 3 if that cannot be."""
    model, prop, kind, out = arguments
    try:
        text = convert(Path(model), Path(prop), kind)
    except ConspecError as error:
        print(error, file=sys.stderr)
        return 3
    draft = Path(f"{out}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
