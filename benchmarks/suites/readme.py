"""The README of an exported suite."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conspec.benchmarks.suites.request import GRADED, OWN, Request
from conspec.lens.bundle import Lens

ANSWERS = ("unsat", "sat", "unknown")
FAMILY_WORDS: Mapping[str, str] = {
    "strength": "concept a is stronger than concept b, on a focus region",
    "premise": "where the model predicts c, a is stronger than b",
    "boolean": "2 to 30 such atoms under `and`, `or`, `not`, `=>`, `<=>`",
    "cardinality": "at least, or at most, k of up to 12 atoms hold",
    "rule": "bounds of some coordinates imply the prediction (rules of the last layer)",
    "has": "a cosine is above its threshold (a second-order cone; in `smt/` and as a spec only)",
    "robust": "the prediction does not change on an L∞ ball around a real embedding",
    GRADED: "0.5, 0.9, 0.99, 1.01, 1.1 and 2 times the scale γ* up to which a spec holds",
    OWN: "specs of the user's own suite",
}
SHOWN = 4
"""Entries of the sample that are printed."""


@dataclass(frozen=True)
class Facts:
    """What a README tells of.

    Attributes:
        lens: the bundle.
        request: what was asked for.
        instances: as in ``suite.json``.
        answers: for each instance its family and its line of ``truth.jsonl``.
        notes: sentences on what is not there.
        sample: as in ``sample.json``; None if no instance has a network.
        bundle: the folder that holds the bundle; None if it is too large.
    """

    lens: Lens
    request: Request
    instances: Sequence[Mapping[str, Any]]
    answers: Sequence[tuple[str, Mapping[str, Any]]]
    notes: Sequence[str]
    sample: Mapping[str, Any] | None
    bundle: str | None


def tally(answers: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Counter[str]]:
    """For each family, how many instances have which of `ANSWERS`."""
    found: dict[str, Counter[str]] = {}
    for family, line in answers:
        found.setdefault(family, Counter())[line["answer"] or "unknown"] += 1
    return found


def readme(facts: Facts) -> str:
    """The text, in Markdown."""
    parts = [_opening(facts), _families(facts), _files(facts), _variables(facts)]
    if facts.sample is not None:
        parts.append(_sample(facts.sample))
    parts += [_truth(facts), _seed(facts), _licence(facts)]
    return "\n\n".join(parts) + "\n"


def _opening(facts: Facts) -> str:
    lens = facts.lens
    return (
        f"# Queries about {lens.name}, {lens.dim} dimensions\n\n"
        f"{len(facts.instances)} verification queries about a vision model's head and its "
        "concept scores. Each asks: is there an embedding in a region for which a statement in "
        "words fails? `sat`: there is one (a counterexample). `unsat`: the statement is proved.\n\n"
        f"Bundle `{lens.name}`, SHA-256 `{lens.hash[:16]}…`: embeddings of {lens.dim} entries, "
        f"{len(lens.classes)} classes, {len(lens.concepts)} concepts. Made by "
        "`conspec bench export`."
    )


def _families(facts: Facts) -> str:
    counts = tally(facts.answers)
    rows = [
        f"| {family} | {FAMILY_WORDS[family]} | "
        + " | ".join(str(counts[family][word]) for word in ANSWERS)
        + " |"
        for family in counts
    ]
    head = (
        "| family | the statement | unsat | sat | not known |\n| --- | --- | ---: | ---: | ---: |"
    )
    notes = "".join(f"\n\n{note}" for note in facts.notes)
    return "## Families\n\n" + "\n".join([head, *rows]) + notes


def _files(facts: Facts) -> str:
    timed = [entry for entry in facts.instances if "onnx" in entry["files"]]
    seconds = sum(entry["seconds"] for entry in timed)
    formats = {
        "vnnlib": "* `1.0/`, `2.0/`: `instances.csv` (`onnx,vnnlib,timeout`), networks, and "
        "properties in VNN-LIB 1.0 and 2.0. Both hold the same "
        f"{len(timed)} instances in the same order. Their time limits sum to "
        f"{seconds / 3600:.2f} hours.\n",
        "smt": "* `smt/`: SMT-LIB 2, exact (QF_LRA; QF_NRA for `has` and L2 balls).\n",
        "milp": "* `milp/`: MPS and LP with floats that round-trip, and `.exact.json` with the "
        "exact rationals. The objective is the margin of the violation: `sat` if the maximum is "
        "above 0, `unsat` if it is below; the files say what 0 means.\n",
    }
    bundle = ". The lens bundle that they are about is too large to be in this folder"
    if facts.bundle:
        bundle = (
            f"; with the lens bundle in `{facts.bundle}/` that is the format `spec`, exact and for "
            "every family (`conspec bench run --solver conspec-spec`)"
        )
    return (
        "## Files\n\n"
        + "".join(formats[name] for name in facts.request.formats)
        + "* `suite.json` lists every instance with its files, and why it lacks a format. "
        f"`specs.conspec` has every statement in words{bundle}.\n"
        "* `truth.jsonl`: the known answers. It is a file of its own, so that it can be left out."
    )


def _variables(facts: Facts) -> str:
    lens = facts.lens
    names = [f"logit of {name}" for name in lens.classes]
    names += [f"score of concept {name}" for name in lens.concepts]
    rows = "\n".join(f"| Y_{place} | {name} |" for place, name in enumerate(names))
    return (
        "## Inputs and outputs\n\n"
        f"In `scores.onnx` X is the embedding itself, X_0 to X_{lens.dim - 1} in the order in "
        "which the encoder gives its entries, neither scaled nor normalised. An instance "
        "over a region that is no box has a network of its own, in which X are the region's "
        "parameters: its first layer makes the embedding of them. The batch axis is 1.\n\n"
        "Y are the logits (before any softmax), then the concept scores.\n\n"
        f"| output | is |\n| --- | --- |\n{rows}"
    )


def _sample(sample: Mapping[str, Any]) -> str:
    def first(values: Sequence[float]) -> str:
        more = ", …" if len(values) > SHOWN else ""
        return ", ".join(map(repr, values[:SHOWN])) + more

    return (
        "## Sample\n\n"
        f"`sample.json` has {sample['about']} (`{sample['network']}`, {sample['type']}).\n\n"
        "```\n"
        f"X = {first(sample['input']['values'])}\n"
        f"Y = {first(sample['output']['values'])}\n"
        "```"
    )


def _truth(facts: Facts) -> str:
    found = Counter(line["evidence"] for _, line in facts.answers)
    rows = "\n".join(f"| {words} | {count} |" for words, count in sorted(found.items()))
    where = facts.bundle or "BUNDLE"
    return (
        "## How the answers are known\n\n"
        "Real arithmetic with exactly the stored float32 weights and the decimals as written. "
        "`sat`: an exact rational point. `unsat`: a certificate of exact multipliers where there "
        "is one; for logits of a ReLU head otherwise the word of the solvers named. Where nothing "
        "was decided in the time limit, no answer is given.\n\n"
        f"| rests on | instances |\n| --- | ---: |\n{rows}\n\n"
        "All points and certificates are established again, without any solver, by\n\n"
        f"```sh\nconspec check truth.jsonl --lens {where}\n```"
    )


def _seed(facts: Facts) -> str:
    lens = "" if facts.bundle else " --lens BUNDLE"
    if facts.request.suite is not None:
        return (
            "## Seeds\n\nThe specs were given, not drawn: "
            f"`python generate_properties.py SEED{lens}` writes the same instances for every seed."
        )
    return (
        f"## Seeds\n\n`python generate_properties.py SEED{lens}` rewrites the instances for "
        f"another seed (this is seed {facts.request.seed}). The same seed gives the same files, "
        "as long as versions are the same and no solver stops at its time limit while γ* is "
        "looked for."
    )


def _licence(facts: Facts) -> str:
    own = " The bundle's own notice lies in `bundle/`." if facts.bundle else ""
    return (
        "## Licence and citation\n\n"
        "The queries are under Apache-2.0 (`LICENSE`). The weights and embeddings stay under the "
        f"terms of the model and images that they come from ({facts.lens.manifest.model or 'n/a'}, "
        f"{facts.lens.manifest.images or 'n/a'}).{own} Please cite conspec with its version and "
        "the bundle's SHA-256; the language of the statements is from arXiv 2403.19837."
    )
