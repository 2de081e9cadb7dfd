"""LeRobot v3.0 datasets: rows, videos and statistics of the source, with our labels in every form that LeRobot reads.

Parts are video files, then a data file with its episode rows for each chunk of the lake, then progress, then the
metadata. Episodes count from 0 in the export; `proccorpus_*` columns of meta/episodes say which they were.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.domain.label import Episode
from core.errors import UserError
from ingest.episode import TimedPicture
from ingest.formats.listing import named
from ingest.media.faces import Hidden, without_faces
from warehouse.exports.export import README, ChunkKey, Write
from warehouse.exports.lerobot_plan import (
    DATA_PATH,
    FILES_PER_CHUNK,
    SPARSE_STAGE,
    VIDEO_PATH,
    Feature,
    LerobotPlan,
    place,
    proportions,
)
from warehouse.exports.lerobot_rows import combined_by_feature, shaped, write_rows
from warehouse.exports.rabc import FILE as PROGRESS_FILE
from warehouse.exports.rabc import (
    TRIED_LEROBOT,
    FrameRows,
    configuration,
    example_size,
    kappa_table,
    progress_of,
    write_progress,
)
from warehouse.exports.selection import counted
from warehouse.exports.videos import ENCODED, VideoFile, write_video

Facts = Mapping[str, Any]
# What pandas reads beside a table's columns, by its documentation's section on Parquet
INDEXED_BY_TASK = {
    "index_columns": ["task"],
    "column_indexes": [],
    "columns": [
        {
            "name": name,
            "field_name": name,
            "pandas_type": type_,
            "numpy_type": numpy,
            "metadata": None,
        }
        for name, type_, numpy in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ],
    "pandas_version": "2.0.0",
}
TASKS = pa.schema(
    {"task_index": pa.int64(), "task": pa.string()}, {"pandas": json.dumps(INDEXED_BY_TASK)}
)
MOST_NAMED = 20  # episodes that a note names
BLURRED = (
    "faces are hidden in {blurred} of {pictures} pictures, {most_faces} at once at most; a detector misses some and "
    "takes other things for faces: look at the videos before they are published"
)


class LerobotExport(LerobotPlan):
    """One episode's rows and one chunk's labels are in memory at a time. Episodes of several datasets go together where
    rate, cameras and their sizes are the same.

    `added_notes`, `added_section`: what notes and the card say of what a kind adds.
    """

    added_notes: Sequence[str] = ()
    added_section = ""

    def chunk_parts(self) -> Iterator[tuple[ChunkKey, str, Write, Any]]:
        """The video files that begin in a chunk. Rows say where each episode's pictures begin in all videos, so they
        come last."""
        # What is read of an episode for one camera serves the others
        for file in sorted(self.files, key=attrgetter("number")):
            first = file.clips[0].episode
            name = f"video {file.camera} {file.number}"
            yield (first.dataset, first.chunk), name, self._write_video, file

    def write_rest(self) -> Facts:
        videos = [
            self._noted(file, self.folder.part(name, write, file))
            for _, name, write, file in self.chunk_parts()
        ]
        chunks = [
            self.folder.part(f"rows {number}", write_rows, self, number, *of_chunk)
            for number, of_chunk in enumerate(self.selected.chunks())
        ]
        kappas = self.folder.part("progress", self._write_progress)["suggested_kappa"]
        return self._write_metadata(videos, chunks, kappas) | {"suggested_kappa": kappas}

    def _noted(self, file: VideoFile, facts: Facts) -> Facts:
        """The facts of a video file, of which its size and where its episodes begin are noted."""
        first = file.clips[0].episode
        size = facts["height_px"], facts["width_px"]
        self.codecs.setdefault(file.camera, facts["codec"])
        first_size = self.sizes.setdefault(file.camera, size)
        if size != first_size:
            raise UserError(
                f"{file.camera} is {size[1]} x {size[0]} in {first.dataset} episode {first.episode_index} and "
                f"{first_size[1]} x {first_size[0]} before: a LeRobot dataset has one size per camera, so choose with "
                "--dataset or --where"
            )
        for clip, start_s in zip(file.clips, facts["starts_s"], strict=True):
            self.places[(file.camera, *clip.episode.key)] = file.number, start_s
        return facts

    def _write_video(self, file: VideoFile) -> Facts:
        out = self.folder.path(VIDEO_PATH.format(video_key=file.camera, **place(file.number)))

        if not self.options.blur:
            return write_video(file, out, self.fps, self.options.codec)
        hidden = Hidden()

        def without(frames: Iterator[TimedPicture], e: Episode) -> Iterator[TimedPicture]:
            return without_faces(frames, e.fps, self.detector, hidden)

        facts = write_video(file, out, self.fps, self.options.codec, "faces are hidden", without)
        return facts | {"hidden": asdict(hidden)}

    def _write_progress(self) -> Facts:
        episodes = (
            FrameRows(start, number, np.arange(x.episode.num_frames), progress_of(x))
            for number, (start, x) in enumerate(zip(self.starts, self.episodes(), strict=False))
        )
        path = self.folder.path(PROGRESS_FILE)
        return write_progress(path, episodes, self.selected, self.options)

    def _write_metadata(
        self, videos: Sequence[Facts], chunks: Sequence[Facts], kappas: Mapping[str, float | None]
    ) -> dict[str, Any]:
        """info.json, tasks, statistics, proportions of SARM's stages and a card; returns facts for the manifest."""
        of_chunks = {name: list(map(itemgetter(name), chunks)) for name in chunks[0]}
        stats = combined_by_feature(of_chunks["stats"])
        metadata = {
            "info": self._info(),
            "stats": {name: shaped(s, picture=name in self.cameras) for name, s in stats.items()},
            "temporal_proportions_sparse": {SPARSE_STAGE: 1.0},
            "temporal_proportions_dense": proportions(chain.from_iterable(of_chunks["shares"])),
        }
        for name, value in metadata.items():
            self.folder.write_json(f"meta/{name}.json", value, indent=4)
        self.folder.part("tasks", self._write_tasks)
        # Notes tell what LeRobot cannot express: they stand in the card and in the manifest
        notes = [*self.notes(), *self.plan_notes(), *self.added_notes]
        reasons = Counter(video["why"] for video in videos if video["how"] == ENCODED)
        reasons_text = ", ".join(f"{reason} ({count})" for reason, count in reasons.items())
        if reasons:
            notes.append(
                f"{reasons.total()} of {len(videos)} videos were encoded anew: {reasons_text}"
            )
        notes += self._without_stages(of_chunks["no_stages"])
        notes += counted(
            sum(of_chunks["without_action"]),
            "rows have no action: NaN stands there, which no policy learns",
        )
        facts = _blurred(videos)
        notes += [BLURRED.format(**blurred) for blurred in facts.values()]
        self.folder.write(README, self._card(kappas, notes) + self.added_section)
        return facts | {
            "videos": dict(Counter(map(itemgetter("how"), videos))),
            "labelled_episodes": sum(of_chunks["labelled"]),
            "notes": notes,
        }

    def _write_tasks(self) -> None:
        """The number of each text, as a table whose index is `task` where pandas reads it: LeRobot does."""
        columns = {"task_index": list(self.tasks.values()), "task": list(self.tasks)}
        pq.write_table(pa.table(columns, TASKS), self.folder.path("meta/tasks.parquet"))

    def _without_stages(self, of_chunks: Sequence[Mapping[str, str]]) -> list[str]:
        """Which labelled episodes SARM cannot learn stages from, by reason."""
        episodes: dict[str, list[str]] = {}
        for (dataset, _, _), stageless in zip(self.selected.chunks(), of_chunks, strict=True):
            for index, reason in stageless.items():
                episodes.setdefault(reason, []).append(f"{dataset} {index}")
        return [
            f"{len(stageless)} labelled episodes have no SARM stages ({reason}; --only-complete leaves them out): "
            + named(stageless, MOST_NAMED)
            for reason, stageless in sorted(episodes.items())
        ]

    def _info(self) -> dict[str, Any]:
        robots = self.lake.column(
            "SELECT DISTINCT robot FROM datasets SEMI JOIN selected USING (dataset)"
        )
        fps = int(self.fps) if self.fps == round(self.fps) else self.fps
        features: dict[str, Feature] = dict(self.features)
        for camera in self.cameras:
            height, width = self.sizes[camera]
            about = {
                "height": height,
                "width": width,
                "codec": self.codecs[camera],
                "fps": fps,
                "channels": 3,
            }
            features[camera] = {
                "dtype": "video",
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
                "info": {f"video.{name}": value for name, value in about.items()}
                | {"is_depth_map": False},
            }
        return {
            "codebase_version": "v3.0",
            "robot_type": robots[0] if len(robots) == 1 else None,
            "fps": fps,
            "total_episodes": len(self.selected.episodes),
            "total_frames": self.starts[-1],
            "total_tasks": len(self.tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH,
            "splits": {"train": f"0:{len(self.selected.episodes)}"},
            "features": features | self.own_features,
        }

    def _card(self, kappas: Mapping[str, float | None], notes: Sequence[str]) -> str:
        size = example_size(kappas)
        licence_by_dataset = {
            dataset: self.selected.licences.get(dataset) or "not stated"
            for dataset in self.selected.datasets
        }
        licences = "\n".join(
            f"- {dataset}: {licence}" for dataset, licence in licence_by_dataset.items()
        )
        noted = "\n".join(f"- {note}" for note in notes) or "- none"
        return f"""# {", ".join(self.selected.datasets)} with process labels (LeRobot v3.0)

{len(self.index)} episodes, {self.starts[-1]} frames, {self.fps:g} frames per second. `manifest.json` says what it
was made of. `{PROGRESS_FILE}` is found by LeRobot beside the data; for a policy with chunks of {size} frames, as tried
with LeRobot {TRIED_LEROBOT}:

    lerobot-train --dataset.root=... \\
{configuration(kappas[size])}

{kappa_table(kappas, self.fps)}

Licences:
{licences}

Notes:
{noted}
"""


def _blurred(videos: Sequence[Facts]) -> dict[str, Any]:
    """The fact `blurred`: what was hidden in all videos; no fact where nothing was to be."""
    hidden = [video["hidden"] for video in videos if "hidden" in video]
    if not hidden:
        return {}
    blurred = {
        "pictures": sum(video["pictures"] for video in hidden),
        "blurred": sum(video["blurred"] for video in hidden),
        "most_faces": max(video["most_faces"] for video in hidden),
    }
    return {"blurred": blurred}
