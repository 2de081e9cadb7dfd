"""Sources that change between builds: what was built keeps its index, and only what changed is done again."""

import os
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from core.paths import Workspace
from ingest.registry import DatasetConfig
from pipeline.build import run_build
from pipeline.config import DatasetBuild
from tests.kits import lerobot_writer
from tests.kits.made_corpus import restored
from warehouse.lake import Lake

FRAMES = 8


@cache
def encoded(seed: int) -> bytes:
    """A bright square that walks over noise of its own. x264 gives equal pictures other bits now and then: what comes
    back has to be what went."""
    ground = np.random.default_rng(seed).integers(40, 90, (64, 64, 1), np.uint8).repeat(3, axis=2)
    pictures = [ground.copy() for _ in range(FRAMES)]
    for k, picture in enumerate(pictures):
        picture[20:36, 5 * k : 5 * k + 16] = 230
    with TemporaryDirectory() as folder:
        path = lerobot_writer.write_video(Path(folder, "a.mp4"), pictures, options={"crf": "10"})
        return path.read_bytes()


def write_video(path: Path, seed: int) -> None:
    path.write_bytes(encoded(seed))
    path.with_suffix(".json").write_text('{"task": "push the square"}')


class Videos:
    """A folder of plain videos and a workspace, chunks of two episodes."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "videos"
        self.space = Workspace(root / "workspace")

    @classmethod
    def make(cls, root: Path) -> None:
        videos_made = cls(root)
        videos_made.folder.mkdir(parents=True)
        for name in ("b", "d", "f"):
            videos_made.add(name)
        videos_made.build()

    def add(self, name: str) -> None:
        write_video(self.folder / f"{name}.mp4", ord(name))

    def remove(self, name: str) -> None:
        for suffix in (".mp4", ".json"):
            (self.folder / f"{name}{suffix}").unlink()

    def build(self) -> list[tuple[str, int | None]]:
        """Stages that were run, with their chunk."""
        config = DatasetConfig(name="videos", source=str(self.folder), chunk_size=2)
        report = run_build(self.space, [DatasetBuild(dataset=config)], workers=1)
        assert report.failed == []
        return sorted(((d.run.stage, d.run.chunk) for d in report.done), key=str)

    def indices(self, snapshot: int | None = None) -> dict[str, int]:
        lake = Lake(self.space, read_only=True, snapshot=snapshot)
        sql = "SELECT split_part(source_id, '.', 1), episode_index FROM episodes WHERE status = 'ok' ORDER BY 1"
        return dict(lake.rows(sql))

    def labelled(self) -> list[int]:
        lake = Lake(self.space, read_only=True)
        return [
            r[0] for r in lake.rows("SELECT DISTINCT episode_index FROM active_progress ORDER BY 1")
        ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("incremental") / "place"


@pytest.fixture
def videos(place: Path) -> Videos:
    videos_made = Videos(restored(place, Videos.make))
    assert videos_made.indices() == {"b": 0, "d": 1, "f": 2}
    return videos_made


PER_CHUNK = ("demonstrations", "frames", "progress", "samples", "segments", "shards")


@pytest.mark.slow
def test_new_episodes_get_new_indices_wherever_they_sort(videos: Videos) -> None:
    videos.add("a")
    redone = videos.build()
    assert videos.indices() == {"b": 0, "d": 1, "f": 2, "a": 3}
    assert redone == sorted(
        [("episodes", None), *((s, 1) for s in PER_CHUNK)], key=str
    )  # chunk 0 is as it was
    videos.add("c")
    assert {chunk for _, chunk in videos.build()} == {None, 2}
    assert videos.labelled() == [0, 1, 2, 3, 4]


def test_a_removed_episode_stays_in_the_old_snapshot(videos: Videos) -> None:
    snapshot_before = Lake(videos.space, read_only=True).snapshot()
    videos.remove("d")
    assert videos.build() == sorted([("episodes", None), *((s, 0) for s in PER_CHUNK)], key=str)
    assert videos.indices() == {"b": 0, "f": 2}
    assert videos.labelled() == [0, 2]
    assert videos.indices(snapshot_before) == {"b": 0, "d": 1, "f": 2}


@pytest.mark.slow
def test_an_index_is_not_given_to_another_and_is_given_back(videos: Videos) -> None:
    videos.remove("f")
    videos.add("e")
    videos.build()
    assert videos.indices() == {"b": 0, "d": 1, "e": 3}
    videos.add("f")
    videos.build()
    assert videos.indices() == {"b": 0, "d": 1, "f": 2, "e": 3}


def test_a_changed_episode_redoes_its_chunk(videos: Videos) -> None:
    path = videos.folder / "f.mp4"
    sql = "SELECT content_hash FROM episode_content ORDER BY episode_index"
    hashes_before = Lake(videos.space, read_only=True).column(sql)
    write_video(path, seed=1)
    os.utime(path, ns=(1, 1))  # also when its time goes back
    assert {chunk for _, chunk in videos.build()} == {None, 1}
    hashes_now = Lake(videos.space, read_only=True).column(sql)
    assert (hashes_now[:2], hashes_now[2] != hashes_before[2]) == (hashes_before[:2], True)
