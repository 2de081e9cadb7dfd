"""Ground truth of an episode, from people who looked at the frames, or from a simulator.

A folder of truth holds a folder per dataset. There people's truth is one JSON file per episode, whose form
docs/vlm.md shows; a simulator's is three Parquet files, as samples/truth has them.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.domain.label import STEP, Segment
from core.errors import UserError, validation_message
from core.paths import ROOT
from core.values import grouped
from eval.metrics.segments import matched_pairs
from warehouse.lake import Lake

NEAR_S = 0.5  # s: boundaries that two passes put farther apart are not agreed on
PAIR_S = 0.7  # s: boundaries of two passes that are nearer are the same one
NUMBERED = re.compile(r"episode_?0*(\d+)")
SEGMENTS = "segments.parquet"
SIMULATED = ROOT / "samples" / "truth"  # of the samples that are shipped


@dataclass(frozen=True)
class TruthEvent:
    kind: str  # grasp, release, contact or other
    frame: int
    note: str | None = None


@dataclass(frozen=True)
class EpisodeTruth:
    """Ground truth of one episode, to compare labels with: no `Label`, since several people may have cut it.

    passes: the segments of each person. num_planned: how many steps its task has by other runs; 0: as many as its own
    segments have.
    """

    dataset: str
    episode_index: int
    num_frames: int
    fps: float
    success: bool | None  # was the whole task done; None: not known
    boundaries: tuple[int, ...]  # frames; of two passes those within NEAR_S of one another
    events: tuple[TruthEvent, ...]
    passes: tuple[tuple[Segment, ...], ...]
    # Progress, float64 [num_frames], where more is known of it than the segments say
    curve: np.ndarray | None = None
    num_planned: int = 0

    def pass_curves(self) -> list[np.ndarray]:
        """Progress per frame by each pass, float64 [num_frames]."""
        return [
            hand_progress(segments, self.num_frames, self.num_planned) for segments in self.passes
        ]

    def progress(self) -> np.ndarray:
        """Progress per frame, float64 [num_frames]: the curve, else the mean of what the passes give."""
        if self.curve is not None:
            return self.curve
        return np.mean(self.pass_curves(), axis=0)

    def frames_of(self, *kinds: str) -> list[int]:
        return [event.frame for event in self.events if event.kind in kinds]


# Progress by hand


def hand_progress(segments: Sequence[Segment], num_frames: int, num_planned: int = 0) -> np.ndarray:
    """Progress by a person's segments, float64 [num_frames]: every planned step has the same budget.

    A step earns evenly while it is done, in parts a part in each; a failed attempt comes half-way and loses it when it
    ends. `num_planned`: steps of the whole task, where the run may not have come to all of them.

    Example: a failed run completed 3 steps of a task of 5, and stands still: it ends at 0.6.
    """
    steps = [s for s in segments if s.kind == STEP]
    parts = Counter(planned_step(s) for s in steps if s.completed)
    earned = {planned_step(s): 0.0 for s in steps}  # share of each step, 0..1
    total = max(1, num_planned, len(earned))
    curve = np.zeros(num_frames)
    for s in segments:
        span = slice(s.start_frame, s.end_frame)
        curve[span] = sum(earned.values()) / total
        if s.kind != STEP:
            continue
        start_share = earned[planned_step(s)]
        end_share = min(1.0, start_share + 1 / parts[planned_step(s)]) if s.completed else 0.5
        curve[span] += (end_share - start_share) * np.arange(len(s)) / len(s) / total
        if s.completed:
            earned[planned_step(s)] = end_share
    return curve.clip(0, 1)


def planned_step(s: Segment) -> int | str:
    """Which planned step a segment is an attempt at."""
    if s.step is None:
        return s.name
    return s.step


# Files of people


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")  # notes of people are welcome


class _Boundary(_Strict):
    frame: int = Field(ge=0)
    spread: int | None = None  # frames between the passes


class _Event(_Strict):
    type: str
    frame: int = Field(ge=0)
    note: str | None = None


class _Segment(_Strict):
    name: str
    start_frame: int = Field(ge=0)
    end_frame: int = Field(ge=1)
    kind: Literal["step", "idle", "done", "retreat"] = "step"
    completed: bool = True
    step: int | None = None


class _File(_Strict):
    episode_index: int = Field(ge=0)
    num_frames: int = Field(ge=1)
    fps: float = Field(gt=0, strict=False)
    success: bool | None = None
    boundaries: list[_Boundary] | None = None  # default: made from the passes
    events: list[_Event] = []
    pass_a: list[_Segment] = Field(min_length=1)
    pass_b: list[_Segment] | None = None


def read_truth(folder: Path, dataset: str) -> dict[int, EpisodeTruth]:
    """People's truth of a dataset by episode; none where the folder has no file of it. Raises UserError."""
    truths: dict[int, EpisodeTruth] = {}
    for file in sorted((folder / dataset).glob("*.json")):
        truth = _read_file(file, dataset)
        if truth.episode_index in truths:
            raise UserError(
                f"{file}: episode {truth.episode_index} has another file in this folder, too"
            )
        truths[truth.episode_index] = truth
    return truths


def _read_file(file: Path, dataset: str) -> EpisodeTruth:
    try:
        content = _File.model_validate(json.loads(file.read_text()))
    except (UnicodeDecodeError, json.JSONDecodeError) as e:
        raise UserError(f"{file} is no JSON: {e}") from e
    except ValidationError as e:
        raise UserError(f"{file}: {validation_message(e)}") from e
    passes = [
        _segments(file, name, content) for name in ("pass_a", "pass_b") if getattr(content, name)
    ]
    tolerance = NEAR_S * content.fps
    if content.boundaries is None:
        agreed = agreed_boundaries(passes, content.fps)
    else:
        agreed = [(b.frame, b.spread or 0) for b in content.boundaries]
    for kind, frame in [("boundary", f) for f, _ in agreed] + [
        ("event", e.frame) for e in content.events
    ]:
        if frame >= content.num_frames:
            raise UserError(
                f"{file}: {kind} at frame {frame}, the episode has {content.num_frames} frames"
            )
    return EpisodeTruth(
        dataset=dataset,
        episode_index=content.episode_index,
        num_frames=content.num_frames,
        fps=content.fps,
        success=content.success,
        boundaries=tuple(frame for frame, spread in agreed if spread <= tolerance),
        events=tuple(TruthEvent(e.type, e.frame, e.note) for e in content.events),
        passes=tuple(passes),
    )


def _segments(file: Path, name: str, content: _File) -> tuple[Segment, ...]:
    """A pass's segments, which tile the episode."""
    segments = []
    end = 0
    for s in getattr(content, name):
        if s.start_frame != end or s.end_frame <= s.start_frame:
            raise UserError(
                f"{file}: {name}: {s.name!r} has frames {s.start_frame} to {s.end_frame}, expected to begin at {end}: "
                "segments follow one another without gap or overlap"
            )
        segments.append(Segment(s.name, s.start_frame, s.end_frame, s.kind, s.completed, s.step))
        end = s.end_frame
    if end != content.num_frames:
        raise UserError(
            f"{file}: {name} ends at frame {end}, the episode has {content.num_frames} frames"
        )
    return tuple(segments)


def agreed_boundaries(passes: Sequence[Sequence[Segment]], fps: float) -> list[tuple[int, int]]:
    """(frame, frames between the passes) of boundaries that all passes have; of one pass all of its own.

    Example: boundaries at 40 and 90 in one pass and at 44 in the other give (42, 4) at 10 fps.
    """
    first = [s.start_frame for s in passes[0][1:]]
    if len(passes) == 1:
        return [(frame, 0) for frame in first]
    second = [s.start_frame for s in passes[1][1:]]
    both = [(first[i], second[j]) for i, j in matched_pairs(first, second, PAIR_S * fps)]
    return [(round((a + b) / 2), abs(a - b)) for a, b in both]


# Tables of simulators


def load_truth(folder: Path, dataset: str) -> dict[int, dict[str, Any]]:
    """What only a simulator knows of a dataset, as samples/truth/<dataset> holds it, by episode; empty without it.

    Of each episode: `progress` at each frame, float64 [num_frames], `policy`: how the run was made, and `success`: was
    the task done?
    """
    if not (folder / dataset / "episodes.parquet").exists():
        return {}
    episodes = pq.read_table(
        folder / dataset / "episodes.parquet", columns=["episode_index", "policy", "success"]
    )
    frames = pq.read_table(folder / dataset / "frames.parquet").sort_by(
        [("episode_index", "ascending"), ("frame_index", "ascending")]
    )
    # On one thread, so that each list keeps the order of the frames
    lists = frames.group_by("episode_index", use_threads=False).aggregate(
        [("true_progress", "list")]
    )
    curves = (curve.values.to_numpy() for curve in lists["true_progress_list"])
    progress = dict(zip(lists["episode_index"].to_pylist(), curves, strict=True))
    return {
        row["episode_index"]: row | {"progress": progress.get(row["episode_index"])}
        for row in episodes.to_pylist()
    }


def simulator_truth(
    folder: Path, dataset: str, fps: Mapping[int, float]
) -> dict[int, EpisodeTruth]:
    """A simulator's truth of the episodes whose frame rate is given; none where the folder has none. Attempts at one
    step have the same name."""
    truth_by_episode = load_truth(folder, dataset)
    if not truth_by_episode:
        return {}
    rows = pq.read_table(folder / dataset / SEGMENTS).sort_by(
        [("episode_index", "ascending"), ("start_frame", "ascending")]
    )
    segments = grouped(
        (
            s["episode_index"],
            Segment(
                s["text"],
                s["start_frame"],
                s["end_frame"],
                s["kind"],
                s["completed"],
            ),
        )
        for s in rows.to_pylist()
    )
    truths = {}
    for episode, steps in segments.items():
        if episode not in fps:
            continue
        truths[episode] = EpisodeTruth(
            dataset=dataset,
            episode_index=episode,
            num_frames=steps[-1].end_frame,
            fps=fps[episode],
            success=truth_by_episode[episode]["success"],
            boundaries=tuple(s.start_frame for s in steps[1:]),
            events=(),
            passes=(tuple(steps),),
            curve=truth_by_episode[episode]["progress"].astype(np.float64),
        )
    return truths


# Truth of a corpus's dataset


def corpus_truth(lake: Lake, folder: Path, dataset: str) -> dict[int, EpisodeTruth]:
    """The truth of a dataset by the corpus's index of each episode, of people or of a simulator. Raises UserError.

    A source without indices of its own may have its folders counted from another number than they bear: the number
    in an episode's `source_id` says which one it is, where there is one such episode.
    """
    if (folder / dataset / SEGMENTS).exists():
        fps = lake.rows("SELECT episode_index, fps FROM episodes WHERE dataset = ?", [dataset])
        return simulator_truth(folder, dataset, {episode: rate for episode, rate in fps if rate})
    rows = lake.rows(
        "SELECT episode_index, source_id, task FROM episode_facts WHERE dataset = ?", [dataset]
    )
    numbered = grouped(
        (int(match[1]), episode)
        for episode, source_id, _ in rows
        if (match := NUMBERED.search(source_id or ""))
    )
    index_of = {number: episodes[0] for number, episodes in numbered.items() if len(episodes) == 1}
    truths = {
        index_of.get(number, number): truth for number, truth in read_truth(folder, dataset).items()
    }
    return planned_by_task(truths, {episode: task for episode, _, task in rows})


def _num_steps(segments: Sequence[Segment]) -> int:
    return len({planned_step(s) for s in segments if s.kind == STEP})


def planned_by_task(
    truths: Mapping[int, EpisodeTruth], tasks: Mapping[int, str | None]
) -> dict[int, EpisodeTruth]:
    """The same, runs that failed with as many planned steps as the longest finished run of their task has.

    A failed run's own segments have only the steps that it came to: by them alone its progress would end near 1.
    """
    longest: dict[str | None, int] = {}
    for episode, truth in truths.items():
        if truth.success is not False:
            task = tasks.get(episode)
            longest[task] = max(longest.get(task, 0), *map(_num_steps, truth.passes))
    return {
        episode: replace(truth, num_planned=longest.get(tasks.get(episode), 0))
        if truth.success is False
        else truth
        for episode, truth in truths.items()
    }
