"""What the parts of a tree (`tree.Tree`) are, and its rows and frames as an episode, whatever format gives it.

Where no known writer says what an array is, its name and shape do. A name is a guess. So what is taken for the state or
the action is listed with the word that shows it, and what is neither taken nor plainly something else is listed as not
used.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain
from math import prod
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ingest.episode import (
    DECODE_ALL,
    DecodeOptions,
    EpisodeData,
    EpisodeRecord,
    FrameReader,
    PartCensus,
    Picture,
    TimedPicture,
    timed,
)
from ingest.formats.facts import TIME_NAMES, spelt, times_of_rows
from ingest.formats.listing import REGISTERED
from ingest.formats.row_pictures import other_kind
from ingest.formats.tables import numbered, numbered_if_several, numbers, side_by_side
from ingest.formats.tree import ALL_ROWS, Part, Roles, Tree, Vector, account
from ingest.formats.writers import Writer, called_by, known_by
from ingest.reasons import DataError
from ingest.registry import Keys
from ingest.signals.naming import (
    COLUMNS,
    GRIPPERS,
    HANDS,
    NOT_OPENING,
    SAY_CLOSED,
    SAY_OPEN,
    Column,
    arm_of,
    named_grippers,
    words,
)

NO_PART = r"(?!)"  # a pattern that nothing has
MAX_WIDTH = 256  # values of a row: more are no vector of a robot
WHOLE_STATES = frozenset(
    {
        "state", "states", "robot_state", "robot_states", "robot_obs", "proprio", "proprioception", "proprioceptive",
        "agent_pos", "observation", "observations", "low_dim", "joint_state", "robot_proprio", "proprio_state",
    }
)  # fmt: skip
JOINT_WORDS = frozenset({"qpos", "jpos", "joint", "joints", "jointpos"})
POSE_WORDS = frozenset(
    {"eef", "ee", "tcp", "cartesian", "flange", "end", "effector", "hand", "arm", "tool"}
)
PLACE_WORDS = frozenset(
    {
        "pos", "pose", "poses", "position", "positions", "quat", "quaternion", "rot", "rotation", "orientation", "rpy",
        "euler", "xyz", "axis", "angle", "angles", "state", "states", "translation", "trans", "ori", "r6d",
    }
)  # fmt: skip
# Of other things than where the robot itself is
OTHER_WORDS = frozenset(
    {
        "object", "objects", "obj", "cube", "cubes", "goal", "goals", "target", "targets", "desired", "command",
        "commands", "commanded", "cmd", "reference", "leader", "master", "expert", "delta", "deltas", "noise", "env",
        "world", "scene", "camera", "cam", "sim", "next", "initial", "init", "embedding", "teleop", "vr", "error",
        "force", "forces", "torque", "torques", "tactile", "touch", "wrench", "contact", "mask", "valid", "limits",
        "coords", "keypoints", "human", "frames", "frame", "reward", "rewards", "success", "index", "id", "mode",
        "gello", "prev", "previous",
    }
)  # fmt: skip
OWN_GROUPS = frozenset({"present", "robot", "robot0", "proprio", "agent", "puppet", "follower"})
ACTION_WORDS = frozenset({"action", "actions"})
ACTION_NAMES = ("actions", "action")
LEADER_WORDS = frozenset({"master", "leader", "gello"})

# What is understood, and left out on purpose: by the whole path, or by the spelt last part of it
KNOWN_PATHS = (
    (re.compile(r"(^|/)next_obs(ervations?)?/"), "the observations again, one row later"),
    (
        re.compile(r"(in|ex)trinsics?|cam2world|camera_matrix|calibration|(^|_)fovy?$", re.I),
        "a camera's calibration",
    ),
    (re.compile(r"point_?clouds?|(^|[/_])pcd([/_]|$)|lidar", re.I), "a point cloud"),
    (
        re.compile(r"(^|/)robot[0-9]+_demo_(start|end)_pose$"),
        "the pose at the run's start or end (UMI)",
    ),
    (
        re.compile(r"(^|/)(keypoints?|n_contacts)$"),
        "what the simulator knows of objects (Diffusion Policy)",
    ),
    (
        re.compile(r"embedding|distilbert|(^|[/_])(bert|clip|t5|muse|use)([/_]|$)|_embed$", re.I),
        "an embedding",
    ),
)
KNOWN_NAMES = (
    (
        re.compile(r"(^|.*_)(qvel|vel|vels|velocity|velocities|qacc|acceleration|speed)(_.*)?"),
        "a velocity",
    ),
    (re.compile(r"(^|.*_)(effort|efforts|current|currents)(_.*)?"), "an effort"),
    (re.compile(r".*_(cos|sin)"), "the same angles again, as cosine and sine"),
    (re.compile(r"(actions?_abs|abs_actions?)"), "the same actions, as absolute poses"),
    (
        re.compile(
            r"is_first|is_last|is_terminal|terminals?|terminated|timeouts?|truncated|truncations|terminations|dones?|"
            r"discounts?|(max_)?(episode_)?(steps?|length)|num_(samples|steps|frames)|elapsed_steps"
        ),
        "marks rows or ends",
    ),
    (
        re.compile(
            r"(frame|step|episode|traj|trajectory|task|row)?_?(index|idx|id|number)|(env_)?steps?|timesteps?|seeds?|"
            r"compress_len"
        ),
        "counts",
    ),
)
KNOWN_TEXTS = re.compile(
    r"(.*_)?(date|time|version|host|hostname|user|author|operator|uuid|id|path|dir|commit|hash|seed|license|env|"
    r"model|bddl|xml|robot|robots|embodiment|tag|format|encoding|units?|camera|cameras|convention|controller|class)"
    r"(_(name|names|file|path|type|id|args|info|meta|state|content))?|env_(args|kwargs|meta|info|name)|name|.*_dict|"
    r"sim|compress|is_sim|compressed|num_samples|title|flavor|dimension_(list|labels)|reference_list"
)


def roles_of(
    parts: Sequence[Part],
    keys: Keys,
    writer: Writer | None = None,
    extra_parts: Iterable[Part] = (),
    num_rows: int | None = None,
) -> Roles:
    """State and action among parts with a row for each frame: the registry's, else where their writer keeps them, else
    by names. `extra_parts`: those that count where the registry or the writer names them, or as times. `num_rows`: that
    of rows, where there is neither state nor action.
    """
    all_parts = {part.path: part for part in (*extra_parts, *parts)}
    # Of a writer whose layouts are patterns or words no other part is taken
    is_closed = writer is not None and writer.is_closed
    unknown = [part for part in parts if not is_closed and not known_by(writer, part.path)]
    rows = {part.path: part.shape[0] for part in parts}
    state_by = state_by_name(part for part in unknown if part.path not in keys.action)
    state = _vector("state", keys, writer, _of_one_length(state_by, rows), all_parts)
    action_by = action_by_name(part for part in unknown if part.path not in state.paths)
    action = _vector("action", keys, writer, _of_one_length(action_by, rows), all_parts)
    others_named = [path for path in state_by.paths if keys.state]
    others_named += [path for path in action_by.paths if keys.action]
    unused = {*others_named}.difference(state.paths, action.paths)
    overruled = dict.fromkeys(unused, "the registry entry names another state or action")
    lengths = [all_parts[path].shape[0] for path in (*state.paths, *action.paths)]
    times = times_among(all_parts.values(), next(iter(lengths), num_rows))
    names = {path: part.names for path, part in all_parts.items() if part.names}
    return Roles(state, action, overruled, times, writer, names)


def _vector(
    column: Column,
    keys: Keys,
    writer: Writer | None,
    by_name: Vector,
    present: Mapping[str, Part],
) -> Vector:
    registered = keys.joined(column)
    if writer and writer.by_words:
        reason = REGISTERED if registered else f"{writer.name} keeps it there"
        return Vector(_paths_called(column, keys, writer, present), reason)
    if registered:
        return Vector(tuple(path for path in registered if path in present), REGISTERED)
    if writer and (written := _written(writer, column, present)):
        return Vector(written, f"{writer.name} keeps it there")
    return by_name


def _paths_called(
    column: Column, keys: Keys, writer: Writer, present: Mapping[str, Part]
) -> tuple[str, ...]:
    return tuple(path for path, part in present.items() if _called(part, keys, writer) == column)


def _called(part: Part, keys: Keys, writer: Writer) -> Column | None:
    """What the first name of a part says that says anything: it is one that the registry has, or it has a writer's word
    of a column for which the registry has none.
    """
    for name in part.called:
        registered: list[Column] = [c for c in COLUMNS if name in keys.joined(c)]
        by_words: list[Column] = [
            column
            for column in writer.by_words
            if not writer.by_words[column].isdisjoint(words(name))
        ]
        if registered:
            return registered[0]
        if by_words and not keys.joined(by_words[0]):
            return by_words[0]
    return None


def _written(writer: Writer, column: Column, present: Mapping[str, Part]) -> tuple[str, ...]:
    """Of a writer's layouts that with the most parts counts, of equal ones the first that is whole."""
    if writer.are_patterns:
        return _by_pattern(writer, column, present)
    layout = max(
        writer.layouts(column),
        key=lambda paths: (len(present.keys() & {*paths}), present.keys() >= {*paths}),
        default=(),
    )
    return tuple(path for path in layout if path in present)


def _by_pattern(writer: Writer, column: Column, present: Mapping[str, Part]) -> tuple[str, ...]:
    """Of patterns of a path with its type behind it the first that any part has; with the grippers beside it, where no
    dimension in it is called one.
    """
    titles = {path: f"{path} {part.dtype}" for path, part in present.items()}
    by_pattern = (
        filter(lambda p: re.fullmatch(pattern, titles[p]), titles)
        for [pattern] in writer.layouts(column)
    )
    written = next(filter(None, map(tuple, by_pattern)), ())
    names = chain.from_iterable(present[path].names for path in written)
    if named_grippers(list(names)):
        return written
    pattern_beside = writer.grippers_beside.get(column, NO_PART)
    grippers = (path for path in titles if path not in written and named_grippers([path]))
    return (*written, *(path for path in grippers if re.fullmatch(pattern_beside, titles[path])))


def _of_one_length(vector: Vector, rows: Mapping[str, int | None]) -> Vector:
    """Those parts that have as many rows as the first: vectors that belong side by side."""
    return vector._replace(paths=tuple(p for p in vector.paths if rows[p] == rows[vector.paths[0]]))


def times_among(parts: Iterable[Part], num_rows: int | None) -> str:
    """The path of the times of so many rows, one for each, the shortest that says so; "" for none. Of what is called
    otherwise than its path, as beside videos, frames are counted.
    """
    shapes = {(num_rows,), (num_rows, 1)} - {(None,), (None, 1)}
    of_rows = (part.path for part in parts if part.shape in shapes and not part.called)
    time_paths = [path for path in of_rows if spelt(path.rpartition("/")[2]) in TIME_NAMES]
    return min(
        time_paths,
        key=lambda path: (path.count("/"), not path.endswith("timestamp"), path),
        default="",
    )


def why_known(part: Part, writer: Writer | None = None) -> str:
    """Why a part is left out on purpose, by what its writer keeps, by its name and by what it holds; "" for one that
    nothing tells of.
    """
    if reason := known_by(writer, part.path) or known_reason(part.path):
        return reason
    is_fact = part.kind == "text" and not part.shape
    if is_fact and KNOWN_TEXTS.fullmatch(spelt(part.path.rpartition("/")[2])):
        return "says where it is from"
    if 0 in part.shape:
        return "it holds no values"
    if part.is_picture and other_kind(part.path):
        return f"pictures of {other_kind(part.path)}"
    return ""


def known_reason(path: str) -> str:
    """Why an array is left out on purpose, by its name; "" for one that nothing tells of."""
    name = spelt(path.rpartition("/")[2])
    by_path = (reason for pattern, reason in KNOWN_PATHS if pattern.search(path))
    by_name = (reason for pattern, reason in KNOWN_NAMES if pattern.fullmatch(name))
    return next(chain(by_path, by_name), "")


def state_by_name(arrays: Iterable[Part]) -> Vector:
    """The arrays that say where the robot is: its whole state, joints, poses and grippers, in this order."""
    tiers = {array.path: _state_tier(array) for array in arrays}
    ranks = [(tier, _is_gripper(p), p) for p, tier in tiers.items() if tier is not None]
    paths = tuple(path for _, _, path in sorted(ranks))
    return Vector(paths, "its name is that of a robot's state" if paths else "")


def _state_tier(array: Part) -> int | None:
    """0: the whole state, 1: joints, 2: a pose, 3: a gripper; None for other things."""
    folders, _, leaf = array.path.rpartition("/")
    parts = set(chain.from_iterable(map(words, array.path.split("/"))))
    is_vector = 1 <= array.width <= MAX_WIDTH and len(array.shape) <= 3
    is_other = not (OTHER_WORDS | ACTION_WORDS).isdisjoint(parts) or known_reason(array.path)
    if not is_vector or is_other:
        return None
    leaf_words = set(words(leaf))
    if spelt(leaf) in WHOLE_STATES or _is_part_of_state(folders):
        return 0
    if _is_opening(leaf_words, array.width):
        return 3
    if not JOINT_WORDS.isdisjoint(leaf_words):
        return 1
    if _is_place(leaf_words, set(words(folders.rpartition("/")[2]))):
        return 2
    return None


def _is_opening(leaf_words: set[str], width: int) -> bool:
    """Do the words of a name say how far a gripper or a hand is open?"""
    is_gripper = not (GRIPPERS | HANDS).isdisjoint(leaf_words) and NOT_OPENING.isdisjoint(
        leaf_words
    )
    return is_gripper or (width <= 2 and not (SAY_OPEN | SAY_CLOSED).isdisjoint(leaf_words))


def _is_place(leaf_words: set[str], group_words: set[str]) -> bool:
    """Do the words of a name, and of the group it lies in, say where the robot's end is?"""
    if "pose" in leaf_words or (
        not POSE_WORDS.isdisjoint(leaf_words) and not PLACE_WORDS.isdisjoint(leaf_words)
    ):
        return True
    # A place alone is the robot's where the group says whose it is
    is_place = bool(leaf_words) and leaf_words <= PLACE_WORDS | {"l", "r", "left", "right"}
    return is_place and not (POSE_WORDS | GRIPPERS | OWN_GROUPS).isdisjoint(group_words)


def _is_part_of_state(folders: str) -> bool:
    """Does an array lie in a group that is called a state, as a part of it?"""
    return any(
        spelt(part) in WHOLE_STATES - {"observation", "observations"}
        for part in folders.split("/")
        if part
    )


def action_by_name(arrays: Iterable[Part]) -> Vector:
    """The arrays that are the commands: the one called so with those of a base, else the parts of a group called so,
    else what a leading arm did.
    """
    paths = [a.path for a in arrays if 1 <= a.width <= MAX_WIDTH and len(a.shape) <= 4]
    plain = [path for path in paths if _is_plain(path) and not known_reason(path)]
    whole = _whole_action(plain)
    if whole.paths:
        return whole
    if parts := [path for path in plain if path.split("/")[0] in ACTION_NAMES]:
        return Vector(tuple(sorted(parts)), "a part of the action")
    named_paths = [
        path for path in plain if not ACTION_WORDS.isdisjoint(words(path.rpartition("/")[2]))
    ]
    if len(named_paths) == 1:
        return Vector(tuple(named_paths), "its name has the word action")
    led = [
        path
        for path in plain
        if not LEADER_WORDS.isdisjoint(words(path.split("/")[0]))
        and not JOINT_WORDS.isdisjoint(words(path.rpartition("/")[2]))
    ]
    return Vector(tuple(sorted(led)), "what the leading arm did" if led else "")


def _whole_action(paths: Sequence[str]) -> Vector:
    """The array that is called actions, else action, nearest to the top, with those of a base."""
    for name in ACTION_NAMES:
        called = [path for path in paths if path.rpartition("/")[2] == name]
        if called:
            bases = [
                path
                for path in paths
                if spelt(path.rpartition("/")[2]) in ("base_action", "base_actions")
            ]
            return Vector((min(called, key=len), *bases), "it is called so")
    return Vector()


def _is_plain(path: str) -> bool:
    """An action below observations is one that was observed, such as the last one."""
    return not path.startswith(("obs/", "observation/", "observations/", "next_obs/", "states/"))


def dimension_names(column: Column, widths: Mapping[str, int], roles: Roles) -> list[str]:
    """A name for each dimension of the parts of a vector, by their paths and widths: the source's own, else as their
    writer calls them.
    """
    writer = roles.writer or Writer("", "")
    names: list[str] = []
    for (path, width), numbered_names in zip(widths.items(), column_names(widths), strict=True):
        leaf = called_by(writer, path, width)
        forms: dict[str, Sequence[str]] = {
            "leaf_k": numbered_names,
            "leaf or leaf_k": [leaf] if width == 1 else numbered_names,
            "leaf or leaf.k": numbered_if_several(leaf, width),
            "path.k": numbered(path, width),
            "leaf": [leaf] * width,
        }
        own_names = roles.names.get(path) or writer.effectors.get((path, width))
        names += own_names or forms[writer.naming]
    if not any(widths.keys() <= {*layout} for layout in writer.layouts(column)):
        return names
    gripper_names = writer.grippers.get((column, len(names)), {})
    return [gripper_names.get(k, name) for k, name in enumerate(names)]


def column_names(parts: Mapping[str, int]) -> list[list[str]]:
    """A name for each dimension of each part, by its path and width: the last part of the path and
    a number.

    Of parts with the same last part the group that tells them apart comes first. Two values of
    grippers beside two arms are the left one and the right one. Example: {"obs/ee_pos": 2,
    "obs/grip": 1} gives ee_pos_0, ee_pos_1 and grip_0.
    """
    leaves = Counter(path.rpartition("/")[2] for path in parts)
    has_two_arms = any(
        width in (12, 14, 16) and not _is_gripper(path) for path, width in parts.items()
    )
    names = []
    for path, width in parts.items():
        above, _, leaf = path.rpartition("/")
        name = f"{above.rpartition('/')[2]}_{leaf}" if leaves[leaf] > 1 and above else leaf
        if width == 2 and has_two_arms and _is_gripper(path) and not arm_of(name):
            names.append([f"left_{name}", f"right_{name}"])
        else:
            names.append([f"{name}_{k}" for k in range(width)])
    return names


def _is_gripper(path: str) -> bool:
    return not (GRIPPERS | HANDS).isdisjoint(words(path.rpartition("/")[2]))


# Rows and frames of episodes that are rows of a tree


def read_tree(
    record: EpisodeRecord,
    opened: Callable[[], AbstractContextManager[Tree]],
    rows: slice = ALL_ROWS,
    files: FrameReader | None = None,
) -> EpisodeData:
    """The episode that is some rows of a tree: its vectors and times, and its pictures as they are asked for, from the
    tree or from `files`; without rows those of `files` alone. Raises DataError.
    """
    if files and record.data_uri is None:
        return EpisodeData(record, None, None, None, files)
    with opened() as tree:
        roles = tree.roles()
        state = vector_of(tree, "state", roles, rows)
        action = vector_of(tree, "action", roles, rows)
        times = stored_times(tree, roles, rows)

    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        with opened() as tree:
            if (path := tree.cameras().get(camera)) is None:
                detail = f"{record.data_uri}: there are no pictures of {camera} any more"
                raise DataError(detail, "missing_camera")
            yield from timed(tree.pictures(path, rows), record.fps)

    num_rows = record.num_rows
    if num_rows is None:  # that of a remote file is only known now
        counts = [len(part) for part in (state, action, times) if part is not None]
        if not counts:
            raise DataError(f"{record.data_uri} has no rows", "no_data")
        num_rows = counts[0]
    if action is not None:
        action = _with_last(action, num_rows)
    times_s = times_of_rows(times, num_rows, record.fps)
    record = replace(record, num_rows=num_rows)
    names_by = roles.writer.names_by if roles.writer and not roles.names else ""
    return EpisodeData(record, state, action, times_s, files or frames, writer=names_by)


def stored_times(tree: Tree, roles: Roles, rows: slice) -> np.ndarray | None:
    """Times of rows in the unit that they are stored in; None for none. Raises DataError."""
    if not roles.times:
        return None
    times = tree.read(roles.times, rows)
    if roles.writer and roles.writer.times_from_start:
        return times - times[:1]
    return times


def vector_of(tree: Tree, column: Column, roles: Roles, rows: slice) -> pa.Table | None:
    """The parts of a vector side by side; None for none. Raises DataError."""
    paths = {"state": roles.state, "action": roles.action}[column].paths
    values = {path: tree.read(path, rows) for path in paths}
    table = side_by_side(map(numbers, values.values()))
    widths = {path: prod(stored.shape[1:]) for path, stored in values.items()}
    if table is None:
        return None
    return table.rename_columns(dimension_names(column, widths, roles))


def _with_last(action: pa.Table, num_rows: int) -> pa.Table | None:
    """Actions of so many rows: where the last observation has none it keeps the one before. Those of another length
    were found when the dataset was listed, and are not used.
    """
    if action.num_rows and action.num_rows + 1 == num_rows:
        action = pa.concat_tables([action, action.slice(action.num_rows - 1)]).combine_chunks()
    if action.num_rows == num_rows:
        return action
    return None


class ArrayTree(NamedTuple):
    """A tree (`tree.Tree`) of arrays [n, ...] by path, without pictures: these are files. `described`: what is known of
    each array beside its shape and type, and its file.
    """

    arrays: Mapping[str, np.ndarray]
    described: Mapping[str, Part]
    keys: Keys
    writer: Writer

    def parts(self) -> list[Part]:
        return [
            self.described[path]._replace(shape=values.shape, dtype=str(values.dtype))
            for path, values in self.arrays.items()
        ]

    def roles(self) -> Roles:
        return roles_of(self.parts(), self.keys, self.writer)

    def read(self, path: str, rows: slice) -> np.ndarray:
        return self.arrays[path][rows]

    def cameras(self) -> dict[str, str]:
        return {}

    def pictures(self, path: str, rows: slice) -> Iterator[Picture]:
        raise DataError(f"{path} holds no pictures")

    def account(self, census: PartCensus) -> None:
        """Record each array of an episode as used, known or unknown."""
        parts = [part._replace(shape=(None, *part.shape[1:])) for part in self.parts()]
        account(census, parts, self.roles().uses, partial(why_known, writer=self.writer))


def read_arrays(
    record: EpisodeRecord, tree: Callable[[], ArrayTree], files: FrameReader
) -> EpisodeData:
    """As read_tree, of rows whose pictures are files. Raises DataError."""
    return read_tree(record, lambda: nullcontext(tree()), files=files)
