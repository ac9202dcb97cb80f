"""What ``generate_properties.py`` of a suite does: the same request with another seed."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conspec.benchmarks.suites.folder import read_request, silent, workshop, write_suite
from conspec.lens.bundle import Lens
from conspec.specs.errors import BadUsage, ConspecError


def main(folder: Path, arguments: Sequence[str]) -> int:
    """Rewrite the suite in a folder, and return the exit code: 0, or 3 for bad input."""
    parser = argparse.ArgumentParser(description="Rewrites the instances for another seed.")
    parser.add_argument("seed", type=int)
    parser.add_argument("--lens", type=Path, help="the lens bundle, if there is no bundle/ here")
    options = parser.parse_args(arguments)
    try:
        rewrite(folder, options.seed, options.lens)
    except ConspecError as error:
        sys.stderr.write(f"error: {error}\n")
        return 3
    return 0


def rewrite(folder: Path, seed: int, lens: Path | None = None) -> None:
    """Rewrite the suite in a folder for a seed.

    Every file is made before the first one is replaced; what else lies in the folder stays.

    Args:
        folder: a suite.
        seed: of the new instances.
        lens: the bundle, if the folder has none.

    Raises:
        BadUsage: the bundle is missing, or is not the suite's.
        BadFile: the folder is no suite.
    """
    request, expected = read_request(folder)
    source = lens or folder / "bundle"
    if not source.is_dir():
        raise BadUsage(f"{folder}: has no bundle/ of its own; name the lens bundle with --lens")
    bundle = Lens.load(source)
    if bundle.hash != expected:
        raise BadUsage(
            f"{source}: is another bundle ({bundle.hash[:12]}…) than the suite's ({expected[:12]}…)"
        )
    with workshop(folder) as work:
        fresh, old = work / "new", work / "old"
        write_suite(bundle, fresh, replace(request, seed=seed), silent)
        old.mkdir()
        for path in sorted(fresh.iterdir()):
            place = folder / path.name
            if place.exists():
                place.rename(old / path.name)
            path.rename(place)
