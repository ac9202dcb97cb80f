"""conspec.benchmarks."""
