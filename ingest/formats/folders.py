"""Folders of videos and tables: each camera of an episode is a video file of its own, other files say the rest.

And subtask spans, as sources of any format give them.
"""

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, pairwise
from typing import Any, NamedTuple

from ingest.episode import (
    DECODE_ALL,
    VIDEO_SUFFIXES,
    CameraVideo,
    DecodeOptions,
    EpisodeRecord,
    FrameReader,
    NativeStep,
    TimedPicture,
    VideoError,
    timed,
)
from ingest.formats.listing import ListingBuilder, in_order, named
from ingest.formats.tables import whole
from ingest.media.video import VideoInfo, decode, probe
from ingest.sources.files import Source

MAX_FRAMES = 1 << 31  # no episode has so many
# What tools write for a time in which no step is under way
NOT_STEPS = (
    *("", "null", "none", "nan", "idle", "static", "stand still", "between steps"),
    *("end", "done", "not done", "abnormal", "unknown"),
)


class StatedSpan(NamedTuple):
    """A span as the source gives it: nothing is known yet of the types of its values. `end`: the frame after it."""

    name: Any
    start: Any
    end: Any


class SpanForm(NamedTuple):
    """How a writer states spans: in a list of objects that is called `field`, whose first of some `texts` that says
    something counts, as does an `edges` in frames before one in `seconds`. `are_last`: an end may be a span's last
    frame.
    """

    field: str
    texts: tuple[str, ...]
    edges: tuple[str, str] = ("start_frame", "end_frame")
    seconds: tuple[str, str] = ("start_s", "end_s")
    are_last: bool = False


# By what `steps_from` says of them
SPAN_FORMS = {
    "side_file": SpanForm("steps", ("name",)),
    # Of AgiBot World (github.com/OpenDriveLab/AgiBot-World, task_info), where an end is the next span's start, of
    # RoboMIND, and of datasets of LeRobot, some of which count last frames
    "action_config": SpanForm(
        "action_config", ("action_text", "step_description", "skill"), are_last=True
    ),
    # Robo-Dopamine's published files, with their spelling
    "annotated_keyframes": SpanForm(
        "steps", ("anotation", "annotation"), ("start_frame_id", "end_frame_id"), are_last=True
    ),
}
FRAME_FILE = re.compile(r"(\d+)\.\w+$")  # RoboMIND names frames by pictures: camera_top_0023.jpg


def stated_spans(form: SpanForm, stored: Any, fps: float = 1.0) -> list[StatedSpan]:
    """The spans of an episode as they are stored. Raises ValueError for what is no list of spans."""
    spans = []
    for span in span_objects(stored, form.field):
        edges = map(partial(_edge, span, fps), form.edges, form.seconds)
        text = next((span[key] for key in form.texts if span.get(key)), None)
        spans.append(StatedSpan(text, *edges))
    # Where each span ends one frame before the next one begins, the source counts last frames as ends. What is no frame
    # is left to checked_steps
    edges = chain.from_iterable((span.start, span.end) for span in spans)
    if form.are_last and set(map(type, edges)) == {int}:
        in_order = sorted(spans, key=lambda span: span.start)
        if {next_span.start - span.end for span, next_span in pairwise(in_order)} == {1}:
            return [span._replace(end=span.end + 1) for span in spans]
    return spans


def _edge(span: Mapping[str, Any], fps: float, frame: str, second: str) -> Any:
    """A frame by its number or its picture, else by its time; what is none of these stays, to be found."""
    value = span.get(frame)
    time_s = span.get(second)
    if frame not in span and isinstance(time_s, int | float):
        return round(time_s * fps)
    file_match = FRAME_FILE.search(value) if isinstance(value, str) else None
    number = int(file_match[1]) if file_match else whole(value)
    return value if number is None else number


def is_step(name: Any) -> bool:
    """What is no text stays, to be found."""
    return not isinstance(name, str) or name.strip().rstrip(".").lower() not in NOT_STEPS


def span_objects(value: Any, name: str) -> list[dict[str, Any]]:
    """The objects of a list of spans. Raises ValueError, which names the field, for anything else."""
    if not isinstance(value, list) or not all(isinstance(span, dict) for span in value):
        raise ValueError(f"{name} is not a list of spans")
    return value


def checked_steps(spans: Iterable[StatedSpan], num_frames: int | None) -> tuple[NativeStep, ...]:
    """Spans in order of time; all of them or none.

    Raises ValueError, which says what is wrong: no text, reversed, overlapping, or beyond the
    episode's `num_frames` (None where that is not known).
    """
    steps = [_checked_step(number, span, num_frames) for number, span in enumerate(spans)]
    # Spans may come in any order, and may leave gaps, but no frame is in two of them
    steps.sort(key=lambda s: s.start_frame)
    for step, next_step in pairwise(steps):
        if next_step.start_frame < step.end_frame:
            raise ValueError(
                f"{step.name} ends at frame {step.end_frame}, {next_step.name} begins at {next_step.start_frame}"
            )
    return tuple(steps)


def tells_times(steps: Sequence[NativeStep], num_frames: int | None) -> bool:
    """Do steps divide their episode at all? One span that covers all of it is a text of the whole, and no step."""
    if len(steps) != 1:
        return len(steps) > 1
    # A span that counts its last frame as its end lacks that frame
    return steps[0].start_frame > 0 or (
        num_frames is not None and steps[0].end_frame < num_frames - 1
    )


def _checked_step(number: int, span: StatedSpan, num_frames: int | None) -> NativeStep:
    name, start, end = span
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"span {number} has no text")
    if type(start) is not int or type(end) is not int:
        raise ValueError(f"span {number} ({name}) runs from {start!r} to {end!r}")
    if not 0 <= start < end < MAX_FRAMES:
        raise ValueError(f"span {number} ({name}) runs from frame {start} to {end}")
    if num_frames is not None and end > num_frames:
        raise ValueError(f"span {number} ({name}) ends at frame {end} of {num_frames}")
    return NativeStep(name.strip(), start, end)


@dataclass
class EpisodeFiles:
    videos: dict[str, str] = field(default_factory=dict)  # uri by camera
    tables: dict[str, str] = field(default_factory=dict)  # uri by what it holds


Key = tuple[str, str]  # an episode by its task, which is "" where the dataset is one task's


def is_video(uri: str) -> bool:
    return uri.lower().endswith(VIDEO_SUFFIXES)


def object_of(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    return {}


def episodes_of(
    listing: ListingBuilder,
    files: Mapping[Key, EpisodeFiles],
    video_folder: str,
    first: tuple[str, ...],
    last: tuple[str, ...],
) -> Iterator[tuple[Key, str, EpisodeFiles, tuple[CameraVideo, ...]]]:
    """Each episode's key, source id, files and videos, in order of ids, with findings about cameras that it lacks.

    Every camera that any episode of a task has is expected in all of them, as an MP4 file in
    `video_folder`, such as "{task}/{episode}/videos". `first` and `last` are cameras as `in_order`
    takes them.
    """
    cameras: dict[str, set[str]] = defaultdict(set)  # robots differ between tasks
    for (task, _), episode_files in files.items():
        cameras[task].update(episode_files.videos)
    order = in_order(set().union(*cameras.values()), listing.source.config.cameras, first, last)
    for source_id, key in sorted((posixpath.join(*key), key) for key in files):
        task, episode = key
        folder = video_folder.format(task=task, episode=episode).strip("/")
        expected = {camera: f"{folder}/{camera}.mp4" for camera in order if camera in cameras[task]}
        videos = videos_of(listing, files[key].videos, expected or {"": f"{folder}/*.mp4"})
        yield key, source_id, files[key], videos


def probed(source: Source, uri: str) -> VideoInfo | VideoError:
    """What the header of a video says, or why it cannot be read."""
    try:
        return probe(source.resolve(uri), source.config.limits)
    except VideoError as e:
        return e


def videos_of(
    listing: ListingBuilder, uri_by_camera: Mapping[str, str], expected: Mapping[str, str]
) -> tuple[CameraVideo, ...]:
    """The videos of the coming episode in the order of `expected`, with findings about those that it lacks.

    `expected`: by camera, in order of preference, the file that should be there.
    """
    if not uri_by_camera:
        files = list(expected.values())
        listing.unusable_next("no_video", f"no video file; looked for {named(files)}", files[0])
    elif missing := {
        camera: file for camera, file in expected.items() if camera not in uri_by_camera
    }:
        for camera, file in missing.items():
            listing.warn_next("missing_camera", f"there is no {file}", file, camera)
    return tuple(
        CameraVideo(camera, uri_by_camera[camera], 0)
        for camera in expected
        if camera in uri_by_camera
    )


def stated_steps(
    listing: ListingBuilder, stored: Any, form: str, num_frames: int | None, fps: float = 1.0
) -> dict[str, Any]:
    """`steps` and `steps_from` of the coming episode, by a name in SPAN_FORMS. One span that is wrong casts doubt on
    all: none is kept then.
    """
    try:
        spans = stated_spans(SPAN_FORMS[form], [] if stored is None else stored, fps)
        steps = checked_steps(spans, num_frames)
    except (ValueError, OverflowError) as e:
        listing.warn_next("bad_steps", str(e))
        return {}
    return {"steps": steps, "steps_from": form if steps else None}


def frames_of(source: Source, record: EpisodeRecord) -> FrameReader:
    """Episode.frames of a record. A file is decoded to its end, so that one that is too long is noticed."""

    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        video = next(v for v in record.videos if v.camera == camera)
        # A video inside a tar is unpacked now, when its frames are asked for
        yield from timed(decode(source.resolve(video.uri), options=options), record.fps)

    return frames
