"""Adapter for LeRobot datasets v2.0, v2.1 and v3.0, told apart by what is on disk.

All have meta/info.json and Parquet rows. v2 has one data file and one video per episode, and JSON-lines metadata; v3
packs many episodes into one file and keeps its metadata in Parquet. Path templates come from info.json, then the
standard ones; a file that neither names is searched for by its own name. Lengths come from rows.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from ingest.episode import CameraVideo, Episode, EpisodeRecord, Finding, Listing, RowsError, TimedPicture, timed
from ingest.formats.lerobot_meta import (
    DATA_FILE,
    EPISODE_FILE,
    Dataset,
    cameras_of,
    episode_metadata,
    read_info,
    task_texts,
    version_of,
    video_rate,
)
from ingest.formats.lerobot_rows import (
    ACTION_KEYS,
    MAX_ROWS,
    STATE_KEYS,
    TIME_KEYS,
    Rows,
    dimension_names,
    read_pictures,
    read_rows,
    rows_v2,
    rows_v3,
    vector,
)
from ingest.formats.lerobot_videos import find_videos, holds_other_episodes
from ingest.formats.proprio import signals
from ingest.media.video import DECODE_ALL, DecodeOptions, Picture, decode
from ingest.sources.files import Source

FOLDER = re.compile(r"^(meta|data/chunk-[^/]*|videos/([^/]+/)?chunk-[^/]*)$")
VIDEO_FILE = re.compile(r"^videos/.*(episode_\d+|file-\d+)\.mp4$")


def recognises(source: Source) -> bool:
    """A folder with meta/, or with data/ or videos/ laid out as LeRobot does; also when files are lacking."""
    return any(FOLDER.match(f) for f in source.folders) or any(
        EPISODE_FILE.match(u) or DATA_FILE.match(u) or VIDEO_FILE.match(u) for u in source.files
    )


def list_episodes(source: Source) -> Listing:
    info, problem = read_info(source)
    if info is None:
        finding = Finding("no_metadata", problem, "unusable", None, None, "meta/info.json")
        return Listing("lerobot", None, source.config.robot, (), (), (finding,))
    ds = Dataset(source, info, version_of(source, info))
    metadata = episode_metadata(ds)
    texts = task_texts(ds)
    rows = rows_v3(ds, metadata) if ds.version == "v3.0" else rows_v2(ds, metadata)
    cameras, robot = cameras_of(ds), info.get("robot_type")
    videos = find_videos(ds, metadata, rows, cameras)
    records = [_record(ds, e, metadata.get(e), rows.get(e), texts, v) for e, v in videos.items()]
    for template, count in ds.searched.items():
        ds.warn("path_template", f"{template} of info.json leads nowhere for {count} files; found them otherwise")
    if not records:
        ds.unusable("no_episodes", "the metadata lists no episode and there are no rows")
    used = {v.camera for found in videos.values() for v in found}
    return Listing(
        f"lerobot_{ds.version}",
        ds.fps,
        source.config.robot or (robot if isinstance(robot, str) else None),
        tuple(c for c in cameras if c in used),
        tuple(records),
        tuple(ds.findings),
    )


def _record(
    ds: Dataset,
    episode: int,
    meta: dict[str, Any] | None,
    rows: Rows | None,
    texts: dict[int, str],
    videos: tuple[CameraVideo, ...],
) -> EpisodeRecord:
    if meta is None:
        ds.warn("not_in_metadata", "has rows, but the metadata does not list it", episode)
        meta = {}
    if rows is None and episode not in ds.lost and ds.wants(episode):
        ds.unusable("no_data", f"no rows; looked for {ds.info.get('data_path', 'data files')}", episode)
    elif rows and rows.num_rows == 0:
        ds.unusable("no_data", "its table has no rows", episode, file=rows.uri)
    elif rows and rows.num_rows > MAX_ROWS:
        ds.unusable("unreadable_data", f"claims to have {rows.num_rows} rows", episode, file=rows.uri)
    if rows and meta.get("length") not in (None, rows.num_rows):
        ds.warn("length_differs", f"metadata says {meta['length']} frames, its rows are {rows.num_rows}", episode)
    facts = {**(rows.facts if rows else {}), **meta}
    told = (facts.get(key) for key in ds.source.config.keys.language)
    tasks = tuple(
        dict.fromkeys([*_tasks(meta, rows, texts), *(t.strip() for t in told if isinstance(t, str) and t.strip())])
    )
    if not tasks:
        ds.warn("no_task", "no instruction in rows or metadata", episode)
    success = facts.get(ds.source.config.success_field)
    group = facts.get(ds.source.config.group_field or "")
    uris = [v.uri for v in videos] + ([rows.uri] if rows else [])
    return EpisodeRecord(
        episode_index=episode,
        source_id=f"episode_{episode:06d}",
        fps=ds.fps,
        task=tasks[0] if tasks else None,
        tasks=tasks,
        num_rows=rows.num_rows if rows else None,
        data_uri=rows.uri if rows else None,
        row_start=rows.row_start if rows else 0,
        videos=videos,
        success=success if isinstance(success, bool) else None,
        group=f"episode {episode}" if group in (None, "") else str(group),
        source_stamp=ds.source.stamp(uris, rows.num_rows if rows else None),
    )


def _tasks(meta: dict[str, Any], rows: Rows | None, texts: dict[int, str]) -> tuple[str, ...]:
    """What the rows point at; else what the metadata lists.

    GR00T-flavoured sets list quality labels ("valid") among an episode's tasks: only the rows tell them apart.
    """
    if rows and rows.row_tasks:
        named = tuple(texts[i] for i in rows.task_indices if i in texts)
        if named:
            return named
    listed = meta.get("tasks")
    listed = listed if isinstance(listed, list) else [listed]
    return tuple(t.strip() for t in listed if isinstance(t, str) and t.strip())


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    """Rows and frames of one episode; raises RowsError when the rows cannot be read."""
    if record.data_uri is None or not record.num_rows:
        raise RowsError("no rows")
    info, problem = read_info(source)
    if info is None:
        raise RowsError(problem)
    rows = read_rows(source.resolve(record.data_uri), record.row_start, record.num_rows)
    features, times = info["features"], vector(rows, TIME_KEYS)
    state, action = vector(rows, STATE_KEYS), vector(rows, ACTION_KEYS)
    names = [dimension_names(features.get(found[0])) if found else [] for found in (state, action)]
    rest, gripper = signals(state and state[1], action and action[1], source.config.gripper, *names)

    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        video = next(v for v in record.videos if v.camera == camera)
        if video.uri == record.data_uri:
            pictures: Iterable[Picture] = read_pictures(
                source, video.uri, video.start_frame, record.num_rows or 0, camera
            )
        else:
            # A file of its own is decoded to its end, so that one that is too long is noticed
            limit = record.num_rows if holds_other_episodes(info, video.uri) else None
            rate = video_rate(info, camera, record.fps)
            pictures = decode(source.resolve(video.uri), video.start_frame, limit, rate, options)
        yield from timed(pictures, record.fps)

    return Episode(
        record,
        rest,
        gripper,
        None if times is None else times[1][:, 0],
        frames,
        action and action[1],
    )
