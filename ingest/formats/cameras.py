"""Cameras by preference for labelling: what the registry names, then what sees the scene, then what sees the hand."""

from collections.abc import Iterable

from ingest.registry import Cameras

NEAR = ("wrist", "hand", "gripper", "eye_in", "finger")  # in the names of cameras that see little of the scene
ARMS = (*NEAR, "left", "right")


def in_order(
    cameras: Iterable[str], registry: Cameras, first: tuple[str, ...] = (), last: tuple[str, ...] = NEAR
) -> list[str]:
    """The registry's cameras, then `first`, then others, then those with a part of `last` in their name."""
    preferred = (*registry.ordered(), *first)
    # Reversed, so that of a camera that is named twice the first place counts
    rank = {c: k for k, c in reversed(list(enumerate(preferred)))}

    def key(camera: str) -> tuple[int, str]:
        return rank.get(camera, len(preferred) + _has_part(camera, last)), camera

    return sorted(set(cameras), key=key)


def scene_first(cameras: Iterable[str], registry: Cameras) -> list[str]:
    """As `in_order`, but cameras that the registry does not name come before those that it names as the wrist's only.

    For formats with names that say nothing, such as serial numbers.
    """
    seeing, wrist = [*registry.views, *registry.exo, *registry.ego], list(registry.wrist)

    # 0: named as seeing the scene; 1 and 2: not named, 2 where its own name says that it is near; 3: the wrist's
    def key(camera: str) -> tuple[int, int, str]:
        if camera in seeing:
            return 0, seeing.index(camera), camera
        if camera in wrist:
            return 3, wrist.index(camera), camera
        return 1 + _has_part(camera, ARMS), 0, camera

    return sorted(cameras, key=key)


def _has_part(camera: str, parts: tuple[str, ...]) -> bool:
    return any(part in camera.lower() for part in parts)
