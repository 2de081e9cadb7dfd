"""A video with the reward's curve under the picture, for people: h264, yuv420p and fast start, which browsers play."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.reward.video import RunClip, frames
from ingest.media.curve_panel import CurvePanel
from ingest.media.encoding import SHOWN, encode


def write_overlay(
    out: Path, clip: RunClip, rows: Sequence[Mapping[str, Any]], partial: bool = False
) -> None:
    """Encode the first camera's frames with the curve of `rows` up to each, in one streaming pass; behind it the
    clip's label, where it has one. Raises RewardError.
    """
    panel = CurvePanel(clip.fps, rows, clip.steps, clip.labelled)
    camera = clip.cameras[0]
    images = (
        panel.below(camera_frames[camera][1].rgb(), index)
        for index, camera_frames in enumerate(frames(clip, partial))
    )
    encode(images, out, clip.fps, SHOWN)
