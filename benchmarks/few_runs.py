"""What it costs and gains to ask a model about a few runs of each task: hand labels stand in for its answers.

    python -m benchmarks.few_runs [--data FOLDER] [--workspace W] [--dataset NAME ...]

The vlm annotator asks a stand-in that knows the hand labels (benchmarks.vlm_stand_in), exactly or with mistakes, about
so many runs of each hand-labelled set (as benchmarks.label_truth has them); the other runs follow. Prints by the
number of runs: the mean error of progress and F1 of boundaries over the finished labels of all runs, the calls as a
share of asking about each run, and the labels for review.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from annotate.config import MotionConfig, TransferConfig, VlmConfig
from annotate.vlm.annotator import annotate_episode
from annotate.vlm.few_runs import label_task
from benchmarks.hand_labels import HandLabelled, labelled_sets, view_of
from benchmarks.harness import table_text, trial_workspace
from benchmarks.label_truth import hand_labelled, names
from benchmarks.vlm_stand_in import NEAR_S, Mistakes, StandIn
from core.domain.label import Label
from eval.annotators.scoring import cuts_f1
from eval.annotators.truth import hand_progress

COUNTS = (3, 5, "all")
SPOILT = {
    "exact": Mistakes(),
    "0.5 s": Mistakes(off_s=0.5),
    "a third doubles a step": Mistakes(doubled=1 / 3),
}


def trial(
    runs: Sequence[HandLabelled], count: int | str, mistakes: Mistakes
) -> tuple[float, float, float, float]:
    """Error and F1 over all runs, calls, and the share of labels for review."""
    by_index = {run.signals.episode_index: run for run in runs}
    label_by_run: dict[int, Label] = {}
    config = VlmConfig.model_validate(
        {"runs_per_task": count, "reason": False, "contact_sheet": False}
    )
    signals = [replace(run.signals, task=run.signals.task or "a task") for run in runs]
    calls = 0

    def curve_of(k: int, label: Label) -> np.ndarray:
        return hand_progress(label.segments, len(by_index[k].signals))

    async def ask(asked_runs: Sequence[int]) -> dict[int, Label]:
        nonlocal calls
        for k in asked_runs:
            model = StandIn(by_index[k].truth, mistakes, np.random.default_rng(k))
            view = view_of(by_index[k], success=by_index[k].truth.success)
            label_by_run[k] = await annotate_episode(view, model, config)
            calls += model.calls
        return {k: label_by_run[k] for k in asked_runs}

    task = label_task(signals, ask, curve_of, config, TransferConfig(), MotionConfig())
    task_labels, _ = asyncio.run(task)
    labels = label_by_run | task_labels
    errors = []
    f1s = []
    for k, (_, truth) in by_index.items():
        label = labels[k]
        curve = label.progress if label.has_progress else curve_of(k, label)
        errors.append(np.abs(np.asarray(curve, np.float64) - truth.progress()).mean())
        cuts = [s.start_frame for s in label.segments[1:]]
        f1s.append(cuts_f1(cuts, truth.boundaries, NEAR_S * truth.fps))
    review = np.mean([label.needs_review for label in labels.values()])
    return float(np.mean(errors)), float(np.mean(f1s)), calls, float(review)


def main() -> None:
    args = hand_labelled(__doc__).parse_args()
    with trial_workspace(args.workspace) as space:
        sets = labelled_sets(space, args.data, names(args))
    rows = []
    for name, runs in sets.items():
        results = {
            (count, spoilt): trial(runs, count, mistakes)
            for count, (spoilt, mistakes) in product(COUNTS, SPOILT.items())
        }
        for count in COUNTS:
            cells = []
            for spoilt in SPOILT:
                error, f1, calls, review = results[count, spoilt]
                share = calls / results["all", spoilt][2]
                cells.append(f"{error:.3f}; {f1:.2f}; {share:.0%}; {review:.0%}")
            rows.append([name, str(count), *cells])
    print(
        table_text(
            ["set", "runs asked about", *(f"{s}: error; F1; calls; review" for s in SPOILT)], rows
        )
    )


if __name__ == "__main__":
    main()
