"""Con_spec, the language of specifications: read, write, rewrite and evaluate.

lark is imported with the first text to be parsed, so importing this costs little.
"""

from conspec.specs.columns import ScoreBatch
from conspec.specs.parser import parse, parse_file, parse_formula, parse_region
from conspec.specs.printer import to_text
from conspec.specs.rewrite import literals, negation_normal_form
from conspec.specs.semantics import Scores, holds, margin, truth
from conspec.specs.suites import frequency_relevance, relevance_suite

__all__ = [
    "ScoreBatch",
    "Scores",
    "frequency_relevance",
    "holds",
    "literals",
    "margin",
    "negation_normal_form",
    "parse",
    "parse_file",
    "parse_formula",
    "parse_region",
    "relevance_suite",
    "to_text",
    "truth",
]
