"""How true labels are: of real robots against what people saw, of simulated ones against what the simulator knows.

    python -m benchmarks.label_truth --real [--dataset cr5_banana ...] [--annotator motion] [--workspace W]
    python -m benchmarks.label_truth --sets samples SET2 ... [--workspace W]
    python -m benchmarks.label_truth [--workspace ./workspace] [--truth samples/truth] [--dataset sim_short sim_long]
    python -m benchmarks.label_truth --workspace W1 W2 --truth T1 T2 --check

`--real` builds each dataset that has a hand-labelled truth (`real_truth`), by the product's own command, in a
workspace that goes afterwards or is W. It prints one table, real robots first, and writes the figures of every
episode to a JSON file. Intervals are 95 % of a bootstrap over episodes.

`--sets` builds simulated sets (what samples/make_samples.py writes) twice, with and without their column of success.

Else labels of a workspace that is built already are compared (`sim_truth`): `make demo` before; of several workspaces
each dataset is also taken over all of them. The last table is of everything together; `--check` exits 1 when a claim
in it does not hold. It is meant for tasks and seeds that nothing was tuned on (`generate.py --plan eighth`, then
samples/make_samples.py, then `proccorpus build`). Prints Markdown.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from annotate.segments import STEP, Segment
from benchmarks.real_truth import (
    NEAR_S,
    EpisodeLabel,
    EpisodeScore,
    EpisodeTruth,
    measures,
    score_episode,
    seconds_off,
)
from benchmarks.sim_truth import (
    METRICS,
    WAYS,
    Run,
    claims,
    difference,
    episode_runs,
    failed_among_first,
    level,
    mean_iou,
    over_tasks,
    published_bf1,
)
from benchmarks.trial import (
    among_first,
    build,
    corpus_truth,
    read_labels,
    review_scores,
    trial_workspace,
    without_outcomes,
)
from core.paths import ROOT, Workspace
from eval.metrics.score import Measure, Score, paired, scores
from warehouse.lake import Lake

SHARED = ROOT / ".." / "shared"
FIGURES = ROOT / "docs" / "data" / "real_truth.json"
SIMULATED = ("gr1_pick_place",)  # of the sets with a hand-labelled truth: people looked at a simulation
WORST_SHARE = 1 / 3  # of the review queue, where wrong labels are to be
CONFIDENCE_BINS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.01)
QUEUE_SHARE = 0.3  # of the review queue: how many failed runs are among its first


# Real robots


@dataclass(frozen=True)
class RealSet:
    """One dataset: the figures of its episodes, and the episodes that have none, with the reason."""

    dataset: str
    made_by: str  # the annotators of its labels
    scores: dict[int, EpisodeScore]
    labels: dict[int, EpisodeLabel]
    truth: dict[int, EpisodeTruth]
    missing: dict[int, str]
    review_scores: dict[int, float]  # of the episodes that the review queue asks to look at


def score_dataset(lake: Lake, dataset: str, truth: Mapping[int, EpisodeTruth]) -> RealSet:
    """The labels of a built dataset against the truth of it."""
    labels = read_labels(lake, dataset)
    scored: dict[int, EpisodeScore] = {}
    missing: dict[int, str] = {}
    for episode, known in sorted(truth.items()):
        if episode not in labels:
            missing[episode] = "no label"
            continue
        try:
            scored[episode] = score_episode(labels[episode], known)
        except ValueError as e:
            missing[episode] = str(e)
    made_by = ", ".join(sorted({labels[e].annotator for e in scored}))
    own = {e: labels[e] for e in scored}
    return RealSet(dataset, made_by, scored, own, dict(truth), missing, review_scores(lake, dataset))


def real_sets(
    truth: Path, data: Path, datasets: Sequence[str], space: Workspace, annotator: str | None
) -> Iterable[RealSet]:
    """Build and score each dataset."""
    for dataset in datasets:
        build(space, data / dataset, dataset, annotator)
        lake = Lake(space, read_only=True)
        yield score_dataset(lake, dataset, corpus_truth(lake, truth, dataset))


def figures(scored: Sequence[EpisodeScore]) -> tuple[dict[str, Score], dict[str, Score]]:
    """Scores over episodes, and the differences that claims are made of: ours less the other's."""
    by_name = measures(scored)
    pairs = {
        "f1_near less uniform": ("f1_near", "f1_near_uniform"),
        "f1_near less random": ("f1_near", "f1_near_random"),
        "f1_far less uniform": ("f1_far", "f1_far_uniform"),
        "f1_far less random": ("f1_far", "f1_far_random"),
        "bf1 less uniform": ("bf1", "bf1_uniform"),
        "events less uniform": ("events", "events_uniform"),
        "events less random": ("events", "events_random"),
        "mae less clock": ("mae", "mae_clock"),
    }
    return scores(by_name), {name: _gap(by_name[a], by_name[b]) for name, (a, b) in pairs.items()}


def _gap(first: Measure, second: Measure) -> Score:
    gap = paired(first, second)
    return Score(gap.value, gap.low, gap.high, gap.n)


REAL_COLUMNS: dict[str, tuple[str, ...]] = {
    "F1 within 0.5 s: labels": ("f1_near",),
    "uniform / random cuts": ("f1_near_uniform", "f1_near_random"),
    "F1 within 1 s": ("f1_far",),
    "uniform / random": ("f1_far_uniform", "f1_far_random"),
    "BF1@5": ("bf1",),
    "uniform": ("bf1_uniform",),
    "events within 0.5 s": ("events",),
    "uniform / random ": ("events_uniform", "events_random"),
    "seconds off": ("events_off_s",),
    "error of progress": ("mae",),
    "clock": ("mae_clock",),
    "passes apart": ("mae_passes",),
    "placeholders": ("placeholders",),
    "steps under 0.3 s": ("slivers",),
}
WITH_INTERVAL = ("f1_near", "f1_far", "bf1", "events", "events_off_s", "mae")


def real_row(name: str, made_by: str, scored: Sequence[EpisodeScore], missing: int) -> list[str]:
    by_name, _ = figures(scored)
    episodes = str(len(scored)) + (f" (and {missing} without)" if missing else "")
    return [name, made_by, episodes, *(" / ".join(_cell(by_name[n], n) for n in c) for c in REAL_COLUMNS.values())]


def _cell(score: Score, name: str) -> str:
    # An interval over one episode says nothing
    return score.text() if score.n == 0 or (score.n > 1 and name in WITH_INTERVAL) else f"{score.value:.3f}"


def print_real(sets: Sequence[RealSet]) -> None:
    """One table, real robots first, and what the labels gain over those that look at nothing."""
    in_order = sorted(sets, key=lambda s: s.dataset in SIMULATED)
    groups = [(s.dataset, s.made_by, list(s.scores.values()), len(s.missing)) for s in in_order]
    real = [score for s in in_order if s.dataset not in SIMULATED for score in s.scores.values()]
    every = [score for s in in_order for score in s.scores.values()]
    groups += [("all real robots", "", real, 0), ("all", "", every, 0)]
    table(["set", "labels by", "episodes", *REAL_COLUMNS], [real_row(*group) for group in groups if group[2]])
    rows = []
    for name, _, scored, _ in groups:
        gaps = figures(scored)[1] if scored else {}
        rows.append([name, *(gap.text() if gap.n != 1 else f"{gap.value:.3f}" for gap in gaps.values())])
    table(["labels less the other", *figures(every)[1]] if every else ["labels less the other"], rows)
    print_trust(in_order)
    for s in in_order:
        for episode, why in s.missing.items():
            print(f"{s.dataset} episode {episode} is not scored: {why}")


# Whether the product knows where its labels are wrong


def is_wrong(score: EpisodeScore) -> bool:
    """No better than what looks at nothing: random cuts, or the clock."""
    return score.f1_near <= score.f1_near_random or score.mae >= score.mae_clock


def ends_off(segment: Segment, truth: EpisodeTruth) -> list[float]:
    """Seconds from each end of a segment that is not the episode's own to the nearest boundary."""
    inner = [frame for frame in (segment.start_frame, segment.end_frame) if 0 < frame < truth.num_frames]
    return seconds_off(truth.boundaries, inner, truth).tolist()


def print_trust(sets: Sequence[RealSet]) -> None:
    """How many of the wrong labels the review queue puts first, and how often what is confident is right."""
    wrong, scores_of_review, steps = [], [], []
    for s in sets:
        for episode, score in s.scores.items():
            wrong.append(is_wrong(score))
            scores_of_review.append(s.review_scores.get(episode, 0.0))
            own = [segment for segment in s.labels[episode].segments if segment.kind == STEP]
            steps += [(segment.confidence, ends_off(segment, s.truth[episode])) for segment in own]
    reached = among_first(wrong, scores_of_review, WORST_SHARE)
    print(
        f"{sum(wrong)} of {len(wrong)} labels are wrong (no better than random cuts or the clock); of these "
        f"{reached:.2f} are in the worst third of the review queue\n"
    )
    rows = []
    for low, high in pairwise(CONFIDENCE_BINS):
        offs = [off for sure, ends in steps if sure is not None and low <= sure < high for off in ends]
        if offs:
            near = np.mean(np.array(offs) <= NEAR_S)
            rows.append([f"{low:.1f} to {min(1.0, high):.1f}", str(len(offs)), f"{near:.2f}"])
    table(["confidence of a step", "ends of steps", "within 0.5 s of a boundary"], rows)


# The data file


def real_json(sets: Sequence[RealSet]) -> dict[str, Any]:
    """All figures; a number that is not defined is null."""
    return {s.dataset: _set_json(s) for s in sorted(sets, key=lambda s: s.dataset)}


def _set_json(s: RealSet) -> dict[str, Any]:
    by_name, gaps = figures(list(s.scores.values())) if s.scores else ({}, {})
    return {
        "labels_by": s.made_by,
        "simulated": s.dataset in SIMULATED,
        "figures": {name: score_json(score) for name, score in by_name.items()},
        "differences": {name: score_json(score) for name, score in gaps.items()},
        "episodes": {str(e): _episode_json(s, e) for e in s.scores},
        "missing": {str(e): why for e, why in s.missing.items()},
    }


def score_json(score: Score) -> dict[str, Any]:
    return {"value": _number(score.value), "low": _number(score.low), "high": _number(score.high), "n": score.n}


def _episode_json(s: RealSet, episode: int) -> dict[str, Any]:
    """Figures of one episode, and per segment how far its ends are from the truth."""
    label, truth = s.labels[episode], s.truth[episode]
    own = {name: _number(value) for name, value in asdict(s.scores[episode]).items()}
    return own | {
        "confidence": _number(label.confidence),
        "success": truth.success,
        "review_score": _number(s.review_scores.get(episode, 0.0)),
        "is_wrong": is_wrong(s.scores[episode]),
        "segments": [_segment_json(segment, truth) for segment in label.segments],
    }


def _segment_json(segment: Segment, truth: EpisodeTruth) -> dict[str, Any]:
    """`ends_off_s`: of its ends that are not the episode's own, to the nearest boundary."""
    return {
        "name": segment.name,
        "kind": segment.kind,
        "start_frame": segment.start_frame,
        "end_frame": segment.end_frame,
        "confidence": _number(segment.confidence),
        "ends_off_s": [_number(off) for off in ends_off(segment, truth)],
    }


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(float(value), 4)


# Simulated sets, with and without outcomes


def build_set(folder: Path, space: Workspace, *, outcomes: bool) -> dict[str, list[Run]]:
    """Build the datasets of one simulated set, and score them."""
    runs = {}
    for truth in sorted((folder / "truth").iterdir()):
        dataset = truth.name
        if outcomes:
            build(space, folder / dataset, dataset)
        else:
            # Its place is the same at every call, or the workspace would take it for another dataset
            source = space.root.parent / f"{space.root.name}-sources" / dataset
            if not source.exists():
                without_outcomes(folder / dataset, source)
            build(space, source, dataset)
        runs[dataset] = episode_runs(Lake(space, read_only=True), folder / "truth", dataset)
    return runs


def simulated_sets(folders: Sequence[Path], kept: Path | None) -> dict[tuple[str, str, str], list[Run]]:
    """Runs by set, dataset and `with` or `without` outcomes."""
    runs: dict[tuple[str, str, str], list[Run]] = {}
    with TemporaryDirectory(prefix="proccorpus-trial-") as temporary:
        root = kept or Path(temporary)
        for folder in folders:
            for outcomes in (True, False):
                word = "with" if outcomes else "without"
                space = Workspace(root.resolve() / f"{folder.resolve().name}-{word}")
                for dataset, its_runs in build_set(folder, space, outcomes=outcomes).items():
                    runs[folder.resolve().name, dataset, word] = its_runs
    return runs


def print_simulated(runs: Mapping[tuple[str, str, str], Sequence[Run]]) -> None:
    """One row per set, dataset and way of building; then each way over all sets."""
    groups = [(*key, its_runs) for key, its_runs in runs.items()]
    for word in ("with", "without"):
        groups.append(("all", "all", word, [r for key, its_runs in runs.items() for r in its_runs if key[2] == word]))
    head = ["set", "dataset", "outcomes", "runs", "clean: MAE less clock's", "troubled: MAE less clock's"]
    head += ["failed: end error", "F1 0.5 s", "uniform", "random", "F1 1 s", "BF1@5 less uniform's"]
    head += [f"failed in the first {QUEUE_SHARE:.0%} of the queue, over chance"]
    table(head, [simulated_row(*group) for group in groups])


def simulated_row(name: str, dataset: str, word: str, runs: Sequence[Run]) -> list[str]:
    def cell(of: Iterable[Run], value: Callable[[Sequence[Run]], float]) -> str:
        chosen = list(of)
        return worded(over_tasks(chosen, value)) if chosen else "–"

    def mean(field: str) -> str:
        return f"{np.mean([getattr(r.score, field) for r in runs]):.3f}"

    lift = failed_among_first(runs, QUEUE_SHARE)
    return [
        name,
        dataset,
        word,
        str(len(runs)),
        cell((r for r in runs if r.kind == "expert"), difference("MAE", "clock")),
        cell((r for r in runs if r.kind != "expert"), difference("MAE", "clock")),
        cell((r for r in runs if not r.success), level("end error")),
        mean("f1_near"),
        mean("f1_near_uniform"),
        mean("f1_near_random"),
        mean("f1_far"),
        cell(runs, lambda rs: published_bf1(0)(rs) - published_bf1(1)(rs)),
        "–" if math.isnan(lift) else f"{lift:.2f}",
    ]


# Workspaces that are built already


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


def worded(score: tuple[float, float, float]) -> str:
    return "{:.3f} ({:.3f} to {:.3f})".format(*score)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def compare_built(asked: argparse.Namespace) -> int:
    """Tables of workspaces that are built already; 1 where a claim is checked and does not hold."""
    workspaces, truths = asked.workspace or [ROOT / "workspace"], asked.truth or [ROOT / "samples" / "truth"]
    if len(workspaces) != len(truths):
        sys.exit("give as many --truth as --workspace")
    datasets = asked.dataset or ["sim_short", "sim_long"]
    together: dict[str, list[Run]] = {d: [] for d in datasets}
    every = True
    for workspace, truth in zip(workspaces, truths, strict=True):
        lake = Lake(Workspace(workspace.resolve()), read_only=True)
        for dataset in datasets:
            runs = episode_runs(lake, truth, dataset)
            together[dataset] += runs
            name = dataset if len(workspaces) == 1 else f"{workspace.name} {dataset}"
            report(name, runs)
            every = claimed(name, runs)
    if len(workspaces) > 1:
        for dataset, runs in together.items():
            every = claimed(f"{dataset}, all workspaces", runs)
    if len(datasets) > 1:
        every = claimed("all", [r for runs in together.values() for r in runs])
    return int(asked.check and not every)


def compare_real(asked: argparse.Namespace) -> None:
    """The table of real sets; their figures go to a file."""
    truth = (asked.truth or [SHARED / "real_truth"])[0]
    datasets = asked.dataset or sorted(folder.name for folder in truth.iterdir() if folder.is_dir())
    with trial_workspace((asked.workspace or [None])[0]) as space:
        sets = list(real_sets(truth, asked.data, datasets, space, asked.annotator))
    print_real(sets)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(real_json(sets), indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--real", action="store_true", help="datasets with a hand-labelled truth")
    what.add_argument("--sets", nargs="+", type=Path, help="simulated sets, with and without outcomes")
    parser.add_argument("--workspace", nargs="+", type=Path, help="built already; with --real or --sets: keep it there")
    parser.add_argument("--truth", nargs="+", type=Path, help="one a workspace; with --real: the folder of all")
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="with --real: where the datasets lie")
    parser.add_argument("--dataset", nargs="+")
    parser.add_argument("--annotator", help="with --real: who makes the labels; default: the product's choice")
    parser.add_argument("--json", type=Path, default=FIGURES, help="with --real: where the figures go")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    if asked.real:
        compare_real(asked)
        return 0
    if asked.sets:
        print_simulated(simulated_sets(asked.sets, (asked.workspace or [None])[0]))
        return 0
    return compare_built(asked)


if __name__ == "__main__":
    sys.exit(main())
