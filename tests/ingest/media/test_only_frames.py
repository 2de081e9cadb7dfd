"""Decoding only the groups of pictures that hold wanted frames: the same pictures, less work, or a refusal."""

from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from core.paths import ROOT
from ingest.media.frames import DecodeOptions, SkippedFrame, VideoError
from ingest.media.video import decode

SAMPLE = ROOT / "samples/sim_short/videos/observation.images.front/chunk-000/file-000.mp4"
START, COUNT = 313, 120  # an episode inside a file that holds several


@pytest.mark.parametrize(("start", "count"), [(0, 200), (START, COUNT)])
def test_wanted_frames_are_the_same_and_others_are_passed(start: int, count: int):
    whole = [f.rgb() for f in decode(SAMPLE, start, count)]
    wanted = {0, 41, count - 1}
    found = list(decode(SAMPLE, start, count, options=DecodeOptions(wanted=frozenset(wanted))))
    assert len(found) == len(whole) == count
    assert all(np.array_equal(found[k].rgb(), whole[k]) for k in wanted)
    passed = sum(isinstance(f, SkippedFrame) for f in found)
    assert passed >= count / 2
    with pytest.raises(ValueError, match="not asked for"):
        next(f for f in found if isinstance(f, SkippedFrame)).rgb()


def write(path: Path, **options: str) -> None:
    """40 pictures, each of one shade."""
    with av.open(str(path), "w") as out:
        stream = cast(VideoStream, out.add_stream("libx264", rate=20, options=options))
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for k in range(40):
            picture = np.full((64, 64, 3), k * 5, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())


def test_open_groups_are_refused(tmp_path: Path):
    """Pictures shown before a key frame but stored after it may need the group before: no group stands by itself."""
    path = tmp_path / "open.mp4"
    write(path, g="10", **{"x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"})
    assert sum(1 for _ in decode(path)) == 40
    with pytest.raises(VideoError, match="cannot be told apart"):
        list(decode(path, options=DecodeOptions(wanted=frozenset({35}))))
