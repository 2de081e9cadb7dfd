"""What it costs and gains to ask a model about a few runs of each task: hand labels stand in for its answers.

    python -m benchmarks.few_runs [--data FOLDER] [--workspace W] [--dataset NAME ...]

The vlm annotator asks a stand-in that knows the hand labels (benchmarks.vlm_stand_in), exactly or with mistakes, about
so many runs of each hand-labelled set (as benchmarks.label_truth has them); the other runs follow. Prints by the
number of runs: the mean error of progress and F1 of boundaries over the finished labels of all runs, the calls as a
share of asking about each run, and the labels for review.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from annotate.config import MotionConfig, TransferConfig, VlmConfig
from annotate.segments import EpisodeLabel
from annotate.vlm.annotator import annotate_episode
from annotate.vlm.few_runs import TaskLabels, in_rounds, label_task
from benchmarks.harness import table_text, trial_workspace
from benchmarks.label_truth import TRUTH, Known, hand_labelled, names, real_sets
from benchmarks.vlm_stand_in import Mistakes, StandIn, view_of
from eval.annotators.truth import EpisodeTruth, hand_progress, read_truth

COUNTS = (3, 5, "all")
SPOILT = {"exact": Mistakes(), "0.5 s": Mistakes(off_s=0.5), "a third doubles a step": Mistakes(doubled=1 / 3)}


def trial(
    episodes: Sequence[Known], truths: Mapping[int, EpisodeTruth], count: int | str, mistakes: Mistakes
) -> tuple[float, float, float, float]:
    """Error and F1 over all runs, calls, and the share of labels for review."""
    by_index = {k.signals.episode_index: k for k in episodes}
    said: dict[int, EpisodeLabel] = {}
    config = VlmConfig.model_validate({"runs_per_task": count, "reason": False, "contact_sheet": False})
    signals = [replace(k.signals, task=k.signals.task or "a task") for k in episodes]
    calls = 0

    def curve_of(k: int, label: EpisodeLabel) -> np.ndarray:
        return hand_progress(label.segments, len(by_index[k].signals))

    labelled: TaskLabels = {}, {}
    for asked in in_rounds([label_task(signals, said, curve_of, config, TransferConfig(), MotionConfig())], labelled):
        for k, how in asked.items():
            model = StandIn(truths[k], mistakes, np.random.default_rng(k))
            view = view_of(truths[k], success=truths[k].success)
            said[k] = asyncio.run(annotate_episode(view, model, how))
            calls += model.calls
    labels = said | labelled[0]
    errors, f1s = [], []
    for k, known in by_index.items():
        label = labels[k]
        errors.append(known.error(label.curve if label.curve is not None else curve_of(k, label)))
        f1s.append(known.f1(label.segments))
    review = np.mean([label.needs_review for label in labels.values()])
    return float(np.mean(errors)), float(np.mean(f1s)), calls, float(review)


def main() -> None:
    asked = hand_labelled(__doc__).parse_args()
    with trial_workspace(asked.workspace) as space:
        sets = real_sets(space, asked.data, TRUTH, names(asked))
    rows = []
    for name, episodes in sets.items():
        truths = read_truth(TRUTH, name)
        found = {
            (count, spoilt): trial(episodes, truths, count, mistakes)
            for count in COUNTS
            for spoilt, mistakes in SPOILT.items()
        }
        for count in COUNTS:
            cells = []
            for spoilt in SPOILT:
                error, f1, calls, review = found[count, spoilt]
                share = calls / found["all", spoilt][2]
                cells.append(f"{error:.3f}; {f1:.2f}; {share:.0%}; {review:.0%}")
            rows.append([name, str(count), *cells])
    print(table_text(["set", "runs asked about", *(f"{s}: error; F1; calls; review" for s in SPOILT)], rows))


if __name__ == "__main__":
    main()
