"""Markdown tables from the JSON files of ``benchmarks.agreement``, put into a page.

A page marks their places with ``<!-- table NAME -->`` and ``<!-- end NAME -->``, NAME being the
name of a JSON file; what stands between is replaced.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from conspec.lens.files import read_json
from conspec.specs.errors import BadFile

Json = Mapping[str, Any]


def rewrite(page: Path, folder: Path) -> None:
    """Bring every table of ``page`` up to date with the JSON files in ``folder``.

    Raises:
        BadFile: the page cannot be read, has no place for a table, or a JSON file is missing.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise BadFile(f"{page}: {error.strerror}") from error
    names = re.findall(r"<!-- table (\S+) -->", text)
    if not names:
        raise BadFile(f"{page}: has no line like <!-- table NAME -->")
    for name in names:
        begin, end = f"<!-- table {name} -->", f"<!-- end {name} -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise BadFile(f"{page}: {begin} has no {end}")
        table = tables(read_json(folder / f"{name}.json"))
        text = f"{before}{begin}\n{table}\n{end}{after}"
    page.write_text(text, encoding="utf-8")


def tables(document: Json) -> str:
    """All that one comparison found, as Markdown."""
    contradicted = len(document["disagreements"])
    refused = sum(len(run["refused"]) for run in document["runs"])
    return "\n\n".join(
        [
            _about(document),
            _table(_SCALE_HEADINGS, [_scale_row(row) for row in document["scales"]]),
            _table(_RUN_HEADINGS, [_run_row(run, document) for run in document["runs"]]),
            f"Contradictions: **{contradicted}**. Lines that the checker refused: **{refused}**.",
            *_reasons(document),
            _machine(document["machine"]),
        ]
    )


def _about(document: Json) -> str:
    bundle = document["bundle"]
    return (
        f"{document['specs']} specs, suite `{document['suite']}`, on the lens `{bundle['name']}` "
        f"({bundle['model']}, embeddings of {bundle['dim']}, mapped to {bundle['vlm_dim']}; "
        f"{bundle['classes']} classes, {bundle['concepts']} concepts, {bundle['train']} training "
        f"and {bundle['heldout']} held-out images; bundle `{bundle['hash'][:12]}`)."
    )


_SCALE_HEADINGS = ("γ", "specs", "proved", "violated", "open", "coverage, mean", "coverage, most")


def _scale_row(row: Json) -> list[str]:
    shares = [row["coverage_mean"], row["coverage_max"]]
    return [
        row["scale"],
        str(row["specs"]),
        _share(row["proved"], row["specs"]),
        _share(row["violated"], row["specs"]),
        str(row["unknown"]),
        *("–" if share is None else f"{100 * share:.2f} %" for share in shares),
    ]


_RUN_HEADINGS = (
    "run",
    "asked",
    "proved",
    "violated",
    "unknown",
    "settled by",
    "median",
    "total",
    "slowest",
    "checked",
)


def _run_row(run: Json, document: Json) -> list[str]:
    asked = run["asked"]
    whole = "all" if asked == document["specs"] else f"{asked} drawn at random"
    counts = [run["verdicts"].count(letter) for letter in "PVU"]
    stages = ", ".join(f"{stage} {count}" for stage, count in run["settled_by"].items())
    claims = {word: n for word, n in run["checked"].items() if word != "nothing"}
    checked = ", ".join(f"{count} {word}s" for word, count in claims.items()) or "–"
    return [
        run["run"],
        whole,
        str(counts[0]),
        str(counts[1]),
        _share(counts[2], asked) if counts[2] else "0",
        stages or "–",
        _seconds(run["median_seconds"]),
        _seconds(run["total_seconds"]),
        _seconds(run["max_seconds"]),
        checked,
    ]


def _reasons(document: Json) -> list[str]:
    """Why specs stayed unknown, a line for each run that has any."""
    lines = []
    for run in document["runs"]:
        if run["reasons"]:
            some = "; ".join(f"{count} × “{text}”" for text, count in run["reasons"].items())
            by_scale = ", ".join(f"{n} at γ = {s}" for s, n in run["unknown_by_scale"].items())
            lines.append(f"- `{run['run']}` leaves {by_scale}: {some}")
    return ["\n".join(lines)] if lines else []


def _machine(machine: Mapping[str, str]) -> str:
    return "Measured on: " + ", ".join(f"{key} {value}" for key, value in machine.items()) + "."


def _share(count: int, total: int) -> str:
    return f"{count} ({100 * count / total:.1f} %)" if total else "0"


def _seconds(value: float) -> str:
    return f"{1000 * value:.2f} ms" if value < 1 else f"{value:.1f} s"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
