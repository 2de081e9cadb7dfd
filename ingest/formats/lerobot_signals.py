"""State and action of LeRobot episodes: which columns they are read from, and a name for each of their dimensions.

Most datasets have one column of each. Some have a column for each part
(`observation.state.gripper_position`), or keep a gripper in a column beside the state. The
registry's `keys` name the columns where nothing else does. Names of dimensions are in info.json;
GR00T and StarVLA have them in meta/modality.json, as slices of columns.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from ingest.episode import StoredStatistics, names_of
from ingest.formats.folders import object_of
from ingest.formats.side_files import parse_json_lines, read_json, read_text
from ingest.formats.tables import known_values, numbers, side_by_side, vectors
from ingest.reasons import DataError
from ingest.signals.naming import Column, named_grippers, names_by_parts
from ingest.sources.files import Source

STATE_KEYS = ("observation.state", "state")
ACTION_KEYS = ("action", "actions")
PARTS_OF_STATE = ("observation.state.", "observation.states.", "state.", "states.")
PARTS_OF_ACTION = ("action.", "actions.")
BESIDE_STATE = ("observation.",)  # where a gripper may stand in a column of its own
NUMBERS = (
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "bool",
)
MODALITY = "meta/modality.json"

Columns = Mapping[str, pa.Table]  # by name; each has a column for each of its dimensions


class Vectors(NamedTuple):
    """State and action of an episode, and where the names of their dimensions are from.

    `state_columns` and `action_columns`: the columns of the rows that they consist of, in order,
    and why each does.
    """

    state: pa.Table | None
    action: pa.Table | None
    names_by: Literal["name", "modality.json"]
    state_columns: Mapping[str, str]
    action_columns: Mapping[str, str]


class _SignalPlace(NamedTuple):
    """Where one of the two vectors may be."""

    keys: tuple[str, ...]  # the first of these that has numbers is the whole vector
    parts: tuple[str, ...]  # how columns begin that hold a part of it
    beside: tuple[str, ...]  # how columns begin that may hold a gripper of it
    stated: tuple[str, ...]  # as the registry names them
    slices: Mapping[str, Mapping[str, Mapping[str, Any]]]  # modality.json's, by column and name


def modality_of(source: Source) -> dict[str, Any]:
    """meta/modality.json, read once; {} for none, and for one that cannot be read, which the listing finds."""
    if MODALITY not in source.noted:
        source.noted[MODALITY] = {}
        if MODALITY in source.files:
            with suppress(DataError):  # the listing has a finding of that
                source.noted[MODALITY] = object_of(read_json(source, MODALITY))
    return source.noted[MODALITY]


def slices_by_column(source: Source, vector: Column) -> dict[str, dict[str, dict[str, Any]]]:
    """The slices of meta/modality.json by the column within which they count, and by name.

    Without `original_key` a slice counts within the whole vector, which is here "".
    """
    slices: dict[str, dict[str, dict[str, Any]]] = {}
    for name, limits in object_of(modality_of(source).get(vector)).items():
        column = object_of(limits).get("original_key")
        slices.setdefault(column if isinstance(column, str) else "", {})[name] = object_of(limits)
    return slices


def signal_columns(source: Source, info: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that state and action may be read from."""
    features = info["features"]
    keys = source.config.keys
    parts = _numeric(features, (*PARTS_OF_STATE, *PARTS_OF_ACTION))
    gripper_columns = [name for name in _numeric(features, BESIDE_STATE) if named_grippers([name])]
    by_modality = [
        name
        for name in (*slices_by_column(source, "state"), *slices_by_column(source, "action"))
        if name
    ]
    return tuple(
        dict.fromkeys(
            (
                *STATE_KEYS,
                *ACTION_KEYS,
                *parts,
                *gripper_columns,
                *by_modality,
                *keys.state,
                *keys.action,
            )
        )
    )


def read_signals(source: Source, info: Mapping[str, Any], rows: pa.Table) -> Vectors:
    """State and action among an episode's rows. Raises DataError."""
    features = info["features"]
    keys = source.config.keys
    state_slices = slices_by_column(source, "state")
    state_place = _SignalPlace(STATE_KEYS, PARTS_OF_STATE, BESIDE_STATE, keys.state, state_slices)
    action_slices = slices_by_column(source, "action")
    action_place = _SignalPlace(ACTION_KEYS, PARTS_OF_ACTION, (), keys.action, action_slices)
    state, state_columns, is_state_sliced = _vector(rows, features, state_place)
    action, action_columns, is_action_sliced = _vector(rows, features, action_place)
    # A gripper is looked for in the state first
    is_sliced = is_state_sliced or (is_action_sliced and not named_grippers(names_of(state)))
    return Vectors(
        state, action, "modality.json" if is_sliced else "name", state_columns, action_columns
    )


def _numeric(features: Mapping[str, Any], prefixes: Sequence[str]) -> list[str]:
    """Features of numbers whose names begin so."""
    begin = [name for name in features if name.startswith(tuple(prefixes))]
    return [name for name in begin if object_of(features[name]).get("dtype") in NUMBERS]


def _vector(
    rows: pa.Table, features: Mapping[str, Any], place: _SignalPlace
) -> tuple[pa.Table | None, Mapping[str, str], bool]:
    """A vector, the columns that it consists of and why, and whether modality.json names its dimensions.

    The registry's columns count alone. Else it is the first of the usual columns that has numbers,
    or all parts. Where neither has a name for a gripper, columns beside them count whose own name,
    or whose slice, has one.
    """
    if place.stated:
        tables = _parts(rows, features, place.stated, place.keys)
        return (
            side_by_side(tables.values()),
            dict.fromkeys(tables, "the registry entry names it"),
            False,
        )
    tables = _whole(rows, features, place.keys)
    columns = dict.fromkeys(tables, "its name")
    if not tables:
        tables = _parts(rows, features, _numeric(features, place.parts))
        columns = dict.fromkeys(tables, "a part by its name")
    if _grippers(tables):
        return side_by_side(tables.values()), columns, False

    gripper_columns = [
        name for name in _numeric(features, (*place.beside, *place.parts)) if named_grippers([name])
    ]
    part_tables = _parts(
        rows, features, [name for name in gripper_columns if name not in (*place.keys, *tables)]
    )
    columns |= dict.fromkeys(part_tables, "a gripper by its name")
    tables |= part_tables
    if not _grippers(tables):
        tables, columns = _named_by_slices(rows, features, place, tables, columns)
        return side_by_side(tables.values()), columns, bool(_grippers(tables))
    return side_by_side(tables.values()), columns, False


def _whole(rows: pa.Table, features: Mapping[str, Any], keys: Iterable[str]) -> dict[str, pa.Table]:
    """The first of some columns that holds numbers, by its name; {} for none."""
    tables = ((name, vector_of(rows, features, name)) for name in keys)
    return next(({name: table} for name, table in tables if table is not None), {})


def _grippers(tables: Columns) -> bool:
    """Does a name among the dimensions of some columns say that it is of a gripper or a hand?"""
    names = chain.from_iterable(table.column_names for table in tables.values())
    return bool(named_grippers(list(names)))


def _named_by_slices(
    rows: pa.Table,
    features: Mapping[str, Any],
    place: _SignalPlace,
    tables: Columns,
    columns: Mapping[str, str],
) -> tuple[dict[str, pa.Table], dict[str, str]]:
    """With the names of modality.json's slices, where they name a gripper or a hand, each in its
    own column.

    A column that only modality.json tells of counts where there is no other, or where it holds the gripper.
    """
    named_tables = dict(tables)
    reasons = dict(columns)
    whole = next(iter(tables), "")
    for column, slices in place.slices.items():
        name = column or whole
        if name in tables:
            table = tables[name]
        else:
            table = vector_of(rows, features, name, singles=True)
        if table is None:
            continue
        names = names_by_parts(slices, table.num_columns)
        if named_grippers(names) or not tables:
            named_tables[name] = table.rename_columns(names)
            reasons.setdefault(name, f"{MODALITY} names it")
    return named_tables, reasons


def vector_of(
    rows: pa.Table, features: Mapping[str, Any], name: str, *, singles: bool = False
) -> pa.Table | None:
    """A column of numbers, with names where info.json has one for each dimension; None for no such column.

    `singles`: also one of single whole numbers or flags.
    """
    if name not in rows.column_names:
        return None
    values = vectors(rows[name], name, singles=singles)
    if values is None:
        return None
    feature = object_of(features.get(name))
    values = known_values(values, object_of(feature.get("info")) | feature)
    stated_names = dimension_names(feature)
    return numbers(values, stated_names if len(stated_names) == values.shape[1] else ())


def _parts(
    rows: pa.Table, features: Mapping[str, Any], names: Iterable[str], wholes: Sequence[str] = ()
) -> dict[str, pa.Table]:
    """Columns that are parts of one vector: the names of dimensions begin with that of their part, but of `wholes`."""
    tables: dict[str, pa.Table] = {}
    for name in names:
        if (table := vector_of(rows, features, name, singles=True)) is None:
            continue
        tables[name] = table
        if name in wholes:
            continue
        prefixes = [
            p for p in (*PARTS_OF_STATE, *PARTS_OF_ACTION, *BESIDE_STATE) if name.startswith(p)
        ]
        part = name.removeprefix(max(prefixes, key=len, default=""))  # such as gripper_position
        inner = [
            f"{part}.{dimension_name or k}" for k, dimension_name in enumerate(table.column_names)
        ]
        tables[name] = table.rename_columns([part] if len(inner) == 1 else inner)
    return tables


def dimension_names(feature: Any) -> Sequence[str]:
    """Names of a feature's dimensions; info.json has a list, or a mapping that holds lists or places, or nothing."""
    stated_names = object_of(feature).get("names")
    if isinstance(stated_names, dict) and {*map(type, stated_names.values())} <= {int}:
        return list(map(str, sorted(stated_names, key=stated_names.__getitem__)))
    of_parts = stated_names if isinstance(stated_names, dict) else {"": stated_names}
    parts = {part: listed for part, listed in of_parts.items() if isinstance(listed, list)}
    # A list may be one of lists; the names of several parts are told apart by their parts
    names: list[str] = []
    for part, entries in parts.items():
        prefix = f"{part}." if len(parts) > 1 else ""
        for entry in entries:
            inner_names = entry if isinstance(entry, list) else [entry]
            names += [f"{prefix}{name}" for name in inner_names]
    return names


# The statistics that a dataset stores of its state and action, by which policies normalise them: meta/stats.json has
# them of all rows, meta/episodes_stats.jsonl (v2.1) of each episode. The checkup holds them against the rows. Those of
# v3.0's meta/episodes are not read: LeRobot itself uses only meta/stats.json there

NAMES = ("min", "max", "mean", "std")
OF_ALL = "meta/stats.json"
OF_EPISODES = "meta/episodes_stats.jsonl"


class _Stored(NamedTuple):
    """What the files state: statistics by column, of all rows and of each episode; `problem`: why one was not read."""

    of_all: Mapping[str, Any]
    of_episodes: Mapping[int, Mapping[str, Any]]
    problem: str = ""


def stored_statistics(
    source: Source, episode: int, columns: Mapping[str, Mapping[str, str]]
) -> list[StoredStatistics]:
    """What is stored of an episode's state and action; of one that is of several columns nothing is compared.

    columns: the source's columns of "state" and of "action", and why each is one.
    """
    stored = _read(source)
    this_episode = stored.of_episodes.get(episode, {})
    statistics = [StoredStatistics(problem=stored.problem)] if stored.problem else []
    for vector, names in columns.items():
        if len(names) == 1:
            name = next(iter(names))
            statistics += _parsed(vector, OF_ALL, stored.of_all.get(name), is_of_episode=False)
            statistics += _parsed(vector, OF_EPISODES, this_episode.get(name), is_of_episode=True)
    return statistics


def counted_rows(source: Source) -> Any:
    """How many rows meta/stats.json is of, as it counts the values of a column with one for each; None: not said."""
    # Those of episodes may be large, and no listing needs them
    of_all: Mapping[str, Any] = {}
    if OF_ALL in source.files:
        with suppress(DataError):  # `stored_statistics` says so of each run
            of_all = object_of(read_json(source, OF_ALL))
    count = object_of(of_all.get("index")).get("count")
    return count[0] if isinstance(count, list) and count else count


def _read(source: Source) -> _Stored:
    """The files' statistics, read once; also a file beyond the limits of metadata is a problem."""
    if OF_ALL not in source.noted:
        of_all: Mapping[str, Any] = {}
        of_episodes: Mapping[int, Mapping[str, Any]] = {}
        problem = ""
        try:
            if OF_ALL in source.files:
                of_all = object_of(read_json(source, OF_ALL))
            if OF_EPISODES in source.files:
                of_episodes = _by_episode(read_text(source, OF_EPISODES))
        except DataError as e:
            problem = str(e)
        source.noted[OF_ALL] = _Stored(of_all, of_episodes, problem)
    return source.noted[OF_ALL]


def _by_episode(text: str) -> dict[int, dict[str, Any]]:
    """Statistics by episode of lines of JSON; lines that are of no episode say nothing."""
    lines, _ = parse_json_lines(text, strict=False)
    rows = [object_of(value) for _, value in lines]
    return {
        row["episode_index"]: object_of(row.get("stats"))
        for row in rows
        if type(row.get("episode_index")) is int
    }


def _parsed(vector: str, file: str, stored: Any, *, is_of_episode: bool) -> list[StoredStatistics]:
    """One column's statistics where they are numbers of one width."""
    values = object_of(stored)
    try:
        numbers = [np.atleast_1d(np.array(values[name], np.float64)) for name in NAMES]
    except (KeyError, ValueError, TypeError, OverflowError):
        return []
    low, high, mean, spread = numbers
    if low.ndim != 1 or any(part.shape != low.shape for part in numbers):
        return []
    return [StoredStatistics(vector, file, low, high, mean, spread, is_of_episode)]
