"""An episode's measurements with a label, as rows of `progress` and `label_quality`: one way for all label runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from annotate import quality
from annotate.progress import procvlm_labels, procvlm_progress
from annotate.segments import Segment
from core.tables import TABLES
from pipeline.reading import EpisodeSignals, by_task


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


def quality_rows(dataset: str, label_run: str, chunk: int, episodes: Sequence[LabelledSignals]) -> list[dict[str, Any]]:
    """Rows of `label_quality` of some episodes of a chunk: how odd each is among those of its task."""
    labelled = {episode.signals.episode_index: episode for episode in episodes}
    rows = []
    for same_task in by_task(episode.signals for episode in episodes).values():
        runs = [_quality_run(labelled[signals.episode_index]) for signals in same_task]
        for signals, odd in zip(same_task, quality.qualities(runs), strict=True):
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
                    "contradicts": odd.contradicts,
                }
            )
    return rows


def _quality_run(episode: LabelledSignals) -> quality.LabelledRun:
    signals = episode.signals
    duration_s = len(signals.change) / signals.fps
    return quality.LabelledRun(duration_s, signals.fps, signals.success, episode.segments, episode.progress)
