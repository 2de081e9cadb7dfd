"""Robo-Dopamine's forms (FlagOpen/Robo-Dopamine @bd69c78f, dataset/): raw runs with their steps, and pairs of states.

    raw_data/<dataset>/task_000/task_instruction.json
    raw_data/<dataset>/task_000/episode_000003/    cam_high.mp4, ..., annotated_keyframes.json
    train_data/<dataset>_000003/<camera>/frame_000012.jpg
    train_data/train_jsons/<split>.json    pairs: {id, image, task, conversations}

A pair shows a state before and one after, by every camera, beside where the task begins and where it is done; its score
is what was gained of what was left, or lost of what was there, in percent. Its wording is ours. Ends of spans are the
frames after them, as in the published example.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, permutations, zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from core.files import write_file
from warehouse.exports.common import Exported, ExportEpisode, ExportFolder, Selected, open_folder
from warehouse.exports.episode_videos import write_episode_video
from warehouse.exports.labels import ActiveLabel, each_label, left_out_notes, no_labels, select_for_labels
from warehouse.exports.lerobot_features import SourceReader, open_reader
from warehouse.exports.options import RoboDopamineOptions, Selection
from warehouse.lake import Lake

KIND = "robo-dopamine"
HIGH, LEFT, RIGHT = "cam_high", "cam_left_wrist", "cam_right_wrist"
VIEWS = {HIGH: "front", LEFT: "left wrist", RIGHT: "right wrist"}
MOMENTS = 24  # of a run, that pairs are made of
BINS = 25  # of scores, from which pairs are taken in turn
QUALITY = 90
NO_SPLIT = "train"
QUESTION = """How much nearer to its goal is a robot after a while?
The task: {task}
Where such a task begins: <image>
Where it is done: <image>
Before, by camera:
{before}
After, by camera:
{after}
Answer with <score>, a percentage with its sign, and </score>: of what was left before, how much was gained; or, where
it is farther from the goal, of what was there before, how much was lost; 0.0% where nothing has changed."""


@dataclass(frozen=True)
class _Run:
    """A labelled run; `end`: (its folder's name, its frame) of where its task is done; None: no run shows it."""

    episode: ExportEpisode
    label: ActiveLabel
    folder: str
    end: tuple[str, int] | None


def export(
    lake: Lake,
    selection: Selection,
    out: Path,
    options: RoboDopamineOptions = RoboDopamineOptions(),
    *,
    overwrite: bool = False,
) -> Exported:
    """Write the labelled episodes; an export that broke off goes on. Raises ExportError, SourceError and what `select`
    raises. One chunk's labels, and one run's pictures of its pairs, are in memory at a time."""
    selected = select_for_labels(lake, selection, options.label_run)
    folder = open_folder(out, KIND, selected.identity(KIND, options), overwrite)
    if folder.manifest is not None:
        return folder.exported()
    readers = {dataset: open_reader(selected, dataset) for dataset in selected.datasets}
    done_at = _ends(selected.episodes, _labelled(selected, options.label_run))
    tasks = _task_folders(selected.episodes)
    pairs: dict[str, list[dict[str, Any]]] = {}
    labelled = without_end = 0
    for e, label in each_label(selected, options.label_run):
        if label is None:
            continue
        labelled += 1
        run = _Run(e, label, _name(e), done_at.get((*_task(e), e.split)))
        without_end += run.end is None
        part = f"{e.dataset} {e.episode_index}"
        facts = folder.done(part)
        if facts is None:
            facts = _write(folder, readers[e.dataset], run, tasks[_task(e)], options)
        pairs.setdefault(e.split or NO_SPLIT, []).extend(facts["pairs"])
    if not labelled:
        raise no_labels(selected)
    _write_texts(folder, tasks, pairs)
    notes = left_out_notes(selected, options.label_run, labelled=labelled)
    notes += (
        [f"{without_end} runs have no pairs: no run of their task in their split is known to have succeeded"]
        if without_end
        else []
    )
    counts = {split: len(of_split) for split, of_split in pairs.items()}
    return folder.finish(selected, options, {"samples": sum(counts.values()), "pairs": counts, "notes": notes})


def _name(e: ExportEpisode) -> str:
    return f"{e.dataset}_{e.episode_index:06d}"


def _task(e: ExportEpisode) -> tuple[str, str]:
    return e.dataset, e.task or ""


def _task_folders(episodes: Iterable[ExportEpisode]) -> dict[tuple[str, str], str]:
    """The folder of each dataset's tasks, which are numbered in the order of their first episodes."""
    numbers: dict[str, int] = defaultdict(int)
    folders: dict[tuple[str, str], str] = {}
    for e in episodes:
        if _task(e) not in folders:
            folders[_task(e)] = f"raw_data/{e.dataset}/task_{numbers[e.dataset]:03d}"
            numbers[e.dataset] += 1
    return folders


def _labelled(selected: Selected, label_run: str | None) -> set[tuple[str, int]]:
    """The episodes that will be written: those with a label."""
    if label_run is None:
        return {e.key for e in selected.episodes if e.label_run is not None}
    return set(selected.lake.rows("SELECT dataset, episode_index FROM episode_labels WHERE label_run = ?", [label_run]))


def _ends(
    episodes: Iterable[ExportEpisode], labelled: set[tuple[str, int]]
) -> dict[tuple[str, str, str | None], tuple[str, int]]:
    """Of each task in each split, the last frame of the first run that is known to have succeeded."""
    found: dict[tuple[str, str, str | None], tuple[str, int]] = {}
    for e in episodes:
        if e.success and e.key in labelled:
            found.setdefault((*_task(e), e.split), (_name(e), e.num_frames - 1))
    return found


def camera_names(cameras: Sequence[str]) -> dict[str, str]:
    """Robo-Dopamine's names: the first camera is the high one; of the others, wrists are left and right.

    Example: camera_names(["front", "wrist"]) is {"front": "cam_high", "wrist": "cam_left_wrist"}.
    """
    names = {cameras[0]: HIGH}
    for camera in cameras[1:]:
        plain = camera.split(".")[-1].replace("/", "_")
        side = RIGHT if "right" in plain.lower() else LEFT
        is_wrist = any(word in plain.lower() for word in ("left", "right", "wrist", "hand"))
        names[camera] = side if is_wrist and side not in names.values() else plain
    return names


def keyframes(label: ActiveLabel) -> list[dict[str, Any]]:
    """The spans of steps, as annotated_keyframes.json has them, spelt as there."""
    steps = [s for s in label.segments if s.step is not None]
    return [{"anotation": s.name, "start_frame_id": s.start_frame, "end_frame_id": s.end_frame} for s in steps]


def _write(
    folder: ExportFolder, reader: SourceReader, run: _Run, task_folder: str, options: RoboDopamineOptions
) -> dict[str, Any]:
    """A run's videos, its spans and the pictures of its pairs; returns the facts of its part."""
    e = run.episode
    raw = f"{task_folder}/episode_{e.episode_index:06d}"
    names = camera_names(e.cameras)
    files = [f"{raw}/annotated_keyframes.json"]
    write_file(folder.path(files[0]), (json.dumps(keyframes(run.label), indent=4, ensure_ascii=False) + "\n").encode())
    for camera, name in names.items():
        files.append(f"{raw}/{name}.mp4")
        write_episode_video(reader, camera, e, folder.path(files[-1]))
    views = {camera: name for camera, name in names.items() if name in VIEWS}
    chosen = _pairs(run.label.progress, options) if run.end is not None else []
    # Other runs of the task may show where it is done by this one
    shown = {0, e.num_frames - 1, *(frame for pair in chosen for frame in pair)}
    for camera, name in views.items():
        files += _pictures(folder, reader, run, camera, name, shown)
    items = [_item(run, tuple(views.values()), before, after) for before, after in chosen]
    folder.finish_part(f"{e.dataset} {e.episode_index}", files, {"pairs": items})
    return {"pairs": items}


def _pictures(
    folder: ExportFolder, reader: SourceReader, run: _Run, camera: str, name: str, shown: set[int]
) -> list[str]:
    files = []
    frames = reader.episode(run.episode).frames(camera)
    for number, (_, _, picture) in enumerate(islice(frames, run.episode.num_frames)):
        if number in shown:
            files.append(f"{_picture(run.folder, name, number)}")
            options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
            _, jpeg = cv2.imencode(".jpg", picture.rgb()[..., ::-1], options)
            folder.path(files[-1]).write_bytes(jpeg.tobytes())
    return files


def _picture(folder: str, camera: str, frame: int) -> str:
    return f"train_data/{folder}/{camera}/frame_{frame:06d}.jpg"


def score(before: float, after: float) -> float:
    """Percent: gained of what was left, or lost of what was there.

    Examples: score(0.5, 0.75) == 50; score(0.5, 0.25) == -50.
    """
    whole = 1 - before if after > before else before
    if after == before or whole <= 0:
        return 0.0
    return max(-100.0, min(100.0, 100 * (after - before) / whole))  # but for rounding it is never more


def _pairs(progress: np.ndarray, options: RoboDopamineOptions) -> list[tuple[int, int]]:
    """Ordered pairs of frames, taken in turn from bins of their scores, so that no score is common."""
    moments = np.unique(np.linspace(0, len(progress) - 1, MOMENTS).round().astype(int)).tolist()
    bins: list[list[tuple[int, int]]] = [[] for _ in range(BINS)]
    for before, after in permutations(moments, 2):
        percent = score(float(progress[before]), float(progress[after]))
        bins[min(BINS - 1, int((percent + 100) / 200 * BINS))].append((before, after))
    rng = np.random.default_rng(options.seed)
    shuffled = [[of_bin[k] for k in rng.permutation(len(of_bin))] for of_bin in bins]
    in_turn = [pair for row in zip_longest(*shuffled) for pair in row if pair is not None]
    return in_turn[: options.per_run]


def _item(run: _Run, views: Sequence[str], before: int, after: int) -> dict[str, Any]:
    e = run.episode
    assert run.end is not None
    percent = score(float(run.label.progress[before]), float(run.label.progress[after]))
    pictures = [_picture(run.folder, HIGH, 0), _picture(run.end[0], HIGH, run.end[1])]
    pictures += [_picture(run.folder, view, frame) for frame in (before, after) for view in views]
    marks = "\n".join(f"{VIEWS[view]}: <image>" for view in views)
    question = QUESTION.format(task=e.task or "", before=marks, after=marks)
    return {
        "id": f"{run.folder}-bf_{before:06d}-af_{after:06d}",
        "image": pictures,
        "task": e.task or "",
        "conversations": [
            {"from": "human", "value": question},
            {"from": "gpt", "value": f"<score>{percent:+.1f}%</score>"},
        ],
    }


def _write_texts(
    folder: ExportFolder, tasks: Mapping[tuple[str, str], str], pairs: Mapping[str, list[dict[str, Any]]]
) -> None:
    """The instruction of each task that has a run, and the pairs of each split."""
    files = {}
    for (_, text), place in tasks.items():
        if (folder.root / place).is_dir():
            files[f"{place}/task_instruction.json"] = [text] if text else []
    files |= {f"train_data/train_jsons/{split}.json": of_split for split, of_split in pairs.items()}
    for name, content in files.items():
        write_file(folder.path(name), (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
    folder.finish_part("texts", list(files))
