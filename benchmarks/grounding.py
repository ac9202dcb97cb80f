"""Grounding and perturbations, measured: everything that docs/grounding.md shows in numbers.

    python -m conspec.benchmarks.grounding --docs docs [--data FOLDER] [--only TITLE ...]

Writes ``docs/grounding/*.json`` and ``docs/img/perturbations.png``, and brings the tables of
``docs/grounding.md`` up to date; with ``--page-only`` the tables alone. FOLDER holds CIFAR-10 as
two tar files and the weights of its classifiers (see benchmarks/cifar10); without it, that part is
left as it was, and with ``--only`` everything but the models named. On one core it takes about
twenty minutes, some of it to train a small ViT on the training images of Emoji-10.
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from conspec.analysis.attributions import Encoder, open_encoder
from conspec.analysis.edits import BLUR, Fill
from conspec.analysis.grounding import Grounding, Scene, explaining, ground
from conspec.analysis.grounding_summary import Count, Paired, Summary, summarize
from conspec.analysis.perturbations import Family, Kind, Study, Survival, study
from conspec.analysis.rules import PAPER, RuleSet, learn
from conspec.benchmarks.cifar10.data import CLASSES, open_split
from conspec.benchmarks.emoji10.vit import train_vit
from conspec.benchmarks.machine import describe
from conspec.cli.inputs import SHIPPED
from conspec.cli.rules_ground import tower_family
from conspec.cli.rules_subject import chosen_pictures, last_layer_of, open_subject
from conspec.lens.config import LensConfig
from conspec.lens.encoders import Classifier, load_classifier, split
from conspec.lens.images import Picture
from conspec.report.grounding import count_text, paired_cells
from conspec.report.perturbations import survival_figure
from conspec.report.words import percent

EMOJI, VIT = "Emoji-10 CNN", "Emoji-10 ViT"
CIFAR = {
    "CIFAR-10 ResNet-20": "resnet20",
    "CIFAR-10 ResNet-56": "resnet56",
    "CIFAR-10 ResNet-4B": "resnet4b",
}
"""Models of CIFAR-10, by their titles; that of ResNet-4B has a hidden layer in its head."""
COUNT = 100
"""Held-out pictures of each data set."""
SOURCES = 500
"""Training pictures of each class of CIFAR-10 that predicates are learnt from."""
TIGHT = replace(PAPER, quantile=Fraction(1, 20))
"""Thresholds that give up a twentieth of the source images."""
PLACE = re.compile(r"<!-- table (\S+) -->.*?<!-- end \1 -->", re.DOTALL)

Json = Mapping[str, Any]
Named = Sequence[tuple[str, Image]]


@dataclass(frozen=True, eq=False)
class Case:
    """A model with source images and the held-out pictures it is studied on.

    Attributes:
        title: in tables.
        encoder: the model.
        names: of the classes.
        sources: features [N, d], predicted and true classes of training images.
        pictures: held-out, with their names.
        accuracy: on all held-out pictures of the data set that are at hand.
    """

    title: str
    encoder: Encoder
    names: tuple[str, ...]
    sources: tuple[Any, Any, Any]
    pictures: Named
    accuracy: float

    def rules(self, tight: bool = False) -> RuleSet:
        """Predicates as published, or with tighter thresholds."""
        settings = TIGHT if tight else PAPER
        return learn(self.names, last_layer_of(self.encoder), self.sources, settings)

    @property
    def family(self) -> Family:
        """For the perturbation study."""
        layer = last_layer_of(self.encoder)
        return Family(self.title, self.encoder.embed, layer, self.rules())


def main() -> None:
    """Measure, then write the page."""
    parser = argparse.ArgumentParser(description="Measure grounding and perturbations.")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10's tars and weights")
    parser.add_argument("--only", nargs="+", metavar="TITLE", help="measure these models alone")
    parser.add_argument("--page-only", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)  # results of convolutions depend on it in the last digits
    folder: Path = options.docs / "grounding"
    folder.mkdir(parents=True, exist_ok=True)
    if not options.page_only:
        measure(folder, options.data, options.only)
    rewrite(options.docs / "grounding.md", folder)
    stored = json.loads((folder / "perturbations.json").read_text(encoding="utf-8"))
    drawn = survival_figure([_study(each) for each in stored["studies"]])
    (options.docs / "img" / "perturbations.png").write_bytes(drawn)


def measure(folder: Path, data: Path | None, only: Sequence[str] | None) -> None:
    """Grounding and perturbations of the models; what is not measured stays as it was."""
    path = folder / "perturbations.json"
    stored = json.loads(path.read_text(encoding="utf-8"))["studies"] if path.exists() else []
    studies = {each["family"]: each for each in stored}
    for title, make in _makers(data).items():
        if only is not None and title not in only:
            continue
        case = make()
        print(f"grounding: {title}", flush=True)
        write(folder / f"{_stem(title)}.json", grounded(case))
        families = [case.family]
        if title == EMOJI:  # the shipped VLM's image tower sees the same pictures
            families.append(tower_family(open_subject(SHIPPED["emoji10"], {}).lens, PAPER))
        for family in families:
            studies[family.name] = asdict(perturbed(family, case.pictures))
    write(path, {"studies": list(studies.values()), "machine": describe()})


def _makers(data: Path | None) -> dict[str, Callable[[], Case]]:
    """How each model is made, by its title."""
    makers: dict[str, Callable[[], Case]] = {EMOJI: emoji_case, VIT: vit_case}
    if data is not None:
        for title, name in CIFAR.items():
            makers[title] = partial(cifar_case, data, title, name)
    return makers


def _stem(title: str) -> str:
    return re.sub(r"\W+", "-", title).lower()


def emoji_case() -> Case:
    """The shipped classifier on held-out Emoji-10 images."""
    subject = open_subject(SHIPPED["emoji10"], {})
    data, train = subject.lens.embeddings, ~subject.lens.embeddings.heldout
    sources = (subject.basis.z[train], data.predicted[train], data.label[train])
    pictures = chosen_pictures(subject, [], COUNT)
    encoder = open_encoder(subject.classifier)
    right = float((data.predicted == data.label)[~train].mean())
    return Case(EMOJI, encoder, subject.lens.classes, sources, pictures, right)


def vit_case() -> Case:
    """A small vision transformer, trained here on the training images of Emoji-10."""
    subject = open_subject(SHIPPED["emoji10"], {})
    preprocess = subject.classifier.preprocess
    classifier = split(train_vit(), preprocess, "Emoji-10 ViT")
    data = subject.lens.embeddings
    training = np.flatnonzero(~data.heldout).tolist()
    sources: Any = _sources(classifier, [subject.pictures[place] for place in training])
    pictures = chosen_pictures(subject, [], COUNT)
    held = [subject.pictures[place] for place in np.flatnonzero(data.heldout).tolist()]
    right = float((_sources(classifier, held)[1] == data.label[data.heldout]).mean())
    sources = (*sources, data.label[~data.heldout])
    encoder = open_encoder(classifier)
    return Case(VIT, encoder, subject.lens.classes, sources, pictures, right)


def cifar_case(data: Path, title: str, name: str) -> Case:
    """A ResNet on CIFAR-10 test pictures."""
    weights = str(data / "weights" / f"{name}-cifar10.safetensors")
    config = LensConfig(images="", model=f"cifar:{name}", weights=weights, vlm="")
    classifier = load_classifier(config, len(CLASSES))
    train = open_split(data, "train", SOURCES, seed=10).pictures
    test = open_split(data, "test", COUNT // len(CLASSES), seed=10).pictures
    sources = (*_sources(classifier, train), _labels(train))
    pictures = [(picture.id, picture.load()) for picture in test]
    right = float((_sources(classifier, test)[1] == _labels(test)).mean())
    encoder = open_encoder(classifier)
    return Case(title, encoder, CLASSES, sources, pictures, right)


def _labels(pictures: Sequence[Picture]) -> Any:
    return np.array([CLASSES.index(str(picture.label)) for picture in pictures])


def _sources(classifier: Classifier, pictures: Sequence[Picture]) -> tuple[Any, Any]:
    encoder = open_encoder(classifier)
    z = encoder.embed([picture.load() for picture in pictures])
    return z, last_layer_of(encoder).predicted(z)


# --- measuring -------------------------------------------------------------------------------


def grounded(case: Case) -> dict[str, Any]:
    """The schedule with each fill, and with tighter thresholds."""
    runs: dict[str, Summary] = {}
    for fill in Fill:
        runs[fill.value] = summarize(_grounded(case, case.rules(), fill))
    runs["blur, tighter thresholds"] = summarize(_grounded(case, case.rules(tight=True), Fill.BLUR))
    return {
        "title": case.title,
        "layer": case.encoder.layer_name,
        "side": case.encoder.side,
        "blur": BLUR * case.encoder.side,
        "pictures": len(case.pictures),
        "accuracy": case.accuracy,
        "runs": {name: _plain(summary) for name, summary in runs.items()},
        "machine": describe(),
    }


def _grounded(case: Case, rules: RuleSet, fill: Fill) -> list[Grounding]:
    layer = last_layer_of(case.encoder)
    found: list[Grounding] = []
    for name, picture in case.pictures:
        scene = Scene(case.encoder, case.encoder.prepared(picture), name)
        own = explaining(rules, layer, scene.features[None])[0]
        found += [ground(scene, each, rules.names[each.label], fill) for each in own]
    return found


def _plain(summary: Summary) -> dict[str, Any]:
    plain = asdict(summary)
    plain["cutoffs"] = {f"{cutoff:.2f}": pair for cutoff, pair in plain["cutoffs"].items()}
    return plain


def perturbed(family: Family, pictures: Named) -> Study:
    """All perturbations of some pictures."""
    print(f"perturbing: {family.name}", flush=True)
    return study(family, [picture for _, picture in pictures], [name for name, _ in pictures])


def write(path: Path, report: Json) -> None:
    """A JSON file."""
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


# --- the page --------------------------------------------------------------------------------


def rewrite(page: Path, folder: Path) -> None:
    """Bring every table of the page up to date with the JSON files."""
    reports = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    studies = reports.pop("perturbations")
    tables = {
        "models": _model_table(reports),
        "schedule": _schedule_table(reports),
        "cutoffs": _cutoff_table(reports),
        "regions": _region_table(reports),
        "survival": _survival_table(studies),
        "machine": ", ".join(f"{key} {value}" for key, value in studies["machine"].items()) + ".",
    }

    def filled(found: re.Match[str]) -> str:
        name = found.group(1)
        return f"<!-- table {name} -->\n{tables[name]}\n<!-- end {name} -->"

    page.write_text(PLACE.sub(filled, page.read_text(encoding="utf-8")), encoding="utf-8")


def _model_table(reports: Mapping[str, Json]) -> str:
    headings = ("model", "accuracy", "pictures", "with a predicate", "layer", "side", "blur")
    rows = [
        [
            report["title"],
            f"{percent(report['accuracy'])} %",
            str(report["pictures"]),
            str(report["runs"]["blur"]["pictures"]),
            f"`{report['layer']}`",
            f"{report['side']} px",
            f"{report['blur']:.2f} px",
        ]
        for report in reports.values()
    ]
    return _table(headings, rows)


def _schedule_table(reports: Mapping[str, Json]) -> str:
    headings = ("model", "fill", "test", "guided", "random", "only g.", "only r.", "McNemar p")
    rows = []
    for report in reports.values():
        for name, run in report["runs"].items():
            tests = {"all predicates": "tests"}
            if name.startswith("blur"):
                tests |= {"first of a picture": "first", "half of z_j gone": "deep"}
            for words, key in tests.items():
                rows.append([report["title"], name, words, *paired_cells(_paired(run[key]))])
    return _table(headings, rows)


def _cutoff_table(reports: Mapping[str, Json]) -> str:
    shown = ("0.60", "0.50", "0.40", "0.30", "0.20", "0.10")
    rows = []
    for report in reports.values():
        pairs = [_paired(report["runs"]["blur"]["cutoffs"][cutoff]) for cutoff in shown]
        cells = [f"{_share(p.guided)} / {_share(p.random)}, p = {p.p_value:.2g}" for p in pairs]
        rows.append([report["title"], *cells])
    return _table(("model", *(f"τ = {cutoff}" for cutoff in shown)), rows)


def _region_table(reports: Mapping[str, Json]) -> str:
    headings = (
        *("model", "area accepted / control / least", "Score-CAM recovered", "all fills agree"),
        *("only the region kept: guided", "random", "McNemar p"),
    )
    rows = []
    for report in reports.values():
        run = report["runs"]["blur"]
        areas = [run[key] for key in ("area", "area_random", "area_least")]
        kept, fallback = _paired(run["kept"]), run["fallback"]
        rows.append(
            [
                report["title"],
                " / ".join("–" if area is None else f"{percent(area)} %" for area in areas),
                f"{fallback['count']} of {fallback['total']}",
                count_text(Count(**run["agreed"])),
                count_text(kept.guided),
                count_text(kept.random),
                f"{kept.p_value:.2g}",
            ]
        )
    return _table(headings, rows)


def _survival_table(report: Json) -> str:
    """The middle strength of each kind, all models side by side."""
    studies = [_study(each) for each in report["studies"]]
    headings = ("perturbation", "what", *(each.family for each in studies))
    rows = []
    for kind in Kind:
        middles = [[row for row in each.rows if row.kind is kind][2] for each in studies]
        label = f"{kind.value} {middles[0].strength:g}"
        rows.append([label, "local rule", *(_interval(row.rule) for row in middles)])
        rows.append([label, "prediction", *(_interval(row.prediction) for row in middles)])
    return _table(headings, rows)


def _share(count: Count) -> str:
    return f"{percent(count.count / count.total)} %" if count.total else "–"


def _interval(count: Count) -> str:
    return f"{_share(count)} [{percent(count.lower)}, {percent(count.upper)}]"


def _paired(plain: Json) -> Paired:
    sides = {side: Count(**plain[side]) for side in ("guided", "random")}
    return Paired(**{**plain, **sides})


def _study(plain: Json) -> Study:
    counts = ("prediction", "answer", "first", "rule")
    rows = [
        Survival(**{**row, "kind": Kind(row["kind"]), **{c: Count(**row[c]) for c in counts}})
        for row in plain["rows"]
    ]
    return Study(**{**plain, "rows": tuple(rows)})


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    main()
