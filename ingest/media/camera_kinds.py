"""What a stream of pictures shows beside colours: depth, masks, touch. By its name, and by what its pictures look like.

Recorders that know colour videos alone store all of these as such. A name is a prior: a camera is
left out where its pictures say so, too.
"""

from collections.abc import Collection, Mapping

import numpy as np

from ingest.signals.naming import words

KIND_OF_WORD = {
    **dict.fromkeys(("depth", "disparity"), "depth"),
    **dict.fromkeys(("segmentation", "seg", "segm", "semantic", "mask", "masks"), "masks"),
    **dict.fromkeys(("tactile", "touch", "gelsight", "gelslim", "visuotactile", "tactip"), "touch"),
    **dict.fromkeys(("infrared", "infra", "ir", "thermal"), "infrared"),
    **dict.fromkeys(("flow", "normal", "normals"), "motion"),
}
COLOURS = ("rgb", "bgr", "color", "colour", "rgbd")
# Between the channels of a pixel, on average: what an encoder makes of equal ones
GREY_DIFFERENCE = 6.0
# So few colours, of 16 levels a channel, cover so much of a picture of masks
FEW_COLOURS = 12
FLAT_SHARE = 0.8


def kind_by_name(
    camera: str,
    kinds: Mapping[str, str] = KIND_OF_WORD,
    colours: Collection[str] = COLOURS,
) -> str:
    """What a camera shows beside colours, by the last word of its name that says it; "" for colours.

    Example: kind_by_name("observation.images.depth") == "depth", and
    kind_by_name("depth_camera_rgb") == "".
    """
    telling = [word for word in words(camera) if word in kinds or word in colours]
    if telling:
        return kinds.get(telling[-1], "")
    return ""


def look_of(rgb: np.ndarray) -> str:
    """How a picture [h, w, 3] uint8 looks where it is no camera's: "grey" or "of few colours"; else ""."""
    channels = rgb.astype(np.int16)
    if float((channels.max(axis=2) - channels.min(axis=2)).mean()) < GREY_DIFFERENCE:
        return "grey"
    levels = (channels >> 4).reshape(-1, 3) @ np.array([256, 16, 1])
    _, counts = np.unique(levels, return_counts=True)
    if np.sort(counts)[::-1][:FEW_COLOURS].sum() >= FLAT_SHARE * len(levels):
        return "of few colours"
    return ""
