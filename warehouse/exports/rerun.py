"""Rerun: a recording per episode: cameras, segments and progress curves of every label run, and the gripper.

All stands on the timelines `frame` and `time` (frame / fps). Entities:

    /task                            the instruction
    /cameras/<camera>                JPEG pictures
    /segments/<run>                  a text log entry where a segment begins
    /progress/<run>/ours             progress per frame, by this project's formula
    /progress/<run>/procvlm          the same segments by the published one
    /gripper                         opening, 0 to 1
    /visual_change/<camera>          mean difference of luma to the frame before

<run> is <annotator>-<label run>. What is known of the episode as a whole are the recording's properties.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from ingest.episode import EpisodeRecord, RowsError
from ingest.media.video import VideoError
from ingest.source import read_episode
from ingest.sources.files import Source
from warehouse.exports import rrd
from warehouse.exports.common import (
    Exported,
    ExportEpisode,
    ExportError,
    ExportFolder,
    Selected,
    Selection,
    join_folder,
    label_runs,
    open_folder,
    open_source,
    records,
    select,
)
from warehouse.lake import Lake

KIND = "rerun"
APPLICATION = "proccorpus"
BATCH_BYTES = 4 << 20  # of pictures in a chunk


@dataclass(frozen=True)
class RerunOptions:
    """`pictures_per_s`: so many at most, evenly over the run, always with the last frame; None: all; 0: none.

    `max_px`: pictures with a longer side are made smaller.
    """

    pictures_per_s: float | None = None
    max_px: int = 640
    quality: int = 85


def export(lake: Lake, selection: Selection, out: Path, options: RerunOptions, *, overwrite: bool = False) -> Exported:
    """Write `<dataset>/<episode>.rrd`; reads the sources again. Raises ExportError, SourceError, DownloadError.

    Equal episodes give equal bytes, whichever run writes them.

    In memory: a batch of pictures, and one episode's labels.
    """
    _check(options)
    selected = select(lake, selection)
    folder = open_folder(out, KIND, selected.identity(KIND, options), overwrite)
    if folder.manifest:
        return folder.exported()
    for dataset, chunk, episodes in selected.chunks():
        _write(folder, selected, dataset, chunk, episodes, options)
    return folder.finish(selected, options, {"label_runs": _runs(selected)})


def begin(lake: Lake, selection: Selection, out: Path, options: RerunOptions, overwrite: bool) -> list[tuple[str, int]]:
    """Prepare the folder; returns the chunks (dataset, chunk) that `export_chunk` may write, in any order."""
    _check(options)
    selected = select(lake, selection)
    open_folder(out, KIND, selected.identity(KIND, options), overwrite)
    return [(dataset, chunk) for dataset, chunk, _ in selected.chunks()]


def export_chunk(lake: Lake, selection: Selection, out: Path, options: RerunOptions, chunk: tuple[str, int]) -> int:
    """Write one chunk's recordings, beside processes that write others; returns how many were missing."""
    selected = select(lake, selection)
    folder = join_folder(out, KIND, selected.identity(KIND, options))
    if folder.manifest:
        return 0
    return sum(
        _write(folder, selected, d, k, episodes, options) for d, k, episodes in selected.chunks() if (d, k) == chunk
    )


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
    source = None if options.pictures_per_s == 0 else open_source(selected, dataset)
    found = records(selected, dataset, chunk)
    for e in todo:
        rows = write_recording(folder.path(_name(e)), selected, e, source, found[e.episode_index], options)
        folder.finish_part(_name(e), [_name(e)], {"rows": rows})
    return len(todo)


def _name(e: ExportEpisode) -> str:
    return f"{e.dataset}/{e.episode_index:06d}.rrd"


def _check(options: RerunOptions) -> None:
    if options.pictures_per_s is not None and options.pictures_per_s < 0:
        raise ExportError(f"{options.pictures_per_s} pictures a second: give 0 or more, or leave it out for all")
    if not (1 <= options.quality <= 100 and options.max_px >= 16):
        raise ExportError("pictures need a quality from 1 to 100 and at least 16 px")


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
    return rrd.write(path, APPLICATION, f"{episode.dataset}-{episode.episode_index:06d}", chain.from_iterable(chunks))


# What is in it


def _labels(selected: Selected, e: ExportEpisode) -> Iterator[Any]:
    import rerun as rr
    from rerun.chunk import Chunk

    lake, key = selected.lake, [e.dataset, e.chunk, e.episode_index]
    where = "WHERE dataset = ? AND chunk = ? AND episode_index = ?"
    known = {
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
    yield Chunk.from_property("episode", rr.AnyValues(**known))
    yield Chunk.from_columns("/task", [], rr.TextDocument.columns(text=[e.task or "no instruction is known"]))
    names = _run_names(selected, e)
    for run, name in names.items():
        rows = lake.rows(
            "SELECT start_frame, name, kind, completed, step, num_planned FROM segments "
            f"{where} AND label_run = ? ORDER BY segment_index",
            [*key, run],
        )
        texts = [_text(*r[1:]) for r in rows]
        if rows:
            columns = rr.TextLog.columns(text=texts, level=["INFO"] * len(texts))
            yield Chunk.from_columns(f"/segments/{name}", _times(e, [r[0] for r in rows]), columns)
        curves = lake.arrow(
            f"SELECT frame_index, progress, progress_procvlm FROM progress {where} AND label_run = ? ORDER BY 1",
            [*key, run],
        )
        for formula, column in (("ours", "progress"), ("procvlm", "progress_procvlm")):
            yield from _curve(f"/progress/{name}/{formula}", e, curves, column)
    for k, camera in enumerate(e.cameras):
        measured = lake.arrow(
            f"SELECT frame_index, gripper, visual_change FROM frames {where} AND camera = ? ORDER BY 1", [*key, camera]
        )
        if k == 0:  # the same by every camera
            yield from _curve("/gripper", e, measured, "gripper")
        yield from _curve(f"/visual_change/{_part(camera)}", e, measured, "visual_change")


def _run_names(selected: Selected, e: ExportEpisode) -> dict[str, str]:
    """Every label run of an episode, and what its entities are called."""
    rows = selected.lake.rows(
        "SELECT DISTINCT p.label_run, coalesce(r.annotator, 'unknown') FROM progress p LEFT JOIN label_runs r "
        "USING (label_run) WHERE p.dataset = ? AND p.chunk = ? AND p.episode_index = ? ORDER BY 1",
        [e.dataset, e.chunk, e.episode_index],
    )
    return {run: _part(f"{annotator}-{run}") for run, annotator in rows}


def _runs(selected: Selected) -> list[dict[str, Any]]:
    """What the manifest says of label runs: all of them are in the recordings, not only those that count."""
    episodes = {e.key for e in selected.episodes}
    rows = selected.lake.rows("SELECT DISTINCT dataset, episode_index, label_run FROM progress")
    return label_runs(selected.lake, sorted({run for d, i, run in rows if (d, i) in episodes}))


def _part(text: str) -> str:
    import rerun as rr

    return rr.escape_entity_path_part(text)


def _text(name: str, kind: str, completed: bool, step: int | None, num_planned: int | None) -> str:
    if kind != "step" or step is None:
        return f"{name} ({kind})" if name != kind else kind
    end = "completed" if completed else "not completed"
    return f"{name} (step {step + 1} of {num_planned}, {end})"


def _times(e: ExportEpisode, frames: Iterable[int]) -> list[Any]:
    import rerun as rr

    numbers = np.asarray(list(frames), np.int64)
    return [rr.TimeColumn("frame", sequence=numbers), rr.TimeColumn("time", duration=numbers / e.fps)]


def _curve(path: str, e: ExportEpisode, rows: pa.Table, column: str) -> Iterator[Any]:
    """One value per frame that has one; nothing where no frame has."""
    import rerun as rr
    from rerun.chunk import Chunk

    known = rows.filter(rows[column].is_valid())
    if known.num_rows:
        values = rr.Scalars.columns(scalars=known[column].to_numpy().astype(np.float64))
        yield Chunk.from_columns(path, _times(e, known["frame_index"].to_pylist()), values)


def _camera(
    source: Source, record: EpisodeRecord, e: ExportEpisode, camera: str, options: RerunOptions
) -> Iterator[Any]:
    import rerun as rr
    from rerun.chunk import Chunk

    def chunk() -> Any:
        columns = rr.EncodedImage.columns(blob=held, media_type=["image/jpeg"] * len(held))
        return Chunk.from_columns(f"/cameras/{_part(camera)}", _times(e, frames), columns)

    held: list[bytes] = []
    frames: list[int] = []
    last, shown = -1, _shown(e, options)
    try:
        for k, _, picture in read_episode(source, record).frames(camera):
            last = k
            if k in shown:
                held.append(_jpeg(picture.rgb(), options))
                frames.append(k)
            if sum(map(len, held)) >= BATCH_BYTES:
                yield chunk()
                held, frames = [], []
    except (VideoError, RowsError) as error:
        raise ExportError(
            f"{e.dataset} episode {e.episode_index}, {camera}: its source cannot be read as when it was built ({error})"
        ) from error
    if last + 1 != e.num_frames:
        raise ExportError(
            f"{e.dataset} episode {e.episode_index}, {camera}: its source gives {last + 1} frames now and gave "
            f"{e.num_frames} when it was built: build the dataset again"
        )
    if held:
        yield chunk()


def _shown(e: ExportEpisode, options: RerunOptions) -> set[int]:
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
