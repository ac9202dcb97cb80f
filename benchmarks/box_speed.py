"""Times the box engine on RIVAL10's 531 specs at ten scales, with the bundle already loaded.

python -m conspec.benchmarks.box_speed --lens BUNDLE
"""

import argparse
import json
from pathlib import Path
from statistics import median
from time import perf_counter

from conspec.benchmarks.agreement import suite_of
from conspec.benchmarks.machine import describe
from conspec.encodings.query import Query, space_of
from conspec.encodings.regions import Part, build_regions
from conspec.lens import Lens
from conspec.specs.formula import ForAll, Region, Suite
from conspec.verifier import Proved, Violated, verify_suite
from conspec.verifier.batch import Screened, screen

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
    """Seconds of each run, their medians, and the verdicts.

    "verdicts" is the screen with its exact checks of counterexamples; "seconds" is all that
    ``conspec verify`` does, the float32 replay, the nearest images and the coverage included. The
    first run is counted too: it also reads the exact weights from the ONNX files.
    """
    seconds, screening = [], []
    for _ in range(runs):
        start = perf_counter()
        verdicts = [result.verdict for result in verify_suite(suite, lens, "box")]
        seconds.append(perf_counter() - start)
        start = perf_counter()
        _screened(lens, suite)
        screening.append(perf_counter() - start)
    return {
        "specs": len(suite.specs),
        "proved": sum(isinstance(verdict, Proved) for verdict in verdicts),
        "violated": sum(isinstance(verdict, Violated) for verdict in verdicts),
        "seconds": [round(value, 4) for value in seconds],
        "median": round(median(seconds), 4),
        "verdicts_median": round(median(screening), 4),
    }


def _screened(lens: Lens, suite: Suite) -> list[Screened]:
    """The verdicts alone; specs of one region share it."""
    space, parts = space_of(lens), dict[Region, list[Part]]()
    queries = []
    for spec in suite.specs:
        if isinstance(spec, ForAll):
            if spec.region not in parts:
                parts[spec.region] = build_regions(spec.region, lens)
            found = enumerate(parts[spec.region])
            queries += [Query(spec, space, part.region, i, part.cuts) for i, part in found]
    return screen(queries, points=True)


if __name__ == "__main__":
    main()
