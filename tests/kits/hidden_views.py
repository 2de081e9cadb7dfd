"""A test set in which each view hides a step: simulated runs of the samples as plain videos, without state and gripper.

The front camera is black for the whole of one step, the wrist's for that of another. So either alone shows an arm
that stands still where it works, and both together show all of it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from annotate.segments import STEP, Segment
from core.paths import ROOT
from eval.annotators.truth import simulator_segments
from eval.held_out.truth import load_truth
from ingest.registry import BUILT_IN, load_entry
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source
from tests.kits.lerobot_writer import write_video

FRONT, WRIST = "front", "wrist"
IN_THE_SAMPLE = {FRONT: "observation.images.front", WRIST: "observation.images.wrist"}
TRUTH = ROOT / "samples/truth"
QUICK = {"preset": "ultrafast", "crf": "18"}


@dataclass(frozen=True)
class HiddenRun:
    """One run: by camera the step that it does not show, and its progress as the simulator knows it, float64 [n]."""

    hidden: dict[str, Segment]
    progress: np.ndarray


def write_hidden_views(root: Path, runs: tuple[int, ...]) -> list[HiddenRun]:
    """Videos of some episodes of samples/sim_long, in order, with a side file; each has three steps or more."""
    source = Source(load_entry(BUILT_IN / "sim_long.yaml"))
    records = {record.episode_index: record for record in list_episodes(source).records}
    segments, truth = simulator_segments(TRUTH, "sim_long"), load_truth(TRUTH, "sim_long")
    assert truth is not None
    made, rows = [], []
    for run in runs:
        steps = [s for s in segments[run] if s.kind == STEP]
        hidden = {FRONT: steps[1], WRIST: steps[-1]}
        made.append(HiddenRun(hidden, truth.progress[run]))
        episode = read_episode(source, records[run])
        for camera, key in IN_THE_SAMPLE.items():
            file = f"{run:02d}_{camera}.mp4"
            pictures = (frame.rgb() for _, _, frame in episode.frames(key))
            write_video(root / file, _without(pictures, hidden[camera]), fps=int(records[run].fps), options=QUICK)
            rows.append({"file": file, "episode": f"run {run:02d}", "camera": camera, "fps": records[run].fps})
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


def _without(pictures: Iterator[np.ndarray], hidden: Segment) -> Iterator[np.ndarray]:
    for frame, picture in enumerate(pictures):
        yield np.zeros_like(picture) if hidden.start_frame <= frame < hidden.end_frame else picture


def share_worked(segments: tuple[Segment, ...], step: Segment) -> float:
    """Share of a true step's frames in which a label has the robot at work, 0..1."""
    worked = sum(
        max(0, min(s.end_frame, step.end_frame) - max(s.start_frame, step.start_frame))
        for s in segments
        if s.kind == STEP
    )
    return worked / len(step)
