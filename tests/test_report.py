"""Records, tables, pictures and the HTML page; with names that try to break out of them."""

import copy
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from PIL import Image
from rich.console import Console

from conspec.lens import Lens
from conspec.report import facts, words
from conspec.report.figures import caption, contact_sheet, png, summary_figure
from conspec.report.page import Report, render, write_report
from conspec.report.records import Outcome, Record, read_record, schema
from conspec.report.summary import Tally, by_class, by_region, tally
from conspec.report.tables import columns_table, facts_table, region_table, spec_table
from conspec.specs.errors import BadFile
from conspec.specs.names import quoted
from tests.bundles import write_tiny

HOSTILE = '<script>alert("1")</script>&[red]$\\alpha$'

PROVED: dict[str, Any] = {
    "spec": "a",
    "formula": "wheels > wings",
    "region": "focus(truck, gamma=0.5)",
    "text": "spec a:\n    forall x in focus(truck, gamma=0.5):\n        wheels > wings",
    "engine": "auto",
    "decided_by": "screen",
    "verdict": "proved",
    "trust": "certified",
    "reason": None,
    "margin": 0.25,
    "vacuous": False,
    "seconds": 0.001,
    "coverage": {"point": 0.19, "lower": 0.15, "upper": 0.24, "n": 100, "population": "truck"},
    "counterexample": None,
    "more_counterexamples": [],
    "certificate": None,
    "bundle": "0" * 64,
    "versions": {"conspec": "0.1.0"},
}
COUNTEREXAMPLE: dict[str, Any] = {
    "z": ["1", "-1/2", "0", "3"],
    "parameters": None,
    "part": 0,
    "margin": 0.5,
    "exact_margin": "1/2",
    "image": None,
    "replay": {
        "violates": True,
        "logits": {"truck": 1.0, "bird": -0.5, "sea lion": 0.0},
        "concepts": {"wheels": 1.0, "wings": 1.5, "fur": -2.0, "floppy ears": 3.0},
    },
    "neighbours": [
        {"image": 0, "id": "truck/0000.png", "distance": 0.5},
        {"image": 40, "id": "bird/0040.png", "distance": 1.5},
    ],
}


def line(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(PROVED) | changes


def violated(**changes: Any) -> dict[str, Any]:
    return line(verdict="violated", margin=-0.5, vacuous=None, counterexample=COUNTEREXAMPLE) | (
        changes
    )


def unknown(**changes: Any) -> dict[str, Any]:
    return line(verdict="unknown", trust=None, margin=None, vacuous=None, reason="why") | changes


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Lens:
    return write_tiny(tmp_path_factory.mktemp("lens") / "tiny")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Lens:
    folder = tmp_path_factory.mktemp("lens") / "hostile"
    return write_tiny(folder, (HOSTILE, "bird", "sea lion"))


def shown(*items: Any) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=100, color_system=None)
    for item in items:
        console.print(item)
    return stream.getvalue()


@pytest.mark.parametrize("made", [line(), violated(), unknown(), line(coverage=None)])
def test_examples_follow_the_schema_and_are_read(made: dict[str, Any]) -> None:
    jsonschema.validate(made, schema())
    assert read_record(made).outcome == made["verdict"]


@pytest.mark.parametrize(
    "made",
    [
        line(verdict="holds"),
        line(reason="x"),
        unknown(reason=None),
        violated(counterexample=None),
        line(counterexample=COUNTEREXAMPLE),
        line(bundle="x"),
        unknown(vacuous=True),
    ],
)
def test_the_schema_refuses_what_does_not_fit_together(made: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(made, schema())


@pytest.mark.parametrize(
    "made",
    [
        {},
        {k: v for k, v in PROVED.items() if k != "region"},
        line(verdict="holds"),
        line(seconds="long"),
        line(coverage=[1]),
        violated(counterexample={"margin": 1}),
        line(spec=3),
    ],
)
def test_what_is_no_results_line_is_refused(made: dict[str, Any]) -> None:
    with pytest.raises(BadFile, match=r"r\.jsonl:3: not a results line"):
        read_record(made, "r.jsonl:3")


def test_counts_and_groups() -> None:
    bird = {**PROVED["coverage"], "population": "bird"}
    records = [
        read_record(made)
        for made in (
            line(),
            violated(region="focus(bird, gamma=1)", coverage=bird),
            unknown(region="focus(truck, gamma=1)"),
            line(),
        )
    ]
    assert tally(records) == Tally(proved=2, violated=1, unknown=1)
    regions = [summary.region for summary in by_region(records)]
    assert regions == [
        "focus(truck, gamma=0.5)",
        "focus(truck, gamma=1)",
        "focus(bird, gamma=1)",
    ]
    assert by_class(records) == {"truck": Tally(2, 0, 1), "bird": Tally(0, 1, 0)}
    assert caption(records).startswith("truck: 3 specs: 2 proved, 0 violated, 1 unknown; bird")


def test_words() -> None:
    record = read_record(line())
    assert words.coverage(record.coverage) == "19 % [15, 24] of 100 held-out"
    assert words.coverage(None) == "no held-out images"
    assert words.margin(record) == "≥ 0.25"
    assert words.margin(read_record(violated())) == "−0.5"
    assert words.margin(read_record(unknown())) == ""
    assert words.printable("a\x1b[31m\nb\x07") == "a\ufffd[31m\nb\ufffd"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (line(), ""),
        (line(vacuous=True), "vacuous: no embedding"),
        (line(trust="solver"), "solver's word"),
        (unknown(), "why"),
        (violated(), "nearest image truck/0000.png at distance 0.5"),
        (violated(counterexample={**COUNTEREXAMPLE, "image": "i.png"}), "i.png violates it"),
        (violated(counterexample={**COUNTEREXAMPLE, "margin": 0.0}), "a tie"),
        (
            violated(
                counterexample={
                    **COUNTEREXAMPLE,
                    "replay": {"violates": False, "logits": {}, "concepts": {}},
                }
            ),
            "float32 rounding hides it",
        ),
    ],
)
def test_explanations(made: dict[str, Any], said: str) -> None:
    assert said in words.explanation(read_record(made))
    assert bool(said) == bool(words.explanation(read_record(made)))


def test_tables_show_names_as_they_are() -> None:
    records = [
        read_record(violated(spec=HOSTILE, region=f"focus({HOSTILE})")),
        read_record(line(spec="\x1b]0;title\x07")),
    ]
    text = shown(spec_table(records), region_table(records))
    assert HOSTILE in text
    assert "\x1b" not in text
    assert "19 % [15, 24] of 100" in text
    assert "[red]" in shown(facts_table({"[red]": "[/red]"}, "t"))
    assert "[b]" in shown(columns_table("t", ("name", "n"), [("[b]", "1")]))


def test_tables_of_nothing() -> None:
    assert "together" in shown(region_table([]))
    shown(spec_table([]), columns_table("t", ("a", "b"), []))


def test_facts(lens: Lens) -> None:
    assert facts.bundle_facts(lens)["images"] == "drawings: 90 (30 held out)"
    assert ("R²", "1", "1") in facts.quality_rows(lens)
    assert ("accuracy of the vision model", "", "1") in facts.quality_rows(lens)
    assert facts.class_rows(lens)[0] == ("truck", "20", "100 %", "10", "100 %")
    assert facts.concept_rows(lens)[0] == ("wheels", "1.000", "0.5000", "0.9", "hand")
    assert facts.concept_rows(lens)[3][1:] == ("–", "–", "–", "–")


def test_auc_counts_ties_half(lens: Lens) -> None:
    aucs = facts.held_out_aucs(lens)
    assert aucs["wheels"] == 1.0
    assert "floppy ears" not in aucs


def test_contact_sheet_shows_the_images(lens: Lens) -> None:
    record = read_record(violated())
    sheet = contact_sheet(record, record.counterexamples[0], lens)
    assert sheet.width == 1440
    colours = {colour for _, colour in sheet.getcolors(1 << 24) or ()}
    for drawn in ((204, 68, 68), (68, 170, 68)):  # a truck and a bird, after JPEG
        assert any(
            isinstance(c, tuple) and max(abs(a - b) for a, b in zip(c, drawn, strict=True)) < 8
            for c in colours
        )
    assert Image.open(io.BytesIO(png(sheet))).format == "PNG"


@pytest.mark.parametrize("formula", ["predict(truck)", "has(wheels) or wheels > wings", "true"])
def test_contact_sheets_of_other_formulas(lens: Lens, formula: str) -> None:
    text = f"spec a: forall x in focus(truck, gamma=1): {formula}"
    record = read_record(violated(text=text, formula=formula))
    contact_sheet(record, record.counterexamples[0], lens)


def test_contact_sheet_without_neighbours_replay_and_pictures(lens: Lens) -> None:
    bare = {**COUNTEREXAMPLE, "neighbours": [], "replay": None}
    record = read_record(violated(counterexample=bare))
    contact_sheet(record, record.counterexamples[0], lens)


def hostile_record() -> Record:
    name = quoted(HOSTILE)
    return read_record(
        violated(
            spec=HOSTILE,
            formula=f"predict({name}) => wheels > wings",
            region=f"focus({name}, gamma=1)",
            text=f"spec {name}: forall x in focus({name}, gamma=1): wheels > wings",
            coverage={**PROVED["coverage"], "population": HOSTILE},
            decided_by=HOSTILE,
        )
    )


def test_pictures_of_hostile_names(hostile: Lens) -> None:
    record = hostile_record()
    contact_sheet(record, record.counterexamples[0], hostile)
    assert summary_figure([record] * 3, HOSTILE * 20).width == 1440


class Page(HTMLParser):
    """What a browser would find: tags, attributes, and all text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "input", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.text += data


def test_the_page_is_whole_and_says_everything(lens: Lens) -> None:
    records = [read_record(line()), read_record(violated(spec="b")), read_record(unknown())]
    sheet = png(contact_sheet(records[1], records[1].counterexamples[0], lens))
    page = Page(render(Report("A title", records, lens, {"b": [sheet]}, ["A note."])))
    assert page.open == []
    for text in ("A title", "A note.", "wheels > wings", "19 % [15, 24] of 100 held-out", "why"):
        assert text in page.text
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert any(str(value).startswith("data:image/png;base64,") for value in sources)
    assert all(str(value).startswith(("data:", "#")) for value in sources)
    targets = {f"#{value}" for name, value in page.attributes if name == "id"}
    assert {value for value in sources if str(value).startswith("#")} <= targets


def test_hostile_names_stay_text(hostile: Lens) -> None:
    record = hostile_record()
    report = Report(HOSTILE, [record], hostile, {HOSTILE: [b"png"]}, [HOSTILE])
    text = render(report)
    page = Page(text)
    assert page.tags.count("script") == 1
    assert page.text.count(HOSTILE) >= 5
    assert "alert" not in text.split("<script>")[1]
    clean = Page(render(Report("t", [], hostile)))
    assert clean.tags.count("script") == 1


def test_names_that_a_terminal_would_obey_are_shown_harmless(lens: Lens) -> None:
    text = render(Report("\x1b[2J", [read_record(line(spec="\x00\u202e"))], lens))
    assert not any(char in text for char in "\x1b\x00\u202e")


def test_a_page_is_written_whole(lens: Lens, tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    write_report(path, Report("t", [read_record(line(spec="\ud800"))], lens))
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_schema_and_outcomes_agree() -> None:
    assert schema()["properties"]["verdict"]["enum"] == [outcome.value for outcome in Outcome]
    json.dumps(schema())
