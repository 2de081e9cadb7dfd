"""Robometer's rows as a folder that Hugging Face's `load_dataset` opens: a trajectory per view, with its grade.

    trajectories/<split>/part-000.parquet    id, task, lang_vector, data_source, frames, is_robot, quality_label, ...
    videos/<dataset>/000003_<camera>.mp4    what `frames` names, relative to the folder

What the convention is says annotate.conventions.robometer.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from annotate.conventions.robometer import FAILURE, SUBOPTIMAL, SUCCESSFUL, grade
from annotate.similarity import embed
from core.errors import UserError
from warehouse.exports.export import counted
from warehouse.exports.hub import README, card_head, with_features
from warehouse.exports.labels import ActiveLabel, LabelExport
from warehouse.exports.selection import ExportEpisode
from warehouse.exports.videos import write_episode_video
from warehouse.releases.card import markdown_table

UNKNOWN = "unknown"
GRADES = (SUCCESSFUL, SUBOPTIMAL, FAILURE, UNKNOWN)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("lang_vector", pa.list_(pa.float32())),
        ("data_source", pa.string()),
        ("frames", pa.string()),
        ("is_robot", pa.bool_()),
        ("quality_label", pa.string()),
        ("partial_success", pa.float32()),
    ]
)


class RobometerExport(LabelExport):
    """The episodes that have an instruction: a trajectory without a task is none."""

    def write_rest(self) -> Mapping[str, Any]:
        rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for e, label in self.labels():
            if e.task:
                self.folder.part(f"{e.dataset} {e.episode_index}", self._write_videos, e)
                rows[e.split or NO_SPLIT] += _views(e, label)
        if not rows:
            raise UserError("nothing to export: none of the episodes selected has an instruction")
        counts = {split: self.folder.part(split, self._write_rows, split, of_split) for split, of_split in rows.items()}
        without = sum(not e.task for e in self.selected.episodes)
        notes = self.notes() + counted(without, "episodes without an instruction are left out")
        self.folder.write(README, self._readme(counts, notes))
        return {"trajectories": counts, "notes": notes}

    def _write_videos(self, e: ExportEpisode) -> None:
        for camera in e.cameras:
            write_episode_video(self.readers[e.dataset], camera, e, self.folder.path(_video(e, camera)))

    def _write_rows(self, split: str, rows: Sequence[dict[str, Any]]) -> dict[str, int]:
        """Returns how many there are of each grade."""
        tasks = sorted({row["task"] for row in rows})
        vectors = dict(zip(tasks, embed(tasks), strict=True))
        with_vectors = [row | {"lang_vector": vectors[row["task"]]} for row in rows]
        table = pa.Table.from_pylist(with_vectors, schema=with_features(SCHEMA))
        pq.write_table(table, self.folder.path(f"trajectories/{split}/part-000.parquet"), compression="zstd")
        found = Counter(row["quality_label"] or UNKNOWN for row in rows)
        return {grade: found[grade] for grade in GRADES}

    def _readme(self, counts: Mapping[str, Mapping[str, int]], notes: Sequence[str]) -> str:
        files = {"trajectories": {split: f"trajectories/{split}/*.parquet" for split in counts}}
        noted = "".join(f"\n- {note}" for note in notes)
        return f"""{card_head(self.selected, files)}
# Trajectories in Robometer's form

One row per run and camera. `frames` is the path of a video in this folder; `partial_success` is where its label ends.
A run that did not succeed is suboptimal from 0.5 on. Unknown: nobody says how the run ended, and no label does.

{markdown_table(("split", *GRADES), [(split, *of_split.values()) for split, of_split in counts.items()])}
{noted}

```python
from datasets import load_dataset

rows = load_dataset("THIS_FOLDER", split="{next(iter(counts))}")
```
"""


def _video(e: ExportEpisode, camera: str) -> str:
    return f"videos/{e.dataset}/{e.episode_index:06d}_{camera.replace('/', '_')}.mp4"


def _views(e: ExportEpisode, label: ActiveLabel | None) -> list[dict[str, Any]]:
    """A row for each camera."""
    quality, share = grade(e.success, None if label is None else float(label.progress[-1]))
    return [
        {
            "id": f"{e.dataset}/{e.episode_index:06d}/{camera.replace('/', '_')}",
            "task": e.task,
            "data_source": e.dataset,
            "frames": _video(e, camera),
            "is_robot": True,
            "quality_label": quality,
            "partial_success": share,
        }
        for camera in e.cameras
    ]
