"""Rebuilds all of Emoji-10: `python -m conspec.benchmarks.emoji10.build`.

Needs npm, the network for seven packages, the extra `build` (resvg-py), and about 15 minutes of
one CPU core. The same machine makes the same files each time; another one may differ in the
last bits of the weights, so the measured numbers are written beside them.
"""

import argparse
import json
import tempfile
from importlib.resources import as_file, files
from pathlib import Path

import torch

from conspec.benchmarks.emoji10 import (
    attributes,
    captions,
    classifier,
    evaluate,
    render,
    sources,
    vlm,
)

STEPS = ("render", "classifier", "vlm", "evaluate")


def build(packages: Path, steps: tuple[str, ...]) -> None:
    """Run the named steps, in the order of `STEPS`, on the files of `conspec.lens.emoji10`."""
    sources.fetch(packages)
    with as_file(files("conspec.lens.emoji10")) as target:
        if "render" in steps:
            render.render(packages, target)
            attributes.tabulate(target)
        if "classifier" in steps:
            classifier.train(target, render.others(packages))
        if "vlm" in steps:
            vlm.train(target, captions.phrases(packages), render.others(packages))
        if "evaluate" in steps:
            print(json.dumps(evaluate.evaluate(target), indent=1))


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description="Rebuild the Emoji-10 data set and models.")
    parser.add_argument("--packages", type=Path, help="keep the npm packages in this folder")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    arguments = parser.parse_args()
    # The order of summation, and with it the weights, depends on the number of threads.
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        build(arguments.packages or Path(temporary), tuple(arguments.steps))


if __name__ == "__main__":
    main()
