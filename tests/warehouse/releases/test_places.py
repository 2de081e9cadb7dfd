"""A place holds what was published there and nothing else: after interruptions, takedowns, and beside other files."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import FailedError, UserError
from tests.kits.hub_server import hub_of
from warehouse.lake import Lake
from warehouse.lake.recordings import withdraw
from warehouse.releases import places
from warehouse.releases.contents import ReleaseError
from warehouse.releases.places import JOURNAL, MANIFEST, FolderTarget, open_target
from warehouse.releases.publish import publish, verify_published
from warehouse.releases.release import Release, create_release

ANY = ("unknown",)
MOMENTS = range(1, 11)  # steps of a publication, before each of which it is ended once
HUB = "hf://datasets/robots/tiny"


def taken_down(lake: Lake) -> Release:
    """The next release, without a run that somebody withdrew."""
    withdraw(lake, "tiny", [0], "asked by the person shown")
    return create_release(lake, "r2", allow=ANY)


def end_before(monkeypatch: pytest.MonkeyPatch, moment: int, error: BaseException) -> None:
    """Raise an error in the place of the so manieth step of publishing to a folder."""
    steps = iter(range(1, 1000))

    def ended(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            if next(steps) == moment:
                if step is copy and isinstance(args[1], Path):
                    args[1].write_bytes(args[0].source.read_bytes()[: args[0].bytes // 2])
                raise error
            return step(*args)

        return run

    copy = places.copy_checked
    monkeypatch.setattr(places, "copy_checked", ended(copy))
    monkeypatch.setattr(places, "write_file", ended(places.write_file))
    monkeypatch.setattr(FolderTarget, "_remove", ended(FolderTarget._remove))


def check_whole(target: str, release: Release) -> None:
    """The place holds the manifest and exactly what it lists, and all of that is as it was frozen."""
    manifest, failures = verify_published(target)
    assert failures == []
    assert manifest["release"] == release.name
    assert set(open_target(target).files()) == {f["path"] for f in manifest["files"]} | {MANIFEST}
    listed = {f["path"] for f in manifest["files"] if f["path"].endswith(".tar")}
    assert listed == {shard.address for shard in release.shard_list}


@pytest.mark.parametrize(
    ("where", "moments"),
    [
        ("folder", (1, 8)),
        pytest.param("folder", MOMENTS, marks=pytest.mark.long),
        pytest.param("bucket", MOMENTS, marks=pytest.mark.long),
    ],
)
def test_an_interrupted_publication_leaves_nothing_to_the_next(
    where, moments, released, tmp_path, request
):
    lake, first = released
    if where == "bucket":
        request.getfixturevalue("s3")
    root = str(tmp_path / "out") if where == "folder" else "s3://corpora/out"
    for moment in moments:
        with pytest.MonkeyPatch.context() as patch:
            end_before(patch, moment, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                publish(lake, first, f"{root}/{moment}")
        with pytest.raises(ReleaseError, match="holds no whole release"):
            verify_published(f"{root}/{moment}")
    second = taken_down(lake)
    assert len(second.shard_list) < len(first.shard_list)
    for moment in moments:
        publish(lake, second, f"{root}/{moment}")
        check_whole(f"{root}/{moment}", second)


def test_a_repository_of_the_hub_after_interruptions(released, monkeypatch):
    lake, first = released
    monkeypatch.setattr(places, "COMMIT_FILES", 3)
    with hub_of("robots/tiny") as hub:
        for commit in (2, 4, 5):
            hub.fail_at_commit = hub.sent + commit
            with pytest.raises(FailedError, match="run again to go on"):
                publish(lake, first, HUB)
        second = taken_down(lake)
        assert publish(lake, second, HUB).removed > 0
        check_whole(HUB, second)


@pytest.mark.long
def test_a_disk_full_at_each_file(released, tmp_path):
    lake, release = released
    full = OSError(errno.ENOSPC, "No space left on device")
    for moment in MOMENTS:
        target_folder = tmp_path / "out" / str(moment)
        with pytest.MonkeyPatch.context() as patch:
            end_before(patch, moment, full)
            with pytest.raises(UserError):
                publish(lake, release, str(target_folder))
        assert not (target_folder / MANIFEST).exists()
        publish(lake, release, str(target_folder))
        check_whole(str(target_folder), release)


@pytest.mark.parametrize("path", ["README.md", "shards/train/other-00000.tar"])
def test_files_of_others_are_refused_and_untouched(released, tmp_path, path):
    mine = tmp_path / "out" / path
    mine.parent.mkdir(parents=True)
    mine.write_text("my own notes")
    for dry_run in (True, False):
        with pytest.raises(ReleaseError, match=f"files that no publication wrote .{path}"):
            publish(*released, str(tmp_path / "out"), dry_run=dry_run)
    assert mine.read_text() == "my own notes"
    assert set(open_target(str(tmp_path / "out")).files()) == {path}
    planned = publish(*released, str(tmp_path / "out"), dry_run=True, replace=True)
    assert mine.exists()
    assert publish(*released, str(tmp_path / "out"), replace=True) == planned
    assert planned.removed == (path != "README.md"), "a file of the same name is written anew"
    check_whole(str(tmp_path / "out"), released[1])


def test_a_place_that_holds_another_release(released, tmp_path):
    lake, first = released
    publish(lake, first, str(tmp_path / "out"))
    second = taken_down(lake)
    with pytest.raises(ReleaseError, match=r"holds something else \(release r1.*--replace"):
        publish(lake, second, str(tmp_path / "out"))
    check_whole(str(tmp_path / "out"), first)
    publish(lake, second, str(tmp_path / "out"), replace=True)
    check_whole(str(tmp_path / "out"), second)


@pytest.mark.parametrize("size", [0, 100])
def test_a_manifest_that_was_cut_off_is_none(released, tmp_path, size):
    publish(*released, str(tmp_path / "out"))
    path = tmp_path / "out" / MANIFEST
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ReleaseError, match="no readable manifest"):
        verify_published(str(tmp_path / "out"))
    assert publish(*released, str(tmp_path / "out")).sent == 0
    check_whole(str(tmp_path / "out"), released[1])


def test_verify_names_what_was_added_or_changed(released, tmp_path):
    publish(*released, str(tmp_path / "out"))
    (tmp_path / "out/shards/train/extra.tar").write_bytes(b"x")
    (tmp_path / "out/README.md").write_text(
        (tmp_path / "out/README.md").read_text() + "All errors removed.\n"
    )
    content = json.loads((tmp_path / "out" / MANIFEST).read_text())
    (tmp_path / "out" / MANIFEST).write_text(json.dumps(content | {"snapshot": 1}))
    wrong = {
        Path(failure.file or "").name: failure.detail
        for failure in verify_published(str(tmp_path / "out"))[1]
    }
    assert wrong.keys() == {"extra.tar", "README.md", MANIFEST}
    assert "does not list it" in wrong["extra.tar"]
    assert JOURNAL not in open_target(str(tmp_path / "out")).files()
