"""Steps in the forms that other people's tools write into LeRobot datasets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ingest.episode import Listing, NativeStep
from ingest.source import list_episodes
from tests.kits import step_forms
from tests.kits.lerobot_writer import edit_parquet, source_of, v2_data, v3_meta, write_v2, write_v3
from tests.kits.step_forms import SPANS, V2_FORMS, episode_lines

STEPS = tuple(NativeStep(*span) for span in SPANS)
FROM = {
    "visualizer_v1": "visualizer",
    "robocoin": "subtask_annotation",
    "annotation": "annotation.human.fine_action",
    "robomind": "action_config",
    "sarm_times": "sarm",
}


@pytest.fixture(scope="module")
def plain_v2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_v2(tmp_path_factory.mktemp("plain") / "v2", (24, 30))


@pytest.fixture
def v2(plain_v2: Path, tmp_path: Path) -> Path:
    return _copied(plain_v2, tmp_path / "v2")


@pytest.fixture(scope="module")
def plain_v3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of its own for the data of each episode."""
    return write_v3(tmp_path_factory.mktemp("plain") / "v3", (24, 30), per_data_file=1)


@pytest.fixture
def v3(plain_v3: Path, tmp_path: Path) -> Path:
    return _copied(plain_v3, tmp_path / "v3")


def _copied(root: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(root, to))


def listed(root: Path) -> Listing:
    return list_episodes(source_of(root))


def said_of_steps(listing: Listing) -> list[tuple[str, int | None, str]]:
    return [(f.reason, f.episode_index, f.detail) for f in listing.findings if "steps" in f.reason]


@pytest.mark.parametrize("form", V2_FORMS)
def test_each_form_in_v2(v2: Path, form: str) -> None:
    V2_FORMS[form](v2)
    first, second = listed(v2).records
    assert (first.steps, first.steps_from) == (STEPS, FROM.get(form, form))
    assert (second.steps, second.steps_from) == ((), None)
    assert said_of_steps(listed(v2)) == []


@pytest.mark.parametrize("form", ["subtask_index", "language", "action_config", "annotation", "robocoin", "visualizer"])
def test_one_span_that_is_the_whole_episode_is_a_text_and_no_step(v2: Path, form: str) -> None:
    """LingBot's sets have one span for each run: it tells no times, and motion has to."""
    V2_FORMS[form](v2)
    whole = {"spans": [("put the cup away", 0, 24)]}
    getattr(step_forms, form)(v2, **whole) if form != "annotation" else _same_everywhere(v2)
    listing = listed(v2)
    assert [r.steps for r in listing.records] == [(), ()]
    assert said_of_steps(listing) == []


def _same_everywhere(root: Path) -> None:
    for column in ("fine_action", "coarse_action"):
        edit_parquet(v2_data(root, 0), **{f"annotation.human.{column}": pa.array([0] * 24)})


# What is broken


def _overlapping(root: Path) -> None:
    step_forms.action_config(root, [("a", 0, 10), ("b", 8, 20)])


def _beyond(root: Path) -> None:
    step_forms.action_config(root, [("a", 0, 10), ("b", 10, 25)])


def _no_frame(root: Path) -> None:
    config = [{"start_frame": "soon", "end_frame": 9, "action_text": "a"}]
    episode_lines(root, lambda row: {"action_config": config if row["episode_index"] == 0 else None})


def _no_text(root: Path) -> None:
    episode_lines(root, lambda row: {"action_config": [{"start_frame": 0, "end_frame": 9}, {"start_frame": 9}]})


def _no_list(root: Path) -> None:
    episode_lines(root, lambda row: {"action_config": "{" if row["episode_index"] == 0 else []})


def _unknown_index(root: Path) -> None:
    step_forms.subtask_index(root)
    edit_parquet(v2_data(root, 0), subtask_index=pa.array([0] * 10 + [7] * 14))


def _two_at_once(root: Path) -> None:
    step_forms.visualizer(root, [("a", 4, 8), ("b", 4, 9)])


def _no_time(root: Path) -> None:
    atoms = [{"style": "subtask", "content": "a", "timestamp": None}]
    step_forms._write_visualizer(root, {"version": 2, "episodes": {"0": {"atoms": atoms}}})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_overlapping, "action_config: a ends at frame 10, b begins at 8"),
        (_beyond, "action_config: span 1 (b) ends at frame 25 of 24"),
        (_no_frame, "action_config: 'soon' is no frame"),
        (_no_text, "action_config: None is no frame"),
        (_no_list, "action_config: Expecting property name"),
        (_unknown_index, "subtask_index: meta/subtasks.parquet has no text of 7"),
        (_two_at_once, "visualizer: 'b' and 'a' both begin at frame 4"),
        (_no_time, "visualizer: None is no time or frame of a step"),
    ],
)
def test_broken_steps_are_a_finding_and_lose_no_episode(v2: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(v2)
    listing = listed(v2)
    assert listing.records[0].steps == ()
    reason, episode, detail = said_of_steps(listing)[0]
    assert (reason, episode) == ("bad_steps", 0)
    assert detail.startswith(message)
    assert {f.severity for f in listing.findings} == {"warning"}


def test_sarm_lists_of_other_lengths(v3: Path) -> None:
    step_forms.sarm(v3)
    edit_parquet(v3_meta(v3), dense_subtask_end_frames=pa.array([[5], None]))
    listing = listed(v3)
    assert listing.records[0].steps == ()
    assert said_of_steps(listing) == [
        ("bad_steps", 0, "sarm: dense_subtask_names, start_frames, end_frames differ in length")
    ]


# Several forms


def test_what_people_drew_counts_before_what_a_model_wrote(v2: Path) -> None:
    moved = [("reach the cup", 2, 8), ("grasp the cup", 8, 18), ("put it on the plate", 18, 21)]
    step_forms.language(v2, moved)
    step_forms.visualizer(v2)
    listing = listed(v2)
    assert (listing.records[0].steps, listing.records[0].steps_from) == (STEPS, "visualizer")
    assert said_of_steps(listing) == [
        ("steps_differ", 0, "visualizer is used; language lets 'put it on the plate' begin at frame 18, not 14")
    ]


def test_forms_that_agree_are_no_finding(v2: Path) -> None:
    """Also where a boundary is two frames (0.2 s) off."""
    step_forms.language(v2, [("reach the cup", 2, 10), *SPANS[1:2], SPANS[2]])
    step_forms.subtask_index(v2)
    assert said_of_steps(listed(v2)) == []


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ([("all of it", 2, 21)], "number of steps by language: 1, not 3"),
        ([("reach", 2, 8), *SPANS[1:]], "language names 'reach' at frame 2, not 'reach the cup'"),
    ],
)
def test_forms_that_differ_in_steps(v2: Path, other: list[tuple[str, int, int]], message: str) -> None:
    step_forms.language(v2, other)
    step_forms.subtask_index(v2)
    assert said_of_steps(listed(v2)) == [("steps_differ", 0, f"subtask_index is used; {message}")]


# Exports of ours

SEGMENTS = [
    {"name": "Stand still", "start_frame": 0, "end_frame": 4, "kind": "idle", "completed": False, "step": None},
    {"name": "Grasp", "start_frame": 4, "end_frame": 10, "kind": "step", "completed": False, "step": 0},
    {"name": "Grasp", "start_frame": 10, "end_frame": 20, "kind": "step", "completed": True, "step": 0},
    {"name": "Done", "start_frame": 20, "end_frame": 24, "kind": "done", "completed": True, "step": None},
]
ROW = pa.list_(
    pa.struct(
        [
            ("name", pa.string()), ("start_frame", pa.int64()), ("end_frame", pa.int64()), ("kind", pa.string()),
            ("completed", pa.bool_()), ("step", pa.int16()),
        ]
    )
)  # fmt: skip


def export(root: Path, segments: list[dict[str, Any]], **columns: Any) -> None:
    """As exports before this version wrote it; further columns are of both episodes."""
    edit_parquet(
        v3_meta(root),
        proccorpus_segments=pa.array([segments, None], ROW),
        proccorpus_dataset=pa.array(["tiny"] * 2),
        proccorpus_episode_index=pa.array([40, 41]),
        proccorpus_num_planned=pa.array([2, None]),
        **columns,
    )


def test_an_export_of_ours_has_attempts_completion_and_idle_spans(v3: Path) -> None:
    step_forms.sarm(v3)
    export(v3, SEGMENTS)
    record = listed(v3).records[0]
    assert [s.__dict__ for s in record.steps] == [row | {"confidence": None, "notes": None} for row in SEGMENTS]
    assert (record.steps_from, record.plan, record.as_far_as) == ("segments", ("Grasp", "Unnamed step 2"), None)
