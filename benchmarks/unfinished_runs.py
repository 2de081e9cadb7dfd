"""Fits and tries the probability that a run failed whose outcome nobody says (annotate/unfinished.py).

    python -m benchmarks.unfinished_runs SET1 SET2 ... [--workspace W]

Each set (what samples/make_samples.py writes) is built without its column of success, and the signs of its runs are
computed by the product. A ridge logistic is fitted to them: its weights are what `annotate/unfinished.py` holds. Every
figure is of tasks that were left out of the fit: of how many of the failed runs the probability is a half or more, of
how many of the others, how many failed runs are among the first 30 % by it over chance, and how often runs of a
probability failed. Then the same with the weights as they are. Prints Markdown.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq

from annotate.quality import FEWEST
from annotate.unfinished import BIAS, SIGNS, WEIGHTS, RunEnd, of_task, probabilities, signs_of
from benchmarks.simulated_sets import QUEUE_SHARE, build_set
from benchmarks.tables import table
from benchmarks.trial import among_first
from core.paths import Workspace
from pipeline.labelled import LabelledSignals, run_end
from pipeline.reading import by_task, chunk_signals
from warehouse.lake import Lake
from warehouse.lake.labels import active_labels

RIDGE = 1.0  # of the weights, not of the bias
STEPS = 50  # of Newton's method; it has settled after ten
BINS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.01)


@dataclass(frozen=True)
class Task:
    """The runs of one task: signs [runs, SIGNS], and which failed (bool [runs])."""

    name: str
    signs: np.ndarray
    failed: np.ndarray


def tasks_of(space: Workspace, truth: Path) -> Iterator[Task]:
    """The tasks of a built workspace that have enough runs to compare."""
    lake = Lake(space, read_only=True)
    for dataset, chunk in lake.rows("SELECT DISTINCT dataset, chunk FROM episode_content ORDER BY ALL"):
        facts = pq.read_table(truth / dataset / "episodes.parquet", columns=["episode_index", "success"]).to_pylist()
        success = {row["episode_index"]: row["success"] for row in facts}
        labels = active_labels(lake.con, dataset, chunk)
        ends = dict(
            lake.rows("SELECT episode_index, end_progress FROM label_quality WHERE dataset = ?", [dataset]),
        )
        for task, episodes in by_task(chunk_signals(lake, dataset, chunk)).items():
            if len(episodes) < FEWEST:
                continue
            runs: list[RunEnd] = []
            for episode in episodes:
                label = labels[episode.episode_index]
                end = np.array([ends[episode.episode_index]])
                runs.append(run_end(LabelledSignals(episode, label.segments, label.num_planned, end)))
            failed = np.array([not success[episode.episode_index] for episode in episodes])
            yield Task(f"{dataset}: {task}", signs_of(runs), failed)


def fitted(tasks: Sequence[Task]) -> np.ndarray:
    """Bias and weights, float64 [1 + SIGNS], none below 0: a sign never speaks for a run."""
    signs, failed = np.concatenate([t.signs for t in tasks]), np.concatenate([t.failed for t in tasks])
    used = np.arange(len(SIGNS))
    while True:
        weights = _logistic(signs[:, used], failed)
        if (weights[1:] >= 0).all():
            break
        used = np.delete(used, int(np.argmin(weights[1:])))
    out = np.zeros(1 + len(SIGNS))
    out[np.r_[0, used + 1]] = weights
    return out


def _logistic(signs: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """Weights of a ridge logistic by Newton's method, the bias first."""
    inputs = np.column_stack([np.ones(len(signs)), signs])
    ridge = np.diag([1e-6, *[RIDGE] * signs.shape[1]])
    weights = np.zeros(inputs.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-inputs @ weights))
        slope = inputs.T @ (p - failed) + ridge @ weights
        curve = (inputs * (p * (1 - p))[:, None]).T @ inputs + ridge
        weights -= np.linalg.solve(curve, slope)
    return weights


def left_out(tasks: Sequence[Task]) -> np.ndarray:
    """The probability of each run by a fit to all other tasks, float64 [runs]."""
    parts = []
    for k, task in enumerate(tasks):
        bias, *weights = fitted([*tasks[:k], *tasks[k + 1 :]])
        parts.append(_adapted(task, probabilities(task.signs, bias, np.array(weights))))
    return np.concatenate(parts)


def _adapted(task: Task, p: np.ndarray) -> np.ndarray:
    """Probabilities of the runs of a task as the product gives them: by its own share of failures."""
    return of_task(p, [None] * len(p))


def figures(p: np.ndarray, failed: np.ndarray) -> list[str]:
    """Share of failed runs and of others with a half or more, failed among the first over chance, log loss."""
    lift = among_first(failed.tolist(), p.tolist(), QUEUE_SHARE) / QUEUE_SHARE
    loss = -np.log(np.where(failed, p, 1 - p)).mean()
    values = ((p >= 0.5)[failed].mean(), (p >= 0.5)[~failed].mean(), lift, loss)
    return [str(len(p)), str(failed.sum()), *(f"{value:.2f}" for value in values)]


def report(tasks: Sequence[Task]) -> None:
    failed = np.concatenate([t.failed for t in tasks])
    fit = fitted(tasks)
    rows = [["bias", f"{fit[0]:.2f}", f"{BIAS:.2f}"]]
    rows += [[sign, f"{fit[1 + k]:.2f}", f"{WEIGHTS[sign]:.2f}"] for k, sign in enumerate(SIGNS)]
    table(["log-odds per robust deviation", "fitted to these sets", "in the product"], rows)

    by = {
        "each task by the others": left_out(tasks),
        "the product's weights": np.concatenate([_adapted(t, probabilities(t.signs)) for t in tasks]),
    }
    head = ["probability by", "runs", "failed", "of these a half or more", "of the others", "lift", "log loss"]
    table(head, [[name, *figures(p, failed)] for name, p in by.items()])
    rows = []
    for low, high in pairwise(BINS):
        cells = []
        for p in by.values():
            within = (p >= low) & (p < high)
            share = failed[within].mean() if within.any() else math.nan
            cells.append(f"{share:.2f} of {within.sum()}")
        rows.append([f"{low:g} to {min(1.0, high):g}", *cells])
    table(["probability", *(f"failed, {name}" for name in by)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path, help="folders of simulated datasets with their truth")
    parser.add_argument("--workspace", type=Path, help="keep the workspaces below it")
    asked = parser.parse_args()
    tasks: list[Task] = []
    with TemporaryDirectory(prefix="proccorpus-trial-") as temporary:
        root = (asked.workspace or Path(temporary)).resolve()
        for folder in asked.sets:
            space = Workspace(root / f"{folder.resolve().name}-without")
            build_set(folder, space, outcomes=False)
            tasks += tasks_of(space, folder / "truth")
    report(tasks)


if __name__ == "__main__":
    main()
