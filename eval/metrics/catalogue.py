"""Every metric by name: what it is, its range, which way is better, what an answer counts as that could not be read.

docs/metrics.md is made from this. `published` says what the papers' own code does otherwise (`published.py`).
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MetricFacts:
    names: tuple[str, ...]  # variants that are explained together, the first one's meaning first
    better: Literal["more", "less"]
    what: str
    range: str = ""
    unread: str = ""
    published: str = ""


PROGRESS = (
    MetricFacts(
        ("voc",),
        "more",
        "Spearman's rank correlation with the label, ties at their mean rank; mean over episodes",
        range="-1..1",
        unread="left out; an episode with fewer than two answers, or a constant, has 0",
        published=(
            "ties ranked as they are listed: 0.90 or 1.00 for the same answers; ProgressLM drops constants: "
            "always 50 % has no VOC at all"
        ),
    ),
    MetricFacts(
        ("voc_worst",), "more", "the same", range="-1..1", unread="0 or 1, whichever is farther from the label"
    ),
    MetricFacts(
        ("tau_b", "tau_a"),
        "more",
        "Kendall: (C - D) / sqrt(untied pairs of both), and / all pairs",
        range="-1..1",
        unread="as `voc`",
        published="tau-a in O(n²): ties lower it",
    ),
    MetricFacts(
        ("ccc",),
        "more",
        "Lin's concordance: 2 cov / (var + var + (difference of means)²)",
        range="-1..1",
        unread="as `voc`",
        published="left out",
    ),
    MetricFacts(
        ("mae",),
        "less",
        "mean absolute error; mean over episodes",
        range="0..1",
        unread="the largest error that the label allows",
        published="not reported at all",
    ),
    MetricFacts(("mae_parsed",), "less", "the same over answers that could be parsed", range="0..1", unread="left out"),
    MetricFacts(
        ("end_error",),
        "less",
        "error of the last answer: does the model see where a failed run ends?",
        range="0..1",
        unread="as `mae`",
    ),
    MetricFacts(
        ("increment_correlation",),
        "more",
        "Pearson's correlation of changes over time: does the answer move when the task does? A clock has 0",
        range="-1..1",
        unread="as `mae`",
    ),
    MetricFacts(
        ("mae_margin", "voc_margin"),
        "more",
        "the clock's MAE minus the model's; the model's VOC minus the clock's",
        range="as above",
        unread="a clock has VOC 1",
    ),
    MetricFacts(
        ("mcc@95",),
        "more",
        'Matthews\' correlation of "at least 95 % is done", only family c',
        range="-1..1",
        unread="wrong",
        published='takes numbers from any text: a plan that begins "1." is 100 %; 0 if nothing was finished',
    ),
    MetricFacts(
        ("epr@16",),
        "more",
        "log2 of the largest k for which half of k bins are in use, on 16 evenly chosen answers",
        range="0..5",
        unread="left out",
        published="EPR@50 is log2(2n) for n evenly spaced answers, and nearly that for noise",
    ),
    MetricFacts(
        ("ubr",),
        "more",
        "share of the label's 5 % bins in which there is a prediction",
        range="0..1",
        unread="as `mae`",
        published="number of bins over number of bins: noise reaches more than 1",
    ),
    MetricFacts(
        ("reverse_voc", "cycle_voc"),
        "more",
        "VOC on the run played backwards, and forwards then backwards",
        range="-1..1",
        unread="a clock has -1 and 0",
    ),
    MetricFacts(("stall_drift",), "less", "last minus first answer while one frame is held; 0 is right", range="-1..1"),
    MetricFacts(
        ("preference_accuracy", "preference_further", "preference_outcome", "preference_quality"),
        "more",
        "which of two runs of a task is further, or better? Share of pairs that progress orders as labels, outcomes "
        "and demonstration quality do; all pairs, and each kind; only `held-out`. A clock has 0.5 on outcomes",
        range="0..1",
        unread="wrong; a tie is half right",
    ),
    MetricFacts(
        (
            "preference_head_accuracy",
            "preference_head_further",
            "preference_head_outcome",
            "preference_head_quality",
        ),
        "more",
        "the same by the scores of a preference head, if the model has one",
        range="0..1",
        unread="as above",
    ),
)

PROGRESSLM = (
    MetricFacts(
        ("voc", "voc_worst"),
        "more",
        "as above, over the rows of a recording in a part of the benchmark",
        range="-1..1",
        unread="as above",
        published="constants and refusals vanish",
    ),
    MetricFacts(
        ("score_error",),
        "less",
        "mean over answers of abs(p - g) / max(g, 1 - g)",
        range="0..1",
        unread="1, refusals too",
        published=(
            "left out: a model that always says 50 % has 0.31, and so has one that answers only easy questions; "
            "the number is cut to whole percent first (57 % is written 56 %)"
        ),
    ),
    MetricFacts(
        ("score_error_parsed", "score_error_episodes"),
        "less",
        "over answers that could be parsed; mean per recording, then over recordings",
        range="0..1",
        unread="left out; 1",
    ),
    MetricFacts(
        ("ref_error", "ref_error_parsed"),
        "less",
        "abs(p - g) / max(g - 1, M - g), p kept within 1..M",
        range="0..1",
        unread="1; left out",
        published="p is not limited: 2.3 for item 9 of 5; the runner does not divide at all",
    ),
    MetricFacts(
        ("na_recall",),
        "more",
        "share of literal n/a among questions without an answer",
        range="0..1",
        unread="wrong",
        published="unparsable text counts as n/a (here `na_recall_reference`): a broken model has 1",
    ),
    MetricFacts(
        ("na_recall_reference",),
        "more",
        "the same, counted as in the published evaluation",
        range="0..1",
        unread="right",
    ),
    MetricFacts(
        ("afrr",),
        "less",
        "share of literal n/a among questions with an answer",
        range="0..1",
        unread="counted in `unparsable`",
        published="1 minus coverage; unparsable text counts as a refusal",
    ),
    MetricFacts(
        ("answerability",),
        "more",
        "mean of the shares of right decisions with and without an answer; 0.5 for a constant decision",
        range="0..1",
        unread="wrong",
        published="none combines the two",
    ),
    MetricFacts(("unparsable",), "less", "share of answers that are neither a number nor n/a", range="0..1"),
    MetricFacts(("coverage",), "more", "share of numbers among questions with an answer", range="0..1"),
)

SEGMENTS = (
    MetricFacts(
        ("bf1@5",),
        "more",
        "F1 of inner boundaries, paired one to one within 5 % of the run; mean over episodes",
        range="0..1",
        unread="0",
        published=(
            "counts each inner boundary twice, and the ends of the run: a single segment has 0.67 on a run of two; "
            "leaves out unparsable answers; judges pairs after least-distance matching; sums over all episodes"
        ),
    ),
    MetricFacts(
        ("mmae",),
        "less",
        "mean distance of the pairs, as a share of the run",
        range="0..0.05",
        unread="left out",
        published="counted in pictures, so it grows with their number",
    ),
    MetricFacts(
        ("segment_f1@10", "segment_f1@25", "segment_f1@50"),
        "more",
        "F1 of segments with the right name and this overlap in percent (intersection over union)",
        range="0..1",
        unread="0",
        published="none",
    ),
    MetricFacts(
        ("edit",),
        "more",
        "1 - edit distance between the sequences of names / length of the longer one",
        range="0..1",
        unread="0",
        published="none",
    ),
    MetricFacts(
        ("segment_iou",),
        "more",
        "mean best overlap of the labelled segments",
        range="0..1",
        unread="0",
        published="none",
    ),
    MetricFacts(
        ("plan_success",),
        "more",
        "1 if all actions are right, in order and none too many; right: cosine of sentence embeddings at least 0.8",
        range="0 or 1",
        unread="0",
        published="family b is not scored",
    ),
    MetricFacts(
        ("plan_f1",),
        "more",
        "2 x sum of the cosines of the best pairing / number of actions on both sides",
        range="0..1",
        unread="0",
        published="uses word vectors, and is switched off",
    ),
    MetricFacts(
        ("success_accuracy", "success_balanced"),
        "more",
        "share of right answers to whether the run succeeded: yes or no, or progress of at least 95 %",
        range="0..1",
        unread="wrong",
    ),
)

ROBOFAC = (
    MetricFacts(
        ("detection_accuracy", "identification_accuracy", "locating_accuracy", "choice_accuracy"),
        "more",
        "share of right options: whether the run failed, the kind of failure, its step; all three together",
        range="0..1",
        unread="wrong",
        published="a reply is right if the right answer contains it: an empty reply always, a sentence never",
    ),
    MetricFacts(
        ("detection_balanced",),
        "more",
        "mean of the shares of right answers for failed and for other runs; 0.5 for a constant answer",
        range="0..1",
        unread="wrong",
        published="none",
    ),
)

OUTCOMES = (
    MetricFacts(
        ("success_auc",),
        "more",
        "area under the ROC curve of the runs' highest scores (the head's success output if it has one, else progress) "
        "against their outcomes (Hanley and McNeil 1982); 0.5 for constant answers and for a clock",
        range="0..1",
        unread="a run without an answer is left out",
    ),
    MetricFacts(
        ("success_accuracy", "success_balanced", "success_precision", "success_recall"),
        "more",
        "does the highest score of a run reach the threshold, which would end an episode? The threshold has the best "
        "balanced accuracy over moments of the split `val`, for baselines too",
        range="0..1",
        unread="wrong",
    ),
    MetricFacts(
        ("success_early_s", "success_late_s"),
        "less",
        "seconds by which the first answer at the threshold comes before, or after, the first moment with a label of "
        "0.95; mean over successful runs that reach the threshold. As coarse as the moments that are scored",
        range="0..",
        unread="not at the threshold",
    ),
)

RANKING = (
    MetricFacts(
        ("ranking_tau_b",),
        "more",
        "Kendall's tau-b between the last answers to the runs of a task and their final progress (partial success: the "
        "label there, or truth); mean over tasks whose runs end differently. Below 1 if several runs end alike, "
        "because answers never tie; 0 for a clock",
        range="-1..1",
        unread="0 or 1, whichever is farther from the label",
        published="Robometer ranks by the last, the mean and the sum of a run's answers (arXiv 2603.02115)",
    ),
    MetricFacts(
        ("ranking_accuracy",),
        "more",
        "share of pairs in the right order, over pairs of runs of a task that end differently; a tie counts half; 0.5 "
        "for a clock",
        range="0..1",
        unread="as above",
    ),
)

FALSE_PROGRESS = (
    MetricFacts(
        ("false_progress_rewound", "false_progress_frozen"),
        "less",
        "`probes`: last minus first answer while a run is played backwards after it was played forwards, or while one "
        "frame is held; 0 if it falls, as it should. A clock claims the time that passes",
        range="0..1",
        unread="0 or 1, whichever is farther from the label; left out",
        published="none: ReWiND and Robometer train on such videos, but do not score them",
    ),
    MetricFacts(
        ("false_progress_wrong_task",),
        "less",
        "`confusion`: mean answer to any run under the instructions of other tasks, at four moments of it; 0 is right",
        range="0..1",
        unread="1",
        published="RoboReward relabels runs like this for training (arXiv 2601.00675)",
    ),
    MetricFacts(
        ("confusion_own",),
        "more",
        "`confusion`: mean last answer to finished runs under their own instruction, the matrix's diagonal",
        range="0..1",
        unread="0",
    ),
    MetricFacts(
        ("confusion_other",),
        "less",
        "the same under the instructions of other tasks, the rest of the matrix",
        range="0..1",
        unread="1",
    ),
    MetricFacts(
        ("confusion_margin",),
        "more",
        "`confusion_own` minus `confusion_other`, run by run",
        range="-1..1",
        unread="as above",
        published="Robometer: mean of the diagonal less mean of the rest, over tasks (arXiv 2603.02115)",
    ),
    MetricFacts(
        ("instruction_accuracy",),
        "more",
        "share of finished runs whose own instruction has the highest last answer; a tie of n counts 1/n",
        range="0..1",
        unread="as above",
    ),
)

ROBUSTNESS = (
    MetricFacts(
        ("voc_drop", "success_auc_drop"),
        "less",
        "VOC, and AUC of the highest answers, on the recorded moments, minus those on the changed moments",
        range="-2..2; -1..1",
        unread="as `voc`; left out",
    ),
    MetricFacts(
        ("mae_rise", "end_error_rise"),
        "less",
        "error on the changed moments minus that on the recorded moments",
        range="-1..1",
        unread="as `mae`",
    ),
)

GRADED = (
    MetricFacts(
        ("final_mae",),
        "less",
        "distance of the answer at a run's end from its partial success; over runs whose benchmark states it "
        "(RoboReward: 1 point is 0, 5 points are 1)",
        range="0..1",
        unread="the largest error that the grade allows",
    ),
    MetricFacts(
        ("points_mae",),
        "less",
        "RoboReward's measure: error of the answer in whole points, 1 to 5",
        range="0..4",
        unread="as far off as can be",
    ),
    MetricFacts(("points_accuracy",), "more", "the same points", range="0..1", unread="wrong"),
)

# Heading of each group: which benchmarks have it
CATALOGUE = {
    "Progress over time (`held-out`, `procvqa-*` family c, `dataset`)": PROGRESS,
    "Success of a run (`held-out`)": OUTCOMES,
    "Which run of a task went better (`policy-ranking`, with `held-out`)": RANKING,
    "Progress that is claimed and not made (`probes`, `confusion`)": FALSE_PROGRESS,
    "What is lost when a run looks otherwise (`robustness`)": ROBUSTNESS,
    "Graded runs (`rbm-eval`, `roboreward`), beside `ranking_*` and `success_auc`; tasks are resampled": GRADED,
    "ProgressLM's benchmarks": PROGRESSLM,
    "Segments, plans, success (`procvqa-*` families a and b, `dataset`)": SEGMENTS,
    "RoboFAC's choices (`robofac`); its free text needs a judge model and is not scored": ROBOFAC,
}
