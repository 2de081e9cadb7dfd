"""What people do to their datasets, each as a function on a folder of `small_sources`.

python -m tests.kits.changed_sources FOLDER lerobot_v3    # each changed dataset of that format, below FOLDER
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import pyarrow as pa
import pyarrow.parquet as pq

from tests.kits import lerobot_writer as le
from tests.kits.small_sources import (
    CAMERA,
    FPS,
    LATER,
    OTHERS,
    RECORDINGS,
    TASKS,
    TRIMMED,
    WRIST,
    WRITERS,
    Recording,
    h264,
    record,
    with_lerobot,
    write_v3,
)

# What people do to their datasets: each function changes a folder in place, and with it which recording lies where

WITHDRAWN, JUDGED, LABELLED = 5, 7, 9  # serials of the recordings of which people said something
CAREFULLY = "carefully "  # put before each task: another name of it


@dataclass(frozen=True)
class Change:
    """`fate`: what has to become of words on the three recordings: in force, review, gone. `asks`:
    most runs of the source are elsewhere afterwards, so that a build asks first; None: some are,
    and it may."""

    form: str
    name: str
    apply: Callable[[Path], object]
    fate: str = "in force"
    asks: bool | None = False

    @property
    def id(self) -> str:
        return f"{self.form}: {self.name}"


def edit(root: Path, operation: str, *arguments: str, new_root: bool = True) -> None:
    """`lerobot-edit-dataset` on a folder, the result in its place."""
    from lerobot.scripts.lerobot_edit_dataset import main

    out = root.with_name(f"{root.name}.edited")
    shutil.rmtree(out, ignore_errors=True)
    words = [
        "--repo_id",
        "local/arm",
        "--root",
        str(root),
        f"--operation.type={operation}",
        *arguments,
    ]
    former_argv = sys.argv
    sys.argv = [
        "lerobot-edit-dataset",
        *words,
        *(["--new_repo_id", "local/new", "--new_root", str(out)] * new_root),
    ]
    try:
        main()
    finally:
        sys.argv = former_argv
    if new_root:
        replaced(root, out)


def replaced(root: Path, replacement: Path) -> None:
    """Put one folder in another's place."""
    shutil.rmtree(root)
    replacement.rename(root)


def delete_by_tool(root: Path, episodes: Sequence[int]) -> None:
    edit(root, "delete_episodes", f"--operation.episode_indices={[*episodes]}")


def split_by_tool(root: Path) -> None:
    """The first three go to another dataset; the others take the folder's place."""
    parts = root.with_name(f"{root.name}.parts")
    splits = {"small": [0, 1, 2], "large": list(range(3, len(RECORDINGS)))}
    edit(
        root,
        "split",
        f"--operation.splits={json.dumps(splits)}",
        "--new_root",
        str(parts),
        new_root=False,
    )
    replaced(root, parts / "large")
    shutil.rmtree(parts)


def merge_by_tool(root: Path) -> None:
    """A second dataset goes before this one."""
    other_root = write_v3(root.with_name("other"), OTHERS[:2])
    roots = f"--operation.roots=['{other_root}', '{root}']"
    edit(root, "merge", "--operation.repo_ids=['local/other', 'local/arm']", roots)
    shutil.rmtree(other_root)


def encode_by_tool(root: Path) -> None:
    edit(
        root,
        "reencode_videos",
        "--operation.rgb_encoder.vcodec=h264",
        "--operation.rgb_encoder.crf=27",
    )


def encode_by_hand(root: Path) -> None:
    """Every video anew by PyAV, with less quality and another distance of key pictures."""
    for path in sorted(root.rglob("*.mp4")):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate = round(float(stream.average_rate or FPS))
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        le.write_video(path, pictures, fps=rate, options={"crf": "26", "preset": "fast", "g": "7"})


def rename_tasks_by_tool(root: Path) -> None:
    names = json.dumps({task: CAREFULLY + task for task in TASKS})
    edit(root, "modify_tasks", f"--operation.task_replacements={names}", new_root=False)


def reorder_tasks(root: Path) -> None:
    """The task with index 0 becomes the last one, in the list of tasks and in all rows."""
    import pandas as pd

    tasks = pd.read_parquet(root / "meta/tasks.parquet")
    index = {int(old): (int(old) - 1) % len(tasks) for old in tasks["task_index"]}
    tasks["task_index"] = [index[old] for old in tasks["task_index"].tolist()]
    tasks.sort_values("task_index").to_parquet(root / "meta/tasks.parquet")
    for path in sorted((root / "data").glob("*/*.parquet")):
        table = pq.ParquetFile(path).read()
        task_column = pa.array([index[old] for old in table["task_index"].to_pylist()], pa.int64())
        column_index = table.schema.get_field_index("task_index")
        pq.write_table(
            table.set_column(column_index, table.schema.field(column_index), task_column), path
        )


def correct_texts(root: Path) -> None:
    """One word of each task, where a LeRobot v3.0 dataset has it."""
    import pandas as pd

    words = {task: task.replace("the ", "that ") for task in TASKS}
    pd.read_parquet(root / "meta/tasks.parquet").rename(index=words).to_parquet(
        root / "meta/tasks.parquet"
    )
    for path in sorted((root / "meta/episodes").glob("*/*.parquet")):
        episodes = pd.read_parquet(path)
        episodes["tasks"] = [list(map(words.get, tasks)) for tasks in episodes["tasks"]]
        episodes.to_parquet(path)


def append_by_writer(root: Path) -> None:
    """LeRobot goes on to record."""
    record(with_lerobot().resume("local/arm", root, rgb_encoder=h264()), LATER[:2])


def rename_v3_files(root: Path) -> None:
    """Files of rows and videos have other names, and info.json says so."""
    info = json.loads((root / "meta/info.json").read_text())
    for field, suffix in (("data_path", "parquet"), ("video_path", "mp4")):
        le.edit_info(root, **{field: info[field].replace("file-", "part-")})
        for path in sorted(root.glob(f"*/**/file-*.{suffix}")):
            if "meta" not in path.parts:
                path.rename(path.with_name(path.name.replace("file-", "part-")))


def convert_by_lerobot(root: Path) -> None:
    """v2.1 to v3.0 in place, by LeRobot's own converter."""
    from lerobot.scripts.convert_dataset_v21_to_v30 import convert_dataset

    convert_dataset("local/arm", root=root, push_to_hub=False)
    shutil.rmtree(root.with_name(f"{root.name}_old"))


def move(root: Path) -> None:
    """To another folder: the mark that stands here for it is read where the folder is put in
    place."""
    (root / MOVED).touch()


MOVED = ".moved"


# Which recordings a source has afterwards, for changes that write it anew

INDEX = {recording.serial: k for k, recording in enumerate(RECORDINGS)}


def without(*episodes: int) -> tuple[Recording, ...]:
    return tuple(recording for k, recording in enumerate(RECORDINGS) if k not in episodes)


def trimmed() -> tuple[Recording, ...]:
    """20 frames off three recordings: behind, before, behind."""
    changed = {
        WITHDRAWN: Recording.without_last,
        JUDGED: Recording.without_first,
        LABELLED: Recording.without_last,
    }
    return tuple(changed[r.serial](r, TRIMMED) if r.serial in changed else r for r in RECORDINGS)


def with_replaced() -> tuple[Recording, ...]:
    """Three recordings were made anew, with the same number of frames: the old ones are gone."""
    replacements = {WITHDRAWN: LATER[0], JUDGED: LATER[1], LABELLED: LATER[2]}
    return tuple(
        replace(replacements[r.serial], length=r.length) if r.serial in replacements else r
        for r in RECORDINGS
    )


MOVED_ON = (
    RECORDINGS[-2:] + RECORDINGS[:-2]
)  # each recording has the number of the one two places behind it
SAID_OF = tuple(INDEX[serial] for serial in (WITHDRAWN, JUDGED, LABELLED))


def written(form: str, recordings: Sequence[Recording], **options: Any) -> Callable[[Path], object]:
    return partial(WRITERS[form], recordings=recordings, **options)


def _usual(form: str) -> list[Change]:
    """Delete, append, reorder: by writing the source anew."""
    return [
        Change(form, "delete a run, renumbered", written(form, without(2)), asks=None),
        Change(form, "append runs", written(form, RECORDINGS + LATER[:2])),
        Change(form, "reorder runs", written(form, MOVED_ON), asks=True),
        Change(form, "replace runs", written(form, with_replaced()), "gone"),
    ]


V3 = "lerobot_v3"
V2 = "lerobot_v2"
CHANGES: tuple[Change, ...] = (
    Change(V3, "delete_episodes [2]", partial(delete_by_tool, episodes=(2,)), asks=None),
    Change(V3, "split, the larger part", split_by_tool, asks=True),
    Change(V3, "merge, another dataset first", merge_by_tool, asks=True),
    Change(V3, "reencode_videos", encode_by_tool),
    Change(V3, "encode videos by hand", encode_by_hand),
    Change(V3, "modify_tasks: other names", rename_tasks_by_tool),
    Change(V3, "reorder tasks", reorder_tasks),
    Change(V3, "correct a word of each text", correct_texts),
    Change(V3, "append runs", append_by_writer),
    Change(V3, "replace runs", written(V3, with_replaced()), "gone"),
    Change(V3, "reorder runs", written(V3, MOVED_ON), asks=True),
    Change(V3, "rename files", rename_v3_files),
    Change(V3, "move the folder", move),
    Change(V3, "add a camera", written(V3, RECORDINGS, cameras=(CAMERA, WRIST))),
    Change(V3, "correct the rate", written(V3, RECORDINGS, fps=2 * FPS)),
    Change(V3, "trim 20 rows", written(V3, trimmed()), "review"),
    Change(
        V3,
        "delete the runs people spoke of",
        partial(delete_by_tool, episodes=SAID_OF),
        "gone",
        asks=None,
    ),
    Change(V2, "convert v2.1 to v3.0", convert_by_lerobot),
    *_usual(V2),
    Change(V2, "add a camera", written(V2, RECORDINGS, cameras=(CAMERA, WRIST))),
    Change(V2, "correct the rate", written(V2, RECORDINGS, fps=2 * FPS)),
    Change(V2, "trim 20 rows", written(V2, trimmed()), "review"),
    *_usual("hdf5"),
    Change("hdf5", "rename files", written("hdf5", RECORDINGS, name="take"), asks=True),
    *_usual("rlds"),
    Change("rlds", "rename files", written("rlds", RECORDINGS, name="kitchen"), asks=True),
    *_usual("videos"),
    Change("videos", "rename files", written("videos", RECORDINGS, name="clip"), asks=True),
    Change("videos", "encode videos by hand", encode_by_hand, "review", asks=True),
    Change("videos", "trim 20 frames", written("videos", trimmed()), "review"),
)
# Their changes are made by LeRobot, whose import alone takes many seconds
BY_LEROBOT = {V3, f"{V2}: convert v2.1 to v3.0"}


def folder_of(change: Change) -> str:
    return re.sub(r"\W+", "_", change.id)


def is_by_lerobot(change: Change) -> bool:
    return change.form in BY_LEROBOT or change.id in BY_LEROBOT


def make(folder: Path, changes: Sequence[Change]) -> None:
    """The sources of these changes: `base/<format>` as it was first, `<change>/arm` afterwards."""
    for form in dict.fromkeys(change.form for change in changes):
        if not (folder / "base" / form).exists():
            WRITERS[form](folder / "base" / form, RECORDINGS)
    for change in changes:
        root = folder / folder_of(change) / "arm"
        shutil.copytree(folder / "base" / change.form, root)
        change.apply(root)


def make_in_a_process(folder: Path, changes: Sequence[Change]) -> None:
    """The same in a process of its own, for LeRobot sets up logging and reads settings anew.

    Raises RuntimeError with its last lines when it fails.
    """
    words = [sys.executable, "-m", __name__, str(folder), *(change.id for change in changes)]
    process = subprocess.run(
        words, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
    )
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)}:\n{process.stderr[-3000:]}")


if __name__ == "__main__":
    make(
        Path(sys.argv[1]),
        [change for change in CHANGES if {change.id, change.form} & {*sys.argv[2:]}],
    )
