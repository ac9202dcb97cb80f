"""Running solvers on suites: processes, limits, results in SQLite, comparisons."""
