"""How near labels come that are transferred from one to five labelled runs of a task.

    python -m benchmarks.transfer --real [--truth FOLDER] [--data FOLDER]
    python -m benchmarks.transfer --sets SET1 SET2 ... [--workspace W]

Runs of each task are drawn as references ten times (finished ones), with what people or the simulator say of them; the
other runs of the task are labelled by `annotate.transfer`, without outcomes, from signals and embeddings that the
product makes. Error of progress: of real runs against steps of equal budget between the hand-labelled boundaries, of
simulated ones against the formula on the run's true segments, as a person would have put them. Then what happens beside
one reference of another task, and beside one whose labels are in the wrong order. Prints Markdown; figures go to
docs/data/transfer.json.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

from annotate.motion import CODE_VERSION as MOTION_VERSION
from annotate.motion import MotionConfig
from annotate.motion.signals import observe
from annotate.motion.stand_stills import split_at_stand_stills
from annotate.progress import ProgressConfig, progress
from annotate.segments import DONE, IDLE, STEP, Segment
from annotate.transfer import CODE_VERSION, Reference, SeenRun, TransferConfig, Transferred, annotate
from benchmarks.label_truth import write_json
from benchmarks.sim_truth import true_segments
from benchmarks.tables import table
from benchmarks.trial import SHARED, trial_workspace
from core.paths import ROOT, Workspace
from eval.annotators.scoring import cuts_f1, even_cuts
from eval.annotators.truth import NEAR_S, EpisodeTruth, corpus_truth, hand_progress
from eval.held_out.truth import load_truth
from pipeline.build import run_build
from pipeline.config import source_build
from pipeline.reading import EpisodeSignals, chunk_signals
from warehouse.lake import Lake
from warehouse.lake.embeddings import episode_embeddings

FIGURES = ROOT / "docs/data/transfer.json"
COUNTS = (1, 2, 3, 5)  # of references
MOMENT_S = 0.3  # a step that is usually shorter is a moment that people give to the step behind it
REAL = "real"


@dataclass(frozen=True)
class LabelledRun:
    """A run with what is true of it: what a person would say, and the progress of that."""

    task: str
    kind: str  # real, or the simulator's policy: expert, stalled, stopped, missed ...
    success: bool | None
    seen: SeenRun  # without an outcome
    segments: Sequence[Segment]
    plan: tuple[str, ...]
    boundaries: Sequence[int]
    progress: np.ndarray
    change: np.ndarray

    @property
    def episode_index(self) -> int:
        return self.seen.signals.episode_index

    @property
    def fps(self) -> float:
        return self.seen.signals.fps

    def progress_of(self, segments: Sequence[Segment]) -> np.ndarray:
        """Progress by segments, as the truth's was made."""
        n = len(self.seen)
        if self.kind == REAL:
            return hand_progress(segments, n)
        state = self.seen.signals.state
        label = progress(segments, len(self.plan), self.change, self.fps, ProgressConfig(), None, state)
        return np.asarray(label, np.float64)


@dataclass(frozen=True)
class Figure:
    """One run labelled by references, against its truth."""

    kind: str
    success: bool | None
    error: float  # of progress; NaN where no reference fits
    f1: float
    attempts: tuple[int, int]  # failed ones that the label has, of those that there are
    p_failure: float | None


# Runs


def built(space: Workspace, source: Path, dataset: str) -> Lake:
    """A dataset with its signals and embeddings of all cameras. Raises SystemExit where the build fails."""
    build = source_build(source, dataset, None, None)
    embeddings = build.stages.embeddings.model_copy(update={"when": "always", "cameras": "all"})
    build = build.model_copy(update={"stages": build.stages.model_copy(update={"embeddings": embeddings})})
    report = run_build(space, [build])
    if report.failed:
        sys.exit(f"building {dataset} failed: {report.failed[0].message}")
    return Lake(space, read_only=True)


def seen_runs(lake: Lake, dataset: str) -> dict[int, tuple[EpisodeSignals, SeenRun]]:
    """The usable episodes of a dataset, as the transfer annotator sees them; outcomes are left out."""
    chunks = lake.rows("SELECT DISTINCT chunk FROM episode_content WHERE dataset = ? ORDER BY 1", [dataset])
    episodes = {e.episode_index: e for (chunk,) in chunks for e in chunk_signals(lake, dataset, chunk)}
    embeddings = episode_embeddings(lake.con, dataset, list(episodes), parts=("embedding",))
    runs = {}
    for index, episode in episodes.items():
        signals = replace(episode.signals(), success=None)
        its = embeddings[index]
        pictures = tuple(np.split(its.features, len(its.cameras), axis=1))
        runs[index] = episode, SeenRun(signals, its.frame_indices, pictures)
    return runs


def real_runs(lake: Lake, truth: Path, dataset: str) -> list[LabelledRun]:
    known = corpus_truth(lake, truth, dataset)
    return [
        _real_run(dataset, episode, run, known[index])
        for index, (episode, run) in seen_runs(lake, dataset).items()
        if index in known
    ]


def _real_run(task: str, episode: EpisodeSignals, run: SeenRun, truth: EpisodeTruth) -> LabelledRun:
    # The way home is no step: nothing is earned on it
    segments = [replace(s, kind=s.kind if s.kind in (STEP, IDLE) else DONE) for s in truth.passes[0]]
    names = {s.step: s.name for s in reversed(segments) if s.kind == STEP and s.step is not None}
    plan = tuple(names.get(k, f"step {k}") for k in range(max(names) + 1))
    return LabelledRun(
        task, REAL, truth.success, run, segments, plan, truth.boundaries, truth.progress(), episode.change
    )


def simulated_runs(lake: Lake, truth: Path, dataset: str) -> list[LabelledRun]:
    facts = {e["episode_index"]: e for e in pq.read_table(truth / dataset / "episodes.parquet").to_pylist()}
    segments, planned = true_segments(truth, dataset, facts)
    policies = load_truth(truth, dataset)
    assert policies is not None, f"no truth of {dataset} in {truth}"
    seen = seen_runs(lake, dataset)
    fps = {index: episode.fps for index, (episode, _) in seen.items()}
    moments = {task: _moments(task, facts, segments, fps) for task in {e["task"] for e in facts.values()}}
    runs = []
    for index, (episode, run) in seen.items():
        task = facts[index]["task"]
        names = list(facts[index]["planned_steps"] or planned[index])
        own, plan = as_a_person(segments[index], names, moments[task])
        rests = [span for span in observe(run.signals, MotionConfig()).stand_stills if span[1] < len(run)]
        own = split_at_stand_stills(own, rests, episode.fps)
        label = progress(own, len(plan), episode.change, episode.fps, ProgressConfig(), None, episode.state)
        curve = np.asarray(label, np.float64)
        cuts = [s.start_frame for s in own[1:]]
        kind, success = policies.policy[index], facts[index]["success"]
        runs.append(LabelledRun(task, kind, success, run, own, plan, cuts, curve, episode.change))
    return runs


def _moments(
    task: str,
    facts: Mapping[int, Mapping[str, Any]],
    segments: Mapping[int, Sequence[Segment]],
    fps: Mapping[int, float],
) -> set[str]:
    """Names of the steps of a task that are usually over before a person could see them."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for index, own in segments.items():
        for s in own:
            if facts[index]["task"] == task and index in fps and s.kind == STEP and s.completed:
                seconds[s.name].append(len(s) / fps[index])
    return {name for name, values in seconds.items() if median(values) < MOMENT_S}


def as_a_person(
    segments: Sequence[Segment], planned: Sequence[str], moments: set[str]
) -> tuple[list[Segment], tuple[str, ...]]:
    """A simulator's segments as a person would put them: a moment belongs to the step behind it, or the last one.

    What the simulator does that is no planned step, such as pulling back from what it missed, earns nothing.
    """
    plan = [name for name in planned if name not in moments]

    def step_of(name: str) -> int:
        later = [n for n in planned[planned.index(name) :] if n in plan]
        return plan.index(later[0]) if later else len(plan) - 1

    kept: list[Segment] = []
    for s in segments:
        if s.kind == STEP and s.name not in planned:
            s = replace(s, kind=IDLE, step=None, completed=False)
        elif s.kind == STEP:
            s = replace(s, name=plan[step_of(s.name)], step=step_of(s.name))
        before = kept[-1] if kept else None
        if before is not None and s.kind == STEP and before.step == s.step and before.completed:
            kept[-1] = replace(before, end_frame=s.end_frame, completed=s.completed)
        else:
            kept.append(s)
    return kept, tuple(plan)


# Figures


def figures(runs: Sequence[LabelledRun], counts: Sequence[int], draws: int) -> dict[int, list[Figure]]:
    """By number of references, every run of a task that was no reference, at each draw."""
    found: dict[int, list[Figure]] = defaultdict(list)
    for own in by_task(runs):
        finished = [run for run in own if run.success is not False]
        for count in counts:
            if len(own) <= count:
                continue
            rng = np.random.default_rng(0)
            for _ in range(draws):
                drawn = [finished[i] for i in rng.permutation(len(finished))[:count]]
                found[count] += _one_draw(own, drawn)
    return found


def by_task(runs: Iterable[LabelledRun]) -> list[list[LabelledRun]]:
    tasks: dict[str, list[LabelledRun]] = defaultdict(list)
    for run in runs:
        tasks[run.task].append(run)
    return list(tasks.values())


def labelled(runs: Sequence[LabelledRun], references: Sequence[LabelledRun]) -> list[Transferred]:
    given = [Reference(r.seen, r.segments, r.plan) for r in references]
    return annotate([run.seen for run in runs], given, TransferConfig(), MotionConfig())


def _one_draw(runs: Sequence[LabelledRun], references: Sequence[LabelledRun]) -> Iterator[Figure]:
    shown = {reference.episode_index for reference in references}
    for run, transferred in zip(runs, labelled(runs, references), strict=True):
        if run.episode_index not in shown:
            yield figure(run, transferred)


def figure(run: LabelledRun, transferred: Transferred) -> Figure:
    label = transferred.label
    if label is None:
        nan = float("nan")
        return Figure(run.kind, run.success, nan, nan, (0, 0), transferred.p_failure)
    error = float(np.abs(run.progress_of(label.segments) - run.progress).mean())
    cuts = [s.start_frame for s in label.segments[1:]]
    f1 = cuts_f1(cuts, run.boundaries, NEAR_S * run.fps)
    failed = [s for s in run.segments if s.kind == STEP and not s.completed and _is_tried_again(s, run.segments)]
    hits = sum(
        any(_overlap(s, own) for own in label.segments if own.kind == STEP and not own.completed) for s in failed
    )
    return Figure(run.kind, run.success, error, f1, (hits, len(failed)), transferred.p_failure)


def _is_tried_again(failed: Segment, segments: Sequence[Segment]) -> bool:
    """A failed attempt, and no part of one that a stand-still interrupted."""
    behind = [s for s in segments if s.start_frame >= failed.end_frame]
    is_part = len(behind) > 1 and behind[0].kind == IDLE and behind[1].step == failed.step
    return not is_part and any(s.step == failed.step for s in behind)


def _overlap(one: Segment, other: Segment) -> bool:
    """Do two spans share half of the shorter one?"""
    shared = min(one.end_frame, other.end_frame) - max(one.start_frame, other.start_frame)
    return shared >= 0.5 * min(len(one), len(other))


def row(dataset: str, count: int, kind: str, own: Sequence[Figure], runs: Sequence[LabelledRun]) -> dict[str, Any]:
    fitting = [f for f in own if not np.isnan(f.error)]
    same = [run for run in runs if run.kind == kind]
    clock = [np.abs(np.arange(len(r.seen)) / max(1, len(r.seen) - 1) - r.progress).mean() for r in same]
    uniform = [cuts_f1(even_cuts(len(r.boundaries), len(r.seen)), r.boundaries, NEAR_S * r.fps) for r in same]
    hits, attempts = (sum(f.attempts[k] for f in fitting) for k in (0, 1))
    return {
        "dataset": dataset,
        "references": count,
        "kind": kind,
        "runs": len(same),
        "error": _mean([f.error for f in fitting]),
        "clock": _mean(clock),
        "f1": _mean([f.f1 for f in fitting]),
        "uniform": _mean(uniform),
        "failed attempts found": hits / attempts if attempts else None,
        "without a label": 1 - len(fitting) / len(own),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def outcome_row(dataset: str, count: int, own: Sequence[Figure]) -> dict[str, Any] | None:
    """How well the probability of failure parts failed runs from finished ones, over all tasks."""
    known = [(f.success is False, f.p_failure) for f in own if f.success is not None and f.p_failure is not None]
    failed, p = np.array([f for f, _ in known], bool), np.array([p for _, p in known], np.float64)
    if not failed.any() or failed.all():
        return None
    return {"dataset": dataset, "references": count, "kind": "outcome", "auc": float(roc_auc_score(failed, p))}


def rows_of(dataset: str, runs: Sequence[LabelledRun], counts: Sequence[int], draws: int) -> list[dict[str, Any]]:
    rows = []
    for count, found in figures(runs, counts, draws).items():
        for kind in sorted({f.kind for f in found}):
            rows.append(row(dataset, count, kind, [f for f in found if f.kind == kind], runs))
        outcome = outcome_row(dataset, count, found)
        rows += [outcome] if outcome else []
    return rows


# Wrong references


def wrong_rows(dataset: str, runs: Sequence[LabelledRun]) -> list[dict[str, Any]]:
    """How many runs follow a reference that is right, of another task, or labelled in the wrong order."""
    tasks = by_task(runs)
    found: dict[str, list[bool]] = defaultdict(list)
    for own, others in zip(tasks, [*tasks[1:], tasks[0]], strict=True):
        rights = [run for run in own if run.success is not False][:3]
        aliens = [run for run in others if run.success is not False][:3] if len(tasks) > 1 else []
        found["right"] += _followed(own, rights)
        found["another task"] += _followed(own, aliens)
        found["spans in the wrong order"] += _followed(own, [_mirrored(run) for run in rights])
    return [
        {"dataset": dataset, "reference": what, "runs that follow it": _mean(followed)}
        for what, followed in found.items()
        if followed
    ]


def _followed(runs: Sequence[LabelledRun], references: Sequence[LabelledRun]) -> list[bool]:
    return [
        transferred.label is not None
        for reference in references
        for run, transferred in zip(runs, labelled(runs, [reference]), strict=True)
        if run.episode_index != reference.episode_index
    ]


def _mirrored(run: LabelledRun) -> LabelledRun:
    """The same segments with their lengths in the opposite order."""
    cuts = np.cumsum([0, *(len(s) for s in reversed(run.segments))])
    spans = zip(run.segments, pairwise(int(cut) for cut in cuts), strict=True)
    return replace(run, segments=[replace(s, start_frame=a, end_frame=b) for s, (a, b) in spans])


# The command


def all_runs(asked: argparse.Namespace, space: Workspace) -> Iterator[tuple[str, list[LabelledRun]]]:
    if asked.real:
        for folder in sorted(path for path in asked.truth.iterdir() if path.is_dir()):
            dataset = folder.name
            if (asked.data / dataset).exists() and dataset in (asked.dataset or [dataset]):
                lake = built(space, asked.data / dataset, dataset)
                yield dataset, real_runs(lake, asked.truth, dataset)
    for folder in asked.sets or []:
        for truth in sorted((folder / "truth").iterdir()):
            own = Workspace(space.root / folder.resolve().name)
            lake = built(own, folder / truth.name, truth.name)
            yield f"{folder.resolve().name} {truth.name}", simulated_runs(lake, folder / "truth", truth.name)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    for columns in dict.fromkeys(tuple(row) for row in rows):
        table(list(columns), [[_cell(value) for value in row.values()] for row in rows if tuple(row) == columns])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="datasets with a hand-labelled truth")
    parser.add_argument("--sets", nargs="+", type=Path, help="simulated sets, as samples/ is")
    parser.add_argument("--truth", type=Path, default=SHARED / "real_truth", help="with --real: the folder of all")
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="with --real: where the datasets lie")
    parser.add_argument("--dataset", nargs="+", help="with --real: only these")
    parser.add_argument("--workspace", type=Path, help="keep what is built there")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--references", nargs="+", type=int, default=COUNTS)
    parser.add_argument("--json", type=Path, default=FIGURES)
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    wrong: list[dict[str, Any]] = []
    with trial_workspace(asked.workspace) as space:
        for dataset, runs in all_runs(asked, space):
            rows += rows_of(dataset, runs, asked.references, asked.draws)
            wrong += wrong_rows(dataset, runs)
    print_rows([*rows, *wrong])
    versions = {"transfer": CODE_VERSION, "motion": MOTION_VERSION}
    write_json(asked.json, {"code_versions": versions, "draws": asked.draws, "rows": rows, "wrong": wrong})


if __name__ == "__main__":
    main()
