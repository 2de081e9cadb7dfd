"""Registry files: what they may say, one line for each way to get them wrong, and what the built-in ones say."""

from pathlib import Path

import pytest

from core.errors import UserError
from ingest.registry import (
    BUILT_IN,
    DatasetConfig,
    Gripper,
    facts,
    load_entry,
    load_registry,
    readable,
)
from ingest.source import format_of, part_of, places_of
from ingest.sources.types import SourceError
from tests.kits.files import table
from tests.kits.lerobot_writer import source_of
from warehouse.releases.contents import UNKNOWN, classify


@pytest.mark.parametrize(
    ("text", "views"),
    [
        ("cameras: [front, wrist]", ("front", "wrist")),
        ("cameras: {wrist: [wrist], views: [front, wrist]}", ("front", "wrist")),
        ("cameras: front", ("front",)),
        ("camera: front", ("front",)),
        ("cameras: {exo: [front]}", ()),
    ],
)
def test_the_views_that_labels_are_made_by(tmp_path, text, views):
    (tmp_path / "a.yaml").write_text(f"name: a\nsource: b\n{text}\n")
    entry = load_entry(tmp_path / "a.yaml")
    assert entry.cameras.views == views
    assert entry.cameras.ordered() == (views or ("front",))
    assert DatasetConfig.model_validate_json(entry.model_dump_json()) == entry


@pytest.mark.parametrize(
    ("text", "what"),
    [*table("wrong_entries"), ("[" * 3_000, "exceeded maximum nesting depth")],
)
def test_errors_in_one_line(tmp_path, text, what):
    path = tmp_path / "bad.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError) as error:
        load_entry(path)
    message = str(error.value)
    assert str(path) in message
    assert what in message
    assert "\n" not in message


def test_unreadable_file(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*none\.yaml: No such file"):
        load_entry(tmp_path / "none.yaml")
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        load_entry(tmp_path)


def test_a_name_used_twice(tmp_path):
    (tmp_path / "a.yaml").write_text("name: arm\nsource: x\n")
    (tmp_path / "b.yml").write_text("name: arm\nsource: y\n")
    with pytest.raises(UserError, match=r"b\.yml: the name arm is used by another file too"):
        load_registry([tmp_path])


def test_licences_that_a_converter_wrote_are_called_so():
    published = {
        n: e for n, e in load_registry([BUILT_IN]).items() if n not in ("sim_long", "sim_short")
    }
    by_default = {n for n, e in published.items() if "default" in (e.license or "")}
    assert by_default == {"bridge_v2", "dobbe", "fmb", "fractal", "language_table"}
    assert {classify(published[n].license).kind for n in by_default} == {UNKNOWN}
    assert not any("port's card" in (e.license or "") for e in published.values())
    for name, e in published.items():
        if e.source.startswith("hf://IPEC-COMMUNITY/"):
            assert e.license != "apache-2.0", name
            assert "its converter writes that for every dataset" in (e.notes or ""), name


def shown(gripper: Gripper | tuple[Gripper, ...] | None) -> str | None:
    """What is said of an entry's grippers."""
    lines = readable(facts(DatasetConfig(name="a", source="b", gripper=gripper), None))
    return {line["field"]: line["value"] for line in lines}.get("gripper")


def test_one_gripper_or_none():
    assert shown(Gripper(dimension=6)) == "state[6]"
    assert shown(Gripper(column="none")) == "none"
    assert shown(None) is None


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


def test_a_folder_that_only_says_what_it_is(tmp_path):
    # A download that lost its files is still a LeRobot dataset, which has a finding, and no folder of videos
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
def test_parts_of_a_dataset_are_refused_with_the_way_up(tmp_path, part):
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


def test_several_datasets_are_none(tmp_path):
    written(tmp_path / "a", *V3)
    written(tmp_path / "b", *V2)
    with pytest.raises(SourceError, match="is no dataset, but holds a, b: give the folder of one"):
        format_of(source_of(tmp_path))
    with pytest.raises(SourceError, match="is not in the format rlds: its files look like lerobot"):
        format_of(source_of(tmp_path, format="rlds"))
