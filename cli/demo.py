"""``conspec demo``: the main job from end to end, on the image set that ships with conspec."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conspec.cli.check import opened, recheck, said
from conspec.cli.console import console, progress, show
from conspec.cli.exits import Exit
from conspec.cli.inputs import parse_suite
from conspec.cli.journal import write_lines
from conspec.cli.lens import show_lens
from conspec.cli.output import Findings, show_results, write_folder
from conspec.cli.radius import Measured, measure, scalable, show_radii, write_heat_map
from conspec.cli.run import Task, limits_of, run
from conspec.specs.errors import BadUsage
from conspec.specs.formula import Suite
from conspec.specs.printer import to_text

if TYPE_CHECKING:
    from conspec.lens.bundle import Lens
    from conspec.verifier.estimates import Estimate

GAMMA = "0.3"
SHEETS = 16


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write.")] = Path(
        "demo-output"
    ),
) -> None:
    """See it work on ten classes of emoji.

    Builds the lens of Emoji-10 and verifies a suite on it, in under two minutes. Emoji-10 are
    1,229 pictures of ten classes, with a small classifier and a small
    vision-language model; all of it ships with conspec.
    """
    _clear(out)
    lens = _build(out / "lens")
    written = _written_suite(lens)
    suite = Suite((*written.specs, *_generated_suite(lens).specs))
    suite_file = out / "demo.conspec"
    suite_file.write_text(to_text(suite), encoding="utf-8")
    _heading(f"2. Verifying {len(suite.specs)} specs, and measuring how far they hold")
    results = out / "results.jsonl"
    found = run(Task(suite, lens, "auto", limits_of(10, 1, "any")), results)
    measured, notes = _measured(suite, lens, results)
    records, spans = found.records, measured.spans
    by_text = {to_text(span.spec): span for span in spans}
    estimates = _estimated(suite, lens, out / "estimates.jsonl")
    own = records[: len(written.specs)]
    show_results(own, every=True, regions=False, spans=by_text, estimates=estimates)
    _heading("All of them, with those generated from the table of relevant concepts")
    show_results(records, every=False)
    generated = [span for span in spans if span.spec not in written.specs]
    show_radii(generated, every=False)
    picture = write_heat_map(out, generated, "Emoji-10: how far relevant concepts are stronger")
    title = "Emoji-10: what the classifier sees"
    findings = Findings(title, records, lens, notes, spans, picture, estimates)
    with_pictures = write_folder(out, findings, SHEETS)
    _heading("3. Checking every verdict again, in exact arithmetic and without a solver")
    checked = recheck(results, opened(out / "lens"))
    show(said(checked))
    _farewell(out, with_pictures, notes)
    if checked.refused:
        raise typer.Exit(Exit.VIOLATED)
    complete = found.complete and measured.complete
    raise typer.Exit(Exit.PROVED if complete else Exit.INTERRUPTED)


def _measured(suite: Suite, lens: "Lens", results: Path) -> tuple[Measured, list[str]]:
    """The radii that are found in a moment, and a sentence about those that are not."""
    from conspec.specs.rewrite import Cone, literals, negation_normal_form

    scaled, skipped = scalable(suite)
    quick = []
    for spec in scaled.specs:
        atoms = literals(negation_normal_form(spec.body, lens.classes))
        if any(isinstance(atom, Cone) for atom in atoms):
            skipped[spec.name] = "asks has(…), which takes conspec radius half a minute"
        else:
            quick.append(spec)
    task = Task(Suite(tuple(quick)), lens, "auto", limits_of(10, 1, "any"))
    return measure(task, results), [
        f"The radius of {name} was left out: {reason.split(';')[0]}."
        for name, reason in skipped.items()
    ]


def _estimated(suite: Suite, lens: "Lens", path: Path) -> "dict[str, Estimate]":
    """Shares of held-out images that satisfy the specs, by the specs' texts; also written."""
    from conspec.verifier.estimates import estimate_suite, to_json

    found = estimate_suite(suite, lens)
    write_lines(path, [to_json(one, lens, found.skipped) for one in found.specs])
    return {to_text(one.spec): one for one in found.specs}


def _clear(out: Path) -> None:
    """Make the folder, and forget the results of an earlier demo.

    Raises:
        BadUsage: it holds something that is not of a demo.
    """
    ours = {"lens", "lens.partial", "demo.conspec", "results.jsonl", "estimates.jsonl"}
    ours |= {"report.html", "summary.png", "radius.png", "counterexamples"}
    if out.is_dir() and (strange := sorted({p.name for p in out.iterdir()} - ours)):
        raise BadUsage(f"{out}: holds {strange[0]!r}, which no demo wrote; use another --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.jsonl").unlink(missing_ok=True)
    for picture in (out / "counterexamples").glob("*.png"):
        picture.unlink()


def _build(out: Path) -> "Lens":
    """Really run both encoders on the shipped images, and align them."""
    _heading("1. Building the lens: both encoders run on the images that ship with conspec")
    with progress() as advance:
        from conspec.lens.build import build_emoji_lens

        lens = build_emoji_lens(out, advance, overwrite=True)
    show_lens(lens)
    return lens


def _written_suite(lens: "Lens") -> Suite:
    """The suite written by hand."""
    text = (files("conspec.specs") / "data" / "emoji10.conspec").read_text(encoding="utf-8")
    return parse_suite(text, "emoji10.conspec", lens)


def _generated_suite(lens: "Lens") -> Suite:
    """Each class's relevant concepts are stronger than the others."""
    import json

    from conspec.specs.suites import relevance_suite

    path = files("conspec.lens.emoji10") / "relevance.json"
    table: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    return relevance_suite(table, lens.concepts, gamma=GAMMA)


def _heading(text: str) -> None:
    from rich.text import Text

    console().rule(Text(text, style="bold"), align="left", style="dim")


def _farewell(out: Path, written: list[Path], notes: Sequence[str]) -> None:
    """Say what was left out, name the files to open, and what to type next."""
    from rich.text import Text

    sheets = len(written) - 2
    show(
        Text.assemble(
            "".join(f"{note}\n" for note in notes),
            ("Open\n", "bold"),
            f"  {out / 'report.html'}   everything on one page\n",
            f"  {out / 'counterexamples'}   {sheets} counterexamples in pictures\n",
            f"  {out / 'radius.png'}   how far each claim about relevant concepts holds\n",
            f"  {out / 'demo.conspec'}   the specs; change one and verify it again\n",
            ("Type next\n", "bold"),
            f"  conspec check {out / 'results.jsonl'} --lens {out / 'lens'}",
            "   re-establishes all of this\n",
            f"  conspec lens show {out / 'lens'}\n",
            f"  conspec estimate {out / 'demo.conspec'} --lens {out / 'lens'} --robust l2\n",
            f"  conspec verify {out / 'demo.conspec'} --lens {out / 'lens'} --spec 'birds_*'\n",
            f"  conspec verify {out / 'demo.conspec'} --lens {out / 'lens'} --engine z3\n",
            f"  conspec localize --lens {out / 'lens'}   whose fault is each error\n",
            "  conspec lens build --help   for a model and images of your own",
        )
    )
