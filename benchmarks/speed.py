"""All speed figures of the docs, measured and written by one command.

    python -m conspec.benchmarks.speed --lens BUNDLE [BUNDLE ...] --docs docs

Writes ``docs/speed/*.json``, the plot ``docs/img/growth.png``, and ``docs/speed.md`` from them.
With ``--page-only`` the page is written again from the JSON files that are there. The full size of
the closed form takes minutes; ``--small`` measures a quarter of it in each direction.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conspec.benchmarks import box_speed, estimate_speed, suite_speed, weakest_speed
from conspec.benchmarks.agreement import suite_of
from conspec.benchmarks.machine import describe
from conspec.lens.bundle import Lens
from conspec.specs.formula import Suite

FULL = (1000, 1000, 2048)
ROWS = 1_280_000
"""Embeddings that specs are counted on; their file takes 5 GiB of disk for a while."""
Report = Mapping[str, Any]


def main() -> None:
    """Measures, then writes the page."""
    parser = argparse.ArgumentParser(description="Measure the speed figures of the docs.")
    parser.add_argument("--lens", type=Path, nargs="*", default=[])
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--page-only", action="store_true")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    folder = options.docs / "speed"
    folder.mkdir(parents=True, exist_ok=True)
    if not options.page_only:
        size = tuple(side // 4 for side in FULL) if options.small else FULL
        # The full size comes first: memory is told by the process's peak, which never falls.
        full = weakest_speed.measure(*size)
        found = {"growth": weakest_speed.growth(*size), "full": full}
        write(folder / "weakest.json", found | {"machine": describe()})
        write(folder / "estimate.json", estimate_speed.measure(20_000 if options.small else ROWS))
        for path in options.lens:
            lens = Lens.load(path)
            write(folder / f"{lens.name}.json", of_lens(lens))
    write_page(options.docs, folder)


def of_lens(lens: Lens) -> dict[str, Any]:
    """Suite throughput and the box engine on one bundle."""
    has_rival10 = {"wheels", "horns"} <= set(lens.concepts) and "truck" in lens.classes
    suite = "rival10" if has_rival10 else "emoji10"
    specs, _ = suite_of(suite, lens, box_speed.GAMMAS)
    return {
        "suite": suite_speed.measure(lens),
        "box": {"suite": suite, **box_speed.measure(lens, Suite(specs), box_speed.RUNS)},
        "machine": describe(),
    }


def write(path: Path, report: Report) -> None:
    """A JSON file."""
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def write_page(docs: Path, folder: Path) -> None:
    """``speed.md`` and the plot, from the JSON files."""
    reports = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    weakest, estimate = reports.pop("weakest"), reports.pop("estimate")
    parts = [INTRODUCTION]
    for name, report in reports.items():
        parts.append(_lens_section(name, report))
    parts += [_weakest_section(weakest), _estimate_section(estimate)]
    machine = ", ".join(f"{key} {value}" for key, value in weakest["machine"].items())
    parts.append(f"Measured on: {machine}.\n")
    (docs / "speed.md").write_text("\n\n".join(parts), encoding="utf-8")
    plot_growth(weakest["growth"], docs / "img" / "growth.png")


INTRODUCTION = """# Speed

Written by `python -m conspec.benchmarks.speed`; the numbers are in `docs/speed/`. Ratios compare
medians within one run on one machine. Nothing here is a test; run it on your own."""


def _lens_section(name: str, report: Report) -> str:
    """The tables of one bundle."""
    suite, box = report["suite"], report["box"]
    outcome = suite["outcome"]
    rows = [
        [solver, f"{ms:.3g} ms", f"{suite['ratio'][solver]:,.0f} ×"]
        for solver, ms in suite["ms_per_query"].items()
    ]
    return "\n\n".join(
        [
            f"## A whole suite on `{name}`",
            f"All ordered pairs of {suite['concepts']} concepts × {suite['classes']} classes × "
            f"γ in {', '.join(suite['scales'])}, each with the premise `predict`: "
            f"{outcome['specs']:,} specs in {suite['dimensions']} dimensions. conspec decides "
            f"them in {suite['seconds']:.2f} s, certificates included: "
            f"**{1e3 * suite['ms_per_spec']:.1f} µs a spec** ({outcome['proved']:,} proved, "
            f"{outcome['violated']:,} violated, {outcome['unknown']} unknown; "
            f"{outcome['left to verify_suite']} of them left to the lemma engine). Checking a "
            f"certificate exactly takes {suite['ms_per_check']:.2f} ms on average, with parsing.",
            _table(["one query per spec", "median per query", "conspec is faster by"], rows),
            f"The box engine answers the suite `{box['suite']}` at ten scales, {box['specs']:,} "
            f"specs, in {box['verdicts_median']:.2f} s, counterexamples validated exactly; with "
            "the float32 replay of each, the nearest images and the coverage it takes "
            f"{box['median']:.2f} s (medians of {len(box['seconds'])}).",
        ]
    )


def _weakest_section(report: Report) -> str:
    """The table of the closed form."""
    full = report["full"]
    keys = ("classes", "concepts", "dimensions")
    rows = [
        [*(f"{row[key]:,}" for key in keys), f"{row['seconds']:.2f} s", f"{row['ratio']:.2f}"]
        for row in [*report["growth"], full]
    ]
    headings = [*keys, "time", "time / matrix product"]
    return "\n\n".join(
        [
            "## γ* of all pairs in closed form",
            f"{full['pairs in all']:,} pairs ({full['classes']} classes × {full['concepts']} "
            f"concepts, {full['dimensions']} dimensions, synthetic): {full['seconds']:.1f} s, "
            f"which is **{full['ratio']:.2f} ×** a `torch.matmul` of as many multiply-adds in the "
            f"same run, with {full['GiB beyond the inputs']:.2f} GiB beyond the inputs.",
            _table(headings, rows),
            "![Time against the number of multiply-adds](img/growth.png)",
        ]
    )


def _estimate_section(report: Report) -> str:
    """Counting satisfied specs, beside matrix products, and its memory."""
    speed, memory = report["throughput"], report["memory"]
    rates = speed["rows a second"]
    return "\n\n".join(
        [
            "## Counting satisfied specs",
            f"{speed['specs']:,} mixed specs on float16 embeddings of 2,048 dimensions, 1,000 "
            f"classes and 100 concepts, {speed['threads']} threads: "
            f"{rates['evaluation']:,} embeddings a second, everything counted. One float32 "
            f"`torch.matmul` of all scores alone does {rates['one float32 product']:,}, so that "
            f"is **{100 * speed['share of one float32 product']:.0f} %** of its speed (and "
            f"{100 * speed['share of the products it does']:.0f} % of that of the products it "
            "does, which are partly in float64 so that counts are exact).",
            f"{memory['rows']:,} embeddings ({memory['GiB of embeddings']:.2f} GiB) from a file, "
            f"read in pieces: {memory['seconds']:.1f} s with a peak of {memory['GiB peak']:.2f} "
            "GiB, interpreter and libraries included.",
        ]
    )


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def plot_growth(growth: Sequence[Mapping[str, float]], path: Path) -> None:
    """Time against multiply-adds on logarithmic axes, with a line of slope 1."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    work = [row["pairs in all"] * row["dimensions"] for row in growth]
    figure, axes = pyplot.subplots(figsize=(6, 4), dpi=150, layout="constrained")
    axes.loglog(work, [row["seconds"] for row in growth], "o", label="closed form")
    axes.loglog(work, [row["matmul seconds"] for row in growth], "x", label="matrix product")
    line = [min(work), max(work)]
    scale = growth[-1]["seconds"] / work[-1]
    axes.loglog(line, [scale * value for value in line], "-", lw=0.8, label="linear")
    axes.set(xlabel="multiply-adds (classes × pairs × dimensions)", ylabel="seconds")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
