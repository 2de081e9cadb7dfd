"""The tiny corpus with faults that checks find: a camera that is black, one that stands still."""

from pathlib import Path

from tests.kits.tiny_lerobot import make_dataset, write_video

LENGTHS = (72, 18, 30, 12, 26)  # frames of episodes 0, 1, ...
BLACK = range(18, 28)  # frames of episode 0
FROZEN = range(10, 22)  # frames of episode 2
FAULTS = {"camera_black": 0, "camera_frozen": 2}  # the episode of each


def make_source(root: Path) -> Path:
    make_dataset(root, LENGTHS)
    write_video(root, 0, LENGTHS[0], black=BLACK)
    write_video(root, 2, LENGTHS[2], frozen=FROZEN)
    return root
