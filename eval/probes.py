"""Probes: held-out runs shown backwards, forwards and back, and standing still, made from a release's pictures.

Who looks follows the picture; who counts goes on. The windows are those of the release's progress questions, so a model
is asked in the very form it is used in.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import BenchmarkError, PictureFile, Question
from eval.metrics import order
from eval.metrics.score import Measure, Runs, answers_read, mean_of, worst_case
from eval.perturbed import questions_by_run
from eval.scored import Answers, Episodes, ScoredBenchmark
from warehouse.lake import Lake
from warehouse.lake.sql import open_for_users
from warehouse.releases.release import Release

BENCHMARK = "probes"
REVERSED, CYCLED, FROZEN = PARTS = ("reversed", "cycled", "frozen")
STALLS = 4  # moments of a run at which it is stopped
# Pictures that are shown at once, the frame they end with, the text
Window = tuple[tuple[PictureFile, ...], int, str]


def load(lake: Lake, release: Release, options: EvaluationOptions) -> list[Question]:
    """The questions about the first `limit` held-out runs. Raises BenchmarkError or ShardError."""
    con = open_for_users(lake.workspace, release.snapshot)
    probes: list[Question] = []
    for run in questions_by_run("procvqa-id", lake, release)[: options.limit]:
        sql = "SELECT frame_index, progress FROM active_progress WHERE dataset = ? AND episode_index = ?"
        labels = dict(con.execute(sql, [run[0].dataset, int(run[0].trajectory)]).fetchall())
        # A single question has no order to reverse
        if len(run) > 1:
            probes += _probes_of_run(run, labels)
    if not probes:
        raise BenchmarkError(
            f"release {release.name} holds no run with two progress questions in its split test_id"
        )
    return probes


def _probes_of_run(run: Sequence[Question], labels: Mapping[int, float]) -> Iterator[Question]:
    """The run backwards, the run forwards and back, and stalls: one picture, `STALLS` times over the run."""
    forward = [(q.pictures, q.row["frames"][-1], q.text) for q in run]
    backward = [(q.pictures[::-1], q.row["frames"][0], q.text) for q in reversed(run)]
    yield from _video(REVERSED, run[0], backward, labels)
    # A run that is shown from its end on begins there: what was first of it is then no beginning
    first = next((q.pictures[0] for q in run if q.row["frames"][0] == 0), None)
    yield from _video(CYCLED, replace(run[0], first=first), forward + backward, labels)
    for k in sorted({round(x) for x in np.linspace(0, len(run) - 1, STALLS)}):
        pictures, frame, text = forward[k]
        still = pictures[-1:] * len(pictures)
        stall = [forward[k], (still, frame, text)]
        yield from _video(FROZEN, replace(run[k], first=first), stall, labels, f"@{frame}")


def _video(
    part: str,
    template: Question,
    windows: Sequence[Window],
    labels: Mapping[int, float],
    stopped: str = "",
) -> Iterator[Question]:
    """One question for each window; `frame_index` counts the windows shown, as a clock would."""
    for k, (pictures, frame, text) in enumerate(windows):
        label = float(labels[frame])
        yield replace(
            template,
            benchmark=BENCHMARK,
            part=part,
            trajectory=template.trajectory + stopped,
            pictures=pictures,
            text=text,
            progress=label,
            success=None,
            frame_index=k,
            num_frames=len(windows),
            row={
                "dataset": template.dataset,
                "episode_index": int(template.trajectory),
                "probe": part,
                "stopped": stopped,
                "shown": k,
                "frame": frame,
                "progress": label,
            },
            unit=(template.dataset, str(int(template.trajectory))),
            slices=(f"dataset {template.dataset}",),
        )


# Of each metric: the part, and what it makes of that part's videos
METRICS: dict[str, tuple[str, Callable[[Runs], np.ndarray]]] = {
    # Labels fall, or rise and fall: 1 for who looks; a clock has -1 and 0. (After GVL's reversed orders and RoboValue's
    # cycle-VOC.)
    "reverse_voc": (REVERSED, lambda runs: order.voc(worst_case(runs))),
    "cycle_voc": (CYCLED, lambda runs: order.voc(worst_case(runs))),
    "stall_drift": (FROZEN, order.stall_drift),
    "false_progress_rewound": (
        CYCLED,
        lambda runs: order.claimed_progress(worst_case(runs), since=0.5),
    ),
    "false_progress_frozen": (FROZEN, order.claimed_progress),
}


def score(answers: Answers) -> ScoredBenchmark:
    """The measures of METRICS of answers 0..1, NaN where none was read.

    For the orders and for what is rewound such an answer counts as wrong as can be; a stall without both answers is
    left out, see coverage.
    """
    videos = np.array([(q.part, *q.unit, q.trajectory) for q in answers.questions])
    measures: dict[str, Measure] = {}
    for name, (part, metric) in METRICS.items():
        places = [k for k in np.lexsort(videos.T[::-1]) if videos[k][0] == part]
        chosen = answers.among(np.array(places, np.int64))
        of_video = Episodes.of([tuple(video) for video in videos[places]])
        runs, _ = of_video.runs(chosen.values, *map(chosen.column, ("progress", "frame_index")))
        # An episode has one video of most parts, and several stalls: their mean counts
        _, first = np.unique(of_video.number, return_index=True)
        of_episode = chosen.episodes.among(first)
        measures[name] = mean_of(
            of_episode.means(metric(runs)), of_episode.sums(*answers_read(runs).T)
        )
    return answers.scored(measures)
