"""Probes: held-out runs shown backwards, forwards and back, and standing still, made from a release's pictures.

Who looks follows the picture; who counts goes on. The windows are those of the release's progress questions, so a model
is asked in the very form it is used in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from eval.benchmarks import procvqa
from eval.benchmarks.question import BenchmarkError, PictureFile, Question, RightAnswer, question_key
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
Shown = tuple[tuple[PictureFile, ...], int, str]  # a window, the frame that it ends with, the question about it


def load(lake: Lake, release: Release, limit: int | None = None) -> list[Question]:
    """The questions about the first `limit` held-out runs. Raises BenchmarkError or ShardError."""
    known = procvqa.load("procvqa-id", lake, release, ("procvqa_c",))
    runs: dict[tuple[str, str], list[Question]] = {}
    for q in known:
        runs.setdefault((q.dataset, q.trajectory), []).append(q)
    con = open_for_users(lake.workspace, release.snapshot)
    questions: list[Question] = []
    for (dataset, trajectory), run in sorted(runs.items())[:limit]:
        run = sorted(run, key=lambda q: q.frame_index or 0)
        labels = dict(
            con.execute(
                "SELECT frame_index, progress FROM active_progress WHERE dataset = ? AND episode_index = ?",
                [dataset, int(trajectory)],
            ).fetchall()
        )
        if len(run) > 1:
            questions += _questions(run, labels)
    if not questions:
        raise BenchmarkError(f"release {release.name} holds no run with two progress questions in its split test_id")
    return questions


def _questions(run: Sequence[Question], labels: Mapping[int, float]) -> list[Question]:
    forward: list[Shown] = [(q.pictures, q.row["frames"][-1], q.text) for q in run]
    backward: list[Shown] = [(q.pictures[::-1], q.row["frames"][0], q.text) for q in reversed(run)]
    made = _video(REVERSED, run[0], backward, labels) + _video(CYCLED, run[0], forward + backward, labels)
    for k in sorted({round(x) for x in np.linspace(0, len(run) - 1, STALLS)}):
        pictures, frame, text = forward[k]
        still: Shown = ((pictures[-1],) * len(pictures), frame, text)
        made += _video(FROZEN, run[k], [forward[k], still], labels, f"@{frame}")
    return made


def _video(
    part: str, like: Question, shown: Sequence[Shown], labels: Mapping[int, float], at: str = ""
) -> list[Question]:
    """One question for each window; `frame_index` counts the windows shown, as a clock would."""
    made = []
    for k, (pictures, frame, text) in enumerate(shown):
        row = {
            "dataset": like.dataset,
            "episode_index": int(like.trajectory),
            "probe": part,
            "stopped": at,
            "shown": k,
            "frame": frame,
            "progress": float(labels[frame]),
        }
        question = replace(
            like,
            key=question_key(BENCHMARK, part, row),
            benchmark=BENCHMARK,
            part=part,
            trajectory=like.trajectory + at,
            pictures=pictures,
            text=text,
            truth=RightAnswer(score=float(labels[frame])),
            frame_index=k,
            num_frames=len(shown),
            row=row,
        )
        made.append(question)
    return made


def score(questions: Sequence[Question], values: Mapping[str, float]) -> ScoredBenchmark:
    """reverse_voc, cycle_voc and stall_drift of answers 0..1 by question key; NaN or absent: none was read.

    For the orders such an answer counts as wrong as can be; a stall without both answers is left out, see coverage.
    """
    episodes = sorted({(q.dataset, str(q.row["episode_index"])) for q in questions})
    measures: dict[str, Measure] = {}
    total = np.zeros((len(episodes), 2))
    for part, name, metric in (
        (REVERSED, "reverse_voc", lambda runs: order.reverse_voc(worst_case(runs))),
        (CYCLED, "cycle_voc", lambda runs: order.cycle_voc(worst_case(runs))),
        (FROZEN, "stall_drift", order.stall_drift),
    ):
        videos: dict[tuple[str, str, str], list[Question]] = {}
        for q in questions:
            if q.part == part:
                videos.setdefault((q.dataset, str(q.row["episode_index"]), q.trajectory), []).append(q)
        keys = sorted(videos)
        runs = _runs([videos[k] for k in keys], values)
        found, read = metric(runs), answers_read(runs)
        of = [[k for k, key in enumerate(keys) if key[:2] == e] for e in episodes]
        mean = [float(np.nanmean(found[k])) if k and np.isfinite(found[k]).any() else float("nan") for k in of]
        known = np.array([read[k].sum(axis=0) for k in of])
        measures[name] = mean_of(mean, known)
        total += known
    measures["coverage"] = ratio_of(total[:, 0], total[:, 1], total)
    answered = sum(not np.isnan(values.get(q.key, np.nan)) for q in questions)
    counts = {"rows": len(questions), "episodes": len(episodes), "unparsable": len(questions) - answered}
    named = tuple(ScoredEpisode(e, (f"dataset {e[0]}",)) for e in episodes)
    return ScoredBenchmark(BENCHMARK, named, measures, counts)


def _runs(videos: Sequence[Sequence[Question]], values: Mapping[str, float]) -> Runs:
    return runs_of(
        (
            np.array([values.get(q.key, np.nan) for q in sorted(v, key=lambda q: q.frame_index or 0)]),
            np.array([q.truth.score for q in sorted(v, key=lambda q: q.frame_index or 0)], np.float64),
        )
        for v in videos
    )
