"""The former name of pipeline.reference_runs, for code of users that names it."""

from pipeline.reference_runs import reference_scorer as shown_scorer

__all__ = ["shown_scorer"]
