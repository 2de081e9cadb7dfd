"""Hashes of contents, equal for equal rows; episodes as readers get them."""

import hashlib
import shutil
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from core.domain.label import Episode
from core.errors import UserError
from core.paths import Workspace
from core.tables import TABLES
from tests.kits.lake_kit import facts, findings, frames, segments, stage_run
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import LENGTHS
from warehouse.exports.options import Selection
from warehouse.exports.selection import select
from warehouse.lake import Lake, content_key, digest, output_hash
from warehouse.lake.publication import table_hash
from warehouse.lake.stored import usable_episode, usable_episodes
from warehouse.lake.views import SAID, VIEWS


def shuffled(table: pa.Table, seed: int = 0) -> pa.Table:
    return table.take(np.random.default_rng(seed).permutation(table.num_rows))


def dataset_row(source_uri: str) -> pa.Table:
    row = {
        "dataset": "a",
        "title": "A",
        "source_uri": source_uri,
        "chunk_size": 10,
        "cameras": ["front", "wrist"],
    }
    return TABLES["datasets"].rows([row])


def fill(lake: Lake, *, mixed: bool = False, source_uri: str = "here") -> None:
    """Two chunks; `mixed`: other rows first, then these in another order."""
    order = shuffled if mixed else lambda t: t
    parts = [stage_run(stage="episodes", chunk=c) for c in (0, 1)]
    everything = pa.concat_tables([facts("a", 0, (0, 1, 2)), facts("a", 1, (10, 11))])
    lake.publish(
        stage_run(stage="episodes", chunk=None),
        {"datasets": dataset_row(source_uri), "episode_facts": order(everything)},
        parts=parts,
    )
    for chunk, episodes in (
        ((1, (10, 11)), (0, (0, 1, 2))) if mixed else ((0, (0, 1, 2)), (1, (10, 11)))
    ):
        frame_findings = findings((episodes[0], chunk, "frames", "too_short", "unusable"))
        if mixed:
            lake.publish(
                stage_run(chunk=chunk), {"frames": frames("a", chunk, episodes, value=0.9)}
            )
        lake.publish(
            stage_run(chunk=chunk), {"frames": order(frames("a", chunk, episodes))}, frame_findings
        )
        for run in ("r2", "r1") if mixed else ("r1", "r2"):
            lake.publish(
                stage_run(stage="segments", chunk=chunk, label_run=run),
                {"segments": order(segments("a", chunk, run, episodes=episodes))},
            )


def test_the_digest_of_a_lake(workspace, tmp_path):
    shutil.copytree(workspace.root, tmp_path / "other")
    first_lake = Lake(workspace)
    two = Lake(Workspace(tmp_path / "other"))
    empty = digest(first_lake)
    views = {"episodes", "run_checks", *SAID}
    assert set(empty) == {t.name for t in TABLES.values() if t.content} | views
    assert not set(empty) & {"stage_runs", "label_runs", "releases", "eval_scores"}
    assert {v.name for v in VIEWS} & set(empty) == views

    fill(first_lake)
    fill(two, mixed=True, source_uri="there")
    assert two.snapshot() > first_lake.snapshot()
    full = digest(first_lake)
    assert digest(two) == full
    changed = {"datasets", "episode_facts", "frames", "findings", "segments", "episodes"}
    assert {k for k in full if full[k] != empty[k]} == changed

    # one value of one row
    rows = frames("a", 0, (0, 1, 2)).to_pylist()
    rows[7]["visual_change"] += 1e-6
    two.publish(
        stage_run(),
        {"frames": TABLES["frames"].rows(rows)},
        findings((0, 0, "frames", "too_short", "unusable")),
    )
    assert {k for k, v in digest(two).items() if v != full[k]} == {"frames"}


def test_the_hash_of_a_table_is_pinned():
    """A change of it makes every corpus out of date. The source's place is left out."""
    row = dataset_row("here")
    text = (
        '{"dataset":"a","title":"A","robot":null,"format":null,"fps":null,"license":null,"source_revision":null,'
        '"chunk_size":10,"role":null,"cameras":["front","wrist"],"notes":null}'
    )
    assert table_hash(TABLES["datasets"], row) == hashlib.sha256(text.encode()).hexdigest()


def test_one_row_group_more_than_parquet_keeps_in_order(lake, ds):
    n = 130_000
    columns = {
        "dataset": pa.repeat(ds, n),
        "episode_index": np.arange(n),
        "chunk": np.zeros(n, np.int32),
        "split": pa.repeat("train", n),
        "group": pa.array([f"g{k}" for k in range(n)]),
    }
    rows = pa.table(columns, schema=TABLES["splits"].schema)
    name = "splits"
    digests = []
    for seed in (0, 1):
        lake.publish(stage_run(dataset=ds), {name: shuffled(rows, seed)})
        digests.append(digest(lake)[name])
        stored_rows = lake.arrow("FROM splits WHERE dataset = ?", [ds])
        assert table_hash(TABLES[name], stored_rows) == table_hash(TABLES[name], rows)
    assert digests[0] == digests[1]
    lake.publish(stage_run(dataset=ds), {name: TABLES[name].empty()})


def test_output_hash_covers_names_and_rows():
    first = output_hash({"frames": frames(), "segments": segments()})
    assert output_hash({"segments": segments(), "frames": shuffled(frames())}) == first
    other_outputs = [
        {"frames": frames()},
        {"frames": frames(value=0.2), "segments": segments()},
        {"segments": segments()},
    ]
    assert len({first, *(output_hash(o) for o in other_outputs)}) == 4


def test_content_keys_do_not_run_into_each_other():
    keys = [
        content_key(*parts)
        for parts in ((), ("",), ("ab",), ("a", "b"), ("b", "a"), ("a", "", "b"), ("é",))
    ]
    assert len(set(keys)) == len(keys)
    assert content_key("a", "b") == content_key("a", "b")


@pytest.fixture
def changed(made: Made, tmp_path) -> Iterator[Lake]:
    """The shared corpus: run 1 cannot be used, nobody has counted the frames of run 3."""
    lake = Lake(made.copy(tmp_path).space)
    lake.con.execute(
        "INSERT INTO findings BY NAME SELECT 'tiny' AS dataset, 1 AS episode_index, 0 AS chunk, 'frames' AS stage, "
        "'cut_off' AS reason, 'it ends early' AS detail, 'unusable' AS severity"
    )
    lake.con.execute("DELETE FROM episode_content WHERE episode_index = 3")
    lake.con.execute("UPDATE episode_facts SET num_rows = NULL WHERE episode_index = 3")
    yield lake
    lake.con.close()


def test_usable_episodes_come_in_order_with_their_facts_and_the_label_that_counts(changed):
    episodes = usable_episodes(changed.con)
    assert [episode.episode_index for episode in episodes] == [0, 2, 3, 4]
    assert [episode.num_frames for episode in episodes] == [LENGTHS[0], LENGTHS[2], 0, LENGTHS[4]]
    assert episodes[0].key == ("tiny", 0)
    assert episodes[0].duration_s == LENGTHS[0] / episodes[0].fps
    [label_run] = changed.column("SELECT label_run FROM active_runs WHERE episode_index = 0")
    assert episodes[0].label_run == label_run
    of_chunk = usable_episodes(changed.con, "chunk = ?", [episodes[1].chunk])
    assert episodes[1] in of_chunk
    assert {episode.chunk for episode in of_chunk} == {episodes[1].chunk}


@pytest.mark.parametrize(
    ("episode_index", "message"),
    [(1, "episode 1 of tiny cannot be used: cut_off"), (77, "tiny has no episode 77")],
)
def test_an_episode_that_is_named_and_cannot_be_had_says_why(changed, episode_index, message):
    with pytest.raises(UserError, match=message):
        usable_episode(changed.con, "tiny", episode_index)
    assert isinstance(usable_episode(changed.con, "tiny", 2), Episode)


def test_an_export_names_the_runs_whose_frames_nobody_counted(changed):
    selected = select(changed, Selection(allow=("unknown",)))
    assert [episode.episode_index for episode in selected.episodes] == [0, 2, 4]
    assert selected.left_out == ("1 runs whose frames no build has counted yet: build them",)
