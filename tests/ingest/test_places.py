"""Where datasets lie: names of files alone say what a folder holds, and what it is a part of."""

from pathlib import Path

import pytest

from ingest.places import Places, part_of, places_of
from ingest.registry import DatasetConfig
from ingest.source import format_of
from ingest.sources.files import Source
from ingest.sources.types import FileStat, SourceError

V3 = ("meta/info.json", "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet")
V2 = ("meta/info.json", "data/chunk-000/episode_000000.parquet", "videos/chunk-000/front/episode_000000.mp4")
RLDS = ("1.0.0/features.json", "1.0.0/dataset_info.json", "1.0.0/{name}-train.tfrecord-00000-of-00001")
TASK = ("meta/task_info.json", "data/episode_0/videos/front.mp4", "data/episode_0/states/states.jsonl")
SCENE = "task_0001_user_0001_scene_0001_cfg_0001/cam_1/color.mp4"
TWIN = ("data/episode0.hdf5", "instructions/episode0.json")
AGIBOT = ("task_info/task_1.json", "observations/1/2/videos/head_color.mp4", "proprio_stats/1/2/proprio_stats.h5")


def below(folder: str, uris: tuple[str, ...], name: str = "") -> list[str]:
    return [f"{folder}/{uri}".format(name=name) for uri in uris]


def written(root: Path, *uris: str) -> Path:
    for uri in uris:
        (root / uri).parent.mkdir(parents=True, exist_ok=True)
        (root / uri).touch()
    return root


def source_at(root: Path, **fields: str) -> Source:
    return Source(DatasetConfig(name="toy", source=str(root), **fields))


def held(places: Places) -> dict[str, str]:
    return {place.folder: place.format.name for place in places.datasets}


@pytest.mark.parametrize(
    ("uris", "expected"),
    [
        # A dataset is itself, whatever lies inside it
        (V3, {"": "lerobot"}),
        (V2, {"": "lerobot"}),
        (AGIBOT, {"": "agibot"}),
        ([*V3, "notes/a.mp4", "old/meta/info.json"], {"": "lerobot"}),
        # Datasets in folders, at any depth
        (below("a", V3) + below("b/c", V2) + below("d", AGIBOT), {"a": "lerobot", "b/c": "lerobot", "d": "agibot"}),
        (below("wrapped/once", V3), {"wrapped/once": "lerobot"}),
        # The configurations of one RLDS dataset are one; others are not
        (below("x", RLDS, "x"), {"": "rlds"}),
        (below("x/a", RLDS, "x") + below("x/b", RLDS, "x"), {"x": "rlds"}),
        (below("x", RLDS, "x") + below("y", RLDS, "y"), {"x": "rlds", "y": "rlds"}),
        # Tasks of one release are one dataset, as long as nothing else lies there
        (below("a", TASK) + below("b", TASK), {"": "table30"}),
        (below("t/a", TASK) + below("t/b", TASK) + below("l", V3), {"t": "table30", "l": "lerobot"}),
        (below("a", TASK) + below("l", V3), {"a": "table30", "l": "lerobot"}),
        ([f"RH20T_cfg1/{SCENE}", f"RH20T_cfg2/{SCENE}"], {"": "rh20t"}),
        (below("task/config", TWIN) + below("other/config", TWIN), {"": "robotwin"}),
        (below("twin/task/config", TWIN) + below("l", V3), {"twin": "robotwin", "l": "lerobot"}),
        # Single files: rows count before videos, and each folder beside a dataset is one of its own
        (["a.hdf5", "clips/a.mp4"], {"": "hdf5"}),
        (["demos/a.hdf5", "clips/a.mp4"], {"": "hdf5"}),
        (["a/1.mp4", "b/2.mp4"], {"": "video"}),
        (["h/x/a.hdf5", "v/1/a.mp4", "v/2/b.mp4", *below("l", V3)], {"h": "hdf5", "v": "video", "l": "lerobot"}),
        (["notes.txt"], {}),
    ],
)
def test_places(tmp_path: Path, uris: list[str], expected: dict[str, str]) -> None:
    assert held(places_of(source_at(written(tmp_path, *uris)))) == expected


def test_a_folder_that_only_says_what_it_is(tmp_path: Path) -> None:
    """A download that lost its files is still a LeRobot dataset, which has a finding, and no folder of videos."""
    (tmp_path / "meta").mkdir()
    written(tmp_path, "films/a.mp4")
    assert held(places_of(source_at(tmp_path))) == {"": "lerobot"}


def test_what_lies_beside_datasets(tmp_path: Path) -> None:
    uris = [*below("l", V3), "teaser.mp4", "bare/a.mp4", "told/a.mp4", "told/a.json", "README.md"]
    places = places_of(source_at(written(tmp_path, *uris)))
    assert [(p.folder, p.is_bare) for p in places.datasets] == [("bare", True), ("l", False), ("told", False)]
    assert places.beside == ("teaser.mp4",)


def test_a_stated_format_counts_alone(tmp_path: Path) -> None:
    written(tmp_path, *below("l", V3), *below("x", RLDS, "x"), "clip.mp4")
    assert held(places_of(source_at(tmp_path, format="rlds"))) == {"": "rlds"}
    assert held(places_of(source_at(tmp_path, format="lerobot"))) == {"l": "lerobot"}
    assert held(places_of(source_at(tmp_path, format="video"))) == {"": "video"}
    assert held(places_of(source_at(tmp_path, format="table30"))) == {}


@pytest.mark.parametrize(
    "part", ["meta", "meta/episodes", "data", "data/chunk-000", "videos", "videos/front", "videos/front/chunk-000"]
)
def test_parts_of_a_dataset_are_refused_with_the_way_up(tmp_path: Path, part: str) -> None:
    root = written(tmp_path / "set", *V3, "videos/front/chunk-000/file-000.mp4")
    source = source_at(root / part)
    assert part_of(source) == str(root)
    with pytest.raises(SourceError, match=f"{root}/{part} is a part of the dataset {root}: give that folder"):
        format_of(source)
    with pytest.raises(SourceError, match=f"not in the format rlds: it is a part of the dataset {root}:"):
        format_of(source_at(root / part, format="rlds"))


def test_parts_of_other_formats_and_of_none(tmp_path: Path) -> None:
    written(tmp_path, *below("t/task", TASK), *below("a", AGIBOT), "videos/holiday/a.mp4")
    assert part_of(source_at(tmp_path / "t/task/data/episode_0/videos")) == str(tmp_path / "t/task")
    assert part_of(source_at(tmp_path / "a/observations/1/2/videos")) == str(tmp_path / "a")
    assert part_of(source_at(tmp_path / "videos")) is None
    assert part_of(source_at(tmp_path)) is None


def test_videos_of_a_dataset_are_taken_when_somebody_says_so(tmp_path: Path) -> None:
    written(tmp_path, *V2)
    videos = tmp_path / "videos"
    assert format_of(source_at(videos, format="video")).name == "video"
    assert format_of(source_at(videos / "chunk-000/front/episode_000000.mp4")).name == "video", "one file, by name"


@pytest.mark.parametrize(
    ("address", "part", "whole"),
    [
        ("hf://someone/set/videos", "front/chunk-000/file-000.mp4", "hf://someone/set"),
        ("hf://someone/all/set/data/", "chunk-000/file-000.parquet", "hf://someone/all/set"),
        ("s3://bucket/set/videos/front", "chunk-000/file-000.mp4", "s3://bucket/set"),
        ("hf://someone/set", "front/chunk-000/file-000.mp4", None),
    ],
)
def test_parts_elsewhere(tmp_path: Path, address: str, part: str, whole: str | None) -> None:
    source = Source(DatasetConfig(name="toy", source=address), None, tmp_path)
    vars(source)["files"] = {part: FileStat(1, "")}
    assert part_of(source) == whole


def test_several_datasets_are_none(tmp_path: Path) -> None:
    written(tmp_path, *below("a", V3), *below("b", V2))
    with pytest.raises(SourceError, match="is no dataset, but holds a, b: give the folder of one"):
        format_of(source_at(tmp_path))
    with pytest.raises(SourceError, match="is not in the format rlds: its files look like lerobot"):
        format_of(source_at(tmp_path, format="rlds"))
