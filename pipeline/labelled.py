"""An episode's measurements with a label, as rows of `progress` and `label_quality`: one way for all label runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from annotate import quality, unfinished
from annotate.label_run import human_run
from annotate.progress import procvlm_labels, procvlm_progress
from annotate.segments import Segment
from core.tables import TABLES
from core.views import MAY_BE_UNFINISHED
from pipeline.reading import EpisodeSignals, by_task

UNLIKE_REFERENCES = "it does not end as the runs do that it is labelled like"


@dataclass(frozen=True)
class LabelledSignals:
    """One episode with the label of one run; `progress` is float [num_frames], 0..1."""

    signals: EpisodeSignals
    segments: list[Segment]
    num_planned: int
    progress: np.ndarray


def dense_label(dataset: str, label_run: str, chunk: int, episode: LabelledSignals) -> pa.Table:
    """Rows of `progress` of one episode: our label beside the published formula on the same segments."""
    segments, num_frames = episode.segments, len(episode.signals.change)
    # Segments tile the episode, so their lengths in turn give each frame its segment
    segment_of_frame = np.repeat(np.arange(len(segments), dtype=np.int32), [len(segment) for segment in segments])
    published = procvlm_labels(segments, episode.num_planned, num_frames)
    columns = {
        "dataset": pa.repeat(dataset, num_frames),
        "episode_index": np.full(num_frames, episode.signals.episode_index),
        "label_run": pa.repeat(label_run, num_frames),
        "frame_index": np.arange(num_frames),
        "chunk": np.full(num_frames, chunk, np.int32),
        "segment_index": segment_of_frame,
        "progress": episode.progress,
        "progress_procvlm": procvlm_progress(published, episode.signals.phash),
    }
    return pa.table(columns, schema=TABLES["progress"].schema)


def quality_rows(
    dataset: str,
    label_run: str,
    chunk: int,
    episodes: Sequence[LabelledSignals],
    *,
    looked: bool = False,
    p_failures: Mapping[int, float] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Rows of `label_quality` of some episodes of a chunk: how odd each is among those of its task.

    looked: the annotator judges what pictures show. A person's label says itself how its run ended.
    p_failures: by episode, how likely it failed, where the annotator says it; the outcome of none is known.
    """
    by_person = label_run == human_run(dataset)
    labelled = {episode.signals.episode_index: episode for episode in episodes}
    rows = []
    for same_task in by_task(episode.signals for episode in episodes).values():
        runs = [_quality_run(labelled[signals.episode_index]) for signals in same_task]
        ends = [run_end(labelled[signals.episode_index]) for signals in same_task]
        doubts = [None] * len(ends) if by_person else unfinished.doubts(ends)
        for signals, odd, doubt in zip(same_task, quality.qualities(runs), doubts, strict=True):
            if signals.episode_index in p_failures:
                doubt = _as_annotated(p_failures[signals.episode_index])
            saw_end = looked or signals.episode_index in p_failures
            end_by = quality.end_by(signals.success, signals.success_source, odd.end, looked=saw_end)
            rows.append(
                {
                    "dataset": dataset,
                    "episode_index": signals.episode_index,
                    "label_run": label_run,
                    "chunk": chunk,
                    "length_z": odd.length_z,
                    "order_rarity": odd.order_rarity,
                    "jump": odd.jump,
                    "falls": odd.falls,
                    "worst_fall": odd.worst_fall,
                    "end_progress": odd.end,
                    "shortest_step_s": odd.shortest_step_s,
                    "contradicts": odd.contradicts,
                    "end_by": quality.PERSON if by_person else end_by,
                    "p_failure": doubt.p_failure if doubt else None,
                    "failure_signs": list(doubt.because) if doubt else None,
                }
            )
    return rows


def _as_annotated(p_failure: float) -> unfinished.Doubt:
    """How likely a run failed, as the annotator itself says."""
    because = (UNLIKE_REFERENCES,) if p_failure >= MAY_BE_UNFINISHED else ()
    return unfinished.Doubt(p_failure, because)


def _quality_run(episode: LabelledSignals) -> quality.LabelledRun:
    signals = episode.signals
    duration_s = len(signals.change) / signals.fps
    return quality.LabelledRun(duration_s, signals.fps, signals.success, episode.segments, episode.progress)


def run_end(episode: LabelledSignals) -> unfinished.RunEnd:
    """What of a labelled run is compared with the others of its task."""
    signals = episode.signals
    activity = signals.change if signals.speed is None else signals.speed
    end = float(episode.progress[-1])
    return unfinished.RunEnd(
        signals.success, signals.fps, np.asarray(activity, np.float64), signals.state, int(signals.phash[-1]), end
    )
