"""How near motion's labels are to the steps that people gave with public datasets: WGO-Bench, AgiBot World, RoboCOIN.

    python -m benchmarks.source_steps --wgo data/annotations.parquet [--workspace W]
    python -m benchmarks.source_steps --source agibot/ robocoin/ [--workspace W]

--wgo takes the file of WGO-Bench (100 episodes, 743 segments by people; Hugging Face macrodata/WGO-Bench): it is laid
out as plain videos with their steps beside them. --source takes folders of datasets that bring steps of their own, in
any form that docs/formats.md lists. Episodes are labelled as if they had no steps and no outcome.

Prints per dataset: F1 of segments at an overlap (intersection over union) of a half, whatever their names, as
WGO-Bench's users report it, and of even cuts; F1 of boundaries within half a second; the error of progress, and the
clock's.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import annotate.motion.annotator as motion
from annotate import native
from annotate.config import MotionConfig
from benchmarks.harness import arguments, build, table, trial_workspace
from benchmarks.label_truth import Known, mean_of, signals_without_outcomes
from core.domain.label import STEP, Segment
from core.paths import Workspace
from eval.annotators.scoring import even_cuts
from eval.annotators.truth import hand_progress
from eval.metrics.segments import Span, segment_f1
from ingest.episode import NativeStep
from warehouse.lake import Lake

OVERLAP = 0.5  # intersection over union from which on a segment is found
BATCH = 4  # rows of WGO-Bench's file in memory: each holds a video


def unpack_wgo(file: Path, folder: Path) -> int:
    """Lay WGO-Bench's episodes out as plain videos with side files; returns how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    columns = ["id", "video", "instruction", "segments"]
    for batch in pq.ParquetFile(file).iter_batches(batch_size=BATCH, columns=columns):
        for row in batch.to_pylist():
            # An id becomes a file's name, so it must not be a path
            stem = row["id"]
            if Path(stem).name != stem or stem.startswith("."):
                raise ValueError(f"{file}: the id {stem!r} is no name of a file")
            (folder / f"{stem}.mp4").write_bytes(row["video"])
            steps = [_side_step(segment) for segment in row["segments"]]
            side = {"task": row["instruction"] or None, "steps": steps}
            (folder / f"{stem}.json").write_text(json.dumps(side))
            count += 1
    return count


def _side_step(segment: Mapping[str, Any]) -> dict[str, Any]:
    """A segment of WGO-Bench as the side file of a plain video has it."""
    return {
        "name": segment["subtask"],
        "start_s": segment["start_sec"],
        "end_s": segment["end_sec"],
    }


def episodes_with_steps(space: Workspace, source: Path, dataset: str) -> list[Known]:
    """The usable episodes of a dataset whose source brings steps, with these as the truth."""
    build(space, source, dataset)
    lake = Lake(space, read_only=True)
    sql = "SELECT episode_index, steps FROM episode_facts WHERE dataset = ? AND len(steps) > 0"
    steps_of = dict(lake.rows(sql, [dataset]))
    known_episodes = []
    for signals in signals_without_outcomes(lake, dataset):
        if signals.episode_index not in steps_of:
            continue
        steps = [NativeStep(**step) for step in steps_of[signals.episode_index]]
        segments, _ = native.annotate(steps, len(signals), None)
        boundaries = tuple(s.start_frame for s in segments[1:])
        progress = hand_progress(segments, len(signals))
        known_episodes.append(
            Known(signals, None, progress, boundaries, tuple(segments), float("nan"))
        )
    lake.con.close()
    return known_episodes


def spans(segments: Sequence[Segment]) -> list[Span]:
    """The steps alone, without their names."""
    return [("", s.start_frame, s.end_frame) for s in segments if s.kind == STEP]


def even_spans(count: int, num_frames: int) -> list[Span]:
    cuts = [0, *even_cuts(count - 1, num_frames), num_frames]
    return [("", start, end) for start, end in pairwise(cuts)]


def row(dataset: str, episodes: Sequence[Known]) -> list[str]:
    labels = motion.annotate([episode.signals for episode in episodes], MotionConfig())
    both = list(zip(episodes, labels, strict=True))
    even = [
        even_spans(max(1, len(spans(episode.segments))), len(episode.signals))
        for episode in episodes
    ]
    numbers = (
        mean_of(
            segment_f1(spans(label.segments), spans(episode.segments), OVERLAP)
            for episode, label in both
        ),
        mean_of(
            segment_f1(even_split, spans(episode.segments), OVERLAP)
            for episode, even_split in zip(episodes, even, strict=True)
        ),
        mean_of(episode.f1(label.segments) for episode, label in both),
        mean_of(episode.uniform_f1 for episode in episodes),
        mean_of(episode.error(label.progress) for episode, label in both if label.has_progress),
        mean_of(episode.error(np.linspace(0, 1, len(episode.signals))) for episode in episodes),
    )
    return [
        dataset,
        str(len(episodes)),
        str(sum(len(spans(k.segments)) for k in episodes)),
        *(f"{n:.3f}" for n in numbers),
    ]


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--wgo", type=Path, help="annotations.parquet of WGO-Bench")
    parser.add_argument(
        "--source",
        nargs="*",
        type=Path,
        default=[],
        help="folders of datasets with steps of their own",
    )
    parser.add_argument("--workspace", type=Path, help="keep what is built in this folder")
    args = parser.parse_args()
    if not args.wgo and not args.source:
        parser.error("name --wgo FILE or --source FOLDER: the data is not shipped")
    rows = []
    with (
        trial_workspace(args.workspace) as space,
        TemporaryDirectory(prefix="proccorpus-wgo-") as unpacked,
    ):
        sources = {folder.resolve().name: folder for folder in args.source}
        if args.wgo:
            sources["wgo_bench"] = Path(unpacked)
            unpack_wgo(args.wgo, sources["wgo_bench"])
        for dataset, folder in sources.items():
            episodes = episodes_with_steps(space, folder, dataset)
            if not episodes:
                parser.error(
                    f"{folder}: no usable episode brings steps (proccorpus inspect {folder} says why)"
                )
            rows.append(row(dataset, episodes))
    head = [
        "dataset",
        "episodes",
        "segments",
        "F1 of segments at 0.5",
        "of even cuts",
        "F1 of boundaries",
        "of even cuts",
    ]
    table([*head, "error of progress", "clock"], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
