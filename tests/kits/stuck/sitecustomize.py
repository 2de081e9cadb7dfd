"""Python loads this at the start of a process under test: to list one video, and to decode another, stays in one call.

As some files made readers do: a recording with millions of messages, a picture with thousands of scans.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ingest.media import video
from tests.kits.standins import stay_in_one_call

LISTED = "stuck_when_listed.mp4"
DECODED = "stuck_when_decoded.mp4"
probe = video.probe
play = video.play


def stuck_probe(path: Path, *limits: Any) -> video.VideoInfo:
    if path.name == LISTED:
        stay_in_one_call()
    return probe(path, *limits)


def stuck_play(container: Any, stream: Any) -> Iterator[Any]:
    if container.name.endswith(DECODED):
        stay_in_one_call()
    return play(container, stream)


video.probe = stuck_probe
video.play = stuck_play
