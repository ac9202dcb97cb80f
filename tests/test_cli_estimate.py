"""``conspec estimate``: exit codes, tables, files, what is refused and what is passed over."""

import io
import json
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR
from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from conspec.cli.demo import _estimated
from conspec.cli.main import main
from conspec.lens import Lens
from conspec.report import estimates as tables
from conspec.report.words import percent
from conspec.specs import parse
from conspec.verifier.estimates import estimate_suite
from conspec.verifier.probability import stated
from conspec.verifier.probability.mass import MassBounds
from conspec.verifier.probability.robust import Metric, RobustRadii
from tests.bundles import write_skewed, write_tiny
from tests.commands import estimates_schema, lines

SUITE = """
spec wheels_over_wings:
    forall x in focus(truck, gamma=0.5): predict(truck) => wheels > wings
spec "in a sea lion":
    forall x in focus("sea lion", gamma=0.5): fur > "floppy ears"
spec in_either:
    forall x in focus(truck, gamma=1) or focus(bird, gamma=1): wheels > fur or wings > fur
"""
HOLDS = (
    "spec likely: probability >= 0.5 with confidence 0.9 for x in class(truck): wheels > wings\n"
)
FAILS = (
    "spec unlikely: probability >= 0.9 with confidence 0.9 for x in class(bird): wheels > wings\n"
)
RELU = """
spec a: forall x in focus(truck, gamma=0.1): predict(truck) => wheels > wings or has(wheels)
"""
OPEN = "spec open: probability >= 0.99 with confidence 0.99 for x in all: wheels > 0\n"
ALL = "spec any: probability >= 0.5 with confidence 0.9 for x in all: wheels > wings\n"
OTHERWISE = ("--mass", "gaussian", "--rare", "kernel", "--robust", "mahalanobis")
EVERYTHING = ("--covered", "--mass", "uniform", "--rare", "gaussian", "--robust", "l2")
QUICK = ("--samples", "200", "--timeout", "1")


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("lens") / "tiny").root


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return written(tmp_path, SUITE)


def written(folder: Path, text: str) -> Path:
    path = folder / "suite.conspec"
    path.write_text(text.replace('"in a sea lion"', "in_a_sea_lion"), encoding="utf-8")
    return path


def estimate(suite: Path | str, lens: Path, *options: str | Path) -> int:
    return main(["estimate", str(suite), "--lens", str(lens), *map(str, options)])


def shown(capsys: pytest.CaptureFixture[str], code: int, *arguments: Any) -> str:
    assert estimate(*arguments) == code
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    assert estimate(*arguments) == 3
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.count("\n") == 1
    return found.err


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (SUITE, 0),
        (SUITE + HOLDS, 0),
        (HOLDS + OPEN, 2),
        (HOLDS + FAILS + OPEN, 1),
    ],
)
def test_the_exit_code_tells_how_stated_probabilities_fare(
    tmp_path: Path, lens: Path, capsys: pytest.CaptureFixture[str], text: str, code: int
) -> None:
    out = shown(capsys, code, written(tmp_path, text), lens)
    for word, name in (("holds", "likely"), ("fails", "unlikely"), ("undecided", "open")):
        assert (word in out) == (f"spec {name}:" in text)


def test_the_table_names_shares_intervals_and_populations(
    suite: Path, lens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shown(capsys, 0, suite, lens)
    assert "Share of held-out images that satisfy each spec" in out
    for part in (
        "of 10 truck",
        "of 10 sea lion",
        "of 30",
        "100 % [69, 100]",
        "all at once [62, 100]",  # (0.05 / 6)^(1 / 10) = 0.62
    ):
        assert part in out
    assert "decision" not in out  # nothing is stated
    jeffreys = shown(capsys, 0, suite, lens, "--interval", "jeffreys", "--confidence", "0.9")
    assert "Intervals: 90 % Jeffreys (Bayesian)" in jeffreys


def test_the_document_and_the_file_hold_the_same_and_follow_the_schema(
    tmp_path: Path, lens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, SUITE + ALL)
    out = tmp_path / "out"
    text = shown(capsys, 2, path, lens, *EVERYTHING, *QUICK, "--json", "--out", out)
    document = json.loads(text)  # one document, nothing else
    assert document["suite"] == str(path)
    assert document["estimates"] == lines(out / "estimates.jsonl")
    for line in document["estimates"]:
        jsonschema.validate(line, estimates_schema())
        assert len(line["robust"]["radius"]) == line["n"]
    first, second, either, stated_one = document["estimates"]
    for line in (first, second):
        assert {"covered", "mass", "violation", "robust"} <= line.keys()
        assert Fraction(line["mass"]["lower"]) <= Fraction(line["mass"]["upper"])
        assert line["covered"]["count"] <= line["count"]  # what lies in the region satisfies
        assert line["covered"]["n"] == line["n"]
    assert {"covered", "mass", "violation"}.isdisjoint(either)
    assert {"covered", "mass", "violation"}.isdisjoint(stated_one)
    said = "\n".join(document["left_out"])
    for part in (
        "in_either has no --covered number: a union",
        "in_either has no --mass number: a distribution needs one box; this region is a union.",
        "in_either has no --rare number: it is about no class",
        "--mass is about regions; passed over: any.",
    ):
        assert part in said
    assert (out / "robust.png").read_bytes().startswith(b"\x89PNG")


def test_a_relu_head_and_other_distributions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_skewed(tmp_path / "relu", hidden=True).root
    path = written(
        tmp_path,
        RELU,
    )
    out = tmp_path / "out"
    for options in (EVERYTHING, OTHERWISE):
        shown(capsys, 0, path, root, *options, *QUICK, "--out", out)
        (line,) = lines(out / "estimates.jsonl")
        jsonschema.validate(line, estimates_schema())


def test_the_demo_writes_lines_of_the_same_kind(tmp_path: Path, lens: Path) -> None:
    path = tmp_path / "estimates.jsonl"
    made = Lens.load(lens)
    found = _estimated(parse(written(tmp_path, SUITE).read_text(), file="s"), made, path)
    for line in lines(path):
        jsonschema.validate(line, estimates_schema())
        assert found[line["text"]].count == line["count"]


def test_embeddings_of_ones_own(
    tmp_path: Path, lens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    z = np.ones((40, 4), dtype=np.float16)
    z[:36, 0] = 3
    z[39, 1] = np.nan
    np.save(tmp_path / "half.npy", z)
    path = written(tmp_path, ALL)
    assert estimate(path, lens, "--embeddings", tmp_path / "half.npy", "--json") == 0
    captured = capsys.readouterr()
    (line,) = json.loads(captured.out)["estimates"]
    assert (line["count"], line["n"], line["skipped"]) == (36, 39, {"count": 1, "first": [39]})
    assert line["files"] == [str(tmp_path / "half.npy")]
    assert "1 embedding has NaN or infinite entries and was left out: row 39" in captured.err
    save_file({"z": z, "label": np.arange(40) % 3}, tmp_path / "l.safetensors")
    both = ("--embeddings", tmp_path / "l.safetensors", "--embeddings", tmp_path / "l.safetensors")
    out = shown(capsys, 0, written(tmp_path, SUITE), lens, *both, "--covered")
    assert "Share of embeddings that satisfy each spec" in out
    assert "of 28 truck" in out
    assert "of 26 sea lion" in out  # row 39 would be the 14th of its class in each file


def test_a_class_without_images_is_named(
    tmp_path: Path, lens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(
        {"z": np.ones((5, 4), np.float32), "label": np.full(5, -1)}, tmp_path / "z.safetensors"
    )
    options = ("--embeddings", tmp_path / "z.safetensors", "--covered", "--robust", "linf")
    assert estimate(written(tmp_path, HOLDS), lens, *options) == 2
    captured = capsys.readouterr()
    assert "There are no images to count for likely." in captured.err
    assert "no images" in captured.out
    assert "nan" not in captured.out


def bad_files(folder: Path) -> dict[str, str]:
    """Names of files that hold no embeddings of the tiny bundle, and what is said of each."""
    z = np.ones((3, 4), np.float32)
    np.save(folder / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(folder / "z.npz", z)
    (folder / "zip.npy").write_bytes((folder / "z.npz").read_bytes())
    (folder / "empty.npy").write_bytes(b"")
    arrays = {"flat": z[0], "int": z.astype(int), "long": z.astype(np.longdouble)}
    for name, array in (arrays | {"wide": np.ones((3, 5), np.float32)}).items():
        np.save(folder / f"{name}.npy", array)
    tensors = {
        "noz": {"y": z},
        "short": {"z": z, "label": np.zeros(2, int)},
        "floats": {"z": z, "label": np.zeros(3, np.float32)},
        "range": {"z": z, "label": np.array([0, 1, 3])},
        "nolabel": {"z": z},
    }
    for name, found in tensors.items():
        save_file(found, folder / f"{name}.safetensors")
    whole = (folder / "range.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:60])
    (folder / "z.csv").write_text("1,2,3,4")
    return {
        "pickle.npy": "no embeddings can be read from it",
        "zip.npy": "no embeddings can be read from it",
        "empty.npy": "no embeddings can be read from it",
        "cut.safetensors": "no embeddings can be read from it",
        "flat.npy": "expected shape [N, n], got [4]",
        "int.npy": "embeddings must be float16, float32 or float64, not int64",
        "long.npy": "embeddings must be float16, float32 or float64, not float128",
        "wide.npy": "embeddings of 5 entries; those of the bundle have 4",
        "missing.npy": "No such file",
        "noz.safetensors": "no tensor 'z' in it; there are y",
        "short.safetensors": "labels: expected one per embedding (3), got [2]",
        "floats.safetensors": "labels must be whole numbers, not float32",
        "range.safetensors": "label 3, but the bundle's 3 classes are numbered from 0",
        "nolabel.safetensors": "spec likely is about the class 'truck', but there are embeddings",
        "z.csv": "embeddings are read from .npy and .safetensors files only",
    }


def test_other_files_are_refused(
    tmp_path: Path, lens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, HOLDS)
    for name, message in bad_files(tmp_path).items():
        assert message in refused(capsys, path, lens, "--embeddings", tmp_path / name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--confidence", "1"), "a confidence must lie strictly between 0 and 1"),
        (("--timeout", "0"), "--timeout 0: must be above 0 seconds"),
        (("--device", "abacus"), "device 'abacus' cannot be used"),
        (("--spec", "nothing*"), "--spec nothing*: no spec has such a name"),
    ],
)
def test_other_options_are_refused(
    suite: Path,
    lens: Path,
    capsys: pytest.CaptureFixture[str],
    options: Sequence[str],
    message: str,
) -> None:
    assert message in refused(capsys, suite, lens, *options)


def test_has_without_a_threshold_is_refused_by_name(
    tmp_path: Path, lens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, "spec a: forall x in focus(bird, gamma=1): has(fur)")
    assert "spec a: " in refused(capsys, path, lens)


def test_interrupted_it_shows_what_is_known(
    suite: Path, lens: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = stated.mass_of, []

    def interrupted(*arguments: Any) -> MassBounds:
        asked.append(arguments)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(stated, "mass_of", interrupted)
    options = ("--mass", "uniform", "--rare", "gaussian", "--json", "--timeout", "1")
    assert estimate(suite, lens, *options) == 130
    found = json.loads(capsys.readouterr().out)
    assert ["mass" in line for line in found["estimates"]] == [True, False, False]
    assert "Interrupted: not everything that was asked for is here." in found["left_out"]


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_cut_off_in_a_narrow_terminal(lens: Path, width: int) -> None:
    suite = parse(
        HOLDS
        + "spec a_name_of_more_than_thirty_letters: probability >= 0.995 with confidence 0.999 "
        'for x in class("sea lion"): predict("sea lion") => fur > "floppy ears" and fur > wings'
    )
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None)
    console.print(tables.estimate_table(estimate_suite(suite, Lens.load(lens)).specs))
    out = stream.getvalue()
    assert "…" not in out
    for part in ("undecided", "at 0.999", "if normal", "all at once [65, 100]", "of 10 sea lion"):
        assert part in out
    assert max(map(len, out.splitlines())) <= width


def test_bounds_are_rounded_outward() -> None:
    for value in (0.7174, 0.999951, 0.00437, 1e-9, 0.99, 0.5, 1.0, 0.0, 0.1, 0.29):
        text = tables._at_least(value).removeprefix("≥ ").removesuffix(" %")
        assert float(text) <= 100 * value * (1 + 1e-12)
        assert float(text) >= 100 * value - max(min(1.0, 100 * min(value, 1 - value)), 1e-9)
    assert tables._at_least(0.7174) == "≥ 71 %"
    assert tables._at_least(0.29) == "≥ 29 %"
    assert percent(0.7174) == "72"
    third = Fraction(1, 3)
    down, up = (tables._digits(third, way) for way in (ROUND_FLOOR, ROUND_CEILING))
    assert (down, up) == ("0.333333333", "0.333333334")
    nearly = 1 - Fraction(1, 10**12)
    assert tables._digits(nearly, ROUND_FLOOR) == "0.999999999"
    assert tables._digits(Fraction(1, 3 * 10**12), ROUND_CEILING) == "3.4e-13"
    assert tables._digits(Fraction(1), ROUND_FLOOR) == "1"
    assert tables._digits(Fraction(0), ROUND_CEILING) == "0"


def test_infinite_radii_have_quantiles(lens: Path) -> None:
    lower = np.array([[np.inf], [np.inf], [1.0]])
    everything = np.ones((3, 1), dtype=np.bool_)
    radii = RobustRadii(
        parse(HOLDS).specs, np.arange(3), lower, lower, everything, everything, Metric.L2,
        Lens.load(lens),
    )  # fmt: skip
    stream = io.StringIO()
    Console(file=stream, width=100, color_system=None).print(tables.robust_table(radii, ["likely"]))
    (row,) = [text for text in stream.getvalue().splitlines() if "likely" in text]
    assert row.split() == ["likely", "3", "of", "3", "inf", "1"]


def test_the_results_page_has_every_field() -> None:
    page = (Path(__file__).parent.parent / "docs" / "results.md").read_text(encoding="utf-8")
    page = page[page.index("## The estimates file") : page.index("## Reading it")]
    properties = estimates_schema()["properties"]
    parts = [properties] + [properties[name].get("properties", {}) for name in properties]
    names = {name for part in parts for name in part}
    assert sorted(name for name in names if f"`{name}`" not in page) == []


def test_of_many_specs_the_least_satisfied_are_shown(
    tmp_path: Path, lens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    always = [f"spec s{k}: forall x in focus(truck, gamma=1): wheels > wings" for k in range(60)]
    never = "spec never: forall x in focus(truck, gamma=1): wings > wheels"
    path = written(tmp_path, "\n".join([*always, never, FAILS]))
    assert estimate(path, lens, "--robust", "l2") == 1
    captured = capsys.readouterr()
    assert "40 of 62 specs, the least satisfied; --verbose shows all" in captured.err
    names = [line.split()[0] for line in captured.out.splitlines() if line.strip()]
    assert [name for name in names if name in ("unlikely", "never")] == ["unlikely", "never"] * 2
    assert ("s37" in names, "s38" in names) == (True, False)
    out = shown(capsys, 1, path, lens, "--verbose", "--out", tmp_path / "out")
    assert "s59" in out
    assert len(lines(tmp_path / "out" / "estimates.jsonl")) == 62
