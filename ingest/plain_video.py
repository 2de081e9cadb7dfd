"""Adapter for plain video files: one episode each, with an optional `<name>.json` beside it (`task`, `success`)."""

import json
from collections.abc import Iterator

from ingest.episode import CameraVideo, Episode, EpisodeRecord, Finding, Listing
from ingest.files import Source
from ingest.video import VIDEO_SUFFIXES, Picture, VideoError, decode, probe

CAMERA = "video"


def recognises(source: Source) -> bool:
    return any(uri.lower().endswith(VIDEO_SUFFIXES) for uri in source.files)


def list_episodes(source: Source) -> Listing:
    findings: list[Finding] = []
    records = []
    videos = [uri for uri in source.files if uri.lower().endswith(VIDEO_SUFFIXES)]
    for index, uri in enumerate(videos):
        fps = source.config.fps or 30.0
        try:
            fps = source.config.fps or probe(source.resolve(uri)).fps
        except VideoError as e:
            findings.append(Finding(e.reason, str(e), "unusable", index, CAMERA, uri))
        notes = _notes(source, uri, index, findings)
        task = notes.get("task")
        task = task.strip() if isinstance(task, str) else None
        if not task:
            findings.append(Finding("no_task", f"no task in {_notes_uri(uri)}", "warning", index, None, uri))
        success, group = notes.get(source.config.success_field), notes.get(source.config.group_field or "")
        records.append(
            EpisodeRecord(
                episode_index=index,
                source_id=uri,
                fps=fps,
                task=task or None,
                tasks=(task,) if task else (),
                videos=(CameraVideo(CAMERA, uri, 0),),
                success=success if isinstance(success, bool) else None,
                group=uri if group in (None, "") else str(group),  # an index moves when a file is added before it
                source_stamp=source.stamp([uri, _notes_uri(uri)], None),
            )
        )
    if not records:
        findings.append(Finding("no_episodes", "no video file below the folder"))
    return Listing(
        "video", records[0].fps if records else None, source.config.robot, (CAMERA,), tuple(records), tuple(findings)
    )


def _notes_uri(uri: str) -> str:
    return uri.rsplit(".", 1)[0] + ".json"


def _notes(source: Source, uri: str, index: int, findings: list[Finding]) -> dict:
    notes_uri = _notes_uri(uri)
    if notes_uri not in source.files:
        return {}
    try:
        notes = json.loads(source.resolve(notes_uri).read_text())
    except (OSError, ValueError) as e:
        findings.append(Finding("unreadable_data", f"{notes_uri} is not JSON: {e}", "warning", index, None, notes_uri))
        return {}
    return notes if isinstance(notes, dict) else {}


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    def frames(camera: str) -> Iterator[tuple[int, float, Picture]]:
        video = next(v for v in record.videos if v.camera == camera)
        for k, frame in enumerate(decode(source.resolve(video.uri), video.start_frame, record.num_rows)):
            yield k, k / record.fps, frame

    return Episode(record, None, None, None, frames)
