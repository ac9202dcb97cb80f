"""Runs one suite with every engine and compares the verdicts.

    python -m conspec.benchmarks.agreement --lens BUNDLE --suite rival10 --gamma 0.1 0.3 1 \
        --name cifar10 --out docs/agreement --docs docs/agreement.md

The screen settles many specs before a named engine is asked, and a proof of the screen is then
everybody's. So each solver also runs *alone*: it gets the whole query, nothing settled before.
Every certified line goes through the independent checker. The exit code is 1 if two engines
contradict each other, or if the checker refuses a line.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import numpy as np

from conspec.benchmarks.machine import describe
from conspec.benchmarks.tables import rewrite
from conspec.encodings.query import Query, space_of
from conspec.encodings.regions import Part, build_regions
from conspec.lens import Lens
from conspec.specs.errors import BadUsage, ConspecError
from conspec.specs.formula import ForAll, Region, Suite
from conspec.specs.parser import parse
from conspec.specs.printer import to_text
from conspec.specs.suites import relevance_suite, rival10_relevance
from conspec.verifier import ENGINES, Limits, Proved, Unknown, Violated, verify_suite
from conspec.verifier.checker import check_line
from conspec.verifier.checker_files import Bundle, Refused
from conspec.verifier.engines import Session, open_session
from conspec.verifier.results import to_json
from conspec.verifier.verdict import Verdict

ALONE = "-alone"
SOLVERS = tuple(engine for engine in ENGINES if engine not in ("auto", "box"))
RUNS = (*ENGINES, *(solver + ALONE for solver in SOLVERS))
LETTERS = {"proved": "P", "violated": "V", "unknown": "U"}
NOT_ASKED = "."

Relevance = Mapping[str, Sequence[str]]
Answers = Iterator[tuple[int, "Answer"]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one run says of one spec.

    Attributes:
        verdict: "proved", "violated" or "unknown".
        seconds: spent on it.
        stage: what settled it.
        reason: why it is unknown, or "".
        checked: what the checker says: "proof", "counterexample", "nothing", "" or a refusal.
        coverage: share of held-out embeddings in the region, if known.
    """

    verdict: str
    seconds: float
    stage: str
    reason: str = ""
    checked: str = ""
    coverage: float | None = None


@dataclass(frozen=True, eq=False)
class Setting:
    """What is run.

    Attributes:
        lens: the bundle.
        suite: what it is called, its specs and their scales.
        limits: of each query.
        sample: the most specs a run is asked, by the run's name; absent means all.
        seed: of the choice.
    """

    lens: Lens
    suite: tuple[str, tuple[ForAll, ...], tuple[str, ...]]
    limits: Limits
    sample: Mapping[str, int]
    seed: int

    def chosen(self, name: str) -> list[int]:
        """Which specs a run is asked, in order; smaller samples are parts of larger ones."""
        count = len(self.suite[1])
        order = np.random.default_rng(self.seed).permutation(count)
        return sorted(int(index) for index in order[: self.sample.get(name, count)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write NAME.json, and bring the tables of the page up to date."""
    options = _options().parse_args(arguments)
    try:
        code = _compare(options) if options.lens else 0
        if options.docs:
            rewrite(options.docs, options.out)
    except ConspecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    return code


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Do all engines agree?")
    parser.add_argument("--lens", type=Path, help="a lens bundle; without it, only --docs")
    parser.add_argument(
        "--suite", default="rival10", help="rival10, emoji10, a relevance .json, or a .conspec"
    )
    parser.add_argument("--gamma", nargs="+", default=["0.1", "0.3", "1"], help="scales")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=RUNS, help="engines")
    parser.add_argument(
        "--sample", nargs="+", default=[], metavar="RUN=N", help="ask RUN only N specs"
    )
    parser.add_argument("--seed", type=int, default=10, help="of the samples")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for each spec")
    parser.add_argument("--name", default="agreement", help="of the file written")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for it")
    parser.add_argument("--docs", type=Path, help="page whose tables are rewritten")
    return parser


def _compare(options: argparse.Namespace) -> int:
    sample = dict(_sample(text) for text in options.sample)
    lens = Lens.load(options.lens)
    suite = (options.suite, *suite_of(options.suite, lens, options.gamma))
    setting = Setting(lens, suite, Limits(seconds=options.timeout), sample, options.seed)
    found = {}
    for name in options.runs:
        start = monotonic()
        found[name] = dict(_run(name, setting))
        print(f"{name}: {len(found[name])} specs in {monotonic() - start:.1f} s", flush=True)
    document = summarise(setting, found) | {"machine": describe(), "timeout": options.timeout}
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{options.name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for entry in document["disagreements"]:
        print(f"DISAGREEMENT {entry['spec']}: {entry['verdicts']}", file=sys.stderr)
    refused = [text for run in document["runs"] for text in run["refused"]]
    for text in refused:
        print(f"REFUSED {text}", file=sys.stderr)
    return 1 if document["disagreements"] or refused else 0


def _sample(text: str) -> tuple[str, int]:
    name, equals, number = text.partition("=")
    if name not in RUNS or not equals or not number.isdigit():
        raise BadUsage(f"--sample {text}: expected RUN=N, with RUN one of {', '.join(RUNS)}")
    return name, int(number)


def suite_of(
    name: str, lens: Lens, gammas: Sequence[str]
) -> tuple[tuple[ForAll, ...], tuple[str, ...]]:
    """The specs of a suite, each with the scale it is listed under."""
    if name.endswith(".conspec"):
        text = Path(name).read_text(encoding="utf-8")
        found = parse(text, file=name, classes=lens.classes, concepts=lens.concepts)
        proofs = tuple(spec for spec in found.specs if isinstance(spec, ForAll))
        return proofs, ("as written",) * len(proofs)
    table = _relevance(name)
    specs, scales = [], []
    for gamma in gammas:
        for spec in relevance_suite(table, lens.concepts, gamma=gamma).specs:
            assert isinstance(spec, ForAll)
            specs.append(replace(spec, name=f"{spec.name}_at_{gamma.replace('.', '_')}"))
            scales.append(gamma)
    return tuple(specs), tuple(scales)


def _relevance(name: str) -> Relevance:
    if name == "rival10":
        return rival10_relevance()
    path = files("conspec.lens.emoji10") / "relevance.json" if name == "emoji10" else Path(name)
    table: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    return table


def _run(name: str, setting: Setting) -> Answers:
    if name.endswith(ALONE):
        return _alone(name.removesuffix(ALONE), setting, setting.chosen(name))
    return _together(name, setting, setting.chosen(name))


def _together(engine: str, setting: Setting, chosen: Sequence[int]) -> Answers:
    """The tool's own way, and its results lines through the checker."""
    bundle = Bundle(setting.lens.root)
    suite = Suite(tuple(setting.suite[1][index] for index in chosen))
    results = verify_suite(suite, setting.lens, engine, setting.limits)
    for index, result in zip(chosen, results, strict=True):
        line = json.loads(json.dumps(to_json(result, setting.lens), allow_nan=False))
        yield (
            index,
            Answer(
                line["verdict"],
                result.seconds,
                result.decided_by,
                line["reason"] or "",
                _checked(line, bundle),
                result.coverage.point if result.coverage else None,
            ),
        )


def _checked(line: Mapping[str, Any], bundle: Bundle) -> str:
    try:
        return check_line(line, bundle)
    except Refused as refusal:
        return f"refused: {refusal}"


def _alone(solver: str, setting: Setting, chosen: Sequence[int]) -> Answers:
    """A solver on the whole queries: no look, no screen, no literals settled beforehand."""
    space = space_of(setting.lens)
    parts: dict[Region, list[Part]] = {}
    sessions: dict[tuple[Region, int], Session] = {}
    for index in chosen:
        spec = setting.suite[1][index]
        start = monotonic()
        if spec.region not in parts:
            parts[spec.region] = build_regions(spec.region, setting.lens)
        verdicts: list[Verdict] = []
        for place, part in enumerate(parts[spec.region]):
            query = Query(spec, space, part.region, place, part.cuts)
            key = (spec.region, place)
            if key not in sessions:
                sessions[key] = open_session(solver, space, part.region)
            verdicts.append(sessions[key].decide(query, query.constrained, setting.limits.seconds))
        verdict, reason = _together_of(verdicts)
        yield index, Answer(verdict, monotonic() - start, solver, reason)


def _together_of(verdicts: Iterable[Verdict]) -> tuple[str, str]:
    """The word over all parts of a region, and the reason if it is "unknown"."""
    word, reason = "proved", ""
    for verdict in verdicts:
        match verdict:
            case Violated():
                return "violated", ""
            case Unknown(why, detail):
                word, reason = "unknown", f"{why.value} {detail}".strip()
            case Proved():
                pass
    return word, reason


def summarise(setting: Setting, found: Mapping[str, Mapping[int, Answer]]) -> dict[str, Any]:
    """Everything that is known of the runs, as plain values."""
    name, specs, scales = setting.suite
    lens = setting.lens
    return {
        "suite": name,
        "bundle": {
            "name": lens.name,
            "hash": lens.hash,
            "model": lens.manifest.model,
            "images": lens.manifest.images,
            "dim": lens.dim,
            "vlm_dim": lens.vlm_dim,
            "classes": len(lens.classes),
            "concepts": len(lens.concepts),
            "train": int((~lens.embeddings.heldout).sum()),
            "heldout": int(lens.embeddings.heldout.sum()),
        },
        "seed": setting.seed,
        "specs": len(specs),
        "scales": [_scale(scale, scales, found) for scale in dict.fromkeys(scales)],
        "runs": [_summary(run, answers, setting) for run, answers in found.items()],
        "disagreements": [
            {"spec": specs[index].name, "text": to_text(specs[index]), "verdicts": verdicts}
            for index, verdicts in contradictions(found, len(specs))
        ],
    }


def contradictions(
    found: Mapping[str, Mapping[int, Answer]], count: int
) -> Iterator[tuple[int, dict[str, str]]]:
    """Specs that one run proves and another refutes, with what each run says."""
    for index in range(count):
        said = {run: answers[index].verdict for run, answers in found.items() if index in answers}
        if {"proved", "violated"} <= set(said.values()):
            yield index, said


def _scale(
    scale: str, scales: Sequence[str], found: Mapping[str, Mapping[int, Answer]]
) -> dict[str, Any]:
    """What is known of the specs at one scale: settled if any run settles it."""
    own = [index for index, other in enumerate(scales) if other == scale]
    said = [{a[index].verdict for a in found.values() if index in a} for index in own]
    coverage = [
        answers[index].coverage
        for index in own
        for answers in list(found.values())[:1]
        if index in answers and answers[index].coverage is not None
    ]
    shares = [share for share in coverage if share is not None]
    return {
        "scale": scale,
        "specs": len(own),
        "proved": sum("proved" in words for words in said),
        "violated": sum("violated" in words for words in said),
        "unknown": sum(words <= {"unknown"} for words in said),
        "coverage_mean": float(np.mean(shares)) if shares else None,
        "coverage_max": max(shares) if shares else None,
    }


def _summary(run: str, answers: Mapping[int, Answer], setting: Setting) -> dict[str, Any]:
    _, specs, scales = setting.suite
    seconds = [answer.seconds for answer in answers.values()]
    refused = [
        f"{run}: {specs[index].name}: {answer.checked}"
        for index, answer in answers.items()
        if answer.checked.startswith("refused")
    ]
    return {
        "run": run,
        "asked": len(answers),
        "verdicts": "".join(
            LETTERS[answers[index].verdict] if index in answers else NOT_ASKED
            for index in range(len(specs))
        ),
        "unknown_by_scale": _counted(
            (scales[index] for index, a in answers.items() if a.verdict == "unknown")
        ),
        "reasons": _counted(a.reason for a in answers.values() if a.reason),
        "settled_by": _counted(a.stage for a in answers.values() if a.verdict != "unknown"),
        "checked": _counted(a.checked.partition(":")[0] for a in answers.values() if a.checked),
        "refused": refused,
        "median_seconds": median(seconds),
        "total_seconds": sum(seconds),
        "max_seconds": max(seconds),
    }


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


if __name__ == "__main__":
    sys.exit(main())
