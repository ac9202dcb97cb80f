"""Seeded suites of queries for verifiers, with a known answer for each."""
