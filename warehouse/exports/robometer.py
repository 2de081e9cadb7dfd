"""Robometer's rows as a folder that Hugging Face's `load_dataset` opens: a trajectory per view, with its grade.

    trajectories/<split>/part-000.parquet    id, task, lang_vector, data_source, frames, is_robot, quality_label, ...
    videos/<dataset>/000003_<camera>.mp4    what `frames` names, relative to the folder

What the convention is says annotate.conventions.robometer.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from annotate.conventions.robometer import FAILURE, SUBOPTIMAL, SUCCESSFUL, grade
from annotate.similarity import embed
from core.files import write_file
from warehouse.exports.common import Exported, ExportEpisode, ExportError, ExportFolder, open_folder
from warehouse.exports.episode_videos import write_episode_video
from warehouse.exports.labels import each_label, left_out_notes, select_for_labels
from warehouse.exports.lerobot_features import open_reader
from warehouse.exports.options import LabelOptions, Selection
from warehouse.exports.parquet import with_features
from warehouse.lake import Lake
from warehouse.releases.licences import hub_licence

KIND = "robometer"
README = "README.md"
NO_SPLIT = "train"  # of an episode that no split holds
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


def export(
    lake: Lake,
    selection: Selection,
    out: Path,
    options: LabelOptions = LabelOptions(),
    *,
    overwrite: bool = False,
) -> Exported:
    """Write the episodes that have an instruction; an export that broke off goes on.

    Raises ExportError, SourceError and what `select` raises.
    """
    selected = select_for_labels(lake, selection, options.label_run)
    folder = open_folder(out, KIND, selected.identity(KIND, options), overwrite)
    if folder.manifest is not None:
        return folder.exported()
    readers = {dataset: open_reader(selected, dataset) for dataset in selected.datasets}
    rows: dict[str, list[dict[str, Any]]] = {}
    for e, label in each_label(selected, options.label_run):
        if not e.task:
            continue  # a trajectory without a task is none
        part = f"{e.dataset} {e.episode_index}"
        if folder.done(part) is None:
            names = [_video(e, camera) for camera in e.cameras]
            for camera, name in zip(e.cameras, names, strict=True):
                write_episode_video(readers[e.dataset], camera, e, folder.path(name))
            folder.finish_part(part, names)
        end = None if label is None else float(label.progress[-1])
        rows.setdefault(e.split or NO_SPLIT, []).extend(_rows(e, end))
    if not rows:
        raise ExportError("nothing to export: none of the episodes selected has an instruction")
    _write_rows(folder, rows)
    without = sum(not e.task for e in selected.episodes)
    notes = left_out_notes(selected, options.label_run)
    notes += [f"{without} episodes without an instruction are left out"] if without else []
    counts = {split: _counts(of_split) for split, of_split in rows.items()}
    if folder.done(README) is None:
        licence = hub_licence([selected.licences.get(dataset) for dataset in selected.datasets])
        write_file(folder.path(README), _readme(licence, counts, notes).encode())
        folder.finish_part(README, [README])
    return folder.finish(selected, options, {"trajectories": counts, "notes": notes})


def _video(e: ExportEpisode, camera: str) -> str:
    return f"videos/{e.dataset}/{e.episode_index:06d}_{_plain(camera)}.mp4"


def _plain(camera: str) -> str:
    return camera.replace("/", "_")


def _rows(e: ExportEpisode, end_progress: float | None) -> list[dict[str, Any]]:
    """A row for each camera."""
    quality, share = grade(e.success, end_progress)
    return [
        {
            "id": f"{e.dataset}/{e.episode_index:06d}/{_plain(camera)}",
            "task": e.task,
            "data_source": e.dataset,
            "frames": _video(e, camera),
            "is_robot": True,
            "quality_label": quality,
            "partial_success": share,
        }
        for camera in e.cameras
    ]


def _write_rows(folder: ExportFolder, rows: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    """Each task's text is embedded once."""
    tasks = sorted({row["task"] for of_split in rows.values() for row in of_split})
    vectors = dict(zip(tasks, embed(tasks), strict=True))
    for split, of_split in rows.items():
        if folder.done(split) is None:
            table = [row | {"lang_vector": vectors[row["task"]]} for row in of_split]
            name = f"trajectories/{split}/part-000.parquet"
            written = pa.Table.from_pylist(table, schema=with_features(SCHEMA))
            pq.write_table(written, folder.path(name), compression="zstd")
            folder.finish_part(split, [name])


def _counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    found = Counter(row["quality_label"] or "unknown" for row in rows)
    return {name: found.get(name, 0) for name in (SUCCESSFUL, SUBOPTIMAL, FAILURE, "unknown")}


def _readme(licence: tuple[str, Any], counts: Mapping[str, Mapping[str, int]], notes: Sequence[str]) -> str:
    files = [{"split": split, "path": f"trajectories/{split}/*.parquet"} for split in counts]
    head: dict[str, Any] = {"license": licence[0]} | ({"license_name": licence[1]} if licence[1] else {})
    head |= {
        "task_categories": ["robotics"],
        "configs": [{"config_name": "trajectories", "default": True, "data_files": files}],
    }
    names = list(next(iter(counts.values())))
    lines = ["| split | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    lines += [f"| {split} | " + " | ".join(str(c[name]) for name in names) + " |" for split, c in counts.items()]
    table, noted = "\n".join(lines), "".join(f"\n- {note}" for note in notes)
    return f"""---
{yaml.safe_dump(head, sort_keys=False).rstrip()}
---

# Trajectories in Robometer's form

One row per run and camera. `frames` is the path of a video in this folder; `partial_success` is where its label ends.
A run that did not succeed is suboptimal from 0.5 on. Unknown: nobody says how the run ended, and no label does.

{table}
{noted}

```python
from datasets import load_dataset

rows = load_dataset("THIS_FOLDER", split="{next(iter(counts))}")
```
"""
