"""What the features of an RLDS record are: state, action, cameras and texts; and what each other one is, or why not
used.

Open X-Embodiment's converters keep the state in places of their own, which are a table by dataset;
else names tell.
"""

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from ingest.formats.array_pictures import other_kind
from ingest.formats.array_roles import (
    ArrayForm,
    Vector,
    action_by_name,
    chosen,
    is_bookkeeping_text,
    known_reason,
    overruled,
    state_by_name,
)
from ingest.formats.listing import ListingBuilder
from ingest.formats.rlds_steps import (
    RAGGED,
    ROW_LENGTHS,
    STEP_MARKS,
    RldsRecord,
    Spec,
    label_of,
    texts,
    unreadable,
)
from ingest.formats.text_fields import instructions
from ingest.registry import Keys

STEPS = "steps/"
OBSERVATION = "steps/observation/"
METADATA = "episode_metadata/"
COPY = "the same pose in other terms"


class Layout(NamedTuple):
    """Where a converter keeps the state; `known`: what it keeps beside, by a pattern, and why that is left out."""

    name: str
    state: tuple[str, ...]
    known: tuple[tuple[str, str], ...] = ()


# The first of which all parts are there
LAYOUTS = (
    Layout("Open X-Embodiment", ("observation/state",)),
    Layout("Open X-Embodiment", ("observation/proprio",)),
    Layout("Open X-Embodiment", ("observation/robot_state",)),
    Layout("TACO Play", ("observation/robot_obs",), (("(rel_)?actions.*", "the same action in other terms"),)),
    Layout("Open X-Embodiment", ("robot_state",)),
    Layout(
        "DROID",
        ("observation/joint_position", "observation/gripper_position"),
        (("observation/cartesian_position", COPY), ("action_dict/.*", "the same action in other terms")),
    ),
    Layout(
        "RT-1",
        ("observation/base_pose_tool_reached", "observation/gripper_closed"),
        (
            (r"observation/(gripper_closedness_commanded|height_to_bottom|orientation_(box|start)|vector_to_go|"
             r"robot_orientation_positions_box|rotation_delta_to_go|src_rotation|workspace_bounds)",
             "what RT-1's collection worked with"),
        ),
    ),
    Layout(
        "Kuka",
        ("observation/clip_function_input/base_pose_tool_reached", "observation/gripper_closed"),
        ((r"observation/clip_function_input/.*", "what the controller worked with"),),
    ),
    Layout(
        "FMB",
        ("observation/eef_pose", "observation/state_gripper_pose"),
        ((r"observation/(joint_pos|eef_force|eef_torque)", "joints and forces beside the pose"),),
    ),
    Layout("LIBERO", ("observation/EEF_state", "observation/gripper_state"), ((r"observation/joint_state", COPY),)),
    Layout("VIOLA", ("observation/joint_states", "observation/gripper_states"), ((r"observation/ee_states", COPY),)),
    Layout("Jaco Play", ("observation/end_effector_cartesian_pos",), ((r"observation/joint_pos", COPY),)),
    Layout("Berkeley MVP and RPT", ("observation/joint_pos", "observation/gripper")),
    Layout(
        "Language Table",
        ("observation/effector_translation",),
        ((r"observation/effector_target_translation", "where the effector was sent"),),
    ),
)  # fmt: skip
KNOWN = (
    (r"episode_metadata/(has_.*|.*_present)", "says whether a feature is there"),
    (
        r"(episode_metadata/)?(environment_config|experiment_.*|agent_.*|algorithm|num_episodes|is_noop)",
        "bookkeeping",
    ),
    (r"terminate_episode|action/terminate_episode", "marks rows or ends"),
)
INVALID = ("invalid", "is_invalid", "episode_invalid")


class FeatureRoles(NamedTuple):
    """Features by what they are; `why`: what shows it; `known`: patterns of what else the converter keeps."""

    state: tuple[str, ...]
    action: tuple[str, ...]
    cameras: dict[str, str]
    why: dict[str, str]
    known: tuple[tuple[str, str], ...]


def roles_of(steps: RldsRecord, keys: Keys) -> tuple[FeatureRoles, dict[str, str]]:
    """What the features of a record are, and why some numbers of it cannot be read, by key. Raises DataError."""
    present = tuple((key, spec) for key, spec in steps.specs.items() if steps.has_values(key))
    problems = {
        key: problem
        for key, spec in present
        if spec.kind == "numbers" and key.startswith(STEPS) and (problem := unreadable(steps, key))
    }
    readable = tuple(item for item in present if item[0] not in problems)
    return _roles(readable, keys.state, keys.action), problems


def camera_keys(specs: Iterable[tuple[str, Spec]]) -> dict[str, str]:
    """Features that are a camera's pictures, by the camera's name: their path in the observation, else in the step."""
    pictures = [
        key
        for key, spec in specs
        if spec.is_picture and not other_kind(key) and not key.endswith(RAGGED)
    ]
    key_by_camera = {
        key.removeprefix(OBSERVATION): key for key in pictures if key.startswith(OBSERVATION)
    }
    step_pictures = [
        key for key in pictures if key.startswith(STEPS) and key not in key_by_camera.values()
    ]
    for key in step_pictures:
        name = key.removeprefix(STEPS)
        key_by_camera[name if name not in key_by_camera else f"steps/{name}"] = key
    return key_by_camera


@lru_cache(maxsize=64)
def _roles(
    present: tuple[tuple[str, Spec], ...], state: tuple[str, ...], action: tuple[str, ...]
) -> FeatureRoles:
    numeric = {
        path_of(key): (key, spec)
        for key, spec in present
        if key.startswith(STEPS) and spec.kind == "numbers"
    }
    arrays = [
        ArrayForm(path, (2, *(s.static if s.shape else (1,))), _kind(s))
        for path, (_, s) in numeric.items()
    ]
    layout = next(
        (candidate for candidate in LAYOUTS if set(candidate.state) <= numeric.keys()), None
    )
    layouts = [Vector(layout.state, f"{layout.name} keeps it there")] if layout else []
    action_by_names = _action(numeric, arrays)
    actions = chosen(action, [], action_by_names, numeric)
    not_actions = [array for array in arrays if array.path not in actions.paths]
    states = chosen(state, layouts, state_by_name(not_actions), numeric)
    state_keys = tuple(numeric[path][0] for path in states.paths if path in numeric)
    action_keys = tuple(numeric[path][0] for path in actions.paths if path in numeric)
    reasons = dict.fromkeys(state_keys, states.why) | dict.fromkeys(action_keys, actions.why)
    # What would count by its name, where the registry names others
    overruled_paths = overruled(state, state_by_name(arrays), "state")
    overruled_paths |= overruled(action, action_by_names, "action")
    others_known = (
        (re.escape(path), reason)
        for path, reason in overruled_paths.items()
        if path not in (*state, *action)
    )
    known_patterns = (*(layout.known if layout else ()), *others_known)
    return FeatureRoles(state_keys, action_keys, camera_keys(present), reasons, known_patterns)


def _action(numeric: Container[str], arrays: Sequence[ArrayForm]) -> Vector:
    """The action, or all parts of a dictionary that is called so; else what else names tell."""
    if "action" in numeric:
        return Vector(("action",), "it is called so")
    parts = tuple(sorted(array.path for array in arrays if array.path.startswith("action/")))
    if parts:
        return Vector(parts, "a part of the action")
    return action_by_name(arrays)


def _kind(spec: Spec) -> str:
    """NumPy's letter for a type; f where none is stated."""
    if "int" in spec.dtype:
        return "i"
    if spec.dtype == "bool":
        return "b"
    return "f"


def path_of(key: str) -> str:
    """A feature's path in a step, as people name it. Example: path_of("steps/action") == "action"."""
    return key.removeprefix(STEPS).removesuffix(RAGGED)


def text_by_name(steps: RldsRecord, num_rows: int) -> tuple[str, tuple[str, ...]]:
    """The text whose name says that it is the instruction, and what is in it; names of classes are texts, too."""
    texts_by_key: dict[str, Sequence[str]] = {}
    for key, spec in steps.specs.items():
        path = key.removeprefix(STEPS)
        if spec.kind == "text" and steps.has_values(key):
            texts_by_key[key] = texts(steps, path, num_rows)
        elif (label := label_of(steps, path)) is not None:
            texts_by_key[key] = (label,)
    return instructions(texts_by_key)


def account(
    listing: ListingBuilder,
    uri: str,
    steps: RldsRecord,
    roles: FeatureRoles,
    problems: Mapping[str, str],
    uses: Mapping[str, str],
) -> None:
    """Record every feature of a record; `uses`: what those are used for that are neither rows nor cameras, by key."""
    by_key = dict.fromkeys(roles.state, "state") | dict.fromkeys(roles.action, "action")
    by_key |= dict.fromkeys(roles.cameras.values(), "camera") | dict(uses)
    for key, spec in steps.specs.items():
        if not steps.has_values(key) and spec.kind != "other":
            continue
        base = key.removesuffix(RAGGED)
        form = {
            "shape": spec.shape or (),
            "dtype": spec.dtype or ("text" if spec.kind == "text" else ""),
            "file": uri,
        }
        if spec.is_picture:
            kind = "camera"
        elif spec.kind == "text":
            kind = "text"
        else:
            kind = "column"
        if use := by_key.get(key):
            listing.parts.used(
                kind, base, use, roles.why.get(key, "its name and type say so"), **form
            )
        elif reason := _known(key, spec, roles) or _blank(steps, key, spec):
            listing.parts.known(kind, base, reason, **form)
        else:
            listing.parts.unknown(kind, base, problems.get(key) or _why_unknown(key, spec), **form)
    # What the record has and its description does not
    for key in steps.features:
        if key in steps.specs or ROW_LENGTHS in key or not steps.has_values(key):
            continue
        if use := by_key.get(key):
            listing.parts.used("column", key, use, "its name says so", file=uri)
        else:
            listing.parts.unknown("column", key, "features.json does not describe it", file=uri)


def _known(key: str, spec: Spec, roles: FeatureRoles) -> str:
    path = path_of(key)
    for pattern, reason in (*roles.known, *KNOWN):
        if re.fullmatch(pattern, path):
            return reason
    if key in STEP_MARKS:
        return "marks rows or ends"
    if spec.kind in ("picture", "array") and other_kind(key):
        return f"pictures of {other_kind(key)}"
    if spec.kind == "text" and is_bookkeeping_text(path.rpartition("/")[2]):
        return "says where it is from"
    return known_reason(path)


def _blank(steps: RldsRecord, key: str, spec: Spec) -> str:
    """Why a text is none: in no step it has a letter."""
    is_text = spec.kind == "text" and steps.features[key].kind == "bytes"
    if is_text and all(start == end for start, end in steps.spans(key)):
        return "it holds no text"
    return ""


def _why_unknown(key: str, spec: Spec) -> str:
    if spec.kind == "other":
        return f"features of the type {spec.dtype} are not read"
    if key.endswith(RAGGED) and spec.kind == "picture":
        return "each step has several pictures"
    if spec.kind == "picture" and not spec.is_picture:
        return f"pictures of {spec.dtype} are not read"
    return "no name of a state, an action, a camera or a text that is known"
