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

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import rerun as rr
from rerun.chunk import Chunk

from annotate.pictures import encode_jpeg
from core.domain.label import STEP, Episode, Segment
from core.errors import UserError
from core.files import sync
from ingest.episode import VideoError
from ingest.reasons import DataError
from warehouse.exports.export import ChunkKey, Export, Write
from warehouse.exports.selection import ExportedEpisode, Selected, counted_pictures, label_runs
from warehouse.lake import Lake
from warehouse.lake.stored import gripper_openings, labels_of_chunk

BATCH_BYTES = 4 << 20  # of pictures in a chunk
OF_EPISODE = "dataset = ? AND chunk = ? AND episode_index = ?"


class RerunExport(Export):
    """Recordings `<dataset>/<episode>.rrd`; reads the sources again. Equal episodes give equal rows; Rerun writes times
    and ids of its own beside them. In memory: a batch of pictures, and one episode's labels."""

    only_labelled = True

    def chunk_parts(self) -> Iterator[tuple[ChunkKey, str, Write, Any]]:
        for e in self.selected.episodes:
            yield (e.dataset, e.chunk), f"{e.dataset} {e.episode_index}", self._write, e

    def _write(self, e: Episode) -> None:
        path = self.folder.path(f"{e.dataset}/{e.episode_index:06d}.rrd")
        write_recording(path, self.selected, e, self.options)

    def write_rest(self) -> Mapping[str, Any]:
        """All label runs are in the recordings, not only those that count."""
        runs = self.lake.column(
            "SELECT DISTINCT label_run FROM progress SEMI JOIN selected USING (dataset, episode_index)"
        )
        return {"label_runs": label_runs(self.lake, sorted(runs))}


def write_recording(path: Path, selected: Selected, e: Episode, options: Any) -> None:
    """Write one recording. Raises UserError."""
    chunks = [_labels(selected, e)]
    # Labels alone need no source, so it may be out of reach
    if options.pictures_per_s != 0:
        chunks += [
            _camera(x, camera, options) for x in selected.exported([e]) for camera in e.cameras
        ]
    name = f"{e.dataset}-{e.episode_index:06d}"
    recording = rr.RecordingStream("proccorpus", recording_id=name, send_properties=False)
    recording.save(path)
    # Let go one by one: pictures of a whole episode would fill the memory
    for chunk in chain.from_iterable(chunks):
        recording.send_chunks([chunk])
        recording.flush()
    recording.disconnect()
    sync(path)


def _chunk(path: str, e: Episode, frames: Iterable[int], columns: Any) -> Any:
    """Rows of an entity on both timelines."""
    numbers = np.asarray(list(frames), np.int64)
    times = [
        rr.TimeColumn("frame", sequence=numbers),
        rr.TimeColumn("time", duration=numbers / e.fps),
    ]
    return Chunk.from_columns(path, times, columns)


def _curve(path: str, e: Episode, rows: pa.Table, column: str) -> Iterator[Any]:
    """One value per frame that has one; nothing where no frame has."""
    with_value = rows.filter(rows[column].is_valid())
    if with_value.num_rows:
        values = rr.Scalars.columns(scalars=with_value[column].to_numpy().astype(np.float64))
        yield _chunk(path, e, with_value["frame_index"].to_pylist(), values)


def _labels(selected: Selected, e: Episode) -> Iterator[Any]:
    """Everything but pictures, as Rerun's chunks."""
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
    yield Chunk.from_columns(
        "/task", [], rr.TextDocument.columns(text=[e.task or "no instruction is known"])
    )

    yield from _label_runs(selected.lake, e)
    yield from _signals(selected.lake, e)


def _label_runs(lake: Lake, e: Episode) -> Iterator[Any]:
    """Each label run has a track of its own, so that they can be compared on one time line."""
    of_episode = [e.dataset, e.chunk, e.episode_index]
    labels_by_episode = labels_of_chunk(lake.con, e.dataset, e.chunk, e.episode_index)
    labels = labels_by_episode.get(e.episode_index, {})
    runs = lake.rows(
        "SELECT DISTINCT p.label_run, coalesce(r.annotator, 'unknown') FROM progress p LEFT JOIN label_runs r "
        f"USING (label_run) WHERE {OF_EPISODE} ORDER BY 1",
        of_episode,
    )
    for run, annotator in runs:
        name = rr.escape_entity_path_part(f"{annotator}-{run}")
        if run in labels:
            texts = [_text(segment, labels[run].num_planned) for segment in labels[run].segments]
            begins = [segment.start_frame for segment in labels[run].segments]
            yield _chunk(
                f"/segments/{name}",
                e,
                begins,
                rr.TextLog.columns(text=texts, level=["INFO"] * len(texts)),
            )
        curves = lake.arrow(
            f"SELECT frame_index, progress, progress_procvlm FROM progress WHERE {OF_EPISODE} AND label_run = ? "
            "ORDER BY 1",
            [*of_episode, run],
        )
        yield from _curve(f"/progress/{name}/ours", e, curves, "progress")
        yield from _curve(f"/progress/{name}/procvlm", e, curves, "progress_procvlm")


def _signals(lake: Lake, e: Episode) -> Iterator[Any]:
    """How open each gripper or hand is, by arm, and what was measured of the frames of each camera."""
    part = rr.escape_entity_path_part
    grippers = gripper_openings(lake.con, e.dataset, e.chunk, e.episode_index)
    for number, gripper in enumerate(grippers):
        arm = gripper.signal.arm if gripper.signal else ""
        # The only one of a robot has no arm's name; of others that have none either, a number tells them apart
        if not arm and len(grippers) == 1:
            path = "/gripper"
        else:
            path = f"/gripper/{part(arm or str(number))}"
        rows = pa.table(
            {"frame_index": np.arange(len(gripper.opening)), "opening": gripper.opening}
        )
        yield from _curve(path, e, rows, "opening")
    for camera in e.cameras:
        measured = lake.arrow(
            f"SELECT frame_index, visual_change FROM frames WHERE {OF_EPISODE} AND camera = ? ORDER BY 1",
            [e.dataset, e.chunk, e.episode_index, camera],
        )
        yield from _curve(f"/visual_change/{part(camera)}", e, measured, "visual_change")


def _text(segment: Segment, num_planned: int) -> str:
    """A segment in words, such as "pick the cup (step 1 of 3, completed)" or "unnamed (step 2 of 3, completed)"."""
    if segment.kind != STEP or segment.step is None:
        if segment.name != segment.kind:
            return f"{segment.name} ({segment.kind})"
        return segment.kind
    end = "completed" if segment.completed else "not completed"
    name = segment.name if segment.named else "unnamed"
    return f"{name} (step {segment.step + 1} of {num_planned}, {end})"


def _camera(x: ExportedEpisode, camera: str, options: Any) -> Iterator[Any]:
    """The shown frames of a camera, a chunk for each batch of them. Raises UserError for another source than then."""
    e = x.episode
    jpegs: dict[int, bytes] = {}
    to_show = _frames_to_show(e, options)
    path = f"/cameras/{rr.escape_entity_path_part(camera)}"
    try:
        frames = x.rows.frames(camera)
        for k, picture in enumerate(counted_pictures(frames, camera, e)):
            if k in to_show:
                jpegs[k], _, _ = encode_jpeg(picture, options.max_px, options.quality)
            # Batches keep an episode of thousands of pictures from standing in memory whole
            if sum(map(len, jpegs.values())) >= BATCH_BYTES:
                yield _pictures(path, e, jpegs)
                jpegs = {}
        # Labels are by frame: pictures of a source that has changed would stand beside the wrong ones
        if next(frames, None) is not None:
            raise UserError(
                f"{camera} of {e.dataset} episode {e.episode_index} shows more than the {e.num_frames} frames that it "
                "had when it was built: build the dataset again"
            )
    except (VideoError, DataError) as error:
        raise UserError(
            f"{e.dataset} episode {e.episode_index}, {camera}: its source cannot be read as when it was built ({error})"
        ) from error
    if jpegs:
        yield _pictures(path, e, jpegs)


def _pictures(path: str, e: Episode, jpegs: Mapping[int, bytes]) -> Any:
    blobs = list(jpegs.values())
    return _chunk(
        path, e, jpegs, rr.EncodedImage.columns(blob=blobs, media_type=["image/jpeg"] * len(blobs))
    )


def _frames_to_show(e: Episode, options: Any) -> set[int]:
    """The frames to show: evenly over the episode, and the last one."""
    if options.pictures_per_s is None or options.pictures_per_s >= e.fps:
        return set(range(e.num_frames))
    step = e.fps / options.pictures_per_s
    return {int(k * step) for k in range(int(e.num_frames / step) + 1)} | {e.num_frames - 1}
