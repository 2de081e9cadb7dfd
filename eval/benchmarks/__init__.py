"""Benchmarks as questions: each loader reads rows of one format and gives the same kind of question."""
