"""Releases: what they hold, what stays out, what blocks them, and whether they are still what was frozen."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import duckdb
import numpy as np
import pytest

from core.tables import TABLES
from core.version import VERSION
from pipeline.build import run_build
from tests.kits.made_corpus import Made, build_of
from tests.kits.tiny_lerobot import FPS, HEIGHT, LENGTHS, WIDTH, make_dataset, video_path, write_rows, write_video
from warehouse.lake import Lake
from warehouse.lake.checks import split_leaks
from warehouse.lake.gc import collect, merge
from warehouse.releases import (
    card_path,
    create_release,
    delete_release,
    find_release,
    get_release,
    guards,
    local_release,
)
from warehouse.releases.contents import LOCAL, ReleaseError, contents
from warehouse.releases.guards import unchanged_datasets
from warehouse.releases.publish import publish
from warehouse.releases.verify import verify_release
from warehouse.shards import index_path

ANY = ("unknown",)  # the tiny dataset states no licence


def licence(lake: Lake, text: str | None) -> None:
    lake.con.execute("UPDATE datasets SET license = ?", [text])


# What a release holds


def test_it_holds_what_the_corpus_has_and_says_so(corpus: Lake):
    release = create_release(corpus, "r1", allow=ANY)
    recorded = corpus.rows("SELECT shard, dataset, chunk, episodes, samples, bytes, sha256 FROM shards ORDER BY shard")
    assert [
        (s.shard, s.dataset, s.chunk, s.episodes, s.samples, s.bytes, s.sha256) for s in release.shard_list
    ] == recorded
    assert release == get_release(corpus) == find_release(corpus, "r1")
    assert {p.name for p in release.paths(corpus.workspace, "train")} == {s.shard for s in release.shards("train")}
    assert all(p.exists() for p in release.paths(corpus.workspace, "train", "val", "test_id"))
    card = card_path(corpus.workspace, "r1").read_text()
    samples = sum(s.samples for s in release.shard_list)
    for text in (
        f"snapshot {release.snapshot}",
        f"by proccorpus {VERSION}",
        "not stated",
        f"| {samples} |",
        "by motion",
        "licence of tiny is not known",
    ):
        assert text in card


def test_equal_content_has_an_equal_hash_and_other_content_another(corpus: Lake):
    first = create_release(corpus, "r1", allow=ANY)
    assert create_release(corpus, "r2", allow=ANY).config_hash == first.config_hash
    corpus.con.execute("DELETE FROM shards WHERE split = 'val'")
    assert create_release(corpus, "r3", allow=ANY).config_hash != first.config_hash


def test_what_is_not_open_stays_out_unless_it_is_named(corpus: Lake):
    for stated, name in ((None, "unknown"), ("other", "unknown"), ("cc-by-nc-4.0", "cc-by-nc-4.0")):
        licence(corpus, stated)
        with pytest.raises(ReleaseError, match=f"nothing is left for a release.*--allow-licence {name}"):
            create_release(corpus, "r1", allow=("mit",))
        assert contents(corpus, (name,)).datasets == ["tiny"]


def test_for_training_here_no_licence_is_asked(corpus: Lake, tmp_path: Path):
    here = local_release(corpus)
    assert here.name == LOCAL
    assert [s.shard for s in here.shard_list] == [r[0] for r in corpus.rows("SELECT shard FROM shards ORDER BY 1")]
    assert "this release is for use here alone" in card_path(corpus.workspace, LOCAL).read_text()
    assert local_release(corpus) == here, "nothing new"
    with pytest.raises(ReleaseError, match="the release local was made for training here"):
        publish(corpus, here, str(tmp_path / "away"))
    corpus.con.execute("DELETE FROM shards WHERE split = 'val'")
    assert len(local_release(corpus).shard_list) < len(here.shard_list)


def test_the_rest_is_released_and_the_card_names_what_is_not(corpus: Lake):
    licence(corpus, "MIT")
    corpus.con.execute(
        "INSERT INTO datasets BY NAME SELECT 'closed' AS dataset, 'cc-by-nc-4.0' AS license, 'train' AS role"
    )
    corpus.con.execute("INSERT INTO shards SELECT * REPLACE ('closed' AS dataset, 'c-' || shard AS shard) FROM shards")
    held = contents(corpus)
    assert held.datasets == ["tiny"]
    assert [x.dataset for x in held.left_out] == ["closed"]
    release = create_release(corpus, "r1", held=held)
    assert {s.dataset for s in release.shard_list} == {"tiny"}
    card = card_path(corpus.workspace, "r1").read_text()
    assert "closed with" in card
    assert "--allow-licence cc-by-nc-4.0" in card
    licence(corpus, "MIT")
    assert contents(corpus).datasets == ["closed", "tiny"]


# What blocks it


def test_a_group_in_two_splits(corpus: Lake):
    corpus.con.execute("UPDATE splits SET \"group\" = 'one session'")
    with pytest.raises(ReleaseError, match=r"leaks into training.*group 'one session' of tiny"):
        create_release(corpus, "r1", allow=ANY)


def test_a_copy_of_an_episode_in_two_splits(corpus: Lake):
    corpus.con.execute("UPDATE episode_content SET content_hash = 'same' WHERE episode_index IN (1, 4)")
    with pytest.raises(ReleaseError, match=r"tiny episode 1 \(train\) and tiny episode 4 \(test_id\)"):
        create_release(corpus, "r1", allow=ANY)


def test_a_source_record_in_two_splits(corpus: Lake):
    corpus.con.execute("UPDATE episode_facts SET source_id = 'rec' WHERE episode_index IN (1, 4)")
    with pytest.raises(ReleaseError, match="tiny rec, which is episodes 1 and 4"):
        create_release(corpus, "r1", allow=ANY)


def test_a_second_release_reads_only_what_has_changed(corpus: Lake, monkeypatch: pytest.MonkeyPatch):
    create_release(corpus, "r1", allow=ANY)
    assert unchanged_datasets(corpus) == {"tiny"}
    frames = corpus.workspace.data / "main" / "frames"
    frames.rename(frames.with_name("away"))
    second = create_release(corpus, "r2", allow=ANY)
    assert second.config_hash == get_release(corpus, "r1").config_hash
    # Guards that find more look into everything again
    with monkeypatch.context() as patched:
        patched.setattr(guards, "CODE_VERSION", "guards-x")
        assert unchanged_datasets(corpus) == set()
        with pytest.raises(duckdb.IOException, match="frames"):
            create_release(corpus, "r3", allow=ANY)
    frames.with_name("away").rename(frames)

    # Merged files are no other rows; whatever else anybody changes is looked into
    merge(corpus)
    assert unchanged_datasets(corpus) == {"tiny"}
    corpus.con.execute("UPDATE progress SET progress = 2 WHERE episode_index = 1 AND frame_index = 3")
    assert unchanged_datasets(corpus) == set()
    with pytest.raises(ReleaseError, match=r"broken: progress of tiny: .*1 rows against"):
        create_release(corpus, "r3", allow=ANY)
    assert find_release(corpus, "r3") is None


def test_a_release_of_an_earlier_version_vouches_for_nothing(corpus: Lake):
    create_release(corpus, "r1", allow=ANY)
    corpus.freeze({"name": "old", "config_hash": "x"}, TABLES["release_shards"].empty())
    assert unchanged_datasets(corpus) == set()


def scene(n: int) -> list[np.ndarray]:
    """A square that wanders over a ground with large soft patches, as real scenes have them."""
    rng = np.random.default_rng(5)
    ground = cv2.resize(rng.integers(40, 200, (6, 8, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    pictures = []
    for k in range(n):
        picture = ground.copy()
        left, top = int((WIDTH - 20) * k / n), int((HEIGHT - 20) * (0.5 + 0.5 * np.sin(k / 4)))
        picture[top : top + 20, left : left + 20] = (250, 240, 20)
        pictures.append(picture)
    return pictures


def write_pictures(path: Path, pictures: list[np.ndarray], crf: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": str(crf), "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for k, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_pictures_of_training_encoded_anew_or_cut_in_a_test_split(made: Made, tmp_path: Path):
    copied, first = 2, 10  # a train episode; what one copy lacks
    anew, cut = len(LENGTHS), len(LENGTHS) + 1
    root = make_dataset(tmp_path / "source", (*LENGTHS, LENGTHS[copied], LENGTHS[copied] - first))
    pictures = scene(LENGTHS[copied])
    brighter = [(p * 1.05).clip(0, 255).astype(np.uint8) for p in pictures]
    for episode, shown, crf in ((copied, pictures, 18), (anew, brighter, 30), (cut, pictures[first:], 30)):
        write_pictures(video_path(root, episode), shown, crf)
        write_rows(root, episode, len(shown), scale=1.0 + 0.1 * episode)  # as recorded on another arm
    own = made.copy(tmp_path / "before")
    assert not run_build(own.space, [build_of(root)], workers=1).failed
    lake = Lake(own.space)
    lake.con.execute("UPDATE splits SET split = 'val' WHERE episode_index >= ?", [anew])
    outcome = split_leaks(lake)
    assert outcome.numbers == {"groups": 0, "records": 0, "copies": 0, "near_copies": 2, "look_alikes": 0}
    for copy, shifted in ((anew, ""), (cut, f", shifted by {first} frames")):
        assert (
            f"tiny episode {copy} (val) shows the pictures of tiny episode {copied} (train){shifted}" in outcome.detail
        )
    with pytest.raises(ReleaseError, match="shows the pictures of"):
        create_release(lake, "r1", allow=ANY)


def test_names(corpus: Lake):
    for name in ("../r", "R1", "", ".hidden", "a b"):
        with pytest.raises(ReleaseError, match="named with"):
            create_release(corpus, name, allow=ANY)


# Is it still what was frozen?


def test_it_holds_after_two_rebuilds_and_a_gc(own: Made):
    lake = Lake(own.space)
    release = create_release(lake, "r1", allow=ANY)
    for grey in (90, 120):
        write_video(own.source, 1, LENGTHS[1], grey=grey)
        assert not run_build(own.space, [build_of(own.source)], workers=1).failed
        create_release(lake, f"at {grey}".replace(" ", "-"), allow=ANY)
    delete_release(lake, "at-90")
    gone = {s.shard for s in release.shard_list} - {r[0] for r in lake.rows("SELECT shard FROM shards")}
    assert gone, "the rebuild made other shards"
    freed = {f.what: f for f in collect(lake, 0, grace_s=-5)}
    assert freed["shards"].files > 0
    assert freed["lake snapshots"].files > 5
    assert verify_release(lake, release) == []
    assert verify_release(lake, get_release(lake)) == []
    assert {f.what: f.files for f in collect(lake, 0, grace_s=-5)} == dict.fromkeys(freed, 0)


def test_each_damage_is_named(corpus: Lake):
    release = create_release(corpus, "r1", allow=ANY)
    assert verify_release(corpus, release) == []
    missing, cut, flipped, longer = (s.path(corpus.workspace) for s in release.shard_list)
    data = flipped.read_bytes()
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:-512])
    flipped.write_bytes(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])
    longer.write_bytes(longer.read_bytes() + b"x")
    index_path(cut).write_text("{")
    index_path(longer).unlink()
    card_path(corpus.workspace, "r1").unlink()
    found = {(Path(f.what).name, f.wrong) for f in verify_release(corpus, release)}
    size = cut.stat().st_size + 512
    missing_index = {w for n, w in found if n == longer.name and w.startswith("the index of shard")}
    assert {(n, w.split(":")[0].split(" cannot")[0].split(" its sha256")[0]) for n, w in found} == {
        (missing.name, "is not there"),
        (cut.name, f"has {size - 512} bytes instead of {size}"),
        (cut.name, f"the index of shard {cut.name}"),
        (flipped.name, "is damaged"),
        (longer.name, f"has {longer.stat().st_size} bytes instead of {longer.stat().st_size - 1}"),
        (longer.name, f"the index of shard {longer.name}"),
        ("card.md", "the card is missing"),
    }
    assert "No such file" in missing_index.pop()


def test_a_lake_that_says_otherwise(corpus: Lake):
    release = create_release(corpus, "r1", allow=ANY)
    corpus.con.execute("UPDATE release_shards SET sha256 = 'x', samples = samples + 1 WHERE split = 'val'")
    changed = get_release(corpus, "r1")
    wrongs = [f.wrong for f in verify_release(corpus, changed) if f.what == f"snapshot {release.snapshot}"]
    assert wrongs == [f"the lake does not list {changed.shards('val')[0].shard} as the release does"]
    corpus.con.execute("CALL ducklake_expire_snapshots('lake', versions => [?])".replace("?", str(release.snapshot)))
    assert any("cannot be opened at snapshot" in f.wrong for f in verify_release(corpus, release))


def test_a_deleted_release_is_gone(corpus: Lake):
    create_release(corpus, "r1", allow=ANY)
    delete_release(corpus, "r1")
    assert find_release(corpus) is None
    assert not card_path(corpus.workspace, "r1").exists()
    with pytest.raises(ReleaseError, match="no release 'r1'"):
        delete_release(corpus, "r1")
    assert create_release(corpus, "r1", allow=ANY)


def test_the_card_cites_the_datasets_that_say_how(corpus: Lake):
    assert "## Citations" not in create_card(corpus, "r1"), "the tiny dataset states no citation"
    cited = 'json_merge_patch(config, json(\'{"dataset": {"citation": "Doe et al.\\n Tiny. 2026"}}\'))'
    corpus.con.execute(f"UPDATE build_configs SET config = {cited}")
    assert "\n\n## Citations\n\n- tiny: Doe et al. Tiny. 2026\n\n## Known limits\n\n" in create_card(corpus, "r2")
    first, second = get_release(corpus, "r1"), get_release(corpus, "r2")
    assert first.config_hash == second.config_hash, "the card's text is no content"
    assert verify_release(corpus, first) == verify_release(corpus, second) == []


def create_card(lake: Lake, name: str) -> str:
    create_release(lake, name, allow=ANY)
    return card_path(lake.workspace, name).read_text()


def test_the_card_says_what_is_assumed_complete_and_what_looks_unfinished(corpus: Lake):
    assumed = "- tiny: nothing says how 5 of 5 episodes ended; their labels assume that the task was completed.\n"
    corpus.con.execute("UPDATE label_quality SET end_by = 'assumed', end_progress = 1, p_failure = NULL")
    first = create_card(corpus, "r1")
    assert assumed in first
    assert "look unfinished" not in first
    corpus.con.execute("UPDATE label_quality SET p_failure = 0.9 WHERE episode_index < 2")
    assert "- tiny: 2 of 5 runs look unfinished: look at them before their labels are trusted.\n" in create_card(
        corpus, "r2"
    )
    corpus.con.execute("UPDATE label_quality SET end_by = 'source', p_failure = NULL")
    known = create_card(corpus, "r3")
    assert "assume that" not in known
    assert "unfinished" not in known
