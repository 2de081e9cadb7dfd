"""Pictures that are edited for unanswerable samples. An edit is named <kind>-<seed as 8 hex digits>."""

from collections.abc import Callable
from importlib.metadata import entry_points

import numpy as np

from core.imports import bring_pandas_back

OCCLUDED, EDITED = "occluded", "edited"
EDITORS = "proccorpus.image_editors"

# (RGB uint8 [h, w, 3], what to do, seed) -> RGB uint8 [h', w', 3]
Editor = Callable[[np.ndarray, str, int], np.ndarray]


class EditError(Exception):
    """An image editor that is not there or does not do its work: which, and what to do."""


def load_editor(name: str) -> Editor:
    """The entry point of that name in the group proccorpus.image_editors of an installed package. Raises EditError."""
    editors = entry_points(group=EDITORS)
    if name not in editors.names:
        installed = ", ".join(sorted(editors.names)) or "none"
        raise EditError(
            f"samples.image_editor: no installed package has the {EDITORS} entry point {name!r}: {installed}"
        )
    bring_pandas_back()
    return editors[name].load()


def edited(rgb: np.ndarray, instruction: str, seed: int, editor: Editor, name: str) -> np.ndarray:
    """Edit a picture. Raises EditError if the editor returns no picture, or the same one."""
    picture = editor(rgb.copy(), instruction, seed)
    if not _is_rgb(picture):
        raise EditError(f"the image editor {name} did not return an array uint8 [h, w, 3]")
    if picture.shape == rgb.shape and (picture == rgb).all():
        raise EditError(f"the image editor {name} left a picture as it was, although told: {instruction}")
    return picture


def _is_rgb(picture: object) -> bool:
    return isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
