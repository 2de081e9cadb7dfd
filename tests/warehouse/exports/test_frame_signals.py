"""LeRobot's sidecar of signals per frame: written, checked by the convention's rules, and read as a label run."""

from collections.abc import Callable
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.conventions.sidecars import Descriptor, annotations, check, metadata, read_signals
from annotate.imported_label import ImportedError
from core.domain.label import DONE, IDLE, STEP, Label, Segment
from warehouse.exports import EXPORT_KINDS, sidecars
from warehouse.exports.options import Selection

FRAME_SIGNALS = EXPORT_KINDS["frame-signals"]

ANY = Selection(allow=("unknown",))
DESCRIPTORS = {
    "score": Descriptor("How far.", "higher", (0.0, 1.0)),
    "still": Descriptor("Does it rest?"),
}


def table_of(episodes: list[tuple[int, list[int]]], **changed: Any) -> pa.Table:
    """A small table that keeps the rules, of (episode, frames); each episode has 100 rows of its dataset."""
    rows = []
    for e, frames in episodes:
        rows += [(100 * e + f, e, f) for f in frames]
    columns = {
        name: np.array(list(map(itemgetter(k), rows)), np.int64)
        for k, name in enumerate(("index", "episode_index", "frame_index"))
    }
    columns |= {
        "score": np.linspace(0, 1, len(rows), dtype=np.float32),
        "still": np.zeros(len(rows), bool),
    }
    table = pa.table(columns | changed.pop("columns", {}))
    facts = metadata(
        changed.pop("descriptors", DESCRIPTORS), {"made": "here"}, [e for e, _ in episodes]
    )
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
        read_signals(tmp_path / "broken.parquet")


def test_what_keeps_the_rules_passes_in_every_state_of_the_convention(tmp_path: Path):
    assert check(table_of(WHOLE)) == DESCRIPTORS
    newer = {
        k: v for k, v in table_of(WHOLE).schema.metadata.items() if k.startswith(b"lerobot.scores.")
    }
    assert check(table_of(WHOLE).replace_schema_metadata(newer)) == DESCRIPTORS
    pq.write_table(table_of(WHOLE), tmp_path / "s.parquet")
    first, second = read_signals(tmp_path / "s.parquet")
    assert (first.episode_index, first.frames, second.frames) == (0, (0, 1, 5), (2, 3, 4))
    label = first.label(8, 10.0, None)
    assert label.progress is not None
    # Straight between what is known, and as it was after the last
    np.testing.assert_allclose(
        label.progress, np.interp(np.arange(8), [0, 1, 5], first.progress), atol=1e-6
    )
    assert [(s.name, s.completed) for s in label.segments] == [("Unnamed step 1", False)]
    with pytest.raises(ImportedError, match="a row of frame 5, this episode has 4"):
        first.label(4, 10.0, None)


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.tuples(st.integers(1, 12), st.sampled_from([STEP, IDLE, DONE]), st.booleans(), st.integers(0, 4)),
                   min_size=1, max_size=8),
    planned=st.integers(5, 7),
    seed=st.integers(0, 2**16),
)  # fmt: skip
def test_any_label_comes_back_but_for_names(
    parts: list[tuple[int, str, bool, int]], planned: int, seed: int
):
    segments = []
    start_frame = 0
    for length, kind, completed, step in parts:
        # Outside of steps the kind says whether it is complete
        is_step = kind == STEP
        ended = completed if is_step else kind == DONE
        segments.append(
            Segment("x", start_frame, start_frame + length, kind, ended, step if is_step else None)
        )
        start_frame += length
    progress = np.random.default_rng(seed).random(start_frame, np.float32)
    values = sidecars.label_values(Label(segments, planned, progress=progress))
    table = pa.table(
        {
            "index": np.arange(start_frame),
            "episode_index": np.zeros(start_frame, np.int64),
            "frame_index": np.arange(start_frame),
        }
        | values
    )
    facts = metadata(sidecars.LABEL_SIGNALS, {}, [0])
    [annotation] = annotations(table.replace_schema_metadata(facts))
    label = annotation.label(start_frame, 10.0, None)
    compared_fields = ("start_frame", "end_frame", "kind", "completed", "step")
    facts = attrgetter(*compared_fields)
    assert list(map(facts, label.segments)) == list(map(facts, segments))
    assert label.num_planned == planned
    np.testing.assert_array_equal(label.progress, progress)  # type: ignore[arg-type]
