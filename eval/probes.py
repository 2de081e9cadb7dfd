"""Probes: held-out runs shown backwards, forwards and back, and standing still, made from a release's pictures.

Who looks follows the picture; who counts goes on. The windows are those of the release's progress questions, so a model
is asked in the very form it is used in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eval.benchmarks import procvqa
from eval.benchmarks.question import BenchmarkError, PictureFile, Question, RightAnswer
from eval.metrics import order
from eval.metrics.runs import Runs, answers_read, runs_of, worst_case
from eval.metrics.score import Measure, mean_of, ratio_of
from eval.scoring.scored import ScoredBenchmark, ScoredEpisode
from warehouse.lake import Lake
from warehouse.lake.sql import open_for_users
from warehouse.releases import Release

BENCHMARK = "probes"
REVERSED, CYCLED, FROZEN = PARTS = ("reversed", "cycled", "frozen")
STALLS = 4  # moments of a run at which it is stopped


@dataclass(frozen=True)
class ProbeWindow:
    """What a model is shown at once."""

    pictures: tuple[PictureFile, ...]
    frame: int  # that it ends with
    text: str  # the question about it


def load(lake: Lake, release: Release, limit: int | None = None) -> list[Question]:
    """The questions about the first `limit` held-out runs. Raises BenchmarkError or ShardError."""
    questions_by_run: dict[tuple[str, str], list[Question]] = {}
    for q in procvqa.load("procvqa-id", lake, release, ("procvqa_c",)):
        questions_by_run.setdefault((q.dataset, q.trajectory), []).append(q)
    con = open_for_users(lake.workspace, release.snapshot)
    probes: list[Question] = []
    for (dataset, trajectory), questions in sorted(questions_by_run.items())[:limit]:
        in_order = sorted(questions, key=lambda q: q.frame_index or 0)
        labels = dict(
            con.execute(
                "SELECT frame_index, progress FROM active_progress WHERE dataset = ? AND episode_index = ?",
                [dataset, int(trajectory)],
            ).fetchall()
        )
        # A single question has no order to reverse.
        if len(in_order) > 1:
            probes += _probes_of_run(in_order, labels)
    if not probes:
        raise BenchmarkError(f"release {release.name} holds no run with two progress questions in its split test_id")
    return probes


def _probes_of_run(run: Sequence[Question], labels: Mapping[int, float]) -> list[Question]:
    """The run backwards, the run forwards and back, and stalls: one picture, `STALLS` times over the run."""
    forward = [ProbeWindow(q.pictures, q.row["frames"][-1], q.text) for q in run]
    backward = [ProbeWindow(q.pictures[::-1], q.row["frames"][0], q.text) for q in reversed(run)]
    probes = _video(REVERSED, run[0], backward, labels)
    # A run that is shown from its end on begins there: what was first of it is then no beginning
    first = next((q.pictures[0] for q in run if q.row["frames"][0] == 0), None)
    run = [replace(q, first=first) for q in run]
    probes += _video(CYCLED, run[0], forward + backward, labels)
    for k in sorted({round(x) for x in np.linspace(0, len(run) - 1, STALLS)}):
        moving = forward[k]
        still = replace(moving, pictures=(moving.pictures[-1],) * len(moving.pictures))
        probes += _video(FROZEN, run[k], [moving, still], labels, f"@{moving.frame}")
    return probes


def _video(
    part: str, like: Question, windows: Sequence[ProbeWindow], labels: Mapping[int, float], stopped: str = ""
) -> list[Question]:
    """One question for each window; `frame_index` counts the windows shown, as a clock would."""
    questions = []
    for k, window in enumerate(windows):
        label = float(labels[window.frame])
        row = {
            "dataset": like.dataset,
            "episode_index": int(like.trajectory),
            "probe": part,
            "stopped": stopped,
            "shown": k,
            "frame": window.frame,
            "progress": label,
        }
        question = replace(
            like,
            benchmark=BENCHMARK,
            part=part,
            trajectory=like.trajectory + stopped,
            pictures=window.pictures,
            text=window.text,
            truth=RightAnswer(score=label),
            frame_index=k,
            num_frames=len(windows),
            row=row,
        )
        questions.append(question)
    return questions


# Of each metric: the part, and what it makes of that part's videos
METRICS: dict[str, tuple[str, Callable[[Runs], np.ndarray]]] = {
    "reverse_voc": (REVERSED, lambda runs: order.reverse_voc(worst_case(runs))),
    "cycle_voc": (CYCLED, lambda runs: order.cycle_voc(worst_case(runs))),
    "stall_drift": (FROZEN, order.stall_drift),
    "false_progress_rewound": (CYCLED, lambda runs: order.claimed(worst_case(runs), since=0.5)),
    "false_progress_frozen": (FROZEN, order.claimed),
}


def score(questions: Sequence[Question], values: Mapping[str, float]) -> ScoredBenchmark:
    """The measures of METRICS of answers 0..1 by question key; NaN or absent: none was read.

    For the orders and for what is rewound such an answer counts as wrong as can be; a stall without both answers is
    left out, see coverage.
    """
    episodes = sorted({_episode_of(q) for q in questions})
    measures: dict[str, Measure] = {}
    total = np.zeros((len(episodes), 2))
    for name, (part, metric) in METRICS.items():
        videos = _videos(questions, part)
        runs = _runs(list(videos.values()), values)
        per_video, read = metric(runs), answers_read(runs)

        # An episode has one video of most parts, and several stalls: their mean counts
        per_episode, read_of_episode = [], []
        for episode in episodes:
            of_episode = [k for k, key in enumerate(videos) if key[:2] == episode]
            per_episode.append(_mean_of_known(per_video[of_episode]))
            read_of_episode.append(read[of_episode].sum(axis=0))
        measures[name] = mean_of(per_episode, np.array(read_of_episode))
    for part in PARTS:
        videos = _videos(questions, part)
        read = answers_read(_runs(list(videos.values()), values))
        total += np.array([read[[k for k, key in enumerate(videos) if key[:2] == e]].sum(axis=0) for e in episodes])
    measures["coverage"] = ratio_of(total[:, 0], total[:, 1], total)
    answered = sum(not np.isnan(values.get(q.key, np.nan)) for q in questions)
    counts = {"rows": len(questions), "episodes": len(episodes), "unparsable": len(questions) - answered}
    scored = tuple(ScoredEpisode((dataset, index), (f"dataset {dataset}",)) for dataset, index in episodes)
    return ScoredBenchmark(BENCHMARK, scored, measures, counts)


def _episode_of(question: Question) -> tuple[str, str]:
    return question.dataset, str(question.row["episode_index"])


def _videos(questions: Sequence[Question], part: str) -> dict[tuple[str, str, str], list[Question]]:
    """The questions about each video of a part, by (dataset, episode, video), sorted."""
    videos: dict[tuple[str, str, str], list[Question]] = {}
    for q in questions:
        if q.part == part:
            videos.setdefault((*_episode_of(q), q.trajectory), []).append(q)
    return dict(sorted(videos.items(), key=lambda item: item[0]))


def _mean_of_known(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _runs(videos: Sequence[Sequence[Question]], values: Mapping[str, float]) -> Runs:
    """The answers about each video, in the order of its windows."""
    episodes = []
    for video in videos:
        in_order = sorted(video, key=lambda q: q.frame_index or 0)
        predicted = np.array([values.get(q.key, np.nan) for q in in_order])
        target = np.array([q.truth.score for q in in_order], np.float64)
        episodes.append((predicted, target))
    return runs_of(episodes)
