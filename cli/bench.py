"""``conspec bench``: suites of queries for verifiers, solvers run on them, and comparisons."""

from conspec.cli.bench_compare import compare
from conspec.cli.bench_export import export
from conspec.cli.bench_run import run
from conspec.cli.groups import group

app = group("Make suites of queries, run solvers on them, and compare the results.")
app.command("export")(export)
app.command("run")(run)
app.command("compare")(compare)
