"""The report of an evaluation: scores with intervals, coverage and baselines, plots, and where it is no better."""
