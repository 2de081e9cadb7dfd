"""Rerun: a recording per episode: cameras, segments and progress curves of every label run, and grippers.

Everything stands on the timelines `frame` and `time` (frame / fps). Entities:

    /task                            the instruction
    /cameras/<camera>                JPEG pictures
    /segments/<run>                  a text log entry where a segment begins
    /progress/<run>/ours             progress per frame, by this project's formula
    /progress/<run>/procvlm          the same segments by the published one
    /gripper                         opening, 0 to 1; of several /gripper/<arm> each
    /visual_change/<camera>          mean difference of luma to the frame before

<run> is <annotator>-<label run>. The recording's properties have the facts of the episode as a whole.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from annotate.segments import STEP, Segment
from ingest.episode import EpisodeRecord, RowsError
from ingest.media.video import VideoError
from ingest.source import read_episode
from ingest.sources.files import Source
from warehouse.exports.common import (
    Exported,
    ExportEpisode,
    ExportError,
    ExportFolder,
    Selected,
    join_folder,
    label_runs,
    open_folder,
    open_source,
    records,
    select,
)
from warehouse.exports.options import RerunOptions, Selection
from warehouse.lake import Lake
from warehouse.lake.labels import StoredLabel, labels_of_episode
from warehouse.lake.signals import gripper_openings

KIND = "rerun"
APPLICATION = "proccorpus"
BATCH_BYTES = 4 << 20  # of pictures in a chunk
OF_EPISODE = "WHERE dataset = ? AND chunk = ? AND episode_index = ?"


def export(lake: Lake, selection: Selection, out: Path, options: RerunOptions, *, overwrite: bool = False) -> Exported:
    """Write `<dataset>/<episode>.rrd`; reads the sources again. Raises ExportError, SourceError, DownloadError.

    Equal episodes give equal rows; Rerun writes times and ids of its own beside them.

    In memory: a batch of pictures, and one episode's labels.
    """
    selected = select(lake, selection)
    folder = open_folder(out, KIND, selected.identity(KIND, options), overwrite)
    if folder.manifest:
        return folder.exported()
    for dataset, chunk, episodes in selected.chunks():
        _write(folder, selected, dataset, chunk, episodes, options)
    return folder.finish(selected, options, {"label_runs": _runs(selected)})


def begin(lake: Lake, selection: Selection, out: Path, options: RerunOptions, overwrite: bool) -> list[tuple[str, int]]:
    """Prepare the folder; returns the chunks (dataset, chunk) that `export_chunk` may write, in any order."""
    selected = select(lake, selection)
    open_folder(out, KIND, selected.identity(KIND, options), overwrite)
    return [(dataset, chunk) for dataset, chunk, _ in selected.chunks()]


def export_chunk(lake: Lake, selection: Selection, out: Path, options: RerunOptions, chunk: tuple[str, int]) -> int:
    """Write one chunk's recordings, beside processes that write others; returns how many were missing."""
    selected = select(lake, selection)
    folder = join_folder(out, KIND, selected.identity(KIND, options))
    if folder.manifest:
        return 0
    episodes = {(dataset, number): episodes for dataset, number, episodes in selected.chunks()}
    return _write(folder, selected, *chunk, episodes.get(chunk, []), options)


def _write(
    folder: ExportFolder,
    selected: Selected,
    dataset: str,
    chunk: int,
    episodes: list[ExportEpisode],
    options: RerunOptions,
) -> int:
    """Write the recordings of a chunk that are not there yet; returns how many those were."""
    todo = [e for e in episodes if folder.done(_name(e)) is None]
    if not todo:
        return 0
    # Labels alone need no source, so it may be out of reach
    source = None if options.pictures_per_s == 0 else open_source(selected, dataset)
    record_by_episode = records(selected, dataset, chunk)
    for e in todo:
        record = record_by_episode[e.episode_index]
        rows = write_recording(folder.path(_name(e)), selected, e, source, record, options)
        folder.finish_part(_name(e), [_name(e)], {"rows": rows})
    return len(todo)


def _name(e: ExportEpisode) -> str:
    return f"{e.dataset}/{e.episode_index:06d}.rrd"


def write_recording(
    path: Path,
    selected: Selected,
    episode: ExportEpisode,
    source: Source | None,
    record: EpisodeRecord,
    options: RerunOptions,
) -> dict[str, int]:
    """Write one recording; returns how many rows each entity has. Raises ExportError."""
    chunks = [_labels(selected, episode)]
    if source is not None:
        chunks += [_camera(source, record, episode, camera, options) for camera in episode.cameras]
    import rerun as rr

    name = f"{episode.dataset}-{episode.episode_index:06d}"
    recording = rr.RecordingStream(APPLICATION, recording_id=name, send_properties=False)
    recording.save(path)
    rows: dict[str, int] = {}
    # Let go one by one: pictures of a whole episode would fill the memory
    for chunk in chain.from_iterable(chunks):
        rows[chunk.entity_path] = rows.get(chunk.entity_path, 0) + chunk.num_rows
        recording.send_chunks([chunk])
        recording.flush()
    recording.disconnect()
    with path.open("rb") as f:
        os.fsync(f.fileno())
    return rows


# What is in it


def _labels(selected: Selected, e: ExportEpisode) -> Iterator[Any]:
    """Everything but pictures, as Rerun's chunks."""
    import rerun as rr
    from rerun.chunk import Chunk

    properties = {
        "dataset": e.dataset,
        "episode_index": e.episode_index,
        "source_id": e.source_id,
        "split": e.split or "",
        "success": "unknown" if e.success is None else str(e.success).lower(),
        "fps": e.fps,
        "label_run": e.label_run or "none",
        "license": selected.licences.get(e.dataset) or "none is stated",
        "release": selected.selection.release or "",
    }
    yield Chunk.from_property("episode", rr.AnyValues(**properties))
    yield Chunk.from_columns("/task", [], rr.TextDocument.columns(text=[e.task or "no instruction is known"]))
    labels = labels_of_episode(selected.lake.con, *_place(e))
    # Each label run has a track of its own, so that they can be compared on one time line
    for run, name in _run_names(selected, e).items():
        if run in labels:
            yield _segments(f"/segments/{name}", e, labels[run])
        yield from _progress(selected, e, run, name)
    yield from _grippers(selected, e)
    for camera in e.cameras:
        yield from _measured(selected, e, camera)


def _place(e: ExportEpisode) -> tuple[str, int, int]:
    """What the rows of an episode are found by: (dataset, chunk, episode_index)."""
    return e.dataset, e.chunk, e.episode_index


def _segments(path: str, e: ExportEpisode, label: StoredLabel) -> Any:
    """A text log entry where each segment begins."""
    import rerun as rr
    from rerun.chunk import Chunk

    texts = [_text(segment, label.num_planned) for segment in label.segments]
    columns = rr.TextLog.columns(text=texts, level=["INFO"] * len(texts))
    return Chunk.from_columns(path, _times(e, [segment.start_frame for segment in label.segments]), columns)


def _progress(selected: Selected, e: ExportEpisode, run: str, name: str) -> Iterator[Any]:
    """Progress by one label run, by both formulas."""
    curves = selected.lake.arrow(
        f"SELECT frame_index, progress, progress_procvlm FROM progress {OF_EPISODE} AND label_run = ? ORDER BY 1",
        [*_place(e), run],
    )
    yield from _curve(f"/progress/{name}/ours", e, curves, "progress")
    yield from _curve(f"/progress/{name}/procvlm", e, curves, "progress_procvlm")


def _grippers(selected: Selected, e: ExportEpisode) -> Iterator[Any]:
    """How open each gripper or hand is, by arm."""
    grippers = gripper_openings(selected.lake.con, *_place(e))
    for number, gripper in enumerate(grippers):
        arm = gripper.signal.arm if gripper.signal else ""
        # The only one of a robot has no arm's name; of others that have none either, a number tells them apart
        part = _part(arm or str(number))
        path = "/gripper" if not arm and len(grippers) == 1 else f"/gripper/{part}"
        rows = pa.table({"frame_index": np.arange(len(gripper.opening)), "opening": gripper.opening})
        yield from _curve(path, e, rows, "opening")


def _measured(selected: Selected, e: ExportEpisode, camera: str) -> Iterator[Any]:
    """What was measured of one camera's frames."""
    measured = selected.lake.arrow(
        f"SELECT frame_index, visual_change FROM frames {OF_EPISODE} AND camera = ? ORDER BY 1", [*_place(e), camera]
    )
    yield from _curve(f"/visual_change/{_part(camera)}", e, measured, "visual_change")


def _run_names(selected: Selected, e: ExportEpisode) -> dict[str, str]:
    """Every label run of an episode, and what its entities are called."""
    rows = selected.lake.rows(
        "SELECT DISTINCT p.label_run, coalesce(r.annotator, 'unknown') FROM progress p LEFT JOIN label_runs r "
        "USING (label_run) WHERE p.dataset = ? AND p.chunk = ? AND p.episode_index = ? ORDER BY 1",
        list(_place(e)),
    )
    return {run: _part(f"{annotator}-{run}") for run, annotator in rows}


def _runs(selected: Selected) -> list[dict[str, Any]]:
    """What the manifest says of label runs: all of them are in the recordings, not only those that count."""
    episodes = {e.key for e in selected.episodes}
    rows = selected.lake.rows("SELECT DISTINCT dataset, episode_index, label_run FROM progress")
    runs = {run for dataset, episode, run in rows if (dataset, episode) in episodes}
    return label_runs(selected.lake, sorted(runs))


def _part(text: str) -> str:
    import rerun as rr

    return rr.escape_entity_path_part(text)


def _text(segment: Segment, num_planned: int) -> str:
    """A segment in words, such as "pick the cup (step 1 of 3, completed)" or "unnamed (step 2 of 3, completed)"."""
    if segment.kind != STEP or segment.step is None:
        return f"{segment.name} ({segment.kind})" if segment.name != segment.kind else segment.kind
    end = "completed" if segment.completed else "not completed"
    name = segment.name if segment.named else "unnamed"
    return f"{name} (step {segment.step + 1} of {num_planned}, {end})"


def _times(e: ExportEpisode, frames: Iterable[int]) -> list[Any]:
    import rerun as rr

    numbers = np.asarray(list(frames), np.int64)
    return [rr.TimeColumn("frame", sequence=numbers), rr.TimeColumn("time", duration=numbers / e.fps)]


def _curve(path: str, e: ExportEpisode, rows: pa.Table, column: str) -> Iterator[Any]:
    """One value per frame that has one; nothing where no frame has."""
    import rerun as rr
    from rerun.chunk import Chunk

    with_value = rows.filter(rows[column].is_valid())
    if with_value.num_rows:
        values = rr.Scalars.columns(scalars=with_value[column].to_numpy().astype(np.float64))
        yield Chunk.from_columns(path, _times(e, with_value["frame_index"].to_pylist()), values)


def _camera(
    source: Source, record: EpisodeRecord, e: ExportEpisode, camera: str, options: RerunOptions
) -> Iterator[Any]:
    """The shown frames of a camera, a chunk for each batch of them. Raises ExportError for another source than then."""
    jpegs: list[bytes] = []
    frames: list[int] = []
    num_frames, to_show = 0, _frames_to_show(e, options)
    try:
        for k, _, picture in read_episode(source, record).frames(camera):
            num_frames = k + 1
            if k in to_show:
                jpegs.append(_jpeg(picture.rgb(), options))
                frames.append(k)
            # Batches keep an episode of thousands of pictures from standing in memory whole
            if sum(map(len, jpegs)) >= BATCH_BYTES:
                yield _pictures(camera, e, frames, jpegs)
                jpegs, frames = [], []
    except (VideoError, RowsError) as error:
        raise ExportError(
            f"{e.dataset} episode {e.episode_index}, {camera}: its source cannot be read as when it was built ({error})"
        ) from error
    # Labels are by frame: pictures of a source that has changed would stand beside the wrong ones
    if num_frames != e.num_frames:
        raise ExportError(
            f"{e.dataset} episode {e.episode_index}, {camera}: its source gives {num_frames} frames now and gave "
            f"{e.num_frames} when it was built: build the dataset again"
        )
    if jpegs:
        yield _pictures(camera, e, frames, jpegs)


def _pictures(camera: str, e: ExportEpisode, frames: Sequence[int], jpegs: Sequence[bytes]) -> Any:
    import rerun as rr
    from rerun.chunk import Chunk

    columns = rr.EncodedImage.columns(blob=jpegs, media_type=["image/jpeg"] * len(jpegs))
    return Chunk.from_columns(f"/cameras/{_part(camera)}", _times(e, frames), columns)


def _frames_to_show(e: ExportEpisode, options: RerunOptions) -> set[int]:
    """The frames to show: evenly over the run, and the last one."""
    if options.pictures_per_s is None or options.pictures_per_s >= e.fps:
        return set(range(e.num_frames))
    step = e.fps / options.pictures_per_s
    return {int(k * step) for k in range(int(e.num_frames / step) + 1)} | {e.num_frames - 1}


def _jpeg(rgb: np.ndarray, options: RerunOptions) -> bytes:
    longer = max(rgb.shape[:2])
    if longer > options.max_px:
        scale = options.max_px / longer
        rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, options.quality])
    if not ok:
        raise ExportError(f"a picture of {rgb.shape[1]}x{rgb.shape[0]} px cannot be written as JPEG")
    return data.tobytes()
