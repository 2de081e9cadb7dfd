"""Adapter for LeRobot datasets v2.0, v2.1 and v3.0, told apart by what is on disk.

All have meta/info.json and Parquet rows. v2 has one data file and one video per episode, and JSON-lines metadata; v3
packs many episodes into one file and keeps its metadata in Parquet. Path templates come from info.json, then the
standard ones; a file that neither names is searched for by its own name. Lengths come from rows.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.episode import CameraVideo, Episode, EpisodeRecord, Finding, Listing
from ingest.files import Source
from ingest.lerobot_rows import RowsError, gripper_of, read_rows, state_of
from ingest.registry import DatasetConfig
from ingest.video import LFS_MARK, Frame, decode

DATA_V2 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_V2 = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
VIDEO_V3 = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODE_FILE = re.compile(r"^data/.*episode_(\d+)\.parquet$")
DATA_FILE = re.compile(r"^data/chunk-\d+/file-\d+\.parquet$")
META_EPISODES = re.compile(r"^meta/episodes/chunk-\d+/file-\d+\.parquet$")
DEFAULT_CHUNK = 1000


def recognises(source: Source) -> bool:
    """A folder with meta/, or with data/ or videos/ laid out as LeRobot does; also when files are lacking."""
    uris = source.files
    return (
        (source.path / "meta").is_dir()
        or next(source.path.glob("data/chunk-*"), None) is not None
        or next(source.path.glob("videos/chunk-*"), next(source.path.glob("videos/*/chunk-*"), None)) is not None
        or any(EPISODE_FILE.match(u) or DATA_FILE.match(u) for u in uris)
        or any(re.match(r"^videos/.*(episode_\d+|file-\d+)\.mp4$", u) for u in uris)
    )


@dataclass
class Dataset:
    """What the metadata of one dataset says, as it is gathered."""

    source: Source
    info: dict[str, Any]
    version: str
    findings: list[Finding] = field(default_factory=list)
    searched: dict[str, int] = field(default_factory=dict)  # path templates that led nowhere, with a count

    @property
    def fps(self) -> float:
        return float(self.source.config.fps or self.info["fps"])

    def warn(self, reason: str, detail: str, episode: int | None = None, **where: str) -> None:
        self.findings.append(Finding(reason, detail, "warning", episode, **where))

    def unusable(self, reason: str, detail: str, episode: int | None = None, **where: str) -> None:
        self.findings.append(Finding(reason, detail, "unusable", episode, **where))


@dataclass(frozen=True)
class Rows:
    """Where an episode's rows are."""

    uri: str
    row_start: int
    num_rows: int
    task_indices: tuple[int, ...]
    row_tasks: bool  # do the rows name their task at all


def list_episodes(source: Source) -> Listing:
    info, problem = _read_info(source)
    if info is None:
        finding = Finding("no_metadata", problem, "unusable", None, None, "meta/info.json")
        return Listing("lerobot", None, source.config.robot, (), (), (finding,))
    ds = Dataset(source, info, _version(source, info))
    metadata = _episode_metadata(ds)
    texts = _task_texts(ds)
    rows = _rows_v3(ds) if ds.version == "v3.0" else _rows_v2(ds, metadata)
    cameras = _cameras(ds)
    records = [_record(ds, e, metadata.get(e), rows.get(e), texts, cameras) for e in sorted({*metadata, *rows})]
    used = {v.camera for r in records for v in r.videos}
    never = [c for c in cameras if c not in used]
    if used:
        for camera in never:
            ds.warn(
                "camera_without_files", f"{camera} is declared in info.json, but no episode has a file", camera=camera
            )
        ds.findings = [f for f in ds.findings if not (f.reason == "missing_camera" and f.camera in never)]
    for template, count in ds.searched.items():
        ds.warn("path_template", f"{template} of info.json leads nowhere for {count} files; found them otherwise")
    if not records:
        ds.unusable("no_episodes", "the metadata lists no episode and there are no rows")
    return Listing(
        f"lerobot_{ds.version}",
        ds.fps,
        source.config.robot or info.get("robot_type"),
        tuple(c for c in cameras if c in used),
        tuple(records),
        tuple(ds.findings),
    )


def _read_info(source: Source) -> tuple[dict[str, Any] | None, str]:
    if "meta/info.json" not in source.files:
        return None, "there is no meta/info.json"
    try:
        info = json.loads(source.resolve("meta/info.json").read_text())
    except (OSError, ValueError) as e:
        return None, f"meta/info.json is not JSON ({e})"
    if not isinstance(info, dict) or not isinstance(info.get("features"), dict):
        return None, "meta/info.json has no features"
    if not source.config.fps and not isinstance(info.get("fps"), int | float):
        return None, "meta/info.json has no fps"
    return info, ""


def _version(source: Source, info: dict[str, Any]) -> str:
    uris = source.files
    if any(META_EPISODES.match(u) or DATA_FILE.match(u) for u in uris) or "meta/tasks.parquet" in uris:
        return "v3.0"
    if "meta/episodes_stats.jsonl" in uris:
        return "v2.1"
    declared = str(info.get("codebase_version", ""))
    return declared if declared in ("v2.0", "v2.1") else "v2.0"


def _cameras(ds: Dataset) -> list[str]:
    """Camera keys by preference: as the registry orders them, then those that see the scene, then by name."""
    keys = []
    for key, feature in ds.info["features"].items():
        details = {**(feature.get("video_info") or {}), **(feature.get("info") or {})}
        if feature.get("dtype") == "video" and not (details.get("is_depth_map") or details.get("video.is_depth_map")):
            keys.append(key)
        elif feature.get("dtype") == "image":
            ds.warn("images_in_rows", f"{key} is stored in the rows, not as video", camera=key)
    named = [c for c in ds.source.config.cameras.ordered() if c in keys]
    near = re.compile(r"wrist|hand|gripper|eye_in", re.I)
    return named + sorted((k for k in keys if k not in named), key=lambda k: (bool(near.search(k)), k))


# Metadata of episodes and tasks


def _episode_metadata(ds: Dataset) -> dict[int, dict[str, Any]]:
    """Episode rows of the metadata by episode_index; statistics columns left out."""
    rows: list[dict[str, Any]] = []
    if ds.version == "v3.0":
        for uri in ds.source.files:
            if META_EPISODES.match(uri):
                table = _parquet(ds, uri)
                if table is not None:
                    keep = [n for n in table.schema.names if not n.startswith("stats/")]
                    rows += table.select(keep).to_pylist()
            elif uri.startswith("meta/episodes/"):
                ds.warn("stray_file", "not part of the v3.0 layout (meta/episodes/chunk-*/file-*.parquet)", file=uri)
    else:
        rows = _json_lines(ds, "meta/episodes.jsonl")
    return {int(r["episode_index"]): r for r in rows if r.get("episode_index") is not None}


def _parquet(ds: Dataset, uri: str, columns: list[str] | None = None) -> pa.Table | None:
    try:
        return pq.ParquetFile(ds.source.resolve(uri)).read(columns)
    except (OSError, pa.ArrowException) as e:
        ds.warn("unreadable_data", f"cannot be read: {_first_line(e)}", file=uri)
        return None


def _first_line(e: Exception) -> str:
    return str(e).split("\n", 1)[0]


def _json_lines(ds: Dataset, uri: str) -> list[dict[str, Any]]:
    if uri not in ds.source.files:
        return []
    rows = []
    text = ds.source.resolve(uri).read_text(errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, strict=False)
        except ValueError as e:
            ds.warn("unreadable_data", f"line {number} is not JSON ({e})", file=uri)
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _task_texts(ds: Dataset) -> dict[int, str]:
    if ds.version != "v3.0":
        rows = _json_lines(ds, "meta/tasks.jsonl")
        return {int(r["task_index"]): str(r["task"]).strip() for r in rows if "task_index" in r and "task" in r}
    table = _parquet(ds, "meta/tasks.parquet") if "meta/tasks.parquet" in ds.source.files else None
    if table is None or "task_index" not in table.schema.names:
        return {}
    text = next((n for n in ("task", "__index_level_0__") if n in table.schema.names), None)
    if text is None:
        return {}
    pairs = zip(table["task_index"].to_pylist(), table[text].to_pylist(), strict=True)
    return {int(i): str(t).strip() for i, t in pairs}


# Rows


def _rows_v2(ds: Dataset, metadata: dict[int, dict[str, Any]]) -> dict[int, Rows]:
    found = {int(m[1]): u for u in ds.source.files if (m := EPISODE_FILE.match(u))}
    rows = {}
    for episode in sorted({*metadata, *found}):
        uri = _locate(ds, "data_path", DATA_V2, episode_index=episode, **_v2_numbers(ds, episode))
        if uri is None:
            continue
        try:
            with pq.ParquetFile(ds.source.resolve(uri)) as file:
                has_tasks = "task_index" in file.schema_arrow.names
                tasks = _unique(file.read(["task_index"])["task_index"]) if has_tasks else ()
                rows[episode] = Rows(uri, 0, file.metadata.num_rows, tasks, has_tasks)
        except (OSError, pa.ArrowException) as e:
            _unreadable(ds, uri, [episode], e)
    return rows


def _rows_v3(ds: Dataset) -> dict[int, Rows]:
    """Row ranges by reading which episode each row says it is of; pointers in the metadata are not trusted."""
    rows: dict[int, Rows] = {}
    for uri in (u for u in ds.source.files if DATA_FILE.match(u)):
        try:
            with pq.ParquetFile(ds.source.resolve(uri)) as file:
                has_tasks = "task_index" in file.schema_arrow.names
                table = file.read(["episode_index", *(["task_index"] if has_tasks else [])])
        except (OSError, pa.ArrowException) as e:
            _unreadable(ds, uri, [], e)
            continue
        episodes = table["episode_index"].to_numpy()
        starts = np.flatnonzero(np.r_[True, episodes[1:] != episodes[:-1]]) if len(episodes) else []
        for start, end in zip(starts, np.r_[starts[1:], len(episodes)] if len(episodes) else [], strict=True):
            episode = int(episodes[start])
            if episode in rows:
                ds.unusable("row_order", "its rows do not stand together in one data file", episode, file=uri)
                continue
            tasks = _unique(table["task_index"][start:end]) if has_tasks else ()
            rows[episode] = Rows(uri, int(start), int(end - start), tasks, has_tasks)
    return rows


def _unique(column: pa.ChunkedArray) -> tuple[int, ...]:
    return tuple(int(i) for i in column.unique().to_pylist() if i is not None)


def _unreadable(ds: Dataset, uri: str, episodes: list[int], e: Exception) -> None:
    """A data file that cannot be read: each episode known to be in it is lost; else the file is named."""
    with ds.source.resolve(uri).open("rb") as f:
        pointer = f.read(len(LFS_MARK)) == LFS_MARK
    reason = "lfs_pointer" if pointer else "unreadable_data"
    detail = "is a git-LFS pointer" if pointer else f"cannot be read: {_first_line(e)}"
    for episode in episodes:
        ds.unusable(reason, detail, episode, file=uri)
    if not episodes:
        ds.warn(reason, detail, file=uri)


def _v2_numbers(ds: Dataset, episode: int) -> dict[str, int]:
    chunk = episode // int(ds.info.get("chunks_size") or DEFAULT_CHUNK)
    return {"episode_chunk": chunk, "chunk_index": chunk}


def _locate(ds: Dataset, key: str, standard: str, **numbers: int | str) -> str | None:
    """The file that a path template names: as info.json has it, in the standard place, or anywhere by its name."""
    template = ds.info.get(key)
    template = template if isinstance(template, str) else standard
    try:
        uri = template.format(**numbers)
    except (KeyError, IndexError, ValueError):
        uri = ""
    if uri in ds.source.files:
        return uri
    usual = standard.format(**numbers)
    if usual not in ds.source.files:
        name, camera = usual.rsplit("/", 1)[-1], numbers.get("video_key")
        top = standard.split("/", 1)[0]
        hits = [u for u in ds.source.by_name.get(name, []) if u.startswith(top)]
        hits = [u for u in hits if camera is None or camera in u.split("/")]
        if len(hits) != 1:
            return None
        usual = hits[0]
    ds.searched[template] = ds.searched.get(template, 0) + 1
    return usual


# Records


def _record(
    ds: Dataset,
    episode: int,
    meta: dict[str, Any] | None,
    rows: Rows | None,
    texts: dict[int, str],
    cameras: list[str],
) -> EpisodeRecord:
    if meta is None:
        ds.warn("not_in_metadata", "has rows, but the metadata does not list it", episode)
        meta = {}
    known = any(f.episode_index == episode and f.severity == "unusable" for f in ds.findings)
    if rows is None and not known:
        ds.unusable("no_data", f"no rows; looked for {ds.info.get('data_path', 'data files')}", episode)
    if rows and meta.get("length") not in (None, rows.num_rows):
        ds.warn("length_differs", f"metadata says {meta['length']} frames, its rows are {rows.num_rows}", episode)
    tasks = _tasks(ds, meta, rows, texts)
    if not tasks:
        ds.warn("no_task", "no instruction in rows or metadata", episode)
    videos = _videos(ds, episode, meta, cameras)
    success = meta.get(ds.source.config.success_field)
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
        group=str(meta.get(ds.source.config.group_field or "") or f"episode {episode}"),
        source_stamp=ds.source.stamp(uris, rows.num_rows if rows else None),
    )


def _tasks(ds: Dataset, meta: dict[str, Any], rows: Rows | None, texts: dict[int, str]) -> tuple[str, ...]:
    """What the rows point at; else what the metadata lists.

    GR00T-flavoured sets list quality labels ("valid") among an episode's tasks: only the rows tell them apart.
    """
    if rows and rows.row_tasks:
        named = tuple(texts[i] for i in rows.task_indices if texts.get(i))
        if named:
            return named
    return tuple(t.strip() for t in meta.get("tasks") or () if isinstance(t, str) and t.strip())


def _videos(ds: Dataset, episode: int, meta: dict[str, Any], cameras: list[str]) -> tuple[CameraVideo, ...]:
    videos = []
    missing = []
    for camera in cameras:
        if ds.version == "v3.0":
            video = _video_v3(ds, episode, meta, camera)
        else:
            uri = _locate(
                ds, "video_path", VIDEO_V2, episode_index=episode, video_key=camera, **_v2_numbers(ds, episode)
            )
            video = CameraVideo(camera, uri, 0) if uri else None
        if video:
            videos.append(video)
        else:
            missing.append(camera)
    if not videos:
        ds.unusable("no_video", f"no video file of {', '.join(cameras) or 'any camera'}", episode)
    else:
        for camera in missing:
            ds.warn("missing_camera", f"no video file of {camera}", episode, camera=camera)
    return tuple(videos)


def _video_v3(ds: Dataset, episode: int, meta: dict[str, Any], camera: str) -> CameraVideo | None:
    chunk, file = meta.get(f"videos/{camera}/chunk_index"), meta.get(f"videos/{camera}/file_index")
    start_s = meta.get(f"videos/{camera}/from_timestamp")
    if chunk is None or file is None or start_s is None:
        if meta:
            ds.warn("bad_video_pointer", f"no file or start time of {camera} in the metadata", episode, camera=camera)
        return None
    uri = _locate(ds, "video_path", VIDEO_V3, video_key=camera, chunk_index=int(chunk), file_index=int(file))
    return CameraVideo(camera, uri, round(float(start_s) * ds.fps)) if uri else None


# Reading


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    """Rows and frames of one episode; raises RowsError when the rows cannot be read."""
    if record.data_uri is None or record.num_rows is None:
        raise RowsError("no rows")
    info, problem = _read_info(source)
    if info is None:
        raise RowsError(problem)
    rows = read_rows(source.resolve(record.data_uri), record.row_start, record.num_rows)
    config: DatasetConfig = source.config

    def frames(camera: str) -> Iterator[tuple[int, float, Frame]]:
        video = next(v for v in record.videos if v.camera == camera)
        # one frame more than there are rows, so that a video that is too long is noticed; a file that holds
        # further episodes goes on anyway
        limit = record.num_rows if _shared_file(record, video) else None
        for k, frame in enumerate(decode(source.resolve(video.uri), video.start_frame, limit)):
            yield k, k / record.fps, frame

    return Episode(
        record,
        state_of(rows, config.gripper, info["features"]),
        gripper_of(rows, config.gripper, info["features"]),
        rows["timestamp"].to_numpy().astype(np.float64) if "timestamp" in rows.schema.names else None,
        frames,
    )


def _shared_file(record: EpisodeRecord, video: CameraVideo) -> bool:
    return "episode_" not in video.uri.rsplit("/", 1)[-1]
