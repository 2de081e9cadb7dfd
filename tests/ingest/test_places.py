"""Where datasets lie: names of files alone say what a folder holds, and what it is a part of."""

from pathlib import Path

import pytest

from ingest.source import format_of, part_of, places_of
from ingest.sources.types import SourceError
from tests.kits.lerobot_writer import source_of

V3 = (
    "meta/info.json",
    "meta/episodes/chunk-000/file-000.parquet",
    "data/chunk-000/file-000.parquet",
)
V2 = (
    "meta/info.json",
    "data/chunk-000/episode_000000.parquet",
    "videos/chunk-000/front/episode_000000.mp4",
)


def written(root: Path, *uris: str) -> Path:
    for uri in uris:
        (root / uri).parent.mkdir(parents=True, exist_ok=True)
        (root / uri).touch()
    return root


def test_a_folder_that_only_says_what_it_is(tmp_path: Path) -> None:
    """A download that lost its files is still a LeRobot dataset, which has a finding, and no folder of videos."""
    (tmp_path / "meta").mkdir()
    written(tmp_path, "films/a.mp4")
    assert [(p.folder, p.format.name) for p in places_of(source_of(tmp_path)).datasets] == [
        ("", "lerobot")
    ]


@pytest.mark.parametrize(
    "part",
    [
        "meta",
        "meta/episodes",
        "data",
        "data/chunk-000",
        "videos",
        "videos/front",
        "videos/front/chunk-000",
    ],
)
def test_parts_of_a_dataset_are_refused_with_the_way_up(tmp_path: Path, part: str) -> None:
    root = written(tmp_path / "set", *V3, "videos/front/chunk-000/file-000.mp4")
    source = source_of(root / part)
    assert part_of(source) == str(root)
    with pytest.raises(
        SourceError, match=f"{root}/{part} is a part of the dataset {root}: give that folder"
    ):
        format_of(source)
    with pytest.raises(
        SourceError, match=f"not in the format rlds: it is a part of the dataset {root}:"
    ):
        format_of(source_of(root / part, format="rlds"))


def test_several_datasets_are_none(tmp_path: Path) -> None:
    written(tmp_path / "a", *V3)
    written(tmp_path / "b", *V2)
    with pytest.raises(SourceError, match="is no dataset, but holds a, b: give the folder of one"):
        format_of(source_of(tmp_path))
    with pytest.raises(SourceError, match="is not in the format rlds: its files look like lerobot"):
        format_of(source_of(tmp_path, format="rlds"))
