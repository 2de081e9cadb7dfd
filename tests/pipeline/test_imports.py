"""Annotations from elsewhere become a label run that counts for nothing until it is named."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotate.imported import Annotation, ImportedError, read_annotations
from core.errors import UserError
from ingest.episode import NativeStep
from ingest.reasons import LIMITS
from pipeline.imports import import_annotations
from tests.kits.lerobot_writer import edit_parquet, v3_data, v3_meta, write_v3
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import LENGTHS, NAMED
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.options import Selection
from warehouse.lake import Lake

LEROBOT = EXPORT_KINDS["lerobot"]

ANY = Selection(allow=("unknown",))
SPANS = "SELECT episode_index, name, start_frame, end_frame, kind, completed, step FROM {} WHERE {} ORDER BY 1, 3"


@pytest.fixture(scope="module")
def exported(made: Made, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "tiny"
    LEROBOT.export(Lake(made.space, read_only=True), ANY, out)
    return out


def test_language_and_sarm_columns_say_the_same_of_a_finished_run(corpus, exported):
    language, sarm = (
        import_annotations(corpus, exported, "tiny", form) for form in ("language", "sarm")
    )
    assert (language.episodes, language.label_run != sarm.label_run) == (len(NAMED), True)
    both = corpus.rows(SPANS.format("segments", f"label_run = '{sarm.label_run}'"))
    known_episodes = {r[0] for r in both}
    assert known_episodes
    told_rows = corpus.rows(SPANS.format("segments", f"label_run = '{language.label_run}'"))
    assert [r for r in told_rows if r[0] in known_episodes] == both


def test_a_foreign_lerobot_dataset_is_matched_by_index_and_length(corpus, exported, tmp_path):
    """SARM's columns without a prefix, as older versions wrote them; the second episode is of
    another length."""
    meta = pq.read_table(exported / "meta/episodes/chunk-000/file-000.parquet").slice(0, 2)
    assert meta["length"].to_pylist() == list(LENGTHS[:2])
    plain = {
        "episode_index": [0, 1],
        "length": [LENGTHS[0], LENGTHS[1] + 5],
        "subtask_names": [["reach", "put"], ["reach", "put"]],
        "subtask_start_frames": [[2, 10], [2, 10]],
        "subtask_end_frames": [[10, 20], [9, 15]],
    }
    path = tmp_path / "foreign/meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(plain), path)
    first = read_annotations(tmp_path / "foreign", "sarm").episodes[0]
    assert isinstance(first, Annotation)
    assert first.steps == (NativeStep("reach", 2, 10), NativeStep("put", 10, 21))
    imported = import_annotations(corpus, tmp_path / "foreign", "tiny", "sarm")
    assert imported.episodes == 1
    assert imported.refused == ("episode 1: it is of an episode of 23 frames, this one has 18",)
    assert corpus.rows(
        f"SELECT name, start_frame, end_frame, kind FROM segments WHERE label_run = '{imported.label_run}' ORDER BY 2"
    ) == [
        ("Between steps", 0, 2, "idle"),
        ("reach", 2, 10, "step"),
        ("put", 10, 21, "step"),
        ("Done", 21, 24, "done"),
    ]


def test_json_lines_of_frames(corpus, tmp_path):
    names = ["reach"] * 10 + ["put"] * 10 + ["done"] * 4
    lines = [{"frame_id": 500 + k, "task": "put it", "sub_task": n} for k, n in enumerate(names)]
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "episode_000000.sub_task.jsonl").write_text(
        "".join(json.dumps(x) + "\n" for x in lines)
    )
    imported = import_annotations(corpus, folder, "tiny")
    assert (imported.form, imported.episodes, imported.segments) == ("frames", 1, 3)
    condition = f"WHERE label_run = '{imported.label_run}'"
    assert corpus.rows(f"SELECT name, end_frame FROM segments {condition} ORDER BY 2") == [
        ("reach", 10),
        ("put", 20),
        ("Done", 24),
    ]
    assert corpus.rows(f"SELECT max(progress) FROM progress {condition}") == [(1.0,)]


def test_a_file_that_is_too_large_or_none_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to("/etc/passwd")
    with pytest.raises(ImportedError, match="holds no annotations"):
        read_annotations(tmp_path)
    with (tmp_path / "c.jsonl").open("wb") as file:
        file.truncate(LIMITS.max_file_bytes + 1)
    with pytest.raises(ImportedError, match="over the limit of"):
        read_annotations(tmp_path)


# What a LeRobot folder may hold, as the attack on 22 November had it
HOSTILE = {
    "no fps": lambda root: (root / "meta/info.json").write_text("{}"),
    "no Parquet": lambda root: v3_meta(root).write_bytes(b"PAR1junk"),
    "no index": lambda root: edit_parquet(
        v3_meta(root), episode_index=None, proccorpus_segments=pa.array([[{"name": "x"}]] * 2)
    ),
    "spans without ends": lambda root: edit_parquet(
        v3_meta(root), proccorpus_segments=pa.array([[{"name": "x", "evil": 1}]] * 2)
    ),
    "spans that are texts": lambda root: edit_parquet(
        v3_meta(root), proccorpus_segments=pa.array(["x", "y"])
    ),
    "of a list": lambda root: edit_parquet(
        v3_meta(root),
        proccorpus_segments=pa.array([["x"]] * 2),
        proccorpus_dataset=pa.array([["tiny"]] * 2),
        proccorpus_episode_index=pa.array([[0]] * 2),
    ),
    "no time": lambda root: edit_parquet(
        v3_data(root, 0),
        language_persistent=pa.array(
            [[{"style": "subtask", "timestamp": float("nan"), "content": "x"}]] * 24
        ),
    ),
    "a language that is a number": lambda root: edit_parquet(
        v3_data(root, 0), language_persistent=pa.array([1] * 24)
    ),
}


def test_hostile_folders_are_a_sentence(corpus, tmp_path):
    snapshot_before = corpus.snapshot()
    for what, spoil in HOSTILE.items():
        root = write_v3(tmp_path / what, [12, 12])
        spoil(root)
        with pytest.raises(ImportedError) as error:
            import_annotations(corpus, root, "tiny")
        assert "\n" not in str(error.value), what
    assert corpus.snapshot() == snapshot_before


def test_what_fits_nothing_is_refused(corpus, exported, tmp_path):
    snapshot_before = corpus.snapshot()
    for path, name, message in (
        (exported, "none", "no dataset 'none'"),
        (tmp_path / "x", "tiny", "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            import_annotations(corpus, path, name)
    assert corpus.snapshot() == snapshot_before
