"""LeRobot's sidecar of signals per frame: written, checked by the convention's rules, and read as a label run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.advantages import advantages, chunk_residuals, threshold
from annotate.conventions.frame_signals import (
    Descriptor,
    annotations,
    check,
    metadata,
    read,
)
from annotate.imported_label import ImportedError
from annotate.segments import DONE, IDLE, STEP, Segment
from core.errors import UserError
from pipeline.imports import import_annotations
from tests.kits.tiny_lerobot import LENGTHS
from warehouse.exports import EXPORT_KINDS, frame_signals
from warehouse.exports.labels import ActiveLabel
from warehouse.exports.options import FrameSignalsOptions, Selection
from warehouse.lake import Lake

FRAME_SIGNALS = EXPORT_KINDS["frame-signals"]

ANY = Selection(allow=("unknown",))
DESCRIPTORS = {"score": Descriptor("How far.", "higher", (0.0, 1.0)), "still": Descriptor("Does it rest?")}


def told_by(table: pa.Table) -> dict[str, Any]:
    """What the state @fe446b2b reads, by its own names of keys."""
    facts = table.schema.metadata
    assert facts[b"lerobot.scores.format"] == b"lerobot.frame_signals"
    assert facts[b"lerobot.scores.schema_version"] == b"1"
    return json.loads(facts[b"lerobot.scores.descriptors"])


def test_labels_are_written_as_the_convention_says_and_come_back(made_lake: Lake, corpus: Lake, tmp_path: Path):
    out = tmp_path / "signals.parquet"
    done = FRAME_SIGNALS.export(made_lake, ANY, out, FrameSignalsOptions(horizon=4))
    assert (done.episodes, done.frames, done.files) == (len(LENGTHS), sum(LENGTHS), 1)
    table = pq.read_table(out)
    assert set(check(table)) == {
        *("progress", "segment", "step", "completed", "planned_steps"),
        *("chunk_td_residual", "advantage", "advantage_positive"),
    }
    assert table["index"].to_pylist() == list(range(sum(LENGTHS)))
    assert pq.ParquetFile(out).num_row_groups == len(LENGTHS)
    for name, said in told_by(table).items():
        assert set(said) == {"description", "direction", "bounds", "unit", "allow_nan"}, name
    provenance = json.loads(table.schema.metadata[b"lerobot.reward_scoring.provenance"])
    assert provenance["dataset"]["total_frames"] == sum(LENGTHS)
    assert provenance["scoring"]["label_runs"] == [r for (r,) in made_lake.rows("SELECT label_run FROM label_runs")]

    # As a label run: the same segments, but for names, and the same progress
    imported = import_annotations(corpus, out, "tiny")
    assert (imported.form, imported.episodes, imported.refused) == ("frame-signals", len(LENGTHS), ())
    columns = "episode_index, start_frame, end_frame, kind, completed, step, num_planned"
    spans = f"SELECT {columns} FROM {{}} WHERE {{}} ORDER BY 1, 2"
    of_run = f"label_run = '{imported.label_run}'"
    assert corpus.rows(spans.format("segments", of_run)) == corpus.rows(spans.format("active_segments", "true"))
    values = "SELECT episode_index, frame_index, progress FROM {} WHERE {} ORDER BY 1, 2"
    assert corpus.rows(values.format("progress", of_run)) == corpus.rows(values.format("active_progress", "true"))
    assert corpus.rows(f"SELECT DISTINCT named FROM episode_labels WHERE {of_run}") == [(False,)]

    # And what the run is exported as by its name is what was imported
    again = tmp_path / "again.parquet"
    by_name = FrameSignalsOptions(label_run=imported.label_run)
    FRAME_SIGNALS.export(Lake(corpus.workspace, read_only=True), ANY, again, by_name)
    names = [*table.column_names[:3], "progress", "segment", "step", "completed", "planned_steps"]
    assert pq.read_table(again).select(names).equals(table.select(names))


def test_a_file_is_resumed_kept_or_refused(made_lake: Lake, tmp_path: Path):
    out = tmp_path / "s.parquet"
    assert not FRAME_SIGNALS.export(made_lake, ANY, out).again
    data = out.read_bytes()
    assert FRAME_SIGNALS.export(made_lake, ANY, out).again
    with pytest.raises(UserError, match="another export"):
        FRAME_SIGNALS.export(made_lake, ANY, out, FrameSignalsOptions(horizon=2))
    FRAME_SIGNALS.export(made_lake, ANY, out, FrameSignalsOptions(horizon=2), overwrite=True)
    assert out.read_bytes() != data
    FRAME_SIGNALS.export(made_lake, ANY, out, overwrite=True)
    assert out.read_bytes() == data
    mine = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"a": [1]}), mine)
    for path, why in ((mine, "no export of ours"), (tmp_path, "is a folder")):
        with pytest.raises(UserError, match=why):
            FRAME_SIGNALS.export(made_lake, ANY, path, overwrite=True)
    text = tmp_path / "text.parquet"
    text.write_text("hello")
    with pytest.raises(UserError, match="is no export"):
        FRAME_SIGNALS.export(made_lake, ANY, text)
    assert text.read_text() == "hello"
    with pytest.raises(UserError, match="no episode selected has a label of the run 'gone'"):
        FRAME_SIGNALS.export(made_lake, ANY, tmp_path / "gone.parquet", FrameSignalsOptions(label_run="gone"))
    assert not (tmp_path / "gone.parquet").exists()


def table_of(episodes: list[tuple[int, list[int]]], **changed: Any) -> pa.Table:
    """A small table that keeps the rules, of (episode, frames); each episode has 100 rows of its dataset."""
    rows = [(100 * e + f, e, f) for e, frames in episodes for f in frames]
    columns = {
        name: np.array([r[k] for r in rows], np.int64)
        for k, name in enumerate(("index", "episode_index", "frame_index"))
    }
    columns |= {"score": np.linspace(0, 1, len(rows), dtype=np.float32), "still": np.zeros(len(rows), bool)}
    table = pa.table(columns | changed.pop("columns", {}))
    facts = metadata(changed.pop("descriptors", DESCRIPTORS), {"made": "here"}, [e for e, _ in episodes])
    return table.replace_schema_metadata(facts | changed)


WHOLE = [(0, [0, 1, 5]), (3, [2, 3, 4])]
ROWS = 6
UP: Any = "up"  # words that the convention does not have
WORLD: Any = "world"
BROKEN: list[tuple[Callable[[], pa.Table], str]] = [
    (lambda: table_of(WHOLE).replace_schema_metadata({}), "neither its metadata names"),
    (lambda: table_of(WHOLE, **{"lerobot.reward_scoring.format": "other"}), "its format is 'other'"),
    (lambda: table_of(WHOLE, **{"lerobot.reward_scoring.schema_version": "2"}), "schema version is 2"),
    (lambda: table_of(WHOLE, **{"lerobot.reward_scoring.provenance": "[]"}), "provenance: Input should be an object"),
    (lambda: table_of(WHOLE, **{"lerobot.reward_scoring.episode_indices": "[3,0]"}), "sorted list"),
    (lambda: table_of(WHOLE, **{"lerobot.reward_scoring.episode_indices": "[0]"}), "not among episode_indices"),
    (lambda: table_of(WHOLE).drop_columns(["index"]), "lacks the columns index"),
    (lambda: table_of(WHOLE).drop_columns(["score"]), "are not the signals described"),
    (lambda: table_of(WHOLE, columns={"frame_index": np.arange(ROWS, dtype=np.int32)}), "int64"),
    (lambda: table_of([(0, [1, 0])]), "index has to rise"),
    (lambda: table_of([(3, [0]), (0, [301])]), "in order of episode_index|has to rise"),
    (lambda: table_of(WHOLE, columns={"frame_index": np.array([0, 1, 4, 2, 3, 4])}), "index - frame_index"),
    (lambda: table_of(WHOLE, columns={"score": np.full(ROWS, np.nan)}), "does not allow it"),
    (lambda: table_of(WHOLE, columns={"score": np.full(ROWS, np.inf)}), "infinite"),
    (lambda: table_of(WHOLE, columns={"score": np.full(ROWS, 1.5)}), "leaves its bounds"),
    (lambda: table_of(WHOLE, columns={"score": ["a"] * ROWS}), "floating numbers"),
    (lambda: table_of(WHOLE, descriptors=DESCRIPTORS | {"still": Descriptor(" ")}), "still: description ' '"),
    (lambda: table_of(WHOLE, descriptors=DESCRIPTORS | {"still": Descriptor("x", UP)}), "direction 'up'"),
    (lambda: table_of(WHOLE, descriptors=DESCRIPTORS | {"still": Descriptor("x", scope=WORLD)}), "scope 'world'"),
    (lambda: table_of(WHOLE, descriptors=DESCRIPTORS | {"still": Descriptor("x", bounds=(1, 0))}), "bounds"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "why"), BROKEN)
def test_every_rule_is_checked(make: Callable[[], pa.Table], why: str, tmp_path: Path):
    with pytest.raises(ValueError, match=why):
        check(make())
    pq.write_table(make(), tmp_path / "broken.parquet")
    with pytest.raises(ImportedError, match=why):
        read(tmp_path / "broken.parquet")


def test_what_keeps_the_rules_passes_in_every_state_of_the_convention(tmp_path: Path):
    assert check(table_of(WHOLE)) == DESCRIPTORS
    newer = {k: v for k, v in table_of(WHOLE).schema.metadata.items() if k.startswith(b"lerobot.scores.")}
    assert check(table_of(WHOLE).replace_schema_metadata(newer)) == DESCRIPTORS
    pq.write_table(table_of(WHOLE), tmp_path / "s.parquet")
    first, second = read(tmp_path / "s.parquet")
    assert (first.episode_index, first.frames, second.frames) == (0, (0, 1, 5), (2, 3, 4))
    label = first.label(8, 10.0, None)
    assert label.progress is not None
    # Straight between what is known, and as it was after the last
    np.testing.assert_allclose(label.progress, np.interp(np.arange(8), [0, 1, 5], first.progress), atol=1e-6)
    assert [(s.name, s.completed) for s in label.segments] == [("Unnamed step 1", False)]
    with pytest.raises(ImportedError, match="a row of frame 5, this episode has 4"):
        first.label(4, 10.0, None)


def test_a_table_without_rows_has_no_annotation(tmp_path: Path):
    pq.write_table(table_of(WHOLE).slice(0, 0), tmp_path / "s.parquet")
    assert read(tmp_path / "s.parquet") == []


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.tuples(st.integers(1, 12), st.sampled_from([STEP, IDLE, DONE]), st.booleans(), st.integers(0, 4)),
                   min_size=1, max_size=8),
    planned=st.integers(5, 7),
    seed=st.integers(0, 2**16),
)  # fmt: skip
def test_any_label_comes_back_but_for_names(parts: list[tuple[int, str, bool, int]], planned: int, seed: int):
    segments, at = [], 0
    for length, kind, completed, step in parts:
        # Outside of steps the kind says whether it is complete
        is_step = kind == STEP
        ended = completed if is_step else kind == DONE
        segments.append(Segment("x", at, at + length, kind, ended, step if is_step else None))
        at += length
    progress = np.random.default_rng(seed).random(at, np.float32)
    values = frame_signals._label_values(ActiveLabel(tuple(segments), planned, progress, (), None, False))
    table = pa.table(
        {"index": np.arange(at), "episode_index": np.zeros(at, np.int64), "frame_index": np.arange(at)} | values
    )
    facts = metadata(frame_signals.LABEL_SIGNALS, {}, [0])
    [annotation] = annotations(table.replace_schema_metadata(facts))
    label = annotation.label(at, 10.0, None)
    kept = ("start_frame", "end_frame", "kind", "completed", "step")
    assert [[getattr(s, k) for k in kept] for s in label.segments] == [[getattr(s, k) for k in kept] for s in segments]
    assert label.num_planned == planned
    np.testing.assert_array_equal(label.progress, progress)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(
    value=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30),
    size=st.integers(1, 12),
    outcome=st.sampled_from([None, 0.0, 1.0]),
    gamma=st.sampled_from([1.0, 0.9]),
)
def test_advantages_are_those_of_the_formulas(value: list[float], size: int, outcome: float | None, gamma: float):
    v = np.array(value, np.float32)
    residuals, found = chunk_residuals(v, size, gamma, 0.01), advantages(v, size, outcome)
    for t in range(len(v)):
        if t + size < len(v):
            expected = sum(gamma**k * 0.01 for k in range(size)) + gamma**size * v[t + size] - v[t]
            assert residuals[t] == pytest.approx(expected, abs=1e-5)
            assert found[t] == pytest.approx(v[t + size] - v[t], abs=1e-6)
        else:
            assert np.isnan(residuals[t])
            assert found[t] == pytest.approx((v[-1] if outcome is None else outcome) - v[t], abs=1e-6)


def test_a_share_of_a_task_is_positive():
    values = np.r_[np.arange(10.0), np.nan]
    assert (values > threshold(values, 0.3)).sum() == 3
    assert np.isnan(threshold(np.array([np.nan]), 0.3))
