"""Where the episodes of an HDF5 file are: groups of one kind side by side, parts of flat arrays, or the whole file.

Groups are told by what they hold, not by what they are called: several siblings with the same
arrays, each with rows of its own. Groups of one episode's parts (cameras, arms, observations) are
alike, too; their names tell them.
"""

import re
from collections.abc import Iterable, Mapping

import h5py
import numpy as np

from core.values import grouped
from ingest.formats import hdf5_file as h5
from ingest.formats.facts import spelt
from ingest.reasons import DataError, Limits
from ingest.signals.naming import words

USUAL_NAME = re.compile(r"(demo|episode|ep|traj|trajectory)?_?[0-9]+")
NUMBER = re.compile(r"[0-9]+")
# Groups that are a part of an episode, by a word of their name
PARTS = frozenset(
    {
        "obs", "observation", "observations", "next", "action", "actions", "puppet", "master", "leader", "follower",
        "image", "images", "rgb", "depth", "cam", "camera", "cameras", "sensor", "sensors", "robot", "robots", "arm",
        "arms", "left", "right", "hand", "hands", "gripper", "grippers", "state", "states", "joint", "joints",
        "endpose", "mask", "masks", "agent", "extra", "vision", "head", "wrist", "front", "top", "side", "proprio",
        "tactile", "initial", "env", "info", "infos", "language", "finger", "fingers",
    }
)  # fmt: skip
SAMPLED = 3  # groups of one kind of name that are looked into
ALIKE = 0.5  # share of arrays that groups of one kind have in common
MAX_LEVELS = 4

END_NAMES = (
    "terminals", "terminal", "timeouts", "timeout", "dones", "done", "is_last", "truncated", "truncations",
    "terminated", "terminations", "is_terminal", "episode_end",
)  # fmt: skip
INDEX_NAMES = (
    "episode_index",
    "episode_id",
    "episode_ids",
    "episode",
    "traj_id",
    "trajectory_id",
    "traj_index",
)
START_NAMES = ("is_first", "episode_start", "episode_starts")
# They count the rows of each episode
STEP_NAMES = (
    "frame_index", "frame_idx", "frame_id", "step_index", "step_idx", "step_id", "timestep", "timesteps", "step",
    "steps",
)  # fmt: skip


def episode_keys(file: h5py.File, limits: Limits) -> list[str]:
    """Groups of a file that are an episode each, by path; the whole file ("") where there is none. Raises DataError."""
    for container in ("data", ""):
        group = h5.find(file, container)
        names = h5.members(group) if isinstance(group, h5py.Group) else []
        if keys := [
            f"{container}/{name}".strip("/") for name in names if USUAL_NAME.fullmatch(name)
        ]:
            return keys
    keys = _below(file, "", 0, limits)
    return keys or [""]


def _below(group: h5py.Group, path: str, level: int, limits: Limits) -> list[str]:
    """Episodes below a group, by their paths; [] where it is an episode, or a part of one."""
    children, has_rows = _children(group)
    has_parts = any(not PARTS.isdisjoint(words(name)) for name in children)
    if has_rows or has_parts or not children or level >= MAX_LEVELS:
        return []
    # Groups that hold no rows, such as settings, are no episodes
    kinds = _kinds(children, limits)
    keys: list[str] = []
    for names in kinds:
        paths = {name: f"{path}/{name}".strip("/") for name in names}
        child_keys = {
            name: _below(children[name], paths[name], level + 1, limits) for name in names
        }
        if any(child_keys.values()):
            for name in names:
                keys += child_keys[name] or [paths[name]]
        elif (
            _is_numbered(names)
            or len(names) == len(kinds) == 1
            or (len(names) > 1 and _differ_in_length(children, names, limits))
        ):
            keys += paths.values()
    return keys


def _children(group: h5py.Group) -> tuple[dict[str, h5py.Group], bool]:
    """Groups in a group, and whether rows lie beside them; what leads out of the file is neither."""
    children: dict[str, h5py.Group] = {}
    has_rows = False
    for name in h5.members(group):
        try:
            member = h5.find(group, name)
        except DataError:
            continue  # found and named when episodes are listed
        if isinstance(member, h5py.Group):
            children[name] = member
        elif isinstance(member, h5py.Dataset):
            has_rows |= bool(member.shape) and member.dtype.kind in "fiub" and len(member.shape) > 1
    return children, has_rows


def _kinds(children: Mapping[str, h5py.Group], limits: Limits) -> list[list[str]]:
    """Groups that hold rows, those together that hold the same arrays."""
    by_form = grouped((NUMBER.sub("#", name), name) for name in children)
    kinds: list[tuple[set[str], list[str]]] = []
    for names in by_form.values():
        sample = {names[0], names[len(names) // 2], names[-1]}
        arrays = set().union(*(_arrays(children[name], limits) for name in sample))
        if not arrays:
            continue
        for kind_arrays, kind_names in kinds:
            if len(kind_arrays & arrays) >= ALIKE * len(kind_arrays | arrays):
                kind_names += names
                break
        else:
            kinds.append((arrays, list(names)))
    return [sorted(names, key=h5.natural) for _, names in kinds]


def _arrays(group: h5py.Group, limits: Limits) -> set[str]:
    """Paths of the arrays below a group that have rows, with # for numbers."""
    return {
        NUMBER.sub("#", path)
        for path, dataset in h5.walk(group, [], limits)
        if dataset.shape and dataset.shape[0] > 1
    }


def _is_numbered(names: Iterable[str]) -> bool:
    """Do the names differ in numbers alone?"""
    return len({NUMBER.sub("#", name) for name in names}) == 1 and all(
        NUMBER.search(name) for name in names
    )


def _differ_in_length(children: Mapping[str, h5py.Group], names: list[str], limits: Limits) -> bool:
    """Have groups with other names rows of their own number? Parts of one episode have equally many."""
    lengths = set()
    for name in names[:SAMPLED]:
        datasets = h5.walk(children[name], [], limits)
        lengths |= {
            dataset.shape[0] for _, dataset in datasets if dataset.shape and len(dataset.shape) > 1
        }
    return len(lengths) > 1


# Flat files, in which the rows of all episodes stand one after the other


def flat_ends(
    datasets: Mapping[str, h5py.Dataset], limits: Limits
) -> tuple[list[int], tuple[str, ...]]:
    """Where each episode of a flat file ends, and the arrays that say so; [] for one that is a
    single episode.

    Marks in rows beside one another are a state that lasts, and end nothing. Where no mark stands
    before the last row, a column that counts episodes or steps says it. Raises DataError.
    """
    rows = [
        dataset.shape[0]
        for dataset in datasets.values()
        if dataset.shape and len(dataset.shape) > 1
    ]
    num_rows = max(set(rows), key=rows.count, default=0)
    path_by_name = {spelt(path.rpartition("/")[2]): path for path in datasets}
    if (path := path_by_name.get("episode_ends")) is not None:
        ends = h5.values(datasets[path], limits).ravel().astype(np.int64)
        is_rising = bool((np.diff(ends, prepend=0) > 0).all())
        if is_rising and 0 < ends.max(initial=0) <= num_rows:
            return (ends.tolist(), (path,))
        return ([], ())
    ended = np.zeros(num_rows, bool)
    used = list[str]()
    # One number for each row
    column_shapes = ((num_rows,), (num_rows, 1)) if num_rows else ()
    columns = {
        name: path
        for name, path in path_by_name.items()
        if datasets[path].shape in column_shapes and datasets[path].dtype.kind in "biuf"
    }
    for name in sorted(columns.keys() & {*END_NAMES, *START_NAMES}):
        mark = h5.values(datasets[columns[name]], limits).ravel() != 0
        if not (mark[1:] & mark[:-1]).any():
            ended |= np.r_[mark[1:], False] if name in START_NAMES else mark
            used.append(columns[name])
    if not ended[:-1].any():
        ended, used = _by_index(datasets, columns, num_rows, limits)
    ends = (np.flatnonzero(ended) + 1).tolist()
    # Rows after the last mark are an episode, too
    ends += [num_rows] if ends and ends[-1] < num_rows else []
    if len(ends) > 1:
        return (ends, tuple(used))
    return ([], ())


def _by_index(
    datasets: Mapping[str, h5py.Dataset],
    columns: Mapping[str, str],
    num_rows: int,
    limits: Limits,
) -> tuple[np.ndarray, list[str]]:
    """The last rows of episodes [n] by a column that counts them, else by one that counts the rows of each; none where
    there is no such column.
    """
    for name in (*INDEX_NAMES, *STEP_NAMES):
        if name in columns:
            index = h5.values(datasets[columns[name]], limits).ravel()
            is_other = index[1:] < index[:-1] if name in STEP_NAMES else index[1:] != index[:-1]
            return np.r_[is_other, True], [columns[name]]
    return np.zeros(num_rows, bool), []
