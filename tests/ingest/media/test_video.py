"""Decoding: exact frames of h264, AV1 and MPEG-4 from any starting frame, and a reason for what is no video."""

import os
from pathlib import Path

import av
import numpy as np
import pytest

from ingest.media import video
from ingest.media.frames import DecodeOptions, VideoError
from ingest.media.video import Frame, decode, probe
from tests.kits.lerobot_writer import CODECS, LFS_POINTER, read_number, write_video

GROUPS_OF_2 = {
    "h264": {"preset": "veryfast", "g": "2"},
    "av1": {"preset": "8", "crf": "12", "g": "2"},
    "mpeg4": {"g": "2"},
}
NUMBERS = [n * 37 % 65536 for n in range(20)]


def numbers(path: Path, start: int = 0, count: int | None = None, rate: float | None = None) -> list[int]:
    return [read_number(f.luma()) for f in decode(path, start, count, rate=rate)]


@pytest.mark.parametrize("codec", CODECS)
def test_every_starting_frame(tmp_path: Path, codec: str) -> None:
    path = write_video(tmp_path / "a.mp4", NUMBERS, codec)
    assert numbers(path) == NUMBERS
    for start in range(1, 20):
        assert numbers(path, start, 3) == NUMBERS[start : start + 3]
    assert numbers(path, 20) == numbers(path, 500) == []


def test_open_group_of_pictures(tmp_path: Path) -> None:
    """A key picture is preceded by pictures that are decoded after it."""
    options = {"x264-params": "open-gop=1:scenecut=0:keyint=8:min-keyint=8:b-adapt=0:bframes=3", "preset": "veryfast"}
    path = write_video(tmp_path / "a.mp4", NUMBERS, options=options)
    assert [numbers(path, k, 2) for k in range(20)] == [NUMBERS[k : k + 2] for k in range(20)]


def test_times_in_milliseconds(tmp_path: Path) -> None:
    """Matroska knows no third of a tenth of a second: frame k stands at k/30 s, rounded."""
    path = write_video(tmp_path / "a.mkv", NUMBERS, fps=30)
    assert [numbers(path, k, 1) for k in range(20)] == [[n] for n in NUMBERS]


def test_gaps_between_joined_recordings(tmp_path: Path) -> None:
    """Files joined by summed durations: the third recording of 5 frames begins at 1.2 s, not at 1.0 s."""
    times = [k + k // 5 for k in range(20)]
    path = write_video(tmp_path / "a.mp4", NUMBERS, times=times)
    starts = [numbers(path, 6 * episode, 1, rate=10) for episode in range(4)]
    assert starts == [[NUMBERS[0]], [NUMBERS[5]], [NUMBERS[10]], [NUMBERS[15]]]


def broken(path: Path, packet: int) -> Path:
    """The video with one picture's data overwritten."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    at, data = packets[packet].pos, bytearray(path.read_bytes())
    assert at is not None
    data[at : at + packets[packet].size] = b"\xff" * packets[packet].size
    path.write_bytes(data)
    return path


@pytest.fixture
def by_blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Short videos are long enough for several threads to decode blocks of their groups: the packets of each block."""
    monkeypatch.setattr(video, "LONG", 1)
    monkeypatch.setattr(video, "BLOCK", 3)
    blocks: list[int] = []
    decode_block = video._decode_block
    monkeypatch.setattr(video, "_decode_block", lambda of, block: blocks.append(len(block)) or decode_block(of, block))
    return blocks


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("start", [0, 1, 6, 19])
def test_blocks_of_groups_on_several_threads(tmp_path: Path, by_blocks: list[int], codec: str, start: int) -> None:
    path = write_video(tmp_path / "a.mp4", NUMBERS, codec, options=GROUPS_OF_2[codec])
    found = [read_number(frame.luma()) for frame in decode(path, start, 9, options=DecodeOptions(3))]
    assert found == NUMBERS[start : start + 9]
    assert set(by_blocks[:-1]) <= {4}
    assert len(by_blocks) > 1 or start == 19


def test_an_open_group_is_not_cut(tmp_path: Path, by_blocks: list[int]) -> None:
    """Its pictures need the group before: the file is read by one thread from there on."""
    options = {"x264-params": "open-gop=1:scenecut=0:keyint=8:min-keyint=8:b-adapt=0:bframes=3", "preset": "veryfast"}
    path = write_video(tmp_path / "a.mp4", NUMBERS, options=options)
    for start in (0, 5, 11):
        found = [read_number(frame.luma()) for frame in decode(path, start, options=DecodeOptions(2))]
        assert found == NUMBERS[start:]


def test_one_long_group_is_left_to_the_decoder(tmp_path: Path, by_blocks: list[int]) -> None:
    path = write_video(tmp_path / "a.mp4", NUMBERS, options={"preset": "veryfast", "g": "20"})
    assert [read_number(frame.luma()) for frame in decode(path, options=DecodeOptions(2))] == NUMBERS
    assert not by_blocks


def test_what_is_too_much_to_be_held(tmp_path: Path, by_blocks: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is read by one thread from there on."""
    path = write_video(tmp_path / "a.mp4", NUMBERS, options=GROUPS_OF_2["h264"])
    with av.open(str(path)) as container:
        pixels = container.streams.video[0].width * container.streams.video[0].height
    monkeypatch.setattr(video, "GROUP_PIXELS", 0.9 * pixels)
    monkeypatch.setattr(video, "_has_short_groups", lambda *of: True)
    assert [read_number(frame.luma()) for frame in decode(path, options=DecodeOptions(2))] == NUMBERS
    assert by_blocks


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("packet", [0, 7, 19])
@pytest.mark.parametrize("has_blocks", [False, True])
def test_damage_on_several_threads(
    tmp_path: Path, request: pytest.FixtureRequest, codec: str, packet: int, has_blocks: bool
) -> None:
    """The same pictures, the same ones damaged and the same error as on one thread."""
    if has_blocks:
        request.getfixturevalue("by_blocks")
    path = broken(write_video(tmp_path / "a.mp4", NUMBERS, codec), packet)

    def outcome(threads: int) -> list[tuple[bytes, bool] | str]:
        pictures = []
        try:
            for frame in decode(path, options=DecodeOptions(threads)):
                pictures.append((frame.luma().tobytes(), frame.is_damaged))
        except VideoError as e:
            pictures.append(str(e))
        return pictures

    assert outcome(1) != [(f.luma().tobytes(), False) for f in decode(write_video(tmp_path / "b.mp4", NUMBERS, codec))]
    assert all(outcome(4) == outcome(1) for _ in range(5))


def test_only_the_frames_asked_for_are_decoded(tmp_path: Path) -> None:
    """What lies before and behind an episode in its file does not matter to it."""
    options = {"preset": "8", "crf": "12", "g": "1"}
    first = broken(write_video(tmp_path / "a.mp4", NUMBERS, "av1", options=options), 0)
    last = broken(write_video(tmp_path / "b.mp4", NUMBERS, "av1", options=options), -1)
    assert numbers(first, 10, 9) == numbers(last, 10, 9) == NUMBERS[10:19]
    for path, start, count in ((first, 0, 2), (last, 10, 10)):
        with pytest.raises(VideoError, match="cannot be decoded") as error:
            numbers(path, start, count)
        assert error.value.reason == "undecodable_video"


def test_pictures(tmp_path: Path) -> None:
    """A width that is no multiple of the decoder's row size; colours within what lossy coding changes."""
    rgb = np.zeros((36, 50, 3), np.uint8)
    rgb[:, 25:] = (200, 40, 90)
    frame = next(decode(write_video(tmp_path / "a.mp4", [rgb, rgb])))
    assert (frame.luma().shape, frame.luma().dtype) == ((36, 50), np.uint8)
    assert (frame.rgb().shape, frame.rgb().dtype) == ((36, 50, 3), np.uint8)
    assert np.abs(frame.rgb().astype(int) - rgb)[:, [5, 45]].max() < 12
    assert frame.luma()[18, 5] == 16  # black in video range
    assert 75 < frame.luma()[18, 45] < 110


def test_luma_of_more_than_8_bits(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", NUMBERS[:6], "av1", pix_fmt="yuv420p10le")
    frames = list(decode(path))
    assert {f.picture.format.name for f in frames if isinstance(f, Frame)} == {"yuv420p10le"}
    assert [read_number(f.luma()) for f in frames] == NUMBERS[:6]
    assert frames[0].luma().dtype == np.uint8


@pytest.mark.parametrize("codec", CODECS)
def test_probe(tmp_path: Path, codec: str) -> None:
    info = probe(write_video(tmp_path / "a.mp4", NUMBERS[:6], codec, fps=12))
    assert (info.fps, info.num_frames, info.width_px, info.height_px, info.codec) == (12.0, 6, 64, 64, codec)


def test_title_that_is_not_utf8(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", NUMBERS[:6], metadata={"title": "caf\u00e9XY"})
    path.write_bytes(path.read_bytes().replace("caf\u00e9XY".encode(), b"caf\xe9 XY"))
    assert numbers(path) == NUMBERS[:6]


def test_git_lfs_pointer(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text(LFS_POINTER)
    for use in (lambda: probe(path), lambda: list(decode(path))):
        with pytest.raises(VideoError, match=r"a\.mp4 is a git-LFS pointer") as error:
            use()
        assert error.value.reason == "lfs_pointer"


def test_what_is_no_video(tmp_path: Path) -> None:
    text, sound = tmp_path / "text.mp4", tmp_path / "sound.mp4"
    text.write_text("no video at all\n" * 50)
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        for k in range(3):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, 1024 * k
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for path, why in ((text, "not a video"), (sound, "no video stream"), (tmp_path / "none.mp4", "No such file")):
        for use in (probe, lambda p: list(decode(p))):
            with pytest.raises(VideoError, match=why) as error:
                use(path)
            assert error.value.reason == "undecodable_video"


def test_truncated(tmp_path: Path) -> None:
    """An mp4 whose recorder died has no index at its end."""
    path = write_video(tmp_path / "a.mp4", NUMBERS)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(VideoError):
        list(decode(path))


def test_a_coding_that_is_not_known(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", NUMBERS)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    for look in (probe, lambda p: list(decode(p))):
        with pytest.raises(VideoError, match=r"a\.mp4 is coded in a way that FFmpeg does not know"):
            look(path)


def test_a_search_for_the_next_picture_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg would look through all that follows the end of a Matroska file; here that is sparse, and 64 GB."""
    monkeypatch.setattr("ingest.media.video.READ_TIMEOUT_S", 0.5)
    path = write_video(tmp_path / "a.mkv", NUMBERS)
    os.truncate(path, 1 << 36)
    with pytest.raises(VideoError, match="cannot be decoded"):
        list(decode(path))
