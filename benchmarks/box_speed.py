"""Times the box engine on RIVAL10's 531 specs at ten scales, with the bundle already loaded.

python -m conspec.benchmarks.box_speed --lens BUNDLE
"""

import argparse
import json
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

from conspec.benchmarks.agreement import suite_of
from conspec.benchmarks.machine import describe
from conspec.lens import Lens
from conspec.specs.formula import Suite
from conspec.verifier import Proved, Violated, verify_suite

GAMMAS = tuple(f"{step / 10}" for step in range(1, 11))
RUNS = 5


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description="How fast is the box engine?")
    parser.add_argument("--lens", type=Path, required=True)
    parser.add_argument("--suite", default="rival10")
    parser.add_argument("--runs", type=int, default=RUNS)
    options = parser.parse_args()
    lens = Lens.load(options.lens)
    specs, _ = suite_of(options.suite, lens, GAMMAS)
    print(json.dumps(measure(lens, Suite(specs), options.runs) | {"machine": describe()}, indent=1))


def measure(lens: Lens, suite: Suite, runs: int) -> dict[str, object]:
    """Seconds of each run, their median, and the verdicts.

    The first run is counted too: it also reads the exact weights from the ONNX files. The
    processor's seconds say what remains on a machine that does nothing else.
    """
    seconds, busy = [], []
    for _ in range(runs):
        start, start_busy = perf_counter(), process_time()
        verdicts = [result.verdict for result in verify_suite(suite, lens, "box")]
        seconds.append(perf_counter() - start)
        busy.append(process_time() - start_busy)
    return {
        "specs": len(suite.specs),
        "proved": sum(isinstance(verdict, Proved) for verdict in verdicts),
        "violated": sum(isinstance(verdict, Violated) for verdict in verdicts),
        "seconds": [round(value, 4) for value in seconds],
        "median": round(median(seconds), 4),
        "median_of_processor": round(median(busy), 4),
    }


if __name__ == "__main__":
    main()
