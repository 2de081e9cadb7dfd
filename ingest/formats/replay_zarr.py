"""Adapter for Zarr replay buffers, as UMI and Diffusion Policy write them: all episodes' rows one after another.

Arrays of `data` have a row per frame; `meta/episode_ends` says at which row each episode ends. Arrays of pictures are
cameras. State and action are looked for by the names that UMI and Diffusion Policy give them, or where the registry's
`keys` say. A dataset may hold several stores, each a folder or a ZIP file.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingest.episode import CameraVideo, Episode, EpisodeRecord, Listing, RowsError, TimedPicture
from ingest.formats.cameras import in_order
from ingest.formats.listing import ListingBuilder, named, unique_texts
from ingest.formats.proprio import joined
from ingest.formats.zarr_file import (
    ENDS,
    ZIP_SUFFIX,
    Array,
    Rows,
    Store,
    ZarrError,
    array_of,
    attributes,
    members,
    opened,
)
from ingest.media.picture import array_picture
from ingest.media.video import DECODE_ALL, DecodeOptions, VideoError
from ingest.outcomes import Evidence
from ingest.registry import DatasetConfig
from ingest.sources.files import Source
from ingest.sources.types import SourceError

IN_FOLDER = re.compile(rf"(?:(.+)/)?{ENDS}/(?:0|c/0)")
STATE_KEYS = (
    tuple(f"robot{r}_{part}" for r in (0, 1) for part in ("eef_pos", "eef_rot_axis_angle", "gripper_width")),  # UMI
    ("robot_eef_pose", "robot_joint"),  # Diffusion Policy, real robots
    ("state",),
    ("agent_pos",),
)
ACTION_KEYS = (("action",), ("actions",))
FPS_KEYS = ("fps", "sample_rate_hz", "frequency", "control_freq")
TEXT_KEYS = ("task", "instruction", "language_instruction", "prompt")
TIMES = ("timestamp", "timestamps")
NO_CAMERA = re.compile(r"depth|segment|mask|disparity|infra", re.I)
DEFAULT_FPS, MAX_FPS, MAX_STEP_S = 10.0, 1000.0, 1.0
ERRORS = (ZarrError, SourceError, OSError)


def recognises(source: Source) -> bool:
    return bool(_stores(source.files))


def roots(uris: Iterable[str]) -> dict[str, str]:
    """The folder above the stores; of a store whose folder is not named as one, that folder."""
    found = {}
    for uri in _stores(uris):
        inside = IN_FOLDER.fullmatch(uri)
        store = uri if inside is None else inside[1] or ""
        is_named = inside is None or store.endswith(".zarr")
        found[posixpath.dirname(store) if is_named else store] = ""
    return found


def _stores(uris: Iterable[str]) -> list[str]:
    """A uri for each store: that of its ZIP file, or of the first chunk of where its episodes end."""
    return sorted(uri for uri in uris if uri.endswith(ZIP_SUFFIX) or IN_FOLDER.fullmatch(uri))


# What a store holds


@dataclass(frozen=True)
class Roles:
    """Which arrays are what: cameras by name, the state's and the action's in order, and the times of rows."""

    cameras: Mapping[str, Array]
    state: tuple[Array, ...]
    action: tuple[Array, ...]
    times: Array | None
    problems: tuple[tuple[str, str, str], ...]  # reason, what, array


def roles_of(store: Store, config: DatasetConfig, rows: int) -> Roles:
    """By the arrays' descriptions alone; those that cannot be used are problems. Raises ZarrError."""
    arrays: dict[str, Array] = {}
    problems: list[tuple[str, str, str]] = []
    for name in members(store, "data"):
        try:
            array = array_of(store, f"data/{name}")
        except ZarrError as e:
            problems.append((e.reason, str(e), name))
            continue
        if array is not None and array.shape[0] < rows:
            told = f"data/{name} has {array.shape[0]} rows, and the episodes end at {rows}: it is not used"
            problems.append(("length_differs", told, name))
        elif array is not None:
            arrays[name] = array
    cameras = {n: a for n, a in arrays.items() if _is_pictures(n, a)}
    numbers = {n: a for n, a in arrays.items() if len(a.shape) <= 2}
    state = _vectors(config.keys.state, STATE_KEYS, numbers)
    action = _vectors(config.keys.action, ACTION_KEYS, numbers)
    for name in (*config.keys.state, *config.keys.action):
        if name not in numbers:
            problems.append(("no_data", f"no array data/{name} with a row of numbers for each frame", name))
    order = in_order(cameras, config.cameras)
    times = next((numbers[n] for n in TIMES if n in numbers and len(numbers[n].shape) == 1), None)
    return Roles({c: cameras[c] for c in order}, state, action, times, tuple(problems))


def _is_pictures(name: str, array: Array) -> bool:
    right = len(array.shape) == 4 and array.dtype == np.uint8 and array.shape[3] in (1, 3)
    return right and not NO_CAMERA.search(name)


def _vectors(
    registered: Sequence[str], usual: Sequence[Sequence[str]], arrays: Mapping[str, Array]
) -> tuple[Array, ...]:
    """The registry's arrays, else those of the first layout that has any."""
    for names in [registered] if registered else usual:
        if found := tuple(arrays[n] for n in names if n in arrays):
            return found
    return ()


def _ends(store: Store, config: DatasetConfig) -> np.ndarray:
    """Where each episode ends, int64 [k]. Raises ZarrError."""
    array = array_of(store, ENDS)
    if array is None or len(array.shape) != 1 or array.dtype.kind not in "iu":
        raise ZarrError(f"{store.name or 'the store'} has no row of numbers at {ENDS}", "bad_episode_ends")
    if problem := config.limits.excess("max_rows", array.shape[0], f"{ENDS}: episodes"):
        raise ZarrError(problem, "over_limit")
    ends = Rows(store, array).read(0, array.shape[0]).astype(np.int64)
    if len(ends) and (ends[0] <= 0 or (np.diff(ends) <= 0).any()):
        raise ZarrError(f"{ENDS} does not rise: {named([str(e) for e in ends])}", "bad_episode_ends")
    return ends


# Listing


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    without_rate = 0
    for uri in _stores(source.files):
        try:
            with opened(source, uri) as store:
                without_rate += _add_store(listing, uri, store)
        except ERRORS as e:
            listing.unusable(getattr(e, "reason", "unreadable_data"), str(e), listing.next_index, file=uri)
            fps = source.config.fps or DEFAULT_FPS
            listing.records.append(EpisodeRecord(listing.next_index, uri, fps, None, data_uri=uri, group=uri))
    if without_rate:
        detail = f"nothing states the frame rate of {without_rate} episodes; {DEFAULT_FPS:g} fps is assumed"
        listing.warn("no_frame_rate", detail)
    if not listing.records:
        listing.lists_nothing("no store holds an episode")
    cameras = in_order(listing.cameras_in_use(), source.config.cameras)
    return listing.listing("zarr", listing.first_fps(), cameras)


def _add_store(listing: ListingBuilder, uri: str, store: Store) -> int:
    """Add a store's episodes; of how many nothing states the frame rate. Raises ZarrError."""
    config = listing.source.config
    ends = _ends(store, config)
    roles = roles_of(store, config, int(ends[-1]) if len(ends) else 0)
    for reason, detail, name in roles.problems:
        listing.warn(reason, detail, camera=name, file=uri)
    facts = attributes(store)
    per_episode = _facts_by_episode(store, len(ends))
    tasks = _tasks(config, facts)
    stated, times = _stated_fps(facts), Rows(store, roles.times) if roles.times else None
    without_rate = 0
    label = store.name or posixpath.basename(str(listing.source.path))
    for k, (start, stop) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
        index, of_episode = listing.next_index, {n: v[k] for n, v in per_episode.items()}
        fps = config.fps or stated or _measured_fps(_times_s(times, start, stop))
        without_rate += fps is None
        if not roles.cameras:
            shown = named([f"data/{n}" for n in members(store, "data")]) or "nothing"
            listing.unusable("no_video", f"no array of colour pictures that is read; it holds {shown}", index, file=uri)
        if not tasks:
            listing.warn(
                "no_task", f"the store has no instruction among its attributes ({TEXT_KEYS[0]})", index, file=uri
            )
        if problem := config.limits.excess("max_rows", stop - start, f"{label}: rows of episode {k}"):
            listing.unusable("over_limit", problem, index, file=uri)
        listing.evidence[index] = Evidence(listing.stated_outcome(of_episode))
        source_id = f"{label}#{k}"
        listing.records.append(
            EpisodeRecord(
                episode_index=index,
                source_id=source_id,
                fps=fps or DEFAULT_FPS,
                task=next(iter(tasks), None),
                tasks=tasks,
                num_rows=stop - start,
                data_uri=uri,
                data_key=str(k),
                row_start=start,
                videos=tuple(CameraVideo(camera, uri, start) for camera in roles.cameras),
                group=listing.group(of_episode | facts, source_id),
                source_stamp=listing.source.stamp([uri, *_picture_uris(uri, store, roles, start, stop)], stop - start),
            )
        )
    return without_rate


def _picture_uris(uri: str, store: Store, roles: Roles, start: int, stop: int) -> list[str]:
    """Files with an episode's pictures, of a store that is a folder; their sizes show that it has changed."""
    if uri.endswith(ZIP_SUFFIX):
        return []
    below = f"{store.name}/" if store.name else ""
    uris = []
    for array in roles.cameras.values():
        rows = array.chunk_shape[0]
        uris += [
            f"{below}{array.name}/{array.separator.join([str(k), '0', '0', '0'])}"
            for k in range(start // rows, -(-stop // rows))
        ]
    return uris


def _facts_by_episode(store: Store, count: int) -> dict[str, list[Any]]:
    """Arrays of `meta` with a number for each episode, by name. Raises ZarrError."""
    facts = {}
    for name in members(store, "meta"):
        array = array_of(store, f"meta/{name}") if f"meta/{name}" != ENDS else None
        if array is not None and array.shape == (count,):
            facts[name] = Rows(store, array).read(0, count).tolist()
    return facts


def _tasks(config: DatasetConfig, facts: Mapping[str, Any]) -> tuple[str, ...]:
    return unique_texts(facts.get(name) for name in config.keys.language or TEXT_KEYS)


def _stated_fps(facts: Mapping[str, Any]) -> float | None:
    for name in FPS_KEYS:
        value = facts.get(name)
        if isinstance(value, int | float) and 0 < value <= MAX_FPS:
            return float(value)
    return None


def _times_s(times: Rows | None, start: int, stop: int) -> np.ndarray | None:
    """Times of rows in seconds; None where they are none, by their steps. Raises ZarrError."""
    if times is None or stop - start < 2:
        return None
    stamps = times.read(start, stop).astype(np.float64)
    steps = np.diff(stamps)
    if not np.isfinite(steps).all() or not 1 / MAX_FPS <= np.median(steps) <= MAX_STEP_S:
        return None
    return stamps


def _measured_fps(times_s: np.ndarray | None) -> float | None:
    return None if times_s is None else round(float(1 / np.median(np.diff(times_s))), 3)


# Reading


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    """Rows of one episode, and its frames as they are asked for. Raises RowsError."""
    if record.data_uri is None or not record.num_rows:
        raise RowsError("no rows", "no_data")
    start, stop = record.row_start, record.row_start + record.num_rows
    try:
        with opened(source, record.data_uri) as store:
            ends = _ends(store, source.config)
            # A store that was replaced since it was listed is not the one that the corpus knows
            k = int(record.data_key)
            if k >= len(ends) or (ends[k - 1] if k else 0, ends[k]) != (start, stop):
                raise ZarrError(f"episode {k} is no more rows {start} to {stop}")
            roles = roles_of(store, source.config, int(ends[-1]))
            state, state_names = _matrix(source, store, roles.state, start, stop)
            action, action_names = _matrix(source, store, roles.action, start, stop)
            times = _times_s(Rows(store, roles.times) if roles.times else None, start, stop)
    except ERRORS as e:
        raise RowsError(str(e), getattr(e, "reason", "unreadable_data")) from e

    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        return _frames(source, record, roles.cameras[camera])

    return Episode(record, state, action, times, frames, state_names, action_names)


def _frames(source: Source, record: EpisodeRecord, array: Array) -> Iterator[TimedPicture]:
    """Raises VideoError."""
    try:
        with opened(source, record.data_uri or "") as store:
            rows = Rows(store, array)
            for k in range(record.num_rows or 0):
                (picture,) = rows.read(record.row_start + k, record.row_start + k + 1)
                yield k, k / record.fps, array_picture(picture, f"picture {k} of {array.name}")
    except ERRORS as e:
        raise VideoError(str(e), getattr(e, "reason", "undecodable_video")) from e


def _matrix(
    source: Source, store: Store, arrays: Sequence[Array], start: int, stop: int
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Arrays side by side, float64 [stop - start, d], and a name per dimension. Raises ZarrError."""
    columns: list[np.ndarray] = []
    names: list[str] = []
    for array in arrays:
        width = array.shape[1] if len(array.shape) == 2 else 1
        if problem := source.config.limits.excess("max_values", (stop - start) * width, array.name):
            raise ZarrError(problem, "over_limit")
        columns.append(Rows(store, array).read(start, stop).astype(np.float64).reshape(stop - start, width))
        vector = array.name.rpartition("/")[2]
        names += [f"{vector}_{k}" for k in range(width)] if width > 1 else [vector]
    return joined(columns), tuple(names)
