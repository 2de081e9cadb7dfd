"""Labels of real episodes against hand-labelled truth: what an episode's label scores.

A truth file, one per episode (`<truth>/<dataset>/<episode>.json`), holds what one or two people saw in the frames:
boundaries and events averaged over both passes, and each pass's segments. `benchmarks.label_truth --real` builds the
datasets and makes the table; labels are compared with cuts that look at nothing.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np

from annotate.segments import STEP, Segment
from eval.metrics.published import boundary_hits, first_and_last
from eval.metrics.score import Measure, mean_of, ratio_of
from eval.metrics.segments import Span

NEAR_S, FAR_S = 0.5, 1.0  # s: how far off a boundary may be
EVENTS = ("grasp", "release")
SLIVER_S = 0.3  # s: a step that is shorter is none
RANDOM_DRAWS = 500  # of random cuts per episode
PLACEHOLDER = re.compile(r"Move(, part \d+)?|(unnamed.*)?", re.IGNORECASE)
NAN = float("nan")


@dataclass(frozen=True)
class TruthEvent:
    kind: str  # grasp, release, contact or other
    frame: int
    note: str | None = None


@dataclass(frozen=True)
class EpisodeTruth:
    """What people saw in one episode; `passes` has the segments that each of them put."""

    dataset: str
    episode_index: int
    num_frames: int
    fps: float
    success: bool | None
    boundaries: tuple[int, ...]  # those that the passes put within NEAR_S of one another, all where there is one pass
    events: tuple[TruthEvent, ...]
    passes: tuple[tuple[Segment, ...], ...]

    def progress(self) -> np.ndarray:
        """Mean of the passes' curves, float64 [num_frames]."""
        return np.mean([hand_progress(p, self.num_frames) for p in self.passes], axis=0)

    def frames_of(self, *kinds: str) -> list[int]:
        return [event.frame for event in self.events if event.kind in kinds]


@dataclass(frozen=True)
class EpisodeLabel:
    """What the corpus says of one episode: its active label; `progress` float64 [frames]."""

    segments: tuple[Segment, ...]
    progress: np.ndarray
    annotator: str
    confidence: float | None

    @property
    def cuts(self) -> list[int]:
        return [segment.start_frame for segment in self.segments[1:]]


@dataclass(frozen=True)
class EpisodeScore:
    """One episode's figures, NaN where it has none. `uniform`, `random`: as many cuts as the truth has boundaries."""

    f1_near: float
    f1_near_uniform: float
    f1_near_random: float
    f1_far: float
    f1_far_uniform: float
    f1_far_random: float
    bf1_hits: float  # of ProcVLM's BF1@5: twice the hits, and what they are divided by
    bf1_total: float
    bf1_hits_uniform: float
    bf1_total_uniform: float
    events: float  # share of grasps and releases with a boundary within NEAR_S
    events_uniform: float
    events_random: float
    events_off_s: float  # from a grasp or release to the nearest boundary, mean
    events_off_s_uniform: float
    events_off_s_random: float
    mae: float
    mae_clock: float
    mae_passes: float  # of the one pass's curve to the other's
    placeholders: float  # share of steps
    slivers: float  # share of steps shorter than SLIVER_S
    cuts: float
    cuts_truth: float


def read_truth(folder: Path, dataset: str) -> dict[int, EpisodeTruth]:
    """The truth of a dataset by episode; none where the folder has none. Raises KeyError for a file without a field."""
    truths = (_truth(json.loads(f.read_text())) for f in sorted((folder / dataset).glob("*.json")))
    return {truth.episode_index: truth for truth in truths}


def _truth(data: dict) -> EpisodeTruth:
    fps = data["fps"]
    agreed = [b["frame"] for b in data["boundaries"] if b["spread"] is None or b["spread"] <= NEAR_S * fps]
    passes = [data[name] for name in ("pass_a", "pass_b") if data[name]]
    return EpisodeTruth(
        dataset=data["dataset"],
        episode_index=data["episode_index"],
        num_frames=data["num_frames"],
        fps=fps,
        success=data["success"],
        boundaries=tuple(agreed),
        events=tuple(TruthEvent(e["type"], e["frame"], e.get("note")) for e in data["events"]),
        passes=tuple(tuple(_segment(s) for s in one_pass) for one_pass in passes),
    )


def _segment(s: dict) -> Segment:
    return Segment(s["name"], s["start_frame"], s["end_frame"], s["kind"], s["completed"], s.get("step"))


# Progress by hand


def hand_progress(segments: Sequence[Segment], num_frames: int) -> np.ndarray:
    """Progress by a person's segments, float64 [num_frames]: every planned step has the same budget.

    A step earns evenly while it is done; what is done in parts earns a part in each. An attempt that failed comes
    half-way, and all of that is lost when it ends. Nothing is earned between steps.
    """
    steps = [s for s in segments if s.kind == STEP]
    parts = Counter(_planned(s) for s in steps if s.completed)
    earned = {_planned(s): 0.0 for s in steps}  # share of each step, 0..1
    curve = np.zeros(num_frames)
    for s in segments:
        span = slice(s.start_frame, s.end_frame)
        curve[span] = sum(earned.values()) / max(1, len(earned))
        if s.kind != STEP:
            continue
        before = earned[_planned(s)]
        after = min(1.0, before + 1 / parts[_planned(s)]) if s.completed else 0.5
        curve[span] += (after - before) * np.arange(len(s)) / len(s) / len(earned)
        if s.completed:
            earned[_planned(s)] = after
    return curve.clip(0, 1)


def _planned(s: Segment) -> int | str:
    """Which planned step a segment is an attempt at."""
    return s.name if s.step is None else s.step


# Boundaries and events


def cuts_f1(cuts: Sequence[int], boundaries: Sequence[int], within: float) -> float:
    """F1 of cuts matched one to one, each in its turn to the nearest boundary that is left; 1 when there are none.

    `within` is in frames.
    """
    left = list(boundaries)
    hits = 0
    for cut in cuts:
        nearest = min(left, key=lambda boundary: abs(boundary - cut), default=None)
        if nearest is not None and abs(nearest - cut) <= within:
            left.remove(nearest)
            hits += 1
    total = len(cuts) + len(boundaries)
    return 2 * hits / total if total else 1.0


def even_cuts(count: int, num_frames: int) -> list[int]:
    return [round(num_frames * (k + 1) / (count + 1)) for k in range(count)]


def random_cuts(count: int, num_frames: int, seed: int) -> list[list[int]]:
    """RANDOM_DRAWS times `count` different inner frames, in order."""
    rng = np.random.default_rng(seed)
    count = min(count, num_frames - 1)
    draws = (rng.choice(num_frames - 1, count, replace=False) + 1 for _ in range(RANDOM_DRAWS))
    return [sorted(draw.tolist()) for draw in draws]


def seconds_off(cuts: Sequence[int], frames: Sequence[int], truth: EpisodeTruth) -> np.ndarray:
    """From each frame to the nearest cut, float64 [frames]; the whole episode where there is no cut."""
    if not len(cuts):
        return np.full(len(frames), truth.num_frames / truth.fps)
    return np.abs(np.subtract.outer(np.asarray(frames, np.float64), cuts)).min(axis=1) / truth.fps


def is_placeholder(name: str | None) -> bool:
    """Does a step's name say nothing of what is done?"""
    return PLACEHOLDER.fullmatch(name or "") is not None


# One episode


def score_episode(label: EpisodeLabel, truth: EpisodeTruth) -> EpisodeScore:
    """The figures of one label. Raises ValueError where it has not one progress per frame."""
    if len(label.progress) != truth.num_frames:
        raise ValueError(
            f"{truth.dataset} episode {truth.episode_index}: {len(label.progress)} frames are labelled, the truth has "
            f"{truth.num_frames}: it is of another recording"
        )
    even = even_cuts(len(truth.boundaries), truth.num_frames)
    draws = random_cuts(len(truth.boundaries), truth.num_frames, truth.episode_index)
    f1 = {}
    for name, seconds in (("near", NEAR_S), ("far", FAR_S)):
        within = seconds * truth.fps
        f1[f"f1_{name}"] = cuts_f1(label.cuts, truth.boundaries, within)
        f1[f"f1_{name}_uniform"] = cuts_f1(even, truth.boundaries, within)
        f1[f"f1_{name}_random"] = float(np.mean([cuts_f1(draw, truth.boundaries, within) for draw in draws]))

    # Grasps and releases
    frames = truth.frames_of(*EVENTS)
    ours, uniform = seconds_off(label.cuts, frames, truth), seconds_off(even, frames, truth)
    at_random = np.concatenate([seconds_off(draw, frames, truth) for draw in draws])

    # Progress
    hand, curves = truth.progress(), [hand_progress(p, truth.num_frames) for p in truth.passes]
    clock = np.linspace(0, 1, truth.num_frames)
    steps = [s for s in label.segments if s.kind == STEP]
    return EpisodeScore(
        **f1,
        **_bf1(label, truth),
        events=_mean(ours <= NEAR_S),
        events_uniform=_mean(uniform <= NEAR_S),
        events_random=_mean(at_random <= NEAR_S),
        events_off_s=_mean(ours),
        events_off_s_uniform=_mean(uniform),
        events_off_s_random=_mean(at_random),
        mae=_mean(np.abs(label.progress - hand)),
        mae_clock=_mean(np.abs(clock - hand)),
        mae_passes=_mean(np.abs(curves[0] - curves[-1])) if len(curves) > 1 else NAN,
        placeholders=sum(is_placeholder(s.name) for s in steps) / max(1, len(steps)),
        slivers=sum(len(s) < SLIVER_S * truth.fps for s in steps) / max(1, len(steps)),
        cuts=len(label.cuts),
        cuts_truth=len(truth.boundaries),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else NAN


def _bf1(label: EpisodeLabel, truth: EpisodeTruth) -> dict[str, float]:
    """Hits and totals of ProcVLM's BF1@5 against the steps of each pass, for the label and a uniform split."""
    ours, uniform = np.zeros(2), np.zeros(2)
    for one_pass in truth.passes:
        wanted = step_spans(one_pass)
        split = even_split(len({_planned(s) for s in one_pass if s.kind == STEP}), truth.num_frames)
        ours += published_hits(step_spans(label.segments), wanted)
        uniform += published_hits(split, wanted)
    names = ("bf1_hits", "bf1_total", "bf1_hits_uniform", "bf1_total_uniform")
    return dict(zip(names, [*ours, *uniform], strict=True))


def published_hits(spans: Sequence[Span], wanted: Sequence[Span]) -> tuple[int, int]:
    """(2 TP, 2 TP + FP + FN) of BF1@5."""
    hits, total, _ = boundary_hits(first_and_last(spans), first_and_last(wanted))
    return hits, total


def step_spans(segments: Sequence[Segment]) -> list[Span]:
    return [(s.name, s.start_frame, s.end_frame) for s in segments if s.kind == STEP]


def even_split(count: int, num_frames: int) -> list[Span]:
    ends = np.linspace(0, num_frames, count + 1).round().astype(int).tolist()
    return [(str(k), start, end) for k, (start, end) in enumerate(pairwise(ends))]


# Many episodes


def measures(scores: Sequence[EpisodeScore]) -> dict[str, Measure]:
    """Each figure over episodes: the mean over those that have it; of BF1@5 the ratio of sums, as it is published."""
    columns = {f.name: np.array([getattr(s, f.name) for s in scores], np.float64) for f in fields(EpisodeScore)}
    of_bf1 = {
        f"bf1{suffix}": ratio_of(columns[f"bf1_hits{suffix}"], columns[f"bf1_total{suffix}"])
        for suffix in ("", "_uniform")
    }
    means = {name: mean_of(column) for name, column in columns.items() if not name.startswith("bf1")}
    return means | of_bf1
