"""Pictures and videos of episodes: only files that the lake lists, below the dataset's
folder or the workspace.

Videos that a browser cannot play, as H.264: a camera's pictures of one episode, made when
asked for, and kept.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from core.domain.label import Episode
from core.errors import UserError
from core.files import whole_file
from core.paths import Workspace
from core.pictures import decode_stored
from core.values import grouped, spread
from core.wall import TOO_MUCH, Pool, Walled
from explorer.access import CorpusView, LakeReader, PageError, Snapshot
from explorer.episode import (
    build_config,
    cameras,
    episode_facts,
    find_episode,
    keyframes,
    listing_of,
    row_pictures,
    stored_pictures,
)
from ingest.episode import VIDEO_SUFFIXES, DecodeOptions, Picture, VideoError
from ingest.media.curve_panel import CurvePanel
from ingest.media.encoding import SHOWN, encode
from ingest.media.video import decode, frame_times
from ingest.reasons import LIMITS, DataError, Limits
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.selection import select_episode
from warehouse.lake import Lake
from warehouse.lake.stored import episode_from_row

SHEET = 8  # pictures of a contact sheet
THUMB_PX, SHEET_PX = 180, 120  # height
QUALITY = 82  # of JPEG
MEMORY_BYTES, CPU_S, WALL_S = 1 << 31, 20.0, 60.0  # that finding a frame of a video may take
DECODERS = Pool(partial(Walled, MEMORY_BYTES, __name__))
NO_PICTURE = "no picture of this episode is stored, and it has no video"
MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
}
CODE_VERSION = "h264-4"  # files of another are made anew
MAX_HEIGHT_PX = 720
MAX_FRAMES = 36_000  # of an episode: 20 minutes at 30 frames a second
FRAME_S = 0.5  # CPU that one may take, beside what a build's may
RERUN = EXPORT_KINDS["rerun"].options(pictures_per_s=10, max_px=480)
RECORDED = "rrd-1"  # as CODE_VERSION, of recordings
RECORD_BYTES, RECORD_S = 1 << 32, 600.0  # that making one may take
KEPT_BYTES = 2_000_000_000  # of all files; those that were not looked at for longest go first


def video_file(space: Workspace, facts: dict[str, Any], camera: int) -> Path:
    """The video of an episode's camera (by number, as in `cameras`). Raises PageError:
    none, or not at hand.

    facts: of the episode, as `episode_facts` has them.
    """
    listed = cameras(facts, {})
    if not 0 <= camera < len(listed) or listed[camera]["video"] is None:
        raise PageError(
            f"{facts['dataset']} {facts['episode_index']} has no video of a camera {camera}"
        )
    name = listed[camera]["camera"]
    uri = next(v["uri"] for v in facts["videos"] if v["camera"] == name)
    return source_file(space, facts, uri)


def source_file(space: Workspace, facts: dict[str, Any], uri: str) -> Path:
    """A file of the episode's dataset. Raises PageError where it is not a file below the dataset's folder."""
    dataset = facts["dataset"]
    root = facts["source_uri"] or ""
    if Path(uri).suffix.lower() not in VIDEO_SUFFIXES:
        raise PageError(f"{uri} is no video")
    if "://" in root:
        # Several revisions of a remote dataset may have been fetched: the newest one that has the file counts
        fetched = (space.sources / dataset).glob("*/")
        folders = sorted(fetched, key=lambda folder: folder.stat().st_mtime, reverse=True)
    else:
        folders = [Path(root) if Path(root).is_dir() else Path(root).parent]
    for folder in folders:
        path = (folder / uri).resolve()
        # Links are resolved first, or one in the dataset could lead to any file of the machine
        if not path.is_relative_to(folder.resolve()):
            raise PageError(f"{uri} points outside the folder of {dataset}", 403)
        if path.is_file():
            return path
    raise PageError(f"the video {uri} is not on this machine: {dataset} was read from {root}")


def limits_of(reader: LakeReader, dataset: str) -> Limits:
    """What a dataset's files may claim, as its last build had it."""
    config = build_config(reader, dataset)
    if config is None:
        return LIMITS
    return Limits(**json.loads(config)["dataset"].get("limits", {}))


@lru_cache(maxsize=200)
def picture_numbers(
    corpus: CorpusView, _: int, dataset: str, episode_index: int, camera: str
) -> list[int] | None:
    """Which picture of its video each of an episode's rows has; None: they follow each
    other, as far as is known.

    Raises PageError: no such episode, or its source takes too long to be read.
    """
    with corpus.reading() as reader:
        listing = listing_of(reader, find_episode(reader, dataset, episode_index))
    if listing is None:
        return None
    try:
        with DECODERS.one() as decoder:
            return decoder(row_pictures, listing, camera, cpu_s=CPU_S, wall_s=WALL_S)
    except (VideoError, *TOO_MUCH) as e:
        raise PageError(f"{dataset} {episode_index}: {e}") from e


# Pictures are made when they are asked for; the last ones are kept, by the snapshot (a number) that they are of
@lru_cache(maxsize=2000)
def moment_jpeg(
    corpus: CorpusView,
    snapshot: int,
    dataset: str,
    episode_index: int,
    camera: str,
    frame_index: int,
) -> bytes:
    """What a camera shows at a frame, as JPEG: out of its video, else the stored picture
    nearest to it.

    Raises PageError: no such frame, or no picture of that camera can be had.
    """
    with corpus.reading() as reader:
        facts = episode_facts(reader, dataset, episode_index)
        stored = stored_pictures(reader, (dataset, facts["chunk"], episode_index))
        limits = limits_of(reader, dataset)
    views = cameras(facts, keyframes(stored))
    number = next((n for n, view in enumerate(views) if view["camera"] == camera), None)
    if number is None or not 0 <= frame_index < (facts["num_frames"] or 0):
        raise PageError(
            f"{dataset} {episode_index} has no frame {frame_index} of a camera {camera[:60]!r}"
        )
    path = None
    with suppress(PageError):  # it is not on this machine
        path = video_file(corpus.space, facts, number)
    picture = None
    if path is not None:
        pictures = picture_numbers(corpus, snapshot, dataset, episode_index, camera)
        picture = _video_frame(path, views[number]["video"], limits, frame_index, pictures)
    if picture is not None:
        return _jpeg(_scaled(picture, THUMB_PX))
    # The video is elsewhere, or there never was one
    camera_pictures = [p for p in stored if p["camera"] == camera]
    if not camera_pictures:
        raise PageError(NO_PICTURE)
    nearest = min(camera_pictures, key=lambda p: abs(p["frame_index"] - frame_index))
    return _jpeg(_stored_picture(corpus.space.keyframe(nearest["sha256"]), THUMB_PX))


@lru_cache(maxsize=2000)
def thumbnail_jpeg(
    corpus: CorpusView, _: int, dataset: str, episode_index: int, kind: str
) -> bytes:
    """`thumb` or `sheet` of an episode as JPEG. Raises PageError where no picture can be had."""
    with corpus.reading() as reader:
        facts = episode_facts(reader, dataset, episode_index)
        stored = stored_pictures(reader, (dataset, facts["chunk"], episode_index))
        limits = limits_of(reader, dataset)
    # All that is needed was read: pictures are decoded outside, so as not to hold the lake's reader
    by_camera = grouped((picture["camera"], picture) for picture in stored)
    preferred = (*(facts["cameras"] or ()), *by_camera)
    camera = next((name for name in preferred if name in by_camera), None)
    height = SHEET_PX if kind == "sheet" else THUMB_PX
    if camera is None:
        pictures = [_first_frame(corpus.space, facts, limits, height)]
    else:
        # A contact sheet has pictures spread evenly over the episode; a thumbnail is the first one
        chosen = spread(by_camera[camera], SHEET if kind == "sheet" else 1)
        pictures = [
            _stored_picture(corpus.space.keyframe(picture["sha256"]), height) for picture in chosen
        ]
    return _jpeg(np.concatenate(pictures, axis=1))


def _first_frame(
    space: Workspace, facts: dict[str, Any], limits: Limits, height: int
) -> np.ndarray:
    """Decoded from the first camera that has a video."""
    for number, camera in enumerate(cameras(facts, {})):
        if camera["video"] is not None:
            first = _video_frame(video_file(space, facts, number), camera["video"], limits)
            if first is not None:
                return _scaled(first, height)
    raise PageError(NO_PICTURE)


def _video_frame(
    path: Path, video: dict, limits: Limits, frame_index: int = 0, pictures: list[int] | None = None
) -> np.ndarray | None:
    """A frame of an episode out of a video, BGR; None where the video ends before it.

    `pictures`: as `picture_numbers` has them. Raises PageError where it cannot be decoded.
    """
    try:
        with DECODERS.one() as decoder:
            return decoder(
                _decoded_frame,
                path,
                frame_index,
                video,
                pictures,
                limits,
                cpu_s=CPU_S,
                wall_s=WALL_S,
            )
    except (VideoError, *TOO_MUCH) as e:
        raise PageError(f"{path.name}: {e}") from e


def _decoded_frame(
    path: Path, frame_index: int, video: dict, pictures: list[int] | None, limits: Limits
) -> np.ndarray | None:
    if pictures is None:
        place = _picture_number(path, video["start_frame"] + frame_index, video["fps"], limits)
    elif frame_index < len(pictures):
        place = pictures[frame_index]
    else:
        return None
    frame = next(decode(path, place, 1, DecodeOptions(limits=limits)), None)
    if frame is None:
        return None
    return cv2.cvtColor(frame.rgb(), cv2.COLOR_RGB2BGR)


def _picture_number(path: Path, frame_index: int, fps: float, limits: Limits) -> int:
    """The picture of a file that is shown when frame `frame_index` is, by the file's
    rate. Raises VideoError.
    """
    if frame_index == 0:
        return 0
    times = frame_times(path, limits)
    wanted_s = times.seconds[0] + frame_index / fps
    is_behind = wanted_s > times.seconds[-1] + 0.5 / fps
    if is_behind:
        return len(times.ticks)
    return int(times.nearest(np.array([wanted_s]))[0])


def _stored_picture(path: Path, height: int) -> np.ndarray:
    try:
        return _scaled(decode_stored(path.read_bytes()), height)
    except OSError as e:
        raise PageError("a stored picture is missing; build the frames again to restore it") from e
    except ValueError as e:
        raise PageError("a stored picture is damaged; build the frames again to restore it") from e


def _scaled(picture: np.ndarray, height: int) -> np.ndarray:
    size = (max(1, round(picture.shape[1] * height / picture.shape[0])), height)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _jpeg(picture: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def playable_video(
    space: Workspace,
    facts: dict[str, Any],
    camera: int,
    limits: Limits,
    given_up: Callable[[], bool],
    pictures: list[int] | None = None,
    label: CurvePanel | None = None,
) -> Path:
    """An MP4 file in H.264 whose frames are those of the episode. Raises PageError, also
    once nobody waits for it.

    `limits`: what the dataset's files may claim. `pictures`: as `picture_numbers` has
    them. `label`: drawn below the pictures.
    """
    path = video_file(space, facts, camera)
    video = cameras(facts, {})[camera]["video"]
    episode = episode_from_row(facts)
    subject = f"{episode.dataset} {episode.episode_index}"
    if not 0 < episode.num_frames <= MAX_FRAMES:
        raise PageError(
            f"{subject}: videos of up to {MAX_FRAMES:,} frames are converted, this one has {episode.num_frames:,}"
        )

    # A source that is fetched anew, or an episode that begins elsewhere in it, is another video
    status = path.stat()
    version = status.st_size, status.st_mtime_ns
    about = (CODE_VERSION, path, *version, video, episode.num_frames, pictures, label)
    most_s = limits.cpu_s(status.st_size) + FRAME_S * episode.num_frames
    arguments = path, video, episode.num_frames, pictures, limits, label
    with _explained(subject, given_up):
        return _kept_file(space, about, ".mp4", _encode, arguments, MEMORY_BYTES, most_s, given_up)


def rerun_recording(
    space: Workspace, snapshot: Snapshot, episode: Episode, given_up: Callable[[], bool]
) -> Path:
    """An .rrd file of an episode, of ten pictures a second; `proccorpus export rerun` writes all of them. Raises
    PageError, also once nobody waits for it.
    """
    arguments = space, snapshot.number, *episode.key
    with _explained("no recording can be made", given_up):
        # Its time, too: over an older catalog that was put back a build gives the same numbers
        about = (RECORDED, snapshot, *episode.key)
        return _kept_file(
            space, about, ".rrd", _record, arguments, RECORD_BYTES, RECORD_S, given_up
        )


@contextmanager
def _explained(subject: str, given_up: Callable[[], bool]) -> Iterator[None]:
    """Raises PageError for what goes wrong where a file is made."""
    try:
        yield
    except (DataError, UserError, *TOO_MUCH) as e:
        raise PageError(f"{subject}: {e}", 503 if given_up() else 404) from e
    except OSError as e:
        raise PageError(f"{subject}: the file cannot be kept ({e.strerror or e})", 503) from e


def _kept_file(
    space: Workspace,
    about: tuple[Any, ...],
    suffix: str,
    write: Callable[..., None],
    arguments: tuple[Any, ...],
    memory_bytes: int,
    most_s: float,
    given_up: Callable[[], bool],
) -> Path:
    """A file that a process of its own writes by `write(file, *arguments)`; made where it is not there yet.

    about: all that it depends on. Raises what `write` raises, and one of TOO_MUCH.
    """
    name = hashlib.sha256(repr(about).encode()).hexdigest()[:32]
    kept = space.root / "explorer" / "videos" / f"{name}{suffix}"
    if kept.is_file():
        with suppress(OSError):
            os.utime(kept)
        return kept
    with whole_file(kept, synced=False) as half, Walled(memory_bytes, __name__) as process:
        process(write, half, *arguments, cpu_s=most_s, wall_s=most_s, given_up=given_up)
    forget_oldest(kept)
    return kept


def _record(file: Path, space: Workspace, snapshot: int, dataset: str, episode_index: int) -> None:
    """In a process of its own: Rerun leaves threads behind. Raises UserError."""
    from warehouse.exports.rerun import write_recording

    lake = Lake(space, read_only=True, snapshot=snapshot)
    with closing(lake.con):
        selected = select_episode(lake, dataset, episode_index)
        write_recording(file, selected, selected.episodes[0], RERUN)


def _encode(
    target: Path,
    path: Path,
    video: dict,
    num_frames: int,
    pictures: list[int] | None,
    limits: Limits,
    label: CurvePanel | None,
) -> None:
    """Write frames of a video to an MP4 file, each with the label below it. Raises
    VideoError, also where there are none.
    """
    options = DecodeOptions(limits=limits)
    if pictures is None:
        frames = decode(
            path,
            _picture_number(path, video["start_frame"], video["fps"], limits),
            num_frames,
            options,
        )
    else:
        frames = _pictures_at(path, pictures[:num_frames], options)
    images = map(_even_sized, (picture.rgb() for picture in frames))
    if label is not None:
        images = (label.below(picture, frame) for frame, picture in enumerate(images))
    if not encode(images, target, video["fps"], SHOWN):
        raise VideoError("the video ends before the episode begins")


def _pictures_at(path: Path, pictures: list[int], options: DecodeOptions) -> Iterator[Picture]:
    """The pictures of a file at some places, which ascend."""
    if pictures:
        first = pictures[0]
        frame_indices = {*pictures}
        for place, picture in enumerate(
            decode(path, first, pictures[-1] - first + 1, options), first
        ):
            if place in frame_indices:
                yield picture


def _even_sized(picture: np.ndarray) -> np.ndarray:
    """A picture no higher than the limit, with an even height and width: the encoder takes no other."""
    height, width = picture.shape[:2]
    scale = min(1.0, MAX_HEIGHT_PX / height)
    size = (max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2))
    if size == (width, height):
        return picture
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def forget_oldest(newest: Path) -> None:
    """Delete what was not looked at for longest, until the rest is within the limit; never the newest."""
    with suppress(OSError):  # another explorer forgets, too
        files = sorted(newest.parent.glob("*.*"), key=lambda p: p.stat().st_mtime, reverse=True)
        total = 0
        for path in files:
            total += path.stat().st_size
            if total > KEPT_BYTES and path != newest:
                path.unlink(missing_ok=True)
