"""Pictures of the runs in which checks found most, for a report: just before a bad stretch, and in its middle."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from annotate.pictures import encode_jpeg
from core.values import grouped
from ingest.episode import EpisodeData, EpisodeRecord
from ingest.media.frames import DECODE_ALL, DecodeOptions, VideoError
from ingest.reasons import DataError
from ingest.source import read_episode
from ingest.sources.files import Source

MAX_STRETCHES = 3  # of a run that are shown, the longest
PICTURE_PX = 320  # of the longer side


def pictured_runs(
    source: Source,
    records: Sequence[EpisodeRecord],
    checks: Sequence[Mapping[str, Any]],
    max_runs: int,
) -> list[dict[str, Any]]:
    """The `max_runs` worst runs: those in which most checks found what none before shows, then for longest.

    checks: rows of run_checks, with fps, start_s, end_s and duration_s. Of each run `episode_index`, `duration_s`, and
    its `stretches`: the rows with `pictures` (camera, when, frame_index, at_s, jpeg as base64, width, height) and
    `problem`, why there are none.
    """
    by_run = grouped((check["episode_index"], check) for check in checks)
    by_number = {record.episode_index: record for record in records}
    return [
        _run(source, by_number[episode], by_run[episode]) for episode in _worst(by_run, max_runs)
    ]


def _worst(by_run: Mapping[int, Sequence[Mapping[str, Any]]], max_runs: int) -> list[int]:
    """Runs in the order in which a person wants to see them: each has as much as may be that none before it has."""
    chosen: list[int] = []
    covered_checks: set[str] = set()

    def rank(episode: int) -> tuple[int, bool, float, int]:
        checks = by_run[episode]
        names = {check["check_name"] for check in checks}
        share = sum(map(_seconds, checks)) / checks[0]["duration_s"]
        return (
            len(names - covered_checks),
            any(check["camera"] for check in checks),
            share,
            -episode,
        )

    while len(chosen) < min(max_runs, len(by_run)):
        episode = max(by_run.keys() - set(chosen), key=rank)
        chosen.append(episode)
        covered_checks |= {check["check_name"] for check in by_run[episode]}
    return chosen


def _seconds(check: Mapping[str, Any]) -> float:
    return check["end_s"] - check["start_s"]


def _run(
    source: Source, record: EpisodeRecord, checks: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    longest = sorted(checks, key=_seconds, reverse=True)[:MAX_STRETCHES]
    episode = read_episode(source, record)
    stretches = []
    for check in sorted(longest, key=lambda check: check["start_frame"]):
        problem = ""
        pictures = []
        try:
            pictures = _pictures(episode, check)
        except DataError as e:
            problem = f"no picture of it can be shown: {e}"
        stretches.append({**check, "pictures": pictures, "problem": problem})
    return {
        "episode_index": record.episode_index,
        "duration_s": checks[0]["duration_s"],
        "stretches": stretches,
    }


def _pictures(episode: EpisodeData, check: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Just before the stretch, where there is a before, and in its middle; by its camera, or the first one."""
    camera = check["camera"] or episode.record.cameras[0]
    middle = (check["start_frame"] + check["end_frame"]) // 2
    frame_before = check["start_frame"] - 1
    captions = {middle: "in the middle"} | (
        {frame_before: "just before"} if frame_before >= 0 else {}
    )
    try:
        frames = _decoded(episode, camera, captions, DecodeOptions(wanted=frozenset(captions)))
    except VideoError:  # its groups of pictures do not stand by themselves
        frames = _decoded(episode, camera, captions, DECODE_ALL)
    return [
        {"camera": camera, "when": captions[frame], "at_s": frame / check["fps"]} | frames[frame]
        for frame in sorted(frames)
    ]


def _decoded(
    episode: EpisodeData, camera: str, frame_indices: Mapping[int, str], options: DecodeOptions
) -> dict[int, dict[str, Any]]:
    pictures = {}
    for frame, _, picture in episode.frames(camera, options):
        if frame in frame_indices:
            jpeg, width, height = encode_jpeg(picture.rgb(), PICTURE_PX)
            pictures[frame] = {
                "frame_index": frame,
                "jpeg": b64encode(jpeg).decode(),
                "width": width,
                "height": height,
            }
        if frame >= max(frame_indices):
            break
    return pictures
