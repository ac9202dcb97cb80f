"""Suites made from tables: their counts, their names, and tables that make no sense."""

from fractions import Fraction
from typing import Any

import pytest

from conspec.specs import frequency_relevance, parse, relevance_suite, to_text
from conspec.specs.errors import BadUsage, UnknownName
from conspec.specs.formula import (
    Ellipsoid,
    Focus,
    ForAll,
    Hull,
    Implies,
    PcaBox,
    Predict,
    Region,
    Stronger,
    Zonotope,
)
from conspec.specs.suites import rival10_concepts, rival10_frequencies, rival10_relevance

COUNTS = {
    **{"plane": 65, "car": 45, "cat": 45, "truck": 72, "ship": 65},
    **{"dog": 56, "equine": 65, "deer": 56, "frog": 17, "bird": 45},
}


def test_rival10_has_531_specs() -> None:
    suite = relevance_suite(rival10_relevance(), rival10_concepts(), gamma="0.4")
    counts = dict.fromkeys(COUNTS, 0)
    for spec in suite.specs:
        assert isinstance(spec, ForAll)
        assert isinstance(spec.body, Implies)
        assert isinstance(spec.body.premise, Predict)
        assert isinstance(spec.body.conclusion, Stronger)
        assert spec.body.conclusion.a != spec.body.conclusion.b  # the peer's file has three
        assert spec.region == Focus(spec.body.premise.label, Fraction(2, 5))
        counts[spec.body.premise.label] += 1
    assert counts == COUNTS
    assert len({spec.name for spec in suite.specs}) == 531
    assert parse(to_text(suite)) == suite


def test_rival10_relevance_follows_from_its_frequencies() -> None:
    found = frequency_relevance(rival10_frequencies(), 0.6, drop={"patterned": ("bird",)})
    # Read as .60 +- .02, plane's text is the one share on the wrong side of the threshold.
    found["plane"].remove("text")
    table = {label: set(concepts) for label, concepts in rival10_relevance().items()}
    assert {label: set(concepts) for label, concepts in found.items()} == table


def test_rival10_tables_are_copies() -> None:
    rival10_relevance()["truck"].clear()
    rival10_frequencies()["truck"].clear()
    assert rival10_relevance()["truck"]
    assert rival10_frequencies()["truck"]


def test_names_and_text() -> None:
    suite = relevance_suite(
        {"truck": ["wheels"]}, ["wheels", "floppy-ears"], gamma=0.3, premise=False
    )
    assert to_text(suite) == (
        "spec truck_wheels_over_floppy_ears:\n"
        "    forall x in focus(truck, gamma=0.3):\n"
        '        wheels > "floppy-ears"\n'
    )


@pytest.mark.parametrize(
    ("kind", "region"),
    [
        ("focus", Focus("c", Fraction(1, 2))),
        ("pca_box", PcaBox("c", Fraction(1, 2))),
        ("zonotope", Zonotope("c", Fraction(1, 2))),
        ("ellipsoid", Ellipsoid("c", Fraction(1, 2))),
        ("hull", Hull("c")),
    ],
)
def test_regions(kind: str, region: Region) -> None:
    [spec] = relevance_suite({"c": ["a"]}, ["a", "b"], gamma=0.5, region=kind).specs
    assert isinstance(spec, ForAll)
    assert spec.region == region


@pytest.mark.parametrize(
    ("relevance", "concepts", "options", "message"),
    [
        ({"c": ["a"]}, ["a", "b", "a"], {}, "concepts: 'a' is given twice"),
        ({"c": ["a", "a"]}, ["a", "b"], {}, "relevant concepts of 'c': 'a' is given twice"),
        # This is how the peer's file came to compare long-snout with itself.
        (
            {"c": ["longSnout"]},
            ["longSnout", "longsnout"],
            {},
            "concepts: 'longSnout' and 'longsnout' differ only in case",
        ),
        ({"c": ["a"], "C": ["a"]}, ["a", "b"], {}, "classes: 'c' and 'C' differ only in case"),
        ({"c": ["a"]}, ["a", "b b", "b-b"], {}, "spec names: 'c_a_over_b_b' is given twice"),
        ({"c": []}, ["a", "b"], {}, "no class has both a relevant and an irrelevant concept"),
        ({"c": ["a"]}, ["a"], {}, "no class has both a relevant and an irrelevant concept"),
        ({"c": ["a"]}, ["a", "b"], {"region": "ball"}, "unknown region 'ball'; there are focus"),
        ({"c": ["a"]}, ["a", "b"], {"gamma": -1}, "gamma: expected a number >= 0, got -1"),
        ({"c": ["a"]}, ["a", "b"], {"gamma": "wide"}, "gamma: expected a number, got 'wide'"),
        ({"c": ["a"]}, ["a", "b"], {"gamma": float("nan")}, "gamma: expected a number, got nan"),
    ],
)
def test_tables_that_are_refused(
    relevance: dict[str, list[str]], concepts: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadUsage, match=message):
        relevance_suite(relevance, concepts, **{"gamma": 1, **options})


def test_an_unknown_concept() -> None:
    with pytest.raises(UnknownName, match=r"dog: unknown name 'longsnout'; .*long-snout"):
        relevance_suite({"dog": ["longsnout"]}, ["long-snout", "wings"], gamma=1)


def test_frequencies() -> None:
    table = {"c": {"a": 0.6, "b": 0.59}, "d": {"a": 1.0, "b": 0.9}}
    assert frequency_relevance(table, 0.6) == {"c": ["a"], "d": ["a", "b"]}
    assert frequency_relevance(table, 0.6, drop={"a": ()}) == {"c": [], "d": ["b"]}
    assert frequency_relevance(table, 0.6, drop={"a": ("c",)}) == {"c": ["a"], "d": ["b"]}


def test_frequencies_that_are_refused() -> None:
    with pytest.raises(BadUsage, match=r"they lie in \[0, 1\]"):
        frequency_relevance({"c": {"a": 60.0}}, 0.5)
    with pytest.raises(UnknownName, match=r"drop: unknown name 'paterned'.*'patterned'"):
        frequency_relevance({"c": {"patterned": 0.6}}, 0.5, drop={"paterned": ()})
    with pytest.raises(UnknownName, match="drop: unknown name 'brd'"):
        frequency_relevance({"bird": {"a": 0.6}}, 0.5, drop={"a": ("brd",)})
