"""The metrics of predictions: one row for each. Which way is better, tables of reports, the
leaderboard, the command line and the explorer follow from this list; docs/metrics.md explains each
in full.

A new metric of progress is a row here and the function that its row names. Metrics of other kinds
are computed by their benchmark (`eval/benchmarks/`, `eval/probes.py`) under the row's name.
"""

from dataclasses import dataclass

REPORT = "report"  # a column of the tables of a report
LEADERBOARD = "leaderboard"  # a column of the leaderboard in Dagster
TERMINAL = "terminal"  # a row of what `proccorpus eval` prints for people
EVERYWHERE = (REPORT, LEADERBOARD, TERMINAL)


@dataclass(frozen=True)
class Metric:
    """One metric.

    sentence: what it measures, with its range. shown_in: REPORT, LEADERBOARD, TERMINAL; tables keep
    the list's order. leads: models of a benchmark are compared by the metric with the lowest number
    that the benchmark has; where it has none of these, by the first of a report. compute: import
    path `module:name` of a function that gives float64 [episodes] or a Measure; empty: a benchmark
    computes the metric. unread: what that function takes for answers without a number: "worst"
    ones, "parsed": left out, or "ordered": so, and constant answers have 0; empty: as they are (NaN).
    """

    name: str
    sentence: str
    lower_is_better: bool = False
    shown_in: tuple[str, ...] = ()
    leads: int | None = None
    compute: str = ""
    unread: str = ""


def _errors(function: str) -> str:
    return f"eval.metrics.errors:{function}"


def _order(function: str) -> str:
    return f"eval.metrics.order:{function}"


METRICS = (
    # Progress over time
    Metric(
        "voc",
        "rank correlation with the label (-1..1)",
        shown_in=EVERYWHERE,
        compute=_order("voc"),
        unread="ordered",
    ),
    Metric(
        "voc_worst",
        "the same, unread answers as wrong as can be (-1..1)",
        compute=_order("voc"),
        unread="worst",
    ),
    Metric(
        "tau_b", "Kendall's tau-b with the label (-1..1)", compute=_order("tau_b"), unread="ordered"
    ),
    Metric(
        "tau_a", "Kendall's tau-a with the label (-1..1)", compute=_order("tau_a"), unread="ordered"
    ),
    Metric(
        "ccc", "Lin's concordance with the label (-1..1)", compute=_order("ccc"), unread="ordered"
    ),
    Metric(
        "mae",
        "mean absolute error of progress (0..1)",
        lower_is_better=True,
        shown_in=EVERYWHERE,
        leads=1,
        compute=_errors("mae"),
        unread="worst",
    ),
    Metric(
        "mae_parsed",
        "the same over answers that could be read (0..1)",
        True,
        compute=_errors("mae"),
        unread="parsed",
    ),
    Metric(
        "end_error",
        "error of the last answer (0..1)",
        True,
        (REPORT, TERMINAL),
        compute=_errors("end_error"),
        unread="worst",
    ),
    Metric(
        "increment_correlation",
        "correlation of changes over time; a clock has 0 (-1..1)",
        shown_in=(REPORT,),
        compute=_order("increment_correlation"),
        unread="worst",
    ),
    Metric(
        "epr@16",
        "effective resolution of 16 answers, in bits (0..5)",
        compute=_errors("effective_resolution"),
        unread="parsed",
    ),
    Metric(
        "ubr",
        "share of the label's 5 % bins that hold a prediction (0..1)",
        compute=_errors("used_bins"),
        unread="worst",
    ),
    Metric(
        "mae_margin",
        "error of a clock minus the model's (-1..1)",
        shown_in=(TERMINAL,),
        compute=_errors("mae_margin"),
    ),
    Metric(
        "mcc@95",
        'Matthews\' correlation of "at least 95 % is done" (-1..1)',
        shown_in=(REPORT, TERMINAL),
        compute=_errors("finished_mcc"),
    ),
    Metric(
        "voc_margin",
        "the model's VOC minus a clock's (-2..0)",
        shown_in=(REPORT,),
        compute=_order("voc_margin"),
    ),
    Metric(
        "preference_accuracy",
        "share of pairs of runs in the right order (0..1)",
        False,
        (REPORT, TERMINAL),
    ),
    Metric("preference_further", "the same, of runs that came farther or less far (0..1)"),
    Metric("preference_outcome", "the same, of runs with different outcomes (0..1)"),
    Metric("preference_quality", "the same, of better and worse demonstrations (0..1)"),
    # ProgressLM's benchmarks
    Metric(
        "score_error",
        "error over the largest that the label allows (0..1)",
        True,
        (REPORT, LEADERBOARD),
        leads=2,
    ),
    Metric("score_error_parsed", "the same over answers that could be read (0..1)", True),
    Metric("score_error_episodes", "the same, mean per recording first (0..1)", True),
    Metric(
        "ref_error",
        "distance of the chosen picture of the demonstration (0..1)",
        True,
        (REPORT, LEADERBOARD),
    ),
    Metric("ref_error_parsed", "the same over answers that could be read (0..1)", True),
    Metric(
        "na_recall", "share of n/a where there is no answer (0..1)", False, (REPORT, LEADERBOARD)
    ),
    Metric("na_recall_reference", "the same, counted as published (0..1)"),
    Metric("afrr", "share of n/a where there is an answer (0..1)", True, (REPORT,)),
    Metric("answerability", "balanced share of right decisions to answer or not (0..1)"),
    Metric("unparsable", "share of answers that are neither a number nor n/a (0..1)", True),
    Metric("coverage", "share of answers that could be read (0..1)", compute=_errors("coverage")),
    # Segments and plans
    Metric("bf1@5", "F1 of boundaries within 5 % of the run (0..1)", False, (REPORT,), leads=3),
    Metric("mmae", "mean distance of matched boundaries (0..0.05)", True),
    Metric("segment_f1@10", "F1 of named segments that overlap by 10 % (0..1)"),
    Metric("segment_f1@25", "F1 of named segments that overlap by 25 % (0..1)", False, (REPORT,)),
    Metric("segment_f1@50", "F1 of named segments that overlap by 50 % (0..1)"),
    Metric("edit", "likeness of the sequences of step names (0..1)", False, (REPORT,)),
    Metric("segment_iou", "mean best overlap of the labelled segments (0..1)"),
    Metric("plan_success", "all remaining actions right and in order (0..1)", False, (REPORT,)),
    Metric("plan_f1", "F1 of the remaining actions (0..1)", False, (REPORT,)),
    # How a run ends, and which went better
    Metric(
        "success_accuracy", "share of runs whose outcome is told right (0..1)", False, (REPORT,)
    ),
    Metric("success_auc", "area under the ROC curve of outcomes (0..1)", False, (REPORT,)),
    Metric("success_balanced", "balanced share of right outcomes (0..1)", False, (REPORT,)),
    Metric(
        "success_precision", "share of claimed successes that are right (0..1)", False, (REPORT,)
    ),
    Metric("success_recall", "share of successes that are claimed (0..1)", False, (REPORT,)),
    Metric("success_early_s", "seconds by which success is claimed too early", True, (REPORT,)),
    Metric("success_late_s", "seconds by which success is claimed too late", True, (REPORT,)),
    Metric(
        "ranking_tau_b",
        "Kendall's tau-b of the runs of a task by their ends (-1..1)",
        False,
        (REPORT,),
    ),
    Metric(
        "ranking_accuracy",
        "share of pairs of runs of a task in the right order (0..1)",
        False,
        (REPORT,),
    ),
    # RoboFAC's choices
    Metric("choice_accuracy", "share of right options (0..1)", False, (REPORT,)),
    Metric("detection_accuracy", "share of right answers on whether a run failed (0..1)"),
    Metric(
        "detection_balanced",
        "balanced share of right answers on whether a run failed (0..1)",
        False,
        (REPORT,),
    ),
    Metric("identification_accuracy", "share of right kinds of failure (0..1)", False, (REPORT,)),
    Metric("locating_accuracy", "share of right steps of failure (0..1)", False, (REPORT,)),
    # Progress that is claimed and not made
    Metric(
        "reverse_voc",
        "VOC on the run played backwards; a clock has -1 (-1..1)",
        False,
        (REPORT, LEADERBOARD),
    ),
    Metric(
        "cycle_voc",
        "VOC forwards, then backwards; a clock has 0 (-1..1)",
        False,
        (REPORT, LEADERBOARD),
    ),
    Metric(
        "stall_drift",
        "change of the answer while a frame is held (-1..1)",
        True,
        (REPORT, LEADERBOARD),
    ),
    Metric(
        "false_progress_rewound",
        "progress claimed while a run is played backwards (0..1)",
        True,
        (REPORT,),
    ),
    Metric(
        "false_progress_frozen", "progress claimed while a frame is held (0..1)", True, (REPORT,)
    ),
    Metric(
        "false_progress_wrong_task",
        "progress claimed under other instructions (0..1)",
        True,
        (REPORT,),
    ),
    Metric(
        "confusion_own",
        "last answer of finished runs under their own instruction (0..1)",
        False,
        (REPORT,),
    ),
    Metric("confusion_other", "last answer under other instructions (0..1)", True, (REPORT,)),
    Metric(
        "confusion_margin",
        "the former minus the latter, run by run (-1..1)",
        False,
        (REPORT,),
        leads=4,
    ),
    Metric(
        "instruction_accuracy", "share of runs whose own instruction wins (0..1)", False, (REPORT,)
    ),
    # What is lost when a run looks otherwise
    Metric("voc_drop", "VOC that changed pictures cost (-2..2)", True, (REPORT,)),
    Metric("mae_rise", "error that changed pictures add (-1..1)", True, (REPORT,)),
    Metric(
        "end_error_rise",
        "error of the last answer that changed pictures add (-1..1)",
        True,
        (REPORT,),
    ),
    Metric("success_auc_drop", "AUC that changed pictures cost (-1..1)", True, (REPORT,)),
    # Graded runs
    Metric("final_mae", "error of the last answer against a run's grade (0..1)", True, (REPORT,)),
    Metric("points_mae", "the same in points from 1 to 5 (0..4)", True, (REPORT,)),
    Metric("points_accuracy", "share of right points (0..1)", False, (REPORT,)),
    # Of annotators
    Metric("events_off_s", "seconds from people's grasps to the nearest boundary", True),
    Metric("unnamed", "share of steps without a name (0..1)", True),
    Metric("slivers", "share of steps shorter than 0.3 s (0..1)", True),
)
_BY_NAME = {metric.name: metric for metric in METRICS}


def metrics_shown_in(place: str) -> tuple[str, ...]:
    """Names of the metrics that a table shows, in its order."""
    return tuple(metric.name for metric in METRICS if place in metric.shown_in)


def leading_metrics() -> tuple[str, ...]:
    """Names of metrics, the one first by which models of a benchmark are compared."""
    leading = sorted(
        (m for m in METRICS if m.leads is not None), key=lambda metric: metric.leads or 0
    )
    names = [metric.name for metric in leading]
    return (*names, *(name for name in metrics_shown_in(REPORT) if name not in names))


def is_lower_better(name: str) -> bool:
    """Is less of a metric better? Not of one that the list does not have."""
    return name in _BY_NAME and _BY_NAME[name].lower_is_better


def sentence_of(name: str) -> str:
    """What a metric measures; empty for one that the list does not have."""
    if name in _BY_NAME:
        return _BY_NAME[name].sentence
    return ""
