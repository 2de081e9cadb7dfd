"""Adapter for HDF5 files: LIBERO and robomimic (`data/demo_<k>` in each), and one episode per file (ALOHA/ACT).

What is a camera is found by looking: datasets of pictures, raw or encoded. State, action, time, texts and success are
looked for where these layouts keep them, or where the registry's `keys` say, as paths below the episode.
"""

import re
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from ingest.episode import Episode, EpisodeRecord, Finding, Listing, RowsError, TimedPicture
from ingest.formats import robotwin
from ingest.formats.hdf5_episode import Found, lengths, matrix, stream, vectors
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
from ingest.formats.proprio import signals
from ingest.formats.side_files import parse_json
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
)
ACTION_KEYS = (("actions",), ("action",))
TIME_KEYS = ("timestamp", "timestamps", "time", "observations/timestamp")
TEXT_KEYS = ("language_instruction", "instruction", "task", "language")
# The control rate of LIBERO (scripts/create_dataset.py) and of robomimic's robosuite tasks
SIMULATED_FPS = 20.0
LIBERO_FILE = re.compile(r"(?:[A-Z]+(?:_[A-Z]+)*_SCENE[0-9]+_)?(.+)_demo$")
ALOHA_GRIPPERS = (6, 13)  # of 14: two arms, each of six joints and a gripper


def recognises(source: Source) -> bool:
    """HDF5 files that are no RoboTwin dataset, nor the proprio_stats.h5 of AgiBot."""
    return bool(_files(source)) and not robotwin.recognises(source)


def _files(source: Source) -> list[str]:
    uris = [u for u in source.files if u.lower().endswith(SUFFIXES) and not u.endswith("proprio_stats.h5")]
    return sorted(uris, key=natural)


# Listing


def list_episodes(source: Source) -> Listing:
    found, named = Found(source), 0
    for uri in _files(source):
        path, before = source.resolve(uri), len(found.records)
        try:
            with opened(path) as file:
                for key in _episode_keys(found, uri, file):
                    named += _list_episode(found, uri, key, file)
        except Hdf5Error as e:
            if len(found.records) == before:
                found.lose(e, uri)
            else:
                found.findings.append(Finding(e.reason, f"episodes of it may be missing: {e}", "warning", file=uri))
    if named:
        detail = f"the instruction of {named} episodes is read from the names of their files, as LIBERO writes it"
        found.findings.append(Finding("task_from_name", detail, "warning"))
    return found.listing("hdf5")


def _episode_keys(found: Found, uri: str, file: h5py.File) -> list[str]:
    """Groups of a file that are an episode each; the whole file ("") when there is none."""
    for container in ("data", ""):
        group = find(file, container)
        inside = names(group) if isinstance(group, h5py.Group) else []
        keys = [f"{container}/{n}".strip("/") for n in inside if EPISODE_GROUP.fullmatch(n)]
        if keys:
            return keys
    return [""]


def _list_episode(found: Found, uri: str, key: str, file: h5py.File) -> bool:
    """One episode into `found`; was its instruction read from the file's name?"""
    at = len(found.findings)
    try:
        with guarded(f"{uri}, {key or 'the file'}"):
            return _add_episode(found, uri, key, file)
    except Hdf5Error as e:
        del found.findings[at:]
        found.lose(e, uri, key)
        return False


def _add_episode(found: Found, uri: str, key: str, file: h5py.File) -> bool:
    config, group = found.source.config, find(file, key)
    if not isinstance(group, h5py.Group):
        raise Hdf5Error(f"{key} is no group")
    container = find(file, key.rpartition("/")[0])
    cameras = found.cameras(uri, group)
    rows = lengths(_parts(config.keys.state, STATE_KEYS, group))
    acts = lengths(_parts(config.keys.action, ACTION_KEYS, group))
    frames = next((d.shape[0] for d in cameras.values()), None)
    num_rows = next((n for n in (rows, acts, frames) if n is not None), None)
    if num_rows == 0:
        found.unusable("no_data", "it has no rows", uri)
    if rows is not None and acts not in (None, rows):
        found.warn("length_differs", f"{acts} actions, {rows} states: the actions are not used", uri)
    stated = _number(value(group, "num_samples"))
    if stated is not None and num_rows is not None and stated != num_rows:
        found.warn("length_differs", f"num_samples says {stated:g}, its rows are {num_rows}", uri)
    tasks, named = _tasks(config, group, container, uri)
    if not tasks:
        found.warn("no_task", "no instruction in the file", uri)
    session = value(group, config.group_field) if config.group_field else None
    found.add(
        uri,
        key,
        fps=found.rate(_fps(group, container, num_rows)),
        tasks=tasks,
        num_rows=num_rows,
        cameras=cameras,
        success=_success(config, group),
        group="" if session is None else "".join(texts(str(session))),
    )
    return named


def _parts(wanted: tuple[str, ...], usual: tuple[tuple[str, ...], ...], group: h5py.Group) -> dict[str, h5py.Dataset]:
    """The registry's vectors, all of which have to be there; else those of the first layout that has any."""
    if wanted:
        found = vectors(group, wanted)
        if missing := [w for w in wanted if w not in found]:
            raise Hdf5Error(f"{group.name} has no rows of numbers at {missing[0]}", "no_data")
        return found
    return next((found for keys in usual if (found := vectors(group, keys))), {})


def _tasks(config: DatasetConfig, group: h5py.Group, container: h5py.Group, uri: str) -> tuple[tuple[str, ...], bool]:
    """Instructions, and whether they come from the file's name."""
    if config.keys.language:
        found = [t for key in config.keys.language for place in (group, container) for t in texts(value(place, key))]
        return tuple(dict.fromkeys(found)), False
    problem, meta = _json(value(container, "problem_info")), _json(value(group, "ep_meta"))  # LIBERO; robocasa
    instruction = problem.get("language_instruction")
    found = texts("".join(map(str, instruction)) if isinstance(instruction, list) else instruction)
    found = found or texts(meta.get("lang"))
    for key in TEXT_KEYS if not found else ():
        found = found or next((t for place in (group, container) if (t := texts(value(place, key)))), ())
    name = LIBERO_FILE.fullmatch(uri.rpartition("/")[2].rpartition(".")[0])
    if not found and name and find(group, "obs/agentview_rgb") is not None:
        return (name[1].replace("_", " "),), True
    return found, False


def _success(config: DatasetConfig, group: h5py.Group) -> bool | None:
    """What the data says, at its last row; a last reward of 1 is success, any other says nothing."""
    for key in (*config.keys.success, config.success_field):
        last = _last(value(group, key))
        if isinstance(last, bool) or last in (0, 1):
            return bool(last)
    return True if _last(value(group, "rewards")) == 1 else None


def _last(stored: Any) -> Any:
    flat = np.asarray(stored).ravel()
    return flat[-1].item() if len(flat) and flat.dtype.kind in "biuf" else None


def _fps(group: h5py.Group, container: h5py.Group, num_rows: int | None) -> float | None:
    """Frame rate by the rows' times, else as the simulator was controlled."""
    times_s = _times_s(group, num_rows)
    steps = np.diff(times_s) if times_s is not None and len(times_s) > 1 else np.zeros(1)
    if np.isfinite(steps).all() and np.median(steps) > 0:
        return round(float(1 / np.median(steps)), 3)
    env = _json(value(container, "env_args"))
    inner = env.get("env_kwargs")
    stated = _number((inner if isinstance(inner, dict) else {}).get("control_freq", env.get("control_freq")))
    if stated is not None and 0 < stated <= 1000:
        return stated
    return SIMULATED_FPS if isinstance(find(group, "obs"), h5py.Group) else None


def _times_s(group: h5py.Group, num_rows: int | None) -> np.ndarray | None:
    """Times of the rows in seconds, as far as their steps tell the unit: robots are sampled at 1 to 240 Hz."""
    for dataset in vectors(group, TIME_KEYS).values():
        if len(dataset.shape) == 1 and dataset.shape[0] == num_rows and num_rows:
            times = numbers(dataset)[:, 0]
            step = float(np.median(np.diff(times))) if num_rows > 1 else 0.0
            units = (u for u in (1.0, 1e-3, 1e-6, 1e-9) if 1 / 240 <= step * u <= 1)
            return times * next(units, 1.0)
    return None


def _json(stored: Any) -> dict[str, Any]:
    try:
        found = parse_json(next(iter(texts(stored)), "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _number(stored: Any) -> float | None:
    try:
        number = float(stored)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


# Reading


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    """Rows and frames of one episode; raises RowsError when the rows cannot be read."""
    if record.data_uri is None or not record.num_rows:
        raise RowsError("no rows", "no_data")
    path, config = source.resolve(record.data_uri), source.config
    try:
        with opened(path) as file:
            group = find(file, record.data_key)
            if not isinstance(group, h5py.Group):
                raise Hdf5Error(f"{path.name} has no group {record.data_key} any more")
            # LIBERO's pictures are as OpenGL renders them, last row first, and its files say so (create_dataset.py in
            # github.com/Lifelong-Robot-Learning/LIBERO, its issue 11). Turning them by 180 degrees, as often done,
            # mirrors the scene (github.com/openvla/openvla/issues/295)
            convention = texts(value(find(file, record.data_key.rpartition("/")[0]), "macros_image_convention"))
            state, state_names = matrix(_parts(config.keys.state, STATE_KEYS, group))
            action, action_names = matrix(_parts(config.keys.action, ACTION_KEYS, group))
            times_s = _times_s(group, record.num_rows)
            is_demo = isinstance(find(group, "obs"), h5py.Group)
    except Hdf5Error as e:
        raise RowsError(str(e), e.reason) from e
    if state is not None and len(state) != record.num_rows:
        raise RowsError(f"{len(state)} rows; there were {record.num_rows}")
    if action is not None and len(action) != record.num_rows:
        action = None
    if state_names and state_names[0] == "qpos_0" and len(state_names) == 14:
        state_names = [f"gripper_{i}" if i in ALOHA_GRIPPERS else n for i, n in enumerate(state_names)]
    if is_demo and action_names:  # the last action of LIBERO and robomimic closes the gripper
        action_names[-1] = "gripper"
    rest, gripper = signals(state, action, config.gripper, state_names, action_names)

    def picture(dataset: h5py.Dataset, k: int) -> Picture:
        return read_picture(dataset, k, bottom_up=convention == ("opengl",))

    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        return stream(path, record.data_key, camera, picture, record.fps)

    return Episode(record, rest, gripper, times_s, frames, action)
