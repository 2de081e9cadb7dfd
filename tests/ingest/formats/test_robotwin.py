"""RoboTwin as its simulator writes it."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ingest.formats import robotwin
from ingest.source import list_episodes, read_episode
from tests.kits.hdf5_writer import marked_jpeg, swapped_jpeg, write_robotwin
from tests.kits.lerobot_writer import picture, said, shown, source_of
from tests.kits.signal_kit import places_of

CAMERAS = ("head_camera", "left_camera", "right_camera")
TEXTS = {"seen": ["hit the block", " use the hammer ", "hit the block"], "unseen": ["knock"]}


def test_a_task_of_two_configurations(tmp_path: Path) -> None:
    for episode, length in ((0, 5), (10, 6), (9, 7)):
        write_robotwin(tmp_path / "beat_block/clean", episode, length, TEXTS)
    write_robotwin(tmp_path / "beat_block/random", 0, 5, {"unseen": ["knock"]})
    source = source_of(tmp_path, fps=16.67)
    listing = list_episodes(source)
    assert (listing.format, listing.fps, listing.cameras, said(listing)) == ("robotwin", 16.67, CAMERAS, [])
    assert [(r.episode_index, r.source_id, r.num_rows, r.tasks, r.success) for r in listing.records] == [
        (0, "beat_block/clean/data/episode0.hdf5", 5, ("hit the block", "use the hammer", "knock"), None),
        (1, "beat_block/clean/data/episode9.hdf5", 7, ("hit the block", "use the hammer", "knock"), None),
        (2, "beat_block/clean/data/episode10.hdf5", 6, ("hit the block", "use the hammer", "knock"), None),
        (3, "beat_block/random/data/episode0.hdf5", 5, ("knock",), None),
    ]
    assert listing.records[0].task == "hit the block"
    assert shown(source, listing.records[2], "left_camera") == [(1, 10, k) for k in range(6)]
    episode = read_episode(source, listing.records[1])
    assert episode.state is not None
    assert episode.state[4].tolist() == [4.0] * 6 + [0.4] + [4.0] * 6 + [0.2]
    assert places_of(source) == [("left gripper", "state", (6,)), ("right gripper", "state", (13,))]


@pytest.mark.parametrize("encode", [swapped_jpeg, marked_jpeg])
def test_colours(tmp_path: Path, encode: Any) -> None:
    """Red is red, by the simulator's old way of encoding, and by that which marks its JPEGs as right."""
    red = picture(0xFFFF)
    red[:, :, 1:] = 30
    path = write_robotwin(tmp_path / "t/c", 0, 5, TEXTS)
    with h5py.File(path, "a") as file:
        del file["observation/head_camera/rgb"]
        file["observation/head_camera/rgb"] = np.array([encode(red)] * 5)
    source = source_of(tmp_path)
    (record,) = list_episodes(source).records
    _, _, frame = next(read_episode(source, record).frames("head_camera"))
    assert np.abs(frame.rgb().astype(int) - red).max() < 8
    assert round(float(frame.luma().mean())) == pytest.approx(0.299 * 220 + 0.701 * 30, abs=2)


def test_raw_pictures_keep_their_colours(tmp_path: Path) -> None:
    red = np.zeros((5, 64, 64, 3), np.uint8) + np.array([200, 10, 10], np.uint8)
    with h5py.File(write_robotwin(tmp_path / "t/c", 0, 5, TEXTS), "a") as file:
        file["observation/front_camera/rgb"] = red
    source = source_of(tmp_path)
    (record,) = list_episodes(source).records
    _, _, frame = next(read_episode(source, record).frames("front_camera"))
    assert np.array_equal(frame.rgb(), red[0])


def test_what_is_recognised(tmp_path: Path) -> None:
    """data/episode<k>.hdf5 alone can be anybody's, so the registry has to say it."""
    write_robotwin(tmp_path / "a/t/c", 0, 5)
    write_robotwin(tmp_path / "b/t/c", 0, 5, TEXTS)
    write_robotwin(tmp_path / "c/t/c", 0, 5)
    (tmp_path / "c/t/c/seed.txt").write_text("0")
    (tmp_path / "d/t/c/instructions").mkdir(parents=True)
    (tmp_path / "d/t/c/instructions/episode0.json").write_text("{}")
    assert [robotwin.recognises(source_of(tmp_path / n)) for n in "abcd"] == [False, True, True, False]
    assert robotwin.recognises(source_of(tmp_path / "a", format="robotwin"))
    assert list_episodes(source_of(tmp_path / "a")).format == "hdf5"
