"""What a LeRobot dataset holds, column by column, and what each is used for: of its rows, episodes and tasks."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from ingest.episode import DecodeOptions, Picture, SourcePart, matrix
from ingest.formats.folders import is_video, object_of
from ingest.formats.lerobot_episode import (
    MODALITY,
    Vectors,
    read_signals,
    signal_columns,
    slices_by_column,
)
from ingest.formats.lerobot_meta import PANDAS_INDEX, LerobotListing, feature_details
from ingest.formats.lerobot_rows import (
    REWARD_KEYS,
    Episodes,
    camera_columns,
    picture_columns,
    picture_file,
    read_pictures,
)
from ingest.formats.lerobot_steps import (
    LANGUAGE_COLUMN,
    SARM_HEADS,
    TASK_COLUMN,
    annotated_columns,
)
from ingest.formats.listing import (
    NEITHER_TRUE_NOR_FALSE,
    REGISTERED,
    account_for_fields,
    in_order,
    usual_uses,
)
from ingest.formats.tables import is_list, opened, read_columns, vectors
from ingest.formats.tree import Part, Uses, account, fields
from ingest.formats.writers import (
    EXPORTED,
    LEROBOT,
    LEROBOT_EPISODES,
    LEROBOT_ROWS,
    LEROBOT_VECTORS,
    OTHER_STEPS,
    known_by,
    writer_of,
)
from ingest.media.camera_kinds import kind_by_name, look_of
from ingest.media.video import decode
from ingest.outcomes import fields_of
from ingest.reasons import DataError

COMPARED_ROWS = 256  # of one episode: by so many a column is a copy of dimensions that are read
COPY_TOLERANCE = 1e-6  # relative, as single precision keeps numbers
POINTERS = re.compile(
    r"(data/|videos/|meta/|stats/).+"
)  # of an episode's metadata: many for each camera
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
NO_CAMERA = "it holds encoded pictures or bytes, and info.json declares no camera of that name"


def account_for_parts(dataset: LerobotListing, episodes: Episodes, cameras: Sequence[str]) -> None:
    """Account for each column of the data files, of the episodes' metadata and of the tasks, and for slices."""
    census = dataset.parts
    features = {name: object_of(feature) for name, feature in dataset.info["features"].items()}
    stored_columns: set[str] = set()
    for schema, uri in dataset.schemas:
        _account_for_rows(dataset, schema, uri, cameras)
        stored_columns.update(schema.names)
    # A camera without files has a finding of its own
    declared = [
        Part(name, "column", dtype=str(feature.get("dtype", "")))
        for name, feature in features.items()
        if name not in stored_columns and not is_camera(feature)
    ]
    reason = "info.json declares it, and no data file has it"
    counts = (part.path for part in declared if known_by(LEROBOT, part.path))
    marks = dict.fromkeys((*counts, TASK_COLUMN, "episode_index"), reason)
    if dataset.schemas:
        account(census, declared, {}, lambda part: marks.get(part.path, ""), reason)
    _account_for_episodes(dataset, episodes)
    other_columns = dataset.task_columns - {"task", TASK_COLUMN, PANDAS_INDEX}
    of_tasks = fields("meta/tasks: ", other_columns, "column")
    account(census, of_tasks, {}, lambda _: "")
    _account_for_slices(dataset, stored_columns)


def _account_for_rows(
    dataset: LerobotListing, schema: pa.Schema, uri: str, cameras: Sequence[str]
) -> None:
    """The columns of data files of one schema; `uri`: the first of them."""
    features = dataset.info["features"]
    types = dict(zip(reversed(schema.names), reversed(schema.types), strict=True))
    pictures = picture_columns(schema)
    parts: list[Part] = []
    for name in dict.fromkeys(schema.names):
        feature = object_of(features.get(name))
        if name in cameras or is_camera(feature):
            continue  # cameras are accounted for with their files
        dtype = _dtype(types[name])
        kind = "text" if dtype == "string" else "column"
        kind = "camera" if name in pictures else kind
        parts.append(Part(name, kind, shape_of(feature), dtype, uri))
    writer = writer_of((EXPORTED, LEROBOT_ROWS), features.keys())
    reasons = dict.fromkeys(annotated_columns(dataset), OTHER_STEPS)
    signals = _signals(dataset, uri)

    def why_left_out(part: Part) -> str:
        if part.kind == "camera":
            return ""
        if part.dtype == "null":
            return "nothing but nulls"
        reason = known_by(writer, part.path) or reasons.get(part.path)
        return reason or _copied(dataset, uri, part.path, signals)

    has_numbers = TASK_COLUMN in types and pa.types.is_integer(types[TASK_COLUMN])
    uses = _uses(dataset, signals, has_numbers=has_numbers)
    success_fields = fields_of(dataset.source.config.success_field)
    problems = dict.fromkeys(success_fields, NEITHER_TRUE_NOR_FALSE)
    problems |= dict.fromkeys(pictures, NO_CAMERA)
    account(dataset.parts, parts, uses, why_left_out, problems=problems)


def _first_rows(dataset: LerobotListing, uri: str, columns: Iterable[str]) -> pa.Table:
    """Of the first episode of a file. Raises DataError."""
    source = dataset.source
    records = (record for record in dataset.records if record.data_uri == uri and record.num_rows)
    if (first := next(records, None)) is None:
        raise DataError(f"{uri} has no rows of an episode")
    count = min(COMPARED_ROWS, first.num_rows or 0)
    path = source.resolve(uri)
    return read_columns(path, first.row_start, count, tuple(columns), source.config.limits)


def _signals(dataset: LerobotListing, uri: str) -> Vectors | None:
    """State and action of the first rows; None where they cannot be read, which is found when all are."""
    columns = signal_columns(dataset.source)
    with suppress(DataError):
        return read_signals(dataset.source, _first_rows(dataset, uri, columns))
    return None


def _copied(dataset: LerobotListing, uri: str, name: str, signals: Vectors | None) -> str:
    """Which dimensions of state or action a column repeats, in words; "" for none.

    A column that never changes may be equal by chance.
    """
    if signals is None:
        return ""
    values = None
    with suppress(DataError):
        values = vectors(_first_rows(dataset, uri, [name])[name], name, singles=True)
    if values is None or not np.ptp(values, axis=0).any():
        return ""
    width = values.shape[1]
    for vector, table in (("state", signals.state), ("action", signals.action)):
        whole = matrix(table) if table is not None else values[:, :0]
        for place in range(whole.shape[1] - width + 1):
            part = whole[:, place : place + width]
            if np.allclose(part, values, rtol=COPY_TOLERANCE, atol=COPY_TOLERANCE):
                return f"a copy of {vector}[{place}:{place + width}]"
    return ""


def _dtype(type_: pa.DataType) -> str:
    while is_list(type_):
        type_ = type_.value_type
    return TYPE_NAMES.get(str(type_), str(type_)[:40])


def _uses(dataset: LerobotListing, signals: Vectors | None, *, has_numbers: bool) -> Uses:
    """What columns of the rows are read as, and what shows it; `has_numbers`: of each row's task."""
    config = dataset.source.config
    vectors: Uses = dict.fromkeys(signal_columns(dataset.source), ("state", "its name"))
    if signals is not None:
        vectors = signals.roles.uses
    forms = {record.steps_from for record in dataset.records}
    step_columns = {LANGUAGE_COLUMN if form == "language" else form or "" for form in forms}
    uses = {
        **dict.fromkeys(step_columns, ("steps", "its spans of rows name steps")),
        **dict.fromkeys(config.keys.language, ("instruction", REGISTERED)),
        **usual_uses(config),
        "timestamp": ("time", "LeRobot's time of each row"),
        "episode_index": ("group", "says of which episode a row is"),
        **vectors,
        **dict.fromkeys(REWARD_KEYS, ("outcome", "rows say by it whether the run succeeded")),
    }
    if has_numbers:
        uses[TASK_COLUMN] = ("instruction", "the number of each row's task")
    # The registry's field is taken at its word; of others some episode's rows have to be flags
    flags = chain.from_iterable(evidence.flags for evidence in dataset.evidence.values())
    unset = {*fields_of(config.success_field)[1:]}.difference(flag.name for flag in flags)
    return {name: uses[name] for name in uses.keys() - unset}


def _account_for_episodes(dataset: LerobotListing, episodes: Episodes) -> None:
    """The columns of the episodes' metadata that are filled in for any episode."""
    config = dataset.source.config
    cells = chain.from_iterable(episode.meta.items() for episode in episodes.values())
    filled = {name for name, value in cells if value is not None}
    uses = {
        **dict.fromkeys(config.keys.language, ("instruction", REGISTERED)),
        **usual_uses(config),
        **EPISODE_USES,
        **dict.fromkeys(filter(STEPS.fullmatch, filled), ("steps", "spans with texts")),
    }
    # One line for each kind of pointers, of which every camera has four
    titles = dict.fromkeys(POINTERS.sub(r"\1*", name) for name in filled)
    account_for_fields(
        dataset.parts, "meta/episodes: ", titles, uses, LEROBOT_EPISODES, kind="column"
    )


def _account_for_slices(dataset: LerobotListing, stored_columns: set[str]) -> None:
    """Slices of meta/modality.json that lie in no column, or beyond its end."""
    features = dataset.info["features"]
    for vector, (whole, *_) in LEROBOT_VECTORS.items():
        for column, slices in slices_by_column(dataset.source, vector).items():
            name = column or whole
            width = next(iter(shape_of(features.get(name))), None)
            is_lacking = dataset.schemas and name not in stored_columns.union(features)
            for part, limits in slices.items():
                problem = f"it is of {name}, which no data file has"
                if is_lacking or (problem := _beyond(limits.get("end"), name, width)):
                    title = f"{MODALITY}: {vector}.{part}"
                    dataset.parts.add(
                        SourcePart("column", title, "unknown", "", problem, file=MODALITY)
                    )


def _beyond(end: Any, name: str, width: int | None) -> str:
    """That a slice ends beyond its column; empty where it does not, or nobody knows."""
    if width is None or type(end) is not int or end <= width:
        return ""
    return f"it ends at {end}, and {name} has {width} dimensions"


# Cameras by preference, and what of a dataset's pictures is no camera's. LeRobot 0.6 says of a video that it is depth;
# earlier versions, and other recorders, store depth, masks and tactile pictures as colour videos. Those are told by
# their names and their pictures, and are left out beside a colour camera

NUMBER = re.compile(r"\d+")
ONE_THREAD = DecodeOptions(threads=1)


def cameras_of(dataset: LerobotListing) -> list[str]:
    """Camera keys by preference: as the registry orders them, then those that see the scene, then
    by name.

    What is no colour camera comes last, or is left out where a colour camera has files; each is
    accounted for.
    """
    features = dataset.info["features"]
    pictured = [key for key, feature in features.items() if is_camera(feature)]
    details = {key: feature_details(features[key]) for key in pictured}
    depth = {
        key: "info.json says that it is depth"
        for key in pictured
        if details[key].get("is_depth_map") or details[key].get("video.is_depth_map")
    }
    files = _first_files(dataset)
    colourless = _without_colours(
        dataset, [key for key in pictured if key in files and key not in depth], files
    )
    left_out = depth | colourless
    colour_cameras = [key for key in pictured if key not in left_out]
    cameras = in_order(colour_cameras, dataset.source.config.cameras)
    main = next(filter(files.__contains__, cameras), "")
    reasons = {key: f"info.json says {object_of(features[key]).get('dtype')}" for key in cameras}
    reasons |= {main: f"{reasons[main]}: the main camera"} if main else {}
    uses = {key: ("camera", reasons[key]) for key in cameras if key in files}
    parts = [
        Part(key, "camera", shape_of(features[key]), file=files.get(key))
        for key in (*uses, *left_out)
    ]
    account(dataset.parts, parts, uses, lambda part: depth.get(part.path, ""), problems=colourless)
    for key in left_out:
        reason = f"pictures of {key}, which is left out"
        dataset.parts.add(SourcePart("file", f"videos/*{key}/*", "known", "", reason))
    return cameras


def _without_colours(
    dataset: LerobotListing, cameras: Iterable[str], files: Mapping[str, str]
) -> dict[str, str]:
    """Why some cameras with files are no colour cameras, by their names and pictures; none where there is no camera of
    colours. A finding says where a name alone says so.
    """
    registered = dataset.source.config.cameras.ordered()
    is_remote = dataset.source.config.is_remote
    kinds = {key: "" if key in registered else kind_by_name(key) for key in cameras}
    reasons: dict[str, str] = {}
    if all(kinds.values()):
        return reasons
    for key in filter(kinds.__getitem__, kinds):
        file = files[key]
        appearance = "" if is_remote else _look(dataset, key, file)
        reason = f"its name says {kinds[key]}"
        if appearance or kinds[key] == "touch":
            reason += f" and its pictures are {appearance}" if appearance else ""
            reasons[key] = f"{reason}: left out, since there is a colour camera"
        else:
            look_note = "nothing was looked at" if is_remote else "its pictures have colours"
            detail = f"camera {key}: {reason}, but {look_note}: it comes after the other cameras"
            dataset.warn("part_not_used", detail, camera=key, file=file)
    return reasons


def _look(dataset: LerobotListing, key: str, uri: str) -> str:
    """How the first picture of a file looks; "" also where it cannot be decoded, which is found when all are."""
    source = dataset.source
    pictures: Iterator[Picture]
    with suppress(DataError):
        if is_video(uri):
            pictures = decode(source.resolve(uri), 0, 1, ONE_THREAD)
        else:
            pictures = read_pictures(source, uri, 0, 1, key)
        return next((look_of(picture.rgb()) for picture in pictures), "")
    return ""


def _first_files(dataset: LerobotListing) -> dict[str, str]:
    """The first file with pictures of each camera: a video in a folder of its name, or rows."""
    files: dict[str, str] = {}
    rows = None
    for uri in dataset.source.files:
        if is_video(uri):
            for part in uri.split("/")[:-1]:
                files.setdefault(part, uri)
        elif rows is None and uri.startswith("data/") and uri.endswith(".parquet"):
            rows = uri
    # Of a remote source rows would have to be fetched
    if rows is not None and not dataset.source.config.is_remote:
        with suppress(DataError):  # what is wrong with it is found with the rows
            with opened(dataset.source.resolve(rows)) as file:
                columns = camera_columns(dataset.info, file.schema_arrow)
            files |= dict.fromkeys(columns, rows)
            _account_for_named_files(dataset, rows, sorted(columns))
    return files


def _account_for_named_files(dataset: LerobotListing, uri: str, columns: list[str]) -> None:
    """The files of pictures that rows name, all of those whose names are alike but for their numbers."""
    source = dataset.source
    for name in columns:
        table = read_columns(source.resolve(uri), 0, 1, (name,), source.config.limits)
        cell = table[name].to_pylist()[0] if table.num_rows else None
        path = cell.get("path") if isinstance(cell, dict) and not cell.get("bytes") else cell
        if isinstance(path, str) and (file := picture_file(source, uri, path)):
            pattern = NUMBER.sub("*", file)
            dataset.parts.add(
                SourcePart(
                    "file", pattern, "used", "camera", f"rows name them in {name}", file=file
                )
            )


def is_camera(feature: Any) -> bool:
    """Does info.json declare a feature as pictures?"""
    return object_of(feature).get("dtype") in ("video", "image")


def shape_of(feature: Any) -> tuple[int, ...]:
    """As info.json has it; () where it has none."""
    shape = object_of(feature).get("shape")
    if isinstance(shape, list) and all(type(n) is int for n in shape):
        return tuple(shape)
    return ()
