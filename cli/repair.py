"""``conspec repair``: the smallest change of the head after which violated specs hold."""

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conspec.cli.console import print_json, say, show
from conspec.cli.exits import Exit
from conspec.cli.inputs import open_lens, read_suite, select
from conspec.cli.journal import write_lines
from conspec.cli.radius import TimeoutOption
from conspec.cli.verify import JsonOption, LensOption, SpecOption, SuiteArgument, some
from conspec.specs.errors import BadUsage
from conspec.specs.formula import ForAll, Suite

if TYPE_CHECKING:
    from conspec.analysis.repair import NoChange
    from conspec.analysis.repaired import Repaired
    from conspec.lens.bundle import Lens


class NormName(StrEnum):
    """What is to be small."""

    L1 = "l1"
    L2 = "l2"


KeepOption = Annotated[
    list[str] | None,
    typer.Option("--keep", metavar="GLOB", help="Specs that must stay proved; may be repeated."),
]
NormOption = Annotated[
    NormName, typer.Option("--norm", help="l1 changes few weights, l2 many of them a little.")
]
RowsOption = Annotated[
    list[str] | None,
    typer.Option("--row", metavar="CLASS", help="Only this class's weights; may be repeated."),
]
MarginOption = Annotated[
    str, typer.Option("--margin", metavar="M", help="By how much comparisons must hold, in logits.")
]
StepsOption = Annotated[
    int, typer.Option("--steps", metavar="N", min=1, help="Rounds of counterexamples, at most.")
]
OutOption = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Write the bundle, its proofs and repair.json.")
]


def repair(
    suite: SuiteArgument,
    lens: LensOption,
    out: OutOption,
    spec: SpecOption = None,
    keep: KeepOption = None,
    norm: NormOption = NormName.L2,
    row: RowsOption = None,
    margin: MarginOption = "0.001",
    steps: StepsOption = 200,
    timeout: TimeoutOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Suggest the smallest change of the head after which violated specs of SUITE hold.

    Repairs the specs that --spec names (all violated ones, without it) and keeps those that
    --keep names proved. Changing the head does not change concepts, so a spec such as
    'predict(c) => a > b' can only be repaired by letting another class win where a ≤ b. The new
    bundle is DIR/lens; every repaired and kept spec is proved on it anew, with certificates that
    'conspec check DIR/results.jsonl --lens DIR/lens' checks. Without such a repair nothing is
    written.

    Exit codes: 0 repaired, 1 no repair was found, 3 bad input.
    """
    from conspec.analysis.head_change import Norm
    from conspec.analysis.repair import NoChange, Settings
    from conspec.analysis.repaired import margin_of, others_kept
    from conspec.analysis.repaired import repair as find

    bundle = open_lens(lens)
    written = read_suite(suite, bundle)
    for name in row or []:
        bundle.class_index(name)
    broken, kept = _chosen(written, bundle, spec or [], keep or [], timeout)
    settings = Settings(Norm(norm.value), margin_of(margin), tuple(row or ()), steps, timeout)
    if out.exists():
        raise BadUsage(f"--out {out}: exists already; name a new folder")
    try:
        found = find(bundle, broken, kept, settings, out / "lens")
    finally:
        if out.is_dir() and not any(out.iterdir()):
            out.rmdir()
    if isinstance(found, NoChange):
        _refused(found, broken, kept, as_json)
        raise typer.Exit(Exit.VIOLATED)
    chosen = {each.name for each in (*broken, *kept)}
    rest = Suite(tuple(each for each in written.specs if each.name not in chosen))
    document = _document(found, broken, kept, others_kept(rest, bundle, found.lens, timeout))
    _write(out, found, document)
    if as_json:
        print_json(document)
    else:
        _show(found, document)
    say(f"wrote {out / 'lens'}, {out / 'results.jsonl'} and {out / 'repair.json'}")
    raise typer.Exit(Exit.PROVED)


def _chosen(
    suite: Suite, lens: "Lens", patterns: Sequence[str], keep: Sequence[str], seconds: float
) -> tuple[list[ForAll], list[ForAll]]:
    """The specs to repair and those to keep."""
    from conspec.verifier.decide import Limits, verify_suite
    from conspec.verifier.verdict import Violated

    kept = _kept(suite, keep)
    wanted = select(suite, patterns).proofs
    broken = [s for s in wanted.specs if isinstance(s, ForAll) and s not in kept]
    if not patterns:
        results = verify_suite(Suite(tuple(broken)), lens, limits=Limits(seconds))
        broken = [r.spec for r in results if isinstance(r.verdict, Violated)]
    if not broken:
        raise BadUsage("no spec is violated, so there is nothing to repair")
    return broken, kept


def _kept(suite: Suite, patterns: Sequence[str]) -> list[ForAll]:
    """The specs that --keep names."""
    if not patterns:
        return []
    try:
        found = select(suite, patterns).proofs.specs
    except BadUsage as error:
        raise BadUsage(str(error).replace("--spec", "--keep", 1)) from error
    return [spec for spec in found if isinstance(spec, ForAll)]


def _refused(
    found: "NoChange", broken: Sequence[ForAll], kept: Sequence[ForAll], as_json: bool
) -> None:
    about = f"spec {found.spec}: " if found.spec else ""
    detail = f" ({found.detail})" if found.detail else ""
    if as_json:
        names = {"repair": [s.name for s in broken], "keep": [s.name for s in kept]}
        reason = {"reason": found.failure.value, "spec": found.spec, "detail": found.detail}
        print_json({"repaired": False, **names, **reason})
    else:
        show(f"No repair was found. {about}{found.failure.value}{detail}")


def _document(
    found: "Repaired",
    broken: Sequence[ForAll],
    kept: Sequence[ForAll],
    others: tuple[int, tuple[str, ...]],
) -> dict[str, Any]:
    from dataclasses import asdict

    change = found.change
    return {
        "repaired": True,
        "repair": [spec.name for spec in broken],
        "keep": [spec.name for spec in kept],
        "size": change.size,
        "numbers_changed": change.changed,
        "numbers": int(change.weight.size + change.bias.size),
        "smallest": change.smallest,
        "rounds": found.rounds,
        "steps": change.steps,
        "conditions": change.cuts,
        "heldout": None if found.effect is None else asdict(found.effect),
        "others_proved_before": others[0],
        "others_lost": list(others[1]),
    }


def _write(folder: Path, found: "Repaired", document: dict[str, Any]) -> None:
    from conspec.verifier.results import to_json

    write_lines(folder / "results.jsonl", [to_json(result, found.lens) for result in found.results])
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "repair.json").write_text(text + "\n", encoding="utf-8")


def _show(found: "Repaired", document: dict[str, Any]) -> None:
    from rich.text import Text

    from conspec.report.records import read_record
    from conspec.report.tables import spec_table
    from conspec.verifier.results import to_json

    change = found.change
    records = [read_record(to_json(result, found.lens)) for result in found.results]
    show(spec_table(records))
    how = "the smallest such change" if change.smallest else "perhaps not the smallest such change"
    lines = [
        f"Repaired {len(document['repair'])} and kept {len(document['keep'])} specs.",
        f"Changed {change.changed} of {document['numbers']} numbers of the head, "
        f"by {change.size:.4g} in all ({how}).",
        _accuracy(found),
    ]
    before, lost = document["others_proved_before"], document["others_lost"]
    if before:
        names = f": {some(lost)}" if lost else ""
        lines.append(f"Of {before} other proved specs of the suite, {len(lost)} are lost{names}.")
    show(Text("\n".join(lines)))


def _accuracy(found: "Repaired") -> str:
    effect = found.effect
    if effect is None:
        return "Accuracy: there are no held-out images to measure it on."
    n = effect.images
    change = (
        f"change {100 * (effect.after - effect.before) / n:+.1f} points, "
        f"95 % interval [{100 * effect.lower:+.1f}, {100 * effect.upper:+.1f}]"
    ).replace("-", "−")
    return (
        f"Accuracy on {n} held-out images: {100 * effect.before / n:.1f} % before, "
        f"{100 * effect.after / n:.1f} % after "
        f"({effect.gained} gained, {effect.lost} lost; {change})."
    )
