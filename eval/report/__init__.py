"""The report of an evaluation: scores with intervals, coverage and baselines, plots, and where it is no better."""

from eval.report.figures import curves_figure, leaderboard_figure, training_figure
from eval.report.pages import write_report
from eval.report.tables import Report, Stills, difference_rows, different, limits, score_rows, worst_episodes

__all__ = [
    "Report",
    "Stills",
    "curves_figure",
    "difference_rows",
    "different",
    "leaderboard_figure",
    "limits",
    "score_rows",
    "training_figure",
    "worst_episodes",
    "write_report",
]
