"""Steps in the forms that other people's tools write into LeRobot datasets."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.kits import step_forms
from tests.kits.lerobot_writer import (
    edit_info,
    edit_parquet,
    features,
    source_of,
    v2_data,
    v3_data,
    v3_meta,
    write_json_lines,
    write_parquet,
    write_v2,
    write_v3,
)
from tests.kits.step_forms import SPANS, V2_FORMS, V3_FORMS, episode_lines
from tests.kits.told import New, Told, golden

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
def test_forms(new: New) -> Told:
    """One span that is the whole episode is a text and no step: it tells no times, and motion has to."""
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
def test_broken_steps_are_a_finding_and_lose_no_episode(new: New) -> Told:
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
def test_several_forms(new: New) -> Told:
    """What people drew counts before what a model wrote; a boundary may be two frames (0.2 s) off."""

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
SEGMENTS = [
    {
        "name": "Stand still",
        "start_frame": 0,
        "end_frame": 4,
        "kind": "idle",
        "completed": False,
        "step": None,
    },
    {
        "name": "Grasp",
        "start_frame": 4,
        "end_frame": 10,
        "kind": "step",
        "completed": False,
        "step": 0,
    },
    {
        "name": "Grasp",
        "start_frame": 10,
        "end_frame": 20,
        "kind": "step",
        "completed": True,
        "step": 0,
    },
    {
        "name": "Done",
        "start_frame": 20,
        "end_frame": 24,
        "kind": "done",
        "completed": True,
        "step": None,
    },
]


@golden
def test_exports_of_ours(new: New) -> Told:
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
        """LeRobot's merge_datasets takes the table through pandas, which makes floats of numbers with nulls."""
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
        edit_info(
            root,
            features=features([], 10)
            | {name: {"dtype": "string", "shape": [1]} for name in columns},
        )

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
def test_edits_by_tools_of_lerobot(new: New) -> Told:
    """Tasks are numbered anew and columns beside task_index are not; files of texts are left out."""

    def annotated(
        root: Path, tasks: tuple[int, int], texts: tuple[int, int], stored: tuple[int, int] | None
    ) -> None:
        """`tasks`: of the rows; `texts`: what the column says that names them; `stored`: what statistics know."""
        edit_info(
            root,
            features=features([], 10)
            | {name: {"dtype": "int64"} for name in (TASK_COLUMN, STEP_COLUMN)},
        )
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
def test_an_annotation_column_of_which_an_index_has_no_text(new: New) -> Told:
    """It is told where nothing better is there, and beside a column that is used; a flag is no index."""

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
