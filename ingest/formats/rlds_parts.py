"""What the features of an RLDS record are: state, action, cameras and texts; and what each other one is, or why not
used.

Open X-Embodiment's converters keep the state in places of their own, which are a table by dataset;
else names tell.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from ingest.formats import array_roles
from ingest.formats.array_pictures import other_kind
from ingest.formats.array_roles import why_known
from ingest.formats.listing import ListingBuilder
from ingest.formats.rlds_steps import (
    RAGGED,
    ROW_LENGTHS,
    RldsRecord,
    Spec,
    label_of,
    texts,
    unreadable,
)
from ingest.formats.tree import Part, Uses, fields
from ingest.formats.tree import account as account_for
from ingest.formats.writers import RLDS_WRITERS, Writer, writer_of
from ingest.registry import Keys

STEPS = "steps/"
OBSERVATION = "steps/observation/"
INVALID = ("invalid", "is_invalid", "episode_invalid")


class FeatureRoles(NamedTuple):
    """Features by what they are; `uses`: what shows it, by key; `overruled`: why others are not, by path; `problems`:
    why some numbers cannot be read, by key.
    """

    state: tuple[str, ...]
    action: tuple[str, ...]
    uses: Uses
    overruled: Mapping[str, str]
    writer: Writer | None
    problems: Mapping[str, str]


def roles_of(steps: RldsRecord, keys: Keys) -> FeatureRoles:
    """What the features of a record are. Raises DataError."""
    present = tuple((key, spec) for key, spec in steps.specs.items() if steps.has_values(key))
    problems = {
        key: problem
        for key, spec in present
        if spec.kind == "numbers" and key.startswith(STEPS) and (problem := unreadable(steps, key))
    }
    readable = tuple(item for item in present if item[0] not in problems)
    return _roles(readable, keys.state, keys.action)._replace(problems=problems)


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
    parts = [
        Part(path, shape=(2, *(spec.static if spec.shape else (1,))))
        for path, (_, spec) in numeric.items()
    ]
    writer = writer_of(RLDS_WRITERS, numeric.keys())
    # All of a dictionary of actions is the action, whatever its parts are called
    in_parts = tuple(sorted(path for path in numeric if path.startswith("action/")))
    writer = writer and writer._replace(action=(*writer.action, in_parts))
    roles = array_roles.roles_of(parts, Keys(state=state, action=action), writer)
    cameras = dict.fromkeys(camera_keys(present).values(), ("camera", "its type says so"))
    uses = {numeric[path][0]: use for path, use in roles.uses.items()} | cameras
    state = tuple(numeric[path][0] for path in roles.state.paths)
    action = tuple(numeric[path][0] for path in roles.action.paths)
    return FeatureRoles(state, action, uses, roles.overruled, writer, {})


def path_of(key: str) -> str:
    """A feature's path in a step, as people name it. Example: path_of("steps/action") == "action"."""
    return key.removeprefix(STEPS).removesuffix(RAGGED)


def texts_by_key(steps: RldsRecord, num_rows: int) -> dict[str, Sequence[str]]:
    """The texts of a record; names of classes are texts, too."""
    by_key: dict[str, Sequence[str]] = {}
    for key, spec in steps.specs.items():
        path = key.removeprefix(STEPS)
        if spec.kind == "text" and steps.has_values(key):
            by_key[key] = texts(steps, path, num_rows)
        elif (label := label_of(steps, path)) is not None:
            by_key[key] = (label,)
    return by_key


def account(
    listing: ListingBuilder,
    uri: str,
    steps: RldsRecord,
    roles: FeatureRoles,
    uses: Uses,
    overruled: Mapping[str, str],
) -> None:
    """Record every feature of a record; `uses`: what those are used for that are neither rows nor cameras, by key;
    `overruled`: why others are not, by path.
    """
    parts = []
    for key, spec in steps.specs.items():
        if not steps.has_values(key) and spec.kind != "other":
            continue
        kind = "camera" if spec.is_picture else "text" if spec.kind == "text" else "column"
        dtype = spec.dtype or ("text" if spec.kind == "text" else "")
        title = key.removesuffix(RAGGED)
        holds_pictures = spec.kind in ("picture", "array")
        parts.append(Part(key, kind, spec.shape or (), dtype, uri, title, holds_pictures))
    undescribed = [
        key for key in steps.features if key not in steps.specs and ROW_LENGTHS not in key
    ]
    parts += fields("", filter(steps.has_values, undescribed), "column", uri)

    def why_left_out(part: Part) -> str:
        if part.path not in steps.specs:
            return ""
        path = path_of(part.path)
        reason = overruled.get(path) or why_known(part._replace(path=path), roles.writer)
        return reason or _blank(steps, part.path)

    all_uses = {**roles.uses, **uses}
    account_for(listing.parts, parts, all_uses, why_left_out, problems=roles.problems)


def _blank(steps: RldsRecord, key: str) -> str:
    """Why a text is none: in no step it has a letter."""
    is_text = steps.specs[key].kind == "text" and steps.features[key].kind == "bytes"
    if is_text and all(start == end for start, end in steps.spans(key)):
        return "it holds no text"
    return ""
