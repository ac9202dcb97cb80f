"""``conspec radius``: exit codes, tables, files, and what is passed over."""

import io
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import jsonschema
import pytest
from PIL import Image

from conspec.cli.main import main
from conspec.lens import Lens
from conspec.report import heatmap, radii
from conspec.report.page import Report, render
from conspec.report.radii import Place, Span
from conspec.report.records import schema
from conspec.report.tables import class_table, radius_table, spec_table
from conspec.specs import parse, relevance_suite, to_text
from conspec.specs.formula import Focus, ForAll, Implies, Predict, Stronger, Suite
from conspec.verifier import radius as radius_module
from conspec.verifier.decide import Limits
from conspec.verifier.radius import Radius, radius_suite
from tests.bundles import CLASSES, CONCEPTS, write_tiny
from tests.commands import lines
from tests.test_report import HOSTILE, shown

SUITE = """
spec holds_far:
    forall x in focus(truck, gamma=0.5): predict(truck) => wheels > "floppy ears"
spec fails_inside:
    forall x in focus(truck, gamma=40): wheels > wings
spec fails_at_the_centre:
    forall x in ball(0, radius=1, norm=linf): wings > wheels
"""
WITHOUT_SCALE = """
spec in_a_hull:
    forall x in hull(truck): wheels > wings
spec in_either:
    forall x in focus(truck, gamma=1) or focus(bird, gamma=1): wheels > wings
"""
RELEVANT = {"truck": ["wheels"], "bird": ["wings", "floppy ears"], "sea lion": ["fur"]}


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("lens") / "tiny").root


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return written(tmp_path / "suite.conspec", SUITE)


@pytest.fixture
def relevance(tmp_path: Path) -> Path:
    return written(tmp_path / "r.conspec", to_text(relevance_suite(RELEVANT, CONCEPTS, gamma=2)))


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def radius(suite: Path | str, lens: Path, *options: str | Path) -> int:
    return main(["radius", str(suite), "--lens", str(lens), *map(str, options)])


def test_the_table_shows_both_ends_coverage_and_the_own_scale(
    suite: Path, lens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert radius(suite, lens) == 0
    captured = capsys.readouterr()
    out = captured.out
    for part in ("focus(truck)", "ball(0, norm=linf)", "the centre", "✓ 0.5 inside"):
        assert part in out
    assert "✗ 40 beyond" in out
    assert "[69, 100] of 10" in out
    assert "3 specs: 1 hold at their own scale, 2 fail there; 1 fail at the centre already" in out
    assert captured.err == ""


def test_every_line_is_an_ordinary_verdict_that_check_re_establishes(
    suite: Path, lens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "radii.jsonl"
    assert radius(suite, lens, "--jsonl", file) == 0
    found = lines(file)
    assert [(line["spec"], line["verdict"]) for line in found] == [
        ("holds_far", "proved"),
        ("holds_far", "violated"),
        ("fails_inside", "proved"),
        ("fails_inside", "violated"),
        ("fails_at_the_centre", "violated"),
    ]
    for line in found:
        jsonschema.validate(line, schema())
        (spec,) = parse(line["text"]).specs
        assert isinstance(spec, ForAll)
        assert radius_module.scale_of(spec.region) == Fraction(line["radius"]["scale"])
    assert main(["check", str(file), "--lens", str(lens)]) == 0
    assert "5 re-established, 0 refused" in capsys.readouterr().out


def test_verify_agrees_with_the_radius(suite: Path, lens: Path, tmp_path: Path) -> None:
    file = tmp_path / "radii.jsonl"
    radius(suite, lens, "--jsonl", file)
    for place, line in enumerate(lines(file)):
        again = written(tmp_path / f"{place}.conspec", line["text"])
        assert main(["verify", str(again), "--lens", str(lens)]) == (line["verdict"] != "proved")


def test_json_is_one_document(suite: Path, lens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(suite, SUITE + WITHOUT_SCALE)
    assert radius(suite, lens, "--json", "--spec", "holds_*", "--spec", "in_*") == 0
    document = json.loads(capsys.readouterr().out)
    (entry,) = document["radii"]
    assert entry["own"] == 0.5
    assert entry["own_is"] == "inside"
    assert entry["region"] == "focus(truck)"
    assert 0.5 < entry["proved_up_to"] < entry["violated_from"]
    assert entry["proof"]["verdict"] == "proved"
    assert entry["violation"]["counterexample"] is not None
    assert set(document["skipped"]) == {"in_a_hull", "in_either"}


def test_regions_without_a_scale_are_passed_over_with_a_warning(
    suite: Path, lens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(suite, SUITE + WITHOUT_SCALE)
    assert radius(suite, lens) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("warning: Not measured, since their regions have no scale: ")
    assert "in_a_hull (a hull has no scale γ)" in captured.err
    assert "in_either (a union of regions has no scale γ)" in captured.err
    assert "3 specs" in captured.out


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (WITHOUT_SCALE, (), "no spec has a region with a scale: in_a_hull (a hull has"),
        ("# nothing", (), "there is no spec in it"),
        (SUITE, ("--timeout", "0"), "--timeout 0: must be above 0 seconds"),
        (SUITE, ("--spec", "none*"), "--spec none*: no spec has such a name"),
        (SUITE, ("--jsonl", "no/such/folder/r.jsonl"), "there is no folder"),
        ("spec s: forall x in focus(truk, gamma=1): wheels > wings", (), "unknown class 'truk'"),
        ("spec s: forall x in ball(9999, radius=1, norm=l2): wheels > wings", (), "no image 9999"),
    ],
)
def test_bad_input_is_3_and_one_line(
    tmp_path: Path,
    lens: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    options: tuple[str, ...],
    message: str,
) -> None:
    path = written(tmp_path / "s.conspec", text)
    assert radius(path, lens, *options, "--out", tmp_path / "out") == 3
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.out == ""
    assert not (tmp_path / "out").exists()


def test_a_run_goes_on_where_it_stopped(
    suite: Path,
    lens: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "radii.jsonl"
    asked: list[list[str]] = []

    def stopping(suite: Suite, lens: Lens, limits: Limits) -> Iterator[Radius]:
        asked.append([spec.name for spec in suite.specs])
        yield next(radius_suite(suite, lens, limits))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(radius_module, "radius_suite", stopping)
        assert radius(suite, lens, "--jsonl", file) == 130
    assert "interrupted: 1 of 3 radii are known" in capsys.readouterr().err
    kept = file.read_bytes()
    half = kept + kept.splitlines(keepends=True)[0].replace(b"holds_far", b"fails_inside")
    file.write_bytes(half)  # killed between the two lines of a spec
    assert radius(suite, lens, "--jsonl", file) == 0
    assert f"{file}: 1 of 3 radii are known already" in capsys.readouterr().err
    assert asked == [["holds_far", "fails_inside", "fails_at_the_centre"]]
    assert file.read_bytes().startswith(half)
    with monkeypatch.context() as patch:
        patch.setattr(radius_module, "radius_suite", stopping)
        assert radius(suite, lens, "--jsonl", file) == 0
    assert len(asked) == 1


def test_more_time_or_another_bundle_measures_again(
    suite: Path, lens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "radii.jsonl"
    other = write_tiny(tmp_path / "other", ("truck", "bird", "seal")).root
    radius(suite, lens, "--jsonl", file)
    for bundle, options in ((lens, ("--timeout", "20")), (other, ())):
        assert radius(suite, bundle, "--jsonl", file, *options) == 0
        assert "known already" not in capsys.readouterr().err


def test_the_folder_has_results_a_report_and_a_picture(
    relevance: Path, lens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert radius(relevance, lens, "--out", out) == 0
    captured = capsys.readouterr()
    assert "Radius by class" in captured.out
    assert captured.err == f"wrote {out / 'report.html'} and radius.png\n"
    assert sorted(path.name for path in out.iterdir()) == [
        "radius.png",
        "report.html",
        "results.jsonl",
    ]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "How far specs hold" in page
    assert "data:image/png;base64," in page
    assert "certified, covers" in page
    with Image.open(out / "radius.png") as picture:
        assert picture.width > 600


def test_a_suite_of_another_kind_has_no_picture(suite: Path, lens: Path, tmp_path: Path) -> None:
    assert radius(suite, lens, "--out", tmp_path / "out", "--jsonl", tmp_path / "r.jsonl") == 0
    assert not (tmp_path / "out" / "radius.png").exists()
    assert lines(tmp_path / "out" / "results.jsonl") == lines(tmp_path / "r.jsonl")


# --- what is shown -------------------------------------------------------------------------------


def span(label: str, a: str, b: str, ends: tuple[str | None, str | None], own: str = "1") -> Span:
    spec = ForAll(
        f"{label} {a} {b}", Focus(label, Fraction(own)), Implies(Predict(label), Stronger(a, b))
    )
    lower, upper = (None if end is None else Fraction(end) for end in ends)
    return Span(spec, Fraction(own), lower, upper, None, None)


@pytest.mark.parametrize(
    ("ends", "own", "place"),
    [
        (("1", "1.1"), "1", Place.INSIDE),
        (("1", "1.1"), "1.05", Place.BETWEEN),
        (("1", "1.1"), "1.1", Place.BEYOND),
        ((None, "0"), "0", Place.BEYOND),
        (("1000", None), "2000", Place.BETWEEN),
        ((None, None), "1", Place.BETWEEN),
    ],
)
def test_where_the_own_scale_lies(
    ends: tuple[str | None, str | None], own: str, place: Place
) -> None:
    assert span("truck", "a", "b", ends, own).place is place


def test_ends_are_rounded_outwards() -> None:
    found = span("truck", "a", "b", ("0.484999", "0.485001"))
    assert radii.both_ends(found) == "0.484 / 0.486"
    assert (radii.lower_end(found), radii.upper_end(found)) == ("0.484999", "0.485001")
    assert radii.both_ends(span("truck", "a", "b", (None, "0"))) == "– / the centre"
    assert radii.both_ends(span("truck", "a", "b", ("1368.3", None))) == "1360 / –"


def test_a_large_suite_gets_one_row_for_each_class_with_the_least() -> None:
    many = [span("truck", f"a{i}", "b", (f"{i + 1}", None)) for i in range(60)]
    grid = radii.grid_of(many)
    assert grid is not None
    assert (grid.rows, grid.columns, grid.merged) == (("truck",), ("b",), True)
    assert grid.cells["truck", "b"].lower == 1
    few = radii.grid_of(many[:3])
    assert few is not None
    assert few.rows == ("truck: a0", "truck: a1", "truck: a2")


@pytest.mark.parametrize("name", [HOSTILE, "$\\frac{1}$", "狗", "a" * 200, "bell\a"])
def test_hostile_names_are_drawn_and_written_as_they_are(name: str, tmp_path: Path) -> None:
    spans = [
        span(name, name, "wings", ("0.5", "0.6")),
        span(name, name, "fur", (None, "0")),
        span("bird", "wings", name, ("2000", None)),
        span("bird", "wings", "fur", (None, None)),
    ]
    grid = radii.grid_of(spans)
    assert grid is not None
    picture = heatmap.heat_map(grid, name)
    assert Image.open(io.BytesIO(picture)).format == "PNG"
    report = Report(name, (), write_tiny(tmp_path / "lens"), spans=spans)
    page = render(Report(report.title, (), report.lens, spans=spans, heat_map=(picture, name)))
    assert "<script>alert" not in page
    assert "\a" not in page + shown(radius_table(spans), class_table(spans))


def test_the_verdict_table_has_no_such_column_unless_asked() -> None:
    assert "fails from" not in shown(spec_table([]))
    assert "fails from" in shown(spec_table([], {}))


def test_the_numbers_in_the_cells_are_rounded_down_and_short() -> None:
    said = [
        heatmap._number(span("truck", "a", "b", (scale, "9999")))
        for scale in ("0.0999", "0.9999", "1", "9.99", "99.9", "1368", "0")
    ]
    assert said == [".09", ".99", "1.0", "9.9", "99", "≥1k", ".00"]
    assert heatmap._number(span("truck", "a", "b", (None, "0"))) == "✗"
    assert heatmap._number(span("truck", "a", "b", (None, None))) == "?"


def test_classes_of_the_bundle_are_the_rows(relevance: Path, lens: Path, tmp_path: Path) -> None:
    radius(relevance, lens, "--jsonl", tmp_path / "r.jsonl")
    assert {line["coverage"]["population"] for line in lines(tmp_path / "r.jsonl")} == set(CLASSES)
