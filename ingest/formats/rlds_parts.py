"""What the features of an RLDS record are: state, action, cameras and texts; and what each other one is, or why not
used.

Open X-Embodiment's converters keep the state in places of their own, which are a table by dataset;
else names tell.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np

from ingest.episode import PartKind
from ingest.formats.array_pictures import other_kind
from ingest.formats.array_roles import roles_of, why_known
from ingest.formats.listing import ListingBuilder
from ingest.formats.rlds_steps import (
    RAGGED,
    ROW_LENGTHS,
    RldsRecord,
    Spec,
    label_of,
    matrix,
    pictures,
    texts,
    unreadable,
)
from ingest.formats.tree import Part, Roles, Uses, fields
from ingest.formats.tree import account as account_for
from ingest.formats.writers import RLDS_WRITERS, writer_of
from ingest.media.frames import Picture
from ingest.registry import Keys

STEPS = "steps/"
KINDS: tuple[PartKind, PartKind] = ("column", "text")
OBSERVATION = "steps/observation/"
INVALID = ("invalid", "is_invalid", "episode_invalid")


class RecordTree(NamedTuple):
    """A tree (`tree.Tree`) of the features of a record, whose `roles` are by paths in a step, the rest by keys."""

    steps: RldsRecord
    keys: Keys
    num_rows: int

    def problems(self) -> dict[str, str]:
        """Why some numbers of the steps cannot be read. Raises DataError."""
        keys = [key for key, spec in self.steps.specs.items() if spec.kind == "numbers"]
        keys = [key for key in keys if key.startswith(STEPS) and self.steps.has_values(key)]
        problems = {key: unreadable(self.steps, key) for key in keys}
        return {key: problem for key, problem in problems.items() if problem}

    def parts(self) -> list[Part]:
        parts: list[Part] = []
        steps = self.steps
        for key, spec in steps.specs.items():
            if not steps.has_values(key) and spec.kind != "other":
                continue
            is_text = spec.kind == "text"
            kind = "camera" if spec.is_picture else KINDS[is_text]
            dtype = spec.dtype or "text" * is_text
            title = key.removesuffix(RAGGED)
            holds_pictures = spec.kind in ("picture", "array")
            parts.append(Part(key, kind, spec.shape or (), dtype, None, title, holds_pictures))
        undescribed = [
            key for key in steps.features if key not in steps.specs and ROW_LENGTHS not in key
        ]
        return parts + fields("", filter(steps.has_values, undescribed), "column")

    def roles(self) -> Roles:
        problems = self.problems()
        readable = (
            (path_of(key), spec)
            for key, spec in self.steps.specs.items()
            if key.startswith(STEPS) and spec.kind == "numbers" and key not in problems
            if self.steps.has_values(key)
        )
        return _roles(tuple(readable), self.keys.state, self.keys.action)

    def cameras(self) -> dict[str, str]:
        cameras = camera_keys(self.steps.specs.items())
        return {camera: key for camera, key in cameras.items() if key in self.steps.features}

    def read(self, path: str, rows: slice) -> np.ndarray:
        return matrix(self.steps, self.steps.key(path) or path, self.num_rows)[rows]

    def pictures(self, path: str, rows: slice) -> Iterator[Picture]:
        return islice(pictures(self.steps, path), rows.start, rows.stop)


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
    numeric: tuple[tuple[str, Spec], ...], state: tuple[str, ...], action: tuple[str, ...]
) -> Roles:
    parts = [
        Part(path, shape=(2, *(spec.static if spec.shape else (1,)))) for path, spec in numeric
    ]
    paths = {part.path for part in parts}
    writer = writer_of(RLDS_WRITERS, paths)
    # All of a dictionary of actions is the action, whatever its parts are called
    in_parts = tuple(sorted(path for path in paths if path.startswith("action/")))
    writer = writer and writer._replace(action=(*writer.action, in_parts))
    # Times of steps are in no unit that RLDS states
    return roles_of(parts, Keys(state=state, action=action), writer)._replace(times="")


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
    tree: RecordTree,
    roles: Roles,
    uses: Uses,
    overruled: Mapping[str, str],
) -> None:
    """Record every feature of a record; `uses`: what those are used for that are neither rows nor cameras, by key;
    `overruled`: why others are not, by path.
    """
    steps = tree.steps

    def why_left_out(part: Part) -> str:
        if part.path not in steps.specs:
            return ""
        path = path_of(part.path)
        reason = overruled.get(path) or why_known(part._replace(path=path), roles.writer)
        return reason or _blank(steps, part.path)

    all_uses = {steps.key(path) or path: use for path, use in roles.uses.items()}
    all_uses |= dict.fromkeys(tree.cameras().values(), ("camera", "its type says so"))
    parts = [part._replace(file=uri) for part in tree.parts()]
    account_for(listing.parts, parts, {**all_uses, **uses}, why_left_out, problems=tree.problems())


def _blank(steps: RldsRecord, key: str) -> str:
    """Why a text is none: in no step it has a letter."""
    is_text = steps.specs[key].kind == "text" and steps.features[key].kind == "bytes"
    if is_text and all(start == end for start, end in steps.spans(key)):
        return "it holds no text"
    return ""
