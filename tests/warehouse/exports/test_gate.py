"""What exports and releases take of labels that are not sure enough, and of those whose steps have no names."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from annotate.imported import read_annotations
from core.domain.label_run import LabelGate
from core.errors import UserError
from core.names import is_name
from tests.kits.made_corpus import Made
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.options import Selection
from warehouse.lake import Lake
from warehouse.releases.contents import contents
from warehouse.releases.release import ReleaseError

LEROBOT = EXPORT_KINDS["lerobot"]
LLAMAFACTORY = EXPORT_KINDS["llamafactory"]

ANY = ("unknown",)
# Episodes: a label of confidence 0.4, one without a confidence, one without names
UNSURE, WITHOUT, UNNAMED = (1, 2, 3)


@pytest.fixture(scope="module")
def changed(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """The shared corpus with labels of three sorts, whose samples were made before they were so."""
    lake = Lake(made.copy(tmp_path_factory.mktemp("gate")).space)
    for sql in (
        "UPDATE episode_labels SET confidence = 0.7",
        f"UPDATE episode_labels SET confidence = 0.4 WHERE episode_index = {UNSURE}",
        f"UPDATE episode_labels SET confidence = NULL WHERE episode_index = {WITHOUT}",
        f"UPDATE segments SET named = false, name = 'Unnamed step ' || (step + 1) WHERE episode_index = {UNNAMED} "
        "AND kind = 'step'",
        "UPDATE episode_labels SET named = false, plan = list_transform(plan, lambda name, k: 'Unnamed step ' || k) "
        f"WHERE episode_index = {UNNAMED}",
    ):
        lake.con.execute(sql)
    yield lake
    lake.con.close()


def selection(**gate: Any) -> Selection:
    return Selection(allow=ANY, **gate)


def test_nothing_left_says_why(changed: Lake, tmp_path: Path):
    only = Selection(datasets=("tiny",), episodes=(UNSURE,), allow=ANY, min_confidence=0.5)
    with pytest.raises(UserError, match=r"1 of 1 labels are less sure than 0.5 \(min_confidence\)"):
        LLAMAFACTORY.export(changed, only, tmp_path / "out", LLAMAFACTORY.options())


def test_no_placeholder_stands_where_lerobot_expects_a_name(changed: Lake, tmp_path: Path):
    exported = LEROBOT.export(
        changed, selection(), tmp_path / "out", LEROBOT.options(flavour="subtask")
    )
    rows = pq.read_table(sorted((tmp_path / "out/data").rglob("*.parquet"))).to_pylist()
    subtasks: dict[int, set[str]] = {e: set() for e in range(5)}
    for row in rows:
        subtasks[row["episode_index"]].add(row["subtask"])
    assert subtasks[UNSURE] == subtasks[UNNAMED] == {""}
    assert all(subtasks[e] - {""} for e in (0, WITHOUT, 4))
    with_language = {r["episode_index"] for r in rows if r["language_persistent"]}
    assert with_language == {0, WITHOUT, 4}
    tasks = pq.read_table(tmp_path / "out/meta/tasks.parquet")["task"].to_pylist()
    assert all(map(is_name, tasks))
    assert set().union(*subtasks.values()) - {""} <= set(tasks)

    episodes = pq.read_table(
        sorted((tmp_path / "out/meta/episodes").rglob("*.parquet"))
    ).to_pylist()
    assert [
        e["dense_subtask_names"] is None
        for e in episodes
        if e["episode_index"] in (UNSURE, UNNAMED)
    ] == [True] * 2
    assert all(r["progress"] is not None and not np.isnan(r["progress"]) for r in rows), (
        "progress stays"
    )
    text = (tmp_path / "out/README.md").read_text()
    for note in (
        "tiny: 1 of 5 labels have unnamed steps: they give progress alone",
        "tiny: 1 of 5 labels are less sure than 0.5 (min_name_confidence): they give no names of steps",
    ):
        assert note in exported.notes
        assert note in text

    # Our own column has the label as it is, and gives it back so
    segments = episodes[UNNAMED]["proccorpus_segments"]
    assert {s["named"] for s in segments if s["kind"] == "step"} == {False}
    read_annotation = next(
        a for a in read_annotations(tmp_path / "out").episodes if a.episode_index == UNNAMED
    )
    tiling = read_annotation.label(episodes[UNNAMED]["length"], 10.0, None).segments
    assert [(s.name, s.named) for s in tiling] == [(s["name"], s["named"]) for s in segments]


def test_a_label_less_sure_is_none_in_a_lerobot_export(changed: Lake, tmp_path: Path):
    LEROBOT.export(changed, selection(min_confidence=0.5), tmp_path / "out")
    rows = pq.read_table(sorted((tmp_path / "out/data").rglob("*.parquet"))).to_pylist()
    assert {r["episode_index"] for r in rows if np.isnan(r["progress"])} == {UNSURE}
    episodes = pq.read_table(
        sorted((tmp_path / "out/meta/episodes").rglob("*.parquet"))
    ).to_pylist()
    of_unsure = episodes[UNSURE]
    assert (
        of_unsure["proccorpus_label_run"],
        of_unsure["proccorpus_segments"],
        of_unsure["label_confidence"],
    ) == (None, None, None)


# Releases


def test_a_release_takes_no_shard_with_samples_of_labels_less_sure(changed: Lake):
    everything = contents(changed, ANY)
    assert contents(changed, ANY, LabelGate(0.3, 0.3)).shards == everything.shards
    holding = {
        shard
        for (shard,) in changed.rows(
            "SELECT DISTINCT l.shard FROM samples s JOIN sample_location l USING (dataset, chunk, sample_id) "
            f"WHERE s.episode_index = {UNSURE}"
        )
    }
    gated_contents = contents(changed, ANY, LabelGate(0.5, 0.0))
    assert {s.shard for s in gated_contents.shards} == {
        s.shard for s in everything.shards
    } - holding
    [left_entry] = gated_contents.left_out
    assert set(left_entry.shards) == holding
    assert "1 labels that are not sure enough (episodes 1)" in str(left_entry)
    assert "build the dataset again with --min-confidence 0.5 to make them without" in str(
        left_entry
    )
    with pytest.raises(ReleaseError, match="nothing is left"):
        contents(changed, ANY, LabelGate(0.8, 0.0))
