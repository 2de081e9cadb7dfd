"""Releases: what they hold, what stays out, what blocks them, and whether they are still what was frozen."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from core.paths import Workspace
from tests.kits.files import flip_bit
from tests.kits.lerobot_writer import write_video
from tests.kits.made_corpus import build_of, built
from tests.kits.tiny_lerobot import (
    FPS,
    HEIGHT,
    LENGTHS,
    WIDTH,
    make_dataset,
    video_path,
    write_rows,
)
from warehouse.lake import Lake
from warehouse.lake.checks import no_split_leak
from warehouse.releases.contents import LOCAL, ReleaseError, contents
from warehouse.releases.publish import publish
from warehouse.releases.release import (
    card_path,
    create_release,
    get_release,
    local_release,
    verify_release,
)
from warehouse.shards.shard import index_path

ANY = ("unknown",)  # the tiny dataset states no licence


def test_what_is_not_open_stays_out_unless_it_is_named(corpus):
    for license_value, name in (
        (None, "unknown"),
        ("other", "unknown"),
        ("cc-by-nc-4.0", "cc-by-nc-4.0"),
    ):
        corpus.con.execute("UPDATE datasets SET license = ?", [license_value])
        with pytest.raises(
            ReleaseError, match=f"nothing is left for a release.*--allow-licence {name}"
        ):
            create_release(corpus, "r1", allow=("mit",))
        assert contents(corpus, (name,)).datasets == ["tiny"]


def test_for_training_here_no_licence_is_asked(corpus, tmp_path):
    local = local_release(corpus)
    assert local.name == LOCAL
    assert [s.shard for s in local.shard_list] == [
        r[0] for r in corpus.rows("SELECT shard FROM shards ORDER BY 1")
    ]
    assert "this release is for use here alone" in card_path(corpus.workspace, LOCAL).read_text()
    assert local_release(corpus) == local, "nothing new"
    with pytest.raises(ReleaseError, match="the release local was made for training here"):
        publish(corpus, local, str(tmp_path / "away"))
    corpus.con.execute("DELETE FROM shards WHERE split = 'val'")
    assert len(local_release(corpus).shard_list) < len(local.shard_list)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "episode_content SET content_hash = 'same'",
            r"tiny episode 1 \(train\) and tiny episode 4",
        ),
        ("episode_facts SET source_id = 'rec'", "tiny rec, which is episodes 1 and 4"),
    ],
)
def test_a_copy_or_a_source_record_in_two_splits(corpus, change, message):
    corpus.con.execute(f"UPDATE {change} WHERE episode_index IN (1, 4)")
    with pytest.raises(ReleaseError, match=message):
        create_release(corpus, "r1", allow=ANY)


def scene(n: int) -> list[np.ndarray]:
    """A square that wanders over a ground with large soft patches, as real scenes have them."""
    rng = np.random.default_rng(5)
    ground = cv2.resize(
        rng.integers(40, 200, (6, 8, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
    )
    pictures = []
    for k in range(n):
        picture = ground.copy()
        left_px = int((WIDTH - 20) * k / n)
        top = int((HEIGHT - 20) * (0.5 + 0.5 * np.sin(k / 4)))
        picture[top : top + 20, left_px : left_px + 20] = (250, 240, 20)
        pictures.append(picture)
    return pictures


def test_pictures_of_training_encoded_anew_or_cut_in_a_test_split(made, tmp_path):
    copied, first = 2, 10  # a train episode; what one copy lacks
    reencoded = len(LENGTHS)
    cut = len(LENGTHS) + 1
    root = make_dataset(tmp_path / "source", (*LENGTHS, LENGTHS[copied], LENGTHS[copied] - first))
    pictures = scene(LENGTHS[copied])
    brighter = [(p * 1.05).clip(0, 255).astype(np.uint8) for p in pictures]
    for episode, pictures_shown, crf in (
        (copied, pictures, 18),
        (reencoded, brighter, 30),
        (cut, pictures[first:], 30),
    ):
        encoder_options = {"crf": str(crf), "preset": "ultrafast"}
        write_video(video_path(root, episode), pictures_shown, fps=FPS, options=encoder_options)
        # As recorded on another arm
        write_rows(root, episode, len(pictures_shown), scale=1.0 + 0.1 * episode)
    own_corpus = built(build_of(root), Workspace(tmp_path / "space"))
    lake = Lake(own_corpus.space)
    lake.con.execute("UPDATE splits SET split = 'val' WHERE episode_index >= ?", [reencoded])
    outcome = no_split_leak(lake)
    assert outcome.numbers == {
        "groups": 0,
        "records": 0,
        "copies": 0,
        "near_copies": 2,
        "look_alikes": 0,
    }
    for copy, shifted in ((reencoded, ""), (cut, f", shifted by {first} frames")):
        assert (
            f"tiny episode {copy} (val) shows the pictures of tiny episode {copied} (train){shifted}"
            in outcome.detail
        )
    with pytest.raises(ReleaseError, match="shows the pictures of"):
        create_release(lake, "r1", allow=ANY)


def test_names(corpus):
    create_release(corpus, "r1", allow=ANY)
    with pytest.raises(ReleaseError, match="exists"):
        create_release(corpus, "r1", allow=ANY)
    with pytest.raises(ReleaseError, match="no release 'r2'; releases: r1"):
        get_release(corpus, "r2")
    for name in ("../r", "R1", "", ".hidden", "a b"):
        with pytest.raises(ReleaseError, match="named with"):
            create_release(corpus, name, allow=ANY)


def test_each_damage_is_named(corpus):
    release = create_release(corpus, "r1", allow=ANY)
    assert verify_release(corpus, release) == []
    missing, cut, flipped, longer = (s.path(corpus.workspace) for s in release.shard_list)
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:-512])
    flip_bit(flipped)
    longer.write_bytes(longer.read_bytes() + b"x")
    index_path(cut).write_text("{")
    index_path(longer).unlink()
    card_path(corpus.workspace, "r1").unlink()
    failures = {(Path(f.file or "").name, f.detail) for f in verify_release(corpus, release)}
    size = cut.stat().st_size + 512
    missing_index = {
        w for n, w in failures if n == longer.name and w.startswith("the index of shard")
    }
    assert {
        (n, w.split(":")[0].split(" cannot")[0].split(" its sha256")[0]) for n, w in failures
    } == {
        (missing.name, "is not there"),
        (cut.name, f"has {size - 512} bytes instead of {size}"),
        (cut.name, f"the index of shard {cut.name}"),
        (flipped.name, "is damaged"),
        (longer.name, f"has {longer.stat().st_size} bytes instead of {longer.stat().st_size - 1}"),
        (longer.name, f"the index of shard {longer.name}"),
        ("card.md", "the card is missing"),
    }
    assert "No such file" in missing_index.pop()


def test_a_lake_that_says_otherwise(corpus):
    release = create_release(corpus, "r1", allow=ANY)
    corpus.con.execute(
        "UPDATE release_shards SET sha256 = 'x', samples = samples + 1 WHERE split = 'val'"
    )
    changed = get_release(corpus, "r1")
    wrongs = [
        f.detail
        for f in verify_release(corpus, changed)
        if f.file == f"snapshot {release.snapshot}"
    ]
    assert wrongs == [
        f"the lake does not list {changed.shards('val')[0].shard} as the release does"
    ]
    corpus.con.execute(
        "CALL ducklake_expire_snapshots('lake', versions => [?])".replace(
            "?", str(release.snapshot)
        )
    )
    assert any("cannot be opened at snapshot" in f.detail for f in verify_release(corpus, release))


def test_the_card_cites_the_datasets_that_say_how(corpus):
    assert "## Citations" not in create_card(corpus, "r1"), "the tiny dataset states no citation"
    cited = (
        'json_merge_patch(config, json(\'{"dataset": {"citation": "Doe et al.\\n Tiny. 2026"}}\'))'
    )
    corpus.con.execute(f"UPDATE build_configs SET config = {cited}")
    assert (
        "\n\n## Citations\n\n- tiny: Doe et al. Tiny. 2026\n\n## Known limits\n\n"
        in create_card(corpus, "r2")
    )
    first = get_release(corpus, "r1")
    second = get_release(corpus, "r2")
    assert first.config_hash == second.config_hash, "the card's text is no content"
    assert verify_release(corpus, first) == verify_release(corpus, second) == []


def create_card(lake: Lake, name: str) -> str:
    create_release(lake, name, allow=ANY)
    return card_path(lake.workspace, name).read_text()
