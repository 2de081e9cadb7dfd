"""How true labels are, against what a simulator knows: progress and segments by kind of run, and paired differences.

    make demo
    python -m benchmarks.label_truth [--workspace ./workspace] [--truth samples/truth] [--dataset sim_short sim_long]
    python -m benchmarks.label_truth --workspace W --truth T --dataset sim_short sim_long --check
    python -m benchmarks.label_truth --workspace W1 W2 --truth T1 T2       # also both together

Compared are the corpus's label (ours), the clock (elapsed over total time: it knows the end), the published formula
with the whole run as one segment and on the same segments as ours, and ours with the simulator's own segments.
Intervals are 95 % of a bootstrap over tasks (by their text). Of several workspaces each dataset is also taken over all
of them. The last table is of everything together; `--check` exits 1 when a claim in it does not hold. It is meant for
tasks and seeds that nothing was tuned on (`generate.py --plan eighth`, then samples/make_samples.py, then
`proccorpus build`). Prints Markdown.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from annotate.progress import ProgressConfig, procvlm_progress, progress
from annotate.segments import IDLE, STEP, Segment
from core.paths import ROOT, Workspace
from eval.held_out.truth import load_truth
from eval.metrics.errors import end_error, mae
from eval.metrics.order import increment_correlation
from eval.metrics.published import boundary_hits, first_and_last
from eval.metrics.runs import runs_of
from eval.metrics.segments import Span, segment_iou
from pipeline.reading import chunk_signals
from warehouse.lake import Lake
from warehouse.lake.labels import active_labels

WAYS = ("ours", "clock", "published, one segment", "published, our segments", "ours, true segments")
METRICS = ("MAE", "increment correlation", "end error", "gain in stand-stills beyond the truth's")
RESAMPLES = 4000


@dataclass(frozen=True)
class Run:
    """One episode: a value per metric and way, NaN where it has none; and what its segments score."""

    task: str
    kind: str
    success: bool
    values: np.ndarray  # [METRICS, WAYS]
    hits: tuple[tuple[int, int], tuple[int, int]]  # of the published BF1@5: ours, a uniform split
    iou: tuple[float, float]


def true_segments(
    folder: Path, dataset: str, facts: dict[int, dict]
) -> tuple[dict[int, list[Segment]], dict[int, list[str]]]:
    """The simulator's segments as ours are, and its planned steps: those that it lists, else the steps seen."""
    planned = {episode: list(e["planned_steps"] or []) for episode, e in facts.items()}
    found: dict[int, list[Segment]] = {}
    rows = pq.read_table(folder / dataset / "segments.parquet").to_pylist()
    for s in sorted(rows, key=lambda s: (s["episode_index"], s["start_frame"])):
        names = planned[s["episode_index"]]
        if s["kind"] == STEP and s["text"] not in names:
            names.append(s["text"])
        step = names.index(s["text"]) if s["kind"] == STEP else None
        label = Segment(s["text"], s["start_frame"], s["end_frame"], s["kind"], s["completed"], step)
        found.setdefault(s["episode_index"], []).append(label)
    return found, planned


def uniform(num_planned: int, n: int) -> list[Span]:
    cuts = np.linspace(0, n, num_planned + 1).round().astype(int).tolist()
    return [(str(k), a, b) for k, (a, b) in enumerate(pairwise(cuts))]


def episode_runs(lake: Lake, folder: Path, dataset: str) -> list[Run]:
    """Raises SystemExit on a frame without a label."""
    truth = load_truth(folder, dataset)
    assert truth is not None, f"no truth of {dataset} in {folder}"
    facts = {e["episode_index"]: e for e in pq.read_table(folder / dataset / "episodes.parquet").to_pylist()}
    segments, planned = true_segments(folder, dataset, facts)
    found = []
    chunks = [c for (c,) in lake.rows("SELECT DISTINCT chunk FROM episode_content WHERE dataset = ?", [dataset])]
    for chunk in sorted(chunks):
        ours = active_labels(lake.con, dataset, chunk)
        for e in chunk_signals(lake, dataset, chunk):
            label = lake.arrow(
                "SELECT progress, progress_procvlm FROM active_progress WHERE dataset = ? AND episode_index = ? "
                "ORDER BY frame_index",
                [dataset, e.episode_index],
            )
            target = truth.progress[e.episode_index]
            n = len(target)
            if label.num_rows != n:
                sys.exit(f"{dataset} episode {e.episode_index}: {label.num_rows} labels for {n} frames")
            known, steps = segments[e.episode_index], planned[e.episode_index]
            guesses = (
                label["progress"].to_numpy(),
                np.arange(n) / (n - 1),
                procvlm_progress(["the task"] * n, e.phash),
                label["progress_procvlm"].to_numpy(),
                progress(known, len(steps), e.change, e.fps, ProgressConfig(), None, e.state),
            )
            answers = runs_of((np.asarray(g, np.float64), np.asarray(target, np.float64)) for g in guesses)
            still = [s for s in known if s.kind == IDLE and s.end_frame < n]
            lag = max(1, round(0.5 * e.fps))
            values = [
                mae(answers),
                increment_correlation(answers, lag),
                end_error(answers),
                [stand_still_gain(g, target, still) for g in guesses],
            ]
            wanted = [(s.name, s.start_frame, s.end_frame) for s in known if s.kind == STEP]
            split = uniform(len(steps), n)
            mine = [(s.name, s.start_frame, s.end_frame) for s in ours[e.episode_index].segments if s.kind == STEP]
            found.append(
                Run(
                    facts[e.episode_index]["task"],
                    truth.policy[e.episode_index],
                    facts[e.episode_index]["success"],
                    np.array(values, float),
                    (published_hits(mine, wanted), published_hits(split, wanted)),
                    (segment_iou(mine, wanted), segment_iou(split, wanted)),
                )
            )
    return found


def published_hits(spans: list[Span], wanted: list[Span]) -> tuple[int, int]:
    hits, total, _ = boundary_hits(first_and_last(spans), first_and_last(wanted))
    return hits, total


def stand_still_gain(guess: np.ndarray, target: np.ndarray, still: Sequence[Segment]) -> float:
    """Mean over the stand-stills of what is gained in one, less what the truth gains; NaN without one."""
    gains = [(g[s.end_frame - 1] - g[s.start_frame]) for g in (guess, target) for s in still]
    half = len(still)
    return float(np.mean(np.abs(np.array(gains[:half]) - np.array(gains[half:])))) if half else float("nan")


def over_tasks(runs: Sequence[Run], value: Callable[[Sequence[Run]], float]) -> tuple[float, float, float]:
    """A figure of some runs with the interval of a bootstrap that draws whole tasks."""
    tasks = sorted({r.task for r in runs})
    by_task = [[r for r in runs if r.task == t] for t in tasks]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(0, len(tasks), len(tasks))
        drawn.append(value([r for i in chosen for r in by_task[i]]))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return value(runs), float(low), float(high)


def difference(metric: str, other: str) -> Callable[[Sequence[Run]], float]:
    m, a, b = METRICS.index(metric), WAYS.index("ours"), WAYS.index(other)
    return lambda runs: float(np.nanmean([r.values[m, a] - r.values[m, b] for r in runs]))


def level(metric: str) -> Callable[[Sequence[Run]], float]:
    m = METRICS.index(metric)
    return lambda runs: float(np.nanmean([r.values[m, 0] for r in runs]))


def published_bf1(which: int) -> Callable[[Sequence[Run]], float]:
    return lambda runs: sum(r.hits[which][0] for r in runs) / max(1, sum(r.hits[which][1] for r in runs))


def mean_iou(which: int) -> Callable[[Sequence[Run]], float]:
    return lambda runs: float(np.mean([r.iou[which] for r in runs]))


def claims(runs: Sequence[Run]) -> list[tuple[str, tuple[float, float, float], str, bool]]:
    """What docs/truth.md says of tasks that nothing was tuned on: figure with interval, the bound, and if it holds."""
    clean = [r for r in runs if r.kind == "expert"]
    troubled = [r for r in runs if r.kind != "expert"]
    failed = [r for r in runs if not r.success]
    still = [r for r in runs if not np.isnan(r.values[METRICS.index(METRICS[3]), 0])]
    found = []

    def claim(text: str, of: Sequence[Run], value: Callable[[Sequence[Run]], float], bound: str) -> None:
        if of:
            score = over_tasks(of, value)
            limit = float(bound.split()[-1])
            which = {"low": 1, "high": 2, "mean": 0}[bound.split()[0]]
            holds = score[which] > limit if ">" in bound else score[which] < limit
            found.append((f"{text} ({len(of)} runs)", score, bound, bool(holds)))

    for way in WAYS[2:4]:
        claim(f"increment correlation less that of {way}", runs, difference(METRICS[1], way), "low > 0")
    claim("troubled runs: MAE less the clock's", troubled, difference("MAE", "clock"), "high < 0")
    for way in WAYS[2:4]:
        claim(f"troubled runs: MAE less that of {way}", troubled, difference("MAE", way), "high < 0")
    claim("failed runs: end error", failed, level("end error"), "mean < 0.15")
    claim("clean successes: MAE less the clock's", clean, difference("MAE", "clock"), "high < 0.02")
    claim("gain in stand-stills beyond the truth's", still, level(METRICS[3]), "mean < 0.02")
    bf1 = over_tasks(runs, lambda rs: published_bf1(0)(rs) - published_bf1(1)(rs))
    found.append((f"BF1@5 less a uniform split's ({len(runs)} runs)", bf1, "low > 0", bf1[1] > 0))
    iou = over_tasks(runs, lambda rs: mean_iou(0)(rs) - mean_iou(1)(rs))
    found.append((f"IoU less a uniform split's ({len(runs)} runs)", iou, "low > 0", iou[1] > 0))
    return found


def worded(score: tuple[float, float, float]) -> str:
    return "{:.3f} ({:.3f} to {:.3f})".format(*score)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", nargs="+", type=Path, default=[ROOT / "workspace"])
    parser.add_argument("--truth", nargs="+", type=Path, default=[ROOT / "samples" / "truth"], help="one a workspace")
    parser.add_argument("--dataset", nargs="+", default=["sim_short", "sim_long"])
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    if len(asked.workspace) != len(asked.truth):
        parser.error("give as many --truth as --workspace")
    together: dict[str, list[Run]] = {d: [] for d in asked.dataset}
    every = True
    for workspace, truth in zip(asked.workspace, asked.truth, strict=True):
        lake = Lake(Workspace(workspace.resolve()), read_only=True)
        for dataset in asked.dataset:
            runs = episode_runs(lake, truth, dataset)
            together[dataset] += runs
            name = dataset if len(asked.workspace) == 1 else f"{workspace.name} {dataset}"
            report(name, runs)
            every = claimed(name, runs)
    if len(asked.workspace) > 1:
        for dataset, runs in together.items():
            every = claimed(f"{dataset}, all workspaces", runs)
    if len(asked.dataset) > 1:
        every = claimed("all", [r for runs in together.values() for r in runs])
    return int(asked.check and not every)


def report(what: str, runs: Sequence[Run]) -> None:
    """Print the figures by kind of run."""
    for m, metric in enumerate(METRICS):
        print(f"{what}: {metric}\n")
        rows = []
        for kind in sorted({r.kind for r in runs}):
            values = np.array([r.values[m] for r in runs if r.kind == kind])
            if not np.isnan(values).all():
                rows.append([kind, str(len(values)), *(f"{v:.3f}" for v in np.nanmean(values, axis=0))])
        table(["kind of run", "runs", *WAYS], rows)
    print(f"{what}: segments (motion, a uniform split into the planned number of steps)\n")
    scores = {"BF1@5": (published_bf1(0), published_bf1(1)), "IoU": (mean_iou(0), mean_iou(1))}
    rows = [[name, *map(worded, (over_tasks(runs, f) for f in both))] for name, both in scores.items()]
    table(["", "motion", "uniform"], rows)


def claimed(what: str, runs: Sequence[Run]) -> bool:
    """Print the claims; do all of them hold?"""
    found = claims(runs)
    print(f"{what}: intervals over {len({r.task for r in runs})} tasks\n")
    rows = [[text, worded(score), bound, "yes" if ok else "**no**"] for text, score, bound, ok in found]
    table(["", "figure (95 % interval)", "bound", "holds"], rows)
    return all(holds for *_, holds in found)


if __name__ == "__main__":
    sys.exit(main())
