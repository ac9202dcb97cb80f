"""Measures rules of lens bundles, beside a decision tree and a linear probe on the same bits.

python -m conspec.benchmarks.rules NAME=BUNDLE... [--folder docs/rules] [--page docs/rules.md]

Writes ``FOLDER/NAME.json`` for each bundle, and brings the tables of the page up to date. Rules
are learnt from a bundle's training images; everything is measured on its held-out ones. Tree and
probe get the predicates' truth values as their inputs and learn the model's predictions.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from conspec.analysis.calibration import Rate, rate
from conspec.analysis.names import evidence, named_share
from conspec.analysis.pathways import last_layer, pathways
from conspec.analysis.predicates import Vocabulary, explain
from conspec.analysis.rule_statistics import (
    concentration,
    occurrences,
    quality,
    reuse,
    trade_off,
    usage,
)
from conspec.analysis.rules import PAPER, Resolution, RuleSet, Settings, learn
from conspec.benchmarks.machine import describe
from conspec.cli.inputs import bundle_folder
from conspec.cli.rules_documents import quality_document, rate_document
from conspec.encodings.query import space_of
from conspec.lens import Lens
from conspec.report.rules import rate_text, sharing_facts, usage_facts

Json = dict[str, Any]
RULE_SETS = {
    "paper": PAPER,
    "paper, the longest decides": Settings(Fraction(0), 0, 1, 1, Resolution.LENGTH),
    "quantile 0.05": Settings(Fraction(1, 20), 0),
    "look-ahead 2": Settings(Fraction(0), 2),
    "quantile 0.05, look-ahead 2 (default)": Settings(),
    "quantile 0.05, look-ahead 4": Settings(Fraction(1, 20), 4),
}
COMPARED = ("paper", "quantile 0.05, look-ahead 2 (default)")
"""Rule sets whose bits tree and probe get."""
QUANTILES = ("0", "0.01", "0.05", "0.1", "0.2", "0.5")
EXAMPLES = 12


def main() -> None:
    """Measure the bundles and write what was found."""
    parser = argparse.ArgumentParser(description="How good are rules?")
    parser.add_argument("bundles", nargs="*", metavar="NAME=BUNDLE")
    parser.add_argument("--folder", type=Path, default=Path("docs/rules"))
    parser.add_argument("--page", type=Path, default=Path("docs/rules.md"))
    options = parser.parse_args()
    for given in options.bundles:
        name, _, path = given.partition("=")
        found = measure(Lens.load(bundle_folder(Path(path)))) | {"machine": describe()}
        text = json.dumps(found, indent=1, ensure_ascii=False)
        (options.folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    write_page(options.page, options.folder)


class Data:
    """A bundle's images, in two parts."""

    def __init__(self, lens: Lens) -> None:
        """Read them."""
        self.lens = lens
        self.layer, self.z = last_layer(lens)
        embeddings = lens.embeddings
        self.train, self.test = ~embeddings.heldout, embeddings.heldout
        self.predicted, self.label = embeddings.predicted, embeddings.label

    def part(self, chosen: Any) -> tuple[Any, Any, Any]:
        """Features, predictions and classes."""
        return self.z[chosen], self.predicted[chosen], self.label[chosen]


def measure(lens: Lens) -> Json:
    """Everything about one bundle."""
    data = Data(lens)
    sets = {
        name: learn(lens.classes, data.layer, data.part(data.train), chosen)
        for name, chosen in RULE_SETS.items()
    }
    test = data.part(data.test)
    known = data.label[data.test] >= 0
    right = data.predicted[data.test][known] == data.label[data.test][known]
    return {
        "bundle": lens.name,
        "model": lens.manifest.model,
        "features": data.layer.width,
        "hidden": not space_of(lens).head.is_affine,
        "images": {"train": int(data.train.sum()), "heldout": int(data.test.sum())},
        "model_accuracy": rate_document(rate(right)),
        "rule_sets": {name: quality_document(quality(s, *test)) for name, s in sets.items()},
        "compared": {name: compare(sets[name], data) for name in COMPARED},
        "statistics": {name: statistics(sets[name], data) for name in COMPARED},
        "trade_off": [trade(q, data) for q in QUANTILES],
        "names": None if not space_of(lens).head.is_affine else names(sets["paper"], data),
    }


def compare(rules: RuleSet, data: Data) -> Json:
    """A tree and a probe on the bits of a rule set; a tree of as many leaves as it has rules."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    bits = rules.vocabulary.active(data.z).astype(np.float32)
    leaves = max(len(rules.rules), 2)
    learners = {
        f"tree, {leaves} leaves": DecisionTreeClassifier(max_leaf_nodes=leaves, random_state=0),
        "tree, unlimited": DecisionTreeClassifier(random_state=0),
        "linear probe": LogisticRegression(max_iter=2000),
    }
    found: Json = {}
    for name, learner in learners.items():
        learner.fit(bits[data.train], data.predicted[data.train])
        scores = learner.predict_proba(bits[data.test])
        order = learner.classes_[np.argsort(-scores, axis=1, kind="stable")]
        found[name] = _answers(order, data.predicted[data.test], data.label[data.test])
        if isinstance(learner, DecisionTreeClassifier):
            found[name] |= {"size": f"{learner.get_n_leaves()} leaves"}
        else:
            found[name] |= {"size": f"{learner.coef_.size} weights"}
    return found


def _answers(order: Any, predicted: Any, label: Any) -> Json:
    known = label >= 0
    return {
        "fidelity": rate_document(rate(order[:, 0] == predicted)),
        "accuracy": rate_document(rate(order[known, 0] == label[known])),
        "accuracy5": rate_document(rate((order[known, :5] == label[known, None]).any(axis=1))),
    }


def statistics(rules: RuleSet, data: Data) -> dict[str, str]:
    """The statistics of the paper on held-out images."""
    z, predicted, _ = data.part(data.test)
    found = pathways(data.layer, z, predicted, rules.settings.ahead)
    explained = explain(rules.vocabulary, found)
    counts = occurrences(explained, len(rules.names))
    images = found.images_by_class(len(rules.names))
    shared = sharing_facts(concentration(counts, images), reuse(counts, images))
    sizes = {"predicates of a class, median": f"{np.median(rules.vocabulary.sizes):g}"}
    return sizes | usage_facts(usage(rules.vocabulary, explained, z)) | shared


def trade(quantile: str, data: Data) -> Json:
    """Support and precision of predicates, and of the rules made of them, at a quantile."""
    chosen = Settings(Fraction(quantile), 0, rule_support=1)
    rules = learn(data.lens.classes, data.layer, data.part(data.train), chosen)
    z, predicted, label = data.part(data.test)
    explained = explain(rules.vocabulary, pathways(data.layer, z, predicted))
    found = trade_off(rules.vocabulary, explained, z)
    whole = quality(rules, z, predicted, label)
    return {
        "quantile": quantile,
        "retained": rate_document(found.retained),
        "precision": rate_document(found.precision),
        "coverage": rate_document(whole.coverage),
        "rule_precision": rate_document(whole.precision),
        "fidelity": rate_document(whole.fidelity),
    }


def names(rules: RuleSet, data: Data) -> Json:
    """How many predicates have a name, and those of the best supported ones."""
    words: Vocabulary = rules.vocabulary
    found = evidence(data.lens, words, words.active(data.z), data.train).names()
    best = np.argsort(-words.support, kind="stable")[:EXAMPLES]
    return {
        "share": named_share(found),
        "predicates": len(words),
        "examples": [
            {
                "class": rules.names[words[place].label],
                "feature": words[place].feature,
                "sign": words[place].sign,
                "support": words[place].support,
                "name": None if (name := found[place]) is None else name.concept,
                "effect": None if name is None else round(name.effect, 2),
                "direction": None if name is None else round(name.direction, 2),
            }
            for place in best.tolist()
        ],
    }


# --- the page --------------------------------------------------------------------------------


def write_page(page: Path, folder: Path) -> None:
    """Replace what stands between the marks of each JSON file in the page."""
    text = page.read_text(encoding="utf-8")
    for path in sorted(folder.glob("*.json")):
        begin, end = f"<!-- table {path.stem} -->", f"<!-- end {path.stem} -->"
        if begin not in text:
            continue
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        report = json.loads(path.read_text(encoding="utf-8"))
        written = speed(report) if "seconds" in report else section(report)
        text = f"{before}{begin}\n{written}\n{end}{after}"
    page.write_text(text, encoding="utf-8")


def section(report: Json) -> str:
    """The tables of one bundle."""
    images = report["images"]
    model = (
        f"`{report['bundle']}` ({report['model']}, {report['features']} features): "
        f"{images['train']} training and {images['heldout']} held-out images; the model's own "
        f"accuracy is {_share(report['model_accuracy'])} %. Shares in percent, with 95 % intervals."
    )
    parts = [
        model,
        _table(_QUALITY, [_quality_row(*item) for item in report["rule_sets"].items()]),
        "The same bits for other learners, of the same training images:",
        _table(_COMPARED, list(_compared_rows(report))),
        "Tighter thresholds, without look-ahead:",
        _table(_TRADE, [_trade_row(row) for row in report["trade_off"]]),
        "Predicates on the held-out images:",
        _table(("", *report["statistics"]), list(_statistics_rows(report["statistics"]))),
    ]
    return "\n\n".join(parts + _names(report["names"]))


_QUALITY = (
    "rules",
    "number",
    "length",
    "coverage",
    "precision where covered",
    "fidelity",
    "accuracy",
    "among five",
    "conflicts",
)
_COMPARED = ("bits of", "learner", "size", "fidelity", "accuracy", "among five")
_TRADE = (
    "quantile",
    "threshold retained",
    "precision of a predicate",
    "rules: coverage",
    "rules: precision where covered",
    "rules: fidelity",
)


def _quality_row(name: str, found: Json) -> list[str]:
    shares = ("coverage", "precision", "fidelity", "accuracy", "accuracy5", "conflict")
    median, mean = found["length"]
    return [name, str(found["rules"]), f"{median:g} ({mean:.1f})", *_shares(found, shares)]


def _compared_rows(report: Json) -> list[list[str]]:
    shares, rows = ("fidelity", "accuracy", "accuracy5"), []
    for name, learners in report["compared"].items():
        own = report["rule_sets"][name]
        rows.append([name, "rules", f"{own['rules']} rules", *_shares(own, shares)])
        rows += [
            [name, key, each["size"], *_shares(each, shares)] for key, each in learners.items()
        ]
    return rows


def _trade_row(row: Json) -> list[str]:
    shares = ("retained", "precision", "coverage", "rule_precision", "fidelity")
    return [row["quantile"], *_shares(row, shares)]


def _statistics_rows(found: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    columns = list(found.values())
    return [[key, *(column.get(key, "–") for column in columns)] for key in columns[0]]


def _names(found: Json | None) -> list[str]:
    if found is None:
        return ["Predicates of a hidden layer get no names."]
    rows = [
        [
            row["class"],
            f"z({row['feature']}){'+' if row['sign'] > 0 else '−'}",
            str(row["support"]),
            row["name"] or "no name",
            "–" if row["name"] is None else f"{row['effect']:.2f}",
            "–" if row["name"] is None else f"{row['direction']:.2f}",
        ]
        for row in found["examples"]
    ]
    head = (
        f"{100 * found['share']:.0f} % of the {found['predicates']} predicates of the paper's "
        "definition have a name. The best supported ones:"
    )
    return [head, _table(("class", "feature", "support", "name", "effect", "cosine"), rows)]


def _shares(found: Json, names_of: Sequence[str]) -> list[str]:
    return [_share(found[name]) for name in names_of]


def _share(found: Json | None) -> str:
    return rate_text(None if found is None else Rate(**found))


def speed(report: Json) -> str:
    """The table of ``benchmarks.rules_speed``."""
    seconds, used = report["seconds"], report["processor_seconds"]
    rows = [
        [name, f"{seconds[name]:.0f} s", f"{used[name]:.0f} s"] for name in ("predict", "extract")
    ]
    about = (
        f"{report['rows']:,} embeddings of {report['features']:,} features, "
        f"{report['classes']:,} classes; {report['predicates']:,} predicates from "
        f"{report['sources']:,} source images, pathways of {report['pathway']['median']} feature "
        f"(median) to {report['pathway']['longest']}; peak memory {report['peak_mib']} MiB, "
        f"{report['machine']['processor']}, load {report['load']:.1f}."
    )
    return f"{about}\n\n{_table(('step', 'wall clock', 'processor'), rows)}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    main()
