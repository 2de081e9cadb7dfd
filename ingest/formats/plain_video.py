"""Adapter for plain video files: one episode each, with an optional `<name>.json` beside it.

Instead, or besides, a folder may have one side file, `metadata.json|jsonl|csv` or `episodes.csv`, with a row for each
video: `file` (or `file_name`, `video`; below that folder), `task`, `tasks`, `success`, `fps`, `group`. Rows with the
same `episode`, each with a `camera`, are one episode. JSON may give `steps`: a list of `name`, `start_s` or
`start_frame`, and `end_s` or `end_frame` (half-open). What `<name>.json` says overrules the row.
"""

import hashlib
import json
import math
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ingest.episode import Episode, EpisodeRecord, Finding, Listing, NativeStep, RowsError
from ingest.formats.cameras import in_order
from ingest.formats.side_files import read_json, read_table
from ingest.formats.steps import checked_steps
from ingest.formats.whole_videos import frames_of, videos_of
from ingest.media.video import VIDEO_SUFFIXES, VideoError, VideoInfo, probe
from ingest.sources.files import Source

CAMERA = "video"  # where no row names it
SIDE_FILES = ("metadata.json", "metadata.jsonl", "metadata.csv", "episodes.csv")
FILE_COLUMNS = ("file", "file_name", "video")
TRUTH = {"true": True, "false": False, "1": True, "0": False}  # as CSV writes it
FPS = 30.0
RATE_TOLERANCE = 0.01  # relative, between cameras of one episode
MAX_FPS = 1000.0


@dataclass
class Draft:
    """An episode before its place among the others is known."""

    videos: dict[str, str] = field(default_factory=dict)  # uri by camera
    expected: list[str] = field(default_factory=list)  # cameras that rows name, also without a file
    rows: list[dict[str, Any]] = field(default_factory=list)


def recognises(source: Source) -> bool:
    return any(_is_video(uri) for uri in source.files)


def _is_video(uri: str) -> bool:
    return uri.lower().endswith(VIDEO_SUFFIXES)


def list_episodes(source: Source) -> Listing:
    findings: list[Finding] = []
    drafts = _drafts(source, findings)
    records = [_record(source, k, name, drafts[name], findings) for k, name in enumerate(sorted(drafts))]
    if not records:
        findings.append(Finding("no_episodes", "no video file below the folder"))
    fps = records[0].fps if records else None
    cameras = in_order([c for r in records for c in r.cameras], source.config.cameras, (), ())
    robot = source.config.robot
    return Listing("video", fps, robot, tuple(cameras) or (CAMERA,), tuple(records), tuple(findings), numbered=False)


# Which files are an episode


def _drafts(source: Source, findings: list[Finding]) -> dict[str, Draft]:
    """Episodes by source id: those that rows put together, and each other video by itself."""
    drafts: dict[str, Draft] = {}
    named: set[str] = set()
    for side in [u for u in source.files if posixpath.basename(u) in SIDE_FILES and not _is_notes(source, u)]:
        for number, row in _rows(source, side, findings):
            problem = _place(source, side, row, drafts, named)
            if problem:
                reason, detail = problem
                findings.append(Finding(reason, f"{side} row {number}: {detail}", "warning", file=side))
    for uri in source.files:
        if _is_video(uri) and uri not in named:
            drafts[uri] = Draft({CAMERA: uri})
    return drafts


def _is_notes(source: Source, uri: str) -> bool:
    """Is metadata.json that of one video, metadata.mp4?"""
    return uri.endswith(".json") and any(uri[:-5] + suffix in source.files for suffix in VIDEO_SUFFIXES)


def _rows(source: Source, side: str, findings: list[Finding]) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        rows, problems = read_table(source, side)
    except RowsError as e:
        findings.append(Finding(e.reason, str(e), "warning", file=side))
        return
    findings += [Finding("unreadable_data", f"{side} {p}", "warning", file=side) for p in problems]
    yield from rows


def _place(
    source: Source, side: str, row: dict[str, Any], drafts: dict[str, Draft], named: set[str]
) -> tuple[str, str] | None:
    """Put a row's video into its episode; (reason, detail) when that cannot be done."""
    name = next((row[c] for c in FILE_COLUMNS if isinstance(row.get(c), str)), None)
    if name is None:
        return "unreadable_data", f"names no file in {', '.join(FILE_COLUMNS)}"
    folder = posixpath.dirname(side)
    inside = posixpath.normpath(name)
    if inside.startswith(("/", "../")) or inside == "..":
        return "path_escape", f"{name} leads out of the folder"
    uri = posixpath.join(folder, inside)
    there = uri in source.files and _is_video(uri)
    if uri in named:
        return "duplicate_episode", f"{name} is named before"
    episode, camera = row.get("episode"), row.get("camera")
    camera = str(camera) if isinstance(camera, str | int) else None
    if camera is None or not isinstance(episode, str | int):
        if not there:
            return "no_video", f"{name} is no video file of the folder"
        drafts[uri] = Draft({camera or CAMERA: uri}, [camera or CAMERA], [row])
        named.add(uri)
        return None
    draft = drafts.setdefault(posixpath.join(folder, str(episode)), Draft())
    if camera in draft.expected:
        return "bad_video_pointer", f"{camera} of episode {episode} is named before"
    draft.expected.append(camera)
    draft.rows.append(row)
    if there:
        draft.videos[camera] = uri
        named.add(uri)
    return None


# What is known of an episode


def _record(source: Source, index: int, source_id: str, draft: Draft, findings: list[Finding]) -> EpisodeRecord:
    config = source.config
    notes = _notes(source, draft, index, findings)
    several, stated = len(draft.videos) > 1, config.fps or _rate(notes, index, findings)
    # headers show a rate that nothing states, whether spans lie in the episode, and whether cameras agree
    infos = _probed(source, draft, index, findings) if several or not stated or "steps" in notes else {}
    fps = stated or next((i.fps for i in infos.values()), FPS)
    cameras = in_order([*draft.expected, *draft.videos], config.cameras, (), ())
    videos = videos_of(draft.videos, cameras, index, findings)
    tasks = _tasks(notes)
    if not tasks:
        uri = next(iter(draft.videos.values()), None)
        findings.append(Finding("no_task", "no task beside the video or in a side file", "warning", index, None, uri))
    counts = [infos[v.camera].num_frames for v in videos if v.camera in infos]
    success, group = notes.get(config.success_field), notes.get(config.group_field or "group")
    stamp = source.stamp([u for v in videos for u in (v.uri, _notes_uri(v.uri))], None)
    if draft.rows:
        stamp = hashlib.sha256(f"{stamp} {json.dumps(draft.rows, sort_keys=True)}".encode()).hexdigest()[:16]
    return EpisodeRecord(
        episode_index=index,
        source_id=source_id,
        fps=fps,
        task=tasks[0] if tasks else None,
        tasks=tasks,
        num_rows=counts[0] if several and counts else None,  # cameras of one episode must have equally many
        videos=videos,
        steps=_steps(notes, fps, counts[0] if counts else None, index, findings),
        success=success if isinstance(success, bool) else TRUTH.get(str(success).lower()),
        group=source_id if group in (None, "") else str(group),  # an index moves when a file is added before it
        source_stamp=stamp,
    )


def _notes_uri(uri: str) -> str:
    return uri.rsplit(".", 1)[0] + ".json"


def _notes(source: Source, draft: Draft, index: int, findings: list[Finding]) -> dict[str, Any]:
    """What rows and JSON files say of an episode; of several rows that say different things, the first counts."""
    notes: dict[str, Any] = {}
    for row in reversed(draft.rows):
        notes |= row
    for uri in map(_notes_uri, draft.videos.values()):
        if uri not in source.files:
            continue
        try:
            found = read_json(source, uri)
        except RowsError as e:
            findings.append(Finding(e.reason, str(e), "warning", index, None, uri))
            continue
        notes |= found if isinstance(found, dict) else {}
    return notes


def _probed(source: Source, draft: Draft, index: int, findings: list[Finding]) -> dict[str, VideoInfo]:
    """Headers by camera; a camera of another frame rate than the first one is taken out of the episode."""
    infos: dict[str, VideoInfo] = {}
    failed = []
    for camera, uri in draft.videos.items():
        try:
            infos[camera] = probe(source.resolve(uri))
        except VideoError as e:
            failed.append((e.reason, str(e), camera, uri))
    severity = "warning" if infos else "unusable"
    findings += [Finding(reason, why, severity, index, camera, uri) for reason, why, camera, uri in failed]
    first = next(iter(infos.values()), None)
    for camera, info in list(infos.items()):
        if first and abs(info.fps / first.fps - 1) > RATE_TOLERANCE:
            detail = f"{info.fps:g} fps, the episode's first camera has {first.fps:g}: their frames do not match"
            findings.append(Finding("frame_rate", detail, "warning", index, camera, draft.videos[camera]))
            del infos[camera], draft.videos[camera]
            draft.expected.remove(camera)
    return infos


def _rate(notes: dict[str, Any], index: int, findings: list[Finding]) -> float | None:
    if "fps" not in notes:
        return None
    try:
        fps = float(notes["fps"])
    except (TypeError, ValueError, OverflowError):
        fps = math.nan
    if 0 < fps <= MAX_FPS:
        return fps
    findings.append(Finding("frame_rate", f"fps is {str(notes['fps'])[:40]!r}", "warning", index))
    return None


def _tasks(notes: dict[str, Any]) -> tuple[str, ...]:
    """`task`, then what else `tasks` has."""
    listed = notes.get("tasks")
    texts = [notes.get("task"), *(listed if isinstance(listed, list) else [listed])]
    return tuple(dict.fromkeys(t.strip() for t in texts if isinstance(t, str) and t.strip()))


def _steps(
    notes: dict[str, Any], fps: float, num_frames: int | None, index: int, findings: list[Finding]
) -> tuple[NativeStep, ...]:
    spans = notes.get("steps", [])
    try:
        if not isinstance(spans, list) or not all(isinstance(s, dict) for s in spans):
            raise ValueError("steps is not a list of spans")
        framed = [(s.get("name"), _frame(s, "start", fps), _frame(s, "end", fps)) for s in spans]
        return checked_steps(framed, num_frames)
    except (ValueError, OverflowError) as e:
        findings.append(Finding("bad_steps", str(e), "warning", index))
        return ()


def _frame(span: dict[str, Any], edge: str, fps: float) -> Any:
    time_s = span.get(f"{edge}_s")
    if f"{edge}_frame" not in span and isinstance(time_s, int | float):
        return round(time_s * fps)
    return span.get(f"{edge}_frame")


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    return Episode(record, None, None, None, frames_of(source, record))
