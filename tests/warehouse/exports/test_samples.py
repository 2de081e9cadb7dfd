"""Exports of samples, as those who read them do: LLaMA-Factory's documented layout, EasyR1 and verl, `datasets`.

Also: what exports and releases take of labels that are not sure enough, and of those whose steps have no names;
exported pairs, as those who read them do; recordings for Rerun, opened with its own reader.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from annotate.imported import read_annotations
from annotate.preferences import Pair, RunPart
from core.domain.label_run import LabelGate
from core.errors import UserError
from core.names import is_name
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import CAMERA
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.export import MANIFEST, Exported
from warehouse.exports.options import Selection
from warehouse.exports.sample_kinds import quality_label
from warehouse.exports.samples import shown_path
from warehouse.lake import Lake
from warehouse.lake.statements import take_down
from warehouse.releases.contents import contents
from warehouse.releases.release import Release, ReleaseError, create_release, get_release
from warehouse.shards import progresslm
from warehouse.shards.progresslm import PROFILES, draw, ground_truth
from warehouse.shards.shard import Sample, ShardError, read_samples

ANY = ("unknown",)


KINDS = {kind: EXPORT_KINDS[kind].export for kind in ("llamafactory", "easyr1", "datasets")}


@dataclass(frozen=True)
class Frozen:
    lake: Lake
    release: Release
    samples: dict[str, Sample]  # what the shards hold, by id
    folder: Path  # with an export of each kind, of all of the release

    @property
    def selection(self) -> Selection:
        return Selection(release=self.release.name, allow=ANY)


@pytest.fixture(scope="module")
def frozen(made_released: Made, tmp_path_factory) -> Iterator[Frozen]:
    folder = tmp_path_factory.mktemp("exports")
    lake = Lake(made_released.copy(folder).space)
    release = get_release(lake, "r1")
    tars = [s.path(lake.workspace) for s in release.shard_list]
    frozen_release = Frozen(
        lake, release, {s.row["sample_id"]: s for s in read_samples(tars)}, folder
    )
    for kind, export in KINDS.items():
        export(lake, frozen_release.selection, folder / kind)
    yield frozen_release
    lake.con.close()


def test_samples_of_chosen_cameras_show_no_others(made, tmp_path):
    lake = Lake(made.copy(tmp_path).space)
    kind = EXPORT_KINDS["datasets"]
    chosen = Selection(allow=ANY, cameras=(CAMERA,))
    whole = kind.open(lake, chosen).sample_facts["samples"]
    assert whole == lake.rows("SELECT count(*) FROM samples")[0][0]
    other = "{'episode_index': episode_index, 'camera': 'other', 'frame_index': 0, 'edit': NULL}"
    lake.con.execute(
        f"UPDATE samples SET pictures = list_append(pictures, {other}) WHERE episode_index = 0"
    )
    [(shown_by_both,)] = lake.rows("SELECT count(*) FROM samples WHERE episode_index = 0")
    assert kind.open(lake, chosen).sample_facts["samples"] == whole - shown_by_both < whole


def think(samples: dict[str, Sample]) -> dict[str, Sample]:
    return {i: s for i, s in samples.items() if s.row["form"] == "think"}


def test_a_ground_truth_that_contradicts_itself_is_an_error(frozen):
    sample = next(s for s in think(frozen.samples).values() if s.row["reference"])
    ground = ground_truth(sample)
    assert ground["ref"] == str(sample.row["reference"])
    assert float(ground["score_percent"]) == pytest.approx(100 * float(ground["score_fraction"]))
    assert {"score_text", "demo_count"} < set(ground)
    assert ground["target_response"] == sample.row["answer"]
    for change in ({"reference": 99}, {"reference": None}, {"question": "What now?"}):
        with pytest.raises(ShardError, match="do not go together"):
            ground_truth(Sample({**sample.row, **change}, sample.pictures))


def test_phases_share_no_run_whatever_their_seeds(monkeypatch):
    """Neither one that is asked about, nor one that a demonstration shows."""
    con = duckdb.connect()
    con.execute("""
        CREATE TABLE splits AS
        SELECT
            'd' AS dataset,
            k AS episode_index,
            k // 2 AS "group"
        FROM range(12) t(k);
        CREATE TABLE samples AS
        SELECT
            a.k || ' beside ' || b.k AS sample_id,
            'progresslm_visual' AS family,
            'same_view' AS variant,
            'think' AS form,
            'd' AS dataset,
            a.k AS episode_index,
            'train' AS split,
            [{'episode_index': b.k}] AS pictures
        FROM range(12) a(k), range(12) b(k);
        CREATE TABLE sample_location AS
        SELECT sample_id, 's' AS shard, 0 AS "offset"
        FROM samples
    """)
    monkeypatch.setattr(progresslm, "open_for_users", lambda *place: con)
    release: Any = Mock(snapshot=1)
    release.shards.return_value = [Mock(shard="s")]
    space: Any = None
    runs: dict[str, set[str]] = {}
    for name, seed in product(("progresslm_sft", "progresslm_rl"), range(4)):
        drawn = draw(space, release, name, seed).samples["sample_id"].to_pylist()
        pictured = chain.from_iterable(text.split(" beside ") for text in drawn)
        runs[name] = runs.get(name, set()) | {*pictured}
    first, second = runs.values()
    assert first.isdisjoint(second)
    assert first | second == {*map(str, range(12))}


def test_a_profile_is_what_draw_draws(frozen, tmp_path):
    assert sum(PROFILES["progresslm_sft"].counts.values()) == 25_248, (
        "as published; the other's is in the note"
    )
    options = EXPORT_KINDS["easyr1"].read_options({"profile": "progresslm_rl"})
    exported = KINDS["easyr1"](frozen.lake, frozen.selection, tmp_path / "out", options)
    drawn = (
        draw(frozen.lake.workspace, frozen.release, "progresslm_rl")
        .samples["sample_id"]
        .to_pylist()
    )
    rows = pq.read_table(tmp_path / "out/train", columns=["extra_info"])["extra_info"].to_pylist()
    assert sorted(r["sample_id"] for r in rows) == sorted(drawn)
    assert (
        exported.notes[-1]
        == f"the profile progresslm_rl wants 20428 samples, and there are {len(drawn)}"
    )


def test_families_and_forms_are_chosen(frozen, tmp_path):
    def export(folder: str, **options: Any) -> set[str]:
        KINDS["datasets"](
            frozen.lake,
            frozen.selection,
            tmp_path / folder,
            EXPORT_KINDS["datasets"].read_options(options),
        )
        return set(
            chain.from_iterable(
                pq.read_table(p)["sample_id"].to_pylist()
                for p in (tmp_path / folder / "samples").rglob("*.parquet")
            )
        )

    text = {i for i, s in frozen.samples.items() if s.row["family"] == "progresslm_text"}
    assert export("text", families=["progresslm_text"]) == text
    assert export("all", forms=["think"]) == {
        i for i, s in frozen.samples.items() if s.row["form"] != "no_think"
    }
    assert (
        export("both", families=["progresslm_text"], forms=["think"])
        == text & think(frozen.samples).keys()
    )
    for options, reason in (
        (
            {"families": ["procvqa_z"]},
            "there is no sample of a family 'procvqa_z'; families here: ",
        ),
        (
            {"profile": "progresslm_rl", "forms": ["think"]},
            "says which families and forms: leave --family and --form",
        ),
    ):
        with pytest.raises(UserError, match=reason):
            export("none", **options)


def test_what_shows_an_episode_taken_down_since_is_left_out(corpus, own, tmp_path):
    lake = corpus
    create_release(lake, "r1", allow=ANY)
    counts: dict[int, set[str]] = {}  # samples that show an episode
    for s in read_samples([Path(p) for p in own.space.root.glob("shards/*/*.tar")]):
        for e in {int(shown_path(s.row, p).split("/")[1]) for p in s.row["pictures"]} | {
            s.row["episode_index"]
        }:
            counts.setdefault(e, set()).add(s.row["sample_id"])
    removed_episode = max(counts, key=lambda e: len(counts[e]))
    export_before = KINDS["datasets"](lake, Selection(release="r1", allow=ANY), tmp_path / "before")
    take_down(lake, "tiny", [removed_episode], "withdrawn")
    exported = KINDS["datasets"](lake, Selection(release="r1", allow=ANY), tmp_path / "after")
    assert exported.left_out == (f"tiny: episodes {removed_episode} taken down",)
    assert exported.samples is not None
    assert export_before.samples is not None
    assert exported.samples == export_before.samples - len(counts[removed_episode])
    for path in (tmp_path / "after/samples").rglob("*.parquet"):
        for row in pq.read_table(path, columns=["images", "episode_index"]).to_pylist():
            assert row["episode_index"] != removed_episode
            assert not any(f"/{removed_episode:06d}/" in i["path"] for i in row["images"])


def test_names_of_pictures_are_read_as_they_are_written():
    from warehouse.shards.shard import picture_name

    for episode, camera, frame, edit in [
        (7, "observation.images.front", 3, ""),
        (7, "cam.000001", 12, "occluded-5b9525f6"),
        (1234567, "c", 9999999, ""),
        (8, "e000007x", 0, "edited-aa"),
    ]:
        name = picture_name(
            7, {"episode_index": episode, "camera": camera, "frame_index": frame, "edit": edit}
        )
        path = shown_path({"dataset": "d", "episode_index": 7, "sample_id": "s"}, name)
        assert path == f"d/{episode:06d}/{camera}/{frame:06d}{'.' * bool(edit)}{edit}.jpg"
    with pytest.raises(ShardError, match="no picture's name"):
        shown_path({"dataset": "d", "episode_index": 7, "sample_id": "s"}, "samples.json")


def test_a_corpus_whose_shards_are_behind_is_refused(corpus, tmp_path):
    corpus.con.execute("DELETE FROM lake.sample_location WHERE chunk = 0")
    with pytest.raises(
        UserError, match=r"tiny has \d+ samples that are in no shard yet: build it again"
    ):
        KINDS["datasets"](corpus, Selection(allow=ANY), tmp_path / "out")


export_pairs = EXPORT_KINDS["preferences"].export


def test_other_seeds_draw_other_pairs(made_lake, tmp_path, monkeypatch):
    import datasets

    options = EXPORT_KINDS["preferences"].options
    for name, seed in (("one", 2), ("other", 3)):
        out = tmp_path / name
        export_pairs(made_lake, Selection(allow=ANY), out, options(per_run=6, seed=seed))
    first_manifest, other_manifest = (
        json.loads((tmp_path / name / MANIFEST).read_text()) for name in ("one", "other")
    )
    hashes = []
    for manifest in (first_manifest, other_manifest):
        hashes.append({file["path"]: file["sha256"] for file in manifest["files"]})
    assert hashes[0] != hashes[1]
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    opened: Any = datasets.load_dataset(str(tmp_path / "one"), cache_dir=str(tmp_path / "cache"))
    assert first_manifest["samples"] == sum(map(len, opened.values()))


def test_quality_labels_are_robometers():
    first_part, other_part = (RunPart("d", k, (0,), (None,), None) for k in range(2))
    quality = Pair("quality", first_part, other_part, 0.6)
    outcome = Pair("outcome", first_part, other_part, 1.0)
    assert quality_label(quality, "chosen", True) == "successful"
    assert quality_label(quality, "rejected", True) == "suboptimal"
    assert quality_label(outcome, "rejected", False) == "failure"
    assert quality_label(quality, "rejected", None) is None


ALL = Selection(allow=("unknown",))


def export_recordings(
    lake: Lake, out: Path, selection: Selection = ALL, **options: float | int | None
) -> Exported:
    return EXPORT_KINDS["rerun"].export(
        lake, selection, out, EXPORT_KINDS["rerun"].options.model_validate(options)
    )


def rows(path: Path) -> dict[str, int]:
    """Rows of each entity, by way of the index that the file ends with."""
    from rerun.chunk import RrdReader

    row_counts: dict[str, int] = {}
    for chunk in RrdReader(path).store().stream():
        row_counts[chunk.entity_path] = row_counts.get(chunk.entity_path, 0) + chunk.num_rows
    return row_counts


def columns(path: Path, entity: str) -> dict[str, list]:
    from rerun.chunk import RrdReader

    [chunk] = [c for c in RrdReader(path).stream() if c.entity_path == entity]
    return chunk.to_record_batch().to_pydict()


def test_fewer_pictures_or_none(made_lake, tmp_path):
    one_episode = Selection(datasets=("tiny",), episodes=(0,), allow=("unknown",))
    export_recordings(made_lake, tmp_path / "few", one_episode, pictures_per_s=1.25, max_px=32)
    assert columns(tmp_path / "few/tiny/000000.rrd", f"/cameras/{CAMERA}")["frame"] == [
        0,
        4,
        8,
        12,
        16,
        20,
        23,
    ]
    export_recordings(made_lake, tmp_path / "none", one_episode, pictures_per_s=0)
    assert f"/cameras/{CAMERA}" not in rows(tmp_path / "none/tiny/000000.rrd")


LEROBOT = EXPORT_KINDS["lerobot"]
LLAMAFACTORY = EXPORT_KINDS["llamafactory"]

# Episodes: a label of confidence 0.4, one without a confidence, one without names
UNSURE = 1
WITHOUT = 2
UNNAMED = 3


@pytest.fixture(scope="module")
def changed(made: Made, tmp_path_factory) -> Iterator[Lake]:
    """The shared corpus with labels of three sorts, changed behind their samples."""
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


def test_nothing_left_says_why(changed, tmp_path):
    only = Selection(datasets=("tiny",), episodes=(UNSURE,), allow=ANY, min_confidence=0.5)
    with pytest.raises(UserError, match=r"1 of 1 labels are less sure than 0.5 \(min_confidence\)"):
        LLAMAFACTORY.export(changed, only, tmp_path / "out", LLAMAFACTORY.options())


def test_no_placeholder_stands_where_lerobot_expects_a_name(changed, tmp_path):
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


def test_a_label_less_sure_is_none_in_a_lerobot_export(changed, tmp_path):
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


def test_a_release_takes_no_shard_with_samples_of_labels_less_sure(changed):
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
