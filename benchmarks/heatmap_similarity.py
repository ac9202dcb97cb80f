"""Compares the similarities of heatmaps: which one tells correct from wrong predictions best.

python -m conspec.benchmarks.heatmap_similarity --lens BUNDLE [--lens BUNDLE]

Prints a Markdown table: the AUROC on each bundle's held-out images, with DeLong's 95 % interval,
and its difference from that of the cosine, from the same images.
"""

import argparse
from pathlib import Path

from conspec.analysis.heatmaps import Source
from conspec.analysis.similarity import Comparison, compare
from conspec.lens import Lens


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description="Which similarity of heatmaps is best?")
    parser.add_argument("--lens", type=Path, action="append", required=True)
    lenses = [Lens.load(path) for path in parser.parse_args().lens]
    cases = [(lens, source) for lens in lenses for source in Source]
    tables = [compare(lens, source) for lens, source in cases]
    heads = [
        f"{lens.name}, {source.value} ({table.right} correct, {table.wrong} wrong)"
        for (lens, source), table in zip(cases, tables, strict=True)
    ]
    print(" | ".join(["| similarity", *heads]) + " |")
    print("| --- " * (len(cases) + 1) + "|")
    for rows in zip(*(table.rows for table in tables), strict=True):
        print(" | ".join([f"| {rows[0].measure.value}", *map(_cell, rows)]) + " |")


def _cell(row: Comparison) -> str:
    area = f"{row.area:.3f} [{row.lower:.3f}, {row.upper:.3f}]"
    if row.gain == row.gain_lower == row.gain_upper == 0:
        return area
    return f"{area}; {row.gain:+.3f} [{row.gain_lower:+.3f}, {row.gain_upper:+.3f}]"


if __name__ == "__main__":
    main()
