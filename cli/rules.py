"""``conspec rules``: logic rules of what a classifier predicts, read from its last layer."""

import json
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conspec.cli import rules_ground, rules_prove, rules_why
from conspec.cli.console import print_json, say, show, warn
from conspec.cli.groups import group
from conspec.cli.images import stored_image
from conspec.cli.rules_documents import evaluation_document, extract_document, local_document
from conspec.cli.rules_input import Basis, OutOption, RulesOption, basis_of
from conspec.cli.verify import JsonOption, LensOption
from conspec.specs.errors import BadUsage

if TYPE_CHECKING:
    from conspec.analysis.names import Name
    from conspec.analysis.rule_files import Saved
    from conspec.analysis.rules import Local

app = group("Logic rules of what a classifier predicts, read from its last layer.")

RULES, SUITE, TEXT = "rules.json", "rules.conspec", "rules.txt"
BEST = 3
"""So many rules of each class are shown."""


class ResolutionName(StrEnum):
    """Which of the matching rules decides."""

    PRECISION = "precision"
    LENGTH = "length"


@app.command("extract")
def extract(
    lens: LensOption,
    out: OutOption = None,
    quantile: Annotated[
        str,
        typer.Option(
            "--quantile", metavar="Q", help="Share of source images that thresholds may give up."
        ),
    ] = "0.05",
    ahead: Annotated[
        int,
        typer.Option(
            "--ahead", metavar="N", min=0, help="Features to take after the prediction is reached."
        ),
    ] = 2,
    support: Annotated[
        int,
        typer.Option("--support", metavar="N", min=1, help="Images that a rule must stand for."),
    ] = 2,
    predicate_support: Annotated[
        int,
        typer.Option("--predicate-support", metavar="N", min=1, help="The same for a predicate."),
    ] = 1,
    resolution: Annotated[
        ResolutionName,
        typer.Option("--resolution", help="Where several rules match: by what one is chosen."),
    ] = ResolutionName.PRECISION,
    abstain: Annotated[
        bool, typer.Option("--abstain", help="Say nothing where no rule matches.")
    ] = False,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper", help="As published: --quantile 0 --ahead 0 --support 1; see docs/rules.md."
        ),
    ] = False,
    gamma: Annotated[
        str, typer.Option("--gamma", metavar="G", help="Scale of the regions in the suite.")
    ] = "0.3",
    as_json: JsonOption = False,
) -> None:
    """Read rules like "z(21) ≥ 2.7 (wheels) and … ⇒ truck" from a bundle's last layer.

    They are learnt from its training images and measured on the held-out ones, against what the
    model predicts. With --out: rules.json for the other commands, rules.txt to be read, and
    rules.conspec, a suite for 'conspec verify'. What holds of images need not hold of all
    embeddings of a region: rules prove nothing by themselves.
    """
    from conspec.analysis.rule_files import save, to_suite
    from conspec.analysis.rules import PAPER, Resolution, Settings
    from conspec.report import rules as shown

    chosen = Settings(
        _share(quantile), ahead, predicate_support, support, Resolution(resolution.value), abstain
    )
    if paper:
        published = (PAPER.quantile, PAPER.ahead, PAPER.rule_support)
        chosen = replace(
            chosen, quantile=published[0], ahead=published[1], rule_support=published[2]
        )
    basis = basis_of(lens)
    saved = basis.learn(chosen)
    names = basis.names(saved)
    suite = None if saved.hidden else to_suite(saved, gamma)
    if as_json:
        print_json(extract_document(basis, saved, names))
    else:
        title = f"Rules of {basis.lens.name}"
        show(shown.settings_table(saved.rules, title))
        show(shown.rule_table(saved.rules, names, BEST))
        if basis.lens.embeddings.heldout.any():
            show(*_usage_tables(basis, saved), _quality_table(basis, saved))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        save(saved, out / RULES)
        (out / TEXT).write_text(shown.rules_text(saved.rules, names), encoding="utf-8")
        written = [RULES, TEXT]
        if suite is not None and suite.specs:
            from conspec.specs.printer import to_text

            (out / SUITE).write_text(to_text(suite), encoding="utf-8")
            written.append(SUITE)
        say(f"wrote {', '.join(written)} to {out}")
    if saved.hidden:
        warn(
            "the head has a hidden layer, and z(…) are its activations: these rules have no "
            "concept names, and cannot be written as a suite of specs"
        )


def _share(text: str) -> Fraction:
    from conspec.specs.exact import read_number

    try:
        value = read_number(text)
    except (ValueError, ZeroDivisionError) as error:
        raise BadUsage(f"--quantile {text}: must be a number such as 0.05") from error
    if not 0 <= value < 1:
        raise BadUsage(f"--quantile {text}: must lie in [0, 1)")
    return value


@app.command("explain")
def explain(
    lens: LensOption,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...", help="Numbers or names of stored images, or a part of a name."
        ),
    ],
    rules: RulesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the local rule of images: which features decide the prediction, and by what name.

    'conspec lens show BUNDLE --images' lists the images of a bundle.
    """
    from conspec.analysis.rules import local_rule

    basis = basis_of(lens)
    wanted = [stored_image(basis.lens, name) for name in images]
    saved = basis.rules(rules)
    names, documents = basis.names(saved), []
    for image in wanted:
        predicted = int(basis.lens.embeddings.predicted[image])
        local = local_rule(basis.layer, saved.rules, basis.z[image], predicted)
        documents.append(local_document(basis, saved, local, names, image))
        if not as_json:
            _show_local(basis, saved, local, names, image)
    if as_json:
        print_json(documents)


def _show_local(
    basis: Basis,
    saved: "Saved",
    local: "Local",
    names: "Sequence[Name | None] | None",
    image: int,
) -> None:
    from rich.text import Text

    from conspec.report import rules as shown
    from conspec.report.words import printable

    lens, rules = basis.lens, saved.rules
    label = int(lens.embeddings.label[image])
    true = f", is {lens.classes[label]}" if label not in (-1, local.label) else ""
    head = f"{lens.image_ids[image]} ({image}): predicted {lens.classes[local.label]}{true}"
    said = "no predicate of the class holds: this image has no local rule"
    if local.predicates:
        told = shown.conjunction_text(rules, local.predicates, names)
        said = f"because {told} ⇒ {lens.classes[local.label]}"
    answer = rules.answers(basis.z[image : image + 1])
    place = int(answer.rule[0])
    if place >= 0:
        rule = rules.rules[place]
        among = f"{int(answer.rules[0])} rules match, of {int(answer.classes[0])} classes"
        decided = (
            f"{among}; the best: {shown.rule_text(rules, rule, names)} "
            f"({rule.right} of {rule.covered} training images)"
        )
    else:
        decided = f"No global rule matches; the default: {shown.default_text(rules)}"
    show(
        Text(printable(head), style="bold"),
        Text(printable(said)),
        shown.local_table(rules, local, basis.z[image], names),
        Text(printable(decided), style="dim"),
    )


@app.command("evaluate")
def evaluate(
    lens: LensOption,
    rules: RulesOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure rules on the held-out images: against the model, and against the true classes.

    With --out: evaluation.json and classes.png.
    """
    from conspec.analysis.rule_statistics import by_class
    from conspec.report import rules as shown
    from conspec.report.figures import png

    basis = basis_of(lens)
    saved = basis.rules(rules)
    z, predicted, _ = basis.heldout()
    classes = by_class(saved.rules, z, predicted)
    document = evaluation_document(basis, saved)
    if as_json:
        print_json(document)
    else:
        show(*_usage_tables(basis, saved), shown.class_table(classes))
        show(_quality_table(basis, saved))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        (out / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        title = f"Rules of {basis.lens.name} on {len(z)} held-out images"
        (out / "classes.png").write_bytes(png(shown.class_figure(classes, title)))
        say(f"wrote evaluation.json and classes.png to {out}")


def _usage_tables(basis: Basis, saved: "Saved") -> list[Any]:
    """What predicates do in the held-out images."""
    from conspec.analysis.pathways import pathways
    from conspec.analysis.predicates import explain as explained_by
    from conspec.analysis.rule_statistics import concentration, occurrences, reuse, usage
    from conspec.report import rules as shown

    z, predicted, _ = basis.heldout()
    rules = saved.rules
    found = pathways(basis.layer, z, predicted, rules.settings.ahead)
    explained = explained_by(rules.vocabulary, found)
    counts = occurrences(explained, len(rules.names))
    images = found.images_by_class(len(rules.names))
    return [
        shown.usage_table(usage(rules.vocabulary, explained, z)),
        shown.sharing_table(concentration(counts, images), reuse(counts, images)),
    ]


def _quality_table(basis: Basis, saved: "Saved") -> Any:
    from conspec.analysis.rule_statistics import quality
    from conspec.report import rules as shown

    found = quality(saved.rules, *basis.heldout())
    title = f"Rules on {found.images} held-out images, share [95 % interval]"
    return shown.quality_table(found, title)


# Further commands of the group stand in files of their own, and are registered here:
app.command("ground")(rules_ground.ground)
app.command("perturb")(rules_ground.perturb)
app.command("prove")(rules_prove.prove)
app.command("why")(rules_why.why)
