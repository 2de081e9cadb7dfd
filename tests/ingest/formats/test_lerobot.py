"""LeRobot v2 and v3: what datasets in the wild do to them, what claims too much, and what no table
can keep."""

import json
import shutil
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.formats.lerobot_episode import WHOLE_KEYS, dimension_names, read_signals
from ingest.formats.tables import batches, ranges, read_columns, single_numbers
from ingest.reasons import DataError
from ingest.source import list_episodes
from ingest.sources.files import Source
from tests.kits import step_forms
from tests.kits.lerobot_writer import (
    FRONT,
    WRIST,
    declare,
    edit_info,
    edit_parquet,
    episode_rows,
    said,
    shown,
    source_of,
    v2_data,
    v2_video,
    v3_data,
    v3_meta,
    write_json_lines,
    write_parquet,
    write_v2,
    write_v3,
)
from tests.kits.step_forms import SPANS, V2_FORMS, V3_FORMS, episode_lines
from tests.kits.told import New, Told, golden

STATE = "observation.state"
ACTION = "action"
STARTS = f"videos/{FRONT}/from_timestamp"
ENDS = f"videos/{FRONT}/to_timestamp"


@golden
def test_metadata(new) -> Told:
    for content in (
        b"\xff\xfe{",
        b'{"fps": 10}',
        b'{"features": {}}',
        b'{"features": {}, "fps": NaN}',
        b'{"features": {}, "fps": true}',
    ):
        root = write_v2(new(), [6])
        (root / "meta/info.json").write_bytes(content)
        yield f"info.json is {content!r}", source_of(root)
    for fps in (1e308, 1e-320, 2**70, 10**400, -5, 1001):
        root = write_v2(new(), [6])
        edit_info(root, fps=fps)
        yield f"{str(fps)[:30]} fps", source_of(root)
    root = write_v2(new(), [6, 7, 8], tasks=["a", "b", "c"])
    rows = [
        '{"task_index": 0, "task": null}',
        '{"task_index": 1.0, "task": "two\u2028lines"}',
        '{"task": "x"}',
    ]
    (root / "meta/tasks.jsonl").write_text("\n".join(rows))
    write_json_lines(
        root / "meta/episodes.jsonl", [{"episode_index": e, "tasks": []} for e in range(3)]
    )
    yield (
        "a null text is no task, and a line separator inside a text does not end the line",
        source_of(root),
    )
    root = write_v3(new(), [6, 7])
    for max_episodes in (1, 2):
        yield (
            f"{max_episodes} episodes at most: those of the metadata",
            source_of(root, limits={"max_episodes": max_episodes}),
        )
    v3_meta(root).unlink()
    for max_episodes in (1, 2):
        yield (
            f"{max_episodes} episodes at most: those that have rows",
            source_of(root, limits={"max_episodes": max_episodes}),
        )
    root = write_v3(new(), [6, 7])
    write_parquet(
        root / "meta/episodes/episodes.parquet",
        {"episode_index": [0, 1, 2, 3], "length": [1, 1, 1, 1]},
    )
    write_parquet(root / "data/chunk-000/notes.parquet", episode_rows(9, 3, 10, 0))
    yield "a second table of episodes beside the real one is left out", source_of(root)


@golden
def test_videos(new) -> Told:
    root = write_v2(new(), [6, 7])
    (root / "films").mkdir()
    for e in range(2):
        v2_video(root, FRONT, e).rename(root / f"films/{FRONT}_{e}.mp4")
    edit_info(root, video_path="films/{video_key}_{episode_index}.mp4")
    yield "a template of its own", source_of(root)
    root = write_v3(new(), [7, 9, 5, 6, 8, 11])
    (root / "videos/chunk-000").mkdir()
    shutil.move(root / f"videos/{FRONT}/chunk-000", root / f"videos/chunk-000/{FRONT}")
    yield "in the order of v2", source_of(root)
    edit_info(
        root, video_path="videos/chunk-{chunk_index:03d}/{video_key}/file-{file_index:03d}.mp4"
    )
    yield "in the order of v2, and info.json says so", source_of(root)
    root = write_v3(new(), [6, 7], cameras={FRONT: 2, WRIST: 2})
    edit_parquet(v3_meta(root), **{f"videos/{WRIST}/file_index": None})
    yield "null pointers of a whole camera are said once", source_of(root)
    # More rows than there is video before the next episode begins
    for title, lengths, starts, ends in (
        (
            "pointers that were never reset: which episode they show is not known",
            [6, 7, 8, 9],
            [0, 0, 0, 2.1],
            {},
        ),
        (
            "a third one stands within the first; 2 begins where 3 ends",
            [6, 7, 8, 9],
            [0, 0.5, 3, 2.1],
            {ENDS: None},
        ),
        ("the last two share frames", [6, 7, 8, 9], [0, 0.6, 2.9, 2.1], {ENDS: None}),
        (
            "each that overlaps a long one, not only its neighbour",
            [20, 5, 5, 6],
            [0, 0.2, 1, 2],
            {ENDS: None},
        ),
    ):
        root = write_v3(new(), lengths, cameras={FRONT: 4, WRIST: 1})
        edit_parquet(v3_meta(root), **{STARTS: [float(s) for s in starts]} | ends)
        yield f"frames claimed twice: {title}", source_of(root)


@golden
def test_rows(new) -> Told:
    root = write_v2(new(), [6])
    nothing = dict.fromkeys((STATE, ACTION, "timestamp", "frame_index", "episode_index"))
    edit_parquet(v2_data(root, 0), **nothing, task_index=[])
    yield "none", source_of(root)
    root = write_v2(new(), [6])
    table = pa.table(episode_rows(0, 6, 10, 0))
    pq.write_table(table.append_column(ACTION, table[ACTION]), v2_data(root, 0))
    yield "a column that is there twice", source_of(root)
    root = write_v3(new(), [6, 7], per_data_file=1)
    edit_parquet(v3_data(root, 1), episode_index=None)
    yield "that do not say their episode", source_of(root)
    for index in (-1, 2**31, 2**62):
        root = write_v3(new(), [6, 7])
        edit_parquet(v3_data(root, 0), episode_index=[0] * 6 + [index] * 7)
        yield f"of episode {index}: they are left out, the others count", source_of(root)
    root = write_v3(new(), [6, 7, 8], per_data_file=3)
    write_parquet(v3_data(root, 1), episode_rows(1, 4, 10, 0))
    yield "that do not stand together", source_of(root)
    root = write_v3(new(), [6, 7], per_data_file=1)
    (root / "data/chunk-000/file-001.parquet").unlink()
    yield "that a file should hold", source_of(root)
    edit_parquet(v3_meta(root), **{"data/chunk_index": [0, 0], "data/file_index": [0, 1]})
    yield "that a file should hold, by the metadata's pointers", source_of(root)


def with_columns(root: Path, columns: Mapping[str, Sequence[Any]], **fields: Any) -> Source:
    """Of a dataset whose episode k has the k-th value of each column: its rows."""
    write_v2(root, [4] * len(next(iter(columns.values()))), cameras=())
    for name, episodes in columns.items():
        for k, rows in enumerate(episodes):
            edit_parquet(v2_data(root, k), **{name: rows})
    return source_of(root, **fields)


@golden
def test_outcomes(new) -> Told:
    """Flags in each type, and columns that are none; rewards of 0 and 1, of which the last one
    counts."""
    for won in (
        [0, 0, 0, 1],
        [0.0, 0.0, None, 1.0],
        pa.array([[0], [0], [0], [1]], pa.list_(pa.int64())),
        pa.array([[0], [0], [0], [1]], pa.list_(pa.float32(), 1)),
    ):
        yield (
            f"won: {won!s:.99}, {getattr(won, 'type', '')}",
            with_columns(new(), {"next.success": [won, [False] * 4]}),
        )
    for rows in (
        [None] * 4,
        ["maybe"] * 4,
        [0.2, 0.4, 0.6, 1.0],
        pa.array([[0], [0], [0, 1], [1]], pa.list_(pa.int64())),
        [2**60] * 4,
    ):
        yield f"no flag: {rows!s:.99}", with_columns(new(), {"next.success": [rows, rows]})
    zeros = [0.0] * 4
    for name in ("next.reward", "reward"):
        yield name, with_columns(new(), {name: [[0, 0, 0, 1.0], zeros, [0, 1.0, 0, 0]]})
    of_reward = {"next.reward": [[0, 0, 0, 1.0], zeros]}
    yield (
        "a reward that the registry names",
        with_columns(new(), of_reward, success_field="next.reward"),
    )
    yield "a reward that is never set", with_columns(new(), {"next.reward": [zeros] * 2})
    yield (
        "a dense reward",
        with_columns(new(), {"next.reward": [[0, 0, 0, 1.0], [0, 0.3, 0.6, 0.9], zeros]}),
    )


def feature(names: Any = None, dtype: str = "float32") -> dict[str, Any]:
    return {"dtype": dtype, "names": names}


@golden
def test_state_and_action(new) -> Told:
    def written(
        features: Mapping[str, Any], columns: Mapping[str, Any], modality: Any = None
    ) -> Source:
        root = write_v2(new(), [5], cameras=())
        edit_parquet(v2_data(root, 0), **{STATE: None, ACTION: None} | columns)
        edit_info(root, features=features)
        if modality is not None:
            (root / "meta/modality.json").write_text(
                modality if isinstance(modality, str) else json.dumps(modality)
            )
        return source_of(root)

    def vectors(*factors: float) -> pa.Array:
        return pa.array(np.outer(range(5), factors).tolist())

    mode = {"observation.state.mode": feature(dtype="string")}
    joints = "observation.state.joints"
    gripper = "observation.state.gripper_position"
    parts = (
        {joints: feature(["j0", "j1"]), gripper: feature(["gripper"])}
        | mode
        | {"action.wrist": feature()}
    )
    columns = {
        "action.wrist": vectors(1, 9),
        gripper: [5.0 * k for k in range(5)],
        joints: vectors(1, 2),
    }
    yield (
        "a column for each part, in the order of info.json; one of texts is none",
        written(parts, columns),
    )
    width = "observation.gripper_width"
    time = "observation.time"
    for names in (["x", "y"], None, ["x", "claw"]):  # the last has its gripper already
        features = {STATE: feature(names), width: feature(), time: feature()}
        columns_beside = {
            STATE: vectors(1, 1),
            width: [7.0 * k for k in range(5)],
            time: [1.0 * k for k in range(5)],
        }
        yield f"a gripper beside the state {names}", written(features, columns_beside)
    hands = {
        "left_hand": {"start": 1, "end": 3},
        "arm": {"start": 0, "end": 1},
        "bad": {"start": 2, "end": 9},
    }
    modality = {"state": hands, "action": {"arm": {"start": 0, "end": 1}}}
    for names in (["motor_0", "motor_1", "motor_2"], ["a", "b", "gripper"]):
        features = {STATE: feature(names), ACTION: feature(["motor_0"])}
        columns = {STATE: vectors(1, 1, 1), ACTION: vectors(1)}
        yield (
            f"GR00T's modality.json where names say nothing: {names}",
            written(features, columns, modality),
        )
    of_state = {"arm": {"start": 0, "end": 2}, "left_gripper": {"start": 2, "end": 3}}
    of_action = {"gripper": {"start": 2, "end": 3, "original_key": STATE}}
    yield (
        "the action is taken from the column of the state, whose dimensions have their own names",
        written(
            {STATE: feature()},
            {STATE: vectors(1, 2, 3)},
            {"state": of_state, "action": of_action},
        ),
    )
    features = {STATE: feature(), ACTION: feature()}
    columns = {STATE: vectors(1, 2), ACTION: vectors(1)}
    yield (
        "modality.json is damaged: episodes are read without it",
        written(features, columns, '{"state": '),
    )
    texts = {STATE: [["a"]] * 5, "state": vectors(2), ACTION: vectors(1)}
    yield (
        "columns that hold no numbers",
        written({STATE: feature(), "state": feature(["x"])}, texts),
    )


@pytest.mark.parametrize(
    "template",
    [
        "{video_key}/{episode_index:99999999d}.mp4", "{video_key:>99999999}.mp4", "{video_key!r:99999999}",
        "{video_key.__class__.__mro__}", "{0}{1}", "{",
    ],
)  # fmt: skip
def test_path_templates_are_not_trusted(tmp_path, template):
    # Nothing is looked into, and no name is filled up to any length
    root = write_v2(tmp_path, [6])
    edit_info(root, video_path=template)
    tracemalloc.start()
    listing = list_episodes(source_of(root))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said(listing) == [("path_template", "warning", None, None)]
    assert shown(source_of(root), listing.records[0], FRONT) == [(0, 0, k) for k in range(6)]
    assert peak < 50_000_000


@pytest.mark.parametrize(
    "name", ["file-000 (1).parquet", "file-000_old.parquet", "old/file-000.parquet"]
)
def test_copies_of_data_files_are_not_read(tmp_path, name):
    root = write_v3(tmp_path, [6, 7])
    before = list_episodes(source_of(root))
    (root / "data/chunk-000/old").mkdir()
    shutil.copy(v3_data(root, 0), root / "data/chunk-000" / name)
    listing = list_episodes(source_of(root))
    assert {*said(listing)} <= {("part_not_used", "warning", None, None)}
    assert listing.records == before.records


@pytest.mark.parametrize(("start", "count"), [(20, 1), (15, 6), (0, 21), (100, 5)])
def test_rows_that_are_not_there(tmp_path, start, count):
    path = write_parquet(tmp_path / "a.parquet", {"state": [[float(k)] for k in range(20)]})
    with pytest.raises(DataError, match=r"^a\.parquet"):
        read_columns(path, start, count, (*WHOLE_KEYS, "timestamp"))


@pytest.mark.parametrize("type_", [pa.list_(pa.float64()), pa.list_(pa.float64(), 1)])
def test_a_row_without_a_number_takes_none_from_others(type_):
    column = pa.array([[7.0], [1.0], None, [2.0]], type_).slice(1)
    numbers = single_numbers(pa.chunked_array([column]))
    np.testing.assert_array_equal(numbers, [1, np.nan, 2])


def test_names_of_dimensions(tmp_path):
    for names, expected in (
        (["a", "b"], ["a", "b"]),
        ({"motors": ["a", "b"]}, ["a", "b"]),
        ({"left": ["a", "b"], "right": ["a"]}, ["left.a", "left.b", "right.a"]),
        ({"b": 1, "c": 2, "a": 0}, ["a", "b", "c"]),
        ({"b": True, "c": False}, []),
        ({"motors": "a"}, []),
        ({}, []),
        (None, []),
    ):
        assert dimension_names({"names": names}) == expected, names
    assert [dimension_names(f) for f in ({}, None, [])] == [[]] * 3
    table = pa.table({STATE: [["a"], ["b"]], "state": [[1.0], [2.0]], ACTION: [1, 2]})
    write_v2(tmp_path, [6])
    edit_info(tmp_path, features={"state": {"names": ["x"]}})
    signals = read_signals(source_of(tmp_path), table)
    assert signals[:2] == (pa.table({"x": [1.0, 2.0]}), None)


def language(num_steps: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"step {k} of {num_steps}"} for k in range(num_steps)]


STEPS = list(map(language, range(12)))
TABLE = pa.table(
    {
        "task": [f"task {n % 3}" for n in range(12)],
        "tasks": [list(map("task {}".format, range(n % 4))) for n in range(12)],
        "language": STEPS,
    }
)


@pytest.mark.parametrize("rows_of_a_group", [3, 12])
@pytest.mark.parametrize("size", [2, 5, 100])
def test_texts_within_lists_and_structs_are_read_from_several_row_groups(
    tmp_path, rows_of_a_group, size
):
    path = tmp_path / "rows.parquet"
    pq.write_table(TABLE, path, row_group_size=rows_of_a_group)
    with pq.ParquetFile(path) as file:
        assert (
            pa.Table.from_batches(batches(file, TABLE.column_names, size)).to_pylist()
            == TABLE.to_pylist()
        )
        places = [(0, 2), (2, 1), (5, 6), (11, 1)]
        parts = list(ranges(file, places, TABLE.column_names, size))
    assert [part.to_pylist() for part in parts] == [
        TABLE.slice(*place).to_pylist() for place in places
    ]


type Change = Callable[[Path], object]
WHOLE = [("put the cup away", 0, 24)]


def spread(
    new: New,
    changes: dict[str, Change],
    write: Callable[..., Path] = write_v2,
    **writer_options: Any,
) -> Told:
    """A dataset for each change."""
    if write is write_v2:
        whole = write(new(), (24, 30), cameras=(), **writer_options)
    else:
        whole = write(new(), (24, 30), {}, **writer_options)
    for title, change in changes.items():
        shutil.copytree(whole, root := new(), dirs_exist_ok=True)
        change(root)
        yield title, source_of(root)


def same_everywhere(root: Path) -> None:
    V2_FORMS["annotation"](root)
    for column in ("fine_action", "coarse_action"):
        edit_parquet(v2_data(root, 0), **{f"annotation.human.{column}": pa.array([0] * 24)})


@golden
def test_forms(new) -> Told:
    """One span that is the whole episode is a text and no step: it tells no times, and motion has
    to."""
    yield from spread(new, dict(V2_FORMS))
    whole_forms = ("subtask_index", "language", "action_config", "robocoin", "visualizer")
    whole: dict[str, Change] = {
        f"{form}, whole": partial(V2_FORMS[form], spans=WHOLE) for form in whole_forms
    }
    yield from spread(new, whole | {"annotation, whole": same_everywhere})
    yield from spread(
        new, {f"{form} in v3": write for form, write in V3_FORMS.items()}, write_v3, per_data_file=1
    )


@golden
def test_broken_steps_are_a_finding_and_lose_no_episode(new) -> Told:
    def action_config(*spans: Any) -> Change:
        return lambda root: episode_lines(
            root,
            lambda row: {"action_config": spans[0] if row["episode_index"] == 0 else spans[-1]},
        )

    def unknown_index(root: Path) -> None:
        step_forms.subtask_index(root)
        edit_parquet(v2_data(root, 0), subtask_index=pa.array([0] * 10 + [7] * 14))

    def no_time(root: Path) -> None:
        step_forms.visualizer(root)
        atoms = [{"style": "subtask", "content": "a", "timestamp": None}]
        path = root / "meta/lerobot_annotations.json"
        write_json_lines(path, [{"version": 2, "episodes": {"0": {"atoms": atoms}}}])

    def of_other_lengths(root: Path) -> None:
        step_forms.sarm(root)
        edit_parquet(v3_meta(root), dense_subtask_end_frames=pa.array([[5], None]))

    half = [{"start_frame": 0, "end_frame": 9}, {"start_frame": 9}]
    yield from spread(
        new,
        {
            "overlapping": lambda root: step_forms.action_config(
                root, [("a", 0, 10), ("b", 8, 20)]
            ),
            "beyond the end": lambda root: step_forms.action_config(
                root, [("a", 0, 10), ("b", 10, 25)]
            ),
            "no frame": action_config(
                [{"start_frame": "soon", "end_frame": 9, "action_text": "a"}], None
            ),
            "no text": action_config(half),
            "no list": action_config("{", []),
            "an index without a text": unknown_index,
            "two at once": lambda root: step_forms.visualizer(root, [("a", 4, 8), ("b", 4, 9)]),
            "no time": no_time,
        },
    )
    yield from spread(new, {"lists of SARM of other lengths": of_other_lengths}, write_v3)


@golden
def test_several_forms(new) -> Told:
    """What people drew counts before what a model wrote; a boundary may be two frames (0.2 s)
    off."""

    def both(spans: Any, second_form: str = "subtask_index") -> Change:
        return lambda root: (step_forms.language(root, spans), V2_FORMS[second_form](root))

    moved_spans = [
        ("reach the cup", 2, 8),
        ("grasp the cup", 8, 18),
        ("put it on the plate", 18, 21),
    ]
    yield from spread(
        new,
        {
            "a boundary is moved": both(moved_spans, "visualizer"),
            "they agree": both([("reach the cup", 2, 10), *SPANS[1:]]),
            "another number": both([("all of it", 2, 21)]),
            "another name": both([("reach", 2, 8), *SPANS[1:]]),
        },
    )


# As exports of ours wrote them before this version
FIELDS = ("name", "start_frame", "end_frame", "kind", "completed", "step")
SEGMENTS = [
    dict(zip(FIELDS, segment, strict=True))
    for segment in (
        ("Stand still", 0, 4, "idle", False, None),
        ("Grasp", 4, 10, "step", False, 0),
        ("Grasp", 10, 20, "step", True, 0),
        ("Done", 20, 24, "done", True, None),
    )
]


@golden
def test_exports_of_ours(new) -> Told:
    """They have attempts, completion and idle spans."""

    def export(root: Path) -> None:
        step_forms.sarm(root)
        columns = {"dataset": ["tiny"] * 2, "episode_index": [40, 41], "num_planned": [2, None]}
        columns["segments"] = [SEGMENTS, None]
        edit_parquet(
            v3_meta(root),
            **{f"proccorpus_{name}": pa.array(cells) for name, cells in columns.items()},
        )

    def merged(root: Path) -> None:
        """LeRobot's merge_datasets takes the table through pandas, which makes floats of numbers
        with nulls."""
        export(root)
        rows = [
            row | {"step": None if row["step"] is None else float(row["step"])} for row in SEGMENTS
        ]
        edit_parquet(v3_meta(root), proccorpus_segments=pa.array([rows, None]))

    def numbered(root: Path) -> None:
        export(root)
        rows = [row | {"step": -1 if row["step"] is None else row["step"]} for row in SEGMENTS]
        edit_parquet(v3_meta(root), proccorpus_segments=pa.array([rows, None]))

    def split(root: Path) -> None:
        columns = ("progress", "subtask", "language_persistent", "language_events")
        declare(root, {name: {"dtype": "string", "shape": [1]} for name in columns})

    cases: dict[str, Change] = {
        "segments": export,
        "merged": merged,
        "without nulls": numbered,
        "split": split,
    }
    yield from spread(new, cases, write_v3)


TASK_COLUMN = "annotation.human.action.task_description"
STEP_COLUMN = "annotation.human.fine_action"


@golden
def test_edits_by_tools_of_lerobot(new) -> Told:
    """Tasks are numbered anew and columns beside task_index are not; files of texts are left
    out."""

    def annotated(
        root: Path, tasks: tuple[int, int], texts: tuple[int, int], stored: tuple[int, int] | None
    ) -> None:
        """`tasks`: of the rows; `texts`: what the column says that names them; `stored`: what
        statistics know."""
        declare(root, {name: {"dtype": "int64"} for name in (TASK_COLUMN, STEP_COLUMN)})
        for episode, length in enumerate((24, 30)):
            steps = [0] * 10 + [1] * (length - 10)
            columns = {
                TASK_COLUMN: [texts[episode]] * length,
                STEP_COLUMN: steps,
                "task_index": [tasks[episode]] * length,
            }
            edit_parquet(
                v3_data(root, episode), **{name: pa.array(cells) for name, cells in columns.items()}
            )
        write_parquet(
            root / "meta/tasks.parquet", {"task_index": [0, 1], "task": ["open", "close"]}
        )
        if stored:
            of_episodes = pa.array([[float(n)] for n in stored])
            edit_parquet(
                v3_meta(root),
                **{f"stats/task_index/{name}": of_episodes for name in ("min", "max")},
            )

    def lost(form: str, uri: str) -> Change:
        def change(root: Path) -> None:
            V2_FORMS[form](root)
            (root / uri).unlink()

        return change

    whole = partial(annotated, tasks=(0, 1), texts=(0, 1))
    cases: dict[str, Change] = {
        "as recorded": partial(whole, stored=(0, 1)),
        "without statistics": partial(whole, stored=None),
        "deleted": partial(annotated, tasks=(1, 0), texts=(0, 1), stored=(0, 1)),
        "deleted, without statistics": partial(annotated, tasks=(1, 0), texts=(0, 1), stored=None),
        "merged": partial(annotated, tasks=(0, 1), texts=(0, 0), stored=(0, 1)),
        "another wording": partial(annotated, tasks=(0, 0), texts=(1, 1), stored=(0, 0)),
        "no subtasks.parquet": lost("subtask_index", "meta/subtasks.parquet"),
        "no subtask_annotations.jsonl": lost("robocoin", "annotations/subtask_annotations.jsonl"),
    }
    yield from spread(new, cases, partial(write_v3, per_data_file=1))


@golden
def test_an_annotation_column_of_which_an_index_has_no_text(new) -> Told:
    """It is told where nothing better is there, and beside a column that is used; a flag is no
    index."""

    def fine_action(root: Path) -> None:
        step_forms.annotation(root)
        edit_parquet(v2_data(root, 0), **{STEP_COLUMN: pa.array([50] * 10 + [51] * 14)})

    def alone(root: Path) -> None:
        fine_action(root)
        edit_parquet(v2_data(root, 0), **{"annotation.human.coarse_action": None})

    def flag(root: Path) -> None:
        step_forms.annotation(root)
        step_forms.add_column(
            v2_data(root, 0),
            "annotation.human.held",
            [k > 9 for k in range(24)],
            pa.bool_(),
            "bool",
            [1],
        )

    yield from spread(new, {"beside another": fine_action, "alone": alone, "flag": flag})
