"""``conspec radius``: up to which size of its region each spec holds, and from which on it fails."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from conspec.cli.console import print_json, progress, say, show, warn
from conspec.cli.exits import Exit
from conspec.cli.inputs import Wanted, read_suite, select
from conspec.cli.journal import Journal, Line, open_journal, write_lines
from conspec.cli.output import EVERY_SPEC
from conspec.cli.run import Task, limits_of
from conspec.cli.verify import (
    JsonlOption,
    JsonOption,
    LensOption,
    SpecOption,
    SuiteArgument,
    TimeoutOption,
    VerboseOption,
    results_file,
    some,
)
from conspec.specs.errors import BadRegion
from conspec.specs.formula import ForAll, Suite

if TYPE_CHECKING:
    from typing import Annotated

    from conspec.report.radii import Span
    from conspec.verifier.radius import Radius
