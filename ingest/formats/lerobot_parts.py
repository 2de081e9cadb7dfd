"""What a LeRobot dataset holds, column by column, and what each is used for: of its rows, episodes and tasks."""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from ingest.episode import matrix
from ingest.formats.folders import object_of
from ingest.formats.lerobot_cameras import shape_of
from ingest.formats.lerobot_cells import Episodes
from ingest.formats.lerobot_meta import PANDAS_INDEX, LerobotListing
from ingest.formats.lerobot_rows import REWARD_KEYS, picture_columns
from ingest.formats.lerobot_signals import (
    BESIDE_STATE,
    MODALITY,
    PARTS_OF_ACTION,
    PARTS_OF_STATE,
    Vectors,
    read_signals,
    signal_columns,
    slices_by_column,
    vector_of,
)
from ingest.formats.lerobot_steps import (
    EXPORTED_COLUMNS,
    LANGUAGE_COLUMN,
    LEGACY_COLUMN,
    NOT_TEXTS,
    ROBOCOIN_COLUMN,
    SARM_HEADS,
    TASK_COLUMN,
    annotated_columns,
)
from ingest.formats.listing import NEITHER_TRUE_NOR_FALSE, account_for_fields, usual_uses
from ingest.formats.tables import is_list, read_columns
from ingest.outcomes import fields_of
from ingest.reasons import DataError
from ingest.signals.naming import Column, named_grippers

COMPARED_ROWS = 256  # of one episode: by so many a column is a copy of dimensions that are read
COPY_TOLERANCE = 1e-6  # relative, as single precision keeps numbers
BOOKKEEPING = {
    "index": "LeRobot's count of all rows",
    "frame_index": "LeRobot's count of an episode's rows",
    "is_first": "says which row is an episode's first",
    **dict.fromkeys(
        ("next.done", "next.truncated", "done", "truncated", "is_last", "is_terminal"),
        "says which row is an episode's last",
    ),
    PANDAS_INDEX: "the row numbers of the table's writer",
}
# Of an episode's metadata: where its rows and pictures are, and statistics of them; group 1 stands for all below it
POINTERS = re.compile(
    r"(data/|videos/|meta/|stats/).+|dataset_(from|to)_index|(data|video)_path|(chunk|file)_index"
)
GROUPS = {"start_state": "the start state of the run; group_field of an entry reads it"}
TYPE_NAMES = {
    "halffloat": "float16",
    "float": "float32",
    "double": "float64",
    "large_string": "string",
}
# Of SARM, and of our exports
STEPS = re.compile(rf"({'|'.join(SARM_HEADS)})subtask_\w+|proccorpus_\w+")
EPISODE_USES = {
    "episode_index": ("group", "the episode's number"),
    "length": ("length", "the number of its rows, held against these"),
    "tasks": ("instruction", "the texts of its tasks"),
    "action_config": ("steps", "spans with texts"),
}
BESIDE = (*PARTS_OF_STATE, *PARTS_OF_ACTION, *BESIDE_STATE)


def account_for_parts(dataset: LerobotListing, episodes: Episodes, cameras: Sequence[str]) -> None:
    """Account for each column of the data files, of the episodes' metadata and of the tasks, and for slices."""
    declared = dataset.info["features"]
    stored_columns: set[str] = set()
    for schema, uri in dataset.schemas:
        _Rows(dataset, schema, uri, cameras).account()
        stored_columns.update(schema.names)
    for name in sorted(declared.keys() - stored_columns) if dataset.schemas else ():
        feature = object_of(declared[name])
        if feature.get("dtype") in ("video", "image"):
            continue  # a camera without files has a finding of its own
        reason = "info.json declares it, and no data file has it"
        form: dict[str, Any] = {"dtype": str(feature.get("dtype", ""))}
        if name in BOOKKEEPING or name in (TASK_COLUMN, "episode_index"):
            dataset.parts.known("column", name, reason, **form)
        else:
            dataset.parts.unknown("column", name, reason, **form)
    _account_for_episodes(dataset, episodes)
    for name in sorted(dataset.task_columns - {"task", TASK_COLUMN, PANDAS_INDEX}):
        dataset.parts.unknown("column", f"meta/tasks: {name}", "no key reads it of a task")
    _account_for_slices(dataset, stored_columns)


class _Rows:
    """The columns of data files of one schema; `uri`: the first of them."""

    def __init__(
        self, dataset: LerobotListing, schema: pa.Schema, uri: str, cameras: Sequence[str]
    ) -> None:
        self.dataset = dataset
        self.schema = schema
        self.uri = uri
        self.cameras = cameras

    def account(self) -> None:
        parts = self.dataset.parts
        step_columns = annotated_columns(self.dataset)
        pictures = picture_columns(self.schema)
        for name in dict.fromkeys(self.schema.names):
            feature = object_of(self.dataset.info["features"].get(name))
            form: dict[str, Any] = {
                "shape": shape_of(feature),
                "dtype": self._dtype(name),
                "file": self.uri,
            }
            if name in self.cameras or feature.get("dtype") in ("video", "image"):
                continue  # cameras are accounted for with their files
            if name in pictures:
                reason = "it holds encoded pictures or bytes, and info.json declares no camera of that name"
                parts.unknown("camera", name, reason, **form)
            elif use := self._use_of(name):
                parts.used("column", name, *use, **form)
            elif reason := self._why_left_out(name, step_columns):
                parts.known("column", name, reason, **form)
            else:
                kind = "text" if form["dtype"] == "string" else "column"
                parts.unknown(kind, name, self._why_unknown(name, kind), **form)

    def _dtype(self, name: str) -> str:
        type_ = self._type(name)
        while is_list(type_):
            type_ = type_.value_type
        return TYPE_NAMES.get(str(type_), str(type_)[:40])

    def _use_of(self, name: str) -> tuple[str, str] | None:
        """What a column is read as, and what shows it."""
        config = self.dataset.source.config
        uses = {
            "timestamp": ("time", "LeRobot's time of each row"),
            "episode_index": ("group", "says of which episode a row is"),
            **self._vectors,
            **dict.fromkeys(REWARD_KEYS, ("outcome", "rows say by it whether the run succeeded")),
        }
        by_registry = dict.fromkeys(
            config.keys.language, ("instruction", "the registry entry names it")
        )
        uses = {**by_registry, **usual_uses(config), **uses}
        if pa.types.is_integer(self._type(name)):
            uses[TASK_COLUMN] = ("instruction", "the number of each row's task")
        # The registry's field is taken at its word; of others some episode's rows have to be flags
        flags = chain.from_iterable(e.flags for e in self.dataset.evidence.values())
        if name in fields_of(config.success_field)[1:] and name not in {f.name for f in flags}:
            return None
        return uses.get(name) or self._steps_of(name)

    @cached_property
    def _vectors(self) -> dict[str, tuple[str, str]]:
        """The columns of state and action, and what shows that they are."""
        if self.signals is None:
            return dict.fromkeys(
                signal_columns(self.dataset.source, self.dataset.info), ("state", "its name")
            )
        of_action = {
            name: ("action", reason) for name, reason in self.signals.action_columns.items()
        }
        return of_action | {
            name: ("state", reason) for name, reason in self.signals.state_columns.items()
        }

    def _type(self, name: str) -> pa.DataType:
        return self.schema.types[self.schema.names.index(name)]

    def _steps_of(self, name: str) -> tuple[str, str] | None:
        forms = {record.steps_from for record in self.dataset.records}
        form = "language" if name == LANGUAGE_COLUMN else name
        if form in forms:
            return ("steps", "its spans of rows name steps")
        return None

    def _why_left_out(self, name: str, step_columns: set[str]) -> str:
        """Why a column is left out on purpose; "" where that is not known."""
        if name in BOOKKEEPING:
            return BOOKKEEPING[name]
        if pa.types.is_null(self._type(name)):
            return "it holds nothing but nulls"
        if name in EXPORTED_COLUMNS and self.dataset.info["features"].keys() >= EXPORTED_COLUMNS:
            return "written by an export of proccorpus, which reads its labels elsewhere"
        if name in step_columns or name in (LANGUAGE_COLUMN, ROBOCOIN_COLUMN, LEGACY_COLUMN):
            return "texts of steps: the same in all rows of an episode, or another form names the steps"
        if name.startswith("annotation.") and NOT_TEXTS.search(name):
            return "GR00T's mark of an episode's quality"
        return self._copied(name)

    def _why_unknown(self, name: str, kind: str) -> str:
        if name in fields_of(self.dataset.source.config.success_field):
            return NEITHER_TRUE_NOR_FALSE
        if kind == "text":
            return "a text of the rows that no key reads; keys.language of an entry reads it"
        if name == TASK_COLUMN:
            return "it has not one whole number in each row, so it names no task"
        if name not in self.dataset.info["features"]:
            return "info.json does not declare it, and no key reads it"
        if name.startswith(BESIDE) and named_grippers([name]):
            return "a gripper by its name, beside one that is read; keys.state or keys.action of an entry reads both"
        return "no key reads it; keys.state or keys.action of an entry does"

    @cached_property
    def signals(self) -> Vectors | None:
        """State and action of the first rows; None where they cannot be read, which is found when all are."""
        source = self.dataset.source
        info = self.dataset.info
        rows = self._first_rows(signal_columns(source, info))
        try:
            if rows is None:
                return None
            return read_signals(source, info, rows)
        except DataError:
            return None

    def _first_rows(self, columns: Iterable[str]) -> pa.Table | None:
        """Of the first episode of the file."""
        source = self.dataset.source
        records = [
            record
            for record in self.dataset.records
            if record.data_uri == self.uri and record.num_rows
        ]
        if not records:
            return None
        count = min(COMPARED_ROWS, records[0].num_rows or 0)
        path = source.resolve(self.uri)
        try:
            return read_columns(
                path, records[0].row_start, count, tuple(columns), source.config.limits
            )
        except DataError:
            return None

    def _copied(self, name: str) -> str:
        """Which dimensions of state or action a column repeats, in words; "" for none.

        A column that never changes may be equal by chance.
        """
        values = self._values(name)
        if values is None or self.signals is None:
            return ""
        for vector, table in (("state", self.signals.state), ("action", self.signals.action)):
            place = None if table is None else _place_in(values, matrix(table))
            if place is not None:
                return f"a copy of {vector}[{place}:{place + values.shape[1]}]"
        return ""

    def _values(self, name: str) -> np.ndarray | None:
        """The first rows of a column, [n, d]; None where these are no numbers, or never change."""
        rows = self._first_rows([name])
        try:
            table = None if rows is None else vector_of(rows, {}, name, singles=True)
        except DataError:
            return None
        values = None if table is None else matrix(table)
        if values is not None and np.ptp(values, axis=0).any():
            return values
        return None


def _place_in(values: np.ndarray, whole: np.ndarray) -> int | None:
    """The first dimension of `whole` [n, D] from which on it is `values` [n, d]; None for nowhere."""
    width = values.shape[1]
    for place in range(whole.shape[1] - width + 1):
        if np.allclose(
            whole[:, place : place + width], values, rtol=COPY_TOLERANCE, atol=COPY_TOLERANCE
        ):
            return place
    return None


def _account_for_episodes(dataset: LerobotListing, episodes: Episodes) -> None:
    """The columns of the episodes' metadata that are filled in for any episode."""
    config = dataset.source.config
    by_registry = dict.fromkeys(
        config.keys.language, ("instruction", "the registry entry names it")
    )
    cells = chain.from_iterable(episode.meta.items() for episode in episodes.values())
    filled = {name for name, value in cells if value is not None}
    pointers = set(filter(POINTERS.fullmatch, filled))
    account_for_fields(
        dataset.parts,
        "meta/episodes: ",
        sorted(filled - pointers),
        {
            **by_registry,
            **usual_uses(config),
            **EPISODE_USES,
            **dict.fromkeys(set(filter(STEPS.fullmatch, filled)), ("steps", "spans with texts")),
        },
        GROUPS,
        kind="column",
        reason="no key reads it of an episode; group_field or success_field may",
    )
    # One line for each kind of pointers, of which every camera has four
    titles = {
        POINTERS.sub(lambda match: f"{match[1]}*" if match[1] else match[0], name)
        for name in pointers
    }
    for name in sorted(titles):
        dataset.parts.known(
            "column",
            f"meta/episodes: {name}",
            "where rows and pictures are, and statistics of them",
        )


def _account_for_slices(dataset: LerobotListing, stored_columns: set[str]) -> None:
    """Slices of meta/modality.json that lie in no column, or beyond its end."""
    features = dataset.info["features"]
    vectors: tuple[tuple[Column, str], ...] = (("state", "observation.state"), ("action", "action"))
    for vector, whole in vectors:
        for column, slices in slices_by_column(dataset.source, vector).items():
            name = column or whole
            is_there = not dataset.schemas or name in stored_columns or name in features
            width = next(iter(shape_of(features.get(name))), None)
            for part, limits in slices.items():
                if problem := _wrong_slice(name, limits.get("end"), width if is_there else 0):
                    dataset.parts.unknown(
                        "column", f"{MODALITY}: {vector}.{part}", problem, file=MODALITY
                    )


def _wrong_slice(column: str, end: Any, width: int | None) -> str:
    """Why a slice leads nowhere; "" where it does not. `width`: of its column, 0 for none, None: not known."""
    if width == 0:
        return f"it is of {column}, which no data file has"
    if width is not None and type(end) is int and end > width:
        return f"it ends at {end}, and {column} has {width} dimensions"
    return ""
