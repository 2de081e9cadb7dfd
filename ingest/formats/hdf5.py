"""Adapter for HDF5 files: LIBERO and robomimic (`data/demo_<k>` in each), and one episode per file (ALOHA/ACT).

What is a camera is found by looking: datasets of pictures, raw or encoded. State, action, time, texts and success are
looked for where these layouts keep them, or where the registry's `keys` say, as paths below the episode.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ingest.episode import Episode, EpisodeRecord, Listing, RowsError, TimedPicture
from ingest.formats import robotwin
from ingest.formats.hdf5_episode import Hdf5Listing, lengths, matrix, stream, vectors
from ingest.formats.hdf5_file import (
    SUFFIXES,
    Hdf5Error,
    find,
    guarded,
    names,
    natural,
    numbers,
    opened,
    read_picture,
    texts,
    value,
)
from ingest.formats.side_files import parse_json
from ingest.limits import Limits
from ingest.media.video import DECODE_ALL, DecodeOptions, Picture
from ingest.registry import DatasetConfig
from ingest.sources.files import Source

EPISODE_GROUP = re.compile(r"(demo|episode|ep|traj|trajectory)?_?[0-9]+")
STATE_KEYS = (
    ("obs/ee_states", "obs/gripper_states"),  # LIBERO
    ("obs/joint_states", "obs/gripper_states"),
    tuple(f"obs/robot{r}_{part}" for r in (0, 1) for part in ("eef_pos", "eef_quat", "gripper_qpos")),  # robomimic
    ("observations/qpos",),  # ALOHA/ACT
    ("robot_states",),
    ("end_position", "gripper_state"),  # recordings of an xArm that is led by a hand
)
ACTION_KEYS = (("actions",), ("action",))
TIME_KEYS = ("timestamp", "timestamps", "time", "observations/timestamp")
TEXT_KEYS = ("language_instruction", "instruction", "task", "language")
# The control rate of LIBERO (scripts/create_dataset.py) and of robomimic's robosuite tasks
SIMULATED_FPS = 20.0
LIBERO_FILE = re.compile(r"(?:[A-Z]+(?:_[A-Z]+)*_SCENE[0-9]+_)?(.+)_demo$")
ALOHA_WIDTH, ALOHA_GRIPPERS = 14, {6: "left", 13: "right"}  # two arms, each of six joints and a gripper
MAX_FPS = 1000  # no robot is controlled so fast
TIME_UNITS_S = (1.0, 1e-3, 1e-6, 1e-9)
MIN_STEP_S, MAX_STEP_S = 1 / 240, 1  # between rows


def recognises(source: Source) -> bool:
    """HDF5 files that are no RoboTwin dataset, nor the proprio_stats.h5 of AgiBot."""
    return bool(_files(source.files)) and not robotwin.recognises(source)


def roots(uris: Iterable[str]) -> dict[str, str]:
    return {posixpath.dirname(uri): "" for uri in _files(uris)}


def _files(uris: Iterable[str]) -> list[str]:
    own = [uri for uri in uris if uri.lower().endswith(SUFFIXES) and not uri.endswith("proprio_stats.h5")]
    return sorted(own, key=natural)


# Listing


def list_episodes(source: Source) -> Listing:
    listing = Hdf5Listing(source)
    num_named = 0  # episodes whose instruction is read from the name of their file
    for uri in _files(source.files):
        num_named += _add_file(listing, uri)
    if num_named:
        detail = f"the instruction of {num_named} episodes is read from the names of their files, as LIBERO writes it"
        listing.warn("task_from_name", detail)
    return listing.finished("hdf5")


def _add_file(listing: Hdf5Listing, uri: str) -> int:
    """Add a file's episodes; how many instructions were read from its name."""
    path, num_before = listing.source.resolve(uri), len(listing.records)
    num_named = 0
    try:
        with opened(path, limits := listing.source.config.limits) as file:
            for key in _episode_keys(file):
                num_named += _add_readable(listing, EpisodePlace(uri, key, file, limits))
    except Hdf5Error as e:
        # A file counts as one lost episode only where none of its episodes was listed before the error
        if len(listing.records) == num_before:
            listing.add_lost(e, uri)
        else:
            listing.warn(e.reason, f"episodes of it may be missing: {e}", file=uri)
    return num_named


def _episode_keys(file: h5py.File) -> list[str]:
    """Groups of a file that are an episode each; the whole file ("") when there is none."""
    for container in ("data", ""):
        group = find(file, container)
        members = names(group) if isinstance(group, h5py.Group) else []
        keys = [f"{container}/{name}".strip("/") for name in members if EPISODE_GROUP.fullmatch(name)]
        if keys:
            return keys
    return [""]


@dataclass(frozen=True)
class EpisodePlace:
    """Where an episode lies: the group `key` of a file that is open. `limits` are those of its dataset."""

    uri: str
    key: str
    file: h5py.File
    limits: Limits

    @cached_property
    def group(self) -> h5py.Group:
        """Raises Hdf5Error."""
        group = find(self.file, self.key)
        if not isinstance(group, h5py.Group):
            raise Hdf5Error(f"{self.key} is no group")
        return group

    @cached_property
    def container(self) -> h5py.Group:
        """What holds the episode's group and, beside it, facts about all of the file's episodes."""
        return find(self.file, self.key.rpartition("/")[0])

    def values(self, path: str) -> list[Any]:
        """What is stored at a path below the episode, then below its container; None for nothing."""
        return [value(holder, path, self.limits) for holder in (self.group, self.container)]


def _add_readable(listing: Hdf5Listing, place: EpisodePlace) -> bool:
    """Add one episode, as lost where it cannot be read; was its instruction read from the file's name?"""
    num_findings = len(listing.findings)
    try:
        with guarded(f"{place.uri}, {place.key or 'the file'}"):
            return _add_episode(listing, place)
    except Hdf5Error as e:
        del listing.findings[num_findings:]  # of an episode that cannot be read this is all there is to say
        listing.add_lost(e, place.uri, place.key)
        return False


def _add_episode(listing: Hdf5Listing, place: EpisodePlace) -> bool:
    """Add one episode; was its instruction read from the file's name? Raises Hdf5Error."""
    config, uri, group = listing.source.config, place.uri, place.group
    cameras = listing.cameras(uri, group)
    num_rows = _num_rows(listing, place, cameras)
    tasks, is_named = _tasks(config, place)
    if not tasks:
        listing.warn_next("no_task", "no instruction in the file", uri)
    # The session is the group: episodes of one session never come into different splits
    session = value(group, config.group_field, config.limits) if config.group_field else None
    listing.add(
        uri,
        place.key,
        fps=listing.fps(_fps(place, num_rows)),
        tasks=tasks,
        num_rows=num_rows,
        cameras=cameras,
        evidence=listing.shown_outcome(uri, group, (*config.keys.success, config.success_field)),
        group="" if session is None else "".join(texts(str(session))),
    )
    return is_named


def _num_rows(listing: Hdf5Listing, place: EpisodePlace, cameras: Mapping[str, h5py.Dataset]) -> int | None:
    """Rows of the states, else of the actions, else of the first camera. Raises Hdf5Error."""
    config, uri, group = listing.source.config, place.uri, place.group
    num_states = lengths(_parts(config.keys.state, STATE_KEYS, group), config.limits)
    num_actions = lengths(_parts(config.keys.action, ACTION_KEYS, group), config.limits)
    num_frames = next((pictures.shape[0] for pictures in cameras.values()), None)
    # The first count that is there is the episode's
    counts = [n for n in (num_states, num_actions, num_frames) if n is not None]
    num_rows = next(iter(counts), None)
    if num_rows == 0:
        listing.unusable_next("no_data", "it has no rows", uri)
    if num_states is not None and num_actions not in (None, num_states):
        detail = f"{num_actions} actions, {num_states} states: the actions are not used"
        listing.warn_next("length_differs", detail, uri)
    # robomimic states the length beside the rows
    stated = _number(value(group, "num_samples", config.limits))
    if stated is not None and num_rows is not None and stated != num_rows:
        listing.warn_next("length_differs", f"num_samples says {stated:g}, its rows are {num_rows}", uri)
    return num_rows


def _parts(
    registered: tuple[str, ...], usual: tuple[tuple[str, ...], ...], group: h5py.Group
) -> dict[str, h5py.Dataset]:
    """The registry's vectors, all of which have to be there; else those of the first layout that has any."""
    if registered:
        return _registered_parts(registered, group)
    for paths in usual:
        if parts := vectors(group, paths):
            return parts
    return {}


def _registered_parts(registered: tuple[str, ...], group: h5py.Group) -> dict[str, h5py.Dataset]:
    parts = vectors(group, registered)
    missing = [path for path in registered if path not in parts]
    if missing:
        raise Hdf5Error(f"{group.name} has no rows of numbers at {missing[0]}", "no_data")
    return parts


def _tasks(config: DatasetConfig, place: EpisodePlace) -> tuple[tuple[str, ...], bool]:
    """Instructions, and whether they come from the file's name."""
    if config.keys.language:
        return _registered_tasks(config.keys.language, place), False
    stored = _stored_tasks(place)
    if stored:
        return stored, False
    name = LIBERO_FILE.fullmatch(place.uri.rpartition("/")[2].rpartition(".")[0])
    if name and find(place.group, "obs/agentview_rgb") is not None:
        return (name[1].replace("_", " "),), True
    return (), False


def _registered_tasks(paths: tuple[str, ...], place: EpisodePlace) -> tuple[str, ...]:
    """All texts that the registry's paths lead to."""
    instructions: list[str] = []
    for path in paths:
        for stored in place.values(path):
            instructions += texts(stored)
    return tuple(dict.fromkeys(instructions))


def _stored_tasks(place: EpisodePlace) -> tuple[str, ...]:
    """The instruction where LIBERO, robocasa and others keep it: the first place that has any."""
    problem = _json(value(place.container, "problem_info", place.limits))  # LIBERO
    meta = _json(value(place.group, "ep_meta", place.limits))  # robocasa
    instruction = problem.get("language_instruction")
    if isinstance(instruction, list):
        instruction = "".join(map(str, instruction))
    return texts(instruction) or texts(meta.get("lang")) or _plain_tasks(place)


def _plain_tasks(place: EpisodePlace) -> tuple[str, ...]:
    """The instruction by one of its usual names, in the episode or beside it."""
    for path in TEXT_KEYS:
        for holder in (place.group, place.container):
            if instructions := texts(value(holder, path, place.limits)):
                return instructions
    return ()


def _fps(place: EpisodePlace, num_rows: int | None) -> float | None:
    """Frame rate by the rows' times, else as the simulator was controlled."""
    times_s = _times_s(place.group, num_rows, place.limits)
    if times_s is not None and len(times_s) > 1:
        steps = np.diff(times_s)
        if np.isfinite(steps).all() and np.median(steps) > 0:
            return round(float(1 / np.median(steps)), 3)
    stated = _control_rate(_json(value(place.container, "env_args", place.limits)))
    if stated is not None and 0 < stated <= MAX_FPS:
        return stated
    return SIMULATED_FPS if isinstance(find(place.group, "obs"), h5py.Group) else None


def _control_rate(env: dict[str, Any]) -> float | None:
    """robomimic's description of the simulation; versions differ in where they keep the rate."""
    inner = env.get("env_kwargs")
    arguments = inner if isinstance(inner, dict) else {}
    return _number(arguments.get("control_freq", env.get("control_freq")))


def _times_s(group: h5py.Group, num_rows: int | None, limits: Limits) -> np.ndarray | None:
    """Times of the rows in seconds, as far as their steps tell the unit: robots are sampled at 1 to 240 Hz."""
    for dataset in vectors(group, TIME_KEYS).values():
        if num_rows and dataset.shape == (num_rows,):
            times = numbers(dataset, limits)[:, 0]
            step = float(np.median(np.diff(times))) if num_rows > 1 else 0.0
            plausible = [unit for unit in TIME_UNITS_S if MIN_STEP_S <= step * unit <= MAX_STEP_S]
            return times * next(iter(plausible), 1.0)
    return None


def _json(stored: Any) -> dict[str, Any]:
    """The object that a text holds as JSON; {} for anything else."""
    try:
        content = parse_json(next(iter(texts(stored)), "{}"))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _number(stored: Any) -> float | None:
    try:
        number = float(stored)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


# Reading


class StoredRows(NamedTuple):
    """An episode's rows as its file has them; `names` as matrix gives them."""

    state: np.ndarray | None
    state_names: list[str]
    action: np.ndarray | None
    action_names: list[str]
    times_s: np.ndarray | None
    is_bottom_up: bool  # the pictures' last row is stored first


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    """Rows and frames of one episode; raises RowsError when the rows cannot be read."""
    if record.data_uri is None or not record.num_rows:
        raise RowsError("no rows", "no_data")
    path = source.resolve(record.data_uri)
    try:
        rows = _stored_rows(source.config, path, record.data_key, record.num_rows)
    except Hdf5Error as e:
        raise RowsError(str(e), e.reason) from e
    # A file that was replaced since it was listed is not the episode that the corpus knows
    if rows.state is not None and len(rows.state) != record.num_rows:
        raise RowsError(f"{len(rows.state)} rows; there were {record.num_rows}")
    # Actions of another length were found when the dataset was listed, and are not used
    action = rows.action
    if action is not None and len(action) != record.num_rows:
        action = None

    def picture(dataset: h5py.Dataset, k: int) -> Picture:
        return read_picture(dataset, k, source.config.limits, bottom_up=rows.is_bottom_up)

    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        return stream(path, record.data_key, camera, picture, record.fps, source.config.limits)

    names = tuple(rows.state_names), tuple(rows.action_names)
    return Episode(record, rows.state, action, rows.times_s, frames, *names)


def _stored_rows(config: DatasetConfig, path: Path, key: str, num_rows: int) -> StoredRows:
    """Raises Hdf5Error."""
    with opened(path, config.limits) as file:
        group = find(file, key)
        if not isinstance(group, h5py.Group):
            raise Hdf5Error(f"{path.name} has no group {key} any more")
        # LIBERO's pictures are as OpenGL renders them, last row first, and its files say so (create_dataset.py in
        # github.com/Lifelong-Robot-Learning/LIBERO, its issue 11). Turning them by 180 degrees, as often done,
        # mirrors the scene (github.com/openvla/openvla/issues/295)
        convention = texts(value(find(file, key.rpartition("/")[0]), "macros_image_convention", config.limits))
        state, state_names = matrix(_parts(config.keys.state, STATE_KEYS, group), config.limits)
        action, action_names = matrix(_parts(config.keys.action, ACTION_KEYS, group), config.limits)
        times_s = _times_s(group, num_rows, config.limits)
        is_demo = isinstance(find(group, "obs"), h5py.Group)
    # ALOHA's files name no dimensions: the two arms are known by their width
    if state_names[:1] == ["qpos_0"] and len(state_names) == ALOHA_WIDTH:
        for dimension, arm in ALOHA_GRIPPERS.items():
            state_names[dimension] = f"{arm}_gripper"
    if is_demo and action_names:  # the last action of LIBERO and robomimic closes the gripper
        action_names[-1] = "gripper_close"
    return StoredRows(state, state_names, action, action_names, times_s, convention == ("opengl",))
