"""The datasets of a folder or a repository: names, what is left out, what is refused."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import UserError
from core.paths import Workspace
from ingest.registry import DatasetConfig, load_entry
from ingest.sources.types import DownloadError, SourceError
from pipeline.build import run_build
from pipeline.config import DatasetBuild
from pipeline.inspection import inspect_source
from pipeline.sources import builds_of_source, with_folders
from tests.kits.files import files_of
from tests.kits.hub_server import Hub, public_hub
from tests.kits.lerobot_writer import write_v2, write_v3
from tests.kits.tiny_lerobot import make_dataset
from warehouse.lake import Lake


@pytest.fixture
def space(tmp_path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def held(tmp_path) -> Path:
    """A folder with two datasets, one of them deeper, among other things."""
    root = tmp_path / "held"
    write_v2(root / "Pick & Place.v2", [6])
    write_v3(root / "more" / "sort", [6, 7])
    (root / "notes").mkdir()
    (root / "notes" / "readme.txt").write_text("what these are\n")
    return root


def named(builds: tuple[DatasetBuild, ...]) -> dict[str, str]:
    return {build.name: build.dataset.source for build in builds}


def test_videos_that_nothing_describes_are_left_out_where_there_is_better(space, held):
    for name in ("clips/a.mp4", "teaser.mp4"):
        (held / name).parent.mkdir(exist_ok=True)
        (held / name).touch()
    builds, notes = builds_of_source(space, None, str(held))
    assert list(named(builds)) == ["pick_place_v2", "sort"]
    assert "videos that nothing describes (clips)" in notes[1]
    assert "1 files beside the datasets' folders (teaser.mp4)" in notes[2]
    shutil.rmtree(held / "more")
    shutil.rmtree(held / "Pick & Place.v2")
    assert named(builds_of_source(space, None, str(held))[0]) == {"held": str(held)}, (
        "nothing better is there"
    )


def test_names_that_clash(space, held):
    """Folders of one name are told apart by those above them, as recorders number them by machine and process."""
    write_v2(held / "other" / "Sort", [6])
    builds, _ = builds_of_source(space, None, str(held))
    assert list(named(builds)) == ["pick_place_v2", "more-sort", "other-sort"]
    write_v2(held / "Other" / "sort", [6])
    with pytest.raises(
        UserError, match=r"Other/sort and .*other/Sort would both be called other-sort"
    ):
        builds_of_source(space, None, str(held))
    write_v2(held / "..." / "写真", [6])
    with pytest.raises(UserError, match=r"写真 gives no dataset name .*--name NAME"):
        builds_of_source(space, None, str(held / "..."))
    assert named(builds_of_source(space, None, str(held / "..."), name="photos")[0]).keys() == {
        "photos"
    }


def test_a_name_that_the_workspace_has_of_another_source(space, tmp_path):
    first = make_dataset(tmp_path / "a" / "tiny")
    second = make_dataset(tmp_path / "b" / "tiny")
    assert not run_build(
        space, builds_of_source(space, None, str(first), episodes=(0,))[0], workers=1
    ).failed
    lake = Lake(space)
    with pytest.raises(
        UserError, match=f"has a dataset tiny from {first}: give that of {second} another name"
    ):
        builds_of_source(space, lake, str(second))
    with pytest.raises(UserError, match="has a dataset tiny from"):
        builds_of_source(space, lake, str(second), name="tiny")
    assert named(builds_of_source(space, lake, str(second), name="tiny", same=True)[0]) == {
        "tiny": str(second)
    }
    assert named(builds_of_source(space, lake, str(first))[0]) == {"tiny": str(first)}
    shutil.rmtree(first)
    assert named(builds_of_source(space, lake, str(second))[0]) == {"tiny": str(second)}, (
        "it was moved"
    )


def test_what_holds_nothing_is_refused(space, tmp_path, held):
    (tmp_path / "empty").mkdir()
    for source, format_, message in (
        (tmp_path / "empty", None, "is an empty folder"),
        (held / "notes", None, "is in no format that is read here"),
        (held / "more/sort/videos", None, "is a part of the dataset"),
        (held, "rlds", "is not in the format rlds: its files look like lerobot"),
    ):
        with pytest.raises(SourceError, match=message):
            builds_of_source(space, None, str(source), format=format_)
    assert not space.exists()


def entry_of(folder: Path, text: str) -> DatasetBuild:
    path = folder / "tasks.yaml"
    path.write_text(f"name: tasks\nsource: held\n{text}")
    return DatasetBuild(dataset=load_entry(path))


def test_an_entry_of_several_datasets(space, tmp_path, held):
    entry = entry_of(
        tmp_path,
        'folders: ["*"]\ntitle: Tasks\nrole: ood\npublished: {fps: 10, episodes: 99}\nlicense: cc-by-4.0\n',
    )
    single = DatasetBuild(dataset=DatasetConfig(name="single", source=str(held / "more/sort")))
    builds = with_folders(space, None, [single, entry])
    assert [build.name for build in builds] == ["single", "tasks-pick_place_v2", "tasks-sort"]
    part = builds[2].dataset
    assert (part.title, part.role, part.license, part.folders) == (
        "Tasks: more/sort",
        "ood",
        "cc-by-4.0",
        (),
    )
    assert (part.published.fps, part.published.episodes) == (10, None), (
        "the count is that of all of them"
    )
    assert [
        b.name for b in with_folders(space, None, [entry_of(tmp_path, 'folders: ["more/*"]\n')])
    ] == ["tasks-sort"]


REPO = "someone/tasks"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with public_hub(REPO) as hub:
        yield hub


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> dict[str, bytes]:
    return files_of(make_dataset(tmp_path_factory.mktemp("tiny") / "tiny"))


def in_folder(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{uri}": data for uri, data in files.items()}


def test_what_a_repository_holds_is_listed(hub, tiny):
    commit = hub.commit(in_folder("a", tiny) | in_folder("deep/b", tiny))
    inspected = inspect_source(f"hf://{REPO}")
    assert [(row["folder"], row["episodes"], row["error"]) for row in inspected["datasets"]] == [
        ("a", 5, None),
        ("deep/b", 5, None),
    ]
    assert inspected["revision"] == commit
    assert not any(uri.endswith(".mp4") for uri in hub.fetched()), "by its metadata"
    hub.refuse["a/meta/info.json"] = [403]
    first, second = inspect_source(f"hf://{REPO}")["datasets"]
    assert (first["episodes"], second["episodes"]) == (0, 5)
    assert "403 refused" in first["error"]


def test_an_entry_that_is_out_of_reach_holds_up_no_other(space, hub, tiny):
    hub.commit(in_folder("a", tiny))
    hub.token = "hf_secret"
    entry = DatasetBuild(dataset=DatasetConfig(name="tasks", source=f"hf://{REPO}", folders=("*",)))
    other_build = DatasetBuild(dataset=DatasetConfig(name="other", source="somewhere"))
    assert with_folders(space, None, [entry, other_build]) == (entry, other_build)
    with pytest.raises(DownloadError, match="HF_TOKEN"):
        run_build(space, [entry])
