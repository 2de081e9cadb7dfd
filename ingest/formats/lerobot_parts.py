"""What a LeRobot dataset holds, column by column, and what each is used for: of its rows, episodes and tasks."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
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
    first_vector,
    read_signals,
    signal_columns,
    slices_by_column,
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
from ingest.formats.tables import is_list, read_columns
from ingest.outcomes import fields_of
from ingest.reasons import DataError
from ingest.signals.naming import Column, named_grippers

COMPARED_ROWS = 256  # of one episode: by so many a column is a copy of dimensions that are read
COPY_TOLERANCE = 1e-6  # relative, as single precision keeps numbers
BOOKKEEPING = {
    "index": "LeRobot's count of all rows",
    "frame_index": "LeRobot's count of an episode's rows",
    "next.done": "says which row is an episode's last",
    "next.truncated": "says which row is an episode's last",
    "done": "says which row is an episode's last",
    "truncated": "says which row is an episode's last",
    "is_first": "says which row is an episode's first",
    "is_last": "says which row is an episode's last",
    "is_terminal": "says which row is an episode's last",
    PANDAS_INDEX: "the row numbers of the table's writer",
}
# Of an episode's metadata: where its rows and pictures are, and statistics of them; group 1 stands for all below it
POINTERS = re.compile(r"(data/|videos/|meta/|stats/).+|dataset_(from|to)_index|(data|video)_path|(chunk|file)_index")
GROUPS = ("start_state",)  # of simulated runs: a registry entry's group_field may name it
TYPE_NAMES = {"halffloat": "float16", "float": "float32", "double": "float64", "large_string": "string"}
SARM = re.compile(rf"({'|'.join(SARM_HEADS)})subtask_\w+")
EPISODE_USES = {
    "episode_index": ("group", "the episode's number"),
    "length": ("length", "the number of its rows, held against these"),
    "tasks": ("instruction", "the texts of its tasks"),
    "action_config": ("steps", "spans with texts"),
}
BESIDE = (*PARTS_OF_STATE, *PARTS_OF_ACTION, *BESIDE_STATE)
TASK_COLUMNS = {"task", TASK_COLUMN, PANDAS_INDEX}


def account_for_parts(dataset: LerobotListing, episodes: Episodes, cameras: Sequence[str]) -> None:
    """Account for each column of the data files, of the episodes' metadata and of the tasks, and for slices."""
    declared = dataset.info["features"]
    there: set[str] = set()
    for schema, uri in dataset.schemas:
        _Rows(dataset, schema, uri, cameras).account()
        there.update(schema.names)
    for name in sorted(declared.keys() - there) if dataset.schemas else ():
        feature = object_of(declared[name])
        if feature.get("dtype") in ("video", "image"):
            continue  # a camera without files has a finding of its own
        why = "info.json declares it, and no data file has it"
        form: dict[str, Any] = {"dtype": str(feature.get("dtype", ""))}
        if name in BOOKKEEPING or name in (TASK_COLUMN, "episode_index"):
            dataset.parts.known("column", name, why, **form)
        else:
            dataset.parts.unknown("column", name, why, **form)
    _account_for_episodes(dataset, episodes)
    for name in sorted(dataset.task_columns - TASK_COLUMNS):
        dataset.parts.unknown("column", f"meta/tasks: {name}", "no key reads it of a task")
    _account_for_slices(dataset, there)


@dataclass(frozen=True)
class _Rows:
    """The columns of data files of one schema; `uri`: the first of them."""

    dataset: LerobotListing
    schema: pa.Schema
    uri: str
    cameras: Sequence[str]

    def account(self) -> None:
        parts = self.dataset.parts
        step_columns = annotated_columns(self.dataset)
        pictures = picture_columns(self.schema)
        for name in dict.fromkeys(self.schema.names):
            feature = object_of(self.dataset.info["features"].get(name))
            form: dict[str, Any] = {"shape": shape_of(feature), "dtype": self._dtype(name), "file": self.uri}
            if name in self.cameras or feature.get("dtype") in ("video", "image"):
                continue  # cameras are accounted for with their files
            if name in pictures:
                why = "it holds encoded pictures or bytes, and info.json declares no camera of that name"
                parts.unknown("camera", name, why, **form)
            elif use := self._use_of(name):
                parts.used("column", name, *use, **form)
            elif why := self._why_left_out(name, step_columns):
                parts.known("column", name, why, **form)
            else:
                kind = "text" if form["dtype"] == "string" else "column"
                parts.unknown(kind, name, self._why_unknown(name, kind), **form)

    def _dtype(self, name: str) -> str:
        type_ = self.schema.types[self.schema.names.index(name)]
        while is_list(type_):
            type_ = type_.value_type
        return TYPE_NAMES.get(str(type_), str(type_)[:40])

    def _use_of(self, name: str) -> tuple[str, str] | None:
        """What a column is read as, and what shows it."""
        config, signals = self.dataset.source.config, self.signals
        if name == "timestamp":
            return "time", "LeRobot's time of each row"
        if name == "episode_index":
            return "group", "says of which episode a row is"
        if signals is None and name in signal_columns(self.dataset.source, self.dataset.info):
            return "state", "its name"
        if signals and name in signals.state_columns:
            return "state", signals.state_columns[name]
        if signals and name in signals.action_columns:
            return "action", signals.action_columns[name]
        if name in (*fields_of(config.success_field), *REWARD_KEYS):
            return "outcome", "rows say by it whether the run succeeded"
        if name in config.keys.language:
            return "instruction", "the registry entry names it"
        if name == config.group_field:
            return "group", "the registry entry names it"
        if name == TASK_COLUMN and pa.types.is_integer(self.schema.types[self.schema.names.index(name)]):
            return "instruction", "the number of each row's task"
        return self._steps_of(name)

    def _steps_of(self, name: str) -> tuple[str, str] | None:
        forms = {record.steps_from for record in self.dataset.records}
        form = "language" if name == LANGUAGE_COLUMN else name
        return ("steps", "its spans of rows name steps") if form in forms else None

    def _why_left_out(self, name: str, step_columns: set[str]) -> str:
        """Why a column is left out on purpose; "" where that is not known."""
        if name in BOOKKEEPING:
            return BOOKKEEPING[name]
        if pa.types.is_null(self.schema.types[self.schema.names.index(name)]):
            return "it holds nothing but nulls"
        if name in EXPORTED_COLUMNS and self.dataset.info["features"].keys() >= EXPORTED_COLUMNS:
            return "written by an export of proccorpus, which reads its labels elsewhere"
        if name in step_columns or name in (LANGUAGE_COLUMN, ROBOCOIN_COLUMN, LEGACY_COLUMN):
            return "texts of steps: the same in all rows of an episode, or another form names the steps"
        if name.startswith("annotation.") and NOT_TEXTS.search(name):
            return "GR00T's mark of an episode's quality"
        return self._copied(name)

    def _why_unknown(self, name: str, kind: str) -> str:
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
        source, info = self.dataset.source, self.dataset.info
        rows = self._first_rows(signal_columns(source, info))
        try:
            return None if rows is None else read_signals(source, info, rows)
        except DataError:
            return None

    def _first_rows(self, columns: Iterable[str]) -> pa.Table | None:
        """Of the first episode of the file."""
        source = self.dataset.source
        records = [record for record in self.dataset.records if record.data_uri == self.uri and record.num_rows]
        if not records:
            return None
        count = min(COMPARED_ROWS, records[0].num_rows or 0)
        path = source.resolve(self.uri)
        try:
            return read_columns(path, records[0].row_start, count, tuple(columns), source.config.limits)
        except DataError:
            return None

    def _copied(self, name: str) -> str:
        """Which dimensions of state or action a column repeats, in words; "" for none.

        A column that never changes may be equal by chance.
        """
        rows = self._first_rows([name]) if self.signals else None
        try:
            table = first_vector(rows, {}, [name], singles=True) if rows is not None else None
        except DataError:
            return ""
        values = None if table is None else matrix(table)
        if values is None or self.signals is None or not np.ptp(values, axis=0).any():
            return ""
        for vector, table in (("state", self.signals.state), ("action", self.signals.action)):
            place = None if table is None else _place_in(values, matrix(table))
            if place is not None:
                return f"a copy of {vector}[{place}:{place + values.shape[1]}]"
        return ""


def _place_in(values: np.ndarray, whole: np.ndarray) -> int | None:
    """The first dimension of `whole` [n, D] from which on it is `values` [n, d]; None for nowhere."""
    width = values.shape[1]
    for place in range(whole.shape[1] - width + 1):
        if np.allclose(whole[:, place : place + width], values, rtol=COPY_TOLERANCE, atol=COPY_TOLERANCE):
            return place
    return None


def _account_for_episodes(dataset: LerobotListing, episodes: Episodes) -> None:
    """The columns of the episodes' metadata that are filled in for any episode."""
    config = dataset.source.config
    uses = EPISODE_USES | dict.fromkeys(fields_of(config.success_field), ("outcome", "says whether the run succeeded"))
    uses |= dict.fromkeys(config.keys.language, ("instruction", "the registry entry names it"))
    if config.group_field:
        uses[config.group_field] = ("group", "the registry entry names it")
    pointers = set[str]()
    filled = {name for episode in episodes.values() for name, value in episode.meta.items() if value is not None}
    for name in sorted(filled):
        title = f"meta/episodes: {name}"
        if name in uses:
            dataset.parts.used("column", title, *uses[name])
        elif SARM.fullmatch(name) or name.startswith("proccorpus_"):
            dataset.parts.used("column", title, "steps", "spans with texts")
        elif pointer := POINTERS.fullmatch(name):
            pointers.add(f"{pointer[1]}*" if pointer[1] else name)
        elif name in GROUPS:
            dataset.parts.known("column", title, "the start state of the run; group_field of an entry reads it")
        else:
            dataset.parts.unknown("column", title, "no key reads it of an episode; group_field or success_field may")
    for name in sorted(pointers):
        dataset.parts.known("column", f"meta/episodes: {name}", "where rows and pictures are, and statistics of them")


def _account_for_slices(dataset: LerobotListing, there: set[str]) -> None:
    """Slices of meta/modality.json that lie in no column, or beyond its end."""
    features = dataset.info["features"]
    vectors: tuple[tuple[Column, str], ...] = (("state", "observation.state"), ("action", "action"))
    for vector, whole in vectors:
        for column, slices in slices_by_column(dataset.source, vector).items():
            name = column or whole
            shape = shape_of(object_of(features.get(name)))
            for part, limits in slices.items():
                end = object_of(limits).get("end")
                title = f"{MODALITY}: {vector}.{part}"
                if dataset.schemas and name not in there and name not in features:
                    dataset.parts.unknown("column", title, f"it is of {name}, which no data file has", file=MODALITY)
                elif len(shape) == 1 and type(end) is int and end > shape[0]:
                    why = f"it ends at {end}, and {name} has {shape[0]} dimensions"
                    dataset.parts.unknown("column", title, why, file=MODALITY)
