"""Adapter for HDF5 files: LIBERO and robomimic (`data/demo_<k>` in each), and one episode per file (ALOHA/ACT).

What is a camera is found by looking: datasets of pictures, raw or encoded. State, action, time, texts and success are
looked for where these layouts keep them, or where the registry's `keys` say, as paths below the episode.
"""

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import h5py
import numpy as np

from ingest.episode import CameraVideo, EpisodeData, EpisodeRecord, Listing
from ingest.formats import hdf5_file as h5
from ingest.formats import robotwin
from ingest.formats.hdf5_file import values
from ingest.formats.listing import ListingBuilder, texts_among
from ingest.formats.side_files import parse_json
from ingest.formats.tables import rate_of
from ingest.media.frames import VIDEO_SUFFIXES
from ingest.reasons import DataError, Limits
from ingest.registry import DatasetConfig
from ingest.sources.files import Source

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
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
ALOHA_WIDTH, ALOHA_GRIPPERS = 14, {6: "left_gripper", 13: "right_gripper"}  # two arms, each of six joints and a gripper
TIME_UNITS_S = (1.0, 1e-3, 1e-6, 1e-9)
MIN_STEP_S, MAX_STEP_S = 1 / 240, 1  # between rows


def recognises(source: Source) -> bool:
    """HDF5 files that are no RoboTwin dataset, nor the proprio_stats.h5 of AgiBot."""
    return bool(_files(source.files)) and not robotwin.recognises(source)


def roots(uris: Iterable[str]) -> dict[str, str]:
    return {posixpath.dirname(uri): "" for uri in _files(uris)}


def _files(uris: Iterable[str]) -> list[str]:
    own = [uri for uri in uris if uri.lower().endswith(h5.SUFFIXES) and not uri.endswith("proprio_stats.h5")]
    return sorted(own, key=h5.natural)


# Listing


class EpisodePlace(NamedTuple):
    """Where an episode lies: the group `key` of a file that is open; `limits` are those of its dataset."""

    uri: str
    key: str
    group: h5py.Group
    container: h5py.Group  # has the group, and facts about all of the file's episodes
    limits: Limits

    def values(self, path: str) -> list[Any]:
        """What is stored at a path below the episode, then below its container; None for nothing."""
        return [h5.value(holder, path, self.limits) for holder in (self.group, self.container)]

    def json(self, path: str) -> dict[str, Any]:
        """The object that a text holds as JSON, below the episode or its container; {} for anything else."""
        for stored in self.values(path):
            try:
                content = parse_json(next(iter(h5.texts(stored)), "{}"))
            except ValueError:
                continue
            if isinstance(content, dict) and content:
                return content
        return {}


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    num_named = 0  # episodes whose instruction is read from the name of their file
    for uri in _files(source.files):
        num_before = len(listing.records)
        try:
            with h5.opened(source, uri) as file:
                for key in _episode_keys(file):
                    num_named += _add_readable(listing, uri, key, file)
        except DataError as e:
            # A file counts as one lost episode only where none of its episodes was listed before the error
            if len(listing.records) == num_before:
                listing.add_lost(e, uri, uri)
            else:
                listing.warn(e.reason, f"episodes of it may be missing: {e}", file=uri)
    if num_named:
        detail = f"the instruction of {num_named} episodes is read from the names of their files, as LIBERO writes it"
        listing.warn("task_from_name", detail)
    _report_pictures_beside(listing)
    return h5.finished(listing, "hdf5")


def _report_pictures_beside(listing: ListingBuilder) -> None:
    """Say where the pictures may be that no HDF5 file has."""
    beside = sorted(uri for uri in listing.source.files if uri.lower().endswith((*VIDEO_SUFFIXES, *PICTURE_SUFFIXES)))
    if beside and listing.records and not listing.cameras_in_use():
        detail = (
            f"{len(beside)} videos or pictures lie beside the HDF5 files (first: {beside[0]}), as AgiBot DigitalWorld "
            "has them; they are not read"
        )
        listing.warn("other_layout", detail)


def _episode_keys(file: h5py.File) -> list[str]:
    """Groups of a file that are an episode each; the whole file ("") when there is none."""
    for container in ("data", ""):
        group = h5.find(file, container)
        names = h5.members(group) if isinstance(group, h5py.Group) else []
        if keys := [f"{container}/{name}".strip("/") for name in names if EPISODE_GROUP.fullmatch(name)]:
            return keys
    return [""]


def _add_readable(listing: ListingBuilder, uri: str, key: str, file: h5py.File) -> bool:
    """Add one episode, as lost where it cannot be read; was its instruction read from the file's name?"""
    num_findings = len(listing.findings)
    # The id has the group's name, not its place, which other episodes of the file would move
    source_id = f"{uri}#{key.rpartition('/')[2]}" if key else uri
    try:
        with h5.guarded(f"{uri}, {key or 'the file'}"):
            group = h5.find(file, key)
            if not isinstance(group, h5py.Group):
                raise DataError(f"{key} is no group")
            place = EpisodePlace(uri, key, group, h5.find(file, key.rpartition("/")[0]), listing.source.config.limits)
            return _add_episode(listing, place, source_id)
    except DataError as e:
        del listing.findings[num_findings:]  # of an episode that cannot be read this is all there is to say
        listing.add_lost(e, source_id, uri, data_key=key)
        return False


def _add_episode(listing: ListingBuilder, place: EpisodePlace, source_id: str) -> bool:
    """Add one episode; was its instruction read from the file's name? Raises DataError."""
    config, uri, group = listing.source.config, place.uri, place.group
    cameras = h5.cameras_in(listing, uri, group)
    num_rows = _num_rows(listing, place, cameras)
    tasks = _tasks(config, place)
    name = LIBERO_FILE.fullmatch(uri.rpartition("/")[2].rpartition(".")[0])
    is_named = bool(not tasks and name and not config.keys.language and h5.find(group, "obs/agentview_rgb") is not None)
    if name and is_named:
        tasks = (name[1].replace("_", " "),)
    # The session is the group: episodes of one session never come into different splits
    session = h5.value(group, config.group_field, config.limits) if config.group_field else None
    listing.add(
        source_id,
        listing.fps(_fps(place, num_rows)),
        tasks=tasks,
        num_rows=num_rows,
        data_uri=uri,
        data_key=place.key,
        videos=[CameraVideo(camera, uri, 0) for camera in cameras],
        evidence=h5.evidence_in(listing, uri, group, (*config.keys.success, config.success_field)),
        group="" if session is None else "".join(h5.texts(str(session))),
        no_task="no instruction in the file",
    )
    return is_named


def _num_rows(listing: ListingBuilder, place: EpisodePlace, cameras: Mapping[str, h5py.Dataset]) -> int | None:
    """Rows of the states, else of the actions, else of the first camera. Raises DataError."""
    keys, limits, uri = listing.source.config.keys, place.limits, place.uri
    num_states = h5.length_of(_parts(keys.state, STATE_KEYS, place.group), limits)
    num_actions = h5.length_of(_parts(keys.action, ACTION_KEYS, place.group), limits)
    num_frames = next((pictures.shape[0] for pictures in cameras.values()), None)
    num_rows = next((n for n in (num_states, num_actions, num_frames) if n is not None), None)
    if num_rows == 0:
        listing.unusable_next("no_data", "it has no rows", uri)
    if num_states is not None and num_actions not in (None, num_states):
        detail = f"{num_actions} actions, {num_states} states: the actions are not used"
        listing.warn_next("length_differs", detail, uri)
    # robomimic states the length beside the rows
    stated = h5.value(place.group, "num_samples", limits)
    if isinstance(stated, np.number) and np.isfinite(stated) and num_rows not in (None, stated):
        listing.warn_next("length_differs", f"num_samples says {stated:g}, its rows are {num_rows}", uri)
    return num_rows


def _parts(registered: Sequence[str], usual: Sequence[Sequence[str]], group: h5py.Group) -> dict[str, h5py.Dataset]:
    """The registry's vectors, all of which have to be there; else those of the first layout that has any."""
    if missing := [path for path in registered if path not in h5.rows_in(group, registered)]:
        raise DataError(f"{group.name} has no rows of numbers at {missing[0]}", "no_data")
    for paths in [registered] if registered else usual:
        if parts := h5.rows_in(group, paths):
            return parts
    return {}


def _tasks(config: DatasetConfig, place: EpisodePlace) -> tuple[str, ...]:
    """Instructions: all that the registry's paths lead to; else the first place of LIBERO, robocasa and others."""
    if paths := config.keys.language:
        return texts_among(text for path in paths for found in place.values(path) for text in h5.texts(found))
    instruction = place.json("problem_info").get("language_instruction")  # LIBERO
    if isinstance(instruction, list):
        instruction = "".join(map(str, instruction))
    plain = (h5.texts(stored) for path in TEXT_KEYS for stored in place.values(path))
    return (
        h5.texts(instruction) or h5.texts(place.json("ep_meta").get("lang")) or next(filter(None, plain), ())
    )  # robocasa


def _fps(place: EpisodePlace, num_rows: int | None) -> float | None:
    """Frame rate by the rows' times, else as the simulator was controlled."""
    times_s = _times_s(place.group, num_rows, place.limits)
    if times_s is not None and len(times_s) > 1:
        steps = np.diff(times_s)
        if np.isfinite(steps).all() and np.median(steps) > 0:
            return rate_of(round(float(1 / np.median(steps)), 3))
    # robomimic's description of the simulation; versions differ in where they keep the rate
    env = place.json("env_args")
    inner = env.get("env_kwargs")
    stated = rate_of((inner if isinstance(inner, dict) else {}).get("control_freq", env.get("control_freq")))
    return stated or (SIMULATED_FPS if isinstance(h5.find(place.group, "obs"), h5py.Group) else None)


def _times_s(group: h5py.Group, num_rows: int | None, limits: Limits) -> np.ndarray | None:
    """Times of the rows in seconds, as far as their steps tell the unit: robots are sampled at 1 to 240 Hz."""
    for dataset in h5.rows_in(group, TIME_KEYS).values():
        if num_rows and dataset.shape == (num_rows,):
            times = values(dataset, limits).astype(np.float64)
            step = float(np.median(np.diff(times))) if num_rows > 1 else 0.0
            plausible = [unit for unit in TIME_UNITS_S if MIN_STEP_S <= step * unit <= MAX_STEP_S]
            return times * next(iter(plausible), 1.0)
    return None


# Reading


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """Rows and frames of one episode; raises DataError when the rows cannot be read."""
    keys, limits = source.config.keys, source.config.limits
    with h5.opened(source, record.data_uri or "") as file:
        group = h5.group_of(file, record)
        # LIBERO's pictures are as OpenGL renders them, last row first, and its files say so (create_dataset.py in
        # github.com/Lifelong-Robot-Learning/LIBERO, its issue 11). Turning them by 180 degrees, as often done,
        # mirrors the scene (github.com/openvla/openvla/issues/295)
        convention = h5.texts(
            h5.value(h5.find(file, record.data_key.rpartition("/")[0]), "macros_image_convention", limits)
        )
        state = h5.table_of(_parts(keys.state, STATE_KEYS, group), limits)
        action = h5.table_of(_parts(keys.action, ACTION_KEYS, group), limits)
        times_s = _times_s(group, record.num_rows, limits)
        is_demo = isinstance(h5.find(group, "obs"), h5py.Group)
    # Actions of another length were found when the dataset was listed, and are not used
    if action is not None and action.num_rows != record.num_rows:
        action = None
    if is_demo and action is not None:  # the last action of LIBERO and robomimic closes the gripper
        action = action.rename_columns([*action.column_names[:-1], "gripper_close"])
    picture = partial(h5.read_picture, limits=limits, bottom_up=convention == ("opengl",))
    # ALOHA's files name no dimensions: the two arms are known by their width
    if state is not None and state.num_columns == ALOHA_WIDTH and state.column_names[0] == "qpos_0":
        state = state.rename_columns([ALOHA_GRIPPERS.get(d, name) for d, name in enumerate(state.column_names)])
    return EpisodeData(record, state, action, times_s, h5.frames_of(source, record, picture))
