"""Videos that would read other files, wait for ever, or take more memory and time than they have bytes."""

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.media import video
from ingest.media.frames import DecodeOptions, VideoError
from ingest.media.video import decode, probe
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
    """Reasons and words with which each use of a video is refused."""
    messages = set()
    for use in uses or USES:
        with pytest.raises(VideoError) as error:
            use(path)
        messages.add((error.value.reason, str(error.value)))
    return messages


@pytest.mark.parametrize("kind", playlists(""))
@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_playlists_open_nothing(tmp_path: Path, kind: str, suffix: str) -> None:
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
def test_containers_that_are_read(tmp_path: Path, suffix: str, codec: str) -> None:
    path = write_video(tmp_path / f"a.{suffix}", range(6), codec)
    assert [read_number(frame.luma()) for frame in decode(path)] == [*range(6)]
    # What it is, and not what it is called
    assert probe(path.rename(tmp_path / "b.mp4")).width_px == 64


def test_pipes_devices_and_folders_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")  # nobody writes into it: it would be waited for
    (tmp_path / "device.mp4").symlink_to("/dev/null")
    (tmp_path / "folder.mp4").mkdir()
    for name in ("pipe", "device", "folder"):
        assert refused(tmp_path / f"{name}.mp4") == {
            ("undecodable_video", f"{name}.mp4 is no file")
        }


def test_frames_that_are_shown_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may show its frames so often that they take minutes to decode: more than have room in its bytes."""
    monkeypatch.setattr(video, "FRAME_BYTES", 1 << 12)
    path = write_video(tmp_path / "a.mp4", range(100), "mpeg4")
    size = path.stat().st_size
    assert refused(path, *USES[1:2]) == {
        ("over_limit", f"a.mp4: over {size >> 12:,} frames in {size:,} bytes")
    }


def test_tables_that_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg makes an entry for each frame that a table claims; the wall is gone afterwards."""
    path = write_video(tmp_path / "a.mp4", range(4))
    former_limit = resource.getrlimit(resource.RLIMIT_DATA)
    monkeypatch.setattr(video, "OPEN_BYTES", 64 << 20)
    monkeypatch.setattr(video.av, "open", lambda *_, **__: take_memory(256 << 20))
    assert refused(path) == {("over_limit", "a.mp4 takes more than 64 MiB to open")}
    assert resource.getrlimit(resource.RLIMIT_DATA) == former_limit


def test_pictures_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_picture_that_is_larger_than_its_header_says(tmp_path: Path) -> None:
    """The decoder finds the true size, and is held to the same limit."""
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


def test_an_entry_sets_the_limits_of_its_dataset(tmp_path: Path) -> None:
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
