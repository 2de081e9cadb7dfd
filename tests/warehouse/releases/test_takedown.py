"""Taking data down: marks, plans, builds, releases, and what gc deletes."""

from itertools import chain
from pathlib import Path

import pytest

from core.files import write_file
from pipeline.build import run_build
from pipeline.plan import CURRENT, plan
from pipeline.stages import stage_specs
from tests.kits.lake_kit import put_rows
from tests.kits.made_corpus import Made, build_of
from warehouse.lake import Lake
from warehouse.lake.gc import collect
from warehouse.lake.statements import take_down, taken_down, undo_takedown
from warehouse.releases.contents import ReleaseError, contents
from warehouse.releases.publish import publish
from warehouse.releases.release import (
    card_path,
    create_release,
    delete_release,
    get_release,
    verify_release,
)

pytestmark = pytest.mark.slow

ANY = ("unknown",)
NOW = -5.0  # grace: as if all files were old
# Shards with samples that show an episode: its own, and those of other tasks that are asked with its pictures
SHOWING = (
    "SELECT DISTINCT shard FROM sample_location JOIN samples USING (sample_id) "
    "WHERE list_contains(list_transform(pictures, lambda p: p.episode_index), ?)"
)


def stale(lake: Lake, own_corpus: Made) -> set[tuple[str, int | None]]:
    build = build_of(own_corpus.source)
    steps = plan(
        lake,
        {"tiny": stage_specs(build)},
        {"tiny": build.source(own_corpus.space.sources).fingerprint()},
    )
    return {
        (s.stage.name, s.chunk)
        for s in steps
        if s.status != CURRENT and s.stage.name in ("episodes", "frames")
    }


def holders(root: Path, names: set[str]) -> set[str]:
    return {p.name for p in root.rglob("*") if p.name in names}


def test_from_the_mark_to_the_last_byte(own: Made):
    lake = Lake(own.space)
    root = own.space.root
    former_release = create_release(lake, "before", allow=ANY)
    pictures = {
        f"{r[0]}.jpg" for r in lake.rows("SELECT sha256 FROM keyframes WHERE episode_index = 1")
    }
    shards = {r[0] for r in lake.rows(SHOWING, [1])}
    data = {p.name for p in (own.space.data / "main" / "frames").rglob("chunk=0/*.parquet")}
    assert pictures
    assert shards
    assert stale(lake, own) == set()

    take_down(lake, "tiny", [1], "she asked for it")
    assert stale(lake, own) >= {("episodes", None)}
    contents_now = contents(lake, ANY)
    assert shards == set(
        chain.from_iterable(left_entry.shards for left_entry in contents_now.left_out)
    )
    assert not shards & {s.shard for s in contents_now.shards}
    assert "episodes taken down (1); build the dataset again" in str(contents_now.left_out[0])
    create_release(lake, "after", release_contents=contents_now)

    times_before = dict(
        lake.rows("SELECT chunk, finished_at FROM stage_runs WHERE stage = 'frames'")
    )
    assert not run_build(own.space, [build_of(own.source)], workers=1).failed
    times_after = dict(
        lake.rows("SELECT chunk, finished_at FROM stage_runs WHERE stage = 'frames'")
    )
    assert {c for c in times_after if times_after[c] != times_before[c]} == {0}, (
        "its own chunk alone is made again"
    )
    assert lake.rows("SELECT episode_index, reason, detail FROM quarantine") == [
        (1, "taken_down", "she asked for it")
    ]
    assert stale(lake, own) == set()
    assert contents(lake, ANY).left_out == ()
    for table in ("samples", "progress", "segments", "frames", "keyframes"):
        assert lake.rows(f"SELECT count(*) FROM {table} WHERE episode_index = 1") == [(0,)]
    create_release(lake, "built", allow=ANY)
    assert "1 episodes are left out for taken_down" in card_path(own.space, "built").read_text()

    collect(lake, 0, grace_s=NOW)
    assert holders(root, pictures | shards | data) == pictures | shards | data, (
        "the older release still names them"
    )
    assert verify_release(lake, former_release) == []
    with pytest.raises(ReleaseError, match="tiny episode 1, which was taken down since"):
        publish(lake, former_release, str(root / "away"))

    delete_release(lake, "before")
    collect(lake, 0, grace_s=NOW)
    assert holders(root, pictures | shards) == set()
    delete_release(lake, "after")  # it was made before the build: its snapshot has the measurements
    collect(lake, 0, grace_s=NOW)
    assert holders(root, data) == set()
    assert verify_release(lake, get_release(lake, "built")) == []


def test_a_whole_dataset_is_left_out_at_once(own: Made):
    lake = Lake(own.space)
    take_down(lake, "tiny", None, "the lab withdrew it")
    assert taken_down(lake) == {"tiny": None}
    with pytest.raises(ReleaseError, match=r"tiny with .* samples: taken down"):
        contents(lake, ANY)
    assert not run_build(own.space, [build_of(own.source)], workers=1).failed
    assert lake.rows("SELECT count(*) FROM quarantine WHERE reason = 'taken_down'") == [(5,)]
    assert lake.rows("SELECT count(*) FROM shards") == [(0,)]


def test_each_of_several_is_taken_back_by_itself_also_one_that_left(own: Made):
    lake = Lake(own.space)
    take_down(lake, "tiny", [1, 2, 3], "the person shown asked")
    lake.con.execute("UPDATE recordings SET left_at = now() WHERE episode_index = 3")
    assert undo_takedown(lake, "tiny", [2]) == {"tiny": 1}
    assert lake.column("SELECT episode_index FROM takedowns ORDER BY 1") == [1, 3]
    assert undo_takedown(lake, "tiny", None) == {"tiny": 2}
    assert lake.rows("FROM takedowns") == []


def test_fetched_files_that_only_it_used_go(corpus: Lake):
    videos = [{"camera": "c", "uri": "all[1].mp4", "start_frame": 0}]
    facts = [
        {
            "dataset": "far",
            "episode_index": e,
            "chunk": 0,
            "source_id": str(e),
            "data_uri": uri,
            "videos": videos,
        }
        for e, uri in enumerate(["a/0.parquet", "a/1.tar!/x", "a/2.tar!/x", "a/2.tar!/y"])
    ]
    folder = corpus.workspace.sources / "far" / "main"
    files = ("a/0.parquet", "a/1.tar", "a/2.tar", "all[1].mp4", "meta.json")
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")
    put_rows(corpus, episode_facts=facts, datasets=[{"dataset": "far"}])
    edits = [corpus.workspace.edits("far", e) / "x.jpg" for e in (1, 3)]
    for path in edits:
        write_file(path, b"jpeg")
    take_down(corpus, "far", [1, 2], "x")

    def freed(*, dry_run: bool) -> tuple[int, int]:
        return next(
            (f.files, f.bytes)
            for f in collect(corpus, 0, dry_run=dry_run)
            if f.what.startswith("fetched")
        )

    assert freed(dry_run=True) == (1, 5)
    assert freed(dry_run=False) == (1, 5)
    assert [p.exists() for p in edits] == [False, True]
    files_left = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert files_left == set(files) - {"a/1.tar"}, "a/2.tar holds another episode too"
    take_down(corpus, "far", [0, 3], "x")
    assert freed(dry_run=False) == (3, 15)
    take_down(corpus, "far", None, "x")
    assert freed(dry_run=False) == (1, 5)
    assert not folder.exists()
