"""What it costs and gains to ask a model about a few runs of each task: hand labels stand in for its answers.

    python -m benchmarks.few_runs [--data FOLDER] [--workspace W]

Of each hand-labelled set (as benchmarks.label_truth has them) a stand-in answers by the hand labels: exactly, with each
boundary moved by half a second or a second, or with a step left out or doubled in a third of the looks. Its two looks
at a run are spoilt independently. Prints by the number of runs asked about: the mean error of progress, F1 of
boundaries, and looks at runs, as a share of one look at each; the sets are small, so that these are many.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from annotate.config import MotionConfig, TransferConfig, VlmConfig
from annotate.segments import STEP, EpisodeLabel, Segment, plain_label
from annotate.vlm.few_runs import TaskLabels, in_rounds, label_task
from benchmarks.harness import table_text, trial_workspace
from benchmarks.label_truth import TRUTH, Known, finished_label, hand_labelled, names, real_sets
from eval.annotators.truth import hand_progress

COUNTS = (1, 3, 5, "all")
SPOILT = ("exact", "0.5 s", "1 s", "steps left out or doubled")
SEEDS = 5


def look(known: Known, spoilt: str, rng: np.random.Generator) -> EpisodeLabel:
    """What the stand-in says after one look at a run."""
    segments = finished_label(known)
    if spoilt.endswith(" s"):
        off = float(spoilt.split()[0]) * known.signals.fps * rng.choice([-1, 1], len(segments) - 1)
        ends = [s.end_frame for s in segments[:-1]]
        moved = np.clip(np.round(ends + off), 1, len(known.signals) - 1).astype(int)
        edges = [0, *np.maximum.accumulate(moved).tolist(), len(known.signals)]
        spans = zip(segments, pairwise(edges), strict=True)
        segments = [replace(s, start_frame=a, end_frame=b) for s, (a, b) in spans if a < b]
    steps = [k for k, s in enumerate(segments) if s.kind == STEP]
    if spoilt.startswith("steps") and rng.random() < 1 / 3 and len(steps) > 2:
        k = int(rng.choice(steps[1:]))
        s, middle = segments[k], (segments[k].start_frame + segments[k].end_frame) // 2
        if rng.random() < 0.5:
            before = replace(segments[k - 1], end_frame=s.end_frame)
            segments = [*segments[: k - 1], before, *segments[k + 1 :]]
        elif len(s) > 1:
            halves = replace(s, end_frame=middle), replace(s, name=f"{s.name} again", start_frame=middle, step=-1)
            segments = [*segments[:k], *halves, *segments[k + 1 :]]
    return numbered(segments, known.signals.task)


def numbered(segments: Sequence[Segment], task: str | None) -> EpisodeLabel:
    """The label whose steps are numbered in the order of their first attempts."""
    numbers = {step: k for k, step in enumerate(dict.fromkeys(s.step for s in segments if s.kind == STEP))}
    return plain_label([replace(s, step=numbers.get(s.step)) for s in segments], len(numbers), task)


def trial(episodes: Sequence[Known], count: int | str, spoilt: str, seed: int) -> tuple[float, float, float]:
    """Looks at runs, as a share of one at each; error and F1 over all runs."""
    rng, looks = np.random.default_rng(seed), 0
    by_index = {k.signals.episode_index: k for k in episodes}
    said: dict[int, EpisodeLabel] = {}
    config = VlmConfig.model_validate({"runs_per_task": count})
    signals = [replace(k.signals, task=k.signals.task or "a task") for k in episodes]

    def curve_of(k: int, label: EpisodeLabel) -> np.ndarray:
        return hand_progress(label.segments, len(by_index[k].signals))

    labelled: TaskLabels = {}, {}
    for asked in in_rounds([label_task(signals, said, curve_of, config, TransferConfig(), MotionConfig())], labelled):
        for k, how in asked.items():
            seen = [look(by_index[k], spoilt, rng) for _ in range(how.passes)]
            looks += len(seen)
            said[k] = replace(seen[0], needs_review=any(s.plan != seen[0].plan for s in seen))
    labels = said | labelled[0]
    errors, f1s = [], []
    for k, known in by_index.items():
        label = labels[k]
        errors.append(known.error(label.curve if label.curve is not None else curve_of(k, label)))
        f1s.append(known.f1(label.segments))
    return looks / len(episodes), float(np.mean(errors)), float(np.mean(f1s))


def main() -> None:
    asked = hand_labelled(__doc__).parse_args()
    with trial_workspace(asked.workspace) as space:
        sets = real_sets(space, asked.data, TRUTH, names(asked))
    # By set, and over all runs
    found = {
        (name, count): [mean_trial(episodes, count, spoilt) for spoilt in SPOILT]
        for name, episodes in sets.items()
        for count in COUNTS
    }
    weights = [len(episodes) for episodes in sets.values()]
    for count in COUNTS:
        found["all", count] = list(np.average([found[name, count] for name in sets], axis=0, weights=weights))
    rows = [
        [name, str(count), *(f"{error:.3f}; {f1:.2f}; {looks:.0%}" for looks, error, f1 in cells)]
        for (name, count), cells in found.items()
    ]
    print(table_text(["set", "runs asked about", *(f"{s}: error; F1; looks" for s in SPOILT)], rows))


def mean_trial(episodes: Sequence[Known], count: int | str, spoilt: str) -> np.ndarray:
    seeds = range(1 if spoilt == "exact" else SEEDS)
    return np.mean([trial(episodes, count, spoilt, seed) for seed in seeds], axis=0)


if __name__ == "__main__":
    main()
