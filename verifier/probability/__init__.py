"""Bounds of probabilities from batches of embeddings (DESIGN.md 8). None of them is a proof.

Each module says what its bounds assume; ``docs/statistics.md`` says it in plain words.
"""
