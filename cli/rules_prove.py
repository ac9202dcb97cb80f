"""``conspec rules prove``: rules as statements about all embeddings of a region."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conspec.cli.console import print_json, show, warn
from conspec.cli.exits import Exit
from conspec.cli.journal import Job, write_lines
from conspec.cli.output import EVERY_SPEC
from conspec.cli.rules_input import RulesOption, basis_of
from conspec.cli.run import limits_of
from conspec.cli.verify import JsonOption, LensOption, VerboseOption, results_file
from conspec.specs.errors import BadUsage

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

    from conspec.analysis.rule_proofs import Claim, RuleProof
    from conspec.lens.bundle import Lens
    from conspec.specs import formula as f
    from conspec.verifier.decide import Limits
    from conspec.verifier.radius import Radius
    from conspec.verifier.results import Result

GAMMA = "0.3"
"""Scale of the focus regions, where no region is asked for."""

RegionOption = Annotated[
    str | None,
    typer.Option("--region", metavar="REGION", help="A region of Con_spec, in place of --gamma."),
]
LinesOption = Annotated[
    Path | None,
    typer.Option("--jsonl", metavar="FILE", help="Write the verdicts for 'conspec check'."),
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", metavar="S", help="Seconds for each call of the verifier.")
]


@dataclass(frozen=True, eq=False)
class Findings:
    """What is known of a rule set.

    Attributes:
        proofs: of each rule, in the order of the rules.
        texts: the rules as readable logic, likewise.
        radii: how far each holds, likewise; None if that was not asked.
        sets: by region, whether some rule matches everywhere, and whether no two classes match.
    """

    proofs: "Sequence[RuleProof]"
    texts: Sequence[str]
    radii: "Sequence[Radius] | None"
    sets: "Mapping[f.Region, tuple[Result, Result]]"

    @property
    def results(self) -> "list[Result]":
        """All verdicts."""
        pairs = [result for pair in self.sets.values() for result in pair]
        ends = [end for r in self.radii or () for end in (r.proof, r.violation) if end is not None]
        return [proof.result for proof in self.proofs] + pairs + ends


def prove(
    lens: LensOption,
    rules: RulesOption = None,
    gamma: Annotated[
        str | None,
        typer.Option(
            "--gamma",
            metavar="G",
            help=f"Scale of the classes' focus regions; else {GAMMA}.",
        ),
    ] = None,
    region: RegionOption = None,
    radius: Annotated[
        bool, typer.Option("--radius", help="Also the least scale at which each rule breaks.")
    ] = False,
    timeout: TimeoutOption = 10.0,
    as_json: JsonOption = False,
    jsonl: LinesOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Prove rules over regions of embeddings, or refute them.

    Each rule is a statement: every embedding of the region that satisfies its predicates is
    predicted as its class. By default the region is the focus region of that class. For each
    region it is also decided whether every embedding of it matches some rule, and whether none
    matches rules of two classes.

    Exit codes: 0 all rules proved, 1 one refuted, 2 one unknown, 3 bad input. The verdicts on the
    rule set as a whole, and those at other scales, do not count for it.
    """
    from conspec.analysis.rule_files import rule_name
    from conspec.analysis.rule_proofs import Claim, decide_set, prove_rules
    from conspec.report.rules import rule_text

    limits, path = limits_of(timeout, 1, "any"), results_file(jsonl, None)
    basis = basis_of(lens)
    region_of = _regions(gamma, region, basis.lens)
    saved = basis.rules(rules)
    found, names = saved.rules, basis.names(saved)
    if not found.rules:
        raise BadUsage("there are no rules to prove; learn them with less --support")
    claims = [
        Claim(
            rule_name(found, place),
            found.names[rule.label],
            found.predicates(rule),
            region_of(found.names[rule.label]),
        )
        for place, rule in enumerate(found.rules)
    ]
    proofs = prove_rules(claims, basis.lens, limits)
    findings = Findings(
        proofs,
        [rule_text(found, rule, names) for rule in found.rules],
        _radii(claims, basis.lens, limits) if radius else None,
        {one: decide_set(claims, one, basis.lens, limits) for one in _distinct(claims)},
    )
    if path is not None:
        write_lines(path, _lines(findings.results, basis.lens, limits))
    if as_json:
        print_json(_document(findings))
    else:
        _show(findings, verbose or radius or len(claims) <= EVERY_SPEC)
    raise typer.Exit(_exit_code(proofs))


def _regions(gamma: str | None, region: str | None, lens: "Lens") -> "Callable[[str], f.Region]":
    """The region of each class's rules.

    Raises:
        BadUsage: both are given, or the scale is no number of 0 or more.
        SpecSyntaxError, UnknownName: the region cannot be read.
    """
    from conspec.specs.formula import Focus

    if region is not None:
        if gamma is not None:
            raise BadUsage("--gamma and --region: give one of them")
        same = read_region(region, lens)
        return lambda label: same
    scale = read_scale(gamma or GAMMA)
    return lambda label: Focus(label, scale)


def read_region(text: str, lens: "Lens") -> "f.Region":
    """A region of Con_spec.

    Raises:
        SpecSyntaxError: it is none.
        UnknownName: the bundle has no such class or concept.
    """
    from conspec.specs.parser import parse_region

    return parse_region(text, classes=lens.classes, concepts=lens.concepts)


def read_scale(text: str) -> Fraction:
    """The scale that ``--gamma`` gives, exactly.

    Raises:
        BadUsage: it is no number of 0 or more.
    """
    from conspec.specs.exact import read_number

    try:
        scale = read_number(text)
    except (ValueError, ZeroDivisionError) as error:
        raise BadUsage(f"--gamma {text}: must be a number such as 0.3") from error
    if scale < 0:
        raise BadUsage(f"--gamma {text}: must not be below 0")
    return scale


def _radii(claims: "Sequence[Claim]", lens: "Lens", limits: "Limits") -> "list[Radius]":
    from conspec.specs.formula import Suite
    from conspec.verifier.radius import radius_suite

    return list(radius_suite(Suite(tuple(claim.spec for claim in claims)), lens, limits))


def _distinct(claims: "Sequence[Claim]") -> "list[f.Region]":
    return list(dict.fromkeys(claim.region for claim in claims))


def _lines(results: "Sequence[Result]", lens: "Lens", limits: "Limits") -> list[Mapping[str, Any]]:
    """Results lines, as 'conspec check' reads them."""
    from conspec.verifier.results import to_json

    job = Job("auto", lens.hash, limits.seconds, 1, "any")
    return [job.signed(to_json(result, lens)) for result in results]


def word(result: "Result") -> str:
    """The verdict in a word."""
    from conspec.verifier.verdict import Proved, Violated

    match result.verdict:
        case Proved():
            return "proved"
        case Violated():
            return "violated"
        case _:
            return "unknown"


def _exit_code(proofs: "Sequence[RuleProof]") -> Exit:
    words = {word(proof.result) for proof in proofs}
    if "violated" in words:
        return Exit.VIOLATED
    return Exit.UNKNOWN if "unknown" in words else Exit.PROVED


def is_vacuous(result: "Result") -> bool:
    """Whether it is a proof about a premise that nothing satisfies."""
    from conspec.verifier.verdict import Proved

    return isinstance(result.verdict, Proved) and result.verdict.vacuous is True


# --- shown -----------------------------------------------------------------------------------


def _show(findings: Findings, every: bool) -> None:
    from rich.text import Text

    from conspec.report import words
    from conspec.report.records import Outcome

    if every:
        show(_rule_table(findings))
    show(_region_table(findings))
    found = [word(proof.result) for proof in findings.proofs]
    counts = ", ".join(f"{found.count(outcome)} {outcome}" for outcome in Outcome)
    vacuous = sum(is_vacuous(proof.result) for proof in findings.proofs)
    seconds = words.seconds(sum(proof.result.seconds for proof in findings.proofs))
    show(Text(f"{len(found)} rules: {counts} ({seconds})", style="bold"))
    if vacuous:
        warn(f"{vacuous} of the proofs are vacuous: no embedding of the region matches the rule.")


def _rule_table(findings: Findings) -> "Table":
    from conspec.report.tables import columns_table

    headings = ["verdict", "rule", "lead", "held-out images"]
    if findings.radii is not None:
        headings += ["proved up to γ", "fails from γ"]
    rows = []
    for place, (proof, text) in enumerate(zip(findings.proofs, findings.texts, strict=True)):
        row = [_verdict(proof.result), text, _lead(proof)]
        row.append(f"{proof.matching} of {proof.inside}")
        if findings.radii is not None:
            radius = findings.radii[place]
            ends = (radius.lower, radius.upper)
            row += ["–" if end is None else f"{float(end):.6g}" for end in ends]
        rows.append(row)
    return columns_table("Rules over their regions", headings, rows)


def _verdict(result: "Result") -> str:
    from conspec.report.words import SYMBOLS

    found = word(result)
    symbol = next(sign for outcome, sign in SYMBOLS.items() if outcome.value == found)
    return f"{symbol} {found}" + (", vacuous" if is_vacuous(result) else "")


def _lead(proof: "RuleProof") -> str:
    """By how much the class leads where the rule matches; negative at a counterexample."""
    from conspec.verifier.verdict import Violated

    if isinstance(proof.result.verdict, Violated):
        return f"−{float(proof.result.verdict.witness.margin):.3g}"
    return "–" if proof.lead is None else f"≥ {proof.lead:.3g}"


def _region_table(findings: Findings) -> "Table":
    """A row for each region: how its rules do, and the rule set as a whole."""
    from conspec.report.tables import columns_table
    from conspec.specs.printer import to_text

    headings = ["region", "✓ proved", "vacuous", "✗ violated", "? unknown", "coverage, held-out"]
    headings += ["some rule matches", "no two classes"]
    rows = []
    for region, (complete, free) in findings.sets.items():
        own = [proof for proof in findings.proofs if proof.claim.region == region]
        found = [word(proof.result) for proof in own]
        counts = [found.count(verdict) for verdict in ("proved", "violated", "unknown")]
        vacuous = sum(is_vacuous(proof.result) for proof in own)
        rows.append(
            [
                to_text(region),
                *map(str, (counts[0], vacuous, *counts[1:])),
                _coverage(own[0].result),
                _verdict(complete),
                _verdict(free),
            ]
        )
    return columns_table("By region", headings, rows)


def _coverage(result: "Result") -> str:
    from conspec.report.words import percent

    share = result.coverage
    if share is None:
        return "no held-out images"
    return f"{percent(share.point)} % [{percent(share.lower)}, {percent(share.upper)}]"


def _document(findings: Findings) -> dict[str, Any]:
    from conspec.specs.exact import write_number
    from conspec.specs.printer import to_text

    rows = []
    for place, (proof, text) in enumerate(zip(findings.proofs, findings.texts, strict=True)):
        row = {
            "rule": proof.claim.name,
            "text": text,
            "spec": to_text(proof.claim.spec),
            "verdict": word(proof.result),
            "vacuous": is_vacuous(proof.result),
            "lead": proof.lead,
            "decided_by": proof.result.decided_by,
            "heldout_in_region": proof.inside,
            "heldout_matching": proof.matching,
        }
        if findings.radii is not None:
            radius = findings.radii[place]
            row["radius"] = {
                "proved_up_to": None if radius.lower is None else write_number(radius.lower),
                "fails_from": None if radius.upper is None else write_number(radius.upper),
            }
        rows.append(row)
    regions = [
        {"region": to_text(region), "complete": word(pair[0]), "conflict_free": word(pair[1])}
        for region, pair in findings.sets.items()
    ]
    return {"rules": rows, "regions": regions}
