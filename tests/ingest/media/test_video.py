"""Decoding: exact frames of h264, AV1 and MPEG-4 from any starting frame, and a reason for what is no video."""

from pathlib import Path

import av
import numpy as np
import pytest

from core.paths import ROOT
from ingest.media import video
from ingest.media.frames import DecodeOptions, SkippedFrame, VideoError
from ingest.media.video import Frame, decode, probe
from tests.kits.lerobot_writer import read_number, write_video

SAMPLE = ROOT / "samples/sim_short/videos/observation.images.front/chunk-000/file-000.mp4"
NUMBERS = [n * 37 % 65536 for n in range(20)]


def numbers(path: Path, start: int = 0, count: int | None = None) -> list[int]:
    return [read_number(f.luma()) for f in decode(path, start, count)]


OPEN_GROUPS = {
    "x264-params": "open-gop=1:scenecut=0:keyint=8:min-keyint=8:b-adapt=0:bframes=3",
    "preset": "veryfast",
}


def test_open_group_of_pictures(tmp_path: Path) -> None:
    """A key picture is preceded by pictures that are decoded after it: no group stands by itself."""
    path = write_video(tmp_path / "a.mp4", NUMBERS, options=OPEN_GROUPS)
    assert [numbers(path, k, 2) for k in range(20)] == [NUMBERS[k : k + 2] for k in range(20)]
    with pytest.raises(VideoError, match="cannot be told apart"):
        list(decode(path, options=DecodeOptions(wanted=frozenset({18}))))


# The second is an episode inside a file that holds several
@pytest.mark.parametrize(("start", "count"), [(0, 200), (313, 120)])
def test_wanted_frames_are_the_same_and_others_are_passed(start: int, count: int):
    whole = [f.rgb() for f in decode(SAMPLE, start, count)]
    wanted_frames = {0, 41, count - 1}
    decoded = list(
        decode(SAMPLE, start, count, options=DecodeOptions(wanted=frozenset(wanted_frames)))
    )
    assert len(decoded) == len(whole) == count
    assert all(np.array_equal(decoded[k].rgb(), whole[k]) for k in wanted_frames)
    passed = [f for f in decoded if isinstance(f, SkippedFrame)]
    assert len(passed) >= count / 2
    with pytest.raises(ValueError, match="not asked for"):
        passed[0].rgb()


@pytest.fixture
def by_blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Short videos are long enough for several threads to decode blocks of their groups: the packets of each block."""
    monkeypatch.setattr(video, "LONG", 1)
    monkeypatch.setattr(video, "BLOCK", 3)
    blocks: list[int] = []
    decode_block = video._decode_block
    monkeypatch.setattr(
        video,
        "_decode_block",
        lambda of, block, n: blocks.append(len(block)) or decode_block(of, block, n),
    )
    return blocks


def test_an_open_group_is_not_cut(tmp_path: Path, by_blocks: list[int]) -> None:
    """Its pictures need the group before: the file is read by one thread from there on."""
    path = write_video(tmp_path / "a.mp4", NUMBERS, options=OPEN_GROUPS)
    for start in (0, 5, 11):
        numbers_read = [
            read_number(frame.luma()) for frame in decode(path, start, options=DecodeOptions(2))
        ]
        assert numbers_read == NUMBERS[start:]


def test_what_is_too_much_to_be_held(
    tmp_path: Path, by_blocks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is read by one thread from there on."""
    path = write_video(tmp_path / "a.mp4", NUMBERS, options={"preset": "veryfast", "g": "2"})
    with av.open(str(path)) as container:
        pixels = container.streams.video[0].width * container.streams.video[0].height
    monkeypatch.setattr(video, "GROUP_PIXELS", 0.9 * pixels)
    monkeypatch.setattr(video, "_has_short_groups", lambda *of: True)
    assert [
        read_number(frame.luma()) for frame in decode(path, options=DecodeOptions(2))
    ] == NUMBERS
    assert by_blocks


def test_luma_of_more_than_8_bits(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", NUMBERS[:6], "av1", pix_fmt="yuv420p10le")
    frames = list(decode(path))
    assert {f.picture.format.name for f in frames if isinstance(f, Frame)} == {"yuv420p10le"}
    assert [read_number(f.luma()) for f in frames] == NUMBERS[:6]
    assert frames[0].luma().dtype == np.uint8


def test_what_is_no_video(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    sound = tmp_path / "sound.mp4"
    text.write_text("no video at all\n" * 50)
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        for k in range(3):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate = 8000
            frame.pts = 1024 * k
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for path, reason in (
        (text, "not a video"),
        (sound, "no video stream"),
        (tmp_path / "none.mp4", "No such file"),
    ):
        for use in (probe, lambda p: list(decode(p))):
            with pytest.raises(VideoError, match=reason) as error:
                use(path)
            assert error.value.reason == "undecodable_video"


def test_a_coding_that_is_not_known(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", NUMBERS)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    for read_video in (probe, lambda p: list(decode(p))):
        with pytest.raises(VideoError, match=r"a\.mp4 is coded in a way that FFmpeg does not know"):
            read_video(path)
